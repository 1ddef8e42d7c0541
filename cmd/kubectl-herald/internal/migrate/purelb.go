package migrate

import (
	"cmp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

const pureLBGroup = "purelb.io"

// pureLB is PureLB, in both versions of its API. The configuration of its BGP router is not read.
var pureLB = Source{
	Name: "purelb", Title: "PureLB",
	Resources: append(allOf(pureLBGroup, "servicegroups", "lbnodeagents"), allOf("bgp.purelb.io", "configs")...),
	translate: func(t *translation) { (&purelb{translation: t, defaults: map[string]string{}}).translate() },
}

type pureLBGroupSpec struct {
	Local             *pureLBPools `json:"local"`
	Remote            *pureLBPools `json:"remote"`
	External          any          `json:"external"`
	Netbox            any          `json:"netbox"`
	Namespaces        []string     `json:"namespaces"`
	EnforceNamespaces bool         `json:"enforceNamespaces"`
	NamespaceDefault  bool         `json:"namespaceDefault"`
}

type pureLBPools struct {
	pureLBPool   `json:",inline"` // Of the first version.
	V4Pool       *pureLBPool      `json:"v4pool"`
	V6Pool       *pureLBPool      `json:"v6pool"`
	V4Pools      []pureLBPool     `json:"v4pools"`
	V6Pools      []pureLBPool     `json:"v6pools"`
	SkipIPv6DAD  bool             `json:"skipIPv6DAD"`
	MultiPool    bool             `json:"multiPool"`
	BalancePools bool             `json:"balancePools"`
}

type pureLBPool struct {
	Pool        string `json:"pool"`
	Subnet      string `json:"subnet"`
	Aggregation string `json:"aggregation"`
}

type pureLBAgent struct {
	NodeSelector *metav1.LabelSelector `json:"nodeSelector"`
	Local        *struct {
		// These are of the first version.
		LocalInt string `json:"localint"`
		ExtLBInt string `json:"extlbint"`
		SendGARP bool   `json:"sendgarp"`

		LocalInterface string   `json:"localInterface"`
		DummyInterface string   `json:"dummyInterface"`
		Interfaces     []string `json:"interfaces"`
		GARPConfig     any      `json:"garpConfig"`
		AddressConfig  any      `json:"addressConfig"`
		AddressGuard   any      `json:"addressGuard"`
	} `json:"local"`
}

// purelb is an import from PureLB in progress.
type purelb struct {
	*translation
	// local are the pools whose addresses nodes announce on their segments.
	local []string
	// defaults has, by namespace, the group from which Services get addresses if they name none: the group that serves the
	// namespace or, if there are several, the one that is marked as the default. Without an entry it is the group named
	// default.
	defaults map[string]string
}

func (p *purelb) translate() {
	groups := p.of(pureLBGroup, "ServiceGroup")
	p.choose(groups)
	for _, i := range groups {
		p.group(i)
	}
	agents := p.of(pureLBGroup, "LBNodeAgent")
	for _, i := range agents {
		p.agent(i)
	}
	if len(agents) == 0 && len(p.local) > 0 {
		a := newL2Advertisement("purelb")
		a.Spec.Pools = p.local
		groups[0].approximated("there is no LBNodeAgent among the objects: L2Advertisement purelb is for all nodes")
		groups[0].becomes(a)
	}
	for _, i := range p.of("bgp.purelb.io", "BGPConfiguration") {
		i.cannot("the configuration of PureLB's BGP router is not read: write a BGPPeer for each of spec.neighbors, with its password in a Secret in %s, and a BGPAdvertisement", secretNamespace)
	}
	for range p.of("bgp.purelb.io", "BGPNodeStatus") {
		p.Others++ // They are reports.
	}
	p.annotations(pureLBAnnotations, pureLBAnnotation)
}

// choose finds the defaults of the namespaces.
func (p *purelb) choose(groups []*item) {
	serving, marked := map[string][]string{}, map[string][]string{}
	for _, i := range groups {
		namespaces, _, _ := unstructured.NestedStringSlice(i.u.Object, "spec", "namespaces") // Errors are noted below.
		isDefault, _, _ := unstructured.NestedBool(i.u.Object, "spec", "namespaceDefault")
		for _, n := range namespaces {
			serving[n] = append(serving[n], i.u.GetName())
			if isDefault {
				marked[n] = append(marked[n], i.u.GetName())
			}
		}
	}
	for n, groups := range serving {
		if len(groups) > 1 {
			groups = marked[n]
		}
		if len(groups) == 1 {
			p.defaults[n] = groups[0]
		}
	}
}

// group translates a group into an IPPool. In PureLB a Service that names no group gets an address from the group named
// default, or from that of its namespace.
func (p *purelb) group(i *item) {
	var spec pureLBGroupSpec
	if !decode(i, &spec) {
		return
	}
	if spec.Netbox != nil || spec.External != nil {
		i.cannot("spec: its addresses come from another system, which Herald does not ask: write an IPPool of a range that this system gives to nobody")
	}
	pools := spec.Local
	if pools == nil {
		pools = spec.Remote
	}
	if pools == nil {
		return
	}
	field := "spec.remote"
	if spec.Local != nil {
		field = "spec.local"
	}
	o := newIPPool(i.u.GetName())
	var texts []string
	for _, pool := range slices.Concat([]pureLBPool{pools.pureLBPool}, deref(pools.V4Pool), deref(pools.V6Pool), pools.V4Pools, pools.V6Pools) {
		if pool.Pool != "" {
			texts = append(texts, pool.Pool)
		}
	}
	o.Spec.Addresses = i.addresses(field, texts)
	p.namespaces(i, &spec, o)
	if pools.MultiPool {
		i.cannot("%s.multiPool: a Service of Herald's has addresses of one pool: give it the annotation %s, with a number", field, herald.AnnotationAddresses)
	}
	if pools.BalancePools {
		i.approximated("%s.balancePools: an IPPool gives out its ranges one after the other: make an IPPool of each", field)
	}
	before := len(p.Objects)
	i.becomes(o)
	switch {
	case len(p.Objects) == before:
	case spec.Local != nil:
		p.local = append(p.local, o.Name)
		if i.u.GroupVersionKind().Version == "v1" {
			i.approximated("spec.local: where an address is outside the nodes' subnets, PureLB leaves its announcement to a routing daemon on each node: write a BGPPeer for each router then, and a BGPAdvertisement with spec.pools [%s]", o.Name)
		}
	default:
		i.cannot("spec.remote: PureLB leaves the announcement of these addresses to a routing daemon on each node: write a BGPPeer for each router, and a BGPAdvertisement with spec.pools [%s]", o.Name)
	}
}

// namespaces sets which Services get addresses of the group.
func (p *purelb) namespaces(i *item, spec *pureLBGroupSpec, o *herald.IPPool) {
	if len(spec.Namespaces) == 0 {
		if i.u.GetName() != "default" {
			o.Spec.AutoAssign = new(bool)
		}
		return
	}
	o.Spec.Namespaces, o.Spec.Priority = spec.Namespaces, 1
	if spec.NamespaceDefault {
		o.Spec.Priority = 2
	}
	others := slices.DeleteFunc(slices.Clone(spec.Namespaces), func(n string) bool { return p.defaults[n] == i.u.GetName() })
	if len(others) == len(spec.Namespaces) {
		o.Spec.AutoAssign = new(bool)
	} else if len(others) > 0 {
		i.approximated("spec.namespaces: Services of %s that name no group get addresses of another one in PureLB, and of this IPPool in Herald: make an IPPool for them, with autoAssign false", strings.Join(others, ", "))
	}
	if spec.EnforceNamespaces {
		i.approximated("spec.enforceNamespaces: Services of these namespaces may have addresses of other IPPools, too: give those a namespaceSelector")
	} else {
		i.approximated("spec.namespaces: Services of other namespaces cannot name the IPPool: leave spec.namespaces of the IPPool out if they must")
	}
}

func deref[T any](p *T) []T {
	if p == nil {
		return nil
	}
	return []T{*p}
}

// agent translates the agent into an L2Advertisement for all local pools.
func (p *purelb) agent(i *item) {
	var spec pureLBAgent
	if !decode(i, &spec) {
		return
	}
	switch {
	case spec.Local == nil:
		i.translated("nothing, because it has no spec.local")
		return
	case len(p.local) == 0:
		i.translated("nothing, because no ServiceGroup has local addresses")
		return
	}
	a := newL2Advertisement(i.u.GetName())
	a.Spec.NodeSelector, a.Spec.Pools = spec.NodeSelector, p.local
	device := cmp.Or(spec.Local.LocalInterface, spec.Local.LocalInt)
	switch m := interfacePattern.FindStringSubmatch(device); {
	case device == "" || device == "default":
		i.onDefaultRoute("spec.local.localInterface")
	case m == nil || strings.Contains(device, "."):
		i.cannot("spec.local.localInterface: Herald names interfaces, and has no regular expressions: name those that %q means in spec.interfaces of the L2Advertisement", device)
	default:
		a.Spec.Interfaces = []string{m[1]}
	}
	for n, name := range spec.Local.Interfaces {
		switch {
		case !isInterface(name):
			i.cannot("spec.local.interfaces[%d]: %q is not the name of an interface: it is left out", n, name)
		case len(a.Spec.Interfaces) > 0 && !slices.Contains(a.Spec.Interfaces, name):
			a.Spec.Interfaces = append(a.Spec.Interfaces, name)
		}
	}
	if spec.Local.AddressGuard != nil {
		i.cannot("spec.local.addressGuard: Herald filters no packets: do that on the nodes")
	}
	if len(i.t.of(pureLBGroup, "LBNodeAgent")) > 1 {
		i.approximated("of several LBNodeAgents PureLB takes the first that fits a node, Herald all of them: let their node selectors exclude one another")
	}
	i.becomes(a)
}

func pureLBAnnotations(s *service) map[string]string { return s.given(pureLBGroup + "/") }

func pureLBAnnotation(s *service, name, value string) {
	key := pureLBGroup + "/" + name
	switch {
	case strings.HasPrefix(name, "allocated-") || strings.HasPrefix(name, "announcing") || name == "re-evaluate": // written by PureLB
	case name == "service-group":
		s.want(herald.AnnotationPool, value)
	case name == "addresses":
		s.wants(s.requested(key, value))
	case name == "allow-shared-ip":
		s.want(herald.AnnotationSharingKey, value)
	case name == "allow-local":
		s.approximated("%s: Herald announces a Service with externalTrafficPolicy Local on a segment from a node with a ready endpoint", key)
	default:
		s.cannot("the annotation %s: Herald's import does not know it: look what it does", key)
	}
}
