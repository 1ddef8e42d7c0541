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
	"k8s.io/apimachinery/pkg/util/resourceversion"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// ledger is the allocator in memory, shared by the service controller's workers. Its lock guards
// memory only and is never held over a call to the API server.
type ledger struct {
	mu    sync.Mutex
	alloc *ipam.Allocator
	// recorded is what the records are known to say.
	recorded map[netip.Addr]recorded
	// cooling is those of them that are released. Their addresses are still held, for their last owner's name.
	cooling map[netip.Addr]bool
	// joining is those who were given an address to share and are on their way into its record: what was written
	// before them says nothing of them.
	joining map[netip.Addr][]ipam.Tenant
	terms   map[string]poolTerms
}

// recorded is the last version of a record that was learned, and whom it names.
type recorded struct {
	version string
	tenants []ipam.Tenant
}

// names reports whether the record has the owner, on these terms.
func (r recorded) names(o ipam.Owner, terms ipam.Sharing) bool {
	return slices.ContainsFunc(r.tenants, func(t ipam.Tenant) bool { return t.Owner.UID == o.UID && t.Sharing.Equal(terms) })
}

func newLedger() *ledger {
	return &ledger{
		alloc: ipam.New(), recorded: map[netip.Addr]recorded{}, cooling: map[netip.Addr]bool{}, joining: map[netip.Addr][]ipam.Tenant{},
		terms: map[string]poolTerms{},
	}
}

// allocate gives the Service what it asks for, in memory, after it has adopted what it carries. If
// another Service holds that by now, ours gets a new address.
func (l *ledger) allocate(svc *corev1.Service, req ipam.Request) ([]ipam.Allocation, []notice, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.alloc.Adopt(req, Carried(svc)); err != nil {
		return nil, nil, err
	}
	allocations, err := l.alloc.Allocate(req)
	if taken, ok := errors.AsType[*ipam.Error](err); ok && errors.Is(err, ipam.ErrTaken) && l.cooling[taken.Address] {
		err = &coolingError{taken}
	}
	if err != nil {
		return nil, nil, err
	}
	for _, a := range allocations {
		l.join(a.Address, ipam.Tenant{Owner: req.Owner, Sharing: req.Sharing})
	}
	return allocations, l.notices(svc, req, allocations), nil
}

// coolingError refuses an address that was released and still rests.
type coolingError struct{ taken *ipam.Error }

func (e *coolingError) Error() string {
	return fmt.Sprintf("%s cools down after %s had it: it is given when the pool's reuseDelay is over, or ask for another address",
		e.taken.Address, e.taken.Holder)
}

func (e *coolingError) Unwrap() error { return e.taken }

// adoptOnly gives the Service what it carries, and nothing else.
func (l *ledger) adoptOnly(svc *corev1.Service, req ipam.Request) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alloc.Adopt(req, Carried(svc))
}

// settled reports whether the Service holds all that it asks for, recorded on its terms, and nothing else; with
// the addresses it holds.
func (l *ledger) settled(req ipam.Request) ([]ipam.Allocation, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held, settled := l.alloc.Settled(req)
	for _, a := range held {
		settled = settled && l.recorded[a.Address].names(req.Owner, req.Sharing)
	}
	return held, settled
}

// heldBy lists what an owner holds; of one without UID, what is kept for its name.
func (l *ledger) heldBy(o ipam.Owner) []ipam.Allocation {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alloc.HeldBy(o)
}

// coolingFor lists what cools down and was last held under an owner's name.
func (l *ledger) coolingFor(o ipam.Owner) []ipam.Allocation {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(l.alloc.HeldBy(o.Reservation()), func(a ipam.Allocation) bool { return !l.cooling[a.Address] })
}

// serves reports whether an owner holds an address of the family.
func (l *ledger) serves(o ipam.Owner, f ipam.Family) bool {
	return slices.ContainsFunc(l.heldBy(o), func(a ipam.Allocation) bool { return ipam.FamilyOf(a.Address) == f })
}

// carriedFirst lists what a Service that is refused keeps: of each family what its status carries or, if it holds
// nothing of that, all that it holds. The rest is of a move that was done before.
func (l *ledger) carriedFirst(svc *corev1.Service) []ipam.Allocation {
	held, has := l.heldBy(owner(svc)), Carried(svc)
	return slices.DeleteFunc(slices.Clone(held), func(a ipam.Allocation) bool {
		return !slices.Contains(has, a.Address) && slices.ContainsFunc(held, func(b ipam.Allocation) bool {
			return ipam.FamilyOf(b.Address) == ipam.FamilyOf(a.Address) && slices.Contains(has, b.Address)
		})
	})
}

// moves reports whether an owner holds several addresses of the family.
func (l *ledger) moves(o ipam.Owner, f ipam.Family) bool {
	return len(slices.DeleteFunc(l.heldBy(o), func(a ipam.Allocation) bool { return ipam.FamilyOf(a.Address) != f })) > 1
}

// superfluous lists what the owner holds beyond keep.
func (l *ledger) superfluous(o ipam.Owner, keep []ipam.Allocation) []ipam.Allocation {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alloc.Superfluous(o, keep)
}

// holders returns who holds an address, and whether only until it has cooled down.
func (l *ledger) holders(a netip.Addr) (_ []ipam.Allocation, cooling bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alloc.Holders(a), l.cooling[a]
}

// agrees reports whether a Service can be on an address beside those whom its record names.
func (l *ledger) agrees(a netip.Addr, others []ipam.Tenant, t ipam.Tenant) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alloc.Agree(a, others, t) == nil
}

// learn takes over what a version of a record says. A record outweighs whatever memory believed: the Services that
// thought they had the address are returned, to be served anew, but for those who are about to join it. Of a version that is older than the one known nothing
// is taken over. It fails if the record is of no address.
func (l *ledger) learn(a netip.Addr, pool string, tenants []ipam.Tenant, released bool, version string) (displaced []ipam.Owner, stale bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if order, err := resourceversion.CompareResourceVersion(version, l.recorded[a].version); err == nil && order < 0 {
		return nil, true, nil
	}
	lost, err := l.alloc.Replace(a, pool, l.joined(a, tenants))
	if err != nil {
		return nil, false, err
	}
	l.recorded[a] = recorded{version, tenants}
	if released {
		l.cooling[a] = true
	} else {
		delete(l.cooling, a)
	}
	return slices.DeleteFunc(lost, func(o ipam.Owner) bool {
		return o.UID == "" || released && slices.ContainsFunc(tenants, func(t ipam.Tenant) bool {
			return t.Owner.Namespace == o.Namespace && t.Owner.Name == o.Name // It gave it up.
		})
	}), false, nil
}

// resume has new addresses be given after this one.
func (l *ledger) resume(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.alloc.Resume(a)
}

// drop has an address be held no more by these owners, and reports whether it is free now that was not.
func (l *ledger) drop(a netip.Addr, owners ...ipam.Owner) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	dropped := false
	for _, o := range owners {
		dropped = l.alloc.Release(a, o) || dropped
		l.setJoining(a, slices.DeleteFunc(l.joining[a], func(t ipam.Tenant) bool { return t.Owner.UID == o.UID }))
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
	return l.recorded[a].version
}

// outdated notes that the API server has an older record than the version that was known before it was asked: it came
// back from a backup. If another was learned meanwhile, that one stays.
func (l *ledger) outdated(a netip.Addr, version string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.recorded[a].version == version {
		l.forget(a)
	}
}

// unrecorded notes that the record of an address is gone.
func (l *ledger) unrecorded(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(a)
}

// forget drops what was known of the record of an address. Who holds it stays.
func (l *ledger) forget(a netip.Addr) {
	delete(l.cooling, a)
	delete(l.recorded, a)
}

// displaced reports whether a held address is not of the pool that its record names, and whose it is, if any's.
func (l *ledger) displaced(a netip.Addr) (home string, displaced bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	home, _ = l.alloc.PoolOf(a)
	return home, l.alloc.IsDisplaced(a)
}

// setPools takes over the pools, and returns the addresses in use that were displaced before or are now.
func (l *ledger) setPools(pools []ipam.Pool, terms map[string]poolTerms) []netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.alloc.Displaced()
	l.terms = terms
	addresses := map[netip.Addr]bool{}
	for _, a := range slices.Concat(before, l.alloc.SetPools(pools)) {
		addresses[a.Address] = true
	}
	return slices.Collect(maps.Keys(addresses))
}

// poolTerms is what becomes of a pool's addresses when they are released.
type poolTerms struct {
	delay   time.Duration
	reclaim herald.ReclaimPolicy
	// lasting tells that the pool is there, and not being deleted.
	lasting bool
}

// termsOf is what becomes of the pool's addresses; those of a pool that is gone do not rest.
func (l *ledger) termsOf(pool string) poolTerms {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.terms[pool]
}

func (l *ledger) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.recorded)
}

// coolingDown lists the addresses that are released and not yet free.
func (l *ledger) coolingDown() []netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.cooling))
}

// use counts the addresses of pools, in proportion to the pools and to the addresses that cool down.
func (l *ledger) use(pools []string) map[string]use {
	l.mu.Lock()
	defer l.mu.Unlock()
	by := make(map[string]use, len(pools))
	for _, pool := range pools {
		u := use{families: l.alloc.Usage(pool), cooling: map[ipam.Family]int64{}}
		for _, o := range l.alloc.Overlaps(pool) {
			for _, r := range o.Ranges {
				u.overlaps = append(u.overlaps, fmt.Sprintf("%s (pool %s)", r, o.Pool))
			}
		}
		by[pool] = u
	}
	for a := range l.cooling {
		in, _ := l.alloc.PoolOf(a) // As they are counted as assigned.
		if u, known := by[in]; known {
			u.cooling[ipam.FamilyOf(a)]++
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

// outside lists by pool the addresses that are recorded for it and that it no longer holds.
func (l *ledger) outside() map[string][]place {
	l.mu.Lock()
	defer l.mu.Unlock()
	by := map[string][]place{}
	for _, a := range l.alloc.Displaced() {
		by[a.Pool] = append(by[a.Pool], place(a))
	}
	return by
}

// place is an address and who has it, as it is told.
type place ipam.Allocation

func (p place) String() string { return fmt.Sprintf("%s (%s)", p.Address, p.Owner) }
