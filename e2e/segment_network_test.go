package e2e

import (
	"fmt"
	"testing"
	"time"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
)

// TestTheNetworkFails is about lost frames while all nodes are alive.
func TestTheNetworkFails(t *testing.T) {
	f := withSegment(t, 4)
	other, err := f.site.NewClient()
	f.must(err)
	ports := func(nodes ...string) (all []lab.Port) {
		for _, n := range nodes {
			all = append(all, f.site.Node(n))
		}
		return all
	}
	// A failed part may leave faults at the switch, which would affect the next lab.
	t.Cleanup(func() {
		if err := lab.Heal(append(ports(f.nodes...), f.client, other)...); err != nil {
			t.Error(err)
		}
	})

	for _, lost := range []lab.Direction{lab.FromHost, lab.ToHost} {
		t.Run(fmt.Sprintf("all frames %s that owns the addresses are lost", lost), func(t *testing.T) {
			f := f.within(t)
			owner := f.gather()
			o := f.observe(observing{open: true})
			f.must(f.site.Node(owner).OneWay(lost))
			o.settled(without(f.nodes, owner)...)
			f.must(f.site.Node(owner).Heal())
			f.pass(time.Second)
			f.members()
			o.settled(without(f.nodes, owner)...)
			s := o.end()
			// A node that no longer hears others detects it by missing beats of nodes that own nothing, which send one a second.
			s.failedOver(owner, longGap+time.Second)
		})
	}
	t.Run("a third of the owner's frames are lost", func(t *testing.T) {
		f := f.within(t)
		owner := f.gather()
		o := f.observe(observing{})
		f.must(f.site.Node(owner).Loss(30, lab.Both))
		f.pass(8 * time.Second)
		f.must(f.site.Node(owner).Heal())
		f.pass(time.Second)
		f.members()
		o.settled(f.nodes...)
		s := o.end()
		s.neverTwo(twoAnswers)
		for a := range s.runs {
			t.Logf("%s was answered by %s", a, s.answerers(a))
		}
	})
	t.Run("the segment is split, and heals", func(t *testing.T) {
		f := f.within(t)
		owner := f.gather()
		here := []string{owner, without(f.nodes, owner)[0]}
		there := without(without(f.nodes, here[0]), here[1])
		sides := [2]*observation{f.observe(observing{open: true}), f.observe(observing{open: true, from: other})}
		f.must(lab.Split(append(ports(here...), f.client), append(ports(there...), other)))
		sides[0].settled(owner)
		sides[1].settled(there...)
		f.must(lab.Heal(append(ports(f.nodes...), f.client, other)...))
		soon := time.Now().Add(atOnce)
		keeper := sides[0].settled(f.nodes...)
		for i, n := range sides[1].settled(f.nodes...) {
			if n != keeper[i] {
				t.Errorf("after the split %s is answered by %s on one side and %s on the other", f.addresses[i], keeper[i], n)
			}
		}
		f.members()
		for _, o := range sides {
			s := o.end()
			s.gap(longGap)
			s.before(soon)
		}
	})
	t.Run("all speakers are started anew at once", func(t *testing.T) {
		f := f.within(t)
		o := f.observe(observing{})
		f.restartAll()
		f.members()
		o.settled(f.nodes...)
		o.end().neverTwo(0)
	})
	t.Run("multicast is lost between nodes", func(t *testing.T) {
		f := f.within(t)
		owner := f.gather()
		o := f.observe(observing{open: true, keep: kept})
		f.must(lab.FilterMulticast(ports(f.nodes...)...))
		o.stays(12*time.Second, owner) // Longer than the grace.
		f.members()
		s := o.end()
		s.stayed(owner)
		s.unharmed()

		// Speakers that start now have never heard a neighbour. They find each other by their objects in the API.
		f.restartAll()
		f.members()
		o = f.observe(observing{})
		f.pass(time.Second)
		o.end().neverTwo(0)
		f.must(lab.Heal(ports(f.nodes...)...))
	})
	t.Run("everything is lost between nodes", func(t *testing.T) {
		f := f.within(t)
		f.must(lab.FilterBetween(ports(f.nodes...)...))
		f.restartAll()
		f.states(herald.SegmentDegraded, 0, f.nodes...)
		o := f.observe(observing{open: true})
		f.pass(2 * time.Second)
		s := o.end()
		s.neverTwo(0)
		s.gap(atOnce)
		f.must(lab.Heal(ports(f.nodes...)...))
		f.members()
		f.observe(observing{}).end().neverTwo(0)
	})
}

// restartAll kills all speakers and starts them.
func (f *segmentField) restartAll() {
	f.t.Helper()
	before := map[string]string{}
	for _, n := range f.nodes {
		before[n] = f.boot(n)
		f.must(f.speakers[n].Kill())
	}
	for _, n := range f.nodes {
		f.must(f.speakers[n].Start())
	}
	for _, n := range f.nodes {
		f.rebooted(n, before[n])
	}
}
