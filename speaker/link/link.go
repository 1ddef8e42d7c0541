// Package link knows the interfaces of the machine on which an address can be announced, the
// subnets they are in and the gateways behind them, as the kernel tells it over netlink.
//
// [List] asks once. A [Watcher] subscribes to changes of links, addresses and default routes and keeps a list
// that is true; it never polls. Both see the network namespace of the calling process.
//
// Many interfaces of a Kubernetes node are the far ends of its pods. They are listed like any
// other: whether an interface has a subnet that fits an address is the caller's question.
package link

import (
	"bytes"
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
	// Gateways are the next hops of the default routes through the interface, in all routing tables and both
	// families, sorted and without zones.
	Gateways []netip.Addr
}

// Index is the index of the interface of this name, whatever kind it is: [List] leaves out some that sockets can be bound
// to, such as VRFs. It is an error that there is none.
func Index(name string) (int, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", name, err)
	}
	return l.Attrs().Index, nil
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
	// The table "unspecified" stands for all of them: policy routing and VRFs have default routes of their own.
	routes, err := dump(func() ([]netlink.Route, error) {
		var defaults []netlink.Route
		err := netlink.RouteListFilteredIter(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE,
			func(r netlink.Route) bool {
				if isDefault(r) {
					defaults = append(defaults, r)
				}
				return true
			})
		return defaults, err
	})
	if err != nil {
		return nil, fmt.Errorf("list routes over netlink: %w", err)
	}
	return assemble(links, addrs, routes), nil
}

func isDefault(r netlink.Route) bool {
	if r.Dst == nil {
		return r.MPLSDst == nil
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0 && r.Dst.IP.IsUnspecified()
}

// gateways lists the next hops of a route, by the index of the interface that they are reached through.
func gateways(r netlink.Route) map[int][]netip.Addr {
	hops := map[int][]netip.Addr{}
	add := func(index int, gateway net.IP, via netlink.Destination) {
		// RTA_VIA: an IPv4 route with an IPv6 next hop (RFC 5549).
		if v, ok := via.(*netlink.Via); ok && gateway == nil {
			gateway = v.Addr
		}
		if a, ok := netip.AddrFromSlice(gateway); ok {
			hops[index] = append(hops[index], a.Unmap())
		}
	}
	add(r.LinkIndex, r.Gw, r.Via)
	for _, hop := range r.MultiPath {
		add(hop.LinkIndex, hop.Gw, hop.Via)
	}
	return hops
}

func dump[T any](list func() ([]T, error)) (all []T, err error) {
	for range dumpAttempts {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return nil, err
}

// assemble is the pure part of List. An address or route whose interface is not in links is dropped: it
// came between the dumps and will be announced by an event of its own.
func assemble(links []netlink.Link, addrs []netlink.Addr, routes []netlink.Route) []Interface {
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
	routers := make(map[int][]netip.Addr)
	for _, r := range routes {
		for index, hops := range gateways(r) {
			routers[index] = append(routers[index], hops...)
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
		g := routers[a.Index]
		slices.SortFunc(g, netip.Addr.Compare)
		interfaces = append(interfaces, Interface{
			Index:    a.Index,
			Name:     a.Name,
			MAC:      a.HardwareAddr,
			Up:       isUp(a.RawFlags),
			Subnets:  slices.Compact(s),
			Gateways: slices.Compact(g),
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

// Routers lists the IPv6 link-local addresses of the routers on the link of an interface, sorted and without zones: those
// whose Router Advertisements (RFC 4861) have reached the kernel. It keeps them as neighbours with the flag IsRouter,
// also where it does not use what they advertise. One that has fallen silent may be missing. This machine is left out: the
// kernel hears its own advertisements, too. A neighbour that forwards is among them, too, once the kernel has asked for its
// MAC address: it says in its answer that it is a router. [HearRouters] tells them apart.
func Routers(i Interface) ([]netip.Addr, error) {
	neighbours, err := dump(func() ([]netlink.Neigh, error) { return netlink.NeighList(i.Index, netlink.FAMILY_V6) })
	if err != nil {
		return nil, fmt.Errorf("list neighbours on %s over netlink: %w", i.Name, err)
	}
	var all []netip.Addr
	for _, n := range neighbours {
		a, _ := netip.AddrFromSlice(n.IP)
		advertised := n.LinkIndex == i.Index && n.Flags&netlink.NTF_ROUTER != 0 && n.State&netlink.NUD_FAILED == 0
		if advertised && a.Is6() && a.IsLinkLocalUnicast() && !bytes.Equal(n.HardwareAddr, i.MAC) {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all, nil
}
