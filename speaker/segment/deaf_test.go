package segment

import (
	"testing"
	"time"
)

// TestANodeThatReceivesNothingIsReplacedAndYields: the other nodes hear it all the time.
func TestANodeThatReceivesNothingIsReplacedAndYields(t *testing.T) {
	for _, nodes := range []int{2, 3, 5} {
		w, addrs := began(t, nodes, 30)
		victim := w.owner(addrs[0])
		before := w.owners(addrs)
		for _, h := range w.nodes {
			w.cut[[2]int{h.number, victim.number}] = true
		}
		w.run(3 * time.Second)
		for _, a := range addrs {
			for _, h := range w.nodes {
				if h != victim && before[a] == victim && h.answers[a].Node == h.name {
					before[a] = h
				}
			}
			if before[a] == victim {
				w.fail("%d nodes: %v was not taken from %s", nodes, a, victim.name)
			}
		}
		w.isolate(victim, false)
		w.run(500 * time.Millisecond)
		for _, a := range addrs {
			if now := w.owner(a); now != before[a] {
				w.fail("%d nodes: %v moved, and is answered with %v", nodes, a, w.answersFor(a))
			}
		}
	}
}

// TestAQuietSegment: only the two speakers ever send frames, and one of them dies.
func TestAQuietSegment(t *testing.T) {
	w, addrs := began(t, 2, 30)
	victim := w.owner(addrs[0])
	victim.power(false)
	w.run(2 * time.Second)
	for _, a := range addrs {
		if o := w.owner(a); o == nil || o == victim {
			w.fail("%v is answered with %v", a, w.answersFor(a))
		}
	}
}

// TestMulticastIsFilteredLater: while multicast is filtered, the speakers continue by unicast, and no address moves.
func TestMulticastIsFilteredLater(t *testing.T) {
	w, addrs := began(t, 4, 30)
	before := w.owners(addrs)
	w.noMulticast = true
	w.run(2 * time.Second)
	suspicions := func() (n uint64) {
		for _, h := range w.nodes {
			n += h.m.Counters().Events[EventSuspect]
		}
		return n
	}
	noticed := suspicions()
	w.run(3 * Grace)
	if n := suspicions() - noticed; n > 0 {
		w.fail("%d suspicions after it was noticed", n)
	}
	w.noMulticast = false
	w.delay = 0 // Frames stay in order.
	w.run(Grace + time.Second)
	w.sent = func(h *host, f Frame) {
		if f.To != (MAC{}) {
			w.fail("%s goes on by unicast", h.name)
		}
	}
	w.run(3 * time.Second)
	for _, a := range addrs {
		if w.owner(a) != before[a] {
			w.fail("%v is answered with %v", a, w.answersFor(a))
		}
	}
	for _, h := range w.nodes {
		if h.m.State() != Joined {
			w.fail("%s is %s", h.name, h.m.State())
		}
	}
}

// TestOthersAreExpectedLate: all nodes take the addresses while they know of no other speakers. When they know of them, all
// but one give each address up.
func TestOthersAreExpectedLate(t *testing.T) {
	w, addrs := newWorld(t, 4, 1), vips(30)
	for _, h := range w.nodes {
		w.isolate(h, true)
	}
	for _, h := range w.nodes {
		h.start()
	}
	w.want(addrs, nil, w.nodes...)
	w.run(4 * time.Second)
	for _, h := range w.nodes {
		var expected []Expected
		for _, o := range w.nodes {
			if o != h {
				expected = append(expected, Expected{Node: o.name, MAC: o.mac, Interface: "eth0"})
			}
		}
		h.input(func(m *Machine, now Time) { m.Expect(now, expected) })
	}
	w.run(time.Second)
	for _, a := range addrs {
		if macs := w.answersFor(a); len(macs) != 1 {
			w.fail("%v is answered with %v", a, macs)
		}
	}
}

// TestASpeakerThatGetsNoProcessorTakesNobodyForDead: while it waits, it sends no questions and reads no answers.
func TestASpeakerThatGetsNoProcessorTakesNobodyForDead(t *testing.T) {
	w, addrs := began(t, 3, 30)
	silent := w.owner(addrs[0])
	silent.kill() // Its kernel still answers.
	w.run(time.Second)
	for range 20 {
		for _, h := range w.nodes {
			h.frozen = h != silent
		}
		w.run(maxGap - 30*time.Millisecond)
		for _, h := range w.nodes {
			if h != silent {
				h.goOn()
			}
		}
		w.run(70 * time.Millisecond)
	}
	for _, h := range w.nodes {
		for _, e := range h.events {
			if e.Kind == EventDead {
				w.fail("%s took %s for dead %v after its last sign", h.name, e.Node, e.After)
			}
		}
	}
}

// TestTheOnlyNeighbourIsSilentForLong: the kernel of the neighbour answers all the time. So the other node does receive
// frames, and keeps its addresses.
func TestTheOnlyNeighbourIsSilentForLong(t *testing.T) {
	w, addrs := began(t, 2, 30)
	before, victim := w.owners(addrs), w.owner(addrs[0])
	victim.kill()
	w.run(Grace+2*time.Second, func() {
		for _, a := range addrs {
			if o := w.owner(a); before[a] != victim && o != before[a] {
				w.fail("%v is answered with %v", a, w.answersFor(a))
			}
		}
	})
	for _, a := range addrs {
		if o := w.owner(a); o == nil || o == victim {
			w.fail("%v is answered with %v", a, w.answersFor(a))
		}
	}
}
