package report

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

func TestRenumbered(t *testing.T) {
	const nothing = "\nConnections to 198.51.100.1 would break off. Nothing was changed.\n"
	for _, c := range []struct {
		name   string
		change func(o *Objects, svc *corev1.Service)
		want   string
		err    string
	}{
		{"the lowest", func(o *Objects, _ *corev1.Service) { o.Pools[0].Spec.AddressOrder = herald.OrderLowest },
			"default/web would leave 198.51.100.1, and get 198.51.100.2 of pool public." + nothing, ""},
		{"the one that was free for the longest time", func(*Objects, *corev1.Service) {},
			"default/web would leave 198.51.100.1, and get 198.51.100.2 of pool public. It may get another address of the pool: the one that has been free for the longest time, which only herald-ccm knows." + nothing, ""},
		{"an address of a peer is not given", func(o *Objects, _ *corev1.Service) {
			o.Pools[0].Spec.AddressOrder = herald.OrderLowest
			o.BGPPeers = []*herald.BGPPeer{{Spec: herald.BGPPeerSpec{Address: "198.51.100.2"}}}
		}, "default/web would leave 198.51.100.1, and get 198.51.100.3 of pool public." + nothing, ""},
		{"none is free", func(o *Objects, _ *corev1.Service) { o.Pools[0].Spec.Addresses = []herald.AddressRange{"198.51.100.1"} },
			"", "no auto-assigning pool (public) has a free IPv4 address"},
		{"of another class", func(_ *Objects, svc *corev1.Service) {
			class := "example.com/other"
			svc.Spec.LoadBalancerClass = &class
		}, "", "herald-ccm does not serve it: kubectl herald explain service default/web says which load balancer does"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := &Objects{Pools: []*herald.IPPool{pool("public", 0, "198.51.100.1-198.51.100.3")}, Allocations: []*herald.IPAllocation{record("198.51.100.1", "public", "default/web")}}
			svc := &corev1.Service{
				Spec:   corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}},
				Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "198.51.100.1"}}}},
			}
			svc.Namespace, svc.Name, svc.UID = "default", "web", "web"
			c.change(o, svc)
			said, err := Renumbered(o, svc, ours)
			if said != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s, %v", said, err)
			}
			if len(svc.Annotations) > 0 {
				t.Errorf("the Service has %v", svc.Annotations)
			}
		})
	}
}
