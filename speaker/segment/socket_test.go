package segment

import (
	"testing"
	"time"
)

// The kernel stamps a beat with the time of day, which may be changed in the meantime.
func TestABeatIsNotTakenForAnEarlierOneWhenTheTimeOfDayIsSet(t *testing.T) {
	const ms, hour = time.Millisecond, time.Hour
	day := 500_000 * hour // how far the time of day is ahead of the boot clock
	before := reading{boot: 1000 * ms, wall: day + 1000*ms}
	for _, c := range []struct {
		name  string
		set   time.Duration // by how much the time of day was set between the two readings
		stamp time.Duration // relative to before
		after bool          // the stamp was made after the time was set
		want  Time
	}{
		{name: "it came 40 ms ago", stamp: 10 * ms, want: 1010 * ms},
		{name: "it came after the clocks were read", stamp: 55 * ms, want: 1050 * ms},
		{name: "it came while the sockets were read before", stamp: -1 * ms, want: 1000 * ms},
		{name: "an hour forward, before it came", set: hour, stamp: 49 * ms, after: true, want: 1050 * ms},
		{name: "an hour forward, after it came", set: hour, stamp: 49 * ms, want: 1050 * ms},
		{name: "an hour back, before it came", set: -hour, stamp: 49 * ms, after: true, want: 1050 * ms},
		{name: "an hour back, after it came", set: -hour, stamp: 49 * ms, want: 1050 * ms},
		{name: "30 ms forward, after it came", set: 30 * ms, stamp: 49 * ms, want: 1050 * ms},
		{name: "the clocks were not read at once", set: 100 * time.Microsecond, stamp: 10 * ms, after: true, want: 1010 * ms},
	} {
		now := reading{boot: before.boot + 50*ms, wall: before.wall + 50*ms + c.set}
		stamp := before.wall + c.stamp
		if c.after {
			stamp += c.set
		}
		if got := now.cameAt(before, stamp); got != c.want {
			t.Errorf("%s: it came at %v, want %v", c.name, got, c.want)
		}
	}
}
