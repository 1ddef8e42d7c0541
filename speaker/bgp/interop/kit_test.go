package interop

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/heraldlb/herald/e2e/lab/rack"
	"github.com/heraldlb/herald/e2e/lab/router"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/bgp/route"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
)

func TestMain(m *testing.M) {
	if wish := os.Getenv(childVariable); wish != "" {
		fmt.Fprintln(os.Stderr, runChild(wish))
		os.Exit(1)
	}
	// gobgp's cleanInfiniteChannel does not wait for the queue that it empties, and may leave that queue's goroutine behind.
	rack.Main(m, 12, goleak.IgnoreTopFunction("github.com/eapache/channels.(*InfiniteChannel).infiniteBuffer"))
}

// bench is a rack with checks of how its router sees the routes of a BGP speaker.
type bench struct {
	*rack.Rack
	t testing.TB
}

func newBench(t testing.TB, kind router.Kind) *bench {
	t.Helper()
	return &bench{rack.New(t, kind), t}
}

// way says which end opens the connection.
type way struct{ passive bool }

// bothWays runs a test once with a node that connects to the router, and once with a router that connects to the node.
func bothWays(t *testing.T, story func(*testing.T, router.Kind, way)) {
	for name, w := range map[string]way{"the node connects": {}, "the router connects": {passive: true}} {
		t.Run(name, func(t *testing.T) {
			rack.Each(t, func(t *testing.T, kind router.Kind) { story(t, kind, w) })
		})
	}
}

// on sets the port of the passive end in the configuration of the router, which must not have started yet, and of the peer.
func (w way) on(port uint16, r *bench, p *bgp.Peer) {
	if w.passive {
		p.Passive, p.Port = true, port
		r.Config.Neighbors[0].Port = port
	}
}

// peer returns the configuration of the router as a peer of this node.
func (r *bench) peer(name string) bgp.Peer {
	return bgp.Peer{
		Name: name, LocalASN: rack.NodeASN, PeerASN: r.Config.ASN, RouterID: r.Node4,
		Address: r.Router4, NextHop6: r.Node6,
	}
}

// hears waits until the router has exactly these routes.
func (r *bench) hears(want ...router.Route) {
	r.t.Helper()
	rack.Eventually(r.t, func() error { return r.heard(want...) })
}

func (r *bench) heard(want ...router.Route) error { return r.heardBut(nil, want...) }

// heardBut compares the router's routes after without has removed the fields that do not matter.
func (r *bench) heardBut(without func(*router.Route), want ...router.Route) error {
	got, err := r.Router.Routes(context.Background())
	if err != nil {
		return err
	}
	for i := range got {
		got[i].Learned = ""
		if r.Config.ASN != rack.NodeASN {
			got[i].LocalPreference = nil // BIRD shows its default for eBGP too
		}
		if without != nil {
			without(&got[i])
		}
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		return fmt.Errorf("routes (-want +got):\n%s", diff)
	}
	return nil
}

// counts returns nil if the router has want paths.
func (r *bench) counts(want int) error {
	got, err := r.Router.Count(context.Background())
	if err == nil && got != want {
		err = fmt.Errorf("the router has %d paths, want %d", got, want)
	}
	return err
}

// says returns the router's output about its sessions in lower case.
func (r *bench) says() (said string, err error) {
	switch daemon := r.Router.(type) {
	case *router.FRR:
		var out []byte
		out, err = daemon.Show(context.Background(), "show bgp neighbors json")
		said = string(out)
	case *router.BIRD:
		said, err = daemon.Show(context.Background(), "protocols", "all")
	}
	return strings.ReplaceAll(strings.ToLower(said), "deconfigured", "de-configured"), err
}

// wasTold checks the reason that the router has for the end of its last session.
func (r *bench) wasTold(reason string) error {
	said, err := r.says()
	if err == nil && !strings.Contains(said, reason) {
		err = fmt.Errorf("the router was not told %q: %s", reason, said)
	}
	return err
}

// hasSession returns nil if the router has an established session or, if want is false, has none.
func (r *bench) hasSession(want bool) error {
	said, err := r.says()
	if err == nil && (strings.Contains(said, `"bgpstate":"established"`) || strings.Contains(said, "bgp state:          established")) != want {
		err = fmt.Errorf("established %v is not what the router says: %s", want, said)
	}
	return err
}

// plain returns the route that the router has for a prefix that this node announces without attributes.
func (r *bench) plain(prefix netip.Prefix) router.Route {
	hop := r.Node4
	if prefix.Addr().Is6() {
		hop = r.Node6
	}
	return router.Route{Prefix: prefix, NextHops: []netip.Addr{hop}, Best: true, ASPath: []uint32{rack.NodeASN}}
}

// inKernel waits until the route for a prefix in the router's kernel has these words.
func (r *bench) inKernel(prefix netip.Prefix, words ...string) {
	r.t.Helper()
	rack.Eventually(r.t, func() error {
		out, err := r.Kernel(prefix)
		for _, w := range words {
			if err == nil && !strings.Contains(out, w) {
				err = fmt.Errorf("no %q in %q", w, out)
			}
		}
		return err
	})
}

// speaker runs a speaker until the test ends or stop is called.
type speaker struct {
	*bgp.Speaker
	t   testing.TB
	end func(cause error)
}

func newSpeaker(t testing.TB, peers ...bgp.Peer) *speaker {
	t.Helper()
	s := prepareSpeaker(t)
	s.peers(peers...)
	s.run()
	return s
}

func prepareSpeaker(t testing.TB) *speaker {
	return &speaker{Speaker: bgp.New(zaptest.NewLogger(t, zaptest.Level(zap.InfoLevel))), t: t}
}

func (s *speaker) run() {
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	s.end = func(cause error) {
		if stopped {
			return
		}
		stopped = true
		cancel(cause)
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	}
	s.t.Cleanup(s.stop)
}

func (s *speaker) stop() { s.end(nil) }

func (s *speaker) peers(peers ...bgp.Peer) {
	s.t.Helper()
	if faults := s.SetPeers(peers); faults != nil {
		s.t.Fatal(faults)
	}
}

func (s *speaker) session(name string) bgp.Session {
	for _, session := range s.Sessions() {
		if session.Peer == name {
			return session
		}
	}
	return bgp.Session{Peer: name, Reason: "no such peer"}
}

// up waits for a session and returns it.
func (s *speaker) up(name string) bgp.Session {
	s.t.Helper()
	rack.Eventually(s.t, func() error {
		if got := s.session(name); got.State != bgp.Established {
			return fmt.Errorf("session %s is %v: %s", name, got.State, got.Reason)
		}
		return nil
	})
	return s.session(name)
}

// counted waits until an established session has these counts of prefixes. The speaker counts after it has handed on all
// prefixes, and the router may have them earlier.
func (s *speaker) counted(name string, advertised4, advertised6, withheld4, withheld6 int) (got bgp.Session) {
	s.t.Helper()
	rack.Eventually(s.t, func() error {
		got = s.session(name)
		if got.State != bgp.Established || got.Advertised4 != advertised4 || got.Advertised6 != advertised6 || got.Withheld4 != withheld4 || got.Withheld6 != withheld6 {
			return fmt.Errorf("session %+v, want %d and %d prefixes advertised, %d and %d withheld", got, advertised4, advertised6, withheld4, withheld6)
		}
		return nil
	})
	return got
}

func (s *speaker) down(name, because string) error {
	if got := s.session(name); got.State == bgp.Established || !strings.Contains(got.Reason, because) {
		return fmt.Errorf("session %s is %v because %q, want %q", name, got.State, got.Reason, because)
	}
	return nil
}

// undisturbed checks that a session is still the same.
func (s *speaker) undisturbed(was bgp.Session) {
	s.t.Helper()
	if now := s.session(was.Peer); now.State != bgp.Established || now.Since != was.Since {
		s.t.Errorf("session was disturbed: was up since %v, now %v since %v: %s", was.Since, now.State, now.Since, now.Reason)
	}
}

// replaced waits until a different session is up.
func (s *speaker) replaced(was bgp.Session) {
	s.t.Helper()
	rack.Eventually(s.t, func() error {
		if now := s.session(was.Peer); now.State != bgp.Established || now.Since.Equal(was.Since) {
			return fmt.Errorf("it was up since %v, and is %v since %v: %s", was.Since, now.State, now.Since, now.Reason)
		}
		return nil
	})
}

func to(attributes route.Attributes, peers ...string) map[string]route.Attributes {
	exports := map[string]route.Attributes{}
	for _, name := range peers {
		exports[name] = attributes
	}
	return exports
}
