package bfd

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Defaults for what a [Session] leaves zero.
const (
	DefaultMultiplier = 3
	DefaultInterval   = 300 * time.Millisecond
)

// minInterval is the least interval that may be configured. A program that shares processors with others does not keep
// shorter ones.
const minInterval = 10 * time.Millisecond

// Session is one session that there should be. Names are the keys.
type Session struct {
	Name string
	// Peer is the address of the other end. A link-local one has its zone: fe80::1%eth0.
	Peer netip.Addr
	// Local is the address of this end; that of the protocol that uses the session (RFC 5882 §3). Unset: the kernel's choice.
	Local netip.Addr
	// Device binds the session to a VRF, or to an interface. Empty: none.
	Device string
	// DeviceIndex is the index of Device or, without one, of the interface in the zone of Peer. 0: not known, or no interface.
	// Sockets stay with the index, so another interface by the same name needs a new session.
	DeviceIndex int
	// MinimumTTL makes the session one over several hops (RFC 5883), and is the least TTL that its packets may arrive with:
	// what the peer sends them with, less the number of routers in between. FRR sends them with 255, BIRD with 64, and this
	// package with 255. 0: the peer is on a link of this machine, and its packets arrive with 255 (RFC 5881).
	MinimumTTL uint8
	// Multiplier is how many packets in a row the peer has to miss to find this end dead. 0: DefaultMultiplier.
	Multiplier uint8
	// TransmitInterval and ReceiveInterval are the shortest times between packets that this end sends and that it is willing to
	// receive, from 10 ms to a minute. The greater of what one end sends and the other receives holds, and at least a
	// second while the session is not Up. 0: DefaultInterval.
	TransmitInterval, ReceiveInterval time.Duration
}

// Validate says what is wrong with a session, all of it at once.
func (s Session) Validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("BFD session %q: %s: %w", s.Name, field, fmt.Errorf(format, args...)))
	}
	if s.Name == "" {
		bad("Name", "is empty; every session needs a name of its own")
	}
	switch a := s.Peer; {
	case !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6():
		bad("Peer", "%v is not the address of a machine", a)
	case needsZone(a) && a.Zone() == "":
		bad("Peer", "%v is link-local and needs its interface: %v%%eth0", a, a)
	case needsZone(a) && s.MinimumTTL > 0:
		bad("MinimumTTL", "is for peers behind routers, and %v is link-local; leave it out", a)
	}
	if l := s.Local; l.IsValid() {
		switch {
		case l.IsUnspecified() || l.IsMulticast() || l.Is4In6():
			bad("Local", "%v is not the address of a machine", l)
		case l.Is4() != s.Peer.Is4():
			bad("Local", "%v is not of the family of the peer's address %v", l, s.Peer)
		case needsZone(l) && l.Zone() != s.Peer.Zone():
			bad("Local", "%v is not on the interface of the peer's address %v", l, s.Peer)
		}
	}
	for _, i := range []struct {
		field string
		value time.Duration
	}{{"TransmitInterval", s.TransmitInterval}, {"ReceiveInterval", s.ReceiveInterval}} {
		if i.value != 0 && (i.value < minInterval || i.value > maxInterval || i.value%time.Microsecond != 0) {
			bad(i.field, "%v is not in whole microseconds between %v and %v", i.value, minInterval, maxInterval)
		}
	}
	return errors.Join(errs...)
}

func needsZone(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }

// timing is what can be changed while the session stays.
func (s Session) timing() timing {
	t := timing{multiplier: s.Multiplier, tx: s.TransmitInterval, rx: s.ReceiveInterval}
	if t.multiplier == 0 {
		t.multiplier = DefaultMultiplier
	}
	if t.tx == 0 {
		t.tx = DefaultInterval
	}
	if t.rx == 0 {
		t.rx = DefaultInterval
	}
	return t
}

// path is between what a session runs. There is one session for each (RFC 5881 §3).
type path struct {
	peer, local netip.Addr
	device      string
	index       int
	multihop    bool
}

func (s Session) path() path {
	return path{peer: s.Peer, local: s.Local, device: s.Device, index: s.DeviceIndex, multihop: s.MinimumTTL > 0}
}

// Status is how a session fares.
type Status struct {
	Name  string
	State State
	// Since is when the state was entered.
	Since time.Time
	// Diag and RemoteDiag are why this end and the peer last changed their state.
	Diag, RemoteDiag Diag
	// RemoteState is the peer's, and Down if nothing is heard from it.
	RemoteState State
	// Problem says why packets cannot be exchanged, in words for people. Empty: they can, as far as this end can tell.
	Problem string

	// Local is the address that packets come from; unset while there is no socket.
	Local netip.Addr
	// Discriminator and RemoteDiscriminator are the session's numbers at both ends. The peer's is 0 while it is not heard.
	Discriminator, RemoteDiscriminator uint32
	// TransmitInterval and ReceiveInterval hold now, for what is sent and what is received. Up to a quarter less passes
	// between packets. ReceiveInterval is 0 while the peer is not heard, and so is DetectionTime.
	TransmitInterval, ReceiveInterval time.Duration
	// DetectionTime is the silence after which the peer is found dead; RemoteDetectionTime that after which the peer finds
	// this end dead.
	DetectionTime, RemoteDetectionTime time.Duration
	// Polling says that the peer has not confirmed the timing yet.
	Polling bool
	// Received measures what came since the session came up or its intervals changed.
	Received Measurement

	PacketsSent, PacketsReceived uint64
	// SendErrors are packets that the kernel did not take.
	SendErrors uint64
	Drops      Drops
	// Failures are how many times the session went from Up to Down, unless the peer closed it on purpose.
	Failures uint64
	// Downs are how many times the session went from Up to Down, by the diagnostic of this end.
	Downs map[Diag]uint64
}

// Measurement is of the times between packets of the peer, as this program read them.
type Measurement struct {
	Count          uint64
	Min, Mean, Max time.Duration
}

// Change is a change of the state of a session.
type Change struct {
	Session  string
	From, To State
	At       time.Time
	Diag     Diag
	// RemoteState and RemoteDiag are what the peer said last.
	RemoteState State
	RemoteDiag  Diag
}

// Failed reports whether the path has failed. A peer that closes its end on purpose says nothing about the path: protocols
// that run over it go on (RFC 5882 §4.2).
func (c Change) Failed() bool { return c.From == Up && c.To == Down && c.RemoteState != AdminDown }
