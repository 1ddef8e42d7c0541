package route

import "testing"

func TestAttributesEqualAsSets(t *testing.T) {
	med := func(v uint32) *uint32 { return &v }
	a := Attributes{Communities: []Community{1, 2, 2}, LargeCommunities: []LargeCommunity{{1, 2, 3}, {1, 1, 1}}, MED: med(5)}
	if b := (Attributes{Communities: []Community{2, 1}, LargeCommunities: []LargeCommunity{{1, 1, 1}, {1, 2, 3}}, MED: med(5)}); !a.Equal(b) {
		t.Errorf("%+v and %+v differ", a, b)
	}
	for _, b := range []Attributes{
		{},
		{Communities: []Community{1, 2}, LargeCommunities: a.LargeCommunities},
		{Communities: []Community{1, 2}, LargeCommunities: a.LargeCommunities, MED: med(6)},
		{Communities: []Community{1, 3}, LargeCommunities: a.LargeCommunities, MED: med(5)},
		{Communities: []Community{1, 2}, LargeCommunities: a.LargeCommunities, MED: med(5), Prepend: 1},
		{Communities: []Community{1, 2}, LargeCommunities: a.LargeCommunities, MED: med(5), LocalPref: med(1)},
	} {
		if a.Equal(b) || b.Equal(a) {
			t.Errorf("%+v and %+v are equal", a, b)
		}
	}
}

// A pass over 10,000 addresses compares the attributes of each with those before.
func TestComparingTheSameAttributesCostsNothing(t *testing.T) {
	a := Attributes{Communities: []Community{3, 1, 2}, LargeCommunities: []LargeCommunity{{Global: 2}, {Global: 1}}, MED: new(uint32(1))}
	b := a
	if n := testing.AllocsPerRun(100, func() {
		if !a.Equal(b) {
			t.Error("they differ")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
