package interop

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/heraldlb/herald/e2e/lab/rack"
	"github.com/heraldlb/herald/e2e/lab/router"
	"github.com/heraldlb/herald/speaker/bgp"
)

// Another BGP daemon runs on the node. It has port 179, and its own session with the router over IPv4. The router accepts only
// one session from an address, so Herald's session with the router is over IPv6. Herald also has a session on the loopback
// interface with the daemon, which passes the routes on. FRR and BIRD refuse 127.0.0.1, because it cannot be a next hop.
func TestASecondSpeakerOnTheNode(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		node := r.NewHost("node") // A separate machine, because the daemon uses the port on all addresses.
		loopback, secondASN := netip.MustParseAddr("192.0.2.1"), uint32(64513)
		r.OnNode("ip link set %s netns %s", r.Port, node.Name)
		r.Must(node.Script("ip link set %[3]s up; ip addr add %[1]v/24 dev %[3]s; ip addr add %[2]v/64 dev %[3]s; ip addr add %[4]v/32 dev lo", r.Node4, r.Node6, r.Port, loopback))
		// A daemon on this node does not accept the node's own address, which Herald announces, as a next hop. It accepts any other
		// address to which it has a route.
		hop := netip.MustParseAddr("192.0.2.9")
		r.Must(node.Script("ip link add hop type veth peer name end; ip link set hop up; ip link set end up; ip addr add %v/31 dev hop", hop.Prev()))
		r.Config.Neighbors = []router.Neighbor{{Address: r.Node4, ASN: secondASN}, {Address: r.Node6, ASN: rack.NodeASN}}
		r.Start()
		theirs := netip.MustParsePrefix("203.0.113.250/32")
		second, err := r.Run(node, "second", router.Config{
			ASN: secondASN, RouterID: r.Node4, Networks: []netip.Prefix{theirs}, Transit: true,
			Neighbors: []router.Neighbor{
				{Address: r.Router4, ASN: rack.RouterASN, Port: bgp.DefaultPort},
				{Range: netip.PrefixFrom(loopback, 32), ASN: rack.NodeASN, MultihopTTL: 2, Source: loopback, NextHop: hop, IPv4Only: true},
			},
		})
		r.Must(err)
		t.Cleanup(func() { _ = second.Kill() })

		direct, local := r.peer("tor"), r.peer("local")
		direct.Address, direct.NextHop4, direct.NextHop6 = r.Router6, r.Node4, netip.Addr{}
		local.Address, local.PeerASN, local.MultihopTTL = loopback, secondASN, 2
		wish := childWish{[]bgp.Peer{direct, local}, map[string][]netip.Prefix{"tor": {vip4}, "local": {r.own()}}}
		ours := r.plain(vip4)
		passed, own := r.plain(r.own()), r.plain(theirs)
		passed.ASPath, own.ASPath = []uint32{secondASN, rack.NodeASN}, []uint32{secondASN}
		hears := func(want ...router.Route) {
			t.Helper()
			rack.Eventually(t, func() error {
				return r.heardBut(func(r *router.Route) {
					if slices.Equal(r.ASPath, own.ASPath) {
						r.MED = nil // FRR announces its own networks with a MED.
					}
				}, want...)
			})
		}
		c := startChildOn(t, node, wish)
		hears(ours, passed, own)
		// Each of the two works without the other.
		c.kill()
		hears(own)
		startChildOn(t, node, wish)
		hears(ours, passed, own)
		out, err := node.Command(t.Context(), "ip", "route", "show", r.own().String()).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("the node's kernel has a route to the address: %s, %v", out, err)
		}
		r.Must(second.Kill())
		hears(ours)
	})
}
