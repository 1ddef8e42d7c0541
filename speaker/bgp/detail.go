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

// Detail is all that is known about a session. What its ends have agreed on is zero unless it is established.
type Detail struct {
	Session
	Config Peer // its password is left out
	// LocalAddress is this node's end of the connection.
	LocalAddress netip.Addr
	// RouterASN and RouterID are the router's.
	RouterASN uint32
	RouterID  netip.Addr
	// HoldTime and KeepaliveTime are those that hold (RFC 4271 §4.2). A HoldTime of zero is none.
	HoldTime, KeepaliveTime time.Duration
	// Local and Remote are what each end has said it can do.
	Local, Remote Capabilities
	// UpdatesSent and UpdatesReceived count UPDATE messages. They begin at zero when the session is opened anew because the
	// peer has changed or something failed on this node.
	UpdatesSent, UpdatesReceived uint64

	agreed agreed
}

// Capabilities are those of one end, in words (RFC 5492).
type Capabilities struct {
	Families []string // "IPv4 unicast"
	Others   []string // "route refresh", "graceful restart, 30s"
}

// Route is a prefix that a peer should hear.
type Route struct {
	Prefix netip.Prefix
	Peer   string
	// NextHop is what the prefix is announced with. Invalid if there is none, or if it is the session's own address and
	// there is no session.
	NextHop netip.Addr
	route.Attributes
	// Withheld says, in words for people, why the router has not been told. Empty: it has.
	Withheld string
}

// Details says how each valid peer fares, in the order of their names. It asks gobgp, which may take as long as a batch
// of routes does.
func (s *Speaker) Details(ctx context.Context) []Detail {
	var details []Detail
	for _, m := range s.sorted() {
		details = append(details, m.status.detail(ctx))
	}
	return details
}

// Routes lists the prefixes that the peers should hear, in the order of prefixes and of the peers' names. Details are
// those of now.
func (s *Speaker) Routes(details []Detail) (routes []Route) {
	for _, m := range s.sorted() {
		i := slices.IndexFunc(details, func(d Detail) bool { return d.Peer == m.peer.Name })
		if i < 0 {
			continue // It is new.
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

// sorted are the members in the order of their names.
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

// detail asks gobgp for what it has not told by itself.
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

// serves says which server has the session; nil: none.
func (s *status) serves(server *routeServer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server = server
}

// fill asks for what holds and what has been counted. It may be called from any goroutine.
func (s *routeServer) fill(ctx context.Context, d *Detail) {
	p := s.listed(ctx)
	d.LocalAddress, _ = netip.ParseAddr(p.GetTransport().GetLocalAddress())
	timers, messages := p.GetTimers().GetState(), p.GetState().GetMessages()
	d.HoldTime = time.Duration(timers.GetNegotiatedHoldTime()) * time.Second     //nolint:gosec // Sixteen bits.
	d.KeepaliveTime = time.Duration(timers.GetKeepaliveInterval()) * time.Second //nolint:gosec // Sixteen bits.
	d.UpdatesSent, d.UpdatesReceived = messages.GetSent().GetUpdate(), messages.GetReceived().GetUpdate()
}

// familiesOf are the families that an end speaks. One that names none speaks IPv4 unicast (RFC 4760 §8).
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

// maxCapabilities is how many capabilities of a router are listed: there are fewer that anybody knows.
const maxCapabilities = 32

// extendedNextHop is the text of that capability.
const extendedNextHop = "extended next hop, IPv4 over IPv6"

// capabilities are those of one end, each once and in order. What a router has written for people is left out.
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
		return "" // gobgp does not tell that of the router.
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
	return fmt.Sprintf("capability %d", c.Code())
}
