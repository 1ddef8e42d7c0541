package provider

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

var moment = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// says returns the report of a node about deaths, each in the form "node" or "node@time". Without a time it was a
// second ago.
func says(node string, deaths ...string) *report {
	r := &report{ObjectMeta: metav1.ObjectMeta{Name: node}}
	for _, d := range deaths {
		dead, at, timed := strings.Cut(d, "@")
		if ago, err := time.ParseDuration(at); err == nil {
			at = moment.Add(-ago).Format(time.RFC3339Nano)
		} else if !timed {
			at = moment.Add(-time.Second).Format(time.RFC3339Nano)
		}
		r.deaths = append(r.deaths, herald.SpeakerDeath{Node: dead, Interface: "eth0", At: at})
	}
	return r
}

// nodesOf returns nodes that are ready, except those written as "!node".
func nodesOf(names string) map[string]bool {
	nodes := map[string]bool{}
	for name := range strings.FieldsSeq(names) {
		bare, notReady := strings.CutPrefix(name, "!")
		nodes[bare] = !notReady
	}
	return nodes
}

func TestWhoIsDead(t *testing.T) {
	for _, story := range []struct {
		name    string
		nodes   string
		reports []*report
		want    string // "node by witnesses", or "node: reason"
	}{
		{"nobody", "a b c", []*report{says("a"), says("b"), says("c")}, ""},
		{"one of three, by both others", "a b c", []*report{says("a", "c"), says("b", "c"), says("c")}, "c by a b"},
		{"one witness is not enough", "a b c", []*report{says("a", "c"), says("b"), says("c")}, "c: unwitnessed"},
		{"but of two nodes there is no other", "a b", []*report{says("a", "b"), says("b")}, "b by a"},
		{"two nodes that lose each other", "a b", []*report{says("a", "b"), says("b", "a")}, "a: unwitnessed, b: unwitnessed"},
		{"two speakers among three nodes", "a b c", []*report{says("a", "b"), says("b")}, "b by a"},
		{"a report of a node that is gone", "a b c", []*report{says("a", "c"), says("x", "c"), says("b"), says("c")}, "c: unwitnessed"},
		{"the death of a node that is gone", "a b c", []*report{says("a", "x"), says("b", "x"), says("c")}, ""},
		{"of a node without a speaker", "a b c", []*report{says("a", "c"), says("b", "c")}, ""},
		{"of oneself", "a b", []*report{says("a", "a"), says("b")}, ""},
		{"a witness that is not ready", "a !b c", []*report{says("a", "c"), says("b", "c"), says("c")}, "c: unwitnessed"},
		{"a node that Kubernetes knows to be dead", "a b !c", []*report{says("a", "c"), says("b", "c"), says("c")}, "c: not_ready"},
		{"a witness that is reported dead", "a b c d e f", []*report{says("a", "f"), says("b", "f"), says("c", "b"), says("d"), says("e"), says("f")},
			"b: unwitnessed, f: unwitnessed"},
		{"a node that is cut off takes all others for dead", "a b c", []*report{says("a", "c"), says("b", "c"), says("c", "a", "b")}, "a: too_many, b: too_many, c by a b"},
		{"two halves", "a b c d e f", []*report{says("a", "d", "e", "f"), says("b", "d", "e", "f"), says("c", "d", "e", "f"),
			says("d", "a", "b", "c"), says("e", "a", "b", "c"), says("f", "a", "b", "c")},
			"a: too_many, b: too_many, c: too_many, d: too_many, e: too_many, f: too_many"},
		{"two of six", "a b c d e f", []*report{says("a", "e", "f"), says("b", "e", "f"), says("c"), says("d"), says("e"), says("f")}, "e by a b, f by a b"},
		{"two of five, one of them seen by one", "a b c d e", []*report{says("a", "e"), says("b", "e"), says("c", "d"), says("d"), says("e")}, "d: unwitnessed, e by a b"},
		{"three of seven, each seen by others", "a b c d e f g", []*report{says("a", "e", "f"), says("b", "e", "g"), says("c", "f", "g"), says("d", "e"), says("e"), says("f"), says("g")},
			"e: too_many, f: too_many, g: too_many"},
		{"one that has been dead for long counts among them", "a b c !d", []*report{says("a", "d@1h"), says("b", "d@1h", "c"), says("c"), says("d")}, "c: too_many, d: unwitnessed"},
		{"a death of long ago", "a b c", []*report{says("a", "c@2m"), says("b", "c@2m"), says("c")}, "c: stale"},
		{"one witness saw it long ago", "a b c", []*report{says("a", "c@2m"), says("b", "c@1s"), says("c")}, "c: stale"},
		{"a clock that is a little ahead", "a b c", []*report{says("a", "c@-5s"), says("b", "c"), says("c")}, "c by a b"},
		{"a time far in the future is not a report", "a b c", []*report{says("a", "c@-1m"), says("b", "c"), says("c")}, "c: unwitnessed"},
		{"nor is what is no time", "a b c", []*report{says("a", "c@yesterday"), says("b", "c"), says("c")}, "c: unwitnessed"},
		{"nor is no time at all", "a b c", []*report{says("a", "c@"), says("b", "c"), says("c")}, "c: unwitnessed"},
		{"one witness on two interfaces is one", "a b c", []*report{says("a", "c", "c"), says("b"), says("c")}, "c: unwitnessed"},
		{"a time that nobody can parse beside one that is good", "a b c", []*report{says("a", "c@x", "c"), says("b", "c"), says("c")}, "c by a b"},
	} {
		t.Run(story.name, func(t *testing.T) {
			verdicts := judge(moment, nodesOf(story.nodes), story.reports)
			var got []string
			for _, node := range slices.Sorted(maps.Keys(verdicts)) {
				v := verdicts[node]
				if v.refused != "" {
					got = append(got, node+": "+v.refused)
				} else {
					got = append(got, node+" by "+strings.Join(v.witnesses, " "))
				}
			}
			if strings.Join(got, ", ") != story.want {
				t.Errorf("%s\nwant %s", strings.Join(got, ", "), story.want)
			}
		})
	}
}

// TestJudgeProperties checks that one node's report causes no death in a cluster of more than two nodes, whatever
// is in it, and that no more than a third of the nodes count as dead, however many nodes lie.
func TestJudgeProperties(t *testing.T) {
	texts := rapid.SampledFrom([]string{"@0s", "@1s", "@30s", "@90s", "@-5s", "@-1h", "@soon", ""})
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 9).Draw(t, "nodes")
		names := make([]string, n)
		nodes := map[string]bool{}
		for i := range n {
			names[i] = fmt.Sprintf("n%d", i)
			nodes[names[i]] = rapid.IntRange(0, 5).Draw(t, "ready") > 0
		}
		name := rapid.SampledFrom(names)
		death := rapid.Custom(func(t *rapid.T) string { return name.Draw(t, "dead") + texts.Draw(t, "at") })
		draw := func(node string) *report { return says(node, rapid.SliceOfN(death, 0, 4).Draw(t, node)...) }
		reports := make([]*report, n)
		for i, node := range names {
			reports[i] = draw(node)
		}
		dead := func(reports []*report) (all []string) {
			for node, v := range judge(moment, nodes, reports) {
				if v.refused != "" {
					continue
				}
				all = append(all, node)
				for _, w := range v.witnesses {
					if !nodes[w] || w == node {
						t.Fatalf("%s witnesses the death of %s", w, node)
					}
				}
				if len(v.witnesses) < 2 && n > 2 {
					t.Fatalf("%s is dead by %v alone", node, v.witnesses)
				}
				if !nodes[node] {
					t.Fatalf("%s is not ready anyway", node)
				}
			}
			return all
		}
		before := dead(reports)
		if len(before) > max(1, n/3) {
			t.Fatalf("%d of %d die: %v", len(before), n, before)
		}
		// The order of the reports does not matter.
		if again := dead(rapid.Permutation(reports).Draw(t, "order")); !sameSet(before, again) {
			t.Fatalf("%v, in another order %v", before, again)
		}
		// If one node alone reports something else, and the others report nothing, nobody counts as dead.
		if n > 2 {
			liar := rapid.IntRange(0, n-1).Draw(t, "liar")
			alone := make([]*report, n)
			for i, node := range names {
				alone[i] = says(node)
			}
			alone[liar] = draw(names[liar])
			if all := dead(alone); len(all) > 0 {
				t.Fatalf("%s alone kills %v", names[liar], all)
			}
		}
	})
}

func sameSet(x, y []string) bool {
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// TestADeathIsActedUponOnce follows the reports over time.
func TestADeathIsActedUponOnce(t *testing.T) {
	witnessed := func(node, why string) verdict { return verdict{node: node, witnessed: true, refused: why} }
	alone := verdict{node: "c", refused: refusedUnwitnessed}
	for _, story := range []struct {
		name  string
		looks []look
		want  string // the actions, with their times
	}{
		{"it is acted upon when it has been witnessed for a second, and not again while it is reported", inTime(
			0, witnessed("c", ""), 500*time.Millisecond, witnessed("c", ""), time.Second, witnessed("c", ""), 2*time.Second, witnessed("c", ""), 2*time.Minute, witnessed("c", refusedStale)),
			"1s act c"},
		{"it goes before the second is over", inTime(0, witnessed("c", ""), 900*time.Millisecond, nil, time.Second, nil), ""},
		{"one that turns out to be many", inTime(0, witnessed("c", ""), 900*time.Millisecond, witnessed("c", refusedTooMany), 1100*time.Millisecond, witnessed("c", refusedTooMany), 5*time.Second, witnessed("c", refusedTooMany)),
			"5s refuse too_many"},
		{"the second starts anew when something spoke against it", inTime(0, witnessed("c", ""), 900*time.Millisecond, alone, time.Second, witnessed("c", ""), 1900*time.Millisecond, witnessed("c", ""), 2*time.Second, witnessed("c", "")),
			"2s act c"},
		{"the second witness is late: that is not a refusal", inTime(0, alone, time.Second, witnessed("c", ""), 2*time.Second, witnessed("c", "")), "2s act c"},
		{"a single report that lasts is refused once", inTime(0, alone, 5*time.Second, alone, 6*time.Second, alone, time.Minute, alone), "5s refuse unwitnessed"},
		{"a single report that goes is refused", inTime(0, alone, time.Second, nil), "1s refuse unwitnessed"},
		{"a single report that lasts does not keep a death from being acted upon", inTime(
			0, alone, 5*time.Second, alone, time.Minute, witnessed("c", ""), time.Minute+time.Second, witnessed("c", "")), "5s refuse unwitnessed, 1m1s act c"},
		{"nor the next one, after a while", inTime(
			0, witnessed("c", ""), time.Second, witnessed("c", ""), time.Minute, alone, 10*time.Minute, witnessed("c", ""), 10*time.Minute+time.Second, witnessed("c", "")),
			"1s act c, 10m1s act c"},
		{"reports that come and go are acted upon once in five minutes", inTime(
			0, witnessed("c", ""), time.Second, witnessed("c", ""), 2*time.Second, nil, 3*time.Second, witnessed("c", ""), 4*time.Second, witnessed("c", ""), 5*time.Second, nil,
			6*time.Minute, witnessed("c", ""), 6*time.Minute+time.Second, witnessed("c", "")),
			"1s act c, 5s refuse recent, 6m1s act c"},
	} {
		t.Run(story.name, func(t *testing.T) {
			known := newIncidents()
			var got []string
			for _, s := range story.looks {
				verdicts := map[string]verdict{}
				for _, v := range s.verdicts {
					verdicts[v.node] = v
				}
				next := known.observe(moment.Add(s.after), verdicts)
				for _, v := range next.act {
					got = append(got, fmt.Sprintf("%v act %s", s.after, v.node))
				}
				for _, reason := range next.refused {
					got = append(got, fmt.Sprintf("%v refuse %s", s.after, reason))
				}
			}
			if strings.Join(got, ", ") != story.want {
				t.Errorf("%s\nwant %s", strings.Join(got, ", "), story.want)
			}
		})
	}
}

// look is a time since the start, and the reports at that time.
type look struct {
	after    time.Duration
	verdicts []verdict
}

// inTime takes pairs of a time and a verdict; nil means that there is no report.
func inTime(pairs ...any) (looks []look) {
	for pair := range slices.Chunk(pairs, 2) {
		l := look{}
		l.after, _ = pair[0].(time.Duration) // 0 is an int.
		if v, ok := pair[1].(verdict); ok {
			l.verdicts = []verdict{v}
		}
		looks = append(looks, l)
	}
	return looks
}

// TestLookAgain checks that looking again at the requested time leads to the action, even without any other event.
func TestLookAgain(t *testing.T) {
	known := newIncidents()
	verdicts := map[string]verdict{"c": {node: "c", witnessed: true}, "d": {node: "d", refused: refusedUnwitnessed}}
	now, acted, refused := moment, 0, 0
	for range 10 {
		next := known.observe(now, verdicts)
		acted += len(next.act)
		refused += len(next.refused)
		if next.again == 0 {
			break
		}
		now = now.Add(next.again)
	}
	if acted != 1 || refused != 1 || now.Sub(moment) != deathPatience {
		t.Errorf("acted %d times and refused %d until %v; want once each, until %v", acted, refused, now.Sub(moment), deathPatience)
	}
}
