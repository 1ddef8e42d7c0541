package ipam

import (
	"maps"
	"net/netip"
	"slices"
)

// Skip replaces the set of addresses that are never given out, though a pool has them: those of nodes and gateways, for
// example. The value is the caller's word for the reason, which [Error] repeats. It costs in proportion to the sets
// before and after, not to the pools.
//
// A skipped address that is held stays held, and is not displaced. One that is free is not available: no request gets
// it, not even one that asks for it, shares it, or for whose owner it is reserved. When it is skipped no longer it is
// given again, as if it had been released then. Skip reports whether there is such an address.
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
	// In order, so that the same calls lead to the same answers.
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

// skips reports whether an address is not to be given out.
func (a *Allocator) skips(addr netip.Addr) bool {
	_, skipped := a.skipped[addr]
	return skipped
}

// skip notes that addr, which is free, is not to be given.
func (s *space) skip(a *Allocator, addr netip.Addr) {
	s.skipped++
	s.unqueue(a, addr)
}

// unskip notes that addr, which is free, may be given again.
func (s *space) unskip(a *Allocator, addr netip.Addr) {
	s.skipped--
	s.queue(a, addr)
}
