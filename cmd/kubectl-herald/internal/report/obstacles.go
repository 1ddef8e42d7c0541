package report

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/announce"
)

// This file finds out by experiment why an advertisement does not announce an address. The conditions for an announcement
// are ordered in steps, from the Service to the network. announce.Decide runs repeatedly: first with all conditions waived,
// then with the first condition in force, then with the first two, and so on. The condition that makes the announcement
// disappear is the cause.

// advertisement is an advertisement that selects the Service's addresses of the pool.
type advertisement struct {
	*view
	l2        *announce.L2Advertisement // either this or bgp
	bgp       *announce.BGPAdvertisement
	selection *herald.Selection
	spec      *herald.BGPAdvertisementSpec // of bgp
}

// String returns the kind and the name.
func (ad *advertisement) String() string {
	if ad.l2 != nil {
		return "L2Advertisement " + ad.l2.Name
	}
	return "BGPAdvertisement " + ad.bgp.Name
}

// obstacle is the reason why an advertisement does not announce the address.
type obstacle struct {
	ad   *advertisement
	step int
	// misconfigured is true if the advertisement cannot announce any address as it is.
	misconfigured bool
	// excused is true if nothing is wrong as long as the address is announced elsewhere.
	excused     bool
	cause, cure string
}

// advertisements returns the advertisements that select the address. If there are none, nearest says which selector of
// which advertisement prevents it.
func (v *view) advertisements() (ads []*advertisement, nearest obstacle) {
	nearest = obstacle{step: -1, cause: "there is no L2Advertisement and no BGPAdvertisement",
		cure: fmt.Sprintf("create one with spec.pools: [%s]", v.al.Pool)}
	try := func(kind, name string, spec *herald.Selection, add func()) {
		for _, r := range v.rejected {
			if r.Kind == kind && r.Name == name {
				if named := spec.Pools; len(named) == 0 || slices.Contains(named, v.al.Pool) {
					v.invalid = cmp.Or(v.invalid, fmt.Sprintf("%s %s is not valid: %v", kind, name, r.Err))
				}
				if nearest.step < 0 {
					nearest = obstacle{step: 0, cause: fmt.Sprintf("%s %s is not valid: %v", kind, name, r.Err), cure: "correct it"}
				}
				return
			}
		}
		step, cause, cure := v.selected(kind+" "+name, spec)
		switch {
		case cause == "":
			add()
		case step > nearest.step:
			nearest = obstacle{step: step, cause: cause, cure: cure}
		}
	}
	sorted := func(x, y metav1.Object) int { return strings.Compare(x.GetName(), y.GetName()) }
	for _, o := range slices.SortedFunc(slices.Values(v.L2Advertisements), func(x, y *herald.L2Advertisement) int { return sorted(x, y) }) {
		try("L2Advertisement", o.Name, &o.Spec.Selection, func() {
			i := slices.IndexFunc(v.shared.L2, func(ad announce.L2Advertisement) bool { return ad.Name == o.Name })
			ads = append(ads, &advertisement{view: v, l2: &v.shared.L2[i], selection: &o.Spec.Selection})
		})
	}
	for _, o := range slices.SortedFunc(slices.Values(v.BGPAdvertisements), func(x, y *herald.BGPAdvertisement) int { return sorted(x, y) }) {
		try("BGPAdvertisement", o.Name, &o.Spec.Selection, func() {
			i := slices.IndexFunc(v.shared.BGP, func(ad announce.BGPAdvertisement) bool { return ad.Name == o.Name })
			ads = append(ads, &advertisement{view: v, bgp: &v.shared.BGP[i], selection: &o.Spec.Selection, spec: &o.Spec})
		})
	}
	return ads, nearest
}

// selected says which selector prevents an advertisement, such as "L2Advertisement link", from selecting the Service's addresses
// of the pool. cause is empty if none does.
func (v *view) selected(ad string, spec *herald.Selection) (step int, cause, cure string) {
	c, err := spec.Compile()
	if err != nil {
		return 0, ad + " " + err.Error(), "correct it"
	}
	var pool, namespace map[string]string
	if o := v.pool(v.al.Pool); o != nil {
		pool = o.Labels
	}
	if v.namespace != nil {
		namespace = v.namespace.Labels
	}
	service := v.service.Labels
	if !c.Pool(v.al.Pool, pool) {
		create := fmt.Sprintf("or create another advertisement with spec.pools: [%s]", v.al.Pool)
		if unknown := v.unknownPools(spec); len(unknown) > 0 { // Likely a misspelt name.
			are := "which is no IPPool"
			if len(unknown) > 1 {
				are = "which are no IPPools"
			}
			return 2, fmt.Sprintf("%s does not select pool %s: its spec.pools names %s, %s", ad, v.al.Pool, some(unknown), are),
				fmt.Sprintf("write %s in place of that name in spec.pools of %s, %s", v.al.Pool, ad, create)
		}
		return 1, fmt.Sprintf("%s does not select pool %s", ad, v.al.Pool), fmt.Sprintf("add %s to spec.pools of %s, %s", v.al.Pool, ad, create)
	}
	if c.Service(service, namespace) {
		return 0, "", ""
	}
	only, _ := (&herald.Selection{ServiceSelector: spec.ServiceSelector}).Compile() // It compiled above.
	if !only.Service(service, nil) {
		return 3, ad + " does not select the Service by spec.serviceSelector", "label the Service (" + metav1.FormatLabelSelector(spec.ServiceSelector) + "), or change the selector"
	}
	return 4, ad + " does not select the namespace by spec.namespaceSelector", "label the namespace (" + metav1.FormatLabelSelector(spec.NamespaceSelector) + "), or change the selector"
}

// unknownPools returns the pools that an advertisement names and that do not exist, in quotation marks.
func (v *view) unknownPools(spec *herald.Selection) (names []string) {
	for _, name := range spec.Pools {
		if v.pool(name) == nil {
			names = append(names, `"`+quoted(name)+`"`)
		}
	}
	return names
}

// trial is a snapshot in which conditions can be waived.
type trial struct {
	shared  *announce.Shared
	address *announce.Address
	nodes   []string
}

// trial copies the parts that a waiver changes. The copy has only this advertisement, the Service as if it had the address
// alone, and one node, or all nodes if none is named.
func (ad *advertisement) trial(node string) *trial {
	s := *ad.shared
	s.Healthy, s.Segments, s.L2, s.BGP = true, nil, nil, nil
	if node != "" {
		s.Nodes = map[string]announce.Node{node: s.Nodes[node]}
	} else {
		s.Nodes = maps.Clone(s.Nodes)
	}
	if ad.l2 != nil {
		s.L2 = []announce.L2Advertisement{*ad.l2}
		for _, on := range ad.on {
			s.Segments = append(s.Segments, announce.Segment{Interface: on.Interface, Nodes: slices.Clone(on.Nodes)})
		}
	} else {
		s.BGP = []announce.BGPAdvertisement{*ad.bgp}
	}
	svc := *ad.own.Services[0]
	svc.Sticky = false // Sticky chooses among nodes, and excludes none.
	address := *ad.own
	address.Services = []*announce.Service{&svc}
	return &trial{&s, &address, slices.Sorted(maps.Keys(s.Nodes))}
}

// announces reports whether any node announces the address.
func (t *trial) announces() bool {
	if len(t.shared.L2) > 0 {
		return len(announce.Decide(t.shared, t.address).Segments) > 0
	}
	for range announce.DecideRoutes(t.shared, t.address) {
		return true
	}
	return false
}

// condition is a condition for an announcement.
type condition struct {
	waive func(*trial)
	tell  func(*advertisement) (cause, cure string)
	// here says why one node does not announce the address while others do. If nil, tell says it.
	here func(ad *advertisement, node string) string
	// misconfigured reports whether no address can meet the condition.
	misconfigured func(*advertisement) bool
	// excused reports whether an unmet condition is not an error as long as the address is announced elsewhere. If nil, it is
	// an error.
	excused func(*advertisement) bool
}

// everywhere are the subnets of an imaginary interface whose subnets have all addresses.
var everywhere = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

var (
	needsConsent = condition{
		waive: func(t *trial) { t.address.Services[0].Overrides = nil },
		tell: func(*advertisement) (cause, cure string) {
			return "the Service asks not to be announced, and the advertisement permits that", "remove its annotation " + herald.AnnotationBGPAnnounce + " if routers are to have it"
		},
		excused: always,
	}
	needsEndpoint = condition{
		waive: func(t *trial) {
			svc := t.address.Services[0]
			all := append([]string{""}, t.nodes...)
			svc.Ready4, svc.Ready6 = all, all
		},
		tell:    (*advertisement).withoutEndpoint,
		excused: always,
	}
	needsPeer = condition{
		waive: func(t *trial) { t.shared.BGP[0].Peers, t.shared.PeerNodes = []string{""}, nil },
		tell: func(ad *advertisement) (cause, cure string) {
			if len(ad.BGPPeers) == 0 {
				return "there is no BGPPeer", "create one for each router"
			}
			if unknown := ad.unknown(); len(unknown) > 0 {
				return "spec.peers names " + some(unknown) + ", and there is no such BGPPeer", "write the names of BGPPeers: kubectl get bgppeers.herald.dev"
			}
			return "spec.peerSelector selects no BGPPeer", "change it, or label a BGPPeer (" + metav1.FormatLabelSelector(ad.spec.PeerSelector) + ")"
		},
		misconfigured: always,
	}
	needsNode = condition{
		here: saying("spec.nodeSelector of the advertisement does not select it"),
		waive: func(t *trial) {
			for i := range t.shared.L2 {
				t.shared.L2[i].Selector = selectsAll()
			}
			for i := range t.shared.BGP {
				t.shared.BGP[i].Selector = selectsAll()
			}
		},
		tell: func(ad *advertisement) (cause, cure string) {
			return "spec.nodeSelector selects no node", "change it, or label nodes (" + metav1.FormatLabelSelector(ad.selection.NodeSelector) + ")"
		},
		misconfigured: always,
	}
	needsIncluded = condition{
		here: func(ad *advertisement, node string) string { return "it is excluded: " + ad.exclusion(node) },
		waive: func(t *trial) {
			for name, n := range t.shared.Nodes {
				n.Excluded = false
				t.shared.Nodes[name] = n
			}
		},
		tell: (*advertisement).excluded,
	}
	needsSession = condition{
		here:  saying("spec.nodeSelector of the BGPPeer does not select it"),
		waive: func(t *trial) { t.shared.PeerNodes = nil },
		tell: func(ad *advertisement) (cause, cure string) {
			return "none of the nodes that it selects holds a session with " + some(ad.bgp.Peers), "compare its spec.nodeSelector with spec.nodeSelector of these BGPPeers"
		},
		misconfigured: always,
	}
	needsSpeaker = condition{
		waive: func(t *trial) {
			all := announce.Segment{}
			for _, node := range t.nodes {
				all.Nodes = append(all.Nodes, announce.Neighbour{Node: node, Subnets: everywhere})
			}
			t.shared.Segments = []announce.Segment{all}
			t.shared.L2[0].Interfaces = nil
		},
		tell:    (*advertisement).withoutSpeaker,
		excused: (*advertisement).forRouters,
	}
	needsInterface = condition{
		waive: func(t *trial) {
			t.shared.L2[0].Interfaces = nil
			for i := range t.shared.Segments {
				for j := range t.shared.Segments[i].Nodes {
					t.shared.Segments[i].Nodes[j].Subnets = everywhere
				}
			}
		},
		tell:          (*advertisement).withoutInterface,
		misconfigured: func(ad *advertisement) bool { return len(ad.l2.Interfaces) > 0 },
		excused:       (*advertisement).forRouters,
	}
	needsLocal = condition{
		here:  saying("it has no ready endpoint, and spec.externalTrafficPolicy is Local"),
		waive: func(t *trial) { t.address.Services[0].Local = false },
		tell: func(ad *advertisement) (cause, cure string) {
			return "spec.externalTrafficPolicy is Local, and none of the nodes that may announce has a ready endpoint: there are some on " + some(namesOf(ad.own.Services[0].Ready(ad.al.Address))),
				"run pods on other nodes, let these nodes announce, or set the policy to Cluster"
		},
	}

	stepsL2  = []condition{needsEndpoint, needsNode, needsIncluded, needsSpeaker, needsInterface, needsLocal}
	stepsBGP = []condition{needsConsent, needsEndpoint, needsPeer, needsNode, needsIncluded, needsSession, needsLocal}
)

func always(*advertisement) bool { return true }

func saying(text string) func(*advertisement, string) string {
	return func(*advertisement, string) string { return text }
}

// selectsAll returns a selector that selects the address and all nodes.
func selectsAll() *herald.Selector {
	c, _ := (&herald.Selection{}).Compile() // An empty selection is always valid.
	return c
}

// obstacle returns the first unmet condition as an obstacle; nil if all conditions are met.
func (ad *advertisement) obstacle() *obstacle {
	if len(ad.shared.Nodes) == 0 {
		return &obstacle{ad: ad, cause: "there is no node that herald-speaker runs on", cure: "add a node with Linux"}
	}
	i, c := ad.unmet("")
	if c == nil {
		return nil
	}
	o := &obstacle{ad: ad, step: i}
	o.cause, o.cure = c.tell(ad)
	o.misconfigured = c.misconfigured != nil && c.misconfigured(ad)
	o.excused = c.excused != nil && c.excused(ad)
	return o
}

// furthest returns the obstacle of the advertisement that comes closest to an announcement; nil if none has an obstacle.
func furthest(ads []*advertisement) (most *obstacle) {
	for _, ad := range ads {
		if o := ad.obstacle(); o != nil && (most == nil || o.step > most.step) {
			most = o
		}
	}
	return most
}

// unmet returns the first condition that the node does not meet or, if none is named, that no node meets; nil if there is
// no such condition.
func (ad *advertisement) unmet(node string) (step int, c *condition) {
	steps := stepsL2
	if ad.bgp != nil {
		steps = stepsBGP
	}
	for i := range steps {
		t := ad.trial(node)
		for _, later := range steps[i+1:] {
			later.waive(t)
		}
		if !t.announces() {
			return i, &steps[i]
		}
	}
	return 0, nil
}

// unknown returns the peers that the advertisement names and that do not exist.
func (ad *advertisement) unknown() (names []string) {
	for _, name := range ad.spec.Peers {
		if !slices.ContainsFunc(ad.BGPPeers, func(p *herald.BGPPeer) bool { return p.Name == name }) {
			names = append(names, quoted(name))
		}
	}
	return names
}

// unknownPeers adds a fact if some of the named peers do not exist.
func (ad *advertisement) unknownPeers() {
	if ad.bgp == nil || len(ad.bgp.Peers) == 0 { // A fact already says that none exists.
		return
	}
	if names := ad.unknown(); len(names) > 0 {
		ad.wrong("write the names of BGPPeers: kubectl get bgppeers.herald.dev", "%s: spec.peers names %s, and there is no such BGPPeer", ad, some(names))
	}
}

func (ad *advertisement) withoutEndpoint() (cause, cure string) {
	address := ad.al.Address
	family, other, others := "IPv4", "IPv6", len(ad.own.Services[0].Ready6)
	if address.Is6() {
		family, other, others = "IPv6", "IPv4", len(ad.own.Services[0].Ready4)
	}
	name := types.NamespacedName{Namespace: ad.service.Namespace, Name: ad.service.Name}
	switch {
	case others > 0:
		return fmt.Sprintf("no endpoint is ready for %s; there are some for %s", family, other),
			"see whether the pods have " + family + " addresses: the cluster's pod network has to be dual-stack"
	case len(ad.service.Spec.Selector) == 0 && len(ad.slicesOf(name)) == 0:
		return "the Service has no spec.selector and no EndpointSlice", "create an EndpointSlice for it, or give it a selector"
	}
	return "no endpoint is ready", "see the pods that spec.selector chooses: kubectl -n " + ad.service.Namespace + " get pods -l " + labels.Set(ad.service.Spec.Selector).String()
}

// eligible returns the nodes that the advertisement selects and that are not excluded.
func (ad *advertisement) eligible() (names []string) {
	for _, name := range slices.Sorted(maps.Keys(ad.shared.Nodes)) {
		n := ad.shared.Nodes[name]
		if !n.Excluded && ad.node(n.Labels) {
			names = append(names, name)
		}
	}
	return names
}

func (ad *advertisement) node(l map[string]string) bool {
	if ad.l2 != nil {
		return ad.l2.Selector.Node(l)
	}
	return ad.bgp.Selector.Node(l)
}

func (ad *advertisement) excluded() (cause, cure string) {
	var labelled, others []string
	for _, name := range slices.Sorted(maps.Keys(ad.shared.Nodes)) {
		if !ad.node(ad.shared.Nodes[name].Labels) {
			continue
		}
		if why := ad.exclusion(name); why == announce.ExcludedByLabel {
			labelled = append(labelled, name)
		} else {
			others = append(others, fmt.Sprintf("%s (%s)", name, strings.TrimPrefix(why, "the node has the ")))
		}
	}
	var causes []string
	if len(labelled) > 0 {
		causes = append(causes, some(labelled)+" (label "+corev1.LabelNodeExcludeBalancers+")")
		cure = "remove the label from a node, as kubectl label node NAME " + corev1.LabelNodeExcludeBalancers + "-, or let it select other nodes"
	}
	if len(others) > 0 {
		causes = append(causes, some(others))
		if cure == "" {
			cure = "wait for other nodes, or remove the taint"
		}
	}
	return "all nodes that it selects are excluded: " + strings.Join(causes, ", "), cure
}

// exclusion says why a node must not announce anything.
func (s *situation) exclusion(node string) string {
	for _, o := range s.Nodes {
		if o.Name == node {
			return announce.Exclusion(o)
		}
	}
	return ""
}

func (ad *advertisement) withoutSpeaker() (cause, cure string) {
	nodes := ad.eligible()
	var without []string
	for _, name := range nodes {
		switch {
		case statusOf(ad.Objects, name) == nil:
			without = append(without, name)
		case ad.segments.stale[name] != "":
			return fmt.Sprintf("the speaker of node %s does not work: %s", name, ad.segments.stale[name]), seeSpeakers
		}
	}
	switch {
	case len(ad.Speakers) == 0:
		return "no node has a SpeakerStatus", "see whether herald-speaker runs: kubectl get pods -A -l app.kubernetes.io/component=speaker"
	case len(without) == len(nodes):
		return subject(without, "has", "have") + " no SpeakerStatus", seeSpeakers
	}
	if cause, cure = ad.offSubnet(); cause != "" {
		return cause, cure
	}
	return "no speaker has joined a segment: " + subject(nodes, "works", "work") + " on no interface", seeSpeakers
}

func (ad *advertisement) withoutInterface() (cause, cure string) {
	if len(ad.l2.Interfaces) > 0 {
		return ad.noSuchInterface()
	}
	if cause, cure = ad.offSubnet(); cause != "" {
		return cause, cure
	}
	return "no speaker works on the interface whose subnet holds the address", "see the log of herald-speaker"
}

func (ad *advertisement) noSuchInterface() (cause, cure string) {
	return "spec.interfaces names " + some(ad.l2.Interfaces) + ", and no node that it selects has such an interface", "write names of interfaces that are up: kubectl herald status shows them"
}

// offSubnet says that no node that may announce has a subnet with the address; cause is empty if one has.
func (ad *advertisement) offSubnet() (cause, cure string) {
	var known []string
	if len(ad.l2.Interfaces) > 0 {
		for _, name := range ad.eligible() {
			for at := range ad.segments.interfaces {
				if at.Node == name && slices.Contains(ad.l2.Interfaces, at.Interface) {
					return "", ""
				}
			}
		}
		return ad.noSuchInterface()
	}
	for _, at := range slices.SortedFunc(maps.Keys(ad.segments.interfaces), comparePlaces) {
		if !slices.Contains(ad.eligible(), at.Node) {
			continue
		}
		for _, p := range subnets(ad.segments.interfaces[at]) {
			if p.Contains(ad.al.Address) {
				return "", ""
			}
			if text := p.String(); p.Addr().Is4() == ad.al.Address.Is4() && !p.Addr().IsLinkLocalUnicast() && !slices.Contains(known, text) {
				known = append(known, text)
			}
		}
	}
	family := "IPv4"
	if ad.al.Address.Is6() {
		family = "IPv6"
	}
	const none = "no node that it selects has an interface with a subnet that holds the address "
	link := fmt.Sprintf("name an interface in spec.interfaces of %s if clients reach the address on the link, or create a BGPAdvertisement", ad)
	switch len(known) {
	case 0:
		return none + "(no " + family + " subnet at all)", link
	case 1:
		return none + "(their " + family + " subnet is " + known[0] + ")", fmt.Sprintf("use addresses of this subnet in IPPool %s, %s", ad.al.Pool, link)
	}
	return none + "(their " + family + " subnets are " + some(known) + ")", fmt.Sprintf("use addresses of these subnets in IPPool %s, %s", ad.al.Pool, link)
}

// forRouters reports whether no node has a subnet with the address and the advertisement names no interface. Such an
// address need not be announced on a segment if it is announced to routers.
func (ad *advertisement) forRouters() bool {
	cause, _ := ad.offSubnet()
	return len(ad.l2.Interfaces) == 0 && cause != ""
}

// namesOf leaves out the empty name, which stands for endpoints without a node.
func namesOf(nodes []string) []string {
	if len(nodes) == 1 && nodes[0] == "" {
		return []string{"no node"}
	}
	return slices.DeleteFunc(slices.Clone(nodes), func(n string) bool { return n == "" })
}

// slicesOf returns the EndpointSlices of a Service.
func (s *situation) slicesOf(name types.NamespacedName) []*discoveryv1.EndpointSlice {
	return s.slices[name]
}
