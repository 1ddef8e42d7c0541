package e2e

import (
	"errors"
	"net/netip"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/heraldlb/herald/e2e/lab"
)

// TestAnAddressOnTwoSegments is about an address that is announced on two segments. It has an owner on each segment, and
// neither segment depends on the other.
func TestAnAddressOnTwoSegments(t *testing.T) {
	f := withSegment(t, 3)
	f.must(f.site.LaySecond(netip.MustParsePrefix("198.18.0.200/32"), netip.MustParsePrefix("2001:db8:18::200/128")))
	_, err := f.herald.L2Advertisements.Patch(f.ctx, "all", types.MergePatchType, []byte(`{"spec":{"interfaces":["eth0","eth1"]}}`), metav1.PatchOptions{})
	f.must(err)
	first, second := f, f.onSecond()
	second.members()
	for _, a := range f.addresses {
		f.reached(f.site.Second, target(a))
	}

	t.Run("its owner loses the link to one of them", func(t *testing.T) {
		first, second := first.within(t), second.within(t)
		owner := gatherBoth(first, second)
		on1, on2 := first.observe(observing{keep: kept}), second.observe(observing{open: true})
		first.must(first.site.Node(owner).Second.Cut())
		on2.settled(without(first.nodes, owner)...)
		second.dead(owner)
		first.must(first.site.Node(owner).Second.Heal())
		second.members()
		s := on1.end()
		s.stayed(owner)
		s.unharmed()
		on2.end().failedOver(owner, longGap)
	})
	t.Run("its owner on one of them, which owns nothing on the other, dies", func(t *testing.T) {
		first, second := first.within(t), second.within(t)
		on1, on2 := first.observe(observing{open: true}), second.observe(observing{keep: kept})
		owner := on1.settled(first.nodes...)[0]
		first.must(cutBoth(first.site.Node(owner)))
		on1.settled(without(first.nodes, owner)...)
		first.must(healBoth(first.site.Node(owner)))
		first.members()
		second.members()
		on1.end().failedOver(owner, longGap)
		s := on2.end()
		s.unharmed()
		for a, runs := range s.runs {
			if len(runs) != 1 {
				t.Errorf("on the second segment %s was answered by %s, want one node alone", a, s.answerers(a))
			}
		}
	})
	t.Run("the owner on both dies", func(t *testing.T) {
		first, second := first.within(t), second.within(t)
		owner := gatherBoth(first, second)
		on1, on2 := first.observe(observing{open: true}), second.observe(observing{open: true})
		first.must(cutBoth(first.site.Node(owner)))
		for _, o := range []*observation{on1, on2} {
			o.settled(without(first.nodes, owner)...)
		}
		first.must(healBoth(first.site.Node(owner)))
		first.members()
		second.members()
		for _, o := range []*observation{on1, on2} {
			o.end().failedOver(owner, longGap)
		}
	})
}

// onSecond returns the same field with the second segment as the observed one.
func (f *segmentField) onSecond() *segmentField {
	o := *f
	o.client, o.iface = f.site.Second, f.site.Nodes[0].Second.Name
	return &o
}

// gatherBoth makes one node own the addresses on both segments and returns it.
func gatherBoth(first, second *segmentField) (owner string) {
	first.t.Helper()
	owner = first.gather()
	others := without(first.nodes, owner)
	o := second.observe(observing{})
	defer o.end()
	first.exclude(true, others...)
	o.settled(owner)
	first.exclude(false, others...)
	return owner
}

func cutBoth(n *lab.Node) error { return errors.Join(n.Cut(), n.Second.Cut()) }

func healBoth(n *lab.Node) error { return errors.Join(n.Heal(), n.Second.Heal()) }
