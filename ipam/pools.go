package ipam

import (
	"cmp"
	"net/netip"
	"slices"
)

// SetPools replaces all pools. The pools are given oldest first. An address that two pools list belongs to
// the older one, even if that is closed: see [Allocator.Overlaps]. Held addresses stay held. SetPools returns
// the displaced ones, as [Allocator.Displaced] does.
//
// The order in which addresses were released is remembered as long as a pool has them. The cost is
// proportional to the number of ranges of all pools, and to the number of addresses that are or were held.
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
			p.space(FamilyOf(addr)).skipped++ // The held ones among them are corrected below.
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

// requeue puts the released addresses into the queues of the pools that have them now.
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

// Resume makes the pool of addr continue after addr, as if addr had been assigned last. After a restart
// nobody knows when which address was released, and continuing after the youngest record is the best
// approximation. Without Resume, and with the order Lowest, a pool starts with its lowest address.
func (a *Allocator) Resume(addr netip.Addr) {
	if p := a.find(addr); p != nil {
		p.space(FamilyOf(addr)).resume(addr)
	}
}

// resumeAll makes new pools continue where the old ones of the same name stopped.
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

// settle finds the home of an address, sets it in all holdings of the address, and counts the address there.
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

// PoolOf returns the name of the pool that has addr, whether held or free, and false if no pool has it.
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

// Overlaps returns the addresses that a pool lost to older pools that list them as well. The caller must not
// change the result.
func (a *Allocator) Overlaps(pool string) []Overlap {
	p := a.named[pool]
	if p == nil {
		return nil
	}
	return p.overlaps
}

// Usage counts the addresses of one family in one pool. Capacity is the sum of Assigned, Skipped and
// Available. Counts are limited to 2^64-1, which stands for this number or more: a /64 has one address too
// many for a uint64.
type Usage struct {
	Capacity  uint64 // the addresses that belong to the pool, without those it lost to older pools
	Assigned  uint64 // those that are held, whatever pool their record names
	Skipped   uint64 // those that are not held and are never assigned: see [Allocator.Skip]
	Available uint64 // the rest, which are free; a closed pool does not assign them
}

// Usage counts the addresses of a pool, for each family of which the pool has any.
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
