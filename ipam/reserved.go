package ipam

import (
	"net/netip"
	"slices"
)

// NotKept is an address that is reserved for an owner that does not get it, and the reason.
type NotKept struct {
	Address  netip.Addr
	Cause    Cause    // InNoPool, AnotherPool, AnotherHolder, IsSkipped, ToBeLeft, AnotherAddress or HoldsAnother
	Home     string   // the pool that has the address, if there is one
	Asked    string   // the pool that the request names
	Conflict Conflict // with AnotherHolder
	Word     string   // with IsSkipped
}

// notKept returns why an owner does not get the address that h reserves for its name. The cause is Unspecified if the
// owner gets it.
func (a *Allocator) notKept(h *holding, req *Request) NotKept {
	out := NotKept{Address: h.Address, Asked: req.Pool, Word: a.skipped[h.Address]}
	if h.home != nil {
		out.Home = h.home.Name
	}
	switch asked := req.asked(FamilyOf(h.Address)); {
	case len(asked) == req.count() && !slices.Contains(asked, h.Address):
		out.Cause = AnotherAddress
	case slices.Contains(req.Leave, h.Address):
		out.Cause = ToBeLeft
	case h.home == nil:
		out.Cause = InNoPool
	case a.skips(h.Address):
		out.Cause = IsSkipped
	case req.Pool != "" && h.home.Name != req.Pool:
		out.Cause = AnotherPool
	default:
		if out.Conflict = a.conflict(a.on(h.Address), req.Owner, &req.Sharing); out.Conflict.Over != Nothing {
			out.Cause = AnotherHolder
		}
	}
	return out
}

// NotKept returns the addresses that are reserved for the owner's name and that the request does not get. It considers
// only the families of the request.
func (a *Allocator) NotKept(req Request) []NotKept {
	var all []NotKept
	for h := range a.takenBy(req.Owner.Reservation()) {
		if !slices.Contains(req.Families, FamilyOf(h.Address)) {
			continue
		}
		out := a.notKept(h, &req)
		if out.Cause == Unspecified {
			out.Cause = HoldsAnother
		}
		all = append(all, out)
	}
	return all
}
