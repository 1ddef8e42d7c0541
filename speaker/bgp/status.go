package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"go.uber.org/zap"
)

// State is a state of the BGP finite state machine (RFC 4271 §8.2.2).
type State uint8

// The states. A session that is being dialled is in Active: gobgp does not show Connect and OpenSent
// for connections that it opens itself.
const (
	Idle State = iota
	Connect
	Active
	OpenSent
	OpenConfirm
	Established
)

func (s State) String() string {
	names := [...]string{"Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Session is how a peer fares.
type Session struct {
	Peer    string
	Address netip.Addr
	State   State
	// Since is when the session came up, or when it went down or was first tried.
	Since time.Time
	// Reason says, in words for people, why the session is not up. Empty while it is, and until the
	// first attempt has failed.
	Reason string
	// Advertised4 and Advertised6 are how many prefixes of each family the router has been told of
	// and may use. Zero while the session is down.
	Advertised4, Advertised6 int
	// Withheld is how many prefixes cannot be told to this router, because there is no next hop of
	// their family or the router does not speak it on this session; WithheldReason says which.
	Withheld       int
	WithheldReason string
}

// Uptime is how long the session has been up; zero if it is not.
func (s Session) Uptime(now time.Time) time.Duration {
	if s.State != Established {
		return 0
	}
	return now.Sub(s.Since)
}

// status is what is known about a session. Goroutines of gobgp's write it.
type status struct {
	peer    Peer
	log     *zap.Logger
	changed func() // the session's state has changed
	// settled gets a value when the session has left or reached Established; capacity one.
	settled chan struct{}
	// refused gets the reason why there is to be no session with the router for a while; capacity one.
	refused chan error

	mu       sync.Mutex
	closing  bool // by this node, for good
	state    State
	since    time.Time
	reason   string
	source   source       // of the reason
	families []bgp.Family // that the router speaks, while established
	sent     counts
	unsent   counts // for want of a next hop
}

// counts are numbers of prefixes.
type counts struct{ v4, v6 int }

func (c *counts) add(prefix netip.Prefix, n int) {
	if prefix.Addr().Is4() {
		c.v4 += n
	} else {
		c.v6 += n
	}
}

func newStatus(peer Peer, log *zap.Logger, changed func()) *status {
	return &status{peer: peer, log: log, changed: changed, settled: make(chan struct{}, 1), refused: make(chan error, 1), since: time.Now()}
}

func (s *status) session() Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Session{Peer: s.peer.Name, Address: s.peer.Address, State: s.state, Since: s.since}
	if s.state != Established {
		out.Reason = s.reason
	}
	var why []string
	family := func(name string, f bgp.Family, sent, unsent int, advertised *int) {
		if unsent > 0 {
			out.Withheld += unsent
			why = append(why, fmt.Sprintf("this node has no %s address that could be the next hop of %s prefixes on this session", name, name))
		}
		if s.state != Established || sent == 0 {
			return
		}
		if !slices.Contains(s.families, f) {
			out.Withheld += sent
			why = append(why, fmt.Sprintf("the router does not speak %s unicast on this session: activate that address family there", name))
			return
		}
		*advertised = sent
	}
	family("IPv4", bgp.RF_IPv4_UC, s.sent.v4, s.unsent.v4, &out.Advertised4)
	family("IPv6", bgp.RF_IPv6_UC, s.sent.v6, s.unsent.v6, &out.Advertised6)
	out.WithheldReason = strings.Join(why, "; ")
	return out
}

func (s *status) count(sent, unsent counts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent, s.unsent = sent, unsent
}

func (s *status) established() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == Established
}

// refuse has the session end for a while.
func (s *status) refuse(because error) {
	select {
	case s.refused <- because:
	default:
	}
}

// forgive is for a session that is tried again.
func (s *status) forgive() {
	select {
	case err := <-s.refused:
		s.log.Debug("BGP session is tried again", zap.NamedError("it was refused", err))
	default:
	}
}

// fail notes a failure of our own.
func (s *status) fail(err error) {
	s.log.Error("there is no BGP session for a while", zap.Error(err))
	s.enter(Idle, time.Now(), fact, err.Error(), nil)
}

// close notes that what follows is on purpose, end that it is over.
func (s *status) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
}

func (s *status) end() { s.enter(Idle, time.Now(), fact, "closed by this node", nil) }

// observe is called by gobgp on each change of state.
func (s *status) observe(event *apiutil.WatchEventMessage_PeerEvent, at time.Time) {
	if event.Type != apiutil.PEER_EVENT_STATE {
		return
	}
	var families []bgp.Family
	for _, capability := range event.Peer.State.RemoteCap {
		if mp, ok := capability.(*bgp.CapMultiProtocol); ok {
			families = append(families, mp.CapValue)
		}
	}
	if len(families) == 0 {
		families = []bgp.Family{bgp.RF_IPv4_UC} // RFC 4760 §8: a router that names none
	}
	// gobgp numbers states as RFC 4271 lists them, and so do we.
	state := State(event.Peer.State.SessionState)
	if state == Established && s.peer.External && event.Peer.State.PeerASN == s.peer.LocalASN {
		s.refuse(errInternal)
	}
	from, reason := s.explainEvent(state, event.Peer.State.DisconnectMessage)
	s.enter(state, at, from, reason, families)
}

// enter changes the state. An empty reason, or one from a worse source, leaves the one before.
func (s *status) enter(state State, at time.Time, from source, reason string, families []bgp.Family) {
	s.mu.Lock()
	was := s.state
	s.state = state
	if reason != "" {
		s.learn(from, reason)
	}
	if state == Established {
		s.families, s.reason, s.source = families, "", guess
	}
	if (was == Established) != (state == Established) {
		s.since = at
	}
	reason = s.reason
	closing := s.closing
	s.mu.Unlock()

	if (was == Established) != (state == Established) {
		switch {
		case state == Established:
			s.log.Info("BGP session established")
		case closing:
			s.log.Info("BGP session closed")
		default:
			s.log.Warn("BGP session down", zap.String("reason", reason))
		}
		select {
		case s.settled <- struct{}{}:
		default:
		}
	}
	if was != state {
		s.changed()
	}
}
