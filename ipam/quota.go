package ipam

import (
	"maps"
	"net/netip"
	"slices"
)

// Limits are the most addresses of each family that may be held; a family without one is not limited.
type Limits map[Family]uint64

// tally counts, by namespace, the addresses of each family that the namespace holds: one that several of its
// owners share counts once, reservations for it count, and addresses that cool down, for they are held.
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

// count counts the address of h, on which first came first, for the namespace of h, unless another there is on it.
func (a *Allocator) count(first, h *holding) {
	if f := FamilyOf(h.Address); !present(first, h.Owner.Namespace, h) {
		a.tally.add(h.Owner.Namespace, f)
		if h.home != nil {
			h.home.tally.add(h.Owner.Namespace, f)
		}
	}
}

// uncount undoes count, while h is still on the address.
func (a *Allocator) uncount(first, h *holding) {
	if f := FamilyOf(h.Address); !present(first, h.Owner.Namespace, h) {
		a.tally.remove(h.Owner.Namespace, f)
		if h.home != nil {
			h.home.tally.remove(h.Owner.Namespace, f)
		}
	}
}

// present reports whether the namespace holds the address on which first came first, by another holding than except.
func present(first *holding, namespace string, except *holding) bool {
	for h := first; h != nil; h = h.beside {
		if h != except && h.Owner.Namespace == namespace {
			return true
		}
	}
	return false
}

// over returns the quota that keeps the request from addresses of a pool beside those that it is given, or nil: from addr,
// if it is valid, and from as many more as are said.
//
// An address that the namespace is on already never counts again. Any other needs room in the quota, with one exception:
// a move, for which the owner holds the old address and the new one for a while. A move may exceed a limit, by the
// addresses that it leads to, if the namespace is within the limit before, the owner leaves as many of its own, and it has
// no other move to finish: it holds no more than it asks for. So a namespace never holds more than its limit and the
// addresses of one owner that moves, however often it moves: the address that was left counts until it is free.
func (a *Allocator) over(p *pool, req *Request, f Family, given []Allocation, addr netip.Addr, more int) *Error {
	namespace := req.Owner.Namespace
	if addr.IsValid() && !present(a.on(addr), namespace, nil) {
		more++
	}
	if more == 0 {
		return nil
	}
	// Where all pools together are too much, no other pool would do.
	e := a.exceeds(req, f, given, more, nil, req.Quota, a.tally)
	if e != nil {
		e.QuotaFrom = req.QuotaFrom
		return e
	}
	return a.exceeds(req, f, given, more, p, p.Quota, p.tally)
}

// exceeds returns the quota of a pool, or of all pools if none is given, for which more addresses and those that are
// given and new are too many, or nil.
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
	use := t.count(namespace, f)
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
	e := &Error{Reason: ErrQuota, Cause: OverQuota, Asker: req.Owner, Asked: req.Pool, Family: f, Used: use, Limit: limit}
	if in != nil {
		e.Pool = in.Name
	}
	switch {
	case leaves < more:
	case use <= limit && held <= req.count():
		return nil // It moves.
	default:
		e.Cause = MoveOverQuota
	}
	return e
}

// QuotaUse is how much of a quota is used.
type QuotaUse struct {
	Pool      string // empty: of all pools
	Namespace string
	Family    Family
	Used      uint64
	Limit     uint64
}

// Quotas returns what every namespace that holds addresses uses of its quotas: those of the pools, and that of all
// pools together, which is not known here.
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
			continue // Reservations for nobody.
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
