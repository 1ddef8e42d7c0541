package speaker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/netip"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
)

const (
	// maxProxyMetrics bounds how many bytes of kube-proxy's /metrics are read.
	maxProxyMetrics = 4 << 20
	// proxyMetrics is the prefix of the names of the metrics that are read.
	proxyMetrics = "kubeproxy_sync_proxy_rules_"
)

// written is what kube-proxy's metrics tell about the rules of one family.
type written struct {
	queued  time.Time     // when it last heard of a change
	ended   time.Time     // when it last finished writing its rules; zero: it has written none yet
	times   uint64        // how often it wrote them
	took    time.Duration // the total duration of all writes
	longest time.Duration // an upper bound of the duration of one write
}

// proxyState is what kube-proxy's metrics tell about each family. Before Kubernetes 1.33 kube-proxy does not distinguish the
// families; its values then stand under the empty family.
type proxyState map[corev1.IPFamily]written

func (p proxyState) of(address netip.Addr) (written, bool) {
	w, ok := p[familyOf(address)]
	if !ok {
		w, ok = p[""]
	}
	return w, ok
}

// begins reports whether kube-proxy has heard of Services but has not written its first rules yet.
func (p proxyState) begins() bool {
	for _, w := range p {
		if w.ended.IsZero() {
			return true
		}
	}
	return false
}

// readProxyState reads kube-proxy's metrics.
func readProxyState(ctx context.Context, client *http.Client, url string) (proxyState, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", url, res.Status)
	}
	return parseProxyState(io.LimitReader(res.Body, maxProxyMetrics))
}

// parseProxyState parses metrics in the text format of Prometheus. It fails if they do not tell when rules were written.
func parseProxyState(r io.Reader) (proxyState, error) {
	var lines bytes.Buffer // Only the relevant lines: kube-proxy has many more.
	scanner := bufio.NewScanner(r)
	for scanner.Scan() {
		if line := scanner.Text(); strings.HasPrefix(line, proxyMetrics) || strings.HasPrefix(line, "# TYPE "+proxyMetrics) {
			lines.WriteString(line + "\n")
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(&lines)
	if err != nil {
		return nil, err
	}
	state := proxyState{}
	for name, family := range families {
		for _, m := range family.Metric {
			of := familyLabel(m)
			w := state[of]
			switch name[len(proxyMetrics):] {
			case "last_queued_timestamp_seconds":
				w.queued = unixTime(m.GetGauge().GetValue())
			case "last_timestamp_seconds":
				w.ended = unixTime(m.GetGauge().GetValue())
			case "duration_seconds":
				w.times, w.took, w.longest = m.GetHistogram().GetSampleCount(), seconds(m.GetHistogram().GetSampleSum()), longest(m.GetHistogram())
			default:
				continue
			}
			state[of] = w
		}
	}
	for of, w := range state {
		if w.ended.IsZero() && w.queued.IsZero() {
			delete(state, of)
		}
	}
	if len(state) == 0 {
		return nil, errors.New("no metric tells when kube-proxy wrote its rules")
	}
	return state, nil
}

func familyLabel(m *dto.Metric) corev1.IPFamily {
	for _, l := range m.Label {
		if l.GetName() == "ip_family" {
			return corev1.IPFamily(l.GetValue())
		}
	}
	return ""
}

// longest returns an upper bound of the values in a histogram of seconds: the bound of the first bucket that includes all.
func longest(h *dto.Histogram) time.Duration {
	for _, b := range h.Bucket {
		if b.GetCumulativeCount() >= h.GetSampleCount() {
			return seconds(b.GetUpperBound())
		}
	}
	return seconds(math.Inf(1))
}

// unixTime converts a metric in seconds since 1970 to a time; zero if the metric has no time.
func unixTime(s float64) time.Time {
	if !(s > 0 && s < math.MaxInt32*100.0) {
		return time.Time{}
	}
	whole, part := math.Modf(s)
	return time.Unix(int64(whole), int64(part*1e9))
}

// seconds converts a metric in seconds to a duration. A senseless value becomes so long a duration that nothing is concluded
// from it.
func seconds(s float64) time.Duration {
	if !(s >= 0 && s < 1e9) {
		return 1e9 * time.Second
	}
	return time.Duration(s * float64(time.Second))
}
