package interop

import (
	"fmt"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/rack"
	"github.com/heraldlb/herald/e2e/lab/router"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/bgp/route"
)

// A router that comes back gets the session and the routes again without any action of the caller.
func TestRouterRestarts(t *testing.T) {
	for name, end := range map[string]func(router.Router) error{"in good order": router.Router.Stop, "by a crash": router.Router.Kill} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, kind router.Kind, w way) {
				r := newBench(t, kind)
				p := r.peer("tor")
				w.on(1790+uint16(r.Number), r, &p)
				r.Start()
				s := newSpeaker(t, p)
				s.Set(vip4, to(route.Attributes{}, "tor"))
				r.hears(r.plain(vip4))
				before := s.up("tor")
				r.Must(end(r.Router))
				rack.Eventually(t, func() error { return s.down("tor", "") })
				r.Start()
				began := time.Now()
				if err := rack.Within(15*time.Second, func() error { return r.heard(r.plain(vip4)) }); err != nil {
					t.Fatal(err)
				}
				r.inKernel(vip4, r.Node4.String())
				t.Logf("the route is back %v after the router", time.Since(began).Round(time.Millisecond))
				if s.up("tor").Since.Equal(before.Since) {
					t.Error("the session did not notice the restart")
				}
			})
		})
	}
}

// A router that forwards while it restarts (RFC 4724) loses no packet to prefixes that are still announced, and afterwards has
// no other routes.
func TestARouterForwardsWhileItRestarts(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Config.GracefulRestart = true
		r.Start()
		p := r.peer("tor")
		p.GracefulRestart = &bgp.GracefulRestart{RestartTime: time.Minute}
		s := newSpeaker(t, p)
		vip := r.own()
		s.Set(vip, to(route.Attributes{}, "tor"))
		s.Set(vip4, to(route.Attributes{}, "tor"))
		r.hears(r.plain(vip4), r.plain(vip))
		r.inKernel(vip4, r.Node4.String())
		f := r.through(t, vip.Addr())
		r.Must(r.Router.Kill())
		rack.Eventually(t, func() error { return s.down("tor", "") })
		s.Set(vip4, nil)
		f.flows(200)
		r.Start()
		r.hears(r.plain(vip))
		// BIRD removes the other routes at once; zebra waits for its configured time.
		rack.Eventually(t, func() error {
			out, err := r.Kernel(vip4)
			if err == nil && out != "" {
				err = fmt.Errorf("the kernel still has %q", out)
			}
			return err
		})
		f.flows(200)
		if lost, sent := f.lost(); lost > 0 {
			t.Errorf("%d of %d packets lost", lost, sent)
		} else {
			t.Logf("%d packets, none lost", sent)
		}
	})
}
