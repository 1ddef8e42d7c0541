package ipam

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// space is the addresses of one pool and one family, and finds the lowest free
// among them without a look at those that are taken.
//
// A cursor walks up the ranges past held addresses, each at most once. Behind it a
// bitmap tells which addresses have become free again. So a space of any size
// costs one bit for each address the cursor has passed, which were all held once.
type space struct {
	ranges   []numbered
	at       int        // the cursor: a place in ranges, and
	next     netip.Addr // the address there; all before it are held or in freed
	freed    bitmap     // by number
	capacity uint64     // saturated
	assigned uint64
}

// numbered is a range with the number of its first address, counted from the
// lowest address of the space. Behind the cursor no number saturates: every
// address counted has been held.
type numbered struct {
	netipx.IPRange
	first uint64
}

func newSpace(own []span, f Family) space {
	var s space
	for _, o := range own {
		if FamilyOf(o.From()) == f {
			s.ranges = append(s.ranges, numbered{o.IPRange, s.capacity})
			s.capacity = addSaturated(s.capacity, addSaturated(distance(o.From(), o.To()), 1))
		}
	}
	if len(s.ranges) > 0 {
		s.next = s.ranges[0].From()
	}
	return s
}

// free reports whether there is a free address.
func (s *space) free() bool { return s.assigned < s.capacity }

// lowest returns the lowest free address; there must be one. It takes nothing:
// asked again, it says the same until something is taken or released.
func (s *space) lowest(held map[netip.Addr]*holding) netip.Addr {
	if n, ok := s.freed.lowest(); ok {
		return s.address(n)
	}
	for held[s.next] != nil {
		if s.next != s.ranges[s.at].To() {
			s.next = s.next.Next()
		} else { // not the last range: there is a free address, and none is behind
			s.at++
			s.next = s.ranges[s.at].From()
		}
	}
	return s.next
}

// take notes that addr, which was free, is held.
func (s *space) take(addr netip.Addr) {
	s.assigned++
	if addr.Less(s.next) {
		s.freed.clear(s.number(addr))
	}
}

// release notes that addr, which was held, is free.
func (s *space) release(addr netip.Addr) {
	s.assigned--
	if addr.Less(s.next) { // else the cursor will come upon it
		s.freed.set(s.number(addr))
	}
}

// number returns the number of an address behind the cursor.
func (s *space) number(addr netip.Addr) uint64 {
	i, _ := slices.BinarySearchFunc(s.ranges, addr, func(r numbered, addr netip.Addr) int { return r.To().Compare(addr) })
	r := s.ranges[i]
	return r.first + distance(r.From(), addr)
}

// address returns the address of a number behind the cursor.
func (s *space) address(n uint64) netip.Addr {
	i, first := slices.BinarySearchFunc(s.ranges, n, func(r numbered, n uint64) int { return cmp.Compare(r.first, n) })
	if !first {
		i-- // in the middle of the range before
	}
	r := s.ranges[i]
	return advance(r.From(), n-r.first)
}

// halves returns addr as a number of 128 bits.
func halves(addr netip.Addr) (high, low uint64) {
	b := addr.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

// distance returns how far to is above from, up to the most a uint64 holds.
func distance(from, to netip.Addr) uint64 {
	fromHigh, fromLow := halves(from)
	toHigh, toLow := halves(to)
	low, borrow := bits.Sub64(toLow, fromLow, 0)
	if high, _ := bits.Sub64(toHigh, fromHigh, borrow); high > 0 {
		return math.MaxUint64
	}
	return low
}

// advance returns the n-th address above addr.
func advance(addr netip.Addr, n uint64) netip.Addr {
	high, low := halves(addr)
	low, carry := bits.Add64(low, n, 0)
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], high+carry)
	binary.BigEndian.PutUint64(b[8:], low)
	if addr.Is4() {
		return netip.AddrFrom16(b).Unmap()
	}
	return netip.AddrFrom16(b)
}

func addSaturated(x, y uint64) uint64 {
	sum, carry := bits.Add64(x, y, 0)
	if carry > 0 {
		return math.MaxUint64
	}
	return sum
}
