package report

import (
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// TestWhatNobodyAnnouncesToRouters: status names addresses that are for routers and that no session carries, unless a problem of
// their pool says so already.
func TestWhatNobodyAnnouncesToRouters(t *testing.T) {
	const missing = "198.51.100.1 of default/web is announced by no node: kubectl herald explain service default/web says why"
	for _, c := range []struct {
		name   string
		change func(s *story)
		want   bool
	}{
		{"all sessions carry it", func(*story) {}, false},
		{"one session does", func(s *story) {
			s.Speakers[1].Status.Sessions, s.Speakers[0].Status.Sessions = nil, s.Speakers[0].Status.Sessions[:1]
		}, false},
		{"no session does", func(s *story) {
			for _, o := range s.Speakers {
				for i := range o.Status.Sessions {
					o.Status.Sessions[i].Withheld = []herald.IPFamily{herald.IPv4}
				}
			}
		}, true},
		{"no advertisement selects the Service", func(s *story) { s.BGPAdvertisements[0].Spec.ServiceSelector = selector("app", "db") }, false},
		{"no endpoint is ready", func(s *story) {
			for _, o := range s.Speakers {
				o.Status.Sessions = nil
			}
			s.Endpoints = nil
		}, false},
		{"no node has a session", func(s *story) {
			for _, o := range s.Speakers {
				o.Status.Sessions = nil
			}
		}, true},
		{"an advertisement is not valid", func(s *story) {
			for _, o := range s.Speakers {
				o.Status.Sessions = nil
			}
			broken := s.BGPAdvertisements[0].DeepCopy()
			broken.Name = "broken"
			broken.Spec.NodeSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "rack", Operator: "Near"}}}
			s.BGPAdvertisements = append(s.BGPAdvertisements, broken)
		}, false},
		{"no advertisement selects the pool", func(s *story) {
			s.BGPAdvertisements[0].Spec.Pools = []string{"gold"}
			s.Pools[0].Status.Conditions = []metav1.Condition{{Type: herald.ConditionAnnounced, Status: metav1.ConditionFalse}}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := served().bgp()
			s.Pools[0].Status.Conditions = []metav1.Condition{{Type: herald.ConditionAnnounced, Status: metav1.ConditionTrue}}
			c.change(s)
			r := Status(s.Objects, &CCM{Class: herald.LoadBalancerClass, Classless: true}, now)
			if is := slices.ContainsFunc(r.Problems, func(p problem) bool { return p.Kind == notSent && strings.HasSuffix(p.Text, missing) }); is != c.want {
				t.Errorf("it is told: %t, want %t: %+v", is, c.want, r.Problems)
			}
		})
	}
}

// TestCutListsHideOnlyWhatComesAfterTheirEnd: lists are sorted, so an address before the end of each has no owner.
func TestCutListsHideOnlyWhatComesAfterTheirEnd(t *testing.T) {
	s := segmentsOf([]*herald.SpeakerStatus{{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: herald.SpeakerStatusStatus{
		L2Addresses: 3, Claims: []herald.SpeakerClaim{{Address: "198.51.100.1", Interface: "eth0"}, {Address: "198.51.100.5", Interface: "eth0"}},
	}}}, nil)
	for address, want := range map[string]bool{"198.51.100.3": false, "198.51.100.7": true, "2001:db8::1": true} {
		if is := s.hides(address); is != want {
			t.Errorf("%s may be in the part that was cut: %t, want %t", address, is, want)
		}
	}
}
