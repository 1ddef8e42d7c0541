package responder_test

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/heraldlb/herald/speaker/arp"
	"github.com/heraldlb/herald/speaker/responder"
	mdarp "github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
)

var (
	vip4    = netip.MustParseAddr("198.18.0.10")
	client4 = netip.MustParseAddr("198.18.0.99")
	noMAC   = make(net.HardwareAddr, 6)

	broadcast4 = netip.MustParseAddr("255.255.255.255")
)

var ipv4 = &family{
	protocol: arp.Protocol{}, ethType: uint16(ethernet.EtherTypeARP), forms: 2,
	vip: vip4, vip2: netip.MustParseAddr("198.18.0.20"), client: client4,
	control: netip.MustParseAddr("198.18.0.77"), here: netip.MustParseAddr("198.18.0.1"), bits: 24,
	// Take every second address, so that no two of them form one range.
	numbered: func(n int) []netip.Addr {
		all := make([]netip.Addr, n)
		for i := range all {
			all[i] = netip.AddrFrom4([4]byte{198, 19, byte(2 * i >> 8), byte(2 * i)})
		}
		return all
	},
	ignored: []string{"2001:db8::1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1"},
	ask: func(target, from netip.Addr) []byte {
		return ask4(target, func(_ *ethernet.Frame, p *mdarp.Packet) {
			if from.IsValid() {
				p.SenderIP = from
			}
		})
	},
	claim: func(addr netip.Addr, mac net.HardwareAddr) []byte {
		return ask4(addr, func(f *ethernet.Frame, p *mdarp.Packet) {
			f.Source, p.SenderHardwareAddr, p.SenderIP = mac, mac, addr
		})
	},
	decode: decode4,
	frames: frames4,
	answer: func(self, mac net.HardwareAddr) string { return answer4(self, mac, client4) },
	announcements: func(self net.HardwareAddr) []string {
		return []string{
			fmt.Sprintf("%v > %v: request %v is %v, to %v %v", self, ethernet.Broadcast, vip4, self, vip4, noMAC),
			fmt.Sprintf("%v > %v: reply %v is %v, to %v %v", self, ethernet.Broadcast, vip4, self, vip4, self),
		}
	},
}

func answer4(self, mac net.HardwareAddr, to netip.Addr) string {
	return fmt.Sprintf("%v > %v: reply %v is %v, to %v %v", self, clientMAC, vip4, mac, to, clientMAC)
}

// ask4 returns the request of a well-behaved client, changed by edit.
func ask4(target netip.Addr, edits ...func(*ethernet.Frame, *mdarp.Packet)) []byte {
	p, err := mdarp.NewPacket(mdarp.OperationRequest, clientMAC, client4, noMAC, target)
	if err != nil {
		panic(err)
	}
	f := &ethernet.Frame{Destination: ethernet.Broadcast, Source: clientMAC, EtherType: ethernet.EtherTypeARP}
	for _, edit := range edits {
		edit(f, p)
	}
	if f.Payload, err = p.MarshalBinary(); err != nil {
		panic(err)
	}
	frame, err := f.MarshalBinary()
	if err != nil {
		panic(err)
	}
	return frame
}

func decode4(frame []byte) (said, error) {
	var f ethernet.Frame
	if err := f.UnmarshalBinary(frame); err != nil {
		return said{}, err
	}
	var p mdarp.Packet
	if err := p.UnmarshalBinary(f.Payload); err != nil {
		return said{}, err
	}
	op := map[mdarp.Operation]string{mdarp.OperationRequest: "request", mdarp.OperationReply: "reply"}[p.Operation]
	s := said{from: f.Source, to: f.Destination, addr: p.SenderIP, mac: p.SenderHardwareAddr, toAddr: p.TargetIP}
	s.text = fmt.Sprintf("%v > %v: %s %v is %v, to %v %v", f.Source, f.Destination, op, p.SenderIP, p.SenderHardwareAddr, p.TargetIP, p.TargetHardwareAddr)
	switch {
	case p.SenderIP == p.TargetIP && p.Operation == mdarp.OperationReply:
		s.kind = "second form"
	case p.SenderIP == p.TargetIP:
		s.kind = "announcement"
	case p.Operation == mdarp.OperationReply:
		s.kind = "answer"
	default:
		s.kind, s.addr = "request", p.TargetIP
	}
	return s, nil
}

var frames4 = []frameCase{
	{name: "request", make: func(net.HardwareAddr) []byte { return ask4(vip4) }},
	{name: "unicast request, as for a stale entry", make: func(self net.HardwareAddr) []byte {
		return ask4(vip4, func(f *ethernet.Frame, p *mdarp.Packet) { f.Destination = self; p.TargetHardwareAddr = self })
	}},
	{
		name: "probe is defended against, RFC 5227 §2.1.1",
		make: func(net.HardwareAddr) []byte {
			return ask4(vip4, func(_ *ethernet.Frame, p *mdarp.Packet) { p.SenderIP = netip.IPv4Unspecified() })
		},
		answer: func(self net.HardwareAddr) string { return answer4(self, self, netip.IPv4Unspecified()) },
	},
	{name: "relayed by another machine, the answer goes to who asked", make: func(net.HardwareAddr) []byte {
		return ask4(vip4, func(f *ethernet.Frame, _ *mdarp.Packet) { f.Source = another })
	}},
	{name: "more than an ARP packet needs", make: func(net.HardwareAddr) []byte {
		return append(ask4(vip4), make([]byte, 500)...)
	}},
	{name: "another address", drop: responder.DropNotOwned, filtered: true, make: func(net.HardwareAddr) []byte { return ask4(client4.Next()) }},
	{name: "the address before", drop: responder.DropNotOwned, filtered: true, make: func(net.HardwareAddr) []byte { return ask4(vip4.Prev()) }},
	{name: "the address after", drop: responder.DropNotOwned, filtered: true, make: func(net.HardwareAddr) []byte { return ask4(vip4.Next()) }},
	{name: "reply", drop: responder.DropNotRequest, make: func(net.HardwareAddr) []byte {
		return ask4(vip4, func(_ *ethernet.Frame, p *mdarp.Packet) { p.Operation = mdarp.OperationReply })
	}},
	{name: "reverse ARP", drop: responder.DropNotRequest, make: func(net.HardwareAddr) []byte {
		return ask4(vip4, func(_ *ethernet.Frame, p *mdarp.Packet) { p.Operation = 3 })
	}},
	{name: "another's announcement of our address", drop: arp.DropAnnouncement, conflict: clientMAC, make: func(net.HardwareAddr) []byte {
		return ask4(vip4, func(_ *ethernet.Frame, p *mdarp.Packet) { p.SenderIP = vip4 })
	}},
	{name: "another's request with our address as sender", drop: responder.DropNotOwned, conflict: responder.MAC(0xb1), make: func(net.HardwareAddr) []byte {
		return ask4(client4.Next(), func(_ *ethernet.Frame, p *mdarp.Packet) { p.SenderIP, p.SenderHardwareAddr = vip4, responder.MAC(0xb1) })
	}},
	{name: "another's reply for our address", drop: responder.DropNotRequest, conflict: responder.MAC(0xb2), make: func(self net.HardwareAddr) []byte {
		return ask4(client4.Next(), func(f *ethernet.Frame, p *mdarp.Packet) {
			f.Destination, p.Operation, p.SenderIP, p.SenderHardwareAddr = self, mdarp.OperationReply, vip4, responder.MAC(0xb2)
		})
	}},
	{name: "our own request", drop: responder.DropOwn, make: func(self net.HardwareAddr) []byte {
		return ask4(vip4, func(f *ethernet.Frame, p *mdarp.Packet) { f.Source = self; p.SenderHardwareAddr = self })
	}},
	{name: "our own answer as a deputy", drop: responder.DropOwn, make: func(self net.HardwareAddr) []byte {
		return ask4(vip4, func(f *ethernet.Frame, p *mdarp.Packet) {
			f.Source, p.Operation, p.SenderIP, p.SenderHardwareAddr = self, mdarp.OperationReply, vip4, another
		})
	}},
	{name: "to another machine", drop: responder.DropForeignDestination, filtered: true, make: func(net.HardwareAddr) []byte {
		return ask4(vip4, func(f *ethernet.Frame, _ *mdarp.Packet) { f.Destination = another })
	}},
	{name: "in a VLAN that is not here", drop: responder.DropForeignVLAN, filtered: true, make: func(net.HardwareAddr) []byte {
		return ask4(vip4, func(f *ethernet.Frame, _ *mdarp.Packet) { f.VLAN = &ethernet.VLAN{ID: 7} })
	}},
	{name: "sender everybody", drop: responder.DropBadSender, make: func(net.HardwareAddr) []byte {
		return ask4(vip4, func(_ *ethernet.Frame, p *mdarp.Packet) { p.SenderHardwareAddr = ethernet.Broadcast })
	}},
	{name: "sender nobody", drop: responder.DropBadSender, make: func(net.HardwareAddr) []byte {
		return ask4(vip4, func(_ *ethernet.Frame, p *mdarp.Packet) { p.SenderHardwareAddr = noMAC })
	}},
	{name: "sender 255.255.255.255", drop: responder.DropBadSender, make: func(net.HardwareAddr) []byte {
		return ask4(vip4, func(_ *ethernet.Frame, p *mdarp.Packet) { p.SenderIP = broadcast4 })
	}},
	{name: "sender multicast", drop: responder.DropBadSender, make: func(net.HardwareAddr) []byte {
		return ask4(vip4, func(_ *ethernet.Frame, p *mdarp.Packet) { p.SenderIP = netip.MustParseAddr("224.0.0.18") })
	}},
	{name: "hardware type of token ring", drop: arp.DropNotEthernetIPv4, make: func(net.HardwareAddr) []byte {
		return ask4(vip4, func(_ *ethernet.Frame, p *mdarp.Packet) { p.HardwareType = 6 })
	}},
	{name: "protocol type of IPv6", drop: arp.DropNotEthernetIPv4, make: func(net.HardwareAddr) []byte {
		return ask4(vip4, func(_ *ethernet.Frame, p *mdarp.Packet) { p.ProtocolType = uint16(ethernet.EtherTypeIPv6) })
	}},
	{name: "hardware addresses of eight bytes", drop: arp.DropNotEthernetIPv4, make: func(net.HardwareAddr) []byte {
		f := ask4(vip4)
		f[14+4] = 8
		return f
	}},
	{name: "protocol addresses of sixteen bytes", drop: arp.DropNotEthernetIPv4, make: func(net.HardwareAddr) []byte {
		f := append(ask4(vip4), make([]byte, 64)...)
		f[14+5] = 16
		return f
	}},
	{name: "protocol addresses of three bytes", drop: responder.DropMalformed, make: func(net.HardwareAddr) []byte {
		f := ask4(vip4)
		f[14+5] = 3
		return f
	}},
	{name: "longer by its own account than it is", drop: responder.DropMalformed, make: func(net.HardwareAddr) []byte {
		f := ask4(vip4)
		f[14+4] = 255
		return f
	}},
	{name: "cut within the target", drop: responder.DropMalformed, filtered: true, make: func(net.HardwareAddr) []byte { return ask4(vip4)[:41] }},
	{name: "another EtherType", drop: arp.DropNotEthernetIPv4, filtered: true, make: func(net.HardwareAddr) []byte {
		return ask4(vip4, func(f *ethernet.Frame, _ *mdarp.Packet) { f.EtherType = 0x88b5 })
	}},
}
