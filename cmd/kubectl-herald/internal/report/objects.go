package report

import (
	"slices"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/provider"
)

// Objects are what was read of a cluster, in any order. Each report says which of them it needs.
type Objects struct {
	Pools             []*herald.IPPool
	Allocations       []*herald.IPAllocation
	L2Advertisements  []*herald.L2Advertisement
	BGPAdvertisements []*herald.BGPAdvertisement
	BGPPeers          []*herald.BGPPeer
	Speakers          []*herald.SpeakerStatus

	Nodes      []*corev1.Node
	Namespaces []*corev1.Namespace
	Services   []*corev1.Service
	Endpoints  []*discoveryv1.EndpointSlice
	Leases     []*coordinationv1.Lease // Those of the speakers.

	// Unseen are the resources that the user may not read, such as "nodes": their lists are empty.
	Unseen []string
}

// sees reports whether all of these resources could be read.
func (o *Objects) sees(resources ...string) bool {
	return !slices.ContainsFunc(resources, func(r string) bool { return slices.Contains(o.Unseen, r) })
}

// sort orders pools and records by age, as herald-ccm does, and takes control characters out of what nodes have written.
func (o *Objects) sort() {
	slices.SortFunc(o.Pools, func(x, y *herald.IPPool) int { return provider.Older(x, y) })
	slices.SortFunc(o.Allocations, func(x, y *herald.IPAllocation) int { return provider.Older(x, y) })
	for _, s := range o.Speakers {
		printable(s)
	}
}
