package migrate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

const (
	metalLBGroup = "metallb.io"
	frrK8sGroup  = "frrk8s.metallb.io"
)

// metalLB is MetalLB, as of 0.16.
var metalLB = Source{
	Name: "metallb", Title: "MetalLB",
	Resources: append(allOf(metalLBGroup, "ipaddresspools", "l2advertisements", "bgppeers", "bgpadvertisements", "communities", "bfdprofiles"),
		Resource{GroupResource: schema.GroupResource{Group: frrK8sGroup, Resource: "frrconfigurations"}},
		Resource{GroupResource: schema.GroupResource{Resource: "configmaps"}, Name: "bgpextras"}),
	translate: func(t *translation) {
		m := metallb{translation: t, aliases: map[string]string{}, bfd: map[string]*metalLBBFD{}, peers: map[string][]string{}, labels: map[string]bool{}, selected: map[string]bool{}}
		m.translate()
	},
}

// allOf are all objects of some resources of one API group.
func allOf(group string, names ...string) (all []Resource) {
	for _, n := range names {
		all = append(all, Resource{GroupResource: schema.GroupResource{Group: group, Resource: n}})
	}
	return all
}

type metalLBPool struct {
	Addresses     []string           `json:"addresses"`
	AutoAssign    *bool              `json:"autoAssign"`
	AvoidBuggyIPs bool               `json:"avoidBuggyIPs"`
	Allocation    *metalLBAllocation `json:"serviceAllocation"`
}

type metalLBAllocation struct {
	Priority           int                    `json:"priority"`
	Namespaces         []string               `json:"namespaces"`
	NamespaceSelectors []metav1.LabelSelector `json:"namespaceSelectors"`
	ServiceSelectors   []metav1.LabelSelector `json:"serviceSelectors"`
}

// metalLBSelection is what both kinds of advertisements have.
type metalLBSelection struct {
	Pools            []string               `json:"ipAddressPools"`
	PoolSelectors    []metav1.LabelSelector `json:"ipAddressPoolSelectors"`
	NodeSelectors    []metav1.LabelSelector `json:"nodeSelectors"`
	ServiceSelectors []metav1.LabelSelector `json:"serviceSelectors"`
}

type metalLBL2 struct {
	metalLBSelection `json:",inline"`
	Interfaces       []string            `json:"interfaces"`
	Preferred        []metalLBPreference `json:"preferredNodeSelectors"` // After 0.16.
}

type metalLBPreference struct {
	Weight     int32                `json:"weight"`
	Preference metav1.LabelSelector `json:"preference"`
}

type metalLBBGP struct {
	metalLBSelection    `json:",inline"`
	AggregationLength   *int32   `json:"aggregationLength"`
	AggregationLengthV6 *int32   `json:"aggregationLengthV6"`
	LocalPref           uint32   `json:"localPref"`
	Communities         []string `json:"communities"`
	Peers               []string `json:"peers"`
}

type metalLBPeer struct {
	MyASN                  uint32                 `json:"myASN"`
	ASN                    uint32                 `json:"peerASN"`
	LocalASN               uint32                 `json:"localASN"`
	DynamicASN             string                 `json:"dynamicASN"`
	Address                string                 `json:"peerAddress"`
	Interface              string                 `json:"interface"`
	SourceAddress          string                 `json:"sourceAddress"`
	Port                   uint16                 `json:"peerPort"`
	HoldTime               *metav1.Duration       `json:"holdTime"`
	KeepaliveTime          *metav1.Duration       `json:"keepaliveTime"`
	ConnectTime            *metav1.Duration       `json:"connectTime"`
	RouterID               string                 `json:"routerID"`
	NodeSelectors          []metav1.LabelSelector `json:"nodeSelectors"`
	Password               string                 `json:"password"`
	PasswordSecret         metalLBSecretReference `json:"passwordSecret"`
	BFDProfile             string                 `json:"bfdProfile"`
	EnableGracefulRestart  bool                   `json:"enableGracefulRestart"`
	EBGPMultiHop           bool                   `json:"ebgpMultiHop"`
	VRF                    string                 `json:"vrf"`
	DisableMP              bool                   `json:"disableMP"`
	DualStackAddressFamily bool                   `json:"dualStackAddressFamily"`
}

type metalLBSecretReference struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

type metalLBBFD struct {
	*item            `json:"-"`
	used             bool
	ReceiveInterval  *uint32 `json:"receiveInterval"`
	TransmitInterval *uint32 `json:"transmitInterval"`
	DetectMultiplier *uint32 `json:"detectMultiplier"`
	EchoInterval     *uint32 `json:"echoInterval"`
	EchoMode         *bool   `json:"echoMode"`
	PassiveMode      *bool   `json:"passiveMode"`
	MinimumTTL       *uint32 `json:"minimumTtl"`
}

type metalLBCommunities struct {
	Communities []struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	} `json:"communities"`
}

// metallb is an import from MetalLB under way.
type metallb struct {
	*translation
	aliases map[string]string
	bfd     map[string]*metalLBBFD
	// peers are the BGPPeers that one of MetalLB's has become.
	peers map[string][]string
	// labels are those of pools that advertisements look at, and selected the pools that are there.
	labels, selected map[string]bool
}

func (m *metallb) translate() {
	for _, i := range m.of(metalLBGroup, "ServiceL2Status", "ServiceBGPStatus", "ConfigurationState") {
		_ = i // They are reports.
		m.Others++
	}
	for _, i := range m.of(metalLBGroup, "AddressPool") {
		i.cannot("AddressPools are of MetalLB before 0.13, and have their advertisements in themselves: write an IPAddressPool and advertisements in its place, and import again")
	}
	m.frr()
	for _, i := range m.of(metalLBGroup, "Community") {
		m.community(i)
	}
	for _, i := range m.of(metalLBGroup, "BFDProfile") {
		b := metalLBBFD{item: i}
		if decode(i, &b) {
			m.bfd[i.u.GetName()] = &b
		}
	}
	l2, bgp := m.of(metalLBGroup, "L2Advertisement"), m.of(metalLBGroup, "BGPAdvertisement")
	for _, i := range slices.Concat(l2, bgp) {
		var quiet struct {
			PoolSelectors []metav1.LabelSelector `json:"ipAddressPoolSelectors"`
		}
		if spec, ok := i.u.Object["spec"].(map[string]any); ok {
			_ = runtime.DefaultUnstructuredConverter.FromUnstructured(spec, &quiet) // What is wrong is said below.
		}
		keysOf(m.labels, quiet.PoolSelectors...)
	}
	m.pools(m.of(metalLBGroup, "IPAddressPool"))
	for _, i := range m.of(metalLBGroup, "BGPPeer") {
		m.peer(i)
	}
	for _, i := range m.of(metalLBGroup, "BFDProfile") {
		if b := m.bfd[i.u.GetName()]; b != nil && b.used {
			i.translated("spec.bfd of its BGPPeers")
		} else if b != nil {
			i.translated("nothing, for no BGPPeer uses it")
		}
	}
	for _, i := range l2 {
		m.l2(i)
	}
	for _, i := range bgp {
		m.bgp(i)
	}
	m.annotations()
}

// frr names what FRR is configured with besides MetalLB's objects. MetalLB writes a FRRConfiguration for each node.
func (m *metallb) frr() {
	for _, i := range m.of("", "ConfigMap") {
		if extras, _, _ := unstructured.NestedString(i.u.Object, "data", "extras"); i.u.GetName() == "bgpextras" && extras != "" {
			i.cannot("data.extras: it is added to the configuration of FRR, and Herald runs no FRR: see what of it BGPPeers, BGPAdvertisements or the routers have to say in its place")
		} else {
			m.Others++
		}
	}
	for _, i := range m.of(frrK8sGroup, "FRRConfiguration") {
		if strings.HasPrefix(i.u.GetName(), "metallb-") {
			m.Others++
		} else {
			i.cannot("it is added to the configuration of FRR, and Herald runs no FRR: write BGPPeers for sessions that are to announce Services, and let a routing daemon of the nodes have those that receive routes")
		}
	}
	for range m.of(frrK8sGroup, "FRRNodeState", "BGPSessionState") {
		m.Others++ // They are reports.
	}
}

func (m *metallb) community(i *item) {
	var c metalLBCommunities
	if !decode(i, &c) {
		return
	}
	for _, a := range c.Communities {
		if _, there := m.aliases[a.Name]; there {
			i.cannot("spec.communities: %s has a value already, and the first one holds: give each name once", a.Name)
			continue
		}
		m.aliases[a.Name] = a.Value
	}
	i.translated("values in spec.communities of BGPAdvertisements, for Herald has no names for them")
}

// pools writes IPPools. In MetalLB pools with a serviceAllocation come first, those with the lower priority before the
// others and those without one last; the higher number comes first in Herald.
func (m *metallb) pools(items []*item) {
	specs := make([]*metalLBPool, len(items))
	var priorities []int
	for n, i := range items {
		var spec metalLBPool
		if !decode(i, &spec) {
			continue
		}
		specs[n] = &spec
		if a := spec.Allocation; a != nil && a.Priority > 0 {
			priorities = append(priorities, a.Priority)
		}
	}
	slices.Sort(priorities)
	priorities = slices.Compact(priorities)
	for n, i := range items {
		if specs[n] == nil {
			continue
		}
		m.selected[i.u.GetName()] = true
		m.pool(i, specs[n], func(priority int) int32 {
			if at, found := slices.BinarySearch(priorities, priority); found {
				return int32(len(priorities) - at + 1)
			}
			return 1
		})
	}
}

func (m *metallb) pool(i *item, spec *metalLBPool, rank func(int) int32) {
	p := &herald.IPPool{}
	p.TypeMeta, p.ObjectMeta = kindOf("IPPool", i.u.GetName())
	for k, v := range i.u.GetLabels() {
		if m.labels[k] {
			metav1.SetMetaDataLabel(&p.ObjectMeta, k, v)
		}
	}
	p.Spec.Addresses = i.addresses("spec.addresses", spec.Addresses)
	if spec.AutoAssign != nil && !*spec.AutoAssign {
		p.Spec.AutoAssign = spec.AutoAssign
	}
	p.Spec.AvoidBuggyIPs = spec.AvoidBuggyIPs
	if a := spec.Allocation; a != nil {
		p.Spec.Priority = rank(a.Priority)
		if !slices.ContainsFunc(a.NamespaceSelectors, selectsAll) { // MetalLB adds up what they select.
			p.Spec.Namespaces = a.Namespaces
		}
		p.Spec.NamespaceSelector = i.only(p, "spec.serviceAllocation.namespaceSelectors", "namespaceSelector", a.NamespaceSelectors)
		if p.Spec.Disabled && len(p.Spec.Namespaces) > 0 {
			i.cannot("spec.serviceAllocation.namespaces: spec.namespaces of the IPPool is left out, too, so that Services of the other namespaces keep their addresses: write [%s] with the selector", strings.Join(p.Spec.Namespaces, ", "))
			p.Spec.Namespaces = nil
		}
		p.Spec.ServiceSelector = i.only(p, "spec.serviceAllocation.serviceSelectors", "serviceSelector", a.ServiceSelectors)
	}
	i.becomes(p)
}

// only is several selectors as the one that a pool can have. If that is not possible the pool is closed, for open to all it
// would give addresses to others.
func (i *item) only(p *herald.IPPool, field, ours string, list []metav1.LabelSelector) *metav1.LabelSelector {
	all := anyOf(list)
	if len(all) == 1 {
		return all[0]
	}
	p.Spec.Disabled = true
	i.cannot("%s: an IPPool has one selector: give what they select one label, write it in spec.%s of the IPPool, and remove spec.disabled, which is set until then", field, ours)
	return nil
}

// selections write what an advertisement selects; several if it takes several to say it.
func (m *metallb) selections(i *item, s *metalLBSelection) (all []herald.Selection) {
	for n, p := range s.Pools {
		if !m.selected[p] {
			i.approximated("spec.ipAddressPools[%d]: there is no IPAddressPool %s among the objects: import it, too, or the condition Accepted of the advertisement is False", n, p)
		}
	}
	pools := anyOf(s.PoolSelectors)
	if len(s.PoolSelectors) > 0 && pools[0] == nil {
		s.Pools = nil // One of the selectors selects all.
	}
	for _, pool := range pools {
		for _, node := range anyOf(s.NodeSelectors) {
			for _, svc := range anyOf(s.ServiceSelectors) {
				all = append(all, herald.Selection{Pools: slices.Compact(slices.Sorted(slices.Values(s.Pools))), PoolSelector: pool, NodeSelector: node, ServiceSelector: svc})
			}
		}
	}
	if len(all) > 1 {
		i.approximated("spec has several selectors of which one has to match: Herald's objects have one of each, so there are %d of them", len(all))
	}
	return all
}

func (m *metallb) l2(i *item) {
	var spec metalLBL2
	if !decode(i, &spec) {
		return
	}
	if len(spec.Interfaces) == 0 {
		i.approximated("spec.interfaces: MetalLB answers on all interfaces of a node, Herald on those with a subnet that holds the address: name them where clients reach addresses that are outside the nodes' subnets")
	}
	for n, name := range spec.Interfaces {
		if len(name) == 0 || len(name) > 15 {
			i.cannot("spec.interfaces[%d]: %q is no name of an interface: correct it, and import again", n, name)
			return
		}
	}
	var preferred *metav1.LabelSelector
	if len(spec.Preferred) > 0 {
		heaviest := slices.MaxFunc(spec.Preferred, func(a, b metalLBPreference) int { return cmp.Compare(a.Weight, b.Weight) })
		preferred = &heaviest.Preference
		if len(spec.Preferred) > 1 {
			i.approximated("spec.preferredNodeSelectors: MetalLB adds up the weights, Herald prefers nodes or does not: spec.preferredNodes is that with the highest weight")
		}
	}
	var objects []runtime.Object
	for n, s := range m.selections(i, &spec.metalLBSelection) {
		a := &herald.L2Advertisement{}
		a.TypeMeta, a.ObjectMeta = kindOf("L2Advertisement", numbered(i.u.GetName(), n))
		a.Spec.Selection, a.Spec.Interfaces = s, slices.Compact(slices.Sorted(slices.Values(spec.Interfaces)))
		if preferred != nil {
			a.Spec.PreferredNodes, a.Spec.Rebalance = preferred, herald.RebalanceGradual // In MetalLB addresses move to a preferred node that comes back.
		}
		objects = append(objects, a)
	}
	i.becomes(objects...)
}

func (m *metallb) bgp(i *item) {
	var spec metalLBBGP
	if !decode(i, &spec) {
		return
	}
	var s herald.BGPAdvertisementSpec
	var length herald.AggregationLength
	for _, l := range []struct {
		field string
		given *int32
		into  *int32
		most  int32
	}{{"aggregationLength", spec.AggregationLength, &length.IPv4, 32}, {"aggregationLengthV6", spec.AggregationLengthV6, &length.IPv6, 128}} {
		switch {
		case l.given == nil || *l.given == l.most:
		case *l.given < 1 || *l.given > l.most:
			i.cannot("spec.%s: %d is no length of a prefix: addresses are announced by themselves", l.field, *l.given)
		default:
			*l.into = *l.given
			s.AggregationLength = &length
		}
	}
	if s.AggregationLength != nil {
		i.approximated("spec.aggregationLength: Herald announces an address by itself where a network would be wrong, for example if the Service has externalTrafficPolicy Local or the network reaches beyond the pool")
	}
	if spec.LocalPref > 0 {
		preference := int64(spec.LocalPref)
		s.LocalPreference = &preference
	}
	for n, text := range spec.Communities {
		field := fmt.Sprintf("spec.communities[%d]", n)
		if value, alias := m.aliases[text]; alias {
			text = value
		} else if !strings.Contains(text, ":") {
			i.cannot("%s: there is no Community with the name %s among the objects: import it, too", field, text)
			continue
		}
		c, err := communityOf(strings.TrimPrefix(text, "large:"))
		if err != nil {
			i.cannot("%s: %v: it is left out", field, err)
			continue
		}
		if !slices.Contains(s.Communities, c) {
			s.Communities = append(s.Communities, c)
		}
	}
	for n, p := range spec.Peers {
		names, there := m.peers[p]
		if !there {
			i.approximated("spec.peers[%d]: there is no BGPPeer %s that is translated: the condition Accepted of the advertisement is False until there is", n, p)
			names = []string{p}
		}
		s.Peers = append(s.Peers, names...)
	}
	s.Peers = slices.Compact(slices.Sorted(slices.Values(s.Peers)))
	var objects []runtime.Object
	for n, selection := range m.selections(i, &spec.metalLBSelection) {
		a := &herald.BGPAdvertisement{Spec: s}
		a.TypeMeta, a.ObjectMeta = kindOf("BGPAdvertisement", numbered(i.u.GetName(), n))
		a.Spec.Selection = selection
		objects = append(objects, a)
	}
	i.becomes(objects...)
}

func (m *metallb) peer(i *item) {
	var spec metalLBPeer
	if !decode(i, &spec) {
		return
	}
	s := herald.BGPPeerSpec{LocalASN: int64(spec.MyASN), PeerASN: int64(spec.ASN), Port: int32(spec.Port)}
	if spec.LocalASN > 0 {
		s.LocalASN = int64(spec.LocalASN)
	}
	switch kind := map[string]herald.PeerType{"internal": herald.PeerInternal, "external": herald.PeerExternal}[spec.DynamicASN]; {
	case s.LocalASN == 0:
		i.cannot("spec.myASN is missing: give it, and import again")
		return
	case kind != "" && spec.ASN == 0:
		s.PeerType = kind
	case spec.ASN == 0 || spec.DynamicASN != "":
		i.cannot("spec.peerASN: give one of peerASN and dynamicASN, which is internal or external, and import again")
		return
	}
	if s.Port == 179 {
		s.Port = 0
	}
	if !m.router(i, &spec, &s) {
		return
	}
	i.timers(&s, "spec.holdTime", "spec.keepaliveTime", spec.HoldTime, spec.KeepaliveTime)
	s.ConnectRetryTime = i.seconds("spec.connectTime", spec.ConnectTime, 2*time.Second, time.Hour)
	if spec.RouterID != "" {
		i.cannot("spec.routerID: it is one for all nodes that have the peer, and in Herald each node has its own, by default its IPv4 address: if it matters give nodes a label or annotation, and name that in spec.routerIDFrom")
	}
	if spec.EnableGracefulRestart {
		s.GracefulRestart = &herald.GracefulRestart{RestartTime: metav1.Duration{Duration: 2 * time.Minute}} // As of FRR.
	}
	external := spec.DynamicASN == "external" || spec.ASN != 0 && s.PeerASN != s.LocalASN
	if spec.EBGPMultiHop && external && s.PeerType == "" {
		s.MultihopTTL = 255 // As of FRR.
	}
	m.path(i, &spec, &s, external)
	if spec.DisableMP {
		i.cannot("spec.disableMP: a session of Herald's carries routes of both families: filter those of the other family on the router")
	} else if !spec.DualStackAddressFamily {
		i.approximated("spec.dualStackAddressFamily: MetalLB sends routes of the family of the session only, unless this is true; Herald sends those of both: filter the others on the router if it must not have them")
	}
	switch {
	case spec.Password != "":
		i.clearText(&s, "spec.password", i.u.GetName())
	default:
		i.secret(&s, "spec.passwordSecret", cmp.Or(spec.PasswordSecret.Namespace, i.u.GetNamespace()), spec.PasswordSecret.Name)
	}
	var objects []runtime.Object
	nodes := anyOf(spec.NodeSelectors)
	if len(nodes) > 1 {
		i.approximated("spec.nodeSelectors has several of which one has to match: a BGPPeer of Herald has one, so there are %d of them; a node that several select has one session", len(nodes))
	}
	for n, selector := range nodes {
		p := &herald.BGPPeer{Spec: s}
		p.TypeMeta, p.ObjectMeta = kindOf("BGPPeer", numbered(i.u.GetName(), n))
		p.Spec.NodeSelector = selector
		objects = append(objects, p)
		m.peers[i.u.GetName()] = append(m.peers[i.u.GetName()], p.Name)
	}
	i.becomes(objects...)
}

// router writes where the router is, and from where it is reached.
func (m *metallb) router(i *item, spec *metalLBPeer, s *herald.BGPPeerSpec) (ok bool) {
	for _, name := range []string{spec.Interface, spec.VRF} {
		if len(name) > 15 {
			i.cannot("%q is no name of an interface: correct it, and import again", name)
			return false
		}
	}
	switch {
	case (spec.Address == "") == (spec.Interface == ""):
		i.cannot("spec.peerAddress: give one of peerAddress and interface, and import again")
		return false
	case spec.Interface != "":
		s.AddressFrom = &herald.PeerAddressSource{Interface: spec.Interface}
		if spec.VRF != "" {
			i.approximated("spec.vrf: the interface %s of an unnumbered session says which VRF it is in, and %s is left out", spec.Interface, spec.VRF)
		}
	default:
		s.Interface = spec.VRF
		if s.Address, ok = i.routerAddress("spec.peerAddress", spec.Address, s.Interface); !ok {
			return false
		}
	}
	if spec.SourceAddress == "" {
		return true
	}
	source, err := addressOf(spec.SourceAddress)
	if router, e := addressOf(s.Address); err != nil || e == nil && router.Is4() != source.Is4() {
		i.cannot("spec.sourceAddress: %q is no address of the family of the router: it is left out", spec.SourceAddress)
		return true
	}
	s.SourceAddress = source.String()
	i.approximated("spec.sourceAddress: a node that does not have %s has no session; MetalLB in native mode takes another address there: select the one node that has it", source)
	return true
}

// path writes BFD. FRR takes an external router to be on the link unless it is told otherwise, and looks where an internal one is.
func (m *metallb) path(i *item, spec *metalLBPeer, s *herald.BGPPeerSpec, external bool) {
	if spec.BFDProfile == "" {
		return
	}
	s.BFD = &herald.BFD{}
	b := m.bfd[spec.BFDProfile]
	if b == nil {
		i.approximated("spec.bfdProfile: there is no BFDProfile %s that can be read among the objects: BFD has Herald's defaults, 300ms and 3", spec.BFDProfile)
		b = &metalLBBFD{item: i, used: true}
	}
	bounded := func(field string, value *uint32, least, most uint32) uint32 {
		if value == nil {
			return 0
		}
		fits := min(max(*value, least), most)
		if fits != *value && !b.used {
			b.approximated("spec.%s: %d is not possible, and %d is written", field, *value, fits)
		}
		return fits
	}
	interval := func(field string, value *uint32) *metav1.Duration {
		if value == nil {
			return nil
		}
		return &metav1.Duration{Duration: time.Duration(bounded(field, value, 10, 60000)) * time.Millisecond}
	}
	s.BFD.TransmitInterval, s.BFD.ReceiveInterval = interval("transmitInterval", b.TransmitInterval), interval("receiveInterval", b.ReceiveInterval)
	s.BFD.DetectMultiplier = int32(bounded("detectMultiplier", b.DetectMultiplier, 1, 255))
	if !external {
		i.approximated("spec.bfdProfile: BFD is for an internal router on the link: if it is not, set spec.bfd.minimumTTL of the BGPPeer, as FRR does by itself")
	}
	if spec.EBGPMultiHop && external {
		s.BFD.MinimumTTL = 254 // As of FRR.
		if b.MinimumTTL != nil {
			s.BFD.MinimumTTL = int32(bounded("minimumTtl", b.MinimumTTL, 1, 254))
		}
	}
	if b.used {
		return
	}
	b.used = true
	if b.EchoMode != nil && *b.EchoMode {
		b.cannot("spec.echoMode: Herald has no echo function: control packets at spec.bfd.transmitInterval do as much")
	}
	if b.PassiveMode != nil && *b.PassiveMode {
		b.cannot("spec.passiveMode: Herald sends control packets from the start: the router need not be told")
	}
}

// annotations translates those of Services.
func (m *metallb) annotations() {
	const old = "metallb.universe.tf/"
	for _, s := range m.services() {
		wanted := map[string]string{}
		given := map[string]string{}
		for _, prefix := range []string{metalLBGroup + "/", old} {
			for key, value := range s.u.GetAnnotations() {
				name, ok := strings.CutPrefix(key, prefix)
				if !ok {
					continue
				}
				if first, twice := given[name]; twice && first != value {
					s.approximated("%s: %s%s says something else, and that is taken", key, metalLBGroup+"/", name)
					continue
				}
				given[name] = value
			}
		}
		for _, name := range sortedKeys(given) {
			switch value := given[name]; name {
			case "loadBalancerIPs":
				maps.Copy(wanted, s.requested(metalLBGroup+"/"+name, value))
			case "address-pool":
				if len(value) > 0 {
					wanted[herald.AnnotationPool] = value
				}
			case "allow-shared-ip":
				if value != "" {
					wanted[herald.AnnotationSharingKey] = value
				}
			case "ip-allocated-from-pool": // MetalLB says so.
			default:
				s.cannot("the annotation %s/%s is not known: look what it does", metalLBGroup, name)
			}
		}
		s.wants(wanted)
		s.bound()
	}
}
