package ipam_test

import (
	"errors"
	"math"
	"net/netip"
	"testing"

	"github.com/heraldlb/herald/ipam"
	"go4.org/netipx"
)

func TestAllocator(t *testing.T) {
	const v4, v6 = ipam.IPv4, ipam.IPv6
	public := pool("public", "198.51.100.0/30", "2001:db8::/126")
	stories := map[string]story{
		"the lowest free address is given, and kept": {
			pools(public),
			allocate(ask("web", v4), "198.51.100.0@public"),
			allocate(ask("db", v4), "198.51.100.1@public"),
			allocate(ask("web", v4), "198.51.100.0@public"),
			held("web", "198.51.100.0@public"),
		},
		"a released address is the lowest free again": {
			pools(public),
			allocate(ask("a", v4), "198.51.100.0@public"),
			allocate(ask("b", v4), "198.51.100.1@public"),
			allocate(ask("c", v4), "198.51.100.2@public"),
			release("b", "198.51.100.1"),
			release("a", "198.51.100.0"),
			allocate(ask("d", v4), "198.51.100.0@public"),
			allocate(ask("e", v4), "198.51.100.1@public"),
			allocate(ask("f", v4), "198.51.100.3@public"),
		},
		"only the holder releases": {
			pools(public),
			allocate(ask("a", v4), "198.51.100.0@public"),
			releaseNothing("b", "198.51.100.0"),
			released(reservation(""), "198.51.100.0", false),
			releaseNothing("a", "198.51.100.1"),
			held("a", "198.51.100.0@public"),
		},
		"a full pool says so, and serves again after a release": {
			pools(pool("tiny", "198.51.100.7")),
			allocate(ask("a", v4), "198.51.100.7@tiny"),
			refuse(ask("b", v4), ipam.ErrExhausted, `no free address: IPv4, pool "tiny", none is free`),
			refuse(ask("b", v4).from("tiny"), ipam.ErrExhausted, `no free address: IPv4, pool "tiny", none is free`),
			release("a", "198.51.100.7"),
			allocate(ask("b", v4), "198.51.100.7@tiny"),
		},
		"ranges with a gap between them": {
			pools(pool("gaps", "198.51.100.9", "198.51.100.0-198.51.100.1")),
			allocate(ask("a", v4), "198.51.100.0@gaps"),
			allocate(ask("b", v4), "198.51.100.1@gaps"),
			allocate(ask("c", v4), "198.51.100.9@gaps"),
			refuse(ask("d", v4), ipam.ErrExhausted, ""),
		},

		"a requested address is given exactly": {
			pools(public),
			allocate(ask("a", v4).exactly("198.51.100.2"), "198.51.100.2@public"),
			allocate(ask("a", v4).exactly("198.51.100.2"), "198.51.100.2@public"),
			allocate(ask("a", v4), "198.51.100.2@public"),
			allocate(ask("b", v4), "198.51.100.0@public"),
			allocate(ask("c", v4), "198.51.100.1@public"),
			allocate(ask("d", v4), "198.51.100.3@public"),
		},
		"a requested address is taken": {
			pools(public),
			allocate(ask("web", v4), "198.51.100.0@public"),
			refuse(ask("db", v4).exactly("198.51.100.0"), ipam.ErrTaken, `address is taken: 198.51.100.0, pool "public", others are there, not shared`),
			held("db"),
		},
		"a requested address is in no pool": {
			pools(public),
			refuse(ask("a", v4).exactly("203.0.113.1"), ipam.ErrNotInPool, "address is not in the pool: 203.0.113.1, it is in no pool"),
			refuse(ask("a", v4).exactly("203.0.113.1").from("public"), ipam.ErrNotInPool, "address is not in the pool: 203.0.113.1, it is in no pool"),
		},
		"a requested address is in another pool than the one named": {
			pools(public, pool("other", "203.0.113.0/24")),
			refuse(ask("a", v4).exactly("203.0.113.1").from("public"), ipam.ErrNotInPool, "address is not in the pool: 203.0.113.1, another pool"),
			refuse(ask("a", v4).exactly("203.0.113.1").from("gone"), ipam.ErrNoPool, `no pool: IPv4, pool "gone", it is unknown`),
			allocate(ask("a", v4).exactly("203.0.113.1").from("other"), "203.0.113.1@other"),
		},
		"a request for another address is a move, made before it breaks": {
			pools(public),
			allocate(ask("a", v4), "198.51.100.0@public"),
			allocate(ask("a", v4).exactly("198.51.100.3"), "198.51.100.3@public"),
			superfluous("a", []string{"198.51.100.3@public"}, "198.51.100.0@public"),
			refuse(ask("b", v4).exactly("198.51.100.0"), ipam.ErrTaken, ""),
			allocate(ask("a", v4), "198.51.100.3@public"), // the request is withdrawn: no move back
			release("a", "198.51.100.0"),
			superfluous("a", []string{"198.51.100.3@public"}),
			allocate(ask("b", v4), "198.51.100.0@public"),
		},
		"a move taken back halfway": {
			pools(public),
			allocate(ask("a", v4), "198.51.100.0@public"),
			allocate(ask("a", v4).exactly("198.51.100.3"), "198.51.100.3@public"),
			allocate(ask("a", v4).exactly("198.51.100.0"), "198.51.100.0@public"),
			allocate(ask("a", v4), "198.51.100.0@public"),
			superfluous("a", []string{"198.51.100.0@public"}, "198.51.100.3@public"),
		},
		"a move that fails leaves the old address": {
			pools(public),
			allocate(ask("a", v4), "198.51.100.0@public"),
			refuse(ask("a", v4).exactly("203.0.113.1"), ipam.ErrNotInPool, ""),
			held("a", "198.51.100.0@public"),
		},
		"a pool serves whom it chooses, whatever the request": {
			pools(first(only(pool("red", "198.51.100.0/30"), "red")), onRequest(only(pool("blue", "203.0.113.0/30"), "blue")), pool("rest", "192.0.2.0/30")),
			allocate(ask("a", v4).of("red"), "198.51.100.0@red"),
			allocate(ask("b", v4).of("blue"), "192.0.2.0@rest"),
			allocate(ask("c", v4).of("blue").from("blue"), "203.0.113.0@blue"),
			refuse(ask("d", v4).of("red").from("blue"), ipam.ErrNoPool, `no pool: IPv4, pool "blue", it does not serve the subject`),
			refuse(ask("d", v4).of("blue").exactly("198.51.100.1"), ipam.ErrNoPool, `no pool: IPv4, pool "red", it does not serve the subject`),
			refuse(ask("d", v4).of("blue").from("red"), ipam.ErrNoPool, `no pool: IPv4, pool "red", it does not serve the subject`),
			allocate(ask("a", v4).of("blue"), "198.51.100.0@red"), // The owner keeps what it has.
		},
		"no pool serves it": {
			pools(only(pool("red", "198.51.100.0/30"), "red"), only(pool("blue", "203.0.113.0/30"), "blue")),
			refuse(ask("a", v4).of("green"), ipam.ErrNoPool, `no pool: IPv4, pool "red", pool "blue", it does not serve the subject`),
			refuse(ask("a", v6).of("red"), ipam.ErrNoPool, `no pool: IPv6, pool "red", it has no addresses of the family`),
			allocate(ask("a", v4).of("red"), "198.51.100.0@red"),
			pools(pool("red", "198.51.100.0/30")),
			allocate(ask("b", v4).of("green"), "198.51.100.1@red"),
		},
		"naming another pool is a move": {
			pools(public, pool("other", "203.0.113.0/31")),
			allocate(ask("a", v4).from("public"), "198.51.100.0@public"),
			allocate(ask("a", v4).from("other"), "203.0.113.0@other"),
			superfluous("a", []string{"203.0.113.0@other"}, "198.51.100.0@public"),
			allocate(ask("a", v4), "203.0.113.0@other"),
			allocate(ask("a", v4).from("public"), "198.51.100.0@public"), // still its own address
		},
		"naming a pool that cannot serve loses nothing": {
			pools(public, pool("v6only", "2001:db8:1::/126")),
			allocate(ask("a", v4, v6), "198.51.100.0@public", "2001:db8::@public"),
			refuse(ask("a", v4, v6).from("v6only").preferring(), ipam.ErrNoPool, `no pool: IPv4, pool "v6only", it has no addresses of the family`),
			held("a", "198.51.100.0@public", "2001:db8::@public"),
		},

		"no pool at all": {
			refuse(ask("a", v4), ipam.ErrNoPool, "no pool: IPv4, there is none"),
			refuse(ask("a", v4).from("public"), ipam.ErrNoPool, `no pool: IPv4, pool "public", it is unknown`),
		},
		"no pool auto-assigns": {
			pools(onRequest(public)),
			refuse(ask("a", v4), ipam.ErrNoPool, "no pool: IPv4, it does not auto-assign"),
			allocate(ask("a", v4).from("public"), "198.51.100.0@public"),
			allocate(ask("b", v4).exactly("198.51.100.1"), "198.51.100.1@public"),
		},
		"no pool of the family": {
			pools(pool("old", "198.51.100.0/30")),
			refuse(ask("a", v6), ipam.ErrNoPool, `no pool: IPv6, pool "old", it has no addresses of the family`),
			refuse(ask("a", v6).from("old"), ipam.ErrNoPool, `no pool: IPv6, pool "old", it has no addresses of the family`),
			refuse(ask("a", v4, v6), ipam.ErrNoPool, `no pool: IPv6, pool "old", it has no addresses of the family`),
			held("a"),
		},
		"a pool without addresses": {
			pools(ipam.Pool{Name: "empty", AutoAssign: true}),
			refuse(ask("a", v4), ipam.ErrNoPool, `no pool: IPv4, pool "empty", it has no addresses of the family`),
		},
		"a closed pool keeps what is held and gives nothing new": {
			pools(public),
			allocate(ask("a", v4), "198.51.100.0@public"),
			pools(closed(public)),
			allocate(ask("a", v4), "198.51.100.0@public"),
			allocate(ask("a", v4).exactly("198.51.100.0"), "198.51.100.0@public"),
			allocate(ask("a", v4).from("public"), "198.51.100.0@public"),
			refuse(ask("b", v4), ipam.ErrNoPool, "no pool: IPv4, it does not auto-assign"),
			refuse(ask("b", v4).from("public"), ipam.ErrNoPool, `no pool: IPv4, pool "public", it is closed`),
			refuse(ask("b", v4).exactly("198.51.100.1"), ipam.ErrNoPool, `no pool: IPv4, pool "public", it is closed`),
		},

		"pools are asked by priority, then age": {
			pools(pool("old", "198.51.100.0"), pool("young", "198.51.100.1"), first(pool("best", "198.51.100.2"))),
			allocate(ask("a", v4), "198.51.100.2@best"),
			allocate(ask("b", v4), "198.51.100.0@old"),
			allocate(ask("c", v4), "198.51.100.1@young"),
		},
		"dual stack comes from one pool if it can": {
			pools(first(pool("v4", "198.51.100.0/30")), pool("v6", "2001:db8::/126"), pool("both", "203.0.113.0/31", "2001:db8:1::/127")),
			allocate(ask("a", v4, v6), "203.0.113.0@both", "2001:db8:1::@both"),
			allocate(ask("b", v6, v4), "2001:db8:1::1@both", "203.0.113.1@both"),
			allocate(ask("c", v4, v6), "198.51.100.0@v4", "2001:db8::@v6"),
		},
		"a second family comes from the pool of the first": {
			pools(first(pool("v6", "2001:db8::/126")), public, onRequest(pool("quiet", "203.0.113.0/31", "2001:db8:1::/127"))),
			allocate(ask("a", v4), "198.51.100.0@public"),
			pools(first(pool("v6", "2001:db8:2::/126")), public, onRequest(pool("quiet", "203.0.113.0/31", "2001:db8:1::/127"))),
			allocate(ask("a", v6, v4), "2001:db8::@public", "198.51.100.0@public"),
			allocate(ask("b", v4, v6).exactly("198.51.100.3"), "198.51.100.3@public", "2001:db8::1@public"),
			allocate(ask("c", v4, v6).exactly("203.0.113.0"), "203.0.113.0@quiet", "2001:db8:2::@v6"), // IPv6 need not be in quiet
		},
		"required dual stack is all or nothing": {
			pools(pool("v4", "198.51.100.0/30"), pool("v6", "2001:db8::")),
			allocate(ask("a", v6), "2001:db8::@v6"),
			refuse(ask("b", v4, v6), ipam.ErrExhausted, `no free address: IPv6, pool "v4", pool "v6", none is free`),
			held("b"),
			refuse(ask("b", v4, v6).exactly("198.51.100.1"), ipam.ErrExhausted, `no free address: IPv6, pool "v4", pool "v6", none is free`),
			held("b"),
			usage("v4", v4, ipam.Usage{Capacity: 4, Available: 4}),
		},
		"preferred dual stack takes what there is, and the rest when it comes": {
			pools(pool("v4", "198.51.100.0/30")),
			allocate(ask("a", v6, v4).preferring(), "198.51.100.0@v4"),
			refuse(ask("b", v4, v6).preferring().exactly("2001:db8::"), ipam.ErrNotInPool, ""),
			pools(pool("v4", "198.51.100.0/30"), pool("v6", "2001:db8::")),
			allocate(ask("a", v6, v4).preferring(), "2001:db8::@v6", "198.51.100.0@v4"),
			allocate(ask("b", v6, v4).preferring(), "198.51.100.1@v4"),
			pools(),
			allocate(ask("a", v6, v4).preferring(), "2001:db8::@v6", "198.51.100.0@v4"),
			refuse(ask("c", v6, v4).preferring(), ipam.ErrNoPool, ""),
		},
		"a family no longer asked for is superfluous": {
			pools(public),
			allocate(ask("a", v4, v6), "198.51.100.0@public", "2001:db8::@public"),
			allocate(ask("a", v6), "2001:db8::@public"),
			superfluous("a", []string{"2001:db8::@public"}, "198.51.100.0@public"),
			superfluous("a", nil, "198.51.100.0@public", "2001:db8::@public"),
		},

		"restored addresses are held, in a pool or not": {
			restore("a", "198.51.100.0@public"),
			restore("b", "203.0.113.9@gone"),
			pools(public).displacing("203.0.113.9@gone"),
			restore("a", "198.51.100.0@public"),
			refuseRestore("b", "198.51.100.0@public", ipam.ErrTaken, `address is taken: 198.51.100.0, pool "public", others are there, not shared`),
			allocate(ask("b", v4), "203.0.113.9@gone"),
			allocate(ask("c", v4), "198.51.100.1@public"),
			release("b", "203.0.113.9"),
			displaced(),
		},
		"of two restored addresses the later is kept": {
			pools(public),
			restore("a", "198.51.100.3@public"),
			restore("a", "198.51.100.1@public"),
			restore("a", "198.51.100.3@public"), // nothing new
			allocate(ask("a", v4), "198.51.100.1@public"),
			superfluous("a", []string{"198.51.100.1@public"}, "198.51.100.3@public"),
		},
		"a reservation is held by no Service": {
			pools(public),
			reserve("", "198.51.100.0@public"),
			reserve("web", "198.51.100.1"),
			reserve("web", "198.51.100.1@public"),
			allocate(ask("a", v4), "198.51.100.2@public"),
			refuse(ask("b", v4).exactly("198.51.100.0"), ipam.ErrTaken, `address is taken: 198.51.100.0, pool "public", others are there, not shared`),
			refuse(ask("c", v4).exactly("198.51.100.1"), ipam.ErrTaken, `address is taken: 198.51.100.1, pool "public", others are there, not shared`),
			refuseReserve("db", "198.51.100.1@public", ipam.ErrTaken),
			forget("", "198.51.100.0"),
			allocate(ask("d", v4), "198.51.100.0@public"),
		},
		"an adopted address of no pool stays, whichever pool is named": {
			pools(public),
			restore("a", "203.0.113.1"),
			displaced("203.0.113.1"),
			allocate(ask("a", v4).from("public"), "203.0.113.1"),
		},

		"narrowing a pool displaces, and takes nothing": {
			pools(pool("p", "198.51.100.0/29")),
			allocate(ask("a", v4).exactly("198.51.100.5"), "198.51.100.5@p"),
			allocate(ask("b", v4), "198.51.100.0@p"),
			pools(pool("p", "198.51.100.0/30")).displacing("198.51.100.5@p"),
			allocate(ask("a", v4), "198.51.100.5@p"),
			allocate(ask("a", v4).from("p"), "198.51.100.5@p"),
			usage("p", v4, ipam.Usage{Capacity: 4, Assigned: 1, Available: 3}),
			pools(pool("p", "198.51.100.0/29")),
			usage("p", v4, ipam.Usage{Capacity: 8, Assigned: 2, Available: 6}),
		},
		"widening a pool moves nothing": {
			pools(pool("p", "198.51.100.8/31")),
			allocate(ask("a", v4), "198.51.100.8@p"),
			allocate(ask("b", v4), "198.51.100.9@p"),
			pools(pool("p", "198.51.100.0/28")),
			allocate(ask("a", v4), "198.51.100.8@p"),
			allocate(ask("b", v4), "198.51.100.9@p"),
			allocate(ask("c", v4), "198.51.100.0@p"),
		},
		"a pool deleted and another with its addresses": {
			pools(pool("p", "198.51.100.0/30")),
			allocate(ask("a", v4), "198.51.100.0@p"),
			pools().displacing("198.51.100.0@p"),
			pools(pool("q", "198.51.100.0/30")).displacing("198.51.100.0@p"),
			poolOf("198.51.100.0", "q"),
			allocate(ask("a", v4).from("q"), "198.51.100.0@p"), // the address is in q, and need not move
			restore("a", "198.51.100.0@q"),
			displaced(),
			allocate(ask("a", v4), "198.51.100.0@q"),
		},
		"of overlapping pools the older has the address": {
			pools(pool("old", "198.51.100.2-198.51.100.3"), closed(pool("middle", "198.51.100.5")), pool("young", "198.51.100.0/29")),
			overlaps("young", "old 198.51.100.2-198.51.100.3", "middle 198.51.100.5-198.51.100.5"),
			overlaps("old"),
			overlaps("middle"),
			usage("young", v4, ipam.Usage{Capacity: 5, Available: 5}),
			allocate(ask("a", v4).from("young"), "198.51.100.0@young"),
			allocate(ask("b", v4).from("young"), "198.51.100.1@young"),
			allocate(ask("c", v4).from("young"), "198.51.100.4@young"),
			allocate(ask("d", v4).from("young"), "198.51.100.6@young"),
			allocate(ask("e", v4).exactly("198.51.100.2"), "198.51.100.2@old"),
			refuse(ask("f", v4).exactly("198.51.100.5"), ipam.ErrNoPool, `no pool: IPv4, pool "middle", it is closed`),
			poolOf("198.51.100.5", "middle"),
			poolOf("198.51.100.8", ""),
		},
		"a pool wholly inside an older one": {
			pools(pool("old", "198.51.100.0/24", "2001:db8::/64"), pool("young", "198.51.100.7", "198.51.100.9", "2001:db8::/48")),
			overlaps("young", "old 198.51.100.7-198.51.100.7 198.51.100.9-198.51.100.9 2001:db8::-2001:db8::ffff:ffff:ffff:ffff"),
			refuse(ask("a", v4).from("young"), ipam.ErrNoPool, `no pool: IPv4, pool "young", it has no addresses of the family`),
			allocate(ask("a", v6).from("young"), "2001:db8:0:1::@young"),
		},

		"a /64 and a /48 cost nothing": {
			pools(pool("lan", "2001:db8::/64"), pool("site", "2001:db8:1::/48"), pool("half", "2001:db8:2::/65")),
			usage("lan", v6, ipam.Usage{Capacity: math.MaxUint64, Available: math.MaxUint64}),
			allocate(ask("a", v6), "2001:db8::@lan"),
			allocate(ask("b", v6), "2001:db8::1@lan"),
			allocate(ask("c", v6).exactly("2001:db8::ffff:ffff:ffff:ffff"), "2001:db8::ffff:ffff:ffff:ffff@lan"),
			allocate(ask("d", v6).from("site"), "2001:db8:1::@site"),
			usage("lan", v6, ipam.Usage{Capacity: math.MaxUint64, Assigned: 3, Available: math.MaxUint64 - 3}),
			usage("half", v6, ipam.Usage{Capacity: 1 << 63, Available: 1 << 63}),
		},
		"up to the last address there is": {
			pools(pool("top", "223.255.255.255", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")),
			allocate(ask("a", v4, v6), "223.255.255.255@top", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff@top"),
			refuse(ask("b", v4, v6), ipam.ErrExhausted, ""),
			release("a", "223.255.255.255"),
			allocate(ask("b", v4), "223.255.255.255@top"),
		},

		"requests that contradict themselves": {
			pools(public),
			refuse(ask("", v4), ipam.ErrInvalid, "UID"),
			refuse(ask("a"), ipam.ErrInvalid, "0 families"),
			refuse(ask("a", v4, v6, v4), ipam.ErrInvalid, "3 families"),
			refuse(ask("a", v4, v4), ipam.ErrInvalid, "IPv4 is asked for twice"),
			refuse(ask("a", 0), ipam.ErrInvalid, "Family(0) is not a family"),
			refuse(ask("a", v6).exactly("198.51.100.1"), ipam.ErrInvalid, "198.51.100.1 is asked for, and IPv4 is not among the families"),
			refuse(ask("a", v4).exactly("198.51.100.1").exactly("198.51.100.2"), ipam.ErrInvalid, "2 IPv4 addresses are asked for by name, and 1 of each family"),
			refuse(ask("a", v6).exactly("::ffff:198.51.100.1"), ipam.ErrInvalid, "write 198.51.100.1"),
			refuse(ask("a", v6).exactly("2001:db8::1%eth0"), ipam.ErrInvalid, "write 2001:db8::1"),
			refuseRestore("a", "::ffff:198.51.100.1@public", ipam.ErrInvalid, "write 198.51.100.1"),
			held("a"),
		},
	}
	tell(t, stories)
}

func TestErrorSaysWhoHoldsTheAddress(t *testing.T) {
	a := ipam.New()
	a.SetPools([]ipam.Pool{pool("public", "198.51.100.0/30")})
	if _, err := a.Allocate(ipam.Request(ask("web", ipam.IPv4))); err != nil {
		t.Fatal(err)
	}
	_, err := a.Allocate(ipam.Request(ask("db", ipam.IPv4).exactly("198.51.100.0")))
	refused, ok := errors.AsType[*ipam.Error](err)
	if !ok {
		t.Fatalf("got %v, want an *ipam.Error", err)
	}
	if want := owner("web"); refused.Holder != want || refused.Pool != "public" || refused.Family != ipam.IPv4 ||
		refused.Address != netip.MustParseAddr("198.51.100.0") {
		t.Errorf("got %+v, want 198.51.100.0 of public held by %v", refused, want)
	}
}

// TestPoolsReachTheLastAddress is about the highest address of a family, which has no next one.
func TestPoolsReachTheLastAddress(t *testing.T) {
	tell(t, map[string]story{
		"of each family": {
			pools(unchecked("old", "255.255.255.254/31", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127"),
				unchecked("young", "255.255.255.252/30", "::/126", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128")),
			overlaps("young", "old 255.255.255.254-255.255.255.255 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
			poolOf("255.255.255.255", "old"), poolOf("255.255.255.253", "young"), poolOf("::", "young"),
			usage("young", ipam.IPv6, ipam.Usage{Capacity: 4, Available: 4}),
		},
		"of pools within pools": {
			pools(pool("c", "198.51.100.8-198.51.100.9"), pool("b", "198.51.100.4-198.51.100.12"), pool("a", "198.51.100.0-198.51.100.16"),
				pool("d", "198.51.100.9-198.51.100.20")),
			overlaps("b", "c 198.51.100.8-198.51.100.9"),
			overlaps("a", "b 198.51.100.4-198.51.100.7 198.51.100.10-198.51.100.12", "c 198.51.100.8-198.51.100.9"),
			overlaps("d", "c 198.51.100.9-198.51.100.9", "b 198.51.100.10-198.51.100.12", "a 198.51.100.13-198.51.100.16"),
			poolOf("198.51.100.3", "a"), poolOf("198.51.100.16", "a"), poolOf("198.51.100.17", "d"),
		},
	})
}

// unchecked returns a pool with addresses that ParseAddresses refuses.
func unchecked(name string, prefixes ...string) ipam.Pool {
	var b netipx.IPSetBuilder
	for _, text := range prefixes {
		b.AddPrefix(netip.MustParsePrefix(text))
	}
	set, err := b.IPSet()
	if err != nil {
		panic(err)
	}
	return ipam.Pool{Name: name, Addresses: set}
}
