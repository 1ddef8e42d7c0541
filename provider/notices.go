package provider

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// notice tells the owner of a Service something unexpected about a new address. It becomes an event.
type notice struct{ reason, message string }

// notices returns the notices about an allocation that was just made. The holders of other addresses may change while
// this one is being recorded, so the notices describe the state at the time of the decision. There are none about an
// address that the Service already carries.
func notices(alloc *ipam.Allocator, svc *corev1.Service, req ipam.Request, allocations []ipam.Allocation, cooling func(netip.Addr) bool) (list []notice) {
	note := func(reason, format string, args ...any) {
		list = append(list, notice{reason, fmt.Sprintf(format, args...)})
	}
	carried := Carried(svc)
	given := slices.DeleteFunc(slices.Clone(allocations), func(a ipam.Allocation) bool { return slices.Contains(carried, a.Address) })
	for _, address := range carried {
		other := heldByOther(alloc.Holders(address), req.Owner)
		for _, a := range given {
			if other != "" && ipam.FamilyOf(a.Address) == ipam.FamilyOf(address) {
				note(herald.EventAddressReplaced, "%s, which was in the status of the Service, is held by %s: the Service was given %s instead", address, other, a.Address)
				break
			}
		}
	}
	if len(given) == 0 {
		return list
	}
	notKept := alloc.NotKept(req)
	for _, a := range given {
		for _, f := range notKept {
			if !cooling(f.Address) && ipam.FamilyOf(f.Address) == ipam.FamilyOf(a.Address) {
				note(herald.EventAddressNotKept, "%s was kept for the Service, but %s: the Service was given %s", f.Address, NotKeptWords(f, req.Owner), a.Address)
			}
		}
		if other, why := alloc.Unshared(req, a.Address); why.Over != ipam.Nothing {
			note(herald.EventNotShared, "%s is %s: the Service was given %s, and shares it with none", other, ConflictWords(why, req.Owner), a.Address)
		}
	}
	return list
}

// heldByOther names the first holder of an address, unless the owner, or another one with its name, is among the
// holders.
func heldByOther(holders []ipam.Allocation, o ipam.Owner) string {
	if len(holders) == 0 || slices.ContainsFunc(holders, func(h ipam.Allocation) bool { return h.Owner.Reservation() == o.Reservation() }) {
		return ""
	}
	return ownerWords(holders[0].Owner, o)
}
