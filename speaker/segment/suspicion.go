package segment

import (
	"slices"
	"time"
)

// detectFailures finds neighbours whose beats have been missing for too long: docs/l2-protocol.md, "A neighbour" and "A quarter of a second".
func (m *Machine) detectFailures() {
	if m.now < m.detectAt {
		return
	}
	m.detectAt = m.now + slowPeriod
	for _, n := range slices.Clone(m.sorted) {
		m.detectFailure(n)
		m.scheduleDetection(n)
	}
}

func (m *Machine) detectFailure(n *neighbour) {
	if n.former != nil && m.now >= n.formerUntil {
		m.dropFormer(n)
	}
	if n.status == alive && m.now-n.heard > silenceOf(n.interval()) {
		m.setStatus(n, suspected)
	}
	switch n.status {
	case suspected:
		if m.now-n.suspect >= m.windowOf(n) && n.unanswered() {
			m.setStatus(n, dead)
			return
		}
		m.probe(n, askPeriod)
	case silent:
		switch {
		case m.now-n.lastSign > Grace:
			m.setStatus(n, dead)
		case m.now-max(n.answered, n.heard) > silentAskPeriod+m.windowOf(n) && n.unanswered():
			m.setStatus(n, dead)
		default:
			m.probe(n, silentAskPeriod)
			m.detectEnding(n)
		}
	}
}

// detectEnding records whether the addresses of a node whose speaker is silent may move soon, because the grace ends or because
// the kernel of the node has left a question without an answer. From then on only the first candidate is the deputy, and
// the same candidate takes the addresses. The other nodes learn a moment later that the addresses have moved.
// Until they learn it, none of them answers with the old MAC.
//
// Each node counts the grace by its own clock, from the last sign of life that it received. lastDeputyTime is long enough even
// if a node lost three beats, or if the clocks differ by 4 %. docs/l2-protocol.md, "The last deputy", has the whole rule; its other
// parts are in deputies, expectDeputies and contend.
func (m *Machine) detectEnding(n *neighbour) {
	asked := n.asks > 1 || n.asks == 1 && m.now-n.probed >= askPeriod
	if ending := asked || m.now-n.lastSign > Grace-lastDeputyTime; ending != n.ending {
		n.ending = ending
		m.touchClaims(n)
	}
}

// scheduleDetection makes detectFailures run when the status of a neighbour may change. A beat that arrives before then postpones
// the change. It does not postpone the run, which would take work for each beat: on a large segment beats are many, and runs are
// few.
func (m *Machine) scheduleDetection(n *neighbour) {
	switch n.status {
	case alive:
		m.detectAt = min(m.detectAt, n.heard+silenceOf(n.interval())+1)
	case suspected:
		if n.hasAddress() {
			m.detectAt = min(m.detectAt, n.probed+askPeriod)
		}
		if end := n.suspect + m.windowOf(n); m.now < end {
			m.detectAt = min(m.detectAt, end)
		}
	case silent:
		m.detectAt = min(m.detectAt, m.nextQuestion(n))
	}
	if n.former != nil {
		m.detectAt = min(m.detectAt, n.formerUntil)
	}
}

// nextQuestion returns when to examine a silent neighbour: once after the last question to its kernel, to see whether the kernel
// has answered, and again when the next question is due.
func (m *Machine) nextQuestion(n *neighbour) Time {
	switch {
	case !n.hasAddress():
		return m.now + silentAskPeriod
	case n.asks == 1 && !n.ending:
		return n.probed + askPeriod
	}
	return n.probed + silentAskPeriod
}

func (m *Machine) windowOf(n *neighbour) time.Duration {
	switch {
	case !n.hasAddress():
		return blindWindow
	case n.lossy():
		return lossyWindow
	}
	return deathWindow
}

// enoughAsked is how many questions to the kernel of a node must remain without an answer before the node counts as dead.
// Time alone proves nothing: a speaker that gets no CPU time asks nothing while it waits.
const enoughAsked = 3

// unanswered reports whether the kernel of the node has left enough questions without an answer, if it can be asked.
func (n *neighbour) unanswered() bool { return !n.hasAddress() || n.asks >= enoughAsked }

// probe asks the kernel of a neighbour for the first of the neighbour's own addresses.
func (m *Machine) probe(n *neighbour, period time.Duration) {
	if !n.hasAddress() || n.probed != 0 && m.now-n.probed < period {
		return
	}
	n.probed = m.now
	n.asks++
	m.out.Probes = append(m.out.Probes, Probe{Addr: n.said.prefixes[0].Addr(), MAC: n.mac})
	// Ask its speaker, too. It may be alive, and only multicast may be lost, in both directions.
	m.send(n.mac, suspect{id: n.id, chain: n.said.chain, index: n.index}.encode())
}

// kernelAnswered records that the node of a neighbour is alive.
func (m *Machine) kernelAnswered(n *neighbour) {
	n.answered, n.asks, m.lastHeard = m.now, 0, m.now
	if n.status == suspected {
		m.setStatus(n, silent)
	}
}

// receiveSuspect helps a speaker that has not heard another one, the suspect. If the suspect is this node, it sends our own
// beat. Otherwise it forwards the last beat of the suspect that we heard. If we have not heard the suspect either, it sends
// our own beat. From this the other speaker learns that it is not itself cut off.
func (m *Machine) receiveSuspect(from MAC, r *reader) Drop {
	s, err := r.suspect()
	if err != nil {
		return DropMalformed
	}
	if s.id == m.id {
		if m.now-m.lastBeat >= suspectedBeatPeriod {
			m.nextBeat = m.now
			for _, n := range m.sorted {
				if n.mac == from {
					m.alsoByUnicast(n)
				}
			}
		}
		return ""
	}
	n := m.byID[s.id]
	if n == nil || n.said.chain != s.chain {
		return ""
	}
	if n.index <= s.index {
		if soon := max(m.now, m.lastBeat+suspectedBeatPeriod); soon < m.nextBeat && m.now-n.beatSentFor >= askPeriod {
			n.beatSentFor = m.now // On a large segment all nodes suspect it at once.
			if m.amongFirst(n, 8) {
				m.nextBeat = soon
			}
		}
		return ""
	}
	if m.now-n.heard > 2*n.interval() || m.now-n.forwarded < askPeriod || !m.forwards.allow(m.now) || !m.amongFirst(n, 8) {
		return ""
	}
	n.forwarded = m.now
	m.send(from, beat{id: n.id, chain: n.said.chain, index: n.index, secret: n.secret, state: n.said.state, claims: n.latest}.encode())
	return ""
}

// amongFirst reports whether this node is one of the few that say what they heard of another node. On a segment of a
// thousand nodes, a thousand answers would be a burst.
func (m *Machine) amongFirst(of *neighbour, limit int) bool {
	if m.living <= limit {
		return true
	}
	mine, before := mix(of.hash^m.hash), 0
	for _, n := range m.sorted {
		if n != of && n.status == alive && mix(of.hash^n.hash) > mine {
			before++
		}
	}
	return before < limit
}
