package announce

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bgp/route"
	"github.com/heraldlb/herald/speaker/segment/ownership"
)

// Decision says how to announce one address. The zero Decision is not to announce it.
type Decision struct {
	// Segments says which nodes may own the address on which of this node's interfaces. The nodes agree on the owner on the
	// wire: see package segment.
	Segments []Placement
	// Exports are the routes to the address alone that this node announces to routers, by peer.
	Exports map[string]route.Attributes
	// Aggregates are the networks that contain the address and that this node announces to routers, in the order of the
	// advertisements.
	Aggregates []Aggregate
	// Refused describes the address if it must not be announced, such as "an address of node n1". The other fields are empty
	// then.
	Refused string
}

// Placement is the part of a Decision for one interface.
type Placement struct {
	Interface string
	ownership.Want
}

// Decide decides how to announce an address. The result serves every Service that shares the address. Decide is a pure
// function of its arguments, except that Shared caches intermediate results.
func Decide(shared *Shared, address *Address) Decision {
	if what, ok := shared.Infrastructure[address.Addr]; ok {
		return Decision{Refused: what}
	}
	d := Decision{Segments: shared.decideL2(address)}
	shared.decideBGP(address, &d)
	return d
}

// decideL2 chooses the candidates for an address on each segment.
func (s *Shared) decideL2(address *Address) (all []Placement) {
	if len(s.Segments) == 0 || len(s.L2) == 0 {
		return nil
	}
	empty := address.empty()
	advertised := make([][]int, len(address.Services)) // indices of advertisements
	for i, svc := range address.Services {
		for j := range s.L2 {
			if (!empty || s.L2[j].WithoutEndpoints) && s.selects(s.L2[j].Selector, address, svc) {
				advertised[i] = append(advertised[i], j)
			}
		}
	}
	for i := range s.Segments {
		on := &s.Segments[i]
		if c := s.candidates(on, address, advertised); c.nodes != nil {
			all = append(all, Placement{Interface: on.Interface, Want: ownership.Want{
				Candidates: c.nodes, Gradual: c.gradual, New: address.New, Defend: !s.Pools[address.Pool].Yield,
			}})
		}
	}
	return all
}

// candidates returns the nodes that may own an address on a segment. Most addresses of a cluster have the same candidates, so
// these are cached by everything that they depend on.
func (s *Shared) candidates(on *Segment, address *Address, advertised [][]int) candidates {
	s.key = on.appendKey(s.key[:0], address, advertised)
	if c, ok := s.made[string(s.key)]; ok {
		return c
	}
	c := s.makeCandidates(on, address, advertised)
	if s.made == nil {
		s.made = map[string]candidates{}
	}
	s.made[string(s.key)] = c
	return c
}

// appendKey appends everything that the candidates for an address on the segment depend on and that differs between addresses.
// Every part has a length or a terminator, so that different inputs have different keys. The key does not say whether the
// address is empty, because that follows from its parts for the Services.
func (on *Segment) appendKey(key []byte, address *Address, advertised [][]int) []byte {
	key = append(append(key, on.Interface...), 0)
	key = binary.AppendUvarint(key, uint64(len(address.Services)))
	for i, svc := range address.Services {
		key = binary.AppendUvarint(key, uint64(len(advertised[i])))
		for _, j := range advertised[i] {
			key = binary.AppendUvarint(key, uint64(j))
		}
		ready := svc.Ready(address.Addr)
		switch {
		case svc.Local:
			key = binary.AppendUvarint(append(key, 'L'), uint64(len(ready)))
			for _, node := range ready {
				key = append(append(key, node...), 0)
			}
		case len(ready) > 0:
			key = append(key, 'C')
		default:
			key = append(key, '-')
		}
	}
	key = binary.AppendUvarint(key, uint64(len(address.Fresh)))
	for _, node := range address.Fresh {
		key = append(append(key, node...), 0)
	}
	switch {
	case address.Defers:
		key = append(key, 'l')
	case address.Forwards:
		key = append(key, 'f')
	default:
		key = append(key, '-')
	}
	for i, network := range on.networks() {
		if network.Contains(address.Addr) {
			key = binary.AppendUvarint(key, uint64(i))
		}
	}
	return key
}

// makeCandidates chooses the nodes that serve the most of an address's Services. Usually all nodes serve all Services, but one
// Service may be advertised from fewer nodes, or have endpoints on fewer nodes.
//
// Nodes that are not Ready are chosen only if no Ready node serves any of the Services: after an outage of the API server, no
// node is Ready. Fresh nodes come last but are still candidates. Nodes hear of an endpoint at different times. So if fresh nodes
// were left out, the nodes would not agree on the candidates, and could all take the address of a node that dies.
func (s *Shared) makeCandidates(on *Segment, address *Address, advertised [][]int) candidates {
	serves, preferred, gradual := map[string]int{}, map[string]bool{}, map[string]bool{}
	empty := address.empty()
	for i, svc := range address.Services {
		if len(advertised[i]) == 0 {
			continue
		}
		for n := range s.deliverers(on, address, svc, empty) {
			node, announced := s.Nodes[n.Node], false
			for _, j := range advertised[i] {
				ad := &s.L2[j]
				if !ad.Selector.Node(node.Labels) || !n.covers(address.Addr, ad.Interfaces) {
					continue
				}
				announced = true
				if ad.Preferred != nil && ad.Preferred.Matches(labels.Set(node.Labels)) {
					preferred[n.Node] = true
				}
				if ad.Gradual {
					gradual[n.Node] = true
				}
			}
			if announced {
				serves[n.Node]++
			}
		}
	}
	ready := map[string]int{}
	for node, n := range serves {
		if s.Nodes[node].Ready {
			ready[node] = n
		}
	}
	if len(ready) > 0 {
		serves = ready
	}
	nodes := foremost(serves)
	if address.Defers {
		nodes = slices.DeleteFunc(nodes, func(n string) bool { return n == s.Self && len(nodes) > 1 })
	}
	if len(nodes) == 0 {
		return candidates{}
	}
	return candidates{
		nodes:   s.intern(nodes, preferred, address),
		gradual: slices.ContainsFunc(nodes, func(n string) bool { return gradual[n] }),
	}
}

// deliverers yields the nodes on a segment that are not excluded and deliver a Service. Under policy Local its cost is
// proportional to the number of nodes with endpoints. All nodes deliver an empty address alike: each refuses its connections.
func (s *Shared) deliverers(on *Segment, address *Address, svc *Service, empty bool) func(yield func(*Neighbour) bool) {
	ready := svc.Ready(address.Addr)
	return func(yield func(*Neighbour) bool) {
		if len(ready) == 0 && !empty {
			return
		}
		try := func(n *Neighbour) bool {
			node, known := s.Nodes[n.Node]
			return !known || node.Excluded || yield(n)
		}
		if svc.Local && !empty {
			for _, name := range ready {
				if i, ok := slices.BinarySearchFunc(on.Nodes, Neighbour{Node: name}, CompareNeighbours); ok && !try(&on.Nodes[i]) {
					return
				}
			}
			return
		}
		for i := range on.Nodes {
			if !try(&on.Nodes[i]) {
				return
			}
		}
	}
}

// intern returns the Candidates with this content. Equal Candidates have the same pointer.
func (s *Shared) intern(nodes []string, preferred map[string]bool, address *Address) *ownership.Candidates {
	all := make(ownership.Candidates, 0, len(nodes))
	var content strings.Builder
	for _, n := range nodes {
		c := ownership.Candidate{Node: n, Preferred: preferred[n], Standing: s.standing(n, address)}
		all = append(all, c)
		content.WriteString(n)
		if c.Preferred {
			content.WriteByte('+')
		}
		content.WriteByte(0)
		content.WriteByte('0' + byte(c.Standing))
	}
	if s.known == nil {
		s.known = map[string]*ownership.Candidates{}
	}
	c := s.known[content.String()]
	if c == nil {
		c = s.before[content.String()]
	}
	if c == nil {
		c = &all
	}
	s.known[content.String()] = c
	return c
}

func (s *Shared) standing(node string, address *Address) ownership.Standing {
	switch {
	case node == s.Self && address.Defers:
		return ownership.Fresh // This node is a candidate only if there is no other.
	case !slices.Contains(address.Fresh, node):
		return ownership.Settled
	case node == s.Self && address.Forwards:
		return ownership.Forwards
	}
	return ownership.Fresh
}

func (s *Shared) selects(selector *herald.Selector, address *Address, svc *Service) bool {
	return selector.Pool(address.Pool, s.Pools[address.Pool].Labels) && selector.Service(svc.Labels, s.Namespaces[svc.Name.Namespace])
}

// foremost returns the nodes that serve the most of an address's Services, sorted.
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
	slices.Sort(nodes)
	return nodes
}

// Rank returns the weight of a node for an address in rendezvous hashing: when a node goes, only its own addresses move, and
// they spread over the remaining nodes.
func Rank(address netip.Addr, node string) uint64 {
	h := fnv.New64a()
	b, _ := address.MarshalBinary() // Never fails.
	_, _ = h.Write(b)
	_, _ = h.Write([]byte(node))
	// FNV's high bits hardly differ between names that differ only in their last letter, so finish as MurmurHash3 does.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
