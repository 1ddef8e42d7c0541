package interop

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/e2e/lab/router"
	"github.com/heraldlb/herald/speaker/bgp"
)

func TestARouterOfAnyOtherAS(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		r.config.ASN = 4200000099
		r.start()
		p := r.peer("tor")
		p.PeerASN, p.External = 0, true
		s := newSpeaker(t, p)
		s.Set(vip4, to(bgp.Attributes{Prepend: 1, LocalPref: new(uint32(250))}, "tor"))
		want := r.plain(vip4)
		want.ASPath = []uint32{nodeASN, nodeASN}
		r.hears(want)
	})
}

func TestARouterOfThisASIsNotExternal(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		r.config.ASN = nodeASN
		r.start()
		p := r.peer("tor")
		p.PeerASN, p.External = 0, true
		s := newSpeaker(t, p)
		s.Set(vip4, to(bgp.Attributes{}, "tor"))
		eventually(t, func() error { return s.down("tor", "the router has the AS number of this node") })
		r.hears()
	})
}

// The router finds this node by its Router Advertisements, and has no address but link-local ones.
func TestUnnumbered(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		r.must((enclave.Host{}).Script("ip addr del %v/24 dev %s; ip addr del %v/64 dev %s", r.node4, r.port, r.node6, r.port))
		r.must(r.host.Script("ip addr del %v/24 dev eth0; ip addr del %v/64 dev eth0", r.router4, r.router6))
		node, far := linkLocal(t, enclave.Host{}, r.port), linkLocal(t, r.host, "eth0")
		r.config.Neighbors[0] = router.Neighbor{Unnumbered: "eth0", ASN: nodeASN}
		r.start()
		p := r.peer("tor")
		p.Address, p.NextHop6, p.Unnumbered = far.WithZone(r.port), netip.Addr{}, true
		s := newSpeaker(t, p)
		s.Set(vip4, to(decorated, "tor"))
		s.Set(vip6, to(bgp.Attributes{}, "tor"))
		want4, want6 := decorate(r.plain(vip4)), r.plain(vip6)
		want4.ASPath = []uint32{nodeASN, nodeASN, nodeASN}
		want4.NextHops, want6.NextHops = []netip.Addr{node}, []netip.Addr{node}
		r.hears(want4, want6)
		for family, prefix := range map[string]netip.Prefix{"-4": vip4, "-6": vip6} {
			eventually(t, func() error {
				out, err := r.host.Command(t.Context(), "ip", family, "route", "show", prefix.Addr().String()).CombinedOutput()
				if err == nil && !strings.Contains(string(out), node.String()+" dev eth0") {
					err = fmt.Errorf("the kernel has %q, want next hop %v", out, node)
				}
				return err
			})
		}
		s.Set(vip4, nil)
		r.hears(want6)

		// A router that has restarted finds this node again.
		r.must(r.router.Kill())
		r.start()
		r.hears(want6)
	})
}

func linkLocal(t *testing.T, h enclave.Host, device string) netip.Addr {
	t.Helper()
	out, err := h.Command(t.Context(), "ip", "-6", "-o", "addr", "show", "dev", device, "scope", "link").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	fields := strings.Fields(string(out))
	for i, f := range fields {
		if f == "inet6" {
			return netip.MustParsePrefix(fields[i+1]).Addr()
		}
	}
	t.Fatalf("%s has no link-local address: %q", device, out)
	return netip.Addr{}
}

// A router with the router ID of this node says so, and the session comes up once it is another.
func TestDuplicateRouterID(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		r.config.ASN = nodeASN // RFC 6286 has it unique within an AS
		r.start()
		p := r.peer("tor")
		p.RouterID = r.config.RouterID
		s := newSpeaker(t, p)
		s.Set(vip4, to(bgp.Attributes{}, "tor"))
		eventually(t, func() error { return s.down("tor", "the router has the BGP identifier") })
		p.RouterID = r.node4
		s.peers(p)
		s.up("tor")
	})
}

// A peer that is removed while nobody answers ends at once.
func TestAPeerIsRemovedWhileItConnects(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		r.start()
		gone := r.peer("gone")
		gone.Address = gone.Address.Next()
		s := newSpeaker(t, r.peer("tor"), gone)
		s.Set(vip4, to(bgp.Attributes{}, "tor", "gone"))
		up := s.up("tor")
		eventually(t, func() error {
			if got := s.session("gone"); got.State == bgp.Idle {
				return fmt.Errorf("%+v", got)
			}
			return nil
		})
		s.peers(r.peer("tor"))
		s.undisturbed(up)
		r.hears(r.plain(vip4))
		s.peers(r.peer("tor"), gone)
		s.stop() // While it dials again. All goroutines are joined, which TestMain checks.
		if err := within(2*time.Second, func() error { return r.heard() }); err != nil {
			t.Fatal(err)
		}
		if _, err := r.router.Routes(context.Background()); err != nil {
			t.Error(err)
		}
	})
}
