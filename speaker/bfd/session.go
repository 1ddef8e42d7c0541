package bfd

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Defaults for the fields of a [Session] that are zero.
const (
	DefaultMultiplier = 3
	DefaultInterval   = 300 * time.Millisecond
)

// minInterval is the shortest interval that may be configured. A program that shares processors with others cannot keep
// shorter intervals.
const minInterval = 10 * time.Millisecond

// Session is a wanted session. Sessions are identified by name.
type Session struct {
	Name string
	// Peer is the address of the other end. A link-local address has a zone: fe80::1%eth0.
	Peer netip.Addr
	// Local is the address of this end. It should be the one that the protocol over the path uses (RFC 5882 §3). Unset: the
	// kernel chooses it.
	Local netip.Addr
	// Device is the VRF or interface to which the session is bound. Empty: none.
	Device string
	// DeviceIndex is the index of Device or, without one, of the interface in the zone of Peer. 0: not known, or no interface.
	// Sockets stay bound to the index, so a new interface with the same name needs a new session.
	DeviceIndex int
	// MinimumTTL makes this a session over several hops (RFC 5883). It is the lowest TTL with which packets may arrive: the TTL
	// with which the peer sends them, minus the number of routers in between. FRR sends them with 255, BIRD with 64, and this
	// package with 255. 0: the peer is on a link of this machine, and its packets arrive with 255 (RFC 5881).
	MinimumTTL uint8
	// Multiplier is how many packets in a row the peer must miss to find this end dead. 0: DefaultMultiplier.
	Multiplier uint8
	// TransmitInterval is the shortest time between packets that this end sends, and ReceiveInterval the shortest time between
	// packets that it is willing to receive, from 10 ms to a minute. In each direction the longer of the sender's and the
	// receiver's value is in force, and at least a second while the session is not Up. 0: DefaultInterval.
	TransmitInterval, ReceiveInterval time.Duration
}

// Validate returns all errors of a session at once.
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

// timing returns the settings that can change while the session stays up.
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

// path identifies the path of a session. There may be only one session for each path (RFC 5881 §3).
type path struct {
	peer, local netip.Addr
	device      string
	index       int
	multihop    bool
}

func (s Session) path() path {
	return path{peer: s.Peer, local: s.Local, device: s.Device, index: s.DeviceIndex, multihop: s.MinimumTTL > 0}
}

// Status is the status of a session.
type Status struct {
	Name  string
	State State
	// Since is when the state was entered.
	Since time.Time
	// Diag and RemoteDiag say why this end and the peer last changed their state.
	Diag, RemoteDiag Diag
	// RemoteState is the state of the peer. It is Down if nothing is heard from the peer.
	RemoteState State
	// Problem describes for users why packets cannot be exchanged. Empty: this end knows of no problem.
	Problem string

	// Local is the source address of packets; unset while there is no socket.
	Local netip.Addr
	// Discriminator and RemoteDiscriminator are the session's numbers at both ends. The peer's is 0 while it is not heard.
	Discriminator, RemoteDiscriminator uint32
	// TransmitInterval and ReceiveInterval are the intervals in force for sent and received packets. The actual time between
	// packets is up to a quarter shorter. ReceiveInterval and DetectionTime are 0 while the peer is not heard.
	TransmitInterval, ReceiveInterval time.Duration
	// DetectionTime is the silence after which this end finds the peer dead. RemoteDetectionTime is the silence after which
	// the peer finds this end dead.
	DetectionTime, RemoteDetectionTime time.Duration
	// Polling says that the peer has not confirmed the timing yet.
	Polling bool
	// Received measures the packets since the session came up or its intervals changed.
	Received Measurement

	PacketsSent, PacketsReceived uint64
	// SendErrors counts the packets that the kernel did not accept.
	SendErrors uint64
	Drops      Drops
	// Failures counts how often the session went from Up to Down. Sessions that the peer closed on purpose do not count.
	Failures uint64
	// Downs counts how often the session went from Up to Down, by the diagnostic of this end.
	Downs map[Diag]uint64
}

// Measurement is a measurement of the times between packets from the peer, as this program reads them.
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
	// RemoteState and RemoteDiag are from the peer's last packet.
	RemoteState State
	RemoteDiag  Diag
}

// Failed reports whether the path has failed. If the peer closes its end on purpose, this says nothing about the path, and
// protocols that run over the path go on (RFC 5882 §4.2).
func (c Change) Failed() bool { return c.From == Up && c.To == Down && c.RemoteState != AdminDown }
