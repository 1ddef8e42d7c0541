package speaker

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bgp"
)

// What the random snapshots are made of: little, so that it meets.
var (
	someNodes  = []string{"n1", "n2", "n3", "n4", "n5"}
	somePools  = []string{"p", "q"}
	someLabels = []string{"", "a", "b"}
	lowerHalf  = netip.MustParsePrefix("198.51.100.0/25")
	upperHalf  = netip.MustParsePrefix("198.51.100.128/25")
	someVIPs   = func() (all []netip.Addr) {
		for _, a := range []string{"198.51.100.1", "198.51.100.2", "198.51.100.201", "198.51.100.202", "203.0.113.9", "2001:db8::1", "2001:db8::2"} {
			all = append(all, netip.MustParseAddr(a))
		}
		return all
	}()
)

func drawSome[T any](t *rapid.T, from []T, name string) []T {
	shuffled := rapid.Permutation(from).Draw(t, name)
	return shuffled[:rapid.IntRange(0, len(from)).Draw(t, name+" taken")]
}

func drawLabels(t *rapid.T, name string) map[string]string {
	if v := rapid.SampledFrom(someLabels).Draw(t, name); v != "" {
		return map[string]string{"l": v}
	}
	return nil
}

func drawSelector(t *rapid.T, name string) *metav1.LabelSelector {
	// Mostly none: selectors narrow each other, and what nobody announces shows little.
	if rapid.IntRange(0, 3).Draw(t, name+" given") > 0 {
		return nil
	}
	return &metav1.LabelSelector{MatchLabels: drawLabels(t, name)}
}

func drawSelection(t *rapid.T, name string) *herald.Selector {
	s := herald.Selection{
		PoolSelector:      drawSelector(t, name+" pools"),
		ServiceSelector:   drawSelector(t, name+" services"),
		NamespaceSelector: drawSelector(t, name+" namespaces"),
		NodeSelector:      drawSelector(t, name+" nodes"),
	}
	if rapid.Bool().Draw(t, name+" names pools") {
		s.Pools = drawSome(t, somePools, name+" pool")
	}
	c, err := s.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func drawNode(t *rapid.T, name string) Node {
	return Node{
		Labels:   drawLabels(t, name+" label"),
		Excluded: rapid.IntRange(0, 4).Draw(t, name+" excluded") == 0,
		Alive:    rapid.IntRange(0, 4).Draw(t, name+" dead") > 0,
		Interfaces: drawSome(t, []Interface{
			{Name: "eth0", Subnets: []netip.Prefix{lowerHalf}},
			{Name: "eth1", Subnets: []netip.Prefix{upperHalf, netip.MustParsePrefix("2001:db8::/64")}},
			{Name: "eth2"},
		}, name+" interfaces"),
	}
}

func drawShared(t *rapid.T) *Shared {
	s := &Shared{Healthy: true, Nodes: map[string]Node{}, Pools: map[string]map[string]string{}, Namespaces: map[string]map[string]string{"default": drawLabels(t, "namespace")}}
	for _, name := range drawSome(t, someNodes, "nodes") {
		s.Nodes[name] = drawNode(t, name)
	}
	for _, name := range drawSome(t, somePools, "pools") {
		s.Pools[name] = drawLabels(t, "pool "+name)
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "L2Advertisements") {
		ad := L2Advertisement{Name: fmt.Sprint("l2-", i), Selector: drawSelection(t, fmt.Sprint("l2-", i))}
		if rapid.Bool().Draw(t, ad.Name+" names interfaces") {
			ad.Interfaces = drawSome(t, []string{"eth0", "eth1", "eth2", "eth9"}, ad.Name+" interfaces")
		}
		s.L2 = append(s.L2, ad)
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "BGPAdvertisements") {
		name := fmt.Sprint("bgp-", i)
		s.BGP = append(s.BGP, BGPAdvertisement{
			Name: name, Selector: drawSelection(t, name), Peers: drawSome(t, []string{"east", "west"}, name+" peers"),
			Attributes: bgp.Attributes{Prepend: uint8(i)},
		})
	}
	if l := drawLabels(t, "nodes with a session to east"); l != nil {
		s.PeerNodes = map[string]labels.Selector{"east": labels.SelectorFromSet(l)}
	}
	return s
}

func drawService(t *rapid.T) *Service {
	svc := &Service{
		Name:   types.NamespacedName{Namespace: "default", Name: "web"},
		Labels: drawLabels(t, "service"),
		Local:  rapid.Bool().Draw(t, "local"),
		Sticky: rapid.Bool().Draw(t, "sticky"),
		Ready:  drawSome(t, someNodes, "ready"),
	}
	for _, vip := range drawSome(t, someVIPs, "addresses") {
		a := Address{Addr: vip, Pool: rapid.SampledFrom(somePools).Draw(t, fmt.Sprint(vip, " pool"))}
		for _, node := range drawSome(t, someNodes, fmt.Sprint(vip, " claims")) {
			a.Claims = append(a.Claims, claimed(rapid.IntRange(0, 2).Draw(t, fmt.Sprint(vip, " claimed by ", node)), node))
		}
		svc.Addresses = append(svc.Addresses, a)
	}
	return svc
}

// shuffled is a copy with everything in another order that has no meaning in its order: of the
// advertisements to routers, the first by name counts.
func shuffled(t *rapid.T, shared *Shared, svc *Service) (*Shared, *Service) {
	s, v := *shared, *svc
	s.L2 = rapid.Permutation(s.L2).Draw(t, "L2 shuffled")
	s.BGP = slices.Clone(s.BGP)
	for i := range s.BGP {
		s.BGP[i].Peers = rapid.Permutation(s.BGP[i].Peers).Draw(t, "peers shuffled")
	}
	s.Nodes = maps.Clone(s.Nodes)
	for _, name := range slices.Sorted(maps.Keys(s.Nodes)) {
		n := s.Nodes[name]
		n.Interfaces = rapid.Permutation(n.Interfaces).Draw(t, "interfaces shuffled")
		s.Nodes[name] = n
	}
	v.Ready = rapid.Permutation(v.Ready).Draw(t, "ready shuffled")
	v.Addresses = rapid.Permutation(v.Addresses).Draw(t, "addresses shuffled")
	for i := range v.Addresses {
		v.Addresses[i].Claims = rapid.Permutation(v.Addresses[i].Claims).Draw(t, "claims shuffled")
	}
	return &s, &v
}

// sorted has a Decision's addresses in order.
func sorted(d Decision) Decision {
	slices.SortFunc(d.L2, func(x, y L2Decision) int { return x.Address.Compare(y.Address) })
	slices.SortFunc(d.BGP, func(x, y BGPDecision) int { return x.Prefix.Addr().Compare(y.Prefix.Addr()) })
	return d
}

var alike = []gocmp.Option{
	gocmp.Comparer(func(x, y netip.Addr) bool { return x == y }),
	gocmp.Comparer(func(x, y netip.Prefix) bool { return x == y }),
}

// ownersOf tells who is to answer for each address, from the viewpoint of a node that is none of them.
func ownersOf(shared *Shared, svc *Service) map[netip.Addr]string {
	owners := map[netip.Addr]string{}
	for _, d := range Decide(on("", shared), svc).L2 {
		owners[d.Address] = d.Owner
	}
	return owners
}

func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, svc := drawShared(t), drawService(t)
		s.Self = rapid.SampledFrom(someNodes).Draw(t, "self")
		other, otherSvc := shuffled(t, s, svc)
		if diff := gocmp.Diff(sorted(Decide(s, svc)), sorted(Decide(other, otherSvc)), alike...); diff != "" {
			t.Fatalf("the same in another order is decided differently:\n%s", diff)
		}
	})
}

func TestNodesAgreeAndOneAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, svc := drawShared(t), drawService(t)
		owners, answers := ownersOf(s, svc), map[netip.Addr]string{}
		for _, node := range someNodes { // Those that the cluster does not know among them.
			view := on(node, s)
			view.Healthy = rapid.Bool().Draw(t, node+" healthy")
			d := Decide(view, svc)
			if len(d.L2) != len(owners) {
				t.Fatalf("%s decides about %d addresses, others about %d", node, len(d.L2), len(owners))
			}
			for _, d := range d.L2 {
				if d.Owner != owners[d.Address] {
					t.Fatalf("%s: %s says that the owner is %q, others say %q", d.Address, node, d.Owner, owners[d.Address])
				}
				if len(d.Interfaces) == 0 {
					continue
				}
				if node != d.Owner || !view.Healthy || answers[d.Address] != "" {
					t.Fatalf("%s: %s answers, as does %q; the owner is %q", d.Address, node, answers[d.Address], d.Owner)
				}
				answers[d.Address] = node
			}
		}
	})
}

// reach is what decides about interfaces, said once more: by the advertisements and not by the node.
func reach(s *Shared, svc *Service, a Address, node string) map[string]bool {
	reached := map[string]bool{}
	for _, ad := range s.L2 {
		if !ad.Selector.Pool(a.Pool, s.Pools[a.Pool]) || !ad.Selector.Service(svc.Labels, s.Namespaces["default"]) || !ad.Selector.Node(s.Nodes[node].Labels) {
			continue
		}
		for _, i := range s.Nodes[node].Interfaces {
			fits := len(ad.Interfaces) == 0 && slices.ContainsFunc(i.Subnets, func(p netip.Prefix) bool { return p.Contains(a.Addr) })
			if fits || slices.Contains(ad.Interfaces, i.Name) {
				reached[i.Name] = true
			}
		}
	}
	return reached
}

func TestOwnersCanServeAndAreFoundIfThereAreAny(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, svc := drawShared(t), drawService(t)
		owners := ownersOf(s, svc)
		for _, a := range svc.Addresses {
			able := map[string]bool{}
			for name, n := range s.Nodes {
				endpoint := slices.Contains(svc.Ready, name) || !svc.Local && len(svc.Ready) > 0
				able[name] = a.Is4() && n.Alive && !n.Excluded && endpoint && len(reach(s, svc, a, name)) > 0
			}
			switch owner := owners[a.Addr]; {
			case owner != "" && !able[owner]:
				t.Fatalf("%s: %s owns it and cannot serve it", a, owner)
			case owner == "" && slices.Contains(slices.Collect(maps.Values(able)), true):
				t.Fatalf("%s: nobody owns it; could serve it: %v", a, able)
			case owner != "":
				for _, d := range Decide(on(owner, s), svc).L2 {
					if want := slices.Sorted(maps.Keys(reach(s, svc, a, owner))); d.Address == a.Addr && d.Interfaces != nil && !slices.Equal(d.Interfaces, want) {
						t.Fatalf("%s: %s answers on %v, want %v", a, owner, d.Interfaces, want)
					}
				}
			}
		}
	})
}

func TestOnlyTheServicesOwnAddressesAreAnnounced(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, svc := drawShared(t), drawService(t)
		its := map[netip.Addr]int{}
		for _, a := range svc.Addresses {
			its[a.Addr]++
		}
		for _, node := range someNodes {
			l2, routes := maps.Clone(its), maps.Clone(its)
			d := Decide(on(node, s), svc)
			for _, d := range d.L2 {
				if l2[d.Address]--; l2[d.Address] < 0 || !d.Address.Is4() {
					t.Fatalf("%s is announced on the segment; the Service has %v", d.Address, its)
				}
			}
			for _, d := range d.BGP {
				if routes[d.Prefix.Addr()]--; routes[d.Prefix.Addr()] < 0 || !d.Prefix.IsSingleIP() {
					t.Fatalf("%s is announced to routers; the Service has %v", d.Prefix, its)
				}
			}
		}
	})
}

func TestWhenANodeGoesOnlyItsAddressesMove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, svc := drawShared(t), drawService(t)
		gone := rapid.SampledFrom(someNodes).Draw(t, "gone")
		before := ownersOf(s, svc)
		delete(s.Nodes, gone)
		for address, owner := range ownersOf(s, svc) {
			if owner == gone || before[address] != gone && owner != before[address] {
				t.Fatalf("%s goes, and %s moves from %q to %q", gone, address, before[address], owner)
			}
		}
	})
}

func TestANewNodeTakesNothingThatSomebodyHas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, svc := drawShared(t), drawService(t)
		before := ownersOf(s, svc)
		s.Nodes["new"] = drawNode(t, "new")
		svc.Ready = append(svc.Ready, "new")
		after := ownersOf(s, svc)
		for _, a := range svc.Addresses {
			switch is, was := after[a.Addr], before[a.Addr]; {
			case is != was && is != "new" && was != "":
				t.Fatalf("%s: a node comes, and it moves from %q to %q", a, was, is)
			case is == "new" && was != "" && has(a, was):
				t.Fatalf("%s: the new node takes it from %q, which has it", a, was)
			}
		}
	})
}

// has reports whether a node says that it answers for the address, and does not only ask to.
func has(a Address, node string) bool {
	c, _ := a.claim(node)
	return !c.Since.IsZero()
}

// act returns the addresses as they are claimed after every node has decided once and all have heard of it.
func act(shared *Shared, svc *Service) []Address {
	next := slices.Clone(svc.Addresses)
	for i, a := range svc.Addresses {
		// The dead write nothing: what they claimed stands.
		next[i].Claims = slices.DeleteFunc(slices.Clone(a.Claims), func(c Claim) bool { return shared.Nodes[c.Node].Alive })
		for name, node := range shared.Nodes {
			d := Decide(on(name, shared), svc).L2
			about := slices.IndexFunc(d, func(d L2Decision) bool { return d.Address == a.Addr })
			if about < 0 || !node.Alive {
				continue
			}
			claim, _ := a.claim(name)
			switch {
			case d[about].Ask:
				next[i].Claims = append(next[i].Claims, Claim{Node: name})
			case len(d[about].Interfaces) == 0:
			case claim.Since.IsZero():
				next[i].Claims = append(next[i].Claims, Claim{Node: name, Since: d[about].After.Add(time.Microsecond)})
			default:
				next[i].Claims = append(next[i].Claims, claim)
			}
		}
	}
	return next
}

// Whoever claims what: after one round all but the owner have given up, after two it asks, and after three
// it answers.
func TestClaimsConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, svc := drawShared(t), drawService(t)
		for round := range 3 {
			svc.Addresses = act(s, svc)
			owners := ownersOf(s, svc)
			for _, a := range svc.Addresses {
				alive := slices.DeleteFunc(slices.Clone(a.Claims), func(c Claim) bool { return !s.Nodes[c.Node].Alive })
				if len(alive) > 1 || len(alive) == 1 && alive[0].Node != owners[a.Addr] {
					t.Fatalf("round %d: %s is the owner of %s, and these claim: %v", round, owners[a.Addr], a, alive)
				}
				if round == 2 && owners[a.Addr] != "" && !has(a, owners[a.Addr]) {
					t.Fatalf("%s owns %s and still does not answer", owners[a.Addr], a)
				}
			}
		}
	})
}

// Who took an address over keeps it when the dead come back with what they claimed when they died.
func TestWhoTookOverKeepsIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, svc := drawShared(t), drawService(t)
		before := svc.Addresses
		for range 3 {
			svc.Addresses = act(s, svc)
		}
		had := ownersOf(s, svc)
		for name, n := range s.Nodes {
			n.Alive = true
			s.Nodes[name] = n
		}
		owners := ownersOf(s, svc)
		for _, a := range before {
			if was, is := had[a.Addr], owners[a.Addr]; was != "" && !has(a, was) && is != was {
				t.Fatalf("%s moves from %s, which took it over, to %s, which was away", a, was, is)
			}
		}
	})
}

func TestOneNodeAnnouncesAStickyServiceByOneAdvertisement(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, svc := drawShared(t), drawService(t)
		svc.Sticky, s.BGP = true, s.BGP[:min(1, len(s.BGP))]
		for _, a := range svc.Addresses {
			if by := announcers(s, svc, a.Addr); len(by) > 1 {
				t.Fatalf("%s is announced by %v", a, by)
			}
		}
	})
}

func TestAddressesSpreadOverTheNodes(t *testing.T) {
	const addresses, tolerance = 1000, 0.3
	for nodes := 3; nodes <= 10; nodes++ {
		var names []string
		for i := range nodes {
			names = append(names, fmt.Sprintf("worker-%d", i))
		}
		owned, address := map[string]int{}, netip.MustParseAddr("198.18.0.0")
		for range addresses {
			owned[owner(address, names, nil)]++
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

// Each node that is left gets its part of what a node had.
func TestWhatANodeHadSpreadsOverTheOthers(t *testing.T) {
	names := []string{"worker-0", "worker-1", "worker-2", "worker-3", "worker-4"}
	taken, orphans, address := map[string]int{}, 0, netip.MustParseAddr("198.18.0.0")
	for range 1000 {
		if owner(address, names, nil) == names[2] {
			orphans++
			taken[owner(address, slices.Concat(names[:2], names[3:]), nil)]++
		}
		address = address.Next()
	}
	for _, name := range slices.Concat(names[:2], names[3:]) {
		if n := taken[name]; n < orphans/8 { // Half of its fair share, a quarter.
			t.Errorf("%s takes %d of %d", name, n, orphans)
		}
	}
}
