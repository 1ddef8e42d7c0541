package segment

import (
	"container/heap"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heraldlb/herald/speaker/segment/ownership"
)

// world is a simulated segment with Machines on it. It has its own time, real frames and no sockets.
type world struct {
	t     testing.TB
	rand  *rand.Rand
	now   Time
	nodes []*host
	mail  mail
	posts int // numbers letters

	// The next fields say what the network does to each frame.
	loss, duplicate float64
	delay           time.Duration // the longest delay
	cut             map[[2]int]bool
	noMulticast     bool
	keyDelay        time.Duration
	noAPI           bool
	strangers       map[netip.Addr]bool // addresses that strangers use: they answer probes

	witness func(*host, Event)
	sent    func(*host, Frame)
	asked   func(*host)
	log     []string
}

// letter is a frame, or any other event, that arrives later.
type letter struct {
	at     Time
	number int // letters for the same time arrive in the order in which they were posted
	run    func()
}

// mail is a heap of letters.
type mail []letter

func (m mail) Len() int { return len(m) }
func (m mail) Less(i, j int) bool {
	return m[i].at < m[j].at || m[i].at == m[j].at && m[i].number < m[j].number
}
func (m mail) Swap(i, j int) { m[i], m[j] = m[j], m[i] }
func (m *mail) Push(l any)   { *m = append(*m, l.(letter)) }
func (m *mail) Pop() any {
	last := len(*m) - 1
	l := (*m)[last]
	(*m)[last], *m = letter{}, (*m)[:last]
	return l
}

// host is a node: its kernel, its speaker, and the speaker's answers.
type host struct {
	w       *world
	number  int
	name    string
	mac     MAC
	addr    netip.Addr
	kernel  bool
	m       *Machine // nil: its speaker does not run
	frozen  bool     // its speaker does not run now, and will continue
	boot    uint64
	offset  Time
	drift   float64
	answers map[netip.Addr]Answer
	serving bool
	wants   map[netip.Addr]*ownership.Want
	rx      uint64
	waiting []func() // inputs that came while it was frozen
	events  []Event
	told    uint64 // the last rx that the Machine got
	ticks   int
}

func newWorld(t testing.TB, nodes int, seed uint64) *world {
	w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 1)), cut: map[[2]int]bool{}, delay: time.Millisecond, keyDelay: 5 * time.Millisecond}
	for i := range nodes {
		h := &host{
			w: w, number: i, name: fmt.Sprintf("n%d", i), mac: MAC{2, 0, 0, 0, byte(i >> 8), byte(i)},
			addr: netip.AddrFrom4([4]byte{198, 18, byte(1 + i>>8), byte(i)}), kernel: true, offset: time.Duration(i+1) * time.Hour, drift: 1,
			answers: map[netip.Addr]Answer{}, serving: true, wants: map[netip.Addr]*ownership.Want{},
		}
		w.nodes = append(w.nodes, h)
	}
	return w
}

func (h *host) clock() Time { return h.offset + time.Duration(float64(h.w.now)*h.drift) }

// wakes returns when the Machine has to be called, in the time of the world.
func (h *host) wakes() Time {
	return time.Duration(float64(h.m.Next()-h.offset)/h.drift) + time.Microsecond
}

// start starts a new boot of the host's speaker.
func (h *host) start() {
	h.boot = h.w.rand.Uint64()
	h.open()
}

// open opens the segment, as the speaker does at its start and when the interface was made anew.
func (h *host) open() {
	seed := make([]byte, ed25519.SeedSize)
	binary.BigEndian.PutUint64(seed, h.boot)
	h.m = New(Config{Cluster: "test", Node: h.name, Boot: h.boot, Key: ed25519.NewKeyFromSeed(seed)})
	h.m.draw = func() (s secret) {
		binary.BigEndian.PutUint64(s[:], h.w.rand.Uint64())
		return s
	}
	h.frozen, h.waiting, h.answers = false, nil, map[netip.Addr]Answer{}
	h.m.resume(h.clock())
	h.m.Serve(h.clock(), h.serving)
	for a, w := range h.wants {
		h.m.Want(h.clock(), a, w)
	}
	for _, o := range h.w.nodes {
		if o.m != nil && o != h {
			h.m.Identify(h.clock(), o.name, o.identity())
		}
	}
	h.m.Set(h.clock(), Interface{Name: "eth0", MAC: h.mac, Up: true, Prefixes: []netip.Prefix{netip.PrefixFrom(h.addr, 16)}})
	h.told = 0
	h.drain()
}

func (h *host) identity() Identity {
	return Identity{Boot: h.boot, Key: h.m.config.Key.Public().(ed25519.PublicKey)}
}

func (h *host) kill() { h.m, h.answers, h.frozen, h.waiting = nil, map[netip.Addr]Answer{}, false, nil }

func (h *host) power(on bool) {
	h.kernel = on
	if !on {
		h.kill()
	}
}

func (h *host) running() bool { return h.m != nil && !h.frozen && h.kernel }

// input calls the Machine and carries out its Output.
func (h *host) input(f func(m *Machine, now Time)) {
	switch {
	case h.running():
		f(h.m, h.clock())
		h.drain()
	case h.m != nil: // It handles this when it continues.
		h.waiting = append(h.waiting, func() { h.input(f) })
	}
}

// goOn makes a speaker continue that was frozen, or suspended with its node.
func (h *host) goOn() {
	h.frozen = false
	if h.m == nil {
		return
	}
	h.kernel = true
	waiting := h.waiting
	h.waiting = nil
	for _, f := range waiting {
		f()
	}
}

func (w *world) linked(from, to *host) bool {
	return from.kernel && to.kernel && !w.cut[[2]int{from.number, to.number}]
}

func (w *world) later(d time.Duration, run func()) {
	w.posts++
	heap.Push(&w.mail, letter{at: w.now + d, number: w.posts, run: run})
}

func (w *world) transit() time.Duration {
	return time.Duration(w.rand.Int64N(int64(w.delay) + 1))
}

// post delivers a frame to a host, under the present state of the network.
func (w *world) post(from, to *host, deliver func()) {
	if !w.linked(from, to) || w.rand.Float64() < w.loss {
		return
	}
	times := 1
	if w.rand.Float64() < w.duplicate {
		times = 2
	}
	for range times {
		w.later(w.transit(), func() {
			if to.kernel {
				to.rx++
				deliver()
			}
		})
	}
}

func (h *host) drain() {
	o := h.m.Take()
	for _, a := range o.Answers {
		if a.Node == "" {
			delete(h.answers, a.Addr)
		} else {
			h.answers[a.Addr] = a
		}
	}
	for _, f := range o.Frames {
		if h.w.sent != nil {
			h.w.sent(h, f)
		}
		for _, to := range h.w.nodes {
			if to == h || f.To != (MAC{}) && f.To != to.mac || f.To == (MAC{}) && h.w.noMulticast {
				continue
			}
			h.w.post(h, to, func() {
				to.input(func(m *Machine, now Time) {
					m.Receive(now, Arrival{At: now, From: h.mac, Unicast: f.To != MAC{}}, f.Payload)
				})
			})
		}
	}
	for _, p := range o.Probes {
		for _, to := range h.w.nodes {
			if to.addr == p.Addr && to != h {
				h.w.post(h, to, func() {
					h.w.post(to, h, func() {
						h.input(func(m *Machine, now Time) { m.Answered(now, p.Addr, to.mac) })
					})
				})
			}
		}
	}
	for _, node := range o.Keys {
		if h.w.asked != nil {
			h.w.asked(h)
		}
		h.w.later(h.w.keyDelay, func() {
			for _, n := range h.w.nodes {
				if n.name == node && n.m != nil && !h.w.noAPI {
					id := n.identity()
					h.input(func(m *Machine, now Time) { m.Identify(now, node, id) })
				}
			}
		})
	}
	for _, a := range o.Checks {
		h.w.later(300*time.Millisecond, func() { h.input(func(m *Machine, now Time) { m.Checked(now, a, h.w.strangers[a]) }) })
	}
	h.events = append(h.events, o.Events...)
	for _, e := range o.Events {
		if h.w.witness != nil {
			h.w.witness(h, e)
		}
		h.w.logf("%s %s %s %v %v %s", h.name, e.Kind, e.Node, e.Addr, e.After, e.Text)
	}
}

func (w *world) logf(format string, args ...any) {
	if len(w.log) < 5000 {
		w.log = append(w.log, fmt.Sprintf("%8v ", w.now)+fmt.Sprintf(format, args...))
	}
}

// run lets time pass, from one event to the next, and calls the functions in each after every event.
func (w *world) run(d time.Duration, each ...func()) {
	end := w.now + d
	for {
		next := end
		if len(w.mail) > 0 {
			next = min(next, w.mail[0].at)
		}
		for _, h := range w.nodes {
			if h.running() {
				next = min(next, h.wakes())
			}
		}
		w.now = max(w.now, next)
		for len(w.mail) > 0 && w.mail[0].at <= w.now {
			heap.Pop(&w.mail).(letter).run()
		}
		for _, h := range w.nodes {
			if h.running() && w.now >= h.wakes() {
				h.tick()
			}
		}
		for _, f := range each {
			f()
		}
		if w.now >= end {
			return
		}
	}
}

func (h *host) tick() {
	h.ticks++
	h.input(func(m *Machine, now Time) {
		if m.NeedsReceived() && h.told != h.rx {
			h.told = h.rx
			m.Received(now, h.rx)
		}
		m.Tick(now)
		if m.Next() <= now {
			h.w.fail("%s: Next is %v after a Tick at %v", h.name, m.Next(), now)
		}
	})
}

// want makes every host want the addresses, with these candidates.
func (w *world) want(addrs []netip.Addr, edit func(*ownership.Want), candidates ...*host) {
	w.wantPreferring(addrs, "", edit, candidates...)
}

func (w *world) wantPreferring(addrs []netip.Addr, preferred string, edit func(*ownership.Want), candidates ...*host) {
	var names []string
	for _, h := range candidates {
		names = append(names, h.name)
	}
	for _, h := range w.nodes {
		c := ownership.NewCandidates(names, func(node string) bool { return node == preferred })
		for _, a := range addrs {
			want := &ownership.Want{Candidates: c, Defend: true}
			if edit != nil {
				edit(want)
			}
			h.wants[a] = want
			h.input(func(m *Machine, now Time) { m.Want(now, a, want) })
		}
	}
}

// unwant makes the hosts stop wanting an address, one after the other.
func (w *world) unwant(a netip.Addr) {
	for _, h := range w.nodes {
		w.later(w.transit(), func() {
			delete(h.wants, a)
			h.input(func(m *Machine, now Time) { m.Want(now, a, nil) })
		})
	}
}

func vips6(n int) (all []netip.Addr) {
	for i := range n {
		all = append(all, netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i)}))
	}
	return all
}

func vips(n int) (all []netip.Addr) {
	for i := range n {
		all = append(all, netip.AddrFrom4([4]byte{198, 51, byte(100 + i>>8), byte(i)}))
	}
	return all
}

// owner returns the only host that answers for an address; nil if there is none or more than one.
func (w *world) owner(a netip.Addr) *host {
	var owner *host
	for _, h := range w.nodes {
		if h.running() && h.answers[a].Node == h.name {
			if owner != nil {
				return nil
			}
			owner = h
		}
	}
	return owner
}

// answersFor returns the MACs in the answers for an address.
func (w *world) answersFor(a netip.Addr) (macs []MAC) {
	for _, h := range w.nodes {
		if o, ok := h.answers[a]; ok && h.running() && !slices.Contains(macs, o.MAC) {
			macs = append(macs, o.MAC)
		}
	}
	return macs
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(w.log, "\n"))
}

// began starts every speaker, makes the hosts want the addresses, and waits until all addresses have owners.
func began(t testing.TB, nodes, addresses int) (*world, []netip.Addr) {
	w, addrs := newWorld(t, nodes, 7), vips(addresses)
	for _, h := range w.nodes {
		h.start()
	}
	w.want(addrs, nil, w.nodes...)
	w.run(2 * time.Second)
	for _, a := range addrs {
		if w.owner(a) == nil {
			w.fail("%v is answered by %v", a, w.answersFor(a))
		}
	}
	return w, addrs
}

func (w *world) owners(addrs []netip.Addr) map[netip.Addr]*host {
	all := map[netip.Addr]*host{}
	for _, a := range addrs {
		all[a] = w.owner(a)
	}
	return all
}

// outage runs until an answer for the address has the MAC of a node whose kernel is alive, and returns how long this took.
func (w *world) outage(a netip.Addr, limit time.Duration) time.Duration {
	began := w.now
	for w.now-began < limit {
		for _, mac := range w.answersFor(a) {
			for _, h := range w.nodes {
				if h.mac == mac && h.kernel {
					return w.now - began
				}
			}
		}
		w.run(time.Millisecond)
	}
	return limit
}
