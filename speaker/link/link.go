// Package link lists the interfaces of the machine on which an address can be announced, with
// their subnets and gateways, as the kernel reports them over netlink.
//
// [List] asks the kernel once. A [Watcher] subscribes to changes of links, addresses and default
// routes, and keeps a list up to date without polling. Both see the network namespace of the
// calling process.
//
// Many interfaces of a Kubernetes node lead to its pods. They are listed like any other: callers
// decide whether an interface has a subnet that fits an address.
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
	// Up means that the administrator has set the interface up, and that it has a carrier and is
	// ready to pass packets.
	Up bool
	// Subnets are the addresses of the interface as they were configured, each with its prefix
	// length: 198.18.0.7/24, not 198.18.0.0/24. They are sorted, IPv4 first.
	//
	// IPv6 link-local addresses are left out. Every interface has fe80::/64, so this subnet does not
	// distinguish interfaces, and no Service has an address in it. An address with a peer has the
	// full prefix length (/32, /128), because in the kernel the prefix length is that of the peer.
	Subnets []netip.Prefix
	// Gateways are the next hops of the default routes through the interface, in all routing tables and both
	// families, sorted and without zones.
	Gateways []netip.Addr
}

// Index returns the index of the interface with this name. It finds interfaces of any kind, also those to which sockets can be
// bound but which [List] leaves out, such as VRFs. It is an error if there is no such interface.
func Index(name string) (int, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", name, err)
	}
	return l.Attrs().Index, nil
}

// dumpAttempts bounds the dumps for one list. If something changed during a dump, the kernel marks
// the dump as interrupted. Such a dump may lack an interface that existed all the time.
const dumpAttempts = 5

// List returns the interfaces that can speak ARP and NDP, sorted by name, whether or not they are up.
// It leaves out:
//
//   - loopback and interfaces with NOARP (dummies, tunnels, WireGuard), because they resolve no
//     neighbours;
//   - interfaces whose hardware address is not an Ethernet address, because no frame can answer for
//     them;
//   - ports of a bridge, bond or team, because they hand their packets to the master before any
//     protocol sees them. The master has the addresses and answers. An answer on the port, too, would
//     give the same address a second MAC. Members of a VRF are different: a VRF groups routes, while
//     ARP and NDP stay with the members. So the members are listed. The VRF has NOARP and is not.
//
// If the kernel or the socket returns an error, the list is nil.
func List() ([]Interface, error) {
	links, err := dump(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links over netlink: %w", err)
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses over netlink: %w", err)
	}
	// The table "unspecified" stands for all tables: policy routing and VRFs have default routes of their own.
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

// gateways returns the next hops of a route, by the index of the interface through which they are reached.
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

// assemble is the pure part of List. It drops an address or route whose interface is not in links. The
// interface was added between the dumps, and an event for it will follow.
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

// isUp reports whether all three flags are set: IFF_UP by the administrator, IFF_LOWER_UP for the
// carrier, and IFF_RUNNING for the operational state of RFC 2863, which also waits for 802.1X. The
// kernel sets these flags itself, so an interface whose driver reports no state counts as running.
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

// Routers returns the IPv6 link-local addresses of the routers on the link of an interface, sorted and without zones. These
// are the routers whose Router Advertisements (RFC 4861) have reached the kernel. The kernel keeps them as neighbours with
// the flag IsRouter, even if it does not use what they advertise. A router that has fallen silent may be missing. This
// machine is left out, although the kernel hears its own advertisements, too. Neighbours that only forward packets are
// included once the kernel has asked for their MAC addresses, because they answer that they are routers. [HearRouters]
// distinguishes them from routers that advertise.
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
