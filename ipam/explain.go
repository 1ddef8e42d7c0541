package ipam

// Verdict is whether a pool would serve a request for addresses of one family, and why not.
type Verdict struct {
	Pool           string
	Family         Family
	Free, Capacity uint64 // as Available and Capacity in [Usage]
	Refused        *Error // why the pool does not serve the request; nil if it does
}

// Explain asks each pool, in the order of choice, whether it would serve the new addresses of a request: those that the
// owner does not hold yet, or one if it holds enough. Explain does not check whether the owner may keep what it holds, and
// ignores reservations and addresses that the owner might share. See [Allocator.HeldBy].
func (a *Allocator) Explain(req Request) []Verdict {
	var all []Verdict
	for _, f := range req.Families {
		w := portion{family: f, missing: req.count()}
		for h := range a.takenBy(req.Owner) {
			if FamilyOf(h.Address) == f && w.missing > 1 {
				w.missing--
			}
		}
		for _, p := range a.order {
			s := p.space(f)
			all = append(all, Verdict{Pool: p.Name, Family: f, Free: s.free(), Capacity: s.capacity, Refused: a.refuses(p, &req, &w)})
		}
	}
	return all
}
