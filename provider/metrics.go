package provider

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/heraldlb/herald/ipam"
)

// allocationMetrics measure how Services that ask for addresses fare.
type allocationMetrics struct {
	duration prometheus.Histogram
	failures *prometheus.CounterVec
}

func newAllocationMetrics() *allocationMetrics {
	m := &allocationMetrics{
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "herald_allocation_duration_seconds", Help: "Time to choose and record the addresses of a Service that did not have these addresses before.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "herald_allocation_failures_total", Help: "Services that were refused an address, by reason; each once in ten minutes at most while nothing changes.",
		}, []string{"reason"}),
	}
	for _, r := range failureReasons {
		m.failures.WithLabelValues(r.label) // so that a rate starts at zero
	}
	m.failures.WithLabelValues(failedAPI)
	return m
}

// failedAPI is the reason for failures that no user can fix: the API server did not accept a record.
const failedAPI = "api"

var failureReasons = []struct {
	label string
	err   error
}{
	{"exhausted", ipam.ErrExhausted}, {"taken", ipam.ErrTaken}, {"not_in_pool", ipam.ErrNotInPool}, {"not_granted", ipam.ErrNotGranted},
	{"no_pool", ipam.ErrNoPool}, {"quota", ipam.ErrQuota}, {"skipped", ipam.ErrSkipped}, {"invalid", ipam.ErrInvalid},
}

// failed counts a refusal.
func (m *allocationMetrics) failed(err error) {
	for _, r := range failureReasons {
		if errors.Is(err, r.err) {
			m.failures.WithLabelValues(r.label).Inc()
			return
		}
	}
	m.failures.WithLabelValues(failedAPI).Inc()
}

// poolCollector collects metrics about the use of pools. It counts on each collection, at a cost proportional
// to the number of pools and of addresses that cool down.
type poolCollector struct {
	pools  func() []string
	ledger *ledger
	// quota returns the limits of a namespace for all pools together.
	quota func(namespace string) ipam.Limits
}

var (
	poolCapacity  = poolGauge("capacity", "Addresses that the pool holds, without those that an older pool has.")
	poolAssigned  = poolGauge("assigned", "Addresses in use by Services, or reserved.")
	poolCooling   = poolGauge("cooling", "Addresses whose Service is gone and that wait for the pool's reuseDelay to pass.")
	poolAvailable = poolGauge("available", "Addresses that can be given out now.")

	quotaLimit = quotaGauge("limit", "Addresses that the namespace may hold of the pool or, without a pool, of all.")
	quotaUsed  = quotaGauge("used", "Addresses that the namespace holds, for every namespace that has a quota and holds any.")
)

func quotaGauge(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName("herald", "quota", name), help, []string{"pool", "namespace", "family"}, nil)
}

func poolGauge(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName("herald", "pool", name), help, []string{"pool", "family"}, nil)
}

// Describe implements prometheus.Collector.
func (c poolCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{poolCapacity, poolAssigned, poolCooling, poolAvailable, quotaLimit, quotaUsed} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (c poolCollector) Collect(metrics chan<- prometheus.Metric) {
	pools := c.pools()
	uses := c.ledger.use(pools)
	for _, pool := range pools {
		u := uses[pool]
		for _, f := range []ipam.Family{ipam.IPv4, ipam.IPv6} {
			usage := u.family(f)
			if usage == nil {
				continue
			}
			for _, g := range []struct {
				desc  *prometheus.Desc
				value int64
			}{{poolCapacity, usage.Capacity}, {poolAssigned, usage.Assigned}, {poolCooling, usage.Cooling}, {poolAvailable, usage.Available}} {
				metrics <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, float64(g.value), pool, f.String())
			}
		}
	}
	for _, u := range c.ledger.quotas(c.quota) {
		for desc, value := range map[*prometheus.Desc]uint64{quotaLimit: u.Limit, quotaUsed: u.Used} {
			metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), u.Pool, u.Namespace, u.Family.String())
		}
	}
}

// stateCollector collects metrics about waiting Services and conflicts. It counts on each collection.
type stateCollector struct {
	services  *services
	conflicts *conflicts
}

var (
	servicesPending  = prometheus.NewDesc("herald_services_pending", "Services that want an address of this herald-ccm and have none.", nil, nil)
	addressConflicts = prometheus.NewDesc("herald_address_conflicts", "Addresses that are also used by machines that are not speakers.", nil, nil)
)

// Describe implements prometheus.Collector.
func (stateCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- servicesPending
	descs <- addressConflicts
}

// Collect implements prometheus.Collector.
func (c stateCollector) Collect(metrics chan<- prometheus.Metric) {
	metrics <- prometheus.MustNewConstMetric(servicesPending, prometheus.GaugeValue, float64(c.services.pending()))
	metrics <- prometheus.MustNewConstMetric(addressConflicts, prometheus.GaugeValue, float64(c.conflicts.count(time.Now())))
}
