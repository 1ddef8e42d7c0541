// Package ipam assigns addresses from pools. It decides which owner holds which address, which address is
// assigned next, and why a request cannot be served.
//
// The package is pure: it uses no clock, no log, no I/O and no Kubernetes, and the same calls always have the
// same results. The caller keeps the records that must outlast the process, and decides when a freed address may
// be used again. The Allocator is an index over these records; [Allocator.Restore] rebuilds it.
//
// Three rules apply everywhere:
//
//   - An address has one owner, or several owners that agreed to share it.
//   - An address is never taken from its owner: not when its pool is narrowed, closed or deleted, and not when a
//     pool with a higher priority is added. Only [Allocator.Release] frees it.
//   - The [Order] of a pool says which of its free addresses is assigned next: the lowest, or the one that has
//     been free for the longest time.
package ipam

import (
	"fmt"
	"net/netip"
)

// Family is an IP address family.
type Family int

// The families are numbered by IP version. The zero Family is not a family.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

var families = [...]Family{IPv4, IPv6}

// FamilyOf returns the family of addr. As in netip, an IPv4-mapped IPv6 address is IPv6. The zero Addr has no
// family.
func FamilyOf(addr netip.Addr) Family {
	switch {
	case addr.Is4():
		return IPv4
	case addr.Is6():
		return IPv6
	default:
		return 0
	}
}

// String returns "IPv4" or "IPv6", as Kubernetes spells them.
func (f Family) String() string {
	if !f.valid() {
		return fmt.Sprintf("Family(%d)", int(f))
	}
	return fmt.Sprintf("IPv%d", int(f))
}

func (f Family) valid() bool { return f == IPv4 || f == IPv6 }

// index returns the index of f in an array with one element for each family.
func (f Family) index() int {
	if f == IPv6 {
		return 1
	}
	return 0
}

// Owner identifies the Service that holds an address. The UID decides: a Service that was deleted and created
// again under its old name is another owner. Namespace and Name are for people. An Owner without a UID is a
// reservation. It holds the address for the Service of that name, whether or not this Service exists yet. A
// reservation without a name holds the address for nobody.
type Owner struct{ Namespace, Name, UID string }

// String returns "namespace/name", or "a reservation" if o has no name.
func (o Owner) String() string {
	if o.Name == "" {
		return "a reservation"
	}
	return o.Namespace + "/" + o.Name
}

// is reports whether o and other are the same owner. Reservations have no UID: two of them are the same if all
// their fields are equal.
func (o Owner) is(other Owner) bool {
	return o.UID == other.UID && (o.UID != "" || o == other)
}

// nobody reports whether o is a reservation without a name.
func (o Owner) nobody() bool { return o.UID == "" && o.Name == "" }

// Reservation returns the reservation that keeps addresses for the Service with the name of o.
func (o Owner) Reservation() Owner { return Owner{Namespace: o.Namespace, Name: o.Name} }

// reserves reports whether o is a reservation for other.
func (o Owner) reserves(other Owner) bool {
	return o.UID == "" && o.Name != "" && o.Name == other.Name && o.Namespace == other.Namespace
}

// Allocation is one address that one owner holds, alone or together with others.
type Allocation struct {
	Address netip.Addr
	// Pool is the pool that the address was assigned from, as its record says. It is the same for all owners
	// that share the address. The pool may have lost the address since: see [Allocator.Displaced] and
	// [Allocator.PoolOf].
	Pool  string
	Owner Owner
}

// Subject is what a pool looks at to decide whether it serves an owner.
type Subject struct {
	Namespace               string
	Labels, NamespaceLabels map[string]string
}

// Request describes the addresses that an owner wants.
type Request struct {
	Owner   Owner // must have a UID
	Subject Subject
	// Families are the families wanted, one or both, in order of preference.
	Families []Family
	// RequireAll refuses the request unless every family can be served. Without it one family is enough, and the
	// others are served if possible. A requested address, and a family that the owner already holds, are never
	// left out.
	RequireAll bool
	// Pool is the only pool that may serve the request, whether or not it auto-assigns. If empty, any
	// auto-assigning pool that serves the subject may.
	Pool string
	// Count is the number of addresses wanted of each family, at most [MostAddresses]; 0 means 1.
	Count int
	// Addresses are the exact addresses wanted, at most Count of each family. They may be in a pool that does
	// not auto-assign.
	Addresses []netip.Addr
	// Leave are addresses that the owner gives up in exchange for any others. If it does not hold one of them, it is
	// not assigned that one either, unless the address is also in Addresses.
	Leave []netip.Addr
	// Granted are the addresses that other systems granted the owner out of pools that are Granted. The first are assigned
	// first.
	Granted []Grant
	// Claimed are addresses that other systems were asked for, for other owners of the namespace. They count in quotas.
	Claimed []Claimed
	// Class is the class of the allocator that gave the owner Addresses: see [Allocator.Claim]. It is empty if the owner
	// asks this Allocator.
	Class string
	// Sharing puts the owner on addresses of other owners with the same key, if their terms agree.
	Sharing Sharing
	// Quota limits the addresses that the owner's namespace may hold in all pools together. QuotaFrom tells the
	// user where the quota is set.
	Quota     Limits
	QuotaFrom string
}

// MostAddresses is the most addresses of one family that an owner may ask for.
const MostAddresses = 16

// count returns how many addresses of each family are wanted.
func (r *Request) count() int { return max(r.Count, 1) }

// asked returns the requested addresses of family f.
func (r *Request) asked(f Family) (all []netip.Addr) {
	for _, addr := range r.Addresses {
		if FamilyOf(addr) == f {
			all = append(all, addr)
		}
	}
	return all
}
