package responder_test

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/heraldlb/herald/speaker/responder"
	"pgregory.net/rapid"
)

// bubble runs a test for each protocol, with a running responder on a wire, and a clock that moves
// when all goroutines wait.
func bubble(t *testing.T, o responder.Options, test func(t *testing.T, f *family, r *responder.Responder, w *wire)) {
	t.Helper()
	each(t, func(t *testing.T, f *family) {
		synctest.Test(t, func(t *testing.T) {
			r, w := connect(f, o)
			start(t, r)
			test(t, f, r, w)
		})
	})
}

// pass lets time pass, and everything happen that is due in this time.
func pass(d time.Duration) {
	time.Sleep(d) // by the bubble's clock, in no real time
	synctest.Wait()
}

// announced returns when the address was announced on the interface, counted from began.
func announced(all []sent, began time.Time, on string, addr netip.Addr) (at []time.Duration) {
	for _, s := range all {
		if s.on == on && s.addr == addr && s.kind == "announcement" {
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

func TestATakeoverIsAnnouncedInABurstThenPeriodically(t *testing.T) {
	bubble(t, responder.Options{}, func(t *testing.T, f *family, r *responder.Responder, w *wire) {
		began := time.Now()
		r.SetInterfaces([]responder.Interface{eth0, eth1})
		r.Set(f.vip, "eth0", owner)
		pass(3 * time.Minute)
		all := w.taken()
		want := ms(0, 100, 500, 1000, 2000, 62_000, 122_000)
		if diff := cmp.Diff(want, announced(all, began, "eth0", f.vip)); diff != "" {
			t.Errorf("announced at (-want +got):\n%s", diff)
		}
		if len(all) != f.forms*len(want) {
			t.Errorf("%d frames, want %d each time", len(all), f.forms)
		}
		for i, form := range f.announcements(mac0) {
			if all[i].text != form {
				t.Errorf("frame %d is %q, want %q", i, all[i].text, form)
			}
		}
		s := r.Stats()
		if len(s) != 1 || s[0].Announced != uint64(len(all)) || s[0].Owned != 1 || !s[0].Serving {
			t.Errorf("stats %+v; want those of eth0, since eth1 never had an address", s)
		}
		if got := r.Owned(); !slices.Equal(got["eth0"], []netip.Addr{f.vip}) || len(got) != 1 {
			t.Errorf("owned %v", got)
		}
	})
}

func TestWhatStartsAndEndsAnnouncements(t *testing.T) {
	type do = func(f *family, r *responder.Responder)
	down := eth0
	down.Up = false
	renumbered, otherMAC := eth0, eth0
	renumbered.Index, otherMAC.MAC = 7, mac1
	interfaces := func(all ...responder.Interface) do {
		return func(_ *family, r *responder.Responder) { r.SetInterfaces(all) }
	}
	set := func(iface string, a *responder.Answer) do {
		return func(f *family, r *responder.Responder) { r.Set(f.vip, iface, a) }
	}
	prepare := func(f *family, r *responder.Responder) { r.Prepare("eth0", f.numbered(10)) }
	for _, c := range []struct {
		name string
		// do are events that begin ten seconds after vip was set on eth0, one event per millisecond.
		do   []do
		want []time.Duration // announcements on eth0, counted from ten seconds after vip was set
	}{
		{name: "nothing", do: nil},
		{name: "the same again", do: []do{set("eth0", &responder.Answer{Announce: true, Defend: true}), interfaces(eth1, eth0)}},
		{name: "defended no more", do: []do{set("eth0", &responder.Answer{Announce: true})}},
		{name: "another interface in addition", do: []do{set("eth1", owner)}},
		{name: "given up on an interface where it never was", do: []do{set("eth1", nil), set("eth9", nil)}},
		{name: "given up and taken back", do: []do{set("eth0", nil), set("eth0", owner)}, want: ms(1, 101)},
		{name: "given up and taken back before anybody looked", do: []do{func(f *family, r *responder.Responder) {
			r.Set(f.vip, "eth0", nil)
			r.Set(f.vip, "eth0", owner)
		}}, want: ms(0, 100)},
		{name: "given up", do: []do{set("eth0", nil)}},
		{name: "not announced, then announced", do: []do{set("eth0", &responder.Answer{}), set("eth0", owner)}, want: ms(1, 101)},
		{name: "of a deputy, then one's own", do: []do{set("eth0", deputy), set("eth0", owner)}, want: ms(1, 101)},
		{name: "of a deputy", do: []do{set("eth0", deputy)}},
		{name: "one's own MAC by name", do: []do{set("eth0", &responder.Answer{MAC: mac0, Announce: true})}},
		{name: "others are prepared", do: []do{prepare}},
		{name: "link down and up", do: []do{interfaces(down, eth1), interfaces(eth0, eth1)}, want: ms(1, 101)},
		{name: "link down and up faster than one looks", do: []do{func(_ *family, r *responder.Responder) {
			r.SetInterfaces([]responder.Interface{down, eth1})
			r.SetInterfaces([]responder.Interface{eth0, eth1})
		}}, want: ms(0, 100)},
		{name: "link down", do: []do{interfaces(down, eth1)}},
		{name: "link gone and back", do: []do{interfaces(eth1), interfaces(eth0, eth1)}, want: ms(1, 101)},
		{name: "another index", do: []do{interfaces(renumbered, eth1)}, want: ms(0, 100)},
		{name: "another MAC", do: []do{interfaces(otherMAC, eth1)}, want: ms(0, 100)},
		{name: "another interface down", do: []do{interfaces(eth0)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, responder.Options{Burst: ms(0, 100), Refresh: -1}, func(t *testing.T, f *family, r *responder.Responder, w *wire) {
				r.SetInterfaces([]responder.Interface{eth0, eth1})
				r.Set(f.vip, "eth0", owner)
				pass(10 * time.Second)
				w.taken()
				began := time.Now()
				for _, do := range c.do {
					do(f, r)
					pass(time.Millisecond)
				}
				pass(time.Minute)
				if diff := cmp.Diff(c.want, announced(w.taken(), began, "eth0", f.vip), cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("announced at (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestAnnouncementsUseTheNewMAC(t *testing.T) {
	bubble(t, responder.Options{}, func(t *testing.T, f *family, r *responder.Responder, w *wire) {
		r.SetInterfaces([]responder.Interface{eth0})
		r.Set(f.vip, "eth0", owner)
		pass(time.Second)
		w.taken()
		moved := eth0
		moved.MAC = mac1
		r.SetInterfaces([]responder.Interface{moved})
		pass(time.Second)
		all := w.taken()
		if len(all) == 0 {
			t.Error("nothing announced")
		}
		for _, s := range all {
			if !isFrom(mac1)(s.said) || s.mac.String() != mac1.String() {
				t.Errorf("%s", s.text)
			}
		}
	})
}

func TestAddressesOfTheOtherFamilyAreIgnored(t *testing.T) {
	bubble(t, responder.Options{}, func(t *testing.T, f *family, r *responder.Responder, w *wire) {
		r.SetInterfaces([]responder.Interface{eth0})
		prepared := []netip.Addr{{}}
		for _, a := range f.ignored {
			if f == ipv4 || a != "::ffff:198.18.0.10" {
				r.Set(netip.MustParseAddr(a), "eth0", owner)
				prepared = append(prepared, netip.MustParseAddr(a))
			}
		}
		r.Set(netip.Addr{}, "eth0", owner)
		r.Prepare("eth0", prepared)
		pass(time.Minute)
		if all := w.taken(); len(all) != 0 || len(r.Stats()) != 0 || w.port("eth0") != nil {
			t.Errorf("announced %v, stats %v", all, r.Stats())
		}
		spelled := f.vip.WithZone("eth0")
		if f == ipv4 {
			spelled = netip.AddrFrom16(f.vip.As16())
		}
		r.Set(spelled, "eth0", owner)
		pass(time.Minute)
		if got := r.Owned()["eth0"]; !slices.Equal(got, []netip.Addr{f.vip}) {
			t.Errorf("owned %v", got)
		}
	})
}

// A thousand addresses that move at once are announced within 100 ms. Each is announced once before
// any is announced again. The later announcements are spread over time.
func TestManyAddressesArePaced(t *testing.T) {
	const n = 1000
	bubble(t, responder.Options{}, func(t *testing.T, f *family, r *responder.Responder, w *wire) {
		r.SetInterfaces([]responder.Interface{eth0})
		addrs := f.numbered(n)
		r.Prepare("eth0", addrs)
		pass(time.Second)
		began := time.Now()
		for _, a := range addrs {
			r.Set(a, "eth0", owner)
		}
		pass(90 * time.Second)
		at := make(map[int][]time.Duration) // by the number of earlier announcements of the address
		times := make(map[netip.Addr]int)
		for _, s := range w.taken() {
			if s.kind == "announcement" {
				at[times[s.addr]] = append(at[times[s.addr]], s.at.Sub(began))
				times[s.addr]++
			}
		}
		for round := range 6 {
			if len(at[round]) != n {
				t.Fatalf("round %d has %d announcements", round, len(at[round]))
			}
		}
		if last := at[0][n-1]; last > 100*time.Millisecond {
			t.Errorf("the last address was announced after %v", last)
		}
		inWindow := func(all []time.Duration, window time.Duration) (most int) {
			slices.Sort(all)
			for i, from := range all {
				end, _ := slices.BinarySearch(all, from+window)
				most = max(most, end-i)
			}
			return most
		}
		if most := inWindow(at[0], 10*time.Millisecond); most > 300 {
			t.Errorf("%d first announcements within 10 ms", most)
		}
		if most := inWindow(slices.Concat(at[1], at[2], at[3], at[4]), 100*time.Millisecond); most > 2000/10+40 {
			t.Errorf("%d repetitions within 100 ms", most)
		}
		if most := inWindow(at[5], time.Second); most > 500+10 {
			t.Errorf("%d refreshes within a second", most)
		}
	})
}

// Urgent announcements do not wait behind repetitions and refreshes.
func TestATakeoverGoesBeforeRepetitions(t *testing.T) {
	bubble(t, responder.Options{}, func(t *testing.T, f *family, r *responder.Responder, w *wire) {
		r.SetInterfaces([]responder.Interface{eth0})
		r.Prepare("eth0", []netip.Addr{f.vip})
		for _, a := range f.numbered(10_000) {
			r.Set(a, "eth0", owner)
		}
		pass(1500 * time.Millisecond)
		began := time.Now()
		r.Set(f.vip, "eth0", owner)
		pass(time.Second)
		if at := announced(w.taken(), began, "eth0", f.vip); len(at) == 0 || at[0] > 2*time.Millisecond {
			t.Errorf("announced at %v", at)
		}
	})
}

// A host that receives an announcement must get an answer, so the filter comes first.
func TestAnAnnouncedAddressPassesTheFilter(t *testing.T) {
	bubble(t, responder.Options{}, func(t *testing.T, f *family, r *responder.Responder, w *wire) {
		var deaf atomic.Pointer[string]
		w.hook = func(s sent) {
			if w.open[s.on].passes(f.ask(s.addr, netip.Addr{})) == 0 {
				problem := fmt.Sprintf("%v announced, but requests for it are filtered", s.addr)
				deaf.Store(&problem)
			}
		}
		r.SetInterfaces([]responder.Interface{eth0})
		for i, a := range f.numbered(500) {
			r.Set(a, "eth0", owner)
			if i%50 == 0 {
				pass(3 * time.Millisecond)
			}
		}
		pass(time.Second)
		if p := deaf.Load(); p != nil {
			t.Error(*p)
		}
		if n := r.Stats()[0].Announced; n < 2*500 {
			t.Errorf("only %d frames", n)
		}
	})
}

// A prepared address is announced without a new filter, and its groups have been joined before.
func TestAPreparedAddressIsAnnouncedAtOnce(t *testing.T) {
	bubble(t, responder.Options{Burst: ms(0), Refresh: -1}, func(t *testing.T, f *family, r *responder.Responder, w *wire) {
		r.SetInterfaces([]responder.Interface{eth0, eth1})
		r.Prepare("eth0", []netip.Addr{f.vip, f.vip2})
		pass(time.Second)
		p := w.port("eth0")
		if p == nil || w.port("eth1") != nil {
			t.Fatal("want a socket on eth0 only")
		}
		if all := w.taken(); len(all) != 0 || r.Stats()[0].Owned != 0 {
			t.Errorf("announced %v, stats %+v", all, r.Stats())
		}
		if p.passes(f.ask(f.vip, netip.Addr{})) == 0 {
			t.Error("requests are filtered")
		}
		if f == ipv6 && !slices.Equal(p.joined(), []netip.Addr{allNodes, vip6Group, netip.MustParseAddr("ff02::1:ff00:20")}) {
			t.Errorf("joined %v", p.joined())
		}
		p.in <- f.ask(f.vip, netip.Addr{})
		pass(time.Millisecond)
		if s := r.Stats()[0]; s.Answered != 0 || s.Dropped[responder.DropNotOwned] != 1 {
			t.Errorf("a prepared address was answered: %+v", s)
		}
		// A recent change of the filter delays the next change, but not this announcement.
		began, filters := time.Now(), p.filtersSet()
		r.Set(f.numbered(1)[0], "eth0", owner)
		synctest.Wait()
		r.Set(f.vip, "eth0", owner)
		r.Set(f.numbered(2)[1], "eth0", owner)
		synctest.Wait()
		if at := announced(w.taken(), began, "eth0", f.vip); !slices.Equal(at, ms(0)) {
			t.Errorf("announced at %v", at)
		}
		pass(time.Second)
		if n := p.filtersSet(); n != filters+2 {
			t.Errorf("%d filters, want 2", n-filters)
		}
		// An address that is given up stays prepared.
		r.Set(f.vip, "eth0", nil)
		pass(time.Second)
		if p.passes(f.ask(f.vip, netip.Addr{})) == 0 || p.filtersSet() != filters+2 {
			t.Error("the filter was changed for what stays prepared")
		}
		r.Prepare("eth0", nil)
		pass(time.Second)
		if p.passes(f.ask(f.vip2, netip.Addr{})) != 0 {
			t.Error("the filter accepts what nobody wants")
		}
		for _, a := range f.numbered(2) {
			r.Set(a, "eth0", nil)
		}
		pass(time.Second)
		if w.port("eth0") != nil {
			t.Error("a socket without addresses stays open")
		}
	})
}

// An address may be removed between the building of its filter and its first announcement.
func TestAnAddressGivenUpWhileItsFilterIsBuiltIsNotAnnounced(t *testing.T) {
	bubble(t, responder.Options{}, func(t *testing.T, f *family, r *responder.Responder, w *wire) {
		w.during = func() { r.Set(f.vip, "eth0", nil) }
		r.SetInterfaces([]responder.Interface{eth0})
		r.Set(f.vip2, "eth0", owner)
		r.Set(f.vip, "eth0", owner)
		pass(time.Minute)
		for _, s := range w.taken() {
			if s.addr != f.vip2 {
				t.Fatal(s.text)
			}
		}
		if got := r.Owned()["eth0"]; !slices.Equal(got, []netip.Addr{f.vip2}) {
			t.Errorf("owned %v", got)
		}
	})
}

// An address is given up, and set again while the smaller filter is built. That filter does not
// accept the address, which waits for the next one.
func TestAnAddressTakenBackWhileTheFilterIsBuiltIsNotDeaf(t *testing.T) {
	bubble(t, responder.Options{}, func(t *testing.T, f *family, r *responder.Responder, w *wire) {
		var deaf atomic.Bool
		w.hook = func(s sent) {
			if w.open[s.on].passes(f.ask(s.addr, netip.Addr{})) == 0 {
				deaf.Store(true)
			}
		}
		r.SetInterfaces([]responder.Interface{eth0})
		r.Set(f.vip, "eth0", owner)
		r.Set(f.vip2, "eth0", owner)
		pass(time.Minute)
		r.Set(f.vip, "eth0", nil)
		var back sync.Once
		w.mu.Lock()
		w.during = func() { back.Do(func() { r.Set(f.vip, "eth0", owner) }) }
		w.mu.Unlock()
		w.taken()
		pass(time.Second)
		if deaf.Load() || len(announced(w.taken(), time.Now(), "eth0", f.vip)) == 0 {
			t.Error("announced while requests were filtered, or not at all")
		}
		if w.port("eth0").passes(f.ask(f.vip, netip.Addr{})) == 0 {
			t.Error("requests are filtered")
		}
	})
}

// An interface disappears and is forgotten while Run works on it. A new interface with the same name
// appears, and must not be forgotten instead.
func TestAnInterfaceIsNotMistakenForItsPredecessor(t *testing.T) {
	each(t, func(t *testing.T, f *family) {
		r, w := connect(f, quiet)
		var readers sync.WaitGroup
		defer readers.Wait()
		defer r.CloseAll(&readers)
		r.SetInterfaces([]responder.Interface{eth0})
		r.Set(f.vip, "eth0", owner)
		w.during = func() {
			w.during = nil
			r.Set(f.vip, "eth0", nil)
			r.SetInterfaces(nil)
		}
		r.Attend(&readers)
		r.Set(f.vip, "eth0", owner)
		r.Set(f.vip, "eth0", nil)
		r.Attend(&readers)
		r.Set(f.vip, "eth0", owner)
		r.SetInterfaces([]responder.Interface{eth0})
		r.Attend(&readers)
		if got := r.Owned()["eth0"]; !slices.Equal(got, []netip.Addr{f.vip}) {
			t.Errorf("owned %v", got)
		}
	})
}

func TestASocketThatFailsIsOpenedAgainWithBackoff(t *testing.T) {
	bubble(t, responder.Options{Burst: ms(0), Refresh: -1}, func(t *testing.T, f *family, r *responder.Responder, w *wire) {
		r.SetInterfaces([]responder.Interface{eth0})
		r.Set(f.vip, "eth0", owner)
		pass(time.Minute)
		w.taken()
		broken := time.Now()
		w.breakDown(errors.New("no such device"))
		w.port("eth0").broken <- errors.New("network is down")
		pass(time.Minute)
		if s := r.Stats()[0]; s.Serving {
			t.Errorf("serving without a socket: %+v", s)
		}
		w.breakDown(nil)
		repaired := time.Now()
		pass(responder.MaxBackoff)
		at := announced(w.taken(), repaired, "eth0", f.vip)
		if len(at) != 1 || at[0] > responder.MaxBackoff {
			t.Errorf("announced at %v after the repair, %v after the failure", at, repaired.Sub(broken))
		}
		// A change of the interface ends the wait.
		w.breakDown(errors.New("no such device"))
		w.port("eth0").broken <- errors.New("network is down")
		pass(time.Minute)
		w.breakDown(nil)
		moved := eth0
		moved.Index = 9
		now := time.Now()
		r.SetInterfaces([]responder.Interface{moved})
		pass(time.Second)
		if at := announced(w.taken(), now, "eth0", f.vip); !slices.Equal(at, ms(0)) {
			t.Errorf("announced at %v after the news", at)
		}
	})
}

func TestAFilterThatIsRefusedComesWithANewSocket(t *testing.T) {
	bubble(t, responder.Options{Burst: ms(0), Refresh: -1}, func(t *testing.T, f *family, r *responder.Responder, w *wire) {
		r.SetInterfaces([]responder.Interface{eth0})
		r.Set(f.vip, "eth0", owner)
		pass(time.Minute)
		w.taken()
		w.breakDown(errors.New("cannot allocate memory"))
		r.Set(f.vip2, "eth0", owner)
		pass(time.Second)
		if all := w.taken(); len(all) != 0 {
			t.Errorf("announced without a filter that fits: %s", all[0].text)
		}
		w.breakDown(nil)
		pass(responder.MaxBackoff)
		all := w.taken()
		for _, a := range []netip.Addr{f.vip, f.vip2} {
			if at := announced(all, time.Now(), "eth0", a); len(at) != 1 {
				t.Errorf("%v announced %d times", a, len(at))
			}
			if w.port("eth0").passes(f.ask(a, netip.Addr{})) == 0 {
				t.Errorf("%v is filtered", a)
			}
		}
	})
}

func TestARunThatEndedCanBeTakenUpAgain(t *testing.T) {
	each(t, func(t *testing.T, f *family) {
		synctest.Test(t, func(t *testing.T) {
			r, w := connect(f, responder.Options{Burst: ms(0), Refresh: -1})
			r.SetInterfaces([]responder.Interface{eth0})
			r.Set(f.vip, "eth0", owner)
			for range 2 {
				stop := start(t, r)
				pass(time.Second)
				if n := len(w.taken()); n != f.forms {
					t.Errorf("%d frames, want %d", n, f.forms)
				}
				stop()
				if len(w.open) != 0 || r.Stats()[0].Serving {
					t.Errorf("after Run: %d sockets open, %+v", len(w.open), r.Stats())
				}
			}
		})
	})
}

// Any state may follow any other, in any order and at any speed. The owned addresses, the open sockets
// and their filters depend only on the last state.
func TestTheStateDependsOnTheLastCallsOnly(t *testing.T) {
	names := []string{"eth0", "eth1", "eth2"}
	each(t, func(t *testing.T, f *family) {
		addrs := f.numbered(4)
		synctest.Test(t, func(t *testing.T) {
			// In a bubble the deadline must not be read. rapid reads it only from a *testing.T.
			rapid.Check(struct{ rapid.TB }{t}, func(t *rapid.T) {
				r, w := connect(f, responder.Options{})
				stop := start(t, r)
				defer stop()
				present := make(map[string]responder.Interface)
				type place struct {
					addr netip.Addr
					on   string
				}
				wanted := make(map[place]*responder.Answer)
				prepared := make(map[string][]netip.Addr)
				subset := rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, len(names), rapid.ID)
				t.Repeat(map[string]func(*rapid.T){
					"interfaces": func(t *rapid.T) {
						clear(present)
						for _, n := range subset.Draw(t, "present") {
							present[n] = responder.Interface{
								Name: n, Index: rapid.IntRange(1, 2).Draw(t, "index"), Up: rapid.Bool().Draw(t, "up"),
								MAC: rapid.SampledFrom([]net.HardwareAddr{mac0, mac1}).Draw(t, "mac"),
							}
						}
						r.SetInterfaces(slices.Collect(maps.Values(present)))
					},
					"set": func(t *rapid.T) {
						p := place{rapid.SampledFrom(addrs).Draw(t, "address"), rapid.SampledFrom(names).Draw(t, "on")}
						wanted[p] = rapid.SampledFrom([]*responder.Answer{nil, owner, deputy, {}}).Draw(t, "answer")
						r.Set(p.addr, p.on, wanted[p])
					},
					"prepare": func(t *rapid.T) {
						on := rapid.SampledFrom(names).Draw(t, "on")
						prepared[on] = rapid.SliceOfNDistinct(rapid.SampledFrom(addrs), 0, 4, rapid.ID).Draw(t, "prepared")
						r.Prepare(on, prepared[on])
					},
					"break": func(t *rapid.T) {
						if p := w.port(rapid.SampledFrom(names).Draw(t, "name")); p != nil {
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
				pass(2 * responder.MaxBackoff)
				owned := make(map[string][]netip.Addr)
				scheduled := 0
				for _, a := range addrs {
					for _, n := range names {
						if answer := wanted[place{a, n}]; answer != nil && present[n].Up {
							owned[n] = append(owned[n], a)
							if answer == owner {
								scheduled++
							}
						}
					}
				}
				if diff := cmp.Diff(owned, r.Owned(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
					t.Fatalf("owned (-want +got):\n%s", diff)
				}
				for _, n := range names {
					p := w.port(n)
					if open := present[n].Up && len(owned[n])+len(prepared[n]) > 0; (p != nil) != open {
						t.Fatalf("%s: open %v, owns %v, prepared for %v", n, p != nil, owned[n], prepared[n])
					}
					for _, a := range addrs {
						if p != nil && (p.passes(f.ask(a, netip.Addr{})) > 0) != (slices.Contains(owned[n], a) || slices.Contains(prepared[n], a)) {
							t.Fatalf("%s: filter and addresses differ on %v", n, a)
						}
					}
				}
				if n := r.Scheduled(); n != scheduled {
					t.Fatalf("%d entries are scheduled, want %d", n, scheduled)
				}
				for _, n := range names {
					r.Prepare(n, nil)
					for _, a := range addrs {
						r.Set(a, n, nil)
					}
				}
				r.SetInterfaces(nil)
				pass(time.Second)
				if r.Remembered() != 0 || r.Scheduled() != 0 {
					t.Fatalf("left behind: %d links, %d entries", r.Remembered(), r.Scheduled())
				}
			})
		})
	})
}

// After Set(addr, nil) no frame for addr is sent, however many requests for it come. After a Set with
// another MAC no frame with the old one is sent.
func TestNothingThatContradictsLeavesAfterSetReturns(t *testing.T) {
	each(t, func(t *testing.T, f *family) {
		r, w := connect(f, responder.Options{Burst: slices.Repeat(ms(0), 50), Refresh: time.Millisecond, Rate: 1e6})
		var valid atomic.Pointer[net.HardwareAddr]
		var late atomic.Int32
		w.hook = func(s sent) {
			if mac := valid.Load(); s.addr == f.vip && (mac == nil || s.mac.String() != mac.String()) {
				late.Add(1)
			}
		}
		r.SetInterfaces([]responder.Interface{eth0})
		// vip2 keeps the socket open, so that the reader is never stopped by a close.
		r.Set(f.vip2, "eth0", owner)
		start(t, r)
		eventually(t, func() bool { return r.Stats()[0].Serving })
		p := w.port("eth0")
		done := make(chan struct{})
		var askers sync.WaitGroup
		askers.Go(func() {
			for frame := f.ask(f.vip, netip.Addr{}); ; {
				select {
				case p.in <- frame:
				case <-done:
					return
				}
			}
		})
		for range 200 {
			before := r.Stats()[0]
			valid.Store(&mac0)
			r.Set(f.vip, "eth0", owner)
			eventually(t, func() bool {
				now := r.Stats()[0]
				return now.Answered > before.Answered && now.Announced > before.Announced
			})
			r.Set(f.vip, "eth0", nil)
			valid.Store(&another)
			r.Set(f.vip, "eth0", deputy)
			before = r.Stats()[0]
			eventually(t, func() bool { return r.Stats()[0].Answered > before.Answered })
			r.Set(f.vip, "eth0", nil)
			valid.Store(nil)
			w.taken()
		}
		close(done)
		askers.Wait()
		if n := late.Load(); n != 0 {
			t.Errorf("%d frames contradicted the last Set", n)
		}
	})
}

// The benchmark moves one address among many. It measures only Set, not the work that follows in Run
// once per 10 ms.
func BenchmarkSetAmong10000(b *testing.B) {
	for _, f := range families {
		b.Run(f.protocol.Name(), func(b *testing.B) {
			r, _ := standing(b, f, responder.Options{}, f.numbered(10_000)...)
			b.ReportAllocs()
			for b.Loop() {
				r.Set(f.vip, "eth0", owner)
				r.Set(f.vip, "eth0", nil)
			}
		})
	}
}
