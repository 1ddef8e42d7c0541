package bgp

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"go.uber.org/zap/zaptest"

	"github.com/heraldlb/herald/speaker/bgp/route"
)

// With graceful restart, a router hears no route before it has sent its own (RFC 4724, section 4.1). Until then nothing tells it
// of a withdrawal, so a route that is announced as the session comes up, and withdrawn when it is up, must not be sent either.
func TestARouterThatDelaysItsEndOfRIB(t *testing.T) {
	p := validPeer()
	at := freePort(t)
	p.Address, p.Passive, p.Port = hostileAt(0), true, at.Port()
	p.GracefulRestart = &GracefulRestart{RestartTime: time.Minute}
	s := New(zaptest.NewLogger(quiet{}))
	announced := map[string]route.Attributes{p.Name: {}}
	if faults := s.SetPeers([]Peer{p}); faults != nil {
		t.Fatal(faults)
	}
	status := s.members[p.Name].status
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	wanted := map[netip.Prefix]bool{}
	set := func(prefix string, exports map[string]route.Attributes) {
		t.Helper()
		one := netip.MustParsePrefix(prefix)
		s.Set(one, exports)
		delete(wanted, one)
		if exports != nil {
			wanted[one] = true
		}
		eventually(t, "gobgp has been told", func() bool {
			status.mu.Lock()
			defer status.mu.Unlock()
			return status.sent.v4 == len(wanted)
		})
	}
	inState := func(wanted api.PeerState_SessionState) {
		t.Helper()
		eventually(t, wanted.String(), func() bool {
			status.mu.Lock()
			server := status.server
			status.mu.Unlock()
			return server != nil && server.listed(t.Context()).GetState().GetSessionState() == wanted
		})
	}
	set("198.51.100.1/32", announced)

	router, err := connectedFrom(p.Address, at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = router.Close() }()
	send := func(m []byte) {
		t.Helper()
		if _, err := router.Write(m); err != nil {
			t.Fatal(err)
		}
	}
	send(openOf(64500, "4006 0078 0001 01 80")) // graceful restart of IPv4
	inState(api.PeerState_SESSION_STATE_OPENCONFIRM)
	set("198.51.100.2/32", announced)
	send(message(4, nil))
	inState(api.PeerState_SESSION_STATE_ESTABLISHED)
	eventually(t, "the session has noticed", func() bool { return status.established() && len(status.entered) == 0 })
	set("198.51.100.3/32", announced)
	set("198.51.100.2/32", nil)
	send(update("", "")) // End-of-RIB
	set("198.51.100.4/32", announced)

	heard := map[netip.Prefix]bool{}
	for last := netip.MustParsePrefix("198.51.100.4/32"); !heard[last]; {
		kind, body, err := router.next()
		if err != nil {
			t.Fatalf("%v, with %v", err, slices.Collect(maps.Keys(heard)))
		}
		if kind != 2 {
			continue
		}
		m, err := bgp.ParseBGPMessage(message(kind, body))
		if err != nil {
			t.Fatal(err)
		}
		u := m.Body.(*bgp.BGPUpdate)
		for _, w := range u.WithdrawnRoutes {
			delete(heard, netip.MustParsePrefix(w.NLRI.String()))
		}
		for _, n := range u.NLRI {
			heard[netip.MustParsePrefix(n.NLRI.String())] = true
		}
	}
	if !maps.Equal(heard, wanted) {
		t.Errorf("the router has %v, want %v", slices.Collect(maps.Keys(heard)), slices.Collect(maps.Keys(wanted)))
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for deadline := time.After(patience); !is(); {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
