package interop

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/rack"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/bgp/route"
)

// Two routers connect to one port of this node. One that goes and comes does not disturb the other.
func TestPassivePeersShareAPort(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind rack.Kind) {
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
		// A process that another test starts has the socket, too, until it runs its program.
		rack.Eventually(t, func() error { return listens(netip.AddrPortFrom(a.Node4, port)) })
	})
}

// Another BGP daemon may have the port. Without a passive peer nobody notices, and with one the session comes up as soon
// as the port is free.
func TestAPortThatIsTaken(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind rack.Kind) {
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
	rack.Each(t, func(t *testing.T, kind rack.Kind) {
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
	rack.Each(t, func(t *testing.T, kind rack.Kind) {
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
