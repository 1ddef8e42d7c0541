package ipam

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
)

// Allocator knows the pools and every held address. It is not safe for concurrent
// use: one goroutine owns it.
type Allocator struct {
	named map[string]*pool // every pool
	auto  []*pool          // those that are open and auto-assign, in order of choice
	spans []span           // which address is in which pool

	held   map[netip.Addr]*holding
	owners map[string]*holding // what each UID took last; no reservations
}

// holding is an address that is held, and where it lies.
type holding struct {
	Allocation
	home   *pool    // whose address it is now; nil if no pool's
	before *holding // what the same UID took before it
}

// in reports whether the address is in this pool now.
func (h *holding) in(pool string) bool { return h.home != nil && h.home.Name == pool }

// New returns an Allocator without pools, in which nothing is held.
func New() *Allocator {
	return &Allocator{
		named:  make(map[string]*pool),
		held:   make(map[netip.Addr]*holding),
		owners: make(map[string]*holding),
	}
}

// SetPools replaces all pools by these, given oldest first. An address in two pools
// belongs to the older, even if that is closed: see [Allocator.Overlaps]. Nothing
// held is taken away; what is displaced, now or still, is returned as from
// [Allocator.Displaced].
//
// It costs in proportion to the ranges of all pools and to the held addresses.
func (a *Allocator) SetPools(pools []Pool) (displaced []Allocation) {
	carved, spans := carve(pools)
	a.spans, a.named, a.auto = spans, make(map[string]*pool, len(carved)), nil
	for _, p := range carved {
		a.named[p.Name] = p
		if p.AutoAssign && !p.Closed {
			a.auto = append(a.auto, p)
		}
	}
	slices.SortStableFunc(a.auto, func(x, y *pool) int { return cmp.Compare(y.Priority, x.Priority) })
	for _, h := range a.held {
		a.settle(h)
	}
	return a.Displaced()
}

// Displaced returns the held addresses that are in no pool, or in another than
// their record names, lowest first: the pool is gone or was narrowed, or an older
// pool has the address. [Allocator.PoolOf] tells these apart. They stay held; a caller
// who accepts the other pool says so with [Allocator.Restore]. An address recorded
// without a pool is at home in any.
func (a *Allocator) Displaced() []Allocation {
	var displaced []Allocation
	for _, h := range a.held {
		if h.home == nil || h.Pool != "" && !h.in(h.Pool) {
			displaced = append(displaced, h.Allocation)
		}
	}
	slices.SortFunc(displaced, func(x, y Allocation) int { return x.Address.Compare(y.Address) })
	return displaced
}

// Restore holds exactly this address for this owner, as its record says, whether
// or not a pool has it. It is how records are read back and how an address that a
// Service brings along is adopted. Restored again, for the same owner, it takes over
// Pool and the owner's names and changes nothing else. An owner without UID makes it
// a reservation; to turn that into a Service's address, Release it first.
//
// An owner may hold several addresses of one family while it moves from one to
// the next. It keeps the one taken last, so restore records oldest first.
//
// It fails with ErrTaken if another owner holds the address, and with ErrInvalid
// if there can be no such address.
func (a *Allocator) Restore(al Allocation) error {
	if err := checkAddr(al.Address); err != nil {
		return err
	}
	h := a.held[al.Address]
	switch {
	case h == nil:
		a.hold(al)
	case !h.Owner.is(al.Owner):
		return errTaken(h.Allocation)
	default:
		h.Allocation = al
	}
	return nil
}

// hold notes a free address as held.
func (a *Allocator) hold(al Allocation) {
	h := &holding{Allocation: al}
	a.settle(h)
	a.held[al.Address] = h
	a.link(h)
}

// link makes h what its owner took last.
func (a *Allocator) link(h *holding) {
	if uid := h.Owner.UID; uid != "" {
		h.before = a.owners[uid]
		a.owners[uid] = h
	}
}

// unlink forgets that h was ever taken by its owner.
func (a *Allocator) unlink(h *holding) {
	uid := h.Owner.UID
	for later := range a.takenBy(uid) {
		if later.before == h {
			later.before = h.before
			return
		}
	}
	if h.before != nil {
		a.owners[uid] = h.before
	} else {
		delete(a.owners, uid)
	}
}

// takenBy goes through what the owner with this UID holds, last taken first.
func (a *Allocator) takenBy(uid string) iter.Seq[*holding] {
	return func(yield func(*holding) bool) {
		for h := a.owners[uid]; h != nil && yield(h); h = h.before {
		}
	}
}

// settle finds the home of h and counts it there.
func (a *Allocator) settle(h *holding) {
	if h.home = a.find(h.Address); h.home != nil {
		h.home.space(FamilyOf(h.Address)).take(h.Address)
	}
}

// Release frees addr if the owner with this UID holds it, and reports whether
// it did. An empty uid frees a reservation. The address may be given again at
// once: whoever wants it to cool down keeps it held until it has.
func (a *Allocator) Release(addr netip.Addr, uid string) bool {
	h := a.held[addr]
	if h == nil || h.Owner.UID != uid {
		return false
	}
	delete(a.held, addr)
	if h.home != nil {
		h.home.space(FamilyOf(addr)).release(addr)
	}
	a.unlink(h)
	return true
}

// Holder returns who holds addr.
func (a *Allocator) Holder(addr netip.Addr) (Allocation, bool) {
	h := a.held[addr]
	if h == nil {
		return Allocation{}, false
	}
	return h.Allocation, true
}

// HeldBy returns what the owner with this UID holds, last taken last. Reservations
// are held by nobody: HeldBy("") is empty.
func (a *Allocator) HeldBy(uid string) []Allocation {
	var all []Allocation
	for h := range a.takenBy(uid) {
		all = append(all, h.Allocation)
	}
	slices.Reverse(all)
	return all
}

// Superfluous returns what the owner with this UID holds beyond wanted, which is
// the answer of [Allocator.Allocate], or nothing if the owner is to go: addresses
// it moved away from and families it no longer asks for. They stay held, so that
// nobody else is given them before the owner is off them; then Release them.
func (a *Allocator) Superfluous(uid string, wanted []Allocation) []Allocation {
	return slices.DeleteFunc(a.HeldBy(uid), func(held Allocation) bool {
		return slices.ContainsFunc(wanted, func(w Allocation) bool { return w.Address == held.Address })
	})
}

// PoolOf returns the pool addr is in, held or free, and whether there is one.
func (a *Allocator) PoolOf(addr netip.Addr) (string, bool) {
	p := a.find(addr)
	if p == nil {
		return "", false
	}
	return p.Name, true
}

func (a *Allocator) find(addr netip.Addr) *pool {
	i := search(a.spans, addr)
	if i == len(a.spans) || addr.Less(a.spans[i].From()) {
		return nil
	}
	return a.spans[i].pool
}

// Overlaps returns what a pool lost to older pools that have the same addresses. It
// is not to be changed.
func (a *Allocator) Overlaps(pool string) []Overlap {
	p := a.named[pool]
	if p == nil {
		return nil
	}
	return p.overlaps
}

// Usage counts the addresses of one family in one pool. Capacity is Assigned plus
// Available. Counts end at 2^64-1, which stands for that many or more: a /64 has one
// address too many for a uint64.
type Usage struct {
	Capacity  uint64 // the pool's own addresses: without what it lost to older pools
	Assigned  uint64 // those that are held, whichever pool their record names
	Available uint64 // those that are free; a closed pool does not give them
}

// Usage counts a pool's addresses. Families of which it has none are left out.
func (a *Allocator) Usage(pool string) map[Family]Usage {
	p := a.named[pool]
	if p == nil {
		return nil
	}
	usage := make(map[Family]Usage, len(families))
	for _, f := range families {
		if s := p.space(f); s.capacity > 0 {
			usage[f] = Usage{Capacity: s.capacity, Assigned: s.assigned, Available: s.capacity - s.assigned}
		}
	}
	return usage
}
