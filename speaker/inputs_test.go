package speaker

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// offline are clients of an API server that is never asked.
func offline(t testing.TB) (kubernetes.Interface, *client.Set) {
	t.Helper()
	config := &rest.Config{Host: "https://203.0.113.1"}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	set, err := client.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return kube, set
}

// watched are inputs that have seen these objects, as the informers would have handed them on. Nothing
// runs.
func watched(t testing.TB, objects ...metav1.Object) *inputs {
	t.Helper()
	kube, set := offline(t)
	in, err := newInputs(kube, set, "herald-system", false, func(string, *herald.SpeakerStatus) {})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		stripped, err := strip(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := informerOf(t, in, o).GetStore().Add(stripped); err != nil {
			t.Fatal(err)
		}
	}
	return in
}

func informerOf(t testing.TB, in *inputs, o metav1.Object) cache.SharedIndexInformer {
	t.Helper()
	switch o.(type) {
	case *corev1.Service:
		return in.services
	case *discoveryv1.EndpointSlice:
		return in.slices
	case *corev1.Node:
		return in.nodes
	case *corev1.Namespace:
		return in.namespaces
	case *herald.IPAllocation:
		return in.allocations
	case *herald.IPPool:
		return in.pools
	case *herald.L2Advertisement:
		return in.l2
	case *herald.BGPAdvertisement:
		return in.bgp
	case *herald.BGPPeer:
		return in.peers
	case *herald.SpeakerStatus:
		return in.statuses
	}
	t.Fatalf("nobody watches %T", o)
	return nil
}

var web = types.NamespacedName{Namespace: "default", Name: "web"}

// serviceWith is default/web with these addresses in its status.
func serviceWith(addresses ...string) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: web.Namespace, Name: web.Name, UID: "web-uid", Labels: map[string]string{"app": "web"},
			Annotations:   map[string]string{"note": "long"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}},
		},
		Spec: corev1.ServiceSpec{
			Type:                  corev1.ServiceTypeLoadBalancer,
			Ports:                 []corev1.ServicePort{{Port: 80}},
			Selector:              map[string]string{"app": "web"},
			ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyCluster,
			SessionAffinity:       corev1.ServiceAffinityNone,
		},
	}
	for _, a := range addresses {
		svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a})
	}
	return svc
}

// recordFor is the record of an address for the Services with these UIDs.
func recordFor(address string, owners ...types.UID) *herald.IPAllocation {
	rec := &herald.IPAllocation{
		ObjectMeta: metav1.ObjectMeta{Name: herald.AllocationName(netip.MustParseAddr(address))},
		Spec:       herald.IPAllocationSpec{Address: address, Pool: "public"},
	}
	for _, uid := range owners {
		rec.Spec.Owners = append(rec.Spec.Owners, herald.AllocationOwner{Namespace: web.Namespace, Name: web.Name, UID: uid})
	}
	return rec
}

func released(rec *herald.IPAllocation) *herald.IPAllocation {
	rec.Status.ReleasedAt = &metav1.Time{Time: noon}
	return rec
}

// endpoint is on a node, or on none that is known if node is empty; ready is nil where nobody says.
func endpoint(node string, ready *bool) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{"198.18.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: ready, Serving: new(true)}}
	if node != "" {
		e.NodeName = &node
	}
	return e
}

func slice(name string, svc types.NamespacedName, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: svc.Namespace, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: svc.Name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   endpoints,
		Ports:       []discoveryv1.EndpointPort{{Port: new(int32(8080))}},
	}
}

// claiming is the status of a node that answers for these addresses since noon.
func claiming(node string, addresses ...string) *herald.SpeakerStatus {
	o := &herald.SpeakerStatus{ObjectMeta: metav1.ObjectMeta{Name: node}}
	for _, a := range slices.Sorted(slices.Values(addresses)) {
		o.Status.Claims = append(o.Status.Claims, herald.SpeakerClaim{Address: a, Since: new(metav1.NewMicroTime(noon))})
	}
	return o
}

func nothingOwn(netip.Addr) (Claim, bool) { return Claim{}, false }

func TestOnlyRecordedAddressesAreTheServices(t *testing.T) {
	for _, story := range []struct {
		name    string
		status  []string
		records []*herald.IPAllocation
		want    []string
	}{
		{"recorded", []string{"198.51.100.7"}, []*herald.IPAllocation{recordFor("198.51.100.7", "web-uid")}, []string{"198.51.100.7"}},
		{"both families", []string{"198.51.100.7", "2001:db8::7"},
			[]*herald.IPAllocation{recordFor("198.51.100.7", "web-uid"), recordFor("2001:db8::7", "web-uid")}, []string{"198.51.100.7", "2001:db8::7"}},
		{"not recorded: whoever wrote the status made it up", []string{"198.51.100.7"}, nil, nil},
		{"one recorded, one made up", []string{"198.51.100.7", "198.51.100.8"},
			[]*herald.IPAllocation{recordFor("198.51.100.8", "web-uid")}, []string{"198.51.100.8"}},
		{"recorded, not yet in the status", nil, []*herald.IPAllocation{recordFor("198.51.100.7", "web-uid")}, nil},
		{"recorded for another", []string{"198.51.100.7"}, []*herald.IPAllocation{recordFor("198.51.100.7", "other-uid")}, nil},
		{"recorded for an earlier Service of this name", []string{"198.51.100.7"}, []*herald.IPAllocation{recordFor("198.51.100.7", "web-uid-before")}, nil},
		{"recorded for several", []string{"198.51.100.7"}, []*herald.IPAllocation{recordFor("198.51.100.7", "other-uid", "web-uid")}, []string{"198.51.100.7"}},
		{"reserved", []string{"198.51.100.7"}, []*herald.IPAllocation{recordFor("198.51.100.7")}, nil},
		{"released", []string{"198.51.100.7"}, []*herald.IPAllocation{released(recordFor("198.51.100.7", "web-uid"))}, nil},
		{"an address in another spelling is the same", []string{"2001:DB8:0::7"}, []*herald.IPAllocation{recordFor("2001:db8::7", "web-uid")}, []string{"2001:db8::7"}},
		{"IPv4 written as IPv6 is another", []string{"::ffff:198.51.100.7"}, []*herald.IPAllocation{recordFor("198.51.100.7", "web-uid")}, nil},
		{"a hostname has no record", []string{""}, []*herald.IPAllocation{recordFor("198.51.100.7", "web-uid")}, nil},
	} {
		t.Run(story.name, func(t *testing.T) {
			in := watched(t, serviceWith(story.status...))
			for _, rec := range story.records {
				if err := in.allocations.GetStore().Add(rec); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			for _, address := range in.everyAddress() {
				a := in.address(address, "n1", nothingOwn)
				if a == nil {
					continue
				}
				got = append(got, a.String())
				if a.Pool != "public" || len(a.Services) != 1 {
					t.Errorf("%s is of pool %q, and of the Services %v", a, a.Pool, a.Services)
				}
			}
			if !slices.Equal(got, story.want) {
				t.Errorf("%v, want %v", got, story.want)
			}
		})
	}
}

// serviceNamed is a Service of that name with these addresses in its status.
func serviceNamed(name string, addresses ...string) *corev1.Service {
	svc := serviceWith(addresses...)
	svc.Name, svc.UID = name, types.UID(name+"-uid")
	return svc
}

// sharedBy is the record of an address for the Services of these names.
func sharedBy(address string, names ...string) *herald.IPAllocation {
	rec := recordFor(address)
	for _, name := range names {
		rec.Spec.Owners = append(rec.Spec.Owners, herald.AllocationOwner{Namespace: web.Namespace, Name: name, UID: types.UID(name + "-uid")})
	}
	return rec
}

func TestWhichServicesShareAnAddress(t *testing.T) {
	const address = "198.51.100.7"
	going := serviceNamed("going", address)
	going.DeletionTimestamp = &metav1.Time{Time: noon}
	owners := func(names ...string) *herald.IPAllocation { return sharedBy(address, names...) }
	for _, story := range []struct {
		name     string
		services []*corev1.Service
		record   *herald.IPAllocation
		want     []string
	}{
		{"one alone", []*corev1.Service{serviceNamed("web", address)}, owners("web"), []string{"web"}},
		{"two", []*corev1.Service{serviceNamed("web", address), serviceNamed("dns", address)}, owners("web", "dns"), []string{"web", "dns"}},
		{"one has left", []*corev1.Service{serviceNamed("web", address), serviceNamed("dns", address)}, owners("dns"), []string{"dns"}},
		{"one does not have it yet", []*corev1.Service{serviceNamed("web", address), serviceNamed("dns")}, owners("web", "dns"), []string{"web"}},
		{"one is gone", []*corev1.Service{serviceNamed("dns", address)}, owners("web", "dns"), []string{"dns"}},
		{"one is going", []*corev1.Service{going, serviceNamed("dns", address)}, owners("going", "dns"), []string{"dns"}},
		{"all are going", []*corev1.Service{going}, owners("going"), nil},
		{"all are gone", nil, owners("web", "dns"), nil},
		{"the record is released", []*corev1.Service{serviceNamed("web", address)}, released(owners("web")), nil},
	} {
		t.Run(story.name, func(t *testing.T) {
			in := watched(t, story.record)
			for _, svc := range story.services {
				if err := in.services.GetStore().Add(svc); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			if a := in.address(vip, "n1", nothingOwn); a != nil {
				for _, svc := range a.Services {
					got = append(got, svc.Name.Name)
				}
			}
			if !slices.Equal(got, story.want) {
				t.Errorf("%v, want %v", got, story.want)
			}
		})
	}
}

// What strip leaves is enough: each of the fields that a decision rests on is told from its opposite.
func TestAnAddressIsAssembledFromWhatStripLeaves(t *testing.T) {
	svc := serviceWith("198.51.100.7")
	svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	in := watched(t, svc,
		recordFor("198.51.100.7", "web-uid"),
		slice("web-a", web, endpoint("n1", new(true)), endpoint("n2", new(false))),
		claiming("n2", "198.51.100.7"))
	want := &Address{Addr: vip, Pool: "public", Claims: []Claim{{Node: "n2", Since: noon}}, Services: []*Service{{
		Name: web, Labels: map[string]string{"app": "web"}, Local: true, Sticky: true, Ready: []string{"n1"},
	}}}
	if diff := gocmp.Diff(want, in.address(vip, "n1", nothingOwn), alike...); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	in = watched(t, serviceWith("198.51.100.7"), recordFor("198.51.100.7", "web-uid"))
	want = &Address{Addr: vip, Pool: "public", Services: []*Service{{Name: web, Labels: map[string]string{"app": "web"}}}}
	if diff := gocmp.Diff(want, in.address(vip, "n1", nothingOwn), alike...); diff != "" {
		t.Errorf("the opposite of it all (-want +got):\n%s", diff)
	}
}

func TestSharedIsAssembledFromWhatStripLeaves(t *testing.T) {
	labels := map[string]string{"l": "v"}
	in := watched(t,
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: labels, Annotations: labels}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2", Labels: map[string]string{corev1.LabelNodeExcludeBalancers: ""}}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default", Labels: labels}},
		&herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "public", Labels: labels}},
		&herald.SpeakerStatus{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: herald.SpeakerStatusStatus{
			Interfaces: []herald.SpeakerInterface{{Name: "eth0", Subnets: []string{"198.51.100.0/24", "garbage"}}},
		}},
		&herald.SpeakerStatus{ObjectMeta: metav1.ObjectMeta{Name: "no-node"}, Status: herald.SpeakerStatusStatus{
			Interfaces: []herald.SpeakerInterface{{Name: "eth0"}},
		}})
	s, complaints := in.shared("n1", true, func(node string) bool { return node == "n2" })
	want := &Shared{
		Self: "n1", Healthy: true,
		Nodes: map[string]Node{
			"n1": {Labels: labels, Interfaces: []Interface{{Name: "eth0", Subnets: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}}},
			"n2": {Labels: map[string]string{corev1.LabelNodeExcludeBalancers: ""}, Excluded: true, Alive: true},
		},
		Pools:      map[string]map[string]string{"public": labels},
		Namespaces: map[string]map[string]string{"default": labels},
	}
	if diff := gocmp.Diff(want, s, alike...); diff != "" || len(complaints) > 0 {
		t.Errorf("complaints %v; (-want +got):\n%s", complaints, diff)
	}
}

func TestAnInvalidAdvertisementAffectsOnlyItself(t *testing.T) {
	invalid := herald.Selection{NodeSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}}
	in := watched(t,
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: herald.L2AdvertisementSpec{Selection: invalid}},
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "z"}},
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "good"}},
		&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: herald.BGPAdvertisementSpec{Selection: invalid}},
		&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "worse"}, Spec: herald.BGPAdvertisementSpec{Communities: []herald.Community{"1:2:3:4"}}},
		&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "z"}},
		&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "good"}})
	s, complaints := in.shared("n1", true, func(string) bool { return true })
	var about, l2, routes []string
	for _, c := range complaints {
		about = append(about, c.kind+" "+c.object.GetName()+" "+c.reason)
	}
	for _, ad := range s.L2 {
		l2 = append(l2, ad.Name)
	}
	for _, ad := range s.BGP {
		routes = append(routes, ad.Name)
	}
	slices.Sort(about)
	if want := []string{"BGPAdvertisement bad Invalid", "BGPAdvertisement worse Invalid", "L2Advertisement bad Invalid"}; !slices.Equal(about, want) {
		t.Errorf("complaints about %v, want %v", about, want)
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
			s, complaints := in.shared("n1", true, func(string) bool { return true })
			if len(complaints) > 0 || len(s.BGP) != 1 || !slices.Equal(s.BGP[0].Peers, story.want) {
				t.Errorf("%+v and complaints %v, want peers %v", s.BGP, complaints, story.want)
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
	s, _ := in.shared("n1", true, func(string) bool { return true })
	for peer, want := range map[string][2]bool{"all": {true, true}, "some": {true, false}, "invalid": {false, false}} {
		if got := [2]bool{s.holds(peer, a), s.holds(peer, b)}; got != want {
			t.Errorf("%s: held by nodes in rack a and b: %v, want %v", peer, got, want)
		}
	}
}

func TestReadyLooksAtAllSlices(t *testing.T) {
	mail := types.NamespacedName{Namespace: "default", Name: "mail"}
	elsewhere := types.NamespacedName{Namespace: "other", Name: "web"}
	in := watched(t,
		slice("web-a", web, endpoint("n3", new(true)), endpoint("n1", new(true)), endpoint("n1", new(true))),
		slice("web-b", web, endpoint("n2", new(false)), endpoint("n3", new(true))),
		slice("web-c", web, endpoint("n6", nil)),
		slice("web-d", web),
		slice("mail-a", mail, endpoint("n4", new(true))),
		slice("web-a", elsewhere, endpoint("n5", new(true))))
	for name, want := range map[types.NamespacedName][]string{
		web: {"n1", "n3", "n6"}, mail: {"n4"}, elsewhere: {"n5"}, {Namespace: "default", Name: "none"}: nil,
	} {
		if got := in.ready(name); !slices.Equal(got, want) {
			t.Errorf("%s: ready on %v, want %v", name, got, want)
		}
	}
}

func TestClaimsOfOthersAreWhatTheySayAndOursWhatWeKnow(t *testing.T) {
	in := watched(t, serviceWith("198.51.100.7"), recordFor("198.51.100.7", "web-uid"),
		claiming("n3", "198.51.100.7", "198.51.100.70", "198.51.100.8"),
		claiming("n2", "198.51.100.7"),
		claiming("self", "198.51.100.7"),
		claiming("n4", "198.51.100.8"))
	others := []Claim{{"n2", noon}, {"n3", noon}}
	later := noon.Add(time.Minute)
	for _, story := range []struct {
		name string
		own  func(netip.Addr) (Claim, bool)
		want []Claim
	}{
		{"we gave it up, the API server does not know yet", nothingOwn, others},
		{"we took it up anew", func(netip.Addr) (Claim, bool) { return Claim{"self", later}, true }, append(slices.Clone(others), Claim{"self", later})},
	} {
		if got := in.address(vip, "self", story.own).Claims; !slices.Equal(got, story.want) {
			t.Errorf("%s: %v, want %v", story.name, got, story.want)
		}
	}
}

func TestAChangedClaimConcernsItsAddressAlone(t *testing.T) {
	const seven, eight = "198.51.100.7", "198.51.100.8"
	later := claiming("n1", seven, eight)
	later.Status.Claims[0].Since = new(metav1.NewMicroTime(noon.Add(time.Second)))
	asking := claiming("n1", seven)
	asking.Status.Claims[0].Since = nil
	for _, story := range []struct {
		name          string
		before, after any
		want          []string
	}{
		{"new status", nil, claiming("n1", seven), []string{seven}},
		{"status gone", claiming("n1", eight), nil, []string{eight}},
		{"one more claim", claiming("n1", seven), claiming("n1", seven, eight), []string{eight}},
		{"one claim less", claiming("n1", seven, eight), claiming("n1", eight), []string{seven}},
		{"the same claims", claiming("n1", seven), claiming("n1", seven), nil},
		{"a claim from another time", claiming("n1", seven, eight), later, []string{seven}},
		{"a claim that was asked for", asking, claiming("n1", seven), []string{seven}},
		{"a claim that is no address", nil, claiming("n1", "garbage"), nil},
	} {
		got := slices.Compact(claimedAnew(story.before, story.after)) // It may be named twice.
		if want := parseAddresses(story.want...); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", story.name, got, want)
		}
	}
}

func TestASliceConcernsTheAddressesOfItsService(t *testing.T) {
	in := watched(t, serviceWith("198.51.100.7", "2001:db8::7"))
	if got, want := in.addressesBehind(slice("web-a", web)), []netip.Addr{vip, vip6}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := in.addressesBehind(slice("mail-a", types.NamespacedName{Namespace: "default", Name: "mail"})); len(got) > 0 {
		t.Errorf("of a Service that is not known: %v", got)
	}
}

func TestWhichChangesConcernAllServices(t *testing.T) {
	meta := func(generation int64, label string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: "o", Generation: generation, Labels: map[string]string{"l": label}}
	}
	node := func(label, address string, heartbeat time.Time) *corev1.Node {
		return &corev1.Node{ObjectMeta: meta(0, label), Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}},
			Conditions: []corev1.NodeCondition{{LastHeartbeatTime: metav1.NewTime(heartbeat)}},
		}}
	}
	secret := func(key, value string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: meta(0, ""), Data: map[string][]byte{key: []byte(value)}}
	}
	pool := func(generation int64, label string, assigned int64) *herald.IPPool {
		return &herald.IPPool{ObjectMeta: meta(generation, label), Status: herald.IPPoolStatus{IPv4: &herald.PoolUsage{Assigned: assigned}}}
	}
	for _, story := range []struct {
		name          string
		before, after any
		want          bool
	}{
		{"a new object", nil, pool(1, "", 0), true},
		{"an object gone", pool(1, "", 0), nil, true},
		{"a pool's spec", pool(1, "", 0), pool(2, "", 0), true},
		{"a pool's labels", pool(1, "a", 0), pool(1, "b", 0), true},
		{"a pool's status", pool(1, "", 0), pool(1, "", 1), false},
		{"a node's labels", node("a", "198.18.0.1", noon), node("b", "198.18.0.1", noon), true},
		{"a node's addresses", node("", "198.18.0.1", noon), node("", "198.18.0.2", noon), true},
		{"a node's heartbeat", node("", "198.18.0.1", noon), node("", "198.18.0.1", noon.Add(time.Minute)), false},
		{"a namespace's labels", &corev1.Namespace{ObjectMeta: meta(0, "a")}, &corev1.Namespace{ObjectMeta: meta(0, "b")}, true},
		{"a namespace's phase", &corev1.Namespace{ObjectMeta: meta(0, "")},
			&corev1.Namespace{ObjectMeta: meta(0, ""), Status: corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating}}, false},
		{"a password", secret("password", "a"), secret("password", "b"), true},
		{"another key of a Secret", secret("username", "a"), secret("username", "b"), false},
		{"an advertisement's spec", &herald.L2Advertisement{ObjectMeta: meta(1, "")}, &herald.L2Advertisement{ObjectMeta: meta(2, "")}, true},
		{"a peer's annotation", &herald.BGPPeer{ObjectMeta: meta(1, "")}, &herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{
			Name: "o", Generation: 1, Labels: map[string]string{"l": ""}, Annotations: map[string]string{"note": "x"},
		}}, false},
	} {
		if got := matters(story.before, story.after); got != story.want {
			t.Errorf("%s: %v, want %v", story.name, got, story.want)
		}
	}
}

func TestSameInterfaces(t *testing.T) {
	with := func(interfaces ...herald.SpeakerInterface) *herald.SpeakerStatus {
		return &herald.SpeakerStatus{Status: herald.SpeakerStatusStatus{Interfaces: interfaces}}
	}
	eth0 := herald.SpeakerInterface{Name: "eth0", MAC: "02:00:00:00:00:01", Subnets: []string{"198.51.100.0/24"}}
	moved, replaced := eth0, eth0
	moved.Subnets, replaced.MAC = []string{"203.0.113.0/24"}, "02:00:00:00:00:02"
	claims := with(eth0)
	claims.Status.Claims, claims.Status.L2Addresses = claiming("n1", "198.51.100.7").Status.Claims, 1
	for _, story := range []struct {
		name          string
		before, after any
		want          bool
	}{
		{"a new node", nil, with(eth0), false},
		{"a node gone", with(eth0), nil, false},
		{"nothing new", with(eth0), with(eth0), true},
		{"one more", with(), with(eth0), false},
		{"one less", with(eth0), with(), false},
		{"another subnet", with(eth0), with(moved), false},
		{"another card", with(eth0), with(replaced), true},
		{"only claims", with(eth0), claims, true},
	} {
		if got := sameInterfaces(story.before, story.after); got != story.want {
			t.Errorf("%s: %v, want %v", story.name, got, story.want)
		}
	}
}

func TestStripDropsWhatIsLarge(t *testing.T) {
	svc := serviceWith("198.51.100.7")
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"a": "b"}},
		Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "198.18.0.1"}},
			Images:    []corev1.ContainerImage{{Names: []string{"large"}}},
		},
	}
	eps := slice("web-a", web, endpoint("n1", new(true)))
	for _, o := range []any{svc, node, eps} {
		if _, err := strip(o); err != nil {
			t.Fatal(err)
		}
	}
	if svc.Annotations != nil || svc.ManagedFields != nil || svc.Spec.Ports != nil || svc.Spec.Selector != nil {
		t.Errorf("Service: %+v", svc)
	}
	if node.Annotations != nil || node.Status.Images != nil || len(node.Status.Addresses) != 1 {
		t.Errorf("Node: %+v", node)
	}
	if eps.Ports != nil || eps.Endpoints[0].Addresses != nil || eps.Endpoints[0].Conditions.Serving != nil {
		t.Errorf("EndpointSlice: %+v", eps)
	}
	tombstone := cache.DeletedFinalStateUnknown{Key: "default/web"}
	if got, err := strip(tombstone); got != any(tombstone) || err != nil {
		t.Errorf("a tombstone becomes %v, %v", got, err)
	}
}

func TestChangesAddUpUntilTheyAreTaken(t *testing.T) {
	in := watched(t)
	in.touch()
	if len(in.trigger) > 0 {
		t.Error("triggered by nothing")
	}
	in.touch(vip)
	in.touch(vip, vip6)
	in.touchLease("speaker-n1")
	if len(in.trigger) != 1 {
		t.Errorf("triggered %d times, want once", len(in.trigger))
	}
	want := changes{addresses: map[netip.Addr]bool{vip: true, vip6: true}, leases: map[string]bool{"speaker-n1": true}}
	if diff := gocmp.Diff(want, in.take(), gocmp.AllowUnexported(changes{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	in.touchAll()
	if c := in.take(); !c.all || len(c.addresses)+len(c.leases) > 0 {
		t.Errorf("all and nothing else is dirty: %+v", c)
	}
	if c := in.take(); c.all || len(c.addresses)+len(c.leases) > 0 {
		t.Errorf("taken twice: %+v", c)
	}
}

// Endpoints that users write by hand are on no node: any node can forward to them, none has them.
func TestEndpointsOnNoNodeServeUnderClusterPolicyOnly(t *testing.T) {
	in := watched(t, &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: web.Namespace, Name: "by-hand", Labels: map[string]string{discoveryv1.LabelServiceName: web.Name}},
		Endpoints:  []discoveryv1.Endpoint{{Addresses: []string{"203.0.113.9"}}},
	})
	svc := &Service{Ready: in.ready(web)}
	if !svc.delivers("n1") {
		t.Error("under Cluster policy the node does not serve")
	}
	svc.Local = true
	if svc.delivers("n1") {
		t.Error("under Local policy the node serves")
	}
}
