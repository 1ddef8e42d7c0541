package migrate

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// byName is the advice for a selector of names.
const byName = "Herald has no selector of the names of Services: give them a label, and select that"

// ciliumServices splits a selector of Services into a selector of their labels and one of their namespaces. Cilium selects
// the namespace and the name by labels that the Services do not really have. ciliumServices fails for a selector of names.
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
