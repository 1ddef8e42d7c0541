package bgp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"go.uber.org/zap"
)

// State is a state of the BGP finite state machine (RFC 4271 §8.2.2).
type State uint8

// The states. While this node connects, the session is in Active: to gobgp, the router connects.
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

// Session is the state of the session with a peer.
type Session struct {
	Peer    string
	Address netip.Addr
	State   State
	// Since is when the session came up, or when it went down or was first tried.
	Since time.Time
	// Reason describes for users why the session is not up. It is empty while the session is up, and until the first attempt
	// has failed.
	Reason string
	// LastError is why the session is not up or, if it is up, why it was not up before. Its text is empty if the session has
	// always been up.
	LastError Error
	// Flaps counts how often the session has left Established, by cause. Sessions that this node closed on purpose do not
	// count.
	Flaps map[Cause]uint64
	// Advertised4 and Advertised6 count the prefixes of each family that the router has been told and may use. They are zero
	// while the session is down.
	Advertised4, Advertised6 int
	// Withheld4 and Withheld6 count the prefixes of each family that this router cannot be told, because there is no next hop
	// of their family or the router does not accept them on this session. WithheldReason says which.
	Withheld4, Withheld6 int
	WithheldReason       string
}

// Side is an end of a session.
type Side string

// The ends. An error of the connection itself is reported by neither: "".
const (
	ThisNode  Side = "node"
	TheRouter Side = "router"
)

// Error is why a session was not up.
type Error struct {
	Text string // a description for users
	By   Side   // the end that reported it
	At   time.Time
}

// Cause is why a session left Established.
type Cause string

// The causes.
const (
	// HoldTimerExpired: nothing was heard from the router for the hold time.
	HoldTimerExpired Cause = "hold_timer_expired"
	// BFDDown: either end has found the path dead (RFC 9384).
	BFDDown Cause = "bfd_down"
	// NotificationReceived and NotificationSent: either end sent any other NOTIFICATION.
	NotificationReceived Cause = "notification_received"
	NotificationSent     Cause = "notification_sent"
	// ConnectionLost: the TCP connection ended without a NOTIFICATION.
	ConnectionLost Cause = "connection_lost"
	// OwnFailure: something failed on this node.
	OwnFailure Cause = "own_failure"
)

// Causes lists all causes.
var Causes = []Cause{HoldTimerExpired, BFDDown, NotificationReceived, NotificationSent, ConnectionLost, OwnFailure}

// status is what is known about a session. gobgp's goroutines write it.
type status struct {
	peer    Peer
	log     *zap.Logger
	changed func() // called when the session's state has changed
	// refused gets the reason why there should be no session with the router for a while; capacity one.
	refused chan error
	// entered gets a value when the session has entered a state; capacity one.
	entered chan struct{}
	// waits gets a value when gobgp begins to wait for a connection; capacity one.
	waits chan struct{}

	mu      sync.Mutex
	closing bool // this node closes the session for good
	state   State
	since   time.Time
	reason  reason    // why the session is not established; empty while it is
	known   time.Time // when the reason was learned, or confirmed, last
	earlier string    // a better reason from before, which nothing has confirmed for long; empty if there is none
	last    Error     // the reason before the session was established last
	agreed  agreed    // valid while established
	cause   Cause     // of the session's coming end, from the NOTIFICATION
	flaps   map[Cause]uint64
	ended   Cause      // of the last end of a session of the present server; empty if it has had none
	asked   time.Time  // since when the router owes an OPEN or, in OpenConfirm, a KEEPALIVE; zero if it owes none
	opening *handshake // the connection with our last OPEN; nil if this node has closed it because the router did not answer
	unheard string     // why no Router Advertisement can be sent to an unnumbered router
	sent    counts
	unsent  counts // prefixes without a next hop
	server  *routeServer
}

// agreed has the contents of both ends' OPEN messages.
type agreed struct {
	asn           uint32     // of the router
	routerID      netip.Addr // of the router
	local, remote []bgp.ParameterCapabilityInterface
}

// refuses describes for users why the router does not accept prefixes of a family. It returns "" if the router accepts them.
func (a agreed) refuses(p Peer, is4 bool) string {
	switch {
	case !slices.Contains(familiesOf(a.remote), family(is4)):
		return fmt.Sprintf("the router does not speak %s unicast on this session: activate that address family there", familyName(is4))
	case is4 && p.Unnumbered && !slices.ContainsFunc(a.remote, func(c bgp.ParameterCapabilityInterface) bool { return capabilityText(c) == extendedNextHop }):
		return "the router does not take IPv4 prefixes with an IPv6 next hop on this session, and without addresses on the link there is no other: " +
			"turn the extended next hop capability on there (RFC 8950)"
	}
	return ""
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
	return &status{peer: peer, log: log, changed: changed, refused: make(chan error, 1), entered: make(chan struct{}, 1), waits: make(chan struct{}, 1), since: time.Now(), flaps: map[Cause]uint64{}}
}

func (s *status) session() Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current()
}

// current returns the current state of the session. The lock is held.
func (s *status) current() Session {
	out := Session{
		Peer: s.peer.Name, Address: s.peer.Address, State: s.state, Since: s.since, LastError: s.last, Flaps: maps.Clone(s.flaps),
	}
	if s.state != Established && s.reason.Text != "" {
		out.LastError = s.why()
		out.Reason = out.LastError.Text
	}
	var why []string
	for _, f := range []struct {
		is4                  bool
		sent, unsent         int
		advertised, withheld *int
	}{
		{true, s.sent.v4, s.unsent.v4, &out.Advertised4, &out.Withheld4},
		{false, s.sent.v6, s.unsent.v6, &out.Advertised6, &out.Withheld6},
	} {
		if f.unsent > 0 {
			*f.withheld = f.unsent
			why = append(why, noNextHop(f.is4))
		}
		switch {
		case s.state != Established || f.sent == 0:
		case s.agreed.refuses(s.peer, f.is4) == "":
			*f.advertised = f.sent
		default:
			*f.withheld += f.sent
			why = append(why, s.agreed.refuses(s.peer, f.is4))
		}
	}
	out.WithheldReason = strings.Join(why, "; ")
	return out
}

func noNextHop(is4 bool) string {
	return fmt.Sprintf("this node has no %[1]s address that could be the next hop of %[1]s prefixes on this session", familyName(is4))
}

func familyName(is4 bool) string {
	if is4 {
		return "IPv4"
	}
	return "IPv6"
}

func family(is4 bool) bgp.Family {
	if is4 {
		return bgp.RF_IPv4_UC
	}
	return bgp.RF_IPv6_UC
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

// refuse makes the session end for a while.
func (s *status) refuse(because error) {
	select {
	case s.refused <- because:
	default:
	}
}

// begin drops what is known of the server before this one, because the session is tried again.
func (s *status) begin() {
	s.mu.Lock()
	s.ended, s.asked = "", time.Time{}
	s.mu.Unlock()
	select {
	case <-s.waits:
	default:
	}
	select {
	case err := <-s.refused:
		s.log.Debug("trying the BGP session again", zap.NamedError("it was refused", err))
	default:
	}
}

// errOver ends a server whose session has ended. gobgp (v4.8.0) keeps what it had queued for the router, and would send that in
// the next session: routes that were withdrawn meanwhile, or the End-of-RIB marker (RFC 4724, section 2).
var errOver = errors.New("the session is over")

// over reports whether the next session needs a new server. It does not if the router has graceful restart and may be
// restarting. A new server would tell the router that this node has restarted, too, and the router would not wait for our routes
// (RFC 4724, section 4.1).
func (s *status) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.peer.GracefulRestart
	restarts := s.ended == ConnectionLost || s.ended == HoldTimerExpired || g != nil && g.KeepOnNotification && s.ended == NotificationReceived
	return s.ended != "" && (g == nil || !restarts)
}

// stillWaits reports whether gobgp waits for a connection. It empties the channel waits, so the next value there is for another
// connection.
func (s *status) stillWaits() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.waits:
	default:
	}
	return s.state == Active
}

// takesConnections reports whether gobgp takes a connection of a passive router, or needs no further one. In other states it
// would close the connection.
func (s *status) takesConnections() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == Active || s.state == Established
}

// fail records a failure of this node.
func (s *status) fail(err error) {
	s.log.Error("failed to run the BGP session, trying again", zap.Error(err))
	s.enter(Idle, time.Now(), OwnFailure, reason{fact, Error{Text: err.Error(), By: ThisNode}}, agreed{})
}

// close records that this node ends the session on purpose.
func (s *status) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
}

// end records that this node has ended the session.
func (s *status) end() {
	s.enter(Idle, time.Now(), OwnFailure, reason{fact, Error{Text: "closed by this node", By: ThisNode}}, agreed{})
}

// observe handles a change of state. gobgp calls it.
func (s *status) observe(event *apiutil.WatchEventMessage_PeerEvent, at time.Time) {
	if event.Type != apiutil.PEER_EVENT_STATE {
		return
	}
	// gobgp and State number the states in the order of RFC 4271.
	e := event.Peer.State
	state := State(e.SessionState)
	if state == Established && s.peer.External && e.PeerASN == s.peer.LocalASN {
		s.refuse(errInternal)
	}
	local := e.LocalCap
	if s.peer.Role != "" {
		local = append(slices.Clone(local), s.peer.Role.capability())
	}
	cause := ConnectionLost
	if e.DisconnectReason == api.PeerState_DISCONNECT_REASON_HOLD_TIMER_EXPIRED {
		cause = HoldTimerExpired
	}
	owed := time.Time{}
	if state == OpenSent || state == OpenConfirm {
		owed = at
	}
	s.owesAnswer(owed)
	s.enter(state, at, cause, s.explainEvent(state, e.DisconnectMessage), agreed{e.PeerASN, e.RouterID, local, e.RemoteCap})
	signal(s.entered)
	s.mu.Lock()
	server := s.server
	s.mu.Unlock()
	if state == Established && server != nil && server.neverExpires(context.Background()) {
		s.refuse(errNoHoldTime)
	}
}

// enter changes the state. An empty reason, or one from a worse source, does not replace the previous reason. cause is the cause
// of the end of an established session, unless a NOTIFICATION has given a better one.
func (s *status) enter(state State, at time.Time, cause Cause, why reason, with agreed) {
	s.mu.Lock()
	was := s.state
	s.state = state
	if state == Active {
		signal(s.waits)
	}
	if why.Text != "" {
		s.learn(why)
	}
	if state == Established {
		if s.reason.Text != "" {
			s.last = s.why()
		}
		s.agreed, s.reason, s.earlier, s.cause = with, reason{}, "", ""
	}
	if (was == Established) != (state == Established) {
		s.since = at
	}
	if was == Established && state != Established && !s.closing {
		s.ended = cmp.Or(s.cause, cause)
		s.flaps[s.ended]++
	}
	text := s.reason.Text
	closing := s.closing
	s.mu.Unlock()

	if (was == Established) != (state == Established) {
		switch {
		case state == Established:
			s.log.Info("BGP session established")
		case closing:
			s.log.Info("BGP session closed")
		default:
			s.log.Warn("BGP session down", zap.String("reason", text))
		}
	}
	if was != state {
		s.changed()
	}
}
