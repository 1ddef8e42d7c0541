package provider

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
)

var four = wish{families: []corev1.IPFamily{v4}}

// public returns an edit that gives a pool 198.51.100.0 to 198.51.100.3, followed by further edits.
func public(edits ...func(*herald.IPPool)) func(*herald.IPPool) {
	return func(o *herald.IPPool) {
		o.Spec = herald.IPPoolSpec{Addresses: []herald.AddressRange{"198.51.100.0/30"}}
		for _, edit := range edits {
			edit(o)
		}
	}
}

func TestAServiceIsServedAndReleased(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public())
	web := service("web", four)
	got, err := w.serve(web)
	if err != nil || strings.Join(got, " ") != "198.51.100.0" {
		t.Fatalf("%v, %v", got, err)
	}
	w.recordsAre("198.51.100.0 public default/web")
	writes := w.recordsAPI.writes
	if _, err := w.serve(web); err != nil || w.recordsAPI.writes != writes {
		t.Errorf("served again: %v, with %d writes, want none", err, w.recordsAPI.writes-writes)
	}
	w.gone(web)
	w.recordsAre()
	if free := w.ledger.use([]string{"public"})["public"].family(4).Available; free != 4 {
		t.Errorf("%d addresses are free, want 4", free)
	}
}

// TestWithoutTheKindNothingIsTriedAgainAtOnce is about an API server without the kind IPAllocation, which responds to a
// Create with 404. The service controller gets the error and retries later. The response must not be taken for a record
// that was deleted in between.
func TestWithoutTheKindNothingIsTriedAgainAtOnce(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public())
	w.recordsAPI.missing = true
	_, err := w.serve(service("web", four))
	if !apierrors.IsNotFound(err) {
		t.Errorf("%v, want the API server's 404", err)
	}
	if w.recordsAPI.writes != 1 {
		t.Errorf("%d writes, want one", w.recordsAPI.writes)
	}
}

// TestRecordsOfAnotherClassAreLeftAlone has two controllers, each with its own class, that use the same pools. Addresses
// from the other controller belong to that controller.
func TestRecordsOfAnotherClassAreLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public())
	web := service("web", four)
	rec := recordOf(given("198.51.100.0", "public", "web"), "example.com/other", ownerEntry(web))
	if _, err := w.recordsAPI.put(rec); err != nil {
		t.Fatal(err)
	}
	w.records.load()
	web.Spec.Type = corev1.ServiceTypeClusterIP // The API server clears the class with the type.
	web.Finalizers = []string{"service.kubernetes.io/load-balancer-cleanup"}
	w.put(web)
	if w.projection.ours(web) {
		t.Error("a Service that another class gave an address is claimed because of its finalizer")
	}
	if _, exists, err := w.loadBalancers.GetLoadBalancer(t.Context(), "", web); exists || err != nil {
		t.Errorf("the other's load balancer is answered for: %v, %v", exists, err)
	}
	if err := w.loadBalancers.EnsureLoadBalancerDeleted(t.Context(), "", web); err != nil {
		t.Fatal(err)
	}
	w.recordsAre("198.51.100.0 public default/web")

	mail := service("mail", four)
	mail.Spec.Type, mail.Finalizers = corev1.ServiceTypeClusterIP, web.Finalizers
	if !w.projection.ours(mail) {
		t.Error("a Service with the finalizer and without an address is not cleaned up after")
	}
}

func TestASettledServiceIsNotSyncedByAnUnrelatedEdit(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public())
	web := service("web", four)
	if _, err := w.serve(web); err != nil {
		t.Fatal(err)
	}
	edit := func(key, value string) *corev1.Service {
		was := web.DeepCopy()
		web.ResourceVersion += "1"
		web.Annotations[key] = value
		w.put(web)
		w.projection.OnUpdate(was, web.DeepCopy())
		return web
	}
	edit("example.com/checksum", "1")
	if len(w.queued.names) > 0 {
		t.Error("an unrelated annotation has the Service synced")
	}
	edit(herald.AnnotationReclaim, "Delete")
	if len(w.queued.names) == 0 {
		t.Fatal("herald.dev/reclaim is not noticed")
	}
	if _, err := w.serve(web); err != nil {
		t.Fatal(err)
	}
	if rec := w.records.cached("198.51.100.0"); rec.Spec.Owners[0].ReclaimPolicy != herald.ReclaimDelete {
		t.Errorf("the record says %q of reclaiming, want Delete", rec.Spec.Owners[0].ReclaimPolicy)
	}
}

func TestWhoMayHaveAnAddressKept(t *testing.T) {
	allow := func(o *herald.IPPool) { o.Spec.AllowRetain = true }
	retain := func(o *herald.IPPool) { o.Spec.ReclaimPolicy = herald.ReclaimRetain }
	for _, story := range []struct {
		name    string
		pool    func(*herald.IPPool)
		said    string
		records []string
		event   bool
	}{
		{"the pool says Delete", public(), "Retain", nil, true},
		{"the pool allows it", public(allow), "Retain", []string{"198.51.100.0 public ~default/web"}, false},
		{"the pool allows it, nobody asks", public(allow), "", nil, false},
		{"the pool says Retain", public(retain), "", []string{"198.51.100.0 public ~default/web"}, false},
		{"the pool says Retain, the Service Delete", public(retain), "Delete", nil, false},
	} {
		t.Run(story.name, func(t *testing.T) {
			w := newWorld(t)
			w.pool("public", story.pool)
			web := service("web", four)
			if story.said != "" {
				web.Annotations[herald.AnnotationReclaim] = story.said
			}
			for range 2 { // The event is written only once.
				if _, err := w.serve(web); err != nil {
					t.Fatal(err)
				}
			}
			if n := len(w.recorder.Events); story.event != (n == 1) {
				t.Errorf("%d events, want one: %t", n, story.event)
			}
			if story.event {
				w.eventsSay("RetainNotAllowed annotation herald.dev/reclaim: IPPool public")
			}
			w.gone(web)
			w.recordsAre(story.records...)
		})
	}
}

func TestAnAddressIsKeptAsLongAsTheNamespaceExists(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public(func(o *herald.IPPool) { o.Spec.ReclaimPolicy = herald.ReclaimRetain }))
	w.namespace("team")
	web := service("web", four)
	web.Namespace = "team"
	if _, err := w.serve(web); err != nil {
		t.Fatal(err)
	}
	w.gone(web)
	byHand := recordOf(given("198.51.100.3", "", ""), "", herald.AllocationOwner{Namespace: "team", Name: "mail"})
	if _, err := w.recordsAPI.put(byHand); err != nil {
		t.Fatal(err)
	}
	w.recordsAre("198.51.100.0 public ~team/web", "198.51.100.3  ~team/mail")
	if err := w.namespaces.Delete(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team"}}); err != nil {
		t.Fatal(err)
	}
	namespaceHandler(w.changes, w.records.namespaceGone).OnDelete(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team"}})
	w.reconcile()
	w.recordsAre("198.51.100.3  ~team/mail")
}

func TestAServiceGetsAsManyAddressesAsItAsksFor(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public())
	web := service("web", four)
	ask := func(n, ips string, want ...string) {
		t.Helper()
		web.Annotations[herald.AnnotationAddresses], web.Annotations[herald.AnnotationIPs] = n, ips
		for range 2 { // A Service that moves is served again when its status has the new addresses.
			if got, err := w.serve(web); err != nil || !slices.Equal(got, want) {
				t.Fatalf("%v (%v), want %v", got, err, want)
			}
		}
		if !w.projection.upToDate(web) {
			t.Errorf("with %v it is not content", want)
		}
		w.reconcile()
		if n := len(w.ledger.heldBy(owner(web))); n != len(want) {
			t.Errorf("it holds %d addresses, want %v", n, want)
		}
	}
	ask("2", "", "198.51.100.0", "198.51.100.1")
	ask("3", "", "198.51.100.0", "198.51.100.1", "198.51.100.2")
	ask("1", "", "198.51.100.0")
	ask("2", "198.51.100.3,198.51.100.0", "198.51.100.3", "198.51.100.0")
	ask("1", "", "198.51.100.3")
}

// TestAServiceIsAdoptedWithAllItsAddresses has a Service with several addresses of a family, from a backup or another load
// balancer.
func TestAServiceIsAdoptedWithAllItsAddresses(t *testing.T) {
	for n, want := range map[string][]string{"2": {"198.51.100.3", "198.51.100.1"}, "1": {"198.51.100.3"}} {
		w := newWorld(t)
		w.pool("public", public())
		web := carrying("web", four, "198.51.100.3", "198.51.100.1")
		web.Annotations[herald.AnnotationAddresses] = n
		w.put(web)
		w.rebuild()
		if got, err := w.serve(web); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v (%v), want %v", n, got, err, want)
		}
	}
}

// TestARecordThatCannotBeTakenOverIsNotTriedAgainAtOnce has a record of another class that names several Services, and thus
// cannot be taken over. The attempt fails, and the service controller retries later.
func TestARecordThatCannotBeTakenOverIsNotTriedAgainAtOnce(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public())
	web, mail := service("web", four), service("mail", four)
	for i, svc := range []*corev1.Service{web, mail} {
		svc.Annotations[herald.AnnotationSharingKey] = "k"
		svc.Spec.Ports = []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: int32(80 + i)}}
		w.put(svc)
	}
	rec := recordOf(given("198.51.100.0", "public", "web"), "example.com/other", ownerEntry(web))
	rec.Spec.Owners = append(rec.Spec.Owners, ownerEntry(mail))
	if _, err := w.recordsAPI.put(rec); err != nil {
		t.Fatal(err)
	}
	w.reconcile()
	delete(web.Annotations, herald.AnnotationSharingKey)
	w.put(web)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // An endless loop ends then.
	defer cancel()
	if _, err := w.loadBalancers.EnsureLoadBalancer(ctx, "", web, nil); !errors.Is(err, errHeldByAnother) {
		t.Errorf("%v, want that another owner holds the address", err)
	}
	w.recordsAre("198.51.100.0 public default/web default/mail")
}

// TestAServiceIsAdoptedFromAPoolForItsNamespace checks that after a restart without records, a Service keeps the address
// that it carries from a pool for selected namespaces, whatever Service is served before it.
func TestAServiceIsAdoptedFromAPoolForItsNamespace(t *testing.T) {
	w := newWorld(t)
	_ = w.namespaces.Add(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default", Labels: map[string]string{"team": "web"}}})
	w.pool("public", public(func(o *herald.IPPool) {
		o.Spec.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "web"}}
	}))
	web := carrying("web", four, "198.51.100.0")
	w.put(web)
	w.rebuild()
	if got, err := w.serve(service("younger", four)); err != nil || !slices.Equal(got, []string{"198.51.100.1"}) {
		t.Errorf("the younger Service: %v (%v)", got, err)
	}
	if got, err := w.serve(web); err != nil || !slices.Equal(got, []string{"198.51.100.0"}) {
		t.Errorf("the Service that carries an address: %v (%v)", got, err)
	}
}

// TestAServiceGetsAnAddressThatNoNodeHasAnyLonger checks that a waiting Service gets an address that no node has any more.
func TestAServiceGetsAnAddressThatNoNodeHasAnyLonger(t *testing.T) {
	w := newWorld(t)
	w.pool("public", func(o *herald.IPPool) { o.Spec.Addresses = []herald.AddressRange{"198.51.100.0/32"} })
	taken := map[netip.Addr]string{netip.MustParseAddr("198.51.100.0"): "the address of node n1"}
	w.skip(taken)
	web := service("web", four)
	if _, err := w.serve(web); err == nil {
		t.Fatal("it is given the address of a node")
	}
	w.changes.capacity.reset()
	w.skip(taken)
	if len(w.changes.capacity) > 0 {
		t.Error("the Services that wait are tried again though nothing changed")
	}
	w.skip(nil)
	if len(w.changes.capacity) == 0 {
		t.Fatal("the Services that wait are not tried again")
	}
	w.queued.names = nil
	w.waiting.serve()
	if !slices.Equal(w.queued.names, []string{"web"}) {
		t.Errorf("%v go to the service controller, want web", w.queued.names)
	}
}

// TestAServiceKeepsAnAddressWhoseRecordCannotBeRead checks that invalid content of a record takes no address from a
// Service. The Services share on their own terms, and write these into the record when they are served.
func TestAServiceKeepsAnAddressWhoseRecordCannotBeRead(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public())
	sharing := func(i, port int) *corev1.Service {
		svc := service(fmt.Sprint("dns-", i), four)
		svc.Annotations[herald.AnnotationSharingKey] = "dns"
		svc.Spec.Ports = []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: int32(port)}}
		return svc
	}
	shares := []*corev1.Service{sharing(0, 53), sharing(1, 853)}
	is := func(svc *corev1.Service, want string) {
		t.Helper()
		if got, err := w.serve(svc); err != nil || !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %v (%v), want %s", svc.Name, got, err, want)
		}
	}
	is(shares[0], "198.51.100.0")
	is(shares[1], "198.51.100.0")
	w.reconcile()
	w.eventsSay()
	edit := w.records.cached("198.51.100.0").DeepCopy()
	for i := range edit.Spec.Owners {
		edit.Spec.Owners[i].Sharing.Ports = []string{"TCP/99999"}
	}
	if _, err := w.recordsAPI.put(edit); err != nil {
		t.Fatal(err)
	}
	w.reconcile()
	const says = `spec.owners[0].sharing.ports[0]: "TCP/99999" is not a port: write a protocol and a number from 1 to 65535`
	w.eventsSay("InvalidIPAllocation 198.51.100.0: " + says)
	if c := meta.FindStatusCondition(w.records.cached("198.51.100.0").Status.Conditions, herald.ConditionAccepted); c == nil ||
		c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, says) {
		t.Errorf("the condition Accepted is %+v, want False with %s", c, says)
	}
	if len(w.queued.names) > 0 {
		t.Errorf("%v are served again, as if they had lost the address", w.queued.names)
	}
	w.rebuild() // after a restart
	is(sharing(2, 853), "198.51.100.1")
	is(shares[0], "198.51.100.0")
	is(shares[1], "198.51.100.0")
	w.reconcile()
	w.recordsAre("198.51.100.0 public default/dns-0 default/dns-1", "198.51.100.1 public default/dns-2")
	if !meta.IsStatusConditionTrue(w.records.cached("198.51.100.0").Status.Conditions, herald.ConditionAccepted) {
		t.Error("the condition Accepted stays False")
	}
}

// undecodable is a client for IPAllocations, one of which cannot be decoded. Lists leave it out.
type undecodable struct {
	recordsAPI
	name string // empty if the record was deleted
}

func (u *undecodable) Create(ctx context.Context, o *herald.IPAllocation, options metav1.CreateOptions) (*herald.IPAllocation, error) {
	if o.Name == u.name {
		return nil, apierrors.NewAlreadyExists(herald.GroupVersion.WithResource("ipallocations").GroupResource(), o.Name)
	}
	return u.recordsAPI.Create(ctx, o, options)
}

func (u *undecodable) Get(ctx context.Context, name string, options metav1.GetOptions) (*herald.IPAllocation, error) {
	if name == u.name {
		return &herald.IPAllocation{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: "1"}},
			&client.DecodeError{Resource: "ipallocations", Name: name, Err: errors.New("json: cannot unmarshal number")}
	}
	return u.recordsAPI.Get(ctx, name, options)
}

// worldWithout returns a world with a record of 198.51.100.0 that cannot be decoded.
func worldWithout(t *testing.T) (*world, *undecodable) {
	w := newWorld(t)
	w.pool("public", public())
	api := &undecodable{w.recordsAPI, "198.51.100.0"}
	w.records.api = api
	return w, api
}

// TestAnAddressWhoseRecordCannotBeDecodedIsGivenToNobody checks that such an address is assigned to nobody until the record
// is gone.
func TestAnAddressWhoseRecordCannotBeDecodedIsGivenToNobody(t *testing.T) {
	w, api := worldWithout(t)
	for i, want := range []string{"198.51.100.1", "198.51.100.2"} {
		if got, err := w.serve(service(fmt.Sprint("web-", i), four)); err != nil || !slices.Equal(got, []string{want}) {
			t.Errorf("%v (%v), want %s", got, err, want)
		}
	}
	asks := service("asks", four)
	asks.Annotations[herald.AnnotationIPs] = "198.51.100.0"
	if got, err := w.serve(asks); err == nil || !strings.Contains(err.Error(), "198.51.100.0 is reserved") {
		t.Errorf("%v (%v), want that the address is reserved", got, err)
	}
	api.name = ""
	w.changes.record(netip.MustParseAddr("198.51.100.0")) // as after unreadableRetry
	w.reconcile()
	if got, err := w.serve(asks); err != nil || !slices.Equal(got, []string{"198.51.100.0"}) {
		t.Errorf("when the record is deleted: %v (%v), want 198.51.100.0", got, err)
	}
}

// TestAServiceThatCarriesAnAddressWhoseRecordCannotBeDecoded checks that after a restart such a Service keeps the address,
// and can be deleted.
func TestAServiceThatCarriesAnAddressWhoseRecordCannotBeDecoded(t *testing.T) {
	w, _ := worldWithout(t)
	web := carrying("web", four, "198.51.100.0")
	w.put(web)
	w.rebuild()
	if got, err := w.serve(web); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("%v (%v), want that the record cannot be read", got, err)
	}
	if got, err := w.serve(service("mail", four)); err != nil || !slices.Equal(got, []string{"198.51.100.1"}) {
		t.Errorf("another Service: %v (%v), want 198.51.100.1", got, err)
	}
	w.gone(web)
	if held := w.ledger.heldBy(owner(web)); len(held) > 0 {
		t.Errorf("deleted, it holds %v", held)
	}
}

// staleLister lists Services that have been deleted.
type staleLister struct {
	corelisters.ServiceLister
	before []*corev1.Service
}

func (l staleLister) List(labels.Selector) ([]*corev1.Service, error) { return l.before, nil }

// TestAServiceThatIsDeletedWhileTheLedgerIsRebuilt checks that such a Service leaves nothing behind.
func TestAServiceThatIsDeletedWhileTheLedgerIsRebuilt(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public())
	w.Provider.services.cached = staleLister{w.Provider.services.cached, []*corev1.Service{carrying("web", four, "198.51.100.0")}}
	w.rebuild()
	w.reconcile()
	if free := w.ledger.use([]string{"public"})["public"].family(4).Available; free != 4 {
		t.Errorf("%d addresses are free, want 4", free)
	}
}

// TestARefusedServiceHoldsNothingThatItsStatusNeverSaid has a Service whose address was recorded but whose status could not
// be written. The Service then asks for an address that another Service holds.
func TestARefusedServiceHoldsNothingThatItsStatusNeverSaid(t *testing.T) {
	for _, story := range []struct {
		name      string
		published bool // the address was in its status once, and somebody has emptied the status
		retained  bool // the pool keeps addresses for the names of their Services
		want      string
	}{
		{"its status never said it", false, false, "198.51.100.1 public default/web released"},
		{"its status never said it, and the pool retains addresses", false, true, "198.51.100.1 public ~default/web"},
		{"its status was emptied", true, false, "198.51.100.1 public default/web"},
	} {
		t.Run(story.name, func(t *testing.T) {
			w := newWorld(t)
			w.pool("public", func(o *herald.IPPool) {
				o.Spec.Addresses = []herald.AddressRange{"198.51.100.0/30"}
				if story.retained {
					o.Spec.ReclaimPolicy = herald.ReclaimRetain
				}
			})
			if _, err := w.serve(service("first", wish{families: []corev1.IPFamily{v4}, ips: "198.51.100.2"})); err != nil {
				t.Fatal(err)
			}
			web := service("web", wish{families: []corev1.IPFamily{v4}, ips: "198.51.100.1"})
			if story.published {
				if _, err := w.serve(web); err != nil {
					t.Fatal(err)
				}
				web.Status.LoadBalancer = corev1.LoadBalancerStatus{}
			} else {
				w.put(web)
				if _, err := w.loadBalancers.EnsureLoadBalancer(t.Context(), "", w.projection.project(web), nil); err != nil {
					t.Fatal(err)
				}
			}
			w.recordsAre("198.51.100.1 public default/web", "198.51.100.2 public default/first")
			web.Annotations[herald.AnnotationIPs] = "198.51.100.2"
			w.put(web)
			// The service controller sees the finalizer, whether or not it was written.
			if got, err := w.loadBalancers.EnsureLoadBalancer(t.Context(), "", w.projection.project(web), nil); err == nil {
				t.Fatalf("it has %v, which default/first holds", got)
			}
			w.recordsAre(story.want, "198.51.100.2 public default/first")
		})
	}
}

// TestARecordIsKeptOnce checks that the ledger has the cache's copy of a record, and not the one that a write returned.
func TestARecordIsKeptOnce(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public())
	if _, err := w.serve(service("web", four)); err != nil {
		t.Fatal(err)
	}
	cached := w.records.cached("198.51.100.0")
	if _, err := w.records.learn(cached.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	if w.ledger.addresses[netip.MustParseAddr("198.51.100.0")].record != cached {
		t.Error("the ledger has a copy of its own")
	}
}

// late is a cache that does something else after it was read.
type late struct {
	cache.Indexer
	then func()
}

func (l late) GetByKey(key string) (any, bool, error) {
	o, exists, err := l.Indexer.GetByKey(key)
	l.then()
	return o, exists, err
}

// TestARecordThatIsNotSeenYetIsNotGone has Services that get an address at the moment at which the reconciler hears that an earlier
// record of this address was deleted. The cache does not have the new record yet.
func TestARecordThatIsNotSeenYetIsNotGone(t *testing.T) {
	const name = "198.51.100.0"
	empty := func() cache.Indexer { return cache.NewIndexer(cache.MetaNamespaceKeyFunc, recordIndexers) }
	settled := func(w *world, svc *corev1.Service) {
		w.Helper()
		w.recordsAre(name + " public default/web")
		if !w.projection.upToDate(svc) {
			t.Error("the Service is synced again")
		}
	}
	t.Run("given before the cache is read", func(t *testing.T) {
		w := newWorld(t)
		w.pool("public", public())
		web := service("web", four)
		if _, err := w.serve(web); err != nil {
			t.Fatal(err)
		}
		w.records.cache = empty()
		w.changes.queue.Add(name)
		w.reconcile()
		settled(w, web)
	})
	t.Run("given after the cache is read", func(t *testing.T) {
		w := newWorld(t)
		w.pool("public", public(func(o *herald.IPPool) { o.Spec.ReuseDelay = &metav1.Duration{Duration: time.Hour} }))
		web, again := service("web", four), service("web", four)
		again.UID = "again"
		if _, err := w.serve(web); err != nil {
			t.Fatal(err)
		}
		w.gone(web)
		w.recordsAre(name + " public default/web released")
		if err := w.recordsAPI.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.records.cache = late{empty(), func() {
			w.records.cache = empty()
			if got, err := w.serve(again); err != nil || !slices.Equal(got, []string{name}) {
				t.Errorf("%v (%v)", got, err)
			}
		}}
		w.reconcile()
		settled(w, again)
	})
}

// TestARecordThatIsDeletedBeforeTheCacheHadItIsForgotten has a watch that is interrupted while a record is created and deleted: the list
// after it is as before. The Service gets its record again, and the address of a Service that is gone as well is free.
func TestARecordThatIsDeletedBeforeTheCacheHadItIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.pool("public", public())
		served := make(chan string, 1)
		w.changes.serve = func(svc *corev1.Service) { served <- svc.Name }
		w.recordsAPI.changed = func(string) {} // Nobody hears of what happens in the gap.
		web, lost := service("web", four), service("lost", four)
		for _, svc := range []*corev1.Service{web, lost} {
			got, err := w.serve(svc)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.recordsAPI.Delete(t.Context(), got[0], metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		_ = w.services.Delete(lost) // Delete fails only for an object without a name.
		ctx, end := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.reconciler.run(ctx) }()
		select {
		case name := <-served:
			if name != "web" {
				t.Errorf("%s is served", name)
			}
		case <-time.After(3 * comparePeriod):
			t.Error("the record stays known")
		}
		synctest.Wait()
		if n := w.ledger.size(); n != 0 {
			t.Errorf("%d records are known", n)
		}
		if held := w.ledger.heldBy(owner(lost)); len(held) > 0 {
			t.Errorf("a Service that is gone holds %v", held)
		}
		if _, err := w.serve(web); err != nil {
			t.Error(err)
		}
		w.recordsAre("198.51.100.0 public default/web")
		end()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestARecordThatTheCacheLacksStaysKnown has an address that cools down, and a watch that is interrupted for some minutes.
func TestARecordThatTheCacheLacksStaysKnown(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public(func(o *herald.IPPool) { o.Spec.ReuseDelay = &metav1.Duration{Duration: time.Hour} }))
	web := service("web", four)
	if _, err := w.serve(web); err != nil {
		t.Fatal(err)
	}
	w.gone(web)
	w.reconcile()
	w.recordsAre("198.51.100.0 public default/web released")
	w.records.cache = cache.NewIndexer(cache.MetaNamespaceKeyFunc, recordIndexers)
	var missing map[netip.Addr]string
	for range 3 {
		missing = w.reconciler.compare(t.Context(), missing)
		w.reconcile()
	}
	if n := w.ledger.size(); n != 1 || len(missing) != 1 {
		t.Errorf("%d records are known, and %d are missing in the cache, want 1 and 1", n, len(missing))
	}
}
