package speaker

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"

	herald "github.com/heraldlb/herald/api/v1alpha1"

	"github.com/heraldlb/herald/speaker/announce"
)

// onChange calls f for each change, with the object before and after it. before is nil for a new object, and after for a
// deleted one.
func onChange(f func(before, after any)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { f(nil, o) },
		UpdateFunc: func(before, after any) {
			if before.(metav1.Object).GetResourceVersion() != after.(metav1.Object).GetResourceVersion() {
				f(before, after)
			}
		},
		DeleteFunc: func(o any) {
			if tombstone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = tombstone.Obj
			}
			f(o, nil)
		},
	}
}

// matters reports whether a change of an object that all decisions share can change a decision. A node's heartbeat and a
// pool's status cannot.
func matters(before, after any) bool {
	if before == nil || after == nil {
		return true
	}
	b, a := before.(metav1.Object), after.(metav1.Object)
	if !labels.Equals(b.GetLabels(), a.GetLabels()) {
		return true
	}
	switch before := before.(type) {
	case *corev1.Node:
		after := after.(*corev1.Node)
		return !slices.Equal(before.Status.Addresses, after.Status.Addresses) || announce.NodeOf(before).Differs(announce.NodeOf(after))
	case *corev1.Secret:
		return string(before.Data[corev1.BasicAuthPasswordKey]) != string(after.(*corev1.Secret).Data[corev1.BasicAuthPasswordKey])
	}
	// An object that was deleted and created again while the watch was interrupted begins with the same generation.
	return b.GetUID() != a.GetUID() || b.GetGeneration() != a.GetGeneration()
}

// sameLabels reports whether an object existed before and after a change with the same labels.
func sameLabels(before, after any) bool {
	return before != nil && after != nil &&
		labels.Equals(before.(metav1.Object).GetLabels(), after.(metav1.Object).GetLabels())
}

// strip is like the function strip, but keeps the annotations of this node, because BGPPeers refer to them.
func (in *inputs) strip(o any) (any, error) {
	if n, ok := o.(*corev1.Node); ok && n.Name == in.node {
		own := n.Annotations
		defer func() { n.Annotations = own }()
	}
	return strip(o)
}

// strip removes the fields that no decision needs.
func strip(o any) (any, error) {
	m, err := meta.Accessor(o)
	if err != nil {
		return o, nil // A tombstone.
	}
	m.SetManagedFields(nil)
	switch o := o.(type) {
	case *corev1.Service:
		maps.DeleteFunc(o.Annotations, func(key, _ string) bool { return herald.OverrideAnnotations[key] == "" })
		if len(o.Annotations) == 0 {
			o.Annotations = nil
		}
		o.Spec.Ports, o.Spec.Selector = nil, nil
	case *corev1.Node:
		o.Annotations = nil
		ready := slices.DeleteFunc(o.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type != corev1.NodeReady })
		for i := range ready {
			ready[i] = corev1.NodeCondition{Type: ready[i].Type, Status: ready[i].Status}
		}
		o.Status = corev1.NodeStatus{Addresses: o.Status.Addresses, Conditions: ready}
	case *corev1.Namespace:
		o.Annotations = nil
	case *discoveryv1.EndpointSlice:
		o.Annotations, o.Ports = nil, nil
		for i := range o.Endpoints {
			e := &o.Endpoints[i]
			conditions := discoveryv1.EndpointConditions{Ready: e.Conditions.Ready}
			if announce.Terminating(e.Conditions) {
				conditions = e.Conditions
			}
			o.Endpoints[i] = discoveryv1.Endpoint{NodeName: e.NodeName, Conditions: conditions}
		}
	}
	return o, nil
}
