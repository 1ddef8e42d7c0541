package bfd

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"golang.org/x/sys/unix"
)

// Packets that anybody can send are counted and have no effect.
func TestHostilePackets(t *testing.T) {
	there := cable(t)
	a := start(t, enclave.Host{}, session("peer", there4))
	start(t, there, session("peer", here4))
	s := a.up("peer")

	var conn *net.UDPConn
	if err := there.Do(func() (err error) {
		conn, err = net.DialUDP("udp4", &net.UDPAddr{Port: 50000}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(here4, portSingleHop)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ttl := func(n int) {
		raw, err := conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var failed error
		if err := raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, n)
		}); err != nil || failed != nil {
			t.Fatal(err, failed)
		}
	}
	down := packet{state: Down, multiplier: 3, mine: 5, yours: s.Discriminator, desiredTx: time.Second, requiredRx: time.Second}
	edited := func(edit func([]byte)) []byte {
		b := wire(down)
		edit(b)
		return b
	}
	strange := down
	strange.yours++
	for _, c := range []struct {
		drop    Drop
		ttl     int
		payload []byte
	}{
		{DropTTL, 254, wire(down)},
		{DropTTL, 1, wire(down)},
		{DropLength, 255, wire(down)[:23]},
		{DropLength, 255, nil},
		{DropLength, 255, edited(func(b []byte) { b[3] = 255 })},
		{DropVersion, 255, edited(func(b []byte) { b[0] = 0 })},
		{DropMultiplier, 255, edited(func(b []byte) { b[2] = 0 })},
		{DropMultipoint, 255, edited(func(b []byte) { b[1] |= 1 })},
		{DropDiscriminator, 255, edited(func(b []byte) { clear(b[4:8]) })},
		{DropDiscriminator, 255, wire(strange)},
		{DropAuthentication, 255, append(edited(func(b []byte) { b[1] |= 4; b[3] = 28 }), 1, 4, 1, 'x')},
		{DropInterval, 255, edited(func(b []byte) { b[12] = 0xff })},
	} {
		before := a.status("peer")
		ttl(c.ttl)
		if _, err := conn.Write(c.payload); err != nil {
			t.Fatal(err)
		}
		a.await("peer", "counting "+c.drop.String(), func(s Status) bool { return s.Drops[c.drop] == before.Drops[c.drop]+1 })
	}
	// One packet comes from an unknown address.
	script(t, there, "ip addr add 198.18.0.66/24 dev eth0")
	if err := there.Do(func() error {
		other, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(198, 18, 0, 66)}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(here4, portSingleHop)))
		if err != nil {
			return err
		}
		defer other.Close()
		_, err = other.Write(wire(down))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	a.await("peer", "counting those of strangers", func(Status) bool { return a.Drops()[DropNoSession] == 1 })
	if now := a.status("peer"); now.State != Up || now.Since != s.Since {
		t.Errorf("the session was %+v, and is %+v", s, now)
	}
}

// Packets of a session over one hop must arrive on the same interface as long as the session is not Down.
func TestInterfaceOfPackets(t *testing.T) {
	m := &member{Session: session("peer", there4), machine: newMachine(epoch, New(nil, nil).rand, 7, fast)}
	from := func(index int, s State) Drop {
		p := peer(s)
		p.yours = 7
		return m.take(epoch, arrival{from: there4, ttl: 255, index: index}, wire(p))
	}
	for _, c := range []struct {
		index int
		state State
		want  Drop
	}{{2, Down, Accepted}, {3, Down, DropInterface}, {2, Up, Accepted}, {3, Down, DropInterface}, {2, Up, Accepted}} {
		if got := from(c.index, c.state); got != c.want {
			t.Errorf("%v by interface %d: %v, want %v", c.state, c.index, got, c.want)
		}
	}
	if m.state != Up {
		t.Errorf("state %v", m.state)
	}
}
