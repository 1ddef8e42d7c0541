package bfd

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// benchEnds starts count sessions between two Speakers in this process, and returns when all are up.
func benchEnds(b *testing.B, count int, interval time.Duration) (ends [2]*Speaker) {
	b.Helper()
	// Both are on the loopback interface: there are no interrupts and no second machine, but all system calls are made.
	near := netip.MustParseAddr("198.18.0.1")
	addresses := fmt.Sprintf("ip addr replace %v/32 dev lo\n", near)
	var here, there []Session
	for i := range count {
		far := netip.AddrFrom4([4]byte{198, 18, 1, byte(i)})
		addresses += fmt.Sprintf("ip addr replace %v/32 dev lo\n", far)
		s := Session{Name: fmt.Sprint(i), Local: near, Peer: far, TransmitInterval: interval, ReceiveInterval: interval}
		here = append(here, s)
		s.Local, s.Peer = far, near
		there = append(there, s)
	}
	script(b, enclave.Host{}, "%s", addresses)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i, sessions := range [][]Session{here, there} {
		s := New(zap.NewNop(), nil)
		ends[i] = s
		if faults := s.Set(sessions); faults != nil {
			b.Fatal(faults)
		}
		wg.Go(func() {
			if err := s.Run(ctx); err != nil {
				b.Error(err)
			}
		})
	}
	b.Cleanup(func() { cancel(); wg.Wait() })
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(100 * ms)
	defer again.Stop()
	for up := 0; up < 2*count; {
		select {
		case <-again.C:
		case <-deadline.C:
			b.Fatalf("only %d of %d ends are up", up, 2*count)
		}
		up = 0
		for _, s := range ends {
			for _, status := range s.Sessions() {
				if status.State == Up && !status.Polling {
					up++
				}
			}
		}
	}
	return ends
}

// seconds runs the sessions. One round takes a second, so -benchtime 30x takes half a minute.
func seconds(b *testing.B) {
	for b.Loop() {
		time.Sleep(time.Second)
	}
}

func used(b *testing.B) (cpu time.Duration) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSessions measures the cost of sessions with 50 ms intervals that are up: the processor time of the process, and the
// allocations of one end.
func BenchmarkSessions(b *testing.B) {
	for _, count := range []int{2, 20, 200} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			ends := benchEnds(b, count, 50*ms)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			cpu, began := used(b), time.Now()
			seconds(b)
			cpu, wall := used(b)-cpu, time.Since(began).Seconds()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(cpu.Microseconds())/wall/2/float64(count), "cpu-µs/s/session")
			b.ReportMetric(float64(after.Mallocs-before.Mallocs)/wall/2, "allocs/s")
			b.ReportMetric(float64(failures(ends)), "failures")
		})
	}
}

// BenchmarkBusy counts the sessions that are found dead although both ends run, while 16 other processes compete for the
// processors.
func BenchmarkBusy(b *testing.B) {
	for _, interval := range []time.Duration{10 * ms, 50 * ms, 100 * ms, 300 * ms} {
		b.Run(fmt.Sprint(interval), func(b *testing.B) {
			ends := benchEnds(b, 2, interval)
			ctx, cancel := context.WithCancel(context.Background())
			var hogs []*exec.Cmd
			for range 16 {
				hog := exec.CommandContext(ctx, "sh", "-c", "while :; do :; done")
				hog.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Run it in a scheduling group of its own, as in another pod.
				if err := hog.Start(); err != nil {
					b.Fatal(err)
				}
				hogs = append(hogs, hog)
			}
			began := time.Now()
			seconds(b)
			wall := time.Since(began).Seconds()
			cancel()
			for _, hog := range hogs {
				_ = hog.Wait() // The error says that it was killed.
			}
			var most time.Duration
			for _, s := range ends {
				for _, status := range s.Sessions() {
					most = max(most, status.Received.Max)
				}
			}
			b.ReportMetric(float64(failures(ends))/wall/4, "failures/s/end")
			b.ReportMetric(float64(most.Milliseconds()), "most-ms-between-packets")
		})
	}
}

// BenchmarkLimit makes this process work for a tenth of each second, like a speaker that decides about all its addresses. It
// limits the processor time as resources.limits.cpu does for a container, and counts the sessions that are found dead.
func BenchmarkLimit(b *testing.B) {
	const period = 100 * time.Millisecond // the period that kubelet uses
	for _, cores := range []float64{0, 0.5, 0.2, 0.1} {
		b.Run(fmt.Sprintf("cores=%v", cores), func(b *testing.B) {
			ends := benchEnds(b, 2, 50*ms)
			done := make(chan struct{})
			var work sync.WaitGroup
			work.Go(func() {
				runtime.LockOSThread()
				second := time.NewTicker(time.Second)
				defer second.Stop()
				for {
					select {
					case <-done:
						return
					case <-second.C:
						for began := threadTime(); threadTime()-began < 100*ms; {
						}
					}
				}
			})
			if cores > 0 {
				limit(b, time.Duration(cores*float64(period)), period)
			}
			began := time.Now()
			seconds(b)
			wall := time.Since(began).Seconds()
			close(done)
			work.Wait()
			var most time.Duration
			for _, s := range ends {
				for _, status := range s.Sessions() {
					most = max(most, status.Received.Max)
				}
			}
			b.ReportMetric(float64(failures(ends))/wall/4, "failures/s/end")
			b.ReportMetric(float64(most.Milliseconds()), "most-ms-between-packets")
		})
	}
}

// threadTime returns the processor time of this thread.
func threadTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// limit limits this process to quota of processor time in each period, until the benchmark ends.
func limit(b *testing.B, quota, period time.Duration) {
	b.Helper()
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	// Version 2 of control groups has one hierarchy; version 1 has one for each controller.
	top, procs := "/sys/fs/cgroup", "cgroup.procs"
	_, err := os.Stat(filepath.Join(top, "cgroup.controllers"))
	if v1 := err != nil; v1 {
		top = filepath.Join(top, "cpu")
	}
	was, self := groupOf(b, err != nil), strconv.Itoa(os.Getpid())
	group := filepath.Join(top, "herald-bench-"+self)
	if err := os.Mkdir(group, 0o700); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		write(filepath.Join(top, was, procs), self)
		if err := os.Remove(group); err != nil {
			b.Error(err)
		}
	})
	if err != nil {
		write(filepath.Join(group, "cpu.cfs_period_us"), strconv.FormatInt(period.Microseconds(), 10))
		write(filepath.Join(group, "cpu.cfs_quota_us"), strconv.FormatInt(quota.Microseconds(), 10))
	} else {
		write(filepath.Join(group, "cpu.max"), fmt.Sprintf("%d %d", quota.Microseconds(), period.Microseconds()))
	}
	write(filepath.Join(group, procs), self)
}

// groupOf returns the control group that controls the processor time of this process.
func groupOf(b *testing.B, v1 bool) string {
	b.Helper()
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		id, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, _ := strings.Cut(rest, ":")
		if v1 && slices.Contains(strings.Split(controllers, ","), "cpu") || !v1 && id == "0" {
			return group
		}
	}
	b.Fatalf("no control group of this process has processor time:\n%s", text)
	return ""
}

func failures(ends [2]*Speaker) (n uint64) {
	for _, s := range ends {
		for _, status := range s.Sessions() {
			n += status.Failures
		}
	}
	return n
}
