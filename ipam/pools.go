package ipam

import (
	"cmp"
	"net/netip"
	"slices"
)

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
