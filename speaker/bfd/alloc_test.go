package bfd

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"
)

func TestSendingAndReceivingAllocateNothing(t *testing.T) {
	there := cable(t)
	for _, pair := range [][2]netip.Addr{{here4, there4}, {here6, there6}} {
		s := New(zaptest.NewLogger(t), nil)
		var err error
		if s.poller, err = newPoller(); err != nil {
			t.Fatal(err)
		}
		defer s.end()
		if faults := s.Set([]Session{session("peer", pair[1])}); faults != nil {
			t.Fatal(faults)
		}
		turn := func() {
			if err := s.poller.wait(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			s.turn(false)
		}
		turn()
		m := s.members["peer"]
		var conn *net.UDPConn
		if err := there.Do(func() (err error) {
			conn, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(pair[0], portSingleHop)))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		raw, err := conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var failed error
		if err := raw.Control(func(fd uintptr) {
			failed = set(int(fd), pair[0].Is4(), [3]int{unix.IP_TTL, unix.IPV6_UNICAST_HOPS, 255})
		}); err != nil || failed != nil {
			t.Fatal(err, failed)
		}
		p := peer(Down)
		p.mine, p.yours, p.poll, p.multiplier = 5, m.mine, true, 255 // A long detection time, however slow the test is.
		say := func(state State) {
			p.state = state
			p.marshal(&m.buffer)
			if _, err := conn.Write(m.buffer[:]); err != nil {
				t.Fatal(err)
			}
			turn()
		}
		say(Down)
		say(Up)
		if m.state != Up {
			t.Fatalf("state %v", m.state)
		}
		before := m.sent
		got, turns := m.received, 100
		if n := testing.AllocsPerRun(turns, func() { say(Up) }); n != 0 {
			t.Errorf("%v: %v allocations for each packet that is received and answered", pair[0], n)
		}
		if m.sent-before < uint64(turns) || m.received-got < uint64(turns) {
			t.Errorf("%d packets were sent and %d received in %d turns", m.sent-before, m.received-got, turns)
		}
	}
}
