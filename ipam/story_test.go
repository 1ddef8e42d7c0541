package ipam_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/heraldlb/herald/ipam"
)

// A story is a sequence of steps on one Allocator. Every step checks its own result.
type story []step

type step func(t *testing.T, a *ipam.Allocator)

func tell(t *testing.T, stories map[string]story) {
	t.Helper()
	for name, steps := range stories {
		t.Run(name, func(t *testing.T) {
			a := ipam.New()
			for _, step := range steps {
				step(t, a)
			}
		})
	}
}

// Pools.

func pool(name string, addresses ...string) ipam.Pool {
	set, err := ipam.ParseAddresses(addresses, nil)
	if err != nil {
		panic(err)
	}
	return ipam.Pool{Name: name, Addresses: set, AutoAssign: true, Order: ipam.Lowest}
}

func lru(p ipam.Pool) ipam.Pool       { p.Order = ipam.LeastRecentlyUsed; return p }
func onRequest(p ipam.Pool) ipam.Pool { p.AutoAssign = false; return p }
func closed(p ipam.Pool) ipam.Pool    { p.Closed = true; return p }
func only(p ipam.Pool, namespace string) ipam.Pool {
	p.Serves = func(s *ipam.Subject) bool { return s.Namespace == namespace }
	return p
}
func first(p ipam.Pool) ipam.Pool { p.Priority = 1; return p }

// Requests.

type request ipam.Request

func owner(name string) ipam.Owner {
	return ipam.Owner{Namespace: "default", Name: name, UID: name}
}

func ask(name string, families ...ipam.Family) request {
	return request{Owner: owner(name), Families: families, RequireAll: true}
}

func (r request) of(namespace string) request {
	r.Subject.Namespace = namespace
	return r
}
func (r request) preferring() request      { r.RequireAll = false; return r }
func (r request) from(pool string) request { r.Pool = pool; return r }

func (r request) exactly(addr string) request {
	r.Addresses = append(slices.Clip(r.Addresses), netip.MustParseAddr(addr))
	return r
}

// in makes the request come from a Service in this namespace.
func (r request) in(namespace string) request {
	r.Owner.Namespace, r.Subject.Namespace = namespace, namespace
	return r
}

func (r request) sharing(key string, ports ...string) request {
	r.Sharing = terms(key, ports...)
	return r
}

func (r request) local() request { r.Sharing.Traffic = "Local"; return r }

func (r request) leaving(addresses ...string) request {
	for _, addr := range addresses {
		r.Leave = append(slices.Clip(r.Leave), netip.MustParseAddr(addr))
	}
	return r
}

func (r request) limited(f ipam.Family, limit uint64) request {
	r.Quota, r.QuotaFrom = ipam.Limits{f: limit}, "annotation herald.dev/quota"
	return r
}

func terms(key string, ports ...string) ipam.Sharing {
	s := ipam.Sharing{Key: key, Traffic: "Cluster"}
	for _, text := range ports {
		p, err := ipam.ParsePort(text)
		if err != nil {
			panic(err)
		}
		s.Ports = append(s.Ports, p)
	}
	return s
}

// tenant parses "name", which is in the default namespace, or "namespace/name"; "~name" is a
// reservation.
func tenant(text string) ipam.Owner {
	text, reserved := strings.CutPrefix(text, "~")
	namespace, name, ok := strings.Cut(text, "/")
	if !ok {
		namespace, name = "default", text
	}
	o := ipam.Owner{Namespace: namespace, Name: name}
	if !reserved {
		o.UID = name
	}
	return o
}

// Steps. Allocations have the form address@pool.

func spell(all []ipam.Allocation) []string {
	var out []string
	for _, al := range all {
		text := al.Address.String()
		if al.Pool != "" {
			text += "@" + al.Pool
		}
		out = append(out, text)
	}
	return out
}

func read(text string, o ipam.Owner) ipam.Allocation {
	addr, pool, _ := strings.Cut(text, "@")
	return ipam.Allocation{Address: netip.MustParseAddr(addr), Pool: pool, Owner: o}
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if len(got) == 0 && len(want) == 0 {
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

func pools(all ...ipam.Pool) step {
	return func(t *testing.T, a *ipam.Allocator) { t.Helper(); a.SetPools(all) }
}

// displacing checks which addresses SetPools displaces.
func (s step) displacing(want ...string) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		s(t, a)
		displaced(want...)(t, a)
	}
}

func displaced(want ...string) step {
	return func(t *testing.T, a *ipam.Allocator) { t.Helper(); same(t, "displaced", spell(a.Displaced()), want) }
}

func allocate(r request, want ...string) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		got, err := a.Allocate(ipam.Request(r))
		if err != nil {
			t.Fatalf("allocating for %s: %v", r.Owner, err)
		}
		same(t, "allocated for "+r.Owner.String(), spell(got), want)
		for _, al := range got {
			if al.Owner != r.Owner {
				t.Fatalf("%v allocated for %v", al, r.Owner)
			}
			if holders := a.Holders(al.Address); !slices.Contains(holders, al) {
				t.Fatalf("Holders(%s) = %v, want %v among them", al.Address, holders, al)
			}
		}
	}
}

func refuse(r request, reason error, message string) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		before := a.HeldBy(r.Owner)
		got, err := a.Allocate(ipam.Request(r))
		if !errors.Is(err, reason) || !strings.Contains(err.Error(), message) {
			t.Fatalf("allocating for %s: got %v, error %v; want %v, %q", r.Owner, got, err, reason, message)
		}
		if got != nil {
			t.Fatalf("refused with %v and yet gave %v", err, got)
		}
		if diff := cmp.Diff(spell(before), spell(a.HeldBy(r.Owner))); diff != "" {
			t.Fatalf("a refused request changed what is held (-before +after):\n%s", diff)
		}
	}
}

func restored(al ipam.Allocation, reason error, message string) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		err := a.Restore(al, ipam.Sharing{})
		if !errors.Is(err, reason) || reason != nil && !strings.Contains(err.Error(), message) {
			t.Fatalf("Restore(%v) = %v, want %v, %q", al, err, reason, message)
		}
	}
}

func restore(name, text string) step { return restored(read(text, owner(name)), nil, "") }
func reserve(name, text string) step { return restored(read(text, reservation(name)), nil, "") }

func refuseRestore(name, text string, reason error, message string) step {
	return restored(read(text, owner(name)), reason, message)
}

func refuseReserve(name, text string, reason error) step {
	return restored(read(text, reservation(name)), reason, "")
}

func reservation(name string) ipam.Owner {
	if name == "" {
		return ipam.Owner{}
	}
	return ipam.Owner{Namespace: "default", Name: name}
}

func released(o ipam.Owner, addr string, want bool) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		if got := a.Release(netip.MustParseAddr(addr), o); got != want {
			t.Fatalf("Release(%s, %q) = %v, want %v", addr, o, got, want)
		}
	}
}

func release(name, addr string) step        { return released(owner(name), addr, true) }
func releaseNothing(name, addr string) step { return released(owner(name), addr, false) }

// forget releases a reservation.
func forget(name, addr string) step { return released(reservation(name), addr, true) }

func held(name string, want ...string) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		same(t, "held by "+name, spell(a.HeldBy(owner(name))), want)
	}
}

func superfluous(name string, wanted []string, want ...string) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		var keep []ipam.Allocation
		for _, text := range wanted {
			keep = append(keep, read(text, owner(name)))
		}
		same(t, "superfluous", spell(a.Superfluous(owner(name), keep)), want)
	}
}

func usage(pool string, f ipam.Family, want ipam.Usage) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		if got := a.Usage(pool)[f]; got != want {
			t.Fatalf("Usage(%q)[%s] = %+v, want %+v", pool, f, got, want)
		}
	}
}

func overlaps(pool string, want ...string) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		var got []string
		for _, o := range a.Overlaps(pool) {
			text := o.Pool
			for _, r := range o.Ranges {
				text += fmt.Sprint(" ", r)
			}
			got = append(got, text)
		}
		same(t, "overlaps of "+pool, got, want)
	}
}

func poolOf(addr, want string) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		if got, ok := a.PoolOf(netip.MustParseAddr(addr)); got != want || ok != (want != "") {
			t.Fatalf("PoolOf(%s) = %q, %v; want %q", addr, got, ok, want)
		}
	}
}

// replace replaces the holders of an address by those of a record, and checks who loses the
// address.
func replace(text string, tenants []ipam.Tenant, lost ...string) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		al := read(text, ipam.Owner{})
		losers, err := a.Replace(al.Address, al.Pool, tenants)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, o := range losers {
			got = append(got, written(o))
		}
		same(t, "who lost "+text, got, lost)
	}
}

func written(o ipam.Owner) string {
	text := strings.TrimPrefix(o.Namespace+"/"+o.Name, "default/")
	if o.UID == "" {
		text = "~" + text
	}
	return text
}

// alone returns the owners of a record, none of whom shares.
func alone(owners ...string) (all []ipam.Tenant) {
	for _, text := range owners {
		all = append(all, ipam.Tenant{Owner: tenant(text)})
	}
	return all
}

func holders(addr string, want ...string) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		var got []string
		for _, al := range a.Holders(netip.MustParseAddr(addr)) {
			got = append(got, written(al.Owner))
		}
		same(t, "holders of "+addr, got, want)
	}
}

// uses checks how many addresses of a pool a namespace uses, or of all pools if pool is empty.
func uses(pool, namespace string, f ipam.Family, want uint64) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		if got := a.Use(pool, namespace, f); got != want {
			t.Fatalf("Use(%q, %q, %s) = %d, want %d", pool, namespace, f, got, want)
		}
	}
}

func restoreOn(terms ipam.Sharing, name, text string) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		if err := a.Restore(read(text, tenant(name)), terms); err != nil {
			t.Fatal(err)
		}
	}
}

func isDisplaced(addr string, want bool) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		if got := a.IsDisplaced(netip.MustParseAddr(addr)); got != want {
			t.Fatalf("IsDisplaced(%s) = %v, want %v", addr, got, want)
		}
	}
}

func restoredFor(o ipam.Owner, text string) step { return restored(read(text, o), nil, "") }

// heldBy checks what an owner holds.
func heldBy(who string, want ...string) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		same(t, "held by "+who, spell(a.HeldBy(tenant(who))), want)
	}
}

// notKept checks which addresses are reserved for a request and not given to it, each in the form
// "address: why".
func notKept(r request, want ...string) step {
	return func(t *testing.T, a *ipam.Allocator) {
		t.Helper()
		var got []string
		for _, f := range a.NotKept(ipam.Request(r)) {
			got = append(got, f.Address.String()+": "+f.Cause.String())
		}
		same(t, "not kept for "+r.Owner.String(), got, want)
	}
}
