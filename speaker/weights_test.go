package speaker

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/heraldlb/herald/speaker/announce"
	"github.com/heraldlb/herald/speaker/bgp/route"
)

// During a rolling update the number of endpoints on the node changes with each pod. Routers get one update.
func TestPodsThatRollCauseOneUpdate(t *testing.T) {
	const address = "198.51.100.7"
	synctest.Test(t, func(t *testing.T) {
		svc := serviceWith(address)
		svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		l := loopOf(t, "n1", svc, recordFor(address, "web-uid"))
		l.shared.BGP[0].Weighted = true
		var told []float32
		ready := func(n int) {
			all := []discoveryv1.Endpoint{endpoint("n2", new(true))}
			for range n {
				all = append(all, endpoint("n1", new(true)))
			}
			l.put(t, slice("web-a", web, all...))
			l.pass(about(address))
			if b := l.decisions[vip].Exports["tor"].Bandwidth / 125_000; len(told) == 0 || told[len(told)-1] != b {
				told = append(told, b)
			}
		}
		ready(4)
		for range 3 { // A pod is added, a pod is removed, and so on.
			for _, n := range []int{5, 4, 3, 4} {
				time.Sleep(200 * time.Millisecond)
				ready(n)
			}
		}
		time.Sleep(weightTime)
		ready(4)
		if !slices.Equal(told, []float32{4}) {
			t.Errorf("a roll that ends as it began: %v is told", told)
		}
		// The Deployment is scaled up pod by pod.
		for n := 5; n <= 8; n++ {
			time.Sleep(time.Second)
			ready(n)
		}
		if !slices.Equal(l.weights.due(time.Now()), nil) {
			t.Error("it is due too soon")
		}
		time.Sleep(weightTime)
		if !slices.Equal(l.weights.due(time.Now()), parseAddresses(address)) {
			t.Error("it is not due")
		}
		ready(8)
		// When the last endpoint goes, the route goes, too. When the first endpoint is back, it is announced at once.
		ready(0)
		ready(2)
		if want := []float32{4, 8, 0, 2}; !slices.Equal(told, want) {
			t.Errorf("told is %v, want %v", told, want)
		}
		if len(l.weights.at) > 0 {
			t.Errorf("waiting: %v", l.weights.at)
		}
	})
}

// Changes that do not concern endpoints are not delayed.
func TestOtherAttributesAreNotDamped(t *testing.T) {
	w := newWeights()
	before := announce.Decision{Exports: map[string]route.Attributes{"tor": {Bandwidth: 1}}}
	after := announce.Decision{Exports: map[string]route.Attributes{"tor": {Bandwidth: 2, Prepend: 3}, "new": {Bandwidth: 2}}}
	got := w.damp(vip, before, after, noon).Exports
	if a := got["tor"]; a.Bandwidth != 1 || a.Prepend != 3 || got["new"].Bandwidth != 2 {
		t.Errorf("%+v", got)
	}
}
