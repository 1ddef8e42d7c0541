package ipam

import (
	"iter"
	"net/netip"
)

// holding is an address that one owner holds. Each owner of a shared address has a holding of its own.
type holding struct {
	Allocation
	sharing Sharing
	home    *pool    // the pool that has the address now; nil if none has it
	before  *holding // the holding that the same owner took before this one
	beside  *holding // the next holding of the same address
}

// in reports whether the pool of this name has the address now.
func (h *holding) in(pool string) bool { return h.home != nil && h.home.Name == pool }

// on returns the first holding of an address, and nil if the address is free. The field beside links to the other
// holdings.
func (a *Allocator) on(addr netip.Addr) *holding { return a.known[addr].first }

// holding returns the owner's holding of addr; nil if the owner does not hold it.
func (a *Allocator) holding(addr netip.Addr, o Owner) *holding {
	for h := a.on(addr); h != nil; h = h.beside {
		if h.Owner.is(o) {
			return h
		}
	}
	return nil
}

// leads reports whether h is the first holding of its namespace in the list of holdings that starts with first.
func leads(first, h *holding) bool {
	for first.Owner.Namespace != h.Owner.Namespace {
		first = first.beside
	}
	return first == h
}

// hold records that an owner holds an address.
func (a *Allocator) hold(al Allocation, terms Sharing) {
	h, first := &holding{Allocation: al}, a.on(al.Address)
	if first != nil {
		h.home = first.home
		last := first
		for ; last.beside != nil; last = last.beside {
		}
		last.beside = h
	} else {
		if h.home = a.find(al.Address); h.home != nil {
			h.home.space(FamilyOf(al.Address)).take(a, al.Address)
		}
		a.known[al.Address] = known{first: h}
		a.judge(h)
	}
	a.count(first, h)
	a.link(h)
	a.regroup(h, terms)
}

// last returns the holding that an owner took last, and nil if the owner holds nothing.
func (a *Allocator) last(o Owner) *holding {
	if o.UID != "" {
		return a.owners[o.UID]
	}
	return a.names[o]
}

// setLast sets the holding that an owner took last. It does nothing for a reservation without a name.
func (a *Allocator) setLast(o Owner, h *holding) {
	switch {
	case o.UID != "" && h != nil:
		a.owners[o.UID] = h
	case o.UID != "":
		delete(a.owners, o.UID)
	case o.Name != "" && h != nil:
		a.names[o] = h
	default:
		delete(a.names, o)
	}
}

// link makes h the holding that its owner took last.
func (a *Allocator) link(h *holding) {
	h.before = a.last(h.Owner)
	a.setLast(h.Owner, h)
}

// unlink removes h from the holdings of its owner.
func (a *Allocator) unlink(h *holding) {
	for later := range a.takenBy(h.Owner) {
		if later.before == h {
			later.before = h.before
			return
		}
	}
	a.setLast(h.Owner, h.before)
}

// takenBy returns an iterator over the holdings of an owner, the last taken first.
func (a *Allocator) takenBy(o Owner) iter.Seq[*holding] {
	return func(yield func(*holding) bool) {
		for h := a.last(o); h != nil && yield(h); h = h.before {
		}
	}
}
