package speaker

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/heraldlb/herald/speaker/responder"
	"github.com/heraldlb/herald/speaker/segment"
)

type conflictKey struct {
	addr  netip.Addr
	iface string
}

// conflict is the use of an address by a stranger.
type conflict struct {
	mac net.HardwareAddr
	at  time.Time
}

// check probes for strangers that use new addresses.
func (s *segments) check(seg *segment.Segment, addrs []netip.Addr) {
	for _, addr := range addrs {
		s.work.Go(func() {
			if s.probes.Acquire(s.ctx, 1) != nil {
				return
			}
			defer s.probes.Release(1)
			mac, err := s.responder(addr).Probe(s.ctx, seg.Name(), addr)
			if err != nil && s.ctx.Err() == nil {
				s.log.Warn("failed to probe a new address for conflicts: it is used without a probe", zap.Stringer("address", addr), zap.Error(err))
			}
			if mac != nil {
				s.conflict(responder.Conflict{Interface: seg.Name(), Address: addr, MAC: mac})
			}
			seg.Do(func(m *segment.Machine, now segment.Time) { m.Checked(now, addr, mac != nil) })
		})
	}
}

// conflict records that a stranger uses an address, and tells the segment.
func (s *segments) conflict(c responder.Conflict) {
	key := conflictKey{c.Address, c.Interface}
	s.mu.Lock()
	_, known := s.conflicts[key]
	s.conflicts[key] = conflict{c.MAC, time.Now()}
	seg := s.running[c.Interface]
	s.mu.Unlock()
	if seg != nil {
		seg.Do(func(m *segment.Machine, now segment.Time) { m.Conflict(now, c.Address) })
	}
	if !known {
		s.log.Warn("a stranger uses an address", zap.Stringer("address", c.Address), zap.String("interface", c.Interface), zap.Stringer("mac", c.MAC))
	}
}

// sibling reports whether a MAC address belongs to another speaker: one that is heard on the segment, or one that has reported
// it in its SpeakerStatus.
func (s *segments) sibling(iface string, mac net.HardwareAddr) bool {
	s.mu.Lock()
	heard := slices.ContainsFunc(s.members[iface], func(m segment.Member) bool { return slices.Equal(m.MAC[:], mac) })
	s.mu.Unlock()
	return heard || s.keys.reports(mac)
}
