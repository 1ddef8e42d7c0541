package arp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"go.uber.org/zap"
)

// quiet keeps announcements out of tests of replies.
var quiet = Options{Burst: []time.Duration{time.Hour}}

// patience is how long a condition may take on a busy machine.
const patience = 20 * time.Second

func eventually(t testing.TB, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("condition not met")
		}
	}
}

func script(t testing.TB, h enclave.Host, format string, args ...any) {
	t.Helper()
	if err := h.Script(format, args...); err != nil {
		t.Fatal(err)
	}
}

// cable makes the interface name here, 198.18.0.1/24, and name-peer on the host that it returns, 198.18.0.99/24.
func cable(t testing.TB, name string) (far enclave.Host, mac net.HardwareAddr) {
	t.Helper()
	far, err := enclave.NewHost("far-" + name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = enclave.Host{}.Script("ip link delete %s 2>/dev/null || true", name)
		_ = far.Remove()
	})
	if err := enclave.Connect(enclave.Host{}, name, far, name+"-peer"); err != nil {
		t.Fatal(err)
	}
	script(t, enclave.Host{}, "ip addr add 198.18.0.1/24 dev %s", name)
	script(t, far, "ip addr add %s/24 dev %s-peer", clientIP, name)
	return far, interfaces(t, name)[0].MAC
}

// interfaces are the named ones as they are now.
func interfaces(t testing.TB, names ...string) (all []Interface) {
	t.Helper()
	for _, n := range names {
		ifi, err := net.InterfaceByName(n)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, Interface{Name: n, Index: ifi.Index, MAC: ifi.HardwareAddr, Up: ifi.Flags&net.FlagRunning != 0})
	}
	return all
}

// listenOn is a socket of the test's own that sees all ARP on a far host's interface.
func listenOn(t testing.TB, far enclave.Host, name string) (socket *packet.Conn) {
	t.Helper()
	if err := far.Do(func() error {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		socket, err = packet.Listen(ifi, packet.Raw, int(ethernet.EtherTypeARP), nil)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	return socket
}

// neighbour is the MAC that far's kernel has for addr, or "".
func neighbour(t testing.TB, far enclave.Host, addr netip.Addr) string {
	t.Helper()
	out, err := far.Command(context.Background(), "ip", "-4", "neigh", "show", addr.String()).Output()
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(out), "lladdr ")
	if !found {
		return ""
	}
	return strings.Fields(after)[0]
}

// arping asks from far, once, and tells whether somebody answered within a second.
func arping(t testing.TB, far enclave.Host, dev string, addr netip.Addr, options ...string) bool {
	t.Helper()
	args := append(append([]string{"-c", "1", "-w", "1", "-I", dev}, options...), addr.String())
	err := far.Command(context.Background(), "arping", args...).Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return err == nil
}

func TestAKernelResolvesTheAddress(t *testing.T) {
	far, mac := cable(t, "eth0")
	r := New(zap.NewNop(), quiet)
	r.SetInterfaces(interfaces(t, "eth0"))
	r.Set(vip, []string{"eth0"})
	start(t, r)
	eventually(t, func() bool { return r.Stats()[0].Serving })

	// Any packet makes the kernel ask; nobody answers the packet itself.
	if err := far.Command(context.Background(), "bash", "-c", "echo > /dev/udp/"+vip.String()+"/9").Run(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return neighbour(t, far, vip) == mac.String() })
	if arping(t, far, "eth0-peer", vip2) {
		t.Error("answered for an address that was never set")
	}
	if !arping(t, far, "eth0-peer", vip) {
		t.Error("no answer to arping")
	}
	// -D is duplicate address detection, a probe: it succeeds if nobody answers.
	if arping(t, far, "eth0-peer", vip, "-D") {
		t.Error("the address was not defended against a probe")
	}

	r.Set(vip2, []string{"eth0"})
	eventually(t, func() bool { return arping(t, far, "eth0-peer", vip2) })

	r.Set(vip, nil)
	if arping(t, far, "eth0-peer", vip) {
		t.Error("answered after the address was given up")
	}
	if !arping(t, far, "eth0-peer", vip2) {
		t.Error("the other address went with it")
	}
	r.Set(vip2, nil)
	eventually(t, func() bool { return !r.Stats()[0].Serving })
}

func TestEachInterfaceAnswersForItsOwn(t *testing.T) {
	farA, macA := cable(t, "eth0")
	farB, macB := cable(t, "eth1")
	r := New(zap.NewNop(), quiet)
	r.SetInterfaces(interfaces(t, "eth0", "eth1"))
	both := netip.MustParseAddr("198.18.0.30")
	r.Set(vip, []string{"eth0"})
	r.Set(vip2, []string{"eth1"})
	r.Set(both, []string{"eth0", "eth1"})
	start(t, r)
	eventually(t, func() bool { s := r.Stats(); return s[0].Serving && s[1].Serving })
	for _, side := range []struct {
		far          enclave.Host
		dev          string
		mac          net.HardwareAddr
		mine, theirs netip.Addr
	}{
		{far: farA, dev: "eth0-peer", mac: macA, mine: vip, theirs: vip2},
		{far: farB, dev: "eth1-peer", mac: macB, mine: vip2, theirs: vip},
	} {
		socket := listenOn(t, side.far, side.dev)
		for _, target := range []netip.Addr{side.theirs, side.mine, both} {
			if _, err := socket.WriteTo(ask(target), &packet.Addr{HardwareAddr: ethernet.Broadcast}); err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range []netip.Addr{side.mine, both} {
			eth, p := receive(t, socket, isFrom(side.mac))
			if p.SenderIP != want {
				t.Errorf("%s: %s, want an answer for %v", side.dev, describe(eth, p), want)
			}
		}
	}
	// Moved from one interface to the other.
	r.Set(vip, []string{"eth1"})
	if arping(t, farA, "eth0-peer", vip) {
		t.Error("still answered on eth0")
	}
	if !arping(t, farB, "eth1-peer", vip) {
		t.Error("not answered on eth1")
	}
}

func TestAnAnnouncementUpdatesTheKernelsEntry(t *testing.T) {
	far, mac := cable(t, "eth0")
	// The peer believes that the address is at a node that has just died.
	script(t, far, "ip neigh replace %s lladdr %s nud reachable dev eth0-peer", vip, another)
	r := New(zap.NewNop(), Options{Burst: ms(0, 20, 50), Refresh: -1})
	r.SetInterfaces(interfaces(t, "eth0"))
	start(t, r)
	r.Set(vip, []string{"eth0"})
	eventually(t, func() bool { return neighbour(t, far, vip) == mac.String() })
	eventually(t, func() bool { return r.Stats()[0].Announced == 6 })
	if s := r.Stats()[0]; s.Answered != 0 {
		t.Errorf("the peer asked: %+v", s)
	}
}

// Each form alone suffices for this kernel, so neither hides a mistake in the other.
func TestEachFormOfAnnouncementUpdatesTheKernelsEntry(t *testing.T) {
	far, mac := cable(t, "eth0")
	frames, err := announcements(mac, vip)
	if err != nil {
		t.Fatal(err)
	}
	c, err := listen(interfaces(t, "eth0")[0], program(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i, form := range []string{"request", "reply"} {
		script(t, far, "ip neigh replace %s lladdr %s nud reachable dev eth0-peer", vip, another)
		if err := c.Write(frames[i]); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { return neighbour(t, far, vip) == mac.String() })
		t.Log(form, "understood")
	}
}

func TestALinkThatComesBackIsAnnouncedOn(t *testing.T) {
	far, mac := cable(t, "eth0")
	socket := listenOn(t, far, "eth0-peer")
	r := New(zap.NewNop(), Options{Burst: ms(0, 10), Refresh: -1})
	r.SetInterfaces(interfaces(t, "eth0"))
	r.Set(vip, []string{"eth0"})
	start(t, r)
	burst := func(mac net.HardwareAddr) {
		t.Helper()
		for range 2 {
			for _, op := range []arp.Operation{arp.OperationRequest, arp.OperationReply} {
				eth, p := receive(t, socket, isFrom(mac))
				if p.Operation != op || p.SenderIP != vip || p.TargetIP != vip {
					t.Errorf("unexpected %s", describe(eth, p))
				}
			}
		}
	}
	burst(mac)

	script(t, enclave.Host{}, "ip link set eth0 down")
	r.SetInterfaces(interfaces(t, "eth0"))
	eventually(t, func() bool { return !r.Stats()[0].Serving })
	script(t, enclave.Host{}, "ip link set eth0 up")
	eventually(t, func() bool { return interfaces(t, "eth0")[0].Up })
	r.SetInterfaces(interfaces(t, "eth0"))
	burst(mac)

	// Down and up so fast that whoever calls SetInterfaces never noticed: the socket did.
	script(t, enclave.Host{}, "ip link set eth0 down; ip link set eth0 up")
	burst(mac)

	moved := net.HardwareAddr{0x02, 0, 0x5e, 0, 0x53, 0x77}
	script(t, enclave.Host{}, "ip link set eth0 address %s", moved)
	r.SetInterfaces(interfaces(t, "eth0"))
	burst(moved)
	if _, err := socket.WriteTo(ask(vip), &packet.Addr{HardwareAddr: ethernet.Broadcast}); err != nil {
		t.Fatal(err)
	}
	if eth, p := receive(t, socket, isFrom(moved)); p.SenderHardwareAddr.String() != moved.String() || p.Operation != arp.OperationReply {
		t.Errorf("after the MAC changed: %s", describe(eth, p))
	}
}

func TestAnInterfaceThatIsReplaced(t *testing.T) {
	_, _ = cable(t, "eth0")
	r := New(zap.NewNop(), quiet)
	old := interfaces(t, "eth0")
	r.SetInterfaces(old)
	r.Set(vip, []string{"eth0"})
	start(t, r)
	eventually(t, func() bool { return r.Stats()[0].Serving })
	script(t, enclave.Host{}, "ip link del eth0")
	eventually(t, func() bool { return !r.Stats()[0].Serving })
	r.SetInterfaces(nil)

	far, err := enclave.NewHost("second")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Remove() })
	if err := enclave.Connect(enclave.Host{}, "eth0", far, "port"); err != nil {
		t.Fatal(err)
	}
	script(t, far, "ip addr add %s/24 dev port", clientIP)
	eventually(t, func() bool { return interfaces(t, "eth0")[0].Up })
	r.SetInterfaces(interfaces(t, "eth0"))
	// The new interface has no IPv4 address of its own; it answers all the same.
	eventually(t, func() bool { return arping(t, far, "port", vip) })
}

func TestRunClosesItsSockets(t *testing.T) {
	cable(t, "eth0")
	count := func() int {
		// Of this thread, not of the process: its first thread may have been left on another host.
		raw, err := os.ReadFile("/proc/thread-self/net/packet")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(raw), "\n")
	}
	before := count()
	r := New(zap.NewNop(), quiet)
	r.SetInterfaces(interfaces(t, "eth0"))
	stop := start(t, r)
	r.Set(vip, []string{"eth0"})
	eventually(t, func() bool { return r.Stats()[0].Serving })
	if n := count(); n != before+1 {
		t.Errorf("%d sockets, want one more than %d", n, before)
	}
	stop()
	if n := count(); n != before {
		t.Errorf("%d sockets after Run, want %d", n, before)
	}
}

// A thousand addresses announced at once do not keep requests from their answers, and each is
// answered once it has been announced.
func TestRepliesGoOnWhileAThousandAreAnnounced(t *testing.T) {
	far, mac := cable(t, "eth0")
	socket := listenOn(t, far, "eth0-peer")
	r := New(zap.NewNop(), Options{Burst: ms(0), Refresh: -1})
	r.SetInterfaces(interfaces(t, "eth0"))
	r.Set(vip, []string{"eth0"})
	start(t, r)
	eventually(t, func() bool { return r.Stats()[0].Announced == 2 })
	const n = 1000
	for _, a := range numbered(n) {
		r.Set(a, []string{"eth0"})
	}
	announced := make(map[netip.Addr]bool)
	answered := 0
	for len(announced) < n {
		eth, p := receive(t, socket, isFrom(mac))
		switch isGratuitous := p.SenderIP == p.TargetIP; {
		case p.SenderIP == vip || isGratuitous && p.Operation == arp.OperationReply:
		case isGratuitous:
			announced[p.SenderIP] = true
			if _, err := socket.WriteTo(ask(p.SenderIP), &packet.Addr{HardwareAddr: ethernet.Broadcast}); err != nil {
				t.Fatal(err)
			}
		case p.TargetIP == clientIP && announced[p.SenderIP]:
			answered++
		default:
			t.Fatalf("unexpected %s", describe(eth, p))
		}
	}
	if answered == 0 {
		t.Error("no answer before the last announcement")
	}
	for answered < n {
		if _, p := receive(t, socket, isFrom(mac)); p.TargetIP == clientIP {
			answered++
		}
	}
}
