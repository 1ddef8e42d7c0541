package interop

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/rack"
	"github.com/heraldlb/herald/e2e/lab/router"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/bgp/route"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// vips returns count prefixes of length 32.
func vips(count int) []netip.Prefix {
	prefixes := make([]netip.Prefix, count)
	for i := range prefixes {
		var address [4]byte
		binary.BigEndian.PutUint32(address[:], 198<<24|19<<16|uint32(i))
		prefixes[i] = netip.PrefixFrom(netip.AddrFrom4(address), 32)
	}
	return prefixes
}

// BenchmarkAnnounce measures the time from the first Set until the router has all prefixes, over a session that is up, and the
// time until it has none.
func BenchmarkAnnounce(b *testing.B) {
	const count = 10_000
	prefixes, export := vips(count), to(decorated, "tor")
	for _, kind := range router.Kinds() {
		b.Run(string(kind), func(b *testing.B) {
			r := newBench(b, kind)
			r.Start()
			s := quiet(b, r.peer("tor"))
			s.up("tor")
			var announce, withdraw time.Duration
			for b.Loop() {
				began := time.Now()
				for _, prefix := range prefixes {
					s.Set(prefix, export)
				}
				r.reaches(count)
				announce += time.Since(began)
				began = time.Now()
				for _, prefix := range prefixes {
					s.Set(prefix, nil)
				}
				r.reaches(0)
				withdraw += time.Since(began)
			}
			b.ReportMetric(announce.Seconds()/float64(b.N), "announce-s")
			b.ReportMetric(withdraw.Seconds()/float64(b.N), "withdraw-s")
		})
	}
}

// BenchmarkPeers measures the memory of a speaker that announces 10,000 prefixes to each of many peers, and its processor time
// until the peers have heard all prefixes. All peers are one BIRD that imports nothing.
func BenchmarkPeers(b *testing.B) {
	const count = 10_000
	for _, number := range []int{2, 20, 200} {
		b.Run(fmt.Sprint(number), func(b *testing.B) {
			for b.Loop() {
				r := newBench(b, rack.BIRD)
				var peers []bgp.Peer
				var names []string
				r.Config.Neighbors = nil
				for i := range number {
					p := r.peer(fmt.Sprint("peer", i))
					p.LocalAddress = netip.AddrFrom4([4]byte{198, 18, byte(r.Number), byte(10 + i)})
					r.OnNode("ip addr add %v/24 dev %s", p.LocalAddress, r.Port)
					r.Config.Neighbors = append(r.Config.Neighbors, router.Neighbor{Address: p.LocalAddress, ASN: rack.NodeASN, Deaf: true})
					peers, names = append(peers, p), append(names, p.Name)
				}
				r.Start()
				bird := r.Router.(*router.BIRD)
				before, cpu, began := heap(), used(b), time.Now()
				s := prepareQuiet(b)
				export := to(decorated, names...)
				for _, prefix := range vips(count) {
					s.Set(prefix, export)
				}
				s.peers(peers...)
				s.run()
				r.Must(rack.Within(5*time.Minute, func() error {
					out, err := bird.Show(b.Context(), "protocols", "all")
					if n := strings.Count(out, fmt.Sprintf("Import updates: %14d", count)); err == nil && n != number {
						err = fmt.Errorf("%d of %d sessions have heard all", n, number)
					}
					return err
				}))
				b.ReportMetric(time.Since(began).Seconds(), "until-heard-s")
				b.ReportMetric((used(b) - cpu).Seconds(), "cpu-s")
				b.ReportMetric(float64(heap()-before)/(1<<20), "heap-MiB")
				b.ReportMetric(resident(b), "rss-MiB")
				cpu, began = used(b), time.Now()
				time.Sleep(5 * time.Second)
				b.ReportMetric(100*(used(b)-cpu).Seconds()/time.Since(began).Seconds(), "idle-%core")
				s.stop()
				r.Must(r.Router.Kill())
			}
		})
	}
}

// BenchmarkSingleChanges measures the processor time for 10,000 changes that come one at a time. Half of them are withdrawals.
func BenchmarkSingleChanges(b *testing.B) {
	const count = 5_000
	prefixes, export := vips(count), to(decorated, "tor")
	for _, kind := range router.Kinds() {
		b.Run(string(kind), func(b *testing.B) {
			r := newBench(b, kind)
			r.Start()
			s := quiet(b, r.peer("tor"))
			s.up("tor")
			every := time.NewTicker(2 * time.Millisecond)
			defer every.Stop()
			var spent time.Duration
			for b.Loop() {
				cpu := used(b)
				for _, exports := range []map[string]route.Attributes{export, nil} {
					for _, prefix := range prefixes {
						<-every.C
						s.Set(prefix, exports)
					}
				}
				spent += used(b) - cpu
				r.reaches(0)
			}
			b.ReportMetric(spent.Seconds()/float64(b.N), "cpu-s/10000")
		})
	}
}

// BenchmarkRouterRestart measures the time from the restart of a killed router until it has the route again.
func BenchmarkRouterRestart(b *testing.B) {
	for _, kind := range router.Kinds() {
		b.Run(string(kind), func(b *testing.B) {
			r := newBench(b, kind)
			r.Start()
			s := quiet(b, r.peer("tor"))
			s.Set(vip4, to(route.Attributes{}, "tor"))
			r.hears(r.plain(vip4))
			var back time.Duration
			for b.Loop() {
				r.Must(r.Router.Kill())
				rack.Eventually(b, func() error { return s.down("tor", "") })
				r.Start()
				began := time.Now()
				r.hears(r.plain(vip4))
				back += time.Since(began)
			}
			b.ReportMetric(back.Seconds()/float64(b.N), "back-s")
		})
	}
}

// BenchmarkIdlePeers measures the cost of a peer that has no routes and whose router does not exist.
func BenchmarkIdlePeers(b *testing.B) {
	const count = 50
	for b.Loop() {
		before, goroutines := heap(), runtime.NumGoroutine()
		var peers []bgp.Peer
		for i := range count {
			peers = append(peers, bgp.Peer{
				Name: fmt.Sprint("peer", i), LocalASN: rack.NodeASN, PeerASN: rack.RouterASN,
				RouterID: netip.MustParseAddr("198.18.0.1"), Address: netip.MustParseAddr("127.0.0.1"), Port: 1,
			})
		}
		s := newSpeaker(b, peers...)
		for _, p := range peers {
			rack.Eventually(b, func() error { return s.down(p.Name, "connection refused") })
		}
		b.ReportMetric(float64(heap()-before)/count/1024, "heap-KiB/peer")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/count, "goroutines/peer")
		b.ReportMetric(resident(b), "rss-MiB")
		s.stop()
	}
}

// BenchmarkSetUnchanged measures the cost of setting an unchanged state again.
func BenchmarkSetUnchanged(b *testing.B) {
	s := prepareSpeaker(b)
	export := to(decorated, "a", "b", "c", "d")
	s.Set(vip4, export)
	b.ReportAllocs()
	for b.Loop() {
		s.Set(vip4, export)
	}
}

// quiet runs a speaker that logs nothing.
func quiet(b *testing.B, peers ...bgp.Peer) *speaker {
	s := prepareQuiet(b)
	s.peers(peers...)
	s.run()
	return s
}

func prepareQuiet(b *testing.B) *speaker { return &speaker{Speaker: bgp.New(zap.NewNop()), t: b} }

// reaches waits until the router has count paths. It asks often, because the time is measured.
func (r *bench) reaches(count int) {
	r.t.Helper()
	deadline := time.Now().Add(2 * rack.Patience)
	for err := r.counts(count); err != nil; err = r.counts(count) {
		if time.Now().After(deadline) {
			r.t.Fatal(err)
		}
	}
}

// used returns the processor time of this process.
func used(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// resident returns the resident set size of this process in MiB.
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
