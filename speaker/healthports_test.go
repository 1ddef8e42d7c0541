package speaker

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/speaker/announce"
)

// healthPort starts a kube-proxy that gives one answer for a Service, and returns its port.
func healthPort(t *testing.T, status int) uint16 {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	t.Cleanup(server.Close)
	return netip.MustParseAddrPort(server.Listener.Addr().String()).Port()
}

var loopback = netip.MustParseAddr("127.0.0.1")

func TestKubeProxySaysOnItsHealthPorts(t *testing.T) {
	yes, not, other := healthPort(t, http.StatusOK), healthPort(t, http.StatusServiceUnavailable), healthPort(t, http.StatusFound)
	closed := httptest.NewServer(nil)
	refused := netip.MustParseAddrPort(closed.Listener.Addr().String()).Port()
	closed.Close()
	client := newHealthPortClient()
	client.Timeout = time.Minute // These servers may have to wait for a processor.
	for _, story := range []struct {
		name  string
		ports []uint16
		want  answer
	}{
		{"no port", nil, unknown},
		{"it forwards", []uint16{yes}, forwards},
		{"it does not", []uint16{not}, no},
		{"not one of two Services", []uint16{yes, not}, no},
		{"nobody listens", []uint16{yes, refused}, unknown},
		{"something else", []uint16{other}, unknown},
	} {
		if got := (healthPorts{loopback, story.ports}).ask(t.Context(), client); got != story.want {
			t.Errorf("%s: %v, want %v", story.name, got, story.want)
		}
	}
}

func TestHealthPortsOfAnAddress(t *testing.T) {
	service := func(port uint16, nodes ...string) *announce.Service {
		return &announce.Service{Name: web, Local: true, HealthPort: port, Ready4: nodes}
	}
	for _, story := range []struct {
		name     string
		internal netip.Addr
		services []*announce.Service
		want     []uint16
	}{
		{"of each Service that the node delivers", loopback, []*announce.Service{service(2, "n1"), service(1, "n1", "n2"), service(3, "n2")}, []uint16{1, 2}},
		{"policy Cluster", loopback, []*announce.Service{{Name: web, Ready4: []string{"n1"}}}, nil},
		{"a Service has none", loopback, []*announce.Service{service(1, "n1"), service(0, "n1")}, nil},
		{"the node has no address of the family", netip.Addr{}, []*announce.Service{service(1, "n1")}, nil},
	} {
		if got := healthPortsOf(&announce.Address{Addr: vip, Services: story.services}, "n1", story.internal); !slices.Equal(got.ports, story.want) {
			t.Errorf("%s: %v, want %v", story.name, got.ports, story.want)
		}
	}
}

// The kube-proxies of other nodes are asked until there are no more targets.
func TestOtherKubeProxiesAreAsked(t *testing.T) {
	type said struct {
		node string
		answer
	}
	answers := make(chan said, 100)
	h := newHandovers(func(_ context.Context, address netip.Addr, node string, a answer, _ time.Time) {
		if address == vip {
			answers <- said{node, a}
		}
	})
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- h.run(ctx) }()
	h.set(vip, map[string]healthPorts{
		"n2": {loopback, []uint16{healthPort(t, http.StatusOK)}}, "n3": {loopback, []uint16{healthPort(t, http.StatusServiceUnavailable)}},
	})
	heard := map[said]int{}
	for heard[said{"n2", forwards}] == 0 || heard[said{"n3", no}] < 2 { // A server that had to wait for a processor is asked again.
		a := <-answers
		if heard[a]++; a == (said{"n2", no}) || a == (said{"n3", forwards}) {
			t.Fatalf("they said %v", heard)
		}
	}
	if h.set(vip, nil); len(h.some()) > 0 {
		t.Error("they are asked although nothing is handed over")
	}
	end()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Many health ports on which kube-proxy does not answer make no address wait longer.
func TestManyHealthPortsWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := make(chan []netip.Addr, 1)
		f := newForwarding(proxyURL, zap.NewNop(), func(addrs []netip.Addr) { over <- addrs })
		began := time.Now()
		address := vip
		for range 200 {
			f.await(address, began, true, healthPorts{loopback, []uint16{1}})
			address = address.Next()
		}
		read := func() (proxyState, error) {
			return proxyState{corev1.IPv4Protocol: {queued: time.Now(), ended: began, times: 1, took: time.Second}}, nil
		}
		ctx, end := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- f.follow(ctx, read, func(ctx context.Context, _ healthPorts) answer {
				select {
				case <-ctx.Done():
				case <-time.After(healthPortTimeout):
				}
				return unknown
			})
		}()
		all := <-over
		if took := time.Since(began); len(all) != 200 || took > forwardingPatience+2*forwardingPeriod {
			t.Errorf("%d addresses waited %v, want all for %v", len(all), took, forwardingPatience)
		}
		end()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// kube-proxy is asked once after each write, and its answer counts.
func TestAWaitEndsByTheHealthPort(t *testing.T) {
	since := time.Unix(1_800_000_000, 0)
	busy := func(times uint64) proxyState { // This kube-proxy hears of changes all the time.
		return proxyState{corev1.IPv4Protocol: written{queued: since.Add(time.Hour), ended: since, times: times, took: time.Second}}
	}
	var over []netip.Addr
	f := newForwarding(proxyURL, zap.NewNop(), func(a []netip.Addr) { over = a })
	f.told = true
	f.await(vip, since, true, healthPorts{loopback, []uint16{1}})
	for i, step := range []struct {
		after time.Duration
		times uint64
		asks  bool
		said  answer
		over  bool
	}{
		{50 * time.Millisecond, 7, false, unknown, false},
		{100 * time.Millisecond, 8, true, no, false},
		{150 * time.Millisecond, 8, false, unknown, false},
		{1200 * time.Millisecond, 9, true, unknown, false},
		{1250 * time.Millisecond, 9, true, forwards, true},
	} {
		at := since.Add(step.after)
		if asks := len(f.questions(at, busy(step.times))) > 0; asks != step.asks {
			t.Errorf("step %d: it is asked: %v", i, asks)
		}
		said := map[netip.Addr]answer{}
		if step.asks {
			said[vip] = step.said
		}
		f.release(at, at, busy(step.times), nil, said)
		if (len(over) > 0) != step.over || f.isWaiting(vip) == step.over {
			t.Errorf("step %d: %v do not wait", i, over)
		}
	}
}

// A kube-proxy that has said that it does not forward gets more time than one that does not answer or has stopped answering.
func TestAnAddressWaitsForAKubeProxyThatDoesNotForward(t *testing.T) {
	const first = heardSurelyWithin + forwardingPeriod // the time of the first question
	for _, story := range []struct {
		name        string
		first, then answer
		want        time.Duration
	}{
		{"it says nothing", unknown, unknown, forwardingPatience},
		{"it does not forward", no, no, doubtedPatience},
		{"it does not forward, and then says nothing", no, unknown, first + forwardingPeriod + forwardingPatience},
	} {
		var over []netip.Addr
		f := newForwarding(proxyURL, zap.NewNop(), func(addrs []netip.Addr) { over = addrs })
		f.await(vip, noon, true, healthPorts{loopback, []uint16{1}})
		state := written{queued: noon, ended: noon.Add(-time.Second), times: 7, took: time.Second}
		at, said := noon, story.first
		for len(over) == 0 && at.Sub(noon) < time.Minute {
			at = at.Add(forwardingPeriod)
			answers := map[netip.Addr]answer{}
			for address := range f.questions(at, proxyState{corev1.IPv4Protocol: state}) {
				answers[address] = said
			}
			f.release(at, at, proxyState{corev1.IPv4Protocol: state}, nil, answers)
			if at.Sub(noon) == first {
				said = story.then
				state.times++ // Another write: kube-proxy is asked again.
			}
			state.queued = at
		}
		if took := at.Sub(noon); took != story.want {
			t.Errorf("%s: the address waits %v, want %v", story.name, took, story.want)
		}
	}
}

// A handover to a node ends as soon as the node's kube-proxy forwards, and not earlier while it says that it does not forward.
func TestAHandoverEndsByTheHealthPort(t *testing.T) {
	at := func(after time.Duration) time.Time { return noon.Add(10*time.Second + after) }
	for _, story := range []struct {
		name  string
		said  []answer // an answer every 100 ms
		until time.Duration
	}{
		{"it does not answer", []answer{unknown, unknown}, handoverTime},
		{"it forwards", append(slices.Repeat([]answer{no}, 7), forwards), 800*time.Millisecond + learningTime},
		{"it forwards before its speaker asks", []answer{no, forwards, forwards}, heardSurelyWithin + learningTime},
		{"it forwarded to a pod that it did not know to be gone", []answer{forwards, no}, handoverTime},
		{"and then to the new one", append(append([]answer{forwards}, slices.Repeat([]answer{no}, 8)...), forwards), time.Second + learningTime},
		{"it is slow", slices.Repeat([]answer{no}, 20), 2*time.Second + doubtTime},
		{"it is slower than its speaker waits", slices.Repeat([]answer{no}, 101), handoverLimit},
	} {
		d := newDeliveries("n1")
		note := func(now time.Time, ready, leaving []string) *announce.Address {
			shared, a := cluster(t, "n1")
			a.Services[0].Local, a.Services[0].Ready4, a.Services[0].Terminating4 = true, ready, leaving
			d.note(a, shared.Nodes, now)
			return a
		}
		note(noon, []string{"n1"}, nil)
		a := note(at(0), []string{"n2"}, []string{"n1"})
		if asked := d.asked(a); !slices.Equal(asked, []string{"n2"}) {
			t.Errorf("%s: %v are asked", story.name, asked)
		}
		for i, said := range story.said {
			d.answered(vip, "n2", said, at(time.Duration(i+1)*100*time.Millisecond))
		}
		if until := d.fresh.at[vip]; !until.Equal(at(story.until)) {
			t.Errorf("%s: until %v, want %v", story.name, until, at(story.until))
		}
		if len(d.asked(a)) == 0 {
			t.Errorf("%s: it is not asked again", story.name)
		}
		if note(at(story.until), []string{"n2"}, []string{"n1"}); d.now[vip] {
			t.Errorf("%s: this node goes on delivering", story.name)
		}
	}
}
