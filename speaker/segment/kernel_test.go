package segment

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/speaker/segment/ownership"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// real is a Segment on an interface of its own host. All hosts are on one bridge.
type real struct {
	enclave.Host
	name    string
	segment *Segment
	config  Config
	iface   Interface
	stop    func()
	// anyThread lets the Segment run on any thread, as in the speaker. On other threads it does not read the host's counters.
	anyThread bool

	mu      sync.Mutex
	answers map[netip.Addr]Answer
	events  []Event
}

// site is a bridge with hosts that know one another.
type site struct {
	t     testing.TB
	hosts []*real
}

func script(t testing.TB, h enclave.Host, format string, args ...any) {
	t.Helper()
	if err := h.Script(format, args...); err != nil {
		t.Fatal(err)
	}
}

// newSite creates a bridge, and hosts with the given addresses on eth0. The script more prepares each host.
func newSite(t testing.TB, addresses []string, more string) *site {
	t.Helper()
	s := &site{t: t}
	script(t, enclave.Host{}, "ip link add br0 type bridge mcast_snooping 0 && ip link set br0 up")
	t.Cleanup(func() { script(t, enclave.Host{}, "ip link delete br0") })
	for i, a := range addresses {
		h, err := enclave.NewHost(fmt.Sprintf("seg%d", i))
		if err != nil {
			t.Fatal(err)
		}
		port := fmt.Sprintf("port%d", i)
		t.Cleanup(func() {
			script(t, enclave.Host{}, "ip link delete %s 2>/dev/null || true", port)
			_ = h.Remove()
		})
		if err := enclave.Connect(enclave.Host{}, port, h, "eth0"); err != nil {
			t.Fatal(err)
		}
		script(t, enclave.Host{}, "ip link set %s master br0", port)
		if a != "" {
			script(t, h, "ip addr add %s dev eth0 nodad", a)
		}
		if more != "" {
			err := h.Script(more, i)
			if err != nil && strings.Contains(err.Error(), "Unknown device type") {
				t.Skip("this kernel does not have it: ", err)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		seed := make([]byte, ed25519.SeedSize)
		seed[0] = byte(i)
		r := &real{Host: h, name: fmt.Sprintf("n%d", i), answers: map[netip.Addr]Answer{}}
		r.config = Config{Cluster: "real", Node: r.name, Boot: bootOf(i), Key: ed25519.NewKeyFromSeed(seed)}
		s.hosts = append(s.hosts, r)
	}
	return s
}

// bootOf returns the boot of the host with this number.
func bootOf(host int) uint64 { return uint64(host + 1) }

func (r *real) identity() Identity {
	return Identity{Boot: r.config.Boot, Key: r.config.Key.Public().(ed25519.PublicKey)}
}

// start runs the host's Segment on an interface until the test ends, or stop.
func (s *site) start(r *real, name string) {
	s.t.Helper()
	callbacks := Callbacks{
		Answer: func(a Answer) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.answers[a.Addr] = a; a.Node == "" {
				delete(r.answers, a.Addr)
			}
		},
		Check: func(c *Segment, addrs []netip.Addr) {
			for _, a := range addrs {
				c.Do(func(m *Machine, now Time) { m.Checked(now, a, false) })
			}
		},
		Identify: func(node string) {
			for _, o := range s.hosts {
				if o.name == node {
					r.segment.Do(func(m *Machine, now Time) { m.Identify(now, node, o.identity()) })
				}
			}
		},
		Changed: func([]Member) {},
		Event: func(e Event) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, e)
		},
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	opened, ended := make(chan error), make(chan error, 1)
	go func() {
		err := r.Do(func() (err error) { // The thread stays on the host: the Segment reads its counters.
			i, err := net.InterfaceByName(name)
			if err == nil {
				r.segment, err = Open(zap.NewNop(), r.config, name, i.Index, callbacks)
			}
			if err == nil {
				r.iface = Interface{Name: name, MAC: MAC(i.HardwareAddr), Up: true, Prefixes: prefixes(i)}
			}
			opened <- err
			if err != nil || r.anyThread {
				return err
			}
			return r.segment.Run(ctx)
		})
		if err == nil && r.anyThread {
			err = r.segment.Run(ctx)
		}
		ended <- err
	}()
	if err := <-opened; err != nil {
		s.t.Fatal(err)
	}
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(r.stop)
	r.segment.Do(func(m *Machine, now Time) { m.Serve(now, true) })
	r.segment.Set(r.iface)
}

// prefixes returns the addresses that are not link-local, as speaker/link lists them.
func prefixes(i *net.Interface) (all []netip.Prefix) {
	addrs, _ := i.Addrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
			all = append(all, p)
		}
	}
	return all
}

func (s *site) want(addrs []netip.Addr) {
	var names []string
	for _, r := range s.hosts {
		names = append(names, r.name)
	}
	c := ownership.NewCandidates(names, nil)
	for _, r := range s.hosts {
		r.segment.Do(func(m *Machine, now Time) {
			for _, a := range addrs {
				m.Want(now, a, &ownership.Want{Candidates: c})
			}
		})
	}
}

// owner returns the name of the only one of the hosts that answers for an address.
func (s *site) owner(a netip.Addr, among ...*real) (owner *real) {
	for _, r := range among {
		r.mu.Lock()
		o, ok := r.answers[a]
		r.mu.Unlock()
		if ok && o.Node == r.name {
			if owner != nil {
				return nil
			}
			owner = r
		}
	}
	return owner
}

func (s *site) view(r *real) View {
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	v, err := r.segment.View(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("not in time: ", what)
		}
	}
}

func (s *site) eventuallyOwned(addrs []netip.Addr, among ...*real) {
	s.t.Helper()
	eventually(s.t, "every address has one owner", func() bool {
		for _, a := range addrs {
			if s.owner(a, among...) == nil {
				return false
			}
		}
		return true
	})
}

func TestSegmentsOnABridge(t *testing.T) {
	for _, c := range []struct {
		name      string
		addresses []string
		more      string
		on        string
	}{
		{name: "IPv4", addresses: []string{"198.18.0.1/24", "198.18.0.2/24", "198.18.0.3/24"}, on: "eth0"},
		{name: "IPv6 only", addresses: []string{"2001:db8::1/64", "2001:db8::2/64", "2001:db8::3/64"}, on: "eth0"},
		{name: "IPv6 with random link-local addresses", addresses: []string{"2001:db8::1/64", "2001:db8::2/64", "2001:db8::3/64"}, on: "eth0",
			more: "ip addr flush dev eth0 scope link; ip addr add fe80::1234:%d/64 dev eth0 nodad"},
		{name: "both on one segment", addresses: []string{"198.18.0.1/24", "2001:db8::2/64", "2001:db8::3/64"}, on: "eth0"},
		{name: "VLAN", addresses: []string{"", "", ""}, on: "vlan7",
			more: "ip link add link eth0 name vlan7 type vlan id 7 && ip link set vlan7 up && ip addr add 198.18.7.1%d/24 dev vlan7"},
		{name: "firewall", addresses: []string{"198.18.0.1/24", "198.18.0.2/24", "198.18.0.3/24"}, on: "eth0",
			more: "nft 'add table inet f; add chain inet f in { type filter hook input priority 0; policy drop; }; add chain inet f out { type filter hook output priority 0; policy drop; }' # %d"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, c.addresses, c.more)
			icmp := listenAll(t)
			for _, r := range s.hosts {
				s.start(r, c.on)
			}
			vips := vips(20)
			s.want(vips)
			s.eventuallyOwned(vips, s.hosts...)
			victim := s.owner(vips[0], s.hosts...)
			rest := slices.DeleteFunc(slices.Clone(s.hosts), func(r *real) bool { return r == victim })
			for _, r := range rest {
				for _, m := range s.view(r).Members {
					if m.Life != "alive" || !m.HearsUs {
						t.Errorf("%s knows %+v", r.name, m)
					}
				}
			}
			script(t, enclave.Host{}, "ip link set port%c down", victim.name[1])
			for _, r := range rest { // On a busy machine a speaker may have been late before.
				r.mu.Lock()
				r.events = nil
				r.mu.Unlock()
			}
			s.eventuallyOwned(vips, rest...)
			for _, r := range rest {
				r.mu.Lock()
				for _, e := range r.events {
					if e.Kind == EventSilent && e.Node == victim.name {
						t.Errorf("%s: the kernel of %s answered, though it was cut off", r.name, e.Node)
					}
					if e.Kind == EventTake && e.After > 0 {
						t.Logf("%s took an address %v after the last sign of its owner", r.name, e.After)
						break
					}
				}
				r.mu.Unlock()
			}
			// The victim comes back, and yields.
			script(t, enclave.Host{}, "ip link set port%c up", victim.name[1])
			s.eventuallyOwned(vips, s.hosts...)
			for _, r := range s.hosts {
				if d := s.view(r).Counters.Refused; d[DropHopLimit]+d[DropMalformed]+d[DropSignature] > 0 {
					t.Errorf("%s refused %v", r.name, d)
				}
			}
			if got := icmp(); len(got) > 0 {
				t.Errorf("ICMP errors on the wire: %x", got)
			}
		})
	}
}

// TestAKilledSpeakerOfALiveNode: the kernel answers the questions for its own address, by ARP and NDP.
func TestAKilledSpeakerOfALiveNode(t *testing.T) {
	for name, addresses := range map[string][]string{
		"IPv4": {"198.18.0.1/24", "198.18.0.2/24"}, "IPv6": {"2001:db8::1/64", "2001:db8::2/64"},
		"IPv6 asks IPv4": {"2001:db8::1/64", "198.18.0.2/24"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, addresses, "")
			for _, r := range s.hosts {
				s.start(r, "eth0")
			}
			vips := vips(10)
			s.want(vips)
			s.eventuallyOwned(vips, s.hosts...)
			victim, other := s.hosts[1], s.hosts[0]
			theirs := slices.DeleteFunc(slices.Clone(vips), func(a netip.Addr) bool { return s.owner(a, s.hosts...) != victim })
			victim.stop()
			eventually(t, "the other answers as a deputy", func() bool {
				other.mu.Lock()
				defer other.mu.Unlock()
				return !slices.ContainsFunc(theirs, func(a netip.Addr) bool {
					return other.answers[a].Node != victim.name || other.answers[a].MAC != victim.iface.MAC
				})
			})
			if len(victim.answers) > 0 {
				t.Errorf("it ended and answers %v", victim.answers)
			}
		})
	}
}

// TestOnlyWhatComesFromTheSegment: frames with other hop limits, VLANs or ports never reach the Machine, or are refused.
func TestOnlyWhatComesFromTheSegment(t *testing.T) {
	s := newSite(t, []string{"198.18.0.1/24", "198.18.0.2/24"}, "")
	r := s.hosts[0]
	s.start(r, "eth0")
	eventually(t, "it listens", func() bool { return s.view(r).State == Listening })
	// The other host has no Segment: the test sends its frames.
	var fd int
	sender := s.hosts[1]
	if err := sender.Do(func() error {
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		sender.iface = Interface{Name: "eth0", MAC: MAC(i.HardwareAddr), Up: true, Prefixes: prefixes(i)}
		fd, err = openSocket(i.Index, 0, filterARP, MAC{})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	six := sender.iface
	six.Prefixes = []netip.Prefix{netip.MustParsePrefix("fe80::1/64")}
	beat4 := func() []byte { return datagram(sender.iface, MAC{}, beat{id: 1}.encode()) }
	beat6 := func() []byte { return datagram(six, MAC{}, beat{id: 2}.encode()) }
	toHim := datagram(sender.iface, r.iface.MAC, beat{id: 3}.encode())
	other := datagram(sender.iface, MAC{2, 2, 2, 2, 2, 2}, beat{id: 4}.encode())
	hops4, hops6, port4, port6, fragment := beat4(), beat6(), beat4(), beat6(), beat4()
	hops4[etherSize+8], hops6[etherSize+7] = 254, 254
	hops4[etherSize+10]++ // the checksum
	binary.BigEndian.PutUint16(port4[etherSize+ipv4Size+2:], Port+1)
	binary.BigEndian.PutUint16(port6[etherSize+ipv6Size+2:], Port+1)
	fragment[etherSize+6] = 0x20
	for _, frame := range [][]byte{beat4(), beat6(), toHim, other, hops4, hops6, port4, port6, fragment, vlanTagged(beat4(), 7), vlanTagged(beat6(), 7)} {
		if _, err := unix.Write(fd, frame); err != nil {
			t.Fatal(err)
		}
	}
	// The last frames are received, so all others have arrived before them.
	for _, i := range []Interface{sender.iface, six} {
		if _, err := unix.Write(fd, datagram(i, MAC{}, []byte("the end"))); err != nil {
			t.Fatal(err)
		}
	}
	var refused map[Drop]uint64
	eventually(t, "all have come", func() bool {
		refused = s.view(r).Counters.Refused
		return refused[DropMalformed] == 2
	})
	if want := (map[Drop]uint64{DropUnknownNode: 3, DropHopLimit: 2, DropMalformed: 2}); !maps.Equal(refused, want) {
		t.Errorf("refused %v, want %v", refused, want)
	}
}

func vlanTagged(frame []byte, id byte) []byte {
	return slices.Concat(frame[:12], []byte{0x81, 0, 0, id}, frame[12:])
}

// listenAll watches the bridge for ICMP errors until the function that it returns is called.
func listenAll(t testing.TB) (errors func() [][]byte) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0x0300) // ETH_P_ALL
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
	return func() (all [][]byte) {
		buffer := make([]byte, 2048)
		for {
			n, _, err := unix.Recvfrom(fd, buffer, 0)
			if err != nil {
				return all
			}
			f := buffer[:n]
			switch {
			case n > 40 && f[12] == 8 && f[13] == 0 && f[23] == 1 && f[34] == 3,
				n > 60 && f[12] == 0x86 && f[13] == 0xdd && f[20] == protocolICMPv6 && f[54] == 1:
				all = append(all, slices.Clone(f))
			}
		}
	}
}

func TestNothingIsLeft(t *testing.T) {
	s := newSite(t, []string{"198.18.0.1/24"}, "")
	r := s.hosts[0]
	descriptors := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	s.start(r, "eth0") // The Go runtime opens some files once and keeps them open.
	s.view(r)
	r.stop()
	before := descriptors()
	for range 3 {
		s.start(r, "eth0")
		s.view(r)
		r.segment.Leave(t.Context(), false)
		r.stop()
		r.segment.Do(func(*Machine, Time) { t.Error("called after the end") })
	}
	if err := r.Do(func() error { // A Segment that is opened but never run.
		c, err := Open(zap.NewNop(), r.config, "eth0", r.segment.Index(), Callbacks{})
		if err != nil {
			return err
		}
		c.Close()
		c.Close()
		return c.Run(t.Context())
	}); err != nil {
		t.Fatal(err)
	}
	if after := descriptors(); after != before {
		t.Errorf("%d file descriptors before, %d after", before, after)
	}
}
