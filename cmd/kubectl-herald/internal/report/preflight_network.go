package report

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
	"github.com/heraldlb/herald/provider/configuration"
	"github.com/heraldlb/herald/speaker/inspect"
)

// pools checks the ranges of the pools in the cluster and of those to be applied.
func (p *preflight) pools() {
	if !p.may(poolRanges, "whether the pools fit", "ippools.herald.dev", "nodes") {
		return
	}
	s := state{pools: p.Pools, held: p.held()}
	then, err := s.edited(p.Wanted.Pools, nil)
	if err != nil {
		p.problem(poolRanges, nil, "%v", err)
		return
	}
	if len(then) == 0 {
		p.unchecked(poolRanges, "there are no pools: give those that you are going to apply with -f")
		return
	}
	inForce, invalid := poolsInForce(then, p.Pools, s.held)
	of := ipam.New()
	of.SetPools(inForce)
	c := p.network()
	c.ServiceCIDRs = p.serviceCIDRs()
	for i, o := range then {
		c.Pools = append(c.Pools, configuration.Pool{IPPool: o, Addresses: inForce[i].Addresses})
	}
	c = p.Wanted.in(c)
	all := configuration.Assess(c)
	assessed, off := all.Pools, p.offSubnets(c)
	inside := p.inside()
	for i, o := range then {
		before := len(p.Problems) + len(p.Warnings)
		a, addresses := assessed[o.Name], inForce[i].Addresses
		if err := invalid[o.Name]; err != nil {
			p.problem(poolRanges, nil, "IPPool %s is not valid: %v", o.Name, err)
		}
		if a.InClusterNetwork != "" {
			p.problem(poolRanges, nil, "IPPool %s: %s", o.Name, a.InClusterNetwork)
		} else if used := inside.in(addresses); len(used) > 0 {
			p.problem(poolRanges, nil, "IPPool %s: the cluster uses addresses of the pool itself: %s: choose other spec.addresses, or put these into spec.exclude", o.Name, some(used))
		}
		for _, older := range of.Overlaps(o.Name) {
			p.problem(poolRanges, nil, "IPPool %s: the older pool %s has these addresses, too, and gives them out: %s: leave them out in one of the two", o.Name, older.Pool, some(strings.Split(join(older.Ranges, "\n"), "\n")))
		}
		if len(a.Occupied) > 0 {
			p.warn(poolRanges, nil, "IPPool %s has addresses that are taken, and never gives them out: %s: choose spec.addresses without them", o.Name, some(a.Occupied))
		}
		p.families(o.Name, addresses)
		if at, is := off[o.Name]; is && at.Certain {
			p.problem(poolRanges, nil, "IPPool %s: spec.addresses: %s", o.Name, at.Problem)
		} else if is {
			p.warn(poolRanges, nil, "IPPool %s: spec.addresses: %s", o.Name, at.Problem)
		}
		if len(p.Problems)+len(p.Warnings) == before {
			p.fine(poolRanges, "IPPool %s has no address of nodes, pods, Services or other pools, as far as is known", o.Name)
		}
	}
	for _, o := range c.L2Advertisements {
		if accepted := meta.FindStatusCondition(all.L2Advertisements[o.Name].Conditions, herald.ConditionAccepted); accepted.Status == metav1.ConditionFalse {
			p.problem(poolRanges, nil, "L2Advertisement %s: %s", o.Name, accepted.Message)
		}
	}
	p.blind()
}

// offSubnets returns the pools with addresses that no node can announce on a segment, although an L2Advertisement announces them.
func (p *preflight) offSubnets(c configuration.Cluster) map[string]configuration.OffSubnet {
	if !p.may(poolRanges, "whether the nodes have subnets with the addresses of L2Advertisements", "l2advertisements.herald.dev", "bgpadvertisements.herald.dev", "speakerstatuses.herald.dev") {
		return nil
	}
	for name := range p.gone {
		if s, reports := c.Speakers[name]; reports {
			s.Silent = true
			c.Speakers[name] = s
		}
	}
	return c.OffSubnets()
}

// families checks that the nodes, and the ClusterIPs, have the families of a pool.
func (p *preflight) families(name string, addresses *netipx.IPSet) {
	for _, is4 := range []bool{true, false} {
		if addresses == nil || !slices.ContainsFunc(addresses.Ranges(), func(r netipx.IPRange) bool { return r.From().Is4() == is4 }) {
			continue
		}
		family := map[bool]string{true: "IPv4", false: "IPv6"}[is4]
		if p.withFamily(is4) == 0 {
			p.warn(poolRanges, nil, "IPPool %s has addresses of %s, and no node has an internal address of that family: see whether the cluster has it", name, family)
		}
		if all := p.serviceCIDRs(); len(all) > 0 && !slices.ContainsFunc(all, func(c netip.Prefix) bool { return c.Addr().Is4() == is4 }) {
			p.warn(poolRanges, nil, "IPPool %s has addresses of %s, and the cluster has no ClusterIPs of that family, so no Service asks for one", name, family)
		}
	}
}

func (p *preflight) serviceCIDRs() (all []netip.Prefix) {
	for _, o := range p.ServiceCIDRs {
		for _, text := range o.Spec.CIDRs {
			if c, err := netip.ParsePrefix(text); err == nil {
				all = append(all, c)
			}
		}
	}
	return all
}

// taken has addresses and their users.
type taken map[netip.Addr]string

// inside returns the addresses of pods and Services in the cluster. They show networks that neither Nodes nor
// ServiceCIDRs list.
func (p *preflight) inside() taken {
	all := taken{}
	add := func(text, format string, args ...any) {
		if a, err := netip.ParseAddr(text); err == nil {
			all[a] = fmt.Sprintf(format, args...)
		}
	}
	for _, o := range p.Pods {
		for _, ip := range o.Status.PodIPs {
			if !o.Spec.HostNetwork {
				add(ip.IP, "the address of pod %s", nameOf(o))
			}
		}
	}
	for _, svc := range p.Services {
		for _, ip := range svc.Spec.ClusterIPs {
			add(ip, "the ClusterIP of %s", nameOf(svc))
		}
	}
	return all
}

// in lists the addresses that are in a set.
func (t taken) in(set *netipx.IPSet) (list []string) {
	for _, a := range slices.SortedFunc(maps.Keys(t), netip.Addr.Compare) {
		if set != nil && set.Contains(a) {
			list = append(list, fmt.Sprintf("%s (%s)", a, t[a]))
		}
	}
	return list
}

// blind notes the networks with which the pools could not be compared.
func (p *preflight) blind() {
	if p.may(poolRanges, "whether pools have ClusterIPs", "servicecidrs.networking.k8s.io") && len(p.ServiceCIDRs) == 0 {
		p.unchecked(poolRanges, "the API server has no ServiceCIDRs, so pools are compared with the ClusterIPs in use alone")
	}
	if !slices.ContainsFunc(p.Nodes, func(n *corev1.Node) bool { return len(n.Spec.PodCIDRs) > 0 }) {
		p.unchecked(poolRanges, "the Nodes have no spec.podCIDRs, so pools are compared with the addresses of running pods alone: see the network plugin for its ranges")
	}
	if len(p.working()) == 0 {
		p.unchecked(poolRanges, "the nodes' subnets and gateways are known once speakers run: run this again then")
	}
}

// port is a port that Herald may need on the nodes.
type port struct {
	number   int32
	protocol corev1.Protocol
	what     string
	needed   bool
}

// ports looks for other programs that use the speakers' ports on nodes.
func (p *preflight) ports() {
	passive, bfd := p.peerPorts()
	all := []port{{inspect.Port, corev1.ProtocolTCP, "speakers need it for their metrics and kubectl herald verify", true}}
	for _, number := range ports(passive, bgpPort) {
		all = append(all, port{number, corev1.ProtocolTCP, "speakers need it for passive BGPPeers", len(passive) > 0})
	}
	for _, number := range ports(bfd, bfdPort) {
		all = append(all, port{number, corev1.ProtocolUDP, "speakers need it for BFD", len(bfd) > 0})
	}
	for _, x := range all {
		by, nodes := p.declared(x)
		switch {
		case len(by) == 0:
		case x.needed:
			p.problem(portsFree, nodes, "%s port %d on %s is taken by %s, and %s: move or remove that", x.protocol, x.number, some(nodes), some(by), x.what)
		case !p.sees("bgppeers.herald.dev"):
			p.warn(portsFree, nodes, "%s port %d on %s is taken by %s; %s, of which there may be some: you may not read bgppeers.herald.dev", x.protocol, x.number, some(nodes), some(by), x.what)
		default:
			p.warn(portsFree, nodes, "%s port %d on %s is taken by %s; %s, of which there is none yet", x.protocol, x.number, some(nodes), some(by), x.what)
		}
	}
	p.routers()
	if !p.may(portsFree, "whether pods have ports of the nodes that speakers need", "pods") {
		return
	}
	bound, working := map[int32]map[string]bool{}, p.working() // nodes whose speaker has a port of BFD
	for _, s := range working {
		for _, x := range s.Status.Sessions {
			if reason := x.Reason + " " + x.BFDReason; strings.Contains(reason, "address already in use") {
				p.problem(portsFree, []string{s.Name}, "node %s: a port for BGPPeer %s is taken: %s: see which process has it: ss -lntup", s.Name, x.Peer, strings.TrimSpace(reason))
			}
			if number := bfd[x.Peer]; x.BFD == bfdUp && number > 0 {
				if bound[number] == nil {
					bound[number] = map[string]bool{}
				}
				bound[number][s.Name] = true
			}
		}
	}
	var unknown []string
	if len(working) == 0 || !p.may(portsFree, "whether the speakers still run, and have their ports", speakerLeases) {
		unknown, bound = append(unknown, fmt.Sprintf("TCP %d", inspect.Port)), nil
	} else {
		p.fine(portsFree, "%s, so %s TCP port %d", count(len(working), "speaker runs", "speakers run"), map[bool]string{true: "it has", false: "they have"}[len(working) == 1], inspect.Port)
		if without := p.withoutSpeaker(); len(without) > 0 {
			unknown = append(unknown, fmt.Sprintf("TCP %d on %s", inspect.Port, some(without)))
		} else if !p.sees("nodes") {
			unknown = append(unknown, fmt.Sprintf("TCP %d on other nodes", inspect.Port))
		}
	}
	for _, x := range all[1:] {
		if n := len(bound[x.number]); x.protocol == corev1.ProtocolTCP || n == 0 || n < len(p.Nodes) {
			unknown = append(unknown, fmt.Sprintf("%s %d", x.protocol, x.number))
		} else {
			p.fine(portsFree, "BFD is up on all nodes, so speakers have UDP port %d", x.number)
		}
	}
	p.unchecked(portsFree, "no API says whether processes of the nodes that are in no pod have these ports: %s: ss -lntup on the nodes shows them", strings.Join(unknown, ", "))
}

// The ports of BGP (RFC 4271 §8), and of BFD over one hop (RFC 5881 §4) and over several (RFC 5883 §5).
const (
	bgpPort         = 179
	bfdPort         = 3784
	bfdMultihopPort = 4784
)

// peerPorts returns the ports of the nodes that each BGPPeer needs: the TCP port for a router that connects, and the UDP
// port of BFD.
func (p *preflight) peerPorts() (passive, bfd map[string]int32) {
	passive, bfd = map[string]int32{}, map[string]int32{}
	for _, o := range p.BGPPeers {
		if o.Spec.Passive {
			passive[o.Name] = cmp.Or(o.Spec.Port, bgpPort)
		}
		if b := o.Spec.BFD; b != nil {
			bfd[o.Name] = map[bool]int32{true: bfdMultihopPort, false: bfdPort}[b.MinimumTTL > 0]
		}
	}
	return passive, bfd
}

// ports returns the ports that BGPPeers need, sorted, or the one that they usually need if there are none.
func ports(of map[string]int32, usual int32) []int32 {
	if len(of) == 0 {
		return []int32{usual}
	}
	return slices.Compact(slices.Sorted(maps.Values(of)))
}

// declared returns other programs' pods that declare a port of the node, and their nodes.
func (p *preflight) declared(x port) (by, nodes []string) {
	for _, o := range p.Pods {
		if o.Spec.NodeName == "" || o.Labels["app.kubernetes.io/name"] == "herald-speaker" || o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed {
			continue
		}
		for _, c := range o.Spec.Containers {
			if slices.ContainsFunc(c.Ports, func(has corev1.ContainerPort) bool {
				protocol := has.Protocol
				if protocol == "" {
					protocol = corev1.ProtocolTCP
				}
				return protocol == x.protocol && (has.HostPort == x.number || o.Spec.HostNetwork && has.ContainerPort == x.number)
			}) {
				by, nodes = append(by, "pod "+nameOf(o)), append(nodes, o.Spec.NodeName)
			}
		}
	}
	return compact(by), compact(nodes)
}

// bgpSpeakers are images of other programs that speak BGP on nodes without declaring the port.
var bgpSpeakers = []struct{ image, name string }{
	{"calico/node", "Calico"}, {"cloudnativelabs/kube-router", "kube-router"}, {"metallb/speaker", "MetalLB"}, {"frrouting/frr", "FRR"},
}

// routers looks for other BGP speakers on the nodes.
func (p *preflight) routers() {
	found := map[string]string{}
	for _, w := range p.workloads() {
		for _, c := range w.spec.Containers {
			for _, b := range bgpSpeakers {
				if w.spec.HostNetwork && strings.Contains(c.Image, b.image) {
					found[b.name] = w.name
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		p.warn(portsFree, nil, "%s (%s) may speak BGP on the nodes, and then has TCP port 179 there: a router keeps one session with an address, so do not give it and Herald the same router, and have no passive BGPPeer on port 179", name, found[name])
	}
}

// segmentKinds are the kinds of problems in which speakers do not hear each other.
var segmentKinds = []problemKind{unheardSpeaker, oneWay, degraded}

// heard checks whether multicasts arrive from node to node, according to the speakers.
func (p *preflight) heard() {
	if !p.may(multicast, "whether speakers hear each other", "speakerstatuses.herald.dev", "nodes") {
		return
	}
	if len(p.working()) == 0 {
		p.unchecked(multicast, "whether nodes hear the multicasts of each other (UDP port 7476, groups 224.0.0.254 and ff02::114) is known once speakers run: run this, or kubectl herald status, again then")
		return
	}
	n := NewNetwork(p.Objects)
	s := segmentsOf(n.speakers, p.gone)
	good := true
	speakerProblems(s, p.now, func(kind problemKind, _ string, nodes []string, format string, args ...any) {
		if slices.Contains(segmentKinds, kind) {
			good = false
			p.problem(multicast, nodes, format, args...)
		}
	})
	states := map[string][]string{}
	for _, o := range s.speakers {
		for _, i := range o.Status.Interfaces {
			switch at := (place{o.Name, i.Name}); {
			case i.State == "": // For example, the interface of a pod.
			case s.stale[o.Name] != "":
				states["stale"] = append(states["stale"], at.String())
			default:
				states[i.State] = append(states[i.State], at.String())
			}
		}
	}
	if members := states[herald.SegmentMember]; good && len(members) > 0 && p.may(multicast, "whether the speakers that report that they hear each other are still running", speakerLeases) {
		p.fine(multicast, "speakers hear each other on %s", some(members))
	}
	for _, x := range []struct{ state, why string }{
		{herald.SegmentAlone, "no other speaker has a subnet of theirs"}, {herald.SegmentListening, "speakers have just begun to listen there"}, {"stale", "their speakers are silent"},
	} {
		if of := states[x.state]; len(of) > 0 && len(p.Nodes) > 1 {
			p.unchecked(multicast, "whether multicasts arrive is not known on %s: %s", some(of), x.why)
		}
	}
	if len(states) == 0 {
		p.unchecked(multicast, "whether nodes hear the multicasts of each other is not known: no speaker works on a segment")
	}
}
