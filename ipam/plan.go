package ipam

import (
	"net/netip"

	"go4.org/netipx"
)

// Record is who holds an address, from which pool, as [Allocator.Replace] takes it.
type Record struct {
	Address netip.Addr
	Pool    string
	Tenants []Tenant
}

// Ask is a request, and what its owner carries: see [Allocator.Adopt].
type Ask struct {
	Request
	Carried []netip.Addr
}

// Effect is what it does to replace pools by others: see [Plan].
type Effect struct {
	// Pools are those after, oldest first, and then those that are there before only.
	Pools []PoolEffect

	// Every record is in one of these, in the order given. Kept are the addresses that their pool has before
	// and after, Displaced those that it has no more, Returned those that it has again, and Outside those
	// that it has neither before nor after.
	Kept, Displaced, Returned, Outside []Placed

	// Served are the owners that get what they do not get before, Refused those that get nothing, in the order
	// in which they asked.
	Served  []Served
	Refused []Refused
}

// PoolEffect is what becomes of one pool. Counts include what is given to those who ask.
type PoolEffect struct {
	Name string
	// As from [Allocator.Usage]; nil where there is no such pool.
	Before, After map[Family]Usage
	// Lost is what older pools have of its addresses, and had not before.
	Lost []Overlap
}

// Placed is a held address, and the pool that has it after.
type Placed struct {
	Record
	Home string // empty: none
}

// Served is an owner that gets addresses through the change of pools.
type Served struct {
	Owner Owner
	Given []Allocation // in the order of the families
	// Left are the addresses it holds and no longer needs: it asked for others, and can have them now. They count
	// as held.
	Left []Allocation
}

// Refused is an owner that gets nothing after the change of pools, and why.
type Refused struct {
	Owner Owner
	Err   error // as from [Allocator.Adopt] or [Allocator.Allocate]
}

// Plan says what would change if the pools before were replaced by those after, both oldest first. Two Allocators
// with the pools before learn what is held, the oldest record first, and what is never given out, as [Allocator.Skip]
// takes it; one of them is given the pools after; then both are asked for the same, the oldest first. Who holds what it
// asks for may ask again: it changes nothing. Pools that do not change have no effect, whatever is held and asked for.
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
		e.serve(was, is, ask)
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

// Rebuilt returns an Allocator with these pools, oldest first, that has learned what is held, the oldest record first,
// and what is never given out, as [Allocator.Skip] takes it. It fails with ErrInvalid if there can be no such address.
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

// place tells of each held address whether its pool has it, before and after.
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

// serve asks both for the same.
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

func (a *Allocator) answer(ask Ask) ([]Allocation, error) {
	if err := a.Adopt(ask.Request, ask.Carried); err != nil {
		return nil, err
	}
	return a.Allocate(ask.Request)
}

// newOverlaps is what is in the second and not in the first.
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
		set, _ := b.IPSet() // It fails on invalid ranges, and these were parsed.
		if ranges := set.Ranges(); len(ranges) > 0 {
			lost = append(lost, Overlap{Pool: o.Pool, Ranges: ranges})
		}
	}
	return lost
}
