package ask

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
	"golang.org/x/net/bpf"
)

const (
	// accepted is how many bytes of a frame are read: an Ethernet frame that is not a jumbo frame.
	accepted = 1514

	packetOtherHost = 3 // PACKET_OTHERHOST in linux/if_packet.h; package unix has it on Linux only.

	hardwareEthernet = 1 // ar$hrd, RFC 826.

	ipv6HeaderLength = 40
	protocolICMPv6   = 58
	// A packet with this hop limit has passed no router: RFC 4861 §7.1.2.
	maxHopLimit           = 255
	neighborAdvertisement = 136 // RFC 4861 §4.4.
)

var (
	arpProtocol = protocol{
		name: "ARP", etherType: int(ethernet.EtherTypeARP), is: netip.Addr.Is4,
		filter:   []bpf.Instruction{bpf.RetConstant{Val: accepted}},
		question: arpQuestion, answer: arpAnswer,
	}
	ndpProtocol = protocol{
		name: "NDP", etherType: int(ethernet.EtherTypeIPv6), is: netip.Addr.Is6,
		filter: []bpf.Instruction{
			bpf.LoadAbsolute{Off: 14 + 6, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocolICMPv6, SkipTrue: 3},
			bpf.LoadAbsolute{Off: 14 + ipv6HeaderLength, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: neighborAdvertisement, SkipTrue: 1},
			bpf.RetConstant{Val: accepted},
			bpf.RetConstant{Val: 0},
		},
		question: ndpQuestion, answer: ndpAnswer,
	}
)

// assemble returns the filter, with checks before it of what only the kernel knows about a frame. A socket that is bound to
// an interface also gets the frames for a VLAN or macvlan on top of it, which are on another segment.
func assemble(index int, filter []bpf.Instruction) ([]bpf.RawInstruction, error) {
	return bpf.Assemble(append([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtInterfaceIndex},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(index), SkipTrue: 2},
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: packetOtherHost, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	}, filter...))
}

func arpQuestion(i *Interface, target netip.Addr) ([]byte, error) {
	p, err := arp.NewPacket(arp.OperationRequest, i.MAC, i.source(target), make(net.HardwareAddr, 6), target)
	if err != nil {
		return nil, err
	}
	payload, err := p.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return frame(ethernet.Broadcast, i.MAC, ethernet.EtherTypeARP, payload)
}

// arpAnswer reads every packet that says which machine has an address, also a request: a machine that sends a request from
// an address uses that address (RFC 5227 §2.4).
func arpAnswer(b []byte) (address netip.Addr, mac net.HardwareAddr, ok bool) {
	var f ethernet.Frame
	var p arp.Packet
	if f.UnmarshalBinary(b) != nil || f.EtherType != ethernet.EtherTypeARP || f.VLAN != nil || f.ServiceVLAN != nil || p.UnmarshalBinary(f.Payload) != nil {
		return
	}
	if p.HardwareType != hardwareEthernet || p.HardwareAddrLength != 6 || p.ProtocolType != uint16(ethernet.EtherTypeIPv4) || p.IPLength != 4 ||
		p.Operation != arp.OperationRequest && p.Operation != arp.OperationReply {
		return
	}
	// Return the address in the packet, not the sender of the frame: the packet is what other machines believe.
	return p.SenderIP, p.SenderHardwareAddr, true
}

func ndpQuestion(i *Interface, target netip.Addr) ([]byte, error) {
	source := i.source(target)
	group, err := ndp.SolicitedNodeMulticast(target)
	if err != nil {
		return nil, err
	}
	m := &ndp.NeighborSolicitation{TargetAddress: target}
	if !source.IsUnspecified() { // Otherwise the option must be absent: RFC 4861 §4.3.
		m.Options = []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: i.MAC}}
	}
	body, err := ndp.MarshalMessageChecksum(m, source, group)
	if err != nil {
		return nil, err
	}
	payload := make([]byte, 0, ipv6HeaderLength+len(body))
	payload = append(payload, 6<<4, 0, 0, 0)
	payload = binary.BigEndian.AppendUint16(payload, uint16(len(body)))
	payload = append(payload, protocolICMPv6, maxHopLimit)
	payload = append(payload, source.AsSlice()...)
	payload = append(payload, group.AsSlice()...)
	payload = append(payload, body...)
	to := group.As16()
	return frame(net.HardwareAddr{0x33, 0x33, to[12], to[13], to[14], to[15]}, i.MAC, ethernet.EtherTypeIPv6, payload) // RFC 2464 §7.
}

// ndpAnswer reads a neighbour advertisement (RFC 4861 §7.1.2). The checksum is not verified: a frame from a virtual
// machine on the same host may have none yet.
func ndpAnswer(b []byte) (address netip.Addr, mac net.HardwareAddr, ok bool) {
	var f ethernet.Frame
	if f.UnmarshalBinary(b) != nil || f.EtherType != ethernet.EtherTypeIPv6 || f.VLAN != nil || f.ServiceVLAN != nil {
		return
	}
	p := f.Payload
	if len(p) < ipv6HeaderLength || p[0]>>4 != 6 || p[6] != protocolICMPv6 || p[7] != maxHopLimit {
		return
	}
	length := int(binary.BigEndian.Uint16(p[4:]))
	if p = p[ipv6HeaderLength:]; length > len(p) || length < 2 || p[1] != 0 {
		return
	}
	message, err := ndp.ParseMessage(p[:length])
	if err != nil {
		return
	}
	na, ok := message.(*ndp.NeighborAdvertisement)
	if !ok {
		return netip.Addr{}, nil, false
	}
	for _, o := range na.Options {
		if l, ok := o.(*ndp.LinkLayerAddress); ok && l.Direction == ndp.Target && len(l.Addr) == 6 {
			return na.TargetAddress, l.Addr, true
		}
	}
	return na.TargetAddress, f.Source, true // The option may be left out: RFC 4861 §4.4.
}

func frame(to, from net.HardwareAddr, kind ethernet.EtherType, payload []byte) ([]byte, error) {
	f := ethernet.Frame{Destination: to, Source: from, EtherType: kind, Payload: payload}
	return f.MarshalBinary()
}
