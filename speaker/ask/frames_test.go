package ask

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
)

var eth0 = Interface{Name: "eth0", Index: 1, MAC: mac(1), Addresses: []netip.Prefix{
	netip.MustParsePrefix("203.0.113.1/24"), netip.MustParsePrefix("198.18.0.1/24"), netip.MustParsePrefix("2001:db8:1::1/64"), netip.MustParsePrefix("2001:db8::1/64"),
}}

func TestSource(t *testing.T) {
	none := Interface{}
	for _, c := range []struct {
		of             *Interface
		target, source string
	}{
		{&eth0, "198.18.0.9", "198.18.0.1"},
		{&eth0, "192.0.2.1", "203.0.113.1"},
		{&eth0, "2001:db8::9", "2001:db8::1"},
		{&eth0, "2001:db8:2::9", "2001:db8:1::1"},
		{&none, "198.18.0.9", "0.0.0.0"},
		{&none, "2001:db8::9", "::"},
	} {
		if got := c.of.source(addr(c.target)); got != addr(c.source) {
			t.Errorf("%s is asked for from %s, want %s", c.target, got, c.source)
		}
	}
}

// answered returns the answer of a well-behaved machine: from mac(2), for itself.
func answered(t testing.TB, address string, edits ...func([]byte)) []byte {
	t.Helper()
	a := addr(address)
	var payload []byte
	kind, to := ethernet.EtherTypeARP, eth0.MAC
	if a.Is4() {
		p, err := arp.NewPacket(arp.OperationReply, mac(2), a, eth0.MAC, addr("198.18.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		if payload, err = p.MarshalBinary(); err != nil {
			t.Fatal(err)
		}
	} else {
		kind = ethernet.EtherTypeIPv6
		self := addr("2001:db8::1")
		body, err := ndp.MarshalMessageChecksum(&ndp.NeighborAdvertisement{
			Solicited: true, Override: true, TargetAddress: a, Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: mac(2)}},
		}, a, self)
		if err != nil {
			t.Fatal(err)
		}
		payload = append([]byte{6 << 4, 0, 0, 0, 0, byte(len(body)), protocolICMPv6, 255}, a.AsSlice()...)
		payload = append(append(payload, self.AsSlice()...), body...)
	}
	b, err := frame(to, mac(2), kind, payload)
	if err != nil {
		t.Fatal(err)
	}
	for _, edit := range edits {
		edit(b)
	}
	return b
}

func TestAnswers(t *testing.T) {
	set := func(at int, value ...byte) func([]byte) { return func(b []byte) { copy(b[at:], value) } }
	const v4, v6 = "198.18.0.9", "2001:db8::9"
	const icmp = 14 + ipv6HeaderLength
	vlan := func(b []byte) []byte { return slices.Concat(b[:12], []byte{0x81, 0, 0, 7}, b[12:]) }
	for _, c := range []struct {
		name  string
		frame []byte
		want  string // the MAC address in the answer; empty: it is not an answer
	}{
		{"a reply", answered(t, v4), mac(2).String()},
		{"a reply on behalf of another", answered(t, v4, set(14+8, mac(3)...)), mac(3).String()},
		{"a request from the address", answered(t, v4, set(14+6, 0, 1)), mac(2).String()},
		{"another operation", answered(t, v4, set(14+6, 0, 3)), ""},
		{"other hardware", answered(t, v4, set(14, 0, 6)), ""},
		{"another protocol", answered(t, v4, set(14+2, 0x86, 0xdd)), ""},
		{"hardware addresses of another length", answered(t, v4, set(14+4, 4)), ""},
		{"a tag", vlan(answered(t, v4)), ""},
		{"another type", answered(t, v4, set(12, 0x08, 0)), ""},
		{"too short", answered(t, v4)[:30], ""},
		{"an advertisement", answered(t, v6), mac(2).String()},
		{"an advertisement for another", answered(t, v6, set(icmp+26, mac(3)...)), mac(3).String()},
		{"without the option", answered(t, v6, set(14+4, 0, 24)), mac(2).String()},
		{"the source's option", answered(t, v6, set(icmp+24, 1)), mac(2).String()},
		{"a solicitation", answered(t, v6, set(icmp, 135)), ""},
		{"a router advertisement", answered(t, v6, set(icmp, 134)), ""},
		{"another code", answered(t, v6, set(icmp+1, 1)), ""},
		{"from beyond a router", answered(t, v6, set(14+7, 64)), ""},
		{"another next header", answered(t, v6, set(14+6, 0)), ""},
		{"of another version", answered(t, v6, set(14, 0x40)), ""},
		{"longer than it is", answered(t, v6, set(14+4, 0xff, 0xff)), ""},
		{"without a body", answered(t, v6, set(14+4, 0, 0)), ""},
		{"an option without end", answered(t, v6, set(icmp+25, 0)), ""},
		{"a tagged one", vlan(answered(t, v6)), ""},
		{"no frame", nil, ""},
	} {
		address, got, ok := arpAnswer(c.frame)
		want := addr(v4)
		if !ok {
			address, got, ok = ndpAnswer(c.frame)
			want = addr(v6)
		}
		switch {
		case ok != (c.want != ""):
			t.Errorf("%s: taken for an answer: %v", c.name, ok)
		case ok && (address != want || got.String() != c.want):
			t.Errorf("%s: %s is at %s, want %s at %s", c.name, address, got, want, c.want)
		}
	}
}

// TestQuestions reads the questions with the packages that wrote them. It reads by hand what these packages leave to callers.
func TestQuestions(t *testing.T) {
	var f ethernet.Frame
	b, err := ndpQuestion(&eth0, addr("2001:db8::aa:bbcc"))
	must(t, err)
	must(t, f.UnmarshalBinary(b))
	if f.Destination.String() != "33:33:ff:aa:bb:cc" || f.Source.String() != mac(1).String() {
		t.Errorf("from %s to %s", f.Source, f.Destination)
	}
	p := f.Payload
	if got := int(binary.BigEndian.Uint16(p[4:])); got != len(p)-ipv6HeaderLength {
		t.Errorf("payload length %d of %d bytes", got, len(p)-ipv6HeaderLength)
	}
	if netip.AddrFrom16([16]byte(p[8:24])) != addr("2001:db8::1") || netip.AddrFrom16([16]byte(p[24:40])) != addr("ff02::1:ffaa:bbcc") {
		t.Errorf("from %x to %x", p[8:24], p[24:40])
	}
	if _, err := ndpQuestion(&eth0, addr("198.18.0.9")); err == nil {
		t.Error("NDP asks for an IPv4 address")
	}
	if _, err := arpQuestion(&eth0, addr("2001:db8::9")); err == nil {
		t.Error("ARP asks for an IPv6 address")
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(answered(f, "198.18.0.9"))
	f.Add(answered(f, "2001:db8::9"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if address, mac, ok := arpAnswer(frame); ok && (!address.Is4() || len(mac) != 6) {
			t.Errorf("%s is at %s", address, mac)
		}
		if address, mac, ok := ndpAnswer(frame); ok && (!address.Is6() || len(mac) != 6) {
			t.Errorf("%s is at %s", address, mac)
		}
	})
}
