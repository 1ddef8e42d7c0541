package speaker

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	herald "github.com/heraldlb/herald/api/v1alpha1"

	"github.com/heraldlb/herald/speaker/announce"
)

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
				a := in.address(address, noon.Add(time.Hour))
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
			if a := in.address(vip, noon); a != nil {
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

// strip keeps enough: a change of any field that a decision depends on is visible in the assembled address.
func TestAnAddressIsAssembledFromWhatStripLeaves(t *testing.T) {
	svc := serviceWith("198.51.100.7")
	svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	in := watched(t, svc,
		recordFor("198.51.100.7", "web-uid"),
		slice("web-a", web, endpoint("n1", new(true)), endpoint("n2", new(false))),
		over6(slice("web-b", web, endpoint("n1", new(false)), endpoint("n2", new(true)))))
	want := &announce.Address{Addr: vip, Pool: "public", Services: []*announce.Service{{
		Name: web, Labels: map[string]string{"app": "web"}, Local: true, Sticky: true, Ready4: []string{"n1"}, Ready6: []string{"n2"},
		Count4: map[string]int{"n1": 1}, Count6: map[string]int{"n2": 1},
	}}}
	if diff := gocmp.Diff(want, in.address(vip, noon), alike...); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	in = watched(t, serviceWith("198.51.100.7"), recordFor("198.51.100.7", "web-uid"))
	want = &announce.Address{Addr: vip, Pool: "public", Services: []*announce.Service{{Name: web, Labels: map[string]string{"app": "web"}}}}
	if diff := gocmp.Diff(want, in.address(vip, noon), alike...); diff != "" {
		t.Errorf("the opposite of it all (-want +got):\n%s", diff)
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
		over6(slice("web-e", web, endpoint("n6", new(true)), endpoint("n2", new(true)))),
		byName(slice("web-f", web, endpoint("n7", new(true)))),
		slice("mail-a", mail, endpoint("n4", new(true))),
		slice("web-a", elsewhere, endpoint("n5", new(true))))
	for name, want := range map[types.NamespacedName][2][]string{
		web: {{"n1", "n3", "n6"}, {"n2", "n6"}}, mail: {{"n4"}}, elsewhere: {{"n5"}}, {Namespace: "default", Name: "none"}: {},
	} {
		if got4, got6 := announce.Ready(in.slicesOf(name)); !slices.Equal(got4, want[0]) || !slices.Equal(got6, want[1]) {
			t.Errorf("%s: ready on %v and %v, want %v", name, got4, got6, want)
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

func TestChangesAddUpUntilTheyAreTaken(t *testing.T) {
	in := watched(t)
	in.touch()
	if len(in.trigger) > 0 {
		t.Error("triggered by nothing")
	}
	in.touch(vip)
	in.touch(vip, vip6)
	in.touchNamespace("default")
	if len(in.trigger) != 1 {
		t.Errorf("triggered %d times, want once", len(in.trigger))
	}
	want := changes{addresses: map[netip.Addr]bool{vip: true, vip6: true}, namespaces: map[string]bool{"default": true}}
	got := in.take()
	if diff := gocmp.Diff(want, got, gocmp.AllowUnexported(changes{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	in.touchAll()
	if c := in.take(); !c.all || len(c.addresses)+len(c.namespaces) > 0 {
		t.Errorf("all and nothing else is dirty: %+v", c)
	}
	if c := in.take(); c.all || len(c.addresses)+len(c.namespaces) > 0 {
		t.Errorf("taken twice: %+v", c)
	}
}

// Endpoints that users write by hand are on no node. Any node can forward to them, but no node has them.
func TestEndpointsOnNoNodeServeUnderClusterPolicyOnly(t *testing.T) {
	in := watched(t, &discoveryv1.EndpointSlice{
		AddressType: discoveryv1.AddressTypeIPv4,
		ObjectMeta:  metav1.ObjectMeta{Namespace: web.Namespace, Name: "by-hand", Labels: map[string]string{discoveryv1.LabelServiceName: web.Name}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"203.0.113.9"}}},
	})
	svc := &announce.Service{}
	svc.Ready4, svc.Ready6 = announce.Ready(in.slicesOf(web))
	if svc.Delivers(vip6, "n1") {
		t.Error("the node serves IPv6, of which there is no endpoint")
	}
	if !svc.Delivers(vip, "n1") {
		t.Error("under Cluster policy the node does not serve")
	}
	svc.Local = true
	if svc.Delivers(vip, "n1") {
		t.Error("under Local policy the node serves")
	}
}

// A change of one object must not cause decisions about all addresses.
func TestWhatAChangeMakesDirty(t *testing.T) {
	const address = "198.51.100.7"
	meta := func(namespace, name, version string, labels map[string]string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name, ResourceVersion: version, Labels: labels}
	}
	namespace := func(name, version, label string) *corev1.Namespace {
		return &corev1.Namespace{ObjectMeta: meta("", name, version, map[string]string{"l": label})}
	}
	node := func(version, label string) *corev1.Node {
		return &corev1.Node{ObjectMeta: meta("", "n1", version, map[string]string{"l": label})}
	}
	secret := func(version, key string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: meta("herald-system", "s", version, nil), Data: map[string][]byte{key: []byte(version)}}
	}
	version := func(o metav1.Object, v string) metav1.Object {
		o.SetResourceVersion(v)
		return o
	}
	some := func(addresses ...string) changes {
		c := noChanges()
		for _, a := range parseAddresses(addresses...) {
			c.addresses[a] = true
		}
		return c
	}
	of := func(namespace string, addresses ...string) changes {
		c := some(addresses...)
		c.namespaces[namespace] = true
		return c
	}
	annotated := func(version, value string) *corev1.Node {
		o := node(version, "a")
		o.Annotations = map[string]string{"example.com/tor": value}
		return o
	}
	peers, all := noChanges(), noChanges()
	peers.peers, all.all = true, true
	for _, story := range []struct {
		name          string
		before, after metav1.Object
		want          changes
	}{
		{"a Service comes", nil, serviceWith(address), some(address)},
		{"a Service goes", serviceWith(address), nil, some(address)},
		{"a Service has another address", version(serviceWith(address), "1"), version(serviceWith("198.51.100.8"), "2"), some(address, "198.51.100.8")},
		{"a Service has no address", nil, serviceWith(), some()},
		{"nothing has changed", version(serviceWith(address), "1"), version(serviceWith(address), "1"), some()},
		{"endpoints", nil, slice("web-a", web, endpoint("n1", nil)), some(address)},
		{"endpoints of a Service that is not known", nil, slice("x-a", types.NamespacedName{Namespace: "default", Name: "x"}), some()},
		{"a record", nil, recordFor(address, "web-uid"), some(address)},
		{"a record that is released", version(recordFor(address, "web-uid"), "1"), version(released(recordFor(address, "web-uid")), "2"), some(address)},
		{"a record of garbage", nil, &herald.IPAllocation{Spec: herald.IPAllocationSpec{Address: "garbage"}}, some()},
		{"the labels of a Service's namespace", namespace("default", "1", "a"), namespace("default", "2", "b"), of("default", address)},
		{"another change of it", namespace("default", "1", "a"), namespace("default", "2", "a"), some()},
		{"a namespace without Services", nil, namespace("empty", "1", "a"), of("empty")},
		{"such a namespace goes", namespace("empty", "1", "a"), nil, of("empty")},
		{"a password", secret("1", "password"), secret("2", "password"), peers},
		{"something else in a Secret", secret("1", "user"), secret("2", "user"), some()},
		{"a node's labels", node("1", "a"), node("2", "b"), all},
		{"a node's heartbeat", node("1", "a"), node("2", "a"), some()},
		{"this node's annotations", annotated("1", "a"), annotated("2", "b"), peers},
		{"a pool", nil, &herald.IPPool{}, all},
		{"an L2Advertisement", nil, &herald.L2Advertisement{}, all},
		{"a BGPAdvertisement", &herald.BGPAdvertisement{}, nil, all},
		{"a BGPPeer", nil, &herald.BGPPeer{}, all},
	} {
		t.Run(story.name, func(t *testing.T) {
			in := watched(t, serviceWith(address))
			handlers := in.handlers()
			switch {
			case story.before == nil:
				handlers[informerOf(t, in, story.after)].OnAdd(story.after, false)
			case story.after == nil:
				handlers[informerOf(t, in, story.before)].OnDelete(cache.DeletedFinalStateUnknown{Obj: story.before})
			default:
				handlers[informerOf(t, in, story.before)].OnUpdate(story.before, story.after)
			}
			got := in.take()
			if !reflect.DeepEqual(got, story.want) {
				t.Errorf("%+v, want %+v", got, story.want)
			}
		})
	}
}

func TestARecordIsNewForAWhile(t *testing.T) {
	rec := recordFor("198.51.100.7", "web-uid")
	rec.CreationTimestamp = metav1.NewTime(noon)
	in := watched(t, serviceWith("198.51.100.7"), rec)
	for age, want := range map[time.Duration]bool{-time.Second: true, 0: true, time.Minute - time.Second: true, time.Minute: false, time.Hour: false} {
		if got := in.address(vip, noon.Add(age)).New; got != want {
			t.Errorf("after %v: %v, want %v", age, got, want)
		}
	}
}

// A user may write any address into a Service's status, and name any Service in a slice.
func TestABrokenObjectStopsNoOther(t *testing.T) {
	svc := serviceWith("garbage", "198.51.100.7", "", "fe80::1%eth0", "300.1.1.1")
	in := watched(t, svc, recordFor("198.51.100.7", "web-uid"), slice("web-a", types.NamespacedName{Namespace: "default"}, endpoint("n1", nil)))
	var got []string
	for _, a := range in.everyAddress() {
		if in.address(a, noon) != nil {
			got = append(got, a.String())
		}
	}
	if want := []string{"198.51.100.7"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
