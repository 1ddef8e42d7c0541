package arp

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/net/bpf"
)

// Interface is what has to be known of a network interface to answer on it.
type Interface struct {
	Name  string
	Index int
	MAC   net.HardwareAddr // 6 bytes
	Up    bool
}

func (i Interface) equal(o Interface) bool {
	return i.Name == o.Name && i.Index == o.Index && i.Up == o.Up && slices.Equal(i.MAC, o.MAC)
}

// A link is an interface, present or only named by a Set, with the addresses claimed on it. The
// Responder's lock guards it.
type link struct {
	name string

	ifi Interface // zero while there is no such interface
	// epoch counts the changes of ifi, so that even a link that was down for less time than it
	// takes to notice gets its burst.
	epoch int

	claims map[netip.Addr]*claim
	fresh  []*claim // new since the filter was built, to be announced once it lets requests in

	station   *station  // nil while closed
	notBefore time.Time // when the next filter may be built or the next socket opened
	backoff   time.Duration

	answered, announced, failed uint64
	dropped                     map[Drop]uint64
}

// A station is a link's open socket, with what was true of the interface when it was opened.
type station struct {
	conn
	self   net.HardwareAddr
	epoch  int
	opened time.Time
	filter []bpf.Instruction // only the loop's
	err    error             // why it has to be closed
}

// retreat puts off the next socket after a failure.
func (l *link) retreat() {
	l.backoff = min(max(2*l.backoff, minBackoff), maxBackoff)
	l.notBefore = time.Now().Add(l.backoff)
}

// isServing says whether requests are answered.
func (l *link) isServing() bool { return l.station != nil && l.station.err == nil }

// announce sends both forms of gratuitous ARP, the request first: some hosts take a reply
// that nobody asked for as an attack, and are up to date by then. Claims are on the agenda only
// while the station is open.
func (l *link) announce(addr netip.Addr) {
	frames, err := announcements(l.station.self, addr)
	if err != nil {
		l.failed++
		return
	}
	for _, f := range frames {
		if err := l.station.Write(f); err != nil {
			l.failed++
		} else {
			l.announced++
		}
	}
}

// receive answers a frame or says why not. It is called by the station's reader only.
func (l *link) receive(s *station, q question, drop Drop) Drop {
	if drop == "" && (l.station != s || l.claims[q.target] == nil) {
		drop = DropNotOwned
	}
	if drop != "" {
		l.dropped[drop]++
		return drop
	}
	f, err := answer(s.self, q)
	if err == nil {
		err = s.Write(f)
	}
	if err != nil {
		l.failed++
	} else {
		l.answered++
	}
	return ""
}

// Stats are the counts of one interface, since it was first named. They are for metrics.
type Stats struct {
	Interface string
	// Serving: the interface is up, has addresses, and its socket is open.
	Serving bool
	// Owned is the number of addresses that should be answered for here.
	Owned int
	// Answered counts replies, Announced gratuitous packets (two for each announcement), Failed
	// both kinds that the kernel did not take.
	Answered, Announced, Failed uint64
	// Dropped counts the frames that were not answered. Those that the socket's filter left in
	// the kernel are not among them.
	Dropped map[Drop]uint64
}

func (l *link) stats() Stats {
	return Stats{
		Interface: l.name, Serving: l.isServing(), Owned: len(l.claims),
		Answered: l.answered, Announced: l.announced, Failed: l.failed, Dropped: maps.Clone(l.dropped),
	}
}
