package ipam_test

import (
	"testing"

	"github.com/heraldlb/herald/ipam"
)

func TestOrder(t *testing.T) {
	const v4, v6 = ipam.IPv4, ipam.IPv6
	public := pool("public", "198.51.100.0/30", "2001:db8::/126")
	tell(t, map[string]story{
		"an address to be left is not given again": {
			pools(public),
			allocate(ask("a", v4).leaving("198.51.100.0", "198.51.100.1"), "198.51.100.2@public"),
			allocate(ask("a", v4).leaving("198.51.100.0", "198.51.100.1"), "198.51.100.2@public"),
			allocate(ask("b", v4), "198.51.100.0@public"), // by those who want to leave it
			release("b", "198.51.100.0"),
			refuse(ask("c", v4).leaving("198.51.100.0", "198.51.100.1", "198.51.100.3"), ipam.ErrExhausted, ""),
			allocate(ask("c", v4).leaving("198.51.100.0").exactly("198.51.100.0"), "198.51.100.0@public"), // what is asked for is
			allocate(ask("d", v6).leaving("2001:db8::", "2001:db8::"), "2001:db8::1@public"),
		},
		"a pool without end remembers some of those that it gave": {
			pools(lru(pool("lan", "2001:db8::/64"))),
			comeAndGo(v6, 1<<16),
			allocate(ask("a", v6), "2001:db8::@lan"),
			allocate(ask("b", v6), "2001:db8::1:0@lan"),
			release("b", "2001:db8::1:0"),
			allocate(ask("b", v6), "2001:db8::1@lan"),
		},
	})
}

// comeAndGo has this many Services come, each after the one before is gone.
func comeAndGo(f ipam.Family, n int) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		for range n {
			got, err := a.Allocate(ipam.Request(ask("guest", f)))
			if err != nil || !a.Release(got[0].Address, got[0].Owner) {
				t.Fatal(got, err)
			}
		}
	}
}
