package segment

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/heraldlb/herald/speaker/segment/ownership"
)

// address is what is known of one address on this segment.
type address struct {
	netip.Addr
	hash   uint64
	want   *ownership.Want
	claims []claim // of neighbours whose claims count

	seen uint64 // the highest term that was ever claimed
	own  uint64 // our term; 0: not ours

	since  Time
	reason string
	lost   Time       // when its last owner was last heard; 0: it had none, or gave it up
	missed Time       // since when the beats of its last owner have been missed; 0: it had none, or that one is not dead
	opened Time       // since when it has no owner
	calm   bool       // its owner fell silent before it lost it: others may still be its deputies
	due    Time       // when we take it, or begin to answer for it; 0: not at all
	begin  Time       // when we may answer for it at the earliest; 0: we have begun, or have not taken it
	judged *neighbour // that we took it from because it is no candidate, until we answer; nil: none
	hold   Time       // nobody takes it before
	paused uint64     // our term when we gave it up because we received nothing; 0: we did not

	misplaced Time // since when its owner is no candidate; 0: it is one

	checked  check
	recheck  Time
	stranger Time // when a stranger that uses it was last heard of; 0: never, or it is gone

	touched  bool
	answered Answer // what was told last
	deputy   Time   // since when we answer for another node
}

// claim is a neighbour's.
type claim struct {
	n    *neighbour
	term uint64
}

// address returns what is known of one, and begins to know it.
func (m *Machine) address(addr netip.Addr) *address {
	a := m.addresses[addr]
	if a == nil {
		a = &address{Addr: addr, hash: hashAddress(addr)}
		m.addresses[addr] = a
	}
	return a
}

// claimed notes that a neighbour claims an address, or that its predecessor did.
func (m *Machine) claimed(n *neighbour, addr netip.Addr) {
	a := m.address(addr)
	term := max(n.claims[addr], n.former[addr])
	if term == 0 {
		m.unclaimed(n, a) // It had too many to be remembered.
		return
	}
	a.saw(term)
	a.undisputed()
	m.loads++
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
	m.loads++
	m.touch(a)
}

// saw notes a term, but no further above those that are known than an honest claim could be. So the next
// owner can always go above it.
func (a *address) saw(term uint64) {
	if a.seen == 0 {
		a.seen = min(term, maxJump)
	}
	a.seen = max(a.seen, min(term, a.seen+maxJump))
}

// plausible is the highest term that counts. With a term near the end of the range one node could lock an address
// for ever: nobody could go above it. A claim far above the lowest one is ignored, by all nodes alike
// once they have seen the same claims; a claim without a rival counts whatever its term.
func (a *address) plausible() uint64 {
	lowest := a.own
	for _, c := range a.claims {
		if lowest == 0 || c.term < lowest {
			lowest = c.term
		}
	}
	return lowest + maxJump
}

// beats orders claims: the higher term, and among equals the higher rank.
func (a *address) beats(term, hash, otherTerm, otherHash uint64) bool {
	return cmp.Or(cmp.Compare(term, otherTerm), cmp.Compare(mix(a.hash^hash), mix(a.hash^otherHash))) > 0
}

// holder is the neighbour with the highest claim that counts; nil if there is none.
func (a *address) holder() *claim {
	var best *claim
	limit := a.plausible()
	for i := range a.claims {
		c := &a.claims[i]
		if c.term > limit {
			continue
		}
		if best == nil || a.beats(c.term, c.n.hash, best.term, best.n.hash) {
			best = c
		}
	}
	return best
}

// absent reports whether all who claim the address need a deputy.
func (a *address) absent() bool {
	return !slices.ContainsFunc(a.claims, func(c claim) bool { return !c.n.absent() })
}

// settle decides about everything that an input touched, and sends what that changes.
func (m *Machine) settle() {
	for len(m.touched) > 0 {
		touched := m.touched
		m.touched = nil
		// The order matters: what is taken first counts when it is asked who has his share.
		slices.SortFunc(touched, func(x, y *address) int { return x.Compare(y.Addr) })
		for _, a := range touched {
			a.touched = false
			m.decide(a)
		}
	}
	m.flush()
}

// deputies is how many candidates answer for an absent owner. All answer the same, so one more does no harm, and it
// bridges the time in which it is not known yet that the first one is dead, too. When the addresses may move soon, it is
// the first one alone.
func (a *address) deputies() int {
	if slices.ContainsFunc(a.claims, func(c claim) bool { return c.n.ending }) {
		return 1
	}
	return 2
}

// decide is the rule of ownership for one address: docs/l2-protocol.md, "An address, as a node sees it".
func (m *Machine) decide(a *address) {
	holder := a.holder()
	place := -1
	if a.want != nil && m.serving && !m.shadowed() && !m.replaced && !m.leaving && m.iface.Up {
		place = m.place(a, holder)
	}
	switch {
	case a.own != 0 && a.want == nil:
		m.release(a, true, "no Service has it")
	case a.own != 0 && m.replaced:
		// It stays ours, for the successor. Deputies answer.
	case a.own != 0 && place < 0 && m.shadowed():
		m.release(a, false, "another interface of this node is on the same segment")
	case a.own != 0 && m.degraded() && (place > 0 || m.outsider()):
		// It was taken before this node knew that there are others.
		m.release(a, false, "others come first, and none is heard")
	case a.own != 0 && a.disputed():
		m.cede(a)
	case a.own != 0 && place < 0 && m.iface.Up:
		m.release(a, false, "this node cannot serve it")
	case a.own != 0 && holder != nil && m.yields(a, holder):
		m.yield(a, holder)
	case a.own != 0 && m.ever && m.quiet && a.since < m.quietSince:
		m.pause(a)
	}
	m.judgeOwner(a, holder, place)
	switch {
	case a.own != 0:
		m.close(a)
		if m.listening || m.replaced || !m.iface.Up || !m.begins(a) {
			m.answer(a, "", MAC{})
		} else {
			m.answer(a, m.config.Node, m.iface.MAC)
		}
	case holder != nil:
		m.close(a)
		a.lost, a.missed = 0, 0
		if place >= 0 && place < a.deputies() && a.absent() && !a.disputed() && !m.listening {
			m.answer(a, holder.n.node, holder.n.mac)
		} else {
			m.answer(a, "", MAC{})
		}
	default:
		m.answer(a, "", MAC{})
		m.contend(a, place)
	}
	if a.want == nil && a.own == 0 && len(a.claims) == 0 {
		delete(m.addresses, a.Addr)
		m.close(a)
	}
}

// yields reports whether our claim gives way. While we listen, we were away, and who stood in for us keeps
// the address.
func (m *Machine) yields(a *address, holder *claim) bool {
	if m.listening && !holder.n.has(flagListening) && m.ownSince(a) {
		return true
	}
	return a.beats(holder.term, holder.n.hash, a.own, m.hash)
}

// begins reports whether this node answers for an address that it owns. If it has taken the address, it does not before a
// later Tick, when it has read all frames that had come: another node may have taken the address at the same time. If that
// node's claim is higher, this node has yielded. If it is lower, that node may have begun to answer, also if its speaker is
// silent by now. So this node waits until that node has yielded, but not for longer than a dead interval. It does not wait
// for a node that said that it does not answer, nor for one that is no candidate and may never yield: see judgeOwner.
func (m *Machine) begins(a *address) bool {
	if a.begin == 0 {
		return true
	}
	at := a.begin
	limit := a.plausible()
	rival := func(c claim) bool {
		return c.term <= limit && !c.n.has(flagListening|flagReplaced) && c.n != a.judged
	}
	if slices.ContainsFunc(a.claims, rival) {
		at += deadInterval
	}
	if !m.ticking || m.now < at || m.tick == a.since {
		a.due = at
		m.setDue(at)
		return false
	}
	a.begin, a.judged = 0, nil
	delete(m.beginning, a)
	return true
}

// ownSince reports whether we had the address before we began to listen.
func (m *Machine) ownSince(a *address) bool { return a.since <= m.since }

// answer tells how we answer for an address, if that changes.
func (m *Machine) answer(a *address, node string, mac MAC) {
	to := Answer{Addr: a.Addr, Node: node, MAC: mac}
	own := node == m.config.Node
	if own {
		to.Announce = !m.quiet
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

// touch has an address decided anew at the end of the present input.
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

// touchUnserved is for when another node can take an address, or no longer can: it changes who is to take what has no
// owner, and who is the deputy of an owner that is absent.
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

// byAddress is for where the order matters to others.
func byAddress(set map[*address]struct{}) []*address {
	return slices.SortedFunc(maps.Keys(set), func(x, y *address) int { return x.Compare(y.Addr) })
}
