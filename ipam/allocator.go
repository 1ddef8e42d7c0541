package ipam

import (
	"container/list"
	"net/netip"
	"slices"
)

// Allocator knows the pools and every held address. It is not safe for concurrent use: one goroutine must
// own it.
type Allocator struct {
	named map[string]*pool // every pool
	order []*pool          // every pool, in the order in which requests choose from them
	auto  []*pool          // the pools in order that are open and auto-assign
	spans []span           // which pool has which addresses

	known     map[netip.Addr]known    // every address that is held or queued after a release
	owners    map[string]*holding     // by UID, the holding that each owner took last
	names     map[Owner]*holding      // the holding that each reservation with a name took last
	groups    map[string]*group       // by sharing key
	displaced map[netip.Addr]struct{} // the addresses that Displaced returns
	tally     tally                   // of all addresses, whether or not a pool has them

	skipped map[netip.Addr]string // addresses that are never assigned, and the reasons: see Skip

	releases uint64
}

// known is the state of an address. Exactly one of the two fields is set.
type known struct {
	first *holding      // of a held address: its first holding
	rests *list.Element // of a released address: its element in the queue of its space
}

// New returns an Allocator without pools and without held addresses.
func New() *Allocator {
	return &Allocator{
		named:     make(map[string]*pool),
		known:     make(map[netip.Addr]known),
		owners:    make(map[string]*holding),
		names:     make(map[Owner]*holding),
		groups:    make(map[string]*group),
		displaced: make(map[netip.Addr]struct{}),
		tally:     make(tally),
	}
}

// Release frees addr if o holds it, and reports whether it did. Other owners that share addr keep it. The
// address may be assigned again at once: a caller that wants a delay before reuse must keep the address held
// until then.
func (a *Allocator) Release(addr netip.Addr, o Owner) bool {
	h := a.holding(addr, o)
	if h == nil {
		return false
	}
	first := a.on(addr)
	a.uncount(first, h)
	switch before := first; {
	case first != h:
		for ; before.beside != h; before = before.beside {
		}
		before.beside = h.beside
	case h.beside != nil:
		a.known[addr] = known{first: h.beside}
	default:
		delete(a.known, addr)
		delete(a.displaced, addr)
		if h.home != nil {
			h.home.space(FamilyOf(addr)).release(a, addr)
		}
	}
	a.regroup(h, Sharing{})
	a.unlink(h)
	return true
}

// Holders returns the holders of addr, in the order in which they got it.
func (a *Allocator) Holders(addr netip.Addr) []Allocation {
	var all []Allocation
	for h := a.on(addr); h != nil; h = h.beside {
		all = append(all, h.Allocation)
	}
	return all
}

// HeldBy returns the addresses that the owner holds, the last taken at the end. For an owner without a UID
// it returns the addresses that are reserved for its name.
func (a *Allocator) HeldBy(o Owner) []Allocation {
	var all []Allocation
	for h := range a.takenBy(o) {
		all = append(all, h.Allocation)
	}
	slices.Reverse(all)
	return all
}

// Superfluous returns the addresses that the owner holds but that are not among wanted: addresses that it
// moved away from, and those of families that it no longer asks for. wanted is the result of
// [Allocator.Allocate], or empty if the owner is to lose everything. Superfluous addresses stay held, so
// that no other owner gets them while this owner still uses them. The caller releases them when it no longer
// does.
func (a *Allocator) Superfluous(o Owner, wanted []Allocation) []Allocation {
	return slices.DeleteFunc(a.HeldBy(o), func(held Allocation) bool {
		return slices.ContainsFunc(wanted, func(w Allocation) bool { return w.Address == held.Address })
	})
}
