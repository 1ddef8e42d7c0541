package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/heraldlb/herald/speaker/bgp/route"
)

// Detail is everything that is known about a session. The values that both ends have agreed on are zero unless the session is
// established.
type Detail struct {
	Session
	Config Peer // without the password
	// LocalAddress is this node's end of the connection.
	LocalAddress netip.Addr
	// RouterASN and RouterID are the router's.
	RouterASN uint32
	RouterID  netip.Addr
	// HoldTime and KeepaliveTime are the times in force (RFC 4271 §4.2). A HoldTime of zero means that there is none.
	HoldTime, KeepaliveTime time.Duration
	// Local and Remote are the capabilities that each end has offered.
	Local, Remote Capabilities
	// UpdatesSent and UpdatesReceived count UPDATE messages. They start again from zero with each gobgp server of the peer: after
	// the end of a session, with few exceptions (see status.over), and when the peer has changed.
	UpdatesSent, UpdatesReceived uint64

	agreed agreed
}

// Capabilities describes the capabilities of one end (RFC 5492).
type Capabilities struct {
	Families []string // "IPv4 unicast"
	Others   []string // "route refresh", "graceful restart, 30s"
}

// Route is a prefix that a peer should hear.
type Route struct {
	Prefix netip.Prefix
	Peer   string
	// NextHop is the next hop of the prefix. It is invalid if the prefix has no next hop, or if its next hop is the local
	// address of the session and there is no session.
	NextHop netip.Addr
	route.Attributes
	// Withheld describes for users why the router has not been told the prefix. Empty: it has been told.
	Withheld string
}

// Details returns the details of the session with each valid peer, sorted by name. It asks gobgp, which may take as long as
// a batch of routes.
func (s *Speaker) Details(ctx context.Context) []Detail {
	var details []Detail
	for _, m := range s.sorted() {
		details = append(details, m.status.detail(ctx))
	}
	return details
}

// Routes lists the prefixes that the peers should hear, sorted by prefix and peer name. details must be current.
func (s *Speaker) Routes(details []Detail) (routes []Route) {
	for _, m := range s.sorted() {
		i := slices.IndexFunc(details, func(d Detail) bool { return d.Peer == m.peer.Name })
		if i < 0 {
			continue // The peer is new.
		}
		for prefix, a := range m.out.list() {
			routes = append(routes, details[i].route(prefix, a))
		}
	}
	slices.SortFunc(routes, func(x, y Route) int {
		if c := x.Prefix.Compare(y.Prefix); c != 0 {
			return c
		}
		return strings.Compare(x.Peer, y.Peer)
	})
	return routes
}

// sorted returns the members sorted by name.
func (s *Speaker) sorted() []*member {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*member, 0, len(s.members))
	for _, m := range s.members {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *member) int { return strings.Compare(a.peer.Name, b.peer.Name) })
	return all
}

func (d *Detail) route(prefix netip.Prefix, a route.Attributes) Route {
	is4 := prefix.Addr().Is4()
	r := Route{Prefix: prefix, Peer: d.Peer, Attributes: a}
	hop, ok := d.Config.nextHop(is4)
	if ok && hop.IsUnspecified() {
		hop = d.LocalAddress
	}
	r.NextHop = hop
	switch {
	case !ok:
		r.NextHop, r.Withheld = netip.Addr{}, noNextHop(is4)
	case d.State != Established:
		r.Withheld = "the session is not established"
	default:
		r.Withheld = d.agreed.refuses(d.Config, is4)
	}
	return r
}

// detail returns the details of the session. It asks gobgp for those that gobgp does not report by itself.
func (s *status) detail(ctx context.Context) Detail {
	s.mu.Lock()
	server, d := s.server, Detail{Session: s.current(), Config: s.peer, agreed: s.agreed}
	s.mu.Unlock()
	d.Config.Password = ""
	if server != nil {
		server.fill(ctx, &d)
	}
	if d.State != Established {
		d.LocalAddress, d.HoldTime, d.KeepaliveTime = netip.Addr{}, 0, 0
		return d
	}
	d.RouterASN, d.RouterID = d.agreed.asn, d.agreed.routerID
	d.Local, d.Remote = capabilities(d.agreed.local), capabilities(d.agreed.remote)
	return d
}

// serves sets the server that has the session; nil: none.
func (s *status) serves(server *routeServer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server = server
}

// fill asks gobgp for the values in force and the counters. It may be called from any goroutine.
func (s *routeServer) fill(ctx context.Context, d *Detail) {
	p := s.listed(ctx)
	d.LocalAddress, _ = netip.ParseAddr(p.GetTransport().GetLocalAddress())
	timers, messages := p.GetTimers().GetState(), p.GetState().GetMessages()
	d.HoldTime = time.Duration(timers.GetNegotiatedHoldTime()) * time.Second     //nolint:gosec // Sixteen bits.
	d.KeepaliveTime = time.Duration(timers.GetKeepaliveInterval()) * time.Second //nolint:gosec // Sixteen bits.
	d.UpdatesSent, d.UpdatesReceived = messages.GetSent().GetUpdate(), messages.GetReceived().GetUpdate()
}

// familiesOf returns the families that an end speaks. An end that names none speaks IPv4 unicast (RFC 4760 §8).
func familiesOf(all []bgp.ParameterCapabilityInterface) (families []bgp.Family) {
	for _, c := range all {
		if mp, ok := c.(*bgp.CapMultiProtocol); ok {
			families = append(families, mp.CapValue)
		}
	}
	if len(families) == 0 {
		families = []bgp.Family{bgp.RF_IPv4_UC}
	}
	return families
}

func familyText(f bgp.Family) string {
	switch f {
	case bgp.RF_IPv4_UC:
		return "IPv4 unicast"
	case bgp.RF_IPv6_UC:
		return "IPv6 unicast"
	}
	if name, known := bgp.AddressFamilyNameMap[f]; known {
		return name
	}
	return fmt.Sprintf("AFI %d, SAFI %d", f.Afi(), f.Safi())
}

// maxCapabilities bounds the number of a router's capabilities that are listed. Fewer are known.
const maxCapabilities = 32

// extendedNextHop describes the capability of IPv4 prefixes with an IPv6 next hop (RFC 8950).
const extendedNextHop = "extended next hop, IPv4 over IPv6"

// capabilities describes the capabilities of one end, sorted and without duplicates. Free text from the router is left out.
func capabilities(all []bgp.ParameterCapabilityInterface) (c Capabilities) {
	for _, f := range familiesOf(all) {
		c.Families = append(c.Families, familyText(f))
	}
	for _, one := range all {
		if text := capabilityText(one); text != "" {
			c.Others = append(c.Others, text)
		}
	}
	for _, texts := range []*[]string{&c.Families, &c.Others} {
		slices.Sort(*texts)
		*texts = slices.Compact(*texts)
		*texts = (*texts)[:min(len(*texts), maxCapabilities)]
	}
	return c
}

func capabilityText(c bgp.ParameterCapabilityInterface) string {
	switch c := c.(type) {
	case *bgp.CapMultiProtocol:
		return "" // Its family is listed.
	case *bgp.CapFQDN:
		return "" // gobgp does not report the router's FQDN.
	case *bgp.CapRouteRefresh, *bgp.CapRouteRefreshCisco:
		return "route refresh"
	case *bgp.CapEnhancedRouteRefresh:
		return "enhanced route refresh"
	case *bgp.CapExtendedMessage:
		return "extended messages"
	case *bgp.CapFourOctetASNumber:
		return "4-byte AS numbers"
	case *bgp.CapExtendedNexthop:
		for _, t := range c.Tuples {
			if t.NLRIAFI == bgp.AFI_IP && t.NexthopAFI == bgp.AFI_IP6 {
				return extendedNextHop
			}
		}
		return "extended next hop"
	case *bgp.CapGracefulRestart:
		text := fmt.Sprintf("graceful restart, %ds", c.Time)
		if len(c.Tuples) == 0 {
			text = "graceful restart, as a helper only" // RFC 4724 §3
		}
		if c.Flags&0x04 > 0 { // RFC 8538 §2
			text += ", also on NOTIFICATION"
		}
		return text
	case *bgp.CapLongLivedGracefulRestart:
		var longest uint32
		for _, t := range c.Tuples {
			longest = max(longest, t.RestartTime)
		}
		if longest == 0 {
			return "long-lived graceful restart, as a helper only"
		}
		return fmt.Sprintf("long-lived graceful restart, %v", time.Duration(longest)*time.Second)
	case *bgp.CapAddPath:
		return "ADD-PATH"
	case *bgp.CapSoftwareVersion:
		return "software version"
	}
	if number, is := roleIn(c); is {
		return "role " + roleName(number)
	}
	return fmt.Sprintf("capability %d", c.Code())
}
