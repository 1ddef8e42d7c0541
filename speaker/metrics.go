package speaker

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/heraldlb/herald/speaker/arp"
	"github.com/heraldlb/herald/speaker/bgp"
)

var (
	arpReplies = prometheus.NewDesc("herald_arp_replies_total", "ARP requests answered.", []string{"interface"}, nil)
	arpSent    = prometheus.NewDesc("herald_arp_gratuitous_total", "Gratuitous ARP packets sent.", []string{"interface"}, nil)
	arpDrops   = prometheus.NewDesc("herald_arp_ignored_total", "ARP packets that were not answered, by reason.", []string{"interface", "reason"}, nil)
	bgpUp      = prometheus.NewDesc("herald_bgp_session_up", "1 if the session is established.", []string{"peer"}, nil)
	bgpRoutes  = prometheus.NewDesc("herald_bgp_routes", "Routes announced to the peer.", []string{"peer", "family"}, nil)
)

// arpCollector shows what the ARP responder counts.
type arpCollector struct{ *arp.Responder }

// Describe implements prometheus.Collector.
func (arpCollector) Describe(c chan<- *prometheus.Desc) { c <- arpReplies; c <- arpSent; c <- arpDrops }

// Collect implements prometheus.Collector.
func (a arpCollector) Collect(c chan<- prometheus.Metric) {
	for _, s := range a.Stats() {
		c <- prometheus.MustNewConstMetric(arpReplies, prometheus.CounterValue, float64(s.Answered), s.Interface)
		c <- prometheus.MustNewConstMetric(arpSent, prometheus.CounterValue, float64(s.Announced), s.Interface)
		for reason, n := range s.Dropped {
			c <- prometheus.MustNewConstMetric(arpDrops, prometheus.CounterValue, float64(n), s.Interface, string(reason))
		}
	}
}

// bgpCollector shows the sessions.
type bgpCollector struct{ *bgp.Speaker }

// Describe implements prometheus.Collector.
func (bgpCollector) Describe(c chan<- *prometheus.Desc) { c <- bgpUp; c <- bgpRoutes }

// Collect implements prometheus.Collector.
func (b bgpCollector) Collect(c chan<- prometheus.Metric) {
	for _, s := range b.Sessions() {
		up := 0.0
		if s.State == bgp.Established {
			up = 1
		}
		c <- prometheus.MustNewConstMetric(bgpUp, prometheus.GaugeValue, up, s.Peer)
		c <- prometheus.MustNewConstMetric(bgpRoutes, prometheus.GaugeValue, float64(s.Advertised4), s.Peer, "IPv4")
		c <- prometheus.MustNewConstMetric(bgpRoutes, prometheus.GaugeValue, float64(s.Advertised6), s.Peer, "IPv6")
	}
}
