package speaker

import (
	"net/netip"
	"testing"

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

// offline returns clients for an API server that is never called.
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

// watched returns inputs that have seen these objects, as if the informers had passed them on. No informer runs.
func watched(t testing.TB, objects ...metav1.Object) *inputs {
	t.Helper()
	kube, set := offline(t)
	in, err := newInputs(kube, set, "n1", "herald-system", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		stripped, err := in.strip(o)
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
	case *corev1.Secret:
		return in.secrets
	}
	t.Fatalf("nobody watches %T", o)
	return nil
}

var web = types.NamespacedName{Namespace: "default", Name: "web"}

// serviceWith returns default/web with these addresses in its status.
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

// recordFor returns the record of an address for the Services with these UIDs.
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
	rec.Spec.ReleasedAt = &metav1.Time{Time: noon}
	return rec
}

// endpoint returns an endpoint on a node, or on no known node if node is empty. A nil ready leaves the condition unset.
func endpoint(node string, ready *bool) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{"198.18.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: ready, Serving: new(true)}}
	if node != "" {
		e.NodeName = &node
	}
	return e
}

// over6 turns the endpoints of a slice into IPv6 addresses.
func over6(o *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	o.AddressType = discoveryv1.AddressTypeIPv6
	return o
}

// byName turns the endpoints of a slice into names.
func byName(o *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	o.AddressType = discoveryv1.AddressTypeFQDN
	return o
}

func slice(name string, svc types.NamespacedName, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: svc.Namespace, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: svc.Name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   endpoints,
		Ports:       []discoveryv1.EndpointPort{{Port: new(int32(8080))}},
	}
}

// serviceNamed returns a Service with the given name and these addresses in its status.
func serviceNamed(name string, addresses ...string) *corev1.Service {
	svc := serviceWith(addresses...)
	svc.Name, svc.UID = name, types.UID(name+"-uid")
	return svc
}

// sharedBy returns the record of an address for the Services with these names.
func sharedBy(address string, names ...string) *herald.IPAllocation {
	rec := recordFor(address)
	for _, name := range names {
		rec.Spec.Owners = append(rec.Spec.Owners, herald.AllocationOwner{Namespace: web.Namespace, Name: name, UID: types.UID(name + "-uid")})
	}
	return rec
}
