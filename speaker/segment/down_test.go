package segment

import (
	"net/netip"
	"testing"
	"time"
)

// TestWhatIsGivenUpWhileTheLinkIsDownIsNotClaimedAgain: the link of the owner goes down. Meanwhile the address goes to another
// Service, which only another node can serve. When the link is back, the old claim counts only until the neighbours have
// asked for the new claims.
func TestWhatIsGivenUpWhileTheLinkIsDownIsNotClaimedAgain(t *testing.T) {
	w, addrs := began(t, 3, 1)
	a, old := addrs[0], w.owner(addrs[0])
	old.link(false)
	w.run(2 * time.Second)
	w.unwant(a)
	w.run(2 * time.Second)
	other := w.nodes[(old.number+1)%3]
	w.want([]netip.Addr{a}, nil, other)
	w.run(2 * time.Second)
	if o := w.owner(a); o != other {
		w.fail("%v is answered with %v", a, w.answersFor(a))
	}
	old.link(true)
	w.run(time.Millisecond)
	for until := w.now + 10*time.Second; w.now < until; {
		if d := w.outage(a, time.Second); d > 200*time.Millisecond {
			w.fail("%v is answered by nobody for %v", a, d)
		}
		w.run(time.Millisecond)
	}
	if o := w.owner(a); o != other {
		w.fail("%v is answered with %v", a, w.answersFor(a))
	}
}

// link sets the host's end of its cable down, or up again.
func (h *host) link(up bool) {
	h.w.isolate(h, !up)
	h.input(func(m *Machine, now Time) {
		i := m.Interface()
		i.Up = up
		m.Set(now, i)
	})
}
