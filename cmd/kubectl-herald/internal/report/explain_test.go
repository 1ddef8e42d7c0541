package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// now is the time at which a Service is explained.
var now = began.Add(time.Hour)

// story is default/web and everything that concerns it.
type story struct {
	*Objects
	service *corev1.Service
}

// served returns default/web with 198.51.100.1, which n1 owns and both nodes announce to both routers.
func served() *story {
	rec := record("198.51.100.1", "public", "default/web")
	rec.CreationTimestamp = metav1.NewTime(began)
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "web", Labels: map[string]string{"app": "web"}},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: 80}}},
		Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "198.51.100.1"}}}},
	}
	s := &story{service: svc, Objects: &Objects{
		Services: []*corev1.Service{svc}, Pools: []*herald.IPPool{pool("public", 0, "198.51.100.0/24")}, Allocations: []*herald.IPAllocation{rec},
		Namespaces:       []*corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "default"}}},
		Endpoints:        []*discoveryv1.EndpointSlice{endpoints(discoveryv1.AddressTypeIPv4, "n1")},
		L2Advertisements: []*herald.L2Advertisement{{ObjectMeta: metav1.ObjectMeta{Name: "link"}}},
		BGPAdvertisements: []*herald.BGPAdvertisement{
			{ObjectMeta: metav1.ObjectMeta{Name: "fabric"}},
		},
		BGPPeers: []*herald.BGPPeer{{ObjectMeta: metav1.ObjectMeta{Name: "tor-a"}}, {ObjectMeta: metav1.ObjectMeta{Name: "tor-b"}}},
		Nodes:    []*corev1.Node{node("n1"), node("n2")},
		Speakers: []*herald.SpeakerStatus{speakerOf("n1", "198.51.100.1", "Established", "Established"), speakerOf("n2", "", "Established", "Established")},
		Leases:   []*coordinationv1.Lease{lease("n1", 10*time.Second), lease("n2", 10*time.Second)},
	}}
	meet(s.Speakers...)
	return s
}

func node(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
	}}
}

// lease returns the Lease of a node's speaker, renewed some time ago.
func lease(node string, ago time.Duration) *coordinationv1.Lease {
	duration, renewed := int32(30), metav1.NewMicroTime(now.Add(-ago))
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "speaker-" + node},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &node, LeaseDurationSeconds: &duration, RenewTime: &renewed},
	}
}

// endpoints returns the endpoints of default/web, one pod on each of the nodes.
func endpoints(family discoveryv1.AddressType, nodes ...string) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "web-" + string(family), Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: family, Ports: []discoveryv1.EndpointPort{{Name: new(""), Protocol: new(corev1.ProtocolTCP), Port: new(int32(8080))}},
	}
	for i, n := range nodes {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{NodeName: &n, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: fmt.Sprint("web-", i)}})
	}
	return slice
}

// speakerOf returns the report of a node that owns an address, with the states of its sessions with tor-a and tor-b.
func speakerOf(node, claim, a, b string) *herald.SpeakerStatus {
	o := &herald.SpeakerStatus{ObjectMeta: metav1.ObjectMeta{Name: node}}
	o.Status.Interfaces = []herald.SpeakerInterface{{Name: "eth0", State: herald.SegmentAlone, Subnets: []string{"198.51.100.0/24"}}}
	o.Status.Sessions = []herald.SpeakerSession{{Peer: "tor-a", State: a, Reason: "no answer"}, {Peer: "tor-b", State: b, Reason: "no answer"}}
	if claim != "" {
		since := began.Add(20 * time.Minute).Format(time.RFC3339)
		o.Status.Claims = []herald.SpeakerClaim{{Address: claim, Interface: "eth0", Since: since, Reason: "highest rank"}, {Address: "198.51.100.9", Interface: "eth0"}}
		o.Status.L2Addresses = 2
	}
	return o
}

// meet makes speakers hear each other on eth0.
func meet(speakers ...*herald.SpeakerStatus) {
	for _, o := range speakers {
		i := &o.Status.Interfaces[0]
		i.State, i.Hears = herald.SegmentMember, nil
		for _, other := range speakers {
			if other != o {
				i.Hears = append(i.Hears, other.Name)
			}
		}
		i.Neighbours = int32(len(i.Hears))
	}
}

// waiting returns default/web without an address.
func waiting() *story {
	s := served()
	s.service.Status, s.Allocations, s.Speakers[0].Status.Claims = corev1.ServiceStatus{}, nil, nil
	return s
}

// six returns default/web with 2001:db8::1, and an endpoint of that family.
func six() *story {
	s := served()
	s.service.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol}
	s.service.Status.LoadBalancer.Ingress[0].IP = "2001:db8::1"
	s.Pools[0].Spec.Addresses = []herald.AddressRange{"2001:db8::/64"}
	s.Allocations[0] = record("2001:db8::1", "public", "default/web")
	s.Endpoints = []*discoveryv1.EndpointSlice{endpoints(discoveryv1.AddressTypeIPv6, "n1")}
	s.BGPAdvertisements = nil
	for _, o := range s.Speakers {
		o.Status.Interfaces[0].Subnets = append(o.Status.Interfaces[0].Subnets, "2001:db8::/64")
	}
	s.Speakers[0].Status.Claims[0].Address = "2001:db8::1"
	return s
}

// l2 and bgp leave one kind of advertisement, and remove the claims.
func (s *story) l2() *story {
	s.BGPAdvertisements, s.Speakers[0].Status.Claims, s.Speakers[0].Status.L2Addresses = nil, nil, 0
	return s
}

func (s *story) bgp() *story {
	s.L2Advertisements, s.Speakers[0].Status.Claims, s.Speakers[0].Status.L2Addresses = nil, nil, 0
	return s
}

func (s *story) annotate(key, value string) {
	s.service.Annotations = map[string]string{key: value}
}

func (s *story) report(t *testing.T) *ServiceReport {
	t.Helper()
	r, err := Explain(s.Objects, s.service, &CCM{Class: herald.LoadBalancerClass, Classless: true}, now)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *ServiceReport) plain() string { return r.Text(StyleOf(&bytes.Buffer{})) }

// TestExplainSaysHowToFindOutWhetherPodsListen checks for which Services explain says so.
func TestExplainSaysHowToFindOutWhetherPodsListen(t *testing.T) {
	https := corev1.ServicePort{Name: "https", Port: 443, TargetPort: intstr.FromString("tls")}
	for _, c := range []struct {
		name   string
		change func(s *story)
		want   string
	}{
		{"a number", func(s *story) { s.service.Spec.Ports[0].TargetPort = intstr.FromInt32(8081) },
			"If clients cannot connect to port 80, see whether the pods listen on targetPort 8081: kubectl -n default port-forward service/web :80, and connect to the port of localhost that it prints."},
		{"several ports", func(s *story) {
			s.service.Spec.Ports = append(s.service.Spec.Ports, https)
			s.Endpoints[0].Ports = append(s.Endpoints[0].Ports, discoveryv1.EndpointPort{Name: new("https"), Port: new(int32(8443))})
		}, "If clients cannot connect to port 80 or 443, see whether the pods listen on targetPort 80 or tls: kubectl -n default port-forward service/web :80 :443, and connect to the port of localhost that it prints."},
		{"UDP only", func(s *story) {
			s.service.Spec.Ports[0].Protocol, s.Endpoints[0].Ports[0].Protocol = corev1.ProtocolUDP, new(corev1.ProtocolUDP)
		}, ""},
		{"EndpointSlices written by hand", func(s *story) { s.service.Spec.Selector = nil }, ""},
		{"something else is to be done", func(s *story) { s.L2Advertisements, s.BGPAdvertisements = nil, nil }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := served()
			c.change(s)
			r := s.report(t)
			if r.Check != c.want || c.want != "" && !strings.HasSuffix(r.plain(), c.want+"\n") {
				t.Errorf("check: %s, want %s, in\n%s", r.Check, c.want, r.plain())
			}
		})
	}
}

func TestExplainWhatIsServed(t *testing.T) {
	want := `default/web has no class: herald-ccm serves it
  asks for      IPv4
  pools      ✓  public IPv4: has 253 of 256 IPv4 addresses free
  has        ✓  198.51.100.1 from pool public, recorded for 60m
  endpoints     1 ready, on n1
  announced  ✓  198.51.100.1 by ARP on eth0: node n1 owns it, for 40m (highest rank)
             ✓  198.51.100.1 by BGP: n1, n2 to tor-a
             ✓  198.51.100.1 by BGP: n1, n2 to tor-b

Nothing has to be done in Herald: it announces the Service.
If clients cannot connect to port 80, see whether the pods listen on targetPort 80: kubectl -n default port-forward service/web :80, and connect to the port of localhost that it prints.
`
	if diff := cmp.Diff(want, served().report(t).plain()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestExplainForPrograms checks the names of fields, which must not change, and that empty lists are not null.
func TestExplainForPrograms(t *testing.T) {
	other, down := served(), served()
	other.service.Spec.Type = corev1.ServiceTypeNodePort
	down.Speakers[0].Status.Sessions[1].State = "Down"
	local := waiting()
	local.service.Spec.ExternalTrafficPolicy, local.Endpoints = corev1.ServiceExternalTrafficPolicyLocal, nil
	for _, c := range []struct {
		name string
		of   *story
		want string
	}{
		{"served, with one session down", down, `service: default/web
class: 'has no class: herald-ccm serves it'
asks: [IPv4]
ignored: []
pools:
- {pool: public, family: IPv4, fits: true, text: has 253 of 256 IPv4 addresses free}
addresses:
- {address: 198.51.100.1, text: 'from pool public, recorded for 60m', wrong: false}
endpoints: {ready: 1, ipv4: 1, ipv6: 0, nodes: [n1], local: false, unserved: []}
announced:
- {address: 198.51.100.1, text: 'by ARP on eth0: node n1 owns it, for 40m (highest rank)', wrong: false}
- {address: 198.51.100.1, text: 'by BGP: n1, n2 to tor-a', wrong: false}
- {address: 198.51.100.1, text: 'by BGP: n2 to tor-b', wrong: false}
- {address: 198.51.100.1, text: 'by BGP: the session of node n1 with tor-b is Down: no answer', wrong: true}
unread: []
unseen: []
check: ''
next: "198.51.100.1 by BGP: the session of node n1 with tor-b is Down: no answer: compare the BGPPeer with the router's configuration: kubectl describe bgppeers.herald.dev tor-b"
`},
		{"waiting, without an endpoint", local, `service: default/web
class: 'has no class: herald-ccm serves it'
asks: [IPv4]
ignored: []
pools:
- {pool: public, family: IPv4, fits: true, text: has 254 of 256 IPv4 addresses free}
addresses: []
endpoints: {ready: 0, ipv4: 0, ipv6: 0, nodes: [], local: true, unserved: []}
announced: []
unread: []
unseen: []
check: ''
next: 'it can have 198.51.100.1 of pool public, and has not been given it: see whether herald-ccm runs'
`},
		{"of another type", other, `service: default/web
class: is of type NodePort
asks: []
ignored: []
pools: []
addresses: []
announced: []
unread: []
unseen: []
check: ''
next: 'set spec.type to LoadBalancer: only that type is given addresses'
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var want, got any
			text, err := json.Marshal(c.of.report(t))
			if err != nil {
				t.Fatal(err)
			}
			if err := yaml.Unmarshal(text, &got); err != nil {
				t.Fatal(err)
			}
			if err := yaml.Unmarshal([]byte(c.want), &want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func selector(key, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

// gatewayOf makes default/web a Service whose controller gave it these addresses, and lets the pool announce them.
func gatewayOf(addresses ...string) func(*story) {
	return func(s *story) {
		class := "example.com/gateway"
		s.service.Spec.LoadBalancerClass = &class
		s.Pools[0].Spec.AnnounceClasses = []string{class}
		s.service.Status = corev1.ServiceStatus{}
		for _, a := range addresses {
			s.service.Status.LoadBalancer.Ingress = append(s.service.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a})
		}
	}
}

// TestExplain changes one thing at a time. next is the beginning of the last line after "Next: ", or empty if nothing has
// to be done. also is what the text contains as well.
func TestExplain(t *testing.T) {
	no := false
	wrongSelector := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "tier", Operator: "Near"}}}
	const none = "198.51.100.1 is announced by no node: "
	for _, c := range []struct {
		name   string
		of     *story
		change func(*story)
		next   string
		also   []string
	}{
		// Which load balancer serves the Service.
		{"another type", served(), func(s *story) { s.service.Spec.Type = corev1.ServiceTypeNodePort }, "set spec.type to LoadBalancer", []string{"default/web is of type NodePort\n"}},
		{"another class", served(), func(s *story) { other := "example.com/lb"; s.service.Spec.LoadBalancerClass = &other },
			"look there; if Herald is to announce the addresses that it gives, list the class in spec.announceClasses of their IPPool; if Herald is to serve the Service, the field cannot be changed", []string{"is of class example.com/lb, which another load balancer serves"}},
		{"a class that a pool announces", served(), gatewayOf("198.51.100.1"), "", []string{"is of class example.com/gateway: its controller gives the addresses",
			"exactly 198.51.100.1 (status.loadBalancer)", "✓  public IPv4: announces what the class gives", "✓  198.51.100.1 from pool public, recorded for", "✓  198.51.100.1 by ARP on eth0: node n1 owns it"}},
		{"it has no address of its controller", waiting(), gatewayOf(), "the controller of class example.com/gateway has given it no address: look there", nil},
		{"another Service has that address", waiting(), func(s *story) {
			gatewayOf("198.51.100.7")(s)
			s.Allocations = []*herald.IPAllocation{record("198.51.100.7", "public", "default/db")}
		}, "198.51.100.7 is not announced: 198.51.100.7 is held by default/db", []string{"✗  198.51.100.7 is not announced"}},
		{"that address is in a pool that does not announce the class", waiting(), func(s *story) {
			gatewayOf("203.0.113.1")(s)
			s.Pools = append(s.Pools, pool("other", 1, "203.0.113.0/24"))
		}, `203.0.113.1 is not announced: pool "other", which has the address, does not list class "example.com/gateway" in spec.announceClasses`,
			[]string{"-  other IPv4: does not announce what the class gives (spec.announceClasses)"}},
		{"that address has no record yet", waiting(), gatewayOf("198.51.100.7"), "198.51.100.7 is in its status, and no IPAllocation records it, so no node announces it: see whether herald-ccm runs", nil},
		{"its controller took the address back", served(), gatewayOf(), "the controller of class example.com/gateway has given it no address", []string{"✗  198.51.100.1 is recorded for it, and is not in its status"}},
		{"our class", served(), func(s *story) { own := herald.LoadBalancerClass; s.service.Spec.LoadBalancerClass = &own }, "", []string{"is of class herald.dev/herald: herald-ccm serves it"}},
		{"it is being deleted", served(), func(s *story) { at := metav1.NewTime(now); s.service.DeletionTimestamp = &at }, "wait until it is gone", nil},

		// What the Service asks for.
		{"nonsense", served(), func(s *story) { s.annotate(herald.AnnotationIPs, "web") }, `annotation herald.dev/ips: "web" is`, nil},
		{"a misspelt annotation", served(), func(s *story) { s.annotate("herald.dev/pol", "gold") }, "annotation herald.dev/pol is not known: write herald.dev/pool", []string{"ignored    ✗  annotation herald.dev/pol"}},
		{"an annotation of namespaces", served(), func(s *story) { s.annotate(herald.AnnotationQuota, "ipv4=1") }, "annotation herald.dev/quota belongs on the Namespace", nil},
		{"another load balancer's annotation", served(), func(s *story) { s.annotate("metallb.io/address-pool", "gold") }, "annotation metallb.io/address-pool is of another load balancer: write herald.dev/pool", nil},

		// What the Service is given.
		{"no such pool", waiting(), func(s *story) { s.annotate(herald.AnnotationPool, "gold") }, `there is no pool "gold": create it`, []string{"of pool gold (annotation herald.dev/pool)", "✗  public IPv4: "}},
		{"the only pool is invalid", waiting(), func(s *story) { s.Pools[0].Spec.Addresses = []herald.AddressRange{"198.51.100.9-198.51.100.1"} },
			`IPPool public is invalid: spec.addresses[0] "198.51.100.9-198.51.100.1": ends before it starts: write 198.51.100.1-198.51.100.9`,
			[]string{"✗  public IPv4: IPPool public is invalid"}},
		{"the only pool is invalid, and herald-ccm says what is in force", waiting(), func(s *story) {
			s.Pools[0].Spec.Addresses = []herald.AddressRange{"198.51.100.9-198.51.100.1"}
			s.Pools[0].Status.Conditions = []metav1.Condition{{Type: herald.ConditionAccepted, Status: metav1.ConditionFalse, Message: "that is wrong; the last valid spec stays in force"}}
		}, "IPPool public is invalid: that is wrong; the last valid spec stays in force", nil},
		{"the pool of its address is invalid", served(), func(s *story) {
			s.Pools[0].Spec.Addresses = []herald.AddressRange{"198.51.100.9-198.51.100.1"}
		}, "", []string{"✓  198.51.100.1 from pool public", "✗  public IPv4: IPPool public is invalid"}},
		{"another pool is invalid", waiting(), func(s *story) {
			s.Pools = append(s.Pools, pool("broken", 1, "203.0.113.9-203.0.113.1"))
			s.annotate(herald.AnnotationIPs, "198.51.100.7")
			s.Allocations = []*herald.IPAllocation{record("198.51.100.7", "public", "default/db")}
		}, "198.51.100.7 is held by default/db", []string{"✗  broken IPv4: IPPool broken is invalid"}},
		{"a pool for others", waiting(), func(s *story) { s.Pools[0].Spec.Namespaces = []string{"red"} }, "no auto-assigning pool serves this Service", []string{"✗  public IPv4: "}},
		{"the address of another", waiting(), func(s *story) {
			s.annotate(herald.AnnotationIPs, "198.51.100.7")
			s.Allocations = []*herald.IPAllocation{record("198.51.100.7", "public", "default/db")}
		}, "198.51.100.7 is held by default/db", []string{"exactly 198.51.100.7 (annotation herald.dev/ips)"}},
		{"herald-ccm does not run", waiting(), func(*story) {}, "it can have 198.51.100.1 of pool public, and has not been given it: see whether herald-ccm runs", nil},
		{"herald-ccm may not write", waiting(), func(s *story) {
			s.Warnings = []*corev1.Event{failed("the old answer", time.Minute), failed("ipallocations is forbidden", 12*time.Second), failed("an older answer", 2*time.Minute)}
		}, "it can have 198.51.100.1 of pool public, and has not been given it: herald-ccm has failed, 12s ago: ipallocations is forbidden", nil},
		{"herald-ccm may not write the status", served(), func(s *story) {
			s.service.Status = corev1.ServiceStatus{}
			s.Warnings = []*corev1.Event{failed("services is forbidden", time.Minute)}
		}, "198.51.100.1 is recorded for it, and is not in its status, so no node announces it: herald-ccm has failed, 60s ago: services is forbidden", nil},
		{"herald-ccm is about to try again", waiting(), func(s *story) {
			s.Warnings = []*corev1.Event{failed("ipallocations is forbidden", 10*time.Minute+time.Second)}
		}, "it can have 198.51.100.1 of pool public, and has not been given it: herald-ccm has failed, 10m ago: ipallocations is forbidden", nil},
		{"herald-ccm has not tried for a long time", waiting(), func(s *story) {
			other := failed("made up", time.Second)
			other.Reason = "AnnotationWithoutEffect"
			s.Warnings = []*corev1.Event{failed("ipallocations is forbidden", time.Hour), other}
		}, "it can have 198.51.100.1 of pool public, and has not been given it: see whether herald-ccm runs", nil},
		{"no record", served(), func(s *story) { s.Allocations = nil }, "198.51.100.1 is in its status, and no IPAllocation records it, so no node announces it: see whether herald-ccm runs", nil},
		{"the record is an earlier Service's", served(), func(s *story) { s.Allocations[0].Spec.Owners[0].UID = "old" },
			"198.51.100.1 is in its status, and IPAllocation 198.51.100.1 records it for another Service of this name (UID old, this one has web)", nil},
		{"recorded only", served(), func(s *story) { s.service.Status = corev1.ServiceStatus{} }, "198.51.100.1 is recorded for it, and is not in its status, so no node announces it", []string{"✗  198.51.100.1 is announced by no node"}},
		{"brought from elsewhere, and in no pool", waiting(), func(s *story) {
			s.service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.1"}}
		}, "status.loadBalancer carries 203.0.113.1, which is in no IPPool", nil},
		{"out of range", served(), func(s *story) {
			s.Pools[0].Spec.Addresses = []herald.AddressRange{"198.51.100.128/25"}
			s.Allocations[0].Status.Conditions = []metav1.Condition{{Type: herald.AllocationInRange, Status: metav1.ConditionFalse, Message: "198.51.100.1 is in no IPPool any more"}}
		}, "198.51.100.1 from pool public, recorded for 60m; out of range: 198.51.100.1 is in no IPPool any more; give the Service another address by kubectl herald renumber default/web", nil},
		{"reserved for it, and passed over", served(), func(s *story) {
			s.Allocations = append(s.Allocations, reserved(record("198.51.100.8", "", "default/web")), cooling(record("198.51.100.9", "public", "default/web")))
		}, "198.51.100.8 is reserved for the Service, but the Service holds another: delete the IPAllocation 198.51.100.8", []string{"✗  198.51.100.8 is reserved for the Service, but the Service holds another\n  endpoints"}},
		{"shared", served(), func(s *story) { s.share("k", "TCP/81", "198.51.100.1") }, "", []string{`shared, by the key "k"`, "shared with default/db, kept for its name when the Service is deleted\n"}},
		{"it asks for a port that another has on its address", served(), func(s *story) { s.share("k", "TCP/80", "198.51.100.1") }, "198.51.100.1 is shared by default/db, which has port TCP/80, too: take back what was changed", []string{"✗  198.51.100.1 cannot be shared any more"}},
		{"it cannot share since a port is taken", served(), func(s *story) { s.share("k", "TCP/80", "198.51.100.7") }, "198.51.100.7 has the same sharing key, and cannot be shared: ", []string{"TCP/80"}},
		{"a Service of another namespace has its sharing key", served(), func(s *story) {
			s.share("k", "TCP/81", "198.51.100.7")
			s.Allocations[1].Spec.Owners[0].Namespace = "blue"
		}, "", nil},

		{"a record of another cannot be read", served(), func(s *story) {
			bad := record("198.51.100.77", "public", "other/dns")
			bad.Spec.Owners[0].Sharing = &herald.AllocationSharing{Key: "k", Ports: []string{"TCP/99999"}}
			s.Allocations = append(s.Allocations, bad)
		}, "IPAllocation 198.51.100.77 cannot be read: spec.owners[0].sharing.ports[0]: ", []string{"has 252 of 256 IPv4 addresses free", "✓  198.51.100.1 from pool public"}},
		{"a record without an address that can be read", served(), func(s *story) {
			s.Allocations = slices.Insert(s.Allocations, 0, record("2001:db8::1%eth0", "public", "other/dns"))
		}, "IPAllocation 2001:db8::1%eth0 cannot be read: spec.address: ", []string{"has 253 of 256 IPv4 addresses free", "✓  198.51.100.1 from pool public"}},

		{"more in the status than is recorded", served(), func(s *story) {
			s.service.Status.LoadBalancer.Ingress = append(s.service.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: "203.0.113.9"})
		}, "203.0.113.9 is in its status, and no IPAllocation records it for this Service: see whether herald-ccm runs", nil},
		{"more recorded than it asks for", served(), func(s *story) {
			s.Allocations = append(s.Allocations, record("198.51.100.9", "public", "default/web"))
			s.service.Status.LoadBalancer.Ingress = append(s.service.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: "198.51.100.9"})
		}, "198.51.100.9 is recorded for it, and it does not ask for it any more: see whether herald-ccm runs", nil},

		{"it asks for the address of a node", waiting(), func(s *story) {
			s.annotate(herald.AnnotationIPs, "198.51.100.5")
			s.Nodes[0].Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "198.51.100.5"}}
		}, "198.51.100.5 is not given out (the address of node n1): ask for another address", nil},
		{"the pool has only the address of a node", waiting(), func(s *story) {
			s.Pools = []*herald.IPPool{pool("public", 0, "198.51.100.5")}
			s.Nodes[0].Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "198.51.100.5"}}
		}, "no auto-assigning pool (public) has a free IPv4 address: add addresses to one, or release some", nil},

		// Advertisements.
		{"no advertisement at all", served(), func(s *story) { s.bgp().l2() }, none + "there is no L2Advertisement and no BGPAdvertisement: create one with spec.pools: [public]", nil},
		{"an advertisement of other pools", served().l2(), func(s *story) {
			s.Pools = append(s.Pools, pool("gold", 0, "203.0.113.0/24"))
			s.L2Advertisements[0].Spec.Pools = []string{"gold"}
		}, none + "L2Advertisement link does not select pool public: add public to spec.pools of L2Advertisement link, or create another advertisement with spec.pools: [public]", nil},
		{"an advertisement that names no pool there is", served().l2(), func(s *story) { s.L2Advertisements[0].Spec.Pools = []string{"pubilc\x1b"} },
			none + "L2Advertisement link does not select pool public: its spec.pools names \"pubilc�\", which is no IPPool: " +
				"write public in place of that name in spec.pools of L2Advertisement link, or create another advertisement with spec.pools: [public]", nil},
		{"an advertisement of another pool, and one that names no pools there are", served().bgp(), func(s *story) {
			s.Pools = append(s.Pools, pool("gold", 0, "203.0.113.0/24"))
			other := s.BGPAdvertisements[0].DeepCopy()
			other.Name, other.Spec.Pools = "a", []string{"gold"}
			s.BGPAdvertisements[0].Spec.Pools = []string{"gold", "pubic", "publik"}
			s.BGPAdvertisements = append(s.BGPAdvertisements, other)
		}, none + `BGPAdvertisement fabric does not select pool public: its spec.pools names "pubic", "publik", which are no IPPools: write public in place of that name`, nil},
		{"an advertisement of other Services", served().bgp(), func(s *story) { s.BGPAdvertisements[0].Spec.ServiceSelector = selector("app", "db") },
			none + "BGPAdvertisement fabric does not select the Service by spec.serviceSelector: label the Service (app=db)", nil},
		{"an advertisement of other namespaces", served().bgp(), func(s *story) { s.BGPAdvertisements[0].Spec.NamespaceSelector = selector("team", "red") },
			none + "BGPAdvertisement fabric does not select the namespace by spec.namespaceSelector: label the namespace (team=red)", nil},
		{"the nearest of several", served().bgp(), func(s *story) {
			far := s.BGPAdvertisements[0].DeepCopy()
			far.Name, far.Spec.Pools = "a", []string{"gold"}
			s.BGPAdvertisements[0].Spec.ServiceSelector = selector("app", "db")
			s.BGPAdvertisements = append(s.BGPAdvertisements, far)
		}, none + "BGPAdvertisement fabric does not select the Service", nil},
		{"an advertisement that is not valid", served().bgp(), func(s *story) { s.BGPAdvertisements[0].Spec.NodeSelector = wrongSelector },
			"198.51.100.1 is not announced by speakers that start now: BGPAdvertisement fabric is not valid: spec.nodeSelector: ", []string{"speakers that have seen a valid spec of it announce by that one until they restart"}},

		// Endpoints.
		{"no endpoint", served().bgp(), func(s *story) { s.Endpoints[0].Endpoints[0].Conditions.Ready = &no },
			none + "BGPAdvertisement fabric: no endpoint is ready: see the pods that spec.selector chooses: kubectl -n default get pods -l app=web", []string{"0 ready"}},
		{"no endpoint, and announced all the same", served(), func(s *story) {
			s.Endpoints[0].Endpoints[0].Conditions.Ready = &no
			s.L2Advertisements[0].Spec.WithoutEndpoints, s.BGPAdvertisements[0].Spec.WithoutEndpoints = herald.EndpointsAnnounce, herald.EndpointsAnnounce
		}, "", []string{"0 ready", "✓  198.51.100.1 by ARP on eth0: node n1 owns it", "✓  198.51.100.1 by BGP: n1, n2 to tor-a"}},
		{"no endpoint of the family", six(), func(s *story) {
			s.Endpoints = []*discoveryv1.EndpointSlice{endpoints(discoveryv1.AddressTypeIPv4, "n1")}
			s.Speakers[0].Status.Claims = nil
		},
			"2001:db8::1 is announced by no node: L2Advertisement link: no endpoint is ready for IPv6; there are some for IPv4: see whether the pods have IPv6 addresses", nil},
		{"neither a selector nor endpoints", served().l2(), func(s *story) { s.service.Spec.Selector, s.Endpoints = nil, nil },
			none + "L2Advertisement link: the Service has no spec.selector and no EndpointSlice: create an EndpointSlice", nil},
		{"a targetPort that no container names", served(), func(s *story) {
			s.service.Spec.Ports[0].TargetPort = intstr.FromString("htpp")
			s.Endpoints[0].Ports = nil
		}, "connections to TCP port 80 fail: spec.ports has targetPort: htpp, and no container of the ready pods has a TCP port of this name: correct targetPort, or name the port in the pods",
			[]string{"endpoints     1 ready, on n1\n             ✗  connections to TCP port 80 fail: ", "✓  198.51.100.1 by BGP: n1, n2 to tor-a"}},
		{"a targetPort that no container names, in a Service of another class", served(), func(s *story) {
			gatewayOf("198.51.100.1")(s)
			s.service.Spec.Ports[0].TargetPort = intstr.FromString("htpp")
			s.Endpoints[0].Ports = nil
		}, "connections to TCP port 80 fail: spec.ports has targetPort: htpp", nil},
		{"a targetPort that some pods name", served(), func(s *story) {
			s.service.Spec.Ports[0].TargetPort = intstr.FromString("http")
			other := endpoints(discoveryv1.AddressTypeIPv4, "n2")
			other.Name, other.Ports = "web-others", nil
			s.Endpoints = append(s.Endpoints, other)
		}, "", nil},
		{"a targetPort that only pods that are not ready name", served(), func(s *story) {
			s.service.Spec.Ports[0].TargetPort = intstr.FromString("http")
			other := endpoints(discoveryv1.AddressTypeIPv4, "n2")
			other.Name, other.Endpoints[0].Conditions.Ready = "web-others", &no
			s.Endpoints = append(s.Endpoints, other)
			s.Endpoints[0].Ports = nil
		}, "connections to TCP port 80 fail: ", nil},
		{"EndpointSlices written by hand without one of the ports", served(), func(s *story) {
			s.service.Spec.Selector = nil
			s.service.Spec.Ports = append(s.service.Spec.Ports, corev1.ServicePort{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53})
			s.Endpoints[0].Ports = append(s.Endpoints[0].Ports, discoveryv1.EndpointPort{Name: new("dns"), Port: new(int32(53))})
		}, "connections to UDP port 53 fail: no EndpointSlice with a ready endpoint has a UDP port dns: correct the ports of the EndpointSlices", nil},
		{"EndpointSlices written by hand without a port", served(), func(s *story) {
			s.service.Spec.Selector, s.Endpoints[0].Ports[0].Port = nil, nil
		}, "connections to TCP port 80 fail: no EndpointSlice with a ready endpoint has a TCP port without a name", nil},
		{"pods of two families are one each", served(), func(s *story) {
			s.Endpoints = []*discoveryv1.EndpointSlice{endpoints(discoveryv1.AddressTypeIPv4, "n1", "n2"), endpoints(discoveryv1.AddressTypeIPv6, "n1", "n2")}
		}, "", []string{"2 ready (2 with IPv4, 2 with IPv6), on n1, n2\n"}},
		{"only where its endpoints are", served(), func(s *story) { s.service.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }, "",
			[]string{"1 ready, on n1; only their nodes announce", "by BGP: n1 to tor-a\n"}},
		{"Local, and no endpoint where it is announced", served().bgp(), func(s *story) {
			s.service.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			s.Nodes[1].Labels = map[string]string{"edge": "yes"}
			s.BGPAdvertisements[0].Spec.NodeSelector = selector("edge", "yes")
		}, none + "BGPAdvertisement fabric: spec.externalTrafficPolicy is Local, and none of the nodes that may announce has a ready endpoint: there are some on n1: run pods on other nodes", nil},
		{"Local on a segment", served().l2(), func(s *story) {
			s.service.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			s.Nodes[1].Labels = map[string]string{"edge": "yes"}
			s.L2Advertisements[0].Spec.NodeSelector = selector("edge", "yes")
		}, none + "L2Advertisement link: spec.externalTrafficPolicy is Local", nil},

		// Nodes.
		{"nodeSelector selects nothing, by BGP", served().bgp(), func(s *story) { s.BGPAdvertisements[0].Spec.NodeSelector = selector("rack", "a") },
			none + "BGPAdvertisement fabric: spec.nodeSelector selects no node: change it, or label nodes (rack=a)", nil},
		{"nodeSelector selects nothing, and an excluded node is none of the cause", served().l2(), func(s *story) {
			s.Nodes[0].Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""}
			s.L2Advertisements[0].Spec.NodeSelector = selector("rack", "a")
		}, none + "L2Advertisement link: spec.nodeSelector selects no node", nil},
		{"all nodes are excluded", served().bgp(), func(s *story) {
			s.Nodes[0].Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""}
			s.Nodes[1].Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeOutOfService}}
		}, none + "BGPAdvertisement fabric: all nodes that it selects are excluded: n1 (label node.kubernetes.io/exclude-from-external-load-balancers), n2 (taint node.kubernetes.io/out-of-service): remove the label", nil},
		{"an excluded node announces nothing", served(), func(s *story) {
			s.Nodes[1].Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""}
			s.Speakers[1].Status.Problem = "the node has the label " + corev1.LabelNodeExcludeBalancers
		}, "", []string{"✓  198.51.100.1 by BGP: n1 to tor-a\n"}},
		{"an annotation that is not permitted", served().bgp(), func(s *story) { s.annotate(herald.AnnotationBGPMED, "10") },
			"198.51.100.1 annotation herald.dev/bgp-med has no effect: no BGPAdvertisement of the address permits it: add MED to spec.serviceOverrides of BGPAdvertisement fabric, or remove the annotation",
			[]string{"by BGP: n1, n2 to tor-a"}},
		{"an annotation that is permitted", served().bgp(), func(s *story) {
			s.annotate(herald.AnnotationBGPMED, "10")
			s.BGPAdvertisements[0].Spec.ServiceOverrides = []herald.ServiceOverride{herald.OverrideMED}
		}, "", []string{"by BGP: n1, n2 to tor-a"}},
		{"not to be announced", served().bgp(), func(s *story) {
			s.annotate(herald.AnnotationBGPAnnounce, "false")
			s.BGPAdvertisements[0].Spec.ServiceOverrides = []herald.ServiceOverride{herald.OverrideAnnounce}
		}, none + "BGPAdvertisement fabric: the Service asks not to be announced, and the advertisement permits that: remove its annotation herald.dev/bgp-announce if routers are to have it", nil},
		{"in a network", served().bgp(), func(s *story) {
			s.BGPAdvertisements[0].Spec.AggregationLength = &herald.AggregationLength{IPv4: 25}
		}, "", []string{"by BGP: n1, n2 to tor-a, in 198.51.100.0/25\n"}},
		{"not to be announced, and in a network that is", served(), func(s *story) {
			s.annotate(herald.AnnotationBGPAnnounce, "false")
			s.inNetworks()
			s.neighbour("198.51.100.7")
		}, "198.51.100.1 opted out by the annotation herald.dev/bgp-announce, but covered by the network 198.51.100.0/25, which BGPAdvertisement fabric announces to tor-a for others, such as 198.51.100.7: " +
			"routers send to the nodes what is for it, and kube-proxy forwards that: have it ask for a pool whose addresses are not announced in networks, by the annotation herald.dev/pool", []string{"by ARP on eth0: node n1 owns it"}},
		{"not to be announced, and alone in its network", served(), func(s *story) {
			s.annotate(herald.AnnotationBGPAnnounce, "false")
			s.inNetworks()
			s.neighbour("198.51.100.200")
		}, "", []string{"by ARP on eth0: node n1 owns it"}},
		{"not to be announced, and neither is its neighbour", served(), func(s *story) {
			s.annotate(herald.AnnotationBGPAnnounce, "false")
			s.inNetworks()
			s.neighbour("198.51.100.7").Annotations = s.service.Annotations
		}, "", []string{"by ARP on eth0: node n1 owns it"}},
		{"not to be announced, and its neighbour is announced by itself", served(), func(s *story) {
			s.annotate(herald.AnnotationBGPAnnounce, "false")
			s.inNetworks()
			s.neighbour("198.51.100.7").Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		}, "", []string{"by ARP on eth0: node n1 owns it"}},
		{"not to be announced, which is not permitted", served(), func(s *story) {
			s.annotate(herald.AnnotationBGPAnnounce, "false")
			s.inNetworks()
			s.BGPAdvertisements[0].Spec.ServiceOverrides = nil
			s.neighbour("198.51.100.7")
		}, "198.51.100.1 annotation herald.dev/bgp-announce has no effect", []string{"by BGP: n1, n2 to tor-a, in 198.51.100.0/25\n"}},
		{"a sticky Service is announced by one node", served().bgp(), func(s *story) { s.service.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }, "",
			[]string{"to tor-a (one node only, since spec.sessionAffinity is ClientIP)\n"}},
		{"the node is not Ready, and Leases cannot be read", served().bgp(), func(s *story) {
			s.Leases, s.Nodes = nil, s.Nodes[:1]
			s.Nodes[0].Status.Conditions[0].Status, s.Speakers = corev1.ConditionUnknown, s.Speakers[:1]
			s.Speakers[0].Status.Interfaces = nil
		}, none + "not by node n1, as far as is known: the node is not Ready", nil},

		// Speakers.
		{"no speaker", served().l2(), func(s *story) { s.Speakers = nil }, none + "L2Advertisement link: no node has a SpeakerStatus: see whether herald-speaker runs", nil},
		{"no speaker, by BGP", served().bgp(), func(s *story) { s.Speakers = nil }, none + "not by nodes n1, n2: no SpeakerStatus: see whether herald-speaker runs there", nil},
		{"a node without a speaker", served(), func(s *story) {
			s.Speakers = s.Speakers[:1]
			hears(&s.Speakers[0].Status.Interfaces[0])
		}, "198.51.100.1 not by node n2: no SpeakerStatus: see whether herald-speaker runs there", []string{"✓  198.51.100.1 by BGP: n1 to tor-a"}},
		{"Windows has no speaker", served(), func(s *story) {
			s.Speakers = s.Speakers[:1]
			hears(&s.Speakers[0].Status.Interfaces[0])
			s.Nodes[1].Labels = map[string]string{corev1.LabelOSStable: "windows"}
		}, "", []string{"by BGP: n1 to tor-a\n"}},
		{"Windows has no speaker, on all nodes", served().bgp(), func(s *story) {
			for _, n := range s.Nodes {
				n.Labels = map[string]string{corev1.LabelOSStable: "windows"}
			}
		}, none + "BGPAdvertisement fabric: there is no node that herald-speaker runs on: add a node with Linux", nil},
		{"kube-proxy does not serve", served().bgp(), func(s *story) {
			for _, o := range s.Speakers {
				o.Status.Problem = "kube-proxy does not serve on this node"
			}
		}, none + "not by nodes n1, n2: kube-proxy does not serve on this node", nil},
		{"kube-proxy does not serve, on the segment", served().l2(), func(s *story) {
			for _, o := range s.Speakers {
				o.Status.Problem = "kube-proxy does not serve on this node"
			}
		}, none + "not by nodes n1, n2: kube-proxy does not serve on this node", nil},
		{"kube-proxy does not serve on one node", served(), func(s *story) { s.Speakers[1].Status.Problem = "kube-proxy does not serve on this node" },
			"198.51.100.1 not by node n2: kube-proxy does not serve on this node", []string{"✓  198.51.100.1 by BGP: n1 to tor-a\n"}},
		{"a speaker has ended, and its sessions with it", served().bgp(), func(s *story) {
			empty := ""
			s.Leases[1].Spec.HolderIdentity = &empty
			hears(&s.Speakers[0].Status.Interfaces[0])
		}, "198.51.100.1 not by node n2, as far as is known: its speaker ended", []string{"✓  198.51.100.1 by BGP: n1 to tor-a\n"}},

		// Segments.
		{"off the nodes' subnets", served().l2(), func(s *story) {
			for _, o := range s.Speakers {
				o.Status.Interfaces[0].Subnets = []string{"203.0.113.7/24", "fe80::1/64"}
			}
		}, none + "L2Advertisement link: no node that it selects has an interface with a subnet that holds the address (their IPv4 subnet is 203.0.113.0/24): use addresses of this subnet in IPPool public, name an interface in spec.interfaces of L2Advertisement link if clients", nil},
		{"off the nodes' subnets, where no speaker works on any interface", served().l2(), func(s *story) {
			for _, o := range s.Speakers {
				o.Status.Interfaces = []herald.SpeakerInterface{{Name: "eth0", Subnets: []string{"203.0.113.7/24"}}}
			}
		}, none + "L2Advertisement link: no node that it selects has an interface with a subnet that holds the address (their IPv4 subnet is 203.0.113.0/24)", nil},
		{"an excluded control-plane node is none of the cause", served().l2(), func(s *story) {
			s.Nodes[0].Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""}
			s.Speakers[0].Status.Problem = "the node has the label " + corev1.LabelNodeExcludeBalancers
			for _, o := range s.Speakers {
				o.Status.Interfaces = []herald.SpeakerInterface{{Name: "eth0", Subnets: []string{"203.0.113.7/24"}}}
			}
		}, none + "L2Advertisement link: no node that it selects has an interface with a subnet that holds the address (their IPv4 subnet is 203.0.113.0/24)", nil},
		{"IPv6 on the segment", six(), func(*story) {}, "", []string{"✓  2001:db8::1 by NDP on eth0: node n1 owns it, for 40m (highest rank)\n"}},
		{"IPv6 with nodes that have none", six(), func(s *story) {
			for _, o := range s.Speakers {
				o.Status.Interfaces[0].Subnets, o.Status.Claims = []string{"198.51.100.0/24", "fe80::/64"}, nil
			}
		}, "2001:db8::1 is announced by no node: L2Advertisement link: no node that it selects has an interface with a subnet that holds the address (no IPv6 subnet at all)", []string{"or create a BGPAdvertisement"}},
		{"an interface that is absent", served().l2(), func(s *story) { s.L2Advertisements[0].Spec.Interfaces = []string{"bond0"} },
			none + "L2Advertisement link: spec.interfaces names bond0, and no node that it selects has such an interface", nil},
		{"an interface that is absent, and BGP", served(), func(s *story) {
			s.L2Advertisements[0].Spec.Interfaces, s.Speakers[0].Status.Claims, s.Speakers[0].Status.L2Addresses = []string{"bond0"}, nil, 0
		}, "198.51.100.1 L2Advertisement link: spec.interfaces names bond0", []string{"✓  198.51.100.1 by BGP"}},
		{"off the nodes' subnets, and BGP", served(), func(s *story) {
			for _, o := range s.Speakers {
				o.Status.Interfaces[0].Subnets, o.Status.Claims, o.Status.L2Addresses = []string{"203.0.113.0/24"}, nil, 0
			}
		}, "", []string{"✓  198.51.100.1 by BGP"}},
		{"no candidate has taken it", served().l2(), func(*story) {}, none + "the nodes that may own it have not taken it yet: kubectl herald status", nil},
		{"new", served().l2(), func(s *story) { s.Allocations[0].CreationTimestamp = metav1.NewTime(now.Add(-2 * time.Second)) },
			none + "it is recorded for 2s only, and no speaker has reported it yet: ask again in a few seconds", nil},
		{"no candidate has taken it, and BGP", served(), func(s *story) { s.Speakers[0].Status.Claims, s.Speakers[0].Status.L2Addresses = nil, 0 },
			"198.51.100.1 by ARP: none of the nodes that may own it on the segment of eth0 of n1 owns it: n1, n2: kubectl herald status", []string{"✓  198.51.100.1 by BGP: n1, n2 to tor-a"}},
		{"no candidate has taken it on one of two segments", served(), func(s *story) {
			s.BGPAdvertisements = nil
			for _, o := range s.Speakers {
				second := o.Status.Interfaces[0]
				second.Name = "eth1"
				o.Status.Interfaces = append(o.Status.Interfaces, second)
			}
		}, "198.51.100.1 by ARP: none of the nodes that may own it on the segment of eth1 of n1 owns it: n1, n2", []string{"✓  198.51.100.1 by ARP on eth0: node n1 owns it"}},
		{"all nodes of the segment are excluded, and BGP", served(), func(s *story) {
			s.Nodes[0].Labels = map[string]string{corev1.LabelNodeExcludeBalancers: "", "link": ""}
			s.L2Advertisements[0].Spec.NodeSelector = selector("link", "")
			s.Speakers[0].Status.Claims, s.Speakers[0].Status.L2Addresses = nil, 0
		}, "198.51.100.1 L2Advertisement link: all nodes that it selects are excluded: n1", []string{"✓  198.51.100.1 by BGP: n2 to tor-a"}},
		{"Local, no endpoint on the segment, and BGP", served(), func(s *story) {
			s.service.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			s.Nodes[1].Labels = map[string]string{"edge": "yes"}
			s.L2Advertisements[0].Spec.NodeSelector = selector("edge", "yes")
			s.Speakers[0].Status.Claims, s.Speakers[0].Status.L2Addresses = nil, 0
		}, "198.51.100.1 L2Advertisement link: spec.externalTrafficPolicy is Local", []string{"✓  198.51.100.1 by BGP: n1 to tor-a"}},
		{"not for routers, and owned on the segment", served(), func(s *story) {
			s.annotate(herald.AnnotationBGPAnnounce, "false")
			s.BGPAdvertisements[0].Spec.ServiceOverrides = []herald.ServiceOverride{herald.OverrideAnnounce}
		}, "", []string{"✓  198.51.100.1 by ARP on eth0: node n1 owns it"}},
		{"owned where it is not to be announced any more", served(), func(s *story) {
			s.BGPAdvertisements, s.L2Advertisements[0].Spec.NodeSelector = nil, selector("rack", "a")
		}, none + "L2Advertisement link: spec.nodeSelector selects no node", []string{"node n1 owns it, for 40m (highest rank), and will give it up\n"}},
		{"more than is listed", served(), func(s *story) {
			s.BGPAdvertisements, s.Speakers[0].Status.Claims, s.Speakers[0].Status.L2Addresses = nil, s.Speakers[0].Status.Claims[1:], 3000
		}, "198.51.100.1 by ARP: not known, since the SpeakerStatus of n1 lists only some of the addresses that the node owns: find out who answers for it: kubectl herald verify 198.51.100.1", nil},
		{"a deputy", served(), func(s *story) {
			s.Speakers[1].Status.Claims = []herald.SpeakerClaim{{Address: "198.51.100.1", Interface: "eth0", Since: now.Add(-5 * time.Second).Format(time.RFC3339), DeputyFor: "n1"}}
		}, "198.51.100.1 by ARP on eth0: node n2 answers for n1, whose speaker is silent, for 5s: see why the herald-speaker of node n1 is silent", nil},
		{"two owners on one segment", served(), func(s *story) {
			s.Speakers[1].Status.Claims, s.Speakers[1].Status.L2Addresses = s.Speakers[0].Status.Claims, 2
		}, "198.51.100.1 has 2 owners on one segment: n1 (eth0, for 40m), n2 (eth0, for 40m): kubectl herald status", []string{"✓  198.51.100.1 by ARP on eth0: node n1 owns it"}},
		{"owners on two segments", served(), func(s *story) {
			s.Speakers[1].Status.Claims, s.Speakers[1].Status.L2Addresses = s.Speakers[0].Status.Claims, 2
			for _, o := range s.Speakers {
				hears(&o.Status.Interfaces[0])
			}
		}, "", []string{"node n1 owns it", "node n2 owns it"}},
		{"the owner has died", served(), func(s *story) {
			s.BGPAdvertisements, s.Speakers[1].Status.Deaths = nil, []herald.SpeakerDeath{{Node: "n1", Interface: "eth0"}}
			hears(&s.Speakers[1].Status.Interfaces[0])
		}, none, []string{"✗  198.51.100.1 by ARP on eth0: node n1 owned it, but it is dead, as n2 has witnessed\n"}},
		{"a frozen speaker still claims what another owns now", served(), func(s *story) {
			s.BGPAdvertisements = nil
			s.Leases[0] = lease("n1", time.Hour)
			s.Speakers[1].Status.Claims, s.Speakers[1].Status.L2Addresses = s.Speakers[0].Status.Claims, 2
			hears(&s.Speakers[1].Status.Interfaces[0])
		}, "198.51.100.1 not by node n1, as far as is known: its speaker has not renewed the Lease speaker-n1 for 60m", []string{"announced  ✓  198.51.100.1 by ARP on eth0: node n2 owns it, for 40m (highest rank)\n             ✗  198.51.100.1 not by node n1"}},
		{"the same, where Leases cannot be read", served(), func(s *story) {
			s.BGPAdvertisements, s.Leases = nil, nil
			s.Speakers[1].Status.Claims, s.Speakers[1].Status.L2Addresses = s.Speakers[0].Status.Claims, 2
			hears(&s.Speakers[1].Status.Interfaces[0])
		}, "", []string{"announced  ✓  198.51.100.1 by ARP on eth0: node n2 owns it, for 40m (highest rank)\n\n"}},

		// Strangers.
		{"a stranger has it", served(), func(s *story) {
			s.Speakers[1].Status.Conflicts = []herald.SpeakerConflict{{Address: "198.51.100.1", Interface: "eth0", MAC: "02:00:5e:00:53:99", At: now.Add(-time.Minute).Format(time.RFC3339)}}
		}, "198.51.100.1 a machine that is not a speaker uses it: 02:00:5e:00:53:99 on eth0 of n2, seen in the last 60s: find that machine", []string{"kubectl herald renumber default/web"}},
		{"a stranger had it", served(), func(s *story) {
			s.Allocations[0].Status.Conditions = []metav1.Condition{{Type: herald.AllocationConflict, Status: metav1.ConditionTrue, Message: "02:00:5e:00:53:99 uses it"}}
		}, "198.51.100.1 02:00:5e:00:53:99 uses it: find that machine", nil},
		{"another Service takes it by externalIPs", served(), func(s *story) {
			s.Services = append(s.Services, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "thief"}, Spec: corev1.ServiceSpec{ExternalIPs: []string{"198.51.100.1"}}})
		}, "198.51.100.1 is in spec.externalIPs of Service red/thief, too: kube-proxy sends connections to that Service from every node (CVE-2020-8554): remove it there", nil},
		{"a node's own address", served(), func(s *story) {
			s.Nodes[1].Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "198.51.100.1"}}
		}, none + "it is an address of node n2: take it out of", nil},
		{"a router's address", served(), func(s *story) { s.BGPPeers[0].Spec.Address = "198.51.100.1" }, none + "it is the address of BGPPeer tor-a", nil},
		{"a gateway's address", served(), func(s *story) { s.Speakers[0].Status.Interfaces[0].Gateways = []string{"198.51.100.1"} }, none + "it is a gateway of node n1", nil},

		// Routers.
		{"no peer", served().bgp(), func(s *story) { s.BGPPeers = nil }, none + "BGPAdvertisement fabric: there is no BGPPeer: create one", nil},
		{"an unknown peer", served().bgp(), func(s *story) { s.BGPAdvertisements[0].Spec.Peers = []string{"tro-a"} },
			none + "BGPAdvertisement fabric: spec.peers names tro-a, and there is no such BGPPeer: write the names of BGPPeers: kubectl get bgppeers.herald.dev", nil},
		{"an unknown peer, and the segment", served(), func(s *story) { s.BGPAdvertisements[0].Spec.Peers = []string{"tro-a"} },
			"198.51.100.1 BGPAdvertisement fabric: spec.peers names tro-a", []string{"✓  198.51.100.1 by ARP"}},
		{"an unknown peer among others", served(), func(s *story) { s.BGPAdvertisements[0].Spec.Peers = []string{"tor-a", "tro-b"} },
			"198.51.100.1 BGPAdvertisement fabric: spec.peers names tro-b, and there is no such BGPPeer", []string{"✓  198.51.100.1 by BGP: n1, n2 to tor-a"}},
		{"peerSelector selects nothing", served().bgp(), func(s *story) { s.BGPAdvertisements[0].Spec.PeerSelector = selector("rack", "a") },
			none + "BGPAdvertisement fabric: spec.peerSelector selects no BGPPeer: change it, or label a BGPPeer (rack=a)", nil},
		{"the peers' sessions are other nodes'", served().bgp(), func(s *story) {
			for _, p := range s.BGPPeers {
				p.Spec.NodeSelector = selector("rack", "a")
			}
		}, none + "BGPAdvertisement fabric: none of the nodes that it selects holds a session with tor-a, tor-b: compare its spec.nodeSelector", nil},
		{"other routers", served().bgp(), func(s *story) { s.BGPAdvertisements[0].Spec.Peers = []string{"tor-b"} }, "", []string{"announced  ✓  198.51.100.1 by BGP: n1, n2 to tor-b\n\n"}},
		{"all sessions are down", served().bgp(), func(s *story) {
			s.Nodes, s.Speakers = s.Nodes[:1], []*herald.SpeakerStatus{speakerOf("n1", "", "Down", "Down")}
		}, none + "by BGP: the session of node n1 with tor-a is Down: no answer: compare the BGPPeer with the router's configuration", nil},
		{"routers that do not speak the family", served().bgp(), func(s *story) {
			for _, o := range s.Speakers {
				for i := range o.Status.Sessions {
					o.Status.Sessions[i].Withheld, o.Status.Sessions[i].Reason = []herald.IPFamily{herald.IPv4}, "the router does not speak IPv4 unicast"
				}
			}
		}, none + "by BGP: its route from nodes n1, n2 to tor-a is withheld: the router does not speak IPv4 unicast: kubectl herald bgp peers tor-a says more", nil},
		{"one router of two does not speak the family", served().bgp(), func(s *story) {
			for _, o := range s.Speakers {
				o.Status.Sessions[1].Withheld, o.Status.Sessions[1].Reason = []herald.IPFamily{herald.IPv4}, "the router does not speak IPv4 unicast"
			}
		}, "198.51.100.1 by BGP: its route from nodes n1, n2 to tor-b is withheld: the router does not speak IPv4 unicast", []string{"✓  198.51.100.1 by BGP: n1, n2 to tor-a"}},
		{"routers that do not speak the other family", served().bgp(), func(s *story) {
			s.Speakers[0].Status.Sessions[0].Withheld = []herald.IPFamily{herald.IPv6}
		}, "", []string{"✓  198.51.100.1 by BGP: n1, n2 to tor-a"}},
		{"more sessions than a SpeakerStatus lists", served().bgp(), func(s *story) {
			s.Nodes, s.Speakers = s.Nodes[:1], s.Speakers[:1]
			s.Speakers[0].Status.Sessions = nil
			for i := range herald.MaxStatusSessions {
				s.Speakers[0].Status.Sessions = append(s.Speakers[0].Status.Sessions, herald.SpeakerSession{Peer: fmt.Sprintf("rack-%02d", i), State: "Established"})
			}
		}, none + "by BGP: the SpeakerStatus of node n1 lists only its first 64 sessions, and not that with tor-a: ask the speaker: kubectl herald bgp peers tor-a", nil},
		{"an address in spec.externalIPs in another spelling", served(), func(s *story) {
			other := s.service.DeepCopy()
			other.Name, other.UID, other.Spec.ExternalIPs = "thief", "thief", []string{"::ffff:198.51.100.1"}
			s.Services = append(s.Services, other)
		}, "198.51.100.1 is in spec.externalIPs of Service default/thief, too", nil},
		{"a path that BFD finds dead", served().bgp(), func(s *story) {
			s.Speakers[0].Status.Sessions[0].BFD, s.Speakers[0].Status.Sessions[0].BFDReason = "Down", "the router has fallen silent"
			s.Speakers[1].Status.Sessions[0].BFD = "Up"
		}, "198.51.100.1 by BGP: BFD of node n1 with tor-a is Down: the router has fallen silent: see the path between them and BFD on the router: kubectl herald bgp peers tor-a",
			[]string{"✓  198.51.100.1 by BGP: n1, n2 to tor-a"}},
		{"a session that is not valid", served().bgp(), func(s *story) {
			for _, o := range s.Speakers {
				o.Status.Sessions = []herald.SpeakerSession{{Peer: "tor-a", State: "Invalid", Reason: "there is no Secret herald-system/tor"}}
			}
		}, none + "by BGP: the session of nodes n1, n2 with tor-a is Invalid: there is no Secret herald-system/tor", []string{"by BGP: there is no session of nodes n1, n2 with tor-b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.change(c.of)
			r := c.of.report(t)
			got := r.plain()
			if c.next == "" && r.Next != "" || !strings.HasPrefix(r.Next, c.next) {
				t.Errorf("next is not %q in\n%s", c.next, got)
			}
			if (c.next == "") != strings.Contains(got, "Nothing has to be done in Herald: it announces the Service.") {
				t.Errorf("the last line in\n%s", got)
			}
			for _, want := range c.also {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
			if strings.Contains(got, "NODE") {
				t.Errorf("a placeholder in\n%s", got)
			}
		})
	}
}

// inNetworks makes the BGPAdvertisement announce networks, and lets Services opt out.
func (s *story) inNetworks() {
	s.BGPAdvertisements[0].Spec.AggregationLength = &herald.AggregationLength{IPv4: 25}
	s.BGPAdvertisements[0].Spec.ServiceOverrides = []herald.ServiceOverride{herald.OverrideAnnounce}
}

// neighbour adds another Service with an address of the pool.
func (s *story) neighbour(address string) *corev1.Service {
	svc := s.service.DeepCopy()
	svc.Name, svc.UID, svc.Annotations = "db", "db", nil
	svc.Status.LoadBalancer.Ingress[0].IP = address
	rec := record(address, "public", "default/db")
	rec.Spec.Owners[0].UID = svc.UID
	s.Allocations, s.Services = append(s.Allocations, rec), append(s.Services, svc)
	return svc
}

// share gives default/db a port on an address, with a sharing key that default/web has as well.
func (s *story) share(key, port, address string) {
	s.annotate(herald.AnnotationSharingKey, key)
	db := herald.AllocationOwner{Namespace: "default", Name: "db", UID: "db", Sharing: &herald.AllocationSharing{Key: key, Traffic: "Cluster", Ports: []string{port}}}
	web := &s.Allocations[0].Spec.Owners[0]
	web.ReclaimPolicy, web.Sharing = herald.ReclaimRetain, &herald.AllocationSharing{Key: key, Traffic: "Cluster", Ports: []string{"TCP/80"}}
	if address == s.Allocations[0].Spec.Address {
		web.Sharing.Ports = []string{"TCP/79"}
		s.Allocations[0].Spec.Owners = append(s.Allocations[0].Spec.Owners, db)
	} else {
		rec := record(address, "public", "default/db")
		rec.Spec.Owners[0] = db
		s.Allocations = append(s.Allocations, rec)
	}
	s.Services = append(s.Services, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db", UID: types.UID("db")},
		Status:     corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: address}}}},
	})
}

// TestExplainWhatCanBeSeen is about users who may not read everything.
func TestExplainWhatCanBeSeen(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*story)
		unseen []string
		last   string
		also   []string
	}{
		{"Services of other namespaces", func(*story) {}, []string{"services"}, "Nothing has to be done in Herald, as far as can be seen: you may not list services.", []string{"by BGP: n1, n2 to tor-a"}},
		{"nodes", func(s *story) { s.Nodes = nil }, []string{"nodes"}, "Nothing has to be done in Herald, as far as can be seen: you may not list nodes.",
			[]string{"announced  ✓  198.51.100.1 by ARP on eth0: node n1 owns it"}},
		{"nothing of Herald's", func(s *story) {
			s.Pools, s.Allocations, s.L2Advertisements, s.BGPAdvertisements, s.BGPPeers, s.Speakers, s.Nodes, s.Leases = nil, nil, nil, nil, nil, nil, nil, nil
		}, []string{"bgpadvertisements.herald.dev", "bgppeers.herald.dev", "ipallocations.herald.dev", "ippools.herald.dev", "l2advertisements.herald.dev", "nodes", "services", "speakerstatuses.herald.dev"},
			"Nothing has to be done in Herald, as far as can be seen: you may not list bgpadvertisements.herald.dev, ",
			[]string{"has        ✓  198.51.100.1 is in its status; pool and record cannot be seen", "announced  ✓  198.51.100.1 who announces it cannot be seen"}},
		{"what is wrong is said all the same", func(s *story) { s.annotate("herald.dev/pol", "gold") }, []string{"services"}, "Next: annotation herald.dev/pol is not known",
			[]string{"Not everything can be seen: you may not list services.\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := served()
			c.change(s)
			s.Unseen = c.unseen
			got := s.report(t).plain()
			for _, want := range append(c.also, c.last) {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
		})
	}
}

// failed returns an event of the service controller.
func failed(message string, ago time.Duration) *corev1.Event {
	return &corev1.Event{Reason: "SyncLoadBalancerFailed", Message: message, LastTimestamp: metav1.NewTime(now.Add(-ago))}
}

// TestForeignAnnotations is about a herald-ccm that reads the annotations of another load balancer: explain, plan and
// status read them as well.
func TestForeignAnnotations(t *testing.T) {
	ccm := &CCM{Class: herald.LoadBalancerClass, Classless: true}
	if err := ccm.Foreign.Set("metallb"); err != nil {
		t.Fatal(err)
	}
	s := served()
	s.service.Annotations = map[string]string{
		"metallb.io/loadBalancerIPs": "198.51.100.7", "metallb.io/address-pool": "public", "metallb.io/allow-shared-ip": "k",
		"kube-vip.io/loadbalancerIPs": "198.51.100.8",
	}
	r, err := Explain(s.Objects, s.service, ccm, now)
	if err != nil {
		t.Fatal(err)
	}
	text := r.plain()
	for _, want := range []string{
		"exactly 198.51.100.7 (annotation metallb.io/loadBalancerIPs)", "of pool public (annotation metallb.io/address-pool)",
		`shared, by the key "k" (annotation metallb.io/allow-shared-ip)`, "annotation kube-vip.io/loadbalancerIPs has no effect beside metallb.io/loadBalancerIPs: remove it",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if why := NewNetwork(s.Objects).pending(s.service, ccm); why != "does not have the addresses that it asks for" {
		t.Errorf("status says %q", why)
	}
	s.annotate("metallb.io/loadBalancerIPs", "first")
	plan, err := Plan(s.Objects, ccm, Wanted{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if text := plan.Text(StyleOf(&bytes.Buffer{})); !strings.Contains(text, `annotation metallb.io/loadBalancerIPs: "first" is not an IP address`) {
		t.Errorf("the plan does not say what is wrong:\n%s", text)
	}
}
