package configuration

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
)

// maxOccupied is the most addresses that one node can have counted as occupied. Whoever controls a node writes its
// speaker's report and, with the credentials of the kubelet, the addresses of the Node.
const maxOccupied = 64

// Occupied returns the addresses that the network itself uses, each with a description such as "the address of node
// n1". They must never be assigned to a Service. They are the addresses of nodes, their gateways and BGPPeers, the
// first and the last address of each IPv4 subnet of a node (RFC 1122, section 3.2.1.3), and the first address of each
// IPv6 subnet, the Subnet-Router anycast address (RFC 4291, section 2.6.1). In subnets of two addresses, neither
// address is special (RFC 3021, RFC 6164).
func (c Cluster) Occupied() map[netip.Addr]string {
	all := map[netip.Addr]string{}
	for _, o := range c.Peers {
		if a, ok := usable(o.Spec.Address); ok {
			all[a] = "the address of BGPPeer " + o.Name
		}
	}
	nodes := slices.SortedFunc(slices.Values(c.Nodes), func(x, y *corev1.Node) int { return cmp.Compare(y.Name, x.Name) })
	for _, n := range nodes { // in reverse order, so that of several descriptions of an address the one from the first node by name stays
		maps.Copy(all, c.occupiedBy(n))
	}
	return all
}

// occupiedBy returns the addresses that a node occupies. If there are too many, the more important ones are kept.
func (c Cluster) occupiedBy(n *corev1.Node) map[netip.Addr]string {
	own := map[netip.Addr]string{}
	add := func(a netip.Addr, format string, args ...any) {
		if _, known := own[a]; !known && a.IsValid() && !a.IsUnspecified() && len(own) < maxOccupied {
			own[a] = fmt.Sprintf(format, args...)
		}
	}
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP {
			address, _ := usable(a.Address)
			add(address, "the address of node %s", n.Name)
		}
	}
	interfaces := c.Speakers[n.Name].Interfaces
	for _, i := range interfaces {
		for _, g := range i.Gateways {
			add(g, "the gateway of node %s on %s", n.Name, printable(i.Name, maxQuote))
		}
		for _, p := range i.Subnets {
			if !p.IsSingleIP() && p.Addr() != p.Masked().Addr() {
				add(p.Addr(), "the address of node %s", n.Name)
			}
		}
	}
	for _, i := range interfaces {
		for _, p := range i.Subnets {
			switch bits := p.Addr().BitLen() - p.Bits(); {
			case bits < 2 || p.Addr().IsLinkLocalUnicast():
			case p.Addr().Is4():
				add(p.Masked().Addr(), "the network address of %s", p.Masked())
				add(netipx.PrefixLastIP(p), "the broadcast address of %s", p.Masked())
			default:
				add(p.Masked().Addr(), "the Subnet-Router anycast address of %s", p.Masked())
			}
		}
	}
	return own
}

// usable parses an address without a zone. An IPv4 address in IPv6 form becomes an IPv4 address.
func usable(text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

// occupied has addresses in order, and their descriptions.
type occupied struct {
	addresses []netip.Addr
	what      map[netip.Addr]string
}

func sorted(what map[netip.Addr]string) occupied {
	return occupied{slices.SortedFunc(maps.Keys(what), netip.Addr.Compare), what}
}

// in lists the addresses that are in a set, as "198.51.100.1 (the address of node n1)".
func (o occupied) in(set *netipx.IPSet) (list []string) {
	if set == nil {
		return nil
	}
	for _, r := range set.Ranges() {
		at, _ := slices.BinarySearchFunc(o.addresses, r.From(), netip.Addr.Compare)
		for ; at < len(o.addresses) && o.addresses[at].Compare(r.To()) <= 0; at++ {
			list = append(list, fmt.Sprintf("%s (%s)", o.addresses[at], o.what[o.addresses[at]]))
		}
	}
	return list
}

// networks are the networks of pods and of Services.
type networks struct {
	set   *netipx.IPSet
	parts []network
}

type network struct {
	netip.Prefix
	what string
}

func newNetworks(c Cluster) networks {
	var n networks
	for _, p := range c.ServiceCIDRs {
		n.parts = append(n.parts, network{p, fmt.Sprintf("%s, the range of ClusterIPs", p)})
	}
	nodes := slices.SortedFunc(slices.Values(c.Nodes), func(x, y *corev1.Node) int { return cmp.Compare(x.Name, y.Name) })
	for _, o := range nodes {
		for _, text := range o.Spec.PodCIDRs {
			if p, err := netip.ParsePrefix(text); err == nil {
				n.parts = append(n.parts, network{p, fmt.Sprintf("%s, the addresses of pods on node %s", p, o.Name)})
			}
		}
	}
	var b netipx.IPSetBuilder
	for _, p := range n.parts {
		b.AddPrefix(p.Prefix)
	}
	n.set, _ = b.IPSet() // IPSet fails only for an invalid prefix, and there is none.
	return n
}

// overlapping says which networks share addresses with a pool, and the remedy; empty if there are none.
func (n networks) overlapping(pool *netipx.IPSet) string {
	if pool == nil || !pool.Overlaps(n.set) {
		return ""
	}
	var in []string
	for _, part := range n.parts {
		if pool.OverlapsPrefix(part.Prefix) {
			in = append(in, part.what)
		}
	}
	return "the cluster uses addresses of the pool itself: " + some(in) + ": choose other spec.addresses, or put these into spec.exclude"
}
