package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
)

// unusable are the blocks in which no Service can be reached from another machine. The policy in
// manifests/policies/ippools.yaml has the same blocks.
var unusable = []struct {
	block netip.Prefix
	what  string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), `"this network"`},                                             // RFC 1122 section 3.2.1.3 (a), (b)
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},                                                 // RFC 1122 section 3.2.1.3 (g)
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},                                                // RFC 5771 section 3
	{netip.MustParsePrefix("255.255.255.255/32"), "broadcast"},                                         // RFC 919 section 7
	{netip.MustParsePrefix("::/64"), "for the unspecified address, loopback and IPv4 written as IPv6"}, // RFC 4291 sections 2.5.2, 2.5.3, 2.5.5
	{netip.MustParsePrefix("ff00::/8"), "multicast"},                                                   // RFC 4291 section 2.7
}

// ParseAddresses parses the addresses of a pool: CIDRs (198.51.100.0/26), ranges that include both ends
// (198.51.100.1-198.51.100.9) and single addresses, of IPv4 and IPv6. It removes those in exclude, which has the same
// format.
//
// Entries of addresses must not overlap, because an overlap is usually a mistake. Entries of exclude may overlap, and may
// be outside of addresses. An entry of addresses may include addresses at which no Service can be reached only if an
// entry of exclude has their whole block. The error names the field and text of the first invalid entry, and how to
// correct it.
func ParseAddresses(addresses, exclude []string) (*netipx.IPSet, error) {
	if len(addresses) == 0 {
		return nil, fmt.Errorf("addresses is empty: list a CIDR, a range or an address")
	}
	listed, err := parseEntries("addresses", addresses)
	if err != nil {
		return nil, err
	}
	excluded, err := parseEntries("exclude", exclude)
	if err != nil {
		return nil, err
	}
	if err := checkUsable(listed, excluded); err != nil {
		return nil, err
	}
	if err := checkDisjoint(listed); err != nil {
		return nil, err
	}
	var b netipx.IPSetBuilder
	for _, e := range listed {
		b.AddRange(e.IPRange)
	}
	for _, e := range excluded {
		b.RemoveRange(e.IPRange)
	}
	return b.IPSet()
}

// AvoidBuggy removes the IPv4 addresses that end in .0 or .255. Before prefixes of any length existed (RFC 1519) these
// were network and broadcast addresses, and some devices still drop them.
func AvoidBuggy(addresses *netipx.IPSet) (*netipx.IPSet, error) {
	var b netipx.IPSetBuilder
	b.AddSet(addresses)
	for _, r := range addresses.Ranges() {
		if !r.From().Is4() {
			continue
		}
		for block := netip.PrefixFrom(r.From(), 24).Masked(); ; {
			whole := netipx.RangeOfPrefix(block)
			b.Remove(whole.From())
			b.Remove(whole.To())
			if !whole.To().Less(r.To()) {
				break
			}
			block = netip.PrefixFrom(whole.To().Next(), 24)
		}
	}
	return b.IPSet()
}

// entry is one entry of a pool's addresses or excludes.
type entry struct {
	name string // its field and text, for errors
	netipx.IPRange
}

func parseEntries(field string, texts []string) ([]entry, error) {
	entries := make([]entry, len(texts))
	for i, text := range texts {
		name := fmt.Sprintf("%s[%d] %q", field, i, text)
		r, err := ParseRange(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		entries[i] = entry{name, r}
	}
	return entries, nil
}

// checkUsable refuses entries that overlap an unusable block, unless one entry of excluded has the whole block.
func checkUsable(listed, excluded []entry) error {
	for _, e := range listed {
		for _, u := range unusable {
			block := netipx.RangeOfPrefix(u.block)
			whole := func(x entry) bool { return x.From().Compare(block.From()) <= 0 && block.To().Compare(x.To()) <= 0 }
			if e.Overlaps(block) && !slices.ContainsFunc(excluded, whole) {
				return fmt.Errorf("%s: holds addresses of %s, which is %s: leave those out, or put %[2]s into exclude", e.name, u.block, u.what)
			}
		}
	}
	return nil
}

// ParseRange parses a CIDR, a range or a single address.
func ParseRange(text string) (netipx.IPRange, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return netipx.IPRange{}, fmt.Errorf("is empty: write a CIDR, a range or an address, or remove it")
	}
	if first, last, ok := strings.Cut(text, "-"); ok {
		return parseEnds(strings.TrimSpace(first), strings.TrimSpace(last))
	}
	if addr, length, ok := strings.Cut(text, "/"); ok {
		return parseCIDR(addr, length)
	}
	addr, err := parseAddr(text)
	if err != nil {
		return netipx.IPRange{}, err
	}
	return netipx.IPRangeFrom(addr, addr), nil
}

func parseEnds(first, last string) (netipx.IPRange, error) {
	from, err := parseAddr(first)
	if err != nil {
		return netipx.IPRange{}, err
	}
	to, err := parseAddr(last)
	if err != nil {
		return netipx.IPRange{}, err
	}
	if FamilyOf(from) != FamilyOf(to) {
		return netipx.IPRange{}, fmt.Errorf("starts with %s and ends with %s: write one range for each family", FamilyOf(from), FamilyOf(to))
	}
	if to.Less(from) {
		return netipx.IPRange{}, fmt.Errorf("ends before it starts: write %s-%s", to, from)
	}
	return netipx.IPRangeFrom(from, to), nil
}

func parseCIDR(address, length string) (netipx.IPRange, error) {
	addr, err := parseAddr(address)
	if err != nil {
		return netipx.IPRange{}, err
	}
	// With netip and not strconv, which would accept "+8" and "08" as lengths.
	prefix, err := netip.ParsePrefix(addr.String() + "/" + length)
	if err != nil {
		return netipx.IPRange{}, fmt.Errorf("%q is not a prefix length: write %s/ and a number from 0 to %d", length, addr, addr.BitLen())
	}
	if masked := prefix.Masked(); masked != prefix {
		return netipx.IPRange{}, fmt.Errorf("has host bits set: write %s for the block or %s for the one address", masked, addr)
	}
	return netipx.RangeOfPrefix(prefix), nil
}

func parseAddr(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		return netip.Addr{}, fmt.Errorf("%q is not an IP address: write a CIDR (198.51.100.0/26), a range (198.51.100.1-198.51.100.9) or an address", text)
	case addr.Zone() != "":
		return netip.Addr{}, fmt.Errorf("has the zone %q, and addresses of a pool have none: write %s", addr.Zone(), addr.WithZone(""))
	case addr.Is4In6():
		return netip.Addr{}, fmt.Errorf("is an IPv4 address written as IPv6: write %s", addr.Unmap())
	}
	return addr, nil
}

// checkDisjoint refuses entries that share an address. It sorts them by start:
// if any two overlap, then two neighbours do.
func checkDisjoint(entries []entry) error {
	sorted := slices.SortedStableFunc(slices.Values(entries), func(x, y entry) int { return x.From().Compare(y.From()) })
	for i := 1; i < len(sorted); i++ {
		if x, y := sorted[i-1], sorted[i]; x.Overlaps(y.IPRange) {
			return fmt.Errorf("%s overlaps %s: list each address once", y.name, x.name)
		}
	}
	return nil
}
