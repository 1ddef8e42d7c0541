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

// mostRested is how many released addresses wait at most before they come before those that were never held: a
// large pool would otherwise remember each that it ever gave.
const mostRested = 1 << 16

// Order says which free address of a pool is given next.
type Order int

const (
	// LeastRecentlyUsed gives addresses that were never held first, from the lowest up, and then those that
	// have been free for the longest time: one that was just released is the last to come back, after all others
	// of its pool or 65,536 of them.
	LeastRecentlyUsed Order = iota
	// Lowest gives the lowest free address.
	Lowest
)

// space is the addresses of one pool and one family, and finds the next to be given without a look at
// those that are taken.
//
// A cursor walks up the ranges past held and skipped addresses, each at most once. For those behind it that have become
// free again there is a bitmap, where the lowest is wanted, and a queue, where the one is that rested longest.
// So a space of any size costs only for addresses that were held once.
type space struct {
	order    Order
	ranges   []numbered
	at       int        // the cursor: a place in ranges, and
	next     netip.Addr // the address there
	capacity uint64     // saturated
	assigned uint64
	skipped  uint64 // of those that are free

	// With Lowest: by number, the free ones among the addresses before next. All others there are held or skipped.
	freed bitmap
	// With LeastRecentlyUsed: all released and not held since, the earliest release first. The cursor passes
	// over them, too, and walks in a circle that ends at last.
	rested list.List
	last   netip.Addr
	spent  bool
}

// rest is an address that was released and is not held.
type rest struct {
	addr    netip.Addr
	release uint64 // the how manieth
}

// numbered is a range with the number of its first address, counted from the
// lowest address of the space. Behind the cursor no number saturates: every
// address counted has been held.
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

// pick returns the free address that is to be given next, of those that are not to be left; there must be one. It
// takes nothing: asked again, it says the same until something is taken or released.
func (s *space) pick(a *Allocator, leave []netip.Addr) netip.Addr {
	if s.order == Lowest {
		return s.lowest(a, leave)
	}
	for !s.spent && s.rested.Len() < mostRested {
		switch {
		case a.known[s.next] != known{}, a.skips(s.next):
		case !slices.Contains(leave, s.next):
			return s.next
		default: // The cursor does not come back to it. It waits as if it had been left just now.
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

// lowest is pick for the order Lowest.
func (s *space) lowest(a *Allocator, leave []netip.Addr) netip.Addr {
	var left []uint64 // free, and passed over
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
	for ; ; s.step() { // It ends: there is an address to give, and none is behind.
		if a.on(s.next) == nil && !a.skips(s.next) {
			if !slices.Contains(leave, s.next) {
				return s.next
			}
			left = append(left, s.number(s.next))
		}
	}
}

// step moves the cursor to the next address, from the highest to the lowest.
func (s *space) step() {
	if s.next != s.ranges[s.at].To() {
		s.next = s.next.Next()
		return
	}
	s.at = (s.at + 1) % len(s.ranges)
	s.next = s.ranges[s.at].From()
}

// resume has the cursor begin its circle after addr, which is in the space.
func (s *space) resume(addr netip.Addr) {
	if s.order == LeastRecentlyUsed {
		s.at, s.next = s.place(addr), addr
		s.step()
		s.begin(s.next)
	}
}

// begin has the cursor begin its circle with addr, which is in the space.
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

// free counts the addresses that are there to be given.
func (s *space) free() uint64 { return s.capacity - s.assigned - s.skipped }

// take notes that addr, which was free, is to be held.
func (s *space) take(a *Allocator, addr netip.Addr) {
	s.assigned++
	if a.skips(addr) {
		s.skipped--
		return
	}
	s.unqueue(a, addr)
}

// release notes that addr, which was held, is free.
func (s *space) release(a *Allocator, addr netip.Addr) {
	s.assigned--
	if a.skips(addr) {
		s.skipped++
		return
	}
	s.queue(a, addr)
}

// queue has addr be found though the cursor may be past it.
func (s *space) queue(a *Allocator, addr netip.Addr) {
	if s.order == LeastRecentlyUsed {
		s.rest(a, addr)
	} else if addr.Less(s.next) { // else the cursor will come upon it
		s.freed.set(s.number(addr))
	}
}

// unqueue has addr not be found any more.
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

// place returns the index of the range that addr, of this space, is in.
func (s *space) place(addr netip.Addr) int {
	i, _ := slices.BinarySearchFunc(s.ranges, addr, func(r numbered, addr netip.Addr) int { return r.To().Compare(addr) })
	return i
}

// number returns the number of an address behind the cursor.
func (s *space) number(addr netip.Addr) uint64 {
	r := s.ranges[s.place(addr)]
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
