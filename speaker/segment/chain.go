package segment

import (
	"crypto/rand"
	"crypto/sha256"
)

// A hash chain proves that beats are the sender's own, at the cost of one hash where a signature costs
// several hundred (L. Lamport, "Password authentication with insecure communication", 1981). The sender
// draws a secret and hashes it again and again. The beat number i carries the hash before that of beat i-1.
// A Hello signs one of those that have been sent. Whoever has it verifies the following ones by hashing;
// nobody but the sender can produce them before the sender has sent them.
//
// The contents of the chain say nothing but "I am alive". What a node claims is signed.
type secret [16]byte

func (s secret) next() secret {
	sum := sha256.Sum256(s[:])
	return secret(sum[:16])
}

const (
	// maxChain bounds the memory of a chain to 64 KiB. At ten beats a second it lasts for seven minutes.
	maxChain = 4096
)

// chain holds the secrets: links[i] is for beat i, links[0] for none.
type chain struct {
	number uint32
	links  []secret
	used   uint32 // the index of the last beat that was sent
}

func newChain(number uint32, seed secret, length int) chain {
	c := chain{number: number, links: make([]secret, length+1)}
	c.links[length] = seed
	for i := length; i > 0; i-- {
		c.links[i-1] = c.links[i].next()
	}
	return c
}

func randomSecret() (s secret) {
	_, _ = rand.Read(s[:]) // It never fails: crypto/rand.
	return s
}

// spent reports whether all secrets have been used.
func (c *chain) spent() bool { return int(c.used) >= len(c.links)-1 }

// follows reports whether s is the secret of a beat that comes n beats after one with the secret before.
func (s secret) follows(before secret, n uint32) bool {
	for range n {
		s = s.next()
	}
	return s == before
}
