package speaker

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/responder"
	"github.com/heraldlb/herald/speaker/segment"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("herald_"+name, help, labels, nil)
}

var (
	answered  = desc("l2_replies_total", "ARP requests and neighbour solicitations answered.", "interface", "protocol")
	announced = desc("l2_announcements_total", "Unsolicited announcements sent, in packets.", "interface", "protocol")
	ignored   = desc("l2_ignored_total", "ARP and NDP packets that were not answered, by reason.", "interface", "protocol", "reason")
	conflicts = desc("l2_conflicts_total", "Frames in which a machine that is not a speaker uses an address that this node answers for.", "interface", "protocol")

	frames     = desc("segment_frames_total", "Frames between speakers, by type and direction.", "interface", "type", "direction")
	refused    = desc("segment_refused_total", "Frames that were refused, by reason.", "interface", "reason")
	happened   = desc("segment_events_total", "What happened on the segment: suspicions, deaths, takeovers, yields and others.", "interface", "event")
	takeovers  = desc("segment_takeover_seconds", "From the last sign of life of an address's owner to the takeover.", "interface")
	deputised  = desc("segment_deputised_seconds_total", "For how long this node answered for others, summed over addresses.", "interface")
	neighbours = desc("segment_neighbours", "Other speakers on the segment.", "interface", "life")
	dead       = desc("segment_dead_neighbour", "1 for a neighbour that this speaker considers dead: the 16 that died last.", "interface", "neighbour")
	owned      = desc("segment_addresses", "Addresses that this node owns.", "interface")
	unowned    = desc("segment_unowned_addresses", "Addresses that this node could own and that no node owns.", "interface")
	state      = desc("segment_state", "1 for the state that this node is in.", "interface", "state")

	proxyServes = desc("speaker_kube_proxy_serves", "1 if the node's kube-proxy serves. While it does not, the node announces nothing.")

	bgpUp       = desc("bgp_session_up", "1 if the session is established.", "peer")
	bgpState    = desc("bgp_session_state", "1 for the state that the session is in (RFC 4271, section 8.2.2).", "peer", "state")
	bgpChanged  = desc("bgp_session_changed_timestamp_seconds", "When the session came up, went down or was first tried, as a Unix time.", "peer")
	bgpFlaps    = desc("bgp_session_flaps_total", "How often the session left Established, by cause. What the speaker closed on purpose does not count.", "peer", "cause")
	bgpUpdates  = desc("bgp_updates_total", "UPDATE messages, by direction.", "peer", "direction")
	bgpRoutes   = desc("bgp_routes", "Routes announced to the peer.", "peer", "family")
	bgpWithheld = desc("bgp_routes_withheld", "Routes that cannot be sent to the peer: there is no next hop of their family, or the router does not speak it.", "peer", "family")
)

func counter(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func gauge(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

// responders exports the counters of the responders for ARP and NDP.
type responders struct{ arp, ndp *responder.Responder }

// Describe implements prometheus.Collector.
func (responders) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{answered, announced, ignored, conflicts} {
		c <- d
	}
}

// Collect implements prometheus.Collector.
func (r responders) Collect(c chan<- prometheus.Metric) {
	for protocol, o := range map[string]*responder.Responder{"arp": r.arp, "ndp": r.ndp} {
		for _, s := range o.Stats() {
			c <- counter(answered, float64(s.Answered), s.Interface, protocol)
			c <- counter(announced, float64(s.Announced), s.Interface, protocol)
			c <- counter(conflicts, float64(s.Conflicts), s.Interface, protocol)
			for reason, n := range s.Dropped {
				c <- counter(ignored, float64(n), s.Interface, protocol, string(reason))
			}
		}
	}
}

// segmentCollector exports the metrics of the segments.
type segmentCollector struct{ *segments }

// Describe implements prometheus.Collector.
func (segmentCollector) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{frames, refused, happened, takeovers, deputised, neighbours, dead, owned, unowned, state} {
		c <- d
	}
}

// Collect implements prometheus.Collector.
func (s segmentCollector) Collect(c chan<- prometheus.Metric) {
	for iface, v := range s.views() {
		for kind, n := range v.Counters.Sent {
			c <- counter(frames, float64(n), iface, kind, "sent")
		}
		for kind, n := range v.Counters.Heard {
			c <- counter(frames, float64(n), iface, kind, "received")
		}
		for reason, n := range v.Counters.Refused {
			c <- counter(refused, float64(n), iface, string(reason))
		}
		for kind, n := range v.Counters.Events {
			c <- counter(happened, float64(n), iface, string(kind))
		}
		c <- prometheus.MustNewConstSummary(takeovers, v.Counters.Takeovers, v.Counters.TakeoverSum.Seconds(), nil, iface)
		c <- counter(deputised, v.Counters.Deputised.Seconds(), iface)
		lives := map[string]int{}
		for _, m := range v.Members {
			lives[m.Life]++
		}
		for life, n := range lives {
			c <- gauge(neighbours, float64(n), iface, life)
		}
		for _, node := range lastDead(v.Members) {
			c <- gauge(dead, 1, iface, node)
		}
		own := 0
		for _, h := range v.Holdings {
			if h.Node == s.config.Node {
				own++
			}
		}
		c <- gauge(owned, float64(own), iface)
		c <- gauge(unowned, float64(v.Unowned), iface)
		c <- gauge(state, 1, iface, strings.ToLower(string(v.State)))
	}
}

// lastDead returns the nodes whose speakers died last, at most 16: if a large segment is split, every speaker has many dead
// neighbours.
func lastDead(members []segment.Member) (nodes []string) {
	dead := slices.DeleteFunc(slices.Clone(members), func(m segment.Member) bool { return m.Life != "dead" })
	slices.SortFunc(dead, func(a, b segment.Member) int {
		return cmp.Or(cmp.Compare(a.Silent, b.Silent), cmp.Compare(a.Node, b.Node))
	})
	for _, m := range dead[:min(len(dead), 16)] {
		nodes = append(nodes, m.Node)
	}
	return nodes
}

// Describe implements prometheus.Collector.
func (h *proxyHealth) Describe(c chan<- *prometheus.Desc) { c <- proxyServes }

// Collect implements prometheus.Collector.
func (h *proxyHealth) Collect(c chan<- prometheus.Metric) {
	serves := 0.0
	if h.healthy() {
		serves = 1
	}
	c <- gauge(proxyServes, serves)
}

// bgpCollector exports the metrics of the BGP sessions.
type bgpCollector struct{ *bgp.Speaker }

// Describe implements prometheus.Collector.
func (bgpCollector) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{bgpUp, bgpState, bgpChanged, bgpFlaps, bgpUpdates, bgpRoutes, bgpWithheld} {
		c <- d
	}
}

// Collect implements prometheus.Collector.
func (b bgpCollector) Collect(c chan<- prometheus.Metric) {
	for _, s := range b.Details(context.Background()) {
		up := 0.0
		if s.State == bgp.Established {
			up = 1
		}
		c <- gauge(bgpUp, up, s.Peer)
		c <- gauge(bgpState, 1, s.Peer, s.State.String())
		c <- gauge(bgpChanged, float64(s.Since.Unix()), s.Peer)
		for _, cause := range bgp.Causes {
			c <- counter(bgpFlaps, float64(s.Flaps[cause]), s.Peer, string(cause))
		}
		c <- counter(bgpUpdates, float64(s.UpdatesSent), s.Peer, "sent")
		c <- counter(bgpUpdates, float64(s.UpdatesReceived), s.Peer, "received")
		c <- gauge(bgpRoutes, float64(s.Advertised4), s.Peer, "IPv4")
		c <- gauge(bgpRoutes, float64(s.Advertised6), s.Peer, "IPv6")
		c <- gauge(bgpWithheld, float64(s.Withheld4), s.Peer, "IPv4")
		c <- gauge(bgpWithheld, float64(s.Withheld6), s.Peer, "IPv6")
	}
}
