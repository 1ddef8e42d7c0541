package ipam

import (
	"maps"
	"net/netip"
	"slices"
)

// Displaced returns the held addresses that are in no pool, or in another than
// their record names, lowest first: the pool is gone or was narrowed, or an older
// pool has the address. [Allocator.PoolOf] tells these apart. They stay held; a caller
// who accepts the other pool says so with [Allocator.Restore]. An address recorded
// without a pool is at home in any. It costs in proportion to what it returns.
func (a *Allocator) Displaced() []Allocation {
	var displaced []Allocation
	for _, addr := range slices.SortedFunc(maps.Keys(a.displaced), netip.Addr.Compare) {
		displaced = append(displaced, a.Holders(addr)...)
	}
	return displaced
}

// IsDisplaced reports whether an address is among the Displaced.
func (a *Allocator) IsDisplaced(addr netip.Addr) bool {
	_, displaced := a.displaced[addr]
	return displaced
}

// judge notes whether an address is displaced. All its holdings name one pool and have one home.
func (a *Allocator) judge(h *holding) {
	if h.home == nil || h.Pool != "" && !h.in(h.Pool) {
		a.displaced[h.Address] = struct{}{}
	} else {
		delete(a.displaced, h.Address)
	}
}
