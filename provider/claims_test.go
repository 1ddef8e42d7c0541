package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	fakediscovery "k8s.io/client-go/discovery/fake"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	kubetesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// TestOneClaimThatCannotBeWrittenHoldsUpNoOther has an API server that refuses a claim for good, and one that cannot be asked for a
// Namespace.
func TestOneClaimThatCannotBeWrittenHoldsUpNoOther(t *testing.T) {
	w, l := newWorld(t), newLender()
	w.claims.report(w.claims.known, nil) // The claims can be read.
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
	if is := w.claims.condition(&herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: herald.IPPoolSpec{ExternalPoolRef: &corp}}); is == nil || is.Status != metav1.ConditionTrue || is.Message == "" {
		t.Errorf("the condition of another pool is %v", is)
	}
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

// undecodableUntil is a client for IPAllocations until the one that cannot be decoded is deleted.
type undecodableUntil struct {
	recordsAPI
	deleted atomic.Bool
	then    recordsAPI
}

func (u *undecodableUntil) Get(ctx context.Context, name string, options metav1.GetOptions) (*herald.IPAllocation, error) {
	if u.deleted.Load() {
		return u.then.Get(ctx, name, options)
	}
	return u.recordsAPI.Get(ctx, name, options)
}

// TestAClaimStaysWhileARecordThatMayNameItCannotBeDecoded has a claim for a Service that is gone. The record of the granted address cannot
// be decoded, so it may name the claim. That is logged once. When the record is deleted, which no informer reports, the claim is, too.
func TestAClaimStaysWhileARecordThatMayNameItCannotBeDecoded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.pool("lent", lent())
		record := &undecodableUntil{recordsAPI: &undecodable{w.recordsAPI, "198.51.100.1"}, then: w.recordsAPI}
		w.records.api = record
		w.kube.Discovery().(*fakediscovery.FakeDiscovery).Resources = []*metav1.APIResourceList{{
			GroupVersion: IPAMGroup + "/v1beta2", APIResources: []metav1.APIResource{{Name: claimsResource}, {Name: grantsResource}},
		}}
		claims := w.claims.resource("v1beta2", claimsResource)
		left := newClaim(owner(service("web", four)), ipam.Want{Pool: "lent", Family: ipam.IPv4}, corp, 0).object("v1beta2", herald.LoadBalancerClass)
		granted := answer(left.GetName(), "198.51.100.1")
		left.SetNamespace("herald-system")
		granted.SetAPIVersion(IPAMGroup + "/v1beta2")
		granted.SetKind("IPAddress")
		granted.SetNamespace("herald-system")
		w.claims.namespace = "herald-system"
		w.claims.dynamic = dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
			claims: "IPAddressClaimList", w.claims.resource("v1beta2", grantsResource): "IPAddressList",
		}, left, granted)
		log, logged := observer.New(zap.WarnLevel)
		w.claims.log = zap.New(log)
		var running sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		running.Go(func() { _ = w.claims.run(ctx) })
		stays := func(want bool) {
			t.Helper()
			time.Sleep(3 * unreadableRetry)
			synctest.Wait()
			list, err := w.claims.dynamic.Resource(claims).Namespace("herald-system").List(t.Context(), metav1.ListOptions{})
			if err != nil || len(list.Items) > 0 != want {
				t.Errorf("%d claims are left, %v", len(list.Items), err)
			}
		}
		stays(true)
		if all := logged.All(); len(all) != 1 || !strings.Contains(fmt.Sprint(all[0].ContextMap()), left.GetName()) || !strings.Contains(fmt.Sprint(all[0].ContextMap()), "ipallocations/198.51.100.1 cannot be read") {
			t.Errorf("logged is %v", all)
		}
		record.deleted.Store(true)
		stays(false)
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
