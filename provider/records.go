package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// errHeldByAnother says that the API server holds a record of the address for another owner.
var errHeldByAnother = errors.New("another owner holds the address")

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
	held := append(r.p.ledger.heldBy(owner(svc)), r.p.ledger.coolingFor(svc.Namespace, svc.Name)...)
	return slices.ContainsFunc(held, func(a ipam.Allocation) bool {
		rec := r.cached(herald.AllocationName(a.Address))
		return rec == nil || r.ours(rec) // What is not recorded is about to be.
	})
}

// serviceGone has the addresses of a deleted Service looked at.
func (r *records) serviceGone(svc *corev1.Service) {
	for _, a := range append(r.p.ledger.heldBy(owner(svc)), r.p.ledger.coolingFor(svc.Namespace, svc.Name)...) {
		r.queue.Add(herald.AllocationName(a.Address))
	}
}

// nameServed has what is kept for a Service's name looked at, now that it has addresses: what an earlier Service of the
// name left behind is not waited for any longer.
func (r *records) nameServed(svc *corev1.Service) {
	for _, a := range r.p.ledger.heldBy(ipam.Owner{Namespace: svc.Namespace, Name: svc.Name}) {
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
		_, _, _ = r.p.ledger.learn(address, rec.Spec.Pool, tenants, rec.Status.ReleasedAt != nil, rec.ResourceVersion)
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
	lost, stale, err := r.p.ledger.learn(address, rec.Spec.Pool, tenants, rec.Status.ReleasedAt != nil, rec.ResourceVersion)
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
	stale, err := r.learn(rec)
	if stale {
		// The cache lags behind our own write, or the API server came back from a backup.
		if rec, err = r.fetch(ctx, name); err != nil || rec == nil {
			return err // Its end brings it here again.
		}
		r.p.ledger.unrecorded(address)
		_, err = r.learn(rec)
	}
	if err != nil {
		return err
	}
	r.p.pools.usageChanged()
	if !r.ours(rec) {
		return nil // It is in use, and that is all there is to know.
	}
	if rec.Status.ReleasedAt != nil {
		return r.cool(ctx, rec, address)
	}
	for _, o := range rec.Spec.Owners {
		if o.UID == "" || o.Sharing != nil {
			r.p.waiting.wake() // A Service of that name may wait for one, or one that shares for a port.
		}
		if o.UID == "" {
			continue
		}
		svc := r.service(ownerOf(o))
		switch heir := r.named(o); {
		case svc == nil && heir != nil && r.wants(heir) && slices.Contains(carried(heir), address) && !r.p.ledger.serves(owner(heir), ipam.FamilyOf(address)):
			r.p.projection.requeue(heir) // It is to take over the record of the Service that had its name.
		case svc == nil || svc.DeletionTimestamp == nil && !r.p.projection.serves(svc):
			if err := r.orphan(ctx, address, o); err != nil {
				return err
			}
		case r.wants(svc) && !slices.Contains(carried(svc), address) && r.p.ledger.moves(owner(svc), ipam.FamilyOf(address)):
			// It is on its way to this address or from it; or another leader gave it this one, and nobody is going to
			// release what is too much.
			if moving := settleTime - time.Since(rec.CreationTimestamp.Time); moving > 0 {
				r.queue.AddAfter(name, moving)
			} else {
				r.p.projection.requeue(svc)
			}
		}
	}
	return r.mark(ctx, rec, address)
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
		case r.p.projection.serves(svc) && slices.Contains(carried(svc), address):
			// Its status still says this address. If it moved on to another, that is about to change; if not, it is to
			// take this one back. If it takes long, it was another leader that had it move.
			lasts := time.Since(rec.Status.ReleasedAt.Time)
			if lasts > settleTime || !r.p.ledger.serves(owner(svc), ipam.FamilyOf(address)) {
				r.p.projection.requeue(svc)
			}
			r.queue.AddAfter(rec.Name, min(max(lasts, time.Second), time.Minute))
			return nil
		}
	}
	rests := time.Until(rec.Status.ReleasedAt.Add(r.p.ledger.termsOf(rec.Spec.Pool).delay))
	if rests > 0 {
		r.queue.AddAfter(rec.Name, rests)
		return nil
	}
	// The precondition keeps a record that was taken back in the meantime.
	err := r.p.herald.Allocations.Delete(ctx, rec.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &rec.UID, ResourceVersion: &rec.ResourceVersion}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // Its change brings it here again.
	}
	return err
}

// mark says on a record, and to its Services, that its pool no longer has the address, or has it again.
func (r *records) mark(ctx context.Context, rec *herald.IPAllocation, address netip.Addr) error {
	home, displaced := r.p.ledger.displaced(address)
	is := meta.FindStatusCondition(rec.Status.Conditions, herald.AllocationOutOfRange)
	c := metav1.Condition{Type: herald.AllocationOutOfRange, Status: metav1.ConditionFalse, Reason: "InRange", Message: ""}
	switch {
	case !displaced && is == nil:
		return nil
	case displaced && home != "":
		c.Status, c.Reason = metav1.ConditionTrue, "OtherPool"
		c.Message = fmt.Sprintf("%s was given from IPPool %q and belongs to %q now: it stays in use", address, rec.Spec.Pool, home)
	case displaced:
		c.Status, c.Reason = metav1.ConditionTrue, "NoPool"
		c.Message = fmt.Sprintf("%s is in no IPPool any more: it stays in use", address)
	}
	if is != nil && is.Status == c.Status && is.Reason == c.Reason && is.Message == c.Message {
		return nil
	}
	marked := rec.DeepCopy()
	meta.SetStatusCondition(&marked.Status.Conditions, c)
	if _, err := r.p.herald.Allocations.Update(ctx, marked, metav1.UpdateOptions{}); apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // Its change brings it here again.
	} else if err != nil {
		return err
	}
	for _, o := range rec.Spec.Owners {
		if svc := r.service(ownerOf(o)); svc != nil && displaced {
			r.p.events.Eventf(svc, corev1.EventTypeWarning, "OutOfRange",
				"%s; move off it by kubectl herald renumber %s/%s, or put it back into spec.addresses of a pool", c.Message, svc.Namespace, svc.Name)
		}
	}
	return nil
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
		if slices.Contains(carried(svc), address) {
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

// ensure has the address recorded for a Service. It costs nothing if it is.
func (r *records) ensure(ctx context.Context, a ipam.Allocation, svc *corev1.Service) error {
	name, mine := herald.AllocationName(a.Address), entry(svc)
	if a.Pool == "" {
		a.Pool, _ = r.p.ledger.displaced(a.Address) // It was reserved by hand, for any pool.
	}
	rec, fresh := r.cached(name), false
	for {
		var written *herald.IPAllocation
		var err error
		if rec == nil {
			written, err = r.p.herald.Allocations.Create(ctx, r.recordOf(a, mine), metav1.CreateOptions{})
		} else if written, err = r.with(ctx, rec, a.Pool, mine); err == nil && written != rec {
			written, err = r.p.herald.Allocations.Update(ctx, written, metav1.UpdateOptions{})
		}
		stale := false
		if err == nil {
			stale, err = r.learn(written)
		}
		switch {
		case apierrors.IsAlreadyExists(err), apierrors.IsConflict(err), apierrors.IsNotFound(err):
		case errors.Is(err, errHeldByAnother) && !fresh: // The cache may lag behind.
		case errors.Is(err, errHeldByAnother):
			if _, unlearned := r.learn(rec); unlearned != nil {
				return unlearned
			}
			return err
		case err != nil || !stale:
			return err
		case fresh: // The API server came back from a backup.
			r.p.ledger.unrecorded(a.Address)
		}
		if rec, err = r.fetch(ctx, name); err != nil {
			return err
		}
		fresh = true
	}
}

// with returns the record with this owner in it: the record itself if it is. If it was written by hand and names no
// pool, it is of this one now. It fails with errHeldByAnother if the address is not to be had.
func (r *records) with(ctx context.Context, rec *herald.IPAllocation, pool string, mine herald.AllocationOwner) (*herald.IPAllocation, error) {
	owners, released := rec.Spec.Owners, rec.Status.ReleasedAt != nil
	at := slices.IndexFunc(owners, func(o herald.AllocationOwner) bool { return o.UID == mine.UID })
	if at >= 0 && !released && r.ours(rec) && equality.Semantic.DeepEqual(owners[at], mine) {
		return rec, nil
	}
	if at < 0 { // It may be kept for our name, or an earlier Service of this name may have had it.
		at = slices.IndexFunc(owners, func(o herald.AllocationOwner) bool { return o.Namespace == mine.Namespace && o.Name == mine.Name })
		if at >= 0 && owners[at].UID != "" && !released {
			// The cache is not enough to say that an owner is no more.
			svc, err := r.p.kube.CoreV1().Services(mine.Namespace).Get(ctx, mine.Name, metav1.GetOptions{})
			if err == nil && svc.UID != mine.UID {
				err = fmt.Errorf("IPAllocation %s is for a younger Service of this name", rec.Name)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	edit := rec.DeepCopy()
	switch {
	case released && at < 0:
		return nil, fmt.Errorf("%w: %s", errHeldByAnother, rec.Name)
	case released:
		edit.Spec.Owners = []herald.AllocationOwner{mine} // What others had here before is over.
	case !r.agrees(rec, at, mine):
		return nil, fmt.Errorf("%w: %s", errHeldByAnother, rec.Name)
	case at < 0:
		edit.Spec.Owners = append(edit.Spec.Owners, mine)
	default:
		if rec.Spec.Class == "" && owners[at].UID == "" && rec.Spec.ReclaimPolicy == "" {
			edit.Spec.ReclaimPolicy = herald.ReclaimRetain // Somebody wrote it by hand, for more than one Service's life.
		}
		edit.Spec.Owners[at] = mine
	}
	edit.Spec.Class, edit.Spec.Pool, edit.Status.ReleasedAt = r.p.class, cmp.Or(rec.Spec.Pool, pool), nil
	return edit, nil
}

// agrees reports whether an owner can be in a record beside the others, in the place at of them if it is not negative.
// What has been agreed on is not asked again. With those of another controller there is no agreement: each would release
// the other's.
func (r *records) agrees(rec *herald.IPAllocation, at int, mine herald.AllocationOwner) bool {
	if alone := at >= 0 && len(rec.Spec.Owners) == 1; !alone && !r.ours(rec) {
		return false
	}
	if at >= 0 && rec.Spec.Owners[at].UID == mine.UID && equality.Semantic.DeepEqual(rec.Spec.Owners[at].Sharing, mine.Sharing) {
		return true
	}
	ours := rec.DeepCopy()
	ours.Spec.Owners = []herald.AllocationOwner{mine}
	address, tenants, err := TenantsOf(ours)
	_, others, unread := TenantsOf(rec)
	if at >= 0 && unread == nil {
		others = slices.Delete(others, at, at+1)
	}
	return err == nil && unread == nil && r.p.ledger.agrees(address, others, tenants[0])
}

// reclaim says of a record what becomes of its address when an owner lets go.
type reclaim func(*herald.IPAllocation) herald.ReclaimPolicy

// moved: it was left for another and is not to be kept.
func moved(*herald.IPAllocation) herald.ReclaimPolicy { return herald.ReclaimDelete }

// reclaims is what the Service says or, if it says nothing, the record, or the pool.
func (r *records) reclaims(said herald.ReclaimPolicy) reclaim {
	return func(rec *herald.IPAllocation) herald.ReclaimPolicy {
		return cmp.Or(said, rec.Spec.ReclaimPolicy, r.p.ledger.termsOf(rec.Spec.Pool).reclaim)
	}
}

// release takes an owner out of the record of an address. The last one's is marked as released, from which time it
// cools down, or kept for its name.
func (r *records) release(ctx context.Context, address netip.Addr, o ipam.Owner, policy reclaim) error {
	name := herald.AllocationName(address)
	rec := r.cached(name)
	for {
		if rec == nil || !holds(rec, o.UID) {
			// The cache may lag behind our own write.
			var err error
			if rec, err = r.fetch(ctx, name); err != nil {
				return err
			}
			if rec == nil {
				// Never recorded, so never announced.
				r.p.ledger.drop(address, o)
				r.p.waiting.wake()
				return nil
			}
			if !holds(rec, o.UID) {
				r.p.ledger.drop(address, o)
				r.queue.Add(name) // To learn whose it is.
				return nil
			}
		}
		if rec.Status.ReleasedAt == nil {
			released, err := r.p.herald.Allocations.Update(ctx, without(rec, o.UID, policy(rec)), metav1.UpdateOptions{})
			if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
				rec = nil
				continue
			}
			if err != nil {
				return err
			}
			rec = released
		}
		_, err := r.learn(rec)
		r.queue.Add(name)
		return err
	}
}

// without returns a record that an owner has let go of.
func without(rec *herald.IPAllocation, uid string, policy herald.ReclaimPolicy) *herald.IPAllocation {
	edit := rec.DeepCopy()
	at := slices.IndexFunc(edit.Spec.Owners, func(o herald.AllocationOwner) bool { return string(o.UID) == uid })
	switch {
	case policy == herald.ReclaimRetain:
		edit.Spec.Owners[at].UID = ""
	case len(edit.Spec.Owners) > 1:
		edit.Spec.Owners = slices.Delete(edit.Spec.Owners, at, at+1)
	default:
		now := metav1.Now()
		edit.Status.ReleasedAt = &now
	}
	return edit
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

func (r *records) recordOf(a ipam.Allocation, mine herald.AllocationOwner) *herald.IPAllocation {
	return &herald.IPAllocation{
		ObjectMeta: metav1.ObjectMeta{Name: herald.AllocationName(a.Address)},
		Spec:       herald.IPAllocationSpec{Address: a.Address.String(), Pool: a.Pool, Class: r.p.class, Owners: []herald.AllocationOwner{mine}},
	}
}

func ownerOf(o herald.AllocationOwner) ipam.Owner {
	return ipam.Owner{Namespace: o.Namespace, Name: o.Name, UID: string(o.UID)}
}

func holds(rec *herald.IPAllocation, uid string) bool {
	return slices.ContainsFunc(rec.Spec.Owners, func(o herald.AllocationOwner) bool { return string(o.UID) == uid })
}

// Older orders objects by age, and those of one second by name.
func Older(x, y metav1.Object) int {
	tx, ty := x.GetCreationTimestamp(), y.GetCreationTimestamp()
	return cmp.Or(tx.Compare(ty.Time), strings.Compare(x.GetNamespace(), y.GetNamespace()), strings.Compare(x.GetName(), y.GetName()))
}
