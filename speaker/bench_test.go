package speaker

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"

	"github.com/heraldlb/herald/speaker/announce"
)

// crowd is a loop with many addresses, each with its own Service, and many nodes on one segment.
type crowd struct {
	*loop
	nodes     []*corev1.Node
	addresses []netip.Addr
	neighbour []announce.Neighbour
}

// newCrowd returns a crowd. local is the number of nodes on which each Service has endpoints under policy Local; 0: policy
// Cluster, with endpoints on one node.
func newCrowd(t testing.TB, addresses, nodes, local int) *crowd {
	c := &crowd{loop: loopOf(t, "n00000")}
	ready := corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}
	for i := range nodes {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%05d", i), Labels: map[string]string{"rack": fmt.Sprint(i / 40)}}, Status: ready}
		c.nodes = append(c.nodes, n)
		c.put(t, n)
		c.neighbour = append(c.neighbour, neighbour(n.Name, "eth0", fmt.Sprintf("10.%d.%d.1/8", i/250, i%250), fmt.Sprintf("2001:db8::%x/64", i+1)))
	}
	c.put(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, &herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "public"}},
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "all"}},
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "rack"}, Spec: herald.L2AdvertisementSpec{PreferredNodes: matching("rack", "7")}})
	address := netip.MustParseAddr("10.255.0.1")
	for i := range addresses {
		name := fmt.Sprintf("s%05d", i)
		svc := serviceNamed(name, address.String())
		var endpoints []string
		for j := range max(local, 1) {
			endpoints = append(endpoints, c.nodes[(i*7+j*131)%nodes].Name)
		}
		if local > 0 {
			svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		}
		o := slice(name+"-a", types.NamespacedName{Namespace: "default", Name: name})
		for _, n := range endpoints {
			o.Endpoints = append(o.Endpoints, endpoint(n, new(true)))
		}
		c.put(t, svc, sharedBy(address.String(), name), o)
		c.addresses = append(c.addresses, address)
		address = address.Next()
	}
	return c
}

// again makes a pass over all addresses. It leaves the last nodes, without in number, out of the segment.
func (c *crowd) again(without int) {
	before := c.shared
	c.shared = c.s.inputs.shared("n00000", true, nil)
	c.shared.Follow(before)
	c.shared.Segments = []announce.Segment{{Interface: "eth0", Nodes: c.neighbour[:len(c.neighbour)-without]}}
	clear(c.own)
	changed := noChanges()
	for _, a := range c.addresses {
		changed.addresses[a] = true
	}
	c.pass(changed)
}

func BenchmarkPass(b *testing.B) {
	const addresses, nodes = 10_000, 5_000
	for _, policy := range []struct {
		name  string
		local int
	}{{"Cluster", 0}, {"Local", 2}} {
		c := newCrowd(b, addresses, nodes, policy.local)
		for _, what := range []struct {
			name    string
			without func(i int) int
		}{
			{"nothing differs", func(int) int { return 0 }},
			{"a node comes or goes", func(i int) int { return i % 2 }},
		} {
			b.Run(policy.name+"/"+what.name, func(b *testing.B) {
				c.again(0)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				i := 0
				for b.Loop() {
					i++
					c.again(what.without(i))
				}
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(i)/addresses, "allocs/decision")
			})
		}
		b.Run(policy.name+"/one address", func(b *testing.B) {
			c.again(0)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				changed := noChanges()
				changed.addresses[c.addresses[i%addresses]] = true
				c.pass(changed)
				i++
			}
		})
	}
}

// The cost of a decision must not grow with the number of nodes on the segment, because there are many decisions.
func TestADecisionAllocatesNothingPerNode(t *testing.T) {
	for _, local := range []int{0, 2} {
		allocs := map[int]float64{}
		for _, nodes := range []int{10, 1000} {
			c := newCrowd(t, 100, nodes, local)
			c.again(0)
			i := 0
			allocs[nodes] = testing.AllocsPerRun(100, func() {
				a := c.s.inputs.address(c.addresses[i%100], noon)
				i++
				if d := announce.Decide(c.shared, a); len(d.Segments) != 1 || len(d.Segments[0].Candidates.Nodes()) == 0 {
					t.Fatal(said(d))
				}
			})
		}
		if allocs[1000] > allocs[10]+1 || allocs[1000] > 30 {
			t.Errorf("policy Local with %d endpoints: %v allocations on a segment of 10 and of 1000 nodes", local, allocs)
		}
	}
}
