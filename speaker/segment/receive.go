package segment

import (
	"slices"
	"time"
)

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
		m.hear(n, m.arrival.At)
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
	m.hear(n, m.arrival.At)
	n.asks = 0
	if m.arrival.Unicast && m.arrival.From == n.mac {
		// Its multicast does not reach us, so ours will not reach it, or it has not heard ours.
		m.alsoByUnicast(n)
	}
	if n.status != alive && !n.has(flagReplaced) {
		m.become(n, alive)
	}
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

// receiveAsk answers with our Hello and claims, or has Tick answer in a moment: an answer may be on its way to who asked
// before, and who asks now may not have heard it, because the segment was split until a moment ago.
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
	m.askedHello = true
	if a.claims != m.claims {
		if !m.askedPages || a.page < m.askedPage {
			m.askedPage = a.page
		}
		m.askedPages = true
	}
	m.answerAsks()
	return ""
}

// answerAsks answers what was asked, as often as it may.
func (m *Machine) answerAsks() {
	if m.shadowed() {
		m.askedHello, m.askedPages = false, false
	}
	if m.askedHello && (m.greetedAt == 0 || m.now-m.greetedAt > askBack) {
		m.greet()
	}
	if m.askedPages && m.now > m.pages {
		m.sendPages(m.askedPage)
	}
}

// nextAnswer is when answerAsks has something to do; next if that is earlier.
func (m *Machine) nextAnswer(next Time) Time {
	if m.askedHello {
		next = min(next, m.greetedAt+askBack+1)
	}
	if m.askedPages {
		next = min(next, m.pages+1)
	}
	return next
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
