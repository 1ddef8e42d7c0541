package migrate

import (
	"cmp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// metalLBSelection has the fields that both kinds of advertisements have.
type metalLBSelection struct {
	Pools            []string               `json:"ipAddressPools"`
	PoolSelectors    []metav1.LabelSelector `json:"ipAddressPoolSelectors"`
	NodeSelectors    []metav1.LabelSelector `json:"nodeSelectors"`
	ServiceSelectors []metav1.LabelSelector `json:"serviceSelectors"`
}

type metalLBL2 struct {
	metalLBSelection `json:",inline"`
	Interfaces       []string            `json:"interfaces"`
	Preferred        []metalLBPreference `json:"preferredNodeSelectors"` // After 0.16.
}

type metalLBPreference struct {
	Weight     int32                `json:"weight"`
	Preference metav1.LabelSelector `json:"preference"`
}

type metalLBBGP struct {
	metalLBSelection    `json:",inline"`
	AggregationLength   *int32   `json:"aggregationLength"`
	AggregationLengthV6 *int32   `json:"aggregationLengthV6"`
	LocalPref           uint32   `json:"localPref"`
	Communities         []string `json:"communities"`
	Peers               []string `json:"peers"`
}

// selections translates what an advertisement selects. It returns several selections if one cannot
// express it.
func (m *metallb) selections(i *item, s *metalLBSelection) (all []herald.Selection) {
	for n, p := range s.Pools {
		if !m.selected[p] {
			i.approximated("spec.ipAddressPools[%d]: there is no IPAddressPool %s among the objects: import it, too, or the condition Accepted of the advertisement is False", n, p)
		}
	}
	pools := anyOf(s.PoolSelectors)
	if len(s.PoolSelectors) > 0 && pools[0] == nil {
		s.Pools = nil // One of the selectors selects everything.
	}
	for _, pool := range pools {
		for _, node := range anyOf(s.NodeSelectors) {
			for _, svc := range anyOf(s.ServiceSelectors) {
				all = append(all, herald.Selection{Pools: distinct(s.Pools), PoolSelector: pool, NodeSelector: node, ServiceSelector: svc})
			}
		}
	}
	if len(all) > 1 {
		i.approximated("spec has several selectors of which one has to match: Herald's objects have one of each, so there are %d of them", len(all))
	}
	return all
}

func (m *metallb) l2(i *item) {
	var spec metalLBL2
	if !decode(i, &spec) {
		return
	}
	if len(spec.Interfaces) == 0 {
		i.approximated("spec.interfaces: MetalLB answers on all interfaces of a node, Herald on those with a subnet that holds the address: name them where clients reach addresses that are outside the nodes' subnets")
	}
	for n, name := range spec.Interfaces {
		if !isInterface(name) {
			i.cannot("spec.interfaces[%d]: %q is not the name of an interface: correct it, and import again", n, name)
			return
		}
	}
	preferred := m.preferred(i, spec.Preferred)
	var objects []runtime.Object
	for n, s := range m.selections(i, &spec.metalLBSelection) {
		a := newL2Advertisement(numbered(i.u.GetName(), n))
		a.Spec.Selection, a.Spec.Interfaces = s, distinct(spec.Interfaces)
		if preferred != nil {
			a.Spec.PreferredNodes, a.Spec.Rebalance = preferred, herald.RebalanceGradual // as in MetalLB, when a preferred node comes back
		}
		objects = append(objects, a)
	}
	i.becomes(objects...)
}

// preferred returns the selector of nodes with the highest weight; nil if there is none.
func (m *metallb) preferred(i *item, list []metalLBPreference) *metav1.LabelSelector {
	if len(list) == 0 {
		return nil
	}
	if len(list) > 1 {
		i.approximated("spec.preferredNodeSelectors: MetalLB adds up the weights, Herald prefers nodes or does not: spec.preferredNodes is that with the highest weight")
	}
	heaviest := slices.MaxFunc(list, func(a, b metalLBPreference) int { return cmp.Compare(a.Weight, b.Weight) })
	return &heaviest.Preference
}

func (m *metallb) bgp(i *item) {
	var spec metalLBBGP
	if !decode(i, &spec) {
		return
	}
	s := herald.BGPAdvertisementSpec{
		AggregationLength: m.aggregation(i, &spec),
		Communities:       m.communities(i, spec.Communities),
		Peers:             m.peersNamed(i, spec.Peers),
	}
	if spec.LocalPref > 0 {
		preference := int64(spec.LocalPref)
		s.LocalPreference = &preference
	}
	var objects []runtime.Object
	for n, selection := range m.selections(i, &spec.metalLBSelection) {
		a := newBGPAdvertisement(numbered(i.u.GetName(), n))
		a.Spec = s
		a.Spec.Selection = selection
		objects = append(objects, a)
	}
	i.becomes(objects...)
}

// aggregation translates the lengths of networks. MetalLB's defaults are the lengths of single
// addresses.
func (m *metallb) aggregation(i *item, spec *metalLBBGP) *herald.AggregationLength {
	return i.aggregation("spec.aggregationLength", spec.AggregationLength, spec.AggregationLengthV6, func(length, bits int32) {
		if length != bits {
			field := map[int32]string{32: "aggregationLength", 128: "aggregationLengthV6"}[bits]
			i.cannot("spec.%s: %d is not a length of a prefix: addresses are announced by themselves", field, length)
		}
	})
}

// peersNamed returns the BGPPeers that these BGPPeers of MetalLB were translated to.
func (m *metallb) peersNamed(i *item, list []string) (all []string) {
	for n, p := range list {
		names, there := m.peers[p]
		if !there {
			i.approximated("spec.peers[%d]: there is no BGPPeer %s that is translated: the condition Accepted of the advertisement is False until there is", n, p)
			names = []string{p}
		}
		all = append(all, names...)
	}
	return distinct(all)
}
