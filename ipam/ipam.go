// Package ipam gives out addresses from pools: who holds which address, which
// one is given next, and why one cannot be given.
//
// It is pure. There is no clock, no log, no I/O and no Kubernetes in it: the same calls
// always lead to the same answers. What must outlast a process (the records), and
// when a freed address may be used again, is the caller's affair: the Allocator is
// an index over records, rebuilt with [Allocator.Restore].
//
// Three rules shape everything else:
//
//   - An address has one owner, or several that agreed to share it.
//   - An address is never taken from its owner: not by a narrowed, closed or deleted
//     pool, not by a later pool with a higher priority. Only [Allocator.Release] frees it.
//   - Which free address of a pool is given next is the pool's [Order]: that of the addresses, or the one
//     that has been free for the longest time.
package ipam

import (
	"fmt"
	"net/netip"
)

// Family is an IP address family.
type Family int

// The families are numbered by IP version; the zero Family is none.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

var families = [...]Family{IPv4, IPv6}

// FamilyOf returns the family of addr. As in netip, an IPv4-mapped IPv6 address
// is IPv6; the zero Addr has no family.
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

// index is the place of f in an array over families.
func (f Family) index() int {
	if f == IPv6 {
		return 1
	}
	return 0
}

// Owner identifies who holds an address: a Service. The UID decides, so that a
// Service deleted and created again under its old name is another owner; Namespace
// and Name are for people. An Owner without UID is a reservation: the address is held for the
// Service of that name, whenever there is one or, without a name, for nobody.
type Owner struct{ Namespace, Name, UID string }

// String returns "namespace/name", or what stands for it in a reservation that
// names nobody.
func (o Owner) String() string {
	if o.Name == "" {
		return "a reservation"
	}
	return o.Namespace + "/" + o.Name
}

// is reports whether o and other are one owner. Reservations have no UID to be
// known by: they are the same if they say the same.
func (o Owner) is(other Owner) bool {
	return o.UID == other.UID && (o.UID != "" || o == other)
}

// nobody reports whether o is a reservation that names nobody.
func (o Owner) nobody() bool { return o.UID == "" && o.Name == "" }

// Reservation returns the owner that keeps addresses for o's name.
func (o Owner) Reservation() Owner { return Owner{Namespace: o.Namespace, Name: o.Name} }

// reserves reports whether o is a reservation for other.
func (o Owner) reserves(other Owner) bool {
	return o.UID == "" && o.Name != "" && o.Name == other.Name && o.Namespace == other.Namespace
}

// Allocation is one address in the hands of one owner, who may not be the only one.
type Allocation struct {
	Address netip.Addr
	// Pool is the pool the address was given from, as its record says, the same for all who share it. It may
	// since have lost the address: see [Allocator.Displaced] and [Allocator.PoolOf].
	Pool  string
	Owner Owner
}

// Subject is what pools choose their owners by.
type Subject struct {
	Namespace               string
	Labels, NamespaceLabels map[string]string
}

// Request says what an owner shall hold.
type Request struct {
	Owner   Owner // with a UID
	Subject Subject
	// Families wanted, one or both, in order of preference.
	Families []Family
	// RequireAll refuses the request unless every family can be served. Without
	// it, one family is enough and the others are given if they can be; but a
	// requested address and a family already held are never left out.
	RequireAll bool
	// Pool is the only pool to take from, whether it auto-assigns or not. If empty,
	// any auto-assigning pool that serves the subject will do.
	Pool string
	// Count is how many addresses of each family are wanted; 0 means 1, and [MostAddresses] is the most.
	Count int
	// Addresses are to be given exactly, no more than Count of a family. They may lie in a
	// pool that does not auto-assign.
	Addresses []netip.Addr
	// Leave are addresses that the owner is to move off, for any other, and is not to be given, either: only one
	// that is among Addresses, too, is to be had.
	Leave []netip.Addr
	// Sharing has the owner go where others with the same key are, if their terms agree.
	Sharing Sharing
	// Quota is what the owner's namespace may hold of all pools together; QuotaFrom says to the user where that
	// is set.
	Quota     Limits
	QuotaFrom string
}

// MostAddresses is how many addresses of one family an owner may ask for.
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
