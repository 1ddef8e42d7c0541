package ipam

import (
	"fmt"
	"net/netip"
	"slices"
)

// Allocate gives the owner what it asks for, and returns it in the order of the
// families. What the owner already holds it keeps, whatever became of the pool; asked
// twice, it answers the same. It is all or nothing: on error nothing new is held.
//
// An address moves only if the owner asks for it: by requesting another address, by
// naming a pool other than the one its address is from, or by leaving it. Then the new one is held as well as the
// old, for the caller to make before it breaks: [Allocator.Superfluous] says what is to be released.
//
// An owner that holds nothing of a family gets, if there is one, what is reserved for its name, or else the
// address of those it shares with, or else a free one: of the pools that may serve the request and its subject,
// the one with the highest priority serves it, the oldest of equals; but one that can serve all families comes
// before those that serve one each, and the pool that already serves one family is asked first for the other.
// Within the pool it is the first in the pool's [Order]. The work does not grow with the size of the pool or the
// number of addresses held.
//
// The error is an [*Error], for ErrExhausted, ErrTaken, ErrSkipped, ErrNotInPool, ErrNoPool,
// ErrQuota or ErrInvalid.
func (a *Allocator) Allocate(req Request) ([]Allocation, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	given := make([]Allocation, 0, len(req.Families))
	var missing [len(families)]Family
	want := missing[:0]
	for _, f := range req.Families {
		al, ok, err := a.decided(&req, f)
		switch {
		case err != nil:
			return nil, err
		case ok:
			given = append(given, al)
		default:
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
		a.grant(al, req.Sharing)
	}
	return given, nil
}

// Settled returns what the owner holds, in the order of the families, and whether that is all that it asks for and
// no more. Then Allocate gives it just this, unless it prefers a family that it does not hold, and nothing is
// [Allocator.Superfluous].
func (a *Allocator) Settled(req Request) (has []Allocation, settled bool) {
	for _, f := range req.Families {
		var h *holding
		asked := req.address(f)
		if asked.IsValid() {
			h = a.holding(asked, req.Owner)
		} else {
			h = a.kept(&req, f)
		}
		if h != nil {
			has = append(has, h.Allocation)
		} else if asked.IsValid() || req.RequireAll {
			return nil, false
		}
	}
	held := 0
	for range a.takenBy(req.Owner) {
		held++
	}
	return has, held > 0 && held == len(has)
}

// decided returns the address of family f for which no choice is left: the one that is asked for, held,
// reserved or shared.
func (a *Allocator) decided(req *Request, f Family) (al Allocation, ok bool, err error) {
	if addr := req.address(f); addr.IsValid() {
		al, refused := a.exactly(addr, req)
		if refused != nil {
			return al, false, refused
		}
		return al, true, nil
	}
	if h := a.kept(req, f); h != nil {
		if why := a.apart(a.on(h.Address), req.Owner, &req.Sharing); why.over != nothing && !h.sharing.equal(&req.Sharing) {
			return al, false, a.errApart(h.Address, req.Owner, why)
		}
		return h.Allocation, true, nil
	}
	for h := range a.takenBy(req.Owner.Reservation()) {
		if FamilyOf(h.Address) == f && a.forgo(h, req) == "" {
			return Allocation{Address: h.Address, Pool: h.Pool, Owner: req.Owner}, true, nil
		}
	}
	al, ok = a.join(req, f)
	return al, ok, nil
}

// exactly returns addr for the owner, or why it cannot have it.
func (a *Allocator) exactly(addr netip.Addr, req *Request) (Allocation, *Error) {
	why := a.apart(a.on(addr), req.Owner, &req.Sharing)
	if h := a.holding(addr, req.Owner); h != nil {
		if why.over != nothing && !h.sharing.equal(&req.Sharing) {
			return Allocation{}, a.errApart(addr, req.Owner, why)
		}
		return h.Allocation, nil
	}
	home := a.find(addr)
	if req.Pool != "" && a.named[req.Pool] == nil {
		return Allocation{}, errUnknownPool(req.Pool)
	}
	if home == nil || req.Pool != "" && home.Name != req.Pool {
		return Allocation{}, errOutside(addr, req.Pool, home)
	}
	if a.skips(addr) {
		return Allocation{}, a.errSkipped(addr)
	}
	if why.over != nothing {
		return Allocation{}, a.errTaken(addr, req.Owner, why)
	}
	al := Allocation{Address: addr, Pool: home.Name, Owner: req.Owner}
	if first := a.on(addr); first != nil {
		al.Pool = first.Pool
	}
	if a.holding(addr, req.Owner.Reservation()) != nil && req.Owner.Name != "" {
		return al, nil // It is reserved for it, and that was settled when it was reserved.
	}
	if home.Closed {
		return Allocation{}, errClosedPool(home.Name)
	}
	if !home.serves(req) {
		return Allocation{}, errNotServed(home.Name)
	}
	if err := a.over(home, req, FamilyOf(addr), addr); err != nil {
		return Allocation{}, err
	}
	return al, nil
}

// kept returns the address of family f that the owner holds and keeps: the last
// it took, unless it is to leave that, or the request names a pool and that address is from another. An
// address recorded without a pool is from none and may stay.
func (a *Allocator) kept(req *Request, f Family) *holding {
	for h := range a.takenBy(req.Owner) {
		fits := req.Pool == "" || h.Pool == "" || h.Pool == req.Pool || h.in(req.Pool)
		if FamilyOf(h.Address) == f && fits && !slices.Contains(req.Leave, h.Address) {
			return h
		}
	}
	return nil
}

// forgo says why an owner does not get the address that h reserves for its name; empty if it does.
func (a *Allocator) forgo(h *holding, req *Request) string {
	switch asked := req.address(FamilyOf(h.Address)); {
	case asked.IsValid() && asked != h.Address:
		return "another is asked for"
	case slices.Contains(req.Leave, h.Address):
		return "it is to be left"
	case h.home == nil:
		return "it is in no pool any more"
	case a.skips(h.Address):
		return "it is not given out: " + a.skipped[h.Address]
	case req.Pool != "" && h.home.Name != req.Pool:
		return fmt.Sprintf("it is in pool %q, and an address of pool %q is asked for", h.home.Name, req.Pool)
	}
	if why := a.apart(a.on(h.Address), req.Owner, &req.Sharing); why.over != nothing {
		return "it is " + why.String()
	}
	return ""
}

// Forgone is an address that is reserved for an owner that does not get it.
type Forgone struct {
	Address netip.Addr
	Why     string // "it is in no pool any more"
}

// Forgone returns what is reserved for the owner's name, of a family that it asks for, and passed over.
func (a *Allocator) Forgone(req Request) []Forgone {
	var all []Forgone
	for h := range a.takenBy(req.Owner.Reservation()) {
		if !slices.Contains(req.Families, FamilyOf(h.Address)) {
			continue
		}
		why := a.forgo(h, &req)
		if why == "" {
			why = "the Service holds another"
		}
		all = append(all, Forgone{h.Address, why})
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

// choose adds to given a free address of each family wanted, or of as many as the
// request puts up with, and orders the outcome by the request's families.
func (a *Allocator) choose(req *Request, want []Family, given []Allocation) ([]Allocation, error) {
	candidates := a.candidates(req)
	together := a.together(candidates, req, want, given)
	var refused *Error
	for _, f := range want {
		p := together
		if p == nil {
			p = a.first(candidates, req, f)
		}
		if p != nil {
			given = append(given, Allocation{Address: p.space(f).pick(a, req.Leave), Pool: p.Name, Owner: req.Owner})
			continue
		}
		// A family the owner holds in another pool was to move; it must not be lost instead.
		required := req.RequireAll || a.holds(req.Owner, f)
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
func (a *Allocator) together(candidates []*pool, req *Request, want []Family, given []Allocation) *pool {
	for _, al := range given {
		if p := a.find(al.Address); p != nil && slices.Contains(candidates, p) && a.gives(p, req, want...) {
			return p
		}
	}
	return a.first(candidates, req, want...)
}

// first returns the first pool with an address of each of these families to give.
func (a *Allocator) first(candidates []*pool, req *Request, want ...Family) *pool {
	for _, p := range candidates {
		if a.gives(p, req, want...) {
			return p
		}
	}
	return nil
}

// gives reports whether the pool has a free address of each of these families, and quotas let the request have it.
func (a *Allocator) gives(p *pool, req *Request, want ...Family) bool {
	for _, f := range want {
		if !a.hasFree(p, req, f) || a.over(p, req, f, netip.Addr{}) != nil {
			return false
		}
	}
	return true
}

// hasFree reports whether the pool has a free address of family f that the request does not want left.
func (a *Allocator) hasFree(p *pool, req *Request, f Family) bool {
	s := p.space(f)
	free := s.free()
	for i, addr := range req.Leave {
		if FamilyOf(addr) == f && a.on(addr) == nil && !a.skips(addr) && a.find(addr) == p && !slices.Contains(req.Leave[:i], addr) {
			free--
		}
	}
	return free > 0
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
