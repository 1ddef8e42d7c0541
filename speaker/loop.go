package speaker

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/announce"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/bgp/route"
	"github.com/heraldlb/herald/speaker/link"
	"github.com/heraldlb/herald/speaker/responder"
	"github.com/heraldlb/herald/speaker/segment"
	"github.com/heraldlb/herald/speaker/segment/ownership"
)

// passPeriod bounds how often decisions are made: changes that come within one period are handled together.
const passPeriod = 20 * time.Millisecond

// fullPassShare bounds the CPU time of passes over all addresses: the pause between two of them is at least this many times
// the duration of the first. Otherwise labels that change all the time would occupy a core.
const fullPassShare = 9

// maxFullPause is the longest such pause. A speaker that starts makes its decisions from the neighbours that it hears. Until
// it has decided with them, it counts itself as the only candidate, and after 5 s it would take addresses from owners that
// are not candidates.
const maxFullPause = time.Second

// fullPause returns the pause before the next pass over all addresses, given the duration of the last one.
func fullPause(took time.Duration) time.Duration { return min(fullPassShare*took, maxFullPause) }

// turnMissing is how long one iteration of the loop may take before the loop counts as stuck.
const turnMissing = 15 * time.Second

// loop owns the decisions. All its fields belong to the goroutine in run.
type loop struct {
	s          *Speaker
	shared     *announce.Shared
	usable     *netipx.IPSet    // the addresses of all pools and of all records
	interfaces []link.Interface // that matter to L2Advertisements
	gateways   []netip.Addr     // of all interfaces, sorted
	// refusedHere are the addresses of the infrastructure that not all nodes know as such.
	refusedHere []netip.Addr
	decisions   map[netip.Addr]announce.Decision
	candidate   map[string]map[netip.Addr]bool // by interface, addresses that this node may own
	prepare     map[string]bool                // interfaces whose set of candidate addresses has changed
	own         map[*ownership.Candidates]bool // whether this node is one of the candidates
	deliveries  deliveries
	aggregates  aggregates
	weights     weights
	drain       drain
	stop        chan<- struct{}                              // drain.stop, for Speaker.drain: this copy never changes
	routes      map[netip.Prefix]map[string]route.Attributes // routes that routers must be told about; empty: to withdraw

	nextFull  time.Time // no pass over all addresses begins before this time
	postponed bool      // whether a pass over all addresses is due and waits for nextFull
	full      *time.Timer

	rejected []announce.Rejected  // BGPPeers with which this node holds no session
	found    map[string]*findings // by BGPPeer
	indexes  map[string]int       // last known indexes of the interfaces of BGPPeers, by name
	links    unnumberedLinks
	// unwatched has the BGPPeers for which BFD cannot run, with the reason.
	unwatched map[string]error
	sessions  map[string]sessionReport
	since     map[claimKey]time.Time // the start of each claim, as reported last

	passes, decided prometheus.Counter
	duration        prometheus.Histogram
}

func newLoop(s *Speaker) *loop {
	metric := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "herald", Subsystem: "speaker", Name: name, Help: help}
	}
	d := newDrain()
	return &loop{
		links: unnumberedLinks{log: s.log, of: map[string]*unnumberedLink{}}, drain: d, stop: d.stop, weights: newWeights(),
		s: s, decisions: map[netip.Addr]announce.Decision{},
		candidate: map[string]map[netip.Addr]bool{}, prepare: map[string]bool{}, own: map[*ownership.Candidates]bool{},
		sessions: map[string]sessionReport{}, deliveries: newDeliveries(s.config.Node),
		aggregates: newAggregates(), routes: map[netip.Prefix]map[string]route.Attributes{},
		full:    stopped(),
		passes:  prometheus.NewCounter(prometheus.CounterOpts(metric("passes_total", "How often the speaker decided again about the addresses that changes concern."))),
		decided: prometheus.NewCounter(prometheus.CounterOpts(metric("decisions_total", "Decisions about one address."))),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "herald", Subsystem: "speaker", Name: "pass_duration_seconds", Help: "How long the speaker took to decide again about the addresses that changes concern.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8),
		}),
	}
}

// stopped returns a timer that is not running.
func stopped() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

func (l *loop) collectors() []prometheus.Collector {
	return []prometheus.Collector{l.passes, l.decided, l.duration}
}

// Describe implements prometheus.Collector.
func (l *loop) Describe(c chan<- *prometheus.Desc) {
	for _, m := range l.collectors() {
		m.Describe(c)
	}
}

// Collect implements prometheus.Collector.
func (l *loop) Collect(c chan<- prometheus.Metric) {
	for _, m := range l.collectors() {
		m.Collect(c)
	}
}

func (l *loop) run(ctx context.Context) error {
	defer func() {
		l.s.segments.leave(errors.Is(context.Cause(ctx), bgp.ErrRestart) && l.s.health.healthy())
		l.s.segments.work.Wait()
	}()
	defer l.links.follow(nil)
	l.s.inputs.touchAll()
	beat := time.NewTicker(reportPeriod)
	defer beat.Stop()
	defer l.deliveries.fresh.next.Stop()
	defer l.full.Stop()
	defer l.drain.next.Stop()
	defer l.weights.next.Stop()
	for {
		var pass bool
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-beat.C:
			l.look()
			l.report()
		case <-l.s.links.Changed():
			l.look()
		case <-l.s.bgp.Changed():
		case <-l.deliveries.fresh.next.C:
			l.s.inputs.touch(l.deliveries.fresh.due(time.Now())...)
		case <-l.weights.next.C:
			l.s.inputs.touch(l.weights.due(time.Now())...)
		case <-l.drain.next.C:
			l.s.inputs.touchAll()
		case call := <-l.s.calls:
			call(l)
		case <-l.drain.stop:
			l.beginStop()
		case <-l.full.C:
			pull(l.s.inputs.trigger)
		case <-l.s.inputs.trigger:
			l.pass(l.admit(l.s.inputs.take(), time.Now()))
			l.s.ready.Store(true)
			pass = true
		}
		l.s.turned.Store(int64(time.Since(l.s.began)))
		if !pass {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(passPeriod):
		}
	}
}

// admit postpones a pass over all addresses that would come too soon: it removes the pass from the changes, and sets the
// timer for it. Changes of single addresses are not delayed.
func (l *loop) admit(c changes, now time.Time) changes {
	c.all = c.all || l.postponed
	l.postponed = c.all && l.shared != nil && now.Before(l.nextFull)
	if l.postponed {
		c.all = false
		l.full.Reset(l.nextFull.Sub(now))
	}
	return c
}

// look handles what changes without a change of an API object: the interfaces of the machine.
func (l *loop) look() {
	if l.shared == nil {
		return
	}
	if l.takeInterfaces() || !slices.Equal(l.gateways, gatewaysOf(l.s.links.Interfaces())) {
		l.s.inputs.touchAll()
	}
	l.takePeers()
}

// refuseGateways makes the gateways of this node part of the infrastructure. It returns those that were no part of it.
func refuseGateways(s *announce.Shared, gateways []netip.Addr) (added []netip.Addr) {
	for _, a := range gateways {
		if _, known := s.Infrastructure[a]; !known {
			s.Infrastructure[a] = "a gateway of node " + s.Self
			added = append(added, a)
		}
	}
	return added
}

// refuseRouters makes the routers that this node has found for BGPPeers part of the infrastructure. It returns those that were no part
// of it.
func refuseRouters(s *announce.Shared, found map[string]netip.Addr) (added []netip.Addr) {
	for _, peer := range slices.Sorted(maps.Keys(found)) {
		a := found[peer].WithZone("")
		if _, known := s.Infrastructure[a]; !known {
			s.Infrastructure[a] = "the address of BGPPeer " + peer + " on node " + s.Self
			added = append(added, a)
		}
	}
	return added
}

// gatewaysOf returns the gateways behind all interfaces, sorted.
func gatewaysOf(interfaces []link.Interface) (all []netip.Addr) {
	for _, i := range interfaces {
		all = append(all, i.Gateways...)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// takeInterfaces gives the current interfaces to the segments and responders. It reports whether the interfaces that matter
// to advertisements have changed. The interfaces of pods come and go, and do not matter.
func (l *loop) takeInterfaces() bool {
	var matter []link.Interface
	var all []responder.Interface
	for _, i := range l.s.links.Interfaces() {
		if l.matters(i) {
			matter = append(matter, i)
			all = append(all, responder.Interface{Name: i.Name, Index: i.Index, MAC: i.MAC, Up: i.Up})
		} else if r := l.s.segments.opened[i.Name]; r != nil && r.Index() == i.Index {
			l.giveUp(r.Segment)
		}
	}
	l.s.arp.SetInterfaces(all)
	l.s.ndp.SetInterfaces(all)
	before := slices.Collect(maps.Keys(l.s.segments.opened))
	l.s.segments.update(matter, l.tell)
	after := slices.Collect(maps.Keys(l.s.segments.opened))
	slices.Sort(before)
	slices.Sort(after)
	if reflect.DeepEqual(matter, l.interfaces) && slices.Equal(before, after) {
		return false
	}
	l.interfaces = matter
	return true
}

// tell tells a segment that was just opened what the other segments already know.
func (l *loop) tell(seg *segment.Segment) {
	healthy, reached := l.s.health.healthy(), l.s.lease.reached.Load()
	var wants []func(m *segment.Machine, now segment.Time)
	for address, d := range l.decisions {
		for _, p := range d.Segments {
			if p.Interface == seg.Name() {
				wants = append(wants, func(m *segment.Machine, now segment.Time) { m.Want(now, address, &p.Want) })
			}
		}
	}
	seg.Do(func(m *segment.Machine, now segment.Time) {
		m.Serve(now, healthy)
		m.Trust(now, reached)
		for _, want := range wants {
			want(m, now)
		}
	})
}

// giveUp tells a segment that is about to be closed that no node should own its addresses. Otherwise the next node would
// take them over, only to leave the segment a moment later for the same reason.
func (l *loop) giveUp(seg *segment.Segment) {
	addrs := slices.Collect(maps.Keys(l.decisions))
	seg.Do(func(m *segment.Machine, now segment.Time) {
		for _, addr := range addrs {
			m.Want(now, addr, nil)
		}
	})
}

// matters reports whether addresses may be announced on an interface: an advertisement names it, or one of its subnets has
// addresses that Services have or may get.
func (l *loop) matters(i link.Interface) bool {
	for _, ad := range l.shared.L2 {
		if len(ad.Interfaces) > 0 {
			if slices.Contains(ad.Interfaces, i.Name) {
				return true
			}
			continue
		}
		for _, subnet := range roomy(i.Subnets) {
			if l.usable.OverlapsPrefix(subnet.Masked()) {
				return true
			}
		}
	}
	return false
}

// pass updates the decisions that the changes affect.
func (l *loop) pass(c changes) {
	l.passes.Inc()
	began := time.Now()
	first := l.shared == nil
	anew := c.all || first
	if first {
		_, _, _ = l.findRouters() // Before anything is announced.
	}
	if anew {
		l.share()
		for address := range l.decisions {
			c.addresses[address] = true
		}
		for _, address := range l.s.inputs.everyAddress() {
			c.addresses[address] = true
		}
	}
	for name := range c.namespaces {
		l.s.inputs.namespaceLabels(l.shared, name)
	}
	wants := map[string][]wanted{}
	var forgotten []netip.Addr
	for address := range c.addresses {
		before := l.decisions[address]
		if a := l.s.inputs.address(address, began); a != nil {
			if l.notice(a, time.Now(), first) {
				forgotten = append(forgotten, address)
			}
			if !anew && !l.usable.Contains(address) {
				// The record is newer than the edit that took the address out of its pool. A pass over all addresses has just read the
				// records. A record that came meanwhile causes a pass of its own.
				l.s.inputs.touchAll()
			}
			l.decisions[address] = l.decide(a, before, began)
		} else {
			l.deliveries.forget(address)
			l.s.forwarding.forget(address)
			l.s.handovers.set(address, nil)
			l.weights.set(address, time.Time{})
			delete(l.decisions, address)
		}
		l.apply(address, before, l.decisions[address], wants)
	}
	if anew {
		l.aggregates.changeAll()
	}
	l.tellRouters()
	l.handOn(wants)
	l.s.segments.release(slices.DeleteFunc(forgotten, func(a netip.Addr) bool { return !l.mayAnswer(a) }))
	l.deliveries.fresh.await(began)
	l.weights.await(began)
	if anew || c.peers {
		// Peers are set after their routes: a router that kept routes over a restart drops those that are not in the
		// first batch.
		l.takePeers()
	}
	l.drained()
	took := time.Since(began)
	if anew {
		l.nextFull = began.Add(took + fullPause(took))
	}
	l.duration.Observe(took.Seconds())
}

// decide returns the decision about an address that was noticed: what Decide says, without new routes as long as kube-proxy does
// not forward the address, and with the weights of before as long as new ones have to wait.
func (l *loop) decide(a *announce.Address, before announce.Decision, began time.Time) announce.Decision {
	d := announce.Decide(l.shared, a)
	l.decided.Inc()
	if d.Refused != before.Refused {
		l.refuse(a, d.Refused)
	}
	return l.weights.damp(a.Addr, before, l.whenForwarded(d, before, a.Addr), began)
}

// notice completes an address before the decision: the fresh nodes, and the nodes that come last. While other nodes take the address
// over, it counts the terminating endpoints of this node as ready, so that this node delivers the address for a moment longer.
//
// An address that this node has just become able to deliver has to wait for kube-proxy (docs/adr/0013-announced-once-forwarded.md), but
// not in the first pass after the start, because kube-proxy knows those addresses already. now is when the address was read, which is
// after the pass began: the address may have changes from in between, and kube-proxy gets the full time to hear of them. forgotten is
// true if notice has ended the wait of the address, because this node does not deliver it any more.
func (l *loop) notice(a *announce.Address, now time.Time, first bool) (forgotten bool) {
	switch began := l.deliveries.note(a, l.shared.Nodes, now); {
	case began && !first:
		l.s.forwarding.await(a.Addr, now, othersDeliver(a, l.s.config.Node), l.healthPorts(a, l.s.config.Node))
	case !l.deliveries.now[a.Addr]:
		forgotten = l.s.forwarding.forget(a.Addr)
	}
	l.deliveries.judge(a, l.s.forwarding.says(a.Addr))
	var asked map[string]healthPorts
	for _, node := range l.deliveries.asked(a) {
		if ports := l.healthPorts(a, node); len(ports.ports) > 0 {
			if asked == nil {
				asked = map[string]healthPorts{}
			}
			asked[node] = ports
		}
	}
	l.s.handovers.set(a.Addr, asked)
	return forgotten
}

// healthPorts returns the ports on which the kube-proxy of a node tells whether it forwards an address.
func (l *loop) healthPorts(a *announce.Address, node string) healthPorts {
	o, exists, _ := l.s.inputs.nodes.GetStore().GetByKey(node)
	if !exists {
		return healthPorts{}
	}
	family := netip.Addr.Is6
	if a.Addr.Is4() {
		family = netip.Addr.Is4
	}
	return healthPortsOf(a, node, nodeAddress(o.(*corev1.Node), family))
}

// mayAnswer reports whether this node may own an address on a segment. If withoutEndpoints of the advertisement is Announce, it may
// also own an address that it does not deliver.
func (l *loop) mayAnswer(address netip.Addr) bool {
	return slices.ContainsFunc(l.decisions[address].Segments, func(p announce.Placement) bool { return l.among(p.Candidates) })
}

// whenForwarded leaves out new routes if the address waits for kube-proxy or this node drains. The type segments holds back
// the answers on the segments.
func (l *loop) whenForwarded(d, before announce.Decision, address netip.Addr) announce.Decision {
	if len(d.Exports)+len(d.Aggregates) > 0 && (l.shared.Draining != nil || l.s.forwarding.isWaiting(address)) {
		return onlyOld(d, before)
	}
	return d
}

// refuse reports that an address is not announced because it belongs to the infrastructure. All nodes that know this refuse it, but
// only one of them records the event: the Ready node with the highest rank.
func (l *loop) refuse(a *announce.Address, what string) {
	if what == "" {
		return
	}
	l.s.log.Warn("an address is not announced", zap.Stringer("address", a.Addr), zap.String("reason", what))
	var reporter string
	consider := func(name string) {
		if l.shared.Nodes[name].Ready && (reporter == "" || cmp.Or(cmp.Compare(announce.Rank(a.Addr, name), announce.Rank(a.Addr, reporter)), cmp.Compare(name, reporter)) > 0) {
			reporter = name
		}
	}
	if slices.Contains(l.refusedHere, a.Addr) {
		l.sameSubnet(a.Addr, consider) // They have the same gateway or router.
	} else {
		for name := range l.shared.Nodes {
			consider(name)
		}
	}
	if reporter != "" && reporter != l.s.config.Node {
		return
	}
	if o, exists, _ := l.s.inputs.allocations.GetStore().GetByKey(herald.AllocationName(a.Addr)); exists {
		l.s.config.Events.Eventf(o.(*herald.IPAllocation), corev1.EventTypeWarning, herald.EventNotAnnounced,
			"%s is not announced: it is %s. Take it out of the IPPool %s, and let the Services that have it move to another address", a.Addr, what, a.Pool)
	}
}

// sameSubnet calls yield with each node that is heard on a segment of this node, and has a subnet with an address there, as this node has.
func (l *loop) sameSubnet(a netip.Addr, yield func(node string)) {
	has := func(n announce.Neighbour) bool {
		return slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	for _, on := range l.shared.Segments {
		if !slices.ContainsFunc(on.Nodes, func(n announce.Neighbour) bool { return n.Node == l.s.config.Node && has(n) }) {
			continue
		}
		for _, n := range on.Nodes {
			if has(n) {
				yield(n.Node)
			}
		}
	}
}

// share assembles the inputs that all decisions share.
func (l *loop) share() {
	before := l.shared
	l.shared = l.s.inputs.shared(l.s.config.Node, l.s.health.healthy(), before)
	l.updateDrain(before, time.Now())
	l.usable = l.s.inputs.usable()
	l.takeInterfaces()
	l.shared.Segments = l.s.segments.nodes(l.s.config.Node, l.interfaces)
	l.gateways = gatewaysOf(l.s.links.Interfaces())
	l.refusedHere = slices.Concat(refuseGateways(l.shared, l.gateways), refuseRouters(l.shared, routersIn(l.found)))
	clear(l.own)
	var gone []string
	if before != nil {
		l.shared.Follow(before)
		for node, was := range before.Nodes {
			if is, ok := l.shared.Nodes[node]; !ok || is.UID != was.UID {
				gone = append(gone, node)
			}
		}
	}
	l.s.identities.forget(gone)
	l.s.segments.forget(gone)
	healthy, reached := l.shared.Healthy, l.s.lease.reached.Load()
	l.s.segments.each(func(m *segment.Machine, now segment.Time) {
		m.Serve(now, healthy)
		m.Trust(now, reached)
		for _, node := range gone {
			m.Forget(now, node)
		}
	})
}
