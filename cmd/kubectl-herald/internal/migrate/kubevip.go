package migrate

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go4.org/netipx"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// kubeVIP is kube-vip, as of 1.2, with its cloud provider.
var kubeVIP = Source{
	Name: "kube-vip", Title: "kube-vip",
	Resources: []Resource{
		{GroupResource: schema.GroupResource{Resource: "configmaps"}, Namespace: metav1.NamespaceSystem, Name: "kubevip"},
		{GroupResource: schema.GroupResource{Group: appsv1.GroupName, Resource: "daemonsets"}},
		{GroupResource: schema.GroupResource{Group: "config.kube-vip.io", Resource: "bgppeers"}}, // Which it says are not known.
	},
	translate: func(t *translation) { (&kubevip{translation: t}).translate() },
}

// kubevip is an import from kube-vip under way.
type kubevip struct {
	*translation
}

func (k *kubevip) translate() {
	for _, i := range k.of("", "ConfigMap") {
		if i.u.GetName() == "kubevip" {
			k.configMap(i)
		} else {
			k.Others++
		}
	}
	for _, i := range k.of(appsv1.GroupName, "DaemonSet") {
		k.daemonSet(i)
	}
	k.annotations()
}

// configMap writes an IPPool for each namespace, and one for all.
func (k *kubevip) configMap(i *item) {
	for _, key := range sortedKeys(i.u.Object) {
		if !slices.Contains([]string{"apiVersion", "kind", "metadata", "data", "immutable"}, key) {
			i.unknown(key)
		}
	}
	var data map[string]string
	if !i.read("data", i.u.Object["data"], &data) {
		return
	}
	pools := map[string]*herald.IPPool{}
	var objects []runtime.Object
	for _, key := range sortedKeys(data) {
		value := data[key]
		what, namespace, found := strings.Cut(key, "-")
		switch {
		case key == "skip-end-ips-in-cidr": // Read with the prefixes.
		case key == "search-order":
			i.approximated("data.%s: an IPPool gives out the lowest address that was never in use", key)
		case strings.HasPrefix(key, "allow-share-"):
			i.cannot("data.%s: Services of Herald's share an address by the annotation %s: give it to those that are to share one", key, herald.AnnotationSharingKey)
		case found && what == "interface":
			i.approximated("data.%s: a pool of Herald's knows no interface: name %s in spec.interfaces of an L2Advertisement with spec.namespaceSelector, or leave it out where its subnet holds the addresses", key, value)
		case found && (what == "cidr" || what == "range"):
			if what == "range" && data["cidr-"+namespace] != "" {
				i.approximated("data.%s: kube-vip takes cidr-%s, and so does the IPPool", key, namespace)
				continue
			}
			if what == "range" && namespace != "global" && data["cidr-global"] != "" {
				i.approximated("data.%s: kube-vip never takes it as long as there is a cidr-global, and no IPPool is written for it", key)
				continue
			}
			p := k.pool(i, key, namespace, value, data["skip-end-ips-in-cidr"] == "true")
			if p != nil && pools[p.Name] == nil {
				pools[p.Name] = p
				objects = append(objects, p)
			}
		default:
			i.unknown("data." + key)
		}
	}
	if len(objects) > 1 && pools["global"] != nil {
		i.approximated("data: Services of a namespace with an IPPool of its own get addresses of the global one when theirs has none left: give the global one a namespaceSelector if they must not")
	}
	i.becomes(objects...)
}

func (k *kubevip) pool(i *item, key, namespace, value string, skipEnds bool) *herald.IPPool {
	p := &herald.IPPool{}
	p.TypeMeta, p.ObjectMeta = kindOf("IPPool", namespace)
	if namespace != "global" {
		p.Spec.Namespaces, p.Spec.Priority = []string{namespace}, 1
	}
	var texts []string
	for text := range strings.SplitSeq(value, ",") {
		if r, err := rangeOf(text); err == nil && (r.From().IsUnspecified() || r.To().IsUnspecified()) {
			i.cannot("data.%s: %s asks for addresses by DHCP, which Herald does not do: give a range that no DHCP server has", key, strings.TrimSpace(text))
			continue
		}
		if prefix, err := netip.ParsePrefix(strings.TrimSpace(text)); skipEnds && err == nil && prefix.Addr().Is4() && prefix.Bits() < 31 {
			r := netipx.RangeOfPrefix(prefix.Masked())
			for _, a := range []netip.Addr{r.From(), r.To()} {
				if e := herald.AddressRange(a.String()); !slices.Contains(p.Spec.Exclude, e) {
					p.Spec.Exclude = append(p.Spec.Exclude, e)
				}
			}
		}
		texts = append(texts, text)
	}
	p.Spec.Addresses = i.addresses("data."+key, texts)
	if len(p.Spec.Addresses) == 0 {
		return nil
	}
	return p
}

// kubeVIPIdle are variables that have no counterpart, and need none.
var kubeVIPIdle = regexp.MustCompile(`^(vip_(lease.*|renewdeadline|retryperiod|loglevel|leaderelection|nodename|arpRate|cidr|subnet|singlenode|startleader|interfaceloglobal)` +
	`|svc_(election|leasename)|port|address|vip_address|cp_.*|lb_(enable|port|fwdmethod|class_legacy_handling)|prometheus_server|kubernetes_addr|k8s_config_file|dns_mode` +
	`|health_check_port|backend_health_check_interval|enable_endpoints|enable_node_labeling|annotation|bgp_routerinterface)$`)

// kubeVIPWithout are variables of what Herald does not do.
var kubeVIPWithout = map[string]string{
	"vip_ddns": "dynamic DNS", "vip_wireguard": "WireGuard", "vip_routingtable": "routes in a table of the node", "enable_upnp": "UPnP", "egress_podcidr": "egress",
	"egress_servicecidr": "egress", "egress_withnftables": "egress", "egress_clean": "egress", "mirror_dest_interface": "mirroring of traffic", "zebra_enable": "Zebra",
	"enable_service_security": "filters on nodes: use NetworkPolicies", "disable_service_updates": "Services whose status it leaves alone",
}

// daemonSet writes what the environment of kube-vip says of announcements.
func (k *kubevip) daemonSet(i *item) {
	var spec appsv1.DaemonSetSpec
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(i.spec(), &spec); err != nil {
		k.Others++ // It may be anybody's.
		return
	}
	env := map[string]string{}
	secrets := map[string]string{}
	ours := false
	for _, c := range spec.Template.Spec.Containers {
		if !strings.Contains(c.Image, "kube-vip") || strings.Contains(c.Image, "cloud-provider") {
			continue
		}
		ours = true
		for _, e := range c.Env {
			env[e.Name] = e.Value
			switch from := e.ValueFrom; {
			case from == nil || !slices.Contains(kubeVIPRead, e.Name):
			case from.SecretKeyRef != nil && e.Name == "bgp_peerpass":
				secrets[e.Name] = from.SecretKeyRef.Name
			case from.FieldRef == nil:
				i.cannot("%s: the import does not read the object that has its value: write the value into the DaemonSet, and import again", e.Name)
			case e.Name != "bgp_routerid": // By default it is the address of the node.
				i.approximated("%s: each node has a value of its own, %s, and the import leaves it out", e.Name, from.FieldRef.FieldPath)
			}
		}
		if len(c.EnvFrom) > 0 {
			i.cannot("envFrom: the import does not read the objects that have these variables: write them into the DaemonSet, and import again")
		}
		for _, a := range c.Args {
			if strings.HasPrefix(a, "-") {
				i.cannot("args: the import does not read flags, such as %s: write variables in their place, and import again", strings.SplitN(a, "=", 2)[0])
				break
			}
		}
	}
	if !ours {
		k.Others++
		return
	}
	yes := func(name string) bool { on, err := strconv.ParseBool(env[name]); return err == nil && on }
	if env["config_file"] != "" {
		i.cannot("config_file: the import does not read the file: write what it says into variables of the DaemonSet, and import again")
	}
	if yes("cp_enable") {
		i.cannot("cp_enable: Herald gives the API servers no address: keep kube-vip for it, with svc_enable false")
	}
	for _, name := range sortedKeys(env) {
		switch without := kubeVIPWithout[name]; {
		case without != "" && env[name] != "" && env[name] != "false":
			i.cannot("%s: Herald has no %s", name, without)
		case without == "" && !kubeVIPIdle.MatchString(name) && !slices.Contains(kubeVIPRead, name) && !strings.HasPrefix(name, "vip_routing"):
			i.cannot("%s: Herald's import does not know this variable: look what it does", name)
		}
	}
	if !yes("svc_enable") {
		i.translated("nothing, for svc_enable is not true, and it announces no Services")
		return
	}
	if name := env["lb_class_name"]; name != "" || yes("lb_class_only") {
		i.approximated("lb_class_only, lb_class_name: kube-vip serves the Services of one class: start herald-ccm with --serve-classless=false, and with --load-balancer-class for another class than %s", herald.LoadBalancerClass)
	}
	nodes, ok := nodesOf(&spec.Template.Spec)
	if !ok {
		i.cannot("spec.template.spec.affinity: Herald's objects select nodes by labels: select them by spec.template.spec.nodeSelector, and import again")
		return
	}
	var services *metav1.LabelSelector
	if env["svc_namespace"] != "" {
		services = &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: env["svc_namespace"]}}
		i.approximated("svc_namespace: kube-vip announces Services of this namespace only, and so do the advertisements; herald-ccm gives addresses to those of others, too, if an IPPool serves them")
	}
	var objects []runtime.Object
	if yes("vip_arp") {
		var interfaces []string
		switch device := cmp.Or(env["vip_servicesinterface"], env["vip_interface"]); {
		case len(device) > 15:
			i.cannot("vip_interface: %q is no name of an interface: name one in spec.interfaces of the L2Advertisement", device)
		case device == "":
			i.approximated("vip_interface: kube-vip announces on the interface of the default route, Herald on every one with a subnet that holds the address")
		case device != "lo":
			interfaces = []string{device}
		}
		for n, selector := range nodes {
			a := &herald.L2Advertisement{}
			a.TypeMeta, a.ObjectMeta = kindOf("L2Advertisement", numbered("kube-vip", n))
			a.Spec.NodeSelector, a.Spec.NamespaceSelector, a.Spec.Interfaces = selector, services, interfaces
			objects = append(objects, a)
		}
	}
	if yes("bgp_enable") {
		objects = append(objects, k.bgp(i, env, secrets, nodes, services)...)
	}
	i.becomes(objects...)
}

func (i *item) spec() map[string]any {
	spec, _, _ := unstructured.NestedMap(i.u.Object, "spec")
	return spec
}

// nodesOf are selectors of the nodes that a pod may run on, of which one has to match. False if labels do not say it.
func nodesOf(pod *corev1.PodSpec) ([]*metav1.LabelSelector, bool) {
	all := []metav1.LabelSelector{{MatchLabels: pod.NodeSelector}}
	if a := pod.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		all = nil
		for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			s := metav1.LabelSelector{MatchLabels: pod.NodeSelector}
			for _, e := range term.MatchExpressions {
				s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: e.Key, Operator: metav1.LabelSelectorOperator(e.Operator), Values: e.Values})
			}
			if _, err := metav1.LabelSelectorAsSelector(&s); err != nil || len(term.MatchFields) > 0 {
				return nil, false
			}
			if len(term.MatchExpressions) > 0 { // A term that is empty matches no node.
				all = append(all, s)
			}
		}
		if len(all) == 0 {
			return nil, false
		}
	}
	return anyOf(all), true
}

// kubeVIPRead are variables that are read.
var kubeVIPRead = []string{
	"vip_arp", "svc_enable", "svc_namespace", "config_file", "vip_interface", "vip_servicesinterface", "lb_class_only", "lb_class_name", "bgp_enable", "bgp_as", "bgp_peers", "bgp_peeraddress", "bgp_peeras", "bgp_peerpass",
	"bgp_multihop", "bgp_sourceif", "bgp_sourceip", "bgp_hold_time", "bgp_keepalive_interval", "bgp_routerid", "mpbgp_nexthop", "mpbgp_ipv4", "mpbgp_ipv6",
}

// kubeVIPPeer is one of bgp_peers.
type kubeVIPPeer struct {
	address  string
	asn      string
	password bool
	multihop string
}

// peersOf reads bgp_peers: ADDRESS:AS:PASSWORD:MULTIHOP, separated by commas, IPv6 addresses in brackets, each with a
// slash and options after it. No error has any of the text, for it may be a password.
func peersOf(text string) (all []kubeVIPPeer, err error) {
	for part := range strings.SplitSeq(text, ",") {
		part, _, _ = strings.Cut(strings.TrimSpace(part), "/")
		if part == "" {
			continue
		}
		var p kubeVIPPeer
		rest := part
		if strings.HasPrefix(part, "[") {
			var found bool
			if p.address, rest, found = strings.Cut(part[1:], "]"); !found {
				return nil, fmt.Errorf("peer %d has no ] after its address", len(all)+1)
			}
			rest = "x" + rest
		}
		fields := strings.Split(rest, ":")
		if len(fields) < 2 || len(fields) > 4 {
			return nil, fmt.Errorf("peer %d is not ADDRESS:AS:PASSWORD:MULTIHOP; an IPv6 address stands in brackets", len(all)+1)
		}
		if p.address == "" {
			p.address = fields[0]
		}
		p.asn = fields[1]
		if len(fields) > 2 {
			p.password = fields[2] != ""
		}
		if len(fields) > 3 {
			p.multihop = fields[3]
		}
		all = append(all, p)
	}
	return all, nil
}

// bgp writes BGPPeers and the BGPAdvertisement for them.
func (k *kubevip) bgp(i *item, env, secrets map[string]string, nodes []*metav1.LabelSelector, services *metav1.LabelSelector) (objects []runtime.Object) {
	peers, err := peersOf(env["bgp_peers"])
	if err != nil {
		i.cannot("bgp_peers: %v: correct it, and import again", err)
	}
	several := len(peers)
	if env["bgp_peeraddress"] != "" {
		peers = append(peers, kubeVIPPeer{address: env["bgp_peeraddress"], asn: env["bgp_peeras"], password: env["bgp_peerpass"] != "", multihop: env["bgp_multihop"]})
	}
	if len(peers) == 0 {
		i.cannot("bgp_enable is true, and there is no peer that can be read: write BGPPeers by hand")
		return nil
	}
	if env["bgp_routerid"] != "" {
		i.cannot("bgp_routerid: in Herald each node has its own, by default its IPv4 address: if it matters give nodes a label or annotation, and name that in spec.routerIDFrom")
	}
	if env["mpbgp_nexthop"] != "" || strings.Contains(env["bgp_peers"], "/mpbgp_") {
		i.approximated("mpbgp_nexthop: Herald chooses the next hop of the other family from the addresses of the interface and of the Node")
	}
	for n, peer := range peers {
		s, field := &herald.BGPPeerSpec{}, "bgp_peers"
		if n == several {
			field = "bgp_peeraddress"
		}
		for _, number := range []struct {
			field, text string
			into        *int64
		}{{"bgp_as", env["bgp_as"], &s.LocalASN}, {fmt.Sprintf("the AS number of peer %d of %s", n+1, field), peer.asn, &s.PeerASN}} {
			value, err := strconv.ParseUint(number.text, 10, 32)
			if err != nil || value == 0 {
				i.cannot("%s is no AS number: correct it, and import again", number.field)
				return objects
			}
			*number.into = int64(value)
		}
		if device := env["bgp_sourceif"]; len(device) <= 15 {
			s.Interface = device
		} else {
			i.cannot("bgp_sourceif: this is no name of an interface: name one in spec.interface")
		}
		address, err := addressOf(peer.address)
		if err != nil || address.Is6() && address.IsLinkLocalUnicast() && s.Interface == "" {
			i.cannot("%s: the address of peer %d is none, or is a link-local one without bgp_sourceif: write this BGPPeer by hand, with spec.address and spec.interface", field, n+1)
			continue
		}
		s.Address = address.String()
		if source, err := addressOf(env["bgp_sourceip"]); err == nil && source.Is4() == address.Is4() {
			s.SourceAddress = source.String()
		}
		hold, keepalive := secondsOf(env["bgp_hold_time"]), secondsOf(env["bgp_keepalive_interval"])
		i.timers(s, "bgp_hold_time", "bgp_keepalive_interval", hold, keepalive)
		if on, err := strconv.ParseBool(peer.multihop); err == nil && on && s.PeerASN != s.LocalASN {
			s.MultihopTTL = 50 // As of kube-vip.
		}
		if peer.password {
			i.clearText(s, "the password of peer "+strconv.Itoa(n+1)+" in "+field, numbered("kube-vip", n))
		} else if name := secrets["bgp_peerpass"]; name != "" && field == "bgp_peeraddress" {
			i.secret(s, "bgp_peerpass", i.u.GetNamespace(), name)
		}
		for _, selector := range nodes {
			p := &herald.BGPPeer{Spec: *s}
			p.TypeMeta, p.ObjectMeta = kindOf("BGPPeer", numbered("kube-vip", len(objects)))
			p.Spec.NodeSelector = selector
			objects = append(objects, p)
		}
	}
	if len(objects) == 0 {
		return nil
	}
	a := &herald.BGPAdvertisement{}
	a.TypeMeta, a.ObjectMeta = kindOf("BGPAdvertisement", "kube-vip")
	a.Spec.NamespaceSelector = services
	if len(nodes) == 1 {
		a.Spec.NodeSelector = nodes[0] // Otherwise those that have the peers.
	}
	for _, p := range objects {
		a.Spec.Peers = append(a.Spec.Peers, p.(*herald.BGPPeer).Name)
	}
	return append(objects, a)
}

// secondsOf reads a number of seconds; nil if there is none.
func secondsOf(text string) *metav1.Duration {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return nil
	}
	return &metav1.Duration{Duration: time.Duration(n) * time.Second}
}

// kubeVIPSays are annotations by which kube-vip reports.
var kubeVIPSays = []string{"vipHost", "hwaddr", "requestedIP", "active-endpoint", "active-endpoint-ipv6", "egress-nftables-table"}

func (k *kubevip) annotations() {
	const prefix = "kube-vip.io/"
	for _, s := range k.services() {
		wanted := map[string]string{}
		given := s.u.GetAnnotations()
		for _, key := range sortedKeys(given) {
			name, ok := strings.CutPrefix(key, prefix)
			value := given[key]
			switch {
			case !ok || slices.Contains(kubeVIPSays, name):
			case name == "loadbalancerIPs" && slices.ContainsFunc(strings.Split(value, ","), unspecified):
				s.cannot("%s: 0.0.0.0 and :: ask for an address by DHCP, which Herald does not do: leave it to the pool, or ask for an address", key)
			case name == "loadbalancerIPs":
				maps.Copy(wanted, s.requested(key, value))
			case name == "ignore":
				s.cannot("%s: a Service that Herald is to leave alone has another spec.loadBalancerClass: create it again with one", key)
			case name == "serviceInterface":
				s.approximated("%s: a Service of Herald's does not choose an interface: name %s in spec.interfaces of an L2Advertisement whose spec.serviceSelector selects it, or leave it out where its subnet holds the address", key, value)
			case name == "allow-reconcile-without-endpoints":
				s.approximated("%s: the advertisement says so for all its Services, by spec.withoutEndpoints", key)
			case name == "forcePerServiceElection" || name == "leaseName":
				// Every address has an owner of its own in Herald.
			default:
				s.cannot("the annotation %s: Herald has nothing like it: see whether the Service works without it", key)
			}
		}
		s.wants(wanted)
		s.bound()
	}
}

func unspecified(text string) bool {
	a, err := addressOf(text)
	return err == nil && a.IsUnspecified()
}
