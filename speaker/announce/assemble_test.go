package announce

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// objectsOf sorts objects by their kinds.
func objectsOf(objects ...metav1.Object) *Objects {
	all := &Objects{}
	for _, o := range objects {
		switch o := o.(type) {
		case *corev1.Node:
			all.Nodes = append(all.Nodes, o)
		case *herald.IPPool:
			all.Pools = append(all.Pools, o)
		case *herald.L2Advertisement:
			all.L2Advertisements = append(all.L2Advertisements, o)
		case *herald.BGPAdvertisement:
			all.BGPAdvertisements = append(all.BGPAdvertisements, o)
		case *herald.BGPPeer:
			all.BGPPeers = append(all.BGPPeers, o)
		default:
			panic(o)
		}
	}
	return all
}

// poolWith returns the pool with this spec, as far as it can be read.
func poolWith(spec herald.IPPoolSpec) Pool {
	pool, _ := poolOf(&herald.IPPool{Spec: spec})
	return pool
}

func TestInfrastructureIsNodesAndPeers(t *testing.T) {
	addressed := func(name string, addresses ...string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}}}}
		for _, a := range addresses {
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
		}
		return n
	}
	peer := func(name, address string) *herald.BGPPeer {
		return &herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: herald.BGPPeerSpec{Address: address}}
	}
	s, _ := objectsOf(addressed("n2", "198.51.100.2", "2001:DB8::2", "198.51.100.9"), addressed("n1", "198.51.100.1", "198.51.100.9"),
		peer("tor", "198.51.100.254"), peer("near", "fe80::1%eth0"), peer("garbage", "garbage")).Shared()
	want := map[netip.Addr]string{
		netip.MustParseAddr("198.51.100.1"): "an address of node n1", netip.MustParseAddr("198.51.100.2"): "an address of node n2",
		netip.MustParseAddr("2001:db8::2"): "an address of node n2", netip.MustParseAddr("198.51.100.9"): "an address of node n1",
		netip.MustParseAddr("198.51.100.254"): "the address of BGPPeer tor", netip.MustParseAddr("fe80::1"): "the address of BGPPeer near",
	}
	if got := s.Infrastructure; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestAnInvalidEditChangesNothing edits advertisements so that they cannot be read. The last valid ones stay in force.
func TestAnInvalidEditChangesNothing(t *testing.T) {
	l2 := func(name string, selector *metav1.LabelSelector) *herald.L2Advertisement {
		o := &herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: name}}
		o.Spec.NodeSelector = selector
		return o
	}
	bgp := func(name string, selector *metav1.LabelSelector) *herald.BGPAdvertisement {
		o := &herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: name}}
		o.Spec.NodeSelector = selector
		return o
	}
	wrong := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "rack", Operator: "in", Values: []string{"a"}}}}
	before, rejected := objectsOf(l2("a", nil), l2("c", nil), bgp("a", nil)).Shared()
	if len(rejected) > 0 {
		t.Fatal(rejected)
	}
	after, rejected := objectsOf(l2("a", wrong), l2("b", nil), l2("new", wrong), bgp("a", wrong)).Shared()
	if len(rejected) != 3 {
		t.Fatal(rejected)
	}
	after.Keep(before, rejected, nil)
	var names []string
	for _, ad := range after.L2 {
		names = append(names, ad.Name)
	}
	if !slices.Equal(names, []string{"a", "b"}) || len(after.BGP) != 1 || after.BGP[0].Name != "a" {
		t.Errorf("L2Advertisements %v, BGPAdvertisements %v", names, after.BGP)
	}
}

// An edit of a pool that is not valid changes no network that is announced in place of its addresses. The pool's labels are not part of
// its spec. A pool whose first spec is not valid has the addresses that can be read.
func TestAnInvalidEditOfAPoolDissolvesNoNetwork(t *testing.T) {
	wrong := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}
	pool := func(label string, edit func(*herald.IPPoolSpec)) *herald.IPPool {
		o := &herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "public", Labels: map[string]string{"is": label}}}
		o.Spec.Addresses, o.Spec.OnConflict = []herald.AddressRange{"198.51.100.0/24"}, herald.ConflictYield
		edit(&o.Spec)
		return o
	}
	smaller := func(s *herald.IPPoolSpec) {
		s.Addresses, s.OnConflict = []herald.AddressRange{"198.51.100.0/28"}, herald.ConflictDefend
	}
	for name, edit := range map[string]func(*herald.IPPoolSpec){
		"no addresses":             func(s *herald.IPPoolSpec) { s.Addresses = nil },
		"a reversed range":         func(s *herald.IPPoolSpec) { s.Addresses = append(s.Addresses, "203.0.113.9-203.0.113.2") },
		"entries that overlap":     func(s *herald.IPPoolSpec) { s.Addresses = append(s.Addresses, "203.0.113.0/24", "198.51.100.9") },
		"a reversed exclude":       func(s *herald.IPPoolSpec) { s.Exclude = []herald.AddressRange{"198.51.100.9-198.51.100.2"} },
		"the selector":             func(s *herald.IPPoolSpec) { s.ServiceSelector = wrong },
		"the namespaces' selector": func(s *herald.IPPoolSpec) { s.NamespaceSelector = wrong },
	} {
		before, rejected := objectsOf(pool("old", func(*herald.IPPoolSpec) {})).Shared()
		if len(rejected) > 0 {
			t.Fatal(rejected)
		}
		for range 2 { // The last valid spec stays in force however often the inputs are assembled.
			after, rejected := objectsOf(pool("new", func(s *herald.IPPoolSpec) { smaller(s); edit(s) })).Shared()
			if len(rejected) != 1 || rejected[0].Kind != "IPPool" || rejected[0].Name != "public" {
				t.Errorf("%s: rejected are %v", name, rejected)
			}
			after.Keep(before, rejected, nil)
			is := after.Pools["public"]
			if is.Addresses == nil || !is.Addresses.Equal(before.Pools["public"].Addresses) || !is.Yield || is.Labels["is"] != "new" {
				t.Errorf("%s: the pool is %+v", name, is)
			}
			before = after
		}
		after, rejected := objectsOf(pool("new", smaller)).Shared()
		after.Keep(before, rejected, nil)
		if is := after.Pools["public"]; len(rejected) > 0 || !is.Addresses.Equal(poolWith(pool("", smaller).Spec).Addresses) || is.Yield {
			t.Errorf("%s: after the next valid edit %+v, %v", name, is, rejected)
		}
	}
	invalid := func(s *herald.IPPoolSpec) { s.Addresses = append(s.Addresses, "garbage") }
	before, _ := objectsOf(pool("", smaller)).Shared()
	another := pool("", invalid)
	another.UID = "another"
	first, rejected := objectsOf(another).Shared()
	first.Keep(before, rejected, nil) // A pool of the same name that was deleted is another one.
	if is := first.Pools["public"].Addresses; is == nil || !is.ContainsPrefix(netip.MustParsePrefix("198.51.100.0/24")) {
		t.Errorf("a pool that was never valid has %v", is)
	}
}

// While the edit of an advertisement is not valid, the peers that its last valid spec selects come and go.
func TestAnAdvertisementThatIsKeptFollowsItsPeers(t *testing.T) {
	ad := func(nodes *metav1.LabelSelector) *herald.BGPAdvertisement {
		o := &herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
		o.Spec.NodeSelector = nodes
		o.Spec.PeerSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"role": "tor"}}
		return o
	}
	peer := func(name, role string) *herald.BGPPeer {
		return &herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"role": role}}}
	}
	wrong := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "rack", Operator: "in", Values: []string{"a"}}}}
	s, _ := objectsOf(ad(nil), peer("first", "tor")).Shared()
	for _, step := range []struct {
		name  string
		peers []metav1.Object
		want  []string
	}{
		{"the edit", []metav1.Object{peer("first", "tor")}, []string{"first"}},
		{"a new peer", []metav1.Object{peer("first", "tor"), peer("second", "tor")}, []string{"first", "second"}},
		{"a peer with another label", []metav1.Object{peer("first", "spare"), peer("second", "tor")}, []string{"second"}},
	} {
		objects := objectsOf(append(step.peers, ad(wrong))...)
		after, rejected := objects.Shared()
		after.Keep(s, rejected, objects.BGPPeers)
		if s = after; len(s.BGP) != 1 || !slices.Equal(s.BGP[0].Peers, step.want) {
			t.Errorf("%s: %+v, want the peers %v", step.name, s.BGP, step.want)
		}
	}
}

func TestWhatIsAnnouncedWithoutEndpoints(t *testing.T) {
	s, _ := objectsOf(
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "a"}},
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: herald.L2AdvertisementSpec{WithoutEndpoints: herald.EndpointsWithdraw}},
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: herald.L2AdvertisementSpec{WithoutEndpoints: herald.EndpointsAnnounce}},
		&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "a"}},
		&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: herald.BGPAdvertisementSpec{WithoutEndpoints: herald.EndpointsAnnounce}}).Shared()
	if s.L2[0].WithoutEndpoints || s.L2[1].WithoutEndpoints || !s.L2[2].WithoutEndpoints || s.BGP[0].WithoutEndpoints || !s.BGP[1].WithoutEndpoints {
		t.Errorf("%+v %+v", s.L2, s.BGP)
	}
}

// The addresses of a node without a speaker must be known, but such a node must not be chosen for a sticky Service.
func TestNodesWithoutASpeakerAnnounceNothing(t *testing.T) {
	windows := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "win1", Labels: map[string]string{corev1.LabelOSStable: "windows"}}}
	windows.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.9"}}
	linux := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelOSStable: "linux"}}}
	s, _ := (&Objects{Nodes: []*corev1.Node{windows, linux, {ObjectMeta: metav1.ObjectMeta{Name: "n2"}}}}).Shared()
	if got := slices.Sorted(maps.Keys(s.Nodes)); !slices.Equal(got, []string{"n1", "n2"}) {
		t.Errorf("nodes %v", got)
	}
	if what := s.Infrastructure[netip.MustParseAddr("192.0.2.9")]; what != "an address of node win1" {
		t.Errorf("192.0.2.9 is %q", what)
	}
}

func TestHowAnAddressOfAnAdvertisementIsOwned(t *testing.T) {
	s, _ := objectsOf(
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "plain"}, Spec: herald.L2AdvertisementSpec{Rebalance: herald.RebalanceNever}},
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "rich"}, Spec: herald.L2AdvertisementSpec{
			Interfaces: []string{"eth0"}, PreferredNodes: matching("rack", "a"), Rebalance: herald.RebalanceGradual,
		}}).Shared()
	if len(s.L2) != 2 {
		t.Fatalf("%+v", s.L2)
	}
	if ad := s.L2[0]; ad.Gradual || ad.Preferred != nil || ad.Interfaces != nil {
		t.Errorf("%+v", ad)
	}
	if ad := s.L2[1]; !ad.Gradual || !ad.Preferred.Matches(labels.Set{"rack": "a"}) || ad.Preferred.Matches(labels.Set{"rack": "b"}) || !slices.Equal(ad.Interfaces, []string{"eth0"}) {
		t.Errorf("%+v", ad)
	}
}

func TestAnInvalidAdvertisementAffectsOnlyItself(t *testing.T) {
	invalid := herald.Selection{NodeSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}}
	s, rejected := objectsOf(
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: herald.L2AdvertisementSpec{Selection: invalid}},
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "worse"}, Spec: herald.L2AdvertisementSpec{PreferredNodes: invalid.NodeSelector}},
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "z"}},
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "good"}},
		&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: herald.BGPAdvertisementSpec{Selection: invalid}},
		&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "worse"}, Spec: herald.BGPAdvertisementSpec{Communities: []herald.Community{"1:2:3:4"}}},
		&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "z"}},
		&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "good"}}).Shared()
	var about, l2, routes []string
	for _, r := range rejected {
		about = append(about, r.Kind+" "+r.Name)
	}
	for _, ad := range s.L2 {
		l2 = append(l2, ad.Name)
	}
	for _, ad := range s.BGP {
		routes = append(routes, ad.Name)
	}
	slices.Sort(about)
	if want := []string{"BGPAdvertisement bad", "BGPAdvertisement worse", "L2Advertisement bad", "L2Advertisement worse"}; !slices.Equal(about, want) {
		t.Errorf("rejected are %v, want %v", about, want)
	}
	if want := []string{"good", "z"}; !slices.Equal(l2, want) || !slices.Equal(routes, want) {
		t.Errorf("L2Advertisements %v, BGPAdvertisements %v, want %v in this order of both", l2, routes, want)
	}
}

func TestWhichPeersAnAdvertisementIsFor(t *testing.T) {
	for _, story := range []struct {
		name string
		spec herald.BGPAdvertisementSpec
		want []string
	}{
		{"all", herald.BGPAdvertisementSpec{}, []string{"a", "b", "c"}},
		{"named", herald.BGPAdvertisementSpec{Peers: []string{"c", "nobody"}}, []string{"c"}},
		{"selected", herald.BGPAdvertisementSpec{PeerSelector: matching("rack", "a")}, []string{"a", "b"}},
		{"named besides selected", herald.BGPAdvertisementSpec{Peers: []string{"c", "b"}, PeerSelector: matching("rack", "a")}, []string{"a", "b", "c"}},
		{"an empty selector is all", herald.BGPAdvertisementSpec{Peers: []string{"c"}, PeerSelector: &metav1.LabelSelector{}}, []string{"a", "b", "c"}},
	} {
		t.Run(story.name, func(t *testing.T) {
			s, _ := objectsOf(
				&herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "b", Labels: map[string]string{"rack": "a"}}},
				&herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "c", Labels: map[string]string{"rack": "b"}}},
				&herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"rack": "a"}}},
				&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "some"}, Spec: story.spec}).Shared()
			if len(s.BGP) != 1 || !slices.Equal(s.BGP[0].Peers, story.want) {
				t.Errorf("%+v, want peers %v", s.BGP, story.want)
			}
		})
	}
}

func TestWhichNodesHoldTheSessionWithAPeer(t *testing.T) {
	rack, a, b := matching("rack", "a"), map[string]string{"rack": "a"}, map[string]string{"rack": "b"}
	near := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}
	s, _ := objectsOf(
		&herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "all"}},
		&herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "some"}, Spec: herald.BGPPeerSpec{NodeSelector: rack}},
		&herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "invalid"}, Spec: herald.BGPPeerSpec{NodeSelector: near}}).Shared()
	for peer, want := range map[string][2]bool{"all": {true, true}, "some": {true, false}, "invalid": {false, false}} {
		if got := [2]bool{s.holds(peer, a), s.holds(peer, b)}; got != want {
			t.Errorf("%s: held by nodes in rack a and b: %v, want %v", peer, got, want)
		}
	}
}

// TestRangesOfReadsBlanksAnywhere has ranges that herald-ccm reads.
func TestRangesOfReadsBlanksAnywhere(t *testing.T) {
	for _, text := range []herald.AddressRange{"198.51.100.10-198.51.100.20", " 198.51.100.10 - 198.51.100.20 ", "198.51.100.10\t-\t198.51.100.20"} {
		if all := RangesOf([]herald.AddressRange{text}); len(all) != 1 || all[0].String() != "198.51.100.10-198.51.100.20" {
			t.Errorf("%q is read as %v", text, all)
		}
	}
}
