package responder

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/bpf"
)

// attend brings the sockets and filters of dirty links up to date. It returns when to call it again
// for links that have to wait, or zero if there are none.
func (r *Responder) attend(readers *sync.WaitGroup) (again time.Time) {
	r.mu.Lock()
	dirty := slices.Collect(maps.Keys(r.dirty))
	clear(r.dirty)
	r.mu.Unlock()
	for _, l := range dirty {
		again = earliest(again, r.attendTo(l, readers))
	}
	return again
}

func (r *Responder) attendTo(l *link, readers *sync.WaitGroup) (again time.Time) {
	r.mu.Lock()
	if s := l.socket; s != nil && (!l.ifi.Up || !l.isUsed() || s.err != nil || s.epoch != l.epoch) {
		r.leave(l)
		r.close(l, s, readers)
	}
	now := time.Now()
	switch {
	case !l.ifi.Up || !l.isUsed():
		r.forget(l)
		r.mu.Unlock()
		return time.Time{}
	case l.socket != nil && !l.stale:
		r.mu.Unlock()
		return time.Time{}
	case now.Before(l.notBefore):
		r.dirty[l] = struct{}{}
		defer r.mu.Unlock()
		return l.notBefore
	}
	ifi, epoch, s := l.ifi, l.epoch, l.socket
	accepted := l.wanted()
	l.stale = false
	var before map[netip.Addr]struct{}
	if s != nil {
		// If an address is removed now and set again before the new filter is attached, it must wait
		// for the filter after that.
		maps.DeleteFunc(s.accepted, func(a netip.Addr, _ struct{}) bool { _, ok := accepted[a]; return !ok })
		before = s.accepted
	}
	r.mu.Unlock()

	// To build a filter for many addresses takes milliseconds. Answers continue meanwhile. A Set
	// from here on makes the link stale again.
	filter := r.protocol.Filter(slices.Collect(maps.Keys(accepted)))
	var err error
	if s == nil {
		s, err = r.open(ifi, epoch, filter)
	} else if !slices.Equal(filter, s.filter) {
		err = s.SetFilter(filter)
		s.filter = filter
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil && l.socket == nil:
		if l.epoch == epoch {
			l.retreat()
		}
		r.touch(l)
		return time.Time{}
	case err != nil:
		// With its old filter the socket would not receive all requests.
		s.err = err
		r.touch(l)
		return time.Time{}
	case l.socket == nil:
		l.socket = s
		readers.Go(func() { r.read(l, s) })
	}
	l.notBefore = now.Add(filterSpacing)
	s.accepted = accepted
	r.welcome(l, before)
	r.setGroups(l, s, readers)
	return time.Time{}
}

// welcome begins the announcements and probes that waited for the filter.
func (r *Responder) welcome(l *link, before map[netip.Addr]struct{}) {
	now := time.Now()
	for a, e := range l.entries {
		if _, old := before[a]; !old && l.socket.accepts(a) && e.isAnnounced() {
			r.begin(e, now)
		}
	}
	for _, p := range l.probes {
		select {
		case <-p.ready:
		default:
			if l.socket.accepts(p.addr) {
				close(p.ready)
			}
		}
	}
}

// setGroups passes the groups to the goroutine that joins them. They replace groups that the
// goroutine has not received yet.
func (r *Responder) setGroups(l *link, s *socket, readers *sync.WaitGroup) {
	unique := make(map[netip.Addr]struct{})
	for a := range s.accepted {
		for _, g := range r.protocol.Groups(a) {
			unique[g] = struct{}{}
		}
	}
	if s.groups == nil {
		if len(unique) == 0 {
			return
		}
		s.groups = make(chan []netip.Addr, 1)
		readers.Go(func() { r.join(l, s) })
	}
	select {
	case <-s.groups:
	default:
	}
	s.groups <- slices.SortedFunc(maps.Keys(unique), netip.Addr.Compare)
}

func (r *Responder) open(i Interface, epoch int, filter []bpf.Instruction) (*socket, error) {
	c, err := r.protocol.Open(i, filter)
	if err != nil {
		r.log.Warn("cannot answer on an interface, trying again", zap.String("interface", i.Name), zap.Error(err))
		return nil, err
	}
	r.log.Debug("answering on an interface", zap.String("interface", i.Name), zap.Int("index", i.Index), zap.Stringer("mac", i.MAC))
	return &socket{Conn: c, self: i.MAC, epoch: epoch, opened: time.Now(), filter: filter, done: make(chan struct{})}, nil
}

// leave makes l silent: from now on nothing is sent on it.
func (r *Responder) leave(l *link) {
	s := l.socket
	l.socket = nil
	for _, e := range l.entries {
		r.unschedule(e)
	}
	if s.err != nil && s.epoch == l.epoch {
		if time.Since(s.opened) > maxBackoff {
			l.backoff = 0
		}
		l.retreat()
	}
}

// close closes a socket after leave. The kernel may take long for this, because it leaves multicast
// groups under the lock of all network configuration. So Run does not wait for it.
func (r *Responder) close(l *link, s *socket, readers *sync.WaitGroup) {
	if s.err != nil {
		r.log.Warn("lost a socket, opening it again", zap.String("interface", l.name), zap.Error(s.err))
	}
	close(s.done)
	readers.Go(func() {
		if err := s.Close(); err != nil {
			r.log.Warn("failed to close a socket", zap.String("interface", l.name), zap.Error(err))
		}
	})
}

func (r *Responder) closeAll(readers *sync.WaitGroup) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.links {
		if s := l.socket; s != nil {
			r.leave(l)
			r.close(l, s, readers)
		}
		r.touch(l)
	}
}
