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
	// not tell. By default, kube-proxy writes its rules once a second. For this time the node is fresh.
	handoverTime = 2 * time.Second
	// learningTime is how long that node's speaker and routers may take to learn that its kube-proxy forwards.
	learningTime = 250 * time.Millisecond
	// handoverLimit is how long a node is fresh at most if its kube-proxy says that it does not forward: the node's own
	// speaker does not wait longer.
	handoverLimit = doubtedPatience + learningTime
	// doubtTime is how long a node stays fresh after its kube-proxy has said that it does not forward.
	doubtTime = 300 * time.Millisecond
)

// deliveries remembers which addresses this node delivers, to notice when a delivery begins or ends. The loop owns it.
type deliveries struct {
	self string
	// now has the addresses that this node delivers.
	now map[netip.Addr]bool
	// local has the addresses of Services under policy Local.
	local map[netip.Addr]*localNodes
	// fresh has the addresses for which some nodes are fresh, with the time at which the first of these nodes is not fresh any
	// more. No handover of an address from this node takes longer than that.
	fresh timetable
}

// localNodes are the nodes that deliver an address under policy Local.
type localNodes struct {
	all []string // sorted
	// fresh has the nodes that are fresh.
	fresh map[string]freshNode
}

// freshNode is a node that became able to deliver an address a short time ago.
type freshNode struct{ since, until time.Time }

func newDeliveries(self string) deliveries {
	return deliveries{self: self, now: map[netip.Addr]bool{}, local: map[netip.Addr]*localNodes{}, fresh: newTimetable()}
}

// forget removes an address that no Service has any more.
func (d *deliveries) forget(address netip.Addr) {
	delete(d.now, address)
	delete(d.local, address)
	d.fresh.set(address, time.Time{})
}

// note records the current state of an address. It reports whether this node has become able to deliver the address.
//
// When the last ready pod of a Service on this node is being deleted, and all other nodes with ready pods are fresh, this node
// goes on delivering: its kube-proxy sends connections to pods that terminate and still serve (KEP-1669), while the
// kube-proxies of the other nodes may not know their pods yet. note then lists this node as ready for the address. The address
// is decided again when the first of the other nodes is not fresh any more.
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
			countTerminating(svc, d.self)
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

// judge is called after note. It determines which nodes come last from the point of view of this node, and whether this node
// leaves the address to others on the segments (docs/adr/0013-announced-once-forwarded.md). What this node's kube-proxy says is
// more certain than the time since the node became ready:
//
//   - no: this node comes last, however long ago it became ready. If all others are fresh, too, this node alone comes last,
//     after them. A new address is left as it is, because new addresses are spread over the nodes in any case.
//   - forwards: this node does not come last. If all nodes are fresh, they are equal, and nothing changes.
//   - unknown: this node has the same place as the other nodes give it.
//
// On the segments the other nodes do not know what this node's kube-proxy says. The nodes must agree on the order of the
// candidates, so the time since a node became ready counts there. If this node's kube-proxy forwards, this node comes before the
// other fresh nodes, and not before the nodes that are not fresh. If its kube-proxy says no, this node leaves the address to the
// other candidates, fresh or not, unless the address is new.
func (d *deliveries) judge(a *announce.Address, own answer) {
	nodes := d.local[a.Addr]
	if nodes == nil {
		return
	}
	a.Behind, a.Forwards, a.Defers = a.Fresh, own == forwards, own == no && !a.New
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

// readyNodes returns the nodes of the cluster that have ready endpoints for an address under policy Local, and which of them
// are fresh. It returns nil if there are none. Excluded nodes announce nothing and do not count. A node that was ready when
// this speaker first heard of the address is not fresh.
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

// until returns the time at which the first of the fresh nodes is not fresh any more; zero if none is fresh.
func (n *localNodes) until() (first time.Time) {
	for _, f := range n.fresh {
		if first.IsZero() || f.until.Before(first) {
			first = f.until
		}
	}
	return first
}

// answered records what the kube-proxy of a fresh node said when it was asked at the given time. The last answer counts: until
// kube-proxy has written that the node lost its last pod, it still says that it forwards.
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
	case forwards: // Its speaker may see later than we do that kube-proxy has written.
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
	if known == nil || len(known.fresh) == 0 || !slices.ContainsFunc(a.Services, func(svc *announce.Service) bool { return terminates(svc, a.Addr, d.self) }) || !d.now[a.Addr] {
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

// handsOver reports whether this node has to go on delivering a Service that other nodes are taking over. Services that share
// an address are checked one by one: they do not change at the same time.
func (d *deliveries) handsOver(svc *announce.Service, address netip.Addr, before, nodes *localNodes) bool {
	if before == nil || !slices.Contains(before.all, d.self) || !terminates(svc, address, d.self) || svc.Delivers(address, d.self) {
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
		return svc.Local && (slices.ContainsFunc(svc.Ready(a.Addr), other) || slices.ContainsFunc(terminating(svc, a.Addr), other))
	})
}

// terminates reports whether a node has endpoints of a Service, for traffic to the address, that terminate and still serve.
func terminates(svc *announce.Service, address netip.Addr, node string) bool {
	_, found := slices.BinarySearch(terminating(svc, address), node)
	return svc.Local && found
}

// terminating lists the nodes with endpoints that terminate and still serve, for traffic to the address.
func terminating(svc *announce.Service, address netip.Addr) []string {
	if address.Is4() {
		return svc.Terminating4
	}
	return svc.Terminating6
}

// countTerminating counts the endpoints of a node that terminate and still serve as ready: all of them together as one endpoint.
func countTerminating(svc *announce.Service, node string) {
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
	svc.Ready4, svc.Ready6 = add(svc.Ready4, svc.Terminating4), add(svc.Ready6, svc.Terminating6)
	svc.Count4, svc.Count6 = count(svc.Count4, svc.Terminating4), count(svc.Count6, svc.Terminating6)
}
