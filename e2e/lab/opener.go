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

// attemptTimeout bounds an attempt of an [Opener]. It is shorter than the second after which the kernel resends a
// lost SYN (RFC 6298, section 2.1): an attempt during an outage fails instead of being slow.
const attemptTimeout = 250 * time.Millisecond

// Attempt is one request on its own connection.
type Attempt struct {
	Start, End time.Time
	Node       string // The node that answered.
	Err        error
	// Stalled is the longest time during the attempt in which this process did not run. Only times longer than twice
	// stallPeriod count. The timeout of the attempt and the kernels continue during a stall.
	Stalled time.Duration
}

// Attempts is a list of attempts in the order of their starts.
type Attempts []Attempt

// Opener opens connections repeatedly to measure how long a target is unreachable.
type Opener struct {
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu     sync.Mutex
	made   Attempts
	ran    time.Time
	stalls []stall
}

// stall is a time in which this process did not run.
type stall struct{ from, to time.Time }

// stallPeriod is the interval at which an [Opener] records that its process runs.
const stallPeriod = 20 * time.Millisecond

// look records that this process runs.
func (o *Opener) look() {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if !o.ran.IsZero() && now.Sub(o.ran) > 2*stallPeriod {
		o.stalls = append(o.stalls, stall{o.ran, now})
	}
	o.ran = now
}

// Open opens a new connection to the target at the given interval and sends one request on it, until Stop is called
// or ctx ends. Attempts do not wait for one another. Each fails after the client's Timeout, or after 250 ms if
// Timeout is 0.
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
	a := Attempt{Start: time.Now()}
	reply, err := c.Get(ctx, target)
	if err != nil && ctx.Err() != nil {
		return // The attempt was cancelled. It did not fail.
	}
	o.look()
	a.End, a.Node, a.Err = time.Now(), reply.Node, err
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.stalls {
		if s.to.After(a.Start) && s.from.Before(a.End) {
			a.Stalled = max(a.Stalled, s.to.Sub(s.from))
		}
	}
	o.made = append(o.made, a)
}

// Stop ends the opening, waits for the running attempts, and returns all attempts.
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

// Errors returns the errors of the failed attempts, with their start times.
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

// Gap returns the longest time between the starts of two consecutive successful attempts: the time in which no
// connection could be opened. It is never much below the interval of the attempts. The first and the last attempt
// count as successful. An outage that has not ended by the last attempt therefore counts until then.
func (a Attempts) Gap() (longest time.Duration) {
	if len(a) == 0 {
		return 0
	}
	last := a[0].Start
	for i, one := range a {
		if one.Err == nil || i == len(a)-1 {
			longest = max(longest, one.Start.Sub(last))
			last = one.Start
		}
	}
	return longest
}

// Durations returns how long the successful attempts took.
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

// Durations is a series of measurements of the same quantity.
type Durations []time.Duration

// Percentile returns the smallest duration that at least p percent of the durations do not exceed, or 0 if there are
// no durations.
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

// ErrNotOver means that an outage had not ended at the end of the measurement.
var ErrNotOver = errors.New("the outage is not over")

// Outage opens connections to every target and causes the fault. It continues for the time settle and until all
// targets answer. It returns the longest gap of any target and the number of failed attempts. If ctx ends first, the
// error is ErrNotOver.
//
// Outage opens connections to a single target every 10 ms. With several targets it opens at most 500 connections a
// second in total, for example to each of 20 targets every 40 ms, to leave the CPU to the measured programs. A gap is
// never below that interval.
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
		// The openers do not all start at the same moment.
		err = errors.Join(err, pause(ctx, every/time.Duration(len(targets))))
	}
	if err = errors.Join(err, pause(ctx, 10*every)); err == nil {
		if err = errors.Join(fault(), pause(ctx, settle)); err == nil {
			if err = answered(); err != nil {
				err = fmt.Errorf("%w: %w", ErrNotOver, err)
			}
		}
	}
	err = errors.Join(err, pause(ctx, 2*every)) // The openers also make an attempt after the outage.
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
