package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/api"
	servicehelper "k8s.io/cloud-provider/service/helpers"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// unservedRetry is after what time a Service that cannot be served is tried again if nothing changes. It is tried at
// once when a pool changes or an address is freed, so this only bounds what was overlooked.
const unservedRetry = 10 * time.Minute

// loadBalancers implements cloudprovider.LoadBalancer: a Service is translated, its addresses are decided and recorded,
// and are then its status.
type loadBalancers struct {
	requests requests
	ledger   *ledger
	records  *records
	pools    *pools
	services *services
	waiting  *waiting
	changes  *changes
	events   record.EventRecorder
	metrics  *allocationMetrics
	log      *zap.Logger
}

// EnsureLoadBalancer gives the Service its addresses, records them, and returns them as its status. It is idempotent:
// the Service keeps what it has, and a second call writes nothing. The error of a Service that cannot be served is
// written for its owner, since it becomes the event SyncLoadBalancerFailed.
func (b *loadBalancers) EnsureLoadBalancer(ctx context.Context, _ string, svc *corev1.Service, _ []*corev1.Node) (*corev1.LoadBalancerStatus, error) {
	start := time.Now()
	allocations, err := b.ensure(ctx, svc)
	if err != nil {
		b.metrics.failed(err)
		if _, ok := errors.AsType[*unservedError](err); ok {
			err = api.NewRetryError(err.Error(), unservedRetry)
		}
		return nil, err
	}
	if had := Carried(svc); slices.ContainsFunc(allocations, func(a ipam.Allocation) bool { return !slices.Contains(had, a.Address) }) {
		b.metrics.duration.Observe(time.Since(start).Seconds())
	}
	return status(allocations), nil
}

// ensure gives and records what the Service asks for.
func (b *loadBalancers) ensure(ctx context.Context, svc *corev1.Service) ([]ipam.Allocation, error) {
	var refused []ipam.Allocation // what could not be recorded in the round before
	for ctx.Err() == nil {
		// It waits from before the decision, so that nothing that changes in between is missed.
		b.waiting.add(svc)
		req, err := b.requests.of(svc)
		if err != nil {
			return nil, b.refuse(ctx, svc, err, ipam.ErrInvalid)
		}
		allocations, notices, err := b.ledger.decide(svc, req, time.Now())
		if err != nil {
			return nil, b.refuse(ctx, svc, err, err)
		}
		if len(allocations) == wanted(req) {
			b.waiting.forget(svc) // If not, it prefers a second family that no pool has yet.
		}
		err = b.record(ctx, allocations, ownerEntry(svc))
		if errors.Is(err, errHeldByAnother) && !slices.Equal(allocations, refused) {
			// The ledger knows now who holds the address, so the next decision is another. If it is not, as when the
			// record of another class names this Service among others, the service controller tries again later.
			refused = allocations
			b.log.Warn("an address is recorded for another Service", zap.String("service", svc.Namespace+"/"+svc.Name), zap.Error(err))
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := b.releaseOthers(ctx, svc, allocations, always); err != nil {
			return nil, err
		}
		// What an earlier Service of the name left behind is not kept for it any longer.
		for _, a := range b.ledger.heldBy(req.Owner.Reservation()) {
			b.changes.record(a.Address)
		}
		b.changes.usage.set()
		for _, n := range append(notices, b.unannounced(svc, allocations)...) {
			b.events.Event(svc, corev1.EventTypeWarning, n.reason, n.message)
		}
		return allocations, nil
	}
	return nil, ctx.Err()
}

// unannounced returns what is to be said of addresses that the Service is given and that nothing announces.
func (b *loadBalancers) unannounced(svc *corev1.Service, allocations []ipam.Allocation) (list []notice) {
	for _, a := range allocations {
		if slices.Contains(Carried(svc), a.Address) {
			continue
		}
		n := notice{herald.EventNotAnnounced, b.pools.unannounced(a.Pool)}
		if n.message != "" && !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	return list
}

// record has every address recorded for the Service.
func (b *loadBalancers) record(ctx context.Context, allocations []ipam.Allocation, mine herald.AllocationOwner) error {
	for _, a := range allocations {
		if err := b.records.ensure(ctx, a, mine); err != nil {
			return fmt.Errorf("record %s: %w", a.Address, err)
		}
	}
	return nil
}

// releaseOthers releases what a Service holds beyond these addresses, except what its status still says: a Service that
// moves has both addresses until its status says the new one, and then the projection brings it here again. The API
// server is asked for the status, for the cache may lag behind.
func (b *loadBalancers) releaseOthers(ctx context.Context, svc *corev1.Service, keep []ipam.Allocation, policy reclaimPolicyOf) error {
	others := b.ledger.superfluous(owner(svc), keep)
	if len(others) == 0 {
		return nil
	}
	now, err := b.services.fetch(ctx, svc.Namespace, svc.Name)
	if err != nil {
		return err
	}
	if now == nil || now.UID != svc.UID {
		return nil // It is gone, and the reconciler releases what it held.
	}
	for _, old := range others {
		if slices.Contains(Carried(now), old.Address) {
			continue
		}
		if err := b.records.release(ctx, old.Address, owner(svc), policy); err != nil {
			return err
		}
	}
	return nil
}

// refuse returns why a Service cannot have what it asks for. It keeps what it has, but a move that is over is brought
// to its end, and what was recorded for it and never was in its status is released.
func (b *loadBalancers) refuse(ctx context.Context, svc *corev1.Service, why, reason error) error {
	keep, policy := b.ledger.carriedFirst(svc), reclaimPolicyOf(always)
	if len(Carried(svc)) == 0 && len(keep) > 0 {
		now, err := b.services.fetch(ctx, svc.Namespace, svc.Name)
		if err != nil {
			return err
		}
		// The first addresses and the finalizer are written at once.
		if now != nil && !servicehelper.HasLBFinalizer(now) {
			keep, policy = nil, b.records.reclaims(ownerEntry(svc).ReclaimPolicy)
		}
	}
	if err := b.releaseOthers(ctx, svc, keep, policy); err != nil {
		return err
	}
	return &unservedError{why, reason}
}

// unservedError is of a Service that cannot be served until somebody changes something.
type unservedError struct {
	why    error
	reason error // one of ipam's
}

func (e *unservedError) Error() string { return Words(e.why) }
func (e *unservedError) Unwrap() error { return e.reason }

// EnsureLoadBalancerDeleted releases what the Service holds. The Service still exists when this is called, and may still
// be announced: the addresses cool down before they are given out again, or are kept for its name. What a controller of
// another class gave it is that controller's to release.
func (b *loadBalancers) EnsureLoadBalancerDeleted(ctx context.Context, _ string, svc *corev1.Service) error {
	b.waiting.forget(svc)
	policy := b.records.reclaims(ownerEntry(svc).ReclaimPolicy)
	for _, a := range b.ledger.oursHeldBy(owner(svc)) {
		if err := b.records.release(ctx, a.Address, owner(svc), policy); err != nil {
			return fmt.Errorf("release %s: %w", a.Address, err)
		}
	}
	b.changes.usage.set()
	return nil
}

// GetLoadBalancer answers from the ledger, not from the Service: on a change of type the API server clears the status in
// the same write.
func (b *loadBalancers) GetLoadBalancer(_ context.Context, _ string, svc *corev1.Service) (*corev1.LoadBalancerStatus, bool, error) {
	b.waiting.forget(svc)
	held := b.ledger.oursHeldBy(owner(svc))
	if len(held) == 0 {
		return nil, false, nil
	}
	return status(held), true, nil
}

// GetLoadBalancerName names the load balancer for logs.
func (b *loadBalancers) GetLoadBalancerName(_ context.Context, _ string, svc *corev1.Service) string {
	return svc.Namespace + "/" + svc.Name
}

// UpdateLoadBalancer does nothing: the speakers decide which nodes serve.
func (b *loadBalancers) UpdateLoadBalancer(context.Context, string, *corev1.Service, []*corev1.Node) error {
	return cloudprovider.ImplementedElsewhere
}
