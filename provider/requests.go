package provider

import (
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/heraldlb/herald/ipam"
)

// requests translates Services into requests, with the labels and quotas of their namespaces.
type requests struct {
	namespaces corelisters.NamespaceLister
	// quota is the quota of namespaces that set none themselves.
	quota ipam.Limits
	// grants are the addresses that other systems granted.
	grants *atomic.Pointer[Grants]
}

// of returns the request of a Service. The error is written for the Service's owner.
func (r requests) of(svc *corev1.Service) (ipam.Request, error) {
	req, err := RequestOf(svc, r.namespace(svc.Namespace), r.quota)
	req.Granted = r.grants.Load().Of(req.Owner)
	return req, err
}

// withoutQuota returns the request of a Service without the quota of its namespace: addresses that were in use before the
// start stay in use.
func (r requests) withoutQuota(svc *corev1.Service) (ipam.Request, error) {
	req, err := translate(svc)
	if namespace := r.namespace(svc.Namespace); namespace != nil {
		req.Subject.NamespaceLabels = namespace.Labels
	}
	return req, err
}

// claim returns the request for the addresses that another controller gave a Service. The error is written for the Service's
// owner.
func (r requests) claim(svc *corev1.Service) (ipam.Request, error) {
	return ClaimOf(svc, r.namespace(svc.Namespace), r.quota)
}

// quotaOf returns the limits of a namespace for all pools together.
func (r requests) quotaOf(name string) ipam.Limits {
	// Each Service that asks for an address gets the error.
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
