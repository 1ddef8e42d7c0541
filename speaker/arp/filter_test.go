package arp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"golang.org/x/net/bpf"
	"pgregory.net/rapid"
)

func address(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

// addresses draws some that lie close and some that lie apart, with the ends of the address space.
func addresses() *rapid.Generator[netip.Addr] {
	return rapid.Map(rapid.OneOf(
		rapid.Uint32(),
		rapid.Uint32Range(0xc6120000, 0xc61200ff), // 198.18.0.0/24
		rapid.Uint32Range(0xc6130000, 0xc613ffff),
		rapid.SampledFrom([]uint32{0, 1, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff}),
	), address)
}

func accepts(t interface{ Fatal(...any) }, vm *bpf.VM, target netip.Addr) bool {
	frame := make([]byte, 60)
	b := target.As4()
	copy(frame[targetOffset:], b[:])
	n, err := vm.Run(frame)
	if err != nil {
		t.Fatal(err)
	}
	return n > 0
}

func TestFilterAcceptsWhatIsOwnedAndUpToTheBoundNothingElse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Slices that rapid sizes itself are short; beyond a hundred spans the tree needs its long jumps.
		n := rapid.SampledFrom([]int{0, 1, 2, 3, 10, 150, 600}).Draw(t, "n")
		owned := rapid.SliceOfN(addresses(), n, n).Draw(t, "owned")
		slices.SortFunc(owned, netip.Addr.Compare)
		owned = slices.Compact(owned)
		limit := rapid.SampledFrom([]int{1, 2, 3, maxSpans, 1000}).Draw(t, "limit")
		exact := spans(owned, len(owned)+1)
		got := spans(owned, limit)
		if len(got) > limit {
			t.Fatalf("%d spans, limit %d", len(got), limit)
		}
		vm, err := bpf.NewVM(program(got))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bpf.Assemble(program(got)); err != nil {
			t.Fatal(err)
		}
		isOwned := make(map[netip.Addr]bool, len(owned))
		for _, a := range owned {
			isOwned[a] = true
		}
		tried := rapid.SliceOf(addresses()).Draw(t, "tried")
		for _, a := range owned {
			tried = append(tried, a)
			if p := a.Prev(); p.IsValid() {
				tried = append(tried, p)
			}
			if n := a.Next(); n.IsValid() {
				tried = append(tried, n)
			}
		}
		for _, a := range tried {
			accepted := accepts(t, vm, a)
			if isOwned[a] && !accepted {
				t.Fatalf("%v is owned and rejected by %v", a, got)
			}
			if !isOwned[a] && accepted && len(exact) <= limit {
				t.Fatalf("%v is not owned and accepted by %v", a, got)
			}
		}
	})
}

func TestCoalesceClosesTheSmallestGaps(t *testing.T) {
	all := []span{{10, 10}, {12, 20}, {1000, 1000}, {1005, 1006}, {5000, 5001}}
	for limit, want := range map[int]string{
		5: "[{10 10} {12 20} {1000 1000} {1005 1006} {5000 5001}]",
		4: "[{10 20} {1000 1000} {1005 1006} {5000 5001}]",
		3: "[{10 20} {1000 1006} {5000 5001}]",
		2: "[{10 1006} {5000 5001}]",
		1: "[{10 5001}]",
	} {
		if got := fmt.Sprint(coalesce(all, limit)); got != want {
			t.Errorf("limit %d: %s, want %s", limit, got, want)
		}
	}
}

func TestFilterRejectsFramesThatEndBeforeTheTarget(t *testing.T) {
	vm, err := bpf.NewVM(program([]span{{0, ^uint32(0)}}))
	if err != nil {
		t.Fatal(err)
	}
	for length, want := range map[int]bool{0: false, 14: false, targetOffset + 3: false, targetOffset + 4: true, 60: true} {
		if n, err := vm.Run(make([]byte, length)); err != nil || (n > 0) != want {
			t.Errorf("%d bytes: %d, %v", length, n, err)
		}
	}
}

// The kernel charges the socket for two filters while one replaces the other. With the least
// memory that any kernel in use allows by default, the largest must still be replaceable.
func TestTheLargestFilterFitsTheKernel(t *testing.T) {
	if err := (enclave.Host{}).Script("sysctl -qw net.core.optmem_max=20480"); err != nil {
		t.Log("measured with this kernel's optmem_max: ", err)
	}
	cable(t, "eth0")
	largest := func(first uint32) []bpf.Instruction {
		var all []span
		for i := range uint32(maxSpans) {
			// Above 128.0.0.0 a comparison takes the kernel two instructions.
			all = append(all, span{first + 10*i, first + 10*i + 1})
		}
		return program(all)
	}
	c, err := listen(interfaces(t, "eth0")[0], largest(0xc6120000))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range uint32(3) {
		if err := c.SetFilter(largest(0xc6130000 + i)); err != nil {
			t.Fatalf("replacement %d: %v", i, err)
		}
	}
}

func BenchmarkFilter(b *testing.B) {
	for _, n := range []int{1, 1000, 10_000} {
		b.Run(fmt.Sprint("addresses=", n), func(b *testing.B) {
			owned := numbered(n)
			b.ReportAllocs()
			for b.Loop() {
				program(spans(owned, maxSpans))
			}
		})
	}
}
