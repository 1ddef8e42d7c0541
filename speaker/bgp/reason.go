package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// source is the kind of evidence for a reason, the worst first. After a router has refused a session, it may close further
// connections without a NOTIFICATION. This must not hide why it refused the session.
type source uint8

const (
	// guess: from a connection that was closed without a NOTIFICATION.
	guess source = iota
	// hint: from a NOTIFICATION that says little.
	hint
	// fact: from a NOTIFICATION, or from this node itself.
	fact
)

// reason is why a session is not up, as far as known.
type reason struct {
	source source
	Error
}

// knownFor is how long a reason stays that nothing has confirmed, while only worse evidence comes. A router that goes on refusing the session
// says so again before: BIRD waits for five minutes at most after an error.
const knownFor = 10 * time.Minute

// learn records a reason unless a better one is known. After knownFor the better one is only the earlier reason: the router may have got
// another configuration since, or it may have nothing else to say. The lock is held.
func (s *status) learn(why reason) {
	now := time.Now()
	switch worse := why.source < s.reason.source && s.reason.Text != ""; {
	case worse && now.Sub(s.known) < knownFor:
		return
	case worse:
		s.earlier = s.reason.Text
	case why.source > guess:
		s.earlier = ""
	}
	s.known = now
	if why.At = s.reason.At; why.Text != s.reason.Text {
		why.At = now
	}
	s.reason = why
}

// why returns the reason with the earlier one, if there is one. The lock is held.
func (s *status) why() Error {
	why := s.reason.Error
	if s.earlier != "" {
		why.Text += "; before that, " + s.earlier
	}
	return why
}

// because records why the session is not up.
func (s *status) because(from source, by Side, format string, args ...any) {
	s.mu.Lock()
	before := s.why().Text
	s.learn(reason{from, Error{Text: fmt.Sprintf(format, args...), By: by}})
	text := s.why().Text
	news := before != text && s.state != Established // otherwise the coming change of state reports it
	s.mu.Unlock()
	if news {
		s.log.Info("BGP session not established", zap.String("reason", text))
		s.changed()
	}
}

// ends records which NOTIFICATION ends an established session.
func (s *status) ends(code, subcode uint8, otherwise Cause) {
	cause := otherwise
	switch {
	case code == bgp.BGP_ERROR_CEASE && subcode == bfdDown:
		cause = BFDDown
	case code == bgp.BGP_ERROR_HOLD_TIMER_EXPIRED && otherwise == NotificationSent:
		cause = HoldTimerExpired
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == Established {
		s.cause = cause
	}
}

// unreachable records that this node could not connect to the router, unless it is known why the router cannot be reached.
func (s *status) unreachable(failure error) {
	if errors.Is(failure, unix.ECONNRESET) { // The router has accepted the connection, and closed it before this node noticed.
		s.because(guess, TheRouter, "%s", closedAtOnce)
		return
	}
	s.mu.Lock()
	known := s.unheard != ""
	s.mu.Unlock()
	if !known {
		s.instead("", s.explainDial(failure))
	}
}

// advertised records whether this node could send a Router Advertisement to an unnumbered router. While it cannot, it most likely cannot
// connect either, and these two reasons must not replace each other with each attempt.
func (s *status) advertised(failure error) {
	s.mu.Lock()
	was := s.unheard
	s.unheard = ""
	if failure != nil && s.state != Established {
		s.unheard = fmt.Sprintf("no Router Advertisement on %s: %v", s.peer.Address.Zone(), failure)
	}
	now := s.unheard
	s.mu.Unlock()
	switch {
	case now != "" && was == "":
		s.instead(ThisNode, now)
	case now != "":
		s.because(guess, ThisNode, "%s", now) // There may be a better reason since.
	case s.peer.Passive: // For others, the next attempt to connect gives a reason.
		s.cured(was, waiting(s.peer))
	}
}

// instead records a reason in place of any that is known, as a guess, so that any later reason replaces it.
func (s *status) instead(by Side, reason string) {
	s.mu.Lock()
	s.reason.source, s.earlier = guess, ""
	s.mu.Unlock()
	s.because(guess, by, "%s", reason)
}

const closedAtOnce = "the router closed the connection without an answer to our OPEN; it may not know this node as its neighbour"

// explainEvent derives a reason from gobgp's message about a change of state, if the message says more than gobgp's log did.
func (s *status) explainEvent(state State, message string) reason {
	s.mu.Lock()
	was, gaveUp := s.state, (s.state == OpenSent || s.state == OpenConfirm) && s.opening == nil
	s.mu.Unlock()
	if state != Idle || gaveUp {
		return reason{}
	}
	switch message {
	case "read-failed", "write-failed", "graceful-restart":
		text := "the router closed the connection without a NOTIFICATION; its log may tell why"
		if was == Active || was == OpenSent { // Active: gobgp could not even send its OPEN.
			text = closedAtOnce
		}
		return reason{guess, Error{Text: text, By: TheRouter}}
	case "invalid-msg": // in OpenConfirm, where gobgp does not say what it has received
		return reason{guess, Error{Text: "the router has sent another message than a KEEPALIVE after its OPEN; its log may tell why", By: TheRouter}}
	}
	return reason{}
}

// told records what a NOTIFICATION of the router says. theirs are the roles in the router's OPEN.
func (s *status) told(code, subcode uint8, said string, theirs []byte) {
	from, text := fact, "the router ended the session: "+notificationText(code, subcode, said)
	switch {
	case code == bgp.BGP_ERROR_CEASE && (subcode == bgp.BGP_ERROR_SUB_CONNECTION_REJECTED || subcode == bgp.BGP_ERROR_SUB_CONNECTION_COLLISION_RESOLUTION):
		from = hint // This only says that the router does not want a connection now.
	case code == bgp.BGP_ERROR_OPEN_MESSAGE_ERROR && subcode == bgp.BGP_ERROR_SUB_BAD_PEER_AS:
		text = fmt.Sprintf("the router refused our OPEN: it expects another AS number than %d (spec.localASN) from this node", s.peer.LocalASN)
	case code == bgp.BGP_ERROR_OPEN_MESSAGE_ERROR && subcode == roleMismatch && s.peer.Role == "":
		text = "the router insists on a BGP role of this node (RFC 9234): write in spec.role what this node is to the router"
		if len(theirs) > 0 {
			text += "; the role of the router is " + roleNames(theirs)
		}
	case code == bgp.BGP_ERROR_OPEN_MESSAGE_ERROR && subcode == bgp.BGP_ERROR_SUB_BAD_BGP_IDENTIFIER:
		text = fmt.Sprintf("the router refuses the BGP identifier %v of this node: most likely another router has it, and each needs one of its own; spec.routerIDFrom gives another", s.peer.RouterID)
	}
	s.because(from, TheRouter, "%s", text)
}

// explainLog derives a reason from gobgp's log. Only the log says what was in a NOTIFICATION of an established session, or in
// one of this node.
func (s *status) explainLog(record slog.Record) {
	switch record.Message {
	case "received notification":
		code, subcode := number(record, "Code"), number(record, "Subcode")
		s.ends(code, subcode, NotificationReceived)
		s.told(code, subcode, text(record, "Communicated-Reason"), nil)
	case "sent notification":
		code, subcode := number(record, "Code"), number(record, "Subcode")
		s.ends(code, subcode, NotificationSent)
		s.owesAnswer(time.Time{})
		switch {
		case code == bgp.BGP_ERROR_OPEN_MESSAGE_ERROR && subcode == bgp.BGP_ERROR_SUB_BAD_PEER_AS:
			s.because(fact, ThisNode, "the router's AS number is not %d, which spec.peerASN or spec.peerASNFrom gives: correct the BGPPeer or the router", s.peer.PeerASN)
		case code == bgp.BGP_ERROR_OPEN_MESSAGE_ERROR && subcode == bgp.BGP_ERROR_SUB_BAD_BGP_IDENTIFIER:
			s.because(fact, ThisNode, "the router has the BGP identifier %v, as this node does: give one of them another, this node by spec.routerIDFrom", s.peer.RouterID)
		case code == bgp.BGP_ERROR_CEASE && subcode == bgp.BGP_ERROR_SUB_MAXIMUM_NUMBER_OF_PREFIXES_REACHED:
			s.refuse(errTooManyRoutes)
		default:
			s.because(fact, ThisNode, "this node ended the session: %s", notificationText(code, subcode, text(record, "Communicated-Reason")))
		}
	}
}

const (
	// answerPatience is how long a router may take for its OPEN, and for its KEEPALIVE after it, before its silence is the reason.
	answerPatience = 10 * time.Second
	// answerLimit is how long it may take at all. gobgp (v4.8.0) waits for the OPEN for four minutes, and for the KEEPALIVE without end:
	// it has no hold timer in OpenConfirm. Meanwhile it takes no other connection.
	answerLimit = 30 * time.Second
)

const (
	noOpen        = "the router accepts connections and sends no OPEN: its BGP daemon hangs or is just starting, or something else uses its port"
	noOpenPassive = "the router has connected and sends no OPEN: its BGP daemon hangs, or something else on the router has connected"
	noKeepalive   = "the router sends no KEEPALIVE after its OPEN: its BGP daemon hangs, or the path to it has broken"
)

// opens notes the connection that has our OPEN.
func (s *status) opens(h *handshake) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opening = h
}

// owesAnswer notes since when the router owes an OPEN or a KEEPALIVE; zero: it owes none.
func (s *status) owesAnswer(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = since
}

// awaitAnswer records that the router has owed an OPEN or a KEEPALIVE for long. In the end it closes the connection, as an expired hold
// timer does (RFC 4271 section 8.2.2). It keeps the server: the OPEN of a new one would say that this node has restarted, too, and a
// router that is restarting would not wait for our routes (RFC 4724 section 4.1).
func (s *status) awaitAnswer(now time.Time) {
	s.mu.Lock()
	late := now.Sub(s.asked)
	if s.asked.IsZero() || late < answerPatience {
		s.mu.Unlock()
		return
	}
	lacks := noOpen
	switch {
	case s.state == OpenConfirm:
		lacks = noKeepalive
	case s.peer.Passive:
		lacks = noOpenPassive
	}
	var silent *handshake
	if late >= answerLimit {
		silent, s.opening, s.asked = s.opening, nil, time.Time{}
	}
	s.mu.Unlock()
	s.instead(TheRouter, lacks)
	if silent != nil {
		silent.refuse(bgp.BGP_ERROR_HOLD_TIMER_EXPIRED, 0)
		_ = silent.Close()
	}
}

// stateNow returns the state of the session.
func (s *status) stateNow() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// cured replaces the reason `was`, whose cause is gone, by the reason `now`, if `was` is still the reason.
func (s *status) cured(was, now string) {
	s.mu.Lock()
	is := was != "" && s.reason.Text == was
	if is {
		s.reason = reason{}
	}
	s.mu.Unlock()
	if is {
		s.because(guess, ThisNode, "%s", now)
	}
}

func (s *status) explainDial(failure error) string {
	timeout, is := errors.AsType[net.Error](failure)
	switch {
	case errors.Is(failure, unix.ECONNREFUSED):
		return fmt.Sprintf("connection refused: no BGP listens there, or the router does not know this node as its neighbour (%v)", failure)
	case errors.Is(failure, unix.EHOSTUNREACH):
		return fmt.Sprintf("no answer: the router or the gateway to it is down or has another address, or the router is more than spec.multihopTTL hops away, or a firewall rejects the connection (%v)", failure)
	case is && timeout.Timeout():
		hint := "the router is down, a firewall is in between, or it expects a password and none is set here"
		if s.peer.Password != "" {
			hint = "with a password that is set on one side only, or differs, TCP packets are dropped in silence; or the router is down, or a firewall is in between"
		}
		return fmt.Sprintf("no answer: %s (%v)", hint, failure)
	}
	return failure.Error()
}

// text returns an attribute of a log record, or "".
func text(record slog.Record, key string) (value string) {
	record.Attrs(func(a slog.Attr) bool {
		if a.Key == key {
			value = a.Value.String()
		}
		return a.Key != key
	})
	return value
}

func number(record slog.Record, key string) uint8 {
	n, err := strconv.ParseUint(text(record, key), 10, 8)
	if err != nil {
		return 0 // No NOTIFICATION has this code.
	}
	return uint8(n)
}

// logTap passes gobgp's log to Herald's own, and passes each record to status as well. Info records become debug records,
// because status logs what matters.
type logTap struct {
	slog.Handler
	status   *status
	received *received
}

// Enabled is always true: status reads debug messages too.
func (t logTap) Enabled(context.Context, slog.Level) bool { return true }

func (t logTap) Handle(ctx context.Context, record slog.Record) error {
	t.status.explainLog(record)
	if t.received.note(record) {
		t.status.refuse(errTooLarge)
	}
	if record.Message == "failed to stop BGP server" {
		return nil // This package calls Stop after StopBgp on purpose.
	}
	if record.Level == slog.LevelInfo {
		record.Level = slog.LevelDebug
	}
	if !t.Handler.Enabled(ctx, record.Level) {
		return nil
	}
	return t.Handler.Handle(ctx, withoutMessages(record))
}

// withoutMessages removes from a record all attributes that are neither plain values nor errors. gobgp logs the BGP messages
// and path attributes of routers, and panics when it formats some malformed ones as text.
func withoutMessages(record slog.Record) slog.Record {
	safe := slog.NewRecord(record.Time, record.Level, record.Message, record.PC)
	record.Attrs(func(a slog.Attr) bool {
		if err, is := a.Value.Any().(error); is {
			a.Value = slog.StringValue(err.Error())
		}
		if a.Value.Kind() != slog.KindAny {
			safe.AddAttrs(a)
		}
		return true
	})
	return safe
}

func (t logTap) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logTap{t.Handler.WithAttrs(attrs), t.status, t.received}
}

func (t logTap) WithGroup(name string) slog.Handler {
	return logTap{t.Handler.WithGroup(name), t.status, t.received}
}
