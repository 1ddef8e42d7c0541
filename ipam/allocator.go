package ipam

import (
	"container/list"
	"net/netip"
	"slices"
)

// Allocator knows the pools and every held address. It is not safe for concurrent
// use: one goroutine owns it.
type Allocator struct {
	named map[string]*pool // every pool
	order []*pool          // every pool, in order of choice
	auto  []*pool          // those of them that are open and auto-assign
	spans []span           // which address is in which pool

	known     map[netip.Addr]known    // every address that is held or rests
	owners    map[string]*holding     // what each owner took last, by its UID
	names     map[Owner]*holding      // what each reservation that has a name took last
	groups    map[string]*group       // by sharing key
	displaced map[netip.Addr]struct{} // the addresses that Displaced returns
	tally     tally                   // of all addresses, in a pool or not

	skipped map[netip.Addr]string // never given out, and why: see Skip

	releases uint64
}

// known is what is remembered of an address. One of the two fields is set.
type known struct {
	first *holding      // of an address that is held: the first holding
	rests *list.Element // of one that was released: its element in the queue of its space
}

// New returns an Allocator without pools, in which nothing is held.
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

// Release frees addr if that owner holds it, and reports whether it did; for others who share it nothing
// changes. The address may be given again at once: whoever wants it to cool down keeps it held until it has.
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

// Holders returns who holds addr, in the order in which they came.
func (a *Allocator) Holders(addr netip.Addr) []Allocation {
	var all []Allocation
	for h := a.on(addr); h != nil; h = h.beside {
		all = append(all, h.Allocation)
	}
	return all
}

// HeldBy returns what the owner holds, last taken last; of an owner without UID it is what is reserved for
// its name.
func (a *Allocator) HeldBy(o Owner) []Allocation {
	var all []Allocation
	for h := range a.takenBy(o) {
		all = append(all, h.Allocation)
	}
	slices.Reverse(all)
	return all
}

// Superfluous returns what the owner holds beyond wanted, which is
// the answer of [Allocator.Allocate], or nothing if the owner is to go: addresses
// it moved away from and families it no longer asks for. They stay held, so that
// nobody else is given them before the owner is off them; then Release them.
func (a *Allocator) Superfluous(o Owner, wanted []Allocation) []Allocation {
	return slices.DeleteFunc(a.HeldBy(o), func(held Allocation) bool {
		return slices.ContainsFunc(wanted, func(w Allocation) bool { return w.Address == held.Address })
	})
}
