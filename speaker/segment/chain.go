package segment

import (
	"crypto/rand"
	"crypto/sha256"
)

// secret is one link of a hash chain. The chain proves that beats come from their sender, at the cost of one hash where a
// signature costs several hundred (L. Lamport, "Password authentication with insecure communication", 1981). The sender
// draws a secret and hashes it again and again. Beat i carries the secret whose hash is the secret of beat i-1. A Hello
// signs a secret that has been sent. A receiver of the Hello verifies the following secrets by hashing. Only the sender
// can produce them before it has sent them.
//
// The chain proves only "I am alive". Claims are signed.
type secret [16]byte

func (s secret) next() secret {
	sum := sha256.Sum256(s[:])
	return secret(sum[:16])
}

const (
	// maxChain bounds the memory of a chain to 64 KiB. At ten beats a second it lasts for seven minutes.
	maxChain = 4096
)

// chain holds the secrets: links[i] is that of beat i. There is no beat 0: only a Hello can name links[0].
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
	_, _ = rand.Read(s[:]) // crypto/rand.Read never fails.
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
