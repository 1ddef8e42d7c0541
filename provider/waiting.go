package provider

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// wakePeriod is the minimum time between two rounds through the waiting Services. If a round takes long because so
// many wait, the pause is ten times as long as the round. Rounds thus use at most a tenth of one processor.
const wakePeriod = 200 * time.Millisecond

// waiting has the Services that could not be served, or that have only some of the addresses that they ask for. When
// an address may have become free, they are tried in memory, the oldest first. Those for which there is an address
// now are passed to the service controller; the others cost neither an API call nor an event.
type waiting struct {
	services *services
	requests requests
	ledger   *ledger
	changes  *changes
	// upToDate reports whether a sync of a Service would change nothing. gone makes the reconciler check the
	// addresses of a deleted Service.
	upToDate func(*corev1.Service) bool
	gone     func(*corev1.Service)

	mu   sync.Mutex
	uids map[types.NamespacedName]types.UID
}

func (w *waiting) add(svc *corev1.Service) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.uids[serviceName(svc)] = svc.UID
}

func (w *waiting) forget(svc *corev1.Service) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.uids[serviceName(svc)] == svc.UID { // Another Service of the same name may wait.
		delete(w.uids, serviceName(svc))
	}
}

func (w *waiting) waits(svc *corev1.Service) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.uids[serviceName(svc)] == svc.UID
}

// list returns the Services that may still have an address that we record, oldest first.
func (w *waiting) list() []*corev1.Service {
	w.mu.Lock()
	all := make([]*corev1.Service, 0, len(w.uids))
	for n, uid := range w.uids {
		if svc := w.services.named(n.Namespace, n.Name); svc != nil && svc.UID == uid {
			all = append(all, svc)
		} else {
			delete(w.uids, n) // The Service was deleted while it was added.
		}
	}
	w.mu.Unlock()
	return oldestFirst(all, w.services.mayHold)
}

func (w *waiting) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.changes.capacity:
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
	defer w.changes.claims.set() // A Service may have had to wait for the quota before an address could be claimed for it.
	for _, svc := range w.list() {
		if w.services.elsewhere(svc) {
			w.changes.serve(svc) // If its addresses are refused again, this costs no API call.
			continue
		}
		namespace := w.requests.namespace(svc.Namespace)
		if namespace == nil {
			continue // It may have a quota. When the cache has it, the Service is tried again.
		}
		req, err := w.requests.of(svc, namespace)
		if err != nil {
			continue
		}
		if _, _, err := w.ledger.decide(svc, req, time.Now()); err != nil {
			continue
		}
		// Read waits before now: then whoever ended the wait had read the version in now, or an older one.
		waits := w.waits(svc)
		switch now := w.services.of(req.Owner); {
		case now == nil:
			w.gone(svc) // The Service was deleted in between, and asks for nothing any more.
		case !waits && now.ResourceVersion == svc.ResourceVersion: // It was served in between, and the cache does not have its status yet.
		case !w.upToDate(now):
			w.changes.serve(svc)
		}
	}
}

func serviceName(svc *corev1.Service) types.NamespacedName {
	return types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}
}
