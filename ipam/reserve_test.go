package ipam_test

import (
	"testing"

	"github.com/heraldlb/herald/ipam"
)

// TestRecords is about the content of records, whether a user or the provider wrote them.
func TestRecords(t *testing.T) {
	const v4, v6 = ipam.IPv4, ipam.IPv6
	public := pool("public", "198.51.100.0/30", "2001:db8::/126")
	tell(t, map[string]story{
		"a record whose owner is written into another namespace": {
			pools(public),
			replace("198.51.100.0@public", alone("red/web")),
			uses("public", "red", v4, 1),
			replace("198.51.100.0@public", alone("blue/web")), // the same UID
			uses("public", "red", v4, 0),
			uses("", "red", v4, 0),
			uses("public", "blue", v4, 1),
			replace("198.51.100.0@public", nil, "blue/web"),
			uses("", "blue", v4, 0),
			holders("198.51.100.0"),
		},
		"a UID that looks like a name is not a reservation for it": {
			pools(public),
			restoredFor(ipam.Owner{Namespace: "default", Name: "odd", UID: "default/web"}, "198.51.100.0@public"),
			reserve("web", "198.51.100.1@public"),
			heldBy("~web", "198.51.100.1@public"),
			notKept(ask("web", v4).leaving("198.51.100.1"), "198.51.100.1: the owner leaves it"),
		},
		"what is reserved for a name goes to the Service of that name": {
			pools(public),
			reserve("web", "198.51.100.2@public"),
			allocate(ask("db", v4), "198.51.100.0@public"),
			refuse(ask("db", v4).exactly("198.51.100.2"), ipam.ErrTaken, `address is taken: 198.51.100.2, pool "public", others are there, not shared`),
			refuse(ask("web", v4).in("red").exactly("198.51.100.2"), ipam.ErrTaken, `address is taken: 198.51.100.2, pool "public", others are there, not shared`),
			allocate(ask("web", v4), "198.51.100.2@public"),
			heldBy("~web"),
			holders("198.51.100.2", "web"),
			release("web", "198.51.100.2"),
			allocate(ask("cache", v4), "198.51.100.1@public"),
		},
		"also in a pool that gives nothing else": {
			pools(closed(only(onRequest(public), "red"))),
			reserve("web", "198.51.100.2@public"),
			reserve("db", "198.51.100.3@public"),
			allocate(ask("web", v4), "198.51.100.2@public"),
			allocate(ask("db", v4).exactly("198.51.100.3"), "198.51.100.3@public"),
		},
		"of several that are reserved, the last": {
			pools(public),
			reserve("web", "198.51.100.3@public"),
			reserve("web", "198.51.100.1@public"),
			reserve("web", "2001:db8::3@public"),
			allocate(ask("web", v4, v6), "198.51.100.1@public", "2001:db8::3@public"),
			heldBy("~web", "198.51.100.3@public"),
			notKept(ask("web", v4, v6), "198.51.100.3: another is held"),
			allocate(ask("web", v4).exactly("198.51.100.3"), "198.51.100.3@public"),
			heldBy("~web"),
		},
		"why it is not to be had": {
			pools(public, pool("other", "203.0.113.0/30")),
			reserve("web", "198.51.100.2@public"),
			notKept(ask("web", v4).exactly("198.51.100.3"), "198.51.100.2: another is asked for"),
			notKept(ask("web", v4).leaving("198.51.100.2"), "198.51.100.2: the owner leaves it"),
			notKept(ask("web", v4).from("other"), "198.51.100.2: another pool"),
			notKept(ask("web", v6)),
			allocate(ask("web", v4).from("other"), "203.0.113.0@other"),
			notKept(ask("web", v4).from("public"), "198.51.100.2: another is held"),
			pools(pool("other", "203.0.113.0/30")).displacing("198.51.100.2@public"),
			notKept(ask("web", v4), "198.51.100.2: it is in no pool"),
			refuse(ask("web", v4).exactly("198.51.100.2"), ipam.ErrNotInPool, "198.51.100.2, it is in no pool"),
		},
		"others share it by now": {
			pools(public),
			replace("198.51.100.0@public", append(sharers("k", "TCP/80", "other"), alone("~web")...)),
			notKept(ask("web", v4).sharing("k", "TCP/80"), "198.51.100.0: others are there"),
			allocate(ask("web", v4).sharing("k", "TCP/80"), "198.51.100.1@public"),
			heldBy("~web", "198.51.100.0@public"),
			allocate(ask("web", v4).sharing("k", "TCP/81").exactly("198.51.100.0"), "198.51.100.0@public"),
			holders("198.51.100.0", "other", "web"),
		},
		"an adopted address beside what is reserved for its name": {
			pools(public),
			reserve("web", "198.51.100.0@public"),
			restore("web", "198.51.100.0@public"),
			holders("198.51.100.0", "~web", "web"),
			release("web", "198.51.100.0"),
			holders("198.51.100.0", "~web"),
		},
	})
}
