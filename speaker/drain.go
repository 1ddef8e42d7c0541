package speaker

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/heraldlb/herald/speaker/announce"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/bgp/route"
)

// drain is the state of a drain: this node goes on announcing for a while, with a community that asks routers to
// prefer other nodes. The loop owns it.
type drain struct {
	// since is when the drain began; zero: there is none.
	since time.Time
	// Speaker.drain closes stop, by the copy in loop.stop, when the process must end. The loop then sets stop to nil, so that its
	// select takes it once, and sets stopping. done is closed when the routes are drained.
	stop     chan struct{}
	stopping bool
	done     chan struct{}
	next     *time.Timer // for the end of the next advertisement's drain time
}

func newDrain() drain {
	return drain{stop: make(chan struct{}), done: make(chan struct{}), next: stopped()}
}

// updateDrain checks a new snapshot for whether this node has to drain its routes. A node that was deleted from the API stays in the
// snapshot as an excluded node until they are drained.
func (l *loop) updateDrain(before *announce.Shared, now time.Time) {
	d, self := &l.drain, l.s.config.Node
	node, known := l.shared.Nodes[self]
	gone := false
	if before != nil && !known {
		node, gone = before.Nodes[self]
	}
	switch {
	case !d.stopping && !gone && !node.Excluded:
		d.since = time.Time{}
		return
	case d.since.IsZero() && before == nil:
		d.since = now.Add(-l.longestDrain()) // What was announced before the start is not known.
	case d.since.IsZero():
		d.since = now
	}
	left := now.Sub(d.since)
	l.shared.Draining = &left
	if gone && left < l.longestDrain() {
		node.Excluded = true
		l.shared.Nodes[self] = node
	}
	var next time.Duration
	for _, ad := range l.shared.BGP {
		if rest := ad.DrainTime - left; rest > 0 && (next == 0 || rest < next) {
			next = rest
		}
	}
	if next > 0 {
		d.next.Reset(next)
	}
}

// longestDrain returns the longest drain time of all advertisements.
func (l *loop) longestDrain() (longest time.Duration) {
	for _, ad := range l.shared.BGP {
		longest = max(longest, ad.DrainTime)
	}
	return longest
}

// onlyOld removes the routes that were not announced before.
func onlyOld(d, before announce.Decision) announce.Decision {
	maps.DeleteFunc(d.Exports, func(peer string, _ route.Attributes) bool {
		_, was := before.Exports[peer]
		return !was
	})
	d.Aggregates = slices.DeleteFunc(d.Aggregates, func(a announce.Aggregate) bool { return !slices.Contains(before.Aggregates, a) })
	return d
}

// beginStop begins to leave because the process must end. It leaves the segments at once: the other nodes take over within
// milliseconds, and a shutdown of the machine may not wait until the routes are drained. Without a drain time or an
// established session there is nothing to wait for: the end of a session withdraws its routes.
func (l *loop) beginStop() {
	l.drain.stop = nil
	l.s.segments.leave(false)
	if l.shared == nil || l.longestDrain() == 0 || !slices.ContainsFunc(l.s.bgp.Sessions(), func(s bgp.Session) bool { return s.State == bgp.Established }) {
		close(l.drain.done)
		return
	}
	l.drain.stopping = true
	l.nextFull = time.Time{}
	l.s.inputs.touchAll()
}

// drained closes done when the longest drain time is over.
func (l *loop) drained() {
	d := &l.drain
	if d.stopping && l.shared.Draining != nil && *l.shared.Draining >= l.longestDrain() {
		select {
		case <-d.done:
		default:
			close(d.done)
		}
	}
}

// drain makes the loop leave the segments and the routers, and waits until that is done or ctx ends. It must be called at
// most once.
func (s *Speaker) drain(ctx context.Context) {
	if !s.ready.Load() {
		return // Nothing has been announced.
	}
	close(s.loop.stop)
	select {
	case <-s.loop.drain.done:
	case <-ctx.Done():
	}
}
