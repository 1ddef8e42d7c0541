package ipam

import (
	"net/netip"
	"slices"
)

// Allocate gives the owner what it asks for, and returns it in the order of the
// families. What the owner already holds it keeps, whatever became of the pool; asked
// twice, it answers the same. It is all or nothing: on error nothing new is held.
//
// Of each family the owner gets Count addresses: first those that it asks for, then those that it keeps, then others.
// The first of them counts as taken last, and the owner prefers it: if it asks for fewer, the last ones are superfluous.
//
// An address moves only if the owner asks for it: by requesting another address, by
// naming a pool other than the one its address is from, or by leaving it. Then the new one is held as well as the
// old, for the caller to make before it breaks: [Allocator.Superfluous] says what is to be released.
//
// If an owner holds too few addresses of a family, it gets, if there are any, those that are reserved for its name, then
// the addresses of those it shares with, and then free ones, all from one pool: of the pools that may serve the request
// and its subject, the one with the highest priority serves it, the oldest of equals; but one that can serve all families
// comes before those that serve one each, and the pool that already serves the owner is asked first.
// Within the pool it is the first in the pool's [Order]. The work does not grow with the size of the pool or the
// number of addresses held.
//
// The error is an [*Error], for ErrExhausted, ErrTaken, ErrSkipped, ErrNotInPool, ErrNoPool,
// ErrQuota or ErrInvalid.
func (a *Allocator) Allocate(req Request) ([]Allocation, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	var portions [len(families)]portion
	all := portions[:len(req.Families)]
	for i, f := range req.Families {
		all[i].family = f
		if err := a.decide(&req, &all[i]); err != nil {
			return nil, err
		}
	}
	if err := a.choose(&req, all); err != nil {
		return nil, err
	}
	// From here on nothing can fail.
	given := make([]Allocation, 0, len(all)*req.count())
	for _, p := range all {
		given = append(given, p.given...)
		for _, al := range slices.Backward(p.given) {
			a.grant(al, req.Sharing)
		}
	}
	return given, nil
}

// portion is what a request gets of one family.
type portion struct {
	family  Family
	given   []Allocation
	missing int // how many more are wanted
}

// has reports whether an address is among those given.
func has(given []Allocation, addr netip.Addr) bool {
	return slices.ContainsFunc(given, func(al Allocation) bool { return al.Address == addr })
}

// Settled returns what the owner holds, in the order of the families, and whether that is all that it asks for and
// no more. Then Allocate gives it just this, unless it prefers a family that it does not hold, and nothing is
// [Allocator.Superfluous].
func (a *Allocator) Settled(req Request) (held []Allocation, settled bool) {
	for _, f := range req.Families {
		stays := a.stays(&req, f)
		missing := len(stays) < req.count()
		if missing && (len(stays) > 0 || req.RequireAll || len(req.asked(f)) > 0) {
			return nil, false
		}
		held = append(held, stays...)
	}
	n := 0
	for range a.takenBy(req.Owner) {
		n++
	}
	return held, n > 0 && n == len(held)
}

// stays returns the addresses of family f that the owner holds and keeps: those that it asks for, and of the others
// those that it took last, but not one that it is to leave, and if the request names a pool, not one from another.
// An address recorded without a pool is from none and may stay.
func (a *Allocator) stays(req *Request, f Family) (stays []Allocation) {
	asked := req.asked(f)
	room := req.count() - len(asked)
	for h := range a.takenBy(req.Owner) {
		if FamilyOf(h.Address) != f {
			continue
		}
		if slices.Contains(asked, h.Address) {
			stays = append(stays, h.Allocation)
			continue
		}
		fits := req.Pool == "" || h.Pool == "" || h.Pool == req.Pool || h.in(req.Pool)
		if room > 0 && fits && !slices.Contains(req.Leave, h.Address) {
			stays = append(stays, h.Allocation)
			room--
		}
	}
	inOrder(stays, asked)
	return stays
}

// inOrder puts the addresses that are asked for first, in the order in which they are asked for.
func inOrder(all []Allocation, asked []netip.Addr) {
	if len(asked) == 0 || len(all) < 2 {
		return
	}
	place := func(al Allocation) int {
		if i := slices.Index(asked, al.Address); i >= 0 {
			return i
		}
		return len(asked)
	}
	slices.SortStableFunc(all, func(x, y Allocation) int { return place(x) - place(y) })
}

// decide gives the addresses for which no choice is left: those that are asked for, held,
// reserved or shared.
func (a *Allocator) decide(req *Request, p *portion) error {
	f, n, asked := p.family, req.count(), req.asked(p.family)
	p.given = a.stays(req, f)
	for _, al := range p.given {
		why := a.conflict(a.on(al.Address), req.Owner, &req.Sharing)
		if why.Over != Nothing && !a.holding(al.Address, req.Owner).sharing.equal(&req.Sharing) {
			return a.errTaken(al.Address, req.Owner, why, ChangedTerms)
		}
	}
	for _, addr := range asked {
		if has(p.given, addr) {
			continue
		}
		al, refused := a.exactly(addr, req, p.given)
		if refused != nil {
			return refused
		}
		p.given = append(p.given, al)
	}
	inOrder(p.given, asked)
	for h := range a.takenBy(req.Owner.Reservation()) {
		if len(p.given) < n && FamilyOf(h.Address) == f && !has(p.given, h.Address) && a.notKept(h, req).Cause == Unspecified {
			p.given = append(p.given, Allocation{Address: h.Address, Pool: h.Pool, Owner: req.Owner})
		}
	}
	if len(p.given) < n {
		a.join(req, p)
	}
	p.missing = n - len(p.given)
	return nil
}

// exactly returns addr, which the owner does not hold, for the owner that is given others, or why it cannot have it.
func (a *Allocator) exactly(addr netip.Addr, req *Request, given []Allocation) (Allocation, *Error) {
	why := a.conflict(a.on(addr), req.Owner, &req.Sharing)
	home := a.find(addr)
	if req.Pool != "" && a.named[req.Pool] == nil {
		return Allocation{}, errPool(req.Pool, req, FamilyOf(addr), UnknownPool)
	}
	if home == nil || req.Pool != "" && home.Name != req.Pool {
		return Allocation{}, errOutside(addr, req, home)
	}
	if a.skips(addr) {
		return Allocation{}, &Error{Reason: ErrSkipped, Cause: IsSkipped, Asker: req.Owner, Pool: home.Name, Family: FamilyOf(addr), Address: addr, Word: a.skipped[addr]}
	}
	if why.Over != Nothing {
		return Allocation{}, a.errTaken(addr, req.Owner, why, AnotherHolder)
	}
	al := Allocation{Address: addr, Pool: home.Name, Owner: req.Owner}
	if first := a.on(addr); first != nil {
		al.Pool = first.Pool
	}
	if a.holding(addr, req.Owner.Reservation()) != nil && req.Owner.Name != "" {
		return al, nil // It is reserved for it, and that was settled when it was reserved.
	}
	if home.Closed {
		return Allocation{}, errPool(home.Name, req, FamilyOf(addr), ClosedPool)
	}
	if !home.serves(req) {
		return Allocation{}, errPool(home.Name, req, FamilyOf(addr), NotServed)
	}
	if err := a.over(home, req, FamilyOf(addr), given, addr, 0); err != nil {
		return Allocation{}, err
	}
	return al, nil
}

// holds reports whether the owner has an address of family f at all.
func (a *Allocator) holds(o Owner, f Family) bool {
	for h := range a.takenBy(o) {
		if FamilyOf(h.Address) == f {
			return true
		}
	}
	return false
}

// grant makes al the owner's address of its family, on these terms.
func (a *Allocator) grant(al Allocation, terms Sharing) {
	if a.on(al.Address) == nil {
		a.hold(al, terms)
		return
	}
	if h := a.holding(al.Address, al.Owner); h != nil {
		// The owner holds it and settles on it: it becomes the one taken last.
		a.unlink(h)
		a.link(h)
		a.regroup(h, terms)
		return
	}
	a.hold(al, terms)
	if al.Owner.Name != "" { // What was reserved for it has found its owner.
		a.Release(al.Address, al.Owner.Reservation())
	}
}
