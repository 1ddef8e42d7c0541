package speaker

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/heraldlb/herald/speaker/announce"
)

const (
	// handoverTime is how long a node may take to forward to an endpoint that has become ready on it, if its kube-proxy does
	// not tell: it writes its rules once a second unless it is told otherwise. Until then the node is fresh.
	handoverTime = 2 * time.Second
	// learningTime is how long that node's speaker and routers may take when kube-proxy says that it forwards.
	learningTime = 250 * time.Millisecond
	// handoverLimit is for how long a node is fresh whose kube-proxy says that it does not forward: its speaker waits no longer.
	handoverLimit = doubtedPatience + learningTime
	// doubtTime is for how long a node stays fresh after its kube-proxy has said so.
	doubtTime = 300 * time.Millisecond
)

// deliveries remembers which addresses this node delivers, to notice what begins and what ends. The loop owns it.
type deliveries struct {
	self string
	// now has the addresses that this node delivers.
	now map[netip.Addr]bool
	// local has the addresses of Services under policy Local.
	local map[netip.Addr]*localNodes
	// fresh has the addresses for which nodes are fresh, until one of them is not any more. This node hands over no address
	// for longer.
	fresh timetable
}

// localNodes are the nodes that deliver an address under policy Local.
type localNodes struct {
	all []string // sorted
	// fresh has those that are fresh.
	fresh map[string]freshNode
}

// freshNode is a node that became able to deliver an address a short time ago.
type freshNode struct{ since, until time.Time }

func newDeliveries(self string) deliveries {
	return deliveries{self: self, now: map[netip.Addr]bool{}, local: map[netip.Addr]*localNodes{}, fresh: newTimetable()}
}

// forget is for an address that no Service has any more.
func (d *deliveries) forget(address netip.Addr) {
	delete(d.now, address)
	delete(d.local, address)
	d.fresh.set(address, time.Time{})
}

// note takes what is known of an address now. It reports whether this node has become able to deliver it.
//
// When the last ready pod of a Service on this node is being deleted, and the other nodes with ready pods are fresh, this node goes
// on delivering: its kube-proxy sends connections to pods that terminate and still serve (KEP-1669), while those of the others
// may not know their pods yet. The address then lists this node as ready. It is looked at again when the first of the
// others is not fresh any more.
func (d *deliveries) note(a *announce.Address, cluster map[string]announce.Node, now time.Time) (began bool) {
	before, nodes := d.local[a.Addr], d.readyNodes(a, cluster, now)
	if nodes == nil {
		delete(d.local, a.Addr)
		d.fresh.set(a.Addr, time.Time{})
	} else {
		d.local[a.Addr] = nodes
		a.Fresh = slices.Sorted(maps.Keys(nodes.fresh))
		d.fresh.set(a.Addr, nodes.until())
		for _, svc := range a.Services {
			if !d.handsOver(svc, a.Addr, before, nodes) {
				continue
			}
			stay(svc, d.self)
			if at, is := slices.BinarySearch(nodes.all, d.self); !is {
				nodes.all = slices.Insert(nodes.all, at, d.self)
			}
		}
	}
	delivers := slices.ContainsFunc(a.Services, func(svc *announce.Service) bool { return svc.Delivers(a.Addr, d.self) })
	began = delivers && !d.now[a.Addr]
	if delivers {
		d.now[a.Addr] = true
	} else {
		delete(d.now, a.Addr)
	}
	return began
}

// judge follows note. It says who comes last as this node sees it, and whether this node leaves the address to others on the
// segments. What its own kube-proxy says is surer than the time since the node became ready:
//
//   - no: this node comes last, however long ago it became ready. If all others are fresh, too, they go before it, and it comes
//     last alone. An address that is new is left as it is: new addresses are spread over the nodes all the same.
//   - forwards: this node does not come last. If all nodes are fresh, they are alike, and are left as they are.
//   - unknown: this node is what it is for the others.
//
// On the segments the other nodes do not know what this node's kube-proxy says. So that the nodes agree on the order of the
// candidates, the time counts there. What kube-proxy says counts only among the nodes that are fresh.
func (d *deliveries) judge(a *announce.Address, own answer) {
	nodes := d.local[a.Addr]
	if nodes == nil {
		return
	}
	a.Behind, a.Forwards, a.Leaves = a.Fresh, own == forwards, own == no && !a.New
	others := slices.DeleteFunc(slices.Clone(a.Fresh), func(node string) bool { return node == d.self })
	switch {
	case own == no && !a.New && len(others)+1 == len(nodes.all):
		a.Behind = []string{d.self}
	case own == no && !a.New:
		at, _ := slices.BinarySearch(others, d.self)
		a.Behind = slices.Insert(others, at, d.self)
	case own == forwards && len(a.Fresh) < len(nodes.all):
		a.Behind = others
	}
}

// readyNodes are the nodes of the cluster that have ready endpoints for an address under policy Local, and those of them that are
// fresh. Nodes that are excluded announce nothing and do not count. It is nil if there are none. No node is fresh that was ready
// when this speaker first heard of the address.
func (d *deliveries) readyNodes(a *announce.Address, cluster map[string]announce.Node, now time.Time) *localNodes {
	var ready []string
	for _, svc := range a.Services {
		if svc.Local {
			ready = append(ready, svc.Ready(a.Addr)...)
		}
	}
	ready = slices.DeleteFunc(ready, func(node string) bool {
		n, known := cluster[node]
		return !known || n.Excluded
	})
	if len(ready) == 0 {
		return nil
	}
	slices.Sort(ready)
	nodes := &localNodes{all: slices.Compact(ready), fresh: map[string]freshNode{}}
	before := d.local[a.Addr]
	if before == nil {
		return nodes
	}
	for _, n := range nodes.all {
		f, fresh := before.fresh[n]
		if _, was := slices.BinarySearch(before.all, n); !was {
			f, fresh = freshNode{since: now, until: now.Add(handoverTime)}, true
		}
		if fresh && now.Before(f.until) {
			nodes.fresh[n] = f
		}
	}
	return nodes
}

// until is when the first of the fresh nodes is not fresh any more; zero if none is fresh.
func (n *localNodes) until() (first time.Time) {
	for _, f := range n.fresh {
		if first.IsZero() || f.until.Before(first) {
			first = f.until
		}
	}
	return first
}

// answered takes what the kube-proxy of a fresh node said when it was asked at a time. The last answer counts: one that has not yet
// written that the node lost its last pod says that it forwards until it has.
func (d *deliveries) answered(address netip.Addr, node string, said answer, at time.Time) {
	nodes := d.local[address]
	if nodes == nil {
		return
	}
	f, fresh := nodes.fresh[node]
	if !fresh {
		return
	}
	switch said {
	case forwards: // Its speaker may not have seen kube-proxy write, and asks only then.
		f.until = earlier(f.until, later(at, f.since.Add(heardSurelyWithin)).Add(learningTime))
	case no:
		f.until = earlier(f.since.Add(handoverLimit), later(f.since.Add(handoverTime), at.Add(doubtTime)))
	}
	nodes.fresh[node] = f
	d.fresh.set(address, nodes.until())
}

// asked lists the fresh nodes that are taking an address over from this node.
func (d *deliveries) asked(a *announce.Address) (nodes []string) {
	known := d.local[a.Addr]
	if known == nil || len(known.fresh) == 0 || !slices.ContainsFunc(a.Services, func(svc *announce.Service) bool { return leaves(svc, a.Addr, d.self) }) || !d.now[a.Addr] {
		return nil
	}
	for n := range known.fresh {
		if n != d.self {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

func earlier(x, y time.Time) time.Time {
	if y.Before(x) {
		return y
	}
	return x
}

func later(x, y time.Time) time.Time {
	if y.After(x) {
		return y
	}
	return x
}

// handsOver reports whether this node has to go on delivering a Service that other nodes are taking over. Services that share an
// address are looked at one by one: they do not change at the same time.
func (d *deliveries) handsOver(svc *announce.Service, address netip.Addr, before, nodes *localNodes) bool {
	if before == nil || !slices.Contains(before.all, d.self) || !leaves(svc, address, d.self) || svc.Delivers(address, d.self) {
		return false
	}
	others := 0
	for _, n := range svc.Ready(address) {
		_, fresh := nodes.fresh[n]
		if !fresh && slices.Contains(nodes.all, n) {
			return false
		}
		if fresh {
			others++
		}
	}
	return others > 0
}

// othersDeliver reports whether another node delivers an address under policy Local, or has endpoints that terminate and
// still serve.
func othersDeliver(a *announce.Address, self string) bool {
	other := func(node string) bool { return node != self }
	return slices.ContainsFunc(a.Services, func(svc *announce.Service) bool {
		return svc.Local && (slices.ContainsFunc(svc.Ready(a.Addr), other) || slices.ContainsFunc(leaving(svc, a.Addr), other))
	})
}

// leaves reports whether the endpoints of a Service on a node, for traffic to the address, terminate and still serve.
func leaves(svc *announce.Service, address netip.Addr, node string) bool {
	_, found := slices.BinarySearch(leaving(svc, address), node)
	return svc.Local && found
}

// leaving lists the nodes with endpoints that terminate and still serve, for traffic to the address.
func leaving(svc *announce.Service, address netip.Addr) []string {
	if address.Is4() {
		return svc.Leaving4
	}
	return svc.Leaving6
}

// stay counts endpoints of a node that terminate and still serve as ready, all together as one.
func stay(svc *announce.Service, node string) {
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
	count := func(counts map[string]int, leaving []string) map[string]int {
		if _, leaves := slices.BinarySearch(leaving, node); !leaves || counts[node] > 0 {
			return counts
		}
		with := maps.Clone(counts)
		if with == nil {
			with = map[string]int{}
		}
		with[node] = 1
		return with
	}
	svc.Ready4, svc.Ready6 = add(svc.Ready4, svc.Leaving4), add(svc.Ready6, svc.Leaving6)
	svc.Count4, svc.Count6 = count(svc.Count4, svc.Leaving4), count(svc.Count6, svc.Leaving6)
}
