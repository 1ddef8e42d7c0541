package interop

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/e2e/lab/router"
	"github.com/heraldlb/herald/speaker/bfd"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
)

func TestMain(m *testing.M) { enclave.RunTests(leakChecked{m}) }

// leakChecked fails a run after which goroutines are left.
type leakChecked struct{ *testing.M }

func (m leakChecked) Run() int {
	// Addresses are usable at once, on links that nobody else can reach.
	if err := (enclave.Host{}).Script("sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// Stories spend their time waiting, not computing.
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.M.Run()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

const (
	ms       = time.Millisecond
	patience = 30 * time.Second
	// interval and multiplier are those of both ends at first. The sessions bear that neither gets a processor for three
	// seconds.
	interval   = 100 * ms
	multiplier = 30
)

// kinds are the ways between this node and the router.
var kinds = []string{"IPv4", "IPv6", "link-local", "multihop"}

// rack is a router on a cable of its own to this node, which is the enclave's own namespace; or, if the kind is multihop,
// behind another one.
type rack struct {
	t      testing.TB
	host   enclave.Host
	config router.Config
	router router.Router
	// session is how this node sees it.
	session bfd.Session
}

var racks atomic.Int32

// withEach tells a story to each router, and for each of the kinds.
func withEach(t *testing.T, kinds []string, story func(*testing.T, *rack)) {
	t.Parallel()
	for _, make := range []string{"FRR", "BIRD"} {
		for _, kind := range kinds {
			t.Run(make+"/"+kind, func(t *testing.T) {
				t.Parallel()
				story(t, newRack(t, make, kind))
			})
		}
	}
}

func newRack(t testing.TB, make, kind string) *rack {
	t.Helper()
	number := racks.Add(1)
	r := &rack{t: t}
	port, node := fmt.Sprint("eth", number), enclave.Host{}
	address := func(format string) netip.Addr { return netip.MustParseAddr(fmt.Sprintf(format, number)) }
	here, there, bits := address("198.18.%d.1"), address("198.18.%d.2"), 24
	switch kind {
	case "IPv6":
		here, there, bits = address("2001:db8:%x::1"), address("2001:db8:%x::2"), 64
	case "link-local":
		here, there, bits = netip.MustParseAddr("fe80::a"), netip.MustParseAddr("fe80::b"), 64
	}
	r.host = r.newHost(fmt.Sprint("router", number))
	where := "eth0"
	if kind == "multihop" {
		where, bits = "", 25
		there = address("198.18.%d.130")
		hop := r.newHost(fmt.Sprint("hop", number))
		r.must(enclave.Connect(node, port, hop, "eth0"))
		r.must(enclave.Connect(hop, "eth1", r.host, "eth0"))
		r.must(hop.Script("sysctl -qw net.ipv4.ip_forward=1; ip addr add %v/25 dev eth0; ip addr add %v/25 dev eth1",
			address("198.18.%d.2"), address("198.18.%d.129")))
		defer func() {
			r.must(node.Script("ip route add %v via %v", there, address("198.18.%d.2")))
			r.must(r.host.Script("ip route add %v via %v", here, address("198.18.%d.129")))
		}()
	} else {
		r.must(enclave.Connect(node, port, r.host, "eth0"))
	}
	r.must(node.Script("ip addr add %v/%d dev %s", here, bits, port))
	r.must(r.host.Script("ip addr add %v/%d dev eth0", there, bits))

	r.session = bfd.Session{Name: "tor", Peer: there, Multiplier: multiplier, TransmitInterval: interval, ReceiveInterval: interval}
	switch kind {
	case "link-local":
		r.session.Peer, r.session.Local = there.WithZone(port), here.WithZone(port)
	case "multihop":
		r.session.MinimumTTL = 254
		if make == "BIRD" {
			r.session.MinimumTTL = 63 // It sends packets over several hops with the kernel's usual TTL of 64.
		}
	}
	r.config = router.Config{
		ASN: 64500, RouterID: netip.AddrFrom4([4]byte{198, 18, byte(number), 2}),
		BFD: router.BFD{Multiplier: multiplier, Interval: interval, Peers: []router.BFDPeer{{Address: here, Local: there, Interface: where}}},
	}
	dir := filepath.Join("/run", r.host.Name)
	var err error
	if make == "FRR" {
		r.router, err = router.StartFRR(context.Background(), r.host, dir, r.config.FRR())
	} else {
		r.router, err = router.StartBIRD(context.Background(), r.host, dir, r.config.BIRD())
	}
	r.must(err)
	t.Cleanup(func() { _ = r.router.Kill() })
	return r
}

func (r *rack) newHost(name string) enclave.Host {
	r.t.Helper()
	h, err := enclave.NewHost(name)
	r.must(err)
	r.t.Cleanup(func() { _ = h.Remove() })
	return h
}

func (r *rack) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// told waits until the router says of its session what is wanted.
func (r *rack) told(what string, is func(router.BFDSession) bool) (s router.BFDSession) {
	r.t.Helper()
	eventually(r.t, func() error {
		all, err := r.router.BFD(context.Background())
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

// cut takes all packets of the router away, in silence; it returns how to let them pass again.
func (r *rack) cut() (mend func()) {
	r.t.Helper()
	r.must(r.host.Script(`nft -f - <<E
		table netdev cut {
			chain in { type filter hook ingress device eth0 priority 0; policy drop; }
			chain out { type filter hook egress device eth0 priority 0; policy drop; }
		}
E`))
	return func() { r.must(r.host.Script("nft delete table netdev cut")) }
}

// node is this node's end.
type node struct {
	*bfd.Speaker
	t    testing.TB
	stop func()

	mu      sync.Mutex
	changes []bfd.Change
}

func (r *rack) node() *node {
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

// await waits until the session is as wanted.
func (n *node) await(what string, is func(bfd.Status) bool) (s bfd.Status) {
	n.t.Helper()
	eventually(n.t, func() error {
		all := n.Sessions()
		if len(all) != 1 || !is(all[0]) {
			return fmt.Errorf("the sessions are %+v, want one that is %s", all, what)
		}
		s = all[0]
		return nil
	})
	return s
}

// up waits until both ends are, and have agreed on the timing.
func (n *node) up(r *rack) (bfd.Status, router.BFDSession) {
	n.t.Helper()
	mine := n.await("up", func(s bfd.Status) bool {
		return s.State == bfd.Up && !s.Polling && s.TransmitInterval == interval && s.ReceiveInterval == interval
	})
	return mine, r.told("up", func(s router.BFDSession) bool {
		return s.State == "up" && s.Transmit == interval && s.Detection == multiplier*interval
	})
}

// failures are the changes that say that the path has failed.
func (n *node) failures() []bfd.Change {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(n.changes), func(c bfd.Change) bool { return !c.Failed() })
}

// eventually tries until there is no error.
func eventually(t testing.TB, try func() error) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(20 * ms)
	defer again.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-deadline.C:
			t.Fatal(errors.Join(fmt.Errorf("not within %v", patience), err))
		}
	}
}
