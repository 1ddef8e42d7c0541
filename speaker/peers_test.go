package speaker

import (
	"errors"
	"fmt"
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

// here is a node with two uplinks and a link to a router without addresses.
func here() *site {
	addr := netip.MustParseAddr
	return &site{
		node: &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{
				Name:        "n1",
				Labels:      map[string]string{"rack": "a", "example.com/tor": "198.18.0.254", "example.com/asn": "4200000001", "bad": "x", "zero": "0"},
				Annotations: map[string]string{"example.com/tor6": "2001:db8:18::254", "example.com/near": "fe80::1", "example.com/id": "198.18.255.1"},
			},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeHostName, Address: "n1"}, {Type: corev1.NodeInternalIP, Address: "198.18.0.1"}, {Type: corev1.NodeInternalIP, Address: "2001:db8:18::1"},
			}},
		},
		interfaces: []link.Interface{
			{Name: "eth0", Subnets: subnets("198.18.0.1/24", "2001:db8:18::1/64"), Gateways: []netip.Addr{addr("198.18.0.254"), addr("fe80::254")}},
			{Name: "eth1", Subnets: subnets("198.18.1.1/24", "198.51.100.9/32", "2001:db8:19::1/64"), Gateways: []netip.Addr{addr("198.18.1.254")}},
		},
		routers: map[string][]netip.Addr{"eth2": {addr("fe80::2")}, "eth3": {addr("fe80::2"), addr("fe80::3")}},
		password: func(name string) (string, error) {
			if name != "tor" {
				return "", errors.New("no such Secret")
			}
			return "secret", nil
		},
	}
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
		want func(*bgp.Peer) // what differs from the plain one
		err  string          // with a field
		down bool            // the spec is valid, and this node lacks something
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
		{name: "a label that is no address", edit: from(herald.PeerAddressSource{NodeLabel: "bad"}), down: true, err: `spec.addressFrom: the node has the value "x", which is not the IP address of a router`},
		{name: "a link-local address without an interface", edit: from(herald.PeerAddressSource{NodeAnnotation: "example.com/near"}), down: true, err: "spec.addressFrom: the node has the link-local address fe80::1: name the interface"},
		{name: "a label that is no AS number", edit: func(o spec) { o.LocalASN, o.LocalASNFrom = 0, label("bad") }, down: true, err: `spec.localASNFrom: the node has the value "x"`},
		{name: "a label that is AS 0", edit: func(o spec) { o.LocalASN, o.LocalASNFrom = 0, label("zero") }, down: true, err: `spec.localASNFrom: the node has the value "0"`},
		{name: "a label that is no router ID", edit: func(o spec) { o.RouterIDFrom = label("bad") }, down: true, err: `spec.routerIDFrom: the node has the value "x", which is not an IPv4 address`},
		{name: "a silent unnumbered link", edit: from(herald.PeerAddressSource{Interface: "eth0"}), down: true, err: "spec.addressFrom.interface: no router has advertised itself on the link of eth0 yet"},
		{name: "an unnumbered link with two routers", edit: from(herald.PeerAddressSource{Interface: "eth3"}), down: true, err: "spec.addressFrom.interface: fe80::2%eth3 and fe80::3%eth3 are routers"},
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

// Of several BGPPeers for one router the oldest has the session, whatever the order they come in.
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

// A router that was found stays while its route is set anew and while it is silent, until there is another.
func TestARouterThatWasFoundStays(t *testing.T) {
	addr := netip.MustParseAddr
	gateway := peerOf("gateway", func(o *herald.BGPPeerSpec) {
		o.Address, o.AddressFrom = "", &herald.PeerAddressSource{DefaultGateway: herald.IPv6}
	})
	near := peerOf("near", func(o *herald.BGPPeerSpec) {
		o.Address, o.AddressFrom = "", &herald.PeerAddressSource{Interface: "eth2"}
	})
	s := here()
	for _, step := range []struct {
		name string
		edit func()
		want map[string]netip.Addr
	}{
		{"found", func() {}, map[string]netip.Addr{"gateway": addr("fe80::254%eth0"), "near": addr("fe80::2%eth2")}},
		{"gone for a moment", func() { s.interfaces[0].Gateways, s.routers = nil, nil }, map[string]netip.Addr{"gateway": addr("fe80::254%eth0"), "near": addr("fe80::2%eth2")}},
		{"with a second one", func() {
			s.interfaces[0].Gateways, s.routers = []netip.Addr{addr("fe80::9"), addr("fe80::254")}, map[string][]netip.Addr{"eth2": {addr("fe80::1"), addr("fe80::2")}}
		}, map[string]netip.Addr{"gateway": addr("fe80::254%eth0"), "near": addr("fe80::2%eth2")}},
		{"replaced", func() {
			s.interfaces[0].Gateways, s.routers = []netip.Addr{addr("fe80::9")}, map[string][]netip.Addr{"eth2": {addr("fe80::1")}}
		}, map[string]netip.Addr{"gateway": addr("fe80::9%eth0"), "near": addr("fe80::1%eth2")}},
		{"looked for elsewhere", func() {
			s.interfaces[0].Gateways = append(s.interfaces[0].Gateways, addr("198.18.0.254"))
			gateway.Spec.AddressFrom.DefaultGateway, near.Spec.AddressFrom.Interface, gateway.Spec.Interface = herald.IPv4, "eth0", "eth0"
		}, map[string]netip.Addr{"gateway": addr("198.18.0.254")}},
	} {
		step.edit()
		s.peers([]*herald.BGPPeer{gateway, near})
		if diff := cmp.Diff(step.want, s.found, sameAddr); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
		s.before = s.found
	}
}

// A node without an IPv4 address has a router ID that stays the same and is not that of another node.
func TestRouterIDOfAnIPv6Node(t *testing.T) {
	seen := map[netip.Addr]string{}
	for i := range 1000 {
		s := &site{node: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("node-", i)}}}
		id, err := s.routerID(nil)
		if again, _ := s.routerID(nil); err != nil || id != again || !id.Is4() || id.IsUnspecified() {
			t.Fatalf("%v, then %v: %v", id, again, err)
		}
		if other, taken := seen[id]; taken {
			t.Errorf("%s and %s have %v", other, s.node.Name, id)
		}
		seen[id] = s.node.Name
	}
}
