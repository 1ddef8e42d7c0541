package provider

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/heraldlb/herald/ipam"
)

// Few addresses and few Services, so that they get into each other's way.
var (
	someAddresses = addresses("198.51.100.0", "198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4", "2001:db8::", "2001:db8::1", "2001:db8::2")
	somePools     = []ipam.Pool{
		pool(ipam.Pool{Name: "low", AutoAssign: true}, "198.51.100.0-198.51.100.1", "2001:db8::"),
		pool(ipam.Pool{Name: "high", AutoAssign: true, Priority: 1}, "198.51.100.1-198.51.100.2", "2001:db8::1"),
		pool(ipam.Pool{Name: "manual"}, "198.51.100.3"),
		pool(ipam.Pool{Name: "low", AutoAssign: true, Closed: true}, "198.51.100.0-198.51.100.1", "2001:db8::"),
	}
	someUIDs = []string{"a", "b", "c", "d"}
)

// course is a ledger and what is to be true of it, after whatever came to pass.
type course struct {
	*ledger
	holders map[netip.Addr]string // by whom each address is held, "" a reservation
	// services are the Services as they were last written.
	services map[string]*corev1.Service
}

// check compares the ledger with what is to be true.
func (c *course) check(t *rapid.T) {
	holders := map[netip.Addr]string{}
	for _, a := range someAddresses {
		if h, _, held := c.holder(a); held {
			holders[a] = h.Owner.UID
		}
	}
	if !maps.Equal(c.holders, holders) {
		t.Fatalf("held are %v, want %v", holders, c.holders)
	}
	for _, uid := range someUIDs {
		for _, a := range c.heldBy(uid) {
			if holders[a.Address] != uid {
				t.Fatalf("%s holds %s, as does %q", uid, a.Address, holders[a.Address])
			}
			delete(holders, a.Address)
		}
	}
	for a, uid := range holders {
		if uid != "" {
			t.Fatalf("%s is held by %s, who does not know", a, uid)
		}
	}
	for a := range c.cooling {
		if _, held := c.holders[a]; !held || c.recorded[a] {
			t.Fatalf("%s cools down; held %v, in use %v", a, held, c.recorded[a])
		}
	}
	for a := range c.recorded {
		if _, held := c.holders[a]; !held {
			t.Fatalf("%s is recorded and held by nobody", a)
		}
	}
	c.checkSettled(t)
}

// checkSettled asks that a settled Service gets from an allocation what it has, and gives nothing up.
func (c *course) checkSettled(t *rapid.T) {
	for _, uid := range slices.Sorted(maps.Keys(c.services)) {
		svc := c.services[uid].DeepCopy()
		req, err := translate(svc)
		if err != nil {
			t.Fatal(err)
		}
		held, ok := c.settled(req)
		if !ok {
			continue
		}
		svc.Status.LoadBalancer = *status(held)
		given, err := c.allocate(svc, req)
		if err != nil {
			if req.RequireAll { // Or else it may be told why it cannot have a family that it can do without.
				t.Fatalf("%s is settled with %v and is refused: %v", uid, held, err)
			}
			continue
		}
		for _, a := range given {
			c.holders[a.Address] = uid // A family that was missing and may be had by now.
		}
		if over := c.superfluous(uid, given); len(over) > 0 {
			t.Fatalf("%s is settled with %v and is to give up %v for %v", uid, held, over, given)
		}
	}
}

// serve does as EnsureLoadBalancer does, if all of its writes succeed.
func (c *course) serve(t *rapid.T) {
	uid := rapid.SampledFrom(someUIDs).Draw(t, "service")
	w := wish{families: rapid.SampledFrom([][]corev1.IPFamily{{v4}, {v6}, {v4, v6}, {v6, v4}}).Draw(t, "families")}
	if len(w.families) == 2 {
		w.policy = rapid.SampledFrom([]corev1.IPFamilyPolicy{corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicyPreferDualStack}).Draw(t, "policy")
	}
	switch rapid.IntRange(0, 3).Draw(t, "wish") {
	case 0:
		w.pool = rapid.SampledFrom([]string{"low", "high", "manual", "none"}).Draw(t, "pool")
	case 1:
		if address := rapid.SampledFrom(someAddresses).Draw(t, "ip"); slices.Contains(w.families, corev1.IPFamily(ipam.FamilyOf(address).String())) {
			w.ips = address.String()
		}
	}
	svc := service(uid, w)
	if before := c.services[uid]; before != nil {
		svc.Status = before.Status
	} else if rapid.Bool().Draw(t, "arrives with an address") {
		svc = carrying(uid, w, rapid.SampledFrom(someAddresses).Draw(t, "carried").String())
	}
	c.services[uid] = svc
	req, err := translate(svc)
	if err != nil {
		t.Fatal(err)
	}
	before := maps.Clone(c.holders)
	given, err := c.allocate(svc, req)
	for _, a := range c.heldBy(uid) { // What it carried is its own even if it is refused.
		if other, taken := before[a.Address]; taken && other != uid {
			t.Fatalf("%s was given %s, which %q holds", uid, a.Address, other)
		}
		c.holders[a.Address] = uid
	}
	if err != nil {
		return
	}
	for _, a := range given {
		c.learn(a, false)
	}
	for _, a := range c.superfluous(uid, given) {
		c.learn(a, true)
	}
	svc.Status.LoadBalancer = *status(given)
	if held, ok := c.settled(req); !ok || !slices.Equal(held, given) {
		t.Fatalf("%s was given %v and is settled (%v) with %v", uid, given, ok, held)
	}
}

// release does as EnsureLoadBalancerDeleted does.
func (c *course) release(t *rapid.T) {
	uid := rapid.SampledFrom(someUIDs).Draw(t, "service")
	for _, a := range c.liveOf(uid) {
		c.learn(a, true)
	}
	delete(c.services, uid)
	if live := c.liveOf(uid); len(live) > 0 {
		t.Fatalf("%s released everything and still has %v", uid, live)
	}
}

// cool ends the rest of an address.
func (c *course) cool(t *rapid.T) {
	address := rapid.SampledFrom(someAddresses).Draw(t, "address")
	holder, cooling, held := c.holder(address)
	if !cooling {
		return
	}
	if !held || !c.free(address, holder.Owner.UID) {
		t.Fatalf("%s cooled down and is not freed", address)
	}
	delete(c.holders, address)
}

// learnOther takes note of what another leader wrote, or a user by hand.
func (c *course) learnOther(t *rapid.T) {
	address := rapid.SampledFrom(someAddresses).Draw(t, "address")
	uid := rapid.SampledFrom(append([]string{""}, someUIDs...)).Draw(t, "owner")
	if c.serves(uid, ipam.FamilyOf(address)) {
		return // A leader writes no second address of a family before it releases the first.
	}
	had, was := c.holders[address]
	displaced, told := c.learn(given(address.String(), rapid.SampledFrom([]string{"", "low", "gone"}).Draw(t, "pool"), uid), false)
	if lost := was && had != "" && had != uid; told != lost || lost && displaced.UID != had {
		t.Fatalf("%s goes from %q to %q, and displaced is %v (%v)", address, had, uid, displaced, told)
	}
	c.holders[address] = uid
}

func (c *course) editPools(t *rapid.T) {
	var pools []ipam.Pool
	for _, p := range rapid.Permutation(somePools).Draw(t, "pools") {
		if !slices.ContainsFunc(pools, func(q ipam.Pool) bool { return q.Name == p.Name }) && rapid.Bool().Draw(t, fmt.Sprint("with ", p.Name)) {
			pools = append(pools, p)
		}
	}
	c.setPools(pools, nil)
}

func TestAnAddressHasOneOwnerWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &course{ledger: newLedger(), holders: map[netip.Addr]string{}, services: map[string]*corev1.Service{}}
		c.setPools(somePools[:3], nil)
		t.Repeat(map[string]func(*rapid.T){
			"serve":      c.serve,
			"release":    c.release,
			"cool":       c.cool,
			"learnOther": c.learnOther,
			"editPools":  c.editPools,
			"":           c.check,
		})
	})
}
