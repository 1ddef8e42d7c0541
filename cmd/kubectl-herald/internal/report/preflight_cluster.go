package report

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/version"
	cloudprovider "k8s.io/cloud-provider/api"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/announce"
)

// The oldest version of Kubernetes that Herald supports, and the version that its tests use.
const (
	oldestKubernetes = "1.32"
	testedKubernetes = "1.36"
)

// kubernetes checks the version of the API server.
func (p *preflight) kubernetes() {
	if p.NotServed != "" {
		p.unchecked(customResources, "which resources the API server serves is not fully known: %s", p.NotServed)
	}
	v, err := version.ParseGeneric(p.Version)
	if err != nil {
		p.unchecked(kubernetesVersion, "the version of Kubernetes, %s, cannot be read", quoted(p.Version))
		return
	}
	tested := version.MustParseGeneric(testedKubernetes)
	switch {
	case v.LessThan(version.MustParseGeneric(oldestKubernetes)):
		p.problem(kubernetesVersion, nil, "Kubernetes is %s, and Herald needs %s or later: upgrade the cluster", p.Version, oldestKubernetes)
	case v.Major() == tested.Major() && v.Minor() == tested.Minor():
		p.fine(kubernetesVersion, "Kubernetes is %s: Herald is tested with %s", p.Version, testedKubernetes)
	case tested.LessThan(v):
		p.warn(kubernetesVersion, nil, "Kubernetes is %s, and the latest that Herald is tested with is %s: see whether there is a newer Herald", p.Version, testedKubernetes)
	default:
		p.fine(kubernetesVersion, "Kubernetes is %s: Herald works with %s or later, and is tested with %s", p.Version, oldestKubernetes, testedKubernetes)
	}
}

// nodes checks whether speakers can run on the nodes, and announce from them.
func (p *preflight) nodes() {
	if !p.may(nodesFit, "whether the nodes fit", "nodes") {
		return
	}
	var foreign, excluded, uninitialised, able []string
	for _, n := range p.Nodes {
		switch why := announce.Exclusion(n); {
		case !announce.RunsOn(n):
			foreign = append(foreign, n.Name)
		case why == announce.ExcludedByLabel:
			excluded = append(excluded, n.Name)
		case why != "":
			p.warn(nodesFit, []string{n.Name}, "nothing is announced from node %s: %s", n.Name, why)
		default:
			able = append(able, n.Name)
		}
		if slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == cloudprovider.TaintExternalCloudProvider }) {
			uninitialised = append(uninitialised, n.Name)
		}
	}
	if len(foreign) > 0 {
		p.warn(nodesFit, foreign, "%s not Linux, so no speaker runs there, and nothing is announced from there", subject(foreign, "is", "are"))
	}
	if len(excluded) > 0 {
		p.warn(nodesFit, excluded, "%s the label %s, so nothing is announced from there: kubectl label node %s %[2]s- if it should be", subject(excluded, "has", "have"), corev1.LabelNodeExcludeBalancers, excluded[0])
	}
	if len(uninitialised) > 0 {
		p.problem(nodesFit, uninitialised, "%s the taint %s and waits for a cloud provider to be initialised, which Herald does not do: see whether its cloud controller manager runs; if there is none, start the kubelet without --cloud-provider=external",
			subject(uninitialised, "has", "have"), cloudprovider.TaintExternalCloudProvider)
	}
	if p.installed() && p.may(nodesFit, "whether each node has a speaker", "speakerstatuses.herald.dev") {
		if without := p.withoutSpeaker(); len(without) > 0 {
			p.warn(nodesFit, without, "%s no speaker that works, so nothing is announced from there: see why: kubectl -n %s get pods -o wide", subject(without, "has", "have"), p.Own)
		}
	}
	if len(able) == 0 {
		p.problem(nodesFit, nil, "nothing can be announced: there is no node that is Linux and not excluded")
		return
	}
	p.fine(nodesFit, "%s can announce addresses; with internal addresses of IPv4: %d, of IPv6: %d", count(len(able), "node", "nodes"), p.withFamily(true), p.withFamily(false))
}

// excludes reports whether what a speaker reports as its problem is that its node is excluded, which nodes tells.
func (p *preflight) excludes(o *herald.SpeakerStatus) bool {
	return o.Status.Problem == announce.ExcludedByLabel || slices.ContainsFunc(p.Nodes, func(n *corev1.Node) bool {
		return n.Name == o.Name && o.Status.Problem == announce.Exclusion(n)
	})
}

// withoutSpeaker returns the nodes on which a speaker must run and none works.
func (p *preflight) withoutSpeaker() (names []string) {
	working := p.working()
	for _, n := range p.Nodes {
		if announce.RunsOn(n) && !slices.ContainsFunc(working, func(o *herald.SpeakerStatus) bool { return o.Name == n.Name }) {
			names = append(names, n.Name)
		}
	}
	return names
}

// withFamily counts the nodes that have an internal address of a family.
func (p *preflight) withFamily(is4 bool) (n int) {
	for _, node := range p.Nodes {
		if slices.ContainsFunc(node.Status.Addresses, func(a corev1.NodeAddress) bool {
			address, err := netip.ParseAddr(a.Address)
			return a.Type == corev1.NodeInternalIP && err == nil && address.Is4() == is4
		}) {
			n++
		}
	}
	return n
}

// definition describes a CustomResourceDefinition of Herald.
type definition struct {
	plural, kind, short string
	fields              []string // The fields of part that this program knows.
	part                string   // spec or, if there is no spec, status
}

var definitions = []definition{
	define("bgpadvertisements", "hbgp", herald.BGPAdvertisement{}),
	define("bgppeers", "hpeer", herald.BGPPeer{}),
	define("ipallocations", "halloc", herald.IPAllocation{}),
	define("ippools", "hpool", herald.IPPool{}),
	define("l2advertisements", "hl2", herald.L2Advertisement{}),
	define("speakerstatuses", "hspk", herald.SpeakerStatus{}),
}

// category is the category of all of Herald's kinds.
const category = "herald"

func define(plural, short string, object any) definition {
	t, part := reflect.TypeOf(object), "spec"
	field, ok := t.FieldByName("Spec")
	if !ok {
		field, _ = t.FieldByName("Status")
		part = "status"
	}
	return definition{plural, t.Name(), short, jsonFields(field.Type), part}
}

// jsonFields returns the JSON names of a struct's fields.
func jsonFields(t reflect.Type) (names []string) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name != "":
			names = append(names, name)
		case f.Anonymous && strings.Contains(options, "inline"):
			names = append(names, jsonFields(f.Type)...)
		}
	}
	slices.Sort(names)
	return names
}

const applyThem = "kubectl apply the manifests of this version, manifests/herald.yaml or the chart"

// resources checks the installed kinds of Herald, and other kinds with the same names.
func (p *preflight) resources() {
	before := len(p.Warnings)
	p.names()
	if !p.may(customResources, "whether the CustomResourceDefinitions of herald.dev are Herald's, and of this version", "customresourcedefinitions.apiextensions.k8s.io") {
		return
	}
	if len(p.Definitions) == 0 {
		text := "there are no CustomResourceDefinitions of herald.dev yet"
		if len(p.Warnings) == before {
			text += ", and none that could be in the way"
		}
		p.fine(customResources, "%s", text)
		return
	}
	before = len(p.Problems) + len(p.Warnings)
	there := map[string]*apiextensionsv1.CustomResourceDefinition{}
	for _, o := range p.Definitions {
		there[o.Spec.Names.Plural] = o
	}
	var missing []string
	for _, d := range definitions {
		o := there[d.plural]
		delete(there, d.plural)
		if o == nil {
			missing = append(missing, d.plural)
			continue
		}
		p.definition(d, o)
	}
	if len(missing) > 0 {
		p.problem(customResources, nil, "some CustomResourceDefinitions of herald.dev are there, and these are not: %s: %s", strings.Join(missing, ", "), applyThem)
	}
	for _, name := range sets.List(sets.KeySet(there)) {
		p.problem(customResources, nil, "CustomResourceDefinition %s is in the API group herald.dev, and this version of Herald does not have it: find out what installed it, and delete it if nobody uses it", there[name].Name)
	}
	if len(p.Problems)+len(p.Warnings) == before {
		p.fine(customResources, "the CustomResourceDefinitions of herald.dev have the fields of this version")
	}
}

// definition compares a CustomResourceDefinition with its description.
func (p *preflight) definition(d definition, o *apiextensionsv1.CustomResourceDefinition) {
	name := "CustomResourceDefinition " + o.Name
	if o.Spec.Names.Kind != d.kind || o.Spec.Scope != apiextensionsv1.ClusterScoped {
		p.problem(customResources, nil, "%s is of another origin: it is of the kind %s and %s, and Herald's is of the kind %s and Cluster: delete it with what uses it before Herald is installed",
			name, quoted(o.Spec.Names.Kind), o.Spec.Scope, d.kind)
		return
	}
	i := slices.IndexFunc(o.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool {
		return v.Name == herald.GroupVersion.Version
	})
	if i < 0 || !o.Spec.Versions[i].Served {
		p.problem(customResources, nil, "%s does not serve the version %s: %s", name, herald.GroupVersion.Version, applyThem)
		return
	}
	for _, c := range o.Status.Conditions {
		if (c.Type == apiextensionsv1.Established || c.Type == apiextensionsv1.NamesAccepted) && c.Status != apiextensionsv1.ConditionTrue {
			p.problem(customResources, nil, "%s: %s is not True (%s): %s: see which other one has its names", name, c.Type, c.Reason, c.Message)
		}
	}
	var known []string
	if s := o.Spec.Versions[i].Schema; s != nil && s.OpenAPIV3Schema != nil {
		for field := range s.OpenAPIV3Schema.Properties[d.part].Properties {
			known = append(known, field)
		}
	}
	slices.Sort(known)
	lacks := slices.DeleteFunc(slices.Clone(d.fields), func(f string) bool { return slices.Contains(known, f) })
	if len(lacks) > 0 {
		p.problem(customResources, nil, "%s is of another version of Herald: it does not have %s.%s, which the API server then drops: %s", name, d.part, some(lacks), applyThem)
		return
	}
	if more := slices.DeleteFunc(known, func(f string) bool { return slices.Contains(d.fields, f) }); len(more) > 0 {
		p.warn(customResources, nil, "%s is of a newer version of Herald than this program: it has %s.%s: use the kubectl-herald of that version", name, d.part, some(more))
	}
}

// names looks for other resources that have Herald's short names or its category.
func (p *preflight) names() {
	ours := sets.New(category)
	for _, d := range definitions {
		ours.Insert(d.short)
	}
	taken := map[string]sets.Set[string]{}
	for _, l := range p.Served {
		if groupOf(l) == herald.GroupVersion.Group {
			continue
		}
		for _, r := range l.APIResources {
			for _, name := range slices.Concat(r.ShortNames, r.Categories, []string{r.Name, r.SingularName}) {
				if ours.Has(name) && !strings.Contains(r.Name, "/") {
					if taken[name] == nil {
						taken[name] = sets.New[string]()
					}
					taken[name].Insert(strings.TrimSuffix(r.Name+"."+groupOf(l), "."))
				}
			}
		}
	}
	for _, name := range sets.List(sets.KeySet(taken)) {
		p.warn(customResources, nil, "kubectl get %s may mean %s, too: write Herald's resources with their group, as ippools.herald.dev", name, strings.Join(sets.List(taken[name]), ", "))
	}
}

// installed reports whether at least a part of Herald is installed.
func (p *preflight) installed() bool { return p.servesGroup(herald.GroupVersion.Group) }

// heraldPolicies are the admission policies that each installation has. Their bindings have the same names.
var heraldPolicies = []string{"allocations.herald.dev", "controller.herald.dev", "ippools.herald.dev", "speakers.herald.dev"}

// admission checks whether the policies are in force that let herald-ccm and the speakers write only their own
// objects.
func (p *preflight) admission() {
	const group, resource = ".admissionregistration.k8s.io", "validatingadmissionpolicies"
	if !p.Serves("admissionregistration.k8s.io/v1", resource) {
		p.problem(policies, nil, "the API server does not serve ValidatingAdmissionPolicies, by which speakers and users may write only what is theirs: do not disable admissionregistration.k8s.io/v1 (--runtime-config of kube-apiserver)")
		return
	}
	if !p.installed() {
		p.fine(policies, "ValidatingAdmissionPolicies are served; Herald's come with its manifests")
		return
	}
	if !p.may(policies, "whether Herald's admission policies are there and bound", resource+group, "validatingadmissionpolicybindings"+group) {
		return
	}
	good := true
	for _, name := range heraldPolicies {
		i := slices.IndexFunc(p.Policies, func(o *admissionv1.ValidatingAdmissionPolicy) bool { return o.Name == name })
		bound := slices.ContainsFunc(p.Bindings, func(b *admissionv1.ValidatingAdmissionPolicyBinding) bool {
			return b.Spec.PolicyName == name && slices.Contains(b.Spec.ValidationActions, admissionv1.Deny)
		})
		switch {
		case i < 0:
			p.problem(policies, nil, "the ValidatingAdmissionPolicy %s is missing, so nothing refuses what it is to refuse: %s", name, applyThem)
		case !bound:
			p.problem(policies, nil, "no ValidatingAdmissionPolicyBinding of the policy %s has the action Deny: %s", name, applyThem)
		case p.Policies[i].Status.TypeChecking != nil && len(p.Policies[i].Status.TypeChecking.ExpressionWarnings) > 0:
			w := p.Policies[i].Status.TypeChecking.ExpressionWarnings[0]
			p.warn(policies, nil, "the ValidatingAdmissionPolicy %s does not fit the API: %s: %s: %s", name, w.FieldRef, w.Warning, applyThem)
		default:
			continue
		}
		good = false
	}
	if good {
		p.fine(policies, "Herald's admission policies are there and bound")
	}
}

// security checks whether Pod Security admits the speakers.
func (p *preflight) security() {
	const enforce = "pod-security.kubernetes.io/enforce"
	i := slices.IndexFunc(p.Namespaces, func(n *corev1.Namespace) bool { return n.Name == p.Own })
	label := fmt.Sprintf("kubectl label --overwrite namespace %s %s=privileged", p.Own, enforce)
	switch {
	case i < 0 && !p.may(podSecurity, "whether Pod Security admits the speakers", "namespaces"):
	case i < 0:
		p.fine(podSecurity, "there is no namespace %s yet: manifests/herald.yaml makes it with the label %s=privileged, which speakers need (hostNetwork, NET_RAW); after an installation with Helm: %s", p.Own, enforce, label)
	default:
		switch level := p.Namespaces[i].Labels[enforce]; level {
		case "privileged":
			p.fine(podSecurity, "Pod Security admits the speakers to namespace %s", p.Own)
		case "":
			p.warn(podSecurity, nil, "namespace %s does not have the label %s, so the default of the API server decides whether speakers (hostNetwork, NET_RAW) are admitted: %s", p.Own, enforce, label)
		default:
			p.problem(podSecurity, nil, "Pod Security does not admit speakers to namespace %s, whose label %s is %s: they need hostNetwork and NET_RAW: %s", p.Own, enforce, quoted(level), label)
		}
	}
}

// nameOf returns NAMESPACE/NAME.
func nameOf(o metav1.Object) string {
	if o.GetNamespace() == "" {
		return o.GetName()
	}
	return o.GetNamespace() + "/" + o.GetName()
}

// compact sorts names and removes duplicates.
func compact(names []string) []string {
	slices.SortFunc(names, cmp.Compare)
	return slices.Compact(names)
}
