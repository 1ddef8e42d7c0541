package configuration

import (
	"fmt"
	"math"
	"net/netip"
	"slices"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// infrastructure returns the addresses that speakers never announce.
func (v *view) infrastructure() occupied {
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
	return sorted(all)
}

// lengths are the prefix lengths, for IPv4 and IPv6, of the networks that are announced instead of addresses. 0 means that
// the addresses of the family are announced one by one.
type lengths [2]int

func newLengths(l *herald.AggregationLength) (of lengths) {
	if l != nil && l.IPv4 < 32 {
		of[0] = int(l.IPv4)
	}
	if l != nil && l.IPv6 < 128 {
		of[1] = int(l.IPv6)
	}
	return of
}

// space is what can be announced of a pool: its addresses, including those that the pool does not assign because some
// devices cannot use them (spec.avoidBuggyIPs).
type space struct {
	pool     string
	families [2]family // IPv4 and IPv6
}

// family has the addresses of a pool in one family.
type family struct {
	name     string         // in spec.aggregationLength
	prefixes []netip.Prefix // the smallest set of prefixes that has all addresses
	taken    []taken        // the addresses in these prefixes that speakers never announce
	// filledFrom is the shortest prefix length at which every address is in a network that is announced. At every
	// shorter length, some network extends beyond the pool. filledFrom is math.MaxInt if one of the addresses is taken.
	filledFrom int
}

// taken is an address in a pool that the infrastructure uses.
type taken struct {
	netip.Addr
	what   string
	prefix int // the length of the pool's prefix that has the address
}

// newSpace returns the space of a pool; nil if its addresses cannot be parsed.
func newSpace(p Pool, infrastructure occupied) *space {
	addresses, err := ipam.ParseAddresses(rangeTexts(p.Spec.Addresses), rangeTexts(p.Spec.Exclude))
	if err != nil {
		return nil // The status of the pool has the error.
	}
	s := &space{p.Name, [2]family{{name: "ipv4"}, {name: "ipv6"}}}
	for _, prefix := range addresses.Prefixes() {
		f := &s.families[1]
		if prefix.Addr().Is4() {
			f = &s.families[0]
		}
		f.prefixes = append(f.prefixes, prefix)
		f.filledFrom = max(f.filledFrom, prefix.Bits())
		at, _ := slices.BinarySearchFunc(infrastructure.addresses, prefix.Addr(), netip.Addr.Compare)
		for _, a := range infrastructure.addresses[at:] {
			if !prefix.Contains(a) {
				break
			}
			f.taken = append(f.taken, taken{a, infrastructure.what[a], prefix.Bits()})
			f.filledFrom = math.MaxInt
		}
	}
	return s
}

// share reports whether two advertisements that select the pool announce a common route: to a network, or to an address
// that both announce by itself.
func (s *space) share(x, y lengths) bool {
	if s == nil {
		return true
	}
	for i := range s.families {
		f := &s.families[i]
		// Addresses that no network of the longer length covers are not covered by networks of the shorter length either.
		if x[i] == y[i] && len(f.prefixes) > 0 || x[i] != y[i] && max(x[i], y[i]) < f.filledFrom {
			return true
		}
	}
	return false
}

// notes says which addresses of a pool are announced one by one although the advertisement asks for networks, and why.
func (s *space) notes(networks lengths) (notes []string) {
	if s == nil {
		return nil
	}
	for i, f := range s.families {
		length := networks[i]
		if length == 0 || length >= f.filledFrom {
			continue
		}
		var unfilled, occupied []string
		for _, prefix := range f.prefixes {
			if prefix.Bits() > length {
				unfilled = append(unfilled, prefix.String())
			}
		}
		for _, a := range f.taken {
			if a.prefix <= length {
				occupied = append(occupied, fmt.Sprintf("%s, where %s is %s", netip.PrefixFrom(a.Addr, length).Masked(), a.Addr, a.what))
			}
		}
		note := func(why string, list []string) {
			if len(list) > 0 {
				notes = append(notes, fmt.Sprintf("spec.aggregationLength.%s: of IPPool %s these addresses are announced one by one, since %s: %s",
					f.name, s.pool, why, some(list)))
			}
		}
		note(fmt.Sprintf("the pool does not have the whole /%d that contains them", length), unfilled)
		note("the network has an address that is not for Services", occupied)
	}
	return notes
}

func rangeTexts(ranges []herald.AddressRange) (texts []string) {
	for _, r := range ranges {
		texts = append(texts, string(r))
	}
	return texts
}
