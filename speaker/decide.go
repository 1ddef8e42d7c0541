package speaker

import (
	"cmp"
	"hash/fnv"
	"net/netip"
	"slices"
	"time"

	"github.com/heraldlb/herald/speaker/bgp"
)

// Decision is what this node does for one Service. Decide makes it.
type Decision struct {
	L2  []L2Decision
	BGP []BGPDecision
}

// L2Decision is about one address on the segment.
type L2Decision struct {
	Address netip.Addr
	// Owner is the node that is to answer for the address; empty if none can.
	Owner string
	// Interfaces on which this node answers: none unless it is the owner and nobody else still answers.
	Interfaces []string
	// Ask: this node is to say that it wants the address, and to wait until it has read that itself.
	Ask bool
	// After is when the latest of the other claims began. The clocks of two nodes may differ, but who
	// takes an address from another has taken it later.
	After time.Time
}

// BGPDecision is about one address at the routers.
type BGPDecision struct {
	Prefix netip.Prefix
	// Exports are the routes to announce, by peer.
	Exports map[string]bgp.Attributes
}

// Decide says what this node announces for a Service. It is a function of its arguments: two nodes
// with equal snapshots agree on every owner, whatever happened before.
func Decide(shared *Shared, svc *Service) Decision {
	var d Decision
	for _, address := range svc.Addresses {
		if l2, ok := shared.decideL2(svc, address); ok {
			d.L2 = append(d.L2, l2)
		}
		if exports := shared.decideBGP(svc, address); len(exports) > 0 {
			d.BGP = append(d.BGP, BGPDecision{Prefix: netip.PrefixFrom(address.Addr, address.BitLen()), Exports: exports})
		}
	}
	return d
}

// delivers reports whether traffic for the Service that reaches the node finds an endpoint.
func (svc *Service) delivers(node string) bool {
	if svc.Local {
		return slices.Contains(svc.Ready, node)
	}
	return len(svc.Ready) > 0
}

// decideL2 chooses the owner of an address among the nodes that can serve it. ok is false if no
// advertisement is about the address at all.
func (s *Shared) decideL2(svc *Service, address Address) (_ L2Decision, ok bool) {
	if !address.Is4() {
		return L2Decision{}, false // Nothing speaks NDP yet.
	}
	var candidates []string
	for _, ad := range s.L2 {
		if !ad.Selector.Pool(address.Pool, s.Pools[address.Pool]) || !ad.Selector.Service(svc.Labels, s.Namespaces[svc.Name.Namespace]) {
			continue
		}
		ok = true
		for name, node := range s.Nodes {
			if node.eligible() && svc.delivers(name) && ad.Selector.Node(node.Labels) && len(node.reaches(address.Addr, ad.Interfaces)) > 0 {
				candidates = append(candidates, name)
			}
		}
	}
	if !ok {
		return L2Decision{}, false
	}
	d := L2Decision{Address: address.Addr, Owner: owner(address.Addr, candidates, address.Claims)}
	for _, c := range address.Claims {
		if c.Node != s.Self && c.Since.After(d.After) {
			d.After = c.Since
		}
	}
	if d.Owner != s.Self || !s.Healthy || s.Away {
		return d, true
	}
	own, claimed := address.claim(s.Self)
	switch {
	case own.Since.IsZero() && s.claimedElsewhere(address):
		// Wait.
	case !claimed:
		d.Ask = true
	default:
		for _, ad := range s.L2 {
			if self := s.Nodes[s.Self]; ad.Selector.Pool(address.Pool, s.Pools[address.Pool]) && ad.Selector.Node(self.Labels) &&
				ad.Selector.Service(svc.Labels, s.Namespaces[svc.Name.Namespace]) {
				d.Interfaces = append(d.Interfaces, self.reaches(address.Addr, ad.Interfaces)...)
			}
		}
		slices.Sort(d.Interfaces)
		d.Interfaces = slices.Compact(d.Interfaces)
	}
	return d, true
}

// claimedElsewhere reports whether a node that does not have the address has to wait: another one that
// is alive still says that it answers for it, or asks as well. Break before make: two answers for one
// address harm, a moment without any does not.
//
// Who asks and then reads what it asked has read, too, whatever others asked before: there is one order
// of all that is written. So of several that ask at once one at most sees nobody else, and takes it.
func (s *Shared) claimedElsewhere(address Address) bool {
	return slices.ContainsFunc(address.Claims, func(c Claim) bool { return c.Node != s.Self && s.Nodes[c.Node].Alive })
}

// owner is the candidate that has taken the address last or, if none has, the one that ranks highest
// for it. So an address stays where it is when nodes come or come back, and one that was away yields to
// the one that stood in for it.
func owner(address netip.Addr, candidates []string, claims []Claim) string {
	if len(candidates) == 0 {
		return ""
	}
	claimed := map[string]time.Time{} // The zero time is before all others.
	for _, c := range claims {
		claimed[c.Node] = c.Since
	}
	return slices.MaxFunc(candidates, func(a, b string) int {
		return cmp.Or(claimed[a].Compare(claimed[b]), cmp.Compare(rank(address, a), rank(address, b)), cmp.Compare(a, b))
	})
}

// rank is the weight of a node for an address in rendezvous hashing: when a node goes, only its own
// addresses move, and they spread over those that are left.
func rank(address netip.Addr, node string) uint64 {
	h := fnv.New64a()
	b, _ := address.MarshalBinary() // Never fails.
	_, _ = h.Write(b)
	_, _ = h.Write([]byte(node))
	// FNV's high bits hardly differ between names that differ in their last letter: finish as MurmurHash3 does.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// decideBGP lists the peers that this node announces the address to. Several nodes announcing one
// address is what routers balance over; there is no owner to choose, unless the Service is sticky.
func (s *Shared) decideBGP(svc *Service, address Address) map[string]bgp.Attributes {
	self, known := s.Nodes[s.Self]
	if !known || self.Excluded || !s.Healthy || !svc.delivers(s.Self) {
		return nil
	}
	exports := map[string]bgp.Attributes{}
	for _, ad := range s.BGP {
		if !ad.Selector.Pool(address.Pool, s.Pools[address.Pool]) || !ad.Selector.Service(svc.Labels, s.Namespaces[svc.Name.Namespace]) ||
			!ad.Selector.Node(self.Labels) || svc.Sticky && s.stickyNode(svc, address, ad) != s.Self {
			continue
		}
		for _, peer := range ad.Peers {
			if _, ok := exports[peer]; !ok && s.holds(peer, self.Labels) { // The first by name decides.
				exports[peer] = ad.Attributes
			}
		}
	}
	return exports
}

// stickyNode is the one node that announces a sticky Service by this advertisement.
func (s *Shared) stickyNode(svc *Service, address Address, ad BGPAdvertisement) string {
	var candidates []string
	for name, node := range s.Nodes {
		speaks := slices.ContainsFunc(ad.Peers, func(peer string) bool { return s.holds(peer, node.Labels) })
		if speaks && node.eligible() && svc.delivers(name) && ad.Selector.Node(node.Labels) {
			candidates = append(candidates, name)
		}
	}
	return owner(address.Addr, candidates, nil)
}
