package ipam_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/heraldlb/herald/ipam"
)

func byGrant(p ipam.Pool) ipam.Pool { p.Granted = true; return p }

// granted adds grants of the form address@pool.
func (r request) granted(pool string, addresses ...string) request {
	for _, addr := range addresses {
		r.Granted = append(slices.Clip(r.Granted), ipam.Grant{Address: netip.MustParseAddr(addr), Pool: pool})
	}
	return r
}

// claimed adds claims for others of the namespace, each with the address that was granted for it or with an empty string.
func (r request) claimed(pool string, addresses ...string) request {
	for _, text := range addresses {
		addr, _ := netip.ParseAddr(text)
		r.Claimed = append(slices.Clip(r.Claimed), ipam.Claimed{Pool: pool, Family: ipam.IPv4, Address: addr})
	}
	return r
}

// wants checks what a request needs from granted pools.
func wants(r request, want ...ipam.Want) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		if diff := cmp.Diff(want, a.Wants(ipam.Request(r))); diff != "" {
			t.Errorf("%s wants (-want +got):\n%s", r.Owner.Name, diff)
		}
	}
}

// refusesGrant checks why an owner cannot get an address that was granted to it.
func refusesGrant(r request, pool, addr string, cause ipam.Cause) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		got := ipam.Unspecified
		if e := a.Refused(ipam.Request(r), ipam.Grant{Address: netip.MustParseAddr(addr), Pool: pool}); e != nil {
			got = e.Cause
		}
		if got != cause {
			t.Errorf("a grant of %s for %s is refused because %q, want %q", addr, r.Owner.Name, got, cause)
		}
	}
}

func TestGrants(t *testing.T) {
	const v4, v6 = ipam.IPv4, ipam.IPv6
	lent := byGrant(first(pool("lent", "198.51.100.0/29", "2001:db8::/125")))
	rest := pool("rest", "203.0.113.0/29", "2001:db8:1::/125")
	tell(t, map[string]story{
		"only the owner of a grant gets the address": {
			pools(lent),
			refuse(ask("a", v4), ipam.ErrNotGranted, ""),
			wants(ask("a", v4), ipam.Want{Pool: "lent", Family: v4, Count: 1}),
			refuse(ask("b", v4).exactly("198.51.100.5"), ipam.ErrNotGranted, ""),
			allocate(ask("a", v4).granted("lent", "198.51.100.5"), "198.51.100.5@lent"),
			allocate(ask("a", v4), "198.51.100.5@lent"), // The owner keeps it, whatever becomes of the grant.
			wants(ask("a", v4)),
			refuse(ask("b", v4).granted("lent", "198.51.100.5"), ipam.ErrNotGranted, ""),
			refusesGrant(ask("b", v4), "lent", "198.51.100.5", ipam.AnotherHolder),
		},
		"an owner waits, and does not get an address of the next pool": {
			pools(lent, rest),
			refuse(ask("a", v4), ipam.ErrNotGranted, ""),
			allocate(ask("a", v4).from("rest"), "203.0.113.0@rest"),
			wants(ask("a", v4).from("lent"), ipam.Want{Pool: "lent", Family: v4, Count: 1}),
			refuse(ask("a", v4).from("lent"), ipam.ErrNotGranted, ""), // It keeps the other one meanwhile.
			allocate(ask("a", v4).from("rest"), "203.0.113.0@rest"),
		},
		"a grant that cannot be used has no effect": {
			pools(lent, rest),
			skip("198.51.100.1"),
			refusesGrant(ask("a", v4), "lent", "198.51.100.1", ipam.IsSkipped),
			refusesGrant(ask("a", v4), "lent", "203.0.113.1", ipam.AnotherPool),
			refusesGrant(ask("a", v4), "lent", "192.0.2.1", ipam.InNoPool),
			refusesGrant(ask("a", v4).leaving("198.51.100.2"), "lent", "198.51.100.2", ipam.ToBeLeft),
			refuse(ask("a", v4).granted("lent", "198.51.100.1", "203.0.113.1", "192.0.2.1"), ipam.ErrNotGranted, ""),
			refuse(ask("a", v4).granted("other", "198.51.100.3"), ipam.ErrNotGranted, ""),
			allocate(ask("a", v4).granted("lent", "198.51.100.1", "198.51.100.3"), "198.51.100.3@lent"),
		},
		"one family is enough for an owner that only prefers both": {
			pools(lent),
			allocate(ask("a", v4, v6).preferring().granted("lent", "2001:db8::3"), "2001:db8::3@lent"),
			wants(ask("a", v4, v6).preferring(), ipam.Want{Pool: "lent", Family: v4, Count: 1}),
			refuse(ask("b", v4, v6).granted("lent", "2001:db8::4"), ipam.ErrNotGranted, ""),
			wants(ask("b", v4, v6), ipam.Want{Pool: "lent", Family: v4, Count: 1}, ipam.Want{Pool: "lent", Family: v6, Count: 1}),
		},
		"nothing is wanted for a request that cannot be served": {
			pools(byGrant(pool("lent", "198.51.100.0/29"))),
			refuse(ask("a", v4, v6), ipam.ErrNoPool, ""),
			wants(ask("a", v4, v6)),
			refuse(ask("a", v4).limited(v4, 0), ipam.ErrQuota, ""),
			wants(ask("a", v4).limited(v4, 0)),
		},
		"what was claimed for others of the namespace counts in quotas": {
			pools(quota(lent, v4, 2), rest),
			wants(ask("a", v4).in("red").claimed("lent", ""), ipam.Want{Pool: "lent", Family: v4, Count: 1}),
			allocate(ask("a", v4).in("red").claimed("lent", "", ""), "203.0.113.0@rest"), // the next pool
			refuse(ask("b", v4).in("red").from("lent").claimed("lent", "", ""), ipam.ErrQuota, `quota exceeded: IPv4, pool "lent", 2 of 2, no room`),
			wants(ask("b", v4).in("red").from("lent").claimed("lent", "", "")),
			wants(ask("b", v4).in("red").from("lent").claimed("rest", "", ""), ipam.Want{Pool: "lent", Family: v4, Count: 1}),
			wants(ask("b", v4).in("red").from("lent").claimed("lent", "").limited(v4, 2)),
			wants(ask("b", v4).in("red").from("lent").claimed("lent", "").limited(v4, 3), ipam.Want{Pool: "lent", Family: v4, Count: 1}),
			allocate(ask("c", v4).in("red").from("lent").granted("lent", "198.51.100.5"), "198.51.100.5@lent"),
			wants(ask("d", v4).in("red").from("lent").claimed("lent", "198.51.100.5"), ipam.Want{Pool: "lent", Family: v4, Count: 1}), // It is held, and counts once.
			wants(ask("d", v4).in("red").from("lent").claimed("lent", "198.51.100.6")),
		},
		"an address that is shared or reserved needs no grant": {
			pools(lent),
			allocate(ask("a", v4).sharing("k", "TCP/80").granted("lent", "198.51.100.5"), "198.51.100.5@lent"),
			wants(ask("b", v4).sharing("k", "TCP/443")),
			allocate(ask("b", v4).sharing("k", "TCP/443"), "198.51.100.5@lent"),
			reserve("c", "198.51.100.6@lent"),
			wants(ask("c", v4)),
			allocate(ask("c", v4), "198.51.100.6@lent"),
		},
	})
}

func TestARefusalSaysForWhatAnOwnerWaits(t *testing.T) {
	a := ipam.New()
	a.SetPools([]ipam.Pool{byGrant(pool("lent", "198.51.100.0/29"))})
	_, err := a.Allocate(ipam.Request(ask("a", ipam.IPv4)))
	e, ok := errors.AsType[*ipam.Error](err)
	if !ok || e.Pool != "lent" || e.Wanted != 1 || e.Cause != ipam.NotGrantedYet || e.Family != ipam.IPv4 {
		t.Errorf("%+v", err)
	}
	if text := "not granted: IPv4, pool \"lent\", it is not granted yet"; err.Error() != text {
		t.Errorf("%q, want %q", err, text)
	}
}
