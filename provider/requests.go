package provider

import (
	corev1 "k8s.io/api/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/heraldlb/herald/ipam"
)

// requests translates Services into requests, with what their namespaces say.
type requests struct {
	namespaces corelisters.NamespaceLister
	// quota is that of namespaces without one of their own.
	quota ipam.Limits
}

// of returns what a Service asks for. The error is written for the Service's owner.
func (r requests) of(svc *corev1.Service) (ipam.Request, error) {
	return RequestOf(svc, r.namespace(svc.Namespace), r.quota)
}

// withoutQuota returns what a Service asks for, but for the quota of its namespace: what is in use before the start stays
// in use.
func (r requests) withoutQuota(svc *corev1.Service) (ipam.Request, error) {
	req, err := translate(svc)
	if namespace := r.namespace(svc.Namespace); namespace != nil {
		req.Subject.NamespaceLabels = namespace.Labels
	}
	return req, err
}

// quotaOf is what a namespace may hold of all pools together.
func (r requests) quotaOf(name string) ipam.Limits {
	// What is wrong with it is told to each Service that it concerns.
	limits, _, _ := quotaOf(r.namespace(name), r.quota)
	return limits
}

// namespace returns the Namespace of that name; nil if there is none.
func (r requests) namespace(name string) *corev1.Namespace {
	namespace, err := r.namespaces.Get(name)
	if err != nil {
		return nil
	}
	return namespace
}
