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
		"an address is of one pool, whoever is on it": {
			restoreOn(terms("dns", "UDP/53"), "a", "198.51.100.0@old"),
			pools(pool("new", "198.51.100.0/30")).displacing("198.51.100.0@old"),
			allocate(ask("b", v4).sharing("dns", "TCP/53").exactly("198.51.100.0"), "198.51.100.0@old"),
			displaced("198.51.100.0@old", "198.51.100.0@old"),
			restoreOn(terms("dns", "TCP/53"), "b", "198.51.100.0@new"),
			displaced(),
			isDisplaced("198.51.100.0", false),
			held("a", "198.51.100.0@new"),
		},
	})
}
