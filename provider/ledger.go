package provider

import (
	"cmp"
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

// ledger decides which Service gets which address. It is the allocator in memory, with what is known of the records. The
// workers of the service controller share it. Its lock guards memory and is never held during a call to the API server.
type ledger struct {
	class string

	mu    sync.Mutex
	alloc *ipam.Allocator
	// addresses has an entry for every address that has a known record or that a Service is about to share.
	addresses map[netip.Addr]entry
	terms     map[string]poolTerms
	// classes are those that a pool admits: see ipam.Pool.
	classes map[string]bool
}

// entry is what is known of the record of one address. The allocator knows who holds the address now, which may be others than tenants.
type entry struct {
	// record is the last known version of the record; nil if there is none.
	record *herald.IPAllocation
	// tenants are the holders according to that record.
	tenants []ipam.Tenant
	// pending are Services that were given the address to share it, and are not in the record yet. Others may write the
	// record in the meantime. If the record does not name a pending Service, this does not mean that the Service has
	// lost the address.
	pending []ipam.Tenant
}

// version returns the resource version of the record; empty if there is none.
func (e entry) version() string {
	if e.record == nil {
		return ""
	}
	return e.record.ResourceVersion
}

// pool returns the name of the pool in the record; empty if there is none.
func (e entry) pool() string {
	if e.record == nil {
		return ""
	}
	return e.record.Spec.Pool
}

// cooling reports whether the address was released and its reuse delay is not over. It is then held for the names of its
// last owners.
func (e entry) cooling() bool { return e.record != nil && released(e.record) }

// conflicting reports whether the record says that another machine uses the address.
func (e entry) conflicting() bool { return e.record != nil && conflicting(e.record) }

// conflicting reports whether a record says that another machine uses its address.
func conflicting(rec *herald.IPAllocation) bool {
	return meta.IsStatusConditionTrue(rec.Status.Conditions, herald.AllocationConflict)
}

// poolTerms says what happens to a pool's addresses when they are released.
type poolTerms struct {
	delay   time.Duration
	reclaim herald.ReclaimPolicy
	// mayRetain is true if Services may keep their addresses after they are deleted.
	mayRetain bool
	// external is the pool of another system that grants the addresses; nil if there is none.
	external *herald.ExternalPoolReference
	// lasting is true if the pool exists and is not being deleted, deleting if it is being deleted.
	lasting, deleting bool
}

func newLedger(class string) *ledger {
	return &ledger{class: class, alloc: ipam.New(), addresses: map[netip.Addr]entry{}, terms: map[string]poolTerms{}}
}

// allocate gives the Service in memory what it asks for. It first adopts the addresses in the Service's status. For each
// of these that another Service holds by now, this one gets a new address.
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

// retainNotices returns a notice for a Service that asks to keep its addresses although the pools do not permit this. It
// returns none if the records already have the Service's policy.
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

// adopt gives the Service the addresses in its status, and nothing else.
func (l *ledger) adopt(svc *corev1.Service, req ipam.Request) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alloc.Adopt(req, Carried(svc))
}

// refusal is why an address that another controller gave a Service is not recorded.
type refusal struct {
	address netip.Addr
	err     error
	// keeps is true if the Service holds the address and keeps it as it is recorded.
	keeps bool
}

// words returns the refusal for the owner of the Service.
func (r refusal) words() string {
	if r.keeps {
		return fmt.Sprintf("%s, which is announced as before: %s", r.address, Words(r.err))
	}
	return fmt.Sprintf("%s, which is not announced: %s", r.address, Words(r.err))
}

// admits reports whether a pool admits a class.
func (l *ledger) admits(class string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.classes[class]
}

// admitsAt reports whether the pool of an address admits a class.
func (l *ledger) admitsAt(address netip.Addr, class string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alloc.Admits(address, class)
}

// holdElsewhere makes a Service hold, in memory, the addresses of the request, which another controller gave it. invalid is the error
// of the request, if it has one: the Service then holds no further address. Addresses that a herald-ccm of another class
// recorded for the Service are left to that one.
func (l *ledger) holdElsewhere(req ipam.Request, invalid error) (held []ipam.Allocation, refused []refusal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.alloc.HeldBy(req.Owner)
	for _, address := range req.Addresses {
		e := l.addresses[address]
		has := contains(before, address)
		if has && e.record != nil && !l.ours(e.record) {
			continue
		}
		if invalid != nil {
			refused = append(refused, refusal{address, &unservedError{invalid, ipam.ErrInvalid}, has && l.alloc.Admits(address, req.Class)})
			continue
		}
		a, err := l.alloc.Claim(req, address)
		if err == nil {
			held = append(held, a)
			l.addPending(address, ipam.Tenant{Owner: req.Owner, Sharing: req.Sharing})
			continue
		}
		why, _ := errors.AsType[*ipam.Error](err)
		if errors.Is(err, ipam.ErrTaken) && e.cooling() {
			err = &coolingError{why}
		}
		// A pool that is deleted stays as long as its addresses are in use. A pool without terms could not be read at the start.
		_, known := l.terms[e.pool()]
		keeps := why.Cause == ipam.ChangedTerms || has && why.Cause == ipam.InNoPool && e.pool() != "" && !known
		refused = append(refused, refusal{address, err, keeps})
	}
	return held, refused
}

// contains reports whether an address is among allocations.
func contains(all []ipam.Allocation, address netip.Addr) bool {
	return slices.ContainsFunc(all, func(a ipam.Allocation) bool { return a.Address == address })
}

// settled reports whether the Service holds exactly what it asks for and its records are up to date. It also returns the
// addresses that the Service holds.
func (l *ledger) settled(req ipam.Request, mine herald.AllocationOwner) ([]ipam.Allocation, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held, settled := l.alloc.Settled(req)
	for _, a := range held {
		e := l.addresses[a.Address]
		settled = settled && e.record != nil && l.ours(e.record) && !e.cooling() && slices.ContainsFunc(e.record.Spec.Owners, func(o herald.AllocationOwner) bool {
			return equality.Semantic.DeepEqual(o, mine)
		})
	}
	return held, settled
}

// heldBy lists the addresses that an owner holds or, for an owner without a UID, those kept for its name.
func (l *ledger) heldBy(o ipam.Owner) []ipam.Allocation {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alloc.HeldBy(o)
}

// oursHeldBy lists the addresses that an owner holds and that controllers of this class gave it or are about to record.
func (l *ledger) oursHeldBy(o ipam.Owner) []ipam.Allocation {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.onlyOurs(l.alloc.HeldBy(o))
}

// hasOurs reports whether a Service has an address that a controller of this class gave it, or had one that cools down.
func (l *ledger) hasOurs(svc *corev1.Service) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.onlyOurs(l.alloc.HeldBy(owner(svc)))) > 0 || len(l.onlyOurs(l.coolingForLocked(owner(svc)))) > 0
}

// clashes lists the addresses that a Service holds and shares with a Service of another namespace that has one of its ports.
// The ports of the other one are those that are recorded.
func (l *ledger) clashes(svc *corev1.Service) (addresses []netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ports []ipam.Port
	for _, a := range l.alloc.HeldBy(owner(svc)) {
		tenants := l.addresses[a.Address].tenants
		if len(tenants) < 2 {
			continue
		}
		if ports == nil {
			ports = portsOf(svc)
		}
		if slices.ContainsFunc(tenants, func(t ipam.Tenant) bool {
			return t.Owner.Namespace != svc.Namespace && slices.ContainsFunc(t.Sharing.Ports, func(p ipam.Port) bool { return slices.Contains(ports, p) })
		}) {
			addresses = append(addresses, a.Address)
		}
	}
	return addresses
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

// ours reports whether a record belongs to this controller. Several controllers, each with its own class, may assign
// addresses of the same pools. A record without a class was written by hand, or before records had classes.
func (l *ledger) ours(rec *herald.IPAllocation) bool {
	return rec.Spec.Class == "" || rec.Spec.Class == l.class
}

// recorded reports whether an address has a record that belongs to this controller.
func (l *ledger) recorded(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.addresses[a]
	return e.record != nil && l.ours(e.record)
}

// coolingFor lists the addresses that cool down and were last held under an owner's name.
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

// count returns how many addresses of the family an owner holds.
func (l *ledger) count(o ipam.Owner, f ipam.Family) int {
	return len(slices.DeleteFunc(l.heldBy(o), func(a ipam.Allocation) bool { return ipam.FamilyOf(a.Address) != f }))
}

// carriedFirst lists the addresses that a refused Service keeps. Of each family these are the held addresses that are in
// its status or, if none of them is, all that it holds. The others are left over from a move.
func (l *ledger) carriedFirst(svc *corev1.Service) []ipam.Allocation {
	held, carried := l.heldBy(owner(svc)), Carried(svc)
	return slices.DeleteFunc(slices.Clone(held), func(a ipam.Allocation) bool {
		return !slices.Contains(carried, a.Address) && slices.ContainsFunc(held, func(b ipam.Allocation) bool {
			return ipam.FamilyOf(b.Address) == ipam.FamilyOf(a.Address) && slices.Contains(carried, b.Address)
		})
	})
}

// superfluous lists the addresses that the owner holds and that are not in keep.
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

// agrees reports whether a Service can share an address with the holders that the record names.
func (l *ledger) agrees(a netip.Addr, others []ipam.Tenant, t ipam.Tenant) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alloc.Agree(a, others, t) == nil
}

// learn stores a version of a record, with the holders that it names. A record overrides what memory has: learn returns
// the Services that wrongly believed that they hold the address, the losers, so that they are served again. Pending Services are not
// among them. A version that is older than the known one is ignored, and stale is true. learn fails if the address
// cannot be held.
func (l *ledger) learn(a netip.Addr, rec *herald.IPAllocation, tenants []ipam.Tenant) (losers []ipam.Owner, stale bool, err error) {
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
			return t.Owner.Namespace == o.Namespace && t.Owner.Name == o.Name // The Service released the address itself.
		})
	}), false, nil
}

// withPending returns the holders that a record names, followed by the pending Services that agree with them. The other
// pending Services can no longer have the address.
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

// addPending notes that a tenant is about to be recorded for an address, if it shares and the record does not name it
// yet.
func (l *ledger) addPending(a netip.Addr, t ipam.Tenant) {
	same := func(o ipam.Tenant) bool { return o.Owner.UID == t.Owner.UID }
	if e := l.addresses[a]; t.Sharing.Key != "" && !slices.ContainsFunc(e.tenants, same) {
		l.setPending(a, append(slices.DeleteFunc(e.pending, same), t))
	}
}

// keepPending removes the pending Services of an address that are not wanted.
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

// set stores the entry of an address, or deletes it if it is empty.
func (l *ledger) set(a netip.Addr, e entry) {
	if e.record == nil && len(e.pending) == 0 {
		delete(l.addresses, a)
	} else {
		l.addresses[a] = e
	}
}

// resume makes the pool of an address continue after it: see ipam.Allocator.Resume.
func (l *ledger) resume(address netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.alloc.Resume(address)
}

// drop releases an address for these owners. If it then has no holder, drop also forgets its record, and returns true.
func (l *ledger) drop(a netip.Addr, owners ...ipam.Owner) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropLocked(a, owners...)
}

func (l *ledger) dropLocked(a netip.Addr, owners ...ipam.Owner) bool {
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

// version returns the resource version of the last known record of an address; empty if there is none.
func (l *ledger) version(a netip.Addr) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.addresses[a].version()
}

// outdated notes that the API server has no record, or an older one than the known one, because it was restored from a backup.
// version is the version that was known before the API server was asked. If another one was learned since, that one
// stays.
func (l *ledger) outdated(a netip.Addr, version string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.addresses[a].version() == version {
		l.forget(a)
	}
}

// known returns the version of the last known record of an address, and whether that record says that the address is in use and does
// not cool down.
func (l *ledger) known(a netip.Addr) (version string, inUse bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.addresses[a]
	return e.version(), e.record != nil && !e.cooling()
}

// gone notes that the record of an address was deleted, if its version is still the known one: what was learned since then stays, and
// its event queues it again. It releases the address for those holders that may not keep it, and for all if it cooled down. kept are
// the other holders. dropped is as drop returns it.
func (l *ledger) gone(a netip.Addr, known string, keeps func(ipam.Owner) bool) (kept []ipam.Owner, dropped bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.addresses[a].version() != known {
		return nil, false
	}
	var lost []ipam.Owner
	for _, h := range l.alloc.Holders(a) {
		if !l.addresses[a].cooling() && keeps(h.Owner) {
			kept = append(kept, h.Owner)
		} else {
			lost = append(lost, h.Owner)
		}
	}
	if len(kept) > 0 {
		l.forget(a)
	}
	return kept, l.dropLocked(a, lost...)
}

// forget removes what is known of the record of an address. The holders stay.
func (l *ledger) forget(a netip.Addr) { l.set(a, entry{pending: l.addresses[a].pending}) }

// poolOf returns the pool that has an address; empty if there is none.
func (l *ledger) poolOf(a netip.Addr) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	pool, _ := l.alloc.PoolOf(a)
	return pool
}

// displaced reports whether a held address is not in the pool that its record names, and returns the pool that has it,
// if any.
func (l *ledger) displaced(a netip.Addr) (home string, displaced bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	home, _ = l.alloc.PoolOf(a)
	return home, l.alloc.IsDisplaced(a)
}

// setPools replaces the pools, and returns the addresses for which this may change something: those that were or are
// displaced, and those that cool down.
func (l *ledger) setPools(all []ipam.Pool, terms map[string]poolTerms) []netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.alloc.Displaced()
	l.terms, l.classes = terms, map[string]bool{}
	for _, p := range all {
		for _, class := range p.Classes {
			l.classes[class] = true
		}
	}
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

// skip replaces the addresses that are never assigned, with their descriptions. Services keep those that they hold. skip
// reports whether an address can be assigned again.
func (l *ledger) skip(all map[netip.Addr]string) (freed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alloc.Skip(all)
}

// termsOf returns the terms of a pool. For a deleted pool, there is no reuse delay.
func (l *ledger) termsOf(pool string) poolTerms {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.terms[pool]
}

// deleting reports whether the pool of a record is being deleted. The pool of a record that names none is the one that has the address.
// Both are read at once: in between, an edit could give the address to another pool and delete this one.
func (l *ledger) deleting(a netip.Addr, pool string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if pool == "" {
		pool, _ = l.alloc.PoolOf(a)
	}
	return l.terms[pool].deleting
}

// versions returns the versions of the known records.
func (l *ledger) versions() map[netip.Addr]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[netip.Addr]string, len(l.addresses))
	for a, e := range l.addresses {
		if e.record != nil {
			all[a] = e.version()
		}
	}
	return all
}

// holdersIn lists the Services that records name for addresses of a pool, ordered by address. Those that cool down are left out. inside
// also leaves out those that the pool does not have any more.
func (l *ledger) holdersIn(pool string, inside bool) (owners []ipam.Owner) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range slices.SortedFunc(maps.Keys(l.addresses), netip.Addr.Compare) {
		e := l.addresses[a]
		home, _ := l.alloc.PoolOf(a)
		if e.record == nil || e.cooling() || cmp.Or(e.pool(), home) != pool || inside && home != pool {
			continue
		}
		for _, t := range e.tenants {
			if t.Owner.UID != "" {
				owners = append(owners, t.Owner)
			}
		}
	}
	return owners
}

// size returns the number of recorded addresses.
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

// use returns the use of each pool.
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
		in, _ := l.alloc.PoolOf(a) // the pool in which the allocator counts the address as assigned
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

// quotas lists how much of their quotas the namespaces use.
func (l *ledger) quotas(total func(namespace string) ipam.Limits) []ipam.QuotaUse {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alloc.Quotas(total)
}
