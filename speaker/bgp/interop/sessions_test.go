package interop

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/e2e/lab/rack"
	"github.com/heraldlb/herald/e2e/lab/router"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/bgp/route"
)

func TestARouterOfAnyOtherAS(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Config.ASN = 4200000099
		r.Start()
		p := r.peer("tor")
		p.PeerASN, p.External = 0, true
		s := newSpeaker(t, p)
		s.Set(vip4, to(route.Attributes{Prepend: 1, LocalPreference: new(uint32(250))}, "tor"))
		want := r.plain(vip4)
		want.ASPath = []uint32{rack.NodeASN, rack.NodeASN}
		r.hears(want)
	})
}

func TestARouterOfThisASIsNotExternal(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Config.ASN = rack.NodeASN
		r.Start()
		p := r.peer("tor")
		p.PeerASN, p.External = 0, true
		s := newSpeaker(t, p)
		s.Set(vip4, to(route.Attributes{}, "tor"))
		rack.Eventually(t, func() error { return s.down("tor", "the router has the AS number of this node") })
		r.hears()
	})
}

// The router finds this node by its Router Advertisements, and has only link-local addresses.
func TestUnnumbered(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.OnNode("ip addr del %v/24 dev %s; ip addr del %v/64 dev %s", r.Node4, r.Port, r.Node6, r.Port)
		r.OnRouter("ip addr del %v/24 dev eth0; ip addr del %v/64 dev eth0", r.Router4, r.Router6)
		node, far := linkLocal(t, enclave.Host{}, r.Port), linkLocal(t, r.Host, "eth0")
		r.Config.Neighbors[0] = router.Neighbor{Unnumbered: "eth0", ASN: rack.NodeASN}
		r.Start()
		p := r.peer("tor")
		p.Address, p.NextHop6, p.Unnumbered = far.WithZone(r.Port), netip.Addr{}, true
		s := newSpeaker(t, p)
		s.Set(vip4, to(decorated, "tor"))
		s.Set(vip6, to(route.Attributes{}, "tor"))
		want4, want6 := decorate(r.plain(vip4)), r.plain(vip6)
		want4.ASPath = []uint32{rack.NodeASN, rack.NodeASN, rack.NodeASN}
		want4.NextHops, want6.NextHops = []netip.Addr{node}, []netip.Addr{node}
		r.hears(want4, want6)
		r.inKernel(vip4, node.String()+" dev eth0")
		r.inKernel(vip6, node.String()+" dev eth0")
		s.Set(vip4, nil)
		r.hears(want6)

		// A router that has restarted finds this node again.
		r.Must(r.Router.Kill())
		r.Start()
		r.hears(want6)
	})
}

// A router that does not accept IPv4 routes with an IPv6 next hop drops those of an unnumbered session, and the session reports
// this. FRR always accepts them.
func TestUnnumberedWithoutExtendedNextHop(t *testing.T) {
	t.Parallel()
	r := newBench(t, rack.BIRD)
	far := linkLocal(t, r.Host, "eth0")
	r.Config.Neighbors[0] = router.Neighbor{Unnumbered: "eth0", ASN: rack.NodeASN, NoExtendedNextHop: true}
	r.Start()
	p := r.peer("tor")
	p.Address, p.NextHop6, p.Unnumbered = far.WithZone(r.Port), netip.Addr{}, true
	s := newSpeaker(t, p)
	s.Set(vip4, to(route.Attributes{}, "tor"))
	s.Set(vip6, to(route.Attributes{}, "tor"))
	want6 := r.plain(vip6)
	want6.NextHops = []netip.Addr{linkLocal(t, enclave.Host{}, r.Port)}
	r.hears(want6)
	got := s.counted("tor", 0, 1, 1, 0)
	if !strings.Contains(got.WithheldReason, "turn the extended next hop capability on there (RFC 8950)") {
		t.Errorf("%+v", got)
	}
}

// An unnumbered session can have a password. A machine on the link that impersonates the router does not know it.
func TestUnnumberedWithPassword(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.OnNode("ip addr del %v/24 dev %s; ip addr del %v/64 dev %s", r.Node4, r.Port, r.Node6, r.Port)
		r.OnRouter("ip addr del %v/24 dev eth0; ip addr del %v/64 dev eth0", r.Router4, r.Router6)
		node, far := linkLocal(t, enclave.Host{}, r.Port), linkLocal(t, r.Host, "eth0")
		r.Config.Neighbors[0] = router.Neighbor{Unnumbered: "eth0", ASN: rack.NodeASN, Password: "battery-staple"}
		r.Start()
		p := r.peer("tor")
		p.Address, p.NextHop6, p.Unnumbered, p.Password = far.WithZone(r.Port), netip.Addr{}, true, "correct-horse"
		s := newSpeaker(t, p)
		s.Set(vip6, to(route.Attributes{}, "tor"))
		rack.Eventually(t, func() error {
			return s.down("tor", "no answer: with a password that is set on one side only, or differs")
		})
		p.Password = "battery-staple"
		s.peers(p)
		want := r.plain(vip6)
		want.NextHops = []netip.Addr{node}
		r.hears(want)
	})
}

// On a link with several nodes, no node takes another for the router: a speaker sends its Router Advertisements only to its
// router.
func TestNoNodeTakesAnotherForItsRouter(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		bridge := "b" + r.Port
		other, err := enclave.NewHost("node-" + r.Port)
		r.Must(err)
		t.Cleanup(func() { _ = other.Remove() })
		r.Must(enclave.Connect(enclave.Host{}, "o"+r.Port, other, "eth0"))
		r.Must((enclave.Host{}).Script(`ip link add %[1]s type bridge mcast_snooping 0; ip link set %[2]s master %[1]s; ip link set o%[2]s master %[1]s
			ip addr flush dev %[2]s; ip link set %[1]s up`, bridge, r.Port))
		t.Cleanup(func() { _ = enclave.Host{}.Script("ip link delete %s", bridge) })
		r.Must(r.Host.Script("ip addr del %v/24 dev eth0; ip addr del %v/64 dev eth0", r.Router4, r.Router6))
		node, far := linkLocal(t, enclave.Host{}, bridge), linkLocal(t, r.Host, "eth0")
		r.Config.Neighbors[0] = router.Neighbor{Unnumbered: "eth0", ASN: rack.NodeASN}
		r.Start()
		p := r.peer("tor")
		p.Address, p.NextHop6, p.Unnumbered = far.WithZone(bridge), netip.Addr{}, true
		s := newSpeaker(t, p)
		s.Set(vip6, to(route.Attributes{}, "tor"))
		want := r.plain(vip6)
		want.NextHops = []netip.Addr{node}
		r.hears(want)
		out, err := other.Command(t.Context(), "ip", "-6", "neigh", "show", "dev", "eth0").CombinedOutput()
		r.Must(err)
		if strings.Contains(string(out), node.String()+" ") { // It would have heard of the node before the session came up.
			t.Errorf("another node has the neighbours %q: %v is a node, and the router is %v", out, node, far)
		}
	})
}

// linkLocal returns the link-local address of a device. The kernel may assign it a moment after the device is up.
func linkLocal(t *testing.T, h enclave.Host, device string) (address netip.Addr) {
	t.Helper()
	rack.Eventually(t, func() error {
		out, err := h.Command(t.Context(), "ip", "-6", "-o", "addr", "show", "dev", device, "scope", "link").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		_, text, found := strings.Cut(string(out), "inet6 ")
		if !found {
			return fmt.Errorf("%s has no link-local address: %q", device, out)
		}
		prefix, err := netip.ParsePrefix(strings.Fields(text)[0])
		address = prefix.Addr()
		return err
	})
	return address
}

// A router with the same router ID as this node reports this, and the session comes up after the router ID is changed.
func TestDuplicateRouterID(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Config.ASN = rack.NodeASN // RFC 6286: the router ID is unique within an AS
		r.Start()
		p := r.peer("tor")
		p.RouterID = r.Config.RouterID
		s := newSpeaker(t, p)
		s.Set(vip4, to(route.Attributes{}, "tor"))
		rack.Eventually(t, func() error { return s.down("tor", "the router has the BGP identifier") })
		p.RouterID = r.Node4
		s.peers(p)
		s.up("tor")
	})
}

// The session with a peer that is removed while nobody answers ends at once.
func TestAPeerIsRemovedWhileItConnects(t *testing.T) {
	rack.EachAlone(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Start()
		gone := r.peer("gone")
		gone.Address = gone.Address.Next()
		s := newSpeaker(t, r.peer("tor"), gone)
		s.Set(vip4, to(route.Attributes{}, "tor", "gone"))
		up := s.up("tor")
		rack.Eventually(t, func() error {
			if got := s.session("gone"); got.State == bgp.Idle {
				return fmt.Errorf("%+v", got)
			}
			return nil
		})
		s.peers(r.peer("tor"))
		s.undisturbed(up)
		r.hears(r.plain(vip4))
		s.peers(r.peer("tor"), gone)
		s.stop() // The speaker is dialling again at this time. TestMain checks that all goroutines have ended.
		if err := rack.Within(2*time.Second, func() error { return r.heard() }); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Router.Routes(context.Background()); err != nil {
			t.Error(err)
		}
	})
}
