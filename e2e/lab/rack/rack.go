// Package rack connects a node and a router by a cable, for tests that need real routers but no cluster. The node is the
// enclave's own namespace. The tested code therefore runs in the test's process.
package rack

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/e2e/lab/router"
	"go.uber.org/goleak"
)

const (
	// NodeASN and RouterASN are the AS numbers of the node and the router.
	NodeASN   = 64512
	RouterASN = 64500
	// Patience is how long Eventually waits.
	Patience = 30 * time.Second
)

// The routers that every story runs with.
const (
	FRR  = router.KindFRR
	BIRD = router.KindBIRD
)

// Main runs the tests of a package. A TestMain calls it. It runs the given number of tests in parallel, since they
// wait more than they compute. It fails if goroutines are left, except those that the options ignore.
func Main(m *testing.M, parallel int, left ...goleak.Option) {
	enclave.RunTests(tests{m, parallel, left})
}

type tests struct {
	*testing.M
	parallel int
	left     []goleak.Option
}

func (m tests) Run() int {
	// On private links, addresses need no duplicate address detection and are usable at once.
	err := enclave.Host{}.Script("sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0")
	if err = errors.Join(err, flag.Set("test.parallel", fmt.Sprint(m.parallel))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.M.Run()
	if err := goleak.Find(m.left...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// Each runs a story with each kind of router, in parallel with other stories.
func Each(t *testing.T, story func(*testing.T, router.Kind)) {
	t.Parallel()
	for _, kind := range router.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			story(t, kind)
		})
	}
}

// EachAlone runs a story that needs the whole machine with each kind of router, while no other story runs.
func EachAlone(t *testing.T, story func(*testing.T, router.Kind)) {
	for _, kind := range router.Kinds() {
		t.Run(string(kind), func(t *testing.T) { story(t, kind) })
	}
}

// Rack is a router with its own cable to the node.
type Rack struct {
	router.Kind
	Host enclave.Host // the router's
	// Number is part of all addresses of a rack. Port is the node's end of the cable; the router's end is eth0.
	Number         int32
	Port           string
	Node4, Router4 netip.Addr // of a /24
	Node6, Router6 netip.Addr // of a /64
	// Config is the configuration for Start. Initially the router expects the node at its IPv4 address.
	Config router.Config
	Router router.Router // nil before Start

	t testing.TB
}

var racks atomic.Int32

// New makes a rack with addresses that no other rack has. Start starts its router.
func New(t testing.TB, kind router.Kind) *Rack {
	t.Helper()
	return newRack(t, kind, racks.Add(1), "eth")
}

// NewPair makes two racks with the same addresses, whose ports are red and blue.
func NewPair(t testing.TB, kind router.Kind) (red, blue *Rack) {
	t.Helper()
	number := racks.Add(1)
	return newRack(t, kind, number, "red"), newRack(t, kind, number, "blue")
}

func newRack(t testing.TB, kind router.Kind, number int32, device string) *Rack {
	t.Helper()
	r := &Rack{t: t, Kind: kind, Number: number, Port: fmt.Sprint(device, number)}
	r.Node4, r.Router4 = r.Address("198.18.%d.1"), r.Address("198.18.%d.2")
	r.Node6, r.Router6 = r.Address("2001:db8:%x::1"), r.Address("2001:db8:%x::2")
	r.Config = router.Config{
		ASN: RouterASN, RouterID: r.Router4,
		Neighbors: []router.Neighbor{{Address: r.Node4, ASN: NodeASN}},
	}
	r.Host = r.NewHost("router")
	t.Cleanup(func() {
		if r.Router != nil {
			_ = r.Router.Kill()
		}
	})
	r.Must(enclave.Connect(enclave.Host{}, r.Port, r.Host, "eth0"))
	r.OnNode("ip addr add %v/24 dev %[3]s; ip addr add %[2]v/64 dev %[3]s", r.Node4, r.Node6, r.Port)
	r.OnRouter("ip addr add %v/24 dev eth0; ip addr add %v/64 dev eth0", r.Router4, r.Router6)
	return r
}

// Address formats the rack's number into an address.
func (r *Rack) Address(format string) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf(format, r.Number))
}

// NewHost adds a host to this rack. The host is removed when the test ends.
func (r *Rack) NewHost(role string) enclave.Host {
	r.t.Helper()
	h, err := enclave.NewHost(role + "-" + r.Port)
	r.Must(err)
	r.t.Cleanup(func() { _ = h.Remove() })
	return h
}

// Behind makes a second path to the router. A host on this path decrements the TTL. Behind returns the addresses of
// both ends; the router's interface on the path is eth1.
func (r *Rack) Behind() (node, far netip.Addr) {
	r.t.Helper()
	between := r.NewHost("between")
	r.Must(enclave.Connect(enclave.Host{}, "b"+r.Port, between, "near"))
	r.Must(enclave.Connect(between, "far", r.Host, "eth1"))
	r.OnNode("ip addr add 198.19.%[1]d.10/31 dev b%[2]s; ip route add 198.19.%[1]d.20/31 via 198.19.%[1]d.11", r.Number, r.Port)
	r.Must(between.Script("sysctl -qw net.ipv4.ip_forward=1; ip addr add 198.19.%[1]d.11/31 dev near; ip addr add 198.19.%[1]d.20/31 dev far", r.Number))
	r.OnRouter("ip addr add 198.19.%[1]d.21/31 dev eth1; ip route add 198.19.%[1]d.10/31 via 198.19.%[1]d.20", r.Number)
	return r.Address("198.19.%d.10"), r.Address("198.19.%d.21")
}

// Start starts the router with the present Config.
func (r *Rack) Start() {
	r.t.Helper()
	var err error
	r.Router, err = r.Run(r.Host, "router", r.Config)
	r.Must(err)
}

// Run starts another daemon of the rack's kind. The caller must end it.
func (r *Rack) Run(on enclave.Host, role string, c router.Config) (router.Router, error) {
	return router.Start(context.Background(), r.Kind, on, filepath.Join("/run", role+"-"+r.Port), c)
}

// Must ends the test if there is an error.
func (r *Rack) Must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// OnNode runs shell commands on the node.
func (r *Rack) OnNode(format string, args ...any) {
	r.t.Helper()
	r.Must(enclave.Host{}.Script(format, args...))
}

// OnRouter runs shell commands on the router's host.
func (r *Rack) OnRouter(format string, args ...any) {
	r.t.Helper()
	r.Must(r.Host.Script(format, args...))
}

// Kernel returns the routes for a prefix in the router's kernel, as ip prints them.
func (r *Rack) Kernel(prefix netip.Prefix) (string, error) {
	family := "-4"
	if prefix.Addr().Is6() {
		family = "-6"
	}
	out, err := r.Host.Command(context.Background(), "ip", family, "route", "show", prefix.String()).CombinedOutput()
	return string(out), err
}

// Eventually calls try until it returns nil. It fails the test after Patience.
func Eventually(t testing.TB, try func() error) {
	t.Helper()
	if err := Within(Patience, try); err != nil {
		t.Fatal(err)
	}
}

// Within calls try until it returns nil or the limit has passed.
func Within(limit time.Duration, try func() error) error {
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
