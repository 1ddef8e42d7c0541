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

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/heraldlb/herald/speaker/bgp/route"
)

// The router hears the role of this node, and a session comes up exactly with the roles that RFC 9234 permits, and with a router
// that has none.
func TestASessionNeedsRolesThatFit(t *testing.T) {
	for i, ours := range append([]Role{""}, roles...) {
		for _, c := range []struct {
			theirs []byte
			fits   bool
		}{
			{nil, true}, {[]byte{0}, ours == "" || ours == RoleCustomer}, {[]byte{1}, ours == "" || ours == RoleRSClient},
			{[]byte{2}, ours == "" || ours == RoleRSServer}, {[]byte{3}, ours == "" || ours == RoleProvider}, {[]byte{4}, ours == "" || ours == RolePeer},
			{[]byte{5}, ours == ""}, {[]byte{3, 3}, ours == "" || ours == RoleProvider}, {[]byte{3, 0}, ours == ""},
		} {
			t.Run(fmt.Sprintf("%s with %v", ours, c.theirs), func(t *testing.T) {
				t.Parallel()
				s := newComing(t, nil, func(p *Peer) { p.Role = ours })
				s.dials()
				open := s.expects(bgp.BGP_MSG_OPEN)
				var want []byte
				if ours != "" {
					want = []byte{byte(i - 1)}
				}
				if got := rolesIn(message(1, open)); !bytes.Equal(got, want) || open[9] != byte(len(open)-10) || open[11] != byte(len(open)-12) {
					t.Errorf("the OPEN % x has the roles %v, want %v", open, got, want)
				}
				offered := ""
				for _, role := range c.theirs {
					offered += fmt.Sprintf("0901%02x", role)
				}
				s.send(openOf(64500, offered))
				if c.fits {
					s.expects(bgp.BGP_MSG_KEEPALIVE)
					return
				}
				if got := s.expects(bgp.BGP_MSG_NOTIFICATION); !bytes.Equal(got, []byte{2, 11}) {
					t.Errorf("NOTIFICATION %v, want Role Mismatch", got)
				}
				why := fmt.Sprintf("spec.role is %s, so the router must have the BGP role %s, and it has %s (RFC 9234)", ours, ours.other(), roleNames(slices.Compact(c.theirs)))
				s.eventually("the reason names both roles", func() bool { return strings.HasPrefix(s.reason(), why) })
			})
		}
	}
}

// A capability without a role, or with more than one byte, is no role that fits.
func TestARoleThatIsNotValid(t *testing.T) {
	for _, c := range []string{"0900", "09020300"} {
		if got := rolesIn(openOf(64500, c)); !slices.Equal(got, []byte{255}) || RoleCustomer.fits(got) {
			t.Errorf("%s: roles %v", c, got)
		}
	}
}

// gobgp answers a NOTIFICATION before a session with another one, and does not tell what it says.
func TestWhatARouterSaysBeforeASession(t *testing.T) {
	for _, c := range []struct {
		name string
		open []byte
		says []byte
		want string
	}{
		{"at once", nil, []byte{6, 5}, "the router ended the session: Cease, Connection Rejected"},
		{"with a message", nil, append([]byte{6, 2, 4}, "gone"...), `the router ended the session: Cease, Administrative Shutdown ("gone")`},
		{"with a message that is cut off", nil, []byte{6, 4, 200, 1}, "the router ended the session: Cease, Administrative Reset"},
		{"with data", nil, []byte{2, 6, 1, 2, 3}, "the router ended the session: OPEN Message Error, Unacceptable Hold Time"},
		{"after its OPEN", openOf(64500), []byte{2, 2, 0xfb, 0xf4}, "the router refused our OPEN: it expects another AS number than 64512 (spec.localASN)"},
		{"it wants a role", openOf(64500, "090100"), []byte{2, 11}, "the router insists on a BGP role of this node (RFC 9234): write in spec.role what this node is to the router; the role of the router is Provider"},
		{"it has no role itself", openOf(64500), []byte{2, 11}, "the router insists on a BGP role of this node (RFC 9234): write in spec.role what this node is to the router"},
		{"one without a code", nil, nil, "the router closed the connection without an answer to our OPEN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newComing(t, nil)
			s.dials()
			s.expects(bgp.BGP_MSG_OPEN)
			s.send(append(slices.Clone(c.open), message(bgp.BGP_MSG_NOTIFICATION, c.says)...))
			for {
				kind, body, err := s.router.next()
				if err != nil {
					break
				}
				if kind == bgp.BGP_MSG_NOTIFICATION {
					t.Errorf("the NOTIFICATION is answered with another: %v", body)
				}
			}
			s.eventually("the reason", func() bool { return strings.HasPrefix(s.reason(), c.want) })
		})
	}
}

// What arrives in pieces, or together, is read as it was sent.
func TestMessagesInPieces(t *testing.T) {
	s := newComing(t, nil)
	s.announce("198.51.100.1/32")
	s.dials()
	s.expects(bgp.BGP_MSG_OPEN)
	for _, piece := range [][]byte{openOf(64500)[:7], openOf(64500)[7:25], append(openOf(64500)[25:], message(4, nil)[:18]...), append(message(4, nil)[18:], refresh...)} {
		s.send(piece)
	}
	s.hears("198.51.100.1/32")
}

// This node connects to a router that is not passive, again and again, and tells why there is no session.
func TestTheNodeConnects(t *testing.T) {
	at := hostileAt(7)
	socket, err := net.Listen("tcp4", netip.AddrPortFrom(at, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	port := socket.Addr().(*net.TCPAddr).AddrPort().Port()
	if err := socket.Close(); err != nil {
		t.Fatal(err)
	}
	c := newComing(t, nil, func(p *Peer) { p.Passive, p.Address, p.Port, p.LocalAddress = false, at, port, hostileAt(8) })
	c.announce("198.51.100.1/32")
	c.eventually("it is refused", func() bool { return strings.HasPrefix(c.reason(), "connection refused") })
	refused := c.speaker.Sessions()[0].LastError.At
	if socket, err = net.Listen("tcp4", netip.AddrPortFrom(at, port).String()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	accept := func() {
		t.Helper()
		conn, err := socket.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if from := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); from != hostileAt(8) {
			t.Errorf("it connects from %v", from)
		}
		c.router = &routerEnd{conn}
		_ = conn.SetDeadline(time.Now().Add(patience))
		c.expects(bgp.BGP_MSG_OPEN)
	}
	accept()
	if waited := time.Since(refused); waited < DefaultConnectRetry*3/4 {
		t.Errorf("it tries again after %v; spec.connectRetryTime is %v", waited, DefaultConnectRetry)
	}
	c.send(message(bgp.BGP_MSG_NOTIFICATION, []byte{6, 5}))
	c.eventually("the router refuses the session", func() bool {
		return strings.HasPrefix(c.reason(), "the router ended the session: Cease, Connection Rejected")
	})
	refused = time.Now()
	accept()
	if waited := time.Since(refused); waited < 2*time.Second {
		t.Errorf("it tries again %v after a NOTIFICATION", waited)
	}
	_ = c.router.Close()
	for range 2 {
		accept()
		c.send(openOf(64500))
		c.establish()
		c.hears("198.51.100.1/32")
		_ = c.router.Close()
		clear(c.has)
		c.eventually("the end of the session", func() bool { return !c.status.established() })
	}
}

// A connection is opened when gobgp waits for one, and is given to gobgp only if it still waits.
func TestConnectionsAreOpenedWhenTheyAreWaitedFor(t *testing.T) {
	p := validPeer()
	p.Address, p.LocalAddress = hostileAt(10), hostileAt(11)
	p.Port = freePort(t).Port()
	s := &session{peer: p, status: newStatus(p, zap.NewNop(), func() {})}
	given := make(chan net.Conn)
	ctx, cancel := context.WithCancel(t.Context())
	began := time.Now()
	var dialler sync.WaitGroup
	dialler.Go(func() { s.dial(ctx, given) })
	defer dialler.Wait()
	defer cancel()
	enter := func(state State) { s.status.enter(state, time.Now(), "", reason{}, agreed{}) }
	taken := func() bool { return len(s.status.waits) == 0 }

	enter(Active)
	eventually(t, "the router refuses", func() bool { return strings.HasPrefix(s.status.session().Reason, "connection refused") })
	if waited := s.status.session().LastError.At.Sub(began); waited < dialPause*3/4 {
		t.Errorf("the first attempt is after %v, in which the router may not know that the session before has ended", waited)
	}
	enter(Idle)
	socket, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.Address, p.Port)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	late := accepted(t, socket)
	if n, err := late.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a connection for which nobody waits any more: %d bytes, %v, want its end", n, err)
	}

	enter(OpenSent)
	for range 2 { // When the second is taken, the first has had its effect.
		signal(s.status.waits) // It is late: gobgp has a connection.
		eventually(t, "nothing to do", taken)
	}
	enter(Active)
	conn := <-given
	defer func() { _ = conn.Close() }()
	last, err := dialFrom(p.LocalAddress, netip.AddrPortFrom(p.Address, p.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = last.Close() }()
	for _, want := range []net.Conn{conn, last} { // The kernel keeps the order.
		if got := accepted(t, socket); got.RemoteAddr().String() != want.LocalAddr().String() {
			t.Errorf("a connection from %v, want %v: one that nobody waited for", got.RemoteAddr(), want.LocalAddr())
		}
	}
}

// Whatever a router holds back, its session ends at once when its peer is removed, and leaves nothing behind.
func TestRoutersThatHoldBack(t *testing.T) {
	here := goleak.IgnoreCurrent()
	long := unhex("ffffffffffffffffffffffffffffffff 1000 01") // 4096 bytes
	var all sync.WaitGroup
	for i, sent := range [][]byte{
		nil, {0xff}, openOf(64500)[:18], openOf(64500)[:19], openOf(64500, "090100")[:40], append(long, make([]byte, 4000)...), openOf(64500),
		append(openOf(64500), message(4, nil)[:18]...),
	} {
		for _, passive := range []bool{true, false} {
			p := validPeer()
			p.Address, p.LocalAddress, p.Passive, p.Role = hostileAt(20+i), hostileAt(12), passive, RoleCustomer
			p.Port = freePort(t).Port()
			all.Go(func() {
				if err := holdBack(p, sent); err != nil {
					t.Errorf("% x: passive %v: %v", sent[:min(len(sent), 40)], passive, err)
				}
			})
		}
	}
	all.Wait()
	// gobgp's cleanInfiniteChannel may leave the goroutine of a queue behind.
	if err := goleak.Find(here, goleak.IgnoreTopFunction("github.com/eapache/channels.(*InfiniteChannel).infiniteBuffer")); err != nil {
		t.Error(err)
	}
}

// holdBack has the router of a peer send some bytes, one by one, and nothing more, and then removes the peer.
func holdBack(p Peer, sent []byte) (err error) {
	s := New(zap.NewNop())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-ended)
	}()
	router := &routerEnd{}
	if p.Passive {
		if faults := s.SetPeers([]Peer{p}); faults != nil {
			return fmt.Errorf("%v", faults)
		}
		if router, err = connectedFrom(p.Address, netip.AddrPortFrom(p.LocalAddress, p.Port)); err != nil {
			return err
		}
	} else {
		socket, err := net.Listen("tcp4", netip.AddrPortFrom(p.Address, p.Port).String())
		if err != nil {
			return err
		}
		defer func() { _ = socket.Close() }()
		if faults := s.SetPeers([]Peer{p}); faults != nil {
			return fmt.Errorf("%v", faults)
		}
		if router.Conn, err = socket.Accept(); err != nil {
			return err
		}
		_ = router.SetDeadline(time.Now().Add(patience))
		if _, err := router.until(bgp.BGP_MSG_OPEN); err != nil {
			return err
		}
	}
	defer func() { _ = router.Close() }()
	for _, b := range sent {
		if _, err := router.Write([]byte{b}); err != nil {
			return err
		}
	}
	began := time.Now()
	s.SetPeers(nil)
	for end := error(nil); end == nil; {
		_, _, end = router.next()
	}
	if took := time.Since(began); took > shutDownTime+3*time.Second {
		return fmt.Errorf("the session ends after %v", took)
	}
	return nil
}

// An OPEN of another layout than gobgp's present one is not sent, and the reason says so.
func TestARoleIsOfferedInAnOpenOfTheKnownLayout(t *testing.T) {
	changed := func(at int, to byte) []byte {
		m := openOf(64500)
		m[at] = to
		return m
	}
	room := func(n int) []byte { return openOf(64500, fmt.Sprintf("63%02x", n)+strings.Repeat("00", n)) }
	extended := func() []byte { // RFC 9072: 255, 255, and lengths of two bytes
		m := openOf(64500)
		parameters := append([]byte{255, 255, 0, byte(len(m) - 29 + 1), 2, 0, m[30]}, m[31:]...)
		return message(1, append(slices.Clone(m[19:28]), parameters...))
	}
	for _, c := range []struct {
		name string
		open []byte
		fits bool
	}{
		{"as it is", openOf(64500), true},
		{"the longest", room(254 - 2 - 20 - 2 - 3), true},
		{"one byte too long", room(254 - 2 - 20 - 2 - 3 + 1), false},
		{"no room at all", room(255 - 2 - 20 - 2), false},
		{"extended lengths", extended(), false},
		{"no parameters", message(1, openOf(64500)[19:28]), false},
		{"an empty list of parameters", message(1, append(slices.Clone(openOf(64500)[19:28]), 0)), false},
		{"another parameter", changed(29, 1), false},
		{"two parameters", message(1, append(slices.Clone(changed(28, openOf(64500)[28]+2)[19:]), 2, 0)), false},
		{"another length", changed(17, 200), false},
		{"another length of parameters", changed(28, 3), false},
		{"another length of capabilities", changed(30, 3), false},
		{"another version", changed(19, 5), false},
		{"a capability that is cut off", openOf(64500, "3003 30"), false},
		{"a role of its own", openOf(64500, "090104 090103"), false},
		{"no OPEN", message(4, nil), false},
		{"nothing", nil, false},
	} {
		for _, role := range roles {
			was := slices.Clone(c.open)
			with, err := role.offer(c.open)
			if !bytes.Equal(was, c.open) {
				t.Errorf("%s: the OPEN of gobgp is changed", c.name)
			}
			if !c.fits {
				if !errors.Is(err, errLayout) || with != nil {
					t.Errorf("%s: %v, % x", c.name, err, with)
				}
				continue
			}
			if got := rolesIn(with); err != nil || len(got) != 1 || roleName(got[0]) != string(role) {
				t.Errorf("%s: %v, roles %v, want %s", c.name, err, got, role)
			}
		}
		if with, err := Role("").offer(c.open); err != nil || !bytes.Equal(with, c.open) {
			t.Errorf("%s: without a role: %v, % x", c.name, err, with)
		}
	}

	router, conn := ends(t, loopback(t))
	p := validPeer()
	p.Role = RoleCustomer
	h := newStatus(p, zap.NewNop(), func() {}).shake(conn)
	if n, err := h.Write(extended()); n != 0 || !errors.Is(err, errLayout) {
		t.Errorf("%d bytes sent, %v", n, err)
	}
	if got, err := io.ReadAll(router); err != nil || len(got) > 0 {
		t.Errorf("the router gets % x, %v, want the end of the connection", got, err)
	}
	if got := h.status.session().Reason; got != errLayout.Error() {
		t.Errorf("reason %q", got)
	}
}

// A kernel that does not take a password is told of, whoever connects.
func TestAPasswordThatTheKernelRefuses(t *testing.T) {
	p := validPeer()
	p.Address, p.Password = hostileAt(9), strings.Repeat("x", maxPassword+1) // Validate refuses it, too.
	const why = "the kernel of this node does not take the password of spec.passwordSecret: invalid argument"
	if conn, err := connect(t.Context(), p, time.Second); err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("%v, %v, want %q", conn, err, why)
	}
	var plain net.ListenConfig
	plain.SetMultipathTCP(false)
	opened, err := plain.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket := opened.(*net.TCPListener)
	defer func() { _ = socket.Close() }()
	other := validPeer()
	good, bad := &member{peer: other, status: newStatus(other, zap.NewNop(), func() {})}, &member{peer: p, status: newStatus(p, zap.NewNop(), func() {})}
	l := listener{log: zap.NewNop(), socket: socket, keys: map[netip.Addr]string{}}
	l.expect([]*member{good, bad})
	if got := bad.status.session().Reason; !strings.HasPrefix(got, why) {
		t.Errorf("reason %q, want %q", got, why)
	}
	if got := good.status.session().Reason; got != "" {
		t.Errorf("the other peer has the reason %q", got)
	}
}

// Routes to customers, peers and the clients of a route server must not go up again (RFC 9234 section 5).
func TestRoutesAreMarkedForThoseBelow(t *testing.T) {
	for role, marked := range map[Role]bool{"": false, RoleProvider: true, RolePeer: true, RoleRSServer: true, RoleCustomer: false, RoleRSClient: false} {
		p := validPeer()
		p.LocalASN, p.Role = 4200000001, role
		all, err := pathAttributes(p, announcement{prefix: netip.MustParsePrefix("198.51.100.1/32"), nextHop: p.RouterID, Attributes: route.Attributes{}})
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		for _, a := range all {
			if a.GetType() == onlyToCustomer {
				got, _ = a.Serialize()
			}
		}
		if want := unhex("c02304fa56ea01"); marked != bytes.Equal(got, want) || !marked && got != nil {
			t.Errorf("to the other end of %q: OTC % x, marked should be %v", role, got, marked)
		}
	}
}

// Whatever a router sends before the session is established, gobgp reads the same bytes, or the end of the connection.
func FuzzHandshake(f *testing.F) {
	f.Add(append(openOf(64500, "090103"), message(4, nil)...), uint8(3))
	f.Add(append(openOf(64500, "0900 0902 0301"), refresh...), uint8(4))
	f.Add(append(message(3, []byte{6}), 1), uint8(0))
	f.Add(append(message(3, []byte{2, 11}), 1), uint8(0))
	f.Add(unhex("ffffffffffffffffffffffffffffffff ffff 01"), uint8(1))
	socket := loopback(f)
	f.Fuzz(func(t *testing.T, sent []byte, ours uint8) {
		router, conn := ends(t, socket)
		if _, err := router.Write(sent); err != nil || router.CloseWrite() != nil {
			t.Fatal(err)
		}
		p := validPeer()
		if ours > 0 {
			p.Role = roles[int(ours)%len(roles)]
		}
		h := newStatus(p, zap.NewNop(), func() {}).shake(conn)
		got, err := io.ReadAll(h)
		if !bytes.HasPrefix(sent, got) || err == nil && h.begun && len(got) != len(sent) {
			t.Errorf("%v: read % x of % x", err, got, sent)
		}
		if refused := errors.Is(err, errOpening); refused && h.status.session().Reason == "" && !bytes.Equal(sent[len(got)+16:][:3], []byte{0, 19, 3}) && !bytes.Equal(sent[len(got)+16:][:3], []byte{0, 20, 3}) {
			t.Errorf("refused without a reason after % x", got)
		}
	})
}

// Whatever capabilities a router offers, the roles among them are those that its bytes have.
func FuzzRoles(f *testing.F) {
	f.Add(unhex("090103"), false)
	f.Add(unhex("0900 090100 09020304 0200"), true)
	f.Add(unhex("0104 00010001 4600 0901ff"), false)
	f.Add(unhex("0905"), true)
	f.Add(unhex("0901 03 30"), true)
	f.Fuzz(func(t *testing.T, capabilities []byte, apart bool) {
		if len(capabilities) > 200 {
			return
		}
		open := openOf(64500, hex.EncodeToString(capabilities))
		if apart { // in a parameter of their own (RFC 5492 section 4)
			open = append(openOf(64500), append([]byte{2, byte(len(capabilities))}, capabilities...)...)
			binary.BigEndian.PutUint16(open[16:], uint16(len(open)))
			open[28] = byte(len(open) - 29) // Less than 256.
		}
		var want []byte
		for rest := capabilities; len(rest) > 1; { // gobgp ignores a single byte at the end.
			if len(rest) < 2+int(rest[1]) {
				want = nil // The OPEN is not valid.
				break
			}
			kind, value := rest[0], rest[2:2+int(rest[1])]
			if rest = rest[2+len(value):]; kind != 9 {
				continue
			}
			number := byte(255)
			if len(value) == 1 {
				number = value[0]
			}
			if !slices.Contains(want, number) {
				want = append(want, number)
			}
		}
		_, err := bgp.ParseBGPMessage(open)
		if got := rolesIn(open); !bytes.Equal(got, want) && (err == nil || got != nil) {
			t.Errorf("% x: roles %v, want %v (%v)", capabilities, got, want, err)
		}
		for _, ours := range roles {
			with, err := ours.offer(open)
			if err != nil {
				continue
			}
			if got := rolesIn(with); len(got) != 1 || roleName(got[0]) != string(ours) || !bytes.Contains(with, open[31:]) {
				t.Errorf("% x: roles %v in % x, want %s", open, got, with, ours)
			}
		}
	})
}

// loopback returns a socket that listens on the loopback interface. What loopback, accepted and ends return is closed when the test ends.
func loopback(t testing.TB) *net.TCPListener {
	t.Helper()
	socket, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	return socket
}

// accepted returns the next connection to a socket.
func accepted(t testing.TB, socket *net.TCPListener) *net.TCPConn {
	t.Helper()
	conn, err := socket.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// ends returns both ends of a new connection to a socket.
func ends(t testing.TB, socket *net.TCPListener) (router, node *net.TCPConn) {
	t.Helper()
	conn, err := net.Dial("tcp4", socket.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn), accepted(t, socket)
}

// dials has the router connect, and send nothing yet.
func (c *coming) dials() {
	c.t.Helper()
	c.eventually("the router connects", func() bool {
		if c.state() != Active {
			return false
		}
		conn, err := dialFrom(c.peer.Address, c.at)
		c.router = &routerEnd{conn}
		return err == nil && conn.SetDeadline(time.Now().Add(patience)) == nil
	})
}

// expects returns the body of the router's next message, which must be of a kind.
func (c *coming) expects(kind byte) []byte {
	c.t.Helper()
	got, body, err := c.router.next()
	if err != nil || got != kind {
		c.t.Fatalf("%v: message of type %d, want %d: % x", err, got, kind, body)
	}
	return body
}

func (c *coming) reason() string { return c.speaker.Sessions()[0].Reason }
