package bgp

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"go.uber.org/zap"
)

// After a session was refused for a reason that is known, a router closes further attempts without a word. The reason
// stays until there is a better one.
func TestAKnownReasonIsNotReplacedByAGuess(t *testing.T) {
	record := func(message string, args ...any) func(*status) {
		return func(s *status) {
			r := slog.NewRecord(time.Time{}, slog.LevelInfo, message, 0)
			r.Add(args...)
			_ = logTap{slog.DiscardHandler, s}.Handle(context.Background(), r)
		}
	}
	notification := func(direction string, code, subcode int) func(*status) {
		return record(direction+" notification", "Code", code, "Subcode", subcode)
	}
	disconnect := func(message string) func(*status) {
		return func(s *status) {
			from, reason := s.explainEvent(Idle, message)
			s.enter(Idle, time.Now(), from, reason, nil)
		}
	}
	established := func(s *status) { s.enter(Established, time.Now(), guess, "", nil) }
	badAS := notification("sent", bgp.BGP_ERROR_OPEN_MESSAGE_ERROR, bgp.BGP_ERROR_SUB_BAD_PEER_AS)
	closed := record("outgoing connection IO error")
	for _, story := range []struct {
		name string
		what []func(*status)
		want string
	}{
		{"the wrong AS number, and silence", []func(*status){badAS, closed, disconnect("read-failed")}, "AS number is not 64513"},
		{"the wrong AS number, and an early NOTIFICATION", []func(*status){badAS, notification("sent", bgp.BGP_ERROR_FSM_ERROR, 0)}, "AS number is not 64513"},
		{"the wrong AS number, and a rejection", []func(*status){badAS, notification("received", bgp.BGP_ERROR_CEASE, bgp.BGP_ERROR_SUB_CONNECTION_REJECTED)}, "AS number is not 64513"},
		{"the wrong AS number, and an OPEN that is refused", []func(*status){badAS, disconnect("invalid-msg")}, "AS number is not 64513"},
		{"the router says something else", []func(*status){badAS, notification("received", bgp.BGP_ERROR_CEASE, bgp.BGP_ERROR_SUB_PEER_DECONFIGURED)}, "Peer De-configured"},
		{"the router cannot be reached", []func(*status){badAS, record("failed to connect", "Error", "dial: connection refused")}, "connection refused"},
		{"it is back, and closes the connection", []func(*status){badAS, record("failed to connect", "Error", "dial: connection refused"), closed}, "without an answer to our OPEN"},
		{"a guess, and what is known", []func(*status){closed, badAS}, "AS number is not 64513"},
		{"a guess, and a newer one", []func(*status){closed, disconnect("read-failed")}, "without a NOTIFICATION"},
		{"a session in between", []func(*status){badAS, established, disconnect("read-failed")}, "without a NOTIFICATION"},
		{"the session is up", []func(*status){badAS, established}, ""},
		{"a failure of our own", []func(*status){closed, func(s *status) { s.fail(errors.New("no memory")) }}, "no memory"},
	} {
		s := newStatus(Peer{LocalASN: 64512, PeerASN: 64513}, zap.NewNop(), func() {})
		for _, happens := range story.what {
			happens(s)
		}
		if got := s.session().Reason; !strings.Contains(got, story.want) || story.want == "" && got != "" {
			t.Errorf("%s: %q, want %q", story.name, got, story.want)
		}
	}
}
