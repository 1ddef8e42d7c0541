package configuration

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// OffSubnet says that addresses of a pool are in no subnet of the nodes that are to announce them on segments.
type OffSubnet struct {
	// Problem says which addresses, and what to do.
	Problem string
	// Certain is true if speakers have reported the subnets of the nodes, and no address of the pool is in one of them.
	Certain bool
}

// OffSubnets returns the pools with addresses off every subnet, by name. It is for configuration that is not applied yet. It judges as
// [Assess] does, with two differences. A pool that a BGPAdvertisement selects, or an L2Advertisement with spec.interfaces, is left
// out, although no session with the router is established yet. And if no speaker has reported, it compares the addresses with the
// internal addresses of the nodes.
func (c Cluster) OffSubnets() map[string]OffSubnet {
	v := newView(c)
	var onSegments, elsewhere []*advertisement
	for _, o := range c.L2Advertisements {
		if ad := v.l2(o); len(o.Spec.Interfaces) == 0 {
			onSegments = append(onSegments, ad)
		} else {
			elsewhere = append(elsewhere, ad)
		}
	}
	for _, o := range c.BGPAdvertisements {
		elsewhere = append(elsewhere, v.bgp(o))
	}
	slices.SortFunc(onSegments, func(x, y *advertisement) int { return strings.Compare(x.object, y.object) })
	off := map[string]OffSubnet{}
	for _, p := range c.Pools {
		if p.Addresses == nil || slices.ContainsFunc(elsewhere, func(ad *advertisement) bool { return ad.selects(p) || ad.selector == nil && ad.meantFor(p) }) {
			continue
		}
		if announced := announcedPool(p, onSegments); announced.Reason == herald.ReasonOffSubnet || announced.Reason == herald.ReasonPartlyOffSubnet {
			off[p.Name] = OffSubnet{Problem: announced.Message, Certain: announced.Reason == herald.ReasonOffSubnet}
		} else if problem := farAway(p, onSegments); problem != "" && len(c.Speakers) == 0 {
			off[p.Name] = OffSubnet{Problem: problem}
		}
	}
	return off
}

// The prefix lengths within which an address may be in the subnet of a node, as far as the node's internal address tells. A Node
// does not say how large its subnets are.
const (
	near4 = 16
	near6 = 48
)

// farAway returns a message if addresses of a pool are not near the internal addresses of the nodes that announce them. A family in
// which the nodes have no internal address is left out: they may have subnets of it all the same.
func farAway(p Pool, ads []*advertisement) string {
	var near netipx.IPSetBuilder
	var by string
	var own []netip.Addr
	for _, ad := range ads {
		if !ad.selects(p) {
			continue
		}
		if by == "" {
			by = ad.object
		}
		for n := range ad.nodes {
			for _, x := range n.Status.Addresses {
				a, ok := usable(x.Address)
				if !ok || x.Type != corev1.NodeInternalIP || slices.Contains(own, a) {
					continue
				}
				bits := near6
				if a.Is4() {
					bits = near4
				}
				near.AddPrefix(netip.PrefixFrom(a, bits).Masked())
				own = append(own, a)
			}
		}
	}
	set, _ := near.IPSet() // IPSet fails only for an invalid prefix, and there is none.
	var far []string
	for _, r := range p.Addresses.Ranges() {
		known := slices.ContainsFunc(own, func(a netip.Addr) bool { return a.Is4() == r.From().Is4() })
		if known && !set.OverlapsRange(r) {
			far = append(far, rangeText(r))
		}
	}
	if len(far) == 0 {
		return ""
	}
	slices.SortFunc(own, netip.Addr.Compare)
	return fmt.Sprintf("%s announces %s on the segments of nodes whose internal addresses are far from these (%s): "+
		"take addresses of a subnet of the nodes, or announce the pool by a BGPAdvertisement in place of that, or see to it that the nodes have an interface in this subnet",
		by, some(far), some(own))
}
