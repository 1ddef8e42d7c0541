// Package route is what a prefix is announced to routers with: its path attributes, with communities as people write them.
// It is apart from package bgp, which announces them, so that one can decide about routes without gobgp, on any operating
// system.
package route

import "slices"

// Attributes are the path attributes (RFC 4271 §5) that a prefix is announced with. Their zero
// value is a plain announcement. The order of communities has no meaning, nor has one given twice.
type Attributes struct {
	Communities         []Community
	LargeCommunities    []LargeCommunity
	ExtendedCommunities []ExtendedCommunity
	// LocalPref is sent to iBGP peers only (RFC 4271 §5.1.5). Nil: 100.
	LocalPref *uint32
	// MED, the multi-exit discriminator (RFC 4271 §5.1.4). Nil: none.
	MED *uint32
	// Bandwidth is the link bandwidth in bytes per second (draft-ietf-idr-link-bandwidth), by which routers weigh the paths
	// of a prefix. 0: none.
	Bandwidth float32
	// Prepend is how many more times than once the local AS number is put into the path, for eBGP
	// peers only: an iBGP peer would see a loop in it (RFC 4271 §9.1.2).
	Prepend uint8
}

// Equal says that both are announced alike.
func (a Attributes) Equal(b Attributes) bool {
	// Mostly they are, and in the same order.
	return a.Same(b) || a.Normal().Same(b.Normal())
}

// Normal is a copy of its own with communities sorted, each of them once.
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
	a.LocalPref = clone(a.LocalPref)
	a.MED = clone(a.MED)
	return a
}

// Same is Equal for normal ones.
func (a Attributes) Same(b Attributes) bool {
	return slices.Equal(a.Communities, b.Communities) &&
		slices.Equal(a.LargeCommunities, b.LargeCommunities) &&
		slices.Equal(a.ExtendedCommunities, b.ExtendedCommunities) &&
		equal(a.LocalPref, b.LocalPref) &&
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
