package bfd

import (
	"encoding/binary"
	"fmt"
	"time"
)

// State is the state of a session (RFC 5880 §6.2), with the numbers of the wire format.
type State uint8

// The states.
const (
	AdminDown State = iota // The session is closed on purpose, which says nothing about the path.
	Down
	Init // This end hears the peer, but the peer does not hear this end yet.
	Up
)

func (s State) String() string {
	names := [...]string{"AdminDown", "Down", "Init", "Up"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Diag is a diagnostic code (RFC 5880 §4.1), with the numbers of the wire format. It says why the state last changed.
type Diag uint8

// The diagnostic codes that this package sends. A peer may send others.
const (
	DiagNone         Diag = 0
	DiagTimeExpired  Diag = 1 // Nothing was heard for the detection time.
	DiagNeighborDown Diag = 3 // The peer said that its end is down.
	DiagAdminDown    Diag = 7
)

func (d Diag) String() string {
	names := [...]string{ // https://www.iana.org/assignments/bfd-parameters
		"No Diagnostic", "Control Detection Time Expired", "Echo Function Failed", "Neighbor Signaled Session Down",
		"Forwarding Plane Reset", "Path Down", "Concatenated Path Down", "Administratively Down", "Reverse Concatenated Path Down",
		"Mis-connectivity Defect",
	}
	if int(d) < len(names) {
		return names[d]
	}
	return fmt.Sprintf("Diag(%d)", uint8(d))
}

// packet is a BFD Control packet (RFC 5880 §4.1). The bits C, A and M are zero in all packets that this package sends: its
// sessions end with the process, and it does not authenticate.
type packet struct {
	state       State
	diag        Diag
	poll, final bool
	demand      bool
	multiplier  uint8
	mine, yours uint32 // discriminators from the point of view of the packet's sender
	desiredTx   time.Duration
	requiredRx  time.Duration // 0: the sender does not want to receive any
}

const (
	version = 1
	// packetSize is the length of a packet without an authentication section.
	packetSize = 24
	// maxInterval is the longest interval that a packet of either end may have. RFC 5880 allows 71 minutes. Such an interval
	// is of no use for detection, but with it a single forged packet could make this end deaf or silent for that time.
	maxInterval = time.Minute
)

// marshal writes the packet. Intervals are in microseconds on the wire.
func (p *packet) marshal(b *[packetSize]byte) {
	b[0] = version<<5 | byte(p.diag)&0x1f
	b[1] = byte(p.state)<<6 | bit(p.poll, 5) | bit(p.final, 4) | bit(p.demand, 1)
	b[2] = p.multiplier
	b[3] = packetSize
	binary.BigEndian.PutUint32(b[4:], p.mine)
	binary.BigEndian.PutUint32(b[8:], p.yours)
	binary.BigEndian.PutUint32(b[12:], uint32(p.desiredTx/time.Microsecond))  //nolint:gosec // At most maxInterval.
	binary.BigEndian.PutUint32(b[16:], uint32(p.requiredRx/time.Microsecond)) //nolint:gosec // At most maxInterval.
	binary.BigEndian.PutUint32(b[20:], 0)                                     // This end accepts no echo packets (RFC 5880 §6.8.9).
}

func bit(set bool, n int) byte {
	if set {
		return 1 << n
	}
	return 0
}

// parse parses a packet, and makes those checks of RFC 5880 §6.8.6 that need no session.
func parse(b []byte) (p packet, drop Drop) {
	if len(b) < packetSize {
		return p, DropLength
	}
	if b[0]>>5 != version {
		return p, DropVersion
	}
	authenticated := b[1]&0x04 != 0
	switch length := int(b[3]); {
	case length < packetSize, length > len(b), authenticated && length < packetSize+2:
		return p, DropLength
	case b[2] == 0:
		return p, DropMultiplier
	case b[1]&0x01 != 0:
		return p, DropMultipoint
	}
	p = packet{
		state: State(b[1] >> 6), diag: Diag(b[0] & 0x1f),
		poll: b[1]&0x20 != 0, final: b[1]&0x10 != 0, demand: b[1]&0x02 != 0,
		multiplier: b[2],
		mine:       binary.BigEndian.Uint32(b[4:]), yours: binary.BigEndian.Uint32(b[8:]),
		desiredTx:  time.Duration(binary.BigEndian.Uint32(b[12:])) * time.Microsecond,
		requiredRx: time.Duration(binary.BigEndian.Uint32(b[16:])) * time.Microsecond,
	}
	switch {
	case p.mine == 0, p.yours == 0 && p.state > Down:
		return p, DropDiscriminator
	case authenticated:
		return p, DropAuthentication
	case p.desiredTx > maxInterval, p.requiredRx > maxInterval:
		return p, DropInterval
	}
	return p, Accepted
}

// Drop is the reason why a received packet had no effect.
type Drop uint8

// The reasons. Accepted means that the packet was not dropped.
const (
	Accepted           Drop = iota
	DropTTL                 // The sender is too many hops away (RFC 5881 §5, RFC 5883 §5).
	DropNoSession           // There is no session with the source address.
	DropInterface           // It arrived on a different interface than the packets before (RFC 5881 §6).
	DropVersion             // The version is not 1.
	DropLength              // The length is less than the minimum, or more than the received data.
	DropMultiplier          // The multiplier is 0.
	DropMultipoint          // The multipoint bit of RFC 8562 is set, which is for other sessions.
	DropDiscriminator       // The peer's discriminator is 0, or that of this end does not match the session.
	DropAuthentication      // The packet is signed, which is not supported.
	DropInterval            // An interval is more than a minute.
	DropAdminDown           // This end is closing the session.
	drops
)

func (d Drop) String() string {
	return [drops]string{
		"Accepted", "TTL", "NoSession", "Interface", "Version", "Length", "Multiplier", "Multipoint", "Discriminator", "Authentication",
		"Interval", "AdminDown",
	}[d]
}

// Drops has the numbers of dropped packets by reason: d[DropTTL].
type Drops [drops]uint64
