// Package configuration computes the status of the configuration objects: IPPools, advertisements and BGPPeers.
//
// [Assess] is a function of the objects, the nodes and the reports of the speakers. It uses no client and no clock: package
// provider passes it the objects, and writes the result into their status. If several objects are part of one mistake, each
// status describes the part of its own object: a BGPAdvertisement says that it names a BGPPeer that does not exist, and the
// IPPool that it selects says that nothing announces its addresses.
//
// Reports come from the nodes, and whoever controls a node writes its report. Text that is quoted from a report is short
// and has no control characters. A report affects only what is said about its own node, and about the pools and peers that
// this node, by its own account, reaches.
package configuration

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// Cluster is the input of an assessment. The order of the objects does not matter.
type Cluster struct {
	Pools             []Pool
	L2Advertisements  []*herald.L2Advertisement
	BGPAdvertisements []*herald.BGPAdvertisement
	Peers             []*herald.BGPPeer
	// Nodes must have their labels, taints, pod CIDRs, addresses and the condition Ready.
	Nodes []*corev1.Node
	// Speakers are the reports of the speakers, by node.
	Speakers map[string]Speaker
	// ServiceCIDRs are the ranges of ClusterIPs.
	ServiceCIDRs []netip.Prefix
}

// Pool is an IPPool with its parsed addresses.
type Pool struct {
	*herald.IPPool
	// Addresses are nil if spec.addresses cannot be parsed.
	Addresses *netipx.IPSet
}

// Speaker is the report of one speaker.
type Speaker struct {
	Interfaces []Interface
	Sessions   []herald.SpeakerSession
	// Problem is why the node announces nothing; empty if it does.
	Problem string
	// Silent is true if the speaker has ended, or does not reach the API server. What it reported is then out of date.
	Silent bool
}

// Interface is an interface of a node.
type Interface struct {
	Name string
	// Subnets are the interface's addresses, each with its prefix length.
	Subnets  []netip.Prefix
	Gateways []netip.Addr
}

// Assessment has the status of each object, by name. Its conditions have no transition times.
type Assessment struct {
	Pools             map[string]PoolAssessment
	L2Advertisements  map[string]herald.AdvertisementStatus
	BGPAdvertisements map[string]herald.AdvertisementStatus
	Peers             map[string]herald.BGPPeerStatus
	// Occupied are the addresses that the network itself uses and that must not be assigned: see [Cluster.Occupied].
	Occupied map[netip.Addr]string
	// Announcers are the names of the nodes that must announce addresses, whether or not they have a speaker: the nodes
	// that are Ready, not excluded, and selected by an advertisement. A node that only BGPAdvertisements select must also
	// have a session with a peer of one of them.
	Announcers []string
}

// PoolAssessment is the assessment of an IPPool, except for the use of its addresses.
type PoolAssessment struct {
	Announced metav1.Condition
	// InClusterNetwork says which addresses of the pool are also those of pods or Services, and the remedy. It is empty if
	// there are none.
	InClusterNetwork string
	// Occupied lists the addresses of the pool that are in Assessment.Occupied, with their descriptions.
	Occupied []string
}

// Assess assesses every configuration object.
func Assess(c Cluster) Assessment {
	all := newView(c)
	a := Assessment{
		Pools:             make(map[string]PoolAssessment, len(c.Pools)),
		L2Advertisements:  make(map[string]herald.AdvertisementStatus, len(c.L2Advertisements)),
		BGPAdvertisements: make(map[string]herald.AdvertisementStatus, len(c.BGPAdvertisements)),
		Peers:             make(map[string]herald.BGPPeerStatus, len(c.Peers)),
		Occupied:          c.Occupied(),
	}
	var ads []*advertisement
	for _, o := range c.L2Advertisements {
		ads = append(ads, all.l2(o))
	}
	for _, o := range c.BGPAdvertisements {
		ads = append(ads, all.bgp(o))
	}
	slices.SortStableFunc(ads, func(x, y *advertisement) int { return cmp.Compare(x.object, y.object) })
	networks, occupied := newNetworks(c), sorted(a.Occupied)
	for _, p := range c.Pools {
		a.Pools[p.Name] = PoolAssessment{
			Announced:        announcedPool(p, ads),
			InClusterNetwork: networks.overlapping(p.Addresses),
			Occupied:         occupied.in(p.Addresses),
		}
	}
	for _, ad := range ads {
		if ad.bgp {
			st := all.status(ad)
			st.Conditions = append(st.Conditions, all.exclusive(ad, ads))
			a.BGPAdvertisements[ad.name] = st
		} else {
			a.L2Advertisements[ad.name] = all.status(ad)
		}
	}
	for _, o := range c.Peers {
		a.Peers[o.Name] = all.peer(o)
	}
	a.Announcers = all.expected(ads)
	return a
}

// condition returns a condition. If the condition is not True, it must have a message.
func condition(kind string, status bool, reason, message string, generation int64) metav1.Condition {
	c := metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: generation}
	if status {
		c.Status = metav1.ConditionTrue
	}
	return c
}

// maxQuote and maxReport are the most bytes that a message quotes of a user's text and of a speaker's text.
const (
	maxQuote  = 64
	maxReport = 256
)

// quote returns a user's text in quotation marks.
func quote(text string) string { return `"` + printable(text, maxQuote) + `"` }

// printable shortens a text that has more than most bytes, and replaces characters that cannot be printed by spaces.
func printable(text string, most int) string {
	cut := text
	if len(text) > most {
		cut = strings.ToValidUTF8(text[:most], "") + "..."
	}
	cut = strings.ToValidUTF8(cut, "?")
	var b strings.Builder
	for _, r := range cut {
		if strconv.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// some joins the elements of a list. If there are more than five, it joins the first five and gives the number of the rest.
func some[T any](list []T) string {
	const most = 5
	var texts []string
	for _, item := range list[:min(most, len(list))] {
		texts = append(texts, fmt.Sprint(item))
	}
	text := strings.Join(texts, ", ")
	if len(list) > most {
		text += fmt.Sprintf(" and %d more", len(list)-most)
	}
	return text
}

// rangeText returns a range as a prefix if it is one.
func rangeText(r netipx.IPRange) string {
	if p, ok := r.Prefix(); ok && p.IsSingleIP() {
		return p.Addr().String()
	} else if ok {
		return p.String()
	}
	return r.String()
}
