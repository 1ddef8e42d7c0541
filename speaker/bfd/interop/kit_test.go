package interop

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/rack"
	"github.com/heraldlb/herald/e2e/lab/router"
	"github.com/heraldlb/herald/speaker/bfd"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
)

func TestMain(m *testing.M) { rack.Main(m, 8) }

const (
	ms = time.Millisecond
	// interval and multiplier are the initial settings of both ends. The sessions survive if neither end gets processor time
	// for three seconds.
	interval   = 100 * ms
	multiplier = 30
)

// ways are the kinds of paths between this node and the router.
var ways = []string{"IPv4", "IPv6", "link-local", "multihop"}

// path is a rack whose router watches one path to this node.
type path struct {
	*rack.Rack
	t      testing.TB
	device string // of the router
	// session is the session from the point of view of this node.
	session bfd.Session
}

// withEach runs a test with each router, and for each of the ways.
func withEach(t *testing.T, ways []string, story func(*testing.T, *path)) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		for _, way := range ways {
			t.Run(way, func(t *testing.T) {
				t.Parallel()
				story(t, newPath(t, kind, way))
			})
		}
	})
}

func newPath(t testing.TB, kind router.Kind, way string) *path {
	t.Helper()
	r := &path{Rack: rack.New(t, kind), t: t, device: "eth0"}
	r.session = bfd.Session{Name: "tor", Multiplier: multiplier, TransmitInterval: interval, ReceiveInterval: interval}
	near, far, device := r.Node4, r.Router4, "eth0"
	switch way {
	case "IPv6":
		near, far = r.Node6, r.Router6
	case "link-local":
		near, far = netip.MustParseAddr("fe80::a"), netip.MustParseAddr("fe80::b")
		r.OnNode("ip addr add %v/64 dev %s", near, r.Port)
		r.OnRouter("ip addr add %v/64 dev eth0", far)
		r.session.Local = near.WithZone(r.Port)
	case "multihop":
		near, far = r.Behind()
		device, r.device = "", "eth1"
		r.session.MinimumTTL = 254
		if kind == rack.BIRD {
			r.session.MinimumTTL = 63 // BIRD sends packets over several hops with the kernel's default TTL of 64.
		}
	}
	r.session.Peer = far.WithZone(r.session.Local.Zone())
	r.Config.BFD = router.BFD{Multiplier: multiplier, Interval: interval, Peers: []router.BFDPeer{{Address: near, Local: far, Interface: device}}}
	r.Config.Neighbors = nil
	r.Start()
	return r
}

// told waits until the router's output about its session satisfies is.
func (r *path) told(what string, is func(router.BFDSession) bool) (s router.BFDSession) {
	r.t.Helper()
	rack.Eventually(r.t, func() error {
		all, err := r.Router.BFD(context.Background())
		if err != nil {
			return err
		}
		if len(all) != 1 || !is(all[0]) {
			return fmt.Errorf("the router's sessions are %+v, want one that is %s", all, what)
		}
		s = all[0]
		return nil
	})
	return s
}

// cut drops all packets of the router silently. It returns a function that lets them pass again.
func (r *path) cut() (mend func()) {
	r.t.Helper()
	r.OnRouter(`nft -f - <<E
		table netdev cut {
			chain in { type filter hook ingress device %[1]s priority 0; policy drop; }
			chain out { type filter hook egress device %[1]s priority 0; policy drop; }
		}
E`, r.device)
	return func() { r.OnRouter("nft delete table netdev cut") }
}

// node is this node's end of the session.
type node struct {
	*bfd.Speaker
	t    testing.TB
	stop func()

	mu      sync.Mutex
	changes []bfd.Change
}

func (r *path) node() *node {
	r.t.Helper()
	n := &node{t: r.t}
	n.Speaker = bfd.New(zaptest.NewLogger(r.t, zaptest.Level(zap.InfoLevel)), func(c bfd.Change) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.changes = append(n.changes, c)
	})
	n.set(r.session)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := n.Run(ctx); err != nil {
			r.t.Error(err)
		}
	})
	n.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	r.t.Cleanup(n.stop)
	return n
}

func (n *node) set(sessions ...bfd.Session) {
	n.t.Helper()
	if faults := n.Set(sessions); faults != nil {
		n.t.Fatal(faults)
	}
}

// await waits until the session satisfies is.
func (n *node) await(what string, is func(bfd.Status) bool) (s bfd.Status) {
	n.t.Helper()
	rack.Eventually(n.t, func() error {
		all := n.Sessions()
		if len(all) != 1 || !is(all[0]) {
			return fmt.Errorf("the sessions are %+v, want one that is %s", all, what)
		}
		s = all[0]
		return nil
	})
	return s
}

// up waits until both ends are up and have agreed on the timing.
func (n *node) up(r *path) (bfd.Status, router.BFDSession) {
	n.t.Helper()
	mine := n.await("up", func(s bfd.Status) bool {
		return s.State == bfd.Up && !s.Polling && s.TransmitInterval == interval && s.ReceiveInterval == interval
	})
	return mine, r.told("up", func(s router.BFDSession) bool {
		return s.State == "up" && s.Transmit == interval && s.Detection == multiplier*interval
	})
}

// toldOnce waits until exactly one change has reported that the path has failed. The status shows it a moment earlier.
func (n *node) toldOnce() {
	n.t.Helper()
	rack.Eventually(n.t, func() error {
		if f := n.failures(); len(f) != 1 {
			return fmt.Errorf("told %+v, want one failure", f)
		}
		return nil
	})
}

// failures returns the changes that say that the path has failed.
func (n *node) failures() []bfd.Change {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(n.changes), func(c bfd.Change) bool { return !c.Failed() })
}
