package speaker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"

	corev1 "k8s.io/api/core/v1"
)

// A pod is replaced by one on another node. The node of the old one goes on delivering until the new one's node knows it.
func TestANodeHandsOverUnderPolicyLocal(t *testing.T) {
	type state struct {
		at             time.Duration
		ready, leaving []string
		want           bool // n1 delivers
		until          time.Duration
	}
	for _, story := range []struct {
		name   string
		local  bool
		states []state
	}{
		{"the only pod moves", true, []state{
			{0, []string{"n1"}, nil, true, 0},
			{10e9, []string{"n1", "n2"}, nil, true, 0},
			{10.1 * 1e9, []string{"n2"}, []string{"n1"}, true, 12e9},
			{11 * 1e9, []string{"n2"}, []string{"n1"}, true, 12e9},
			{12 * 1e9, []string{"n2"}, []string{"n1"}, false, 0},
			{13 * 1e9, []string{"n2"}, []string{"n1"}, false, 0},
		}},
		{"both changes come at once", true, []state{
			{0, []string{"n1"}, nil, true, 0},
			{10e9, []string{"n2"}, []string{"n1"}, true, 12e9},
			{12e9, []string{"n2"}, []string{"n1"}, false, 0},
		}},
		{"the old pod is gone before", true, []state{
			{0, []string{"n1"}, nil, true, 0},
			{10e9, []string{"n2"}, []string{"n1"}, true, 12e9},
			{11e9, []string{"n2"}, nil, false, 0},
		}},
		{"the old pod does not serve", true, []state{
			{0, []string{"n1"}, nil, true, 0},
			{10e9, []string{"n2"}, nil, false, 0},
		}},
		{"another node has had a pod for long", true, []state{
			{0, []string{"n1", "n3"}, nil, true, 0},
			{10e9, []string{"n1", "n2", "n3"}, nil, true, 0},
			{10.1 * 1e9, []string{"n2", "n3"}, []string{"n1"}, false, 0},
		}},
		{"no other node has one", true, []state{
			{0, []string{"n1"}, nil, true, 0},
			{10e9, nil, []string{"n1"}, false, 0},
		}},
		{"the pod was leaving before this node delivered", true, []state{
			{0, []string{"n2"}, []string{"n1"}, false, 0},
			{1, []string{"n2", "n3"}, []string{"n1"}, false, 0},
		}},
		{"the new node loses its pod, and a third gets one", true, []state{
			{0, []string{"n1"}, nil, true, 0},
			{10e9, []string{"n2"}, []string{"n1"}, true, 12e9},
			{11e9, []string{"n3"}, []string{"n1"}, true, 13e9},
			{13e9, []string{"n3"}, []string{"n1"}, false, 0},
		}},
		{"policy Cluster", false, []state{
			{0, []string{"n1"}, nil, true, 0},
			{10e9, []string{"n2"}, nil, true, 0},
			{11e9, nil, nil, false, 0},
		}},
	} {
		t.Run(story.name, func(t *testing.T) {
			d := newDeliveries("n1")
			was := false
			for _, s := range story.states {
				_, a := cluster()
				svc := a.Services[0]
				svc.Local, svc.Ready4, svc.Leaving4 = story.local, s.ready, s.leaving
				given := slices.Clone(s.ready)
				began, until := d.note(a, noon.Add(s.at))
				if delivers := svc.delivers(vip, "n1"); delivers != s.want || began != (delivers && !was) || d.now[vip] != delivers {
					t.Fatalf("at %v: it delivers: %v, which began: %v", s.at, delivers, began)
				}
				if want := noon.Add(s.until); s.until == 0 && !until.IsZero() || s.until != 0 && !until.Equal(want) {
					t.Fatalf("at %v: until %v, want %v", s.at, until, want)
				}
				if !slices.Equal(s.ready, given) {
					t.Fatal("what the informers have was written to")
				}
				was = s.want
			}
			d.forget(vip)
			if len(d.now)+len(d.local) > 0 {
				t.Errorf("%+v is remembered", d)
			}
		})
	}
}

func TestLeavingEndpointsAreThoseThatServe(t *testing.T) {
	svc := serviceWith("198.51.100.7")
	svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	condition := func(node string, ready, serving, terminating bool) discoveryv1.Endpoint {
		e := endpoint(node, &ready)
		e.Conditions.Serving, e.Conditions.Terminating = &serving, &terminating
		return e
	}
	endpoints := slice("web-a", web, condition("n1", true, true, false), condition("n2", false, true, true),
		condition("n3", false, false, true), condition("n4", false, false, false))
	in := watched(t, svc, recordFor("198.51.100.7", "web-uid"), endpoints)
	got := in.address(vip, noon).Services[0]
	if said := fmt.Sprint(got.Ready4, got.Leaving4, got.Leaving6); said != "[n1] [n2] []" {
		t.Error(said)
	}
}
