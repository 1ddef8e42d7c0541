package bgp

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"sync"

	"go.uber.org/zap"

	"github.com/heraldlb/herald/speaker/bgp/route"
)

// Speaker holds sessions to a set of peers and tells each what it should hear. All methods may be
// called at any time from any goroutine, none of them waits for the network. What is set before Run
// takes effect with it.
type Speaker struct {
	log     *zap.Logger
	changed chan struct{}
	wake    chan struct{} // Run has members to look at

	mu      sync.Mutex
	running bool
	// members are the wished peers; a peer that changes gets a new one.
	members map[string]*member
	// ribs has the ribOut of every peer that is a member or has routes waiting.
	ribs map[string]*ribOut
	// hearers are the peers that each prefix is announced to, so that Set finds whom to withdraw from.
	hearers map[netip.Prefix][]string
}

// member is a wished peer, the same as long as its session stays the same.
type member struct {
	peer   Peer
	out    *ribOut
	status *status
	// accepted are connections of a passive router; what does not fit is closed.
	accepted chan net.Conn
	// pathDown gets a value when BFD finds the path dead; capacity one.
	pathDown chan struct{}
}

// New makes a speaker without peers.
func New(log *zap.Logger) *Speaker {
	return &Speaker{
		log:     log,
		changed: make(chan struct{}, 1),
		wake:    make(chan struct{}, 1),
		members: map[string]*member{},
		ribs:    map[string]*ribOut{},
		hearers: map[netip.Prefix][]string{},
	}
}

// ErrRestart is the cause to end Run's context with when a successor will hold the sessions soon.
var ErrRestart = errors.New("a successor follows")

// Run holds the sessions until the context ends, and returns when all have been closed: with Cease,
// Administrative Shutdown (RFC 4486, RFC 9003), upon which routers drop our routes at once. If the
// context's cause is ErrRestart, peers with graceful restart are closed without a word, upon which they
// keep them. It may run once.
func (s *Speaker) Run(ctx context.Context) error {
	s.mu.Lock()
	again := s.running
	s.running = true
	s.mu.Unlock()
	if again {
		return errors.New("BGP speaker runs already")
	}
	sessions := sessions{log: s.log, of: map[string]*running{}}
	listeners := listeners{log: s.log, at: map[endpoint]*listener{}}
	defer sessions.wait()
	defer listeners.wait()
	for {
		wished := s.wished()
		listeners.follow(ctx, wished)
		sessions.follow(ctx, wished)
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		}
	}
}

// SetPeers says which peers there should be. Sessions to peers that stay as they were are left
// alone; a peer that differs in anything is closed and opened anew, since BGP settles nearly all of
// it when a session starts. With graceful restart, the router keeps the routes meanwhile, unless the AS
// number, the router ID or the router itself differs. One that is gone is closed, with Cease, Peer
// De-configured, and keeps nothing.
//
// The errors are by name, nil if there are none. A peer that is not valid has no session, as if it
// were not listed; the others are not concerned.
func (s *Speaker) SetPeers(peers []Peer) map[string]error {
	faults := map[string]error{}
	wished := map[string]Peer{}
	for _, p := range peers {
		if _, twice := wished[p.Name]; twice {
			faults[p.Name] = errors.New("Name: is used twice; the first is taken")
			continue
		}
		if err := p.Validate(); err != nil {
			faults[p.Name] = err
			continue
		}
		wished[p.Name] = p
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	news := false
	for name, m := range s.members {
		if p, ok := wished[name]; !ok || !m.peer.same(p) {
			delete(s.members, name)
			news = true
		}
	}
	for name, p := range wished {
		if s.members[name] != nil {
			continue
		}
		if g := p.GracefulRestart; g != nil {
			own := *g
			p.GracefulRestart = &own
		}
		news = true
		log := s.log.With(zap.String("peer", name), zap.Stringer("router", p.Address))
		s.members[name] = &member{
			peer: p, out: s.rib(name), status: newStatus(p, log, func() { signal(s.changed) }),
			accepted: make(chan net.Conn, 4), pathDown: make(chan struct{}, 1),
		}
	}
	for name := range s.ribs {
		s.forget(name)
	}
	if news {
		signal(s.wake)
		signal(s.changed)
	}
	if len(faults) == 0 {
		return nil
	}
	return faults
}

// Set says to which peers one prefix should be announced, and how; it replaces what was said about
// it before, and none withdraws it everywhere. To say the same again costs nothing but the
// comparison. Peers that do not exist yet will hear of it when they do.
func (s *Speaker) Set(prefix netip.Prefix, exports map[string]route.Attributes) {
	if !prefix.IsValid() || prefix.Addr().Is4In6() {
		s.log.Error("not a prefix that BGP can announce", zap.Stringer("prefix", prefix))
		return
	}
	prefix = prefix.Masked() // RFC 4271 §4.3: host bits mean nothing

	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.hearers[prefix] {
		if _, stays := exports[name]; !stays {
			s.ribs[name].withdraw(prefix)
			s.forget(name)
		}
	}
	if len(exports) == 0 {
		delete(s.hearers, prefix)
		return
	}
	hearers := make([]string, 0, len(exports))
	for name, a := range exports {
		s.rib(name).announce(prefix, a.Normal())
		hearers = append(hearers, name)
	}
	s.hearers[prefix] = hearers
}

// Sessions says how each valid peer fares, in the order of their names.
func (s *Speaker) Sessions() []Session {
	members := s.sorted()
	sessions := make([]Session, 0, len(members))
	for _, m := range members {
		sessions = append(sessions, m.status.session())
	}
	return sessions
}

// Changed gets a value when the result of Sessions may have changed in more than its counts. It has
// a capacity of one: what happens until the value is taken is one change.
func (s *Speaker) Changed() <-chan struct{} { return s.changed }

func (s *Speaker) wished() map[string]*member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.members)
}

// rib and forget are called with the lock held.
func (s *Speaker) rib(name string) *ribOut {
	if s.ribs[name] == nil {
		s.ribs[name] = newRibOut()
	}
	return s.ribs[name]
}

// forget drops a ribOut that nobody needs.
func (s *Speaker) forget(name string) {
	if r := s.ribs[name]; r != nil && s.members[name] == nil && r.empty() {
		delete(s.ribs, name)
	}
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// sessions are the goroutines of Run, one for each member.
type sessions struct {
	log *zap.Logger
	of  map[string]*running
}

type running struct {
	*member
	cancel context.CancelCauseFunc
	done   chan struct{}
}

// follow closes the sessions that are not wished any more and opens the missing ones. It closes
// first and waits for that: a router has one session with an address, and takes a second one for a
// collision (RFC 4271 §6.8).
func (s *sessions) follow(ctx context.Context, wished map[string]*member) {
	var closing []*running
	for name, r := range s.of {
		if next := wished[name]; next != r.member {
			cause := errRemoved
			if next != nil && next.peer.succeeds(r.peer) {
				cause = ErrRestart
			}
			r.cancel(cause)
			closing = append(closing, r)
			delete(s.of, name)
		}
	}
	for _, r := range closing {
		r.join()
	}
	for name, m := range wished {
		if s.of[name] == nil {
			s.open(ctx, name, m)
		}
	}
}

func (s *sessions) open(ctx context.Context, name string, m *member) {
	ctx, cancel := context.WithCancelCause(ctx)
	r := &running{member: m, cancel: cancel, done: make(chan struct{})}
	s.of[name] = r
	one := session{
		peer: m.peer, out: m.out, status: m.status, accepted: m.accepted, pathDown: m.pathDown, log: m.status.log.Named("gobgp"),
	}
	go func() {
		defer close(r.done)
		one.run(ctx)
	}()
}

// wait is for the end of the context that the sessions were opened with.
func (s *sessions) wait() {
	for _, r := range s.of {
		r.join()
		r.cancel(nil)
	}
}

// join waits for the end of a session, and closes the connections that it has not taken. The listener hands over no
// more: it was told first.
func (r *running) join() {
	<-r.done
	for {
		select {
		case conn := <-r.accepted:
			_ = conn.Close()
		default:
			return
		}
	}
}
