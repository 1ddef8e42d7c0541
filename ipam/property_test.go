package ipam_test

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/heraldlb/herald/ipam"
	"go4.org/netipx"
	"pgregory.net/rapid"
)

// universe is every address the property tests know: few, so that they collide.
// Its last address is in no pool.
var universe = func() (all []netip.Addr) {
	for _, r := range []string{"198.51.100.250-198.51.101.4", "2001:db8::fffe-2001:db8::1:5"} {
		ends := netipx.MustParseIPRange(r)
		for addr := ends.From(); ends.Contains(addr); addr = addr.Next() {
			all = append(all, addr)
		}
	}
	return all
}()

var owners = []string{"", "a", "b", "c", "d"}

// model is the Allocator as one would write it first: it remembers everything in
// lists and looks at every address.
type model struct {
	pools []ipam.Pool
	held  []ipam.Allocation // in the order taken
}

func (m *model) holder(addr netip.Addr) (ipam.Allocation, bool) {
	for _, al := range m.held {
		if al.Address == addr {
			return al, true
		}
	}
	return ipam.Allocation{}, false
}

func (m *model) heldBy(uid string) (all []ipam.Allocation) {
	for _, al := range m.held {
		if uid != "" && al.Owner.UID == uid {
			all = append(all, al)
		}
	}
	return all
}

func (m *model) home(addr netip.Addr) string {
	for _, p := range m.pools {
		if p.Addresses.Contains(addr) {
			return p.Name
		}
	}
	return ""
}

func (m *model) own(pool string, f ipam.Family) (all []netip.Addr) {
	for _, addr := range universe {
		if ipam.FamilyOf(addr) == f && m.home(addr) == pool {
			all = append(all, addr)
		}
	}
	return all
}

func (m *model) free(pool string, f ipam.Family) []netip.Addr {
	return slices.DeleteFunc(m.own(pool, f), func(addr netip.Addr) bool { _, taken := m.holder(addr); return taken })
}

func (m *model) displaced() (all []ipam.Allocation) {
	for _, al := range m.held {
		if home := m.home(al.Address); home == "" || al.Pool != "" && al.Pool != home {
			all = append(all, al)
		}
	}
	slices.SortFunc(all, func(x, y ipam.Allocation) int { return x.Address.Compare(y.Address) })
	return all
}

func (m *model) restore(al ipam.Allocation) error {
	for i, held := range m.held {
		if held.Address != al.Address {
			continue
		}
		if held.Owner != al.Owner { // the tests' UIDs and names go together
			return ipam.ErrTaken
		}
		m.held[i] = al
		return nil
	}
	m.held = append(m.held, al)
	return nil
}

func (m *model) release(addr netip.Addr, o ipam.Owner) bool {
	before := len(m.held)
	m.held = slices.DeleteFunc(m.held, func(al ipam.Allocation) bool { return al.Address == addr && al.Owner == o })
	return len(m.held) < before
}

// allocate returns what is to be given, and holds it.
func (m *model) allocate(req ipam.Request) ([]ipam.Allocation, error) {
	given := map[ipam.Family]ipam.Allocation{}
	for _, addr := range req.Addresses {
		al, err := m.exactly(addr, req)
		if err != nil {
			return nil, err
		}
		given[ipam.FamilyOf(addr)] = al
	}
	var want []ipam.Family
	for _, f := range req.Families {
		if _, ok := given[f]; ok {
			continue
		}
		want = append(want, f)
		for _, al := range m.heldBy(req.Owner.UID) {
			fits := req.Pool == "" || al.Pool == "" || al.Pool == req.Pool || m.home(al.Address) == req.Pool
			if ipam.FamilyOf(al.Address) == f && fits {
				given[f] = al // the last wins
			}
		}
		if _, ok := given[f]; ok {
			want = want[:len(want)-1]
		}
	}
	if err := m.choose(req, want, given); err != nil {
		return nil, err
	}
	var all []ipam.Allocation
	for _, f := range req.Families {
		if al, ok := given[f]; ok {
			all = append(all, al)
			m.held = append(slices.DeleteFunc(m.held, func(held ipam.Allocation) bool { return held.Address == al.Address }), al)
		}
	}
	return all, nil
}

func (m *model) exactly(addr netip.Addr, req ipam.Request) (ipam.Allocation, error) {
	al, taken := m.holder(addr)
	home := m.home(addr)
	named := slices.ContainsFunc(m.pools, func(p ipam.Pool) bool { return p.Name == req.Pool })
	shut := slices.ContainsFunc(m.pools, func(p ipam.Pool) bool { return p.Name == home && (p.Closed || !serves(p, req)) })
	switch {
	case taken && al.Owner == req.Owner:
		return al, nil
	case req.Pool != "" && !named:
		return al, ipam.ErrNoPool
	case home == "", req.Pool != "" && req.Pool != home:
		return al, ipam.ErrNotInPool
	case taken:
		return al, ipam.ErrTaken
	case shut:
		return al, ipam.ErrNoPool
	}
	return ipam.Allocation{Address: addr, Pool: home, Owner: req.Owner}, nil
}

func serves(p ipam.Pool, req ipam.Request) bool { return p.Serves == nil || p.Serves(&req.Subject) }

func (m *model) choose(req ipam.Request, want []ipam.Family, given map[ipam.Family]ipam.Allocation) error {
	var candidates []string
	byPriority := slices.SortedStableFunc(slices.Values(m.pools), func(x, y ipam.Pool) int { return cmp.Compare(y.Priority, x.Priority) })
	for _, p := range byPriority {
		if !p.Closed && serves(p, req) && (p.Name == req.Pool || req.Pool == "" && p.AutoAssign) {
			candidates = append(candidates, p.Name)
		}
	}
	// The order of choice: pools that serve a family already and can serve the rest,
	// pools that can serve all that is wanted, any.
	rank := func(pool string) int {
		if slices.ContainsFunc(want, func(f ipam.Family) bool { return len(m.free(pool, f)) == 0 }) {
			return 2
		}
		for _, al := range given {
			if m.home(al.Address) == pool {
				return 0
			}
		}
		return 1
	}
	preferred := slices.SortedStableFunc(slices.Values(candidates), func(x, y string) int { return rank(x) - rank(y) })
	var refused error
	for _, f := range want {
		var own int
		var chosen *ipam.Allocation
		for _, pool := range preferred {
			own += len(m.own(pool, f))
			if free := m.free(pool, f); chosen == nil && len(free) > 0 {
				chosen = &ipam.Allocation{Address: free[0], Pool: pool, Owner: req.Owner}
			}
		}
		if chosen != nil {
			given[f] = *chosen
			continue
		}
		reason := ipam.ErrExhausted
		if own == 0 {
			reason = ipam.ErrNoPool
		}
		loses := slices.ContainsFunc(m.heldBy(req.Owner.UID), func(al ipam.Allocation) bool { return ipam.FamilyOf(al.Address) == f })
		if req.RequireAll || loses {
			return reason
		}
		if refused == nil {
			refused = reason
		}
	}
	if len(given) == 0 {
		return refused
	}
	return nil
}

// Generators.

func draw[T any](t *rapid.T, label string, from []T) T { return rapid.SampledFrom(from).Draw(t, label) }

func drawOwner(t *rapid.T, from []string) ipam.Owner {
	uid := draw(t, "owner", from)
	if uid == "" {
		return ipam.Owner{}
	}
	return owner(uid)
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
			AutoAssign: rapid.IntRange(0, 3).Draw(t, "autoAssign") > 0,
			Closed:     rapid.IntRange(0, 4).Draw(t, "closed") == 0,
			Order:      ipam.Lowest,
			Priority:   rapid.IntRange(0, 2).Draw(t, "priority"),
			Serves:     draw(t, "serves", []func(*ipam.Subject) bool{nil, nil, in("red"), in("blue")}),
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
	}
	for _, f := range req.Families {
		if addr := draw(t, "address", universe); ipam.FamilyOf(addr) == f && rapid.IntRange(0, 2).Draw(t, "exactly") == 0 {
			req.Addresses = append(req.Addresses, addr)
		}
	}
	return req
}

// TestAllocatorIsTheModel runs any sequence of calls and holds the Allocator against
// the model after each. The model never takes an address away but on release, nor
// gives one twice, nor leaves any unused, so neither does the Allocator.
func TestAllocatorIsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, m := ipam.New(), &model{}
		allocate := func(t *rapid.T, a *ipam.Allocator, req ipam.Request, want []ipam.Allocation, reason error) {
			got, err := a.Allocate(req)
			if !errors.Is(err, reason) {
				t.Fatalf("Allocate(%+v) failed with %v, want %v", req, err, reason)
			}
			if diff := gocmp.Diff(want, got, addrs); diff != "" {
				t.Fatalf("Allocate(%+v) (-want +got):\n%s", req, diff)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"pools": func(t *rapid.T) {
				m.pools = drawPools(t)
				if diff := gocmp.Diff(m.displaced(), a.SetPools(m.pools), addrs); diff != "" {
					t.Fatalf("displaced (-want +got):\n%s", diff)
				}
			},
			"allocate": func(t *rapid.T) {
				req := drawRequest(t, drawOwner(t, owners[1:]))
				want, reason := m.allocate(req)
				allocate(t, a, req, want, reason)
				if reason == nil {
					allocate(t, a, req, want, nil) // again: the same
				}
			},
			"restore": func(t *rapid.T) {
				al := ipam.Allocation{Address: draw(t, "address", universe), Pool: drawPoolName(t), Owner: drawOwner(t, owners)}
				if got, want := a.Restore(al, ipam.Sharing{}), m.restore(al); !errors.Is(got, want) {
					t.Fatalf("Restore(%v) = %v, want %v", al, got, want)
				}
			},
			"release": func(t *rapid.T) {
				addr, o := draw(t, "address", universe), drawOwner(t, owners)
				if al, ok := m.holder(addr); ok && rapid.Bool().Draw(t, "by holder") {
					o = al.Owner
				}
				if got, want := a.Release(addr, o), m.release(addr, o); got != want {
					t.Fatalf("Release(%s, %v) = %v, want %v", addr, o, got, want)
				}
			},
			// A restart changes no answer, in whatever order the records are read.
			"restart": func(t *rapid.T) {
				rebuilt, poolsFirst := ipam.New(), rapid.Bool().Draw(t, "pools first")
				if poolsFirst {
					rebuilt.SetPools(m.pools)
				}
				for _, al := range rapid.Permutation(slices.Clone(m.held)).Draw(t, "records") {
					if err := rebuilt.Restore(al, ipam.Sharing{}); err != nil {
						t.Fatal(err)
					}
				}
				if !poolsFirst {
					rebuilt.SetPools(m.pools)
				}
				if diff := gocmp.Diff(a.Displaced(), rebuilt.Displaced(), addrs); diff != "" {
					t.Fatalf("displaced after a restart (-before +after):\n%s", diff)
				}
				req := drawRequest(t, owner("new"))
				want, reason := m.allocate(req)
				allocate(t, a, req, want, reason)
				allocate(t, rebuilt, req, want, reason)
				for _, al := range want {
					m.release(al.Address, al.Owner)
					a.Release(al.Address, al.Owner)
				}
			},
			"": func(t *rapid.T) { agree(t, a, m) },
		})
	})
}

var addrs = gocmp.Comparer(func(x, y netip.Addr) bool { return x == y })

func agree(t *rapid.T, a *ipam.Allocator, m *model) {
	for _, addr := range universe {
		var wanted []ipam.Allocation
		if al, held := m.holder(addr); held {
			wanted = append(wanted, al)
		}
		if got := a.Holders(addr); !slices.Equal(got, wanted) {
			t.Fatalf("%s is held by %v, want %v", addr, got, wanted)
		}
		if pool, _ := a.PoolOf(addr); pool != m.home(addr) {
			t.Fatalf("%s is in pool %q, want %q", addr, pool, m.home(addr))
		}
	}
	for _, uid := range owners {
		if diff := gocmp.Diff(m.heldBy(uid), a.HeldBy(ipam.Owner{UID: uid}), addrs); diff != "" {
			t.Fatalf("held by %q (-want +got):\n%s", uid, diff)
		}
	}
	for i, p := range m.pools {
		for _, f := range []ipam.Family{ipam.IPv4, ipam.IPv6} {
			capacity, available := len(m.own(p.Name, f)), len(m.free(p.Name, f))
			want := ipam.Usage{Capacity: uint64(capacity), Assigned: uint64(capacity - available), Available: uint64(available)}
			if got := a.Usage(p.Name)[f]; got != want {
				t.Fatalf("Usage(%q)[%s] = %+v, want %+v", p.Name, f, got, want)
			}
		}
		for _, addr := range universe {
			lost := ""
			for _, o := range a.Overlaps(p.Name) {
				for _, r := range o.Ranges {
					if r.Contains(addr) {
						lost += o.Pool
					}
				}
			}
			want := ""
			if home := m.home(addr); p.Addresses.Contains(addr) && home != m.pools[i].Name {
				want = home
			}
			if lost != want {
				t.Fatalf("%q lost %s to %q, want %q", p.Name, addr, lost, want)
			}
		}
	}
}
