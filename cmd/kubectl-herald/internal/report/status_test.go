package report

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// healthy returns a cluster of three nodes on one segment. n1 owns 198.51.100.1 of default/web1, and
// so on.
func healthy() *Network {
	n := &Network{
		pools:      map[string]*herald.IPPool{"public": pool("public", 0, "198.51.100.0/24")},
		l2:         []*herald.L2Advertisement{{}},
		services:   map[string]*corev1.Service{},
		namespaces: map[string]*corev1.Namespace{"default": {ObjectMeta: metav1.ObjectMeta{Name: "default"}}},
		ready:      map[string]bool{},
	}
	for i := range 3 {
		address, name, node := fmt.Sprintf("198.51.100.%d", i+1), fmt.Sprintf("web%d", i+1), fmt.Sprintf("n%d", i+1)
		n.records = append(n.records, record(address, "public", "default/"+name))
		n.services["default/"+name] = &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)},
			Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}},
			Status:     corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: address}}}},
		}
		n.ready["default/"+name] = true
		n.nodes = append(n.nodes, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: node},
			Status: corev1.NodeStatus{
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
				Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("198.51.100.%d", 101+i)}},
			},
		})
		n.speakers = append(n.speakers, &herald.SpeakerStatus{
			ObjectMeta: metav1.ObjectMeta{Name: node},
			Status: herald.SpeakerStatusStatus{
				Interfaces: []herald.SpeakerInterface{
					{Name: "eth0", MAC: fmt.Sprintf("02:00:5e:00:53:%02d", i+1), Subnets: []string{fmt.Sprintf("198.51.100.%d/24", 101+i)}},
					{Name: "veth1"},
				},
				Claims:      []herald.SpeakerClaim{{Address: address, Interface: "eth0", Since: now.Add(-3 * time.Minute).Format(time.RFC3339), Reason: "highest rank"}},
				L2Addresses: 1, Established: "1/1", Sessions: []herald.SpeakerSession{{Peer: "tor-a", State: "Established"}},
			},
		})
		holder, duration, renewed := node, int32(30), metav1.NewMicroTime(now.Add(-10*time.Second))
		n.leases = append(n.leases, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: "speaker-" + node},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &duration, RenewTime: &renewed},
		})
	}
	meet(n.speakers...)
	ccm := lease("", 10*time.Second)
	leader := "n1_5d0c"
	ccm.Name, ccm.Spec.HolderIdentity = "herald-ccm", &leader
	n.leases = append(n.leases, ccm)
	n.pools["public"].Status.Conditions = []metav1.Condition{
		{Type: herald.PoolReady, Status: metav1.ConditionTrue}, {Type: herald.ConditionAccepted, Status: metav1.ConditionTrue},
	}
	n.l2[0].Status.Conditions = []metav1.Condition{{Type: herald.ConditionAccepted, Status: metav1.ConditionTrue}}
	return n
}

// ours describes how herald-ccm runs.
var ours = &CCM{Class: herald.LoadBalancerClass, Classless: true}

// says sets a condition of an object to False.
func says(conditions *[]metav1.Condition, kind, reason, message string) {
	meta.SetStatusCondition(conditions, metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message})
}

// eth0 returns the interface of a node; 0 is that of n1.
func (n *Network) eth0(i int) *herald.SpeakerInterface { return &n.speakers[i].Status.Interfaces[0] }

// claim adds a claim for the address of n1.
func (n *Network) claim(i int, deputyFor string) {
	s := &n.speakers[i].Status
	s.Claims = append(s.Claims, herald.SpeakerClaim{Address: "198.51.100.1", Interface: "eth0", Since: now.Add(-5 * time.Second).Format(time.RFC3339), DeputyFor: deputyFor})
	if deputyFor == "" {
		s.L2Addresses++
	}
}

// hears sets the nodes that an interface hears.
func hears(i *herald.SpeakerInterface, nodes ...string) {
	i.Hears, i.Neighbours = nodes, int32(len(nodes))
}

// split separates n1 from n2 and n3, which take over its address.
func (n *Network) split() {
	dead := func(node string) herald.SpeakerDeath {
		return herald.SpeakerDeath{Node: node, Interface: "eth0", At: now.Add(-4 * time.Second).Format(time.RFC3339)}
	}
	n.claim(1, "")
	n.eth0(0).State = herald.SegmentAlone
	hears(n.eth0(0))
	hears(n.eth0(1), "n3")
	hears(n.eth0(2), "n2")
	n.speakers[0].Status.Deaths = []herald.SpeakerDeath{dead("n2"), dead("n3")}
	for _, i := range []int{1, 2} {
		n.speakers[i].Status.Deaths = []herald.SpeakerDeath{dead("n1")}
	}
}

func TestStatusOfANodeWithoutASpeakerByDesign(t *testing.T) {
	n := healthy()
	windows := node("win1")
	windows.Labels = map[string]string{corev1.LabelOSStable: "windows"}
	n.nodes = append(n.nodes, windows)
	r := n.status(ours, now)
	if said := r.Text(coloured(), false, now); len(r.Problems) > 0 || !strings.Contains(said, " no speaker on windows ") {
		t.Errorf("%+v in\n%s", r.Problems, said)
	}
	windows.Labels = nil
	if r := n.status(ours, now); len(r.Problems) != 1 || r.Problems[0].Kind != noSpeaker {
		t.Errorf("without the label: %+v", r.Problems)
	}
}

func TestStatusWhereNothingIsWrong(t *testing.T) {
	r := healthy().status(ours, now)
	want := `Nothing needs attention.

NODE  INTERFACE  STATE   NEIGHBOURS  ADDRESSES  SESSIONS
n1    eth0       Member  2           1          1/1
n2    eth0       Member  2           1          1/1
n3    eth0       Member  2           1          1/1

3 addresses on segments: 3 owned.

ADDRESS       SERVICE       INTERFACE  OWNER  FOR  WHY
198.51.100.1  default/web1  eth0       n1     3m   highest rank
198.51.100.2  default/web2  eth0       n2     3m   highest rank
198.51.100.3  default/web3  eth0       n3     3m   highest rank
`
	if diff := cmp.Diff(want, r.Text(StyleOf(&bytes.Buffer{}), true, now)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestStatusOfANewCluster checks that status says what to do next where there is no IPPool.
func TestStatusOfANewCluster(t *testing.T) {
	const hint = "There are no IPPools, so no Service is given an address: create one"
	n := healthy()
	n.pools, n.records, n.services = nil, nil, nil
	r := n.status(ours, now)
	if said := r.Text(coloured(), false, now); len(r.Problems) > 0 || !strings.Contains(said, hint) || !strings.Contains(said, "docs/quick-start.md") {
		t.Errorf("%+v in\n%s", r.Problems, said)
	}
	n.unreadable = []problem{{Kind: unreadable, Text: "IPPool public cannot be read"}}
	if said := n.status(ours, now).Text(coloured(), false, now); strings.Contains(said, hint) {
		t.Errorf("there is one:\n%s", said)
	}
	if said := healthy().status(ours, now).Text(coloured(), false, now); strings.Contains(said, hint) {
		t.Errorf("there is one:\n%s", said)
	}
}

// TestStatus changes one thing at a time, and checks all resulting problems.
func TestStatus(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(n *Network)
		want   []string // in the form "Kind: text"
		also   string   // in the text for people
	}{
		{"a stranger", func(n *Network) {
			for i := range 2 {
				n.speakers[i].Status.Conflicts = []herald.SpeakerConflict{{Address: "198.51.100.3", Interface: "eth0", MAC: "02:00:5e:00:53:99", At: "nonsense"}}
			}
		}, []string{"AddressConflict: 198.51.100.3: a machine that is not a speaker uses it: 02:00:5e:00:53:99 on eth0 of n1: find that machine and take the address from it"}, ""},
		{"a stranger that herald-ccm tells of", func(n *Network) {
			n.records[2].Status.Conditions = []metav1.Condition{{Type: herald.AllocationConflict, Status: metav1.ConditionTrue, Message: "somebody uses it"}}
		}, []string{"AddressConflict: 198.51.100.3: somebody uses it: find that machine and take the address from it"}, ""},
		{"two owners", func(n *Network) { n.claim(1, "") },
			[]string{"TwoOwners: 198.51.100.1 has 2 owners on one segment: n1 (eth0, for 3m), n2 (eth0, for 5s): kubectl herald verify 198.51.100.1 asks who answers"}, ""},
		{"owners on two segments", func(n *Network) {
			n.claim(1, "")
			hears(n.eth0(0))
			hears(n.eth0(1), "n3")
			hears(n.eth0(2), "n2")
		}, nil, "3 owned"},
		{"no owner", func(n *Network) { n.speakers[0].Status.Claims, n.speakers[0].Status.L2Addresses = nil, 0 },
			[]string{"NoOwner: 198.51.100.1 of default/web1 has no owner: kubectl herald explain service default/web1 says why"}, "2 owned, 1 without an owner"},
		{"an address that is too new to be reported", func(n *Network) {
			n.speakers[0].Status.Claims, n.speakers[0].Status.L2Addresses = nil, 0
			n.records[0].CreationTimestamp = metav1.NewTime(now.Add(time.Second - reportedWithin))
		}, nil, "2 owned, 1 too new to be reported"},
		{"an address that should have been reported", func(n *Network) {
			n.speakers[0].Status.Claims, n.speakers[0].Status.L2Addresses = nil, 0
			n.records[0].CreationTimestamp = metav1.NewTime(now.Add(-reportedWithin))
		}, []string{"NoOwner: 198.51.100.1 of default/web1 has no owner: kubectl herald explain service default/web1 says why"}, "2 owned, 1 without an owner"},
		{"no endpoint", func(n *Network) {
			n.speakers[0].Status.Claims, n.speakers[0].Status.L2Addresses, n.ready = nil, 0, nil
		}, nil, "2 owned, 1 without a ready endpoint"},
		{"more than is listed", func(n *Network) {
			n.speakers[0].Status.Claims, n.speakers[0].Status.L2Addresses = nil, 3000
		}, nil, "1 not known, as SpeakerStatuses list 500 each at most"},
		{"an advertisement for others", func(n *Network) { n.l2[0].Spec.Pools = []string{"gold"} }, nil, "3 addresses on segments: 3 owned"},
		{"a node without a speaker", func(n *Network) { n.speakers = n.speakers[:2]; hears(n.eth0(0), "n2"); hears(n.eth0(1), "n1") },
			[]string{"NoOwner: 198.51.100.3 of default/web3 has no owner: kubectl herald explain service default/web3 says why", "NoSpeaker: node n3 has no SpeakerStatus: see whether herald-speaker runs there"},
			"n3 - no SpeakerStatus"},
		{"nodes that are not ready", func(n *Network) {
			n.nodes[0].Status.Conditions, n.nodes[1].Status.Conditions[0].Status = nil, corev1.ConditionUnknown
		}, []string{"NodeNotReady: nodes n1, n2 are not Ready: kubectl describe node n1 says why"}, "n2 (not Ready)"},
		{"a death", func(n *Network) {
			n.claim(1, "")
			for _, i := range []int{1, 2} {
				n.speakers[i].Status.Deaths = []herald.SpeakerDeath{{Node: "n1", Interface: "eth0", At: now.Add(-4 * time.Second).Format(time.RFC3339)}}
			}
			hears(n.eth0(1), "n3")
			hears(n.eth0(2), "n2")
			old := metav1.NewMicroTime(now.Add(-time.Hour))
			n.leases[0].Spec.RenewTime = &old
		}, []string{"NodeDead: node n1 died 4s ago, as n2, n3 witnessed on eth0: see to the machine"}, "n1 - dead for 4s - - - n2 eth0 Member 1 2 1/1"},
		{"a segment that is split", func(n *Network) { n.split() }, []string{
			"SegmentSplit: the segment of eth0 is split: these nodes hear only each other, and all reach the API server: n1 | n2, n3: see to the switches and cables between them",
			"TwoOwners: 198.51.100.1 has 2 owners on one segment: n1 (eth0, for 3m), n2 (eth0, for 5s): kubectl herald verify 198.51.100.1 asks who answers",
		}, "3 owned"},
		{"a node that died after a split", func(n *Network) {
			n.split()
			old := metav1.NewMicroTime(now.Add(-time.Hour))
			n.leases[0].Spec.RenewTime = &old
		}, []string{"NodeDead: node n1 died 4s ago, as n2, n3 witnessed on eth0: see to the machine"}, "3 owned"},
		{"a deputy", func(n *Network) { n.claim(2, "n1"); hears(n.eth0(1), "n3"); hears(n.eth0(2), "n2") }, []string{
			"SilentSpeaker: the speaker of node n1 is silent, and node n3 answers on eth0 for 1 address of that node: see why it is silent",
			"UnheardSpeaker: no other speaker hears the speaker of node n1 on eth0, which reports that it has heard n2, n3: see whether it runs, and whether the network drops its frames",
		}, "n1 eth0 not heard for 5s 2 - 1/1"},
		{"a deputy on one of two segments", func(n *Network) {
			n.claim(2, "n1")
			n.speakers[0].Status.Interfaces[1] = herald.SpeakerInterface{Name: "eth1", State: herald.SegmentMember, Subnets: []string{"192.0.2.101/24"}}
		}, []string{
			"SilentSpeaker: the speaker of node n1 is silent, and node n3 answers on eth0 for 1 address of that node: see why it is silent",
		}, "n1 eth0 not heard for 5s 2 - 1/1 eth1 Member 0 0"},
		{"a speaker that nobody hears", func(n *Network) {
			hears(n.eth0(1), "n3")
			hears(n.eth0(2), "n2")
		}, []string{
			"NoOwner: 198.51.100.1 of default/web1 has no owner: kubectl herald explain service default/web1 says why",
			"UnheardSpeaker: no other speaker hears the speaker of node n1 on eth0, which reports that it has heard n2, n3: see whether it runs, and whether the network drops its frames",
		}, "n1 eth0 not heard 2 - 1/1"},
		{"a speaker that ended", func(n *Network) {
			*n.leases[0].Spec.HolderIdentity = ""
			hears(n.eth0(1), "n3")
			hears(n.eth0(2), "n2")
		}, []string{
			"NoOwner: 198.51.100.1 of default/web1 has no owner: kubectl herald explain service default/web1 says why",
			"SilentSpeaker: node n1: its speaker ended 10s ago: see whether its herald-speaker runs and reaches the API server",
		}, "n1 - ended 10s ago - - -"},
		{"a speaker that is silent", func(n *Network) {
			old := metav1.NewMicroTime(now.Add(-time.Hour))
			n.leases[0].Spec.RenewTime = &old
			hears(n.eth0(1), "n3")
			hears(n.eth0(2), "n2")
		}, []string{
			"NoOwner: 198.51.100.1 of default/web1 has no owner: kubectl herald explain service default/web1 says why",
			"SilentSpeaker: node n1: its speaker has not renewed the Lease speaker-n1 for 60m: see whether its herald-speaker runs and reaches the API server",
		}, "n1 - silent for 60m - - -"},
		{"a speaker that is heard and does not reach the API server", func(n *Network) {
			old := metav1.NewMicroTime(now.Add(-time.Hour))
			n.leases[0].Spec.RenewTime = &old
		}, []string{
			"SilentSpeaker: node n1: its speaker has not renewed the Lease speaker-n1 for 60m: see whether its herald-speaker runs and reaches the API server",
		}, "n1 eth0 Member, reported 60m ago 2 1 1/1"},
		{"one way", func(n *Network) { hears(n.eth0(0), "n3") },
			[]string{"OneWay: node n1 does not hear n2 on eth0, though it is heard there: see whether the network drops multicast frames to it"}, ""},
		{"one way, perhaps: the list is cut", func(n *Network) { n.eth0(0).Hears, n.eth0(0).Neighbours = []string{"n2"}, 70 }, nil, ""},
		{"one way for certain, though the list is cut", func(n *Network) { n.eth0(0).Hears, n.eth0(0).Neighbours = []string{"n3"}, 70 },
			[]string{"OneWay: node n1 does not hear n2 on eth0, though it is heard there: see whether the network drops multicast frames to it"}, ""},
		{"degraded, and listening", func(n *Network) {
			n.eth0(0).State, n.eth0(1).State, n.eth0(2).State = herald.SegmentDegraded, herald.SegmentDegraded, herald.SegmentListening
			for i := range 3 {
				hears(n.eth0(i))
			}
		}, []string{
			"Degraded: nodes n1, n2 are Degraded on eth0: there are other speakers with its subnets, and none is heard: check the network between them",
			"Listening: node n3 is Listening on eth0, and not yet owners of addresses",
		}, "n3 eth0 Listening 0"},
		{"Services that wait", func(n *Network) {
			both := corev1.IPFamilyPolicyRequireDualStack
			web4 := n.services["default/web1"].DeepCopy()
			web4.Name, web4.Status = "web4", corev1.ServiceStatus{}
			n.services["default/web4"] = web4
			n.services["default/web2"].Spec.IPFamilies, n.services["default/web2"].Spec.IPFamilyPolicy = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}, &both
			n.services["default/web3"].Annotations = map[string]string{herald.AnnotationIPs: "198.51.100.9"}
			n.services["default/web1"].Annotations = map[string]string{herald.AnnotationIPs: "web"}
		}, []string{
			`ServicePending: default/web1 keeps what it has: annotation herald.dev/ips: "web" is not an IP address: write addresses separated by commas: kubectl herald explain service default/web1 says why`,
			"ServicePending: default/web2 does not have the addresses that it asks for: kubectl herald explain service default/web2 says why",
			"ServicePending: default/web3 does not have the addresses that it asks for: kubectl herald explain service default/web3 says why",
			"ServicePending: default/web4 waits for an address: kubectl herald explain service default/web4 says why",
		}, ""},
		{"Services of another controller", func(n *Network) {
			class := "example.com/gateway"
			n.pools["public"].Spec.AnnounceClasses = []string{class}
			n.services["default/web1"].Spec.LoadBalancerClass = &class // Its address is recorded.
			n.services["default/web2"].Spec.LoadBalancerClass = &class
			n.services["default/web2"].Status.LoadBalancer.Ingress = append(n.services["default/web2"].Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: "203.0.113.9"})
			none := n.services["default/web1"].DeepCopy()
			none.Status = corev1.ServiceStatus{}
			n.services["default/web4"] = none
		}, []string{
			"ServicePending: default/web2 has addresses from its controller that Herald does not announce: kubectl herald explain service default/web2 says why",
		}, ""},
		{"Services that wait for nobody here", func(n *Network) {
			class, at, prefers := "example.com/lb", metav1.NewTime(now), corev1.IPFamilyPolicyPreferDualStack
			for i, change := range []func(*corev1.Service){
				func(svc *corev1.Service) { svc.Spec.LoadBalancerClass = &class },
				func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeClusterIP },
				func(svc *corev1.Service) { svc.DeletionTimestamp = &at },
			} {
				svc := n.services["default/web1"].DeepCopy()
				svc.Status = corev1.ServiceStatus{}
				change(svc)
				n.services[fmt.Sprint("default/other", i)] = svc
			}
			n.services["default/web2"].Spec.IPFamilies, n.services["default/web2"].Spec.IPFamilyPolicy = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}, &prefers
		}, nil, ""},
		{"herald-ccm has ended", func(n *Network) { n.leases[3].Spec.HolderIdentity = nil }, []string{
			"ControllerSilent: herald-ccm ended 10s ago: no Service is given an address, and no condition brought up to date, while it does not run: see its pods",
		}, ""},
		{"herald-ccm does not renew its Lease", func(n *Network) { n.leases[3].Spec.RenewTime.Time = now.Add(-2 * time.Minute) }, []string{
			"ControllerSilent: herald-ccm has not renewed the Lease herald-ccm for 2m: no Service is given an address, and no condition brought up to date, while it does not run: see its pods",
		}, ""},
		{"herald-ccm has never run", func(n *Network) { n.leases = n.leases[:3] }, []string{
			"ControllerSilent: herald-ccm has no Lease in the namespace of Herald (--herald-namespace): no Service is given an address, and no condition brought up to date, while it does not run: see its pods",
		}, ""},
		{"Leases that cannot be read", func(n *Network) { n.leases = nil }, nil, ""},
		{"conditions of configuration objects", func(n *Network) {
			says(&n.pools["public"].Status.Conditions, herald.PoolReady, "Invalid", "that again")
			says(&n.pools["public"].Status.Conditions, herald.ConditionAccepted, "Invalid", "spec.addresses[0] is wrong; the last valid spec stays in force")
			n.pools["new"] = pool("new", 1, "203.0.113.0/24")
			says(&n.l2[0].Status.Conditions, herald.ConditionAnnounced, "NoPoolSelected", "no pool has the name gold")
			n.l2[0].Name = "link"
			n.bgp = []*herald.BGPAdvertisement{{ObjectMeta: metav1.ObjectMeta{Name: "fabric"}}}
			says(&n.bgp[0].Status.Conditions, herald.PoolExclusive, "Overridden", "core comes first")
			n.peers = []*herald.BGPPeer{{ObjectMeta: metav1.ObjectMeta{Name: "tor-a"}}}
			says(&n.peers[0].Status.Conditions, herald.ConditionAccepted, "NoNodeSelected", "no node has the label")
			says(&n.peers[0].Status.Conditions, "Established", "NoSession", "no answer")
		}, []string{
			"ConditionFalse: IPPool new: Accepted is not True (NoStatus): herald-ccm has not seen it yet: see whether it runs: kubectl herald pools new",
			"ConditionFalse: IPPool public: Accepted is not True (Invalid): spec.addresses[0] is wrong; the last valid spec stays in force; not True either: Ready: kubectl herald pools public",
			"ConditionFalse: L2Advertisement link: Announced is not True (NoPoolSelected): no pool has the name gold: kubectl describe l2advertisements.herald.dev link",
			"ConditionFalse: BGPAdvertisement fabric: Exclusive is not True (Overridden): core comes first: kubectl describe bgpadvertisements.herald.dev fabric",
			"ConditionFalse: BGPPeer tor-a: Accepted is not True (NoNodeSelected): no node has the label: kubectl describe bgppeers.herald.dev tor-a",
		}, ""},
		{"a pool that is disabled", func(n *Network) {
			says(&n.pools["public"].Status.Conditions, herald.PoolReady, "Disabled", "spec.disabled is set")
		}, nil, ""},
		{"a pool whose addresses are all in use", func(n *Network) {
			says(&n.pools["public"].Status.Conditions, herald.PoolReady, "Exhausted", "every address is in use")
			says(&n.pools["public"].Status.Conditions, herald.PoolAddressesAvailable, "NoneAvailable", "every IPv4 address is in use")
		}, nil, ""},
		{"addresses out of range", func(n *Network) {
			says(&n.pools["public"].Status.Conditions, herald.PoolInRange, "InUse", "in use though the pool no longer holds them: 198.51.100.1 (default/web1)")
			for _, i := range []int{0, 1} {
				says(&n.records[i].Status.Conditions, herald.AllocationInRange, "NoPool", n.records[i].Spec.Address+" is in no IPPool any more: it stays in use")
			}
			cooling(n.records[1])
		}, []string{"OutOfRange: 198.51.100.1 is in no IPPool any more: it stays in use: kubectl herald explain service default/web1 says what to do"}, ""},
		{"addresses out of range that no record tells of yet", func(n *Network) {
			says(&n.records[1].Status.Conditions, herald.AllocationInRange, "NoPool", "198.51.100.2 is in no IPPool any more: it stays in use")
			cooling(n.records[1])
			says(&n.pools["public"].Status.Conditions, herald.PoolInRange, "InUse", "in use though the pool no longer holds them: 198.51.100.1 (default/web1)")
		}, []string{"ConditionFalse: IPPool public: InRange is not True (InUse): in use though the pool no longer holds them: 198.51.100.1 (default/web1): kubectl herald pools public"}, ""},
		{"nothing announced", func(n *Network) { n.speakers[1].Status.Problem = "kube-proxy does not serve\x1b[2J" },
			[]string{"AnnouncesNothing: node n2 announces nothing: kube-proxy does not serve�[2J"}, ""},
		{"a node that is excluded by the label, which is deliberate", func(n *Network) {
			n.nodes[1].Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""}
			n.speakers[1].Status.Problem = "the node has the label node.kubernetes.io/exclude-from-external-load-balancers"
		}, nil, "Nothing needs attention. NODE INTERFACE STATE NEIGHBOURS ADDRESSES SESSIONS n1 eth0 Member 2 1 1/1 n2 (excluded) eth0 Member 2 1 1/1 n3 eth0 Member 2 1 1/1 " +
			"Excluded by the label node.kubernetes.io/exclude-from-external-load-balancers, so that nothing is announced from there: n2."},
		{"an excluded node whose kube-proxy is dead", func(n *Network) {
			n.nodes[1].Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""}
			n.speakers[1].Status.Problem = "kube-proxy does not serve on this node"
		}, []string{"AnnouncesNothing: node n2 announces nothing: kube-proxy does not serve on this node"}, "n2 (excluded)"},
		{"a node that a taint excludes", func(n *Network) {
			n.nodes[1].Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeOutOfService}}
			n.speakers[1].Status.Problem = "the node has the taint node.kubernetes.io/out-of-service"
		}, []string{"AnnouncesNothing: node n2 announces nothing: the node has the taint node.kubernetes.io/out-of-service"}, ""},
		{"sessions", func(n *Network) {
			for i := range 2 {
				n.speakers[i].Status.Sessions[0] = herald.SpeakerSession{Peer: "tor-a", State: "Down", Reason: "no answer"}
			}
			n.speakers[2].Status.Sessions[0] = herald.SpeakerSession{Peer: "tor-a", State: "Invalid", Reason: "no such Secret"}
		}, []string{"SessionDown: the session with tor-a is Down on n1, n2: no answer: kubectl herald bgp peers tor-a says more", "SessionDown: the session with tor-a is Invalid on n3: no such Secret: kubectl herald bgp peers tor-a says more"}, ""},
		{"routes that are withheld", func(n *Network) {
			for i := range 2 {
				n.speakers[i].Status.Sessions[0].Withheld, n.speakers[i].Status.Sessions[0].Reason = []herald.IPFamily{herald.IPv6}, "the router does not speak IPv6 unicast"
			}
			n.speakers[2].Status.Sessions[0].Reason = "the Secret is gone, and its last password is in use"
		}, []string{"RoutesWithheld: IPv6 routes for tor-a are withheld on n1, n2: the router does not speak IPv6 unicast: kubectl herald bgp peers tor-a says more"}, ""},
		{"paths that BFD finds dead", func(n *Network) {
			for i := range 2 {
				n.speakers[i].Status.Sessions[0].BFD, n.speakers[i].Status.Sessions[0].BFDReason = "Down", "the router has fallen silent"
			}
			n.speakers[2].Status.Sessions[0].BFD = "Up"
		}, []string{"BFDDown: BFD with tor-a is Down on n1, n2: the router has fallen silent: kubectl herald bgp peers tor-a says more"}, "n1 eth0 Member 2 1 1/1, BFD 0/1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := healthy()
			c.change(n)
			for _, o := range n.speakers {
				cleanAll(&o.Status)
			}
			r := n.status(ours, now)
			var got []string
			for _, p := range r.Problems {
				got = append(got, string(p.Kind)+": "+p.Text)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			said := r.Text(StyleOf(&bytes.Buffer{}), false, now)
			if !strings.Contains(strings.Join(strings.Fields(said), " "), c.also) {
				t.Errorf("no %q in\n%s", c.also, said)
			}
		})
	}
}

// TestStatusOfManyAddresses is about the text for people.
func TestStatusOfManyAddresses(t *testing.T) {
	n := healthy()
	for i := range 256 {
		address := netip.AddrFrom4([4]byte{198, 51, 101, byte(i)}).String()
		svc := *n.services["default/web1"]
		svc.Name, svc.UID = address, types.UID(address)
		svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: address}}
		n.services["default/"+address], n.ready["default/"+address] = &svc, true
		n.records = append(n.records, record(address, "public", "default/"+address))
	}
	r := n.status(ours, now)
	said := r.Text(StyleOf(&bytes.Buffer{}), false, now)
	if len(r.Problems) != 256 || strings.Count(said, "\n") > 20 || !strings.Contains(said, "and 246 more of this kind (NoOwner): -o json lists all") {
		t.Errorf("%d problems:\n%s", len(r.Problems), said)
	}
}
