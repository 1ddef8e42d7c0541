package provider

import (
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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// others records the addresses of Services to which another controller gives them, so that speakers announce them: those in
// the status of a Service whose class is in spec.announceClasses of the pool that has the address. It writes records and
// events. Of a Service it writes nothing, except that it removes Herald's finalizer if the Service was of our class before.
// An address that is refused is not recorded, and thus not announced.
type others struct {
	services *services
	requests requests
	ledger   *ledger
	records  *records
	untold   *untold
	waiting  *waiting
	changes  *changes
	events   record.EventRecorder
	metrics  *allocationMetrics
	log      *zap.Logger
	queue    workqueue.TypedRateLimitingInterface[types.NamespacedName]

	mu sync.Mutex
	// told has the last event about the refused addresses of each Service, so that it is not repeated at every check.
	told map[types.NamespacedName]told
}

type told struct {
	uid     types.UID
	message string
	at      time.Time
}

// handler queues a Service that changes, if it is or was of another class.
func (o *others) handler() cache.ResourceEventHandler {
	look := func(objects ...any) {
		for _, object := range objects {
			if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = tombstone.Obj
			}
			if svc, ok := object.(*corev1.Service); ok && o.services.ofAnother(svc) {
				o.add(svc)
				return
			}
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(svc any) { look(svc) },
		UpdateFunc: func(before, after any) { look(before, after) },
		DeleteFunc: func(svc any) { look(svc) },
	}
}

func (o *others) add(svc *corev1.Service) { o.queue.Add(serviceName(svc)) }

// adopt gives the Services in memory the addresses that they carry, the oldest Service first. This is done before any
// Service is served, so that no address without a record is given to another Service: records may be missing after a
// restored backup.
func (o *others) adopt(ctx context.Context) {
	for _, svc := range o.services.listElsewhere() {
		namespace, _ := o.requests.find(ctx, svc.Namespace) // Without an answer, the Service keeps what it carries.
		if req, err := o.requests.elsewhere(svc, namespace); o.ledger.admits(req.Class) {
			o.ledger.holdElsewhere(req, err)
			if o.services.of(req.Owner) == nil {
				o.waiting.gone(svc) // The Service was deleted in between.
			}
		}
	}
}

// run checks the Services that are queued, and all of them when pools were edited, until ctx ends.
func (o *others) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, o.queue.ShutDown)
	defer stop()
	var workers sync.WaitGroup
	for range reconcileWorkers {
		workers.Go(func() { o.work(ctx) })
	}
	workers.Go(func() {
		for {
			for _, svc := range o.services.listOfAnother() {
				o.add(svc)
			}
			select {
			case <-ctx.Done():
				return
			case <-o.changes.classes:
			}
		}
	})
	workers.Wait()
	return ctx.Err()
}

func (o *others) work(ctx context.Context) {
	for {
		name, shutdown := o.queue.Get()
		if shutdown {
			return
		}
		if err := o.sync(ctx, name); err != nil {
			if ctx.Err() == nil && !apierrors.IsConflict(err) { // After a conflict the cache will catch up.
				o.log.Warn("failed to record the addresses that another controller gave a Service, trying again", zap.Stringer("service", name), zap.Error(err))
			}
			o.queue.AddRateLimited(name)
		} else {
			o.queue.Forget(name)
		}
		o.queue.Done(name)
	}
}

// sync makes the records of one Service agree with its status, and removes the finalizer that it has from the time when it
// was ours. When a Service is gone, the reconciler releases its addresses.
func (o *others) sync(ctx context.Context, name types.NamespacedName) error {
	svc := o.services.named(name.Namespace, name.Name)
	if svc == nil || !o.services.ofAnother(svc) {
		o.forget(name)
		if svc != nil && !o.services.serves(svc) { // It has another type now.
			o.check(svc)
		}
		return nil
	}
	var errs []error
	if !o.ledger.hasForeign(svc) { // Otherwise the herald-ccm of its class may have written the finalizer.
		foreign := func(now *corev1.Service) (bool, error) { return o.records.areForeign(ctx, now) }
		if err := o.services.removeFinalizer(ctx, svc, foreign); err != nil {
			errs = append(errs, fmt.Errorf("remove the finalizer: %w", err))
		}
	}
	if svc.DeletionTimestamp != nil || !o.services.elsewhere(svc) {
		o.forget(name)
		if !o.services.elsewhere(svc) {
			o.check(svc)
		}
		return errors.Join(errs...)
	}
	before := o.ledger.oursHeldBy(owner(svc))
	if !o.ledger.admits(*svc.Spec.LoadBalancerClass) && len(before) == 0 {
		o.waiting.forget(svc)
		o.forget(name)
		return errors.Join(errs...) // Herald has nothing else to do with it.
	}
	// The Service waits from before the decision, so that no change in between is missed.
	o.waiting.add(svc)
	namespace, err := o.requests.find(ctx, svc.Namespace)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	req, invalid := o.requests.elsewhere(svc, namespace)
	held, refused := o.ledger.holdElsewhere(req, invalid)
	mine := ownerEntry(svc)
	var given []ipam.Allocation // those that are new
	for _, a := range held {
		// If another owner turns out to hold the address, the ledger knows this now, and refuses it the next time.
		if err := o.records.ensure(ctx, a, mine, ""); err != nil {
			errs = append(errs, fmt.Errorf("record %s: %w", a.Address, err))
			continue
		}
		if !contains(before, a.Address) {
			given = append(given, a)
		}
	}
	o.untold.addNew(svc, given)
	errs = append(errs, o.release(ctx, svc, held, refused))
	if o.services.of(owner(svc)) == nil {
		o.waiting.gone(svc) // The Service was deleted in between, and may have been given an address after that.
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if len(refused) == 0 {
		o.waiting.forget(svc)
	} else {
		o.queue.AddAfter(name, unservedRetry)
	}
	o.tell(svc, slices.DeleteFunc(refused, func(r refusal) bool { return o.inherits(svc, r) }), time.Now())
	return nil
}

// check queues the addresses that a Service holds: the reconciler releases them if the Service may not hold them.
func (o *others) check(svc *corev1.Service) {
	for _, a := range o.ledger.oursHeldBy(owner(svc)) {
		o.changes.record(a.Address)
	}
}

// inherits reports whether an address is refused only because an earlier Service of the same name still has it. It then makes
// the reconciler check the record, and the reconciler passes the address on.
func (o *others) inherits(svc *corev1.Service, r refusal) bool {
	taken, ok := errors.AsType[*ipam.Error](r.err)
	if !ok || taken.Holder.UID == "" || taken.Holder.Reservation() != owner(svc).Reservation() {
		return false
	}
	o.changes.record(r.address)
	return true
}

// release releases the addresses that a Service holds and that are not, or no longer, in its status, and those that are
// refused. It gets the status from the API server, because the cache may lag behind.
func (o *others) release(ctx context.Context, svc *corev1.Service, held []ipam.Allocation, refused []refusal) error {
	denied := map[netip.Addr]bool{}
	for _, r := range refused {
		if r.keeps {
			held = append(held, ipam.Allocation{Address: r.address})
		} else {
			denied[r.address] = true
		}
	}
	lost := slices.DeleteFunc(o.ledger.oursHeldBy(owner(svc)), func(a ipam.Allocation) bool { return contains(held, a.Address) })
	if len(lost) == 0 {
		return nil
	}
	now, err := o.services.fetch(ctx, svc.Namespace, svc.Name)
	if err != nil || now == nil || now.UID != svc.UID {
		return err // If the Service is gone, the reconciler releases its addresses.
	}
	for _, a := range lost {
		if slices.Contains(Carried(now), a.Address) && !denied[a.Address] {
			continue // The event of this version queues the Service again.
		}
		if err := o.records.release(ctx, a.Address, owner(svc), unlessReserved); err != nil {
			return fmt.Errorf("release %s: %w", a.Address, err)
		}
	}
	return nil
}

// tell writes an event about the addresses that are refused, unless the last event said the same and is recent.
func (o *others) tell(svc *corev1.Service, refused []refusal, now time.Time) {
	name := serviceName(svc)
	if len(refused) == 0 {
		o.forget(name)
		return
	}
	const most = 3 // A message of an event may have 1024 bytes.
	var texts []string
	for _, r := range refused[:min(len(refused), most)] {
		texts = append(texts, r.words())
	}
	message := fmt.Sprintf("class %s gave %s", quote(*svc.Spec.LoadBalancerClass), strings.Join(texts, "; "))
	if n := len(refused) - most; n > 0 {
		message += fmt.Sprintf("; and %d more, see kubectl herald explain service", n)
	}
	o.mu.Lock()
	last := o.told[name]
	again := last.uid != svc.UID || last.message != message || now.Sub(last.at) >= unservedRetry
	if again {
		o.told[name] = told{svc.UID, message, now}
	}
	o.mu.Unlock()
	if again {
		o.events.Event(svc, corev1.EventTypeWarning, herald.EventNotAnnounced, message)
		for _, r := range refused {
			o.metrics.failed(r.err)
		}
	}
}

func (o *others) forget(name types.NamespacedName) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.told, name)
}
