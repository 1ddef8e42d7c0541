package provider

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

const gateways = "gateway.nginx.org/nginx-gateway-controller"

// announcing returns an edit that makes a pool admit the class of gateways.
func announcing(o *herald.IPPool) { o.Spec.AnnounceClasses = []string{gateways} }

// gateway returns a Service whose controller gave it these addresses.
func gateway(name string, given ...string) *corev1.Service {
	svc, class := service(name, four), gateways
	svc.Spec.LoadBalancerClass = &class
	for _, a := range given {
		svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a})
	}
	return svc
}

// see makes the provider see this version of a Service, and act on it.
func (w *world) see(svc *corev1.Service) {
	w.Helper()
	w.put(svc)
	w.others.handler().OnAdd(svc, false)
	w.settle()
}

// settle makes the provider process the queues of records and of Services of other classes until both are empty.
func (w *world) settle() {
	w.Helper()
	for {
		w.reconcile()
		if w.others.queue.Len() == 0 {
			return
		}
		name, _ := w.others.queue.Get()
		if err := w.others.sync(w.Context(), name); err != nil {
			w.Fatal(err)
		}
		w.others.queue.Done(name)
	}
}

// repool edits a pool and has everything checked that an edit concerns.
func (w *world) repool(name string, edit func(*herald.IPPool)) {
	w.Helper()
	w.pool(name, edit)
	<-w.changes.classes
	for _, svc := range w.Provider.services.listElsewhere() {
		w.others.add(svc)
	}
	w.settle()
}

// reserve writes a record by hand.
func (w *world) reserve(address string, owners ...herald.AllocationOwner) {
	w.Helper()
	rec := recordOf(ipam.Allocation{Address: netip.MustParseAddr(address)}, "", herald.AllocationOwner{})
	rec.Spec.Owners = owners
	if _, err := w.recordsAPI.put(rec); err != nil {
		w.Fatal(err)
	}
	w.settle()
}

// written lists the writes of Services.
func (w *world) written() (verbs []string) {
	for _, a := range w.kube.Actions() {
		if a.GetVerb() != "get" {
			verbs = append(verbs, a.GetVerb()+" "+a.GetResource().Resource+" "+a.GetSubresource())
		}
	}
	return verbs
}

// TestAddressesOfAnotherController has a Service whose controller gave it addresses. Those that are refused have no record,
// and an event says why.
func TestAddressesOfAnotherController(t *testing.T) {
	quota := func(n int64) func(*herald.IPPool) {
		return func(o *herald.IPPool) { o.Spec.Quota = &herald.AddressQuota{IPv4: &n} }
	}
	named := func(o *herald.IPPool) { no := false; o.Spec.AutoAssign = &no }
	for _, c := range []struct {
		name    string
		pool    func(*herald.IPPool)
		before  func(*world)
		svc     *corev1.Service
		records []string
		says    []string
	}{
		{"in a pool of its class", public(announcing), nil, gateway("gw", "198.51.100.2"), []string{"198.51.100.2 public default/gw"}, nil},
		{"in a pool that Herald gives nothing of unasked", public(announcing, named), nil, gateway("gw", "198.51.100.2"), []string{"198.51.100.2 public default/gw"}, nil},
		{"several, and one of them twice", public(announcing), nil, gateway("gw", "198.51.100.2", "198.51.100.0", "198.51.100.2"),
			[]string{"198.51.100.0 public default/gw", "198.51.100.2 public default/gw"}, nil},
		{"none yet", public(announcing), nil, gateway("gw"), nil, nil},
		{"a class that no pool admits", public(), nil, gateway("gw", "198.51.100.2"), nil, nil},
		{"in a pool of another class", public(), func(w *world) {
			w.pool("gateways", func(o *herald.IPPool) { o.Spec.Addresses = []herald.AddressRange{"203.0.113.0/30"}; announcing(o) })
		}, gateway("gw", "198.51.100.2"), nil, []string{`gave 198.51.100.2, which is not announced: pool "public", which has the address, does not list class "` + gateways + `" in spec.announceClasses`}},
		{"one in no pool, and one in a pool", public(announcing), nil, gateway("gw", "192.0.2.1", "198.51.100.2"),
			[]string{"198.51.100.2 public default/gw"}, []string{"192.0.2.1, which is not announced: 192.0.2.1 is in no pool"}},
		{"excluded", public(announcing, func(o *herald.IPPool) { o.Spec.Exclude = []herald.AddressRange{"198.51.100.2"} }), nil, gateway("gw", "198.51.100.2"),
			nil, []string{"198.51.100.2 is in no pool"}},
		{"held by a Service of ours", public(announcing), func(w *world) { _, _ = w.serve(service("web", four)) }, gateway("gw", "198.51.100.0"),
			[]string{"198.51.100.0 public default/web"}, []string{"198.51.100.0 is held by default/web"}},
		{"held by another gateway", public(announcing), func(w *world) { w.see(gateway("first", "198.51.100.0")) }, gateway("gw", "198.51.100.0"),
			[]string{"198.51.100.0 public default/first"}, []string{"198.51.100.0 is held by default/first"}},
		{"reserved for nobody", public(announcing), func(w *world) { w.reserve("198.51.100.2") }, gateway("gw", "198.51.100.2"),
			[]string{"198.51.100.2 "}, []string{"198.51.100.2 is reserved", "kubectl delete ipallocation 198.51.100.2"}},
		{"reserved for another Service", public(announcing), func(w *world) { w.reserve("198.51.100.2", herald.AllocationOwner{Namespace: "default", Name: "db"}) },
			gateway("gw", "198.51.100.2"), []string{"198.51.100.2  ~default/db"}, []string{"198.51.100.2 is reserved for default/db"}},
		{"reserved for it", public(announcing), func(w *world) { w.reserve("198.51.100.2", herald.AllocationOwner{Namespace: "default", Name: "gw"}) },
			gateway("gw", "198.51.100.2"), []string{"198.51.100.2 public default/gw"}, nil},
		{"reserved for it, in a pool that does not admit the class", public(), func(w *world) {
			w.pool("gateways", func(o *herald.IPPool) { o.Spec.Addresses = []herald.AddressRange{"203.0.113.0/30"}; announcing(o) })
			w.reserve("198.51.100.2", herald.AllocationOwner{Namespace: "default", Name: "gw"})
		}, gateway("gw", "198.51.100.2"), []string{"198.51.100.2  ~default/gw"}, []string{"does not list class"}},
		{"the address of a node", public(announcing), func(w *world) {
			w.skip(map[netip.Addr]string{netip.MustParseAddr("198.51.100.2"): "an address of node n1"})
		}, gateway("gw", "198.51.100.2"), nil, []string{"198.51.100.2 is not given out (an address of node n1)"}},
		{"over the quota of the pool", public(announcing, quota(1)), nil, gateway("gw", "198.51.100.2", "198.51.100.3"),
			[]string{"198.51.100.2 public default/gw"}, []string{`198.51.100.3, which is not announced: namespace default holds 1 IPv4 addresses of pool "public", and its quota there is 1`}},
		{"of a namespace that the pool does not serve", public(announcing, func(o *herald.IPPool) { o.Spec.Namespaces = []string{"red"} }), nil, gateway("gw", "198.51.100.2"),
			nil, []string{`pool "public" does not serve this Service`}},
		{"of a disabled pool", public(announcing, func(o *herald.IPPool) { o.Spec.Disabled = true }), nil, gateway("gw", "198.51.100.2"), nil, []string{`pool "public" gives no new addresses`}},
		{"not forwarded by nodes", public(announcing), nil, func() *corev1.Service {
			svc, proxy := gateway("gw", "198.51.100.2"), corev1.LoadBalancerIPModeProxy
			svc.Status.LoadBalancer.Ingress[0].IPMode = &proxy
			return svc
		}(), nil, []string{`gives "198.51.100.2" the ipMode Proxy`}},
		{"it is being deleted", public(announcing), nil, func() *corev1.Service {
			svc, at := gateway("gw", "198.51.100.2"), metav1.Now()
			svc.DeletionTimestamp, svc.Finalizers = &at, []string{"example.com/theirs"}
			return svc
		}(), nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.pool("public", c.pool)
			if c.before != nil {
				c.before(w)
			}
			w.kube.ClearActions()
			w.see(c.svc)
			w.recordsAre(c.records...)
			w.eventsSay(c.says...)
			w.see(c.svc) // A second look repeats nothing.
			w.eventsSay()
			w.recordsAre(c.records...)
			if verbs := w.written(); len(verbs) > 0 {
				t.Errorf("herald-ccm wrote %v", verbs)
			}
			for _, name := range w.queued.names {
				if name == c.svc.Name {
					t.Error("the service controller was given a Service of another class")
				}
			}
		})
	}
}

// TestAddressesOfAnotherControllerAreReleased has default/gw with the recorded address 198.51.100.2.
func TestAddressesOfAnotherControllerAreReleased(t *testing.T) {
	for _, c := range []struct {
		name    string
		pool    func(*herald.IPPool)
		change  func(*world, *corev1.Service)
		records []string
		says    []string
	}{
		{"nothing happens", announcing, func(*world, *corev1.Service) {}, []string{"198.51.100.2 public default/gw"}, nil},
		{"its status loses the address", announcing, func(w *world, svc *corev1.Service) {
			svc.Status = corev1.ServiceStatus{}
			w.see(svc)
		}, []string{"198.51.100.2 public default/gw released"}, nil},
		{"its status has another address", announcing, func(w *world, svc *corev1.Service) {
			svc.Status.LoadBalancer.Ingress[0].IP = "198.51.100.1"
			w.see(svc)
		}, []string{"198.51.100.1 public default/gw", "198.51.100.2 public default/gw released"}, nil},
		{"the cache lags behind its status", announcing, func(w *world, svc *corev1.Service) {
			stale := svc.DeepCopy()
			stale.Status = corev1.ServiceStatus{}
			_ = w.services.Update(stale)
			w.others.add(stale)
			w.settle()
		}, []string{"198.51.100.2 public default/gw"}, nil},
		{"it is deleted", announcing, func(w *world, svc *corev1.Service) { w.gone(svc) }, []string{"198.51.100.2 public default/gw released"}, nil},
		{"it is deleted, and the pool retains", func(o *herald.IPPool) { announcing(o); o.Spec.ReclaimPolicy = herald.ReclaimRetain },
			func(w *world, svc *corev1.Service) { w.gone(svc) }, []string{"198.51.100.2 public ~default/gw"}, nil},
		{"another Service has its name, and the pool stops admitting the class meanwhile", announcing, func(w *world, svc *corev1.Service) {
			w.pool("public", func(o *herald.IPPool) { o.Spec.AnnounceClasses = nil })
			_ = w.services.Delete(svc)
			heir := svc.DeepCopy()
			heir.UID = "another"
			w.put(heir)
			w.changes.record(netip.MustParseAddr("198.51.100.2"))
			w.see(heir)
		}, []string{"198.51.100.2 public default/gw released"}, nil},
		{"the pool stops admitting the class", announcing, func(w *world, _ *corev1.Service) {
			w.repool("public", func(o *herald.IPPool) { o.Spec.AnnounceClasses = nil })
		}, []string{"198.51.100.2 public default/gw released"}, []string{"198.51.100.2, which is not announced: pool \"public\", which has the address, does not list class"}},
		{"the pool loses the address", announcing, func(w *world, _ *corev1.Service) {
			w.repool("public", func(o *herald.IPPool) { o.Spec.Addresses = []herald.AddressRange{"198.51.100.0/31"} })
		}, []string{"198.51.100.2 public default/gw released"}, []string{"198.51.100.2 is in no pool"}},
		{"the pool is disabled, and selects others", announcing, func(w *world, _ *corev1.Service) {
			w.repool("public", func(o *herald.IPPool) { o.Spec.Disabled, o.Spec.Namespaces = true, []string{"red"} })
		}, []string{"198.51.100.2 public default/gw"}, nil},
		{"the pool admits the class again while the address cools down", announcing, func(w *world, _ *corev1.Service) {
			w.repool("public", func(o *herald.IPPool) { o.Spec.AnnounceClasses = nil })
			w.repool("public", announcing)
		}, []string{"198.51.100.2 public default/gw"}, []string{"is not announced"}},
		{"its record is deleted by hand", announcing, func(w *world, _ *corev1.Service) {
			_ = w.recordsAPI.Delete(w.Context(), "198.51.100.2", metav1.DeleteOptions{})
			w.settle()
		}, []string{"198.51.100.2 public default/gw"}, nil},
		{"it is created again under its name", announcing, func(w *world, svc *corev1.Service) {
			again := svc.DeepCopy()
			again.UID = "again"
			w.see(again)
		}, []string{"198.51.100.2 public default/gw"}, nil},
		{"another wants its address while it cools down", announcing, func(w *world, svc *corev1.Service) {
			svc.Status = corev1.ServiceStatus{}
			w.see(svc)
			w.see(gateway("next", "198.51.100.2"))
		}, []string{"198.51.100.2 public default/gw released"}, []string{"198.51.100.2 was released by default/gw"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			hour := func(o *herald.IPPool) { o.Spec.ReuseDelay = &metav1.Duration{Duration: 3600e9} }
			w.pool("public", public(hour, c.pool))
			<-w.changes.classes
			svc := gateway("gw", "198.51.100.2")
			w.see(svc)
			w.recordsAre("198.51.100.2 public default/gw")
			c.change(w, svc)
			w.settle()
			w.recordsAre(c.records...)
			w.eventsSay(c.says...)
		})
	}
}

// TestARefusedAddressIsAnnouncedOnceItIsFree has a gateway that waits for an address that another Service has.
func TestARefusedAddressIsAnnouncedOnceItIsFree(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public(announcing))
	web := service("web", four)
	if _, err := w.serve(web); err != nil {
		t.Fatal(err)
	}
	w.see(gateway("gw", "198.51.100.0"))
	w.eventsSay("198.51.100.0 is held by default/web")
	w.waiting.serve()
	if held := w.ledger.heldBy(owner(gateway("gw"))); len(held) > 0 {
		t.Errorf("it was given %v, and only its controller gives it addresses", held)
	}
	w.settle()
	w.gone(web)
	w.waiting.serve()
	w.settle()
	w.recordsAre("198.51.100.0 public default/gw")
	w.eventsSay()
}

// TestNobodyIsGivenTheAddressOfAGatewayAfterARestore has a cluster whose records were lost.
func TestNobodyIsGivenTheAddressOfAGatewayAfterARestore(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public(announcing))
	w.put(gateway("gw", "198.51.100.0"))
	w.rebuild()
	w.others.adopt(t.Context())
	if got, err := w.serve(service("web", four)); err != nil || len(got) != 1 || got[0] != "198.51.100.1" {
		t.Errorf("another Service was given %v (%v), want 198.51.100.1", got, err)
	}
}

// TestAGatewayKeepsAnAddressOfAPoolThatIsNotValid has a herald-ccm that starts and does not know the last valid spec.
func TestAGatewayKeepsAnAddressOfAPoolThatIsNotValid(t *testing.T) {
	w := newWorld(t)
	gw := gateway("gw", "198.51.100.2")
	if _, err := w.recordsAPI.put(recordOf(given("198.51.100.2", "public", "gw"), herald.LoadBalancerClass, ownerEntry(gw))); err != nil {
		t.Fatal(err)
	}
	w.pool("public", public(announcing, func(o *herald.IPPool) { o.Spec.Addresses = append(o.Spec.Addresses, "198.51.100.9-198.51.100.5") }))
	w.put(gw)
	w.rebuild()
	w.others.adopt(t.Context())
	w.see(gw)
	w.recordsAre("198.51.100.2 public default/gw")
	w.eventsSay()
}

// TestTwoControllersDoNotFightOverAGateway has a record that a herald-ccm of another class wrote for the gateway.
func TestTwoControllersDoNotFightOverAGateway(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public(announcing))
	gw := gateway("gw", "198.51.100.2")
	if _, err := w.recordsAPI.put(recordOf(given("198.51.100.2", "public", "gw"), "example.com/other", ownerEntry(gw))); err != nil {
		t.Fatal(err)
	}
	w.put(gw)
	w.records.load()
	writes := w.recordsAPI.writes
	w.see(gw)
	gw.Status = corev1.ServiceStatus{}
	w.see(gw)
	if w.recordsAPI.writes != writes {
		t.Errorf("%d writes of the record, want none", w.recordsAPI.writes-writes)
	}
	w.eventsSay()
}

// failing is an API server that records nothing.
type failing struct{ recordsAPI }

func (failing) Create(context.Context, *herald.IPAllocation, metav1.CreateOptions) (*herald.IPAllocation, error) {
	return nil, errors.New("the connection was lost")
}

// interrupted is a lister of namespaces that does something else first.
type interrupted struct {
	corelisters.NamespaceLister
	first func()
}

func (i interrupted) Get(name string) (*corev1.Namespace, error) {
	i.first()
	return i.NamespaceLister.Get(name)
}

// TestAGatewayThatIsDeletedDuringACheckHoldsNothing checks that its address is free for others.
func TestAGatewayThatIsDeletedDuringACheckHoldsNothing(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public(announcing))
	gw := gateway("gw", "198.51.100.0")
	w.put(gw)
	w.records.api = failing{w.recordsAPI}
	w.others.requests.namespaces = interrupted{w.others.requests.namespaces, func() {
		_ = w.services.Delete(gw)
		w.projection.OnDelete(gw)
	}}
	if err := w.others.sync(t.Context(), serviceName(gw)); err == nil {
		t.Error("no error")
	}
	w.reconcile()
	if held := w.ledger.heldBy(owner(gw)); len(held) > 0 {
		t.Errorf("it holds %v", held)
	}
	if n := len(w.waiting.uids); n > 0 {
		t.Errorf("%d Services wait", n)
	}
}
