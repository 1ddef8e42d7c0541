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
	"github.com/heraldlb/herald/speaker/segment/ownership"
)

func placed(iface string, w ownership.Want) announce.Placement {
	return announce.Placement{Interface: iface, Want: w}
}

// A segment is told only the differences from the decision before.
func TestASegmentIsToldWhatDiffers(t *testing.T) {
	l := loopOf(t, "n1")
	mine := ownership.NewCandidates([]string{"n1", "n2"}, nil)
	theirs := ownership.NewCandidates([]string{"n2"}, nil)
	var before announce.Decision
	for _, step := range []struct {
		name  string
		after []announce.Placement
		told  map[string]*ownership.Want // nil: no node should own the address
		ready []string                   // where this node may become the owner
	}{
		{"at first", []announce.Placement{placed("eth0", ownership.Want{Candidates: mine, New: true})}, map[string]*ownership.Want{"eth0": {Candidates: mine, New: true}}, []string{"eth0"}},
		{"the same", []announce.Placement{placed("eth0", ownership.Want{Candidates: mine, New: true})}, nil, []string{"eth0"}},
		{"it is not new any more", []announce.Placement{placed("eth0", ownership.Want{Candidates: mine})}, nil, []string{"eth0"}},
		{"another segment", []announce.Placement{placed("eth0", ownership.Want{Candidates: mine}), placed("eth1", ownership.Want{Candidates: theirs})},
			map[string]*ownership.Want{"eth1": {Candidates: theirs}}, []string{"eth0"}},
		{"other candidates", []announce.Placement{placed("eth0", ownership.Want{Candidates: theirs}), placed("eth1", ownership.Want{Candidates: mine})},
			map[string]*ownership.Want{"eth0": {Candidates: theirs, New: true}, "eth1": {Candidates: mine}}, []string{"eth1"}},
		{"Gradual", []announce.Placement{placed("eth0", ownership.Want{Candidates: theirs, Gradual: true}), placed("eth1", ownership.Want{Candidates: mine})},
			map[string]*ownership.Want{"eth0": {Candidates: theirs, Gradual: true, New: true}}, []string{"eth1"}},
		{"Defend", []announce.Placement{placed("eth0", ownership.Want{Candidates: theirs, Gradual: true}), placed("eth1", ownership.Want{Candidates: mine, Defend: true})},
			map[string]*ownership.Want{"eth1": {Candidates: mine, Defend: true}}, []string{"eth1"}},
		{"one segment less", []announce.Placement{placed("eth0", ownership.Want{Candidates: theirs, Gradual: true})}, map[string]*ownership.Want{"eth1": nil}, nil},
		{"none", nil, map[string]*ownership.Want{"eth0": nil}, nil},
		{"none again", nil, nil, nil},
		{"back, and not new", []announce.Placement{placed("eth0", ownership.Want{Candidates: mine})}, map[string]*ownership.Want{"eth0": {Candidates: mine}}, []string{"eth0"}},
	} {
		wants := map[string][]wanted{}
		after := announce.Decision{Segments: step.after}
		l.apply(vip, before, after, wants)
		before = after
		told := map[string]*ownership.Want{}
		for iface, all := range wants {
			for _, w := range all {
				if _, twice := told[iface]; twice || w.addr != vip {
					t.Errorf("%s: %s is told twice, or of another address", step.name, iface)
				}
				told[iface] = w.want
			}
		}
		if !maps.EqualFunc(told, step.told, func(x, y *ownership.Want) bool { return x == nil && y == nil || x != nil && y != nil && *x == *y }) {
			t.Errorf("%s: told is %v, want %v", step.name, told, step.told)
		}
		var ready []string
		for iface, addrs := range l.candidate {
			if addrs[vip] {
				ready = append(ready, iface)
			}
		}
		if slices.Sort(ready); !slices.Equal(ready, step.ready) {
			t.Errorf("%s: the responders are ready on %v, want %v", step.name, ready, step.ready)
		}
		if l.handOn(wants); len(l.prepare) > 0 {
			t.Errorf("%s: the responders are told again", step.name)
		}
	}
}

// For any sequence of decisions, a segment that has been told all the differences knows the last decision.
func TestDifferencesAddUpToTheDecision(t *testing.T) {
	some := []*ownership.Candidates{ownership.NewCandidates([]string{"n1", "n2"}, nil), ownership.NewCandidates([]string{"n2"}, nil)}
	attributes := []route.Attributes{{}, {Prepend: 1}}
	rapid.Check(t, func(rt *rapid.T) {
		l := loopOf(t, "n1")
		told := map[string]ownership.Want{}
		var before announce.Decision
		for i := range rapid.IntRange(1, 6).Draw(rt, "decisions") {
			after := announce.Decision{Exports: map[string]route.Attributes{}}
			for _, iface := range []string{"eth0", "eth1"} {
				if rapid.Bool().Draw(rt, fmt.Sprint(iface, i)) {
					after.Segments = append(after.Segments, placed(iface, ownership.Want{
						Candidates: rapid.SampledFrom(some).Draw(rt, fmt.Sprint("candidates", i)), Defend: rapid.Bool().Draw(rt, fmt.Sprint("defend", i)),
					}))
				}
			}
			if rapid.Bool().Draw(rt, fmt.Sprint("export", i)) {
				after.Exports["tor"] = rapid.SampledFrom(attributes).Draw(rt, fmt.Sprint("attributes", i))
			}
			wants := map[string][]wanted{}
			l.apply(vip, before, after, wants)
			for iface, all := range wants {
				for _, w := range all {
					if was, known := told[iface]; w.want == nil && !known || w.want != nil && known && was == *w.want {
						rt.Fatalf("%s is told what it knows: %v", iface, w.want)
					}
					if delete(told, iface); w.want != nil {
						told[iface] = *w.want
					}
				}
			}
			want := map[string]ownership.Want{}
			may := map[string]bool{}
			for _, p := range after.Segments {
				want[p.Interface] = p.Want
				may[p.Interface] = p.Candidates == some[0]
			}
			if !maps.Equal(told, want) {
				rt.Fatalf("told is %v, want %v", told, want)
			}
			for _, iface := range []string{"eth0", "eth1"} {
				if l.candidate[iface][vip] != may[iface] {
					rt.Fatalf("the responder on %s is ready: %v, want %v", iface, l.candidate[iface][vip], may[iface])
				}
			}
			before = after
		}
	})
}

func TestManyAddressesAreTheSegmentsInOneTurn(t *testing.T) {
	l := loopOf(t, "n1")
	c := ownership.NewCandidates([]string{"n1"}, nil)
	wants := map[string][]wanted{}
	for a := range someAddresses(1000) {
		l.apply(a, announce.Decision{}, announce.Decision{Segments: []announce.Placement{placed("eth0", ownership.Want{Candidates: c})}}, wants)
	}
	seen := map[netip.Addr]bool{}
	for _, w := range wants["eth0"] {
		seen[w.addr] = true
	}
	if len(seen) != 1000 || len(l.candidate["eth0"]) != 1000 || len(l.own) != 1 {
		t.Errorf("%d are told, %d are prepared for, and it was looked up %d times whether this node is a candidate", len(seen), len(l.candidate["eth0"]), len(l.own))
	}
}
