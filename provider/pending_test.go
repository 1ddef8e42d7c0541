package provider

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// sharers has Services that share two addresses, with the records of these in the API server.
type sharers struct {
	*ledger
	records map[netip.Addr][]ipam.Tenant
	version int
	// underway has the Services that were given an address and are not in its record yet.
	underway map[string]journey
}

type journey struct {
	ipam.Tenant
	to netip.Addr
}

var sharedAddresses = addresses("198.51.100.0", "198.51.100.1")

func (c *sharers) tenant(t *rapid.T) ipam.Tenant {
	uid := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"}).Draw(t, "service")
	port := rapid.Uint16Range(1, 4).Draw(t, "port")
	return ipam.Tenant{
		Owner:   ipam.Owner{Namespace: "default", Name: uid, UID: uid},
		Sharing: ipam.Sharing{Key: "k", Ports: []ipam.Port{{Protocol: "TCP", Number: port}}},
	}
}

// at returns the address that a Service has or is about to be recorded for.
func (c *sharers) at(uid string) (a netip.Addr, is bool) {
	for a, tenants := range c.records {
		if slices.ContainsFunc(tenants, func(t ipam.Tenant) bool { return t.Owner.UID == uid }) {
			return a, true
		}
	}
	j, is := c.underway[uid]
	return j.to, is
}

// write makes the API server accept a record, and the ledger learn it. A Service that is underway to the address and
// conflicts with the record loses the address.
func (c *sharers) write(t *rapid.T, a netip.Addr, tenants []ipam.Tenant) {
	c.records[a], c.version = tenants, c.version+1
	rec := recordOf(ipam.Allocation{Address: a, Pool: "public"}, "", herald.AllocationOwner{})
	rec.ResourceVersion = strconv.Itoa(c.version)
	lost, _, err := c.learn(a, rec, tenants)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range lost {
		if j := c.underway[o.UID]; c.agrees(a, tenants, j.Tenant) {
			t.Fatalf("%s is lost on its way to %s, where it could be with %v", o, a, tenants)
		}
		delete(c.underway, o.UID)
	}
}

func (c *sharers) ask(t *rapid.T) {
	tenant := c.tenant(t)
	if _, is := c.at(tenant.Owner.UID); is {
		return
	}
	svc := service(tenant.Owner.UID, wish{families: []corev1.IPFamily{v4}})
	given, _, err := c.allocate(svc, ipam.Request{Owner: tenant.Owner, Families: []ipam.Family{ipam.IPv4}, Sharing: tenant.Sharing})
	if err == nil {
		c.underway[tenant.Owner.UID] = journey{tenant, given[0].Address}
	}
}

// arrive adds a Service to the record: one that is underway, or one that another leader adds if it does not conflict.
func (c *sharers) arrive(t *rapid.T) {
	tenant := c.tenant(t)
	uid := tenant.Owner.UID
	a, is := c.at(uid)
	j, underway := c.underway[uid]
	switch {
	case underway:
		tenant = j.Tenant
	case is:
		return
	default:
		a = rapid.SampledFrom(sharedAddresses).Draw(t, "another leader's choice")
	}
	if !c.agrees(a, c.records[a], tenant) {
		if underway {
			t.Fatalf("%s was to come to %s and collides with %v", uid, a, c.records[a])
		}
		return
	}
	delete(c.underway, uid)
	c.write(t, a, append(slices.Clone(c.records[a]), tenant))
}

// leave releases a Service that is in the record or underway.
func (c *sharers) leave(t *rapid.T) {
	uid := c.tenant(t).Owner.UID
	a, is := c.at(uid)
	if !is {
		return
	}
	if _, underway := c.underway[uid]; underway {
		delete(c.underway, uid)
		if rapid.Bool().Draw(t, "noticed with the next record") && len(c.records[a]) > 0 {
			c.keepPending(a, func(o ipam.Owner) bool { return o.UID != uid })
			c.write(t, a, c.records[a])
		} else {
			c.drop(a, byUID(uid))
		}
		return
	}
	if rest := slices.DeleteFunc(slices.Clone(c.records[a]), func(t ipam.Tenant) bool { return t.Owner.UID == uid }); len(rest) > 0 {
		c.write(t, a, rest)
	} else { // The record is deleted, and other Services may still be underway.
		delete(c.records, a)
		c.drop(a, byUID(uid))
		c.outdated(a, c.ledger.version(a))
	}
}

func (c *sharers) check(t *rapid.T) {
	for _, a := range sharedAddresses {
		want := map[string]bool{}
		for _, tenant := range c.records[a] {
			want[tenant.Owner.UID] = true
		}
		for uid, j := range c.underway {
			if j.to == a {
				want[uid] = true
			}
		}
		got := map[string]bool{}
		all, _ := c.ledger.holders(a)
		for _, h := range all {
			got[h.Owner.UID] = true
		}
		if !maps.Equal(want, got) {
			t.Fatalf("%s is held by %v, want %v", a, got, want)
		}
		ports := map[string]string{}
		for _, tenant := range slices.Concat(c.records[a], c.addresses[a].pending) {
			for _, p := range tenant.Sharing.Ports {
				if other, taken := ports[p.String()]; taken {
					t.Fatalf("%s of %s is of %s and %s", p, a, other, tenant.Owner)
				}
				ports[p.String()] = fmt.Sprint(tenant.Owner)
			}
		}
	}
}

// TestPendingServicesKeepTheirAddress checks that a Service that was given a shared address keeps it while other versions
// of the record are written. It loses the address only to a record that it conflicts with.
func TestPendingServicesKeepTheirAddress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &sharers{ledger: newLedger(herald.LoadBalancerClass), records: map[netip.Addr][]ipam.Tenant{}, underway: map[string]journey{}}
		c.setPools([]ipam.Pool{pool(ipam.Pool{Name: "public", AutoAssign: true}, "198.51.100.0/31")}, nil)
		t.Repeat(map[string]func(*rapid.T){"ask": c.ask, "arrive": c.arrive, "leave": c.leave, "": c.check})
	})
}
