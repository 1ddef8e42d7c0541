package configuration_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/provider/configuration"
)

// TestPoolsOffEverySubnet changes one thing at a time in a healthy cluster.
func TestPoolsOffEverySubnet(t *testing.T) {
	const advice = ": take addresses of such a subnet, or announce the pool by a BGPAdvertisement, or, if clients reach the addresses on the link, name the interface in spec.interfaces of L2Advertisement all"
	withoutSpeakers := func(c *configuration.Cluster) { c.Speakers = nil }
	stray := func(c *configuration.Cluster) { c.Pools = append(c.Pools, pool("stray", "203.0.113.0/26")) }
	for _, test := range []struct {
		name   string
		change []func(*configuration.Cluster)
		want   configuration.OffSubnet // of the pool stray
	}{
		{name: "no such pool"},
		{name: "a pool of another network", change: []func(*configuration.Cluster){stray}, want: configuration.OffSubnet{Certain: true,
			Problem: "the pool's addresses are in no subnet of the nodes that L2Advertisement all announces them from: 203.0.113.0/26; their IPv4 subnet is 198.18.0.0/24 on eth0" + advice}},
		{name: "a part of it", change: []func(*configuration.Cluster){func(c *configuration.Cluster) {
			c.Pools = append(c.Pools, pool("stray", "203.0.113.0/26", "198.18.0.64/27"))
		}}, want: configuration.OffSubnet{
			Problem: "these addresses of the pool are in no subnet of the nodes that L2Advertisement all announces them from: 203.0.113.0/26; their IPv4 subnet is 198.18.0.0/24 on eth0" + advice}},
		{name: "no advertisement on segments", change: []func(*configuration.Cluster){stray, func(c *configuration.Cluster) { c.L2Advertisements = nil }}},
		{name: "one of another pool", change: []func(*configuration.Cluster){stray, func(c *configuration.Cluster) { c.L2Advertisements[0].Spec.Pools = []string{"public"} }}},
		{name: "one with an interface", change: []func(*configuration.Cluster){stray, func(c *configuration.Cluster) {
			c.L2Advertisements = append(c.L2Advertisements, l2("link", func(s *herald.L2AdvertisementSpec) { s.Interfaces = []string{"eth0"} }))
		}}},
		{name: "by BGP, too, before there is a session", change: []func(*configuration.Cluster){stray, func(c *configuration.Cluster) {
			c.BGPAdvertisements, c.Peers = []*herald.BGPAdvertisement{bgp("all")}, nil
		}}},
		{name: "by BGP another pool", change: []func(*configuration.Cluster){stray, func(c *configuration.Cluster) {
			c.BGPAdvertisements = []*herald.BGPAdvertisement{bgp("public", func(s *herald.BGPAdvertisementSpec) { s.Pools = []string{"public"} })}
		}}, want: configuration.OffSubnet{Certain: true,
			Problem: "the pool's addresses are in no subnet of the nodes that L2Advertisement all announces them from: 203.0.113.0/26; their IPv4 subnet is 198.18.0.0/24 on eth0" + advice}},
		{name: "no speaker works any more", change: []func(*configuration.Cluster){stray, func(c *configuration.Cluster) {
			everySpeaker(c, func(s *configuration.Speaker) { s.Silent = true })
		}}},
		{name: "before there are speakers", change: []func(*configuration.Cluster){stray, withoutSpeakers}, want: configuration.OffSubnet{
			Problem: "L2Advertisement all announces 203.0.113.0/26 on the segments of nodes whose internal addresses are far from these (198.18.0.1, 198.18.0.2, 198.18.0.3): " +
				"take addresses of a subnet of the nodes, or announce the pool by a BGPAdvertisement in place of that, or see to it that the nodes have an interface in this subnet"}},
		{name: "before there are speakers, near the nodes", change: []func(*configuration.Cluster){withoutSpeakers, func(c *configuration.Cluster) {
			c.Pools = append(c.Pools, pool("stray", "198.18.77.0/26"))
		}}},
		{name: "before there are speakers, of a family that is not known", change: []func(*configuration.Cluster){withoutSpeakers, func(c *configuration.Cluster) {
			c.Pools = append(c.Pools, pool("stray", "2001:db8::/120"))
		}}},
		{name: "before there are speakers, from excluded nodes", change: []func(*configuration.Cluster){stray, withoutSpeakers, func(c *configuration.Cluster) {
			for _, n := range c.Nodes {
				n.Labels["node.kubernetes.io/exclude-from-external-load-balancers"] = ""
			}
		}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := healthy()
			for _, change := range test.change {
				change(c)
			}
			off := c.OffSubnets()
			if diff := cmp.Diff(test.want, off["stray"]); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			delete(off, "stray")
			if len(off) > 0 {
				t.Errorf("other pools: %v", off)
			}
			// herald-ccm says the same as soon as speakers report, and nothing is announced by BGP.
			if stray, is := configuration.Assess(*c).Pools["stray"]; test.want.Certain && (!is || stray.Announced.Reason != herald.ReasonOffSubnet || !strings.Contains(stray.Announced.Message, test.want.Problem)) {
				t.Errorf("herald-ccm says %v", stray.Announced)
			}
		})
	}
}
