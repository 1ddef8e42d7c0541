package provider

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	herald "github.com/heraldlb/herald/api/v1alpha1"
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
		asked = append(asked, readClaim(u))
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

// sharingPort makes a Service share its address, with one port.
func sharingPort(svc *corev1.Service, port int32) *corev1.Service {
	svc.Annotations[herald.AnnotationSharingKey] = "k"
	svc.Spec.Ports = []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: port}}
	return svc
}
