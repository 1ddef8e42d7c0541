package responder_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/speaker/responder"
	"golang.org/x/net/bpf"
	"pgregory.net/rapid"
)

// drawn draws addresses: some close together, some far apart, and some at the ends of the address space.
func drawn() *rapid.Generator[uint32] {
	return rapid.OneOf(
		rapid.Uint32(),
		rapid.Uint32Range(0xc6120000, 0xc61200ff), // 198.18.0.0/24
		rapid.Uint32Range(0xc6130000, 0xc613ffff),
		rapid.SampledFrom([]uint32{0, 1, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff}),
	)
}

func address4(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

func address6(n uint32) netip.Addr {
	b := netip.MustParseAddr("2001:db8:12::").As16()
	binary.BigEndian.PutUint32(b[12:], n)
	return netip.AddrFrom16(b)
}

// passes runs the program on a frame with the address at the offset.
func passes(t interface{ Fatal(...any) }, vm *bpf.VM, a netip.Addr, offset int) bool {
	frame := make([]byte, 100)
	copy(frame[offset:], a.AsSlice())
	n, err := vm.Run(frame)
	if err != nil {
		t.Fatal(err)
	}
	return n > 0
}

func TestFilterAcceptsTheAddressesAndUpToTheBoundNothingElse(t *testing.T) {
	const target, sender = 60, 20
	for family, address := range map[string]func(uint32) netip.Addr{"IPv4": address4, "IPv6": address6} {
		t.Run(family, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				// Slices that rapid sizes itself are short; beyond a hundred spans the tree needs its long jumps.
				n := rapid.SampledFrom([]int{0, 1, 2, 3, 10, 150, 600}).Draw(t, "n")
				numbers := rapid.SliceOfN(drawn(), n, n).Draw(t, "numbers")
				offsets := rapid.SampledFrom([][]uint32{{target}, {target, sender}}).Draw(t, "offsets")
				in := make(map[uint32]bool)
				var addrs []netip.Addr
				for _, n := range numbers {
					in[n] = true
					addrs = append(addrs, address(n))
				}
				program := responder.Filter(addrs, offsets...)
				vm, err := bpf.NewVM(program)
				if err != nil {
					t.Fatal(err)
				}
				if raw, err := bpf.Assemble(program); err != nil || len(raw) > 4000 {
					t.Fatal(len(raw), err)
				}
				exact := len(responder.Coalesced(slices.Clone(numbers), len(numbers)+1)) <= responder.MaxSpans/len(offsets)
				tried := rapid.SliceOf(drawn()).Draw(t, "tried")
				for _, n := range numbers {
					tried = append(tried, n, n-1, n+1)
				}
				for _, n := range tried {
					// The rest of the frame is zero, which may be an address, too.
					if n == 0 || in[0] && family == "IPv4" {
						continue
					}
					for _, offset := range offsets {
						if accepted := passes(t, vm, address(n), int(offset)); in[n] && !accepted {
							t.Fatalf("%v is rejected at %d", address(n), offset)
						} else if !in[n] && accepted && exact {
							t.Fatalf("%v is accepted at %d", address(n), offset)
						}
					}
					if family == "IPv6" && len(in) > 0 {
						other := address(n).As16()
						other[5]++
						if passes(t, vm, netip.AddrFrom16(other), target) {
							t.Fatalf("%v is accepted", netip.AddrFrom16(other))
						}
					}
				}
			})
		})
	}
}

func TestFilterOfTwoPrefixesAcceptsBoth(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("2001:db8:1::a"), netip.MustParseAddr("2001:db8:2:3::b"), netip.MustParseAddr("fe80::c")}
	vm, err := bpf.NewVM(responder.Filter(addrs, 60, 20))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		for _, offset := range []int{60, 20} {
			if !passes(t, vm, a, offset) {
				t.Errorf("%v is rejected at %d", a, offset)
			}
		}
		if passes(t, vm, netip.MustParseAddr("2001:db8:1::d"), 60) {
			t.Error("an address with another end is accepted")
		}
	}
}

func TestCoalescingClosesTheSmallestGaps(t *testing.T) {
	numbers := []uint32{5001, 10, 12, 13, 14, 1000, 1005, 1006, 5000, 10}
	for limit, want := range map[int]string{
		5: "[[10 10] [12 14] [1000 1000] [1005 1006] [5000 5001]]",
		4: "[[10 14] [1000 1000] [1005 1006] [5000 5001]]",
		3: "[[10 14] [1000 1006] [5000 5001]]",
		2: "[[10 1006] [5000 5001]]",
		1: "[[10 5001]]",
	} {
		if got := fmt.Sprint(responder.Coalesced(slices.Clone(numbers), limit)); got != want {
			t.Errorf("limit %d: %s, want %s", limit, got, want)
		}
	}
}

// The kernel charges the socket for two filters while one replaces the other. It must be possible
// to replace the largest filter even with the smallest default memory of all kernels in use, and
// with all the groups joined that are joined one by one.
func TestTheLargestFilterFitsTheKernel(t *testing.T) {
	if err := (enclave.Host{}).Script("sysctl -qw net.core.optmem_max=20480"); err != nil {
		t.Log("measured with this kernel's optmem_max: ", err)
	}
	each(t, func(t *testing.T, f *family) {
		cable(t, "eth0")
		largest := func(first uint32) (addrs []netip.Addr) {
			for i := range uint32(200) {
				// Above 128.0.0.0 the kernel needs two instructions for a comparison.
				n := first + 10*i
				if f == ipv4 {
					addrs = append(addrs, address4(n))
				} else {
					addrs = append(addrs, address6(n))
				}
			}
			return addrs
		}
		c, err := f.protocol.Open(interfaces(t, "eth0")[0], f.protocol.Filter(largest(0xc6120000)))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		defer func() { _ = c.SetGroups(nil) }()
		for i := range uint32(3) {
			var groups []netip.Addr
			addrs := largest(0xc6130000 + i)
			for _, a := range addrs {
				groups = append(groups, f.protocol.Groups(a)...)
			}
			if err := c.SetFilter(f.protocol.Filter(addrs)); err != nil {
				t.Fatalf("replacement %d: %v", i, err)
			}
			if err := c.SetGroups(groups); err != nil {
				t.Fatalf("groups %d: %v", i, err)
			}
		}
	})
}

func BenchmarkFilter(b *testing.B) {
	for _, f := range families {
		for _, n := range []int{1, 1000, 10_000} {
			b.Run(fmt.Sprintf("%s/addresses=%d", f.protocol.Name(), n), func(b *testing.B) {
				owned := f.numbered(n)
				b.ReportAllocs()
				for b.Loop() {
					f.protocol.Filter(owned)
				}
			})
		}
	}
}
