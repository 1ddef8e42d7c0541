package configuration_test

import (
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/provider/configuration"
)

// BenchmarkAssess measures one assessment of many BGPAdvertisements with different attributes, so that each is compared
// with all others. The time per advertisement, and per pool, must not depend on their number.
func BenchmarkAssess(b *testing.B) {
	const nodes = 203
	for _, story := range []struct {
		name string
		// apart changes the i-th advertisement so that no advertisement decides the attributes of another one's routes.
		apart func(i int, s *herald.BGPAdvertisementSpec)
	}{
		{"lengths", func(i int, s *herald.BGPAdvertisementSpec) {
			s.AggregationLength = &herald.AggregationLength{IPv6: int32(64 + i)}
		}},
		{"nodes", func(i int, s *herald.BGPAdvertisementSpec) { s.NodeSelector = matching("name", fmt.Sprint("n", i)) }},
	} {
		for _, size := range []struct{ pools, ads int }{{50, 10}, {50, 30}, {50, 60}, {200, 60}} {
			b.Run(fmt.Sprintf("%s/pools=%d/advertisements=%d", story.name, size.pools, size.ads), func(b *testing.B) {
				c := configuration.Cluster{Peers: []*herald.BGPPeer{peer("tor", "203.0.113.1")}, Speakers: map[string]configuration.Speaker{}}
				for i := range nodes {
					name := fmt.Sprint("n", i)
					c.Nodes = append(c.Nodes, &corev1.Node{
						ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"name": name}},
						Status: corev1.NodeStatus{
							Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprint("198.18.0.", i)}, {Type: corev1.NodeInternalIP, Address: fmt.Sprint("fd00::", i)}},
							Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
						},
					})
					c.Speakers[name] = configuration.Speaker{
						Interfaces: []configuration.Interface{{Name: "eth0", Subnets: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("198.18.0.%d/24", i))}, Gateways: []netip.Addr{netip.MustParseAddr("198.18.0.254")}}},
						Sessions:   []herald.SpeakerSession{session("tor", "Established", "")},
					}
				}
				for i := range size.pools {
					c.Pools = append(c.Pools, pool(fmt.Sprint("p", i), fmt.Sprintf("2001:db8:%x::/64", i)))
				}
				for i := range size.ads {
					c.BGPAdvertisements = append(c.BGPAdvertisements, bgp(fmt.Sprint("a", i), func(s *herald.BGPAdvertisementSpec) {
						s.MED = new(int64(i))
						story.apart(i, s)
					}))
				}
				for name, status := range configuration.Assess(c).BGPAdvertisements {
					for _, condition := range status.Conditions {
						if condition.Status != metav1.ConditionTrue {
							b.Fatalf("%s: %+v", name, condition)
						}
					}
				}
				for b.Loop() {
					configuration.Assess(c)
				}
				each := float64(b.Elapsed().Microseconds()) / float64(b.N)
				b.ReportMetric(each/float64(size.ads), "µs/advertisement")
				b.ReportMetric(each/float64(size.ads*size.pools), "µs/advertisement/pool")
			})
		}
	}
}
