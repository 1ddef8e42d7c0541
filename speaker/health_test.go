package speaker

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
)

func TestKubeProxyServesOnceItHasAnsweredAndUntilItMissesThree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes, asked atomic.Int32
		var answer atomic.Value
		answer.Store("connection refused")
		h := newProxyHealth("http://127.0.0.1:10256/healthz", "", zap.NewNop(), func() { changes.Add(1) })
		if h.healthy() {
			t.Fatal("it serves before it was asked")
		}
		go func() {
			if err := h.follow(t.Context(), func() string { asked.Add(1); return answer.Load().(string) }); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}()
		for _, step := range []struct {
			name    string
			answer  string
			turns   int
			healthy bool
			changes int32
		}{
			{"no answer at the start", "connection refused", 2, false, 0},
			{"the first answer", "", 1, true, 1},
			{"two misses", "503", 2, true, 1},
			{"an answer: the misses do not add up", "", 1, true, 1},
			{"two more misses", "timeout", 2, true, 1},
			{"the third", "timeout", 1, false, 2},
			{"and many more", "timeout", 10, false, 2},
			{"an answer", "", 1, true, 3},
		} {
			answer.Store(step.answer)
			before := asked.Load()
			if before == 0 {
				synctest.Wait() // The first probe comes at once.
				step.turns--
			}
			time.Sleep(time.Duration(step.turns) * healthPeriod)
			synctest.Wait()
			known := false
			select {
			case <-h.known:
				known = true
			default:
			}
			if known != (before > 0) {
				t.Errorf("%s: known: %v", step.name, known)
			}
			if serves := testutil.ToFloat64(h); serves == 1 != step.healthy {
				t.Errorf("%s: the metric says %v", step.name, serves)
			}
			if asked.Load() != before+int32(step.turns) && before != 0 || h.healthy() != step.healthy || changes.Load() != step.changes {
				t.Fatalf("%s: after %d questions it serves: %v, and %d changes were told", step.name, asked.Load(), h.healthy(), changes.Load())
			}
		}
	})
}

func TestWithoutKubeProxyNobodyIsAsked(t *testing.T) {
	h := newProxyHealth("", "", zap.NewNop(), func() { t.Error("something has changed") })
	if err := h.run(t.Context()); err != nil || !h.healthy() {
		t.Errorf("%v, and it serves: %v", err, h.healthy())
	}
}

func TestWhatCountsAsAnAnswer(t *testing.T) {
	code := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }))
	h := newProxyHealth(server.URL, "", zap.NewNop(), func() {})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, code = range []int{http.StatusOK, http.StatusServiceUnavailable, http.StatusNoContent} {
		if reason := h.probe(t.Context(), client); (reason == "") != (code == http.StatusOK) {
			t.Errorf("%d: %q", code, reason)
		}
	}
	server.Close()
	code = http.StatusOK
	if h.probe(t.Context(), client) == "" {
		t.Error("nobody listens, and all is well")
	}
	h.url = "://"
	if h.probe(t.Context(), client) == "" {
		t.Error("there is no URL, and all is well")
	}
}

// A kube-proxy that starts says that it is healthy before it has rules.
func TestAKubeProxyThatStartsDoesNotServe(t *testing.T) {
	const unwritten = "1.8000000005e+09"
	metrics := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/healthz":
		case metrics == "":
			w.WriteHeader(http.StatusNotFound)
		default:
			_, _ = w.Write([]byte(metrics))
		}
	}))
	defer server.Close()
	h := newProxyHealth(server.URL+"/healthz", server.URL+"/metrics", zap.NewNop(), func() {})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var both strings.Builder // IPv6 has written nothing.
	for line := range strings.Lines(proxyText) {
		both.WriteString(line)
		if strings.Contains(line, "IPv4") {
			both.WriteString(strings.NewReplacer("IPv4", "IPv6", unwritten, "0").Replace(line))
		}
	}
	for _, story := range []struct {
		name, metrics, want string
		serves              bool // the state before the probe
	}{
		{"it has written", proxyText, "", false},
		{"it has not", strings.Replace(proxyText, unwritten, "0", 1), "it has not written its first rules yet", false},
		{"one family has", both.String(), "it has not written its first rules yet", false},
		{"it has heard of nothing", strings.NewReplacer(unwritten, "0", "1.8e+09", "0").Replace(proxyText), "", false},
		{"it shows no metrics", "", "", false},
		{"it served before", strings.Replace(proxyText, unwritten, "0", 1), "", true},
	} {
		metrics = story.metrics
		h.serves.Store(story.serves)
		if got := h.probe(t.Context(), client); got != story.want {
			t.Errorf("%s: %q, want %q", story.name, got, story.want)
		}
	}
}
