package speaker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"

	"github.com/heraldlb/herald/speaker/announce"
	"github.com/heraldlb/herald/speaker/bfd"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/bgp/route"
	"github.com/heraldlb/herald/speaker/inspect"
)

func tor() bgp.Peer {
	return bgp.Peer{Name: "tor", LocalASN: 64512, PeerASN: 64500, RouterID: netip.MustParseAddr("192.0.2.11"), Address: netip.MustParseAddr("192.0.2.1"), Password: "secret"}
}

// TestRoutingOfASpeaker asks a loop that makes progress for its state, and one that does not.
func TestRoutingOfASpeaker(t *testing.T) {
	l := loopOf(t, "n1")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := l.s.Routing(gone, inspect.RoutingQuery{}); !errors.Is(err, context.Canceled) || r != nil {
		t.Errorf("a loop that does not come round: %+v, %v", r, err)
	}
	l.s.bgp.SetPeers([]bgp.Peer{tor()})
	for _, p := range []string{"198.51.100.7/32", "198.51.100.8/32", "198.51.101.0/24"} {
		l.s.bgp.Set(netip.MustParsePrefix(p), map[string]route.Attributes{"tor": {MED: new(uint32(5))}})
	}
	l.rejected = []announce.Rejected{{Kind: "BGPPeer", Name: "spine", Err: errors.New("spec.passwordSecret: there is no Secret")}, {Kind: "BGPPeer", Name: "leaf", Err: missing("spec.localASNFrom", "the node has no label")}}
	l.unwatched = map[string]error{"tor": errors.New("there can be one only")}
	left := 12 * time.Second
	l.shared.Draining = &left
	l.decisions[netip.MustParseAddr("198.51.100.9")] = announce.Decision{Refused: "an address of node n2"}
	l.s.forwarding.url = proxyURL
	l.s.forwarding.await(netip.MustParseAddr("198.51.100.7"), time.Now(), false, healthPorts{})

	ask := func(q inspect.RoutingQuery) *inspect.Routing {
		t.Helper()
		come := make(chan struct{})
		go func() {
			defer close(come)
			(<-l.s.calls)(l)
		}()
		r, err := l.s.Routing(t.Context(), q)
		<-come
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	l.decisions[netip.MustParseAddr("198.51.100.7")] = announce.Decision{}
	r := ask(inspect.RoutingQuery{Limit: 2})
	if r.Node != "n1" || r.Leaving != "12s" || r.More != 1 || len(r.Routes) != 2 {
		t.Errorf("%+v", r)
	}
	if diff := cmp.Diff(inspect.RoutingRoute{Prefix: "198.51.100.7/32", Peer: "tor", MED: new(uint32(5)), Withheld: "the session is not established"}, r.Routes[0]); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]inspect.RoutingHeldBy{
		{Address: "198.51.100.7", Reason: "kube-proxy has not told yet that the node forwards it"}, {Address: "198.51.100.9", Reason: "it is an address of node n2"},
	}, r.Held); diff != "" {
		t.Error(diff)
	}
	for i := range r.Peers {
		r.Peers[i].Since = ""
	}
	if diff := cmp.Diff([]inspect.RoutingPeer{
		{Peer: "leaf", State: "Unresolved", Reason: "spec.localASNFrom: the node has no label"},
		{Peer: "spine", State: "Invalid", Reason: "spec.passwordSecret: there is no Secret"},
		{
			Peer: "tor", State: "Idle", Local: inspect.RoutingEnd{ASN: 64512, RouterID: "192.0.2.11"}, Router: inspect.RoutingEnd{Address: "192.0.2.1", Port: 179, ASN: 64500},
			BFD: &inspect.RoutingBFD{State: "Down", Reason: "there can be one only"},
		},
	}, r.Peers); diff != "" {
		t.Error(diff)
	}
	if text, err := json.Marshal(r); err != nil || strings.Contains(string(text), "secret") {
		t.Errorf("%s, %v", text, err)
	}
	if r = ask(inspect.RoutingQuery{Prefixes: []netip.Prefix{netip.MustParsePrefix("198.51.101.3/32")}, Limit: inspect.MaxRoutes}); len(r.Routes) != 1 || r.Routes[0].Prefix != "198.51.101.0/24" || r.More != 0 || len(r.Held) != 0 {
		t.Errorf("of one address: %+v", r)
	}
	if r = ask(inspect.RoutingQuery{Limit: 1_000_000}); len(r.Routes) != 3 {
		t.Errorf("%d routes", len(r.Routes))
	}
	if r = ask(inspect.RoutingQuery{Peers: []string{"spine"}, Limit: inspect.MaxRoutes}); len(r.Peers) != 1 || r.Peers[0].Peer != "spine" || len(r.Routes)+r.More != 0 {
		t.Errorf("of one peer: %+v", r)
	}

	// Peers beyond the limit are counted, and can be asked for by name.
	for i := range inspect.MaxRoutingPeers {
		l.rejected = append(l.rejected, announce.Rejected{Kind: "BGPPeer", Name: fmt.Sprintf("rack-%03d", i), Err: errors.New("spec.passwordSecret: there is no Secret")})
	}
	for i := range inspect.MaxHeld {
		l.decisions[netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})] = announce.Decision{Refused: "an address of node n2"}
	}
	if r = ask(inspect.RoutingQuery{}); len(r.Peers) != inspect.MaxRoutingPeers || r.MorePeers != 3 || len(r.Held) != inspect.MaxHeld || r.MoreHeld != 2 {
		t.Errorf("%d peers and %d more, %d addresses held back and %d more", len(r.Peers), r.MorePeers, len(r.Held), r.MoreHeld)
	}
	if r = ask(inspect.RoutingQuery{Peers: []string{"tor"}}); len(r.Peers) != 1 || r.Peers[0].Peer != "tor" || r.MorePeers != 0 {
		t.Errorf("of the last peer: %+v", r.Peers)
	}
}

// TestWhatASessionIsShownAs tests attributes that are sent on some sessions only, and values on which the ends have agreed.
func TestWhatASessionIsShownAs(t *testing.T) {
	med, pref := uint32(10), uint32(200)
	attributes := route.Attributes{
		Communities: []route.Community{route.GracefulShutdown}, LargeCommunities: []route.LargeCommunity{{Global: 1, Local1: 2, Local2: 3}},
		LocalPreference: &pref, MED: &med, Bandwidth: 250_000, Prepend: 2,
	}
	route := bgp.Route{Prefix: netip.MustParsePrefix("2001:db8::7/128"), Peer: "tor", NextHop: netip.MustParseAddr("2001:db8::11"), Attributes: attributes}
	communities := []string{"graceful-shutdown", "1:2:3"}
	external := inspect.RoutingRoute{Prefix: "2001:db8::7/128", Peer: "tor", NextHop: "2001:db8::11", Communities: communities, MED: &med, Prepend: 2, LinkBandwidth: 250_000}
	internal := external
	internal.Prepend, internal.LocalPreference = 0, &pref
	for asn, want := range map[uint32]inspect.RoutingRoute{64500: external, 64512: internal} {
		d := bgp.Detail{Config: tor()}
		d.Config.PeerASN = asn
		if diff := cmp.Diff(want, routingRoute(&route, &d)); diff != "" {
			t.Errorf("AS %d: %s", asn, diff)
		}
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	got := routingPeer(&bgp.Detail{
		Session: bgp.Session{
			Peer: "tor", Address: netip.MustParseAddr("192.0.2.1"), State: bgp.Established, Since: at, Flaps: map[bgp.Cause]uint64{bgp.BFDDown: 2},
			LastError: bgp.Error{Text: "no answer", At: at}, Advertised4: 3, Withheld6: 1, WithheldReason: "no next hop",
		},
		Config:       bgp.Peer{LocalASN: 64512, External: true, Passive: true, RouterID: netip.MustParseAddr("192.0.2.11")},
		LocalAddress: netip.MustParseAddr("192.0.2.11"), RouterASN: 64501, RouterID: netip.MustParseAddr("192.0.2.2"), HoldTime: 9 * time.Second, KeepaliveTime: 3 * time.Second,
		Remote: bgp.Capabilities{Families: []string{"IPv4 unicast"}, Others: []string{"route refresh"}}, UpdatesSent: 4,
	})
	if diff := cmp.Diff(inspect.RoutingPeer{
		Peer: "tor", State: "Established", Since: "2026-01-02T03:04:05Z", LastError: &inspect.RoutingError{Text: "no answer", At: "2026-01-02T03:04:05Z"}, Flaps: map[string]uint64{"bfd_down": 2},
		Local:   inspect.RoutingEnd{Address: "192.0.2.11", Port: 179, ASN: 64512, RouterID: "192.0.2.11"},
		Router:  inspect.RoutingEnd{Address: "192.0.2.1", ASN: 64501, RouterID: "192.0.2.2", Families: []string{"IPv4 unicast"}, Capabilities: []string{"route refresh"}},
		Passive: true, HoldTime: "9s", KeepaliveTime: "3s", IPv4: inspect.RoutingCount{Sent: 3}, IPv6: inspect.RoutingCount{Withheld: 1}, WithheldReason: "no next hop", UpdatesSent: 4,
	}, got); diff != "" {
		t.Error(diff)
	}
	b := routingBFD(&bfd.Status{
		State: bfd.Up, Since: at, RemoteState: bfd.Up, PacketsReceived: 9, TransmitInterval: 100 * time.Millisecond, ReceiveInterval: 1500 * time.Microsecond,
		DetectionTime: 1234567 * time.Microsecond, Received: bfd.Measurement{Count: 9, Min: 10 * time.Microsecond, Mean: time.Millisecond, Max: 61 * time.Second},
	})
	if diff := cmp.Diff(&inspect.RoutingBFD{
		State: "Up", Since: "2026-01-02T03:04:05Z", Diagnostic: "No Diagnostic", RouterState: "Up", RouterDiagnostic: "No Diagnostic", TransmitInterval: "100ms", ReceiveInterval: "1.5ms",
		DetectionTime: "1.23s", Measured: &inspect.RoutingMeasured{Packets: 9, Min: "0s", Mean: "1ms", Max: "1m1s"}, PacketsReceived: 9,
	}, b); diff != "" {
		t.Error(diff)
	}
}

// TestMetricsOfSessions pins the names and labels of the metrics of a session that is not up.
func TestMetricsOfSessions(t *testing.T) {
	s := bgp.New(zap.NewNop())
	s.SetPeers([]bgp.Peer{tor()})
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(bgpCollector{s})
	const want = `
# HELP herald_bgp_routes Routes announced to the peer.
# TYPE herald_bgp_routes gauge
herald_bgp_routes{family="IPv4",peer="tor"} 0
herald_bgp_routes{family="IPv6",peer="tor"} 0
# HELP herald_bgp_routes_withheld Routes that cannot be sent to the peer: there is no next hop of their family, or the router does not speak it.
# TYPE herald_bgp_routes_withheld gauge
herald_bgp_routes_withheld{family="IPv4",peer="tor"} 0
herald_bgp_routes_withheld{family="IPv6",peer="tor"} 0
# HELP herald_bgp_session_flaps_total How often the session left Established, by cause. What the speaker closed on purpose does not count.
# TYPE herald_bgp_session_flaps_total counter
herald_bgp_session_flaps_total{cause="bfd_down",peer="tor"} 0
herald_bgp_session_flaps_total{cause="connection_lost",peer="tor"} 0
herald_bgp_session_flaps_total{cause="hold_timer_expired",peer="tor"} 0
herald_bgp_session_flaps_total{cause="notification_received",peer="tor"} 0
herald_bgp_session_flaps_total{cause="notification_sent",peer="tor"} 0
herald_bgp_session_flaps_total{cause="own_failure",peer="tor"} 0
# HELP herald_bgp_session_state 1 for the state that the session is in (RFC 4271, section 8.2.2).
# TYPE herald_bgp_session_state gauge
herald_bgp_session_state{peer="tor",state="Idle"} 1
# HELP herald_bgp_session_up 1 if the session is established.
# TYPE herald_bgp_session_up gauge
herald_bgp_session_up{peer="tor"} 0
# HELP herald_bgp_updates_total UPDATE messages, by direction.
# TYPE herald_bgp_updates_total counter
herald_bgp_updates_total{direction="received",peer="tor"} 0
herald_bgp_updates_total{direction="sent",peer="tor"} 0
`
	var names []string
	for line := range strings.Lines(want) {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, _, _ = strings.Cut(name, " ")
			names = append(names, name)
		}
	}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
	if n := testutil.CollectAndCount(bgpCollector{s}, "herald_bgp_session_changed_timestamp_seconds"); n != 1 {
		t.Errorf("%d times of the last change", n)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// TestMetricsOfPaths runs BFD with a router that does not exist, and pins the names and labels of the metrics.
func TestMetricsOfPaths(t *testing.T) {
	s := bfd.New(zap.NewNop(), nil)
	if faults := s.Set([]bfd.Session{{Name: "tor", Peer: netip.MustParseAddr("127.0.0.99")}}); faults != nil {
		t.Fatal(faults)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	for len(s.Sessions()) == 0 {
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("no session begins")
		}
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(pathCollector{s})
	const want = `
# HELP herald_bfd_downs_total How often BFD with the peer went from Up to Down, by the diagnostic of this node (RFC 5880, section 4.1).
# TYPE herald_bfd_downs_total counter
herald_bfd_downs_total{diagnostic="control_detection_time_expired",peer="tor"} 0
herald_bfd_downs_total{diagnostic="neighbor_signaled_session_down",peer="tor"} 0
# HELP herald_bfd_failures_total How often the path to the peer was found dead.
# TYPE herald_bfd_failures_total counter
herald_bfd_failures_total{peer="tor"} 0
# HELP herald_bfd_session_state 1 for the state that BFD with the peer is in (RFC 5880, section 6.2).
# TYPE herald_bfd_session_state gauge
herald_bfd_session_state{peer="tor",state="Down"} 1
# HELP herald_bfd_session_up 1 if BFD with the peer is up.
# TYPE herald_bfd_session_up gauge
herald_bfd_session_up{peer="tor"} 0
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "herald_bfd_downs_total", "herald_bfd_failures_total", "herald_bfd_session_state", "herald_bfd_session_up"); err != nil {
		t.Error(err)
	}
	if n := testutil.CollectAndCount(pathCollector{s}, "herald_bfd_packets_total"); n != 2 {
		t.Errorf("%d counters of packets", n)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}
