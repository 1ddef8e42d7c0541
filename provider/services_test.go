package provider

import (
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	cloudprovider "k8s.io/cloud-provider"
	servicehelper "k8s.io/cloud-provider/service/helpers"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// finalizerWriters has who may have written the finalizer of a Service, and whether we leave it to another controller.
var finalizerWriters = []struct {
	name    string
	writers []string
	stays   bool
}{
	{"we wrote it", []string{fieldManager}, false},
	{"another controller wrote it", []string{"another"}, true},
	{"both wrote it", []string{fieldManager, "another"}, true},
	{"nobody knows who wrote it", nil, true},
}

// writtenBy returns the managed fields of a Service whose finalizer these managers wrote.
func writtenBy(managers ...string) (entries []metav1.ManagedFieldsEntry) {
	for _, m := range managers {
		entries = append(entries, metav1.ManagedFieldsEntry{
			Manager: m, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1", Subresource: "status",
			FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:finalizers":{".":{},"v:\"service.kubernetes.io/load-balancer-cleanup\"":{}}}}`),
		})
	}
	return entries
}

// TestTheFinalizerOfAServiceThatBecameAnothers is about a Service that we served and that is of another class now. Its
// finalizer must go if it is ours, or the Service could not be deleted. It must stay if the other controller uses it.
func TestTheFinalizerOfAServiceThatBecameAnothers(t *testing.T) {
	for _, c := range finalizerWriters {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.pool("public", func(p *herald.IPPool) { p.Spec.Addresses = []herald.AddressRange{"198.51.100.0/31"} })
			svc := service("web", wish{families: []corev1.IPFamily{v4}})
			if _, err := w.serve(svc); err != nil {
				t.Fatal(err)
			}
			now, class := svc.DeepCopy(), "example.com/another"
			now.Spec.LoadBalancerClass, now.Status = &class, corev1.ServiceStatus{}
			now.Finalizers, now.ManagedFields = append(now.Finalizers, foreign), writtenBy(c.writers...)
			w.see(now)
			got, err := w.kube.CoreV1().Services(now.Namespace).Get(t.Context(), now.Name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if servicehelper.HasLBFinalizer(got) != c.stays || !slices.Contains(got.Finalizers, foreign) {
				t.Errorf("finalizers %v; want ours: %v", got.Finalizers, c.stays)
			}
			w.recordsAre()
		})
	}
}

// TestTheFinalizerThatAnotherHeraldJustWroteStays has a Service whose record the cache does not have yet.
func TestTheFinalizerThatAnotherHeraldJustWroteStays(t *testing.T) {
	w := newWorld(t)
	gw := gateway("gw", "198.51.100.0")
	gw.Finalizers, gw.ManagedFields = []string{servicehelper.LoadBalancerCleanupFinalizer}, writtenBy(fieldManager)
	if _, err := w.recordsAPI.put(recordOf(given("198.51.100.0", "public", "gw"), gateways, ownerEntry(gw))); err != nil {
		t.Fatal(err)
	}
	w.records.cache = cache.NewIndexer(cache.MetaNamespaceKeyFunc, recordIndexers)
	w.see(gw)
	if got := w.written(); len(got) > 0 {
		t.Errorf("the herald-ccm of another class sees %q of its Service", got)
	}
}

// TestTheFinalizerOfAServiceThatIsNoLoadBalancerAnyMore starts a herald-ccm that serves no Services without a class. While none
// ran, a Service that was ours became one of type ClusterIP and thus lost its class. Its address was released before, and its
// finalizer was not removed.
func TestTheFinalizerOfAServiceThatIsNoLoadBalancerAnyMore(t *testing.T) {
	for _, c := range finalizerWriters {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.projection.classless = false
			svc := service("web", four)
			svc.Spec.Type, svc.Finalizers, svc.ManagedFields = corev1.ServiceTypeClusterIP, []string{servicehelper.LoadBalancerCleanupFinalizer}, writtenBy(c.writers...)
			cached, err := leanService(Foreign{})(svc)
			if err != nil {
				t.Fatal(err)
			}
			w.projection.OnAdd(cached, true)
			if left := len(w.queued.names) == 0; left != c.stays {
				t.Errorf("the service controller, which removes the finalizer, was given %v", w.queued.names)
			}
		})
	}
}

// TestNothingIsWrittenForAServiceThatChanges is about a Service that is deleted or becomes another's while it is served.
func TestNothingIsWrittenForAServiceThatChanges(t *testing.T) {
	class := "example.com/another"
	for name, change := range map[string]func(*world, *corev1.Service){
		"it is gone":      func(w *world, svc *corev1.Service) { _ = w.Provider.projection.real.Informer().GetStore().Delete(svc) },
		"it is another":   func(w *world, svc *corev1.Service) { svc.UID = "younger"; w.put(svc) },
		"it is deleted":   func(w *world, svc *corev1.Service) { deleted(svc); w.put(svc) },
		"it is another's": func(w *world, svc *corev1.Service) { svc.Spec.LoadBalancerClass = &class; w.put(svc) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.pool("public", func(p *herald.IPPool) { p.Spec.Addresses = []herald.AddressRange{"198.51.100.0/31"} })
			svc := service("web", wish{families: []corev1.IPFamily{v4}})
			w.put(svc)
			change(w, svc.DeepCopy())
			if status, err := w.loadBalancers.EnsureLoadBalancer(t.Context(), "", svc, nil); err != cloudprovider.ImplementedElsewhere { //nolint:errorlint // The service controller compares it so, too.
				t.Errorf("%v, %v: the service controller writes this", status, err)
			}
		})
	}
}

// TestAPartOfAServiceIsEnough gives the load balancers what the service controller reads, which is only a part of a Service.
func TestAPartOfAServiceIsEnough(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public(func(o *herald.IPPool) { o.Spec.AllowRetain = true }))
	svc := service("web", wish{families: []corev1.IPFamily{v4}, ips: "198.51.100.2"})
	svc.Annotations[herald.AnnotationReclaim] = string(herald.ReclaimRetain)
	svc.Spec.Ports = []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: 80}}
	w.put(svc)
	part, err := w.projection.Lister().Services("default").Get("web")
	if err != nil {
		t.Fatal(err)
	}
	if len(part.Annotations) > 1 || part.Spec.Ports != nil {
		t.Errorf("the service controller keeps %v", part)
	}
	given, err := w.loadBalancers.EnsureLoadBalancer(t.Context(), "", part, nil)
	if err != nil || len(given.Ingress) != 1 || given.Ingress[0].IP != "198.51.100.2" {
		t.Errorf("it was given %v (%v), and asked for 198.51.100.2", given, err)
	}
	_ = w.projection.real.Informer().GetStore().Delete(svc)
	if err := w.loadBalancers.EnsureLoadBalancerDeleted(t.Context(), "", part); err != nil {
		t.Error(err)
	}
	w.recordsAre("198.51.100.2 public ~default/web")
}

// TestAServiceThatReplacesAnotherUnseen is about an informer that reports the deletion of a Service and the creation of another
// one of its name as one update.
func TestAServiceThatReplacesAnotherUnseen(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public(announcing))
	before, after := gateway("gw", "198.51.100.0"), gateway("gw", "198.51.100.1")
	w.see(before)
	after.UID, after.ResourceVersion = "younger", "2"
	w.put(after)
	w.projection.OnUpdate(before, after)
	w.others.handler().OnUpdate(before, after)
	w.settle()
	w.recordsAre("198.51.100.1 public default/gw")
}

// TestAGatewayThatBecomesAnotherTypeLetsGo is about a Service of another class that is no longer of type LoadBalancer.
func TestAGatewayThatBecomesAnotherTypeLetsGo(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public(announcing))
	was := gateway("gw", "198.51.100.0")
	w.see(was)
	is := gateway("gw")
	is.Spec.Type, is.Spec.LoadBalancerClass = corev1.ServiceTypeClusterIP, nil
	w.put(is)
	w.others.handler().OnUpdate(was, is)
	w.settle()
	w.recordsAre()
}

// TestAReservationOutlivesAnEmptyStatus is about an address that was reserved by hand for a Service of another class.
func TestAReservationOutlivesAnEmptyStatus(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public(announcing))
	w.reserve("198.51.100.0", herald.AllocationOwner{Namespace: "default", Name: "gw"})
	w.see(gateway("gw", "198.51.100.0"))
	w.recordsAre("198.51.100.0 public default/gw")
	w.see(gateway("gw"))
	w.recordsAre("198.51.100.0 public ~default/gw")
}

// TestARecordThatAnotherControllerTookOverIsItsOwn is about a release that is late.
func TestARecordThatAnotherControllerTookOverIsItsOwn(t *testing.T) {
	w := newWorld(t)
	w.pool("public", func(p *herald.IPPool) { p.Spec.Addresses = []herald.AddressRange{"198.51.100.0/31"} })
	svc := service("web", wish{families: []corev1.IPFamily{v4}})
	if _, err := w.serve(svc); err != nil {
		t.Fatal(err)
	}
	rec, err := w.recordsAPI.get("198.51.100.0")
	if err != nil {
		t.Fatal(err)
	}
	rec = rec.DeepCopy()
	rec.Spec.Class = "example.com/another"
	if _, err := w.recordsAPI.put(rec); err != nil {
		t.Fatal(err)
	}
	if err := w.records.release(t.Context(), netip.MustParseAddr("198.51.100.0"), owner(svc), always); err != nil {
		t.Fatal(err)
	}
	w.recordsAre("198.51.100.0 public default/web")
}

// TestAServiceThatIsServedWhileItIsTriedIsNotServedAgain has a round through the waiting Services in which one is served. Its status may be
// in the cache before the round comes to it, or after.
func TestAServiceThatIsServedWhileItIsTriedIsNotServedAgain(t *testing.T) {
	for name, serve := range map[string]func(w *world, svc *corev1.Service) error{
		"and has its status": func(w *world, svc *corev1.Service) error {
			svc.ResourceVersion = "2"
			_, err := w.serve(svc)
			return err
		},
		"and does not have its status yet": func(w *world, svc *corev1.Service) error {
			_, err := w.loadBalancers.EnsureLoadBalancer(t.Context(), "", svc, nil)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			svc := service("web", four)
			svc.ResourceVersion = "1"
			if _, err := w.serve(svc); err == nil {
				t.Fatal("there is no pool, and no error")
			}
			w.pool("public", public())
			namespaces, round := w.waiting.requests.namespaces, false
			w.waiting.requests.namespaces = interrupted{namespaces, func() {
				if round {
					return
				}
				round = true
				if err := serve(w, svc.DeepCopy()); err != nil {
					t.Error(err)
				}
			}}
			w.waiting.serve()
			if w.recordsAre("198.51.100.0 public default/web"); !round || len(w.queued.names) > 0 {
				t.Errorf("%v are served again", w.queued.names)
			}
		})
	}
}

// TestOnlyTheServiceItselfStopsWaiting has two Services of one name, one after the other.
func TestOnlyTheServiceItselfStopsWaiting(t *testing.T) {
	w := newWorld(t)
	older, younger := service("web", four), service("web", four)
	younger.UID = "younger"
	w.waiting.add(younger)
	w.waiting.forget(older)
	if len(w.waiting.uids) != 1 {
		t.Error("the younger one does not wait any more")
	}
	w.waiting.forget(younger)
	if len(w.waiting.uids) != 0 {
		t.Error("it still waits")
	}
}
