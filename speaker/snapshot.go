package speaker

import (
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bgp"
)

// Shared is what the decisions about all addresses rest on. Together with an Address it is a snapshot.
// Every node sees the same, but for the delays of the wire; only Self and Healthy are its own.
type Shared struct {
	// Self is the name of this node.
	Self string
	// Healthy tells whether this node's kube-proxy serves. A node that cannot deliver announces nothing.
	Healthy bool
	// Away tells that this node was asleep or off the network, and has not heard yet what became of its
	// addresses meanwhile: it answers for nothing on the segment.
	Away bool

	Nodes      map[string]Node
	Pools      map[string]map[string]string // labels by name
	Namespaces map[string]map[string]string // labels by name
	L2         []L2Advertisement            // by name
	BGP        []BGPAdvertisement           // by name
	// PeerNodes says which nodes hold the session with a peer, for those peers that not all nodes hold.
	PeerNodes map[string]labels.Selector
}

// Node is a node as far as it may announce.
type Node struct {
	Labels map[string]string
	// Excluded: it bears the label node.kubernetes.io/exclude-from-external-load-balancers.
	Excluded bool
	// Alive: its speaker's Lease is fresh, which also says that its kube-proxy serves.
	Alive bool
	// Interfaces are those that are up, with their subnets.
	Interfaces []Interface
}

// Interface is where a node meets a segment.
type Interface struct {
	Name    string
	Subnets []netip.Prefix
}

// eligible reports whether the node may announce anything.
func (n Node) eligible() bool { return n.Alive && !n.Excluded }

// holds reports whether nodes with these labels hold the session with the peer.
func (s *Shared) holds(peer string, node map[string]string) bool {
	selector, some := s.PeerNodes[peer]
	return !some || selector.Matches(labels.Set(node))
}

// reaches lists the node's interfaces on which an address is announced: those that are named or, if
// none is, those with a subnet that holds it.
func (n Node) reaches(address netip.Addr, named []string) []string {
	var on []string
	for _, i := range n.Interfaces {
		holds := slices.ContainsFunc(i.Subnets, func(s netip.Prefix) bool { return s.Contains(address) })
		if slices.Contains(named, i.Name) || len(named) == 0 && holds {
			on = append(on, i.Name)
		}
	}
	return on
}

// answersOn lists the node's interfaces on which these advertisements announce an address; some may come twice.
func (n Node) answersOn(address netip.Addr, ads []L2Advertisement) (on []string) {
	for _, ad := range ads {
		if ad.Selector.Node(n.Labels) {
			on = append(on, n.reaches(address, ad.Interfaces)...)
		}
	}
	return on
}

// L2Advertisement is one that can be used.
type L2Advertisement struct {
	Name       string
	Selector   *herald.Selector
	Interfaces []string
}

// BGPAdvertisement is one that can be used.
type BGPAdvertisement struct {
	Name     string
	Selector *herald.Selector
	// Peers are the names of the peers that get the routes, from the nodes that hold their sessions.
	Peers      []string
	Attributes bgp.Attributes
}

// Address is an address that is in the status of Services and recorded for their UIDs; nothing else is
// announced.
type Address struct {
	netip.Addr
	Pool string
	// Services are those that have it, several if they share it. Their order means nothing.
	Services []*Service
	// Claims of nodes, each by its SpeakerStatus, to answer for the address; at most one of each.
	Claims []Claim
}

// claim returns a node's claim.
func (a *Address) claim(node string) (_ Claim, ok bool) {
	i := slices.IndexFunc(a.Claims, func(c Claim) bool { return c.Node == node })
	if i < 0 {
		return Claim{}, false
	}
	return a.Claims[i], true
}

// Service is one Service of type LoadBalancer.
type Service struct {
	Name   types.NamespacedName
	Labels map[string]string
	// Local: traffic is delivered only to endpoints on the node that it reaches.
	Local bool
	// Sticky: one client's connections belong to one endpoint, which only one node can see to.
	Sticky bool
	// Ready lists the nodes that have a ready endpoint; "" stands for ready endpoints that are on no node,
	// such as those that users write by hand.
	Ready []string
}

// Claim says that a node answers for an address, and since when. A zero time says that it only asks to:
// it does not have the address, but whoever else wants it sees that it may soon.
type Claim struct {
	Node  string
	Since time.Time
}
