package migrate

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// rivals notes advertisements that announce the same routes with different attributes. Herald uses the attributes of the
// first by name.
func (t *translation) rivals() {
	var all []*herald.BGPAdvertisement
	for _, o := range t.Objects {
		if a, ok := o.(*herald.BGPAdvertisement); ok {
			all = append(all, a)
		}
	}
	common := func(a, b []string) bool {
		return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
	}
	attributes := func(a *herald.BGPAdvertisement) string {
		var preference int64
		if a.Spec.LocalPreference != nil {
			preference = *a.Spec.LocalPreference
		}
		return fmt.Sprint(preference, a.Spec.Communities)
	}
	lengths := func(a *herald.BGPAdvertisement) herald.AggregationLength {
		if l := a.Spec.AggregationLength; l != nil {
			return *l
		}
		return herald.AggregationLength{}
	}
	named := func(a *herald.BGPAdvertisement) []string {
		if a.Spec.PoolSelector != nil {
			return nil
		}
		return a.Spec.Pools
	}
	for n, a := range all {
		for _, b := range all[:n] {
			v4, v6 := t.families(named(a), named(b))
			same := v4 && lengths(a).IPv4 == lengths(b).IPv4 || v6 && lengths(a).IPv6 == lengths(b).IPv6
			apart := disjoint(a.Spec.ServiceSelector, b.Spec.ServiceSelector) || disjoint(a.Spec.NamespaceSelector, b.Spec.NamespaceSelector) || disjoint(a.Spec.NodeSelector, b.Spec.NodeSelector)
			if same && !apart && attributes(a) != attributes(b) && common(a.Spec.Peers, b.Spec.Peers) {
				t.Notes = append(t.Notes, Note{Approximated, "BGPAdvertisement " + a.Name, fmt.Sprintf("it may announce the same routes as %s, with other attributes: %s adds up communities, Herald takes the attributes of the first by name, and says so in the condition Exclusive", b.Name, t.source.Title)})
			}
		}
	}
}

// families reports for which families two advertisements both select addresses. An empty list of pools means all pools. If
// no pools are known, they may have addresses of both families.
func (t *translation) families(a, b []string) (v4, v6 bool) {
	known := false
	for _, o := range t.Objects {
		p, ok := o.(*herald.IPPool)
		known = known || ok
		if !ok || len(a) > 0 && !slices.Contains(a, p.Name) || len(b) > 0 && !slices.Contains(b, p.Name) {
			continue
		}
		for _, r := range p.Spec.Addresses {
			six := strings.Contains(string(r), ":")
			v4, v6 = v4 || !six, v6 || six
		}
	}
	return v4 || !known, v6 || !known
}

// controlPlane notes objects that select nodes of the control plane.
func (t *translation) controlPlane() {
	for _, o := range t.Objects {
		var nodes *metav1.LabelSelector
		switch o := o.(type) {
		case *herald.BGPPeer:
			nodes = o.Spec.NodeSelector
		case *herald.L2Advertisement:
			nodes = o.Spec.NodeSelector
		}
		if nodes == nil {
			continue
		}
		keys := map[string]bool{}
		keysOf(keys, metav1.LabelSelector{MatchLabels: nodes.MatchLabels})
		for _, e := range nodes.MatchExpressions {
			keys[e.Key] = e.Operator == metav1.LabelSelectorOpIn || e.Operator == metav1.LabelSelectorOpExists
		}
		if keys["node-role.kubernetes.io/control-plane"] || keys["node-role.kubernetes.io/master"] {
			ref := o.GetObjectKind().GroupVersionKind().Kind + " " + o.(metav1.Object).GetName()
			t.Notes = append(t.Notes, Note{Approximated, ref, fmt.Sprintf("Herald announces nothing from nodes with the label %s, which kubeadm gives nodes of the control plane: remove it from those that are to announce", corev1.LabelNodeExcludeBalancers)})
		}
	}
}
