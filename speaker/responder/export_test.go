package responder

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	MaxBackoff        = maxBackoff
	SilencePeriod     = silencePeriod
	DefendInterval    = defendInterval
	MaxFilteredGroups = maxFilteredGroups
	MaxStrangers      = maxStrangers
	MaxSpans          = maxSpans
)

// Owned returns the addresses for which the Responder answers now, sorted, by interface.
func (r *Responder) Owned() map[string][]netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	owned := make(map[string][]netip.Addr)
	for name, l := range r.links {
		if !l.isServing() || len(l.entries) == 0 {
			continue
		}
		for a := range l.entries {
			owned[name] = append(owned[name], a)
		}
		slices.SortFunc(owned[name], netip.Addr.Compare)
	}
	return owned
}

// Scheduled returns the number of entries in the schedules.
func (r *Responder) Scheduled() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.schedules {
		n += len(s.heap)
	}
	return n
}

// Remembered returns the number of links.
func (r *Responder) Remembered() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.links) + len(r.dirty)
}

// IsSettled reports whether all filters are up to date.
func (r *Responder) IsSettled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.links {
		if l.stale {
			return false
		}
	}
	return len(r.dirty) == 0
}

// Attend does what Run does between two waits, but announces nothing.
func (r *Responder) Attend(readers *sync.WaitGroup) { r.attend(readers) }

// CloseAll does what Run does at its end.
func (r *Responder) CloseAll(readers *sync.WaitGroup) { r.closeAll(readers) }

// Handle processes a frame as if it had been read on the interface.
func (r *Responder) Handle(iface string, frame []byte) Drop {
	r.mu.Lock()
	l := r.links[iface]
	s := l.socket
	r.mu.Unlock()
	return r.handle(l, s, frame)
}

// Attach gives the interface an open socket, without Run.
func (r *Responder) Attach(iface string, c Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.links[iface]
	l.socket = &socket{Conn: c, self: l.ifi.MAC, epoch: l.epoch, opened: time.Now(), accepted: l.wanted(), done: make(chan struct{})}
	l.stale = false
}

func Coalesced(numbers []uint32, limit int) (all [][2]uint32) {
	for _, s := range spans(numbers, limit) {
		all = append(all, [2]uint32{s.from, s.to})
	}
	return all
}

func MAC(last byte) net.HardwareAddr { return net.HardwareAddr{0x02, 0, 0x5e, 0, 0x53, last} }
