package provider

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// A machine that is no speaker uses an address of ours: the speaker that owns the address sees that on the wire and
// reports it. Here the report becomes a condition of the address's record and an event on its Services. A Service whose
// address is new and conflicts from the start is given another.
//
// Whoever controls a node can report any conflict. So a Service moves only while its address is new, and once; an
// address in established use stays where it is, whatever is reported.

const (
	// conflictFresh is how old the time of a report may be: the report of a node that is gone stays in its SpeakerStatus.
	conflictFresh = 5 * time.Minute
	// conflictQuiet is how long nobody has to report a conflict before it is over.
	conflictQuiet = time.Minute
	// conflictRest is how long an address that was released with a conflict is held back at least: nobody looks for
	// strangers at an address that has no owner.
	conflictRest = 10 * time.Minute
	// establishedAfter is the age from which a record is of an address in use, and its Service does not move.
	establishedAfter = time.Minute
)

// sighting is a stranger that uses an address, as one node reports it.
type sighting struct {
	node, where, mac string
	at               time.Time
}

func (s sighting) same(o sighting) bool {
	return s.node == o.node && s.where == o.where && s.mac == o.mac
}

// dispute is what is reported about one address.
type dispute struct {
	by map[string]sighting // by node
	// vacated is when the last report was withdrawn.
	vacated time.Time
}

// lasts is how long the conflict goes on if nothing more is reported; not positive: it is over.
func (d dispute) lasts(now time.Time) time.Duration {
	until := d.vacated.Add(conflictQuiet)
	for _, s := range d.by {
		if end := s.at.Add(conflictFresh); end.After(until) {
			until = end
		}
	}
	return until.Sub(now)
}

// conflicts is what the speakers report of strangers.
type conflicts struct {
	// changed is told of an address when something new is reported about it.
	changed func(netip.Addr)
	// received tells that every report of the first list was taken in.
	received cache.InformerSynced
	synced   atomic.Bool

	mu       sync.Mutex
	disputes map[netip.Addr]dispute
}

func newConflicts(reports cache.SharedIndexInformer, changed func(netip.Addr)) *conflicts {
	c := &conflicts{changed: changed, disputes: map[netip.Addr]dispute{}}
	// Registration fails only on a stopped informer.
	handler, _ := reports.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { c.report(time.Now(), nil, o.(*report)) },
		UpdateFunc: func(before, after any) { c.report(time.Now(), before.(*report), after.(*report)) },
		DeleteFunc: func(o any) {
			if tombstone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = tombstone.Obj
			}
			if r, ok := o.(*report); ok {
				c.report(time.Now(), r, nil)
			}
		},
	})
	c.received = handler.HasSynced
	return c
}

// sightings are the conflicts of a report that are understood and recent, by address.
func sightings(r *report, now time.Time) map[netip.Addr]sighting {
	all := map[netip.Addr]sighting{}
	if r == nil {
		return all
	}
	for _, c := range r.conflicts {
		address, valid := plainAddress(c.Address)
		at, known := reported(c.At, now)
		mac, err := net.ParseMAC(c.MAC)
		if !valid || !known || err != nil || now.Sub(at) > conflictFresh {
			continue
		}
		s := sighting{node: r.Name, where: c.Interface, mac: mac.String(), at: at}
		if is, twice := all[address]; !twice || cmp.Or(is.at.Compare(at), cmp.Compare(s.where, is.where)) < 0 {
			all[address] = s // The latest of several interfaces.
		}
	}
	return all
}

// report takes in what a node reports now, and what it reported before.
func (c *conflicts) report(now time.Time, before, after *report) {
	had, has := sightings(before, now), sightings(after, now)
	var news []netip.Addr
	c.mu.Lock()
	for address, s := range has {
		d := c.disputes[address]
		if d.by == nil {
			d.by = map[string]sighting{}
		}
		if !d.by[s.node].same(s) {
			news = append(news, address)
		}
		d.by[s.node] = s
		c.disputes[address] = d
	}
	if before != nil {
		for address, d := range c.disputes {
			_, still := has[address]
			if _, was := d.by[before.Name]; was && !still {
				delete(d.by, before.Name)
				if _, fresh := had[address]; fresh {
					d.vacated = now
				}
				c.disputes[address] = d
				news = append(news, address)
			}
			if len(d.by) == 0 && d.lasts(now) <= 0 {
				delete(c.disputes, address)
			}
		}
	}
	c.mu.Unlock()
	for _, address := range news {
		c.changed(address)
	}
}

// of returns who reports a conflict about an address, by node, and how long it goes on if nothing more is reported.
func (c *conflicts) of(address netip.Addr, now time.Time) ([]sighting, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.disputes[address]
	current := slices.DeleteFunc(slices.Collect(maps.Values(d.by)), func(s sighting) bool { return now.Sub(s.at) > conflictFresh })
	slices.SortFunc(current, func(x, y sighting) int { return cmp.Compare(x.node, y.node) })
	return current, d.lasts(now)
}

// message tells what was seen and what to do about it.
func (s sighting) message(address netip.Addr) string {
	where := strconv.Quote(s.where) // Whoever controls a node chose it.
	return fmt.Sprintf("%s is used by a machine with the MAC address %s, too, which node %s saw on interface %s: give that machine another address, "+
		"or put %s into spec.exclude of its IPPool and move its Services off it by kubectl herald renumber", address, s.mac, s.node, where[1:len(where)-1], address)
}

// disputed is the condition AddressConflict of a record, as it is to be; nil: there is none. The second result is
// when it is to be looked at again.
func (r *records) disputed(rec *herald.IPAllocation, address netip.Addr) (*metav1.Condition, time.Duration) {
	is := meta.FindStatusCondition(rec.Status.Conditions, herald.AllocationConflict)
	seen, lasts := r.p.conflicts.of(address, time.Now())
	switch {
	case len(seen) > 0:
		c := &metav1.Condition{Type: herald.AllocationConflict, Status: metav1.ConditionTrue, Reason: "StrangerSeen", Message: seen[0].message(address)}
		if conflicting(rec) && slices.ContainsFunc(seen, func(s sighting) bool { return s.message(address) == is.Message }) {
			c.Message = is.Message // It is still true, however many see it.
		}
		return c, lasts
	case is == nil, lasts > 0, !r.p.conflicts.synced.Load():
		return is, lasts
	}
	return &metav1.Condition{Type: herald.AllocationConflict, Status: metav1.ConditionFalse, Reason: "NotReported"}, 0
}

// conflicting reports whether a record says that a stranger uses its address.
func conflicting(rec *herald.IPAllocation) bool {
	return meta.IsStatusConditionTrue(rec.Status.Conditions, herald.AllocationConflict)
}

// heldBack is how long a released address is not to be given out because of a conflict. An address that is in no
// pool, or in one that is to be deleted, is not given out anyway.
func (r *records) heldBack(rec *herald.IPAllocation, address netip.Addr) time.Duration {
	if !conflicting(rec) || !r.p.ledger.termsOf(rec.Spec.Pool).lasting {
		return 0
	}
	_, lasts := r.p.conflicts.of(address, time.Now())
	return max(lasts, time.Until(rec.Spec.ReleasedAt.Add(conflictRest)))
}

// conflictsSynced has what is said of conflicts looked at when all reports are known: those that were withdrawn while
// nobody looked are over.
func (r *records) conflictsSynced() {
	r.p.conflicts.synced.Store(true)
	for _, o := range r.informer.GetStore().List() {
		if rec := o.(*herald.IPAllocation); conflicting(rec) {
			r.queue.Add(rec.Name)
		}
	}
}

// shunned lists the addresses that a Service is not to be given back, though they are kept for its name: it left them
// because of a conflict.
func (r *records) shunned(svc *corev1.Service) (list []netip.Addr) {
	for _, a := range r.p.ledger.coolingFor(owner(svc)) {
		if rec := r.cached(herald.AllocationName(a.Address)); rec != nil && conflicting(rec) {
			list = append(list, a.Address)
		}
	}
	return list
}

// unwanted lists the addresses of a Service that it is to move off because of a conflict, if there are others.
func (r *records) unwanted(svc *corev1.Service, req ipam.Request) (list []netip.Addr) {
	for _, a := range r.p.ledger.heldBy(owner(svc)) {
		if rec := r.cached(herald.AllocationName(a.Address)); rec != nil && r.conflictMoves(svc, req, rec, a.Address) {
			list = append(list, a.Address)
		}
	}
	return list
}

// conflictMoves reports whether a Service is to leave an address because of a conflict: the address is new, the Service
// did not ask for it, and has not moved for such a reason already.
func (r *records) conflictMoves(svc *corev1.Service, req ipam.Request, rec *herald.IPAllocation, address netip.Addr) bool {
	return conflicting(rec) && r.ours(rec) && rec.Spec.ReleasedAt == nil && time.Since(rec.CreationTimestamp.Time) < establishedAfter &&
		rec.Spec.ReclaimPolicy != herald.ReclaimRetain && // That was reserved for it by hand.
		!slices.Contains(req.Addresses, address) && len(r.shunned(svc)) == 0
}

// allocate is the ledger's, but that a Service leaves an address that conflicts if another can be had.
func (p *Provider) allocate(svc *corev1.Service, req ipam.Request) ([]ipam.Allocation, []notice, error) {
	leave := p.records.unwanted(svc, req)
	if len(leave) == 0 {
		return p.ledger.allocate(svc, req)
	}
	other := req
	other.Leave = slices.Concat(req.Leave, leave)
	allocations, notices, err := p.ledger.allocate(svc, other)
	if err != nil {
		why := err
		if allocations, notices, err = p.ledger.allocate(svc, req); err == nil {
			notices = append(notices, notice{"AddressConflict", fmt.Sprintf("the Service keeps %s, which another machine uses, too: %v", leave[0], why)})
		}
		return allocations, notices, err
	}
	for _, old := range leave {
		for _, a := range allocations {
			if ipam.FamilyOf(a.Address) == ipam.FamilyOf(old) && slices.Contains(Carried(svc), old) {
				notices = append(notices, notice{"AddressReplaced", fmt.Sprintf("%s is used by another machine, too: the Service was given %s instead", old, a.Address)})
			}
		}
	}
	return allocations, notices, nil
}
