package speaker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/heraldlb/herald/speaker/announce"
	"github.com/heraldlb/herald/speaker/segment"
)

const proxyURL = "http://127.0.0.1:10249/metrics"

// idleProxy returns the state of a kube-proxy that wrote its rules long ago and has heard of no change since.
func idleProxy() proxyState {
	w := written{queued: time.Now().Add(-time.Hour), ended: time.Now().Add(-time.Hour), times: 1, took: time.Second}
	return proxyState{corev1.IPv4Protocol: w, corev1.IPv6Protocol: w}
}

// proxyModel is a kube-proxy for one family. It writes as soon as it hears of a change, but not within a second of its last
// write. A write does not include changes that come while it runs.
type proxyModel struct {
	rng      *rand.Rand
	told     written
	pending  bool
	heard    time.Time // when it heard of the change that an address waits for
	has      bool      // whether its rules have that change
	takes    bool      // whether the current write has that change
	began    time.Time // begin of the current write; zero: there is none
	lasts    time.Duration
	slowness time.Duration
	tail     time.Duration // by how much the measured duration of a write extends beyond its end
}

func (m *proxyModel) hear(now time.Time, change bool) {
	m.told.queued, m.pending = now, true
	if change {
		m.heard = now
	}
}

func (m *proxyModel) step(now time.Time) {
	if !m.began.IsZero() && !now.Before(m.began.Add(m.lasts)) {
		m.told.ended = now
		m.told.times++
		took := now.Sub(m.began) + m.tail
		m.told.took += took
		for m.told.longest < took { // The bounds of the buckets are those of kube-proxy's histogram.
			m.told.longest = max(time.Millisecond, 2*m.told.longest)
		}
		m.has, m.began = m.takes, time.Time{}
	}
	if m.began.IsZero() && m.pending && now.Sub(m.told.ended) >= time.Second {
		m.began, m.pending, m.takes = now, false, !m.heard.IsZero()
		m.lasts = time.Duration(m.rng.Int64N(int64(m.slowness)))
	}
}

// Whatever other changes kube-proxy hears of, and however slow it is: an address that does not wait any more is in its rules,
// and no address waits longer than the rest of the current write and the next one take.
func TestAnAddressWaitsUntilKubeProxyHasWrittenItsRules(t *testing.T) {
	const tick = 5 * time.Millisecond
	longest := time.Duration(0)
	for seed := range uint64(20000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		now := time.Unix(1_800_000_000, 0)
		m := &proxyModel{rng: rng, told: written{queued: now.Add(-time.Minute), ended: now.Add(-time.Duration(rng.IntN(2000)) * time.Millisecond), times: 7, took: time.Second}}
		m.slowness = []time.Duration{tick, 60 * time.Millisecond, 900 * time.Millisecond}[rng.IntN(3)]
		m.told.longest = m.slowness // It has been equally slow before.
		m.tail = []time.Duration{0, time.Millisecond, 20 * time.Millisecond}[rng.IntN(3)]
		others := []int{0, 2, 100}[rng.IntN(3)] // changes per second that do not concern the address
		for range rng.IntN(400) {
			if now = now.Add(tick); rng.IntN(200) < others {
				m.hear(now, false)
			}
			m.step(now)
		}
		now = now.Add(tick)
		othersDeliver := rng.IntN(2) > 0
		within := map[bool]time.Duration{false: heardWithin, true: heardSurelyWithin}[othersDeliver]
		late := time.Duration(rng.Int64N(int64(2*within-tick))) - within // of kube-proxy relative to the speaker, which hears at a tick
		since, next := now.Add(max(0, -late)), now.Add(max(0, -late))
		hears := now.Add(max(0, late))
		f := newForwarding(proxyURL, zap.NewNop(), nil)
		f.await(vip, since, othersDeliver, healthPorts{})
		w := f.waiting[vip]
		for over := false; !over; now = now.Add(tick) {
			if m.heard.IsZero() && !now.Before(hears) {
				m.hear(now, true)
			} else if rng.IntN(200) < others {
				m.hear(now, false)
			}
			m.step(now)
			if now.Before(next) {
				continue
			}
			next = now.Add(forwardingPeriod)
			over = w.over(now, proxyState{corev1.IPv4Protocol: m.told}, vip)
			if over && !m.has {
				t.Fatalf("seed %d: it is announced %v after the change, and kube-proxy has not written it", seed, now.Sub(since))
			}
			if now.Sub(since) > time.Minute {
				t.Fatalf("seed %d: it waits for good", seed)
			}
		}
		waited := now.Sub(since)
		longest = max(longest, waited)
		if limit := within + 2*time.Second + 3*m.slowness + 2*forwardingPeriod; waited > limit {
			t.Errorf("seed %d: it waits %v, want %v at most", seed, waited, limit)
		}
		if others == 0 && m.slowness <= 60*time.Millisecond && waited > quietAfter+time.Second+3*m.slowness+2*forwardingPeriod {
			t.Errorf("seed %d: it waits %v though kube-proxy has nothing else to do", seed, waited)
		}
	}
	t.Logf("the longest wait took %v", longest)
}

// An address waits no longer than forwardingPatience, and not at all if kube-proxy does not tell.
func TestAWaitEnds(t *testing.T) {
	refused := errors.New("connection refused")
	stuck := func() proxyState {
		return proxyState{corev1.IPv4Protocol: {queued: time.Now(), ended: time.Now().Add(-time.Hour), times: 1}}
	}
	old := func() proxyState { return proxyState{"": stuck()[corev1.IPv4Protocol]} }
	other := func() proxyState { return proxyState{corev1.IPv6Protocol: {}} }
	none := func() proxyState { return nil }
	timeout := &url.Error{Err: context.DeadlineExceeded}
	for _, story := range []struct {
		name  string
		told  bool
		state func() proxyState
		err   error
		want  time.Duration
		late  float64
	}{
		{"kube-proxy has written all", true, idleProxy, nil, heardWithin, 0},
		{"kube-proxy does not come to write", true, stuck, nil, forwardingPatience, 1},
		{"kube-proxy hangs", true, none, timeout, forwardingPatience, 1},
		{"kube-proxy hangs and was never asked before", false, none, timeout, forwardingPatience, 1},
		{"kube-proxy restarts", true, none, refused, forwardingPatience, 1},
		{"no kube-proxy", false, none, refused, 0, 1},
		{"kube-proxy of another family", true, other, nil, 0, 0},
		{"kube-proxy before 1.33", true, old, nil, forwardingPatience, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			over := make(chan []netip.Addr, 1)
			f := newForwarding(proxyURL, zap.NewNop(), func(addrs []netip.Addr) { over <- addrs })
			f.told = story.told
			ctx, end := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- f.follow(ctx, func() (proxyState, error) { return story.state(), story.err }, nil) }()
			since := time.Now()
			f.await(vip, since, false, healthPorts{})
			if got := <-over; !slices.Equal(got, []netip.Addr{vip}) {
				t.Errorf("%s: %v", story.name, got)
			}
			if took := time.Since(since); took < story.want || took > story.want+2*forwardingPeriod {
				t.Errorf("%s: it waited %v, want %v", story.name, took, story.want)
			}
			if n := testutil.ToFloat64(f.expired); n != story.late || f.isWaiting(vip) || !f.idle() {
				t.Errorf("%s: %v waits expired, want %v", story.name, n, story.late)
			}
			f.await(vip, time.Now(), false, healthPorts{})
			if !f.forget(vip) || f.isWaiting(vip) || f.forget(vip) {
				t.Errorf("%s: it was forgotten and waits", story.name)
			}
			end()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	f := newForwarding(proxyURL, zap.NewNop(), func([]netip.Addr) {})
	since := time.Now()
	f.await(vip, since, false, healthPorts{})
	for _, step := range []struct {
		name            string
		asked, answered time.Duration
		err             error
		waits           bool
	}{
		{"it hangs", 50 * time.Millisecond, 800 * time.Millisecond, timeout, true},
		{"it goes on", 850 * time.Millisecond, 1200 * time.Millisecond, nil, true},
		{"it has just gone on", 1250 * time.Millisecond, 1251 * time.Millisecond, nil, true},
		{"it has had time to hear", 1301 * time.Millisecond, 1302 * time.Millisecond, nil, false},
	} {
		if f.release(since.Add(step.asked), since.Add(step.answered), idleProxy(), step.err, nil); f.isWaiting(vip) != step.waits {
			t.Errorf("%s: the address waits: %v", step.name, !step.waits)
		}
	}
	// A kube-proxy that is always slow does not make the address wait forever.
	since = time.Now()
	f.await(vip, since, false, healthPorts{})
	for i := range 4 {
		asked := since.Add(time.Duration(i) * 120 * time.Millisecond)
		f.release(asked, asked.Add(70*time.Millisecond), idleProxy(), nil, nil)
		if f.isWaiting(vip) != (i < 2) {
			t.Errorf("after %d slow answers the address waits: %v", i+1, f.isWaiting(vip))
		}
	}
	f = newForwarding("", zap.NewNop(), nil)
	if f.await(vip, time.Now(), false, healthPorts{}); f.isWaiting(vip) || f.run(t.Context()) != nil {
		t.Error("an address waits where nobody can be asked")
	}
}

// A kube-proxy that has lost its metrics delays a few announcements, and then none until its metrics can be read again. A restart, during
// which many addresses wait, is not taken for that.
func TestAKubeProxyThatHasLostItsMetricsDelaysNoFurtherAddress(t *testing.T) {
	timeout := &url.Error{Err: context.DeadlineExceeded}
	for _, story := range []struct {
		name string
		told bool
		err  error
	}{
		{"they are gone", true, errors.New("connection refused")}, {"they are behind a firewall", false, timeout}, {"it hangs", true, timeout},
	} {
		synctest.Test(t, func(t *testing.T) {
			over := make(chan []netip.Addr, 10)
			f := newForwarding(proxyURL, zap.NewNop(), func(addrs []netip.Addr) { over <- addrs })
			f.told = story.told
			var broken atomic.Bool
			broken.Store(true)
			go func() {
				_ = f.follow(t.Context(), func() (proxyState, error) {
					if broken.Load() {
						return nil, story.err
					}
					return idleProxy(), nil
				}, nil)
			}()
			waits := func(what string, want time.Duration) {
				t.Helper()
				since := time.Now()
				f.await(vip, since, false, healthPorts{})
				if <-over; time.Since(since) < want || time.Since(since) > want+2*forwardingPeriod {
					t.Errorf("%s, %s: it waited %v, want %v", story.name, what, time.Since(since), want)
				}
			}
			begin := time.Now()
			for i := range 5 { // They all wait at the same time.
				f.await(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), begin.Add(time.Duration(i)*forwardingPeriod), false, healthPorts{})
			}
			for range 5 {
				<-over
			}
			for i := range vainWaits - 1 {
				waits(fmt.Sprint("address ", i), forwardingPatience)
			}
			for range 3 {
				waits("a later address", 0)
			}
			broken.Store(false)
			waits("they can be read", heardWithin)
			broken.Store(true)
			waits("they cannot be read for a moment", forwardingPatience)
		})
	}
}

const proxyText = `# HELP kubeproxy_sync_proxy_rules_duration_seconds [ALPHA] SyncProxyRules latency in seconds
# TYPE kubeproxy_sync_proxy_rules_duration_seconds histogram
kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.001"} 0
kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.128"} 3
kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="+Inf"} 3
kubeproxy_sync_proxy_rules_duration_seconds_sum{ip_family="IPv4"} 0.25
kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv4"} 3
# TYPE kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds gauge
kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv4"} 1.8e+09
# TYPE kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge
kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"} 1.8000000005e+09
# TYPE kubeproxy_sync_proxy_rules_service_changes_pending gauge
kubeproxy_sync_proxy_rules_service_changes_pending 0
# TYPE rest_client_requests_total counter
rest_client_requests_total{code="200"} 7
`

func TestWhatKubeProxyTells(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	told := written{queued: at, ended: at.Add(500 * time.Millisecond), times: 3, took: 250 * time.Millisecond, longest: 128 * time.Millisecond}
	endless := strings.Repeat("# a comment\n", maxProxyMetrics/12+1) + proxyText
	for _, story := range []struct {
		name, body string
		family     corev1.IPFamily
		fails      string
	}{
		{"a family", proxyText, "IPv4", ""},
		{"before families were told apart", strings.NewReplacer(`{ip_family="IPv4"}`, "", `ip_family="IPv4",`, "").Replace(proxyText), "", ""},
		{"another program", "# TYPE up gauge\nup 1\n", "", "no metric tells"},
		{"one that heard of nothing yet", strings.NewReplacer("1.8000000005e+09", "0", "1.8e+09", "0").Replace(proxyText), "", "no metric tells"},
		{"not a number", strings.Replace(proxyText, "1.8000000005e+09", "soon", 1), "", "expected float"},
		{"too long", endless, "", "no metric tells"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(story.body)) }))
		state, err := readProxyState(t.Context(), &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, server.URL)
		server.Close()
		switch {
		case story.fails != "":
			if err == nil || !strings.Contains(err.Error(), story.fails) {
				t.Errorf("%s: %v, want %q", story.name, err, story.fails)
			}
		case err != nil || len(state) != 1:
			t.Errorf("%s: %+v, %v", story.name, state, err)
		default:
			if got := state[story.family]; !got.queued.Equal(told.queued) || got.ended.Sub(told.ended).Abs() > time.Microsecond || got.times != told.times || got.took != told.took {
				t.Errorf("%s: %+v, want %+v", story.name, got, told)
			}
		}
	}
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	if _, err := readProxyState(t.Context(), server.Client(), server.URL); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("there are no metrics: %v", err)
	}
}

func FuzzProxyState(f *testing.F) {
	f.Add(proxyText)
	f.Add(strings.Replace(proxyText, "0.25", "NaN", 1))
	f.Add(strings.Replace(proxyText, "1.8e+09", "+Inf", 1))
	f.Fuzz(func(t *testing.T, text string) {
		state, err := parseProxyState(strings.NewReader(text))
		if err == nil && len(state) == 0 {
			t.Error("nothing is told, and there is no error")
		}
		for _, w := range state {
			if w.took < 0 || w.ended.IsZero() && w.queued.IsZero() {
				t.Errorf("%+v", w)
			}
		}
	})
}

// An address that has just got its first endpoint is announced to routers, and answered for on the segment, when kube-proxy
// forwards it.
func TestAnAddressIsAnnouncedWhenItIsForwarded(t *testing.T) {
	const address = "198.51.100.7"
	l := loopOf(t, "n1", serviceWith(address), recordFor(address, "web-uid"), slice("web-a", web))
	l.s.health.serves.Store(true)
	l.s.forwarding.url, l.s.forwarding.told = proxyURL, true
	l.pass(about(address))
	l.put(t, slice("web-a", web, endpoint("n2", new(true))))
	l.pass(about(address))
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
	began := l.s.forwarding.waiting[vip].since // The time that the test itself has taken does not count.
	l.s.forwarding.release(began, began, idleProxy(), nil, nil)
	if !l.s.forwarding.isWaiting(vip) {
		t.Error("kube-proxy may not have heard of it, and it does not wait")
	}
	later := time.Now().Add(time.Second)
	l.s.forwarding.release(later, later, idleProxy(), nil, nil)
	if len(l.s.segments.held) != 0 {
		t.Error("it is not answered for, though it is forwarded")
	}
	l.pass(l.s.inputs.take())
	if d := l.decisions[vip]; len(d.Exports) != 1 {
		t.Fatalf("kube-proxy knows it, and to routers it is %v", d.Exports)
	}
	// An announced address stays announced, whatever kube-proxy says. After its node was excluded for a while, it does not wait.
	l.put(t, slice("web-a", web, endpoint("n3", new(true))))
	l.pass(about(address))
	editNode(l.shared, "n1", func(n *announce.Node) { n.Excluded = true })
	l.pass(about(address))
	if d := l.decisions[vip]; len(d.Exports) != 0 {
		t.Fatalf("an excluded node announces: %v", d.Exports)
	}
	editNode(l.shared, "n1", func(n *announce.Node) { n.Excluded = false })
	l.pass(about(address))
	if d := l.decisions[vip]; len(d.Exports) != 1 {
		t.Errorf("it is not announced: %v", d.Exports)
	}
	// An address that loses its endpoints while it waits does not wait any more.
	l.put(t, slice("web-a", web))
	l.pass(about(address))
	l.put(t, slice("web-a", web, endpoint("n2", new(true))))
	l.pass(about(address))
	if !l.s.forwarding.isWaiting(vip) {
		t.Error("it does not wait")
	}
	l.put(t, slice("web-a", web))
	if l.pass(about(address)); l.s.forwarding.isWaiting(vip) {
		t.Error("it has no endpoints and waits")
	}
}

// A pass may begin late, or may take long. kube-proxy gets the time to hear of all changes that came before the address was read.
func TestTheTimeToHearOfAChangeBeginsWhenTheAddressIsRead(t *testing.T) {
	const address = "198.51.100.7"
	l := loopOf(t, "n1", serviceWith(address), recordFor(address, "web-uid"), slice("web-a", web))
	l.s.forwarding.url = proxyURL
	l.pass(about(address))
	l.s.inputs.touch(vip)
	c := l.s.inputs.take()
	changed := time.Now()
	l.put(t, slice("web-a", web, endpoint("n2", new(true))))
	l.pass(c)
	if w := l.s.forwarding.waiting[vip]; w == nil || w.since.Before(changed) {
		t.Errorf("it changed at %v, and waits: %+v", changed, w)
	}
}

// Under policy Local a node that gets a pod leaves the address to the others until its kube-proxy forwards.
func TestANodeTakesAnAddressOverOnceItForwards(t *testing.T) {
	const address = "198.51.100.7"
	local := serviceWith(address)
	local.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	l := loopOf(t, "n1", local, recordFor(address, "web-uid"), slice("web-a", web, endpoint("n2", new(true))))
	l.s.health.serves.Store(true)
	l.s.forwarding.url, l.s.forwarding.told = proxyURL, true
	since := time.Now()
	for _, step := range []struct {
		name  string
		nodes []string
		over  bool // whether the wait is over
		want  string
	}{
		{"it has no pod", []string{"n2"}, false, "eth0: n2"},
		{"its pod is ready", []string{"n1", "n2"}, false, "eth0: n2"},
		{"its kube-proxy forwards", []string{"n1", "n2"}, true, "eth0: n1(forwards) n2"},
	} {
		var endpoints []discoveryv1.Endpoint
		for _, node := range step.nodes {
			endpoints = append(endpoints, endpoint(node, new(true)))
		}
		l.put(t, slice("web-a", web, endpoints...))
		if step.over {
			later := since.Add(time.Second)
			l.s.forwarding.release(later, later, idleProxy(), nil, nil)
		}
		if l.pass(about(address)); said(l.decisions[vip]) != step.want {
			t.Errorf("%s: %s, want %s", step.name, said(l.decisions[vip]), step.want)
		}
	}
}

// An address that is announced without endpoints stops waiting when its last endpoint goes, and the answer for it is released
// at the same time: nothing has changed for the segment, so the segment does not repeat the answer.
func TestAnAddressThatLosesItsEndpointsWhileItWaitsIsAnsweredFor(t *testing.T) {
	const address = "198.51.100.7"
	for _, withoutEndpoints := range []bool{true, false} {
		l := loopOf(t, "n1", serviceWith(address), recordFor(address, "web-uid"), slice("web-a", web))
		l.shared.L2[0].WithoutEndpoints = withoutEndpoints
		l.s.health.serves.Store(true)
		l.s.forwarding.url = proxyURL
		for _, endpoints := range [][]discoveryv1.Endpoint{{endpoint("n2", new(true))}, nil} {
			l.put(t, slice("web-a", web, endpoints...))
			l.pass(about(address))
			if endpoints != nil {
				l.s.segments.answer("eth0", segment.Answer{Addr: vip, Node: "n1", Announce: true})
			}
		}
		if held := len(l.s.segments.held) > 0; held == withoutEndpoints {
			t.Errorf("announced without endpoints: %v; it is held back: %v", withoutEndpoints, held)
		}
	}
}

// Whichever comes first, the answer or the end of the wait, the answer is given in the end.
func TestAnAnswerThatIsHeldBackIsNotLost(t *testing.T) {
	for range 200 {
		l := newSegments(segment.Config{Node: "n1"}, zap.NewNop(), nil, func() {})
		l.arp = loopOf(t, "n1").s.arp
		f := newForwarding(proxyURL, zap.NewNop(), l.release)
		l.waits = f.isWaiting
		f.await(vip, time.Now().Add(-time.Hour), false, healthPorts{})
		var both sync.WaitGroup
		both.Go(func() { f.release(time.Now(), time.Now(), idleProxy(), nil, nil) })
		both.Go(func() { l.answer("eth0", segment.Answer{Addr: vip, Node: "n1", Announce: true}) })
		both.Wait()
		if len(l.held) > 0 {
			t.Fatal("it is held back for good")
		}
	}
}
