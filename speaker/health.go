package speaker

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	healthPeriod  = time.Second
	healthTimeout = time.Second
	// healthMisses is the number of failed probes in a row after which kube-proxy counts as not serving. A restart of
	// kube-proxy costs one.
	healthMisses = 3
)

// proxyHealth follows /healthz of the node's kube-proxy. /healthz fails when kube-proxy is stuck or gone, and when the node
// is being removed from the cluster (KEP-3836). In both cases this node should get no new connections.
//
// At the start, kube-proxy counts as not serving until /healthz has succeeded and the first rules are written. /healthz does
// not tell whether the first rules are written, but the metrics do. If there are no metrics, /healthz alone counts.
type proxyHealth struct {
	url     string
	metrics string // URL of the metrics; empty: they are not read
	log     *zap.Logger
	changed func()
	serves  atomic.Bool
	// known is closed once it is known whether kube-proxy serves: after a probe that succeeds, or healthMisses that fail.
	known chan struct{}
	once  sync.Once
}

func newProxyHealth(url, metrics string, log *zap.Logger, changed func()) *proxyHealth {
	h := &proxyHealth{url: url, metrics: metrics, log: log, changed: changed, known: make(chan struct{})}
	if url == "" { // Another data path serves Services, and it is not probed.
		h.serves.Store(true)
		h.settle()
	}
	return h
}

func (h *proxyHealth) healthy() bool { return h.serves.Load() }

func (h *proxyHealth) settle() { h.once.Do(func() { close(h.known) }) }

func (h *proxyHealth) run(ctx context.Context) error {
	if h.url == "" {
		return nil
	}
	client := &http.Client{Timeout: healthTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	return h.follow(ctx, func() string { return h.probe(ctx, client) })
}

// follow probes kube-proxy until ctx ends. ask returns why kube-proxy does not serve, or "" if it serves.
func (h *proxyHealth) follow(ctx context.Context, ask func() string) error {
	ticker := time.NewTicker(healthPeriod)
	defer ticker.Stop()
	misses := 0
	for {
		reason := ask()
		if reason == "" {
			misses = 0
		} else {
			misses++
		}
		if misses == 0 && !h.healthy() {
			h.set(true)
			h.log.Info("kube-proxy serves")
		} else if misses == healthMisses && ctx.Err() == nil {
			h.log.Warn("kube-proxy does not serve: this node announces nothing", zap.String("url", h.url), zap.String("reason", reason))
			h.set(false)
		}
		if misses == 0 || misses == healthMisses {
			h.settle()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func (h *proxyHealth) set(serves bool) {
	h.serves.Store(serves)
	h.changed()
}

// probe asks kube-proxy once. It returns why kube-proxy does not serve, or "" if it serves.
func (h *proxyHealth) probe(ctx context.Context, client *http.Client) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url, nil)
	if err != nil {
		return err.Error()
	}
	res, err := client.Do(req)
	if err != nil {
		return err.Error()
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return res.Status
	}
	if !h.healthy() && h.metrics != "" {
		if state, err := readProxyState(ctx, client, h.metrics); err == nil && state.begins() {
			return "it has not written its first rules yet"
		}
	}
	return ""
}
