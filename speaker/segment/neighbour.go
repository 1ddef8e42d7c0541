package segment

import (
	"cmp"
	"iter"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"time"
)

// status says whether a neighbour is alive, as far as this node knows.
//
//	          verified Hello           no beat for 1.5 periods
//	unknown ----------------> alive ---------------------------> suspected
//	                            ^    <---------------------------    |  |
//	                            |     a beat, also a forwarded one   |  | no answer from its kernel
//	                            |                                    |  | within the window
//	                     a beat |          its kernel answers        |  v
//	                            +------- silent <--------------------+ dead
//	                                       |                            ^
//	                                       +----------------------------+
//	                                         its kernel stops answering, or 10 s pass
//
// A beat of a dead neighbour makes it alive. A Hello that says that its sender is being replaced makes the sender silent at once, and
// one that says that its sender leaves removes it.
type status uint8

const (
	alive     status = iota
	suspected        // no beat came in time, and its kernel has not answered yet
	silent           // its kernel answers and its speaker does not: a deputy answers for it
	dead
)

// neighbour is one boot of another speaker on the segment.
type neighbour struct {
	node     string
	hash     uint64
	boot     uint64
	mac      MAC
	id       ID
	window   window
	verifies bucket // of verifications of frames in its name
	said     hello  // its last Hello

	index       uint32 // of the last beat
	secret      secret // of the last beat
	history     uint32 // of the last 32 beats: a bit is set for each that arrived
	heard       Time   // since then beats may be missing: lastSign, or the later time at which this node could hear again
	lastSign    Time   // the last sign of life of its speaker
	since       Time   // when it became alive
	hearsMe     bool   // it has said that it hears this boot
	welcomes    int    // how many of our next Hellos say that we hear it
	unicast     Time   // until then frames to all go to it by unicast, too, because it misses them
	forwarded   Time   // when its beat was last forwarded
	beatSentFor Time   // when our own beat was last sent for nodes that miss it
	status      status
	suspect     Time // since when it is suspected
	answered    Time // when its kernel last answered
	probed      Time // when its kernel was last asked
	asks        int  // questions to its kernel since its last sign of life or answer
	ending      bool // its addresses may move soon: see Machine.detectEnding

	claims  map[netip.Addr]uint64 // terms
	version uint32                // of claims
	latest  uint32                // the latest version that its frames mention
	sync    map[uint16][]change   // pages of latest that have arrived
	syncOf  uint32
	asked   Time

	// dropped are the claims that the last list of pages left out. A late update may say why they were released.
	dropped map[netip.Addr]bool
	// former are the claims of the speaker before this one on the same node. They are kept for this one until formerUntil.
	former      map[netip.Addr]uint64
	formerUntil Time
	formerSent  Time
}

func (n *neighbour) interval() time.Duration { return time.Duration(n.said.period) * time.Millisecond }

// silenceOf returns how long the next beat of a neighbour that sends one in each period may be missing before it is suspected.
func silenceOf(period time.Duration) time.Duration { return period * 3 / 2 }

func (n *neighbour) has(flag uint8) bool { return n.said.flags&flag != 0 }

// living reports whether the claims of the neighbour count: it is not dead.
func (n *neighbour) living() bool { return n.status != dead }

// eligible reports whether the neighbour can take an address, now or after it has listened.
func (n *neighbour) eligible() bool {
	return n.status <= suspected && n.has(flagServing) && !n.has(flagReplaced|flagLeaving)
}

// absent reports whether a deputy has to answer for the neighbour.
func (n *neighbour) absent() bool { return n.status == silent || n.living() && n.has(flagListening) }

// lossy reports whether more than a tenth of the neighbour's last beats were lost.
func (n *neighbour) lossy() bool { return bits.OnesCount32(n.history) < 29 }

func (n *neighbour) hasAddress() bool { return len(n.said.prefixes) > 0 }

// hear records a sign of life of a neighbour's speaker, and when it came.
func (m *Machine) hear(n *neighbour, came Time) {
	n.heard, n.lastSign, m.lastHeard = max(n.heard, came), max(n.lastSign, came), max(m.lastHeard, came)
}

// meet adds a neighbour whose boot is heard for the first time. It keeps the claims of the previous speaker of that node
// for the new one.
func (m *Machine) meet(e envelope) *neighbour {
	n := &neighbour{
		node: e.node, hash: hashNode(e.node), boot: e.boot, mac: e.mac,
		id:     idOf(e.cluster, e.boot, e.node, e.mac),
		status: alive, heard: m.now, lastSign: m.now, since: m.now, history: ^uint32(0),
		claims: map[netip.Addr]uint64{}, verifies: bucket{rate: 500, size: 1000},
	}
	if w := m.ended[source{n.node, n.mac}]; w.boot == n.boot {
		n.window = w.window
	}
	if before := m.neighbours[e.node]; before != nil {
		if before.living() {
			n.former = map[netip.Addr]uint64{}
			maps.Copy(n.former, before.former)
			maps.Copy(n.former, before.claims)
			n.formerUntil = m.now + maxListening + formerTime
			m.ignoreClaims(before)
		}
		m.remove(before)
	}
	m.neighbours[n.node], m.byID[n.id] = n, n
	i, _ := slices.BinarySearchFunc(m.sorted, n.node, byNode)
	m.sorted = slices.Insert(m.sorted, i, n)
	m.statuses[alive]++
	m.scheduleDetection(n)
	for a := range n.former {
		m.claimed(n, a)
	}
	m.everHeard = true
	m.generation++
	m.count()
	m.updateCutOff()
	m.toWelcome(n, 3)
	m.event(Event{Kind: EventHeard, Node: n.node})
	return n
}

// setStatus changes the status of a neighbour.
func (m *Machine) setStatus(n *neighbour, to status) {
	from := n.status
	if from == to {
		return
	}
	n.status, n.ending = to, false
	m.statuses[from]--
	m.statuses[to]++
	m.loadChanges++
	m.count()
	after := m.now - n.lastSign
	switch to {
	case alive:
		if from == dead {
			n.since = m.now
			for addr := range n.claims {
				m.claimed(n, addr)
			}
			m.event(Event{Kind: EventHeard, Node: n.node})
		}
		if from == silent {
			m.event(Event{Kind: EventHeard, Node: n.node})
		}
	case suspected:
		n.suspect, n.probed, n.asks = m.now, 0, 0
		if m.statuses[alive] == 0 {
			m.receivedBefore = notCounted
		}
		m.event(Event{Kind: EventSuspect, Node: n.node, After: after})
		m.send(MAC{}, suspect{id: n.id, chain: n.said.chain, index: n.index}.encode())
	case silent:
		m.event(Event{Kind: EventSilent, Node: n.node, After: after})
	case dead:
		m.event(Event{Kind: EventDead, Node: n.node, After: after})
		m.ignoreClaims(n)
		m.recordMissing(n)
		if from == silent {
			m.expectDeputies(n)
		}
		n.former = nil
	}
	m.scheduleDetection(n)
	m.updateCutOff()
	m.touchClaims(n)
	m.touchUnserved()
}

// allClaims yields the addresses that a neighbour or its predecessor claims, some of them twice.
func (n *neighbour) allClaims() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for _, claims := range []map[netip.Addr]uint64{n.claims, n.former} {
			for addr := range claims {
				if !yield(addr) {
					return
				}
			}
		}
	}
}

// ignoreClaims makes this node ignore a neighbour's claims from now on, so that other nodes may take its addresses. The claims stay
// stored, because the neighbour may come back.
func (m *Machine) ignoreClaims(n *neighbour) {
	for addr := range n.allClaims() {
		a := m.address(addr)
		a.ownerLastHeard = max(a.ownerLastHeard, n.lastSign)
		m.unclaimed(n, a)
	}
}

// recordMissing records, for each address of a neighbour that seems to be dead, since when the neighbour's beats are missing. It may be
// this node, and not the neighbour, that has been cut off since then: see hearsOthers.
func (m *Machine) recordMissing(n *neighbour) {
	since := n.lastSign + silenceOf(fastPeriod)
	for addr := range n.allClaims() {
		a := m.address(addr)
		a.ownerMissing = max(a.ownerMissing, since)
	}
}

// remove forgets a neighbour.
func (m *Machine) remove(n *neighbour) {
	delete(m.neighbours, n.node)
	delete(m.byID, n.id)
	m.sorted = slices.DeleteFunc(m.sorted, func(o *neighbour) bool { return o == n })
	m.newcomers = slices.DeleteFunc(m.newcomers, func(o *neighbour) bool { return o == n })
	m.statuses[n.status]--
	if len(m.ended) > maxEnded {
		clear(m.ended)
	}
	m.ended[source{n.node, n.mac}] = ended{boot: n.boot, window: n.window}
	m.generation++
	m.count()
	if m.living == 0 && n.living() {
		// It left, or is no longer part of the cluster. This does not mean that this node is cut off.
		m.received, m.receivedBefore = max(m.received, 1), 0
	}
	m.updateCutOff()
	m.touchUnserved()
}

// source is an interface of a node. Each numbers its frames by itself.
type source struct {
	node string
	mac  MAC
}

// maxEnded bounds the number of neighbours that were removed and are remembered.
const maxEnded = 8192

// ended is what remains of a neighbour that was removed, so that its frames cannot be replayed.
type ended struct {
	boot   uint64
	window window
}

// replays reports whether a frame of the neighbour arrived before it was removed.
func (o ended) replays(e envelope) bool { return o.boot == e.boot && o.window.seen(e.sequence) }

// count updates living, the number of neighbours whose claims count.
func (m *Machine) count() {
	m.living = m.statuses[alive] + m.statuses[suspected] + m.statuses[silent]
}

func byNode(n *neighbour, node string) int { return cmp.Compare(n.node, node) }
