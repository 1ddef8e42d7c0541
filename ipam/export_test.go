package ipam

import "net/netip"

// Use counts the addresses of family f that a namespace holds of a pool, or of all pools if pool is
// empty.
func (a *Allocator) Use(pool, namespace string, f Family) uint64 {
	if pool == "" {
		return a.tally.count(namespace, f)
	}
	if p := a.named[pool]; p != nil {
		return p.tally.count(namespace, f)
	}
	return 0
}

// Terms returns the terms on which the owner holds addr.
func (a *Allocator) Terms(addr netip.Addr, o Owner) Sharing {
	if h := a.holding(addr, o); h != nil {
		return h.sharing
	}
	return Sharing{}
}
