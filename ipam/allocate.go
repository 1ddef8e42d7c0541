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
		why := a.apart(a.on(al.Address), req.Owner, &req.Sharing)
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
		if len(p.given) < n && FamilyOf(h.Address) == f && !has(p.given, h.Address) && a.forgo(h, req).Cause == Unspecified {
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
	why := a.apart(a.on(addr), req.Owner, &req.Sharing)
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

// Forgone is an address that is reserved for an owner that does not get it.
type Forgone struct {
	Address  netip.Addr
	Cause    Cause    // InNoPool, AnotherPool, AnotherHolder, IsSkipped, ToBeLeft, AnotherAddress or HoldsAnother
	Home     string   // the pool that it is in, if any
	Asked    string   // the pool that the request names
	Conflict Conflict // with AnotherHolder
	Word     string   // with IsSkipped
}

// forgo says why an owner does not get the address that h reserves for its name; Unspecified if it does.
func (a *Allocator) forgo(h *holding, req *Request) Forgone {
	out := Forgone{Address: h.Address, Asked: req.Pool, Word: a.skipped[h.Address]}
	if h.home != nil {
		out.Home = h.home.Name
	}
	switch asked := req.asked(FamilyOf(h.Address)); {
	case len(asked) == req.count() && !slices.Contains(asked, h.Address):
		out.Cause = AnotherAddress
	case slices.Contains(req.Leave, h.Address):
		out.Cause = ToBeLeft
	case h.home == nil:
		out.Cause = InNoPool
	case a.skips(h.Address):
		out.Cause = IsSkipped
	case req.Pool != "" && h.home.Name != req.Pool:
		out.Cause = AnotherPool
	default:
		if out.Conflict = a.apart(a.on(h.Address), req.Owner, &req.Sharing); out.Conflict.Over != Nothing {
			out.Cause = AnotherHolder
		}
	}
	return out
}

// Forgone returns what is reserved for the owner's name, of a family that it asks for, and passed over.
func (a *Allocator) Forgone(req Request) []Forgone {
	var all []Forgone
	for h := range a.takenBy(req.Owner.Reservation()) {
		if !slices.Contains(req.Families, FamilyOf(h.Address)) {
			continue
		}
		out := a.forgo(h, &req)
		if out.Cause == Unspecified {
			out.Cause = HoldsAnother
		}
		all = append(all, out)
	}
	return all
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

// choose adds to what is given the addresses that are missing, or those of as many families as the request puts up with.
func (a *Allocator) choose(req *Request, all []portion) error {
	if !slices.ContainsFunc(all, func(p portion) bool { return p.missing > 0 }) {
		return nil
	}
	candidates := a.candidates(req)
	together := a.together(candidates, req, all)
	var from [len(families)]*pool
	var refused *Error
	served := false
	for i := range all {
		p := &all[i]
		if p.missing > 0 {
			if from[i] = together; together == nil {
				from[i] = a.first(candidates, req, all[i:i+1])
			}
			if from[i] == nil {
				// A family the owner holds in another pool was to move; it must not be lost instead.
				required := req.RequireAll || len(req.asked(p.family)) > 0 || a.holds(req.Owner, p.family)
				if required || refused == nil {
					refused = a.unserved(req, p, candidates)
				}
				if required {
					return refused
				}
				p.given = nil
				continue
			}
		}
		served = true
	}
	if !served {
		return refused
	}
	for i := range all {
		if p := &all[i]; from[i] != nil {
			leave := slices.Clip(req.Leave)
			for _, al := range p.given {
				leave = append(leave, al.Address)
			}
			for range p.missing {
				addr := from[i].space(p.family).pick(a, leave)
				p.given = append(p.given, Allocation{Address: addr, Pool: from[i].Name, Owner: req.Owner})
				if p.missing > 1 {
					leave = append(leave, addr)
				}
			}
		}
	}
	return nil
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

// together returns the one pool to serve all that is missing, if there is one: a
// pool that serves the owner already, or else the first that can.
func (a *Allocator) together(candidates []*pool, req *Request, all []portion) *pool {
	for _, given := range all {
		for _, al := range given.given {
			if p := a.find(al.Address); p != nil && slices.Contains(candidates, p) && a.gives(p, req, all) {
				return p
			}
		}
	}
	return a.first(candidates, req, all)
}

// first returns the first pool that has all that is missing to give.
func (a *Allocator) first(candidates []*pool, req *Request, all []portion) *pool {
	for _, p := range candidates {
		if a.gives(p, req, all) {
			return p
		}
	}
	return nil
}

// gives reports whether the pool has as many free addresses as are missing, and quotas let the request have them.
func (a *Allocator) gives(p *pool, req *Request, all []portion) bool {
	for i := range all {
		if w := &all[i]; w.missing > 0 && (!a.hasFree(p, req, w) || a.over(p, req, w.family, w.given, netip.Addr{}, w.missing) != nil) {
			return false
		}
	}
	return true
}

// hasFree reports whether the pool has as many free addresses as are missing, but for those that the request wants left
// and those that it is given already.
func (a *Allocator) hasFree(p *pool, req *Request, w *portion) bool {
	free := p.space(w.family).free()
	there := func(addr netip.Addr) bool {
		return FamilyOf(addr) == w.family && a.on(addr) == nil && !a.skips(addr) && a.find(addr) == p
	}
	for i, addr := range req.Leave {
		if there(addr) && !slices.Contains(req.Leave[:i], addr) {
			free--
		}
	}
	for _, al := range w.given {
		if there(al.Address) && !slices.Contains(req.Leave, al.Address) {
			free--
		}
	}
	return free >= uint64(w.missing)
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
