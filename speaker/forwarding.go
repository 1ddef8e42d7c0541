package speaker

import (
	"encoding/json"
	"io"
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
	// maxHealth is the size of an answer of kube-proxy's /healthz that is read.
	maxHealth = 64 << 10
)

// forwarding holds the addresses that this node has just become able to deliver until the node's kube-proxy has written
// its rules since. Announced before, they would lead clients to a node that does not forward what they send.
//
// kube-proxy tells for each family when it wrote its rules last (status in /healthz, since Kubernetes 1.33). One that
// does not tell holds nothing up.
type forwarding struct {
	log *zap.Logger
	// forwards is called with addresses that do not wait any more.
	forwards func([]netip.Addr)
	// wake gets a value when the first address waits; capacity one.
	wake chan struct{}

	mu      sync.Mutex
	written map[corev1.IPFamily]time.Time
	waiting map[netip.Addr]time.Time // since when

	waits   prometheus.Histogram
	expired prometheus.Counter
}

func newForwarding(log *zap.Logger, forwards func([]netip.Addr)) *forwarding {
	return &forwarding{
		log: log, forwards: forwards, wake: make(chan struct{}, 1), waiting: map[netip.Addr]time.Time{},
		waits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "herald", Subsystem: "speaker", Name: "forwarding_wait_seconds",
			Help:    "How long addresses that this node became able to deliver waited for its kube-proxy to write its rules.",
			Buckets: []float64{0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 3},
		}),
		expired: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "herald", Subsystem: "speaker", Name: "forwarding_wait_expired_total",
			Help: "Addresses that were announced although kube-proxy did not say in time that it had written its rules.",
		}),
	}
}

// await has an address wait until kube-proxy has written its rules after since.
func (f *forwarding) await(address netip.Addr, since time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, told := f.written[familyOf(address)]; told {
		f.waiting[address] = since
		pull(f.wake)
	}
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

// take reads an answer of /healthz.
func (f *forwarding) take(body io.Reader) {
	var health struct {
		Status map[corev1.IPFamily]struct {
			LastUpdated time.Time `json:"lastUpdated"`
		} `json:"status"`
	}
	told := json.NewDecoder(io.LimitReader(body, maxHealth)).Decode(&health) == nil
	f.mu.Lock()
	defer f.mu.Unlock()
	f.written = map[corev1.IPFamily]time.Time{}
	if !told {
		return // Another program's answer, such as that of a replacement for kube-proxy.
	}
	for family, s := range health.Status {
		f.written[family] = s.LastUpdated
	}
}

// release ends the waits that are over.
func (f *forwarding) release(now time.Time) {
	f.mu.Lock()
	var all, late []netip.Addr
	for address, since := range f.waiting {
		// Both are times of this machine's wall clock.
		ready := f.written[familyOf(address)].After(since)
		if !ready && now.Sub(since) < forwardingPatience {
			continue
		}
		if !ready {
			late = append(late, address)
		}
		f.waits.Observe(now.Sub(since).Seconds())
		all = append(all, address)
		delete(f.waiting, address)
	}
	f.mu.Unlock()
	if len(late) > 0 {
		f.expired.Add(float64(len(late)))
		f.log.Info("kube-proxy has not said that it forwards addresses, which are announced all the same",
			zap.Stringer("first", late[0]), zap.Int("addresses", len(late)), zap.Duration("after", forwardingPatience))
	}
	if len(all) > 0 {
		f.forwards(all)
	}
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
