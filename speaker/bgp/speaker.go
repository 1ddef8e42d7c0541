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

// Speaker holds sessions with a set of peers, and announces to each peer the routes that it should hear. All methods may be
// called at any time from any goroutine, and none of them waits for the network. Peers and routes that are set before Run
// take effect when Run starts.
type Speaker struct {
	log     *zap.Logger
	changed chan struct{}
	wake    chan struct{} // gets a value when members have changed, for Run

	mu      sync.Mutex
	running bool
	// members has the wanted peers. A peer that changes gets a new member.
	members map[string]*member
	// ribs has the ribOut of every peer that is a member or has routes waiting.
	ribs map[string]*ribOut
	// hearers has the peers to which each prefix is announced, so that Set knows from which peers to withdraw it.
	hearers map[netip.Prefix][]string
}

// member is a wanted peer. It stays the same as long as its session does.
type member struct {
	peer   Peer
	out    *ribOut
	status *status
	// accepted has the newest connection of the router to this node if the peer is passive; capacity one.
	accepted chan *net.TCPConn
	// pathDown gets a value when BFD finds the path dead; capacity one.
	pathDown chan struct{}
}

// New returns a Speaker without peers.
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

// ErrRestart is the cause with which to end Run's context if another process will soon take over the sessions.
var ErrRestart = errors.New("a successor follows")

// Run holds the sessions until the context ends, and returns when all of them are closed. It closes them with Cease,
// Administrative Shutdown (RFC 4486, RFC 9003), upon which routers drop this node's routes at once. If the cause of the
// context's end is ErrRestart, it closes the sessions with graceful restart without a NOTIFICATION, upon which routers keep
// the routes. Run may be called once.
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
		wanted := s.wanted()
		listeners.follow(ctx, wanted)
		sessions.follow(ctx, wanted)
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		}
	}
}

// SetPeers sets the peers that there should be. The sessions with unchanged peers continue. If a peer differs in any field,
// its session is closed and opened again, because BGP negotiates nearly everything when a session starts. With graceful
// restart the router keeps the routes meanwhile, unless the AS number, the router ID or the router itself differs. The
// session with a removed peer is closed with Cease, Peer De-configured, and the router keeps no routes.
//
// SetPeers returns the errors by peer name, or nil if there are none. A peer that is not valid has no session, as if it were
// not listed. This does not affect the others.
func (s *Speaker) SetPeers(peers []Peer) map[string]error {
	faults := map[string]error{}
	wanted := map[string]Peer{}
	for _, p := range peers {
		if _, twice := wanted[p.Name]; twice {
			faults[p.Name] = errors.New("Name: is used twice; the first is taken")
			continue
		}
		if err := p.Validate(); err != nil {
			faults[p.Name] = err
			continue
		}
		wanted[p.Name] = p
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	news := false
	for name, m := range s.members {
		if p, ok := wanted[name]; !ok || !m.peer.same(p) {
			delete(s.members, name)
			news = true
		}
	}
	for name, p := range wanted {
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
			accepted: make(chan *net.TCPConn, 1), pathDown: make(chan struct{}, 1),
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

// Set sets the peers to which one prefix should be announced, with the attributes for each. It replaces the previous state of
// the prefix. Without peers the prefix is withdrawn everywhere. Setting the same state again costs only a comparison. A peer
// that does not exist yet will hear of the prefix when it does.
func (s *Speaker) Set(prefix netip.Prefix, exports map[string]route.Attributes) {
	if !prefix.IsValid() || prefix.Addr().Is4In6() {
		s.log.Error("cannot announce this prefix by BGP", zap.Stringer("prefix", prefix))
		return
	}
	prefix = prefix.Masked() // RFC 4271 §4.3: host bits are irrelevant

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

// Sessions returns the state of the session with each valid peer, sorted by name.
func (s *Speaker) Sessions() []Session {
	members := s.sorted()
	sessions := make([]Session, 0, len(members))
	for _, m := range members {
		sessions = append(sessions, m.status.session())
	}
	return sessions
}

// Changed returns a channel that gets a value when the result of Sessions may have changed in more than its counts. Its
// capacity is one: all changes until the value is received count as one.
func (s *Speaker) Changed() <-chan struct{} { return s.changed }

func (s *Speaker) wanted() map[string]*member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.members)
}

// rib returns the ribOut of a peer, and creates it if there is none. The lock is held.
func (s *Speaker) rib(name string) *ribOut {
	if s.ribs[name] == nil {
		s.ribs[name] = newRibOut()
	}
	return s.ribs[name]
}

// forget removes the ribOut of a peer if nothing needs it any more. The lock is held.
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

// follow closes the sessions that are not wanted any more, and opens the missing ones. It first waits until the old ones are
// closed: a router has only one session with an address, and takes a second one for a collision (RFC 4271 §6.8).
func (s *sessions) follow(ctx context.Context, wanted map[string]*member) {
	var closing []*running
	for name, r := range s.of {
		if next := wanted[name]; next != r.member {
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
	for name, m := range wanted {
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

// wait waits for the sessions to end, after the context with which they were opened has ended.
func (s *sessions) wait() {
	for _, r := range s.of {
		r.join()
		r.cancel(nil)
	}
}

// join waits for the end of a session, and closes the connections that the session has not taken. The listener hands over no
// further ones, because it was updated first.
func (r *running) join() {
	<-r.done
	discard(r.accepted)
}
