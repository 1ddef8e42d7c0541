package segment

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestOneMACWhenDeputiesEnd: the speaker of a node falls silent and stays silent until the grace ends or the node dies. A node
// that takes one of its addresses was the last one to answer with its MAC, so no two nodes ever answer with different MACs.
// This holds for clocks that differ by 4 %, and for frames that take 8 ms. The addresses of other owners do not move.
func TestOneMACWhenDeputiesEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, addrs := newWorld(drawn{t: t}, rapid.IntRange(2, 7).Draw(t, "nodes"), rapid.Uint64().Draw(t, "seed")), vips(12)
		w.delay = time.Duration(rapid.IntRange(0, 8).Draw(t, "delay ms")) * time.Millisecond
		for _, h := range w.nodes {
			h.drift = rapid.SampledFrom([]float64{1, 0.98, 1.02}).Draw(t, "drift")
			h.start()
			w.run(time.Duration(rapid.IntRange(0, 100).Draw(t, "start")) * time.Millisecond)
		}
		w.want(addrs, nil, w.nodes...)
		w.run(2*time.Second + time.Duration(rapid.IntRange(0, 100).Draw(t, "ms"))*time.Millisecond)
		before, victim := w.owners(addrs), w.owner(addrs[0])
		if victim == nil {
			w.fail("%v is answered with %v", addrs[0], w.answersFor(addrs[0]))
		}
		one := func() {
			for _, a := range addrs {
				if macs := w.answersFor(a); len(macs) > 1 || len(macs) == 0 && before[a] != victim {
					w.fail("%v is answered with %v", a, macs)
				}
			}
		}
		if rapid.Bool().Draw(t, "hangs") {
			victim.frozen = true
		} else {
			victim.kill()
		}
		if rapid.Bool().Draw(t, "its node dies") {
			w.run(time.Second+time.Duration(rapid.IntRange(0, 200).Draw(t, "death ms"))*time.Millisecond, one)
			victim.power(false)
		}
		w.run(Grace+time.Second, one)
		for _, a := range addrs {
			switch o := w.owner(a); {
			case o == nil || o == victim:
				w.fail("%v is answered with %v", a, w.answersFor(a))
			case before[a] != victim && o != before[a]:
				w.fail("%v moved from %s to %s", a, before[a].name, o.name)
			}
		}
	})
}
