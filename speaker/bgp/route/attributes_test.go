package route

import (
	"reflect"
	"testing"
)

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
		{Communities: []Community{1, 2}, LargeCommunities: a.LargeCommunities, MED: med(5), LocalPreference: med(1)},
	} {
		if a.Equal(b) || b.Equal(a) {
			t.Errorf("%+v and %+v are equal", a, b)
		}
	}
}

// TestEveryAttributeIsCompared: a change of an attribute that is not compared would reach no router.
func TestEveryAttributeIsCompared(t *testing.T) {
	values := map[string]any{
		"Communities": []Community{1}, "LargeCommunities": []LargeCommunity{{1, 2, 3}}, "ExtendedCommunities": []ExtendedCommunity{1},
		"LocalPreference": new(uint32(1)), "MED": new(uint32(1)), "Bandwidth": float32(1), "Prepend": uint8(1),
	}
	for f := range reflect.TypeFor[Attributes]().Fields() {
		value, is := values[f.Name]
		if !is {
			t.Errorf("this test has no value of %s", f.Name)
			continue
		}
		var a Attributes
		reflect.ValueOf(&a).Elem().FieldByIndex(f.Index).Set(reflect.ValueOf(value))
		if a.Same(Attributes{}) || !a.Same(a.Normal()) {
			t.Errorf("%s is not compared, or Normal leaves it out", f.Name)
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
