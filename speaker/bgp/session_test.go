package bgp

import (
	"net/netip"
	"testing"

	"github.com/heraldlb/herald/speaker/bgp/route"
)

// The counts follow the announced and withdrawn routes.
func TestPrefixesAreCountedAsTheyChange(t *testing.T) {
	p := prefixes{of: map[netip.Prefix]route.Attributes{}}
	a, b, c := netip.MustParsePrefix("198.51.100.1/32"), netip.MustParsePrefix("198.51.100.2/32"), netip.MustParsePrefix("2001:db8::1/128")
	for _, step := range []struct {
		name string
		do   func()
		want counts
	}{
		{"an IPv4 prefix", func() { p.set(a, route.Attributes{}) }, counts{1, 0}},
		{"the same with other attributes", func() { p.set(a, route.Attributes{Prepend: 1}) }, counts{1, 0}},
		{"another, and an IPv6 prefix", func() { p.set(b, route.Attributes{}); p.set(c, route.Attributes{}) }, counts{2, 1}},
		{"one goes", func() { p.remove(a) }, counts{1, 1}},
		{"it goes again", func() { p.remove(a) }, counts{1, 1}},
		{"the others go", func() { p.remove(b); p.remove(c) }, counts{}},
	} {
		if step.do(); p.counts != step.want {
			t.Errorf("%s: %+v, want %+v", step.name, p.counts, step.want)
		}
	}
}
