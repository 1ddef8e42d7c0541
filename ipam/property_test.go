package ipam_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/heraldlb/herald/ipam"
	"go4.org/netipx"
	"pgregory.net/rapid"
)

// universe is every address in the property tests. There are few, so that requests collide. The last address is
// in no pool.
var universe = func() (all []netip.Addr) {
	for _, r := range []string{"198.51.100.250-198.51.101.4", "2001:db8::fffe-2001:db8::1:5"} {
		ends := netipx.MustParseIPRange(r)
		for addr := ends.From(); ends.Contains(addr); addr = addr.Next() {
			all = append(all, addr)
		}
	}
	return all
}()

// Two Services with the same name, one after the other, and two that have the same namespace or name as these.
var (
	services = []ipam.Owner{
		{Namespace: "red", Name: "web", UID: "a"}, {Namespace: "red", Name: "web", UID: "b"},
		{Namespace: "red", Name: "db", UID: "c"}, {Namespace: "blue", Name: "web", UID: "d"},
	}
	reservations = []ipam.Owner{{}, nameOf(services[0]), nameOf(services[2]), nameOf(services[3])}
	// A record written by hand may have an owner in another namespace.
	tenants    = slices.Concat(services, reservations, []ipam.Owner{{Namespace: "blue", Name: "web", UID: "a"}})
	namespaces = []string{"red", "blue", ""}
)

// Generators.

func draw[T any](t *rapid.T, label string, from []T) T { return rapid.SampledFrom(from).Draw(t, label) }

func chance(t *rapid.T, label string, in int) bool { return rapid.IntRange(1, in).Draw(t, label) == 1 }

func drawTerms(t *rapid.T) ipam.Sharing {
	s := ipam.Sharing{Key: draw(t, "key", []string{"", "k", "k", "l"})}
	if s.Key == "" {
		return s
	}
	s.Traffic = draw(t, "traffic", []string{"Cluster", "Cluster", "Local"})
	for _, p := range []ipam.Port{{Protocol: "TCP", Number: 80}, {Protocol: "TCP", Number: 443}, {Protocol: "UDP", Number: 80}} {
		if chance(t, p.String(), 3) {
			s.Ports = append(s.Ports, p)
		}
	}
	return s
}

func drawLimits(t *rapid.T) ipam.Limits {
	limits := ipam.Limits{}
	for _, f := range []ipam.Family{ipam.IPv4, ipam.IPv6} {
		if chance(t, "limited", 3) {
			limits[f] = rapid.Uint64Range(0, 3).Draw(t, "limit")
		}
	}
	return limits
}

func drawPools(t *rapid.T) []ipam.Pool {
	names := rapid.Permutation([]string{"p", "q", "r", "s"}).Draw(t, "names")
	names = names[:rapid.IntRange(0, len(names)).Draw(t, "pools")]
	var all []ipam.Pool
	for _, name := range names {
		var b netipx.IPSetBuilder
		for range rapid.IntRange(0, 4).Draw(t, "ranges") {
			from := rapid.IntRange(0, len(universe)-2).Draw(t, "from")
			to := min(from+rapid.IntRange(0, 6).Draw(t, "size"), len(universe)-2)
			for _, addr := range universe[from : to+1] {
				b.Add(addr)
			}
		}
		set, err := b.IPSet()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, ipam.Pool{
			Name: name, Addresses: set,
			Granted:               chance(t, "granted", 3),
			AutoAssign:            rapid.IntRange(0, 3).Draw(t, "autoAssign") > 0,
			Closed:                rapid.IntRange(0, 4).Draw(t, "closed") == 0,
			Order:                 draw(t, "order", []ipam.Order{ipam.LeastRecentlyUsed, ipam.Lowest}),
			Priority:              rapid.IntRange(0, 2).Draw(t, "priority"),
			Serves:                draw(t, "serves", []func(*ipam.Subject) bool{nil, nil, in("red"), in("blue")}),
			Quota:                 drawLimits(t),
			ShareAcrossNamespaces: rapid.Bool().Draw(t, "shareAcrossNamespaces"),
		})
	}
	return all
}

func in(namespace string) func(*ipam.Subject) bool {
	return func(s *ipam.Subject) bool { return s.Namespace == namespace }
}

func drawPoolName(t *rapid.T) string {
	return draw(t, "pool", []string{"", "", "", "p", "q", "r", "s", "unknown"})
}

func drawRequest(t *rapid.T, o ipam.Owner) ipam.Request {
	const v4, v6 = ipam.IPv4, ipam.IPv6
	req := ipam.Request{
		Owner:      o,
		Subject:    ipam.Subject{Namespace: draw(t, "namespace", []string{"red", "blue"})},
		Families:   draw(t, "families", [][]ipam.Family{{v4}, {v6}, {v4, v6}, {v6, v4}}),
		RequireAll: rapid.Bool().Draw(t, "requireAll"),
		Pool:       drawPoolName(t),
		Sharing:    drawTerms(t),
	}
	for range rapid.IntRange(0, 4).Draw(t, "grants") {
		req.Granted = append(req.Granted, ipam.Grant{Address: draw(t, "granted", universe), Pool: draw(t, "by", []string{"p", "q", "r", "s"})})
	}
	for range rapid.IntRange(-2, 2).Draw(t, "claimed") {
		c := ipam.Claimed{Pool: draw(t, "of", []string{"p", "q", "r", "s"}), Family: draw(t, "family", []ipam.Family{ipam.IPv4, ipam.IPv6})}
		if addr := draw(t, "claimed", universe); ipam.FamilyOf(addr) == c.Family {
			c.Address = addr
		}
		req.Claimed = append(req.Claimed, c)
	}
	if chance(t, "quota", 4) {
		req.Quota = drawLimits(t)
	}
	for range rapid.IntRange(-2, 2).Draw(t, "leave") {
		req.Leave = append(req.Leave, draw(t, "left", universe))
	}
	if chance(t, "several", 3) {
		req.Count = rapid.IntRange(1, 3).Draw(t, "count")
	}
	for range rapid.IntRange(0, len(req.Families)*wanted(req)).Draw(t, "exactly") {
		addr := draw(t, "address", universe)
		if f := ipam.FamilyOf(addr); slices.Contains(req.Families, f) && !slices.Contains(req.Addresses, addr) && len(asked(req, f)) < wanted(req) &&
			chance(t, "this", 2) {
			req.Addresses = append(req.Addresses, addr)
		}
	}
	return req
}

// run is an Allocator, and the model that it is compared with.
type run struct {
	*ipam.Allocator
	m *model
}

// TestAllocatorIsTheModel runs random sequences of calls, and compares the Allocator with the model after each
// call. The model takes no address away except on release, never gives one address to two owners that do not
// agree, and leaves none unused. The same is therefore true of the Allocator.
func TestAllocatorIsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &run{ipam.New(), newModel()}
		t.Repeat(map[string]func(*rapid.T){
			"pools": func(t *rapid.T) {
				pools := drawPools(t)
				if chance(t, "edited", 2) { // some pools stay as they were
					for i, p := range pools {
						if before := r.m.pool(p.Name); before != nil && chance(t, "addresses stay", 2) {
							pools[i].Addresses = before.Addresses
						}
					}
				}
				r.setPools(t, pools)
			},
			"allocate": func(t *rapid.T) {
				req := drawRequest(t, draw(t, "owner", services))
				if want, reason := r.allocate(t, req); reason == nil {
					again, reason := r.allocate(t, req)
					if diff := gocmp.Diff(want, again, addrs); reason != nil || diff != "" {
						t.Fatalf("asked twice: %v (-first +second)\n%s", reason, diff)
					}
				}
			},
			// Another system grants what an owner wants from it. The owner then gets it, and wants nothing that it cannot get.
			"grant": func(t *rapid.T) {
				req := drawRequest(t, draw(t, "owner", services))
				req.Addresses, req.Granted = nil, nil
				wants := r.Wants(req)
				for _, w := range wants {
					free := r.m.free(w.Pool, w.Family, req.Leave)
					if p := r.m.pool(w.Pool); !p.Granted || w.Count < 1 || w.Count > len(free) {
						t.Fatalf("Wants(%+v) = %+v, but %d addresses of %+v are free", req, wants, len(free), p)
					}
					for _, addr := range rapid.Permutation(free).Draw(t, "free")[:w.Count] {
						req.Granted = append(req.Granted, ipam.Grant{Address: addr, Pool: w.Pool})
						if e := r.Refused(req, ipam.Grant{Address: addr, Pool: w.Pool}); e != nil {
							t.Fatalf("%s is free, and a grant for it is refused: %v", addr, e)
						}
					}
				}
				if _, reason := r.allocate(t, req); errors.Is(reason, ipam.ErrNotGranted) || len(wants) > 0 && reason != nil {
					t.Fatalf("Allocate(%+v) with all grants of %+v: %v", req, wants, reason)
				}
			},
			// Many Services come and go, so that pools are used up.
			"come": func(t *rapid.T) {
				_, _ = r.allocate(t, ipam.Request{Owner: draw(t, "owner", services), Families: []ipam.Family{ipam.IPv4}, Sharing: drawTerms(t)})
			},
			"go": func(t *rapid.T) {
				if len(r.m.held) > 0 {
					h := draw(t, "holding", r.m.held)
					r.m.release(h.Address, h.Owner)
					r.Release(h.Address, h.Owner)
				}
			},
			"restore": func(t *rapid.T) {
				_ = r.restore(t, ipam.Allocation{Address: draw(t, "address", universe), Pool: drawPoolName(t), Owner: draw(t, "owner", tenants)}, drawTerms(t))
			},
			"replace": func(t *rapid.T) {
				var all []ipam.Tenant
				for range rapid.IntRange(0, 3).Draw(t, "tenants") {
					all = append(all, ipam.Tenant{Owner: draw(t, "owner", tenants), Sharing: drawTerms(t)})
				}
				r.replace(t, draw(t, "address", universe), drawPoolName(t), all)
			},
			"adopt": func(t *rapid.T) {
				req := drawRequest(t, draw(t, "owner", services))
				var carried []netip.Addr
				for range rapid.IntRange(1, 3).Draw(t, "carries") {
					carried = append(carried, draw(t, "carried", universe))
				}
				want := r.m.adopt(req, carried)
				if err := r.Adopt(req, carried); !errors.Is(err, want) {
					t.Fatalf("Adopt(%+v, %v) = %v, want %v", req, carried, err, want)
				}
			},
			"release": func(t *rapid.T) {
				addr, o := draw(t, "address", universe), draw(t, "owner", tenants)
				if got, want := r.Release(addr, o), r.m.release(addr, o); got != want {
					t.Fatalf("Release(%s, %v) = %v, want %v", addr, o, got, want)
				}
			},
			"resume": func(t *rapid.T) {
				addr := draw(t, "address", universe)
				r.Resume(addr)
				r.m.resume(addr)
			},
			"skip": func(t *rapid.T) {
				all := map[netip.Addr]string{}
				for _, addr := range universe {
					if r.m.skips(addr) && !chance(t, "no longer", 3) {
						all[addr] = "of a node"
					}
				}
				for range rapid.IntRange(0, 2).Draw(t, "more") {
					all[draw(t, "address", universe)] = "of a node"
				}
				r.m.skip(all)
				r.Skip(all)
			},
			"restart": func(t *rapid.T) {
				if after := r.restart(t); after != nil && rapid.Bool().Draw(t, "go on") {
					r = after
				}
			},
			"ask": func(t *rapid.T) { r.ask(t, drawRequest(t, draw(t, "owner", services)), draw(t, "address", universe)) },
			"":    func(t *rapid.T) { r.check(t) },
		})
	})
}

var addrs = gocmp.Comparer(func(x, y netip.Addr) bool { return x == y })

func (r *run) setPools(t *rapid.T, pools []ipam.Pool) {
	r.m.setPools(pools)
	if diff := gocmp.Diff(r.m.displaced(), r.SetPools(pools), addrs); diff != "" {
		t.Fatalf("displaced (-want +got):\n%s", diff)
	}
}

func (r *run) allocate(t *rapid.T, req ipam.Request) ([]ipam.Allocation, error) {
	held := func(addr netip.Addr) bool { return len(r.m.at(addr)) > 0 }
	free := slices.DeleteFunc(slices.Clone(universe), held)
	want, reason := r.m.allocate(req)
	got, err := r.Allocate(req)
	for _, al := range got {
		if p := r.m.pool(r.m.home(al.Address)); slices.Contains(free, al.Address) && p.Granted && !slices.Contains(req.Granted, ipam.Grant{Address: al.Address, Pool: p.Name}) {
			t.Fatalf("Allocate(%+v) gives %v, which was not granted", req, al)
		}
	}
	if !errors.Is(err, reason) {
		t.Fatalf("Allocate(%+v) failed with %v, want %v", req, err, reason)
	}
	if diff := gocmp.Diff(want, got, addrs); diff != "" {
		t.Fatalf("Allocate(%+v) (-want +got):\n%s", req, diff)
	}
	return want, reason
}

func (r *run) restore(t *rapid.T, al ipam.Allocation, terms ipam.Sharing) error {
	reason := r.m.restore(al, terms)
	if err := r.Restore(al, terms); !errors.Is(err, reason) {
		t.Fatalf("Restore(%v, %v) = %v, want %v", al, terms, err, reason)
	}
	return reason
}

func (r *run) replace(t *rapid.T, addr netip.Addr, pool string, all []ipam.Tenant) {
	want := r.m.replace(addr, pool, all)
	if lost, err := r.Replace(addr, pool, all); err != nil || !slices.Equal(lost, want) {
		t.Fatalf("Replace(%s, %v) took it from %v (%v), want %v", addr, all, lost, err, want)
	}
}

// restart returns an Allocator with the same records, read in a random order. It gives the same answers, except
// that it does not know the order of the releases. restart returns nil if the records contradict each other.
func (r *run) restart(t *rapid.T) *run {
	after, poolsFirst := &run{ipam.New(), newModel()}, rapid.Bool().Draw(t, "pools first")
	skipFirst := rapid.Bool().Draw(t, "skip first")
	if skipFirst {
		after.m.skip(r.m.skipped)
		after.Skip(r.m.skipped)
	}
	if poolsFirst {
		after.setPools(t, r.m.pools)
	}
	if rapid.Bool().Draw(t, "records outweigh") {
		for _, addr := range rapid.Permutation(universe).Draw(t, "records") {
			var all []ipam.Tenant
			for _, h := range r.m.at(addr) {
				all = append(all, ipam.Tenant{Owner: h.Owner, Sharing: h.terms})
				after.replace(t, addr, h.Pool, all)
			}
		}
	} else {
		for _, h := range rapid.Permutation(r.m.held).Draw(t, "records") {
			if after.restore(t, h.Allocation, h.terms) != nil {
				return nil
			}
		}
	}
	if !poolsFirst {
		after.setPools(t, r.m.pools)
	}
	if !skipFirst {
		after.m.skip(r.m.skipped)
		after.Skip(r.m.skipped)
	}
	after.check(t)
	req := drawRequest(t, ipam.Owner{Namespace: "red", Name: "new", UID: "new"})
	want, reason := r.allocate(t, req)
	got, afterwards := after.allocate(t, req)
	if !errors.Is(afterwards, reason) || len(got) != len(want) {
		t.Fatalf("Allocate(%+v) gives %v, %v; after a restart %v, %v", req, want, reason, got, afterwards)
	}
	for i, al := range want {
		if p := r.m.pool(r.m.home(al.Address)); p.Order == ipam.Lowest && got[i] != al {
			t.Fatalf("Allocate(%+v) gives %v, after a restart %v", req, al, got[i])
		}
	}
	for _, al := range want {
		r.m.release(al.Address, al.Owner)
		r.Release(al.Address, al.Owner)
	}
	for _, al := range got {
		after.m.release(al.Address, al.Owner)
		after.Release(al.Address, al.Owner)
	}
	return after
}

// ask calls the methods that change nothing.
func (r *run) ask(t *rapid.T, req ipam.Request, addr netip.Addr) {
	verdicts := r.Explain(req)
	for _, f := range req.Families {
		for range r.m.pools {
			v := verdicts[0]
			verdicts = verdicts[1:]
			one := req
			one.Pool = v.Pool
			p := *r.m.pool(v.Pool)
			more := wanted(req)
			for _, h := range r.m.of(req.Owner) {
				if ipam.FamilyOf(h.Address) == f {
					more = max(more-1, 1)
				}
			}
			want := len(r.m.candidates(one)) > 0 && (req.Pool == v.Pool || req.Pool == "" && p.AutoAssign) &&
				len(r.m.free(v.Pool, f, req.Leave)) >= more &&
				(!p.Granted || len(r.m.granted(p, req, f, req.Leave)) >= more) && !r.m.over(&p, req, f, nil, netip.Addr{}, more)
			if v.Family != f || (v.Refused == nil) != want {
				t.Fatalf("Explain(%+v) says %+v, want %s, %v", req, v, f, want)
			}
		}
	}
	held, settled := r.Settled(req)
	if settled {
		// The only thing that Allocate would add is a preferred family.
		for _, h := range r.m.of(req.Owner) {
			if !gives(held, h.Address) {
				t.Fatalf("Settled(%+v) = %v, but %v is held, too", req, held, h)
			}
		}
		for _, f := range req.Families {
			if n := len(slices.DeleteFunc(slices.Clone(held), func(al ipam.Allocation) bool { return ipam.FamilyOf(al.Address) != f })); n != wanted(req) &&
				(n > 0 || req.RequireAll) {
				t.Fatalf("Settled(%+v) = %v", req, held)
			}
		}
	}
	var notKept []netip.Addr
	for _, f := range r.NotKept(req) {
		notKept = append(notKept, f.Address)
	}
	var want []netip.Addr
	for _, h := range slices.Backward(r.m.of(nameOf(req.Owner))) {
		if slices.Contains(req.Families, ipam.FamilyOf(h.Address)) {
			want = append(want, h.Address)
		}
	}
	if !slices.Equal(notKept, want) {
		t.Fatalf("NotKept(%+v) = %v, want %v", req, notKept, want)
	}
	var others []ipam.Tenant
	for _, h := range r.m.at(addr) {
		others = append(others, ipam.Tenant{Owner: h.Owner, Sharing: h.terms})
	}
	agree := r.Agree(addr, others, ipam.Tenant{Owner: req.Owner, Sharing: req.Sharing}) == nil
	if want := r.m.agree(addr, req.Owner, req.Sharing); agree != want {
		t.Fatalf("Agree(%s, %v, %+v) = %v, want %v", addr, others, req, agree, want)
	}
}

// check compares everything that is visible.
func (r *run) check(t *rapid.T) {
	for _, addr := range universe {
		there := r.m.at(addr)
		if diff := gocmp.Diff(allocations(there), r.Holders(addr), addrs); diff != "" {
			t.Fatalf("holders of %s (-want +got):\n%s", addr, diff)
		}
		for _, h := range there {
			if got := r.Terms(addr, h.Owner); !got.Equal(h.terms) {
				t.Fatalf("%v shares %s on the terms %v, want %v", h.Owner, addr, got, h.terms)
			}
		}
		if pool, _ := r.PoolOf(addr); pool != r.m.home(addr) {
			t.Fatalf("%s is in pool %q, want %q", addr, pool, r.m.home(addr))
		}
		displaced := slices.ContainsFunc(r.m.displaced(), func(al ipam.Allocation) bool { return al.Address == addr })
		if got := r.IsDisplaced(addr); got != displaced {
			t.Fatalf("IsDisplaced(%s) = %v, want %v", addr, got, displaced)
		}
	}
	for _, o := range tenants {
		if diff := gocmp.Diff(allocations(r.m.of(o)), r.HeldBy(o), addrs); diff != "" {
			t.Fatalf("held by %v (-want +got):\n%s", o, diff)
		}
	}
	for _, p := range append([]ipam.Pool{{}}, r.m.pools...) {
		for _, f := range []ipam.Family{ipam.IPv4, ipam.IPv6} {
			for _, namespace := range namespaces {
				if got, want := r.Use(p.Name, namespace, f), r.m.use(p.Name, namespace, f); got != want {
					t.Fatalf("Use(%q, %q, %s) = %d, want %d", p.Name, namespace, f, got, want)
				}
			}
		}
	}
	for _, p := range r.m.pools {
		for _, f := range []ipam.Family{ipam.IPv4, ipam.IPv6} {
			want := ipam.Usage{Available: uint64(len(r.m.free(p.Name, f, nil)))}
			for _, addr := range r.m.own(p.Name, f) {
				want.Capacity++
				if len(r.m.at(addr)) > 0 {
					want.Assigned++
				} else if r.m.skips(addr) {
					want.Skipped++
				}
			}
			if got := r.Usage(p.Name)[f]; got != want {
				t.Fatalf("Usage(%q)[%s] = %+v, want %+v", p.Name, f, got, want)
			}
		}
		for _, addr := range universe {
			lost := ""
			for _, o := range r.Overlaps(p.Name) {
				for _, ends := range o.Ranges {
					if ends.Contains(addr) {
						lost += o.Pool
					}
				}
			}
			want := ""
			if home := r.m.home(addr); p.Addresses.Contains(addr) && home != p.Name {
				want = home
			}
			if lost != want {
				t.Fatalf("%q lost %s to %q, want %q", p.Name, addr, lost, want)
			}
		}
	}
}
