package responder

import (
	"bytes"
	"net"
	"net/netip"
	"time"

	"go.uber.org/zap"
)

// read answers requests on s until s is closed or fails. A malformed frame is not a failure. Every
// error of the socket is a failure. Most often it is ENETDOWN, and a new socket cures all of them.
func (r *Responder) read(l *link, s *socket) {
	frame := make([]byte, FrameSize)
	for {
		n, err := s.Read(frame)
		if err != nil {
			r.fail(l, s, err)
			return
		}
		r.handle(l, s, frame[:n])
	}
}

func (r *Responder) fail(l *link, s *socket, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l.socket == s {
		s.err = err
		r.touch(l)
	}
}

// handle processes one frame.
func (r *Responder) handle(l *link, s *socket, frame []byte) Drop {
	p, drop := r.protocol.Parse(frame, s.self)
	drop = r.respond(l, s, p, drop)
	if p.Claimed.IsValid() {
		r.observe(l, s, p.Claimed, p.ClaimedMAC, false)
	}
	if p.isProbe() {
		r.observe(l, s, p.Target, p.SenderMAC, true)
	}
	return drop
}

// respond answers a packet, or counts the reason why it does not.
func (r *Responder) respond(l *link, s *socket, p Packet, drop Drop) Drop {
	if drop == "" && r.options.Silent(l.name) {
		drop = DropSilent
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var e *entry
	if drop == "" {
		if e = l.entries[p.Target]; l.socket != s || e == nil {
			drop = DropNotOwned
		}
	}
	if drop != "" {
		l.dropped[drop]++
		return drop
	}
	frame, err := r.protocol.Answer(s.self, e.mac(), p)
	if err == nil {
		err = s.Write(frame)
	}
	if err != nil {
		l.failed++
	} else {
		l.answered++
	}
	return ""
}

// observe looks for strangers. A stranger's probe for an address that is set is not a conflict, because
// it was answered. It does conflict with a Probe of ours (RFC 5227 §2.1.1, RFC 4862 §5.4.3).
func (r *Responder) observe(l *link, s *socket, addr netip.Addr, mac net.HardwareAddr, isProbe bool) {
	if !r.isForeign(l, s, addr, mac, isProbe) || r.options.Sibling(l.name, mac) {
		return
	}
	if r.meet(l, s, addr, mac, isProbe) {
		r.options.Conflict(Conflict{Interface: l.name, Address: addr, MAC: bytes.Clone(mac)})
	}
}

// isForeign reports whether addr is set or probed on l and mac does not belong to this machine.
func (r *Responder) isForeign(l *link, s *socket, addr netip.Addr, mac net.HardwareAddr, isProbe bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l.socket != s {
		return false
	}
	e := l.entries[addr]
	if isProbe {
		e = nil
	}
	if e == nil && !l.isProbed(addr) {
		return false
	}
	if e != nil && bytes.Equal(mac, e.mac()) {
		return false
	}
	// Another interface of this machine may be on the same segment.
	for _, o := range r.links {
		if bytes.Equal(mac, o.ifi.MAC) {
			return false
		}
	}
	return true
}

// meet handles a stranger that uses addr, and returns whether to report it.
func (r *Responder) meet(l *link, s *socket, addr netip.Addr, mac net.HardwareAddr, isProbe bool) (report bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range l.probes {
		if p.addr == addr {
			select {
			case p.found <- bytes.Clone(mac):
			default:
			}
		}
	}
	e := l.entries[addr]
	if e == nil || isProbe || l.socket != s {
		return false
	}
	l.conflicts++
	now := time.Now()
	// Two hosts that defend against each claim of the other would never stop (RFC 5227 §2.4 (c)).
	if e.answer.Defend && e.isOurs() && l.isServing() && now.Sub(e.defended) >= defendInterval {
		e.defended = now
		r.schedule(e, first, now)
		r.signal()
	}
	return e.report(mac, now)
}

// join keeps the socket in the wanted groups. It has a goroutine of its own, because the kernel may
// take long: it joins groups under the lock of all network configuration.
func (r *Responder) join(l *link, s *socket) {
	failed := false
	defer func() { _ = s.SetGroups(nil) }()
	for {
		select {
		case <-s.done:
			return
		case groups := <-s.groups:
			if err := s.SetGroups(groups); err != nil && !failed {
				failed = true
				r.log.Warn("cannot join all multicast groups: hosts behind switches with MLD snooping may not reach the addresses",
					zap.String("interface", l.name), zap.Error(err))
			}
		}
	}
}
