package speaker

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/heraldlb/herald/speaker/link"
	"github.com/mdlayher/ndp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/e2e/lab/enclave"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// The choice of a router does not depend on which router answers first, on how many advertise themselves, or on former routers.
func TestWhichRouterANodeTakes(t *testing.T) {
	const iface = "eth1"
	addr := func(last string) netip.Addr { return netip.MustParseAddr("fe80::" + last + "%" + iface) }
	genuine, rogue, none := addr("a"), addr("b"), netip.Addr{}
	ago := func(d time.Duration) time.Time { return noon.Add(-d) }
	type heard = map[netip.Addr]time.Time
	many := heard{}
	for a := addr("1"); len(many) < maxHeard; a = a.Next() {
		many[a] = ago(0)
	}
	for _, story := range []struct {
		name                        string
		listening                   time.Duration // for how long; zero: the node does not listen
		fault                       error
		heard                       heard
		kernel                      []netip.Addr
		established, before, proved netip.Addr
		want                        netip.Addr
		err                         string
	}{
		{name: "the only one that is heard", listening: time.Hour, heard: heard{genuine: ago(0)}, kernel: []netip.Addr{genuine, rogue}, want: genuine},
		{name: "none is heard, and the kernel has one", listening: time.Hour, kernel: []netip.Addr{genuine}, want: genuine},
		{name: "none is heard, and the kernel has two", listening: time.Hour, kernel: []netip.Addr{genuine, rogue}, err: "fe80::a%eth1 and fe80::b%eth1 are taken for routers on the link of eth1: remove the others"},
		{name: "none is heard, the kernel has two, and there was a session", listening: time.Hour, kernel: []netip.Addr{genuine, rogue}, proved: genuine, want: genuine},
		{name: "many are heard", listening: time.Hour, heard: many, err: "fe80::1%eth1 and fe80::2%eth1 and fe80::3%eth1 and fe80::4%eth1 and fe80::5%eth1 and fe80::6%eth1 and fe80::7%eth1 and fe80::8%eth1 and others are"},
		{name: "none is there", listening: time.Hour, err: "no router has advertised itself on the link of eth1 yet"},
		{name: "none is there any more", listening: time.Hour, before: genuine, want: genuine},

		{name: "after a start the rogue answers first", listening: time.Second, heard: heard{rogue: ago(0)}, kernel: []netip.Addr{genuine, rogue}, err: "the routers on the link of eth1 have been asked to advertise themselves: wait 5s"},
		{name: "then the other answers", listening: timeToAnswer, heard: heard{rogue: ago(4 * time.Second), genuine: ago(time.Second)}, kernel: []netip.Addr{genuine, rogue}, err: "fe80::a%eth1 and fe80::b%eth1 are"},
		{name: "after a start the kernel has one", listening: timeToAnswer - 1, kernel: []netip.Addr{rogue}, err: "the routers on the link of eth1 have been asked"},
		{name: "listening begins again", listening: time.Second, heard: heard{rogue: ago(0)}, before: genuine, want: genuine},
		{name: "there is a session", listening: time.Second, heard: heard{rogue: ago(0)}, established: genuine, before: genuine, proved: genuine, want: genuine},
		{name: "there is a session, and another is heard", listening: time.Hour, heard: heard{rogue: ago(0)}, established: genuine, before: genuine, proved: genuine, want: genuine},

		{name: "the router reboots, and the rogue advertises itself", listening: time.Hour, heard: heard{genuine: ago(time.Minute), rogue: ago(0)}, kernel: []netip.Addr{rogue}, before: genuine, proved: genuine, want: genuine},
		{name: "the same, and there was no session", listening: time.Hour, heard: heard{genuine: ago(time.Minute), rogue: ago(0)}, kernel: []netip.Addr{rogue}, before: genuine, err: "fe80::a%eth1 and fe80::b%eth1 are"},
		{name: "the router was replaced", listening: time.Hour, heard: heard{genuine: ago(presentFor), rogue: ago(0)}, kernel: []netip.Addr{genuine, rogue}, before: genuine, proved: genuine, want: rogue},

		{name: "the rogue has gone, and the kernel still has it", listening: time.Hour, heard: heard{genuine: ago(time.Minute), rogue: ago(presentFor)}, kernel: []netip.Addr{genuine, rogue}, want: genuine},
		{name: "the rogue may have gone", listening: time.Hour, heard: heard{genuine: ago(time.Minute), rogue: ago(presentFor - 1)}, kernel: []netip.Addr{genuine, rogue}, err: "fe80::a%eth1 and fe80::b%eth1 are"},

		{name: "it is not listened", fault: errors.New("operation not permitted"), kernel: []netip.Addr{rogue}, err: "routers on the link of eth1 cannot be told from other machines: operation not permitted"},
		{name: "it is not listened any more", fault: errors.New("operation not permitted"), kernel: []netip.Addr{rogue}, before: genuine, want: genuine},
		{name: "it was not listened once", listening: time.Hour, fault: errors.New("operation not permitted"), heard: heard{genuine: ago(0)}, want: genuine},
	} {
		l := linkRouters{iface: iface, fault: story.fault, heard: story.heard, kernel: story.kernel}
		if story.listening > 0 {
			l.since = ago(story.listening)
		}
		got, err := l.router(story.established, story.before, story.proved, noon)
		switch {
		case story.err == "" && (err != nil || got != story.want):
			t.Errorf("%s: %v, %v, want %v", story.name, got, err, story.want)
		case story.err != "" && (err == nil || got != none || !strings.HasPrefix(err.Error(), "spec.addressFrom.interface: "+story.err)):
			t.Errorf("%s: %v, %v, want the error %q", story.name, got, err, story.err)
		}
	}
}

// Forged routers do not shut out the real one. While there are too many to remember, a node says so and chooses none of them. It
// finds the real router soon after they have gone.
func TestTooManyRouters(t *testing.T) {
	l := linkRouters{iface: "eth1", heard: map[netip.Addr]time.Time{}}
	forged := netip.MustParseAddr("fe80::f:0%eth1")
	for range maxHeard {
		forged = forged.Next()
		if err := l.hear(forged, noon); err != nil {
			t.Fatal(err)
		}
	}
	const says = "more than 64 machines advertise themselves as routers on eth1"
	genuine := netip.MustParseAddr("fe80::a%eth1")
	for _, step := range []struct {
		after  time.Duration
		router netip.Addr
		known  int
		err    string
	}{
		{time.Second, genuine, maxHeard, says},
		{2 * time.Second, forged, maxHeard, ""},
		{presentFor - 1, genuine, maxHeard, says},
		{presentFor, genuine, 2, ""},
		{presentFor + 2*time.Second, genuine, 1, ""},
	} {
		err := l.hear(step.router, noon.Add(step.after))
		if got := len(l.present(noon.Add(step.after))); got != step.known || (step.err == "") != (err == nil) || err != nil && !strings.HasPrefix(err.Error(), step.err) {
			t.Errorf("after %v: %d are there and %v, want %d and %q", step.after, got, err, step.known, step.err)
		}
	}
	if a, err := l.router(netip.Addr{}, netip.Addr{}, netip.Addr{}, noon.Add(time.Second)); err == nil {
		t.Errorf("%v is the router while it is not heard who else there is", a)
	}
}

// A node looks for routers only on the links of its own BGPPeers.
func TestANodeAsksRoutersOfItsOwnPeers(t *testing.T) {
	on := func(iface, rack string) *herald.BGPPeer {
		return peerOf(iface, func(o *herald.BGPPeerSpec) {
			o.Address, o.AddressFrom, o.NodeSelector = "", &herald.PeerAddressSource{Interface: iface}, matching("rack", rack)
		})
	}
	peers := []metav1.Object{on("eth1", "a"), on("eth2", "b"), peerOf("tor", nil)}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"rack": "a"}}}
	if got := loopOf(t, "n1", append(peers, node)...).s.inputs.unnumbered(); !maps.Equal(got, map[string]bool{"eth1": true}) {
		t.Errorf("it asks on %v", got)
	}
	if got := loopOf(t, "n1", peers...).s.inputs.unnumbered(); len(got) > 0 {
		t.Errorf("a node that is not known yet asks on %v", got)
	}
}

// A link has a router and another node. Both forward, so the kernel takes both for routers. A node chooses neither while it has
// heard neither, and then chooses the one that advertises itself.
func TestTheRouterOfALinkIsTheOneThatAdvertisesItself(t *testing.T) {
	if !enclosed {
		t.Skip(enclave.ErrNotRoot)
	}
	script(t, "ip link add up0 type bridge mcast_snooping 0; ip addr add fe80::1/64 dev up0 nodad; ip link set up0 up")
	t.Cleanup(func() { script(t, "ip link delete up0") })
	addresses := map[string]string{"router": "fe80::a", "node": "fe80::b"}
	hosts := map[string]enclave.Host{}
	for name, address := range addresses {
		h, err := enclave.NewHost("link-" + name)
		if err != nil {
			t.Fatal(err)
		}
		hosts[name] = h
		t.Cleanup(func() { _ = h.Remove() })
		if err := enclave.Connect(enclave.Host{}, name, h, "eth0"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { script(t, "ip link delete "+name) }) // The kernel removes a namespace with a delay.
		script(t, "ip link set "+name+" master up0")
		if err := h.Script("sysctl -qw net.ipv6.conf.eth0.forwarding=1; ip addr add %s/64 dev eth0 nodad", address); err != nil {
			t.Fatal(err)
		}
	}
	l := loopOf(t, "n1", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, peerOf("tor", func(o *herald.BGPPeerSpec) {
		o.Address, o.AddressFrom = "", &herald.PeerAddressSource{Interface: "up0"}
	}))
	ended := make(chan error, 1)
	go func() { ended <- l.s.links.Run(t.Context()) }()
	t.Cleanup(func() {
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	defer l.links.follow(nil)
	eventually(t, "both are neighbours, and neither is the router", func() bool {
		for _, address := range addresses {
			ask(t, net.JoinHostPort(address+"%up0", "9"))
		}
		_, rejected, _ := l.findRouters()
		listenFor(l.links.of["up0"], timeToAnswer)
		return len(rejected) == 1 && strings.HasPrefix(rejected[0].Err.Error(), "spec.addressFrom.interface: fe80::a%up0 and fe80::b%up0 are taken for routers on the link of up0: remove the others")
	})
	// The first advertisement may be lost if the node does not listen yet.
	advertised := func(by, address string, times int) {
		if err := hosts[by].Do(func() error { return advertiseOn("eth0", address, times) }); err != nil {
			t.Fatal(err)
		}
	}
	isRouter := func() bool {
		peers, _, _ := l.findRouters()
		return len(peers) == 1 && peers[0].Address == netip.MustParseAddr("fe80::a%up0")
	}
	var last time.Time
	eventually(t, "the one that advertises itself is the router", func() bool {
		if time.Since(last) > 100*time.Millisecond { // More than 100 per second count as a flood.
			advertised("router", "fe80::a", 1)
			last = time.Now()
		}
		return isRouter()
	})
	// Simulate that the speaker has only begun to listen.
	eventually(t, "it is noticed that the other advertises itself without end", func() bool {
		advertised("node", "fe80::b", 200)
		known := l.links.of["up0"].known()
		return known.fault != nil && (known.since.IsZero() || time.Since(known.since) < timeToAnswer)
	})
	if !isRouter() {
		t.Error("the router that was found before is given up")
	}
	l.found = nil
	if peers, rejected, _ := l.findRouters(); len(peers) > 0 || len(rejected) != 1 ||
		!strings.HasPrefix(rejected[0].Err.Error(), "spec.addressFrom.interface: routers on the link of up0 cannot be told from other machines: more than 100 ") {
		t.Errorf("%+v, rejected %v", peers, rejected)
	}
}

// listenFor makes a link look as if the node had listened on it for the duration d.
func listenFor(l *unnumberedLink, d time.Duration) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.routers.since.IsZero() && time.Since(l.routers.since) < d {
		l.routers.since = l.routers.since.Add(-d)
	}
}

// ask sends a packet, so that the kernel asks for the MAC address.
func ask(t *testing.T, to string) {
	t.Helper()
	conn, err := net.Dial("udp6", to)
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Write([]byte("x"))
	_ = conn.Close() // The error is the reply to the packet before.
	if err != nil && !strings.Contains(err.Error(), "refused") {
		t.Fatal(err)
	}
}

// advertiseOn sends the given number of Router Advertisements in quick succession.
func advertiseOn(device, address string, times int) (err error) {
	i, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	conn, err := link.OpenNDP(i, ndp.Addr(address))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	says := &ndp.RouterAdvertisement{Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: i.HardwareAddr}}}
	for range times {
		err = errors.Join(err, conn.WriteTo(says, nil, netip.IPv6LinkLocalAllNodes()))
	}
	return err
}
