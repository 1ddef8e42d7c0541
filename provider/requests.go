package provider

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/heraldlb/herald/ipam"
)

// requests translates Services into requests, with the labels and quotas of their namespaces.
type requests struct {
	namespaces corelisters.NamespaceLister
	api        typedcorev1.NamespacesGetter
	// quota is the quota of namespaces that set none themselves.
	quota ipam.Limits
	// grants are the addresses that other systems granted.
	grants *atomic.Pointer[Grants]
}

// of returns the request of a Service in a Namespace. The error is written for the Service's owner.
func (r requests) of(svc *corev1.Service, namespace *corev1.Namespace) (ipam.Request, error) {
	return r.with(r.grants.Load(), svc, namespace)
}

// with is like of, and uses these grants in place of the current ones.
func (r requests) with(grants *Grants, svc *corev1.Service, namespace *corev1.Namespace) (ipam.Request, error) {
	req, err := RequestOf(svc, namespace, r.quota)
	req.Granted, req.Claimed = grants.Of(req.Owner), grants.Claimed(req.Owner)
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

// elsewhere returns the request for the addresses that another controller gave a Service in a Namespace. The error is written for
// the Service's owner.
func (r requests) elsewhere(svc *corev1.Service, namespace *corev1.Namespace) (ipam.Request, error) {
	return RequestElsewhere(svc, namespace, r.quota)
}

// quotaOf returns the limits of a namespace for all pools together.
func (r requests) quotaOf(name string) ipam.Limits {
	// Each Service that asks for an address gets the error.
	limits, _, _ := quotaOf(r.namespace(name), r.quota)
	return limits
}

// find returns the Namespace of that name; nil if there is none. The cache may not have a new Namespace yet, which may have a
// quota, so if it has none the API server is asked.
func (r requests) find(ctx context.Context, name string) (*corev1.Namespace, error) {
	if namespace := r.namespace(name); namespace != nil {
		return namespace, nil
	}
	// herald-ccm may list Namespaces, and may not get them.
	list, err := r.api.Namespaces().List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return nil, fmt.Errorf("read Namespace %s: %w", name, err)
	}
	at := slices.IndexFunc(list.Items, func(n corev1.Namespace) bool { return n.Name == name })
	if at < 0 {
		return nil, nil
	}
	return &list.Items[at], nil
}

// namespace returns the Namespace of that name in the cache; nil if there is none.
func (r requests) namespace(name string) *corev1.Namespace {
	namespace, err := r.namespaces.Get(name)
	if err != nil {
		return nil
	}
	return namespace
}
