// Package segment decides which node owns which address on one network segment. The speakers on the segment decide this
// among themselves, without an API server, a quorum or a shared secret.
//
// A [Machine] is one speaker on one segment, as a pure state machine. Its inputs are frames and time, its outputs are
// frames, answers and events. A [Segment] runs a Machine on an interface with packet sockets.
//
//	neighbour.go   the other speakers, and whether they are alive
//	receive.go     handles frames: beats (heartbeats), Hellos, questions; signed.go verifies the signed ones
//	suspicion.go   neighbours whose beats are missing, and their kernels as second witnesses
//	ownership.go   which node owns an address: claims with terms, and how this node answers
//	cutoff.go      whether this node hears the segment at all
//	takeover.go    how this node takes an address, and gives it up
//	strangers.go   machines that are not speakers and use one of the addresses
//	candidates.go  the order of the nodes that may own an address
//	claims.go      sends beats and Hellos, and exchanges claims: updates, pages, claims of a node's previous speaker
//	members.go     neighbours that the API names; twin.go: two interfaces of this node on the segment
//	frame.go       the format of frames; chain.go: how a beat proves its sender
//	datagram.go    frames in UDP; run.go, socket.go: the shell around the Machine
//
// docs/l2-protocol.md has the state diagrams and explains why an address has one owner.
package segment

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/heraldlb/herald/speaker/segment/ownership"
)

// Time is a time on the boot clock of this machine, which counts while the machine is suspended
// (CLOCK_BOOTTIME of Linux).
type Time = time.Duration

// MAC is an Ethernet address.
type MAC [6]byte

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// The times of the protocol. docs/l2-protocol.md explains how they add up. They are constants, because the nodes of a segment must agree
// on them.
//
// A new timer needs a constant, a field of type Time for its deadline in Machine, neighbour or address, and a function that Tick
// calls. Next should return the deadline; if it does not, the timer is up to idleTick late. A timer about the failure of a neighbour
// stores when it began, such as neighbour.suspect. detectFailure compares that with the constant, and scheduleDetection moves
// Machine.detectAt, which Next returns.
const (
	fastPeriod = 100 * time.Millisecond // between two beats of a node that owns addresses
	slowPeriod = time.Second            // between two beats of a node that owns none
	minPeriod  = 10                     // milliseconds, the shortest period that a neighbour may announce
	maxPeriod  = 1000                   // milliseconds, the longest

	idleTick        = 50 * time.Millisecond  // at most, between two Ticks
	askPeriod       = 20 * time.Millisecond  // between two questions to the kernel of a suspected neighbour
	silentAskPeriod = 50 * time.Millisecond  // the same for a neighbour whose speaker is silent
	deathWindow     = 100 * time.Millisecond // for the kernel to answer
	lossyWindow     = 300 * time.Millisecond // the same for a neighbour many of whose beats are lost
	blindWindow     = 400 * time.Millisecond // the same for a neighbour that has no address to ask for
	placeDelay      = 50 * time.Millisecond  // a candidate waits this long for each candidate before it
	rivalTime       = 30 * time.Millisecond  // between the claim and the first answer of a candidate that is not the first, or not Settled
	listenTime      = 300 * time.Millisecond // of listening before a node's first claim
	maxListening    = 2 * time.Second        // the same, at most, while a neighbour has not answered
	maxGap          = 250 * time.Millisecond // without a turn of this speaker, after which it has to listen again
	lastDeputyTime  = 500 * time.Millisecond // the last part of Grace, in which only one deputy answers
	formerTime      = time.Second            // for a new speaker to claim what its predecessor claimed
	holdOff         = time.Second            // before a node takes an address that was released as not wanted, or that it gave up itself because it was cut off
	misplacedTime   = 5 * time.Second        // before an address is taken from an owner that is not a candidate
	aliveBeforeMove = 30 * time.Second       // a node must be alive this long before addresses move to it
	moveInterval    = time.Second            // between two such moves
)

// baseTerm is one less than the lowest term with which an address gets its first owner. The terms below are for nodes that
// hear no other node: such a node takes an address with a lower term. If two such nodes die in turn, the term falls by two
// each time.
const baseTerm = 1 << 10

// Grace is how long deputies answer for a node whose speaker is silent. After that, its addresses move.
const Grace = 10 * time.Second

// Bounds of the work that other machines can cause. Any machine on the segment can send a frame.
const (
	// reconsiderPeriod is the time between two decisions about the open addresses while claims of neighbours arrive.
	// reconsiderCost is added for each open address.
	reconsiderPeriod = 2 * time.Millisecond
	reconsiderCost   = 20 * time.Microsecond

	greetPeriod         = 30 * time.Millisecond  // between two Hellos for newcomers
	helloAskPeriod      = 50 * time.Millisecond  // between two requests for the Hello of one unknown speaker
	formerPeriod        = 50 * time.Millisecond  // between two frames to one node with the claims of its previous speaker
	keyAskPeriod        = 200 * time.Millisecond // between two questions for the key of one node
	replyPeriod         = 20 * time.Millisecond  // between two answers to requests for our Hello or our claims
	pageTime            = 4 * time.Millisecond   // for every page, in the long run
	pagesAtOnce         = 32                     // pages that are sent together: more could overflow a receive buffer
	suspectedBeatPeriod = 20 * time.Millisecond  // between two beats for nodes that suspect this one

	// maxMissed is the unit of two limits. A beat that comes more than 2*maxMissed beats after the last verified one is refused.
	// A Hello is signed anew, with a newer beat, if more than maxMissed/2 beats were sent since it was signed.
	maxMissed  = 32
	maxUnicast = 64 // neighbours that are sent frames by unicast, too, because they said that they miss ours
)

// Config identifies this speaker. It never changes.
type Config struct {
	// Cluster distinguishes this cluster from others on the segment. It is the UID of the namespace kube-system.
	Cluster string
	Node    string
	// Boot is a random number, new at every start.
	Boot uint64
	Key  ed25519.PrivateKey
}

// Identity verifies the frames of another speaker.
type Identity struct {
	Boot uint64
	Key  ed25519.PublicKey
}

// Interface is this node's interface on the segment.
type Interface struct {
	Name     string
	MAC      MAC
	Prefixes []netip.Prefix // addresses with their prefix lengths
	Up       bool
}

func (i Interface) equal(o Interface) bool {
	return i.Name == o.Name && i.MAC == o.MAC && i.Up == o.Up && slices.Equal(i.Prefixes, o.Prefixes)
}

// Answer says how this node answers for an address. If Node is empty, this node does not answer.
type Answer struct {
	Addr netip.Addr
	// Node is this node, or the node for which it answers as a deputy.
	Node     string
	MAC      MAC
	Announce bool // also send unsolicited announcements
	Defend   bool
}

// Frame is a payload to send. The zero MAC stands for the multicast group.
type Frame struct {
	To      MAC
	Payload []byte
}

// Probe asks the kernel of a node whether it is alive, with an ARP request or a neighbour solicitation for one of its
// addresses.
type Probe struct {
	Addr netip.Addr
	MAC  MAC
}

// Output is what a Machine wants done. Answers that end come first, then Frames, then the other Answers:
// break before make. An Answer that ends has no Node.
type Output struct {
	Answers []Answer
	Frames  []Frame
	Probes  []Probe
	Checks  []netip.Addr // addresses to probe for strangers; the results go to Machine.Checked
	Keys    []string     // nodes whose Identity is missing or old
	Events  []Event
}

// Event is something to log and to count.
type Event struct {
	Kind  EventKind
	Node  string
	Addr  netip.Addr
	After time.Duration // since the neighbour was last heard, or since the address had an owner
	Text  string
}

// EventKind says what happened.
type EventKind string

// Events. Their values are used in metrics.
const (
	EventHeard     EventKind = "heard"     // a neighbour is heard for the first time, or again
	EventSuspect   EventKind = "suspicion" // no beat of a neighbour came in time
	EventSilent    EventKind = "silent"    // the kernel of a neighbour answers and its speaker does not
	EventDead      EventKind = "death"     // its kernel does not answer either, or Grace is over
	EventLeft      EventKind = "left"      // a neighbour said that it ends
	EventTake      EventKind = "takeover"
	EventYield     EventKind = "yield"
	EventRelease   EventKind = "release"
	EventListening EventKind = "listening"
	EventMember    EventKind = "member" // this node does not listen any more
)

// Drop says why a frame was refused. The values are labels of a metric.
type Drop string

// Reasons to refuse a frame.
const (
	DropMalformed   Drop = "malformed"
	DropHopLimit    Drop = "hop_limit"
	DropOwn         Drop = "own"
	DropCluster     Drop = "foreign_cluster"
	DropUnknownKey  Drop = "unknown_key"
	DropOldBoot     Drop = "old_boot"
	DropReplay      Drop = "replay"
	DropSignature   Drop = "bad_signature"
	DropSecret      Drop = "bad_secret"
	DropRate        Drop = "rate"
	DropUnknownNode Drop = "unknown_sender"
	DropSource      Drop = "foreign_source"
)

// Counters count since the start.
type Counters struct {
	Sent, Heard map[string]uint64 // by type of frame
	Refused     map[Drop]uint64
	Events      map[EventKind]uint64
	Deputised   time.Duration // the time as a deputy, summed over all addresses
	TakeoverSum time.Duration // the sum of the times from the last sign of life of an owner that died to the takeover
	Takeovers   uint64        // the number of takeovers in TakeoverSum
}

// Machine is one speaker on one segment. It is pure: every method gets the time as an argument, and the Output is
// collected until Take is called. The methods must not be called concurrently.
type Machine struct {
	config Config
	hash   uint64 // of Config.Node
	id     ID

	now  Time
	turn Time // of the last call
	tick Time // of the last Tick
	// ticking is set while Tick runs. By then every frame that had arrived has been read.
	ticking bool

	arrival Arrival // of the frame that is being received

	iface     Interface
	serving   bool
	replaced  bool // this speaker ends, a successor follows
	leaving   bool // this speaker ends
	current   bool // what Want says is up to date
	listening bool
	since     Time // when listening or membership began
	everHeard bool // a neighbour was ever heard

	identities      map[string]Identity
	neighbours      map[string]*neighbour
	sorted          []*neighbour // by node
	byID            map[ID]*neighbour
	statuses        [dead + 1]int // the number of neighbours that have each status
	living          int           // neighbours that are alive, suspected or silent
	lastHeard       Time          // the last sign of life of any neighbour or its kernel
	detectAt        Time          // when detectFailures is due
	generation      int           // counts changes of neighbours
	loadChanges     int           // counts changes of the claims of neighbours and of whether they can take an address
	resolved        map[*ownership.Candidates]*resolved
	resolvedAt      int // the generation that resolved is for
	ended           map[source]ended
	expected        map[string]Expected
	greetedExpected Time // when Hellos were last sent to expected speakers

	addresses   map[netip.Addr]*address
	touched     []*address
	open        map[*address]struct{} // wanted, without an owner
	due         Time                  // when the first address of open or notAnswered is due; 0: never
	owned       map[*address]struct{}
	notAnswered map[*address]struct{} // taken, but not answered for yet
	// reconsider is set when the load of a neighbour has changed, and with it the best candidate for an open address.
	reconsider   bool
	reconsidered Time
	deputised    map[*address]struct{}
	misplaced    map[*address]struct{} // owned by a node that is not a candidate
	rebalanced   Time                  // when a better candidate was last looked for

	received       uint64 // frames of any kind on the interface
	receivedBefore uint64 // received when the last neighbour was suspected; notCounted until frames have been counted
	cutOff         bool
	cutOffSince    Time
	sequence       uint64
	claims         uint32 // the version of our claims: counts changes of owned
	pending        []change
	pagesFrom      Time // when pages may be sent again
	askedPages     bool // a speaker waits for pages, from askedPage on
	askedPage      uint16
	pagesOf        uint32 // the number of claims when askedPage was set
	pagesAgain     uint16 // the page from which the list is sent again after its end; noPage: it is not
	askedHello     bool   // a speaker waits for our Hello
	state          uint32
	helloDirty     bool
	helloFrame     []byte
	helloIndex     uint32 // the index of the beat that helloFrame names
	helloSent      Time   // when helloFrame was last sent
	newcomers      []*neighbour
	chain          chain
	lastBeat       Time
	nextBeat       Time
	period         time.Duration
	repeats        []repeat

	askedKeys  map[string]keyQuestion // by node
	askedIDs   map[ID]Time
	keys       bucket        // of questions for keys of nodes that may not exist
	asks       bucket        // of questions to neighbours
	unknown    bucket        // of questions to speakers that are not known yet
	paging     bucket        // of pages
	forwards   bucket        // of beats that are forwarded
	hashes     bucket        // of hashes for beats that come after many lost ones
	newSenders bucket        // of verifications for senders that are not known yet
	verifies   bucket        // of verifications
	verified   int           // counts the signatures that were checked
	draw       func() secret // draws a secret for a chain
	twin       twin

	counters Counters
	out      Output
}

// repeat is a frame that is sent again with the next beats, in case it was lost.
type repeat struct {
	payload []byte
	left    int
}

// New returns a Machine whose interface is down.
func New(c Config) *Machine {
	m := &Machine{
		config: c, hash: hashNode(c.Node),
		identities: map[string]Identity{}, neighbours: map[string]*neighbour{}, byID: map[ID]*neighbour{},
		resolved: map[*ownership.Candidates]*resolved{}, expected: map[string]Expected{}, ended: map[source]ended{},
		addresses: map[netip.Addr]*address{}, open: map[*address]struct{}{},
		owned: map[*address]struct{}{}, notAnswered: map[*address]struct{}{}, deputised: map[*address]struct{}{}, misplaced: map[*address]struct{}{},
		askedKeys: map[string]keyQuestion{}, askedIDs: map[ID]Time{},
		keys: bucket{rate: 20, size: 1000}, asks: bucket{rate: 200, size: 1500}, unknown: bucket{rate: 100, size: 500}, paging: bucket{rate: float64(time.Second / pageTime), size: 2 * maxPages}, forwards: bucket{rate: 200, size: 200},
		hashes: bucket{rate: 50_000, size: 50_000}, newSenders: bucket{rate: 200, size: 1500}, verifies: bucket{rate: 1500, size: 5000},
		listening: true, period: fastPeriod, draw: randomSecret,
		counters: Counters{Sent: map[string]uint64{}, Heard: map[string]uint64{}, Refused: map[Drop]uint64{}, Events: map[EventKind]uint64{}},
	}
	return m
}

// resume makes the numbers of this Machine higher than those of an earlier Machine of the same boot on the same
// interface. Neighbours take frames with lower numbers for replays.
func (m *Machine) resume(now Time) {
	m.sequence = uint64(now)
	m.state = uint32(now / (16 * time.Millisecond)) //nolint:gosec // It wraps after two years.
	m.chain.number, m.claims = m.state, m.state
}

// idOf returns the ID of one boot of a speaker on one interface.
func idOf(cluster, boot uint64, node string, mac MAC) ID {
	w := writer{}
	w.u64(cluster)
	w.u64(boot)
	w.bytes(mac[:])
	w.text(node)
	sum := sha256.Sum256(w)
	return ID(binary.BigEndian.Uint64(sum[:]))
}

func (m *Machine) cluster() uint64 {
	sum := sha256.Sum256([]byte(m.config.Cluster))
	return binary.BigEndian.Uint64(sum[:])
}

// Set tells the Machine the current state of the interface.
func (m *Machine) Set(now Time, i Interface) {
	defer m.startInput(now)()
	if m.iface.equal(i) {
		return
	}
	before := m.iface
	i.Prefixes = slices.Clone(i.Prefixes[:min(len(i.Prefixes), maxPrefixes)])
	m.iface = i
	m.id = idOf(m.cluster(), m.config.Boot, m.config.Node, i.MAC)
	m.helloDirty = true
	switch {
	case !i.Up:
		m.endAnswers()
	case !before.Up || before.MAC != i.MAC:
		m.listen("the link came up")
	}
}

// Serve tells the Machine whether this node can deliver traffic.
func (m *Machine) Serve(now Time, serving bool) {
	defer m.startInput(now)()
	if m.serving != serving {
		m.serving, m.helloDirty = serving, true
		m.touchAll()
	}
}

// Want tells the Machine how an address is to be owned on this segment. If want is nil, no node may answer for it.
func (m *Machine) Want(now Time, addr netip.Addr, want *ownership.Want) {
	defer m.startInput(now)()
	a := m.address(addr)
	a.want = want
	if want == nil {
		a.checked, a.stranger = unchecked, 0
	}
	m.leaveToStranger(a)
	m.touch(a)
}

// Trust tells the Machine whether the arguments of Want are up to date, that is, whether this node reaches the API server.
func (m *Machine) Trust(now Time, current bool) {
	defer m.startInput(now)()
	m.current = current
}

// Identify tells the Machine the Identity that verifies a node's frames.
func (m *Machine) Identify(now Time, node string, id Identity) {
	defer m.startInput(now)()
	m.identities[node] = id
	if q, ok := m.askedKeys[node]; ok && q.boot == id.Boot {
		// A frame of this boot was refused for lack of the Identity. Ask for its Hello now, not at its next beat.
		delete(m.askedKeys, node)
		delete(m.askedIDs, q.id)
		m.askUnknown(q.id)
	}
}

// Forget removes a node that is no longer part of the cluster.
func (m *Machine) Forget(now Time, node string) {
	defer m.startInput(now)()
	delete(m.identities, node)
	if n := m.neighbours[node]; n != nil {
		m.ignoreClaims(n)
		m.remove(n)
	}
	maps.DeleteFunc(m.ended, func(s source, _ ended) bool { return s.node == node })
}

// Answered tells the Machine that the kernel of the node with this MAC and address answered a Probe.
func (m *Machine) Answered(now Time, addr netip.Addr, mac MAC) {
	defer m.startInput(now)()
	for _, n := range m.sorted {
		if n.mac == mac && slices.ContainsFunc(n.said.prefixes, func(p netip.Prefix) bool { return p.Addr() == addr }) {
			m.kernelAnswered(n)
		}
	}
}

// Leave ends the membership. If a successor follows, the neighbours answer in place of this node for a while, with the MAC
// address of this node. This node itself answers until it ends. Without a successor, the neighbours take over at once.
func (m *Machine) Leave(now Time, successor bool) {
	defer m.startInput(now)()
	m.helloDirty = true
	if successor {
		m.replaced = true
		m.touchAll()
		return
	}
	m.leaving = true
	m.releaseAll()
}

// Repeat sends the Hello of Leave again, in case it was lost. A neighbour that has it takes the copy for a replay.
func (m *Machine) Repeat() {
	if m.helloFrame != nil && m.iface.Up && !m.shadowed() {
		m.send(MAC{}, m.helloFrame)
	}
}

// Tick does what is due at the time now. Callers call it at the time that Next returns, and after they have read all frames.
//
// A Machine takes an address only in a Tick, not in any other input, and answers for it only from a later Tick on, because
// the next frame may say that another node has the address.
func (m *Machine) Tick(now Time) {
	decide := m.startInput(now)
	m.tick, m.ticking = now, true
	if m.iface.Up {
		m.detectFailures()
		m.detectTwinEnd()
		m.takeDue()
		m.rebalance()
		m.endListening()
		m.answerAsks()
		m.beat()
	}
	decide()
	m.ticking = false
}

// Next returns the latest time at which to call Tick.
// After a Tick it is later than the time of that Tick.
func (m *Machine) Next() Time {
	if !m.iface.Up {
		return m.tick + slowPeriod
	}
	next := m.tick + idleTick
	if m.living > 0 {
		next = min(next, m.detectAt)
	}
	if m.reconsider {
		next = min(next, m.reconsidered+reconsiderPeriod+time.Duration(len(m.open))*reconsiderCost)
	}
	if m.due != 0 {
		next = min(next, m.due)
	}
	if !m.replaced && !m.leaving {
		next = min(next, m.nextBeat)
	}
	if m.listening {
		next = min(next, m.since+listenTime)
	}
	next = m.nextAnswer(next)
	return max(next, m.tick+time.Millisecond)
}

// Take returns the collected Output and clears it.
func (m *Machine) Take() Output {
	o := m.out
	m.out = Output{}
	return o
}

// startInput starts an input: it records the time and notices if this speaker was not running. Every input calls the returned
// function at its end. That function decides again about every address that the input touched, and sends the changes.
func (m *Machine) startInput(now Time) func() {
	gap := now - m.turn
	m.now, m.turn = now, now
	if gap > maxGap && m.iface.Up && !m.listening {
		m.listen("this speaker was not running for " + gap.Round(time.Millisecond).String())
	} else if gap > maxGap {
		m.restartDetection()
	}
	return m.decideTouched
}

// restartDetection gives every neighbour its full time again, because this node could not have heard it.
func (m *Machine) restartDetection() {
	for _, n := range m.sorted {
		if n.status == alive || n.status == suspected {
			n.heard = m.now
			if n.status == suspected {
				m.setStatus(n, alive)
			}
		}
	}
	if m.listening {
		m.since = m.now
	}
}

// listen starts to listen: this node answers for no address until it has listened for listenTime. It keeps an address
// that it owned before if no other node claims the address by then.
func (m *Machine) listen(why string) {
	m.listening, m.since, m.helloDirty = true, m.now, true
	m.nextBeat = m.now
	m.restartDetection()
	m.event(Event{Kind: EventListening, Text: why})
	m.endAnswers()
}

// endAnswers ends all answers.
func (m *Machine) endAnswers() {
	for _, a := range byAddress(m.owned) {
		m.answer(a, "", MAC{})
	}
	for _, a := range byAddress(m.deputised) {
		m.answer(a, "", MAC{})
	}
	m.touchAll()
}

// endListening ends the listening after listenTime, when every neighbour hears this node and has sent its claims, or
// after maxListening.
func (m *Machine) endListening() {
	if !m.listening || m.now < m.since+listenTime {
		return
	}
	if m.now < m.since+maxListening {
		for _, n := range m.sorted {
			if n.status == alive && (!n.hearsMe || n.version != n.latest) {
				return
			}
		}
	}
	m.listening, m.since, m.helloDirty = false, m.now, true
	m.event(Event{Kind: EventMember})
	m.touchAll()
}

func (m *Machine) event(e Event) {
	m.counters.Events[e.Kind]++
	m.out.Events = append(m.out.Events, e)
}

func (m *Machine) drop(d Drop) Drop {
	m.counters.Refused[d]++
	return d
}

// Counters returns a copy of the counters.
func (m *Machine) Counters() Counters {
	c := m.counters
	c.Sent, c.Heard, c.Refused, c.Events = maps.Clone(c.Sent), maps.Clone(c.Heard), maps.Clone(c.Refused), maps.Clone(c.Events)
	return c
}

// bucket is a token bucket.
type bucket struct {
	rate, size, tokens float64
	at                 Time
	begun              bool
}

func (b *bucket) allow(now Time) bool { return b.take(now, 1) }

func (b *bucket) take(now Time, n float64) bool {
	if !b.begun {
		b.tokens, b.at, b.begun = b.size, now, true
	}
	b.tokens = min(b.size, b.tokens+b.rate*(now-b.at).Seconds())
	b.at = now
	if b.tokens < n {
		return false
	}
	b.tokens -= n
	return true
}
