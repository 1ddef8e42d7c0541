package segment

import (
	"cmp"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/speaker/segment/ownership"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

// referee watches a world for states that must never occur.
type referee struct {
	w     *world
	addrs []netip.Addr
	now   Time // of the last look
	// both is how long two hosts that hear each other have answered for an address with different MACs.
	both  map[conflict]time.Duration
	limit time.Duration
	// hearing is how long two hosts have been able to hear each other.
	hearing map[[2]int]time.Duration
	// unowned is how long no host has answered for an address. calm is the time of the last fault.
	unowned map[netip.Addr]time.Duration
	calm    Time
}

type conflict struct {
	addr netip.Addr
	x, y int
	// deputies means that both hosts stand in for absent nodes, each of which claims the address. This happens after a
	// chain of faults, if one of the two deputies was away itself when one of the claims ended. Both absent nodes forward.
	deputies bool
}

func newReferee(w *world, addrs []netip.Addr) *referee {
	r := &referee{w: w, addrs: addrs, both: map[conflict]time.Duration{}, hearing: map[[2]int]time.Duration{}, unowned: map[netip.Addr]time.Duration{}}
	w.witness = r.judge
	return r
}

func (r *referee) linked(x, y *host) bool { return r.w.linked(x, y) && r.w.linked(y, x) }

func (r *referee) watch() {
	w := r.w
	passed := w.now - r.now
	r.now = w.now
	for _, x := range w.nodes {
		for _, y := range w.nodes[:x.number] {
			pair := [2]int{x.number, y.number}
			if x.running() && y.running() && r.linked(x, y) {
				r.hearing[pair] += passed
			} else {
				r.hearing[pair] = 0
			}
			for a, ax := range x.answers {
				ay, oky := y.answers[a]
				key := conflict{a, x.number, y.number, ax.Node != x.name && ay.Node != y.name}
				other := key
				other.deputies = !key.deputies
				delete(r.both, other)
				if !oky || ax.MAC == ay.MAC || r.hearing[pair] == 0 {
					delete(r.both, key)
					continue
				}
				limit := r.limit
				if key.deputies {
					limit += Grace * 105 / 100 // This conflict ends with the grace.
				}
				if r.both[key] += passed; r.both[key] > limit {
					w.fail("%v is answered by %s as %v and by %s as %v for longer than %v", a, x.name, ax.MAC, y.name, ay.MAC, limit)
				}
			}
		}
	}
	r.watchUnowned(passed)
}

// outageLimit is how long an address can be without an owner while there is no fault, no frame is lost, and all
// nodes hear each other. A node that has just started listens for maxListening at most. For formerTime more it
// may claim the addresses of its predecessor. If another node has died before that, its death takes a quarter of a
// second to notice, and each candidate before the one that takes the address takes placeDelay.
const outageLimit = maxListening + formerTime + lossyWindow + 200*time.Millisecond + 12*placeDelay

// watchUnowned fails if no host answers for long for an address that a host can serve.
func (r *referee) watchUnowned(passed time.Duration) {
	w := r.w
	whole := w.loss == 0 && w.now-r.calm > 0
	for _, cut := range w.cut {
		whole = whole && !cut
	}
	for _, h := range w.nodes {
		whole = whole && !h.frozen
	}
	for _, a := range r.addrs {
		wanted := false
		for _, h := range w.nodes {
			wanted = wanted || h.serves() && h.wants[a] != nil
		}
		if !whole || !wanted || len(w.answersFor(a)) > 0 {
			r.unowned[a] = 0
			continue
		}
		if r.unowned[a] += passed; r.unowned[a] > outageLimit {
			w.fail("%v has no owner for longer than %v", a, outageLimit)
		}
	}
}

// judge checks each takeover. Either the owner was dead, silent for longer than the grace, or unable to serve, or it
// had released the address, or the two hosts could not hear each other.
func (r *referee) judge(h *host, e Event) {
	if e.Kind != EventTake || r.w.loss > 0 {
		return
	}
	for _, o := range r.w.nodes {
		pair := [2]int{max(o.number, h.number), min(o.number, h.number)}
		if o == h || !o.serves() || o.answers[e.Addr].Node != o.name || r.hearing[pair] < 4*time.Second || o.m.listening {
			continue
		}
		if n := h.m.neighbours[o.name]; n != nil && n.claims[e.Addr] != 0 {
			r.w.fail("%s took %v, which %s owns", h.name, e.Addr, o.name)
		}
	}
}

// serves reports whether the host could answer for addresses.
func (h *host) serves() bool { return h.running() && h.serving }

// TestMain sets the number of stories, unless a flag sets it: to HERALD_RUNS, or to a few.
func TestMain(m *testing.M) {
	if count, err := strconv.Atoi(os.Getenv(senders)); err == nil {
		fmt.Fprintln(os.Stderr, sendCrowd(count))
		os.Exit(1)
	}
	runs := cmp.Or(os.Getenv("HERALD_RUNS"), "12")
	if err := flag.Set("rapid.checks", runs); err != nil {
		fmt.Fprintln(os.Stderr, "HERALD_RUNS:", err)
		os.Exit(2)
	}
	enclave.RunTests(checked{m})
}

// checked fails a run that leaves goroutines behind.
type checked struct{ m *testing.M }

func (c checked) Run() int {
	code := c.m.Run()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

func TestOneOwner(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := rapid.OneOf(rapid.IntRange(2, 5), rapid.IntRange(2, 5), rapid.IntRange(6, 12)).Draw(t, "nodes")
		story(t, nodes, rapid.SampledFrom([]float64{0, 0, 0.05, 0.3}).Draw(t, "loss"), rapid.IntRange(3, 12).Draw(t, "faults"))
	})
}

func TestOneOwnerAmongMany(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	once := false
	rapid.Check(t, func(t *rapid.T) {
		if !once { // One such story takes as long as all other stories.
			story(t, 16, 0.02, 2)
		}
		once = os.Getenv("HERALD_RUNS") == ""
	})
}

func TestTheSameSeedIsTheSameStory(t *testing.T) {
	tell := func() string {
		w, _ := newWorld(t, 5, 11), vips(20)
		w.loss, w.duplicate = 0.1, 0.1
		for _, h := range w.nodes {
			h.start()
		}
		w.want(vips(20), nil, w.nodes...)
		w.run(2 * time.Second)
		w.nodes[1].power(false)
		w.nodes[2].kill()
		w.run(time.Second)
		w.nodes[2].start()
		w.run(3 * time.Second)
		return strings.Join(w.log, "\n")
	}
	first := tell()
	for range 3 {
		if again := tell(); again != first {
			t.Fatalf("first:\n%s\n\nagain:\n%s", first, again)
		}
	}
}

// drawn is the part of rapid.T and testing.TB that worlds use.
type drawn struct {
	testing.TB
	t *rapid.T
}

func (d drawn) Fatalf(format string, args ...any) { d.t.Fatalf(format, args...) }
func (d drawn) Helper()                           {}

func story(t *rapid.T, nodes int, loss float64, faults int) {
	w, addrs := newWorld(drawn{t: t}, nodes, rapid.Uint64().Draw(t, "seed")), append(vips(6), vips6(3)...)
	w.loss = loss
	w.duplicate = rapid.SampledFrom([]float64{0, 0.1}).Draw(t, "duplicate")
	w.delay = time.Duration(rapid.IntRange(0, 8).Draw(t, "delay ms")) * time.Millisecond
	w.keyDelay = time.Duration(rapid.IntRange(1, 60).Draw(t, "key delay ms")) * time.Millisecond
	for _, h := range w.nodes {
		h.drift = rapid.SampledFrom([]float64{1, 1, 0.98, 1.02}).Draw(t, "drift")
	}
	r := newReferee(w, addrs)
	// One beat, a question and its answer, and the key. An answer to another speaker may just have been sent.
	r.limit = fastPeriod*103/100 + 4*w.delay + w.keyDelay + replyPeriod + pageTime
	if loss > 0 {
		r.limit = 1500 * time.Millisecond
	}
	for _, h := range w.nodes {
		h.start()
		w.run(time.Duration(rapid.IntRange(0, 100).Draw(t, "start"))*time.Millisecond, r.watch)
	}
	preferred := rapid.SampledFrom([]string{"", "", "n1"}).Draw(t, "preferred")
	edit := func(want *ownership.Want) { want.Gradual = preferred != "" }
	w.wantPreferring(addrs, preferred, edit, w.nodes...)
	for range faults {
		h := w.nodes[rapid.IntRange(0, nodes-1).Draw(t, "host")]
		fault := rapid.SampledFrom([]string{"kill", "start", "replace", "stop", "off", "on", "freeze", "thaw", "suspend", "resume", "isolate",
			"deaf", "mute", "heal", "unhealthy", "healthy", "unwanted", "wanted"}).Draw(t, "fault")
		w.logf("--- %s %s", h.name, fault)
		r.calm = w.now
		switch fault {
		case "unwanted":
			w.unwant(addrs[rapid.IntRange(0, len(addrs)-1).Draw(t, "address")])
		case "wanted":
			w.wantPreferring(addrs, preferred, edit, w.nodes...)
		default:
			h.suffer(fault)
		}
		w.run(time.Duration(rapid.SampledFrom([]int{1, 20, 120, 180, 270, 400, 1500, 12_000}).Draw(t, "wait"))*time.Millisecond, r.watch)
	}
	w.logf("--- heal")
	r.calm = w.now
	w.cut = map[[2]int]bool{}
	for _, h := range w.nodes {
		h.suffer("thaw")
	}
	w.run(w.delay, r.watch) // By then all hosts know which addresses are unwanted.
	w.wantPreferring(addrs, preferred, edit, w.nodes...)
	w.run(15*time.Second, r.watch)
	if loss > 0 {
		w.loss = 0
		w.run(2*time.Second, r.watch)
	}
	r.finally()
}

// finally fails unless each address has one owner in the end, if a host can serve it.
func (r *referee) finally() {
	w, can := r.w, 0
	for _, h := range w.nodes {
		if h.serves() {
			can++
		}
	}
	for _, a := range r.addrs {
		if macs, want := w.answersFor(a), min(can, 1); len(macs) != want {
			w.fail("%v is answered with %v; %d nodes can serve it", a, macs, can)
		}
	}
}

// suffer makes a host suffer a fault, or end it.
func (h *host) suffer(fault string) {
	w := h.w
	switch fault {
	case "kill":
		h.kill()
	case "start":
		if h.m == nil && h.kernel {
			h.start()
		}
	case "replace", "stop":
		if h.running() {
			h.m.Leave(h.clock(), fault == "replace")
			h.drain()
			h.kill()
		}
	case "off":
		h.power(false)
	case "on":
		if !h.kernel {
			h.kernel, h.m = true, nil
			h.start()
		}
	case "freeze":
		if h.running() {
			h.frozen = true
		}
	case "thaw":
		if h.frozen || !h.kernel {
			h.goOn()
		}
	case "suspend":
		if h.running() {
			h.kernel = false
		}
	case "resume":
		if !h.kernel && !h.frozen {
			h.goOn()
		}
	case "isolate":
		w.isolate(h, true)
	case "deaf", "mute":
		for _, o := range w.nodes {
			pair := [2]int{h.number, o.number}
			if fault == "deaf" {
				pair = [2]int{o.number, h.number}
			}
			w.cut[pair] = true
		}
	case "heal":
		w.isolate(h, false)
	case "unhealthy", "healthy":
		h.serving = fault == "healthy"
		h.input(func(m *Machine, now Time) { m.Serve(now, h.serving) })
	}
}
