package announce

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"k8s.io/apimachinery/pkg/labels"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/segment/ownership"
)

func TestWhoMayOwnAnAddress(t *testing.T) {
	selecting := func(selection herald.Selection, interfaces ...string) func(*testing.T, *Shared, *Address) {
		return func(t *testing.T, s *Shared, _ *Address) {
			s.L2 = []L2Advertisement{{Name: "some", Selector: compile(t, selection), Interfaces: interfaces}}
		}
	}
	with := func(change func(s *Shared, a *Address)) func(*testing.T, *Shared, *Address) {
		return func(t *testing.T, s *Shared, a *Address) {
			s.L2 = []L2Advertisement{{Name: "all", Selector: compile(t, herald.Selection{})}}
			change(s, a)
		}
	}
	exclude := func(s *Shared, names ...string) {
		for _, name := range names {
			editNode(s, name, func(n *Node) { n.Excluded = true })
		}
	}
	notReady := func(s *Shared, names ...string) {
		for _, name := range names {
			editNode(s, name, func(n *Node) { n.Ready = false })
		}
	}
	for _, story := range []struct {
		name   string
		change func(*testing.T, *Shared, *Address)
		want   string
	}{
		// Nodes that can serve the address.
		{"all nodes", with(func(*Shared, *Address) {}), "eth0: n1 n2 n3"},
		{"an endpoint anywhere is enough", with(func(_ *Shared, a *Address) { readyOn(a, "n3") }), "eth0: n1 n2 n3"},
		{"an endpoint on no node, too", with(func(_ *Shared, a *Address) { readyOn(a, "") }), "eth0: n1 n2 n3"},
		{"policy Local: an endpoint on the node", with(func(_ *Shared, a *Address) {
			a.Services[0].Local = true
			readyOn(a, "n1", "n3")
		}), "eth0: n1 n3"},
		{"policy Local: one that has only just become ready comes last", with(func(_ *Shared, a *Address) {
			a.Services[0].Local, a.Fresh = true, []string{"n2"}
			readyOn(a, "n1", "n2", "n3")
		}), "eth0: n1 n2(fresh) n3"},
		{"policy Local: an endpoint on no node", with(func(_ *Shared, a *Address) {
			a.Services[0].Local = true
			readyOn(a, "")
		}), "nobody"},
		{"policy Local: an endpoint of the address's family", with(func(_ *Shared, a *Address) {
			a.Services[0].Local, a.Services[0].Ready4, a.Services[0].Ready6 = true, []string{"n1"}, []string{"n2"}
		}), "eth0: n1"},
		{"the same for IPv6", with(func(_ *Shared, a *Address) {
			a.Addr, a.Services[0].Local, a.Services[0].Ready4, a.Services[0].Ready6 = vip6, true, []string{"n1"}, []string{"n2"}
		}), "eth0: n2"},
		{"no endpoint of the family", with(func(_ *Shared, a *Address) { a.Services[0].Ready4 = nil }), "nobody"},
		{"no ready endpoint", with(func(_ *Shared, a *Address) { readyOn(a) }), "nobody"},
		{"no ready endpoint, policy Local", with(func(_ *Shared, a *Address) {
			a.Services[0].Local = true
			readyOn(a)
		}), "nobody"},
		{"an excluded node does not", with(func(s *Shared, _ *Address) { exclude(s, "n1") }), "eth0: n2 n3"},
		{"all nodes are excluded", with(func(s *Shared, _ *Address) { exclude(s, "n1", "n2", "n3") }), "nobody"},
		{"a node that is not Ready does not", with(func(s *Shared, _ *Address) { notReady(s, "n2") }), "eth0: n1 n3"},
		{"unless no node is", with(func(s *Shared, _ *Address) { notReady(s, "n1", "n2", "n3") }), "eth0: n1 n2 n3"},
		{"or none that has an endpoint", with(func(s *Shared, a *Address) {
			a.Services[0].Local = true
			readyOn(a, "n2")
			notReady(s, "n2")
		}), "eth0: n2"},
		{"or none that is not excluded", with(func(s *Shared, _ *Address) {
			exclude(s, "n1")
			notReady(s, "n2", "n3")
		}), "eth0: n2 n3"},
		{"a node that the API does not have does not", with(func(s *Shared, _ *Address) { delete(s.Nodes, "n2") }), "eth0: n1 n3"},
		{"nor one that is not heard on the segment", with(func(s *Shared, _ *Address) { s.Segments[0].Nodes = s.Segments[0].Nodes[1:] }), "eth0: n2 n3"},
		{"this node's kube-proxy is the segment's affair", with(func(s *Shared, _ *Address) { s.Healthy = false }), "eth0: n1 n2 n3"},

		// Addresses of several Services.
		{"the endpoints of one are enough", with(func(_ *Shared, a *Address) { joinedBy(a, nil, []string{"n3"}) }), "eth0: n3"},
		{"the nodes that serve the most of them", with(func(_ *Shared, a *Address) {
			joinedBy(a, []string{"n1", "n3"}, []string{"n2", "n3"})
		}), "eth0: n3"},
		{"all that serve as many", with(func(_ *Shared, a *Address) { joinedBy(a, []string{"n1"}, []string{"n2"}) }), "eth0: n1 n2"},
		{"a Ready node before one that serves more", with(func(s *Shared, a *Address) {
			joinedBy(a, []string{"n1", "n3"}, []string{"n2", "n3"})
			notReady(s, "n3")
		}), "eth0: n1 n2"},
		{"each on the segments that are for it", func(t *testing.T, s *Shared, a *Address) {
			joinedBy(a, []string{"n1"}, []string{"n2"})
			s.L2 = []L2Advertisement{
				{Name: "a", Selector: compile(t, herald.Selection{ServiceSelector: matching("app", "mail")}), Interfaces: []string{"eth1"}},
				{Name: "b", Selector: compile(t, herald.Selection{ServiceSelector: matching("app", "web")})},
			}
		}, "eth0: n1, eth1: n2"},
		{"two advertisements for one Service count once", func(t *testing.T, s *Shared, a *Address) {
			joinedBy(a, []string{"n1"}, []string{"n2"})
			all := compile(t, herald.Selection{})
			s.L2 = []L2Advertisement{{Name: "a", Selector: all}, {Name: "b", Selector: compile(t, herald.Selection{ServiceSelector: matching("app", "web")})}}
		}, "eth0: n1 n2"},

		// Advertisements.
		{"no advertisement", func(*testing.T, *Shared, *Address) {}, "nobody"},
		{"pool by name", selecting(herald.Selection{Pools: []string{"public"}}), "eth0: n1 n2 n3"},
		{"another pool by name", selecting(herald.Selection{Pools: []string{"internal"}}), "nobody"},
		{"pool by its labels", selecting(herald.Selection{PoolSelector: matching("tier", "front")}), "eth0: n1 n2 n3"},
		{"other labels", selecting(herald.Selection{PoolSelector: matching("tier", "back")}), "nobody"},
		{"by name besides by labels", selecting(herald.Selection{Pools: []string{"public"}, PoolSelector: matching("tier", "back")}), "eth0: n1 n2 n3"},
		{"by labels besides by name", selecting(herald.Selection{Pools: []string{"internal"}, PoolSelector: matching("tier", "front")}), "eth0: n1 n2 n3"},
		{"a pool that is gone has its name still", func(t *testing.T, s *Shared, a *Address) {
			selecting(herald.Selection{Pools: []string{"public"}})(t, s, a)
			delete(s.Pools, "public")
		}, "eth0: n1 n2 n3"},
		{"a pool that is gone has no labels", func(t *testing.T, s *Shared, a *Address) {
			selecting(herald.Selection{PoolSelector: matching("tier", "front")})(t, s, a)
			delete(s.Pools, "public")
		}, "nobody"},
		{"Service by its labels", selecting(herald.Selection{ServiceSelector: matching("app", "web")}), "eth0: n1 n2 n3"},
		{"other Services", selecting(herald.Selection{ServiceSelector: matching("app", "mail")}), "nobody"},
		{"namespace by its labels", selecting(herald.Selection{NamespaceSelector: matching("team", "web")}), "eth0: n1 n2 n3"},
		{"other namespaces", selecting(herald.Selection{NamespaceSelector: matching("team", "mail")}), "nobody"},
		{"node by its labels", selecting(herald.Selection{NodeSelector: matching("node", "n3")}), "eth0: n3"},
		{"no such node", selecting(herald.Selection{NodeSelector: matching("node", "n9")}), "nobody"},
		{"fields narrow each other", selecting(herald.Selection{Pools: []string{"public"}, ServiceSelector: matching("app", "mail")}), "nobody"},
		{"the hundredth advertisement counts", func(t *testing.T, s *Shared, _ *Address) {
			for i := range 99 {
				s.L2 = append(s.L2, L2Advertisement{Name: fmt.Sprintf("a%02d", i), Selector: compile(t, herald.Selection{Pools: []string{"internal"}})})
			}
			s.L2 = append(s.L2, L2Advertisement{Name: "z", Selector: compile(t, herald.Selection{})})
		}, "eth0: n1 n2 n3"},

		// Addresses without endpoints.
		{"no ready endpoint, Announce", with(func(s *Shared, a *Address) {
			readyOn(a)
			s.L2[0].WithoutEndpoints = true
		}), "eth0: n1 n2 n3"},
		{"no ready endpoint, policy Local, Announce", with(func(s *Shared, a *Address) {
			a.Services[0].Local = true
			readyOn(a)
			s.L2[0].WithoutEndpoints = true
		}), "eth0: n1 n2 n3"},
		{"no endpoint of the family, Announce", with(func(s *Shared, a *Address) {
			a.Services[0].Ready4 = nil
			s.L2[0].WithoutEndpoints = true
		}), "eth0: n1 n2 n3"},
		{"Announce changes nothing for an address with an endpoint", with(func(s *Shared, a *Address) {
			joinedBy(a, nil, []string{"n3"})
			s.L2[0].WithoutEndpoints = true
		}), "eth0: n3"},
		{"Announce by one of two advertisements", func(t *testing.T, s *Shared, a *Address) {
			readyOn(a)
			s.L2 = []L2Advertisement{
				{Name: "a", Selector: compile(t, herald.Selection{})},
				{Name: "b", Selector: compile(t, herald.Selection{NodeSelector: matching("node", "n2")}), WithoutEndpoints: true},
			}
		}, "eth0: n2"},
		{"Announce, an excluded node does not", with(func(s *Shared, a *Address) {
			readyOn(a)
			s.L2[0].WithoutEndpoints = true
			exclude(s, "n1")
		}), "eth0: n2 n3"},

		// Addresses that are refused.
		{"the address of a node", with(func(s *Shared, _ *Address) { s.Infrastructure = map[netip.Addr]string{vip: "an address of node n9"} }), "refused: an address of node n9"},
		{"another address is that of a node", with(func(s *Shared, _ *Address) { s.Infrastructure = map[netip.Addr]string{vip6: "an address of node n9"} }), "eth0: n1 n2 n3"},

		// Segments.
		{"the segment with the subnet", selecting(herald.Selection{}), "eth0: n1 n2 n3"},
		{"the segment that is named", selecting(herald.Selection{}, "eth1"), "eth1: n1 n2 n3"},
		{"each one that is named", selecting(herald.Selection{}, "eth1", "eth0"), "eth0: n1 n2 n3, eth1: n1 n2 n3"},
		{"a name that no node has", selecting(herald.Selection{}, "eth9"), "nobody"},
		{"a name is each node's own", func(t *testing.T, s *Shared, a *Address) {
			selecting(herald.Selection{}, "lan0")(t, s, a)
			s.Segments[0].Nodes[1].Interface = "lan0"
		}, "eth0: n2"},
		{"no subnet that fits", with(func(_ *Shared, a *Address) { a.Addr = netip.MustParseAddr("198.18.0.7") }), "nobody"},
		{"only some nodes of the segment have the subnet", with(func(s *Shared, _ *Address) {
			s.Segments[0].Nodes[0] = neighbour("n1", "eth0", "192.0.2.1/24")
		}), "eth0: n2 n3"},
		{"an address with a full prefix length is not a subnet", with(func(s *Shared, _ *Address) {
			s.Segments[0].Nodes[0] = neighbour("n1", "eth0", "198.51.100.7/32")
		}), "eth0: n2 n3"},
		{"two advertisements add up", func(t *testing.T, s *Shared, _ *Address) {
			s.L2 = []L2Advertisement{
				{Name: "a", Selector: compile(t, herald.Selection{NodeSelector: matching("node", "n1")})},
				{Name: "b", Selector: compile(t, herald.Selection{NodeSelector: matching("node", "n2")}), Interfaces: []string{"eth0", "eth1"}},
			}
		}, "eth0: n1 n2, eth1: n2"},
	} {
		t.Run(story.name, func(t *testing.T) {
			s, a := cluster()
			story.change(t, s, a)
			// The candidates do not depend on which node decides.
			for _, self := range []string{"n1", "n3", "stranger"} {
				if got := said(Decide(on(self, s), a)); got != story.want {
					t.Errorf("%s decides %q, want %q", self, got, story.want)
				}
			}
		})
	}
}

func TestHowAnAddressIsOwned(t *testing.T) {
	preferring := func(node string) labels.Selector { return labels.SelectorFromSet(labels.Set{"node": node}) }
	for _, story := range []struct {
		name      string
		change    func(*testing.T, *Shared, *Address)
		preferred string
		want      ownership.Want
	}{
		{"by default", func(*testing.T, *Shared, *Address) {}, "", ownership.Want{Defend: true}},
		{"Yield", func(_ *testing.T, s *Shared, _ *Address) { s.Pools["public"] = Pool{Yield: true} }, "", ownership.Want{}},
		{"a pool that is gone yields nothing", func(_ *testing.T, s *Shared, _ *Address) { delete(s.Pools, "public") }, "", ownership.Want{Defend: true}},
		{"new", func(_ *testing.T, _ *Shared, a *Address) { a.New = true }, "", ownership.Want{Defend: true, New: true}},
		{"preferred", func(_ *testing.T, s *Shared, _ *Address) { s.L2[0].Preferred = preferring("n2") }, "n2", ownership.Want{Defend: true}},
		{"Gradual", func(_ *testing.T, s *Shared, _ *Address) { s.L2[0].Gradual = true }, "", ownership.Want{Defend: true, Gradual: true}},
		{"Gradual by one of two advertisements", func(t *testing.T, s *Shared, _ *Address) {
			s.L2 = append(s.L2, L2Advertisement{Name: "b", Selector: compile(t, herald.Selection{NodeSelector: matching("node", "n2")}), Gradual: true, Preferred: preferring("n2")})
		}, "n2", ownership.Want{Defend: true, Gradual: true}},
		{"Gradual by an advertisement for another segment", func(t *testing.T, s *Shared, _ *Address) {
			s.L2 = append(s.L2, L2Advertisement{Name: "b", Selector: compile(t, herald.Selection{}), Interfaces: []string{"eth9"}, Gradual: true, Preferred: preferring("n2")})
		}, "", ownership.Want{Defend: true}},
		{"Gradual by an advertisement for another Service", func(t *testing.T, s *Shared, _ *Address) {
			s.L2 = append(s.L2, L2Advertisement{Name: "b", Selector: compile(t, herald.Selection{ServiceSelector: matching("app", "mail")}), Gradual: true, Preferred: preferring("n2")})
		}, "", ownership.Want{Defend: true}},
	} {
		t.Run(story.name, func(t *testing.T) {
			s, a := cluster()
			s.L2 = []L2Advertisement{{Name: "a", Selector: compile(t, herald.Selection{})}}
			story.change(t, s, a)
			story.want.Candidates = ownership.NewCandidates([]string{"n1", "n2", "n3"}, func(n string) bool { return n == story.preferred })
			if want, got := []Placement{{Interface: "eth0", Want: story.want}}, Decide(on("n1", s), a).Segments; !reflect.DeepEqual(got, want) {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

// The users of candidates compare them by pointer.
func TestEqualCandidatesAreTheSame(t *testing.T) {
	s, a := cluster()
	s.L2 = []L2Advertisement{{Name: "all", Selector: compile(t, herald.Selection{}), Interfaces: []string{"eth0", "eth1"}}}
	s = on("n1", s)
	of := func(s *Shared, a *Address) *ownership.Candidates { return Decide(s, a).Segments[0].Candidates }
	everywhere := of(s, a)

	other := *a
	other.Addr, other.Services = netip.MustParseAddr("198.51.100.8"), []*Service{{Name: web, Local: true, Ready4: []string{"n1", "n2", "n3"}}}
	if of(s, &other) != everywhere {
		t.Error("two addresses have the same candidates for different reasons, and they are not the same")
	}
	if d := Decide(s, a); d.Segments[0].Candidates != d.Segments[1].Candidates {
		t.Error("on two segments the same candidates are not the same")
	}
	other.Services = []*Service{{Name: web, Local: true, Ready4: []string{"n2"}}}
	one := of(s, &other)

	// Each further snapshot knows the candidates of the one before.
	for range 3 {
		next := on("n1", s)
		next.Follow(s)
		if of(next, a) != everywhere || of(next, &other) != one {
			t.Fatal("after a pass the same candidates are not the same any more")
		}
		s = next
	}
	// Candidates that no address has are forgotten.
	next := on("n1", s)
	next.Follow(s)
	of(next, a)
	if len(next.known) != 1 {
		t.Errorf("%d candidates are remembered, and one is in use", len(next.known))
	}
}

// Neither cached candidates nor unusual names may lead to wrong candidates.
func TestDifferentThingsHaveDifferentKeys(t *testing.T) {
	service := func(local bool, ready ...string) *Service { return &Service{Name: web, Local: local, Ready4: ready} }
	seen := map[string]string{}
	for _, on := range []*Segment{{Interface: "eth0"}, {Interface: "eth0", Nodes: []Neighbour{neighbour("n1", "eth0", "198.51.100.1/24")}}, {Interface: "eth"}} {
		for _, services := range [][]*Service{
			nil, {service(false)}, {service(false, "n1")}, {service(true)}, {service(true, "")}, {service(true, "n1")}, {service(true, "n1", "n2")},
			{service(true, "n1n2")}, {service(true, "n1"), service(true, "n2")}, {service(true), service(true, "n1", "n2")}, {service(false), service(false)},
		} {
			for _, advertised := range [][]int{nil, {0}, {1}, {0, 1}, {'L'}, {200}} {
				a := &Address{Addr: vip, Services: services}
				sets := make([][]int, len(services))
				for i := range sets {
					sets[i] = advertised
				}
				if len(services) == 0 && advertised != nil {
					continue
				}
				is := fmt.Sprintf("%+v %d services %v", on.Nodes, len(services), advertised)
				for _, svc := range services {
					is += fmt.Sprintf(" %v%q", svc.Local, svc.Ready4)
					if !svc.Local && len(svc.Ready4) > 0 {
						is += " somewhere"
					}
				}
				for i, fresh := range [][]string{nil, {"n1"}, {"n1", "n2"}, {"n1n2"}, nil, {"n1"}, {"n1"}} {
					a.Fresh, a.Defers, a.Forwards = fresh, i == 4 || i == 5, i == 6
					key, is := string(on.appendKey(nil, a, sets)), fmt.Sprintf("%s%s %q %t %t", is, on.Interface, a.Fresh, a.Defers, a.Forwards)
					if other, twice := seen[key]; twice {
						t.Errorf("%q and %q have the same key", is, other)
					}
					seen[key] = is
				}
			}
		}
	}
}

func TestWhatAKubeProxySaysOfAnAddress(t *testing.T) {
	for _, story := range []struct {
		ready, fresh     []string
		leaves, forwards string
	}{
		{[]string{"n1", "n2"}, nil, "eth0: n2", "eth0: n1 n2"},
		{[]string{"n1", "n2", "n3"}, []string{"n1", "n3"}, "eth0: n2 n3(fresh)", "eth0: n1(forwards) n2 n3(fresh)"},
		{[]string{"n1", "n3"}, []string{"n1", "n3"}, "eth0: n3(fresh)", "eth0: n1(forwards) n3(fresh)"},
		{[]string{"n1"}, []string{"n1"}, "eth0: n1(fresh)", "eth0: n1(forwards)"}, // There is no other candidate.
		{[]string{"n2", "n3"}, nil, "eth0: n2 n3", "eth0: n2 n3"},
	} {
		s, a := cluster()
		s.L2 = []L2Advertisement{{Name: "all", Selector: compile(t, herald.Selection{})}}
		readyOn(a, story.ready...)
		for _, a.Defers = range []bool{true, false} {
			want := story.forwards
			if a.Defers {
				want = story.leaves
			}
			a.Services[0].Local, a.Fresh, a.Forwards = true, story.fresh, !a.Defers
			if got := said(Decide(on("n1", s), a)); got != want {
				t.Errorf("%v are ready, %v fresh, leaves %t: %q, want %q", story.ready, story.fresh, a.Defers, got, want)
			}
		}
	}
}

func TestNothingIsAnnouncedOfAnAddressWithoutServices(t *testing.T) {
	s, a := cluster()
	a.Services = nil
	s.L2 = []L2Advertisement{{Name: "all", Selector: compile(t, herald.Selection{})}}
	s.BGP = []BGPAdvertisement{{Name: "all", Selector: compile(t, herald.Selection{}), Peers: []string{"tor"}}}
	if d := Decide(on(first, s), a); len(d.Exports)+len(d.Segments) > 0 {
		t.Errorf("it announces %+v", d)
	}
}
