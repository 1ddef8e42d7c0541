package speaker

import (
	"net/netip"
	"time"

	"github.com/heraldlb/herald/speaker/announce"
)

// weightTime is how long a node waits before it announces a changed link bandwidth: during a rolling update the number of
// endpoints on a node changes with each pod.
const weightTime = 10 * time.Second

// weights has the times at which addresses whose link bandwidth differs from the announced one are decided again. The loop
// owns it.
type weights struct{ timetable }

func newWeights() weights { return weights{newTimetable()} }

// damp keeps the announced link bandwidth of an address until the current one has differed from it for weightTime. Then it lets
// the current one through.
func (w *weights) damp(address netip.Addr, before, after announce.Decision, now time.Time) announce.Decision {
	differs := false
	at, waits := w.at[address]
	due := waits && !now.Before(at)
	for peer, a := range after.Exports {
		was := before.Exports[peer].Bandwidth
		if was == 0 || a.Bandwidth == 0 || was == a.Bandwidth || due {
			continue // The bandwidth is new, is removed, is unchanged, or is due.
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
