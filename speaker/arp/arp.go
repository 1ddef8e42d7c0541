// Package arp is the [responder.Protocol] for IPv4: the packets of ARP (RFC 826), and of the
// detection of conflicts by ARP (RFC 5227).
package arp

import (
	"net"
	"net/netip"

	"github.com/heraldlb/herald/speaker/responder"
	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"golang.org/x/net/bpf"
)

// Protocol is ARP over Ethernet for IPv4.
type Protocol struct{}

var _ responder.Protocol = Protocol{}

// Name is the protocol's name.
func (Protocol) Name() string { return "ARP" }

// Supports tells whether addr is an IPv4 address that one machine can have.
func (Protocol) Supports(addr netip.Addr) bool {
	return addr.Is4() && (addr.IsGlobalUnicast() || addr.IsLinkLocalUnicast())
}

// The places of ar$spa and ar$tpa: after the Ethernet header (14), the fixed part of ARP (8), and the
// sender's MAC (6), and then after the sender's address (4) and the target's MAC (6).
const (
	senderOffset = 14 + 8 + 6
	targetOffset = senderOffset + 4 + 6
)

// Filter accepts packets with one of the addresses as target, or as sender, which is a conflict. What
// kind of packet it is, Parse tells, with a reason. Frames too short to have a target are rejected.
func (Protocol) Filter(addrs []netip.Addr) []bpf.Instruction {
	return responder.Filter(addrs, targetOffset, senderOffset)
}

// Groups are none: ARP is broadcast.
func (Protocol) Groups(netip.Addr) []netip.Addr { return nil }

// Open opens a socket for ARP.
func (Protocol) Open(i responder.Interface, filter []bpf.Instruction) (responder.Conn, error) {
	return responder.Listen(i, uint16(ethernet.EtherTypeARP), filter)
}

// Answer builds a reply, unicast to the machine that asked (RFC 826: "send the packet to the
// (new) target hardware address on the same hardware on which the request was received"). A
// probe gets one, too: this defends the address before somebody else takes it (RFC 5227 §2.1.1).
func (Protocol) Answer(self, mac net.HardwareAddr, p responder.Packet) ([]byte, error) {
	return frame(self, p.SenderMAC, arp.OperationReply, mac, p.Target, p.SenderMAC, p.Sender)
}

// Announce builds the two forms of gratuitous ARP, both broadcast. RFC 5227 §3 prefers the
// request, but some hosts learn from one form only. The request is first: some hosts take a reply
// that nobody asked for as an attack, and are up to date by then.
//
// In the reply the target hardware address is the sender's (RFC 5944 §4.6); Linux takes it for
// gratuitous only then. In the request the field has no meaning and is zero (RFC 5227 §2.3).
func (Protocol) Announce(self net.HardwareAddr, addr netip.Addr) ([][]byte, error) {
	request, err := frame(self, ethernet.Broadcast, arp.OperationRequest, self, addr, zero, addr)
	if err != nil {
		return nil, err
	}
	reply, err := frame(self, ethernet.Broadcast, arp.OperationReply, self, addr, self, addr)
	return [][]byte{request, reply}, err
}

// Probe builds an ARP probe: a request with sender 0.0.0.0, so that it changes no host's entries (RFC
// 5227 §2.1.1).
func (Protocol) Probe(self net.HardwareAddr, addr netip.Addr) ([]byte, error) {
	return frame(self, ethernet.Broadcast, arp.OperationRequest, self, netip.IPv4Unspecified(), zero, addr)
}

// frame fails only if an address has the wrong length.
func frame(from, to net.HardwareAddr, op arp.Operation, senderMAC net.HardwareAddr, sender netip.Addr, targetMAC net.HardwareAddr, target netip.Addr) ([]byte, error) {
	p, err := arp.NewPacket(op, senderMAC, sender, targetMAC, target)
	if err != nil {
		return nil, err
	}
	payload, err := p.MarshalBinary()
	if err != nil {
		return nil, err
	}
	f := ethernet.Frame{Destination: to, Source: from, EtherType: ethernet.EtherTypeARP, Payload: payload}
	return f.MarshalBinary()
}
