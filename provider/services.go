package provider

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	servicehelper "k8s.io/cloud-provider/service/helpers"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"

	"github.com/heraldlb/herald/ipam"
)

// services finds Services, and knows which of them are ours. It reads the cache or, where the cache is not
// enough, the API server.
type services struct {
	cached    corelisters.ServiceLister
	api       typedcorev1.ServicesGetter
	class     string
	classless bool
}

// serves reports whether a Service is of type LoadBalancer and of our class.
func (s *services) serves(svc *corev1.Service) bool { return Serves(svc, s.class, s.classless) }

// wants reports whether a Service must have addresses of ours.
func (s *services) wants(svc *corev1.Service) bool {
	return svc.DeletionTimestamp == nil && s.serves(svc)
}

// elsewhere reports whether another controller gives a Service its addresses.
func (s *services) elsewhere(svc *corev1.Service) bool { return Elsewhere(svc, s.class) }

// ofAnother reports whether a Service is of type LoadBalancer and not served by us. Unlike elsewhere, this includes a Service without a
// class, if we serve none of those.
func (s *services) ofAnother(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer && !s.serves(svc)
}

// mayHold reports whether a Service can hold addresses that we record: one that must have addresses of ours, or one to which
// another controller gives addresses.
func (s *services) mayHold(svc *corev1.Service) bool {
	return s.wants(svc) || svc.DeletionTimestamp == nil && s.elsewhere(svc)
}

// of returns the Service of an owner, or nil if it is gone. A Service of the same name with another UID is
// another Service.
func (s *services) of(o ipam.Owner) *corev1.Service {
	svc := s.named(o.Namespace, o.Name)
	if svc == nil || string(svc.UID) != o.UID {
		return nil
	}
	return svc
}

// named returns the Service of that name; nil if there is none.
func (s *services) named(namespace, name string) *corev1.Service {
	svc, err := s.cached.Services(namespace).Get(name)
	if err != nil {
		return nil
	}
	return svc
}

// fetch reads a Service from the API server; nil if there is none of that name.
func (s *services) fetch(ctx context.Context, namespace, name string) (*corev1.Service, error) {
	svc, err := s.api.Services(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return svc, err
}

// fieldManager is the name under which the API server notes what we write into Services.
const fieldManager = "herald-ccm"

// finalizerPath is the path of the finalizer in the managed fields of a Service.
var finalizerPath = fieldpath.MakePathOrDie("metadata", "finalizers", value.NewValueInterface(servicehelper.LoadBalancerCleanupFinalizer))

// wroteFinalizer reports whether the finalizer of a Service is ours: we wrote it, and nobody else did.
func wroteFinalizer(svc *corev1.Service) bool {
	ours := false
	for _, entry := range svc.ManagedFields {
		var fields fieldpath.Set
		if entry.FieldsV1 == nil || fields.FromJSON(entry.FieldsV1.GetRawReader()) != nil || !fields.Has(finalizerPath) {
			continue
		}
		if entry.Manager != fieldManager {
			return false
		}
		ours = true
	}
	return ours
}

// formerlyServed reports whether a Service is no longer of type LoadBalancer, and has the finalizer of a controller that
// served it.
func formerlyServed(svc *corev1.Service) bool {
	return svc.Spec.Type != corev1.ServiceTypeLoadBalancer && servicehelper.HasLBFinalizer(svc)
}

// removeFinalizer removes our finalizer from a Service of another controller, which was ours before. That controller may
// use a finalizer of the same name. It then stays. foreign reports whether a herald-ccm of another class gave the Service an
// address; it is asked after the Service was read, because that herald-ccm writes the record before the finalizer.
func (s *services) removeFinalizer(ctx context.Context, svc *corev1.Service, foreign func(*corev1.Service) (bool, error)) error {
	if !servicehelper.HasLBFinalizer(svc) {
		return nil
	}
	now, err := s.fetch(ctx, svc.Namespace, svc.Name)
	if err != nil || now == nil || now.UID != svc.UID || !s.ofAnother(now) || !wroteFinalizer(now) {
		return err
	}
	if stays, err := foreign(now); stays || err != nil {
		return err
	}
	others := slices.DeleteFunc(slices.Clone(now.Finalizers), func(f string) bool { return f == servicehelper.LoadBalancerCleanupFinalizer })
	// The resource version makes the API server refuse the patch if the Service has changed.
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": now.ResourceVersion, "finalizers": others}})
	if err != nil {
		return err
	}
	_, err = s.api.Services(now.Namespace).Patch(ctx, now.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager}, "status")
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// list returns the Services that want addresses of ours, the oldest first.
func (s *services) list() []*corev1.Service {
	all, _ := s.cached.List(labels.Everything()) // A lister of a cache does not fail.
	return oldestFirst(all, s.wants)
}

// listElsewhere returns the Services to which another controller gives addresses, the oldest first.
func (s *services) listElsewhere() []*corev1.Service {
	all, _ := s.cached.List(labels.Everything())
	return oldestFirst(all, s.elsewhere)
}

// listOfAnother returns the Services of type LoadBalancer that we do not serve, the oldest first.
func (s *services) listOfAnother() []*corev1.Service {
	all, _ := s.cached.List(labels.Everything())
	return oldestFirst(all, s.ofAnother)
}

// pending counts the Services that want addresses of ours and have none.
func (s *services) pending() (n int) {
	all, _ := s.cached.List(labels.Everything())
	for _, svc := range all {
		if s.wants(svc) && len(svc.Status.LoadBalancer.Ingress) == 0 {
			n++
		}
	}
	return n
}

// oldestFirst returns the Services for which keep returns true, the oldest first.
func oldestFirst(all []*corev1.Service, keep func(*corev1.Service) bool) []*corev1.Service {
	all = slices.DeleteFunc(all, func(svc *corev1.Service) bool { return !keep(svc) })
	slices.SortFunc(all, func(x, y *corev1.Service) int { return Older(x, y) })
	return all
}

// Older compares objects by age, the older first. It compares objects that were created in the same second by name.
func Older(x, y metav1.Object) int {
	tx, ty := x.GetCreationTimestamp(), y.GetCreationTimestamp()
	return cmp.Or(tx.Compare(ty.Time), strings.Compare(x.GetNamespace(), y.GetNamespace()), strings.Compare(x.GetName(), y.GetName()))
}
