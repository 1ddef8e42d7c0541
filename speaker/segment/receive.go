package segment

import (
	"slices"
)

// Arrival says how a frame arrived.
type Arrival struct {
	At      Time // when the frame arrived; it may have waited to be read since then
	From    MAC  // the Ethernet source
	Unicast bool // to this node alone, not to the group
}

// Receive handles a frame: the payload of a datagram with the hop limit 255. The Drop is empty if the frame was accepted.
func (m *Machine) Receive(now Time, arrival Arrival, frame []byte) Drop {
	defer m.startInput(now)()
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

// receiveBeat verifies a beat. It may come from its sender, or another node may have forwarded it.
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
	// A beat costs one hash for each beat since the last verified one, so a forged index could cost thousands. The rate of beats
	// that cost more than a few hashes is limited. If a beat is too far ahead, the Hello of its sender is needed.
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
		// The speaker is back, but its new Hello has not arrived. It may not answer for its addresses, so the deputies
		// go on.
		m.hear(n, m.arrival.At)
		m.ask(n, n.missingPage())
		return ""
	}
	m.signOfLife(n)
	if b.state != n.said.state || b.claims != n.version {
		m.ask(n, n.missingPage()) // The numbers are not authenticated: they are only a reason to ask.
	}
	return ""
}

// freeHashes is how many hashes the verification of a beat may cost without counting against the budget of hashes. It costs one for
// each beat since the last verified one.
const freeHashes = 4

// signOfLife records that a neighbour's speaker is alive.
func (m *Machine) signOfLife(n *neighbour) {
	m.hear(n, m.arrival.At)
	n.asks = 0
	if m.arrival.Unicast && m.arrival.From == n.mac {
		// It sends by unicast for one of two reasons: its multicast does not reach us, and then ours will not reach it; or it
		// has not heard ours.
		m.alsoByUnicast(n)
	}
	if n.status != alive && !n.has(flagReplaced) {
		m.setStatus(n, alive)
	}
}

func (m *Machine) receiveHello(n *neighbour, h hello) {
	if n.said.length != 0 && (h.state < n.said.state || h.chain < n.said.chain) {
		return // An older Hello arrived late.
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
	m.loadChanges++
	m.scheduleDetection(n)
	if listened && !h.has(flagListening) && n.former != nil {
		n.formerUntil = m.now + formerTime
	}
	n.latest = max(n.latest, h.claims)
	m.signOfLife(n)
	switch {
	case h.has(flagLeaving):
		m.event(Event{Kind: EventLeft, Node: n.node})
		m.ignoreClaims(n)
		m.remove(n)
		return
	case h.has(flagReplaced):
		m.setStatus(n, silent)
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

// askUnknown asks the sender with this ID for its Hello, which this node does not have.
func (m *Machine) askUnknown(id ID) {
	if at, ok := m.askedIDs[id]; ok && m.now-at < helloAskPeriod || !m.unknown.allow(m.now) {
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
	if n.asked != 0 && m.now-n.asked < replyPeriod {
		return
	}
	// Beats in other nodes' names can use up the questions. One question a second to each neighbour remains.
	if n.asked != 0 && m.now-n.asked < slowPeriod && !m.asks.allow(m.now) {
		return
	}
	n.asked = m.now
	f := ask{id: n.id, claims: n.version, page: page}.encode()
	m.send(n.mac, f)
}

// missingPage returns the first page that has not arrived of the list that is being collected.
func (n *neighbour) missingPage() (p uint16) {
	if n.sync == nil || n.syncOf != n.latest {
		return 0
	}
	for n.sync[p] != nil {
		p++
	}
	return p
}

// receiveAsk answers with our Hello and claims, or leaves the answer to a Tick in a moment. It also answers if the answer to an
// earlier question is on its way: the speaker that asks now may have missed that one, because the segment was split until a
// moment ago.
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
		switch {
		case !m.askedPages:
			m.askedPages, m.askedPage, m.pagesOf, m.pagesAgain = true, a.page, m.claims, noPage
		case a.page < m.askedPage:
			// The list is first sent to its end. Otherwise speakers that ask for earlier pages could keep it from reaching its end.
			m.pagesAgain = min(m.pagesAgain, a.page)
		}
	}
	m.answerAsks()
	return ""
}

// answerAsks sends the Hello and the pages that were asked for, at most as often as the limits allow.
func (m *Machine) answerAsks() {
	if m.shadowed() {
		m.askedHello, m.askedPages = false, false
	}
	if m.askedHello && (m.helloSent == 0 || m.now-m.helloSent > replyPeriod) {
		m.greet()
	}
	if m.askedPages && m.now > m.pagesFrom {
		m.sendPages()
	}
}

// nextAnswer returns when answerAsks has something to do, or next if that is earlier.
func (m *Machine) nextAnswer(next Time) Time {
	if m.askedHello {
		next = min(next, m.helloSent+replyPeriod+1)
	}
	if m.askedPages {
		next = min(next, m.pagesFrom+1)
	}
	return next
}

// alsoByUnicast makes frames to all go to a neighbour by unicast, too, for a while, because multicast between it and this
// node is lost. As long as it is lost, each of the two hears the other by unicast alone, and so continues to send by unicast.
func (m *Machine) alsoByUnicast(n *neighbour) {
	count := 0
	for _, o := range m.sorted {
		if o.unicast > m.now {
			count++
		}
	}
	// Any machine can cause this in a neighbour's name, so it is not done for all nodes of a large segment.
	if count < maxUnicast || n.unicast > m.now {
		n.unicast = m.now + Grace
	}
}
