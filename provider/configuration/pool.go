package configuration

import (
	"fmt"
	"slices"
	"strings"

	"go4.org/netipx"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// announcedPool returns the condition Announced of a pool. It is True if nodes can announce each of its addresses.
func announcedPool(p Pool, ads []*advertisement) metav1.Condition {
	no := func(reason, message string) metav1.Condition {
		return condition(herald.ConditionAnnounced, false, reason, message, p.Generation)
	}
	var selecting, able, invalid []*advertisement
	for _, ad := range ads {
		switch {
		case ad.selects(p) && ad.reason == "":
			able, selecting = append(able, ad), append(selecting, ad)
		case ad.selects(p):
			selecting = append(selecting, ad)
		case ad.selector == nil && ad.meantFor(p):
			invalid = append(invalid, ad)
		}
	}
	switch {
	case len(selecting) == 0 && len(invalid) > 0:
		does := "may be meant for"
		if slices.Contains(invalid[0].selection.Pools, p.Name) {
			does = "names"
		}
		return no(herald.ReasonAdvertisementUnable, fmt.Sprintf("%s %s the pool and is not valid: its condition Accepted tells why%s",
			invalid[0].object, does, andMore(len(invalid)-1, "advertisement")))
	case len(selecting) == 0:
		return no(herald.ReasonNoAdvertisement, fmt.Sprintf(
			"no L2Advertisement or BGPAdvertisement selects the pool, so nothing reaches its addresses: create one with spec.pools: [%s]", p.Name))
	case len(able) == 0:
		return no(herald.ReasonAdvertisementUnable, fmt.Sprintf("%s selects the pool and announces nothing: %s%s",
			selecting[0].object, selecting[0].problem, andMore(len(selecting)-1, "advertisement")))
	}
	off := offSubnet(p.Addresses, able)
	if len(off) == 0 {
		return condition(herald.ConditionAnnounced, true, herald.ReasonAnnounced, fmt.Sprintf("%s selects the pool, and nodes can announce each of its addresses%s",
			able[0].object, andMore(len(able)-1, "advertisement")), p.Generation)
	}
	reason, which := herald.ReasonPartlyOffSubnet, "these addresses of the pool"
	if slices.Equal(off, p.Addresses.Ranges()) {
		if ad, nodes := unable(p.Addresses, able); len(nodes) > 0 {
			return no(herald.ReasonAdvertisementUnable, fmt.Sprintf("%s selects the pool, and node %s, which has a subnet of its addresses, announces nothing: %s%s",
				ad.object, nodes[0].Name, nodes[0].trouble(), andMore(len(nodes)-1, "node")))
		}
		reason, which = herald.ReasonOffSubnet, "the pool's addresses"
	}
	return no(reason, unreachable(which, off, able))
}

// meantFor reports whether an advertisement that is not valid selects a pool, or could after it is corrected.
func (ad *advertisement) meantFor(p Pool) bool {
	c, err := (&herald.Selection{Pools: ad.selection.Pools, PoolSelector: ad.selection.PoolSelector}).Compile()
	return err != nil || c.Pool(p.Name, p.Labels)
}

// unable returns the first advertisement that selects nodes with a subnet of the addresses, and these nodes, which announce nothing
// now. The addresses are then not off every subnet.
func unable(addresses *netipx.IPSet, ads []*advertisement) (_ *advertisement, nodes []*node) {
	for _, ad := range ads {
		for n := range ad.nodes {
			if n.trouble() != "" && subnetsOf([]*node{n}).set.Overlaps(addresses) {
				nodes = append(nodes, n)
			}
		}
		if len(nodes) > 0 {
			slices.SortFunc(nodes, func(x, y *node) int { return strings.Compare(x.Name, y.Name) })
			return ad, nodes
		}
	}
	return nil, nil
}

// offSubnet lists the addresses that none of the advertisements announces.
func offSubnet(addresses *netipx.IPSet, able []*advertisement) []netipx.IPRange {
	if addresses == nil || slices.ContainsFunc(able, func(ad *advertisement) bool { return ad.reach == nil }) {
		return nil
	}
	var b netipx.IPSetBuilder
	b.AddSet(addresses)
	for _, ad := range able {
		b.RemoveSet(ad.reach.set)
	}
	rest, err := b.IPSet()
	if err != nil {
		return nil // Only an invalid address or range gets here, and sets have none.
	}
	return rest.Ranges()
}

// unreachable returns a message: which addresses are in no subnet of the nodes, which subnets exist, and what to do.
// All of the advertisements must be L2Advertisements without spec.interfaces.
func unreachable(which string, off []netipx.IPRange, able []*advertisement) string {
	var texts []string
	var is4, is6 bool
	for _, r := range off {
		texts = append(texts, rangeText(r))
		is4, is6 = is4 || r.From().Is4(), is6 || r.From().Is6()
	}
	var there []string
	for _, family := range []struct {
		concerned, is4 bool
		name           string
	}{{is4, true, "IPv4"}, {is6, false, "IPv6"}} {
		if !family.concerned {
			continue
		}
		var all []string
		for _, ad := range able {
			all = append(all, ad.reach.of(family.is4)...)
		}
		all = unique(all)
		switch len(all) {
		case 0:
			there = append(there, "they have no "+family.name+" subnet")
		case 1:
			there = append(there, fmt.Sprintf("their %s subnet is %s", family.name, all[0]))
		default:
			there = append(there, fmt.Sprintf("their %s subnets are %s", family.name, some(all)))
		}
	}
	return fmt.Sprintf("%s are in no subnet of the nodes that %s announces them from: %s; %s: "+
		"take addresses of such a subnet, or announce the pool by a BGPAdvertisement, or, if clients reach the addresses on the link, name the interface in spec.interfaces of %[2]s",
		which, able[0].object, some(texts), strings.Join(there, "; "))
}

// unique removes duplicates.
func unique(list []string) (once []string) {
	seen := make(map[string]bool, len(list))
	for _, text := range list {
		if !seen[text] {
			seen[text] = true
			once = append(once, text)
		}
	}
	return once
}
