package segment

import (
	"cmp"
	"crypto/ed25519"
	"net/netip"
	"slices"
	"time"
)

// flush sends the changes that the last input made.
func (m *Machine) flush() {
	if !m.iface.Up {
		if len(m.pending) > 0 { // No neighbour hears an update now. The new number makes them ask later.
			m.pending = nil
			m.claims++
		}
		return
	}
	if p := m.wantedPeriod(); p != m.period {
		m.period, m.helloDirty = p, true
		m.nextBeat = min(m.nextBeat, m.now+p) // From the Hello on, the neighbours expect the new period.
	}
	if len(m.pending) > 0 {
		// Only the last change of each address counts.
		last := map[netip.Addr]int{}
		for i, c := range m.pending {
			last[c.addr] = i
		}
		var changes []change
		for i, c := range m.pending {
			if last[c.addr] == i {
				changes = append(changes, c)
			}
		}
		m.pending = nil
		for part := range m.split(changes) {
			m.sendUpdate(update{from: m.claims, to: m.claims + 1, changes: part})
		}
		// A Hello has the number of the claims, too. If this node owns nothing any more, it sends a Hello with the update, so a
		// neighbour that missed the update does not have to wait for the next beat, which comes a second later.
		m.helloDirty = m.helloDirty || len(m.owned) == 0
	}
	if m.helloDirty && !m.shadowed() {
		m.state++
		m.helloDirty = false
		m.helloFrame = nil
		m.greet()
		m.repeats = append(m.repeats, repeat{payload: m.helloFrame, left: 2})
	}
	m.greetNewcomers()
}

// wantedPeriod returns the time between two beats that this node needs now.
func (m *Machine) wantedPeriod() time.Duration {
	if m.listening || len(m.owned) > 0 || len(m.deputised) > 0 {
		return fastPeriod
	}
	return slowPeriod
}

// split cuts changes into parts that fit into a frame.
func (m *Machine) split(changes []change) func(yield func([]change) bool) {
	room := maxFrame - headerSize - envelopeSize - 1 - len(m.config.Node) - signatureSize - 16
	return func(yield func([]change) bool) {
		for len(changes) > 0 {
			n, size := 0, 0
			for n < len(changes) {
				s := 1 + 16 + 8
				if changes[n].addr.Is4() {
					s = 1 + 4 + 8
				}
				if size+s > room {
					break
				}
				size, n = size+s, n+1
			}
			if !yield(changes[:n]) {
				return
			}
			changes = changes[n:]
		}
	}
}

// sign returns a signed frame with the body.
func (m *Machine) sign(k kind, body func(*writer)) []byte {
	w := begin(k)
	m.sequence++
	w.envelope(envelope{cluster: m.cluster(), boot: m.config.Boot, sequence: m.sequence, mac: m.iface.MAC, node: m.config.Node})
	body(&w)
	return append(w, ed25519.Sign(m.config.Key, w)...)
}

// send adds a frame to the Output, to one neighbour or to all. A frame to all also goes by unicast to neighbours that do
// not hear the multicast.
func (m *Machine) send(to MAC, payload []byte) {
	m.counters.Sent[kind(payload[3]).String()]++
	m.out.Frames = append(m.out.Frames, Frame{To: to, Payload: payload})
	if to != (MAC{}) {
		return
	}
	for _, n := range m.sorted {
		deafToUs := !n.hearsMe && m.now-n.since > listenTime
		if n.living() && (deafToUs || m.now < n.unicast) {
			m.out.Frames = append(m.out.Frames, Frame{To: n.mac, Payload: payload})
		}
	}
}

// greet sends our Hello.
func (m *Machine) greet() {
	if !m.iface.Up || m.shadowed() {
		return
	}
	hears := m.welcome()
	// A Hello that names a recent beat saves its receivers hashes.
	if m.helloFrame == nil || len(hears) > 0 || m.chain.used > m.helloIndex+maxMissed/2 {
		m.renewChain()
		m.helloIndex = m.chain.used
		h := hello{
			state: m.state, claims: m.claims, period: uint16(m.period.Milliseconds()), //nolint:gosec // At most slowPeriod.
			chain: m.chain.number, length: maxChain, index: m.chain.used, secret: m.chain.links[m.chain.used],
			ifname: m.iface.Name[:min(len(m.iface.Name), maxInterface)], prefixes: m.iface.Prefixes, flags: m.flags(),
			hears: hears,
		}
		m.helloFrame = m.sign(kindHello, h.encode)
	}
	m.helloSent, m.askedHello = m.now, false
	m.send(MAC{}, m.helloFrame)
	if m.listening && m.now > m.since+fastPeriod {
		m.greetExpected()
	}
}

// welcome returns the boots that the next Hello names as heard.
func (m *Machine) welcome() (hears []uint64) {
	for _, n := range m.newcomers[:min(len(m.newcomers), maxHears)] {
		n.welcomes--
		hears = append(hears, n.boot)
	}
	m.newcomers = slices.DeleteFunc(m.newcomers, func(n *neighbour) bool { return n.welcomes <= 0 })
	return hears
}

// toWelcome makes the next Hellos tell a neighbour that this node hears it.
func (m *Machine) toWelcome(n *neighbour, times int) {
	if n.welcomes <= 0 {
		m.newcomers = append(m.newcomers, n)
	}
	n.welcomes = max(n.welcomes, times)
}

// renewChain begins a new chain when all secrets of the old one have been sent.
func (m *Machine) renewChain() {
	if m.chain.links == nil || m.chain.spent() {
		m.chain = newChain(m.chain.number+1, m.draw(), maxChain)
		m.helloFrame = nil
	}
}

// greetNewcomers answers the Hellos of neighbours that have to learn that this node hears them.
func (m *Machine) greetNewcomers() {
	if len(m.newcomers) > 0 && m.now-m.helloSent >= greetPeriod {
		m.greet()
	}
}

func (m *Machine) flags() (f uint8) {
	if m.listening {
		f |= flagListening
	}
	if m.serving {
		f |= flagServing
	}
	if m.replaced {
		f |= flagReplaced
	}
	if m.leaving {
		f |= flagLeaving
	}
	return f
}

// beat sends a beat when it is due.
func (m *Machine) beat() {
	if m.now < m.nextBeat || m.replaced || m.leaving {
		return
	}
	if m.shadowed() {
		m.nextBeat = m.now + m.period
		return
	}
	m.lastBeat, m.nextBeat = m.now, m.now+m.period
	m.renewChain()
	if m.helloFrame == nil || m.listening {
		m.greet()
	}
	for i := range m.repeats {
		m.repeats[i].left--
		m.send(MAC{}, m.repeats[i].payload)
	}
	m.repeats = slices.DeleteFunc(m.repeats, func(r repeat) bool { return r.left <= 0 })
	m.chain.used++
	m.send(MAC{}, beat{
		id: m.id, chain: m.chain.number, index: m.chain.used, secret: m.chain.links[m.chain.used], state: m.state, claims: m.claims,
	}.encode())
	if m.now-m.greetedExpected > slowPeriod {
		m.greetExpected()
	}
}

func (m *Machine) sendUpdate(u update) {
	m.claims = u.to
	payload := m.sign(kindUpdate, u.encode)
	m.send(MAC{}, payload)
	m.repeats = append(m.repeats, repeat{payload: payload, left: 2})
}

// sendPages sends the next pages of the list of our claims, from askedPage on. It signs the pages anew each time, because a
// neighbour refuses a sequence number that it has seen.
func (m *Machine) sendPages() {
	all := make([]change, 0, len(m.owned))
	for a := range m.owned {
		all = append(all, change{addr: a.Addr, term: a.ownTerm})
	}
	slices.SortFunc(all, func(x, y change) int { return x.addr.Compare(y.addr) })
	parts := slices.Collect(m.split(all))
	if len(parts) == 0 {
		parts = append(parts, nil)
	}
	parts = parts[:min(len(parts), maxPages)]
	if m.pagesOf != m.claims {
		m.askedPage, m.pagesOf, m.pagesAgain = 0, m.claims, noPage // The list has changed since its first pages were sent.
	}
	first := min(int(m.askedPage), len(parts))
	end := min(first+pagesAtOnce, len(parts))
	// Any machine can ask. Each page costs a signature on this node and a verification on every other.
	if !m.paging.take(m.now, float64(end-first)) {
		m.pagesFrom = m.now + replyPeriod
		return
	}
	for i := first; i < end; i++ {
		p := page{claims: m.claims, page: uint16(i), pages: uint16(len(parts)), entries: parts[i]} //nolint:gosec // At most maxPages.
		m.send(MAC{}, m.sign(kindPage, p.encode))
	}
	m.askedPages, m.askedPage = end < len(parts), uint16(end) //nolint:gosec // At most maxPages.
	if !m.askedPages && m.pagesAgain < uint16(end) {          //nolint:gosec // At most maxPages.
		m.askedPages, m.askedPage, m.pagesAgain = true, m.pagesAgain, noPage
	}
	m.pagesFrom = m.now + pageTime
	if !m.askedPages {
		m.pagesFrom += replyPeriod
	}
}

// receiveUpdate applies an Update that follows the known version of the neighbour's claims. If there are versions in between
// that are not known, it asks for the whole list.
func (m *Machine) receiveUpdate(n *neighbour, u update) {
	m.signOfLife(n)
	n.latest = max(n.latest, u.to)
	switch {
	case u.to == n.version:
		// Pages arrived first. They do not say why an address was released.
		for _, c := range u.changes {
			if n.dropped[c.addr] && c.stranger {
				delete(n.dropped, c.addr)
				m.dispute(m.address(c.addr))
			}
		}
	case u.to < n.version:
	case u.from > n.version:
		m.ask(n, 0)
	default:
		n.version = u.to
		m.reconsider = true
		if u.all {
			m.replaceClaims(n, nil)
		}
		for _, c := range u.changes {
			if c.term != 0 {
				n.claim(c)
				m.claimed(n, c.addr)
			} else {
				m.released(n, c)
			}
		}
		n.dropped = nil
	}
}

// claim stores a claim, unless the neighbour has maxClaims already.
func (n *neighbour) claim(c change) {
	if _, known := n.claims[c.addr]; known || len(n.claims) < maxClaims {
		n.claims[c.addr] = c.term
	}
}

func (m *Machine) released(n *neighbour, c change) {
	_, claimed := n.claims[c.addr]
	_, before := n.former[c.addr] // A new speaker may release an address that only its predecessor claimed.
	delete(n.claims, c.addr)
	delete(n.former, c.addr)
	if !claimed && !before {
		return
	}
	a := m.address(c.addr)
	if c.notWanted {
		// No Service has the address any more. This node will learn that in a moment.
		a.heldUntil = m.now + holdOff
	}
	if c.stranger {
		m.dispute(a)
	}
	m.unclaimed(n, a)
}

// receivePage collects the pages of a list. The claims of each page count at once. Earlier claims that are not in the list end
// when all its pages have arrived.
func (m *Machine) receivePage(n *neighbour, p page) {
	m.signOfLife(n)
	if p.claims < n.latest || p.claims == n.version {
		return // The list is old, or known already.
	}
	n.latest = p.claims
	m.reconsider = true
	if n.sync == nil || n.syncOf != p.claims {
		n.sync, n.syncOf = map[uint16][]change{}, p.claims
	}
	n.sync[p.page] = append([]change{}, p.entries...)
	for _, c := range p.entries {
		n.claim(c)
		m.claimed(n, c.addr)
	}
	if len(n.sync) < int(p.pages) {
		return
	}
	var all []change
	for i := range p.pages {
		all = append(all, n.sync[i]...)
	}
	n.sync, n.version = nil, p.claims
	m.replaceClaims(n, all)
}

// replaceClaims replaces all claims of a neighbour.
func (m *Machine) replaceClaims(n *neighbour, all []change) {
	before := n.claims
	n.dropped = map[netip.Addr]bool{}
	n.claims = make(map[netip.Addr]uint64, len(all))
	for _, c := range all {
		n.claim(c)
	}
	for addr := range before {
		if _, still := n.claims[addr]; !still {
			n.dropped[addr] = true
			m.unclaimed(n, m.address(addr))
		}
	}
	for addr := range n.claims {
		m.claimed(n, addr)
	}
}

// sendFormer tells the new speaker of a node which addresses its predecessor claimed, if this node is the deputy for them.
func (m *Machine) sendFormer(n *neighbour) {
	if n.formerSent != 0 && m.now-n.formerSent < formerPeriod {
		return
	}
	n.formerSent = m.now
	var all []change
	for addr, term := range n.former {
		if a := m.addresses[addr]; a != nil && a.answered.Node == n.node {
			all = append(all, change{addr: addr, term: term})
		}
	}
	slices.SortFunc(all, func(x, y change) int { return cmp.Or(x.addr.Compare(y.addr), cmp.Compare(x.term, y.term)) })
	for part := range m.split(all) {
		m.send(n.mac, m.sign(kindFormer, former{boot: n.boot, entries: part}.encode))
	}
}

// receiveFormer claims the addresses that the previous speaker of this node claimed, unless another node owns them now. A
// neighbour says this to a speaker that listens, and to no other.
func (m *Machine) receiveFormer(f former) {
	if f.boot != m.config.Boot || !m.listening && m.now-m.since > formerTime {
		return
	}
	for _, c := range f.entries {
		a := m.addresses[c.addr]
		if a == nil || a.ownTerm != 0 || a.want == nil {
			continue
		}
		if h := a.holder(); h != nil && a.wins(h.term, h.n.hash, c.term, m.hash) {
			continue
		}
		a.sawTerm(c.term)
		a.ownTerm, a.since, a.reason = min(c.term, a.highestTerm), m.now, "the speaker before this one had it"
		m.owned[a] = struct{}{}
		m.pending = append(m.pending, change{addr: c.addr, term: a.ownTerm})
		m.touch(a)
	}
}

// dropFormer ends the time in which a new speaker may claim the addresses of its predecessor.
func (m *Machine) dropFormer(n *neighbour) {
	former := n.former
	n.former = nil
	for addr := range former {
		a := m.address(addr)
		if _, claims := n.claims[addr]; claims {
			m.claimed(n, addr)
		} else {
			m.unclaimed(n, a)
		}
	}
}
