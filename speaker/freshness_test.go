package speaker

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const (
	goodFor = 30 * time.Second // a Lease, without a renewal
	renewal = goodFor / 3
)

// listener is what the speaker of the node "self" hears in the course of a story.
type listener struct {
	*freshness
	now time.Time
}

func newListener() *listener { return &listener{newFreshness("self", goodFor), noon} }

// renew lets renewals come in, written now by clocks that are right.
func (l *listener) renew(nodes ...string) {
	for _, n := range nodes {
		l.observe(n, n, l.now, goodFor, l.now)
	}
}

func (l *listener) goodbye(node string) { l.observe(node, "", l.now, goodFor, l.now) }

// pass lets time go by, with renewals at its end.
func (l *listener) pass(d time.Duration, nodes ...string) {
	l.now = l.now.Add(d)
	l.renew(nodes...)
}

func TestWhoIsAlive(t *testing.T) {
	for _, story := range []struct {
		name  string
		tell  func(*listener)
		alive bool // the node "other", at the end
	}{
		{"never heard of", func(l *listener) { l.renew("self") }, false},
		{"seen once", func(l *listener) { l.renew("self", "other") }, true},
		{"seen by a speaker that has not renewed its own yet", func(l *listener) { l.renew("other") }, true},
		{"silent for as long as a Lease is good", func(l *listener) {
			l.renew("self", "other")
			for range 3 {
				l.pass(renewal, "self")
			}
		}, true},
		{"silent for longer", func(l *listener) {
			l.renew("self", "other")
			for range 4 {
				l.pass(renewal, "self")
			}
		}, false},
		{"silent, then back", func(l *listener) {
			l.renew("self", "other")
			for range 4 {
				l.pass(renewal, "self")
			}
			l.renew("other")
		}, true},
		{"heard between two renewals of ours", func(l *listener) {
			l.renew("self")
			l.pass(2*renewal-time.Second, "other")
			l.pass(time.Second, "self")
			l.pass(renewal+2*time.Second, "self")
		}, true},
		{"the same Lease seen again is no renewal", func(l *listener) {
			l.renew("self", "other")
			then := l.now
			for range 4 {
				l.pass(renewal, "self")
				l.observe("other", "other", then, goodFor, l.now)
			}
		}, false},

		{"its last word is good for longer than ours", func(l *listener) {
			l.renew("self")
			l.observe("other", "other", l.now, 2*goodFor, l.now)
			for range 5 {
				l.pass(renewal, "self")
			}
		}, true},
		{"its last word was good for less, and that is over", func(l *listener) {
			l.renew("self")
			l.observe("other", "other", l.now, goodFor/3, l.now)
			l.pass(renewal, "self")
			l.pass(renewal/2, "self")
		}, false},

		// While nothing is heard of oneself, silence says nothing.
		{"the API server is away", func(l *listener) {
			l.renew("self", "other")
			l.pass(time.Hour)
		}, true},
		{"and comes back: our renewal is heard first", func(l *listener) {
			l.renew("self", "other")
			l.pass(time.Hour, "self", "other")
			l.pass(renewal, "self")
		}, true},
		{"and comes back: the neighbour's is heard first", func(l *listener) {
			l.renew("self", "other")
			l.pass(time.Hour, "other", "self")
			l.pass(renewal, "self", "other")
			l.pass(renewal, "self")
		}, true},
		{"and comes back: the neighbour's comes a little later", func(l *listener) {
			l.renew("self", "other")
			l.pass(time.Hour, "self")
			l.pass(renewal-time.Second, "other")
			l.pass(time.Second, "self")
			l.pass(renewal, "self", "other")
		}, true},
		{"and comes back: the neighbour has a whole duration to be heard in", func(l *listener) {
			l.renew("self", "other")
			l.pass(time.Hour, "self")
			for range 3 {
				l.pass(renewal, "self")
			}
		}, true},
		{"and comes back, the neighbour does not", func(l *listener) {
			l.renew("self", "other")
			l.pass(time.Hour, "self")
			for range 4 {
				l.pass(renewal, "self")
			}
		}, false},
		{"and comes back: only our renewal is heard as yet", func(l *listener) {
			l.renew("self", "other")
			l.pass(time.Hour, "self")
		}, true},

		// Goodbyes.
		{"it says goodbye", func(l *listener) {
			l.renew("self", "other")
			l.goodbye("other")
		}, false},
		{"it says goodbye and nothing more", func(l *listener) {
			l.renew("self", "other")
			l.pass(time.Second)
			l.goodbye("other")
			then := l.now
			l.pass(renewal, "self")
			l.observe("other", "", then, goodFor, l.now)
		}, false},
		{"its goodbye is the first that is seen of it", func(l *listener) {
			l.renew("self")
			l.goodbye("other")
		}, false},
		{"it says goodbye and comes back", func(l *listener) {
			l.renew("self", "other")
			l.goodbye("other")
			l.pass(time.Second, "other")
		}, true},
		{"its Lease is deleted", func(l *listener) {
			l.renew("self", "other")
			l.forget("other")
		}, false},
		{"its Lease is deleted and written again", func(l *listener) {
			l.renew("self", "other")
			l.forget("other")
			l.pass(time.Second, "other")
		}, true},

		// Clocks.
		{"left behind long ago", func(l *listener) {
			l.renew("self")
			l.observe("other", "other", l.now.Add(-time.Hour), goodFor, l.now)
		}, false},
		{"left behind long ago, and taken up again", func(l *listener) {
			l.renew("self")
			l.observe("other", "other", l.now.Add(-time.Hour), goodFor, l.now)
			l.pass(time.Second, "other")
		}, true},
		{"left behind long ago, and written again by others than its speaker", func(l *listener) {
			l.renew("self")
			then := l.now.Add(-time.Hour)
			l.observe("other", "other", then, goodFor, l.now)
			l.observe("other", "other", then, goodFor, l.now)
		}, false},
		{"left behind a little longer ago than it is good: its clock may be late", func(l *listener) {
			l.renew("self")
			l.observe("other", "other", l.now.Add(-2*goodFor), goodFor, l.now)
		}, true},
		{"a Lease that was never renewed", func(l *listener) {
			l.renew("self")
			l.observe("other", "other", time.Time{}, goodFor, l.now)
		}, false},
		{"its clock is a minute late", func(l *listener) {
			l.renew("self")
			for range 9 {
				l.observe("other", "other", l.now.Add(-time.Minute), goodFor, l.now)
				l.pass(renewal, "self")
			}
		}, true},
		{"its clock is an hour early", func(l *listener) {
			l.renew("self")
			for range 9 {
				l.observe("other", "other", l.now.Add(time.Hour), goodFor, l.now)
				l.pass(renewal, "self")
			}
		}, true},
		{"an early clock does not keep it alive", func(l *listener) {
			l.renew("self")
			l.observe("other", "other", l.now.Add(time.Hour), goodFor, l.now)
			for range 4 {
				l.pass(renewal, "self")
			}
		}, false},
		{"its clock is set back", func(l *listener) {
			l.renew("self", "other")
			for range 9 {
				l.now = l.now.Add(renewal)
				l.renew("self")
				l.observe("other", "other", l.now.Add(-24*time.Hour), goodFor, l.now)
			}
		}, true},
		{"our own clock is set back", func(l *listener) {
			l.renew("self", "other")
			l.pass(-time.Hour, "self", "other")
			l.pass(renewal, "self")
		}, true},
		{"our own clock is set forward", func(l *listener) {
			l.renew("self", "other")
			l.pass(time.Hour, "self", "other")
			l.pass(renewal, "self")
		}, true},
	} {
		t.Run(story.name, func(t *testing.T) {
			l := newListener()
			story.tell(l)
			if l.alive("other") != story.alive {
				t.Errorf("alive: %v, want %v", !story.alive, story.alive)
			}
		})
	}
}

// A neighbour that renews in time is never taken for dead, however its renewals fall between ours and
// though each may be late by as much as the time between two.
func TestWhoRenewsIsAlive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newListener()
		instant := func(name string) time.Duration {
			return time.Duration(rapid.Int64Range(0, int64(renewal)).Draw(t, name))
		}
		l.renew("self", "other")
		phase := instant("phase")
		var ours, theirs int
		for range 60 {
			nextOurs := time.Duration(ours+1) * renewal
			nextTheirs := time.Duration(theirs)*renewal + phase + instant(fmt.Sprint("late ", theirs))
			if nextTheirs = max(nextTheirs, l.now.Sub(noon)); nextOurs <= nextTheirs {
				ours++
				l.now = noon.Add(nextOurs)
				l.renew("self")
			} else {
				theirs++
				l.now = noon.Add(nextTheirs)
				l.renew("other")
			}
			if !l.alive("other") {
				t.Fatalf("taken for dead after %s", l.now.Sub(noon))
			}
		}
	})
}

// A neighbour that falls silent is taken for dead one renewal of ours after its Lease has run out, at the
// latest two: it may have renewed right after ours.
func TestWhoFallsSilentIsDeadInTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newListener()
		l.renew("self", "other")
		for range rapid.IntRange(0, 5).Draw(t, "renewals of both") {
			l.pass(renewal, "self", "other")
		}
		after := time.Duration(rapid.Int64Range(0, int64(renewal)-1).Draw(t, "last renewal"))
		l.pass(after, "other")
		last := l.now
		l.pass(renewal-after, "self")
		for l.alive("other") {
			l.pass(renewal, "self")
			if silent := l.now.Sub(last); silent > goodFor+2*renewal {
				t.Fatalf("silent for %s and not dead", silent)
			}
		}
		if silent := l.now.Sub(last); silent <= goodFor {
			t.Fatalf("dead after only %s", silent)
		}
	})
}
