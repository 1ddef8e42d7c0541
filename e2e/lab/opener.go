package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// attemptTimeout is how long an attempt of an [Opener] may take. It is less than a second, after which the kernel
// sends a lost SYN again (RFC 6298, section 2.1): an attempt that an outage hits fails, and is not merely late.
const attemptTimeout = 250 * time.Millisecond

// Attempt is one request over a connection of its own.
type Attempt struct {
	Start, End time.Time
	Node       string // That answered.
	Err        error
	// Stalled is the longest time in which this process did not run meanwhile, as far as it is more than twice stallPeriod. The
	// timeout of an attempt goes on in that time, and so do the kernels.
	Stalled time.Duration
	// lost is for how long, in all such times before the start, this process did not run.
	lost time.Duration
}

// Attempts are in the order of their starts.
type Attempts []Attempt

// Opener opens connections again and again, to measure for how long a target cannot be reached.
type Opener struct {
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu     sync.Mutex
	made   Attempts
	ran    time.Time
	stalls []stall
	lost   time.Duration // All stalls together.
}

// stall is a time in which this process did not run.
type stall struct{ from, to time.Time }

// stallPeriod is how often an [Opener] looks whether its process runs.
const stallPeriod = 20 * time.Millisecond

// look notes that this process runs. It returns the time, and for how long it has not run until then.
func (o *Opener) look() (now time.Time, lost time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now = time.Now()
	if !o.ran.IsZero() && now.Sub(o.ran) > 2*stallPeriod {
		o.stalls = append(o.stalls, stall{o.ran, now})
		o.lost += now.Sub(o.ran)
	}
	o.ran = now
	return now, o.lost
}

// Open opens a new connection to the target at the given interval and asks the app there once, until Stop is called
// or ctx ends. Attempts do not wait for one another. Each fails after the client's Timeout, or after 250 ms if
// that is 0.
func (c *Client) Open(ctx context.Context, target string, every time.Duration) *Opener {
	from := *c
	from.Timeout = cmp.Or(c.Timeout, attemptTimeout)
	starting, cancel := context.WithCancel(ctx)
	o := &Opener{cancel: cancel}
	o.work.Go(func() {
		ticker := time.NewTicker(stallPeriod)
		defer ticker.Stop()
		for {
			o.look()
			select {
			case <-starting.Done():
				return
			case <-ticker.C:
			}
		}
	})
	o.work.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			o.work.Go(func() { o.attempt(ctx, &from, target) })
			select {
			case <-starting.Done():
				return
			case <-ticker.C:
			}
		}
	})
	return o
}

func (o *Opener) attempt(ctx context.Context, c *Client, target string) {
	var a Attempt
	a.Start, a.lost = o.look()
	reply, err := c.Get(ctx, target)
	if err != nil && ctx.Err() != nil {
		return // Given up, not failed.
	}
	a.End, _ = o.look()
	a.Node, a.Err = reply.Node, err
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.stalls {
		if s.to.After(a.Start) && s.from.Before(a.End) {
			a.Stalled = max(a.Stalled, s.to.Sub(s.from))
		}
	}
	o.made = append(o.made, a)
}

// Stop starts no more attempts, waits for those under way, and returns all.
func (o *Opener) Stop() Attempts {
	o.cancel()
	o.work.Wait()
	slices.SortFunc(o.made, func(a, b Attempt) int { return a.Start.Compare(b.Start) })
	return o.made
}

// Failed counts the attempts that got no answer.
func (a Attempts) Failed() (n int) {
	for _, one := range a {
		if one.Err != nil {
			n++
		}
	}
	return n
}

// Errors are those of the attempts that failed, with their starts.
func (a Attempts) Errors() (errs []string) {
	for _, one := range a {
		if one.Err != nil {
			what := fmt.Sprintf("%s: after %v: %v", one.Start.Format("15:04:05.000"), one.End.Sub(one.Start).Round(time.Millisecond), one.Err)
			if one.Stalled > 0 {
				what += fmt.Sprintf(" (this process did not run for %v meanwhile)", one.Stalled.Round(time.Millisecond))
			}
			errs = append(errs, what)
		}
	}
	return errs
}

// ByNode counts the answers of each node.
func (a Attempts) ByNode() map[string]int {
	by := map[string]int{}
	for _, one := range a {
		if one.Err == nil {
			by[one.Node]++
		}
	}
	return by
}

// Gap is the longest time between the starts of two successful attempts with no successful one between them: how long
// nobody could open a connection. It is never much below the interval of the attempts. The first and the last attempt
// count as if they were successful, so an outage that has not ended by then is counted as far as it was seen.
func (a Attempts) Gap() (longest time.Duration) {
	return a.longest(func(from, to Attempt) time.Duration { return to.Start.Sub(from.Start) })
}

// SeenGap is Gap without the time in which this process did not run, and so saw nothing: nobody could open a connection for
// as long at least, however busy the machine was.
func (a Attempts) SeenGap() (longest time.Duration) {
	return a.longest(func(from, to Attempt) time.Duration { return to.Start.Sub(from.Start) - (to.lost - from.lost) })
}

// longest measures from each successful attempt to the next one. The first and the last attempt count as successful.
func (a Attempts) longest(between func(from, to Attempt) time.Duration) (longest time.Duration) {
	if len(a) == 0 {
		return 0
	}
	last := a[0]
	for i, one := range a {
		if one.Err == nil || i == len(a)-1 {
			longest = max(longest, between(last, one))
			last = one
		}
	}
	return longest
}

// Durations are how long the successful attempts took.
func (a Attempts) Durations() (took Durations) {
	for _, one := range a {
		if one.Err == nil {
			took = append(took, one.End.Sub(one.Start))
		}
	}
	return took
}

func (a Attempts) String() string {
	return fmt.Sprintf("%d attempts, %d failed, gap %v", len(a), a.Failed(), a.Gap().Round(time.Millisecond))
}

// Durations are measurements of one thing.
type Durations []time.Duration

// Percentile returns the smallest duration that p percent are not above; 0 if there are none.
func (d Durations) Percentile(p float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(d))
	rank := int(math.Ceil(p / 100 * float64(len(d))))
	return sorted[min(max(rank, 1), len(d))-1]
}

func (d Durations) String() string {
	round := func(p float64) time.Duration { return d.Percentile(p).Round(100 * time.Microsecond) }
	return fmt.Sprintf("p50=%v p99=%v max=%v n=%d", round(50), round(99), round(100), len(d))
}

// ErrNotOver says that an outage had not ended when the measurement had to.
var ErrNotOver = errors.New("the outage is not over")

// Outage opens connections to every target, brings the fault about, goes on for the time to settle and until all
// targets answer, and returns the longest gap of any target and how many attempts failed. If ctx ends first, the error
// is ErrNotOver.
//
// One target is asked every 10 ms. Several are asked less often, so that all together are asked 500 times a second at
// most and the asking itself takes no processor from what is measured: 20 targets every 40 ms each. A gap is never below
// that interval.
func Outage(ctx context.Context, c *Client, targets []string, fault func() error, settle time.Duration) (gap time.Duration, failed int, err error) {
	answered := func() error {
		for _, t := range targets {
			if _, err := c.Eventually(ctx, t, nil); err != nil {
				return err
			}
		}
		return nil
	}
	if err := answered(); err != nil {
		return 0, 0, fmt.Errorf("before the fault: %w", err)
	}
	every := max(10*time.Millisecond, time.Duration(len(targets))*2*time.Millisecond)
	var openers []*Opener
	for _, t := range targets {
		openers = append(openers, c.Open(ctx, t, every))
		// Not all ask at the same moment.
		err = errors.Join(err, pause(ctx, every/time.Duration(len(targets))))
	}
	if err = errors.Join(err, pause(ctx, 10*every)); err == nil {
		if err = errors.Join(fault(), pause(ctx, settle)); err == nil {
			if err = answered(); err != nil {
				err = fmt.Errorf("%w: %w", ErrNotOver, err)
			}
		}
	}
	err = errors.Join(err, pause(ctx, 2*every)) // The openers have seen the end, too.
	for _, o := range openers {
		made := o.Stop()
		failed += made.Failed()
		gap = max(gap, made.Gap())
	}
	return gap, failed, err
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
