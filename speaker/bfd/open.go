package bfd

import (
	"fmt"
	"net/netip"

	"go.uber.org/zap"
)

// reopen opens the first sockets of a session, or replaces its sockets when nothing is heard.
func (s *Speaker) reopen(m *member) {
	if m.sender != nil && (m.state != Down || s.now.Sub(m.heard) < silenceInterval) {
		m.again = s.now.Add(silenceInterval)
		return
	}
	s.shut(m)
	err := s.open(m)
	if err == nil {
		m.problem = ""
		m.again = s.now.Add(silenceInterval)
		return
	}
	s.shut(m)
	m.again = s.now.Add(retryInterval)
	if before := m.problem; before != err.Error() {
		m.problem = err.Error()
		s.log.Warn("failed to start the BFD session, trying again", zap.String("session", m.Name), zap.Error(err))
	}
}

func (s *Speaker) open(m *member) (err error) {
	if m.sender, m.local, err = openSender(m.Session, s.nextPort()); err != nil {
		return err
	}
	s.ports[m.sender.port] = true
	e := endpoint{local: m.local, device: m.Device, multihop: m.MinimumTTL > 0}
	if e.device != "" || e.local.Zone() != "" {
		e.index = m.DeviceIndex
	}
	r := s.receivers[e]
	if r == nil {
		if r, err = openReceiver(e); err != nil {
			return err
		}
		if err = s.poller.add(r.fd); err != nil {
			r.close()
			return err
		}
		s.receivers[e], s.sockets[r.fd] = r, r
	}
	peer := m.Peer.WithZone("")
	other := r.members[peer]
	if other != nil && other.state != AdminDown {
		return fmt.Errorf("session %q runs between %v and %v already: leave one of them out", other.Name, m.local, m.Peer)
	}
	r.members[peer], m.receiver = m, r
	if other != nil {
		other.receiver = nil
		s.shut(other) // The packets of the new session also tell the peer that the old one has ended.
	}
	return nil
}

// shut closes the sender of a session, and its receiver if no other session uses that.
func (s *Speaker) shut(m *member) {
	if m.sender != nil {
		delete(s.ports, m.sender.port)
		m.sender.close()
	}
	if r := m.receiver; r != nil {
		delete(r.members, m.Peer.WithZone(""))
		if len(r.members) == 0 {
			delete(s.receivers, r.endpoint)
			delete(s.sockets, r.fd)
			r.close()
		}
	}
	m.sender, m.receiver, m.local = nil, nil, netip.Addr{}
}

// nextPort returns a function that returns one port after another for a sender, from a random start and without the ports of
// other sessions, and then 0.
func (s *Speaker) nextPort() func() uint16 {
	const count = 1<<16 - minSourcePort
	first, tried := s.rand.IntN(count), 0
	return func() uint16 {
		for tried < count {
			port := uint16(minSourcePort + (first+tried)%count) //nolint:gosec // Less than 1<<16.
			tried++
			if !s.ports[port] {
				return port
			}
		}
		return 0
	}
}
