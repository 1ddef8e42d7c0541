package interop

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/e2e/lab/router"
	"github.com/heraldlb/herald/speaker/bgp"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
)

func TestMain(m *testing.M) {
	if wish := os.Getenv(childVariable); wish != "" {
		fmt.Fprintln(os.Stderr, runChild(wish))
		os.Exit(1)
	}
	enclave.RunTests(leakChecked{m})
}

// leakChecked fails a run after which goroutines are left.
type leakChecked struct{ *testing.M }

func (m leakChecked) Run() int {
	// Addresses are usable at once, on links that nobody else can reach.
	if err := (enclave.Host{}).Script("sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// Stories spend their time waiting, not computing: more of them fit than there are processors.
	if err := flag.Set("test.parallel", "12"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.M.Run()
	// gobgp's cleanInfiniteChannel does not wait for the queue that it empties, and may leave its goroutine.
	gobgps := goleak.IgnoreTopFunction("github.com/eapache/channels.(*InfiniteChannel).infiniteBuffer")
	if err := goleak.Find(gobgps); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

const (
	nodeASN   = 64512
	routerASN = 64500
	patience  = 30 * time.Second
)

// implementations are the routers that every story is told to.
var implementations = []implementation{
	{"FRR", func(ctx context.Context, h enclave.Host, dir string, c router.Config) (router.Router, error) {
		return router.StartFRR(ctx, h, dir, c.FRR())
	}},
	{"BIRD", func(ctx context.Context, h enclave.Host, dir string, c router.Config) (router.Router, error) {
		return router.StartBIRD(ctx, h, dir, c.BIRD())
	}},
}

type implementation struct {
	name  string
	start func(context.Context, enclave.Host, string, router.Config) (router.Router, error)
}

// withEach tells a story to each router, all at the same time: most of it is waiting.
func withEach(t *testing.T, story func(*testing.T, implementation)) {
	t.Parallel()
	for _, i := range implementations {
		t.Run(i.name, func(t *testing.T) {
			t.Parallel()
			story(t, i)
		})
	}
}

// rack is a router on a cable of its own to this node, which is the enclave's own namespace.
type rack struct {
	t              testing.TB
	kind           implementation
	host           enclave.Host
	port           string // the node's end of the cable
	node4, router4 netip.Addr
	node6, router6 netip.Addr
	config         router.Config
	router         router.Router
}

var racks atomic.Int32

// newRack connects a router that expects this node at its IPv4 address; start turns it on.
func newRack(t testing.TB, kind implementation) *rack {
	t.Helper()
	return newRackAt(t, kind, racks.Add(1), "eth")
}

// newRackAt makes the addresses from the number, and the name of the node's device from both.
func newRackAt(t testing.TB, kind implementation, number int32, device string) *rack {
	t.Helper()
	address := func(format string) netip.Addr { return netip.MustParseAddr(fmt.Sprintf(format, number)) }
	r := &rack{
		t: t, kind: kind, port: fmt.Sprintf("%s%d", device, number),
		node4: address("198.18.%d.1"), router4: address("198.18.%d.2"),
		node6: address("2001:db8:%x::1"), router6: address("2001:db8:%x::2"),
	}
	r.config = router.Config{
		ASN: routerASN, RouterID: r.router4,
		Neighbors: []router.Neighbor{{Address: r.node4, ASN: nodeASN}},
	}
	var err error
	if r.host, err = enclave.NewHost("router-" + r.port); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.router != nil {
			_ = r.router.Kill()
		}
		_ = r.host.Remove()
	})
	if err := enclave.Connect(enclave.Host{}, r.port, r.host, "eth0"); err != nil {
		t.Fatal(err)
	}
	r.must((enclave.Host{}).Script("ip addr add %v/24 dev %s; ip addr add %v/64 dev %s", r.node4, r.port, r.node6, r.port))
	r.must(r.host.Script("ip addr add %v/24 dev eth0; ip addr add %v/64 dev eth0", r.router4, r.router6))
	return r
}

func (r *rack) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// start turns the router on, with its configuration as it is now.
func (r *rack) start() {
	r.t.Helper()
	var err error
	r.router, err = r.kind.start(context.Background(), r.host, filepath.Join("/run", "router-"+r.port), r.config)
	r.must(err)
}

// peer is the router as this node sees it.
func (r *rack) peer(name string) bgp.Peer {
	return bgp.Peer{
		Name: name, LocalASN: nodeASN, PeerASN: r.config.ASN, RouterID: r.node4,
		Address: r.router4, NextHop6: r.node6,
	}
}

// hears waits until the router has exactly these routes.
func (r *rack) hears(want ...router.Route) {
	r.t.Helper()
	eventually(r.t, func() error { return r.heard(want...) })
}

func (r *rack) heard(want ...router.Route) error {
	got, err := r.router.Routes(context.Background())
	if err != nil {
		return err
	}
	for i := range got {
		got[i].Learned = ""
		if !r.internal() {
			got[i].LocalPref = nil // BIRD shows its default for eBGP too
		}
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		return fmt.Errorf("routes (-want +got):\n%s", diff)
	}
	return nil
}

// wasTold checks why the router believes that its last session has ended, in any case of letters.
func (r *rack) wasTold(reason string) {
	r.t.Helper()
	var said string
	var err error
	switch router := r.router.(type) {
	case *router.FRR:
		var out []byte
		out, err = router.Show(context.Background(), "show bgp neighbors json")
		said = string(out)
	case *router.BIRD:
		said, err = router.Show(context.Background(), "protocols", "all")
	}
	r.must(err)
	said = strings.ReplaceAll(strings.ToLower(said), "deconfigured", "de-configured")
	if !strings.Contains(said, reason) {
		r.t.Errorf("the router was not told %q: %s", reason, said)
	}
}

func (r *rack) internal() bool { return r.config.ASN == nodeASN }

// plain is how the router sees a prefix that this node announces without attributes.
func (r *rack) plain(prefix netip.Prefix) router.Route {
	hop := r.node4
	if prefix.Addr().Is6() {
		hop = r.node6
	}
	return router.Route{Prefix: prefix, NextHops: []netip.Addr{hop}, Best: true, ASPath: []uint32{nodeASN}}
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
	eventually(s.t, func() error {
		if got := s.session(name); got.State != bgp.Established {
			return fmt.Errorf("session %s is %v: %s", name, got.State, got.Reason)
		}
		return nil
	})
	return s.session(name)
}

// undisturbed checks that a session is the one it was.
func (s *speaker) undisturbed(was bgp.Session) {
	s.t.Helper()
	if now := s.session(was.Peer); now.State != bgp.Established || now.Since != was.Since {
		s.t.Errorf("session was disturbed: was up since %v, now %v since %v: %s", was.Since, now.State, now.Since, now.Reason)
	}
}

// eventually tries until there is no error.
func eventually(t testing.TB, try func() error) {
	t.Helper()
	if err := within(patience, try); err != nil {
		t.Fatal(err)
	}
}

func within(limit time.Duration, try func() error) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-deadline.C:
			return errors.Join(fmt.Errorf("not within %v", limit), err)
		}
	}
}

func to(attributes bgp.Attributes, peers ...string) map[string]bgp.Attributes {
	exports := map[string]bgp.Attributes{}
	for _, name := range peers {
		exports[name] = attributes
	}
	return exports
}
