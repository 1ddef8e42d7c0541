package bgp

import (
	"context"
	"fmt"
	"time"
)

const (
	// trafficPeriod is the time between two looks at the messages of a session.
	trafficPeriod = time.Second
	// maxRefreshes is how many ROUTE-REFRESH messages (RFC 2918) a router may send in a trafficPeriod. gobgp puts the whole table
	// into its queue for each, and the queue has no bound.
	maxRefreshes = 20
)

// minSendHold is the minimum time for which a session may be unable to send. Tests shorten it.
var minSendHold = time.Minute

// errTooManyRefreshes ends a session with a router that asks for all routes again and again.
var errTooManyRefreshes = fmt.Errorf("the router asked for all routes more than %d times in a second: see what its BGP daemon does; "+
	"the session is tried again every %v", maxRefreshes, refusedPause)

// errSendHold ends a session with a router that takes nothing from its connection although it sends KEEPALIVEs (RFC 9687). Such a
// router would keep routes that are withdrawn.
var errSendHold = fmt.Errorf("the router has taken no message from its connection for %v, or for twice the hold time if that is longer; "+
	"its BGP daemon hangs: restart it", minSendHold)

// messages counts the messages of an established session.
type messages struct {
	refreshes uint64 // received
	sent      uint64 // of any type; the connection has taken them
	hold      time.Duration
}

// traffic is what is remembered of the messages of a session. The zero traffic is that of a session that is not established.
type traffic struct {
	messages
	moved time.Time // when a message was last sent; zero if the session is not established
}

// check compares the counts with those of the last check. m is nil if the session is not established.
func (t *traffic) check(m *messages, now time.Time) error {
	switch {
	case m == nil:
		*t = traffic{messages: messages{refreshes: t.refreshes}} // gobgp goes on counting in the next session.
		return nil
	case t.moved.IsZero(), m.sent != t.sent:
		t.moved = now
	}
	refreshes := m.refreshes - t.refreshes
	t.messages = *m
	switch {
	case refreshes > maxRefreshes:
		return errTooManyRefreshes
	case m.hold > 0 && now.Sub(t.moved) > max(minSendHold, 2*m.hold):
		return errSendHold
	}
	return nil
}

// messages returns the counts of the session; nil if it is not established.
func (s *routeServer) messages(ctx context.Context) *messages {
	p := s.listed(ctx)
	if p == nil || stateOf(p) != Established {
		return nil
	}
	counts := p.GetState().GetMessages()
	return &messages{
		refreshes: counts.GetReceived().GetRefresh(), sent: counts.GetSent().GetTotal(),
		hold: time.Duration(p.GetTimers().GetState().GetNegotiatedHoldTime()) * time.Second, //nolint:gosec // 16 bits in OPEN.
	}
}
