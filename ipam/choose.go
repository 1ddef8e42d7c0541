package ipam

import (
	"cmp"
	"net/netip"
	"slices"
)

// choose adds the missing addresses to all portions, or to as many portions as the request requires.
func (a *Allocator) choose(req *Request, all []portion) error {
	if !slices.ContainsFunc(all, func(p portion) bool { return p.missing > 0 }) {
		return nil
	}
	candidates := a.candidates(req)
	together := a.together(candidates, req, all)
	var from [len(families)]*pool
	var refused, waits *Error
	served, mustWait := false, false
	for i := range all {
		p := &all[i]
		if p.missing > 0 {
			required := a.required(req, p.family)
			if from[i] = a.source(candidates, together, req, all[i:i+1]); from[i] == nil {
				if required || refused == nil {
					refused = a.unserved(req, p, candidates)
				}
				if required {
					return refused
				}
			} else if why := a.ungranted(from[i], req, p); why != nil {
				// Another family may be refused, and then nothing is to be waited for.
				from[i], waits, mustWait = nil, cmp.Or(waits, why), mustWait || required
			}
			if from[i] == nil {
				p.given = nil
				continue
			}
		}
		served = true
	}
	if mustWait || !served {
		return cmp.Or(waits, refused)
	}
	for i := range all {
		p := &all[i]
		switch {
		case from[i] == nil:
		case from[i].Granted:
			for _, addr := range a.granted(from[i], req, p) {
				p.given = append(p.given, Allocation{Address: addr, Pool: from[i].Name, Owner: req.Owner})
			}
		default:
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

// source returns the pool that gives what is missing of one family: the one that can serve all families together or, if
// that is nil, the first that can serve this one. It returns nil if there is none.
func (a *Allocator) source(candidates []*pool, together *pool, req *Request, one []portion) *pool {
	if together != nil {
		return together
	}
	return a.first(candidates, req, one)
}

// required reports whether a request is refused if family f cannot be served. If the owner holds this family in another
// pool, it asked for a move; it must not lose the family instead.
func (a *Allocator) required(req *Request, f Family) bool {
	return req.RequireAll || len(req.asked(f)) > 0 || a.holds(req.Owner, f)
}

// candidates returns the pools that may serve the request, in the order in which they are tried.
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

// together returns one pool that can serve everything that is missing: a pool that already serves the owner or else the
// first that can. It returns nil if there is none.
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

// first returns the first pool that can give everything that is missing, or nil.
func (a *Allocator) first(candidates []*pool, req *Request, all []portion) *pool {
	for _, p := range candidates {
		if a.gives(p, req, all) {
			return p
		}
	}
	return nil
}

// gives reports whether the pool has enough free addresses for what is missing, within the quotas.
func (a *Allocator) gives(p *pool, req *Request, all []portion) bool {
	for i := range all {
		if w := &all[i]; w.missing > 0 && (!a.hasFree(p, req, w) || a.over(p, req, w.family, w.given, netip.Addr{}, w.missing) != nil) {
			return false
		}
	}
	return true
}

// hasFree reports whether the pool has enough free addresses for what is missing. Addresses that the request leaves, and
// those that it already gets, do not count as free.
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
