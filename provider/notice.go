package provider

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/ipam"
)

// notice is something that a Service's owner did not expect about an address that it was given. It becomes an event.
type notice struct{ reason, message string }

// notices are of the decision that was just taken, so that they say what it was taken on: while the address is being
// recorded others come and go. Of what the Service carries there is nothing to say that was not said before.
func (l *ledger) notices(svc *corev1.Service, req ipam.Request, allocations []ipam.Allocation) []notice {
	var list []notice
	note := func(reason, format string, args ...any) {
		list = append(list, notice{reason, fmt.Sprintf(format, args...)})
	}
	had := Carried(svc)
	for _, address := range had {
		replaced := l.heldByOthers(address, req.Owner)
		for _, a := range allocations {
			if replaced != "" && ipam.FamilyOf(a.Address) == ipam.FamilyOf(address) {
				note("AddressReplaced", "%s, which the Service carried, is held by %s: it was given %s instead", address, replaced, a.Address)
			}
		}
	}
	given := slices.DeleteFunc(slices.Clone(allocations), func(a ipam.Allocation) bool { return slices.Contains(had, a.Address) })
	if len(given) == 0 {
		return list
	}
	forgone := l.alloc.Forgone(req)
	for _, a := range given {
		for _, f := range forgone {
			if !l.cooling[f.Address] && ipam.FamilyOf(f.Address) == ipam.FamilyOf(a.Address) {
				note("AddressNotKept", "%s was kept for the Service, but %s: it was given %s", f.Address, f.Why, a.Address)
			}
		}
		if why := l.alloc.Unshared(req, a.Address); why != "" {
			note("NotShared", "%s: the Service was given %s, and shares it with none", why, a.Address)
		}
	}
	return list
}

// heldByOthers names the first of those who hold an address, if it is neither the owner's nor kept for its name.
func (l *ledger) heldByOthers(address netip.Addr, o ipam.Owner) string {
	holders := l.alloc.Holders(address)
	if len(holders) == 0 || slices.ContainsFunc(holders, func(h ipam.Allocation) bool { return h.Owner.Reservation() == o.Reservation() }) {
		return ""
	}
	return holders[0].Owner.String()
}
