package vrrp_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/e2e/lab/vrrp"
)

func TestMain(m *testing.M) { enclave.RunTests(m) }

// BenchmarkOutage measures how long a client cannot open a connection to an address that keepalived moves. A round
// takes the worst of up to 20 addresses. The benchmark reports the median and the longest of five rounds.
func BenchmarkOutage(b *testing.B) {
	const nodes, rounds = 3, 5
	for _, family := range []string{"IPv4", "IPv6"} {
		for _, n := range []int{1, 100, 1000} {
			for _, fault := range []vrrp.Fault{vrrp.Cut, vrrp.Stop} {
				b.Run(fmt.Sprintf("%s/addresses=%d/%s", family, n, fault), func(b *testing.B) {
					for b.Loop() {
						ctx, cancel := context.WithTimeout(b.Context(), 2*time.Minute)
						gaps := measure(ctx, b, nodes, family, n, fault, rounds)
						cancel()
						b.Logf("%v: %v", gaps, []time.Duration(gaps))
						b.ReportMetric(float64(gaps.Percentile(50).Milliseconds()), "p50-ms")
						b.ReportMetric(float64(gaps.Percentile(100).Milliseconds()), "max-ms")
					}
				})
			}
		}
	}
}

func measure(ctx context.Context, b *testing.B, nodes int, family string, n int, fault vrrp.Fault, rounds int) lab.Durations {
	b.Helper()
	site, err := lab.NewSite(nodes)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := site.Close(); err != nil {
			b.Error("close:", err)
		}
	}()
	prefix := lab.Many4
	if family == "IPv6" {
		prefix = lab.Many6
	}
	router, err := vrrp.Start(ctx, site, b.TempDir(), lab.Addresses(prefix, n))
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := router.Close(); err != nil {
			b.Error("close:", err)
		}
	}()
	gaps, err := router.Measure(ctx, fault, rounds)
	if err != nil {
		b.Fatal(err)
	}
	return gaps
}
