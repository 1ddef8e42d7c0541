package ipam

import (
	"errors"
	"net/netip"
	"slices"
)

// Adopt gives the owner the addresses that it carries and nobody holds: they were its own before the records were lost,
// or another allocator gave them. Of the addresses that it holds and carries, it prefers the first, as if it had taken
// that last. Whatever is not adopted is left to [Allocator.Allocate].
//
// Anybody may write what an owner carries, so it has to be within the rules of a request. An address is adopted if the
// owner asks for it, or asks for more addresses of its family than it holds and asks for; if it is not to be left, and
// not one that is skipped; if its pool is the one that the request names, or else auto-assigns, unless the address itself
// is asked for; if the pool serves the subject; and if the quotas have room.
//
// One rule gives way: a closed pool is no obstacle, for it keeps what is in use, and gives nothing new. And what is
// reserved for the owner's name is adopted whatever its pool says: that was settled when it was reserved.
//
// It fails with ErrNotInPool for an address that is in no pool: to give the owner another would be a move that nobody
// asked for.
func (a *Allocator) Adopt(req Request, carried []netip.Addr) error {
	for _, addr := range carried {
		f := FamilyOf(addr)
		if !slices.Contains(req.Families, f) || slices.Contains(req.Leave, addr) || a.holding(addr, req.Owner) != nil || !a.lacks(&req, addr) {
			continue
		}
		home := a.find(addr)
		if home == nil {
			return &Error{Reason: ErrNotInPool, Cause: CarriedInNoPool, Asker: req.Owner, Asked: req.Pool, Family: f, Address: addr}
		}
		if a.bars(home, &req, addr) {
			continue
		}
		err := a.Restore(Allocation{Address: addr, Pool: home.Name, Owner: req.Owner}, req.Sharing)
		if errors.Is(err, ErrTaken) {
			continue
		}
		if err != nil {
			return err
		}
		a.Release(addr, req.Owner.Reservation()) // What it was kept for has come.
	}
	for _, addr := range slices.Backward(carried) { // so that the first is preferred
		if h := a.holding(addr, req.Owner); h != nil {
			a.unlink(h)
			a.link(h)
		}
	}
	return nil
}

// lacks reports whether the owner has room for addr, which it does not hold: it asks for it, or for more than it holds.
func (a *Allocator) lacks(req *Request, addr netip.Addr) bool {
	asked := req.asked(FamilyOf(addr))
	if slices.Contains(asked, addr) {
		return true
	}
	room := req.count() - len(asked)
	for h := range a.takenBy(req.Owner) {
		if FamilyOf(h.Address) == FamilyOf(addr) && !slices.Contains(asked, h.Address) {
			room--
		}
	}
	return room > 0
}

// bars reports whether a rule keeps the owner from an address of a pool that it carries.
func (a *Allocator) bars(home *pool, req *Request, addr netip.Addr) bool {
	switch {
	case a.skips(addr), req.Pool != "" && req.Pool != home.Name:
		return true
	case req.Owner.Name != "" && a.holding(addr, req.Owner.Reservation()) != nil:
		return false
	case req.Pool == "" && !home.AutoAssign && !slices.Contains(req.Addresses, addr), !home.serves(req):
		return true
	}
	return a.over(home, req, FamilyOf(addr), a.stays(req, FamilyOf(addr)), addr, 0) != nil
}
