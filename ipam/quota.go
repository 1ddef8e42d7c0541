package ipam

import (
	"maps"
	"net/netip"
	"slices"
)

// Limits are the most addresses of each family that may be held. A family without an entry is not limited.
type Limits map[Family]uint64

// tally counts the addresses that each namespace holds, by family. An address that several owners of the namespace share
// counts once. Reservations count, and so do addresses that are held until they may be reused.
type tally map[string]*[len(families)]uint64

func (t tally) add(namespace string, f Family) {
	n := t[namespace]
	if n == nil {
		n = new([len(families)]uint64)
		t[namespace] = n
	}
	n[f.index()]++
}

func (t tally) remove(namespace string, f Family) {
	n := t[namespace]
	if n[f.index()]--; *n == ([len(families)]uint64{}) {
		delete(t, namespace)
	}
}

func (t tally) count(namespace string, f Family) uint64 {
	if n := t[namespace]; n != nil {
		return n[f.index()]
	}
	return 0
}

// count counts the address of h for the namespace of h, unless another holding of this namespace is on the address. first
// is the first holding of the address.
func (a *Allocator) count(first, h *holding) {
	if f := FamilyOf(h.Address); !present(first, h.Owner.Namespace, h) {
		a.tally.add(h.Owner.Namespace, f)
		if h.home != nil {
			h.home.tally.add(h.Owner.Namespace, f)
		}
	}
}

// uncount reverses count. h must still be among the holdings of the address.
func (a *Allocator) uncount(first, h *holding) {
	if f := FamilyOf(h.Address); !present(first, h.Owner.Namespace, h) {
		a.tally.remove(h.Owner.Namespace, f)
		if h.home != nil {
			h.home.tally.remove(h.Owner.Namespace, f)
		}
	}
}

// present reports whether a holding other than except is on the address for the namespace. first is the first holding.
func present(first *holding, namespace string, except *holding) bool {
	for h := first; h != nil; h = h.beside {
		if h != except && h.Owner.Namespace == namespace {
			return true
		}
	}
	return false
}

// over returns the quota that the request would exceed if it got further addresses of the pool beside those in given, or
// nil. The further addresses are addr, if it is valid, and as many others as more says.
//
// What was claimed for other owners of the namespace counts as held. An address that the namespace already holds does not
// count again. Any other address needs room in the quota, with one exception. While an owner moves, it holds the old address and the new one. A move may exceed a limit by the number of
// its new addresses, on three conditions: the namespace is within the limit before the move, the owner leaves at least as
// many addresses as it gets, and the owner has no other move to finish, that is, it holds no more than it asks for.
// However often owners move, a namespace thus never holds more than its limit and the addresses of one moving owner: an
// address that was left counts until it is free.
func (a *Allocator) over(p *pool, req *Request, f Family, given []Allocation, addr netip.Addr, more int) *Error {
	namespace := req.Owner.Namespace
	if addr.IsValid() && !present(a.on(addr), namespace, nil) {
		more++
	}
	if more == 0 {
		return nil
	}
	// If the quota of all pools together is exceeded, no other pool can help.
	e := a.exceeds(req, f, given, more, nil, req.Quota, a.tally)
	if e != nil {
		e.QuotaFrom = req.QuotaFrom
		return e
	}
	return a.exceeds(req, f, given, more, p, p.Quota, p.tally)
}

// exceeds returns the quota that the new addresses in given and the additional ones would exceed, or nil. The quota is
// that of a pool, or of all pools together if in is nil.
func (a *Allocator) exceeds(req *Request, f Family, given []Allocation, more int, in *pool, limits Limits, t tally) *Error {
	limit, limited := limits[f]
	if !limited {
		return nil
	}
	namespace := req.Owner.Namespace
	for _, al := range given {
		if !present(a.on(al.Address), namespace, nil) && (in == nil || a.find(al.Address) == in) {
			more++
		}
	}
	claimed := a.claimed(req, in, f)
	use := t.count(namespace, f) + claimed
	if use+uint64(more) <= limit {
		return nil
	}
	held, leaves := 0, 0
	for h := range a.takenBy(req.Owner) {
		if FamilyOf(h.Address) != f {
			continue
		}
		held++
		if !has(given, h.Address) && (in == nil || h.home == in) && h.Owner.Namespace == namespace && !present(a.on(h.Address), namespace, h) {
			leaves++
		}
	}
	e := &Error{Reason: ErrQuota, Cause: OverQuota, Asker: req.Owner, Asked: req.Pool, Family: f, Used: use, Claimed: claimed, Limit: limit}
	if in != nil {
		e.Pool = in.Name
	}
	switch {
	case leaves < more:
	case use <= limit && held <= req.count():
		return nil // This is a move.
	default:
		e.Cause = MoveOverQuota
	}
	return e
}

// QuotaUse is how much of a quota is used.
type QuotaUse struct {
	Pool      string // empty: of all pools together
	Namespace string
	Family    Family
	Used      uint64
	Limit     uint64
}

// Quotas returns how much of its quotas each namespace that holds addresses uses: of the quotas of the pools, and of the
// quota of all pools together. The Allocator does not know the latter, so total returns it.
func (a *Allocator) Quotas(total func(namespace string) Limits) []QuotaUse {
	var all []QuotaUse
	add := func(pool string, t tally, namespace string, limits Limits) {
		for _, f := range families {
			if limit, limited := limits[f]; limited {
				all = append(all, QuotaUse{pool, namespace, f, t.count(namespace, f), limit})
			}
		}
	}
	for _, namespace := range slices.Sorted(maps.Keys(a.tally)) {
		if namespace == "" {
			continue // Reservations without a namespace.
		}
		add("", a.tally, namespace, total(namespace))
		for _, p := range a.order {
			if p.tally[namespace] != nil {
				add(p.Name, p.tally, namespace, p.Quota)
			}
		}
	}
	return all
}
