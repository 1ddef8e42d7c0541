package configuration

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// view is a Cluster with indexes for the assessment.
type view struct {
	Cluster
	nodes []node // by name
	pools map[string]bool
	peers map[string]bool
	// spaces has the space of each of Pools; nil if its addresses cannot be parsed.
	spaces []*space
	// holders selects, for each peer, the nodes that have a session with it.
	holders map[string]labels.Selector
	// up has the established sessions, by peer and node.
	up map[string]map[string]bool
}

type node struct {
	*corev1.Node
	excluded       string // by what it is excluded; empty: it is not
	ready, reports bool
	Speaker
	sessions map[string]herald.SpeakerSession // by peer
}

func newView(c Cluster) *view {
	v := &view{
		Cluster: c, pools: map[string]bool{}, peers: map[string]bool{}, holders: map[string]labels.Selector{}, up: map[string]map[string]bool{},
	}
	for _, o := range c.Nodes {
		n := node{Node: o, excluded: herald.ExclusionOf(o), ready: ready(o), sessions: map[string]herald.SpeakerSession{}}
		n.Speaker, n.reports = c.Speakers[o.Name]
		for _, s := range n.Sessions {
			n.sessions[s.Peer] = s
		}
		v.nodes = append(v.nodes, n)
	}
	slices.SortFunc(v.nodes, func(x, y node) int { return cmp.Compare(x.Name, y.Name) })
	for _, p := range c.Pools {
		v.pools[p.Name] = true
	}
	for _, p := range c.Peers {
		v.peers[p.Name] = true
		v.holders[p.Name] = labels.Nothing()
		if s, err := herald.CompileSelector("nodeSelector", p.Spec.NodeSelector); err == nil {
			v.holders[p.Name] = s
		}
		v.up[p.Name] = map[string]bool{}
	}
	infrastructure := v.infrastructure()
	for _, p := range c.Pools {
		v.spaces = append(v.spaces, newSpace(p, infrastructure))
	}
	for _, n := range v.nodes {
		for peer, s := range n.sessions {
			if v.peers[peer] && s.State == sessionEstablished {
				v.up[peer][n.Name] = n.ready && !n.Silent
			}
		}
	}
	return v
}

// excludedBy lists by what nodes are excluded, with the nodes if they differ.
func excludedBy(nodes []*node) string {
	by := map[string][]*node{}
	for _, n := range nodes {
		by[n.excluded] = append(by[n.excluded], n)
	}
	var texts []string
	for _, what := range slices.Sorted(maps.Keys(by)) {
		if len(by) > 1 {
			what += " (" + some(nodeNames(by[what])) + ")"
		}
		texts = append(texts, what)
	}
	return strings.Join(texts, ", ")
}

func ready(o *corev1.Node) bool {
	return slices.ContainsFunc(o.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// nodeNames returns the names of nodes.
func nodeNames(nodes []*node) (names []string) {
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	return names
}

// silent reports whether no speaker reports from a node.
func (n *node) silent() bool { return !n.reports || n.Silent }

// trouble returns why a node announces nothing, although it is not excluded. It is empty if the node announces.
func (n *node) trouble() string {
	if n.silent() {
		return "its speaker does not report"
	}
	return printable(n.Problem, maxReport)
}

// announcers returns the nodes that an advertisement announces from. If there are none, reason and problem say why. The
// second result has the selected nodes that are not excluded.
func (v *view) announcers(selects func(map[string]string) bool) (able []*node, selected sets.Set[*node], reason, problem string) {
	selected = sets.New[*node]()
	var out, silent, unable []*node
	for i := range v.nodes {
		n := &v.nodes[i]
		switch {
		case !selects(n.Labels):
			continue
		case n.excluded != "":
			out = append(out, n)
			continue
		case n.silent():
			silent = append(silent, n)
		case n.trouble() != "":
			unable = append(unable, n)
		default:
			able = append(able, n)
		}
		selected.Insert(n)
	}
	switch {
	case len(able) > 0:
		return able, selected, "", ""
	case len(v.nodes) == 0:
		return nil, selected, herald.ReasonNoNodeSelected, "there are no nodes"
	case len(unable) > 0:
		return nil, selected, herald.ReasonSpeakersUnable, fmt.Sprintf("no selected node can announce anything: node %s: %s%s",
			unable[0].Name, unable[0].trouble(), andMore(len(unable)-1, "node"))
	case len(silent) > 0:
		return nil, selected, herald.ReasonNoSpeaker, fmt.Sprintf("no speaker reports from the selected nodes (%s): see to it that the DaemonSet herald-speaker runs there",
			some(nodeNames(silent)))
	case len(out) > 0:
		return nil, selected, herald.ReasonNodesExcluded, fmt.Sprintf("every selected node (%s) is excluded by %s: remove that, or select other nodes",
			some(nodeNames(out)), excludedBy(out))
	}
	return nil, selected, herald.ReasonNoNodeSelected, "spec.nodeSelector matches no node: correct it, or label the nodes that should announce"
}

// expected lists the nodes that must announce addresses: see [Assessment.Announcers].
func (v *view) expected(ads []*advertisement) (names []string) {
	for i := range v.nodes {
		n := &v.nodes[i]
		if n.ready && linux(n.Node) && slices.ContainsFunc(ads, func(ad *advertisement) bool { return ad.nodes.Has(n) && v.reaches(ad, n) }) {
			names = append(names, n.Name)
		}
	}
	return names
}

// reaches reports whether a node selected by an advertisement can announce: with BGP it needs a peer.
func (v *view) reaches(ad *advertisement, n *node) bool {
	return !ad.bgp || slices.ContainsFunc(ad.peers, func(peer string) bool { return v.holders[peer].Matches(labels.Set(n.Labels)) })
}

// linux reports whether a speaker can run on a node.
func linux(o *corev1.Node) bool { return cmp.Or(o.Labels[corev1.LabelOSStable], "linux") == "linux" }

func andMore(n int, what string) string {
	switch n {
	case 0:
		return ""
	case 1:
		return "; and 1 more " + what
	}
	return fmt.Sprintf("; and %d more %ss", n, what)
}

// subnets are the subnets of nodes.
type subnets struct {
	set *netipx.IPSet
	// by has the number of nodes in each subnet, and on the name of an interface there.
	by map[netip.Prefix]int
	on map[netip.Prefix]string
}

// The shortest prefix lengths that count as the subnet of a node, by family. No link has a larger subnet, and a node
// that reports 0.0.0.0/0 must not count as connected to every pool.
const (
	leastBits4 = 8
	leastBits6 = 32
)

// subnetsOf collects the subnets of nodes. A subnet of one address has no room for the address of a Service.
func subnetsOf(nodes []*node) subnets {
	s := subnets{by: map[netip.Prefix]int{}, on: map[netip.Prefix]string{}}
	for _, n := range nodes {
		for _, i := range n.Interfaces {
			for _, p := range i.Subnets {
				if p = p.Masked(); !p.IsSingleIP() && (p.Bits() >= leastBits6 || p.Addr().Is4() && p.Bits() >= leastBits4) {
					s.by[p]++
					s.on[p] = i.Name
				}
			}
		}
	}
	var b netipx.IPSetBuilder
	for p := range s.by {
		b.AddPrefix(p)
	}
	s.set, _ = b.IPSet() // IPSet fails only for an invalid prefix, and there is none.
	return s
}

// of lists the subnets of a family, those with the most nodes first, as "198.18.0.0/24 on eth0".
func (s subnets) of(is4 bool) (list []string) {
	all := slices.DeleteFunc(slices.Collect(maps.Keys(s.by)), func(p netip.Prefix) bool {
		return p.Addr().Is4() != is4 || p.Addr().IsLinkLocalUnicast()
	})
	slices.SortFunc(all, func(x, y netip.Prefix) int { return cmp.Or(cmp.Compare(s.by[y], s.by[x]), x.Compare(y)) })
	for _, p := range all {
		list = append(list, fmt.Sprintf("%s on %s", p, printable(s.on[p], maxQuote)))
	}
	return list
}
