package migrate

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go4.org/netipx"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

const ciliumGroup = "cilium.io"

// ciliumLB is Cilium's LB IPAM, its L2 announcements, and its BGP control plane in its second version, as of 1.19.
var ciliumLB = Source{
	Name: "cilium", Title: "Cilium",
	Resources: allOf(ciliumGroup, "ciliumloadbalancerippools", "ciliuml2announcementpolicies", "ciliumbgpclusterconfigs", "ciliumbgppeerconfigs",
		"ciliumbgpadvertisements", "ciliumbgpnodeconfigoverrides", "ciliumbgppeeringpolicies"),
	translate: func(t *translation) {
		c := cilium{translation: t, configs: map[string]*ciliumPeerConfig{}}
		c.translate()
	},
}

type ciliumBlock struct {
	CIDR  string `json:"cidr"`
	Start string `json:"start"`
	Stop  string `json:"stop"`
}

type ciliumPool struct {
	ServiceSelector   *metav1.LabelSelector `json:"serviceSelector"`
	AllowFirstLastIPs string                `json:"allowFirstLastIPs"`
	Blocks            []ciliumBlock         `json:"blocks"`
	CIDRs             []ciliumBlock         `json:"cidrs"` // Before 1.16.
	Disabled          bool                  `json:"disabled"`
}

type ciliumL2 struct {
	NodeSelector    *metav1.LabelSelector `json:"nodeSelector"`
	ServiceSelector *metav1.LabelSelector `json:"serviceSelector"`
	LoadBalancerIPs bool                  `json:"loadBalancerIPs"`
	ExternalIPs     bool                  `json:"externalIPs"`
	Interfaces      []string              `json:"interfaces"`
}

type ciliumClusterConfig struct {
	NodeSelector *metav1.LabelSelector `json:"nodeSelector"`
	Instances    []ciliumInstance      `json:"bgpInstances"`
}

type ciliumInstance struct {
	Name      string       `json:"name"`
	LocalASN  int64        `json:"localASN"`
	LocalPort int32        `json:"localPort"`
	Peers     []ciliumPeer `json:"peers"`
}

type ciliumPeer struct {
	Name          string `json:"name"`
	Address       string `json:"peerAddress"`
	ASN           int64  `json:"peerASN"`
	AutoDiscovery *struct {
		Mode           string `json:"mode"`
		DefaultGateway *struct {
			AddressFamily string `json:"addressFamily"`
		} `json:"defaultGateway"`
		Unnumbered *struct {
			Interface string `json:"interface"`
		} `json:"unnumbered"`
	} `json:"autoDiscovery"`
	PeerConfigRef *struct {
		Group string `json:"group"`
		Kind  string `json:"kind"`
		Name  string `json:"name"`
	} `json:"peerConfigRef"`
}

type ciliumPeerConfig struct {
	*item     `json:"-"`
	Transport *struct {
		PeerPort  int32 `json:"peerPort"`
		LocalPort int32 `json:"localPort"`
	} `json:"transport"`
	Timers *struct {
		ConnectRetry int64 `json:"connectRetryTimeSeconds"`
		Hold         int64 `json:"holdTimeSeconds"`
		KeepAlive    int64 `json:"keepAliveTimeSeconds"`
	} `json:"timers"`
	AuthSecretRef   string `json:"authSecretRef"`
	GracefulRestart *struct {
		Enabled bool  `json:"enabled"`
		Seconds int64 `json:"restartTimeSeconds"`
	} `json:"gracefulRestart"`
	EBGPMultihop int32          `json:"ebgpMultihop"`
	Families     []ciliumFamily `json:"families"`
	// peers are the BGPPeers that have it.
	peers []string
}

type ciliumFamily struct {
	AFI            string                `json:"afi"`
	SAFI           string                `json:"safi"`
	Advertisements *metav1.LabelSelector `json:"advertisements"`
}

type ciliumAdvertisement struct {
	Advertisements []struct {
		Type    string `json:"advertisementType"`
		Service *struct {
			Addresses []string `json:"addresses"`
			IPv4      *int32   `json:"aggregationLengthIPv4"`
			IPv6      *int32   `json:"aggregationLengthIPv6"`
		} `json:"service"`
		Selector   *metav1.LabelSelector `json:"selector"`
		Attributes *struct {
			Communities *struct {
				Standard  []string `json:"standard"`
				WellKnown []string `json:"wellKnown"`
				Large     []string `json:"large"`
			} `json:"communities"`
			LocalPreference *int64 `json:"localPreference"`
		} `json:"attributes"`
	} `json:"advertisements"`
}

// ciliumWellKnown are communities that Herald writes as numbers or in another word.
var ciliumWellKnown = map[string]herald.Community{
	"internet": "0:0", "planned-shut": "graceful-shutdown", "accept-own": "accept-own", "route-filter-translated-v4": "65535:2", "route-filter-v4": "65535:3",
	"route-filter-translated-v6": "65535:4", "route-filter-v6": "65535:5", "llgr-stale": "65535:6", "no-llgr": "no-llgr", "blackhole": "blackhole",
	"no-export": "no-export", "no-advertise": "no-advertise", "no-export-subconfed": "no-export-subconfed", "no-peer": "no-peer",
}

// cilium is an import from Cilium under way.
type cilium struct {
	*translation
	configs map[string]*ciliumPeerConfig
}

func (c *cilium) translate() {
	for _, i := range c.of(ciliumGroup, "CiliumLoadBalancerIPPool") {
		c.pool(i)
	}
	for _, i := range c.of(ciliumGroup, "CiliumL2AnnouncementPolicy") {
		c.l2(i)
	}
	peerConfigs := c.of(ciliumGroup, "CiliumBGPPeerConfig")
	for _, i := range peerConfigs {
		config := ciliumPeerConfig{item: i}
		if decode(i, &config) {
			c.configs[i.u.GetName()] = &config
		}
	}
	clusters := c.of(ciliumGroup, "CiliumBGPClusterConfig")
	for _, i := range clusters {
		c.cluster(i, len(clusters) > 1)
	}
	for _, i := range peerConfigs {
		if config := c.configs[i.u.GetName()]; config != nil {
			c.peerConfig(config)
		}
	}
	for _, i := range c.of(ciliumGroup, "CiliumBGPAdvertisement") {
		c.advertisement(i)
	}
	for _, i := range c.of(ciliumGroup, "CiliumBGPNodeConfigOverride") {
		i.cannot("in Herald a node says such things of itself: give Nodes labels or annotations and name them in spec.localASNFrom and spec.routerIDFrom of the BGPPeers; for a localAddress write a BGPPeer for each node, with spec.sourceAddress and spec.nodeSelector")
	}
	for _, i := range c.of(ciliumGroup, "CiliumBGPPeeringPolicy") {
		i.cannot("it is of the first version of Cilium's BGP control plane, and is not read: write CiliumBGPClusterConfig, CiliumBGPPeerConfig and CiliumBGPAdvertisement in its place, and import again")
	}
	for range c.of(ciliumGroup, "CiliumBGPNodeConfig") {
		c.Others++ // Cilium makes them of the others.
	}
	c.annotations()
}

// ciliumServices splits a selector of Services into that of their labels and that of their namespaces: Cilium gives Services
// labels for namespace and name that they do not have. It cannot if the selector is about names.
func ciliumServices(s *metav1.LabelSelector) (service, namespace *metav1.LabelSelector, ok bool) {
	const ofNamespace, ofName = "io.kubernetes.service.namespace", "io.kubernetes.service.name"
	if s == nil {
		return nil, nil, true
	}
	var svc, ns metav1.LabelSelector
	for k, v := range s.MatchLabels {
		switch k {
		case ofName:
			return nil, nil, false
		case ofNamespace:
			metav1.AddLabelToSelector(&ns, "kubernetes.io/metadata.name", v)
		default:
			metav1.AddLabelToSelector(&svc, k, v)
		}
	}
	for _, e := range s.MatchExpressions {
		switch e.Key {
		case ofName:
			return nil, nil, false
		case ofNamespace:
			e.Key = "kubernetes.io/metadata.name"
			ns.MatchExpressions = append(ns.MatchExpressions, e)
		default:
			svc.MatchExpressions = append(svc.MatchExpressions, e)
		}
	}
	full := func(s metav1.LabelSelector) *metav1.LabelSelector {
		if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
			return nil
		}
		return &s
	}
	return full(svc), full(ns), true
}

const byName = "Herald has no selector of the names of Services: give them a label, and select that"

func (c *cilium) pool(i *item) {
	var spec ciliumPool
	if !decode(i, &spec) {
		return
	}
	p := &herald.IPPool{}
	p.TypeMeta, p.ObjectMeta = kindOf("IPPool", i.u.GetName())
	p.Spec.Disabled = spec.Disabled
	var ok bool
	if p.Spec.ServiceSelector, p.Spec.NamespaceSelector, ok = ciliumServices(spec.ServiceSelector); !ok {
		p.Spec.Disabled = true
		i.cannot("spec.serviceSelector: %s in spec.serviceSelector of the IPPool, and remove spec.disabled, which is set until then", byName)
	}
	field, blocks := "spec.blocks", spec.Blocks
	if len(blocks) == 0 {
		field, blocks = "spec.cidrs", spec.CIDRs
	}
	var texts []string
	for n, b := range blocks {
		switch {
		case b.CIDR != "" && b.Start == "" && b.Stop == "":
			texts = append(texts, b.CIDR)
		case b.Start != "" && b.Stop == "":
			texts = append(texts, b.Start)
		case b.Start != "":
			texts = append(texts, b.Start+"-"+b.Stop)
		default:
			i.cannot("%s[%d]: give cidr, or start with or without stop: it is left out", field, n)
			continue
		}
		if r, err := rangeOf(b.CIDR); err == nil && spec.AllowFirstLastIPs == "No" {
			if prefix, whole := r.Prefix(); whole && r.From().BitLen()-prefix.Bits() > 1 {
				for _, a := range []herald.AddressRange{written(netipx.IPRangeFrom(r.From(), r.From())), written(netipx.IPRangeFrom(r.To(), r.To()))} {
					if !slices.Contains(p.Spec.Exclude, a) {
						p.Spec.Exclude = append(p.Spec.Exclude, a)
					}
				}
			}
		}
	}
	p.Spec.Addresses = i.addresses(field, texts)
	i.becomes(p)
}

// named is a regular expression that matches one name of an interface.
var named = regexp.MustCompile(`^\^?([A-Za-z0-9_.-]{1,15})\$?$`)

func (c *cilium) l2(i *item) {
	var spec ciliumL2
	if !decode(i, &spec) {
		return
	}
	if spec.ExternalIPs {
		i.cannot("spec.externalIPs: Herald announces addresses of status.loadBalancer only: make the Services of type LoadBalancer, with %s", herald.AnnotationIPs)
	}
	if !spec.LoadBalancerIPs {
		i.cannot("spec.loadBalancerIPs is not true, so there is nothing that Herald announces: leave it")
		return
	}
	a := &herald.L2Advertisement{}
	a.TypeMeta, a.ObjectMeta = kindOf("L2Advertisement", i.u.GetName())
	a.Spec.NodeSelector = spec.NodeSelector
	var ok bool
	if a.Spec.ServiceSelector, a.Spec.NamespaceSelector, ok = ciliumServices(spec.ServiceSelector); !ok {
		i.cannot("spec.serviceSelector: %s, and import again", byName)
		return
	}
	for n, expression := range spec.Interfaces {
		switch m := named.FindStringSubmatch(strings.ReplaceAll(expression, `\.`, ".")); {
		case m == nil || strings.Contains(expression, ".") && !strings.Contains(expression, `\.`):
			i.cannot("spec.interfaces[%d]: Herald names interfaces, and has no regular expressions: name those that %q means in spec.interfaces, or leave it out for every interface with a subnet that holds the address", n, expression)
		case !slices.Contains(a.Spec.Interfaces, m[1]):
			a.Spec.Interfaces = append(a.Spec.Interfaces, m[1])
			if expression != "^"+regexp.QuoteMeta(m[1])+"$" {
				i.approximated("spec.interfaces[%d]: the regular expression %q matches other names, too; the interface %s is written", n, expression, m[1])
			}
		}
	}
	if len(spec.Interfaces) == 0 {
		i.approximated("spec.interfaces: Cilium answers on all its devices, Herald on interfaces with a subnet that holds the address: name them where clients reach addresses that are outside the nodes' subnets")
	}
	i.becomes(a)
}

// cluster writes a BGPPeer for each peer of each instance.
func (c *cilium) cluster(i *item, several bool) {
	var spec ciliumClusterConfig
	if !decode(i, &spec) {
		return
	}
	var objects []runtime.Object
	names := map[string]bool{}
	for n, instance := range spec.Instances {
		field := fmt.Sprintf("spec.bgpInstances[%d]", n)
		if instance.LocalPort != 0 {
			i.approximated("%s.localPort: Herald's nodes connect to the router, and listen only with spec.passive of the BGPPeer: set it if the router connects", field)
		}
		for m, peer := range instance.Peers {
			name := strings.ToLower(instance.Name + "-" + peer.Name)
			if several {
				name = i.u.GetName() + "-" + name
			}
			if len(validation.IsDNS1123Subdomain(name)) > 0 || names[name] {
				i.cannot("%s.peers[%d]: %q is no name that a BGPPeer can have, or is there twice: rename the instance or the peer, and import again", field, m, name)
				continue
			}
			if p := c.peer(i, fmt.Sprintf("%s.peers[%d]", field, m), name, &instance, &peer); p != nil {
				p.Spec.NodeSelector = spec.NodeSelector.DeepCopy()
				names[name] = true
				objects = append(objects, p)
			}
		}
	}
	i.becomes(objects...)
}

func (c *cilium) peer(i *item, field, name string, instance *ciliumInstance, peer *ciliumPeer) *herald.BGPPeer {
	p := &herald.BGPPeer{}
	p.TypeMeta, p.ObjectMeta = kindOf("BGPPeer", name)
	s := &p.Spec
	switch {
	case instance.LocalASN < 1 || instance.LocalASN > 1<<32-1:
		i.cannot("%s: the instance has no localASN, or none from 1 to 4294967295: give it, or a label of the Nodes in spec.localASNFrom of a BGPPeer written by hand", field)
		return nil
	case peer.ASN < 0 || peer.ASN > 1<<32-1:
		i.cannot("%s.peerASN: %d is no AS number: correct it, and import again", field, peer.ASN)
		return nil
	case peer.ASN == 0:
		s.PeerType = herald.PeerExternal
		i.approximated("%s.peerASN: Cilium takes any AS number, Herald any but that of the nodes: write spec.peerType Internal if the router has the same", field)
	}
	s.LocalASN, s.PeerASN = instance.LocalASN, peer.ASN
	switch d := peer.AutoDiscovery; {
	case peer.Address != "":
		address, zone, _ := strings.Cut(peer.Address, "%")
		if len(zone) > 15 {
			i.cannot("%s.peerAddress: %q is no name of an interface: correct it, and import again", field, zone)
			return nil
		}
		var ok bool
		if s.Address, ok = i.routerAddress(field+".peerAddress", address, zone); !ok {
			return nil
		}
		s.Interface = zone
	case d != nil && strings.EqualFold(strings.ReplaceAll(d.Mode, "-", ""), "DefaultGateway") && d.DefaultGateway != nil &&
		(d.DefaultGateway.AddressFamily == "ipv4" || d.DefaultGateway.AddressFamily == "ipv6"):
		s.AddressFrom = &herald.PeerAddressSource{DefaultGateway: herald.IPv4}
		if d.DefaultGateway.AddressFamily == "ipv6" {
			s.AddressFrom.DefaultGateway = herald.IPv6
		}
	case d != nil && d.Mode == "Unnumbered" && d.Unnumbered != nil && len(d.Unnumbered.Interface) > 0 && len(d.Unnumbered.Interface) <= 15:
		s.AddressFrom = &herald.PeerAddressSource{Interface: d.Unnumbered.Interface}
	default:
		i.cannot("%s: it has neither a peerAddress nor an autoDiscovery that Herald knows: write the BGPPeer by hand, with spec.address or spec.addressFrom", field)
		return nil
	}
	if peer.PeerConfigRef == nil {
		i.approximated("%s: it has no peerConfigRef, so no addresses are announced to it", field)
		return p
	}
	config := c.configs[peer.PeerConfigRef.Name]
	if config == nil {
		i.cannot("%s.peerConfigRef: there is no CiliumBGPPeerConfig %s that can be read among the objects: import it, too", field, peer.PeerConfigRef.Name)
		return p
	}
	config.apply(s)
	config.peers = append(config.peers, name)
	return p
}

// apply writes what the peers of a CiliumBGPPeerConfig have in common. What is to be said is said once.
func (p *ciliumPeerConfig) apply(s *herald.BGPPeerSpec) {
	i := p.item
	if len(p.peers) > 0 {
		i = &item{t: &translation{}, u: p.u} // It has been said.
	}
	seconds := func(n int64) *metav1.Duration {
		if n == 0 {
			return nil
		}
		return &metav1.Duration{Duration: time.Duration(min(max(n, 0), 1<<30)) * time.Second}
	}
	if t := p.Transport; t != nil {
		if t.PeerPort < 0 || t.PeerPort > 65535 {
			i.cannot("spec.transport.peerPort: %d is no port: 179 is used", t.PeerPort)
		} else if t.PeerPort != 179 {
			s.Port = t.PeerPort
		}
		if t.LocalPort != 0 {
			i.cannot("spec.transport.localPort: the system chooses the port that a session of Herald's comes from: let the router accept any")
		}
	}
	if t := p.Timers; t != nil {
		i.timers(s, "spec.timers.holdTimeSeconds", "spec.timers.keepAliveTimeSeconds", seconds(t.Hold), seconds(t.KeepAlive))
		s.ConnectRetryTime = i.seconds("spec.timers.connectRetryTimeSeconds", seconds(t.ConnectRetry), 2*time.Second, time.Hour)
	}
	if p.AuthSecretRef != "" && len(validation.IsDNS1123Subdomain(p.AuthSecretRef)) > 0 {
		i.cannot("spec.authSecretRef: this is no name of a Secret: correct it, and import again")
	} else {
		i.secret(s, "spec.authSecretRef", metav1.NamespaceSystem, p.AuthSecretRef)
	}
	if g := p.GracefulRestart; g != nil && g.Enabled {
		restart := seconds(g.Seconds)
		if restart == nil {
			restart = &metav1.Duration{Duration: 2 * time.Minute}
		}
		s.GracefulRestart = &herald.GracefulRestart{RestartTime: *i.seconds("spec.gracefulRestart.restartTimeSeconds", restart, time.Second, 4095*time.Second)}
	}
	if s.PeerASN != 0 && s.PeerASN != s.LocalASN && p.EBGPMultihop > 1 {
		s.MultihopTTL = min(p.EBGPMultihop, 255)
	}
	for n, f := range p.Families {
		if f.SAFI != "unicast" || f.AFI != "ipv4" && f.AFI != "ipv6" {
			i.cannot("spec.families[%d]: Herald's sessions carry ipv4 and ipv6 unicast only: leave %s %s to Cilium", n, f.AFI, f.SAFI)
		}
	}
	if len(p.Families) == 1 {
		i.approximated("spec.families: a session of Herald's carries routes of both families: filter the others on the router if it must not have them")
	}
}

func (c *cilium) peerConfig(p *ciliumPeerConfig) {
	if len(p.peers) == 0 {
		p.translated("nothing, for no peer uses it")
		return
	}
	p.translated("fields of BGPPeers %s", strings.Join(p.peers, ", "))
}

// advertisement writes a BGPAdvertisement for each entry about addresses of load balancers.
func (c *cilium) advertisement(i *item) {
	var spec ciliumAdvertisement
	if !decode(i, &spec) {
		return
	}
	peers := c.subscribers(i)
	var objects []runtime.Object
	for n, entry := range spec.Advertisements {
		field := fmt.Sprintf("spec.advertisements[%d]", n)
		if entry.Type != "Service" {
			i.cannot("%s: Herald announces addresses of Services only: leave %s to Cilium", field, entry.Type)
			continue
		}
		if entry.Service == nil || !slices.Contains(entry.Service.Addresses, "LoadBalancerIP") {
			i.cannot("%s.service.addresses has no LoadBalancerIP, and Herald announces nothing else: leave it to Cilium", field)
			continue
		}
		for _, kind := range entry.Service.Addresses {
			if kind != "LoadBalancerIP" {
				i.cannot("%s.service.addresses: Herald does not announce %s: leave that to Cilium, or make the Services of type LoadBalancer", field, kind)
			}
		}
		if entry.Selector == nil {
			i.approximated("%s has no selector, which selects nothing in Cilium: nothing is written", field)
			continue
		}
		if len(peers) == 0 {
			i.approximated("%s: no peer's families select this CiliumBGPAdvertisement, so nothing is written", field)
			continue
		}
		a := &herald.BGPAdvertisement{}
		a.TypeMeta, a.ObjectMeta = kindOf("BGPAdvertisement", numbered(i.u.GetName(), len(objects)))
		a.Spec.Peers = peers
		a.Spec.WithoutEndpoints = herald.EndpointsAnnounce // As Cilium does.
		var ok bool
		if a.Spec.ServiceSelector, a.Spec.NamespaceSelector, ok = ciliumServices(entry.Selector); !ok {
			i.cannot("%s.selector: %s, and import again", field, byName)
			continue
		}
		var length herald.AggregationLength
		for _, l := range []struct {
			given *int32
			into  *int32
			most  int32
		}{{entry.Service.IPv4, &length.IPv4, 32}, {entry.Service.IPv6, &length.IPv6, 128}} {
			if l.given != nil && *l.given > 0 && *l.given < l.most {
				*l.into = *l.given
				a.Spec.AggregationLength = &length
			} else if l.given != nil {
				i.cannot("%s.service: Herald announces no network of the length %d: addresses are announced by themselves", field, *l.given)
			}
		}
		if a.Spec.AggregationLength != nil {
			i.approximated("%s.service: Herald announces an address by itself where a network would be wrong, for example if the Service has externalTrafficPolicy Local or the network reaches beyond the pool", field)
		}
		if t := entry.Attributes; t != nil {
			if p := t.LocalPreference; p != nil && *p >= 0 && *p <= 1<<32-1 {
				a.Spec.LocalPreference = p
			} else if p != nil {
				i.cannot("%s.attributes.localPreference: %d is not from 0 to 4294967295: it is left out", field, *p)
			}
			if t.Communities != nil {
				a.Spec.Communities = i.communities(field, t.Communities.Standard, t.Communities.WellKnown, t.Communities.Large)
			}
		}
		objects = append(objects, a)
	}
	i.becomes(objects...)
}

func (i *item) communities(field string, standard, wellKnown, large []string) (all []herald.Community) {
	add := func(c herald.Community, err error) {
		if err != nil {
			i.cannot("%s.attributes.communities: %v: it is left out", field, err)
		} else if !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	for _, text := range standard {
		if n, err := strconv.ParseUint(text, 10, 32); err == nil {
			text = fmt.Sprintf("%d:%d", n>>16, n&0xffff)
		}
		add(communityOf(text))
	}
	for _, text := range large {
		add(communityOf(text))
	}
	for _, text := range wellKnown {
		if c, known := ciliumWellKnown[text]; known {
			add(c, nil)
		} else {
			add("", fmt.Errorf("%q is no well-known community", text))
		}
	}
	return all
}

// subscribers are the BGPPeers whose CiliumBGPPeerConfig selects the advertisement, in one family or both.
func (c *cilium) subscribers(i *item) (peers []string) {
	for _, name := range sortedKeys(c.configs) {
		config := c.configs[name]
		in := map[string]bool{}
		for _, f := range config.Families {
			if f.Advertisements == nil {
				continue
			}
			if s, err := metav1.LabelSelectorAsSelector(f.Advertisements); err == nil && s.Matches(labels.Set(i.u.GetLabels())) {
				in[f.AFI] = true
			}
		}
		if len(in) == 0 {
			continue
		}
		if len(in) < len(config.Families) {
			i.approximated("CiliumBGPPeerConfig %s selects it for %s only: Herald announces it in both families", name, strings.Join(slices.Sorted(maps.Keys(in)), ", "))
		}
		peers = append(peers, config.peers...)
	}
	slices.Sort(peers)
	return slices.Compact(peers)
}

// annotations translates those of Services; io.cilium/lb-ipam- is what they began with before.
func (c *cilium) annotations() {
	for _, s := range c.services() {
		given := map[string]string{}
		for key, value := range s.u.GetAnnotations() {
			if name, ok := strings.CutPrefix(key, "io.cilium/lb-ipam-"); ok {
				given[name] = value
			}
		}
		for key, value := range s.u.GetAnnotations() {
			if name, ok := strings.CutPrefix(key, "lbipam.cilium.io/"); ok {
				given[name] = value
			}
		}
		wanted := map[string]string{}
		for _, name := range sortedKeys(given) {
			switch value := given[name]; name {
			case "ips":
				maps.Copy(wanted, s.requested("lbipam.cilium.io/ips", value))
			case "sharing-key":
				if value != "" {
					wanted[herald.AnnotationSharingKey] = value
				}
			case "sharing-cross-namespace":
				s.approximated("lbipam.cilium.io/sharing-cross-namespace: in Herald the pool says whether Services of different namespaces may share an address, by spec.shareAcrossNamespaces, and not with which")
			default:
				s.cannot("the annotation lbipam.cilium.io/%s is not known: look what it does", name)
			}
		}
		s.wants(wanted)
		s.bound()
	}
}
