package interop

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/heraldlb/herald/speaker/bgp"
)

// Two routers connect to one port of this node, each with its own password. A password that changes, and a peer that
// goes, do not disturb the other.
func TestPassivePeers(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		a, b := newRack(t, kind), newRack(t, kind)
		port := 1790 + uint16(a.node4.As4()[2])
		for _, r := range []*rack{a, b} {
			r.config.Neighbors[0].Port, r.config.Neighbors[0].Password = port, "secret-"+r.port
		}
		peer := func(r *rack, name, password string) bgp.Peer {
			p := r.peer(name)
			p.Passive, p.Port, p.Password = true, port, password
			return p
		}
		a.start()
		b.start()
		pa, pb := peer(a, "a", "secret-"+a.port), peer(b, "b", "wrong")
		s := newSpeaker(t, pa, pb)
		s.Set(vip4, to(bgp.Attributes{}, "a"))
		s.Set(vip6, to(bgp.Attributes{}, "b"))
		a.hears(a.plain(vip4))
		eventually(t, func() error { return s.down("b", "the router has not connected to port") })
		up := s.up("a")

		pb.Password = "secret-" + b.port
		s.peers(pa, pb)
		b.hears(b.plain(vip6))
		s.undisturbed(up)

		s.peers(pa)
		b.hears()
		s.undisturbed(up)
		s.peers(pa, pb)
		b.hears(b.plain(vip6))
		s.undisturbed(up)

		// A router that restarts comes back.
		a.must(a.router.Kill())
		a.start()
		a.hears(a.plain(vip4))
		s.stop()
		if err := listens(netip.AddrPortFrom(a.node4, port)); err != nil {
			t.Error(err)
		}
	})
}

func TestPassiveOverIPv6WithTTLSecurity(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		n := &r.config.Neighbors[0]
		n.Address, n.Port, n.TTLSecurity = r.node6, bgp.DefaultPort, 1
		r.start()
		p := r.peer("tor")
		p.Passive, p.LocalAddress, p.Address, p.TTLSecurity = true, r.node6, r.router6, 1
		p.NextHop4, p.NextHop6 = r.node4, netip.Addr{}
		s := newSpeaker(t, p)
		s.Set(vip4, to(bgp.Attributes{}, "tor"))
		s.Set(vip6, to(bgp.Attributes{}, "tor"))
		r.hears(r.plain(vip4), r.plain(vip6))
	})
}

// Another BGP daemon may have the port. Without a passive peer nobody notices, and with one the session comes up as soon
// as the port is free.
func TestAPortThatIsTaken(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		r.config.Neighbors[0].Port = bgp.DefaultPort
		r.start()
		address := netip.AddrPortFrom(r.node4, bgp.DefaultPort)
		other, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(address))
		r.must(err)
		defer func() { _ = other.Close() }()

		p := r.peer("tor")
		p.Passive, p.LocalAddress = true, r.node4
		s := newSpeaker(t, p)
		s.Set(vip4, to(bgp.Attributes{}, "tor"))
		eventually(t, func() error { return s.down("tor", "address already in use") })
		r.must(other.Close())
		r.hears(r.plain(vip4))
	})
}

func TestNothingListensWithoutAPassivePeer(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		r.start()
		p := r.peer("tor")
		p.LocalAddress = r.node4
		s := newSpeaker(t, p)
		s.up("tor")
		if err := listens(netip.AddrPortFrom(r.node4, bgp.DefaultPort)); err != nil {
			t.Error(err)
		}
	})
}

// listens is nil if nobody else does.
func listens(at netip.AddrPort) error {
	socket, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	return socket.Close()
}

// A router that connects without end, or as a stranger, holds nothing up.
func TestConnectionsThatNobodyWants(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		r := newRack(t, kind)
		r.config.Neighbors[0].Port = bgp.DefaultPort
		r.start()
		p := r.peer("tor")
		p.Passive, p.LocalAddress = true, r.node4
		s := newSpeaker(t, p)
		s.Set(vip4, to(bgp.Attributes{}, "tor"))
		r.hears(r.plain(vip4))
		up := s.up("tor")
		for from, closed := range map[netip.Addr]int{r.router4: 50, r.router4.Next(): 5} {
			r.must(r.host.Script("ip addr replace %v/24 dev eth0", from))
			for range closed {
				r.must(r.host.Do(func() error {
					d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: 5 * time.Second}
					conn, err := d.Dial("tcp4", netip.AddrPortFrom(r.node4, bgp.DefaultPort).String())
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

// Routers of one address, behind two devices, connect to one port.
func TestPassivePeersBehindTwoDevices(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		number := racks.Add(1)
		red, blue := newRackAt(t, kind, number, "red"), newRackAt(t, kind, number, "blue")
		var peers []bgp.Peer
		for name, r := range map[string]*rack{"red": red, "blue": blue} {
			port := 2790 + uint16(number) // Others listen on their addresses' port 179 meanwhile.
			r.config.Neighbors[0].Password, r.config.Neighbors[0].Port = name, port
			r.start()
			p := r.peer(name)
			p.Interface, p.Password, p.Passive, p.Port = r.port, name, true, port
			peers = append(peers, p)
		}
		s := newSpeaker(t, peers...)
		s.Set(vip4, to(bgp.Attributes{}, "red"))
		s.Set(vip6, to(bgp.Attributes{}, "blue"))
		red.hears(red.plain(vip4))
		blue.hears(blue.plain(vip6))
	})
}
