package announce

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bgp/route"
)

func TestWhoAnnouncesToRouters(t *testing.T) {
	tor := []string{"tor"}
	everywhere := map[string][]string{first: tor, second: tor, third: tor}
	for _, story := range []struct {
		name      string
		selection herald.Selection
		change    func(*Shared, *Address)
		want      map[string][]string
	}{
		{"every node", herald.Selection{}, func(*Shared, *Address) {}, everywhere},
		{"an endpoint anywhere is enough", herald.Selection{}, func(_ *Shared, a *Address) { readyOn(a, third) }, everywhere},
		{"policy Local: the nodes with an endpoint", herald.Selection{}, func(_ *Shared, a *Address) {
			a.Services[0].Local = true
			readyOn(a, first, third)
		}, map[string][]string{first: tor, third: tor}},
		{"no ready endpoint", herald.Selection{}, func(_ *Shared, a *Address) { readyOn(a) }, map[string][]string{}},
		{"no ready endpoint, Announce", herald.Selection{}, func(s *Shared, a *Address) {
			readyOn(a)
			s.BGP[0].WithoutEndpoints = true
		}, everywhere},
		{"no ready endpoint, policy Local, Announce", herald.Selection{NodeSelector: matching("node", second)}, func(s *Shared, a *Address) {
			a.Services[0].Local = true
			readyOn(a)
			s.BGP[0].WithoutEndpoints = true
		}, map[string][]string{second: tor}},
		{"no ready endpoint, a sticky Service, Announce", herald.Selection{}, func(s *Shared, a *Address) {
			a.Services[0].Sticky = true
			readyOn(a)
			s.BGP[0].WithoutEndpoints = true
		}, map[string][]string{first: tor}},
		{"Announce changes nothing for an address with an endpoint", herald.Selection{}, func(s *Shared, a *Address) {
			a.Services[0].Local = true
			readyOn(a, third)
			s.BGP[0].WithoutEndpoints = true
		}, map[string][]string{third: tor}},
		{"not an excluded node", herald.Selection{}, func(s *Shared, _ *Address) {
			editNode(s, first, func(n *Node) { n.Excluded = true })
		}, map[string][]string{second: tor, third: tor}},
		{"no endpoint of the family", herald.Selection{}, func(_ *Shared, a *Address) { a.Services[0].Ready4 = nil }, map[string][]string{}},
		{"not where kube-proxy does not serve", herald.Selection{}, func(s *Shared, _ *Address) { s.Healthy = false }, map[string][]string{}},
		{"a node that is not Ready: its session is its sign of life", herald.Selection{}, func(s *Shared, _ *Address) {
			editNode(s, first, func(n *Node) { n.Ready = false })
		}, everywhere},
		{"a node that leaves, and its advertisement does not drain", herald.Selection{}, func(s *Shared, _ *Address) { s.Draining = new(time.Duration(0)) }, map[string][]string{}},
		{"nodes that leave, while they drain", herald.Selection{}, func(s *Shared, _ *Address) {
			s.Draining, s.BGP[0].DrainTime, s.Healthy = new(4*time.Second), 5*time.Second, false
			editNode(s, first, func(n *Node) { n.Excluded = true })
		}, everywhere},
		{"nodes that leave, when they have drained", herald.Selection{}, func(s *Shared, _ *Address) {
			s.Draining, s.BGP[0].DrainTime = new(5*time.Second), 5*time.Second
		}, map[string][]string{}},
		{"a subnet is not asked for", herald.Selection{}, func(s *Shared, _ *Address) {
			s.Segments = nil
		}, everywhere},
		{"pool by name", herald.Selection{Pools: []string{"public"}}, func(*Shared, *Address) {}, everywhere},
		{"another pool", herald.Selection{Pools: []string{"internal"}}, func(*Shared, *Address) {}, map[string][]string{}},
		{"other Services", herald.Selection{ServiceSelector: matching("app", "mail")}, func(*Shared, *Address) {}, map[string][]string{}},
		{"other namespaces", herald.Selection{NamespaceSelector: matching("team", "mail")}, func(*Shared, *Address) {}, map[string][]string{}},
		{"nodes by their labels", herald.Selection{NodeSelector: matching("node", second)}, func(*Shared, *Address) {}, map[string][]string{second: tor}},
		{"an advertisement without peers", herald.Selection{}, func(s *Shared, _ *Address) { s.BGP[0].Peers = nil }, map[string][]string{}},
		{"a sticky Service: one node", herald.Selection{}, func(_ *Shared, a *Address) { a.Services[0].Sticky = true }, map[string][]string{first: tor}},
		{"a sticky Service: one of those with an endpoint", herald.Selection{}, func(_ *Shared, a *Address) {
			a.Services[0].Sticky, a.Services[0].Local = true, true
			readyOn(a, second, third)
		}, map[string][]string{second: tor}},
		{"a sticky Service: one that has not only just become ready", herald.Selection{}, func(_ *Shared, a *Address) {
			a.Services[0].Sticky, a.Services[0].Local, a.Behind = true, true, []string{first}
			readyOn(a, first, third)
		}, map[string][]string{third: tor}},
		{"a sticky Service: unless all have", herald.Selection{}, func(_ *Shared, a *Address) {
			a.Services[0].Sticky, a.Services[0].Local, a.Behind = true, true, []string{first, third}
			readyOn(a, first, third)
		}, map[string][]string{first: tor}},
		{"a sticky Service: one that is Ready", herald.Selection{}, func(s *Shared, a *Address) {
			a.Services[0].Sticky = true
			editNode(s, first, func(n *Node) { n.Ready = false })
		}, map[string][]string{second: tor}},
		{"a sticky Service: any if none is Ready", herald.Selection{}, func(s *Shared, a *Address) {
			a.Services[0].Sticky = true
			for name := range s.Nodes {
				editNode(s, name, func(n *Node) { n.Ready = false })
			}
		}, map[string][]string{first: tor}},
		{"a sticky Service: one that is selected", herald.Selection{NodeSelector: matching("node", third)}, func(_ *Shared, a *Address) {
			a.Services[0].Sticky = true
		}, map[string][]string{third: tor}},
		{"for several Services: the nodes that have endpoints of any", herald.Selection{}, func(_ *Shared, a *Address) {
			joinedBy(a, []string{first}, []string{first, third})
		}, map[string][]string{first: tor, third: tor}},
		{"for several Services: those that are selected", herald.Selection{ServiceSelector: matching("app", "mail")}, func(_ *Shared, a *Address) {
			joinedBy(a, []string{first}, []string{third})
		}, map[string][]string{third: tor}},
		{"for several Services, one of them sticky: a node that serves most of them", herald.Selection{}, func(_ *Shared, a *Address) {
			joinedBy(a, []string{first, second}, []string{second, third})
			a.Services[1].Sticky = true
		}, map[string][]string{second: tor}},
		{"a peer of some nodes", herald.Selection{}, func(s *Shared, _ *Address) {
			s.PeerNodes = map[string]labels.Selector{"tor": labels.SelectorFromSet(labels.Set{"node": third})}
		}, map[string][]string{third: tor}},
		{"a sticky Service: one that holds a session", herald.Selection{}, func(s *Shared, a *Address) {
			a.Services[0].Sticky = true
			s.PeerNodes = map[string]labels.Selector{"tor": labels.SelectorFromSet(labels.Set{"node": third})}
		}, map[string][]string{third: tor}},
	} {
		t.Run(story.name, func(t *testing.T) {
			s, a := cluster()
			s.BGP = []BGPAdvertisement{{Name: "some", Selector: compile(t, story.selection), Peers: tor}}
			story.change(s, a)
			if diff := gocmp.Diff(story.want, announcers(s, a)); diff != "" {
				t.Errorf("peers by node (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAttributesAreThePeersOwnAndTheFirstByNameDecides(t *testing.T) {
	s, a := cluster()
	high, low := route.Attributes{LocalPreference: new(uint32(200))}, route.Attributes{LocalPreference: new(uint32(50))}
	s.BGP = []BGPAdvertisement{
		{Name: "a", Selector: compile(t, herald.Selection{Pools: []string{"internal"}}), Peers: []string{"east", "west"}},
		{Name: "b", Selector: compile(t, herald.Selection{}), Peers: []string{"east"}, Attributes: high},
		{Name: "c", Selector: compile(t, herald.Selection{}), Peers: []string{"east", "west"}, Attributes: low},
	}
	want := map[string]route.Attributes{"east": high, "west": low}
	if diff := gocmp.Diff(want, Decide(on(second, s), a).Exports); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Different advertisements may select the Services that share an address. The order of the Services does not determine which
// advertisement gives the attributes.
func TestAttributesOfWhatIsSharedAreThoseOfTheFirstByName(t *testing.T) {
	s, a := cluster()
	joinedBy(a, []string{first, second}, []string{second, third})
	high, low := route.Attributes{LocalPreference: new(uint32(200))}, route.Attributes{LocalPreference: new(uint32(50))}
	s.BGP = []BGPAdvertisement{
		{Name: "a", Selector: compile(t, herald.Selection{ServiceSelector: matching("app", "mail")}), Peers: []string{"tor"}, Attributes: high},
		{Name: "b", Selector: compile(t, herald.Selection{ServiceSelector: matching("app", "web")}), Peers: []string{"tor"}, Attributes: low},
	}
	for node, want := range map[string]route.Attributes{first: low, second: high, third: high} {
		if got := Decide(on(node, s), a).Exports["tor"]; !got.Equal(want) {
			t.Errorf("%s announces it with %+v, want %+v", node, got, want)
		}
	}
}

func TestWhatIsAnnouncedInPlaceOfAnAddress(t *testing.T) {
	const alone = "198.51.100.7/32"
	pool := func(exclude ...herald.AddressRange) func(*Shared, *Address) {
		return func(s *Shared, _ *Address) {
			s.Pools["public"] = poolWith(herald.IPPoolSpec{Addresses: []herald.AddressRange{"198.51.100.0/25"}, Exclude: exclude})
		}
	}
	for _, story := range []struct {
		name   string
		length int
		change func(*Shared, *Address)
		want   string
	}{
		{"the address", 0, func(*Shared, *Address) {}, alone},
		{"its network", 26, func(*Shared, *Address) {}, "198.51.100.0/26"},
		{"all of the pool", 25, func(*Shared, *Address) {}, "198.51.100.0/25"},
		{"not beyond the pool", 24, func(*Shared, *Address) {}, alone},
		{"a network of one", 32, func(*Shared, *Address) {}, alone},
		{"not what the pool excludes", 26, pool("198.51.100.60-198.51.100.62"), alone},
		{"a network beside what the pool excludes", 26, pool("198.51.100.64"), "198.51.100.0/26"},
		{"not if what the pool excludes cannot be read", 26, pool("garbage"), alone},
		{"not an address of a node", 26, func(s *Shared, _ *Address) {
			s.Infrastructure = map[netip.Addr]string{netip.MustParseAddr("198.51.100.63"): "an address of node n1"}
		}, alone},
		{"a network beside an address of a node", 26, func(s *Shared, _ *Address) {
			s.Infrastructure = map[netip.Addr]string{netip.MustParseAddr("198.51.100.64"): "an address of node n1"}
		}, "198.51.100.0/26"},
		{"not with policy Local", 26, func(_ *Shared, a *Address) { a.Services[0].Local = true }, alone},
		{"not of a sticky Service", 26, func(_ *Shared, a *Address) { a.Services[0].Sticky = true }, alone},
		{"no ready endpoint", 26, func(_ *Shared, a *Address) { readyOn(a) }, ""},
		{"of a pool that is gone", 26, func(s *Shared, _ *Address) { delete(s.Pools, "public") }, alone},
	} {
		t.Run(story.name, func(t *testing.T) {
			s, a := cluster()
			s.BGP = []BGPAdvertisement{{Name: "some", Selector: compile(t, herald.Selection{}), Peers: []string{"tor"}, Length4: story.length, Length6: 64}}
			pool()(s, a)
			story.change(s, a)
			d := Decide(on(first, s), a)
			var got []string
			if len(d.Exports) > 0 {
				got = append(got, alone)
			}
			for _, network := range d.Aggregates {
				got = append(got, network.Prefix.String())
			}
			if strings.Join(got, " ") != story.want {
				t.Errorf("announced is %v, want %s", got, story.want)
			}
		})
	}
}

// A router may get both the addresses, for its own use, and the network, to pass on to others.
func TestANetworkAndTheAddressesInItGoToOnePeer(t *testing.T) {
	s, a := cluster()
	s.Pools["public"] = poolWith(herald.IPPoolSpec{Addresses: []herald.AddressRange{"198.51.100.0/24"}})
	near := route.Attributes{Communities: []route.Community{route.NoAdvertise}}
	s.BGP = []BGPAdvertisement{
		{Name: "a", Selector: compile(t, herald.Selection{}), Peers: []string{"tor"}, Length4: 24},
		{Name: "b", Selector: compile(t, herald.Selection{}), Peers: []string{"tor"}, Attributes: near},
	}
	d := Decide(on(second, s), a)
	if diff := gocmp.Diff(map[string]route.Attributes{"tor": near}, d.Exports); diff != "" {
		t.Errorf("the address (-want +got):\n%s", diff)
	}
	if want := []Aggregate{{netip.MustParsePrefix("198.51.100.0/24"), "tor", "a"}}; !slices.Equal(d.Aggregates, want) {
		t.Errorf("networks %v, want %v", d.Aggregates, want)
	}
}

func TestANodeThatTheClusterDoesNotKnowAnnouncesNothing(t *testing.T) {
	s, a := cluster()
	s.BGP = []BGPAdvertisement{{Name: "all", Selector: compile(t, herald.Selection{}), Peers: []string{"tor"}}}
	if d := Decide(on("stranger", s), a); len(d.Exports) > 0 {
		t.Errorf("it announces %+v", d)
	}
}

// owner returns the node with the highest rank.
func owner(address netip.Addr, names []string) string {
	return slices.MaxFunc(names, func(x, y string) int {
		if Rank(address, x) < Rank(address, y) {
			return -1
		}
		return 1
	})
}

func TestStickyAddressesSpreadOverTheNodes(t *testing.T) {
	const addresses, tolerance = 1000, 0.3
	for nodes := 3; nodes <= 10; nodes++ {
		var names []string
		for i := range nodes {
			names = append(names, fmt.Sprintf("worker-%d", i))
		}
		owned, address := map[string]int{}, netip.MustParseAddr("198.18.0.0")
		for range addresses {
			owned[owner(address, names)]++
			address = address.Next()
		}
		mean := float64(addresses) / float64(nodes)
		for _, name := range names {
			if n := float64(owned[name]); n < mean*(1-tolerance) || n > mean*(1+tolerance) {
				t.Errorf("of %d nodes %s owns %v of %d addresses, want %.0f ± 30 %%", nodes, name, n, addresses, mean)
			}
		}
	}
}

// When a node goes, each remaining node gets its share of the node's addresses.
func TestWhatANodeHadSpreadsOverTheOthers(t *testing.T) {
	names := []string{"worker-0", "worker-1", "worker-2", "worker-3", "worker-4"}
	taken, orphans, address := map[string]int{}, 0, netip.MustParseAddr("198.18.0.0")
	for range 1000 {
		if owner(address, names) == names[2] {
			orphans++
			taken[owner(address, slices.Concat(names[:2], names[3:]))]++
		}
		address = address.Next()
	}
	for _, name := range slices.Concat(names[:2], names[3:]) {
		if n := taken[name]; n < orphans/8 { // The fair share is a quarter; this is half of it.
			t.Errorf("%s takes %d of %d", name, n, orphans)
		}
	}
}

func TestTheLinkBandwidthIsThatOfTheReadyEndpoints(t *testing.T) {
	for _, story := range []struct {
		name   string
		change func(*Shared, *Address)
		want   float32
	}{
		{"three endpoints", func(*Shared, *Address) {}, 375_000},
		{"another node", func(s *Shared, _ *Address) { s.Self = second }, 125_000},
		{"not asked for", func(s *Shared, _ *Address) { s.BGP[0].Weighted = false }, 0},
		{"policy Cluster", func(_ *Shared, a *Address) { a.Services[0].Local, a.Services[0].Count4 = false, nil }, 0},
		{"for several Services: the endpoints of all", func(_ *Shared, a *Address) {
			joinedBy(a, []string{first}, []string{first, second})
			a.Services[0].Count4, a.Services[1].Count4 = map[string]int{first: 3}, map[string]int{first: 2, second: 1}
		}, 625_000},
		{"for several Services: those that are selected", func(s *Shared, a *Address) {
			joinedBy(a, []string{first}, []string{first, second})
			a.Services[0].Count4, a.Services[1].Count4 = map[string]int{first: 3}, map[string]int{first: 2, second: 1}
			s.BGP[0].Selector = compile(t, herald.Selection{ServiceSelector: matching("app", "mail")})
		}, 250_000},
		{"no ready endpoint anywhere, Announce", func(s *Shared, a *Address) {
			readyOn(a)
			a.Services[0].Count4, s.BGP[0].WithoutEndpoints = nil, true
		}, 0},
	} {
		s, a := cluster()
		s = on(first, s)
		s.BGP = []BGPAdvertisement{{Name: "some", Selector: compile(t, herald.Selection{}), Peers: []string{"tor"}, Weighted: true}}
		readyOn(a, first, second)
		a.Services[0].Local, a.Services[0].Count4 = true, map[string]int{first: 3, second: 1}
		story.change(s, a)
		if got, some := Decide(s, a).Exports["tor"]; !some || got.Bandwidth != story.want {
			t.Errorf("%s: announced %t with %v, want %v", story.name, some, got.Bandwidth, story.want)
		}
	}
}
