package bfd

import (
	"maps"
	"net/netip"
	"time"
)

const (
	// retryInterval is how long a session without a socket waits before it tries again to open one.
	retryInterval = 5 * time.Second
	// silenceInterval is the silence after which a session that is Down gets new sockets. The source address that the kernel
	// chooses, the interface or the VRF may have changed.
	silenceInterval = 10 * time.Second
)

// member is a session that is wanted or that is being closed.
type member struct {
	Session
	machine
	local    netip.Addr // source address of packets; unset without a socket
	sender   *sender    // nil without a socket
	receiver *receiver  // nil without a socket
	index    int        // of the interface on which packets arrive, while a session over one hop is not Down
	problem  string
	again    time.Time // when to check whether new sockets are needed

	buffer         [packetSize]byte
	sent, received uint64
	sendErrors     uint64
	drops          Drops
	failures       uint64
	downs          map[Diag]uint64

	at   time.Time // when something is due; zero: never
	slot int       // index in the queue
}

// take handles a packet from the address of the session's peer to the address of the session. There may be only one session
// between two addresses (RFC 5881 §3), so the addresses identify the session, and the discriminator in the packet must match.
// The discriminator alone would not be enough, because somebody else may have seen it.
func (m *member) take(now time.Time, a arrival, payload []byte) Drop {
	if least := m.MinimumTTL; a.ttl < least || least == 0 && a.ttl != maxTTL {
		return DropTTL
	}
	p, drop := parse(payload)
	if drop != Accepted {
		return drop
	}
	if m.MinimumTTL == 0 && m.index != 0 && m.index != a.index {
		return DropInterface
	}
	if drop = m.receive(now, &p); drop == Accepted {
		m.index = a.index
	}
	return drop
}

// flush sends the packets that are due.
func (m *member) flush(now time.Time) {
	if m.sender == nil {
		return
	}
	for {
		p, ok := m.transmit(now)
		if !ok {
			return
		}
		p.marshal(&m.buffer)
		if err := m.sender.send(&m.buffer); err != nil {
			m.sendErrors++
			m.problem = "the kernel does not send to the peer: " + err.Error()
		} else {
			m.sent++
			m.problem = ""
		}
	}
}

// next returns when something is due; zero: never.
func (m *member) next() time.Time {
	switch {
	case m.sender == nil && m.state == AdminDown:
		return m.ends
	case m.sender == nil:
		return m.again
	case m.state == AdminDown:
		return m.deadline()
	}
	return earlier(m.deadline(), m.again)
}

func (m *member) status() Status {
	s := Status{
		Name: m.Name, State: m.state, Since: m.since, Diag: m.diag, RemoteDiag: m.remote.diag, RemoteState: m.remote.state,
		Problem: m.problem, Local: m.local, Discriminator: m.mine, RemoteDiscriminator: m.remote.discriminator,
		TransmitInterval: m.transmitInterval(), RemoteDetectionTime: time.Duration(m.wish.multiplier) * max(m.wantTx, m.remote.rx),
		Polling: m.polling.active || m.polling.again, Received: m.measured.Measurement,
		PacketsSent: m.sent, PacketsReceived: m.received, SendErrors: m.sendErrors, Drops: m.drops, Failures: m.failures, Downs: maps.Clone(m.downs),
	}
	if !m.heard.IsZero() {
		s.ReceiveInterval, s.DetectionTime = m.receiveInterval(), m.detectionTime()
	}
	return s
}

// queue is a heap of members, ordered by the time at which something is due (container/heap).
type queue []*member

func (q queue) Len() int { return len(q) }

func (q queue) Less(i, j int) bool {
	a, b := q[i].at, q[j].at
	return !a.IsZero() && (b.IsZero() || a.Before(b))
}

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].slot, q[j].slot = i, j
}

func (q *queue) Push(m any) {
	m.(*member).slot = len(*q)
	*q = append(*q, m.(*member))
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	m := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return m
}
