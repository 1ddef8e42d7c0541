package segment

import (
	"net/netip"
	"regexp"
	"testing"
	"time"

	"github.com/heraldlb/herald/speaker/segment/ownership"
)

func TestEveryAddressHasOneOwner(t *testing.T) {
	for _, nodes := range []int{1, 2, 3, 10} {
		w, addrs := began(t, nodes, 60)
		load := map[*host]int{}
		for _, a := range addrs {
			load[w.owner(a)]++
		}
		for h, n := range load {
			if bound := loadBound(60, nodes); n > bound+2 {
				t.Errorf("%d nodes: %s owns %d, the bound is %d", nodes, h.name, n, bound)
			}
		}
		if len(load) != nodes {
			t.Errorf("%d of %d nodes own addresses", len(load), nodes)
		}
	}
}

// TestAddressesWithoutAnOwnerAreCounted: every candidate counts new addresses that a stranger uses, until the stranger leaves.
func TestAddressesWithoutAnOwnerAreCounted(t *testing.T) {
	w, _ := began(t, 3, 10)
	counted := func(want int) {
		t.Helper()
		for _, h := range w.nodes {
			if n := h.m.Unowned(); n != want {
				w.fail("%s counts %d addresses without an owner, want %d", h.name, n, want)
			}
		}
	}
	counted(0)
	strange := vips(11)[10]
	w.strangers = map[netip.Addr]bool{strange: true}
	w.want([]netip.Addr{strange}, func(want *ownership.Want) { want.New = true }, w.nodes...)
	w.run(5 * time.Second)
	counted(1)
	w.strangers = nil
	w.run(2 * strangerTime)
	counted(0)
}

// TestADeputyDies: the next candidate answers.
func TestADeputyDies(t *testing.T) {
	w, addrs := began(t, 5, 40)
	victim := w.owner(addrs[0])
	victim.input(func(m *Machine, now Time) { m.Leave(now, true) })
	victim.kill()
	w.run(500 * time.Millisecond)
	for _, h := range w.nodes {
		if h != victim && h.answers[addrs[0]].Node == victim.name {
			h.power(false)
		}
	}
	w.run(2 * time.Second)
	for _, a := range addrs {
		if macs := w.answersFor(a); len(macs) != 1 || macs[0] == victim.mac != (w.owner(a) == nil) {
			w.fail("%v is answered with %v", a, macs)
		}
	}
}

// TestNobodyIsSuspected: a node that takes its first address beats faster from that moment on.
func TestNobodyIsSuspected(t *testing.T) {
	for _, nodes := range []int{2, 3, 10} {
		w := newWorld(t, nodes, 7)
		for _, h := range w.nodes {
			h.start()
		}
		w.run(2500 * time.Millisecond)
		w.witness = func(h *host, e Event) {
			if e.Kind == EventSuspect {
				w.fail("%s suspects %s", h.name, e.Node)
			}
		}
		for i := range 20 {
			w.want(vips(20)[i:i+1], nil, w.nodes...)
			w.run(170 * time.Millisecond)
		}
		if nodes > 3 {
			continue
		}
		w.run(9 * time.Minute) // Chains are renewed in that time.
	}
}

func TestADeadNodeIsReplacedInAQuarterOfASecond(t *testing.T) {
	for _, nodes := range []int{2, 3, 10} {
		var worst, sum time.Duration
		const rounds = 8
		for round := range rounds {
			w, addrs := began(t, nodes, 20)
			w.run(time.Duration(round) * 13 * time.Millisecond)
			victim := w.owner(addrs[0])
			before := w.owners(addrs)
			victim.power(false)
			gap := w.outage(addrs[0], 5*time.Second)
			worst, sum = max(worst, gap), sum+gap
			w.run(2 * time.Second)
			for _, a := range addrs {
				switch now := w.owner(a); {
				case now == nil:
					w.fail("%v has no owner", a)
				case before[a] != victim && now != before[a]:
					w.fail("%v moved though its owner lives", a)
				}
			}
		}
		t.Logf("%d nodes: mean %v, worst %v", nodes, sum/rounds, worst)
		if worst > 320*time.Millisecond || sum/rounds > 250*time.Millisecond {
			t.Errorf("%d nodes: mean %v, worst %v", nodes, sum/rounds, worst)
		}
	}
}

func TestAPlannedStopHandsOverAtOnce(t *testing.T) {
	w, addrs := began(t, 3, 20)
	victim := w.owner(addrs[0])
	victim.input(func(m *Machine, now Time) { m.Leave(now, false) })
	victim.kill()
	for _, a := range addrs {
		if gap := w.outage(a, time.Second); gap > 5*time.Millisecond {
			w.fail("%v had no owner for %v", a, gap)
		}
	}
}

func TestAKilledSpeakerIsDeputisedAndFindsEverythingAsItWas(t *testing.T) {
	for _, planned := range []bool{false, true} {
		w, addrs := began(t, 3, 20)
		victim := w.owner(addrs[0])
		before := w.owners(addrs)
		if planned {
			victim.input(func(m *Machine, now Time) { m.Leave(now, true) })
		}
		victim.kill()
		gap := w.outage(addrs[0], time.Second)
		if limit := 270 * time.Millisecond; gap > limit || planned && gap > 5*time.Millisecond {
			w.fail("planned %v: nobody answered for %v", planned, gap)
		}
		same := func() {
			for _, a := range addrs {
				if macs := w.answersFor(a); len(macs) != 1 || macs[0] != before[a].mac {
					w.fail("planned %v: %v is answered with %v, want %v of %s", planned, a, macs, before[a].mac, before[a].name)
				}
			}
		}
		w.run(2 * time.Second)
		w.run(3*time.Second, same)
		victim.start()
		w.run(3*time.Second, same)
		for _, a := range addrs {
			if w.owner(a) != before[a] {
				w.fail("%v is owned by %v, want %s", a, w.owner(a), before[a].name)
			}
		}
	}
}

// TestASpeakerComesBackOnANodeThatCannotServe: the speaker is told which addresses its predecessor claimed, and releases them
// without a claim of its own.
func TestASpeakerComesBackOnANodeThatCannotServe(t *testing.T) {
	w, addrs := began(t, 3, 20)
	victim := w.owner(addrs[0])
	victim.kill()
	w.run(500 * time.Millisecond)
	victim.serving = false
	victim.start()
	w.run(maxListening)
	for _, a := range addrs {
		if o := w.owner(a); o == nil || o == victim {
			w.fail("%v is answered with %v", a, w.answersFor(a))
		}
	}
}

func TestASpeakerThatDoesNotComeBackIsReplacedAfterTheGrace(t *testing.T) {
	w, addrs := began(t, 3, 20)
	victim := w.owner(addrs[0])
	victim.kill()
	w.run(Grace - time.Second)
	if macs := w.answersFor(addrs[0]); len(macs) != 1 || macs[0] != victim.mac {
		w.fail("answered with %v", macs)
	}
	w.run(2 * time.Second)
	if o := w.owner(addrs[0]); o == nil || o == victim {
		w.fail("owner %v", o)
	}
}

func TestANodeThatComesBackTakesNothing(t *testing.T) {
	w, addrs := began(t, 3, 30)
	victim := w.owner(addrs[0])
	victim.power(false)
	w.run(2 * time.Second)
	after := w.owners(addrs)
	victim.power(true)
	victim.start()
	w.run(5 * time.Second)
	for _, a := range addrs {
		if w.owner(a) != after[a] {
			w.fail("%v moved", a)
		}
	}
}

func TestASuspendedNodeYieldsToWhoStoodIn(t *testing.T) {
	w, addrs := began(t, 3, 30)
	victim := w.owner(addrs[0])
	// The whole node stands still, including its kernel.
	victim.kernel = false
	w.run(3 * time.Second)
	after := w.owners(addrs)
	victim.goOn()
	w.run(3*time.Second, func() {
		for _, a := range addrs {
			if macs := w.answersFor(a); len(macs) > 1 {
				w.fail("%v is answered with %v", a, macs)
			}
		}
	})
	for _, a := range addrs {
		if w.owner(a) != after[a] {
			w.fail("%v moved", a)
		}
	}
}

func TestAFrozenSpeakerKeepsItsAddresses(t *testing.T) {
	w, addrs := began(t, 3, 30)
	before := w.owners(addrs)
	victim := w.owner(addrs[0])
	victim.frozen = true
	w.run(3 * time.Second)
	victim.goOn()
	w.run(3*time.Second, func() {
		for _, a := range addrs {
			if macs := w.answersFor(a); len(macs) != 1 || macs[0] != before[a].mac {
				w.fail("%v is answered with %v", a, macs)
			}
		}
	})
}

func TestAnIsolatedNodeYieldsWhenTheSegmentHeals(t *testing.T) {
	for _, nodes := range []int{2, 3, 5} {
		w, addrs := began(t, nodes, 30)
		victim := w.owner(addrs[0])
		before := w.owners(addrs)
		w.isolate(victim, true)
		w.run(3 * time.Second)
		w.isolate(victim, false)
		w.run(500 * time.Millisecond)
		for _, a := range addrs {
			now := w.owner(a)
			if now == nil {
				w.fail("%d nodes: %v is answered with %v", nodes, a, w.answersFor(a))
			}
			if before[a] != victim && now != before[a] {
				w.fail("%d nodes: %v moved from %s to %s, though its owner was not cut off", nodes, a, before[a].name, now.name)
			}
		}
	}
}

func (w *world) isolate(victim *host, cut bool) {
	for _, h := range w.nodes {
		w.cut[[2]int{victim.number, h.number}] = cut
		w.cut[[2]int{h.number, victim.number}] = cut
	}
}

// TestTheOthersOwnNothingWhenANodeIsCutOff: either the owner or another candidate is cut off for less than a second. The one
// that was not cut off owns the address afterwards, and did not lose it in between. Nodes that own nothing send one beat a
// second. So the node that is cut off does not miss their beats, and the other one may not have heard them since, either.
func TestTheOthersOwnNothingWhenANodeIsCutOff(t *testing.T) {
	for round := range 10 {
		for _, isolated := range []int{0, 1} {
			w, addrs := newWorld(t, 6, uint64(round)), vips(1)
			owner, candidate := w.nodes[0], w.nodes[1]
			w.want(addrs, nil, owner)
			if round%2 == 0 { // The owner takes the address while it is alone.
				owner.start()
				w.run(time.Second)
			}
			for _, h := range w.nodes {
				if h.m == nil {
					h.start()
				}
			}
			w.run(2 * time.Second)
			w.want(addrs, nil, owner, candidate)
			w.run(3*time.Second + time.Duration(round)*100*time.Millisecond)
			keeps := w.nodes[1-isolated]
			w.witness = func(h *host, e Event) {
				if h == keeps && (e.Kind == EventYield || e.Kind == EventRelease) {
					w.fail("%s lost %v to a node that was cut off", h.name, e.Addr)
				}
			}
			w.isolate(w.nodes[isolated], true)
			w.run(450 * time.Millisecond)
			if candidate.answers[addrs[0]].Node != candidate.name {
				w.fail("%s has not taken %v from a node that it does not hear", candidate.name, addrs[0])
			}
			w.isolate(w.nodes[isolated], false)
			w.run(3 * time.Second)
			if o := w.owner(addrs[0]); o != keeps {
				w.fail("%v is answered with %v, want %v", addrs[0], w.answersFor(addrs[0]), keeps.mac)
			}
		}
	}
}

// TestAFreshCandidateJudgesNoOwner: the owner hands the address over, and continues to answer until the kube-proxy of the only
// candidate forwards the address.
func TestAFreshCandidateJudgesNoOwner(t *testing.T) {
	w, addrs := newWorld(t, 2, 5), vips(1)
	for _, h := range w.nodes {
		h.start()
		h.input(func(m *Machine, now Time) { m.Trust(now, true) })
	}
	owner, candidate := w.nodes[0], w.nodes[1]
	w.want(addrs, nil, owner)
	w.run(2 * time.Second)
	for _, step := range []struct {
		standing ownership.Standing
		want     *host
	}{{ownership.Fresh, owner}, {ownership.Forwards, candidate}} {
		candidate.input(func(m *Machine, now Time) {
			m.Want(now, addrs[0], &ownership.Want{Candidates: &ownership.Candidates{{Node: candidate.name, Standing: step.standing}}})
		})
		w.run(misplacedTime + time.Second)
		if o := w.owner(addrs[0]); o != step.want {
			w.fail("%v is answered with %v while the candidate's standing is %v", addrs[0], w.answersFor(addrs[0]), step.standing)
		}
	}
}

// TestANodeThatIsForgottenYields: the Node object was deleted, and the speaker of the node does not know this.
func TestANodeThatIsForgottenYields(t *testing.T) {
	w, addrs := newWorld(t, 3, 5), vips(1)
	for _, h := range w.nodes {
		h.start()
	}
	owner := w.nodes[0]
	w.want(addrs, nil, owner)
	w.run(2 * time.Second)
	w.want(addrs, nil, w.nodes...)
	w.run(3 * time.Second)
	for _, h := range w.nodes[1:] {
		h.input(func(m *Machine, now Time) { m.Forget(now, owner.name) })
	}
	w.run(200 * time.Millisecond)
	if o := w.owner(addrs[0]); o == nil || o == owner {
		w.fail("%v is answered with %v", addrs[0], w.answersFor(addrs[0]))
	}
}

func TestANodeThatIsNotHeardIsReplacedAndYields(t *testing.T) {
	w, addrs := began(t, 3, 30)
	victim := w.owner(addrs[0])
	for _, h := range w.nodes {
		w.cut[[2]int{victim.number, h.number}] = true // It still hears the others.
	}
	w.run(time.Second)
	for _, a := range addrs {
		if o := w.owner(a); o == nil || o == victim {
			w.fail("%v is answered with %v", a, w.answersFor(a))
		}
	}
}

// TestAQuestionIsAnsweredThatComesAfterAnother: the speaker that asks later did not receive the answer to the first question.
func TestAQuestionIsAnsweredThatComesAfterAnother(t *testing.T) {
	w, addrs := began(t, 3, 30)
	owner := w.owner(addrs[0])
	sent := map[kind]int{}
	w.sent = func(h *host, f Frame) {
		if h == owner {
			sent[kind(f.Payload[3])]++
		}
	}
	for _, h := range w.nodes {
		if h != owner {
			owner.input(func(m *Machine, now Time) {
				m.Receive(now, Arrival{At: now, From: h.mac, Unicast: true}, ask{id: m.id}.encode())
			})
			w.run(time.Millisecond)
		}
	}
	w.run(replyPeriod + pageTime)
	if sent[kindHello] != 2 || sent[kindPage] != 2 {
		w.fail("%v was sent, want two Hellos and two pages", sent)
	}
}

func TestANodeThatCannotServeReleases(t *testing.T) {
	w, addrs := began(t, 3, 30)
	victim := w.owner(addrs[0])
	victim.input(func(m *Machine, now Time) { m.Serve(now, false) })
	if len(victim.answers) != 0 {
		w.fail("it still answers")
	}
	w.run(5 * time.Millisecond)
	for _, a := range addrs {
		if o := w.owner(a); o == nil || o == victim {
			w.fail("%v is answered with %v", a, w.answersFor(a))
		}
	}
}

func TestAnAddressThatNobodyWantsIsNotTakenFromWhoHeardItFirst(t *testing.T) {
	w, addrs := began(t, 3, 1)
	owner := w.owner(addrs[0])
	owner.input(func(m *Machine, now Time) { m.Want(now, addrs[0], nil) })
	w.run(100*time.Millisecond, func() {
		if macs := w.answersFor(addrs[0]); len(macs) > 0 {
			w.fail("answered with %v", macs)
		}
	})
}

func TestMulticastIsFiltered(t *testing.T) {
	w, addrs := newWorld(t, 3, 1), vips(30)
	w.noMulticast = true
	r := newReferee(w, addrs)
	r.limit = 150 * time.Millisecond
	for _, h := range w.nodes {
		h.start()
		var expected []Expected
		for _, o := range w.nodes {
			if o != h {
				expected = append(expected, Expected{Node: o.name, MAC: o.mac, Interface: "eth0"})
			}
		}
		h.input(func(m *Machine, now Time) { m.Expect(now, expected) })
	}
	w.run(4*time.Second, r.watch)
	w.want(addrs, nil, w.nodes...)
	w.run(4*time.Second, r.watch)
	for _, a := range addrs {
		if w.owner(a) == nil {
			w.fail("%v is answered with %v", a, w.answersFor(a))
		}
	}
	for _, h := range w.nodes {
		if s := h.m.State(); s != Joined {
			w.fail("%s is %s", h.name, s)
		}
	}
	victim := w.owner(addrs[0])
	victim.power(false)
	if gap := w.outage(addrs[0], time.Second); gap > 320*time.Millisecond {
		w.fail("gap %v", gap)
	}
}

func TestEverythingBetweenNodesIsFiltered(t *testing.T) {
	// The API may name the others only after this node has listened and has taken addresses that no node claimed.
	for _, late := range []bool{false, true} {
		w, addrs := newWorld(t, 3, 1), vips(30)
		for _, h := range w.nodes {
			w.isolate(h, true)
		}
		for _, h := range w.nodes {
			h.start()
		}
		w.want(addrs, nil, w.nodes...)
		if late {
			w.run(time.Second)
		}
		for _, h := range w.nodes {
			var expected []Expected
			for _, o := range w.nodes {
				if o != h {
					expected = append(expected, Expected{Node: o.name, MAC: o.mac, Interface: "eth0"})
				}
			}
			h.input(func(m *Machine, now Time) { m.Expect(now, expected) })
		}
		w.run(4 * time.Second)
		for _, a := range addrs {
			if w.owner(a) == nil {
				w.fail("late %v: %v is answered with %v", late, a, w.answersFor(a))
			}
		}
		if s := w.nodes[0].m.State(); s != Degraded {
			w.fail("%s", s)
		}
	}
}

func TestAddressesMoveBackGradually(t *testing.T) {
	w, addrs := newWorld(t, 3, 3), vips(10)
	for _, h := range w.nodes {
		h.start()
	}
	c := func() *ownership.Candidates {
		return ownership.NewCandidates([]string{"n0", "n1", "n2"}, func(n string) bool { return n == "n1" })
	}
	w.want(addrs, func(want *ownership.Want) { want.Candidates, want.Gradual = c(), true }, w.nodes...)
	w.run(2 * time.Second)
	for _, a := range addrs {
		if w.owner(a) != w.nodes[1] {
			w.fail("%v is owned by %v", a, w.owner(a))
		}
	}
	w.nodes[1].power(false)
	w.run(2 * time.Second)
	w.nodes[1].power(true)
	w.nodes[1].start()
	w.run(aliveBeforeMove - 3*time.Second)
	if len(w.nodes[1].answers) > 0 {
		w.fail("it took addresses at once")
	}
	w.run(20*time.Second, func() {
		for _, a := range addrs {
			if len(w.answersFor(a)) > 1 {
				w.fail("%v is answered with %v", a, w.answersFor(a))
			}
		}
	})
	for _, a := range addrs {
		if w.owner(a) != w.nodes[1] {
			w.fail("%v is owned by %v", a, w.owner(a))
		}
	}
}

func TestAllSpeakersStartAtOnce(t *testing.T) {
	w, addrs := began(t, 5, 50)
	for _, h := range w.nodes {
		h.kill()
	}
	w.run(100 * time.Millisecond)
	for _, h := range w.nodes {
		h.start()
	}
	w.run(time.Second)
	for _, a := range addrs {
		if w.owner(a) == nil {
			w.fail("%v is answered with %v", a, w.answersFor(a))
		}
	}
}

// TestATakeoverTellsWhatHappenedToTheLastOwner: the owner before the last one died long ago. Its death affects neither the
// reason for the present takeover nor the duration of takeovers.
func TestATakeoverTellsWhatHappenedToTheLastOwner(t *testing.T) {
	w, addrs := began(t, 3, 1)
	w.owner(addrs[0]).power(false)
	w.run(10 * time.Second)
	h := w.owner(addrs[0])
	if got, want := h.m.Holdings()[0].Reason, regexp.MustCompile(`^taken over \d+ ms after its former owner was last heard$`); !want.MatchString(got) {
		w.fail("%s: %v: %s, want %v", h.name, addrs[0], got, want)
	}
	h.suffer("unhealthy")
	w.run(time.Second)
	last := w.owner(addrs[0])
	if got, want := last.m.Holdings()[0].Reason, "its owner released it"; got != want {
		w.fail("%s took %v because %s, want %s", last.name, addrs[0], got, want)
	}
	if c := last.m.Counters(); c.Takeovers != 0 || c.TakeoverSum != 0 {
		w.fail("%s counts %d takeovers from owners that fell silent, %v after", last.name, c.Takeovers, c.TakeoverSum)
	}
}
