package bgp

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/heraldlb/herald/speaker/bgp/route"
)

// Parts of UPDATE messages (RFC 4271 section 4.3), in hexadecimal.
const (
	origin  = "40010100"
	asPath  = "40020602010000fbf4"
	nextHop = "4003047f000002"
	prefix  = "18cb0071" // 203.0.113.0/24
)

// update returns an UPDATE with these attributes and prefixes.
func update(attributes, prefixes string) []byte {
	a, p := unhex(attributes), unhex(prefixes)
	body := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(a)))
	return message(2, append(append(body, a...), p...))
}

func message(kind byte, body []byte) []byte {
	m := bytes.Repeat([]byte{0xff}, 16)
	m = binary.BigEndian.AppendUint16(m, uint16(19+len(body)))
	return append(append(m, kind), body...)
}

func unhex(text string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// malformed are malformed messages of an established session with their effect: 0 if the session goes on, as after most errors
// in an UPDATE (RFC 7606), and otherwise the code of the NOTIFICATION that ends it. gobgp ignores a second OPEN and the body of
// a KEEPALIVE.
var malformed = []struct {
	name    string
	message []byte
	code    byte
}{
	{"nothing wrong", update(origin+asPath+nextHop, prefix), 0},
	{"End-of-RIB", update("", ""), 0},
	{"an ORIGIN of 9", update("40010109"+asPath+nextHop, prefix), 0},
	{"an ORIGIN of two bytes", update("4001020000"+asPath+nextHop, prefix), 0},
	{"an ORIGIN that claims to be optional", update("c0010100"+asPath+nextHop, prefix), 0},
	{"no ORIGIN", update(asPath+nextHop, prefix), 0},
	{"no attributes", update("", prefix), 0},
	{"a segment of AS_PATH that goes on after its end", update(origin+"40020602090000fbf4"+nextHop, prefix), 0},
	{"a segment of AS_PATH of an unknown type", update(origin+"40020609010000fbf4"+nextHop, prefix), 0},
	{"a segment of AS_PATH without an AS", update(origin+"4002020200"+nextHop, prefix), 0},
	{"a NEXT_HOP of three bytes", update(origin+asPath+"4003037f0000", prefix), 0},
	{"a NEXT_HOP of multicast", update(origin+asPath+"400304e0000001", prefix), 0},
	{"an attribute twice", update(origin+origin+asPath+nextHop, prefix), 0},
	{"an unknown well-known attribute", update(origin+asPath+nextHop+"406301ff", prefix), 3},
	{"an unknown optional attribute", update(origin+asPath+nextHop+"c06304ffffffff", prefix), 0},
	{"a MED of three bytes", update(origin+asPath+nextHop+"800403000001", prefix), 0},
	{"an AGGREGATOR of five bytes", update(origin+asPath+nextHop+"c0070500007f0000", prefix), 0},
	{"COMMUNITIES of three bytes", update(origin+asPath+nextHop+"c00803fc0000", prefix), 0},
	{"EXTENDED COMMUNITIES of seven bytes", update(origin+asPath+nextHop+"c0100700020000000000", prefix), 0},
	{"LARGE COMMUNITIES of five bytes", update(origin+asPath+nextHop+"c020050000000000", prefix), 0},
	{"an ORIGINATOR_ID of one byte", update(origin+asPath+nextHop+"80090101", prefix), 0},
	{"a CLUSTER_LIST of two bytes", update(origin+asPath+nextHop+"800a020101", prefix), 0},
	{"an AS4_PATH of garbage", update(origin+asPath+nextHop+"c01105ff00000000", prefix), 0},
	{"a PMSI_TUNNEL of one byte", update(origin+asPath+nextHop+"c0160100", prefix), 0},
	{"a Tunnel Encapsulation that goes on after its end", update(origin+asPath+nextHop+"c01706000fffff0100", prefix), 0},
	{"an AIGP without a length", update(origin+asPath+nextHop+"801a0101", prefix), 0},
	{"a BGP-LS attribute that goes on after its end", update(origin+asPath+nextHop+"801d0404000fff", prefix), 0},
	{"a Prefix-SID of two bytes", update(origin+asPath+nextHop+"c028020100", prefix), 0},
	{"a Prefix-SID whose value is missing", update(origin+asPath+nextHop+"c02803010007", prefix), 0},
	{"a Prefix-SID of an SRv6 service without sub-TLVs", update(origin+asPath+nextHop+"c028040500 0100", prefix), 0},
	{"a Prefix-SID of an SRv6 service that goes on after its end", update(origin+asPath+nextHop+"c0280a0500070001ffff000000", prefix), 0},
	{"an SRv6 SID of one byte", update(origin+asPath+nextHop+"c028090500060001000101aa", prefix), 0},
	{"an MP_REACH_NLRI of three bytes", update(origin+asPath+"800e03000201", ""), 3},
	{"an MP_REACH_NLRI of an unknown family", update(origin+asPath+"800e09fffe fe04 01020304 00", ""), 0},
	{"an MP_REACH_NLRI with a next hop of three bytes", update(origin+asPath+"800e0a000201 03 010203 00 08 20", ""), 3},
	{"an MP_REACH_NLRI with a prefix of 129 bits", update(origin+asPath+"800e17000201 10 20010db8000000000000000000000001 00 81 20", ""), 3},
	{"an MP_UNREACH_NLRI of two bytes", update("800f020002", ""), 3},
	{"a prefix of 33 bits", update(origin+asPath+nextHop, "21cb00710000"), 3},
	{"a prefix that goes on after its end", update(origin+asPath+nextHop, "18cb"), 3},
	{"an attribute that goes on after its end", update(origin+asPath+"4003ff7f", prefix), 0},
	{"attributes that go on after the end", message(2, unhex("0000 00ff 40010100")), 3},
	{"withdrawn routes that go on after the end", message(2, unhex("00ff 0000")), 3},
	{"an UPDATE of one byte", message(2, []byte{0}), 3},
	{"a KEEPALIVE with a body", message(4, []byte{0}), 0},
	{"a message of an unknown type", message(9, nil), 1},
	{"a length below the header's", append(bytes.Repeat([]byte{0xff}, 16), 0, 18, 2), 1},
	{"a marker that is none", append(bytes.Repeat([]byte{0xfe}, 16), 0, 19, 4), 1},
	{"a second OPEN", openOf(64500), 0},
	{"a ROUTE-REFRESH of two bytes", message(5, []byte{0, 1}), 7},
}

// Whatever a router sends, it can harm only its own session, and that session comes up again.
func TestMalformedMessages(t *testing.T) {
	a := newArena(t, len(malformed))
	codes := make([]byte, len(malformed))
	var all sync.WaitGroup
	for i, c := range malformed {
		all.Go(func() {
			codes[i] = a.suffer(i, c.message)
			_ = a.dialIn(hostileAt(i)).Close()
		})
	}
	all.Wait()
	for i, c := range malformed {
		if codes[i] != c.code {
			t.Errorf("%s: NOTIFICATION of code %d, want %d", c.name, codes[i], c.code)
		}
	}
	a.undisturbed()
}

// A router that would never find a node dead gets no session, and the reason says how to correct this.
func TestARouterWithoutAHoldTime(t *testing.T) {
	a := newArena(t, 1)
	open := openOf(64500)
	copy(open[22:24], []byte{0, 0})
	code := byte(0)
	for deadline := time.Now().Add(patience); code == 0 && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		conn, err := dialFrom(hostileAt(0), a.at)
		if err != nil {
			continue
		}
		_ = conn.SetDeadline(deadline)
		_, _ = conn.Write(append(slices.Clone(open), message(4, nil)...))
		code, _ = (&routerEnd{conn}).until(3)
		_ = conn.Close()
	}
	if code != 6 {
		t.Fatalf("NOTIFICATION of code %d, want 6, Cease", code)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		i := slices.IndexFunc(a.speaker.Sessions(), func(s Session) bool { return s.Address == hostileAt(0) })
		if got := a.speaker.Sessions()[i]; strings.HasPrefix(got.Reason, "the router offers a hold time of 0") {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("%+v", got)
		}
	}
	a.undisturbed()
}

// Whatever capabilities a router offers, they are described in Herald's own words.
func TestOddCapabilities(t *testing.T) {
	odd := []struct{ name, capabilities, want string }{
		{"a host name with an escape code", "4907 03 1b5b41 02 0a0d", "route refresh"},
		{"a version with an escape code", "4b04 03 1b5b32", "software version"},
		{"an unknown one of 200 bytes", "63c8" + strings.Repeat("1b", 200), "capability 99"},
		{"an unknown family", "0104 270f00ff", "AFI 9999, SAFI 255"},
		{"graceful restart without a family", "4002 8078", "graceful restart, as a helper only"},
		{"graceful restart of 40 families", "40a2 4fff" + strings.Repeat("0001 01 80", 40), "graceful restart, 4095s, also on NOTIFICATION"},
		{"graceful restart twice", "4006 0078 0001 01 80 4002 0000", "graceful restart, 120s"},
		{"long-lived graceful restart of a year", "4707 0001 01 80 ffffff", "long-lived graceful restart, 4660h20m15s"},
		{"ADD-PATH of 50 families", "45c8" + strings.Repeat("0001 01 03", 50), "ADD-PATH"},
		{"an extended next hop of itself", "0506 0001 0001 0001", "extended next hop"},
		{"a route refresh with something in it", "0203 616263", "route refresh"},
		{"each a dozen times", strings.Repeat("0600 4600 8000 0400", 12), "enhanced route refresh"},
	}
	a := newArena(t, len(odd))
	var all sync.WaitGroup
	for i, c := range odd {
		all.Go(func() {
			r := a.dialIn(hostileAt(i), c.capabilities)
			// The router has the OPEN of the node a moment before the status has that of the router.
			var texts []string
			for deadline := time.Now().Add(patience); len(texts) == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				for _, d := range a.speaker.Details(t.Context()) {
					if d.Address == hostileAt(i) {
						texts = slices.Concat(d.Remote.Families, d.Remote.Others)
					}
				}
			}
			if !strings.Contains(strings.Join(texts, "|"), c.want) {
				t.Errorf("%s: no %q in %q", c.name, c.want, texts)
			}
			for _, text := range texts {
				if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) || len(text) > 80 {
					t.Errorf("%s: %q", c.name, text)
				}
			}
			_ = r.Close()
		})
	}
	all.Wait()
	a.undisturbed()
}

func FuzzMessage(f *testing.F) {
	for _, c := range malformed {
		f.Add(c.message[18], c.message[19:])
	}
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		if len(body) > 4096-19 {
			return
		}
		a := newArena(t, 1) // A new speaker each time: gobgp pauses for five seconds after each session.
		a.suffer(0, message(kind, body))
		a.undisturbed()
	})
}

// arena is a speaker with one good router and several hostile ones, which connect to it over the loopback interface.
type arena struct {
	t       testing.TB
	at      netip.AddrPort
	speaker *Speaker
	witness *routerEnd
}

func newArena(t testing.TB, hostile int) *arena {
	t.Helper()
	a := &arena{t: t, at: freePort(t)}
	// The debug log is formatted and then discarded: gobgp logs the messages that it has received.
	s := New(zaptest.NewLogger(quiet{}))
	a.speaker = s
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		_ = a.witness.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	var peers []Peer
	exports := map[string]route.Attributes{}
	for i := -1; i < hostile; i++ {
		p := validPeer()
		p.Name, p.Address, p.Passive, p.Port = fmt.Sprint("router", i), hostileAt(i), true, a.at.Port()
		peers = append(peers, p)
		exports[p.Name] = route.Attributes{}
	}
	s.Set(netip.MustParsePrefix("198.51.100.1/32"), exports)
	if faults := s.SetPeers(peers); faults != nil {
		t.Fatal(faults)
	}
	a.witness = a.dialIn(hostileAt(-1))
	return a
}

// hostileAt returns the address of a hostile router; -1 is the good one.
func hostileAt(i int) netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 1, byte(i + 2)}) }

// suffer makes a router send a message in an established session. It returns the code of the NOTIFICATION that the router gets,
// or 0 if it gets none.
func (a *arena) suffer(hostile int, m []byte) (code byte) {
	r := a.dialIn(hostileAt(hostile))
	// If the session still exists, the speaker answers a ROUTE-REFRESH with its routes.
	_, _ = r.Write(append(slices.Clone(m), refresh...))
	code, _ = r.until(2)
	_ = r.Close()
	return code
}

// undisturbed checks that the good router still has the same session.
func (a *arena) undisturbed() {
	a.t.Helper()
	_ = a.witness.SetDeadline(time.Now().Add(patience))
	_, err := a.witness.Write(refresh)
	if err == nil {
		_, err = a.witness.until(2)
	}
	if err != nil {
		a.t.Errorf("the session with the other router was disturbed: %v", err)
	}
}

// refresh is a ROUTE-REFRESH for IPv4 (RFC 2918).
var refresh = message(5, []byte{0, 1, 0, 1})

const patience = 60 * time.Second

// routerEnd is a router's end of a session.
type routerEnd struct{ net.Conn }

// dialIn connects as a router, and returns when it has heard the route.
func (a *arena) dialIn(from netip.Addr, capabilities ...string) *routerEnd {
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	deadline := time.After(patience)
	for {
		r, err := tryDialIn(from, a.at, openOf(64500, capabilities...))
		if err == nil {
			return r
		}
		select {
		case <-again.C:
		case <-deadline:
			a.t.Errorf("%v has no session: %v", from, err)
			return &routerEnd{&net.TCPConn{}} // Every use of this connection fails.
		}
	}
}

func dialFrom(from netip.Addr, at netip.AddrPort) (net.Conn, error) {
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: 10 * time.Second}
	return dialer.Dial("tcp4", at.String())
}

func tryDialIn(from netip.Addr, at netip.AddrPort, open []byte) (*routerEnd, error) {
	conn, err := dialFrom(from, at)
	if err != nil {
		return nil, err
	}
	r := &routerEnd{conn}
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err = conn.Write(append(open, message(4, nil)...)); err == nil {
		_, err = r.until(2)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return r, nil
}

// next reads the next message.
func (r *routerEnd) next() (kind byte, body []byte, err error) {
	header := make([]byte, 19)
	if _, err := io.ReadFull(r, header); err != nil {
		return 0, nil, err
	}
	body = make([]byte, int(binary.BigEndian.Uint16(header[16:]))-len(header))
	_, err = io.ReadFull(r, body)
	return header[18], body, err
}

// until reads messages until one is of the given kind, or returns the code of a NOTIFICATION.
func (r *routerEnd) until(kind byte) (code byte, err error) {
	for {
		next, body, err := r.next()
		switch {
		case err != nil:
			return 0, err
		case next == 3 && len(body) > 0:
			return body[0], fmt.Errorf("NOTIFICATION %v", body)
		case next == kind && len(body) > 4: // not End-of-RIB
			return 0, nil
		}
	}
}

// openOf returns an OPEN with both unicast families, route refresh, AS numbers of four bytes, and other capabilities in
// hexadecimal.
func openOf(asn uint16, others ...string) []byte {
	capabilities := unhex("0104 00010001 0104 00020001 0200 4104 0000")
	capabilities = binary.BigEndian.AppendUint16(capabilities, asn)
	capabilities = append(capabilities, unhex(strings.Join(others, ""))...)
	body := binary.BigEndian.AppendUint16([]byte{4}, asn)
	body = append(body, 0, 90, 198, 18, 0, 2, byte(2+len(capabilities)), 2, byte(len(capabilities)))
	return message(1, append(body, capabilities...))
}

func freePort(t testing.TB) netip.AddrPort {
	t.Helper()
	socket, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(socket.Addr().(*net.TCPAddr).Port))
}
