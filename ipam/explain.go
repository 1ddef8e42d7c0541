package ipam

import "fmt"

// Verdict is what a pool has to say to a request for an address of one family.
type Verdict struct {
	Pool   string
	Family Family
	Fits   bool
	Text   string // what it has, or why it does not serve the request
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
			v := Verdict{Pool: p.Name, Family: f, Fits: true}
			if refused := a.refuses(p, &req, &w); refused != nil {
				v.Fits, v.Text = false, refused.Error()
			} else {
				s := p.space(f)
				v.Text = fmt.Sprintf("has %d of %d %s addresses free", s.free(), s.capacity, f)
			}
			all = append(all, v)
		}
	}
	return all
}
