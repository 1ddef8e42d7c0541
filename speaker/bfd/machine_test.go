package bfd

import (
	"math/rand/v2"
	"testing"
	"time"
)

const ms = time.Millisecond

var (
	epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	fast  = timing{multiplier: 3, tx: 50 * ms, rx: 50 * ms}
)

// rig is a machine for which the test plays the peer.
type rig struct {
	*testing.T
	machine
	now time.Time
}

func newRig(t *testing.T, wish timing) *rig {
	return &rig{T: t, machine: newMachine(epoch, rand.New(rand.NewPCG(1, 2)), 77, wish), now: epoch}
}

// peer returns the default packet of the peer.
func peer(s State) packet {
	return packet{state: s, multiplier: 3, mine: 99, yours: 77, desiredTx: 50 * ms, requiredRx: 50 * ms}
}

// hears gives the machine a packet and returns what it sends at once.
func (r *rig) hears(p packet) []packet {
	r.Helper()
	if drop := r.receive(r.now, &p); drop != Accepted {
		r.Fatalf("%+v is dropped: %v", p, drop)
	}
	return r.says()
}

func (r *rig) says() (out []packet) {
	for {
		p, ok := r.transmit(r.now)
		if !ok {
			return out
		}
		out = append(out, p)
	}
}

// until lets time pass and returns all sent packets. It also does everything that is due at the end.
func (r *rig) until(end time.Time) (out []packet) {
	for {
		at := r.deadline()
		if at.IsZero() || at.After(end) {
			r.now = end
			return out
		}
		if at.After(r.now) {
			r.now = at
		}
		r.tick(r.now)
		out = append(out, r.says()...)
	}
}

// pass is like until, for the duration d from now.
func (r *rig) pass(d time.Duration) []packet { return r.until(r.now.Add(d)) }

// up brings the session up, ends the Poll Sequence that follows, and waits until another one may begin.
func (r *rig) up() *rig {
	r.Helper()
	r.says()
	r.hears(peer(Init))
	f := peer(Up)
	f.final = true
	r.hears(f)
	for r.now.Before(r.polling.from) {
		r.pass(r.detectionTime() / 2)
		r.hears(peer(Up))
	}
	if r.state != Up || r.polling.active {
		r.Fatalf("state %v, polling %+v after the handshake", r.state, r.polling)
	}
	return r
}

func (r *rig) is(s State, d Diag) {
	r.Helper()
	if r.state != s || r.diag != d {
		r.Errorf("state %v with %q, want %v with %q", r.state, r.diag, s, d)
	}
}

func TestStates(t *testing.T) {
	// RFC 5880 §6.8.6: state, received state, new state and diagnostic.
	for _, c := range []struct {
		from, hears, to State
		diag            Diag
	}{
		{Down, AdminDown, Down, DiagNone},
		{Down, Down, Init, DiagNone},
		{Down, Init, Up, DiagNone},
		{Down, Up, Down, DiagNone},
		{Init, AdminDown, Down, DiagNeighborDown},
		{Init, Down, Init, DiagNone},
		{Init, Init, Up, DiagNone},
		{Init, Up, Up, DiagNone},
		{Up, AdminDown, Down, DiagNeighborDown},
		{Up, Down, Down, DiagNeighborDown},
		{Up, Init, Up, DiagNone},
		{Up, Up, Up, DiagNone},
	} {
		t.Run(c.from.String()+" hears "+c.hears.String(), func(t *testing.T) {
			r := newRig(t, fast)
			r.says()
			switch c.from {
			case Init:
				r.hears(peer(Down))
			case Up:
				r.hears(peer(Init))
			}
			said := r.hears(peer(c.hears))
			r.is(c.to, c.diag)
			if news := c.from != c.to; news != (len(said) > 0) {
				t.Errorf("it sends %+v at once, want a packet only if the state is new", said)
			}
			for _, p := range said {
				if p.state != c.to || p.diag != c.diag || p.mine != 77 || p.yours != 99 {
					t.Errorf("it sends %+v", p)
				}
			}
		})
	}
}

func TestPacketsOfOthersHaveNoEffect(t *testing.T) {
	r := newRig(t, fast).up()
	p := peer(Down)
	p.yours = 78
	if drop := r.receive(r.now, &p); drop != DropDiscriminator {
		t.Errorf("a packet for another session: %v", drop)
	}
	r.is(Up, DiagNone)
}

func TestSlowUntilUp(t *testing.T) {
	r := newRig(t, fast)
	said := r.pass(20 * time.Second)
	if n := len(said); n < 20 || n > 28 {
		t.Errorf("%d packets in 20 s, want one every 750 to 1000 ms", n)
	}
	for _, p := range said {
		if p.desiredTx != time.Second || p.requiredRx != 50*ms || p.state != Down || p.poll || p.yours != 0 {
			t.Fatalf("it sends %+v", p)
		}
	}
	said = r.hears(peer(Init))
	if len(said) != 1 || !said[0].poll || said[0].desiredTx != 50*ms || said[0].state != Up {
		t.Fatalf("coming up it sends %+v, want a Poll with the real interval", said)
	}
	if got := r.transmitInterval(); got != 50*ms {
		t.Errorf("it sends every %v", got)
	}
}

func TestSlowerThanASecondStaysSo(t *testing.T) {
	r := newRig(t, timing{multiplier: 3, tx: 2 * time.Second, rx: 2 * time.Second})
	r.says()
	if said := r.hears(peer(Init)); len(said) != 1 || said[0].poll || said[0].desiredTx != 2*time.Second {
		t.Errorf("coming up it sends %+v", said)
	}
}

func TestJitter(t *testing.T) {
	for _, c := range []struct {
		multiplier uint8
		least      time.Duration
		most       time.Duration
	}{{1, 75 * ms, 90 * ms}, {3, 75 * ms, 100 * ms}} {
		r := newRig(t, timing{multiplier: c.multiplier, tx: 100 * ms, rx: 50 * ms}).up()
		shortest, longest := time.Hour, time.Duration(0)
		for range 1000 {
			at := r.transmits()
			gap := at.Sub(r.sent)
			shortest, longest = min(shortest, gap), max(longest, gap)
			r.now = at
			r.heard = at
			if said := r.says(); len(said) != 1 {
				t.Fatalf("%d packets at once", len(said))
			}
		}
		if spread := (c.most - c.least) / 20; shortest < c.least || shortest > c.least+spread || longest > c.most || longest < c.most-spread {
			t.Errorf("multiplier %d: gaps from %v to %v, want %v to %v", c.multiplier, shortest, longest, c.least, c.most)
		}
	}
}

func TestDetectionTime(t *testing.T) {
	// RFC 5880 §6.8.4: the peer's multiplier, and the longer of this end's minimum and the peer's transmit interval.
	for _, c := range []struct {
		name       string
		rx, tx     time.Duration
		multiplier uint8
		want       time.Duration
	}{
		{"the peer is slower", 50 * ms, 200 * ms, 5, time.Second},
		{"we are slower", 300 * ms, 10 * ms, 3, 900 * ms},
		{"one packet", 50 * ms, 50 * ms, 1, 50 * ms},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, timing{multiplier: 200, tx: 10 * ms, rx: c.rx}).up()
			p := peer(Up)
			p.desiredTx, p.multiplier = c.tx, c.multiplier
			r.hears(p)
			heard := r.now
			r.until(heard.Add(c.want - time.Microsecond))
			r.is(Up, DiagNone)
			said := r.until(heard.Add(c.want))
			r.is(Down, DiagTimeExpired)
			if last := said[len(said)-1]; last.state != Down || last.diag != DiagTimeExpired || last.yours != 0 || last.desiredTx != time.Second {
				t.Errorf("it sends %+v", last)
			}
		})
	}
}

func TestAPeerThatFallsSilentInInit(t *testing.T) {
	r := newRig(t, fast)
	r.hears(peer(Down))
	r.is(Init, DiagNone)
	r.pass(time.Second)
	r.is(Down, DiagTimeExpired)
}

func TestAPeerThatWantsNoPacketsGetsNone(t *testing.T) {
	r := newRig(t, fast).up()
	p := peer(Up)
	p.requiredRx = 0
	r.hears(p)
	if said := r.pass(140 * ms); len(said) != 0 {
		t.Errorf("it sends %+v", said)
	}
	p.poll = true
	if said := r.hears(p); len(said) != 1 || !said[0].final {
		t.Errorf("asked, it sends %+v", said)
	}
	r.hears(peer(Up))
	if said := r.pass(140 * ms); len(said) < 2 {
		t.Errorf("wanted again, it sends %d packets in 140 ms", len(said))
	}
	// A peer that has died comes back without its old state.
	p.poll = false
	r.hears(p)
	r.pass(time.Second)
	if r.is(Down, DiagTimeExpired); len(r.pass(2*time.Second)) < 2 {
		t.Error("it is silent for good")
	}
}

func TestAPeerInDemandModeGetsNoPeriodicPackets(t *testing.T) {
	r := newRig(t, fast).up()
	p := peer(Up)
	p.demand = true
	r.hears(p)
	if said := r.pass(140 * ms); len(said) != 0 {
		t.Errorf("it sends %+v", said)
	}
	r.hears(p)
	r.configure(r.now, timing{multiplier: 3, tx: 100 * ms, rx: 50 * ms})
	if said := r.pass(90 * ms); len(said) == 0 || !said[0].poll {
		t.Errorf("with new timing it sends %+v, want a Poll", said)
	}
}

func TestAPollIsAnsweredAtOnceAndByTheWay(t *testing.T) {
	r := newRig(t, fast).up()
	r.pass(10 * ms)
	due := r.transmits()
	p := peer(Up)
	p.poll = true
	for range 3 {
		if said := r.hears(p); len(said) != 1 || !said[0].final || said[0].poll {
			t.Fatalf("it answers %+v", said)
		}
	}
	if r.transmits() != due {
		t.Error("answers delay the periodic packets")
	}
	r = newRig(t, fast)
	r.says()
	p.state = AdminDown
	if said := r.hears(p); r.state != Down || len(said) != 1 || !said[0].final {
		t.Errorf("being %v it answers %+v", r.state, said)
	}
}
