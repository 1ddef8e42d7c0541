package bgp

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/config/oc"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/heraldlb/herald/speaker/bgp/route"
)

// batchSize is how many paths gobgp gets at once. It handles a batch under its lock, so this also
// bounds how long keepalives may wait for it: 500 take about 25 ms.
const batchSize = 500

// deferralTime is how long after a restart routes wait for the router to say that it has sent all
// of its own (RFC 4724 §4.1). We use none of them, so there is nothing to wait for.
const deferralTime = 1 // second; zero would be gobgp's default, six minutes

// maxRoutes is how many routes of a family a router may send. They are all refused, but gobgp keeps them, about 1 KB each.
const maxRoutes = 10_000

var families = []bgp.Family{bgp.RF_IPv4_UC, bgp.RF_IPv6_UC}

// routeServer is a gobgp server with one neighbour. Calls are for one goroutine.
type routeServer struct {
	gobgp   *server.BgpServer
	peer    Peer
	serving sync.WaitGroup
	stopped chan struct{}
	unwatch context.CancelFunc
	queue   reflect.Value // what gobgp has queued for the router: see queueOf
	// attributes of the last path that was built: most prefixes of a peer have the same.
	lastAttributes route.Attributes
	lastNextHop    netip.Addr
	lastPath       []bgp.PathAttributeInterface
}

// startServer starts a server that has no neighbour yet. It calls changed, from a goroutine of
// gobgp's, whenever the session's state changes. The connections to the neighbour come from accepted.
func startServer(ctx context.Context, peer Peer, accepted chan net.Conn, log slog.Handler, changed func(*apiutil.WatchEventMessage_PeerEvent, time.Time)) (*routeServer, error) {
	s := &routeServer{
		// The level is the handler's business.
		gobgp:   server.NewBgpServer(server.LoggerOption(slog.New(log), nil)),
		peer:    peer,
		stopped: make(chan struct{}),
	}
	accept(s.gobgp, accepted)
	s.serving.Go(s.gobgp.Serve)
	err := startAlone(ctx, s, &api.StartBgpRequest{Global: &api.Global{
		Asn:        peer.LocalASN,
		RouterId:   peer.RouterID.String(),
		ListenPort: -1,
		// The default is every family there is, with 10 MiB of empty tables for them.
		Families: []uint32{
			uint32(oc.AfiSafiTypeToIntMap[oc.AFI_SAFI_TYPE_IPV4_UNICAST]),
			uint32(oc.AfiSafiTypeToIntMap[oc.AFI_SAFI_TYPE_IPV6_UNICAST]),
		},
	}})
	if err == nil {
		err = s.refuseRoutes(ctx)
	}
	// The state is of interest until the server has stopped, longer than ctx.
	watch, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	s.unwatch = unwatch
	if err == nil {
		err = s.gobgp.WatchEvent(watch, server.WatchEventMessageCallbacks{OnPeerUpdate: changed}, server.WatchPeer())
	}
	if err != nil {
		s.stop(false)
		return nil, fmt.Errorf("start BGP server for peer %q: %w", peer.Name, err)
	}
	return s, nil
}

// refuseRoutes keeps all routes but our own out of the RIB. A route from the router might replace ours there, and the router
// would see ours withdrawn.
func (s *routeServer) refuseRoutes(ctx context.Context) error {
	own := &api.Policy{Name: "own", Statements: []*api.Statement{{
		Name:       "own",
		Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL},
		Actions:    &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT},
	}}}
	if err := s.gobgp.AddPolicy(ctx, &api.AddPolicyRequest{Policy: own}); err != nil {
		return err
	}
	return s.gobgp.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{
		Name:          "global",
		Direction:     api.PolicyDirection_POLICY_DIRECTION_IMPORT,
		Policies:      []*api.Policy{own},
		DefaultAction: api.RouteAction_ROUTE_ACTION_REJECT,
	}})
}

// connect adds the neighbour: from here on gobgp takes connections.
func (s *routeServer) connect(ctx context.Context) error {
	if err := s.gobgp.AddPeer(ctx, &api.AddPeerRequest{Peer: neighbour(s.peer)}); err != nil {
		return fmt.Errorf("add peer %q: %w", s.peer.Name, err)
	}
	s.queue = queueOf(s.gobgp)
	return nil
}

// neighbour returns gobgp's name of the neighbour.
func (s *routeServer) neighbour() string { return s.peer.Address.String() }

// listed is the neighbour as gobgp knows it at this moment; nil if there is none. It may be called from any goroutine.
func (s *routeServer) listed(ctx context.Context) (peer *api.Peer) {
	// The only errors are those of a server that does not run.
	_ = s.gobgp.ListPeer(ctx, &api.ListPeerRequest{Address: s.neighbour()}, func(p *api.Peer) { peer = p })
	return peer
}

// state is the session's state, and whether gobgp sends the router no routes until the router has sent its own (RFC 4724,
// section 4.1).
func (s *routeServer) state(ctx context.Context) (_ State, waitsForEndOfRIB bool) {
	p := s.listed(ctx)
	if p == nil {
		return Idle, false
	}
	return stateOf(p), p.GetGracefulRestart().GetLocalRestarting()
}

// stateOf returns the state of a neighbour's session. The API numbers the states from one.
func stateOf(p *api.Peer) State {
	return State(p.GetState().GetSessionState() - api.PeerState_SESSION_STATE_IDLE)
}

func (s *routeServer) established(ctx context.Context) bool {
	state, _ := s.state(ctx)
	return state == Established
}

// resend sends the router all routes once more.
func (s *routeServer) resend(ctx context.Context) error {
	err := s.gobgp.ResetPeer(ctx, &api.ResetPeerRequest{
		Address: s.neighbour(), Soft: true, Direction: api.ResetPeerRequest_DIRECTION_OUT,
	})
	if err != nil {
		return fmt.Errorf("send peer %q all routes again: %w", s.peer.Name, err)
	}
	return nil
}

// neverExpires reports whether there is a session without a hold time: the router has offered 0 (RFC 4271 §4.2). After a
// session has ended, its timers and its uptime are zero. It may be called from any goroutine.
func (s *routeServer) neverExpires(ctx context.Context) bool {
	timers := s.listed(ctx).GetTimers().GetState()
	return timers.GetUptime().GetSeconds() > 0 && timers.GetNegotiatedHoldTime() == 0
}

// disable ends an established session: it sends Cease, Administrative Shutdown, with a word for the router's log (RFC 4486,
// RFC 9003). It returns when the neighbour is idle and stays so.
func (s *routeServer) disable(ctx context.Context) error {
	if err := s.gobgp.DisablePeer(ctx, &api.DisablePeerRequest{
		Address:       s.neighbour(),
		Communication: "speaker stops",
	}); err != nil {
		return err
	}
	again := time.NewTicker(gobgpPoll)
	defer again.Stop()
	for !s.disabled(ctx) {
		select {
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// gobgpPoll is the time between two looks at gobgp, which does not report by itself that it has disabled a neighbour that was
// idle, or that it has begun to send changes to a neighbour.
const gobgpPoll = 2 * time.Millisecond

func (s *routeServer) disabled(ctx context.Context) bool {
	state := s.listed(ctx).GetState()
	return state.GetAdminState() == api.PeerState_ADMIN_STATE_DOWN && state.GetSessionState() == api.PeerState_SESSION_STATE_IDLE
}

// stop ends the server and waits until it has ended. The router is told by a NOTIFICATION that its session is gone, unless
// it should keep our routes for a restart (RFC 4724 §4). A neighbour without a session must be disabled first: StopBgp
// (v4.8.0) deletes the neighbour and clears its configuration and the OPEN that it received, while the goroutine of the
// neighbour may still use them. That is a data race, and gobgp panics if it cannot build its own OPEN.
func (s *routeServer) stop(keepRoutes bool) {
	// The only errors are those of a server that does not run, which is what is wanted.
	_ = s.gobgp.StopBgp(context.Background(), &api.StopBgpRequest{AllowGracefulRestart: keepRoutes})
	s.gobgp.Stop() // what StopBgp leaves: the loop of gobgp's own, unused BFD
	s.serving.Wait()
	empty(s.queue)
	s.unwatch()
	endLockstep(s)
}

// announce adds paths or replaces them.
func (s *routeServer) announce(routes []announcement) error {
	for batch := range slices.Chunk(routes, batchSize) {
		paths := make([]*apiutil.Path, len(batch))
		for i, r := range batch {
			path, err := s.path(r)
			if err != nil {
				return err
			}
			paths[i] = path
		}
		if _, err := s.gobgp.AddPath(apiutil.AddPathRequest{Paths: paths}); err != nil {
			return fmt.Errorf("announce %d prefixes from %v to peer %q: %w", len(batch), batch[0].prefix, s.peer.Name, err)
		}
	}
	return nil
}

// withdraw names paths by prefix. With UUIDs gobgp would search all paths for each one.
func (s *routeServer) withdraw(prefixes []netip.Prefix) error {
	for batch := range slices.Chunk(prefixes, batchSize) {
		paths := make([]*apiutil.Path, len(batch))
		for i, prefix := range batch {
			nlri, err := bgp.NewIPAddrPrefix(prefix)
			if err != nil {
				return fmt.Errorf("prefix %v: %w", prefix, err)
			}
			paths[i] = &apiutil.Path{Family: familyOf(prefix), Nlri: nlri, Withdrawal: true}
		}
		if err := s.gobgp.DeletePath(apiutil.DeletePathRequest{Paths: paths}); err != nil {
			return fmt.Errorf("withdraw %d prefixes from %v from peer %q: %w", len(batch), batch[0], s.peer.Name, err)
		}
	}
	return nil
}

// announcement is a prefix as it is announced to one peer.
type announcement struct {
	prefix  netip.Prefix
	nextHop netip.Addr
	route.Attributes
}

func (s *routeServer) path(r announcement) (*apiutil.Path, error) {
	nlri, err := bgp.NewIPAddrPrefix(r.prefix)
	if err != nil {
		return nil, fmt.Errorf("prefix %v: %w", r.prefix, err)
	}
	if s.lastPath == nil || s.lastNextHop != r.nextHop || !s.lastAttributes.Same(r.Attributes) {
		if s.lastPath, err = pathAttributes(s.peer, r); err != nil {
			return nil, fmt.Errorf("attributes of %v: %w", r.prefix, err)
		}
		s.lastNextHop, s.lastAttributes = r.nextHop, r.Attributes
	}
	return &apiutil.Path{Family: familyOf(r.prefix), Nlri: nlri, Attrs: s.lastPath, Age: time.Now().Unix()}, nil
}

// pathAttributes are in the order of their type codes, as RFC 4271 §5 asks.
func pathAttributes(peer Peer, r announcement) ([]bgp.PathAttributeInterface, error) {
	attributes := []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(bgp.BGP_ORIGIN_ATTR_TYPE_IGP)}
	if r.Prepend > 0 && !peer.internal() {
		// gobgp puts the local AS number in front once more, as it does for every eBGP peer.
		path := slices.Repeat([]uint32{peer.LocalASN}, int(r.Prepend))
		attributes = append(attributes, bgp.NewPathAttributeAsPath([]bgp.AsPathParamInterface{
			bgp.NewAs4PathParam(bgp.BGP_ASPATH_ATTR_TYPE_SEQ, path),
		}))
	}
	// gobgp itself turns this into MP_REACH_NLRI (RFC 4760) where it has to be.
	nextHop, err := bgp.NewPathAttributeNextHop(r.nextHop)
	if err != nil {
		return nil, err
	}
	attributes = append(attributes, nextHop)
	if r.MED != nil {
		attributes = append(attributes, bgp.NewPathAttributeMultiExitDisc(*r.MED))
	}
	if r.LocalPreference != nil && peer.internal() {
		attributes = append(attributes, bgp.NewPathAttributeLocalPref(*r.LocalPreference))
	}
	if len(r.Communities) > 0 {
		values := make([]uint32, len(r.Communities))
		for i, c := range r.Communities {
			values[i] = uint32(c)
		}
		attributes = append(attributes, bgp.NewPathAttributeCommunities(values))
	}
	if extended := extendedCommunities(r.Attributes, peer.LocalASN); len(extended) > 0 {
		attributes = append(attributes, bgp.NewPathAttributeExtendedCommunities(extended))
	}
	if len(r.LargeCommunities) > 0 {
		values := make([]*bgp.LargeCommunity, len(r.LargeCommunities))
		for i, c := range r.LargeCommunities {
			values[i] = bgp.NewLargeCommunity(c.Global, c.Local1, c.Local2)
		}
		attributes = append(attributes, bgp.NewPathAttributeLargeCommunities(values))
	}
	if peer.Role.marks() {
		attributes = append(attributes, onlyToCustomers(peer.LocalASN))
	}
	return attributes, nil
}

// neighbour is gobgp's view of a valid peer. To gobgp all peers are passive: it is given its connections.
func neighbour(p Peer) *api.Peer {
	hold := orDefault(p.HoldTime, DefaultHoldTime)
	n := &api.Peer{
		Conf: &api.PeerConf{
			NeighborAddress: p.Address.String(),
			LocalAsn:        p.LocalASN,
			PeerAsn:         p.PeerASN,
		},
		Transport: &api.Transport{PassiveMode: true},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime:          seconds(hold),
			KeepaliveInterval: seconds(orDefault(p.KeepaliveTime, hold/3)),
			// gobgp's 30 s after a router's reset would be half a minute without routes.
			IdleHoldTimeAfterReset: 1,
		}},
	}
	if p.Address.Zone() != "" {
		// Else gobgp looks for the interface's address now, and gives up if it has none yet.
		n.Transport.LocalAddress = netip.IPv6Unspecified().String()
	}
	if p.MultihopTTL > 0 {
		n.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(p.MultihopTTL)}
	}
	if p.TTLSecurity > 0 {
		n.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: 256 - uint32(p.TTLSecurity)}
	}
	if g := p.GracefulRestart; g != nil {
		n.GracefulRestart = &api.GracefulRestart{
			Enabled:      true,
			RestartTime:  uint32(seconds(g.RestartTime)),
			DeferralTime: deferralTime,
			// It is not known whether there was a session before. If not, this does no harm.
			LocalRestarting:     true,
			NotificationEnabled: g.KeepOnNotification,
			LonglivedEnabled:    g.StaleTime > 0,
		}
	}
	for _, f := range families {
		n.AfiSafis = append(n.AfiSafis, &api.AfiSafi{
			Config: &api.AfiSafiConfig{Family: apiutil.ToApiFamily(f.Afi(), f.Safi()), Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{
				Config: &api.MpGracefulRestartConfig{Enabled: p.GracefulRestart != nil},
			},
			LongLivedGracefulRestart: longLived(p.GracefulRestart),
			PrefixLimits:             &api.PrefixLimit{Family: apiutil.ToApiFamily(f.Afi(), f.Safi()), MaxPrefixes: maxRoutes},
		})
	}
	return n
}

func longLived(g *GracefulRestart) *api.LongLivedGracefulRestart {
	if g == nil || g.StaleTime == 0 {
		return nil
	}
	return &api.LongLivedGracefulRestart{Config: &api.LongLivedGracefulRestartConfig{Enabled: true, RestartTime: uint32(seconds(g.StaleTime))}}
}

func familyOf(prefix netip.Prefix) bgp.Family { return family(prefix.Addr().Is4()) }

func seconds(d time.Duration) uint64 { return uint64(d / time.Second) }

// asTrans stands for an AS number that does not fit into two bytes (RFC 6793 §9).
const asTrans = 23456

// extendedCommunities are the extended communities of a route as gobgp has them, for routes of this AS.
func extendedCommunities(a route.Attributes, asn uint32) (all []bgp.ExtendedCommunityInterface) {
	for _, c := range a.ExtendedCommunities {
		// ParseExtended accepts every value of the types that this package writes.
		e, _ := bgp.ParseExtended(binary.BigEndian.AppendUint64(nil, uint64(c)))
		all = append(all, e)
	}
	if a.Bandwidth > 0 {
		if asn > 0xFFFF {
			asn = asTrans
		}
		all = append(all, bgp.NewLinkBandwidthExtended(uint16(asn), a.Bandwidth))
	}
	return all
}
