package ipam_test

import (
	"net/netip"
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
			allocate(ask("b", v4), "198.51.100.0@public"), // by owners that want to leave it
			release("b", "198.51.100.0"),
			refuse(ask("c", v4).leaving("198.51.100.0", "198.51.100.1", "198.51.100.3"), ipam.ErrExhausted, ""),
			allocate(ask("c", v4).leaving("198.51.100.0").exactly("198.51.100.0"), "198.51.100.0@public"), // what an owner asks for is
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
		"an address that was just freed is the last to come back": {
			pools(lru(public)),
			allocate(ask("a", v4), "198.51.100.0@public"),
			release("a", "198.51.100.0"),
			allocate(ask("b", v4), "198.51.100.1@public"),
			allocate(ask("c", v4), "198.51.100.2@public"),
			release("c", "198.51.100.2"),
			release("b", "198.51.100.1"),
			allocate(ask("d", v4), "198.51.100.3@public"),
			allocate(ask("e", v4), "198.51.100.0@public"), // free for the longest time
			allocate(ask("f", v4), "198.51.100.2@public"),
			allocate(ask("g", v4), "198.51.100.1@public"),
			refuse(ask("h", v4), ipam.ErrExhausted, ""),
		},
		"it waits while pools change": {
			pools(lru(public)),
			allocate(ask("a", v4), "198.51.100.0@public"),
			release("a", "198.51.100.0"),
			pools(pool("other", "203.0.113.0"), lru(public)),
			allocate(ask("b", v4).from("public"), "198.51.100.1@public"),
			allocate(ask("c", v4).from("public"), "198.51.100.2@public"),
			release("b", "198.51.100.1"),
			pools(lru(pool("renamed", "198.51.100.0/30"))),
			allocate(ask("d", v4), "198.51.100.3@renamed"),
			allocate(ask("e", v4), "198.51.100.0@renamed"),
			allocate(ask("f", v4), "198.51.100.1@renamed"),
		},
		"new addresses of a pool come before those that waited": {
			pools(lru(pool("p", "198.51.100.4/31"))),
			allocate(ask("a", v4), "198.51.100.4@p"),
			release("a", "198.51.100.4"),
			pools(lru(pool("p", "198.51.100.2-198.51.100.6"))),
			allocate(ask("b", v4), "198.51.100.5@p"), // onward from where it was, and around
			allocate(ask("c", v4), "198.51.100.6@p"),
			allocate(ask("d", v4), "198.51.100.2@p"),
			allocate(ask("e", v4), "198.51.100.3@p"),
			allocate(ask("f", v4), "198.51.100.4@p"),
		},
		"a pool that is narrowed away from where it was begins anew": {
			pools(lru(pool("p", "198.51.100.0/29"))),
			allocate(ask("a", v4).exactly("198.51.100.0"), "198.51.100.0@p"),
			resume("198.51.100.5"),
			allocate(ask("b", v4), "198.51.100.6@p"),
			release("a", "198.51.100.0"),
			pools(lru(pool("p", "198.51.100.0/31"))).displacing("198.51.100.6@p"),
			allocate(ask("c", v4), "198.51.100.1@p"),
			allocate(ask("d", v4), "198.51.100.0@p"),
		},
		"a pool goes on after its youngest record when it starts": {
			pools(lru(public)),
			restore("a", "198.51.100.3@public"),
			restore("b", "198.51.100.1@public"),
			resume("198.51.100.3"),
			resume("198.51.100.1"), // the younger record
			resume("203.0.113.1"),  // in no pool
			allocate(ask("c", v4), "198.51.100.2@public"),
			allocate(ask("d", v4), "198.51.100.0@public"),
			refuse(ask("e", v4), ipam.ErrExhausted, ""),
		},
		"the lowest is given whatever was given last": {
			pools(public),
			restore("a", "198.51.100.1@public"),
			resume("198.51.100.1"),
			allocate(ask("b", v4), "198.51.100.0@public"),
		},
		"a pool may change its order": {
			pools(public),
			allocate(ask("a", v4), "198.51.100.0@public"),
			allocate(ask("b", v4), "198.51.100.1@public"),
			release("a", "198.51.100.0"),
			pools(lru(public)),
			allocate(ask("c", v4), "198.51.100.2@public"), // onward from where it was
			release("c", "198.51.100.2"),
			pools(public), // and no address waits
			allocate(ask("d", v4), "198.51.100.0@public"),
			allocate(ask("e", v4), "198.51.100.2@public"),
		},
		"shared with others, it is free when the last has left": {
			pools(lru(public)),
			allocate(ask("a", v4).sharing("k"), "198.51.100.0@public"),
			allocate(ask("b", v4).sharing("k"), "198.51.100.0@public"),
			allocate(ask("c", v4), "198.51.100.1@public"),
			release("a", "198.51.100.0"),
			release("c", "198.51.100.1"),
			release("b", "198.51.100.0"),
			allocate(ask("d", v4).exactly("198.51.100.2"), "198.51.100.2@public"),
			allocate(ask("e", v4), "198.51.100.3@public"),
			allocate(ask("f", v4), "198.51.100.1@public"),
			allocate(ask("g", v4), "198.51.100.0@public"),
		},
	})
}

// comeAndGo allocates and releases for this many Services, one after the other.
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

func resume(addr string) step {
	return func(t *testing.T, a *ipam.Allocator) { t.Helper(); a.Resume(netip.MustParseAddr(addr)) }
}
