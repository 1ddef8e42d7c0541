package speaker

import "time"

// freshness judges by their Leases which speakers are alive. It is pure; the time is an argument.
//
// Silence says something about a neighbour only while we would have heard it. So time counts only as
// our own renewals come back through the same watch: while the API server or the way to it is down, it
// stands still and nobody is declared dead.
type freshness struct {
	self     string
	duration time.Duration // of our own Lease: how long it is good without a renewal
	renew    time.Duration // how often it is renewed

	clock time.Duration        // how long we have been listening
	heard time.Time            // when our own renewal last came back
	seen  map[string]*sighting // by node
}

// sighting is the last that was heard of a speaker.
type sighting struct {
	renewed time.Time     // as it says; told apart, never compared with our clock but on first sight
	at      time.Duration // on our listening clock
	good    time.Duration // how long it may be silent
	gone    bool          // it said goodbye
}

// staleOnSight is how many durations old a Lease has to be to count as dead when it is first seen. The
// clocks of two nodes may differ by less than that.
const staleOnSight = 10

func newFreshness(self string, duration time.Duration) *freshness {
	return &freshness{self: self, duration: duration, renew: duration / 3, seen: map[string]*sighting{}}
}

// observe takes note of a Lease, which is good for a while without a renewal. An empty holder has given
// it up.
func (f *freshness) observe(node, holder string, renewed time.Time, good time.Duration, now time.Time) {
	s, known := f.seen[node]
	if !known {
		s = &sighting{}
		f.seen[node] = s
		if now.Sub(renewed) > staleOnSight*good {
			s.gone = true
		}
	} else if holder != "" && !renewed.Equal(s.renewed) {
		s.gone = false
	}
	if holder == "" {
		s.gone = true
	}
	if known && renewed.Equal(s.renewed) {
		return
	}
	s.renewed, s.good = renewed, good
	if node == f.self {
		f.tick(now)
		s.at = f.clock
		return
	}
	s.at = f.clock
	if !f.heard.IsZero() {
		// What the clock will say of this moment when our next renewal moves it.
		s.at += max(0, min(now.Sub(f.heard), 2*f.renew))
	}
}

// tick lets the clock catch up to now. After a gap in which a renewal of ours is missing we were deaf:
// it does not count, and everybody has a whole duration again to be heard in.
func (f *freshness) tick(now time.Time) {
	gap := max(0, now.Sub(f.heard))
	if f.heard.IsZero() || f.deaf(now) {
		for _, s := range f.seen {
			s.at = f.clock
		}
	} else {
		f.clock += gap
	}
	f.heard = now
}

// deaf reports whether our own renewals have been missing for so long that others may soon count us dead.
// A renewal was heard after it was written, so they do that not before a whole duration from then.
func (f *freshness) deaf(now time.Time) bool {
	return !f.heard.IsZero() && now.Sub(f.heard) > 2*f.renew
}

// forget drops a Lease that was deleted.
func (f *freshness) forget(node string) { delete(f.seen, node) }

// alive reports whether the node's speaker is to be counted on.
func (f *freshness) alive(node string) bool {
	s, ok := f.seen[node]
	return ok && !s.gone && f.clock-s.at <= s.good
}
