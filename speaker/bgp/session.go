package bgp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
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
	// overPause is how long it waits after a session that was up has ended.
	overPause = time.Second
	// refusedPause is how long a session waits after this node has refused it because of what the router did. The router most
	// likely does the same again.
	refusedPause = time.Minute
	// shutDownTime bounds the wait for the last NOTIFICATION to leave; gobgp gives it a second.
	shutDownTime = 2 * time.Second
)

// session announces the routes in a peer's ribOut to that peer. Its goroutine, run, owns it.
type session struct {
	peer   Peer
	out    *ribOut
	status *status
	// accepted has the newest connection of a passive router.
	accepted chan *net.TCPConn
	// pathDown gets a value when BFD finds the path dead.
	pathDown <-chan struct{}
	log      *zap.Logger

	server *routeServer
	// connects: the server has its neighbour.
	connects bool
	// told is what gobgp has been given, withheld what has no next hop.
	told, withheld prefixes
	// early has the prefixes that changed as the session came up, with the attributes that were announced or withdrawn.
	early map[netip.Prefix]route.Attributes
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
		pause := restartPause
		switch {
		case errors.Is(err, errOver):
			pause = jittered(overPause)
		default:
			s.status.fail(err)
		}
		if errors.Is(err, errTooManyRoutes) || errors.Is(err, errTooLarge) || errors.Is(err, errTooManyRefreshes) || errors.Is(err, errInternal) || errors.Is(err, errNoHoldTime) {
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
	taken := make(chan net.Conn, 1)
	defer discard(taken)
	s.server, err = startServer(ctx, s.peer, taken, logTap{log, s.status, &received{stale: s.peer.GracefulRestart != nil}}, s.status.observe)
	if err != nil {
		return err
	}
	s.connects, s.early = false, map[netip.Prefix]route.Attributes{}
	s.told, s.withheld = prefixes{of: map[netip.Prefix]route.Attributes{}}, prefixes{of: map[netip.Prefix]route.Attributes{}}
	defer s.stop(ctx)
	s.status.serves(s.server)
	defer s.status.serves(nil)
	s.status.begin()

	// All routes first: the router learns them in its first batch, and one that has kept them over a
	// restart misses none (RFC 4724 §4.1).
	all := s.out.all()
	changes := make(map[netip.Prefix]*route.Attributes, len(all))
	for prefix, a := range all {
		changes[prefix] = &a
	}
	if err := s.apply(ctx, changes); err != nil {
		return err
	}
	if err := s.server.connect(ctx); err != nil {
		return err
	}
	s.connects = true
	if s.peer.Passive {
		s.status.because(guess, ThisNode, "%s", waiting(s.peer))
	} else {
		dialling, done := context.WithCancel(ctx)
		var dialler sync.WaitGroup
		dialler.Go(func() { s.dial(dialling, taken) })
		defer dialler.Wait()
		defer done()
	}
	look := time.NewTicker(trafficPeriod)
	defer look.Stop()
	var seen traffic
	var present <-chan time.Time
	var connections <-chan *net.TCPConn // s.accepted while gobgp takes connections, or needs no further one
	if s.peer.Unnumbered {
		ticker := time.NewTicker(advertisePeriod)
		defer ticker.Stop()
		present = ticker.C
		s.status.advertised(advertise(s.peer.Address))
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-present:
			s.status.advertised(advertise(s.peer.Address))
		case now := <-look.C:
			if err := seen.check(s.server.messages(ctx), now); err != nil {
				return err
			}
			s.status.awaitAnswer(now)
		case err := <-s.status.refused:
			return err
		case conn := <-connections:
			s.handOn(conn, taken)
		case <-s.status.entered:
			if s.status.over() {
				select {
				case err := <-s.status.refused: // It has ended for this reason.
					return err
				default:
					return errOver
				}
			}
			connections = nil
			if s.status.takesConnections() {
				connections = s.accepted
			}
			if err := s.repeatEarly(ctx); err != nil {
				return err
			}
		case <-s.pathDown:
			if err := s.server.pathDown(ctx); err != nil {
				return err
			}
		case <-s.out.wake:
			if err := s.apply(ctx, s.out.takeChanged()); err != nil {
				return err
			}
		}
	}
}

// handOn gives a connection of a passive router to gobgp, or closes it if the session is up.
func (s *session) handOn(conn *net.TCPConn, to chan<- net.Conn) {
	if !s.status.established() {
		select {
		case to <- s.status.shake(conn):
			return
		default:
		}
	}
	_ = conn.Close()
}

// discard closes the connections that nobody has taken.
func discard[C io.Closer](all <-chan C) {
	for {
		select {
		case conn := <-all:
			_ = conn.Close()
		default:
			return
		}
	}
}

// apply hands on what differs from what gobgp has. New routes come first: make before break.
func (s *session) apply(ctx context.Context, changes map[netip.Prefix]*route.Attributes) error {
	var announce []announcement
	var withdraw []netip.Prefix
	for prefix, wanted := range changes {
		old, told := s.told.of[prefix]
		s.withheld.remove(prefix)
		if wanted == nil {
			if told {
				withdraw = append(withdraw, prefix)
			}
			continue
		}
		nextHop, ok := s.peer.nextHop(prefix.Addr().Is4())
		switch {
		case !ok:
			s.withheld.set(prefix, *wanted)
		case !told || !old.Same(*wanted):
			announce = append(announce, announcement{prefix, nextHop, *wanted})
		}
	}
	if len(announce)+len(withdraw) > 0 && s.connects && !s.server.established(ctx) {
		for _, r := range announce {
			s.early[r.prefix] = r.Attributes
		}
		for _, prefix := range withdraw {
			s.early[prefix] = s.told.of[prefix]
		}
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
	return s.repeatEarly(ctx)
}

// repeatEarly tells the router once more what changed as the session came up. It is called after such changes, and when the
// session has entered another state.
//
// gobgp (v4.8.0) queues its table for the router and reports that the session is established, both under a lock that excludes
// changes. It releases the lock, and only then stores Established as the state that ListPeer shows and without which no change
// is sent: those that come between are lost. So a change is lost only if ListPeer
// does not show Established before the change, and shows OpenConfirm or Established after it. If it shows another state after
// the change, the session is over, and the table with which the next session begins has the change.
func (s *session) repeatEarly(ctx context.Context) error {
	if len(s.early) == 0 {
		return nil
	}
	again := time.NewTicker(gobgpPoll)
	defer again.Stop()
	state, waitsForEndOfRIB := s.server.state(ctx)
	for ; state == OpenConfirm; state, waitsForEndOfRIB = s.server.state(ctx) {
		if !s.status.established() {
			return nil // There will be another call.
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil
		}
	}
	early := s.early
	s.early = map[netip.Prefix]route.Attributes{}
	// While gobgp waits for the router, it sends neither routes nor withdrawals. After that it sends the table of that time.
	// If the table were sent now, the router would keep routes that are withdrawn while gobgp waits.
	if state != Established || waitsForEndOfRIB {
		return nil
	}
	var gone []announcement
	var prefixes []netip.Prefix
	for prefix, attributes := range early {
		if _, stays := s.told.of[prefix]; stays {
			continue
		}
		if nextHop, ok := s.peer.nextHop(prefix.Addr().Is4()); ok {
			gone, prefixes = append(gone, announcement{prefix, nextHop, attributes}), append(prefixes, prefix)
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
	// StopBgp sends Peer De-configured to the router of a removed peer. The NOTIFICATION here is Administrative Shutdown.
	// gobgp makes a Hard Reset only of Peer De-configured, so with KeepOnNotification the router would keep the routes after
	// Administrative Shutdown.
	shutDown := !keepRoutes && !leaving && (g == nil || !g.KeepOnNotification)
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutDownTime)
	defer cancel()
	if s.connects && (shutDown || !s.server.established(within)) {
		if err := s.server.disable(within); err != nil {
			s.log.Warn("failed to shut down the BGP session", zap.Error(err))
		}
	}
	s.server.stop(keepRoutes)
}
