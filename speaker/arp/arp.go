// Package arp is the [responder.Protocol] for IPv4. It reads and writes the packets of ARP (RFC
// 826), including those that detect address conflicts (RFC 5227).
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

// Name returns the name of the protocol.
func (Protocol) Name() string { return "ARP" }

// Supports reports whether addr is an IPv4 address that one machine can have.
func (Protocol) Supports(addr netip.Addr) bool {
	return addr.Is4() && (addr.IsGlobalUnicast() || addr.IsLinkLocalUnicast())
}

// The offsets of ar$spa and ar$tpa. The first follows the Ethernet header (14), the fixed part of ARP
// (8) and the sender's MAC (6). The second follows the sender's address (4) and the target's MAC (6).
const (
	senderOffset = 14 + 8 + 6
	targetOffset = senderOffset + 4 + 6
)

// Filter accepts packets with one of the addresses as target, or as sender, which is a conflict. It
// rejects frames that are too short to have a target. Parse finds out the kind of a packet.
func (Protocol) Filter(addrs []netip.Addr) []bpf.Instruction {
	return responder.Filter(addrs, targetOffset, senderOffset)
}

// Groups returns no groups: ARP is broadcast.
func (Protocol) Groups(netip.Addr) []netip.Addr { return nil }

// Open opens a socket for ARP.
func (Protocol) Open(i responder.Interface, filter []bpf.Instruction) (responder.Conn, error) {
	return responder.Listen(i, uint16(ethernet.EtherTypeARP), filter)
}

// Answer builds a reply, unicast to the machine that asked (RFC 826: "send the packet to the
// (new) target hardware address on the same hardware on which the request was received"). A
// probe gets a reply, too: this defends the address before another host takes it (RFC 5227 §2.1.1).
func (Protocol) Answer(self, mac net.HardwareAddr, p responder.Packet) ([]byte, error) {
	return frame(self, p.SenderMAC, arp.OperationReply, mac, p.Target, p.SenderMAC, p.Sender)
}

// Announce builds the two forms of gratuitous ARP, both broadcast. RFC 5227 §3 prefers the
// request, but some hosts learn from one form only. The request is first, because some hosts take
// an unsolicited reply for an attack. These hosts have learned the address from the request by then.
//
// In the reply the target hardware address is that of the sender (RFC 5944 §4.6). Otherwise Linux
// would not take the reply for gratuitous. In the request the field has no meaning and is zero (RFC
// 5227 §2.3).
func (Protocol) Announce(self net.HardwareAddr, addr netip.Addr) ([][]byte, error) {
	request, err := frame(self, ethernet.Broadcast, arp.OperationRequest, self, addr, zero, addr)
	if err != nil {
		return nil, err
	}
	reply, err := frame(self, ethernet.Broadcast, arp.OperationReply, self, addr, self, addr)
	return [][]byte{request, reply}, err
}

// Probe builds an ARP probe. This is a request with sender 0.0.0.0, which changes no host's entries
// (RFC 5227 §2.1.1).
func (Protocol) Probe(self net.HardwareAddr, addr netip.Addr) ([]byte, error) {
	return frame(self, ethernet.Broadcast, arp.OperationRequest, self, netip.IPv4Unspecified(), zero, addr)
}

// frame builds an ARP frame. It fails only if an address has the wrong length.
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
