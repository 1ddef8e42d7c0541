package speaker

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/link"
)

func TestSharedIsAssembledFromWhatStripLeaves(t *testing.T) {
	labels := map[string]string{"l": "v"}
	ready := func(status corev1.ConditionStatus) corev1.NodeStatus {
		return corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionTrue}, {Type: corev1.NodeReady, Status: status, Reason: "KubeletReady"},
		}}
	}
	tainted := func(key string) corev1.NodeSpec {
		return corev1.NodeSpec{Taints: []corev1.Taint{{Key: "other", Effect: corev1.TaintEffectNoExecute}, {Key: key, Effect: corev1.TaintEffectNoSchedule}}}
	}
	excluded := map[string]string{corev1.LabelNodeExcludeBalancers: ""}
	in := watched(t,
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: labels, Annotations: labels}, Status: ready(corev1.ConditionTrue)},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2", Labels: excluded}, Status: ready(corev1.ConditionFalse)},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n3"}, Status: ready(corev1.ConditionUnknown), Spec: tainted(corev1.TaintNodeOutOfService)},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n4"}, Spec: tainted("ToBeDeletedByClusterAutoscaler")},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n5"}, Spec: tainted("node.cloudprovider.kubernetes.io/shutdown")},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "cordoned"}, Spec: tainted(corev1.TaintNodeUnschedulable)},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default", Labels: labels}},
		&herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "public", Labels: labels}},
		&herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "timid"}, Spec: herald.IPPoolSpec{OnConflict: herald.ConflictYield}},
		&herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "bold"}, Spec: herald.IPPoolSpec{OnConflict: herald.ConflictDefend}})
	s := in.shared("n1", true)
	want := &Shared{
		Self: "n1", Healthy: true,
		Nodes: map[string]Node{
			"n1": {Labels: labels, Ready: true}, "n2": {Labels: excluded, Excluded: true}, "n3": {Excluded: true}, "n4": {Excluded: true}, "n5": {Excluded: true},
			"cordoned": {},
		},
		Pools:      map[string]Pool{"public": {Labels: labels}, "timid": {Yield: true}, "bold": {}},
		Namespaces: map[string]map[string]string{"default": labels}, Infrastructure: map[netip.Addr]string{},
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("%+v, want %+v", s, want)
	}
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
	in := watched(t, addressed("n2", "198.51.100.2", "2001:DB8::2", "198.51.100.9"), addressed("n1", "198.51.100.1", "198.51.100.9"),
		peer("tor", "198.51.100.254"), peer("near", "fe80::1%eth0"), peer("garbage", "garbage"))
	want := map[netip.Addr]string{
		netip.MustParseAddr("198.51.100.1"): "an address of node n1", netip.MustParseAddr("198.51.100.2"): "an address of node n2",
		netip.MustParseAddr("2001:db8::2"): "an address of node n2", netip.MustParseAddr("198.51.100.9"): "an address of node n1",
		netip.MustParseAddr("198.51.100.254"): "the address of BGPPeer tor", netip.MustParseAddr("fe80::1"): "the address of BGPPeer near",
	}
	if got := in.shared("n1", true).Infrastructure; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestGatewaysAreInfrastructure(t *testing.T) {
	in := watched(t, &herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor"}, Spec: herald.BGPPeerSpec{Address: "198.51.100.254"}})
	gateways := gatewaysOf([]link.Interface{
		{Name: "eth0", Gateways: parseAddresses("198.51.100.7", "fe80::1")}, {Name: "eth1", Gateways: parseAddresses("198.51.100.254", "198.51.100.7")},
	})
	if want := parseAddresses("198.51.100.7", "198.51.100.254", "fe80::1"); !slices.Equal(gateways, want) {
		t.Fatalf("%v, want %v", gateways, want)
	}
	s := in.shared("n1", true)
	s.refuseGateways(gateways)
	_, a := cluster()
	if d := Decide(s, a); d.Refused != "a gateway of node n1" {
		t.Errorf("%+v", d)
	}
	if what := s.Infrastructure[netip.MustParseAddr("198.51.100.254")]; what != "the address of BGPPeer tor" {
		t.Errorf("a gateway that is a peer is %q", what)
	}
}

func TestWhatIsAnnouncedWithoutEndpoints(t *testing.T) {
	in := watched(t,
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "a"}},
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: herald.L2AdvertisementSpec{WithoutEndpoints: herald.EndpointsWithdraw}},
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: herald.L2AdvertisementSpec{WithoutEndpoints: herald.EndpointsAnnounce}},
		&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "a"}},
		&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: herald.BGPAdvertisementSpec{WithoutEndpoints: herald.EndpointsAnnounce}})
	s := in.shared("n1", true)
	if s.L2[0].WithoutEndpoints || s.L2[1].WithoutEndpoints || !s.L2[2].WithoutEndpoints || s.BGP[0].WithoutEndpoints || !s.BGP[1].WithoutEndpoints {
		t.Errorf("%+v %+v", s.L2, s.BGP)
	}
}

func TestHowAnAddressOfAnAdvertisementIsOwned(t *testing.T) {
	in := watched(t,
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "plain"}, Spec: herald.L2AdvertisementSpec{Rebalance: herald.RebalanceNever}},
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "rich"}, Spec: herald.L2AdvertisementSpec{
			Interfaces: []string{"eth0"}, PreferredNodes: matching("rack", "a"), Rebalance: herald.RebalanceGradual,
		}})
	s := in.shared("n1", true)
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

func TestRangesAreThoseOfAllPools(t *testing.T) {
	in := watched(t,
		&herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: herald.IPPoolSpec{Addresses: []herald.AddressRange{"198.51.100.0/30", "garbage", "198.51.100.9 - 198.51.100.10"}}},
		&herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: herald.IPPoolSpec{Addresses: []herald.AddressRange{"2001:db8::7", "198.51.100.9-2001:db8::1"}}})
	var got []string
	for _, r := range in.ranges() {
		got = append(got, r.String())
	}
	slices.Sort(got)
	if want := []string{"198.51.100.0-198.51.100.3", "198.51.100.9-198.51.100.10", "2001:db8::7-2001:db8::7"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestAnInvalidAdvertisementAffectsOnlyItself(t *testing.T) {
	invalid := herald.Selection{NodeSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}}
	in := watched(t,
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: herald.L2AdvertisementSpec{Selection: invalid}},
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "worse"}, Spec: herald.L2AdvertisementSpec{PreferredNodes: invalid.NodeSelector}},
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "z"}},
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "good"}},
		&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: herald.BGPAdvertisementSpec{Selection: invalid}},
		&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "worse"}, Spec: herald.BGPAdvertisementSpec{Communities: []herald.Community{"1:2:3:4"}}},
		&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "z"}},
		&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "good"}})
	s, rejected := in.objects().Shared()
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
			in := watched(t,
				&herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "b", Labels: map[string]string{"rack": "a"}}},
				&herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "c", Labels: map[string]string{"rack": "b"}}},
				&herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"rack": "a"}}},
				&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "some"}, Spec: story.spec})
			s := in.shared("n1", true)
			if len(s.BGP) != 1 || !slices.Equal(s.BGP[0].Peers, story.want) {
				t.Errorf("%+v, want peers %v", s.BGP, story.want)
			}
		})
	}
}

func TestWhichNodesHoldTheSessionWithAPeer(t *testing.T) {
	rack, a, b := matching("rack", "a"), map[string]string{"rack": "a"}, map[string]string{"rack": "b"}
	near := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}
	in := watched(t,
		&herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "all"}},
		&herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "some"}, Spec: herald.BGPPeerSpec{NodeSelector: rack}},
		&herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "invalid"}, Spec: herald.BGPPeerSpec{NodeSelector: near}})
	s := in.shared("n1", true)
	for peer, want := range map[string][2]bool{"all": {true, true}, "some": {true, false}, "invalid": {false, false}} {
		if got := [2]bool{s.holds(peer, a), s.holds(peer, b)}; got != want {
			t.Errorf("%s: held by nodes in rack a and b: %v, want %v", peer, got, want)
		}
	}
}
