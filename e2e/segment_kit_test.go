package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
)

const (
	askEvery  = 20 * time.Millisecond
	openEvery = 20 * time.Millisecond
	// twoAnswers is the window in which two nodes must not answer for one address.
	twoAnswers = 100 * time.Millisecond
	// longGap bounds the time in which no connection can be opened after a death. It allows for programs with the race
	// detector on busy CPUs. `make bench` has the real measurements.
	longGap = 1500 * time.Millisecond
	// atOnce bounds the time in which an address moves when its owner releases it, with the same allowance.
	atOnce = time.Second
	// kept is the number of connections that a client keeps open to both addresses together.
	kept = 20
)

// segmentField is a lab without routers. Its only Service has an address of each family on the segment, policy Local, and
// a pod on every node. Each node therefore serves independently of the others.
type segmentField struct {
	*labField
	addresses []netip.Addr
	nodes     []string
	// client is a client on the observed segment, and iface is the nodes' interface there.
	client *lab.Client
	iface  string
}

func withSegment(t testing.TB, nodes int) *segmentField {
	t.Helper()
	if onKind() {
		t.Skip("it needs a lab: nodes of kind cannot be hurt so")
	}
	f := &segmentField{labField: withLab(t, lab.Options{Nodes: nodes})}
	f.nodes, f.client, f.iface = names(f.site), f.site.Segment, "eth0"
	f.announce()
	f.pool("segment", delay(0), "198.18.0.200-198.18.0.250", "2001:db8:18::200-2001:db8:18::250")
	for _, n := range f.nodes {
		f.pod("pod-on-"+n, n)
	}
	f.service("web", to8080, dualStack, local, annotated(herald.AnnotationIPs, "198.18.0.200,2001:db8:18::200"))
	f.holds("web", "198.18.0.200", "2001:db8:18::200")
	f.addresses = []netip.Addr{netip.MustParseAddr("198.18.0.200"), netip.MustParseAddr("2001:db8:18::200")}
	f.members()
	f.field.served("web")
	for _, a := range f.addresses {
		f.reached(f.site.Segment, target(a))
	}
	return f
}

func (f *segmentField) within(t testing.TB) *segmentField {
	o, lab := *f, *f.labField
	lab.field = f.field.within(t)
	o.labField = &lab
	return &o
}

func target(a netip.Addr) string { return netip.AddrPortFrom(a, 9000).String() }

// reported waits until is returns true for the status of a node's speaker.
func (f *segmentField) reported(node, what string, is func(*herald.SpeakerStatusStatus) bool) {
	f.t.Helper()
	f.eventually(fmt.Sprintf("%s reports %s", node, what), func(ctx context.Context) error {
		s, err := f.herald.SpeakerStatuses.Get(ctx, node, metav1.GetOptions{})
		if err == nil && !is(&s.Status) {
			err = fmt.Errorf("it reports %+v", s.Status)
		}
		return err
	})
}

// members waits until the speaker of each node reports that it is a member, hears all others, and knows of no death.
func (f *segmentField) members() {
	f.t.Helper()
	f.states(herald.SegmentMember, len(f.nodes)-1, f.nodes...)
}

// states waits until the speakers of the nodes report this state on the segment, this number of others that they hear, and
// no death.
func (f *segmentField) states(state string, hears int, of ...string) {
	f.t.Helper()
	for _, n := range of {
		f.reported(n, fmt.Sprintf("the state %s and that it hears %d others", state, hears), func(s *herald.SpeakerStatusStatus) bool {
			return len(s.Deaths) == 0 && slices.ContainsFunc(s.Interfaces, func(i herald.SpeakerInterface) bool {
				return i.Name == f.iface && i.State == state && int(i.Neighbours) == hears
			})
		})
	}
}

// dead waits until all others report the death of a node.
func (f *segmentField) dead(node string) {
	f.t.Helper()
	for _, n := range without(f.nodes, node) {
		f.reported(n, "the death of "+node, func(s *herald.SpeakerStatusStatus) bool {
			return slices.ContainsFunc(s.Deaths, func(d herald.SpeakerDeath) bool { return d.Node == node })
		})
	}
}

// gather makes one node own both addresses and returns it. It excludes the other nodes until then.
func (f *segmentField) gather() (owner string) {
	f.t.Helper()
	o := f.observe(observing{})
	defer o.end()
	owners := o.settled(f.nodes...)
	owner = owners[0]
	if owners[1] == owner {
		return owner
	}
	f.exclude(true, without(f.nodes, owner)...)
	o.settled(owner)
	f.exclude(false, without(f.nodes, owner)...)
	return owner
}

// exclude adds or removes the label that excludes nodes from announcing, and waits until their speakers know. It returns
// the time at which the API server had the labels.
func (f *segmentField) exclude(yes bool, nodes ...string) (labelled time.Time) {
	f.t.Helper()
	for _, n := range nodes {
		if yes {
			f.label(n, corev1.LabelNodeExcludeBalancers, "")
		} else {
			f.unlabel(n, corev1.LabelNodeExcludeBalancers)
		}
	}
	labelled = time.Now()
	for _, n := range nodes {
		f.reported(n, fmt.Sprintf("that it is excluded: %t", yes), func(s *herald.SpeakerStatusStatus) bool { return (s.Problem != "") == yes })
	}
	return labelled
}
