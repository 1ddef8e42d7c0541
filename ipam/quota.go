package ipam

import (
	"fmt"
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

// over says that a quota keeps the request from an address of a pool, or nil. What would cost no further address
// is never too much: addr, which may be none, if the namespace is on it already, or a move.
func (a *Allocator) over(p *pool, req *Request, f Family, addr netip.Addr) *Error {
	// Where all pools together are too much, no other pool would do.
	if use, limit := a.tally.count(req.Owner.Namespace, f), req.Quota; limit.reached(f, use) && !a.costless(req, f, addr, nil) {
		return &Error{Reason: ErrQuota, Family: f, message: fmt.Sprintf(
			"namespace %s holds %d %s addresses, and its quota is %d (%s): release one, or raise the quota",
			req.Owner.Namespace, use, f, limit[f], req.QuotaFrom)}
	}
	if use, limit := p.tally.count(req.Owner.Namespace, f), p.Quota; limit.reached(f, use) && !a.costless(req, f, addr, p) {
		return &Error{Reason: ErrQuota, Pool: p.Name, Family: f, message: fmt.Sprintf(
			"namespace %s holds %d %s addresses of pool %q, and its quota there is %d (spec.quota of the pool): release one, raise the quota, or name another pool",
			req.Owner.Namespace, use, f, p.Name, limit[f])}
	}
	return nil
}

func (l Limits) reached(f Family, use uint64) bool {
	limit, limited := l[f]
	return limited && use >= limit
}

// costless reports whether the namespace of a request would hold no more with an address of family f, of this pool if
// one is given: it is on addr already, or it moves.
func (a *Allocator) costless(req *Request, f Family, addr netip.Addr, in *pool) bool {
	return present(a.on(addr), req.Owner.Namespace, nil) || a.moves(req, f, in)
}

// moves reports whether a new address of family f takes the place of one that the owner has to itself, in this
// pool if it is given.
func (a *Allocator) moves(req *Request, f Family, in *pool) bool {
	namespace := req.Owner.Namespace
	for h := range a.takenBy(req.Owner) {
		if FamilyOf(h.Address) == f && (in == nil || h.home == in) && h.Owner.Namespace == namespace && !present(a.on(h.Address), namespace, h) {
			return true
		}
	}
	return false
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
