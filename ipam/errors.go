package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// The reasons for refusing a request. Test for them with [errors.Is]; the details are in [Error].
var (
	// ErrExhausted: the pools that may serve the request have no free address. The request can be served once an address
	// is released.
	ErrExhausted = errors.New("no free address")
	// ErrTaken: the address is held by another owner.
	ErrTaken = errors.New("address is taken")
	// ErrSkipped: the address is never assigned: see [Allocator.Skip].
	ErrSkipped = errors.New("address is not given out")
	// ErrNotInPool: the requested address is in no pool, or not in the pool that the request names.
	ErrNotInPool = errors.New("address is not in the pool")
	// ErrNoPool: no pool may serve the request. There are no pools, none auto-assigns or serves the subject, the named
	// pool is unknown or closed, or no pool has addresses of the family. The request can be served once the pools or the
	// subject change.
	ErrNoPool = errors.New("no pool")
	// ErrNotGranted: another system did not grant the owner the address, or not yet: see [Grant]. The request can be served
	// once it does.
	ErrNotGranted = errors.New("not granted")
	// ErrQuota: the owner's namespace holds as many addresses as it may. The request can be served once the namespace
	// holds fewer, or the quota is raised.
	ErrQuota = errors.New("quota exceeded")
	// ErrInvalid: the request contradicts itself. It must change before it can be served.
	ErrInvalid = errors.New("invalid request")
)

// Cause distinguishes refusals that have the same reason.
type Cause int

// The causes, with the reasons that they belong to. "The pool" is the Pool of the [Error]; if Pool is empty, the cause
// applies to each of Pools.
const (
	Unspecified       Cause = iota
	NoPools                 // ErrNoPool: there is no pool at all
	UnknownPool             // ErrNoPool: there is no pool of this name
	ClosedPool              // ErrNoPool: the pool gives out no further addresses
	NotAutoAssigned         // ErrNoPool: the pool, or every pool, serves only requests that name it or its addresses
	AnotherPool             // ErrNoPool: the request names another pool, Asked; ErrNotInPool: the address is in another, Home
	NotServed               // ErrNoPool: the pool does not serve the subject
	NoFamily                // ErrNoPool: the pool has no addresses of the family
	NoneFree                // ErrExhausted
	ClassNotAdmitted        // ErrNoPool: the pool, which has the address, does not admit the class of the allocator that gave it
	InNoPool                // ErrNotInPool: the address is in no pool
	CarriedInNoPool         // ErrNotInPool: the address that the owner carries is in no pool: see [Allocator.Adopt]
	OverQuota               // ErrQuota: there is no room for another address
	MoveOverQuota           // ErrQuota: there is no room for a move, while addresses that owners left still count
	NotGrantedYet           // ErrNotGranted: the pool has too few addresses that were granted to the owner
	NotGrantedToAsker       // ErrNotGranted: the address, which the owner asks for, was not granted to it
	AnotherHolder           // ErrTaken: the owner cannot get the address: see Conflict
	ChangedTerms            // ErrTaken: the owner holds the address and cannot keep it on changed terms: see Conflict
	IsSkipped               // ErrSkipped: see Word
	ToBeLeft                // of NotKept, or ErrNotGranted: the owner is to leave the address
	AnotherAddress          // of NotKept: the owner asks for other addresses
	HoldsAnother            // of NotKept: the owner already holds as many addresses as it asks for
)

var causes = [...]string{"", "there is none", "it is unknown", "it is closed", "it does not auto-assign", "another pool", "it does not serve the subject",
	"it has no addresses of the family", "none is free", "it does not admit the class", "it is in no pool", "it is carried, and in no pool", "no room", "no room for a move",
	"it is not granted yet", "it is not granted to the owner", "others are there", "the terms have changed", "it is skipped", "the owner leaves it", "another is asked for", "another is held"}

// String returns the cause in a few words, for logs and tests.
func (c Cause) String() string {
	if c < 0 || int(c) >= len(causes) {
		return fmt.Sprintf("Cause(%d)", int(c))
	}
	return causes[c]
}

// Error describes a refused request in values. The caller words it for users, and decides what the asker may know about
// other owners.
type Error struct {
	Reason error // one of the sentinels above
	Cause  Cause // Unspecified with ErrInvalid
	Asker  Owner // the owner whose request is refused; the zero Owner if no owner made a request

	Family  Family     // the family concerned, if there is one
	Address netip.Addr // the address concerned, if there is one
	Wanted  int        // how many addresses are missing, with ErrExhausted and NotGrantedYet
	Pool    string     // the pool concerned, if there is one
	Asked   string     // the pool that the request names
	Class   string     // the class of the allocator that gave Address; empty if the asker asked for it
	Home    string     // with ErrNotInPool, the pool that Address is in
	Pools   []string   // the pools that cannot serve the request, in the order in which they were tried

	Used, Limit uint64 // with ErrQuota: of the pool or, if Pool is empty, of all pools together
	Claimed     uint64 // with ErrQuota: how many of Used are not held, and were claimed
	QuotaFrom   string // with ErrQuota of all pools together: see [Request]

	Holder   Owner    // with ErrTaken, the owner that holds Address, or one of them
	Conflict Conflict // with ErrTaken, why Holder and Asker cannot share the address
	Word     string   // with ErrSkipped, the caller's word for the reason: see [Allocator.Skip]

	text string // with ErrInvalid, the contradiction
}

// Error returns one line for logs. It does not mention other owners or their terms of sharing. With ErrInvalid it is a
// sentence that says what to change.
func (e *Error) Error() string {
	if e.text != "" {
		return e.text
	}
	var parts []string
	if e.Address.IsValid() {
		parts = append(parts, e.Address.String())
	} else if e.Family != 0 {
		parts = append(parts, e.Family.String())
	}
	for _, pool := range append([]string{e.Pool}, e.Pools...) {
		if pool != "" {
			parts = append(parts, fmt.Sprintf("pool %q", pool))
		}
	}
	if errors.Is(e.Reason, ErrQuota) {
		parts = append(parts, fmt.Sprintf("%d of %d", e.Used, e.Limit))
	}
	parts = append(parts, e.Cause.String())
	if e.Conflict.Over != Nothing {
		parts = append(parts, e.Conflict.Over.String())
	}
	return fmt.Sprintf("%v: %s", e.Reason, strings.Join(parts, ", "))
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Reason }

// errTaken returns the error for an owner that cannot get addr, or cannot keep it, because of its other holders.
func (a *Allocator) errTaken(addr netip.Addr, o Owner, why Conflict, cause Cause) *Error {
	e := &Error{Reason: ErrTaken, Cause: cause, Asker: o, Family: FamilyOf(addr), Address: addr, Conflict: why}
	for h := a.on(addr); h != nil; h = h.beside {
		if !h.Owner.is(o) {
			e.Pool, e.Holder = h.Pool, h.Owner
			break
		}
	}
	return e
}

// errOutside returns the error for an address that is not in the pool that the request names or, if it names none, in no
// pool. home is the pool that has the address, or nil.
func errOutside(addr netip.Addr, req *Request, home *pool) *Error {
	e := &Error{Reason: ErrNotInPool, Cause: InNoPool, Asker: req.Owner, Asked: req.Pool, Family: FamilyOf(addr), Address: addr}
	if home != nil {
		e.Cause, e.Home = AnotherPool, home.Name
	}
	return e
}

// errPool returns the error for a pool that does not serve the request. The pool need not exist.
func errPool(pool string, req *Request, f Family, cause Cause) *Error {
	return &Error{Reason: ErrNoPool, Cause: cause, Asker: req.Owner, Asked: req.Pool, Class: req.Class, Pool: pool, Family: f}
}

func errInvalid(format string, args ...any) *Error {
	return &Error{Reason: ErrInvalid, text: fmt.Sprintf(format, args...)}
}

// refuses returns why the pool cannot give what is missing for the request; nil if it can.
func (a *Allocator) refuses(p *pool, req *Request, w *portion) *Error {
	e := errPool(p.Name, req, w.family, Unspecified)
	switch {
	case req.Pool != "" && req.Pool != p.Name:
		e.Cause = AnotherPool
	case p.Closed:
		e.Cause = ClosedPool
	case req.Pool == "" && !p.AutoAssign:
		e.Cause = NotAutoAssigned
	case !p.serves(req):
		e.Cause = NotServed
	case p.space(w.family).capacity == 0:
		e.Cause = NoFamily
	case !a.hasFree(p, req, w):
		e.Reason, e.Cause, e.Wanted = ErrExhausted, NoneFree, w.missing
	default:
		if over := a.over(p, req, w.family, w.given, netip.Addr{}, w.missing); over != nil {
			return over
		}
		return a.ungranted(p, req, w)
	}
	return e
}

// unserved returns why none of the candidates can give what is missing for the request.
func (a *Allocator) unserved(req *Request, w *portion, candidates []*pool) *Error {
	if req.Pool != "" {
		if p := a.named[req.Pool]; p != nil {
			return a.refuses(p, req, w)
		}
		return errPool(req.Pool, req, w.family, UnknownPool)
	}
	e := errPool("", req, w.family, Unspecified)
	switch {
	case len(a.named) == 0:
		e.Cause = NoPools
	case len(a.auto) == 0:
		e.Cause = NotAutoAssigned
	case len(candidates) == 0:
		e.Cause, e.Pools = NotServed, namesOf(a.auto)
	case !slices.ContainsFunc(candidates, func(p *pool) bool { return p.space(w.family).capacity > 0 }):
		e.Cause, e.Pools = NoFamily, namesOf(candidates)
	default:
		for _, p := range candidates {
			if a.hasFree(p, req, w) { // Free addresses exist, so the obstacle is a quota.
				return a.over(p, req, w.family, w.given, netip.Addr{}, w.missing)
			}
		}
		e.Reason, e.Cause, e.Wanted, e.Pools = ErrExhausted, NoneFree, w.missing, namesOf(candidates)
	}
	return e
}

func namesOf(pools []*pool) []string {
	names := make([]string, len(pools))
	for i, p := range pools {
		names[i] = p.Name
	}
	return names
}

// check refuses requests that cannot be served with any pools.
func (r *Request) check() error {
	if r.Owner.UID == "" {
		return errInvalid("an address is asked for without a UID: reservations are made by Restore and Replace")
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
			return errInvalid("%s is not a family: ask for IPv4 or IPv6", f)
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
			return errInvalid("%s is asked for, and %s is not among the families: add the family, or ask for an %s address", addr, f, r.Families[0])
		}
		if slices.Contains(r.Addresses[:i], addr) {
			return errInvalid("%s is asked for twice: ask for each address once", addr)
		}
		if all := r.asked(f); len(all) > r.count() {
			return errInvalid("%d %s addresses are asked for by name, and %d of each family: ask for fewer, or for more of each family", len(all), f, r.count())
		}
	}
	return nil
}

// checkAddr refuses addresses that can be written in two ways: they would be two keys, and each of them could have
// another owner.
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
