package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Adopt gives the owner the addresses that it carries, if they are free and it holds and asks for no others: they
// were its own before a backup was restored, or another allocator gave them. What another holds stays there. Of several
// addresses of a family that it holds, it keeps the one that it carries, as if it had taken that last.
//
// It fails with ErrNotInPool for an address that is in no pool: to give the owner another would be a move that nobody
// asked for.
func (a *Allocator) Adopt(req Request, carried []netip.Addr) error {
	for _, addr := range carried {
		f := FamilyOf(addr)
		if !slices.Contains(req.Families, f) || len(req.asked(f)) > 0 || slices.Contains(req.Leave, addr) {
			continue
		}
		if h := a.holding(addr, req.Owner); h != nil {
			a.unlink(h)
			a.link(h)
		}
		if a.holds(req.Owner, f) {
			continue
		}
		home := a.find(addr)
		if home == nil {
			return &Error{Reason: ErrNotInPool, Family: f, Address: addr, message: fmt.Sprintf("status.loadBalancer carries %s, which is in no IPPool: "+
				"add it to spec.addresses of one to keep it, or clear the Service's status to be given another", addr)}
		}
		if req.Pool != "" && req.Pool != home.Name {
			continue // It is wanted from another pool now.
		}
		if err := a.Restore(Allocation{Address: addr, Pool: home.Name, Owner: req.Owner}, req.Sharing); err != nil && !errors.Is(err, ErrTaken) {
			return err
		}
		a.Release(addr, req.Owner.Reservation()) // What it was kept for has come.
	}
	return nil
}
