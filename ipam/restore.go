package ipam

import (
	"net/netip"
	"slices"
)

// Restore holds exactly this address for this owner, whether or not a pool has it, beside those who share it
// on terms that agree. It is how an address that a Service brings along is adopted. Restored again, for the same
// owner, it takes over the owner's names and the terms; Pool holds for all who share the address. An owner without UID
// makes it a reservation.
//
// An owner may hold several addresses of one family while it moves from one to
// the next. It keeps the one taken last, so restore oldest first.
//
// It fails with ErrTaken if another owner holds the address, and with ErrInvalid
// if there can be no such address.
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

// record has an owner hold an address as its record says, which names one pool for all who are in it.
func (a *Allocator) record(al Allocation, terms Sharing) {
	if h := a.holding(al.Address, al.Owner); h != nil {
		first := a.on(al.Address)
		a.uncount(first, h) // Somebody may have written another namespace into it.
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

// Replace has exactly these owners hold an address, as its record says, and returns those who lost it; they may
// have believed in vain that it was theirs. No tenants free it. The record outweighs everything: terms are not
// compared. An owner that stays keeps its place in the order of what it took.
func (a *Allocator) Replace(addr netip.Addr, pool string, tenants []Tenant) (lost []Owner, err error) {
	if err := checkAddr(addr); err != nil {
		return nil, err
	}
	for _, t := range tenants { // The new ones first, so that the address does not come free in between.
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
