// Package ownership says who may own an address on a segment. Package segment has the nodes agree on who does. It is apart
// from that so that one can decide about addresses without sockets, on any operating system.
package ownership

import "slices"

// Want says how one address is to be owned on a segment.
type Want struct {
	// Candidates are the nodes that may own the address. This node answers only if it is among them.
	Candidates *Candidates
	// Gradual: the address moves, though its owner can serve it, to a candidate that comes before the owner.
	Gradual bool
	// New: the address was allocated a moment ago. It is probed for strangers before its first use.
	New bool
	// Defend: a stranger that uses the address later is answered by announcing it again. Without it no node uses the
	// address until the stranger has not been seen for a minute.
	Defend bool
}

// Candidates are the nodes that may own an address. One value may serve many addresses, and many do: it is looked up by
// its pointer.
type Candidates []Candidate

// Candidate is one of them.
type Candidate struct {
	Node string
	// Preferred nodes come before others.
	Preferred bool
	// Standing comes before anything else.
	Standing Standing
}

// Standing says whether the kube-proxy of a node forwards the address. Candidates with a lower one come first.
type Standing uint8

const (
	// Settled: it forwards the address.
	Settled Standing = iota
	// Forwards: this node's own kube-proxy says that it forwards the address. The other nodes count this node as Fresh.
	Forwards
	// Fresh: it may not forward the address yet.
	Fresh
)

// NewCandidates makes them of names. preferred may be nil.
func NewCandidates(nodes []string, preferred func(node string) bool) *Candidates {
	c := make(Candidates, 0, len(nodes))
	for _, n := range nodes {
		c = append(c, Candidate{Node: n, Preferred: preferred != nil && preferred(n)})
	}
	return &c
}

// Nodes returns their names.
func (c *Candidates) Nodes() []string {
	names := make([]string, 0, len(*c))
	for _, o := range *c {
		names = append(names, o.Node)
	}
	return names
}

// Has reports whether the node is among them.
func (c *Candidates) Has(node string) bool {
	return slices.ContainsFunc(*c, func(o Candidate) bool { return o.Node == node })
}
