package provider

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
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

// unservedRetry is the delay after which a Service that cannot be served is retried if nothing changes. It is retried at
// once when a pool changes or an address is freed, so this is only the limit for changes that were missed.
const unservedRetry = 10 * time.Minute

// loadBalancers implements cloudprovider.LoadBalancer: it translates a Service, decides about its addresses and records
// them. The addresses then become the Service's status.
type loadBalancers struct {
	requests requests
	ledger   *ledger
	records  *records
	untold   *untold
	services *services
	waiting  *waiting
	claims   *claims
	changes  *changes
	retries  *retries
	events   record.EventRecorder
	metrics  *allocationMetrics
	log      *zap.Logger
}

// EnsureLoadBalancer gives the Service its addresses, records them, and returns them as its status. It is idempotent:
// the Service keeps its addresses, and a second call writes nothing. If a Service cannot be served, the error is written
// for the owner of the Service, because it becomes the event SyncLoadBalancerFailed.
func (b *loadBalancers) EnsureLoadBalancer(ctx context.Context, _ string, svc *corev1.Service, _ []*corev1.Node) (_ *corev1.LoadBalancerStatus, err error) {
	name, start := serviceName(svc), time.Now()
	defer b.changes.claims.set()
	defer func() { b.retries.failed(name, err) }()
	if svc = b.services.of(owner(svc)); svc == nil || !b.services.wants(svc) { // The controller has only a part of it.
		return nil, cloudprovider.ImplementedElsewhere
	}
	if left, stays, err := b.leave(ctx, svc); left || err != nil {
		return status(stays), err
	}
	allocations, err := b.ensure(ctx, svc)
	if err != nil {
		b.metrics.failed(err)
		if _, ok := errors.AsType[*unservedError](err); ok {
			err = api.NewRetryError(err.Error(), unservedRetry)
		}
		return nil, err
	}
	if now := b.services.of(owner(svc)); now == nil || !b.services.wants(now) {
		// The service controller must write nothing. The event of that change has queued the Service again.
		return nil, cloudprovider.ImplementedElsewhere
	}
	if had := Carried(svc); slices.ContainsFunc(allocations, func(a ipam.Allocation) bool { return !slices.Contains(had, a.Address) }) {
		b.metrics.duration.Observe(time.Since(start).Seconds())
	}
	return status(allocations), nil
}

// leave takes addresses away from a Service that shares them with a Service of another namespace and now has one of the ports of
// that Service: kube-proxy could send the traffic for the other Service to this one. The addresses leave the status first: left
// is then true, and stays has the addresses that the status keeps. Once the status is without the others, they are released.
func (b *loadBalancers) leave(ctx context.Context, svc *corev1.Service) (left bool, stays []ipam.Allocation, err error) {
	clashes := b.ledger.clashes(svc)
	if len(clashes) == 0 {
		return false, nil, nil
	}
	for _, a := range Carried(svc) {
		if slices.Contains(clashes, a) {
			left = true
		} else {
			stays = append(stays, ipam.Allocation{Address: a})
		}
	}
	if left {
		b.events.Eventf(svc, corev1.EventTypeWarning, herald.EventNotShared,
			"a Service of another namespace shares %s and has one of the ports of this Service, which therefore loses the address", join(clashes))
		return true, stays, nil
	}
	for _, a := range clashes {
		if err := b.records.release(ctx, a, owner(svc), always); err != nil {
			return false, nil, fmt.Errorf("release %s: %w", a, err)
		}
	}
	return false, nil, nil
}

func join(addresses []netip.Addr) string {
	texts := make([]string, len(addresses))
	for i, a := range addresses {
		texts[i] = a.String()
	}
	return strings.Join(texts, ", ")
}

// ensure assigns and records what the Service asks for.
func (b *loadBalancers) ensure(ctx context.Context, svc *corev1.Service) ([]ipam.Allocation, error) {
	var refused []ipam.Allocation // the allocations that could not be recorded in the last round
	for ctx.Err() == nil {
		// The Service waits from before the decision, so that no change in between is missed.
		b.waiting.add(svc)
		before := b.ledger.heldBy(owner(svc))
		namespace, err := b.requests.find(ctx, svc.Namespace)
		if err != nil {
			return nil, err
		}
		grants := b.requests.grants.Load()
		req, err := b.requests.with(grants, svc, namespace)
		if err != nil {
			return nil, b.refuse(ctx, svc, before, err, ipam.ErrInvalid)
		}
		if err := b.records.dropUngranted(ctx, svc, req); err != nil {
			return nil, err
		}
		allocations, notices, err := b.ledger.decide(svc, req, time.Now())
		if err != nil {
			return nil, b.refuse(ctx, svc, before, b.claims.tell(svc, req, err), err)
		}
		if grants != b.requests.grants.Load() {
			// The grants have changed since the decision, so the claim for the address may be about to be deleted. If they had not
			// changed, claims.sync would still find that the Service holds the address, and keep the claim.
			continue
		}
		if dropped, err := b.dropUngranted(ctx, allocations, grants); err != nil {
			return nil, err
		} else if dropped {
			continue
		}
		if len(allocations) == wanted(req) {
			b.waiting.forget(svc) // If some are missing, the Service prefers a second family that no pool has yet.
		}
		err = b.record(ctx, allocations, ownerEntry(svc), grants)
		if (errors.Is(err, errHeldByAnother) || errors.Is(err, errUngranted)) && !slices.Equal(allocations, refused) {
			// The ledger now knows the holder of the address, so the next decision usually is a different one. If it is the
			// same, for example because a record of another class names this Service among others, the service controller
			// retries later.
			refused = allocations
			b.log.Warn("an address cannot be recorded for a Service", zap.String("service", svc.Namespace+"/"+svc.Name), zap.Error(err))
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := b.releaseUncarried(ctx, svc, b.ledger.superfluous(owner(svc), allocations), always); err != nil {
			return nil, err
		}
		// Addresses that are kept for the name, from an earlier Service, are no longer needed.
		for _, a := range b.ledger.heldBy(req.Owner.Reservation()) {
			b.changes.record(a.Address)
		}
		b.changes.usage.set()
		for _, n := range notices {
			b.events.Event(svc, corev1.EventTypeWarning, n.reason, n.message)
		}
		had := Carried(svc)
		b.untold.addNew(svc, slices.DeleteFunc(slices.Clone(allocations), func(a ipam.Allocation) bool { return slices.Contains(had, a.Address) }))
		return allocations, nil
	}
	return nil, ctx.Err()
}

// dropUngranted makes all holders of an address lose it, in memory, if another system must grant it, and it neither is granted to one of
// them, nor recorded, nor in the status of one. A Service may be about to share an address of a Service that is gone.
func (b *loadBalancers) dropUngranted(ctx context.Context, allocations []ipam.Allocation, grants *Grants) (dropped bool, _ error) {
	for _, a := range allocations {
		keeps := func(holders []ipam.Allocation) bool {
			return grants.claimFor(a.Address, holders) != "" || slices.ContainsFunc(holders, func(h ipam.Allocation) bool {
				svc := b.services.of(h.Owner)
				return svc != nil && slices.Contains(Carried(svc), a.Address)
			})
		}
		if !b.ledger.mayBeUngranted(a, keeps) {
			continue
		}
		none, err := b.records.confirm(ctx, a.Address)
		if err != nil {
			return dropped, err
		}
		dropped = none && b.ledger.withdraw(a, keeps) || dropped
	}
	return dropped, nil
}

// record makes sure that every address is recorded for the Service, with the claim for which it was granted. grants are those
// that the decision was made with: a grant that is lost since then is reported, because the record names its claim.
func (b *loadBalancers) record(ctx context.Context, allocations []ipam.Allocation, mine herald.AllocationOwner, grants *Grants) error {
	for _, a := range allocations {
		holders, _ := b.ledger.holders(a.Address) // The claim may be that of another Service, which shares the address.
		if err := b.records.ensure(ctx, a, mine, grants.claimFor(a.Address, holders)); err != nil {
			return fmt.Errorf("record %s: %w", a.Address, err)
		}
	}
	return nil
}

// releaseUncarried releases addresses that a Service holds and need not keep, except those that its status still
// has. A Service that moves has both addresses until its status has the new one; then the projection queues it again.
// releaseUncarried gets the status from the API server, because the cache may lag behind.
func (b *loadBalancers) releaseUncarried(ctx context.Context, svc *corev1.Service, others []ipam.Allocation, policy reclaimPolicyOf) error {
	if len(others) == 0 {
		return nil
	}
	now, err := b.services.fetch(ctx, svc.Namespace, svc.Name)
	if err != nil {
		return err
	}
	if now == nil || now.UID != svc.UID {
		return nil // The Service is gone, and the reconciler releases its addresses.
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

// refuse returns why a Service cannot have what it asks for. The Service keeps its addresses. refuse also finishes a
// move that is over, and releases addresses that were recorded for the Service and were never in its status. before are the addresses
// that the Service held before the decision: waiting may have given it another one since, and has the Service synced again.
func (b *loadBalancers) refuse(ctx context.Context, svc *corev1.Service, before []ipam.Allocation, why, reason error) error {
	keep, policy := b.ledger.carriedFirst(svc), reclaimPolicyOf(always)
	if len(Carried(svc)) == 0 && len(keep) > 0 {
		now, err := b.services.fetch(ctx, svc.Namespace, svc.Name)
		if err != nil {
			return err
		}
		// The first addresses and the finalizer are written in one patch.
		if now != nil && !servicehelper.HasLBFinalizer(now) {
			keep, policy = nil, b.records.reclaims(ownerEntry(svc).ReclaimPolicy)
		}
	}
	others := slices.DeleteFunc(b.ledger.superfluous(owner(svc), keep), func(a ipam.Allocation) bool { return !contains(before, a.Address) })
	if err := b.releaseUncarried(ctx, svc, others, policy); err != nil {
		return err
	}
	return &unservedError{why, reason}
}

// EnsureLoadBalancerDeleted releases the addresses of the Service. The Service still exists at this time, and may still
// be announced: its addresses cool down before they are assigned again, or are kept for its name. Addresses from a
// controller of another class are left to that controller. If the Service has become one of another class, the addresses
// in its status are left to others.
func (b *loadBalancers) EnsureLoadBalancerDeleted(ctx context.Context, _ string, svc *corev1.Service) (err error) {
	defer b.changes.claims.set()
	defer func() { b.retries.failed(serviceName(svc), err) }()
	b.waiting.forget(svc)
	reclaim := b.records.reclaims(ownerEntry(svc).ReclaimPolicy)
	now := b.services.of(owner(svc))
	for _, a := range b.ledger.oursHeldBy(owner(svc)) {
		if now != nil && b.services.elsewhere(now) && slices.Contains(Carried(now), a.Address) {
			continue
		}
		policy := reclaim
		if now != nil && len(Carried(now)) > 0 && !slices.Contains(Carried(now), a.Address) {
			policy = unlessReserved // It is left over from a move, and one address is kept for the name.
		}
		if err := b.records.release(ctx, a.Address, owner(svc), policy); err != nil {
			return fmt.Errorf("release %s: %w", a.Address, err)
		}
	}
	b.changes.usage.set()
	return nil
}

// GetLoadBalancer answers from the ledger and not from the Service, because on a change of type the API server clears
// the status in the same write.
func (b *loadBalancers) GetLoadBalancer(_ context.Context, _ string, svc *corev1.Service) (*corev1.LoadBalancerStatus, bool, error) {
	b.waiting.forget(svc)
	held := b.ledger.oursHeldBy(owner(svc))
	if len(held) == 0 {
		return nil, false, nil
	}
	return status(held), true, nil
}

// GetLoadBalancerName returns a name for logs.
func (b *loadBalancers) GetLoadBalancerName(_ context.Context, _ string, svc *corev1.Service) string {
	return svc.Namespace + "/" + svc.Name
}

// UpdateLoadBalancer does nothing: the speakers decide which nodes serve.
func (b *loadBalancers) UpdateLoadBalancer(context.Context, string, *corev1.Service, []*corev1.Node) error {
	return cloudprovider.ImplementedElsewhere
}
