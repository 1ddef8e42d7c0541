package ipam_test

import (
	"testing"

	"github.com/heraldlb/herald/ipam"
)

func (r request) several(count int) request { r.Count = count; return r }

func TestSeveralAddresses(t *testing.T) {
	const v4, v6 = ipam.IPv4, ipam.IPv6
	public := pool("public", "198.51.100.0/29", "2001:db8::/126")
	tell(t, map[string]story{
		"as many of each family": {
			pools(public),
			allocate(ask("a", v4, v6).several(2), "198.51.100.0@public", "198.51.100.1@public", "2001:db8::@public", "2001:db8::1@public"),
			allocate(ask("a", v4, v6).several(2), "198.51.100.0@public", "198.51.100.1@public", "2001:db8::@public", "2001:db8::1@public"),
			settled(ask("a", v4, v6).several(2), true), settled(ask("a", v4, v6), false), settled(ask("a", v4, v6).several(3), false),
		},
		"the address taken last goes first": {
			pools(public),
			allocate(ask("a", v4), "198.51.100.0@public"),
			allocate(ask("a", v4).several(3), "198.51.100.0@public", "198.51.100.1@public", "198.51.100.2@public"),
			allocate(ask("a", v4).several(2), "198.51.100.0@public", "198.51.100.1@public"),
			superfluous("a", []string{"198.51.100.0", "198.51.100.1"}, "198.51.100.2@public"),
			allocate(ask("a", v4), "198.51.100.0@public"),
			superfluous("a", []string{"198.51.100.0"}, "198.51.100.2@public", "198.51.100.1@public"),
		},
		"some are asked for": {
			pools(public, onRequest(pool("quiet", "203.0.113.0/30"))),
			allocate(ask("a", v4).several(2).exactly("203.0.113.1"), "203.0.113.1@quiet", "198.51.100.0@public"),
			allocate(ask("a", v4).several(2).exactly("198.51.100.5").exactly("198.51.100.0"), "198.51.100.5@public", "198.51.100.0@public"),
			superfluous("a", []string{"198.51.100.0", "198.51.100.5"}, "203.0.113.1@quiet"),
			refuse(ask("b", v4).several(2).exactly("198.51.100.1").exactly("198.51.100.1"), ipam.ErrInvalid, ""),
			refuse(ask("b", v4).exactly("198.51.100.1").exactly("198.51.100.2"), ipam.ErrInvalid, ""),
			refuse(ask("b", v4).several(17), ipam.ErrInvalid, ""),
			refuse(ask("b", v4).several(-1), ipam.ErrInvalid, ""),
			refuse(ask("b", v4).several(2).exactly("198.51.100.1").exactly("198.51.100.5"), ipam.ErrTaken, ""),
			heldBy("b"),
		},
		"one that is asked for is not given twice": {
			pools(pool("small", "192.0.2.0/31"), pool("large", "198.51.100.0/29")),
			allocate(ask("a", v4).several(2).exactly("192.0.2.0"), "192.0.2.0@small", "192.0.2.1@small"),
			allocate(ask("b", v4).several(2).exactly("198.51.100.0"), "198.51.100.0@large", "198.51.100.1@large"),
		},
		"all or none, from one pool": {
			pools(pool("small", "192.0.2.0/31"), pool("large", "198.51.100.0/29"), pool("six", "2001:db8::")),
			allocate(ask("a", v4).several(3), "198.51.100.0@large", "198.51.100.1@large", "198.51.100.2@large"),
			refuse(ask("b", v4).several(6), ipam.ErrExhausted, ""),
			heldBy("b"),
			allocate(ask("b", v4, v6).several(2).preferring(), "192.0.2.0@small", "192.0.2.1@small"), // There is only one IPv6 address.
			refuse(ask("c", v4, v6).several(2), ipam.ErrExhausted, ""),
			allocate(ask("d", v4).several(5), "198.51.100.3@large", "198.51.100.4@large", "198.51.100.5@large", "198.51.100.6@large", "198.51.100.7@large"),
			refuse(ask("d", v4).several(6).preferring(), ipam.ErrExhausted, ""), // It must not lose the family.
		},
		"each counts": {
			pools(quota(public, v4, 3)),
			allocate(ask("a", v4).in("red").several(2), "198.51.100.0@public", "198.51.100.1@public"),
			refuse(ask("b", v4).in("red").several(2), ipam.ErrQuota, ""),
			allocate(ask("b", v4).in("red"), "198.51.100.2@public"),
			refuse(ask("b", v4).in("red").several(2), ipam.ErrQuota, ""),
			refuse(ask("c", v4).in("red").several(2).exactly("198.51.100.6").exactly("198.51.100.7"), ipam.ErrQuota, ""),
			// One address moves, the other one stays.
			allocate(ask("a", v4).in("red").several(2).leaving("198.51.100.0"), "198.51.100.1@public", "198.51.100.3@public"),
			refuse(ask("a", v4).in("red").several(2).leaving("198.51.100.0", "198.51.100.1"), ipam.ErrQuota, ""),
			uses("", "red", v4, 4),
		},
		"each is shared": {
			pools(public),
			allocate(ask("a", v4).sharing("k", "TCP/80").several(2), "198.51.100.0@public", "198.51.100.1@public"),
			allocate(ask("b", v4).sharing("k", "TCP/81").several(3), "198.51.100.0@public", "198.51.100.1@public", "198.51.100.2@public"),
			allocate(ask("c", v4).sharing("k", "TCP/80"), "198.51.100.2@public"),
			allocate(ask("d", v4).sharing("k", "TCP/80").several(2), "198.51.100.3@public", "198.51.100.4@public"),
			refuse(ask("b", v4).sharing("k", "TCP/80").several(3), ipam.ErrTaken, ""),
		},
		"what is reserved comes first": {
			pools(public),
			reserve("a", "198.51.100.6@public"),
			allocate(ask("a", v4).several(2), "198.51.100.6@public", "198.51.100.0@public"),
		},
		"those that waited longest, one after the other": {
			pools(lru(pool("p", "198.51.100.0/30"))),
			allocate(ask("a", v4).several(2), "198.51.100.0@p", "198.51.100.1@p"),
			release("a", "198.51.100.1"),
			release("a", "198.51.100.0"),
			allocate(ask("b", v4).several(3), "198.51.100.2@p", "198.51.100.3@p", "198.51.100.1@p"),
			allocate(ask("c", v4), "198.51.100.0@p"),
		},
	})
}

func settled(r request, want bool) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		if held, got := a.Settled(ipam.Request(r)); got != want {
			t.Fatalf("Settled(%+v) = %v, %v, want %v", r, held, got, want)
		}
	}
}
