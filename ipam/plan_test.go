package ipam_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/heraldlb/herald/ipam"
	"pgregory.net/rapid"
)

func TestPlan(t *testing.T) {
	const v4, v6 = ipam.IPv4, ipam.IPv6
	public := pool("public", "198.51.100.0/30")
	admitting := public
	admitting.Classes = []string{"gw"}
	gateway := func(name string, addresses ...string) request {
		r := ask(name, v4)
		r.Class = "gw"
		for _, a := range addresses {
			r = r.exactly(a)
		}
		return r
	}
	holds := func(name, text string) ipam.Record {
		al := read(text, owner(name))
		return ipam.Record{Address: al.Address, Pool: al.Pool, Tenants: []ipam.Tenant{{Owner: al.Owner}}}
	}
	for name, c := range map[string]struct {
		before, after []ipam.Pool
		held          []ipam.Record
		asks          []request
		carried       map[string][]netip.Addr
		skipped       []string
		want          []string
	}{
		"nothing changes": {
			before: []ipam.Pool{public}, after: []ipam.Pool{public},
			held: []ipam.Record{holds("web", "198.51.100.0@public"), holds("out", "203.0.113.1@public")},
			asks: []request{ask("web", v4), ask("out", v4), ask("late", v4).from("gold")},
			want: []string{
				"kept 198.51.100.0 of web", "outside 203.0.113.1 of out", `late is refused: no pool: IPv4, pool "gold", it is unknown`,
				"public: IPv4 1/4 -> IPv4 1/4",
			},
		},
		"a pool is narrowed": {
			before: []ipam.Pool{public}, after: []ipam.Pool{pool("public", "198.51.100.0/31")},
			held: []ipam.Record{holds("web", "198.51.100.0@public"), holds("db", "198.51.100.2@public")},
			asks: []request{ask("web", v4), ask("db", v4)},
			want: []string{"kept 198.51.100.0 of web", "displaced 198.51.100.2 of db", "public: IPv4 2/4 -> IPv4 1/2"},
		},
		"and widened again": {
			before: []ipam.Pool{pool("public", "198.51.100.0/31")}, after: []ipam.Pool{public},
			held: []ipam.Record{holds("db", "198.51.100.2@public")},
			want: []string{"returned 198.51.100.2 of db", "public: IPv4 0/2 -> IPv4 1/4"},
		},
		"a pool is split": {
			before: []ipam.Pool{public},
			after:  []ipam.Pool{pool("public", "198.51.100.0/31"), pool("rest", "198.51.100.2/31")},
			held:   []ipam.Record{holds("db", "198.51.100.2@public")},
			want:   []string{"displaced 198.51.100.2 of db, to rest", "public: IPv4 1/4 -> IPv4 0/2", "rest: -> IPv4 1/2"},
		},
		"a pool goes": {
			before: []ipam.Pool{public, pool("old", "203.0.113.0")}, after: []ipam.Pool{public},
			held: []ipam.Record{holds("web", "203.0.113.0@old")},
			want: []string{"displaced 203.0.113.0 of web", "public: IPv4 0/4 -> IPv4 0/4", "old: IPv4 1/1 ->"},
		},
		"the oldest that wait are served first": {
			before: []ipam.Pool{pool("tiny", "203.0.113.0")}, after: []ipam.Pool{pool("tiny", "203.0.113.0-203.0.113.2")},
			held: []ipam.Record{holds("web", "203.0.113.0@tiny")},
			asks: []request{ask("web", v4), ask("a", v4), ask("six", v6), ask("b", v4), ask("c", v4)},
			want: []string{
				"kept 203.0.113.0 of web", "a gets 203.0.113.1@tiny", "b gets 203.0.113.2@tiny",
				`six is refused: no pool: IPv6, pool "tiny", it has no addresses of the family`,
				`c is refused: no free address: IPv4, pool "tiny", none is free`,
				"tiny: IPv4 1/1 -> IPv4 3/3",
			},
		},
		"who prefers two families gets the second": {
			before: []ipam.Pool{public}, after: []ipam.Pool{public, pool("six", "2001:db8::")},
			held: []ipam.Record{holds("web", "198.51.100.0@public")},
			asks: []request{ask("web", v4, v6).preferring()},
			want: []string{"kept 198.51.100.0 of web", "web gets 2001:db8::@six", "public: IPv4 1/4 -> IPv4 1/4", "six: -> IPv6 1/1"},
		},
		"who named a pool moves there": {
			before: []ipam.Pool{public}, after: []ipam.Pool{public, onRequest(pool("gold", "203.0.113.0/31"))},
			held: []ipam.Record{holds("web", "198.51.100.0@public")},
			asks: []request{ask("web", v4).from("gold")},
			want: []string{
				"kept 198.51.100.0 of web", "web gets 203.0.113.0@gold, leaving 198.51.100.0@public",
				"public: IPv4 1/4 -> IPv4 1/4", "gold: -> IPv4 1/2",
			},
		},
		"a new pool overlaps an older one": {
			before: []ipam.Pool{public}, after: []ipam.Pool{public, pool("young", "198.51.100.2-198.51.100.5")},
			want: []string{"public: IPv4 0/4 -> IPv4 0/4", "young: -> IPv4 0/2, public has 198.51.100.2-198.51.100.3"},
		},
		"an overlap that was is not new, what is added to it is": {
			before: []ipam.Pool{public, pool("young", "198.51.100.3-198.51.100.5")},
			after:  []ipam.Pool{public, pool("young", "198.51.100.2-198.51.100.5")},
			want:   []string{"public: IPv4 0/4 -> IPv4 0/4", "young: IPv4 0/2 -> IPv4 0/2, public has 198.51.100.2-198.51.100.2"},
		},
		"who carries an address keeps it": {
			after:   []ipam.Pool{public},
			asks:    []request{ask("new", v4), ask("arrived", v4), ask("abroad", v4)},
			carried: map[string][]netip.Addr{"arrived": {netip.MustParseAddr("198.51.100.2")}, "abroad": {netip.MustParseAddr("203.0.113.9")}},
			want: []string{
				"new gets 198.51.100.0@public", "arrived gets 198.51.100.2@public",
				"abroad is refused: address is not in the pool: 203.0.113.9, it is carried, and in no pool",
				"public: -> IPv4 2/4",
			},
		},
		"what is never given out is not promised": {
			before: []ipam.Pool{public}, after: []ipam.Pool{public, pool("new", "203.0.113.0/30")},
			held:    []ipam.Record{holds("node", "198.51.100.1@public")},
			asks:    []request{ask("a", v4), ask("b", v4), ask("c", v4), ask("d", v4).from("new")},
			skipped: []string{"198.51.100.0", "198.51.100.1", "198.51.100.3", "203.0.113.0"},
			want: []string{
				"kept 198.51.100.1 of node", "b gets 203.0.113.1@new", "c gets 203.0.113.2@new", "d gets 203.0.113.3@new",
				"public: IPv4 2/4 -> IPv4 2/4", "new: -> IPv4 3/4",
			},
		},
		"one address of two": {
			before: []ipam.Pool{public}, after: []ipam.Pool{pool("public", "198.51.100.0")},
			held: []ipam.Record{{Address: netip.MustParseAddr("198.51.100.2"), Pool: "public", Tenants: []ipam.Tenant{
				{Owner: owner("a"), Sharing: ipam.Sharing{Key: "k"}}, {Owner: owner("b"), Sharing: ipam.Sharing{Key: "k"}},
			}}},
			want: []string{"displaced 198.51.100.2 of a and b", "public: IPv4 1/4 -> IPv4 0/1"},
		},
		"what is reserved for a name is given to it": {
			before: []ipam.Pool{onRequest(public)}, after: []ipam.Pool{public},
			held: []ipam.Record{{Address: netip.MustParseAddr("198.51.100.2"), Tenants: []ipam.Tenant{{Owner: reservation("web")}}}},
			asks: []request{ask("db", v4), ask("web", v4)},
			want: []string{"kept 198.51.100.2 of web", "db gets 198.51.100.0@public", "public: IPv4 1/4 -> IPv4 2/4"},
		},
		"a pool goes on where it was": {
			before: []ipam.Pool{circling(closed(pool("public", "198.51.100.0-198.51.100.6")))},
			after:  []ipam.Pool{circling(pool("public", "198.51.100.0-198.51.100.7"))},
			held:   []ipam.Record{holds("web", "198.51.100.4@public")},
			asks:   []request{ask("a", v4)},
			want:   []string{"kept 198.51.100.4 of web", "a gets 198.51.100.5@public", "public: IPv4 1/7 -> IPv4 2/8"},
		},
		"a closed pool keeps what is held and serves nobody": {
			before: []ipam.Pool{public}, after: []ipam.Pool{closed(public)},
			held: []ipam.Record{holds("web", "198.51.100.0@public")},
			asks: []request{ask("web", v4)},
			want: []string{"kept 198.51.100.0 of web", "public: IPv4 1/4 -> IPv4 1/4"},
		},
		"a pool admits a class": {
			before: []ipam.Pool{public}, after: []ipam.Pool{admitting},
			held: []ipam.Record{holds("web", "198.51.100.0@public")},
			asks: []request{gateway("gw", "198.51.100.1", "203.0.113.1"), gateway("thief", "198.51.100.0")},
			want: []string{
				"kept 198.51.100.0 of web", "gw gets 198.51.100.1@public", "thief is refused: address is taken: 198.51.100.0, pool \"public\", others are there, not shared",
				"public: IPv4 1/4 -> IPv4 2/4",
			},
		},
		"a pool no longer admits a class": {
			before: []ipam.Pool{admitting}, after: []ipam.Pool{public},
			held: []ipam.Record{holds("gw", "198.51.100.1@public")},
			asks: []request{gateway("gw", "198.51.100.1")},
			want: []string{
				"kept 198.51.100.1 of gw", `gw loses 198.51.100.1@public: no pool: IPv4, pool "public", it does not admit the class`,
				"public: IPv4 1/4 -> IPv4 1/4",
			},
		},
		"a pool that admits a class is narrowed": {
			before: []ipam.Pool{admitting},
			held:   []ipam.Record{holds("gw", "198.51.100.1@public"), holds("web", "198.51.100.0@public")},
			asks:   []request{gateway("gw", "198.51.100.1")},
			want: []string{
				"displaced 198.51.100.1 of gw", "displaced 198.51.100.0 of web",
				"gw loses 198.51.100.1@public: address is not in the pool: 198.51.100.1, it is in no pool", "public: IPv4 2/4 ->",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var asks []ipam.Ask
			for _, r := range c.asks {
				asks = append(asks, ipam.Ask{Request: ipam.Request(r), Carried: c.carried[r.Owner.Name]})
			}
			skipped := map[netip.Addr]string{}
			for _, text := range c.skipped {
				skipped[netip.MustParseAddr(text)] = "the address of a node"
			}
			e, err := ipam.Plan(c.before, c.after, c.held, skipped, asks)
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(c.want, narrate(e)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestPlanOfWhatCannotBe(t *testing.T) {
	held := []ipam.Record{{Address: netip.MustParseAddr("::ffff:198.51.100.0")}}
	if _, err := ipam.Plan(nil, nil, held, nil, nil); !errors.Is(err, ipam.ErrInvalid) {
		t.Errorf("an address with two spellings: %v", err)
	}
}

// TestPlanComesTrue compares plans for random pools, held addresses and requests with a model, which looks at
// each address separately.
func TestPlanComesTrue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		was, now := drawPools(t), drawPools(t)
		if chance(t, "unchanged", 4) {
			now = was
		}
		var held []ipam.Record
		for _, addr := range rapid.SliceOfDistinct(rapid.SampledFrom(universe), rapid.ID).Draw(t, "held") {
			held = append(held, ipam.Record{Address: addr, Pool: drawPoolName(t),
				Tenants: []ipam.Tenant{{Owner: draw(t, "owner", tenants), Sharing: drawTerms(t)}}})
		}
		skipped := map[netip.Addr]string{}
		for _, addr := range rapid.SliceOfN(rapid.SampledFrom(universe), 0, 4).Draw(t, "skipped") {
			skipped[addr] = "the address of a node"
		}
		before, after := newModel(), newModel()
		for _, m := range []*model{before, after} {
			m.setPools(was)
			for _, r := range held {
				m.replace(r.Address, r.Pool, r.Tenants)
				m.resume(r.Address)
			}
			m.skip(skipped)
		}
		after.setPools(now)
		var asks []ipam.Ask
		for _, o := range rapid.Permutation(services).Draw(t, "who ask") {
			asks = append(asks, ipam.Ask{Request: drawRequest(t, o)})
		}
		e, err := ipam.Plan(before.pools, after.pools, held, skipped, asks)
		if err != nil {
			t.Fatal(err)
		}

		for _, l := range []struct {
			what     string
			got      []ipam.Placed
			out, now bool
		}{
			{"kept", e.Kept, false, false}, {"displaced", e.Displaced, false, true},
			{"returned", e.Returned, true, false}, {"outside", e.Outside, true, true},
		} {
			var want []ipam.Placed
			for i, h := range after.held[:len(held)] {
				if slices.Contains(before.displaced(), h.Allocation) == l.out && slices.Contains(after.displaced(), h.Allocation) == l.now {
					want = append(want, ipam.Placed{Record: held[i], Home: after.home(h.Address)})
				}
			}
			if diff := gocmp.Diff(want, l.got, addrs); diff != "" {
				t.Fatalf("%s (-want +got):\n%s", l.what, diff)
			}
		}

		var served, refused []string
		for _, a := range asks {
			had, _ := before.allocate(a.Request)
			gets, err := after.allocate(a.Request)
			if err != nil {
				refused = append(refused, a.Owner.Name+": "+err.Error())
				continue
			}
			s := ipam.Served{Owner: a.Owner}
			for _, al := range gets {
				if !slices.ContainsFunc(had, func(h ipam.Allocation) bool { return ipam.FamilyOf(h.Address) == ipam.FamilyOf(al.Address) }) {
					s.Given = append(s.Given, al)
				}
			}
			if len(s.Given) > 0 {
				served = append(served, fmt.Sprint(s.Owner, spell(s.Given)))
			}
		}
		var gotServed, gotRefused []string
		for _, s := range e.Served {
			gotServed = append(gotServed, fmt.Sprint(s.Owner, spell(s.Given)))
		}
		for _, r := range e.Refused {
			gotRefused = append(gotRefused, r.Owner.Name+": "+errors.Unwrap(r.Err).Error())
		}
		if diff := gocmp.Diff(served, gotServed); diff != "" {
			t.Fatalf("served (-want +got):\n%s", diff)
		}
		if diff := gocmp.Diff(refused, gotRefused); diff != "" {
			t.Fatalf("refused (-want +got):\n%s", diff)
		}
		for i, p := range after.pools {
			for _, f := range []ipam.Family{ipam.IPv4, ipam.IPv6} {
				got, capacity, free := e.Pools[i].After[f], len(after.own(p.Name, f)), len(after.free(p.Name, f, nil))
				if e.Pools[i].Name != p.Name || int(got.Capacity) != capacity || int(got.Available) != free {
					t.Fatalf("%s of %q: %d of %d free, told %+v of %q", f, p.Name, free, capacity, got, e.Pools[i].Name)
				}
			}
		}
		if len(before.pools) == len(after.pools) && (len(after.pools) == 0 || &before.pools[0] == &after.pools[0]) {
			unchanged(t, e)
		}
	})
}

// unchanged checks that there is no effect.
func unchanged(t *rapid.T, e *ipam.Effect) {
	if len(e.Displaced)+len(e.Returned)+len(e.Served) > 0 {
		t.Fatalf("nothing changes and yet there is %v", narrate(e))
	}
	for _, p := range e.Pools {
		if len(p.Lost) > 0 || !gocmp.Equal(p.Before, p.After) {
			t.Fatalf("nothing changes and yet there is %v", narrate(e))
		}
	}
}

func circling(p ipam.Pool) ipam.Pool { p.Order = ipam.LeastRecentlyUsed; return p }

// narrate describes an effect in words.
func narrate(e *ipam.Effect) (lines []string) {
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, l := range []struct {
		what string
		list []ipam.Placed
	}{{"kept", e.Kept}, {"displaced", e.Displaced}, {"returned", e.Returned}, {"outside", e.Outside}} {
		for _, p := range l.list {
			to := ""
			if p.Home != "" && p.Pool != "" && p.Home != p.Pool {
				to = ", to " + p.Home
			}
			add("%s %s of %s%s", l.what, p.Address, names(p.Tenants), to)
		}
	}
	for _, s := range e.Served {
		left := ""
		if len(s.Left) > 0 {
			left = ", leaving " + strings.Join(spell(s.Left), " ")
		}
		add("%s gets %s%s", s.Owner.Name, strings.Join(spell(s.Given), " "), left)
	}
	for _, r := range e.Released {
		add("%s loses %s: %v", r.Owner.Name, strings.Join(spell([]ipam.Allocation{r.Allocation}), " "), r.Err)
	}
	for _, r := range e.Refused {
		add("%s is refused: %v", r.Owner.Name, r.Err)
	}
	for _, p := range e.Pools {
		text := p.Name + ":" + count(p.Before) + " ->" + count(p.After)
		for _, o := range p.Lost {
			text += fmt.Sprintf(", %s has", o.Pool)
			for _, r := range o.Ranges {
				text += fmt.Sprint(" ", r)
			}
		}
		lines = append(lines, text)
	}
	return lines
}

func names(tenants []ipam.Tenant) string {
	var all []string
	for _, t := range tenants {
		all = append(all, t.Owner.Name)
	}
	return strings.Join(all, " and ")
}

func count(u map[ipam.Family]ipam.Usage) (text string) {
	for _, f := range []ipam.Family{ipam.IPv4, ipam.IPv6} {
		if c, ok := u[f]; ok {
			text += fmt.Sprintf(" %s %d/%d", f, c.Assigned, c.Capacity)
		}
	}
	return text
}
