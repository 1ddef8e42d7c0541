package bfd

import (
	"bytes"
	"testing"
	"time"
)

func wire(p packet) []byte {
	var b [packetSize]byte
	p.marshal(&b)
	return b[:]
}

func TestWire(t *testing.T) {
	// Encoded by hand according to RFC 5880 §4.1.
	p := packet{
		state: Up, diag: DiagNeighborDown, poll: true, multiplier: 3,
		mine: 0x01020304, yours: 0x05060708, desiredTx: 50 * ms, requiredRx: 300 * ms,
	}
	want := []byte{
		1<<5 | 3, 3<<6 | 1<<5, 3, 24, 1, 2, 3, 4, 5, 6, 7, 8,
		0, 0, 0xc3, 0x50, 0, 0x04, 0x93, 0xe0, 0, 0, 0, 0, // 50,000 and 300,000 µs
	}
	if got := wire(p); !bytes.Equal(got, want) {
		t.Errorf("%+v is\n%x, want\n%x", p, got, want)
	}
	p.poll, p.final, p.demand = false, true, true
	if got, want := wire(p)[1], byte(3<<6|1<<4|1<<1); got != want {
		t.Errorf("flags are %08b, want %08b", got, want)
	}
}

func TestParseRefuses(t *testing.T) {
	good := peer(Up)
	for _, c := range []struct {
		name string
		edit func(b []byte) []byte
		want Drop
	}{
		{"as it is", func(b []byte) []byte { return b }, Accepted},
		{"empty", func([]byte) []byte { return nil }, DropLength},
		{"short", func(b []byte) []byte { return b[:23] }, DropLength},
		{"trailing bytes", func(b []byte) []byte { return append(b, 1, 2, 3) }, Accepted},
		{"version 0", func(b []byte) []byte { b[0] = 0; return b }, DropVersion},
		{"version 2", func(b []byte) []byte { b[0] = 2 << 5; return b }, DropVersion},
		{"length too small", func(b []byte) []byte { b[3] = 23; return b }, DropLength},
		{"length beyond the end", func(b []byte) []byte { b[3] = 25; return b }, DropLength},
		{"multiplier 0", func(b []byte) []byte { b[2] = 0; return b }, DropMultiplier},
		{"multipoint", func(b []byte) []byte { b[1] |= 1; return b }, DropMultipoint},
		{"no discriminator", func(b []byte) []byte { clear(b[4:8]); return b }, DropDiscriminator},
		{"up without ours", func(b []byte) []byte { clear(b[8:12]); return b }, DropDiscriminator},
		{"down without ours", func(b []byte) []byte { clear(b[8:12]); b[1] = 1 << 6; return b }, Accepted},
		{"closed without ours", func(b []byte) []byte { clear(b[8:12]); b[1] = 0; return b }, Accepted},
		{"signed", func(b []byte) []byte { b[1] |= 4; b[3] = 28; return append(b, 1, 4, 1, 'x') }, DropAuthentication},
		{"signed without a signature", func(b []byte) []byte { b[1] |= 4; return b }, DropLength},
		{"an hour between packets", func(b []byte) []byte { b[12] = 0xff; return b }, DropInterval},
		{"receives one an hour", func(b []byte) []byte { b[16] = 0xff; return b }, DropInterval},
		{"receives none", func(b []byte) []byte { clear(b[16:20]); return b }, Accepted},
		{"echoes", func(b []byte) []byte { b[20] = 0xff; return b }, Accepted},
		{"control plane independent", func(b []byte) []byte { b[1] |= 8; return b }, Accepted},
	} {
		if _, got := parse(c.edit(wire(good))); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// FuzzParse checks that accepted packets satisfy the assumptions of the state machine, and that marshal reproduces the input.
func FuzzParse(f *testing.F) {
	f.Add(wire(peer(Up)))
	f.Add(wire(packet{state: Down, multiplier: 1, mine: 1, desiredTx: time.Second}))
	f.Add(append(wire(peer(Init)), 1, 2, 3, 4))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, drop := parse(b)
		if drop.String() == "" {
			t.Errorf("reason %d has no name", drop)
		}
		if drop != Accepted {
			return
		}
		if p.mine == 0 || p.multiplier == 0 || p.yours == 0 && p.state > Down || p.desiredTx > maxInterval || p.requiredRx > maxInterval {
			t.Errorf("%x is accepted as %+v", b, p)
		}
		again, drop := parse(wire(p))
		if drop != Accepted || again != p {
			t.Errorf("%+v was read again as %+v, %v", p, again, drop)
		}
		if p.state.String() == "" || p.diag.String() == "" {
			t.Errorf("%+v has no names", p)
		}
	})
}
