package ipam

import (
	"net/netip"
	"slices"
)

// Grant is an address that another system lets an owner have out of a pool. A pool with Granted set gives a free address
// only to the owner that has a grant for it. It has all its addresses itself, so whatever holds for the addresses of other
// pools holds for them: a grant for an address that is held, skipped or not in the pool has no effect, and a holder whose
// grant ends keeps its address. An owner can share an address, or get one that is reserved for its name, without a grant.
type Grant struct {
	Address netip.Addr
	Pool    string
}

// Claimed is an address that another system was asked for. It counts in quotas like an address that is held, so that a
// namespace does not have more addresses claimed than it may hold.
type Claimed struct {
	Pool    string
	Family  Family
	Address netip.Addr // the address that was granted; the zero Addr if there is none yet
}

// claimed counts the addresses that were claimed for other owners of the namespace, out of a pool or, if in is nil, of all
// pools. It leaves out those that the namespace holds already.
func (a *Allocator) claimed(req *Request, in *pool, f Family) (n uint64) {
	for _, c := range req.Claimed {
		held := c.Address.IsValid() && present(a.on(c.Address), req.Owner.Namespace, nil)
		if c.Family == f && (in == nil || in.Name == c.Pool) && !held {
			n++
		}
	}
	return n
}

// grants reports whether the request has a grant for an address of the pool.
func (r *Request) grants(addr netip.Addr, p *pool) bool {
	return slices.Contains(r.Granted, Grant{addr, p.Name})
}

// granted returns the addresses that the request can get out of a granted pool, at most as many as are missing.
func (a *Allocator) granted(p *pool, req *Request, w *portion) (all []netip.Addr) {
	for _, g := range req.Granted {
		if len(all) < w.missing && g.Pool == p.Name && FamilyOf(g.Address) == w.family && !slices.Contains(all, g.Address) &&
			!has(w.given, g.Address) && a.refusal(req, g).Cause == Unspecified {
			all = append(all, g.Address)
		}
	}
	return all
}

// ungranted returns the error for a pool without enough grants for what is missing; nil if it has enough.
func (a *Allocator) ungranted(p *pool, req *Request, w *portion) *Error {
	if !p.Granted || len(a.granted(p, req, w)) == w.missing {
		return nil
	}
	return &Error{Reason: ErrNotGranted, Cause: NotGrantedYet, Asker: req.Owner, Asked: req.Pool, Family: w.family, Pool: p.Name, Wanted: w.missing}
}

// Refused returns why an owner cannot get an address that was granted to it; nil if it can, or holds the address.
func (a *Allocator) Refused(req Request, g Grant) *Error {
	if e := a.refusal(&req, g); e.Cause != Unspecified && a.holding(g.Address, req.Owner) == nil {
		return &e
	}
	return nil
}

// refusal is like Refused, without the exception for the holder. The cause is Unspecified if the owner can get the address.
func (a *Allocator) refusal(req *Request, g Grant) Error {
	home := a.find(g.Address)
	e := Error{Asker: req.Owner, Asked: g.Pool, Family: FamilyOf(g.Address), Address: g.Address, Pool: g.Pool}
	switch {
	case home == nil:
		e.Reason, e.Cause = ErrNotInPool, InNoPool
	case home.Name != g.Pool:
		e.Reason, e.Cause, e.Home = ErrNotInPool, AnotherPool, home.Name
	case a.skips(g.Address):
		e.Reason, e.Cause, e.Word = ErrSkipped, IsSkipped, a.skipped[g.Address]
	case slices.Contains(req.Leave, g.Address):
		e.Reason, e.Cause = ErrNotGranted, ToBeLeft
	case a.on(g.Address) != nil:
		e = *a.errTaken(g.Address, req.Owner, Conflict{Over: NotShared, There: a.on(g.Address).Owner}, AnotherHolder)
	}
	return e
}

// Want is a number of addresses that an owner needs from a granted pool.
type Want struct {
	Pool   string
	Family Family
	Count  int
}

// Wants returns the new addresses that a request needs from granted pools, whether or not they are granted yet. It returns
// none if the request cannot be served whatever is granted.
func (a *Allocator) Wants(req Request) (all []Want) {
	var portions [len(families)]portion
	some, err := a.portions(&req, portions[:0])
	if err != nil {
		return nil
	}
	candidates := a.candidates(&req)
	together := a.together(candidates, &req, some)
	for i := range some {
		w := &some[i]
		if w.missing == 0 {
			continue
		}
		p := a.source(candidates, together, &req, some[i:i+1])
		switch {
		case p == nil && a.required(&req, w.family):
			return nil
		case p != nil && p.Granted:
			all = append(all, Want{p.Name, w.family, w.missing})
		}
	}
	return all
}
