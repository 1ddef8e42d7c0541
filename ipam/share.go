package ipam

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Sharing says on which terms an owner shares an address with others. The zero Sharing shares with nobody.
//
// Owners may be on one address if they have the same key, no port in common and the same Traffic. Those of
// different namespaces may only where the pool says so.
type Sharing struct {
	Key   string
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

// discord is why two owners cannot be on one address. It has words only for users: whoever looks for an address to
// share comes past many that it cannot.
type discord struct {
	over     matter
	there    Owner // who is there already
	terms, s *Sharing
	port     Port
}

// matter is what two owners do not agree on.
type matter int

const (
	nothing matter = iota
	being          // an address that is not shared
	key
	namespace
	traffic
	port
)

func (d discord) String() string {
	switch who := d.there.String(); {
	case d.over == nothing:
		return ""
	case d.there.nobody():
		return "reserved"
	case d.over == being && d.there.UID == "":
		return "reserved for " + who
	case d.over == being:
		return "held by " + who
	case d.over == key:
		return fmt.Sprintf("shared by %s with the sharing key %q", who, d.terms.Key)
	case d.over == namespace:
		return fmt.Sprintf("shared by %s, and the pool does not let namespaces share (shareAcrossNamespaces)", who)
	case d.over == traffic:
		return fmt.Sprintf("shared by %s, which takes traffic otherwise (%s; this one: %s)", who, d.terms.Traffic, d.s.Traffic)
	default:
		return fmt.Sprintf("shared by %s, which has port %s, too", who, d.port)
	}
}

// apart says why an owner with these terms cannot be on the address of first beside those who are on it, if it
// cannot. An owner is not in its own way.
func (a *Allocator) apart(first *holding, o Owner, s *Sharing) discord {
	for h := first; h != nil; h = h.beside {
		if d := disagree(h.home, h.Owner, &h.sharing, o, s); d.over != nothing {
			return d
		}
	}
	return discord{}
}

// Agree fails with ErrTaken if the tenant cannot be on addr beside others, as a record names them.
func (a *Allocator) Agree(addr netip.Addr, others []Tenant, t Tenant) error {
	for i := range others {
		if d := disagree(a.find(addr), others[i].Owner, &others[i].Sharing, t.Owner, &t.Sharing); d.over != nothing {
			return &Error{Reason: ErrTaken, Family: FamilyOf(addr), Address: addr, Holder: others[i].Owner, message: fmt.Sprintf("%s is %s", addr, d)}
		}
	}
	return nil
}

// disagree says why o cannot be on an address of the pool beside one who is there.
func disagree(home *pool, there Owner, terms *Sharing, o Owner, s *Sharing) discord {
	d := discord{there: there, terms: terms, s: s}
	switch {
	case there.is(o) || there.reserves(o):
	case there.nobody() || terms.Key == "":
		d.over = being
	case s.Key != terms.Key:
		d.over = key
	case there.Namespace != o.Namespace && (home == nil || !home.ShareAcrossNamespaces):
		d.over = namespace
	case s.Traffic != terms.Traffic:
		d.over = traffic
	default:
		for _, p := range s.Ports {
			if slices.Contains(terms.Ports, p) {
				d.over, d.port = port, p
				break
			}
		}
	}
	return d
}

// group is the addresses that are shared with one key, lowest first.
type group struct{ addrs []netip.Addr }

func (g *group) add(addr netip.Addr) {
	if i, found := slices.BinarySearchFunc(g.addrs, addr, netip.Addr.Compare); !found {
		g.addrs = slices.Insert(g.addrs, i, addr)
	}
}

func (g *group) remove(addr netip.Addr) {
	if i, found := slices.BinarySearchFunc(g.addrs, addr, netip.Addr.Compare); found {
		g.addrs = slices.Delete(g.addrs, i, i+1)
	}
}

// regroup notes that the terms of h are to be these.
func (a *Allocator) regroup(h *holding, s Sharing) {
	before := h.sharing.Key
	h.sharing = s
	if before != "" && before != s.Key && !a.grouped(h.Address, before) {
		if g := a.groups[before]; g != nil {
			if g.remove(h.Address); len(g.addrs) == 0 {
				delete(a.groups, before)
			}
		}
	}
	if s.Key != "" {
		g := a.groups[s.Key]
		if g == nil {
			g = &group{}
			a.groups[s.Key] = g
		}
		g.add(h.Address)
	}
}

// grouped reports whether anybody on the address shares it with this key.
func (a *Allocator) grouped(addr netip.Addr, key string) bool {
	for h := a.held[addr]; h != nil; h = h.beside {
		if h.sharing.Key == key {
			return true
		}
	}
	return false
}

// join returns an address of family f that the request may share, the lowest of them. It costs in proportion
// to the addresses that are shared with the key.
func (a *Allocator) join(req *Request, f Family) (Allocation, bool) {
	g := a.groups[req.Sharing.Key]
	if req.Sharing.Key == "" || g == nil {
		return Allocation{}, false
	}
	for _, addr := range g.addrs {
		h := a.held[addr]
		if p := h.home; FamilyOf(addr) == f && p != nil && !p.Closed && p.serves(req) && (req.Pool == "" || req.Pool == p.Name) &&
			!slices.Contains(req.Leave, addr) && a.apart(h, req.Owner, &req.Sharing).over == nothing && a.over(p, req, f, addr) == nil {
			return Allocation{Address: addr, Pool: h.Pool, Owner: req.Owner}, true
		}
	}
	return Allocation{}, false
}

// Unshared says of an address that the owner holds alone though it names a sharing key, why it is not one of those
// that others share with this key; empty if there is none.
func (a *Allocator) Unshared(req Request, addr netip.Addr) string {
	g := a.groups[req.Sharing.Key]
	if req.Sharing.Key == "" || g == nil || len(a.Holders(addr)) != 1 {
		return ""
	}
	for _, other := range g.addrs {
		if other == addr || FamilyOf(other) != FamilyOf(addr) {
			continue
		}
		if why := a.apart(a.held[other], req.Owner, &req.Sharing); why.over != nothing {
			return fmt.Sprintf("%s is %s", other, why)
		}
	}
	return ""
}

// Terms returns on which terms the owner holds addr.
func (a *Allocator) Terms(addr netip.Addr, o Owner) Sharing {
	if h := a.holding(addr, o); h != nil {
		return h.sharing
	}
	return Sharing{}
}

// Equal reports whether terms are the same.
func (s Sharing) Equal(o Sharing) bool { return s.equal(&o) }

// ParsePort is the inverse of [Port.String].
func ParsePort(text string) (Port, error) {
	protocol, number, ok := strings.Cut(text, "/")
	var p Port
	if n, err := fmt.Sscanf(number, "%d", &p.Number); !ok || n != 1 || err != nil || protocol == "" {
		return Port{}, fmt.Errorf("%q is no port: write TCP/80", text)
	}
	p.Protocol = protocol
	if p.String() != text {
		return Port{}, fmt.Errorf("%q is no port: write TCP/80", text)
	}
	return p, nil
}

// SortPorts orders ports, so that equal sets are equal lists.
func SortPorts(ports []Port) {
	slices.SortFunc(ports, func(x, y Port) int {
		return cmp.Or(cmp.Compare(x.Protocol, y.Protocol), cmp.Compare(x.Number, y.Number))
	})
}
