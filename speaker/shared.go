package speaker

import (
	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/announce"
)

// shared assembles the inputs that all decisions of a node share. An advertisement or a pool that is not valid counts as it was before,
// if it is in before; herald-ccm reports it in its conditions.
func (in *inputs) shared(self string, healthy bool, before *announce.Shared) *announce.Shared {
	objects := in.objects()
	s, rejected := objects.Shared()
	s.Self, s.Healthy = self, healthy
	if before != nil {
		s.Keep(before, rejected, objects.BGPPeers)
	}
	return s
}

// objects returns the API objects that all decisions share.
func (in *inputs) objects() *announce.Objects {
	return &announce.Objects{
		Nodes: client.Items[*corev1.Node](in.nodes.GetStore()), Namespaces: client.Items[*corev1.Namespace](in.namespaces.GetStore()),
		Pools:            client.Items[*herald.IPPool](in.pools.GetStore()),
		L2Advertisements: client.Items[*herald.L2Advertisement](in.l2.GetStore()), BGPAdvertisements: client.Items[*herald.BGPAdvertisement](in.bgp.GetStore()),
		BGPPeers: client.Items[*herald.BGPPeer](in.peers.GetStore()),
	}
}

// usable returns the addresses that Services may get, those of all pools, and the addresses that are recorded. A Service keeps its
// address when the address is taken out of its pool.
func (in *inputs) usable() *netipx.IPSet {
	var b netipx.IPSetBuilder
	for _, o := range client.Items[*herald.IPPool](in.pools.GetStore()) {
		for _, r := range announce.RangesOf(o.Spec.Addresses) {
			b.AddRange(r)
		}
	}
	for _, o := range client.Items[*herald.IPAllocation](in.allocations.GetStore()) {
		for _, address := range parseAddresses(o.Spec.Address) {
			b.Add(address)
		}
	}
	set, _ := b.IPSet() // Both kinds of ranges are valid.
	return set
}
