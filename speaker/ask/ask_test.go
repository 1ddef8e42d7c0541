package ask

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/speaker/inspect"
)

func TestMain(m *testing.M) { enclave.RunTests(checked{m}) }

// checked fails a run that leaves goroutines behind.
type checked struct{ m *testing.M }

func (c checked) Run() int {
	code := c.m.Run()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mac(n byte) net.HardwareAddr { return net.HardwareAddr{0x02, 0, 0x5e, 0, 0x53, n} }

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

// join connects a new host with the MAC address mac(n) and the addresses to the bridge br0 of this host.
func join(t *testing.T, n byte, addresses ...string) enclave.Host {
	t.Helper()
	h, err := enclave.NewHost(fmt.Sprintf("host%d", n))
	must(t, err)
	port := fmt.Sprintf("port%d", n)
	t.Cleanup(func() {
		_ = enclave.Host{}.Script("ip link delete %s 2>/dev/null || true", port) // At once: the kernel removes a namespace later.
		must(t, h.Remove())
	})
	must(t, enclave.Connect(enclave.Host{}, port, h, "eth0"))
	must(t, enclave.Host{}.Script("ip link set %s master br0", port))
	must(t, h.Script("ip link set eth0 address %s", mac(n)))
	for _, a := range addresses {
		must(t, h.Script("ip addr add %s dev eth0", a))
	}
	return h
}

// bridge creates br0 with addresses of its own, and returns it as an interface to ask on.
func bridge(t *testing.T, addresses ...string) Interface {
	t.Helper()
	must(t, enclave.Host{}.Script("sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0; ip link add br0 address %s type bridge mcast_snooping 0; ip link set br0 up", mac(1)))
	t.Cleanup(func() { must(t, enclave.Host{}.Script("ip link delete br0")) })
	i := Interface{Name: "br0", MAC: mac(1)}
	for _, a := range addresses {
		must(t, enclave.Host{}.Script("ip addr add %s dev br0", a))
		i.Addresses = append(i.Addresses, netip.MustParsePrefix(a))
	}
	ifi, err := net.InterfaceByName("br0")
	must(t, err)
	i.Index = ifi.Index
	return i
}

// TestKernelsAnswer asks hosts for addresses that their kernels have.
func TestKernelsAnswer(t *testing.T) {
	br0 := bridge(t, "198.18.0.1/24", "2001:db8::1/64")
	join(t, 2, "198.18.0.2/24", "2001:db8::2/64", "203.0.113.1/32")
	// Two hosts have the same address, and do not know of each other.
	join(t, 3, "198.18.0.9/24", "2001:db8::9/64")
	join(t, 4, "198.18.0.9/24", "2001:db8::9/64")
	// This router answers for a network behind it.
	proxy := join(t, 5, "198.18.0.5/24")
	must(t, proxy.Script("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.eth0.proxy_arp=1 net.ipv4.neigh.eth0.proxy_delay=0; ip link add behind type veth peer name beyond; ip link set behind up; ip link set beyond up; ip route add 198.18.0.64/26 dev behind"))

	questions := []inspect.Question{{Address: addr("203.0.113.1"), Interfaces: []string{"br0"}}, {Address: addr("203.0.113.2")}}
	for _, a := range []string{"198.18.0.1", "198.18.0.2", "::ffff:198.18.0.2", "198.18.0.7", "198.18.0.9", "198.18.0.70", "2001:db8::2", "2001:db8::7", "2001:db8::9"} {
		questions = append(questions, inspect.Question{Address: addr(a)})
	}
	got, err := All(t.Context(), []Interface{br0}, questions)
	must(t, err)
	want := []string{
		"198.18.0.1 []", // The machine does not hear its own answers.
		"198.18.0.2 [02:00:5e:00:53:02]",
		"198.18.0.7 []",
		"198.18.0.9 [02:00:5e:00:53:03 02:00:5e:00:53:04]",
		"198.18.0.70 [02:00:5e:00:53:05]",
		"203.0.113.1 [02:00:5e:00:53:02]",
		"2001:db8::2 [02:00:5e:00:53:02]",
		"2001:db8::7 []",
		"2001:db8::9 [02:00:5e:00:53:03 02:00:5e:00:53:04]",
	}
	var lines []string
	for _, a := range got {
		if a.Interface != "br0" {
			t.Errorf("an answer on %q", a.Interface)
		}
		lines = append(lines, fmt.Sprint(a.Address, " ", a.MACs))
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestAskingWithoutAnAddress is about an interface without an address, which asks from the unspecified address.
func TestAskingWithoutAnAddress(t *testing.T) {
	br0 := bridge(t)
	join(t, 2, "198.18.0.2/24", "2001:db8::2/64")
	got, err := All(t.Context(), []Interface{br0}, []inspect.Question{
		{Address: addr("198.18.0.2"), Interfaces: []string{"br0"}}, {Address: addr("2001:db8::2"), Interfaces: []string{"br0"}},
		{Address: addr("2001:db8::3"), Interfaces: []string{"br1"}},
	})
	must(t, err)
	if len(got) != 2 {
		t.Fatalf("%v, want answers for two addresses", got)
	}
	for _, a := range got {
		if !slices.Equal(a.MACs, []string{mac(2).String()}) {
			t.Errorf("%s: %v", a.Address, a.MACs)
		}
	}
}

// TestOneInterfaceFails is about an interface that has just been removed.
func TestOneInterfaceFails(t *testing.T) {
	br0 := bridge(t, "198.18.0.1/24")
	join(t, 2, "198.18.0.2/24")
	gone := Interface{Name: "gone", Index: 4711, MAC: mac(9), Addresses: br0.Addresses}
	got, err := All(t.Context(), []Interface{gone, br0}, []inspect.Question{{Address: addr("198.18.0.2")}})
	if err == nil || !strings.Contains(err.Error(), "interface gone: ask by ARP: ") {
		t.Errorf("error %v", err)
	}
	if len(got) != 1 || !slices.Equal(got[0].MACs, []string{mac(2).String()}) {
		t.Errorf("%v", got)
	}
}

func TestAskingEndsWithItsContext(t *testing.T) {
	br0 := bridge(t, "198.18.0.1/16")
	var questions []inspect.Question
	for n := range 65000 { // These take two minutes.
		questions = append(questions, inspect.Question{Address: netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)})})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	got, err := All(ctx, []Interface{br0}, questions)
	if !errors.Is(err, context.DeadlineExceeded) || len(got) > 0 {
		t.Errorf("%d answers, error %v", len(got), err)
	}
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("it ended after %s", d)
	}
}

// TestAnswersThatWaitAreHeard reads a socket only after its deadline, like a process that got no CPU time before.
func TestAnswersThatWaitAreHeard(t *testing.T) {
	br0 := bridge(t, "198.18.0.1/24", "2001:db8::1/64")
	join(t, 2, "198.18.0.2/24", "2001:db8::2/64")
	for asked, p := range map[string]protocol{"198.18.0.2": arpProtocol, "2001:db8::2": ndpProtocol} {
		t.Run(p.name, func(t *testing.T) {
			conn, err := p.listen(br0)
			must(t, err)
			defer conn.Close()
			must(t, p.send(t.Context(), conn, br0, []netip.Addr{addr(asked)}))
			socket, err := conn.SyscallConn()
			must(t, err)
			must(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
			must(t, socket.Read(func(fd uintptr) bool {
				_, _, err := unix.Recvfrom(int(fd), nil, unix.MSG_DONTWAIT|unix.MSG_PEEK)
				return !errors.Is(err, unix.EAGAIN)
			}))
			must(t, conn.SetReadDeadline(time.Unix(1, 0)))
			heard := map[netip.Addr][]string{addr(asked): nil}
			must(t, p.hear(conn, heard))
			if !slices.Equal(heard[addr(asked)], []string{mac(2).String()}) {
				t.Errorf("heard %v", heard)
			}
		})
	}
}

// TestPace is about the rate of questions.
func TestPace(t *testing.T) {
	br0 := bridge(t, "198.18.0.1/24")
	var questions []inspect.Question
	for n := range 100 {
		questions = append(questions, inspect.Question{Address: netip.AddrFrom4([4]byte{198, 18, 0, byte(n + 100)})})
	}
	began := time.Now()
	_, err := All(t.Context(), []Interface{br0}, questions)
	must(t, err)
	if least := 99*time.Second/Rate + Patience; time.Since(began) < least {
		t.Errorf("100 questions took %s, want %s at least", time.Since(began), least)
	}
}
