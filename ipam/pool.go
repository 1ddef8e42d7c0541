package ipam

import (
	"container/heap"
	"net/netip"
	"slices"
	"sort"

	"go4.org/netipx"
)

// Pool is a set of addresses to assign, parsed and validated.
type Pool struct {
	Name string // unique among the pools given to SetPools
	// Addresses of one family or both, without the excluded ones: see [ParseAddresses]. A pool with nil Addresses has
	// none.
	Addresses *netipx.IPSet
	// AutoAssign lets the pool serve requests that name neither the pool nor one of its addresses.
	AutoAssign bool
	// Serves reports whether the pool may serve a subject; if nil, the pool serves everybody. It applies to every
	// request. Serves must depend on the subject alone, and must not change it.
	Serves func(*Subject) bool
	// Priority orders the pools that may serve a request, highest first. Pools of equal priority are ordered by age.
	Priority int
	// Order says which free address is assigned next.
	Order Order
	// ShareAcrossNamespaces lets owners of different namespaces share an address.
	ShareAcrossNamespaces bool
	// Classes are the classes of other allocators whose owners may hold the addresses that these give them: see
	// [Allocator.Claim].
	Classes []string
	// Quota limits the addresses of the pool that each namespace may hold.
	Quota Limits
	// Granted pools give out an address only to the owner that another system granted it to: see [Grant].
	Granted bool
	// Closed pools give out no further addresses. They keep their addresses: held ones stay held, and a younger pool
	// does not get the others.
	Closed bool
}

// Overlap is the part of a pool that belongs to an older pool, because both list the same addresses.
type Overlap struct {
	Pool   string // the older pool
	Ranges []netipx.IPRange
}

// pool is a Pool with the addresses that belong to it.
type pool struct {
	Pool
	spaces   [len(families)]space
	overlaps []Overlap // in order of the lowest address lost
	tally    tally
}

func (p *pool) space(f Family) *space { return &p.spaces[f.index()] }

// serves reports whether the pool may serve the subject of a request.
func (p *pool) serves(req *Request) bool {
	if p.Serves == nil {
		return true
	}
	subject := req.Subject // a copy: without it every request would escape to the heap
	return p.Serves(&subject)
}

// span is a range of addresses and the pool that it belongs to.
type span struct {
	netipx.IPRange
	pool *pool
}

// carve divides the addresses among the pools, oldest first: an address that two pools list belongs to the older one.
// The spans are sorted and disjoint. The cost is O(n log n) in the number of ranges of all pools, plus the number of
// overlaps found.
func carve(specs []Pool) (pools []*pool, spans []span) {
	var claims []claim
	for age, spec := range specs {
		p := &pool{Pool: spec, tally: tally{}}
		pools = append(pools, p)
		for _, r := range p.ranges() {
			claims = append(claims, claim{span{r, p}, age})
		}
	}
	spans = divide(claims)
	for _, p := range pools {
		own := p.collect(spans)
		for i := range p.spaces {
			p.spaces[i] = newSpace(own, families[i], p.Order)
		}
	}
	return pools, spans
}

func (p *Pool) ranges() []netipx.IPRange {
	if p.Addresses == nil {
		return nil
	}
	return p.Addresses.Ranges()
}

// claim is a range that a pool lists. It may overlap the ranges of other pools.
type claim struct {
	span
	age int // of the pool: lower means older
}

// divide assigns every address to the oldest pool that claims it. It walks up through the addresses, and keeps the
// claims on the current one in a heap, the oldest on top.
func divide(claims []claim) (spans []span) {
	slices.SortFunc(claims, func(x, y claim) int { return x.From().Compare(y.From()) })
	var open claimHeap
	var at netip.Addr // All addresses below at are divided.
	for len(claims) > 0 || len(open) > 0 {
		switch {
		case len(open) == 0:
			at = claims[0].From()
			heap.Push(&open, claims[0])
			claims = claims[1:]
		case open[0].To().Less(at):
			heap.Pop(&open)
		case len(claims) > 0 && claims[0].From().Compare(open[0].To()) <= 0:
			if next := claims[0]; next.age < open[0].age && at.Less(next.From()) {
				spans = append(spans, span{netipx.IPRangeFrom(at, next.From().Prev()), open[0].pool})
				at = next.From()
			}
			heap.Push(&open, claims[0])
			claims = claims[1:]
		default:
			last := open[0].To()
			spans = append(spans, span{netipx.IPRangeFrom(at, last), open[0].pool})
			if at = last.Next(); !at.IsValid() { // last is the last address of its family.
				open = nil
			}
		}
	}
	return spans
}

// claimHeap implements [heap.Interface], with the oldest claim on top.
type claimHeap []claim

func (h claimHeap) Len() int           { return len(h) }
func (h claimHeap) Less(i, j int) bool { return h[i].age < h[j].age }
func (h claimHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *claimHeap) Push(x any)        { *h = append(*h, x.(claim)) }
func (h *claimHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

// collect returns the spans of the pool, and records as overlaps what the pool lost to others.
func (p *pool) collect(spans []span) (own []span) {
	at := map[*pool]int{} // the places of the older pools in overlaps
	for _, r := range p.ranges() {
		for i := search(spans, r.From()); i < len(spans) && spans[i].From().Compare(r.To()) <= 0; i++ {
			s := spans[i]
			if s.pool == p {
				own = append(own, s)
				continue
			}
			n, known := at[s.pool]
			if !known {
				n = len(p.overlaps)
				at[s.pool] = n
				p.overlaps = append(p.overlaps, Overlap{Pool: s.pool.Name})
			}
			p.overlaps[n].Ranges = append(p.overlaps[n].Ranges, intersection(s.IPRange, r))
		}
	}
	return own
}

// intersection returns the addresses that two overlapping ranges have in common.
func intersection(x, y netipx.IPRange) netipx.IPRange {
	from, to := x.From(), x.To()
	if from.Less(y.From()) {
		from = y.From()
	}
	if y.To().Less(to) {
		to = y.To()
	}
	return netipx.IPRangeFrom(from, to)
}

// search returns the index of the first span that ends at or above addr.
func search(spans []span, addr netip.Addr) int {
	return sort.Search(len(spans), func(i int) bool { return !spans[i].To().Less(addr) })
}
