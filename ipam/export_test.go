package ipam

import "net/netip"

// Use counts the addresses of family f that a namespace holds, of one pool or, if pool is empty, of all.
func (a *Allocator) Use(pool, namespace string, f Family) uint64 {
	if pool == "" {
		return a.tally.count(namespace, f)
	}
	if p := a.named[pool]; p != nil {
		return p.tally.count(namespace, f)
	}
	return 0
}

// Terms returns on which terms the owner holds addr.
func (a *Allocator) Terms(addr netip.Addr, o Owner) Sharing {
	if h := a.holding(addr, o); h != nil {
		return h.sharing
	}
	return Sharing{}
}
