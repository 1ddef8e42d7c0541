package ipam

import (
	"net/netip"
	"slices"
)

// Allocate assigns the owner the addresses that it asks for, and returns them in the order of the families. The owner
// keeps what it already holds, whatever became of the pool. The same request gets the same answer. If Allocate returns an
// error, it has changed nothing.
//
// The owner gets Count addresses of each family: first those that it asks for, then those that it keeps, then new ones.
// Of the addresses of a family, the owner prefers those that it took last, and the first one in the result counts as taken
// last. So when the owner later asks for fewer addresses, those at the end of the result are superfluous.
//
// An address moves only if the owner asks for it: it requests another address, names a pool other than the one its
// address is from, or leaves the address. The owner then holds both the new address and the old one, so that the caller
// can put the new one into use before it releases the old one. [Allocator.Superfluous] returns the addresses to release.
//
// If an owner holds too few addresses of a family, it first gets those that are reserved for its name, then addresses of
// the owners that it shares with, and then free ones. All free ones come from one pool. Of the pools that may serve the
// request and its subject, that is the one with the highest priority or, among equals, the oldest. Two rules come before
// this order: a pool that already serves the owner is preferred, and so is one pool that can serve all families. Within
// the pool, the [Order] of the pool decides. The cost does not grow with the size of the pool or the number of addresses
// held.
//
// The pool may be one whose addresses another system grants: see [Grant]. The choice of the pool does not depend on what is
// granted so far. If too few addresses are, the owner waits, and does not get addresses of the next pool.
//
// The error is an [*Error]. Its reason is ErrExhausted, ErrTaken, ErrSkipped, ErrNotInPool, ErrNoPool, ErrNotGranted,
// ErrQuota or ErrInvalid.
func (a *Allocator) Allocate(req Request) ([]Allocation, error) {
	var room [len(families)]portion
	all, err := a.portions(&req, room[:0])
	if err != nil {
		return nil, err
	}
	if err := a.choose(&req, all); err != nil {
		return nil, err
	}
	// From here on nothing fails.
	given := make([]Allocation, 0, len(all)*req.count())
	for _, p := range all {
		given = append(given, p.given...)
		for _, al := range slices.Backward(p.given) {
			a.grant(al, req.Sharing)
		}
	}
	return given, nil
}

// portion is the part of a request, and of the answer to it, that concerns one family.
type portion struct {
	family  Family
	given   []Allocation
	missing int // how many more addresses are wanted
}

// portions appends the portions of a request to room: for each family what is decided, and how many addresses are missing.
func (a *Allocator) portions(req *Request, room []portion) ([]portion, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	for _, f := range req.Families {
		p := portion{family: f}
		if err := a.decide(req, &p); err != nil {
			return nil, err
		}
		room = append(room, p)
	}
	return room, nil
}

// has reports whether addr is among given.
func has(given []Allocation, addr netip.Addr) bool {
	return slices.ContainsFunc(given, func(al Allocation) bool { return al.Address == addr })
}

// Settled returns the addresses that the owner holds, in the order of the families, and whether they are exactly those
// that it asks for. If they are, nothing is [Allocator.Superfluous], and Allocate returns the same addresses, unless the
// owner prefers a family that it does not hold.
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

// stays returns the addresses of family f that the owner holds and keeps: first those that it asks for, then those that
// it took last. It leaves out addresses that the owner is to leave and, if the request names a pool, those from other
// pools. An address that was recorded without a pool may stay.
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

// inOrder moves the requested addresses to the front, in the order in which they are requested.
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

// decide adds the addresses for which there is no choice left: those that the owner asks for, holds, has reserved or can
// share.
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

// exactly returns the allocation of addr for an owner that does not hold it yet, or why the owner cannot have it. given
// are the other addresses that the owner gets.
func (a *Allocator) exactly(addr netip.Addr, req *Request, given []Allocation) (Allocation, *Error) {
	why := a.conflict(a.on(addr), req.Owner, &req.Sharing)
	home := a.find(addr)
	if req.Pool != "" && a.named[req.Pool] == nil {
		return Allocation{}, errPool(req.Pool, req, FamilyOf(addr), UnknownPool)
	}
	if home == nil || req.Pool != "" && home.Name != req.Pool {
		return Allocation{}, errOutside(addr, req, home)
	}
	if !home.admits(req.Class) {
		return Allocation{}, errPool(home.Name, req, FamilyOf(addr), ClassNotAdmitted)
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
		return al, nil // The address is reserved for the owner; the other rules were checked when it was reserved.
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
	if home.Granted && a.on(addr) == nil && !req.grants(addr, home) {
		return Allocation{}, &Error{Reason: ErrNotGranted, Cause: NotGrantedToAsker, Asker: req.Owner, Asked: req.Pool, Family: FamilyOf(addr), Address: addr, Pool: home.Name}
	}
	return al, nil
}

// holds reports whether the owner holds any address of family f.
func (a *Allocator) holds(o Owner, f Family) bool {
	for h := range a.takenBy(o) {
		if FamilyOf(h.Address) == f {
			return true
		}
	}
	return false
}

// grant records that the owner holds al on these terms, as the address that it took last.
func (a *Allocator) grant(al Allocation, terms Sharing) {
	if a.on(al.Address) == nil {
		a.hold(al, terms)
		return
	}
	if h := a.holding(al.Address, al.Owner); h != nil {
		// The owner already holds the address: make it the one taken last.
		a.unlink(h)
		a.link(h)
		a.regroup(h, terms)
		return
	}
	a.hold(al, terms)
	if al.Owner.Name != "" { // The reservation has served its purpose.
		a.Release(al.Address, al.Owner.Reservation())
	}
}
