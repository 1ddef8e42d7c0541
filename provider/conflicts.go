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

// The speaker that owns an address sees on the wire if another machine uses the address as well, and reports this. The
// report becomes a condition of the address's record and an event on its Services. If a Service has just got an address
// that conflicts from the start, it gets another one: see ledger.decide.
//
// Anybody who controls a node can report any conflict. A Service therefore moves only while its address is new, and only
// once. An address in established use stays where it is, whatever is reported.

const (
	// conflictFresh is the maximum age of a report. The report of a node that is gone stays in its SpeakerStatus.
	conflictFresh = 5 * time.Minute
	// conflictQuiet is how long after the last report a conflict is over.
	conflictQuiet = time.Minute
	// conflictRest is the minimum time for which an address that was released with a conflict is held back. While an
	// address has no owner, nobody checks whether a stranger uses it.
	conflictRest = 10 * time.Minute
)

// sighting is another machine that uses an address, as one node reports it.
type sighting struct {
	node, where, mac string
	at               time.Time
}

func (s sighting) same(o sighting) bool {
	return s.node == o.node && s.where == o.where && s.mac == o.mac
}

// dispute has the reports about one address.
type dispute struct {
	by map[string]sighting // by node
	// vacated is the time when the last report was withdrawn.
	vacated time.Time
	// told is the last time when the message of the record about the conflict was replaced.
	told time.Time
}

// lasts returns how long the conflict continues if no further report comes. If not positive, the conflict is over.
func (d dispute) lasts(now time.Time) time.Duration {
	until := d.vacated.Add(conflictQuiet)
	for _, s := range d.by {
		if end := s.at.Add(conflictFresh); end.After(until) {
			until = end
		}
	}
	return until.Sub(now)
}

// conflicts has the speakers' reports of strangers at recorded addresses. It ignores other addresses, so that a node
// cannot make it remember more conflicts than there are records.
type conflicts struct {
	// recorded reports whether an address has a record that belongs to this herald-ccm.
	recorded func(netip.Addr) bool
	// changed is called with an address when there is news about it. The record is then checked, and checked again until
	// the conflict is over and forgotten: see of.
	changed func(netip.Addr)
	// received reports whether every report of the first list was processed.
	received cache.InformerSynced
	synced   atomic.Bool

	mu       sync.Mutex
	disputes map[netip.Addr]dispute
}

func newConflicts(recorded func(netip.Addr) bool, changed func(netip.Addr)) *conflicts {
	return &conflicts{recorded: recorded, changed: changed, disputes: map[netip.Addr]dispute{}}
}

// follow subscribes to the reports of an informer, which must not be started yet.
func (c *conflicts) follow(reports cache.SharedIndexInformer) {
	// AddEventHandler fails only for a stopped informer.
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

// sightings returns the conflicts of a report that can be parsed and are recent, by address.
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
			all[address] = s // the latest, if several interfaces report the address
		}
	}
	return all
}

// report processes the change of a node's report.
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

// disputed returns the addresses that a report mentions, recent or not.
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

// of returns the nodes' reports about an address, sorted by node, and how long the conflict continues if no further report
// comes. A conflict that is over is forgotten.
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

// message says what was seen and what to do about it.
func (s sighting) message(address netip.Addr) string {
	where := strconv.Quote(s.where) // quoted, because whoever controls a node chose it
	return fmt.Sprintf("%s is used by a machine with the MAC address %s, too, which node %s saw on interface %s: give that machine another address, "+
		"or put %s into spec.exclude of its IPPool and move its Services off it by kubectl herald renumber", address, s.mac, s.node, where[1:len(where)-1], address)
}

// condition returns the condition AddressConflict that a record must have, or nil if none, and when to check the record
// again.
func (c *conflicts) condition(rec *herald.IPAllocation, address netip.Addr, now time.Time) (*metav1.Condition, time.Duration) {
	is := meta.FindStatusCondition(rec.Status.Conditions, herald.AllocationConflict)
	synced := c.synced.Load() // This is read first: the report of this conflict could be the last that was missing.
	seen, lasts := c.of(address, now)
	switch {
	case len(seen) > 0:
		condition := &metav1.Condition{Type: herald.AllocationConflict, Status: metav1.ConditionTrue, Reason: herald.ReasonStrangerSeen, Message: seen[0].message(address)}
		switch {
		case !conflicting(rec):
		case slices.ContainsFunc(seen, func(s sighting) bool { return s.message(address) == is.Message }):
			condition.Message = is.Message // The message is still true, whatever the number of nodes that report it.
		case !c.mayReplace(address, now):
			condition.Message, lasts = is.Message, min(lasts, conflictQuiet)
		}
		return condition, lasts
	case is == nil, lasts > 0, !synced:
		return is, lasts
	}
	return &metav1.Condition{
		Type: herald.AllocationConflict, Status: metav1.ConditionFalse, Reason: herald.ReasonNotReported, Message: "no speaker reports another machine with the address any more",
	}, 0
}

// mayReplace reports whether the message about an address may be replaced, and notes that it is. A node that reports a
// different machine again and again thus causes at most one write of each record per conflictQuiet.
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

// count returns the number of addresses with a reported conflict.
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

// lasts returns how long the conflict about an address continues if no further report comes.
func (c *conflicts) lasts(address netip.Addr, now time.Time) time.Duration {
	_, lasts := c.of(address, now)
	return lasts
}
