package ipam

import (
	"net/netip"
	"slices"
	"sort"

	"go4.org/netipx"
)

// Pool is a set of addresses to give from, parsed and validated.
type Pool struct {
	Name string // unique among the pools given to SetPools
	// Addresses of either family or both, excludes applied: see [ParseAddresses].
	// Nil is a pool without addresses.
	Addresses *netipx.IPSet
	// AutoAssign lets the pool serve requests that name neither it nor one of its
	// addresses.
	AutoAssign bool
	// Serves says whom the pool may serve, by whatever request: nil is everybody. It is to
	// be a function of the subject alone, and not to change it.
	Serves func(*Subject) bool
	// Priority orders the pools that may serve a request, highest first; equals
	// are ordered by age.
	Priority int
	// Order is which of the free addresses is given next.
	Order Order
	// ShareAcrossNamespaces lets owners of different namespaces share an address.
	ShareAcrossNamespaces bool
	// Quota is what each namespace may hold of the pool.
	Quota Limits
	// Closed pools give nothing new. They keep their addresses: what is held stays,
	// and no younger pool gets at the rest.
	Closed bool
}

// Overlap is what a pool lost to an older pool that has the same addresses.
type Overlap struct {
	Pool   string // the older pool
	Ranges []netipx.IPRange
}

// pool is a Pool with the addresses that are its own.
type pool struct {
	Pool
	spaces   [len(families)]space
	overlaps []Overlap // in order of the lowest address lost
	tally    tally
}

func (p *pool) space(f Family) *space { return &p.spaces[f.index()] }

// serves reports whether the pool may serve a request at all.
func (p *pool) serves(req *Request) bool {
	if p.Serves == nil {
		return true
	}
	subject := req.Subject // A copy, or else every request would be on the heap.
	return p.Serves(&subject)
}

func (p *pool) lose(r netipx.IPRange, older string) {
	i := slices.IndexFunc(p.overlaps, func(o Overlap) bool { return o.Pool == older })
	if i < 0 {
		i = len(p.overlaps)
		p.overlaps = append(p.overlaps, Overlap{Pool: older})
	}
	p.overlaps[i].Ranges = append(p.overlaps[i].Ranges, r)
}

// span is a range of addresses and the one pool that has them.
type span struct {
	netipx.IPRange
	pool *pool
}

// carve divides the addresses among the pools, oldest first: an address in two of
// them belongs to the older. The spans are sorted and disjoint.
func carve(specs []Pool) (pools []*pool, spans []span) {
	for _, spec := range specs {
		p := &pool{Pool: spec, tally: tally{}}
		var own []span
		if spec.Addresses != nil {
			for _, r := range spec.Addresses.Ranges() {
				own = p.claim(r, spans, own)
			}
		}
		for i := range p.spaces {
			p.spaces[i] = newSpace(own, families[i], spec.Order)
		}
		pools = append(pools, p)
		spans = append(spans, own...)
		slices.SortFunc(spans, func(x, y span) int { return x.From().Compare(y.From()) })
	}
	return pools, spans
}

// claim appends to own what r holds beyond the older spans, and notes the rest
// as lost.
func (p *pool) claim(r netipx.IPRange, older, own []span) []span {
	from := r.From()
	for i := search(older, from); i < len(older) && older[i].From().Compare(r.To()) <= 0; i++ {
		o := older[i]
		if from.Less(o.From()) {
			own = append(own, span{netipx.IPRangeFrom(from, o.From().Prev()), p})
			from = o.From()
		}
		last := o.To()
		if r.To().Less(last) {
			last = r.To()
		}
		p.lose(netipx.IPRangeFrom(from, last), o.pool.Name)
		if last == r.To() {
			return own
		}
		from = last.Next()
	}
	return append(own, span{netipx.IPRangeFrom(from, r.To()), p})
}

// search returns the place of the first span that ends at addr or above.
func search(spans []span, addr netip.Addr) int {
	return sort.Search(len(spans), func(i int) bool { return !spans[i].To().Less(addr) })
}
