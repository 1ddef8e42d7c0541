package ipam

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
)

// Sharing says on which terms an owner shares an address with others. The zero Sharing shares with nobody.
//
// Owners may be on one address if they have the same key, no port in common and the same Traffic. Those of
// different namespaces may only where the pool says so.
type Sharing struct {
	Key string
	// Ports are sorted: see [SortPorts].
	Ports []Port
	// Traffic stands for how packets are spread over endpoints. It is compared and nothing else: packets that come
	// to a node for one owner come there for all, so they must all be able to serve at the same nodes.
	Traffic string
}

// Port is a port of one protocol: TCP 53 and UDP 53 are two.
type Port struct {
	Protocol string
	Number   uint16
}

// String returns "TCP/80".
func (p Port) String() string { return fmt.Sprintf("%s/%d", p.Protocol, p.Number) }

func (s *Sharing) equal(o *Sharing) bool {
	return s.Key == o.Key && s.Traffic == o.Traffic && slices.Equal(s.Ports, o.Ports)
}

// Tenant is an owner and the terms on which it shares.
type Tenant struct {
	Owner   Owner
	Sharing Sharing
}

// Conflict is why two owners cannot be on one address. The zero Conflict is none. Theirs and Ours, and who is there, may
// be nothing for the other owner to know.
type Conflict struct {
	Over         Matter
	There        Owner  // who is there already
	Theirs, Ours string // with DifferentKey and DifferentTraffic: what it is
	Port         Port   // with SamePort
}

// Matter is what two owners do not agree on.
type Matter int

// What there can be to disagree on.
const (
	Nothing            Matter = iota
	NotShared                 // the owner that is there shares with nobody, or the address is reserved
	DifferentKey              // the sharing keys differ
	DifferentNamespace        // the pool does not let namespaces share
	DifferentTraffic          // packets have to be spread in another way
	SamePort                  // both have a port
	Full                      // [MostTenants] are there
)

var matters = [...]string{"", "not shared", "key", "namespace", "traffic", "port", "full"}

// String returns the matter in a word, which is for logs and tests.
func (m Matter) String() string {
	if m < 0 || int(m) >= len(matters) {
		return fmt.Sprintf("Matter(%d)", int(m))
	}
	return matters[m]
}

// MostTenants is how many owners can share an address: as many as its record has room for.
const MostTenants = 64

// conflict says why an owner with these terms cannot be on the address of first beside those who are on it, if it
// cannot.
func (a *Allocator) conflict(first *holding, o Owner, s *Sharing) Conflict {
	if first == nil {
		return Conflict{}
	}
	return conflictAmong(first.home, func(yield func(Owner, *Sharing) bool) {
		for h := first; h != nil && yield(h.Owner, &h.sharing); h = h.beside {
		}
	}, o, s)
}

// Agree fails with ErrTaken if the tenant cannot be on addr beside others, as a record names them.
func (a *Allocator) Agree(addr netip.Addr, others []Tenant, t Tenant) error {
	d := conflictAmong(a.find(addr), func(yield func(Owner, *Sharing) bool) {
		for i := range others {
			if !yield(others[i].Owner, &others[i].Sharing) {
				return
			}
		}
	}, t.Owner, &t.Sharing)
	if d.Over == Nothing {
		return nil
	}
	return &Error{Reason: ErrTaken, Cause: AnotherHolder, Asker: t.Owner, Family: FamilyOf(addr), Address: addr, Holder: d.There, Conflict: d}
}

// conflictAmong says why an owner with these terms cannot be on an address of the pool beside those who are there. It is not in
// its own way, nor is what is reserved for it.
func conflictAmong(home *pool, there iter.Seq2[Owner, *Sharing], o Owner, s *Sharing) (d Conflict) {
	others := 0
	for other, terms := range there {
		if other.is(o) || other.reserves(o) {
			continue
		}
		if d = disagree(home, other, terms, o, s); d.Over != Nothing {
			return d
		}
		others++
	}
	if others >= MostTenants {
		d.Over = Full
	}
	return d
}

// disagree says why o cannot be on an address of the pool beside one who is there. The namespaces come first: whoever is
// kept out by them does not learn whether its key is that of the others.
func disagree(home *pool, there Owner, terms *Sharing, o Owner, s *Sharing) Conflict {
	d := Conflict{There: there}
	switch {
	case there.nobody() || terms.Key == "":
		d.Over = NotShared
	case there.Namespace != o.Namespace && (home == nil || !home.ShareAcrossNamespaces):
		d.Over = DifferentNamespace
	case s.Key != terms.Key:
		d.Over, d.Theirs, d.Ours = DifferentKey, terms.Key, s.Key
	case s.Traffic != terms.Traffic:
		d.Over, d.Theirs, d.Ours = DifferentTraffic, terms.Traffic, s.Traffic
	default:
		for _, p := range s.Ports {
			if _, both := slices.BinarySearchFunc(terms.Ports, p, comparePorts); both {
				d.Over, d.Port = SamePort, p
				break
			}
		}
	}
	return d
}

// group is the addresses that are shared with one key, of each family lowest first, and which ports are there.
type group struct {
	addrs [len(families)][]netip.Addr
	ports map[place]map[netip.Addr]int // by how many owners
}

// place is a port at addresses of one family.
type place struct {
	Port
	Family
}

func newGroup() *group { return &group{ports: make(map[place]map[netip.Addr]int)} }

func (g *group) add(addr netip.Addr, ports []Port) {
	all := &g.addrs[FamilyOf(addr).index()]
	if i, found := slices.BinarySearchFunc(*all, addr, netip.Addr.Compare); !found {
		*all = slices.Insert(*all, i, addr)
	}
	for _, p := range ports {
		at := place{p, FamilyOf(addr)}
		if g.ports[at] == nil {
			g.ports[at] = make(map[netip.Addr]int)
		}
		g.ports[at][addr]++
	}
}

func (g *group) removePorts(addr netip.Addr, ports []Port) {
	for _, p := range ports {
		at := place{p, FamilyOf(addr)}
		if g.ports[at][addr]--; g.ports[at][addr] > 0 {
			continue
		}
		if delete(g.ports[at], addr); len(g.ports[at]) == 0 {
			delete(g.ports, at)
		}
	}
}

func (g *group) remove(addr netip.Addr) {
	all := &g.addrs[FamilyOf(addr).index()]
	if i, found := slices.BinarySearchFunc(*all, addr, netip.Addr.Compare); found {
		*all = slices.Delete(*all, i, i+1)
	}
}

// candidates are the addresses of family f on which these ports may be free: none, if one of them is everywhere.
func (g *group) candidates(f Family, ports []Port) []netip.Addr {
	all := g.addrs[f.index()]
	for _, p := range ports {
		if len(g.ports[place{p, f}]) == len(all) {
			return nil
		}
	}
	return all
}

// regroup notes that the terms of h are to be these.
func (a *Allocator) regroup(h *holding, s Sharing) {
	before := h.sharing
	h.sharing = s
	if before.Key != "" {
		g := a.groups[before.Key]
		g.removePorts(h.Address, before.Ports)
		if !a.grouped(h.Address, before.Key) {
			g.remove(h.Address)
		}
		if len(g.addrs[0])+len(g.addrs[1]) == 0 {
			delete(a.groups, before.Key)
		}
	}
	if s.Key != "" {
		if a.groups[s.Key] == nil {
			a.groups[s.Key] = newGroup()
		}
		a.groups[s.Key].add(h.Address, s.Ports)
	}
}

// grouped reports whether anybody on the address shares it with this key.
func (a *Allocator) grouped(addr netip.Addr, key string) bool {
	for h := a.on(addr); h != nil; h = h.beside {
		if h.sharing.Key == key {
			return true
		}
	}
	return false
}

// join gives addresses that the request may share, the lowest first, until it has enough. It costs in proportion
// to the addresses that are shared with the key, unless one of the ports is on all of them.
func (a *Allocator) join(req *Request, w *portion) {
	g := a.groups[req.Sharing.Key]
	if req.Sharing.Key == "" || g == nil {
		return
	}
	for _, addr := range g.candidates(w.family, req.Sharing.Ports) {
		h := a.on(addr)
		if a.mayJoin(req, h) && !has(w.given, addr) &&
			a.conflict(h, req.Owner, &req.Sharing).Over == Nothing && a.over(h.home, req, w.family, w.given, addr, 0) == nil {
			w.given = append(w.given, Allocation{Address: addr, Pool: h.Pool, Owner: req.Owner})
			if len(w.given) == req.count() {
				return
			}
		}
	}
}

// MayJoin reports whether the owner could share an address that others hold if it agreed with them: the pool serves it, is
// the one that it asks for, and lets the namespaces share, and the address is neither to be left nor skipped.
func (a *Allocator) MayJoin(req Request, addr netip.Addr) bool {
	h := a.on(addr)
	return h != nil && a.mayJoin(&req, h) && a.conflict(h, req.Owner, &req.Sharing).Over != DifferentNamespace
}

// mayJoin is MayJoin without a look at those who are there.
func (a *Allocator) mayJoin(req *Request, h *holding) bool {
	p := h.home
	return p != nil && !p.Closed && p.serves(req) && (req.Pool == "" || req.Pool == p.Name) && !slices.Contains(req.Leave, h.Address) && !a.skips(h.Address)
}

// Unshared says of an address that the owner holds alone though it names a sharing key, why it is not another that
// others share with this key and that it might share. The Conflict is none if there is no such address.
func (a *Allocator) Unshared(req Request, addr netip.Addr) (other netip.Addr, why Conflict) {
	g := a.groups[req.Sharing.Key]
	if req.Sharing.Key == "" || g == nil || len(a.Holders(addr)) != 1 {
		return other, why
	}
	for _, other = range g.addrs[FamilyOf(addr).index()] {
		if other == addr || !a.MayJoin(req, other) {
			continue
		}
		if why = a.conflict(a.on(other), req.Owner, &req.Sharing); why.Over != Nothing {
			return other, why
		}
	}
	return netip.Addr{}, Conflict{}
}

// Equal reports whether terms are the same.
func (s Sharing) Equal(o Sharing) bool { return s.equal(&o) }

// ParsePort is the inverse of [Port.String].
func ParsePort(text string) (Port, error) {
	protocol, number, ok := strings.Cut(text, "/")
	var p Port
	if n, err := fmt.Sscanf(number, "%d", &p.Number); !ok || n != 1 || err != nil || protocol == "" {
		return Port{}, fmt.Errorf("%q is no port: write a protocol and a number from 1 to 65535, as TCP/80", text)
	}
	p.Protocol = protocol
	if p.String() != text {
		return Port{}, fmt.Errorf("%q is no port: write a protocol and a number from 1 to 65535, as TCP/80", text)
	}
	return p, nil
}

// SortPorts orders ports, so that equal sets are equal lists and a port is found in a list without a look at each.
func SortPorts(ports []Port) { slices.SortFunc(ports, comparePorts) }

func comparePorts(x, y Port) int {
	return cmp.Or(cmp.Compare(x.Protocol, y.Protocol), cmp.Compare(x.Number, y.Number))
}
