package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

const (
	// settleTime is the time in which a Service normally moves from one address to the next.
	settleTime = 2 * time.Second
	// reconcileWorkers is how many records are reconciled at once. One may have to wait for a write while others are to
	// be freed, for example when an edit of a pool leaves thousands of addresses out of range.
	reconcileWorkers = 4
	// comparePeriod is the time between two comparisons of the ledger with the cache.
	comparePeriod = time.Minute
)

// reconciler makes the record of an address, the ledger and the Services agree, from any state, whenever one of them
// changes.
type reconciler struct {
	records   *records
	services  *services
	requests  requests
	ledger    *ledger
	conflicts *conflicts
	changes   *changes
	events    record.EventRecorder
	log       *zap.Logger
}

func (r *reconciler) run(ctx context.Context) error {
	queue := r.changes.queue
	stop := context.AfterFunc(ctx, queue.ShutDown)
	defer stop()
	var workers sync.WaitGroup
	for range reconcileWorkers {
		workers.Go(func() { r.work(ctx) })
	}
	workers.Go(func() {
		rounds := time.NewTicker(comparePeriod)
		defer rounds.Stop()
		for missing := map[netip.Addr]string{}; ; {
			select {
			case <-ctx.Done():
				return
			case <-rounds.C:
				missing = r.compare(ctx, missing)
			}
		}
	})
	workers.Wait()
	return ctx.Err()
}

// compare queues the records that the ledger knows, that the cache has not had since the last round, and that the API server does not
// have. We wrote such a record; if it was deleted while the watch was interrupted, before the cache had it, no event says so. compare
// returns the versions of the records that the cache does not have now.
func (r *reconciler) compare(ctx context.Context, before map[netip.Addr]string) (missing map[netip.Addr]string) {
	missing = map[netip.Addr]string{}
	for a, version := range r.ledger.versions() {
		if r.records.cached(herald.AllocationName(a)) != nil {
			continue
		}
		missing[a] = version
		if before[a] != version {
			continue
		}
		if none, err := r.records.confirm(ctx, a); err == nil && none { // After an error it is asked for in the next round.
			r.changes.record(a)
		}
	}
	return missing
}

// work takes names from the queue. The queue never gives a name to two workers at a time.
func (r *reconciler) work(ctx context.Context) {
	queue := r.changes.queue
	for {
		name, shutdown := queue.Get()
		if shutdown {
			return
		}
		if err := r.reconcile(ctx, name); err != nil {
			if ctx.Err() == nil && !apierrors.IsConflict(err) { // After a conflict the cache will catch up.
				r.log.Warn("failed to reconcile an IPAllocation, trying again", zap.String("ipallocation", name), zap.Error(err))
			}
			queue.AddRateLimited(name)
		} else {
			queue.Forget(name)
		}
		queue.Done(name)
	}
}

// reconcile makes the record of one address, the ledger and the Services agree.
func (r *reconciler) reconcile(ctx context.Context, name string) error {
	address, err := herald.ParseAllocationName(name)
	if err != nil {
		return nil // The schema refuses records with such a name.
	}
	known, inUse := r.ledger.known(address)
	rec := r.records.cached(name)
	if rec == nil {
		return r.recordGone(ctx, address, known, inUse)
	}
	r.ledger.keepPending(address, func(o ipam.Owner) bool {
		svc := r.services.of(o)
		return svc != nil && r.services.mayHold(svc)
	})
	stale, err := r.records.learn(rec)
	for stale {
		// The cache lags behind our own write, or the API server was restored from a backup.
		known := r.ledger.version(address)
		if rec, err = r.records.fetch(ctx, name); err != nil || rec == nil {
			return err // The event of its deletion queues it again.
		}
		if stale, err = r.records.learn(rec); stale {
			r.ledger.outdated(address, known)
		}
	}
	if err != nil {
		return err
	}
	r.changes.usage.set()
	r.changes.claims.set()
	if !r.ledger.ours(rec) {
		return nil // The address is in use; the controller of its class does the rest.
	}
	if released(rec) {
		return r.cool(ctx, rec, address)
	}
	if released, err := r.releaseNames(ctx, rec, address); released || err != nil {
		return err
	}
	for _, o := range rec.Spec.Owners {
		if o.UID == "" || o.Sharing != nil {
			r.changes.capacity.set() // A Service may wait for the address that is reserved for its name, or for a port of a shared address.
		}
		if o.UID == "" {
			continue
		}
		if err := r.visit(ctx, rec, address, o); err != nil {
			return err
		}
	}
	if err := r.mark(ctx, rec, address); err != nil {
		return err
	}
	r.moveOff(rec, address)
	return nil
}

// releaseNames releases an address that is kept or reserved for names, if its pool is being deleted or the namespace of
// the names is gone. A reservation by hand stays when its namespace is gone.
func (r *reconciler) releaseNames(ctx context.Context, rec *herald.IPAllocation, address netip.Addr) (bool, error) {
	deleting := r.ledger.deleting(address, rec.Spec.Pool)
	byHand := rec.Spec.Class == "" || rec.Spec.ReclaimPolicy == herald.ReclaimRetain
	var err error
	edit := withoutNames(rec, func(o herald.AllocationOwner) bool {
		if deleting || byHand {
			return deleting
		}
		namespace, unknown := r.requests.find(ctx, o.Namespace)
		err = cmp.Or(err, unknown)
		return namespace == nil
	})
	if edit == nil || err != nil {
		return false, err
	}
	_, err = r.records.api.Update(ctx, edit, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return true, err // The event of the update or deletion queues it again.
}

// moveOff queues the Services that must leave an address because of a conflict.
func (r *reconciler) moveOff(rec *herald.IPAllocation, address netip.Addr) {
	if !conflicting(rec) {
		return
	}
	for _, o := range rec.Spec.Owners {
		svc := r.services.of(ownerOf(o))
		if svc == nil || !r.services.wants(svc) {
			continue
		}
		if req, err := r.requests.of(svc, r.requests.namespace(svc.Namespace)); err == nil && r.ledger.leaves(req, address, time.Now()) {
			r.changes.serve(svc)
		}
	}
}

// visit checks one owner of an address that is in use.
func (r *reconciler) visit(ctx context.Context, rec *herald.IPAllocation, address netip.Addr, o herald.AllocationOwner) error {
	svc, family := r.services.of(ownerOf(o)), ipam.FamilyOf(address)
	if svc == nil {
		heir := r.services.named(o.Namespace, o.Name)
		if heir != nil && r.inherits(heir, address) {
			r.changes.serve(heir) // heir must take over the record of the earlier Service with its name.
			return nil
		}
		return r.orphan(ctx, address, o)
	}
	switch {
	case r.services.elsewhere(svc):
		r.changes.serve(svc)
	case svc.DeletionTimestamp != nil: // The service controller releases it.
	case !r.services.serves(svc):
		return r.orphan(ctx, address, o)
	case !slices.Contains(Carried(svc), address) && r.ledger.moves(svc, family):
		// The Service moves to this address or away from it. Or another leader gave it this address, and nobody else
		// will release what is superfluous.
		if moving := settleTime - time.Since(rec.CreationTimestamp.Time); moving > 0 {
			r.changes.queue.AddAfter(rec.Name, moving)
		} else {
			r.changes.serve(svc)
		}
	}
	return nil
}

// inherits reports whether a Service takes over the record of an earlier Service with its name.
func (r *reconciler) inherits(heir *corev1.Service, address netip.Addr) bool {
	switch {
	case !r.services.mayHold(heir) || !slices.Contains(Carried(heir), address):
		return false
	case r.services.elsewhere(heir):
		return r.ledger.admitsAt(address, *heir.Spec.LoadBalancerClass)
	}
	return r.ledger.lacks(heir, ipam.FamilyOf(address))
}

// cool deletes the record of a released address when the reuse delay is over, unless a Service takes the address back.
func (r *reconciler) cool(ctx context.Context, rec *herald.IPAllocation, address netip.Addr) error {
	for _, o := range rec.Spec.Owners {
		svc := r.services.named(o.Namespace, o.Name)
		switch {
		case svc == nil:
		case svc.DeletionTimestamp != nil:
			return nil // The event of its deletion queues the record again.
		case r.services.serves(svc) && slices.Contains(Carried(svc), address):
			// If the Service moved to another address, its status is about to change. If not, it must take this address
			// back. If neither happens soon, another leader moved the Service.
			lasts := time.Since(rec.Spec.ReleasedAt.Time)
			if lasts > settleTime || r.ledger.lacks(svc, ipam.FamilyOf(address)) {
				r.changes.serve(svc)
			}
			r.changes.queue.AddAfter(rec.Name, min(max(lasts, time.Second), time.Minute))
			return nil
		case svc.Spec.Type == corev1.ServiceTypeLoadBalancer && slices.Contains(Carried(svc), address) && r.ledger.termsOf(rec.Spec.Pool).lasting:
			// A Service that is not served any more: kube-proxy still forwards the address to it, so no other may get it.
			r.changes.queue.AddAfter(rec.Name, time.Minute)
			return nil
		}
	}
	terms, reuse := r.ledger.termsOf(rec.Spec.Pool), rec.Spec.ReleasedAt.Time
	rests := time.Until(reuse.Add(terms.delay))
	// An address that is in no pool, or in one that is being deleted, is not assigned anyway.
	if conflicting(rec) && terms.lasting {
		rests = max(rests, time.Until(reuse.Add(conflictRest)), r.conflicts.lasts(address, time.Now()))
	}
	if rests > 0 {
		r.changes.queue.AddAfter(rec.Name, rests)
		return nil
	}
	// The preconditions keep a record that was taken back in the meantime.
	err := r.records.api.Delete(ctx, rec.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &rec.UID, ResourceVersion: &rec.ResourceVersion}})
	if apierrors.IsNotFound(err) {
		return nil // The event of its deletion queues it again.
	}
	return err
}

// mark updates the state and the conditions of a record, and tells its Services about conditions that changed.
func (r *reconciler) mark(ctx context.Context, rec *herald.IPAllocation, address netip.Addr) error {
	conflict, again := r.conflicts.condition(rec, address, time.Now())
	if again > 0 {
		r.changes.queue.AddAfter(rec.Name, again)
	}
	conditions := slices.Clone(rec.Status.Conditions)
	var changed []metav1.Condition
	for _, c := range []*metav1.Condition{accepted(rec), r.inRange(rec, address), conflict} {
		if c != nil && meta.SetStatusCondition(&conditions, *c) {
			changed = append(changed, *c)
		}
	}
	state, shared := stateOf(rec), sharedWith(rec)
	if len(changed) == 0 && rec.Status.State == state && rec.Status.SharedWith == shared {
		return nil
	}
	marked := rec.DeepCopy()
	marked.Status.Conditions, marked.Status.State, marked.Status.SharedWith = conditions, state, shared
	if _, err := r.records.api.UpdateStatus(ctx, marked, metav1.UpdateOptions{}); apierrors.IsNotFound(err) {
		return nil // The event of its deletion queues it again.
	} else if err != nil {
		return err
	}
	for _, o := range rec.Spec.Owners {
		svc := r.services.of(ownerOf(o))
		if svc == nil {
			continue
		}
		for _, c := range changed {
			switch {
			case c.Type == herald.ConditionAccepted && c.Status == metav1.ConditionFalse:
				r.events.Eventf(svc, corev1.EventTypeWarning, herald.EventInvalidIPAllocation, "%s: %s", rec.Name, c.Message)
			case c.Type == herald.AllocationInRange && c.Status == metav1.ConditionFalse:
				r.events.Eventf(svc, corev1.EventTypeWarning, herald.EventOutOfRange,
					"%s; give the Service another address by kubectl herald renumber %s/%s, or add this one to spec.addresses of a pool again", c.Message, svc.Namespace, svc.Name)
			case c.Type == herald.AllocationConflict && c.Status == metav1.ConditionTrue:
				r.events.Event(svc, corev1.EventTypeWarning, herald.EventAddressConflict, c.Message)
			}
		}
	}
	return nil
}

// accepted returns the condition Accepted that a record must have; nil means none.
func accepted(rec *herald.IPAllocation) *metav1.Condition {
	c := &metav1.Condition{Type: herald.ConditionAccepted, Status: metav1.ConditionTrue, Reason: herald.ReasonValid, ObservedGeneration: rec.Generation}
	_, _, err := TenantsOf(rec)
	switch {
	case err == nil && meta.FindStatusCondition(rec.Status.Conditions, herald.ConditionAccepted) == nil:
		return nil
	case err != nil:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, herald.ReasonInvalid, err.Error()+"; its Services keep the address"
	}
	return c
}

// inRange returns the condition InRange that a record must have; nil means none.
func (r *reconciler) inRange(rec *herald.IPAllocation, address netip.Addr) *metav1.Condition {
	home, displaced := r.ledger.displaced(address)
	is := meta.FindStatusCondition(rec.Status.Conditions, herald.AllocationInRange)
	c := &metav1.Condition{Type: herald.AllocationInRange, Status: metav1.ConditionTrue, Reason: herald.ReasonInRange, Message: ""}
	switch {
	case !displaced && is == nil:
		return nil
	case displaced && home != "":
		c.Status, c.Reason = metav1.ConditionFalse, herald.ReasonOtherPool
		c.Message = fmt.Sprintf("%s was given from IPPool %q and belongs to %q now: it stays in use", address, rec.Spec.Pool, home)
	case displaced:
		c.Status, c.Reason = metav1.ConditionFalse, herald.ReasonNoPool
		c.Message = fmt.Sprintf("%s is in no IPPool any more: it stays in use", address)
	}
	return c
}

// recordGone frees the address of a deleted record, except for existing Services that hold it. For these the record is
// just being written, or was deleted by hand and is written again. known and inUse are what the ledger knew of the record before the
// cache was read.
func (r *reconciler) recordGone(ctx context.Context, address netip.Addr, known string, inUse bool) error {
	defer r.changes.claims.set()
	if inUse { // The cache may lag behind our own write, and not have the record yet that a Service has just got.
		rec, err := r.records.fetch(ctx, herald.AllocationName(address))
		if _, unreadable := errors.AsType[*client.DecodeError](err); !unreadable && (rec != nil || err != nil) {
			return err // The event of its creation queues it again.
		}
	}
	kept, dropped := r.ledger.gone(address, known, func(o ipam.Owner) bool {
		svc := r.services.of(o)
		return svc != nil && r.services.mayHold(svc)
	})
	for _, o := range kept {
		if svc := r.services.of(o); svc != nil && (slices.Contains(Carried(svc), address) || r.services.elsewhere(svc)) {
			r.changes.serve(svc)
		}
	}
	if dropped {
		r.changes.usage.set()
		r.changes.capacity.set()
	}
	if lasts := r.conflicts.lasts(address, time.Now()); lasts > 0 {
		r.changes.queue.AddAfter(herald.AllocationName(address), lasts) // to forget the conflict when it is over
	}
	return nil
}

// orphan releases the address of a Service that is gone or no longer ours, if the service controller did not release it.
// It asks the API server, because another leader may have recorded a Service that the cache does not have yet.
func (r *reconciler) orphan(ctx context.Context, address netip.Addr, o herald.AllocationOwner) error {
	svc, err := r.services.fetch(ctx, o.Namespace, o.Name)
	if err != nil {
		return err
	}
	if svc != nil && svc.UID == o.UID && (svc.DeletionTimestamp != nil || r.services.serves(svc) || r.services.elsewhere(svc)) {
		return nil
	}
	r.log.Info("releasing the address of a Service that is gone or is not served any more", zap.Stringer("address", address), zap.Stringer("service", ownerOf(o)))
	return r.records.release(ctx, address, ownerOf(o), r.records.reclaims(o.ReclaimPolicy))
}

// serviceGone queues the addresses of a deleted Service.
func (r *reconciler) serviceGone(svc *corev1.Service) {
	r.changes.claims.set()
	for _, a := range append(r.ledger.heldBy(owner(svc)), r.ledger.coolingFor(owner(svc))...) {
		r.changes.record(a.Address)
	}
}

// conflictsSynced queues the records with a conflict when all reports are known. A conflict that was withdrawn while no
// herald-ccm watched is over.
func (r *reconciler) conflictsSynced() {
	r.conflicts.synced.Store(true)
	for _, rec := range client.Items[*herald.IPAllocation](r.records.cache) {
		if conflicting(rec) {
			r.changes.queue.Add(rec.Name)
		}
	}
}
