package interop

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/rack"
	"github.com/heraldlb/herald/e2e/lab/router"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/bgp/route"
)

// The details of a session are what both ends have agreed on: the shorter hold time, and the capabilities of each end.
func TestASessionTellsWhatWasAgreed(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Config.Neighbors[0].IPv4Only = true
		r.Start()
		p := r.peer("tor")
		p.HoldTime, p.KeepaliveTime = 9*time.Second, 0
		p.GracefulRestart = &bgp.GracefulRestart{RestartTime: 33 * time.Second, StaleTime: time.Hour}
		s := newSpeaker(t, p)
		s.Set(vip4, to(decorated, "tor"))
		s.Set(vip6, to(route.Attributes{}, "tor"))
		want := decorate(r.plain(vip4))
		want.ASPath = []uint32{rack.NodeASN, rack.NodeASN, rack.NodeASN}
		r.hears(want)
		before := s.up("tor")

		var d bgp.Detail
		rack.Eventually(t, func() error { // gobgp counts a message after it has sent it.
			if d = s.detail("tor"); d.UpdatesSent == 0 {
				return errors.New("no UPDATE is counted as sent")
			}
			return nil
		})
		if d.LocalAddress != p.LocalAddress && p.LocalAddress.IsValid() || !d.LocalAddress.IsValid() || d.RouterASN != p.PeerASN || !d.RouterID.Is4() {
			t.Errorf("%v, AS %d, router ID %v", d.LocalAddress, d.RouterASN, d.RouterID)
		}
		if d.HoldTime != 9*time.Second || d.KeepaliveTime != 3*time.Second {
			t.Errorf("hold time %v, keepalive time %v", d.HoldTime, d.KeepaliveTime)
		}
		if both := []string{"IPv4 unicast", "IPv6 unicast"}; !slices.Equal(d.Local.Families, both) || !slices.Equal(d.Remote.Families, both[:1]) {
			t.Errorf("families %v and %v", d.Local.Families, d.Remote.Families)
		}
		for _, c := range []string{"4-byte AS numbers", "route refresh", "graceful restart, 33s", "long-lived graceful restart, 1h0m0s"} {
			if !slices.Contains(d.Local.Others, c) {
				t.Errorf("no %q in %q of this node", c, d.Local.Others)
			}
		}
		for _, c := range []string{"4-byte AS numbers", "route refresh"} {
			if !slices.Contains(d.Remote.Others, c) {
				t.Errorf("no %q in %q of the router", c, d.Remote.Others)
			}
		}
		if d.LastError.Text != "" || len(d.Flaps) != 0 || d.Config.Password != "" {
			t.Errorf("%+v", d)
		}
		routes := s.Routes([]bgp.Detail{d})
		if len(routes) != 2 || routes[0].Prefix != vip4 || routes[0].NextHop != r.Node4 || routes[0].Withheld != "" || !routes[0].Attributes.Equal(decorated) ||
			routes[1].Prefix != vip6 || routes[1].Withheld != "the router does not speak IPv6 unicast on this session: activate that address family there" {
			t.Errorf("%+v", routes)
		}

		s.PathDown("tor")
		rack.Eventually(t, func() error {
			if now := s.session("tor"); now.State != bgp.Established || now.Since.Equal(before.Since) {
				return errors.New("the session has not ended and come back")
			}
			return nil
		})
		d = s.detail("tor")
		if d.Flaps[bgp.BFDDown] != 1 || len(d.Flaps) != 1 || d.LastError.Text != "this node ended the session: Cease, BFD Down" || d.LastError.By != bgp.ThisNode || d.LastError.At.IsZero() {
			t.Errorf("flaps %v, last error %+v", d.Flaps, d.LastError)
		}

		r.Must(r.Router.Kill())
		rack.Eventually(t, func() error {
			if d = s.detail("tor"); d.State == bgp.Established || d.Flaps[bgp.BFDDown] != 1 || len(d.Flaps) != 2 {
				return fmt.Errorf("%+v", d)
			}
			return nil
		})
		if d.HoldTime != 0 || d.LocalAddress.IsValid() || d.Remote.Families != nil || d.RouterID.IsValid() || d.LastError.Text == "" {
			t.Errorf("%+v of a session that is down", d)
		}
	})
}

func (s *speaker) detail(name string) bgp.Detail {
	s.t.Helper()
	for _, d := range s.Details(s.t.Context()) {
		if d.Peer == name {
			return d
		}
	}
	s.t.Fatalf("there is no peer %s", name)
	return bgp.Detail{}
}
