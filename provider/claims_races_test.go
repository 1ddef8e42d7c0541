package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

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
			w.claims.report(w.claims.known, nil)
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

// TestAGrantThatIsLostAfterItIsRecordedIsOneAddress has a grant that changes after the address was recorded. The answer to that write was
// lost, and the cache does not have the record yet.
func TestAGrantThatIsLostAfterItIsRecordedIsOneAddress(t *testing.T) {
	for name, look := range map[string]func(*world, *lender, *corev1.Service){
		"the Service is synced": func(w *world, l *lender, web *corev1.Service) {
			asked, granted := l.seen()
			w.claims.know(newGrants(w.claims.namespace, asked, granted, w.ledger.external(), w.records.haveClaim))
			if got, err := w.serve(web); err != nil || !slices.Equal(got, []string{"198.51.100.1"}) {
				t.Errorf("web has %q, %v", got, err)
			}
		},
		"the claims are compared": func(w *world, l *lender, _ *corev1.Service) { w.claimed(l, "herald-web-ipv4-0") },
	} {
		t.Run(name, func(t *testing.T) {
			w, l := newWorld(t), newLender()
			w.pool("lent", lent())
			web := service("web", four)
			w.grantedTo(l, web, "198.51.100.1")
			w.records.cache, w.records.api = cache.NewIndexer(cache.MetaNamespaceKeyFunc, recordIndexers), unanswered{w.recordsAPI}
			if _, err := w.serve(web); err == nil {
				t.Fatal("the write is answered")
			}
			w.records.api = w.recordsAPI
			l.grants("herald-web-ipv4-0", "198.51.100.2")
			look(w, l, web)
			w.recordsAre("198.51.100.1 lent default/web")
			if holders, _ := w.ledger.holders(addresses("198.51.100.1")[0]); len(holders) != 1 || !w.ledger.recorded(holders[0].Address) {
				t.Errorf("198.51.100.1 has the holders %v, and is not known to be recorded", holders)
			}
		})
	}
}

// unanswered is an API server that creates records, and whose answers are lost.
type unanswered struct{ recordsAPI }

func (u unanswered) Create(ctx context.Context, rec *herald.IPAllocation, opts metav1.CreateOptions) (*herald.IPAllocation, error) {
	if _, err := u.recordsAPI.Create(ctx, rec, opts); err != nil {
		return nil, err
	}
	return nil, errLost
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

// TestAGrantIsNotLostWhileClaimsCannotBeRead asks for the condition of a pool at the moments at which claims cannot be read any more, and
// at which they can be read again.
func TestAGrantIsNotLostWhileClaimsCannotBeRead(t *testing.T) {
	w, l := newWorld(t), newLender()
	o := w.pool("lent", lent())
	web := service("web", four)
	w.grantedTo(l, web, "198.51.100.1")
	if _, err := w.serve(web); err != nil {
		t.Fatal(err)
	}
	w.claimed(l, "herald-web-ipv4-0")
	read, between := w.claims.known, func() {}
	w.records.cache = interruptedIndexer{w.records.cache, func() { between() }}
	for _, change := range []struct {
		between func()
		want    string
	}{
		{func() {}, herald.ReasonGranted},
		{func() { w.claims.report(w.claims.unread(), errors.New("not now")) }, herald.ReasonNotReadable},
		{func() { w.claims.report(read, nil) }, herald.ReasonGranted},
	} {
		between = change.between
		if is := w.claims.condition(o); is.Reason != change.want {
			t.Errorf("the reason is %s (%s), want %s", is.Reason, is.Message, change.want)
		}
	}
}

// interruptedIndexer is a cache in which something happens before an index is read.
type interruptedIndexer struct {
	cache.Indexer
	then func()
}

func (i interruptedIndexer) ByIndex(name, value string) ([]any, error) {
	i.then()
	return i.Indexer.ByIndex(name, value)
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
		if _, err := w.loadBalancers.dropUngranted(t.Context(), []ipam.Allocation{a}, &Grants{}); err != nil {
			t.Fatal(err)
		}
		if err := <-recorded; err != nil {
			t.Fatal(err)
		}
		if holders, _ := w.ledger.holders(address); !w.ledger.recorded(address) || len(holders) == 0 {
			t.Fatalf("%s is recorded, and the ledger gives it to %v", address, holders)
		}
	}
}
