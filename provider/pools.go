package provider

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// statusPeriod bounds how often the pools' status follows their use: a thousand new Services cost a
// write a second, not a thousand.
const statusPeriod = time.Second

// pools brings the IPPools into the ledger, and keeps their status and finalizer true. One goroutine,
// run, does all of it.
type pools struct {
	p        *Provider
	informer cache.SharedIndexInformer
	l2, bgp  cache.SharedIndexInformer

	// edited and used are triggers: the pools themselves changed, or only their use did.
	edited, used chan struct{}

	// Owned by run (and by load before it): the pools that cannot be used, and why, and which generation of each
	// the ledger has.
	invalid map[string]error
	loaded  map[types.UID]int64
}

func newPools(p *Provider, informer, l2, bgp cache.SharedIndexInformer) *pools {
	s := &pools{p: p, informer: informer, l2: l2, bgp: bgp, edited: make(chan struct{}, 1), used: make(chan struct{}, 1),
		invalid: map[string]error{}, loaded: map[types.UID]int64{}}
	trigger := func(c chan struct{}) cache.ResourceEventHandler {
		hit := func() { pull(c) }
		return cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { hit() },
			UpdateFunc: func(before, after any) {
				// Our own writes of status do not count; a deletion does, and raises the generation.
				if before.(metav1.Object).GetGeneration() != after.(metav1.Object).GetGeneration() {
					hit()
				} else if !maps.Equal(before.(metav1.Object).GetLabels(), after.(metav1.Object).GetLabels()) {
					pull(s.used) // An advertisement may select the pool by its labels.
				}
			},
			DeleteFunc: func(any) { hit() },
		}
	}
	// Registration fails only on a stopped informer.
	_, _ = informer.AddEventHandler(trigger(s.edited))
	_, _ = l2.AddEventHandler(trigger(s.used))
	_, _ = bgp.AddEventHandler(trigger(s.used))
	return s
}

// usageChanged has the status written soon. It does not block.
func (s *pools) usageChanged() { pull(s.used) }

// pull sets off a trigger of capacity one.
func pull(trigger chan struct{}) {
	select {
	case trigger <- struct{}{}:
	default:
	}
}

func (s *pools) run(ctx context.Context) error {
	const soon = 20 * time.Millisecond
	wait := func(d time.Duration) bool {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(d):
			return true
		}
	}
	s.usageChanged()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.edited:
			if !wait(soon) { // A file of many pools is one edit.
				return ctx.Err()
			}
			select {
			case <-s.edited:
			default:
			}
			s.load()
			s.p.waiting.wake()
		case <-s.used:
		}
		if err := s.publish(ctx); err != nil {
			if ctx.Err() == nil {
				s.p.log.Warn("status of IPPools not written, trying again", zap.Error(err))
			}
			s.usageChanged()
		}
		// An edit need not wait for the next status.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.edited:
			pull(s.edited)
		case <-time.After(statusPeriod):
		}
	}
}

// list returns the pools, oldest first.
func (s *pools) list() []*herald.IPPool {
	all := client.Items[*herald.IPPool](s.informer.GetStore())
	slices.SortFunc(all, func(x, y *herald.IPPool) int { return Older(x, y) })
	return all
}

// names lists the pools by name, in order of their age.
func (s *pools) names() []string { return namesOfPools(s.list()) }

func namesOfPools(pools []*herald.IPPool) (names []string) {
	for _, o := range pools {
		names = append(names, o.Name)
	}
	return names
}

// load gives the ledger the pools. One that cannot be used is left out, and its status will say why;
// the others are not affected.
func (s *pools) load() {
	var usable []ipam.Pool
	terms := map[string]poolTerms{}
	clear(s.invalid)
	clear(s.loaded)
	for _, o := range s.list() {
		s.loaded[o.UID] = o.Generation
		t := poolTerms{reclaim: o.Spec.ReclaimPolicy, lasting: o.DeletionTimestamp == nil}
		if o.Spec.ReuseDelay != nil {
			t.delay = o.Spec.ReuseDelay.Duration
		}
		terms[o.Name] = t
		pool, err := PoolOf(o)
		if err != nil {
			s.invalid[o.Name] = err
			continue
		}
		usable = append(usable, pool)
	}
	s.p.records.reconsider(s.p.ledger.setPools(usable, terms))
}

// PoolOf reads a pool. An error names the field that is wrong and how to mend it.
func PoolOf(o *herald.IPPool) (ipam.Pool, error) {
	addresses, err := ipam.ParseAddresses(texts(o.Spec.Addresses), texts(o.Spec.Exclude))
	if err != nil {
		return ipam.Pool{}, fmt.Errorf("spec.%w", err) // It begins with addresses or exclude.
	}
	if o.Spec.AvoidBuggyIPs {
		if addresses, err = ipam.AvoidBuggy(addresses); err != nil {
			return ipam.Pool{}, fmt.Errorf("spec.avoidBuggyIPs: %w", err)
		}
	}
	serves, err := scope(&o.Spec)
	if err != nil {
		return ipam.Pool{}, err
	}
	pool := ipam.Pool{
		Name:       o.Name,
		Addresses:  addresses,
		AutoAssign: o.Spec.AutoAssign == nil || *o.Spec.AutoAssign,
		Serves:     serves,
		Priority:   int(o.Spec.Priority),
		Quota:      limits(o.Spec.Quota),
		Closed:     o.Spec.Disabled || o.DeletionTimestamp != nil,

		ShareAcrossNamespaces: o.Spec.ShareAcrossNamespaces,
	}
	if o.Spec.AddressOrder == herald.OrderLowest {
		pool.Order = ipam.Lowest
	}
	return pool, nil
}

func limits(q *herald.AddressQuota) ipam.Limits {
	l := ipam.Limits{}
	if q != nil && q.IPv4 != nil {
		l[ipam.IPv4] = uint64(*q.IPv4)
	}
	if q != nil && q.IPv6 != nil {
		l[ipam.IPv6] = uint64(*q.IPv6)
	}
	return l
}

// scope is whom a pool serves; nil is everybody.
func scope(spec *herald.IPPoolSpec) (func(*ipam.Subject) bool, error) {
	if len(spec.Namespaces) == 0 && spec.NamespaceSelector == nil && spec.ServiceSelector == nil {
		return nil, nil
	}
	service, err := herald.CompileSelector("serviceSelector", spec.ServiceSelector)
	if err != nil {
		return nil, err
	}
	namespace, err := herald.CompileSelector("namespaceSelector", spec.NamespaceSelector)
	if err != nil {
		return nil, err
	}
	if spec.NamespaceSelector == nil && len(spec.Namespaces) > 0 {
		namespace = labels.Nothing() // Only those that are named.
	}
	names := slices.Clone(spec.Namespaces)
	return func(s *ipam.Subject) bool {
		return service.Matches(labels.Set(s.Labels)) &&
			(slices.Contains(names, s.Namespace) || namespace.Matches(labels.Set(s.NamespaceLabels)))
	}, nil
}

func texts(ranges []herald.AddressRange) []string {
	t := make([]string, len(ranges))
	for i, r := range ranges {
		t[i] = string(r)
	}
	return t
}

// publish writes the status of every pool where it changed, and the finalizer: every pool bears it from
// the first, since one added on first use would race with a deletion.
func (s *pools) publish(ctx context.Context) error {
	list := s.list()
	if slices.ContainsFunc(list, func(o *herald.IPPool) bool { return s.loaded[o.UID] != o.Generation }) {
		s.load() // What a pool says of itself is so, and it is closed for sure before it may go.
	}
	outside := s.p.ledger.outside()
	announced := s.announced()
	var errs []error
	uses := s.p.ledger.use(namesOfPools(list))
	for _, o := range list {
		u := uses[o.Name]
		u.outside = outside[o.Name]
		if o.DeletionTimestamp != nil {
			u.holders = s.p.records.holders(o.Name)
		}
		err := s.publishOne(ctx, o, u, announced(o))
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("IPPool %s: %w", o.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (s *pools) publishOne(ctx context.Context, o *herald.IPPool, u use, announced bool) error {
	edit := o.DeepCopy()
	edit.Finalizers = slices.DeleteFunc(edit.Finalizers, func(f string) bool { return f == herald.PoolFinalizer })
	if o.DeletionTimestamp == nil || len(u.holders) > 0 || u.assigned() {
		edit.Finalizers = append(edit.Finalizers, herald.PoolFinalizer)
	}
	if len(edit.Finalizers) != len(o.Finalizers) {
		updated, err := s.p.herald.Pools.Update(ctx, edit, metav1.UpdateOptions{})
		if err != nil || len(edit.Finalizers) == 0 && o.DeletionTimestamp != nil {
			return err
		}
		edit = updated
	}
	s.describe(edit, u, announced)
	if equality.Semantic.DeepEqual(edit.Status, o.Status) {
		return nil
	}
	_, err := s.p.herald.Pools.UpdateStatus(ctx, edit, metav1.UpdateOptions{})
	return err
}

// describe fills in the status.
func (s *pools) describe(o *herald.IPPool, u use, announced bool) {
	o.Status.IPv4, o.Status.IPv6 = u.family(ipam.IPv4), u.family(ipam.IPv6)
	set := func(kind string, yes bool, reason, message string) {
		c := metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: o.Generation}
		if yes {
			c.Status = metav1.ConditionTrue
		}
		meta.SetStatusCondition(&o.Status.Conditions, c)
	}
	ready, reason, message := true, "AddressesAvailable", "addresses can be given out"
	exhausted := u.exhausted()
	switch {
	case s.invalid[o.Name] != nil:
		ready, reason, message = false, "Invalid", s.invalid[o.Name].Error()
	case o.DeletionTimestamp != nil:
		ready, reason = false, "Deleting"
		message = fmt.Sprintf("the pool is deleted when its last address is free; in use: %s", someOf(u.holders))
	case o.Spec.Disabled:
		ready, reason, message = false, "Disabled", "spec.disabled is set: nothing new is given out"
	case len(u.families) == 0:
		ready, reason, message = false, "NoAddresses", "the pool has no address of its own: all are excluded, or belong to older pools"
	case len(exhausted) > 0 && len(exhausted) == len(u.families):
		ready, reason, message = false, "Exhausted", "every address is in use: add some to spec.addresses, or delete Services"
	}
	set(herald.PoolReady, ready, reason, message)
	if invalid := s.invalid[o.Name]; invalid != nil {
		set(herald.ConditionAccepted, false, "Invalid", invalid.Error())
	} else {
		set(herald.ConditionAccepted, true, "Valid", "")
	}
	if len(exhausted) > 0 {
		set(herald.PoolAddressesAvailable, false, "NoneAvailable", fmt.Sprintf("every %s address is in use", strings.Join(exhausted, " and ")))
	} else {
		set(herald.PoolAddressesAvailable, true, "Available", "")
	}
	if len(u.overlaps) > 0 {
		set(herald.PoolExclusive, false, "OlderPoolHasThem", "these addresses are given out by older pools: "+someOf(u.overlaps))
	} else {
		set(herald.PoolExclusive, true, "NoOverlap", "")
	}
	if len(u.outside) > 0 {
		set(herald.PoolInRange, false, "InUse", "in use though the pool no longer holds them: "+someOf(u.outside))
	} else {
		set(herald.PoolInRange, true, "InRange", "")
	}
	if announced {
		set(herald.ConditionAnnounced, true, "Selected", "")
	} else {
		set(herald.ConditionAnnounced, false, "NoAdvertisement",
			fmt.Sprintf("no L2Advertisement or BGPAdvertisement selects the pool, so nothing reaches its addresses: create one with spec.pools: [%s]", o.Name))
	}
}

// announced tells of a pool whether some advertisement selects it.
func (s *pools) announced() func(*herald.IPPool) bool {
	var selectors []*herald.Selector
	add := func(selection *herald.Selection) {
		if c, err := selection.Compile(); err == nil { // The speakers report the error.
			selectors = append(selectors, c)
		}
	}
	for _, ad := range client.Items[*herald.L2Advertisement](s.l2.GetStore()) {
		add(&ad.Spec.Selection)
	}
	for _, ad := range client.Items[*herald.BGPAdvertisement](s.bgp.GetStore()) {
		add(&ad.Spec.Selection)
	}
	return func(o *herald.IPPool) bool {
		return slices.ContainsFunc(selectors, func(c *herald.Selector) bool { return c.Pool(o.Name, o.Labels) })
	}
}

// use is what the ledger knows of one pool.
type use struct {
	families map[ipam.Family]ipam.Usage
	cooling  map[ipam.Family]int64
	overlaps []string // "198.51.100.0-198.51.100.9 (pool public)"
	holders  []string // of a pool being deleted, every address recorded for it: "198.51.100.7 (default/web)"
	outside  []place  // addresses recorded for the pool that it no longer holds
}

// assigned reports whether any address of the pool is held.
func (u use) assigned() bool {
	return u.families[ipam.IPv4].Assigned > 0 || u.families[ipam.IPv6].Assigned > 0
}

func (u use) family(f ipam.Family) *herald.PoolUsage {
	c, ok := u.families[f]
	if !ok {
		return nil
	}
	return &herald.PoolUsage{
		Capacity:  saturate(c.Capacity),
		Assigned:  saturate(c.Assigned) - u.cooling[f],
		Cooling:   u.cooling[f],
		Available: saturate(c.Available),
	}
}

func (u use) exhausted() []string {
	var families []string
	for _, f := range []ipam.Family{ipam.IPv4, ipam.IPv6} {
		if c, ok := u.families[f]; ok && c.Available == 0 {
			families = append(families, f.String())
		}
	}
	return families
}

func saturate(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// someOf joins a list, or the first of many, for a message that people read.
func someOf[T any](list []T) string {
	const most = 5
	var texts []string
	for _, item := range list[:min(most, len(list))] {
		texts = append(texts, fmt.Sprint(item))
	}
	text := strings.Join(texts, ", ")
	if len(list) > most {
		text += fmt.Sprintf(" and %d more", len(list)-most)
	}
	return text
}
