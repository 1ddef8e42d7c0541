package configuration

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// advertisement is an L2Advertisement or a BGPAdvertisement, with what it can announce.
type advertisement struct {
	bgp          bool
	name, object string // object is, for example, "L2Advertisement all"
	generation   int64
	selector     *herald.Selector // nil if it is not valid
	selection    *herald.Selection
	accepted     metav1.Condition
	nodes        sets.Set[*node] // the selected nodes that are not excluded

	// reason and problem say why the advertisement announces nothing of any pool. They are empty if it announces
	// something.
	reason, problem string
	// notes say what is wrong with parts of the advertisement.
	notes []string
	// spec and peers are those of a BGPAdvertisement.
	spec  *herald.BGPAdvertisementSpec
	peers []string
	// networks are the prefix lengths of the networks that are announced instead of addresses.
	networks lengths
	// reach has the networks whose addresses the advertisement announces; nil if it announces every address.
	reach *subnets
}

// l2 assesses an L2Advertisement, except for the pools that it selects.
func (v *view) l2(o *herald.L2Advertisement) *advertisement {
	ad := &advertisement{name: o.Name, object: "L2Advertisement " + o.Name, generation: o.Generation, selection: &o.Spec.Selection}
	selector, err := o.Spec.Compile()
	preferred := labels.Everything()
	if err == nil {
		preferred, err = herald.CompileSelector("preferredNodes", o.Spec.PreferredNodes)
	}
	if !v.accept(ad, selector, err, nil) {
		return ad
	}
	able, selected, reason, problem := v.announcers(selector.Node)
	ad.nodes, ad.reason, ad.problem = selected, reason, problem
	if len(able) == 0 {
		return ad
	}
	if len(o.Spec.Interfaces) == 0 {
		reach := subnetsOf(able)
		ad.reach = &reach
	} else if missing, there := interfacesMissing(able, o.Spec.Interfaces); len(missing) > 0 {
		problem := fmt.Sprintf("spec.interfaces: no selected node has an interface %s that is up: correct the name%s", strings.Join(missing, ", "), thereIs(there))
		if len(missing) == len(o.Spec.Interfaces) {
			ad.reason, ad.problem = herald.ReasonInterfaceNotFound, problem
		} else {
			ad.notes = append(ad.notes, problem)
		}
	}
	if !slices.ContainsFunc(able, func(n *node) bool { return preferred.Matches(labels.Set(n.Labels)) }) {
		ad.notes = append(ad.notes, "spec.preferredNodes matches no selected node, so it has no effect")
	}
	return ad
}

// interfacesMissing lists the interfaces among names that no node has, quoted, and those that some node has.
func interfacesMissing(nodes []*node, names []string) (missing, there []string) {
	has := map[string]bool{}
	for _, n := range nodes {
		for _, i := range n.Interfaces {
			has[i.Name] = true
		}
	}
	for _, name := range names {
		if !has[name] {
			missing = append(missing, quote(name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(has)) {
		there = append(there, printable(name, maxQuote))
	}
	return missing, there
}

// bgp assesses a BGPAdvertisement, except for the pools that it selects.
func (v *view) bgp(o *herald.BGPAdvertisement) *advertisement {
	ad := &advertisement{bgp: true, name: o.Name, object: "BGPAdvertisement " + o.Name, generation: o.Generation, selection: &o.Spec.Selection}
	selector, err := o.Spec.Compile()
	var peers []string
	if err == nil {
		peers, err = o.Spec.SelectPeers(v.Peers)
	}
	if !v.accept(ad, selector, err, o.Spec.Peers) {
		return ad
	}
	ad.spec, ad.peers, ad.networks = &o.Spec, peers, newLengths(o.Spec.AggregationLength)
	able, selected, reason, problem := v.announcers(selector.Node)
	ad.nodes, ad.reason, ad.problem = selected, reason, problem
	switch {
	case len(v.Peers) == 0:
		ad.reason, ad.problem = herald.ReasonNoPeers, "there is no BGPPeer, so there is nobody to announce anything to: create one"
	case len(peers) == 0:
		ad.reason = herald.ReasonNoPeerSelected
		ad.problem = noneSelected("spec.peers", "spec.peerSelector", "BGPPeer", o.Spec.Peers, o.Spec.PeerSelector) + thereIs(slices.Sorted(maps.Keys(v.peers)))
	case len(able) > 0:
		v.judgePeers(ad, able, peers)
	}
	return ad
}

// judgePeers checks whether the nodes of an advertisement have sessions with its peers.
func (v *view) judgePeers(ad *advertisement, nodes []*node, peers []string) {
	var elsewhere, down, withheld []string
	for _, peer := range peers {
		held, up, whole := false, false, false
		for _, n := range nodes {
			if v.holders[peer].Matches(labels.Set(n.Labels)) {
				held, up = true, up || v.up[peer][n.Name]
				whole = whole || v.up[peer][n.Name] && len(n.sessions[peer].Withheld) == 0
			}
		}
		switch {
		case !held:
			elsewhere = append(elsewhere, peer)
		case !up:
			down = append(down, peer)
		case !whole:
			withheld = append(withheld, peer)
		}
	}
	if len(withheld) > 0 {
		ad.notes = append(ad.notes, fmt.Sprintf("every selected node withholds the routes of a family from BGPPeer %s: its condition Established tells why", some(withheld)))
	}
	if len(elsewhere) > 0 {
		problem := fmt.Sprintf("no selected node holds a session with BGPPeer %s: let spec.nodeSelector here and that of the BGPPeer match a common node", some(elsewhere))
		if len(elsewhere) == len(peers) {
			ad.reason, ad.problem = herald.ReasonPeersOnOtherNodes, problem
			return
		}
		ad.notes = append(ad.notes, problem)
	}
	if len(down) > 0 {
		problem := fmt.Sprintf("no selected node has an established session with BGPPeer %s: its condition Established tells why", some(down))
		if len(down)+len(elsewhere) == len(peers) {
			ad.reason, ad.problem = herald.ReasonNoSession, problem
			return
		}
		ad.notes = append(ad.notes, problem)
	}
}

// accept sets the condition Accepted, and reports whether the advertisement can be used at all. An advertisement
// that names some objects that do not exist can still be used for the others.
func (v *view) accept(ad *advertisement, selector *herald.Selector, err error, peers []string) bool {
	no := func(reason, message string) {
		ad.accepted = condition(herald.ConditionAccepted, false, reason, message, ad.generation)
	}
	if err != nil {
		no(herald.ReasonInvalid, printable(err.Error(), maxReport))
		ad.reason, ad.problem = herald.ReasonInvalid, "the advertisement is not valid: its condition Accepted tells why"
		return false
	}
	ad.selector = selector
	var reason string
	var problems []string
	if missing := absent(peers, v.peers); len(missing) > 0 {
		reason = herald.ReasonPeerNotFound
		problems = append(problems, notFound("spec.peers", "BGPPeer", missing, v.peers))
	}
	if missing := absent(ad.selection.Pools, v.pools); len(missing) > 0 {
		reason = herald.ReasonPoolNotFound
		problems = append([]string{notFound("spec.pools", "IPPool", missing, v.pools)}, problems...)
	}
	if len(problems) > 0 {
		no(reason, strings.Join(problems, "; "))
	} else {
		ad.accepted = condition(herald.ConditionAccepted, true, herald.ReasonValid, "", ad.generation)
	}
	return true
}

// absent lists the names that are not in known, quoted.
func absent(names []string, known map[string]bool) (missing []string) {
	for _, name := range names {
		if !known[name] {
			missing = append(missing, quote(name))
		}
	}
	return missing
}

func notFound(field, kind string, missing []string, known map[string]bool) string {
	return fmt.Sprintf("%s: there is no %s %s: correct the name, or create it", field, kind, some(missing)) + thereIs(slices.Sorted(maps.Keys(known)))
}

// thereIs continues a message with the names that a user could have meant. It is empty if there are none.
func thereIs(names []string) string {
	switch len(names) {
	case 0:
		return ""
	case 1:
		return "; there is only " + names[0]
	}
	return "; there are " + some(names)
}

// noneSelected says that an advertisement selects no object of a kind, by those of its two fields that are set.
func noneSelected(byName, byLabels, kind string, names []string, selector *metav1.LabelSelector) string {
	switch {
	case selector == nil:
		return fmt.Sprintf("%s names no %s that exists: correct it", byName, kind)
	case len(names) == 0:
		return fmt.Sprintf("%s selects no %s: correct it", byLabels, kind)
	}
	return fmt.Sprintf("%s names no %s that exists, and %s selects none: correct them", byName, kind, byLabels)
}

// selects reports whether an advertisement announces addresses of the pool.
func (ad *advertisement) selects(p Pool) bool {
	return ad.selector != nil && ad.selector.Pool(p.Name, p.Labels)
}

// status returns the status of the advertisement, without transition times.
func (v *view) status(ad *advertisement) herald.AdvertisementStatus {
	st := herald.AdvertisementStatus{Nodes: int32(ad.nodes.Len())} //nolint:gosec // No cluster has that many.
	notes := slices.Clone(ad.notes)
	reached := false
	var selected []Pool
	for i, p := range v.Pools {
		if ad.selects(p) {
			st.Pools++
			notes = append(notes, v.spaces[i].notes(ad.networks)...)
			reached = reached || ad.reach == nil || p.Addresses == nil || p.Addresses.Overlaps(ad.reach.set)
			selected = append(selected, p)
		}
	}
	reason, message := ad.reason, ad.problem
	switch {
	case ad.selector == nil:
	case len(v.Pools) == 0:
		reason, message = herald.ReasonNoPools, "there is no IPPool yet, so there is nothing to announce"
	case st.Pools == 0:
		reason = herald.ReasonNoPoolSelected
		message = noneSelected("spec.pools", "spec.poolSelector", "IPPool", ad.selection.Pools, ad.selection.PoolSelector) + thereIs(slices.Sorted(maps.Keys(v.pools)))
	case reason == "" && !reached:
		reason, message = offEverySubnet(ad, selected)
	}
	if reason == "" {
		reason, message = herald.ReasonAnnounced, strings.Join(notes, "; ")
	}
	st.Conditions = []metav1.Condition{ad.accepted, condition(herald.ConditionAnnounced, reason == herald.ReasonAnnounced, reason, message, ad.generation)}
	return st
}

// stillInUse returns the names of the pools that do not have every address any more that is recorded for them.
func stillInUse(pools []Pool) (names []string) {
	for _, p := range pools {
		if meta.IsStatusConditionFalse(p.Status.Conditions, herald.PoolInRange) {
			names = append(names, p.Name)
		}
	}
	return names
}

// offEverySubnet returns why an advertisement reaches no address of the pools that it selects, although it has nodes that announce.
func offEverySubnet(ad *advertisement, selected []Pool) (reason, message string) {
	for _, p := range selected {
		if _, nodes := unable(p.Addresses, []*advertisement{ad}); len(nodes) > 0 {
			reason = herald.ReasonSpeakersUnable
			if nodes[0].silent() {
				reason = herald.ReasonNoSpeaker
			}
			return reason, fmt.Sprintf("of the selected nodes, only those have a subnet of a selected IPPool that announce nothing: node %s: %s%s",
				nodes[0].Name, nodes[0].trouble(), andMore(len(nodes)-1, "node"))
		}
	}
	message = "no selected node has an interface in a subnet that holds an address of a selected IPPool: the condition Announced of the IPPools tells more"
	if left := stillInUse(selected); len(left) > 0 {
		message += fmt.Sprintf("; addresses that Services still have and that were taken out of IPPool %s are announced as before: its condition InRange names them", some(left))
	}
	return herald.ReasonOffSubnet, message
}
