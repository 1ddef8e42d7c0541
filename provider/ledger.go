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

	"github.com/heraldlb/herald/ipam"
)

// ledger is the allocator in memory, shared by the service controller's workers. Its lock guards
// memory only and is never held over a call to the API server.
type ledger struct {
	mu    sync.Mutex
	alloc *ipam.Allocator
	// cooling holds the released addresses. They are still held by their last owner.
	cooling map[netip.Addr]bool
	// recorded holds the addresses whose record is known to exist and not to be released.
	recorded map[netip.Addr]bool
	// delays are the pools' reuse delays.
	delays map[string]time.Duration
}

func newLedger() *ledger {
	return &ledger{alloc: ipam.New(), cooling: map[netip.Addr]bool{}, recorded: map[netip.Addr]bool{}, delays: map[string]time.Duration{}}
}

// allocate gives the Service what it asks for, in memory, after it has adopted what it carries. If
// another Service holds that by now, ours gets a new address.
func (l *ledger) allocate(svc *corev1.Service, req ipam.Request) ([]ipam.Allocation, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.adopt(svc, req); err != nil {
		return nil, err
	}
	return l.alloc.Allocate(req)
}

// adoptOnly gives the Service what it carries, and nothing else.
func (l *ledger) adoptOnly(svc *corev1.Service, req ipam.Request) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.adopt(svc, req)
}

// adopt gives a Service the addresses that its status carries, if they are free and the Service holds
// and asks for no others: they were ours before a backup was restored, or another load balancer gave
// them. The lock is held.
func (l *ledger) adopt(svc *corev1.Service, req ipam.Request) error {
	for _, address := range carried(svc) {
		f := ipam.FamilyOf(address)
		same := func(a netip.Addr) bool { return ipam.FamilyOf(a) == f }
		if !slices.Contains(req.Families, f) || slices.ContainsFunc(req.Addresses, same) ||
			slices.ContainsFunc(l.alloc.HeldBy(req.Owner.UID), func(a ipam.Allocation) bool { return same(a.Address) }) {
			continue
		}
		pool, ok := l.alloc.PoolOf(address)
		if !ok {
			return &carriedError{address}
		}
		if req.Pool != "" && req.Pool != pool {
			continue // The user wants it from another pool now.
		}
		// What is taken stays with whoever has it.
		if err := l.alloc.Restore(ipam.Allocation{Address: address, Pool: pool, Owner: req.Owner}); err != nil && !errors.Is(err, ipam.ErrTaken) {
			return err
		}
	}
	return nil
}

// carriedError refuses a Service that arrived with an address that no pool holds. Giving it another
// would be a move that nobody asked for.
type carriedError struct{ address netip.Addr }

func (e *carriedError) Error() string {
	return "status.loadBalancer carries " + e.address.String() + ", which is in no IPPool: add it to spec.addresses of one to keep it, " +
		"or clear the Service's status to be given another"
}

// settled reports whether the Service holds all that it asks for, recorded, and nothing else that is
// not on its way out; with the addresses it holds.
func (l *ledger) settled(req ipam.Request) ([]ipam.Allocation, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := l.live(req.Owner.UID)
	served := 0
	for _, f := range req.Families {
		if slices.ContainsFunc(held, func(a ipam.Allocation) bool { return ipam.FamilyOf(a.Address) == f }) {
			served++
		}
	}
	if served == 0 || served != len(held) || req.RequireAll && served < len(req.Families) {
		return nil, false
	}
	for _, a := range held {
		if !l.recorded[a.Address] || !slices.Contains(req.Families, ipam.FamilyOf(a.Address)) || !l.from(a, req.Pool) {
			return nil, false
		}
	}
	for _, want := range req.Addresses {
		if !slices.ContainsFunc(held, func(a ipam.Allocation) bool { return a.Address == want }) {
			return nil, false
		}
	}
	slices.SortFunc(held, func(x, y ipam.Allocation) int {
		return slices.Index(req.Families, ipam.FamilyOf(x.Address)) - slices.Index(req.Families, ipam.FamilyOf(y.Address))
	})
	return held, true
}

// from reports whether an address serves a request that names this pool, or none. The lock is held.
func (l *ledger) from(a ipam.Allocation, pool string) bool {
	if pool == "" || a.Pool == "" || a.Pool == pool {
		return true
	}
	home, _ := l.alloc.PoolOf(a.Address)
	return home == pool
}

// live lists what an owner holds and has not released. The lock is held.
func (l *ledger) live(uid string) []ipam.Allocation {
	return slices.DeleteFunc(l.alloc.HeldBy(uid), func(a ipam.Allocation) bool { return l.cooling[a.Address] })
}

// heldBy lists what an owner holds, cooling addresses among it.
func (l *ledger) heldBy(uid string) []ipam.Allocation {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alloc.HeldBy(uid)
}

// liveOf lists what an owner holds and has not released.
func (l *ledger) liveOf(uid string) []ipam.Allocation {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.live(uid)
}

// serves reports whether an owner holds an address of the family and has not released it.
func (l *ledger) serves(uid string, f ipam.Family) bool {
	return slices.ContainsFunc(l.liveOf(uid), func(a ipam.Allocation) bool { return ipam.FamilyOf(a.Address) == f })
}

// superfluous lists what the owner holds beyond keep and has not yet released.
func (l *ledger) superfluous(uid string, keep []ipam.Allocation) []ipam.Allocation {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(l.alloc.Superfluous(uid, keep), func(a ipam.Allocation) bool { return l.cooling[a.Address] })
}

// holder returns who holds an address, and whether only until it has cooled down.
func (l *ledger) holder(a netip.Addr) (_ ipam.Allocation, cooling, held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	cooling = l.cooling[a]
	holder, held := l.alloc.Holder(a)
	return holder, cooling, held
}

// learn takes over what a record says. A record outweighs whatever memory believed: the Service that
// thought it had the address is returned, to be served anew.
func (l *ledger) learn(a ipam.Allocation, released bool) (displaced ipam.Owner, was bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.alloc.Restore(a); errors.Is(err, ipam.ErrTaken) {
		other, _ := l.alloc.Holder(a.Address)
		l.alloc.Release(a.Address, other.Owner.UID)
		displaced, was = other.Owner, other.Owner.UID != ""
		_ = l.alloc.Restore(a) // The address is free now.
	}
	if released {
		l.cooling[a.Address] = true
		delete(l.recorded, a.Address)
	} else {
		delete(l.cooling, a.Address)
		l.recorded[a.Address] = true
	}
	return displaced, was
}

// free gives an address back, if that owner holds it.
func (l *ledger) free(a netip.Addr, uid string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.alloc.Release(a, uid) {
		return false
	}
	delete(l.cooling, a)
	delete(l.recorded, a)
	return true
}

// unrecorded notes that the record of an address is gone.
func (l *ledger) unrecorded(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.cooling, a)
	delete(l.recorded, a)
}

func (l *ledger) setPools(pools []ipam.Pool, delays map[string]time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.alloc.SetPools(pools)
	l.delays = delays
}

// delay is how long an address of the pool rests; that of a pool which is gone does not rest.
func (l *ledger) delay(pool string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.delays[pool]
}

func (l *ledger) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.recorded) + len(l.cooling)
}

// coolingDown lists the addresses that are released and not yet free.
func (l *ledger) coolingDown() []netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.cooling))
}

// use counts the addresses of a pool.
func (l *ledger) use(pool string) use {
	l.mu.Lock()
	defer l.mu.Unlock()
	u := use{families: l.alloc.Usage(pool), cooling: map[ipam.Family]int64{}}
	for a := range l.cooling {
		if in, _ := l.alloc.PoolOf(a); in == pool { // As they are counted as assigned.
			u.cooling[ipam.FamilyOf(a)]++
		}
	}
	for _, o := range l.alloc.Overlaps(pool) {
		for _, r := range o.Ranges {
			u.overlaps = append(u.overlaps, fmt.Sprintf("%s (pool %s)", r, o.Pool))
		}
	}
	return u
}

// outside lists by pool the addresses that are recorded for it and that it no longer holds.
func (l *ledger) outside() map[string][]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	by := map[string][]string{}
	for _, a := range l.alloc.Displaced() {
		by[a.Pool] = append(by[a.Pool], fmt.Sprintf("%s (%s)", a.Address, a.Owner))
	}
	return by
}
