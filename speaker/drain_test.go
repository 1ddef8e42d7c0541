package speaker

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/announce"
	"github.com/heraldlb/herald/speaker/bgp/route"
)

// A node that leaves asks routers to prefer others, withdraws its routes after the drain time of their advertisement, and
// announces nothing new. A node that comes back announces its routes without this request.
func TestANodeThatLeavesDrainsItsRoutes(t *testing.T) {
	const one, two = "198.51.100.7", "198.51.100.8"
	node := func(edit ...func(*corev1.Node)) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "198.18.0.1"}},
		}}
		for _, e := range edit {
			e(n)
		}
		return n
	}
	excluded := func(n *corev1.Node) { n.Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""} }
	deleted := func(n *corev1.Node) { n.DeletionTimestamp = &metav1.Time{Time: noon} }
	tainted := func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "ToBeDeletedByClusterAutoscaler"}} }
	cordoned := func(n *corev1.Node) { n.Spec.Unschedulable = true }
	type step struct {
		after time.Duration // since the step before
		do    func(*loop)
		want  string
	}
	is := func(edit ...func(*corev1.Node)) func(*loop) {
		return func(l *loop) { l.put(t, node(edit...)) }
	}
	gone := func(l *loop) {
		if err := l.s.inputs.nodes.GetStore().Delete(node()); err != nil {
			t.Fatal(err)
		}
	}
	nothing := func(*loop) {}
	another := func(l *loop) {
		l.put(t, serviceNamed("mail", two), sharedBy(two, "mail"), slice("mail-a", types.NamespacedName{Namespace: web.Namespace, Name: "mail"}, endpoint("n2", new(true))))
	}
	const announced, drains, silent = "announced", "drains", "silent"
	leaving := func(begin func(*loop)) []step {
		return []step{{0, begin, drains}, {4 * time.Second, another, drains}, {time.Second, nothing, silent}, {time.Minute, nothing, silent}}
	}
	for _, story := range []struct {
		name  string
		steps []step
	}{
		{"the label", leaving(is(excluded))},
		{"a taint", leaving(is(tainted))},
		{"a Node that is being deleted", leaving(is(deleted))},
		{"a Node that is gone", leaving(gone)},
		{"a planned stop", leaving(func(l *loop) { l.drain.stopping = true })},
		{"a Node that is cordoned", []step{{0, is(cordoned), announced}, {time.Minute, nothing, announced}}},
		{"the label, and back", []step{{0, is(excluded), drains}, {time.Second, is(), announced}, {time.Minute, is(excluded), drains}}},
		{"the label, and then the Node is gone", []step{{0, is(excluded), drains}, {3 * time.Second, gone, drains}, {2 * time.Second, nothing, silent}}},
		{"gone, and registered again", []step{{0, gone, drains}, {time.Minute, nothing, silent}, {time.Minute, is(), announced}}},
	} {
		t.Run(story.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := loopOf(t, "n1", node(), serviceNamed("web", one), sharedBy(one, "web"), slice("web-a", web, endpoint("n2", new(true))),
					&herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor"}, Spec: herald.BGPPeerSpec{Address: "198.18.0.254", LocalASN: 64512, PeerASN: 64513}},
					&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "all"}, Spec: herald.BGPAdvertisementSpec{DrainTime: &metav1.Duration{Duration: 5 * time.Second}}})
				l.shared = nil
				says := func() string {
					all := noChanges()
					all.all = true
					l.pass(all)
					var texts []string
					for _, a := range parseAddresses(one, two) {
						exports := l.decisions[a].Exports
						switch a, some := exports["tor"]; {
						case !some:
						case slices.Contains(a.Communities, route.GracefulShutdown):
							texts = append(texts, drains)
						default:
							texts = append(texts, announced)
						}
					}
					slices.Sort(texts)
					return fmt.Sprint(len(texts), " ", slices.Compact(texts))
				}
				if got := says(); got != "1 [announced]" {
					t.Fatal(got)
				}
				for i, s := range story.steps {
					time.Sleep(s.after)
					s.do(l)
					want := "1 [" + s.want + "]"
					if s.want == silent {
						want = "0 []"
					}
					if got := says(); got != want {
						t.Errorf("step %d: %s, want %s", i, got, want)
					}
					// If the Node is gone, the session ends, but not before the routes are drained.
					_, there, _ := l.s.inputs.nodes.GetStore().GetByKey("n1")
					if sessions := len(l.s.bgp.Sessions()); (sessions == 1) != (there || s.want == drains) {
						t.Errorf("step %d: %d sessions", i, sessions)
					}
				}
			})
		})
	}
}

// A speaker that starts on an excluded node announces nothing.
func TestANodeThatIsExcludedFromTheStartAnnouncesNothing(t *testing.T) {
	const address = "198.51.100.7"
	l := loopOf(t, "n1", serviceWith(address), recordFor(address, "web-uid"), slice("web-a", web, endpoint("n2", new(true))),
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelNodeExcludeBalancers: ""}}},
		&herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor"}, Spec: herald.BGPPeerSpec{Address: "198.18.0.254", LocalASN: 64512, PeerASN: 64513}},
		&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "all"}, Spec: herald.BGPAdvertisementSpec{DrainTime: &metav1.Duration{Duration: 5 * time.Second}}})
	l.shared = nil
	all := noChanges()
	all.all = true
	l.pass(all)
	if d := l.decisions[vip]; len(d.Exports) > 0 {
		t.Errorf("it announces %v", d.Exports)
	}
}

// What a speaker reports of an excluded node names what excludes it.
func TestASpeakerNamesWhatExcludesItsNode(t *testing.T) {
	for _, c := range []struct {
		want string
		edit func(*corev1.Node)
	}{
		{"", func(n *corev1.Node) { n.Spec.Unschedulable = true }},
		{"the node has the label " + corev1.LabelNodeExcludeBalancers, func(n *corev1.Node) { n.Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""} }},
		{"the node has the taint node.kubernetes.io/out-of-service", func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeUnschedulable}, {Key: corev1.TaintNodeOutOfService}}
		}},
		{"the Node is being deleted", func(n *corev1.Node) { n.DeletionTimestamp = &metav1.Time{Time: noon} }},
	} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
		c.edit(n)
		l := loopOf(t, "n1", n)
		l.shared = nil
		all := noChanges()
		all.all = true
		l.pass(all)
		if got := l.problem(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	// A Node that is gone is in the snapshot until its routes are drained.
	l := loopOf(t, "n1")
	editNode(l.shared, "n1", func(n *announce.Node) { n.Excluded = true })
	if got := l.problem(); got != "the Node is being deleted" {
		t.Errorf("%q of a Node that is gone", got)
	}
}

// A stop without routes to drain does not wait.
func TestAStopWithoutRoutesToDrainDoesNotWait(t *testing.T) {
	l := loopOf(t, "n1")
	l.beginStop()
	select {
	case <-l.drain.done:
	default:
		t.Error("it waits")
	}
}
