package provider

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// ownerEntry returns the entry of a Service in the record of an address that it holds.
func ownerEntry(svc *corev1.Service) herald.AllocationOwner {
	reclaim, _ := reclaimOf(svc) // The Service gets this error when it asks for an address.
	o := herald.AllocationOwner{Namespace: svc.Namespace, Name: svc.Name, UID: svc.UID, ReclaimPolicy: reclaim}
	if s := sharing(svc); s.Key != "" {
		o.Sharing = &herald.AllocationSharing{Key: s.Key, Traffic: s.Traffic}
		for _, p := range s.Ports {
			o.Sharing.Ports = append(o.Sharing.Ports, p.String())
		}
	}
	return o
}

// TenantsOf returns the address of a record and its holders. A released address is held for the names of its last owners
// until its reuse delay is over. An error names the invalid field of the record. An owner with invalid terms still holds
// the address, and shares it with nobody.
func TenantsOf(rec *herald.IPAllocation) (netip.Addr, []ipam.Tenant, error) {
	address, err := netip.ParseAddr(rec.Spec.Address)
	if err != nil {
		return address, nil, fmt.Errorf("spec.address: %w", err)
	}
	if len(rec.Spec.Owners) == 0 {
		return address, []ipam.Tenant{{}}, nil // The address is reserved for nobody.
	}
	tenants := make([]ipam.Tenant, len(rec.Spec.Owners))
	for i, o := range rec.Spec.Owners {
		tenant, unread := tenantOf(o)
		if unread != nil && err == nil {
			err = fmt.Errorf("spec.owners[%d]%w", i, unread)
		}
		tenants[i] = tenant
		if released(rec) {
			tenants[i] = ipam.Tenant{Owner: tenants[i].Owner.Reservation()}
		}
	}
	return address, tenants, err
}

// tenantOf parses one owner of a record. If it returns an error, which begins with the field, the owner shares with
// nobody.
func tenantOf(o herald.AllocationOwner) (ipam.Tenant, error) {
	t := ipam.Tenant{Owner: ownerOf(o)}
	if o.Sharing == nil {
		return t, nil
	}
	terms := ipam.Sharing{Key: o.Sharing.Key, Traffic: o.Sharing.Traffic}
	for i, text := range o.Sharing.Ports {
		p, err := ipam.ParsePort(text)
		if err != nil {
			return t, fmt.Errorf(".sharing.ports[%d]: %w", i, err)
		}
		terms.Ports = append(terms.Ports, p)
	}
	ipam.SortPorts(terms.Ports)
	t.Sharing = terms
	return t, nil
}

func ownerOf(o herald.AllocationOwner) ipam.Owner {
	return ipam.Owner{Namespace: o.Namespace, Name: o.Name, UID: string(o.UID)}
}

// recordOf returns a new record for an address that was assigned to a Service.
func recordOf(a ipam.Allocation, class string, mine herald.AllocationOwner) *herald.IPAllocation {
	return &herald.IPAllocation{
		ObjectMeta: metav1.ObjectMeta{Name: herald.AllocationName(a.Address)},
		Spec:       herald.IPAllocationSpec{Address: a.Address.String(), Pool: a.Pool, Class: class, Owners: []herald.AllocationOwner{mine}},
	}
}

// released reports whether the last owner of a record has released the address.
func released(rec *herald.IPAllocation) bool { return rec.Spec.ReleasedAt != nil }

// hasOwner reports whether a record has an owner with this UID.
func hasOwner(rec *herald.IPAllocation, uid string) bool {
	return slices.ContainsFunc(rec.Spec.Owners, func(o herald.AllocationOwner) bool { return string(o.UID) == uid })
}

// withoutOwner returns a copy of a record without this owner. With the policy Retain the owner's name stays in the
// record. Without it, the record is marked as released if it has no other owner.
func withoutOwner(rec *herald.IPAllocation, o ipam.Owner, policy herald.ReclaimPolicy) *herald.IPAllocation {
	edit := rec.DeepCopy()
	at := slices.IndexFunc(edit.Spec.Owners, func(owner herald.AllocationOwner) bool { return string(owner.UID) == o.UID })
	switch {
	case policy == herald.ReclaimRetain:
		edit.Spec.Owners[at].UID = ""
	case len(edit.Spec.Owners) > 1:
		edit.Spec.Owners = slices.Delete(edit.Spec.Owners, at, at+1)
	default:
		now := metav1.Now()
		edit.Spec.ReleasedAt = &now
	}
	return edit
}

// withoutNames returns a copy of a record from which owners are removed: those that have no UID and for which lapsed is true. It
// returns nil if there are none. A record that is left without owners is marked as released.
func withoutNames(rec *herald.IPAllocation, lapsed func(herald.AllocationOwner) bool) *herald.IPAllocation {
	owners := rec.Spec.Owners
	if len(owners) == 0 {
		owners = []herald.AllocationOwner{{}} // The address is reserved for nobody.
	}
	left := slices.DeleteFunc(slices.Clone(owners), func(o herald.AllocationOwner) bool { return o.UID == "" && lapsed(o) })
	if len(left) == len(owners) {
		return nil
	}
	edit := rec.DeepCopy()
	if len(left) > 0 {
		edit.Spec.Owners = left
	} else {
		now := metav1.Now()
		edit.Spec.ReleasedAt = &now
	}
	return edit
}
