package ipam_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"testing"

	"github.com/heraldlb/herald/ipam"
)

// filled returns an Allocator in which this many addresses of a /15 are taken, and the allocations. The owners' UIDs
// are numbers.
func filled(b *testing.B, pools []ipam.Pool, taken int) (*ipam.Allocator, []ipam.Allocation) {
	b.Helper()
	a := ipam.New()
	a.SetPools(pools)
	all := make([]ipam.Allocation, 0, taken)
	for i := range taken {
		all = append(all, give(b, a, strconv.Itoa(i)))
	}
	return a, all
}

var (
	large  = []ipam.Pool{lru(pool("large", "198.18.0.0/15"))} // the default order of pools
	orders = map[string][]ipam.Pool{"order=LeastRecentlyUsed": large, "order=Lowest": {pool("large", "198.18.0.0/15")}}
)

// measure runs a benchmark in both orders, with few and with many addresses taken.
func measure(b *testing.B, run func(b *testing.B, pools []ipam.Pool, taken int)) {
	for name, pools := range orders {
		for _, taken := range []int{1000, 60000} {
			b.Run(fmt.Sprintf("%s/taken=%d", name, taken), func(b *testing.B) { run(b, pools, taken) })
		}
	}
}

var four = []ipam.Family{ipam.IPv4}

func give(b *testing.B, a *ipam.Allocator, uid string) ipam.Allocation {
	got, err := a.Allocate(ipam.Request{Owner: ipam.Owner{Namespace: "default", Name: "web", UID: uid}, Families: four, RequireAll: true})
	if err != nil {
		b.Fatal(err)
	}
	return got[0]
}

// holes returns a filled Allocator from which one in ten owners was released, and the other allocations in random
// order.
func holes(b *testing.B, pools []ipam.Pool, taken int) (*ipam.Allocator, []ipam.Allocation) {
	a, all := filled(b, pools, taken+taken/10)
	random := rand.New(rand.NewPCG(1, 2))
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, gone := range all[taken:] {
		a.Release(gone.Address, gone.Owner)
	}
	return a, all[:taken]
}

// uids creates UIDs in advance, so that the benchmark does not measure strings.
func uids(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = "new-" + strconv.Itoa(i)
	}
	return all
}

// BenchmarkAllocate measures one allocation and one release while this many addresses are taken, with gaps. Each owner
// is released after 50 more have come.
func BenchmarkAllocate(b *testing.B) {
	measure(b, func(b *testing.B, pools []ipam.Pool, taken int) {
		a, _ := holes(b, pools, taken)
		fresh := uids(100)
		guests := make([]ipam.Allocation, 50)
		for i := range guests {
			guests[i] = give(b, a, fresh[i])
		}
		b.ReportAllocs()
		for n := len(guests); b.Loop(); n++ {
			guest := &guests[n%len(guests)]
			if !a.Release(guest.Address, guest.Owner) {
				b.Fatalf("%v is not held", guest)
			}
			*guest = give(b, a, fresh[n%len(fresh)])
		}
	})
}

// BenchmarkTurnover is like BenchmarkAllocate, but releases owners in random order. The Allocator does the same work.
// With more addresses taken, a larger share of its memory is outside of the processor's caches.
func BenchmarkTurnover(b *testing.B) {
	measure(b, func(b *testing.B, pools []ipam.Pool, taken int) {
		a, all := holes(b, pools, taken)
		next := uids(taken) // each owner is followed by one with the other of two UIDs
		b.ReportAllocs()
		for n := 0; b.Loop(); n++ {
			i := n % taken
			uid := all[i].Owner.UID
			if !a.Release(all[i].Address, all[i].Owner) {
				b.Fatalf("%v is not held", all[i])
			}
			all[i], next[i] = give(b, a, next[i]), uid
		}
	})
}

// BenchmarkAllocateNew measures one allocation if no address was ever released, so that each new address is after all
// that are taken.
func BenchmarkAllocateNew(b *testing.B) {
	measure(b, func(b *testing.B, pools []ipam.Pool, taken int) {
		const batch = 5000 // then release them again
		a, _ := filled(b, pools, taken)
		fresh := uids(batch)
		given := make([]ipam.Allocation, 0, batch)
		b.ReportAllocs()
		b.ResetTimer()
		for i := range b.N {
			if len(given) == batch {
				b.StopTimer()
				for _, al := range given {
					a.Release(al.Address, al.Owner)
				}
				given = given[:0]
				a.SetPools(pools)
				first := give(b, a, "first") // moves the cursor past the taken addresses
				a.Release(first.Address, first.Owner)
				b.StartTimer()
			}
			given = append(given, give(b, a, fresh[i%batch]))
		}
	})
}

// BenchmarkJoin measures one allocation and one release while 1000 others have the same key. Each address has as many
// of them as possible.
func BenchmarkJoin(b *testing.B) {
	a := ipam.New()
	a.SetPools(large)
	join := func(i int) ipam.Allocation {
		got, err := a.Allocate(ipam.Request(ask(strconv.Itoa(i), ipam.IPv4).sharing("key", fmt.Sprint("TCP/", 1+i))))
		if err != nil {
			b.Fatal(err)
		}
		return got[0]
	}
	addresses := map[netip.Addr]bool{}
	for i := range 1000 {
		addresses[join(i).Address] = true
	}
	if n := len(addresses); n > 1000/60 {
		b.Fatalf("they have %d addresses", n)
	}
	b.ReportAllocs()
	for b.Loop() {
		if got := join(1000); !a.Release(got.Address, got.Owner) {
			b.Fatalf("got %v", got)
		}
	}
}

// BenchmarkJoinNone measures one allocation and one release while 10000 others have the same key and a common port, so
// that each has its own address.
func BenchmarkJoinNone(b *testing.B) {
	a := ipam.New()
	a.SetPools(large)
	ask := func(i int) ipam.Allocation {
		got, err := a.Allocate(ipam.Request(ask(strconv.Itoa(i), ipam.IPv4).sharing("key", "TCP/443", fmt.Sprint("UDP/", 1+i))))
		if err != nil {
			b.Fatal(err)
		}
		return got[0]
	}
	for i := range 10000 {
		ask(i)
	}
	b.ReportAllocs()
	for b.Loop() {
		if got := ask(10000); !a.Release(got.Address, got.Owner) {
			b.Fatalf("got %v", got)
		}
	}
}

// BenchmarkExhausted measures a refusal by a full pool.
func BenchmarkExhausted(b *testing.B) {
	a := ipam.New()
	a.SetPools([]ipam.Pool{pool("full", "198.18.0.0/16")})
	for i := range 1 << 16 {
		give(b, a, strconv.Itoa(i))
	}
	req := ipam.Request{Owner: owner("late"), Families: []ipam.Family{ipam.IPv4}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Allocate(req); err == nil {
			b.Fatal("a full pool gave an address")
		}
	}
}

// BenchmarkRestart measures the restoration of 60000 records, and the first allocation after it, which walks past all
// their addresses.
func BenchmarkRestart(b *testing.B) {
	_, all := filled(b, large, 60000)
	b.ReportAllocs()
	for b.Loop() {
		a := ipam.New()
		a.SetPools(large)
		for _, al := range all {
			if err := a.Restore(al, ipam.Sharing{}); err != nil {
				b.Fatal(err)
			}
		}
		if got := give(b, a, "new"); got.Address != netip.MustParseAddr("198.18.234.96") {
			b.Fatalf("got %v", got)
		}
	}
}

// BenchmarkSetPools measures an edit of one of 100 pools while 60000 addresses are held.
func BenchmarkSetPools(b *testing.B) {
	a, _ := filled(b, large, 60000)
	pools := []ipam.Pool{large[0]}
	for i := range 99 {
		pools = append(pools, pool(fmt.Sprint("p", i), fmt.Sprintf("2001:db8:%x::/64", i)))
	}
	b.ReportAllocs()
	for b.Loop() {
		if displaced := a.SetPools(pools); len(displaced) > 0 {
			b.Fatalf("displaced %v", displaced)
		}
	}
}

// BenchmarkSetManyPools measures a start with this many pools of 64 ranges each. An older pool also has half of the
// ranges. Twice the pools must take little more than twice the time.
func BenchmarkSetManyPools(b *testing.B) {
	for _, n := range []int{1000, 2000} {
		b.Run(fmt.Sprintf("pools=%d", n), func(b *testing.B) {
			all := make([]ipam.Pool, n)
			for i := range all {
				ranges := make([]string, 64)
				for j := range ranges {
					from := uint32(i*32+j) * 8
					addr := netip.AddrFrom4([4]byte{10, byte(from >> 16), byte(from >> 8), byte(from)})
					ranges[j] = addr.String() + "/30"
				}
				all[i] = pool(strconv.Itoa(i), ranges...)
			}
			a := ipam.New()
			for b.Loop() {
				a.SetPools(all)
			}
			if len(a.Overlaps("1")) != 1 {
				b.Fatal("no overlaps")
			}
		})
	}
}
