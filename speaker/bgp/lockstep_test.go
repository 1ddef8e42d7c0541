package bgp

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
)

func startedServer(t *testing.T) *routeServer {
	s, err := startServer(t.Context(), validPeer(), nil, slog.DiscardHandler, func(*apiutil.WatchEventMessage_PeerEvent, time.Time) {})
	if err != nil {
		t.Error(err)
	}
	return s
}

// A server that was held may be shut down as soon as it goes on, before its hold has ended.
func TestAServerStopsAsItsHoldEnds(t *testing.T) {
	s := startedServer(t)
	stopped := make(chan struct{})
	close(stopped)
	for range 64 { // An error here would show in about every second round.
		h := newHold(&routeServer{gobgp: s.gobgp, stopped: stopped})
		<-h.still
		h.end()
	}
	s.stop(false)
}

// A server that starts waits for a busy server. Meanwhile the others can announce, withdraw and stop.
func TestABusyServerDelaysOnlyAServerThatStarts(t *testing.T) {
	start := func() *routeServer { return startedServer(t) }
	within := func(what string, f func()) {
		t.Helper()
		done := make(chan struct{})
		go func() { defer close(done); f() }()
		select {
		case <-done:
		case <-time.After(patience):
			t.Errorf("%s takes more than %v", what, patience)
		}
	}
	busy, other, leaving := start(), start(), start()
	work := newHold(busy)
	<-work.still
	started := make(chan *routeServer, 1)
	go func() { started <- start() }()

	// Some of the changes coincide with a start that tries to hold all servers.
	prefix := netip.MustParsePrefix("198.51.100.1/32")
	within("50 changes", func() {
		for range 50 {
			if err := other.announce([]announcement{{prefix: prefix, nextHop: netip.MustParseAddr("198.18.0.1")}}); err != nil {
				t.Error(err)
			}
			if err := other.withdraw([]netip.Prefix{prefix}); err != nil {
				t.Error(err)
			}
			time.Sleep(maxIdleHold / 10)
		}
	})
	within("a stop", func() { leaving.stop(false) })
	if len(started) > 0 {
		t.Error("a server has started while another was not held")
	}
	work.end()
	within("a start after that", func() {
		if s := <-started; s != nil {
			s.stop(false)
		}
	})
	busy.stop(false)
	other.stop(false)
}
