package speaker

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// handoverTime is how long a node needs to forward to an endpoint that has become ready on it: kube-proxy writes its
// rules once a second unless it is told otherwise, and routers take a moment to learn a route.
const handoverTime = 2 * time.Second

// deliveries remembers which addresses this node delivers, to notice what begins and what ends. The loop owns it.
type deliveries struct {
	self string
	// now has the addresses that this node delivers.
	now map[netip.Addr]bool
	// local has the addresses of Services under policy Local.
	local map[netip.Addr]*localNodes
}

// localNodes are the nodes that deliver an address under policy Local.
type localNodes struct {
	all []string // sorted
	// since has those that became ready within the handoverTime.
	since map[string]time.Time
}

func newDeliveries(self string) deliveries {
	return deliveries{self: self, now: map[netip.Addr]bool{}, local: map[netip.Addr]*localNodes{}}
}

// forget is for an address that no Service has any more.
func (d *deliveries) forget(address netip.Addr) {
	delete(d.now, address)
	delete(d.local, address)
}

// note takes what is known of an address now. It reports whether this node has become able to deliver it.
//
// When the last ready pod on this node is being deleted, and the other nodes with ready pods have had them only for a
// moment, this node goes on delivering for that moment: its kube-proxy sends connections to pods that terminate and
// still serve (KEP-1669), while those of the others may not know their pods yet. The address then lists this node as
// ready, and until is when to look at it again.
func (d *deliveries) note(a *Address, now time.Time) (began bool, until time.Time) {
	if until = d.handOver(a, now); !until.IsZero() {
		for _, svc := range a.Services {
			svc.stay(d.self)
		}
	}
	delivers := slices.ContainsFunc(a.Services, func(svc *Service) bool { return svc.delivers(a.Addr, d.self) })
	began = delivers && !d.now[a.Addr]
	if delivers {
		d.now[a.Addr] = true
	} else {
		delete(d.now, a.Addr)
	}
	return began, until
}

// handOver returns until when this node has to go on delivering an address that other nodes are taking over; zero if it
// has not.
func (d *deliveries) handOver(a *Address, now time.Time) (until time.Time) {
	var ready []string
	for _, svc := range a.Services {
		if svc.Local {
			ready = append(ready, svc.ready(a.Addr)...)
		}
	}
	before := d.local[a.Addr]
	if len(ready) == 0 {
		delete(d.local, a.Addr)
		return time.Time{}
	}
	slices.Sort(ready)
	ready = slices.Compact(ready)
	nodes := &localNodes{all: ready, since: map[string]time.Time{}}
	d.local[a.Addr] = nodes
	if before == nil {
		return time.Time{}
	}
	maps.Copy(nodes.since, before.since)
	for _, n := range ready {
		if _, was := slices.BinarySearch(before.all, n); !was {
			nodes.since[n] = now
		}
	}
	maps.DeleteFunc(nodes.since, func(n string, since time.Time) bool {
		_, is := slices.BinarySearch(ready, n)
		return !is || now.Sub(since) >= handoverTime
	})
	_, was := slices.BinarySearch(before.all, d.self)
	_, is := slices.BinarySearch(ready, d.self)
	leaves := slices.ContainsFunc(a.Services, func(svc *Service) bool { return svc.leaves(a.Addr, d.self) })
	if !was || is || !leaves || len(nodes.since) < len(ready) {
		return time.Time{}
	}
	for _, since := range nodes.since {
		if end := since.Add(handoverTime); until.IsZero() || end.Before(until) {
			until = end
		}
	}
	at, _ := slices.BinarySearch(ready, d.self)
	nodes.all = slices.Insert(slices.Clone(ready), at, d.self)
	return until
}

// leaves reports whether the endpoints of a Service on a node, for traffic to the address, terminate and still serve.
func (svc *Service) leaves(address netip.Addr, node string) bool {
	leaving := svc.Leaving6
	if address.Is4() {
		leaving = svc.Leaving4
	}
	_, found := slices.BinarySearch(leaving, node)
	return svc.Local && found
}

// stay counts endpoints of a node that terminate and still serve as ready.
func (svc *Service) stay(node string) {
	if !svc.Local {
		return
	}
	add := func(ready, leaving []string) []string {
		if _, leaves := slices.BinarySearch(leaving, node); !leaves {
			return ready
		}
		at, is := slices.BinarySearch(ready, node)
		if is {
			return ready
		}
		return slices.Insert(slices.Clone(ready), at, node)
	}
	svc.Ready4, svc.Ready6 = add(svc.Ready4, svc.Leaving4), add(svc.Ready6, svc.Leaving6)
}
