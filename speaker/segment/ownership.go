package segment

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/heraldlb/herald/speaker/segment/ownership"
)

// address is what this node knows about one address on this segment.
type address struct {
	netip.Addr
	hash   uint64
	want   *ownership.Want
	claims []claim // of neighbours whose claims count

	highestTerm uint64 // the highest term that was ever claimed
	ownTerm     uint64 // the term of our claim; 0: this node does not own the address

	since          Time
	reason         string
	ownerLastHeard Time       // when its last owner was last heard; 0: it had no owner, or the owner gave it up
	ownerMissing   Time       // since when the beats of its last owner are missing; 0: it had no owner, or the owner is not dead
	openSince      Time       // since when it has no owner
	hadDeputies    bool       // its owner was silent before it lost the address: other nodes may still be its deputies
	due            Time       // when this node takes it, or begins to answer for it; 0: never
	answerFrom     Time       // the earliest time to answer for it; 0: this node answers already, or has not taken it
	takenFrom      *neighbour // the owner that this node took it from because that is not a candidate, until this node answers; nil: none
	heldUntil      Time       // no node takes it before this time
	pausedTerm     uint64     // our term when this node gave it up because it received nothing; 0: it did not

	misplacedSince Time // since when this node could take it from an owner that is not a candidate; 0: it could not

	checked  check
	recheck  Time
	stranger Time // the last sign of a stranger that uses it; 0: there was none, or the stranger is gone

	touched  bool
	answered Answer // the last Answer in an Output
	deputy   Time   // since when this node answers for another node
}

// claim is the claim of a neighbour to an address.
type claim struct {
	n    *neighbour
	term uint64
}

// address returns the state of an address, and creates it if there is none.
func (m *Machine) address(addr netip.Addr) *address {
	a := m.addresses[addr]
	if a == nil {
		a = &address{Addr: addr, hash: hashAddress(addr)}
		m.addresses[addr] = a
	}
	return a
}

// claimed records that a neighbour, or the speaker before it on the same node, claims an address.
func (m *Machine) claimed(n *neighbour, addr netip.Addr) {
	a := m.address(addr)
	term := max(n.claims[addr], n.former[addr])
	if term == 0 {
		m.unclaimed(n, a) // The neighbour has too many claims, and this one was not stored.
		return
	}
	a.sawTerm(term)
	a.undisputed()
	m.loadChanges++
	i := slices.IndexFunc(a.claims, func(c claim) bool { return c.n == n })
	if i < 0 {
		a.claims = append(a.claims, claim{n: n, term: term})
	} else {
		a.claims[i].term = term
	}
	m.touch(a)
}

func (m *Machine) unclaimed(n *neighbour, a *address) {
	a.claims = slices.DeleteFunc(a.claims, func(c claim) bool { return c.n == n })
	m.loadChanges++
	m.touch(a)
}

// sawTerm records a term. It raises the highest known term by no more than an honest claim could, so that the next owner can
// always claim a higher one.
func (a *address) sawTerm(term uint64) {
	if a.highestTerm == 0 {
		a.highestTerm = min(term, maxJump)
	}
	a.highestTerm = max(a.highestTerm, min(term, a.highestTerm+maxJump))
}

// plausible returns the highest term that counts. With a term near the end of the range a node could lock an address for
// ever, because no other node could claim a higher one. A claim far above the lowest one is ignored by all nodes that have
// seen the same claims. A claim without a rival counts, whatever its term.
func (a *address) plausible() uint64 {
	lowest := a.ownTerm
	for _, c := range a.claims {
		if lowest == 0 || c.term < lowest {
			lowest = c.term
		}
	}
	return lowest + maxJump
}

// wins reports whether the first claim wins: the higher term wins, and among equal terms the higher rank.
func (a *address) wins(term, hash, otherTerm, otherHash uint64) bool {
	return cmp.Or(cmp.Compare(term, otherTerm), cmp.Compare(mix(a.hash^hash), mix(a.hash^otherHash))) > 0
}

// holder returns the highest claim of a neighbour that counts; nil if there is none.
func (a *address) holder() *claim {
	var best *claim
	limit := a.plausible()
	for i := range a.claims {
		c := &a.claims[i]
		if c.term > limit {
			continue
		}
		if best == nil || a.wins(c.term, c.n.hash, best.term, best.n.hash) {
			best = c
		}
	}
	return best
}

// absent reports whether all neighbours that claim the address need a deputy.
func (a *address) absent() bool {
	return !slices.ContainsFunc(a.claims, func(c claim) bool { return !c.n.absent() })
}

// decideTouched decides about all addresses that an input touched, and sends the changes.
func (m *Machine) decideTouched() {
	for len(m.touched) > 0 {
		touched := m.touched
		m.touched = nil
		// The order matters: an address that is taken counts towards this node's share when the next one is decided.
		slices.SortFunc(touched, func(x, y *address) int { return x.Compare(y.Addr) })
		for _, a := range touched {
			a.touched = false
			m.decide(a)
		}
	}
	m.flush()
}

// deputies returns how many candidates answer for an absent owner. All give the same answer, so a second one does no harm.
// If the first one has died, too, and this is not known yet, the second one still answers. When the addresses may move soon,
// only the first one answers.
func (a *address) deputies() int {
	if slices.ContainsFunc(a.claims, func(c claim) bool { return c.n.ending }) {
		return 1
	}
	return 2
}

// decide applies the rule of ownership to one address: docs/l2-protocol.md, "An address, as a node sees it".
func (m *Machine) decide(a *address) {
	holder := a.holder()
	place := -1
	if a.want != nil && m.serving && !m.shadowed() && !m.replaced && !m.leaving && m.iface.Up {
		place = m.place(a, holder)
	}
	switch {
	case a.ownTerm != 0 && a.want == nil:
		m.release(a, true, "it is not to be announced on this segment any more")
	case a.ownTerm != 0 && m.replaced:
		// This node keeps it for the successor, also if another claim is higher. Deputies answer, too.
	case a.ownTerm != 0 && place < 0 && m.shadowed():
		m.release(a, false, "another interface of this node is on the same segment")
	case a.ownTerm != 0 && m.degraded() && (place > 0 || m.othersHearOneAnother()):
		// This node took it before it knew that there are other speakers.
		m.release(a, false, "others come first, and none is heard")
	case a.ownTerm != 0 && a.disputed():
		m.cede(a)
	case a.ownTerm != 0 && place < 0 && m.iface.Up:
		m.release(a, false, "this node cannot serve it")
	case a.ownTerm != 0 && holder != nil && m.yields(a, holder):
		m.yield(a, holder)
	case a.ownTerm != 0 && m.everHeard && m.cutOff && a.since < m.cutOffSince:
		m.pause(a)
	}
	m.takeMisplaced(a, holder, place)
	switch {
	case a.ownTerm != 0:
		m.endContention(a)
		if m.listening || !m.iface.Up || !m.answersNow(a) {
			m.answer(a, "", MAC{})
		} else {
			m.answer(a, m.config.Node, m.iface.MAC)
		}
	case holder != nil:
		m.endContention(a)
		a.ownerLastHeard, a.ownerMissing = 0, 0
		if place >= 0 && place < a.deputies() && a.absent() && !a.disputed() && !m.listening {
			m.answer(a, holder.n.node, holder.n.mac)
		} else {
			m.answer(a, "", MAC{})
		}
	default:
		m.answer(a, "", MAC{})
		m.contend(a, place)
	}
	if a.want == nil && a.ownTerm == 0 && len(a.claims) == 0 {
		delete(m.addresses, a.Addr)
		m.endContention(a)
	}
}

// yields reports whether this node gives up its claim. A node that listens was away, and leaves the address to the node
// that stood in for it.
func (m *Machine) yields(a *address, holder *claim) bool {
	if m.listening && !holder.n.has(flagListening) && m.ownedBeforeListening(a) {
		return true
	}
	return a.wins(holder.term, holder.n.hash, a.ownTerm, m.hash)
}

// answersNow reports whether this node answers for an address that it owns. Another node may have taken the
// address at the same time. So after a takeover this node answers only from a later Tick on, when it has read all frames that
// had arrived:
//
//   - If the claim of the other node is higher, this node has yielded by then.
//   - If it is lower, the other node may have begun to answer, even if its speaker is silent now. So this node waits until the
//     other node has yielded, but for listenTime at most.
//   - This node does not wait for a node that listens, because that node does not answer.
//   - This node does not wait for a node that is being replaced, because that node does not yield. If it has begun to answer, both
//     answer until its process ends: docs/l2-protocol.md, "Leaving".
//   - This node does not wait for an owner that is not a candidate, because that node may never yield: see takeMisplaced.
func (m *Machine) answersNow(a *address) bool {
	if a.answerFrom == 0 {
		return true
	}
	at := a.answerFrom
	limit := a.plausible()
	rival := func(c claim) bool {
		return c.term <= limit && !c.n.has(flagListening|flagReplaced) && c.n != a.takenFrom
	}
	if slices.ContainsFunc(a.claims, rival) {
		at += listenTime
	}
	if !m.ticking || m.now < at || m.tick == a.since {
		a.due = at
		m.setDue(at)
		return false
	}
	a.answerFrom, a.takenFrom = 0, nil
	delete(m.notAnswered, a)
	return true
}

// ownedBeforeListening reports whether this node owned the address before it began to listen.
func (m *Machine) ownedBeforeListening(a *address) bool { return a.since <= m.since }

// answer adds an Answer for an address to the Output, if it differs from the last one.
func (m *Machine) answer(a *address, node string, mac MAC) {
	to := Answer{Addr: a.Addr, Node: node, MAC: mac}
	own := node == m.config.Node
	if own {
		to.Announce = !m.cutOff
		to.Defend = a.want != nil && a.want.Defend
	}
	if to == a.answered || node == "" && a.answered.Node == "" {
		return
	}
	if a.deputy != 0 && (node == "" || own) {
		m.counters.Deputised += m.now - a.deputy
		a.deputy = 0
		delete(m.deputised, a)
	}
	if node != "" && !own && a.deputy == 0 {
		a.deputy = m.now
		m.deputised[a] = struct{}{}
	}
	a.answered = to
	m.out.Answers = append(m.out.Answers, to)
}

// touch marks an address, about which decideTouched decides again at the end of the current input.
func (m *Machine) touch(a *address) {
	if !a.touched {
		a.touched = true
		m.touched = append(m.touched, a)
	}
}

func (m *Machine) touchAll() {
	for _, a := range m.addresses {
		m.touch(a)
	}
}

func (m *Machine) touchClaims(n *neighbour) {
	for addr := range n.allClaims() {
		m.touch(m.address(addr))
	}
}

func (m *Machine) touchOpen() {
	for a := range m.open {
		m.touch(a)
	}
}

// touchUnserved is called when another node becomes able or unable to take an address. This changes which node takes an
// address without an owner, and which node is the deputy of an absent owner.
func (m *Machine) touchUnserved() {
	m.touchOpen()
	for a := range m.misplaced {
		m.touch(a)
	}
	for _, n := range m.sorted {
		if n.absent() {
			m.touchClaims(n)
		}
	}
}

// byAddress returns the set sorted, where the order affects what is sent.
func byAddress(set map[*address]struct{}) []*address {
	return slices.SortedFunc(maps.Keys(set), func(x, y *address) int { return x.Compare(y.Addr) })
}
