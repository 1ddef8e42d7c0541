package bgp

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
	"pgregory.net/rapid"

	"github.com/heraldlb/herald/speaker/bgp/route"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// Routes and peers are set in any order, and sessions take changes at any time. In the end each peer has been told exactly the
// last state, and nothing is kept for names that are not needed any more.
func TestPeersAreToldWhatWasSaidLast(t *testing.T) {
	names := []string{"a", "b", "c"}
	rapid.Check(t, func(t *rapid.T) {
		s := New(zaptest.NewLogger(quiet{}))
		model := map[netip.Prefix]map[string]route.Attributes{}
		told := map[string]map[netip.Prefix]route.Attributes{} // the changes that sessions have taken
		for _, name := range names {
			told[name] = map[netip.Prefix]route.Attributes{}
		}
		look := func(name string) {
			if s.ribs[name] == nil {
				return
			}
			for prefix, a := range s.ribs[name].takeChanged() {
				if a == nil {
					delete(told[name], prefix)
				} else {
					told[name][prefix] = *a
				}
			}
		}
		everyone := func() []Peer {
			var peers []Peer
			for _, name := range names {
				p := validPeer()
				p.Name = name
				peers = append(peers, p)
			}
			return peers
		}
		if faults := s.SetPeers(everyone()); faults != nil {
			t.Fatal(faults)
		}
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, rapid.Byte().Draw(t, "host") % 4}), 32)
				exports := map[string]route.Attributes{}
				for _, name := range rapid.SliceOfDistinct(rapid.SampledFrom(names), rapid.ID).Draw(t, "peers") {
					exports[name] = route.Attributes{Prepend: rapid.Byte().Draw(t, "prepend") % 3}
				}
				s.Set(prefix, exports)
				model[prefix] = exports
			},
			"look": func(t *rapid.T) { look(rapid.SampledFrom(names).Draw(t, "peer")) },
		})
		for _, name := range names {
			look(name)
			want := map[netip.Prefix]route.Attributes{}
			for prefix, exports := range model {
				if a, ok := exports[name]; ok {
					want[prefix] = a
				}
			}
			if !maps.EqualFunc(want, told[name], route.Attributes.Equal) {
				t.Fatalf("peer %s was told %v, want %v", name, told[name], want)
			}
			if all := s.ribs[name].all(); !maps.EqualFunc(want, all, route.Attributes.Equal) {
				t.Fatalf("a new session of peer %s would be told %v, want %v", name, all, want)
			}
		}
		s.SetPeers(nil)
		for prefix := range model {
			s.Set(prefix, nil)
		}
		if len(s.ribs) != 0 || len(s.hearers) != 0 || len(s.members) != 0 {
			t.Fatalf("left behind: %v, %v, %v", s.ribs, s.hearers, s.members)
		}
	})
}

func TestSayingTheSameAgainIsNoChange(t *testing.T) {
	s := New(zaptest.NewLogger(t))
	prefix := netip.MustParsePrefix("198.51.100.1/32")
	s.Set(prefix, map[string]route.Attributes{"a": {Communities: []route.Community{1, 2}}})
	if got := len(s.ribs["a"].takeChanged()); got != 1 {
		t.Fatalf("%d changes, want 1", got)
	}
	// Host bits and the order of communities make no difference either.
	s.Set(prefix, map[string]route.Attributes{"a": {Communities: []route.Community{2, 1}}})
	if got := s.ribs["a"].takeChanged(); len(got) != 0 {
		t.Errorf("changes %v, want none", got)
	}
}

func TestWhatCallersKeepIsTheirs(t *testing.T) {
	s := New(zaptest.NewLogger(t))
	prefix := netip.MustParsePrefix("198.51.100.1/32")
	med, communities := uint32(1), []route.Community{1}
	s.Set(prefix, map[string]route.Attributes{"a": {MED: &med, Communities: communities}})
	med, communities[0] = 2, 2
	got := s.ribs["a"].all()[prefix]
	if *got.MED != 1 || got.Communities[0] != 1 {
		t.Errorf("attributes changed behind the speaker's back: %+v", got)
	}
}

func TestSetPeersReportsFaultsByName(t *testing.T) {
	s := New(zaptest.NewLogger(t))
	good, twin, broken := validPeer(), validPeer(), validPeer()
	twin.PeerASN = 1
	broken.Name, broken.LocalASN = "broken", 0
	faults := s.SetPeers([]Peer{good, twin, broken})
	if got := slices.Sorted(maps.Keys(faults)); !slices.Equal(got, []string{"broken", "tor"}) {
		t.Errorf("faults of %v: %v", got, faults)
	}
	sessions := s.Sessions()
	if len(sessions) != 1 || sessions[0].Peer != "tor" || sessions[0].State != Idle {
		t.Errorf("sessions %+v, want tor alone, idle", sessions)
	}
	if got := s.members["tor"].peer.PeerASN; got != good.PeerASN {
		t.Errorf("the second of two peers of one name was taken, with AS number %d", got)
	}
}

// A caller may answer each change by setting the same peers again. This must not cause further changes.
func TestSetPeersWithTheSamePeersIsNoChange(t *testing.T) {
	s := New(zaptest.NewLogger(t))
	for _, wantNews := range []bool{true, false} {
		s.SetPeers([]Peer{validPeer()})
		news := false
		select {
		case <-s.Changed():
			news = true
		default:
		}
		if news != wantNews {
			t.Errorf("change told: %t, want %t", news, wantNews)
		}
	}
}

// Servers start, stop and get routes at the same time, each in its own goroutine. This is a test for the race detector and for
// deadlocks in lockstep.
func TestManySessionsComeAndGo(t *testing.T) {
	s := New(zaptest.NewLogger(quiet{}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	for round := range 4 {
		var peers []Peer
		exports := map[string]route.Attributes{}
		for i := range 8 {
			p := validPeer()
			p.Name = fmt.Sprint("peer", i)
			// Nobody listens on this port. Every second peer gets a different port in each round.
			p.Address, p.Port = netip.MustParseAddr("127.0.0.1"), uint16(1+i%2*round)
			peers = append(peers, p)
			exports[p.Name] = route.Attributes{Prepend: uint8(round)}
		}
		s.SetPeers(peers)
		for slices.ContainsFunc(s.Sessions(), func(s Session) bool { return s.State == Idle }) {
			<-s.Changed()
		}
		for host := range byte(50) {
			s.Set(netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, host}), 32), exports)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := s.Run(ctx); err == nil {
		t.Error("it runs a second time")
	}
}

// quiet is a log that discards everything.
type quiet struct{}

func (quiet) Logf(string, ...any)   {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fail()                 {}
func (quiet) Failed() bool          { return false }
func (quiet) Name() string          { return "" }
func (quiet) FailNow()              {}
