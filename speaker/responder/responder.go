// Package responder answers ARP and NDP requests for addresses that are on no interface of this
// machine, and sends unsolicited announcements of such addresses. It implements neither ARP nor
// NDP: a [Protocol] reads and writes the packets, see packages arp and ndp.
//
// The caller tells a [Responder] which interfaces exist and, for each address, on which of them
// and how to answer. The Responder keeps a socket on each interface that has addresses, with a
// filter that leaves all other frames in the kernel:
//
//	wire → filter (kernel) → Parse → address set? → Answer
//	Set  → entry → filter → announcements: a burst, then periodically
//
// An address is announced only after the filter accepts requests for it, so that hosts which
// receive the announcement get an answer. [Responder.Prepare] widens filters in advance, so that
// a takeover does not wait for this. Removal takes effect at once: when [Responder.Set] has
// returned, no frame that contradicts it is sent.
//
// A frame that claims one of our addresses for the MAC of a stranger is a conflict (RFC 5227
// §2.4). The Responder reports it and, if the [Answer] says so, defends the address. A stranger
// is neither this machine nor a sibling: see [Options].
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
	// DefaultRefresh repairs wrong entries of neighbours within a minute. For a thousand addresses
	// it costs 17 announcements per second.
	DefaultRefresh = time.Minute

	// DefaultRate lets 1,000 addresses that move at once be announced within 100 ms.
	DefaultRate = 10_000

	// repeatRate and refreshRate limit the announcements that are not urgent. With 1,000 addresses
	// on ARP, the repetitions are 2 Mbit/s of broadcast for half a second, which is below
	// the thresholds at which switches suppress a storm.
	repeatRate  = 2000
	refreshRate = 500
)

// DefaultBurst starts at once. The repetitions make up for frames that were lost, or that were
// sent before a switch forwarded on the port. RFC 5227 §1.1 has two announcements, two seconds apart.
var DefaultBurst = []time.Duration{0, 100 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second}

// Interface is what a Responder has to know about a network interface.
type Interface struct {
	Name  string
	Index int
	MAC   net.HardwareAddr // 6 bytes
	Up    bool
}

func (i Interface) equal(o Interface) bool {
	return i.Name == o.Name && i.Index == o.Index && i.Up == o.Up && bytes.Equal(i.MAC, o.MAC)
}

// Answer says how to answer requests for one address on one interface.
type Answer struct {
	// MAC is the hardware address in the answer; nil: that of the interface. Another MAC belongs to
	// a node whose speaker is silent, and for which this node is the deputy.
	MAC net.HardwareAddr
	// Announce says whether to send unsolicited announcements, in a burst and then periodically.
	// They are never sent with another node's MAC.
	Announce bool
	// Defend says whether to announce the address again on a conflict, at most once in 10 s (RFC
	// 5227 §2.4 (c)). Without Defend, a conflict is only reported.
	Defend bool
}

func (a Answer) equal(o Answer) bool {
	return a.Announce == o.Announce && a.Defend == o.Defend && bytes.Equal(a.MAC, o.MAC)
}

// Conflict is a claim to an address that this node answers for. The MAC that claims it belongs
// neither to this node nor to a sibling.
type Conflict struct {
	Interface string
	Address   netip.Addr
	MAC       net.HardwareAddr
}

// Options configure a Responder. A zero field stands for its default. The goroutines of the
// Responder call the functions without holding locks. The functions must not block.
type Options struct {
	// Burst has the times of the announcements, counted from a takeover or from the time when a
	// link came up, ascending.
	Burst []time.Duration
	// Refresh is the time between announcements after the burst; negative: there are none.
	Refresh time.Duration
	// Rate limits the announcements per second on all interfaces together. The first announcement
	// of each address goes before repetitions and refreshes, which have lower limits of their own.
	Rate float64
	// Silent is called before each frame. While it returns true, nothing is sent on the interface.
	// A process that was suspended finds old requests in its sockets, and must not answer them
	// before it knows which nodes own the addresses now.
	Silent func(iface string) bool
	// Sibling reports whether a MAC belongs to another speaker on the interface's segment. Siblings
	// cause no conflicts.
	Sibling func(iface string, mac net.HardwareAddr) bool
	// Conflict is called for conflicts, at most once per second for each address and MAC.
	Conflict func(Conflict)
}

// Responder answers requests and announces addresses. Its methods may be called from any goroutine, before,
// during and after Run. All but Run and Probe return without waiting for the network.
type Responder struct {
	log      *zap.Logger
	protocol Protocol
	options  Options
	wake     chan struct{} // capacity one: Run has something to do

	// mu guards the fields below. It is held while a frame is handed to the kernel, so that no frame
	// is sent that contradicts a Set which has returned. The write does not block, see packetConn.Write.
	mu    sync.Mutex
	links map[string]*link
	dirty map[*link]struct{} // links that Run has to look at
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

// SetInterfaces replaces the set of interfaces. All addresses of an interface that is new, is up
// again, or has another MAC are announced.
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

// Set says how to answer for addr on iface. If a is nil, the Responder does not answer. Other
// interfaces are not affected. If iface does not exist, the answers begin when it appears.
//
// When Set has returned, no frame that contradicts it will be sent. For a new address, answers and
// announcements begin as soon as the interface's filter accepts the address: at once if it was
// prepared, otherwise within milliseconds.
//
// Set ignores an address that the protocol does not support: one of the other family, or not unicast.
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

// Prepare replaces the set of addresses that this node may have to answer for on iface. From then
// on the filter accepts them and their multicast groups are joined, so that a takeover waits for
// neither.
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

// widen reports whether the socket of l accepts requests for addr already. If not, Run will widen its filter.
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

// Stats are the counts of one interface since it was first used, for metrics.
type Stats struct {
	Interface string
	// Serving means that the interface is up and its socket is open.
	Serving bool
	// Owned is the number of addresses that are set here.
	Owned int
	// Answered counts answers, and Announced counts unsolicited frames (two for each announcement
	// by ARP). Failed counts frames of both kinds that could not be sent.
	Answered, Announced, Failed uint64
	// Conflicts counts the frames that claimed one of our addresses for a stranger.
	Conflicts uint64
	// Dropped counts the frames that were not answered, without those that the filter left in the
	// kernel.
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

// Run answers and announces until ctx is done. It then returns nil, after all sockets have been
// closed and all goroutines have ended. Everything that was set stays set, and a later Run
// continues with it. Run must not be called again while it runs.
//
// Run's own goroutine opens and closes sockets, sets their filters and sends announcements. Each
// open socket has another goroutine, which reads and answers, and a third one, which joins
// multicast groups, if there are any.
func (r *Responder) Run(ctx context.Context) error {
	var readers sync.WaitGroup
	defer readers.Wait()
	defer r.closeAll(&readers)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		// Announcements that are due do not wait for the filters of other addresses.
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

// earliest returns the earlier of two times. The zero time means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
