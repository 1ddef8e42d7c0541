package provider

import (
	"slices"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// stateOf is the state of a record. One of an address that a Service has needs no state: to write one would be another
// write for each new Service.
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

// sharedWith lists the owners of a record but for the first, which has columns of its own.
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
