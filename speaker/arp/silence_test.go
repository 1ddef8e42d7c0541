package arp

import (
	"sync/atomic"
	"testing"
	"time"
)

// A process that was frozen finds requests in its sockets. It must not answer before it knows whether
// the addresses are still its own, but take up where it was once it does.
func TestSilenceIsKeptAndEnds(t *testing.T) {
	var silent atomic.Bool
	bubble(t, Options{Burst: ms(0, 1000), Refresh: -1, Silent: silent.Load}, func(t *testing.T, r *Responder, wire *segment) {
		began := time.Now()
		silent.Store(true)
		r.SetInterfaces([]Interface{eth0})
		r.Set(vip, []string{"eth0"})
		pass(time.Second)
		wire.port("eth0").in <- ask(vip)
		pass(time.Millisecond)
		if got := wire.taken(); len(got) > 0 {
			t.Fatalf("sent while silent: %v", got)
		}
		if s := r.Stats()[0]; s.Dropped[DropSilent] != 1 || !s.Serving {
			t.Errorf("stats %+v; want one request dropped, and an open socket", s)
		}

		silent.Store(false)
		wire.port("eth0").in <- ask(vip)
		pass(time.Minute)
		answers := 0
		all := wire.taken()
		for _, s := range all {
			if !s.announces {
				answers++
			}
		}
		if answers != 1 {
			t.Errorf("%d answers after the silence, want one", answers)
		}
		at := schedule(all, began, "eth0", vip)
		if len(at) != 2 || at[0] > 1001*time.Millisecond+silencePeriod || at[1]-at[0] != time.Second {
			t.Errorf("announced at %v, want the whole burst from the end of the silence", at)
		}
	})
}
