package arp

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/net/bpf"
)

const (
	// targetOffset is where ar$tpa is: after the Ethernet header (14), the fixed part of ARP (8),
	// sender's hardware and protocol address (6, 4) and target's hardware address (6).
	targetOffset = 14 + 8 + 6 + 4 + 6

	// maxSpans bounds the program. The kernel takes 4,096 instructions, but charges the socket for
	// the old program and the new one while they change places, against net.core.optmem_max:
	// 20 KiB before Linux 6.7.
	maxSpans = 128

	// accepted is how many bytes of a frame reach the process: enough for ARP with padding, or with
	// addresses longer than ours, so that such a packet is not taken for a malformed one.
	accepted = 128
)

// A span is a range of IPv4 addresses, both ends included.
type span struct{ from, to uint32 }

// spans are the least ranges that hold the addresses, ascending, with a gap between any two. No
// address may be given twice. If more than limit are needed the closest are joined, and
// hold some addresses more.
func spans(addrs []netip.Addr, limit int) []span {
	numbers := make([]uint32, len(addrs))
	for i, a := range addrs {
		b := a.As4()
		numbers[i] = binary.BigEndian.Uint32(b[:])
	}
	slices.Sort(numbers)
	var all []span
	for _, n := range numbers {
		// n is above all[last].to, which can therefore be counted up.
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

// program accepts the frames whose ARP target is in one of the spans. It reads nothing else: what
// kind of packet it is, is for parse to say, with a reason. Frames too short to have a target are rejected.
func program(spans []span) []bpf.Instruction {
	reject := bpf.RetConstant{Val: 0}
	if len(spans) == 0 {
		return []bpf.Instruction{reject}
	}
	return append([]bpf.Instruction{
		bpf.LoadAbsolute{Off: targetOffset, Size: 4},
		// search takes for granted that the target is not below the first span.
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: spans[0].from, SkipTrue: 1},
		reject,
	}, search(spans)...)
}

// search is a binary search: it finds the last span that begins at or below the target, then
// looks at that span's end. Seven comparisons for 128 spans.
func search(spans []span) []bpf.Instruction {
	if len(spans) == 1 {
		return []bpf.Instruction{
			bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: spans[0].to, SkipTrue: 1},
			bpf.RetConstant{Val: accepted},
			bpf.RetConstant{Val: 0},
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
