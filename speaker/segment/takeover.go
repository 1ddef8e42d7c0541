package segment

import (
	"fmt"
	"time"

	"github.com/heraldlb/herald/speaker/segment/ownership"
)

// contend handles an address that no node claims. The first candidate takes it. Each candidate after it waits longer than the
// one before, in case those before it do not take the address.
func (m *Machine) contend(a *address, place int) {
	if place < 0 || m.listening || m.degraded() && (place > 0 || m.othersHearOneAnother()) {
		m.endContention(a)
		return
	}
	if _, is := m.open[a]; !is {
		m.open[a] = struct{}{}
		a.openSince = m.now
	}
	delay := placeDelay
	if a.hadDeputies {
		delay = lastDeputyTime
	}
	a.due = max(a.openSince+time.Duration(place)*delay, a.heldUntil)
	if a.checked == conflicting && a.doubtful() {
		a.due = max(a.due, a.recheck)
	}
	if m.now < a.due || !m.ticking {
		m.setDue(a.due)
		return
	}
	if a.doubtful() && a.checked != free {
		if a.checked != checking {
			a.checked = checking
			m.out.Checks = append(m.out.Checks, a.Addr)
		}
		a.due = 0
		return
	}
	m.take(a, place)
}

// endContention ends the contention for an address that has an owner, or that this node does not contend for.
func (m *Machine) endContention(a *address) {
	delete(m.open, a)
	a.due, a.hadDeputies = 0, false
}

// expectDeputies makes candidates after the first one wait longer for the addresses of a node whose speaker was silent before the
// node counted as dead. The first candidate remains the deputy until the grace has ended by its own clock, which may be later.
func (m *Machine) expectDeputies(n *neighbour) {
	for addr := range n.allClaims() {
		m.address(addr).hadDeputies = true
	}
}

// setDue makes Tick handle due addresses at this time, or earlier.
func (m *Machine) setDue(at Time) {
	if m.due == 0 || at < m.due {
		m.due = at
	}
}

// takeDue decides about the addresses that this node is due to take or to answer for.
func (m *Machine) takeDue() {
	if m.reconsider && m.now >= m.reconsidered+reconsiderPeriod+time.Duration(len(m.open))*reconsiderCost {
		m.reconsider, m.reconsidered = false, m.now
		m.touchOpen()
	}
	if m.due != 0 && m.now >= m.due {
		m.due = 0
		for _, set := range []map[*address]struct{}{m.open, m.notAnswered} {
			for a := range set {
				switch {
				case a.due == 0:
				case m.now >= a.due:
					m.touch(a)
				default:
					m.setDue(a.due)
				}
			}
		}
	}
	for a := range m.misplaced {
		if m.now-a.misplacedSince >= misplacedTime {
			m.touch(a)
		}
	}
}

// take makes this node the owner of the address.
//
// A node that hears other speakers claims with an even term above every term that it knows. A node that hears none may be
// the one that is cut off. It claims with an odd term below that of the owner, which it believes dead. When the two hear
// each other again, the address stays where it was.
//
// The answers begin later: see answersNow. The first candidate waits for one Tick. The others wait longer, because the first one
// may have got no CPU time for a while, and may take the address at the same time. A first candidate whose Standing is not
// Settled waits longer, too, because another node may count itself as the first.
func (m *Machine) take(a *address, place int) {
	m.endContention(a)
	before := a.highestTerm
	switch {
	case m.hearsOthers(a):
		a.ownTerm = (max(a.highestTerm, baseTerm) | 1) + 1
	case a.pausedTerm != 0 && a.pausedTerm == a.highestTerm:
		a.ownTerm = a.pausedTerm
	case a.highestTerm == 0:
		a.ownTerm = baseTerm + 1
	default:
		a.ownTerm = (max(a.highestTerm, 3) - 2) | 1
	}
	a.pausedTerm = 0
	a.highestTerm = max(a.highestTerm, a.ownTerm)
	a.since = m.now
	switch {
	case a.ownerLastHeard != 0:
		a.reason = fmt.Sprintf("taken over %d ms after its former owner was last heard", (m.now - a.ownerLastHeard).Milliseconds())
		m.counters.Takeovers++
		m.counters.TakeoverSum += m.now - a.ownerLastHeard
	case before == 0:
		a.reason = "it had no owner"
	default:
		a.reason = "its owner released it"
	}
	e := Event{Kind: EventTake, Addr: a.Addr, Text: a.reason}
	if a.ownerLastHeard != 0 {
		e.After = m.now - a.ownerLastHeard
	}
	a.ownerLastHeard, a.ownerMissing = 0, 0
	m.owned[a] = struct{}{}
	m.pending = append(m.pending, change{addr: a.Addr, term: a.ownTerm})
	m.event(e)
	a.answerFrom = m.now
	if self := m.resolve(a.want.Candidates).self; place > 0 || self.Standing != ownership.Settled {
		a.answerFrom += rivalTime
	}
	m.notAnswered[a] = struct{}{}
	a.due = a.answerFrom
	m.setDue(a.due)
}

// takeMisplaced takes an address from an owner that cannot serve it and does not know this, because it does not reach the API.
// This node does reach the API. The owner yields when it receives the new claim. A node that is fresh takes no address in
// this way: the owner may be handing the address over to it, and answers until this node can.
func (m *Machine) takeMisplaced(a *address, holder *claim, place int) {
	if a.ownTerm != 0 || holder == nil || place < 0 || m.listening || !m.current || a.disputed() || a.want.Candidates.Has(holder.n.node) ||
		m.resolve(a.want.Candidates).self.Standing == ownership.Fresh {
		a.misplacedSince = 0
		delete(m.misplaced, a)
		return
	}
	if a.misplacedSince == 0 {
		a.misplacedSince = m.now
		m.misplaced[a] = struct{}{}
	}
	if m.ticking && m.now-a.misplacedSince >= misplacedTime+time.Duration(place)*placeDelay {
		m.take(a, place)
		a.reason = "its owner, " + holder.n.node + ", is not a candidate any more"
		a.takenFrom = holder.n
	}
}

// rebalance hands over one address whose move is Gradual to a candidate that comes before this node.
func (m *Machine) rebalance() {
	if m.listening || m.now < m.rebalanced+moveInterval {
		return
	}
	m.rebalanced = m.now
	for _, a := range byAddress(m.owned) {
		// The candidate may not take it. The address then comes back, and stays for a while.
		if a.want == nil || !a.want.Gradual || m.now-a.since < aliveBeforeMove {
			continue
		}
		if m.better(a) {
			m.release(a, false, "another node comes first, and rebalance is Gradual")
			m.touch(a)
			return
		}
	}
}

// release gives the address up. The answers end before the release is sent.
func (m *Machine) release(a *address, notWanted bool, why string) {
	m.dropClaim(a, change{addr: a.Addr, notWanted: notWanted})
	m.event(Event{Kind: EventRelease, Addr: a.Addr, Text: why})
}

// pause gives an address up because this node receives nothing at all. No client can reach this node, but other nodes may
// hear it, and would leave the address to it. A node that hears the release takes the address. If none does, this node
// takes it again a little later, with the same term, because the segment may only have been quiet.
func (m *Machine) pause(a *address) {
	a.pausedTerm, a.heldUntil = a.ownTerm, m.now+holdOff
	m.release(a, false, "this node receives nothing")
}

func (m *Machine) yield(a *address, to *claim) {
	m.dropClaim(a, change{addr: a.Addr})
	m.event(Event{Kind: EventYield, Addr: a.Addr, Node: to.n.node})
}

func (m *Machine) dropClaim(a *address, why change) {
	m.answer(a, "", MAC{})
	a.ownTerm, a.reason, a.answerFrom, a.takenFrom = 0, "", 0, nil
	delete(m.owned, a)
	delete(m.notAnswered, a)
	m.pending = append(m.pending, why)
}

// releaseAll gives up all addresses when this speaker ends. One frame tells the neighbours.
func (m *Machine) releaseAll() {
	if len(m.owned) == 0 {
		return
	}
	for _, a := range byAddress(m.owned) {
		m.dropClaim(a, change{addr: a.Addr})
	}
	for _, a := range byAddress(m.deputised) {
		m.answer(a, "", MAC{})
	}
	m.pending = nil
	m.sendUpdate(update{from: m.claims, to: m.claims + 1, all: true})
}
