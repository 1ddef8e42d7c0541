package report

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/announce"
)

// The names of the steps. The step of a node is called "node" and the name of the node.
const (
	stepAnnotations = "annotations"
	stepController  = "controller"
	stepPools       = "pools"
	stepSegments    = "segments"
	stepPrepare     = "prepare"
	stepUninstall   = "uninstall"
	stepPeers       = "peers"
	stepLabels      = "labels"
)

const (
	mergePatch = types.MergePatchType
	applyPatch = types.ApplyPatchType
	// TakeoverManager is the field manager of the changes. A field that it alone has applied goes when it is not applied
	// again.
	TakeoverManager = "kubectl-herald-takeover"
)

// annotations gives Services the annotations of Herald that they need.
func (p *planner) annotations() {
	if len(p.Annotations) == 0 {
		return
	}
	s := p.step(stepAnnotations)
	byText := func(x, y types.NamespacedName) int { return cmp.Compare(x.String(), y.String()) }
	var names []string
	for _, name := range slices.SortedFunc(maps.Keys(p.Annotations), byText) {
		svc := p.at.services[name]
		if svc == nil {
			continue // It was deleted meanwhile.
		}
		names = append(names, name.String())
		read := p.CCM.Foreign.Read(svc)
		missing := map[string]any{}
		for key, text := range p.Annotations[name] {
			if _, own := svc.Annotations[key]; !own && !sameList(read.Annotations[key], text) {
				missing[key] = text
			}
		}
		ours := slices.ContainsFunc(svc.ManagedFields, func(m metav1.ManagedFieldsEntry) bool { return m.Manager == TakeoverManager })
		if len(missing) > 0 {
			s.partial = true
			s.wait("Service %s does not have all annotations that it needs yet", name)
			all := map[string]any{}
			for key, text := range p.Annotations[name] {
				if has, own := svc.Annotations[key]; !own || has == text { // The user's own annotations stay.
					all[key] = text
				}
			}
			s.Do = append(s.Do, annotated(name, all, "gets "+strings.Join(slices.Sorted(maps.Keys(all)), ", ")))
		}
		if ours {
			s.Begun = true
			s.Undo = append(s.Undo, annotated(name, nil, "loses the annotations that it got"))
		}
	}
	s.Text = "gives Services the annotations of Herald that they need to keep their addresses: " + some(names)
	s.Back = "removes the annotations that the step has set"
}

// sameList reports whether two lists, separated by commas, have the same entries in the same order.
func sameList(x, y string) bool {
	entries := func(text string) []string {
		list := strings.Split(text, ",")
		for i, entry := range list {
			list[i] = strings.TrimSpace(entry)
		}
		return list
	}
	return slices.Equal(entries(x), entries(y))
}

func annotated(name types.NamespacedName, annotations map[string]any, what string) Edit {
	metadata := map[string]any{"name": name.Name, "namespace": name.Namespace}
	if annotations != nil {
		metadata["annotations"] = annotations
	}
	return Edit{
		GroupVersionResource: corev1.SchemeGroupVersion.WithResource("services"), Namespace: name.Namespace, Name: name.Name, Patch: applyPatch,
		Body: map[string]any{"apiVersion": "v1", "kind": "Service", "metadata": metadata}, Text: fmt.Sprintf("Service %s %s", name, what),
	}
}

// controller stops MetalLB's controller, so that only herald-ccm writes the status of Services.
func (p *planner) controller() {
	if len(p.controllers) == 0 {
		return
	}
	s := p.step(stepController)
	var names []string
	for _, d := range p.controllers {
		names = append(names, nameOf(d))
		stopped := d.Spec.Replicas != nil && *d.Spec.Replicas == 0
		s.part(stopped)
		if stopped && d.Status.Replicas > 0 {
			s.wait("Deployment %s still has %s: kubectl -n %s describe deployment %s says why", nameOf(d), count(int(d.Status.Replicas), "pod", "pods"), d.Namespace, d.Name)
		}
		if !stopped {
			s.wait("Deployment %s has %d replicas again: see what scales it up, such as an operator or GitOps, and stop that", nameOf(d), replicas(d))
		}
		if d.Status.AvailableReplicas == 0 {
			s.Absent = append(s.Absent, fmt.Sprintf("Deployment %s has no available pod: kubectl -n %s describe deployment %s says why", nameOf(d), d.Namespace, d.Name))
		}
		s.Do = append(s.Do, scaled(d, 0))
		s.Undo = append(s.Undo, scaled(d, 1)) // MetalLB's controller has no second replica.
	}
	s.Text = "scales " + listed("Deployment", names) + " to 0 replicas, so that only herald-ccm writes the status of Services; the speakers go on announcing"
	s.Back = "scales " + listed("Deployment", names) + " to 1 replica"
}

func replicas(d *appsv1.Deployment) int32 {
	if d.Spec.Replicas == nil {
		return 1
	}
	return *d.Spec.Replicas
}

func scaled(d *appsv1.Deployment, n int) Edit {
	return Edit{
		GroupVersionResource: appsv1.SchemeGroupVersion.WithResource("deployments"), Namespace: d.Namespace, Name: d.Name, Patch: mergePatch,
		Body: map[string]any{"spec": map[string]any{"replicas": n}}, Text: fmt.Sprintf("Deployment %s has replicas: %d", nameOf(d), n),
	}
}

// pools applies the IPPools, so that herald-ccm records the addresses that Services have.
func (p *planner) pools() {
	wanted := wantedOf[*herald.IPPool](p.Takeover)
	if len(wanted) == 0 {
		return
	}
	s := p.step(stepPools)
	for _, o := range wanted {
		live := namedOf(p.Pools, o.Name)
		s.part(live != nil && !live.Spec.Disabled)
		switch {
		case live == nil:
			s.wait("IPPool %s is not there yet", o.Name)
		case live.Spec.Disabled:
			s.wait("IPPool %s has spec.disabled: give your objects with -f, without this field", o.Name)
		case live.DeletionTimestamp != nil:
			s.wait("IPPool %s is being deleted: wait until no Service has an address of it, or give IPPools of another name with -f", o.Name)
		default:
			s.accepted("IPPool", "ippools", o.Name, live.Generation, live.Status.Conditions)
		}
		s.Do = append(s.Do, applied(o, "IPPool", "ippools"))
		o := o.DeepCopy()
		o.Spec.Disabled = true
		closed := applied(o, "IPPool", "ippools")
		closed.Text = "IPPool " + o.Name + " has spec.disabled: true"
		s.Undo = append(s.Undo, closed)
	}
	s.Waits = append(s.Waits, p.unrecorded()...)
	names := listed("IPPool", namesOfObjects(wanted))
	s.Text = "applies " + names + ", and herald-ccm records the addresses that Services have"
	s.Back = "sets spec.disabled of " + names + ", so that they give out no other address; Services keep those that they have"
}

// unrecorded says which Services have addresses without a record of Herald, or records of addresses that they do not have.
func (p *planner) unrecorded() (waits []string) {
	recorded := map[types.NamespacedName][]string{}
	for _, rec := range p.Allocations {
		for _, o := range rec.Spec.Owners {
			name := types.NamespacedName{Namespace: o.Namespace, Name: o.Name}
			if svc := p.at.services[name]; svc != nil && svc.UID == o.UID && rec.Spec.ReleasedAt == nil {
				recorded[name] = append(recorded[name], rec.Spec.Address)
			}
		}
	}
	for _, svc := range slices.SortedFunc(slices.Values(p.Services), byName) {
		name, has := types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}, Addresses(svc)
		if !p.CCM.Serves(svc) || svc.DeletionTimestamp != nil || len(has) == 0 {
			continue
		}
		lacks := slices.DeleteFunc(slices.Clone(has), func(a string) bool { return slices.Contains(recorded[name], a) })
		others := slices.DeleteFunc(recorded[name], func(a string) bool { return slices.Contains(has, a) })
		switch {
		case len(lacks) > 0:
			waits = append(waits, fmt.Sprintf("Service %s has %s, and no IPAllocation records that: kubectl herald explain service %[1]s says why", name, some(lacks)))
		case len(others) > 0:
			waits = append(waits, fmt.Sprintf("Service %s has %s, and %s is recorded for it, too: kubectl herald explain service %[1]s says why", name, some(has), some(others)))
		}
	}
	return waits
}

// segment applies the L2Advertisements. Herald announces beside MetalLB then.
func (p *planner) segment() {
	wanted := wantedOf[*herald.L2Advertisement](p.Takeover)
	if len(wanted) == 0 {
		return
	}
	s := p.step(stepSegments)
	for _, o := range wanted {
		live := namedOf(p.L2Advertisements, o.Name)
		s.part(live != nil)
		if live == nil {
			s.wait("L2Advertisement %s is not there yet", o.Name)
		} else {
			s.accepted("L2Advertisement", "l2advertisements", o.Name, live.Generation, live.Status.Conditions)
		}
		s.Do = append(s.Do, applied(o, "L2Advertisement", "l2advertisements"))
		s.Undo = append(s.Undo, deleted(o.Name, "L2Advertisement", "l2advertisements"))
	}
	s.Waits = append(s.Waits, p.unowned()...)
	names := listed("L2Advertisement", namesOfObjects(wanted))
	s.Text = "applies " + names + ": Herald announces on segments beside MetalLB"
	s.Back = "deletes " + names
}

// unowned says which addresses are not announced on segments as they must be. It leaves out addresses that BGPAdvertisements
// announce to routers, also if these are not there yet.
func (p *planner) unowned() (waits []string) {
	then := *p.Objects
	for _, o := range wantedOf[*herald.BGPAdvertisement](p.Takeover) {
		if namedOf(p.BGPAdvertisements, o.Name) == nil {
			then.BGPAdvertisements = append(slices.Clone(then.BGPAdvertisements), o)
		}
	}
	n, r := NewNetwork(&then), &StatusReport{}
	n.addressStatuses(r, p.at.segments, func(*herald.IPAllocation) bool { return false }) // A new address is waited for, too.
	n.addressProblems(r, p.at.segments, p.at.now, func(_ problemKind, _ string, _ []string, format string, args ...any) {
		waits = append(waits, fmt.Sprintf(format, args...))
	})
	return waits
}

// prepare makes MetalLB's speakers leave nodes that get the label, and Herald's sessions start on these nodes.
func (p *planner) prepare() {
	s := p.step(stepPrepare)
	peers, ads := wantedOf[*herald.BGPPeer](p.Takeover), wantedOf[*herald.BGPAdvertisement](p.Takeover)
	var back []string
	for _, d := range p.speakers {
		off := keepsOff(d)
		s.part(off)
		if !off {
			s.wait("DaemonSet %s starts its pods on nodes with the label %s: see what has edited it, such as Helm or GitOps, and stop that", nameOf(d), herald.LabelMoved)
		}
		if off && d.Generation > d.Status.ObservedGeneration {
			s.wait("the DaemonSet controller has not seen DaemonSet %s yet: see whether kube-controller-manager runs", nameOf(d))
		}
		s.Do, s.Undo = append(s.Do, keepOff(d)), append(s.Undo, letOn(d))
	}
	if daemons := p.daemonSets(); daemons != "" {
		s.Text = "has the pods of " + daemons + " leave nodes with the label " + herald.LabelMoved + ", and restarts none"
		back = append(back, "restores "+daemons)
	}
	var undo []Edit
	for _, o := range ads {
		live := namedOf(p.BGPAdvertisements, o.Name)
		s.part(live != nil)
		if live == nil {
			s.wait("BGPAdvertisement %s is not there yet", o.Name)
		}
		undo = append(undo, deleted(o.Name, "BGPAdvertisement", "bgpadvertisements"))
	}
	for _, o := range peers {
		live := namedOf(p.BGPPeers, o.Name)
		s.part(live != nil && hasMoved(live.Spec.NodeSelector))
		switch {
		case live == nil:
			s.wait("BGPPeer %s is not there yet", o.Name)
		case !hasMoved(live.Spec.NodeSelector):
			s.wait("BGPPeer %s selects nodes without the label %s, on which MetalLB has a session", o.Name, herald.LabelMoved)
		default:
			s.accepted("BGPPeer", "bgppeers", o.Name, live.Generation, live.Status.Conditions)
		}
		o := o.DeepCopy()
		if !hasMoved(o.Spec.NodeSelector) {
			if o.Spec.NodeSelector == nil {
				o.Spec.NodeSelector = &metav1.LabelSelector{}
			}
			o.Spec.NodeSelector.MatchExpressions = append(o.Spec.NodeSelector.MatchExpressions, metav1.LabelSelectorRequirement{Key: herald.LabelMoved, Operator: metav1.LabelSelectorOpExists})
		}
		s.Do = append(s.Do, applied(o, "BGPPeer", "bgppeers"))
		undo = append(undo, deleted(o.Name, "BGPPeer", "bgppeers"))
	}
	for _, o := range ads {
		s.Do = append(s.Do, applied(o, "BGPAdvertisement", "bgpadvertisements"))
	}
	s.Undo = append(undo, s.Undo...)
	if len(peers) > 0 {
		s.Text = join(compactTexts(s.Text, "applies "+listed("BGPPeer", namesOfObjects(peers))+" for nodes with this label only"), "; ")
		back = append(back, "deletes "+listed("BGPPeer", namesOfObjects(peers)))
	}
	if len(ads) > 0 {
		s.Text = join(compactTexts(s.Text, "applies "+listed("BGPAdvertisement", namesOfObjects(ads))), "; ")
		back = append(back, "deletes "+listed("BGPAdvertisement", namesOfObjects(ads)))
	}
	s.Back = strings.Join(back, "; ")
}

func (p *planner) daemonSets() string {
	var names []string
	for _, d := range p.speakers {
		names = append(names, nameOf(d))
	}
	if len(names) == 0 {
		return ""
	}
	return listed("DaemonSet", names)
}

func compactTexts(all ...string) []string {
	return slices.DeleteFunc(all, func(text string) bool { return text == "" })
}

// node moves one node.
func (p *planner) node(n *corev1.Node) {
	s := p.step("node " + n.Name)
	s.part(moved(n))
	running := map[types.UID]bool{}
	for _, pod := range p.Pods {
		d := p.runs(pod)
		if d == nil || pod.Spec.NodeName != n.Name {
			continue
		}
		s.wait("pod %s of MetalLB is still on node %s: kubectl -n %s describe pod %s says why", nameOf(pod), n.Name, pod.Namespace, pod.Name)
		if isPodReady(pod) {
			running[d.UID] = true
		}
	}
	for _, d := range p.speakers {
		if !running[d.UID] {
			s.Absent = append(s.Absent, fmt.Sprintf("DaemonSet %s has no ready pod on node %s: kubectl -n %s describe daemonset %s says why", nameOf(d), n.Name, d.Namespace, d.Name))
		}
	}
	s.Waits = append(s.Waits, p.sessions(n)...)
	s.Do = []Edit{labelled(n, "true")}
	s.Undo = []Edit{labelled(n, nil)}
	s.Text = "labels node " + n.Name + " " + herald.LabelMoved + "=true"
	if daemons := p.daemonSets(); daemons != "" {
		s.Text += ": the pod of " + daemons + " leaves it"
	}
	if len(wantedOf[*herald.BGPPeer](p.Takeover)) > 0 {
		s.Text += ", and Herald's BGP sessions start"
	}
	s.Back = "removes the label " + herald.LabelMoved + " of node " + n.Name + ", and MetalLB announces from it again"
}

func isPodReady(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func labelled(n *corev1.Node, value any) Edit {
	text := "node " + n.Name + " has the label " + herald.LabelMoved
	if value == nil {
		text = "node " + n.Name + " has the label " + herald.LabelMoved + " no more"
	}
	return Edit{
		GroupVersionResource: corev1.SchemeGroupVersion.WithResource("nodes"), Name: n.Name, Patch: mergePatch,
		Body: map[string]any{"metadata": map[string]any{"labels": map[string]any{herald.LabelMoved: value}}}, Text: text,
	}
}

// sessions says which BGP sessions of a node are not as they must be.
func (p *planner) sessions(n *corev1.Node) (waits []string) {
	expected := p.routes()
	for _, peer := range slices.SortedFunc(slices.Values(p.BGPPeers), byName) {
		selector, err := herald.CompileSelector("nodeSelector", peer.Spec.NodeSelector)
		if err != nil || !selector.Matches(labels.Set(n.Labels)) {
			continue
		}
		var session herald.SpeakerSession
		st := statusOf(p.Objects, n.Name)
		if why := p.at.gone[n.Name]; st == nil || why != "" {
			waits = append(waits, fmt.Sprintf("the speaker of node %s does not report: %s", n.Name, cmp.Or(why, "it has no SpeakerStatus: "+seeSpeakers)))
			return waits
		}
		if i := slices.IndexFunc(st.Status.Sessions, func(x herald.SpeakerSession) bool { return x.Peer == peer.Name }); i >= 0 {
			session = st.Status.Sessions[i]
		}
		see := "kubectl herald bgp peers " + peer.Name
		switch want := due(session, expected[router{n.Name, peer.Name}]); {
		case session.Peer == "":
			waits = append(waits, fmt.Sprintf("node %s has no session with BGPPeer %s: %s says why", n.Name, peer.Name, see))
		case session.State != established:
			waits = append(waits, fmt.Sprintf("the session of node %s with BGPPeer %s is %s: %s: %s says more", n.Name, peer.Name, session.State, cmp.Or(session.Reason, "no reason is known"), see))
		case int(session.Routes) < want:
			waits = append(waits, fmt.Sprintf("node %s has sent BGPPeer %s %d of %s: kubectl herald bgp routes says which are missing", n.Name, peer.Name, session.Routes, count(want, "route", "routes")))
		}
	}
	return waits
}

// due returns how many of the routes a session must have sent. Withheld routes do not count.
func due(session herald.SpeakerSession, routes map[netip.Prefix]bool) int {
	n := 0
	for prefix := range routes {
		if !withholds(session.Withheld, prefix.Addr()) {
			n++
		}
	}
	return n
}

// routes returns the routes that each node must send to each peer, by the code of the speakers.
func (p *planner) routes() map[router]map[netip.Prefix]bool {
	all := map[router]map[netip.Prefix]bool{}
	want := func(to router, prefix netip.Prefix) {
		if all[to] == nil {
			all[to] = map[netip.Prefix]bool{}
		}
		all[to][prefix] = true
	}
	for _, rec := range p.Allocations {
		address := announce.AddressOf(rec, p.at.now, func(n types.NamespacedName) *corev1.Service { return p.at.services[n] }, p.at.slicesOf)
		if address == nil {
			continue
		}
		for node, d := range announce.DecideRoutes(p.at.shared, address) {
			for peer := range d.Exports {
				want(router{node, peer}, netip.PrefixFrom(address.Addr, address.Addr.BitLen()))
			}
			for _, a := range d.Aggregates {
				want(router{node, a.Peer}, a.Prefix)
			}
		}
	}
	return all
}

// uninstall is the step of the user.
func (p *planner) uninstall() {
	s := p.step(stepUninstall)
	s.Text = "you uninstall MetalLB, as it was installed: helm uninstall, or kubectl delete -f"
	for _, name := range p.names() {
		s.wait("%s is there", name)
	}
}

// peers gives the BGPPeers the nodes that they are for. No session is reset, because moved nodes stay selected.
func (p *planner) peers() {
	marked := p.marked()
	if len(marked)+len(wantedOf[*herald.BGPPeer](p.Takeover)) == 0 {
		return
	}
	s := p.step(stepPeers)
	s.barred = p.there()
	for _, peer := range marked {
		s.partial = true
		selector := map[string]any{"matchExpressions": nil}
		rest := slices.DeleteFunc(slices.Clone(peer.Spec.NodeSelector.MatchExpressions), isMoved)
		if len(rest) > 0 {
			selector["matchExpressions"] = rest
		}
		left := maps.Clone(peer.Spec.NodeSelector.MatchLabels)
		delete(left, herald.LabelMoved)
		if len(left) < len(peer.Spec.NodeSelector.MatchLabels) {
			selector["matchLabels"] = map[string]any{herald.LabelMoved: nil}
		}
		var body any = selector
		if len(rest)+len(left) == 0 {
			body = nil
		}
		s.Do = append(s.Do, Edit{
			GroupVersionResource: herald.GroupVersion.WithResource("bgppeers"), Name: peer.Name, Patch: mergePatch,
			Body: map[string]any{"spec": map[string]any{"nodeSelector": body}}, Text: "BGPPeer " + peer.Name + " selects nodes without the label " + herald.LabelMoved + ", too",
		})
	}
	s.Begun = !s.barred
	for _, peer := range p.BGPPeers {
		s.accepted("BGPPeer", "bgppeers", peer.Name, peer.Generation, peer.Status.Conditions)
	}
	for _, n := range slices.SortedFunc(slices.Values(p.Nodes), byName) {
		if moved(n) {
			s.Waits = append(s.Waits, p.sessions(n)...)
		}
	}
	s.Text = "removes the label " + herald.LabelMoved + " from the nodeSelector of BGPPeers; no session is reset"
}

// labels removes the labels of the nodes.
func (p *planner) labels() {
	s := p.step(stepLabels)
	s.barred = p.there()
	for _, name := range p.labelled() {
		s.partial = true
		s.Do = append(s.Do, labelled(namedOf(p.Nodes, name), nil))
	}
	s.Text = "removes the label " + herald.LabelMoved + " from the nodes"
}

// applied returns the change that applies an object of Herald.
func applied(o runtime.Object, kind, resource string) Edit {
	body, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		panic(err) // Its types are those of Herald.
	}
	delete(body, "status")
	unstructured.RemoveNestedField(body, "metadata", "creationTimestamp")
	body["apiVersion"], body["kind"] = herald.GroupVersion.String(), kind
	herald.WriteDurations(body)
	name := o.(metav1.Object).GetName()
	return Edit{GroupVersionResource: herald.GroupVersion.WithResource(resource), Name: name, Patch: applyPatch, Body: body, Text: kind + " " + name + " is applied"}
}

func deleted(name, kind, resource string) Edit {
	return Edit{GroupVersionResource: herald.GroupVersion.WithResource(resource), Name: name, Text: kind + " " + name + " is deleted"}
}

// accepted adds what herald-ccm finds wrong with an object.
func (s *Step) accepted(kind, resource, name string, generation int64, conditions []metav1.Condition) {
	c := meta.FindStatusCondition(conditions, herald.ConditionAccepted)
	switch {
	case c == nil || c.ObservedGeneration < generation:
		s.wait("herald-ccm has not read %s %s yet: see whether it runs", kind, name)
	case c.Status == metav1.ConditionFalse && c.Reason != herald.ReasonNoNodeSelected: // No node has moved yet.
		s.wait("%s %s is not accepted: %s: correct it, and give your objects with -f: kubectl describe %s.herald.dev %[2]s", kind, name, c.Message, resource)
	}
}
