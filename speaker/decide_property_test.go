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

func drawService(t *rapid.T, name string) *Service {
	return &Service{
		Name:   types.NamespacedName{Namespace: "default", Name: name},
		Labels: drawLabels(t, name),
		Local:  rapid.Bool().Draw(t, name+" local"),
		Sticky: rapid.IntRange(0, 3).Draw(t, name+" sticky") == 0,
		Ready:  drawSome(t, someNodes, name+" ready"),
	}
}

// drawAddress is an address of one Service or of several. Herald does not let two share that differ in
// Local, but its speakers do not rest on that.
func drawAddress(t *rapid.T) *Address {
	a := &Address{Addr: rapid.SampledFrom(someVIPs).Draw(t, "address"), Pool: rapid.SampledFrom(somePools).Draw(t, "pool")}
	for i := range rapid.IntRange(1, 3).Draw(t, "Services") {
		a.Services = append(a.Services, drawService(t, fmt.Sprint("web-", i)))
	}
	for _, node := range drawSome(t, someNodes, "claims") {
		a.Claims = append(a.Claims, claimed(rapid.IntRange(0, 2).Draw(t, "claimed by "+node), node))
	}
	return a
}

// among is the address as it would be if only these Services had it.
func among(address *Address, services ...*Service) *Address {
	a := *address
	a.Services = services
	return &a
}

// shuffled is a copy with everything in another order that has no meaning in its order: of the
// advertisements to routers, the first by name counts.
func shuffled(t *rapid.T, shared *Shared, address *Address) (*Shared, *Address) {
	s, a := *shared, *address
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
	a.Services = rapid.Permutation(a.Services).Draw(t, "Services shuffled")
	for i, svc := range a.Services {
		other := *svc
		other.Ready = rapid.Permutation(svc.Ready).Draw(t, "ready shuffled")
		a.Services[i] = &other
	}
	a.Claims = rapid.Permutation(a.Claims).Draw(t, "claims shuffled")
	return &s, &a
}

var alike = []gocmp.Option{
	gocmp.Comparer(func(x, y netip.Addr) bool { return x == y }),
	gocmp.Comparer(func(x, y netip.Prefix) bool { return x == y }),
}

// ownerOf tells who is to answer for an address, from the viewpoint of a node that does not.
func ownerOf(shared *Shared, address *Address) string { return Decide(on("", shared), address).Owner }

func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, a := drawShared(t), drawAddress(t)
		s.Self = rapid.SampledFrom(someNodes).Draw(t, "self")
		if diff := gocmp.Diff(Decide(s, a), Decide(shuffled(t, s, a))); diff != "" {
			t.Fatalf("the same in another order is decided differently:\n%s", diff)
		}
	})
}

func TestNodesAgreeAndOneAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, a := drawShared(t), drawAddress(t)
		owner, answers := ownerOf(s, a), ""
		for _, node := range someNodes { // Those that the cluster does not know among them.
			view := on(node, s)
			view.Healthy = rapid.Bool().Draw(t, node+" healthy")
			d := Decide(view, a)
			if d.Owner != owner {
				t.Fatalf("%s says that the owner is %q, others say %q", node, d.Owner, owner)
			}
			if len(d.Interfaces) == 0 {
				continue
			}
			if node != owner || !view.Healthy || answers != "" {
				t.Fatalf("%s answers, as does %q; the owner is %q", node, answers, owner)
			}
			answers = node
		}
	})
}

// reach is what decides about interfaces, said once more: by the advertisements and not by the node.
func reach(s *Shared, a *Address, svc *Service, node string) map[string]bool {
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

// served are the Services whose clients on the segment a node would serve, and on which interfaces.
func served(s *Shared, a *Address, node string) (services []string, interfaces map[string]bool) {
	n, known := s.Nodes[node]
	interfaces = map[string]bool{}
	for _, svc := range a.Services {
		endpoint := slices.Contains(svc.Ready, node) || !svc.Local && len(svc.Ready) > 0
		if on := reach(s, a, svc, node); known && a.Is4() && n.Alive && !n.Excluded && endpoint && len(on) > 0 {
			services = append(services, svc.Name.Name)
			maps.Copy(interfaces, on)
		}
	}
	return services, interfaces
}

// mostServed is how many of the Services can be served by one node.
func mostServed(s *Shared, a *Address) (most int) {
	for name := range s.Nodes {
		services, _ := served(s, a, name)
		most = max(most, len(services))
	}
	return most
}

func TestOwnersServeAsManyServicesAsOneNodeCan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, a := drawShared(t), drawAddress(t)
		owner := ownerOf(s, a)
		services, interfaces := served(s, a, owner)
		if most := mostServed(s, a); len(services) != most {
			t.Fatalf("%q owns it and serves %v; another serves %d", owner, services, most)
		}
		if (owner == "") != (len(services) == 0) {
			t.Fatalf("%q owns it and serves %v", owner, services)
		}
		d := Decide(on(owner, s), a)
		if want := slices.Sorted(maps.Keys(interfaces)); d.Interfaces != nil && !slices.Equal(d.Interfaces, want) {
			t.Fatalf("%s answers on %v, want %v", owner, d.Interfaces, want)
		}
	})
}

// What several Services share is announced if it were for one of them alone; to each peer as the first by
// name of the advertisements says that are for any of them.
func TestAnAddressIsAnnouncedForAnyOfItsServices(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, a := drawShared(t), drawAddress(t)
		s.Self = rapid.SampledFrom(someNodes).Draw(t, "self")
		for _, svc := range a.Services {
			svc.Sticky = false // One that is sticky narrows it down for all.
		}
		var owned bool
		want := map[string]bgp.Attributes{}
		for _, svc := range a.Services {
			d := Decide(s, among(a, svc))
			owned = owned || d.Owner != ""
			for peer, attributes := range d.Exports {
				// Those that are drawn prepend as many as come before them by name.
				if first, known := want[peer]; !known || attributes.Prepend < first.Prepend {
					want[peer] = attributes
				}
			}
		}
		d := Decide(s, a)
		if !maps.EqualFunc(d.Exports, want, bgp.Attributes.Equal) {
			t.Fatalf("it is announced to %v, want %v", d.Exports, want)
		}
		if owned != (d.Owner != "") {
			t.Fatalf("the owner is %q; there is one for one of the Services alone: %v", d.Owner, owned)
		}
	})
}

// One of the Services goes, loses its endpoints or leaves: who has the address keeps it, unless others
// serve more of those that stay.
func TestWhoHasAnAddressKeepsItWhenAServiceGoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, a := drawShared(t), drawAddress(t)
		for range 3 {
			a = act(s, a)
		}
		before := Decide(on(ownerOf(s, a), s), a)
		rest := among(a, a.Services[1:]...)
		if rapid.Bool().Draw(t, "it loses its endpoints") {
			empty := *a.Services[0]
			empty.Ready = nil
			rest.Services = append([]*Service{&empty}, rest.Services...)
		}
		after := Decide(on(before.Owner, s), rest)
		services, interfaces := served(s, rest, before.Owner)
		if len(services) == 0 || len(services) < mostServed(s, rest) {
			return // Nobody needs it, or not here.
		}
		if after.Owner != before.Owner {
			t.Fatalf("it moves from %s to %s", before.Owner, after.Owner)
		}
		if want := slices.Sorted(maps.Keys(interfaces)); !slices.Equal(after.Interfaces, want) {
			t.Fatalf("%s answered on %v and does on %v, want %v", after.Owner, before.Interfaces, after.Interfaces, want)
		}
	})
}

// One more Service shares an address: who has it keeps it, unless others serve more now.
func TestWhoHasAnAddressKeepsItWhenAServiceComes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, a := drawShared(t), drawAddress(t)
		for range 3 {
			a = act(s, a)
		}
		owner := ownerOf(s, a)
		more := among(a, append(slices.Clone(a.Services), drawService(t, "one-more"))...)
		services, _ := served(s, more, owner)
		if now := ownerOf(s, more); owner != "" && len(services) == mostServed(s, more) && now != owner {
			t.Fatalf("it moves from %s to %s", owner, now)
		}
	})
}

func TestWhenANodeGoesOnlyItsAddressesMove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, a := drawShared(t), drawAddress(t)
		gone := rapid.SampledFrom(someNodes).Draw(t, "gone")
		before := ownerOf(s, a)
		delete(s.Nodes, gone)
		if after := ownerOf(s, a); after == gone || before != gone && after != before {
			t.Fatalf("%s goes, and it moves from %q to %q", gone, before, after)
		}
	})
}

func TestANewNodeTakesNothingThatSomebodyHas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, a := drawShared(t), drawAddress(t)
		was := ownerOf(s, a)
		s.Nodes["new"] = drawNode(t, "new")
		for _, svc := range a.Services {
			svc.Ready = append(svc.Ready, "new")
		}
		is := ownerOf(s, a)
		services, _ := served(s, a, was)
		switch {
		case is != was && is != "new" && was != "":
			t.Fatalf("a node comes, and it moves from %q to %q", was, is)
		case is == "new" && was != "" && has(a, was) && len(services) == mostServed(s, a):
			t.Fatalf("the new node takes it from %q, which has it and serves as much", was)
		}
	})
}

// has reports whether a node says that it answers for the address, and does not only ask to.
func has(a *Address, node string) bool {
	c, _ := a.claim(node)
	return !c.Since.IsZero()
}

// act returns the address as it is claimed after every node has decided once and all have heard of it.
func act(shared *Shared, a *Address) *Address {
	next := among(a, a.Services...)
	// The dead write nothing: what they claimed stands.
	next.Claims = slices.DeleteFunc(slices.Clone(a.Claims), func(c Claim) bool { return shared.Nodes[c.Node].Alive })
	for name, node := range shared.Nodes {
		d := Decide(on(name, shared), a)
		if !node.Alive {
			continue
		}
		claim, _ := a.claim(name)
		switch {
		case d.Ask:
			next.Claims = append(next.Claims, Claim{Node: name})
		case len(d.Interfaces) == 0:
		case claim.Since.IsZero():
			next.Claims = append(next.Claims, Claim{Node: name, Since: d.After.Add(time.Microsecond)})
		default:
			next.Claims = append(next.Claims, claim)
		}
	}
	return next
}

// Whoever claims what: after one round all but the owner have given up, after two it asks, and after three
// it answers.
func TestClaimsConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, a := drawShared(t), drawAddress(t)
		for round := range 3 {
			a = act(s, a)
			owner := ownerOf(s, a)
			alive := slices.DeleteFunc(slices.Clone(a.Claims), func(c Claim) bool { return !s.Nodes[c.Node].Alive })
			if len(alive) > 1 || len(alive) == 1 && alive[0].Node != owner {
				t.Fatalf("round %d: %s is the owner, and these claim: %v", round, owner, alive)
			}
			if round == 2 && owner != "" && !has(a, owner) {
				t.Fatalf("%s owns it and still does not answer", owner)
			}
		}
	})
}

// Who took an address over keeps it when the dead come back with what they claimed when they died.
func TestWhoTookOverKeepsIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, a := drawShared(t), drawAddress(t)
		before := a
		for range 3 {
			a = act(s, a)
		}
		was := ownerOf(s, a)
		for name, n := range s.Nodes {
			n.Alive = true
			s.Nodes[name] = n
		}
		services, _ := served(s, a, was)
		if is := ownerOf(s, a); was != "" && !has(before, was) && is != was && len(services) == mostServed(s, a) {
			t.Fatalf("it moves from %s, which took it over, to %s, which was away", was, is)
		}
	})
}

func TestOneNodeAnnouncesAStickyAddressByOneAdvertisement(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, a := drawShared(t), drawAddress(t)
		a.Services[0].Sticky, s.BGP = true, s.BGP[:min(1, len(s.BGP))]
		if by := announcers(s, a); len(by) > 1 {
			t.Fatalf("it is announced by %v", by)
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
