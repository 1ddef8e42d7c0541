package bgp

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
)

// If two peers have the same address and different passwords, the password of the first by name is used, whatever their order.
func TestTheFirstPeerOfAnAddressGivesThePassword(t *testing.T) {
	router := netip.MustParseAddr("198.18.0.254")
	of := func(name, password string) *member {
		return &member{peer: Peer{Name: name, Address: router, Password: password}}
	}
	for _, members := range [][]*member{{of("a", "one"), of("b", "two")}, {of("b", "two"), of("a", "one")}, {of("0", ""), of("a", "one")}} {
		if got := passwords(members)[router]; got != "one" {
			t.Errorf("%s comes first: the password is %q, want that of a", members[0].peer.Name, got)
		}
	}
}

// TestLinkLocalRoutersShareAKey has two routers with one address on two links: the kernel's key has no scope.
func TestLinkLocalRoutersShareAKey(t *testing.T) {
	on := func(name, link string) *member {
		return &member{peer: Peer{Name: name, Address: netip.MustParseAddr("fe80::1%" + link), Password: name}}
	}
	if got := passwords([]*member{on("b", "eth1"), on("a", "eth0")}); len(got) != 1 || got[netip.MustParseAddr("fe80::1")] != "a" {
		t.Errorf("%v, want that of the first by name", got)
	}
}

// TestTheNewestConnectionIsTaken: a router that gives connections up and opens new ones, while the session takes none, does not have to
// wait until the session has taken all of them.
func TestTheNewestConnectionIsTaken(t *testing.T) {
	socket := loopback(t)
	m := &member{peer: Peer{Address: netip.MustParseAddr("127.0.0.1")}, accepted: make(chan *net.TCPConn, 1)}
	l := &listener{members: []*member{m}}
	var routers []*net.TCPConn
	for range 6 {
		router, conn := ends(t, socket)
		routers = append(routers, router)
		l.handOver(conn)
	}
	newest := routers[len(routers)-1]
	if taken := <-m.accepted; taken.RemoteAddr().String() != newest.LocalAddr().String() {
		t.Errorf("the connection from %v is taken, want that from %v", taken.RemoteAddr(), newest.LocalAddr())
	}
	for _, r := range routers[:len(routers)-1] {
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("a connection that was given up is not closed: %v", err)
		}
	}
}

// A router may be two peers, one of which says to which address of this node the router connects. Each gets its own connections,
// whatever the order of the peers.
func TestAConnectionIsForThePeerThatNamesItsAddress(t *testing.T) {
	socket := loopback(t)
	router := netip.MustParseAddr("127.0.0.1")
	exact := &member{peer: Peer{Address: router, LocalAddress: router}, accepted: make(chan *net.TCPConn, 1)}
	other := &member{peer: Peer{Address: router, LocalAddress: router.Next()}, accepted: make(chan *net.TCPConn, 1)}
	anywhere := &member{peer: Peer{Address: router}, accepted: make(chan *net.TCPConn, 1)}
	for _, c := range []struct {
		members []*member
		want    *member
	}{{[]*member{exact, anywhere}, exact}, {[]*member{anywhere, exact}, exact}, {[]*member{other, anywhere}, anywhere}, {[]*member{other}, nil}} {
		_, conn := ends(t, socket)
		(&listener{members: c.members}).handOver(conn)
		for _, m := range []*member{exact, other, anywhere} {
			if got := len(m.accepted) == 1; got != (m == c.want) {
				t.Errorf("%d peers, the first at %v: the one at %v gets the connection: %v", len(c.members), c.members[0].peer.LocalAddress, m.peer.LocalAddress, got)
			}
			discard(m.accepted)
		}
	}
}
