package speaker

import (
	"testing"
	"time"

	"github.com/heraldlb/herald/speaker/link"
)

func TestWhenAnAbsenceIsOver(t *testing.T) {
	const lease = 30 * time.Second
	eth0, down, pod := link.Interface{Name: "eth0", Up: true}, link.Interface{Name: "eth0"}, link.Interface{Name: "veth1", Up: true}
	// look is one turn of the loop, some time after the one before.
	type look struct {
		after time.Duration
		links []link.Interface
	}
	at := func(after time.Duration, links ...link.Interface) look { return look{after, links} }
	for _, story := range []struct {
		name  string
		looks []look
		over  bool // at the last look, and at none before
	}{
		{"the first look", []look{at(time.Hour, eth0)}, false},
		{"awake all the time", []look{at(0, eth0), at(time.Second, eth0), at(time.Second, eth0)}, false},
		{"busy, as long as nobody can have stood in", []look{at(0, eth0), at(lease/3, eth0)}, false},
		{"asleep", []look{at(0, eth0), at(lease/3+1, eth0)}, true},
		{"the link is lost", []look{at(0, eth0), at(time.Second, down)}, false},
		{"the link is still lost", []look{at(0, eth0), at(time.Second, down), at(time.Second, down)}, false},
		{"the link is back", []look{at(0, eth0), at(time.Second, down), at(time.Second, down), at(time.Second, eth0)}, true},
		{"the interface was gone, and is back", []look{at(0, eth0), at(time.Second), at(time.Second, eth0)}, true},
		{"an interface is new", []look{at(0), at(time.Second, eth0)}, false},
		{"a pod's link came and went and came", []look{at(0, eth0, pod), at(time.Second, eth0), at(time.Second, eth0, pod)}, false},
	} {
		t.Run(story.name, func(t *testing.T) {
			a, now := newAbsence(lease), noon
			for i, l := range story.looks {
				now = now.Add(l.after)
				over := a.over(now, l.links, func() map[string]bool { return map[string]bool{"eth0": true} })
				if want := story.over && i == len(story.looks)-1; over != want {
					t.Errorf("look %d: over is %v, want %v", i, over, want)
				}
			}
			if a.over(now, story.looks[len(story.looks)-1].links, func() map[string]bool { return nil }) {
				t.Error("the same absence is over once more")
			}
		})
	}
}

// Nobody may count us dead while we do not count as deaf to ourselves; freshness is what both judge by.
func TestWhoIsNotDeafIsNotDeadToOthers(t *testing.T) {
	us, other := newListener(), newListener()
	us.renew("self")
	other.renew("self", "us")
	for step := time.Duration(0); step < 2*goodFor; step += time.Second {
		us.now = us.now.Add(time.Second)
		other.pass(time.Second, "self")
		if !other.alive("us") && !us.deaf(us.now) {
			t.Fatalf("after %s we are dead to others and do not know", step)
		}
	}
	if other.alive("us") || !us.deaf(us.now) {
		t.Error("the story did not come to its end")
	}
	us.renew("self")
	if us.deaf(us.now) {
		t.Error("deaf while our own renewal was heard right now")
	}
}
