package ipam_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/heraldlb/herald/ipam"
)

func skip(addresses ...string) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		all := map[netip.Addr]string{}
		for _, addr := range addresses {
			all[netip.MustParseAddr(addr)] = "of node n1"
		}
		a.Skip(all)
	}
}

func TestSkip(t *testing.T) {
	const v4 = ipam.IPv4
	public := pool("public", "198.51.100.0/30")
	tell(t, map[string]story{
		"a skipped address is not given": {
			skip("198.51.100.0", "203.0.113.9", "::ffff:198.51.100.2"), // an address in no pool, and one in another notation
			pools(public),
			usage("public", v4, ipam.Usage{Capacity: 4, Skipped: 2, Available: 2}),
			allocate(ask("a", v4), "198.51.100.1@public"),
			allocate(ask("b", v4), "198.51.100.3@public"),
			refuse(ask("c", v4), ipam.ErrExhausted, ""),
			refuse(ask("c", v4).exactly("198.51.100.2"), ipam.ErrSkipped, ""),
			skip("198.51.100.0"),
			allocate(ask("c", v4).exactly("198.51.100.2"), "198.51.100.2@public"),
			skip(),
			allocate(ask("d", v4), "198.51.100.0@public"),
		},
		"what is held stays held": {
			pools(lru(public)),
			allocate(ask("a", v4).sharing("k"), "198.51.100.0@public"),
			skip("198.51.100.0"),
			usage("public", v4, ipam.Usage{Capacity: 4, Assigned: 1, Available: 3}),
			displaced(),
			allocate(ask("a", v4).sharing("k"), "198.51.100.0@public"),
			allocate(ask("b", v4).sharing("k"), "198.51.100.1@public"), // and no other owner joins it
			pools(lru(public)),
			usage("public", v4, ipam.Usage{Capacity: 4, Assigned: 2, Available: 2}),
			release("a", "198.51.100.0"),
			usage("public", v4, ipam.Usage{Capacity: 4, Assigned: 1, Skipped: 1, Available: 2}),
			allocate(ask("c", v4), "198.51.100.2@public"),
			allocate(ask("d", v4), "198.51.100.3@public"),
			refuse(ask("e", v4), ipam.ErrExhausted, ""),
			skip(),
			allocate(ask("e", v4), "198.51.100.0@public"),
		},
		"a reservation does not help": {
			pools(public),
			reserve("a", "198.51.100.0@public"),
			skip("198.51.100.0"),
			refuse(ask("a", v4).exactly("198.51.100.0"), ipam.ErrSkipped, ""),
			allocate(ask("a", v4), "198.51.100.1@public"),
			forget("a", "198.51.100.0"),
			allocate(ask("b", v4), "198.51.100.2@public"),
		},
		"one that waits to be given again waits longer": {
			pools(lru(public)),
			allocate(ask("a", v4), "198.51.100.0@public"),
			release("a", "198.51.100.0"),
			skip("198.51.100.0"),
			allocate(ask("b", v4), "198.51.100.1@public"),
			release("b", "198.51.100.1"),
			skip(),
			allocate(ask("c", v4), "198.51.100.2@public"),
			allocate(ask("d", v4), "198.51.100.3@public"),
			allocate(ask("e", v4), "198.51.100.1@public"),
			allocate(ask("f", v4), "198.51.100.0@public"),
		},
	})
}

func TestSkippedSaysWhy(t *testing.T) {
	a := ipam.New()
	a.SetPools([]ipam.Pool{pool("public", "198.51.100.0/30")})
	skip("198.51.100.0")(t, a)
	_, err := a.Allocate(ipam.Request(ask("a", ipam.IPv4).exactly("198.51.100.0")))
	if refused, ok := errors.AsType[*ipam.Error](err); !ok || refused.Word != "of node n1" || refused.Address != netip.MustParseAddr("198.51.100.0") {
		t.Fatalf("refused with %#v", err)
	}
}

// BenchmarkSkip replaces the set of skipped addresses in pools of very different sizes.
func BenchmarkSkip(b *testing.B) {
	for _, prefix := range []string{"198.18.0.0/24", "198.18.0.0/15"} {
		b.Run(fmt.Sprint("pool=", netip.MustParsePrefix(prefix).Bits()), func(b *testing.B) {
			a := ipam.New()
			a.SetPools([]ipam.Pool{pool("p", prefix)})
			var sets [2]map[netip.Addr]string
			for i := range sets {
				sets[i] = map[netip.Addr]string{}
				for n := range 100 {
					sets[i][netip.AddrFrom4([4]byte{198, 18, 0, byte(100*i + n)})] = "node"
				}
			}
			for n := 0; b.Loop(); n++ {
				a.Skip(sets[n%2])
			}
		})
	}
}
