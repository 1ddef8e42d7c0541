package arp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"go.uber.org/zap"
)

// frames are what may come from the wire. The same table is fed to the handler and sent over a
// cable: self is the MAC of the interface that owns vip.
var frames = []struct {
	name string
	make func(self net.HardwareAddr) []byte
	drop Drop
	// filtered: the socket's filter keeps it from the process.
	filtered bool
	// target is where the answer goes, if not to client and clientIP.
	targetIP netip.Addr
}{
	{name: "request", make: func(net.HardwareAddr) []byte { return ask(vip) }},
	{name: "unicast request, as for a stale entry", make: func(self net.HardwareAddr) []byte {
		return ask(vip, func(f *ethernet.Frame, p *arp.Packet) { f.Destination = self; p.TargetHardwareAddr = self })
	}},
	{name: "probe is defended against, RFC 5227 §2.1.1", targetIP: netip.IPv4Unspecified(), make: func(net.HardwareAddr) []byte {
		return ask(vip, func(_ *ethernet.Frame, p *arp.Packet) { p.SenderIP = netip.IPv4Unspecified() })
	}},
	{name: "relayed by another machine, the answer goes to who asked", make: func(net.HardwareAddr) []byte {
		return ask(vip, func(f *ethernet.Frame, _ *arp.Packet) { f.Source = another })
	}},
	{name: "more than an ARP packet needs", make: func(net.HardwareAddr) []byte {
		return append(ask(vip), make([]byte, 500)...)
	}},
	{name: "another address", drop: DropNotOwned, filtered: true, make: func(net.HardwareAddr) []byte { return ask(clientIP.Next()) }},
	{name: "the address before", drop: DropNotOwned, filtered: true, make: func(net.HardwareAddr) []byte { return ask(vip.Prev()) }},
	{name: "the address after", drop: DropNotOwned, filtered: true, make: func(net.HardwareAddr) []byte { return ask(vip.Next()) }},
	{name: "reply", drop: DropNotRequest, make: func(net.HardwareAddr) []byte {
		return ask(vip, func(_ *ethernet.Frame, p *arp.Packet) { p.Operation = arp.OperationReply })
	}},
	{name: "reverse ARP", drop: DropNotRequest, make: func(net.HardwareAddr) []byte {
		return ask(vip, func(_ *ethernet.Frame, p *arp.Packet) { p.Operation = 3 })
	}},
	{name: "another's announcement of our address", drop: DropAnnouncement, make: func(net.HardwareAddr) []byte {
		return ask(vip, func(_ *ethernet.Frame, p *arp.Packet) { p.SenderIP = vip })
	}},
	{name: "our own request", drop: DropOwn, make: func(self net.HardwareAddr) []byte {
		return ask(vip, func(f *ethernet.Frame, p *arp.Packet) { f.Source = self; p.SenderHardwareAddr = self })
	}},
	{name: "to another machine", drop: DropForeignDestination, filtered: true, make: func(net.HardwareAddr) []byte {
		return ask(vip, func(f *ethernet.Frame, _ *arp.Packet) { f.Destination = another })
	}},
	{name: "in a VLAN that is not here", drop: DropForeignVLAN, filtered: true, make: func(net.HardwareAddr) []byte {
		return ask(vip, func(f *ethernet.Frame, _ *arp.Packet) { f.VLAN = &ethernet.VLAN{ID: 7} })
	}},
	{name: "sender everybody", drop: DropBadSender, make: func(net.HardwareAddr) []byte {
		return ask(vip, func(_ *ethernet.Frame, p *arp.Packet) { p.SenderHardwareAddr = ethernet.Broadcast })
	}},
	{name: "sender nobody", drop: DropBadSender, make: func(net.HardwareAddr) []byte {
		return ask(vip, func(_ *ethernet.Frame, p *arp.Packet) { p.SenderHardwareAddr = zero })
	}},
	{name: "sender 255.255.255.255", drop: DropBadSender, make: func(net.HardwareAddr) []byte {
		return ask(vip, func(_ *ethernet.Frame, p *arp.Packet) { p.SenderIP = broadcast4 })
	}},
	{name: "sender multicast", drop: DropBadSender, make: func(net.HardwareAddr) []byte {
		return ask(vip, func(_ *ethernet.Frame, p *arp.Packet) { p.SenderIP = netip.MustParseAddr("224.0.0.18") })
	}},
	{name: "hardware type of token ring", drop: DropNotEthernetIPv4, make: func(net.HardwareAddr) []byte {
		return ask(vip, func(_ *ethernet.Frame, p *arp.Packet) { p.HardwareType = 6 })
	}},
	{name: "protocol type of IPv6", drop: DropNotEthernetIPv4, make: func(net.HardwareAddr) []byte {
		return ask(vip, func(_ *ethernet.Frame, p *arp.Packet) { p.ProtocolType = uint16(ethernet.EtherTypeIPv6) })
	}},
	{name: "hardware addresses of eight bytes", drop: DropNotEthernetIPv4, make: func(net.HardwareAddr) []byte {
		f := ask(vip)
		f[14+4] = 8
		return f
	}},
	{name: "protocol addresses of sixteen bytes", drop: DropNotEthernetIPv4, make: func(net.HardwareAddr) []byte {
		f := append(ask(vip), make([]byte, 64)...)
		f[14+5] = 16
		return f
	}},
	{name: "protocol addresses of three bytes", drop: DropMalformed, make: func(net.HardwareAddr) []byte {
		f := ask(vip)
		f[14+5] = 3
		return f
	}},
	{name: "longer by its own account than it is", drop: DropMalformed, make: func(net.HardwareAddr) []byte {
		f := ask(vip)
		f[14+4] = 255
		return f
	}},
	{name: "cut within the target", drop: DropMalformed, filtered: true, make: func(net.HardwareAddr) []byte { return ask(vip)[:targetOffset+3] }},
	{name: "another EtherType", drop: DropNotEthernetIPv4, filtered: true, make: func(net.HardwareAddr) []byte {
		return ask(vip, func(f *ethernet.Frame, _ *arp.Packet) { f.EtherType = 0x88b5 })
	}},
}

func wantAnswer(self net.HardwareAddr, to netip.Addr) string {
	if !to.IsValid() {
		to = clientIP
	}
	return fmt.Sprintf("%v > %v: reply %v is %v, to %v %v", self, client, vip, self, to, client)
}

func TestHandle(t *testing.T) {
	self := net.HardwareAddr{0x02, 0, 0x5e, 0, 0x53, 0x01}
	for _, c := range frames {
		t.Run(c.name, func(t *testing.T) {
			r, l, s, wire := standing(t, self, vip)
			if drop := r.handle(l, s, c.make(self)); drop != c.drop {
				t.Fatalf("dropped as %q, want %q", drop, c.drop)
			}
			var got, want []string
			for _, out := range wire.taken() {
				got = append(got, describe(out.eth, out.p))
			}
			if c.drop == "" {
				want = []string{wantAnswer(self, c.targetIP)}
			}
			if !slices.Equal(got, want) {
				t.Errorf("sent %q, want %q", got, want)
			}
			if n := r.Stats()[0].Dropped[c.drop]; c.drop != "" && n != 1 {
				t.Errorf("counted %d as %q", n, c.drop)
			}
		})
	}
}

// standing is a responder, not running, whose interface eth0 is open on a segment.
func standing(t testing.TB, self net.HardwareAddr, owned ...netip.Addr) (*Responder, *link, *station, *segment) {
	r, wire := New(zap.NewNop(), Options{}), newSegment()
	r.SetInterfaces([]Interface{{Name: "eth0", Index: 1, MAC: self, Up: true}})
	for _, a := range owned {
		r.Set(a, []string{"eth0"})
	}
	conn, err := wire.listen(Interface{Name: "eth0"}, program(spans(owned, maxSpans)))
	if err != nil {
		t.Fatal(err)
	}
	l := r.link("eth0")
	l.station = &station{conn: conn, self: self, epoch: l.epoch}
	return r, l, l.station, wire
}

// The table again, over a cable, through the kernel's filter and into a running responder.
func TestHandleOnTheWire(t *testing.T) {
	far, self := cable(t, "eth0")
	socket := listenOn(t, far, "eth0-peer")
	r := New(zap.NewNop(), quiet)
	r.SetInterfaces(interfaces(t, "eth0"))
	r.Set(vip, []string{"eth0"})
	start(t, r)
	eventually(t, func() bool { return r.Stats()[0].Serving })

	// A control request follows each frame. Its answer, known by its target, comes after the
	// one to the frame, so an answer that is missing need not be waited for.
	control := netip.MustParseAddr("198.18.0.77")
	probe := ask(vip, func(_ *ethernet.Frame, p *arp.Packet) { p.SenderIP = control })
	for _, c := range frames {
		t.Run(c.name, func(t *testing.T) {
			frame := c.make(self)
			before := r.Stats()[0].Dropped
			for _, f := range [][]byte{frame, probe} {
				if _, err := socket.WriteTo(f, &packet.Addr{HardwareAddr: ethernet.Broadcast}); err != nil {
					t.Fatal(err)
				}
			}
			var got, want []string
			for {
				eth, p := receive(t, socket, isFrom(self))
				if p.TargetIP == control {
					break
				}
				// The kernel of this side may have questions of its own.
				if p.SenderIP == vip {
					got = append(got, describe(eth, p))
				}
			}
			if c.drop == "" {
				want = []string{wantAnswer(self, c.targetIP)}
			}
			if !slices.Equal(got, want) {
				t.Errorf("answered %q, want %q", got, want)
			}
			after := r.Stats()[0].Dropped
			for drop, n := range after {
				expected := before[drop]
				if drop == c.drop && !c.filtered {
					expected++
				}
				if n != expected {
					t.Errorf("counted %d frames as %q, want %d", n, drop, expected)
				}
			}
			if c.drop != "" && !c.filtered && after[c.drop] == 0 {
				t.Errorf("not counted as %q", c.drop)
			}
		})
	}
}

// A macvlan's MAC is another machine's as far as the interface below is concerned, but the kernel
// shows its frames to sockets on both.
func TestTheInterfaceBelowDoesNotAnswerForTheOneOnTop(t *testing.T) {
	far, self := cable(t, "eth0")
	if err := (enclave.Host{}).Script("ip link add link eth0 name mv0 type macvlan mode bridge; ip link set mv0 up"); err != nil {
		t.Skip("this kernel has no macvlan: ", err)
	}
	socket := listenOn(t, far, "eth0-peer")
	r := New(zap.NewNop(), quiet)
	all := interfaces(t, "eth0", "mv0")
	r.SetInterfaces(all)
	r.Set(vip, []string{"eth0"})
	r.Set(vip2, []string{"mv0"})
	start(t, r)
	eventually(t, func() bool { s := r.Stats(); return s[0].Serving && s[1].Serving })
	top := all[1].MAC
	for _, f := range [][]byte{
		ask(vip, func(f *ethernet.Frame, _ *arp.Packet) { f.Destination = top }), // nobody's
		ask(vip2, func(f *ethernet.Frame, _ *arp.Packet) { f.Destination = top }),
	} {
		if _, err := socket.WriteTo(f, &packet.Addr{HardwareAddr: top}); err != nil {
			t.Fatal(err)
		}
	}
	eth, p := receive(t, socket, func(f ethernet.Frame) bool { return isFrom(top)(f) || isFrom(self)(f) })
	if p.SenderIP != vip2 || !isFrom(top)(eth) {
		t.Errorf("answer: %s", describe(eth, p))
	}
	if s := r.Stats()[0]; s.Interface != "eth0" || s.Answered != 0 || len(s.Dropped) != 0 {
		t.Errorf("eth0 saw what was the macvlan's: %+v", s)
	}
}

// receive returns the next ARP packet that matches; others are skipped.
func receive(t testing.TB, socket *packet.Conn, match func(ethernet.Frame) bool) (ethernet.Frame, arp.Packet) {
	t.Helper()
	if err := socket.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	for {
		n, _, err := socket.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("no answer")
		}
		if err != nil {
			t.Fatal(err)
		}
		eth, p := decode(t, buf[:n])
		if match(eth) {
			return eth, p
		}
	}
}

func FuzzHandle(f *testing.F) {
	self := net.HardwareAddr{0x02, 0, 0x5e, 0, 0x53, 0x01}
	for _, c := range frames {
		f.Add(c.make(self))
	}
	r, l, s, wire := standing(f, self, vip)
	f.Fuzz(func(t *testing.T, frame []byte) {
		drop := r.handle(l, s, frame)
		out := wire.taken()
		if (drop == "") != (len(out) == 1) {
			t.Fatalf("dropped as %q and sent %d frames", drop, len(out))
		}
		if drop != "" {
			return
		}
		// What is answered is a request by RFC 826, for vip, read at the fixed places of Ethernet and IPv4 ...
		if string(frame[12:22]) != "\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01" || netip.AddrFrom4([4]byte(frame[38:42])) != vip {
			t.Fatalf("answered % x", frame)
		}
		// ... and goes to one machine, who asked.
		eth, p := out[0].eth, out[0].p
		who := net.HardwareAddr(frame[22:28])
		if isGroup(who) || eth.Destination.String() != who.String() || p.TargetHardwareAddr.String() != who.String() ||
			p.SenderIP != vip || p.SenderHardwareAddr.String() != self.String() || p.TargetIP != netip.AddrFrom4([4]byte(frame[28:32])) {
			t.Fatalf("% x answered by %s", frame, describe(eth, p))
		}
	})
}
