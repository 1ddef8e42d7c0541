package report

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestChanges compares two overviews. If the same happened to several addresses, it is one change.
func TestChanges(t *testing.T) {
	owned := func(address, node, deputyFor string) addressStatus {
		return addressStatus{address, []string{"default/web"}, stateOwned, []owner{{place: place{node, "eth0"}, Since: "2026-01-01T00:00:00Z", Reason: "highest rank", DeputyFor: deputyFor}}}
	}
	before := &Overview{
		addresses: []addressStatus{owned("198.51.100.1", "n1", ""), owned("198.51.100.2", "n1", ""), owned("198.51.100.3", "n2", ""), owned("198.51.100.10", "n2", ""), owned("198.51.100.9", "n3", "n1")},
		Nodes:     []nodeOverview{{nodeReport: nodeReport{Node: "n1"}}, {nodeReport: nodeReport{Node: "n2", Stale: "its speaker ended"}}},
		Sessions: []sessionOverview{
			{Node: "n1", Peer: "tor-a", State: established, BFD: bfdUp}, {Node: "n2", Peer: "tor-a", State: "Down"}, {Node: "n3", Peer: "tor-a", State: established},
		},
	}
	after := &Overview{
		addresses: []addressStatus{owned("198.51.100.1", "n2", ""), owned("198.51.100.2", "n2", ""), owned("198.51.100.3", "n3", "n2"), owned("198.51.100.4", "n3", ""), {Address: "198.51.100.9"}},
		Nodes:     []nodeOverview{{nodeReport: nodeReport{Node: "n1", Stale: "it is dead"}}, {nodeReport: nodeReport{Node: "n2"}}},
		Sessions: []sessionOverview{
			{Node: "n1", Peer: "tor-a", State: "Down", Since: "2026-01-02T00:00:00Z", Reason: "no answer", BFD: "Down"}, {Node: "n2", Peer: "tor-a", State: established}, {Node: "n3", Peer: "tor-a", State: established},
		},
	}
	at := now.UTC().Format("2006-01-02T15:04:05Z07:00")
	want := []Change{
		{at, true, "Node n1: it is dead"},
		{at, false, "Node n2: its speaker reports again"},
		{"2026-01-01T00:00:00Z", false, "198.51.100.1 of default/web and 1 other address: n1 (eth0) → n2 (eth0) (highest rank)"},
		{"2026-01-01T00:00:00Z", false, "198.51.100.3 of default/web: n2 (eth0) → n3 for n2 (eth0) (highest rank)"},
		{"2026-01-01T00:00:00Z", false, "198.51.100.4 of default/web: owner is now n3 (eth0) (highest rank)"},
		{at, true, "198.51.100.9 of default/web: no owner any more, after n3 for n1 (eth0)"},
		{at, true, "198.51.100.10 of default/web: no owner any more, after n2 (eth0)"},
		{"2026-01-02T00:00:00Z", true, "Session of n1 with tor-a is Down: no answer"},
		{at, true, "BFD of n1 with tor-a is Down"},
		{at, false, "Session of n2 with tor-a is Established"},
	}
	if diff := cmp.Diff(want, Changes(before, after, now)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if again := Changes(after, after, now); len(again) > 0 {
		t.Errorf("nothing has changed: %+v", again)
	}
}
