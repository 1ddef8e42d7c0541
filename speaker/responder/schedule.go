package responder

import (
	"container/heap"
	"slices"
	"time"

	"golang.org/x/time/rate"
)

const (
	// silencePeriod is the time between two calls of [Options].Silent for a link that may not send.
	silencePeriod = 50 * time.Millisecond

	// lateness is how late a timer may be without a loss of rate. The announcements that were due
	// meanwhile are sent back to back.
	lateness = 20 * time.Millisecond
)

// A class of announcements has a schedule of its own, so that urgent announcements do not wait for others.
type class int

const (
	first   class = iota // first after a takeover, and in defence
	repeat               // the rest of the burst
	refresh              // periodic
)

func newPace(perSecond float64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond*lateness.Seconds())))
}

const unscheduled = -1

// A schedule is a heap of entries and the rate at which they are announced. The entry that is due
// next is on top.
type schedule struct {
	heap entryHeap
	pace *rate.Limiter
}

type entryHeap []*entry

func (h entryHeap) Len() int           { return len(h) }
func (h entryHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h entryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push and Pop are for package heap. Other code uses schedule and unschedule.
func (h *entryHeap) Push(x any) {
	e := x.(*entry)
	e.place = len(*h)
	*h = append(*h, e)
}

func (h *entryHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	e.place = unscheduled
	*h = slices.Delete(*h, last, last+1)
	return e
}

// schedule adds e to a schedule, or moves it to another time.
func (r *Responder) schedule(e *entry, c class, due time.Time) {
	r.unschedule(e)
	e.class, e.due = c, due
	heap.Push(&r.schedules[c].heap, e)
}

func (r *Responder) unschedule(e *entry) {
	if e.place != unscheduled {
		heap.Remove(&r.schedules[e.class].heap, e.place)
	}
}

// begin starts the burst of e. Entries are scheduled only while the socket of their link is open.
func (r *Responder) begin(e *entry, now time.Time) {
	e.step = 0
	r.schedule(e, first, now.Add(r.options.Burst[0]))
}

// announce sends the announcements that are due, as far as the rates allow. It returns when to call
// it again; zero: only after another change. It takes the lock anew for each announcement, so that
// answers are not delayed.
func (r *Responder) announce() (again time.Time) {
	for c := first; c <= refresh; {
		next, done := r.announceNext(c, time.Now())
		if done {
			again = earliest(again, next)
			c++
		} else if c > first {
			// Announcements that have become urgent meanwhile go first.
			c, again = first, time.Time{}
		}
	}
	return again
}

func (r *Responder) announceNext(c class, now time.Time) (again time.Time, done bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.schedules[c]
	if len(s.heap) == 0 {
		return time.Time{}, true
	}
	e := s.heap[0]
	if e.due.After(now) {
		return e.due, true
	}
	if wait := max(delay(s.pace, now), delay(r.pace, now)); wait > 0 {
		return now.Add(wait), true
	}
	r.mu.Unlock()
	silent := r.options.Silent(e.link.name)
	r.mu.Lock()
	switch {
	case len(s.heap) == 0 || s.heap[0] != e || e.due.After(now):
		return time.Time{}, false // it was changed meanwhile
	case silent:
		r.schedule(e, c, now.Add(silencePeriod))
		return time.Time{}, false
	}
	s.pace.AllowN(now, 1)
	r.pace.AllowN(now, 1)
	r.send(e)
	e.step++
	switch burst := r.options.Burst; {
	case !e.isAnnounced():
		r.unschedule(e) // it was defended once
	case e.step < len(burst):
		r.schedule(e, repeat, now.Add(burst[e.step]-burst[e.step-1]))
	case r.options.Refresh > 0:
		r.schedule(e, refresh, now.Add(r.options.Refresh))
	default:
		r.unschedule(e)
	}
	return time.Time{}, false
}

// delay returns the time until p allows one more event.
func delay(p *rate.Limiter, now time.Time) time.Duration {
	missing := 1 - p.TokensAt(now)
	if missing <= 0 {
		return 0
	}
	return max(1, time.Duration(missing/float64(p.Limit())*float64(time.Second)))
}

func (r *Responder) send(e *entry) {
	l := e.link
	frames, err := r.protocol.Announce(l.socket.self, e.addr)
	if err != nil {
		l.failed++
		return
	}
	for _, f := range frames {
		if err := l.socket.Write(f); err != nil {
			l.failed++
		} else {
			l.announced++
		}
	}
}
