package speaker

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/heraldlb/herald/speaker/segment"
)

// written is an answer of kube-proxy that wrote its rules at these times.
func written(at4, at6 time.Time) string {
	return fmt.Sprintf(`{"lastUpdated":%q,"healthy":true,"status":{"IPv4":{"lastUpdated":%q,"healthy":true},"IPv6":{"lastUpdated":%q,"healthy":true}}}`,
		time.Now().Add(time.Hour).Format(time.RFC3339Nano), at4.Format(time.RFC3339Nano), at6.Format(time.RFC3339Nano))
}

func TestAnAddressWaitsUntilKubeProxyHasWrittenItsRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // The timers of both goroutines fire at the same moments.
		ready := map[netip.Addr]bool{}
		f := newForwarding(zap.NewNop(), func(addrs []netip.Addr) {
			mu.Lock()
			defer mu.Unlock()
			for _, a := range addrs {
				ready[a] = true
			}
		})
		waits := func(a netip.Addr) bool {
			mu.Lock()
			defer mu.Unlock()
			return !ready[a]
		}
		began := time.Now()
		var answer atomic.Value
		answer.Store(written(began, began))
		h := newProxyHealth("http://127.0.0.1:10256/healthz", zap.NewNop(), func() {}, f)
		go func() {
			_ = h.follow(t.Context(), func() string { f.take(strings.NewReader(answer.Load().(string))); return "" })
		}()
		synctest.Wait()
		for _, step := range []struct {
			name   string
			addr   netip.Addr
			after  time.Duration // when kube-proxy writes its rules; 0: it does not
			family int
			want   time.Duration
		}{
			{"at once", vip, time.Millisecond, 4, forwardingPeriod},
			{"a second later", vip, time.Second + time.Millisecond, 4, time.Second + forwardingPeriod},
			{"for the other family alone", vip, time.Millisecond, 6, forwardingPatience},
			{"an IPv6 address", vip6, 300 * time.Millisecond, 6, 300 * time.Millisecond},
			{"never", vip, 0, 4, forwardingPatience},
		} {
			mu.Lock()
			clear(ready)
			mu.Unlock()
			since := time.Now()
			f.await(step.addr, since)
			for waits(step.addr) && time.Since(since) < time.Minute {
				if step.after > 0 && time.Since(since) >= step.after {
					if at := since.Add(step.after); step.family == 4 {
						answer.Store(written(at, began))
					} else {
						answer.Store(written(began, at))
					}
				}
				time.Sleep(time.Millisecond)
				synctest.Wait()
			}
			if took := time.Since(since); took < step.want-forwardingPeriod || took > step.want+2*forwardingPeriod {
				t.Errorf("%s: the address waited %v, want about %v", step.name, took, step.want)
			}
			if f.isWaiting(step.addr) || !f.idle() {
				t.Errorf("%s: it still waits", step.name)
			}
		}
		if n := testutil.ToFloat64(f.expired); n != 2 {
			t.Errorf("%v waits expired, want 2", n)
		}
		f.await(vip, time.Now())
		if f.forget(vip); f.isWaiting(vip) {
			t.Error("it was forgotten and waits")
		}
	})
}

// Where kube-proxy does not tell, nothing waits.
func TestNothingWaitsForAProxyThatDoesNotTell(t *testing.T) {
	now := time.Now()
	for _, story := range []struct {
		name, answer string
		want         bool
	}{
		{"Kubernetes 1.33 and later", written(now, now), true},
		{"before", `{"lastUpdated": "2026-03-01T12:00:00Z","currentTime": "2026-03-01T12:00:00Z", "nodeEligible": true}`, false},
		{"another program", "ok", false},
		{"no such family", `{"status":{"IPv6":{"lastUpdated":"2026-03-01T12:00:00Z"}}}`, false},
		{"garbage", `{"status":{"IPv4":{"lastUpdated":7}}}`, false},
		{"endless", `{"status":{"IPv4":{"lastUpdated":"2026-03-01T12:00:00Z"}},"x":"` + strings.Repeat("x", maxHealth) + `"}`, false},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(story.answer)) }))
		f := newForwarding(zap.NewNop(), nil)
		h := newProxyHealth(server.URL, zap.NewNop(), func() {}, f)
		if reason := h.probe(t.Context(), &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}); reason != "" {
			t.Errorf("%s: %s", story.name, reason)
		}
		if f.await(vip, now); f.isWaiting(vip) != story.want {
			t.Errorf("%s: an address waits: %v", story.name, !story.want)
		}
		f.forget(vip)
		f.take(strings.NewReader("ok")) // Another program took kube-proxy's place.
		if f.await(vip, now); f.isWaiting(vip) {
			t.Errorf("%s: an address waits for a program that does not tell", story.name)
		}
		server.Close()
	}
}

// An address that has just got its first endpoint is announced to routers, and answered for, when kube-proxy forwards.
func TestAnAddressIsAnnouncedWhenItIsForwarded(t *testing.T) {
	const address = "198.51.100.7"
	l := loopOf(t, "n1", serviceWith(address), recordFor(address, "web-uid"), slice("web-a", web))
	l.s.health.serves.Store(true)
	began := time.Now()
	changed := func() changes {
		c := about(address)
		c.since = time.Now()
		return c
	}
	l.s.forwarding.take(strings.NewReader(written(began, began)))
	l.pass(changed())
	l.put(t, slice("web-a", web, endpoint("n2", new(true))))
	l.pass(changed())
	if d := l.decisions[vip]; len(d.Exports) != 0 || said(d) != "eth0: n1 n2 n3" {
		t.Fatalf("kube-proxy does not know it: %s, and to routers %v", said(d), d.Exports)
	}
	l.s.segments.answer("eth0", segment.Answer{Addr: vip, Node: "n1", Announce: true})
	if len(l.s.segments.held) != 1 {
		t.Error("it is answered for")
	}
	l.s.segments.answer("eth0", segment.Answer{Addr: vip, Node: "n2"})
	if len(l.s.segments.held) != 0 {
		t.Error("what this node answers for another is held back")
	}
	l.s.segments.answer("eth0", segment.Answer{Addr: vip, Node: "n1", Announce: true})
	l.s.inputs.take()
	l.s.forwarding.take(strings.NewReader(written(time.Now(), time.Now())))
	l.s.forwarding.release(time.Now())
	if len(l.s.segments.held) != 0 {
		t.Error("it is not answered for, though it is forwarded")
	}
	l.pass(l.s.inputs.take())
	if d := l.decisions[vip]; len(d.Exports) != 1 {
		t.Fatalf("kube-proxy knows it, and to routers it is %v", d.Exports)
	}
	// What is announced stays so, whatever kube-proxy says, and one that is excluded for a while does not wait.
	l.s.forwarding.take(strings.NewReader(written(began, began)))
	l.put(t, slice("web-a", web, endpoint("n3", new(true))))
	l.pass(changed())
	editNode(l.shared, "n1", func(n *Node) { n.Excluded = true })
	l.pass(changed())
	if d := l.decisions[vip]; len(d.Exports) != 0 {
		t.Fatalf("an excluded node announces: %v", d.Exports)
	}
	editNode(l.shared, "n1", func(n *Node) { n.Excluded = false })
	l.pass(changed())
	if d := l.decisions[vip]; len(d.Exports) != 1 {
		t.Errorf("it is not announced: %v", d.Exports)
	}
	// One that loses its endpoints while it waits does not wait any more.
	l.put(t, slice("web-a", web))
	l.pass(changed())
	l.put(t, slice("web-a", web, endpoint("n2", new(true))))
	l.pass(changed())
	if !l.s.forwarding.isWaiting(vip) {
		t.Error("it does not wait")
	}
	l.put(t, slice("web-a", web))
	if l.pass(changed()); l.s.forwarding.isWaiting(vip) {
		t.Error("it has no endpoints and waits")
	}
}

// An address that is announced without endpoints does not wait any more when its last endpoint goes, and neither does
// what is answered for it: the segment, for which nothing has changed, does not tell it again.
func TestAnAddressThatLosesItsEndpointsWhileItWaitsIsAnsweredFor(t *testing.T) {
	const address = "198.51.100.7"
	for _, withoutEndpoints := range []bool{true, false} {
		l := loopOf(t, "n1", serviceWith(address), recordFor(address, "web-uid"), slice("web-a", web))
		l.shared.L2[0].WithoutEndpoints = withoutEndpoints
		l.s.health.serves.Store(true)
		began := time.Now()
		l.s.forwarding.take(strings.NewReader(written(began, began)))
		for _, endpoints := range [][]discoveryv1.Endpoint{{endpoint("n2", new(true))}, nil} {
			l.put(t, slice("web-a", web, endpoints...))
			c := about(address)
			c.since = time.Now()
			l.pass(c)
			if endpoints != nil {
				l.s.segments.answer("eth0", segment.Answer{Addr: vip, Node: "n1", Announce: true})
			}
		}
		if held := len(l.s.segments.held) > 0; held == withoutEndpoints {
			t.Errorf("announced without endpoints: %v; it is held back: %v", withoutEndpoints, held)
		}
	}
}

// Whatever comes first, the answer is given in the end.
func TestAnAnswerThatIsHeldBackIsNotLost(t *testing.T) {
	for range 200 {
		l := newSegments(segment.Config{Node: "n1"}, zap.NewNop(), nil, func() {})
		l.arp = loopOf(t, "n1").s.arp
		f := newForwarding(zap.NewNop(), l.forwards)
		l.waits = f.isWaiting
		f.take(strings.NewReader(written(time.Now(), time.Now())))
		f.await(vip, time.Now().Add(-time.Hour))
		var both sync.WaitGroup
		both.Go(func() { f.release(time.Now()) })
		both.Go(func() { l.answer("eth0", segment.Answer{Addr: vip, Node: "n1", Announce: true}) })
		both.Wait()
		if len(l.held) > 0 {
			t.Fatal("it is held back for good")
		}
	}
}
