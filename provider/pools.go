package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
	"github.com/heraldlb/herald/provider/configuration"
)

const (
	// statusPeriod is the minimum time between updates of the pools' status: a thousand new Services cost one write per
	// second, not a thousand writes.
	statusPeriod = time.Second
	// editPause is how long to wait for further edits after an edit of a pool: a file with many pools is one edit.
	editPause = 20 * time.Millisecond
)

// poolsAPI is the client for IPPools.
type poolsAPI interface {
	Patch(context.Context, string, types.PatchType, []byte, metav1.PatchOptions, ...string) (*herald.IPPool, error)
	UpdateStatus(context.Context, *herald.IPPool, metav1.UpdateOptions) (*herald.IPPool, error)
}

// pools brings the IPPools into the ledger, and keeps their status and finalizer up to date. One goroutine, run, does
// all of it.
type pools struct {
	api      poolsAPI
	cache    cache.Store
	services *services
	records  *records
	ledger   *ledger
	changes  *changes
	untold   *untold
	log      *zap.Logger
	// assessed returns the last assessment of a pool; nil if there is none.
	assessed func(name string) *configuration.PoolAssessment
	// granted returns the condition Granted of a pool with spec.externalPoolRef; nil if it does not change.
	granted func(pool *herald.IPPool) *metav1.Condition

	// Owned by run, and by load before run starts: for each pool the error in its spec, the last version that was
	// valid, and the generation that the ledger has.
	invalid map[types.UID]error
	valid   map[types.UID]*herald.IPPool
	loaded  map[types.UID]int64

	mu sync.Mutex
	// whys has, for each pool whose status was compared or written, why nothing announces it; empty if something does.
	whys map[string]string
}

// poolHandler sets edited when a pool is created, edited or deleted.
func poolHandler(edited trigger) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { edited.set() },
		UpdateFunc: func(before, after any) {
			// Our own writes of the status do not raise the generation. A deletion does.
			if before.(metav1.Object).GetGeneration() != after.(metav1.Object).GetGeneration() {
				edited.set()
			}
		},
		DeleteFunc: func(any) { edited.set() },
	}
}

func (s *pools) run(ctx context.Context) error {
	s.changes.usage.set()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.changes.edits:
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(editPause):
			}
			s.changes.edits.reset()
			s.load()
			s.changes.capacity.set()
		case <-s.changes.usage:
		}
		if err := s.publish(ctx); err != nil {
			if ctx.Err() == nil {
				s.log.Warn("failed to write the status of IPPools, trying again", zap.Error(err))
			}
			s.changes.usage.set()
		}
		// An edit does not wait for the next update of the status.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.changes.edits:
			s.changes.edits.set()
		case <-time.After(statusPeriod):
		}
	}
}

// list returns the pools, oldest first.
func (s *pools) list() []*herald.IPPool {
	all := client.Items[*herald.IPPool](s.cache)
	slices.SortFunc(all, func(x, y *herald.IPPool) int { return Older(x, y) })
	return all
}

// names returns the names of the pools, oldest first.
func (s *pools) names() []string { return namesOfPools(s.list()) }

func namesOfPools(pools []*herald.IPPool) (names []string) {
	for _, o := range pools {
		names = append(names, o.Name)
	}
	return names
}

// load gives the ledger the pools. If the spec of a pool is invalid, the last valid spec stays in force. After a
// restart that spec is not known: then the pool keeps its addresses and gives out no further ones. The status says what
// is wrong.
func (s *pools) load() {
	var all []ipam.Pool
	terms := map[string]poolTerms{}
	list, before := s.list(), s.valid
	s.valid = map[types.UID]*herald.IPPool{}
	clear(s.invalid)
	clear(s.loaded)
	for _, o := range list {
		s.loaded[o.UID] = o.Generation
		inForce := o
		pool, err := PoolOf(o)
		if err == nil {
			s.valid[o.UID] = o
		} else if s.invalid[o.UID] = err; before[o.UID] != nil {
			inForce = before[o.UID]
			s.valid[o.UID] = inForce
			pool, _ = PoolOf(inForce) // valid when it was stored
			pool.Closed = pool.Closed || o.DeletionTimestamp != nil
		} else {
			pool = ClosedPool(o, s.recorded(o.Name))
		}
		all = append(all, pool)
		terms[o.Name] = reclaimTerms(&inForce.Spec, o.DeletionTimestamp != nil)
	}
	s.changes.record(s.ledger.setPools(all, terms)...)
	s.changes.classes.set()
	s.changes.claims.set()
	for _, o := range list {
		if o.DeletionTimestamp != nil {
			s.changes.record(s.recorded(o.Name)...) // to release the addresses that are kept for names
		}
	}
}

// recorded lists the recorded addresses of a pool.
func (s *pools) recorded(pool string) (addresses []netip.Addr) {
	for _, rec := range s.records.ofPool(pool) {
		if address, err := netip.ParseAddr(rec.Spec.Address); err == nil {
			addresses = append(addresses, address)
		}
	}
	return addresses
}

// reclaimTerms returns what happens to the released addresses of a pool.
func reclaimTerms(spec *herald.IPPoolSpec, deleting bool) poolTerms {
	t := poolTerms{external: spec.ExternalPoolRef, reclaim: spec.ReclaimPolicy, mayRetain: spec.AllowRetain || spec.ReclaimPolicy == herald.ReclaimRetain, lasting: !deleting, deleting: deleting}
	if spec.ReuseDelay != nil {
		t.delay = spec.ReuseDelay.Duration
	}
	return t
}

// publish writes the status of every pool whose status changed, and adds the finalizer. Every pool has it from the
// beginning, because adding it on first use would race with a deletion.
func (s *pools) publish(ctx context.Context) error {
	list := s.list()
	if slices.ContainsFunc(list, func(o *herald.IPPool) bool { return s.loaded[o.UID] != o.Generation }) {
		s.load() // The status is then about this generation, and a pool is certainly closed before it is deleted.
	}
	var errs []error
	names := namesOfPools(list)
	s.mu.Lock()
	maps.DeleteFunc(s.whys, func(pool, _ string) bool { return !slices.Contains(names, pool) })
	s.mu.Unlock()
	uses := s.ledger.use(names)
	for _, o := range list {
		u := uses[o.Name]
		if o.DeletionTimestamp != nil {
			u.holders = s.holders(o.Name)
		}
		err := s.publishOne(ctx, o, u)
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("IPPool %s: %w", o.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (s *pools) publishOne(ctx context.Context, o *herald.IPPool, u use) error {
	edit := o.DeepCopy()
	edit.Finalizers = slices.DeleteFunc(edit.Finalizers, func(f string) bool { return f == herald.PoolFinalizer })
	if o.DeletionTimestamp == nil || len(u.holders) > 0 || u.assigned() {
		edit.Finalizers = append(edit.Finalizers, herald.PoolFinalizer)
	}
	if len(edit.Finalizers) != len(o.Finalizers) {
		// The patch leaves out the spec: writing it back could change its wording, or lose fields that this version
		// does not know.
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"finalizers": edit.Finalizers, "resourceVersion": o.ResourceVersion}})
		if err != nil {
			return err
		}
		updated, err := s.api.Patch(ctx, o.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		if err != nil || len(edit.Finalizers) == 0 && o.DeletionTimestamp != nil {
			return err
		}
		edit = updated
	}
	describePool(edit, u, s.assessed(o.Name), s.invalid[o.UID], s.valid[o.UID] != nil)
	if c := s.granted(o); o.Spec.ExternalPoolRef == nil {
		meta.RemoveStatusCondition(&edit.Status.Conditions, herald.PoolGranted)
	} else if c != nil {
		meta.SetStatusCondition(&edit.Status.Conditions, *c)
	}
	was := s.unannounced(o.Name) // The cache may have the new status as soon as it is written, also if the answer to the write is lost.
	if !equality.Semantic.DeepEqual(edit.Status, o.Status) {
		if _, err := s.api.UpdateStatus(ctx, edit, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	s.know(o.Name, unannounced(edit))
	if was == "" {
		s.tellUnannounced(edit)
	}
	return nil
}

// tellUnannounced has the Services told that have addresses of a pool if nothing announces the pool, or nothing does any more. Later
// Services are told with their addresses. The reason is known before the ledger is read, and a Service asks for it after the ledger has
// its record, so a Service that is being recorded is told as well. That the pool is in no subnet of the nodes says nothing of an address
// that was taken out of the pool: it may still be announced.
func (s *pools) tellUnannounced(o *herald.IPPool) {
	if unannounced(o) != "" {
		offSubnet := meta.FindStatusCondition(o.Status.Conditions, herald.ConditionAnnounced).Reason == herald.ReasonOffSubnet
		s.untold.add(o.Name, s.ledger.holdersIn(o.Name, offSubnet)...)
	}
}

// know notes why the configuration announces no addresses of a pool, as its status in the API server says. The cache has that status
// later.
func (s *pools) know(pool, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.whys[pool] = why
}

// unannounced returns why the configuration announces no addresses of a pool. It is empty if something announces them,
// or if this is not known yet.
func (s *pools) unannounced(pool string) string {
	s.mu.Lock()
	why, known := s.whys[pool]
	s.mu.Unlock()
	if known {
		return why
	}
	o, exists, err := s.cache.GetByKey(pool)
	if err != nil || !exists {
		return ""
	}
	return unannounced(o.(*herald.IPPool))
}

func unannounced(o *herald.IPPool) string {
	c := meta.FindStatusCondition(o.Status.Conditions, herald.ConditionAnnounced)
	if c == nil || c.Status != metav1.ConditionFalse || c.Reason != herald.ReasonNoAdvertisement && c.Reason != herald.ReasonOffSubnet {
		return "" // The status of the pool has temporary problems of the speakers, for example while they start.
	}
	return fmt.Sprintf("IPPool %s is not announced: %s", o.Name, c.Message)
}

// holders lists the recorded addresses of a pool, each with its holders.
func (s *pools) holders(pool string) []string {
	var list []string
	for _, rec := range s.records.ofPool(pool) {
		if address, tenants, _ := TenantsOf(rec); address.IsValid() {
			list = append(list, fmt.Sprintf("%s (%s)", address, namesOf(tenants)))
		}
	}
	slices.Sort(list)
	return list
}
