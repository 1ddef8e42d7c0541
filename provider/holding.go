package provider

import (
	"slices"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// stateOf returns the state of a record. The record of an address that a Service has gets no state: setting it would
// take another write for each new Service.
func stateOf(rec *herald.IPAllocation) herald.AllocationState {
	switch {
	case rec.Spec.ReleasedAt != nil:
		return ""
	case len(rec.Spec.Owners) == 0:
		return herald.AllocationReserved
	case !slices.ContainsFunc(rec.Spec.Owners, func(o herald.AllocationOwner) bool { return o.UID != "" }):
		return herald.AllocationKept
	}
	return ""
}

// sharedWith lists the owners of a record except the first, which has columns of its own.
func sharedWith(rec *herald.IPAllocation) string {
	if len(rec.Spec.Owners) < 2 {
		return ""
	}
	var names []string
	for _, o := range rec.Spec.Owners[1:] {
		names = append(names, o.Namespace+"/"+o.Name)
	}
	return someOf(names)
}
