package responder

import (
	"bytes"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/net/bpf"
)

const (
	// filterSpacing is the least time between two filters of a link. The first change after a
	// quiet time gets its filter at once. The following changes share the next filter.
	filterSpacing = 10 * time.Millisecond

	// A socket that fails or cannot be opened is opened again after minBackoff, which doubles up to
	// maxBackoff, or at once when SetInterfaces reports a change of the interface.
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second

	// defendInterval is DEFEND_INTERVAL of RFC 5227 §1.1.
	defendInterval = 10 * time.Second

	// reportInterval is the least time between two reports of the same address and MAC.
	reportInterval = time.Second

	// maxStrangers bounds the cost of forged claims. It is how many MACs are reported per address and
	// reportInterval.
	maxStrangers = 16
)

// A link is an interface, present or only named by a Set or Prepare. The Responder's lock guards
// it.
type link struct {
	name string
	ifi  Interface // zero while there is no such interface
	// epoch counts the changes of ifi. A link may be down for a shorter time than Run needs to
	// notice, but its epoch changes, and it gets its burst.
	epoch int

	entries  map[netip.Addr]*entry
	prepared map[netip.Addr]struct{}
	probes   []*probe
	stale    bool // the filter does not match the three fields above
	used     bool // it has or had addresses

	socket    *socket   // nil while closed
	notBefore time.Time // when the next filter may be built or the next socket opened
	backoff   time.Duration

	answered, announced, failed, conflicts uint64
	dropped                                map[Drop]uint64
}

// socket is a link's open socket, with the state of the interface when the socket was opened.
type socket struct {
	Conn
	self   net.HardwareAddr
	epoch  int
	opened time.Time
	err    error // why the socket has to be closed

	// accepted are the addresses that the filter was built for.
	accepted map[netip.Addr]struct{}
	// groups passes the wanted groups to the goroutine that joins them; nil if there is none.
	// Only Run's goroutine uses filter, groups and done.
	filter []bpf.Instruction
	groups chan []netip.Addr
	done   chan struct{} // closed when the socket is closed
}

func (s *socket) accepts(addr netip.Addr) bool {
	_, ok := s.accepted[addr]
	return ok
}

// An entry is one address on one link. The Responder's lock guards it.
type entry struct {
	addr   netip.Addr
	link   *link
	answer Answer

	step  int       // how many announcements were made since the takeover or link-up
	due   time.Time // when the next announcement is due
	class class     // the schedule of the entry
	place int       // index in that schedule, or unscheduled

	defended  time.Time // when it was last announced because of a conflict
	strangers map[[6]byte]time.Time
}

// mac returns the MAC for answers. The socket must be open.
func (e *entry) mac() net.HardwareAddr {
	if e.answer.MAC != nil {
		return e.answer.MAC
	}
	return e.link.socket.self
}

// isOurs reports whether the answers for e have our own MAC.
func (e *entry) isOurs() bool {
	return e.answer.MAC == nil || bytes.Equal(e.answer.MAC, e.link.ifi.MAC)
}

// isAnnounced reports whether e is announced unsolicited.
func (e *entry) isAnnounced() bool { return e.answer.Announce && e.isOurs() }

// report records a claim of mac to e, and returns whether the claim is due to be reported.
func (e *entry) report(mac net.HardwareAddr, now time.Time) bool {
	maps.DeleteFunc(e.strangers, func(_ [6]byte, at time.Time) bool { return now.Sub(at) >= reportInterval })
	key := [6]byte(mac)
	if _, recent := e.strangers[key]; recent || len(e.strangers) >= maxStrangers {
		return false
	}
	if e.strangers == nil {
		e.strangers = make(map[[6]byte]time.Time)
	}
	e.strangers[key] = now
	return true
}

// retreat delays the next socket after a failure.
func (l *link) retreat() {
	l.backoff = min(max(2*l.backoff, minBackoff), maxBackoff)
	l.notBefore = time.Now().Add(l.backoff)
}

// isServing reports whether requests are answered.
func (l *link) isServing() bool { return l.socket != nil && l.socket.err == nil }

func (l *link) isUsed() bool { return len(l.entries) > 0 || len(l.prepared) > 0 || len(l.probes) > 0 }

// wants reports whether the filter has to accept addr.
func (l *link) wants(addr netip.Addr) bool {
	if _, prepared := l.prepared[addr]; prepared || l.entries[addr] != nil {
		return true
	}
	return l.isProbed(addr)
}

func (l *link) isProbed(addr netip.Addr) bool {
	return slices.ContainsFunc(l.probes, func(p *probe) bool { return p.addr == addr })
}

// wanted returns all addresses that the filter has to accept.
func (l *link) wanted() map[netip.Addr]struct{} {
	all := make(map[netip.Addr]struct{}, len(l.entries)+len(l.prepared)+len(l.probes))
	maps.Copy(all, l.prepared)
	for a := range l.entries {
		all[a] = struct{}{}
	}
	for _, p := range l.probes {
		all[p.addr] = struct{}{}
	}
	return all
}

func (l *link) stats() Stats {
	return Stats{
		Interface: l.name, Serving: l.isServing(), Owned: len(l.entries),
		Answered: l.answered, Announced: l.announced, Failed: l.failed, Conflicts: l.conflicts, Dropped: maps.Clone(l.dropped),
	}
}
