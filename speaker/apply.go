package speaker

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/heraldlb/herald/speaker/announce"
	"github.com/heraldlb/herald/speaker/bgp/route"
	"github.com/heraldlb/herald/speaker/segment"
	"github.com/heraldlb/herald/speaker/segment/ownership"
)

// wanted is an address with what a segment is told about it.
type wanted struct {
	addr netip.Addr
	want *ownership.Want
}

// apply passes on the differences between two decisions about an address. If the address only passes from one Service to
// another, or one more Service shares it, there is no difference.
func (l *loop) apply(address netip.Addr, before, after announce.Decision, wants map[string][]wanted) {
	for _, p := range before.Segments {
		if !slices.ContainsFunc(after.Segments, func(o announce.Placement) bool { return o.Interface == p.Interface }) {
			wants[p.Interface] = append(wants[p.Interface], wanted{address, nil})
			l.mayOwn(p.Interface, address, false)
		}
	}
	for i := range after.Segments {
		p := &after.Segments[i]
		at := slices.IndexFunc(before.Segments, func(o announce.Placement) bool { return o.Interface == p.Interface })
		if at >= 0 {
			p.New = before.Segments[at].New // If it had to be probed, it was probed then.
			if before.Segments[at] == *p {
				continue
			}
		}
		want := p.Want
		wants[p.Interface] = append(wants[p.Interface], wanted{address, &want})
		l.mayOwn(p.Interface, address, l.among(p.Candidates))
	}
	if !maps.EqualFunc(before.Exports, after.Exports, route.Attributes.Equal) {
		l.routes[netip.PrefixFrom(address, address.BitLen())] = after.Exports
	}
	if !slices.Equal(before.Aggregates, after.Aggregates) {
		l.aggregates.replace(before.Aggregates, after.Aggregates)
	}
}

// among reports whether this node is one of the candidates. It caches the result, because many addresses have the same
// candidates.
func (l *loop) among(c *ownership.Candidates) bool {
	own, known := l.own[c]
	if !known {
		own = c.Has(l.s.config.Node)
		l.own[c] = own
	}
	return own
}

// mayOwn records whether this node may own an address on an interface, so that the responders can prepare for it.
func (l *loop) mayOwn(iface string, address netip.Addr, may bool) {
	set := l.candidate[iface]
	if set[address] == may {
		return
	}
	if set == nil {
		set = map[netip.Addr]bool{}
		l.candidate[iface] = set
	}
	if may {
		set[address] = true
	} else {
		delete(set, address)
	}
	l.prepare[iface] = true
}

// handOn tells the responders which addresses to prepare for, and then tells the segments who may own which address.
func (l *loop) handOn(wants map[string][]wanted) {
	for iface := range l.prepare {
		addrs := slices.Collect(maps.Keys(l.candidate[iface]))
		l.s.arp.Prepare(iface, addrs)
		l.s.ndp.Prepare(iface, addrs)
	}
	clear(l.prepare)
	for iface, all := range wants {
		if r := l.s.segments.opened[iface]; r != nil {
			r.Do(func(m *segment.Machine, now segment.Time) {
				for _, w := range all {
					m.Want(now, w.addr, w.want)
				}
			})
		}
	}
}
