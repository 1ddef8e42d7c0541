package ipam

import "math/bits"

// bitmap is a set of numbers that finds its lowest member fast. The first level has one bit for
// each number. Each further level has one bit for each word of the level below, set if that word is
// not zero. The last level has one word, which limits numbers to below 64^6; no memory has room for
// that many held addresses. Levels grow on demand.
type bitmap [6][]uint64

func (b *bitmap) set(n uint64) {
	for i := range b {
		word, bit := n/64, n%64
		if missing := int(word) + 1 - len(b[i]); missing > 0 {
			b[i] = append(b[i], make([]uint64, missing)...)
		}
		before := b[i][word]
		b[i][word] |= 1 << bit
		if before != 0 {
			return
		}
		n = word
	}
}

func (b *bitmap) clear(n uint64) {
	for i := range b {
		word, bit := n/64, n%64
		if word >= uint64(len(b[i])) {
			return
		}
		b[i][word] &^= 1 << bit
		if b[i][word] != 0 {
			return
		}
		n = word
	}
}

// lowest returns the lowest number in the set, and false if the set is empty.
func (b *bitmap) lowest() (n uint64, ok bool) {
	last := b[len(b)-1]
	if len(last) == 0 || last[0] == 0 {
		return 0, false
	}
	for i := len(b) - 1; i >= 0; i-- {
		n = n*64 + uint64(bits.TrailingZeros64(b[i][n]))
	}
	return n, true
}
