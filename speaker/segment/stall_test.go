package segment

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/heraldlb/herald/speaker/segment/ownership"
)

// TestACandidateThatWasStalledHearsWhoTookTheAddress: the owner releases an address, and one of the two candidates gets no
// CPU time for a while. When it continues, it finds the release together with the claim of the other candidate. It must not
// take the address because of the release before it has read the claim.
func TestACandidateThatWasStalledHearsWhoTookTheAddress(t *testing.T) {
	for _, test := range []struct {
		name  string
		place int // of the candidate that is stalled
		read  int // how many frames it reads before it is stalled
	}{
		{"the first one, before it reads the release", 0, 0},
		{"the first one, when it has read the release", 0, 1},
		{"the second one, before it reads the release", 1, 0},
		{"the second one, when it has read the release", 1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, addrs := began(t, 3, 1)
			w.delay = 0 // Frames stay in order.
			a, owner := addrs[0], w.owner(addrs[0])
			var stalled, other *host
			for _, h := range w.nodes {
				switch {
				case h == owner:
				case w.placeWithout(h, owner, a) == test.place:
					stalled = h
				default:
					other = h
				}
			}
			w.witness = func(h *host, e Event) {
				if h == stalled && e.Kind == EventTake {
					w.fail("%s took %v, which %s had taken", h.name, e.Addr, other.name)
				}
			}
			stalled.frozen = true
			owner.suffer("unhealthy")
			w.run(time.Microsecond)
			stalled.frozen = false
			for range test.read {
				first := stalled.waiting[0]
				stalled.waiting = stalled.waiting[1:]
				first()
			}
			stalled.frozen = true
			w.run(placeDelay + rivalTime + 5*time.Millisecond)
			if o := w.owner(a); o != other {
				w.fail("%v is answered with %v", a, w.answersFor(a))
			}
			stalled.goOn()
			w.run(time.Second)
			if o := w.owner(a); o != other {
				w.fail("%v is answered with %v", a, w.answersFor(a))
			}
		})
	}
}

// TestACandidateThatWasStalledTakesWhatAnotherHasTaken: the first candidate is stalled after it has read all frames. Then it
// takes the address, which the second candidate has claimed meanwhile. The claim of the first one is higher.
func TestACandidateThatWasStalledTakesWhatAnotherHasTaken(t *testing.T) {
	for _, test := range []struct {
		name  string
		after time.Duration // when the first one continues, after the claim of the second one
		// busy is how long the second one is stalled, too. Meanwhile its answers continue.
		busy time.Duration
		want string // the nodes that answer, one after the other
	}{
		{"before the second one answers", rivalTime / 2, 0, "first"},
		{"when the second one answers", 2 * rivalTime, 0, "second first"},
		{"when the second one answers, which is stalled, too", 2 * rivalTime, 40 * time.Millisecond, "second first"},
		{"when the second one answers, which is stalled so long that it seems silent", 2 * rivalTime, 240 * time.Millisecond, "second first"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, addrs := began(t, 3, 1)
			w.delay = 0 // Frames stay in order.
			a, owner := addrs[0], w.owner(addrs[0])
			names := map[*host]string{}
			var first, second *host
			for _, h := range w.nodes {
				switch {
				case h == owner:
				case w.placeWithout(h, owner, a) == 0:
					first, names[h] = h, "first"
				default:
					second, names[h] = h, "second"
				}
			}
			var answered []string
			watch := func() {
				var now []string
				for _, h := range w.nodes {
					if h.answers[a].Node != "" { // The kernel answers, whether or not the speaker runs.
						now = append(now, names[h])
					}
				}
				if len(now) > 1 {
					w.fail("%v answer at the same time", now)
				}
				if len(now) == 1 && (len(answered) == 0 || answered[len(answered)-1] != now[0]) {
					answered = append(answered, now[0])
				}
			}
			first.frozen = true
			owner.suffer("unhealthy")
			w.run(time.Microsecond, watch)
			release := first.waiting[0]
			first.frozen, first.waiting = false, first.waiting[1:]
			release()
			first.frozen = true
			w.run(placeDelay+test.after, watch)
			first.m.Tick(first.clock())
			first.drain()
			second.frozen = test.busy > 0
			first.goOn()
			w.run(test.busy, watch)
			second.goOn()
			w.run(time.Second, watch)
			if got := strings.Join(answered, " "); got != test.want {
				w.fail("%q answered, want %q", got, test.want)
			}
		})
	}
}

// TestTwoCandidatesThatEachForwardAnswerOneAfterTheOther: the endpoints on two nodes became ready a moment ago. Each node knows
// that its own kube-proxy forwards, but not whether the other one does. So when the owner dies, each of them takes the
// address as the first candidate.
func TestTwoCandidatesThatEachForwardAnswerOneAfterTheOther(t *testing.T) {
	for round := range 40 {
		w, addrs := newWorld(t, 3, uint64(round)), vips(1)
		for _, h := range w.nodes {
			h.start()
		}
		owner := w.nodes[0]
		w.want(addrs, nil, owner)
		w.run(2 * time.Second)
		for _, h := range w.nodes {
			all := ownership.Candidates{{Node: owner.name}}
			for _, o := range w.nodes[1:] {
				c := ownership.Candidate{Node: o.name, Standing: ownership.Fresh}
				if o == h {
					c.Standing = ownership.Forwards
				}
				all = append(all, c)
			}
			h.input(func(m *Machine, now Time) { m.Want(now, addrs[0], &ownership.Want{Candidates: &all}) })
		}
		w.run(time.Second + time.Duration(round)*11*time.Millisecond)
		w.delay = 10 * time.Millisecond
		owner.power(false)
		w.run(time.Second, func() {
			if macs := w.answersFor(addrs[0]); len(macs) > 1 {
				w.fail("%v is answered with %v", addrs[0], macs)
			}
		})
		if w.owner(addrs[0]) == nil {
			w.fail("%v is answered by nobody", addrs[0])
		}
	}
}

// placeWithout returns how many hosts come before this one for an address, without the owner.
func (w *world) placeWithout(h, owner *host, a netip.Addr) (place int) {
	for _, o := range w.nodes {
		if o != h && o != owner && mix(hashAddress(a)^hashNode(o.name)) > mix(hashAddress(a)^hashNode(h.name)) {
			place++
		}
	}
	return place
}

// TestOfTwoThatTakeAnAddressAtOnceOneAnswers: a node takes an address, and before it begins to answer, a second node takes
// it, too, with a higher claim. This claim has been sent, so the first node reads it, and never answers.
func TestOfTwoThatTakeAnAddressAtOnceOneAnswers(t *testing.T) {
	s := newSite(t, []string{"198.18.0.1/24", "198.18.0.2/24"}, "")
	for _, r := range s.hosts {
		s.start(r, "eth0")
	}
	members := func(r *real) bool { return s.view(r).State == Joined }
	eventually(t, "both are members", func() bool { return members(s.hosts[0]) && members(s.hosts[1]) })
	a := vips(1)[0]
	first, second := s.hosts[0], s.hosts[1]
	if mix(hashAddress(a)^hashNode(first.name)) > mix(hashAddress(a)^hashNode(second.name)) {
		first, second = second, first
	}
	take := func(r *real, m *Machine, now Time) {
		m.Want(now, a, &ownership.Want{Candidates: ownership.NewCandidates([]string{r.name}, nil)})
		m.Tick(now)
		m.Checked(now, a, false)
		m.Tick(now)
	}
	var began []Answer
	first.segment.Do(func(m *Machine, now Time) {
		answer := first.segment.callbacks.Answer
		first.segment.callbacks.Answer = func(to Answer) {
			if to.Node != "" {
				began = append(began, to)
			}
			answer(to)
		}
		take(first, m, now)
		taken := make(chan struct{})
		second.segment.Do(func(m *Machine, now Time) {
			take(second, m, now)
			second.segment.perform()
			close(taken)
		})
		<-taken
		first.segment.perform()
	})
	s.eventuallyOwned([]netip.Addr{a}, second)
	s.view(first) // By then every earlier answer has been recorded.
	if len(began) > 0 {
		t.Errorf("%s answers with %v after %s claimed %v", first.name, began, second.name, a)
	}
	if o := s.view(first).Holdings; len(o) > 0 {
		t.Errorf("%s holds %v", first.name, o)
	}
}

// TestWhoIsFrozenInTheMiddleOfATurnIsSilent: frames that came meanwhile are read in the next turn, so nothing is answered
// before that turn.
func TestWhoIsFrozenInTheMiddleOfATurnIsSilent(t *testing.T) {
	s := newSite(t, []string{"198.18.0.1/24"}, "")
	s.start(s.hosts[0], "eth0")
	segment, silent := s.hosts[0].segment, make(chan bool, 2)
	segment.Do(func(*Machine, Time) {
		began := BootTime()
		eventually(t, "this turn takes too long", func() bool { return BootTime()-began > maxGap && segment.Stalled() })
		segment.Do(func(*Machine, Time) {
			silent <- segment.Stalled()
			segment.Do(func(*Machine, Time) { silent <- segment.Stalled() })
		})
	})
	if !<-silent {
		t.Error("it answers before it has read what came while it was frozen")
	}
	if <-silent {
		t.Error("it has read everything, and does not answer")
	}
}
