package bgp

import (
	"errors"
	"testing"
	"time"
)

func TestTraffic(t *testing.T) {
	const hold = 90 * time.Second
	type look struct {
		after time.Duration
		m     *messages
	}
	counted := func(refreshes, sent uint64, hold time.Duration) *messages { return &messages{refreshes, sent, hold} }
	for name, c := range map[string]struct {
		looks []look
		want  error
	}{
		"nothing yet":              {[]look{{0, nil}, {time.Hour, nil}}, nil},
		"KEEPALIVEs are sent":      {[]look{{0, counted(0, 5, hold)}, {3 * hold, counted(0, 6, hold)}, {4 * hold, counted(0, 7, hold)}}, nil},
		"nothing is sent":          {[]look{{0, counted(0, 5, hold)}, {2 * hold, counted(0, 5, hold)}, {2*hold + 1, counted(0, 5, hold)}}, errSendHold},
		"for a short hold time":    {[]look{{0, counted(0, 5, 3*time.Second)}, {time.Minute, counted(0, 5, 3*time.Second)}}, nil},
		"for longer than a minute": {[]look{{0, counted(0, 5, 3*time.Second)}, {time.Minute + 1, counted(0, 5, 3*time.Second)}}, errSendHold},
		"of another session":       {[]look{{0, counted(0, 5, hold)}, {hold, nil}, {3 * hold, counted(0, 5, hold)}}, nil},
		"without a hold time":      {[]look{{0, counted(0, 5, 0)}, {time.Hour, counted(0, 5, 0)}}, nil},
		"some refreshes":           {[]look{{0, counted(2, 5, hold)}, {1, counted(2+maxRefreshes, 6, hold)}}, nil},
		"a flood of refreshes":     {[]look{{0, counted(2, 5, hold)}, {1, counted(3+maxRefreshes, 6, hold)}}, errTooManyRefreshes},
		"a flood at the start":     {[]look{{0, counted(1+maxRefreshes, 5, hold)}}, errTooManyRefreshes},
	} {
		t.Run(name, func(t *testing.T) {
			var seen traffic
			start, err := time.Unix(1, 0), error(nil)
			for _, l := range c.looks {
				err = seen.check(l.m, start.Add(l.after))
			}
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// TestAFloodOfRefreshesEndsTheSession has a router that asks for all routes thousands of times.
func TestAFloodOfRefreshesEndsTheSession(t *testing.T) {
	a := newArena(t, 1)
	var flood []byte
	for range 10_000 {
		flood = append(flood, message(5, []byte{0, 1, 0, 1})...)
	}
	r := a.dialIn(hostileAt(0))
	defer r.Close()
	if err := r.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Write(flood); err != nil {
		t.Fatal(err)
	}
	const nothing = 0 // No message has this type: only a NOTIFICATION ends the wait.
	if code, err := r.until(nothing); code != 6 {
		t.Errorf("the session ended with the code %d (%v), want 6 (Cease)", code, err)
	}
	a.undisturbed()
}
