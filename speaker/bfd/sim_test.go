package bfd

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// link is two machines and the network between them, which loses, delays, reorders and duplicates packets.
type link struct {
	rand    *rand.Rand
	now     time.Time
	ends    [2]*machine
	flights []flight
	lost    [2]int // packets in a row, from each end

	// lose reports whether a packet is lost. lost is the number of packets from this end that were lost right before it.
	lose   func(from, lost int) bool
	delay  time.Duration // the maximum delay; the minimum is zero
	double float64       // the probability that a packet is duplicated

	// failed is called when an end finds the other dead. heard is how long ago a packet arrived at that end.
	failed func(end int, heard time.Duration)
	last   [2]time.Time // when a packet last arrived at each end
}

type flight struct {
	to   int
	at   time.Time
	data [packetSize]byte
}

func newLink(seed uint64, wishes [2]timing) *link {
	l := &link{
		rand: rand.New(rand.NewPCG(seed, 0)), now: epoch,
		lose: func(int, int) bool { return false }, failed: func(int, time.Duration) {},
	}
	for i := range l.ends {
		m := newMachine(l.now, l.rand, uint32(i+1), wishes[i])
		l.ends[i] = &m
	}
	return l
}

// until lets time pass until end.
func (l *link) until(end time.Time) {
	for {
		var due time.Time
		for _, f := range l.flights {
			due = earlier(due, f.at)
		}
		for i, m := range l.ends {
			l.transmit(i)
			due = earlier(due, m.deadline())
		}
		if due.After(end) {
			l.now = end
			return
		}
		if due.After(l.now) {
			l.now = due
		}
		// As in Speaker.turn, packets that have arrived are read before an end is found silent.
		for i := 0; i < len(l.flights); i++ {
			if f := l.flights[i]; !f.at.After(l.now) {
				l.flights = slices.Delete(l.flights, i, i+1)
				i--
				l.arrive(f)
			}
		}
		for i, m := range l.ends {
			before := m.state
			m.tick(l.now)
			if before == Up && m.state == Down {
				l.failed(i, l.now.Sub(l.last[i]))
			}
			l.transmit(i)
		}
	}
}

func (l *link) pass(d time.Duration) { l.until(l.now.Add(d)) }

func (l *link) arrive(f flight) {
	p, drop := parse(f.data[:])
	if drop != Accepted {
		panic(fmt.Sprintf("%x: %v", f.data, drop))
	}
	if l.ends[f.to].receive(l.now, &p) == Accepted {
		l.last[f.to] = l.now
	}
	l.transmit(f.to)
}

func (l *link) transmit(from int) {
	for {
		p, ok := l.ends[from].transmit(l.now)
		if !ok {
			return
		}
		if l.lose(from, l.lost[from]) {
			l.lost[from]++
			continue
		}
		l.lost[from] = 0
		f := flight{to: 1 - from, at: l.now.Add(l.somewhat(l.delay))}
		p.marshal(&f.data)
		l.flights = append(l.flights, f)
		if l.rand.Float64() < l.double {
			f.at = l.now.Add(l.somewhat(l.delay))
			l.flights = append(l.flights, f)
		}
	}
}

func (l *link) somewhat(most time.Duration) time.Duration {
	return time.Duration(l.rand.Int64N(int64(most) + 1))
}

// agree describes how the ends differ about the session; empty: they agree.
func (l *link) agree() string {
	for i, m := range l.ends {
		o := l.ends[1-i]
		switch {
		case m.state != Up || m.remote.state != Up:
			return fmt.Sprintf("end %d is %v and takes the other for %v", i, m.state, m.remote.state)
		case m.remote.discriminator != o.mine:
			return fmt.Sprintf("end %d takes the other for %d", i, m.remote.discriminator)
		case m.polling.active || m.polling.again:
			return fmt.Sprintf("end %d asks still: %+v", i, m.polling)
		case m.transmitInterval() != o.receiveInterval():
			return fmt.Sprintf("end %d sends every %v, the other expects it every %v", i, m.transmitInterval(), o.receiveInterval())
		case m.transmitInterval() != max(m.wish.tx, o.wish.rx):
			return fmt.Sprintf("end %d sends every %v, which nobody wants", i, m.transmitInterval())
		}
	}
	return ""
}

func randomTiming(r *rand.Rand, leastMultiplier int) timing {
	interval := func() time.Duration { return time.Duration(10+r.IntN(490)) * ms }
	return timing{multiplier: uint8(leastMultiplier + r.IntN(4)), tx: interval(), rx: interval()}
}

// seeds runs a test with many seeds, or only with HERALD_SEED.
func seeds(t *testing.T, story func(t *testing.T, seed uint64)) {
	if s := os.Getenv("HERALD_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal("HERALD_SEED:", err)
		}
		story(t, seed)
		return
	}
	for seed := range uint64(300) {
		if story(t, seed); t.Failed() {
			t.Fatalf("HERALD_SEED=%d repeats this", seed)
		}
	}
}

// Whatever has happened on the path, the ends agree once packets pass again.
func TestEndsAgreeAfterChaos(t *testing.T) {
	seeds(t, func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		l := newLink(seed, [2]timing{randomTiming(r, 1), randomTiming(r, 1)})
		l.delay, l.double = time.Duration(r.IntN(2000))*ms, 0.2
		for range 20 {
			loss := [2]float64{r.Float64(), r.Float64()}
			l.lose = func(from, _ int) bool { return r.Float64() < loss[from] }
			l.pass(time.Duration(r.IntN(3000)) * ms)
			switch end := r.IntN(2); r.IntN(4) {
			case 0:
				l.ends[end].configure(l.now, randomTiming(r, 1))
			case 1: // The end crashes, and forgets its state.
				m := newMachine(l.now, r, r.Uint32()|1, randomTiming(r, 1))
				l.ends[end] = &m
			}
		}
		l.lose, l.delay, l.double = func(int, int) bool { return false }, ms, 0
		// With short intervals the multiplier 1 leaves no room for the delay.
		for _, m := range l.ends {
			w := m.wish
			w.multiplier = max(w.multiplier, 2)
			m.configure(l.now, w)
		}
		// This allows for late packets (2 s), detection (5 × 1 s), and two Poll Sequences with a detection time in between.
		l.pass(20 * time.Second)
		if why := l.agree(); why != "" {
			t.Error(why)
		}
	})
}

// As long as no more packets in a row are lost than the multiplier allows, no end finds the other dead, even while the timing of
// both ends changes. The multiplier n allows n-2 lost packets: a packet that is sent again after a change may be that late.
func TestNoEndIsFoundDeadThatIsHeard(t *testing.T) {
	seeds(t, func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		l := newLink(seed, [2]timing{randomTiming(r, 3), randomTiming(r, 3)})
		l.double = 0.1
		l.delay = 4 * ms // Less than half of the shortest interval, so that periodic packets do not overtake each other.
		l.pass(10 * time.Second)
		if why := l.agree(); why != "" {
			t.Fatal(why)
		}
		l.lose = func(_, lost int) bool { return lost < 1 && r.Float64() < 0.3 }
		l.failed = func(end int, heard time.Duration) {
			t.Errorf("after %v end %d found the other dead, %v after it heard of it: %+v", l.now.Sub(epoch), end, heard, l.ends[end])
		}
		for range 60 {
			l.pass(time.Duration(r.IntN(800)) * ms)
			l.ends[r.IntN(2)].configure(l.now, randomTiming(r, 3))
		}
		l.pass(10 * time.Second)
		if why := l.agree(); why != "" {
			t.Error(why)
		}
	})
}

// An end that falls silent is found dead after exactly the detection time that the ends have agreed on.
func TestSilenceIsFoundInTheDetectionTime(t *testing.T) {
	seeds(t, func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		wishes := [2]timing{randomTiming(r, 2), randomTiming(r, 2)}
		l := newLink(seed, wishes)
		l.delay = 2 * ms
		l.pass(10 * time.Second)
		if why := l.agree(); why != "" {
			t.Fatal(why)
		}
		silent := r.IntN(2)
		dead := time.Duration(-1)
		l.failed = func(end int, heard time.Duration) {
			if end == 1-silent {
				dead = heard
			}
		}
		l.lose = func(from, _ int) bool { return from == silent }
		want := time.Duration(wishes[silent].multiplier) * max(wishes[silent].tx, wishes[1-silent].rx)
		l.pass(want + l.delay)
		if dead != want {
			t.Errorf("found dead %v after the last packet, want %v", dead, want)
		}
		if got := l.ends[1-silent]; got.diag != DiagTimeExpired {
			t.Errorf("diagnostic %v", got.diag)
		}
		// The silent end learns this from the next packet.
		l.pass(time.Second + l.delay)
		if got := l.ends[silent]; got.state == Up {
			t.Errorf("the end that is not heard is %v", got.state)
		}
	})
}

// An end that closes its session does not count as failed.
func TestAClosedEndIsNotDead(t *testing.T) {
	seeds(t, func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		l := newLink(seed, [2]timing{randomTiming(r, 3), randomTiming(r, 3)})
		l.delay = 2 * ms
		l.pass(10 * time.Second)
		l.lose = func(_, lost int) bool { return lost < 1 && r.Float64() < 0.3 }
		l.failed = func(end int, _ time.Duration) {
			if end == 0 {
				t.Error("found dead")
			}
		}
		l.ends[1].close(l.now, time.Second)
		l.until(l.ends[1].ends.Add(-1))
		l.ends[1].ends = time.Time{}
		l.pass(l.delay)
		if m := l.ends[0]; m.state == Up || m.remote.diag != DiagAdminDown {
			t.Errorf("the other end is %v, with %v", m.state, m.remote.diag)
		}
	})
}
