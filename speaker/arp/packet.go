package arp

import (
	"bytes"
	"net"
	"net/netip"

	"github.com/heraldlb/herald/speaker/responder"
	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
)

const (
	// DropNotEthernetIPv4: not ARP, or ARP for other types of addresses.
	DropNotEthernetIPv4 responder.Drop = "not_ethernet_ipv4"
	// DropAnnouncement: a gratuitous ARP packet of another machine, which asks nothing.
	DropAnnouncement responder.Drop = "announcement"
)

// hardwareEthernet is ar$hrd in RFC 826.
const hardwareEthernet = 1

// Parse reads a frame. Every packet with a sender address claims that address (RFC 5227 §2.4).
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
	case f.EtherType != ethernet.EtherTypeARP:
		return responder.Packet{}, DropNotEthernetIPv4
	}
	// UnmarshalBinary accepts addresses of any length. It fails if they are neither IPv4 nor IPv6 addresses.
	var p arp.Packet
	if err := p.UnmarshalBinary(f.Payload); err != nil {
		return responder.Packet{}, responder.DropMalformed
	}
	switch {
	case p.HardwareType != hardwareEthernet || p.HardwareAddrLength != 6 ||
		p.ProtocolType != uint16(ethernet.EtherTypeIPv4) || p.IPLength != 4:
		return responder.Packet{}, DropNotEthernetIPv4
	case bytes.Equal(p.SenderHardwareAddr, self) || bytes.Equal(f.Source, self):
		// The second case is our own answer as the deputy of another node.
		return responder.Packet{}, responder.DropOwn
	case isGroup(p.SenderHardwareAddr) || isZero(p.SenderHardwareAddr) ||
		p.SenderIP.IsMulticast() || p.SenderIP == broadcast4:
		return responder.Packet{}, responder.DropBadSender
	}
	var packet responder.Packet
	if !p.SenderIP.IsUnspecified() {
		packet.Claimed, packet.ClaimedMAC = p.SenderIP, p.SenderHardwareAddr
	}
	switch {
	case p.Operation != arp.OperationRequest:
		return packet, responder.DropNotRequest
	case p.SenderIP == p.TargetIP:
		return packet, DropAnnouncement
	}
	packet.Target, packet.Sender, packet.SenderMAC = p.TargetIP, p.SenderIP, p.SenderHardwareAddr
	return packet, ""
}

var (
	broadcast4 = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	zero       = make(net.HardwareAddr, 6)
)

// isGroup reports whether a is a broadcast or multicast address (IEEE 802 §8.2): its first bit on the wire is set.
func isGroup(a net.HardwareAddr) bool { return a[0]&1 != 0 }

func isZero(a net.HardwareAddr) bool { return bytes.Equal(a, zero) }
