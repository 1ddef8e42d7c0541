package responder_test

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/speaker/responder"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"go.uber.org/zap"
)

// strangers collects conflicts.
type strangers struct {
	mu  sync.Mutex
	all []responder.Conflict
}

func (s *strangers) add(c responder.Conflict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, c)
}

func (s *strangers) taken() []responder.Conflict {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.all
	s.all = nil
	return all
}

// standing returns a responder that does not run, but has a socket for eth0 on a wire.
func standing(t testing.TB, f *family, o responder.Options, owned ...netip.Addr) (*responder.Responder, *wire) {
	r, w := connect(f, o)
	r.SetInterfaces([]responder.Interface{eth0})
	for _, a := range owned {
		r.Set(a, "eth0", owner)
	}
	c, err := w.Open(eth0, f.protocol.Filter(owned))
	if err != nil {
		t.Fatal(err)
	}
	r.Attach("eth0", c)
	return r, w
}

func TestEachFrameIsAnsweredOrDroppedForAReason(t *testing.T) {
	each(t, func(t *testing.T, f *family) {
		for _, c := range f.frames {
			t.Run(c.name, func(t *testing.T) {
				var met strangers
				r, w := standing(t, f, responder.Options{Conflict: met.add}, f.vip)
				if drop := r.Handle("eth0", c.make(mac0)); drop != c.drop {
					t.Fatalf("dropped as %q, want %q", drop, c.drop)
				}
				var got, want []string
				for _, out := range w.taken() {
					got = append(got, out.text)
				}
				if c.drop == "" {
					want = []string{c.wantAnswer(f, mac0)}
				}
				if !slices.Equal(got, want) {
					t.Errorf("sent %q, want %q", got, want)
				}
				if n := r.Stats()[0].Dropped[c.drop]; c.drop != "" && n != 1 {
					t.Errorf("counted %d as %q", n, c.drop)
				}
				c.checkConflict(t, f, met.taken())
				if passes := w.port("eth0").passes(c.make(mac0)) > 0; passes && c.filtered && !c.onlyKernelFilters() {
					t.Error("the filter lets it through")
				} else if !passes && !c.filtered {
					t.Error("the filter keeps it back")
				}
			})
		}
	})
}

// onlyKernelFilters reports whether the frame is rejected by what only the kernel knows about it, not by the filter program.
func (c frameCase) onlyKernelFilters() bool {
	return c.drop == responder.DropForeignDestination || c.name == "another EtherType"
}

func (c frameCase) wantAnswer(f *family, self net.HardwareAddr) string {
	if c.answer != nil {
		return c.answer(self)
	}
	return f.answer(self, self)
}

func (c frameCase) checkConflict(t *testing.T, f *family, got []responder.Conflict) {
	t.Helper()
	switch {
	case c.conflict == nil && len(got) > 0:
		t.Errorf("reported %v", got)
	case c.conflict != nil && (len(got) != 1 || got[0].Interface != "eth0" || got[0].Address != f.vip || got[0].MAC.String() != c.conflict.String()):
		t.Errorf("reported %v, want %v at %v", got, f.vip, c.conflict)
	}
}

// The frames of the table go over a cable, through the kernel's filter and into a running responder.
func TestEachFrameOnTheWire(t *testing.T) {
	each(t, func(t *testing.T, f *family) {
		far, self := cable(t, "eth0")
		socket := listenOn(t, f, far, "eth0-peer")
		var met strangers
		o := quiet
		o.Conflict = met.add
		r := responder.New(zap.NewNop(), f.protocol, o)
		r.SetInterfaces(interfaces(t, "eth0"))
		r.Set(f.vip, "eth0", &responder.Answer{})
		start(t, r)
		eventually(t, func() bool { return r.Stats()[0].Serving })

		// A control request follows each frame. The answer to it has another target, and comes after
		// the answer to the frame. So the test need not wait for an answer that does not come.
		for _, c := range f.frames {
			t.Run(c.name, func(t *testing.T) {
				before := r.Stats()[0].Dropped
				for _, frame := range [][]byte{c.make(self), f.ask(f.vip, f.control)} {
					if _, err := socket.WriteTo(frame, &packet.Addr{HardwareAddr: ethernet.Broadcast}); err != nil {
						t.Fatal(err)
					}
				}
				var got, want []string
				for {
					s := receive(t, f, socket, isFrom(self))
					if s.toAddr == f.control {
						break
					}
					// The kernel of this host may send requests, too.
					if s.addr == f.vip {
						got = append(got, s.text)
					}
				}
				if c.drop == "" {
					want = []string{c.wantAnswer(f, self)}
				}
				if !slices.Equal(got, want) {
					t.Errorf("answered %q, want %q", got, want)
				}
				after := r.Stats()[0].Dropped
				for drop, n := range after {
					expected := before[drop]
					if drop == c.drop && !c.filtered {
						expected++
					}
					if n != expected {
						t.Errorf("counted %d frames as %q, want %d", n, drop, expected)
					}
				}
				if c.drop != "" && !c.filtered && after[c.drop] == 0 {
					t.Errorf("not counted as %q", c.drop)
				}
				c.checkConflict(t, f, met.taken())
			})
		}
	})
}

// For the interface below, the MAC of a macvlan belongs to another machine. But the kernel passes the
// frames of the macvlan to sockets on both.
func TestTheInterfaceBelowDoesNotAnswerForTheOneOnTop(t *testing.T) {
	each(t, func(t *testing.T, f *family) {
		far, self := cable(t, "eth0")
		if err := (enclave.Host{}).Script("ip link add link eth0 name mv0 type macvlan mode bridge; ip link set mv0 up"); err != nil {
			t.Skip("this kernel has no macvlan: ", err)
		}
		socket := listenOn(t, f, far, "eth0-peer")
		r := responder.New(zap.NewNop(), f.protocol, quiet)
		all := interfaces(t, "eth0", "mv0")
		r.SetInterfaces(all)
		r.Set(f.vip, "eth0", owner)
		r.Set(f.vip2, "mv0", owner)
		start(t, r)
		eventually(t, func() bool { s := r.Stats(); return s[0].Serving && s[1].Serving })
		top := all[1].MAC
		for _, target := range []netip.Addr{f.vip, f.vip2} { // the first one is not set on the interface with that MAC
			frame := f.ask(target, netip.Addr{})
			copy(frame, top)
			if _, err := socket.WriteTo(frame, &packet.Addr{HardwareAddr: top}); err != nil {
				t.Fatal(err)
			}
		}
		s := receive(t, f, socket, func(s said) bool { return (isFrom(top)(s) || isFrom(self)(s)) && s.kind == "answer" })
		if s.addr != f.vip2 || !isFrom(top)(s) {
			t.Errorf("answer: %s", s.text)
		}
		if s := r.Stats()[0]; s.Interface != "eth0" || s.Answered != 0 || len(s.Dropped) != 0 {
			t.Errorf("eth0 saw what was the macvlan's: %+v", s)
		}
	})
}

func TestDropsAreGoodMetricLabels(t *testing.T) {
	for _, f := range families {
		for _, c := range f.frames {
			if strings.Trim(string(c.drop), "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
				t.Errorf("%q", c.drop)
			}
		}
	}
}

func BenchmarkAnswer(b *testing.B) {
	for _, f := range families {
		b.Run(f.protocol.Name(), func(b *testing.B) {
			r, _ := standing(b, f, responder.Options{}, f.numbered(1000)...)
			r.Attach("eth0", nowhere{})
			frame := f.ask(f.numbered(1000)[500], netip.Addr{})
			b.ReportAllocs()
			for b.Loop() {
				if drop := r.Handle("eth0", frame); drop != "" {
					b.Fatal(drop)
				}
			}
		})
	}
}

// nowhere accepts and discards all frames.
type nowhere struct{ responder.Conn }

func (nowhere) Write([]byte) error { return nil }
