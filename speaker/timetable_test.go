package speaker

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// The timer fires for the first address, and an address that was removed is not due.
func TestATimetable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		table := newTimetable()
		defer table.next.Stop()
		all := parseAddresses("198.51.100.1", "198.51.100.2", "198.51.100.3")
		table.set(all[0], began.Add(3*time.Second))
		table.set(all[1], began.Add(time.Second))
		table.set(all[2], began.Add(2*time.Second))
		table.set(all[1], time.Time{})
		table.await(began)
		for _, address := range []int{2, 0} {
			at := <-table.next.C
			if got := table.due(at); !slices.Equal(got, all[address:address+1]) || at.Sub(began) != table.at[all[address]].Sub(began) {
				t.Errorf("after %v: %v, want %v", at.Sub(began), got, all[address])
			}
			table.set(all[address], time.Time{})
			table.await(at)
		}
		if len(table.at) > 0 || len(table.due(time.Now().Add(time.Hour))) > 0 {
			t.Errorf("left: %v", table.at)
		}
	})
}
