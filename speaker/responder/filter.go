package responder

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/net/bpf"
)

const (
	// FrameSize is how many bytes of a frame reach the process: more than any ARP packet has, and as
	// much of ICMPv6 as fits a frame, since its checksum covers all.
	FrameSize = 1514

	// maxSpans bounds a program. The kernel takes 4,096 instructions, but charges the socket for
	// the old program and the new one while they change places, against net.core.optmem_max:
	// 20 KiB before Linux 6.7.
	maxSpans = 128
)

// Filter returns a program that accepts the frames which have one of the addresses, all of one
// family, at one of the offsets. It accepts some others too: those whose last four bytes lie
// between two of the addresses, if there are many, and those that differ in other bytes if the
// addresses do.
func Filter(addrs []netip.Addr, offsets ...uint32) []bpf.Instruction {
	if len(addrs) == 0 {
		return []bpf.Instruction{bpf.RetConstant{Val: 0}}
	}
	last := addrs[0].BitLen()/32 - 1
	numbers := make([]uint32, len(addrs))
	for i, a := range addrs {
		numbers[i] = word(a, last)
	}
	all := spans(numbers, maxSpans/len(offsets))
	var code []bpf.Instruction
	for i, offset := range offsets {
		var match []bpf.Instruction
		for w := range last {
			if same, all := word(addrs[0], w), true; all {
				for _, a := range addrs {
					all = all && word(a, w) == same
				}
				if all {
					match = append(match,
						bpf.LoadAbsolute{Off: offset + uint32(4*w), Size: 4},
						bpf.JumpIf{Cond: bpf.JumpEqual, Val: same, SkipTrue: 1},
						reject)
				}
			}
		}
		match = append(match,
			bpf.LoadAbsolute{Off: offset + uint32(4*last), Size: 4},
			// search assumes that the value is not below the first span.
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: all[0].from, SkipTrue: 1},
			reject)
		match = append(match, search(all)...)
		if i < len(offsets)-1 {
			// Instead of rejecting the frame, go on with the next offset.
			for j, instruction := range match {
				if instruction == reject {
					match[j] = bpf.Jump{Skip: uint32(len(match) - j - 1)}
				}
			}
		}
		code = append(code, match...)
	}
	return code
}

var reject bpf.Instruction = bpf.RetConstant{Val: 0}

// word is the i-th group of four bytes of an address.
func word(a netip.Addr, i int) uint32 {
	if a.Is4() {
		b := a.As4()
		return binary.BigEndian.Uint32(b[:])
	}
	b := a.As16()
	return binary.BigEndian.Uint32(b[4*i:])
}

// A span is a range of numbers, both ends included.
type span struct{ from, to uint32 }

// spans are the smallest ranges that hold the numbers, ascending, with a gap between any two. If
// more than limit are needed, the closest are joined, and hold some other numbers as well. It
// sorts the numbers.
func spans(numbers []uint32, limit int) []span {
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	var all []span
	for _, n := range numbers {
		// n is above all[last].to, so that cannot overflow.
		if last := len(all) - 1; last >= 0 && all[last].to+1 == n {
			all[last].to = n
		} else {
			all = append(all, span{from: n, to: n})
		}
	}
	return coalesce(all, limit)
}

// coalesce closes the smallest gaps until at most limit spans are left.
func coalesce(all []span, limit int) []span {
	if len(all) <= limit {
		return all
	}
	// Gap i is the one after span i.
	order := make([]int, len(all)-1)
	for i := range order {
		order[i] = i
	}
	gap := func(i int) uint32 { return all[i+1].from - all[i].to }
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(gap(a), gap(b)) })
	closed := make([]bool, len(all))
	for _, i := range order[:len(all)-limit] {
		closed[i] = true
	}
	joined := make([]span, 0, limit)
	for i, s := range all {
		if i > 0 && closed[i-1] {
			joined[len(joined)-1].to = s.to
		} else {
			joined = append(joined, s)
		}
	}
	return joined
}

// search is a binary search: it finds the last span that begins at or below the value, then
// compares with that span's end.
func search(spans []span) []bpf.Instruction {
	if len(spans) == 1 {
		return []bpf.Instruction{
			bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: spans[0].to, SkipTrue: 1},
			bpf.RetConstant{Val: FrameSize},
			reject,
		}
	}
	half := len(spans) / 2
	lower, upper := search(spans[:half]), search(spans[half:])
	var code []bpf.Instruction
	if len(lower) <= 255 {
		code = append(code, bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: spans[half].from, SkipTrue: uint8(len(lower))})
	} else {
		// A conditional jump has 8 bits for its distance, an unconditional one has 32.
		code = append(code,
			bpf.JumpIf{Cond: bpf.JumpLessThan, Val: spans[half].from, SkipTrue: 1},
			bpf.Jump{Skip: uint32(len(lower))})
	}
	return append(append(code, lower...), upper...)
}
