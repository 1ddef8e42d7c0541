package speaker

import (
	"cmp"
	"hash/fnv"
	"net/netip"
	"slices"
	"time"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bgp"
)

// Decision is what this node does about one address. The zero Decision is to do nothing.
type Decision struct {
	// Owner is the node that is to answer for the address on the segment; empty if none can.
	Owner string
	// Interfaces on which this node answers: none unless it is the owner and nobody else still answers.
	Interfaces []string
	// Ask: this node is to say that it wants the address, and to wait until it has read that itself.
	Ask bool
	// After is when the latest of the other claims began. The clocks of two nodes may differ, but who
	// takes an address from another has taken it later.
	After time.Time

	// Exports are the routes to announce to routers, by peer.
	Exports map[string]bgp.Attributes
}

// Decide says what this node announces of an address: what any of the Services that share it is to have.
// It is a function of its arguments: two nodes with equal snapshots agree on every owner, whatever
// happened before.
func Decide(shared *Shared, address *Address) Decision {
	d := shared.decideL2(address)
	d.Exports = shared.decideBGP(address)
	return d
}

// delivers reports whether traffic for the Service that reaches the node finds an endpoint.
func (svc *Service) delivers(node string) bool {
	if svc.Local {
		return slices.Contains(svc.Ready, node)
	}
	return len(svc.Ready) > 0
}

// decideL2 chooses the owner of an address among the nodes that can serve it.
func (s *Shared) decideL2(address *Address) Decision {
	if !address.Is4() {
		return Decision{} // Nothing speaks NDP yet.
	}
	serves, own := map[string]int{}, []string(nil)
	for _, svc := range address.Services {
		ads := s.onSegment(address, svc)
		for name, node := range s.Nodes {
			if !node.eligible() || !svc.delivers(name) {
				continue
			}
			on := node.answersOn(address.Addr, ads)
			if len(on) > 0 {
				serves[name]++
			}
			if name == s.Self {
				own = append(own, on...)
			}
		}
	}
	d := Decision{Owner: owner(address.Addr, foremost(serves), address.Claims)}
	for _, c := range address.Claims {
		if c.Node != s.Self && c.Since.After(d.After) {
			d.After = c.Since
		}
	}
	if d.Owner != s.Self || !s.Healthy || s.Away {
		return d
	}
	claim, claimed := address.claim(s.Self)
	switch {
	case claim.Since.IsZero() && s.claimedElsewhere(address):
		// Wait.
	case !claimed:
		d.Ask = true
	default:
		slices.Sort(own)
		d.Interfaces = slices.Compact(own)
	}
	return d
}

// onSegment lists the advertisements that are about the address for this one of its Services.
func (s *Shared) onSegment(address *Address, svc *Service) (ads []L2Advertisement) {
	for _, ad := range s.L2 {
		if s.selects(ad.Selector, address, svc) {
			ads = append(ads, ad)
		}
	}
	return ads
}

func (s *Shared) selects(selector *herald.Selector, address *Address, svc *Service) bool {
	return selector.Pool(address.Pool, s.Pools[address.Pool]) && selector.Service(svc.Labels, s.Namespaces[svc.Name.Namespace])
}

// foremost are the nodes that serve the most of an address's Services. Mostly all serve all; but one
// Service may be advertised from fewer nodes, or have its endpoints on fewer.
func foremost(serves map[string]int) (nodes []string) {
	most := 0
	for node, n := range serves {
		if n > most {
			nodes, most = nil, n
		}
		if n == most {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// claimedElsewhere reports whether a node that does not have the address has to wait: another one that
// is alive still says that it answers for it, or asks as well. Break before make: two answers for one
// address harm, a moment without any does not.
//
// Who asks and then reads what it asked has read, too, whatever others asked before: there is one order
// of all that is written. So of several that ask at once one at most sees nobody else, and takes it.
func (s *Shared) claimedElsewhere(address *Address) bool {
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
// address is what routers balance over; there is no owner to choose, unless one of its Services is sticky.
func (s *Shared) decideBGP(address *Address) (exports map[string]bgp.Attributes) {
	self, known := s.Nodes[s.Self]
	if !known || self.Excluded || !s.Healthy {
		return nil
	}
	sticky := slices.ContainsFunc(address.Services, func(svc *Service) bool { return svc.Sticky })
	for _, ad := range s.BGP {
		if !ad.Selector.Node(self.Labels) {
			continue
		}
		if s.serves(s.Self, address, ad) == 0 || sticky && s.stickyNode(address, ad) != s.Self {
			continue
		}
		for _, peer := range ad.Peers {
			if _, ok := exports[peer]; !ok && s.holds(peer, self.Labels) { // The first by name decides, for all the Services.
				if exports == nil {
					exports = map[string]bgp.Attributes{}
				}
				exports[peer] = ad.Attributes
			}
		}
	}
	return exports
}

// serves counts the Services of the address that this advertisement is about and that the node delivers.
func (s *Shared) serves(node string, address *Address, ad BGPAdvertisement) (n int) {
	for _, svc := range address.Services {
		if svc.delivers(node) && s.selects(ad.Selector, address, svc) {
			n++
		}
	}
	return n
}

// stickyNode is the one node that announces a sticky address by this advertisement.
func (s *Shared) stickyNode(address *Address, ad BGPAdvertisement) string {
	serves := map[string]int{}
	for name, node := range s.Nodes {
		speaks := slices.ContainsFunc(ad.Peers, func(peer string) bool { return s.holds(peer, node.Labels) })
		if n := s.serves(name, address, ad); n > 0 && speaks && node.eligible() && ad.Selector.Node(node.Labels) {
			serves[name] = n
		}
	}
	return owner(address.Addr, foremost(serves), nil)
}
