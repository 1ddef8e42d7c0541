package arp

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/bpf"
)

const (
	// filterSpacing is the least time between two filters of a link. The first change after a
	// quiet time has its filter at once, a thousand at once share the next.
	filterSpacing = 10 * time.Millisecond

	// A socket that cannot be opened or fails is opened again after minBackoff, doubled up to
	// maxBackoff, or at once when SetInterfaces has news of the interface.
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second

	// silencePeriod is how often a Responder that has announcements to make asks whether it may.
	silencePeriod = 50 * time.Millisecond
)

// filter is a program for the virtual machine in the kernel.
type filter = []bpf.Instruction

// Run answers and announces until ctx is done. It returns nil, with all sockets closed and all
// goroutines ended. What was set stays set, a later Run would go on with it; two must not
// run at once.
//
// Run's own goroutine opens and closes sockets, changes their filters and sends the announcements; each open
// socket has one more, which reads and answers.
func (r *Responder) Run(ctx context.Context) error {
	var readers sync.WaitGroup
	defer readers.Wait()
	defer r.closeAll()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		again := earliest(r.attend(&readers), r.announce())
		if again.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(again))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-timer.C:
		}
	}
}

// attend brings the sockets and filters of dirty links up to date, and returns when to come again
// for those that have to wait; zero: for none.
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

// earliest treats the zero time as never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (r *Responder) attendTo(l *link, readers *sync.WaitGroup) (again time.Time) {
	r.mu.Lock()
	wanted := l.ifi.Up && len(l.claims) > 0
	if s := l.station; s != nil && (!wanted || s.err != nil || s.epoch != l.epoch) {
		r.leave(l)
		r.mu.Unlock()
		r.close(l, s)
		r.mu.Lock()
		wanted = l.ifi.Up && len(l.claims) > 0
	}
	if !wanted {
		l.fresh = nil
		r.forget(l)
		r.mu.Unlock()
		return time.Time{}
	}
	now := time.Now()
	if now.Before(l.notBefore) {
		r.dirty[l] = struct{}{}
		defer r.mu.Unlock()
		return l.notBefore
	}
	ifi, epoch, s := l.ifi, l.epoch, l.station
	fresh := l.fresh
	l.fresh = nil
	if s == nil {
		fresh = slices.Collect(maps.Values(l.claims))
	}
	addrs := slices.Collect(maps.Keys(l.claims))
	r.mu.Unlock()

	// Building takes milliseconds for many addresses, replies go on meanwhile. What is set
	// from here on has made the link dirty again.
	code := program(spans(addrs, maxSpans))
	var err error
	if s == nil {
		s, err = r.open(ifi, epoch, code)
	} else if !slices.Equal(code, s.filter) {
		err = s.SetFilter(code)
		s.filter = code
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil && l.station == nil:
		l.station = s
		readers.Go(func() { r.read(l, s) })
	case err != nil && l.station == nil:
		if l.epoch == epoch {
			l.retreat()
		}
		r.touch(l)
		return time.Time{}
	case err != nil:
		// With its old filter the socket would not hear all requests; the next one gets its filter first.
		l.station.err = err
		r.touch(l)
		return time.Time{}
	}
	l.notBefore = now.Add(filterSpacing)
	for _, c := range fresh {
		if l.claims[c.addr] == c {
			r.begin(c, time.Now())
		}
	}
	return time.Time{}
}

func (r *Responder) open(i Interface, epoch int, code filter) (*station, error) {
	c, err := r.listen(i, code)
	if err != nil {
		r.log.Warn("cannot answer ARP, trying again", zap.String("interface", i.Name), zap.Error(err))
		return nil, err
	}
	r.log.Debug("answering ARP", zap.String("interface", i.Name), zap.Int("index", i.Index), zap.Stringer("mac", i.MAC))
	return &station{conn: c, self: i.MAC, epoch: epoch, opened: time.Now(), filter: code}, nil
}

// leave makes l silent: from here on nothing is sent on it.
func (r *Responder) leave(l *link) {
	s := l.station
	l.station = nil
	for _, c := range l.claims {
		r.agenda.strike(c)
	}
	if s.err != nil && s.epoch == l.epoch {
		if time.Since(s.opened) > maxBackoff {
			l.backoff = 0
		}
		l.retreat()
	}
}

// close needs no lock: once it has been left, nobody changes s.
func (r *Responder) close(l *link, s *station) {
	if s.err != nil {
		r.log.Warn("lost an ARP socket, opening it again", zap.String("interface", l.name), zap.Error(s.err))
	}
	if err := s.Close(); err != nil {
		r.log.Warn("close ARP socket", zap.String("interface", l.name), zap.Error(err))
	}
}

func (r *Responder) closeAll() {
	r.mu.Lock()
	stations := make(map[*link]*station)
	for _, l := range r.links {
		if l.station != nil {
			stations[l] = l.station
			r.leave(l)
		}
		r.touch(l)
	}
	r.mu.Unlock()
	for l, s := range stations {
		r.close(l, s)
	}
}

// read answers on s until it is closed or fails. A malformed frame is no failure; an error
// of the socket always is one: the usual is ENETDOWN, and the cure for all is a new socket.
func (r *Responder) read(l *link, s *station) {
	frame := make([]byte, accepted)
	for {
		n, err := s.Read(frame)
		if err != nil {
			r.fail(l, s, err)
			return
		}
		r.handle(l, s, frame[:n])
	}
}

// handle is the way of one frame. An observer of conflicts would go between its two lines.
func (r *Responder) handle(l *link, s *station, frame []byte) Drop {
	q, drop := parse(frame, s.self)
	if drop == "" && r.options.Silent() {
		drop = DropSilent
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return l.receive(s, q, drop)
}

func (r *Responder) fail(l *link, s *station, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l.station == s {
		s.err = err
		r.touch(l)
	}
}
