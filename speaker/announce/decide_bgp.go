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
	// Advertisement gives the attributes. Of several that give one network to one peer, the first by name does.
	Advertisement string
}

// decideBGP lists what this node announces to which peers for the address. Several nodes announcing one address is what
// routers balance over; there is no owner to choose, unless one of its Services is sticky.
func (s *Shared) decideBGP(address *Address, d *Decision) {
	self, known := s.Nodes[s.Self]
	// A node that leaves goes on with what it has announced, though another one announces a sticky address already, and
	// though its kube-proxy ends: the rules stay.
	if !known || s.Leaving == nil && (self.Excluded || !s.Healthy || address.sticky() && s.stickyNode(address) != s.Self) {
		return
	}
	s.decideRoutes(address, d)
}

// DecideRoutes yields the nodes that announce the address to routers, each with what Decide says there if the node is healthy
// and does not leave.
func DecideRoutes(shared *Shared, address *Address) iter.Seq2[string, Decision] {
	return func(yield func(string, Decision) bool) {
		if _, refused := shared.Infrastructure[address.Addr]; refused {
			return
		}
		s := *shared
		s.Leaving = nil
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

// decideRoutes lists what this node announces to which peers, if it is one that announces the address.
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
		if _, decided := d.Exports[peer]; !decided { // The first by name decides, for all the Services.
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

// announces reports whether this node announces anything by an advertisement, as far as it is leaving.
func (s *Shared) announces(ad *BGPAdvertisement) bool {
	return s.Leaving == nil || *s.Leaving < ad.DrainTime
}

// Drained are attributes as this node announces them: with GRACEFUL_SHUTDOWN if it is leaving (RFC 8326, section 4).
func (s *Shared) Drained(a route.Attributes) route.Attributes {
	if s.Leaving != nil {
		a.Communities = append(slices.Clone(a.Communities), route.GracefulShutdown)
	}
	return a
}

// endpointBandwidth is what one ready endpoint on the node counts as, in bytes per second. What matters to routers is the
// proportion; a megabit per second for each is a number that people can read there.
const endpointBandwidth = 125_000

// bandwidth is the link bandwidth of this node for an address: none under policy Cluster, where all nodes serve alike.
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

// eachRoute calls do for each peer that an advertisement gives the address to from the node, with the Services that it
// does so for: those that it selects and that the node delivers.
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

// poolNetwork is a network of addresses of a pool.
type poolNetwork struct {
	pool    string
	network netip.Prefix
}

// network is what an advertisement announces in place of the address; false if it is announced by itself. Whatever a
// network draws to this node must be the pool's, and must be what every node that announces it can deliver.
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

// mayAggregate reports whether a network has nothing but addresses that its pool may give out, and none of the
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

// sticky reports whether one node is to announce the address: one client's connections belong to one endpoint, and other
// nodes do not know to which.
func (a *Address) sticky() bool {
	return slices.ContainsFunc(a.Services, func(svc *Service) bool { return svc.Sticky })
}

// standing is what makes a node the one that announces a sticky address, the most important first.
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

// compareBool has false before true.
func compareBool(x, y bool) int {
	switch {
	case x == y:
		return 0
	case x:
		return 1
	}
	return -1
}

// stickyNode is the one node that announces a sticky address, by whatever advertisements: a Ready one before one that is
// not, then one that serves the most of the address's Services, one that is not behind, one that announces it to the most peers, then
// the one with the highest rank.
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
