package lab

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
)

func TestGap(t *testing.T) {
	start, failure := time.Unix(0, 0), errors.New("no answer")
	// made returns attempts at intervals of a second. S is a success.
	made := func(letters string) (a Attempts) {
		for i, l := range letters {
			one := Attempt{Start: start.Add(time.Duration(i) * time.Second)}
			if l != 'S' {
				one.Err = failure
			}
			a = append(a, one)
		}
		return a
	}
	for letters, want := range map[string]int{
		"":         0,
		"S":        0,
		"f":        0,
		"SSSS":     1,
		"SfffS":    4,
		"SSfSfffS": 4,
		"fffS":     3,
		"SfffSff":  4,
		"SfSfff":   3,
		"ffff":     3,
	} {
		if got := made(letters).Gap(); got != time.Duration(want)*time.Second {
			t.Errorf("%q: %v, want %d s", letters, got, want)
		}
	}
}

func TestPercentile(t *testing.T) {
	var d Durations
	for i := range 200 {
		d = append(d, time.Duration(200-i)*time.Millisecond)
	}
	for p, want := range map[float64]int{0: 1, 50: 100, 99: 198, 99.5: 199, 100: 200} {
		if got := d.Percentile(p); got != time.Duration(want)*time.Millisecond {
			t.Errorf("percentile %v: %v, want %d ms", p, got, want)
		}
	}
	if got, want := d.String(), "p50=100ms p99=198ms max=200ms n=200"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := (Durations{}).Percentile(50); got != 0 {
		t.Errorf("of none: %v", got)
	}
}

func TestSample(t *testing.T) {
	all := Addresses(Many4, 1000)
	if len(all) != 1000 || all[0] != netip.MustParseAddr("198.18.4.1") || all[999] != netip.MustParseAddr("198.18.7.232") {
		t.Fatalf("%d addresses, %v to %v", len(all), all[0], all[len(all)-1])
	}
	some := Sample(all, 20)
	if len(some) != 20 || some[0] != all[0] || some[19] != all[999] || len(slices.Compact(slices.Clone(some))) != 20 {
		t.Errorf("a sample of 20: %v", some)
	}
	if got := Sample(all[:3], 20); !slices.Equal(got, all[:3]) {
		t.Errorf("a sample of all: %v", got)
	}
}

func TestRunsAndOverlaps(t *testing.T) {
	macs := map[rune]net.HardwareAddr{'a': {2, 0, 0, 0, 0, 1}, 'b': {2, 0, 0, 0, 0, 2}}
	for letters, want := range map[string]struct{ runs, overlaps int }{
		"":           {0, 0},
		"a  a  a":    {1, 0},
		"a  a  b  b": {2, 0},
		"ab ab ab":   {6, 3},
		"a  ab b":    {2, 1},
		"a  b  a":    {3, 0},
	} {
		var claims []Claim
		for i, l := range letters {
			if l != ' ' {
				claims = append(claims, Claim{At: time.UnixMilli(int64(i)), Kind: Answer, MAC: macs[l]})
			}
		}
		claims = append(claims, Claim{At: time.UnixMilli(99), Kind: Announcement, MAC: macs['b']})
		heard := answers(claims)
		if r, o := runs(heard), overlaps(heard, time.Millisecond); len(r) != want.runs || len(o) != want.overlaps {
			t.Errorf("%q: runs %v, overlaps %v; want %d and %d", letters, r, o, want.runs, want.overlaps)
		}
	}
}

// advertisement returns a frame with a neighbour advertisement from the host 2001:db8::1.
func advertisement(t testing.TB, solicited bool, options ...ndp.Option) []byte {
	t.Helper()
	c := Client{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, IPv6: netip.MustParseAddr("2001:db8::1")}
	f, err := c.solicitation(c.IPv6)
	if err != nil {
		t.Fatal(err)
	}
	group := netip.AddrFrom16([16]byte(f.Payload[24:40]))
	if solicited { // An answer is sent to one host.
		group = netip.MustParseAddr("2001:db8::2")
		copy(f.Payload[24:], group.AsSlice())
	}
	m, err := ndp.MarshalMessageChecksum(&ndp.NeighborAdvertisement{
		TargetAddress: netip.MustParseAddr("2001:db8::99"), Solicited: solicited, Options: options,
	}, c.IPv6, group)
	if err != nil {
		t.Fatal(err)
	}
	f.Payload = append(f.Payload[:ipv6HeaderLen], m...)
	f.Payload[5] = byte(len(m))
	b, err := f.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAdvertisementsAreReadAsHostsReadThem(t *testing.T) {
	source, claimed := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 9}
	option := &ndp.LinkLayerAddress{Direction: ndp.Target, Addr: claimed}
	for name, c := range map[string]struct {
		frame []byte
		kind  ClaimKind
		mac   net.HardwareAddr
	}{
		"answer":                {advertisement(t, true, option), Answer, claimed},
		"announcement":          {advertisement(t, false, option), Announcement, claimed},
		"answer without option": {advertisement(t, true), Answer, source},
		"padded":                {append(advertisement(t, true, option), 0, 0, 0), Answer, claimed},
	} {
		got, ok := parseAdvertisement(c.frame)
		if !ok || got.Kind != c.kind || got.MAC.String() != c.mac.String() || got.Source.String() != source.String() || got.Addr.String() != "2001:db8::99" {
			t.Errorf("%s: %v, %t; want %s of %v", name, got, ok, c.kind, c.mac)
		}
	}
	for name, change := range map[string]func(frame []byte){
		"of another host's subnet": func(f []byte) { f[14+7] = 254 },
		"with a wrong checksum":    func(f []byte) { f[14+ipv6HeaderLen+2] ^= 1 },
		"with a code":              func(f []byte) { f[14+ipv6HeaderLen+1] = 1 },
		"longer than its frame":    func(f []byte) { f[14+5]++ },
		"a solicitation":           func(f []byte) { f[14+ipv6HeaderLen] = 135 },
	} {
		frame := advertisement(t, true, option)
		change(frame)
		if got, ok := parseAdvertisement(frame); ok {
			t.Errorf("an advertisement %s is read as %v", name, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	c := Client{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, IPv4: netip.MustParseAddr("192.0.2.1")}
	request, err := c.arpRequest(netip.MustParseAddr("192.0.2.2"))
	if err != nil {
		f.Fatal(err)
	}
	seed, err := request.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add(advertisement(f, true))
	f.Add(advertisement(f, false, &ndp.LinkLayerAddress{Direction: ndp.Target, Addr: c.MAC}))
	f.Fuzz(func(t *testing.T, frame []byte) {
		for _, parse := range []func([]byte) (Claim, bool){parseARP, parseAdvertisement} {
			claim, ok := parse(frame)
			if !ok {
				continue
			}
			var header ethernet.Frame
			if err := header.UnmarshalBinary(frame); err != nil || !claim.Addr.IsValid() || claim.Addr.IsMulticast() && claim.Addr.Is6() ||
				claim.Source.String() != header.Source.String() || len(claim.MAC) == 0 {
				t.Errorf("%v of %x", claim, frame)
			}
		}
	})
}
