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

// Shared has the inputs that the decisions about all addresses share. Together with an Address it is a snapshot.
type Shared struct {
	// Self is the name of this node.
	Self string
	// Healthy tells whether this node's kube-proxy serves. A node that cannot deliver announces nothing.
	Healthy bool

	Nodes      map[string]Node
	Pools      map[string]Pool              // by name
	Namespaces map[string]map[string]string // labels by name
	L2         []L2Advertisement            // sorted by name
	BGP        []BGPAdvertisement           // sorted by name
	// PeerNodes selects the nodes that hold the session with a peer. A peer that is not in it has sessions with all nodes.
	PeerNodes map[string]labels.Selector
	// Draining is how long this node has been draining the routes that it has announced. It announces no others. Nil: it does not
	// drain, as far as is known.
	Draining *time.Duration
	// Segments are this node's interfaces with the nodes that are heard on them.
	Segments []Segment
	// Infrastructure has the addresses of nodes, of BGP peers and of this node's gateways, with a description of each, such
	// as "an address of node n1". They are not announced, whatever a record says.
	Infrastructure map[netip.Addr]string

	// made caches candidates by the key of appendKey.
	made map[string]candidates
	// known has the candidates of this snapshot by content, and before has those of the previous snapshot, so that equal
	// candidates have the same pointer.
	known, before map[string]*ownership.Candidates
	key           []byte // reused
	// networks caches whether a network may be announced for addresses of a pool.
	networks map[poolNetwork]bool
}

// Follow sets the snapshot before this one. Candidates that are equal to candidates of that snapshot have the same pointer.
func (s *Shared) Follow(before *Shared) { s.before = before.known }

// candidates are the nodes that may own an address on a segment.
type candidates struct {
	nodes   *ownership.Candidates // nil: there are none
	gradual bool
}

// Node has the properties of a node that determine whether it may announce.
type Node struct {
	UID    types.UID
	Labels map[string]string
	// Excluded is set if the node has the label node.kubernetes.io/exclude-from-external-load-balancers, or a taint that says
	// that it is being shut down or removed, or if it is being deleted.
	Excluded bool
	// Ready is the node's condition Ready.
	Ready bool
}

// Pool has the parts of an IPPool that speakers need.
type Pool struct {
	UID    types.UID
	Labels map[string]string
	// Yield says that an address that a stranger uses is given up. Otherwise it is defended.
	Yield bool
	// Addresses are the addresses of the pool without the excluded ones; nil: none could be read.
	Addresses *netipx.IPSet
}

// Segment is one of this node's interfaces with the nodes on its segment, including this node.
type Segment struct {
	Interface string
	Nodes     []Neighbour // sorted by name

	distinct []netip.Prefix // the cached result of networks
}

// networks returns the distinct networks of the nodes on the segment. Usually there is one for each family, however many nodes
// there are.
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

// Neighbour is a node on a segment, as the node describes itself.
type Neighbour struct {
	Node string
	// Interface is the node's own name for its interface on the segment.
	Interface string
	Subnets   []netip.Prefix
}

// covers reports whether an advertisement that names these interfaces announces an address from the node: on the named
// interfaces or, if none is named, where a subnet contains the address.
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

// L2Advertisement is the compiled form of a valid L2Advertisement.
type L2Advertisement struct {
	Name       string
	Selector   *herald.Selector
	Interfaces []string
	Preferred  labels.Selector // nil: no node is preferred
	Gradual    bool
	// WithoutEndpoints says that an address is announced even if no Service that has it has a ready endpoint.
	WithoutEndpoints bool
}

// BGPAdvertisement is the compiled form of a valid BGPAdvertisement.
type BGPAdvertisement struct {
	Name     string
	Selector *herald.Selector
	// Peers are the names of the peers that get the routes from the nodes that hold sessions with them.
	Peers      []string
	Attributes route.Attributes
	// Length4 and Length6 are the prefix lengths of the networks that are announced in place of addresses; 0: no networks are
	// announced.
	Length4, Length6 int
	// Permits are the attributes that Services may override.
	Permits []herald.ServiceOverride
	// Weighted says that routes have a link bandwidth in proportion to the endpoints on the node.
	Weighted bool
	// DrainTime is how long a node that leaves goes on announcing.
	DrainTime time.Duration
	// WithoutEndpoints says that an address is announced even if no Service that has it has a ready endpoint.
	WithoutEndpoints bool

	spec *herald.BGPAdvertisementSpec // from which Peers are selected
}

// Address is an address that is in the status of Services and is recorded for their UIDs. No other address is announced.
type Address struct {
	netip.Addr
	Pool string
	// New says that the address was recorded less than a minute ago.
	New bool
	// Fresh are the nodes, sorted, whose endpoints under policy Local became ready so recently that their kube-proxies may not
	// know them yet. All nodes have the same Fresh, except for the time that it takes them to hear of an endpoint.
	Fresh []string
	// Behind are the nodes, sorted, that come last from the point of view of this node. It may differ from Fresh, because this
	// node also knows what its own kube-proxy says.
	Behind []string
	// Forwards says that this node's kube-proxy says that it forwards the address. Defers says that this node leaves the address
	// to others, because its kube-proxy says that it does not forward the address.
	Forwards, Defers bool
	// Services are the Services that have the address: several if they share it. Their order has no meaning.
	Services []*Service
}

// Service is one Service of type LoadBalancer.
type Service struct {
	Name   types.NamespacedName
	Labels map[string]string
	// Local says that a node delivers traffic only to its own endpoints.
	Local bool
	// HealthPort is the port on which each kube-proxy tells, under policy Local, whether its rules have a ready endpoint on
	// the node; 0: there is none.
	HealthPort uint16
	// Sticky says that all connections of a client belong to one endpoint. Only a single node can ensure this.
	Sticky bool
	// Overrides are the Service's own settings; nil: there are none.
	Overrides *herald.Overrides
	// Ready4 and Ready6 list the nodes that have a ready endpoint of the family, sorted. The empty name stands for ready
	// endpoints that are on no node, such as those that users write by hand.
	Ready4, Ready6 []string
	// Count4 and Count6 count the ready endpoints on each node, under policy Local.
	Count4, Count6 map[string]int
	// Terminating4 and Terminating6 list, under policy Local, the nodes that have endpoints that are terminating and still serve,
	// sorted.
	Terminating4, Terminating6 []string
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

// CompareNeighbours orders the nodes of a Segment by name.
func CompareNeighbours(x, y Neighbour) int { return strings.Compare(x.Node, y.Node) }
