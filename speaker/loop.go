package speaker

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/heraldlb/herald/speaker/arp"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/link"
)

// passPeriod bounds how often decisions are made: what happens within it is looked at together.
const passPeriod = 20 * time.Millisecond

// turnMissing is how long the loop may not come round before it counts as stuck.
const turnMissing = 15 * time.Second

// reportPeriod bounds how often this node's status is put together and, if it differs, written. The other
// speakers wait for what it claims, so it is short; but the status grows with the claims, and so must
// the time between two of them, or a thousand new Services would cost a thousand times a thousand claims.
func reportPeriod(claims int) time.Duration {
	return 50*time.Millisecond + time.Duration(claims)*200*time.Microsecond
}

// loop owns the decisions. All its fields belong to the goroutine in run.
type loop struct {
	s         *Speaker
	freshness *freshness
	absence   absence
	pending   *inputs // that are listed anew after an absence; nil if there was none

	shared    *Shared
	decisions map[netip.Addr]Decision
	claims    map[netip.Addr]time.Time // what arp was told to answer for, and since when
	asks      map[netip.Addr]bool      // what this node asks for

	complaints map[string]string // by object, what was reported last
	invalid    []complaint       // of this node's peers
	sessions   map[string]sessionReport

	passes, decided prometheus.Counter
	owned           prometheus.Gauge
}

func newLoop(s *Speaker) *loop {
	metric := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "herald", Subsystem: "speaker", Name: name, Help: help}
	}
	return &loop{
		s: s, freshness: newFreshness(s.config.Node, s.config.LeaseDuration), absence: newAbsence(s.config.LeaseDuration),
		decisions: map[netip.Addr]Decision{}, claims: map[netip.Addr]time.Time{}, asks: map[netip.Addr]bool{},
		complaints: map[string]string{}, sessions: map[string]sessionReport{},
		passes:  prometheus.NewCounter(prometheus.CounterOpts(metric("passes_total", "Passes over the dirty addresses."))),
		decided: prometheus.NewCounter(prometheus.CounterOpts(metric("decisions_total", "Decisions about one address."))),
		owned:   prometheus.NewGauge(prometheus.GaugeOpts(metric("l2_addresses", "Addresses that this node answers ARP for."))),
	}
}

// Describe implements prometheus.Collector.
func (l *loop) Describe(c chan<- *prometheus.Desc) {
	for _, m := range []prometheus.Collector{l.passes, l.decided, l.owned} {
		m.Describe(c)
	}
}

// Collect implements prometheus.Collector.
func (l *loop) Collect(c chan<- prometheus.Metric) {
	for _, m := range []prometheus.Collector{l.passes, l.decided, l.owned} {
		m.Collect(c)
	}
}

func (l *loop) run(ctx context.Context) error {
	defer func() {
		if l.pending != nil {
			l.pending.stop()
		}
	}()
	l.s.in().touchEverything()
	beat := time.NewTicker(min(nap(l.s.config.LeaseDuration)/4, time.Second))
	defer beat.Stop()
	var reported time.Time
	var due <-chan time.Time // when to report; nil if nothing has changed
	for {
		var back <-chan struct{}
		if l.pending != nil {
			back = l.pending.synced
		}
		act, beats := func(time.Time) {}, false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-beat.C:
			beats = true
		case <-due:
			act = func(now time.Time) {
				l.report()
				reported, due = now, nil
			}
			beats = true
		case <-back:
			heard := l.pending
			act = func(time.Time) {
				if l.pending == heard { // Or the node was away once more, and is listening anew.
					l.listenTo(heard)
				}
			}
		case <-l.s.links.Changed():
			act = func(time.Time) { l.s.in().touchAll() }
		case <-l.s.bgp.Changed():
		case <-l.s.status.wrote:
			// What was asked for stands now: it may be time to take it.
			act = func(time.Time) { l.s.in().touch(slices.Collect(maps.Keys(l.asks))...) }
		case <-l.s.in().trigger:
			act = func(now time.Time) {
				l.pass(l.s.in().take(), now)
				l.s.ready.Store(true)
			}
		}
		now, err := l.turn(ctx)
		if err != nil {
			return err
		}
		act(now)
		if beats {
			continue
		}
		if due == nil {
			// At once if it is the first change for a while: the others may be waiting for it.
			due = time.After(time.Until(reported.Add(reportPeriod(len(l.claims)))))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(passPeriod):
		}
	}
}

// turn is what comes first whenever the loop comes round: it looks whether this node was away, before
// anything is done with what was heard, and before the process counts as awake. It returns the time.
func (l *loop) turn(ctx context.Context) (time.Time, error) {
	now := time.Now()
	interfaces := l.s.links.Interfaces()
	if l.absence.over(now, interfaces, l.usedLinks) && l.freshness.deaf(now) {
		if err := l.listenAnew(ctx); err != nil {
			return now, err
		}
		l.s.in().touchAll()
		l.pass(l.s.in().take(), now)
	}
	l.takeInterfaces(interfaces)
	l.s.turned.Store(int64(now.Sub(l.s.began)))
	return now, nil
}

// takeInterfaces tells arp which interfaces there are.
func (l *loop) takeInterfaces(links []link.Interface) {
	var interfaces []arp.Interface
	for _, i := range links {
		interfaces = append(interfaces, arp.Interface{Name: i.Name, Index: i.Index, MAC: i.MAC, Up: i.Up})
	}
	l.s.arp.SetInterfaces(interfaces)
}

// pass brings the decisions up to date with what changed.
func (l *loop) pass(c changes, now time.Time) {
	l.passes.Inc()
	if l.observe(c.leases, now) {
		c.all = true
	}
	anew := c.all || l.shared == nil
	var complaints []complaint
	if anew {
		complaints = l.share()
		for address := range l.decisions {
			c.addresses[address] = true
		}
		for _, address := range l.s.in().everyAddress() {
			c.addresses[address] = true
		}
	}
	for address := range c.addresses {
		before := l.decisions[address]
		if a := l.s.in().address(address, l.s.config.Node, l.claim); a != nil {
			l.decisions[address] = Decide(l.shared, a)
			l.decided.Inc()
		} else {
			delete(l.decisions, address)
		}
		l.apply(address, before, l.decisions[address])
	}
	if anew {
		// Peers come after their routes: a router that kept what it heard before a restart drops what is not
		// in the first batch.
		l.takePeers(complaints)
	}
	l.s.announcing.Store(l.shared.Healthy)
}

// observe judges the speakers whose Leases changed, and reports whether anybody's being alive did. Our
// own renewal moves the clock, so it may show that others have long been silent.
func (l *loop) observe(leases map[string]bool, now time.Time) (changed bool) {
	before := map[string]bool{}
	for node := range l.freshness.seen {
		before[node] = l.freshness.alive(node)
	}
	for name := range leases {
		node, ok := nodeOfLease(name)
		if !ok {
			continue
		}
		o := l.s.in().lease(name)
		if o == nil {
			l.freshness.forget(node)
			changed = changed || before[node]
			continue
		}
		t := termsOf(o, l.s.config.LeaseDuration)
		l.freshness.observe(node, t.holder, t.renewed, t.good, now)
	}
	for node := range l.freshness.seen {
		changed = changed || l.freshness.alive(node) != before[node]
	}
	return changed
}

// share assembles anew what all decisions rest on, and returns what is wrong with some of it.
func (l *loop) share() []complaint {
	shared, complaints := l.s.in().shared(l.s.config.Node, l.s.health.healthy(), l.freshness.alive)
	shared.Away = l.pending != nil
	if self, ok := shared.Nodes[l.s.config.Node]; ok {
		self.Interfaces = nil // Its own it knows better than the API server does.
		for _, i := range l.s.links.Interfaces() {
			if i.Up {
				self.Interfaces = append(self.Interfaces, Interface{Name: i.Name, Subnets: roomy(i.Subnets)})
			}
		}
		shared.Nodes[l.s.config.Node] = self
	}
	l.shared = shared
	return complaints
}

// takePeers tells bgp which peers there are, and reports what is wrong with some, or with what share found.
func (l *loop) takePeers(complaints []complaint) {
	peers, invalid := l.s.in().ownPeers(l.s.config.Node)
	for name, err := range l.s.bgp.SetPeers(peers) {
		if o, exists, _ := l.s.in().peers.GetStore().GetByKey(name); exists {
			invalid = append(invalid, complaint{o.(named), "BGPPeer", "Invalid", err})
		}
	}
	l.invalid = invalid
	l.complain(append(complaints, invalid...))
}

// apply hands on what a decision changes. That an address passes from one Service to another, or is shared
// with one more, changes nothing.
func (l *loop) apply(address netip.Addr, before, after Decision) {
	if after.Ask {
		l.asks[address] = true
	} else {
		delete(l.asks, address)
	}
	if !slices.Equal(before.Interfaces, after.Interfaces) {
		l.s.arp.Set(address, after.Interfaces)
	}
	if len(after.Interfaces) == 0 {
		delete(l.claims, address)
	} else {
		l.claims[address] = l.since(address, after)
	}
	if !maps.EqualFunc(before.Exports, after.Exports, bgp.Attributes.Equal) {
		l.s.bgp.Set(netip.PrefixFrom(address, address.BitLen()), after.Exports)
	}
}

// since is when this node's claim of what it answers for began: now, if there was none.
func (l *loop) since(address netip.Addr, d Decision) time.Time {
	if c, ok := l.claim(address); ok && !c.Since.IsZero() {
		return c.Since
	}
	now := time.Now().Truncate(time.Microsecond) // As precise as a MicroTime.
	if !now.After(d.After) {
		return d.After.Add(time.Microsecond)
	}
	return now
}

// claim is this node's own. What it does not answer for now, but has in its status, it has asked for, or
// held before its speaker was restarted, or before it lost the segment and the API server with it.
// Should it come by the address again, it is by the old claim, which yields to that of whoever stood in
// for it. The status counts only if it is known to be what the API server has: what was given up, and
// perhaps taken by another meanwhile, is in the watch for a while yet.
func (l *loop) claim(address netip.Addr) (Claim, bool) {
	self := l.s.config.Node
	if since, ok := l.claims[address]; ok {
		return Claim{Node: self, Since: since}, true
	}
	status := l.s.in().status(self)
	if status == nil || !l.s.status.stands(status.ResourceVersion) {
		return Claim{}, false
	}
	c, ok := findClaim(status.Status.Claims, address)
	return claimOf(self, c), ok
}

// named is an object with a name, which events can be about.
type named interface {
	runtime.Object
	GetName() string
}

// complain reports what is wrong with objects, once as long as it stays the same.
func (l *loop) complain(complaints []complaint) {
	current := map[string]string{}
	for _, c := range complaints {
		key := c.kind + "/" + c.object.GetName()
		current[key] = c.err.Error()
		if l.complaints[key] != current[key] {
			l.s.config.Events.Event(c.object, corev1.EventTypeWarning, c.reason, fmt.Sprintf("node %s: %v", l.s.config.Node, c.err))
		}
	}
	l.complaints = current
}
