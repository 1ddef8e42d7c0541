package provider

import (
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// wakePeriod bounds how often the waiting Services are gone through. Where so many wait that it takes long, the
// pause is ten times as long: it costs a tenth of one processor at most, whatever happens how often.
const wakePeriod = 200 * time.Millisecond

// waiting is the Services that could not be served, or have but one of the families that they prefer. When an
// address may have become free they are tried in memory, the oldest first, and those that now have one go to the
// service controller; the others cost neither an API call nor an event.
type waiting struct {
	p     *Provider
	woken chan struct{}

	mu       sync.Mutex
	services map[types.NamespacedName]types.UID
}

func newWaiting(p *Provider) *waiting {
	return &waiting{p: p, woken: make(chan struct{}, 1), services: map[types.NamespacedName]types.UID{}}
}

func (w *waiting) add(svc *corev1.Service) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.services[name(svc)] = svc.UID
}

func (w *waiting) forget(svc *corev1.Service) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.services, name(svc))
}

// list returns those that still want an address from us, by age.
func (w *waiting) list() []*corev1.Service {
	w.mu.Lock()
	all := make([]*corev1.Service, 0, len(w.services))
	for n, uid := range w.services {
		if svc, err := w.p.services.Services(n.Namespace).Get(n.Name); err == nil && svc.UID == uid {
			all = append(all, svc)
		}
	}
	w.mu.Unlock()
	return oldestFirst(all, w.p.projection.serves)
}

// wake has the waiting Services tried soon. It does not block, and many calls count as one.
func (w *waiting) wake() { pull(w.woken) }

func (w *waiting) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.woken:
		}
		start := time.Now()
		w.serve()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(max(wakePeriod, 10*time.Since(start))):
		}
	}
}

func (w *waiting) serve() {
	for _, svc := range w.list() {
		req, err := w.p.request(svc)
		if err != nil {
			continue
		}
		if _, _, err := w.p.ledger.allocate(svc, req); err != nil {
			continue
		}
		if w.p.records.service(req.Owner) == nil {
			w.p.records.serviceGone(svc) // It was deleted in between, and asks for nothing any more.
		} else if !w.p.projection.content(svc) {
			w.p.projection.requeue(svc)
		}
	}
}

// oldestFirst returns, by age, those of the Services that are chosen and not on their way out.
func oldestFirst(all []*corev1.Service, chosen func(*corev1.Service) bool) []*corev1.Service {
	all = slices.DeleteFunc(all, func(svc *corev1.Service) bool { return svc.DeletionTimestamp != nil || !chosen(svc) })
	slices.SortFunc(all, func(x, y *corev1.Service) int { return Older(x, y) })
	return all
}

func name(svc *corev1.Service) types.NamespacedName {
	return types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}
}
