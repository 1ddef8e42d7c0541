package provider

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// settleTime is how long a Service may take from one address to the next.
const settleTime = 2 * time.Second

// records writes the IPAllocations, and follows them: each change of a record, and each end of a
// Service that holds one, brings the address's name into the queue, and reconcile makes record, ledger
// and Service agree from whatever state they are in.
type records struct {
	p        *Provider
	informer cache.SharedIndexInformer
	queue    workqueue.TypedRateLimitingInterface[string]
}

func newRecords(p *Provider, informer cache.SharedIndexInformer) *records {
	r := &records{p: p, informer: informer, queue: workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, time.Minute))}
	enqueue := func(o any) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o); err == nil {
			r.queue.Add(key)
		}
	}
	// Registration fails only on a stopped informer.
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    enqueue,
		UpdateFunc: func(_, o any) { enqueue(o) },
		DeleteFunc: enqueue,
	})
	return r
}

// reconsider has addresses looked at, and all that cool down: their pool may have changed.
func (r *records) reconsider(addresses []netip.Addr) {
	for _, a := range slices.Concat(addresses, r.p.ledger.coolingDown()) {
		r.queue.Add(herald.AllocationName(a))
	}
}

// ours reports whether a record is of our making: several controllers, each of a class, may give out of the
// same pools. One that says nothing of a class was written before there were several.
func (r *records) ours(rec *herald.IPAllocation) bool {
	return rec.Spec.Class == "" || rec.Spec.Class == r.p.class
}

// holdsAny reports whether a Service has an address of ours, or had one that cools down.
func (r *records) holdsAny(svc *corev1.Service) bool {
	held := append(r.p.ledger.heldBy(owner(svc)), r.p.ledger.coolingFor(owner(svc))...)
	return slices.ContainsFunc(held, func(a ipam.Allocation) bool {
		rec := r.cached(herald.AllocationName(a.Address))
		return rec == nil || r.ours(rec) // What is not recorded is about to be.
	})
}

// serviceGone has the addresses of a deleted Service looked at.
func (r *records) serviceGone(svc *corev1.Service) {
	for _, a := range append(r.p.ledger.heldBy(owner(svc)), r.p.ledger.coolingFor(owner(svc))...) {
		r.queue.Add(herald.AllocationName(a.Address))
	}
}

// nameServed has what is kept for a Service's name looked at, now that it has addresses: what an earlier Service of the
// name left behind is not waited for any longer.
func (r *records) nameServed(svc *corev1.Service) {
	for _, a := range r.p.ledger.heldBy(owner(svc).Reservation()) {
		r.queue.Add(herald.AllocationName(a.Address))
	}
}

// load reads all records into the ledger, in order of age, so that what an owner has
// now counts as what it took last.
func (r *records) load() {
	all := client.Items[*herald.IPAllocation](r.informer.GetStore())
	slices.SortFunc(all, func(x, y *herald.IPAllocation) int { return Older(x, y) })
	for _, rec := range all {
		address, tenants := r.tenants(rec)
		_, _, _ = r.p.ledger.learn(address, rec.Spec.Pool, tenants, rec.Spec.ReleasedAt != nil, rec.ResourceVersion)
		r.p.ledger.resume(address)
	}
}

// tenants is TenantsOf, but that an owner is but a name if another Service has it by now. So a Service that is made
// again, or comes out of a backup, has the address that it had. The cache may know of the earlier of the two only: which
// it is, is asked before that is written down. What cannot be read is nobody's.
func (r *records) tenants(rec *herald.IPAllocation) (netip.Addr, []ipam.Tenant) {
	address, tenants, err := TenantsOf(rec)
	if err != nil {
		r.p.log.Warn("IPAllocation not understood: its address is given to nobody", zap.String("ipallocation", rec.Name), zap.Error(err))
		return address, []ipam.Tenant{{}}
	}
	for i, t := range tenants {
		if !r.ours(rec) {
			tenants[i].Sharing = ipam.Sharing{} // Its Services share with those of their class only.
		}
		svc, missing := r.p.services.Services(t.Owner.Namespace).Get(t.Owner.Name)
		if t.Owner.UID != "" && missing == nil && string(svc.UID) != t.Owner.UID {
			tenants[i].Owner.UID = ""
		}
	}
	return address, tenants
}

// learn takes over what a record says, and has the Services served anew that believed otherwise. It reports whether
// the record is older than what is known.
func (r *records) learn(rec *herald.IPAllocation) (stale bool, err error) {
	address, tenants := r.tenants(rec)
	lost, stale, err := r.p.ledger.learn(address, rec.Spec.Pool, tenants, rec.Spec.ReleasedAt != nil, rec.ResourceVersion)
	for _, o := range lost {
		if svc := r.service(o); svc != nil && r.wants(svc) {
			r.p.projection.requeue(svc)
		}
	}
	return stale, err
}

// recordWorkers is how many addresses are seen to at once. Each may have to wait for a write, as when an edit of a pool
// leaves thousands out of range, while others are to be freed.
const recordWorkers = 4

func (r *records) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, r.queue.ShutDown)
	defer stop()
	var workers sync.WaitGroup
	for range recordWorkers {
		workers.Go(func() { r.work(ctx) })
	}
	workers.Wait()
	return ctx.Err()
}

// work takes names from the queue, which gives none to two workers at a time.
func (r *records) work(ctx context.Context) {
	for {
		name, shutdown := r.queue.Get()
		if shutdown {
			return
		}
		if err := r.reconcile(ctx, name); err != nil {
			if ctx.Err() == nil && !apierrors.IsConflict(err) { // That is for the cache to catch up.
				r.p.log.Warn("IPAllocation not reconciled, trying again", zap.String("ipallocation", name), zap.Error(err))
			}
			r.queue.AddRateLimited(name)
		} else {
			r.queue.Forget(name)
		}
		r.queue.Done(name)
	}
}

// reconcile makes the record of one address, the ledger and the Services agree.
func (r *records) reconcile(ctx context.Context, name string) error {
	address, err := herald.ParseAllocationName(name)
	if err != nil {
		return nil // The schema refuses such a name.
	}
	rec := r.cached(name)
	if rec == nil {
		r.recordGone(address)
		return nil
	}
	r.p.ledger.strand(address, func(o ipam.Owner) bool {
		svc := r.service(o)
		return svc != nil && r.wants(svc)
	})
	stale, err := r.learn(rec)
	for stale {
		// The cache lags behind our own write, or the API server came back from a backup.
		known := r.p.ledger.version(address)
		if rec, err = r.fetch(ctx, name); err != nil || rec == nil {
			return err // Its end brings it here again.
		}
		if stale, err = r.learn(rec); stale {
			r.p.ledger.outdated(address, known)
		}
	}
	if err != nil {
		return err
	}
	r.p.pools.usageChanged()
	if !r.ours(rec) {
		return nil // It is in use, and that is all there is to know.
	}
	if rec.Spec.ReleasedAt != nil {
		return r.cool(ctx, rec, address)
	}
	for _, o := range rec.Spec.Owners {
		if o.UID == "" || o.Sharing != nil {
			r.p.waiting.wake() // A Service of that name may wait for one, or one that shares for a port.
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

// moveOff has the Services served anew that are to leave an address because of a conflict.
func (r *records) moveOff(rec *herald.IPAllocation, address netip.Addr) {
	if !conflicting(rec) {
		return
	}
	for _, o := range rec.Spec.Owners {
		svc := r.service(ownerOf(o))
		if svc == nil || !r.wants(svc) {
			continue
		}
		if req, err := r.p.request(svc); err == nil && r.conflictMoves(svc, req, rec, address) {
			r.p.projection.requeue(svc)
		}
	}
}

// visit looks after an owner of an address that is in use.
func (r *records) visit(ctx context.Context, rec *herald.IPAllocation, address netip.Addr, o herald.AllocationOwner) error {
	svc, family := r.service(ownerOf(o)), ipam.FamilyOf(address)
	if svc == nil {
		heir := r.named(o)
		if heir != nil && r.wants(heir) && slices.Contains(Carried(heir), address) && !r.p.ledger.serves(owner(heir), family) {
			r.p.projection.requeue(heir) // It is to take over the record of the Service that had its name.
			return nil
		}
		return r.orphan(ctx, address, o)
	}
	switch {
	case svc.DeletionTimestamp != nil: // It is being cleaned up after.
	case !r.p.projection.serves(svc):
		return r.orphan(ctx, address, o)
	case !slices.Contains(Carried(svc), address) && r.p.ledger.moves(owner(svc), family):
		// It is on its way to this address or from it; or another leader gave it this one, and nobody is going to
		// release what is too much.
		if moving := settleTime - time.Since(rec.CreationTimestamp.Time); moving > 0 {
			r.queue.AddAfter(rec.Name, moving)
		} else {
			r.p.projection.requeue(svc)
		}
	}
	return nil
}

// wants reports whether a Service is to have addresses of ours.
func (r *records) wants(svc *corev1.Service) bool {
	return svc.DeletionTimestamp == nil && r.p.projection.serves(svc)
}

// cool deletes the record of a released address when it has rested, unless its Service takes it back.
func (r *records) cool(ctx context.Context, rec *herald.IPAllocation, address netip.Addr) error {
	for _, o := range rec.Spec.Owners {
		svc := r.named(o)
		switch {
		case svc == nil:
		case svc.DeletionTimestamp != nil:
			return nil // Its end brings the address here again.
		case r.p.projection.serves(svc) && slices.Contains(Carried(svc), address):
			// Its status still says this address. If it moved on to another, that is about to change; if not, it is to
			// take this one back. If it takes long, it was another leader that had it move.
			lasts := time.Since(rec.Spec.ReleasedAt.Time)
			if lasts > settleTime || !r.p.ledger.serves(owner(svc), ipam.FamilyOf(address)) {
				r.p.projection.requeue(svc)
			}
			r.queue.AddAfter(rec.Name, min(max(lasts, time.Second), time.Minute))
			return nil
		}
	}
	rests := max(time.Until(rec.Spec.ReleasedAt.Add(r.p.ledger.termsOf(rec.Spec.Pool).delay)), r.heldBack(rec, address))
	if rests > 0 {
		r.queue.AddAfter(rec.Name, rests)
		return nil
	}
	// The precondition keeps a record that was taken back in the meantime.
	err := r.p.herald.Allocations.Delete(ctx, rec.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &rec.UID, ResourceVersion: &rec.ResourceVersion}})
	if apierrors.IsNotFound(err) {
		return nil // Its end brings it here again.
	}
	return err
}

// mark says on a record, and to its Services, what is wrong with the address, or is not any more.
func (r *records) mark(ctx context.Context, rec *herald.IPAllocation, address netip.Addr) error {
	dispute, again := r.disputed(rec, address)
	if again > 0 {
		r.queue.AddAfter(rec.Name, again)
	}
	conditions := slices.Clone(rec.Status.Conditions)
	var changed []metav1.Condition
	for _, c := range []*metav1.Condition{r.inRange(rec, address), dispute} {
		if c != nil && meta.SetStatusCondition(&conditions, *c) {
			changed = append(changed, *c)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	marked := rec.DeepCopy()
	marked.Status.Conditions = conditions
	if _, err := r.p.herald.Allocations.UpdateStatus(ctx, marked, metav1.UpdateOptions{}); apierrors.IsNotFound(err) {
		return nil // Its end brings it here again.
	} else if err != nil {
		return err
	}
	for _, o := range rec.Spec.Owners {
		svc := r.service(ownerOf(o))
		if svc == nil {
			continue
		}
		for _, c := range changed {
			switch {
			case c.Type == herald.AllocationInRange && c.Status == metav1.ConditionFalse:
				r.p.events.Eventf(svc, corev1.EventTypeWarning, "OutOfRange",
					"%s; move off it by kubectl herald renumber %s/%s, or put it back into spec.addresses of a pool", c.Message, svc.Namespace, svc.Name)
			case c.Type == herald.AllocationConflict && c.Status == metav1.ConditionTrue:
				r.p.events.Event(svc, corev1.EventTypeWarning, c.Type, c.Message)
			}
		}
	}
	return nil
}

// inRange is the condition InRange of a record, as it is to be; nil: there is none.
func (r *records) inRange(rec *herald.IPAllocation, address netip.Addr) *metav1.Condition {
	home, displaced := r.p.ledger.displaced(address)
	is := meta.FindStatusCondition(rec.Status.Conditions, herald.AllocationInRange)
	c := &metav1.Condition{Type: herald.AllocationInRange, Status: metav1.ConditionTrue, Reason: "InRange", Message: ""}
	switch {
	case !displaced && is == nil:
		return nil
	case displaced && home != "":
		c.Status, c.Reason = metav1.ConditionFalse, "OtherPool"
		c.Message = fmt.Sprintf("%s was given from IPPool %q and belongs to %q now: it stays in use", address, rec.Spec.Pool, home)
	case displaced:
		c.Status, c.Reason = metav1.ConditionFalse, "NoPool"
		c.Message = fmt.Sprintf("%s is in no IPPool any more: it stays in use", address)
	}
	return c
}

// recordGone frees the address of a deleted record, but for live Services that have it: then the record is
// just being written, or somebody deleted it by hand and it is written again.
func (r *records) recordGone(address netip.Addr) {
	holders, cooling := r.p.ledger.holders(address)
	var gone []ipam.Owner
	for _, h := range holders {
		svc := r.service(h.Owner)
		if cooling || svc == nil || svc.DeletionTimestamp != nil || !r.p.projection.serves(svc) {
			gone = append(gone, h.Owner)
			continue
		}
		r.p.ledger.unrecorded(address)
		if slices.Contains(Carried(svc), address) {
			r.p.projection.requeue(svc)
		}
	}
	if r.p.ledger.drop(address, gone...) {
		r.p.pools.usageChanged()
		r.p.waiting.wake()
	}
}

// orphan releases the address of a Service that is gone, or has ceased to be ours, without having been cleaned
// up after. The cache is not enough to say so: another leader may have recorded a Service that has not
// reached us yet.
func (r *records) orphan(ctx context.Context, address netip.Addr, o herald.AllocationOwner) error {
	svc, err := r.p.kube.CoreV1().Services(o.Namespace).Get(ctx, o.Name, metav1.GetOptions{})
	if err == nil && svc.UID == o.UID && (svc.DeletionTimestamp != nil || r.p.projection.serves(svc)) {
		return nil
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	r.p.log.Info("releasing the address of a Service that is gone", zap.Stringer("address", address), zap.Stringer("service", ownerOf(o)))
	return r.release(ctx, address, ownerOf(o), r.reclaims(o.ReclaimPolicy))
}

// holders lists the addresses recorded for a pool or, if their record names none, in it, with their owners.
func (r *records) holders(pool string) []string {
	var list []string
	for _, rec := range client.Items[*herald.IPAllocation](r.informer.GetStore()) {
		address, tenants, err := TenantsOf(rec)
		if err != nil {
			continue
		}
		home, _ := r.p.ledger.displaced(address)
		if cmp.Or(rec.Spec.Pool, home) == pool {
			list = append(list, fmt.Sprintf("%s (%s)", address, namesOf(tenants)))
		}
	}
	slices.Sort(list)
	return list
}

func namesOf(tenants []ipam.Tenant) string {
	var names []string
	for _, t := range tenants {
		names = append(names, t.Owner.String())
	}
	return strings.Join(names, " ")
}

func (r *records) cached(name string) *herald.IPAllocation {
	o, exists, err := r.informer.GetStore().GetByKey(name)
	if err != nil || !exists {
		return nil
	}
	return o.(*herald.IPAllocation)
}

// fetch reads a record from the API server; nil if there is none.
func (r *records) fetch(ctx context.Context, name string) (*herald.IPAllocation, error) {
	rec, err := r.p.herald.Allocations.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return rec, err
}

// named returns the Service that has an owner's name now, whichever that is; nil if there is none.
func (r *records) named(o herald.AllocationOwner) *corev1.Service {
	svc, err := r.p.services.Services(o.Namespace).Get(o.Name)
	if err != nil {
		return nil
	}
	return svc
}

// service returns the Service that an owner is, or nil if it is gone. A Service of the same name with
// another UID is another Service.
func (r *records) service(o ipam.Owner) *corev1.Service {
	svc, err := r.p.services.Services(o.Namespace).Get(o.Name)
	if err != nil || string(svc.UID) != o.UID {
		return nil
	}
	return svc
}

// Older orders objects by age, and those of one second by name.
func Older(x, y metav1.Object) int {
	tx, ty := x.GetCreationTimestamp(), y.GetCreationTimestamp()
	return cmp.Or(tx.Compare(ty.Time), strings.Compare(x.GetNamespace(), y.GetNamespace()), strings.Compare(x.GetName(), y.GetName()))
}
