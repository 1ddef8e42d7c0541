package segment

import (
	"net/netip"
	"testing"
	"time"

	"github.com/heraldlb/herald/speaker/segment/ownership"
)

// TestAnAddressThatAStrangerUsesIsLeftAlone: the owner gives it up, and no other node takes it until the stranger has been
// silent for a minute.
func TestAnAddressThatAStrangerUsesIsLeftAlone(t *testing.T) {
	w, addrs := newWorld(t, 4, 7), vips(20)
	for _, h := range w.nodes {
		h.start()
	}
	w.want(addrs, func(want *ownership.Want) { want.Defend = false }, w.nodes...)
	w.run(2 * time.Second)
	before, disputed := w.owners(addrs), addrs[3]
	alone := func() {
		for _, a := range addrs {
			if macs := w.answersFor(a); a == disputed && len(macs) > 0 || a != disputed && w.owner(a) != before[a] {
				w.fail("%v is answered with %v", a, macs)
			}
		}
	}
	w.strangers = map[netip.Addr]bool{disputed: true}
	before[disputed].input(func(m *Machine, now Time) { m.Conflict(now, disputed) })
	w.run(90*time.Second, alone)
	// A speaker that starts has not heard that there is a stranger.
	w.nodes[1].kill()
	w.run(time.Second)
	w.nodes[1].start()
	w.run(5*time.Second, func() {
		if macs := w.answersFor(disputed); len(macs) > 0 {
			w.fail("%v is answered with %v", disputed, macs)
		}
	})
	w.run(30*time.Second, alone)
	w.strangers = nil
	w.run(strangerTime-recheck-time.Second, alone)
	w.run(2*recheck + 2*time.Second)
	if w.owner(disputed) == nil {
		w.fail("%v is answered with %v, and the stranger is gone", disputed, w.answersFor(disputed))
	}
}

// TestAnAddressIsYieldedWhenThePoolSaysSo: the stranger was seen before the pool said so.
func TestAnAddressIsYieldedWhenThePoolSaysSo(t *testing.T) {
	w, addrs := began(t, 3, 2)
	w.strangers = map[netip.Addr]bool{addrs[0]: true}
	w.owner(addrs[0]).input(func(m *Machine, now Time) { m.Conflict(now, addrs[0]) })
	w.run(20 * time.Second)
	if w.owner(addrs[0]) == nil {
		w.fail("%v is not defended", addrs[0])
	}
	w.want(addrs, func(want *ownership.Want) { want.Defend = false }, w.nodes...)
	w.run(10 * time.Millisecond)
	w.run(30*time.Second, func() {
		if macs := w.answersFor(addrs[0]); len(macs) > 0 {
			w.fail("%v is answered with %v", addrs[0], macs)
		}
	})
	w.want(addrs, nil, w.nodes...)
	w.run(recheck + time.Second)
	if w.owner(addrs[0]) == nil || w.owner(addrs[1]) == nil {
		w.fail("%v is not defended again", addrs[0])
	}
}

// TestANodeDisputesOnlyWhatItHasClaimed: a late update may say why its sender released an address that it had claimed. It
// takes no address from other nodes.
func TestANodeDisputesOnlyWhatItHasClaimed(t *testing.T) {
	w, addrs := newWorld(t, 3, 7), vips(20)
	for _, h := range w.nodes {
		h.start()
	}
	w.want(addrs, func(want *ownership.Want) { want.Defend = false }, w.nodes...)
	w.run(2 * time.Second)
	hostile, before := w.nodes[0], w.owners(addrs)
	var all []change
	for _, a := range addrs {
		if before[a] != hostile {
			all = append(all, change{addr: a, stranger: true})
		}
	}
	if len(all) == 0 || len(all) == len(addrs) {
		t.Fatalf("it owns all or none of %d addresses", len(addrs))
	}
	for range 10 {
		late := hostile.forge(kindUpdate, nil, update{from: hostile.m.claims - 1, to: hostile.m.claims, changes: all}.encode)
		next := hostile.claimFrame(nil, all...)
		for _, h := range w.nodes[1:] {
			for _, frame := range [][]byte{late, next} {
				if d := h.deliver(hostile.mac, frame); d != "" {
					t.Fatalf("%s refuses it: %v", h.name, d)
				}
			}
		}
		w.run(time.Second, func() {
			for _, c := range all {
				if w.owner(c.addr) != before[c.addr] {
					w.fail("%v was taken from its owner: %v", c.addr, w.answersFor(c.addr))
				}
			}
		})
	}
}

// TestAReleaseIsExplainedAfterAPage: a list without an address may arrive before the update which says that a stranger uses
// that address.
func TestAReleaseIsExplainedAfterAPage(t *testing.T) {
	w, addrs := newWorld(t, 3, 7), vips(20)
	for _, h := range w.nodes {
		h.start()
	}
	w.want(addrs, func(want *ownership.Want) { want.Defend = false }, w.nodes...)
	w.run(2 * time.Second)
	owner := w.owner(addrs[0])
	var rest []change
	for a := range owner.m.owned {
		if a.Addr != addrs[0] {
			rest = append(rest, change{addr: a.Addr, term: a.ownTerm})
		}
	}
	version := owner.m.claims + 1
	list := owner.forge(kindPage, nil, page{claims: version, pages: 1, entries: rest}.encode)
	late := owner.forge(kindUpdate, nil, update{from: version - 1, to: version, changes: []change{{addr: addrs[0], stranger: true}}}.encode)
	for _, h := range w.nodes {
		if h == owner {
			continue
		}
		for _, frame := range [][]byte{list, late} {
			if d := h.deliver(owner.mac, frame); d != "" {
				t.Fatalf("%s refuses it: %v", h.name, d)
			}
		}
		if !h.m.addresses[addrs[0]].disputed() {
			t.Errorf("%s does not leave %v to the stranger", h.name, addrs[0])
		}
	}
}
