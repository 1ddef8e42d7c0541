package responder_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/heraldlb/herald/speaker/responder"
)

var sibling = responder.MAC(0x51)

func isSibling(iface string, mac net.HardwareAddr) bool {
	return iface == "eth0" && mac.String() == sibling.String()
}

// serve is a responder whose vip on eth0 was announced some time ago.
func serve(t *testing.T, a *responder.Answer, test func(t *testing.T, f *family, r *responder.Responder, w *wire, met *strangers)) {
	t.Helper()
	var met strangers
	o := responder.Options{Burst: ms(0), Refresh: -1, Sibling: isSibling, Conflict: met.add}
	bubble(t, o, func(t *testing.T, f *family, r *responder.Responder, w *wire) {
		r.SetInterfaces([]responder.Interface{eth0, eth1})
		r.Set(f.vip, "eth0", a)
		pass(time.Minute)
		w.taken()
		test(t, f, r, w, &met)
	})
}

func TestADeputyAnswersWithTheMACOfTheOwner(t *testing.T) {
	serve(t, deputy, func(t *testing.T, f *family, _ *responder.Responder, w *wire, met *strangers) {
		w.port("eth0").in <- f.ask(f.vip, netip.Addr{})
		pass(time.Minute)
		all := w.taken()
		// The frame comes from our MAC, so that switches learn nothing new.
		if want := f.answer(mac0, another); len(all) != 1 || all[0].text != want {
			t.Errorf("sent %v, want %q alone", all, want)
		}
		// The owner is not a stranger when it is back, even if it is not known as a sibling.
		w.port("eth0").in <- f.claim(f.vip, another)
		pass(time.Minute)
		if all := met.taken(); len(all) > 0 {
			t.Errorf("reported %v", all)
		}
		w.port("eth0").in <- f.claim(f.vip, clientMAC)
		pass(time.Minute)
		if all := met.taken(); len(all) != 1 {
			t.Errorf("reported %v, want one", all)
		}
		if all := w.taken(); len(all) > 0 {
			t.Errorf("announced %v", all)
		}
	})
}

func TestConflictsAreReportedAndDefendedAgainst(t *testing.T) {
	at := func(ms ...int) (d []time.Duration) {
		for _, n := range ms {
			d = append(d, time.Duration(n)*time.Millisecond)
		}
		return d
	}
	for _, c := range []struct {
		name     string
		answer   *responder.Answer
		by       net.HardwareAddr
		claims   []time.Duration
		reported []time.Duration
		defended []time.Duration
	}{
		{name: "a stranger", answer: owner, by: clientMAC, claims: at(0), reported: at(0), defended: at(0)},
		{name: "at most one report in a second", answer: owner, by: clientMAC, claims: at(0, 10, 999, 1000, 1500, 2000), reported: at(0, 1000, 2000), defended: at(0)},
		{name: "at most one defence in ten seconds, RFC 5227 §2.4", answer: owner, by: clientMAC, claims: at(0, 5000, 8999, 10_000, 15_000, 20_000), reported: at(0, 5000, 8999, 10_000, 15_000, 20_000), defended: at(0, 10_000, 20_000)},
		{name: "not defended", answer: &responder.Answer{Announce: true}, by: clientMAC, claims: at(0), reported: at(0)},
		{name: "defended though never announced", answer: &responder.Answer{Defend: true}, by: clientMAC, claims: at(0, 1), reported: at(0), defended: at(0)},
		{name: "a sibling", answer: owner, by: sibling, claims: at(0)},
		{name: "ourselves", answer: owner, by: mac0, claims: at(0)},
		{name: "another interface of ours", answer: owner, by: mac1, claims: at(0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			serve(t, c.answer, func(t *testing.T, f *family, r *responder.Responder, w *wire, met *strangers) {
				began := time.Now()
				var reported []time.Duration
				for _, at := range c.claims {
					pass(at - time.Since(began))
					w.port("eth0").in <- f.claim(f.vip, c.by)
					pass(0)
					for _, m := range met.taken() {
						if m.Address != f.vip || m.Interface != "eth0" || m.MAC.String() != c.by.String() {
							t.Errorf("reported %v", m)
						}
						reported = append(reported, time.Since(began))
					}
				}
				pass(time.Minute)
				if diff := cmp.Diff(c.reported, reported, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("reported at (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(c.defended, announced(w.taken(), began, "eth0", f.vip), cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("announced at (-want +got):\n%s", diff)
				}
				if n := r.Stats()[0].Conflicts; (n > 0) != (c.reported != nil) {
					t.Errorf("counted %d", n)
				}
			})
		})
	}
}

// Each stranger is reported, but the reports of forged claims from many MACs are bounded.
func TestReportsOfForgedClaimsAreBounded(t *testing.T) {
	serve(t, owner, func(t *testing.T, f *family, r *responder.Responder, w *wire, met *strangers) {
		for i := range 256 {
			w.port("eth0").in <- f.claim(f.vip, net.HardwareAddr{2, 1, 1, 1, 1, byte(i)})
		}
		pass(0)
		if n := len(met.taken()); n != responder.MaxStrangers {
			t.Errorf("%d reports", n)
		}
		if n := r.Stats()[0].Conflicts; n != 256 {
			t.Errorf("counted %d", n)
		}
		pass(time.Second)
		w.port("eth0").in <- f.claim(f.vip, clientMAC)
		pass(0)
		if n := len(met.taken()); n != 1 {
			t.Errorf("%d reports a second later", n)
		}
	})
}

// A request with our address as its sender is a claim, too. The table of frames has such requests.

func TestAProbeFindsStrangersOnly(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(f *family) []byte
		want net.HardwareAddr
	}{
		{name: "nobody"},
		{name: "a stranger that answers", make: func(f *family) []byte { return f.claim(f.vip2, clientMAC) }, want: clientMAC},
		{name: "a stranger that probes as well", make: func(f *family) []byte { return probe(f, f.vip2, clientMAC) }, want: clientMAC},
		{name: "a stranger that uses another address", make: func(f *family) []byte { return f.claim(f.vip2.Next(), clientMAC) }},
		{name: "a stranger that asks for it", make: func(f *family) []byte { return f.ask(f.vip2, netip.Addr{}) }},
		{name: "a sibling that answers", make: func(f *family) []byte { return f.claim(f.vip2, sibling) }},
		{name: "a sibling that probes", make: func(f *family) []byte { return probe(f, f.vip2, sibling) }},
		{name: "our own probe come back", make: func(f *family) []byte { return probe(f, f.vip2, mac0) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			serve(t, owner, func(t *testing.T, f *family, r *responder.Responder, w *wire, met *strangers) {
				began := time.Now()
				var answered bool
				w.hook = func(s sent) {
					if s.kind == "request" && s.addr == f.vip2 && c.make != nil && !answered {
						answered = true
						p := w.open[s.on]
						go func() {
							select {
							case p.in <- c.make(f):
							case <-p.closed:
							}
						}()
					}
				}
				got, err := r.Probe(t.Context(), "eth0", f.vip2)
				if err != nil || got.String() != c.want.String() {
					t.Fatalf("found %v, %v; want %v", got, err, c.want)
				}
				took := time.Since(began)
				var at []time.Duration
				for _, s := range w.taken() {
					if s.kind == "request" && s.addr == f.vip2 {
						at = append(at, s.at.Sub(began))
					}
				}
				if c.want == nil && (took != 300*time.Millisecond || !slices.Equal(at, ms(0, 100, 200))) {
					t.Errorf("probes at %v, took %v", at, took)
				}
				if c.want != nil && took != 0 {
					t.Errorf("took %v", took)
				}
				pass(time.Second)
				if w.port("eth0").passes(f.ask(f.vip2, netip.Addr{})) > 0 {
					t.Error("the filter still accepts the address")
				}
				if all := met.taken(); len(all) > 0 {
					t.Errorf("reported %v as a conflict", all)
				}
				if s := r.Stats(); len(s) != 1 || s[0].Owned != 1 {
					t.Errorf("stats %+v", s)
				}
			})
		})
	}
}

func probe(f *family, addr netip.Addr, mac net.HardwareAddr) []byte {
	frame, err := f.protocol.Probe(mac, addr)
	if err != nil {
		panic(err)
	}
	return frame
}

func TestAProbeThatCannotBeMade(t *testing.T) {
	serve(t, owner, func(t *testing.T, f *family, r *responder.Responder, w *wire, _ *strangers) {
		if _, err := r.Probe(t.Context(), "eth9", f.vip2); err == nil {
			t.Error("probed on an interface that does not exist")
		}
		if _, err := r.Probe(t.Context(), "eth0", netip.MustParseAddr(f.ignored[0])); err == nil {
			t.Error("probed an address of the other family")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		defer cancel()
		if _, err := r.Probe(ctx, "eth0", f.vip2); err == nil {
			t.Error("probed longer than the context lasted")
		}
		w.breakDown(net.ErrClosed)
		if _, err := r.Probe(t.Context(), "eth1", f.vip2); err == nil {
			t.Error("probed without a socket")
		}
		w.breakDown(nil)
		pass(time.Minute)
		// A probe also works on an interface without addresses, and leaves no socket open there.
		if mac, err := r.Probe(t.Context(), "eth1", f.vip2); mac != nil || err != nil {
			t.Errorf("found %v, %v", mac, err)
		}
		pass(time.Second)
		if w.port("eth1") != nil {
			t.Error("the socket stays open")
		}
	})
}
