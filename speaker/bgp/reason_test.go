package bgp

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// active, opens and disconnect are what gobgp reports of a session.
func active(s *status) { s.enter(Active, time.Now(), "", reason{}, agreed{}) }

func opens(s *status) {
	s.opens(&handshake{TCPConn: &net.TCPConn{}})
	s.enter(OpenSent, time.Now(), "", reason{}, agreed{})
}

func disconnect(message string) func(*status) {
	return func(s *status) { s.enter(Idle, time.Now(), ConnectionLost, s.explainEvent(Idle, message), agreed{}) }
}

// After a router has refused a session for a known reason, it closes further connections without a NOTIFICATION. The reason
// stays until there is a better one.
func TestAKnownReasonIsNotReplacedByAGuess(t *testing.T) {
	record := func(message string, args ...any) func(*status) {
		return func(s *status) {
			r := slog.NewRecord(time.Time{}, slog.LevelInfo, message, 0)
			r.Add(args...)
			_ = logTap{slog.DiscardHandler, s, &received{}}.Handle(context.Background(), r)
		}
	}
	notification := func(direction string, code, subcode int) func(*status) {
		return record(direction+" notification", "Code", code, "Subcode", subcode)
	}
	told := func(code, subcode uint8) func(*status) { return func(s *status) { s.told(code, subcode, "", nil) } }
	dialled := func(failure error) func(*status) {
		return func(s *status) {
			s.unreachable(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", failure)})
		}
	}
	refused := dialled(unix.ECONNREFUSED)
	advertised := func(failure error) func(*status) { return func(s *status) { s.advertised(failure) } }
	established := func(s *status) { s.enter(Established, time.Now(), "", reason{}, agreed{}) }
	badAS := notification("sent", bgp.BGP_ERROR_OPEN_MESSAGE_ERROR, bgp.BGP_ERROR_SUB_BAD_PEER_AS)
	closed := func(s *status) {
		opens(s)
		disconnect("read-failed")(s)
	}
	silent := func(s *status) {
		opens(s)
		s.owesAnswer(time.Now().Add(-answerLimit))
		s.awaitAnswer(time.Now())
		disconnect("read-failed")(s)
	}
	for _, story := range []struct {
		name string
		what []func(*status)
		want string
	}{
		{"the wrong AS number, and silence", []func(*status){badAS, closed, disconnect("read-failed")}, "AS number is not 64513"},
		{"the wrong AS number, and a rejection", []func(*status){badAS, told(bgp.BGP_ERROR_CEASE, bgp.BGP_ERROR_SUB_CONNECTION_REJECTED)}, "AS number is not 64513"},
		{"a rejection, after which gobgp reads no more", []func(*status){closed, told(bgp.BGP_ERROR_CEASE, bgp.BGP_ERROR_SUB_CONNECTION_REJECTED), closed}, "Cease, Connection Rejected"},
		{"the router expects another AS number", []func(*status){told(bgp.BGP_ERROR_OPEN_MESSAGE_ERROR, bgp.BGP_ERROR_SUB_BAD_PEER_AS), closed}, "expects another AS number than 64512 (spec.localASN)"},
		{"the router insists on a role", []func(*status){told(bgp.BGP_ERROR_OPEN_MESSAGE_ERROR, roleMismatch), closed}, "insists on a BGP role of this node"},
		{"the wrong AS number, and no KEEPALIVE", []func(*status){badAS, disconnect("invalid-msg")}, "AS number is not 64513"},
		{"the router says something else", []func(*status){badAS, notification("received", bgp.BGP_ERROR_CEASE, bgp.BGP_ERROR_SUB_PEER_DECONFIGURED)}, "Peer De-configured"},
		{"the router cannot be reached", []func(*status){badAS, refused}, "connection refused"},
		{"it is back, and closes the connection", []func(*status){badAS, refused, closed}, "without an answer to our OPEN"},
		{"it is silent, and this node closes the connection", []func(*status){badAS, silent}, noOpen},
		{"it is no longer silent, and closes connections", []func(*status){silent, closed}, "without an answer to our OPEN"},
		{"it closes the connection before our OPEN", []func(*status){active, disconnect("write-failed")}, "without an answer to our OPEN"},
		{"it closes the connection even earlier", []func(*status){dialled(unix.ECONNRESET)}, "without an answer to our OPEN"},
		{"no Router Advertisement, and no connection", []func(*status){badAS, advertised(unix.ENODEV), refused}, "no Router Advertisement on eth1: no such device"},
		{"a Router Advertisement, and no connection", []func(*status){advertised(unix.ENODEV), advertised(nil), refused}, "connection refused"},
		{"no Router Advertisement, before which the session ended", []func(*status){established, advertised(unix.ENODEV), notification("sent", bgp.BGP_ERROR_HOLD_TIMER_EXPIRED, 0), disconnect("hold-timer-expired"), advertised(unix.ENODEV)}, "no Router Advertisement on eth1"},
		{"no Router Advertisement for a session that is up", []func(*status){established, advertised(unix.ENODEV)}, ""},
		{"a guess, and what is known", []func(*status){closed, badAS}, "AS number is not 64513, which spec.peerASN"},
		{"a guess, and a newer one", []func(*status){closed, disconnect("read-failed")}, "without a NOTIFICATION"},
		{"a session in between", []func(*status){badAS, established, disconnect("read-failed")}, "without a NOTIFICATION"},
		{"the session is up", []func(*status){badAS, established}, ""},
		{"a failure of our own", []func(*status){closed, func(s *status) { s.fail(errors.New("no memory")) }}, "no memory"},
	} {
		s := newStatus(Peer{LocalASN: 64512, PeerASN: 64513, Address: netip.MustParseAddr("fe80::1%eth1")}, zap.NewNop(), func() {})
		for _, happens := range story.what {
			happens(s)
		}
		if got := s.session().Reason; !strings.Contains(got, story.want) || story.want == "" && got != "" {
			t.Errorf("%s: %q, want %q", story.name, got, story.want)
		}
	}
}

// Reasons that come again with each attempt do not replace one another: each change would be an event.
func TestReasonsDoNotAlternate(t *testing.T) {
	reset := func(s *status) { s.unreachable(os.NewSyscallError("connect", unix.ECONNRESET)) }
	refuses := func(s *status) { s.told(bgp.BGP_ERROR_OPEN_MESSAGE_ERROR, bgp.BGP_ERROR_SUB_BAD_PEER_AS, "", nil) }
	unheard := func(s *status) { s.advertised(unix.ENODEV) }
	deaf := func(s *status) { s.because(fact, ThisNode, "this node cannot wait for the router") }
	for _, story := range []struct {
		name  string
		first func(*status)
		then  []func(*status)
	}{
		{"the router closes the connection at once", reset, []func(*status){active, disconnect("write-failed"), opens, disconnect("read-failed"), reset}},
		{"it does so because of what it has said before", refuses, []func(*status){reset, active, disconnect("write-failed"), opens, disconnect("read-failed"), reset}},
		{"the interface is gone", unheard, []func(*status){func(s *status) { s.unreachable(unix.EADDRNOTAVAIL) }, unheard}},
		{"the interface is gone, on which this node listens", func(s *status) { unheard(s); deaf(s) }, []func(*status){unheard, deaf}},
	} {
		s := newStatus(Peer{LocalASN: 64512, PeerASN: 64513, Address: netip.MustParseAddr("fe80::1%eth1")}, zap.NewNop(), func() {})
		story.first(s)
		want := s.session().LastError
		if want.Text == "" {
			t.Errorf("%s: no reason", story.name)
		}
		for i, happens := range story.then {
			if happens(s); s.session().LastError != want {
				t.Errorf("%s: after step %d %+v, want %+v", story.name, i, s.session().LastError, want)
			}
		}
	}
}

// A router has refused the session for one reason, and then got a configuration without this node: it only closes connections. The reason
// is the present one before long, with the earlier one behind it, and does not alternate.
func TestAReasonIsThePresentOne(t *testing.T) {
	reset := func(s *status) { s.unreachable(os.NewSyscallError("connect", unix.ECONNRESET)) }
	refuses := func(s *status) { s.told(bgp.BGP_ERROR_OPEN_MESSAGE_ERROR, bgp.BGP_ERROR_SUB_BAD_PEER_AS, "", nil) }
	rejects := func(s *status) { s.told(bgp.BGP_ERROR_CEASE, bgp.BGP_ERROR_SUB_CONNECTION_REJECTED, "", nil) }
	refusal := "the router refused our OPEN: it expects another AS number than 64512 (spec.localASN) from this node"
	both := closedAtOnce + "; before that, " + refusal
	s := newStatus(Peer{LocalASN: 64512, PeerASN: 64513}, zap.NewNop(), func() {})
	later := func(d time.Duration) { s.known = s.known.Add(-d) }
	for _, step := range []struct {
		name    string
		happens func()
		want    string
	}{
		{"it refuses", func() { refuses(s) }, refusal},
		{"it closes connections", func() { later(knownFor - time.Minute); reset(s) }, refusal},
		{"it refuses again", func() { refuses(s) }, refusal},
		{"it closes connections after that", func() { later(knownFor - time.Minute); reset(s) }, refusal},
		{"it only closes connections", func() { later(time.Minute); reset(s) }, both},
		{"it goes on", func() {
			later(time.Hour)
			reset(s)
			active(s)
			disconnect("write-failed")(s)
			opens(s)
			disconnect("read-failed")(s)
			reset(s)
		}, both},
		{"it refuses in the end", func() { refuses(s) }, refusal},
		{"it closes connections for long", func() { later(knownFor); reset(s) }, both},
		{"it cannot be reached", func() { s.unreachable(unix.ETIMEDOUT) }, s.explainDial(unix.ETIMEDOUT)},
		{"it is back", func() { reset(s) }, closedAtOnce},
		{"it rejects connections", func() { rejects(s); reset(s) }, "the router ended the session: Cease, Connection Rejected"},
	} {
		if step.happens(); s.session().Reason != step.want || s.session().LastError.Text != step.want {
			t.Errorf("%s: %q, want %q", step.name, s.session().Reason, step.want)
		}
	}
	refuses(s)
	later(knownFor)
	reset(s)
	s.enter(Established, time.Now(), "", reason{}, agreed{})
	if got := s.session(); got.Reason != "" || got.LastError.Text != both {
		t.Errorf("the session is up: %q, %q", got.Reason, got.LastError.Text)
	}
	disconnect("read-failed")(s)
	if got := s.session().Reason; strings.Contains(got, "before that") {
		t.Errorf("a session in between: %q", got)
	}
}

// A passive router is waited for again once it can be told of this node.
func TestAnInterfaceThatIsBack(t *testing.T) {
	s := newStatus(Peer{Passive: true, Address: netip.MustParseAddr("fe80::1%eth1")}, zap.NewNop(), func() {})
	s.advertised(unix.ENETDOWN)
	s.advertised(nil)
	if got := s.session().Reason; got != waiting(s.peer) {
		t.Errorf("%q, want %q", got, waiting(s.peer))
	}
}

// A session that goes down is counted by its cause, and reports its last error when it is up again.
func TestFlapsAreCountedByCause(t *testing.T) {
	s := newStatus(Peer{LocalASN: 64512, PeerASN: 64513}, zap.NewNop(), func() {})
	up := func() { s.enter(Established, time.Now(), "", reason{}, agreed{}) }
	notification := func(direction string, code, subcode int) {
		r := slog.NewRecord(time.Time{}, slog.LevelInfo, direction+" notification", 0)
		r.Add("Code", code, "Subcode", subcode)
		_ = logTap{slog.DiscardHandler, s, &received{}}.Handle(context.Background(), r)
	}
	down := func(reason api.PeerState_DisconnectReason, message string) {
		s.observe(&apiutil.WatchEventMessage_PeerEvent{Type: apiutil.PEER_EVENT_STATE, Peer: apiutil.Peer{State: apiutil.PeerState{
			SessionState: bgp.BGP_FSM_IDLE, DisconnectReason: reason, DisconnectMessage: message,
		}}}, time.Now())
	}
	want := map[Cause]uint64{}
	for _, c := range []struct {
		cause Cause
		last  Error
		ends  func()
	}{
		{NotificationReceived, Error{Text: "the router ended the session: Cease, Administrative Reset", By: TheRouter}, func() {
			notification("received", bgp.BGP_ERROR_CEASE, bgp.BGP_ERROR_SUB_ADMINISTRATIVE_RESET)
			down(api.PeerState_DISCONNECT_REASON_NOTIFICATION_RECEIVED, "notification-received")
		}},
		{BFDDown, Error{Text: "the router ended the session: Cease, BFD Down", By: TheRouter}, func() {
			notification("received", bgp.BGP_ERROR_CEASE, bfdDown)
			down(api.PeerState_DISCONNECT_REASON_NOTIFICATION_RECEIVED, "notification-received")
		}},
		{BFDDown, Error{Text: "this node ended the session: Cease, BFD Down", By: ThisNode}, func() {
			notification("sent", bgp.BGP_ERROR_CEASE, bfdDown)
			down(api.PeerState_DISCONNECT_REASON_NOTIFICATION_SENT, "notification-sent")
		}},
		{HoldTimerExpired, Error{Text: "this node ended the session: Hold Timer Expired", By: ThisNode}, func() {
			notification("sent", bgp.BGP_ERROR_HOLD_TIMER_EXPIRED, 0)
			down(api.PeerState_DISCONNECT_REASON_HOLD_TIMER_EXPIRED, "hold-timer-expired")
		}},
		{NotificationReceived, Error{Text: "the router ended the session: Hold Timer Expired", By: TheRouter}, func() {
			notification("received", bgp.BGP_ERROR_HOLD_TIMER_EXPIRED, 0)
			down(api.PeerState_DISCONNECT_REASON_NOTIFICATION_RECEIVED, "notification-received")
		}},
		{ConnectionLost, Error{Text: "the router closed the connection without a NOTIFICATION; its log may tell why", By: TheRouter}, func() {
			down(api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART, "graceful-restart")
		}},
		{OwnFailure, Error{Text: "no memory", By: ThisNode}, func() { s.fail(errors.New("no memory")) }},
	} {
		up()
		want[c.cause]++
		c.ends()
		for _, again := range []bool{false, true} {
			if again {
				up()
			}
			got := s.session()
			if got.LastError.At.IsZero() || !maps.Equal(got.Flaps, want) || (got.Reason == "") != again {
				t.Errorf("after %s: %+v, want flaps %v", c.cause, got, want)
			}
			if got.LastError.At = c.last.At; got.LastError != c.last {
				t.Errorf("after %s: last error %+v, want %+v", c.cause, got.LastError, c.last)
			}
		}
		// A NOTIFICATION in a session that is not established does not count.
		s.enter(Idle, time.Now(), ConnectionLost, reason{}, agreed{})
		want[ConnectionLost]++
		notification("received", bgp.BGP_ERROR_CEASE, bfdDown)
	}
	up()
	s.close()
	if s.end(); !maps.Equal(s.session().Flaps, want) {
		t.Errorf("a session that was closed on purpose counts: %v, want %v", s.session().Flaps, want)
	}
}
