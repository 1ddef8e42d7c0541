package ipam

import (
	"cmp"
	"container/list"
	"iter"
	"maps"
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

	known  map[netip.Addr]known    // every address that is held or rests
	owners map[string]*holding     // what each owner took last, by its UID
	names  map[Owner]*holding      // the same of reservations, but for those that name nobody
	groups map[string]*group       // by sharing key
	astray map[netip.Addr]struct{} // those of held that are displaced
	tally  tally                   // of all addresses, in a pool or not

	skipped map[netip.Addr]string // never given out, and why: see Skip

	releases uint64
}

// known is what is to be remembered of an address: one of the two.
type known struct {
	first *holding      // who came first of those who hold it
	rests *list.Element // of the queue of its space, in which it rests
}

// on returns who came first of those who hold an address; nil if it is free.
func (a *Allocator) on(addr netip.Addr) *holding { return a.known[addr].first }

// holding is an address in the hands of one owner, and where it lies.
type holding struct {
	Allocation
	sharing Sharing
	home    *pool    // whose address it is now; nil if no pool's
	before  *holding // what the same owner took before it
	beside  *holding // who came next to the same address
}

// in reports whether the address is in this pool now.
func (h *holding) in(pool string) bool { return h.home != nil && h.home.Name == pool }

// New returns an Allocator without pools, in which nothing is held.
func New() *Allocator {
	return &Allocator{
		named:  make(map[string]*pool),
		known:  make(map[netip.Addr]known),
		owners: make(map[string]*holding),
		names:  make(map[Owner]*holding),
		groups: make(map[string]*group),
		astray: make(map[netip.Addr]struct{}),
		tally:  make(tally),
	}
}

// SetPools replaces all pools by these, given oldest first. An address in two pools
// belongs to the older, even if that is closed: see [Allocator.Overlaps]. Nothing
// held is taken away; what is displaced, now or still, is returned as from
// [Allocator.Displaced].
//
// Which addresses were released when is remembered, as long as a pool has them. It costs in proportion to the
// ranges of all pools and to the addresses that are held or were.
func (a *Allocator) SetPools(pools []Pool) (displaced []Allocation) {
	carved, spans := carve(pools)
	a.resumeAll(carved)
	a.spans, a.named, a.order, a.auto = spans, make(map[string]*pool, len(carved)), carved, nil
	slices.SortStableFunc(a.order, func(x, y *pool) int { return cmp.Compare(y.Priority, x.Priority) })
	for _, p := range a.order {
		a.named[p.Name] = p
		if p.AutoAssign && !p.Closed {
			a.auto = append(a.auto, p)
		}
	}
	for addr := range a.skipped {
		if p := a.find(addr); p != nil {
			p.space(FamilyOf(addr)).skipped++ // Those of them that are held are settled next.
		}
	}
	for _, k := range a.known {
		if k.first != nil {
			a.settle(k.first)
		}
	}
	a.requeue()
	return a.Displaced()
}

// requeue brings the addresses that were released into the queues of the pools that have them now.
func (a *Allocator) requeue() {
	var all []*rest
	for addr, k := range a.known {
		if k.rests != nil {
			all = append(all, k.rests.Value.(*rest))
			delete(a.known, addr)
		}
	}
	slices.SortFunc(all, func(x, y *rest) int { return cmp.Compare(x.release, y.release) })
	for _, r := range all {
		if p := a.find(r.addr); p != nil && p.Order == LeastRecentlyUsed {
			a.known[r.addr] = known{rests: p.space(FamilyOf(r.addr)).rested.PushBack(r)}
		}
	}
}

// Displaced returns the held addresses that are in no pool, or in another than
// their record names, lowest first: the pool is gone or was narrowed, or an older
// pool has the address. [Allocator.PoolOf] tells these apart. They stay held; a caller
// who accepts the other pool says so with [Allocator.Restore]. An address recorded
// without a pool is at home in any. It costs in proportion to what it returns.
func (a *Allocator) Displaced() []Allocation {
	var displaced []Allocation
	for _, addr := range slices.SortedFunc(maps.Keys(a.astray), netip.Addr.Compare) {
		displaced = append(displaced, a.Holders(addr)...)
	}
	return displaced
}

// IsDisplaced reports whether an address is among the Displaced.
func (a *Allocator) IsDisplaced(addr netip.Addr) bool {
	_, displaced := a.astray[addr]
	return displaced
}

// judge notes whether an address is displaced. All who hold it have it from one pool, and at one home.
func (a *Allocator) judge(h *holding) {
	if h.home == nil || h.Pool != "" && !h.in(h.Pool) {
		a.astray[h.Address] = struct{}{}
	} else {
		delete(a.astray, h.Address)
	}
}

// Restore holds exactly this address for this owner, whether or not a pool has it, beside those who share it
// on terms that agree. It is how an address that a Service brings along is adopted. Restored again, for the same
// owner, it takes over the owner's names and the terms; Pool holds for all who share the address. An owner without UID
// makes it a reservation.
//
// An owner may hold several addresses of one family while it moves from one to
// the next. It keeps the one taken last, so restore oldest first.
//
// It fails with ErrTaken if another owner holds the address, and with ErrInvalid
// if there can be no such address.
func (a *Allocator) Restore(al Allocation, terms Sharing) error {
	if err := checkAddr(al.Address); err != nil {
		return err
	}
	if why := a.apart(a.on(al.Address), al.Owner, &terms); why.Over != Nothing {
		return a.errTaken(al.Address, al.Owner, why, AnotherHolder)
	}
	a.record(al, terms)
	return nil
}

// record has an owner hold an address as its record says, which names one pool for all who are in it.
func (a *Allocator) record(al Allocation, terms Sharing) {
	if h := a.holding(al.Address, al.Owner); h != nil {
		first := a.on(al.Address)
		a.uncount(first, h) // Somebody may have written another namespace into it.
		h.Allocation = al
		a.count(first, h)
		a.regroup(h, terms)
	} else {
		a.hold(al, terms)
	}
	for h := a.on(al.Address); h != nil; h = h.beside {
		h.Pool = al.Pool
	}
	a.judge(a.on(al.Address))
}

// Replace has exactly these owners hold an address, as its record says, and returns those who lost it; they may
// have believed in vain that it was theirs. No tenants free it. The record outweighs everything: terms are not
// compared. An owner that stays keeps its place in the order of what it took.
func (a *Allocator) Replace(addr netip.Addr, pool string, tenants []Tenant) (lost []Owner, err error) {
	if err := checkAddr(addr); err != nil {
		return nil, err
	}
	for _, t := range tenants { // The new ones first, so that the address does not come free in between.
		a.record(Allocation{Address: addr, Pool: pool, Owner: t.Owner}, t.Sharing)
	}
	for _, al := range a.Holders(addr) {
		if !slices.ContainsFunc(tenants, func(t Tenant) bool { return t.Owner.is(al.Owner) }) {
			a.Release(addr, al.Owner)
			lost = append(lost, al.Owner)
		}
	}
	return lost, nil
}

// Resume has the pool of addr go on after it, as if it had been given last: after a restart it is not known
// what was released when, and to go on from the youngest record comes closest. Without it, and where
// the order is Lowest, a pool begins with its lowest address.
func (a *Allocator) Resume(addr netip.Addr) {
	if p := a.find(addr); p != nil {
		p.space(FamilyOf(addr)).resume(addr)
	}
}

// resumeAll has new pools go on where the old ones of the same name stopped.
func (a *Allocator) resumeAll(pools []*pool) {
	for _, p := range pools {
		before := a.named[p.Name]
		if before == nil {
			continue
		}
		for i := range p.spaces {
			next, s := before.spaces[i].next, &p.spaces[i]
			if n := s.place(next); n < len(s.ranges) && s.ranges[n].Contains(next) {
				s.begin(next)
			}
		}
	}
}

// holding returns what the owner has of addr; nil if nothing.
func (a *Allocator) holding(addr netip.Addr, o Owner) *holding {
	for h := a.on(addr); h != nil; h = h.beside {
		if h.Owner.is(o) {
			return h
		}
	}
	return nil
}

// leads reports whether h is the first of its namespace among first and those beside it.
func leads(first, h *holding) bool {
	for first.Owner.Namespace != h.Owner.Namespace {
		first = first.beside
	}
	return first == h
}

// hold notes that an address has one more owner.
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

// last returns what an owner took last; nil if it holds nothing.
func (a *Allocator) last(o Owner) *holding {
	if o.UID != "" {
		return a.owners[o.UID]
	}
	return a.names[o]
}

// setLast notes what an owner took last; nobody takes anything.
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

// link makes h what its owner took last.
func (a *Allocator) link(h *holding) {
	h.before = a.last(h.Owner)
	a.setLast(h.Owner, h)
}

// unlink forgets that h was ever taken by its owner.
func (a *Allocator) unlink(h *holding) {
	for later := range a.takenBy(h.Owner) {
		if later.before == h {
			later.before = h.before
			return
		}
	}
	a.setLast(h.Owner, h.before)
}

// takenBy goes through what the owner holds, last taken first.
func (a *Allocator) takenBy(o Owner) iter.Seq[*holding] {
	return func(yield func(*holding) bool) {
		for h := a.last(o); h != nil && yield(h); h = h.before {
		}
	}
}

// settle finds the home of an address, and counts it there, for all that hold it.
func (a *Allocator) settle(first *holding) {
	home := a.find(first.Address)
	for h := first; h != nil; h = h.beside {
		h.home = home
		if home != nil && leads(first, h) {
			home.tally.add(h.Owner.Namespace, FamilyOf(first.Address))
		}
	}
	if home != nil {
		home.space(FamilyOf(first.Address)).take(a, first.Address)
	}
	a.judge(first)
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
		delete(a.astray, addr)
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
// Skipped plus Available. Counts end at 2^64-1, which stands for that many or more: a /64 has one
// address too many for a uint64.
type Usage struct {
	Capacity  uint64 // the pool's own addresses: without what it lost to older pools
	Assigned  uint64 // those that are held, whichever pool their record names
	Skipped   uint64 // those that are not held and are not to be given: see [Allocator.Skip]
	Available uint64 // the rest, which are free; a closed pool does not give them
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
			usage[f] = Usage{Capacity: s.capacity, Assigned: s.assigned, Skipped: s.skipped, Available: s.free()}
		}
	}
	return usage
}
