package arp

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
	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"go.uber.org/goleak"
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
	client  = net.HardwareAddr{0x02, 0, 0x5e, 0, 0x53, 0xc1}
	another = net.HardwareAddr{0x02, 0, 0x5e, 0, 0x53, 0xa0}

	clientIP = netip.MustParseAddr("198.18.0.99")
	vip      = netip.MustParseAddr("198.18.0.10")
	vip2     = netip.MustParseAddr("198.18.0.20")
)

// numbered are n addresses, every second one, so that no two of them are one range.
func numbered(n int) []netip.Addr {
	all := make([]netip.Addr, n)
	for i := range all {
		all[i] = netip.AddrFrom4([4]byte{198, 19, byte(2 * i >> 8), byte(2 * i)})
	}
	return all
}

// start runs r until the function it returns is called, at the latest when the test ends.
func start(t interface {
	Error(...any)
	Cleanup(func())
}, r *Responder) (stop func()) {
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

// A segment stands in for the network: it hands out conns and keeps what they write. Filters
// are executed, not remembered.
type segment struct {
	mu    sync.Mutex
	open  map[string]*port
	opens map[string]int
	sent  []sent
	hook  func(sent)
	// during is called while the responder is busy with a port, without its lock.
	during func()
	fail   error // of listen and SetFilter
}

type sent struct {
	at        time.Time
	on        string
	eth       ethernet.Frame
	p         arp.Packet
	announces bool
}

func newSegment() *segment {
	return &segment{open: make(map[string]*port), opens: make(map[string]int)}
}

func (s *segment) listen(i Interface, filter []bpf.Instruction) (conn, error) {
	p := &port{segment: s, name: i.Name, in: make(chan []byte), closed: make(chan struct{}), broken: make(chan error)}
	if err := p.SetFilter(filter); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[i.Name] != nil {
		return nil, fmt.Errorf("%s is open already", i.Name)
	}
	s.open[i.Name] = p
	s.opens[i.Name]++
	return p, nil
}

// breakDown makes sockets and filters fail from now on; nil repairs them.
func (s *segment) breakDown(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

func (s *segment) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fail
}

// taken returns what was sent since it was called last.
func (s *segment) taken() []sent {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.sent
	s.sent = nil
	return all
}

func (s *segment) port(name string) *port {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[name]
}

type port struct {
	segment *segment
	name    string
	in      chan []byte
	broken  chan error
	closed  chan struct{}

	mu sync.Mutex
	vm *bpf.VM
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
	out := sent{at: time.Now(), on: p.name}
	if err := out.eth.UnmarshalBinary(frame); err != nil {
		return err
	}
	if err := out.p.UnmarshalBinary(out.eth.Payload); err != nil {
		return err
	}
	out.announces = out.p.SenderIP == out.p.TargetIP
	p.segment.mu.Lock()
	defer p.segment.mu.Unlock()
	p.segment.sent = append(p.segment.sent, out)
	if p.segment.hook != nil {
		p.segment.hook(out)
	}
	return nil
}

func (p *port) SetFilter(filter []bpf.Instruction) error {
	if p.segment.during != nil {
		p.segment.during()
	}
	vm, err := bpf.NewVM(filter)
	if err != nil {
		return err
	}
	if err := p.segment.failure(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.vm = vm
	return nil
}

func (p *port) Close() error {
	if p.segment.during != nil {
		p.segment.during()
	}
	p.segment.mu.Lock()
	defer p.segment.mu.Unlock()
	delete(p.segment.open, p.name)
	close(p.closed)
	return nil
}

// ask is a request as a well-behaved client makes it, changed by edit.
func ask(target netip.Addr, edits ...func(*ethernet.Frame, *arp.Packet)) []byte {
	p, err := arp.NewPacket(arp.OperationRequest, client, clientIP, zero, target)
	if err != nil {
		panic(err)
	}
	f := &ethernet.Frame{Destination: ethernet.Broadcast, Source: client, EtherType: ethernet.EtherTypeARP}
	for _, edit := range edits {
		edit(f, p)
	}
	if f.Payload == nil {
		if f.Payload, err = p.MarshalBinary(); err != nil {
			panic(err)
		}
	}
	frame, err := f.MarshalBinary()
	if err != nil {
		panic(err)
	}
	return frame
}

// describe is a frame in a form that tests can compare and people can read.
func describe(eth ethernet.Frame, p arp.Packet) string {
	op := map[arp.Operation]string{arp.OperationRequest: "request", arp.OperationReply: "reply"}[p.Operation]
	return fmt.Sprintf("%v > %v: %s %v is %v, to %v %v", eth.Source, eth.Destination, op, p.SenderIP, p.SenderHardwareAddr, p.TargetIP, p.TargetHardwareAddr)
}

func decode(t testing.TB, frame []byte) (eth ethernet.Frame, p arp.Packet) {
	t.Helper()
	if err := eth.UnmarshalBinary(frame); err != nil {
		t.Fatal(err)
	}
	if err := p.UnmarshalBinary(eth.Payload); err != nil {
		t.Fatal(err)
	}
	return eth, p
}

func isFrom(mac net.HardwareAddr) func(ethernet.Frame) bool {
	return func(f ethernet.Frame) bool { return bytes.Equal(f.Source, mac) }
}
