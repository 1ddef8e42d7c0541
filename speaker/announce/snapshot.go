package announce

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"go4.org/netipx"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bgp/route"
	"github.com/heraldlb/herald/speaker/segment/ownership"
)

// Shared is what the decisions about all addresses rest on. Together with an Address it is a snapshot.
type Shared struct {
	// Self is the name of this node.
	Self string
	// Healthy tells whether this node's kube-proxy serves. A node that cannot deliver announces nothing.
	Healthy bool

	Nodes      map[string]Node
	Pools      map[string]Pool              // by name
	Namespaces map[string]map[string]string // labels by name
	L2         []L2Advertisement            // by name
	BGP        []BGPAdvertisement           // by name
	// PeerNodes says which nodes hold the session with a peer, for those peers that not all nodes hold.
	PeerNodes map[string]labels.Selector
	// Leaving tells for how long this node has been leaving: what it announces to routers is drained, and nothing else is
	// announced to them. Nil: it is not, as far as is known.
	Leaving *time.Duration
	// Segments are this node's interfaces with the nodes that are heard on them.
	Segments []Segment
	// Infrastructure has the addresses of nodes, of BGP peers and of this node's gateways, with what each is:
	// "an address of node n1". They are not announced, whatever a record says.
	Infrastructure map[netip.Addr]string

	// made are the candidates that were made for some address, for others that have the same.
	made map[string]candidates
	// known are the candidates of this snapshot by content, and before those of the snapshot before it, so that
	// equal ones are the same.
	known, before map[string]*ownership.Candidates
	key           []byte // reused
	// networks tells which networks may be announced for addresses of a pool.
	networks map[poolNetwork]bool
}

// Follow names the snapshot before this one. Candidates that are equal to some of that one are the same.
func (s *Shared) Follow(before *Shared) { s.before = before.known }

// candidates are the nodes that may own an address on a segment.
type candidates struct {
	nodes   *ownership.Candidates // nil: there are none
	gradual bool
}

// Node is a node as far as it may announce.
type Node struct {
	Labels map[string]string
	// Excluded: it has the label node.kubernetes.io/exclude-from-external-load-balancers, or a taint that says
	// that it is being shut down or removed, or it is being deleted.
	Excluded bool
	// Ready is its condition Ready.
	Ready bool
}

// Pool is an IPPool as far as speakers need it.
type Pool struct {
	Labels map[string]string
	// Yield: an address that a stranger uses is given up. Otherwise it is defended.
	Yield bool
	// Addresses are all that the pool has but for those that are excluded; nil: none that could be read.
	Addresses *netipx.IPSet
}

// Segment is one of this node's interfaces with the nodes on its segment, this one among them.
type Segment struct {
	Interface string
	Nodes     []Neighbour // by name

	distinct []netip.Prefix // what networks returns, once it has been asked
}

// networks are the networks of the nodes on the segment, each once. Mostly that is one for each family, however many
// nodes there are.
func (on *Segment) networks() []netip.Prefix {
	if on.distinct == nil {
		on.distinct = []netip.Prefix{}
		seen := map[netip.Prefix]bool{}
		for i := range on.Nodes {
			for _, p := range on.Nodes[i].Subnets {
				if p = p.Masked(); !p.IsSingleIP() && !seen[p] {
					seen[p] = true
					on.distinct = append(on.distinct, p)
				}
			}
		}
	}
	return on.distinct
}

// Neighbour is a node on a segment, as it says itself.
type Neighbour struct {
	Node string
	// Interface is its own name of its interface.
	Interface string
	Subnets   []netip.Prefix
}

// covers reports whether an advertisement that names these interfaces announces an address from the node: on
// the interfaces that are named or, if none is, where a subnet contains the address.
func (n *Neighbour) covers(address netip.Addr, named []string) bool {
	if len(named) > 0 {
		return slices.Contains(named, n.Interface)
	}
	return slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return !p.IsSingleIP() && p.Contains(address) })
}

// holds reports whether nodes with these labels hold the session with the peer.
func (s *Shared) holds(peer string, node map[string]string) bool {
	selector, some := s.PeerNodes[peer]
	return !some || selector.Matches(labels.Set(node))
}

// L2Advertisement is one that can be used.
type L2Advertisement struct {
	Name       string
	Selector   *herald.Selector
	Interfaces []string
	Preferred  labels.Selector // nil: no node is
	Gradual    bool
	// WithoutEndpoints: an address is announced although no Service that has it has a ready endpoint.
	WithoutEndpoints bool
}

// BGPAdvertisement is one that can be used.
type BGPAdvertisement struct {
	Name     string
	Selector *herald.Selector
	// Peers are the names of the peers that get the routes, from the nodes that hold their sessions.
	Peers      []string
	Attributes route.Attributes
	// Length4 and Length6 are the prefix lengths of the networks that are announced in place of addresses; 0: none are.
	Length4, Length6 int
	// Permits are what Services may decide for themselves.
	Permits []herald.ServiceOverride
	// Weighted: routes have a link bandwidth, in proportion to the endpoints on the node.
	Weighted bool
	// DrainTime is how long a node that leaves goes on announcing.
	DrainTime time.Duration
	// WithoutEndpoints: an address is announced although no Service that has it has a ready endpoint.
	WithoutEndpoints bool
}

// Address is an address that is in the status of Services and recorded for their UIDs; nothing else is
// announced.
type Address struct {
	netip.Addr
	Pool string
	// New: it was recorded less than a minute ago.
	New bool
	// Fresh are the nodes, sorted, whose endpoints under policy Local became ready so short a time ago that their kube-proxies
	// may not know them. The nodes agree on them, but for the time that it takes to hear of an endpoint.
	Fresh []string
	// Behind are those that come last as this node sees it, sorted: of itself it knows more than the time.
	Behind []string
	// Forwards: this node's kube-proxy says that it forwards the address. Leaves: it says that it does not, so this node leaves
	// the address to others.
	Forwards, Leaves bool
	// Services are those that have it, several if they share it. Their order means nothing.
	Services []*Service
}

// Service is one Service of type LoadBalancer.
type Service struct {
	Name   types.NamespacedName
	Labels map[string]string
	// Local: traffic is delivered only to endpoints on the node that it reaches.
	Local bool
	// HealthPort is the port on which each kube-proxy tells, under policy Local, whether its rules have a ready endpoint on
	// the node; 0: there is none.
	HealthPort uint16
	// Sticky: one client's connections belong to one endpoint, which only one node can see to.
	Sticky bool
	// Overrides are what it decides for itself; nil: nothing.
	Overrides *herald.Overrides
	// Ready4 and Ready6 list the nodes that have a ready endpoint of the family, sorted; "" stands for ready
	// endpoints that are on no node, such as those that users write by hand.
	Ready4, Ready6 []string
	// Count4 and Count6 count the ready endpoints on each node, under policy Local.
	Count4, Count6 map[string]int
	// Leaving4 and Leaving6 list, under policy Local, the nodes that have endpoints which are being terminated and still
	// serve, sorted.
	Leaving4, Leaving6 []string
}

// Ready lists the nodes with ready endpoints for traffic to the address.
func (svc *Service) Ready(address netip.Addr) []string {
	if address.Is4() {
		return svc.Ready4
	}
	return svc.Ready6
}

// empty reports whether no Service that has the address has a ready endpoint of its family, on any node.
func (a *Address) empty() bool {
	return !slices.ContainsFunc(a.Services, func(svc *Service) bool { return len(svc.Ready(a.Addr)) > 0 })
}

// Delivers reports whether traffic to the address that reaches the node finds an endpoint.
func (svc *Service) Delivers(address netip.Addr, node string) bool {
	ready := svc.Ready(address)
	if svc.Local {
		_, found := slices.BinarySearch(ready, node)
		return found
	}
	return len(ready) > 0
}

// CompareNeighbours is the order of a Segment's nodes.
func CompareNeighbours(x, y Neighbour) int { return strings.Compare(x.Node, y.Node) }
