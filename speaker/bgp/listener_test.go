package bgp

import (
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
