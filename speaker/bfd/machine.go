package bfd

import (
	"math/rand/v2"
	"time"
)

// slowInterval is the minimum transmit interval of a session that is not Up (RFC 5880 §6.8.3).
const slowInterval = time.Second

// timing has the settings that one end wants.
type timing struct {
	multiplier uint8
	tx, rx     time.Duration
}

// machine is the state machine of one session (RFC 5880 §6.8), in asynchronous mode. It is pure: its inputs are packets,
// settings and the time, and its outputs are packets and the next deadline. The caller calls receive, configure, close or tick,
// and then transmit until there is nothing more to send. It calls tick again at deadline at the latest.
type machine struct {
	rand   *rand.Rand
	wish   timing
	mine   uint32 // bfd.LocalDiscr
	state  State
	since  time.Time
	diag   Diag
	remote remote

	// wantTx and wantRx are bfd.DesiredMinTxInterval and bfd.RequiredMinRxInterval, which every packet carries. usedTx and
	// usedRx are the intervals that this end uses. They differ until the peer is known to have heard the new ones (§6.8.3): until
	// then this end does not send more slowly, and does not expect packets earlier.
	wantTx, wantRx time.Duration
	usedTx, usedRx time.Duration
	polling        poll
	final          bool // whether an answer to a Poll is due

	heard  time.Time // when the last packet came; zero if the detection time has passed since
	sent   time.Time // when the last packet that was not an answer was sent
	spread float64   // the fraction of the transmit interval after sent at which the next packet is due
	urgent bool      // whether the peer must be told a new state at once (§6.8.7)
	ends   time.Time // in AdminDown: when this end stops telling the peer

	measured measured
}

// remote has the contents of the peer's last packet.
type remote struct {
	discriminator uint32
	state         State
	diag          Diag
	multiplier    uint8
	tx, rx        time.Duration
	demand        bool
}

// poll is a Poll Sequence (§6.5).
type poll struct {
	active bool
	// tx and rx are the intervals in force after the sequence: the shortest tx and the longest rx that were sent since it
	// began, because a Final does not say which of the packets it answers.
	tx, rx time.Duration
	again  bool      // whether the values have changed meanwhile, so that another sequence must follow
	from   time.Time // the next sequence must not begin earlier, because late answers to the last one may still come
}

func newMachine(now time.Time, r *rand.Rand, discriminator uint32, wish timing) machine {
	m := machine{rand: r, mine: discriminator, wish: wish, state: Down, since: now, urgent: true}
	m.forgetPeer()
	m.advertise(now)
	return m
}

// forgetPeer forgets everything from the peer's packets except its diagnostic, which is useful after the peer has fallen silent.
func (m *machine) forgetPeer() {
	// A minimum of 1 µs: see bfd.RemoteMinRxInterval in §6.8.1.
	m.remote = remote{state: Down, diag: m.remote.diag, multiplier: 1, rx: time.Microsecond}
	m.heard = time.Time{}
}

// receive handles a packet from the session's peer.
func (m *machine) receive(now time.Time, p *packet) Drop {
	switch {
	case p.yours != 0 && p.yours != m.mine:
		return DropDiscriminator
	case m.state == AdminDown:
		return DropAdminDown
	}
	m.remote = remote{
		discriminator: p.mine, state: p.state, diag: p.diag, multiplier: p.multiplier,
		tx: p.desiredTx, rx: p.requiredRx, demand: p.demand,
	}
	m.heard = now
	if !p.final { // Answers come in addition to the periodic packets.
		m.measured.add(now, m.receiveInterval())
	}
	if p.final && m.polling.active {
		m.endPoll(now)
	}
	switch {
	case p.state == AdminDown || m.state == Up && p.state == Down:
		if m.state != Down {
			m.enter(now, Down, DiagNeighborDown)
		}
	case m.state == Down && p.state == Down:
		m.enter(now, Init, DiagNone)
	case m.state == Down && p.state == Init, m.state == Init && p.state >= Init:
		m.enter(now, Up, DiagNone)
	}
	m.final = m.final || p.poll
	return Accepted
}

// configure changes the timing. A session that is Up stays Up, and the peer is told in a Poll Sequence.
func (m *machine) configure(now time.Time, wish timing) {
	m.wish = wish
	if m.state != AdminDown {
		m.advertise(now)
	}
}

// close begins to tell the peer that the session ends on purpose. The machine goes on telling until the peer's detection time
// is over, after which the peer knows in any case (§6.8.16), or for the time most if that is shorter.
func (m *machine) close(now time.Time, most time.Duration) {
	interval := m.transmitInterval()
	m.ends = now
	if !m.heard.IsZero() {
		m.ends = now.Add(min(time.Duration(m.wish.multiplier)*interval, most))
	}
	m.enter(now, AdminDown, DiagAdminDown)
	m.usedTx = interval // Keep the interval, to be done soon. The packets say a second, as they must.
}

// tick does everything that is due, except sending packets.
func (m *machine) tick(now time.Time) {
	if at := m.expires(); !at.IsZero() && !now.Before(at) {
		m.forgetPeer()
		if m.state == Init || m.state == Up {
			m.enter(now, Down, DiagTimeExpired)
		}
	}
	if m.polling.again && !m.polling.active && !now.Before(m.polling.from) {
		m.beginPoll(now)
	}
}

func (m *machine) enter(now time.Time, s State, d Diag) {
	m.state, m.since, m.diag, m.urgent = s, now, d, true
	if s == Up {
		m.measured = measured{}
	}
	m.advertise(now)
}

// advertise sets the intervals that packets carry from now on.
func (m *machine) advertise(now time.Time) {
	tx, rx := m.wish.tx, m.wish.rx
	if m.state != Up {
		tx = max(tx, slowInterval)
	}
	if m.state <= Down {
		// The peer does not use these values.
		m.wantTx, m.usedTx, m.wantRx, m.usedRx, m.polling = tx, tx, rx, rx, poll{}
		return
	}
	if tx == m.wantTx && rx == m.wantRx {
		return
	}
	m.wantTx, m.wantRx = tx, rx
	m.usedTx, m.usedRx = min(m.usedTx, tx), max(m.usedRx, rx)
	m.beginPoll(now)
}

func (m *machine) beginPoll(now time.Time) {
	p := &m.polling
	if p.active || now.Before(p.from) {
		p.again = true
		p.tx, p.rx = min(p.tx, m.wantTx), max(p.rx, m.wantRx)
		return
	}
	// The Poll goes out with the next periodic packet: if it overtook the packet before, the peer would go back to old values.
	*p = poll{active: true, tx: m.wantTx, rx: m.wantRx}
}

func (m *machine) endPoll(now time.Time) {
	m.usedTx, m.usedRx = m.polling.tx, m.polling.rx
	m.polling.active = false
	// Until then more answers to the same Poll may come. They must not be taken for answers to the next Poll.
	m.polling.from = now.Add(m.detectionTime())
}

// transmit returns the packet to send now, if there is one.
func (m *machine) transmit(now time.Time) (p packet, ok bool) {
	switch due := m.transmits(); {
	case m.final:
		// An answer does not depend on the transmit interval, and a peer that polls often must not delay the periodic packets
		// (§6.5, §6.8.7). An answer carries the new state as well, but it cannot carry a Poll.
		p.final, m.final = true, false
		m.urgent = m.urgent && m.polling.active
	case !due.IsZero() && !now.Before(due):
		p.poll, m.urgent = m.polling.active, false
		m.sent = now
		m.spread = m.jitter()
	default:
		return p, false
	}
	p.state, p.diag, p.multiplier = m.state, m.diag, m.wish.multiplier
	p.mine, p.yours = m.mine, m.remote.discriminator
	p.desiredTx, p.requiredRx = m.wantTx, m.wantRx
	return p, true
}

// jitter returns a random fraction of the interval, so that sessions do not send at the same time: 75 to 100 %, and at most 90 %
// if the loss of a single packet matters (§6.8.7).
func (m *machine) jitter() float64 {
	most := 1.0
	if m.wish.multiplier == 1 {
		most = 0.9
	}
	return 0.75 + (most-0.75)*m.rand.Float64()
}

// transmits returns when a packet is due; zero: never.
func (m *machine) transmits() time.Time {
	switch {
	case m.urgent:
		return m.since
	case m.remote.rx == 0: // The peer wants no periodic packets (§6.8.7).
		return time.Time{}
	case m.remote.demand && m.state == Up && m.remote.state == Up && !m.polling.active: // Nor in demand mode (§6.6).
		return time.Time{}
	}
	return m.sent.Add(time.Duration(float64(m.transmitInterval()) * m.spread))
}

// expires returns when the detection time will have passed; zero: never.
func (m *machine) expires() time.Time {
	if m.heard.IsZero() || m.state == AdminDown {
		return time.Time{}
	}
	return m.heard.Add(m.detectionTime())
}

// deadline returns when tick or transmit have something to do; zero: never.
func (m *machine) deadline() time.Time {
	at := earlier(m.transmits(), m.expires())
	if m.polling.again && !m.polling.active {
		at = earlier(at, m.polling.from)
	}
	return earlier(at, m.ends)
}

// earlier returns the earlier of two times. Zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// transmitInterval returns the longest time between two sent packets (§6.8.7).
func (m *machine) transmitInterval() time.Duration { return max(m.usedTx, m.remote.rx) }

// receiveInterval returns the longest time between two packets from the peer, or zero while the peer has not said.
func (m *machine) receiveInterval() time.Duration { return max(m.usedRx, m.remote.tx) }

// detectionTime returns how long the peer may be silent (§6.8.4).
func (m *machine) detectionTime() time.Duration {
	return time.Duration(m.remote.multiplier) * m.receiveInterval()
}

// measured measures the times between packets from the peer.
type measured struct {
	last     time.Time
	interval time.Duration // the interval that the peer should keep
	Measurement
	sum time.Duration
}

// add records a packet. When the intervals of the session change, the measurement starts again.
func (m *measured) add(now time.Time, interval time.Duration) {
	if interval != m.interval {
		*m = measured{interval: interval, last: now}
		return
	}
	gap := now.Sub(m.last)
	m.last = now
	if m.Count == 0 || gap < m.Min {
		m.Min = gap
	}
	m.Max = max(m.Max, gap)
	m.Count++
	m.sum += gap
	m.Mean = m.sum / time.Duration(m.Count) //nolint:gosec // It counts up from zero.
}
