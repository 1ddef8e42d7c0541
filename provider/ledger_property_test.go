package provider

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// Few addresses and few Services, so that they collide.
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

// course is a ledger, and the state that it must have after a random sequence of events.
type course struct {
	*ledger
	holders map[netip.Addr]string // the holder of each address: a UID, "" for a reservation, "~a" for a reservation of the name of a
	// services are the Services as they were last written.
	services map[string]*corev1.Service
}

// known returns an owner in the form of holders.
func known(o ipam.Owner) string {
	if o.UID == "" && o.Name != "" {
		return "~" + o.Name
	}
	return o.UID
}

// check compares the ledger with the state that it must have.
func (c *course) check(t *rapid.T) {
	holders := map[netip.Addr]string{}
	for _, a := range someAddresses {
		if h, _ := c.ledger.holders(a); len(h) > 1 {
			t.Fatalf("%s is held by %v", a, h)
		} else if len(h) == 1 {
			holders[a] = known(h[0].Owner)
		}
	}
	if !maps.Equal(c.holders, holders) {
		t.Fatalf("held are %v, want %v", holders, c.holders)
	}
	for _, uid := range someUIDs {
		for _, o := range []ipam.Owner{{UID: uid}, {Namespace: "default", Name: uid}} {
			for _, a := range c.heldBy(o) {
				if holders[a.Address] != known(o) {
					t.Fatalf("%s holds %s, as does %q", known(o), a.Address, holders[a.Address])
				}
				delete(holders, a.Address)
			}
		}
	}
	for a, uid := range holders {
		if uid != "" {
			t.Fatalf("%s is held by %s, who does not know", a, uid)
		}
	}
	for a, e := range c.addresses {
		if _, held := c.holders[a]; !held {
			t.Fatalf("%s is recorded and held by nobody", a)
		}
		if e.cooling() && e.tenants[0].Owner.UID != "" {
			t.Fatalf("%s cools down and is recorded for %v", a, e.tenants)
		}
	}
	c.checkSettled(t)
}

// checkSettled checks that an allocation gives a settled Service exactly the addresses that it has.
func (c *course) checkSettled(t *rapid.T) {
	for _, uid := range slices.Sorted(maps.Keys(c.services)) {
		svc := c.services[uid].DeepCopy()
		req, err := translate(svc)
		if err != nil {
			t.Fatal(err)
		}
		held, ok := c.settled(req, ownerEntry(svc))
		if !ok {
			continue
		}
		svc.Status.LoadBalancer = *status(held)
		given, _, err := c.allocate(svc, req)
		if err != nil {
			if req.RequireAll { // Otherwise it may be told why it cannot have an optional family.
				t.Fatalf("%s is settled with %v and is refused: %v", uid, held, err)
			}
			continue
		}
		for _, a := range given {
			c.holders[a.Address] = uid // a missing family that is available by now
		}
		if over := c.superfluous(byUID(uid), given); len(over) > 0 {
			t.Fatalf("%s is settled with %v and is to give up %v for %v", uid, held, over, given)
		}
	}
}

// serve does the same as EnsureLoadBalancer if all writes succeed.
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
	given, _, err := c.allocate(svc, req)
	for _, a := range c.heldBy(byUID(uid)) { // The Service has adopted what it carries, even if it is refused.
		if other, taken := before[a.Address]; taken && other != uid && other != "~"+uid {
			t.Fatalf("%s was given %s, which %q holds", uid, a.Address, other)
		}
		c.holders[a.Address] = uid
	}
	if err != nil {
		return
	}
	for _, a := range given {
		note(c.ledger, a, false)
	}
	for _, a := range c.superfluous(byUID(uid), given) {
		note(c.ledger, a, true)
		c.holders[a.Address] = "~" + uid
	}
	svc.Status.LoadBalancer = *status(given)
	if held, ok := c.settled(req, ownerEntry(svc)); !ok || !slices.Equal(held, given) {
		t.Fatalf("%s was given %v and is settled (%v) with %v", uid, given, ok, held)
	}
}

// release does the same as EnsureLoadBalancerDeleted.
func (c *course) release(t *rapid.T) {
	uid := rapid.SampledFrom(someUIDs).Draw(t, "service")
	for _, a := range c.heldBy(byUID(uid)) {
		note(c.ledger, a, true)
		c.holders[a.Address] = "~" + uid
	}
	delete(c.services, uid)
	if held := c.heldBy(byUID(uid)); len(held) > 0 {
		t.Fatalf("%s released everything and still has %v", uid, held)
	}
}

// cool ends the reuse delay of an address.
func (c *course) cool(t *rapid.T) {
	address := rapid.SampledFrom(someAddresses).Draw(t, "address")
	holders, cooling := c.ledger.holders(address)
	if !cooling {
		return
	}
	if len(holders) != 1 || !c.drop(address, holders[0].Owner) {
		t.Fatalf("%s cooled down and is not freed", address)
	}
	delete(c.holders, address)
}

// learnOther makes the ledger learn a record that another leader, or a user by hand, wrote.
func (c *course) learnOther(t *rapid.T) {
	address := rapid.SampledFrom(someAddresses).Draw(t, "address")
	uid := rapid.SampledFrom(append([]string{""}, someUIDs...)).Draw(t, "owner")
	a := given(address.String(), rapid.SampledFrom([]string{"", "low", "gone"}).Draw(t, "pool"), uid)
	if uid != "" && rapid.Bool().Draw(t, "a reservation for the name") {
		a.Owner.UID = ""
	}
	if uid != "" && c.count(a.Owner, ipam.FamilyOf(address)) > 0 {
		return // A leader writes no second address of a family before it releases the first.
	}
	had, was := c.holders[address]
	displaced := note(c.ledger, a, false)
	if lost := was && slices.Contains(someUIDs, had) && had != a.Owner.UID; len(displaced) > 0 != lost || lost && displaced[0].UID != had {
		t.Fatalf("%s goes from %q to %v, and displaced is %v", address, had, a.Owner, displaced)
	}
	c.holders[address] = known(a.Owner)
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
		c := &course{ledger: newLedger(herald.LoadBalancerClass), holders: map[netip.Addr]string{}, services: map[string]*corev1.Service{}}
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
