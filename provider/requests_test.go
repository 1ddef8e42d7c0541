package provider

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubetesting "k8s.io/client-go/testing"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// newNamespace returns a world in which Namespace default is so new that the cache does not have it. Its quota is one IPv4
// address.
func newNamespace(t *testing.T) *world {
	w := newWorld(t)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default", Annotations: map[string]string{herald.AnnotationQuota: "ipv4=1"}}}
	_ = w.namespaces.Delete(namespace)
	if err := w.kube.Tracker().Add(namespace); err != nil {
		t.Fatal(err)
	}
	w.pool("public", public(announcing))
	return w
}

func TestTheQuotaOfANewNamespaceCounts(t *testing.T) {
	w := newNamespace(t)
	web, mail := service("web", four), service("mail", four)
	if _, err := w.serve(web); err != nil {
		t.Error(err)
	}
	if got, err := w.serve(mail); err == nil || !strings.Contains(err.Error(), "its quota is 1") {
		t.Errorf("a second Service was given %v (%v)", got, err)
	}
	w.waiting.serve()
	if held := w.ledger.heldBy(owner(mail)); len(held) > 0 || len(w.queued.names) > 0 {
		t.Errorf("while it waited it was given %v", held)
	}
	w.recordsAre("198.51.100.0 public default/web")
}

func TestTheQuotaOfANewNamespaceCountsForOthers(t *testing.T) {
	w := newNamespace(t)
	gw := gateway("gw", "198.51.100.2", "198.51.100.3")
	w.put(gw)
	w.others.adopt(t.Context())
	w.see(gw)
	w.recordsAre("198.51.100.2 public default/gw")
	w.eventsSay("198.51.100.3, which is not announced: namespace default holds 1 IPv4 addresses")
}

// TestNoAddressIsGivenWhileANamespaceIsNotKnown has an API server that does not return a new Namespace.
func TestNoAddressIsGivenWhileANamespaceIsNotKnown(t *testing.T) {
	w := newNamespace(t)
	down := errors.New("the API server is down")
	w.kube.PrependReactor("list", "namespaces", func(kubetesting.Action) (bool, runtime.Object, error) { return true, nil, down })
	if got, err := w.serve(service("web", four)); !errors.Is(err, down) {
		t.Errorf("it was given %v (%v)", got, err)
	}
	w.recordsAre()
}

// TestANameInANewNamespaceKeepsItsAddress has an address that is kept for the name of a Service.
func TestANameInANewNamespaceKeepsItsAddress(t *testing.T) {
	w := newNamespace(t)
	rec := recordOf(given("198.51.100.0", "public", "web"), herald.LoadBalancerClass, herald.AllocationOwner{Namespace: "default", Name: "web"})
	if _, err := w.recordsAPI.put(rec); err != nil {
		t.Fatal(err)
	}
	w.reconcile()
	w.recordsAre("198.51.100.0 public ~default/web")
	if err := w.kube.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("namespaces"), "", "default"); err != nil {
		t.Fatal(err)
	}
	w.changes.queue.Add("198.51.100.0")
	w.reconcile()
	w.recordsAre()
}
