package speaker

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/heraldlb/herald/speaker/bfd"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/inspect"
)

// Routing returns the state of this node's peers and of its routes to them. It waits for the loop, and fails if ctx ends
// before that.
func (s *Speaker) Routing(ctx context.Context, q inspect.RoutingQuery) (*inspect.Routing, error) {
	details := s.bgp.Details(ctx)
	r := &inspect.Routing{Node: s.config.Node, At: time.Now().UTC().Format(time.RFC3339Nano), Peers: []inspect.RoutingPeer{}, Routes: []inspect.RoutingRoute{}, Held: []inspect.RoutingHeldBy{}}
	for i := range details {
		if q.WantsPeer(details[i].Peer) {
			r.Peers = append(r.Peers, routingPeer(&details[i]))
		}
	}
	for _, route := range s.bgp.Routes(details) {
		switch {
		case !q.Wants(route.Prefix) || !q.WantsPeer(route.Peer):
		case len(r.Routes) < min(q.Limit, inspect.MaxRoutes):
			i := slices.IndexFunc(details, func(d bgp.Detail) bool { return d.Peer == route.Peer })
			r.Routes = append(r.Routes, routingRoute(&route, &details[i]))
		default:
			r.More++
		}
	}
	done := make(chan struct{})
	call := func(l *loop) {
		defer close(done)
		l.addTo(r, &q)
	}
	select {
	case s.calls <- call:
		<-done // The loop has taken it.
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return r, nil
}

// addTo adds the state that the loop owns.
func (l *loop) addTo(r *inspect.Routing, q *inspect.RoutingQuery) {
	if l.shared == nil {
		return // Nothing has been decided.
	}
	r.Problem = l.problem()
	if l.shared.Draining != nil {
		r.Leaving = brief(*l.shared.Draining)
	}
	for _, c := range l.rejected {
		if !q.WantsPeer(c.Name) {
			continue
		}
		state := sessionInvalid
		if isUnresolved(c.Err) {
			state = inspect.RoutingUnresolved
		}
		r.Peers = append(r.Peers, inspect.RoutingPeer{Peer: c.Name, State: state, Reason: c.Err.Error()})
	}
	slices.SortFunc(r.Peers, func(x, y inspect.RoutingPeer) int { return strings.Compare(x.Peer, y.Peer) })
	r.Peers, r.MorePeers = cut(r.Peers, inspect.MaxRoutingPeers)
	paths := map[string]bfd.Status{}
	for _, p := range l.s.paths.Sessions() {
		paths[p.Name] = p
	}
	for i := range r.Peers {
		p := &r.Peers[i]
		if path, watched := paths[p.Peer]; watched {
			p.BFD = routingBFD(&path)
		} else if err := l.unwatched[p.Peer]; err != nil {
			p.BFD = &inspect.RoutingBFD{State: pathDown, Reason: err.Error()}
		}
	}
	for address, d := range l.decisions {
		if !q.Wants(netip.PrefixFrom(address, address.BitLen())) {
			continue
		}
		switch {
		case d.Refused != "":
			r.Held = append(r.Held, inspect.RoutingHeldBy{Address: address.String(), Reason: "it is " + d.Refused})
		case l.s.forwarding.isWaiting(address):
			r.Held = append(r.Held, inspect.RoutingHeldBy{Address: address.String(), Reason: "kube-proxy has not told yet that the node forwards it"})
		}
	}
	slices.SortFunc(r.Held, func(x, y inspect.RoutingHeldBy) int { return strings.Compare(x.Address, y.Address) })
	r.Held, r.MoreHeld = cut(r.Held, inspect.MaxHeld)
}

// cut returns at most the first most elements of a list, and the number of those left out.
func cut[T any](all []T, most int) (begin []T, more int) {
	n := min(len(all), most)
	return all[:n], len(all) - n
}

func routingPeer(d *bgp.Detail) inspect.RoutingPeer {
	p := inspect.RoutingPeer{
		Peer: d.Peer, State: d.State.String(), Reason: d.Reason, Passive: d.Config.Passive,
		Local: inspect.RoutingEnd{ASN: d.Config.LocalASN, RouterID: d.Config.RouterID.String(), Families: d.Local.Families, Capabilities: d.Local.Others},
		Router: inspect.RoutingEnd{
			Address: d.Address.String(), ASN: d.Config.PeerASN, Families: d.Remote.Families, Capabilities: d.Remote.Others,
		},
		HoldTime: brief(d.HoldTime), KeepaliveTime: brief(d.KeepaliveTime),
		IPv4: inspect.RoutingCount{Sent: d.Advertised4, Withheld: d.Withheld4}, IPv6: inspect.RoutingCount{Sent: d.Advertised6, Withheld: d.Withheld6}, WithheldReason: d.WithheldReason,
		UpdatesSent: d.UpdatesSent, UpdatesReceived: d.UpdatesReceived,
	}
	listens := &p.Router
	if d.Config.Passive {
		listens = &p.Local
	}
	listens.Port = cmp.Or(d.Config.Port, bgp.DefaultPort)
	if !d.Since.IsZero() {
		p.Since = stamp(d.Since)
	}
	if e := d.LastError; e.Text != "" {
		p.LastError = &inspect.RoutingError{Text: e.Text, By: string(e.By), At: stamp(e.At)}
	}
	for cause, n := range d.Flaps {
		if p.Flaps == nil {
			p.Flaps = map[string]uint64{}
		}
		p.Flaps[string(cause)] = n
	}
	if a := cmp.Or(d.LocalAddress, d.Config.LocalAddress); a.IsValid() {
		p.Local.Address = a.String()
	}
	if d.RouterASN != 0 {
		p.Router.ASN = d.RouterASN
	}
	if d.RouterID.IsValid() {
		p.Router.RouterID = d.RouterID.String()
	}
	return p
}

func routingRoute(route *bgp.Route, d *bgp.Detail) inspect.RoutingRoute {
	r := inspect.RoutingRoute{Prefix: route.Prefix.String(), Peer: route.Peer, Withheld: route.Withheld, MED: route.MED, LinkBandwidth: route.Bandwidth}
	if route.NextHop.IsValid() {
		r.NextHop = route.NextHop.String()
	}
	for _, c := range route.Communities {
		r.Communities = append(r.Communities, c.String())
	}
	for _, c := range route.LargeCommunities {
		r.Communities = append(r.Communities, c.String())
	}
	for _, c := range route.ExtendedCommunities {
		r.Communities = append(r.Communities, c.String())
	}
	if d.Config.PeerASN == d.Config.LocalASN {
		r.LocalPreference = route.LocalPreference
	} else {
		r.Prepend = route.Prepend
	}
	return r
}

func routingBFD(s *bfd.Status) *inspect.RoutingBFD {
	b := &inspect.RoutingBFD{
		State: s.State.String(), Since: stamp(s.Since), Reason: whyDown(*s), Diagnostic: s.Diag.String(),
		RouterState: s.RemoteState.String(), RouterDiagnostic: s.RemoteDiag.String(),
		TransmitInterval: brief(s.TransmitInterval), ReceiveInterval: brief(s.ReceiveInterval),
		DetectionTime: brief(s.DetectionTime), RouterDetectionTime: brief(s.RemoteDetectionTime),
		Failures: s.Failures, PacketsSent: s.PacketsSent, PacketsReceived: s.PacketsReceived,
	}
	if m := s.Received; m.Count > 0 {
		b.Measured = &inspect.RoutingMeasured{Packets: m.Count, Min: rounded(m.Min), Mean: rounded(m.Mean), Max: rounded(m.Max)}
	}
	return b
}

// brief formats a duration with about three digits; empty if it is zero.
func brief(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return rounded(d)
}

func rounded(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(100 * time.Microsecond).String()
}
