package announce

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

var (
	vip  = netip.MustParseAddr("198.51.100.7")
	vip6 = netip.MustParseAddr("2001:db8::7")

	// The nodes of the test cases about routers, by their rank for vip.
	first, second, third = podium(vip)

	web = types.NamespacedName{Namespace: "default", Name: "web"}
)

func podium(address netip.Addr) (first, second, third string) {
	n := []string{"n1", "n2", "n3"}
	slices.SortFunc(n, func(x, y string) int { return cmp.Compare(Rank(address, y), Rank(address, x)) })
	return n[0], n[1], n[2]
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

func editNode(s *Shared, name string, change func(*Node)) {
	n := s.Nodes[name]
	change(&n)
	s.Nodes[name] = n
}

// neighbour returns a node on a segment. Its interface has the same name as that of this node.
func neighbour(node, iface string, subnets ...string) Neighbour {
	n := Neighbour{Node: node, Interface: iface}
	for _, s := range subnets {
		n.Subnets = append(n.Subnets, netip.MustParsePrefix(s))
	}
	return n
}

// cluster returns a snapshot of three equal nodes on two segments with one pool, and an address of one Service with an endpoint
// on each node. Nothing is advertised.
func cluster() (*Shared, *Address) {
	s := &Shared{
		Healthy:    true,
		Nodes:      map[string]Node{},
		Pools:      map[string]Pool{"public": {Labels: map[string]string{"tier": "front"}}},
		Namespaces: map[string]map[string]string{"default": {"team": "web"}},
		Segments:   []Segment{{Interface: "eth0"}, {Interface: "eth1"}},
	}
	nodes := []string{"n1", "n2", "n3"}
	for i, name := range nodes {
		s.Nodes[name] = Node{Labels: map[string]string{"node": name}, Ready: true}
		s.Segments[0].Nodes = append(s.Segments[0].Nodes,
			neighbour(name, "eth0", fmt.Sprintf("198.51.100.%d/24", i+1), fmt.Sprintf("2001:db8::%d/64", i+1)))
		s.Segments[1].Nodes = append(s.Segments[1].Nodes, neighbour(name, "eth1", fmt.Sprintf("203.0.113.%d/24", i+1)))
	}
	return s, &Address{Addr: vip, Pool: "public", Services: []*Service{{
		Name:   types.NamespacedName{Namespace: "default", Name: "web"},
		Labels: map[string]string{"app": "web"},
		Ready4: nodes, Ready6: nodes,
	}}}
}

// readyOn gives the address's first Service ready endpoints on these nodes, for both families.
func readyOn(a *Address, nodes ...string) {
	nodes = slices.Sorted(slices.Values(nodes))
	a.Services[0].Ready4, a.Services[0].Ready6 = nodes, nodes
}

// joinedBy makes a second Service share the address: default/mail, with policy Local and endpoints on the nodes mailOn. The
// first Service becomes Local, too.
func joinedBy(a *Address, webOn, mailOn []string) {
	a.Services[0].Local = true
	readyOn(a, webOn...)
	slices.Sort(mailOn)
	a.Services = append(a.Services, &Service{
		Name:   types.NamespacedName{Namespace: "default", Name: "mail"},
		Labels: map[string]string{"app": "mail"},
		Local:  true, Ready4: mailOn, Ready6: mailOn,
	})
}

// on returns the snapshot of the node, with empty caches.
func on(node string, shared *Shared) *Shared {
	s := *shared
	s.Self = node
	s.made, s.known, s.before, s.key, s.networks = nil, nil, nil, nil, nil
	s.Segments = slices.Clone(s.Segments)
	for i := range s.Segments {
		s.Segments[i].distinct = nil
	}
	return &s
}

// said summarizes which nodes may own an address: "eth0: n1 n2, eth1: n3", "nobody", or why it is refused.
func said(d Decision) string {
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

// announcers lists, for each node that announces the address, the peers to which it announces the address.
func announcers(shared *Shared, address *Address) map[string][]string {
	by := map[string][]string{}
	for node := range shared.Nodes {
		d := Decide(on(node, shared), address)
		peers := slices.Collect(maps.Keys(d.Exports))
		for _, a := range d.Aggregates {
			peers = append(peers, a.Peer)
		}
		if slices.Sort(peers); len(peers) > 0 {
			by[node] = slices.Compact(peers)
		}
	}
	return by
}
