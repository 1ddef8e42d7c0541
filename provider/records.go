package provider

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// errHeldByAnother says that the API server holds a record of the address for another owner.
var errHeldByAnother = errors.New("another owner holds the address")

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

// reconsider has the addresses that cool down looked at: their pool's delay may have changed.
func (r *records) reconsider() {
	for _, a := range r.p.ledger.coolingDown() {
		r.queue.Add(herald.AllocationName(a))
	}
}

// ours reports whether a record is of our making: several controllers, each of a class, may give out of the
// same pools. One that says nothing of a class was written before there were several.
func (r *records) ours(rec *herald.IPAllocation) bool {
	return rec.Spec.Class == "" || rec.Spec.Class == r.p.class
}

// holdsAny reports whether an owner has an address of ours, cooling ones among them.
func (r *records) holdsAny(uid string) bool {
	return slices.ContainsFunc(r.p.ledger.heldBy(uid), func(a ipam.Allocation) bool {
		rec := r.cached(herald.AllocationName(a.Address))
		return rec == nil || r.ours(rec) // What is not recorded is about to be.
	})
}

// serviceGone has the addresses of a deleted Service looked at.
func (r *records) serviceGone(uid string) {
	for _, a := range r.p.ledger.heldBy(uid) {
		r.queue.Add(herald.AllocationName(a.Address))
	}
}

// load reads all records into the ledger: released ones before live ones, so that what an owner has
// now counts as what it took last, and each kind in order of age.
func (r *records) load() {
	all := client.Items[*herald.IPAllocation](r.informer.GetStore())
	slices.SortFunc(all, func(x, y *herald.IPAllocation) int {
		if (x.Status.ReleasedAt == nil) != (y.Status.ReleasedAt == nil) {
			if x.Status.ReleasedAt != nil {
				return -1
			}
			return 1
		}
		return older(x, y)
	})
	for _, rec := range all {
		if a, err := allocation(rec); err == nil {
			r.p.ledger.learn(a, rec.Status.ReleasedAt != nil)
		}
	}
}

func (r *records) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, r.queue.ShutDown)
	defer stop()
	for {
		name, shutdown := r.queue.Get()
		if shutdown {
			return ctx.Err()
		}
		if err := r.reconcile(ctx, name); err != nil {
			if ctx.Err() == nil {
				r.p.log.Warn("IPAllocation not reconciled, trying again", zap.String("ipallocation", name), zap.Error(err))
			}
			r.queue.AddRateLimited(name)
		} else {
			r.queue.Forget(name)
		}
		r.queue.Done(name)
	}
}

// reconcile makes the record of one address, the ledger and the Service agree.
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
	a, err := allocation(rec)
	if err != nil {
		return err
	}
	if loser, was := r.p.ledger.learn(a, rec.Status.ReleasedAt != nil); was {
		if svc := r.service(loser); svc != nil {
			r.p.projection.requeue(svc)
		}
	}
	r.p.pools.usageChanged()
	if a.Owner.UID == "" {
		return nil // A reservation: nobody's to release but the user's.
	}
	if !r.ours(rec) {
		return nil // It is in use, and that is all there is to know.
	}
	svc := r.service(a.Owner)
	wants := svc != nil && svc.DeletionTimestamp == nil && r.p.projection.serves(svc)
	switch {
	case rec.Status.ReleasedAt == nil && (svc == nil || svc.DeletionTimestamp == nil && !wants):
		return r.orphan(ctx, a)
	case rec.Status.ReleasedAt == nil:
		return nil
	case wants && slices.Contains(carried(svc), address):
		// Its status still says this address. If it moved on to another, that is about to change; if
		// not, it is to take this one back.
		if !r.p.ledger.serves(a.Owner.UID, ipam.FamilyOf(address)) {
			r.p.projection.requeue(svc)
		}
		r.queue.AddAfter(name, time.Second)
		return nil
	case svc != nil && svc.DeletionTimestamp != nil:
		return nil // Its end brings the address here again.
	}
	rests := time.Until(rec.Status.ReleasedAt.Add(r.p.ledger.delay(a.Pool)))
	if rests > 0 {
		r.queue.AddAfter(name, rests)
		return nil
	}
	// The precondition keeps a record that was taken back in the meantime.
	err = r.p.herald.Allocations.Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &rec.UID, ResourceVersion: &rec.ResourceVersion}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // Its change brings it here again.
	}
	return err
}

// recordGone frees the address of a deleted record, unless a live Service has it: then the record is
// just being written, or somebody deleted it by hand and it is written again.
func (r *records) recordGone(address netip.Addr) {
	holder, cooling, held := r.p.ledger.holder(address)
	if !held {
		return
	}
	svc := r.service(holder.Owner)
	if !cooling && svc != nil && svc.DeletionTimestamp == nil && r.p.projection.serves(svc) {
		r.p.ledger.unrecorded(address)
		if slices.Contains(carried(svc), address) {
			r.p.projection.requeue(svc)
		}
		return
	}
	if r.p.ledger.free(address, holder.Owner.UID) {
		r.p.pools.usageChanged()
		r.p.waiting.wake()
	}
}

// orphan releases an address whose Service is gone, or has ceased to be ours, without having been cleaned
// up after. The cache is not enough to say so: another leader may have recorded a Service that has not
// reached us yet.
func (r *records) orphan(ctx context.Context, a ipam.Allocation) error {
	svc, err := r.p.kube.CoreV1().Services(a.Owner.Namespace).Get(ctx, a.Owner.Name, metav1.GetOptions{})
	if err == nil && string(svc.UID) == a.Owner.UID && (svc.DeletionTimestamp != nil || r.p.projection.serves(svc)) {
		return nil
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	r.p.log.Info("releasing the address of a Service that is gone", zap.Stringer("address", a.Address), zap.Stringer("service", a.Owner))
	return r.release(ctx, a)
}

// ensure has the address recorded for its owner. It costs nothing if it is.
func (r *records) ensure(ctx context.Context, a ipam.Allocation) error {
	rec := r.cached(herald.AllocationName(a.Address))
	for {
		switch {
		case rec == nil:
			_, err := r.p.herald.Allocations.Create(ctx, r.recordOf(a), metav1.CreateOptions{})
			if err == nil {
				r.p.ledger.learn(a, false)
				return nil
			}
			if !apierrors.IsAlreadyExists(err) {
				return err
			}
		case !holds(rec, a.Owner.UID):
			if other, err := allocation(rec); err == nil {
				r.p.ledger.learn(other, rec.Status.ReleasedAt != nil)
			}
			return fmt.Errorf("%w: %s", errHeldByAnother, rec.Name)
		case rec.Status.ReleasedAt == nil && r.ours(rec):
			r.p.ledger.learn(a, false)
			return nil
		default:
			// Released, or of another class, which the Service has left with its type and come to ours.
			taken := rec.DeepCopy()
			taken.Spec.Class, taken.Status.ReleasedAt = r.p.class, nil
			_, err := r.p.herald.Allocations.Update(ctx, taken, metav1.UpdateOptions{})
			if err == nil {
				r.p.ledger.learn(a, false)
				return nil
			}
			if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
				return err
			}
		}
		var err error
		if rec, err = r.fetch(ctx, herald.AllocationName(a.Address)); err != nil {
			return err
		}
	}
}

// release marks the record of an address as released, from which time it cools down.
func (r *records) release(ctx context.Context, a ipam.Allocation) error {
	name := herald.AllocationName(a.Address)
	rec := r.cached(name)
	for {
		if rec == nil || !holds(rec, a.Owner.UID) {
			// The cache may lag behind our own write.
			var err error
			if rec, err = r.fetch(ctx, name); err != nil {
				return err
			}
			if rec == nil {
				// Never recorded, so never announced.
				r.p.ledger.free(a.Address, a.Owner.UID)
				r.p.waiting.wake()
				return nil
			}
			if !holds(rec, a.Owner.UID) {
				r.queue.Add(name)
				return nil
			}
		}
		if rec.Status.ReleasedAt == nil {
			released := rec.DeepCopy()
			now := metav1.Now()
			released.Status.ReleasedAt = &now
			_, err := r.p.herald.Allocations.Update(ctx, released, metav1.UpdateOptions{})
			if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
				rec = nil
				continue
			}
			if err != nil {
				return err
			}
		}
		r.p.ledger.learn(a, true)
		r.queue.Add(name)
		return nil
	}
}

// holders lists the addresses recorded for a pool, with their owners.
func (r *records) holders(pool string) []string {
	var list []string
	for _, rec := range client.Items[*herald.IPAllocation](r.informer.GetStore()) {
		if a, err := allocation(rec); err == nil && a.Pool == pool {
			list = append(list, fmt.Sprintf("%s (%s)", a.Address, a.Owner))
		}
	}
	slices.Sort(list)
	return list
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

// service returns the Service that an owner is, or nil if it is gone. A Service of the same name with
// another UID is another Service.
func (r *records) service(o ipam.Owner) *corev1.Service {
	svc, err := r.p.services.Services(o.Namespace).Get(o.Name)
	if err != nil || string(svc.UID) != o.UID {
		return nil
	}
	return svc
}

func (r *records) recordOf(a ipam.Allocation) *herald.IPAllocation {
	return &herald.IPAllocation{
		ObjectMeta: metav1.ObjectMeta{Name: herald.AllocationName(a.Address)},
		Spec: herald.IPAllocationSpec{
			Address: a.Address.String(),
			Pool:    a.Pool,
			Class:   r.p.class,
			Owners:  []herald.AllocationOwner{{Namespace: a.Owner.Namespace, Name: a.Owner.Name, UID: types.UID(a.Owner.UID)}},
		},
	}
}

// allocation is the inverse of recordOf.
func allocation(rec *herald.IPAllocation) (ipam.Allocation, error) {
	address, err := netip.ParseAddr(rec.Spec.Address)
	if err != nil {
		return ipam.Allocation{}, fmt.Errorf("spec.address: %w", err)
	}
	a := ipam.Allocation{Address: address, Pool: rec.Spec.Pool}
	if len(rec.Spec.Owners) > 0 {
		o := rec.Spec.Owners[0]
		a.Owner = ipam.Owner{Namespace: o.Namespace, Name: o.Name, UID: string(o.UID)}
	}
	return a, nil
}

func holds(rec *herald.IPAllocation, uid string) bool {
	return slices.ContainsFunc(rec.Spec.Owners, func(o herald.AllocationOwner) bool { return string(o.UID) == uid })
}

// older orders objects by age, and those of one second by name.
func older(x, y metav1.Object) int {
	tx, ty := x.GetCreationTimestamp(), y.GetCreationTimestamp()
	if c := tx.Compare(ty.Time); c != 0 {
		return c
	}
	if nx, ny := x.GetNamespace()+"/"+x.GetName(), y.GetNamespace()+"/"+y.GetName(); nx < ny {
		return -1
	} else if nx > ny {
		return 1
	}
	return 0
}
