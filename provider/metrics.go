package provider

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/heraldlb/herald/ipam"
)

// poolCollector tells the use of pools as Prometheus sees it. It counts when it is asked, in proportion to the
// pools and to the addresses that cool down.
type poolCollector struct {
	pools  func() []string
	ledger *ledger
}

var (
	poolCapacity  = poolGauge("capacity", "Addresses that the pool holds, without those that an older pool has.")
	poolAssigned  = poolGauge("assigned", "Addresses in use by Services, or reserved.")
	poolCooling   = poolGauge("cooling", "Addresses whose Service is gone and that wait for the pool's reuseDelay to pass.")
	poolAvailable = poolGauge("available", "Addresses that can be given out now.")
)

func poolGauge(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName("herald", "pool", name), help, []string{"pool", "family"}, nil)
}

// Describe implements prometheus.Collector.
func (c poolCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{poolCapacity, poolAssigned, poolCooling, poolAvailable} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (c poolCollector) Collect(metrics chan<- prometheus.Metric) {
	for _, pool := range c.pools() {
		u := c.ledger.use(pool)
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
}
