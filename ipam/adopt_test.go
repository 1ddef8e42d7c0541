package ipam_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/heraldlb/herald/ipam"
)

func TestAdopt(t *testing.T) {
	const v4 = ipam.IPv4
	public := pool("public", "198.51.100.0/29")
	tell(t, map[string]story{
		"what a Service brings along is kept": {
			pools(public),
			adopt(ask("a", v4).several(3), "198.51.100.5", "198.51.100.3", "198.51.100.4"),
			allocate(ask("a", v4).several(3), "198.51.100.5@public", "198.51.100.3@public", "198.51.100.4@public"),
			allocate(ask("a", v4).several(2), "198.51.100.5@public", "198.51.100.3@public"),
		},
		"an address that is not for the namespace is not adopted": {
			pools(only(public, "blue")),
			adopt(ask("a", v4).in("red"), "198.51.100.5"),
			adopt(ask("a", v4).in("red").exactly("198.51.100.5"), "198.51.100.5"),
			heldBy("red/a"),
			adopt(ask("a", v4).in("blue"), "198.51.100.5"),
			heldBy("blue/a", "198.51.100.5@public"),
		},
		"an address of a pool that does not auto-assign has to be asked for, or its pool": {
			pools(onRequest(public)),
			adopt(ask("a", v4), "198.51.100.5"),
			held("a"),
			adopt(ask("a", v4).from("public"), "198.51.100.5"),
			adopt(ask("b", v4).exactly("198.51.100.6"), "198.51.100.6"),
			adopt(ask("c", v4).exactly("198.51.100.7"), "198.51.100.1"),
			held("a", "198.51.100.5@public"), held("b", "198.51.100.6@public"), held("c"),
		},
		"a pool is named, and it is another": {
			pools(public, pool("other", "203.0.113.0/30")),
			adopt(ask("a", v4).from("other"), "198.51.100.5"),
			held("a"),
		},
		"a quota holds": {
			pools(quota(public, v4, 1)),
			adopt(ask("a", v4).in("red"), "198.51.100.5"),
			adopt(ask("b", v4).in("red"), "198.51.100.6"),
			adopt(ask("c", v4).in("blue").limited(v4, 0), "198.51.100.7"),
			adopt(ask("a", v4).in("red").several(2), "198.51.100.5", "198.51.100.6"), // It keeps its addresses.
			heldBy("red/a", "198.51.100.5@public"), heldBy("red/b"), heldBy("blue/c"),
		},
		"a closed pool keeps what is in use": {
			pools(closed(public)),
			adopt(ask("a", v4), "198.51.100.5"),
			adopt(ask("b", v4).exactly("198.51.100.6"), "198.51.100.6"),
			held("a", "198.51.100.5@public"), held("b", "198.51.100.6@public"),
			allocate(ask("b", v4).exactly("198.51.100.6"), "198.51.100.6@public"),
			refuse(ask("c", v4).exactly("198.51.100.7"), ipam.ErrNoPool, ""),
			pools(closed(only(public, "blue"))), // The other rules still apply.
			adopt(ask("d", v4).in("red"), "198.51.100.7"),
			heldBy("red/d"),
		},
		"what is reserved for the name is adopted whatever the pool says": {
			pools(only(closed(onRequest(public)), "blue")),
			restoredFor(tenant("~red/a"), "198.51.100.5@public"),
			adopt(ask("a", v4).in("red").limited(v4, 0), "198.51.100.5"),
			heldBy("red/a", "198.51.100.5@public"), heldBy("~red/a"),
		},
		"what another holds stays there": {
			pools(public),
			restore("b", "198.51.100.5@public"),
			adopt(ask("a", v4), "198.51.100.5"),
			held("a"), holders("198.51.100.5", "b"),
		},
		"a skipped address is not adopted": {
			pools(public),
			skip("198.51.100.5"),
			adopt(ask("a", v4), "198.51.100.5"),
			held("a"),
		},
		"an address in no pool stops the Service": {
			pools(public),
			refuseAdopt(ask("a", v4), "203.0.113.1", ipam.ErrNotInPool),
			adopt(ask("a", v4).leaving("203.0.113.1"), "203.0.113.1"),
			allocate(ask("a", v4), "198.51.100.0@public"),
			adopt(ask("a", v4), "203.0.113.1"), // It already has one.
		},
		"of what it holds, the owner prefers what it carries": {
			pools(public),
			restore("a", "198.51.100.5@public"),
			restore("a", "198.51.100.6@public"),
			adopt(ask("a", v4), "198.51.100.5"),
			allocate(ask("a", v4), "198.51.100.5@public"),
		},
	})
}

func adopt(r request, carried ...string) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		var all []netip.Addr
		for _, addr := range carried {
			all = append(all, netip.MustParseAddr(addr))
		}
		if err := a.Adopt(ipam.Request(r), all); err != nil {
			t.Fatal(err)
		}
	}
}

func refuseAdopt(r request, carried string, reason error) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		if err := a.Adopt(ipam.Request(r), []netip.Addr{netip.MustParseAddr(carried)}); !errors.Is(err, reason) {
			t.Fatalf("Adopt(%s) = %v, want %v", carried, err, reason)
		}
	}
}
