package ipam

import (
	"net/netip"
	"slices"
)

// Restore records that the owner holds exactly this address, whether or not a pool has it, beside other owners on
// terms that agree. An address that a Service brings along is adopted in this way. If the owner already holds the
// address, Restore updates the owner's names and its terms. Pool is set for all owners that share the address. If the
// owner has no UID, the holding is a reservation.
//
// An owner that moves may hold several addresses of one family. It keeps the one taken last, so restore the oldest
// first.
//
// Restore fails with ErrTaken if another owner holds the address and cannot share it, and with ErrInvalid if the
// address cannot be held.
func (a *Allocator) Restore(al Allocation, terms Sharing) error {
	if err := checkAddr(al.Address); err != nil {
		return err
	}
	if why := a.conflict(a.on(al.Address), al.Owner, &terms); why.Over != Nothing {
		return a.errTaken(al.Address, al.Owner, why, AnotherHolder)
	}
	a.record(al, terms)
	return nil
}

// record makes an owner hold an address as its record says. A record names one pool for all its owners.
func (a *Allocator) record(al Allocation, terms Sharing) {
	if h := a.holding(al.Address, al.Owner); h != nil {
		first := a.on(al.Address)
		a.uncount(first, h) // Somebody may have written another namespace into the record.
		h.Allocation = al
		a.count(first, h)
		a.regroup(h, terms)
	} else {
		a.hold(al, terms)
	}
	for h := a.on(al.Address); h != nil; h = h.beside {
		h.Pool = al.Pool
	}
	a.judge(a.on(al.Address))
}

// Replace makes exactly these tenants hold an address, as its record says, and returns the owners that lost it. The caller
// must serve the lost owners again. Without tenants the address becomes free. The record overrides everything: the terms of
// its tenants are not compared. An owner that keeps the address keeps its place in the order of the addresses that it took.
func (a *Allocator) Replace(addr netip.Addr, pool string, tenants []Tenant) (lost []Owner, err error) {
	if err := checkAddr(addr); err != nil {
		return nil, err
	}
	for _, t := range tenants { // Add the new tenants first, so that the address is never free in between.
		a.record(Allocation{Address: addr, Pool: pool, Owner: t.Owner}, t.Sharing)
	}
	for _, al := range a.Holders(addr) {
		if !slices.ContainsFunc(tenants, func(t Tenant) bool { return t.Owner.is(al.Owner) }) {
			a.Release(addr, al.Owner)
			lost = append(lost, al.Owner)
		}
	}
	return lost, nil
}
