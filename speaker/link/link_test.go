package link

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
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

// on runs shell commands on the enclave's own host, whose interfaces the package lists.
func on(t testing.TB, script string) {
	t.Helper()
	if err := (enclave.Host{}).Script("%s", script); err != nil {
		t.Fatal(err)
	}
}

// cable creates the interface name, which is up, and its peer name+"-peer" on the host that it returns.
func cable(t testing.TB, name string) enclave.Host {
	t.Helper()
	far, err := enclave.NewHost("far-" + name)
	if err != nil {
		t.Fatal(err)
	}
	// Remove the cable first: the kernel removes a namespace, with its interfaces, some time later.
	t.Cleanup(func() {
		_ = enclave.Host{}.Script("ip link delete %s 2>/dev/null || true", name)
		_ = far.Remove()
	})
	if err := enclave.Connect(enclave.Host{}, name, far, name+"-peer"); err != nil {
		t.Fatal(err)
	}
	return far
}

func names(interfaces []Interface) []string {
	var all []string
	for _, i := range interfaces {
		all = append(all, i.Name)
	}
	return all
}

func find(interfaces []Interface, name string) Interface {
	i := slices.IndexFunc(interfaces, func(i Interface) bool { return i.Name == name })
	if i < 0 {
		return Interface{}
	}
	return interfaces[i]
}

func prefixes(all ...string) (p []netip.Prefix) {
	for _, s := range all {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

func addresses(all ...string) (a []netip.Addr) {
	for _, s := range all {
		a = append(a, netip.MustParseAddr(s))
	}
	return a
}

var comparable = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

func TestListLeavesOutWhatCannotSpeak(t *testing.T) {
	for _, c := range []struct {
		name, make, remove string
		listed             []string // without the interfaces that existed before
	}{
		{name: "loopback", make: "true", remove: "true"},
		{name: "a dummy is NOARP", make: "ip link add d0 type dummy; ip link set d0 up", remove: "ip link del d0"},
		{name: "an ifb is NOARP", make: "ip link add i0 type ifb; ip link set i0 up", remove: "ip link del i0"},
		{
			name: "ARP switched off", make: "ip link add v0 type veth peer v1; ip link set v0 arp off",
			remove: "ip link del v0", listed: []string{"v1"},
		},
		{
			name: "port of a bridge, the bridge speaks", make: "ip link add br0 type bridge; ip link add v0 type veth peer v1; ip link set v0 master br0",
			remove: "ip link del v0; ip link del br0", listed: []string{"br0", "v1"},
		},
		{
			name: "member of a VRF speaks, the VRF does not", make: "ip link add red type vrf table 100; ip link add v0 type veth peer v1; ip link set v0 master red",
			remove: "ip link del v0; ip link del red", listed: []string{"v0", "v1"},
		},
		{
			name: "a VLAN is an interface of its own", make: "ip link add v0 type veth peer v1; ip link add link v0 name v0.7 type vlan id 7",
			remove: "ip link del v0", listed: []string{"v0", "v0.7", "v1"},
		},
		{
			name: "a macvlan is an interface of its own", make: "ip link add v0 type veth peer v1; ip link add link v0 name mv0 type macvlan",
			remove: "ip link del v0", listed: []string{"mv0", "v0", "v1"},
		},
		{name: "a tunnel has no Ethernet address", make: "ip tuntap add t0 mode tun", remove: "ip link del t0"},
		{
			name: "sorted by name, whatever the index", make: "ip link add zz type veth peer mm; ip link add ab type veth peer aa",
			remove: "ip link del zz; ip link del ab", listed: []string{"aa", "ab", "mm", "zz"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, err := List()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = enclave.Host{}.Script("%s", "set +e; "+c.remove) })
			if err := (enclave.Host{}).Script("%s", c.make); err != nil {
				if strings.Contains(err.Error(), "Unknown device type") {
					t.Skip("this kernel has no such device; TestAssemble has the rule")
				}
				t.Fatal(err)
			}
			after, err := List()
			if err != nil {
				t.Fatal(err)
			}
			if !slices.IsSorted(names(after)) {
				t.Errorf("not sorted: %v", names(after))
			}
			known := names(before)
			got := slices.DeleteFunc(names(after), func(n string) bool { return slices.Contains(known, n) })
			if diff := cmp.Diff(c.listed, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("listed (-want +got):\n%s", diff)
			}
		})
	}
}

// The rules are tested again without a kernel, which may have been built without some kinds of device.
func TestAssemble(t *testing.T) {
	attrs := func(index int, name string, flags uint32, master int) netlink.LinkAttrs {
		return netlink.LinkAttrs{
			Index: index, Name: name, RawFlags: flags, MasterIndex: master,
			EncapType: "ether", HardwareAddr: net.HardwareAddr{2, 0, 0x5e, 0, 0x53, byte(index)},
		}
	}
	infiniband := attrs(11, "ib0", 0, 0)
	infiniband.EncapType, infiniband.HardwareAddr = "infiniband", make(net.HardwareAddr, 20)
	links := []netlink.Link{
		&netlink.Veth{LinkAttrs: attrs(9, "in-red", 0, 2)},
		&netlink.Vrf{LinkAttrs: attrs(2, "red", unix.IFF_NOARP, 0)},
		&netlink.Bridge{LinkAttrs: attrs(3, "br0", 0, 2)},
		&netlink.Device{LinkAttrs: attrs(4, "port-of-a-bridge-in-red", 0, 3)},
		&netlink.Bond{LinkAttrs: attrs(5, "bond0", 0, 0)},
		&netlink.Device{LinkAttrs: attrs(6, "port-of-a-bond", 0, 5)},
		&netlink.Dummy{LinkAttrs: attrs(7, "dummy", unix.IFF_NOARP, 0)},
		&netlink.Device{LinkAttrs: attrs(1, "lo", unix.IFF_LOOPBACK, 0)},
		&netlink.Device{LinkAttrs: infiniband},
	}
	network := func(s string) *net.IPNet {
		ip, n, err := net.ParseCIDR(s)
		if err != nil {
			t.Fatal(err)
		}
		return &net.IPNet{IP: ip, Mask: n.Mask}
	}
	addrs := []netlink.Addr{
		{LinkIndex: 5, IPNet: network("2001:db8::5/64")},
		{LinkIndex: 5, IPNet: network("fe80::5/64")},
		{LinkIndex: 5, IPNet: network("198.51.100.5/24")},
		{LinkIndex: 5, IPNet: network("198.18.0.5/16")},
		{LinkIndex: 99, IPNet: network("203.0.113.9/24")},
		{LinkIndex: 3},
	}
	hop := func(index int, gateway string) *netlink.NexthopInfo {
		return &netlink.NexthopInfo{LinkIndex: index, Gw: net.ParseIP(gateway)}
	}
	routes := []netlink.Route{
		{LinkIndex: 5, Gw: net.ParseIP("198.51.100.1")}, {LinkIndex: 5, Gw: net.ParseIP("198.51.100.1"), Table: 7},
		{LinkIndex: 3},
		{LinkIndex: 9, Via: &netlink.Via{AddrFamily: unix.AF_INET6, Addr: net.ParseIP("2001:db8:9::1")}},
		{MultiPath: []*netlink.NexthopInfo{hop(5, "198.18.0.1"), hop(3, "203.0.113.1")}},
		{LinkIndex: 99, Gw: net.ParseIP("203.0.113.2")},
	}
	want := []Interface{
		{Index: 5, Name: "bond0", MAC: attrs(5, "", 0, 0).HardwareAddr, Subnets: prefixes("198.18.0.5/16", "198.51.100.5/24", "2001:db8::5/64"),
			Gateways: addresses("198.18.0.1", "198.51.100.1")},
		{Index: 3, Name: "br0", MAC: attrs(3, "", 0, 0).HardwareAddr, Gateways: addresses("203.0.113.1")},
		{Index: 9, Name: "in-red", MAC: attrs(9, "", 0, 0).HardwareAddr, Gateways: addresses("2001:db8:9::1")},
	}
	if diff := cmp.Diff(want, assemble(links, addrs, routes), comparable); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestListTellsSubnetsAsConfigured(t *testing.T) {
	cable(t, "eth0")
	on(t, `
		ip addr add 198.51.100.9/25 dev eth0
		ip addr add 2001:db8::9/64 dev eth0 nodad
		ip addr add 198.18.0.1/24 dev eth0
		ip addr add 198.18.0.2/24 dev eth0
		ip addr add 203.0.113.1 peer 203.0.113.2/31 dev eth0
	`)
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	eth0 := find(all, "eth0")
	// The kernel has given the interface fe80::/64, too.
	want := prefixes("198.18.0.1/24", "198.18.0.2/24", "198.51.100.9/25", "203.0.113.1/32", "2001:db8::9/64")
	if diff := cmp.Diff(want, eth0.Subnets, comparable); diff != "" {
		t.Errorf("subnets (-want +got):\n%s", diff)
	}
	if len(eth0.MAC) != 6 || eth0.Index == 0 {
		t.Errorf("index %d, MAC %v", eth0.Index, eth0.MAC)
	}
}

func TestGatewaysAreThoseOfDefaultRoutesInAllTables(t *testing.T) {
	cable(t, "eth0")
	cable(t, "eth1")
	on(t, `
		ip addr add 198.51.100.9/24 dev eth0
		ip addr add 2001:db8::9/64 dev eth0 nodad
		ip addr add 203.0.113.9/24 dev eth1
		ip route add default via 198.51.100.1 dev eth0
		ip route add default via 198.51.100.1 dev eth0 metric 7
		ip route add default via 198.51.100.2 dev eth0 table 100
		ip route add default table 101 nexthop via 198.51.100.3 dev eth0 nexthop via 203.0.113.3 dev eth1
		ip route add 192.0.2.0/24 via 198.51.100.4 dev eth0
		ip route add default via inet6 2001:db8::5 dev eth0 table 102
		ip -6 route add default via 2001:db8::1 dev eth0
		ip -6 route add default via fe80::1 dev eth0 table 100
	`)
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	want := addresses("198.51.100.1", "198.51.100.2", "198.51.100.3", "2001:db8::1", "2001:db8::5", "fe80::1")
	if diff := cmp.Diff(want, find(all, "eth0").Gateways, comparable); diff != "" {
		t.Errorf("gateways on eth0 (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(addresses("203.0.113.3"), find(all, "eth1").Gateways, comparable); diff != "" {
		t.Errorf("gateways on eth1 (-want +got):\n%s", diff)
	}
}

func TestUpNeedsTheAdministratorAndACarrier(t *testing.T) {
	far := cable(t, "eth0")
	for _, c := range []struct {
		name       string
		near, away string
		want       bool
	}{
		{name: "both ends up", near: "true", away: "true", want: true},
		{name: "far end down", near: "true", away: "ip link set eth0-peer down", want: false},
		{name: "near end down, too", near: "ip link set eth0 down", away: "true", want: false},
		{name: "only the near end down", near: "true", away: "ip link set eth0-peer up", want: false},
		{name: "up again", near: "ip link set eth0 up", away: "true", want: true},
		{name: "waits for 802.1X", near: "ip link set eth0 mode dormant; ip link set eth0 down; ip link set eth0 up", away: "true", want: false},
		{name: "let in by 802.1X", near: "ip link set eth0 state up", away: "true", want: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			on(t, c.near)
			if err := far.Script("%s", c.away); err != nil {
				t.Fatal(err)
			}
			// The kernel's link watch is a moment late.
			eventually(t, func() bool {
				all, err := List()
				return err == nil && find(all, "eth0").Up == c.want
			})
		})
	}
}

func BenchmarkList(b *testing.B) {
	// A node with 250 pods.
	on(b, `for i in $(seq 250); do echo "link add pod$i type veth peer pod$i-peer"; done > /run/batch; ip -batch /run/batch`)
	b.Cleanup(func() {
		on(b, `for i in $(seq 250); do echo "link del pod$i"; done > /run/batch; ip -batch /run/batch`)
	})
	for b.Loop() {
		if _, err := List(); err != nil {
			b.Fatal(err)
		}
	}
}
