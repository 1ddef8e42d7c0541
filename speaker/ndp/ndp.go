// Package ndp is the [responder.Protocol] for IPv6. It reads and writes the solicitations and
// advertisements of Neighbor Discovery (RFC 4861) and of duplicate address detection (RFC 4862 §5.4).
//
// It reads from packet sockets, not from ICMPv6 sockets. To an ICMPv6 socket the kernel delivers no
// unicast packets to an address which is on no interface, such as the probes of Neighbor
// Unreachability Detection (RFC 4861 §7.3).
package ndp

import (
	"net"
	"net/netip"

	"github.com/heraldlb/herald/speaker/responder"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
	"golang.org/x/net/bpf"
)

// Protocol is Neighbor Discovery over Ethernet.
type Protocol struct{}

var _ responder.Protocol = Protocol{}

// Name returns the name of the protocol.
func (Protocol) Name() string { return "NDP" }

// Supports reports whether addr is an IPv6 address that one machine can have.
func (Protocol) Supports(addr netip.Addr) bool {
	return addr.Is6() && !addr.Is4In6() && (addr.IsGlobalUnicast() || addr.IsLinkLocalUnicast())
}

// The layout of a frame: an Ethernet header, an IPv6 header without extensions, and ICMPv6.
const (
	typeOffset   = 12
	ipv6Offset   = 14
	nextOffset   = ipv6Offset + 6
	sourceOffset = ipv6Offset + 8
	icmpOffset   = ipv6Offset + 40
	targetOffset = icmpOffset + 8
)

const (
	solicitation  = 135 // RFC 4861 §4.3
	advertisement = 136 // RFC 4861 §4.4
	icmpv6        = 58
)

// Filter accepts solicitations and advertisements with one of the addresses as target, or as
// IPv6 source, which is a conflict. All IPv6 packets of the interface go through it, so it refuses
// all others at once.
func (Protocol) Filter(addrs []netip.Addr) []bpf.Instruction {
	reject := bpf.RetConstant{Val: 0}
	return append([]bpf.Instruction{
		bpf.LoadAbsolute{Off: typeOffset, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(ethernet.EtherTypeIPv6), SkipTrue: 1},
		reject,
		bpf.LoadAbsolute{Off: nextOffset, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: icmpv6, SkipTrue: 1},
		reject,
		bpf.LoadAbsolute{Off: icmpOffset, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: solicitation, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: advertisement, SkipTrue: 1},
		reject,
	}, responder.Filter(addrs, targetOffset, sourceOffset)...)
}

// Groups returns the solicited-node group of addr (RFC 4291 §2.7.1), for solicitations, and the
// group of all nodes, for the advertisements of others.
func (Protocol) Groups(addr netip.Addr) []netip.Addr {
	return []netip.Addr{solicitedNode(addr), netip.IPv6LinkLocalAllNodes()}
}

func solicitedNode(addr netip.Addr) netip.Addr {
	b := addr.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 11: 0x01, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// Open opens a socket for IPv6.
func (Protocol) Open(i responder.Interface, filter []bpf.Instruction) (responder.Conn, error) {
	return responder.Listen(i, uint16(ethernet.EtherTypeIPv6), filter)
}

// Answer builds a solicited advertisement, unicast to the node that asked. A node that probes for
// the address has no address of its own to answer to. The answer to a probe therefore goes to all
// nodes, and its Solicited flag is clear (RFC 4861 §7.2.4).
func (Protocol) Answer(self, mac net.HardwareAddr, p responder.Packet) ([]byte, error) {
	if p.Sender.IsUnspecified() {
		return advertise(self, allNodesMAC, mac, p.Target, netip.IPv6LinkLocalAllNodes(), false)
	}
	return advertise(self, p.SenderMAC, mac, p.Target, p.Sender, true)
}

// Announce builds an unsolicited advertisement to all nodes (RFC 4861 §7.2.6).
func (Protocol) Announce(self net.HardwareAddr, addr netip.Addr) ([][]byte, error) {
	f, err := advertise(self, allNodesMAC, self, addr, netip.IPv6LinkLocalAllNodes(), false)
	return [][]byte{f}, err
}

// advertise builds an advertisement. The Override flag is always set, because another node may have
// had the address before (RFC 4861 §4.4). The Router flag is clear, because no node should use a
// Service's address as a router. The option with the MAC is always present, because a node whose
// solicitation was multicast needs it (RFC 4861 §7.2.4).
func advertise(self, to, mac net.HardwareAddr, target, destination netip.Addr, solicited bool) ([]byte, error) {
	return frame(self, to, target, destination, &ndp.NeighborAdvertisement{
		Solicited: solicited, Override: true, TargetAddress: target,
		Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: mac}},
	})
}

// Probe builds a solicitation of duplicate address detection, which has the unspecified address as
// source and no option with a MAC (RFC 4862 §5.4.2).
func (Protocol) Probe(self net.HardwareAddr, addr netip.Addr) ([]byte, error) {
	group := solicitedNode(addr)
	return frame(self, groupMAC(group), netip.IPv6Unspecified(), group, &ndp.NeighborSolicitation{TargetAddress: addr})
}

// frame returns a message with its Ethernet and IPv6 headers.
func frame(from, to net.HardwareAddr, source, destination netip.Addr, m ndp.Message) ([]byte, error) {
	message, err := ndp.MarshalMessageChecksum(m, source, destination)
	if err != nil {
		return nil, err
	}
	packet := make([]byte, 40, 40+len(message))
	packet[0] = 6 << 4
	packet[4], packet[5] = byte(len(message)>>8), byte(len(message))
	packet[6], packet[7] = icmpv6, hopLimit
	copy(packet[8:], source.AsSlice())
	copy(packet[24:], destination.AsSlice())
	f := ethernet.Frame{Destination: to, Source: from, EtherType: ethernet.EtherTypeIPv6, Payload: append(packet, message...)}
	return f.MarshalBinary()
}

// groupMAC returns the MAC to which packets to a group are sent (RFC 2464 §7).
func groupMAC(group netip.Addr) net.HardwareAddr {
	b := group.As16()
	return net.HardwareAddr{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

var allNodesMAC = groupMAC(netip.IPv6LinkLocalAllNodes())
