package speaker

import (
	"cmp"
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/semaphore"

	"github.com/heraldlb/herald/speaker/announce"
	"github.com/heraldlb/herald/speaker/link"
	"github.com/heraldlb/herald/speaker/responder"
	"github.com/heraldlb/herald/speaker/segment"
)

const (
	// probesAtOnce bounds the number of probes for new addresses that run at the same time.
	probesAtOnce = 256
	// conflictTime is how long a conflict is reported after the stranger was last seen.
	conflictTime = time.Minute
	// viewTimeout bounds how long a segment may take to return its view, and leaveTimeout how long it may take to leave.
	viewTimeout  = 200 * time.Millisecond
	leaveTimeout = time.Second
)

// segments runs a segment.Segment on each interface on which addresses may be announced, and passes its answers to the
// responders. The loop owns opened with its values, failed and left.
type segments struct {
	config  segment.Config
	log     *zap.Logger
	arp     *responder.Responder
	ndp     *responder.Responder
	keys    *identities
	changed func() // called when members have changed
	ctx     context.Context
	opened  map[string]*running
	failed  map[string]string // why a segment could not be opened
	left    bool              // all segments were left for good, and none is opened any more
	// whenLeft is called when all segments have been left for good.
	whenLeft func()
	probes   *semaphore.Weighted
	work     sync.WaitGroup // probes
	// waits reports whether this node must not answer for an address yet.
	waits func(netip.Addr) bool

	// answering guards held, which has this node's answers for addresses that wait.
	answering sync.Mutex
	held      map[conflictKey]segment.Answer

	mu        sync.Mutex
	running   map[string]*segment.Segment // the segments in opened, for other goroutines
	members   map[string][]segment.Member // by interface
	conflicts map[conflictKey]conflict
	deaths    map[deathKey]time.Time
}

// running is a segment with the state of its goroutine.
type running struct {
	*segment.Segment
	iface  segment.Interface
	cancel context.CancelFunc
	done   chan struct{}
	failed atomic.Bool
}

type deathKey struct{ node, iface string }

func newSegments(config segment.Config, log *zap.Logger, keys *identities, changed func()) *segments {
	return &segments{
		config: config, log: log, keys: keys, changed: changed, probes: semaphore.NewWeighted(probesAtOnce),
		opened: map[string]*running{}, failed: map[string]string{}, running: map[string]*segment.Segment{}, members: map[string][]segment.Member{},
		conflicts: map[conflictKey]conflict{}, deaths: map[deathKey]time.Time{},
		waits: func(netip.Addr) bool { return false }, whenLeft: func() {}, held: map[conflictKey]segment.Answer{},
	}
}

// update opens, changes and closes segments, so that there is one on each of these interfaces. It calls tell for each
// segment that it opens, which tells the segment what the others know. After leave it does nothing.
func (s *segments) update(interfaces []link.Interface, tell func(*segment.Segment)) {
	if s.left {
		return
	}
	wanted := map[string]link.Interface{}
	for _, i := range interfaces {
		wanted[i.Name] = i
	}
	s.close(func(r *running) bool {
		i, ok := wanted[r.Name()]
		return !ok || i.Index != r.Index() || r.failed.Load()
	})
	for name, i := range wanted {
		r := s.opened[name]
		if r == nil {
			if r = s.start(i, tell); r == nil {
				continue
			}
		}
		iface := segment.Interface{Name: name, MAC: segment.MAC(i.MAC), Prefixes: i.Subnets, Up: i.Up}
		if r.iface.Name == "" || r.iface.MAC != iface.MAC || r.iface.Up != iface.Up || !slices.Equal(r.iface.Prefixes, iface.Prefixes) {
			r.iface = iface
			r.Set(iface)
		}
	}
}

func (s *segments) start(i link.Interface, tell func(*segment.Segment)) *running {
	log := s.log.With(zap.String("interface", i.Name))
	name := i.Name
	seg, err := segment.Open(log, s.config, name, i.Index, segment.Callbacks{
		Answer:   func(a segment.Answer) { s.answer(name, a) },
		Check:    func(seg *segment.Segment, addrs []netip.Addr) { s.check(seg, addrs) },
		Identify: s.keys.want,
		Changed: func(members []segment.Member) {
			s.mu.Lock()
			s.members[name] = members
			s.mu.Unlock()
			s.changed()
		},
		Event: func(e segment.Event) { s.event(log, name, e) },
	})
	if err != nil {
		if s.failed[name] != err.Error() {
			log.Warn("addresses are not announced on this interface, trying again every second", zap.Error(err))
		}
		s.failed[name] = err.Error()
		return nil
	}
	delete(s.failed, name)
	// The segment runs until it is closed, and not only until s.ctx ends: when the process ends, the segment first has to tell
	// the other nodes that this node leaves.
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.ctx))
	r := &running{Segment: seg, cancel: cancel, done: make(chan struct{})}
	s.opened[name] = r
	s.mu.Lock()
	s.running[name] = seg
	s.mu.Unlock()
	s.keys.tellAll(seg)
	tell(seg)
	go func() {
		defer close(r.done)
		if err := seg.Run(ctx); err != nil {
			log.Error("the segment is left and joined again", zap.Error(err))
			r.failed.Store(true)
			s.changed()
		}
	}()
	return r
}

// close leaves the segments that which selects, and returns when their goroutines have ended.
func (s *segments) close(which func(*running) bool) {
	s.end(slices.DeleteFunc(slices.Collect(maps.Values(s.opened)), func(r *running) bool { return !which(r) }), false)
}

// leave leaves all segments for good. Probes may go on until s.ctx ends. Further calls do nothing.
func (s *segments) leave(successor bool) {
	s.left = true
	s.end(slices.Collect(maps.Values(s.opened)), successor)
	s.whenLeft()
}

// end tells the other nodes on these segments that this node leaves, and only then closes the sockets. A segment that is
// stuck or has failed cannot tell them, and must not delay the others for long.
func (s *segments) end(all []*running, successor bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), leaveTimeout)
	defer cancel()
	var leaving sync.WaitGroup
	for _, r := range all {
		if !r.failed.Load() {
			leaving.Go(func() { r.Leave(ctx, successor) })
		}
	}
	leaving.Wait()
	for _, r := range all {
		name := r.Name()
		r.cancel()
		<-r.done
		delete(s.opened, name)
		s.answering.Lock()
		maps.DeleteFunc(s.held, func(k conflictKey, _ segment.Answer) bool { return k.iface == name })
		s.answering.Unlock()
		s.mu.Lock()
		delete(s.running, name)
		delete(s.members, name)
		maps.DeleteFunc(s.deaths, func(k deathKey, _ time.Time) bool { return k.iface == name })
		s.mu.Unlock()
	}
}

// forget forgets nodes that are no longer part of the cluster.
func (s *segments) forget(nodes []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.deaths, func(k deathKey, _ time.Time) bool { return slices.Contains(nodes, k.node) })
}

// each calls f for every open segment.
func (s *segments) each(f func(m *segment.Machine, now segment.Time)) {
	for _, r := range s.opened {
		r.Do(f)
	}
}

// answer passes an answer to the responder of its family. An answer of this node for an address that waits is held back. The
// nodes agree all the same that this node owns the address.
func (s *segments) answer(iface string, a segment.Answer) {
	s.answering.Lock()
	defer s.answering.Unlock()
	key := conflictKey{a.Addr, iface}
	if a.Node == s.config.Node && s.waits(a.Addr) {
		s.held[key] = a
		return
	}
	delete(s.held, key)
	s.respond(iface, a)
}

// release passes on the answers that were held back for addresses that do not wait any more.
func (s *segments) release(addrs []netip.Addr) {
	ready := map[netip.Addr]bool{}
	for _, a := range addrs {
		ready[a] = true
	}
	s.answering.Lock()
	defer s.answering.Unlock()
	for key, a := range s.held {
		if ready[key.addr] {
			delete(s.held, key)
			s.respond(key.iface, a)
		}
	}
}

func (s *segments) respond(iface string, a segment.Answer) {
	var how *responder.Answer
	if a.Node != "" {
		how = &responder.Answer{Announce: a.Announce, Defend: a.Defend}
		if a.Node != s.config.Node {
			how.MAC = net.HardwareAddr(a.MAC[:])
		}
	}
	s.responder(a.Addr).Set(a.Addr, iface, how)
}

func (s *segments) responder(addr netip.Addr) *responder.Responder {
	if addr.Is4() {
		return s.arp
	}
	return s.ndp
}

// mustNotSend reports whether the responders must not send on an interface: no segment runs there, or it has made no progress
// for too long.
func (s *segments) mustNotSend(iface string) bool {
	s.mu.Lock()
	seg := s.running[iface]
	s.mu.Unlock()
	return seg == nil || seg.Stalled()
}

// event logs an event of a segment, and records deaths.
func (s *segments) event(log *zap.Logger, iface string, e segment.Event) {
	fields := []zap.Field{zap.String("event", string(e.Kind))}
	if e.Node != "" {
		fields = append(fields, zap.String("node", e.Node))
	}
	if e.Addr.IsValid() {
		fields = append(fields, zap.Stringer("address", e.Addr))
	}
	if e.After != 0 {
		fields = append(fields, zap.Duration("after", e.After))
	}
	if e.Text != "" {
		fields = append(fields, zap.String("why", e.Text))
	}
	key := deathKey{e.Node, iface}
	switch e.Kind {
	case segment.EventDead:
		log.Warn("a neighbour is dead", fields...)
		// A neighbour whose kernel still answers when its grace ends has not died.
		if e.After < segment.Grace {
			s.mu.Lock()
			s.deaths[key] = time.Now()
			s.mu.Unlock()
		}
	case segment.EventHeard, segment.EventLeft:
		log.Info("the neighbours changed", fields...)
		s.mu.Lock()
		delete(s.deaths, key)
		s.mu.Unlock()
	case segment.EventSuspect:
		log.Debug("a neighbour is suspected: no beat came in time", fields...)
	default:
		log.Info("segment", fields...)
	}
}

// nodes lists the nodes on each segment as decisions need them, sorted by interface. The segment itself handles whether a
// node is alive and whether the interface is up: neither changes the decisions.
func (s *segments) nodes(self string, interfaces []link.Interface) []announce.Segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []announce.Segment
	for _, i := range interfaces {
		if s.running[i.Name] == nil {
			continue
		}
		o := announce.Segment{Interface: i.Name, Nodes: []announce.Neighbour{{Node: self, Interface: i.Name, Subnets: i.Subnets}}}
		for _, m := range s.members[i.Name] {
			if m.Node != self {
				o.Nodes = append(o.Nodes, announce.Neighbour{Node: m.Node, Interface: m.Interface, Subnets: m.Prefixes})
			}
		}
		slices.SortFunc(o.Nodes, announce.CompareNeighbours)
		all = append(all, o)
	}
	slices.SortFunc(all, func(x, y announce.Segment) int { return cmp.Compare(x.Interface, y.Interface) })
	return all
}

// views returns the view of every segment. It leaves out segments that do not answer in time.
func (s *segments) views() map[string]segment.View {
	ctx, cancel := context.WithTimeout(context.Background(), viewTimeout)
	defer cancel()
	s.mu.Lock()
	running := maps.Clone(s.running)
	s.mu.Unlock()
	var asking sync.WaitGroup
	var answers sync.Mutex
	views := map[string]segment.View{}
	for name, seg := range running {
		asking.Go(func() {
			if v, err := seg.View(ctx); err == nil {
				answers.Lock()
				views[name] = v
				answers.Unlock()
			}
		})
	}
	asking.Wait()
	return views
}

// list returns the open segments.
func (s *segments) list() []*segment.Segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.running))
}

// joined reports whether other speakers are heard on every segment. It asks the segments: members does not change when a neighbour
// dies.
func (s *segments) joined() bool {
	views := s.views()
	return !slices.ContainsFunc(s.list(), func(seg *segment.Segment) bool {
		return !slices.ContainsFunc(views[seg.Name()].Members, segment.Member.Heard)
	})
}
