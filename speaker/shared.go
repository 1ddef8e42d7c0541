package speaker

import (
	"net/netip"
	"strings"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// shared assembles what all decisions of a node rest on. Objects that are not valid are left out: herald-ccm tells the
// user in their conditions.
func (in *inputs) shared(self string, healthy bool) *Shared {
	s, _ := in.objects().Shared()
	s.Self, s.Healthy = self, healthy
	return s
}

// objects are those that all decisions share.
func (in *inputs) objects() *Objects {
	return &Objects{
		Nodes: client.Items[*corev1.Node](in.nodes.GetStore()), Namespaces: client.Items[*corev1.Namespace](in.namespaces.GetStore()),
		Pools:            client.Items[*herald.IPPool](in.pools.GetStore()),
		L2Advertisements: client.Items[*herald.L2Advertisement](in.l2.GetStore()), BGPAdvertisements: client.Items[*herald.BGPAdvertisement](in.bgp.GetStore()),
		BGPPeers: client.Items[*herald.BGPPeer](in.peers.GetStore()),
	}
}

// ranges are the addresses of all pools.
func (in *inputs) ranges() (all []netipx.IPRange) {
	for _, o := range client.Items[*herald.IPPool](in.pools.GetStore()) {
		all = append(all, rangesOf(o.Spec.Addresses)...)
	}
	return all
}

// rangesOf reads ranges. What cannot be read is left out.
func rangesOf(texts []herald.AddressRange) (all []netipx.IPRange) {
	for _, text := range texts {
		text := strings.ReplaceAll(string(text), " ", "")
		if p, err := netip.ParsePrefix(text); err == nil {
			all = append(all, netipx.RangeOfPrefix(p))
		} else if r, err := netipx.ParseIPRange(text); err == nil {
			all = append(all, r)
		} else if a, err := netip.ParseAddr(text); err == nil {
			all = append(all, netipx.IPRangeFrom(a, a))
		}
	}
	return all
}

// addressesIn are the addresses of a pool without those that are excluded; nil if there are none, or these cannot be told.
func addressesIn(spec *herald.IPPoolSpec) *netipx.IPSet {
	all, excluded := rangesOf(spec.Addresses), rangesOf(spec.Exclude)
	if len(all) == 0 || len(excluded) < len(spec.Exclude) {
		return nil
	}
	var b netipx.IPSetBuilder
	for _, r := range all {
		b.AddRange(r)
	}
	for _, r := range excluded {
		b.RemoveRange(r)
	}
	set, err := b.IPSet()
	if err != nil {
		return nil
	}
	return set
}
