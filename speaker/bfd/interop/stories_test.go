package interop

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/router"
	"github.com/heraldlb/herald/speaker/bfd"
)

func TestACutIsFoundByBothEnds(t *testing.T) {
	withEach(t, ways, func(t *testing.T, r *path) {
		n := r.node()
		n.up(r)
		mend := r.cut()
		cut := time.Now()
		s := n.await("down", func(s bfd.Status) bool { return s.State == bfd.Down })
		if s.Diag != bfd.DiagTimeExpired || s.Failures != 1 {
			t.Errorf("%+v", s)
		}
		n.toldOnce()
		t.Logf("down %v after the cut, the detection time is %v", s.Since.Sub(cut).Round(ms), multiplier*interval)
		r.told("down", func(s router.BFDSession) bool { return s.State == "down" })
		mend()
		n.up(r)
	})
}

func TestTimingChangesAndTheSessionStays(t *testing.T) {
	withEach(t, []string{"IPv4", "multihop"}, func(t *testing.T, r *path) {
		n := r.node()
		mine, theirs := n.up(r)
		same := func(now router.BFDSession) {
			t.Helper()
			if s := n.Sessions()[0]; s.State != bfd.Up || s.Since != mine.Since || s.Failures != 0 {
				t.Errorf("the session was %+v, and is %+v", mine, s)
			}
			if !now.Stayed(theirs) {
				t.Errorf("the router's session was %+v, and is %+v", theirs, now)
			}
		}

		// The timing of this node: slower, and then faster again.
		w := r.session
		w.TransmitInterval, w.ReceiveInterval, w.Multiplier = 250*ms, 400*ms, 40
		n.set(w)
		n.await("slower", func(s bfd.Status) bool {
			return !s.Polling && s.TransmitInterval == 250*ms && s.ReceiveInterval == 400*ms && s.DetectionTime == multiplier*400*ms
		})
		same(r.told("slower", func(s router.BFDSession) bool { return s.Transmit == 400*ms && s.Detection == 40*250*ms }))
		n.set(r.session)
		n.await("fast", func(s bfd.Status) bool { return !s.Polling && s.ReceiveInterval == interval })
		same(r.told("fast", func(s router.BFDSession) bool { return s.Transmit == interval && s.Detection == multiplier*interval }))

		// The timing of the router.
		r.Config.BFD.Interval, r.Config.BFD.Multiplier = 200*ms, 50
		switch router := r.Router.(type) {
		case interface {
			Configure(context.Context, string) error
		}:
			r.Must(router.Configure(context.Background(), r.Config.BIRD()))
		case interface {
			Show(context.Context, ...string) ([]byte, error)
		}:
			_, err := router.Show(context.Background(), append(r.frrSession(), r.Config.BFD.FRRTiming()...)...)
			r.Must(err)
		}
		n.await("slower", func(s bfd.Status) bool {
			return s.TransmitInterval == 200*ms && s.ReceiveInterval == 200*ms && s.DetectionTime == 50*200*ms
		})
		same(r.told("slower", func(s router.BFDSession) bool { return s.Transmit == 200*ms && s.Detection == multiplier*200*ms }))
		if f := n.failures(); len(f) > 0 {
			t.Errorf("told %+v", f)
		}
	})
}

// frrSession returns the commands that enter the configuration of the session.
func (r *path) frrSession() []string {
	p := r.Config.BFD.Peers[0]
	where := "interface " + p.Interface
	if p.Interface == "" {
		where = "multihop"
	}
	return []string{"configure terminal", "bfd", fmt.Sprintf("peer %v local-address %v %s", p.Address, p.Local, where)}
}

func TestWeCloseOnPurpose(t *testing.T) {
	withEach(t, []string{"IPv4", "link-local"}, func(t *testing.T, r *path) {
		for _, how := range []struct {
			what string
			do   func(*node)
		}{
			{"the session is not wanted", func(n *node) { n.set() }},
			{"the speaker stops", func(n *node) { n.stop() }},
		} {
			n := r.node()
			n.up(r)
			how.do(n)
			s := r.told("down", func(s router.BFDSession) bool { return s.State == "down" })
			if d := s.RemoteDiagnostic; d != "" && !strings.Contains(strings.ToLower(d), "administratively down") {
				t.Errorf("%s: the router takes our reason for %q", how.what, d)
			}
			n.stop()
		}
	})
}

func TestTheRouterClosesOnPurpose(t *testing.T) {
	withEach(t, []string{"IPv4", "multihop"}, func(t *testing.T, r *path) {
		n := r.node()
		n.up(r)
		said := bfd.AdminDown
		var open func() error
		switch router := r.Router.(type) {
		case *router.FRR:
			do := func(command string) error {
				_, err := router.Show(context.Background(), append(r.frrSession(), command)...)
				return err
			}
			r.Must(do("shutdown"))
			open = func() error { return do("no shutdown") }
		case *router.BIRD:
			do := func(command string) error {
				_, err := router.Do(context.Background(), command, "bfd1")
				return err
			}
			r.Must(do("disable"))
			open = func() error { return do("enable") }
			said = bfd.Down // BIRD falls silent without AdminDown, so it looks like a dead router.
		}
		s := n.await("down", func(s bfd.Status) bool { return s.State == bfd.Down })
		failed := said == bfd.Down
		if s.RemoteState != said || (s.Failures != 0) != failed || !failed && len(n.failures()) != 0 {
			t.Errorf("%+v, told %+v, want the router to be %v", s, n.failures(), said)
		}
		if failed {
			n.toldOnce()
		}
		r.Must(open())
		n.up(r)
	})
}

func TestPacketsFromFartherAwayAreIgnored(t *testing.T) {
	withEach(t, ways, func(t *testing.T, r *path) {
		n := r.node()
		n.up(r)
		mine := n.Sessions()[0]
		lower := fmt.Sprint("ip ttl set ", cmp.Or(r.session.MinimumTTL, 254)) // The router in between decrements the TTL by one.
		if mine.Local.Is6() {
			lower = "ip6 hoplimit set 254"
		}
		r.OnRouter("nft add table inet far; nft add chain inet far out '{ type filter hook postrouting priority 0; }'; nft add rule inet far out udp dport '{ 3784, 4784 }' %s", lower)
		s := n.await("down", func(s bfd.Status) bool {
			return s.State == bfd.Down && s.Drops[bfd.DropTTL] > mine.Drops[bfd.DropTTL]+3
		})
		if s.PacketsReceived < mine.PacketsReceived || s.Diag != bfd.DiagTimeExpired {
			t.Errorf("%+v", s)
		}
		r.OnRouter("nft delete table inet far")
		n.up(r)
	})
}
