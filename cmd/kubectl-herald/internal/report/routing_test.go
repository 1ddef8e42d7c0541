package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/inspect"
)

// before returns the time d before now, in the format of speakers.
func before(d time.Duration) string { return now.Add(-d).UTC().Format(time.RFC3339) }

// routingOf returns the response of the speaker of a node of served(): both sessions are up, and the routers have
// 198.51.100.1.
func routingOf(node, nextHop string) *inspect.Routing {
	r := &inspect.Routing{Node: node, At: before(0)}
	for i, peer := range []string{"tor-a", "tor-b"} {
		r.Peers = append(r.Peers, inspect.RoutingPeer{
			Peer: peer, State: "Established", Since: before(5 * time.Minute), HoldTime: "9s", KeepaliveTime: "3s",
			Local: inspect.RoutingEnd{Address: nextHop, ASN: 64512, RouterID: nextHop, Families: []string{"IPv4 unicast", "IPv6 unicast"}, Capabilities: []string{"4-byte AS numbers", "route refresh"}},
			Router: inspect.RoutingEnd{
				Address: fmt.Sprintf("192.0.2.%d", i+1), Port: 179, ASN: 64500, RouterID: "192.0.2.1", Families: []string{"IPv4 unicast"}, Capabilities: []string{"4-byte AS numbers", "ADD-PATH"},
			},
			IPv4: inspect.RoutingCount{Sent: 1}, UpdatesSent: 3,
		})
		r.Routes = append(r.Routes, inspect.RoutingRoute{Prefix: "198.51.100.1/32", Peer: peer, NextHop: nextHop, Communities: []string{"64512:1"}})
	}
	return r
}

func told2() *Asked {
	return &Asked{Answers: map[string]*inspect.Routing{"n1": routingOf("n1", "192.0.2.11"), "n2": routingOf("n2", "192.0.2.12")}}
}

func plainText(text func(Style) string) string { return text(StyleOf(&bytes.Buffer{})) }

// flat replaces white space by single spaces.
func flat(text string) string { return strings.Join(strings.Fields(text), " ") }

// TestPeersAreShown changes one thing at a time. want is what the report then contains, in this order.
func TestPeersAreShown(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Objects, *Asked)
		names  []string
		wrong  int
		want   []string
	}{
		{"all is well", func(*Objects, *Asked) {}, nil, 0, []string{
			"All sessions are established, and all routes are sent.", "PEER NODE ROUTER AS STATE FOR BFD SENT WITHHELD FLAPS",
			"tor-a n1 192.0.2.1 64500 Established 5m - 1 0 0", "tor-a n2", "tor-b n1 192.0.2.2", "tor-b n2",
		}},
		{"no sessions", func(_ *Objects, a *Asked) { a.Answers["n1"].Peers, a.Answers["n2"].Peers = nil, nil }, nil, 0, []string{"There are no BGP sessions"}},
		{"sessions that are down for one reason are one problem", func(_ *Objects, a *Asked) {
			for _, r := range a.Answers {
				r.Peers[0].State, r.Peers[0].Reason, r.Peers[0].Since, r.Peers[0].IPv4.Sent = "Active", "connection refused", before(34*time.Second), 0
			}
		}, nil, 1, []string{"✗ tor-a on n1, n2: the session is down: connection refused", "tor-a n1 192.0.2.1 64500 Active 34s - 0 0 0", "tor-b n1 192.0.2.2 64500 Established"}},
		{"a session that begins", func(_ *Objects, a *Asked) { a.Answers["n1"].Peers[0].State = "Connect" }, nil, 1, []string{"✗ tor-a on n1: the session is down: no attempt has failed yet"}},
		{"a peer that cannot be used", func(_ *Objects, a *Asked) {
			a.Answers["n2"].Peers[1] = inspect.RoutingPeer{Peer: "tor-b", State: "Unresolved", Reason: "spec.localASNFrom: the node has no label"}
		}, nil, 1, []string{"✗ tor-b on n2: there is no session: spec.localASNFrom", "tor-b n2 - - Unresolved - - 0 0 0"}},
		{"BFD, and then what is less grave", func(_ *Objects, a *Asked) {
			p := &a.Answers["n1"].Peers[0]
			p.IPv6.Withheld, p.WithheldReason = 2, "the router does not speak IPv6 unicast"
			a.Answers["n2"].Peers[0].BFD = &inspect.RoutingBFD{State: "Up"}
			a.Answers["n2"].Peers[1].BFD = &inspect.RoutingBFD{State: "Down", Reason: "the router has fallen silent"}
		}, nil, 2, []string{"✗ tor-b on n2: BFD is Down: the router has fallen silent", "✗ tor-a on n1: 2 routes are withheld: the router does not speak IPv6 unicast", "tor-a n1 192.0.2.1 64500 Established 5m - 1 2 0", "tor-a n2 192.0.2.1 64500 Established 5m Up", "Down"}},
		{"more sessions than a speaker tells of", func(_ *Objects, a *Asked) { a.Answers["n2"].MorePeers = 44 }, nil, 0, []string{
			"! There are 44 more sessions, of which nothing is said here: name their BGPPeers PEER NODE", "tor-b n2",
		}},
		{"a speaker that cannot be asked, and its SpeakerStatus", func(o *Objects, a *Asked) {
			delete(a.Answers, "n2")
			a.Unasked = []Unasked{{"n2", "connection refused"}, {"n3", "connection refused"}}
			o.Speakers[1].Status.Sessions = []herald.SpeakerSession{
				{Peer: "tor-a", Address: "192.0.2.1", State: "Established", Since: before(time.Minute), Routes: 7, BFD: "Down", BFDReason: "the router does not hear this node\x1b[2J"},
				{Peer: "tor-b", State: "Down", Reason: "no answer\x1b[2J"},
			}
		}, nil, 2, []string{
			"✗ tor-b on n2: the session is down: no answer�[2J", "✗ tor-a on n2: BFD is Down: the router does not hear this node�[2J", "✗ nodes n2, n3 could not be asked: connection refused",
			"tor-a n2 * 192.0.2.1 - Established 60s Down 7 ? ?", "* as its SpeakerStatus has it, which may be out of date",
		}},
		{"what a node has written, at length and in another's name", func(_ *Objects, a *Asked) {
			a.Answers["n1"].Node = "n2"
			a.Answers["n1"].Peers[0].State, a.Answers["n1"].Peers[0].Reason = "Idle\x1b[2J", strings.Repeat("x", 10_000)
			a.Answers["n1"].Peers[1].Flaps = map[string]uint64{"bfd_down\n": 1}
		}, nil, 1, []string{"✗ tor-a on n1: the session is down: " + strings.Repeat("x", maxText) + "…", "tor-a n1 192.0.2.1 64500 Idle�[2J"}},
		{"all that is known of one", func(_ *Objects, a *Asked) {
			p := &a.Answers["n1"].Peers[0]
			p.Flaps, p.LastError = map[string]uint64{"bfd_down": 2, "connection_lost": 1}, &inspect.RoutingError{Text: "this node ended the session: Cease, BFD Down", By: "node", At: before(6 * time.Minute)}
			p.IPv6.Withheld, p.WithheldReason = 1, "the router does not speak IPv6 unicast"
			p.BFD = &inspect.RoutingBFD{
				State: "Up", Since: before(4 * time.Minute), Diagnostic: "No Diagnostic", RouterDiagnostic: "Control Detection Time Expired", TransmitInterval: "100ms", ReceiveInterval: "300ms",
				DetectionTime: "900ms", RouterDetectionTime: "300ms", Measured: &inspect.RoutingMeasured{Packets: 99, Min: "230ms", Mean: "262ms", Max: "301ms"}, Failures: 2, PacketsSent: 20, PacketsReceived: 10,
			}
			delete(a.Answers, "n2")
		}, []string{"tor-a"}, 1, []string{
			"tor-a on n1 session Established for 5m", "last error 6m ago (by the node): this node ended the session: Cease, BFD Down", "flaps 2 by bfd down, 1 by connection lost",
			"address 192.0.2.11 here, 192.0.2.1 port 179 at the router", "AS 64512 here, 64500 at the router", "router ID 192.0.2.11 here, 192.0.2.1 at the router",
			"timers hold time 9s, keepalive time 3s", "families both: IPv4 unicast here: IPv6 unicast", "capabilities both: 4-byte AS numbers here: route refresh at the router: ADD-PATH",
			"IPv4 routes 1 sent", "IPv6 routes 0 sent, 1 withheld the router does not speak IPv6 unicast", "UPDATEs 3 sent, 0 received",
			`BFD Up for 4m diagnostic here "No Diagnostic", at the router "Control Detection Time Expired" detection time 900ms here, 300ms at the router, sends every 100ms, receives every 300ms`,
			"measured 230ms to 301ms between packets, 262ms on average of 99", "the path was found dead 2 times, 20 packets sent, 10 received",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, asked := served().Objects, told2()
			c.change(o, asked)
			r, err := Peers(o, asked, c.names, now)
			if err != nil {
				t.Fatal(err)
			}
			text := plainText(r.Text)
			if len(r.Problems) != c.wrong || !inOrder(flat(text), c.want...) {
				t.Errorf("%d problems, want %d; it says\n%s\nwant\n%s", len(r.Problems), c.wrong, text, strings.Join(c.want, "\n"))
			}
			if c.names != nil && strings.Contains(text, "tor-b") {
				t.Errorf("others are shown:\n%s", text)
			}
		})
	}
	if _, err := Peers(served().Objects, told2(), []string{"tro"}, now); err == nil || !strings.Contains(err.Error(), `no node that was asked has a BGPPeer "tro"`) {
		t.Errorf("error %v", err)
	}
}

func inOrder(text string, want ...string) bool {
	for _, w := range want {
		_, after, ok := strings.Cut(text, w)
		if !ok {
			return false
		}
		text = after
	}
	return true
}

// TestRoutesAreShown changes one thing at a time. of is the query.
func TestRoutesAreShown(t *testing.T) {
	no := false
	one := []netip.Prefix{netip.MustParsePrefix("198.51.100.1/32")}
	none := func(a *Asked, nodes ...string) {
		for _, n := range nodes {
			a.Answers[n].Routes = nil
		}
	}
	for _, c := range []struct {
		name   string
		change func(*story, *Asked)
		of     RoutesQuery
		wrong  int
		want   []string
	}{
		{"all is well", func(*story, *Asked) {}, RoutesQuery{}, 0, []string{
			"All routes are sent.", "PREFIX SERVICE PEER SENT NODES NEXT HOPS ATTRIBUTES",
			"198.51.100.1/32 default/web tor-a yes n1, n2 192.0.2.11, 192.0.2.12 communities 64512:1", "tor-b yes n1, n2",
		}},
		{"one peer and one node", func(_ *story, a *Asked) { delete(a.Answers, "n1") }, RoutesQuery{Peers: []string{"tor-b"}, Nodes: []string{"n2"}}, 0, []string{"198.51.100.1/32 default/web tor-b yes n2 192.0.2.12"}},
		{"another address", func(*story, *Asked) {}, RoutesQuery{Prefixes: []netip.Prefix{netip.MustParsePrefix("198.51.100.9/32")}}, 0, []string{"No node announces such a route."}},

		// Routes that are not sent to the routers.
		{"a family that a router does not speak", func(_ *story, a *Asked) {
			for _, r := range a.Answers {
				r.Routes[1].Withheld = "the router does not speak IPv4 unicast"
			}
		}, RoutesQuery{}, 1, []string{"✗ 198.51.100.1 is not sent to tor-b by n1, n2: the router does not speak IPv4 unicast", "tor-a yes n1, n2", "tor-b no n1, n2"}},
		{"a session that is down", func(_ *story, a *Asked) {
			a.Answers["n1"].Peers[0].State, a.Answers["n1"].Peers[0].Reason = "Idle", "no answer"
			a.Answers["n1"].Routes[0].Withheld, a.Answers["n1"].Routes[0].NextHop = "the session is not established", ""
		}, RoutesQuery{}, 1, []string{"✗ 198.51.100.1 is not sent to tor-a by n1: the session is down: no answer", "tor-a no n1 - communities", "yes n2 192.0.2.12"}},

		// Routes that nodes do not have but must.
		{"kube-proxy is away", func(_ *story, a *Asked) {
			none(a, "n2")
			a.Answers["n2"].Problem = "kube-proxy does not serve on this node"
		}, RoutesQuery{}, 2, []string{"✗ 198.51.100.1 is not sent to tor-a by n2: the node announces nothing: kube-proxy does not serve on this node", "to tor-b by n2"}},
		{"it waits for kube-proxy", func(_ *story, a *Asked) {
			none(a, "n2")
			a.Answers["n2"].Held = []inspect.RoutingHeldBy{{Address: "198.51.100.1", Reason: "kube-proxy has not told yet that the node forwards it"}}
		}, RoutesQuery{Peers: []string{"tor-a"}}, 1, []string{"is not sent to tor-a by n2: kube-proxy has not told yet"}},
		{"it has no such session", func(_ *story, a *Asked) {
			a.Answers["n2"].Routes, a.Answers["n2"].Peers = a.Answers["n2"].Routes[:1], a.Answers["n2"].Peers[:1]
		}, RoutesQuery{}, 1, []string{"not sent to tor-b by n2: it has no session with that peer"}},
		{"its session may be one of those that it does not tell of", func(_ *story, a *Asked) {
			a.Answers["n2"].Routes, a.Answers["n2"].Peers, a.Answers["n2"].MorePeers = a.Answers["n2"].Routes[:1], a.Answers["n2"].Peers[:1], 1
		}, RoutesQuery{}, 1, []string{"not sent to tor-b by n2: its speaker has more BGPPeers than it tells of at once: name this one, by --peer"}},
		{"the address may be one of those that it does not tell of", func(_ *story, a *Asked) { none(a, "n2"); a.Answers["n2"].MoreHeld = 1 },
			RoutesQuery{Peers: []string{"tor-a"}}, 1, []string{"not sent to tor-a by n2: its speaker holds back more addresses than it tells of at once: name the address"}},
		{"its BGPPeer cannot be used", func(_ *story, a *Asked) {
			a.Answers["n2"].Routes = a.Answers["n2"].Routes[:1]
			a.Answers["n2"].Peers[1].State, a.Answers["n2"].Peers[1].Reason = "Invalid", "spec.passwordSecret: there is no Secret"
		}, RoutesQuery{}, 1, []string{"not sent to tor-b by n2: spec.passwordSecret: there is no Secret"}},
		{"it leaves", func(_ *story, a *Asked) { none(a, "n2"); a.Answers["n2"].Leaving = "12s" }, RoutesQuery{Peers: []string{"tor-a"}}, 1, []string{"is not sent to tor-a by n2: the node has been leaving for 12s, and announces nothing new"}},
		{"it does not follow", func(_ *story, a *Asked) { none(a, "n1", "n2") }, RoutesQuery{Peers: []string{"tor-a"}}, 1, []string{"198.51.100.1 is not sent to tor-a by n1, n2: the speaker has not done so yet"}},
		{"it has more than it tells", func(_ *story, a *Asked) { none(a, "n2"); a.Answers["n2"].More = 3 }, RoutesQuery{}, 0, []string{"! There are 3 more routes: name an address"}},
		{"it could not be asked", func(_ *story, a *Asked) { delete(a.Answers, "n2"); a.Unasked = []Unasked{{"n2", "timeout"}} }, RoutesQuery{}, 0, []string{"✗ node n2 could not be asked: timeout", "tor-a yes n1 "}},
		{"what may not be read", func(s *story, a *Asked) { none(a, "n2"); s.Unseen = []string{"services"} }, RoutesQuery{}, 0, []string{"! What is missing cannot be told: you may not list services", "tor-a yes n1 "}},

		// Differences.
		{"attributes", func(_ *story, a *Asked) { a.Answers["n2"].Routes[0].MED = new(uint32(10)) }, RoutesQuery{}, 1, []string{
			"✗ 198.51.100.1 is announced to tor-a with different attributes, which ought to be equal: MED 10, communities 64512:1 from n2; communities 64512:1 from n1", "tor-a yes n1 192.0.2.11 communities 64512:1", "yes n2 192.0.2.12 MED 10, communities 64512:1",
		}},
		{"link bandwidths may differ", func(_ *story, a *Asked) {
			a.Answers["n1"].Routes[0].LinkBandwidth, a.Answers["n2"].Routes[0].LinkBandwidth = 125_000, 375_000
		}, RoutesQuery{}, 0, []string{"n1 192.0.2.11 communities 64512:1, link bandwidth 1 Mbit/s", "n2 192.0.2.12 communities 64512:1, link bandwidth 3 Mbit/s"}},
		{"but not that a node has none", func(_ *story, a *Asked) { a.Answers["n1"].Routes[0].LinkBandwidth = 125_000 }, RoutesQuery{}, 1, []string{"with different attributes"}},
		{"a node that leaves", func(s *story, a *Asked) {
			s.Nodes[1].Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""}
			a.Answers["n2"].Leaving = "12s"
			for i := range a.Answers["n2"].Routes {
				a.Answers["n2"].Routes[i].Communities = []string{"64512:1", "graceful-shutdown"}
			}
		}, RoutesQuery{}, 0, []string{"! node n2 has been leaving for 12s: its routes have the community graceful-shutdown (RFC 8326)", "yes n2 192.0.2.12 communities 64512:1 graceful-shutdown"}},
		{"a route that is not to be", func(s *story, _ *Asked) { s.BGPAdvertisements[0].Spec.Peers = []string{"tor-a"} }, RoutesQuery{}, 1, []string{"✗ 198.51.100.1 is announced to tor-b by n1, n2 without a BGPAdvertisement that says so"}},

		// Addresses that are rightly not announced, and why.
		{"not by a node that is not selected", func(s *story, a *Asked) {
			none(a, "n2")
			s.Nodes[0].Labels = map[string]string{"rack": "a"}
			s.BGPAdvertisements[0].Spec.NodeSelector = selector("rack", "a")
		}, RoutesQuery{Prefixes: one}, 0, []string{"NOT ANNOUNCED SERVICE BY WHY 198.51.100.1 default/web n2 spec.nodeSelector of the advertisement does not select it"}},
		{"not by one that is excluded", func(s *story, a *Asked) {
			none(a, "n2")
			s.Nodes[1].Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""}
		}, RoutesQuery{Prefixes: one}, 0, []string{"n2 it is excluded: the node has the label " + corev1.LabelNodeExcludeBalancers}},
		{"not by one without the session", func(s *story, a *Asked) {
			none(a, "n2")
			s.Nodes[0].Labels = map[string]string{"rack": "a"}
			for _, p := range s.BGPPeers {
				p.Spec.NodeSelector = selector("rack", "a")
			}
		}, RoutesQuery{Prefixes: one}, 0, []string{"n2 spec.nodeSelector of the BGPPeer does not select it"}},
		{"not by one without an endpoint", func(s *story, a *Asked) {
			none(a, "n2")
			s.service.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		}, RoutesQuery{Prefixes: one}, 0, []string{"n2 it has no ready endpoint, and spec.externalTrafficPolicy is Local"}},
		{"nor is that told of what was not asked for", func(s *story, a *Asked) {
			none(a, "n2")
			s.service.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		}, RoutesQuery{}, 0, []string{"All routes are sent."}},
		{"not by any, without an endpoint", func(s *story, a *Asked) {
			none(a, "n1", "n2")
			s.Endpoints[0].Endpoints[0].Conditions.Ready = &no
		}, RoutesQuery{}, 0, []string{"No node announces such a route.", "198.51.100.1 default/web any node BGPAdvertisement fabric: no endpoint is ready"}},
		{"not by any, by mistake", func(s *story, a *Asked) {
			none(a, "n1", "n2")
			s.BGPAdvertisements[0].Spec.NodeSelector = selector("rack", "none")
		}, RoutesQuery{}, 1, []string{"✗ 198.51.100.1 is not announced: BGPAdvertisement fabric: spec.nodeSelector selects no node: change it"}},
		{"not by any, since no advertisement selects it", func(s *story, a *Asked) { none(a, "n1", "n2"); s.BGPAdvertisements = nil }, RoutesQuery{Prefixes: one}, 0, []string{"198.51.100.1 default/web any node no BGPAdvertisement selects it"}},
		{"which is not told of what was not asked for", func(s *story, a *Asked) { none(a, "n1", "n2"); s.BGPAdvertisements = nil }, RoutesQuery{}, 0, []string{"No node announces such a route."}},
		{"not by any, since it is a node's", func(s *story, a *Asked) {
			none(a, "n1", "n2")
			s.Nodes[1].Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "198.51.100.1"}}
		}, RoutesQuery{}, 1, []string{"✗ 198.51.100.1 is not announced: it is an address of node n2: take it out of spec.addresses"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, asked := served(), told2()
			c.change(s, asked)
			r, err := Routes(s.Objects, asked, &c.of, now)
			if err != nil {
				t.Fatal(err)
			}
			if text := plainText(r.Text); len(r.Problems) != c.wrong || !inOrder(flat(text), c.want...) {
				t.Errorf("%d problems, want %d; it says\n%s\nwant\n%s", len(r.Problems), c.wrong, text, strings.Join(c.want, "\n"))
			}
		})
	}
}

// TestAStickyAddressIsAnnouncedByOneNode is about the reasons of the other nodes.
func TestAStickyAddressIsAnnouncedByOneNode(t *testing.T) {
	s, asked := served(), told2()
	s.service.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	q := &RoutesQuery{Prefixes: []netip.Prefix{netip.MustParsePrefix("198.51.100.1/32")}}
	r, err := Routes(s.Objects, asked, q, now)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.NotSent) != 1 || len(r.NotSent[0].Nodes) != 1 || r.NotSent[0].Reason != "another node announces it, since spec.sessionAffinity is ClientIP" {
		t.Fatalf("%+v", r.NotSent)
	}
	asked.Answers[r.NotSent[0].Nodes[0]].Routes = nil
	if r, err = Routes(s.Objects, asked, q, now); err != nil || len(r.Problems) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestANetworkIsAnnouncedInPlaceOfAddresses is about aggregates, which have the Services of all their addresses.
func TestANetworkIsAnnouncedInPlaceOfAddresses(t *testing.T) {
	s, asked := served(), told2()
	s.BGPAdvertisements[0].Spec.AggregationLength = &herald.AggregationLength{IPv4: 24}
	for _, a := range asked.Answers {
		for i := range a.Routes {
			a.Routes[i].Prefix = "198.51.100.0/24"
		}
	}
	for _, q := range []RoutesQuery{
		{}, {Prefixes: []netip.Prefix{netip.MustParsePrefix("198.51.100.1/32")}},
		{Prefixes: []netip.Prefix{netip.MustParsePrefix("198.51.100.9/32")}}, // in the network, which exists because of others
	} {
		r, err := Routes(s.Objects, asked, &q, now)
		if err != nil {
			t.Fatal(err)
		}
		if text := plainText(r.Text); len(r.Problems) > 0 || !strings.Contains(flat(text), "198.51.100.0/24 default/web tor-a yes n1, n2") {
			t.Errorf("%s", text)
		}
	}
	asked.Answers["n2"].Routes = nil
	r, err := Routes(s.Objects, asked, &RoutesQuery{}, now)
	if err != nil || !strings.Contains(plainText(r.Text), "198.51.100.0/24 is not sent to tor-a by n2") {
		t.Errorf("%v: %s", err, plainText(r.Text))
	}
}

// TestRoutesForPrograms checks the names of fields, and that empty lists are not null.
func TestRoutesForPrograms(t *testing.T) {
	r, err := Routes(served().Objects, &Asked{}, &RoutesQuery{}, now)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Peers(served().Objects, &Asked{}, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	for value, want := range map[any]string{
		r: `{"problems":[],"routes":[],"notSent":[],"leaving":[],"unasked":[],"unseen":[],"more":0}`,
		p: `{"problems":[],"sessions":[],"unasked":[],"more":0}`,
	} {
		if got, err := json.Marshal(value); err != nil || string(got) != want {
			t.Errorf("%s, want %s (%v)", got, want, err)
		}
	}
	if r, err = Routes(served().Objects, told2(), &RoutesQuery{Peers: []string{"tor-a"}}, now); err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(r.Routes[0])
	if want := `{"node":"n1","prefix":"198.51.100.1/32","peer":"tor-a","nextHop":"192.0.2.11","communities":["64512:1"],"services":["default/web"]}`; err != nil || string(got) != want {
		t.Errorf("%s, want %s (%v)", got, want, err)
	}
}

// TestWhatRoutesAreNamed is about the arguments.
func TestWhatRoutesAreNamed(t *testing.T) {
	o := served().Objects
	o.Services = append(o.Services, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "late"}})
	named := func(text string) (types.NamespacedName, error) {
		namespace, name, ok := strings.Cut(text, "/")
		if !ok {
			return types.NamespacedName{}, fmt.Errorf("no")
		}
		return types.NamespacedName{Namespace: namespace, Name: name}, nil
	}
	got, err := PrefixesOf(o, []string{"198.51.100.7", "2001:db8::7", "203.0.113.9/24", "default/web", "198.51.100.7/32"}, named)
	var want []netip.Prefix
	for _, p := range []string{"198.51.100.1/32", "198.51.100.7/32", "203.0.113.0/24", "2001:db8::7/128"} {
		want = append(want, netip.MustParsePrefix(p))
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for arg, want := range map[string]string{
		"web": `"web" is not an address, prefix or Service: write 198.51.100.7`, "default/db": "there is no Service default/db", "default/late": "the Service default/late has no address",
	} {
		if _, err := PrefixesOf(o, []string{arg}, named); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", arg, err, want)
		}
	}
	var many []string
	for i := range inspect.MaxPrefixes + 1 {
		many = append(many, fmt.Sprintf("198.51.100.%d", i))
	}
	if got, err := PrefixesOf(o, many[1:], named); err != nil || len(got) != inspect.MaxPrefixes {
		t.Errorf("%d prefixes, %v", len(got), err)
	}
	if _, err := PrefixesOf(o, many, named); err == nil || !strings.Contains(err.Error(), "these are 101 addresses and prefixes: name 100 at most") {
		t.Errorf("error %v", err)
	}
}
