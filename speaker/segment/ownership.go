package segment

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// address is what is known of one address on this segment.
type address struct {
	netip.Addr
	hash   uint64
	want   *Want
	claims []claim // of neighbours whose claims count

	seen uint64 // the highest term that was ever claimed
	own  uint64 // our term; 0: not ours

	since  Time
	reason string
	lost   Time   // when its last owner was last heard; 0: it had none, or gave it up
	opened Time   // since when it has no owner
	due    Time   // when we take it; 0: not at all
	hold   Time   // nobody takes it before
	paused uint64 // our term when we gave it up because we received nothing; 0: we did not

	misplaced Time // since when its owner is no candidate; 0: it is one

	checked check
	recheck Time

	touched  bool
	answered Answer // what was told last
	deputy   Time   // since when we answer for another node
}

// check says whether a stranger uses a new address.
type check uint8

const (
	unchecked check = iota
	checking
	free
	conflicting
)

// claim is a neighbour's.
type claim struct {
	n    *neighbour
	term uint64
}

// Candidates are the nodes that may own an address. One value may serve many addresses, and many do.
type Candidates struct{ list []candidate }

type candidate struct {
	node      string
	hash      uint64
	preferred bool
}

// NewCandidates makes them of names. preferred may be nil.
func NewCandidates(nodes []string, preferred func(node string) bool) *Candidates {
	c := &Candidates{list: make([]candidate, 0, len(nodes))}
	for _, n := range nodes {
		c.list = append(c.list, candidate{node: n, hash: hashNode(n), preferred: preferred != nil && preferred(n)})
	}
	return c
}

// Nodes returns their names.
func (c *Candidates) Nodes() []string {
	names := make([]string, 0, len(c.list))
	for _, o := range c.list {
		names = append(names, o.node)
	}
	return names
}

// slot is a candidate with what is known of it on this segment.
type slot struct {
	candidate
	n *neighbour // nil: it is not heard, or it is this node
}

// resolved are candidates as they are known on this segment.
type resolved struct {
	slots []slot
	self  *slot // nil: this node is no candidate
	// sum is how many addresses the others that can take one have, and others their number, when loads had
	// this value.
	sum, others int
	loads       int
}

// resolve looks the candidates up among the neighbours, once for all addresses that have the same candidates.
func (m *Machine) resolve(c *Candidates) *resolved {
	if m.resolvedAt != m.generation {
		clear(m.resolved)
		m.resolvedAt = m.generation
	}
	r := m.resolved[c]
	if r == nil {
		r = &resolved{slots: make([]slot, 0, min(len(c.list), len(m.sorted)+len(m.expected)+1)), loads: -1}
		for _, o := range c.list {
			n := m.neighbours[o.node]
			switch {
			case o.node == m.config.Node:
				r.self = &slot{candidate: o}
			case n != nil || m.degraded():
				r.slots = append(r.slots, slot{candidate: o, n: n})
			}
		}
		m.resolved[c] = r
	}
	if r.loads != m.loads {
		r.loads, r.sum, r.others = m.loads, 0, 0
		for i := range r.slots {
			if s := &r.slots[i]; m.eligible(s) {
				r.sum, r.others = r.sum+s.load(), r.others+1
			}
		}
	}
	return r
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
	for addr := range n.claims {
		m.touch(m.address(addr))
	}
	for addr := range n.former {
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

// claimed notes that a neighbour claims an address, or that its predecessor did.
func (m *Machine) claimed(n *neighbour, addr netip.Addr) {
	a := m.address(addr)
	term := max(n.claims[addr], n.former[addr])
	if term == 0 {
		m.unclaimed(n, a) // It had too many to be remembered.
		return
	}
	a.saw(term)
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
// bridges the time in which it is not known yet that the first one is dead, too.
const deputies = 2

// decide is the rule of ownership for one address.
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
	case a.own != 0 && place < 0 && m.iface.Up:
		m.release(a, false, "this node cannot serve it")
	case a.own != 0 && holder != nil && m.yields(a, holder):
		m.yield(a, holder)
	case a.own != 0 && m.ever && m.quiet && a.since <= m.quietSince:
		m.pause(a)
	}
	m.judgePlace(a, holder, place)
	switch {
	case a.own != 0:
		m.close(a)
		if m.listening || m.replaced || !m.iface.Up {
			m.answer(a, "", MAC{})
		} else {
			m.answer(a, m.config.Node, m.iface.MAC)
		}
	case holder != nil:
		m.close(a)
		if place >= 0 && place < deputies && a.absent() && !m.listening {
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

// judgePlace takes an address from an owner that cannot serve it and does not know: it does not reach the
// API, and this node does. The owner yields on the frame that says so.
func (m *Machine) judgePlace(a *address, holder *claim, place int) {
	if a.own != 0 || holder == nil || place < 0 || m.listening || !m.current || a.want.Candidates.Has(holder.n.node) {
		a.misplaced = 0
		delete(m.misplaced, a)
		return
	}
	if a.misplaced == 0 {
		a.misplaced = m.now
		m.misplaced[a] = struct{}{}
	}
	if m.now-a.misplaced >= patience+time.Duration(place)*rankDelay {
		m.take(a)
		a.reason = "its owner, " + holder.n.node + ", is no candidate any more"
	}
}

// Has reports whether the node is among them.
func (c *Candidates) Has(node string) bool {
	return slices.ContainsFunc(c.list, func(o candidate) bool { return o.node == node })
}

// yields reports whether our claim gives way. While we listen, we were away, and who stood in for us keeps
// the address.
func (m *Machine) yields(a *address, holder *claim) bool {
	if m.listening && !holder.n.has(flagListening) && m.ownSince(a) {
		return true
	}
	return a.beats(holder.term, holder.n.hash, a.own, m.hash)
}

// ownSince reports whether we had the address before we began to listen.
func (m *Machine) ownSince(a *address) bool { return a.since <= m.since }

// contend is for an address that nobody claims: the best candidate takes it, the next one waits in case the
// best one does not, and so on.
func (m *Machine) contend(a *address, place int) {
	if place < 0 || m.listening || m.degraded() && (place > 0 || m.outsider()) {
		m.close(a)
		return
	}
	if _, is := m.open[a]; !is {
		m.open[a] = struct{}{}
		a.opened = m.now
	}
	a.due = max(a.opened+time.Duration(place)*rankDelay, a.hold)
	if a.checked == conflicting {
		a.due = max(a.due, a.recheck)
	}
	if m.now < a.due {
		m.setDue(a.due)
		return
	}
	if a.want.New && a.seen == 0 && a.checked != free {
		if a.checked != checking {
			a.checked = checking
			m.out.Checks = append(m.out.Checks, a.Addr)
		}
		a.due = 0
		return
	}
	m.take(a)
}

func (m *Machine) close(a *address) {
	delete(m.open, a)
	a.due = 0
}

// take makes the address ours.
//
// Whoever takes an address while it hears other speakers takes an even term above every term that it knows.
// Whoever hears none may be the one that is cut off. It takes an odd term, below that of the owner which it
// believes dead: when both meet, the address stays where it was.
func (m *Machine) take(a *address) {
	m.close(a)
	before := a.seen
	switch {
	case m.company():
		a.own = (a.seen | 1) + 1
	case a.paused != 0 && a.paused == a.seen:
		a.own = a.paused
	case a.seen == 0:
		a.own = 1
	default:
		a.own = (a.seen - 1) | 1
	}
	a.paused = 0
	a.seen = max(a.seen, a.own)
	a.since = m.now
	switch {
	case a.lost != 0:
		a.reason = fmt.Sprintf("its owner fell silent %d ms before", (m.now - a.lost).Milliseconds())
		m.counters.Takeovers++
		m.counters.TakeoverSum += m.now - a.lost
	case before == 0:
		a.reason = "it was new"
	default:
		a.reason = "its owner released it"
	}
	e := Event{Kind: EventTake, Addr: a.Addr, Text: a.reason}
	if a.lost != 0 {
		e.After = m.now - a.lost
	}
	a.lost = 0
	m.owned[a] = struct{}{}
	m.pending = append(m.pending, change{addr: a.Addr, term: a.own})
	m.event(e)
	m.answer(a, m.config.Node, m.iface.MAC)
}

// company reports whether this node is not cut off, as far as it knows. A suspected neighbour is no proof: to a
// node that is cut off all the others fall silent one after the other, within one beat.
func (m *Machine) company() bool { return m.statuses[alive]+m.statuses[silent] > 0 }

// release gives the address up. The answers end before the release is sent.
func (m *Machine) release(a *address, notWanted bool, why string) {
	m.disown(a, notWanted)
	m.event(Event{Kind: EventRelease, Addr: a.Addr, Text: why})
}

// pause gives an address up because this node receives nothing at all: nobody can reach it, but others may hear it, and
// would leave the address to it. Whoever does takes the address. If nobody does, this node takes it again a little
// later, with the same term: the segment may only have been quiet.
func (m *Machine) pause(a *address) {
	a.paused, a.hold = a.own, m.now+holdOff
	m.release(a, false, "this node receives nothing")
}

func (m *Machine) yield(a *address, to *claim) {
	m.disown(a, false)
	m.event(Event{Kind: EventYield, Addr: a.Addr, Node: to.n.node})
}

func (m *Machine) disown(a *address, notWanted bool) {
	m.answer(a, "", MAC{})
	a.own, a.reason = 0, ""
	delete(m.owned, a)
	m.pending = append(m.pending, change{addr: a.Addr, noWanted: notWanted})
}

// releaseAll is for the end: one frame says it.
func (m *Machine) releaseAll() {
	if len(m.owned) == 0 {
		return
	}
	for _, a := range byAddress(m.owned) {
		m.answer(a, "", MAC{})
		a.own = 0
		delete(m.owned, a)
	}
	for _, a := range byAddress(m.deputised) {
		m.answer(a, "", MAC{})
	}
	m.pending = nil
	m.sendUpdate(update{from: m.claims, to: m.claims + 1, all: true})
}

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

// lastPlace is where candidates stop counting. On a large segment that saves most of the comparisons.
const lastPlace = 20

// place is how many live candidates come before this node for an address; -1 if this node is no candidate.
//
// Preferred nodes come first. Of a new address, nodes that have their share already come last. Otherwise the
// rank decides (rendezvous hashing: D. Thaler, C. Ravishankar, 1998): the addresses of a node that dies
// spread over all others, and no other address moves.
func (m *Machine) place(a *address, holder *claim) (place int) {
	r := m.resolve(a.want.Candidates)
	if r.self == nil {
		return -1
	}
	bound := 0 // none
	if a.seen == 0 && !m.degraded() {
		bound = loadBound(r.sum+len(m.owned)+1, r.others+1)
	}
	mine := a.order(r.self, len(m.owned), bound)
	for i := range r.slots {
		s := &r.slots[i]
		if !m.eligible(s) || holder != nil && (s.n == holder.n || s.n.has(flagListening)) {
			continue // A deputy is needed at once: who listens is none.
		}
		if a.order(s, s.load(), bound).before(mine) {
			if place++; place == lastPlace {
				break // Whoever is so far down has a long time to wait anyway.
			}
		}
	}
	return place
}

// eligible reports whether a candidate can take an address now.
func (m *Machine) eligible(s *slot) bool {
	if s.n == nil {
		return m.degraded()
	}
	return s.n.eligible()
}

// loadBound is a quarter more than the fair share of so many addresses among so many nodes.
func loadBound(addresses, nodes int) int { return (5*addresses + 4*nodes - 1) / (4 * nodes) }

func (s *slot) load() int {
	if s.n == nil {
		return 0
	}
	return len(s.n.claims)
}

// order is what candidates are compared by.
type order struct {
	preferred, full bool
	rank            uint64
}

func (a *address) order(s *slot, load, bound int) order {
	return order{preferred: s.preferred, full: bound > 0 && load >= bound, rank: mix(a.hash ^ s.hash)}
}

// before reports whether the one comes before the other.
func (o order) before(other order) bool {
	switch {
	case o.preferred != other.preferred:
		return o.preferred
	case o.full != other.full:
		return other.full
	}
	return o.rank > other.rank
}

// setDue has ripen called at a time, or before.
func (m *Machine) setDue(at Time) {
	if m.due == 0 || at < m.due {
		m.due = at
	}
}

// ripen takes what is due.
func (m *Machine) ripen() {
	if m.reconsider && m.now >= m.reconsidered+reconsiderPeriod+time.Duration(len(m.open))*reconsiderCost {
		m.reconsider, m.reconsidered = false, m.now
		m.touchOpen()
	}
	if m.due != 0 && m.now >= m.due {
		m.due = 0
		for a := range m.open {
			switch {
			case a.due == 0:
			case m.now >= a.due:
				m.touch(a)
			default:
				m.setDue(a.due)
			}
		}
	}
	for a := range m.misplaced {
		if m.now-a.misplaced >= patience {
			m.touch(a)
		}
	}
}

// rebalance hands over one address to a candidate that comes before this node, where that is wished.
func (m *Machine) rebalance() {
	if m.listening || m.now < m.moved+moveInterval {
		return
	}
	m.moved = m.now
	for _, a := range byAddress(m.owned) {
		if a.want == nil || !a.want.Gradual {
			continue
		}
		if m.better(a) {
			m.release(a, false, "another node comes first, and rebalance is Gradual")
			m.touch(a)
			return
		}
	}
}

// byAddress is for where the order matters to others.
func byAddress(set map[*address]struct{}) []*address {
	return slices.SortedFunc(maps.Keys(set), func(x, y *address) int { return x.Compare(y.Addr) })
}

// better reports whether a candidate comes before this node for an address that this node owns, has been
// alive for a while, and would not have more than its share.
func (m *Machine) better(a *address) bool {
	r := m.resolve(a.want.Candidates)
	if r.self == nil {
		return false
	}
	bound := loadBound(r.sum+len(m.owned), r.others+1)
	mine := a.order(r.self, 0, 0)
	return slices.ContainsFunc(r.slots, func(s slot) bool {
		if s.n == nil || !m.eligible(&s) || m.now-s.n.since < settled || s.load() >= bound && (!s.preferred || r.self.preferred) {
			return false
		}
		return a.order(&s, 0, 0).before(mine)
	})
}
