package speaker

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/speaker/announce"
	"github.com/heraldlb/herald/speaker/segment/ownership"
)

// rollingPod is a pod of a Deployment in the model of TestPodsRoll. A zero time has not come yet.
type rollingPod struct {
	id                           int
	node                         string
	readyAt, leftAt, diedAt, end time.Time // when it is ready, is told to end, has ended, and its endpoint is removed
	old                          bool
}

type rollingEndpoint struct {
	id      int
	node    string
	leaving bool
}

// rollingNode is a node with its speaker and its kube-proxy in the model of TestPodsRoll.
type rollingNode struct {
	name       string
	seen, told int // versions of the endpoints that the speaker and kube-proxy know
	shared     *announce.Shared
	d          deliveries
	f          *forwarding
	a          *announce.Address
	place      int // the number of candidates before it; -1: it is not a candidate
	waited     bool
	exports    bool
	nextAsk    time.Time
	nextOthers time.Time
	proxy      proxyModel
	writes     int // version that the current write has
	rules      []rollingEndpoint
}

type rollingModel struct {
	rng      *rand.Rand
	now      time.Time
	versions [][]rollingEndpoint
	arrive   map[string][]time.Time // when each version arrives at speakers ("s/n1") and kube-proxies ("p/n1")
	pods     []*rollingPod
	nodes    []*rollingNode
	owner    *rollingNode
	cache    *rollingNode // the node to which the clients on the segment send
	lag      time.Duration
	log      []string
	next     time.Time
	freed    time.Time
	replicas int
}

func (m *rollingModel) say(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf("%7.3f ", m.now.Sub(noon).Seconds())+fmt.Sprintf(format, args...))
}

func (m *rollingModel) publish() {
	var all []rollingEndpoint
	for _, p := range m.pods {
		if !p.readyAt.IsZero() && !m.now.Before(p.readyAt) && (p.end.IsZero() || m.now.Before(p.end)) {
			all = append(all, rollingEndpoint{p.id, p.node, !p.leftAt.IsZero()})
		}
	}
	if n := len(m.versions); n > 0 && slices.Equal(m.versions[n-1], all) {
		return
	}
	m.versions = append(m.versions, all)
	m.say("endpoints %+v", all)
	for _, n := range m.nodes {
		for _, who := range []string{"s/", "p/"} {
			at := m.now.Add(time.Duration(m.rng.Int64N(int64(m.lag))))
			if m.rng.IntN(10) > 0 {
				at = m.now.Add(time.Duration(m.rng.Int64N(int64(10 * time.Millisecond))))
			}
			if before := m.arrive[who+n.name]; len(before) > 0 && at.Before(before[len(before)-1]) {
				at = before[len(before)-1]
			}
			m.arrive[who+n.name] = append(m.arrive[who+n.name], at)
		}
	}
}

// deploy replaces the pods one by one forever: a new pod becomes ready, and then an old pod is told to end.
func (m *rollingModel) deploy() {
	for _, p := range m.pods {
		if !p.leftAt.IsZero() && p.diedAt.IsZero() {
			p.diedAt = p.leftAt.Add(5 * time.Second)
			p.end = p.diedAt.Add(time.Duration(m.rng.Int64N(int64(300 * time.Millisecond))))
		}
	}
	if m.now.Before(m.next) {
		return
	}
	last := m.pods[len(m.pods)-1]
	if last.readyAt.IsZero() || !m.now.After(last.readyAt) {
		return
	}
	var old []*rollingPod
	for _, p := range m.pods {
		if p.leftAt.IsZero() && p.old {
			old = append(old, p)
		}
	}
	if len(m.pods) > m.replicas && len(old) > 0 && !last.old {
		victim := old[m.rng.IntN(len(old))]
		victim.leftAt = m.now
		m.say("pod %d on %s is told to end", victim.id, victim.node)
		old = slices.DeleteFunc(old, func(p *rollingPod) bool { return p == victim })
	}
	wait := time.Duration(m.rng.Int64N(int64(50 * time.Millisecond)))
	if len(old) == 0 { // the next rollout
		for _, p := range m.pods {
			p.old = true
		}
		wait = time.Duration(m.rng.Int64N(int64(500 * time.Millisecond)))
		if m.replicas == 1 {
			wait += 6 * time.Second // By then the old pod is completely gone.
		}
	}
	p := &rollingPod{id: len(m.pods), node: m.nodes[m.rng.IntN(len(m.nodes))].name}
	p.readyAt = m.now.Add(wait + time.Second + time.Duration(m.rng.Int64N(int64(1500*time.Millisecond))))
	m.pods = append(m.pods, p)
	m.next = p.readyAt.Add(time.Duration(m.rng.Int64N(int64(100 * time.Millisecond))))
}

func (n *rollingNode) step(m *rollingModel) {
	arrived := func(who string, i int) int { // returns the last version that has arrived, if i had arrived before
		all := m.arrive[who+n.name]
		for i < len(all) && !all[i].After(m.now) {
			i++
		}
		return i
	}
	if v := arrived("p/", n.told); v > n.told {
		n.told = v
		n.proxy.hear(m.now, false)
	}
	idle, times := n.proxy.began.IsZero(), n.proxy.told.times
	n.proxy.step(m.now)
	if n.proxy.told.times > times {
		n.rules = m.versions[n.writes-1]
		m.say("%s: kube-proxy has version %d", n.name, n.writes)
	}
	if (idle || n.proxy.told.times > times) && !n.proxy.began.IsZero() {
		n.writes = n.told
	}
	waited := n.waited
	n.waited = n.f.isWaiting(vip)
	if v := arrived("s/", n.seen); v > n.seen || waited && !n.waited || len(n.d.fresh.due(m.now)) > 0 {
		n.seen = v
		n.look(m)
	}
	if !n.f.idle() && !m.now.Before(n.nextAsk) {
		n.nextAsk = m.now.Add(forwardingPeriod)
		state, said := proxyState{corev1.IPv4Protocol: n.proxy.told}, map[netip.Addr]answer{}
		for address := range n.f.questions(m.now, state) {
			said[address] = n.says()
		}
		n.f.release(m.now, m.now, state, nil, said)
	}
	if n.a == nil || m.now.Before(n.nextOthers) {
		return
	}
	if asked := n.d.asked(n.a); len(asked) > 0 {
		n.nextOthers = m.now.Add(handoverPeriod)
		for _, other := range m.nodes {
			if slices.Contains(asked, other.name) {
				n.d.answered(vip, other.name, other.says(), m.now)
			}
		}
	}
}

// says returns kube-proxy's answer on the health port of the Service.
func (n *rollingNode) says() answer {
	if slices.ContainsFunc(n.rules, func(e rollingEndpoint) bool { return e.node == n.name && !e.leaving }) {
		return forwards
	}
	return no
}

// look makes a decision from what the speaker has heard.
func (n *rollingNode) look(m *rollingModel) {
	svc := &announce.Service{Name: web, Local: true, Count4: map[string]int{}}
	for _, e := range m.versions[n.seen-1] {
		if e.leaving {
			svc.Terminating4 = append(svc.Terminating4, e.node)
		} else {
			svc.Ready4 = append(svc.Ready4, e.node)
		}
	}
	slices.Sort(svc.Terminating4)
	slices.Sort(svc.Ready4)
	svc.Terminating4, svc.Ready4 = slices.Compact(svc.Terminating4), slices.Compact(svc.Ready4)
	n.a = &announce.Address{Addr: vip, Pool: "public", Services: []*announce.Service{svc}}
	first := n.d.local[vip] == nil
	if began := n.d.note(n.a, n.shared.Nodes, m.now); began && !first {
		n.f.await(vip, m.now, othersDeliver(n.a, n.name), healthPorts{ports: []uint16{30000}})
		n.nextAsk = m.now
	} else if !n.d.now[vip] {
		n.f.forget(vip)
	}
	n.d.judge(n.a, n.f.says(vip))
	was := n.place
	n.place = -1
	for _, p := range announce.Decide(n.shared, n.a).Segments {
		n.place = place(*p.Candidates, n.name)
	}
	if was != n.place {
		m.say("%s: place %d, waits %t, fresh %v", n.name, n.place, n.f.isWaiting(vip), n.a.Fresh)
	}
}

// place returns the number of candidates before a node in the order of package segment; -1 if the node is not a candidate.
func place(all ownership.Candidates, node string) int {
	self := slices.IndexFunc(all, func(c ownership.Candidate) bool { return c.Node == node })
	if self < 0 {
		return -1
	}
	before := 0
	for _, c := range all {
		switch {
		case c.Standing < all[self].Standing, c.Standing == all[self].Standing && announce.Rank(vip, c.Node) > announce.Rank(vip, node):
			before++
		}
	}
	return before
}

// reached returns what goes wrong with a connection that reaches the node.
func (n *rollingNode) reached(m *rollingModel) string {
	var to []rollingEndpoint
	for _, leaving := range []bool{false, true} {
		if len(to) == 0 {
			for _, e := range n.rules {
				if e.node == n.name && e.leaving == leaving {
					to = append(to, e)
				}
			}
		}
	}
	if len(to) == 0 {
		return "it is dropped"
	}
	for _, e := range to {
		if p := m.pods[e.id]; !p.diedAt.IsZero() && !m.now.Before(p.diedAt) {
			return fmt.Sprintf("pod %d refuses it", e.id)
		}
	}
	return ""
}

// agree makes the nodes agree on an owner. An owner that is not a candidate releases the address, and a candidate takes it. The
// more other candidates come before it, the later it does so.
func (m *rollingModel) agree() {
	const placeDelay = 50 * time.Millisecond
	if m.owner != nil && m.owner.place < 0 {
		m.say("%s releases", m.owner.name)
		m.owner, m.freed = nil, m.now
	}
	for _, n := range m.nodes {
		if m.owner == nil && n.place >= 0 && m.now.Sub(m.freed) >= 5*time.Millisecond+time.Duration(n.place)*placeDelay {
			m.owner = n
			m.say("%s owns, waits %t", n.name, n.f.isWaiting(vip))
		}
	}
	if m.owner != nil && !m.owner.f.isWaiting(vip) && m.cache != m.owner {
		m.cache = m.owner
		m.say("%s answers", m.owner.name)
	}
}

// TestPodsRoll replaces the pods of a Deployment again and again, on two or three nodes that hear of the changes at different
// times. Every connection to the address, on the segment or through a router, finds a pod that serves. Every request for the
// address on the segment gets an answer.
func TestPodsRoll(t *testing.T) {
	const tick = 5 * time.Millisecond
	for seed := range uint64(80) {
		rng := rand.New(rand.NewPCG(seed, 7))
		m := &rollingModel{rng: rng, now: noon, arrive: map[string][]time.Time{}, lag: []time.Duration{10, 90}[rng.IntN(2)] * time.Millisecond}
		for _, name := range []string{"n1", "n2", "n3"}[:2+rng.IntN(2)] {
			n := &rollingNode{name: name, d: newDeliveries(name), f: newForwarding(proxyURL, zap.NewNop(), func([]netip.Addr) {})}
			n.shared, _ = cluster(t, name)
			n.f.told = true
			n.proxy = proxyModel{rng: rng, told: written{times: 7, took: time.Second}, slowness: []time.Duration{50, 200}[rng.IntN(2)] * time.Millisecond}
			n.proxy.told.longest = n.proxy.slowness
			m.nodes = append(m.nodes, n)
		}
		m.replicas = []int{1, 2}[seed%2]
		for i := range m.replicas {
			m.pods = append(m.pods, &rollingPod{id: i, node: m.nodes[rng.IntN(len(m.nodes))].name, readyAt: m.now, old: true})
		}
		m.next = m.now.Add(10 * time.Second)
		silent := time.Duration(0)
		for end := m.now.Add(2 * time.Minute); m.now.Before(end); m.now = m.now.Add(tick) {
			m.deploy()
			m.publish()
			for _, n := range m.nodes {
				n.step(m)
			}
			m.agree()
			for _, n := range m.nodes {
				now := n.d.now[vip] && (n.exports || !n.f.isWaiting(vip))
				if now != n.exports {
					n.exports = now
					m.say("%s exports %t", n.name, now)
				}
			}
			if m.now.Sub(noon) < 8*time.Second {
				continue
			}
			var wrong []string
			if m.cache == nil {
				wrong = append(wrong, "segment: nobody")
			} else if what := m.cache.reached(m); what != "" {
				wrong = append(wrong, "segment: "+m.cache.name+": "+what)
			}
			if m.owner == nil || m.owner.f.isWaiting(vip) {
				silent += tick
			} else {
				silent = 0
			}
			if silent > 60*time.Millisecond {
				wrong = append(wrong, "segment: nobody answers")
			}
			hops := 0
			for _, n := range m.nodes {
				if n.exports {
					hops++
					if what := n.reached(m); what != "" {
						wrong = append(wrong, "router: "+n.name+": "+what)
					}
				}
			}
			if hops == 0 {
				wrong = append(wrong, "router: no route")
			}
			if len(wrong) > 0 {
				t.Fatalf("seed %d: %s\n%s", seed, strings.Join(wrong, ", "), strings.Join(m.log[max(0, len(m.log)-40):], "\n"))
			}
		}
	}
}
