package ipam_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/heraldlb/herald/ipam"
)

// across lets namespaces share.
func across(p ipam.Pool) ipam.Pool { p.ShareAcrossNamespaces = true; return p }

func TestSharing(t *testing.T) {
	const v4, v6 = ipam.IPv4, ipam.IPv6
	public := pool("public", "198.51.100.0/30", "2001:db8::/126")
	tell(t, map[string]story{
		"an address is of one pool, whoever is on it": {
			restoreOn(terms("dns", "UDP/53"), "a", "198.51.100.0@old"),
			pools(pool("new", "198.51.100.0/30")).displacing("198.51.100.0@old"),
			allocate(ask("b", v4).sharing("dns", "TCP/53").exactly("198.51.100.0"), "198.51.100.0@old"),
			displaced("198.51.100.0@old", "198.51.100.0@old"),
			restoreOn(terms("dns", "TCP/53"), "b", "198.51.100.0@new"),
			displaced(),
			isDisplaced("198.51.100.0", false),
			held("a", "198.51.100.0@new"),
		},
		"the same key and other ports share an address": {
			pools(public),
			allocate(ask("tcp", v4, v6).sharing("dns", "TCP/53"), "198.51.100.0@public", "2001:db8::@public"),
			allocate(ask("udp", v4, v6).sharing("dns", "UDP/53"), "198.51.100.0@public", "2001:db8::@public"),
			allocate(ask("web", v4).sharing("web", "TCP/80"), "198.51.100.1@public"),
			allocate(ask("alone", v4), "198.51.100.2@public"),
			holders("198.51.100.0", "tcp", "udp"),
			usage("public", v4, ipam.Usage{Capacity: 4, Assigned: 3, Available: 1}),
			release("tcp", "198.51.100.0"),
			holders("198.51.100.0", "udp"),
			refuse(ask("late", v4).exactly("198.51.100.0"), ipam.ErrTaken, `address is taken: 198.51.100.0, pool "public", others are there, key`),
		},
		"a port in common keeps them apart": {
			pools(public),
			allocate(ask("a", v4).sharing("k", "TCP/80", "TCP/443"), "198.51.100.0@public"),
			refuse(ask("b", v4).sharing("k", "TCP/443").exactly("198.51.100.0"), ipam.ErrTaken, `address is taken: 198.51.100.0, pool "public", others are there, port`),
			allocate(ask("b", v4).sharing("k", "TCP/443"), "198.51.100.1@public"),
			unshared(ask("b", v4).sharing("k", "TCP/443"), "198.51.100.1", "198.51.100.0: port TCP/443 of default/a"),
			allocate(ask("c", v4).sharing("k", "TCP/80"), "198.51.100.1@public"), // the lowest address with room
			allocate(ask("d", v4).sharing("k", "TCP/81"), "198.51.100.0@public"),
			unshared(ask("d", v4).sharing("k", "TCP/81"), "198.51.100.0", ""),
		},
		"what they must agree on": {
			pools(public),
			allocate(ask("a", v4).sharing("k", "TCP/80"), "198.51.100.0@public"),
			allocate(ask("alone", v4), "198.51.100.1@public"),
			reserve("", "198.51.100.2"),
			refuse(ask("b", v4).sharing("l").exactly("198.51.100.0"), ipam.ErrTaken, `address is taken: 198.51.100.0, pool "public", others are there, key`),
			refuse(ask("b", v4).sharing("k").local().exactly("198.51.100.0"), ipam.ErrTaken, `address is taken: 198.51.100.0, pool "public", others are there, traffic`),
			refuse(ask("b", v4).in("red").sharing("k").exactly("198.51.100.0"), ipam.ErrTaken, `address is taken: 198.51.100.0, pool "public", others are there, namespace`),
			refuse(ask("b", v4).sharing("k").exactly("198.51.100.1"), ipam.ErrTaken, `address is taken: 198.51.100.1, pool "public", others are there, not shared`),
			refuse(ask("b", v4).sharing("k").exactly("198.51.100.2"), ipam.ErrTaken, "address is taken: 198.51.100.2, others are there, not shared"),
			disagreed("198.51.100.0", "a", ask("b", v4).sharing("k", "TCP/80"), "port TCP/80 of default/a"),
			disagreed("198.51.100.0", "a", ask("b", v4).sharing("k", "TCP/81"), ""),
			pools(across(public)),
			allocate(ask("b", v4).in("red").sharing("k"), "198.51.100.0@public"),
		},
		"whoever comes to collide is refused, and nothing moves": {
			pools(public),
			allocate(ask("a", v4).sharing("k", "TCP/80"), "198.51.100.0@public"),
			allocate(ask("b", v4).sharing("k", "TCP/81"), "198.51.100.0@public"),
			refuse(ask("b", v4).sharing("k", "TCP/80", "TCP/81"), ipam.ErrTaken, `address is taken: 198.51.100.0, pool "public", the terms have changed, port`),
			refuse(ask("b", v4).sharing("k", "TCP/80").exactly("198.51.100.0"), ipam.ErrTaken, `address is taken: 198.51.100.0, pool "public", the terms have changed, port`),
			refuse(ask("b", v4), ipam.ErrTaken, `address is taken: 198.51.100.0, pool "public", the terms have changed, key`),
			allocate(ask("c", v4).sharing("k", "TCP/82"), "198.51.100.0@public"), // and the refused request is not an obstacle
			allocate(ask("b", v4).sharing("k", "TCP/81"), "198.51.100.0@public"),
			allocate(ask("b", v4).sharing("k", "TCP/80").leaving("198.51.100.0"), "198.51.100.1@public"),
			superfluous("b", []string{"198.51.100.1@public"}, "198.51.100.0@public"),
			release("b", "198.51.100.0"),
			holders("198.51.100.0", "a", "c"),
		},
		"who is alone may change the terms": {
			pools(public),
			allocate(ask("a", v4).sharing("k", "TCP/80"), "198.51.100.0@public"),
			allocate(ask("a", v4), "198.51.100.0@public"),
			allocate(ask("b", v4).sharing("k"), "198.51.100.1@public"),
			allocate(ask("a", v4).sharing("k", "TCP/81"), "198.51.100.0@public"), // It does not move to b.
			unshared(ask("a", v4).sharing("k", "TCP/81"), "198.51.100.0", ""),
			allocate(ask("c", v4).sharing("k", "TCP/80"), "198.51.100.0@public"),
		},
		"who is kept out by its namespace learns nothing of keys": {
			pools(public, onRequest(pool("quiet", "203.0.113.0/30"))),
			allocate(ask("a", v4).sharing("k", "TCP/80"), "198.51.100.0@public"),
			refuse(ask("b", v4).in("red").sharing("k", "TCP/80").exactly("198.51.100.0"), ipam.ErrTaken, `address is taken: 198.51.100.0, pool "public", others are there, namespace`),
			refuse(ask("b", v4).in("red").sharing("l", "TCP/80").exactly("198.51.100.0"), ipam.ErrTaken, `address is taken: 198.51.100.0, pool "public", others are there, namespace`),
			allocate(ask("b", v4).in("red").sharing("k", "TCP/80"), "198.51.100.1@public"),
			unshared(ask("b", v4).in("red").sharing("k", "TCP/80"), "198.51.100.1", ""),
			allocate(ask("c", v4).sharing("k", "TCP/80").from("quiet"), "203.0.113.0@quiet"),
			unshared(ask("c", v4).sharing("k", "TCP/80").from("quiet"), "203.0.113.0", ""), // It asks for another pool.
			pools(across(public)),
			unshared(ask("b", v4).in("red").sharing("k", "TCP/80"), "198.51.100.1", "198.51.100.0: port TCP/80 of default/a"),
		},
		"what a record says is not argued with": {
			pools(public),
			replace("198.51.100.0@public", sharers("k", "TCP/80", "a", "b")),
			allocate(ask("a", v4).sharing("k", "TCP/80"), "198.51.100.0@public"),
			allocate(ask("b", v4).sharing("k", "TCP/80"), "198.51.100.0@public"),
			refuse(ask("b", v4).sharing("k", "TCP/80", "TCP/81"), ipam.ErrTaken, `address is taken: 198.51.100.0, pool "public", the terms have changed, port`),
			replace("198.51.100.0@public", sharers("k", "TCP/80", "b", "c", "~d"), "a"),
			holders("198.51.100.0", "b", "c", "~d"),
			held("a"),
			replace("198.51.100.0@public", nil, "b", "c", "~d"),
			allocate(ask("e", v4).sharing("k", "TCP/80"), "198.51.100.0@public"),
		},
		"leaving a group for another of the same key": {
			pools(public),
			allocate(ask("a", v4).sharing("k", "TCP/80"), "198.51.100.0@public"),
			allocate(ask("b", v4).sharing("k", "TCP/80"), "198.51.100.1@public"),
			allocate(ask("c", v4).sharing("k", "TCP/81"), "198.51.100.0@public"),
			allocate(ask("c", v4).sharing("k", "TCP/81").leaving("198.51.100.0"), "198.51.100.1@public"),
			allocate(ask("c", v4).sharing("k", "TCP/81").leaving("198.51.100.0", "198.51.100.1"), "198.51.100.2@public"),
			superfluous("c", []string{"198.51.100.2@public"}, "198.51.100.0@public", "198.51.100.1@public"),
		},
		"nobody joins where the pool gives nothing": {
			pools(public, onRequest(pool("quiet", "203.0.113.0"))),
			allocate(ask("a", v4).sharing("k").from("quiet"), "203.0.113.0@quiet"),
			allocate(ask("b", v4).sharing("k"), "203.0.113.0@quiet"), // A Service that shares goes where the others are.
			allocate(ask("c", v4).sharing("k").from("public"), "198.51.100.0@public"),
			pools(closed(public), only(closed(pool("quiet", "203.0.113.0")), "red")),
			refuse(ask("d", v4).sharing("k"), ipam.ErrNoPool, ""),
			refuse(ask("d", v4).sharing("k").exactly("198.51.100.0"), ipam.ErrNoPool, `no pool: IPv4, pool "public", it is closed`),
		},
	})
}

func sharers(key, port string, owners ...string) (all []ipam.Tenant) {
	for _, text := range owners {
		all = append(all, ipam.Tenant{Owner: tenant(text), Sharing: terms(key, port)})
	}
	return all
}

func unshared(r request, addr, want string) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		got := ""
		if other, why := a.Unshared(ipam.Request(r), netip.MustParseAddr(addr)); why.Over != ipam.Nothing {
			got = fmt.Sprintf("%s: %s", other, told(why))
		}
		if got != want {
			t.Fatalf("Unshared(%s, %s) = %q, want %q", r.Owner, addr, got, want)
		}
	}
}

// told describes a conflict: its matter, and with whom.
func told(c ipam.Conflict) string {
	text := c.Over.String()
	if c.Over == ipam.SamePort {
		text += " " + c.Port.String()
	}
	return text + " of " + c.There.String()
}

// disagreed checks the result of Agree for a request and a holder of the address.
func disagreed(addr, holder string, r request, want string) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		there := netip.MustParseAddr(addr)
		others := []ipam.Tenant{{Owner: tenant(holder), Sharing: a.Terms(there, tenant(holder))}}
		err := a.Agree(there, others, ipam.Tenant{Owner: r.Owner, Sharing: r.Sharing})
		refused, _ := errors.AsType[*ipam.Error](err)
		if want == "" && err != nil || want != "" && (!errors.Is(err, ipam.ErrTaken) || told(refused.Conflict) != want) {
			t.Fatalf("Agree(%s, %s) = %v, want %q", addr, r.Owner, err, want)
		}
	}
}

func TestParsePort(t *testing.T) {
	for _, text := range []string{"", "80", "/80", "TCP/", "TCP/x", "TCP/-1", "TCP/+1", "TCP/080", "TCP/65536", "TCP/80 ", "TCP/80/81", "TCP/0x50"} {
		if p, err := ipam.ParsePort(text); err == nil || err.Error() != fmt.Sprintf("%q is not a port: write a protocol and a number from 1 to 65535, as TCP/80", text) {
			t.Errorf("ParsePort(%q) = %v, %v", text, p, err)
		}
	}
	if p, err := ipam.ParsePort("SCTP/65535"); err != nil || p != (ipam.Port{Protocol: "SCTP", Number: 65535}) {
		t.Errorf("got %v, %v", p, err)
	}
}

func FuzzParsePort(f *testing.F) {
	for _, seed := range []string{"TCP/80", "UDP/0", "SCTP/65535", "TCP/080", "/", "TCP/80/1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := ipam.ParsePort(text); err == nil && p.String() != text {
			t.Errorf("%q became %q", text, p)
		}
	})
}
