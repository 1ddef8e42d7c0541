package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// claimsRetry is the delay after which claims are read or written again when that failed, and after which the API server is
// asked again for definitions that are missing.
const claimsRetry = 3 * time.Second

// longestLookPause is the longest time between two attempts to look for claims of an earlier run.
const longestLookPause = 5 * time.Minute

// ourClaims selects the claims that a herald-ccm created.
const ourClaims = herald.LabelManagedBy + "=" + herald.LabelManagedByValue

// claims asks other systems for addresses: it creates an IPAddressClaim for each address that a Service needs from a pool
// with spec.externalPoolRef, and deletes those that nobody needs. On every change it compares all claims with all that are
// needed. One goroutine, run, does all of this. Before a pool has the field it only looks once for claims of an earlier run.
type claims struct {
	services  *services
	requests  requests
	ledger    *ledger
	records   *records
	waiting   *waiting
	changes   *changes
	discovery discovery.DiscoveryInterface
	dynamic   dynamic.Interface
	namespace string
	class     string
	log       *zap.Logger
	// grants has what is known of the claims, without those that are about to be deleted. It is never nil.
	grants *atomic.Pointer[Grants]
	// known has all. It belongs to run.
	known *Grants

	mu sync.Mutex
	// problem is why claims cannot be read; nil if they can. Until read is true, it is not known whether they can.
	problem error
	read    bool
	// told has what each waiting Service was told last.
	told map[types.UID]string
	// refusals has what is wrong with claims that Services wait for, by IPPool.
	refusals map[string][]string
	// failed has the claims that could not be created the last time, and why.
	failed map[string]string
}

func (c *claims) run(ctx context.Context) error {
	looked, next, pause := false, time.Time{}, claimsRetry // whether and when to look for claims of an earlier run
	for {
		var again, look <-chan time.Time
		needed := c.needed()
		if now := time.Now(); !needed && !looked && !now.Before(next) {
			var err error
			if needed, err = c.leftover(ctx); err == nil {
				looked = !needed
			} else {
				c.log.Warn("cannot look for IPAddressClaims of an earlier run, trying again", zap.Error(err), zap.Duration("in", pause))
				next, pause = now.Add(pause), min(2*pause, longestLookPause)
			}
		}
		if !needed && !looked {
			look = time.After(time.Until(next))
		}
		if needed {
			version, err := c.discover()
			if err == nil {
				err = c.serve(ctx, version)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			c.report(err)
			again = time.After(claimsRetry)
		}
		c.know(newGrants(c.namespace, nil, nil, c.ledger.external(), c.records.haveClaim))
		c.retell()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.changes.claims:
			if again != nil {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-again:
				}
			}
		case <-again:
		case <-look:
		}
	}
}

// needed reports whether claims are to be created, now or later, or to be deleted when their addresses are free.
func (c *claims) needed() bool { return len(c.ledger.external()) > 0 || c.records.haveClaims() }

// leftover reports whether there are claims of an earlier run. It is asked once, if nothing else says that claims are needed: the
// pool may have lost spec.externalPoolRef while no herald-ccm ran.
func (c *claims) leftover(ctx context.Context) (bool, error) {
	version, err := c.discover()
	if _, missing := errors.AsType[*missingError](err); missing {
		return false, nil
	} else if err != nil {
		return false, err
	}
	list, err := c.dynamic.Resource(c.resource(version, claimsResource)).Namespace(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: ourClaims, Limit: 1})
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	return len(list.Items) > 0, nil
}

// missingError says that a CustomResourceDefinition of the contract is not installed.
type missingError struct{ resource string }

func (e *missingError) Error() string {
	return fmt.Sprintf("CustomResourceDefinition %s.%s is not installed: install the IPAM provider of the pool that spec.externalPoolRef names", e.resource, IPAMGroup)
}

// discover returns the version of the contract that the API server serves.
func (c *claims) discover() (version string, err error) {
	missing := &missingError{claimsResource}
	for _, version := range IPAMVersions {
		list, err := c.discovery.ServerResourcesForGroupVersion(IPAMGroup + "/" + version)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return "", err
		}
		serves := func(resource string) bool {
			return slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == resource })
		}
		if serves(claimsResource) && serves(grantsResource) {
			return version, nil
		}
		if serves(claimsResource) {
			missing.resource = grantsResource
		}
	}
	return "", missing
}

func (c *claims) resource(version, resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: IPAMGroup, Version: version, Resource: resource}
}

// serve reads and writes claims until ctx ends, or until they cannot be read.
func (c *claims) serve(ctx context.Context, version string) error {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	asked := c.informer(c.resource(version, claimsResource), ourClaims, failed, func(u *unstructured.Unstructured) any { return claimOf(u) })
	granted := c.informer(c.resource(version, grantsResource), "", failed, func(u *unstructured.Unstructured) any { return grantOf(u) })
	synced := make(chan struct{})
	running.Go(func() { asked.RunWithContext(ctx) })
	running.Go(func() { granted.RunWithContext(ctx) })
	running.Go(func() {
		if cache.WaitForCacheSync(ctx.Done(), asked.HasSynced, granted.HasSynced) {
			close(synced)
		}
	})
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-failed:
		return err
	case <-synced:
	}
	api := c.dynamic.Resource(c.resource(version, claimsResource)).Namespace(c.namespace)
	for {
		decided, err := c.sync(ctx, api, version, contents[Claim](asked.GetStore()), contents[grant](granted.GetStore()))
		var again <-chan time.Time
		if err != nil && ctx.Err() == nil {
			c.log.Warn("failed to write IPAddressClaims, trying again", zap.Error(err))
			again = time.After(claimsRetry)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(max(wakePeriod, 10*decided)):
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failed:
			return err
		case <-c.changes.claims:
		case <-again:
		}
	}
}

// seen is the part of an object that is kept of it.
type seen struct {
	metav1.ObjectMeta
	content any
}

// informer returns an informer of one resource in the namespace of herald-ccm, which keeps what read returns. It passes on the
// error if the resource cannot be read. After the first list only two errors count: that it does not exist, and that
// herald-ccm may not read it.
func (c *claims) informer(r schema.GroupVersionResource, selector string, failed chan<- error, read func(*unstructured.Unstructured) any) cache.SharedIndexInformer {
	i := dynamicinformer.NewFilteredDynamicInformer(c.dynamic, r, c.namespace, 0, nil, func(o *metav1.ListOptions) { o.LabelSelector = selector }).Informer()
	// The following fail only for an informer that runs or ran.
	_ = i.SetTransform(func(o any) (any, error) {
		if u, ok := o.(*unstructured.Unstructured); ok {
			return &seen{metav1.ObjectMeta{Namespace: u.GetNamespace(), Name: u.GetName(), UID: u.GetUID(), ResourceVersion: u.GetResourceVersion()}, read(u)}, nil
		}
		return o, nil
	})
	_ = i.SetWatchErrorHandlerWithContext(func(ctx context.Context, reflector *cache.Reflector, err error) {
		if i.HasSynced() && !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
			cache.DefaultWatchErrorHandler(ctx, reflector, err)
			return
		}
		if apierrors.IsNotFound(err) {
			err = &missingError{r.Resource}
		}
		select {
		case failed <- err:
		default:
		}
	})
	look := func(any) { c.changes.claims.set() }
	_, _ = i.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: look, UpdateFunc: func(_, o any) { look(o) }, DeleteFunc: look})
	return i
}

// contents returns what is kept of the objects in a store.
func contents[T any](store cache.Store) (all []T) {
	for _, o := range store.List() {
		if s, ok := o.(*seen); ok {
			all = append(all, s.content.(T))
		}
	}
	return all
}

// sync makes the claims those that are needed. A claim is needed if a record names it, if its Service has the granted
// address, or if its Service waits for it. decided is how long it took to find the difference.
func (c *claims) sync(ctx context.Context, api dynamic.ResourceInterface, version string, asked []Claim, granted []grant) (decided time.Duration, err error) {
	start, served := time.Now(), c.grants.Load()
	recorded := c.ledger.claims() // The ledger knows a new record before the cache does.
	is := newGrants(c.namespace, asked, granted, c.ledger.external(), func(claim string) bool { return recorded[claim] || c.records.haveClaim(claim) })
	if was := c.know(is); !was.equal(is) {
		c.changes.capacity.set()
		c.changes.usage.set()
	}
	c.report(nil)
	needed, refusals, unread := map[string]bool{}, map[string][]string{}, map[string]error{}
	var create []Claim
	claimed := map[string][]ipam.Claimed{} // by namespace, for the claims in create
	for _, svc := range c.concerned(is) {
		namespace, err := (*corev1.Namespace)(nil), unread[svc.Namespace]
		if err == nil {
			namespace, err = c.requests.find(ctx, svc.Namespace)
		}
		if err != nil { // Without the quota, a claim that is needed might be deleted.
			unread[svc.Namespace] = err
			for _, o := range is.claims[string(svc.UID)] {
				needed[o.Name] = true
			}
			continue
		}
		req, err := c.requests.of(svc, namespace)
		if err != nil {
			continue
		}
		c.ledger.reconsider(svc, req)
		req.Claimed = append(req.Claimed, claimed[svc.Namespace]...)
		open, missing := is.open(req.Owner, c.ledger.wants(req), c.idle)
		create = append(create, missing...)
		for _, o := range missing {
			if text := c.failure(o); text != "" {
				refusals[o.Pool] = append(refusals[o.Pool], text)
			}
			claimed[svc.Namespace] = append(claimed[svc.Namespace], ipam.Claimed{Pool: o.Pool, Family: o.family})
		}
		for _, o := range open {
			needed[o.Name] = true
			if refused := c.ledger.refused(req, o); refused != nil || o.failure != "" {
				refusals[o.Pool] = append(refusals[o.Pool], is.words(o, refused))
			}
		}
	}
	for name := range needed {
		if served.named[name].deleting && !is.named[name].deleting {
			c.changes.capacity.set() // A Service may wait because this claim was about to be deleted.
			break
		}
	}
	c.refuse(refusals)
	c.retell()
	superfluous := slices.DeleteFunc(slices.Collect(maps.Values(is.named)), func(o Claim) bool {
		return o.class != c.class || o.deleting || needed[o.Name] || !c.idle(o)
	})
	if len(superfluous) > 0 {
		// From now on no Service gets an address for them. Whether a claim is in use is asked last: a Service that no longer waits
		// for it may just have got the address.
		c.grants.Store(is.without(superfluous))
		superfluous = slices.DeleteFunc(superfluous, func(o Claim) bool { return !c.idle(o) })
	}
	decided = time.Since(start)
	errs := slices.Collect(maps.Values(unread))
	errs = append(errs, write(ctx, superfluous, func(ctx context.Context, o Claim) error { return c.remove(ctx, api, o) })...)
	created := write(ctx, create, func(ctx context.Context, o Claim) error {
		_, err := api.Create(ctx, o.object(version, c.class), metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil // The informer will have it.
		}
		return err
	})
	if c.fail(create, created) {
		c.retell()
	}
	return decided, errors.Join(append(errs, created...)...)
}

// know notes what is known of the claims, and returns what was known before. If nothing has changed, decisions that were made with
// the grants of before stay valid.
func (c *claims) know(is *Grants) (was *Grants) {
	was = c.known
	if was.equal(is) && c.grants.Load() == was {
		return was
	}
	c.known = is
	c.grants.Store(is)
	return was
}

// write writes several claims at once, and returns an error, or nil, for each. It goes on if the API server refuses one, and stops
// if the API server is not available.
func write(ctx context.Context, all []Claim, one func(context.Context, Claim) error) []error {
	errs := make([]error, len(all))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(reconcileWorkers)
	for i, o := range all {
		g.Go(func() error {
			if ctx.Err() != nil {
				return nil
			}
			err := one(ctx, o)
			if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
				return nil // Another one has ended this one.
			}
			errs[i] = err
			if unavailable(err) {
				return err
			}
			return nil
		})
	}
	_ = g.Wait() // The error is among errs.
	return errs
}

// idle reports whether a claim is not in use: no record names it, and its Service does not have the address. The ledger knows
// a new record before the cache does.
func (c *claims) idle(o Claim) bool {
	return !o.recorded && !c.records.haveClaim(o.Name) && !c.ledger.uses(o)
}

// concerned returns the Services that may wait for claims: those that wait for an address, and those with a claim that is not
// in use. They are in the order in which quotas count their claims.
func (c *claims) concerned(is *Grants) []*corev1.Service {
	all := map[types.UID]*corev1.Service{}
	for _, svc := range c.waiting.list() {
		if c.services.wants(svc) {
			all[svc.UID] = svc
		}
	}
	for _, of := range is.claims {
		if svc := c.services.of(of[0].Owner); svc != nil && c.services.wants(svc) && slices.ContainsFunc(of, c.idle) {
			all[svc.UID] = svc
		}
	}
	return slices.SortedFunc(maps.Values(all), func(x, y *corev1.Service) int { return cmp.Or(cmp.Compare(is.rank(x), is.rank(y)), Older(x, y)) })
}

// remove deletes a claim. It asks the API server for the Service, because another leader may have created the claim for a
// Service that the cache does not have yet, and for the record of the address, because another leader may have recorded it.
// The preconditions keep a claim that has changed in the meantime.
func (c *claims) remove(ctx context.Context, api dynamic.ResourceInterface, o Claim) error {
	if c.services.of(o.Owner) == nil {
		svc, err := c.services.fetch(ctx, o.Owner.Namespace, o.Owner.Name)
		if err != nil {
			return err
		}
		if svc != nil && string(svc.UID) == o.Owner.UID && c.services.wants(svc) {
			return nil // When the cache has it, claims are compared again.
		}
	}
	if o.Address.IsValid() {
		rec, err := c.records.fetch(ctx, herald.AllocationName(o.Address))
		if _, unreadable := errors.AsType[*client.DecodeError](err); err != nil && !unreadable {
			return err
		} else if unreadable || rec != nil && rec.Spec.Claim == o.Name {
			return nil
		}
	}
	uid := types.UID(o.uid)
	err := api.Delete(ctx, o.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &o.version}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// report notes whether claims can be read.
func (c *claims) report(err error) {
	c.mu.Lock()
	changed := !c.read || fmt.Sprint(err) != fmt.Sprint(c.problem)
	c.problem, c.read = err, true
	c.mu.Unlock()
	if !changed {
		return
	}
	if err != nil {
		c.log.Warn("cannot read IPAddressClaims, trying again", zap.Error(err))
	}
	c.changes.usage.set()
}

// refuse notes what is wrong with claims.
func (c *claims) refuse(refusals map[string][]string) {
	for _, texts := range refusals {
		slices.Sort(texts)
	}
	c.mu.Lock()
	changed := !maps.EqualFunc(c.refusals, refusals, slices.Equal)
	c.refusals = refusals
	c.mu.Unlock()
	if changed {
		c.changes.usage.set()
	}
}

// fail notes which claims could not be created, and reports whether these are others than before.
func (c *claims) fail(claims []Claim, errs []error) (changed bool) {
	failed := map[string]string{}
	for i, o := range claims {
		if errs[i] != nil {
			failed[o.Name] = fmt.Sprintf("IPAddressClaim %s/%s cannot be created, for IPPool %s: %s", c.namespace, o.Name, o.Pool, cutAt(errs[i].Error(), maxFailure))
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	changed = !maps.Equal(c.failed, failed)
	c.failed = failed
	return changed
}

// failure returns why a claim could not be created; empty if that was not tried, or if it could.
func (c *claims) failure(o Claim) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed[o.Name]
}

// tell returns the error of a Service that is not served, with the claims that it waits for, if it waits for any.
func (c *claims) tell(svc *corev1.Service, req ipam.Request, err error) error {
	waits, text := errors.Is(err, ipam.ErrNotGranted), ""
	if waits {
		text = c.words(req)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !waits {
		delete(c.told, svc.UID)
		return err
	}
	c.told[svc.UID] = text
	if text == "" { // It is not known yet which claims these are.
		return err
	}
	return &waitingError{err, text}
}

// retell has the Services synced that wait for something else than they were told.
func (c *claims) retell() {
	c.mu.Lock()
	told := maps.Clone(c.told)
	c.mu.Unlock()
	if len(told) == 0 {
		return
	}
	for _, svc := range c.waiting.list() { // A Service waits before it is told.
		text, was := told[svc.UID]
		delete(told, svc.UID)
		if !was {
			continue
		}
		req, err := c.requests.of(svc, c.requests.namespace(svc.Namespace))
		if err != nil {
			continue
		}
		now := c.words(req)
		if now == "" { // If all is granted, waiting has the Service synced. If claims of others use up the quota, it does not.
			req.Claimed = nil
			if c.words(req) == "" {
				continue
			}
		}
		if now != text {
			c.changes.serve(svc)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for uid := range told { // They no longer wait.
		delete(c.told, uid)
	}
}

// words says what a Service waits for; it is empty if the Service waits for no claim.
func (c *claims) words(req ipam.Request) string {
	wants := c.ledger.wants(req)
	if len(wants) == 0 {
		return ""
	}
	c.mu.Lock()
	problem := c.problem
	c.mu.Unlock()
	if problem != nil {
		return fmt.Sprintf("IPPool %s cannot ask for an address: %s", wants[0].Pool, cutAt(problem.Error(), maxFailure))
	}
	grants := c.grants.Load()
	_, create := grants.open(req.Owner, wants, c.idle)
	for _, o := range create {
		if text := c.failure(o); text != "" {
			return text
		}
	}
	return grants.WaitWords(req.Owner, wants, c.idle, func(o Claim) *ipam.Error { return c.ledger.refused(req, o) })
}

// condition returns the condition Granted of a pool; nil if it is not known.
func (c *claims) condition(o *herald.IPPool) *metav1.Condition {
	c.mu.Lock()
	problem, read, refusals := c.problem, c.read, c.refusals[o.Name]
	c.mu.Unlock()
	if o.Spec.ExternalPoolRef == nil || !read {
		return nil
	}
	is := &metav1.Condition{Type: herald.PoolGranted, Status: metav1.ConditionFalse, ObservedGeneration: o.Generation}
	if problem != nil {
		is.Reason, is.Message = herald.ReasonNotReadable, problem.Error()
		if _, missing := errors.AsType[*missingError](problem); missing {
			is.Reason = herald.ReasonDefinitionMissing
		}
		return is
	}
	var lost []string
	for _, rec := range c.records.ofPool(o.Name) {
		if text := c.grants.Load().LostWords(rec); text != "" && !released(rec) {
			lost = append(lost, rec.Spec.Address+": "+text)
		}
	}
	slices.Sort(lost)
	switch {
	case len(lost) > 0:
		is.Reason = herald.ReasonGrantLost
		is.Message = "in use though no longer granted; move the Services by kubectl herald renumber, or have the addresses granted again: " + someOf(lost)
	case len(refusals) > 0:
		is.Reason, is.Message = herald.ReasonGrantRefused, someOf(refusals)
	default:
		is.Status, is.Reason = metav1.ConditionTrue, herald.ReasonGranted
	}
	return is
}
