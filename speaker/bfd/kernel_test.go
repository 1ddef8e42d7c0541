package bfd

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

func TestSessionsOfEachKind(t *testing.T) {
	there := cable(t)
	local := netip.MustParseAddr("fe80::a%eth0")
	distant := session("multihop", there4)
	distant.MinimumTTL = 254
	wished := []Session{session("v4", there4), session("v6", there6), session("local", netip.MustParseAddr("fe80::b%eth0")), distant}
	a := start(t, enclave.Host{}, wished...)
	back := distant
	back.Peer = here4
	b := start(t, there, session("v4", here4), session("v6", here6), session("local", local), back)
	for _, w := range wished {
		s := a.up(w.Name)
		if s.TransmitInterval != 50*ms || s.ReceiveInterval != 50*ms || s.DetectionTime != 60*50*ms || s.RemoteDetectionTime != 60*50*ms || s.Problem != "" {
			t.Errorf("%+v", s)
		}
		if o := b.up(w.Name); o.Discriminator != s.RemoteDiscriminator || s.Discriminator != o.RemoteDiscriminator {
			t.Errorf("%s: the ends call each other %d and %d, and are %d and %d", w.Name, s.RemoteDiscriminator, o.RemoteDiscriminator, o.Discriminator, s.Discriminator)
		}
	}
	if s := a.status("local"); s.Local.Zone() != "eth0" || !s.Local.IsLinkLocalUnicast() {
		t.Errorf("packets to a link-local address come from %v", s.Local)
	}

	// Timing changes while the session stays.
	before := a.status("v4")
	for i := range wished {
		wished[i].TransmitInterval, wished[i].ReceiveInterval, wished[i].Multiplier = 100*ms, 200*ms, 40
	}
	a.set(wished...)
	for _, w := range wished {
		s := a.await(w.Name, "slower", func(s Status) bool { return s.TransmitInterval == 100*ms && s.ReceiveInterval == 200*ms && !s.Polling })
		if s.State != Up || s.DetectionTime != 60*200*ms || s.RemoteDetectionTime != 40*100*ms {
			t.Errorf("%+v", s)
		}
		o := b.status(w.Name)
		if o.State != Up || o.TransmitInterval != 200*ms || o.ReceiveInterval != 100*ms {
			t.Errorf("the other end: %+v", o)
		}
	}
	a.await("v4", "measured", func(s Status) bool {
		return s.Received.Count >= 20 && s.Received.Mean > 140*ms
	})
	if s := a.status("v4"); s.Since != before.Since || s.Discriminator != before.Discriminator || s.Failures != 0 {
		t.Errorf("the session was %+v, and is %+v", before, s)
	}

	// One session leaves, and the others are not disturbed.
	a.set(wished[1:]...)
	o := b.await("v4", "closed by the peer", func(s Status) bool { return s.State == Down })
	if o.Diag != DiagNeighborDown || o.RemoteState != AdminDown || o.RemoteDiag != DiagAdminDown || o.Failures != 0 || o.Downs[DiagNeighborDown] != 1 {
		t.Errorf("%+v", o)
	}
	a.set(wished...)
	a.up("v4")

	// The end of a speaker is not a failure.
	a.stop()
	for _, w := range wished {
		b.await(w.Name, "closed by the peer", func(s Status) bool { return s.State == Down && s.RemoteDiag == DiagAdminDown })
	}
	for _, c := range b.told() {
		if c.Failed() {
			t.Errorf("a failure was told: %+v", c)
		}
	}
}

func TestACableIsCut(t *testing.T) {
	there := cable(t)
	a := start(t, enclave.Host{}, session("peer", there4))
	b := start(t, there, session("peer", here4))
	a.up("peer")
	b.up("peer")
	script(t, there, "ip link set eth0 down")
	s := a.await("peer", "down", func(s Status) bool { return s.State == Down })
	if s.Diag != DiagTimeExpired || s.Failures != 1 || s.Downs[DiagTimeExpired] != 1 || len(s.Downs) != 1 {
		t.Errorf("%+v", s)
	}
	last := a.lastTold(Down)
	if !last.Failed() || last.From != Up || last.To != Down || last.Diag != DiagTimeExpired {
		t.Errorf("told %+v", last)
	}
	script(t, there, "ip link set eth0 up; ip addr replace %v/24 dev eth0", there4)
	a.up("peer")
}

// A session comes up when its interface appears later, or is replaced by a new one with the same name.
func TestInterfacesComeAndGo(t *testing.T) {
	wished := session("peer", netip.MustParseAddr("fe80::b%eth0"))
	a := start(t, enclave.Host{}, wished)
	a.await("peer", "without an interface", func(s Status) bool { return strings.Contains(s.Problem, "interface eth0") })
	for range 2 {
		there := cable(t)
		b := start(t, there, session("peer", netip.MustParseAddr("fe80::a%eth0")))
		a.up("peer")
		b.stop()
		script(t, enclave.Host{}, "ip link delete eth0")
		a.await("peer", "down", func(s Status) bool { return s.State == Down })
		if err := there.Remove(); err != nil {
			t.Fatal(err)
		}
	}
}

// Sessions share the receiving socket. When their interface is replaced by a new one with the same name, no session keeps the
// old socket open for the others, not even a session that is being closed and is still telling its peer.
func TestAnInterfaceOfSeveralSessionsIsMadeAnew(t *testing.T) {
	for name, of := range map[string]struct{ here, there, device string }{
		"bound to a device": {"198.18.0.1", "198.18.0.1%d", "eth0"},
		"by the zone":       {"fe80::a%eth0", "fe80::1%d%%eth0", ""},
	} {
		t.Run(name, func(t *testing.T) {
			here, there := netip.MustParseAddr(of.here), map[string]netip.Addr{}
			names := []string{"first", "second", "third"}
			for i, name := range names {
				there[name] = netip.MustParseAddr(fmt.Sprintf(of.there, i))
			}
			a := start(t, enclave.Host{})
			set := func(index int) {
				t.Helper()
				var wished []Session
				for _, name := range names {
					s := session(name, there[name])
					s.Local, s.Device, s.DeviceIndex = here, of.device, index
					wished = append(wished, s)
				}
				a.set(wished...)
			}
			// up waits until new sessions are up in place of the old ones.
			up := func(were map[string]uint32) map[string]uint32 {
				t.Helper()
				are := map[string]uint32{}
				for _, name := range names {
					are[name] = a.await(name, "up anew", func(s Status) bool {
						if strings.Contains(s.Problem, "held") {
							t.Fatalf("session %s: %s", name, s.Problem)
						}
						return s.State == Up && s.Discriminator != were[name]
					}).Discriminator
				}
				return are
			}
			for range 2 {
				host := cable(t)
				var back []Session
				for name, address := range there {
					script(t, host, "ip addr add %v dev eth0", address.WithZone(""))
					s := session(name, here)
					s.Local = address
					back = append(back, s)
				}
				b := start(t, host, back...)
				i, err := net.InterfaceByName("eth0")
				if err != nil {
					t.Fatal(err)
				}
				set(i.Index)
				were := up(nil)
				set(i.Index)
				script(t, enclave.Host{}, "ip link set eth0 down; ip link set eth0 up; ip addr replace %v/24 dev eth0; ip addr replace fe80::a/64 dev eth0", here4)
				for name, is := range up(nil) {
					if is != were[name] {
						t.Errorf("session %s is begun anew on the same interface", name)
					}
				}
				// The interface existed before its index was known.
				set(0)
				were = up(were)
				set(i.Index)
				up(were)
				b.stop()
				script(t, enclave.Host{}, "ip link delete eth0")
				if err := host.Remove(); err != nil {
					t.Fatal(err)
				}
				names = names[:2]
			}
		})
	}
}

// A session with a link-local peer and a source address that is not link-local shares that address's socket with other sessions.
func TestASourceThatIsNotOnTheLink(t *testing.T) {
	cable(t)
	i, err := net.InterfaceByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	near, far := session("near", netip.MustParseAddr("fe80::b%eth0")), session("far", there6)
	near.DeviceIndex, near.Local, far.Local = i.Index, here6, here6
	a := start(t, enclave.Host{}, near, far)
	for _, name := range []string{"near", "far"} {
		a.await(name, "sent to the peer", func(s Status) bool {
			if strings.Contains(s.Problem, "held") {
				t.Fatalf("session %s: %s", name, s.Problem)
			}
			return s.PacketsSent > 0
		})
	}
}

func TestAPortThatIsHeldIsToldAndTriedAgain(t *testing.T) {
	there := cable(t)
	holder, err := net.ListenPacket("udp4", "0.0.0.0:3784")
	if err != nil {
		t.Fatal(err)
	}
	distant := session("multihop", there4)
	distant.MinimumTTL = 255
	a := start(t, enclave.Host{}, session("peer", there4), distant)
	back := distant
	back.Peer = here4
	b := start(t, there, session("peer", here4), back)
	a.await("peer", "without a socket", func(s Status) bool {
		return strings.Contains(s.Problem, "UDP port 3784 at 198.18.0.1 is held by another program")
	})
	a.up("multihop")
	if err := holder.Close(); err != nil {
		t.Fatal(err)
	}
	a.up("peer")
	b.up("peer")
	if s := a.status("peer"); s.Problem != "" {
		t.Errorf("the problem is still %q", s.Problem)
	}
}

// The same addresses may be in use inside and outside of a VRF.
func TestVRF(t *testing.T) {
	there := cable(t)
	red, err := enclave.NewHost("red")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = (enclave.Host{}).Script("ip link delete vrf-red"); _ = red.Remove() })
	if err := (enclave.Host{}).Script("ip link add vrf-red type vrf table 10"); err != nil {
		if strings.Contains(err.Error(), "Unknown device type") || strings.Contains(err.Error(), "not supported") {
			t.Skip("this kernel has no VRFs: ", err)
		}
		t.Fatal(err)
	}
	if err := enclave.Connect(enclave.Host{}, "eth1", red, "eth0"); err != nil {
		t.Fatal(err)
	}
	script(t, enclave.Host{}, "ip link set vrf-red up; ip link set eth1 master vrf-red; ip addr add 198.18.1.1/24 dev eth1")
	script(t, red, "ip addr add 198.18.1.2/24 dev eth0")
	inside := session("red", netip.MustParseAddr("198.18.1.2"))
	inside.Device = "vrf-red"
	a := start(t, enclave.Host{}, session("plain", there4), inside)
	start(t, there, session("plain", here4))
	start(t, red, session("red", netip.MustParseAddr("198.18.1.1")))
	a.up("plain")
	a.up("red")
}

// The same addresses may be in use on two devices: each session has its own sockets, bound to its device.
func TestDevices(t *testing.T) {
	there := cable(t)
	other, err := enclave.NewHost("other")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = (enclave.Host{}).Script("ip link delete eth1"); _ = other.Remove() })
	if err := enclave.Connect(enclave.Host{}, "eth1", other, "eth0"); err != nil {
		t.Fatal(err)
	}
	script(t, enclave.Host{}, "ip addr add %v/24 dev eth1", here4)
	script(t, other, "ip addr add %v/24 dev eth0", there4)
	one, two := session("one", there4), session("two", there4)
	one.Device, two.Device = "eth0", "eth1"
	a := start(t, enclave.Host{}, one, two)
	b, c := start(t, there, session("peer", here4)), start(t, other, session("peer", here4))
	if n, want := a.up("one").RemoteDiscriminator, b.up("peer").Discriminator; n != want {
		t.Errorf("session one is with %d, want %d", n, want)
	}
	if n, want := a.up("two").RemoteDiscriminator, c.up("peer").Discriminator; n != want {
		t.Errorf("session two is with %d, want %d", n, want)
	}
	c.stop()
	a.await("two", "down", func(s Status) bool { return s.State == Down })
	if s := a.status("one"); s.State != Up || s.Failures != 0 {
		t.Errorf("%+v", s)
	}
}

// TestADelayOfOurOwnIsNotSilence: a speaker gets no processor, or waits for a lock, for longer than the detection time. The packets
// that came meanwhile are read before the peer counts as silent.
func TestADelayOfOurOwnIsNotSilence(t *testing.T) {
	there := cable(t)
	slow, fast := session("slow", there4), session("fast", here4)
	slow.TransmitInterval, slow.ReceiveInterval, slow.Multiplier = 10*ms, 200*ms, 250
	fast.TransmitInterval, fast.ReceiveInterval, fast.Multiplier = 200*ms, 10*ms, 10
	a := start(t, enclave.Host{}, slow)
	start(t, there, fast).up("fast")
	if s := a.up("slow"); s.DetectionTime != 2000*ms {
		t.Fatalf("the detection time is %v", s.DetectionTime)
	}
	for range 3 {
		a.Speaker.mu.Lock()
		time.Sleep(2200 * ms) // Longer than the detection time: this is the delay.
		a.Speaker.mu.Unlock()
		before := a.status("slow").Received.Count
		a.await("slow", "further packets", func(s Status) bool { return s.Received.Count > before+1 })
	}
	if s := a.status("slow"); s.Failures != 0 || s.State != Up {
		t.Errorf("%d failures, state %v", s.Failures, s.State)
	}
}
