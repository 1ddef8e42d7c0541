package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// now is when a Service is explained.
var now = began.Add(time.Hour)

// served is default/web with 198.51.100.1, announced by ARP and to one of two routers.
func served() *situation {
	node := "n1"
	public := pool("public", 0, "198.51.100.0/24")
	shared := record("198.51.100.1", "public", "default/web")
	shared.CreationTimestamp = metav1.NewTime(began)
	return &situation{
		service: &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "web"},
			Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}},
			Status:     corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "198.51.100.1"}}}},
		},
		namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}},
		endpoints: []*discoveryv1.EndpointSlice{{Endpoints: []discoveryv1.Endpoint{{NodeName: &node}}}},
		pools:     []*herald.IPPool{public}, records: []*herald.IPAllocation{shared},
		l2:       []*herald.L2Advertisement{{}},
		bgp:      []*herald.BGPAdvertisement{{}},
		peers:    []*herald.BGPPeer{{ObjectMeta: metav1.ObjectMeta{Name: "tor-a"}}, {ObjectMeta: metav1.ObjectMeta{Name: "tor-b"}}},
		nodes:    []*corev1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, {ObjectMeta: metav1.ObjectMeta{Name: "n2"}}},
		speakers: []*herald.SpeakerStatus{speaker("n1", "198.51.100.1", "Established", "Down"), speaker("n2", "", "Established", "Established")},
	}
}

// speaker says that its node answers for an address, and how its sessions with tor-a and tor-b are.
func speaker(node, claim, a, b string) *herald.SpeakerStatus {
	o := &herald.SpeakerStatus{ObjectMeta: metav1.ObjectMeta{Name: node}}
	o.Status.Interfaces = []herald.SpeakerInterface{{Name: "eth0", Subnets: []string{"198.51.100.0/24"}}}
	o.Status.Sessions = []herald.SpeakerSession{{Peer: "tor-a", State: a, Reason: "no answer"}, {Peer: "tor-b", State: b, Reason: "no answer"}}
	if claim != "" {
		since := began.Add(20 * time.Minute).Format(time.RFC3339)
		o.Status.Claims = []herald.SpeakerClaim{{Address: claim, Interface: "eth0", Since: since, Reason: "highest rank"}, {Address: "198.51.100.9", Interface: "eth0"}}
		o.Status.L2Addresses = 2
	}
	return o
}

// meet has speakers hear each other on eth0.
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

// waiting is default/web with nothing.
func waiting() *situation {
	s := served()
	s.service.Status, s.records = corev1.ServiceStatus{}, nil
	return s
}

func reported(t *testing.T, s *situation) *serviceReport {
	t.Helper()
	var err error
	if s.held, err = recordsOf(s.records); err != nil {
		t.Fatal(err)
	}
	report, err := s.explain(&ccm{class: herald.LoadBalancerClass, classless: true}, now)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func explained(t *testing.T, s *situation) string {
	t.Helper()
	return reported(t, s).text(styleOf(&bytes.Buffer{}))
}

func TestExplainWhatIsServed(t *testing.T) {
	want := `default/web is of no class: herald-ccm serves it
  asks for      IPv4
  pools      ✓  public IPv4: has 255 of 256 IPv4 addresses free
  has        ✓  198.51.100.1 from pool public, recorded for 60m
  endpoints     1 ready, on n1
  announced  ✓  198.51.100.1 by ARP on eth0: node n1 owns it, for 40m (highest rank)
             ✓  198.51.100.1 by BGP: n1, n2 to tor-a
             ✗  198.51.100.1 by BGP: the session of n1 with tor-b is Down: no answer
             ✓  198.51.100.1 by BGP: n2 to tor-b

Nothing is to be done.
`
	if diff := cmp.Diff(want, explained(t, served())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestExplainForPrograms holds the names, which stay, and lists that are empty.
func TestExplainForPrograms(t *testing.T) {
	other := served()
	other.service.Spec.Type = corev1.ServiceTypeNodePort
	local := waiting()
	local.service.Spec.ExternalTrafficPolicy, local.endpoints = corev1.ServiceExternalTrafficPolicyLocal, nil
	for _, c := range []struct {
		name string
		of   *situation
		want string
	}{
		{"served", served(), `service: default/web
class: 'is of no class: herald-ccm serves it'
asks: [IPv4]
pools:
- {pool: public, family: IPv4, fits: true, text: has 255 of 256 IPv4 addresses free}
addresses:
- {address: 198.51.100.1, text: 'from pool public, recorded for 60m', wrong: false}
endpoints: {ready: 1, nodes: [n1], local: false}
announced:
- {address: 198.51.100.1, text: 'by ARP on eth0: node n1 owns it, for 40m (highest rank)', wrong: false}
- {address: 198.51.100.1, text: 'by BGP: n1, n2 to tor-a', wrong: false}
- {address: 198.51.100.1, text: 'by BGP: the session of n1 with tor-b is Down: no answer', wrong: true}
- {address: 198.51.100.1, text: 'by BGP: n2 to tor-b', wrong: false}
next: ""
`},
		{"waiting, without an endpoint", local, `service: default/web
class: 'is of no class: herald-ccm serves it'
asks: [IPv4]
pools:
- {pool: public, family: IPv4, fits: true, text: has 256 of 256 IPv4 addresses free}
addresses: []
endpoints: {ready: 0, nodes: [], local: true}
announced: []
next: 'it can have 198.51.100.0 of pool public, and has not been given it: see whether herald-ccm runs'
`},
		{"of another type", other, `service: default/web
class: is of type NodePort
asks: []
pools: []
addresses: []
announced: []
next: 'set spec.type to LoadBalancer: no other type is given addresses'
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var want any
			if err := yaml.Unmarshal([]byte(c.want), &want); err != nil {
				t.Fatal(err)
			}
			for _, f := range []format{"json", "yaml"} {
				var out bytes.Buffer
				var got any
				if err := f.write(&out, reported(t, c.of), nil); err != nil {
					t.Fatal(err)
				}
				if err := yaml.Unmarshal(out.Bytes(), &got); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", f, diff)
				}
			}
		})
	}
}

// TestExplain changes one thing at a time.
func TestExplain(t *testing.T) {
	annotate := func(key, value string) func(*situation) {
		return func(s *situation) { s.service.Annotations = map[string]string{key: value} }
	}
	no := false
	for _, c := range []struct {
		name   string
		of     *situation
		change func(*situation)
		want   []string
	}{
		{"another type", served(), func(s *situation) { s.service.Spec.Type = corev1.ServiceTypeNodePort },
			[]string{"default/web is of type NodePort\n", "Next: set spec.type to LoadBalancer"}},
		{"another class", served(), func(s *situation) { other := "example.com/lb"; s.service.Spec.LoadBalancerClass = &other },
			[]string{"is of class example.com/lb, which another load balancer serves", "Next: look there"}},
		{"our class", served(), func(s *situation) { own := herald.LoadBalancerClass; s.service.Spec.LoadBalancerClass = &own },
			[]string{"is of class herald.dev/herald: herald-ccm serves it", "Nothing is to be done."}},
		{"nonsense", served(), annotate(herald.AnnotationIPs, "web"), []string{`Next: annotation herald.dev/ips: "web" is no IP address`}},
		{"no such pool", waiting(), annotate(herald.AnnotationPool, "gold"),
			[]string{"of pool gold (annotation herald.dev/pool)", `✗  public IPv4: pool "gold" is asked for, not this one`, `Next: there is no pool "gold": create it`}},
		{"a pool for others", waiting(), func(s *situation) { s.pools[0].Spec.Namespaces = []string{"red"} },
			[]string{`✗  public IPv4: pool "public" does not serve this Service`, "Next: no auto-assigning pool serves this Service"}},
		{"the address of another", waiting(), func(s *situation) {
			annotate(herald.AnnotationIPs, "198.51.100.7")(s)
			s.records = []*herald.IPAllocation{record("198.51.100.7", "public", "default/db")}
		}, []string{"exactly 198.51.100.7 (annotation herald.dev/ips)", "Next: 198.51.100.7 is held by default/db"}},
		{"herald-ccm does not run", waiting(), func(*situation) {},
			[]string{"Next: it can have 198.51.100.0 of pool public, and has not been given it: see whether herald-ccm runs"}},
		{"recorded only", served(), func(s *situation) { s.service.Status = corev1.ServiceStatus{} },
			[]string{"Next: 198.51.100.1 is recorded for it, and not in its status"}},
		{"brought from elsewhere, and in no pool", waiting(), func(s *situation) {
			s.service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.1"}}
		}, []string{"Next: status.loadBalancer carries 203.0.113.1, which is in no IPPool"}},
		{"kept for it, and for others", served(), func(s *situation) {
			annotate(herald.AnnotationSharingKey, "k")(s)
			terms := func(port string) *herald.AllocationSharing {
				return &herald.AllocationSharing{Key: "k", Traffic: "Cluster", Ports: []string{port}}
			}
			owners := &s.records[0].Spec.Owners
			(*owners)[0].ReclaimPolicy, (*owners)[0].Sharing = herald.ReclaimRetain, terms("TCP/80")
			*owners = append(*owners, herald.AllocationOwner{Namespace: "default", Name: "db", UID: "db", Sharing: terms("TCP/81")})
			s.records = append(s.records, reserved(record("198.51.100.8", "", "default/web")), cooling(record("198.51.100.9", "public", "default/web")))
		}, []string{`shared, by the key "k"`, "✓  198.51.100.1 from pool public, recorded for 60m, shared with default/db, kept for its name when it goes\n",
			"✗  198.51.100.8 is kept for the Service, but the Service holds another\n  endpoints", "Nothing is to be done."}},
		{"out of range", served(), func(s *situation) {
			s.pools[0].Spec.Addresses = []herald.AddressRange{"198.51.100.128/25"}
			s.records[0].Status.Conditions = []metav1.Condition{{Type: herald.AllocationInRange, Status: metav1.ConditionFalse, Message: "198.51.100.1 is in no IPPool any more"}}
		}, []string{"✗  198.51.100.1 from pool public, recorded for 60m; out of range",
			"Next: 198.51.100.1 is in no IPPool any more; move off it by kubectl herald renumber default/web"}},
		{"no advertisement", served(), func(s *situation) {
			s.l2[0].Spec.Pools, s.bgp, s.speakers[0].Status.Claims = []string{"gold"}, nil, nil
		},
			[]string{"✗  198.51.100.1 by nobody", "Next: no L2Advertisement or BGPAdvertisement selects 198.51.100.1, of pool public, for this Service: create one with spec.pools: [public]"}},
		{"no endpoint", served(), func(s *situation) {
			s.endpoints[0].Endpoints[0].Conditions.Ready, s.speakers[0].Status.Claims = &no, nil
		},
			[]string{"0 ready", "Next: no endpoint is ready, so no node announces"}},
		{"only where its endpoints are", served(), func(s *situation) {
			s.service.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		}, []string{"1 ready, on n1; only their nodes announce", "by BGP: n1 to tor-a\n", "the session of n1 with tor-b is Down"}},
		{"a session of all that there are", served(), func(s *situation) { s.l2, s.speakers = nil, []*herald.SpeakerStatus{speaker("n1", "", "Down", "Down")} },
			[]string{"✗  198.51.100.1 by nobody", "Next: by BGP: the session of n1 with tor-a is Down: no answer"}},
		{"no speaker", served(), func(s *situation) { s.speakers = nil }, []string{"Next: no herald-speaker has said anything of its node"}},
		{"no kube-proxy", served(), func(s *situation) {
			s.bgp, s.speakers = nil, s.speakers[1:]
			s.speakers[0].Status.Problem = "kube-proxy does not serve on this node"
		}, []string{"Next: node n2 announces nothing: kube-proxy does not serve on this node"}},
		{"no segment", served(), func(s *situation) {
			s.bgp, s.speakers = nil, s.speakers[1:]
			s.speakers[0].Status.Interfaces[0].Subnets = []string{"203.0.113.0/24"}
		}, []string{"Next: no node has an interface in a subnet of 198.51.100.1"}},
		{"other nodes", served(), func(s *situation) {
			s.bgp[0].Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"rack": "a"}}
			s.speakers = s.speakers[1:]
		}, []string{"Next: no node that advertisements select can serve it"}},
		{"other routers", served(), func(s *situation) { s.bgp[0].Spec.Peers = []string{"tor-b"} }, []string{"by BGP: n2 to tor-b"}},
		{"a deputy", served(), func(s *situation) {
			s.speakers[1].Status.Claims = []herald.SpeakerClaim{{Address: "198.51.100.1", Interface: "eth0", Since: now.Add(-5 * time.Second).Format(time.RFC3339), DeputyFor: "n1"}}
			meet(s.speakers...)
		}, []string{"✗  198.51.100.1 by ARP on eth0: node n2 answers for n1, whose speaker is silent, for 5s\n", "Next: see why the herald-speaker of node n1 is silent"}},
		{"two owners on one segment", served(), func(s *situation) {
			s.speakers[1] = speaker("n2", "198.51.100.1", "Established", "Established")
			meet(s.speakers...)
		}, []string{"announced  ✗  198.51.100.1 has 2 owners on one segment: n1 (eth0, for 40m), n2 (eth0, for 40m)\n", "✓  198.51.100.1 by ARP on eth0: node n1 owns it",
			"Next: 198.51.100.1 has 2 owners on one segment"}},
		{"owners on two segments", served(), func(s *situation) { s.speakers[1] = speaker("n2", "198.51.100.1", "Established", "Established") },
			[]string{"node n1 owns it", "node n2 owns it", "Nothing is to be done."}},
		{"the owner has died", served(), func(s *situation) {
			s.bgp, s.speakers[1].Status.Deaths = nil, []herald.SpeakerDeath{{Node: "n1", Interface: "eth0"}}
		}, []string{"✗  198.51.100.1 by ARP on eth0: node n1 owned it, but it is dead, as n2 has witnessed\n", "✗  198.51.100.1 by nobody"}},
		{"a stranger has it", served(), func(s *situation) {
			s.speakers[1].Status.Conflicts = []herald.SpeakerConflict{{Address: "198.51.100.1", Interface: "eth0", MAC: "02:00:5e:00:53:99", At: now.Add(-time.Minute).Format(time.RFC3339)}}
		}, []string{"announced  ✗  198.51.100.1 a machine that is no speaker uses it: 02:00:5e:00:53:99 on eth0 of n2, seen in the last 60s\n",
			"Next: 198.51.100.1: a machine that is no speaker uses it: ", "kubectl herald renumber default/web"}},
		{"a stranger had it", served(), func(s *situation) {
			s.records[0].Status.Conditions = []metav1.Condition{{Type: herald.AllocationConflict, Status: metav1.ConditionTrue, Message: "02:00:5e:00:53:99 uses it"}}
		}, []string{"announced  ✗  198.51.100.1 02:00:5e:00:53:99 uses it\n", "Next: 198.51.100.1: 02:00:5e:00:53:99 uses it; find that machine"}},
		{"more than is listed", served(), func(s *situation) {
			s.bgp, s.speakers[0].Status.Claims, s.speakers[0].Status.L2Addresses = nil, s.speakers[0].Status.Claims[1:], 3000
		}, []string{"✓  198.51.100.1 by ARP: not known: more addresses are owned than are listed in the SpeakerStatus of n1\n", "Next: find out who answers for 198.51.100.1: kubectl herald verify 198.51.100.1"}},
		{"IPv6 on the segment", served(), func(s *situation) {
			s.service.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol}
			s.service.Status.LoadBalancer.Ingress[0].IP = "2001:db8::1"
			s.pools[0].Spec.Addresses = []herald.AddressRange{"2001:db8::/64"}
			s.records[0] = record("2001:db8::1", "public", "default/web")
			s.bgp, s.speakers[0].Status.Claims[0].Address = nil, "2001:db8::1"
		}, []string{"✓  2001:db8::1 by NDP on eth0: node n1 owns it, for 40m (highest rank)\n", "Nothing is to be done."}},
		{"IPv6 that nothing selects", served(), func(s *situation) {
			s.service.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol}
			s.service.Status.LoadBalancer.Ingress[0].IP = "2001:db8::1"
			s.pools[0].Spec.Addresses = []herald.AddressRange{"2001:db8::/64"}
			s.records[0] = record("2001:db8::1", "public", "default/web")
			s.bgp, s.l2 = nil, nil
		}, []string{"Next: no L2Advertisement or BGPAdvertisement selects 2001:db8::1, of pool public, for this Service"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.change(c.of)
			got := explained(t, c.of)
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
		})
	}
}
