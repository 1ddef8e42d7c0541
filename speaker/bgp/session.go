package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"

	"github.com/heraldlb/herald/speaker/bgp/route"
)

// errTooManyRoutes ends a session with a router that sends more than maxRoutes. gobgp closes such a session for good.
var errTooManyRoutes = fmt.Errorf("the router sent more than %d routes of a family, and none of them is used here: "+
	"configure it to send none; the session is tried again every %v", maxRoutes, refusedPause)

// errInternal ends a session with a router of this node's AS where only external ones are wanted.
var errInternal = errors.New("the router has the AS number of this node, and spec.peerType External wants another: correct the AS number there or in spec.localASN, or write spec.peerType Internal")

// errNoHoldTime ends a session that would never time out.
var errNoHoldTime = fmt.Errorf("the router offers a hold time of 0, with which it would keep the routes of a dead node for good: "+
	"configure 3s or more there; the session is tried again every %v", refusedPause)

// errRemoved is the cause of a session's end when the peer is no longer wanted as it was.
var errRemoved = errors.New("peer removed")

const (
	// restartPause is how long a session waits after a failure of our own.
	restartPause = 5 * time.Second
	// refusedPause is how long it waits after it was refused for what the router did: it most likely does so again.
	refusedPause = time.Minute
	// earlyTime is for how long changes that gobgp is told before a session is up are remembered.
	earlyTime = 5 * time.Second
	// shutDownTime bounds the wait for the last NOTIFICATION to leave; gobgp gives it a second.
	shutDownTime = 2 * time.Second
)

// session makes one peer hear what its ribOut wishes. Its goroutine, run, owns it.
type session struct {
	peer   Peer
	out    *ribOut
	status *status
	// accepted are connections of a passive router.
	accepted chan net.Conn
	// pathDown gets a value when BFD finds the path dead.
	pathDown <-chan struct{}
	log      *zap.Logger

	server *routeServer
	// connects: the server has its neighbour.
	connects bool
	// told is what gobgp has been given, withheld what has no next hop.
	told, withheld prefixes
	// early has the prefixes that were announced or withdrawn shortly before the session was up.
	early map[netip.Prefix]earlyChange
}

// earlyChange is a change of a prefix before the session was up: the attributes of the announcement, or those that were withdrawn.
type earlyChange struct {
	route.Attributes
	at time.Time
}

// prefixes are prefixes with their attributes, and how many there are of each family.
type prefixes struct {
	of map[netip.Prefix]route.Attributes
	counts
}

func (p *prefixes) set(prefix netip.Prefix, a route.Attributes) {
	if _, is := p.of[prefix]; !is {
		p.add(prefix, 1)
	}
	p.of[prefix] = a
}

func (p *prefixes) remove(prefix netip.Prefix) {
	if _, is := p.of[prefix]; is {
		p.add(prefix, -1)
		delete(p.of, prefix)
	}
}

// run keeps the session until the context ends. The router is told to forget us, unless it does
// graceful restart and the cause is ErrRestart.
func (s *session) run(ctx context.Context) {
	defer s.status.end()
	for ctx.Err() == nil {
		err := s.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		s.status.fail(err)
		pause := restartPause
		if errors.Is(err, errTooManyRoutes) || errors.Is(err, errInternal) || errors.Is(err, errNoHoldTime) {
			pause = refusedPause
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (s *session) serve(ctx context.Context) error {
	log := slog.Handler(zapslog.NewHandler(s.log.Core(), zapslog.WithName(s.log.Name()), zapslog.AddStacktraceAt(slog.LevelError+1)))
	var err error
	s.server, err = startServer(ctx, s.peer, s.accepted, logTap{log, s.status}, s.status.observe)
	if err != nil {
		return err
	}
	s.connects, s.early = false, map[netip.Prefix]earlyChange{}
	s.told, s.withheld = prefixes{of: map[netip.Prefix]route.Attributes{}}, prefixes{of: map[netip.Prefix]route.Attributes{}}
	defer s.stop(ctx)
	s.status.serves(s.server)
	defer s.status.serves(nil)
	s.status.forgive()

	// All routes first: the router learns them in its first batch, and one that has kept them over a
	// restart misses none (RFC 4724 §4.1).
	all := s.out.all()
	changes := make(map[netip.Prefix]*route.Attributes, len(all))
	for prefix, a := range all {
		changes[prefix] = &a
	}
	if err := s.apply(changes); err != nil {
		return err
	}
	if err := s.server.connect(ctx); err != nil {
		return err
	}
	s.connects = true
	if s.peer.Passive {
		s.status.because(guess, ThisNode, "%s", waiting(s.peer))
	}
	var present <-chan time.Time
	if s.peer.Unnumbered {
		ticker := time.NewTicker(advertisePeriod)
		defer ticker.Stop()
		present = ticker.C
		s.advertise()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-present:
			s.advertise()
		case err := <-s.status.refused:
			return err
		case <-s.status.up:
			if err := s.repeatEarly(ctx); err != nil {
				return err
			}
		case <-s.pathDown:
			if err := s.server.pathDown(ctx); err != nil {
				return err
			}
		case <-s.out.wake:
			if err := s.apply(s.out.takeChanged()); err != nil {
				return err
			}
		}
	}
}

// apply hands on what differs from what gobgp has. New routes come first: make before break.
func (s *session) apply(changes map[netip.Prefix]*route.Attributes) error {
	var announce []announcement
	var withdraw []netip.Prefix
	for prefix, wished := range changes {
		old, told := s.told.of[prefix]
		s.withheld.remove(prefix)
		if wished == nil {
			if told {
				withdraw = append(withdraw, prefix)
			}
			continue
		}
		nextHop, ok := s.peer.nextHop(prefix.Addr().Is4())
		switch {
		case !ok:
			s.withheld.set(prefix, *wished)
		case !told || !old.Same(*wished):
			announce = append(announce, announcement{prefix, nextHop, *wished})
		}
	}
	if len(announce)+len(withdraw) > 0 && s.connects && !s.server.established(context.Background()) {
		s.rememberEarly(announce, withdraw)
	}
	if err := s.server.announce(announce); err != nil {
		return err
	}
	for _, r := range announce {
		s.told.set(r.prefix, r.Attributes)
	}
	if err := s.server.withdraw(withdraw); err != nil {
		return err
	}
	for _, prefix := range withdraw {
		s.told.remove(prefix)
	}
	s.status.count(s.told.counts, s.withheld.counts)
	return nil
}

// rememberEarly remembers changes that gobgp may not send to the router: see repeatEarly.
func (s *session) rememberEarly(announce []announcement, withdraw []netip.Prefix) {
	now := time.Now()
	s.forgetEarly(now)
	for _, r := range announce {
		s.early[r.prefix] = earlyChange{r.Attributes, now}
	}
	for _, prefix := range withdraw {
		s.early[prefix] = earlyChange{s.told.of[prefix], now}
	}
}

func (s *session) forgetEarly(now time.Time) {
	maps.DeleteFunc(s.early, func(_ netip.Prefix, c earlyChange) bool { return now.Sub(c.at) > earlyTime })
}

// repeatEarly is called when a session comes up. gobgp (v4.8.0) sends the router its table, and only a moment later begins to send
// changes: it never sends a change that comes between the two. Therefore repeatEarly has the table sent again, and withdraws again
// what was withdrawn shortly before.
func (s *session) repeatEarly(ctx context.Context) error {
	again := time.NewTicker(gobgpPoll)
	defer again.Stop()
	for !s.server.established(ctx) {
		if !s.status.established() {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil
		}
	}
	defer clear(s.early)
	if s.forgetEarly(time.Now()); len(s.early) == 0 || ctx.Err() != nil {
		return nil
	}
	if s.server.waitsForEndOfRIB(ctx) {
		// gobgp has sent no route yet, and will send the table as it then is. Sent now, a route that is withdrawn before that would stay.
		return nil
	}
	var gone []announcement
	var prefixes []netip.Prefix
	for prefix, change := range s.early {
		if _, stays := s.told.of[prefix]; stays {
			continue
		}
		if nextHop, ok := s.peer.nextHop(prefix.Addr().Is4()); ok {
			gone, prefixes = append(gone, announcement{prefix, nextHop, change.Attributes}), append(prefixes, prefix)
		}
	}
	// gobgp sends no withdrawal of a route that it does not have.
	if err := s.server.announce(gone); err != nil {
		return err
	}
	if err := s.server.withdraw(prefixes); err != nil {
		return err
	}
	return s.server.resend(ctx)
}

// stop ends the session in the way that its cause asks for, and joins all of gobgp.
func (s *session) stop(ctx context.Context) {
	if ctx.Err() != nil {
		s.status.close()
	}
	leaving := errors.Is(context.Cause(ctx), errRemoved)
	g := s.peer.GracefulRestart
	keepRoutes := g != nil && errors.Is(context.Cause(ctx), ErrRestart)
	// Removed peers are told "Peer De-configured" by stop itself; this is Administrative Shutdown. With KeepOnNotification, the
	// router would keep the routes: gobgp makes a Hard Reset of the former only.
	shutDown := !keepRoutes && !leaving && (g == nil || !g.KeepOnNotification)
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutDownTime)
	defer cancel()
	if s.connects && (shutDown || !s.server.established(within)) {
		if err := s.server.disable(within); err != nil {
			s.log.Warn("BGP session is not shut down in good order", zap.Error(err))
		}
	}
	s.server.stop(keepRoutes)
}
