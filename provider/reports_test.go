package provider

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// statusOf returns the SpeakerStatus of node "n" with this status.
func statusOf(t testing.TB, status string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	if err := json.Unmarshal([]byte(`{"apiVersion":"herald.dev/v1alpha1","kind":"SpeakerStatus","metadata":{"name":"n"},"status":`+status+`}`), &u.Object); err != nil {
		t.Skip(err)
	}
	return u
}

// TestReportsAreReadLeniently checks that an entry that cannot be decoded affects only itself.
func TestReportsAreReadLeniently(t *testing.T) {
	good := `{"node":"c","interface":"eth0","at":"2026-06-01T12:00:00Z"}`
	for _, story := range []struct{ name, status, want string }{
		{"all of it", `{"deaths":[` + good + `]}`, "c"},
		{"no status", `null`, ""},
		{"a text for a status", `"dead"`, ""},
		{"a text for a list", `{"deaths":"all"}`, ""},
		{"a session that cannot be decoded", `{"sessions":[{"peer":"p","since":"2026-01-01T00:00:00+0000"}],"deaths":[` + good + `]}`, "c"},
		{"an entry of another kind", `{"deaths":[7,"x",null,` + good + `]}`, "c"},
		{"a number for a name", `{"deaths":[{"node":7},` + good + `]}`, "c"},
		{"a field that is not known", `{"deaths":[{"node":"d","interface":"eth0","at":"x","term":{"a":1}},` + good + `]}`, "d c"},
		{"more than the schema allows", `{"deaths":[` + strings.Repeat(good+",", 64) + `{"node":"d"}]}`, strings.TrimSpace(strings.Repeat("c ", 64))},
	} {
		t.Run(story.name, func(t *testing.T) {
			var got []string
			for _, d := range reportOf(statusOf(t, story.status)).deaths {
				got = append(got, d.Node)
			}
			if strings.Join(got, " ") != story.want {
				t.Errorf("deaths of %v, want of %s", got, story.want)
			}
		})
	}
}

// TestSubnetsOfANodeAreBounded has a node with thousands of subnets. Without a limit it would make
// each assessment of the pools take many seconds.
func TestSubnetsOfANodeAreBounded(t *testing.T) {
	subnets := strings.Repeat(`"10.0.0.1/24",`, maxNetworks)
	one := `{"name":"eth0","subnets":[` + strings.TrimSuffix(subnets, ",") + `]}`
	status := `{"interfaces":[` + strings.Repeat(one+",", 19) + `{"name":"eth9","gateways":["10.0.0.254"]}]}`
	n := 0
	interfaces := reportOf(statusOf(t, status)).speaker.Interfaces
	for _, i := range interfaces {
		n += len(i.Subnets)
	}
	if n != maxSubnets || len(interfaces) != 20 || len(interfaces[19].Gateways) != 1 {
		t.Errorf("%d subnets and %d interfaces, want %d and 20, the last with its gateway", n, len(interfaces), maxSubnets)
	}
}

// TestListsOfAReportAreBoundedAsInTheSchema checks that no more entries of a list are read than its
// schema allows.
func TestListsOfAReportAreBoundedAsInTheSchema(t *testing.T) {
	list := func(entry string, n int) string {
		return "[" + strings.TrimSuffix(strings.Repeat(entry+",", n), ",") + "]"
	}
	one := `{"name":"eth0","subnets":` + list(`"10.0.0.1/24"`, 17) + `,"gateways":` + list(`"10.0.0.254"`, 17) + `}`
	r := reportOf(statusOf(t, `{"interfaces":`+list(one, 65)+`,"sessions":`+list(`{"peer":"tor","state":"Down"}`, 65)+
		`,"deaths":`+list(`{"node":"n1"}`, 65)+`,"conflicts":`+list(`{"address":"198.51.100.7"}`, 65)+`}`))
	first := r.speaker.Interfaces[0]
	for what, n := range map[string][2]int{
		"interfaces": {len(r.speaker.Interfaces), 64}, "sessions": {len(r.speaker.Sessions), 64}, "deaths": {len(r.deaths), 64}, "conflicts": {len(r.conflicts), 64},
		"subnets": {len(first.Subnets), 16}, "gateways": {len(first.Gateways), 16},
	} {
		if n[0] != n[1] {
			t.Errorf("%d %s are read, want %d", n[0], what, n[1])
		}
	}
}

func TestReportedTimes(t *testing.T) {
	for _, story := range []struct {
		text, want string // empty: no report
	}{
		{"2026-06-01T11:59:30Z", "11:59:30"},
		{"2026-06-01T11:59:30.123456Z", "11:59:30"},
		{"2026-06-01T13:59:30+02:00", "11:59:30"},
		{"2026-06-01T12:00:09Z", "12:00:00"}, // a clock that is ahead
		{"2026-06-01T12:00:11Z", ""},
		{"9999-12-31T23:59:59Z", ""},
		{"10000-01-01T00:00:00Z", ""},
		{"2026-06-01", ""}, {"now", ""}, {"", ""},
	} {
		at, ok := reported(story.text, moment)
		if got := at.UTC().Format(time.TimeOnly); ok != (story.want != "") || ok && got != story.want {
			t.Errorf("%q is %v, %v; want %q", story.text, at, ok, story.want)
		}
	}
}

// FuzzReport checks that, whatever a node writes, only what can be parsed is used.
func FuzzReport(f *testing.F) {
	for _, seed := range []string{
		`{"deaths":[{"node":"a","interface":"eth0","at":"2026-06-01T11:59:59Z"}]}`,
		`{"conflicts":[{"address":"198.51.100.7","interface":"eth0","mac":"02:00:00:00:00:01","at":"2026-06-01T11:59:59Z"}]}`,
		`{"conflicts":[{"address":"fe80::1%eth0","mac":"x","at":""},{"address":"::ffff:198.51.100.7","mac":"02-00-00-00-00-01","at":"2026-06-01T12:00:05Z"}]}`,
		`{"deaths":{"0":1},"conflicts":[[]]}`, `null`, `[]`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, status string) {
		r := reportOf(statusOf(t, status))
		for address, s := range sightings(r, moment) {
			if !address.IsValid() || address.Zone() != "" || address.Is4In6() || s.at.After(moment) || moment.Sub(s.at) > conflictFresh {
				t.Errorf("%s: %+v", address, s)
			}
			if text := s.message(address); slices.ContainsFunc([]rune(text), func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("%q has control characters", text)
			}
			if _, err := herald.ParseAllocationName(herald.AllocationName(address)); err != nil {
				t.Error(err)
			}
		}
		for node, v := range judge(moment, map[string]bool{"n": true, "a": true, "b": true}, []*report{r, says("a"), says("b")}) {
			if v.witnessed {
				t.Errorf("one report kills %s", node)
			}
		}
	})
}
