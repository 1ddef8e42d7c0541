package provider

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

const (
	// untoldAtOnce is how many Services are told at once that nothing announces their addresses, and untoldRate how many more each second.
	// client-go writes one event after the other, and drops those beyond the thousand that wait to be written.
	untoldAtOnce = 100
	untoldRate   = 20
	untoldPeriod = time.Second
)

// untold has the Services that are to be told that nothing announces a pool of theirs. One edit of an advertisement may concern
// thousands: they are told one after the other, those whose pool is still not announced by then. Their events have a recorder of their
// own, so that no other event is dropped if the API server does not take them.
type untold struct {
	services *services
	ledger   *ledger
	events   record.EventRecorder
	// why returns why nothing announces a pool. It is empty if something does, or if this is not known yet.
	why func(pool string) string

	mu    sync.Mutex
	limit *rate.Limiter
	queue []untoldOf
	in    map[untoldOf]bool // the queue as a set
	wake  trigger
}

// untoldOf is a Service that is to be told of a pool.
type untoldOf struct {
	service ipam.Owner
	pool    string
}

func newUntold(s *services, l *ledger, events record.EventRecorder) *untold {
	return &untold{
		services: s, ledger: l, events: events, why: func(string) string { return "" },
		limit: rate.NewLimiter(untoldRate, untoldAtOnce), in: map[untoldOf]bool{}, wake: newTrigger(),
	}
}

// add has Services told that nothing announces a pool of theirs: at once or, if there are many, later.
func (u *untold) add(pool string, services ...ipam.Owner) {
	u.mu.Lock()
	for _, o := range services {
		if is := (untoldOf{o, pool}); !u.in[is] {
			u.in[is] = true
			u.queue = append(u.queue, is)
		}
	}
	u.mu.Unlock()
	if u.tell(time.Now()) {
		u.wake.set()
	}
}

// addNew has a Service told of its new addresses that nothing announces.
func (u *untold) addNew(svc *corev1.Service, given []ipam.Allocation) {
	told := map[string]bool{} // Several addresses may be of one pool.
	for _, a := range given {
		if !told[a.Pool] {
			told[a.Pool] = true
			u.add(a.Pool, owner(svc))
		}
	}
}

func (u *untold) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-u.wake:
		}
		for u.tell(time.Now()) {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(untoldPeriod):
			}
		}
	}
}

// tell tells as many Services as it may now. It reports whether there are more.
func (u *untold) tell(now time.Time) (more bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for len(u.queue) > 0 {
		next := u.queue[0]
		svc, why := u.services.of(next.service), u.why(next.pool)
		if svc != nil && why != "" && slices.ContainsFunc(u.ledger.heldBy(next.service), func(a ipam.Allocation) bool {
			return a.Pool == next.pool || a.Pool == "" // An address that was reserved by hand may be of any pool.
		}) {
			if !u.limit.AllowN(now, 1) {
				return true
			}
			u.events.Event(svc, corev1.EventTypeWarning, herald.EventNotAnnounced, why)
		}
		u.queue = u.queue[1:]
		delete(u.in, next)
	}
	u.queue = nil
	return false
}
