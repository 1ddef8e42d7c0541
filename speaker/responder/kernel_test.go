package responder_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/speaker/responder"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// quiet keeps announcements out of tests of answers.
var quiet = responder.Options{Burst: []time.Duration{time.Hour}}

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

// cable creates the interface name on this host, and its peer name-peer on the host that it returns,
// with addresses of both families.
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
	for _, f := range families {
		script(t, enclave.Host{}, "ip addr add %s/%d dev %s nodad", f.here, f.bits, name)
		script(t, far, "ip addr add %s/%d dev %s-peer nodad", f.client, f.bits, name)
	}
	return far, interfaces(t, name)[0].MAC
}

// interfaces returns the present state of the named interfaces.
func interfaces(t testing.TB, names ...string) (all []responder.Interface) {
	t.Helper()
	for _, n := range names {
		ifi, err := net.InterfaceByName(n)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, responder.Interface{Name: n, Index: ifi.Index, MAC: ifi.HardwareAddr, Up: ifi.Flags&net.FlagRunning != 0})
	}
	return all
}

// listenOn opens a socket of the test on an interface of a far host. It receives all frames of the protocol.
func listenOn(t testing.TB, f *family, far enclave.Host, name string) (socket *packet.Conn) {
	t.Helper()
	if err := far.Do(func() error {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		if socket, err = packet.Listen(ifi, packet.Raw, int(f.ethType), nil); err != nil {
			return err
		}
		// A thousand announcements come faster than the test reads them.
		raw, err := socket.SyscallConn()
		if err != nil {
			return err
		}
		return errors.Join(raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
		}), err)
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	return socket
}

// receive returns the next packet that matches, and skips others.
func receive(t testing.TB, f *family, socket *packet.Conn, match func(said) bool) said {
	t.Helper()
	if err := socket.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	for {
		n, _, err := socket.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("no answer")
		}
		if err != nil {
			t.Fatal(err)
		}
		s, err := f.decode(buf[:n])
		if errors.Is(err, errNotNeighbour) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if match(s) {
			return s
		}
	}
}

func write(t testing.TB, socket *packet.Conn, frame []byte) {
	t.Helper()
	if _, err := socket.WriteTo(frame, &packet.Addr{HardwareAddr: ethernet.Broadcast}); err != nil {
		t.Fatal(err)
	}
}

// neighbour returns the entry of far's kernel for addr: its MAC, or "", and the state.
func neighbour(t testing.TB, far enclave.Host, addr netip.Addr) (mac, state string) {
	t.Helper()
	out, err := far.Command(context.Background(), "ip", "neigh", "show", addr.String()).Output()
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(string(out))
	for i, w := range words {
		if w == "lladdr" {
			mac = words[i+1]
		}
		state = w
	}
	return mac, state
}

// resolves makes far's kernel send a packet to addr, and returns the MAC that the kernel learns. It
// removes the kernel's earlier entry first.
func resolves(t testing.TB, far enclave.Host, dev string, addr netip.Addr) (mac string) {
	t.Helper()
	script(t, far, "ip neigh flush to %s dev %s", addr, dev)
	if err := far.Do(func() error {
		c, err := net.Dial("udp", netip.AddrPortFrom(addr, 9).String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("x"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	// A kernel that gets no answer asks three times, and then gives up.
	eventually(t, func() bool {
		var state string
		mac, state = neighbour(t, far, addr)
		return mac != "" || state == "FAILED"
	})
	return mac
}

// serving starts a responder for addrs on interfaces that exist.
func serving(t testing.TB, f *family, o responder.Options, iface string, addrs ...netip.Addr) *responder.Responder {
	t.Helper()
	r := responder.New(zap.NewNop(), f.protocol, o)
	r.SetInterfaces(interfaces(t, iface))
	for _, a := range addrs {
		r.Set(a, iface, owner)
	}
	start(t, r)
	eventually(t, func() bool { s := r.Stats(); return len(s) > 0 && s[0].Serving })
	return r
}

func TestAKernelResolvesTheAddress(t *testing.T) {
	each(t, func(t *testing.T, f *family) {
		far, mac := cable(t, "eth0")
		script(t, far, "sysctl -qw net.ipv4.neigh.eth0-peer.retrans_time_ms=100 net.ipv6.neigh.eth0-peer.retrans_time_ms=100")
		r := serving(t, f, quiet, "eth0", f.vip)
		if got := resolves(t, far, "eth0-peer", f.vip); got != mac.String() {
			t.Errorf("resolved to %q", got)
		}
		if got := resolves(t, far, "eth0-peer", f.vip2); got != "" {
			t.Error("answered for an address that was never set")
		}
		r.Set(f.vip2, "eth0", owner)
		eventually(t, func() bool { return resolves(t, far, "eth0-peer", f.vip2) == mac.String() })
		r.Set(f.vip, "eth0", nil)
		if got := resolves(t, far, "eth0-peer", f.vip); got != "" {
			t.Error("answered after the address was given up")
		}
		if got := resolves(t, far, "eth0-peer", f.vip2); got != mac.String() {
			t.Error("the other address went with it")
		}
		r.Set(f.vip2, "eth0", nil)
		eventually(t, func() bool { return !r.Stats()[0].Serving })
	})
}

// A neighbour that has not heard of the address for a while asks by unicast.
func TestAKernelFindsTheAddressStillReachable(t *testing.T) {
	each(t, func(t *testing.T, f *family) {
		far, mac := cable(t, "eth0")
		socket := listenOn(t, f, far, "eth0-peer")
		r := serving(t, f, quiet, "eth0", f.vip)
		for i := range 3 {
			script(t, far, "ip neigh replace %s lladdr %s nud probe dev eth0-peer", f.vip, mac)
			eventually(t, func() bool { _, state := neighbour(t, far, f.vip); return state == "REACHABLE" })
			if s := receive(t, f, socket, answerFrom(mac)); s.addr != f.vip {
				t.Errorf("round %d: %s", i, s.text)
			}
		}
		if n := r.Stats()[0].Answered; n != 3 {
			t.Errorf("answered %d times", n)
		}
	})
}

// A host that is configured with one of our addresses first asks whether it is in use.
func TestAKernelDetectsTheDuplicate(t *testing.T) {
	far, _ := cable(t, "eth0")
	serving(t, ipv6, quiet, "eth0", vip6)
	serving(t, ipv4, quiet, "eth0", vip4)
	failed := func() bool {
		out, err := far.Command(context.Background(), "ip", "-6", "addr", "show", "dev", "eth0-peer", "dadfailed").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(out), vip6.String()+"/")
	}
	script(t, far, "sysctl -qw net.ipv6.conf.eth0-peer.accept_dad=1 net.ipv6.conf.eth0-peer.dad_transmits=1; ip addr add %s/64 dev eth0-peer", vip6)
	eventually(t, failed)

	// The kernel does not ask before it uses an IPv4 address, but arping -D does. It succeeds if no host answers.
	err := far.Command(context.Background(), "arping", "-D", "-c", "1", "-w", "1", "-I", "eth0-peer", vip4.String()).Run()
	if _, ok := errors.AsType[*exec.ExitError](err); !ok {
		t.Errorf("the address was not defended against a probe: %v", err)
	}
}

// Our own Probe asks for an address that a kernel has, and for one that no kernel has.
func TestProbeOfAKernel(t *testing.T) {
	each(t, func(t *testing.T, f *family) {
		far, _ := cable(t, "eth0")
		r := serving(t, f, quiet, "eth0", f.vip)
		began := time.Now()
		if mac, err := r.Probe(t.Context(), "eth0", f.vip2); mac != nil || err != nil {
			t.Errorf("found %v, %v at an address that is free", mac, err)
		}
		t.Logf("a free address takes %v", time.Since(began))
		var want string
		if err := far.Do(func() error {
			ifi, err := net.InterfaceByName("eth0-peer")
			want = ifi.HardwareAddr.String()
			return err
		}); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		if mac, err := r.Probe(t.Context(), "eth0", f.client); err != nil || mac.String() != want {
			t.Errorf("found %v, %v; want %v", mac, err, want)
		}
		t.Logf("one in use takes %v", time.Since(began))
	})
}

func TestEachInterfaceAnswersForItsOwn(t *testing.T) {
	each(t, func(t *testing.T, f *family) {
		farA, macA := cable(t, "eth0")
		farB, macB := cable(t, "eth1")
		r := responder.New(zap.NewNop(), f.protocol, quiet)
		r.SetInterfaces(interfaces(t, "eth0", "eth1"))
		both := f.vip2.Next()
		r.Set(f.vip, "eth0", owner)
		r.Set(f.vip2, "eth1", owner)
		r.Set(both, "eth0", owner)
		r.Set(both, "eth1", owner)
		start(t, r)
		eventually(t, func() bool { s := r.Stats(); return s[0].Serving && s[1].Serving })
		sockets := map[string]*packet.Conn{"eth0": listenOn(t, f, farA, "eth0-peer"), "eth1": listenOn(t, f, farB, "eth1-peer")}
		for _, side := range []struct {
			dev          string
			mac          net.HardwareAddr
			mine, theirs netip.Addr
		}{
			{dev: "eth0", mac: macA, mine: f.vip, theirs: f.vip2},
			{dev: "eth1", mac: macB, mine: f.vip2, theirs: f.vip},
		} {
			for _, target := range []netip.Addr{side.theirs, side.mine, both} {
				write(t, sockets[side.dev], f.ask(target, netip.Addr{}))
			}
			for _, want := range []netip.Addr{side.mine, both} {
				if s := receive(t, f, sockets[side.dev], answerFrom(side.mac)); s.addr != want {
					t.Errorf("%s: %s, want an answer for %v", side.dev, s.text, want)
				}
			}
		}
		// The address moves from one interface to the other.
		r.Set(f.vip, "eth0", nil)
		r.Set(f.vip, "eth1", owner)
		eventually(t, func() bool { s := r.Stats(); return s[1].Owned == 3 })
		for dev, mac := range map[string]net.HardwareAddr{"eth0": macA, "eth1": macB} {
			// The answer for both comes after the one for vip, or without it.
			var got []netip.Addr
			for len(got) == 0 || got[len(got)-1] != both {
				write(t, sockets[dev], f.ask(f.vip, netip.Addr{}))
				write(t, sockets[dev], f.ask(both, netip.Addr{}))
				got = append(got, receive(t, f, sockets[dev], answerFrom(mac)).addr)
				if dev == "eth1" && got[0] == both {
					got = nil // the filter does not accept vip yet
				}
			}
			if dev == "eth0" && got[0] == f.vip {
				t.Error("still answered on eth0")
			}
		}
	})
}

func answerFrom(mac net.HardwareAddr) func(said) bool {
	return func(s said) bool { return isFrom(mac)(s) && s.kind == "answer" }
}

func TestAnAnnouncementUpdatesTheKernelsEntry(t *testing.T) {
	each(t, func(t *testing.T, f *family) {
		far, mac := cable(t, "eth0")
		// The peer's entry for the address has the MAC of a node that has just died.
		script(t, far, "ip neigh replace %s lladdr %s nud reachable dev eth0-peer", f.vip, another)
		r := responder.New(zap.NewNop(), f.protocol, responder.Options{Burst: ms(0, 20, 50), Refresh: -1})
		r.SetInterfaces(interfaces(t, "eth0"))
		start(t, r)
		r.Set(f.vip, "eth0", owner)
		eventually(t, func() bool { got, _ := neighbour(t, far, f.vip); return got == mac.String() })
		eventually(t, func() bool { return r.Stats()[0].Announced == uint64(3*f.forms) })
		if s := r.Stats()[0]; s.Answered != 0 {
			t.Errorf("the peer asked: %+v", s)
		}
	})
}

// Each form of announcement is enough for this kernel, so neither hides a mistake in the other.
func TestEachFormOfAnnouncementUpdatesTheKernelsEntry(t *testing.T) {
	each(t, func(t *testing.T, f *family) {
		far, mac := cable(t, "eth0")
		frames, err := f.protocol.Announce(mac, f.vip)
		if err != nil || len(frames) != f.forms {
			t.Fatal(len(frames), err)
		}
		c, err := f.protocol.Open(interfaces(t, "eth0")[0], f.protocol.Filter(nil))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, frame := range frames {
			script(t, far, "ip neigh replace %s lladdr %s nud reachable dev eth0-peer", f.vip, another)
			if err := c.Write(frame); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() bool { got, _ := neighbour(t, far, f.vip); return got == mac.String() })
		}
	})
}

// A deputy's answers tell the kernel the owner's MAC, and teach a switch nothing. A bridge between
// them continues to have the owner's MAC at the owner's port.
func TestADeputyOnABridge(t *testing.T) {
	each(t, func(t *testing.T, f *family) {
		far, mac := cable(t, "eth0")
		script(t, far, "ip link add br0 type bridge; ip link set eth0-peer master br0; ip link set br0 up; ip link add p1 type veth peer name p2; ip link set p1 master br0; ip link set p1 up; ip link set p2 up")
		script(t, far, "ip addr flush dev eth0-peer; ip addr add %s/%d dev br0 nodad; ip addr add %s/%d dev br0 nodad", ipv4.client, ipv4.bits, ipv6.client, ipv6.bits)
		script(t, far, "bridge fdb replace %s dev p1 master dynamic", another)
		r := responder.New(zap.NewNop(), f.protocol, quiet)
		r.SetInterfaces(interfaces(t, "eth0"))
		r.Set(f.vip, "eth0", deputy)
		start(t, r)
		eventually(t, func() bool { return r.Stats()[0].Serving })
		if got := resolves(t, far, "br0", f.vip); got != another.String() {
			t.Errorf("resolved to %q", got)
		}
		out, err := far.Command(context.Background(), "bridge", "fdb", "show", "br", "br0").Output()
		if err != nil {
			t.Fatal(err)
		}
		for want, text := range map[string]bool{"at the owner's port": strings.Contains(string(out), another.String()+" dev p1"), "at ours": strings.Contains(string(out), mac.String()+" dev eth0-peer")} {
			if !text {
				t.Errorf("a MAC is no longer %s:\n%s", want, out)
			}
		}
	})
}

// A host that takes our address without asking is reported, and the entries of other hosts are repaired.
func TestAStrangerOnTheWire(t *testing.T) {
	each(t, func(t *testing.T, f *family) {
		far, mac := cable(t, "eth0")
		socket := listenOn(t, f, far, "eth0-peer")
		var met strangers
		r := responder.New(zap.NewNop(), f.protocol, responder.Options{Burst: ms(0), Refresh: -1, Conflict: met.add})
		r.SetInterfaces(interfaces(t, "eth0"))
		r.Set(f.vip, "eth0", owner)
		start(t, r)
		announcement := func(s said) bool { return isFrom(mac)(s) && s.kind == "announcement" && s.addr == f.vip }
		receive(t, f, socket, announcement)
		write(t, socket, f.claim(f.vip, another))
		receive(t, f, socket, announcement)
		eventually(t, func() bool { return r.Stats()[0].Conflicts == 1 })
		if all := met.taken(); len(all) != 1 || all[0].MAC.String() != another.String() {
			t.Errorf("reported %v", all)
		}
	})
}

func TestALinkThatComesBackIsAnnouncedOn(t *testing.T) {
	each(t, func(t *testing.T, f *family) {
		far, mac := cable(t, "eth0")
		socket := listenOn(t, f, far, "eth0-peer")
		r := responder.New(zap.NewNop(), f.protocol, responder.Options{Burst: ms(0, 10), Refresh: -1})
		r.SetInterfaces(interfaces(t, "eth0"))
		r.Set(f.vip, "eth0", owner)
		start(t, r)
		burst := func(mac net.HardwareAddr) {
			t.Helper()
			for range 2 {
				for range f.forms {
					s := receive(t, f, socket, func(s said) bool { return isFrom(mac)(s) && s.addr == f.vip })
					if s.toAddr != f.vip && s.kind != "announcement" || s.mac.String() != mac.String() {
						t.Errorf("unexpected %s", s.text)
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

		// The link goes down and up so fast that no caller of SetInterfaces notices. The socket does.
		script(t, enclave.Host{}, "ip link set eth0 down; ip link set eth0 up")
		burst(mac)

		moved := responder.MAC(0x77)
		script(t, enclave.Host{}, "ip link set eth0 address %s", moved)
		r.SetInterfaces(interfaces(t, "eth0"))
		burst(moved)
		write(t, socket, f.ask(f.vip, netip.Addr{}))
		if s := receive(t, f, socket, answerFrom(moved)); s.mac.String() != moved.String() {
			t.Errorf("after the MAC changed: %s", s.text)
		}
	})
}

// The interface does not exist at first. It is replaced later, and then has no address of its own.
func TestAnInterfaceThatAppearsLater(t *testing.T) {
	each(t, func(t *testing.T, f *family) {
		r := responder.New(zap.NewNop(), f.protocol, quiet)
		r.Set(f.vip, "eth0", owner)
		start(t, r)
		far, mac := cable(t, "eth0")
		r.SetInterfaces(interfaces(t, "eth0"))
		eventually(t, func() bool { return resolves(t, far, "eth0-peer", f.vip) == mac.String() })
		script(t, enclave.Host{}, "ip link del eth0")
		eventually(t, func() bool { return !r.Stats()[0].Serving })
		r.SetInterfaces(nil)

		second, err := enclave.NewHost("second")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = second.Remove() })
		if err := enclave.Connect(enclave.Host{}, "eth0", second, "port"); err != nil {
			t.Fatal(err)
		}
		script(t, second, "ip addr add %s/%d dev port nodad", f.client, f.bits)
		eventually(t, func() bool { return interfaces(t, "eth0")[0].Up })
		r.SetInterfaces(interfaces(t, "eth0"))
		want := interfaces(t, "eth0")[0].MAC.String()
		eventually(t, func() bool { return resolves(t, second, "port", f.vip) == want })
	})
}

// The responder also answers on an interface that has no IPv6 of its own.
func TestAnInterfaceWithoutIPv6(t *testing.T) {
	far, mac := cable(t, "eth0")
	script(t, enclave.Host{}, "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1")
	serving(t, ipv6, quiet, "eth0", vip6)
	if got := resolves(t, far, "eth0-peer", vip6); got != mac.String() {
		t.Errorf("resolved to %q", got)
	}
}

// groupsOf returns the link-layer and IPv6 groups that the kernel has joined on eth0.
func groupsOf(t testing.TB) string {
	t.Helper()
	out, err := enclave.Host{}.Command(context.Background(), "ip", "maddr", "show", "dev", "eth0").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestSolicitedNodeGroupsAreJoined(t *testing.T) {
	cable(t, "eth0")
	r := serving(t, ipv6, quiet, "eth0", vip6)
	r.Prepare("eth0", []netip.Addr{ipv6.vip2})
	joined := func(n int) bool {
		all := groupsOf(t)
		return strings.Contains(all, fmt.Sprintf("33:33:ff:00:00:%02d", n)) && strings.Contains(all, fmt.Sprintf("inet6 ff02::1:ff00:%d", n))
	}
	eventually(t, func() bool { return joined(10) && joined(20) })
	r.Prepare("eth0", nil)
	eventually(t, func() bool { return joined(10) && !joined(20) })
	r.Set(vip6, "eth0", nil)
	eventually(t, func() bool { return !strings.Contains(groupsOf(t), "ff02::1:ff00:10") })
}

// The kernel sends no MLD reports for the memberships of packet sockets. Without reports, switches with
// MLD snooping would forward no solicitations.
func TestMembershipsAreReported(t *testing.T) {
	far, mac := cable(t, "eth0")
	socket := listenOn(t, ipv6, far, "eth0-peer")
	serving(t, ipv6, quiet, "eth0", vip6)
	if err := socket.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	for {
		n, _, err := socket.ReadFrom(buf)
		if err != nil {
			t.Fatal("no report: ", err)
		}
		// A hop-by-hop option of eight bytes precedes ICMPv6. Type 143 is a report of MLDv2 (RFC 3810 §5.2).
		f := buf[:n]
		if net.HardwareAddr(f[6:12]).String() == mac.String() && f[20] == 0 && f[62] == 143 && strings.Contains(string(f[62:]), string(vip6Group.AsSlice())) {
			return
		}
	}
}

// Ten thousand addresses have more groups than a network card can filter, and than a socket may join.
func TestManyGroups(t *testing.T) {
	const ours = "inet6 ff02::1:ff01:"
	far, mac := cable(t, "eth0")
	r := responder.New(zap.NewNop(), ipv6.protocol, quiet)
	r.SetInterfaces(interfaces(t, "eth0"))
	all := ipv6.numbered(10_000)
	began := time.Now()
	r.Prepare("eth0", all)
	for _, a := range all[:100] {
		r.Set(a, "eth0", owner)
	}
	start(t, r)
	eventually(t, func() bool { return r.Stats()[0].Serving })
	t.Logf("serving after %v", time.Since(began))
	if got := resolves(t, far, "eth0-peer", all[99]); got != mac.String() {
		t.Errorf("resolved to %q", got)
	}
	eventually(t, func() bool { return strings.Count(groupsOf(t), ours) >= 10_000 })
	t.Logf("joined after %v", time.Since(began))
	receivesAll := func() bool {
		out, err := enclave.Host{}.Command(context.Background(), "ip", "-d", "link", "show", "dev", "eth0").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(out), "allmulti 1")
	}
	if !receivesAll() {
		t.Error("the interface filters multicast")
	}
	// To leave the groups takes long, too. The next socket of the interface does not wait for it.
	began = time.Now()
	moved := interfaces(t, "eth0")
	moved[0].MAC = another
	r.SetInterfaces(moved)
	r.SetInterfaces(interfaces(t, "eth0"))
	if got := resolves(t, far, "eth0-peer", all[99]); got != mac.String() {
		t.Errorf("resolved to %q", got)
	}
	t.Logf("serving again after %v", time.Since(began))
	r.Prepare("eth0", nil)
	eventually(t, func() bool { return !receivesAll() && strings.Count(groupsOf(t), ours) == 100 })
	for _, a := range all[:100] {
		r.Set(a, "eth0", nil)
	}
	eventually(t, func() bool { return !strings.Contains(groupsOf(t), ours) })
}

func TestRunClosesItsSockets(t *testing.T) {
	each(t, func(t *testing.T, f *family) {
		cable(t, "eth0")
		count := func() int {
			// Read the file of this thread, not of the process, whose first thread may be on another host.
			raw, err := os.ReadFile("/proc/thread-self/net/packet")
			if err != nil {
				t.Fatal(err)
			}
			return strings.Count(string(raw), "\n")
		}
		before := count()
		r := responder.New(zap.NewNop(), f.protocol, quiet)
		r.SetInterfaces(interfaces(t, "eth0"))
		stop := start(t, r)
		r.Set(f.vip, "eth0", owner)
		eventually(t, func() bool { return r.Stats()[0].Serving })
		if n := count(); n != before+1 {
			t.Errorf("%d sockets, want one more than %d", n, before)
		}
		stop()
		if n := count(); n != before {
			t.Errorf("%d sockets after Run, want %d", n, before)
		}
	})
}

// While a thousand addresses are announced at once, requests still get answers, and each address is
// answered for once it has been announced.
func TestAnswersGoOnWhileAThousandAreAnnounced(t *testing.T) {
	each(t, func(t *testing.T, f *family) {
		far, mac := cable(t, "eth0")
		socket := listenOn(t, f, far, "eth0-peer")
		r := responder.New(zap.NewNop(), f.protocol, responder.Options{Burst: ms(0), Refresh: -1})
		r.SetInterfaces(interfaces(t, "eth0"))
		r.Set(f.vip, "eth0", owner)
		start(t, r)
		eventually(t, func() bool { return r.Stats()[0].Announced == uint64(f.forms) })
		const n = 1000
		for _, a := range f.numbered(n) {
			r.Set(a, "eth0", owner)
		}
		announced, answered := make(map[netip.Addr]bool), make(map[netip.Addr]bool)
		ours := func(s said) bool { return isFrom(mac)(s) && s.kind != "request" && s.addr != f.vip }
		for len(announced) < n {
			switch s := receive(t, f, socket, ours); {
			case s.kind == "second form":
			case s.kind == "announcement":
				announced[s.addr] = true
				write(t, socket, f.ask(s.addr, netip.Addr{}))
			case s.toAddr == f.client && announced[s.addr]:
				answered[s.addr] = true
			default:
				t.Fatalf("unexpected %s", s.text)
			}
		}
		if len(answered) == 0 {
			t.Error("no answer before the last announcement")
		}
		// The buffer of the socket may be too small for so many requests at once. Ask again.
		for a := range announced {
			if !answered[a] {
				write(t, socket, f.ask(a, netip.Addr{}))
				receive(t, f, socket, func(s said) bool { return answerFrom(mac)(s) && s.addr == a })
			}
		}
	})
}

// The benchmark takes over a thousand addresses, and measures the time until the first and the last
// announcement are on the wire.
func BenchmarkTakeover1000(b *testing.B) {
	const n = 1000
	for _, f := range families {
		for name, prepared := range map[string]bool{"prepared": true, "unprepared": false} {
			b.Run(f.protocol.Name()+"/"+name, func(b *testing.B) {
				far, mac := cable(b, "eth0")
				socket := listenOn(b, f, far, "eth0-peer")
				r := responder.New(zap.NewNop(), f.protocol, responder.Options{Burst: ms(0), Refresh: -1})
				r.SetInterfaces(interfaces(b, "eth0"))
				start(b, r)
				addrs := f.numbered(n)
				r.Set(f.vip, "eth0", &responder.Answer{})
				if prepared {
					r.Prepare("eth0", addrs)
				}
				eventually(b, func() bool { return r.Stats()[0].Serving })
				var set, first, last time.Duration
				for b.Loop() {
					began := time.Now()
					for _, a := range addrs {
						r.Set(a, "eth0", owner)
					}
					set += time.Since(began)
					for i := range n {
						receive(b, f, socket, func(s said) bool { return isFrom(mac)(s) && s.kind == "announcement" })
						if i == 0 {
							first += time.Since(began)
						}
					}
					last += time.Since(began)
					b.StopTimer()
					for _, a := range addrs {
						r.Set(a, "eth0", nil)
					}
					eventually(b, r.IsSettled)
					b.StartTimer()
				}
				for unit, d := range map[string]time.Duration{"ms-set": set, "ms-first": first, "ms-last": last} {
					b.ReportMetric(float64(d.Microseconds())/1000/float64(b.N), unit)
				}
			})
		}
	}
}
