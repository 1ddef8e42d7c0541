package ipam

import (
	"net/netip"

	"go4.org/netipx"
)

// Record says which tenants hold an address, and from which pool: see [Allocator.Replace].
type Record struct {
	Address netip.Addr
	Pool    string
	Tenants []Tenant
}

// Ask is a request, and the addresses that its owner carries: see [Allocator.Adopt]. A request with a class is for the
// addresses that another allocator gave: see [Allocator.Claim].
type Ask struct {
	Request
	Carried []netip.Addr
}

// Effect is the effect of replacing pools by others: see [Plan].
type Effect struct {
	// Pools are the pools after the change, oldest first, followed by the pools that the change removes.
	Pools []PoolEffect

	// Every record is in exactly one of these lists, in the order given. Kept are the addresses that their pool has
	// before and after the change, Displaced those that it loses, Returned those that it gets back, and Outside those
	// that it has neither before nor after.
	Kept, Displaced, Returned, Outside []Placed

	// Served are the owners that get addresses that they do not get before the change. Refused are the owners that get
	// nothing. Both are in the order in which the owners asked.
	Served  []Served
	Refused []Refused
	// Released are the addresses that another allocator gave and that their owners lose, because their pool no longer
	// has them or no longer admits the class. They still count as held.
	Released []Released
}

// PoolEffect is the effect on one pool. Its counts include the addresses that the asking owners get.
type PoolEffect struct {
	Name string
	// Before and After are as from [Allocator.Usage]; nil if there is no such pool.
	Before, After map[Family]Usage
	// Lost are the addresses of the pool that older pools have after the change and did not have before.
	Lost []Overlap
}

// Placed is a held address, and the pool that has it after the change.
type Placed struct {
	Record
	Home string // empty: none
}

// Served is an owner that gets addresses because of the change.
type Served struct {
	Owner Owner
	Given []Allocation // in the order of the families
	// Left are addresses that the owner holds and no longer needs: it asked for others, and can have them now. They
	// still count as held.
	Left []Allocation
}

// Released is an allocation that ends, and the reason.
type Released struct {
	Allocation
	Err error // as returned by [Allocator.Claim]
}

// Refused is an owner that gets nothing after the change, and the reason.
type Refused struct {
	Owner Owner
	Err   error // as returned by [Allocator.Adopt], [Allocator.Allocate] or [Allocator.Claim]
}

// Plan returns what would change if the pools before were replaced by the pools after. Both lists start with the oldest
// pool. Plan builds two Allocators with the pools before. Both learn which addresses are held, from the oldest record
// to the youngest, and which are never assigned (see [Allocator.Skip]). One of them gets the pools after. Then both get
// the same requests, the oldest first. A request of an owner that already holds what it asks for changes nothing. Pools
// that do not change have no effect, whatever is held and asked for.
func Plan(before, after []Pool, held []Record, skipped map[netip.Addr]string, asks []Ask) (*Effect, error) {
	was, err := Rebuilt(before, held, skipped)
	if err != nil {
		return nil, err
	}
	is, err := Rebuilt(before, held, skipped)
	if err != nil {
		return nil, err
	}
	is.SetPools(after)
	var e Effect
	e.place(was, is, held)
	for _, ask := range asks {
		if ask.Class == "" {
			e.serve(was, is, ask)
		} else {
			e.claim(was, is, ask.Request)
		}
	}
	for _, p := range after {
		e.Pools = append(e.Pools, PoolEffect{
			Name: p.Name, Before: was.Usage(p.Name), After: is.Usage(p.Name),
			Lost: newOverlaps(was.Overlaps(p.Name), is.Overlaps(p.Name)),
		})
	}
	for _, p := range before {
		if is.Usage(p.Name) == nil {
			e.Pools = append(e.Pools, PoolEffect{Name: p.Name, Before: was.Usage(p.Name)})
		}
	}
	return &e, nil
}

// Rebuilt returns an Allocator with these pools, oldest first, that has learned which addresses are held, from the
// oldest record to the youngest, and which are never assigned (see [Allocator.Skip]). It fails with ErrInvalid if a
// record has an address that cannot exist.
func Rebuilt(pools []Pool, held []Record, skipped map[netip.Addr]string) (*Allocator, error) {
	a := New()
	a.SetPools(pools)
	for _, r := range held {
		if _, err := a.Replace(r.Address, r.Pool, r.Tenants); err != nil {
			return nil, err
		}
		a.Resume(r.Address)
	}
	a.Skip(skipped)
	return a, nil
}

// place sorts each held address into the lists of e, by whether its pool has it before and after.
func (e *Effect) place(was, is *Allocator, held []Record) {
	for _, r := range held {
		list := &e.Kept
		switch out, gone := was.IsDisplaced(r.Address), is.IsDisplaced(r.Address); {
		case out && gone:
			list = &e.Outside
		case gone:
			list = &e.Displaced
		case out:
			list = &e.Returned
		}
		home, _ := is.PoolOf(r.Address)
		*list = append(*list, Placed{r, home})
	}
}

// serve makes the same request to both Allocators and notes the difference.
func (e *Effect) serve(was, is *Allocator, ask Ask) {
	got, _ := was.answer(ask)
	gets, err := is.answer(ask)
	if err != nil {
		e.Refused = append(e.Refused, Refused{ask.Owner, err})
		return
	}
	had := map[Family]bool{}
	for _, al := range got {
		had[FamilyOf(al.Address)] = true
	}
	s := Served{Owner: ask.Owner}
	for _, al := range gets {
		if !had[FamilyOf(al.Address)] {
			s.Given = append(s.Given, al)
		}
	}
	if len(s.Given) > 0 {
		s.Left = is.Superfluous(ask.Owner, gets)
		e.Served = append(e.Served, s)
	}
}

// claim makes both Allocators claim the addresses of a request, and notes the difference.
func (e *Effect) claim(was, is *Allocator, req Request) {
	s := Served{Owner: req.Owner}
	for _, addr := range req.Addresses {
		had, before := was.Claim(req, addr)
		given, after := is.Claim(req, addr)
		switch {
		case before == nil && after != nil:
			e.Released = append(e.Released, Released{had, after})
		case before != nil && after == nil:
			s.Given = append(s.Given, given)
		case after != nil && is.Admits(addr, req.Class) && !was.Admits(addr, req.Class):
			e.Refused = append(e.Refused, Refused{req.Owner, after})
		}
	}
	if len(s.Given) > 0 {
		e.Served = append(e.Served, s)
	}
}

func (a *Allocator) answer(ask Ask) ([]Allocation, error) {
	if err := a.Adopt(ask.Request, ask.Carried); err != nil {
		return nil, err
	}
	return a.Allocate(ask.Request)
}

// newOverlaps returns the overlaps in after that are not in before.
func newOverlaps(before, after []Overlap) (lost []Overlap) {
	for _, o := range after {
		var b netipx.IPSetBuilder
		for _, r := range o.Ranges {
			b.AddRange(r)
		}
		for _, old := range before {
			for _, r := range old.Ranges {
				if old.Pool == o.Pool {
					b.RemoveRange(r)
				}
			}
		}
		set, _ := b.IPSet() // IPSet fails only for invalid ranges, and these were parsed.
		if ranges := set.Ranges(); len(ranges) > 0 {
			lost = append(lost, Overlap{Pool: o.Pool, Ranges: ranges})
		}
	}
	return lost
}
