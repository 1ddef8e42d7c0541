package speaker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/heraldlb/herald/speaker/segment"
)

// TestLastDead has more dead speakers than the metric lists, and some that live.
func TestLastDead(t *testing.T) {
	var members []segment.Member
	var want []string
	for i := range 20 {
		node := fmt.Sprintf("node-%02d", i)
		members = append(members,
			segment.Member{Node: node, Life: "dead", Silent: time.Duration(20-i) * time.Minute},
			segment.Member{Node: "live-" + node, Life: "alive"}, segment.Member{Node: "late-" + node, Life: "silent"})
		if i >= 4 {
			want = append(want, node)
		}
	}
	slices.Reverse(want)
	before := slices.Clone(members)
	if got := lastDead(members); !slices.Equal(got, want) {
		t.Errorf("the last dead are %v, want %v", got, want)
	}
	for i, m := range members {
		if m.Node != before[i].Node {
			t.Fatalf("member %d is now %s, and was %s", i, m.Node, before[i].Node)
		}
	}
	if got := lastDead(members[1:3]); len(got) != 0 {
		t.Errorf("of those that live %v are dead", got)
	}
}
