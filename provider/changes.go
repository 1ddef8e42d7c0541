package provider

import (
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// changes passes a change from the goroutine that sees it (in a record, a pool, a label or a report) to the goroutine
// that acts on it. The former calls changes with the object that must be checked again; the latter owns that object and
// checks it. No method blocks.
type changes struct {
	// queue has the names of the records that the reconciler must check.
	queue workqueue.TypedRateLimitingInterface[string]
	// edits is set when IPPools were edited, usage when their status may have changed, and capacity when a waiting Service may
	// now get an address.
	edits, usage, capacity trigger
	// classes is set when the classes that pools admit may have changed.
	classes trigger
	// claims is set when a Service may need another IPAddressClaim, or one less.
	claims trigger
	// serve puts a Service into the queue of the service controller or, if another controller gives it its addresses, into
	// that of others.
	serve func(*corev1.Service)
}

func newChanges() *changes {
	return &changes{
		queue: newQueue[string](),
		edits: newTrigger(), usage: newTrigger(), capacity: newTrigger(), classes: newTrigger(), claims: newTrigger(),
		serve: func(*corev1.Service) {},
	}
}

// newQueue returns a queue in which what failed waits ever longer.
func newQueue[T comparable]() workqueue.TypedRateLimitingInterface[T] {
	return workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[T](100*time.Millisecond, time.Minute))
}

// record makes the reconciler check the records of these addresses.
func (c *changes) record(addresses ...netip.Addr) {
	for _, a := range addresses {
		c.queue.Add(herald.AllocationName(a))
	}
}

// trigger wakes the goroutine that waits for it. Several calls of set before it wakes count as one.
type trigger chan struct{}

func newTrigger() trigger { return make(trigger, 1) }

func (t trigger) set() {
	select {
	case t <- struct{}{}:
	default:
	}
}

// reset undoes a set that was not seen yet.
func (t trigger) reset() {
	select {
	case <-t:
	default:
	}
}
