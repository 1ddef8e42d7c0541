package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/router"
)

// The benchmarks measure. They never fail because something is slow. Run them with `make bench`.

// BenchmarkCreateToReply measures the time from the creation of a Service to the first answer from its address,
// for a client on the segment and one behind a router. It reports the median of twenty. Most of the time is
// kube-proxy's, which writes its rules once a second at most (--nftables-min-sync-period).
func BenchmarkCreateToReply(b *testing.B) {
	const samples = 20
	for b.Loop() {
		f := withLab(b, lab.Options{Routers: []router.Kind{lab.FRR}})
		f.announce()
		f.pool("segment", delay(0), "198.18.0.200-198.18.0.250")
		f.pod("pod-1", "k8s-node1")
		f.service("warm-up", to8080)
		f.reached(f.site.Segment, "198.18.0.200:9000")
		f.reached(f.site.Outside, "198.18.0.200:9000")
		var address, segment, outside []time.Duration
		for i := range samples {
			start := time.Now()
			f.service(fmt.Sprintf("web-%d", i), to8080)
			target := fmt.Sprintf("198.18.0.%d:9000", 201+i)
			var both sync.WaitGroup
			var a, s, o time.Duration
			both.Go(func() {
				f.eventually("an address", func(context.Context) error {
					if len(addresses(f.get(fmt.Sprintf("web-%d", i)))) == 0 {
						return errors.New("none")
					}
					return nil
				})
				a = time.Since(start)
			})
			both.Go(func() { s = f.firstReply(f.site.Segment, target).Sub(start) })
			both.Go(func() { o = f.firstReply(f.site.Outside, target).Sub(start) })
			both.Wait()
			address, segment, outside = append(address, a), append(segment, s), append(outside, o)
		}
		b.ReportMetric(float64(median(address).Milliseconds()), "p50-ms-address")
		b.ReportMetric(float64(median(segment).Milliseconds()), "p50-ms-arp")
		b.ReportMetric(float64(median(outside).Milliseconds()), "p50-ms-bgp")
	}
}

// firstReply sends a request every 20 ms, without waiting for earlier answers, and returns the time of the
// first answer.
func (f *field) firstReply(from *lab.Client, target string) time.Time {
	ctx, cancel := context.WithCancel(f.ctx)
	first := make(chan time.Time, 1)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		asking.Go(func() {
			if _, err := from.Get(ctx, target); err == nil {
				select {
				case first <- time.Now():
				default:
				}
			}
		})
		select {
		case at := <-first:
			return at
		case <-ctx.Done():
			f.t.Error(ctx.Err())
			return time.Time{}
		case <-ticker.C:
		}
	}
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// BenchmarkMemory measures the resident memory of Herald's programs, idle and with 1,000 Services that are
// announced by ARP and to one router.
func BenchmarkMemory(b *testing.B) {
	const many = 1000
	for b.Loop() {
		f := withLab(b, lab.Options{Nodes: 2, Routers: []router.Kind{lab.BIRD}})
		f.announce()
		f.pool("routed", nil, "198.51.100.0/24", "198.18.4.0/22")
		f.pod("pod-1", "k8s-node1")
		f.service("warm-up", to8080)
		f.holds("warm-up", "198.18.4.0")
		speaker := f.speakers["k8s-node1"]
		b.ReportMetric(memoryMB(b, f.ccm.PID(), "VmRSS"), "ccm-idle-MB")
		b.ReportMetric(memoryMB(b, speaker.PID(), "VmRSS"), "speaker-idle-MB")
		f.createMany(many)
		f.awaitAddresses(many + 1)
		f.eventually("all routes at the router", func(ctx context.Context) error {
			s, err := f.herald.SpeakerStatuses.Get(ctx, "k8s-node1", metav1.GetOptions{})
			if err == nil && (len(s.Status.Sessions) == 0 || s.Status.Sessions[0].Routes < many+1) {
				err = fmt.Errorf("%+v", s.Status.Sessions)
			}
			return err
		})
		b.ReportMetric(memoryMB(b, f.ccm.PID(), "VmRSS"), "ccm-1000-MB")
		b.ReportMetric(memoryMB(b, speaker.PID(), "VmRSS"), "speaker-1000-MB")
	}
}

// memoryMB returns a figure of a process's memory in MB (10^6 bytes): VmRSS is the resident memory, VmHWM its peak,
// and RssAnon the part that is not pages of files, such as the program (proc(5)).
func memoryMB(t testing.TB, pid int, figure string) float64 {
	t.Helper()
	for line := range strings.SplitSeq(procFile(t, pid, "status"), "\n") {
		if kb, ok := strings.CutPrefix(line, figure+":"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(kb, "kB")))
			if err != nil {
				t.Fatal(err)
			}
			return float64(n) * 1024 / 1e6
		}
	}
	t.Fatalf("process %d has no %s", pid, figure)
	return 0
}

// cpuSeconds returns the CPU time that a process has used, in user and system mode (proc(5)).
func cpuSeconds(t testing.TB, pid int) float64 {
	t.Helper()
	stat := procFile(t, pid, "stat")
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	ticks := 0
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	const ticksPerSecond = 100 // USER_HZ, on every architecture that matters here.
	return float64(ticks) / ticksPerSecond
}

func procFile(t testing.TB, pid int, name string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
