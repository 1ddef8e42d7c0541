package ipam

import (
	"maps"
	"net/netip"
	"slices"
)

// Displaced returns the held addresses that are in no pool, or in another pool than their record
// names, lowest first. The pool was deleted or narrowed, or an older pool has the address.
// [Allocator.PoolOf] tells these cases apart. The addresses stay held. A caller that accepts the
// other pool calls [Allocator.Restore] with it. An address that was recorded without a pool is
// displaced only if it is in no pool. The cost is proportional to the result.
func (a *Allocator) Displaced() []Allocation {
	var displaced []Allocation
	for _, addr := range slices.SortedFunc(maps.Keys(a.displaced), netip.Addr.Compare) {
		displaced = append(displaced, a.Holders(addr)...)
	}
	return displaced
}

// IsDisplaced reports whether addr is among the addresses that [Allocator.Displaced] returns.
func (a *Allocator) IsDisplaced(addr netip.Addr) bool {
	_, displaced := a.displaced[addr]
	return displaced
}

// judge notes whether the address of h is displaced. All holdings of an address name the same pool
// and have the same home.
func (a *Allocator) judge(h *holding) {
	if h.home == nil || h.Pool != "" && !h.in(h.Pool) {
		a.displaced[h.Address] = struct{}{}
	} else {
		delete(a.displaced, h.Address)
	}
}
