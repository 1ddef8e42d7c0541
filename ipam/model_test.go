package ipam_test

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/heraldlb/herald/ipam"
)

// model is a naive implementation of the Allocator: it keeps everything in lists, and looks at every address.
type model struct {
	pools   []ipam.Pool
	held    []holding    // in the order in which they were taken
	history []netip.Addr // free addresses that a pool remembers as released, the earliest release first
	circles map[spot]*circle
	skipped map[netip.Addr]string
	taken   int
}

type holding struct {
	ipam.Allocation
	terms ipam.Sharing
	took  int // a larger number means that the owner took it later
}

// spot identifies the addresses of one family in a pool.
type spot struct {
	pool   string
	family ipam.Family
}

// circle is the position of the walk through a spot, and its end.
type circle struct{ next, last netip.Addr }

func newModel() *model { return &model{circles: map[spot]*circle{}} }

// sameOwner reports whether two owners are the same. Owners without a UID are the same if their fields are equal.
func sameOwner(x, y ipam.Owner) bool { return x.UID == y.UID && (x.UID != "" || x == y) }

// nameOf returns the reservation for an owner's name.
func nameOf(o ipam.Owner) ipam.Owner { return ipam.Owner{Namespace: o.Namespace, Name: o.Name} }

// What is held.

func (m *model) at(addr netip.Addr) (all []holding) {
	for _, h := range m.held {
		if h.Address == addr {
			all = append(all, h)
		}
	}
	return all
}

// of returns what an owner holds, the last taken at the end. Nobody holds nothing.
func (m *model) of(o ipam.Owner) (all []holding) {
	for _, h := range m.held {
		if sameOwner(h.Owner, o) && (o.UID != "" || o.Name != "") {
			all = append(all, h)
		}
	}
	slices.SortFunc(all, func(x, y holding) int { return x.took - y.took })
	return all
}

func (m *model) find(addr netip.Addr, o ipam.Owner) *holding {
	for i, h := range m.held {
		if h.Address == addr && sameOwner(h.Owner, o) {
			return &m.held[i]
		}
	}
	return nil
}

func allocations(held []holding) (all []ipam.Allocation) {
	for _, h := range held {
		all = append(all, h.Allocation)
	}
	return all
}

// hold adds a holding, or updates an existing one. A record names one pool for all its owners.
func (m *model) hold(al ipam.Allocation, terms ipam.Sharing) {
	for i := range m.held {
		if m.held[i].Address == al.Address {
			m.held[i].Pool = al.Pool
		}
	}
	if h := m.find(al.Address, al.Owner); h != nil {
		h.Allocation, h.terms = al, terms
		return
	}
	m.taken++
	m.held = append(m.held, holding{al, terms, m.taken})
	m.history = slices.DeleteFunc(m.history, func(addr netip.Addr) bool { return addr == al.Address })
}

func (m *model) release(addr netip.Addr, o ipam.Owner) bool {
	before := len(m.held)
	m.held = slices.DeleteFunc(m.held, func(h holding) bool { return h.Address == addr && sameOwner(h.Owner, o) })
	if len(m.held) == before {
		return false
	}
	if p := m.pool(m.home(addr)); len(m.at(addr)) == 0 && p != nil && p.Order == ipam.LeastRecentlyUsed && !m.skips(addr) {
		m.history = append(m.history, addr)
	}
	return true
}

func (m *model) skips(addr netip.Addr) bool { _, skipped := m.skipped[addr]; return skipped }

func (m *model) skip(all map[netip.Addr]string) {
	before := m.skipped
	m.skipped = all
	m.history = slices.DeleteFunc(m.history, m.skips)
	for _, addr := range universe {
		if _, was := before[addr]; was && !m.skips(addr) && len(m.at(addr)) == 0 {
			if p := m.pool(m.home(addr)); p != nil && p.Order == ipam.LeastRecentlyUsed {
				m.history = append(m.history, addr)
			}
		}
	}
}

func (m *model) restore(al ipam.Allocation, terms ipam.Sharing) error {
	if !m.agree(al.Address, al.Owner, terms) {
		return ipam.ErrTaken
	}
	m.hold(al, terms)
	return nil
}

func (m *model) replace(addr netip.Addr, pool string, tenants []ipam.Tenant) (lost []ipam.Owner) {
	for _, t := range tenants {
		m.hold(ipam.Allocation{Address: addr, Pool: pool, Owner: t.Owner}, t.Sharing)
	}
	for _, h := range m.at(addr) {
		if !slices.ContainsFunc(tenants, func(t ipam.Tenant) bool { return sameOwner(t.Owner, h.Owner) }) {
			m.release(addr, h.Owner)
			lost = append(lost, h.Owner)
		}
	}
	return lost
}

func (m *model) displaced() (all []ipam.Allocation) {
	for _, h := range m.held {
		if home := m.home(h.Address); home == "" || h.Pool != "" && h.Pool != home {
			all = append(all, h.Allocation)
		}
	}
	slices.SortStableFunc(all, func(x, y ipam.Allocation) int { return x.Address.Compare(y.Address) })
	return all
}

// agree reports whether an owner with these terms can share addr with its holders.
func (m *model) agree(addr netip.Addr, o ipam.Owner, terms ipam.Sharing) bool {
	across := false
	if p := m.pool(m.home(addr)); p != nil {
		across = p.ShareAcrossNamespaces
	}
	for _, h := range m.at(addr) {
		if sameOwner(h.Owner, o) || o.Name != "" && h.Owner == nameOf(o) {
			continue
		}
		samePort := slices.ContainsFunc(terms.Ports, func(p ipam.Port) bool { return slices.Contains(h.terms.Ports, p) })
		switch {
		case h.Owner.UID == "" && h.Owner.Name == "", terms.Key == "", terms.Key != h.terms.Key,
			terms.Traffic != h.terms.Traffic, samePort, !across && h.Owner.Namespace != o.Namespace:
			return false
		}
	}
	return true
}

// Pools.

func (m *model) pool(name string) *ipam.Pool {
	for i := range m.pools {
		if m.pools[i].Name == name {
			return &m.pools[i]
		}
	}
	return nil
}

func (m *model) home(addr netip.Addr) string {
	for _, p := range m.pools {
		if p.Addresses.Contains(addr) {
			return p.Name
		}
	}
	return ""
}

func (m *model) own(pool string, f ipam.Family) (all []netip.Addr) {
	for _, addr := range universe {
		if ipam.FamilyOf(addr) == f && m.home(addr) == pool {
			all = append(all, addr)
		}
	}
	return all
}

// free returns the addresses that nobody holds, except those to be left and those that are skipped.
func (m *model) free(pool string, f ipam.Family, leave []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(m.own(pool, f), func(addr netip.Addr) bool {
		return len(m.at(addr)) > 0 || slices.Contains(leave, addr) || m.skips(addr)
	})
}

func (m *model) setPools(pools []ipam.Pool) {
	before := m.circles
	m.pools, m.circles = pools, map[spot]*circle{}
	for _, p := range pools {
		for _, f := range []ipam.Family{ipam.IPv4, ipam.IPv6} {
			own, at := m.own(p.Name, f), spot{p.Name, f}
			if len(own) == 0 {
				continue
			}
			m.begin(at, own[0])
			if c := before[at]; c != nil && slices.Contains(own, c.next) && p.Order == ipam.LeastRecentlyUsed {
				m.begin(at, c.next)
			}
		}
	}
	m.history = slices.DeleteFunc(m.history, func(addr netip.Addr) bool {
		p := m.pool(m.home(addr))
		return p == nil || p.Order != ipam.LeastRecentlyUsed
	})
}

// begin starts the walk through a spot at first. It ends after one round.
func (m *model) begin(at spot, first netip.Addr) {
	own := m.own(at.pool, at.family)
	i := slices.Index(own, first)
	m.circles[at] = &circle{next: first, last: own[(i+len(own)-1)%len(own)]}
}

func after(own []netip.Addr, addr netip.Addr) netip.Addr {
	return own[(slices.Index(own, addr)+1)%len(own)]
}

func (m *model) resume(addr netip.Addr) {
	if p := m.pool(m.home(addr)); p != nil && p.Order == ipam.LeastRecentlyUsed {
		f := ipam.FamilyOf(addr)
		m.begin(spot{p.Name, f}, after(m.own(p.Name, f), addr))
	}
}

// pick returns the next free address in the order of the pool. There must be one.
func (m *model) pick(p *ipam.Pool, f ipam.Family, leave []netip.Addr) netip.Addr {
	own, free, c := m.own(p.Name, f), m.free(p.Name, f, leave), m.circles[spot{p.Name, f}]
	if p.Order == ipam.Lowest {
		if c.next.Less(free[0]) {
			c.next = free[0] // In case the order changes: all addresses up to here were held once.
		}
		return free[0]
	}
	for ; ; c.next = after(own, c.next) {
		if len(m.at(c.next)) == 0 && !slices.Contains(m.history, c.next) && !m.skips(c.next) {
			if !slices.Contains(leave, c.next) {
				return c.next
			}
			m.history = append(m.history, c.next) // as if it had just been released
		}
		if c.next == c.last {
			break
		}
	}
	i := slices.IndexFunc(m.history, func(addr netip.Addr) bool { return slices.Contains(free, addr) })
	return m.history[i]
}

// granted returns the free addresses of the pool that the request has grants for, except those to be left, in the order of
// the grants.
func (m *model) granted(p ipam.Pool, req ipam.Request, f ipam.Family, leave []netip.Addr) (all []netip.Addr) {
	free := m.free(p.Name, f, leave)
	for _, g := range req.Granted {
		if g.Pool == p.Name && slices.Contains(free, g.Address) && !slices.Contains(all, g.Address) {
			all = append(all, g.Address)
		}
	}
	return all
}

func serves(p ipam.Pool, req ipam.Request) bool { return p.Serves == nil || p.Serves(&req.Subject) }

// candidates returns the pools for new addresses, in the order of choice.
func (m *model) candidates(req ipam.Request) (all []ipam.Pool) {
	byPriority := slices.SortedStableFunc(slices.Values(m.pools), func(x, y ipam.Pool) int { return cmp.Compare(y.Priority, x.Priority) })
	for _, p := range byPriority {
		if !p.Closed && serves(p, req) && (p.Name == req.Pool || req.Pool == "" && p.AutoAssign) {
			all = append(all, p)
		}
	}
	return all
}

// Quotas.

// use counts the addresses that a namespace holds in a pool, or in all pools if pool is empty.
func (m *model) use(pool, namespace string, f ipam.Family) (n uint64) {
	for _, addr := range universe {
		if ipam.FamilyOf(addr) == f && (pool == "" || m.home(addr) == pool) && m.present(addr, namespace) > 0 {
			n++
		}
	}
	return n
}

// present counts the owners of a namespace that hold addr.
func (m *model) present(addr netip.Addr, namespace string) (n int) {
	for _, h := range m.at(addr) {
		if h.Owner.Namespace == namespace {
			n++
		}
	}
	return n
}

// over reports whether a quota denies a request the address addr of the pool, or more further addresses, beside those
// in given.
func (m *model) over(p *ipam.Pool, req ipam.Request, f ipam.Family, given []ipam.Allocation, addr netip.Addr, more int) bool {
	ns := req.Owner.Namespace
	if addr.IsValid() {
		if m.present(addr, ns) > 0 {
			return false
		}
		more++
	}
	exceeds := func(limits ipam.Limits, pool string) bool {
		limit, limited := limits[f]
		within := func(addr netip.Addr) bool { return pool == "" || m.home(addr) == pool }
		use, fresh := m.use(pool, ns, f), more
		for _, c := range req.Claimed {
			if c.Family == f && (pool == "" || pool == c.Pool) && m.present(c.Address, ns) == 0 {
				use++
			}
		}
		for _, al := range given {
			if m.present(al.Address, ns) == 0 && within(al.Address) {
				fresh++
			}
		}
		held, leaves := 0, 0
		for _, h := range m.of(req.Owner) {
			if ipam.FamilyOf(h.Address) != f {
				continue
			}
			held++
			if !gives(given, h.Address) && within(h.Address) && m.present(h.Address, ns) == 1 && h.Owner.Namespace == ns {
				leaves++
			}
		}
		move := use <= limit && held <= wanted(req) && leaves >= fresh
		return limited && use+uint64(fresh) > limit && !move
	}
	return exceeds(p.Quota, p.Name) || exceeds(req.Quota, "")
}

func wanted(req ipam.Request) int { return max(req.Count, 1) }

func asked(req ipam.Request, f ipam.Family) (all []netip.Addr) {
	for _, addr := range req.Addresses {
		if ipam.FamilyOf(addr) == f {
			all = append(all, addr)
		}
	}
	return all
}

func gives(given []ipam.Allocation, addr netip.Addr) bool {
	return slices.ContainsFunc(given, func(al ipam.Allocation) bool { return al.Address == addr })
}

// Requests.

// allocate returns the addresses for a request, and records that the owner holds them.
func (m *model) allocate(req ipam.Request) ([]ipam.Allocation, error) {
	given := map[ipam.Family][]ipam.Allocation{}
	for _, f := range req.Families {
		some, reason := m.settled(req, f)
		if reason != nil {
			return nil, reason
		}
		given[f] = some
	}
	if err := m.choose(req, given); err != nil {
		return nil, err
	}
	var all []ipam.Allocation
	for _, f := range req.Families {
		all = append(all, given[f]...)
		for _, al := range slices.Backward(given[f]) {
			found := m.find(al.Address, al.Owner) == nil && al.Owner.Name != ""
			m.hold(al, req.Sharing)
			m.taken++
			m.find(al.Address, al.Owner).took = m.taken
			if found { // The reservation has served its purpose.
				m.release(al.Address, nameOf(al.Owner))
			}
		}
	}
	return all, nil
}

// adopt gives the owner the addresses that it carries, within the rules.
func (m *model) adopt(req ipam.Request, carried []netip.Addr) error {
	for _, addr := range carried {
		f := ipam.FamilyOf(addr)
		explicit := asked(req, f)
		var stays, others []ipam.Allocation
		kept := 0
		for _, h := range slices.Backward(m.of(req.Owner)) {
			fits := !slices.Contains(req.Leave, h.Address) && (req.Pool == "" || h.Pool == "" || h.Pool == req.Pool || m.home(h.Address) == req.Pool)
			switch {
			case ipam.FamilyOf(h.Address) != f:
			case slices.Contains(explicit, h.Address):
				stays = append(stays, h.Allocation)
			default:
				others = append(others, h.Allocation)
				if fits && kept < wanted(req)-len(explicit) {
					stays = append(stays, h.Allocation)
					kept++
				}
			}
		}
		wants := slices.Contains(explicit, addr) || len(others) < wanted(req)-len(explicit)
		if !slices.Contains(req.Families, f) || slices.Contains(req.Leave, addr) || m.find(addr, req.Owner) != nil || !wants {
			continue
		}
		home := m.pool(m.home(addr))
		if home == nil {
			return ipam.ErrNotInPool
		}
		named := req.Pool == home.Name || req.Pool == "" && (home.AutoAssign || slices.Contains(explicit, addr))
		reserved := m.find(addr, nameOf(req.Owner)) != nil && (req.Pool == "" || req.Pool == home.Name)
		if m.skips(addr) || !reserved && (!named || !serves(*home, req) || m.over(home, req, f, stays, addr, 0)) || !m.agree(addr, req.Owner, req.Sharing) {
			continue
		}
		m.hold(ipam.Allocation{Address: addr, Pool: home.Name, Owner: req.Owner}, req.Sharing)
		m.release(addr, nameOf(req.Owner))
	}
	for _, addr := range slices.Backward(carried) {
		if h := m.find(addr, req.Owner); h != nil {
			m.taken++
			h.took = m.taken
		}
	}
	return nil
}

// settled returns the addresses that the owner asks for, keeps, has reserved or shares.
func (m *model) settled(req ipam.Request, f ipam.Family) (given []ipam.Allocation, _ error) {
	left := func(addr netip.Addr) bool { return slices.Contains(req.Leave, addr) }
	explicit := asked(req, f)
	var kept []ipam.Allocation
	for _, h := range slices.Backward(m.of(req.Owner)) {
		home := m.home(h.Address)
		fits := !left(h.Address) && (req.Pool == "" || h.Pool == "" || h.Pool == req.Pool || home == req.Pool) && len(kept) < wanted(req)-len(explicit)
		switch {
		case ipam.FamilyOf(h.Address) != f:
			continue
		case slices.Contains(explicit, h.Address):
			given = append(given, h.Allocation)
		case fits:
			kept = append(kept, h.Allocation)
		default:
			continue
		}
		// The owner keeps its address, unless it has new terms that do not agree.
		if !m.agree(h.Address, req.Owner, req.Sharing) && !h.terms.Equal(req.Sharing) {
			return nil, ipam.ErrTaken
		}
	}
	for _, addr := range explicit {
		if m.find(addr, req.Owner) == nil {
			al, err := m.exactly(addr, req, slices.Concat(given, kept))
			if err != nil {
				return nil, err
			}
			given = append(given, *al)
		}
	}
	slices.SortFunc(given, func(x, y ipam.Allocation) int {
		return slices.Index(explicit, x.Address) - slices.Index(explicit, y.Address)
	})
	given = append(given, kept...)
	for _, h := range slices.Backward(m.of(nameOf(req.Owner))) {
		home := m.home(h.Address)
		if len(given) < wanted(req) && !gives(given, h.Address) && ipam.FamilyOf(h.Address) == f && !left(h.Address) && home != "" &&
			!m.skips(h.Address) && (req.Pool == "" || home == req.Pool) && m.agree(h.Address, req.Owner, req.Sharing) {
			given = append(given, ipam.Allocation{Address: h.Address, Pool: h.Pool, Owner: req.Owner})
		}
	}
	for _, addr := range universe {
		there := m.at(addr)
		hasKey := slices.ContainsFunc(there, func(h holding) bool { return req.Sharing.Key != "" && h.terms.Key == req.Sharing.Key })
		p := m.pool(m.home(addr))
		if len(given) < wanted(req) && !gives(given, addr) && ipam.FamilyOf(addr) == f && hasKey && !left(addr) && !m.skips(addr) &&
			p != nil && !p.Closed && serves(*p, req) && (req.Pool == "" || req.Pool == p.Name) &&
			m.agree(addr, req.Owner, req.Sharing) && !m.over(p, req, f, given, addr, 0) {
			given = append(given, ipam.Allocation{Address: addr, Pool: there[0].Pool, Owner: req.Owner})
		}
	}
	return given, nil
}

func (m *model) exactly(addr netip.Addr, req ipam.Request, given []ipam.Allocation) (*ipam.Allocation, error) {
	home := m.pool(m.home(addr))
	al := &ipam.Allocation{Address: addr, Pool: m.home(addr), Owner: req.Owner}
	if there := m.at(addr); len(there) > 0 {
		al.Pool = there[0].Pool
	}
	switch {
	case req.Pool != "" && m.pool(req.Pool) == nil:
		return nil, ipam.ErrNoPool
	case home == nil, req.Pool != "" && req.Pool != home.Name:
		return nil, ipam.ErrNotInPool
	case m.skips(addr):
		return nil, ipam.ErrSkipped
	case !m.agree(addr, req.Owner, req.Sharing):
		return nil, ipam.ErrTaken
	case m.find(addr, nameOf(req.Owner)) != nil: // It is reserved for the owner.
	case home.Closed || !serves(*home, req):
		return nil, ipam.ErrNoPool
	case m.over(home, req, ipam.FamilyOf(addr), given, addr, 0):
		return nil, ipam.ErrQuota
	case home.Granted && len(m.at(addr)) == 0 && !slices.Contains(req.Granted, ipam.Grant{Address: addr, Pool: home.Name}):
		return nil, ipam.ErrNotGranted
	}
	return al, nil
}

// choose adds free addresses to given.
func (m *model) choose(req ipam.Request, given map[ipam.Family][]ipam.Allocation) error {
	candidates := m.candidates(req)
	missing := func(f ipam.Family) int { return wanted(req) - len(given[f]) }
	leave := func(f ipam.Family) []netip.Addr { // also those already given, so that none is given twice
		all := slices.Clone(req.Leave)
		for _, al := range given[f] {
			all = append(all, al.Address)
		}
		return all
	}
	can := func(p ipam.Pool, f ipam.Family) bool {
		return missing(f) == 0 || len(m.free(p.Name, f, leave(f))) >= missing(f) && !m.over(&p, req, f, given[f], netip.Addr{}, missing(f))
	}
	// The order of choice: first the pools of the addresses in given, in their order, if they can serve the rest; then
	// pools that can serve everything that is missing; then any.
	const all = 1 << 20
	rank := func(p ipam.Pool) int {
		if slices.ContainsFunc(req.Families, func(f ipam.Family) bool { return !can(p, f) }) {
			return all + 1
		}
		n := 0
		for _, f := range req.Families {
			for _, al := range given[f] {
				if m.home(al.Address) == p.Name {
					return n
				}
				n++
			}
		}
		return all
	}
	ranks := map[string]int{}
	for _, p := range candidates {
		ranks[p.Name] = rank(p)
	}
	preferred := slices.SortedStableFunc(slices.Values(candidates), func(x, y ipam.Pool) int { return ranks[x.Name] - ranks[y.Name] })
	from := map[ipam.Family]ipam.Pool{}
	var refused error
	waits, mustWait := false, false
	for _, f := range req.Families {
		if missing(f) == 0 {
			continue
		}
		loses := slices.ContainsFunc(m.of(req.Owner), func(h holding) bool { return ipam.FamilyOf(h.Address) == f })
		required := req.RequireAll || loses || len(asked(req, f)) > 0
		if i := slices.IndexFunc(preferred, func(p ipam.Pool) bool { return can(p, f) }); i >= 0 {
			if !preferred[i].Granted || len(m.granted(preferred[i], req, f, leave(f))) >= missing(f) {
				from[f] = preferred[i]
			} else {
				waits, mustWait = true, mustWait || required
				delete(given, f)
			}
			continue
		}
		reason, some := ipam.ErrNoPool, slices.ContainsFunc[[]ipam.Pool]
		switch {
		case some(candidates, func(p ipam.Pool) bool { return len(m.free(p.Name, f, leave(f))) >= missing(f) }):
			reason = ipam.ErrQuota
		case some(candidates, func(p ipam.Pool) bool { return len(m.own(p.Name, f)) > 0 }):
			reason = ipam.ErrExhausted
		}
		if required {
			return reason
		}
		if refused == nil {
			refused = reason
		}
		delete(given, f)
	}
	if mustWait {
		return ipam.ErrNotGranted
	}
	for _, f := range req.Families {
		if p, ok := from[f]; ok {
			for range missing(f) {
				var addr netip.Addr
				if p.Granted {
					addr = m.granted(p, req, f, leave(f))[0]
				} else {
					addr = m.pick(&p, f, leave(f))
				}
				given[f] = append(given[f], ipam.Allocation{Address: addr, Pool: p.Name, Owner: req.Owner})
			}
		}
	}
	if len(given[req.Families[0]])+len(given[req.Families[len(req.Families)-1]]) == 0 {
		if waits {
			return ipam.ErrNotGranted
		}
		return refused
	}
	return nil
}
