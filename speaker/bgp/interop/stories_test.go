package interop

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/e2e/lab/router"
	"github.com/heraldlb/herald/speaker/bgp"
)

var (
	vip4 = netip.MustParsePrefix("198.51.100.1/32")
	vip6 = netip.MustParsePrefix("2001:db8:ffff::1/128")
)

var decorated = bgp.Attributes{
	Communities:      []bgp.Community{bgp.NoExport, nodeASN<<16 | 100},
	LargeCommunities: []bgp.LargeCommunity{{Global: 4200000000, Local1: 1, Local2: 2}},
	// rt:64512:100 and soo:4200000000:7
	ExtendedCommunities: []bgp.ExtendedCommunity{0x0002_FC00_0000_0064, 0x0203_FA56_EA00_0007},
	MED:                 new(uint32(50)),
	LocalPref:           new(uint32(250)),
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
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		r.start()
		s := newSpeaker(t, r.peer("tor"))
		s.Set(vip4, to(bgp.Attributes{}, "tor"))
		s.Set(vip6, to(bgp.Attributes{}, "tor"))
		r.hears(r.plain(vip4), r.plain(vip6))
		first := s.up("tor")
		if first.Advertised4 != 1 || first.Advertised6 != 1 || first.Withheld != 0 {
			t.Errorf("session %+v, want one prefix of each family advertised", first)
		}

		s.Set(vip4, to(decorated, "tor"))
		want := decorate(r.plain(vip4))
		want.ASPath = []uint32{nodeASN, nodeASN, nodeASN}
		r.hears(want, r.plain(vip6))

		s.Set(vip4, to(bgp.Attributes{}, "tor"))
		r.hears(r.plain(vip4), r.plain(vip6))

		s.Set(vip4, nil)
		r.hears(r.plain(vip6))
		s.Set(vip6, nil)
		r.hears()
		s.undisturbed(first)
	})
}

// Every well-known name is the community that routers know by it.
func TestWellKnownCommunities(t *testing.T) {
	names := map[string]string{
		"graceful-shutdown": "65535:0", "accept-own": "65535:1", "no-llgr": "65535:7", "blackhole": "65535:666",
		"no-export": "65535:65281", "no-advertise": "65535:65282", "no-export-subconfed": "65535:65283", "no-peer": "65535:65284",
	}
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		r.start()
		s := newSpeaker(t, r.peer("tor"))
		prefix := vip4
		var want []router.Route
		for _, name := range slices.Sorted(maps.Keys(names)) {
			var a bgp.Attributes
			r.must(a.AddCommunities(name))
			s.Set(prefix, to(a, "tor"))
			route := r.plain(prefix)
			route.Communities = []string{names[name]}
			if name == "blackhole" && kind.name == "FRR" { // It adds no-export to it, as RFC 7999 §3.2 advises.
				route.Communities = []string{names["no-export"], names[name]}
			}
			want = append(want, route)
			prefix = netip.PrefixFrom(prefix.Addr().Next(), 32)
		}
		r.hears(want...)
	})
}

func TestInternalPeerHearsLocalPreferenceAndNoPrepending(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		r.config.ASN = nodeASN
		r.start()
		s := newSpeaker(t, r.peer("tor"))
		s.Set(vip4, to(decorated, "tor"))
		want := decorate(r.plain(vip4))
		want.ASPath, want.LocalPref = nil, new(uint32(250))
		r.hears(want)
	})
}

func TestSessionOverIPv6(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		r.config.Neighbors[0].Address = r.node6
		r.start()
		p := r.peer("tor")
		p.Address, p.NextHop6, p.NextHop4 = r.router6, netip.Addr{}, r.node4
		s := newSpeaker(t, p)
		s.Set(vip4, to(bgp.Attributes{}, "tor"))
		s.Set(vip6, to(decorated, "tor"))
		want := decorate(r.plain(vip6))
		want.ASPath = []uint32{nodeASN, nodeASN, nodeASN}
		r.hears(r.plain(vip4), want)
	})
}

func TestSessionOverLinkLocalAddresses(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		node, far := netip.MustParseAddr("fe80::a"), netip.MustParseAddr("fe80::b")
		r.must((enclave.Host{}).Script("ip addr add %v/64 dev %s", node, r.port))
		r.must(r.host.Script("ip addr add %v/64 dev eth0", far))
		r.config.Neighbors[0].Address = node.WithZone("eth0")
		r.config.Neighbors[0].Password = "secret"
		r.start()
		p := r.peer("tor")
		p.Address, p.LocalAddress, p.NextHop4 = far.WithZone(r.port), node.WithZone(r.port), r.node4
		p.Password = "secret"
		s := newSpeaker(t, p)
		s.Set(vip4, to(bgp.Attributes{}, "tor"))
		s.Set(vip6, to(bgp.Attributes{}, "tor"))
		r.hears(r.plain(vip4), r.plain(vip6))
	})
}

func TestPrefixWithoutNextHopIsWithheldAndSaysSo(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		r.config.Neighbors[0].IPv4Only = true
		r.start()
		p := r.peer("tor")
		p.NextHop6 = netip.Addr{}
		s := newSpeaker(t, p)
		s.Set(vip4, to(bgp.Attributes{}, "tor"))
		s.Set(vip6, to(bgp.Attributes{}, "tor"))
		r.hears(r.plain(vip4))
		withheld := func(reason string) func() error {
			return func() error {
				got := s.session("tor")
				if got.Withheld != 1 || got.Advertised6 != 0 || !strings.Contains(got.WithheldReason, reason) {
					return fmt.Errorf("session %+v, want one prefix withheld because of %q", got, reason)
				}
				return nil
			}
		}
		eventually(t, withheld("this node has no IPv6 address"))
		s.peers(r.peer("tor")) // which has one; but the router still does not speak IPv6
		s.up("tor")
		eventually(t, withheld("the router does not speak IPv6 unicast"))
	})
}

func TestPeersHearDifferentThingsAndDoNotDisturbEachOther(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		a, b := newRack(t, kind), newRack(t, kind)
		a.start()
		b.start()
		s := newSpeaker(t, a.peer("a"), b.peer("b"))
		other := netip.MustParsePrefix("198.51.100.2/32")
		s.Set(vip4, to(bgp.Attributes{}, "a"))
		s.Set(other, map[string]bgp.Attributes{"a": {MED: new(uint32(1))}, "b": {MED: new(uint32(2))}})
		med := func(r router.Route, med uint32) router.Route { r.MED = &med; return r }
		a.hears(a.plain(vip4), med(a.plain(other), 1))
		b.hears(med(b.plain(other), 2))
		upA, upB := s.up("a"), s.up("b")

		// The same again, in another order, is nothing.
		s.peers(b.peer("b"), a.peer("a"))
		s.Set(vip4, to(bgp.Attributes{}, "a"))
		s.Set(vip4, to(bgp.Attributes{}, "b"))
		a.hears(med(a.plain(other), 1))
		b.hears(b.plain(vip4), med(b.plain(other), 2))
		s.undisturbed(upA)
		s.undisturbed(upB)

		// A new peer's session starts with all its routes; a changed one is replaced; one that is
		// not valid concerns nobody else.
		changed := a.peer("a")
		changed.HoldTime = 30 * time.Second
		faults := s.SetPeers([]bgp.Peer{changed, b.peer("b"), {Name: "broken"}})
		if len(faults) != 1 || faults["broken"] == nil {
			t.Errorf("faults %v, want one of peer broken", faults)
		}
		eventually(t, func() error {
			if now := s.session("a"); now.State != bgp.Established || now.Since.Equal(upA.Since) {
				return fmt.Errorf("session a is %v since %v", now.State, now.Since)
			}
			return nil
		})
		a.hears(med(a.plain(other), 1))
		s.undisturbed(upB)

		// A removed peer's routes are gone at once.
		s.peers(b.peer("b"))
		if err := within(5*time.Second, func() error { return a.heard() }); err != nil {
			t.Errorf("a removed peer keeps routes: %v", err)
		}
		a.wasTold("de-configured")
		s.undisturbed(upB)
		b.hears(b.plain(vip4), med(b.plain(other), 2))
	})
}

func TestRoutesForAPeerThatAppearsLater(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		r.start()
		s := newSpeaker(t)
		s.Set(vip4, to(bgp.Attributes{}, "tor"))
		s.peers(r.peer("tor"))
		r.hears(r.plain(vip4))
	})
}

func TestPassword(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		right, wrong := newRack(t, kind), newRack(t, kind)
		for _, r := range []*rack{right, wrong} {
			r.config.Neighbors[0].Password = "correct-horse"
			r.start()
		}
		good, bad := right.peer("right"), wrong.peer("wrong")
		good.Password, bad.Password = "correct-horse", "battery-staple"
		s := newSpeaker(t, good, bad)
		s.Set(vip4, to(bgp.Attributes{}, "right", "wrong"))
		right.hears(right.plain(vip4))
		up := s.up("right")
		eventually(t, func() error {
			return s.down("wrong", "no answer: with a password that is set on one side only, or differs")
		})

		bad.Password = ""
		s.peers(good, bad)
		eventually(t, func() error { return s.down("wrong", "it expects a password and none is set here") })

		bad.Password = "correct-horse"
		s.peers(good, bad)
		wrong.hears(wrong.plain(vip4))
		s.undisturbed(up)
	})
}

func (s *speaker) down(name, because string) error {
	if got := s.session(name); got.State == bgp.Established || !strings.Contains(got.Reason, because) {
		return fmt.Errorf("session %s is %v because %q, want %q", name, got.State, got.Reason, because)
	}
	return nil
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
		"nobody answers":                   {peer: func(p *bgp.Peer) { p.Address = p.Address.Next() }, reason: "no answer: "},
	} {
		t.Run(name, func(t *testing.T) {
			withEach(t, func(t *testing.T, kind implementation) {
				r := newRack(t, kind)
				r.start()
				p := r.peer("tor")
				story.peer(&p)
				s := newSpeaker(t, p)
				eventually(t, func() error { return s.down("tor", story.reason) })
				select {
				case <-s.Changed():
				default:
					t.Error("nothing told that the session's reason has changed")
				}
				// It stays while the session is tried again, whatever the router does with a node that it has refused.
				if err := within(5*time.Second, func() error {
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
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		networks := make([]netip.Prefix, 100_000)
		for i := range networks {
			networks[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(10 + i>>16), byte(i >> 8), byte(i), 0}), 24)
		}
		r.config.Networks = networks[:9000]
		r.start()
		s := newSpeaker(t, r.peer("tor"))
		s.Set(vip4, to(bgp.Attributes{}, "tor"))
		first := s.up("tor")
		eventually(t, func() error {
			got, err := r.router.Prefixes(context.Background())
			if err == nil && !slices.Contains(got, vip4) {
				err = fmt.Errorf("%d routes, and ours is not among them", len(got))
			}
			return err
		})
		s.undisturbed(first)

		r.must(r.router.Kill())
		r.config.Networks = networks
		r.start()
		eventually(t, func() error { return s.down("tor", "the router sent more than 10000 routes of a family") })
		r.wasTold("maximum number of prefixes reached")
	})
}

func TestRouterRestarts(t *testing.T) {
	for name, end := range map[string]func(router.Router) error{"in good order": router.Router.Stop, "by a crash": router.Router.Kill} {
		t.Run(name, func(t *testing.T) {
			withEach(t, func(t *testing.T, kind implementation) {
				r := newRack(t, kind)
				r.start()
				s := newSpeaker(t, r.peer("tor"))
				s.Set(vip4, to(bgp.Attributes{}, "tor"))
				r.hears(r.plain(vip4))
				before := s.up("tor")
				r.must(end(r.router))
				eventually(t, func() error { return s.down("tor", "") })
				r.start()
				if err := within(15*time.Second, func() error { return r.heard(r.plain(vip4)) }); err != nil {
					t.Fatal(err)
				}
				if s.up("tor").Since.Equal(before.Since) {
					t.Error("the session did not notice the restart")
				}
			})
		})
	}
}

func TestFourByteASNumbers(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		r.config.ASN, r.config.Neighbors[0].ASN = 4200000001, 4200000002
		r.start()
		p := r.peer("tor")
		p.LocalASN = 4200000002
		s := newSpeaker(t, p)
		s.Set(vip4, to(bgp.Attributes{Prepend: 1}, "tor"))
		want := r.plain(vip4)
		want.ASPath = []uint32{4200000002, 4200000002}
		r.hears(want)
	})
}

func TestStopDropsRoutesAtOnce(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		r.start()
		s := newSpeaker(t, r.peer("tor"))
		s.Set(vip4, to(bgp.Attributes{}, "tor"))
		r.hears(r.plain(vip4))
		s.stop()
		// Nothing is waited for here but the router's own handling; the hold time is 90 s.
		if err := within(2*time.Second, func() error { return r.heard() }); err != nil {
			t.Fatal(err)
		}
		r.wasTold("administrative shutdown")
		r.wasTold("speaker stops") // RFC 9003
		if err := s.down("tor", "closed by this node"); err != nil {
			t.Error(err)
		}
	})
}

func TestGracefulRestartKeepsRoutes(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		r.start()
		p := r.peer("tor")
		p.GracefulRestart = &bgp.GracefulRestart{RestartTime: time.Minute}
		s := newSpeaker(t, p)
		s.Set(vip4, to(bgp.Attributes{}, "tor"))
		s.Set(vip6, to(bgp.Attributes{}, "tor"))
		r.hears(r.plain(vip4), r.plain(vip6))
		s.end(bgp.ErrRestart)

		// A successor that announces one of them still: the router must not miss that one for a
		// moment, and must drop the other.
		stays := func() error {
			got, err := r.router.Routes(context.Background())
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
		next.Set(vip4, to(bgp.Attributes{}, "tor"))
		next.peers(p)
		next.run()
		eventually(t, func() error {
			if err := stays(); err != nil {
				return err
			}
			return r.heard(r.plain(vip4))
		})
		// It is gone at once when the peer is removed.
		next.up("tor")
		next.peers()
		if err := within(2*time.Second, func() error { return r.heard() }); err != nil {
			t.Fatal(err)
		}
	})
}

func TestMultihop(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		loopback := netip.MustParseAddr(fmt.Sprintf("198.19.%d.1", r.router4.As4()[2]))
		r.must(r.host.Script("ip addr add %v/32 dev lo", loopback))
		// In between is a machine of its own, so that a TTL of one does not arrive.
		between, err := enclave.NewHost("between-" + r.port)
		r.must(err)
		t.Cleanup(func() { _ = between.Remove() })
		r.must(enclave.Connect(enclave.Host{}, "b"+r.port, between, "near"))
		r.must(enclave.Connect(between, "far", r.host, "eth1"))
		third := r.router4.As4()[2]
		r.must((enclave.Host{}).Script("ip addr add 198.19.%[1]d.10/31 dev b%[2]s; ip route add %[3]v via 198.19.%[1]d.11", third, r.port, loopback))
		r.must(between.Script("sysctl -qw net.ipv4.ip_forward=1; ip addr add 198.19.%[1]d.11/31 dev near; ip addr add 198.19.%[1]d.20/31 dev far; ip route add %[2]v via 198.19.%[1]d.21", third, loopback))
		r.must(r.host.Script("ip addr add 198.19.%[1]d.21/31 dev eth1; ip route add 198.19.%[1]d.10 via 198.19.%[1]d.20", third))
		node := netip.MustParseAddr(fmt.Sprintf("198.19.%d.10", third))
		r.config.Neighbors = []router.Neighbor{{Address: node, ASN: nodeASN, MultihopTTL: 4, Source: loopback, IPv4Only: true}}
		r.start()
		p := r.peer("far")
		p.Address, p.NextHop4 = loopback, r.node4
		s := newSpeaker(t, p)
		s.Set(vip4, to(bgp.Attributes{}, "far"))
		eventually(t, func() error { return s.down("far", "no ") }) // no answer or no route: the TTL has run out
		p.MultihopTTL = 4
		s.peers(p)
		r.hears(r.plain(vip4))
	})
}

func TestTTLSecurity(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		r.config.Neighbors[0].TTLSecurity = 1
		r.start()
		p := r.peer("tor")
		p.TTLSecurity = 1
		s := newSpeaker(t, p)
		s.Set(vip4, to(bgp.Attributes{}, "tor"))
		r.hears(r.plain(vip4))
	})
}

// The devices would be VRFs in a rack; for the sessions it is the same.
func TestSameRouterAddressBehindTwoDevices(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		number := racks.Add(1)
		red, blue := newRackAt(t, kind, number, "red"), newRackAt(t, kind, number, "blue")
		var peers []bgp.Peer
		for name, r := range map[string]*rack{"red": red, "blue": blue} {
			r.config.Neighbors[0].Password = name
			r.start()
			p := r.peer(name)
			p.Interface, p.Password = r.port, name
			peers = append(peers, p)
		}
		s := newSpeaker(t, peers...)
		s.Set(vip4, to(bgp.Attributes{}, "red"))
		s.Set(vip6, to(bgp.Attributes{}, "blue"))
		red.hears(red.plain(vip4))
		blue.hears(blue.plain(vip6))
	})
}

func TestDynamicNeighborRangeWithPassword(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		r.config.Neighbors[0] = router.Neighbor{Range: netip.PrefixFrom(r.node4, 24).Masked(), ASN: nodeASN, Password: "secret"}
		r.start()
		p := r.peer("tor")
		p.Password = "secret"
		s := newSpeaker(t, p)
		s.Set(vip4, to(bgp.Attributes{}, "tor"))
		r.hears(r.plain(vip4))
	})
}

// Two nodes announce one address, and the router's kernel gets a next hop for each of them.
func TestEqualCostPathsReachTheKernel(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		second := netip.AddrFrom4([4]byte{198, 18, r.node4.As4()[2], 9})
		r.must((enclave.Host{}).Script("ip addr add %v/24 dev %s", second, r.port))
		r.config.MaximumPaths = 8
		r.config.Neighbors = append(r.config.Neighbors, router.Neighbor{Address: second, ASN: nodeASN})
		r.start()
		for _, node := range []netip.Addr{r.node4, second} {
			p := r.peer("tor")
			p.LocalAddress, p.RouterID = node, node
			s := newSpeaker(t, p)
			s.Set(vip4, to(bgp.Attributes{}, "tor"))
		}
		eventually(t, func() error {
			out, err := r.host.Command(t.Context(), "ip", "route", "show", vip4.Addr().String()).CombinedOutput()
			for _, node := range []netip.Addr{r.node4, second} {
				if err == nil && !strings.Contains(string(out), "via "+node.String()+" ") {
					err = fmt.Errorf("no next hop %v in %q", node, out)
				}
			}
			return err
		})
	})
}

// Two nodes announce one address with other bandwidths. FRR has its kernel send them their shares; BIRD passes it on.
func TestLinkBandwidthWeighsThePaths(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		second := netip.AddrFrom4([4]byte{198, 18, r.node4.As4()[2], 9})
		r.must((enclave.Host{}).Script("ip addr add %v/24 dev %s", second, r.port))
		r.config.MaximumPaths = 8
		r.config.Neighbors = append(r.config.Neighbors, router.Neighbor{Address: second, ASN: nodeASN})
		r.start()
		var speakers []*speaker
		for _, node := range []netip.Addr{r.node4, second} {
			p := r.peer("tor")
			p.LocalAddress, p.RouterID = node, node
			speakers = append(speakers, newSpeaker(t, p))
		}
		weigh := func(megabits ...float32) {
			var want []router.Route
			for i, node := range []netip.Addr{r.node4, second} {
				speakers[i].Set(vip4, to(bgp.Attributes{Bandwidth: 125_000 * megabits[i]}, "tor"))
				want = append(want, router.Route{
					NextHops: []netip.Addr{node}, ExtendedCommunities: []string{fmt.Sprintf("lb:64512:%.0f", 125_000*megabits[i])},
				})
			}
			eventually(t, func() error {
				got, err := r.router.Routes(t.Context())
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
		// kernel waits for the weights of the next hops, in per cent.
		kernel := func(weights ...int) {
			if kind.name != "FRR" {
				return
			}
			eventually(t, func() error {
				out, err := r.host.Command(t.Context(), "ip", "route", "show", vip4.Addr().String()).CombinedOutput()
				for i, node := range []netip.Addr{r.node4, second} {
					if want := fmt.Sprintf("via %v dev eth0 weight %d ", node, weights[i]); err == nil && !strings.Contains(string(out), want) {
						err = fmt.Errorf("no %q in %q", want, out)
					}
				}
				return err
			})
		}
		weigh(1, 3)
		kernel(25, 75)
		weigh(1, 1)
		kernel(50, 50)
	})
}

func TestTenThousandPrefixes(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		const count = 10_000
		r := newRack(t, kind)
		r.start()
		s := newSpeaker(t, r.peer("tor"))
		s.up("tor")
		all := func(a map[string]bgp.Attributes) {
			for i := range uint32(count) {
				var address [4]byte
				binary.BigEndian.PutUint32(address[:], 198<<24|19<<16|i)
				s.Set(netip.PrefixFrom(netip.AddrFrom4(address), 32), a)
			}
		}
		has := func(want int) error {
			got, err := r.router.Prefixes(context.Background())
			if err != nil {
				return err
			}
			if len(got) != want {
				return fmt.Errorf("%d routes, want %d", len(got), want)
			}
			return nil
		}
		all(to(decorated, "tor"))
		eventually(t, func() error { return has(count) })
		if got := s.session("tor").Advertised4; got != count {
			t.Errorf("%d advertised, want %d", got, count)
		}
		all(nil)
		eventually(t, func() error { return has(0) })
	})
}
