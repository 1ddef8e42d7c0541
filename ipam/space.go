package ipam

import (
	"cmp"
	"container/list"
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// mostRested is the most released addresses that wait in the queue. When there are more, the queue is used before
// addresses that were never held. Without this limit, a large pool would remember every address that it ever assigned.
const mostRested = 1 << 16

// Order says which free address of a pool is assigned next.
type Order int

const (
	// LeastRecentlyUsed assigns addresses that were never held first, from the lowest up, and then those that have been
	// free for the longest time. An address that was just released is assigned again only after all others of its pool,
	// or after 65,536 of them.
	LeastRecentlyUsed Order = iota
	// Lowest assigns the lowest free address.
	Lowest
)

// space has the addresses of one pool and one family. It finds the next address to assign without visiting those that
// are taken.
//
// A cursor walks up the ranges past held and skipped addresses, and visits each at most once. Addresses behind the
// cursor that become free again are kept in a bitmap if the order is Lowest, and in a queue if the order is
// LeastRecentlyUsed. The memory of a space therefore depends only on the addresses that were held once, not on its
// size.
type space struct {
	order    Order
	ranges   []numbered
	at       int        // the position of the cursor: an index into ranges, and
	next     netip.Addr // the address within that range
	capacity uint64     // saturated
	assigned uint64
	skipped  uint64 // how many free addresses are skipped

	// With Lowest: the numbers of the free addresses below next. All other addresses below next are held or skipped.
	freed bitmap
	// With LeastRecentlyUsed: the addresses that were released and are not held since, the earliest release first. The
	// cursor skips these as well. It walks in a circle that ends at last.
	rested list.List
	last   netip.Addr
	spent  bool
}

// rest is an address that was released and has not been held since.
type rest struct {
	addr    netip.Addr
	release uint64 // the sequence number of the release
}

// numbered is a range and the number of its first address. Addresses are numbered from the lowest address of the space.
// Numbers behind the cursor never saturate, because every address there has been held or skipped.
type numbered struct {
	netipx.IPRange
	first uint64
}

func newSpace(own []span, f Family, order Order) space {
	s := space{order: order}
	for _, o := range own {
		if FamilyOf(o.From()) == f {
			s.ranges = append(s.ranges, numbered{o.IPRange, s.capacity})
			s.capacity = addSaturated(s.capacity, addSaturated(distance(o.From(), o.To()), 1))
		}
	}
	if n := len(s.ranges); n > 0 {
		s.next, s.last = s.ranges[0].From(), s.ranges[n-1].To()
	}
	return s
}

// pick returns the free address to assign next. It passes over the addresses in leave, and there must be another free
// address. pick takes nothing: until an address is taken or released, it returns the same result.
func (s *space) pick(a *Allocator, leave []netip.Addr) netip.Addr {
	if s.order == Lowest {
		return s.lowest(a, leave)
	}
	for !s.spent && s.rested.Len() < mostRested {
		switch {
		case a.known[s.next] != known{}, a.skips(s.next):
		case !slices.Contains(leave, s.next):
			return s.next
		default: // The cursor does not return to this address. Queue it as if it had been released just now.
			s.rest(a, s.next)
		}
		if s.spent = s.next == s.last; !s.spent {
			s.step()
		}
	}
	e := s.rested.Front()
	for slices.Contains(leave, e.Value.(*rest).addr) {
		e = e.Next()
	}
	return e.Value.(*rest).addr
}

// lowest implements pick for the order Lowest.
func (s *space) lowest(a *Allocator, leave []netip.Addr) netip.Addr {
	var left []uint64 // free addresses that were passed over
	defer func() {
		for _, n := range left {
			s.freed.set(n)
		}
	}()
	for n, ok := s.freed.lowest(); ok; n, ok = s.freed.lowest() {
		addr := s.address(n)
		if !slices.Contains(leave, addr) {
			return addr
		}
		s.freed.clear(n)
		left = append(left, n)
	}
	for ; ; s.step() { // The loop ends: there is a free address, and it is not behind the cursor.
		if a.on(s.next) == nil && !a.skips(s.next) {
			if !slices.Contains(leave, s.next) {
				return s.next
			}
			left = append(left, s.number(s.next))
		}
	}
}

// step moves the cursor to the next address, and from the highest address to the lowest.
func (s *space) step() {
	if s.next != s.ranges[s.at].To() {
		s.next = s.next.Next()
		return
	}
	s.at = (s.at + 1) % len(s.ranges)
	s.next = s.ranges[s.at].From()
}

// resume makes the cursor start its circle after addr, which must be in the space.
func (s *space) resume(addr netip.Addr) {
	if s.order == LeastRecentlyUsed {
		s.at, s.next = s.place(addr), addr
		s.step()
		s.begin(s.next)
	}
}

// begin makes the cursor start its circle at addr, which must be in the space.
func (s *space) begin(addr netip.Addr) {
	if s.order != LeastRecentlyUsed {
		return
	}
	s.at, s.next, s.spent = s.place(addr), addr, false
	if addr != s.ranges[s.at].From() {
		s.last = addr.Prev()
	} else {
		s.last = s.ranges[(s.at+len(s.ranges)-1)%len(s.ranges)].To()
	}
}

// free counts the addresses that can be assigned.
func (s *space) free() uint64 { return s.capacity - s.assigned - s.skipped }

// take records that addr, which was free, is held.
func (s *space) take(a *Allocator, addr netip.Addr) {
	s.assigned++
	if a.skips(addr) {
		s.skipped--
		return
	}
	s.unqueue(a, addr)
}

// release records that addr, which was held, is free.
func (s *space) release(a *Allocator, addr netip.Addr) {
	s.assigned--
	if a.skips(addr) {
		s.skipped++
		return
	}
	s.queue(a, addr)
}

// queue makes sure that addr is found even if the cursor has passed it.
func (s *space) queue(a *Allocator, addr netip.Addr) {
	if s.order == LeastRecentlyUsed {
		s.rest(a, addr)
	} else if addr.Less(s.next) { // else the cursor will reach it
		s.freed.set(s.number(addr))
	}
}

// unqueue makes sure that addr is no longer found.
func (s *space) unqueue(a *Allocator, addr netip.Addr) {
	if s.order == Lowest {
		if addr.Less(s.next) {
			s.freed.clear(s.number(addr))
		}
	} else if e := a.known[addr].rests; e != nil {
		s.rested.Remove(e)
		delete(a.known, addr)
	}
}

// rest puts a free address at the end of the queue.
func (s *space) rest(a *Allocator, addr netip.Addr) {
	a.releases++
	a.known[addr] = known{rests: s.rested.PushBack(&rest{addr, a.releases})}
}

// place returns the index of the range that has addr, which must be in the space.
func (s *space) place(addr netip.Addr) int {
	i, _ := slices.BinarySearchFunc(s.ranges, addr, func(r numbered, addr netip.Addr) int { return r.To().Compare(addr) })
	return i
}

// number returns the number of addr, which must be behind the cursor.
func (s *space) number(addr netip.Addr) uint64 {
	r := s.ranges[s.place(addr)]
	return r.first + distance(r.From(), addr)
}

// address returns the address with the number n, which must be behind the cursor.
func (s *space) address(n uint64) netip.Addr {
	i, first := slices.BinarySearchFunc(s.ranges, n, func(r numbered, n uint64) int { return cmp.Compare(r.first, n) })
	if !first {
		i-- // n is within the range before.
	}
	r := s.ranges[i]
	return advance(r.From(), n-r.first)
}

// halves returns the upper and lower 64 bits of addr as a 128-bit number.
func halves(addr netip.Addr) (high, low uint64) {
	b := addr.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

// distance returns by how much to is above from, at most the largest uint64.
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
