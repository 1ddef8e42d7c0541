package segment

import (
	"encoding/binary"
	"net/netip"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
)

// Frames travel as UDP to the link-local groups that RFC 4727 reserves for experiments. Switches that snoop
// on IGMP or MLD flood 224.0.0.0/24 (RFC 4541, section 2.1.2) and, mostly, ff02::/16. The hop limit is 255, and receivers
// require it: a router would have decremented it (RFC 5082).
//
// A frame for one neighbour has the same IP header, and that neighbour's MAC address in the Ethernet header (RFC 6085). So
// the neighbour's kernel drops the frame silently, without an ICMP error.
const (
	// Port is the UDP port of the protocol.
	Port     = 7476
	hopLimit = 255

	etherSize = 14
	ipv4Size  = 20
	ipv6Size  = 40
	udpSize   = 8

	protocolUDP    = 17
	protocolICMPv6 = 58
)

var (
	group4    = netip.AddrFrom4([4]byte{224, 0, 0, 254})
	group6    = netip.MustParseAddr("ff02::114")
	groupMAC4 = MAC{0x01, 0x00, 0x5e, 0x00, 0x00, 0xfe}
	groupMAC6 = MAC{0x33, 0x33, 0x00, 0x00, 0x01, 0x14}
)

// datagram puts a payload into UDP, IP and Ethernet. It goes over IPv4 if the interface has an IPv4 address,
// or no address at all, and over IPv6 otherwise. All speakers receive both.
func datagram(i Interface, to MAC, payload []byte) []byte {
	source := netip.IPv4Unspecified()
	if len(i.Prefixes) > 0 {
		source = i.Prefixes[0].Addr() // IPv4 comes first.
	}
	if source.Is4() {
		return datagram4(i.MAC, source, to, payload)
	}
	return datagram6(i.MAC, source, to, payload)
}

func ether(from, to MAC, kind ethernet.EtherType, size int) []byte {
	b := make([]byte, 0, etherSize+size)
	b = append(b, to[:]...)
	b = append(b, from[:]...)
	return binary.BigEndian.AppendUint16(b, uint16(kind))
}

func datagram4(from MAC, source netip.Addr, to MAC, payload []byte) []byte {
	if to == (MAC{}) {
		to = groupMAC4
	}
	length := udpSize + len(payload)
	b := ether(from, to, ethernet.EtherTypeIPv4, ipv4Size+length)
	b = append(b, 0x45, 0xc0)                                     // TOS: internetwork control, as routing protocols use it
	b = binary.BigEndian.AppendUint16(b, uint16(ipv4Size+length)) //nolint:gosec // At most maxFrame.
	b = append(b, 0, 0, 0x40, 0, hopLimit, protocolUDP, 0, 0)     // do not fragment
	s, d := source.As4(), group4.As4()
	b = append(append(b, s[:]...), d[:]...)
	binary.BigEndian.PutUint16(b[etherSize+10:], ^sum(0, b[etherSize:]))
	b = udp(b, length)
	return append(b, payload...) // No UDP checksum: the fields that matter are authenticated.
}

func udp(b []byte, length int) []byte {
	b = binary.BigEndian.AppendUint16(b, Port)
	b = binary.BigEndian.AppendUint16(b, Port)
	b = binary.BigEndian.AppendUint16(b, uint16(length)) //nolint:gosec // At most maxFrame.
	return append(b, 0, 0)
}

func datagram6(from MAC, source netip.Addr, to MAC, payload []byte) []byte {
	if to == (MAC{}) {
		to = groupMAC6
	}
	length := udpSize + len(payload)
	b := ether(from, to, ethernet.EtherTypeIPv6, ipv6Size+length)
	b = ipv6(b, source, group6, protocolUDP, length)
	b = udp(b, length)
	b = append(b, payload...)
	c := ^sum(pseudo(source, group6, protocolUDP, length), b[etherSize+ipv6Size:])
	if c == 0 {
		c = 0xffff // RFC 8200, section 8.1
	}
	binary.BigEndian.PutUint16(b[etherSize+ipv6Size+6:], c)
	return b
}

func ipv6(b []byte, source, to netip.Addr, protocol byte, length int) []byte {
	b = append(b, 0x6c, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(length)) //nolint:gosec // At most maxFrame.
	b = append(b, protocol, hopLimit)
	s, d := source.As16(), to.As16()
	return append(append(b, s[:]...), d[:]...)
}

// pseudo returns the sum over the pseudo-header of RFC 8200, section 8.1.
func pseudo(source, to netip.Addr, protocol byte, length int) uint32 {
	s, d := source.As16(), to.As16()
	return uint32(sum(0, s[:])) + uint32(sum(0, d[:])) + uint32(protocol) + uint32(length) //nolint:gosec // At most maxFrame.
}

// sum returns the Internet checksum (RFC 1071), not complemented.
func sum(start uint32, b []byte) uint16 {
	s := start
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) > 0 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// isUnicast reports whether a frame is addressed to one node alone: IEEE 802.3, section 3.2.3.
func isUnicast(frame []byte) bool { return frame[0]&1 == 0 }

// readDatagram returns the payload of a frame that the filter let through, and its Ethernet source.
func readDatagram(frame []byte) (from MAC, payload []byte, drop Drop) {
	if len(frame) < etherSize+ipv4Size+udpSize {
		return from, nil, DropMalformed
	}
	copy(from[:], frame[6:12])
	ip := frame[etherSize:]
	var hops byte
	var rest []byte
	switch ethernet.EtherType(binary.BigEndian.Uint16(frame[12:])) {
	case ethernet.EtherTypeIPv4:
		header, total := int(ip[0]&0xf)*4, int(binary.BigEndian.Uint16(ip[2:]))
		if ip[0]>>4 != 4 || header < ipv4Size || total < header+udpSize || total > len(ip) || ip[9] != protocolUDP {
			return from, nil, DropMalformed
		}
		hops, rest = ip[8], ip[header:total]
	case ethernet.EtherTypeIPv6:
		if len(ip) < ipv6Size+udpSize {
			return from, nil, DropMalformed
		}
		length := int(binary.BigEndian.Uint16(ip[4:]))
		if ip[0]>>4 != 6 || ip[6] != protocolUDP || length < udpSize || ipv6Size+length > len(ip) {
			return from, nil, DropMalformed
		}
		hops, rest = ip[7], ip[ipv6Size:ipv6Size+length]
	default:
		return from, nil, DropMalformed
	}
	if hops != hopLimit {
		return from, nil, DropHopLimit
	}
	length := int(binary.BigEndian.Uint16(rest[4:]))
	if length < udpSize || length > len(rest) {
		return from, nil, DropMalformed
	}
	return from, rest[udpSize:length], ""
}

// question returns a frame that asks the kernel of a node whether it has one of its own addresses. It is an ARP request
// (RFC 826) or a neighbour solicitation (RFC 4861, section 7.2.2), both by unicast, as from a host that probes an entry of
// its cache.
func question(i Interface, p Probe) []byte {
	if p.Addr.Is4() {
		source := netip.IPv4Unspecified() // This makes it an ARP probe (RFC 5227, section 1.1), which kernels answer, too.
		if len(i.Prefixes) > 0 && i.Prefixes[0].Addr().Is4() {
			source = i.Prefixes[0].Addr()
		}
		packet, err := arp.NewPacket(arp.OperationRequest, i.MAC[:], source, p.MAC[:], p.Addr)
		if err != nil {
			return nil
		}
		body, err := packet.MarshalBinary()
		if err != nil {
			return nil
		}
		return append(ether(i.MAC, p.MAC, ethernet.EtherTypeARP, len(body)), body...)
	}
	source := linkLocal(i.MAC)
	for _, prefix := range i.Prefixes {
		if prefix.Addr().Is6() {
			source = prefix.Addr()
			break
		}
	}
	m := &ndp.NeighborSolicitation{TargetAddress: p.Addr, Options: []ndp.Option{
		&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: i.MAC[:]},
	}}
	body, err := ndp.MarshalMessageChecksum(m, source, p.Addr)
	if err != nil {
		return nil
	}
	b := ether(i.MAC, p.MAC, ethernet.EtherTypeIPv6, ipv6Size+len(body))
	return append(ipv6(b, source, p.Addr, protocolICMPv6, len(body)), body...)
}

// linkLocal returns the address that the kernel forms from a MAC address (RFC 4291, appendix A), unless it is configured
// otherwise.
func linkLocal(mac MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
}

// readAnswer reads an ARP reply or a neighbour advertisement.
func readAnswer(frame []byte) (addr netip.Addr, from MAC, ok bool) {
	if len(frame) < etherSize {
		return addr, from, false
	}
	copy(from[:], frame[6:12])
	body := frame[etherSize:]
	switch ethernet.EtherType(binary.BigEndian.Uint16(frame[12:])) {
	case ethernet.EtherTypeARP:
		var p arp.Packet
		if p.UnmarshalBinary(body) != nil || p.Operation != arp.OperationReply || len(p.SenderHardwareAddr) != len(from) || !p.SenderIP.Is4() {
			return addr, from, false
		}
		return p.SenderIP, MAC(p.SenderHardwareAddr), MAC(p.SenderHardwareAddr) == from
	case ethernet.EtherTypeIPv6:
		if len(body) < ipv6Size+24 || body[6] != protocolICMPv6 || body[7] != hopLimit || body[ipv6Size] != 136 {
			return addr, from, false
		}
		return netip.AddrFrom16([16]byte(body[ipv6Size+8 : ipv6Size+24])), from, true
	}
	return addr, from, false
}
