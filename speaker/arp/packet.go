package arp

import (
	"bytes"
	"net"
	"net/netip"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
)

// Drop says why a frame was not answered; the empty Drop says that it was. The values are
// labels of a metric.
type Drop string

const (
	// DropMalformed: too short for what it says it is.
	DropMalformed Drop = "malformed"
	// DropForeignVLAN: with a VLAN tag, so not of this interface's segment.
	DropForeignVLAN Drop = "foreign_vlan"
	// DropForeignDestination: to another machine; seen because the interface is promiscuous.
	DropForeignDestination Drop = "foreign_destination"
	// DropNotEthernetIPv4: ARP, or something else, between other kinds of address.
	DropNotEthernetIPv4 Drop = "not_ethernet_ipv4"
	// DropOwn: from our own MAC, come back through a hub or a loop.
	DropOwn Drop = "own"
	// DropNotRequest: a reply, or one of the other operations.
	DropNotRequest Drop = "not_request"
	// DropAnnouncement: another's gratuitous ARP: it tells, it does not ask.
	DropAnnouncement Drop = "announcement"
	// DropBadSender: from an address that nobody can have, to which a reply would go astray or to many.
	DropBadSender Drop = "bad_sender"
	// DropNotOwned: for an address that is not (any more) answered for on this interface. Few: the
	// socket's filter leaves most of them in the kernel.
	DropNotOwned Drop = "not_owned"
	// DropSilent: while [Options].Silent said true.
	DropSilent Drop = "silent"
)

// hardwareEthernet is ar$hrd in RFC 826.
const hardwareEthernet = 1

// A question is an ARP request that deserves an answer if we have the target.
type question struct {
	hardware net.HardwareAddr // who asks
	sender   netip.Addr       // 0.0.0.0 in a probe, RFC 5227 §1.1
	target   netip.Addr
}

// parse reads an Ethernet frame that came in on the interface with the address self. It looks
// at everything but who owns the target.
func parse(frame []byte, self net.HardwareAddr) (question, Drop) {
	var f ethernet.Frame
	if err := f.UnmarshalBinary(frame); err != nil {
		return question{}, DropMalformed
	}
	switch {
	case f.VLAN != nil || f.ServiceVLAN != nil:
		return question{}, DropForeignVLAN
	case !isGroup(f.Destination) && !bytes.Equal(f.Destination, self):
		return question{}, DropForeignDestination
	case f.EtherType != ethernet.EtherTypeARP:
		return question{}, DropNotEthernetIPv4
	}
	// UnmarshalBinary takes addresses of any length; it errs if these are neither IPv4's nor IPv6's.
	var p arp.Packet
	if err := p.UnmarshalBinary(f.Payload); err != nil {
		return question{}, DropMalformed
	}
	switch {
	case p.HardwareType != hardwareEthernet || p.HardwareAddrLength != 6 ||
		p.ProtocolType != uint16(ethernet.EtherTypeIPv4) || p.IPLength != 4:
		return question{}, DropNotEthernetIPv4
	case bytes.Equal(p.SenderHardwareAddr, self):
		return question{}, DropOwn
	case p.Operation != arp.OperationRequest:
		return question{}, DropNotRequest
	case p.SenderIP == p.TargetIP:
		return question{}, DropAnnouncement
	case isGroup(p.SenderHardwareAddr) || isZero(p.SenderHardwareAddr) ||
		p.SenderIP.IsMulticast() || p.SenderIP == broadcast4:
		return question{}, DropBadSender
	}
	return question{hardware: p.SenderHardwareAddr, sender: p.SenderIP, target: p.TargetIP}, ""
}

// answer is the frame of a reply, unicast to the one who asked (RFC 826: "send the packet to the
// (new) target hardware address on the same hardware on which the request was received"). A
// probe gets one, too: that is how an address is defended before somebody else takes it, RFC 5227 §2.1.1.
func answer(self net.HardwareAddr, q question) ([]byte, error) {
	return frame(arp.OperationReply, self, q.target, q.hardware, q.sender, q.hardware)
}

// announcements are the two forms of gratuitous ARP, both broadcast. RFC 5227 §3 prefers the
// request, but there are hosts that learn from one form only.
//
// In the reply the target hardware address is the sender's, RFC 5944 §4.6; Linux takes it for
// gratuitous only then. In the request the field has no meaning and is zero, RFC 5227 §2.3.
func announcements(self net.HardwareAddr, addr netip.Addr) ([2][]byte, error) {
	request, err := frame(arp.OperationRequest, self, addr, zero, addr, ethernet.Broadcast)
	if err != nil {
		return [2][]byte{}, err
	}
	reply, err := frame(arp.OperationReply, self, addr, self, addr, ethernet.Broadcast)
	return [2][]byte{request, reply}, err
}

// frame errs only if an address has not the length that it has everywhere in this package.
func frame(op arp.Operation, self net.HardwareAddr, sender netip.Addr, target net.HardwareAddr, targetIP netip.Addr, to net.HardwareAddr) ([]byte, error) {
	p, err := arp.NewPacket(op, self, sender, target, targetIP)
	if err != nil {
		return nil, err
	}
	payload, err := p.MarshalBinary()
	if err != nil {
		return nil, err
	}
	f := ethernet.Frame{Destination: to, Source: self, EtherType: ethernet.EtherTypeARP, Payload: payload}
	return f.MarshalBinary()
}

var (
	broadcast4 = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	zero       = make(net.HardwareAddr, 6)
)

// isGroup is true for broadcast and multicast, IEEE 802 §8.2: the first bit on the wire is set.
func isGroup(a net.HardwareAddr) bool { return a[0]&1 != 0 }

func isZero(a net.HardwareAddr) bool { return bytes.Equal(a, zero) }
