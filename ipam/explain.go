package ipam

// Verdict is what a pool has to say to a request for addresses of one family.
type Verdict struct {
	Pool           string
	Family         Family
	Free, Capacity uint64 // as in [Usage], of which Free is Available
	Refused        *Error // why the pool does not serve the request; nil if it does
}

// Explain asks every pool, in the order of choice, whether it would serve a request with the new addresses that its owner
// does not hold yet, or with one if it holds enough. It says
// nothing of what the owner holds already, of reservations, and of addresses that others share:
// see [Allocator.HeldBy].
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
