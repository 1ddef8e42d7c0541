// Package arp answers ARP requests (RFC 826) for addresses that are on no interface of this
// machine, and announces them by gratuitous ARP when they come here.
//
// A [Responder] is told which interfaces there are and, address by address, on which of them to
// answer. It opens a socket on an interface that has addresses to answer for, with a filter
// that leaves every frame for anyone else in the kernel:
//
//	wire → filter (kernel) → parse → owned? → reply
//	Set  → owned → filter → announcements: a burst, then now and then
//
// Adding goes in that order, so that whoever believes an announcement gets an answer. Taking
// away is at once: when [Responder.Set] has returned, no frame for the address will be sent
// on an interface that was not named. Whoever moves an address from one machine to another can so
// break before it makes.
//
// Conflicts with strangers (RFC 5227 §2.4) are not looked for.
package arp

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

const (
	// DefaultRefresh is often enough for neighbours whose entry was wrong for whatever reason,
	// and a thousand addresses still make only 33 packets a second of it.
	DefaultRefresh = time.Minute

	// DefaultRate lets 1,000 addresses that move at once be announced within half a second; with two
	// packets of 64 bytes each that is 2 Mbit/s of broadcast, below what switches take for a storm.
	DefaultRate = 2000

	// paceBurst is how many announcements may go out back to back. A timer is a millisecond late
	// as a rule; it makes up for that, and no more.
	paceBurst = 8
)

// DefaultBurst has its first announcement at once, the others in case that one was lost, or came
// before a switch forwarded on the port. RFC 5227 §1.1 has two, two seconds apart.
var DefaultBurst = []time.Duration{0, 100 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second}

// Options say how addresses are announced. A zero field has its default.
type Options struct {
	// Burst are the times of the announcements after a take-over and after a link came up, counted
	// from there and ascending.
	Burst []time.Duration
	// Refresh is the time between two announcements after the burst; negative: none.
	Refresh time.Duration
	// Rate is the most announcements a second, over all interfaces. An announcement is two packets.
	Rate float64
	// Silent, if it is set, is asked before each frame: while it says true, nothing is sent. A process
	// that was frozen finds requests in its sockets, and would answer them before anybody could tell it
	// that the addresses are another's by now.
	Silent func() bool
}

// Responder answers and announces. Its methods may be called from any goroutine, before,
// during and after Run, and return without waiting for the network.
type Responder struct {
	log     *zap.Logger
	options Options
	listen  func(Interface, filter) (conn, error)
	wake    chan struct{} // capacity one: the loop has something to do

	// mu guards all below. It is held while a frame is handed to the kernel: that is what makes
	// Set mean what it says. The write does not wait, see socket.Write.
	mu     sync.Mutex
	links  map[string]*link
	claims map[netip.Addr][]*claim
	dirty  map[*link]struct{} // the loop has to look at them
	agenda agenda
	pace   *rate.Limiter
}

// New returns a Responder that has nothing to answer for.
func New(log *zap.Logger, options Options) *Responder {
	if len(options.Burst) == 0 {
		options.Burst = DefaultBurst
	}
	options.Refresh = cmp.Or(options.Refresh, DefaultRefresh)
	options.Rate = cmp.Or(options.Rate, DefaultRate)
	if options.Silent == nil {
		options.Silent = func() bool { return false }
	}
	return &Responder{
		log:     log,
		options: options,
		listen:  listen,
		wake:    make(chan struct{}, 1),
		links:   make(map[string]*link),
		claims:  make(map[netip.Addr][]*claim),
		dirty:   make(map[*link]struct{}),
		pace:    rate.NewLimiter(rate.Limit(options.Rate), paceBurst),
	}
}

// SetInterfaces tells which interfaces there are now, all of them. On one that is up and has
// addresses, new, up again, or with another MAC, all its addresses are announced.
func (r *Responder) SetInterfaces(interfaces []Interface) {
	r.mu.Lock()
	defer r.mu.Unlock()
	present := make(map[string]bool, len(interfaces))
	for _, i := range interfaces {
		present[i.Name] = true
		r.change(r.link(i.Name), i)
	}
	for name, l := range r.links {
		if !present[name] {
			r.change(l, Interface{})
		}
	}
}

func (r *Responder) change(l *link, to Interface) {
	if l.ifi.equal(to) {
		return
	}
	to.MAC = slices.Clone(to.MAC)
	l.ifi = to
	l.epoch++
	l.notBefore, l.backoff = time.Time{}, 0
	r.touch(l)
}

// Set tells on which interfaces addr is answered for; none: nowhere. It replaces what was set for
// addr before and costs in proportion to the interfaces named. An interface that does not exist
// is remembered: should it appear, addr is announced there.
//
// When Set has returned, no reply and no gratuitous ARP for addr will leave on other interfaces.
// On a new one, requests are answered and announcements go out as soon as the socket's
// filter has been widened, a matter of milliseconds.
//
// An addr that ARP cannot answer for, IPv6 or not unicast, is ignored.
func (r *Responder) Set(addr netip.Addr, interfaces []string) {
	if addr = addr.Unmap(); !addr.Is4() || !addr.IsGlobalUnicast() && !addr.IsLinkLocalUnicast() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	claims := r.claims[addr]
	for _, c := range claims {
		if !slices.Contains(interfaces, c.link.name) {
			r.release(c)
		}
	}
	claims = slices.DeleteFunc(claims, func(c *claim) bool { return c.link.claims[addr] != c })
	for _, name := range interfaces {
		if l := r.link(name); l.claims[addr] == nil {
			claims = append(claims, r.claim(addr, l))
		}
	}
	if len(claims) == 0 {
		delete(r.claims, addr)
	} else {
		r.claims[addr] = claims
	}
}

func (r *Responder) claim(addr netip.Addr, l *link) *claim {
	c := &claim{addr: addr, link: l, place: absent}
	l.claims[addr] = c
	l.fresh = append(l.fresh, c)
	r.touch(l)
	return c
}

func (r *Responder) release(c *claim) {
	delete(c.link.claims, c.addr)
	r.agenda.strike(c)
	r.touch(c.link)
}

func (r *Responder) link(name string) *link {
	l := r.links[name]
	if l == nil {
		l = &link{name: name, claims: make(map[netip.Addr]*claim), dropped: make(map[Drop]uint64)}
		r.links[name] = l
	}
	return l
}

// forget removes a link that neither exists nor is asked for. Nothing may lead to it any more: there
// can be another of that name soon.
func (r *Responder) forget(l *link) {
	if l.ifi.Index == 0 && len(l.claims) == 0 {
		delete(r.links, l.name)
		delete(r.dirty, l)
	}
}

func (r *Responder) touch(l *link) {
	r.dirty[l] = struct{}{}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Owned returns the addresses that are answered for at this moment, sorted, by interface. An
// address whose interface is missing or down is not among them. It costs in
// proportion to all of them.
func (r *Responder) Owned() map[string][]netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	owned := make(map[string][]netip.Addr)
	for name, l := range r.links {
		if !l.isServing() {
			continue
		}
		addrs := make([]netip.Addr, 0, len(l.claims))
		for a := range l.claims {
			addrs = append(addrs, a)
		}
		slices.SortFunc(addrs, netip.Addr.Compare)
		owned[name] = addrs
	}
	return owned
}

// Stats returns the counts of every interface that exists or was named by a Set, sorted by name.
func (r *Responder) Stats() []Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Stats, 0, len(r.links))
	for _, l := range r.links {
		all = append(all, l.stats())
	}
	slices.SortFunc(all, func(a, b Stats) int { return cmp.Compare(a.Interface, b.Interface) })
	return all
}
