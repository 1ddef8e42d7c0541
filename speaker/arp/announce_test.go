package arp

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"go.uber.org/zap"
	"pgregory.net/rapid"
)

var (
	mac0 = net.HardwareAddr{0x02, 0, 0x5e, 0, 0x53, 0x01}
	mac1 = net.HardwareAddr{0x02, 0, 0x5e, 0, 0x53, 0x02}
	eth0 = Interface{Name: "eth0", Index: 1, MAC: mac0, Up: true}
	eth1 = Interface{Name: "eth1", Index: 2, MAC: mac1, Up: true}
)

// bubble gives a test a running responder on a segment, and a clock that moves when everybody waits.
func bubble(t *testing.T, options Options, test func(t *testing.T, r *Responder, wire *segment)) {
	synctest.Test(t, func(t *testing.T) {
		r, wire := New(zap.NewNop(), options), newSegment()
		r.listen = wire.listen
		start(t, r)
		test(t, r, wire)
	})
}

// pass lets the time pass, and whatever happens in it.
func pass(d time.Duration) {
	time.Sleep(d) // the bubble's clock: nobody waits
	synctest.Wait()
}

// schedule is when the address was announced on the interface, since began.
func schedule(all []sent, began time.Time, on string, addr netip.Addr) (at []time.Duration) {
	for _, s := range all {
		if s.on == on && s.p.SenderIP == addr && s.p.Operation == arp.OperationRequest {
			at = append(at, s.at.Sub(began))
		}
	}
	return at
}

func ms(all ...int) (d []time.Duration) {
	for _, n := range all {
		d = append(d, time.Duration(n)*time.Millisecond)
	}
	return d
}

func TestATakeOverIsAnnouncedInABurstThenPeriodically(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, r *Responder, wire *segment) {
		began := time.Now()
		r.SetInterfaces([]Interface{eth0, eth1})
		r.Set(vip, []string{"eth0"})
		pass(3 * time.Minute)
		all := wire.taken()
		want := ms(0, 100, 500, 1000, 2000, 62_000, 122_000)
		if diff := cmp.Diff(want, schedule(all, began, "eth0", vip)); diff != "" {
			t.Errorf("announced at (-want +got):\n%s", diff)
		}
		if len(all) != 2*len(want) {
			t.Errorf("%d packets, want a request and a reply each time", len(all))
		}
		for i, form := range []string{
			fmt.Sprintf("%v > %v: request %v is %v, to %v %v", mac0, ethernet.Broadcast, vip, mac0, vip, zero),
			fmt.Sprintf("%v > %v: reply %v is %v, to %v %v", mac0, ethernet.Broadcast, vip, mac0, vip, mac0),
		} {
			if got := describe(all[i].eth, all[i].p); got != form {
				t.Errorf("packet %d is %q, want %q", i, got, form)
			}
		}
		if s := r.Stats()[0]; s.Announced != uint64(len(all)) || s.Owned != 1 || !s.Serving {
			t.Errorf("stats %+v", s)
		}
		if got := r.Owned(); !slices.Equal(got["eth0"], []netip.Addr{vip}) || len(got) != 1 {
			t.Errorf("owned %v", got)
		}
	})
}

func TestWhatStartsAndEndsAnnouncements(t *testing.T) {
	down := eth0
	down.Up = false
	renumbered, otherMAC := eth0, eth0
	renumbered.Index, otherMAC.MAC = 7, mac1
	for _, c := range []struct {
		name string
		// do happens ten seconds after vip was set on eth0, one event a millisecond.
		do   []func(r *Responder)
		want []time.Duration // on eth0, since ten seconds after vip was set
	}{
		{name: "nothing", do: nil},
		{name: "the same again", do: []func(*Responder){
			func(r *Responder) { r.Set(vip, []string{"eth0", "eth0"}) },
			func(r *Responder) { r.SetInterfaces([]Interface{eth1, eth0}) },
		}},
		{name: "another interface in addition", do: []func(*Responder){func(r *Responder) { r.Set(vip, []string{"eth1", "eth0"}) }}},
		{name: "given up and taken back", do: []func(*Responder){
			func(r *Responder) { r.Set(vip, nil) },
			func(r *Responder) { r.Set(vip, []string{"eth0"}) },
		}, want: ms(1, 101)},
		{name: "given up", do: []func(*Responder){func(r *Responder) { r.Set(vip, []string{}) }}},
		{name: "link down and up", do: []func(*Responder){
			func(r *Responder) { r.SetInterfaces([]Interface{down, eth1}) },
			func(r *Responder) { r.SetInterfaces([]Interface{eth0, eth1}) },
		}, want: ms(1, 101)},
		{name: "link down and up faster than one looks", do: []func(*Responder){func(r *Responder) {
			r.SetInterfaces([]Interface{down, eth1})
			r.SetInterfaces([]Interface{eth0, eth1})
		}}, want: ms(0, 100)},
		{name: "link down", do: []func(*Responder){func(r *Responder) { r.SetInterfaces([]Interface{down, eth1}) }}},
		{name: "link gone and back", do: []func(*Responder){
			func(r *Responder) { r.SetInterfaces([]Interface{eth1}) },
			func(r *Responder) { r.SetInterfaces([]Interface{eth0, eth1}) },
		}, want: ms(1, 101)},
		{name: "another index", do: []func(*Responder){func(r *Responder) { r.SetInterfaces([]Interface{renumbered, eth1}) }}, want: ms(0, 100)},
		{name: "another MAC", do: []func(*Responder){func(r *Responder) { r.SetInterfaces([]Interface{otherMAC, eth1}) }}, want: ms(0, 100)},
		{name: "another interface down", do: []func(*Responder){func(r *Responder) { r.SetInterfaces([]Interface{eth0}) }}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, Options{Burst: ms(0, 100), Refresh: -1}, func(t *testing.T, r *Responder, wire *segment) {
				r.SetInterfaces([]Interface{eth0, eth1})
				r.Set(vip, []string{"eth0"})
				pass(10 * time.Second)
				wire.taken()
				began := time.Now()
				for _, do := range c.do {
					do(r)
					pass(time.Millisecond)
				}
				pass(time.Minute)
				if diff := cmp.Diff(c.want, schedule(wire.taken(), began, "eth0", vip), cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("announced at (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestAnnouncementsUseTheNewMAC(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, r *Responder, wire *segment) {
		r.SetInterfaces([]Interface{eth0})
		r.Set(vip, []string{"eth0"})
		pass(time.Second)
		wire.taken()
		moved := eth0
		moved.MAC = mac1
		r.SetInterfaces([]Interface{moved})
		pass(time.Second)
		all := wire.taken()
		if len(all) == 0 {
			t.Error("nothing announced")
		}
		for _, s := range all {
			if !isFrom(mac1)(s.eth) {
				t.Errorf("%s", describe(s.eth, s.p))
			}
		}
	})
}

func TestAddressesThatARPCannotAnswerForAreIgnored(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, r *Responder, wire *segment) {
		r.SetInterfaces([]Interface{eth0})
		for _, a := range []string{"2001:db8::1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1"} {
			r.Set(netip.MustParseAddr(a), []string{"eth0"})
		}
		r.Set(netip.Addr{}, []string{"eth0"})
		pass(time.Minute)
		if all := wire.taken(); len(all) != 0 {
			t.Errorf("announced %v", all)
		}
		r.Set(netip.MustParseAddr("::ffff:198.18.0.10"), []string{"eth0"})
		pass(time.Minute)
		if got := r.Owned()["eth0"]; !slices.Equal(got, []netip.Addr{vip}) {
			t.Errorf("owned %v", got)
		}
	})
}

// A thousand addresses that move at once are announced at the rate, each for the first time before
// any for the second, and never faster than a few back to back.
func TestManyAddressesArePaced(t *testing.T) {
	const n, rate = 1000, 2000
	bubble(t, Options{Rate: rate, Burst: ms(0, 1000), Refresh: -1}, func(t *testing.T, r *Responder, wire *segment) {
		r.SetInterfaces([]Interface{eth0})
		began := time.Now()
		for _, a := range numbered(n) {
			r.Set(a, []string{"eth0"})
		}
		pass(time.Minute)
		var at []time.Duration
		times := make(map[netip.Addr]int)
		for i, s := range wire.taken() {
			if s.p.Operation != arp.OperationRequest {
				continue
			}
			at = append(at, s.at.Sub(began))
			if times[s.p.SenderIP]++; i < 2*n && times[s.p.SenderIP] > 1 {
				t.Fatalf("%v was announced again before others were at all", s.p.SenderIP)
			}
		}
		if len(at) != 2*n || len(times) != n {
			t.Fatalf("%d announcements of %d addresses", len(at), len(times))
		}
		if first := at[n-1]; first > time.Second*n/rate+50*time.Millisecond {
			t.Errorf("the last address was announced after %v", first)
		}
		for i := range at[paceBurst+1:] {
			if d := at[i+paceBurst+1] - at[i]; d < time.Second/rate {
				t.Fatalf("%d announcements within %v", paceBurst+2, d)
			}
		}
	})
}

// Whoever believes an announcement must get an answer: the filter comes first.
func TestAnAnnouncedAddressPassesTheFilter(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, r *Responder, wire *segment) {
		var deaf atomic.Pointer[string]
		wire.hook = func(s sent) {
			if wire.open[s.on].passes(ask(s.p.SenderIP)) == 0 {
				problem := fmt.Sprintf("%v announced, but requests for it are filtered", s.p.SenderIP)
				deaf.Store(&problem)
			}
		}
		r.SetInterfaces([]Interface{eth0})
		for i, a := range numbered(500) {
			r.Set(a, []string{"eth0"})
			if i%50 == 0 {
				pass(3 * time.Millisecond)
			}
		}
		pass(time.Second)
		if p := deaf.Load(); p != nil {
			t.Error(*p)
		}
		if n := r.Stats()[0].Announced; n < 2*500 {
			t.Errorf("only %d packets", n)
		}
	})
}

// Between the build of a filter and the first announcement an address may have gone again.
func TestAnAddressGivenUpWhileItsFilterIsBuiltIsNotAnnounced(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, r *Responder, wire *segment) {
		wire.during = func() { r.Set(vip, nil) }
		r.SetInterfaces([]Interface{eth0})
		r.Set(vip2, []string{"eth0"})
		r.Set(vip, []string{"eth0"})
		pass(time.Minute)
		for _, s := range wire.taken() {
			if s.p.SenderIP != vip2 {
				t.Fatal(describe(s.eth, s.p))
			}
		}
		if got := r.Owned()["eth0"]; !slices.Equal(got, []netip.Addr{vip2}) {
			t.Errorf("owned %v", got)
		}
	})
}

// Calls may come between any two steps of the loop, here while it closes the socket of an interface
// that has gone: the one that takes its name afterwards must not be forgotten in its stead.
func TestAnInterfaceIsNotMistakenForItsPredecessor(t *testing.T) {
	r, wire := New(zap.NewNop(), quiet), newSegment()
	r.listen = wire.listen
	var readers sync.WaitGroup
	defer readers.Wait()
	defer r.closeAll()
	r.SetInterfaces([]Interface{eth0})
	r.Set(vip, []string{"eth0"})
	r.attend(&readers)
	r.Set(vip, nil)
	r.SetInterfaces(nil)
	wire.during = func() {
		wire.during = nil
		r.Set(vip, []string{"eth0"})
		r.Set(vip, nil)
	}
	r.attend(&readers)
	r.Set(vip, []string{"eth0"})
	r.SetInterfaces([]Interface{eth0})
	r.attend(&readers)
	if got := r.Owned()["eth0"]; !slices.Equal(got, []netip.Addr{vip}) {
		t.Errorf("owned %v", got)
	}
}

func TestASocketThatFailsIsOpenedAgainWithBackoff(t *testing.T) {
	bubble(t, Options{Burst: ms(0), Refresh: -1}, func(t *testing.T, r *Responder, wire *segment) {
		r.SetInterfaces([]Interface{eth0})
		r.Set(vip, []string{"eth0"})
		pass(time.Minute)
		wire.taken()
		broken := time.Now()
		wire.breakDown(errors.New("no such device"))
		wire.port("eth0").broken <- errors.New("network is down")
		pass(time.Minute)
		if s := r.Stats()[0]; s.Serving {
			t.Errorf("serving without a socket: %+v", s)
		}
		wire.breakDown(nil)
		repaired := time.Now()
		pass(maxBackoff)
		at := schedule(wire.taken(), repaired, "eth0", vip)
		if len(at) != 1 || at[0] > maxBackoff {
			t.Errorf("announced at %v after the repair, %v after the failure", at, repaired.Sub(broken))
		}
		// News of the interface end the wait.
		wire.breakDown(errors.New("no such device"))
		wire.port("eth0").broken <- errors.New("network is down")
		pass(time.Minute)
		wire.breakDown(nil)
		moved := eth0
		moved.Index = 9
		now := time.Now()
		r.SetInterfaces([]Interface{moved})
		pass(time.Second)
		if at := schedule(wire.taken(), now, "eth0", vip); !slices.Equal(at, ms(0)) {
			t.Errorf("announced at %v after the news", at)
		}
	})
}

func TestAFilterThatIsRefusedComesWithANewSocket(t *testing.T) {
	bubble(t, Options{Burst: ms(0), Refresh: -1}, func(t *testing.T, r *Responder, wire *segment) {
		r.SetInterfaces([]Interface{eth0})
		r.Set(vip, []string{"eth0"})
		pass(time.Minute)
		wire.taken()
		wire.breakDown(errors.New("cannot allocate memory"))
		r.Set(vip2, []string{"eth0"})
		pass(time.Second)
		if all := wire.taken(); len(all) != 0 {
			t.Errorf("announced without a filter that fits: %s", describe(all[0].eth, all[0].p))
		}
		wire.breakDown(nil)
		pass(maxBackoff)
		for _, a := range []netip.Addr{vip, vip2} {
			if at := schedule(wire.sent, time.Now(), "eth0", a); len(at) != 1 {
				t.Errorf("%v announced %d times", a, len(at))
			}
			if wire.port("eth0").passes(ask(a)) == 0 {
				t.Errorf("%v is filtered", a)
			}
		}
	})
}

func TestARunThatEndedCanBeTakenUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, wire := New(zap.NewNop(), Options{Burst: ms(0), Refresh: -1}), newSegment()
		r.listen = wire.listen
		r.SetInterfaces([]Interface{eth0})
		r.Set(vip, []string{"eth0"})
		for range 2 {
			stop := start(t, r)
			pass(time.Second)
			if at := len(wire.taken()); at != 2 {
				t.Errorf("%d packets, want 2", at)
			}
			stop()
			if len(wire.open) != 0 || r.Stats()[0].Serving {
				t.Errorf("after Run: %d sockets open, %+v", len(wire.open), r.Stats())
			}
		}
	})
}

// Any state may follow any other, in any order and at any speed: what is owned, open, and let in by
// the filters depends on the last state only.
func TestTheStateDependsOnTheLastCallsOnly(t *testing.T) {
	names := []string{"eth0", "eth1", "eth2"}
	addrs := numbered(4)
	synctest.Test(t, func(t *testing.T) {
		// A bubble forbids to ask for the deadline, which rapid does of a *testing.T only.
		rapid.Check(struct{ rapid.TB }{t}, func(t *rapid.T) {
			r, wire := New(zap.NewNop(), Options{}), newSegment()
			r.listen = wire.listen
			stop := start(t, r)
			defer stop()
			present := make(map[string]Interface)
			wanted := make(map[netip.Addr][]string)
			subset := rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, len(names), rapid.ID)
			t.Repeat(map[string]func(*rapid.T){
				"interfaces": func(t *rapid.T) {
					clear(present)
					for _, n := range subset.Draw(t, "present") {
						present[n] = Interface{
							Name: n, Index: rapid.IntRange(1, 2).Draw(t, "index"), Up: rapid.Bool().Draw(t, "up"),
							MAC: rapid.SampledFrom([]net.HardwareAddr{mac0, mac1}).Draw(t, "mac"),
						}
					}
					r.SetInterfaces(slices.Collect(maps.Values(present)))
				},
				"set": func(t *rapid.T) {
					a := rapid.SampledFrom(addrs).Draw(t, "address")
					wanted[a] = subset.Draw(t, "on")
					r.Set(a, wanted[a])
				},
				"break": func(t *rapid.T) {
					if p := wire.port(rapid.SampledFrom(names).Draw(t, "name")); p != nil {
						select {
						case p.broken <- errors.New("network is down"):
						case <-p.closed:
						}
					}
				},
				"pass": func(t *rapid.T) {
					pass(time.Duration(rapid.IntRange(0, 20).Draw(t, "ms")) * time.Millisecond)
				},
			})
			pass(2 * maxBackoff)
			want := make(map[string][]netip.Addr)
			for _, a := range addrs {
				for _, n := range wanted[a] {
					if present[n].Up {
						want[n] = append(want[n], a)
					}
				}
			}
			if diff := cmp.Diff(want, r.Owned(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Fatalf("owned (-want +got):\n%s", diff)
			}
			for _, n := range names {
				p := wire.port(n)
				if (p != nil) != (want[n] != nil) {
					t.Fatalf("%s: open %v, owns %v", n, p != nil, want[n])
				}
				for _, a := range addrs {
					if p != nil && (p.passes(ask(a)) > 0) != slices.Contains(want[n], a) {
						t.Fatalf("%s: filter and claims differ on %v", n, a)
					}
				}
			}
			if n, most := len(r.agenda), len(addrs)*len(names); n > most {
				t.Fatalf("%d claims on the agenda", n)
			}
			for _, a := range addrs {
				r.Set(a, nil)
			}
			r.SetInterfaces(nil)
			pass(time.Second)
			if len(r.links) != 0 || len(r.claims) != 0 || len(r.agenda) != 0 || len(r.dirty) != 0 {
				t.Fatalf("left behind: %v %v %v %v", r.links, r.claims, r.agenda, r.dirty)
			}
		})
	})
}

// After Set(addr, nil) not one frame for addr leaves, however hard it is asked for.
func TestNothingLeavesAfterSetReturns(t *testing.T) {
	r, wire := New(zap.NewNop(), Options{Burst: slices.Repeat(ms(0), 50), Refresh: time.Millisecond, Rate: 1e6}), newSegment()
	r.listen = wire.listen
	var mine atomic.Bool
	var late atomic.Int32
	wire.hook = func(s sent) {
		if s.p.SenderIP == vip && !mine.Load() {
			late.Add(1)
		}
	}
	r.SetInterfaces([]Interface{eth0})
	// vip2 keeps the socket open, so that the reader is never stopped by a close.
	r.Set(vip2, []string{"eth0"})
	start(t, r)
	eventually(t, func() bool { return r.Stats()[0].Serving })
	p := wire.port("eth0")
	done := make(chan struct{})
	var askers sync.WaitGroup
	askers.Go(func() {
		for f := ask(vip); ; {
			select {
			case p.in <- f:
			case <-done:
				return
			}
		}
	})
	for range 200 {
		before := r.Stats()[0]
		mine.Store(true)
		r.Set(vip, []string{"eth0"})
		eventually(t, func() bool {
			now := r.Stats()[0]
			return now.Answered > before.Answered && now.Announced > before.Announced
		})
		r.Set(vip, nil)
		mine.Store(false)
		wire.taken()
	}
	close(done)
	askers.Wait()
	if n := late.Load(); n != 0 {
		t.Errorf("%d frames left after Set had returned", n)
	}
}

func TestDropsAreGoodMetricLabels(t *testing.T) {
	for _, c := range frames {
		if strings.Trim(string(c.drop), "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			t.Errorf("%q", c.drop)
		}
	}
}

func BenchmarkReply(b *testing.B) {
	r, l, s, _ := standing(b, mac0, numbered(1000)...)
	s.conn = nowhere{}
	frame := ask(numbered(1000)[500])
	b.ReportAllocs()
	for b.Loop() {
		if drop := r.handle(l, s, frame); drop != "" {
			b.Fatal(drop)
		}
	}
}

// nowhere takes what is written to it.
type nowhere struct{ conn }

func (nowhere) Write([]byte) error { return nil }

// Moving one address among many: Set itself, and what follows in the loop once per spacing.
func BenchmarkSetAmong10000(b *testing.B) {
	r, _, _, _ := standing(b, mac0, numbered(10_000)...)
	b.ReportAllocs()
	for b.Loop() {
		r.Set(vip, []string{"eth0"})
		r.Set(vip, nil)
		r.link("eth0").fresh = nil
	}
}
