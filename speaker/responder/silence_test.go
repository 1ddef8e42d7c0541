package responder_test

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/heraldlb/herald/speaker/responder"
)

// A process that was suspended finds requests in its sockets. It must not answer them before it knows
// whether it still owns the addresses. Then it must continue where it was.
func TestSilenceIsKeptAndEnds(t *testing.T) {
	var silent atomic.Bool
	o := responder.Options{Burst: ms(0, 1000), Refresh: -1, Silent: func(iface string) bool { return iface == "eth0" && silent.Load() }}
	bubble(t, o, func(t *testing.T, f *family, r *responder.Responder, w *wire) {
		began := time.Now()
		silent.Store(true)
		r.SetInterfaces([]responder.Interface{eth0, eth1})
		r.Set(f.vip, "eth0", owner)
		r.Set(f.vip, "eth1", owner)
		pass(time.Second)
		w.port("eth0").in <- f.ask(f.vip, netip.Addr{})
		pass(time.Millisecond)
		all := w.taken()
		for _, s := range all {
			if s.on == "eth0" {
				t.Fatalf("sent while silent: %v", s)
			}
		}
		if at := announced(all, began, "eth1", f.vip); len(at) != 2 {
			t.Errorf("on another interface announced at %v", at)
		}
		if s := r.Stats()[0]; s.Dropped[responder.DropSilent] != 1 || !s.Serving {
			t.Errorf("stats %+v; want one request dropped, and an open socket", s)
		}
		if _, err := r.Probe(t.Context(), "eth0", f.vip2); err == nil {
			t.Error("probed while silent")
		}

		silent.Store(false)
		w.port("eth0").in <- f.ask(f.vip, netip.Addr{})
		pass(time.Minute)
		answers := 0
		all = w.taken()
		for _, s := range all {
			if s.kind == "answer" {
				answers++
			}
		}
		if answers != 1 {
			t.Errorf("%d answers after the silence, want one", answers)
		}
		at := announced(all, began, "eth0", f.vip)
		if len(at) != 2 || at[0] > 1001*time.Millisecond+responder.SilencePeriod || at[1]-at[0] != time.Second {
			t.Errorf("announced at %v, want the whole burst from the end of the silence", at)
		}
	})
}
