package responder

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/net/bpf"
)

const (
	// FrameSize is how many bytes of a frame reach the process. No ARP packet has as many. ICMPv6
	// needs all that fit into a frame, because its checksum covers the whole packet.
	FrameSize = 1514

	// maxSpans bounds the size of a program. The kernel accepts 4,096 instructions. But while a new
	// program replaces an old one, it charges the socket for both, against net.core.optmem_max:
	// 20 KiB before Linux 6.7.
	maxSpans = 128
)

// Filter returns a program that accepts frames which have one of the addresses at one of the
// offsets. All addresses are of one family. The program also accepts some frames with other
// addresses. If there are many addresses, it accepts some whose last four bytes lie between two
// of them. If the addresses differ in other bytes, it does not compare those bytes.
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
			// Do not reject the frame, but continue with the next offset.
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

// word returns the i-th group of four bytes of an address.
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

// spans returns the smallest ranges that hold the numbers, ascending, with a gap between any two.
// If this needs more ranges than limit, the closest ranges are joined, and hold some other numbers,
// too. It sorts the numbers.
func spans(numbers []uint32, limit int) []span {
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	var all []span
	for _, n := range numbers {
		// n is above all[last].to, so the addition cannot overflow.
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
	// Gap i is between spans i and i+1.
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

// search returns the code of a binary search. It finds the last span that begins at or below the
// value, and compares the value with the end of that span.
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
