package provider

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	servicehelper "k8s.io/cloud-provider/service/helpers"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// TestTheFinalizerOfAServiceThatBecameAnothers is about a Service that we served and that is of another class now. Its
// finalizer must go if it is ours, or the Service could not be deleted. It must stay if the other controller uses it.
func TestTheFinalizerOfAServiceThatBecameAnothers(t *testing.T) {
	const another = "another"
	writtenBy := func(managers ...string) (entries []metav1.ManagedFieldsEntry) {
		for _, m := range managers {
			entries = append(entries, metav1.ManagedFieldsEntry{
				Manager: m, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1", Subresource: "status",
				FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:finalizers":{".":{},"v:\"service.kubernetes.io/load-balancer-cleanup\"":{}}}}`),
			})
		}
		return entries
	}
	for _, c := range []struct {
		name    string
		writers []string
		stays   bool
	}{
		{"we wrote it", []string{fieldManager}, false},
		{"the other controller wrote it", []string{another}, true},
		{"both wrote it", []string{fieldManager, another}, true},
		{"nobody knows who wrote it", nil, true},
	} {
		for path, clean := range map[string]func(*world, *corev1.Service) error{
			"when it changes": func(w *world, was *corev1.Service) error {
				return w.loadBalancers.EnsureLoadBalancerDeleted(w.Context(), "", was)
			},
			"at the start": func(w *world, _ *corev1.Service) error {
				return w.reconciler.reconcile(w.Context(), "198.51.100.0")
			},
		} {
			t.Run(c.name+", "+path, func(t *testing.T) {
				w := newWorld(t)
				w.pool("public", func(p *herald.IPPool) { p.Spec.Addresses = []herald.AddressRange{"198.51.100.0/31"} })
				svc := service("web", wish{families: []corev1.IPFamily{v4}})
				if _, err := w.serve(svc); err != nil {
					t.Fatal(err)
				}
				now, class := svc.DeepCopy(), "example.com/another"
				now.Spec.LoadBalancerClass, now.Status = &class, corev1.ServiceStatus{}
				now.Finalizers, now.ManagedFields = append(now.Finalizers, foreign), writtenBy(c.writers...)
				w.put(now)
				if err := clean(w, svc); err != nil {
					t.Fatal(err)
				}
				got, err := w.kube.CoreV1().Services(now.Namespace).Get(t.Context(), now.Name, metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if servicehelper.HasLBFinalizer(got) != c.stays || !slices.Contains(got.Finalizers, foreign) {
					t.Errorf("finalizers %v; want ours: %v", got.Finalizers, c.stays)
				}
				if err := w.others.sync(t.Context(), serviceName(now)); err != nil {
					t.Fatal(err)
				}
				w.recordsAre("198.51.100.0 public default/web released")
			})
		}
	}
}
