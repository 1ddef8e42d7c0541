package ipam_test

import (
	"testing"

	"github.com/heraldlb/herald/ipam"
)

// across lets namespaces share.
func across(p ipam.Pool) ipam.Pool { p.ShareAcrossNamespaces = true; return p }

func TestSharing(t *testing.T) {
	const v4 = ipam.IPv4
	tell(t, map[string]story{
		"an address of another pool among those who share it": {
			pools(pool("old", "198.51.100.0/30")),
			restoreOn(terms("dns", "UDP/53"), "a", "198.51.100.0"), // adopted before there were pools
			allocate(ask("b", v4).sharing("dns", "TCP/53").exactly("198.51.100.0"), "198.51.100.0@old"),
			isDisplaced("198.51.100.0", false),
			pools(pool("new", "198.51.100.0/30")).displacing("198.51.100.0@old"),
			isDisplaced("198.51.100.0", true),
		},
	})
}
