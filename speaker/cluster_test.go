package speaker

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/announce"
)

var (
	vip  = netip.MustParseAddr("198.51.100.7")
	vip6 = netip.MustParseAddr("2001:db8::7")

	noon = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
)

var alike = []gocmp.Option{
	gocmp.Comparer(func(x, y netip.Addr) bool { return x == y }),
	gocmp.Comparer(func(x, y netip.Prefix) bool { return x == y }),
}

func compile(t testing.TB, s herald.Selection) *herald.Selector {
	t.Helper()
	c, err := s.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func matching(key, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

func editNode(s *announce.Shared, name string, change func(*announce.Node)) {
	n := s.Nodes[name]
	change(&n)
	s.Nodes[name] = n
}

// neighbour returns a node on a segment. Its interface has the same name as that of this node.
func neighbour(node, iface string, subnets ...string) announce.Neighbour {
	n := announce.Neighbour{Node: node, Interface: iface}
	for _, s := range subnets {
		n.Subnets = append(n.Subnets, netip.MustParsePrefix(s))
	}
	return n
}

// cluster returns the snapshot of the node self in a cluster of three equal nodes on one segment with one pool, and an address
// of one Service with an endpoint on each node. Everything is advertised.
func cluster(t testing.TB, self string) (*announce.Shared, *announce.Address) {
	s := &announce.Shared{
		Self: self, Healthy: true,
		Nodes:      map[string]announce.Node{},
		Pools:      map[string]announce.Pool{"public": {}},
		Namespaces: map[string]map[string]string{"default": {"team": "web"}},
		Segments:   []announce.Segment{{Interface: "eth0"}},
		L2:         []announce.L2Advertisement{{Name: "all", Selector: compile(t, herald.Selection{})}},
		BGP:        []announce.BGPAdvertisement{{Name: "all", Selector: compile(t, herald.Selection{}), Peers: []string{"tor"}}},
	}
	nodes := []string{"n1", "n2", "n3"}
	for i, name := range nodes {
		s.Nodes[name] = announce.Node{Ready: true}
		s.Segments[0].Nodes = append(s.Segments[0].Nodes, neighbour(name, "eth0", fmt.Sprintf("198.51.100.%d/24", i+1)))
	}
	return s, &announce.Address{Addr: vip, Pool: "public", Services: []*announce.Service{{
		Name: types.NamespacedName{Namespace: "default", Name: "web"}, Ready4: nodes, Ready6: nodes,
	}}}
}

// said summarizes which nodes may own an address: "eth0: n1 n2, eth1: n3", "nobody", or why it is refused.
func said(d announce.Decision) string {
	if d.Refused != "" && len(d.Segments)+len(d.Exports)+len(d.Aggregates) == 0 {
		return "refused: " + d.Refused
	}
	var all []string
	for _, p := range d.Segments {
		var nodes []string
		for _, c := range *p.Candidates {
			nodes = append(nodes, c.Node+[]string{"", "(forwards)", "(fresh)"}[c.Standing])
		}
		all = append(all, p.Interface+": "+strings.Join(nodes, " "))
	}
	return cmp.Or(strings.Join(all, ", "), "nobody")
}
