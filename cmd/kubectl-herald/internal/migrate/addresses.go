package migrate

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// rangeOf parses a prefix, a range or an address. Host bits of a prefix are dropped, as in Go.
func rangeOf(text string) (netipx.IPRange, error) {
	text = strings.TrimSpace(text)
	if from, to, ok := strings.Cut(text, "-"); ok {
		a, err := addressOf(from)
		if err != nil {
			return netipx.IPRange{}, err
		}
		b, err := addressOf(to)
		if err != nil {
			return netipx.IPRange{}, err
		}
		r := netipx.IPRangeFrom(a, b)
		if !r.IsValid() {
			return r, fmt.Errorf("%q is not a range: it goes from the lower address to the higher one, of one family", text)
		}
		return r, nil
	}
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Addr().Is4In6() {
			return netipx.IPRange{}, fmt.Errorf("%q is not a prefix", text)
		}
		return netipx.RangeOfPrefix(p.Masked()), nil
	}
	a, err := addressOf(text)
	return netipx.IPRangeFrom(a, a), err
}

func addressOf(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(strings.TrimSpace(text))
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q is not an address", text)
	}
	return a.Unmap(), nil
}

// written returns a range in Herald's format.
func written(r netipx.IPRange) herald.AddressRange {
	if r.From() == r.To() {
		return herald.AddressRange(r.From().String())
	}
	if p, ok := r.Prefix(); ok {
		return herald.AddressRange(p.String())
	}
	return herald.AddressRange(r.From().String() + "-" + r.To().String())
}

// addresses translates the ranges of a pool. It joins ranges that overlap.
func (i *item) addresses(field string, texts []string) (all []herald.AddressRange) {
	var ranges []netipx.IPRange
	for n, text := range texts {
		r, err := rangeOf(text)
		if err != nil {
			i.cannot("%s[%d]: %v: correct it", field, n, err)
			continue
		}
		ranges = append(ranges, r)
	}
	var set netipx.IPSetBuilder
	overlap := false
	for n, r := range ranges {
		overlap = overlap || slices.ContainsFunc(ranges[:n], r.Overlaps)
		set.AddRange(r)
	}
	if joined, err := set.IPSet(); overlap && err == nil {
		i.approximated("%s: entries overlap, and are written as one", field)
		ranges = joined.Ranges()
	}
	for _, r := range ranges {
		all = append(all, written(r))
	}
	return all
}

// excludeEnds excludes the first and the last address of a prefix from a pool.
func excludeEnds(p *herald.IPPool, r netipx.IPRange) {
	for _, a := range []netip.Addr{r.From(), r.To()} {
		if end := herald.AddressRange(a.String()); !slices.Contains(p.Spec.Exclude, end) {
			p.Spec.Exclude = append(p.Spec.Exclude, end)
		}
	}
}
