package segment

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/heraldlb/herald/speaker/segment/ownership"
)

// slot is a candidate and what is known about it on this segment.
type slot struct {
	ownership.Candidate
	hash uint64
	n    *neighbour // nil: it is not heard, or it is this node
}

func (s *slot) load() int {
	if s.n == nil {
		return 0
	}
	return len(s.n.claims)
}

// resolved are candidates and what is known about them on this segment.
type resolved struct {
	slots []slot
	self  *slot // nil: this node is not a candidate
	// others counts the other candidates that can take an address, and sum counts the addresses that these have. Both were
	// computed when Machine.loadChanges had the value loads.
	sum, others int
	loads       int
}

// resolve looks up the candidates among the neighbours, once for all addresses that have the same candidates.
func (m *Machine) resolve(c *ownership.Candidates) *resolved {
	if m.resolvedAt != m.generation || len(m.resolved) > 2*len(m.addresses)+64 { // Candidates come and go with endpoints.
		clear(m.resolved)
		m.resolvedAt = m.generation
	}
	r := m.resolved[c]
	if r == nil {
		r = &resolved{slots: make([]slot, 0, min(len(*c), len(m.sorted)+len(m.expected)+1)), loads: -1}
		for _, o := range *c {
			n := m.neighbours[o.Node]
			switch {
			case o.Node == m.config.Node:
				r.self = &slot{Candidate: o, hash: m.hash}
			case n != nil || m.degraded():
				r.slots = append(r.slots, slot{Candidate: o, hash: hashNode(o.Node), n: n})
			}
		}
		m.resolved[c] = r
	}
	if r.loads != m.loadChanges {
		r.loads, r.sum, r.others = m.loadChanges, 0, 0
		for i := range r.slots {
			if s := &r.slots[i]; m.eligible(s) {
				r.sum, r.others = r.sum+s.load(), r.others+1
			}
		}
	}
	return r
}

// eligible reports whether a candidate can take an address now.
func (m *Machine) eligible(s *slot) bool {
	if s.n == nil {
		return m.degraded()
	}
	return s.n.eligible()
}

// lastPlace is where place stops counting. On a large segment this saves most of the comparisons.
const lastPlace = 20

// place returns how many live candidates come before this node for an address; -1 if this node is not a candidate. Machine.decide
// also uses -1 for a node that may own nothing now.
//
// Candidates are compared by standing first. Among equals, preferred nodes come first. Then, for a new address, nodes that
// already have their share come after the others. The rank decides last (rendezvous hashing: D. Thaler, C. Ravishankar,
// 1998): the addresses of a node that dies spread over all others, and no other address moves.
func (m *Machine) place(a *address, holder *claim) (place int) {
	r := m.resolve(a.want.Candidates)
	if r.self == nil {
		return -1
	}
	bound := 0 // none
	if a.highestTerm == 0 && !m.degraded() {
		bound = loadBound(r.sum+len(m.owned)+1, r.others+1)
	}
	mine := a.order(r.self, len(m.owned), bound)
	for i := range r.slots {
		s := &r.slots[i]
		// With a holder, the place is among its deputies. The holder is none, and a node that listens cannot be one, because a
		// deputy is needed at once.
		if !m.eligible(s) || holder != nil && (s.n == holder.n || s.n.has(flagListening)) {
			continue
		}
		if a.order(s, s.load(), bound).before(mine) {
			if place++; place == lastPlace {
				break // A node after so many others waits for a long time anyway.
			}
		}
	}
	return place
}

// loadBound returns 1.25 times a node's fair share of the addresses.
func loadBound(addresses, nodes int) int { return (5*addresses + 4*nodes - 1) / (4 * nodes) }

// order has the properties by which candidates are compared.
type order struct {
	standing        ownership.Standing
	preferred, full bool
	rank            uint64
}

func (a *address) order(s *slot, load, bound int) order {
	return order{standing: s.Standing, preferred: s.Preferred, full: bound > 0 && load >= bound, rank: mix(a.hash ^ s.hash)}
}

// before reports whether o comes before other.
func (o order) before(other order) bool {
	switch {
	case o.standing != other.standing:
		return o.standing < other.standing
	case o.preferred != other.preferred:
		return o.preferred
	case o.full != other.full:
		return other.full
	}
	return o.rank > other.rank
}

// better reports whether an address that this node owns should move to another candidate. Such a candidate comes before this
// node, has been alive for a while, and has room in its share. The share does not matter if that candidate is a preferred node
// and this node is not.
func (m *Machine) better(a *address) bool {
	r := m.resolve(a.want.Candidates)
	if r.self == nil {
		return false
	}
	bound := loadBound(r.sum+len(m.owned), r.others+1)
	mine := a.order(r.self, 0, 0)
	return slices.ContainsFunc(r.slots, func(s slot) bool {
		if s.n == nil || !m.eligible(&s) || m.now-s.n.since < aliveBeforeMove || s.load() >= bound && (!s.Preferred || r.self.Preferred) {
			return false
		}
		return a.order(&s, 0, 0).before(mine)
	})
}

// hashNode returns the part of a rank that comes from the name of the node.
func hashNode(node string) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for _, b := range []byte(node) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return mix(h)
}

func hashAddress(addr netip.Addr) uint64 {
	b := addr.As16()
	return mix(binary.BigEndian.Uint64(b[:8])*0x9e3779b97f4a7c15 ^ mix(binary.BigEndian.Uint64(b[8:])))
}

// mix spreads a change of any bit over all bits, as the finalizer of MurmurHash3 does.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
