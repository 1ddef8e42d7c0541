package vrrp

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/heraldlb/herald/e2e/lab"
)

// TestAdvertisementsHaveOneAddress checks that an advertisement has one address, however many addresses there are. The
// others move with it.
func TestAdvertisementsHaveOneAddress(t *testing.T) {
	for _, c := range []struct {
		prefix     netip.Prefix
		n          int
		advertised string
		excluded   int
	}{
		{lab.Many4, 1, "198.18.4.1", 0},
		{lab.Many4, 1000, "198.18.4.1", 999},
		{lab.Many6, 1, "fe80::5e00:53", 1},
		{lab.Many6, 1000, "fe80::5e00:53", 1000},
	} {
		text := config(150, lab.Addresses(c.prefix, c.n))
		advertised, others, _ := strings.Cut(text, "virtual_ipaddress_excluded")
		_, advertised, _ = strings.Cut(advertised, "virtual_ipaddress {")
		advertised, _, _ = strings.Cut(advertised, "}")
		others = strings.Trim(others, " {}\n\t")
		if got := strings.TrimSpace(advertised); got != c.advertised || len(strings.Fields(others)) != c.excluded || !strings.Contains(text, "priority 150\n") {
			t.Errorf("%d of %v: %q is advertised and %d addresses are not, want %q and %d:\n%s", c.n, c.prefix, got, len(strings.Fields(others)), c.advertised, c.excluded, text)
		}
	}
}
