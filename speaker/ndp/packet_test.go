package ndp

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/heraldlb/herald/speaker/responder"
	"github.com/mdlayher/ndp"
	"golang.org/x/net/bpf"
)

var (
	self    = net.HardwareAddr{0x02, 0, 0x5e, 0, 0x53, 0x01}
	another = net.HardwareAddr{0x02, 0, 0x5e, 0, 0x53, 0xa0}
	client  = net.HardwareAddr{0x02, 0, 0x5e, 0, 0x53, 0xc1}

	vip      = netip.MustParseAddr("2001:db8:12::10")
	clientIP = netip.MustParseAddr("2001:db8:12::99")

	request = responder.Packet{Target: vip, Sender: clientIP, SenderMAC: client, Claimed: clientIP, ClaimedMAC: client}
	dad     = responder.Packet{Target: vip, Sender: netip.IPv6Unspecified(), SenderMAC: client}
)

// wire returns the frame that is written in hexadecimal, with spaces to make it readable.
func wire(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The frames byte by byte, except for the checksum, which is xxxx. The advertisements have the MAC in an
// option (0201), and these flags: 60000000 is solicited and override, 20000000 is override.
func TestFrames(t *testing.T) {
	const (
		ours      = "02005e005301"
		vip6      = "20010db8001200000000000000000010"
		client6   = "20010db8001200000000000000000099"
		all       = "ff020000000000000000000000000001"
		node      = "ff0200000000000000000001ff000010"
		any       = "00000000000000000000000000000000"
		advertise = "86dd 60000000 0020 3a ff"
		probe     = "86dd 60000000 0018 3a ff"
	)
	for _, c := range []struct {
		name string
		make func() ([]byte, error)
		want string
	}{
		{
			name: "answer", make: func() ([]byte, error) { return Protocol{}.Answer(self, self, request) },
			want: "02005e0053c1" + ours + advertise + vip6 + client6 + "8800 xxxx 60000000" + vip6 + "0201 02005e005301",
		},
		{
			name: "answer of a deputy: our source, the owner's MAC within", make: func() ([]byte, error) { return Protocol{}.Answer(self, another, request) },
			want: "02005e0053c1" + ours + advertise + vip6 + client6 + "8800 xxxx 60000000" + vip6 + "0201 02005e0053a0",
		},
		{
			name: "answer to detection of duplicates", make: func() ([]byte, error) { return Protocol{}.Answer(self, self, dad) },
			want: "333300000001" + ours + advertise + vip6 + all + "8800 xxxx 20000000" + vip6 + "0201 02005e005301",
		},
		{
			name: "announcement", make: func() ([]byte, error) { f, err := Protocol{}.Announce(self, vip); return f[0], err },
			want: "333300000001" + ours + advertise + vip6 + all + "8800 xxxx 20000000" + vip6 + "0201 02005e005301",
		},
		{
			name: "probe", make: func() ([]byte, error) { return Protocol{}.Probe(self, vip) },
			want: "3333ff000010" + ours + probe + any + node + "8700 xxxx 00000000" + vip6,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.make()
			if err != nil {
				t.Fatal(err)
			}
			want := wire(t, strings.ReplaceAll(c.want, "xxxx", hex.EncodeToString(got[56:58])))
			if !bytes.Equal(got, want) {
				t.Errorf("% x\nwant % x", got, want)
			}
			if checksum(got[22:54], got[54:]) != 0 {
				t.Error("wrong checksum")
			}
		})
	}
}

func TestAnAddressOfTheWrongLengthIsAnError(t *testing.T) {
	if _, err := (Protocol{}).Answer(self, self[:5], request); err == nil {
		t.Error("answered with five bytes")
	}
	if _, err := (Protocol{}).Announce(self, netip.MustParseAddr("198.18.0.1")); err == nil {
		t.Error("announced IPv4")
	}
}

// The checksum of RFC 4443 is the same as that of another implementation, also for an odd number of bytes.
func TestChecksum(t *testing.T) {
	for _, options := range [][]ndp.Option{nil, {&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: client}}} {
		icmp, err := ndp.MarshalMessageChecksum(&ndp.NeighborSolicitation{TargetAddress: vip, Options: options}, clientIP, vip)
		if err != nil {
			t.Fatal(err)
		}
		addresses := append(clientIP.AsSlice(), vip.AsSlice()...)
		if sum := checksum(addresses, icmp); sum != 0 {
			t.Errorf("%x left over", sum)
		}
		icmp[len(icmp)-1]++
		if checksum(addresses, icmp) == 0 {
			t.Error("a damaged message is taken")
		}
	}
	if a, b := checksum(nil, []byte{1, 2, 3}), checksum(nil, []byte{1, 2, 3, 0}); a != b+1 {
		t.Errorf("%x and %x; want a difference of the length only", a, b)
	}
}

// Every frame that Parse takes for a solicitation is a solicitation for another implementation, too. It
// passes the filter for its target. Parse reads the answer to it as a claim to the target.
func FuzzParse(f *testing.F) {
	for _, seed := range []func() ([]byte, error){
		func() ([]byte, error) { return Protocol{}.Answer(another, another, request) },
		func() ([]byte, error) { return Protocol{}.Answer(another, another, dad) },
		func() ([]byte, error) { return Protocol{}.Probe(another, vip) },
		func() ([]byte, error) {
			return frame(client, self, clientIP, vip, &ndp.NeighborSolicitation{
				TargetAddress: vip, Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: client}, ndp.NewNonce()},
			})
		},
	} {
		b, err := seed()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:70])
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		// Nearly all inputs would fail only because of their checksum.
		if len(frame) > 58 {
			if length := int(frame[18])<<8 | int(frame[19]); length >= 4 && len(frame) >= 54+length {
				frame[56], frame[57] = 0, 0
				sum := checksum(frame[22:54], frame[54:54+length])
				frame[56], frame[57] = byte(sum>>8), byte(sum)
			}
		}
		p, drop := Protocol{}.Parse(frame, self)
		if (drop == "") != p.Target.IsValid() {
			t.Fatalf("%+v dropped as %q", p, drop)
		}
		if p.Claimed.IsValid() {
			if isGroup(p.ClaimedMAC) || bytes.Equal(p.ClaimedMAC, self) {
				t.Fatalf("% x claims %v at %v", frame, p.Claimed, p.ClaimedMAC)
			}
			checkFilter(t, frame, p.Claimed)
		}
		if drop != "" {
			return
		}
		m, err := ndp.ParseMessage(frame[54:78])
		if s, ok := m.(*ndp.NeighborSolicitation); !ok || s.TargetAddress != p.Target || frame[21] != 255 {
			t.Fatalf("% x asks for %v: %v", frame, p.Target, err)
		}
		checkFilter(t, frame, p.Target)
		answer, err := Protocol{}.Answer(self, another, p)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(answer[6:12], self) || isGroup(answer) != p.Sender.IsUnspecified() || answer[58]&0x20 == 0 {
			t.Fatalf("% x answered by % x", frame, answer)
		}
		if !(Protocol{}).Supports(p.Target) {
			return // the Responder does not answer for it
		}
		got, drop := Protocol{}.Parse(answer, p.SenderMAC)
		if own := bytes.Equal(p.SenderMAC, another) || bytes.Equal(p.SenderMAC, self); own != (drop == responder.DropOwn) ||
			!own && (drop != responder.DropNotRequest || got.Claimed != p.Target || !bytes.Equal(got.ClaimedMAC, another)) {
			t.Fatalf("answer % x read as %+v, %q", answer, got, drop)
		}
	})
}

func checkFilter(t *testing.T, frame []byte, addr netip.Addr) {
	t.Helper()
	vm, err := bpf.NewVM(Protocol{}.Filter([]netip.Addr{addr}))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := vm.Run(frame); err != nil || n == 0 {
		t.Fatalf("the filter for %v rejects % x: %v", addr, frame, err)
	}
}
