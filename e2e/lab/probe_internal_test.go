package lab

import (
	"testing"
	"time"
)

func TestLongestGap(t *testing.T) {
	start := time.Unix(0, 0)
	at := func(seconds ...int) (times []time.Time) {
		for _, s := range seconds {
			times = append(times, start.Add(time.Duration(s)*time.Second))
		}
		return times
	}
	for name, c := range map[string]struct {
		good []time.Time
		want time.Duration
	}{
		"none at all":       {nil, 10 * time.Second},
		"at the start":      {at(6, 8), 6 * time.Second},
		"in the middle":     {at(1, 2, 7, 9), 5 * time.Second},
		"at the end":        {at(1, 3), 7 * time.Second},
		"answers overtaken": {at(9, 2, 5, 7), 3 * time.Second},
	} {
		if got := longestGap(start, c.good, start.Add(10*time.Second)); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
