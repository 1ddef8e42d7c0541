// Package link knows the interfaces of the machine on which an address can be announced, and the
// subnets they are in, as the kernel tells it over netlink.
//
// [List] asks once. A [Watcher] subscribes to changes of links and addresses and keeps a list
// that is true; it never polls. Both see the network namespace of the calling process.
//
// Many interfaces of a Kubernetes node are the far ends of its pods. They are listed like any
// other: whether an interface has a subnet that fits an address is the caller's question.
package link

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Interface is a network interface that can speak ARP and NDP. Two values that describe the same
// state are deeply equal.
type Interface struct {
	Index int
	Name  string
	// MAC is always 6 bytes long.
	MAC net.HardwareAddr
	// Up: set up by the administrator, with a carrier, and ready to pass packets.
	Up bool
	// Subnets are the addresses of the interface as they were configured, each with its prefix
	// length, 198.18.0.7/24 and not 198.18.0.0/24. They are sorted, IPv4 first.
	//
	// IPv6 link-local addresses are left out: every interface has fe80::/64, so it tells no
	// interface from another, and no Service has an address in it. An address with a peer has
	// its full length (/32, /128), because the kernel takes the prefix length as the peer's.
	Subnets []netip.Prefix
}

// dumpAttempts bounds the dumps of one list. The kernel marks a dump during which something
// changed as interrupted; it may then lack an interface that has been there all the time.
const dumpAttempts = 5

// List returns the interfaces that can speak ARP and NDP, sorted by name. Up or not makes no
// difference; the following are left out:
//
//   - loopback and interfaces with NOARP (dummies, tunnels, WireGuard) resolve no neighbours;
//   - interfaces whose hardware address is not an Ethernet one cannot be answered for in a frame;
//   - ports of a bridge, bond or team hand their packets to the master before any protocol sees
//     them. The master is the one that has the addresses and speaks; a second voice on
//     its port would put a second MAC under the same address. Members of a VRF are not like that:
//     a VRF groups routes, ARP and NDP stay with the interface, so they are listed and the VRF,
//     having NOARP, is not.
//
// The error is the kernel's or the socket's; the list is then nil.
func List() ([]Interface, error) {
	links, err := dump(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links over netlink: %w", err)
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses over netlink: %w", err)
	}
	return assemble(links, addrs), nil
}

func dump[T any](list func() ([]T, error)) (all []T, err error) {
	for range dumpAttempts {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return nil, err
}

// assemble is the pure part of List. An address whose interface is not in links is dropped: it
// came between the two dumps and will be announced by an event of its own.
func assemble(links []netlink.Link, addrs []netlink.Addr) []Interface {
	vrfs := make(map[int]bool)
	for _, l := range links {
		if l.Type() == "vrf" {
			vrfs[l.Attrs().Index] = true
		}
	}
	subnets := make(map[int][]netip.Prefix)
	for _, a := range addrs {
		if p, ok := subnet(a); ok {
			subnets[a.LinkIndex] = append(subnets[a.LinkIndex], p)
		}
	}
	var interfaces []Interface
	for _, l := range links {
		a := l.Attrs()
		isPort := a.MasterIndex != 0 && !vrfs[a.MasterIndex]
		if a.RawFlags&(unix.IFF_LOOPBACK|unix.IFF_NOARP) != 0 || isPort || a.EncapType != "ether" || len(a.HardwareAddr) != 6 {
			continue
		}
		s := subnets[a.Index]
		slices.SortFunc(s, comparePrefixes)
		interfaces = append(interfaces, Interface{
			Index:   a.Index,
			Name:    a.Name,
			MAC:     a.HardwareAddr,
			Up:      isUp(a.RawFlags),
			Subnets: slices.Compact(s),
		})
	}
	slices.SortFunc(interfaces, func(a, b Interface) int { return cmp.Compare(a.Name, b.Name) })
	return interfaces
}

// isUp wants all three: IFF_UP is the administrator's wish, IFF_LOWER_UP the carrier, IFF_RUNNING
// the operational state of RFC 2863, which also waits for 802.1X. The kernel sets them
// itself, so a driver that reports no state counts as running.
func isUp(flags uint32) bool {
	const up = unix.IFF_UP | unix.IFF_LOWER_UP | unix.IFF_RUNNING
	return flags&up == up
}

func subnet(a netlink.Addr) (netip.Prefix, bool) {
	if a.IPNet == nil {
		return netip.Prefix{}, false
	}
	ip, ok := netip.AddrFromSlice(a.IP)
	ones, _ := a.Mask.Size()
	p := netip.PrefixFrom(ip.Unmap(), ones)
	return p, ok && p.IsValid() && !(ip.Is6() && ip.IsLinkLocalUnicast())
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
