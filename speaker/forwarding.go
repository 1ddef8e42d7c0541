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
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
)

const (
	// forwardingPatience is how long an address waits for kube-proxy at most. By default, kube-proxy writes its rules once a
	// second.
	forwardingPatience = 3 * time.Second
	// doubtedPatience is the same limit for an address that kube-proxy has said it does not forward.
	doubtedPatience = 10 * time.Second
	// vainWaits is how many waits in a row, each begun after the end of the one before, may end without one reading of kube-proxy's metrics.
	// After that no address waits until they can be read again. A restart of kube-proxy takes less time.
	vainWaits = 3
	// forwardingPeriod is how often kube-proxy is asked while an address waits.
	forwardingPeriod = 50 * time.Millisecond
	// kube-proxy hears of a change at most heardWithin after this speaker, and at most heardSurelyWithin after it on a node whose
	// processors are busy.
	heardWithin       = 100 * time.Millisecond
	heardSurelyWithin = 500 * time.Millisecond
	// quietAfter is the time after the end of a write within which kube-proxy has begun the next one, if it has heard of
	// changes. By default, kube-proxy begins after a second.
	quietAfter = 1250 * time.Millisecond
	// kube-proxy measures the duration of a write up to measuredWithin beyond the end that it records.
	measuredWithin = 2 * time.Millisecond
)

// forwarding holds back the addresses that this node has just become able to deliver until the node's kube-proxy has written
// rules for them. If they were announced earlier, clients would send their traffic to a node that does not forward it.
//
// kube-proxy's metrics tell when it last heard of a change, when it last finished writing its rules, and how long that took.
// A write includes the changes that kube-proxy had heard of when the write began. (Its gauges of pending changes are of no
// use: each IP family resets those of the other.) If kube-proxy has no such metrics, or has lost them, no address waits for it.
type forwarding struct {
	url string // empty: nothing waits
	log *zap.Logger
	// released is called with the addresses that do not wait any more.
	released func([]netip.Addr)
	// wake gets a value when the first address waits; capacity one.
	wake chan struct{}

	mu      sync.Mutex
	told    bool      // whether kube-proxy's metrics could be read
	vain    int       // how many waits have ended in vain since they were read last
	ended   time.Time // when the last of these waits ended
	waiting map[netip.Addr]*wait

	waits   prometheus.Histogram
	expired prometheus.Counter
}

// wait is the state of an address that waits.
type wait struct {
	since time.Time
	heard time.Time // when kube-proxy has heard of the address at the latest
	slow  bool      // whether kube-proxy was slow to answer, which heard takes into account
	first *written  // the first state that kube-proxy told since the wait began

	ports   healthPorts
	asked   uint64    // how often kube-proxy had written its rules when it was last asked on the ports
	doubted bool      // whether kube-proxy has said that it does not forward the address
	mute    time.Time // when kube-proxy, after it had doubted, stopped answering on the ports; zero: it answers
}

func newForwarding(url string, log *zap.Logger, released func([]netip.Addr)) *forwarding {
	return &forwarding{
		url: url, log: log, released: released, wake: make(chan struct{}, 1), waiting: map[netip.Addr]*wait{},
		waits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "herald", Subsystem: "speaker", Name: "forwarding_wait_seconds",
			Help:    "How long addresses that this node became able to deliver waited for its kube-proxy to write its rules.",
			Buckets: []float64{0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 10},
		}),
		expired: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "herald", Subsystem: "speaker", Name: "forwarding_wait_expired_total",
			Help: "Addresses that were announced after the limit of the wait, although kube-proxy had not said that it had written rules for them.",
		}),
	}
}

// await makes an address wait until kube-proxy has written rules with the change that this speaker heard of at since. If
// others deliver the address, there is no hurry, and kube-proxy gets more time to hear of the change. If there are ports,
// kube-proxy is asked on them after each write.
func (f *forwarding) await(address netip.Addr, since time.Time, othersDeliver bool, ports healthPorts) {
	if f.url == "" {
		return
	}
	within := heardWithin
	if othersDeliver {
		within = heardSurelyWithin
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting[address] = &wait{since: since, heard: since.Add(within), ports: ports}
	pull(f.wake)
}

// forget ends the wait of an address that this node does not deliver any more. It reports whether the address waited.
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

// says returns whether this node's kube-proxy forwards an address: no while the address waits, and forwards after that. It is
// unknown if kube-proxy's metrics are not read.
func (f *forwarding) says(address netip.Addr) answer {
	switch {
	case f.isWaiting(address):
		return no
	case f.url == "":
		return unknown
	}
	return forwards
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
	ports := newHealthPortClient()
	return f.follow(ctx, func() (proxyState, error) { return readProxyState(ctx, client, f.url) },
		func(ctx context.Context, h healthPorts) answer { return h.ask(ctx, ports) })
}

func (f *forwarding) follow(ctx context.Context, read func() (proxyState, error), ask func(context.Context, healthPorts) answer) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.wake:
		}
		for !f.idle() {
			asked := time.Now()
			state, err := read()
			answered := time.Now()
			f.release(asked, answered, state, err, askAll(ctx, f.questions(asked, state), ask))
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(forwardingPeriod):
			}
		}
	}
}

// askAll asks kube-proxy on all these ports. It has the same timeout as the request for the metrics. Answers that are missing
// by then are unknown.
func askAll(ctx context.Context, questions map[netip.Addr]healthPorts, ask func(context.Context, healthPorts) answer) map[netip.Addr]answer {
	ctx, end := context.WithTimeout(ctx, forwardingPatience/4)
	defer end()
	var g errgroup.Group
	g.SetLimit(healthPortRequests)
	var mu sync.Mutex
	all := map[netip.Addr]answer{}
	for address, ports := range questions {
		g.Go(func() error {
			said := unknown
			if ctx.Err() == nil {
				said = ask(ctx, ports)
			}
			mu.Lock()
			defer mu.Unlock()
			all[address] = said
			return nil
		})
	}
	_ = g.Wait()
	return all
}

// questions returns the addresses for which to ask kube-proxy on its health ports: once after each write that has ended since
// the wait began. If no write ends within heardSurelyWithin, kube-proxy may have written before the wait began, and is asked
// then. If kube-proxy has said that it does not forward, and then does not answer, it is asked again.
func (f *forwarding) questions(asked time.Time, state proxyState) map[netip.Addr]healthPorts {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[netip.Addr]healthPorts{}
	for address, w := range f.waiting {
		now, told := state.of(address)
		if !told || len(w.ports.ports) == 0 {
			continue
		}
		if w.first == nil {
			w.first = &now
		}
		if (now.times != w.first.times || asked.Sub(w.since) > heardSurelyWithin) && w.asked != now.times {
			w.asked, all[address] = now.times, w.ports
		}
	}
	return all
}

// release ends the waits that are over according to kube-proxy's answers. A kube-proxy that was slow to answer may have been
// equally slow to hear of changes. When it answers again, it gets the time to hear of them. If it is always slow, it gets this
// time only once.
func (f *forwarding) release(asked, answered time.Time, state proxyState, err error, said map[netip.Addr]answer) {
	f.mu.Lock()
	if err == nil {
		f.vain = 0
		if !f.told {
			f.log.Info("kube-proxy reports when it has written its rules", zap.String("url", f.url))
		}
		f.told = true
	}
	var all, late []netip.Addr
	var e net.Error
	tells := f.vain < vainWaits && (f.told || errors.As(err, &e) && e.Timeout())
	for address, w := range f.waiting {
		if asked.Before(w.since) {
			continue // The answers belong to an earlier wait.
		}
		if slow := answered.Sub(asked) > heardWithin/2; err != nil || slow && !w.slow {
			w.slow = err == nil
			if heard := answered.Add(heardWithin); heard.After(w.heard) {
				w.heard = heard
			}
		}
		w.doubted = w.doubted || said[address] == no
		switch now, is := said[address]; {
		case is && now == unknown && w.doubted:
			w.asked = 0
			if w.mute.IsZero() {
				w.mute = asked
			}
		case is:
			w.mute = time.Time{}
		}
		ready := err == nil && (said[address] == forwards || !w.doubted && w.over(asked, state, address))
		patience := forwardingPatience
		if w.doubted && (w.mute.IsZero() || asked.Sub(w.mute) < forwardingPatience) {
			patience = doubtedPatience
		}
		if !ready && tells && asked.Sub(w.since) < patience {
			continue
		}
		if !ready {
			late = append(late, address)
			if err != nil && tells && !w.since.Before(f.ended) {
				f.vain++
				f.ended = answered
			}
		}
		f.waits.Observe(max(0, asked.Sub(w.since)).Seconds())
		all = append(all, address)
		delete(f.waiting, address)
	}
	lost := f.told && f.vain >= vainWaits
	if lost {
		f.told = false
	}
	f.mu.Unlock()
	if lost {
		f.log.Warn("kube-proxy no longer reports when it has written its rules: until it does, no address waits for it",
			zap.String("url", f.url), zap.Error(err))
	}
	if len(late) > 0 {
		f.expired.Add(float64(len(late)))
		f.log.Info("kube-proxy has not reported that it forwards these addresses: announcing them without its report",
			zap.Stringer("first", late[0]), zap.Int("addresses", len(late)), zap.String("url", f.url), zap.Error(err))
	}
	if len(all) > 0 {
		f.released(all)
	}
}

// over reports whether kube-proxy has written rules for the address. All times are from this machine's wall clock.
func (w *wait) over(asked time.Time, state proxyState, address netip.Addr) bool {
	now, told := state.of(address)
	if !told {
		return true // kube-proxy has no rules of this family.
	}
	if w.first == nil {
		w.first = &now
	}
	if !asked.After(w.heard) {
		return false
	}
	if !now.ended.Before(now.queued) && asked.Sub(now.ended) > quietAfter+now.longest {
		return true // A write that had begun would have ended.
	}
	if now.times == w.first.times {
		return false // No write has ended since the wait began.
	}
	// The last write began no earlier than this, and includes the changes that kube-proxy had heard of by then.
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
