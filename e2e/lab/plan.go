package lab

import (
	"fmt"
	"net/netip"
	"slices"
)

// The address plan. Pods and ClusterIPs have the usual ranges of Kubernetes. All other addresses are
// from the ranges for documentation and benchmarks (RFC 5737, RFC 2544, RFC 3849).
//
//	segment      198.18.0.0/24     2001:db8:18::/64
//	  .1  ::1    the API server, in the enclave's own namespace
//	  .2  ::2    router1 (AS 64500 if FRR, 64501 if BIRD), .3 router2
//	  .11 ::11   k8s-node1, and so on
//	  .100 ::100 the client on the segment, .101 client2, and so on
//	2nd segment  198.18.1.0/24     2001:db8:18:1::/64, optional, hosts as above
//	beyond router1 203.0.113.0/25   2001:db8:113::/64    its client .10 ::10
//	beyond router2 203.0.113.128/25 2001:db8:113:1::/64  its client .138 ::10
//	pods of node N 10.244.N.0/24    fd00:10:244:N::/64
//	ClusterIPs     10.96.0.0/16     fd00:10:96::/112
//
// Free for stories, which are the tests in a lab: 198.18.0.200-198.18.0.250 and 2001:db8:18::200-2001:db8:18::250
// on the segment; Many4 and Many6, which clients on the segment reach on link; 198.51.100.0/24 and
// 2001:db8:51::/112, which are reachable by BGP only.
var (
	segment4 = netip.MustParsePrefix("198.18.0.0/24")
	segment6 = netip.MustParsePrefix("2001:db8:18::/64")
	routed4  = netip.MustParsePrefix("198.51.100.0/24")
	routed6  = netip.MustParsePrefix("2001:db8:51::/112")

	// Many4 has room for 1,000 addresses on the segment.
	Many4 = netip.MustParsePrefix("198.18.4.0/22")
	// Many6 is the same for IPv6.
	Many6 = netip.MustParsePrefix("2001:db8:18::1:0/112")
)

// LeftForStories reports whether stories may give the address to a Service.
func LeftForStories(a netip.Addr) bool {
	within := func(first, last string) bool {
		return !a.Less(netip.MustParseAddr(first)) && !netip.MustParseAddr(last).Less(a)
	}
	return within("198.18.0.200", "198.18.0.250") || within("2001:db8:18::200", "2001:db8:18::250") ||
		slices.ContainsFunc([]netip.Prefix{Many4, Many6, routed4, routed6}, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Addresses returns the first n addresses of a prefix that have a host bit set.
func Addresses(p netip.Prefix, n int) (all []netip.Addr) {
	for a := p.Masked().Addr().Next(); len(all) < n && p.Contains(a); a = a.Next() {
		all = append(all, a)
	}
	return all
}

// Sample returns n evenly spread addresses, including the first and the last. It returns all if there are n or fewer.
func Sample(addresses []netip.Addr, n int) (some []netip.Addr) {
	if len(addresses) <= n {
		return addresses
	}
	for i := range n {
		some = append(some, addresses[i*(len(addresses)-1)/max(n-1, 1)])
	}
	return some
}

const (
	// MaxNodes is bounded by the address plan.
	MaxNodes = 80
	// MaxClients is bounded by the address plan.
	MaxClients = 50
	// MaxRouters is bounded by the address plan.
	MaxRouters = 2

	// NodeASN is the AS number for Herald's speakers; the routers expect it.
	NodeASN = 64512
	// FRRASN is the AS number of routers that run FRR.
	FRRASN = 64500
	// BIRDASN is the AS number of routers that run BIRD.
	BIRDASN = 64501

	podCIDRs     = "10.244.0.0/16,fd00:10:244::/48"
	serviceCIDRs = "10.96.0.0/16,fd00:10:96::/112"

	apiServerHost = 1
	routerHosts   = 1 // router1 is host 2
	nodeHosts     = 10
	clientHost    = 100
)

// onSegment returns the addresses of host number h on the segment. For readability both families show
// the same digits (198.18.0.11, 2001:db8:18::11).
func onSegment(h int) (v4, v6 netip.Prefix) {
	return netip.MustParsePrefix(fmt.Sprintf("198.18.0.%d/24", h)), netip.MustParsePrefix(fmt.Sprintf("2001:db8:18::%d/64", h))
}

// onSecond is onSegment for the second segment.
func onSecond(h int) (v4, v6 netip.Prefix) {
	return netip.MustParsePrefix(fmt.Sprintf("198.18.1.%d/24", h)), netip.MustParsePrefix(fmt.Sprintf("2001:db8:18:1::%d/64", h))
}

// beyond returns the addresses of router r, counted from 1, and of its client in the network behind
// the router.
func beyond(r int) (router4, router6, client4, client6 netip.Prefix) {
	base := 128 * (r - 1)
	v4 := func(h int) netip.Prefix { return netip.MustParsePrefix(fmt.Sprintf("203.0.113.%d/25", base+h)) }
	v6 := func(h int) netip.Prefix {
		return netip.MustParsePrefix(fmt.Sprintf("2001:db8:113:%d::%d/64", r-1, h))
	}
	return v4(1), v6(1), v4(10), v6(10)
}

// podAddress returns address number h of node n's pod ranges; 1 is the node's end.
func podAddress(n, h int) (v4, v6 netip.Prefix) {
	return netip.MustParsePrefix(fmt.Sprintf("10.244.%d.%d/24", n, h)), netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::%d/64", n, h))
}
