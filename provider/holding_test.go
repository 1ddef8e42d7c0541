package provider

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

func TestWhatARecordSaysOfItsHolders(t *testing.T) {
	owner := func(name, uid string) herald.AllocationOwner {
		return herald.AllocationOwner{Namespace: "default", Name: name, UID: types.UID(uid)}
	}
	var many []herald.AllocationOwner
	for i := range 8 {
		many = append(many, owner(fmt.Sprintf("s%d", i), "u"))
	}
	now := metav1.Now()
	for _, story := range []struct {
		name   string
		spec   herald.IPAllocationSpec
		state  herald.AllocationState
		shared string
	}{
		{"in use", herald.IPAllocationSpec{Owners: many[:1]}, "", ""},
		{"shared by two", herald.IPAllocationSpec{Owners: many[:2]}, "", "default/s1"},
		{"shared by many", herald.IPAllocationSpec{Owners: many}, "", "default/s1, default/s2, default/s3, default/s4, default/s5 and 2 more"},
		{"kept for a name", herald.IPAllocationSpec{Owners: []herald.AllocationOwner{owner("web", "")}}, herald.AllocationKept, ""},
		{"in use by one, kept for another", herald.IPAllocationSpec{Owners: []herald.AllocationOwner{owner("web", ""), owner("dns", "u")}}, "", "default/dns"},
		{"reserved for nobody", herald.IPAllocationSpec{}, herald.AllocationReserved, ""},
		{"released", herald.IPAllocationSpec{Owners: []herald.AllocationOwner{owner("web", "")}, ReleasedAt: &now}, "", ""},
	} {
		rec := &herald.IPAllocation{Spec: story.spec}
		if state, shared := stateOf(rec), sharedWith(rec); state != story.state || shared != story.shared {
			t.Errorf("%s: %q, %q; want %q, %q", story.name, state, shared, story.state, story.shared)
		}
	}
}

func TestRangesText(t *testing.T) {
	for _, story := range []struct {
		ranges []herald.AddressRange
		want   string
	}{
		{nil, ""},
		{[]herald.AddressRange{"198.51.100.0/26"}, "198.51.100.0/26"},
		{[]herald.AddressRange{"198.51.100.0/26", "2001:db8:1::/112"}, "198.51.100.0/26, 2001:db8:1::/112"},
		{[]herald.AddressRange{"198.51.100.0/26", "2001:db8:1::/112", "203.0.113.0/24", "203.0.114.0/24"}, "198.51.100.0/26, 2001:db8:1::/112, +2"},
		{[]herald.AddressRange{"2001:db8:1:1:1:1:1:1-2001:db8:1:1:1:1:1:ffff", "203.0.113.0/24"}, "2001:db8:1:1:1:1:1:1-2001:db8:1:1:1:1:1:ffff, +1"},
	} {
		if got := rangesText(story.ranges); got != story.want {
			t.Errorf("%v: %q, want %q", story.ranges, got, story.want)
		}
	}
}
