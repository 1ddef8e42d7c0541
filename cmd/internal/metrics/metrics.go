// Package metrics has the metrics that herald-ccm and herald-speaker have in common.
package metrics

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/tools/metrics"

	"github.com/heraldlb/herald/api/client"
	"github.com/heraldlb/herald/cmd/internal/version"
)

// BuildInfo returns a metric with the version of the program.
func BuildInfo() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "herald_build_info", Help: "Always 1, with the version of the program.", ConstLabels: prometheus.Labels{"version": version.String()},
	}, func() float64 { return 1 })
}

// Unreadable returns a metric with the number of Herald's objects that cannot be decoded.
func Unreadable(set *client.Set) prometheus.Collector { return unreadable{set} }

type unreadable struct{ *client.Set }

var unreadableObjects = prometheus.NewDesc("herald_unreadable_objects",
	"Objects that do not fit their type. They are left out, or kept as they were when they could be read last.", []string{"resource"}, nil)

// Describe implements prometheus.Collector.
func (unreadable) Describe(c chan<- *prometheus.Desc) { c <- unreadableObjects }

// Collect implements prometheus.Collector.
func (u unreadable) Collect(c chan<- prometheus.Metric) {
	for resource, n := range u.Unreadable() {
		c <- prometheus.MustNewConstMetric(unreadableObjects, prometheus.GaugeValue, float64(n), resource)
	}
}

// Requests returns a metric that counts this process's requests to the API server from now on, as Kubernetes' own
// programs do. A process can have one such counter.
func Requests() prometheus.Collector {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rest_client_requests_total", Help: "Requests to the API server, by method and status code, or <error> without an answer.",
	}, []string{"code", "method"})
	metrics.Register(metrics.RegisterOpts{RequestResult: requests{c}})
	return c
}

type requests struct{ *prometheus.CounterVec }

// Increment implements metrics.ResultMetric.
func (r requests) Increment(_ context.Context, code, method, _ string) {
	r.WithLabelValues(code, method).Inc()
}
