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

// exclusive returns the condition Exclusive of a BGPAdvertisement. It is False if both this advertisement and another
// one announce a route, the other one decides its attributes because it comes first by name, and the attributes
// differ.
func (v *view) exclusive(ad *advertisement, ads []*advertisement) metav1.Condition {
	for _, other := range ads { // By name.
		if ad.selector == nil || !other.bgp || other.selector == nil || cmp.Compare(other.name, ad.name) >= 0 || !other.overlaps(ad) || sameAttributes(other.spec, ad.spec) {
			continue
		}
		pools, peers := v.common(other, ad)
		if len(pools) == 0 || len(peers) == 0 {
			continue
		}
		return condition(herald.ConditionExclusive, false, herald.ReasonOverridden, fmt.Sprintf(
			"routes to addresses of IPPool %s for BGPPeer %s that both advertisements announce have the attributes of BGPAdvertisement %s, "+
				"which comes first by name, and not those given here: let the two select different pools, Services, nodes or peers",
			some(pools), some(peers), other.name), ad.generation)
	}
	return condition(herald.ConditionExclusive, true, herald.ReasonNoOverlap, "", ad.generation)
}

// common returns the pools for which both advertisements announce a common route, and the peers that get both routes
// from the same node.
func (v *view) common(x, y *advertisement) (pools, peers []string) {
	for _, peer := range x.peers {
		if !slices.Contains(y.peers, peer) {
			continue
		}
		for n := range x.nodes {
			if y.nodes.Has(n) && v.holders[peer].Matches(labels.Set(n.Labels)) {
				peers = append(peers, peer)
				break
			}
		}
	}
	if len(peers) == 0 {
		return nil, nil
	}
	for i, p := range v.Pools {
		if v.spaces[i].share(x.networks, y.networks) && x.selects(p) && y.selects(p) {
			pools = append(pools, p.Name)
		}
	}
	slices.Sort(pools)
	return pools, peers
}

// overlaps reports whether both advertisements may select the same Service.
func (ad *advertisement) overlaps(other *advertisement) bool {
	return !disjoint(ad.spec.ServiceSelector, other.spec.ServiceSelector) && !disjoint(ad.spec.NamespaceSelector, other.spec.NamespaceSelector)
}

// disjoint reports whether no set of labels matches both selectors.
func disjoint(x, y *metav1.LabelSelector) bool {
	type demand struct {
		present, absent bool
		in, notIn       sets.Set[string] // in is nil if any value matches.
	}
	of := map[string]*demand{}
	for _, s := range []*metav1.LabelSelector{x, y} {
		selector, err := metav1.LabelSelectorAsSelector(s)
		if err != nil {
			return false // The advertisement is not valid then.
		}
		requirements, _ := selector.Requirements()
		for _, r := range requirements {
			d := of[r.Key()]
			if d == nil {
				d = &demand{notIn: sets.New[string]()}
				of[r.Key()] = d
			}
			values := sets.New(r.ValuesUnsorted()...)
			switch r.Operator() {
			case selection.In, selection.Equals, selection.DoubleEquals:
				if d.in != nil {
					values = values.Intersection(d.in)
				}
				d.present, d.in = true, values
			case selection.NotIn, selection.NotEquals:
				d.notIn = d.notIn.Union(values)
			case selection.Exists:
				d.present = true
			case selection.DoesNotExist:
				d.absent = true
			}
		}
	}
	for _, d := range of {
		if d.present && d.absent || d.in != nil && d.in.Difference(d.notIn).Len() == 0 {
			return true
		}
	}
	return false
}

// sameAttributes reports whether both advertisements give a route the same attributes.
func sameAttributes(x, y *herald.BGPAdvertisementSpec) bool {
	equal := func(a, b *int64) bool { return a == b || a != nil && b != nil && *a == *b }
	return sets.New(x.Communities...).Equal(sets.New(y.Communities...)) && equal(x.LocalPreference, y.LocalPreference) && equal(x.MED, y.MED) &&
		x.Prepend == y.Prepend && sets.New(x.ServiceOverrides...).Equal(sets.New(y.ServiceOverrides...)) &&
		(x.LinkBandwidth == herald.LinkBandwidthReadyEndpoints) == (y.LinkBandwidth == herald.LinkBandwidthReadyEndpoints)
}
