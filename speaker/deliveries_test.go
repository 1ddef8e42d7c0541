package speaker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/heraldlb/herald/speaker/announce"
)

// A pod is replaced by one on another node. The node of the old pod goes on delivering until the node of the new pod knows it.
func TestANodeHandsOverUnderPolicyLocal(t *testing.T) {
	type state struct {
		at             time.Duration
		ready, leaving []string
		want           bool // n1 delivers
		until          time.Duration
		fresh          string
	}
	for _, story := range []struct {
		name   string
		local  bool
		states []state
	}{
		{"the only pod moves", true, []state{
			{0, []string{"n1"}, nil, true, 0, ""},
			{10e9, []string{"n1", "n2"}, nil, true, 12e9, "n2"},
			{10.1 * 1e9, []string{"n2"}, []string{"n1"}, true, 12e9, "n2"},
			{11 * 1e9, []string{"n2"}, []string{"n1"}, true, 12e9, "n2"},
			{12 * 1e9, []string{"n2"}, []string{"n1"}, false, 0, ""},
			{13 * 1e9, []string{"n2"}, []string{"n1"}, false, 0, ""},
		}},
		{"both changes come at once", true, []state{
			{0, []string{"n1"}, nil, true, 0, ""},
			{10e9, []string{"n2"}, []string{"n1"}, true, 12e9, "n2"},
			{12e9, []string{"n2"}, []string{"n1"}, false, 0, ""},
		}},
		{"the old pod is gone before", true, []state{
			{0, []string{"n1"}, nil, true, 0, ""},
			{10e9, []string{"n2"}, []string{"n1"}, true, 12e9, "n2"},
			{11e9, []string{"n2"}, nil, false, 12e9, "n2"},
		}},
		{"the old pod does not serve", true, []state{
			{0, []string{"n1"}, nil, true, 0, ""},
			{10e9, []string{"n2"}, nil, false, 12e9, "n2"},
		}},
		{"another node has had a pod for long", true, []state{
			{0, []string{"n1", "n3"}, nil, true, 0, ""},
			{10e9, []string{"n1", "n2", "n3"}, nil, true, 12e9, "n2"},
			{10.1 * 1e9, []string{"n2", "n3"}, []string{"n1"}, false, 12e9, "n2"},
			{12e9, []string{"n2", "n3"}, []string{"n1"}, false, 0, ""},
		}},
		{"an excluded node has had a pod for long", true, []state{
			{0, []string{"n1", "n4"}, nil, true, 0, ""},
			{10e9, []string{"n2", "n4"}, []string{"n1"}, true, 12e9, "n2"},
			{12e9, []string{"n2", "n4"}, []string{"n1"}, false, 0, ""},
		}},
		{"endpoints on no node are there, too", true, []state{
			{0, []string{"", "n1"}, nil, true, 0, ""},
			{10e9, []string{"", "n2"}, []string{"n1"}, true, 12e9, "n2"},
			{12e9, []string{"", "n2"}, []string{"n1"}, false, 0, ""},
		}},
		{"no other node has one", true, []state{
			{0, []string{"n1"}, nil, true, 0, ""},
			{10e9, nil, []string{"n1"}, false, 0, ""},
		}},
		{"the pod was leaving before this node delivered", true, []state{
			{0, []string{"n2"}, []string{"n1"}, false, 0, ""},
			{1, []string{"n2", "n3"}, []string{"n1"}, false, 2e9 + 1, "n3"},
		}},
		{"the new node loses its pod, and a third gets one", true, []state{
			{0, []string{"n1"}, nil, true, 0, ""},
			{10e9, []string{"n2"}, []string{"n1"}, true, 12e9, "n2"},
			{11e9, []string{"n3"}, []string{"n1"}, true, 13e9, "n3"},
			{13e9, []string{"n3"}, []string{"n1"}, false, 0, ""},
		}},
		{"a node loses its pod for a moment", true, []state{
			{0, []string{"n1", "n2"}, nil, true, 0, ""},
			{10e9, []string{"n2"}, nil, false, 0, ""},
			{11e9, []string{"n1", "n2"}, nil, true, 13e9, "n1"},
			{12e9, []string{"n1", "n2", "n3"}, nil, true, 13e9, "n1 n3"},
			{13e9, []string{"n1", "n2", "n3"}, nil, true, 14e9, "n3"},
		}},
		{"policy Cluster", false, []state{
			{0, []string{"n1"}, nil, true, 0, ""},
			{10e9, []string{"n2"}, nil, true, 0, ""},
			{11e9, nil, nil, false, 0, ""},
		}},
	} {
		t.Run(story.name, func(t *testing.T) {
			d := newDeliveries("n1")
			was := false
			for _, s := range story.states {
				shared, a := cluster(t, "n1")
				editNode(shared, "n4", func(n *announce.Node) { n.Excluded = true })
				svc := a.Services[0]
				svc.Local, svc.Ready4, svc.Terminating4 = story.local, s.ready, s.leaving
				given := slices.Clone(s.ready)
				began := d.note(a, shared.Nodes, noon.Add(s.at))
				until := d.fresh.at[vip]
				if delivers := svc.Delivers(vip, "n1"); delivers != s.want || began != (delivers && !was) || d.now[vip] != delivers {
					t.Fatalf("at %v: it delivers: %v, which began: %v", s.at, delivers, began)
				}
				if want := noon.Add(s.until); s.until == 0 && !until.IsZero() || s.until != 0 && !until.Equal(want) {
					t.Fatalf("at %v: until %v, want %v", s.at, until, want)
				}
				if fresh := strings.Join(a.Fresh, " "); fresh != s.fresh {
					t.Fatalf("at %v: %q are fresh, want %q", s.at, fresh, s.fresh)
				}
				if s.want && slices.Contains(s.leaving, "n1") && svc.Count4["n1"] != 1 {
					t.Fatalf("at %v: it has the weight of %d endpoints, want that of one", s.at, svc.Count4["n1"])
				}
				if !slices.Equal(s.ready, given) {
					t.Fatal("what the informers have was written to")
				}
				was = s.want
			}
			d.forget(vip)
			if len(d.now)+len(d.local)+len(d.fresh.at) > 0 {
				t.Errorf("%+v is remembered", d)
			}
		})
	}
}

// Two Services share an address and a pod. The endpoints of one Service change before those of the other.
func TestANodeHandsOverOneServiceAfterAnother(t *testing.T) {
	d := newDeliveries("n1")
	for i, step := range []struct{ web, webLeaving, mail, mailLeaving, want string }{
		{"n1", "", "n1", "", "eth0: n1"},
		{"n1 n2", "", "n1", "", "eth0: n1"},
		{"n1 n2", "", "n1 n2", "", "eth0: n1 n2(fresh)"},
		{"n2", "n1", "n1 n2", "", "eth0: n1 n2(fresh)"},
		{"n2", "n1", "n2", "n1", "eth0: n1 n2(fresh)"},
	} {
		shared, a := cluster(t, "n1")
		web := a.Services[0]
		mail := &announce.Service{Name: types.NamespacedName{Namespace: "default", Name: "mail"}, Local: true}
		web.Local, web.Ready4, web.Terminating4 = true, strings.Fields(step.web), strings.Fields(step.webLeaving)
		mail.Ready4, mail.Terminating4 = strings.Fields(step.mail), strings.Fields(step.mailLeaving)
		a.Services = append(a.Services, mail)
		d.note(a, shared.Nodes, noon.Add(time.Duration(i)*50*time.Millisecond))
		if got := said(announce.Decide(shared, a)); got != step.want {
			t.Errorf("step %d: %s, want %s", i, got, step.want)
		}
	}
}

// A node counts itself as fresh while it waits for its kube-proxy. Two nodes get pods at the same time, and each learns that the
// other is not fresh any more before it learns this about itself. Both can take the address over: neither leaves it to the other.
func TestANodeIsFreshWhileItWaits(t *testing.T) {
	d := newDeliveries("n1")
	note := func(after time.Duration, ready ...string) *announce.Address {
		shared, a := cluster(t, "n1")
		a.Services[0].Local, a.Services[0].Ready4 = true, ready
		d.note(a, shared.Nodes, noon.Add(after))
		return a
	}
	note(0, "n3")
	for _, story := range []struct {
		after  time.Duration
		ready  []string
		own    answer
		counts string // the nodes that count as fresh
	}{
		{10 * time.Second, []string{"n2", "n3"}, forwards, "n2"},
		{10.1 * 1e9, []string{"n1", "n2"}, no, "n1"},
		{10.9 * 1e9, []string{"n1", "n2"}, forwards, "n1 n2"},
		{12 * time.Second, []string{"n1", "n2"}, no, "n1"},
		{12 * time.Second, []string{"n1", "n2"}, unknown, "n1"},
		{12 * time.Second, []string{"n1", "n2"}, forwards, ""},
		{12.5 * 1e9, []string{"n1", "n2"}, no, "n1"},
		{12.5 * 1e9, []string{"n1", "n2", "n3"}, no, "n1 n3"},
		{12.5 * 1e9, []string{"n1", "n3"}, no, "n1"},
		{15 * time.Second, []string{"n1"}, unknown, ""},
		{15 * time.Second, []string{"n1"}, no, "n1"},
	} {
		a := note(story.after, story.ready...)
		d.judge(a, story.own)
		if got := strings.Join(a.Behind, " "); got != story.counts {
			t.Errorf("at %v: %q come last, want %q", story.after, got, story.counts)
		}
	}
}

// A node gives its kube-proxy more time to hear of a change while other nodes serve the clients.
func TestOtherNodesDeliver(t *testing.T) {
	for _, story := range []struct {
		name           string
		local          bool
		ready, leaving []string
		want           bool
	}{
		{"only this node", true, []string{"n1"}, []string{"n1"}, false},
		{"another node", true, []string{"n1", "n2"}, nil, true},
		{"another node, whose pods terminate", true, []string{"n1"}, []string{"n2"}, true},
		{"policy Cluster", false, []string{"n1", "n2"}, nil, false},
	} {
		_, a := cluster(t, "n1")
		svc := a.Services[0]
		svc.Local, svc.Ready4, svc.Terminating4 = story.local, story.ready, story.leaving
		if got := othersDeliver(a, "n1"); got != story.want {
			t.Errorf("%s: %v", story.name, got)
		}
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
	if said := fmt.Sprint(got.Ready4, got.Terminating4, got.Terminating6); said != "[n1] [n2] []" {
		t.Error(said)
	}
}
