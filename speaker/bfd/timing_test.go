package bfd

import (
	"testing"
	"time"
)

func TestTimingChangesByPoll(t *testing.T) {
	slow := timing{multiplier: 5, tx: 200 * ms, rx: 200 * ms}
	t.Run("slower", func(t *testing.T) {
		r := newRig(t, fast).up()
		r.configure(r.now, slow)
		// This end may send less often only when the peer knows. The peer may do so at once.
		if r.transmitInterval() != 50*ms || r.receiveInterval() != 200*ms {
			t.Errorf("before the Final: sends every %v, expects every %v", r.transmitInterval(), r.receiveInterval())
		}
		said := r.pass(100 * ms)
		if len(said) < 2 || !said[0].poll || said[0].desiredTx != 200*ms || said[0].requiredRx != 200*ms || said[0].multiplier != 5 {
			t.Fatalf("it sends %+v", said)
		}
		f := peer(Up)
		f.final = true
		r.hears(f)
		if r.transmitInterval() != 200*ms || r.polling.active {
			t.Errorf("after the Final: sends every %v", r.transmitInterval())
		}
		r.is(Up, DiagNone)
	})
	t.Run("faster", func(t *testing.T) {
		r := newRig(t, slow).up()
		r.configure(r.now, fast)
		if r.transmitInterval() != 50*ms || r.receiveInterval() != 200*ms {
			t.Errorf("before the Final: sends every %v, expects every %v", r.transmitInterval(), r.receiveInterval())
		}
		r.hears(peer(Up)) // no Final
		if r.receiveInterval() != 200*ms {
			t.Error("it expects packets that the peer does not know of")
		}
		f := peer(Up)
		f.final = true
		r.hears(f)
		if r.receiveInterval() != 50*ms {
			t.Errorf("after the Final: expects every %v", r.receiveInterval())
		}
	})
	t.Run("twice", func(t *testing.T) {
		r := newRig(t, slow).up()
		r.configure(r.now, fast)
		r.pass(10 * ms)
		r.configure(r.now, timing{multiplier: 3, tx: 50 * ms, rx: 100 * ms})
		f := peer(Up)
		f.final = true
		r.hears(f)
		if r.receiveInterval() != 100*ms {
			t.Errorf("after the first Final: expects every %v", r.receiveInterval())
		}
		again := r.now
		r.hears(f) // a second answer to the first Poll
		for r.now.Before(again.Add(r.detectionTime())) {
			for _, p := range r.pass(50 * ms) {
				if p.poll && r.now.Before(again.Add(r.detectionTime())) {
					t.Error("the next Poll begins before the answers to the last one are out of the way")
				}
			}
			r.hears(peer(Up))
		}
		said := r.pass(60 * ms)
		if len(said) == 0 || !said[0].poll {
			t.Fatalf("it sends %+v, want the second Poll", said)
		}
		r.hears(f)
		if r.polling.active || r.polling.again {
			t.Errorf("polling %+v", r.polling)
		}
	})
	t.Run("to what it is", func(t *testing.T) {
		r := newRig(t, fast).up()
		r.configure(r.now, fast)
		if r.polling.active {
			t.Error("it polls about nothing")
		}
	})
}

func TestAFasterReceiverIsServedAtOnce(t *testing.T) {
	r := newRig(t, fast).up()
	p := peer(Up)
	p.requiredRx = 10 * time.Second
	r.hears(p)
	r.pass(140 * ms)
	// RFC 5880 §6.8.3: the next packet counts from the last one, however long ago that was.
	if said := r.hears(peer(Up)); len(said) != 1 {
		t.Errorf("it sends %+v", said)
	}
}

func TestClosing(t *testing.T) {
	t.Run("tells the peer for its detection time", func(t *testing.T) {
		r := newRig(t, fast).up()
		r.close(r.now, time.Second)
		ends := r.ends
		if ends != r.now.Add(150*ms) {
			t.Errorf("it ends %v from now, want the 150 ms after which the peer knows", ends.Sub(r.now))
		}
		said := r.says()
		p := peer(Up)
		if drop := r.receive(r.now, &p); drop != DropAdminDown {
			t.Errorf("what it hears: %v", drop)
		}
		for r.deadline().Before(ends) {
			r.now = r.deadline()
			r.tick(r.now)
			said = append(said, r.says()...)
		}
		if len(said) < 3 {
			t.Errorf("it says so %d times, want 3 or 4", len(said))
		}
		for _, p := range said {
			if p.state != AdminDown || p.diag != DiagAdminDown || p.desiredTx < time.Second {
				t.Errorf("it sends %+v", p)
			}
		}
	})
	t.Run("takes no longer than it may", func(t *testing.T) {
		r := newRig(t, timing{multiplier: 10, tx: 5 * time.Second, rx: 5 * time.Second}).up()
		r.close(r.now, time.Second)
		if r.ends != r.now.Add(time.Second) {
			t.Errorf("it ends %v from now", r.ends.Sub(r.now))
		}
	})
	t.Run("is quick where nobody was heard", func(t *testing.T) {
		r := newRig(t, fast)
		r.says()
		r.close(r.now, time.Second)
		if said := r.says(); len(said) != 1 || said[0].state != AdminDown || r.ends != r.now {
			t.Errorf("it sends %+v, and ends %v from now", said, r.ends.Sub(r.now))
		}
	})
}

func TestMeasurement(t *testing.T) {
	r := newRig(t, fast).up()
	r.measured = measured{}
	for _, gap := range []time.Duration{0, 40, 50, 60, 10} {
		r.pass(gap * ms)
		p := peer(Up)
		r.hears(p)
		p.final = true // An answer is not a periodic packet.
		r.hears(p)
	}
	if want := (Measurement{Count: 4, Min: 10 * ms, Mean: 40 * ms, Max: 60 * ms}); r.measured.Measurement != want {
		t.Errorf("measured %+v, want %+v", r.measured.Measurement, want)
	}
	p := peer(Up)
	p.desiredTx = 100 * ms
	r.hears(p)
	if r.measured.Count != 0 {
		t.Error("new intervals are measured together with the old ones")
	}
}
