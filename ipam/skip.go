package ipam

import (
	"maps"
	"net/netip"
	"slices"
)

// Skip replaces the set of addresses that are never assigned although a pool has them, for example those of nodes and
// gateways. The value is the caller's word for the reason; [Error] repeats it. The cost is proportional to the size of
// the old set and the new one, and does not depend on the pools.
//
// A skipped address that is held stays held, and is not displaced. A skipped address that is free is not available. No
// request gets it, not even a request that names it or would share it, or whose owner has it reserved. An address that
// is no longer skipped can be assigned again, as if it had been released at that moment. Skip reports whether there is
// such an address.
func (a *Allocator) Skip(all map[netip.Addr]string) (freed bool) {
	before := a.skipped
	a.skipped = make(map[netip.Addr]string, len(all))
	for addr, word := range all {
		a.skipped[addr.Unmap().WithZone("")] = word
	}
	for addr := range a.skipped {
		if _, already := before[addr]; already || a.on(addr) != nil {
			continue
		}
		if p := a.find(addr); p != nil {
			p.space(FamilyOf(addr)).skip(a, addr)
		}
	}
	// Sorted, so that the same calls have the same results.
	for _, addr := range slices.SortedFunc(maps.Keys(before), netip.Addr.Compare) {
		if a.skips(addr) || a.on(addr) != nil {
			continue
		}
		if p := a.find(addr); p != nil {
			p.space(FamilyOf(addr)).unskip(a, addr)
			freed = true
		}
	}
	return freed
}

// skips reports whether an address must not be assigned.
func (a *Allocator) skips(addr netip.Addr) bool {
	_, skipped := a.skipped[addr]
	return skipped
}

// skip records that addr, which is free, must not be assigned.
func (s *space) skip(a *Allocator, addr netip.Addr) {
	s.skipped++
	s.unqueue(a, addr)
}

// unskip records that addr, which is free, may be assigned again.
func (s *space) unskip(a *Allocator, addr netip.Addr) {
	s.skipped--
	s.queue(a, addr)
}
