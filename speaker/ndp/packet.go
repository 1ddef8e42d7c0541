package ndp

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/heraldlb/herald/speaker/responder"
	"github.com/mdlayher/ethernet"
)

const (
	// DropNotNDP: another protocol or ICMPv6 message, or extension headers, which Neighbor Discovery
	// does not need.
	DropNotNDP responder.Drop = "not_ndp"
	// DropHopLimit: the hop limit is not 255, so the packet may have passed a router (RFC 4861 §7.1.1).
	DropHopLimit responder.Drop = "hop_limit"
	// DropChecksum: damaged on the way.
	DropChecksum responder.Drop = "checksum"
	// DropBadTarget: the target is a multicast address.
	DropBadTarget responder.Drop = "bad_target"
	// DropBadOption: an option has the length zero, is longer than the packet, or has a MAC of the
	// wrong length.
	DropBadOption responder.Drop = "bad_option"
)

// hopLimit is the hop limit of all messages. A packet that has passed a router has a lower one (RFC 4861 §3.1).
const hopLimit = 255

const (
	optionSourceMAC = 1 // RFC 4861 §4.6.1
	optionTargetMAC = 2
)

// Parse reads a frame according to RFC 4861 §7.1. An advertisement claims its target. A solicitation
// claims its source address.
func (Protocol) Parse(frame []byte, self net.HardwareAddr) (responder.Packet, responder.Drop) {
	var f ethernet.Frame
	if err := f.UnmarshalBinary(frame); err != nil {
		return responder.Packet{}, responder.DropMalformed
	}
	switch {
	case f.VLAN != nil || f.ServiceVLAN != nil:
		return responder.Packet{}, responder.DropForeignVLAN
	case !isGroup(f.Destination) && !bytes.Equal(f.Destination, self):
		return responder.Packet{}, responder.DropForeignDestination
	case f.EtherType != ethernet.EtherTypeIPv6:
		return responder.Packet{}, DropNotNDP
	}
	p, drop := parseIPv6(f.Payload)
	switch {
	case drop != "":
		return responder.Packet{}, drop
	case bytes.Equal(f.Source, self):
		return responder.Packet{}, responder.DropOwn
	}
	return p.read(f.Source, self)
}

// A message is a solicitation or an advertisement.
type message struct {
	kind                byte
	flags               byte
	source, destination netip.Addr
	target              netip.Addr
	options             []byte
}

// parseIPv6 reads a message from an IPv6 packet. Bytes after the packet are Ethernet padding.
func parseIPv6(b []byte) (message, responder.Drop) {
	if len(b) < 40 || b[0]>>4 != 6 {
		return message{}, responder.DropMalformed
	}
	if b[6] != icmpv6 {
		return message{}, DropNotNDP
	}
	length := int(binary.BigEndian.Uint16(b[4:]))
	icmp := b[40:]
	if length < 4 || len(icmp) < length {
		return message{}, responder.DropMalformed
	}
	icmp = icmp[:length]
	m := message{kind: icmp[0], source: netip.AddrFrom16([16]byte(b[8:])), destination: netip.AddrFrom16([16]byte(b[24:]))}
	switch {
	case m.kind != solicitation && m.kind != advertisement:
		return message{}, DropNotNDP
	case b[7] != hopLimit:
		return message{}, DropHopLimit
	case checksum(b[8:40], icmp) != 0:
		return message{}, DropChecksum
	case icmp[1] != 0 || length < 24: // ICMP code, and length without options
		return message{}, responder.DropMalformed
	}
	m.flags, m.target, m.options = icmp[4], netip.AddrFrom16([16]byte(icmp[8:])), icmp[24:]
	return m, ""
}

// checksum returns zero if the checksum in the ICMPv6 message is right (RFC 4443 §2.3).
func checksum(addresses, icmp []byte) uint16 {
	sum := uint32(len(icmp)) + icmpv6
	for _, b := range [][]byte{addresses, icmp} {
		for ; len(b) > 1; b = b[2:] {
			sum += uint32(b[0])<<8 | uint32(b[1])
		}
		if len(b) > 0 {
			sum += uint32(b[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// read validates the message and turns it into a Packet.
func (m message) read(from, self net.HardwareAddr) (responder.Packet, responder.Drop) {
	mac, drop := m.mac()
	switch {
	case drop != "":
		return responder.Packet{}, drop
	case m.target.IsMulticast():
		return responder.Packet{}, DropBadTarget
	case m.source.IsMulticast() || isGroup(from):
		return responder.Packet{}, responder.DropBadSender
	case mac != nil && bytes.Equal(mac, self):
		return responder.Packet{}, responder.DropOwn
	case mac != nil && (isGroup(mac) || bytes.Equal(mac, make(net.HardwareAddr, 6))):
		return responder.Packet{}, responder.DropBadSender
	}
	hasMAC := mac != nil
	if !hasMAC {
		// A unicast solicitation may omit the option, and so may the answer to it (RFC 4861 §4.3,
		// §4.4).
		mac = from
	}
	if m.kind == advertisement {
		const solicited = 1 << 6
		if m.destination.IsMulticast() && m.flags&solicited != 0 {
			return responder.Packet{}, responder.DropMalformed
		}
		return responder.Packet{Claimed: m.target, ClaimedMAC: mac}, responder.DropNotRequest
	}
	p := responder.Packet{Target: m.target, Sender: m.source, SenderMAC: mac}
	if !m.source.IsUnspecified() {
		p.Claimed, p.ClaimedMAC = m.source, mac
	} else if hasMAC || m.destination != solicitedNode(m.target) {
		return responder.Packet{}, responder.DropBadSender
	}
	if m.source == m.target {
		// No node asks for an address that it has itself.
		return responder.Packet{Claimed: p.Claimed, ClaimedMAC: mac}, responder.DropBadSender
	}
	return p, ""
}

// mac returns the MAC in the options: that of the source in a solicitation, that of the target in an
// advertisement; nil if there is none. It ignores other options (RFC 4861 §7.1.1, §7.1.2).
func (m message) mac() (net.HardwareAddr, responder.Drop) {
	want := byte(optionSourceMAC)
	if m.kind == advertisement {
		want = optionTargetMAC
	}
	var mac net.HardwareAddr
	for b := m.options; len(b) > 0; {
		// The length is in units of eight bytes, and includes the type and the length (RFC 4861 §4.6).
		if len(b) < 8 || b[1] == 0 || len(b) < 8*int(b[1]) {
			return nil, DropBadOption
		}
		if b[0] == want && mac == nil {
			if b[1] != 1 {
				return nil, DropBadOption // not a MAC of Ethernet (RFC 2464 §6)
			}
			mac = net.HardwareAddr(b[2:8])
		}
		b = b[8*int(b[1]):]
	}
	return mac, ""
}

// isGroup reports whether a is a broadcast or multicast address (IEEE 802 §8.2): its first bit on the wire is set.
func isGroup(a net.HardwareAddr) bool { return a[0]&1 != 0 }
