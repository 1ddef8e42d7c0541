package e2e

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
)

// TestANodeIsDrained checks what routers learn about a node that leaves, and that clients behind them always reach a node.
// When a router gets one next hop less or more, it sends some open connections to other nodes, which do not know them.
// Some of the requests that run at such a moment are reset, but no other request fails.
func TestANodeIsDrained(t *testing.T) {
	f := fabric(t, 3)
	const address, target = "198.51.100.0", "198.51.100.0:9000"
	const drainTime = 4 * time.Second
	f.pool("routed", delay(0), "198.51.100.0/26")
	f.advertises("all", func(s *herald.BGPAdvertisementSpec) { s.DrainTime = &metav1.Duration{Duration: drainTime} })
	all := names(f.site)
	leaves, stay := all[2], all[:2]
	f.pod("pod-1", all[0])
	f.service("web", to8080)
	f.holds("web", address)
	f.served("web")
	from := func(nodes ...string) (routes []string) {
		for _, n := range nodes {
			routes = append(routes, address+"/32 from "+n)
		}
		return routes
	}
	drains := append(from(stay...), from(leaves)[0]+" 65535:0")
	f.learns(from(all...)...)

	// mostReset is how many requests can run at once. A request takes less than the interval, but a busy machine delays it.
	const mostReset = 2
	// attempts opens connections from behind each router while something happens.
	attempts := func(f *field, what string, happens func()) {
		f.t.Helper()
		var openers []*lab.Opener
		for _, r := range f.site.Routers {
			f.reached(r.Outside, target)
			openers = append(openers, f.opens(r.Outside, target))
		}
		happens()
		for i, o := range openers {
			made := o.Stop()
			var lost []string
			for _, text := range made.Errors() {
				if !strings.Contains(text, "connection reset by peer") {
					lost = append(lost, text)
				}
			}
			f.t.Logf("%s, behind %s: %v", what, f.site.Routers[i].Kind, made)
			if len(lost) > 0 || made.Failed() > mostReset || len(made) == 0 {
				f.t.Errorf("%s, behind %s: %v", what, f.site.Routers[i].Kind, made.Errors())
			}
		}
	}
	t.Run("the label excludes it", func(t *testing.T) {
		f := f.within(t)
		attempts(f, "excluded", func() {
			f.label(leaves, corev1.LabelNodeExcludeBalancers, "")
			f.learns(drains...)
			// FRR prefers the other nodes, as RFC 8326 requires. BIRD does that only with a filter.
			f.routed(f.site.Routers[0], address, stay...)
			f.learns(from(stay...)...)
			f.routed(f.site.Routers[1], address, stay...)
		})
		attempts(f, "back", func() {
			f.unlabel(leaves, corev1.LabelNodeExcludeBalancers)
			f.learns(from(all...)...)
		})
	})
	t.Run("it is cordoned, and announces as before", func(t *testing.T) {
		f := f.within(t)
		f.kubectl("cordon", leaves)
		f.advertises("all", func(s *herald.BGPAdvertisementSpec) { s.MED = new(int64(5)) })
		f.learns(f.fromAll(address+"/32", "med 5")...)
		f.advertises("all", func(s *herald.BGPAdvertisementSpec) { s.MED = nil })
		f.learns(from(all...)...)
		f.kubectl("uncordon", leaves)
	})
	t.Run("its speaker stops", func(t *testing.T) {
		f := f.within(t)
		attempts(f, "stopped", func() {
			stopped := make(chan error, 1)
			go func() { stopped <- f.speakers[leaves].Stop(f.ctx) }()
			f.learns(drains...)
			f.must(<-stopped)
			// The speaker's last write to its Lease was when it left the segments, before it drained its routes.
			o, err := f.kube.CoordinationV1().Leases(lab.HeraldNamespace).Get(f.ctx, "speaker-"+leaves, metav1.GetOptions{})
			f.must(err)
			if holder := *o.Spec.HolderIdentity; holder != "" || time.Since(o.Spec.RenewTime.Time) < drainTime/2 {
				f.t.Errorf("%q has its Lease, as of %v before the end", holder, time.Since(o.Spec.RenewTime.Time))
			}
			f.learns(from(stay...)...)
		})
		f.must(f.speakers[leaves].Start())
		f.learns(from(all...)...)
	})
	t.Run("its Node is deleted", func(t *testing.T) {
		f := f.within(t)
		attempts(f, "deleted", func() {
			f.kubectl("delete", "node", leaves, "--wait=false")
			f.learns(drains...)
			f.learns(from(stay...)...)
		})
	})
}
