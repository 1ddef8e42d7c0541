package speaker

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/segment"
)

// Decision is what is to be done about one address. The zero Decision is to do nothing.
type Decision struct {
	// Segments says who may own the address on which of this node's interfaces. Who does is agreed on the wire,
	// see package segment.
	Segments []Placement
	// Exports are the routes that this node announces to routers, by peer.
	Exports map[string]bgp.Attributes
	// Refused says what the address is if it must not be announced: "an address of node n1". The other fields are
	// empty then.
	Refused string
}

// Placement is an address on one interface.
type Placement struct {
	Interface string
	segment.Want
}

// Decide says how an address is to be announced: what any of the Services that share it is to have. It is a
// function of its arguments, apart from what Shared remembers to spare work.
func Decide(shared *Shared, address *Address) Decision {
	if what, ok := shared.Infrastructure[address.Addr]; ok {
		return Decision{Refused: what}
	}
	return Decision{Segments: shared.decideL2(address), Exports: shared.decideBGP(address)}
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
			all = append(all, Placement{Interface: on.Interface, Want: segment.Want{
				Candidates: c.nodes, Gradual: c.gradual, New: address.New, Defend: !s.Pools[address.Pool].Yield,
			}})
		}
	}
	return all
}

// candidates are the nodes that may own an address on a segment. Most addresses of a cluster have the same, so
// they are looked up by what they depend on.
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

// appendKey appends everything that the candidates for an address on the segment depend on and that differs
// between addresses. Every part has a length or an end, so that different things have different keys. Whether the
// address is empty follows from the parts for its Services.
func (on *Segment) appendKey(key []byte, address *Address, advertised [][]int) []byte {
	key = append(append(key, on.Interface...), 0)
	key = binary.AppendUvarint(key, uint64(len(address.Services)))
	for i, svc := range address.Services {
		key = binary.AppendUvarint(key, uint64(len(advertised[i])))
		for _, j := range advertised[i] {
			key = binary.AppendUvarint(key, uint64(j))
		}
		ready := svc.ready(address.Addr)
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
	for i, network := range on.networks() {
		if network.Contains(address.Addr) {
			key = binary.AppendUvarint(key, uint64(i))
		}
	}
	return key
}

// makeCandidates chooses the nodes that serve the most of an address's Services. Mostly all serve all; but one
// Service may be advertised from fewer nodes, or have its endpoints on fewer. Nodes that are not Ready are chosen
// only if no other node serves any: when the API server has been away, no node is Ready.
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
	if len(nodes) == 0 {
		return candidates{}
	}
	return candidates{
		nodes:   s.intern(nodes, preferred),
		gradual: slices.ContainsFunc(nodes, func(n string) bool { return gradual[n] }),
	}
}

// deliverers yields the nodes on a segment that are not excluded and deliver a Service. Under policy Local that
// costs in proportion to the nodes with endpoints. An address that is empty is delivered by all nodes alike: each
// refuses its connections.
func (s *Shared) deliverers(on *Segment, address *Address, svc *Service, empty bool) func(yield func(*Neighbour) bool) {
	ready := svc.ready(address.Addr)
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
				if i, ok := slices.BinarySearchFunc(on.Nodes, Neighbour{Node: name}, compareNeighbours); ok && !try(&on.Nodes[i]) {
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

// intern returns the one Candidates with this content.
func (s *Shared) intern(nodes []string, preferred map[string]bool) *segment.Candidates {
	var content strings.Builder
	for _, n := range nodes {
		content.WriteString(n)
		if preferred[n] {
			content.WriteByte('+')
		}
		content.WriteByte(0)
	}
	if s.known == nil {
		s.known = map[string]*segment.Candidates{}
	}
	c := s.known[content.String()]
	if c == nil {
		c = s.before[content.String()]
	}
	if c == nil {
		c = segment.NewCandidates(nodes, func(n string) bool { return preferred[n] })
	}
	s.known[content.String()] = c
	return c
}

func (s *Shared) selects(selector *herald.Selector, address *Address, svc *Service) bool {
	return selector.Pool(address.Pool, s.Pools[address.Pool].Labels) && selector.Service(svc.Labels, s.Namespaces[svc.Name.Namespace])
}

// foremost are the nodes that serve the most of an address's Services, sorted.
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
	empty := address.empty()
	sticky := slices.ContainsFunc(address.Services, func(svc *Service) bool { return svc.Sticky })
	for _, ad := range s.BGP {
		if empty && !ad.WithoutEndpoints || !ad.Selector.Node(self.Labels) {
			continue
		}
		services := services{all: s.selected(address, ad), empty: empty}
		if services.served(address.Addr, s.Self) == 0 || sticky && s.stickyNode(address.Addr, services, ad) != s.Self {
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

// services are those of an address that an advertisement selects. If the address is empty, every node serves all.
type services struct {
	all   []*Service
	empty bool
}

// selected are the Services of the address that this advertisement is about.
func (s *Shared) selected(address *Address, ad BGPAdvertisement) (all []*Service) {
	for _, svc := range address.Services {
		if s.selects(ad.Selector, address, svc) {
			all = append(all, svc)
		}
	}
	return all
}

// served counts those that the node delivers.
func (o services) served(address netip.Addr, node string) (n int) {
	for _, svc := range o.all {
		if o.empty || svc.delivers(address, node) {
			n++
		}
	}
	return n
}

// stickyNode is the one node that announces a sticky address by this advertisement: a Ready one before one that is
// not, then one that serves the most of the address's Services, then the one with the highest rank.
func (s *Shared) stickyNode(address netip.Addr, selected services, ad BGPAdvertisement) (owner string) {
	var best struct {
		ready  bool
		serves int
		rank   uint64
	}
	for name, node := range s.Nodes {
		if node.Excluded || best.ready && !node.Ready || !ad.Selector.Node(node.Labels) ||
			!slices.ContainsFunc(ad.Peers, func(peer string) bool { return s.holds(peer, node.Labels) }) {
			continue
		}
		n := selected.served(address, name)
		if n == 0 || n < best.serves && node.Ready == best.ready {
			continue
		}
		r := rank(address, name)
		if node.Ready != best.ready || n > best.serves || cmp.Or(cmp.Compare(r, best.rank), cmp.Compare(name, owner)) > 0 {
			owner, best.ready, best.serves, best.rank = name, node.Ready, n, r
		}
	}
	return owner
}
