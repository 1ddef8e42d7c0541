// Package rack is a node and a router on a cable, for tests that need real routers and no cluster. The node is the enclave's
// own namespace, so that what is tested runs in the test's process.
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
	// NodeASN and RouterASN are the AS numbers of both ends.
	NodeASN   = 64512
	RouterASN = 64500
	// Patience is how long Eventually waits.
	Patience = 30 * time.Second
)

// Kind is an implementation of a router.
type Kind string

// The routers that every story is told to.
const (
	FRR  Kind = "FRR"
	BIRD Kind = "BIRD"
)

// Kinds has all of them.
var Kinds = []Kind{FRR, BIRD}

// Main is for TestMain. It runs so many tests at once, since they wait more than they compute, and fails if goroutines
// are left, other than those of the options.
func Main(m *testing.M, parallel int, left ...goleak.Option) {
	enclave.RunTests(tests{m, parallel, left})
}

type tests struct {
	*testing.M
	parallel int
	left     []goleak.Option
}

func (m tests) Run() int {
	// Addresses are usable at once, on links that nobody else can reach.
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

// Each tells a story to each kind of router, at the same time as others.
func Each(t *testing.T, story func(*testing.T, Kind)) {
	t.Parallel()
	for _, kind := range Kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			story(t, kind)
		})
	}
}

// EachAlone tells a story that needs the whole machine to each kind of router, while no other story is told.
func EachAlone(t *testing.T, story func(*testing.T, Kind)) {
	for _, kind := range Kinds {
		t.Run(string(kind), func(t *testing.T) { story(t, kind) })
	}
}

// Rack is a router on a cable of its own to the node.
type Rack struct {
	Kind
	Host enclave.Host // the router's
	// Number is in all addresses of a rack, and Port is the node's end of the cable. The router's end is eth0.
	Number         int32
	Port           string
	Node4, Router4 netip.Addr // of a /24
	Node6, Router6 netip.Addr // of a /64
	// Config is what Start uses. At first the router expects the node at its IPv4 address.
	Config router.Config
	Router router.Router // nil before Start

	t testing.TB
}

var racks atomic.Int32

// New lays the cable of a rack whose addresses no other one has. Start turns the router on.
func New(t testing.TB, kind Kind) *Rack {
	t.Helper()
	return newRack(t, kind, racks.Add(1), "eth")
}

// NewPair makes two racks with the same addresses, whose ports are red and blue.
func NewPair(t testing.TB, kind Kind) (red, blue *Rack) {
	t.Helper()
	number := racks.Add(1)
	return newRack(t, kind, number, "red"), newRack(t, kind, number, "blue")
}

func newRack(t testing.TB, kind Kind, number int32, device string) *Rack {
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

// Address writes the rack's number into an address.
func (r *Rack) Address(format string) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf(format, r.Number))
}

// NewHost makes one more machine of this rack. It is removed when the test ends.
func (r *Rack) NewHost(role string) enclave.Host {
	r.t.Helper()
	h, err := enclave.NewHost(role + "-" + r.Port)
	r.Must(err)
	r.t.Cleanup(func() { _ = h.Remove() })
	return h
}

// Behind lays a second way to the router, on which a machine in between takes one from the TTL. It returns the addresses of
// both ends; the router's interface there is eth1.
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

// Start turns the router on, with its configuration as it is now.
func (r *Rack) Start() {
	r.t.Helper()
	var err error
	r.Router, err = r.Run(r.Host, "router", r.Config)
	r.Must(err)
}

// Run starts another daemon of the rack's kind. Whoever calls it ends it.
func (r *Rack) Run(on enclave.Host, role string, c router.Config) (router.Router, error) {
	dir := filepath.Join("/run", role+"-"+r.Port)
	if r.Kind == FRR {
		f, err := router.StartFRR(context.Background(), on, dir, c.FRR())
		if err != nil {
			return nil, err // and not a Router that is a nil *FRR
		}
		return f, nil
	}
	b, err := router.StartBIRD(context.Background(), on, dir, c.BIRD())
	if err != nil {
		return nil, err
	}
	return b, nil
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

// Kernel is what the router's kernel has for a prefix, as ip prints it.
func (r *Rack) Kernel(prefix netip.Prefix) (string, error) {
	family := "-4"
	if prefix.Addr().Is6() {
		family = "-6"
	}
	out, err := r.Host.Command(context.Background(), "ip", family, "route", "show", prefix.String()).CombinedOutput()
	return string(out), err
}

// Eventually tries until there is no error.
func Eventually(t testing.TB, try func() error) {
	t.Helper()
	if err := Within(Patience, try); err != nil {
		t.Fatal(err)
	}
}

// Within tries until there is no error or the time is up.
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
