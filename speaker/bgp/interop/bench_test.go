package interop

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/router"
	"github.com/heraldlb/herald/speaker/bgp"
)

// vips are so many /32.
func vips(count int) []netip.Prefix {
	prefixes := make([]netip.Prefix, count)
	for i := range prefixes {
		var address [4]byte
		binary.BigEndian.PutUint32(address[:], 198<<24|19<<16|uint32(i))
		prefixes[i] = netip.PrefixFrom(netip.AddrFrom4(address), 32)
	}
	return prefixes
}

// BenchmarkAnnounce is the time from the first Set until BIRD has all prefixes, over a session that
// is up, and what the process holds then.
func BenchmarkAnnounce(b *testing.B) {
	for _, count := range []int{1, 1_000, 10_000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			r := newRack(b, implementations[1])
			r.start()
			before := heap()
			s := newSpeaker(b, r.peer("tor"))
			s.up("tor")
			prefixes := vips(count)
			export := to(decorated, "tor")
			var held uint64
			for b.Loop() {
				for _, prefix := range prefixes {
					s.Set(prefix, export)
				}
				birdHas(b, r, count)
				b.StopTimer()
				held = heap()
				for _, prefix := range prefixes {
					s.Set(prefix, nil)
				}
				birdHas(b, r, 0)
				b.StartTimer()
			}
			b.ReportMetric(float64(held-before)/(1<<20), "heap-MiB")
			b.ReportMetric(resident(b), "rss-MiB")
		})
	}
}

// BenchmarkIdlePeers is what a peer costs that has no routes and whose router is not there.
func BenchmarkIdlePeers(b *testing.B) {
	const count = 50
	for b.Loop() {
		before, goroutines := heap(), runtime.NumGoroutine()
		var peers []bgp.Peer
		for i := range count {
			peers = append(peers, bgp.Peer{
				Name: fmt.Sprint("peer", i), LocalASN: nodeASN, PeerASN: routerASN,
				RouterID: netip.MustParseAddr("198.18.0.1"), Address: netip.MustParseAddr("127.0.0.1"), Port: 1,
			})
		}
		s := newSpeaker(b, peers...)
		for _, p := range peers {
			eventually(b, func() error { return s.down(p.Name, "connection refused") })
		}
		b.ReportMetric(float64(heap()-before)/count/1024, "heap-KiB/peer")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/count, "goroutines/peer")
		b.ReportMetric(resident(b), "rss-MiB")
		s.stop()
	}
}

// BenchmarkSetUnchanged is what it costs a caller to say again what is so.
func BenchmarkSetUnchanged(b *testing.B) {
	s := prepareSpeaker(b)
	export := to(decorated, "a", "b", "c", "d")
	s.Set(vip4, export)
	b.ReportAllocs()
	for b.Loop() {
		s.Set(vip4, export)
	}
}

func birdHas(b *testing.B, r *rack, count int) {
	b.Helper()
	want := fmt.Sprintf("%d of ", count)
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for {
		out, err := r.router.(*router.BIRD).Show(context.Background(), "route", "count", "table", "master4", "where", "source", "=", "RTS_BGP")
		if err != nil {
			b.Fatal(err)
		}
		if strings.Contains(out, want) {
			return
		}
		select {
		case <-again.C:
		case <-deadline.C:
			b.Fatalf("BIRD has %s, want %d", out, count)
		}
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// resident is the process's resident set in MiB.
func resident(b *testing.B) float64 {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	var size, pages float64
	if _, err := fmt.Sscan(string(statm), &size, &pages); err != nil {
		b.Fatal(err)
	}
	return pages * float64(os.Getpagesize()) / (1 << 20)
}
