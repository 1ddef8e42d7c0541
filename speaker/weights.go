package speaker

import (
	"net/netip"
	"time"

	"github.com/heraldlb/herald/speaker/announce"
)

// weightTime is how long a node waits before it announces another link bandwidth than before: while pods roll, the number
// of endpoints on a node changes with each of them.
const weightTime = 10 * time.Second

// weights has the addresses that have another link bandwidth than is announced looked at again. The loop owns it.
type weights struct{ timetable }

func newWeights() weights { return weights{newTimetable()} }

// damp leaves the link bandwidth of an address as it was until it has differed for weightTime. Then what it is at that
// moment is announced.
func (w *weights) damp(address netip.Addr, before, after announce.Decision, now time.Time) announce.Decision {
	differs := false
	at, waits := w.at[address]
	due := waits && !now.Before(at)
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
		w.set(address, time.Time{})
	case !waits:
		w.set(address, now.Add(weightTime))
	}
	return after
}
