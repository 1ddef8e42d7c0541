package ipam_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/heraldlb/herald/ipam"
	"pgregory.net/rapid"
)

func TestQuotas(t *testing.T) {
	const v4, v6 = ipam.IPv4, ipam.IPv6
	public := pool("public", "198.51.100.0/30", "2001:db8::/126")
	tell(t, map[string]story{
		"what is counted for another namespace does not make room in this one": {
			pools(public),
			allocate(ask("a", v4).in("red").limited(v4, 1), "198.51.100.0@public"),
			restoreOn(ipam.Sharing{}, "blue/web", "198.51.100.1@public"),
			refuse(ask("web", v4).in("red").limited(v4, 1).leaving("198.51.100.1"), ipam.ErrQuota, "quota exceeded: IPv4, 1 of 1, no room"),
		},
		"a quota of a pool": {
			pools(quota(public, v4, 2), pool("rest", "203.0.113.0/30")),
			allocate(ask("a", v4).in("red").from("public"), "198.51.100.0@public"),
			allocate(ask("b", v4).in("red").from("public"), "198.51.100.1@public"),
			refuse(ask("c", v4).in("red").from("public"), ipam.ErrQuota, `quota exceeded: IPv4, pool "public", 2 of 2, no room`),
			refuse(ask("c", v4).in("red").exactly("198.51.100.2"), ipam.ErrQuota, `quota exceeded: IPv4, pool "public", 2 of 2, no room`),
			allocate(ask("c", v4).in("red"), "203.0.113.0@rest"), // The next pool has no quota.
			allocate(ask("d", v4).in("blue"), "198.51.100.2@public"),
			uses("public", "red", v4, 2), uses("", "red", v4, 3), uses("public", "blue", v4, 1),
			allocate(ask("a", v4).in("red").from("public"), "198.51.100.0@public"), // What is held does not count again,
			pools(quota(public, v4, 0), pool("rest", "203.0.113.0/30")),
			allocate(ask("a", v4).in("red"), "198.51.100.0@public"), // whatever the quota is.
		},
		"a quota of a namespace": {
			pools(public),
			allocate(ask("a", v4).in("red").limited(v4, 1), "198.51.100.0@public"),
			refuse(ask("b", v4).in("red").limited(v4, 1), ipam.ErrQuota, "quota exceeded: IPv4, 1 of 1, no room"),
			allocate(ask("b", v6).in("red").limited(v4, 1), "2001:db8::@public"),
			allocate(ask("c", v4, v6).in("red").limited(v4, 1).preferring(), "2001:db8::1@public"),
			refuse(ask("d", v4, v6).in("red").limited(v4, 1), ipam.ErrQuota, "quota exceeded: IPv4, 1 of 1, no room"),
			heldBy("red/d"),
			allocate(ask("b", v4).in("blue").limited(v4, 1), "198.51.100.1@public"),
		},
		"dual stack from one pool has a quota for each family": {
			pools(quota(public, v6, 1), pool("rest", "203.0.113.0/30", "2001:db8:1::/126")),
			allocate(ask("a", v4, v6).in("red"), "198.51.100.0@public", "2001:db8::@public"),
			allocate(ask("b", v4, v6).in("red"), "203.0.113.0@rest", "2001:db8:1::@rest"), // one pool for both
			refuse(ask("c", v4, v6).in("red").from("public"), ipam.ErrQuota, `quota exceeded: IPv6, pool "public", 1 of 1, no room`),
			allocate(ask("c", v4, v6).in("red").from("public").preferring(), "198.51.100.1@public"),
		},
		"a shared address counts once for each namespace": {
			pools(across(public)),
			allocate(ask("a", v4).in("red").sharing("k", "TCP/80").limited(v4, 1), "198.51.100.0@public"),
			allocate(ask("b", v4).in("red").sharing("k", "TCP/81").limited(v4, 1), "198.51.100.0@public"),
			refuse(ask("c", v4).in("blue").sharing("k", "TCP/82").limited(v4, 0), ipam.ErrQuota, "quota exceeded: IPv4, 0 of 0, no room"),
			allocate(ask("c", v4).in("blue").sharing("k", "TCP/82").limited(v4, 1), "198.51.100.0@public"),
			uses("", "red", v4, 1), uses("", "blue", v4, 1),
			released(tenant("red/a"), "198.51.100.0", true),
			uses("", "red", v4, 1),
			released(tenant("red/b"), "198.51.100.0", true),
			uses("", "red", v4, 0), uses("public", "blue", v4, 1),
		},
		"a move costs nothing, unless others stay behind": {
			pools(public),
			allocate(ask("a", v4).in("red").sharing("k", "TCP/80").limited(v4, 1), "198.51.100.0@public"),
			allocate(ask("a", v4).in("red").sharing("k", "TCP/80").limited(v4, 1).leaving("198.51.100.0"), "198.51.100.1@public"),
			released(tenant("red/a"), "198.51.100.0", true),
			allocate(ask("b", v4).in("red").sharing("k", "TCP/81").limited(v4, 1), "198.51.100.1@public"),
			refuse(ask("b", v4).in("red").sharing("k", "TCP/81").limited(v4, 1).leaving("198.51.100.1"), ipam.ErrQuota, "quota exceeded: IPv4, 1 of 1, no room"),
			heldBy("red/b", "198.51.100.1@public"),
		},
		"a move has to be finished before the next": {
			pools(public),
			allocate(ask("a", v4).in("red").limited(v4, 2), "198.51.100.0@public"),
			allocate(ask("a", v4).in("red").limited(v4, 2).exactly("198.51.100.1"), "198.51.100.1@public"), // within the limit
			refuse(ask("a", v4).in("red").limited(v4, 2).exactly("198.51.100.2"), ipam.ErrQuota, ""),
			released(tenant("red/a"), "198.51.100.0", true),
			allocate(ask("b", v4).in("red").limited(v4, 2), "198.51.100.0@public"),
			allocate(ask("a", v4).in("red").limited(v4, 2).exactly("198.51.100.2"), "198.51.100.2@public"), // one more than the limit
			refuse(ask("b", v4).in("red").limited(v4, 2).exactly("198.51.100.3"), ipam.ErrQuota, ""),
			uses("", "red", v4, 3),
		},
		"an address that was left counts until it is free": {
			pools(quota(public, v4, 1)),
			allocate(ask("a", v4).in("red"), "198.51.100.0@public"),
			allocate(ask("a", v4).in("red").leaving("198.51.100.0"), "198.51.100.1@public"),
			replace("198.51.100.0@public", []ipam.Tenant{{Owner: tenant("~red/a")}}, "red/a"), // It cools down.
			refuse(ask("a", v4).in("red").leaving("198.51.100.0", "198.51.100.1"), ipam.ErrQuota, ""),
			heldBy("red/a", "198.51.100.1@public"),
			released(tenant("~red/a"), "198.51.100.0", true),
			allocate(ask("a", v4).in("red").leaving("198.51.100.1"), "198.51.100.0@public"),
		},
		"a move into another pool costs there": {
			pools(public, quota(pool("scarce", "203.0.113.0/30"), v4, 1)),
			allocate(ask("a", v4).in("red").from("scarce"), "203.0.113.0@scarce"),
			allocate(ask("b", v4).in("red").from("public"), "198.51.100.0@public"),
			refuse(ask("b", v4).in("red").from("scarce"), ipam.ErrQuota, `quota exceeded: IPv4, pool "scarce", 1 of 1, no room`),
			allocate(ask("a", v4).in("red").from("scarce").leaving("203.0.113.0"), "203.0.113.1@scarce"),
		},
		"what is reserved counts, and costs nothing when it finds its Service": {
			pools(public),
			restoredFor(tenant("~red/web"), "198.51.100.0@public"),
			refuse(ask("db", v4).in("red").limited(v4, 1), ipam.ErrQuota, "quota exceeded: IPv4, 1 of 1, no room"),
			allocate(ask("web", v4).in("red").limited(v4, 1), "198.51.100.0@public"),
			uses("", "red", v4, 1),
		},
		"why none of several pools": {
			pools(pool("full", "192.0.2.0"), quota(public, v4, 0)),
			restore("other", "192.0.2.0@full"),
			refuse(ask("a", v4).in("red"), ipam.ErrQuota, `quota exceeded: IPv4, pool "public", 0 of 0, no room`),
			explained(ask("a", v4).in("red"), `full: no free address: IPv4, pool "full", none is free`,
				`public: quota exceeded: IPv4, pool "public", 0 of 0, no room`),
			pools(closed(pool("full", "192.0.2.0")), only(onRequest(pool("quiet", "203.0.113.0")), "blue"), first(public)),
			explained(ask("a", v4).in("red"), "public has 4 of 4", `full: no pool: IPv4, pool "full", it is closed`,
				`quiet: no pool: IPv4, pool "quiet", it does not auto-assign`),
			explained(ask("a", v6).from("quiet").in("blue"), `public: no pool: IPv6, pool "public", another pool`,
				`full: no pool: IPv6, pool "full", another pool`, `quiet: no pool: IPv6, pool "quiet", it has no addresses of the family`),
		},
	})
}

// TestMovesHoldToQuotas has Services that come, move and go. What they left cools down for a while, under their names.
// However often they move, the namespace holds no more than its limits, plus one moving address of each family.
func TestMovesHoldToQuotas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const room = 32
		a := ipam.New()
		p, limit := pool("public", "198.51.100.0/27"), rapid.Uint64Range(1, 4).Draw(t, "limit")
		limits := ipam.Limits{ipam.IPv4: limit}
		var total ipam.Limits
		if rapid.Bool().Draw(t, "of the pool") {
			p.Quota = limits
		} else {
			total = limits
		}
		a.SetPools([]ipam.Pool{p})
		left := map[netip.Addr]ipam.Owner{} // and not yet released
		var cooling []ipam.Allocation
		t.Repeat(map[string]func(*rapid.T){
			"ask": func(t *rapid.T) {
				r := ask(draw(t, "owner", []string{"a", "b", "c", "d"}), ipam.IPv4).in("red")
				r.Quota = total
				switch draw(t, "how", []string{"any", "leave", "exactly"}) {
				case "leave":
					for _, al := range a.HeldBy(r.Owner) {
						r.Leave = append(r.Leave, al.Address)
					}
				case "exactly":
					r.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, byte(rapid.IntRange(0, room-1).Draw(t, "address"))})}
				}
				before := a.Use("", "red", ipam.IPv4)
				given, err := a.Allocate(ipam.Request(r))
				if err != nil {
					return
				}
				if after := a.Use("", "red", ipam.IPv4); before > limit && after > before {
					t.Fatalf("the namespace was beyond its limit with %d, and has %d", before, after)
				}
				for _, old := range a.Superfluous(r.Owner, given) {
					left[old.Address] = r.Owner
				}
			},
			"leave": func(t *rapid.T) {
				for addr, o := range left {
					if !slices.ContainsFunc(a.Holders(addr), func(al ipam.Allocation) bool { return al.Owner == o }) || len(a.HeldBy(o)) == 1 {
						continue
					}
					if _, err := a.Replace(addr, "public", []ipam.Tenant{{Owner: o.Reservation()}}); err != nil {
						t.Fatal(err)
					}
					cooling = append(cooling, ipam.Allocation{Address: addr, Owner: o.Reservation()})
				}
				clear(left)
			},
			"cool": func(*rapid.T) {
				for _, al := range cooling {
					a.Release(al.Address, al.Owner)
				}
				cooling = nil
			},
			"": func(t *rapid.T) {
				if use := a.Use("", "red", ipam.IPv4); use > limit+1 {
					t.Fatalf("the namespace holds %d addresses, its limit is %d", use, limit)
				}
			},
		})
	})
}

func quota(p ipam.Pool, f ipam.Family, limit uint64) ipam.Pool {
	p.Quota = ipam.Limits{f: limit}
	return p
}

// explained checks what each pool says to a request, written pool: why not, or pool fits: what it has.
func explained(r request, want ...string) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		var got []string
		for _, v := range a.Explain(ipam.Request(r)) {
			text := fmt.Sprintf("%s has %d of %d", v.Pool, v.Free, v.Capacity)
			if v.Refused != nil {
				text = v.Pool + ": " + v.Refused.Error()
			}
			got = append(got, text)
		}
		same(t, "explained to "+r.Owner.String(), got, want)
	}
}
