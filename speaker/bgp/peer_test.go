package bgp

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func validPeer() Peer {
	return Peer{
		Name: "tor", LocalASN: 64512, PeerASN: 64500, RouterID: netip.MustParseAddr("198.18.0.1"),
		Address: netip.MustParseAddr("198.18.0.2"),
	}
}

func TestValidateNamesTheFaultyField(t *testing.T) {
	for _, c := range []struct {
		fault  string // empty: none
		change func(*Peer)
	}{
		{"", func(*Peer) {}},
		{"", func(p *Peer) { p.Address = netip.MustParseAddr("fe80::1%eth0") }},
		{"", func(p *Peer) { p.HoldTime, p.KeepaliveTime = 3*time.Second, time.Second }},
		{"", func(p *Peer) { p.HoldTime = 10 * time.Second }}, // a third of it is not in whole seconds, but is the default
		{"", func(p *Peer) { p.GracefulRestart = &GracefulRestart{RestartTime: 2 * time.Minute} }},
		{"", func(p *Peer) { p.NextHop6 = netip.MustParseAddr("2001:db8::1") }},
		{"Name", func(p *Peer) { p.Name = "" }},
		{"spec.localASN", func(p *Peer) { p.LocalASN = 0 }},
		{"spec.peerASN", func(p *Peer) { p.PeerASN = 0 }},
		{"spec.routerIDFrom", func(p *Peer) { p.RouterID = netip.Addr{} }},
		{"spec.routerIDFrom", func(p *Peer) { p.RouterID = netip.MustParseAddr("2001:db8::1") }},
		{"spec.address", func(p *Peer) { p.Address = netip.Addr{} }},
		{"spec.address", func(p *Peer) { p.Address = netip.MustParseAddr("::ffff:198.18.0.2") }},
		{"spec.address", func(p *Peer) { p.Address = netip.MustParseAddr("fe80::1") }},
		{"spec.sourceAddress", func(p *Peer) { p.LocalAddress = netip.MustParseAddr("2001:db8::1") }},
		{"spec.holdTime", func(p *Peer) { p.HoldTime = 2 * time.Second }},
		{"spec.holdTime", func(p *Peer) { p.HoldTime = 3500 * time.Millisecond }},
		{"spec.holdTime", func(p *Peer) { p.HoldTime = 20 * time.Hour }},
		{"spec.keepaliveTime", func(p *Peer) { p.KeepaliveTime = 90 * time.Second }},
		{"spec.keepaliveTime", func(p *Peer) { p.KeepaliveTime = 1500 * time.Millisecond }},
		{"spec.connectRetryTime", func(p *Peer) { p.ConnectRetry = time.Second }},
		{"spec.ttlSecurityHops", func(p *Peer) { p.TTLSecurity, p.MultihopTTL = 1, 2 }},
		{"spec.passwordSecret", func(p *Peer) { p.Password = strings.Repeat("x", 81) }},
		{"spec.gracefulRestart.restartTime", func(p *Peer) { p.GracefulRestart = &GracefulRestart{} }},
		{"spec.gracefulRestart.restartTime", func(p *Peer) { p.GracefulRestart = &GracefulRestart{RestartTime: 4096 * time.Second} }},
		{"spec.gracefulRestart.staleTime", func(p *Peer) {
			p.GracefulRestart = &GracefulRestart{RestartTime: time.Second, StaleTime: 1 << 24 * time.Second}
		}},
		{"spec.peerASN", func(p *Peer) { p.External = true }},
		{"spec.multihopTTL", func(p *Peer) { p.External, p.PeerASN, p.MultihopTTL = true, 0, 2 }},
		{"", func(p *Peer) { p.Role = RoleRSServer }},
		{"", func(p *Peer) { p.Role, p.External, p.PeerASN = RolePeer, true, 0 }},
		{"spec.role", func(p *Peer) { p.Role = "Complex" }},
		{"spec.role", func(p *Peer) { p.Role, p.PeerASN = RolePeer, p.LocalASN }},
		{"Unnumbered", func(p *Peer) { p.Unnumbered = true }},
		{"NextHop4", func(p *Peer) { p.NextHop4 = netip.MustParseAddr("2001:db8::1") }},
		{"NextHop6", func(p *Peer) { p.NextHop6 = netip.MustParseAddr("198.18.0.1") }},
	} {
		p := validPeer()
		c.change(&p)
		err := p.Validate()
		switch {
		case c.fault == "" && err != nil:
			t.Errorf("%+v: %v", p, err)
		case c.fault != "" && (err == nil || !strings.HasPrefix(err.Error(), c.fault+": ") || strings.Contains(err.Error(), "\n")):
			t.Errorf("%+v: %v, want one fault, of %s", p, err, c.fault)
		}
	}
}

func TestSamePeerNeedsNoNewSession(t *testing.T) {
	gr := func(d time.Duration) *GracefulRestart { return &GracefulRestart{RestartTime: d} }
	p, q := validPeer(), validPeer()
	p.GracefulRestart, q.GracefulRestart = gr(time.Minute), gr(time.Minute)
	if !p.same(q) {
		t.Error("equal peers are not the same")
	}
	for _, change := range []func(*Peer){
		func(p *Peer) { p.GracefulRestart = nil },
		func(p *Peer) { p.GracefulRestart = gr(time.Hour) },
		func(p *Peer) { p.Password = "secret" },
		func(p *Peer) { p.Role = RoleCustomer },
		func(p *Peer) { p.NextHop6 = netip.MustParseAddr("2001:db8::1") },
		func(p *Peer) { p.InterfaceIndex = 7 },
	} {
		q := q
		if change(&q); p.same(q) || q.same(p) {
			t.Errorf("%+v and %+v are the same", p, q)
		}
	}
}

func TestNextHop(t *testing.T) {
	v4, v6 := netip.MustParseAddr("198.18.0.9"), netip.MustParseAddr("2001:db8::9")
	over4, over6 := validPeer(), validPeer()
	over6.Address = netip.MustParseAddr("2001:db8::2")
	both := over4
	both.NextHop4, both.NextHop6 = v4, v6
	for _, c := range []struct {
		peer Peer
		is4  bool
		want netip.Addr
		ok   bool
	}{
		{over4, true, netip.IPv4Unspecified(), true},
		{over4, false, netip.IPv6Unspecified(), false},
		{over6, true, netip.IPv4Unspecified(), false},
		{over6, false, netip.IPv6Unspecified(), true},
		{both, true, v4, true},
		{both, false, v6, true},
	} {
		if got, ok := c.peer.nextHop(c.is4); got != c.want || ok != c.ok {
			t.Errorf("next hop of IPv4 %t over %v: %v, %t, want %v, %t", c.is4, c.peer.Address, got, ok, c.want, c.ok)
		}
	}
}

func TestWherePassivePeersAreWaitedFor(t *testing.T) {
	addr := netip.MustParseAddr
	of := func(name, router, local, device string, port uint16, passive bool) *member {
		p := Peer{Name: name, Address: addr(router), Interface: device, Port: port, Passive: passive}
		if local != "" {
			p.LocalAddress = addr(local)
		}
		return &member{peer: p}
	}
	on := func(index int, m *member) *member {
		m.peer.InterfaceIndex = index
		return m
	}
	for _, c := range []struct {
		name    string
		members []*member
		want    map[endpoint][]string
	}{
		{"nobody is passive", []*member{of("a", "198.18.0.2", "", "", 0, false)}, map[endpoint][]string{}},
		{"two routers, one port", []*member{of("a", "198.18.0.2", "", "", 0, true), of("b", "198.18.0.3", "", "", 179, true), of("c", "198.18.0.4", "", "", 0, false)},
			map[endpoint][]string{{addr("0.0.0.0"), 179, "", 0}: {"a", "b"}}},
		{"both families", []*member{of("a", "198.18.0.2", "", "", 0, true), of("b", "2001:db8::2", "", "", 0, true)},
			map[endpoint][]string{{addr("0.0.0.0"), 179, "", 0}: {"a"}, {addr("::"), 179, "", 0}: {"b"}}},
		{"local addresses", []*member{of("a", "198.18.0.2", "198.18.0.1", "", 0, true), of("b", "198.18.1.2", "198.18.1.1", "", 0, true)},
			map[endpoint][]string{{addr("198.18.0.1"), 179, "", 0}: {"a"}, {addr("198.18.1.1"), 179, "", 0}: {"b"}}},
		{"one of them needs all", []*member{of("a", "198.18.0.2", "198.18.0.1", "", 0, true), of("b", "198.18.1.2", "", "", 0, true)},
			map[endpoint][]string{{addr("0.0.0.0"), 179, "", 0}: {"a", "b"}}},
		{"on another port it does not matter", []*member{of("a", "198.18.0.2", "198.18.0.1", "", 0, true), of("b", "198.18.1.2", "", "", 1790, true)},
			map[endpoint][]string{{addr("198.18.0.1"), 179, "", 0}: {"a"}, {addr("0.0.0.0"), 1790, "", 0}: {"b"}}},
		{"links", []*member{on(2, of("a", "fe80::1%eth0", "", "", 0, true)), on(3, of("b", "fe80::1%eth1", "", "", 0, true)), of("c", "2001:db8::2", "", "", 0, true)},
			map[endpoint][]string{{addr("::"), 179, "", 0}: {"a", "b", "c"}}},
		{"local addresses on links", []*member{on(2, of("a", "fe80::1%eth0", "fe80::9%eth0", "", 0, true)), on(3, of("b", "fe80::1%eth1", "fe80::9%eth1", "", 0, true))},
			map[endpoint][]string{{addr("fe80::9%eth0"), 179, "", 2}: {"a"}, {addr("fe80::9%eth1"), 179, "", 3}: {"b"}}},
		{"devices with indexes", []*member{on(4, of("a", "198.18.0.2", "", "red", 0, true)), on(4, of("b", "198.18.0.3", "198.18.0.1", "red", 0, true))},
			map[endpoint][]string{{addr("0.0.0.0"), 179, "red", 4}: {"a", "b"}}},
		{"devices", []*member{of("a", "198.18.0.2", "", "red", 0, true), of("b", "198.18.0.2", "", "blue", 0, true)},
			map[endpoint][]string{{addr("0.0.0.0"), 179, "red", 0}: {"a"}, {addr("0.0.0.0"), 179, "blue", 0}: {"b"}}},
	} {
		wanted := map[string]*member{}
		for _, m := range c.members {
			wanted[m.peer.Name] = m
		}
		got := map[endpoint][]string{}
		for at, members := range endpoints(wanted) {
			for _, m := range members {
				got[at] = append(got[at], m.peer.Name)
			}
			slices.Sort(got[at])
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
