package speaker

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	healthPeriod  = time.Second
	healthTimeout = time.Second
	// healthMisses is how many answers may be missing before kube-proxy counts as not serving; one is
	// lost when it restarts.
	healthMisses = 3
)

// proxyHealth follows /healthz of the node's kube-proxy. It fails when kube-proxy is stuck or gone, and
// when the node is being removed from the cluster (KEP-3836): either way no new connection belongs here.
type proxyHealth struct {
	url     string
	log     *zap.Logger
	changed func()
	state   atomic.Bool // set while it does not serve
}

func newProxyHealth(url string, log *zap.Logger, changed func()) *proxyHealth {
	return &proxyHealth{url: url, log: log, changed: changed}
}

func (h *proxyHealth) healthy() bool { return !h.state.Load() }

func (h *proxyHealth) run(ctx context.Context) error {
	if h.url == "" {
		return nil
	}
	client := &http.Client{Timeout: healthTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	ticker := time.NewTicker(healthPeriod)
	defer ticker.Stop()
	misses := 0
	for {
		reason := h.probe(ctx, client)
		if reason == "" {
			misses = 0
		} else {
			misses++
		}
		if down := misses >= healthMisses; ctx.Err() == nil && down == h.healthy() {
			h.state.Store(down)
			if down {
				h.log.Warn("kube-proxy does not serve: this node announces nothing", zap.String("url", h.url), zap.String("reason", reason))
			} else {
				h.log.Info("kube-proxy serves again")
			}
			h.changed()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// probe asks once; the answer is empty if all is well.
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
	return ""
}
