package segment

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"encoding/binary"
	"maps"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"time"
)

// status is what is known of a neighbour's life.
//
//	          verified Hello           no beat for 1.5 periods
//	unknown ----------------> alive ---------------------------> suspected
//	                            ^    <---------------------------    |  |
//	                            |     a beat, also a forwarded one   |  | no answer of its kernel
//	                            |                                    |  | within the window
//	                     a beat |          its kernel answers        |  v
//	                            +------- silent <--------------------+ dead
//	                                       |                            ^
//	                                       +----------------------------+
//	                                         its kernel stops answering, or 10 s pass
type status uint8

const (
	alive     status = iota
	suspected        // no beat came in time, and its kernel has not answered yet
	silent           // its kernel answers and its speaker does not: a deputy answers for it
	dead
)

// neighbour is another speaker on the segment, of one boot.
type neighbour struct {
	node     string
	hash     uint64
	boot     uint64
	mac      MAC
	id       ID
	window   window
	verifies bucket // of verifications in its name
	said     hello  // its last Hello

	index    uint32 // of the last beat
	secret   secret // of the last beat
	history  uint32 // of the last 32 beats: a bit is set for one that came
	heard    Time   // the last sign of life of its speaker, or the time from which silence counts
	sign     Time   // the last sign of life of its speaker
	since    Time   // alive since
	hearsMe  bool   // it has said that it hears this boot
	welcomes int    // how many of our next Hellos say that we hear it
	unicast  Time   // until then, because it missed us, frames go to it by unicast, too
	vouched  Time   // when its beat was last forwarded
	status   status
	suspect  Time // since when it is suspected
	answered Time // its kernel's last answer
	probed   Time // the last question to its kernel
	asks     int  // questions to its kernel since its last sign of life or answer

	claims  map[netip.Addr]uint64 // terms
	version uint32                // of claims
	latest  uint32                // the version that its frames speak of
	sync    map[uint16][]change   // pages of latest that have come
	syncOf  uint32
	asked   Time

	// former are the claims of the speaker before this one on the same node. They are kept for it until
	// formerUntil.
	former      map[netip.Addr]uint64
	formerUntil Time
	formerSent  Time
}

// window is the anti-replay window of RFC 4303, section 3.4.3, 64 frames wide.
type window struct {
	high uint64
	bits uint64
}

// seen reports whether the number has come before or is too old to tell.
func (w window) seen(n uint64) bool {
	if n > w.high {
		return false
	}
	return w.high-n >= 64 || w.bits&(1<<(w.high-n)) != 0
}

func (w *window) note(n uint64) {
	if n > w.high {
		if shift := n - w.high; shift < 64 {
			w.bits = w.bits<<shift | 1
		} else {
			w.bits = 1
		}
		w.high = n
		return
	}
	w.bits |= 1 << (w.high - n)
}

func (n *neighbour) interval() time.Duration { return time.Duration(n.said.period) * time.Millisecond }

func (n *neighbour) has(flag uint8) bool { return n.said.flags&flag != 0 }

// living reports whether its claims count.
func (n *neighbour) living() bool { return n.status != dead }

// eligible reports whether it can take an address, now or when it has listened.
func (n *neighbour) eligible() bool {
	return n.status <= suspected && n.has(flagServing) && !n.has(flagReplaced|flagLeaving)
}

// absent reports whether a deputy has to answer for it.
func (n *neighbour) absent() bool { return n.status == silent || n.living() && n.has(flagListening) }

// lossy reports whether more than a tenth of its last beats were lost.
func (n *neighbour) lossy() bool { return bits.OnesCount32(n.history) < 29 }

// Arrival says how a frame came.
type Arrival struct {
	At      Time // It may have waited since then.
	From    MAC  // the Ethernet source
	Unicast bool // to this node alone, not to the group
}

// Receive takes a frame: the payload of a datagram with the hop limit 255. The Drop is empty if the frame was of use.
func (m *Machine) Receive(now Time, arrival Arrival, frame []byte) Drop {
	defer m.begin(now)()
	m.arrival = arrival
	from := arrival.From
	k, r, err := open(frame)
	if err != nil {
		return m.drop(DropMalformed)
	}
	if from == m.iface.MAC || !m.iface.Up {
		return m.drop(DropOwn)
	}
	var drop Drop
	switch {
	case k == kindBeat:
		drop = m.receiveBeat(r)
	case k == kindAsk:
		drop = m.receiveAsk(r)
	case k == kindSuspect:
		drop = m.receiveSuspect(from, r)
	case k.signed():
		drop = m.receiveSigned(k, r, from, frame)
	default:
		drop = DropMalformed
	}
	if drop != "" {
		return m.drop(drop)
	}
	m.counters.Heard[k.String()]++
	return ""
}

// receiveBeat verifies a sign of life. It may come from its sender or forwarded by another.
func (m *Machine) receiveBeat(r *reader) Drop {
	b, err := r.beat()
	if err != nil {
		return DropMalformed
	}
	n := m.byID[b.id]
	if n == nil {
		if b.id == m.twin.id && m.now < m.twin.until-twinTime/2 {
			return DropOwn
		}
		m.askUnknown(b.id)
		return DropUnknownNode
	}
	if b.chain != n.said.chain {
		m.ask(n, 0)
		return DropUnknownNode
	}
	if b.index <= n.index {
		return DropReplay
	}
	// A forged index could cost thousands of hashes: more than a few are on a budget. A Hello is the way out
	// for a sender whose beats are too far ahead.
	missed := b.index - n.index
	if b.index > n.said.length {
		return DropSecret
	}
	if missed > freeHashes && (missed > 2*maxMissed || !m.hashes.take(m.now, float64(missed))) {
		m.ask(n, n.missingPage())
		return DropRate
	}
	if !b.secret.follows(n.secret, missed) {
		return DropSecret
	}
	n.index, n.secret = b.index, b.secret
	n.history = n.history<<missed | 1
	if n.status == silent && b.state != n.said.state {
		// It is back, and what it says of itself has not come yet. It may not answer for its addresses, so the
		// deputies go on.
		n.hear(m.arrival.At)
		m.ask(n, n.missingPage())
		return ""
	}
	m.signOfLife(n)
	if b.state != n.said.state || b.claims != n.version {
		m.ask(n, n.missingPage()) // The numbers are not authenticated, and only a reason to ask.
	}
	return ""
}

// freeHashes is how many beats may have been lost before the verification of the next one is on a budget.
const freeHashes = 4

// signOfLife notes that a neighbour's speaker is alive.
func (m *Machine) signOfLife(n *neighbour) {
	n.hear(m.arrival.At)
	n.asks = 0
	if m.arrival.Unicast && m.arrival.From == n.mac {
		// Its multicast does not reach us, so ours will not reach it, or it has not heard ours.
		m.alsoByUnicast(n)
	}
	if n.status != alive && !n.has(flagReplaced) {
		m.become(n, alive)
	}
}

// hear notes a sign of life that came at a time.
func (n *neighbour) hear(came Time) { n.heard, n.sign = max(n.heard, came), max(n.sign, came) }

// askUnknown asks a sender whose Hello is not known to say who it is.
func (m *Machine) askUnknown(id ID) {
	if at, ok := m.askedIDs[id]; ok && m.now-at < 50*time.Millisecond || !m.asks.allow(m.now) {
		return
	}
	if len(m.askedIDs) > 2048 {
		clear(m.askedIDs)
	}
	m.askedIDs[id] = m.now
	m.send(MAC{}, ask{id: id}.encode())
}

// ask asks a neighbour for its Hello and its claims from a page on.
func (m *Machine) ask(n *neighbour, page uint16) {
	if n.asked != 0 && m.now-n.asked < askBack || !m.asks.allow(m.now) {
		return
	}
	n.asked = m.now
	f := ask{id: n.id, claims: n.version, page: page}.encode()
	m.send(n.mac, f)
}

// receiveAsk answers with our Hello and claims.
func (m *Machine) receiveAsk(r *reader) Drop {
	a, err := r.ask()
	switch {
	case err != nil:
		return DropMalformed
	case a.id != m.id:
		return ""
	}
	if m.shadowed() {
		return ""
	}
	if m.greetedAt == 0 || m.now-m.greetedAt > askBack {
		m.greet()
	}
	if a.claims != m.claims && m.now > m.pages {
		m.sendPages(a.page)
	}
	return ""
}

// receiveSuspect helps a speaker that has not heard another one: with our own beat if it means us, and
// otherwise with the last beat that we heard of the suspect.
func (m *Machine) receiveSuspect(from MAC, r *reader) Drop {
	s, err := r.suspect()
	if err != nil {
		return DropMalformed
	}
	if s.id == m.id {
		if m.now-m.beaten >= knockPeriod {
			m.nextBeat = m.now
			for _, n := range m.sorted {
				if n.mac == from {
					m.alsoByUnicast(n)
				}
			}
		}
		return ""
	}
	n := m.byID[s.id]
	if n == nil || n.said.chain != s.chain || n.index <= s.index || m.now-n.heard > 2*n.interval() || m.now-n.vouched < askPeriod {
		return ""
	}
	if !m.vouches.allow(m.now) || !m.amongFirst(n, 8) {
		return ""
	}
	n.vouched = m.now
	m.send(from, beat{id: n.id, chain: n.said.chain, index: n.index, secret: n.secret, state: n.said.state, claims: n.latest}.encode())
	return ""
}

// alsoByUnicast has what is sent to all go to a neighbour by unicast, too, for a while: multicast between it and this
// node is lost. While it is, both go on by unicast, since each hears the other by unicast alone.
func (m *Machine) alsoByUnicast(n *neighbour) {
	count := 0
	for _, o := range m.sorted {
		if o.unicast > m.now {
			count++
		}
	}
	// Anybody can ask for it in a neighbour's name: not for all of a large segment.
	if count < maxUnicast || n.unicast > m.now {
		n.unicast = m.now + Grace
	}
}

// amongFirst reports whether this node is one of the few that answer for what they heard of another: on a
// segment of a thousand nodes a thousand answers would be a burst.
func (m *Machine) amongFirst(of *neighbour, limit int) bool {
	if m.living <= limit {
		return true
	}
	mine, before := mix(of.hash^m.hash), 0
	for _, n := range m.sorted {
		if n != of && n.status == alive && mix(of.hash^n.hash) > mine {
			before++
		}
	}
	return before < limit
}

// receiveSigned verifies a frame in an envelope. Cheap checks come before the signature.
func (m *Machine) receiveSigned(k kind, r *reader, from MAC, frame []byte) Drop {
	e := r.envelope()
	if r.failed || len(r.b) < signatureSize {
		return DropMalformed
	}
	if e.cluster != m.cluster() {
		return DropCluster
	}
	if e.mac != from {
		return DropSource
	}
	if e.node == m.config.Node {
		return m.receiveTwin(k, r, e, frame)
	}
	id, known := m.identities[e.node]
	if !known || id.Boot != e.boot {
		m.needKey(e, known)
		if known && m.neighbours[e.node] != nil {
			return DropOldBoot
		}
		return DropUnknownKey
	}
	n := m.neighbours[e.node]
	if n != nil && n.boot == e.boot && n.mac != e.mac && n.living() && bytes.Compare(n.mac[:], e.mac[:]) < 0 {
		return DropSource // A second interface on the segment: the one with the lower MAC speaks.
	}
	if n != nil && (n.boot != e.boot || n.mac != e.mac) {
		n = nil
	}
	if n == nil && k != kindHello {
		m.askUnknown(idOf(e.cluster, e.boot, e.node, e.mac))
		return DropUnknownNode
	}
	if n != nil && n.window.seen(e.sequence) || n == nil && m.ended[e.node].boot == e.boot && m.ended[e.node].window.seen(e.sequence) {
		return DropReplay
	}
	if n != nil && !n.verifies.allow(m.now) || n == nil && !m.strangers.allow(m.now) || !m.verifies.allow(m.now) {
		return DropRate
	}
	body := len(r.b) - signatureSize
	m.verified++
	if !ed25519.Verify(id.Key, frame[:len(frame)-signatureSize], r.b[body:]) {
		return DropSignature
	}
	r.b = r.b[:body]
	return m.receiveVerified(k, r, e, n, id)
}

// keyQuestion is a question for the identity of the sender of a frame.
type keyQuestion struct {
	at   Time
	boot uint64
	id   ID
}

// needKey asks for the identity of a frame's sender, not too often. For names that nobody knows there is a budget.
func (m *Machine) needKey(e envelope, known bool) {
	if q, ok := m.askedKeys[e.node]; ok && m.now-q.at < 200*time.Millisecond || !known && !m.keys.allow(m.now) {
		return
	}
	if len(m.askedKeys) > 4096 {
		clear(m.askedKeys)
	}
	m.askedKeys[e.node] = keyQuestion{at: m.now, boot: e.boot, id: idOf(e.cluster, e.boot, e.node, e.mac)}
	m.out.Keys = append(m.out.Keys, e.node)
}

func (m *Machine) receiveVerified(k kind, r *reader, e envelope, n *neighbour, id Identity) Drop {
	switch k {
	case kindHello:
		h, err := r.hello()
		if err != nil {
			return DropMalformed
		}
		if n == nil {
			n = m.meet(e, id)
		}
		n.window.note(e.sequence)
		m.receiveHello(n, h)
	case kindUpdate:
		u, err := r.update()
		if err != nil {
			return DropMalformed
		}
		n.window.note(e.sequence)
		m.receiveUpdate(n, u)
	case kindPage:
		p, err := r.page()
		if err != nil {
			return DropMalformed
		}
		n.window.note(e.sequence)
		m.receivePage(n, p)
	case kindFormer:
		f, err := r.former()
		if err != nil {
			return DropMalformed
		}
		n.window.note(e.sequence)
		m.receiveFormer(f)
	}
	return ""
}

// meet makes a neighbour of a boot that is heard for the first time. What its predecessor on the same node
// claimed is kept for it.
func (m *Machine) meet(e envelope, id Identity) *neighbour {
	n := &neighbour{
		node: e.node, hash: hashNode(e.node), boot: e.boot, mac: e.mac,
		id:     idOf(e.cluster, e.boot, e.node, e.mac),
		status: alive, heard: m.now, sign: m.now, since: m.now, history: ^uint32(0),
		claims: map[netip.Addr]uint64{}, verifies: bucket{rate: 500, size: 1000},
	}
	if w := m.ended[n.node]; w.boot == n.boot {
		n.window = w.window
	}
	if before := m.neighbours[e.node]; before != nil {
		if before.living() {
			n.former = before.former
			if n.former == nil {
				n.former = map[netip.Addr]uint64{}
			}
			maps.Copy(n.former, before.claims)
			n.formerUntil = m.now + maxListening + formerTime
		}
		former := n.former
		n.former = nil
		m.lose(before)
		m.remove(before)
		n.former = former
	}
	m.neighbours[n.node], m.byID[n.id] = n, n
	i, _ := slices.BinarySearchFunc(m.sorted, n.node, byNode)
	m.sorted = slices.Insert(m.sorted, i, n)
	m.statuses[alive]++
	m.lookAt(n)
	for a := range n.former {
		m.claimed(n, a)
	}
	m.ever = true
	m.generation++
	m.count()
	m.judgeQuiet()
	m.toWelcome(n, 3)
	m.event(Event{Kind: EventHeard, Node: n.node})
	return n
}

func (m *Machine) receiveHello(n *neighbour, h hello) {
	if n.said.length != 0 && (h.state < n.said.state || h.chain < n.said.chain) {
		return // An older one that was late.
	}
	if slices.Contains(h.hears, m.config.Boot) {
		n.hearsMe = true
	}
	eligible, listened := n.eligible(), n.has(flagListening)
	if h.chain != n.said.chain || n.said.length == 0 || h.index > n.index {
		n.index, n.secret = h.index, h.secret
	}
	if !slices.Equal(n.said.prefixes, h.prefixes) || n.said.ifname != h.ifname {
		m.generation++
	}
	n.said = h
	m.loads++
	m.lookAt(n)
	if listened && !h.has(flagListening) && n.former != nil {
		n.formerUntil = m.now + formerTime
	}
	n.latest = max(n.latest, h.claims)
	m.signOfLife(n)
	switch {
	case h.has(flagLeaving):
		m.event(Event{Kind: EventLeft, Node: n.node})
		m.lose(n)
		m.remove(n)
		return
	case h.has(flagReplaced):
		m.become(n, silent)
	}
	if n.version != n.latest {
		m.ask(n, n.missingPage())
	}
	if n.eligible() != eligible || n.has(flagListening) || listened {
		m.touchClaims(n)
		m.touchUnserved()
	}
	if h.has(flagListening) {
		m.toWelcome(n, 1)
		if n.former != nil {
			m.sendFormer(n)
		}
	}
}

// become changes what is known of a neighbour's life.
func (m *Machine) become(n *neighbour, to status) {
	from := n.status
	if from == to {
		return
	}
	n.status = to
	m.statuses[from]--
	m.statuses[to]++
	m.loads++
	m.count()
	after := m.now - n.sign
	switch to {
	case alive:
		if from == dead {
			n.since = m.now
			for addr := range n.claims {
				m.claimed(n, addr)
			}
			m.event(Event{Kind: EventHeard, Node: n.node})
		}
		if from == silent {
			m.event(Event{Kind: EventHeard, Node: n.node})
		}
	case suspected:
		n.suspect, n.probed, n.asks = m.now, 0, 0
		if m.statuses[alive] == 0 {
			m.lonely = notCounted
		}
		m.event(Event{Kind: EventSuspect, Node: n.node, After: after})
		m.send(MAC{}, suspect{id: n.id, chain: n.said.chain, index: n.index}.encode())
	case silent:
		m.event(Event{Kind: EventSilent, Node: n.node, After: after})
	case dead:
		m.event(Event{Kind: EventDead, Node: n.node, After: after})
		m.lose(n)
		n.former = nil
	}
	m.lookAt(n)
	m.judgeQuiet()
	m.touchClaims(n)
	m.touchUnserved()
}

// notCounted stands for a number of frames that is not known yet.
const notCounted = math.MaxUint64

// judgeQuiet decides whether this node may announce. One that hears no other speaker may be cut off from
// its segment, or unable to receive. If it receives anything at all, it is not.
func (m *Machine) judgeQuiet() {
	quiet := m.living == 0 && m.received <= m.lonely
	if quiet == m.quiet {
		return
	}
	m.quiet, m.quietSince = quiet, m.now
	for a := range m.owned {
		m.touch(a)
	}
}

// count counts the neighbours whose claims count.
func (m *Machine) count() {
	m.living = m.statuses[alive] + m.statuses[suspected] + m.statuses[silent]
}

// lose ignores a neighbour's claims from now on: others may take its addresses. The claims stay known, for the
// neighbour may come back.
func (m *Machine) lose(n *neighbour) {
	for _, claims := range []map[netip.Addr]uint64{n.claims, n.former} {
		for addr := range claims {
			a := m.address(addr)
			a.lost = max(a.lost, n.sign)
			m.unclaimed(n, a)
		}
	}
}

// remove forgets a neighbour.
func (m *Machine) remove(n *neighbour) {
	delete(m.neighbours, n.node)
	delete(m.byID, n.id)
	m.sorted = slices.DeleteFunc(m.sorted, func(o *neighbour) bool { return o == n })
	m.newcomers = slices.DeleteFunc(m.newcomers, func(o *neighbour) bool { return o == n })
	m.statuses[n.status]--
	m.ended[n.node] = ended{boot: n.boot, window: n.window}
	m.generation++
	m.count()
	m.judgeQuiet()
	m.touchUnserved()
}

// ended is what remains of a neighbour that was removed, so that its frames cannot be replayed.
type ended struct {
	boot   uint64
	window window
}

func byNode(n *neighbour, node string) int { return cmp.Compare(n.node, node) }

// kernelAnswered notes that a neighbour's node lives.
func (m *Machine) kernelAnswered(n *neighbour) {
	n.answered, n.asks = m.now, 0
	if n.status == suspected {
		m.become(n, silent)
	}
}

// watch looks who has been silent for too long.
func (m *Machine) watch() {
	if m.now < m.look {
		return
	}
	m.look = m.now + slowPeriod
	for _, n := range slices.Clone(m.sorted) {
		m.watchOne(n)
		m.lookAt(n)
	}
}

func (m *Machine) watchOne(n *neighbour) {
	if n.former != nil && m.now >= n.formerUntil {
		m.dropFormer(n)
	}
	if n.status == alive && m.now-n.heard > n.interval()*3/2 {
		m.become(n, suspected)
	}
	switch n.status {
	case suspected:
		if m.now-n.suspect >= m.windowOf(n) && n.unanswered() {
			m.become(n, dead)
			return
		}
		m.probe(n, askPeriod)
	case silent:
		switch {
		case m.now-n.sign > Grace:
			m.become(n, dead)
		case m.now-max(n.answered, n.heard) > watchPeriod+m.windowOf(n) && n.unanswered():
			m.become(n, dead)
		default:
			m.probe(n, watchPeriod)
		}
	}
}

// enoughAsked is how many questions to the kernel of a node have to remain without an answer before the node is dead.
// Time alone proves nothing: a speaker that gets no processor asks nothing while it waits.
const enoughAsked = 3

// unanswered reports whether the kernel of the node has left enough questions without an answer, if it can be asked.
func (n *neighbour) unanswered() bool { return !n.hasAddress() || n.asks >= enoughAsked }

func (m *Machine) windowOf(n *neighbour) time.Duration {
	switch {
	case !n.hasAddress():
		return blindWindow
	case n.lossy():
		return lossyWindow
	}
	return deathWindow
}

// missingPage is the first page that has not come of the list that is being collected.
func (n *neighbour) missingPage() (p uint16) {
	if n.sync == nil || n.syncOf != n.latest {
		return 0
	}
	for n.sync[p] != nil {
		p++
	}
	return p
}

func (n *neighbour) hasAddress() bool { return len(n.said.prefixes) > 0 }

// probe asks the kernel of a neighbour, by one address after the other if it has several.
func (m *Machine) probe(n *neighbour, period time.Duration) {
	if !n.hasAddress() || n.probed != 0 && m.now-n.probed < period {
		return
	}
	n.probed = m.now
	n.asks++
	m.out.Probes = append(m.out.Probes, Probe{Addr: n.said.prefixes[0].Addr(), MAC: n.mac})
	// Its speaker is asked as well: it may live, and only its multicast may be lost on the way, with ours.
	m.send(n.mac, suspect{id: n.id, chain: n.said.chain, index: n.index}.encode())
}

// lookAt has watch called when something may become of a neighbour. A beat that comes in the meantime makes
// that later, which need not be noted: on a large segment beats are many, and looks are few.
func (m *Machine) lookAt(n *neighbour) {
	switch n.status {
	case alive:
		m.look = min(m.look, n.heard+n.interval()*3/2+1)
	case suspected:
		m.look = min(m.look, n.suspect+m.windowOf(n))
		if n.hasAddress() {
			m.look = min(m.look, n.probed+askPeriod)
		}
	case silent:
		m.look = min(m.look, m.now+watchPeriod)
	}
	if n.former != nil {
		m.look = min(m.look, n.formerUntil)
	}
}

// hashNode is the part of a rank that a node contributes.
func hashNode(node string) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for _, b := range []byte(node) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return mix(h)
}

func hashAddress(addr netip.Addr) uint64 {
	b := addr.As16()
	return mix(binary.BigEndian.Uint64(b[:8])*0x9e3779b97f4a7c15 ^ mix(binary.BigEndian.Uint64(b[8:])))
}

// mix spreads a change of any bit over all bits, as the finalizer of MurmurHash3 does.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
