package lab

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Probe asks again and again and keeps account, to tell how long a failover took.
type Probe struct {
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu      sync.Mutex
	started time.Time
	sent    int
	good    []time.Time // When requests that were answered were sent; not in order.
	failed  []string    // What was said, and when.
	by      map[string]int
}

// ProbeReport is the account of a [Probe].
type ProbeReport struct {
	// Requests that were sent and came to an end, and how many of them failed.
	Requests, Failures int
	// Errors are those of the failures, with the times of the requests.
	Errors []string
	// LongestGap is the longest time without a request that was answered. It counts between the
	// moments of sending, so it is what a user would have had to wait; it is never below the
	// probe's interval.
	LongestGap time.Duration
	// ByNode counts the answers of each node.
	ByNode map[string]int
}

func (r ProbeReport) String() string {
	return fmt.Sprintf("%d requests, %d failed, longest gap %v", r.Requests, r.Failures, r.LongestGap.Round(time.Millisecond))
}

// Probe asks the target at the given interval until Stop is called or ctx ends. Requests do not
// wait for one another, so that one that hangs does not hide that the next would be answered.
func (c *Client) Probe(ctx context.Context, target string, every time.Duration) *Probe {
	ctx, cancel := context.WithCancel(ctx)
	p := &Probe{cancel: cancel, started: time.Now(), by: map[string]int{}}
	p.work.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			p.work.Go(func() { p.ask(ctx, c, target) })
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	})
	return p
}

func (p *Probe) ask(ctx context.Context, c *Client, target string) {
	sent := time.Now()
	reply, err := c.Get(ctx, target)
	if err != nil && ctx.Err() != nil {
		return // Given up, not failed.
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent++
	if err != nil {
		p.failed = append(p.failed, fmt.Sprintf("%s: %v", sent.Format("15:04:05.000"), err))
		return
	}
	p.good = append(p.good, sent)
	p.by[reply.Node]++
}

// Stop ends the probe and returns its account.
func (p *Probe) Stop() ProbeReport {
	p.cancel()
	p.work.Wait()
	return ProbeReport{
		Requests: p.sent, Failures: len(p.failed), Errors: p.failed, ByNode: p.by,
		LongestGap: longestGap(p.started, p.good, time.Now()),
	}
}

// longestGap is the longest time between neighbours among start, the times and end.
func longestGap(start time.Time, times []time.Time, end time.Time) (longest time.Duration) {
	all := append([]time.Time{start, end}, times...)
	slices.SortFunc(all, time.Time.Compare)
	for i := 1; i < len(all); i++ {
		longest = max(longest, all[i].Sub(all[i-1]))
	}
	return longest
}
