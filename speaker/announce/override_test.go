package announce

import (
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bgp/route"
)

func TestWhatAServiceDecidesForItself(t *testing.T) {
	given := route.Attributes{Communities: []route.Community{route.NoExport}, MED: new(uint32(1)), Prepend: 1}
	every := []herald.ServiceOverride{herald.OverrideAnnounce, herald.OverrideCommunities, herald.OverrideLocalPreference, herald.OverrideMED, herald.OverridePrepend}
	asks := func(o herald.Overrides) func(*Address) { return func(a *Address) { a.Services[0].Overrides = &o } }
	for _, story := range []struct {
		name    string
		permits []herald.ServiceOverride
		asks    func(*Address)
		want    *route.Attributes // nil: the address is not announced
	}{
		{"nothing", every, func(*Address) {}, &given},
		{"what is not permitted", nil, asks(herald.Overrides{Silent: true, MED: new(uint32(9)), Communities: &[]herald.Community{"64512:9"}}), &given},
		{"what is permitted, and what is not", []herald.ServiceOverride{herald.OverrideMED}, asks(herald.Overrides{Prepend: new(uint8(9)), MED: new(uint32(9))}),
			&route.Attributes{Communities: given.Communities, MED: new(uint32(9)), Prepend: 1}},
		{"not to be announced", every, asks(herald.Overrides{Silent: true}), nil},
		{"everything", every, asks(herald.Overrides{
			Communities: &[]herald.Community{"64512:9", "64512:1:9", "rt:64512:9"}, LocalPreference: new(uint32(7)), MED: new(uint32(8)), Prepend: new(uint8(0)),
		}), &route.Attributes{
			Communities: []route.Community{64512<<16 | 9}, LargeCommunities: []route.LargeCommunity{{Global: 64512, Local1: 1, Local2: 9}},
			ExtendedCommunities: []route.ExtendedCommunity{0x0002_FC00_0000_0009}, LocalPreference: new(uint32(7)), MED: new(uint32(8)),
		}},
		{"no communities", every, asks(herald.Overrides{Communities: &[]herald.Community{}}), &route.Attributes{MED: new(uint32(1)), Prepend: 1}},
		{"of several the first by name", every, func(a *Address) { // default/mail comes before default/web.
			joinedBy(a, []string{first}, []string{first})
			a.Services[0].Overrides = &herald.Overrides{MED: new(uint32(8)), Prepend: new(uint8(3))}
			a.Services[1].Overrides = &herald.Overrides{MED: new(uint32(9))}
		}, &route.Attributes{Communities: given.Communities, MED: new(uint32(9)), Prepend: 3}},
		{"of several one that is not to be announced", every, func(a *Address) {
			joinedBy(a, []string{first}, []string{first})
			a.Services[1].Overrides = &herald.Overrides{Silent: true, MED: new(uint32(9))}
		}, &given},
	} {
		s, a := cluster()
		s.BGP = []BGPAdvertisement{{Name: "some", Selector: compile(t, herald.Selection{}), Peers: []string{"tor"}, Attributes: given, Permits: story.permits}}
		story.asks(a)
		got, announced := Decide(on(first, s), a).Exports["tor"]
		if announced != (story.want != nil) {
			t.Errorf("%s: announced %t", story.name, announced)
		} else if announced && !got.Equal(*story.want) {
			t.Errorf("%s (-want +got):\n%s", story.name, gocmp.Diff(*story.want, got))
		}
	}
	if given.Communities[0] != route.NoExport {
		t.Error("the advertisement itself is changed")
	}
}

// An address with attributes of its own is announced as a separate route in addition to the network.
func TestAnAddressWithAttributesOfItsOwnIsNotInANetwork(t *testing.T) {
	s, a := cluster()
	s.Pools["public"] = poolWith(herald.IPPoolSpec{Addresses: []herald.AddressRange{"198.51.100.0/24"}})
	s.BGP = []BGPAdvertisement{{
		Name: "some", Selector: compile(t, herald.Selection{}), Peers: []string{"tor"}, Length4: 24, Permits: []herald.ServiceOverride{herald.OverrideMED},
	}}
	for _, own := range []bool{false, true} {
		if own {
			a.Services[0].Overrides = &herald.Overrides{MED: new(uint32(9))}
		}
		if d := Decide(on(first, s), a); (len(d.Exports) == 1) != own || (len(d.Aggregates) == 1) == own {
			t.Errorf("with attributes of its own %t: routes %v, networks %v", own, d.Exports, d.Aggregates)
		}
	}
}
