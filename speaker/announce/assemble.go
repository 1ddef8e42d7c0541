package announce

import (
	"cmp"
	"errors"
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

// Objects are the API objects that the decisions about all addresses depend on, in any order.
type Objects struct {
	Nodes             []*corev1.Node
	Namespaces        []*corev1.Namespace
	Pools             []*herald.IPPool
	L2Advertisements  []*herald.L2Advertisement
	BGPAdvertisements []*herald.BGPAdvertisement
	BGPPeers          []*herald.BGPPeer
}

// Rejected is an object whose spec is not valid. Decisions ignore such an advertisement. Of such a pool they use what can be read.
type Rejected struct {
	Kind, Name string
	Err        error // It names the field.
}

// Shared assembles the inputs that all decisions share, without Self and Segments. It also returns the objects that are not
// valid. Speakers call it, too, and add the gateways of their node to Infrastructure. A copy of the result with Self, Healthy
// and Segments set is the snapshot of one node.
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
	var rejected []Rejected
	for _, o := range o.Pools {
		pool, err := poolOf(o)
		if err != nil {
			rejected = append(rejected, Rejected{"IPPool", o.Name, err})
		}
		s.Pools[o.Name] = pool
	}
	for _, o := range o.Namespaces {
		s.Namespaces[o.Name] = o.Labels
	}
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
	s.sort()
	return s, rejected
}

// Keep adds the advertisements of before that were rejected now, and gives the pools that were rejected what they had before, except
// for their labels. An edit that is not valid must not withdraw addresses or networks. peers are the peers of now: those that the last
// valid spec selects may be others than before.
func (s *Shared) Keep(before *Shared, rejected []Rejected, peers []*herald.BGPPeer) {
	for _, r := range rejected {
		if pool, was := before.Pools[r.Name]; r.Kind == "IPPool" && was && pool.UID == s.Pools[r.Name].UID {
			pool.Labels = s.Pools[r.Name].Labels
			s.Pools[r.Name] = pool
		}
		for _, ad := range before.L2 {
			if r.Kind == "L2Advertisement" && ad.Name == r.Name {
				s.L2 = append(s.L2, ad)
			}
		}
		for _, ad := range before.BGP {
			if r.Kind == "BGPAdvertisement" && ad.Name == r.Name {
				ad.Peers, _ = ad.spec.SelectPeers(peers) // Its selector is valid.
				s.BGP = append(s.BGP, ad)
			}
		}
	}
	s.sort()
}

// sort sorts the advertisements by name.
func (s *Shared) sort() {
	slices.SortFunc(s.L2, func(x, y L2Advertisement) int { return cmp.Compare(x.Name, y.Name) })
	slices.SortFunc(s.BGP, func(x, y BGPAdvertisement) int { return cmp.Compare(x.Name, y.Name) })
}

// infrastructure returns the addresses of nodes and BGP peers, with a description of each.
func infrastructure(nodes []*corev1.Node, peers []*herald.BGPPeer) map[netip.Addr]string {
	all := map[netip.Addr]string{}
	note := func(text, what string) {
		// The addresses of a node include its hostname, which is not an IP address. A link-local address has a zone.
		a, err := netip.ParseAddr(text)
		a = a.Unmap().WithZone("")
		// If two objects have the same address, the first by name counts, whatever their order.
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

// peerNodes returns, for each peer with a node selector, the selector for the nodes that hold the session.
func peerNodes(peers []*herald.BGPPeer) map[string]labels.Selector {
	var nodes map[string]labels.Selector
	for _, o := range peers {
		if o.Spec.NodeSelector == nil {
			continue
		}
		if nodes == nil {
			nodes = map[string]labels.Selector{}
		}
		// If the selector is not valid, no node holds the session.
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
	ad := BGPAdvertisement{Name: o.Name, spec: &o.Spec, WithoutEndpoints: o.Spec.WithoutEndpoints == herald.EndpointsAnnounce}
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
	ad.Attributes.LocalPreference, ad.Attributes.MED = number(o.Spec.LocalPreference), number(o.Spec.MED)
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
	u := uint32(*n) // The schema allows only values that fit.
	return &u
}

// newFor is how long a record is new. A new address is probed for strangers before its first use.
const newFor = time.Minute

// AddressOf assembles an address from its record. It returns nil if none of the Services that the record names has the address
// in its status. service returns the Service with a given name, or nil, and endpoints returns its EndpointSlices.
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
		o.Overrides, _ = herald.ParseOverrides(svc.Annotations) // herald-ccm reports errors to the user.
		o.Ready4, o.Ready6 = Ready(all)
		if o.Local {
			o.HealthPort = uint16(svc.Spec.HealthCheckNodePort)
			o.Count4, o.Count6 = countReady(all)
			o.Terminating4, o.Terminating6 = nodesOf(all, Terminating)
		}
		a.Services = append(a.Services, o)
	}
	if len(a.Services) == 0 {
		return nil
	}
	return a
}

// StatusAddresses returns the addresses in a Service's status.
func StatusAddresses(svc *corev1.Service) []netip.Addr {
	var addresses []netip.Addr
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(ingress.IP); err == nil {
			addresses = append(addresses, a)
		}
	}
	return addresses
}

// Ready lists the nodes with a ready endpoint in the EndpointSlices of a Service, by family and sorted. The empty name stands
// for endpoints that are on no node.
func Ready(endpoints []*discoveryv1.EndpointSlice) (ready4, ready6 []string) {
	return nodesOf(endpoints, ready)
}

// ready reports whether an endpoint is ready. A nil condition means that it is (discovery/v1, EndpointConditions).
func ready(c discoveryv1.EndpointConditions) bool { return ptr.Deref(c.Ready, true) }

// countReady counts the ready endpoints of each family on each node. An endpoint that moves from one slice to another may be in
// both for a moment, and then counts twice.
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

// Terminating reports whether an endpoint is terminating and still serves. Such an endpoint is never ready.
func Terminating(c discoveryv1.EndpointConditions) bool {
	return ptr.Deref(c.Terminating, false) && ptr.Deref(c.Serving, false)
}

// nodesOf lists the nodes with an endpoint whose conditions satisfy is, by family and sorted.
func nodesOf(endpoints []*discoveryv1.EndpointSlice, is func(discoveryv1.EndpointConditions) bool) (nodes4, nodes6 []string) {
	for _, slice := range endpoints {
		nodes := &nodes4
		switch slice.AddressType {
		case discoveryv1.AddressTypeIPv4:
		case discoveryv1.AddressTypeIPv6:
			nodes = &nodes6
		default:
			continue // An address of a Service cannot lead to an FQDN endpoint.
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

// RunsOn reports whether a node should have a speaker: herald-speaker runs on Linux only.
func RunsOn(node *corev1.Node) bool {
	return cmp.Or(node.Labels[corev1.LabelOSStable], "linux") == "linux"
}

// RangesOf parses address ranges. It leaves out those that are not valid.
func RangesOf(texts []herald.AddressRange) (all []netipx.IPRange) {
	for _, text := range texts {
		text := strings.Join(strings.Fields(string(text)), "")
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

// poolOf translates one IPPool. It fails if herald-ccm refuses the spec, except for what the schema or the admission policy refuses before.
// Of a pool that is not valid it returns what can be read.
func poolOf(o *herald.IPPool) (Pool, error) {
	addresses, err := addressesIn(&o.Spec)
	if err == nil {
		_, err = herald.CompileSelector("serviceSelector", o.Spec.ServiceSelector)
	}
	if err == nil {
		_, err = herald.CompileSelector("namespaceSelector", o.Spec.NamespaceSelector)
	}
	return Pool{UID: o.UID, Labels: o.Labels, Yield: o.Spec.OnConflict == herald.ConflictYield, Addresses: addresses}, err
}

// addressesIn returns the addresses of a pool without the excluded ones. If an entry is not valid, it fails, and returns the addresses
// that can be read; nil if there are none, or if an excluded range is not valid.
func addressesIn(spec *herald.IPPoolSpec) (*netipx.IPSet, error) {
	all, excluded := RangesOf(spec.Addresses), RangesOf(spec.Exclude)
	if len(excluded) < len(spec.Exclude) {
		return nil, errors.New("spec.exclude has an entry that is not valid")
	}
	if len(all) == 0 {
		return nil, errors.New("spec.addresses has no valid entry")
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
		return nil, err
	}
	if len(all) < len(spec.Addresses) {
		return set, errors.New("spec.addresses has an entry that is not valid")
	}
	slices.SortFunc(all, func(x, y netipx.IPRange) int { return x.From().Compare(y.From()) })
	for i := 1; i < len(all); i++ { // If any two overlap, then two neighbours do.
		if all[i].Overlaps(all[i-1]) {
			return set, errors.New("spec.addresses has entries that overlap")
		}
	}
	return set, nil
}

// What Exclusion returns of a node that somebody, or kubeadm, has taken out by the label, and of one that is being deleted.
const (
	ExcludedByLabel    = "the node has " + herald.ExclusionByLabel
	ExcludedByDeletion = "the Node is being deleted"
)

// Exclusion says why a node must not announce anything, for messages. It is empty if the node may announce.
func Exclusion(o *corev1.Node) string {
	switch by := herald.ExclusionOf(o); by {
	case "":
		return ""
	case herald.ExclusionByDeletion:
		return ExcludedByDeletion
	default:
		return "the node has " + by
	}
}

// NodeOf returns the parts of a Node that decisions use.
func NodeOf(o *corev1.Node) Node {
	n := Node{UID: o.UID, Labels: o.Labels, Excluded: Exclusion(o) != ""}
	for _, c := range o.Status.Conditions {
		n.Ready = n.Ready || c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	}
	return n
}

// Differs reports whether a change from n to o can change decisions, or o is another node with the same name. It does not compare
// labels.
func (n Node) Differs(o Node) bool {
	return n.UID != o.UID || n.Excluded != o.Excluded || n.Ready != o.Ready
}
