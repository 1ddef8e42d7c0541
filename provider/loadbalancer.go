package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/api"

	"github.com/heraldlb/herald/ipam"
)

// unservedRetry is how long a Service that cannot be served is left alone if nothing changes. It is
// tried at once when a pool changes or an address is freed, so this only bounds what was overlooked.
const unservedRetry = 10 * time.Minute

// GetLoadBalancer answers from the ledger, not from the Service: on a change of type the API server
// wipes the status in the same write.
func (p *Provider) GetLoadBalancer(_ context.Context, _ string, svc *corev1.Service) (*corev1.LoadBalancerStatus, bool, error) {
	p.waiting.forget(svc)
	held := p.ledger.heldBy(owner(svc))
	if len(held) == 0 {
		return nil, false, nil
	}
	return status(held), true, nil
}

// GetLoadBalancerName names the load balancer for logs.
func (p *Provider) GetLoadBalancerName(_ context.Context, _ string, svc *corev1.Service) string {
	return svc.Namespace + "/" + svc.Name
}

// EnsureLoadBalancer gives the Service its addresses, records them, and returns them as its status. It
// is idempotent: what the Service has it keeps, and a second call writes nothing. The error of a Service
// that cannot be served is written for its owner, since it becomes the event SyncLoadBalancerFailed.
func (p *Provider) EnsureLoadBalancer(ctx context.Context, _ string, svc *corev1.Service, _ []*corev1.Node) (*corev1.LoadBalancerStatus, error) {
	start := time.Now()
	allocations, err := p.ensure(ctx, svc)
	if err != nil {
		p.metrics.failed(err)
		if _, ok := errors.AsType[*unservedError](err); ok {
			err = api.NewRetryError(err.Error(), unservedRetry)
		}
		return nil, err
	}
	if had := Carried(svc); slices.ContainsFunc(allocations, func(a ipam.Allocation) bool { return !slices.Contains(had, a.Address) }) {
		p.metrics.duration.Observe(time.Since(start).Seconds())
	}
	return status(allocations), nil
}

// unservedError is of a Service that cannot be served until its owner, or somebody, does something.
type unservedError struct {
	why    error
	reason error // one of ipam's
}

func (e *unservedError) Error() string { return e.why.Error() }
func (e *unservedError) Unwrap() error { return e.reason }

// ensure gives and records what the Service asks for.
func (p *Provider) ensure(ctx context.Context, svc *corev1.Service) ([]ipam.Allocation, error) {
	for ctx.Err() == nil {
		// It waits from before the look, so that nothing that changes in between is missed.
		p.waiting.add(svc)
		req, err := p.request(svc)
		if err != nil {
			return nil, p.refuse(ctx, svc, err, ipam.ErrInvalid)
		}
		allocations, notices, err := p.allocate(svc, req)
		if err != nil {
			return nil, p.refuse(ctx, svc, err, err)
		}
		if len(allocations) == len(req.Families) {
			p.waiting.forget(svc) // If not, it prefers a second family that no pool has yet.
		}
		err = p.recordAll(ctx, allocations, svc)
		if errors.Is(err, errHeldByAnother) {
			// The ledger has learned whose the address is; each round rules out one address.
			p.log.Warn("an address is recorded for another Service", zap.String("service", svc.Namespace+"/"+svc.Name), zap.Error(err))
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := p.part(ctx, svc, allocations); err != nil {
			return nil, err
		}
		p.records.nameServed(svc)
		p.pools.usageChanged()
		for _, n := range notices {
			p.events.Event(svc, corev1.EventTypeWarning, n.reason, n.message)
		}
		return allocations, nil
	}
	return nil, ctx.Err()
}

// refuse says why a Service cannot have what it asks for. It keeps what it has; but a move that was done before is
// brought to its end.
func (p *Provider) refuse(ctx context.Context, svc *corev1.Service, why, reason error) error {
	if err := p.part(ctx, svc, p.ledger.carriedFirst(svc)); err != nil {
		return err
	}
	return &unservedError{why, reason}
}

// part releases what a Service holds beyond these addresses, as far as its status does not say it any more: to make
// before it breaks, a Service that moves is brought here again by the projection when its status says the new address.
// What the status says is asked of the API server, for the cache may lag behind.
func (p *Provider) part(ctx context.Context, svc *corev1.Service, keep []ipam.Allocation) error {
	over := p.ledger.superfluous(owner(svc), keep)
	if len(over) == 0 {
		return nil
	}
	now, err := p.kube.CoreV1().Services(svc.Namespace).Get(ctx, svc.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err), err == nil && now.UID != svc.UID:
		return nil // It is gone, and what it held is orphaned.
	case err != nil:
		return err
	}
	for _, old := range over {
		if slices.Contains(Carried(now), old.Address) {
			continue
		}
		if err := p.records.release(ctx, old.Address, owner(svc), moved); err != nil {
			return err
		}
	}
	return nil
}

func (p *Provider) recordAll(ctx context.Context, allocations []ipam.Allocation, svc *corev1.Service) error {
	for _, a := range allocations {
		if err := p.records.ensure(ctx, a, svc); err != nil {
			return fmt.Errorf("record %s: %w", a.Address, err)
		}
	}
	return nil
}

// UpdateLoadBalancer has nothing to do: which nodes serve is the speakers' decision.
func (p *Provider) UpdateLoadBalancer(context.Context, string, *corev1.Service, []*corev1.Node) error {
	return cloudprovider.ImplementedElsewhere
}

// EnsureLoadBalancerDeleted releases what the Service holds. The Service is still there when this is
// called, and may still be announced: the addresses cool down before they are given out again, or are kept for its
// name.
func (p *Provider) EnsureLoadBalancerDeleted(ctx context.Context, _ string, svc *corev1.Service) error {
	p.waiting.forget(svc)
	policy := p.records.reclaims(entry(svc).ReclaimPolicy)
	for _, a := range p.ledger.heldBy(owner(svc)) {
		if err := p.records.release(ctx, a.Address, owner(svc), policy); err != nil {
			return fmt.Errorf("release %s: %w", a.Address, err)
		}
	}
	p.pools.usageChanged()
	return nil
}
