package responder_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/speaker/responder"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"golang.org/x/net/bpf"
)

func TestMain(m *testing.M) { enclave.RunTests(checked{m}) }

// checked fails a run that leaves goroutines behind.
type checked struct{ m *testing.M }

func (c checked) Run() int {
	code := c.m.Run()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

var (
	clientMAC = responder.MAC(0xc1)
	another   = responder.MAC(0xa0)
	mac0      = responder.MAC(0x01)
	mac1      = responder.MAC(0x02)
	eth0      = responder.Interface{Name: "eth0", Index: 1, MAC: mac0, Up: true}
	eth1      = responder.Interface{Name: "eth1", Index: 2, MAC: mac1, Up: true}

	// owner is the Answer of an address's owner. deputy is the Answer of the deputy for the node another.
	owner  = &responder.Answer{Announce: true, Defend: true}
	deputy = &responder.Answer{MAC: another, Announce: true, Defend: true}
)

// A family is what the tests have to know about a protocol. It decodes frames without the code under
// test.
type family struct {
	protocol responder.Protocol
	ethType  uint16
	// forms is the number of frames in an announcement.
	forms int

	vip, vip2, client, control, here netip.Addr
	bits                             int // of the segment's prefix
	numbered                         func(n int) []netip.Addr
	ignored                          []string // addresses that the protocol cannot answer for

	// ask is a well-formed request by the client, or by from if that is valid.
	ask func(target, from netip.Addr) []byte
	// claim is a gratuitous announcement.
	claim  func(addr netip.Addr, mac net.HardwareAddr) []byte
	decode func(frame []byte) (said, error)

	frames []frameCase
	// answer and announcements describe the frame that answers ask(vip), and the frames that announce vip.
	answer        func(self, mac net.HardwareAddr) string
	announcements func(self net.HardwareAddr) []string
}

var families = []*family{ipv4, ipv6}

// each runs a test for every protocol.
func each(t *testing.T, test func(t *testing.T, f *family)) {
	t.Helper()
	for _, f := range families {
		t.Run(f.protocol.Name(), func(t *testing.T) { test(t, f) })
	}
}

// said is the decoded content of a frame.
type said struct {
	from, to net.HardwareAddr // the Ethernet addresses
	kind     string           // announcement, answer, request or another word
	addr     netip.Addr       // the address that is announced or asked for
	mac      net.HardwareAddr // the announced MAC
	toAddr   netip.Addr
	text     string
}

// sent is a frame that was sent, with its time and interface.
type sent struct {
	said
	at time.Time
	on string
}

// frameCase is a frame that may come from the wire. Tests pass the frames of the same table directly to
// the responder, and send them over a cable. self is the MAC of the interface that owns vip.
type frameCase struct {
	name string
	make func(self net.HardwareAddr) []byte
	drop responder.Drop
	// filtered means that the filter does not pass the frame to the process.
	filtered bool
	// answer describes the answer, unless it is the usual one.
	answer func(self net.HardwareAddr) string
	// conflict is the MAC of the stranger that is reported.
	conflict net.HardwareAddr
}

// start runs r until the test ends, or until the function that it returns is called.
func start(t interface {
	Error(...any)
	Cleanup(func())
}, r *responder.Responder) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return stop
}

// A wire stands in for the network. It is a Protocol whose sockets record the frames that are written,
// and execute their filters.
type wire struct {
	responder.Protocol
	f *family

	mu   sync.Mutex
	open map[string]*port
	sent []sent
	hook func(sent)
	fail error // of Open and SetFilter
	// during is called while the responder is busy with a port, without its lock.
	during func()
}

func newWire(f *family) *wire {
	return &wire{Protocol: f.protocol, f: f, open: make(map[string]*port)}
}

// connect returns a Responder that does not run yet, and its wire.
func connect(f *family, o responder.Options) (*responder.Responder, *wire) {
	w := newWire(f)
	return responder.New(zap.NewNop(), w, o), w
}

func (w *wire) Open(i responder.Interface, filter []bpf.Instruction) (responder.Conn, error) {
	p := &port{wire: w, name: i.Name, in: make(chan []byte), closed: make(chan struct{}), broken: make(chan error)}
	if err := p.SetFilter(filter); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open[i.Name] = p
	return p, nil
}

// breakDown makes sockets and filters fail from now on; nil repairs them.
func (w *wire) breakDown(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail = err
}

func (w *wire) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fail
}

// taken returns the frames that were sent since its last call.
func (w *wire) taken() []sent {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.sent
	w.sent = nil
	return all
}

// busy calls during.
func (w *wire) busy() {
	w.mu.Lock()
	during := w.during
	w.mu.Unlock()
	if during != nil {
		during()
	}
}

func (w *wire) port(name string) *port {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open[name]
}

type port struct {
	wire   *wire
	name   string
	in     chan []byte
	broken chan error
	closed chan struct{}

	mu      sync.Mutex
	vm      *bpf.VM
	filters int
	groups  []netip.Addr
}

func (p *port) Read(frame []byte) (int, error) {
	for {
		select {
		case f := <-p.in:
			if n := p.passes(f); n > 0 {
				return copy(frame, f[:min(n, len(f))]), nil
			}
		case err := <-p.broken:
			return 0, err
		case <-p.closed:
			return 0, net.ErrClosed
		}
	}
}

func (p *port) passes(frame []byte) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, err := p.vm.Run(frame)
	if err != nil {
		panic(err)
	}
	return n
}

func (p *port) Write(frame []byte) error {
	s, err := p.wire.f.decode(frame)
	if err != nil {
		return err
	}
	out := sent{said: s, at: time.Now(), on: p.name}
	p.wire.mu.Lock()
	defer p.wire.mu.Unlock()
	p.wire.sent = append(p.wire.sent, out)
	if p.wire.hook != nil {
		p.wire.hook(out)
	}
	return nil
}

func (p *port) SetFilter(filter []bpf.Instruction) error {
	p.wire.busy()
	vm, err := bpf.NewVM(filter)
	if err != nil {
		return err
	}
	if err := p.wire.failure(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.vm = vm
	p.filters++
	return nil
}

func (p *port) SetGroups(groups []netip.Addr) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.groups = groups
	return nil
}

// joined returns the groups of the port.
func (p *port) joined() []netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.groups
}

// filtersSet returns how many filters the port has had.
func (p *port) filtersSet() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.filters
}

func (p *port) Close() error {
	p.wire.mu.Lock()
	defer p.wire.mu.Unlock()
	if p.wire.open[p.name] == p {
		delete(p.wire.open, p.name) // not its successor, which may be open already
	}
	close(p.closed)
	return nil
}

func isFrom(mac net.HardwareAddr) func(said) bool {
	return func(s said) bool { return bytes.Equal(s.from, mac) }
}
