package provider

import (
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// changes is the one way by which a change that somebody sees has others do something. Whoever sees a change (of a
// record, a pool, a label, a report) says here what is to be looked at; the goroutine that owns that does it. No method
// blocks.
type changes struct {
	// queue has the records that the reconciler is to look at, by name.
	queue workqueue.TypedRateLimitingInterface[string]
	// edits, usage and capacity are set if IPPools were edited, if their status may have changed, and if a Service
	// that waits may be given an address now.
	edits, usage, capacity trigger
	// serve puts a Service into the queue of the service controller. The projection sets it.
	serve func(*corev1.Service)
}

func newChanges() *changes {
	return &changes{
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, time.Minute)),
		edits: newTrigger(), usage: newTrigger(), capacity: newTrigger(),
		serve: func(*corev1.Service) {},
	}
}

// record has the record of an address looked at.
func (c *changes) record(addresses ...netip.Addr) {
	for _, a := range addresses {
		c.queue.Add(herald.AllocationName(a))
	}
}

// trigger wakes the goroutine that waits for it. Several calls of set count as one until then.
type trigger chan struct{}

func newTrigger() trigger { return make(trigger, 1) }

func (t trigger) set() {
	select {
	case t <- struct{}{}:
	default:
	}
}

// reset takes back what was set and not seen yet.
func (t trigger) reset() {
	select {
	case <-t:
	default:
	}
}
