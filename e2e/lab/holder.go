package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// exchangeEvery is the interval of the requests of a [Holder] on each of its connections.
const exchangeEvery = 50 * time.Millisecond

// Holder keeps connections open and sends requests on them.
type Holder struct {
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu     sync.Mutex
	report HoldReport
}

// HoldReport describes what happened to the connections of a [Holder].
type HoldReport struct {
	Connections int
	// Broken is the number of connections that were reset or closed, and Errors has their errors.
	Broken int
	Errors []error
	// Exchanges is the number of answered requests on all connections.
	Exchanges int
	// LongestStall is the longest time that any connection waited for an answer. If a connection was still waiting
	// at the end, its waiting time until then counts.
	LongestStall time.Duration
}

func (r HoldReport) String() string {
	return fmt.Sprintf("%d connections, %d broken, %d exchanges, longest stall %v", r.Connections, r.Broken, r.Exchanges, r.LongestStall.Round(time.Millisecond))
}

// Hold opens n connections to the app at the target. It sends a request on each every 50 ms until Stop is called or
// ctx ends. It returns when all connections are open.
func (c *Client) Hold(ctx context.Context, target string, n int) (*Holder, error) {
	var conns []net.Conn
	for range n {
		conn, err := c.Dial(ctx, "tcp", target)
		if err != nil {
			for _, opened := range conns {
				err = errors.Join(err, opened.Close())
			}
			return nil, fmt.Errorf("from %s: %w", c.Host.Name, err)
		}
		conns = append(conns, conn)
	}
	ctx, cancel := context.WithCancel(ctx)
	h := &Holder{cancel: cancel, report: HoldReport{Connections: n}}
	for i, conn := range conns {
		h.work.Go(func() {
			defer conn.Close()
			// The connections do not all send at the same moment.
			if pause(ctx, exchangeEvery*time.Duration(i)/time.Duration(n)) == nil {
				h.use(ctx, conn, target)
			}
		})
	}
	return h, nil
}

func (h *Holder) use(ctx context.Context, conn net.Conn, target string) {
	ticker := time.NewTicker(exchangeEvery)
	defer ticker.Stop()
	reader := bufio.NewReader(conn)
	for {
		began := time.Now()
		_, err := exchange(ctx, conn, reader, target, false)
		broken := err != nil && ctx.Err() == nil
		h.mu.Lock()
		h.report.LongestStall = max(h.report.LongestStall, time.Since(began))
		switch {
		case broken:
			h.report.Broken++
			h.report.Errors = append(h.report.Errors, fmt.Errorf("%v: %w", conn.LocalAddr(), err))
		case err == nil:
			h.report.Exchanges++
		}
		h.mu.Unlock()
		if err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Stop closes the connections and returns the report.
func (h *Holder) Stop() HoldReport {
	h.cancel()
	h.work.Wait()
	return h.report
}
