package ipam

import (
	"errors"
	"net/netip"
	"slices"
)

// Adopt assigns the owner the addresses that it carries, except those that another owner holds and cannot share with it. The
// owner had them before the records were lost, or got them from another allocator. Of the carried addresses that the owner
// holds, it then prefers the first, as if it had taken that one last. [Allocator.Allocate] deals with the addresses that are
// not adopted.
//
// Anybody may write what an owner carries, so an adopted address must satisfy the rules of a request:
//
//   - The owner asks for this address, or the addresses of its family that it holds or names are together fewer than it asks for.
//   - The owner is not to leave the address, and the address is not skipped.
//   - The request names the pool of the address. If the request names no pool, the pool auto-assigns or the request names
//     the address itself.
//   - The pool serves the subject.
//   - The quotas have room.
//
// There are two exceptions. A pool may be closed, because a closed pool keeps the addresses that are in use. An address
// that is reserved for the owner's name is adopted whatever its pool says, because the pool's rules were checked when it
// was reserved.
//
// Adopt fails with ErrNotInPool for an address that is in no pool: assigning another address would be a move that nobody
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
		a.Release(addr, req.Owner.Reservation()) // The reservation has served its purpose.
	}
	for _, addr := range slices.Backward(carried) { // Backward, so that the first is preferred.
		if h := a.holding(addr, req.Owner); h != nil {
			a.unlink(h)
			a.link(h)
		}
	}
	return nil
}

// lacks reports whether the owner has room for addr, which it does not hold: it asks for addr, or for more addresses than
// it holds.
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

// bars reports whether a rule prevents the adoption of addr, which the owner carries and which is in the pool home.
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
