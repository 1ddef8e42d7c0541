package announce

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// Objects are the API objects that the decisions about all addresses rest on, in any order.
type Objects struct {
	Nodes             []*corev1.Node
	Namespaces        []*corev1.Namespace
	Pools             []*herald.IPPool
	L2Advertisements  []*herald.L2Advertisement
	BGPAdvertisements []*herald.BGPAdvertisement
	BGPPeers          []*herald.BGPPeer
}

// Rejected is an object that decisions leave out, since its spec is not valid.
type Rejected struct {
	Kind, Name string
	Err        error // It names the field.
}

// Shared assembles what all decisions rest on, without a Self and without Segments, and tells which objects were left
// out. The speakers assemble theirs in the same way, and add the gateways of their node to Infrastructure. A copy of it,
// with Self, Healthy and Segments set, is the snapshot of one node.
func (o *Objects) Shared() (*Shared, []Rejected) {
	s := &Shared{
		Healthy: true,
		Nodes:   map[string]Node{}, Pools: map[string]Pool{}, Namespaces: map[string]map[string]string{},
		PeerNodes: peerNodes(o.BGPPeers), Infrastructure: infrastructure(o.Nodes, o.BGPPeers),
	}
	for _, o := range o.Nodes {
		if RunsOn(o) {
			s.Nodes[o.Name] = NodeOf(o)
		}
	}
	for _, o := range o.Pools {
		s.Pools[o.Name] = Pool{Labels: o.Labels, Yield: o.Spec.OnConflict == herald.ConflictYield, Addresses: addressesIn(&o.Spec)}
	}
	for _, o := range o.Namespaces {
		s.Namespaces[o.Name] = o.Labels
	}
	var rejected []Rejected
	for _, o := range o.L2Advertisements {
		ad, err := l2Advertisement(o)
		if err != nil {
			rejected = append(rejected, Rejected{"L2Advertisement", o.Name, err})
			continue
		}
		s.L2 = append(s.L2, ad)
	}
	for _, ad := range o.BGPAdvertisements {
		compiled, err := bgpAdvertisement(ad, o.BGPPeers)
		if err != nil {
			rejected = append(rejected, Rejected{"BGPAdvertisement", ad.Name, err})
			continue
		}
		s.BGP = append(s.BGP, compiled)
	}
	slices.SortFunc(s.L2, func(x, y L2Advertisement) int { return cmp.Compare(x.Name, y.Name) })
	slices.SortFunc(s.BGP, func(x, y BGPAdvertisement) int { return cmp.Compare(x.Name, y.Name) })
	return s, rejected
}

// infrastructure has the addresses of nodes and BGP peers, with what each is.
func infrastructure(nodes []*corev1.Node, peers []*herald.BGPPeer) map[netip.Addr]string {
	all := map[netip.Addr]string{}
	note := func(text, what string) {
		// The name of a node is among its addresses, and a link-local address has a zone.
		a, err := netip.ParseAddr(text)
		a = a.Unmap().WithZone("")
		// Of two objects with one address the first by name counts, whatever order they come in.
		if before, twice := all[a]; err == nil && (!twice || what < before) {
			all[a] = what
		}
	}
	for _, o := range nodes {
		for _, a := range o.Status.Addresses {
			note(a.Address, "an address of node "+o.Name)
		}
	}
	for _, o := range peers {
		note(o.Spec.Address, "the address of BGPPeer "+o.Name)
	}
	return all
}

// peerNodes tells which nodes hold which sessions.
func peerNodes(peers []*herald.BGPPeer) map[string]labels.Selector {
	var nodes map[string]labels.Selector
	for _, o := range peers {
		if o.Spec.NodeSelector == nil {
			continue
		}
		if nodes == nil {
			nodes = map[string]labels.Selector{}
		}
		// No node holds the session with one that is not valid.
		nodes[o.Name] = labels.Nothing()
		if selector, err := herald.CompileSelector("nodeSelector", o.Spec.NodeSelector); err == nil {
			nodes[o.Name] = selector
		}
	}
	return nodes
}

// l2Advertisement translates one L2Advertisement.
func l2Advertisement(o *herald.L2Advertisement) (L2Advertisement, error) {
	ad := L2Advertisement{Name: o.Name, Interfaces: o.Spec.Interfaces, Gradual: o.Spec.Rebalance == herald.RebalanceGradual,
		WithoutEndpoints: o.Spec.WithoutEndpoints == herald.EndpointsAnnounce}
	var err error
	if ad.Selector, err = o.Spec.Compile(); err != nil {
		return ad, err
	}
	if o.Spec.PreferredNodes != nil {
		ad.Preferred, err = herald.CompileSelector("preferredNodes", o.Spec.PreferredNodes)
	}
	return ad, err
}

// bgpAdvertisement translates one BGPAdvertisement.
func bgpAdvertisement(o *herald.BGPAdvertisement, peers []*herald.BGPPeer) (BGPAdvertisement, error) {
	ad := BGPAdvertisement{Name: o.Name, WithoutEndpoints: o.Spec.WithoutEndpoints == herald.EndpointsAnnounce}
	var err error
	if ad.Selector, err = o.Spec.Compile(); err != nil {
		return ad, err
	}
	if ad.Peers, err = o.Spec.SelectPeers(peers); err != nil {
		return ad, err
	}
	texts := make([]string, len(o.Spec.Communities))
	for i, c := range o.Spec.Communities {
		texts[i] = string(c)
	}
	if err = ad.Attributes.AddCommunities(texts...); err != nil {
		return ad, fmt.Errorf("spec.communities: %w", err)
	}
	ad.Attributes.LocalPref, ad.Attributes.MED = number(o.Spec.LocalPreference), number(o.Spec.MED)
	ad.Attributes.Prepend = uint8(o.Spec.Prepend) // The schema allows up to 16.
	ad.Permits = o.Spec.ServiceOverrides
	ad.Weighted = o.Spec.LinkBandwidth == herald.LinkBandwidthReadyEndpoints
	if o.Spec.DrainTime != nil {
		ad.DrainTime = o.Spec.DrainTime.Duration
	}
	if l := o.Spec.AggregationLength; l != nil {
		ad.Length4, ad.Length6 = int(l.IPv4), int(l.IPv6)
	}
	return ad, nil
}

func number(n *int64) *uint32 {
	if n == nil {
		return nil
	}
	u := uint32(*n) // The schema allows what fits.
	return &u
}

// newFor is for how long a record is new: its address is probed for strangers before its first use.
const newFor = time.Minute

// AddressOf assembles an address from its record; nil if none of the Services that the record names has the address in
// its status. service returns the Service of a name, or nil, and endpoints its EndpointSlices.
func AddressOf(rec *herald.IPAllocation, now time.Time, service func(types.NamespacedName) *corev1.Service,
	endpoints func(types.NamespacedName) []*discoveryv1.EndpointSlice,
) *Address {
	address, err := netip.ParseAddr(rec.Spec.Address)
	if err != nil || rec.Spec.ReleasedAt != nil {
		return nil
	}
	a := &Address{Addr: address, Pool: rec.Spec.Pool, New: now.Sub(rec.CreationTimestamp.Time) < newFor}
	for _, o := range rec.Spec.Owners {
		name := types.NamespacedName{Namespace: o.Namespace, Name: o.Name}
		svc := service(name)
		if svc == nil || svc.UID != o.UID || svc.DeletionTimestamp != nil || !slices.Contains(StatusAddresses(svc), address) {
			continue
		}
		all := endpoints(name)
		o := &Service{
			Name: name, Labels: svc.Labels,
			Local:  svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
			Sticky: svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP,
		}
		o.Overrides, _ = herald.ParseOverrides(svc.Annotations) // herald-ccm tells the user what is wrong.
		o.Ready4, o.Ready6 = Ready(all)
		if o.Local {
			o.HealthPort = uint16(svc.Spec.HealthCheckNodePort)
			o.Count4, o.Count6 = countReady(all)
			o.Leaving4, o.Leaving6 = nodesOf(all, Leaving)
		}
		a.Services = append(a.Services, o)
	}
	if len(a.Services) == 0 {
		return nil
	}
	return a
}

// StatusAddresses are those in a Service's status.
func StatusAddresses(svc *corev1.Service) []netip.Addr {
	var addresses []netip.Addr
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(ingress.IP); err == nil {
			addresses = append(addresses, a)
		}
	}
	return addresses
}

// Ready lists the nodes with a ready endpoint in the EndpointSlices of a Service, by family and sorted. "" stands for
// endpoints that are on no node.
func Ready(endpoints []*discoveryv1.EndpointSlice) (ready4, ready6 []string) {
	return nodesOf(endpoints, ready)
}

// ready tells whether an endpoint is. Nil means that it is (discovery/v1, EndpointConditions).
func ready(c discoveryv1.EndpointConditions) bool { return ptr.Deref(c.Ready, true) }

// countReady counts the ready endpoints of each family on each node. An endpoint that moves from one slice to another may
// be in both for a moment, and counts twice then.
func countReady(endpoints []*discoveryv1.EndpointSlice) (count4, count6 map[string]int) {
	for _, slice := range endpoints {
		count := &count6
		if slice.AddressType == discoveryv1.AddressTypeIPv4 {
			count = &count4
		}
		for _, e := range slice.Endpoints {
			if !ready(e.Conditions) {
				continue
			}
			if *count == nil {
				*count = map[string]int{}
			}
			(*count)[ptr.Deref(e.NodeName, "")]++
		}
	}
	return count4, count6
}

// Leaving tells whether an endpoint is being terminated and still serves. It is never ready.
func Leaving(c discoveryv1.EndpointConditions) bool {
	return ptr.Deref(c.Terminating, false) && ptr.Deref(c.Serving, false)
}

// nodesOf lists the nodes with an endpoint whose conditions are as asked.
func nodesOf(endpoints []*discoveryv1.EndpointSlice, is func(discoveryv1.EndpointConditions) bool) (nodes4, nodes6 []string) {
	for _, slice := range endpoints {
		nodes := &nodes4
		switch slice.AddressType {
		case discoveryv1.AddressTypeIPv4:
		case discoveryv1.AddressTypeIPv6:
			nodes = &nodes6
		default:
			continue // No address of a Service leads to a name.
		}
		for _, e := range slice.Endpoints {
			if is(e.Conditions) {
				*nodes = append(*nodes, ptr.Deref(e.NodeName, ""))
			}
		}
	}
	slices.Sort(nodes4)
	slices.Sort(nodes6)
	return slices.Compact(nodes4), slices.Compact(nodes6)
}

// RunsOn reports whether a speaker belongs on a node: herald-speaker runs on Linux alone.
func RunsOn(node *corev1.Node) bool {
	return cmp.Or(node.Labels[corev1.LabelOSStable], "linux") == "linux"
}

// RangesOf reads ranges. What cannot be read is left out.
func RangesOf(texts []herald.AddressRange) (all []netipx.IPRange) {
	for _, text := range texts {
		text := strings.ReplaceAll(string(text), " ", "")
		if p, err := netip.ParsePrefix(text); err == nil {
			all = append(all, netipx.RangeOfPrefix(p))
		} else if r, err := netipx.ParseIPRange(text); err == nil {
			all = append(all, r)
		} else if a, err := netip.ParseAddr(text); err == nil {
			all = append(all, netipx.IPRangeFrom(a, a))
		}
	}
	return all
}

// addressesIn are the addresses of a pool without those that are excluded; nil if there are none, or these cannot be told.
func addressesIn(spec *herald.IPPoolSpec) *netipx.IPSet {
	all, excluded := RangesOf(spec.Addresses), RangesOf(spec.Exclude)
	if len(all) == 0 || len(excluded) < len(spec.Exclude) {
		return nil
	}
	var b netipx.IPSetBuilder
	for _, r := range all {
		b.AddRange(r)
	}
	for _, r := range excluded {
		b.RemoveRange(r)
	}
	set, err := b.IPSet()
	if err != nil {
		return nil
	}
	return set
}

// drainTaints say that a node is being shut down or removed. A node that is only cordoned goes on serving.
var drainTaints = []string{
	corev1.TaintNodeOutOfService, "node.cloudprovider.kubernetes.io/shutdown", "ToBeDeletedByClusterAutoscaler",
}

// NodeOf is a node as decisions see it.
func NodeOf(o *corev1.Node) Node {
	n := Node{Labels: o.Labels}
	_, n.Excluded = o.Labels[corev1.LabelNodeExcludeBalancers]
	n.Excluded = n.Excluded || o.DeletionTimestamp != nil
	for _, t := range o.Spec.Taints {
		n.Excluded = n.Excluded || slices.Contains(drainTaints, t.Key)
	}
	for _, c := range o.Status.Conditions {
		n.Ready = n.Ready || c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	}
	return n
}

// Differs reports whether decisions may be others for it, apart from its labels.
func (n Node) Differs(o Node) bool { return n.Excluded != o.Excluded || n.Ready != o.Ready }
