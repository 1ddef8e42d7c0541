package speaker

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
)

const (
	// forwardingPatience is how long an address waits for kube-proxy at most. kube-proxy writes its rules once a second
	// unless it is told otherwise.
	forwardingPatience = 3 * time.Second
	// forwardingPeriod is how often kube-proxy is asked while an address waits.
	forwardingPeriod = 50 * time.Millisecond
	// heardWithin is how much later than this speaker kube-proxy may hear of a change.
	heardWithin = 100 * time.Millisecond
	// quietAfter is how long after the end of a write kube-proxy has nothing to write that it has heard of: the next write
	// begins within a second, unless it is told otherwise, and has had time to end.
	quietAfter = 1500 * time.Millisecond
	// measuredWithin is how much longer than until its end a write may be measured to take.
	measuredWithin = 2 * time.Millisecond
)

// forwarding holds the addresses that this node has just become able to deliver until the node's kube-proxy has written
// rules that have them. Announced before, they would lead clients to a node that does not forward what they send.
//
// kube-proxy's metrics tell when it last heard of a change, when it last ended to write its rules, and how long that took.
// A write has what kube-proxy had heard of when the write began. (Its gauges of pending changes do not tell: one family
// resets those of the other.) A kube-proxy that does not tell holds nothing up.
type forwarding struct {
	url string // empty: nothing waits
	log *zap.Logger
	// forwards is called with addresses that do not wait any more.
	forwards func([]netip.Addr)
	// wake gets a value when the first address waits; capacity one.
	wake chan struct{}

	mu      sync.Mutex
	told    bool // kube-proxy has told what is read here
	waiting map[netip.Addr]*wait

	waits   prometheus.Histogram
	expired prometheus.Counter
}

// wait is what is known of an address that waits.
type wait struct {
	since time.Time
	heard time.Time // by then kube-proxy has heard of it, too
	first *written  // what kube-proxy told first since then
}

func newForwarding(url string, log *zap.Logger, forwards func([]netip.Addr)) *forwarding {
	return &forwarding{
		url: url, log: log, forwards: forwards, wake: make(chan struct{}, 1), waiting: map[netip.Addr]*wait{},
		waits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "herald", Subsystem: "speaker", Name: "forwarding_wait_seconds",
			Help:    "How long addresses that this node became able to deliver waited for its kube-proxy to write its rules.",
			Buckets: []float64{0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 3},
		}),
		expired: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "herald", Subsystem: "speaker", Name: "forwarding_wait_expired_total",
			Help: "Addresses that were announced although kube-proxy did not say that it had written rules that have them.",
		}),
	}
}

// await has an address wait until kube-proxy has written rules that have what this speaker heard of at since.
func (f *forwarding) await(address netip.Addr, since time.Time) {
	if f.url == "" {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting[address] = &wait{since: since, heard: since.Add(heardWithin)}
	pull(f.wake)
}

// forget ends the wait for an address that this node does not deliver any more. It reports whether it waited.
func (f *forwarding) forget(address netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, waiting := f.waiting[address]
	delete(f.waiting, address)
	return waiting
}

// isWaiting reports whether an address waits.
func (f *forwarding) isWaiting(address netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, waiting := f.waiting[address]
	return waiting
}

func (f *forwarding) idle() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.waiting) == 0
}

// run asks kube-proxy while addresses wait, until ctx ends.
func (f *forwarding) run(ctx context.Context) error {
	if f.url == "" {
		return nil
	}
	client := &http.Client{Timeout: forwardingPatience / 4, Transport: &http.Transport{DisableKeepAlives: true}}
	return f.follow(ctx, func() (proxyState, error) { return readProxyState(ctx, client, f.url) })
}

func (f *forwarding) follow(ctx context.Context, read func() (proxyState, error)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.wake:
		}
		for !f.idle() {
			asked := time.Now()
			state, err := read()
			f.release(asked, time.Now(), state, err)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(forwardingPeriod):
			}
		}
	}
}

// release ends the waits that are over by what kube-proxy told when it was asked. A kube-proxy that was slow to answer may
// have been as slow to hear of changes.
func (f *forwarding) release(asked, answered time.Time, state proxyState, err error) {
	f.mu.Lock()
	if err == nil && !f.told {
		f.told = true
		f.log.Info("kube-proxy tells when it has written its rules", zap.String("url", f.url))
	}
	var all, late []netip.Addr
	var e net.Error
	tells := f.told || errors.As(err, &e) && e.Timeout()
	for address, w := range f.waiting {
		if err != nil || answered.Sub(asked) > heardWithin/2 {
			w.heard = answered.Add(heardWithin)
		}
		ready := err == nil && w.over(asked, state, address)
		if !ready && tells && asked.Sub(w.since) < forwardingPatience {
			continue
		}
		if !ready {
			late = append(late, address)
		}
		f.waits.Observe(max(0, asked.Sub(w.since)).Seconds())
		all = append(all, address)
		delete(f.waiting, address)
	}
	f.mu.Unlock()
	if len(late) > 0 {
		f.expired.Add(float64(len(late)))
		f.log.Info("kube-proxy has not said that it forwards addresses, which are announced all the same",
			zap.Stringer("first", late[0]), zap.Int("addresses", len(late)), zap.String("url", f.url), zap.Error(err))
	}
	if len(all) > 0 {
		f.forwards(all)
	}
}

// over reports whether kube-proxy has written rules that have the address. All times are of this machine's wall clock.
func (w *wait) over(asked time.Time, state proxyState, address netip.Addr) bool {
	now, told := state.of(address)
	if !told {
		return true // It has no rules of this family.
	}
	if w.first == nil {
		w.first = &now
	}
	if !asked.After(w.heard) {
		return false
	}
	if !now.ended.Before(now.queued) && asked.Sub(now.ended) > quietAfter {
		return true
	}
	if now.times == w.first.times {
		return false // No write has ended since the address waits.
	}
	// The last write began no earlier than this, and has what kube-proxy had heard of by then.
	began := now.ended.Add(w.first.took - now.took)
	return began.After(w.heard) || !began.Add(measuredWithin).Before(now.queued)
}

func familyOf(address netip.Addr) corev1.IPFamily {
	if address.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// Describe implements prometheus.Collector.
func (f *forwarding) Describe(c chan<- *prometheus.Desc) {
	f.waits.Describe(c)
	f.expired.Describe(c)
}

// Collect implements prometheus.Collector.
func (f *forwarding) Collect(c chan<- prometheus.Metric) {
	f.waits.Collect(c)
	f.expired.Collect(c)
}
