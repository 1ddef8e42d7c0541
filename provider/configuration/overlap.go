package configuration

import (
	"cmp"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/sets"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// exclusive is the condition Exclusive of a BGPAdvertisement: False if another one, which comes first by name, decides
// the attributes of routes that both announce, and decides on others.
func (v *view) exclusive(ad *advertisement, ads []*advertisement) metav1.Condition {
	for _, other := range ads { // By name.
		if ad.selector == nil || !other.bgp || other.selector == nil || cmp.Compare(other.name, ad.name) >= 0 || !other.overlaps(ad) || sameRoutes(other.spec, ad.spec) {
			continue
		}
		pools, peers := v.common(other, ad)
		if len(pools) == 0 || len(peers) == 0 {
			continue
		}
		return condition(herald.ConditionExclusive, false, ReasonOverridden, fmt.Sprintf(
			"routes to addresses of IPPool %s for BGPPeer %s that both advertisements announce have the attributes of BGPAdvertisement %s, "+
				"which comes first by name, and not those given here: let the two select different pools, Services, nodes or peers",
			some(pools), some(peers), other.name), ad.generation)
	}
	return condition(herald.ConditionExclusive, true, ReasonNoOverlap, "", ad.generation)
}

// common are the pools whose addresses both advertisements announce, and the peers that get them from a common node.
func (v *view) common(x, y *advertisement) (pools, peers []string) {
	for _, p := range v.Pools {
		if x.selects(p) && y.selects(p) {
			pools = append(pools, p.Name)
		}
	}
	for _, peer := range x.peers {
		if slices.Contains(y.peers, peer) && slices.ContainsFunc(v.nodes, func(n node) bool {
			return !n.excluded && x.selector.Node(n.Labels) && y.selector.Node(n.Labels) && v.holders[peer].Matches(labels.Set(n.Labels))
		}) {
			peers = append(peers, peer)
		}
	}
	slices.Sort(pools)
	return pools, peers
}

// overlaps reports whether both may select one Service.
func (ad *advertisement) overlaps(other *advertisement) bool {
	return !disjoint(ad.spec.ServiceSelector, other.spec.ServiceSelector) && !disjoint(ad.spec.NamespaceSelector, other.spec.NamespaceSelector)
}

// disjoint reports whether no labels match both selectors, as far as the values that they ask for tell.
func disjoint(x, y *metav1.LabelSelector) bool {
	of, asked := values(x), values(y)
	for key, some := range of {
		if others, both := asked[key]; both && !some.HasAny(others.UnsortedList()...) {
			return true
		}
	}
	return false
}

// values are those that a selector takes for the labels that it asks for by value.
func values(s *metav1.LabelSelector) map[string]sets.Set[string] {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil // Then the advertisement is not valid.
	}
	all := map[string]sets.Set[string]{}
	requirements, _ := selector.Requirements()
	for _, r := range requirements {
		switch r.Operator() {
		case selection.In, selection.Equals, selection.DoubleEquals:
			taken := sets.New(r.ValuesUnsorted()...)
			if before, twice := all[r.Key()]; twice {
				taken = taken.Intersection(before)
			}
			all[r.Key()] = taken
		}
	}
	return all
}

// sameRoutes reports whether it makes no difference which of two advertisements decides: what they announce has the same
// attributes, or one announces networks and the other the addresses in them.
func sameRoutes(x, y *herald.BGPAdvertisementSpec) bool {
	lengths := func(s *herald.BGPAdvertisementSpec) herald.AggregationLength {
		if s.AggregationLength == nil {
			return herald.AggregationLength{}
		}
		return *s.AggregationLength
	}
	if lx, ly := lengths(x), lengths(y); lx.IPv4 != ly.IPv4 && lx.IPv6 != ly.IPv6 {
		return true
	}
	equal := func(a, b *int64) bool { return a == b || a != nil && b != nil && *a == *b }
	return sets.New(x.Communities...).Equal(sets.New(y.Communities...)) && equal(x.LocalPreference, y.LocalPreference) && equal(x.MED, y.MED) &&
		x.Prepend == y.Prepend && sets.New(x.ServiceOverrides...).Equal(sets.New(y.ServiceOverrides...)) &&
		(x.LinkBandwidth == herald.LinkBandwidthReadyEndpoints) == (y.LinkBandwidth == herald.LinkBandwidthReadyEndpoints)
}
