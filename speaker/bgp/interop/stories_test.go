package interop

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/rack"
	"github.com/heraldlb/herald/e2e/lab/router"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/bgp/route"
)

var (
	vip4 = netip.MustParsePrefix("198.51.100.1/32")
	vip6 = netip.MustParsePrefix("2001:db8:ffff::1/128")
)

var decorated = route.Attributes{
	Communities:      []route.Community{route.NoExport, rack.NodeASN<<16 | 100},
	LargeCommunities: []route.LargeCommunity{{Global: 4200000000, Local1: 1, Local2: 2}},
	// rt:64512:100 and soo:4200000000:7
	ExtendedCommunities: []route.ExtendedCommunity{0x0002_FC00_0000_0064, 0x0203_FA56_EA00_0007},
	MED:                 new(uint32(50)),
	LocalPreference:     new(uint32(250)),
	Prepend:             2,
}

func decorate(r router.Route) router.Route {
	r.Communities = []string{"64512:100", "65535:65281"}
	r.LargeCommunities = []string{"4200000000:1:2"}
	r.ExtendedCommunities = []string{"rt:64512:100", "soo:4200000000:7"}
	r.MED = new(uint32(50))
	return r
}

func TestPrefixesArriveChangeAndGo(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Start()
		s := newSpeaker(t, r.peer("tor"))
		s.Set(vip4, to(route.Attributes{}, "tor"))
		s.Set(vip6, to(route.Attributes{}, "tor"))
		r.hears(r.plain(vip4), r.plain(vip6))
		first := s.counted("tor", 1, 1, 0, 0)

		s.Set(vip4, to(decorated, "tor"))
		want := decorate(r.plain(vip4))
		want.ASPath = []uint32{rack.NodeASN, rack.NodeASN, rack.NodeASN}
		r.hears(want, r.plain(vip6))

		s.Set(vip4, to(route.Attributes{}, "tor"))
		r.hears(r.plain(vip4), r.plain(vip6))

		s.Set(vip4, nil)
		r.hears(r.plain(vip6))
		s.Set(vip6, nil)
		r.hears()
		s.undisturbed(first)
	})
}

// Every well-known name stands for the community that routers know by this name.
func TestWellKnownCommunities(t *testing.T) {
	names := map[string]string{
		"graceful-shutdown": "65535:0", "accept-own": "65535:1", "no-llgr": "65535:7", "blackhole": "65535:666",
		"no-export": "65535:65281", "no-advertise": "65535:65282", "no-export-subconfed": "65535:65283", "no-peer": "65535:65284",
	}
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Start()
		s := newSpeaker(t, r.peer("tor"))
		prefix := vip4
		var want []router.Route
		for _, name := range slices.Sorted(maps.Keys(names)) {
			var a route.Attributes
			r.Must(a.AddCommunities(name))
			s.Set(prefix, to(a, "tor"))
			route := r.plain(prefix)
			route.Communities = []string{names[name]}
			if name == "blackhole" && kind == rack.FRR { // FRR adds no-export to blackhole, as RFC 7999 §3.2 advises.
				route.Communities = []string{names["no-export"], names[name]}
			}
			want = append(want, route)
			prefix = netip.PrefixFrom(prefix.Addr().Next(), 32)
		}
		r.hears(want...)
	})
}

func TestInternalPeerHearsLocalPreferenceAndNoPrepending(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Config.ASN = rack.NodeASN
		r.Start()
		s := newSpeaker(t, r.peer("tor"))
		s.Set(vip4, to(decorated, "tor"))
		want := decorate(r.plain(vip4))
		want.ASPath, want.LocalPreference = nil, new(uint32(250))
		r.hears(want)
	})
}

func TestSessionOverIPv6(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Config.Neighbors[0].Address = r.Node6
		r.Start()
		p := r.peer("tor")
		p.Address, p.NextHop6, p.NextHop4 = r.Router6, netip.Addr{}, r.Node4
		s := newSpeaker(t, p)
		s.Set(vip4, to(route.Attributes{}, "tor"))
		s.Set(vip6, to(decorated, "tor"))
		want := decorate(r.plain(vip6))
		want.ASPath = []uint32{rack.NodeASN, rack.NodeASN, rack.NodeASN}
		r.hears(r.plain(vip4), want)
	})
}

func TestSessionOverLinkLocalAddresses(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		node, far := netip.MustParseAddr("fe80::a"), netip.MustParseAddr("fe80::b")
		r.OnNode("ip addr add %v/64 dev %s", node, r.Port)
		r.OnRouter("ip addr add %v/64 dev eth0", far)
		r.Config.Neighbors[0].Address = node.WithZone("eth0")
		r.Config.Neighbors[0].Password = "secret"
		r.Start()
		p := r.peer("tor")
		p.Address, p.LocalAddress, p.NextHop4 = far.WithZone(r.Port), node.WithZone(r.Port), r.Node4
		p.Password = "secret"
		s := newSpeaker(t, p)
		s.Set(vip4, to(route.Attributes{}, "tor"))
		s.Set(vip6, to(route.Attributes{}, "tor"))
		r.hears(r.plain(vip4), r.plain(vip6))
	})
}

func TestPrefixWithoutNextHopIsWithheldAndSaysSo(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Config.Neighbors[0].IPv4Only = true
		r.Start()
		p := r.peer("tor")
		p.NextHop6 = netip.Addr{}
		s := newSpeaker(t, p)
		s.Set(vip4, to(route.Attributes{}, "tor"))
		s.Set(vip6, to(route.Attributes{}, "tor"))
		r.hears(r.plain(vip4))
		withheld := func(reason string) func() error {
			return func() error {
				got := s.session("tor")
				if got.Withheld6 != 1 || got.Advertised6 != 0 || !strings.Contains(got.WithheldReason, reason) {
					return fmt.Errorf("session %+v, want one prefix withheld because of %q", got, reason)
				}
				return nil
			}
		}
		rack.Eventually(t, withheld("this node has no IPv6 address"))
		s.peers(r.peer("tor")) // This peer has an IPv6 next hop, but the router still does not speak IPv6.
		s.up("tor")
		rack.Eventually(t, withheld("the router does not speak IPv6 unicast"))
	})
}

func TestPeersHearDifferentThingsAndDoNotDisturbEachOther(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		a, b := newBench(t, kind), newBench(t, kind)
		a.Start()
		b.Start()
		s := newSpeaker(t, a.peer("a"), b.peer("b"))
		other := netip.MustParsePrefix("198.51.100.2/32")
		s.Set(vip4, to(route.Attributes{}, "a"))
		s.Set(other, map[string]route.Attributes{"a": {MED: new(uint32(1))}, "b": {MED: new(uint32(2))}})
		med := func(r router.Route, med uint32) router.Route { r.MED = &med; return r }
		a.hears(a.plain(vip4), med(a.plain(other), 1))
		b.hears(med(b.plain(other), 2))
		upA, upB := s.up("a"), s.up("b")

		// The same peers in a different order are no change.
		s.peers(b.peer("b"), a.peer("a"))
		s.Set(vip4, to(route.Attributes{}, "a"))
		s.Set(vip4, to(route.Attributes{}, "b"))
		a.hears(med(a.plain(other), 1))
		b.hears(b.plain(vip4), med(b.plain(other), 2))
		s.undisturbed(upA)
		s.undisturbed(upB)

		// The session with a changed peer is replaced, and starts with all its routes. A peer that is not valid does not affect the
		// others.
		changed := a.peer("a")
		changed.HoldTime = 30 * time.Second
		faults := s.SetPeers([]bgp.Peer{changed, b.peer("b"), {Name: "broken"}})
		if len(faults) != 1 || faults["broken"] == nil {
			t.Errorf("faults %v, want one of peer broken", faults)
		}
		s.replaced(upA)
		a.hears(med(a.plain(other), 1))
		s.undisturbed(upB)

		// A removed peer's routes are gone at once.
		s.peers(b.peer("b"))
		if err := rack.Within(5*time.Second, func() error { return a.heard() }); err != nil {
			t.Errorf("a removed peer keeps routes: %v", err)
		}
		a.Must(a.wasTold("de-configured"))
		s.undisturbed(upB)
		b.hears(b.plain(vip4), med(b.plain(other), 2))
	})
}

func TestRoutesForAPeerThatAppearsLater(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Start()
		s := newSpeaker(t)
		s.Set(vip4, to(route.Attributes{}, "tor"))
		s.peers(r.peer("tor"))
		r.hears(r.plain(vip4))
	})
}

// Two routers that connect to the same port of this node can have different passwords, too.
func TestPassword(t *testing.T) {
	bothWays(t, func(t *testing.T, kind router.Kind, w way) {
		right, wrong := newBench(t, kind), newBench(t, kind)
		good, bad := right.peer("right"), wrong.peer("wrong")
		good.Password, bad.Password = "correct-horse", "battery-staple"
		for r, p := range map[*bench]*bgp.Peer{right: &good, wrong: &bad} {
			w.on(1790+uint16(right.Number), r, p)
			r.Config.Neighbors[0].Password = "correct-horse"
			r.Start()
		}
		s := newSpeaker(t, good, bad)
		s.Set(vip4, to(route.Attributes{}, "right", "wrong"))
		right.hears(right.plain(vip4))
		up := s.up("right")
		differs, missing := "no answer: with a password that is set on one side only, or differs", "it expects a password and none is set here"
		if w.passive {
			differs, missing = "the router has not connected to port", "the router has not connected to port"
		}
		rack.Eventually(t, func() error { return s.down("wrong", differs) })
		bad.Password = ""
		s.peers(good, bad)
		rack.Eventually(t, func() error { return s.down("wrong", missing) })
		bad.Password = "correct-horse"
		s.peers(good, bad)
		wrong.hears(wrong.plain(vip4))
		s.undisturbed(up)
	})
}

func TestReasonsWhyASessionIsDown(t *testing.T) {
	for name, story := range map[string]struct {
		router func(*router.Config)
		peer   func(*bgp.Peer)
		reason string
	}{
		"no BGP there":                     {peer: func(p *bgp.Peer) { p.Port = 1790 }, reason: "connection refused: "},
		"the router has another AS number": {peer: func(p *bgp.Peer) { p.PeerASN = 65001 }, reason: "the router's AS number is not 65001"},
		"this node has another AS number":  {peer: func(p *bgp.Peer) { p.LocalASN = 65002 }, reason: "expects another AS number than 65002"},
		"the device does not exist":        {peer: func(p *bgp.Peer) { p.Interface = "nowhere0" }, reason: "no such device"},
		"nobody answers":                   {peer: func(p *bgp.Peer) { p.Address = p.Address.Next() }, reason: "no answer: the router or the gateway to it is down or has another address"},
	} {
		t.Run(name, func(t *testing.T) {
			rack.Each(t, func(t *testing.T, kind router.Kind) {
				r := newBench(t, kind)
				r.Start()
				p := r.peer("tor")
				story.peer(&p)
				s := newSpeaker(t, p)
				rack.Eventually(t, func() error { return s.down("tor", story.reason) })
				select {
				case <-s.Changed():
				default:
					t.Error("nothing told that the session's reason has changed")
				}
				// The reason stays while the session is tried again, whatever the router does with a node that it has refused.
				if err := rack.Within(5*time.Second, func() error {
					if err := s.down("tor", story.reason); err != nil {
						t.Fatal(err)
					}
					return errors.New("it stays")
				}); err == nil {
					t.Error("it was not looked at")
				}
			})
		})
	}
}

// A router that sends the routes of the Internet to every neighbour must not use up the node's memory.
func TestARouterThatSendsTooManyRoutes(t *testing.T) {
	rack.EachAlone(t, func(t *testing.T, kind router.Kind) {
		networks := make([]netip.Prefix, 12_000)
		for i := range networks {
			networks[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		}
		few, many := newBench(t, kind), newBench(t, kind)
		few.Config.Networks, many.Config.Networks = networks[:9000], networks
		few.Start()
		many.Start()
		s := newSpeaker(t, few.peer("few"), many.peer("many"))
		s.Set(vip4, to(route.Attributes{}, "few", "many"))
		first := s.up("few")
		rack.Eventually(t, func() error { return few.counts(1) })
		rack.Eventually(t, func() error { return s.down("many", "the router sent more than 10000 routes of a family") })
		rack.Eventually(t, func() error { return many.wasTold("maximum number of prefixes reached") })
		s.undisturbed(first)
	})
}

func TestFourByteASNumbers(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Config.ASN, r.Config.Neighbors[0].ASN = 4200000001, 4200000002
		r.Start()
		p := r.peer("tor")
		p.LocalASN = 4200000002
		s := newSpeaker(t, p)
		s.Set(vip4, to(route.Attributes{Prepend: 1}, "tor"))
		want := r.plain(vip4)
		want.ASPath = []uint32{4200000002, 4200000002}
		r.hears(want)
	})
}

func TestStopDropsRoutesAtOnce(t *testing.T) {
	rack.EachAlone(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Start()
		s := newSpeaker(t, r.peer("tor"))
		s.Set(vip4, to(route.Attributes{}, "tor"))
		r.hears(r.plain(vip4))
		s.stop()
		// The test only waits for the router to handle the end of the session; the hold time is 90 s.
		if err := rack.Within(2*time.Second, func() error { return r.heard() }); err != nil {
			t.Fatal(err)
		}
		r.Must(r.wasTold("administrative shutdown"))
		r.Must(r.wasTold("speaker stops")) // RFC 9003
		if err := s.down("tor", "closed by this node"); err != nil {
			t.Error(err)
		}
	})
}

func TestGracefulRestartKeepsRoutes(t *testing.T) {
	rack.EachAlone(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Start()
		p := r.peer("tor")
		p.GracefulRestart = &bgp.GracefulRestart{RestartTime: time.Minute}
		s := newSpeaker(t, p)
		s.Set(vip4, to(route.Attributes{}, "tor"))
		s.Set(vip6, to(route.Attributes{}, "tor"))
		r.hears(r.plain(vip4), r.plain(vip6))
		s.end(bgp.ErrRestart)

		// The next speaker still announces one of the two routes. The router must keep that one all the time, and must drop the
		// other.
		stays := func() error {
			got, err := r.Router.Routes(context.Background())
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(got, func(r router.Route) bool { return r.Prefix == vip4 && r.Best }) {
				t.Fatalf("the router has lost %v during the restart: %v", vip4, got)
			}
			return nil
		}
		if err := stays(); err != nil {
			t.Fatal(err)
		}
		next := prepareSpeaker(t)
		next.Set(vip4, to(route.Attributes{}, "tor"))
		next.peers(p)
		next.run()
		rack.Eventually(t, func() error {
			if err := stays(); err != nil {
				return err
			}
			return r.heard(r.plain(vip4))
		})
		// The route is gone at once when the peer is removed.
		next.up("tor")
		next.peers()
		if err := rack.Within(2*time.Second, func() error { return r.heard() }); err != nil {
			t.Fatal(err)
		}
	})
}

func TestMultihop(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		node, far := r.Behind()
		r.Config.Neighbors = []router.Neighbor{{Address: node, ASN: rack.NodeASN, MultihopTTL: 4, IPv4Only: true}}
		r.Start()
		p := r.peer("far")
		p.Address, p.NextHop4 = far, r.Node4
		s := newSpeaker(t, p)
		s.Set(vip4, to(route.Attributes{}, "far"))
		rack.Eventually(t, func() error { return s.down("far", "the router is more than spec.multihopTTL hops away") })
		p.MultihopTTL = 4
		s.peers(p)
		r.hears(r.plain(vip4))
	})
}

func TestTTLSecurity(t *testing.T) {
	for _, family := range []string{"IPv4", "IPv6"} {
		t.Run(family, func(t *testing.T) {
			bothWays(t, func(t *testing.T, kind router.Kind, w way) {
				r := newBench(t, kind)
				p := r.peer("tor")
				p.LocalAddress, p.TTLSecurity, r.Config.Neighbors[0].TTLSecurity = r.Node4, 1, 1
				if family == "IPv6" {
					r.Config.Neighbors[0].Address = r.Node6
					p.LocalAddress, p.Address, p.NextHop6, p.NextHop4 = r.Node6, r.Router6, netip.Addr{}, r.Node4
				}
				w.on(bgp.DefaultPort, r, &p)
				r.Start()
				s := newSpeaker(t, p)
				s.Set(vip4, to(route.Attributes{}, "tor"))
				s.Set(vip6, to(route.Attributes{}, "tor"))
				r.hears(r.plain(vip4), r.plain(vip6))
			})
		})
	}
}

// In a real rack the devices would be VRFs, but this makes no difference for the sessions.
func TestSameRouterAddressBehindTwoDevices(t *testing.T) {
	bothWays(t, func(t *testing.T, kind router.Kind, w way) {
		one, other := rack.NewPair(t, kind)
		red, blue := &bench{one, t}, &bench{other, t}
		var peers []bgp.Peer
		for name, r := range map[string]*bench{"red": red, "blue": blue} {
			p := r.peer(name)
			p.Interface, p.Password, r.Config.Neighbors[0].Password = r.Port, name, name
			w.on(1790+uint16(r.Number), r, &p)
			r.Start()
			peers = append(peers, p)
		}
		s := newSpeaker(t, peers...)
		s.Set(vip4, to(route.Attributes{}, "red"))
		s.Set(vip6, to(route.Attributes{}, "blue"))
		red.hears(red.plain(vip4))
		blue.hears(blue.plain(vip6))
	})
}

func TestDynamicNeighborRangeWithPassword(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Config.Neighbors[0] = router.Neighbor{Range: netip.PrefixFrom(r.Node4, 24).Masked(), ASN: rack.NodeASN, Password: "secret"}
		r.Start()
		p := r.peer("tor")
		p.Password = "secret"
		s := newSpeaker(t, p)
		s.Set(vip4, to(route.Attributes{}, "tor"))
		r.hears(r.plain(vip4))
	})
}

// Two nodes announce the same address, and the router's kernel gets a next hop for each of them.
func TestEqualCostPathsReachTheKernel(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		second := r.Address("198.18.%d.9")
		r.OnNode("ip addr add %v/24 dev %s", second, r.Port)
		r.Config.MaximumPaths = 8
		r.Config.Neighbors = append(r.Config.Neighbors, router.Neighbor{Address: second, ASN: rack.NodeASN})
		r.Start()
		for _, node := range []netip.Addr{r.Node4, second} {
			p := r.peer("tor")
			p.LocalAddress, p.RouterID = node, node
			s := newSpeaker(t, p)
			s.Set(vip4, to(route.Attributes{}, "tor"))
		}
		r.inKernel(vip4, fmt.Sprintf("via %v ", r.Node4), fmt.Sprintf("via %v ", second))
	})
}

// Two nodes announce the same address with different link bandwidths. FRR sets the weights in its kernel accordingly; BIRD
// passes the bandwidths on.
func TestLinkBandwidthWeighsThePaths(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		second := r.Address("198.18.%d.9")
		r.OnNode("ip addr add %v/24 dev %s", second, r.Port)
		r.Config.MaximumPaths = 8
		r.Config.Neighbors = append(r.Config.Neighbors, router.Neighbor{Address: second, ASN: rack.NodeASN})
		r.Start()
		var speakers []*speaker
		for _, node := range []netip.Addr{r.Node4, second} {
			p := r.peer("tor")
			p.LocalAddress, p.RouterID = node, node
			speakers = append(speakers, newSpeaker(t, p))
		}
		weigh := func(megabits ...float32) {
			var want []router.Route
			for i, node := range []netip.Addr{r.Node4, second} {
				speakers[i].Set(vip4, to(route.Attributes{Bandwidth: 125_000 * megabits[i]}, "tor"))
				want = append(want, router.Route{
					NextHops: []netip.Addr{node}, ExtendedCommunities: []string{fmt.Sprintf("lb:64512:%.0f", 125_000*megabits[i])},
				})
			}
			rack.Eventually(t, func() error {
				got, err := r.Router.Routes(t.Context())
				if err != nil {
					return err
				}
				for _, w := range want {
					if !slices.ContainsFunc(got, func(g router.Route) bool {
						return slices.Equal(g.NextHops, w.NextHops) && slices.Equal(g.ExtendedCommunities, w.ExtendedCommunities)
					}) {
						return fmt.Errorf("no %+v in %+v", w, got)
					}
				}
				return nil
			})
		}
		// kernel waits until the next hops have these weights, in percent.
		kernel := func(weights ...int) {
			if kind != rack.FRR {
				return
			}
			r.inKernel(vip4, fmt.Sprintf("via %v dev eth0 weight %d ", r.Node4, weights[0]), fmt.Sprintf("via %v dev eth0 weight %d ", second, weights[1]))
		}
		weigh(1, 3)
		kernel(25, 75)
		weigh(1, 1)
		kernel(50, 50)
	})
}

func TestTenThousandPrefixes(t *testing.T) {
	rack.EachAlone(t, func(t *testing.T, kind router.Kind) {
		const count = 10_000
		r := newBench(t, kind)
		r.Start()
		s := newSpeaker(t, r.peer("tor"))
		s.up("tor")
		all := func(a map[string]route.Attributes) {
			for _, prefix := range vips(count) {
				s.Set(prefix, a)
			}
		}
		all(to(decorated, "tor"))
		rack.Eventually(t, func() error { return r.counts(count) })
		s.counted("tor", count, 0, 0, 0)
		all(nil)
		rack.Eventually(t, func() error { return r.counts(0) })
	})
}
