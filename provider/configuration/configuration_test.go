package configuration_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/provider/configuration"
)

const generation = 7

func object(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Generation: generation, Labels: map[string]string{"name": name}}
}

func pool(name string, prefixes ...string) configuration.Pool {
	p := configuration.Pool{IPPool: &herald.IPPool{ObjectMeta: object(name)}}
	var b netipx.IPSetBuilder
	for _, text := range prefixes {
		b.AddPrefix(netip.MustParsePrefix(text))
		p.Spec.Addresses = append(p.Spec.Addresses, herald.AddressRange(text))
	}
	p.Addresses, _ = b.IPSet()
	return p
}

func l2(name string, edit ...func(*herald.L2AdvertisementSpec)) *herald.L2Advertisement {
	o := &herald.L2Advertisement{ObjectMeta: object(name)}
	for _, e := range edit {
		e(&o.Spec)
	}
	return o
}

func bgp(name string, edit ...func(*herald.BGPAdvertisementSpec)) *herald.BGPAdvertisement {
	o := &herald.BGPAdvertisement{ObjectMeta: object(name)}
	for _, e := range edit {
		e(&o.Spec)
	}
	return o
}

func peer(name, address string) *herald.BGPPeer {
	return &herald.BGPPeer{ObjectMeta: object(name), Spec: herald.BGPPeerSpec{Address: address, LocalASN: 64512, PeerASN: 64513}}
}

func matching(key, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

// unreadable is a selector that the API server would refuse in a built-in kind.
var unreadable = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "tier", Operator: "Near"}}}

func session(peer, state, reason string) herald.SpeakerSession {
	return herald.SpeakerSession{Peer: peer, State: state, Reason: reason}
}

// healthy returns a cluster of three nodes with one BGPPeer, whose sessions are established. Its only pool is in the
// nodes' IPv4 subnet, and is announced on the nodes' segment.
func healthy() *configuration.Cluster {
	c := &configuration.Cluster{
		Pools:            []configuration.Pool{pool("public", "198.18.0.192/27")},
		L2Advertisements: []*herald.L2Advertisement{l2("all")},
		Peers:            []*herald.BGPPeer{peer("tor", "203.0.113.1")},
		Speakers:         map[string]configuration.Speaker{},
		ServiceCIDRs:     []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
	}
	for i := 1; i <= 3; i++ {
		name := fmt.Sprintf("n%d", i)
		c.Nodes = append(c.Nodes, &corev1.Node{
			ObjectMeta: object(name),
			Spec:       corev1.NodeSpec{PodCIDRs: []string{fmt.Sprintf("10.244.%d.0/24", i)}},
			Status: corev1.NodeStatus{
				Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("198.18.0.%d", i)}, {Type: corev1.NodeHostName, Address: name}},
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			},
		})
		c.Speakers[name] = configuration.Speaker{
			Interfaces: []configuration.Interface{{
				Name:     "eth0",
				Subnets:  []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("198.18.0.%d/24", i)), netip.MustParsePrefix("fe80::1/64")},
				Gateways: []netip.Addr{netip.MustParseAddr("198.18.0.254")},
			}},
			Sessions: []herald.SpeakerSession{session("tor", "Established", "")},
		}
	}
	return c
}

// speaker edits the report of a node's speaker.
func speaker(c *configuration.Cluster, node string, edit func(*configuration.Speaker)) {
	s := c.Speakers[node]
	edit(&s)
	c.Speakers[node] = s
}

func everySpeaker(c *configuration.Cluster, edit func(*configuration.Speaker)) {
	for node := range c.Speakers {
		speaker(c, node, edit)
	}
}

// conditions returns the conditions of an object with a name such as "IPPool public".
func conditions(t *testing.T, a configuration.Assessment, object string) []metav1.Condition {
	t.Helper()
	kind, name, _ := strings.Cut(object, " ")
	switch kind {
	case "IPPool":
		return []metav1.Condition{a.Pools[name].Announced}
	case "L2Advertisement":
		return a.L2Advertisements[name].Conditions
	case "BGPAdvertisement":
		return a.BGPAdvertisements[name].Conditions
	case "BGPPeer":
		return a.Peers[name].Conditions
	}
	t.Fatalf("no kind %q", kind)
	return nil
}

// wanted is an expected condition: "BGPPeer tor", "Accepted", the reason, parts of the message. A condition whose
// reason is not in good must be False.
type wanted struct {
	object, condition, reason string
	message                   []string
}

var good = map[string]bool{herald.ReasonValid: true, herald.ReasonAnnounced: true, herald.ReasonEstablished: true, herald.ReasonNoOverlap: true,
	herald.ReasonAlive: true}

func TestAssess(t *testing.T) {
	const accepted, announced, established, exclusive = herald.ConditionAccepted, herald.ConditionAnnounced, herald.ConditionEstablished, herald.ConditionExclusive
	for _, story := range []struct {
		name string
		edit func(*configuration.Cluster)
		want []wanted
	}{
		{"all is well", func(c *configuration.Cluster) { c.BGPAdvertisements = append(c.BGPAdvertisements, bgp("routed")) }, []wanted{
			{"IPPool public", announced, "Announced", nil},
			{"L2Advertisement all", accepted, "Valid", nil},
			{"L2Advertisement all", announced, "Announced", nil},
			{"BGPAdvertisement routed", accepted, "Valid", nil},
			{"BGPAdvertisement routed", announced, "Announced", nil},
			{"BGPAdvertisement routed", exclusive, "NoOverlap", nil},
			{"BGPPeer tor", accepted, "Valid", nil},
			{"BGPPeer tor", established, "Established", nil},
		}},
		{"networks that the pool does not fill", func(c *configuration.Cluster) {
			c.BGPAdvertisements = append(c.BGPAdvertisements, bgp("routed", func(s *herald.BGPAdvertisementSpec) {
				s.AggregationLength = &herald.AggregationLength{IPv4: 26}
			}))
		}, []wanted{
			{"BGPAdvertisement routed", accepted, "Valid", nil},
			{"BGPAdvertisement routed", announced, "Announced", []string{"spec.aggregationLength.ipv4: of IPPool public these addresses are announced one by one, since the pool does not have the whole /26 that contains them: 198.18.0.192/27"}},
		}},
		{"networks with a gateway, a peer and a node in them", func(c *configuration.Cluster) {
			c.Pools = []configuration.Pool{pool("public", "198.18.0.0/24", "203.0.113.0/25")}
			c.BGPAdvertisements = append(c.BGPAdvertisements, bgp("routed", func(s *herald.BGPAdvertisementSpec) {
				s.AggregationLength = &herald.AggregationLength{IPv4: 26}
			}))
		}, []wanted{{"BGPAdvertisement routed", announced, "Announced", []string{
			"since the network has an address that is not for Services: 198.18.0.0/26, where 198.18.0.1 is the address of node n1",
			"198.18.0.192/26, where 198.18.0.254 is the gateway of node n1", "203.0.113.0/26, where 203.0.113.1 is the address of BGPPeer tor",
		}}}},
		{"networks that the pool fills", func(c *configuration.Cluster) {
			c.L2Advertisements, c.BGPAdvertisements = nil, []*herald.BGPAdvertisement{bgp("routed", func(s *herald.BGPAdvertisementSpec) {
				s.AggregationLength = &herald.AggregationLength{IPv4: 28, IPv6: 64}
			})}
		}, []wanted{{"BGPAdvertisement routed", announced, "Announced", nil}}},
		{"no advertisement", func(c *configuration.Cluster) { c.L2Advertisements = nil }, []wanted{
			{"IPPool public", announced, "NoAdvertisement", []string{"no L2Advertisement or BGPAdvertisement selects the pool", "spec.pools: [public]"}},
		}},
		{"no pool", func(c *configuration.Cluster) { c.Pools = nil }, []wanted{
			{"L2Advertisement all", accepted, "Valid", nil},
			{"L2Advertisement all", announced, "NoPools", nil},
		}},
		{"a pool that is misspelt", func(c *configuration.Cluster) {
			c.L2Advertisements[0].Spec.Pools = []string{"pubic"}
		}, []wanted{
			{"L2Advertisement all", accepted, "PoolNotFound", []string{`spec.pools: there is no IPPool "pubic"`, "; there is only public"}},
			{"L2Advertisement all", announced, "NoPoolSelected", []string{"spec.pools names no IPPool that exists: correct it; there is only public"}},
			{"IPPool public", announced, "NoAdvertisement", nil},
		}},
		{"a pool that is misspelt beside one that is not", func(c *configuration.Cluster) {
			c.L2Advertisements[0].Spec.Pools = []string{"public", "gold\n" + strings.Repeat("x", 200)}
		}, []wanted{
			{"L2Advertisement all", accepted, "PoolNotFound", []string{`"gold xxx`, `x..."`}},
			{"L2Advertisement all", announced, "Announced", nil},
			{"IPPool public", announced, "Announced", nil},
		}},
		{"a selector that matches no pool", func(c *configuration.Cluster) {
			c.L2Advertisements[0].Spec.PoolSelector = matching("name", "gold")
		}, []wanted{
			{"L2Advertisement all", accepted, "Valid", nil},
			{"L2Advertisement all", announced, "NoPoolSelected", []string{"spec.poolSelector selects no IPPool: correct it; there is only public"}},
		}},
		{"a pool that is misspelt, and a selector that matches none, among several", func(c *configuration.Cluster) {
			c.Pools = append(c.Pools, pool("other", "198.51.100.0/24"))
			c.L2Advertisements[0].Spec.Pools, c.L2Advertisements[0].Spec.PoolSelector = []string{"pubic"}, matching("name", "gold")
		}, []wanted{
			{"L2Advertisement all", announced, "NoPoolSelected", []string{
				"spec.pools names no IPPool that exists, and spec.poolSelector selects none: correct them; there are other, public",
			}},
		}},
		{"a selector that cannot be read", func(c *configuration.Cluster) {
			c.L2Advertisements[0].Spec.Pools = []string{"public"}
			c.L2Advertisements[0].Spec.NodeSelector = unreadable
		}, []wanted{
			{"L2Advertisement all", accepted, "Invalid", []string{"spec.nodeSelector: ", "Near"}},
			{"L2Advertisement all", announced, "Invalid", []string{"condition Accepted"}},
			{"IPPool public", announced, "AdvertisementUnable", []string{"L2Advertisement all names the pool and is not valid"}},
		}},
		{"a selector that cannot be read, of an advertisement of all pools", func(c *configuration.Cluster) {
			c.L2Advertisements[0].Spec.NodeSelector = unreadable
		}, []wanted{
			{"L2Advertisement all", accepted, "Invalid", nil},
			{"IPPool public", announced, "AdvertisementUnable", []string{"L2Advertisement all may be meant for the pool and is not valid"}},
		}},
		{"a selector of pools that cannot be read", func(c *configuration.Cluster) {
			c.L2Advertisements[0].Spec.Pools, c.L2Advertisements[0].Spec.PoolSelector = []string{"other"}, unreadable
		}, []wanted{{"IPPool public", announced, "AdvertisementUnable", []string{"L2Advertisement all may be meant for the pool and is not valid"}}}},
		{"a selector that cannot be read, of an advertisement of another pool", func(c *configuration.Cluster) {
			c.L2Advertisements[0].Spec.Pools, c.L2Advertisements[0].Spec.NodeSelector = []string{"other"}, unreadable
		}, []wanted{{"IPPool public", announced, "NoAdvertisement", nil}}},
		{"preferred nodes that cannot be read", func(c *configuration.Cluster) {
			c.L2Advertisements[0].Spec.PreferredNodes = unreadable
		}, []wanted{{"L2Advertisement all", accepted, "Invalid", []string{"spec.preferredNodes: "}}}},
		{"preferred nodes that are none", func(c *configuration.Cluster) {
			c.L2Advertisements[0].Spec.PreferredNodes = matching("name", "n9")
		}, []wanted{{"L2Advertisement all", announced, "Announced", []string{"spec.preferredNodes matches no selected node"}}}},
		{"a node selector that matches nothing", func(c *configuration.Cluster) {
			c.L2Advertisements[0].Spec.NodeSelector = matching("rack", "9")
		}, []wanted{
			{"L2Advertisement all", announced, "NoNodeSelected", []string{"spec.nodeSelector matches no node"}},
			{"IPPool public", announced, "AdvertisementUnable", []string{"L2Advertisement all selects the pool and announces nothing: spec.nodeSelector"}},
		}},
		{"no nodes", func(c *configuration.Cluster) { c.Nodes = nil }, []wanted{
			{"L2Advertisement all", announced, "NoNodeSelected", []string{"there are no nodes"}},
		}},
		{"only the control plane is selected", func(c *configuration.Cluster) {
			c.Nodes[0].Labels[corev1.LabelNodeExcludeBalancers] = ""
			c.L2Advertisements[0].Spec.NodeSelector = matching("name", "n1")
		}, []wanted{
			{"L2Advertisement all", announced, "NodesExcluded", []string{"(n1) is excluded by the label " + corev1.LabelNodeExcludeBalancers + ": remove that"}},
		}},
		{"nodes that are being removed", func(c *configuration.Cluster) {
			for _, n := range c.Nodes {
				n.Spec.Taints = []corev1.Taint{{Key: "ToBeDeletedByClusterAutoscaler"}}
			}
		}, []wanted{{"L2Advertisement all", announced, "NodesExcluded", []string{"(n1, n2, n3) is excluded by the taint ToBeDeletedByClusterAutoscaler: remove that"}}}},
		{"nodes that are excluded for different reasons", func(c *configuration.Cluster) {
			c.Nodes[0].Labels[corev1.LabelNodeExcludeBalancers] = ""
			c.Nodes[1].Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeOutOfService}}
			c.Nodes[2].DeletionTimestamp = new(metav1.Unix(1, 0))
		}, []wanted{{"L2Advertisement all", announced, "NodesExcluded", []string{
			"(n1, n2, n3) is excluded by the deletion of the Node (n3), the label node.kubernetes.io/exclude-from-external-load-balancers (n1), the taint node.kubernetes.io/out-of-service (n2): remove that",
		}}}},
		{"no speaker runs", func(c *configuration.Cluster) { c.Speakers = nil }, []wanted{
			{"L2Advertisement all", announced, "NoSpeaker", []string{"(n1, n2, n3)", "herald-speaker"}},
			{"IPPool public", announced, "AdvertisementUnable", []string{"no speaker reports"}},
			{"BGPPeer tor", accepted, "Valid", nil},
			{"BGPPeer tor", established, "NoSpeaker", []string{"herald-speaker"}},
		}},
		{"no kube-proxy serves", func(c *configuration.Cluster) {
			everySpeaker(c, func(s *configuration.Speaker) { s.Problem = "kube-proxy does not serve on this node" })
		}, []wanted{
			{"L2Advertisement all", announced, "SpeakersUnable", []string{"node n1: kube-proxy does not serve on this node; and 2 more nodes"}},
		}},
		{"a pool off every subnet", func(c *configuration.Cluster) { c.Pools[0] = pool("public", "198.51.100.0/24") }, []wanted{
			{"IPPool public", announced, "OffSubnet", []string{
				"the pool's addresses are in no subnet", "L2Advertisement all", "198.51.100.0/24", "their IPv4 subnet is 198.18.0.0/24 on eth0", "BGPAdvertisement", "in spec.interfaces of L2Advertisement all",
			}},
			{"L2Advertisement all", announced, "OffSubnet", nil},
		}},
		{"a pool off every subnet from which addresses in use were taken out", func(c *configuration.Cluster) {
			c.Pools = []configuration.Pool{pool("public", "198.51.100.0/24"), pool("other", "198.51.101.0/24")}
			c.Pools[0].Status.Conditions = []metav1.Condition{{Type: herald.PoolInRange, Status: metav1.ConditionFalse}}
			c.Pools[1].Status.Conditions = []metav1.Condition{{Type: herald.PoolInRange, Status: metav1.ConditionTrue}}
		}, []wanted{{"L2Advertisement all", announced, "OffSubnet", []string{
			"; addresses that Services still have and that were taken out of IPPool public are announced as before: its condition InRange names them",
		}}}},
		{"a pool on the subnet of a node that announces nothing", func(c *configuration.Cluster) {
			c.Pools[0] = pool("public", "198.19.0.0/26")
			speaker(c, "n3", func(s *configuration.Speaker) {
				s.Interfaces[0].Subnets, s.Problem = []netip.Prefix{netip.MustParsePrefix("198.19.0.3/24")}, "kube-proxy does not serve on this node"
			})
		}, []wanted{
			{"IPPool public", announced, "AdvertisementUnable", []string{
				"L2Advertisement all selects the pool", "node n3, which has a subnet of its addresses, announces nothing: kube-proxy does not serve",
			}},
			{"L2Advertisement all", announced, "SpeakersUnable", []string{"announce nothing: node n3: kube-proxy does not serve"}},
		}},
		{"a pool on the subnet of nodes whose speakers have ended", func(c *configuration.Cluster) {
			c.Pools[0] = pool("public", "198.19.0.0/26")
			for _, n := range []string{"n2", "n3"} {
				speaker(c, n, func(s *configuration.Speaker) {
					s.Interfaces[0].Subnets, s.Silent = []netip.Prefix{netip.MustParsePrefix("198.19.0.3/24")}, true
				})
			}
		}, []wanted{
			{"IPPool public", announced, "AdvertisementUnable", []string{
				"node n2, which has a subnet of its addresses, announces nothing: its speaker does not report; and 1 more node",
			}},
			{"L2Advertisement all", announced, "NoSpeaker", []string{"announce nothing: node n2: its speaker does not report; and 1 more node"}},
		}},
		{"a pool off every subnet, and a node that announces nothing", func(c *configuration.Cluster) {
			c.Pools[0] = pool("public", "198.51.100.0/24")
			speaker(c, "n3", func(s *configuration.Speaker) { s.Silent = true })
		}, []wanted{{"IPPool public", announced, "OffSubnet", nil}}},
		{"a pool off every subnet, and a node that takes everything for its subnet", func(c *configuration.Cluster) {
			c.Pools[0] = pool("public", "198.51.100.0/24", "2001:db8::/64")
			speaker(c, "n3", func(s *configuration.Speaker) {
				s.Interfaces = []configuration.Interface{{Name: "eth0", Subnets: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("128.0.0.0/1"), netip.MustParsePrefix("::/0"), netip.MustParsePrefix("2000::/12")}}}
			})
		}, []wanted{{"IPPool public", announced, "OffSubnet", []string{"their IPv4 subnet is 198.18.0.0/24 on eth0; they have no IPv6 subnet"}}}},
		{"one range of several off every subnet", func(c *configuration.Cluster) {
			c.Pools[0] = pool("public", "198.18.0.192/27", "198.51.100.0/24")
		}, []wanted{
			{"IPPool public", announced, "PartlyOffSubnet", []string{"these addresses of the pool", ": 198.51.100.0/24; "}},
			{"L2Advertisement all", announced, "Announced", nil},
		}},
		{"IPv6 on the segment of nodes without", func(c *configuration.Cluster) {
			c.Pools[0] = pool("public", "198.18.0.192/27", "2001:db8:1::/112")
		}, []wanted{
			{"IPPool public", announced, "PartlyOffSubnet", []string{": 2001:db8:1::/112; they have no IPv6 subnet"}},
		}},
		{"a pool off every subnet that is routed as well", func(c *configuration.Cluster) {
			c.Pools[0] = pool("public", "198.51.100.0/24", "2001:db8:1::/112")
			c.BGPAdvertisements = append(c.BGPAdvertisements, bgp("routed"))
		}, []wanted{{"IPPool public", announced, "Announced", nil}}},
		{"a pool off every subnet on an interface that is named", func(c *configuration.Cluster) {
			c.Pools[0] = pool("public", "198.51.100.0/24")
			c.L2Advertisements[0].Spec.Interfaces = []string{"eth0"}
		}, []wanted{{"IPPool public", announced, "Announced", nil}}},
		{"two advertisements, each for a part", func(c *configuration.Cluster) {
			c.Pools[0] = pool("public", "198.18.0.192/27", "198.19.0.0/24")
			speaker(c, "n3", func(s *configuration.Speaker) {
				s.Interfaces = []configuration.Interface{{Name: "eth1", Subnets: []netip.Prefix{netip.MustParsePrefix("198.19.0.3/24")}}}
			})
			c.L2Advertisements = []*herald.L2Advertisement{
				l2("x", func(s *herald.L2AdvertisementSpec) { s.NodeSelector = matching("name", "n1") }),
				l2("y", func(s *herald.L2AdvertisementSpec) { s.NodeSelector = matching("name", "n3") }),
			}
		}, []wanted{{"IPPool public", announced, "Announced", nil}}},
		{"a pool that cannot be read", func(c *configuration.Cluster) { c.Pools[0].Addresses = nil }, []wanted{
			{"IPPool public", announced, "Announced", nil}, // Accepted has the error.
		}},
		{"an interface that is not there", func(c *configuration.Cluster) {
			c.L2Advertisements[0].Spec.Interfaces = []string{"eht0"}
		}, []wanted{
			{"L2Advertisement all", announced, "InterfaceNotFound", []string{`"eht0"`, "; there is only eth0"}},
			{"IPPool public", announced, "AdvertisementUnable", []string{`"eht0"`}},
		}},
		{"one of two interfaces that is not there", func(c *configuration.Cluster) {
			c.L2Advertisements[0].Spec.Interfaces = []string{"eth0", "eth9"}
		}, []wanted{
			{"L2Advertisement all", announced, "Announced", []string{`"eth9"`}},
			{"IPPool public", announced, "Announced", nil},
		}},
		{"a peer that is misspelt", func(c *configuration.Cluster) {
			c.L2Advertisements = nil
			c.BGPAdvertisements = append(c.BGPAdvertisements, bgp("routed", func(s *herald.BGPAdvertisementSpec) { s.Peers = []string{"torr"} }))
		}, []wanted{
			{"BGPAdvertisement routed", accepted, "PeerNotFound", []string{`spec.peers: there is no BGPPeer "torr"`, "; there is only tor"}},
			{"BGPAdvertisement routed", announced, "NoPeerSelected", []string{"spec.peers names no BGPPeer that exists: correct it; there is only tor"}},
			{"IPPool public", announced, "AdvertisementUnable", []string{"BGPAdvertisement routed selects the pool and announces nothing"}},
		}},
		{"a peer and a pool that are misspelt", func(c *configuration.Cluster) {
			c.BGPAdvertisements = append(c.BGPAdvertisements, bgp("routed", func(s *herald.BGPAdvertisementSpec) {
				s.Peers, s.Pools = []string{"tor", "torr"}, []string{"public", "gold"}
			}))
		}, []wanted{
			{"BGPAdvertisement routed", accepted, "PoolNotFound", []string{`"gold"`, `"torr"`}},
			{"BGPAdvertisement routed", announced, "Announced", nil},
		}},
		{"a peer selector that matches nothing", func(c *configuration.Cluster) {
			c.BGPAdvertisements = append(c.BGPAdvertisements, bgp("routed", func(s *herald.BGPAdvertisementSpec) { s.PeerSelector = matching("name", "spine") }))
		}, []wanted{{"BGPAdvertisement routed", announced, "NoPeerSelected", []string{"spec.peerSelector selects no BGPPeer: correct it; there is only tor"}}}},
		{"no peers", func(c *configuration.Cluster) {
			c.Peers = nil
			c.BGPAdvertisements = append(c.BGPAdvertisements, bgp("routed"))
		}, []wanted{{"BGPAdvertisement routed", announced, "NoPeers", []string{"create one"}}}},
		{"peers of other nodes", func(c *configuration.Cluster) {
			c.Peers[0].Spec.NodeSelector = matching("name", "n3")
			c.BGPAdvertisements = append(c.BGPAdvertisements, bgp("routed", func(s *herald.BGPAdvertisementSpec) { s.NodeSelector = matching("name", "n1") }))
		}, []wanted{{"BGPAdvertisement routed", announced, "PeersOnOtherNodes", []string{"BGPPeer tor", "spec.nodeSelector"}}}},
		{"no session is up", func(c *configuration.Cluster) {
			everySpeaker(c, func(s *configuration.Speaker) {
				s.Sessions = []herald.SpeakerSession{session("tor", "Down", "the router ended the session: Bad Peer AS")}
			})
			c.L2Advertisements = nil
			c.BGPAdvertisements = append(c.BGPAdvertisements, bgp("routed"))
		}, []wanted{
			{"BGPPeer tor", accepted, "Valid", nil},
			{"BGPPeer tor", established, "NoSession", []string{"node n1: the router ended the session: Bad Peer AS; and 2 more nodes"}},
			{"BGPAdvertisement routed", announced, "NoSession", []string{"BGPPeer tor", "condition Established"}},
			{"IPPool public", announced, "AdvertisementUnable", []string{"no selected node has an established session"}},
		}},
		{"one of three sessions is down", func(c *configuration.Cluster) {
			c.BGPAdvertisements = append(c.BGPAdvertisements, bgp("routed"))
			speaker(c, "n2", func(s *configuration.Speaker) { s.Sessions[0] = session("tor", "Down", "connection refused") })
		}, []wanted{
			{"BGPPeer tor", established, "SessionsDown", []string{"node n2: connection refused"}},
			{"BGPAdvertisement routed", announced, "Announced", nil},
		}},
		{"a session that is being set up, one that is not reported, and one of a node that is lost", func(c *configuration.Cluster) {
			speaker(c, "n1", func(s *configuration.Speaker) { s.Sessions[0] = session("tor", "Down", "") })
			speaker(c, "n2", func(s *configuration.Speaker) { s.Sessions = nil })
			c.Nodes[2].Status.Conditions[0].Status = corev1.ConditionUnknown
		}, []wanted{{"BGPPeer tor", established, "NoSession", []string{"node n1: the session is being set up; and 2 more nodes"}}}},
		{"sessions that a SpeakerStatus has no room for", func(c *configuration.Cluster) {
			speaker(c, "n2", func(s *configuration.Speaker) {
				s.Sessions = nil
				for i := range 64 {
					s.Sessions = append(s.Sessions, session(fmt.Sprintf("rack-%02d", i), "Established", ""))
				}
			})
		}, []wanted{{"BGPPeer tor", established, "SessionsDown", []string{"node n2: its SpeakerStatus has the first 64 sessions by name, and not this one: kubectl herald bgp peers tor asks"}}}},
		{"a router without IPv6", func(c *configuration.Cluster) {
			speaker(c, "n2", func(s *configuration.Speaker) {
				s.Sessions[0].Reason = "the router does not speak IPv6 unicast on this session"
				s.Sessions[0].Withheld = []herald.IPFamily{herald.IPv6}
			})
			c.BGPAdvertisements = append(c.BGPAdvertisements, bgp("routed"))
		}, []wanted{
			{"BGPPeer tor", established, "Established", []string{"node n2: the router does not speak IPv6"}},
			{"BGPAdvertisement routed", announced, "Announced", nil},
		}},
		{"a router that no node sends routes of a family", func(c *configuration.Cluster) {
			everySpeaker(c, func(s *configuration.Speaker) { s.Sessions[0].Withheld = []herald.IPFamily{herald.IPv6} })
			c.BGPAdvertisements = append(c.BGPAdvertisements, bgp("routed"))
		}, []wanted{{"BGPAdvertisement routed", announced, "Announced", []string{"every selected node withholds the routes of a family from BGPPeer tor"}}}},
		{"speakers that have ended", func(c *configuration.Cluster) {
			everySpeaker(c, func(s *configuration.Speaker) { s.Silent = true })
			c.BGPAdvertisements = append(c.BGPAdvertisements, bgp("routed"))
		}, []wanted{
			{"BGPPeer tor", established, "NoSession", []string{"node n1: its speaker does not renew its Lease", "and 2 more nodes"}},
			{"BGPAdvertisement routed", announced, "NoSpeaker", []string{"no speaker reports from the selected nodes (n1, n2, n3)"}},
			{"IPPool public", announced, "AdvertisementUnable", nil},
		}},
		{"a Secret that is missing", func(c *configuration.Cluster) {
			everySpeaker(c, func(s *configuration.Speaker) {
				s.Sessions[0] = session("tor", "Invalid", "spec.passwordSecret: there is no Secret herald-system/tor")
			})
		}, []wanted{
			{"BGPPeer tor", accepted, "SecretMissing", []string{"node n1: spec.passwordSecret: there is no Secret herald-system/tor; and 2 more nodes"}},
			{"BGPPeer tor", established, "NoSession", []string{"there is no Secret"}},
		}},
		{"a peer that one node cannot use", func(c *configuration.Cluster) {
			speaker(c, "n3", func(s *configuration.Speaker) {
				s.Sessions[0] = session("tor", "Invalid", "link-local\x00 and needs its interface")
			})
		}, []wanted{
			{"BGPPeer tor", accepted, "Invalid", []string{"node n3: link-local  and needs its interface"}},
			{"BGPPeer tor", established, "SessionsDown", []string{"node n3"}},
		}},
		{"a peer that one node cannot use, without a reason", func(c *configuration.Cluster) {
			speaker(c, "n3", func(s *configuration.Speaker) { s.Sessions[0] = session("tor", "Invalid", "") })
		}, []wanted{
			{"BGPPeer tor", accepted, "Invalid", []string{"node n3: its speaker cannot use the BGPPeer: see its log"}},
			{"BGPPeer tor", established, "SessionsDown", []string{"node n3: its speaker cannot use the BGPPeer: see its log"}},
		}},
		{"a peer with BFD", func(c *configuration.Cluster) {
			c.Peers[0].Spec.BFD = &herald.BFD{}
			for _, n := range []string{"n1", "n2", "n3"} {
				speaker(c, n, func(s *configuration.Speaker) { s.Sessions[0].BFD = "Up" })
			}
		}, []wanted{
			{"BGPPeer tor", herald.ConditionPathsAlive, "Alive", nil},
			{"BGPPeer tor", established, "Established", nil},
		}},
		{"a peer with BFD that one node does not hear", func(c *configuration.Cluster) {
			c.Peers[0].Spec.BFD = &herald.BFD{}
			for _, n := range []string{"n1", "n2"} {
				speaker(c, n, func(s *configuration.Speaker) { s.Sessions[0].BFD = "Up" })
			}
			speaker(c, "n3", func(s *configuration.Speaker) {
				s.Sessions[0].BFD, s.Sessions[0].BFDReason = "Down", "the router has fallen\x00 silent"
			})
		}, []wanted{
			{"BGPPeer tor", herald.ConditionPathsAlive, "BFDDown", []string{"node n3: the router has fallen  silent; the BGP session does not wait for BFD"}},
			{"BGPPeer tor", established, "Established", nil},
		}},
		{"a peer with BFD of which nothing is told yet", func(c *configuration.Cluster) {
			c.Peers[0].Spec.BFD = &herald.BFD{}
		}, []wanted{
			{"BGPPeer tor", herald.ConditionPathsAlive, "BFDDown", []string{"node n1: BFD is not up yet; and 2 more nodes"}},
		}},
		{"a peer whose node selector matches nothing", func(c *configuration.Cluster) {
			c.Peers[0].Spec.NodeSelector = matching("rack", "9")
		}, []wanted{
			{"BGPPeer tor", accepted, "NoNodeSelected", []string{"spec.nodeSelector matches no node"}},
			{"BGPPeer tor", established, "NoNodeSelected", []string{"condition Accepted"}},
		}},
		{"a peer whose node selector cannot be read", func(c *configuration.Cluster) {
			c.Peers[0].Spec.NodeSelector = unreadable
		}, []wanted{{"BGPPeer tor", accepted, "Invalid", []string{"spec.nodeSelector: "}}}},
		{"a report of a node that is gone", func(c *configuration.Cluster) {
			c.Speakers["n9"] = configuration.Speaker{Sessions: []herald.SpeakerSession{session("tor", "Invalid", "lies")}}
		}, []wanted{
			{"BGPPeer tor", accepted, "Valid", nil},
			{"BGPPeer tor", established, "Established", nil},
		}},
		{"a hostile report", func(c *configuration.Cluster) {
			speaker(c, "n1", func(s *configuration.Speaker) {
				s.Sessions[0] = session("tor", "Down", "\x1b[2J\xff"+strings.Repeat("a", 100_000))
			})
		}, []wanted{{"BGPPeer tor", established, "SessionsDown", []string{"node n1:  [2J"}}}},
	} {
		t.Run(story.name, func(t *testing.T) {
			c := healthy()
			story.edit(c)
			a := configuration.Assess(*c)
			for _, w := range story.want {
				is := meta.FindStatusCondition(conditions(t, a, w.object), w.condition)
				if is == nil {
					t.Errorf("%s has no condition %s", w.object, w.condition)
					continue
				}
				if is.Reason != w.reason || (is.Status == metav1.ConditionTrue) != good[w.reason] {
					t.Errorf("%s: %s=%s, %s: %s; want reason %s", w.object, is.Type, is.Status, is.Reason, is.Message, w.reason)
				}
				for _, part := range w.message {
					if !strings.Contains(is.Message, part) {
						t.Errorf("%s: %s says %q, which lacks %q", w.object, is.Type, is.Message, part)
					}
				}
				if (is.Status != metav1.ConditionTrue || strings.HasPrefix(w.object, "IPPool ")) && is.Message == "" {
					t.Errorf("%s: %s=%s has no message", w.object, is.Type, is.Status)
				}
				if is.ObservedGeneration != generation {
					t.Errorf("%s: %s is of generation %d", w.object, is.Type, is.ObservedGeneration)
				}
				if len(is.Message) > 1500 || !utf8.ValidString(is.Message) || strings.ContainsFunc(is.Message, unicode.IsControl) {
					t.Errorf("%s: %s says %q", w.object, is.Type, is.Message)
				}
			}
		})
	}
}

// TestWhoDecidesTheAttributes checks that, of two advertisements for one route, the first by name decides, and the
// other one reports it.
func TestWhoDecidesTheAttributes(t *testing.T) {
	far := func(s *herald.BGPAdvertisementSpec) { s.Prepend = 2 }
	networks := func(four, six int32) func(*herald.BGPAdvertisementSpec) {
		return func(s *herald.BGPAdvertisementSpec) {
			s.AggregationLength = &herald.AggregationLength{IPv4: four, IPv6: six}
		}
	}
	asking := func(key string, how metav1.LabelSelectorOperator, values ...string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: key, Operator: how, Values: values}}}
	}
	for _, story := range []struct {
		name       string
		x, y       func(*herald.BGPAdvertisementSpec)
		overridden bool
		pools      []string // the addresses of one pool; nil: those of public and internal
	}{
		{"other attributes", func(*herald.BGPAdvertisementSpec) {}, far, true, nil},
		{"the same attributes", far, far, false, nil},
		{"the same communities in another order", func(s *herald.BGPAdvertisementSpec) { s.Communities = []herald.Community{"1:1", "1:2"} },
			func(s *herald.BGPAdvertisementSpec) { s.Communities = []herald.Community{"1:2", "1:1"} }, false, nil},
		{"local preferences that differ", func(s *herald.BGPAdvertisementSpec) { s.LocalPreference = new(int64(0)) }, func(*herald.BGPAdvertisementSpec) {}, true, nil},
		{"other pools", func(s *herald.BGPAdvertisementSpec) { s.Pools = []string{"public"} }, func(s *herald.BGPAdvertisementSpec) {
			far(s)
			s.Pools = []string{"internal"}
		}, false, nil},
		{"other peers", func(s *herald.BGPAdvertisementSpec) { s.Peers = []string{"tor"} }, func(s *herald.BGPAdvertisementSpec) {
			far(s)
			s.Peers = []string{"spine"}
		}, false, nil},
		{"other nodes", func(s *herald.BGPAdvertisementSpec) { s.NodeSelector = matching("name", "n1") }, func(s *herald.BGPAdvertisementSpec) {
			far(s)
			s.NodeSelector = matching("name", "n2")
		}, false, nil},
		{"other Services", func(s *herald.BGPAdvertisementSpec) { s.ServiceSelector = matching("app", "web") }, func(s *herald.BGPAdvertisementSpec) {
			far(s)
			s.ServiceSelector = matching("app", "mail")
		}, false, nil},
		{"Services that may be the same", func(s *herald.BGPAdvertisementSpec) { s.ServiceSelector = matching("app", "web") }, func(s *herald.BGPAdvertisementSpec) {
			far(s)
			s.ServiceSelector = matching("tier", "front")
		}, true, nil},
		{"other namespaces", func(s *herald.BGPAdvertisementSpec) { s.NamespaceSelector = matching("team", "a") }, func(s *herald.BGPAdvertisementSpec) {
			far(s)
			s.NamespaceSelector = matching("team", "b")
		}, false, nil},
		{"Services with and without a label", func(s *herald.BGPAdvertisementSpec) { s.ServiceSelector = asking("gold", metav1.LabelSelectorOpExists) }, func(s *herald.BGPAdvertisementSpec) {
			far(s)
			s.ServiceSelector = asking("gold", metav1.LabelSelectorOpDoesNotExist)
		}, false, nil},
		{"Services with and without a value", func(s *herald.BGPAdvertisementSpec) { s.ServiceSelector = matching("tier", "gold") }, func(s *herald.BGPAdvertisementSpec) {
			far(s)
			s.ServiceSelector = asking("tier", metav1.LabelSelectorOpNotIn, "gold")
		}, false, nil},
		{"Services of all values but two", func(s *herald.BGPAdvertisementSpec) {
			s.ServiceSelector = asking("tier", metav1.LabelSelectorOpNotIn, "gold")
		}, func(s *herald.BGPAdvertisementSpec) {
			far(s)
			s.ServiceSelector = asking("tier", metav1.LabelSelectorOpNotIn, "silver")
		}, true, nil},
		{"networks, and the addresses in them", networks(24, 64), far, false, []string{"198.51.100.0/24", "2001:db8::/64"}},
		{"networks of a pool of one family, and the addresses in them", networks(24, 0), far, false, []string{"198.51.100.0/24"}},
		{"networks of one family of two", networks(24, 0), far, true, []string{"198.51.100.0/24", "2001:db8::/64"}},
		{"networks that the pool does not fill", networks(24, 64), far, true, []string{"198.51.100.0/27"}},
		{"networks that the pool fills but for some addresses", networks(24, 64), far, true, []string{"198.51.100.0/24", "198.51.101.0/28"}},
		{"networks with a peer in them", networks(24, 64), far, true, []string{"203.0.113.0/24"}},
		{"the same networks", networks(24, 64), func(s *herald.BGPAdvertisementSpec) {
			far(s)
			networks(24, 64)(s)
		}, true, []string{"198.51.100.0/24"}},
		{"networks of two lengths", networks(24, 64), func(s *herald.BGPAdvertisementSpec) {
			far(s)
			networks(25, 64)(s)
		}, false, []string{"198.51.100.0/24"}},
		{"networks of two lengths that the pool fills only in part", networks(24, 64), func(s *herald.BGPAdvertisementSpec) {
			far(s)
			networks(25, 64)(s)
		}, false, []string{"198.51.100.0/25"}},
		{"networks of two lengths that the pool fills nowhere", networks(24, 64), func(s *herald.BGPAdvertisementSpec) {
			far(s)
			networks(25, 64)(s)
		}, true, []string{"198.51.100.0/27"}},
		{"networks of two lengths with a peer in both", networks(24, 64), func(s *herald.BGPAdvertisementSpec) {
			far(s)
			networks(25, 64)(s)
		}, true, []string{"203.0.113.0/24"}},
		{"networks of two lengths, and a peer in addresses that fill the longer one only", networks(24, 64), func(s *herald.BGPAdvertisementSpec) {
			far(s)
			networks(25, 64)(s)
		}, true, []string{"203.0.113.0/25"}},
		{"networks of a single address", networks(32, 128), far, true, []string{"198.51.100.0/24"}},
	} {
		t.Run(story.name, func(t *testing.T) {
			c := healthy()
			c.Pools = append(c.Pools, pool("internal", "198.51.100.0/24"))
			if story.pools != nil {
				c.Pools = []configuration.Pool{pool("public", story.pools...)}
			}
			c.Peers = append(c.Peers, peer("spine", "203.0.113.2"))
			for _, n := range c.Nodes {
				n.Labels = map[string]string{"name": n.Name}
			}
			c.BGPAdvertisements = []*herald.BGPAdvertisement{bgp("b", story.y), bgp("a", story.x)}
			a := configuration.Assess(*c)
			if first := meta.FindStatusCondition(a.BGPAdvertisements["a"].Conditions, herald.ConditionExclusive); first.Status != metav1.ConditionTrue {
				t.Errorf("the first: %+v", first)
			}
			got := meta.FindStatusCondition(a.BGPAdvertisements["b"].Conditions, herald.ConditionExclusive)
			if (got.Status == metav1.ConditionFalse) != story.overridden {
				t.Fatalf("the second: %+v", got)
			}
			if story.overridden && (got.Reason != herald.ReasonOverridden || !strings.Contains(got.Message, "have the attributes of BGPAdvertisement a, which comes first by name")) {
				t.Errorf("%s: %s", got.Reason, got.Message)
			}
		})
	}
}

func TestCounts(t *testing.T) {
	c := healthy()
	c.Pools = append(c.Pools, pool("gold", "198.18.0.128/28"))
	c.Nodes[0].Labels[corev1.LabelNodeExcludeBalancers] = ""
	c.BGPAdvertisements = append(c.BGPAdvertisements, bgp("routed", func(s *herald.BGPAdvertisementSpec) { s.Pools = []string{"gold"} }))
	speaker(c, "n3", func(s *configuration.Speaker) { s.Sessions[0] = session("tor", "Down", "") })
	a := configuration.Assess(*c)
	if st := a.L2Advertisements["all"]; st.Pools != 2 || st.Nodes != 2 {
		t.Errorf("L2Advertisement: %d pools, %d nodes; want 2 and 2", st.Pools, st.Nodes)
	}
	if st := a.BGPAdvertisements["routed"]; st.Pools != 1 || st.Nodes != 2 {
		t.Errorf("BGPAdvertisement: %d pools, %d nodes; want 1 and 2", st.Pools, st.Nodes)
	}
	// A node that is excluded from announcing still has its sessions.
	if st := a.Peers["tor"]; st.Sessions != "2/3" {
		t.Errorf("BGPPeer: %s sessions, want 2/3", st.Sessions)
	}
}

func TestClusterNetworks(t *testing.T) {
	for _, story := range []struct{ pool, want string }{
		{"198.18.0.192/27", ""},
		{"10.96.7.0/24", "10.96.0.0/16, the range of ClusterIPs"},
		{"10.244.2.128/25", "10.244.2.0/24, the addresses of pods on node n2"},
		{"10.0.0.0/8", "10.96.0.0/16, the range of ClusterIPs, 10.244.1.0/24, the addresses of pods on node n1, 10.244.2.0/24"},
	} {
		c := healthy()
		c.Pools[0] = pool("public", story.pool)
		got := configuration.Assess(*c).Pools["public"].InClusterNetwork
		if !strings.Contains(got, story.want) || (got == "") != (story.want == "") {
			t.Errorf("%s: %q, want %q", story.pool, got, story.want)
		}
	}
}

func TestOccupied(t *testing.T) {
	c := healthy()
	c.Nodes[1].Status.Addresses = append(c.Nodes[1].Status.Addresses, corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: "203.0.113.200"},
		corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: "no address"})
	speaker(c, "n3", func(s *configuration.Speaker) {
		s.Interfaces = append(s.Interfaces, configuration.Interface{Name: "bond0", Subnets: []netip.Prefix{
			netip.MustParsePrefix("2001:db8::3/64"), netip.MustParsePrefix("192.0.2.0/31"), netip.MustParsePrefix("192.0.2.9/32"), netip.MustParsePrefix("198.19.0.3/29"),
		}})
	})
	occupied := c.Occupied()
	for address, want := range map[string]string{
		"198.18.0.0":    "the network address of 198.18.0.0/24",
		"198.18.0.1":    "the address of node n1",
		"198.18.0.254":  "the gateway of node n1 on eth0",
		"198.18.0.255":  "the broadcast address of 198.18.0.0/24",
		"203.0.113.1":   "the address of BGPPeer tor",
		"203.0.113.200": "the address of node n2",
		"198.19.0.3":    "the address of node n3",
		"198.19.0.7":    "the broadcast address of 198.19.0.0/29",
		"2001:db8::":    "the Subnet-Router anycast address of 2001:db8::/64",
		"2001:db8::3":   "the address of node n3",
		// Subnets of two addresses, or of one, have no network address. No other address is occupied either.
		"192.0.2.1":   "",
		"192.0.2.9":   "",
		"198.18.0.4":  "",
		"2001:db8::4": "",
	} {
		if got := occupied[netip.MustParseAddr(address)]; got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}

	c.Pools[0] = pool("public", "198.18.0.0/30", "198.18.0.252/30")
	got := strings.Join(configuration.Assess(*c).Pools["public"].Occupied, ", ")
	const want = "198.18.0.0 (the network address of 198.18.0.0/24), 198.18.0.1 (the address of node n1), 198.18.0.2 (the address of node n2), " +
		"198.18.0.3 (the address of node n3), 198.18.0.254 (the gateway of node n1 on eth0), 198.18.0.255 (the broadcast address of 198.18.0.0/24)"
	if got != want {
		t.Errorf("of the pool:\n%s\nwant\n%s", got, want)
	}
}

// TestOccupiedByAHostileNode checks that the report of one node takes only a few addresses out of the pools.
func TestOccupiedByAHostileNode(t *testing.T) {
	c := healthy()
	before := len(c.Occupied())
	speaker(c, "n1", func(s *configuration.Speaker) {
		for i := range 200 {
			s.Interfaces[0].Gateways = append(s.Interfaces[0].Gateways, netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}))
		}
	})
	after := c.Occupied()
	if len(after) > before+64 {
		t.Errorf("%d addresses are occupied, %d before", len(after), before)
	}
	for _, own := range []string{"198.18.0.1", "198.18.0.2", "198.18.0.254", "198.18.0.255"} {
		if after[netip.MustParseAddr(own)] == "" {
			t.Errorf("%s is not occupied any more", own)
		}
	}
}

// TestAnnouncers has nodes that must announce addresses, and others. Whether they have a speaker makes no difference.
func TestAnnouncers(t *testing.T) {
	node := func(c *configuration.Cluster, i int, edit func(*corev1.Node)) { edit(c.Nodes[i]) }
	onN1 := func(s *herald.BGPAdvertisementSpec) { s.NodeSelector = matching("name", "n1") }
	for name, c := range map[string]struct {
		edit func(*configuration.Cluster)
		want string
	}{
		"all":                  {func(*configuration.Cluster) {}, "n1 n2 n3"},
		"without speakers":     {func(c *configuration.Cluster) { c.Speakers = nil }, "n1 n2 n3"},
		"no advertisement":     {func(c *configuration.Cluster) { c.L2Advertisements = nil }, ""},
		"selected for segment": {func(c *configuration.Cluster) { c.L2Advertisements[0].Spec.NodeSelector = matching("name", "n2") }, "n2"},
		"invalid":              {func(c *configuration.Cluster) { c.L2Advertisements[0].Spec.NodeSelector = unreadable }, ""},
		"excluded, of Windows, and not Ready": {func(c *configuration.Cluster) {
			node(c, 0, func(n *corev1.Node) { n.Labels[corev1.LabelNodeExcludeBalancers] = "" })
			node(c, 1, func(n *corev1.Node) { n.Labels[corev1.LabelOSStable] = "windows" })
			node(c, 2, func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown })
		}, ""},
		"of Linux, and being shut down": {func(c *configuration.Cluster) {
			node(c, 0, func(n *corev1.Node) { n.Labels[corev1.LabelOSStable] = "linux" })
			node(c, 1, func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeOutOfService}} })
		}, "n1 n3"},
		"by two advertisements": {func(c *configuration.Cluster) {
			c.L2Advertisements[0].Spec.NodeSelector = matching("name", "n2")
			c.BGPAdvertisements = append(c.BGPAdvertisements, bgp("fabric", onN1))
		}, "n1 n2"},
		"to a peer that other nodes hold": {func(c *configuration.Cluster) {
			c.L2Advertisements, c.BGPAdvertisements = nil, append(c.BGPAdvertisements, bgp("fabric", onN1))
			c.Peers[0].Spec.NodeSelector = matching("name", "n2")
		}, ""},
		"to a peer that some nodes hold": {func(c *configuration.Cluster) {
			c.L2Advertisements, c.BGPAdvertisements = nil, append(c.BGPAdvertisements, bgp("fabric"))
			c.Peers[0].Spec.NodeSelector = matching("name", "n2")
		}, "n2"},
		"without a peer": {func(c *configuration.Cluster) {
			c.L2Advertisements, c.BGPAdvertisements, c.Peers = nil, append(c.BGPAdvertisements, bgp("fabric")), nil
		}, ""},
	} {
		cluster := healthy()
		c.edit(cluster)
		if got := strings.Join(configuration.Assess(*cluster).Announcers, " "); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
