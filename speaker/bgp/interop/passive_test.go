package interop

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/e2e/lab/rack"
	"github.com/heraldlb/herald/e2e/lab/router"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/bgp/route"
	"golang.org/x/sys/unix"
)

// Two routers connect to the same port of this node. If one of them goes and comes back, the other is not disturbed.
func TestPassivePeersShareAPort(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		a, b := newBench(t, kind), newBench(t, kind)
		port := 1790 + uint16(a.Number)
		pa, pb := a.peer("a"), b.peer("b")
		for r, p := range map[*bench]*bgp.Peer{a: &pa, b: &pb} {
			way{passive: true}.on(port, r, p)
			r.Start()
		}
		s := newSpeaker(t, pa, pb)
		s.Set(vip4, to(route.Attributes{}, "a"))
		s.Set(vip6, to(route.Attributes{}, "b"))
		a.hears(a.plain(vip4))
		b.hears(b.plain(vip6))
		up := s.up("a")
		s.peers(pa)
		b.hears()
		s.peers(pa, pb)
		b.hears(b.plain(vip6))
		s.undisturbed(up)
		s.stop()
		// A process that another test starts inherits the socket until it executes its program.
		rack.Eventually(t, func() error { return listens(netip.AddrPortFrom(a.Node4, port)) })
	})
}

// Another BGP daemon may have the port. Without a passive peer this has no effect. With a passive peer the session comes up as
// soon as the port is free.
func TestAPortThatIsTaken(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Config.Neighbors[0].Port = bgp.DefaultPort
		r.Start()
		address := netip.AddrPortFrom(r.Node4, bgp.DefaultPort)
		other, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(address))
		r.Must(err)
		defer func() { _ = other.Close() }()

		p := r.peer("tor")
		p.Passive, p.LocalAddress = true, r.Node4
		s := newSpeaker(t, p)
		s.Set(vip4, to(route.Attributes{}, "tor"))
		rack.Eventually(t, func() error { return s.down("tor", "address already in use") })
		r.Must(other.Close())
		r.hears(r.plain(vip4))
	})
}

func TestNothingListensWithoutAPassivePeer(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Start()
		p := r.peer("tor")
		p.LocalAddress = r.Node4
		s := newSpeaker(t, p)
		s.up("tor")
		if err := listens(netip.AddrPortFrom(r.Node4, bgp.DefaultPort)); err != nil {
			t.Error(err)
		}
	})
}

// An interface is deleted and created again with the same name, such as a VLAN when the network is reconfigured. A socket that
// was bound to the old interface receives nothing from the new one. The test connects in place of the router.
func TestPassivePeersAreWaitedForOnAnInterfaceThatIsMadeAnew(t *testing.T) {
	t.Parallel()
	r := newBench(t, rack.FRR)
	port := 1790 + uint16(r.Number)
	near, far := netip.MustParseAddr("fe80::a"), netip.MustParseAddr("fe80::b")
	addresses := func() {
		r.OnNode("ip addr replace %v/24 dev %[3]s; ip addr replace %[2]v/64 dev %[3]s", r.Node4, near, r.Port)
		r.OnRouter("ip addr replace %v/24 dev eth0; ip addr replace %v/64 dev eth0", r.Router4, far)
	}
	global, local := r.peer("global"), r.peer("local")
	global.Interface = r.Port
	local.Address, local.LocalAddress = far.WithZone(r.Port), near.WithZone(r.Port)
	s := newSpeaker(t)
	opens := func() {
		t.Helper()
		i, err := net.InterfaceByName(r.Port)
		r.Must(err)
		for _, p := range []*bgp.Peer{&global, &local} {
			p.Passive, p.Port, p.InterfaceIndex = true, port, i.Index
		}
		s.peers(global, local)
		rack.Eventually(t, func() error { return r.receivesOpen(r.Router4, netip.AddrPortFrom(r.Node4, port)) })
		rack.Eventually(t, func() error { return r.receivesOpen(far, netip.AddrPortFrom(near, port)) })
	}
	addresses()
	opens()
	r.OnNode("ip link delete %s", r.Port)
	r.Must(enclave.Connect(enclave.Host{}, r.Port, r.Host, "eth0"))
	addresses()
	opens()
}

// receivesOpen returns nil if the node begins a session with a client that connects from eth0 of the router. It does not use
// package net, which knows the interfaces of only one network namespace.
func (r *bench) receivesOpen(from netip.Addr, to netip.AddrPort) error {
	return r.Host.Do(func() error {
		domain, source, destination := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: from.As16()}), unix.Sockaddr(&unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())})
		if from.Is4() {
			domain, source, destination = unix.AF_INET, &unix.SockaddrInet4{Addr: from.As4()}, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
		}
		fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		bounds := unix.Timeval{Sec: 2} // for the connect and the read
		if err := errors.Join(
			unix.BindToDevice(fd, "eth0"), unix.Bind(fd, source),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &bounds), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &bounds),
		); err != nil {
			return err
		}
		if err := unix.Connect(fd, destination); err != nil {
			return fmt.Errorf("connect to %v: %w", to, err)
		}
		message := make([]byte, 19)
		if n, err := unix.Read(fd, message); err != nil || n < len(message) || message[18] != 1 { // OPEN (RFC 4271 section 4.1)
			return fmt.Errorf("%v sends % x: %w", to, message[:max(n, 0)], err)
		}
		return nil
	})
}

// listens returns nil if the test can listen at an address, because no other process does.
func listens(at netip.AddrPort) error {
	socket, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	return socket.Close()
}

// A router that connects again and again, and a stranger that connects, delay nothing.
func TestConnectionsThatNobodyWants(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Config.Neighbors[0].Port = bgp.DefaultPort
		r.Start()
		p := r.peer("tor")
		p.Passive, p.LocalAddress = true, r.Node4
		s := newSpeaker(t, p)
		s.Set(vip4, to(route.Attributes{}, "tor"))
		r.hears(r.plain(vip4))
		up := s.up("tor")
		for from, closed := range map[netip.Addr]int{r.Router4: 50, r.Router4.Next(): 5} {
			r.Must(r.Host.Script("ip addr replace %v/24 dev eth0", from))
			for range closed {
				r.Must(r.Host.Do(func() error {
					d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: 5 * time.Second}
					conn, err := d.Dial("tcp4", netip.AddrPortFrom(r.Node4, bgp.DefaultPort).String())
					if err != nil {
						return err
					}
					if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
						return err
					}
					if n, err := conn.Read(make([]byte, 1)); n > 0 || isTimeout(err) {
						return errors.New("the connection is not closed")
					}
					return conn.Close()
				}))
			}
		}
		s.undisturbed(up)
		r.hears(r.plain(vip4))
	})
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}
