package provider

import (
	"net/netip"
	"slices"

	"github.com/heraldlb/herald/ipam"
)

// Of those who share an address each has to come into its record. While they are on their way it is written for others,
// and what it says of them is nothing yet, not that they lost.

// join notes that a tenant is on its way into the record of an address, if it shares and is not in it.
func (l *ledger) join(a netip.Addr, t ipam.Tenant) {
	same := func(o ipam.Tenant) bool { return o.Owner.UID == t.Owner.UID }
	if t.Sharing.Key != "" && !slices.ContainsFunc(l.recorded[a].tenants, same) {
		l.setJoining(a, append(slices.DeleteFunc(l.joining[a], same), t))
	}
}

func (l *ledger) setJoining(a netip.Addr, tenants []ipam.Tenant) {
	if len(tenants) > 0 {
		l.joining[a] = tenants
	} else {
		delete(l.joining, a)
	}
}

// strand forgets who is on its way into the record of an address and is not to arrive.
func (l *ledger) strand(a netip.Addr, arrives func(ipam.Owner) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.setJoining(a, slices.DeleteFunc(l.joining[a], func(t ipam.Tenant) bool { return !arrives(t.Owner) }))
}

// joined adds to those whom a record names who is on its way into it and agrees with them. Those it does not agree with
// have lost their way.
func (l *ledger) joined(a netip.Addr, tenants []ipam.Tenant) []ipam.Tenant {
	all := slices.Clone(tenants)
	for _, t := range l.joining[a] {
		named := slices.ContainsFunc(tenants, func(o ipam.Tenant) bool { return o.Owner.Reservation() == t.Owner.Reservation() })
		if !named && l.alloc.Agree(a, all, t) == nil {
			all = append(all, t)
		}
	}
	l.setJoining(a, slices.Clone(all[len(tenants):]))
	return all
}
