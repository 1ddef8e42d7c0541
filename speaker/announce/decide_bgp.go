package announce

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"

	"github.com/heraldlb/herald/speaker/bgp/route"
)

// Aggregate is a network that is announced to a peer in place of the addresses in it.
type Aggregate struct {
	Prefix netip.Prefix
	Peer   string
	// Advertisement is the name of the advertisement that gives the attributes. If several advertisements announce the same
	// network to the same peer, the first by name gives the attributes.
	Advertisement string
}

// decideBGP decides what this node announces to which peers for the address. Routers balance over all nodes that announce an
// address, so there is no owner to choose, unless one of its Services is sticky.
func (s *Shared) decideBGP(address *Address, d *Decision) {
	self, known := s.Nodes[s.Self]
	// A node that leaves goes on announcing its routes even if another node already announces a sticky address, and even if its
	// own kube-proxy has ended: the rules of kube-proxy stay.
	if !known || s.Draining == nil && (self.Excluded || !s.Healthy || address.sticky() && s.stickyNode(address) != s.Self) {
		return
	}
	s.decideRoutes(address, d)
}

// DecideRoutes yields the nodes that announce the address to routers. Each comes with the Decision of that node, provided that
// the node is healthy and does not leave.
func DecideRoutes(shared *Shared, address *Address) iter.Seq2[string, Decision] {
	return func(yield func(string, Decision) bool) {
		if _, refused := shared.Infrastructure[address.Addr]; refused {
			return
		}
		s := *shared
		s.Draining = nil
		sticky, chosen := address.sticky(), ""
		if sticky {
			chosen = s.stickyNode(address)
		}
		for node, n := range s.Nodes {
			if n.Excluded || sticky && node != chosen {
				continue
			}
			s.Self = node
			var d Decision
			if s.decideRoutes(address, &d); len(d.Exports)+len(d.Aggregates) > 0 && !yield(node, d) {
				return
			}
		}
	}
}

// decideRoutes decides what this node announces to which peers, if it is one of the nodes that announce the address.
func (s *Shared) decideRoutes(address *Address, d *Decision) {
	s.eachRoute(s.Self, address, func(ad *BGPAdvertisement, peer string, services []*Service) {
		if !s.announces(ad) {
			return
		}
		attributes, own := overridden(ad, services)
		if network, ok := s.network(ad, address); ok && !own {
			d.Aggregates = append(d.Aggregates, Aggregate{network, peer, ad.Name})
			return
		}
		if _, decided := d.Exports[peer]; !decided { // The first advertisement by name decides for all Services.
			if d.Exports == nil {
				d.Exports = map[string]route.Attributes{}
			}
			if ad.Weighted {
				attributes.Bandwidth = s.bandwidth(address, services)
			}
			d.Exports[peer] = s.Drained(attributes)
		}
	})
	slices.SortStableFunc(d.Aggregates, func(x, y Aggregate) int {
		return cmp.Or(cmp.Compare(x.Advertisement, y.Advertisement), cmp.Compare(x.Peer, y.Peer))
	})
}

// announces reports whether this node still announces anything for an advertisement: a node that leaves does so for the
// advertisement's drain time.
func (s *Shared) announces(ad *BGPAdvertisement) bool {
	return s.Draining == nil || *s.Draining < ad.DrainTime
}

// Drained returns the attributes as this node announces them: with GRACEFUL_SHUTDOWN if it is leaving (RFC 8326, section 4).
func (s *Shared) Drained(a route.Attributes) route.Attributes {
	if s.Draining != nil {
		a.Communities = append(slices.Clone(a.Communities), route.GracefulShutdown)
	}
	return a
}

// endpointBandwidth is the bandwidth that one ready endpoint on the node counts as, in bytes per second. For routers only the
// proportion matters. One megabit per second for each endpoint is easy to read in their output.
const endpointBandwidth = 125_000

// bandwidth returns the link bandwidth of this node for an address. It is zero under policy Cluster, where all nodes serve
// alike.
func (s *Shared) bandwidth(address *Address, services []*Service) (sum float32) {
	for _, svc := range services {
		count := svc.Count6
		if address.Is4() {
			count = svc.Count4
		}
		sum += endpointBandwidth * float32(count[s.Self])
	}
	return sum
}

// eachRoute calls do for each advertisement that announces the address from the node, and for each of its peers. services are
// those that the advertisement selects and that the node delivers.
func (s *Shared) eachRoute(node string, address *Address, do func(ad *BGPAdvertisement, peer string, services []*Service)) {
	empty, labels := address.empty(), s.Nodes[node].Labels
	for i := range s.BGP {
		ad := &s.BGP[i]
		if empty && !ad.WithoutEndpoints || !ad.Selector.Node(labels) {
			continue
		}
		var services []*Service
		for _, svc := range address.Services {
			// If the address is empty, every node delivers it alike.
			if (empty || svc.Delivers(address.Addr, node)) && s.selects(ad.Selector, address, svc) && !svc.silent(ad) {
				services = append(services, svc)
			}
		}
		if len(services) == 0 {
			continue
		}
		for _, peer := range ad.Peers {
			if s.holds(peer, labels) {
				do(ad, peer, services)
			}
		}
	}
}

// poolNetwork is a network together with a pool that has addresses in it.
type poolNetwork struct {
	pool    string
	network netip.Prefix
}

// network returns the network that an advertisement announces in place of the address, or false if the address itself is
// announced. All addresses of the network must belong to the pool, and every node that announces the network must be able to
// deliver them.
func (s *Shared) network(ad *BGPAdvertisement, address *Address) (netip.Prefix, bool) {
	length := ad.Length6
	if address.Is4() {
		length = ad.Length4
	}
	if length == 0 || length >= address.BitLen() ||
		slices.ContainsFunc(address.Services, func(svc *Service) bool { return svc.Local || svc.Sticky }) {
		return netip.Prefix{}, false
	}
	key := poolNetwork{address.Pool, netip.PrefixFrom(address.Addr, length).Masked()}
	may, known := s.networks[key]
	if !known {
		may = s.mayAggregate(key)
		if s.networks == nil {
			s.networks = map[poolNetwork]bool{}
		}
		s.networks[key] = may
	}
	return key.network, may
}

// mayAggregate reports whether all addresses of a network are addresses that its pool may give out, and none belongs to the
// infrastructure.
func (s *Shared) mayAggregate(n poolNetwork) bool {
	addresses := s.Pools[n.pool].Addresses
	if addresses == nil || !addresses.ContainsPrefix(n.network) {
		return false
	}
	for a := range s.Infrastructure {
		if n.network.Contains(a) {
			return false
		}
	}
	return true
}

// sticky reports whether only one node may announce the address: all connections of a client belong to one endpoint, and other
// nodes do not know to which one.
func (a *Address) sticky() bool {
	return slices.ContainsFunc(a.Services, func(svc *Service) bool { return svc.Sticky })
}

// standing has the properties of a node that determine which node announces a sticky address, the most important first.
type standing struct {
	ready  bool
	serves int // of the address's Services
	behind bool
	peers  int
	rank   uint64
	name   string
}

func (x standing) compare(y standing) int {
	return cmp.Or(compareBool(x.ready, y.ready), cmp.Compare(x.serves, y.serves), compareBool(y.behind, x.behind),
		cmp.Compare(x.peers, y.peers), cmp.Compare(x.rank, y.rank), cmp.Compare(x.name, y.name))
}

// compareBool orders false before true.
func compareBool(x, y bool) int {
	switch {
	case x == y:
		return 0
	case x:
		return 1
	}
	return -1
}

// stickyNode returns the one node that announces a sticky address for all advertisements. It prefers a node that is Ready, then
// one that serves the most of the address's Services, then one that is not behind, then one that announces the address to the
// most peers, and then the one with the highest rank.
func (s *Shared) stickyNode(address *Address) string {
	var best standing
	for name, node := range s.Nodes {
		if node.Excluded || best.ready && !node.Ready {
			continue
		}
		serves, peers := map[*Service]bool{}, map[string]bool{}
		s.eachRoute(name, address, func(_ *BGPAdvertisement, peer string, services []*Service) {
			peers[peer] = true
			for _, svc := range services {
				serves[svc] = true
			}
		})
		if len(peers) == 0 {
			continue
		}
		if this := (standing{node.Ready, len(serves), slices.Contains(address.Behind, name), len(peers), Rank(address.Addr, name), name}); best.name == "" || this.compare(best) > 0 {
			best = this
		}
	}
	return best.name
}
