package bfd

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
)

func TestMain(m *testing.M) { enclave.RunTests(checked{m}) }

// checked fails a test run that leaves goroutines behind.
type checked struct{ m *testing.M }

func (c checked) Run() int {
	if err := (enclave.Host{}).Script("sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := c.m.Run()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

const patience = 30 * time.Second

// running is a Speaker on a host, with the changes that it has reported.
type running struct {
	*Speaker
	t    testing.TB
	stop func()

	mu      sync.Mutex
	changes []Change
}

func start(t testing.TB, h enclave.Host, sessions ...Session) *running {
	t.Helper()
	r := &running{t: t}
	r.Speaker = New(zaptest.NewLogger(t), func(c Change) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.changes = append(r.changes, c)
	})
	r.set(sessions...)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := h.Do(func() error { return r.Run(ctx) }); err != nil {
			t.Error(err)
		}
	})
	r.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(r.stop)
	return r
}

func (r *running) set(sessions ...Session) {
	r.t.Helper()
	if faults := r.Set(sessions); faults != nil {
		r.t.Fatal(faults)
	}
}

func (r *running) status(name string) Status {
	for _, s := range r.Sessions() {
		if s.Name == name {
			return s
		}
	}
	return Status{Name: name, Problem: "there is no such session"}
}

// told returns the changes so far.
func (r *running) told() []Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.changes)
}

// lastTold waits until the last reported change is to this state. The status shows the state a moment earlier.
func (r *running) lastTold(to State) Change {
	r.t.Helper()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(patience); ; <-again.C {
		all := r.told()
		if n := len(all); n > 0 && all[n-1].To == to {
			return all[n-1]
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("told are %+v, want that the last is to %v", all, to)
		}
	}
}

// await waits until the status satisfies is.
func (r *running) await(name, what string, is func(Status) bool) Status {
	r.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		s := r.status(name)
		if is(s) {
			return s
		}
		select {
		case <-again.C:
		case <-deadline.C:
			r.t.Fatalf("session %s is never %s: %+v", name, what, s)
		}
	}
}

func (r *running) up(name string) Status {
	r.t.Helper()
	return r.await(name, "up", func(s Status) bool { return s.State == Up && s.RemoteState == Up && !s.Polling })
}

func script(t testing.TB, h enclave.Host, format string, args ...any) {
	t.Helper()
	if err := h.Script(format, args...); err != nil {
		t.Fatal(err)
	}
}

var (
	here4, there4 = netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("198.18.0.2")
	here6, there6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
)

// cable connects a host to this one.
func cable(t testing.TB) enclave.Host {
	t.Helper()
	h, err := enclave.NewHost("there")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = (enclave.Host{}).Script("ip link delete eth0 2>/dev/null")
		_ = h.Remove()
	})
	if err := enclave.Connect(enclave.Host{}, "eth0", h, "eth0"); err != nil {
		t.Fatal(err)
	}
	for _, end := range []struct {
		enclave.Host
		v4, v6 netip.Addr
		local  string
	}{{enclave.Host{}, here4, here6, "fe80::a"}, {h, there4, there6, "fe80::b"}} {
		script(t, end.Host, "ip addr add %v/24 dev eth0; ip addr add %v/64 dev eth0; ip addr add %s/64 dev eth0", end.v4, end.v6, end.local)
	}
	return h
}

// session returns a session that survives if the test gets no processor time for three seconds.
func session(name string, peer netip.Addr) Session {
	return Session{Name: name, Peer: peer, TransmitInterval: 50 * ms, ReceiveInterval: 50 * ms, Multiplier: 60}
}
