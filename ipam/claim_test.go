package ipam_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/heraldlb/herald/ipam"
)

// claim makes the owner of a request claim an address that an allocator of the class "gw" gave it. want is the address with
// its pool, or what the error says.
func claim(r request, addr, want string) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		r.Class = "gw"
		before := len(a.HeldBy(r.Owner))
		al, err := a.Claim(ipam.Request(r), netip.MustParseAddr(addr))
		got := al.Address.String() + "@" + al.Pool
		if err != nil {
			got = err.Error()
			if refused, ok := errors.AsType[*ipam.Error](err); !ok || refused.Reason == nil || len(a.HeldBy(r.Owner)) != before {
				t.Errorf("%v, and the owner holds %v, which were %d", err, a.HeldBy(r.Owner), before)
			}
		}
		if !strings.Contains(got, want) {
			t.Fatalf("claiming %s for %s: %s, want %s", addr, r.Owner, got, want)
		}
	}
}

func TestClaim(t *testing.T) {
	const v4 = ipam.IPv4
	public := pool("public", "198.51.100.0/30")
	admitting := public
	admitting.Classes = []string{"gw"}
	limited := admitting
	limited.Quota = ipam.Limits{v4: 1}
	gw := ask("gw", v4).exactly("198.51.100.2")
	moved := ask("gw", v4).exactly("198.51.100.1")
	tell(t, map[string]story{
		"only where the class is admitted": {
			pools(public),
			claim(gw, "198.51.100.2", `no pool: IPv4, pool "public", it does not admit the class`),
			holders("198.51.100.2"),
			pools(admitting),
			claim(gw, "198.51.100.2", "198.51.100.2@public"),
			claim(gw, "198.51.100.2", "198.51.100.2@public"),
			holders("198.51.100.2", "gw"),
			pools(public),
			claim(gw, "198.51.100.2", "it does not admit the class"),
			pools(),
			claim(gw, "198.51.100.2", "it is in no pool"),
		},
		"a closed pool keeps what is held": {
			pools(admitting),
			claim(gw, "198.51.100.2", "198.51.100.2@public"),
			pools(closed(admitting)),
			claim(gw, "198.51.100.2", "198.51.100.2@public"),
			claim(ask("other", v4).exactly("198.51.100.3"), "198.51.100.3", "it is closed"),
		},
		"a move within the quota, and no second address": {
			pools(limited),
			claim(gw, "198.51.100.2", "198.51.100.2@public"),
			claim(moved, "198.51.100.1", "198.51.100.1@public"),
			release("gw", "198.51.100.2"),
			claim(moved.exactly("198.51.100.3"), "198.51.100.3", "quota exceeded"),
		},
		"shared by those that agree": {
			pools(admitting),
			claim(gw.sharing("k", "TCP/80"), "198.51.100.2", "198.51.100.2@public"),
			claim(ask("other", v4).exactly("198.51.100.2").sharing("k", "TCP/80"), "198.51.100.2", "address is taken"),
			claim(ask("other", v4).exactly("198.51.100.2").sharing("k", "TCP/443"), "198.51.100.2", "198.51.100.2@public"),
			claim(gw.sharing("k", "TCP/443"), "198.51.100.2", "the terms have changed"),
			claim(gw.sharing("k", "TCP/81"), "198.51.100.2", "198.51.100.2@public"),
		},
		"not an address that can be written in two ways": {
			pools(admitting),
			claim(gw, "::ffff:198.51.100.2", "is an IPv4 address written as IPv6"),
		},
	})
}
