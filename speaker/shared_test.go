package speaker

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/announce"
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
	s := in.shared("n1", true, nil)
	want := &announce.Shared{
		Self: "n1", Healthy: true,
		Nodes: map[string]announce.Node{
			"n1": {Labels: labels, Ready: true}, "n2": {Labels: excluded, Excluded: true}, "n3": {Excluded: true}, "n4": {Excluded: true}, "n5": {Excluded: true},
			"cordoned": {},
		},
		Pools:      map[string]announce.Pool{"public": {Labels: labels}, "timid": {Yield: true}, "bold": {}},
		Namespaces: map[string]map[string]string{"default": labels}, Infrastructure: map[netip.Addr]string{},
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("%+v, want %+v", s, want)
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
	s := in.shared("n1", true, nil)
	refuseGateways(s, gateways)
	_, a := cluster(t, "n1")
	if d := announce.Decide(s, a); d.Refused != "a gateway of node n1" {
		t.Errorf("%+v", d)
	}
	if what := s.Infrastructure[netip.MustParseAddr("198.51.100.254")]; what != "the address of BGPPeer tor" {
		t.Errorf("a gateway that is a peer is %q", what)
	}
}

func TestUsableAreTheAddressesOfAllPoolsAndRecords(t *testing.T) {
	record := func(address string) *herald.IPAllocation {
		return &herald.IPAllocation{ObjectMeta: metav1.ObjectMeta{Name: address}, Spec: herald.IPAllocationSpec{Address: address, Pool: "a"}}
	}
	in := watched(t,
		&herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: herald.IPPoolSpec{Addresses: []herald.AddressRange{"198.51.100.0/30", "garbage", "198.51.100.9 - 198.51.100.10"}}},
		&herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: herald.IPPoolSpec{Addresses: []herald.AddressRange{"2001:db8::7", "198.51.100.9-2001:db8::1"}}},
		record("198.51.100.2"), record("203.0.113.9"), record("nonsense"))
	var got []string
	for _, r := range in.usable().Ranges() {
		got = append(got, r.String())
	}
	if want := []string{"198.51.100.0-198.51.100.3", "198.51.100.9-198.51.100.10", "203.0.113.9-203.0.113.9", "2001:db8::7-2001:db8::7"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
