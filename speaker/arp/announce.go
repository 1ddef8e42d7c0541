package arp

import (
	"container/heap"
	"net/netip"
	"slices"
	"time"
)

// A claim is one address on one link. The Responder's lock guards it.
type claim struct {
	addr netip.Addr
	link *link

	step  int       // how many announcements were made since the take-over or link-up
	due   time.Time // of the next one
	place int       // in the agenda, or absent
}

const absent = -1

// An agenda is a heap of claims, the one that is to be announced next on top.
type agenda []*claim

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].due.Before(a[j].due) }
func (a agenda) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].place, a[j].place = i, j
}

// Push and Pop are for package heap; use put and strike.
func (a *agenda) Push(x any) {
	c := x.(*claim)
	c.place = len(*a)
	*a = append(*a, c)
}

func (a *agenda) Pop() any {
	last := len(*a) - 1
	c := (*a)[last]
	c.place = absent
	*a = slices.Delete(*a, last, last+1)
	return c
}

// put enters c or moves it to another time.
func (a *agenda) put(c *claim, due time.Time) {
	c.due = due
	if c.place == absent {
		heap.Push(a, c)
	} else {
		heap.Fix(a, c.place)
	}
}

func (a *agenda) strike(c *claim) {
	if c.place != absent {
		heap.Remove(a, c.place)
	}
}

// begin starts c's burst over.
func (r *Responder) begin(c *claim, now time.Time) {
	c.step = 0
	r.agenda.put(c, now.Add(r.options.Burst[0]))
}

// announce sends what is due, as far as the rate allows, and returns when to come again; zero:
// when something else has changed. Each address takes the lock for itself, so
// replies get their turn in between.
func (r *Responder) announce() time.Time {
	for {
		again, done := r.announceNext(time.Now())
		if done {
			return again
		}
	}
}

func (r *Responder) announceNext(now time.Time) (again time.Time, done bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.agenda) == 0 {
		return time.Time{}, true
	}
	c := r.agenda[0]
	if c.due.After(now) {
		return c.due, true
	}
	if r.options.Silent() {
		return now.Add(silencePeriod), true
	}
	if !r.pace.AllowN(now, 1) {
		return now.Add(time.Duration(float64(time.Second) / r.options.Rate)), true
	}
	c.link.announce(c.addr)
	c.step++
	switch burst := r.options.Burst; {
	case c.step < len(burst):
		r.agenda.put(c, now.Add(burst[c.step]-burst[c.step-1]))
	case r.options.Refresh > 0:
		r.agenda.put(c, now.Add(r.options.Refresh))
	default:
		r.agenda.strike(c)
	}
	return time.Time{}, false
}
