package provider

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// ledger decides who is given which address: the allocator in memory, with what is known of the records. The service
// controller's workers share it. Its lock guards memory and is never held over a call to the API server.
type ledger struct {
	class string

	mu    sync.Mutex
	alloc *ipam.Allocator
	// addresses has an entry for every address whose record is known or that a Service is about to share.
	addresses map[netip.Addr]entry
	terms     map[string]poolTerms
}

// entry is what is known of one address beyond its holders, which the allocator knows.
type entry struct {
	// record is the last version of the record that was learned; nil if there is none.
	record *herald.IPAllocation
	// tenants are the holders by that record.
	tenants []ipam.Tenant
	// pending are Services that were given the address to share it and are not in the record yet. Others may write the
	// record in the meantime; that it does not name a pending Service does not mean that the Service lost the address.
	pending []ipam.Tenant
}

// version is that of the record; empty if there is none.
func (e entry) version() string {
	if e.record == nil {
		return ""
	}
	return e.record.ResourceVersion
}

// cooling reports whether the address was released and its reuse delay is not over. It is held for its last owners'
// names.
func (e entry) cooling() bool { return e.record != nil && released(e.record) }

// conflicting reports whether the record says that another machine uses the address.
func (e entry) conflicting() bool { return e.record != nil && conflicting(e.record) }

// conflicting reports whether a record says that another machine uses its address.
func conflicting(rec *herald.IPAllocation) bool {
	return meta.IsStatusConditionTrue(rec.Status.Conditions, herald.AllocationConflict)
}

// poolTerms is what becomes of a pool's addresses when they are released.
type poolTerms struct {
	delay   time.Duration
	reclaim herald.ReclaimPolicy
	// mayRetain tells that Services may have their addresses kept.
	mayRetain bool
	// lasting tells that the pool exists and is not being deleted, deleting that it is.
	lasting, deleting bool
}

func newLedger(class string) *ledger {
	return &ledger{class: class, alloc: ipam.New(), addresses: map[netip.Addr]entry{}, terms: map[string]poolTerms{}}
}

// allocate gives the Service in memory what it asks for, after it has adopted what its status carries. If another
// Service holds that by now, this one gets a new address.
func (l *ledger) allocate(svc *corev1.Service, req ipam.Request) ([]ipam.Allocation, []notice, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.allocateLocked(svc, req)
}

func (l *ledger) allocateLocked(svc *corev1.Service, req ipam.Request) ([]ipam.Allocation, []notice, error) {
	if err := l.alloc.Adopt(req, Carried(svc)); err != nil {
		return nil, nil, err
	}
	allocations, err := l.alloc.Allocate(req)
	if taken, ok := errors.AsType[*ipam.Error](err); ok && errors.Is(err, ipam.ErrTaken) && l.addresses[taken.Address].cooling() {
		err = &coolingError{taken}
	}
	if err != nil {
		return nil, nil, err
	}
	for _, a := range allocations {
		l.addPending(a.Address, ipam.Tenant{Owner: req.Owner, Sharing: req.Sharing})
	}
	list := notices(l.alloc, svc, req, allocations, func(a netip.Addr) bool { return l.addresses[a].cooling() })
	return allocations, append(list, l.retainNotices(svc, allocations)...), nil
}

// retainNotices tells a Service that asks for its addresses to be kept if the pools do not permit it, when that is about
// to be recorded.
func (l *ledger) retainNotices(svc *corev1.Service, allocations []ipam.Allocation) (list []notice) {
	mine := ownerEntry(svc)
	if mine.ReclaimPolicy != herald.ReclaimRetain {
		return nil
	}
	for _, a := range allocations {
		rec := l.addresses[a.Address].record
		said := rec != nil && slices.ContainsFunc(rec.Spec.Owners, func(o herald.AllocationOwner) bool {
			return o.UID == mine.UID && o.ReclaimPolicy == mine.ReclaimPolicy
		})
		if !said && !l.terms[a.Pool].mayRetain {
			list = append(list, notice{herald.EventRetainNotAllowed, fmt.Sprintf("annotation %s: IPPool %s does not let Services keep addresses, so %s is released with the Service: "+
				"remove the annotation, or have spec.allowRetain of the pool set", herald.AnnotationReclaim, a.Pool, a.Address)})
		}
	}
	return list
}

// adopt gives the Service what its status carries, and nothing else.
func (l *ledger) adopt(svc *corev1.Service, req ipam.Request) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alloc.Adopt(req, Carried(svc))
}

// settled reports whether the Service holds all that it asks for and nothing else, and the records say of it what they
// are to say; with the addresses that it holds.
func (l *ledger) settled(req ipam.Request, mine herald.AllocationOwner) ([]ipam.Allocation, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held, settled := l.alloc.Settled(req)
	for _, a := range held {
		e := l.addresses[a.Address]
		settled = settled && e.record != nil && !e.cooling() && slices.ContainsFunc(e.record.Spec.Owners, func(o herald.AllocationOwner) bool {
			return equality.Semantic.DeepEqual(o, mine)
		})
	}
	return held, settled
}

// heldBy lists what an owner holds; of one without UID, what is kept for its name.
func (l *ledger) heldBy(o ipam.Owner) []ipam.Allocation {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alloc.HeldBy(o)
}

// oursHeldBy lists what an owner holds and this controller's class gave it, or is about to record.
func (l *ledger) oursHeldBy(o ipam.Owner) []ipam.Allocation {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.onlyOurs(l.alloc.HeldBy(o))
}

// hasOurs reports whether a Service has an address that this controller's class gave it, or had one that cools down.
func (l *ledger) hasOurs(svc *corev1.Service) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.onlyOurs(l.alloc.HeldBy(owner(svc)))) > 0 || len(l.onlyOurs(l.coolingForLocked(owner(svc)))) > 0
}

// hasForeign reports whether a Service has an address that a controller of another class gave it.
func (l *ledger) hasForeign(svc *corev1.Service) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := l.alloc.HeldBy(owner(svc))
	n := len(held)
	return len(l.onlyOurs(held)) < n
}

func (l *ledger) onlyOurs(allocations []ipam.Allocation) []ipam.Allocation {
	return slices.DeleteFunc(allocations, func(a ipam.Allocation) bool {
		rec := l.addresses[a.Address].record
		return rec != nil && !l.ours(rec)
	})
}

// ours reports whether a record is this controller's: several controllers, each of a class, may give out of the same
// pools. A record without a class was written by hand, or before there were several.
func (l *ledger) ours(rec *herald.IPAllocation) bool {
	return rec.Spec.Class == "" || rec.Spec.Class == l.class
}

// recorded reports whether an address has a record that is ours.
func (l *ledger) recorded(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.addresses[a]
	return e.record != nil && l.ours(e.record)
}

// coolingFor lists what cools down and was last held under an owner's name.
func (l *ledger) coolingFor(o ipam.Owner) []ipam.Allocation {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.coolingForLocked(o)
}

func (l *ledger) coolingForLocked(o ipam.Owner) []ipam.Allocation {
	return slices.DeleteFunc(l.alloc.HeldBy(o.Reservation()), func(a ipam.Allocation) bool { return !l.addresses[a.Address].cooling() })
}

// lacks reports whether a Service holds fewer addresses of the family than it asks for.
func (l *ledger) lacks(svc *corev1.Service, f ipam.Family) bool {
	n, _ := countOf(svc)
	return l.count(owner(svc), f) < n
}

// moves reports whether a Service holds more addresses of the family than it asks for.
func (l *ledger) moves(svc *corev1.Service, f ipam.Family) bool {
	n, _ := countOf(svc)
	return l.count(owner(svc), f) > n
}

// count is how many addresses of the family an owner holds.
func (l *ledger) count(o ipam.Owner, f ipam.Family) int {
	return len(slices.DeleteFunc(l.heldBy(o), func(a ipam.Allocation) bool { return ipam.FamilyOf(a.Address) != f }))
}

// carriedFirst lists what a Service that is refused keeps: of each family what its status carries or, if it holds
// nothing of that, all that it holds. The rest is left over from a move.
func (l *ledger) carriedFirst(svc *corev1.Service) []ipam.Allocation {
	held, carried := l.heldBy(owner(svc)), Carried(svc)
	return slices.DeleteFunc(slices.Clone(held), func(a ipam.Allocation) bool {
		return !slices.Contains(carried, a.Address) && slices.ContainsFunc(held, func(b ipam.Allocation) bool {
			return ipam.FamilyOf(b.Address) == ipam.FamilyOf(a.Address) && slices.Contains(carried, b.Address)
		})
	})
}

// superfluous lists what the owner holds beyond keep.
func (l *ledger) superfluous(o ipam.Owner, keep []ipam.Allocation) []ipam.Allocation {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alloc.Superfluous(o, keep)
}

// holders returns the holders of an address, and whether they hold it only until its reuse delay is over.
func (l *ledger) holders(a netip.Addr) (_ []ipam.Allocation, cooling bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alloc.Holders(a), l.addresses[a].cooling()
}

// agrees reports whether a Service can have an address beside the holders that its record names.
func (l *ledger) agrees(a netip.Addr, others []ipam.Tenant, t ipam.Tenant) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alloc.Agree(a, others, t) == nil
}

// learn takes over a version of a record, with the holders that it names. A record outweighs what memory believed: the
// Services that believed to have the address are returned, to be served again, except those that are pending. Nothing
// is taken over of a version that is older than the one known. It fails if the address is none.
func (l *ledger) learn(a netip.Addr, rec *herald.IPAllocation, tenants []ipam.Tenant) (displaced []ipam.Owner, stale bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if order, err := resourceversion.CompareResourceVersion(rec.ResourceVersion, l.addresses[a].version()); err == nil && order < 0 {
		return nil, true, nil
	}
	holders := l.withPending(a, tenants)
	lost, err := l.alloc.Replace(a, rec.Spec.Pool, holders)
	if err != nil {
		return nil, false, err
	}
	l.addresses[a] = entry{record: rec, tenants: tenants, pending: slices.Clone(holders[len(tenants):])}
	return slices.DeleteFunc(lost, func(o ipam.Owner) bool {
		return o.UID == "" || released(rec) && slices.ContainsFunc(tenants, func(t ipam.Tenant) bool {
			return t.Owner.Namespace == o.Namespace && t.Owner.Name == o.Name // It released the address itself.
		})
	}), false, nil
}

// withPending returns the holders that a record names and the pending Services that agree with them. The others can no
// longer have the address.
func (l *ledger) withPending(a netip.Addr, tenants []ipam.Tenant) []ipam.Tenant {
	all := slices.Clone(tenants)
	for _, t := range l.addresses[a].pending {
		named := slices.ContainsFunc(tenants, func(o ipam.Tenant) bool { return o.Owner.Reservation() == t.Owner.Reservation() })
		if !named && l.alloc.Agree(a, all, t) == nil {
			all = append(all, t)
		}
	}
	return all
}

// addPending notes that a tenant is about to be recorded for an address, if it shares and is not in the record yet.
func (l *ledger) addPending(a netip.Addr, t ipam.Tenant) {
	same := func(o ipam.Tenant) bool { return o.Owner.UID == t.Owner.UID }
	if e := l.addresses[a]; t.Sharing.Key != "" && !slices.ContainsFunc(e.tenants, same) {
		l.setPending(a, append(slices.DeleteFunc(e.pending, same), t))
	}
}

// keepPending forgets the pending Services of an address that are not to have it any more.
func (l *ledger) keepPending(a netip.Addr, wanted func(ipam.Owner) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.setPending(a, slices.DeleteFunc(l.addresses[a].pending, func(t ipam.Tenant) bool { return !wanted(t.Owner) }))
}

func (l *ledger) setPending(a netip.Addr, tenants []ipam.Tenant) {
	e := l.addresses[a]
	e.pending = tenants
	l.set(a, e)
}

// set stores what is known of an address, if that is anything.
func (l *ledger) set(a netip.Addr, e entry) {
	if e.record == nil && len(e.pending) == 0 {
		delete(l.addresses, a)
	} else {
		l.addresses[a] = e
	}
}

// resume has new addresses be given after this one.
func (l *ledger) resume(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.alloc.Resume(a)
}

// drop frees an address of these owners, and reports whether nobody holds it now.
func (l *ledger) drop(a netip.Addr, owners ...ipam.Owner) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	dropped := false
	for _, o := range owners {
		dropped = l.alloc.Release(a, o) || dropped
		l.setPending(a, slices.DeleteFunc(l.addresses[a].pending, func(t ipam.Tenant) bool { return t.Owner.UID == o.UID }))
	}
	if !dropped || len(l.alloc.Holders(a)) > 0 {
		return false
	}
	l.forget(a)
	return true
}

// version is that of the record which was learned last; empty if there is none.
func (l *ledger) version(a netip.Addr) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.addresses[a].version()
}

// outdated notes that the API server has an older record than the version that was known before it was asked: it was
// restored from a backup. If another version was learned meanwhile, that one stays.
func (l *ledger) outdated(a netip.Addr, version string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.addresses[a].version() == version {
		l.forget(a)
	}
}

// unrecorded notes that the record of an address is gone.
func (l *ledger) unrecorded(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(a)
}

// forget drops what was known of the record of an address. The holders stay.
func (l *ledger) forget(a netip.Addr) { l.set(a, entry{pending: l.addresses[a].pending}) }

// displaced reports whether a held address is not of the pool that its record names, and which pool has it, if any.
func (l *ledger) displaced(a netip.Addr) (home string, displaced bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	home, _ = l.alloc.PoolOf(a)
	return home, l.alloc.IsDisplaced(a)
}

// setPools takes over the pools, and returns the addresses for which that may change something: those that were
// displaced before or are now, and those that cool down.
func (l *ledger) setPools(all []ipam.Pool, terms map[string]poolTerms) []netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.alloc.Displaced()
	l.terms = terms
	concerned := map[netip.Addr]bool{}
	for _, a := range slices.Concat(before, l.alloc.SetPools(all)) {
		concerned[a.Address] = true
	}
	for a, e := range l.addresses {
		if e.cooling() {
			concerned[a] = true
		}
	}
	return slices.Collect(maps.Keys(concerned))
}

// skip has these addresses never be given out, with what each is. Services that hold one keep it. It reports whether an
// address can be given out again.
func (l *ledger) skip(all map[netip.Addr]string) (freed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alloc.Skip(all)
}

// termsOf is what becomes of the pool's addresses. Those of a pool that is gone have no reuse delay.
func (l *ledger) termsOf(pool string) poolTerms {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.terms[pool]
}

// size is the number of the recorded addresses.
func (l *ledger) size() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.addresses {
		if e.record != nil {
			n++
		}
	}
	return n
}

// use counts the addresses of pools.
func (l *ledger) use(names []string) map[string]use {
	l.mu.Lock()
	defer l.mu.Unlock()
	by := make(map[string]use, len(names))
	for _, pool := range names {
		u := use{families: l.alloc.Usage(pool), cooling: map[ipam.Family]int64{}}
		for _, o := range l.alloc.Overlaps(pool) {
			for _, r := range o.Ranges {
				u.overlaps = append(u.overlaps, fmt.Sprintf("%s (pool %s)", r, o.Pool))
			}
		}
		by[pool] = u
	}
	for a, e := range l.addresses {
		if !e.cooling() {
			continue
		}
		in, _ := l.alloc.PoolOf(a) // The allocator counts it as assigned there.
		if u, known := by[in]; known {
			u.cooling[ipam.FamilyOf(a)]++
		}
	}
	for _, a := range l.alloc.Displaced() {
		if u, known := by[a.Pool]; known {
			u.outside = append(u.outside, fmt.Sprintf("%s (%s)", a.Address, a.Owner))
			by[a.Pool] = u
		}
	}
	return by
}

// quotas lists what namespaces use of their quotas.
func (l *ledger) quotas(total func(namespace string) ipam.Limits) []ipam.QuotaUse {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alloc.Quotas(total)
}
