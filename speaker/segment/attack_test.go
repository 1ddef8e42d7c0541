package segment

import (
	"crypto/ed25519"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// tap records all frames that a host sends.
func (w *world) tap(from *host) *[]Frame {
	var all []Frame
	w.sent = func(h *host, f Frame) {
		if h == from {
			all = append(all, f)
		}
	}
	return &all
}

func kindOf(f Frame) kind { return kind(f.Payload[3]) }

// knowledge returns what a Machine believes about the others, and what it owns.
func knowledge(m *Machine) map[string]uint64 {
	all := map[string]uint64{}
	for _, n := range m.sorted {
		all[n.node+" "+n.status.String()] = n.boot
		for a, term := range n.claims {
			all[n.node+" claims "+a.String()] = term
		}
	}
	for a := range m.owned {
		all["own "+a.String()] = a.ownTerm
	}
	return all
}

func same(x, y map[string]uint64) bool {
	if len(x) != len(y) {
		return false
	}
	for k, v := range x {
		if y[k] != v {
			return false
		}
	}
	return true
}

// forge signs a frame as host h could, with changes to the envelope.
func (h *host) forge(k kind, edit func(*envelope), body func(*writer)) []byte {
	e := envelope{cluster: h.m.cluster(), boot: h.boot, sequence: h.m.sequence + 1, mac: h.mac, node: h.name}
	h.m.sequence++
	if edit != nil {
		edit(&e)
	}
	w := begin(k)
	w.envelope(e)
	body(&w)
	if e.sequence >= forged {
		return append(w, make([]byte, signatureSize)...)
	}
	return append(w, ed25519.Sign(h.m.config.Key, w)...)
}

// forged is the first sequence number of frames that need no valid signature.
const forged = 1 << 50

func (h *host) claimFrame(edit func(*envelope), changes ...change) []byte {
	h.m.claims++
	return h.forge(kindUpdate, edit, update{from: h.m.claims - 1, to: h.m.claims, changes: changes}.encode)
}

// deliver gives a frame to a host's Machine and returns why it was refused.
func (h *host) deliver(from MAC, frame []byte) (d Drop) {
	h.input(func(m *Machine, now Time) { d = m.Receive(now, Arrival{At: now, From: from}, frame) })
	return d
}

func TestReplaysAreRefused(t *testing.T) {
	w, addrs := newWorld(t, 3, 5), vips(30)
	victim := w.nodes[0]
	recorded := w.tap(victim)
	for _, h := range w.nodes {
		h.start()
	}
	w.want(addrs, nil, w.nodes...)
	w.run(2 * time.Second)
	// Record all kinds of frames: the victim is asked for its pages, loses its addresses, and takes them again.
	victim.deliver(w.nodes[1].mac, ask{id: victim.m.id}.encode())
	victim.input(func(m *Machine, now Time) { m.Serve(now, false) })
	w.run(time.Second)
	victim.input(func(m *Machine, now Time) { m.Serve(now, true) })
	w.run(time.Second)
	kinds := map[kind]int{}
	for _, f := range *recorded {
		kinds[kindOf(f)]++
	}
	if kinds[kindBeat] == 0 || kinds[kindHello] == 0 || kinds[kindUpdate] == 0 || kinds[kindPage] == 0 {
		t.Fatalf("recorded %v", kinds)
	}
	frames := slices.Clone(*recorded)
	for name, end := range map[string]func(){
		"while it lives":       func() {},
		"when it is dead":      func() { victim.power(false); w.run(2 * time.Second) },
		"when it has left":     func() {},
		"with a new boot":      func() { victim.power(true); victim.start(); w.run(5 * time.Second) },
		"when that has left":   func() { victim.suffer("stop"); w.run(2 * time.Second) },
		"and with the key new": func() {},
	} {
		end()
		listener := w.nodes[1]
		before := knowledge(listener.m)
		for _, f := range frames {
			d := listener.deliver(victim.mac, f.Payload)
			if k := kindOf(f); k != kindAsk && k != kindSuspect && d == "" {
				t.Errorf("%s: a %v was accepted", name, k)
			}
		}
		if after := knowledge(listener.m); !same(before, after) {
			t.Errorf("%s: before %v, after %v", name, before, after)
		}
	}
}

// TestAReplayToANewListener: a speaker that has just started cannot recognize old frames of a boot that the API still names.
// While recorded beats last, it can be made to believe that a dead node is alive. But it never takes an address from the
// node that owns the address now.
func TestAReplayToANewListener(t *testing.T) {
	w, addrs := newWorld(t, 3, 5), vips(30)
	victim, listener := w.nodes[0], w.nodes[1]
	recorded := w.tap(victim)
	for _, h := range w.nodes {
		h.start()
	}
	w.want(addrs, nil, w.nodes...)
	w.run(2 * time.Second)
	victim.kernel = false // The API still names its boot.
	w.run(time.Second)
	listener.kill()
	w.run(time.Second)
	owners := map[netip.Addr][]MAC{}
	for _, a := range addrs {
		owners[a] = w.answersFor(a)
	}
	frames := slices.Clone(*recorded)
	listener.start()
	for _, f := range frames {
		listener.deliver(victim.mac, f.Payload)
		w.run(5 * time.Millisecond)
	}
	w.run(3 * time.Second)
	for _, a := range addrs {
		if macs := w.answersFor(a); !slices.Equal(macs, owners[a]) {
			w.fail("%v is answered with %v, before with %v", a, macs, owners[a])
		}
	}
	if n := listener.m.neighbours[victim.name]; n != nil && n.living() {
		t.Error("it believes that the dead node lives, though the replay has ended")
	}
}

func TestForgeriesAreRefused(t *testing.T) {
	w, addrs := began(t, 3, 10)
	victim, listener, attacker := w.nodes[0], w.nodes[1], w.nodes[2]
	old := victim.m
	victim.kill()
	victim.start()
	w.run(4 * time.Second)
	claim := change{addr: addrs[0], term: 1000}
	asVictim := func(e *envelope) {
		e.node, e.mac, e.boot, e.sequence = victim.name, victim.mac, victim.boot, 1<<49
	}
	n := listener.m.neighbours[victim.name]
	for _, c := range []struct {
		name  string
		from  MAC
		frame []byte
		want  Drop
	}{
		{"in another's name", victim.mac, attacker.claimFrame(asVictim, claim), DropSignature},
		{"in the listener's name", listener.mac, attacker.claimFrame(func(e *envelope) { e.node, e.mac = listener.name, listener.mac }, claim), DropOwn},
		{"in the listener's name, from another MAC", attacker.mac, attacker.claimFrame(func(e *envelope) { e.node = listener.name }, claim), DropOwn},
		{"with another's MAC in the envelope", attacker.mac, attacker.claimFrame(func(e *envelope) { e.mac = victim.mac }, claim), DropSource},
		{"with a MAC that nobody knows", MAC{2, 9}, attacker.claimFrame(func(e *envelope) { e.mac = MAC{2, 9} }, claim), DropSource},
		{"of another cluster", attacker.mac, attacker.claimFrame(func(e *envelope) { e.cluster++ }, claim), DropCluster},
		{"of an old boot, with its key", victim.mac, func() []byte {
			f := begin(kindUpdate)
			f.envelope(envelope{cluster: old.cluster(), boot: old.config.Boot, sequence: 1 << 49, mac: victim.mac, node: victim.name})
			update{from: old.claims, to: old.claims + 1, changes: []change{claim}}.encode(&f)
			return append(f, ed25519.Sign(old.config.Key, f)...)
		}(), DropOldBoot},
		{"of a node that does not exist", attacker.mac, attacker.claimFrame(func(e *envelope) { e.node = "nobody" }, claim), DropUnknownKey},
		{"a beat with a guessed secret", victim.mac, beat{id: n.id, chain: n.said.chain, index: n.index + 1}.encode(), DropSecret},
		{"a beat far ahead", victim.mac, beat{id: n.id, chain: n.said.chain, index: n.index + 4000}.encode(), DropRate},
		{"a beat past the end", victim.mac, beat{id: n.id, chain: n.said.chain, index: maxChain + 1}.encode(), DropSecret},
		{"a beat of nobody", victim.mac, beat{id: 7}.encode(), DropUnknownNode},
		{"nothing", victim.mac, nil, DropMalformed},
	} {
		before := knowledge(listener.m)
		if d := listener.deliver(c.from, c.frame); d != c.want {
			t.Errorf("%s: %q, want %q", c.name, d, c.want)
		}
		if after := knowledge(listener.m); !same(before, after) {
			t.Errorf("%s: before %v, after %v", c.name, before, after)
		}
	}
}

// TestFloods: in every flood, the work and the frames that it causes are bounded, and beats keep neighbours alive.
func TestFloods(t *testing.T) {
	const rate, seconds = 10_000, 1
	for _, c := range []struct {
		name  string
		frame func(w *world, i int) (MAC, []byte)
	}{
		{"asks", func(w *world, _ int) (MAC, []byte) {
			return w.nodes[2].mac, ask{id: w.nodes[0].m.id, claims: 1}.encode()
		}},
		{"suspects of the listener", func(w *world, i int) (MAC, []byte) {
			return w.nodes[i%3].mac, suspect{id: w.nodes[0].m.id}.encode()
		}},
		{"suspects of another", func(w *world, _ int) (MAC, []byte) {
			return w.nodes[2].mac, suspect{id: w.nodes[1].m.id, chain: 1}.encode()
		}},
		{"beats of strangers", func(_ *world, i int) (MAC, []byte) {
			return MAC{2, byte(i >> 8), byte(i)}, beat{id: ID(i)}.encode()
		}},
		{"forged beats", func(w *world, i int) (MAC, []byte) {
			n := w.nodes[0].m.neighbours["n1"]
			return n.mac, beat{id: n.id, chain: n.said.chain, index: n.index + uint32(1+i%60)}.encode()
		}},
		{"forged beats of a new chain", func(w *world, i int) (MAC, []byte) {
			n := w.nodes[0].m.neighbours["n1"]
			return n.mac, beat{id: n.id, chain: uint32(i), index: 1}.encode()
		}},
		{"forged updates", func(w *world, i int) (MAC, []byte) {
			n := w.nodes[1]
			return n.mac, w.nodes[2].claimFrame(func(e *envelope) {
				e.node, e.mac, e.boot, e.sequence = n.name, n.mac, n.boot, uint64(forged+i)
			}, change{addr: vips(1)[0], term: 9})
		}},
		{"forged Hellos of new MACs", func(w *world, i int) (MAC, []byte) {
			n := w.nodes[1]
			mac := MAC{1, byte(i >> 8), byte(i)}
			return mac, w.nodes[2].forge(kindHello, func(e *envelope) { e.node, e.mac, e.boot, e.sequence = n.name, mac, n.boot, forged },
				hello{period: 100, length: maxChain, chain: 1}.encode)
		}},
		{"unknown names", func(w *world, i int) (MAC, []byte) {
			mac := w.nodes[2].mac
			return mac, w.nodes[2].claimFrame(func(e *envelope) {
				e.node = "x" + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, addrs := began(t, 3, 300)
			target := w.nodes[0]
			sent, keys, signed := 0, 0, target.m.verified
			w.sent = func(h *host, _ Frame) {
				if h == target {
					sent++
				}
			}
			w.asked = func(h *host) {
				if h == target {
					keys++
				}
			}
			owners := w.owners(addrs)
			for i := range rate * seconds {
				from, frame := c.frame(w, i)
				target.deliver(from, frame)
				if i%10 == 0 {
					w.run(10 * time.Second / rate)
				}
			}
			t.Logf("in a second: %d frames, %d verifications; %d keys in all", sent/seconds, (target.m.verified-signed)/seconds, keys)
			if limit := 5000 + 1500*seconds; target.m.verified-signed > limit {
				t.Errorf("%d verifications", target.m.verified-signed)
			}
			if limit := 1500 + 400*seconds; sent > limit {
				t.Errorf("%d frames", sent)
			}
			if keys > 1000+50*seconds {
				t.Errorf("asked for %d keys", keys)
			}
			if len(target.m.askedIDs) > 4096 || len(target.m.askedKeys) > 8192 || len(target.m.addresses) > 300 {
				t.Error("it keeps what it was told")
			}
			for _, h := range w.nodes {
				for _, n := range h.m.sorted {
					if n.status != alive {
						t.Errorf("%s holds %s for %v", h.name, n.node, n.status)
					}
				}
			}
			for _, a := range addrs {
				if w.owner(a) != owners[a] {
					t.Fatalf("%v moved", a)
				}
			}
		})
	}
}

// hostileClaim sends forged claims of an attacker. Its own Machine does not know about them.
func (w *world) hostileClaim(attacker *host, term uint64, addrs ...netip.Addr) {
	const perFrame = 40
	for chunk := range slices.Chunk(addrs, perFrame) {
		var changes []change
		for _, a := range chunk {
			changes = append(changes, change{addr: a, term: term})
		}
		frame := attacker.claimFrame(nil, changes...)
		for _, h := range w.nodes {
			if h != attacker {
				h.deliver(attacker.mac, frame)
			}
		}
	}
}

// TestNoTermLocksAnAddress: a genuine node claims with the highest possible term. While it is alive, it may own addresses
// for which it is a candidate. After its death these addresses have owners again.
func TestNoTermLocksAnAddress(t *testing.T) {
	w, addrs := began(t, 3, 3)
	attacker := w.nodes[2]
	var theirs []netip.Addr
	for _, a := range addrs {
		if w.owner(a) != attacker {
			theirs = append(theirs, a)
		}
	}
	// Against a living owner this term does not count, and no node yields.
	w.hostileClaim(attacker, maxTerm, theirs...)
	w.run(50 * time.Millisecond)
	for _, a := range theirs {
		if o := w.owner(a); o == nil || o == attacker {
			w.fail("%v is answered with %v", a, w.answersFor(a))
		}
	}
	// For an address that is new to all nodes it counts, but not for ever.
	fresh := vips(5)[4]
	w.hostileClaim(attacker, maxTerm, fresh)
	w.want(append(addrs, fresh), nil, w.nodes...)
	w.run(time.Second)
	attacker.power(false)
	w.run(time.Second)
	for _, a := range append(addrs, fresh) {
		if o := w.owner(a); o == nil {
			w.fail("%v is answered with %v", a, w.answersFor(a))
		}
	}
	// The attacker comes back, and claims the same addresses.
	attacker.power(true)
	attacker.start()
	w.run(4 * time.Second)
	w.hostileClaim(attacker, maxTerm, append(addrs, fresh)...)
	w.run(100 * time.Millisecond)
	for _, a := range append(addrs, fresh) {
		if o := w.owner(a); o == nil || o == attacker {
			w.fail("%v is answered with %v", a, w.answersFor(a))
		}
	}
}

func TestTheClaimsOfOneNodeAreBounded(t *testing.T) {
	w, _ := began(t, 3, 3)
	attacker, target := w.nodes[2], w.nodes[0]
	for pages := range uint16(maxPages) {
		p := page{claims: 1 << 30, page: pages, pages: maxPages}
		for i := range 40 {
			p.entries = append(p.entries, change{addr: netip.AddrFrom16([16]byte{0x20, 1, 13: byte(i), 14: byte(pages >> 8), 15: byte(pages)}), term: 5})
		}
		target.deliver(attacker.mac, attacker.forge(kindPage, nil, p.encode))
		w.run(3 * time.Millisecond)
	}
	n := target.m.neighbours[attacker.name]
	if len(n.claims) != maxClaims || len(target.m.addresses) > maxClaims+10 {
		t.Errorf("%d claims, %d addresses", len(n.claims), len(target.m.addresses))
	}
	attacker.power(false)
	w.run(3 * time.Second)
	if len(target.m.addresses) > 10 {
		t.Errorf("%d addresses are kept after its death (%v)", len(target.m.addresses), n.status)
	}
}

// TestClaimsOfANodeThatIsNoCandidate: each time that the hostile node claims the address, the first candidate takes it
// after patience. So the address is lost for patience, and moves at most twice in that time.
func TestClaimsOfANodeThatIsNoCandidate(t *testing.T) {
	w, addrs := newWorld(t, 3, 9), vips(4)
	attacker := w.nodes[2]
	for _, h := range w.nodes {
		h.start()
		h.input(func(m *Machine, now Time) { m.Trust(now, true) })
	}
	w.want(addrs, nil, w.nodes[:2]...)
	w.run(2 * time.Second)
	before, takes := w.owners(addrs), 0
	w.witness = func(_ *host, e Event) {
		if e.Kind == EventTake {
			takes++
		}
	}
	const rounds = 4
	for round := range rounds {
		w.hostileClaim(attacker, uint64(baseTerm+1000*(round+1)), addrs...)
		w.run(misplacedTime - 100*time.Millisecond)
		for _, a := range addrs {
			if len(w.answersFor(a)) > 0 {
				w.fail("%v is answered while the higher claim stands", a)
			}
		}
		w.run(200 * time.Millisecond)
		for _, a := range addrs {
			if o := w.owner(a); o == nil || o == attacker {
				w.fail("%v is answered with %v, before by %s", a, w.answersFor(a), before[a].name)
			}
		}
	}
	if takes > rounds*len(addrs)*2 {
		t.Errorf("%d takeovers", takes)
	}
}

func TestTwoInterfacesOfOneNodeOnASegment(t *testing.T) {
	w := newWorld(t, 3, 4)
	addrs := vips(30)
	first, second := w.nodes[0], w.nodes[1]
	second.name = first.name
	for _, h := range w.nodes {
		h.start()
	}
	second.boot = first.boot // Both interfaces belong to one process.
	second.m.config.Boot, second.m.config.Key = first.m.config.Boot, first.m.config.Key
	second.input(func(m *Machine, now Time) { m.Set(now, Interface{}) })
	second.input(func(m *Machine, now Time) {
		m.Set(now, Interface{Name: "eth1", MAC: second.mac, Up: true, Prefixes: []netip.Prefix{netip.PrefixFrom(second.addr, 16)}})
	})
	w.want(addrs, nil, w.nodes...)
	w.run(3 * time.Second)
	settled := func() {
		for _, a := range addrs {
			if len(w.answersFor(a)) != 1 || len(second.answers) > 0 {
				w.fail("%v is answered with %v", a, w.answersFor(a))
			}
		}
	}
	sent := 0
	w.sent = func(*host, Frame) { sent++ }
	w.run(10*time.Second, settled)
	if sent > 350 {
		t.Errorf("%d frames in ten seconds", sent)
	}
	if s := second.m.State(); s != Duplicate {
		t.Errorf("the second is %s", s)
	}
	first.kill()
	w.run(3 * twinTime)
	if len(second.answers) == 0 {
		w.fail("the second does not take over")
	}
}
