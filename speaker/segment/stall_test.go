package segment

import (
	"net/netip"
	"testing"
	"time"
)

// TestACandidateThatWasStalledHearsWhoTookTheAddress: the owner releases an address, and one of the two candidates gets no
// processor for a while. When it goes on, it finds the release and the other one's claim together. It must not take the
// address because of the one before it has read the other.
func TestACandidateThatWasStalledHearsWhoTookTheAddress(t *testing.T) {
	for _, test := range []struct {
		name  string
		place int // of the candidate that is stalled
		read  int // how many frames it read before
	}{
		{"the first one, before it reads the release", 0, 0},
		{"the first one, when it has read the release", 0, 1},
		{"the second one, before it reads the release", 1, 0},
		{"the second one, when it has read the release", 1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, addrs := began(t, 3, 1)
			w.delay = 0 // Frames stay in order.
			a, owner := addrs[0], w.owner(addrs[0])
			var stalled, other *host
			for _, h := range w.nodes {
				switch {
				case h == owner:
				case w.placeWithout(h, owner, a) == test.place:
					stalled = h
				default:
					other = h
				}
			}
			w.witness = func(h *host, e Event) {
				if h == stalled && e.Kind == EventTake {
					w.fail("%s took %v, which %s had taken", h.name, e.Addr, other.name)
				}
			}
			stalled.frozen = true
			owner.suffer("unhealthy")
			w.run(time.Microsecond)
			stalled.frozen = false
			for range test.read {
				first := stalled.waiting[0]
				stalled.waiting = stalled.waiting[1:]
				first()
			}
			stalled.frozen = true
			w.run(rankDelay + 10*time.Millisecond)
			if o := w.owner(a); o != other {
				w.fail("%v is answered with %v", a, w.answersFor(a))
			}
			stalled.goOn()
			w.run(time.Second)
			if o := w.owner(a); o != other {
				w.fail("%v is answered with %v", a, w.answersFor(a))
			}
		})
	}
}

// placeWithout is how many hosts come before this one for an address, if the owner is not counted.
func (w *world) placeWithout(h, owner *host, a netip.Addr) (place int) {
	for _, o := range w.nodes {
		if o != h && o != owner && mix(hashAddress(a)^hashNode(o.name)) > mix(hashAddress(a)^hashNode(h.name)) {
			place++
		}
	}
	return place
}
