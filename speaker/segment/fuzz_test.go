package segment

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// examples returns one frame of each kind, and for some kinds a second one of another size.
func examples(t testing.TB) (w *world, frames [][]byte) {
	w = newWorld(t, 3, 1)
	for _, h := range w.nodes {
		h.start()
	}
	w.want(vips(3), nil, w.nodes...)
	w.run(time.Second)
	h := w.nodes[1]
	claims := []change{{addr: vips(1)[0], term: 4}, {addr: netip.MustParseAddr("2001:db8::1"), term: 1 << 40}}
	frames = [][]byte{
		beat{id: h.m.id, chain: 1, index: 90, secret: h.m.chain.links[90], state: 3, claims: 4}.encode(),
		ask{id: h.m.id, claims: 3, page: 1}.encode(),
		suspect{id: h.m.id, chain: 1, index: 3}.encode(),
		h.forge(kindHello, nil, hello{
			state: 9, claims: 4, flags: flagServing, period: 100, chain: 1, length: maxChain, index: 90, secret: h.m.chain.links[90], ifname: "eth0",
			prefixes: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/24"), netip.MustParsePrefix("2001:db8::1/64")}, hears: []uint64{1, 2},
		}.encode),
		h.forge(kindHello, nil, hello{period: 1000}.encode),
		h.forge(kindUpdate, nil, update{from: h.m.claims, to: h.m.claims + 1, changes: append(claims, change{addr: vips(2)[1], notWanted: true})}.encode),
		h.forge(kindUpdate, nil, update{from: 1, to: 2, all: true}.encode),
		h.forge(kindPage, nil, page{claims: 77, page: 0, pages: 2, entries: claims}.encode),
		h.forge(kindFormer, nil, former{boot: w.nodes[0].boot, entries: claims}.encode),
	}
	return w, frames
}

// again encodes a frame that was read.
func again(k kind, r *reader) ([]byte, error) {
	w := begin(k)
	if !k.signed() {
		switch k {
		case kindBeat:
			b, err := r.beat()
			return b.encode(), err
		case kindAsk:
			a, err := r.ask()
			return a.encode(), err
		case kindSuspect:
			s, err := r.suspect()
			return s.encode(), err
		}
		return nil, errMalformed
	}
	e := r.envelope()
	if r.failed || len(r.b) < signatureSize {
		return nil, errMalformed
	}
	w.envelope(e)
	signature := r.b[len(r.b)-signatureSize:]
	r.b = r.b[:len(r.b)-signatureSize]
	var err error
	switch k {
	case kindHello:
		var h hello
		h, err = r.hello()
		h.encode(&w)
	case kindUpdate:
		var u update
		u, err = r.update()
		u.encode(&w)
	case kindPage:
		var p page
		p, err = r.page()
		p.encode(&w)
	case kindFormer:
		var f former
		f, err = r.former()
		f.encode(&w)
	}
	return append(w, signature...), err
}

// FuzzFrame: a frame that can be read is encoded to the same bytes.
func FuzzFrame(f *testing.F) {
	_, frames := examples(f)
	for _, frame := range frames {
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		k, r, err := open(frame)
		if err != nil {
			return
		}
		got, err := again(k, r)
		if err == nil && !bytes.Equal(got, frame) {
			t.Fatalf("read  %x\nwrote %x", frame, got)
		}
	})
}

func TestFramesRoundTrip(t *testing.T) {
	_, frames := examples(t)
	for _, frame := range frames {
		k, r, err := open(frame)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := again(k, r); err != nil || !bytes.Equal(got, frame) {
			t.Errorf("%v: %v\nread  %x\nwrote %x", k, err, frame, got)
		}
	}
}

func FuzzReadDatagram(f *testing.F) {
	four := Interface{MAC: MAC{2, 0, 0, 0, 0, 1}, Prefixes: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/24")}}
	six := Interface{MAC: four.MAC, Prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8::1/64")}}
	for _, i := range []Interface{four, six} {
		f.Add(datagram(i, MAC{}, []byte("payload")))
		f.Add(datagram(i, MAC{4}, nil))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		from, payload, drop := readDatagram(frame)
		if drop != "" {
			return
		}
		if len(payload) > len(frame)-etherSize-ipv4Size-udpSize {
			t.Fatal("longer than it came")
		}
		if len(payload) > maxFrame {
			return
		}
		i := four
		i.MAC = from
		if f, p, d := readDatagram(datagram(i, MAC{}, payload)); f != from || !bytes.Equal(p, payload) || d != "" {
			t.Fatalf("%v %x %q, want %v %x", f, p, d, from, payload)
		}
	})
}

func FuzzReadAnswer(f *testing.F) {
	i := Interface{MAC: MAC{2, 0, 0, 0, 0, 1}, Prefixes: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/24")}}
	request := question(i, Probe{Addr: netip.MustParseAddr("198.18.0.2"), MAC: MAC{4}})
	reply := bytes.Clone(request)
	reply[etherSize+7] = 2
	f.Add(request)
	f.Add(reply)
	advertisement := question(i, Probe{Addr: netip.MustParseAddr("2001:db8::2"), MAC: MAC{4}})
	advertisement[etherSize+ipv6Size] = 136
	f.Add(advertisement)
	f.Fuzz(func(t *testing.T, frame []byte) {
		if addr, _, ok := readAnswer(frame); ok && (!addr.IsValid() || addr.Is4In6() && frame[12] == 8) {
			t.Fatalf("%v", addr)
		}
	})
}

// FuzzReceive gives a Machine arbitrary bytes, and real frames with changed bytes. The Machine keeps working, and believes
// nothing that is not signed.
func FuzzReceive(f *testing.F) {
	w, frames := examples(f)
	for i, frame := range frames {
		f.Add(frame, uint8(0), uint16(0), uint8(0))
		f.Add([]byte{}, uint8(i), uint16(40), uint8(1))
	}
	target, sender := w.nodes[0], w.nodes[1]
	f.Fuzz(func(t *testing.T, bytesIn []byte, which uint8, at uint16, flip uint8) {
		w.now += 10 * time.Millisecond // Let the budgets refill.
		frame := bytesIn
		if len(frame) == 0 {
			frame = bytes.Clone(frames[int(which)%len(frames)])
			frame[int(at)%len(frame)] ^= max(flip, 1)
		}
		now := target.clock()
		target.m.startInput(now)()
		target.m.Take()
		before := knowledge(target.m)
		d := target.m.Receive(now, Arrival{At: now, From: sender.mac}, frame)
		target.m.Take()
		if slices.ContainsFunc(frames, func(real []byte) bool { return bytes.Equal(real, frame) }) {
			return // The corpus has real frames, which are believed.
		}
		if after := knowledge(target.m); !same(before, after) {
			t.Fatalf("%q: before %v, after %v", d, before, after)
		}
		if len(frame) > headerSize && kind(frame[3]).signed() && d == "" {
			t.Fatalf("accepted %x", frame)
		}
	})
}
