package ipam

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

func TestBitmapKnowsItsLowest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b bitmap
		want := map[uint64]bool{}
		// Numbers on both sides of the ends of words, and of words of words.
		number := rapid.Custom(func(t *rapid.T) uint64 {
			base := rapid.SampledFrom([]uint64{1, 64, 64 * 64, 64 * 64 * 64}).Draw(t, "base")
			return base + rapid.Uint64Range(0, 3).Draw(t, "above") - 1
		})
		t.Repeat(map[string]func(*rapid.T){
			"set":   func(t *rapid.T) { n := number.Draw(t, "n"); b.set(n); want[n] = true },
			"clear": func(t *rapid.T) { n := number.Draw(t, "n"); b.clear(n); delete(want, n) },
			"": func(t *rapid.T) {
				n, ok := b.lowest()
				if ok != (len(want) > 0) || ok && n != slices.Min(slices.Collect(maps.Keys(want))) {
					t.Fatalf("lowest = %d, %v of %v", n, ok, want)
				}
			},
		})
	})
}

// TestSpaceNumbers checks that numbers and addresses are converted into each other. This includes a range that crosses
// the middle of an IPv6 address, and one after a range that is too large to count.
func TestSpaceNumbers(t *testing.T) {
	set, err := ParseAddresses([]string{
		"198.51.100.250-198.51.101.5", "203.0.113.7",
		"2001:db8::ffff:ffff:ffff:fffe-2001:db8:0:1::1", "2001:db8:1::7", "2001:db8:2::/48", "2001:db8:3::/48",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, spans := carve([]Pool{{Name: "p", Addresses: set}})
	want := map[Family][]string{
		IPv4: {"198.51.100.250", "198.51.100.251", "198.51.100.252", "198.51.100.253", "198.51.100.254", "198.51.100.255",
			"198.51.101.0", "198.51.101.1", "198.51.101.2", "198.51.101.3", "198.51.101.4", "198.51.101.5", "203.0.113.7"},
		IPv6: {"2001:db8::ffff:ffff:ffff:fffe", "2001:db8::ffff:ffff:ffff:ffff", "2001:db8:0:1::", "2001:db8:0:1::1",
			"2001:db8:1::7", "2001:db8:2::", "2001:db8:2::1"},
	}
	for f, addrs := range want {
		s := newSpace(spans, f, Lowest)
		for n, text := range addrs {
			addr := netip.MustParseAddr(text)
			if got := s.address(uint64(n)); got != addr {
				t.Errorf("number %d is %s, want %s", n, got, addr)
			}
			if got := s.number(addr); got != uint64(n) {
				t.Errorf("%s is number %d, want %d", addr, got, n)
			}
		}
	}
}

// TestSkippingCostsNoHeap checks that walking past taken addresses allocates nothing: the first allocation after a
// restart takes the same heap with few records as with many.
func TestSkippingCostsNoHeap(t *testing.T) {
	set, err := ParseAddresses([]string{"198.18.0.0/15"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, order := range []Order{LeastRecentlyUsed, Lowest} {
		objects := func(taken int) float64 {
			var fresh []*Allocator // one for the measured run, and one for the run before it
			for range 2 {
				a := New()
				a.SetPools([]Pool{{Name: "p", Addresses: set, AutoAssign: true, Order: order}})
				addr := netip.MustParseAddr("198.18.0.0")
				for i := range taken {
					owner := Owner{Namespace: "default", Name: "web", UID: strconv.Itoa(i)}
					if err := a.Restore(Allocation{Address: addr, Pool: "p", Owner: owner}, Sharing{}); err != nil {
						t.Fatal(err)
					}
					addr = addr.Next()
				}
				fresh = append(fresh, a)
			}
			return testing.AllocsPerRun(1, func() {
				a := fresh[0]
				fresh = fresh[1:]
				given, err := a.Allocate(Request{Owner: Owner{Namespace: "default", Name: "new", UID: "new"}, Families: []Family{IPv4}})
				if want := advance(netip.MustParseAddr("198.18.0.0"), uint64(taken)); err != nil || given[0].Address != want {
					t.Fatalf("got %v, %v; want %s", given, err, want)
				}
			})
		}
		few, many := objects(10), objects(10000)
		if many > few+10 { // Maps grow in steps.
			t.Errorf("order %d: %v objects past 10,000, %v past 10", order, many, few)
		}
	}
}
