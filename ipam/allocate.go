package ipam

import (
	"net/netip"
	"slices"
)

// Allocate gives the owner what it asks for, and returns it in the order of the
// families. What the owner already holds it keeps, whatever became of the pool; asked
// twice, it answers the same. It is all or nothing: on error nothing new is held.
//
// An address moves only if the owner asks for it: by requesting another address, or
// by naming a pool other than the one its address is from. Then the new one is held
// as well as the old, for the caller to make before it breaks:
// [Allocator.Superfluous] says what is to be released.
//
// Of the pools that may serve the request and its subject, the one with the highest priority does,
// the oldest of equals; but one that can serve all families comes before those
// that serve one each, and the pool that already serves one family is asked first
// for the other. Within the pool it is the lowest free address. The work
// does not grow with the size of the pool or the number of addresses held.
//
// The error is an [*Error], for ErrExhausted, ErrTaken, ErrNotInPool, ErrNoPool or
// ErrInvalid.
func (a *Allocator) Allocate(req Request) ([]Allocation, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	given := make([]Allocation, 0, len(req.Families))
	var missing [len(families)]Family
	want := missing[:0]
	for _, f := range req.Families {
		if addr := req.address(f); addr.IsValid() {
			al, err := a.exactly(addr, &req)
			if err != nil {
				return nil, err
			}
			given = append(given, al)
		} else if al, ok := a.kept(&req, f); ok {
			given = append(given, al)
		} else {
			want = append(want, f)
		}
	}
	if len(want) > 0 {
		var err error
		if given, err = a.choose(&req, want, given); err != nil {
			return nil, err
		}
	}
	// From here on nothing can fail.
	for _, al := range given {
		a.grant(al)
	}
	return given, nil
}

// exactly returns addr for the owner, or why it cannot have it.
func (a *Allocator) exactly(addr netip.Addr, req *Request) (Allocation, error) {
	h := a.held[addr]
	if h != nil && h.Owner.is(req.Owner) {
		return h.Allocation, nil
	}
	home := a.find(addr)
	if req.Pool != "" && a.named[req.Pool] == nil {
		return Allocation{}, errUnknownPool(req.Pool)
	}
	if home == nil || req.Pool != "" && home.Name != req.Pool {
		return Allocation{}, errOutside(addr, req.Pool, home)
	}
	if h != nil {
		return Allocation{}, errTaken(h.Allocation)
	}
	if home.Closed {
		return Allocation{}, errClosedPool(home.Name)
	}
	if !home.serves(req) {
		return Allocation{}, errNotServed(home.Name)
	}
	return Allocation{Address: addr, Pool: home.Name, Owner: req.Owner}, nil
}

// kept returns the address of family f that the owner holds and keeps: the last
// it took, unless the request names a pool and that address is from another. An
// address recorded without a pool is from none and may stay.
func (a *Allocator) kept(req *Request, f Family) (Allocation, bool) {
	for h := range a.takenBy(req.Owner.UID) {
		fits := req.Pool == "" || h.Pool == "" || h.Pool == req.Pool || h.in(req.Pool)
		if FamilyOf(h.Address) == f && fits {
			return h.Allocation, true
		}
	}
	return Allocation{}, false
}

// holds reports whether the owner has an address of family f at all.
func (a *Allocator) holds(uid string, f Family) bool {
	for h := range a.takenBy(uid) {
		if FamilyOf(h.Address) == f {
			return true
		}
	}
	return false
}

// choose adds to given a free address of each family wanted, or of as many as the
// request puts up with, and orders the outcome by the request's families.
func (a *Allocator) choose(req *Request, want []Family, given []Allocation) ([]Allocation, error) {
	candidates := a.candidates(req)
	together := a.together(candidates, want, given)
	var refused *Error
	for _, f := range want {
		p := together
		if p == nil {
			p = first(candidates, []Family{f})
		}
		if p != nil {
			given = append(given, Allocation{Address: p.space(f).lowest(a.held), Pool: p.Name, Owner: req.Owner})
			continue
		}
		// A family the owner holds in another pool was to move; it must not be lost instead.
		required := req.RequireAll || a.holds(req.Owner.UID, f)
		if required || refused == nil {
			refused = a.unserved(req, f, candidates)
		}
		if required {
			return nil, refused
		}
	}
	if len(given) == 0 {
		return nil, refused
	}
	slices.SortFunc(given, func(x, y Allocation) int {
		return slices.Index(req.Families, FamilyOf(x.Address)) - slices.Index(req.Families, FamilyOf(y.Address))
	})
	return given, nil
}

// candidates are the pools that may serve the request, in order of choice.
func (a *Allocator) candidates(req *Request) []*pool {
	if req.Pool != "" {
		if p := a.named[req.Pool]; p != nil && !p.Closed && p.serves(req) {
			return []*pool{p}
		}
		return nil
	}
	if !slices.ContainsFunc(a.auto, func(p *pool) bool { return p.Serves != nil }) {
		return a.auto
	}
	return slices.DeleteFunc(slices.Clone(a.auto), func(p *pool) bool { return !p.serves(req) })
}

// together returns the one pool to serve all wanted families, if there is one: the
// pool that serves a family already, or else the first that can.
func (a *Allocator) together(candidates []*pool, want []Family, given []Allocation) *pool {
	for _, al := range given {
		if p := a.find(al.Address); p != nil && slices.Contains(candidates, p) && p.gives(want) {
			return p
		}
	}
	return first(candidates, want)
}

// first returns the first pool with a free address of each of these families.
func first(candidates []*pool, want []Family) *pool {
	for _, p := range candidates {
		if p.gives(want) {
			return p
		}
	}
	return nil
}

// grant makes al the owner's address of its family.
func (a *Allocator) grant(al Allocation) {
	h := a.held[al.Address]
	if h == nil {
		a.hold(al)
		return
	}
	// The owner holds it and settles on it: it becomes the one taken last.
	a.unlink(h)
	a.link(h)
}
