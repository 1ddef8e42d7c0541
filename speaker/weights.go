package speaker

import (
	"net/netip"
	"time"
)

// weightTime is how long a node waits before it announces another link bandwidth than before: while pods roll, the number
// of endpoints on a node changes with each of them.
const weightTime = 10 * time.Second

// weights remembers which addresses have another link bandwidth than is announced. The loop owns it.
type weights struct {
	since map[netip.Addr]time.Time // since when
	next  *time.Timer              // for the first of them
}

func newWeights() weights { return weights{since: map[netip.Addr]time.Time{}, next: stopped()} }

// damp leaves the link bandwidth of an address as it was until it has differed for weightTime. Then what it is at that
// moment is announced.
func (w *weights) damp(address netip.Addr, before, after Decision, now time.Time) Decision {
	differs := false
	since, waits := w.since[address]
	due := waits && now.Sub(since) >= weightTime
	for peer, a := range after.Exports {
		was := before.Exports[peer].Bandwidth
		if was == 0 || a.Bandwidth == 0 || was == a.Bandwidth || due {
			continue // It is new, or goes, or stays.
		}
		differs = true
		a.Bandwidth = was
		after.Exports[peer] = a
	}
	switch {
	case !differs:
		delete(w.since, address)
	case !waits:
		w.since[address] = now
	}
	return after
}

// await sets the timer for the first address that is due.
func (w *weights) await(now time.Time) {
	var first time.Time
	for _, since := range w.since {
		if first.IsZero() || since.Before(first) {
			first = since
		}
	}
	if !first.IsZero() {
		w.next.Reset(first.Add(weightTime).Sub(now))
	}
}

// due lists the addresses that have waited for long enough.
func (w *weights) due(now time.Time) (all []netip.Addr) {
	for address, since := range w.since {
		if now.Sub(since) >= weightTime {
			all = append(all, address)
		}
	}
	return all
}
