package arp

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/heraldlb/herald/speaker/responder"
	"golang.org/x/net/bpf"
)

var (
	self    = net.HardwareAddr{0x02, 0, 0x5e, 0, 0x53, 0x01}
	another = net.HardwareAddr{0x02, 0, 0x5e, 0, 0x53, 0xa0}
	client  = net.HardwareAddr{0x02, 0, 0x5e, 0, 0x53, 0xc1}

	vip      = netip.MustParseAddr("198.18.0.10")
	clientIP = netip.MustParseAddr("198.18.0.99")

	request = responder.Packet{Target: vip, Sender: clientIP, SenderMAC: client, Claimed: clientIP, ClaimedMAC: client}
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

// The frames byte by byte, without the padding of Ethernet to 60 bytes.
func TestFrames(t *testing.T) {
	const head = "0806 0001 0800 06 04"
	first := func(all [][]byte, err error) ([]byte, error) { return all[0], err }
	second := func(all [][]byte, err error) ([]byte, error) { return all[1], err }
	for _, c := range []struct {
		name string
		make func() ([]byte, error)
		want string
	}{
		{
			name: "answer", make: func() ([]byte, error) { return Protocol{}.Answer(self, self, request) },
			want: "02005e0053c1 02005e005301" + head + "0002 02005e005301 c612000a 02005e0053c1 c6120063",
		},
		{
			name: "answer of a deputy: our source, the owner's MAC within", make: func() ([]byte, error) { return Protocol{}.Answer(self, another, request) },
			want: "02005e0053c1 02005e005301" + head + "0002 02005e0053a0 c612000a 02005e0053c1 c6120063",
		},
		{
			name: "announcement as a request", make: func() ([]byte, error) { return first(Protocol{}.Announce(self, vip)) },
			want: "ffffffffffff 02005e005301" + head + "0001 02005e005301 c612000a 000000000000 c612000a",
		},
		{
			name: "announcement as a reply", make: func() ([]byte, error) { return second(Protocol{}.Announce(self, vip)) },
			want: "ffffffffffff 02005e005301" + head + "0002 02005e005301 c612000a 02005e005301 c612000a",
		},
		{
			name: "probe", make: func() ([]byte, error) { return Protocol{}.Probe(self, vip) },
			want: "ffffffffffff 02005e005301" + head + "0001 02005e005301 00000000 000000000000 c612000a",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.make()
			want := wire(t, c.want)
			if err != nil || len(got) != 60 || !bytes.Equal(got[:len(want)], want) || len(bytes.Trim(got[len(want):], "\x00")) != 0 {
				t.Errorf("% x, %v\nwant % x", got, err, want)
			}
		})
	}
}

func TestAnAddressOfTheWrongLengthIsAnError(t *testing.T) {
	if _, err := (Protocol{}).Answer(self, self[:5], request); err == nil {
		t.Error("answered with five bytes")
	}
	if _, err := (Protocol{}).Announce(self, netip.MustParseAddr("2001:db8::1")); err == nil {
		t.Error("announced IPv6")
	}
}

func TestFilterRejectsFramesThatEndBeforeTheTarget(t *testing.T) {
	vm, err := bpf.NewVM(Protocol{}.Filter([]netip.Addr{netip.IPv4Unspecified()}))
	if err != nil {
		t.Fatal(err)
	}
	for length, want := range map[int]bool{0: false, 14: false, targetOffset + 3: false, targetOffset + 4: true, 60: true} {
		if n, err := vm.Run(make([]byte, length)); err != nil || (n > 0) != want {
			t.Errorf("%d bytes: %d, %v", length, n, err)
		}
	}
}

// Every frame that Parse takes for a request is a request by RFC 826, when read at the fixed offsets of
// Ethernet and IPv4. It passes the filter for its target. Parse reads the answer to it as a claim to the
// target.
func FuzzParse(f *testing.F) {
	for _, seed := range []func() ([]byte, error){
		func() ([]byte, error) { return Protocol{}.Answer(another, another, request) },
		func() ([]byte, error) { return Protocol{}.Probe(another, vip) },
		func() ([]byte, error) { return frame(client, self, 1, client, clientIP, zero, vip) },
		func() ([]byte, error) { all, err := Protocol{}.Announce(another, vip); return all[0], err },
		func() ([]byte, error) { all, err := Protocol{}.Announce(another, vip); return all[1], err },
	} {
		b, err := seed()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:40])
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		p, drop := Protocol{}.Parse(frame, self)
		if (drop == "") != p.Target.IsValid() {
			t.Fatalf("%+v dropped as %q", p, drop)
		}
		if p.Claimed.IsValid() {
			if string(frame[12:20]) != "\x08\x06\x00\x01\x08\x00\x06\x04" || p.Claimed != netip.AddrFrom4([4]byte(frame[28:32])) ||
				!bytes.Equal(p.ClaimedMAC, frame[22:28]) || p.Claimed.IsUnspecified() {
				t.Fatalf("% x claims %v at %v", frame, p.Claimed, p.ClaimedMAC)
			}
			checkFilter(t, frame, p.Claimed)
		}
		if drop != "" {
			return
		}
		if string(frame[12:22]) != "\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01" || p.Target != netip.AddrFrom4([4]byte(frame[38:42])) {
			t.Fatalf("% x asks for %v", frame, p.Target)
		}
		checkFilter(t, frame, p.Target)
		// The answer goes only to the machine that asked, and comes from our MAC.
		answer, err := Protocol{}.Answer(self, another, p)
		if err != nil {
			t.Fatal(err)
		}
		if isGroup(answer) || !bytes.Equal(answer[:6], frame[22:28]) || !bytes.Equal(answer[6:12], self) {
			t.Fatalf("% x answered by % x", frame, answer)
		}
		if !(Protocol{}).Supports(p.Target) {
			return // the Responder does not answer for it
		}
		got, drop := Protocol{}.Parse(answer, p.SenderMAC)
		if own := bytes.Equal(p.SenderMAC, another); own != (drop == responder.DropOwn) ||
			!own && (drop != responder.DropNotRequest && drop != DropAnnouncement || got.Claimed != p.Target || !bytes.Equal(got.ClaimedMAC, another)) {
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
