package bfd

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// farewell bounds how long Run goes on after its context has ended, in order to tell the peers.
const farewell = time.Second

// Speaker runs sessions. All methods may be called at any time from any goroutine; none waits for the network.
type Speaker struct {
	log     *zap.Logger
	changed func(Change)

	mu     sync.Mutex
	ran    bool
	wished map[string]Session
	news   bool    // whether wished has changed since Run looked
	poller *poller // nil unless Run runs

	// Only Run changes the following fields, with mu locked.
	rand      *rand.Rand
	members   map[string]*member
	queue     queue // of members and of former members that are being closed
	receivers map[endpoint]*receiver
	sockets   map[int]*receiver // by file descriptor
	ports     map[uint16]bool   // of senders
	drops     Drops             // packets that came from no session's peer
	now       time.Time         // the time of the current turn
	changes   []Change          // the changes of the current turn
	deliver   func(*receiver, arrival, []byte)
}

// New returns a Speaker without sessions. The goroutine that calls Run calls changed, which may be nil, with each change of a
// session's state, in order. changed must not block. It is not called for sessions that are not wanted any more.
func New(log *zap.Logger, changed func(Change)) *Speaker {
	s := &Speaker{
		log: log, changed: changed,
		wished: map[string]Session{}, members: map[string]*member{},
		receivers: map[endpoint]*receiver{}, sockets: map[int]*receiver{}, ports: map[uint16]bool{},
		rand: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), //nolint:gosec // RFC 5880 asks for no more than numbers that differ.
	}
	s.deliver = s.receive
	return s
}

// Set sets the sessions that there should be. Unchanged sessions are not disturbed. If only Multiplier, an interval or
// MinimumTTL differ, and the session does not change between one hop and several, it stays up, and the peer is told the new
// timing in a Poll Sequence. After any other change the session is closed and started again. The peer of a closed session is
// told AdminDown.
//
// Set returns the errors by session name, or nil if there are none. A session that is not valid is left out. This does not
// affect the others.
func (s *Speaker) Set(sessions []Session) map[string]error {
	faults := map[string]error{}
	wished := map[string]Session{}
	paths := map[path]string{}
	for _, w := range sessions {
		err := w.Validate()
		_, twice := wished[w.Name]
		other, taken := paths[w.path()]
		switch {
		case err != nil:
			faults[w.Name] = err
		case twice:
			faults[w.Name] = fmt.Errorf("BFD session %q: Name: is used twice; the first is taken", w.Name)
		case taken:
			faults[w.Name] = fmt.Errorf("BFD session %q: Peer: session %q is with %v on the same path, and there can be one only (RFC 5881 §3); use that", w.Name, other, w.Peer)
		default:
			wished[w.Name], paths[w.path()] = w, w.Name
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !maps.Equal(s.wished, wished) {
		s.wished, s.news = wished, true
		s.poke()
	}
	if len(faults) == 0 {
		return nil
	}
	return faults
}

// poke makes Run look for changes. The lock is held.
func (s *Speaker) poke() {
	if s.poller != nil {
		s.poller.poke()
	}
}

// Sessions returns the status of the sessions that Run has started, sorted by name.
func (s *Speaker) Sessions() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Status, 0, len(s.members))
	for _, m := range s.members {
		all = append(all, m.status())
	}
	slices.SortFunc(all, func(a, b Status) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Drops returns the numbers of packets that came from no session's peer. Dropped packets of a session are in its Status.
func (s *Speaker) Drops() Drops {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drops
}

// Run runs the sessions until the context ends. Then it tells the peers AdminDown, for their detection time but no longer than
// a second, and returns nil. It opens sockets in the network namespace of the thread that runs it. Run may be called once.
func (s *Speaker) Run(ctx context.Context) error {
	p, err := newPoller()
	if err != nil {
		return err
	}
	s.mu.Lock()
	again := s.ran
	if s.ran = true; !again {
		s.poller = p
		p.poke() // Start the sessions that were set before.
	}
	s.mu.Unlock()
	if again {
		p.close()
		return errors.New("BFD speaker runs already")
	}
	defer s.end()
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.poke()
	})
	defer stop()
	var until time.Time
	for over := false; !over; {
		if err := p.wait(until); err != nil {
			return fmt.Errorf("wait for BFD packets: %w", err)
		}
		until, over = s.turn(ctx.Err() != nil)
	}
	return nil
}

// turn does everything that is due, and returns the time of the next turn. over is true when Run is closing and there are no
// more peers to tell.
func (s *Speaker) turn(closing bool) (until time.Time, over bool) {
	s.mu.Lock()
	// The time is read before it is asked which sockets can be read, so all packets that had arrived by that time are read before
	// a peer counts as silent. However late this goroutine is, its delay is never taken for silence of a peer.
	s.now = time.Now()
	for range 1 + len(s.sockets)/len(s.poller.events) {
		ready := s.poller.readable()
		for _, e := range ready {
			if r := s.sockets[int(e.Fd)]; r != nil {
				r.read(s.deliver)
			}
		}
		if len(ready) < len(s.poller.events) {
			break
		}
	}
	switch {
	case closing:
		s.follow(nil)
	case s.news:
		s.news = false
		s.follow(s.wished)
	}
	for len(s.queue) > 0 && !s.queue[0].at.IsZero() && !s.now.Before(s.queue[0].at) {
		s.advance(s.queue[0])
	}
	if len(s.queue) > 0 {
		until = s.queue[0].at
	}
	over = closing && len(s.queue) == 0
	changes := s.changes
	s.mu.Unlock()
	for _, c := range changes {
		if s.changed != nil {
			s.changed(c)
		}
	}
	s.changes = s.changes[:0]
	return until, over
}

// receive handles a packet.
func (s *Speaker) receive(r *receiver, a arrival, payload []byte) {
	m := r.members[a.from]
	if m == nil {
		s.drops[DropNoSession]++
		return
	}
	was := m.state
	if drop := m.take(s.now, a, payload); drop != Accepted {
		m.drops[drop]++
		return
	}
	m.received++
	s.settle(m, was)
}

// advance does everything that is due for a session.
func (s *Speaker) advance(m *member) {
	if m.state == AdminDown && !s.now.Before(m.ends) {
		s.shut(m)
		heap.Remove(&s.queue, m.slot)
		return
	}
	was := m.state
	m.tick(s.now)
	if m.state != AdminDown && !m.again.IsZero() && !s.now.Before(m.again) {
		s.reopen(m)
	}
	s.settle(m, was)
}

// settle is called after every event of a session.
func (s *Speaker) settle(m *member, was State) {
	m.flush(s.now)
	if m.state != was {
		s.note(m, was)
	}
	if m.state == Down {
		m.index = 0
	}
	m.at = m.next()
	heap.Fix(&s.queue, m.slot)
}

func (s *Speaker) note(m *member, was State) {
	c := Change{
		Session: m.Name, From: was, To: m.state, At: s.now, Diag: m.diag,
		RemoteState: m.remote.state, RemoteDiag: m.remote.diag,
	}
	log := s.log.With(zap.String("session", m.Name), zap.Stringer("peer", m.Peer), zap.Stringer("from", was), zap.Stringer("diagnostic", m.diag))
	if was == Up && m.state == Down {
		m.downs[m.diag]++
	}
	switch {
	case c.Failed():
		m.failures++
		log.Warn("BFD session failed")
	case m.state == AdminDown:
		log.Debug("BFD session closes")
		return
	default:
		log.Debug("BFD session changed", zap.Stringer("to", m.state))
	}
	s.changes = append(s.changes, c)
}

// follow closes the sessions that are not wanted, starts those that are missing, and changes the others.
func (s *Speaker) follow(wished map[string]Session) {
	for name, m := range s.members {
		if w, ok := wished[name]; !ok || w.path() != m.path() {
			delete(s.members, name)
			was := m.state
			m.close(s.now, farewell)
			if ok && w.DeviceIndex != m.DeviceIndex {
				m.flush(s.now)
				s.shut(m) // Its sockets reach nobody, or, if the index was only unknown before, block the new ones.
			}
			s.settle(m, was)
		}
	}
	for name, w := range wished {
		m := s.members[name]
		switch {
		case m == nil:
			m = &member{Session: w, machine: newMachine(s.now, s.rand, s.discriminator(), w.timing()), downs: map[Diag]uint64{}}
			s.members[name] = m
			heap.Push(&s.queue, m)
			s.reopen(m)
			s.settle(m, Down)
		case m.Session != w:
			m.Session = w
			m.configure(s.now, w.timing())
			s.settle(m, m.state)
		}
	}
}

// discriminator returns a random number that no session has and that is not zero (RFC 5880 §6.8.1).
func (s *Speaker) discriminator() uint32 {
	for {
		n := s.rand.Uint32()
		if n != 0 && !slices.ContainsFunc(s.queue, func(m *member) bool { return m.mine == n }) {
			return n
		}
	}
}

// end closes all sockets.
func (s *Speaker) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.queue {
		s.shut(m)
	}
	clear(s.members)
	s.queue = nil
	s.poller.close()
	s.poller = nil
}
