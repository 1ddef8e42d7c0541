package speaker

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bgp"
)

var (
	vip  = netip.MustParseAddr("198.51.100.7")
	vip6 = netip.MustParseAddr("2001:db8::7")

	// The nodes of the stories, by their rank for vip: which is which is the hash's affair.
	first, second, third = podium(vip)

	noon = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
)

func podium(address netip.Addr) (first, second, third string) {
	n := []string{"n1", "n2", "n3"}
	slices.SortFunc(n, func(x, y string) int { return cmp.Compare(rank(address, y), rank(address, x)) })
	return n[0], n[1], n[2]
}

func compile(t testing.TB, s herald.Selection) *herald.Selector {
	t.Helper()
	c, err := s.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func matching(key, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

func claimed(minutes int, by string) Claim {
	return Claim{Node: by, Since: noon.Add(time.Duration(minutes) * time.Minute)}
}

func editNode(s *Shared, name string, change func(*Node)) {
	n := s.Nodes[name]
	change(&n)
	s.Nodes[name] = n
}

// cluster is three nodes that are alike, one pool, and an address of one Service with an endpoint on each
// node. Nothing is advertised.
func cluster() (*Shared, *Address) {
	s := &Shared{
		Healthy:    true,
		Nodes:      map[string]Node{},
		Pools:      map[string]map[string]string{"public": {"tier": "front"}},
		Namespaces: map[string]map[string]string{"default": {"team": "web"}},
	}
	for _, name := range []string{first, second, third} {
		s.Nodes[name] = Node{Labels: map[string]string{"node": name}, Alive: true, Interfaces: []Interface{
			{Name: "eth0", Subnets: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/64")}},
			{Name: "eth1", Subnets: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}},
		}}
	}
	return s, &Address{Addr: vip, Pool: "public", Services: []*Service{{
		Name:   types.NamespacedName{Namespace: "default", Name: "web"},
		Labels: map[string]string{"app": "web"},
		Ready:  []string{first, second, third},
	}}}
}

// joinedBy has a second Service share the address: default/mail, with policy Local and its endpoints on
// these nodes. The first one becomes Local, too.
func joinedBy(a *Address, webOn, mailOn []string) {
	a.Services[0].Local, a.Services[0].Ready = true, webOn
	a.Services = append(a.Services, &Service{
		Name:   types.NamespacedName{Namespace: "default", Name: "mail"},
		Labels: map[string]string{"app": "mail"},
		Local:  true, Ready: mailOn,
	})
}

// on is the snapshot as the node has it.
func on(node string, shared *Shared) *Shared {
	s := *shared
	s.Self = node
	return &s
}

// asked is the address after the node has asked for it, and read that.
func asked(address *Address, node string) *Address {
	a := *address
	a.Claims = append(slices.Clone(a.Claims), Claim{Node: node})
	return &a
}

// answer asks every node about the address on the segment and sums up: "n1 on eth0", or "n1 waits" if it
// is the owner and does not answer even after it has asked, "nobody" if no node can.
func answer(t testing.TB, shared *Shared, address *Address) string {
	t.Helper()
	said := map[string]bool{}
	var answering []string
	for node := range shared.Nodes {
		d := Decide(on(node, shared), address)
		if d.Ask {
			if len(d.Interfaces) > 0 {
				t.Fatalf("%s asks and answers already", node)
			}
			d = Decide(on(node, shared), asked(address, node))
		}
		said[cmp.Or(d.Owner, "nobody")] = true
		if len(d.Interfaces) > 0 {
			answering = append(answering, node+" on "+strings.Join(d.Interfaces, " and "))
		}
	}
	if len(said) != 1 {
		t.Fatalf("the nodes disagree about the owner: %v", said)
	}
	for owner := range said {
		switch {
		case len(answering) > 1:
			t.Fatalf("several nodes answer: %v", answering)
		case len(answering) == 1 && !strings.HasPrefix(answering[0], owner+" "):
			t.Fatalf("%s, but the owner is %s", answering[0], owner)
		case len(answering) == 1:
			return answering[0]
		case owner != "nobody":
			return owner + " waits"
		}
		return owner
	}
	return ""
}

func TestWhoAnswersOnTheSegment(t *testing.T) {
	all := func(t *testing.T, s *Shared) { // announces everything
		s.L2 = []L2Advertisement{{Name: "all", Selector: compile(t, herald.Selection{})}}
	}
	selecting := func(selection herald.Selection, interfaces ...string) func(*testing.T, *Shared, *Address) {
		return func(t *testing.T, s *Shared, _ *Address) {
			s.L2 = []L2Advertisement{{Name: "some", Selector: compile(t, selection), Interfaces: interfaces}}
		}
	}
	with := func(change func(s *Shared, a *Address)) func(*testing.T, *Shared, *Address) {
		return func(t *testing.T, s *Shared, a *Address) {
			all(t, s)
			change(s, a)
		}
	}
	for _, story := range []struct {
		name   string
		change func(*testing.T, *Shared, *Address)
		want   string
	}{
		// Who can serve.
		{"the highest rank of those that can", with(func(*Shared, *Address) {}), first + " on eth0"},
		{"an endpoint anywhere is enough", with(func(_ *Shared, a *Address) { a.Services[0].Ready = []string{third} }), first + " on eth0"},
		{"policy Local asks for an endpoint on the node", with(func(_ *Shared, a *Address) {
			a.Services[0].Local, a.Services[0].Ready = true, []string{third}
		}), third + " on eth0"},
		{"no ready endpoint", with(func(_ *Shared, a *Address) { a.Services[0].Ready = nil }), "nobody"},
		{"no ready endpoint, policy Local", with(func(_ *Shared, a *Address) { a.Services[0].Local, a.Services[0].Ready = true, nil }), "nobody"},
		{"an excluded node stands back", with(func(s *Shared, _ *Address) {
			editNode(s, first, func(n *Node) { n.Excluded = true })
		}), second + " on eth0"},
		{"so does one whose speaker is dead", with(func(s *Shared, _ *Address) {
			editNode(s, first, func(n *Node) { n.Alive = false })
		}), second + " on eth0"},
		{"all nodes are excluded", with(func(s *Shared, _ *Address) {
			for name := range s.Nodes {
				editNode(s, name, func(n *Node) { n.Excluded = true })
			}
		}), "nobody"},
		{"an owner without a working kube-proxy does not answer", with(func(s *Shared, _ *Address) { s.Healthy = false }), first + " waits"},
		{"nor does one that has not heard yet what happened while it was away", with(func(s *Shared, a *Address) {
			s.Away, a.Claims = true, []Claim{claimed(0, first)}
		}), first + " waits"},

		// For several Services.
		{"one with endpoints is enough", with(func(_ *Shared, a *Address) {
			joinedBy(a, nil, []string{third})
		}), third + " on eth0"},
		{"the node that serves most of them", with(func(_ *Shared, a *Address) {
			joinedBy(a, []string{first, third}, []string{second, third})
		}), third + " on eth0"},
		{"also if another has it", with(func(_ *Shared, a *Address) {
			joinedBy(a, []string{first, third}, []string{second, third})
			a.Claims = []Claim{claimed(0, first)}
		}), third + " waits"},
		{"who has it, of those that serve as many", with(func(_ *Shared, a *Address) {
			joinedBy(a, []string{first, second}, []string{second, first})
			a.Claims = []Claim{claimed(0, second)}
		}), second + " on eth0"},
		{"on the interfaces that are for one or the other", func(t *testing.T, s *Shared, a *Address) {
			joinedBy(a, []string{first}, []string{first})
			s.L2 = []L2Advertisement{
				{Name: "a", Selector: compile(t, herald.Selection{ServiceSelector: matching("app", "mail")}), Interfaces: []string{"eth1"}},
				{Name: "b", Selector: compile(t, herald.Selection{ServiceSelector: matching("app", "web")})},
			}
		}, first + " on eth0 and eth1"},
		{"not on those that are for one without endpoints", func(t *testing.T, s *Shared, a *Address) {
			joinedBy(a, []string{first}, nil)
			s.L2 = []L2Advertisement{
				{Name: "a", Selector: compile(t, herald.Selection{ServiceSelector: matching("app", "mail")}), Interfaces: []string{"eth1"}},
				{Name: "b", Selector: compile(t, herald.Selection{ServiceSelector: matching("app", "web")})},
			}
		}, first + " on eth0"},

		// What is announced.
		{"no advertisement", func(*testing.T, *Shared, *Address) {}, "nobody"},
		{"pool by name", selecting(herald.Selection{Pools: []string{"public"}}), first + " on eth0"},
		{"another pool by name", selecting(herald.Selection{Pools: []string{"internal"}}), "nobody"},
		{"pool by its labels", selecting(herald.Selection{PoolSelector: matching("tier", "front")}), first + " on eth0"},
		{"other labels", selecting(herald.Selection{PoolSelector: matching("tier", "back")}), "nobody"},
		{"by name besides by labels", selecting(herald.Selection{Pools: []string{"public"}, PoolSelector: matching("tier", "back")}), first + " on eth0"},
		{"by labels besides by name", selecting(herald.Selection{Pools: []string{"internal"}, PoolSelector: matching("tier", "front")}), first + " on eth0"},
		{"a pool that is gone has its name still", func(t *testing.T, s *Shared, a *Address) {
			selecting(herald.Selection{Pools: []string{"public"}})(t, s, a)
			delete(s.Pools, "public")
		}, first + " on eth0"},
		{"a pool that is gone has no labels", func(t *testing.T, s *Shared, a *Address) {
			selecting(herald.Selection{PoolSelector: matching("tier", "front")})(t, s, a)
			delete(s.Pools, "public")
		}, "nobody"},
		{"Service by its labels", selecting(herald.Selection{ServiceSelector: matching("app", "web")}), first + " on eth0"},
		{"other Services", selecting(herald.Selection{ServiceSelector: matching("app", "mail")}), "nobody"},
		{"namespace by its labels", selecting(herald.Selection{NamespaceSelector: matching("team", "web")}), first + " on eth0"},
		{"other namespaces", selecting(herald.Selection{NamespaceSelector: matching("team", "mail")}), "nobody"},
		{"node by its labels", selecting(herald.Selection{NodeSelector: matching("node", third)}), third + " on eth0"},
		{"no such node", selecting(herald.Selection{NodeSelector: matching("node", "n9")}), "nobody"},
		{"fields narrow each other", selecting(herald.Selection{Pools: []string{"public"}, ServiceSelector: matching("app", "mail")}), "nobody"},

		// On which interfaces.
		{"the interface with the subnet", selecting(herald.Selection{}), first + " on eth0"},
		{"the interface that is named", selecting(herald.Selection{}, "eth1"), first + " on eth1"},
		{"each one that is named", selecting(herald.Selection{}, "eth1", "eth0"), first + " on eth0 and eth1"},
		{"a name that no node has", selecting(herald.Selection{}, "eth9"), "nobody"},
		{"no subnet that fits", with(func(_ *Shared, a *Address) {
			a.Addr = netip.MustParseAddr("198.18.0.7")
		}), "nobody"},
		{"only one node is on the segment", with(func(s *Shared, _ *Address) {
			for _, name := range []string{first, second} {
				editNode(s, name, func(n *Node) { n.Interfaces = n.Interfaces[1:] })
			}
		}), third + " on eth0"},
		{"two advertisements add up", func(t *testing.T, s *Shared, _ *Address) {
			s.L2 = []L2Advertisement{
				{Name: "a", Selector: compile(t, herald.Selection{})},
				{Name: "b", Selector: compile(t, herald.Selection{}), Interfaces: []string{"eth0", "eth1"}},
			}
		}, first + " on eth0 and eth1"},
		{"an advertisement adds nothing on nodes that it does not select", func(t *testing.T, s *Shared, _ *Address) {
			s.L2 = []L2Advertisement{
				{Name: "a", Selector: compile(t, herald.Selection{NodeSelector: matching("node", first)})},
				{Name: "b", Selector: compile(t, herald.Selection{NodeSelector: matching("node", second)}), Interfaces: []string{"eth1"}},
			}
		}, first + " on eth0"},

		// One at a time.
		{"who asks waits for who asks as well", with(func(_ *Shared, a *Address) {
			a.Claims = []Claim{{Node: third}}
		}), first + " waits"},
		{"not for a dead one", with(func(s *Shared, a *Address) {
			editNode(s, third, func(n *Node) { n.Alive = false })
			a.Claims = []Claim{{Node: third}}
		}), first + " on eth0"},
		{"who has it is not disturbed by who asks", with(func(_ *Shared, a *Address) {
			a.Claims = []Claim{claimed(0, third), {Node: first}, {Node: second}}
		}), third + " on eth0"},
		{"it stays where it is when a better node comes back", with(func(_ *Shared, a *Address) {
			a.Claims = []Claim{claimed(0, third)}
		}), third + " on eth0"},
		{"break before make: an excluded node still answers", with(func(s *Shared, a *Address) {
			editNode(s, third, func(n *Node) { n.Excluded = true })
			a.Claims = []Claim{claimed(0, third)}
		}), first + " waits"},
		{"break before make: the endpoint went elsewhere", with(func(_ *Shared, a *Address) {
			a.Services[0].Local, a.Services[0].Ready = true, []string{second}
			a.Claims = []Claim{claimed(0, third)}
		}), second + " waits"},
		{"nobody waits for a dead node", with(func(s *Shared, a *Address) {
			editNode(s, third, func(n *Node) { n.Alive = false })
			a.Claims = []Claim{claimed(0, third)}
		}), first + " on eth0"},
		{"nor for a node that is gone", with(func(s *Shared, a *Address) {
			delete(s.Nodes, third)
			a.Claims = []Claim{claimed(0, third)}
		}), first + " on eth0"},
		{"who was away yields to who stood in", with(func(_ *Shared, a *Address) {
			a.Claims = []Claim{claimed(0, first), claimed(1, third)}
		}), third + " on eth0"},
		{"unless that one cannot serve any more", with(func(s *Shared, a *Address) {
			editNode(s, third, func(n *Node) { n.Excluded = true })
			a.Claims = []Claim{claimed(0, first), claimed(1, third)}
		}), first + " on eth0"},
		{"of two claims of one time the higher rank keeps it", with(func(_ *Shared, a *Address) {
			a.Claims = []Claim{claimed(0, third), claimed(0, second)}
		}), second + " on eth0"},
	} {
		t.Run(story.name, func(t *testing.T) {
			s, a := cluster()
			story.change(t, s, a)
			if got := answer(t, s, a); got != story.want {
				t.Errorf("%s, want %s", got, story.want)
			}
		})
	}
}

// announcers lists for each node that announces the address the peers that it announces it to.
func announcers(shared *Shared, address *Address) map[string][]string {
	by := map[string][]string{}
	for node := range shared.Nodes {
		if exports := Decide(on(node, shared), address).Exports; len(exports) > 0 {
			by[node] = slices.Sorted(maps.Keys(exports))
		}
	}
	return by
}

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
		{"an endpoint anywhere is enough", herald.Selection{}, func(_ *Shared, a *Address) { a.Services[0].Ready = []string{third} }, everywhere},
		{"policy Local: the nodes with an endpoint", herald.Selection{}, func(_ *Shared, a *Address) {
			a.Services[0].Local, a.Services[0].Ready = true, []string{first, third}
		}, map[string][]string{first: tor, third: tor}},
		{"no ready endpoint", herald.Selection{}, func(_ *Shared, a *Address) { a.Services[0].Ready = nil }, map[string][]string{}},
		{"not an excluded node", herald.Selection{}, func(s *Shared, _ *Address) {
			editNode(s, first, func(n *Node) { n.Excluded = true })
		}, map[string][]string{second: tor, third: tor}},
		{"also where the node was away from its segment", herald.Selection{}, func(s *Shared, _ *Address) { s.Away = true }, everywhere},
		{"not where kube-proxy does not serve", herald.Selection{}, func(s *Shared, _ *Address) { s.Healthy = false }, map[string][]string{}},
		{"whoever is at work does so without a Lease: the session is its own sign of life", herald.Selection{}, func(s *Shared, _ *Address) {
			editNode(s, first, func(n *Node) { n.Alive = false })
		}, everywhere},
		{"a subnet is not asked for", herald.Selection{}, func(s *Shared, _ *Address) {
			for name := range s.Nodes {
				editNode(s, name, func(n *Node) { n.Interfaces = nil })
			}
		}, everywhere},
		{"pool by name", herald.Selection{Pools: []string{"public"}}, func(*Shared, *Address) {}, everywhere},
		{"another pool", herald.Selection{Pools: []string{"internal"}}, func(*Shared, *Address) {}, map[string][]string{}},
		{"other Services", herald.Selection{ServiceSelector: matching("app", "mail")}, func(*Shared, *Address) {}, map[string][]string{}},
		{"other namespaces", herald.Selection{NamespaceSelector: matching("team", "mail")}, func(*Shared, *Address) {}, map[string][]string{}},
		{"nodes by their labels", herald.Selection{NodeSelector: matching("node", second)}, func(*Shared, *Address) {}, map[string][]string{second: tor}},
		{"an advertisement without peers", herald.Selection{}, func(s *Shared, _ *Address) { s.BGP[0].Peers = nil }, map[string][]string{}},
		{"a sticky Service: one node", herald.Selection{}, func(_ *Shared, a *Address) { a.Services[0].Sticky = true }, map[string][]string{first: tor}},
		{"a sticky Service: one of those with an endpoint", herald.Selection{}, func(_ *Shared, a *Address) {
			a.Services[0].Sticky, a.Services[0].Local, a.Services[0].Ready = true, true, []string{second, third}
		}, map[string][]string{second: tor}},
		{"a sticky Service: one that is alive", herald.Selection{}, func(s *Shared, a *Address) {
			a.Services[0].Sticky = true
			editNode(s, first, func(n *Node) { n.Alive = false })
		}, map[string][]string{second: tor}},
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

func TestIPv6IsForRoutersOnly(t *testing.T) {
	s, a := cluster()
	s.L2 = []L2Advertisement{{Name: "all", Selector: compile(t, herald.Selection{})}}
	s.BGP = []BGPAdvertisement{{Name: "all", Selector: compile(t, herald.Selection{}), Peers: []string{"tor"}}}
	for address, want := range map[netip.Addr]string{vip: first + " on eth0", vip6: "nobody"} {
		a.Addr = address
		if got := answer(t, s, a); got != want {
			t.Errorf("%s on the segment: %s, want %s", address, got, want)
		}
		if got := announcers(s, a); len(got) != 3 {
			t.Errorf("%s is announced by %v, want all nodes", address, got)
		}
	}
}

func TestAttributesAreThePeersOwnAndTheFirstByNameDecides(t *testing.T) {
	s, a := cluster()
	high, low := bgp.Attributes{LocalPref: new(uint32(200))}, bgp.Attributes{LocalPref: new(uint32(50))}
	s.BGP = []BGPAdvertisement{
		{Name: "a", Selector: compile(t, herald.Selection{Pools: []string{"internal"}}), Peers: []string{"east", "west"}},
		{Name: "b", Selector: compile(t, herald.Selection{}), Peers: []string{"east"}, Attributes: high},
		{Name: "c", Selector: compile(t, herald.Selection{}), Peers: []string{"east", "west"}, Attributes: low},
	}
	want := map[string]bgp.Attributes{"east": high, "west": low}
	if diff := gocmp.Diff(want, Decide(on(second, s), a).Exports); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Of several Services each may be for another advertisement. Which one gives the attributes is not told by
// the order of the Services.
func TestAttributesOfWhatIsSharedAreThoseOfTheFirstByName(t *testing.T) {
	s, a := cluster()
	joinedBy(a, []string{first, second}, []string{second, third})
	high, low := bgp.Attributes{LocalPref: new(uint32(200))}, bgp.Attributes{LocalPref: new(uint32(50))}
	s.BGP = []BGPAdvertisement{
		{Name: "a", Selector: compile(t, herald.Selection{ServiceSelector: matching("app", "mail")}), Peers: []string{"tor"}, Attributes: high},
		{Name: "b", Selector: compile(t, herald.Selection{ServiceSelector: matching("app", "web")}), Peers: []string{"tor"}, Attributes: low},
	}
	for node, want := range map[string]bgp.Attributes{first: low, second: high, third: high} {
		if got := Decide(on(node, s), a).Exports["tor"]; !got.Equal(want) {
			t.Errorf("%s announces it with %+v, want %+v", node, got, want)
		}
	}
}

// Who takes an address from others takes it later than they did, whatever the clocks say.
func TestAnOwnerIsToldOfTheLatestOtherClaim(t *testing.T) {
	s, a := cluster()
	s.L2 = []L2Advertisement{{Name: "all", Selector: compile(t, herald.Selection{})}}
	for _, story := range []struct {
		name   string
		claims []Claim
		want   time.Time
	}{
		{"none", nil, time.Time{}},
		{"our own", []Claim{claimed(0, first)}, time.Time{}},
		{"others', and our own later", []Claim{claimed(1, second), claimed(2, third), claimed(3, first)}, noon.Add(2 * time.Minute)},
		{"of a node that is gone", []Claim{claimed(5, "n9"), claimed(1, second)}, noon.Add(5 * time.Minute)},
	} {
		a.Claims = story.claims
		if got := Decide(on(first, s), a).After; !got.Equal(story.want) {
			t.Errorf("%s: %v, want %v", story.name, got, story.want)
		}
	}
}

func TestANodeThatTheClusterDoesNotKnowAnnouncesNothing(t *testing.T) {
	s, a := cluster()
	s.L2 = []L2Advertisement{{Name: "all", Selector: compile(t, herald.Selection{})}}
	s.BGP = []BGPAdvertisement{{Name: "all", Selector: compile(t, herald.Selection{}), Peers: []string{"tor"}}}
	if d := Decide(on("stranger", s), a); len(d.Exports)+len(d.Interfaces) > 0 {
		t.Errorf("it announces %+v", d)
	}
}

func TestNothingIsAnnouncedOfAnAddressWithoutServices(t *testing.T) {
	s, a := cluster()
	a.Services = nil
	s.L2 = []L2Advertisement{{Name: "all", Selector: compile(t, herald.Selection{})}}
	s.BGP = []BGPAdvertisement{{Name: "all", Selector: compile(t, herald.Selection{}), Peers: []string{"tor"}}}
	if d := Decide(on(first, s), a); d.Owner != "" || len(d.Exports)+len(d.Interfaces) > 0 {
		t.Errorf("it announces %+v", d)
	}
}
