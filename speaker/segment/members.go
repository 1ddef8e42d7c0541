package segment

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// State is the state of this node on the segment.
type State string

// States.
const (
	Down      State = "Down"      // the interface is down
	Listening State = "Listening" // it claims nothing yet
	Joined    State = "Member"    // it hears other speakers
	Alone     State = "Alone"     // it hears none
	Duplicate State = "Duplicate" // another interface of this node is on the segment, and speaks for it
	Degraded  State = "Degraded"  // it has never heard any, although the API says that there are others
)

// State returns the state of this node on the segment.
func (m *Machine) State() State {
	switch {
	case !m.iface.Up:
		return Down
	case m.shadowed():
		return Duplicate
	case m.listening:
		return Listening
	case m.living > 0:
		return Joined
	case m.degraded():
		return Degraded
	}
	return Alone
}

// Expected is a speaker that should be heard, according to the API.
type Expected struct {
	Node      string
	MAC       MAC
	Interface string
	Prefixes  []netip.Prefix
	// Hears reports whether the speaker hears others on the segment.
	Hears bool
}

// Expect tells the Machine which other speakers should be heard on this segment. Until one of them has been heard, this
// node owns only the addresses for which it would be the first candidate if all these speakers were alive. This needs no
// memory and no messages, but a death is noticed only when the API reports it. If some of the others hear one another,
// only this node is cut off, and it owns nothing.
func (m *Machine) Expect(now Time, expected []Expected) {
	defer m.startInput(now)()
	m.expected = make(map[string]Expected, len(expected))
	for _, e := range expected {
		m.expected[e.Node] = e
	}
	m.generation++
	if !m.everHeard {
		m.touchAll()
	}
}

func (m *Machine) degraded() bool { return !m.everHeard && len(m.expected) > 0 }

// greetExpected sends our Hello by unicast to expected speakers that are not heard, because multicast may be filtered.
func (m *Machine) greetExpected() {
	if m.helloFrame == nil || m.now-m.greetedExpected < fastPeriod && m.greetedExpected != 0 {
		return
	}
	m.greetedExpected = m.now
	for _, node := range slices.Sorted(maps.Keys(m.expected)) {
		e := m.expected[node]
		if n := m.neighbours[node]; n == nil || n.status == dead {
			m.counters.Sent[kindHello.String()]++
			m.out.Frames = append(m.out.Frames, Frame{To: e.MAC, Payload: m.helloFrame})
		}
	}
}

// Member is another speaker, as this node knows it: a neighbour, or an expected speaker that was never heard.
type Member struct {
	Node      string
	MAC       MAC
	Interface string // the name of its interface on its own node
	Prefixes  []netip.Prefix
	// Life is the status of the neighbour: "alive", "suspected", "silent" or "dead"; "expected" if the speaker was never heard.
	Life   string
	Silent time.Duration // since the last sign of life of its speaker
	Claims int
	// HearsUs reports whether the speaker has said that it hears this one.
	HearsUs bool
}

// Heard reports whether this node hears the speaker.
func (m Member) Heard() bool { return m.Life == alive.String() || m.Life == suspected.String() }

func (s status) String() string { return [...]string{"alive", "suspected", "silent", "dead"}[s] }

// Members lists the other speakers, by node.
func (m *Machine) Members() []Member {
	var all []Member
	for _, n := range m.sorted {
		all = append(all, Member{
			Node: n.node, MAC: n.mac, Interface: n.said.ifname, Prefixes: n.said.prefixes, Life: n.status.String(),
			Silent: m.now - n.lastSign, Claims: len(n.claims), HearsUs: n.hearsMe,
		})
	}
	if m.degraded() {
		for _, e := range m.expected {
			all = append(all, Member{Node: e.Node, MAC: e.MAC, Interface: e.Interface, Prefixes: e.Prefixes, Life: "expected"})
		}
	}
	slices.SortFunc(all, func(x, y Member) int { return cmp.Compare(x.Node, y.Node) })
	return all
}

// Generation changes when Members may have changed in what decides about candidates. Life, Heard, Silent, Claims and HearsUs
// change without it.
func (m *Machine) Generation() int { return m.generation }

// Holding is an address that this node answers for.
type Holding struct {
	Addr   netip.Addr
	Node   string        // this node, or the node whose deputy it is
	For    time.Duration // how long this node has owned the address, or answered for it
	Reason string
}

// Holdings lists the addresses that this node answers for, sorted.
func (m *Machine) Holdings() []Holding {
	var all []Holding
	for a := range m.owned {
		all = append(all, Holding{Addr: a.Addr, Node: m.config.Node, For: m.now - a.since, Reason: a.reason})
	}
	for a := range m.deputised {
		all = append(all, Holding{Addr: a.Addr, Node: a.answered.Node, For: m.now - a.deputy, Reason: "the speaker of " + a.answered.Node + " is silent"})
	}
	slices.SortFunc(all, func(x, y Holding) int { return x.Addr.Compare(y.Addr) })
	return all
}

// Unowned returns how many addresses have no owner although this node could own them.
func (m *Machine) Unowned() int { return len(m.open) }

// Interface returns the last argument of Set.
func (m *Machine) Interface() Interface { return m.iface }
