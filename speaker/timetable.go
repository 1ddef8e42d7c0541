package speaker

import (
	"net/netip"
	"time"
)

// timetable has the times at which addresses must be decided again even without a change of an API object. The loop owns it.
type timetable struct {
	at   map[netip.Addr]time.Time
	next *time.Timer // for the first of them
}

func newTimetable() timetable { return timetable{at: map[netip.Addr]time.Time{}, next: stopped()} }

// set sets the time at which an address is decided again; zero removes it.
func (t *timetable) set(address netip.Addr, at time.Time) {
	if at.IsZero() {
		delete(t.at, address)
	} else {
		t.at[address] = at
	}
}

// await sets the timer to the first of the times.
func (t *timetable) await(now time.Time) {
	var first time.Time
	for _, at := range t.at {
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	if !first.IsZero() {
		t.next.Reset(first.Sub(now))
	}
}

// due lists the addresses whose time has come.
func (t *timetable) due(now time.Time) (all []netip.Addr) {
	for address, at := range t.at {
		if !now.Before(at) {
			all = append(all, address)
		}
	}
	return all
}
