package ipam

import (
	"net/netip"
	"slices"
)

// Claim makes the owner hold addr, one of req.Addresses, which another allocator gave it. The rules are those of a request
// for this address, and the pool that has the address must admit the class of the other allocator, req.Class. Claim does
// not look at other addresses that the owner holds, and never chooses one.
//
// An owner that holds addr keeps it while the pool admits the class. If its terms of sharing changed and do not agree with
// those of the other holders, Claim fails with the cause ChangedTerms, and the owner holds addr on the terms that it had.
//
// The error is an [*Error], as from [Allocator.Allocate]. If Claim fails, it has changed nothing.
func (a *Allocator) Claim(req Request, addr netip.Addr) (Allocation, error) {
	if err := checkAddr(addr); err != nil {
		return Allocation{}, err
	}
	h := a.holding(addr, req.Owner)
	if h == nil || !a.Admits(addr, req.Class) {
		al, refused := a.exactly(addr, &req, a.wanted(&req, FamilyOf(addr)))
		if refused != nil {
			return Allocation{}, refused
		}
		a.grant(al, req.Sharing)
		return al, nil
	}
	if why := a.conflict(a.on(addr), req.Owner, &req.Sharing); why.Over != Nothing && !h.sharing.equal(&req.Sharing) {
		return Allocation{}, a.errTaken(addr, req.Owner, why, ChangedTerms)
	}
	a.regroup(h, req.Sharing)
	return h.Allocation, nil
}

// wanted returns the addresses of family f that the owner holds and asks for.
func (a *Allocator) wanted(req *Request, f Family) (all []Allocation) {
	for h := range a.takenBy(req.Owner) {
		if FamilyOf(h.Address) == f && slices.Contains(req.Addresses, h.Address) {
			all = append(all, h.Allocation)
		}
	}
	return all
}

// Admits reports whether the pool of addr lists a class in Classes. The empty class is that of this Allocator, which every
// pool admits.
func (a *Allocator) Admits(addr netip.Addr, class string) bool {
	home := a.find(addr)
	return home != nil && home.admits(class)
}

// admits reports whether the pool lists a class. The empty class is that of this Allocator.
func (p *pool) admits(class string) bool { return class == "" || slices.Contains(p.Classes, class) }
