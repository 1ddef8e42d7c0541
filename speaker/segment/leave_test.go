package segment

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/heraldlb/herald/speaker/segment/ownership"
)

// TestTheLastNeighbourLeaves: the node that remains keeps answering for its own addresses, and takes those of the other.
func TestTheLastNeighbourLeaves(t *testing.T) {
	for _, c := range []struct {
		name  string
		leave func(gone, stays *host)
	}{
		{"it stops", func(gone, _ *host) { gone.input(func(m *Machine, now Time) { m.Leave(now, false) }) }},
		{"it is no longer part of the cluster", func(gone, stays *host) {
			stays.input(func(m *Machine, now Time) { m.Forget(now, gone.name) })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, addrs := began(t, 2, 30)
			gone, stays := w.nodes[0], w.nodes[1]
			before := w.owners(addrs)
			c.leave(gone, stays)
			gone.kill()
			w.run(3*time.Second, func() {
				for _, a := range addrs {
					if before[a] == stays && stays.answers[a].Node != stays.name {
						w.fail("%v of %s is not answered", a, stays.name)
					}
				}
			})
			for _, a := range addrs {
				if w.owner(a) != stays {
					w.fail("%v is answered with %v", a, w.answersFor(a))
				}
			}
		})
	}
}

// TestALeaveIsRepeated: the first frames are lost, and the addresses move at once nevertheless.
func TestALeaveIsRepeated(t *testing.T) {
	w, addrs := began(t, 3, 20)
	victim := w.owner(addrs[0])
	w.isolate(victim, true)
	victim.input(func(m *Machine, now Time) { m.Leave(now, false) })
	w.run(leavePeriod)
	w.isolate(victim, false)
	victim.input(func(m *Machine, _ Time) { m.Repeat() })
	w.run(leavePeriod)
	victim.input(func(m *Machine, _ Time) { m.Repeat() })
	victim.kill()
	for _, a := range addrs {
		if gap := w.outage(a, time.Second); gap > 5*time.Millisecond {
			w.fail("%v had no owner for %v", a, gap)
		}
	}
	for _, h := range w.nodes {
		if h != victim && h.m.neighbours[victim.name] != nil {
			w.fail("%s knows %s again", h.name, victim.name)
		}
	}
}

// TestASpeakerAnswersUntilItsSuccessorIsAnnounced: there is no moment without an answer, and one MAC.
func TestASpeakerAnswersUntilItsSuccessorIsAnnounced(t *testing.T) {
	w, addrs := began(t, 3, 20)
	victim := w.owner(addrs[0])
	before := w.owners(addrs)
	same := func() {
		for _, a := range addrs {
			if macs := w.answersFor(a); len(macs) != 1 || macs[0] != before[a].mac {
				w.fail("%v is answered with %v, want %v", a, macs, before[a].mac)
			}
		}
	}
	victim.input(func(m *Machine, now Time) { m.Leave(now, true) })
	same()
	w.run(3*leavePeriod, same)
}

// TestAReplacedSpeakerDoesNotYieldAndIsNotWaitedFor: the first candidate was stalled, and claims an address that the second one has
// taken. The claim of the first one is higher, but the second one is just being replaced. Both answer until its process ends, and
// then the first one answers alone. A wait would leave the address without an answer if the process ended during that time.
func TestAReplacedSpeakerDoesNotYieldAndIsNotWaitedFor(t *testing.T) {
	w, addrs := began(t, 3, 1)
	w.delay = 0 // Frames stay in order.
	a, owner := addrs[0], w.owner(addrs[0])
	var first, second *host
	for _, h := range w.nodes {
		switch {
		case h == owner:
		case w.placeWithout(h, owner, a) == 0:
			first = h
		default:
			second = h
		}
	}
	answered := func(want ...MAC) {
		t.Helper()
		if macs := w.answersFor(a); !slices.Equal(macs, want) {
			w.fail("%v is answered with %v, want %v", a, macs, want)
		}
	}
	first.frozen = true
	owner.suffer("unhealthy")
	w.run(time.Microsecond)
	release := first.waiting[0]
	first.frozen, first.waiting = false, first.waiting[1:]
	release()
	first.frozen = true
	w.run(placeDelay + 2*rivalTime)
	answered(second.mac)
	second.input(func(m *Machine, now Time) { m.Leave(now, true) })
	first.m.Tick(first.clock())
	first.drain()
	first.goOn()
	w.run(2*leavePeriod, func() {
		if second.answers[a].Node != second.name {
			w.fail("%s, which is being replaced, has yielded %v", second.name, a)
		}
	})
	both := []MAC{first.mac, second.mac}
	slices.SortFunc(both, func(x, y MAC) int { return bytes.Compare(x[:], y[:]) })
	answered(both...)
	second.kill()
	w.run(10 * time.Millisecond)
	alone := func() { answered(first.mac) }
	w.run(100*time.Millisecond, alone)
	second.start()
	w.run(Grace+time.Second, alone)
}

// TestLongLists: a speaker that starts gets lists of many pages, which are not sent at once, before its time to listen is over.
func TestLongLists(t *testing.T) {
	w, _ := began(t, 3, 9000)
	late := w.nodes[0]
	late.kill()
	w.run(Grace + time.Second)
	pages := 0
	w.sent = func(_ *host, f Frame) {
		if kindOf(f) == kindPage {
			pages++
		}
	}
	late.start()
	w.run(listenTime + 200*time.Millisecond)
	if late.m.listening {
		w.fail("it still listens")
	}
	for _, n := range late.m.sorted {
		if o := w.nodes[n.mac[5]]; n.version != o.m.claims || len(n.claims) != len(o.m.owned) || len(n.claims) < pagesAtOnce*82 {
			t.Errorf("%d claims of %s are known, it has %d", len(n.claims), n.node, len(o.m.owned))
		}
	}
	if pages > 300 {
		t.Errorf("%d pages were sent", pages)
	}
}

// TestASegmentIsMadeAnew: an interface disappears without a word, and comes back with the same MAC address before its node is
// taken for dead, or later. The claims of the node before that do not count any more.
func TestASegmentIsMadeAnew(t *testing.T) {
	for _, away := range []time.Duration{50 * time.Millisecond, time.Second} {
		w, addrs := began(t, 3, 30)
		victim := w.owner(addrs[0])
		victim.kill()
		w.run(away)
		victim.open()
		w.run(3 * time.Second)
		more := vips(60)[30:]
		w.want(more, nil, w.nodes...)
		w.run(3 * time.Second)
		for _, a := range append(addrs, more...) {
			if w.owner(a) == nil {
				w.fail("after %v: %v is answered with %v", away, a, w.answersFor(a))
			}
		}
		for _, h := range w.nodes {
			n := h.m.neighbours[victim.name]
			if h == victim {
				continue
			}
			if n == nil || n.version != victim.m.claims || len(n.claims) != len(victim.m.owned) {
				w.fail("after %v: %s has other claims of %s than it has", away, h.name, victim.name)
			}
		}
	}
}

// TestTheOtherInterfaceSpeaksUp: the interface with the lower MAC address leaves the segment. Its frames had higher numbers than
// those of the other one.
func TestTheOtherInterfaceSpeaksUp(t *testing.T) {
	w, addrs := newWorld(t, 3, 4), vips(30)
	first, second := w.nodes[0], w.nodes[1]
	second.name = first.name
	for _, h := range w.nodes {
		h.start()
	}
	first.offset = second.offset + time.Minute // Its numbers begin at a later time.
	first.start()
	second.boot = first.boot // Both interfaces belong to one process.
	second.open()
	w.want(addrs, nil, w.nodes...)
	w.run(3 * time.Second)
	if s := second.m.State(); s != Duplicate {
		t.Fatalf("the second is %s", s)
	}
	first.input(func(m *Machine, now Time) { m.Leave(now, false) })
	first.kill()
	w.run(3 * twinTime)
	for _, a := range addrs {
		if w.owner(a) == nil {
			w.fail("%v is answered with %v", a, w.answersFor(a))
		}
	}
	if n := w.nodes[2].m.neighbours[first.name]; n == nil || n.mac != second.mac {
		w.fail("the other node does not hear the second interface")
	}
}

// TestAHealAmongStrangers: beats of senders that do not exist cannot keep two owners from hearing of each other after a split.
func TestAHealAmongStrangers(t *testing.T) {
	w, addrs := began(t, 4, 40)
	w.cut[[2]int{0, 2}], w.cut[[2]int{2, 0}], w.cut[[2]int{0, 3}], w.cut[[2]int{3, 0}] = true, true, true, true
	w.cut[[2]int{1, 2}], w.cut[[2]int{2, 1}], w.cut[[2]int{1, 3}], w.cut[[2]int{3, 1}] = true, true, true, true
	w.run(20 * time.Second)
	i := 0
	flood := func(d time.Duration) {
		for end := w.now + d; w.now < end; {
			for _, h := range w.nodes {
				for range 10 {
					i++
					h.deliver(MAC{2, byte(i >> 16), byte(i >> 8), byte(i)}, beat{id: ID(i)}.encode())
				}
			}
			w.run(time.Millisecond)
		}
	}
	flood(10 * time.Second)
	clear(w.cut)
	flood(time.Second)
	for _, a := range addrs {
		if w.owner(a) == nil {
			w.fail("%v is answered with %v a second after the split", a, w.answersFor(a))
		}
	}
}

// TestCandidatesThatComeAndGo: what is computed for candidates is forgotten with them.
func TestCandidatesThatComeAndGo(t *testing.T) {
	w, addrs := began(t, 3, 10)
	for range 1000 {
		w.want(addrs[:1], nil, w.nodes...)
		w.run(time.Millisecond)
	}
	for _, h := range w.nodes {
		if n := len(h.m.resolved); n > 200 {
			t.Errorf("%s keeps %d sets of candidates", h.name, n)
		}
	}
}

// TestNobodyIsToldOfAPredecessorLater: a node that was broken into cannot make another one claim addresses.
func TestNobodyIsToldOfAPredecessorLater(t *testing.T) {
	w, addrs := began(t, 3, 10)
	before := w.owners(addrs)
	attacker := w.nodes[2]
	for _, target := range w.nodes[:2] {
		var all []change
		for _, a := range addrs {
			all = append(all, change{addr: a, term: baseTerm + 100})
		}
		target.deliver(attacker.mac, attacker.forge(kindFormer, nil, former{boot: target.boot, entries: all}.encode))
	}
	w.run(time.Second)
	for _, a := range addrs {
		if w.owner(a) != before[a] {
			w.fail("%v moved to %v", a, w.owner(a))
		}
	}
}

// TestAMoveThatIsNotTakenIsNotRepeatedAtOnce: a preferred node does not know an address, so the owner that gives it up takes it
// again, and keeps it for a while.
func TestAMoveThatIsNotTakenIsNotRepeatedAtOnce(t *testing.T) {
	w, addrs := newWorld(t, 3, 7), vips(1)
	preferred := w.nodes[0]
	for _, h := range w.nodes {
		h.start()
	}
	w.wantPreferring(addrs, preferred.name, func(want *ownership.Want) { want.Gradual = true }, w.nodes...)
	preferred.wants = map[netip.Addr]*ownership.Want{}
	preferred.input(func(m *Machine, now Time) { m.Want(now, addrs[0], nil) })
	w.run(2 * time.Second)
	releases := 0
	w.witness = func(_ *host, e Event) {
		if e.Kind == EventRelease {
			releases++
		}
	}
	w.run(2*aliveBeforeMove + 10*time.Second)
	if releases < 1 || releases > 3 {
		w.fail("%d releases in %v", releases, 2*aliveBeforeMove+10*time.Second)
	}
}
