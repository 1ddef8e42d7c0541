package speaker

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/link"
)

var sameAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// here returns a node with two uplinks, and with a link without addresses to a router.
func here() *site {
	addr := netip.MustParseAddr
	return &site{
		node: &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{
				Name:        "n1",
				Labels:      map[string]string{"rack": "a", "example.com/tor": "198.18.0.254", "example.com/asn": "4200000001", "bad": "x", "zero": "0"},
				Annotations: map[string]string{"example.com/tor6": "2001:db8:18::254", "example.com/near": "fe80::1", "long": strings.Repeat("\x01", 250_000), "example.com/id": "198.18.255.1"},
			},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeHostName, Address: "n1"}, {Type: corev1.NodeInternalIP, Address: "198.18.0.1"}, {Type: corev1.NodeInternalIP, Address: "2001:db8:18::1"},
			}},
		},
		interfaces: []link.Interface{
			{Name: "eth0", Subnets: subnets("198.18.0.1/24", "2001:db8:18::1/64"), Gateways: []netip.Addr{addr("198.18.0.254"), addr("fe80::254")}},
			{Name: "eth1", Subnets: subnets("198.18.1.1/24", "198.51.100.9/32", "2001:db8:19::1/64"), Gateways: []netip.Addr{addr("198.18.1.254")}},
		},
		links: map[string]linkRouters{"eth0": heardOn("eth0"), "eth2": heardOn("eth2", addr("fe80::2")), "eth3": heardOn("eth3", addr("fe80::2"), addr("fe80::3"))},
		now:   noon,
		password: func(name string) (string, error) {
			if name != "tor" {
				return "", errors.New("no such Secret")
			}
			return "secret", nil
		},
	}
}

// heardOn returns a link on which the node has listened for an hour, with routers that were heard just now.
func heardOn(iface string, routers ...netip.Addr) linkRouters {
	l := linkRouters{iface: iface, since: noon.Add(-time.Hour), heard: map[netip.Addr]time.Time{}}
	for _, a := range routers {
		l.heard[a.WithZone(iface)] = noon
	}
	return l
}

func subnets(texts ...string) (all []netip.Prefix) {
	for _, t := range texts {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

func peerOf(name string, edit func(*herald.BGPPeerSpec)) *herald.BGPPeer {
	o := &herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: herald.BGPPeerSpec{LocalASN: 64512, PeerASN: 64500, Address: "198.18.0.254", Port: 179}}
	if edit != nil {
		edit(&o.Spec)
	}
	return o
}

func TestAPeerAsEachNodeSeesIt(t *testing.T) {
	type spec = *herald.BGPPeerSpec
	addr := netip.MustParseAddr
	from := func(s herald.PeerAddressSource) func(spec) { return func(o spec) { o.Address, o.AddressFrom = "", &s } }
	label := func(key string) *herald.NodeValueSource { return &herald.NodeValueSource{NodeLabel: key} }
	for _, story := range []struct {
		name string
		edit func(spec)
		want func(*bgp.Peer) // sets the differences from the plain peer
		err  string          // starts with a field
		down bool            // whether the spec is valid and this node lacks something
	}{
		{name: "a plain one", edit: func(spec) {}, want: func(*bgp.Peer) {}},
		{name: "every field", edit: func(o spec) {
			o.Port, o.SourceAddress, o.Interface, o.MultihopTTL = 1790, "198.18.0.1", "eth0", 3
			o.HoldTime, o.KeepaliveTime, o.ConnectRetryTime = &metav1.Duration{Duration: 9 * time.Second}, &metav1.Duration{Duration: 3 * time.Second}, &metav1.Duration{Duration: 5 * time.Second}
			o.GracefulRestart = &herald.GracefulRestart{
				RestartTime: metav1.Duration{Duration: time.Minute}, StaleTime: &metav1.Duration{Duration: time.Hour}, OnNotification: herald.NotificationKeep,
			}
			o.PasswordSecret = &herald.SecretReference{Name: "tor"}
		}, want: func(p *bgp.Peer) {
			p.Port, p.LocalAddress, p.Interface, p.MultihopTTL = 1790, addr("198.18.0.1"), "eth0", 3
			p.HoldTime, p.KeepaliveTime, p.ConnectRetry = 9*time.Second, 3*time.Second, 5*time.Second
			p.GracefulRestart, p.Password = &bgp.GracefulRestart{RestartTime: time.Minute, StaleTime: time.Hour, KeepOnNotification: true}, "secret"
		}},
		{name: "a passive one", edit: func(o spec) { o.Passive = true }, want: func(p *bgp.Peer) { p.Passive = true }},
		{name: "TTL security", edit: func(o spec) { o.TTLSecurityHops = 2 }, want: func(p *bgp.Peer) { p.TTLSecurity = 2 }},
		{name: "an internal router", edit: func(o spec) { o.PeerASN, o.PeerType = 0, herald.PeerInternal }, want: func(p *bgp.Peer) { p.PeerASN = 64512 }},
		{name: "a role", edit: func(o spec) { o.Role = herald.RoleRSClient }, want: func(p *bgp.Peer) { p.Role = bgp.RoleRSClient }},
		{name: "a role in one AS", edit: func(o spec) { o.Role, o.PeerASN, o.PeerType = herald.RolePeer, 0, herald.PeerInternal }, err: "spec.role: is for external sessions (RFC 9234), and the router is in AS 64512"},
		{name: "any external router", edit: func(o spec) { o.PeerASN, o.PeerType = 0, herald.PeerExternal }, want: func(p *bgp.Peer) { p.PeerASN, p.External = 0, true }},
		{name: "AS numbers of the node", edit: func(o spec) {
			o.LocalASN, o.LocalASNFrom, o.PeerASN, o.PeerASNFrom = 0, label("example.com/asn"), 0, label("example.com/asn")
		},
			want: func(p *bgp.Peer) { p.LocalASN, p.PeerASN = 4200000001, 4200000001 }},
		{name: "a router ID of the node", edit: func(o spec) { o.RouterIDFrom = &herald.NodeValueSource{NodeAnnotation: "example.com/id"} },
			want: func(p *bgp.Peer) { p.RouterID = addr("198.18.255.1") }},
		{name: "a router in the subnet of another interface", edit: func(o spec) { o.Address = "198.18.1.254" },
			want: func(p *bgp.Peer) { p.Address, p.NextHop6 = addr("198.18.1.254"), addr("2001:db8:19::1") }},
		{name: "an IPv6 router there", edit: func(o spec) { o.Address = "2001:db8:19::254" },
			want: func(p *bgp.Peer) {
				p.Address, p.NextHop4, p.NextHop6 = addr("2001:db8:19::254"), addr("198.18.1.1"), netip.Addr{}
			}},
		{name: "a router in no subnet, through an interface", edit: func(o spec) { o.Address, o.Interface, o.MultihopTTL = "203.0.113.1", "eth1", 5 },
			want: func(p *bgp.Peer) {
				p.Address, p.Interface, p.MultihopTTL, p.NextHop6 = addr("203.0.113.1"), "eth1", 5, addr("2001:db8:19::1")
			}},
		{name: "a router in no subnet", edit: func(o spec) { o.Address = "203.0.113.1" }, want: func(p *bgp.Peer) { p.Address = addr("203.0.113.1") }},
		{name: "a link-local address", edit: func(o spec) { o.Address, o.Interface, o.SourceAddress = "fe80::1", "eth1", "fe80::9" }, want: func(p *bgp.Peer) {
			p.Address, p.LocalAddress, p.Interface, p.NextHop4, p.NextHop6 = addr("fe80::1%eth1"), addr("fe80::9%eth1"), "eth1", addr("198.18.1.1"), netip.Addr{}
		}},
		{name: "the only IPv6 gateway", edit: from(herald.PeerAddressSource{DefaultGateway: herald.IPv6}), want: func(p *bgp.Peer) {
			p.Address, p.NextHop4, p.NextHop6 = addr("fe80::254%eth0"), addr("198.18.0.1"), netip.Addr{}
		}},
		{name: "one of two gateways", edit: func(o spec) {
			from(herald.PeerAddressSource{DefaultGateway: herald.IPv4})(o)
			o.Interface = "eth1"
		}, want: func(p *bgp.Peer) {
			p.Address, p.Interface, p.NextHop6 = addr("198.18.1.254"), "eth1", addr("2001:db8:19::1")
		}},
		{name: "an address in a label", edit: from(herald.PeerAddressSource{NodeLabel: "example.com/tor"}), want: func(*bgp.Peer) {}},
		{name: "an address in an annotation", edit: from(herald.PeerAddressSource{NodeAnnotation: "example.com/tor6"}), want: func(p *bgp.Peer) {
			p.Address, p.NextHop4, p.NextHop6 = addr("2001:db8:18::254"), addr("198.18.0.1"), netip.Addr{}
		}},
		{name: "unnumbered", edit: from(herald.PeerAddressSource{Interface: "eth2"}), want: func(p *bgp.Peer) {
			p.Address, p.NextHop6, p.Unnumbered = addr("fe80::2%eth2"), netip.Addr{}, true
		}},

		{name: "two gateways", edit: from(herald.PeerAddressSource{DefaultGateway: herald.IPv4}), down: true,
			err: "spec.addressFrom.defaultGateway: 198.18.0.254 and 198.18.1.254 are gateways of default routes of IPv4: name the interface of one in spec.interface"},
		{name: "no gateway there", edit: func(o spec) {
			from(herald.PeerAddressSource{DefaultGateway: herald.IPv6})(o)
			o.Interface = "eth1"
		}, down: true, err: "spec.addressFrom.defaultGateway: the node has no default route of IPv6"},
		{name: "no such label", edit: from(herald.PeerAddressSource{NodeLabel: "example.com/leaf"}), down: true, err: "spec.addressFrom: the node has no label example.com/leaf: give it one"},
		{name: "no such annotation", edit: func(o spec) { o.PeerASN, o.PeerASNFrom = 0, &herald.NodeValueSource{NodeAnnotation: "example.com/asn"} }, down: true,
			err: "spec.peerASNFrom: the node has no annotation example.com/asn"},
		{name: "a label that is not an address", edit: from(herald.PeerAddressSource{NodeLabel: "bad"}), down: true, err: `spec.addressFrom: the node's label bad has the value "x", which is not the IP address of a router`},
		{name: "a link-local address without an interface", edit: from(herald.PeerAddressSource{NodeAnnotation: "example.com/near"}), down: true, err: `spec.addressFrom: the node's annotation example.com/near has the value "fe80::1", which is a link-local address: name the interface`},
		{name: "an annotation without end", edit: from(herald.PeerAddressSource{NodeAnnotation: "long"}), down: true,
			err: `spec.addressFrom: the node's annotation long has the value "` + strings.Repeat(`\x01`, 64) + `", which is not the IP address`},
		{name: "a label that is not an AS number", edit: func(o spec) { o.LocalASN, o.LocalASNFrom = 0, label("bad") }, down: true, err: `spec.localASNFrom: the node's label bad has the value "x", which is not an AS number`},
		{name: "a label that is AS 0", edit: func(o spec) { o.LocalASN, o.LocalASNFrom = 0, label("zero") }, down: true, err: `spec.localASNFrom: the node's label zero has the value "0"`},
		{name: "a label that is not a router ID", edit: func(o spec) { o.RouterIDFrom = label("bad") }, down: true, err: `spec.routerIDFrom: the node's label bad has the value "x", which is not an IPv4 address`},
		{name: "a silent unnumbered link", edit: from(herald.PeerAddressSource{Interface: "eth0"}), down: true, err: "spec.addressFrom.interface: no router has advertised itself on the link of eth0 yet"},
		{name: "an unnumbered link that the node does not have", edit: from(herald.PeerAddressSource{Interface: "eth9"}), down: true, err: "spec.addressFrom.interface: the node has no interface eth9 on which it has neighbours: leave the node out"},
		{name: "an unnumbered link with two routers", edit: from(herald.PeerAddressSource{Interface: "eth3"}), down: true, err: "spec.addressFrom.interface: fe80::2%eth3 and fe80::3%eth3 are taken for routers on the link of eth3: remove the others"},
		{name: "an address that no router has", edit: func(o spec) { o.Address = "0.0.0.0" }, err: "spec.address: 0.0.0.0 is not the address of a router"},
		{name: "a source of the other family", edit: func(o spec) { o.SourceAddress = "2001:db8:18::1" }, err: "spec.sourceAddress: 2001:db8:18::1 is not of the family"},
		{name: "a Secret that does not exist", edit: func(o spec) { o.PasswordSecret = &herald.SecretReference{Name: "x"} }, err: "spec.passwordSecret: no such Secret"},
		{name: "a selector that cannot be read", edit: func(o spec) {
			o.NodeSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}
		}, err: "spec.nodeSelector: "},
		{name: "for other nodes", edit: func(o spec) { o.NodeSelector = matching("rack", "b") }},
	} {
		t.Run(story.name, func(t *testing.T) {
			peers, rejected := here().peers([]*herald.BGPPeer{peerOf("tor", story.edit)})
			if story.err != "" {
				lacks := unresolved{}
				if len(peers) != 0 || len(rejected) != 1 || !strings.HasPrefix(rejected[0].Err.Error(), story.err) || errors.As(rejected[0].Err, &lacks) != story.down {
					t.Errorf("%+v, %+v, want the error %q", peers, rejected, story.err)
				}
				return
			}
			var want []bgp.Peer
			if story.want != nil {
				p := bgp.Peer{
					Name: "tor", LocalASN: 64512, PeerASN: 64500, RouterID: addr("198.18.0.1"), Address: addr("198.18.0.254"), Port: 179, NextHop6: addr("2001:db8:18::1"),
				}
				story.want(&p)
				want = append(want, p)
			}
			if diff := cmp.Diff(want, peers, sameAddr); diff != "" || len(rejected) > 0 {
				t.Errorf("rejected %v, (-want +got):\n%s", rejected, diff)
			}
		})
	}
}

// If several BGPPeers name one router, the oldest has the session, whatever their order.
func TestTwoPeersForOneRouter(t *testing.T) {
	old := metav1.NewTime(noon)
	late := metav1.NewTime(noon.Add(time.Second))
	of := func(name string, created metav1.Time, edit func(*herald.BGPPeerSpec)) *herald.BGPPeer {
		o := peerOf(name, edit)
		o.CreationTimestamp = created
		return o
	}
	first := of("z", old, nil)
	for _, story := range []struct {
		name   string
		second *herald.BGPPeer
		wins   string // empty: both have a session
	}{
		{"the same router", of("a", late, nil), "z"},
		{"created in the same second", of("a", old, nil), "a"},
		{"by another way to name it", of("a", late, func(o *herald.BGPPeerSpec) {
			o.Address, o.AddressFrom = "", &herald.PeerAddressSource{NodeLabel: "example.com/tor"}
		}), "z"},
		{"another AS number", of("a", late, func(o *herald.BGPPeerSpec) { o.PeerASN = 64999 }), "z"},
		{"another port", of("a", late, func(o *herald.BGPPeerSpec) { o.Port = 1790 }), ""},
		{"another source", of("a", late, func(o *herald.BGPPeerSpec) { o.SourceAddress = "198.18.0.1" }), ""},
		{"another device", of("a", late, func(o *herald.BGPPeerSpec) { o.Interface = "eth1" }), ""},
		{"for other nodes", of("a", late, func(o *herald.BGPPeerSpec) { o.NodeSelector = matching("rack", "b") }), "only z"},
		{"one that cannot be used", of("a", old, func(o *herald.BGPPeerSpec) { o.PasswordSecret = &herald.SecretReference{Name: "x"} }), "z"},
	} {
		for _, order := range [][]*herald.BGPPeer{{first, story.second}, {story.second, first}} {
			peers, rejected := here().peers(order)
			got := fmt.Sprint(names(peers))
			switch {
			case story.wins == "" && (got != "[a z]" || len(rejected) > 0),
				story.wins == "only z" && (got != "[z]" || len(rejected) > 0),
				story.wins == "a" && (got != "[a]" || len(rejected) != 1 || rejected[0].Name != "z"),
				story.wins == "z" && (got != "[z]" || len(rejected) != 1 || rejected[0].Name != "a"):
				t.Errorf("%s: sessions %s, rejected %v", story.name, got, rejected)
			}
			for _, r := range rejected {
				if want := "spec.address: the session with 198.18.0.254 is that of the older BGPPeer " + story.wins; !strings.HasPrefix(r.Err.Error(), want) && r.Name != story.second.Name {
					t.Errorf("%s: %v, want %q", story.name, r.Err, want)
				}
			}
		}
	}
}

func names(peers []bgp.Peer) (all []string) {
	for _, p := range peers {
		all = append(all, p.Name)
	}
	return all
}

// A router that was found stays while its route is replaced and while it is silent, until there is a different router. If
// several are found, the router with which there was a session is chosen, and never the one that was found first by chance.
func TestARouterThatWasFoundStays(t *testing.T) {
	addr := netip.MustParseAddr
	gateway := peerOf("gateway", func(o *herald.BGPPeerSpec) {
		o.Address, o.AddressFrom = "", &herald.PeerAddressSource{DefaultGateway: herald.IPv6}
	})
	near := peerOf("near", func(o *herald.BGPPeerSpec) {
		o.Address, o.AddressFrom = "", &herald.PeerAddressSource{Interface: "eth2"}
	})
	s := here()
	is := func(gateways, routers []netip.Addr) func() {
		return func() {
			s.interfaces[0].Gateways, s.links = gateways, map[string]linkRouters{"eth0": heardOn("eth0"), "eth2": heardOn("eth2", routers...)}
		}
	}
	first := map[string]netip.Addr{"gateway": addr("fe80::254%eth0"), "near": addr("fe80::2%eth2")}
	second := map[string]netip.Addr{"gateway": addr("fe80::9%eth0"), "near": addr("fe80::1%eth2")}
	one, two := []netip.Addr{addr("fe80::254")}, []netip.Addr{addr("fe80::9"), addr("fe80::254")}
	for _, step := range []struct {
		name string
		edit func()
		want map[string]netip.Addr
	}{
		{"found", is(one, []netip.Addr{addr("fe80::2")}), first},
		{"gone for a moment", is(nil, nil), first},
		{"with a second one, and there was no session", is(two, []netip.Addr{addr("fe80::1"), addr("fe80::2")}), map[string]netip.Addr{}},
		{"alone again", is(one, []netip.Addr{addr("fe80::2")}), first},
		{"with a session", func() { s.established = first }, first},
		{"with a second one", is(two, []netip.Addr{addr("fe80::1"), addr("fe80::2")}), first},
		{"silent, with another one there", is(one, []netip.Addr{addr("fe80::1")}), first},
		{"and the session is down", func() {
			is(two, []netip.Addr{addr("fe80::1"), addr("fe80::2")})()
			s.established = nil
		}, first},
		{"and it stays down", func() { s.established = nil }, first},
		{"replaced", is([]netip.Addr{addr("fe80::9")}, []netip.Addr{addr("fe80::1")}), second},
		{"back, before there was a session with the other", is(two, []netip.Addr{addr("fe80::1"), addr("fe80::2")}), first},
		{"replaced by one that there is a session with", func() {
			is([]netip.Addr{addr("fe80::9")}, []netip.Addr{addr("fe80::1")})()
			s.established = second
		}, second},
		{"and back again", is(two, []netip.Addr{addr("fe80::1"), addr("fe80::2")}), second},
		{"looked for elsewhere", func() {
			s.interfaces[0].Gateways = append(s.interfaces[0].Gateways, addr("198.18.0.254"))
			gateway.Spec.AddressFrom.DefaultGateway, near.Spec.AddressFrom.Interface, gateway.Spec.Interface = herald.IPv4, "eth0", "eth0"
		}, map[string]netip.Addr{"gateway": addr("198.18.0.254")}},
	} {
		step.edit()
		s.peers([]*herald.BGPPeer{gateway, near})
		if diff := cmp.Diff(step.want, routersIn(s.found), sameAddr); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
		s.before = s.found
	}
}

// A router that was found in one place is not the router of a BGPPeer that names another place.
func TestARouterIsFoundWhereThePeerSaysNow(t *testing.T) {
	s := here()
	s.interfaces[1].Gateways = nil
	o := peerOf("tor", func(o *herald.BGPPeerSpec) { o.Address = "" })
	gateway := netip.MustParseAddr("198.18.0.254")
	for _, step := range []struct {
		name  string
		from  herald.PeerAddressSource
		iface string
		want  map[string]netip.Addr
	}{
		{"a gateway on any interface", herald.PeerAddressSource{DefaultGateway: herald.IPv4}, "", map[string]netip.Addr{"tor": gateway}},
		{"on an interface without one", herald.PeerAddressSource{DefaultGateway: herald.IPv4}, "eth1", map[string]netip.Addr{}},
		{"a label", herald.PeerAddressSource{NodeLabel: "example.com/tor"}, "eth1", map[string]netip.Addr{"tor": gateway}},
		{"and again a gateway", herald.PeerAddressSource{DefaultGateway: herald.IPv4}, "eth1", map[string]netip.Addr{}},
	} {
		o.Spec.AddressFrom, o.Spec.Interface = &step.from, step.iface
		s.peers([]*herald.BGPPeer{o})
		if diff := cmp.Diff(step.want, routersIn(s.found), sameAddr); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
		s.before = s.found
	}
}

// The next hop of the family that is not the session's stays while the interface has it.
func TestTheNextHopInUseStays(t *testing.T) {
	addr := netip.MustParseAddr
	for _, story := range []struct {
		name, router string
		steps        []struct{ on, want string } // the addresses of the interface, and the next hop
	}{
		{"IPv6 routes over IPv4", "198.18.1.254", []struct{ on, want string }{
			{"198.18.1.1/24 2001:db8:19::5/64", "2001:db8:19::5"},
			{"198.18.1.1/24 2001:db8:19::1/64 2001:db8:19::5/64", "2001:db8:19::5"},
			{"198.18.1.1/24 2001:db8:18::1/64 2001:db8:19::5/64", "2001:db8:19::5"}, // the address of the Node
			{"198.18.1.1/24 2001:db8:19::1/64 2001:db8:19::9/64", "2001:db8:19::1"},
			{"198.18.1.1/24", "2001:db8:18::1"},
			{"198.18.1.1/24 2001:db8:19::9/64", "2001:db8:19::9"},
		}},
		{"IPv4 routes over IPv6", "2001:db8:19::254", []struct{ on, want string }{
			{"198.18.1.5/24 2001:db8:19::1/64", "198.18.1.5"},
			{"198.18.1.1/24 198.18.1.5/24 2001:db8:19::1/64", "198.18.1.5"},
			{"198.18.1.1/24 2001:db8:19::1/64", "198.18.1.1"},
		}},
	} {
		site := here()
		for i, step := range story.steps {
			site.interfaces = []link.Interface{{Name: "eth1", Subnets: subnets(strings.Fields(step.on)...)}}
			peers, rejected := site.peers([]*herald.BGPPeer{peerOf("tor", func(o *herald.BGPPeerSpec) { o.Address = story.router })})
			if len(peers) != 1 {
				t.Fatal(rejected)
			}
			got := peers[0].NextHop4
			if !got.IsValid() {
				got = peers[0].NextHop6
			}
			if got != addr(step.want) {
				t.Errorf("%s, step %d: %v, want %s", story.name, i, got, step.want)
			}
			site.before = site.found
		}
	}
}

// A session does not end because a label or an annotation of the Node is removed or becomes invalid: the last valid value stays
// in force, and the reason says so. There is no last value when a speaker starts, when a BGPPeer is created again, or when it
// refers to a different label.
func TestTheLastValueOfALabelIsInForce(t *testing.T) {
	leaf := func() *herald.BGPPeer {
		o := peerOf("leaf", func(o *herald.BGPPeerSpec) {
			o.Address, o.AddressFrom = "", &herald.PeerAddressSource{NodeLabel: "example.com/tor"}
			o.LocalASN, o.LocalASNFrom = 0, &herald.NodeValueSource{NodeLabel: "example.com/asn"}
			o.PeerASN, o.PeerASNFrom = 0, &herald.NodeValueSource{NodeAnnotation: "example.com/peer-asn"}
			o.RouterIDFrom = &herald.NodeValueSource{NodeAnnotation: "example.com/id"}
		})
		o.UID = "leaf"
		return o
	}
	site := here()
	site.node.Annotations["example.com/peer-asn"] = "64500"
	labels, annotations := maps.Clone(site.node.Labels), maps.Clone(site.node.Annotations)
	whole, rejected := site.peers([]*herald.BGPPeer{leaf()})
	if len(whole) != 1 || len(rejected) > 0 {
		t.Fatalf("%+v, %v", whole, rejected)
	}
	const stays = "; its last value, "
	for _, story := range []struct {
		name string
		edit func(*corev1.Node, *herald.BGPPeer)
		kept []string // how each reason begins; none: the session is not held
		err  string
	}{
		{name: "the labels are gone", edit: func(n *corev1.Node, _ *herald.BGPPeer) { n.Labels = map[string]string{} }, kept: []string{
			"spec.localASNFrom: the node has no label example.com/asn: give it one, or leave the node out with spec.nodeSelector" + stays + `"4200000001", is in force until herald-speaker restarts there`,
			"spec.addressFrom: the node has no label example.com/tor: give it one, or leave the node out with spec.nodeSelector" + stays + `"198.18.0.254", is in force`,
		}},
		{name: "the annotations are gone", edit: func(n *corev1.Node, _ *herald.BGPPeer) { n.Annotations = nil }, kept: []string{
			"spec.peerASNFrom: the node has no annotation example.com/peer-asn", "spec.routerIDFrom: the node has no annotation example.com/id",
		}},
		{name: "nonsense in all of them", edit: func(n *corev1.Node, _ *herald.BGPPeer) {
			n.Labels, n.Annotations = map[string]string{"example.com/tor": "tor", "example.com/asn": "0"}, map[string]string{"example.com/peer-asn": "AS64500", "example.com/id": "::1"}
		}, kept: []string{
			`spec.localASNFrom: the node's label example.com/asn has the value "0", which is not an AS number from 1 to 4294967295: correct it` + stays + `"4200000001"`,
			`spec.peerASNFrom: the node's annotation example.com/peer-asn has the value "AS64500"`,
			`spec.addressFrom: the node's label example.com/tor has the value "tor", which is not the IP address of a router: correct it` + stays + `"198.18.0.254"`,
			`spec.routerIDFrom: the node's annotation example.com/id has the value "::1"`,
		}},
		{name: "gone, and something else in the spec changes", edit: func(n *corev1.Node, o *herald.BGPPeer) {
			delete(n.Labels, "example.com/tor")
			o.Generation++
		}, kept: []string{"spec.addressFrom: "}},
		{name: "gone, and another label is asked for", edit: func(n *corev1.Node, o *herald.BGPPeer) {
			delete(n.Labels, "example.com/tor")
			o.Spec.AddressFrom.NodeLabel = "example.com/leaf"
		}, err: "spec.addressFrom: the node has no label example.com/leaf: give it one"},
		{name: "gone, and the BGPPeer is made anew", edit: func(n *corev1.Node, o *herald.BGPPeer) {
			delete(n.Labels, "example.com/tor")
			o.UID = "anew"
		}, err: "spec.addressFrom: the node has no label example.com/tor: give it one"},
		{name: "gone, and a speaker that starts", edit: func(n *corev1.Node, _ *herald.BGPPeer) {
			delete(n.Labels, "example.com/tor")
			site.before = nil
		}, err: "spec.addressFrom: the node has no label example.com/tor: give it one"},
	} {
		t.Run(story.name, func(t *testing.T) {
			o := leaf()
			site.node.Labels, site.node.Annotations = maps.Clone(labels), maps.Clone(annotations)
			site.before = nil
			site.peers([]*herald.BGPPeer{o})
			site.before = site.found
			story.edit(site.node, o)
			for pass := range 2 { // A kept value stays kept in the next pass.
				peers, rejected := site.peers([]*herald.BGPPeer{o})
				if story.err != "" {
					if len(peers) > 0 || len(rejected) != 1 || !strings.HasPrefix(rejected[0].Err.Error(), story.err) {
						t.Errorf("pass %d: %+v, rejected %v, want %q", pass, peers, rejected, story.err)
					}
					return
				}
				if diff := cmp.Diff(whole, peers, sameAddr); diff != "" || len(rejected) > 0 {
					t.Fatalf("pass %d: rejected %v, (-want +got):\n%s", pass, rejected, diff)
				}
				kept := site.found["leaf"].kept
				if len(kept) != len(story.kept) {
					t.Fatalf("pass %d: %q, want %q", pass, kept, story.kept)
				}
				for i, want := range story.kept {
					if !strings.HasPrefix(kept[i], want) {
						t.Errorf("pass %d: %q, want %q", pass, kept[i], want)
					}
				}
				site.before = site.found
			}
		})
	}
}

// The session goes on, and the SpeakerStatus says which value is in force. When the label is back, the message is gone.
func TestASessionOutlivesALabel(t *testing.T) {
	node := func(labels map[string]string) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: labels}}
	}
	whole := map[string]string{"example.com/tor": "198.18.0.254"}
	l := loopOf(t, "n1", node(whole), peerOf("leaf", func(o *herald.BGPPeerSpec) {
		o.Address, o.AddressFrom = "", &herald.PeerAddressSource{NodeLabel: "example.com/tor"}
	}))
	const says = `spec.addressFrom: the node has no label example.com/tor: give it one, or leave the node out with spec.nodeSelector; its last value, "198.18.0.254", is in force until herald-speaker restarts there`
	for _, step := range []struct {
		labels map[string]string
		want   string
	}{{whole, ""}, {nil, says}, {nil, says}, {whole, ""}} {
		l.put(t, node(step.labels))
		l.takePeers()
		var st herald.SpeakerStatusStatus
		l.reportSessions(&st)
		if len(st.Sessions) != 1 || st.Sessions[0].Address != "198.18.0.254" || st.Sessions[0].Reason != step.want {
			t.Errorf("with the labels %v: %+v, want the reason %q", step.labels, st.Sessions, step.want)
		}
	}
}

// A node without an IPv4 address has a router ID that is stable and differs from those of other nodes.
func TestRouterIDOfAnIPv6Node(t *testing.T) {
	seen := map[netip.Addr]string{}
	for i := range 1000 {
		s := &site{node: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("node-", i)}}}
		id, err := s.routerID(nil, nil)
		if again, _ := s.routerID(nil, nil); err != nil || id != again || !id.Is4() || id.IsUnspecified() {
			t.Fatalf("%v, then %v: %v", id, again, err)
		}
		if other, taken := seen[id]; taken {
			t.Errorf("%s and %s have %v", other, s.node.Name, id)
		}
		seen[id] = s.node.Name
	}
}
