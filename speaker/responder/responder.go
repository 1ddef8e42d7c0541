// Package responder answers the requests by which neighbours resolve addresses that are on no
// interface of this machine, and announces such addresses unsolicited. It knows neither ARP nor
// NDP: a [Protocol] reads and writes the packets, see packages arp and ndp.
//
// A [Responder] is told which interfaces exist and, for each address, on which of them and how
// it is answered. It keeps a socket on each interface that has addresses, with a filter that
// leaves all other frames in the kernel:
//
//	wire → filter (kernel) → Parse → address set? → Answer
//	Set  → entry → filter → announcements: a burst, then periodically
//
// An address is announced after the filter accepts requests for it, so that whoever believes the
// announcement gets an answer. [Responder.Prepare] widens filters in advance, so that a takeover
// does not wait for that. Removal takes effect at once: when [Responder.Set] has returned, no
// frame that contradicts it is sent.
//
// A frame that claims one of our addresses for a MAC of a stranger is a conflict (RFC 5227 §2.4):
// it is reported, and on request the address is defended.
package responder

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

const (
	// DefaultRefresh repairs wrong entries of neighbours within a minute; a thousand addresses
	// cost 17 announcements per second.
	DefaultRefresh = time.Minute

	// DefaultRate announces 1,000 addresses that move at once within 100 ms.
	DefaultRate = 10_000

	// repeatRate and refreshRate limit the announcements that are not urgent. With 1,000 addresses
	// on ARP, the repetitions are 2 Mbit/s of broadcast for half a second, which is below
	// the thresholds at which switches suppress a storm.
	repeatRate  = 2000
	refreshRate = 500
)

// DefaultBurst starts at once. The repetitions are for frames that were lost, or that were sent
// before a switch forwarded on the port. RFC 5227 §1.1 has two announcements, two seconds apart.
var DefaultBurst = []time.Duration{0, 100 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second}

// Interface is what a Responder has to know of a network interface.
type Interface struct {
	Name  string
	Index int
	MAC   net.HardwareAddr // 6 bytes
	Up    bool
}

func (i Interface) equal(o Interface) bool {
	return i.Name == o.Name && i.Index == o.Index && i.Up == o.Up && bytes.Equal(i.MAC, o.MAC)
}

// Answer says how requests for one address are answered on one interface.
type Answer struct {
	// MAC is the hardware address to tell; nil: the interface's own. Another MAC is that of a node
	// whose speaker is silent, for which this node is the deputy.
	MAC net.HardwareAddr
	// Announce: announce the address unsolicited, in a burst and then periodically. This is never
	// done with a foreign MAC.
	Announce bool
	// Defend: on a conflict announce the address again, at most once in 10 s (RFC 5227 §2.4 (c)).
	// Without it a conflict is only reported.
	Defend bool
}

func (a Answer) equal(o Answer) bool {
	return a.Announce == o.Announce && a.Defend == o.Defend && bytes.Equal(a.MAC, o.MAC)
}

// Conflict is a claim of an address that we answer for, by a MAC that is neither ours nor a
// sibling's.
type Conflict struct {
	Interface string
	Address   netip.Addr
	MAC       net.HardwareAddr
}

// Options configure a Responder. A zero field has its default. The functions are called
// without locks held, from goroutines of the Responder, and must not block.
type Options struct {
	// Burst has the times of the announcements after a takeover and after a link came up, counted
	// from there, ascending.
	Burst []time.Duration
	// Refresh is the time between announcements after the burst; negative: none.
	Refresh time.Duration
	// Rate limits the announcements per second, over all interfaces. The first announcement of each
	// address goes before repetitions and refreshes, which have lower limits of their own.
	Rate float64
	// Silent is asked before each frame: while it returns true, nothing is sent on the interface. A
	// process that was suspended finds old requests in its sockets, and must not answer them
	// before it knows who owns the addresses now.
	Silent func(iface string) bool
	// Sibling tells whether a MAC is that of another speaker on the interface's segment. Siblings
	// cause no conflicts.
	Sibling func(iface string, mac net.HardwareAddr) bool
	// Conflict is called for conflicts, at most once per second for each address and MAC.
	Conflict func(Conflict)
}

// Responder answers and announces. Its methods may be called from any goroutine, before,
// during and after Run. All but Run and Probe return without waiting for the network.
type Responder struct {
	log      *zap.Logger
	protocol Protocol
	options  Options
	wake     chan struct{} // capacity one: Run has something to do

	// mu guards all below. It is held while a frame is handed to the kernel, so that no frame is
	// sent that contradicts a Set which has returned. The write does not block, see packetConn.Write.
	mu    sync.Mutex
	links map[string]*link
	dirty map[*link]struct{} // Run has to look at them
	// schedules hold the entries to be announced, by urgency.
	schedules [3]schedule
	pace      *rate.Limiter // of all schedules together
}

// New returns a Responder without interfaces or addresses.
func New(log *zap.Logger, p Protocol, o Options) *Responder {
	if len(o.Burst) == 0 {
		o.Burst = DefaultBurst
	}
	o.Refresh = cmp.Or(o.Refresh, DefaultRefresh)
	o.Rate = cmp.Or(o.Rate, DefaultRate)
	if o.Silent == nil {
		o.Silent = func(string) bool { return false }
	}
	if o.Sibling == nil {
		o.Sibling = func(string, net.HardwareAddr) bool { return false }
	}
	if o.Conflict == nil {
		o.Conflict = func(Conflict) {}
	}
	r := &Responder{
		log: log.With(zap.String("protocol", p.Name())), protocol: p, options: o,
		wake:  make(chan struct{}, 1),
		links: make(map[string]*link),
		dirty: make(map[*link]struct{}),
		pace:  newPace(o.Rate),
	}
	for class, limit := range [...]float64{first: o.Rate, repeat: repeatRate, refresh: refreshRate} {
		r.schedules[class].pace = newPace(min(limit, o.Rate))
	}
	return r
}

// SetInterfaces replaces the set of interfaces. On one that is new, up again, or has another MAC,
// all its addresses are announced.
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

// Set tells how addr is answered on iface; nil: not at all. Other interfaces are not affected. An
// interface that does not exist is remembered: when it appears, addr is answered there.
//
// When Set has returned, no frame that contradicts it will be sent. Requests for a new address are
// answered, and its announcements begin, as soon as the interface's filter accepts it: at once if it
// was prepared, otherwise within milliseconds.
//
// An address that the protocol cannot answer for, of the other family or not unicast, is ignored.
func (r *Responder) Set(addr netip.Addr, iface string, a *Answer) {
	addr = addr.Unmap().WithZone("")
	if !r.protocol.Supports(addr) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if a == nil {
		if l := r.links[iface]; l != nil && l.entries[addr] != nil {
			r.unschedule(l.entries[addr])
			delete(l.entries, addr)
			r.narrow(l, addr)
		}
		return
	}
	l := r.link(iface)
	l.used = true
	answer := *a
	answer.MAC = slices.Clone(a.MAC)
	e := l.entries[addr]
	switch {
	case e == nil:
		e = &entry{addr: addr, link: l, answer: answer, place: unscheduled}
		l.entries[addr] = e
	case e.answer.equal(answer):
		return
	default:
		wasAnnounced := e.isAnnounced()
		e.answer = answer
		if wasAnnounced && e.isAnnounced() {
			return
		}
	}
	switch {
	case !e.isAnnounced():
		r.unschedule(e)
		r.widen(l, addr)
	case r.widen(l, addr):
		r.begin(e, time.Now())
		r.signal()
	}
	// Otherwise the announcements begin when Run has widened the filter.
}

// Prepare replaces the set of addresses that this node may have to answer for on iface. The
// filter accepts them and their multicast groups are joined from then on, so that a takeover does
// not wait for either.
func (r *Responder) Prepare(iface string, addrs []netip.Addr) {
	prepared := make(map[netip.Addr]struct{}, len(addrs))
	for _, a := range addrs {
		if a = a.Unmap().WithZone(""); r.protocol.Supports(a) {
			prepared[a] = struct{}{}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.links[iface]
	switch {
	case l == nil && len(prepared) == 0 || l != nil && maps.Equal(l.prepared, prepared):
		return
	case l == nil:
		l = r.link(iface)
	}
	l.used = l.used || len(prepared) > 0
	l.prepared = prepared
	l.stale = true
	r.touch(l)
}

// widen reports whether the socket of l accepts requests for addr already. If not, Run sees to it.
func (r *Responder) widen(l *link, addr netip.Addr) bool {
	if l.isServing() && l.socket.accepts(addr) && l.socket.epoch == l.epoch {
		return true
	}
	l.stale = true
	r.touch(l)
	return false
}

// narrow lets Run make the filter of l smaller if addr has no other use there.
func (r *Responder) narrow(l *link, addr netip.Addr) {
	if !l.wants(addr) {
		l.stale = true
		r.touch(l)
	}
}

func (r *Responder) link(name string) *link {
	l := r.links[name]
	if l == nil {
		l = &link{name: name, entries: make(map[netip.Addr]*entry), dropped: make(map[Drop]uint64)}
		r.links[name] = l
	}
	return l
}

// forget removes a link that neither exists nor has any use.
func (r *Responder) forget(l *link) {
	if l.ifi.Index == 0 && !l.isUsed() {
		delete(r.links, l.name)
		delete(r.dirty, l)
	}
}

func (r *Responder) touch(l *link) {
	r.dirty[l] = struct{}{}
	r.signal()
}

func (r *Responder) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Stats are the counts of one interface since it was first used. They are for metrics.
type Stats struct {
	Interface string
	// Serving: the interface is up and its socket is open.
	Serving bool
	// Owned is the number of addresses that are set here.
	Owned int
	// Answered counts answers, Announced unsolicited frames (two for each announcement by ARP),
	// Failed frames of both kinds that could not be sent.
	Answered, Announced, Failed uint64
	// Conflicts counts the frames that claimed one of our addresses for a stranger.
	Conflicts uint64
	// Dropped counts the frames that were not answered. Those that the filter left in the kernel
	// are not among them.
	Dropped map[Drop]uint64
}

// Stats returns the counts of the interfaces that have or had addresses, sorted by name.
func (r *Responder) Stats() []Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Stats
	for _, l := range r.links {
		if l.used {
			all = append(all, l.stats())
		}
	}
	slices.SortFunc(all, func(a, b Stats) int { return cmp.Compare(a.Interface, b.Interface) })
	return all
}

// Run answers and announces until ctx is done. It returns nil, with all sockets closed and all
// goroutines ended. What was set stays set, and a later Run continues with it; two must not run
// at once.
//
// Run's own goroutine opens and closes sockets, sets their filters and sends announcements. Each
// open socket has one more, which reads and answers, and one that joins multicast groups if there are
// any.
func (r *Responder) Run(ctx context.Context) error {
	var readers sync.WaitGroup
	defer readers.Wait()
	defer r.closeAll(&readers)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		// What can be announced already does not wait for filters of others.
		r.announce()
		again := r.attend(&readers)
		if again = earliest(again, r.announce()); again.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(again))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-timer.C:
		}
	}
}

// earliest treats the zero time as never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
