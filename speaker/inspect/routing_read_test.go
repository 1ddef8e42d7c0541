package inspect

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestARoutingIsRead is about a Routing that a speaker sends, and about some that no speaker sends.
func TestARoutingIsRead(t *testing.T) {
	want := Routing{
		Node: "n1", At: "2026-01-02T03:04:05Z", Leaving: "12s", More: 3, MorePeers: 2, MoreHeld: 1, Peers: []RoutingPeer{{Peer: "tor", State: "Idle", Flaps: map[string]uint64{"bfd_down": 2}}},
		Routes: []RoutingRoute{{Prefix: "198.51.100.7/32", Peer: "tor", MED: new(uint32(5))}}, Held: []RoutingHeldBy{{"198.51.100.9", "it is an address of node n2"}},
	}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Routing
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	many := func(n int) string { return "[" + strings.Repeat("{},", n-1) + "null]" }
	for text, want := range map[string]string{
		`{}`: "", `{"peers":null}`: "", `{"peers":` + many(MaxRoutingPeers) + `}`: "", `{"routes":` + many(MaxRoutes) + `}`: "", `{"held":` + many(MaxHeld) + `}`: "",
		`{"peers":` + many(MaxRoutingPeers+1) + `}`: "peers: there are more than 256", `{"routes":` + many(MaxRoutes+1) + `}`: "routes: there are more than 5000",
		`{"held":` + many(MaxHeld+1) + `}`: "held: there are more than 1000",
		`{"more":-1}`:                      "more: -1 is less than none", `{"morePeers":-2}`: "morePeers: -2 is less", `{"moreHeld":-3}`: "moreHeld: -3 is less",
		`{"routes":{}}`: "routes: it is not a list", `{"routes":[7]}`: "routes: json: cannot unmarshal number",
	} {
		switch err := json.Unmarshal([]byte(text), new(Routing)); {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%.40s: error %v, want %q", text, err, want)
		}
	}
}

// TestTooManyAnswersAreRefused: a node that was broken into cannot fill the memory of the plugin.
func TestTooManyAnswersAreRefused(t *testing.T) {
	for n, want := range map[int]string{1: "", maxAnswers: "", maxAnswers + 1: "answers: there are more than 64000"} {
		err := json.Unmarshal([]byte(`{"answers":[`+strings.Repeat("{},", n-1)+`{}],"error":"e"}`), new(Response))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%d answers: error %v, want %q", n, err, want)
		}
	}
}
