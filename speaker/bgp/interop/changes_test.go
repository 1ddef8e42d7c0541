package interop

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/rack"
	"github.com/heraldlb/herald/e2e/lab/router"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/bgp/route"
)

// Routes are announced and withdrawn while a session comes up, each of them once. The router then has exactly the routes that are
// still announced.
func TestRoutesChangeAsASessionComesUp(t *testing.T) {
	bothWays(t, func(t *testing.T, kind router.Kind, w way) {
		r := newBench(t, kind)
		p := r.peer("tor")
		w.on(1790+uint16(r.Number), r, &p)
		r.Start()
		s := prepareSpeaker(t)
		set := func(a netip.Addr, exports map[string]route.Attributes) { s.Set(netip.PrefixFrom(a, 32), exports) }
		oldest := netip.MustParseAddr("10.0.0.1")
		next := oldest
		for range 1000 {
			set(next, to(route.Attributes{}, "tor"))
			next = next.Next()
		}
		s.peers(p)
		s.run()
		pause := time.NewTicker(500 * time.Microsecond)
		defer pause.Stop()
		deadline := time.Now().Add(rack.Patience)
		for up := s.session("tor"); up.State != bgp.Established || time.Since(up.Since) < 200*time.Millisecond; up = s.session("tor") {
			if time.Now().After(deadline) {
				t.Fatalf("the session does not come up: %s", up.Reason)
			}
			set(next, to(route.Attributes{}, "tor"))
			set(oldest, nil)
			oldest, next = oldest.Next(), next.Next()
			<-pause.C
		}
		rack.Eventually(t, func() error {
			routes, err := r.Router.Routes(context.Background())
			if err != nil {
				return err
			}
			var has []netip.Addr
			for _, one := range routes {
				has = append(has, one.Prefix.Addr())
			}
			slices.SortFunc(has, netip.Addr.Compare)
			for a := oldest; a != next; a = a.Next() {
				if len(has) == 0 || has[0] != a {
					return fmt.Errorf("the router lacks %v, or has a route that was withdrawn: it has %v", a, has[:min(1, len(has))])
				}
				has = has[1:]
			}
			if len(has) > 0 {
				return fmt.Errorf("the router has %v, which was withdrawn", has)
			}
			return nil
		})
	})
}
