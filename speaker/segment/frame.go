package segment

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// A frame is the payload of one UDP datagram. All numbers are in network byte order.
//
//	0       2         3      4
//	+-------+---------+------+-- - - -
//	| magic | version | type | content
//	+-------+---------+------+-- - - -
//
// Hello, Update, Page and Former are signed:
//
//	content = cluster(8) boot(8) sequence(8) mac(6) node(1+n) body signature(64)
//
// The signature (Ed25519, RFC 8032) covers everything before it. Beat, Ask and Suspect are not signed. The secret of a Beat
// proves its sender: see chain.go. An Ask and a Suspect only ask for frames that any machine may hear.
const (
	magic   = 0x4c48
	version = 1

	headerSize    = 4
	envelopeSize  = 8 + 8 + 8 + 6
	signatureSize = 64
	maxNode       = 253 // a DNS subdomain, as names of nodes are

	// maxFrame keeps a frame with its headers below the least MTU of IPv6 (RFC 8200, section 5).
	maxFrame = 1200

	// maxTerm is the highest term in a frame. An honest node never gets near it.
	maxTerm = 1 << 62
	// maxJump is how far the term of a claim may be above the other claims to the same address. If an
	// address changes its owner every second, its term takes six days to rise by as much. A term that is even higher is
	// refused: see plausible.
	maxJump = 1 << 20
)

type kind uint8

const (
	kindBeat kind = iota + 1
	kindHello
	kindUpdate
	kindPage
	kindFormer
	kindAsk
	kindSuspect
)

func (k kind) signed() bool { return k >= kindHello && k <= kindFormer }

func (k kind) String() string {
	switch k {
	case kindBeat:
		return "beat"
	case kindHello:
		return "hello"
	case kindUpdate:
		return "update"
	case kindPage:
		return "page"
	case kindFormer:
		return "former"
	case kindAsk:
		return "ask"
	case kindSuspect:
		return "suspect"
	}
	return "unknown"
}

// ID names a boot of a node's speaker on one interface in the frames that are sent often.
type ID uint64

// beat says that its sender is alive.
type beat struct {
	id     ID
	chain  uint32
	index  uint32
	secret secret
	// state and claims are the numbers of the sender's latest Hello and latest change of claims. A receiver that knows
	// older numbers asks the sender. Nothing else depends on these numbers, because they are not authenticated.
	state, claims uint32
}

// Flags of a Hello.
const (
	// flagListening: the sender claims nothing yet. What it claimed before may still be its own.
	flagListening = 1 << iota
	// flagServing: the sender can deliver traffic.
	flagServing
	// flagReplaced: the sender ends and a successor on the same node follows.
	flagReplaced
	// flagLeaving: the sender ends, and no successor follows.
	flagLeaving
)

// hello describes its sender.
type hello struct {
	state    uint32 // counts the changes of flags, period, ifname and prefixes
	claims   uint32 // counts the changes of its claims
	flags    uint8
	period   uint16 // milliseconds between two beats
	chain    uint32
	length   uint32 // of the chain
	index    uint32 // of a beat that has been sent, with its secret
	secret   secret
	ifname   string
	prefixes []netip.Prefix // the interface's addresses, each with its prefix length
	hears    []uint64       // boots that it has lately begun to hear
}

// change is one address in an update or a page.
type change struct {
	addr      netip.Addr
	term      uint64 // 0: released
	notWanted bool   // released because the sender is not to announce it on this segment any more
	stranger  bool   // released because a machine that is not a speaker uses the address
}

func (h *hello) has(flag uint8) bool { return h.flags&flag != 0 }

// update says how the sender's claims changed.
type update struct {
	from, to uint32 // the numbers before the first and after the last change
	all      bool   // the sender has released all earlier claims
	changes  []change
}

// page is a part of the list of all claims.
type page struct {
	claims      uint32
	page, pages uint16
	entries     []change
}

// former tells the new speaker of a node what its predecessor claimed.
type former struct {
	boot    uint64 // of the new speaker
	entries []change
}

// ask asks a speaker for its Hello and, from a page on, for its claims.
type ask struct {
	id     ID
	claims uint32 // the number that the asking speaker knows
	page   uint16
}

// suspect asks all speakers for a beat of one speaker that is later than the given one.
type suspect struct {
	id           ID
	chain, index uint32
}

// envelope is the beginning of the content of all signed frames.
type envelope struct {
	cluster, boot, sequence uint64
	mac                     MAC
	node                    string
}

var errMalformed = errors.New("malformed frame")

// writer appends to a frame.
type writer []byte

// kindOffset is the offset of the type in a frame. Socket filters read it.
const kindOffset = 3

func begin(k kind) writer { return writer{magic >> 8, magic & 0xff, version, byte(k)} }

func (w *writer) u8(v uint8)     { *w = append(*w, v) }
func (w *writer) u16(v uint16)   { *w = binary.BigEndian.AppendUint16(*w, v) }
func (w *writer) u32(v uint32)   { *w = binary.BigEndian.AppendUint32(*w, v) }
func (w *writer) u64(v uint64)   { *w = binary.BigEndian.AppendUint64(*w, v) }
func (w *writer) bytes(b []byte) { *w = append(*w, b...) }
func (w *writer) text(s string) {
	w.u8(uint8(len(s))) //nolint:gosec // Callers bound it: names of nodes and interfaces.
	*w = append(*w, s...)
}

func (w *writer) addr(a netip.Addr) {
	if a.Is4() {
		b := a.As4()
		w.bytes(b[:])
		return
	}
	b := a.As16()
	w.bytes(b[:])
}

// Bits of the byte before an address.
const (
	bitIPv6 = 1 << iota
	bitReleased
	bitNotWanted
	bitStranger
)

func (w *writer) change(c change) {
	var bits uint8
	if c.addr.Is6() {
		bits |= bitIPv6
	}
	if c.term == 0 {
		bits |= bitReleased
	}
	if c.notWanted {
		bits |= bitNotWanted
	}
	if c.stranger {
		bits |= bitStranger
	}
	w.u8(bits)
	w.addr(c.addr)
	if c.term != 0 {
		w.u64(c.term)
	}
}

func (w *writer) changes(all []change) {
	w.u16(uint16(len(all))) //nolint:gosec // Bounded by maxFrame.
	for _, c := range all {
		w.change(c)
	}
}

func (w *writer) envelope(e envelope) {
	w.u64(e.cluster)
	w.u64(e.boot)
	w.u64(e.sequence)
	w.bytes(e.mac[:])
	w.text(e.node)
}

// reader parses a frame. After a failure, every further read returns zero.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || len(r.b) < n {
		r.failed = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) u8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) text(limit int) string {
	n := int(r.u8())
	if n > limit {
		r.failed = true
	}
	return string(r.take(n))
}

func (r *reader) secret() (s secret) {
	copy(s[:], r.take(len(s)))
	return s
}

func (r *reader) addr(six bool) netip.Addr {
	if six {
		if b := r.take(16); b != nil {
			a := netip.AddrFrom16([16]byte(b))
			r.failed = r.failed || a.Is4In6()
			return a
		}
		return netip.Addr{}
	}
	if b := r.take(4); b != nil {
		return netip.AddrFrom4([4]byte(b))
	}
	return netip.Addr{}
}

func (r *reader) change() change {
	bits := r.u8()
	c := change{addr: r.addr(bits&bitIPv6 != 0), notWanted: bits&bitNotWanted != 0, stranger: bits&bitStranger != 0}
	if bits&bitReleased == 0 {
		c.term = r.u64()
		r.failed = r.failed || c.term == 0 || c.term > maxTerm || c.notWanted || c.stranger
	}
	r.failed = r.failed || bits > bitIPv6|bitReleased|bitNotWanted|bitStranger
	return c
}

func (r *reader) changes() []change {
	n := int(r.u16())
	if n*5 > len(r.b) { // The shortest change is a released IPv4 address.
		r.failed = true
		return nil
	}
	all := make([]change, 0, n)
	for range n {
		all = append(all, r.change())
	}
	return all
}

func (r *reader) envelope() (e envelope) {
	e.cluster, e.boot, e.sequence = r.u64(), r.u64(), r.u64()
	copy(e.mac[:], r.take(len(e.mac)))
	e.node = r.text(maxNode)
	r.failed = r.failed || e.node == ""
	return e
}

// end returns an error unless the whole frame has been read.
func (r *reader) end() error {
	if r.failed || len(r.b) > 0 {
		return errMalformed
	}
	return nil
}

// open reads the header of a frame.
func open(frame []byte) (kind, *reader, error) {
	if len(frame) < headerSize || len(frame) > maxFrame || binary.BigEndian.Uint16(frame) != magic || frame[2] != version {
		return 0, nil, errMalformed
	}
	return kind(frame[3]), &reader{b: frame[headerSize:]}, nil
}

func (b beat) encode() []byte {
	w := begin(kindBeat)
	w.u64(uint64(b.id))
	w.u32(b.chain)
	w.u32(b.index)
	w.bytes(b.secret[:])
	w.u32(b.state)
	w.u32(b.claims)
	return w
}

func (r *reader) beat() (b beat, err error) {
	b.id, b.chain, b.index, b.secret = ID(r.u64()), r.u32(), r.u32(), r.secret()
	b.state, b.claims = r.u32(), r.u32()
	return b, r.end()
}

func (a ask) encode() []byte {
	w := begin(kindAsk)
	w.u64(uint64(a.id))
	w.u32(a.claims)
	w.u16(a.page)
	return w
}

func (r *reader) ask() (a ask, err error) {
	a.id, a.claims, a.page = ID(r.u64()), r.u32(), r.u16()
	return a, r.end()
}

func (s suspect) encode() []byte {
	w := begin(kindSuspect)
	w.u64(uint64(s.id))
	w.u32(s.chain)
	w.u32(s.index)
	return w
}

func (r *reader) suspect() (s suspect, err error) {
	s.id, s.chain, s.index = ID(r.u64()), r.u32(), r.u32()
	return s, r.end()
}

// Limits of a Hello. A Hello that reaches all of them stays below maxFrame.
const (
	maxPrefixes  = 16
	maxHears     = 64
	maxInterface = 15 // IFNAMSIZ of Linux, less the terminating zero
)

func (h hello) encode(w *writer) {
	w.u32(h.state)
	w.u32(h.claims)
	w.u8(h.flags)
	w.u16(h.period)
	w.u32(h.chain)
	w.u32(h.length)
	w.u32(h.index)
	w.bytes(h.secret[:])
	w.text(h.ifname)
	w.u8(uint8(len(h.prefixes))) //nolint:gosec // At most maxPrefixes.
	for _, p := range h.prefixes {
		var bits uint8
		if p.Addr().Is6() {
			bits = bitIPv6
		}
		w.u8(bits)
		w.addr(p.Addr())
		w.u8(uint8(p.Bits())) //nolint:gosec // At most 128.
	}
	w.u8(uint8(len(h.hears))) //nolint:gosec // At most maxHears.
	for _, boot := range h.hears {
		w.u64(boot)
	}
}

func (r *reader) hello() (h hello, err error) {
	h.state, h.claims, h.flags, h.period = r.u32(), r.u32(), r.u8(), r.u16()
	h.chain, h.length, h.index, h.secret = r.u32(), r.u32(), r.u32(), r.secret()
	h.ifname = r.text(maxInterface)
	n := int(r.u8())
	if n > maxPrefixes {
		return h, errMalformed
	}
	for range n {
		bits := r.u8()
		a := r.addr(bits == bitIPv6)
		p := netip.PrefixFrom(a, int(r.u8()))
		if r.failed || bits > bitIPv6 || !p.IsValid() {
			return h, errMalformed
		}
		h.prefixes = append(h.prefixes, p)
	}
	n = int(r.u8())
	if n > maxHears {
		return h, errMalformed
	}
	for range n {
		h.hears = append(h.hears, r.u64())
	}
	if h.period < minPeriod || h.period > maxPeriod || h.length > maxChain || h.index > h.length {
		return h, errMalformed
	}
	return h, r.end()
}

func (u update) encode(w *writer) {
	w.u32(u.from)
	w.u32(u.to)
	if u.all {
		w.u8(1)
	} else {
		w.u8(0)
	}
	w.changes(u.changes)
}

func (r *reader) update() (u update, err error) {
	u.from, u.to = r.u32(), r.u32()
	all := r.u8()
	u.all, u.changes = all == 1, r.changes()
	if all > 1 || u.to <= u.from {
		return u, errMalformed
	}
	return u, r.end()
}

func (p page) encode(w *writer) {
	w.u32(p.claims)
	w.u16(p.page)
	w.u16(p.pages)
	w.changes(p.entries)
}

func (r *reader) page() (p page, err error) {
	p.claims, p.page, p.pages = r.u32(), r.u16(), r.u16()
	p.entries = r.changes()
	if p.page >= p.pages || p.pages > maxPages || !allClaimed(p.entries) {
		return p, errMalformed
	}
	return p, r.end()
}

func (f former) encode(w *writer) {
	w.u64(f.boot)
	w.changes(f.entries)
}

func (r *reader) former() (f former, err error) {
	f.boot = r.u64()
	f.entries = r.changes()
	if !allClaimed(f.entries) {
		return f, errMalformed
	}
	return f, r.end()
}

func allClaimed(entries []change) bool {
	for _, e := range entries {
		if e.term == 0 {
			return false
		}
	}
	return true
}

const (
	// maxClaims bounds the memory that one neighbour can use up. Claims beyond it are ignored.
	maxClaims = 16_384
	// maxPages is enough for maxClaims: a page has room for at least 33 IPv6 addresses.
	maxPages = maxClaims / 32
	// noPage is the number of no page.
	noPage = 1<<16 - 1
)
