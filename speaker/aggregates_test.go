package speaker

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/heraldlb/herald/speaker/announce"
	"github.com/heraldlb/herald/speaker/bgp/route"
)

// Addresses are added, changed and removed in any order. A network is always announced as the remaining addresses require, and
// the changes that routers are told add up to that.
func TestNetworksAreThoseOfTheAddressesThatAreThere(t *testing.T) {
	networks := []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/64")}
	ads := []announce.BGPAdvertisement{{Name: "a", Attributes: route.Attributes{Prepend: 1}}, {Name: "b", Attributes: route.Attributes{Prepend: 2}}}
	rapid.Check(t, func(t *rapid.T) {
		g := newAggregates()
		now := map[int][]announce.Aggregate{}
		told := map[netip.Prefix]map[string]route.Attributes{}
		for step := range rapid.IntRange(1, 20).Draw(t, "steps") {
			address := rapid.IntRange(0, 3).Draw(t, fmt.Sprint("address", step))
			var after []announce.Aggregate
			for _, n := range networks {
				for _, peer := range []string{"east", "west"} {
					for _, ad := range ads {
						if rapid.IntRange(0, 3).Draw(t, fmt.Sprint(step, n, peer, ad.Name)) == 0 {
							after = append(after, announce.Aggregate{Prefix: n, Peer: peer, Advertisement: ad.Name})
						}
					}
				}
			}
			g.replace(now[address], after)
			now[address] = after
			for n := range g.changed {
				told[n] = g.exports(n, &announce.Shared{BGP: ads})
			}
			clear(g.changed)
		}
		for _, n := range networks {
			want := map[string]route.Attributes{}
			for _, ad := range slices.Backward(ads) { // The first by name comes last and stays.
				for _, all := range now {
					for _, a := range all {
						if a.Prefix == n && a.Advertisement == ad.Name {
							want[a.Peer] = ad.Attributes
						}
					}
				}
			}
			if !maps.EqualFunc(told[n], want, route.Attributes.Equal) {
				t.Fatalf("%v is announced to %v, want %v", n, told[n], want)
			}
		}
		if len(g.addresses) > len(networks) {
			t.Fatalf("%d networks are remembered", len(g.addresses))
		}
	})
}

// A network stays while an address in it is announced, and its attributes follow the advertisement.
func TestANetworkStaysWhileAnAddressInItDoes(t *testing.T) {
	network := netip.MustParsePrefix("198.51.100.0/24")
	l := loopOf(t, "n1")
	l.shared.BGP = []announce.BGPAdvertisement{{Name: "all", Attributes: route.Attributes{Prepend: 1}}}
	with := announce.Decision{Aggregates: []announce.Aggregate{{Prefix: network, Peer: "tor", Advertisement: "all"}}}
	for _, step := range []struct {
		name          string
		address       string
		before, after announce.Decision
		announced     bool
	}{
		{"the first address", "198.51.100.7", announce.Decision{}, with, true},
		{"the second", "198.51.100.8", announce.Decision{}, with, true},
		{"the first goes", "198.51.100.7", with, announce.Decision{}, true},
		{"the second goes", "198.51.100.8", with, announce.Decision{}, false},
	} {
		l.apply(netip.MustParseAddr(step.address), step.before, step.after, map[string][]wanted{})
		l.tellRouters()
		if got := len(l.aggregates.exports(network, l.shared)) > 0; got != step.announced {
			t.Errorf("%s: the network is announced: %t", step.name, got)
		}
	}
	if len(l.routes) > 0 || len(l.aggregates.changed) > 0 {
		t.Errorf("what was told is told again: %v, %v", l.routes, l.aggregates.changed)
	}
}
