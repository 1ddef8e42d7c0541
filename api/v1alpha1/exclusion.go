package v1alpha1

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// What ExclusionOf returns of a node that has the label, and of one that is being deleted.
const (
	ExclusionByLabel    = "the label " + corev1.LabelNodeExcludeBalancers
	ExclusionByDeletion = "the deletion of the Node"
)

// drainTaints are the taints of a node that is being shut down or removed. A node that is only cordoned goes on serving.
var drainTaints = []string{
	corev1.TaintNodeOutOfService, "node.cloudprovider.kubernetes.io/shutdown", "ToBeDeletedByClusterAutoscaler",
}

// ExclusionOf returns by what a node is excluded from announcing anything, for messages: by the label, by "the taint KEY", or by the
// deletion of the Node. It is empty if the node may announce.
func ExclusionOf(o *corev1.Node) string {
	if _, labelled := o.Labels[corev1.LabelNodeExcludeBalancers]; labelled {
		return ExclusionByLabel
	}
	for _, t := range o.Spec.Taints {
		if slices.Contains(drainTaints, t.Key) {
			return "the taint " + t.Key
		}
	}
	if o.DeletionTimestamp != nil {
		return ExclusionByDeletion
	}
	return ""
}
