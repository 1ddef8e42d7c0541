package speaker

import (
	"context"
	"time"

	"github.com/heraldlb/herald/speaker/link"
)

// absence notices that this node was away from its addresses: that it slept, or had no link to a segment
// on which it answers. Who was away for long, see [freshness.deaf], has been replaced, and does not know
// by whom. A node that was only cut off from the API server is not away: it goes on.
type absence struct {
	nap    time.Duration
	turned time.Time       // when it was last looked at
	lost   map[string]bool // links that are down on which this node answered
	up     map[string]bool // links that were up
}

// nap is how long the process may sleep without looking whether anybody stood in for it. Whoever was
// heard within two thirds of a Lease may sleep for the last third.
func nap(lease time.Duration) time.Duration { return lease / 3 }

func newAbsence(lease time.Duration) absence {
	return absence{nap: nap(lease), lost: map[string]bool{}}
}

// over reports whether an absence has just ended. used names the links on which this node answers, and
// is asked only if one went down.
func (a *absence) over(now time.Time, links []link.Interface, used func() map[string]bool) bool {
	over := !a.turned.IsZero() && now.Sub(a.turned) > a.nap
	a.turned = now
	up := map[string]bool{}
	for _, l := range links {
		if !l.Up {
			continue
		}
		up[l.Name] = true
		if a.lost[l.Name] {
			delete(a.lost, l.Name)
			over = true
		}
	}
	for name := range a.up {
		if !up[name] && used()[name] {
			a.lost[name] = true
		}
	}
	a.up = up
	return over
}

// usedLinks are those on which this node answers for an address.
func (l *loop) usedLinks() map[string]bool {
	used := map[string]bool{}
	for _, d := range l.decisions {
		for _, name := range d.Interfaces {
			used[name] = true
		}
	}
	return used
}

// listenAnew has everything listed once more, over new connections: watches catch up one by one, at
// their own pace, and none says when it has. Until all have been listed, nothing is answered for on the
// segment.
func (l *loop) listenAnew(ctx context.Context) error {
	l.s.log.Info("this node was away: it answers for nothing on the segment until it has heard what happened meanwhile")
	if l.pending != nil {
		l.pending.stop() // It may have been listed before this absence.
	}
	in, err := l.s.newInputs()
	if err != nil {
		return err
	}
	if l.s.config.Reconnect != nil {
		l.s.config.Reconnect()
	}
	in.start(ctx)
	l.pending = in
	return nil
}

// listenTo ends an absence: what is decided from now on rests on what was listed after it.
func (l *loop) listenTo(in *inputs) {
	l.s.log.Info("this node has heard what happened while it was away")
	before := l.s.in()
	l.s.inputs.Store(in)
	l.pending = nil
	in.touchEverything()
	before.stop()
}
