package e2e

import (
	"bufio"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/router"
)

// BenchmarkRouteFollowsEndpoint measures how fast a route follows the only endpoint of a Service. The time begins with the
// API server's answer to the write that makes the endpoint ready or not ready. It ends when the router's kernel has added or
// removed the route. It is measured with the wait for kube-proxy, which writes its rules once a second at most, and without.
func BenchmarkRouteFollowsEndpoint(b *testing.B) {
	for _, kind := range []router.Kind{lab.FRR, lab.BIRD} {
		for name, args := range map[string][]string{"after kube-proxy": nil, "at once": {"--kube-proxy-metrics="}} {
			b.Run(string(kind)+"/"+name, func(b *testing.B) {
				for b.Loop() {
					routeFollows(b, kind, args...)
				}
			})
		}
	}
}

func routeFollows(b *testing.B, kind router.Kind, args ...string) {
	f := withLab(b, lab.Options{Nodes: 1, Routers: []router.Kind{kind}}, args...).field
	const node, address = "k8s-node1", "198.51.100.0"
	router := f.site.Routers[0]
	_, err := f.herald.BGPPeers.Create(f.ctx, peerOf(router), metav1.CreateOptions{})
	f.must(err)
	_, err = f.herald.BGPAdvertisements.Create(f.ctx, &herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "all"}}, metav1.CreateOptions{})
	f.must(err)
	f.pool("routed", delay(0), "198.51.100.0/26")
	f.service("web", to8080, local, func(svc *corev1.Service) { svc.Spec.Selector = nil })
	f.holds("web", address)
	slices := f.kube.DiscoveryV1().EndpointSlices("default")
	slice, err := slices.Create(f.ctx, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{
			Addresses: []string{"203.0.113.9"}, NodeName: new(node), Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
		}},
		Ports: []discoveryv1.EndpointPort{{Port: new(int32(8080))}},
	}, metav1.CreateOptions{})
	f.must(err)
	f.routed(router, address, node)

	ctx, cancel := context.WithCancel(f.ctx)
	monitor := router.Host.Command(ctx, "ip", "monitor", "route")
	out, err := monitor.StdoutPipe()
	f.must(err)
	f.must(monitor.Start())
	events := make(chan time.Time, 1000)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.Contains(lines.Text(), address+" ") {
				events <- time.Now()
			}
		}
	}()
	defer func() { cancel(); <-read; _ = monitor.Wait() }()

	took := map[bool]lab.Durations{}
	for range rounds(b) {
		for _, ready := range []bool{false, true} {
			f.pass(1500 * time.Millisecond) // After this time kube-proxy may write again.
			for len(events) > 0 {
				<-events
			}
			slice.Endpoints[0].Conditions.Ready = new(ready)
			slice, err = slices.Update(f.ctx, slice, metav1.UpdateOptions{})
			f.must(err)
			began := time.Now()
			select {
			case at := <-events:
				took[ready] = append(took[ready], max(at.Sub(began), 0))
			case <-time.After(patience):
				f.must(errors.New("the router's kernel did not change"))
			}
		}
	}
	b.Logf("%s %v: ready to route %v; not ready to no route %v", kind, args, took[true], took[false])
}
