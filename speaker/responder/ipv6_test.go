package responder_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/heraldlb/herald/speaker/ndp"
	"github.com/heraldlb/herald/speaker/responder"
	mdndp "github.com/mdlayher/ndp"

	"github.com/mdlayher/ethernet"
)

var (
	vip6     = netip.MustParseAddr("2001:db8:12::10")
	client6  = netip.MustParseAddr("2001:db8:12::99")
	allNodes = netip.MustParseAddr("ff02::1")

	allNodesMAC = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	vip6Group   = netip.MustParseAddr("ff02::1:ff00:10")
)

var ipv6 = &family{
	protocol: ndp.Protocol{}, ethType: uint16(ethernet.EtherTypeIPv6), forms: 1,
	vip: vip6, vip2: netip.MustParseAddr("2001:db8:12::20"), client: client6,
	control: netip.MustParseAddr("2001:db8:12::77"), here: netip.MustParseAddr("2001:db8:12::1"), bits: 64,
	numbered: func(n int) []netip.Addr {
		all := make([]netip.Addr, n)
		for i := range all {
			b := netip.MustParseAddr("2001:db8:12::1:0").As16()
			binary.BigEndian.PutUint16(b[14:], uint16(2*i))
			all[i] = netip.AddrFrom16(b)
		}
		return all
	},
	ignored: []string{"198.18.0.1", "::", "::1", "ff02::1", "::ffff:198.18.0.10"},
	ask: func(target, from netip.Addr) []byte {
		return ask6(target, func(n *neighbour6) {
			if from.IsValid() {
				n.source = from
			}
		})
	},
	claim: func(addr netip.Addr, mac net.HardwareAddr) []byte {
		return ask6(addr, func(n *neighbour6) { n.claim(addr, mac) })
	},
	decode: decode6,
	frames: frames6,
	answer: func(self, mac net.HardwareAddr) string {
		return fmt.Sprintf("%v > %v: %v > %v hops 255: advertisement S=1 O=1 R=0 %v is %v", self, clientMAC, vip6, client6, vip6, mac)
	},
	announcements: func(self net.HardwareAddr) []string { return []string{toAll6(self)} },
}

// toAll6 returns an advertisement of vip to all nodes.
func toAll6(self net.HardwareAddr) string {
	return fmt.Sprintf("%v > %v: %v > %v hops 255: advertisement S=0 O=1 R=0 %v is %v", self, allNodesMAC, vip6, allNodes, vip6, self)
}

// neighbour6 has the parts of a frame that tests change.
type neighbour6 struct {
	to, from            net.HardwareAddr
	vlan                *ethernet.VLAN
	etherType           ethernet.EtherType
	version, next, hops byte
	length              int // of the payload; zero: the right one
	source, destination netip.Addr
	message             mdndp.Message
	edit                func(icmp []byte) []byte // before the checksum
	damage              bool                     // the checksum
}

// claim makes it an unsolicited advertisement.
func (n *neighbour6) claim(addr netip.Addr, mac net.HardwareAddr) {
	n.to, n.from, n.source, n.destination = allNodesMAC, mac, addr, allNodes
	n.message = &mdndp.NeighborAdvertisement{
		Override: true, TargetAddress: addr, Options: []mdndp.Option{&mdndp.LinkLayerAddress{Direction: mdndp.Target, Addr: mac}},
	}
}

// ask6 returns the solicitation of a well-behaved client, changed by edit.
func ask6(target netip.Addr, edits ...func(*neighbour6)) []byte {
	group, err := mdndp.SolicitedNodeMulticast(target)
	if err != nil {
		panic(err)
	}
	g := group.As16()
	n := &neighbour6{
		to: net.HardwareAddr{0x33, 0x33, g[12], g[13], g[14], g[15]}, from: clientMAC, etherType: ethernet.EtherTypeIPv6,
		version: 6, next: 58, hops: 255, source: client6, destination: group,
		message: solicit(target, &mdndp.LinkLayerAddress{Direction: mdndp.Source, Addr: clientMAC}),
	}
	for _, edit := range edits {
		edit(n)
	}
	icmp, err := mdndp.MarshalMessage(n.message)
	if err != nil {
		panic(err)
	}
	if n.edit != nil {
		icmp = n.edit(icmp)
	}
	if len(icmp) >= 4 {
		icmp[2], icmp[3] = 0, 0
		binary.BigEndian.PutUint16(icmp[2:], checksum6(n.source, n.destination, icmp))
		if n.damage {
			icmp[2]++
		}
	}
	if n.length == 0 {
		n.length = len(icmp)
	}
	ip := make([]byte, 40)
	ip[0], ip[6], ip[7] = n.version<<4, n.next, n.hops
	binary.BigEndian.PutUint16(ip[4:], uint16(n.length))
	copy(ip[8:], n.source.AsSlice())
	copy(ip[24:], n.destination.AsSlice())
	f := ethernet.Frame{Destination: n.to, Source: n.from, VLAN: n.vlan, EtherType: n.etherType, Payload: append(ip, icmp...)}
	frame, err := f.MarshalBinary()
	if err != nil {
		panic(err)
	}
	return frame
}

func solicit(target netip.Addr, options ...mdndp.Option) mdndp.Message {
	return &mdndp.NeighborSolicitation{TargetAddress: target, Options: options}
}

func checksum6(source, destination netip.Addr, icmp []byte) uint16 {
	b := append(source.AsSlice(), destination.AsSlice()...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(icmp)))
	b = append(append(b, 0, 0, 0, 58), icmp...)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

var errNotNeighbour = errors.New("not a message of Neighbor Discovery")

func decode6(frame []byte) (said, error) {
	var f ethernet.Frame
	if err := f.UnmarshalBinary(frame); err != nil {
		return said{}, err
	}
	ip := f.Payload
	if len(ip) < 44 || ip[6] != 58 {
		return said{}, errNotNeighbour
	}
	icmp := ip[40:]
	if n := int(binary.BigEndian.Uint16(ip[4:])); n <= len(icmp) {
		icmp = icmp[:n]
	}
	source, destination := netip.AddrFrom16([16]byte(ip[8:])), netip.AddrFrom16([16]byte(ip[24:]))
	if sum := checksum6(source, destination, icmp); sum != 0 {
		return said{}, fmt.Errorf("wrong checksum")
	}
	m, err := mdndp.ParseMessage(icmp)
	if err != nil {
		return said{}, errors.Join(errNotNeighbour, err)
	}
	s := said{from: f.Source, to: f.Destination, toAddr: destination}
	head := fmt.Sprintf("%v > %v: %v > %v hops %d: ", f.Source, f.Destination, source, destination, ip[7])
	bit := map[bool]int{true: 1}
	switch m := m.(type) {
	case *mdndp.NeighborAdvertisement:
		s.addr, s.kind = m.TargetAddress, "answer"
		if destination == allNodes {
			s.kind = "announcement"
		}
		for _, o := range m.Options {
			if o, ok := o.(*mdndp.LinkLayerAddress); ok && o.Direction == mdndp.Target {
				s.mac = o.Addr
			}
		}
		s.text = head + fmt.Sprintf("advertisement S=%d O=%d R=%d %v is %v", bit[m.Solicited], bit[m.Override], bit[m.Router], s.addr, s.mac)
	case *mdndp.NeighborSolicitation:
		s.addr, s.kind = m.TargetAddress, "request"
		s.text = head + fmt.Sprintf("solicitation %v, %d options", s.addr, len(m.Options))
	default:
		return said{}, errNotNeighbour
	}
	return s, nil
}

// withOption appends bytes after the message.
func withOption(b ...byte) func(*neighbour6) {
	return func(n *neighbour6) { n.edit = func(icmp []byte) []byte { return append(icmp, b...) } }
}

var frames6 = []frameCase{
	{name: "solicitation, multicast", make: func(net.HardwareAddr) []byte { return ask6(vip6) }},
	{name: "solicitation, unicast, as for a stale entry", make: func(self net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) { n.to, n.destination = self, vip6 })
	}},
	{name: "solicitation, unicast, without the option, goes to where it came from", make: func(self net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) { n.to, n.destination, n.message = self, vip6, solicit(vip6) })
	}},
	{
		name: "detection of duplicates, all are told, RFC 4861 §7.2.4",
		make: func(net.HardwareAddr) []byte {
			return ask6(vip6, func(n *neighbour6) { n.source, n.message = netip.IPv6Unspecified(), solicit(vip6) })
		},
		answer: toAll6,
	},
	{name: "relayed by another machine, the answer goes to who asked", make: func(net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) { n.from = another })
	}},
	{name: "padded", make: func(net.HardwareAddr) []byte { return append(ask6(vip6), make([]byte, 40)...) }},
	{name: "with an unknown option", make: func(net.HardwareAddr) []byte {
		return ask6(vip6, withOption(200, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
	}},
	{name: "with an option of router advertisements that is too short for its kind", make: func(net.HardwareAddr) []byte {
		return ask6(vip6, withOption(3, 1, 0, 0, 0, 0, 0, 0))
	}},
	{name: "another address", drop: responder.DropNotOwned, filtered: true, make: func(net.HardwareAddr) []byte { return ask6(client6.Next()) }},
	{name: "the address before", drop: responder.DropNotOwned, filtered: true, make: func(net.HardwareAddr) []byte { return ask6(vip6.Prev()) }},
	{name: "the address after", drop: responder.DropNotOwned, filtered: true, make: func(net.HardwareAddr) []byte { return ask6(vip6.Next()) }},
	{name: "the same host part in another prefix", drop: responder.DropNotOwned, filtered: true, make: func(net.HardwareAddr) []byte {
		return ask6(netip.MustParseAddr("2001:db8:13::10"))
	}},
	{name: "another's announcement of our address", drop: responder.DropNotRequest, conflict: responder.MAC(0xb0), make: func(net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) { n.claim(vip6, responder.MAC(0xb0)) })
	}},
	{name: "another's answer for our address, without the option", drop: responder.DropNotRequest, conflict: responder.MAC(0xb1), make: func(self net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) {
			n.to, n.from, n.source, n.destination = self, responder.MAC(0xb1), vip6, client6
			n.message = &mdndp.NeighborAdvertisement{Solicited: true, TargetAddress: vip6}
		})
	}},
	{name: "another's solicitation from our address", drop: responder.DropNotOwned, conflict: responder.MAC(0xb2), make: func(net.HardwareAddr) []byte {
		return ask6(client6.Next(), func(n *neighbour6) {
			n.source, n.from = vip6, responder.MAC(0xb2)
			n.message = solicit(client6.Next(), &mdndp.LinkLayerAddress{Direction: mdndp.Source, Addr: responder.MAC(0xb2)})
		})
	}},
	{name: "solicited advertisement to a group", drop: responder.DropMalformed, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) {
			n.claim(vip6, another)
			n.message.(*mdndp.NeighborAdvertisement).Solicited = true
		})
	}},
	{name: "our own solicitation", drop: responder.DropOwn, make: func(self net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) { n.from = self })
	}},
	{name: "our own answer as a deputy", drop: responder.DropOwn, make: func(self net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) { n.claim(vip6, another); n.from = self })
	}},
	{name: "another node's answer as our deputy", drop: responder.DropOwn, make: func(self net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) { n.claim(vip6, self); n.from = another })
	}},
	{name: "to another machine", drop: responder.DropForeignDestination, filtered: true, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) { n.to = another })
	}},
	{name: "in a VLAN that is not here", drop: responder.DropForeignVLAN, filtered: true, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) { n.vlan = &ethernet.VLAN{ID: 7} })
	}},
	{name: "hop limit 254, possibly through a router", drop: ndp.DropHopLimit, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) { n.hops = 254 })
	}},
	{name: "wrong checksum", drop: ndp.DropChecksum, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) { n.damage = true })
	}},
	{name: "ICMP code 1", drop: responder.DropMalformed, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) { n.edit = func(icmp []byte) []byte { icmp[1] = 1; return icmp } })
	}},
	{name: "router solicitation", drop: ndp.DropNotNDP, filtered: true, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) { n.edit = func(icmp []byte) []byte { icmp[0] = 133; return icmp } })
	}},
	{name: "UDP", drop: ndp.DropNotNDP, filtered: true, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) { n.next = 17 })
	}},
	{name: "another EtherType", drop: ndp.DropNotNDP, filtered: true, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) { n.etherType = 0x88b5 })
	}},
	{name: "IP version 4", drop: responder.DropMalformed, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) { n.version = 4 })
	}},
	{name: "longer by its own account than it is", drop: responder.DropMalformed, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) { n.length = 1000 })
	}},
	{name: "target cut", drop: responder.DropMalformed, filtered: true, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) { n.edit = func(icmp []byte) []byte { return icmp[:20] } })
	}},
	{name: "multicast target", drop: ndp.DropBadTarget, filtered: true, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) { n.message = solicit(allNodes) })
	}},
	{name: "option of length zero", drop: ndp.DropBadOption, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, withOption(200, 0, 0, 0, 0, 0, 0, 0))
	}},
	{name: "option longer than the packet", drop: ndp.DropBadOption, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, withOption(200, 2, 0, 0, 0, 0, 0, 0))
	}},
	{name: "half an option", drop: ndp.DropBadOption, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, withOption(200, 1, 0, 0))
	}},
	{name: "MAC of fourteen bytes", drop: ndp.DropBadOption, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) {
			n.message = solicit(vip6)
			n.edit = func(icmp []byte) []byte { return append(icmp, append([]byte{1, 2}, make([]byte, 14)...)...) }
		})
	}},
	{name: "sender everybody", drop: responder.DropBadSender, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) {
			n.message = solicit(vip6, &mdndp.LinkLayerAddress{Direction: mdndp.Source, Addr: ethernet.Broadcast})
		})
	}},
	{name: "sender nobody", drop: responder.DropBadSender, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) {
			n.message = solicit(vip6, &mdndp.LinkLayerAddress{Direction: mdndp.Source, Addr: noMAC})
		})
	}},
	{name: "sender multicast", drop: responder.DropBadSender, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) { n.source = allNodes })
	}},
	{name: "detection of duplicates with a MAC, RFC 4861 §7.1.1", drop: responder.DropBadSender, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) { n.source = netip.IPv6Unspecified() })
	}},
	{name: "detection of duplicates to all nodes, RFC 4861 §7.1.1", drop: responder.DropBadSender, make: func(net.HardwareAddr) []byte {
		return ask6(vip6, func(n *neighbour6) {
			n.to, n.source, n.destination, n.message = allNodesMAC, netip.IPv6Unspecified(), allNodes, solicit(vip6)
		})
	}},
}
