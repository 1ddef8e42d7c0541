package provider

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	fakediscovery "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/dynamic"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	kubetesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// lender is another system that grants addresses, and the API server that has the claims and its answers.
type lender struct {
	dynamic.ResourceInterface
	mu              sync.Mutex // Claims are written by several goroutines.
	claims, answers map[string]*unstructured.Unstructured
	version         int
	now             int64 // in seconds
	// refuses returns the error of a write; nil if it succeeds.
	refuses func(verb, name string) error
}

func newLender() *lender {
	return &lender{claims: map[string]*unstructured.Unstructured{}, answers: map[string]*unstructured.Unstructured{}, refuses: func(string, string) error { return nil }}
}

func (l *lender) Create(_ context.Context, o *unstructured.Unstructured, _ metav1.CreateOptions, _ ...string) (*unstructured.Unstructured, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refuses("create", o.GetName()); err != nil {
		return nil, err
	}
	if l.claims[o.GetName()] != nil {
		return nil, apierrors.NewAlreadyExists(claimsGroup, o.GetName())
	}
	l.version++
	o = o.DeepCopy()
	o.SetUID(types.UID("claim-" + strconv.Itoa(l.version)))
	o.SetResourceVersion(strconv.Itoa(l.version))
	o.SetCreationTimestamp(metav1.Unix(l.now, 0))
	l.claims[o.GetName()] = o
	return o, nil
}

func (l *lender) Delete(_ context.Context, name string, options metav1.DeleteOptions, _ ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refuses("delete", name); err != nil {
		return err
	}
	is := l.claims[name]
	if is == nil {
		return apierrors.NewNotFound(claimsGroup, name)
	}
	if p := options.Preconditions; *p.UID != is.GetUID() || p.ResourceVersion != nil && *p.ResourceVersion != is.GetResourceVersion() {
		return apierrors.NewConflict(claimsGroup, name, nil)
	}
	delete(l.claims, name)
	delete(l.answers, name)
	return nil
}

var claimsGroup = (&claims{}).resource("v1beta2", claimsResource).GroupResource()

// grants answers a claim.
func (l *lender) grants(claim, address string) { l.answers[claim] = answer(claim, address) }

// names lists the claims.
func (l *lender) names() []string { return slices.Sorted(maps.Keys(l.claims)) }

// seen returns what an informer has of the claims and the answers.
func (l *lender) seen() (asked []Claim, granted []grant) {
	for _, u := range l.claims {
		asked = append(asked, claimOf(u))
	}
	for _, u := range l.answers {
		granted = append(granted, grantOf(u))
	}
	return asked, granted
}

// claim makes the provider write the claims, with a cache that is up to date.
func (w *world) claim(l *lender) error {
	asked, granted := l.seen()
	_, err := w.claims.sync(w.Context(), l, "v1beta2", asked, granted)
	return err
}

// claimed is claim, and expects these claims.
func (w *world) claimed(l *lender, want ...string) {
	w.Helper()
	if err := w.claim(l); err != nil {
		w.Error(err)
	}
	if !slices.Equal(l.names(), want) {
		w.Errorf("claimed are %q, want %q", l.names(), want)
	}
}

// lent is a pool whose addresses another system grants.
func lent(edits ...func(*herald.IPPool)) func(*herald.IPPool) {
	return func(o *herald.IPPool) {
		public()(o)
		o.Spec.ExternalPoolRef = &corp
		for _, edit := range edits {
			edit(o)
		}
	}
}

// wait makes a Service wait for an address.
func (w *world) wait(svc *corev1.Service) {
	w.Helper()
	if _, err := w.serve(svc); err == nil || !strings.Contains(err.Error(), "waits until") {
		w.Errorf("%s: %v, want that it waits for a grant", svc.Name, err)
	}
}

// grantedTo makes a Service wait, and then has an address granted for its claim, which is the only one.
func (w *world) grantedTo(l *lender, svc *corev1.Service, address string) {
	w.Helper()
	w.wait(svc)
	claim := "herald-" + svc.Name + "-ipv4-0"
	w.claimed(l, claim)
	l.grants(claim, address)
	w.claimed(l, claim)
}

// TestOneClaimThatCannotBeWrittenHoldsUpNoOther has an API server that refuses a claim for good, and one that cannot be asked for a
// Namespace.
func TestOneClaimThatCannotBeWrittenHoldsUpNoOther(t *testing.T) {
	w, l := newWorld(t), newLender()
	w.claims.report(nil) // The claims can be read.
	w.pool("lent", lent())
	for _, name := range []string{"a", "b", "c"} {
		w.wait(service(name, four))
	}
	w.claimed(l, "herald-a-ipv4-0", "herald-b-ipv4-0", "herald-c-ipv4-0")
	w.gone(service("c", four))
	for i := range 20 {
		w.wait(service("more-"+strconv.Itoa(i), four))
	}
	refusal := apierrors.NewForbidden(claimsGroup, "", errors.New("denied by policy"))
	l.refuses = func(verb, name string) error {
		if verb == "create" && name == "herald-more-7-ipv4-0" {
			return refusal
		}
		return nil
	}
	if err := w.claim(l); !errors.Is(err, refusal) {
		t.Errorf("error %v, want the refusal", err)
	}
	if n := len(l.claims); n != 21 || l.claims["herald-c-ipv4-0"] != nil {
		t.Errorf("%d claims, want all but the one that is refused and the one that nobody needs: %q", n, l.names())
	}

	if _, err := w.serve(service("more-7", four)); err == nil || !strings.Contains(err.Error(), "herald-more-7-ipv4-0 cannot be created, for IPPool lent: "+refusal.Error()) {
		t.Errorf("more-7 is told %v", err)
	}
	_ = w.claim(l)
	is := w.claims.condition(&herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "lent"}, Spec: herald.IPPoolSpec{ExternalPoolRef: &corp}})
	if is == nil || is.Reason != herald.ReasonGrantRefused || !strings.Contains(is.Message, refusal.Error()) {
		t.Errorf("the condition is %v", is)
	}

	far := service("far", four)
	far.Namespace = "far"
	w.kube.PrependReactor("list", "namespaces", func(kubetesting.Action) (bool, runtime.Object, error) { return true, nil, refusal })
	w.put(far)
	w.waiting.add(far)
	old := newClaim(owner(far), ipam.Want{Pool: "lent", Family: ipam.IPv4}, corp, 0).object("v1beta2", herald.LoadBalancerClass)
	if _, err := l.Create(t.Context(), old, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.wait(service("near", four))
	if err := w.claim(l); !errors.Is(err, refusal) {
		t.Errorf("error %v, want that the Namespace cannot be read", err)
	}
	if l.claims["herald-near-ipv4-0"] == nil || l.claims[old.GetName()] == nil {
		t.Errorf("claimed are %q, want the claim for near, and that for far, whose Namespace cannot be read", l.names())
	}
}

// TestClaimsOfAnEarlierRunAreDeleted has a claim whose pool lost spec.externalPoolRef while no herald-ccm ran. No record names the
// claim. The API server fails at first: once when it is asked whether there are claims, and once when it is asked which.
func TestClaimsOfAnEarlierRunAreDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.pool("lent", public())
		w.kube.Discovery().(*fakediscovery.FakeDiscovery).Resources = []*metav1.APIResourceList{{
			GroupVersion: IPAMGroup + "/v1beta1", APIResources: []metav1.APIResource{{Name: claimsResource}, {Name: grantsResource}},
		}}
		claims := w.claims.resource("v1beta1", claimsResource)
		left := newClaim(owner(service("web", four)), ipam.Want{Pool: "lent", Family: ipam.IPv4}, corp, 0).object("v1beta1", herald.LoadBalancerClass)
		left.SetNamespace("herald-system")
		w.claims.namespace = "herald-system"
		api := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
			claims: "IPAddressClaimList", w.claims.resource("v1beta1", grantsResource): "IPAddressList",
		}, left)
		asked := 0
		api.PrependReactor("list", claimsResource, func(kubetesting.Action) (bool, runtime.Object, error) {
			asked++
			return asked%2 == 1 && asked < 4, nil, apierrors.NewInternalError(errors.New("conversion webhook failed"))
		})
		w.claims.dynamic = api
		var running sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		running.Go(func() { _ = w.claims.run(ctx) })
		time.Sleep(time.Minute)
		synctest.Wait()
		list, err := w.claims.dynamic.Resource(claims).Namespace("herald-system").List(t.Context(), metav1.ListOptions{})
		if err != nil || len(list.Items) > 0 {
			t.Errorf("%d claims are left, %v", len(list.Items), err)
		}
		cancel()
		running.Wait()
	})
}

// TestAnAddressGrantedTwiceIsOneAddress has another system that grants a Service the same address for each of its claims.
func TestAnAddressGrantedTwiceIsOneAddress(t *testing.T) {
	w, l := newWorld(t), newLender()
	w.pool("lent", lent())
	web := service("web", four)
	w.grantedTo(l, web, "198.51.100.1")
	if got, err := w.serve(web); err != nil || !slices.Equal(got, []string{"198.51.100.1"}) {
		t.Errorf("web has %q, %v", got, err)
	}
	web.Annotations[herald.AnnotationAddresses] = "2"
	w.wait(web)
	for range 3 {
		w.claimed(l, "herald-web-ipv4-0", "herald-web-ipv4-1")
		l.grants("herald-web-ipv4-1", "198.51.100.1")
	}
	_, err := w.serve(web)
	if want := "it granted 198.51.100.1, which it granted for IPAddressClaim herald-web-ipv4-0 as well"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("web is told %v, want %q", err, want)
	}
	l.grants("herald-web-ipv4-1", "198.51.100.2")
	w.claimed(l, "herald-web-ipv4-0", "herald-web-ipv4-1")
	if got, err := w.serve(web); err != nil || !slices.Equal(got, []string{"198.51.100.1", "198.51.100.2"}) {
		t.Errorf("web has %q, %v", got, err)
	}
}

// sharingPort makes a Service share its address, with one port.
func sharingPort(svc *corev1.Service, port int32) *corev1.Service {
	svc.Annotations[herald.AnnotationSharingKey] = "k"
	svc.Spec.Ports = []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: port}}
	return svc
}

// TestASharedAddressKeepsTheClaimForWhichItWasGranted has a Service that is recorded before the one to which the address that they
// share was granted. That one is recorded later, or is gone by then.
func TestASharedAddressKeepsTheClaimForWhichItWasGranted(t *testing.T) {
	for _, later := range []bool{true, false} {
		w, l := newWorld(t), newLender()
		w.pool("lent", lent())
		first, second := sharingPort(service("first", four), 80), sharingPort(service("second", four), 443)
		w.grantedTo(l, first, "198.51.100.1")
		w.waiting.serve() // The first has the address, and is not recorded yet.
		served := []*corev1.Service{second}
		if later {
			served = append(served, first)
		}
		for _, svc := range served {
			if got, err := w.serve(svc); err != nil || !slices.Equal(got, []string{"198.51.100.1"}) {
				t.Errorf("%s has %q, %v", svc.Name, got, err)
			}
		}
		w.gone(first)
		w.recordsAre("198.51.100.1 lent default/second")
		w.claimed(l, "herald-first-ipv4-0")
		w.gone(second)
		w.recordsAre()
		w.claimed(l)
	}
}

// TestAServiceThatGetsItsAddressWaitsForNoOtherClaim asks what Services wait for at the moments at which they get the addresses
// that were granted to them, and at which these are recorded.
func TestAServiceThatGetsItsAddressWaitsForNoOtherClaim(t *testing.T) {
	for name, give := range map[string]func(*world, *corev1.Service, ipam.Request) error{
		"given": func(w *world, svc *corev1.Service, req ipam.Request) error {
			_, _, err := w.ledger.decide(svc, req, time.Now())
			return err
		},
		"given and recorded": func(w *world, svc *corev1.Service, _ ipam.Request) error {
			_, err := w.loadBalancers.EnsureLoadBalancer(w.Context(), "", svc, nil)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, l := newWorld(t), newLender()
			w.claims.report(nil)
			w.pool("lent", lent(func(o *herald.IPPool) { o.Spec.Addresses = []herald.AddressRange{"198.51.100.0/24"} }))
			services := make([]*corev1.Service, 250)
			for i := range services {
				services[i] = service("web-"+strconv.Itoa(i), four)
				w.wait(services[i])
			}
			if err := w.claim(l); err != nil {
				t.Fatal(err)
			}
			for i, svc := range services {
				l.grants("herald-"+svc.Name+"-ipv4-0", fmt.Sprintf("198.51.100.%d", i+1))
			}
			if err := w.claim(l); err != nil {
				t.Fatal(err)
			}
			for _, svc := range services {
				req, err := w.claims.requests.of(svc, w.claims.requests.namespace(svc.Namespace))
				if err != nil {
					t.Fatal(err)
				}
				done := make(chan error, 1)
				go func() { done <- give(w, svc, req) }()
				for decided := false; !decided; {
					select {
					case err := <-done:
						if decided = true; err != nil {
							t.Fatalf("%s: %v", svc.Name, err)
						}
					default:
					}
					if text := w.claims.words(req); text != "" {
						t.Fatalf("%s, to which an address was granted: %s", svc.Name, text)
					}
				}
			}
		})
	}
}

// TestAGrantThatIsLostBeforeItIsRecordedIsNoGrant has a grant that changes after a Service was given the address, and before the
// address is recorded.
func TestAGrantThatIsLostBeforeItIsRecordedIsNoGrant(t *testing.T) {
	w, l := newWorld(t), newLender()
	w.pool("lent", lent())
	web := service("web", four)
	w.grantedTo(l, web, "198.51.100.1")
	w.waiting.serve()
	l.grants("herald-web-ipv4-0", "198.51.100.2")
	w.claimed(l, "herald-web-ipv4-0")
	if got, err := w.serve(web); err != nil || !slices.Equal(got, []string{"198.51.100.2"}) {
		t.Errorf("web has %q, %v", got, err)
	}
	w.recordsAre("198.51.100.2 lent default/web")
	w.claimed(l, "herald-web-ipv4-0")
}

// TestAClaimThatAnotherLeaderUsesStays has a leader whose cache lags behind what another leader wrote.
func TestAClaimThatAnotherLeaderUsesStays(t *testing.T) {
	w, l := newWorld(t), newLender()
	w.pool("lent", lent())
	web := service("web", four)
	w.wait(web)
	w.claimed(l, "herald-web-ipv4-0")
	asked, granted := l.seen()
	l.grants("herald-web-ipv4-0", "198.51.100.1")
	w.gone(web)
	l.claims["herald-web-ipv4-0"].SetResourceVersion("2") // The other system has answered.
	if _, err := w.claims.sync(t.Context(), l, "v1beta2", asked, granted); err != nil || len(l.claims) != 1 {
		t.Errorf("claims %q, %v, want that the claim stays whose answer is not known yet", l.names(), err)
	}
	rec := recordOf(ipam.Allocation{Address: addresses("198.51.100.1")[0], Pool: "lent"}, herald.LoadBalancerClass, ownerEntry(web))
	rec.Spec.Claim = "herald-web-ipv4-0"
	rec, err := w.recordsAPI.Create(t.Context(), rec, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.records.cache = cache.NewIndexer(cache.MetaNamespaceKeyFunc, recordIndexers)
	w.claimed(l, "herald-web-ipv4-0")
	if err := w.recordsAPI.Delete(t.Context(), rec.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.claimed(l)
}

// TestAClaimStaysIfTheAnswerToTheWriteOfItsRecordIsLost has a record that neither the ledger nor the cache knows yet. The other system
// granted the address for two claims of the Service, and takes back the grant that the record names.
func TestAClaimStaysIfTheAnswerToTheWriteOfItsRecordIsLost(t *testing.T) {
	w, l := newWorld(t), newLender()
	w.pool("lent", lent())
	web := service("web", four)
	web.Annotations[herald.AnnotationAddresses] = "2"
	w.wait(web)
	w.claimed(l, "herald-web-ipv4-0", "herald-web-ipv4-1")
	web = web.DeepCopy()
	delete(web.Annotations, herald.AnnotationAddresses)
	w.put(web)
	l.grants("herald-web-ipv4-0", "198.51.100.1")
	l.grants("herald-web-ipv4-1", "198.51.100.1")
	refused := apierrors.NewInternalError(errors.New("not now"))
	l.refuses = func(string, string) error { return refused }
	if err := w.claim(l); !errors.Is(err, refused) {
		t.Errorf("the second claim, which is superfluous for now: %v", err)
	}
	l.refuses = func(string, string) error { return nil }
	w.waiting.serve()
	rec := recordOf(ipam.Allocation{Address: addresses("198.51.100.1")[0], Pool: "lent"}, herald.LoadBalancerClass, ownerEntry(web))
	rec.Spec.Claim = "herald-web-ipv4-0"
	if _, err := w.recordsAPI.Create(t.Context(), rec, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.records.cache = cache.NewIndexer(cache.MetaNamespaceKeyFunc, recordIndexers)
	delete(l.answers, "herald-web-ipv4-0")
	w.claimed(l, "herald-web-ipv4-0", "herald-web-ipv4-1")
}

// TestAClaimCountsInQuotasAsSoonAsItIsMade has a namespace with many Services and room for one address.
func TestAClaimCountsInQuotasAsSoonAsItIsMade(t *testing.T) {
	for what, limit := range map[string]func(w *world){
		"of the pool": func(w *world) {
			w.pool("lent", lent(func(o *herald.IPPool) { o.Spec.Quota = &herald.AddressQuota{IPv4: ptr.To[int64](1)} }))
		},
		"of the namespace": func(w *world) {
			w.pool("lent", lent())
			_ = w.namespaces.Add(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default", Annotations: map[string]string{herald.AnnotationQuota: "ipv4=1"}}})
		},
	} {
		t.Run(what, func(t *testing.T) {
			w, l := newWorld(t), newLender()
			limit(w)
			w.claimed(l)
			const many = 1000
			var all []*corev1.Service
			for i := range many {
				svc := service(fmt.Sprintf("web-%03d", i), four)
				svc.CreationTimestamp = metav1.Unix(int64(i/10), 0)
				all = append(all, svc)
				w.wait(svc)
			}
			w.claimed(l, "herald-web-000-ipv4-0")
			w.queued.names = nil
			w.claimed(l, "herald-web-000-ipv4-0")
			if n := len(w.queued.names); n != many-1 || slices.Contains(w.queued.names, "web-000") {
				t.Errorf("%d Services are told that the quota is used up, want %d", n, many-1)
			}
			if _, err := w.serve(all[1]); err == nil || !strings.Contains(err.Error(), "namespace default holds 0 IPv4 addresses and waits for 1 more") {
				t.Errorf("web-001: %v", err)
			}
			l.grants("herald-web-000-ipv4-0", "198.51.100.1")
			w.claimed(l, "herald-web-000-ipv4-0")
			if _, err := w.serve(all[0]); err != nil {
				t.Error(err)
			}
			w.claimed(l, "herald-web-000-ipv4-0")
			if _, err := w.serve(all[1]); err == nil || !strings.Contains(err.Error(), "namespace default holds 1 IPv4 addresses") {
				t.Errorf("web-001: %v", err)
			}
			w.gone(all[0])
			w.claimed(l)
			w.claimed(l, "herald-web-001-ipv4-0")
			// An older Service, of which herald-ccm hears later, is not claimed for before.
			older := service("older", four)
			older.CreationTimestamp = metav1.Unix(-1, 0)
			w.put(older)
			w.waiting.add(older)
			w.claimed(l, "herald-web-001-ipv4-0")
			// If claims of two leaders exceed the quota, the oldest stays.
			for _, svc := range []*corev1.Service{all[7], all[5]} {
				u := newClaim(owner(svc), ipam.Want{Pool: "lent", Family: ipam.IPv4}, corp, 0).object("v1beta2", herald.LoadBalancerClass)
				l.now++
				if _, err := l.Create(t.Context(), u, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			w.claimed(l, "herald-web-001-ipv4-0")
		})
	}
}

// grantedAndNotWanted has a Service that was granted an address, and asks for an address of another pool now.
func grantedAndNotWanted(t *testing.T) (w *world, l *lender, web *corev1.Service) {
	t.Helper()
	w, l = newWorld(t), newLender()
	w.pool("lent", lent())
	w.pool("own", func(o *herald.IPPool) {
		o.Spec = herald.IPPoolSpec{Addresses: []herald.AddressRange{"203.0.113.0/30"}, Disabled: true}
	})
	web = service("web", four)
	w.wait(web)
	w.claimed(l, "herald-web-ipv4-0")
	l.grants("herald-web-ipv4-0", "198.51.100.1")
	web.Annotations[herald.AnnotationPool] = "own"
	w.put(web)
	return w, l, web
}

// TestNoAddressIsGivenForAClaimThatIsDeleted has a Service that wants an address of the pool again when its claim was just deleted, and
// the caches still have the claim.
func TestNoAddressIsGivenForAClaimThatIsDeleted(t *testing.T) {
	w, l, web := grantedAndNotWanted(t)
	w.claimed(l)
	delete(web.Annotations, herald.AnnotationPool)
	w.wait(web)
	w.recordsAre()
	w.claimed(l, "herald-web-ipv4-0")
}

// TestAServiceGetsTheAddressOfAClaimThatIsNotDeleted has a claim that nobody needs and whose deletion fails. Then its Service needs it
// again.
func TestAServiceGetsTheAddressOfAClaimThatIsNotDeleted(t *testing.T) {
	w, l, web := grantedAndNotWanted(t)
	refusal := apierrors.NewForbidden(claimsGroup, "", errors.New("denied by policy"))
	l.refuses = func(string, string) error { return refusal }
	if err := w.claim(l); !errors.Is(err, refusal) {
		t.Fatalf("error %v, want the refusal", err)
	}
	delete(web.Annotations, herald.AnnotationPool)
	w.wait(web)
	w.claims.changes.capacity.reset()
	w.claimed(l, "herald-web-ipv4-0")
	select {
	case <-w.claims.changes.capacity:
	default:
		t.Error("the Services that wait are not tried again")
	}
	if _, err := w.serve(web); err != nil {
		t.Error(err)
	}
}

// TestAClaimGivesOneAddress has another system that changes its answer while the address is in use, by two Services that share it, and
// one of them moves.
func TestAClaimGivesOneAddress(t *testing.T) {
	w, l := newWorld(t), newLender()
	w.pool("lent", lent())
	stays, moves := sharingPort(service("stays", four), 80), sharingPort(service("moves", four), 443)
	w.grantedTo(l, moves, "198.51.100.1")
	for _, svc := range []*corev1.Service{moves, stays} {
		if got, err := w.serve(svc); err != nil || !slices.Equal(got, []string{"198.51.100.1"}) {
			t.Errorf("%s has %q, %v", svc.Name, got, err)
		}
	}
	l.grants("herald-moves-ipv4-0", "198.51.100.2")
	w.claimed(l, "herald-moves-ipv4-0")
	moves.Annotations[herald.AnnotationRenumber] = "198.51.100.1"
	w.wait(moves)
	w.claimed(l, "herald-moves-ipv4-0", "herald-moves-ipv4-1")
	l.grants("herald-moves-ipv4-1", "198.51.100.3")
	w.claimed(l, "herald-moves-ipv4-0", "herald-moves-ipv4-1")
	if got, err := w.serve(moves); err != nil || !slices.Equal(got, []string{"198.51.100.3"}) {
		t.Errorf("moves has %q, %v", got, err)
	}
	if _, err := w.serve(moves); err != nil { // Its status no longer has the address that it left.
		t.Error(err)
	}
	w.reconcile()
	w.recordsAre("198.51.100.1 lent default/stays", "198.51.100.3 lent default/moves")
	w.claimed(l, "herald-moves-ipv4-0", "herald-moves-ipv4-1")
}

// interrupting is an API server in which something else happens once after a record was read.
type interrupting struct {
	recordsAPI
	then func()
}

func (i interrupting) Get(ctx context.Context, name string, opts metav1.GetOptions) (*herald.IPAllocation, error) {
	rec, err := i.recordsAPI.Get(ctx, name, opts)
	i.then()
	return rec, err
}

// TestARecordStaysKnownWhenAServiceThatSharesItsAddressIsRefused has two Services that share a granted address. One is recorded after the
// other has found that there is no record.
func TestARecordStaysKnownWhenAServiceThatSharesItsAddressIsRefused(t *testing.T) {
	w, l := newWorld(t), newLender()
	w.pool("lent", lent())
	first, second := sharingPort(service("first", four), 80), sharingPort(service("second", four), 443)
	w.grantedTo(l, first, "198.51.100.1")
	w.put(second)
	w.records.api = interrupting{w.recordsAPI, func() {
		w.records.api = w.recordsAPI
		if _, err := w.serve(first); err != nil {
			t.Error(err)
		}
	}}
	if err := w.records.ensure(t.Context(), given("198.51.100.1", "lent", "second"), ownerEntry(second), ""); !errors.Is(err, errUngranted) {
		t.Error(err)
	}
	w.recordsAre("198.51.100.1 lent default/first")
	if !w.projection.upToDate(first) {
		t.Error("the Service that is recorded is synced again")
	}
}

// TestARecordStaysKnownWhenAnAddressIsNotGrantedAnyMore has two Services that share a granted address. The record of one is written at the
// moment at which the other finds that the address is not granted any more.
func TestARecordStaysKnownWhenAnAddressIsNotGrantedAnyMore(t *testing.T) {
	w := newWorld(t)
	w.pool("lent", lent(func(o *herald.IPPool) { o.Spec.Addresses = []herald.AddressRange{"198.18.0.0/20"} }))
	first, second := sharingPort(service("first", four), 80), sharingPort(service("second", four), 443)
	tenants := []ipam.Tenant{{Owner: owner(first), Sharing: sharing(first)}, {Owner: owner(second), Sharing: sharing(second)}}
	address := addresses("198.18.0.0")[0]
	for range 4000 {
		address = address.Next()
		a := ipam.Allocation{Address: address, Pool: "lent"}
		if _, err := w.ledger.alloc.Replace(address, a.Pool, tenants); err != nil {
			t.Fatal(err)
		}
		recorded := make(chan error, 1)
		go func() {
			_, err := w.records.learn(recordOf(a, herald.LoadBalancerClass, ownerEntry(first)))
			recorded <- err
		}()
		w.loadBalancers.dropUngranted([]ipam.Allocation{a}, &Grants{})
		if err := <-recorded; err != nil {
			t.Fatal(err)
		}
		if holders, _ := w.ledger.holders(address); !w.ledger.recorded(address) || len(holders) == 0 {
			t.Fatalf("%s is recorded, and the ledger gives it to %v", address, holders)
		}
	}
}

// TestAnAddressThatIsSharedOrKeptIsGivenOnlyWhileItIsGranted has a Service that is about to share, or to take back, an address that is
// neither recorded nor granted any more.
func TestAnAddressThatIsSharedOrKeptIsGivenOnlyWhileItIsGranted(t *testing.T) {
	t.Run("shared with a Service that is gone", func(t *testing.T) {
		w, l := newWorld(t), newLender()
		w.pool("lent", lent())
		first, second := sharingPort(service("first", four), 80), sharingPort(service("second", four), 443)
		w.grantedTo(l, first, "198.51.100.1")
		w.waiting.serve()
		delete(l.answers, "herald-first-ipv4-0")
		w.put(second)
		_ = w.services.Delete(first)
		_ = w.claim(l)
		w.wait(second)
		w.recordsAre()
		_ = w.claim(l)
		l.grants("herald-second-ipv4-0", "198.51.100.2")
		_ = w.claim(l)
		if got, err := w.serve(second); err != nil || !slices.Equal(got, []string{"198.51.100.2"}) {
			t.Errorf("second has %q, %v", got, err)
		}
	})
	t.Run("shared, and the cache does not have the record yet", func(t *testing.T) {
		w, l := newWorld(t), newLender()
		w.pool("lent", lent())
		first, second := sharingPort(service("first", four), 80), sharingPort(service("second", four), 443)
		w.grantedTo(l, first, "198.51.100.1")
		if _, err := w.serve(first); err != nil {
			t.Error(err)
		}
		w.records.cache = cache.NewIndexer(cache.MetaNamespaceKeyFunc, recordIndexers)
		delete(l.answers, "herald-first-ipv4-0")
		w.claimed(l, "herald-first-ipv4-0")
		w.put(second)
		if got, err := w.serve(second); err != nil || !slices.Equal(got, []string{"198.51.100.1"}) {
			t.Errorf("second has %q, %v", got, err)
		}
		w.recordsAre("198.51.100.1 lent default/first default/second")
	})
	t.Run("kept for the name", func(t *testing.T) {
		w, l := newWorld(t), newLender()
		w.pool("lent", lent(func(o *herald.IPPool) { o.Spec.ReclaimPolicy = herald.ReclaimRetain }))
		web := service("web", four)
		w.grantedTo(l, web, "198.51.100.1")
		if _, err := w.serve(web); err != nil {
			t.Error(err)
		}
		w.gone(web)
		again := service("web", four)
		again.UID = "again"
		w.put(again)
		w.waiting.add(again)
		w.waiting.serve() // It is to take the address back.
		for _, o := range w.recordsAPI.cache.List() {
			_ = w.recordsAPI.cache.Delete(o) // No event says so yet.
		}
		w.wait(again)
		w.recordsAre()
		w.claimed(l, "herald-again-ipv4-0")
	})
}
