package configuration

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// aggregation is what an advertisement announces in place of addresses.
type aggregation struct {
	herald.AggregationLength
	// infrastructure are the addresses that no network may have, with what each is.
	infrastructure map[netip.Addr]string
}

// infrastructure are the addresses that speakers never announce.
func (v *view) infrastructure() map[netip.Addr]string {
	all := map[netip.Addr]string{}
	note := func(text, format string, args ...any) {
		if a, ok := usable(text); ok && all[a] == "" {
			all[a] = fmt.Sprintf(format, args...)
		}
	}
	for _, n := range v.nodes {
		for _, a := range n.Status.Addresses {
			note(a.Address, "the address of node %s", n.Name)
		}
		for _, i := range n.Interfaces {
			for _, g := range i.Gateways {
				note(g.String(), "the gateway of node %s", n.Name)
			}
		}
	}
	for _, p := range v.Peers {
		note(p.Spec.Address, "the address of BGPPeer %s", p.Name)
	}
	return all
}

// notes tell which addresses of a pool are announced one by one although the advertisement asks for networks, and why.
func (g *aggregation) notes(p Pool) (notes []string) {
	if g == nil {
		return nil
	}
	// The addresses that the pool does not give out for the sake of some devices (spec.avoidBuggyIPs) are in the networks.
	addresses, err := ipam.ParseAddresses(rangeTexts(p.Spec.Addresses), rangeTexts(p.Spec.Exclude))
	if err != nil {
		return nil // The pool says so.
	}
	for _, family := range []struct {
		name   string
		length int
		is     func(netip.Addr) bool
	}{{"ipv4", int(g.IPv4), netip.Addr.Is4}, {"ipv6", int(g.IPv6), netip.Addr.Is6}} {
		var parts, taken []string
		for _, prefix := range addresses.Prefixes() {
			if family.is(prefix.Addr()) && prefix.Bits() > family.length {
				parts = append(parts, prefix.String())
			}
		}
		for _, a := range slices.SortedFunc(maps.Keys(g.infrastructure), netip.Addr.Compare) {
			network := netip.PrefixFrom(a, family.length).Masked()
			if family.is(a) && addresses.ContainsPrefix(network) {
				taken = append(taken, fmt.Sprintf("%s, where %s is %s", network, a, g.infrastructure[a]))
			}
		}
		note := func(why string, list []string) {
			if family.length > 0 && len(list) > 0 {
				notes = append(notes, fmt.Sprintf("spec.aggregationLength.%s: of IPPool %s these addresses are announced one by one, since %s: %s",
					family.name, p.Name, why, some(list)))
			}
		}
		note(fmt.Sprintf("they fill no /%d", family.length), parts)
		note("the network has an address that is not for Services", taken)
	}
	return notes
}

func rangeTexts(ranges []herald.AddressRange) (texts []string) {
	for _, r := range ranges {
		texts = append(texts, string(r))
	}
	return texts
}
