package announce

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bgp/route"
	"github.com/heraldlb/herald/speaker/segment/ownership"
)

// The random snapshots consist of few different values, so that these often match.
var (
	someNodes  = []string{"n1", "n2", "n3", "n4", "n5"}
	somePools  = []string{"p", "q"}
	someLabels = []string{"", "a", "b"}
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
	// Mostly none: each further selector narrows the selection, and an address that nobody announces tests little.
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
		Ready:    rapid.IntRange(0, 3).Draw(t, name+" not Ready") > 0,
	}
}

func drawSegment(t *rapid.T, iface string) Segment {
	on := Segment{Interface: iface}
	for _, name := range drawSome(t, someNodes, "nodes on "+iface) {
		n := neighbour(name, rapid.SampledFrom([]string{"eth0", "eth1", "lan0"}).Draw(t, name+"'s "+iface),
			drawSome(t, []string{"198.51.100.5/25", "198.51.100.6/25", "198.51.100.130/25", "2001:db8::5/64", "198.51.100.1/32"}, name+"'s subnets on "+iface)...)
		on.Nodes = append(on.Nodes, n)
	}
	slices.SortFunc(on.Nodes, CompareNeighbours)
	return on
}

func drawShared(t *rapid.T) *Shared {
	s := &Shared{
		Healthy: true, Nodes: map[string]Node{}, Pools: map[string]Pool{},
		Namespaces: map[string]map[string]string{"default": drawLabels(t, "namespace")},
		Segments:   []Segment{drawSegment(t, "eth0"), drawSegment(t, "eth1")},
	}
	for _, name := range drawSome(t, someNodes, "nodes") {
		s.Nodes[name] = drawNode(t, name)
	}
	for _, name := range drawSome(t, somePools, "pools") {
		pool := poolWith(herald.IPPoolSpec{
			Addresses: []herald.AddressRange{"198.51.100.0/24", "2001:db8::/32"}, Exclude: drawSome(t, []herald.AddressRange{"198.51.100.9"}, name+" excludes"),
		})
		pool.Labels, pool.Yield = drawLabels(t, "pool "+name), rapid.Bool().Draw(t, name+" yields")
		s.Pools[name] = pool
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "L2Advertisements") {
		ad := L2Advertisement{Name: fmt.Sprint("l2-", i), Selector: drawSelection(t, fmt.Sprint("l2-", i))}
		ad.Gradual = rapid.Bool().Draw(t, ad.Name+" is Gradual")
		ad.WithoutEndpoints = rapid.Bool().Draw(t, ad.Name+" announces without endpoints")
		if rapid.Bool().Draw(t, ad.Name+" names interfaces") {
			ad.Interfaces = drawSome(t, []string{"eth0", "eth1", "lan0", "eth9"}, ad.Name+" interfaces")
		}
		if l := drawLabels(t, ad.Name+" prefers"); l != nil {
			ad.Preferred = labels.SelectorFromSet(l)
		}
		s.L2 = append(s.L2, ad)
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "BGPAdvertisements") {
		name := fmt.Sprint("bgp-", i)
		s.BGP = append(s.BGP, BGPAdvertisement{
			Name: name, Selector: drawSelection(t, name), Peers: drawSome(t, []string{"east", "west"}, name+" peers"),
			Attributes: route.Attributes{Prepend: uint8(i)}, WithoutEndpoints: rapid.Bool().Draw(t, name+" announces without endpoints"),
			Length4: rapid.SampledFrom([]int{0, 0, 24, 28, 32}).Draw(t, name+" length"),
		})
	}
	if l := drawLabels(t, "nodes with a session to east"); l != nil {
		s.PeerNodes = map[string]labels.Selector{"east": labels.SelectorFromSet(l)}
	}
	return s
}

func drawService(t *rapid.T, name string) *Service {
	ready := func(family string) []string {
		if rapid.IntRange(0, 2).Draw(t, name+" has none ready "+family) == 0 {
			return nil
		}
		nodes := drawSome(t, append([]string{""}, someNodes...), name+" ready "+family)
		slices.Sort(nodes)
		return nodes
	}
	return &Service{
		Name:   types.NamespacedName{Namespace: "default", Name: name},
		Labels: drawLabels(t, name),
		Local:  rapid.Bool().Draw(t, name+" local"),
		Sticky: rapid.IntRange(0, 3).Draw(t, name+" sticky") == 0,
		Ready4: ready("IPv4"), Ready6: ready("IPv6"),
	}
}

// drawAddress draws an address of one or several Services. Herald does not let Services that differ in Local share an address,
// but its speakers do not rely on that.
func drawAddress(t *rapid.T) *Address {
	a := &Address{
		Addr: rapid.SampledFrom(someVIPs).Draw(t, "address"), Pool: rapid.SampledFrom(somePools).Draw(t, "pool"), New: rapid.Bool().Draw(t, "new"),
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "Services") {
		a.Services = append(a.Services, drawService(t, fmt.Sprint("web-", i)))
	}
	return a
}

// among returns the address as it would be if only these Services had it.
func among(address *Address, services ...*Service) *Address {
	a := *address
	a.Services = services
	return &a
}

// shuffled returns a copy in which every list whose order has no meaning is shuffled. The BGPAdvertisements stay sorted by
// name, because the first counts.
func shuffled(t *rapid.T, shared *Shared, address *Address) (*Shared, *Address) {
	s, a := on(shared.Self, shared), *address
	s.L2 = rapid.Permutation(s.L2).Draw(t, "L2 shuffled")
	s.BGP = slices.Clone(s.BGP)
	for i := range s.BGP {
		s.BGP[i].Peers = rapid.Permutation(s.BGP[i].Peers).Draw(t, "peers shuffled")
	}
	for i := range s.Segments {
		s.Segments[i].Nodes = slices.Clone(s.Segments[i].Nodes)
		for j := range s.Segments[i].Nodes {
			n := &s.Segments[i].Nodes[j]
			n.Subnets = rapid.Permutation(n.Subnets).Draw(t, "subnets shuffled")
		}
	}
	a.Services = rapid.Permutation(a.Services).Draw(t, "Services shuffled")
	return s, &a
}

func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, a := drawShared(t), drawAddress(t)
		s.Self = rapid.SampledFrom(someNodes).Draw(t, "self")
		one, other := Decide(on(s.Self, s), a), Decide(shuffled(t, s, a))
		if !reflect.DeepEqual(one, other) {
			t.Fatalf("the same in another order is decided differently:\n%+v\n%+v", one, other)
		}
	})
}

// announces reports whether an advertisement makes a node announce an address for a Service on a segment.
func (ad L2Advertisement) announces(s *Shared, a *Address, svc *Service, n Neighbour) bool {
	ready := svc.Ready6
	if a.Is4() {
		ready = svc.Ready4
	}
	nowhere := !slices.ContainsFunc(a.Services, func(o *Service) bool { return a.Is4() && len(o.Ready4) > 0 || a.Is6() && len(o.Ready6) > 0 })
	if nowhere && !ad.WithoutEndpoints || !nowhere && (len(ready) == 0 || svc.Local && !slices.Contains(ready, n.Node)) {
		return false
	}
	if !ad.Selector.Pool(a.Pool, s.Pools[a.Pool].Labels) || !ad.Selector.Service(svc.Labels, s.Namespaces["default"]) || !ad.Selector.Node(s.Nodes[n.Node].Labels) {
		return false
	}
	if len(ad.Interfaces) > 0 {
		return slices.Contains(ad.Interfaces, n.Interface)
	}
	return slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return p.Bits() < a.BitLen() && p.Contains(a.Addr) })
}

// placements computes the result of decideL2 without caches.
func placements(s *Shared, a *Address) (all []Placement) {
	for _, on := range s.Segments {
		var known, nodes []string
		serves, preferred, gradual := map[string]int{}, map[string]bool{}, map[string]bool{}
		for _, n := range on.Nodes {
			if node, ok := s.Nodes[n.Node]; !ok || node.Excluded {
				continue
			}
			for _, svc := range a.Services {
				announced := false
				for _, ad := range s.L2 {
					if ad.announces(s, a, svc, n) {
						announced = true
						gradual[n.Node] = gradual[n.Node] || ad.Gradual
						preferred[n.Node] = preferred[n.Node] || ad.Preferred != nil && ad.Preferred.Matches(labels.Set(s.Nodes[n.Node].Labels))
					}
				}
				if announced {
					serves[n.Node]++
				}
			}
			if serves[n.Node] > 0 {
				known = append(known, n.Node)
			}
		}
		if isReady := func(n string) bool { return s.Nodes[n].Ready }; slices.ContainsFunc(known, isReady) {
			known = slices.DeleteFunc(known, func(n string) bool { return !isReady(n) })
		}
		for _, n := range known {
			if !slices.ContainsFunc(known, func(o string) bool { return serves[o] > serves[n] }) {
				nodes = append(nodes, n)
			}
		}
		if len(nodes) == 0 {
			continue
		}
		all = append(all, Placement{Interface: on.Interface, Want: ownership.Want{
			Candidates: ownership.NewCandidates(nodes, func(n string) bool { return preferred[n] }),
			Gradual:    slices.ContainsFunc(nodes, func(n string) bool { return gradual[n] }),
			New:        a.New, Defend: !s.Pools[a.Pool].Yield,
		}})
	}
	return all
}

// The cached results for one address must not change the decision about the next.
func TestDecisionsAreThoseOfTheSlowWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawShared(t)
		byContent := map[string]*ownership.Candidates{}
		for range 4 {
			a := drawAddress(t)
			got, want := Decide(s, a).Segments, placements(s, a)
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("decided\n%+v, want\n%+v", got, want)
			}
			for _, p := range got {
				content := fmt.Sprintf("%+v", *p.Candidates)
				if c, known := byContent[content]; known && c != p.Candidates {
					t.Fatalf("equal candidates are not the same: %s", content)
				}
				byContent[content] = p.Candidates
			}
		}
	})
}

func TestTheRoutesOfAllNodesAreThoseOfEach(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, a := drawShared(t), drawAddress(t)
		if rapid.IntRange(0, 4).Draw(t, "of a node") == 0 {
			s.Infrastructure = map[netip.Addr]string{a.Addr: "an address of node n1"}
		}
		left := time.Second
		s.Healthy, s.Draining = false, &left // The state of the node that asks does not count.
		got, want := maps.Collect(DecideRoutes(s, a)), map[string]Decision{}
		s.Healthy, s.Draining, s.L2 = true, nil, nil
		for node := range s.Nodes {
			if d := Decide(on(node, s), a); len(d.Exports)+len(d.Aggregates) > 0 {
				want[node] = d
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("decided for all\n%+v, and for each\n%+v", got, want)
		}
	})
}

func TestANodeThatIsNotACandidateChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, a := drawShared(t), drawAddress(t)
		gone := rapid.SampledFrom(someNodes).Draw(t, "gone")
		before := Decide(on("n1", s), a).Segments
		for _, p := range before {
			if p.Candidates.Has(gone) {
				return
			}
		}
		delete(s.Nodes, gone)
		if after := Decide(on("n1", s), a).Segments; !reflect.DeepEqual(before, after) {
			t.Fatalf("%s goes, and %+v becomes %+v", gone, before, after)
		}
	})
}

// A shared address is announced if it would be announced for one of its Services alone. For each peer, the attributes are those
// of the first advertisement by name that applies to any of the Services.
func TestAnAddressIsAnnouncedForAnyOfItsServices(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, a := drawShared(t), drawAddress(t)
		s.Self = rapid.SampledFrom(someNodes).Draw(t, "self")
		for _, svc := range a.Services {
			svc.Sticky = false // A sticky Service would restrict the address to one node for all Services.
		}
		placed := map[string]bool{}
		want, aggregates := map[string]route.Attributes{}, map[Aggregate]bool{}
		for _, svc := range a.Services {
			svc.Local = false // A Local Service would keep the address out of networks for all Services.
			if alone := among(a, svc); alone.empty() && !a.empty() {
				continue // For this Service alone, the address might be announced without endpoints.
			}
			d := Decide(on(s.Self, s), among(a, svc))
			for _, p := range d.Segments {
				placed[p.Interface] = true
			}
			for _, a := range d.Aggregates {
				aggregates[a] = true
			}
			for peer, attributes := range d.Exports {
				// Each drawn advertisement prepends as many times as there are advertisements before it by name.
				if first, known := want[peer]; !known || attributes.Prepend < first.Prepend {
					want[peer] = attributes
				}
			}
		}
		d := Decide(on(s.Self, s), a)
		if !maps.EqualFunc(d.Exports, want, route.Attributes.Equal) {
			t.Fatalf("it is announced to %v, want %v", d.Exports, want)
		}
		for _, network := range d.Aggregates {
			if !aggregates[network] {
				t.Fatalf("%v is announced, and would for none of the Services alone", network)
			}
			delete(aggregates, network)
		}
		if len(aggregates) > 0 {
			t.Fatalf("%v is not announced, and would for one of the Services alone", aggregates)
		}
		for _, p := range d.Segments {
			if !placed[p.Interface] {
				t.Fatalf("it has an owner on %s, and would for none of its Services alone", p.Interface)
			}
		}
		if len(d.Segments) != len(placed) {
			t.Fatalf("it has owners on %s; for one of its Services alone it would on %v", said(d), placed)
		}
	})
}

// Only one node announces a sticky address, whatever the number of advertisements and peers.
func TestOneNodeAnnouncesAStickyAddress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, a := drawShared(t), drawAddress(t)
		a.Services[0].Sticky = true
		by := announcers(s, a)
		if len(by) > 1 {
			t.Fatalf("it is announced by %v", by)
		}
		// One node announces it if any node would announce it if it were not sticky.
		for _, svc := range a.Services {
			svc.Sticky = false
		}
		if all := announcers(s, a); (len(all) > 0) != (len(by) > 0) {
			t.Fatalf("it is announced by %v, of %v", by, all)
		}
	})
}
