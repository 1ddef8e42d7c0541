package provider

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// TestAnAddressCoolsDownWhileAServiceStillHasIt: kube-proxy forwards an address to each Service that has it in its status, whoever
// serves that Service.
func TestAnAddressCoolsDownWhileAServiceStillHasIt(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public(func(o *herald.IPPool) { o.Spec.ReuseDelay = &metav1.Duration{} }))
	web := service("web", four)
	if _, err := w.serve(web); err != nil {
		t.Fatal(err)
	}
	other := "example.com/other" // Nobody can set the class of an existing Service. So a flag of herald-ccm has changed.
	web.Spec.LoadBalancerClass = &other
	w.put(web)
	a := Carried(web)[0]
	if err := w.records.release(t.Context(), a, owner(web), always); err != nil {
		t.Fatal(err)
	}
	w.reconcile()
	w.recordsAre("198.51.100.0 public default/web released")
	if got, err := w.serve(service("mail", four)); err != nil || !slices.Equal(got, []string{"198.51.100.1"}) {
		t.Errorf("another Service: %v (%v)", got, err)
	}
	web.Status = corev1.ServiceStatus{}
	w.put(web)
	w.changes.queue.Add("198.51.100.0")
	w.reconcile()
	w.recordsAre("198.51.100.1 public default/mail")
}

// TestRecordsOfAnotherClassAreTakenOver: herald-ccm is started with another class. It serves Services without a class as before,
// and takes over their records.
func TestRecordsOfAnotherClassAreTakenOver(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public())
	web := service("web", four)
	if _, err := w.serve(web); err != nil {
		t.Fatal(err)
	}
	w.ledger.class, w.records.class = "example.com/new", "example.com/new"
	if got, err := w.serve(web); err != nil || !slices.Equal(got, []string{"198.51.100.0"}) {
		t.Errorf("%v (%v)", got, err)
	}
	rec, err := w.recordsAPI.get("198.51.100.0")
	if err != nil || rec.Spec.Class != "example.com/new" {
		t.Fatalf("the record is %+v (%v)", rec, err)
	}
	w.gone(web)
	w.recordsAre()
}

// TestAServiceThatIsDeletedInAMoveKeepsOneAddress: only the address that clients know is kept for its name.
func TestAServiceThatIsDeletedInAMoveKeepsOneAddress(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public(func(o *herald.IPPool) {
		o.Spec.ReclaimPolicy, o.Spec.ReuseDelay = herald.ReclaimRetain, &metav1.Duration{Duration: time.Hour}
	}))
	web := service("web", four)
	if _, err := w.serve(web); err != nil {
		t.Fatal(err)
	}
	web.Annotations[herald.AnnotationIPs] = "198.51.100.1"
	w.put(web)
	if _, err := w.loadBalancers.EnsureLoadBalancer(t.Context(), "", web, nil); err != nil {
		t.Fatal(err)
	}
	w.recordsAre("198.51.100.0 public default/web", "198.51.100.1 public default/web")
	w.gone(web)
	w.recordsAre("198.51.100.0 public ~default/web", "198.51.100.1 public default/web released")
}

// TestATenantCannotTakeAPort: a Service changes its ports so that it has one of a Service of another namespace on the shared
// address. It loses the address, whatever else it says, since kube-proxy would send it that Service's traffic.
func TestATenantCannotTakeAPort(t *testing.T) {
	sharing := func(namespace string, port int32) *corev1.Service {
		svc := service(namespace, four)
		svc.Namespace, svc.Annotations[herald.AnnotationSharingKey] = namespace, "k"
		svc.Spec.Ports = []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: port}}
		return svc
	}
	for _, c := range []struct {
		name   string
		change func(thief *corev1.Service)
		served bool
	}{
		{"the port alone", func(*corev1.Service) {}, true},
		{"and the key", func(thief *corev1.Service) { thief.Annotations[herald.AnnotationSharingKey] = "other" }, true},
		{"and shares no more", func(thief *corev1.Service) { delete(thief.Annotations, herald.AnnotationSharingKey) }, true},
		{"and an annotation that is not valid", func(thief *corev1.Service) { thief.Annotations[herald.AnnotationReclaim] = "x" }, false},
		{"and a pool that does not exist", func(thief *corev1.Service) { thief.Annotations[herald.AnnotationPool] = "none" }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.namespace("red")
			w.pool("public", public(func(o *herald.IPPool) { o.Spec.ShareAcrossNamespaces = true }))
			victim, thief, friend := sharing("default", 443), sharing("red", 8080), sharing("red", 8081)
			friend.Name, friend.UID = "friend", "friend"
			for _, svc := range []*corev1.Service{friend, thief, victim} {
				if got, err := w.serve(svc); err != nil || !slices.Equal(got, []string{"198.51.100.0"}) {
					t.Fatalf("%s: %v (%v)", svc.Name, got, err)
				}
			}
			w.eventsSay()
			thief.Spec.Ports[0].Port = 443
			c.change(thief)
			if got, err := w.serve(thief); err != nil || len(got) > 0 {
				t.Errorf("it has %v (%v)", got, err)
			}
			w.eventsSay("a Service of another namespace shares 198.51.100.0 and has one of the ports of this Service")
			if got, err := w.serve(thief); (err == nil) != c.served || c.served && !slices.Equal(got, []string{"198.51.100.1"}) {
				t.Errorf("afterwards it has %v (%v)", got, err)
			}
			if got, err := w.serve(victim); err != nil || !slices.Equal(got, []string{"198.51.100.0"}) {
				t.Errorf("the other Service has %v (%v)", got, err)
			}
			if rec, err := w.recordsAPI.get("198.51.100.0"); err != nil || len(rec.Spec.Owners) != 2 {
				t.Errorf("the record is %+v (%v)", rec, err)
			}
		})
	}
}

// TestARefusalLeavesWhatWaitingHasGiven has an address that becomes free after the decision about a Service, and before the Service is
// refused. waiting gives it to the Service in between, so a younger Service does not get it.
func TestARefusalLeavesWhatWaitingHasGiven(t *testing.T) {
	for name, moves := range map[string]bool{"a new Service": false, "a Service that moves": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.pool("public", func(o *herald.IPPool) {
				o.Spec.Addresses, o.Spec.ReuseDelay = []herald.AddressRange{"198.51.100.0"}, &metav1.Duration{}
			})
			w.pool("other", func(o *herald.IPPool) { o.Spec.Addresses = []herald.AddressRange{"203.0.113.0"} })
			web, holder := service("web", four), service("holder", four)
			holder.Annotations[herald.AnnotationPool] = "public"
			if moves {
				web.Annotations[herald.AnnotationPool] = "other"
				if _, err := w.serve(web); err != nil {
					t.Fatal(err)
				}
			}
			web.Annotations[herald.AnnotationPool] = "public"
			if _, err := w.serve(holder); err != nil {
				t.Fatal(err)
			}
			w.put(web)
			w.waiting.add(web)
			before := w.ledger.heldBy(owner(web))
			req, err := w.loadBalancers.requests.of(web, w.loadBalancers.requests.namespace("default"))
			if err != nil {
				t.Fatal(err)
			}
			_, _, why := w.ledger.decide(web, req, time.Now())
			if why == nil {
				t.Fatal("there is an address for it")
			}
			w.gone(holder)
			w.waiting.serve()
			if !slices.Contains(w.queued.names, "web") {
				t.Fatalf("synced are %q", w.queued.names)
			}
			if err := w.loadBalancers.refuse(t.Context(), web, before, why, why); err == nil {
				t.Error("it is not refused")
			}
			if held := w.ledger.heldBy(owner(web)); !contains(held, addresses("198.51.100.0")[0]) {
				t.Errorf("it holds %v", held)
			}
			younger := service("younger", four)
			younger.Annotations[herald.AnnotationPool] = "public"
			if got, err := w.serve(younger); err == nil {
				t.Errorf("a younger Service gets %v", got)
			}
			if got, err := w.serve(web); err != nil || !slices.Equal(got, []string{"198.51.100.0"}) {
				t.Errorf("%v (%v)", got, err)
			}
		})
	}
}
