// Package route has the path attributes with which prefixes are announced to routers, and the text form of communities. It is
// separate from package bgp, which announces the prefixes, so that decisions about routes need no gobgp and work on any
// operating system.
package route

import "slices"

// Attributes are the path attributes (RFC 4271 §5) of an announced prefix. The zero value is a plain announcement. The order
// of communities and duplicate communities have no meaning.
type Attributes struct {
	Communities         []Community
	LargeCommunities    []LargeCommunity
	ExtendedCommunities []ExtendedCommunity
	// LocalPreference is sent to iBGP peers only (RFC 4271 §5.1.5). Nil: 100.
	LocalPreference *uint32
	// MED, the multi-exit discriminator (RFC 4271 §5.1.4). Nil: none.
	MED *uint32
	// Bandwidth is the link bandwidth in bytes per second (draft-ietf-idr-link-bandwidth). Routers weight the paths of a prefix
	// by it. 0: none.
	Bandwidth float32
	// Prepend is the number of additional copies of the local AS number in the path. It is for eBGP peers only: an iBGP peer
	// would take it for a loop (RFC 4271 §9.1.2).
	Prepend uint8
}

// Equal reports whether both are announced in the same way.
func (a Attributes) Equal(b Attributes) bool {
	// Usually they are the same, in the same order.
	return a.Same(b) || a.Normal().Same(b.Normal())
}

// Normal returns a deep copy with the communities sorted and without duplicates.
func (a Attributes) Normal() Attributes {
	a.Communities = slices.Clone(a.Communities)
	slices.Sort(a.Communities)
	a.Communities = slices.Compact(a.Communities)
	a.LargeCommunities = slices.Clone(a.LargeCommunities)
	slices.SortFunc(a.LargeCommunities, LargeCommunity.compare)
	a.LargeCommunities = slices.Compact(a.LargeCommunities)
	a.ExtendedCommunities = slices.Clone(a.ExtendedCommunities)
	slices.Sort(a.ExtendedCommunities)
	a.ExtendedCommunities = slices.Compact(a.ExtendedCommunities)
	a.LocalPreference = clone(a.LocalPreference)
	a.MED = clone(a.MED)
	return a
}

// Same is like Equal, but both must be normal.
func (a Attributes) Same(b Attributes) bool {
	return slices.Equal(a.Communities, b.Communities) &&
		slices.Equal(a.LargeCommunities, b.LargeCommunities) &&
		slices.Equal(a.ExtendedCommunities, b.ExtendedCommunities) &&
		equal(a.LocalPreference, b.LocalPreference) &&
		equal(a.MED, b.MED) &&
		a.Bandwidth == b.Bandwidth &&
		a.Prepend == b.Prepend
}

func clone(v *uint32) *uint32 {
	if v == nil {
		return nil
	}
	c := *v
	return &c
}

func equal(a, b *uint32) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
