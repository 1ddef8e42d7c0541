package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Why a request is refused. Test with [errors.Is]; the details are in [Error].
var (
	// ErrExhausted: the pools that may serve the request have no free address. It
	// can be served once one is released.
	ErrExhausted = errors.New("no free address")
	// ErrTaken: the address is held by another owner.
	ErrTaken = errors.New("address is taken")
	// ErrSkipped: the address is one that is never given out: see [Allocator.Skip].
	ErrSkipped = errors.New("address is not given out")
	// ErrNotInPool: the requested address is in no pool, or not in the one named.
	ErrNotInPool = errors.New("address is not in the pool")
	// ErrNoPool: no pool may serve the request: there is none, none auto-assigns or
	// serves the subject, the one named is unknown or closed, or none has addresses of
	// the family. It can be served once the pools or the subject change.
	ErrNoPool = errors.New("no pool")
	// ErrQuota: the owner's namespace holds as many addresses as it may. The request can be served once it holds
	// fewer, or the quota is raised.
	ErrQuota = errors.New("quota exceeded")
	// ErrInvalid: the request contradicts itself. It can be served once it changes.
	ErrInvalid = errors.New("invalid request")
)

// Error is a refused request. Its message is one sentence for the user: what
// is wrong, with which object, and what to do about it.
type Error struct {
	Reason  error      // one of the sentinels above
	Pool    string     // the pool concerned, if it is one
	Family  Family     // the family concerned, if it is one
	Address netip.Addr // the address concerned, if it is one
	Holder  Owner      // with ErrTaken, who holds Address, or one of them
	Word    string     // with ErrSkipped, the caller's word for the reason

	message string
}

func (e *Error) Error() string { return e.message }
func (e *Error) Unwrap() error { return e.Reason }

// errTaken says why an owner cannot have addr beside those who have it.
func (a *Allocator) errTaken(addr netip.Addr, o Owner, why discord) *Error {
	e := &Error{Reason: ErrTaken, Family: FamilyOf(addr), Address: addr,
		message: fmt.Sprintf("%s is %s: ask for another address or release it there", addr, why)}
	for h := a.on(addr); h != nil; h = h.beside {
		if !h.Owner.is(o) {
			e.Pool, e.Holder = h.Pool, h.Owner
			break
		}
	}
	return e
}

// errApart says why an owner may not stay where it is on other terms.
func (a *Allocator) errApart(addr netip.Addr, o Owner, why discord) *Error {
	e := a.errTaken(addr, o, why)
	e.message = fmt.Sprintf("%s is %s: take back what was changed (ports, sharing key, traffic policy or selector), or ask for another address", addr, why)
	return e
}

// errSkipped says that addr is not given out.
func (a *Allocator) errSkipped(addr netip.Addr) *Error {
	return &Error{Reason: ErrSkipped, Family: FamilyOf(addr), Address: addr, Word: a.skipped[addr],
		message: fmt.Sprintf("%s is not given out (%s): ask for another address", addr, a.skipped[addr])}
}

// errOutside says that addr is not in the pool asked for, or, if pool is empty, in
// none. home is the pool it does lie in, if any.
func errOutside(addr netip.Addr, pool string, home *pool) *Error {
	e := &Error{Reason: ErrNotInPool, Pool: pool, Family: FamilyOf(addr), Address: addr}
	switch {
	case pool == "":
		e.message = fmt.Sprintf("%s is in no pool: ask for an address of a pool, or add this one to a pool", addr)
	case home == nil:
		e.message = fmt.Sprintf("%s is not in pool %q, nor in any other: ask for an address of the pool, or add this one to it", addr, pool)
	default:
		e.message = fmt.Sprintf("%s is in pool %q, not in pool %q: name the pool it is in, or ask for an address of %q",
			addr, home.Name, pool, pool)
	}
	return e
}

func errUnknownPool(pool string) *Error {
	return &Error{Reason: ErrNoPool, Pool: pool,
		message: fmt.Sprintf("there is no pool %q: create it, or name another", pool)}
}

func errClosedPool(pool string) *Error {
	return &Error{Reason: ErrNoPool, Pool: pool,
		message: fmt.Sprintf("pool %q gives no new addresses, it is disabled or being deleted: enable it, or name another", pool)}
}

func errNotServed(pool string) *Error {
	return &Error{Reason: ErrNoPool, Pool: pool,
		message: fmt.Sprintf("pool %q does not serve this Service: change the pool's namespaces, namespaceSelector or serviceSelector, "+
			"or what they look at, or ask for another pool", pool)}
}

func errInvalid(format string, args ...any) *Error {
	return &Error{Reason: ErrInvalid, message: fmt.Sprintf(format, args...)}
}

// refuses says why a pool does not have what is missing for the request; nil if it has.
func (a *Allocator) refuses(p *pool, req *Request, w *portion) *Error {
	f := w.family
	e := &Error{Reason: ErrNoPool, Pool: p.Name, Family: f}
	s := p.space(f)
	switch {
	case req.Pool != "" && req.Pool != p.Name:
		e.message = fmt.Sprintf("pool %q is asked for, not this one", req.Pool)
	case p.Closed:
		e.message = errClosedPool(p.Name).message
	case req.Pool == "" && !p.AutoAssign:
		e.message = fmt.Sprintf("pool %q does not auto-assign: name it to be served from it", p.Name)
	case !p.serves(req):
		e.message = errNotServed(p.Name).message
	case s.capacity == 0:
		e.message = fmt.Sprintf("pool %q has no %s addresses of its own: add some, or name another pool", p.Name, f)
	case !a.hasFree(p, req, w):
		e.Reason = ErrExhausted
		e.message = fmt.Sprintf("pool %q has no free %s address: add addresses to it, or release some", p.Name, f)
	default:
		return a.over(p, req, f, w.given, netip.Addr{}, w.missing)
	}
	return e
}

// unserved says why none of the candidates has what is missing for the request.
func (a *Allocator) unserved(req *Request, w *portion, candidates []*pool) *Error {
	f := w.family
	if req.Pool != "" {
		if p := a.named[req.Pool]; p != nil {
			return a.refuses(p, req, w)
		}
		e := errUnknownPool(req.Pool)
		e.Family = f
		return e
	}
	e := &Error{Reason: ErrNoPool, Family: f}
	switch {
	case len(a.named) == 0:
		e.message = "there is no IPPool: create one"
	case len(a.auto) == 0:
		e.message = "no pool auto-assigns addresses: name a pool, or let one auto-assign"
	case len(candidates) == 0:
		e.message = fmt.Sprintf("no auto-assigning pool serves this Service: none of %s has namespaces, namespaceSelector and serviceSelector "+
			"that let it in: change them or the labels that they look at, or name another pool", namesOf(a.auto))
	case !slices.ContainsFunc(candidates, func(p *pool) bool { return p.space(f).capacity > 0 }):
		e.message = fmt.Sprintf("no auto-assigning pool (%s) has %s addresses: add some, or name a pool", namesOf(candidates), f)
	default:
		for _, p := range candidates {
			if a.hasFree(p, req, w) { // So it is a quota that is in the way.
				return a.over(p, req, f, w.given, netip.Addr{}, w.missing)
			}
		}
		e.Reason = ErrExhausted
		e.message = fmt.Sprintf("no auto-assigning pool (%s) has a free %s address: add addresses to one, or release some", namesOf(candidates), f)
	}
	return e
}

// namesOf lists pools, or the first of many.
func namesOf(pools []*pool) string {
	const most = 5
	var names []string
	for _, p := range pools {
		names = append(names, p.Name)
	}
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// check refuses what no state of the pools could serve.
func (r *Request) check() error {
	if r.Owner.UID == "" {
		return errInvalid("%s asks for an address without a UID: only Restore holds addresses for nobody", r.Owner)
	}
	switch len(r.Families) {
	case 1:
	case 2:
		if r.Families[0] == r.Families[1] {
			return errInvalid("%s is asked for twice: ask for each family once", r.Families[0])
		}
	default:
		return errInvalid("%d families are asked for: ask for one, or for both", len(r.Families))
	}
	for _, f := range r.Families {
		if !f.valid() {
			return errInvalid("%s is no family: ask for IPv4 or IPv6", f)
		}
	}
	if r.Count < 0 || r.Count > MostAddresses {
		return errInvalid("%d addresses of each family are asked for: ask for 1 to %d", r.Count, MostAddresses)
	}
	for i, addr := range r.Addresses {
		if err := checkAddr(addr); err != nil {
			return err
		}
		f := FamilyOf(addr)
		if r.Families[0] != f && r.Families[len(r.Families)-1] != f {
			return errInvalid("%s is asked for, but no %s address is: add the family, or ask for an %s address", addr, f, r.Families[0])
		}
		if slices.Contains(r.Addresses[:i], addr) {
			return errInvalid("%s is asked for twice: ask for each address once", addr)
		}
		if all := r.asked(f); len(all) > r.count() {
			return errInvalid("%s and %s are both asked for: ask for more than %d of each family, or for fewer addresses", all[0], all[1], r.count())
		}
	}
	return nil
}

// checkAddr refuses addresses that have a second spelling: two spellings would be
// two keys, and so could have two owners.
func checkAddr(addr netip.Addr) error {
	switch {
	case !addr.IsValid():
		return errInvalid("the zero address cannot be held: name an address")
	case addr.Zone() != "":
		return errInvalid("%s has a zone: write %s", addr, addr.WithZone(""))
	case addr.Is4In6():
		return errInvalid("%s is an IPv4 address written as IPv6: write %s", addr, addr.Unmap())
	}
	return nil
}
