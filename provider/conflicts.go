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

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// The speaker that owns an address sees on the wire if another machine uses the address as well, and reports it. The
// report becomes a condition of the address's record and an event on its Services. A Service whose address is new and
// conflicts from the start is given another: see ledger.decide.
//
// Anybody who controls a node can report any conflict. So a Service moves only while its address is new, and once; an
// address in established use stays where it is, whatever is reported.

const (
	// conflictFresh is how old the time of a report may be: the report of a node that is gone stays in its SpeakerStatus.
	conflictFresh = 5 * time.Minute
	// conflictQuiet is how long nobody has to report a conflict before it is over.
	conflictQuiet = time.Minute
	// conflictRest is how long an address that was released with a conflict is held back at least: nobody looks for
	// strangers at an address that has no owner.
	conflictRest = 10 * time.Minute
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
	// told is when the record's message about it was last replaced by another.
	told time.Time
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

// conflicts is what the speakers report of strangers at recorded addresses. So however much a node reports, there is not
// more to remember than there are records.
type conflicts struct {
	// recorded reports whether an address has a record that this herald-ccm looks after.
	recorded func(netip.Addr) bool
	// changed is told of an address when something new is reported about it. Its record is then looked at, and again until
	// the conflict is over, which is when it is forgotten: see of.
	changed func(netip.Addr)
	// received tells that every report of the first list was taken in.
	received cache.InformerSynced
	synced   atomic.Bool

	mu       sync.Mutex
	disputes map[netip.Addr]dispute
}

func newConflicts(recorded func(netip.Addr) bool, changed func(netip.Addr)) *conflicts {
	return &conflicts{recorded: recorded, changed: changed, disputes: map[netip.Addr]dispute{}}
}

// follow takes in the reports of an informer, which is not started yet.
func (c *conflicts) follow(reports cache.SharedIndexInformer) {
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
	taken := maps.Clone(has)
	maps.DeleteFunc(taken, func(address netip.Addr, _ sighting) bool { return !c.recorded(address) })
	var news []netip.Addr
	c.mu.Lock()
	for address, s := range taken {
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
	for _, address := range before.disputed() {
		d := c.disputes[address]
		_, still := has[address]
		if _, was := d.by[before.Name]; still || !was {
			continue
		}
		delete(d.by, before.Name)
		if _, fresh := had[address]; fresh {
			d.vacated = now
		}
		c.disputes[address] = d
		news = append(news, address)
	}
	c.mu.Unlock()
	for _, address := range news {
		c.changed(address)
	}
}

// disputed are the addresses that a report tells of, recent or not.
func (r *report) disputed() (all []netip.Addr) {
	if r == nil {
		return nil
	}
	for _, c := range r.conflicts {
		if address, valid := plainAddress(c.Address); valid {
			all = append(all, address)
		}
	}
	return all
}

// of returns who reports a conflict about an address, by node, and how long it goes on if nothing more is reported. A
// conflict that is over is forgotten.
func (c *conflicts) of(address netip.Addr, now time.Time) ([]sighting, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.disputes[address]
	lasts := d.lasts(now)
	if lasts <= 0 {
		delete(c.disputes, address)
	}
	current := slices.DeleteFunc(slices.Collect(maps.Values(d.by)), func(s sighting) bool { return now.Sub(s.at) >= conflictFresh })
	slices.SortFunc(current, func(x, y sighting) int { return cmp.Compare(x.node, y.node) })
	return current, lasts
}

// message tells what was seen and what to do about it.
func (s sighting) message(address netip.Addr) string {
	where := strconv.Quote(s.where) // Whoever controls a node chose it.
	return fmt.Sprintf("%s is used by a machine with the MAC address %s, too, which node %s saw on interface %s: give that machine another address, "+
		"or put %s into spec.exclude of its IPPool and move its Services off it by kubectl herald renumber", address, s.mac, s.node, where[1:len(where)-1], address)
}

// condition returns the condition AddressConflict that a record is to have, nil if it is to have none, and when it is to
// be looked at again.
func (c *conflicts) condition(rec *herald.IPAllocation, address netip.Addr, now time.Time) (*metav1.Condition, time.Duration) {
	is := meta.FindStatusCondition(rec.Status.Conditions, herald.AllocationConflict)
	seen, lasts := c.of(address, now)
	switch {
	case len(seen) > 0:
		condition := &metav1.Condition{Type: herald.AllocationConflict, Status: metav1.ConditionTrue, Reason: herald.ReasonStrangerSeen, Message: seen[0].message(address)}
		switch {
		case !conflicting(rec):
		case slices.ContainsFunc(seen, func(s sighting) bool { return s.message(address) == is.Message }):
			condition.Message = is.Message // It is still true, however many nodes report it.
		case !c.mayReplace(address, now):
			condition.Message, lasts = is.Message, min(lasts, conflictQuiet)
		}
		return condition, lasts
	case is == nil, lasts > 0, !c.synced.Load():
		return is, lasts
	}
	return &metav1.Condition{Type: herald.AllocationConflict, Status: metav1.ConditionFalse, Reason: herald.ReasonNotReported}, 0
}

// mayReplace reports whether the message about an address may be replaced by another, and takes it that it is. A node that
// reports another machine again and again costs one write of each record in conflictQuiet.
func (c *conflicts) mayReplace(address netip.Addr, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.disputes[address]
	if now.Sub(d.told) < conflictQuiet {
		return false
	}
	d.told = now
	c.disputes[address] = d
	return true
}

// count is how many addresses have a conflict that somebody reports.
func (c *conflicts) count(now time.Time) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.disputes {
		for _, s := range d.by {
			if now.Sub(s.at) < conflictFresh {
				n++
				break
			}
		}
	}
	return n
}

// lasts is how long the conflict about an address goes on if nothing more is reported.
func (c *conflicts) lasts(address netip.Addr, now time.Time) time.Duration {
	_, lasts := c.of(address, now)
	return lasts
}
