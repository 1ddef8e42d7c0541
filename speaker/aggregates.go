package speaker

import (
	"net/netip"

	"github.com/heraldlb/herald/speaker/announce"
	"github.com/heraldlb/herald/speaker/bgp/route"
)

// aggregates are the networks that this node announces in place of addresses. A network is announced as long as an address
// in it is to be announced. The loop owns it.
type aggregates struct {
	// addresses counts, for each network, the addresses that it stands for, by peer and advertisement.
	addresses map[netip.Prefix]map[aggregateBy]int
	changed   map[netip.Prefix]bool
}

// aggregateBy is an Aggregate without its network.
type aggregateBy struct{ peer, advertisement string }

func newAggregates() aggregates {
	return aggregates{addresses: map[netip.Prefix]map[aggregateBy]int{}, changed: map[netip.Prefix]bool{}}
}

// replace replaces the aggregates of one address.
func (g *aggregates) replace(before, after []announce.Aggregate) {
	for _, a := range before {
		g.add(a, -1)
	}
	for _, a := range after {
		g.add(a, 1)
	}
}

func (g *aggregates) add(a announce.Aggregate, n int) {
	by := g.addresses[a.Prefix]
	if by == nil {
		by = map[aggregateBy]int{}
		g.addresses[a.Prefix] = by
	}
	key := aggregateBy{a.Peer, a.Advertisement}
	before := by[key]
	by[key] += n
	if by[key] == 0 {
		delete(by, key)
	}
	if len(by) == 0 {
		delete(g.addresses, a.Prefix)
	}
	if before == 0 || by[key] == 0 {
		g.changed[a.Prefix] = true
	}
}

// changeAll marks every network as changed: the attributes of advertisements may have changed.
func (g *aggregates) changeAll() {
	for network := range g.addresses {
		g.changed[network] = true
	}
}

// exports returns the routes to a network, by peer.
func (g *aggregates) exports(network netip.Prefix, shared *announce.Shared) map[string]route.Attributes {
	first := map[string]string{}
	for by := range g.addresses[network] {
		if name, some := first[by.peer]; !some || by.advertisement < name {
			first[by.peer] = by.advertisement
		}
	}
	exports := make(map[string]route.Attributes, len(first))
	for peer, name := range first {
		for i := range shared.BGP {
			if ad := &shared.BGP[i]; ad.Name == name {
				exports[peer] = shared.Drained(ad.Attributes)
			}
		}
	}
	return exports
}

// tellRouters passes the changed routes to the BGP speaker. New routes are announced before old ones are withdrawn.
func (l *loop) tellRouters() {
	for network := range l.aggregates.changed {
		l.routes[network] = l.aggregates.exports(network, l.shared)
	}
	clear(l.aggregates.changed)
	for prefix, exports := range l.routes {
		if len(exports) > 0 {
			l.s.bgp.Set(prefix, exports)
		}
	}
	for prefix := range l.routes {
		if len(l.routes[prefix]) == 0 {
			l.s.bgp.Set(prefix, nil)
		}
	}
	if len(l.routes) > 0 {
		l.routes = map[netip.Prefix]map[string]route.Attributes{} // The memory of a large map is released.
	}
}
