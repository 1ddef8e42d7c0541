package report

import (
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// metalLBOf is the MetalLB of a cluster.
type metalLBOf struct {
	controllers []*appsv1.Deployment
	// speakers are the DaemonSets that announce: MetalLB's speaker, and FRR-K8s if MetalLB's sessions are in it.
	speakers []*appsv1.DaemonSet
}

// balancerOf finds MetalLB by the labels of its manifests and of its chart, and by its images.
func balancerOf(o *Objects) (b metalLBOf) {
	for _, d := range o.Deployments {
		if isMetalLB(d.Labels, &d.Spec.Template.Spec, "controller") {
			b.controllers = append(b.controllers, d)
		}
	}
	inFRRK8s := false
	for _, d := range o.DaemonSets {
		if isMetalLB(d.Labels, &d.Spec.Template.Spec, "speaker") {
			b.speakers = append(b.speakers, d)
			inFRRK8s = inFRRK8s || slices.ContainsFunc(d.Spec.Template.Spec.Containers, func(c corev1.Container) bool { return env(&c, "METALLB_BGP_TYPE") == "frr-k8s" })
		}
	}
	for _, d := range o.DaemonSets {
		if isFRRK8s(d) && (inFRRK8s || keepsOff(d)) {
			b.speakers = append(b.speakers, d)
		}
	}
	slices.SortFunc(b.controllers, byName)
	slices.SortFunc(b.speakers, byName)
	return b
}

func isMetalLB(labels map[string]string, pod *corev1.PodSpec, component string) bool {
	return labels["app"] == "metallb" && labels["component"] == component ||
		labels["app.kubernetes.io/name"] == "metallb" && labels["app.kubernetes.io/component"] == component ||
		hasImage(pod, "metallb/"+component, "metallb-"+component)
}

func isFRRK8s(d *appsv1.DaemonSet) bool {
	return d.Labels["app.kubernetes.io/name"] == "frr-k8s" && d.Labels["app.kubernetes.io/component"] == "frr-k8s" || hasImage(&d.Spec.Template.Spec, "metallb/frr-k8s")
}

// hasImage reports whether a container has an image with one of these names. The tag does not count.
func hasImage(pod *corev1.PodSpec, names ...string) bool {
	return slices.ContainsFunc(pod.Containers, func(c corev1.Container) bool {
		image, _, _ := strings.Cut(c.Image, "@")
		if colon := strings.LastIndex(image, ":"); colon > strings.LastIndex(image, "/") {
			image = image[:colon]
		}
		return slices.ContainsFunc(names, func(name string) bool { return strings.HasSuffix(image, name) })
	})
}

func (b *metalLBOf) there() bool { return len(b.controllers)+len(b.speakers) > 0 }

// names returns the names of the Deployments and DaemonSets.
func (b *metalLBOf) names() (all []string) {
	for _, d := range b.controllers {
		all = append(all, "Deployment "+nameOf(d))
	}
	for _, d := range b.speakers {
		all = append(all, "DaemonSet "+nameOf(d))
	}
	return all
}

// class returns the class of the Services that MetalLB serves; empty: those without a class.
func (b *metalLBOf) class() string {
	for _, d := range b.controllers {
		for _, c := range d.Spec.Template.Spec.Containers {
			if class := value(slices.Concat(c.Command, c.Args), "lb-class"); class != "" {
				return class
			}
		}
	}
	return ""
}

// runs returns the DaemonSet of MetalLB that a pod belongs to; nil if it belongs to none.
func (b *metalLBOf) runs(pod *corev1.Pod) *appsv1.DaemonSet {
	owner := metav1.GetControllerOf(pod)
	for _, d := range b.speakers {
		if owner != nil && owner.UID == d.UID {
			return d
		}
	}
	return nil
}

// keepsOff reports whether a DaemonSet keeps its pods off moved nodes, and has the update strategy OnDelete, with which an
// edit restarts no pod.
func keepsOff(d *appsv1.DaemonSet) bool {
	terms := requiredTerms(d)
	return d.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType && len(terms) > 0 && !slices.ContainsFunc(terms, func(t corev1.NodeSelectorTerm) bool {
		return !selectsNone(t) && !slices.ContainsFunc(t.MatchExpressions, avoidsMoved)
	})
}

func avoidsMoved(r corev1.NodeSelectorRequirement) bool { return r.Key == herald.LabelMoved }

// selectsNone reports whether a term is empty. Such a term selects no node.
func selectsNone(t corev1.NodeSelectorTerm) bool {
	return len(t.MatchExpressions) == 0 && len(t.MatchFields) == 0
}

// requiredTerms returns the terms of which a node must match one.
func requiredTerms(d *appsv1.DaemonSet) []corev1.NodeSelectorTerm {
	a := d.Spec.Template.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	return a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
}

// keepOff returns the change with which the pods of a DaemonSet leave moved nodes. It restarts no pod.
func keepOff(d *appsv1.DaemonSet) Edit {
	unmoved := corev1.NodeSelectorRequirement{Key: herald.LabelMoved, Operator: corev1.NodeSelectorOpDoesNotExist}
	var terms []corev1.NodeSelectorTerm
	for _, t := range requiredTerms(d) {
		if !selectsNone(t) && !slices.ContainsFunc(t.MatchExpressions, avoidsMoved) {
			t.MatchExpressions = append(slices.Clone(t.MatchExpressions), unmoved)
		}
		terms = append(terms, t)
	}
	if len(terms) == 0 {
		terms = []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{unmoved}}}
	}
	before := d.Annotations[herald.AnnotationUpdateStrategy]
	if before == "" {
		before = string(d.Spec.UpdateStrategy.Type)
	}
	affinity := map[string]any{"nodeAffinity": map[string]any{"requiredDuringSchedulingIgnoredDuringExecution": map[string]any{"nodeSelectorTerms": terms}}}
	return daemonSet(d, before, string(appsv1.OnDeleteDaemonSetStrategyType), affinity, "keeps its pods off nodes with the label "+herald.LabelMoved)
}

// letOn returns the change that takes keepOff back. The pod template becomes what it was, to the letter: the pods that run
// would be restarted otherwise.
func letOn(d *appsv1.DaemonSet) Edit {
	var terms []corev1.NodeSelectorTerm
	for _, t := range requiredTerms(d) {
		was := t
		t.MatchExpressions = slices.DeleteFunc(slices.Clone(t.MatchExpressions), avoidsMoved)
		if selectsNone(was) || !selectsNone(t) {
			terms = append(terms, t)
		}
	}
	var affinity any
	if len(terms) > 0 {
		affinity = map[string]any{"nodeAffinity": map[string]any{"requiredDuringSchedulingIgnoredDuringExecution": map[string]any{"nodeSelectorTerms": terms}}}
	} else if a := d.Spec.Template.Spec.Affinity; a != nil {
		switch {
		case a.NodeAffinity != nil && a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution != nil:
			affinity = map[string]any{"nodeAffinity": map[string]any{"requiredDuringSchedulingIgnoredDuringExecution": nil}}
		case a.PodAffinity != nil || a.PodAntiAffinity != nil:
			affinity = map[string]any{"nodeAffinity": nil}
		}
	}
	strategy := d.Annotations[herald.AnnotationUpdateStrategy]
	if strategy == "" {
		strategy = string(d.Spec.UpdateStrategy.Type)
	}
	return daemonSet(d, nil, strategy, affinity, "lets its pods on all nodes again")
}

func daemonSet(d *appsv1.DaemonSet, before any, strategy string, affinity any, text string) Edit {
	return Edit{
		GroupVersionResource: appsv1.SchemeGroupVersion.WithResource("daemonsets"), Namespace: d.Namespace, Name: d.Name, Patch: mergePatch,
		Body: map[string]any{
			"metadata": map[string]any{"resourceVersion": d.ResourceVersion, "annotations": map[string]any{herald.AnnotationUpdateStrategy: before}},
			"spec": map[string]any{
				"updateStrategy": map[string]any{"type": strategy},
				"template":       map[string]any{"spec": map[string]any{"affinity": affinity}},
			},
		},
		Text: "DaemonSet " + nameOf(d) + " " + text,
	}
}
