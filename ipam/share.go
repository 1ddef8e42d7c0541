package ipam

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
)

// Sharing has the terms on which an owner shares an address with others. An owner with the zero Sharing shares with nobody.
//
// Owners can share an address if they have the same key, no port in common and the same Traffic. Owners of different
// namespaces also need a pool that allows it.
type Sharing struct {
	Key string
	// Ports are sorted: see [SortPorts].
	Ports []Port
	// Traffic identifies how packets are distributed to endpoints. Traffic is only compared. Packets for all owners of an
	// address arrive at the same nodes, so the owners must be able to serve at the same nodes.
	Traffic string
}

// Port is a port of one protocol. TCP 53 and UDP 53 are different ports.
type Port struct {
	Protocol string
	Number   uint16
}

// String returns the port as, for example, "TCP/80".
func (p Port) String() string { return fmt.Sprintf("%s/%d", p.Protocol, p.Number) }

func (s *Sharing) equal(o *Sharing) bool {
	return s.Key == o.Key && s.Traffic == o.Traffic && slices.Equal(s.Ports, o.Ports)
}

// Tenant is an owner with the terms on which it shares an address.
type Tenant struct {
	Owner   Owner
	Sharing Sharing
}

// Conflict is why two owners cannot share an address. The zero Conflict is not a conflict. The other owner may not be allowed
// to know Theirs, Ours and There.
type Conflict struct {
	Over         Matter
	There        Owner  // the owner that holds the address
	Theirs, Ours string // the two values, with DifferentKey and DifferentTraffic
	Port         Port   // with SamePort
}

// Matter is the subject on which two owners disagree.
type Matter int

// The matters of a conflict.
const (
	Nothing            Matter = iota
	NotShared                 // the holder shares with nobody, or the address is reserved
	DifferentKey              // the sharing keys differ
	DifferentNamespace        // the pool does not let namespaces share
	DifferentTraffic          // the owners need packets distributed in different ways
	SamePort                  // both owners have a port
	Full                      // [MostTenants] owners share the address
)

var matters = [...]string{"", "not shared", "key", "namespace", "traffic", "port", "full"}

// String returns the matter in a word, for logs and tests.
func (m Matter) String() string {
	if m < 0 || int(m) >= len(matters) {
		return fmt.Sprintf("Matter(%d)", int(m))
	}
	return matters[m]
}

// MostTenants is the most owners that can share an address: the most that its record has room for.
const MostTenants = 64

// conflict returns why an owner with these terms cannot share the address of first with its holders; the zero Conflict if
// it can.
func (a *Allocator) conflict(first *holding, o Owner, s *Sharing) Conflict {
	if first == nil {
		return Conflict{}
	}
	return conflictAmong(first.home, func(yield func(Owner, *Sharing) bool) {
		for h := first; h != nil && yield(h.Owner, &h.sharing); h = h.beside {
		}
	}, o, s)
}

// Agree returns an error with ErrTaken if the tenant cannot share addr with the others that a record names.
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

// conflictAmong returns why an owner with these terms cannot share an address of the pool with those that are there. The
// owner does not conflict with itself or with a reservation for it.
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

// disagree returns why o cannot share an address of the pool with one of its holders. It compares the namespaces first: an
// owner of a namespace that may not share does not learn whether its key is the same.
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

// group has the addresses that are shared with one key, sorted for each family, and the ports in use on them.
type group struct {
	addrs [len(families)][]netip.Addr
	ports map[place]map[netip.Addr]int // how many owners use each port on each address
}

// place is a port on addresses of one family.
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

// candidates returns the addresses of family f on which these ports may be free. It returns none if one of the ports is in
// use on all of them.
func (g *group) candidates(f Family, ports []Port) []netip.Addr {
	all := g.addrs[f.index()]
	for _, p := range ports {
		if len(g.ports[place{p, f}]) == len(all) {
			return nil
		}
	}
	return all
}

// regroup sets the terms of h, and updates the groups.
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

// grouped reports whether any owner on the address shares it with this key.
func (a *Allocator) grouped(addr netip.Addr, key string) bool {
	for h := a.on(addr); h != nil; h = h.beside {
		if h.sharing.Key == key {
			return true
		}
	}
	return false
}

// join adds addresses that the request can share to w, the lowest first, until w has enough. The cost is proportional to
// the number of addresses that are shared with the key, unless one of the ports is in use on all of them.
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

// MayJoin reports whether the owner could share an address if it agreed with the owners that hold it. The pool of the address
// must serve the owner, must not be closed, and must let the namespaces share. If the request names a pool, it must be this one.
// The address must be neither left nor skipped.
func (a *Allocator) MayJoin(req Request, addr netip.Addr) bool {
	h := a.on(addr)
	return h != nil && a.mayJoin(&req, h) && a.conflict(h, req.Owner, &req.Sharing).Over != DifferentNamespace
}

// mayJoin is MayJoin without the check of the owners that hold the address.
func (a *Allocator) mayJoin(req *Request, h *holding) bool {
	p := h.home
	return p != nil && !p.Closed && p.serves(req) && (req.Pool == "" || req.Pool == p.Name) && !slices.Contains(req.Leave, h.Address) && !a.skips(h.Address)
}

// Unshared explains why an owner with a sharing key holds addr alone. It returns another address that is shared with this
// key and that the pools would let the owner share, and the conflict that prevents this. The Conflict is zero if there is
// no such address.
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

// Equal reports whether s and o are the same terms.
func (s Sharing) Equal(o Sharing) bool { return s.equal(&o) }

// ParsePort is the inverse of [Port.String].
func ParsePort(text string) (Port, error) {
	protocol, number, ok := strings.Cut(text, "/")
	var p Port
	if n, err := fmt.Sscanf(number, "%d", &p.Number); !ok || n != 1 || err != nil || protocol == "" {
		return Port{}, fmt.Errorf("%q is not a port: write a protocol and a number from 1 to 65535, as TCP/80", text)
	}
	p.Protocol = protocol
	if p.String() != text {
		return Port{}, fmt.Errorf("%q is not a port: write a protocol and a number from 1 to 65535, as TCP/80", text)
	}
	return p, nil
}

// SortPorts sorts ports, so that equal sets are equal lists, and a port can be found by binary search.
func SortPorts(ports []Port) { slices.SortFunc(ports, comparePorts) }

func comparePorts(x, y Port) int {
	return cmp.Or(cmp.Compare(x.Protocol, y.Protocol), cmp.Compare(x.Number, y.Number))
}
