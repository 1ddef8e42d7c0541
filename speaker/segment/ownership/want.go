// Package ownership has the types that say which nodes may own an address on a segment. With package segment these nodes
// agree on the owner. The types are not part of that package, so code that uses them needs no sockets and runs on any
// operating system.
package ownership

import "slices"

// Want describes how one address is to be owned on a segment.
type Want struct {
	// Candidates are the nodes that may own the address. This node answers only if it is among them.
	Candidates *Candidates
	// Gradual means that the address moves to a candidate that comes before its owner, although the owner can serve it.
	Gradual bool
	// New means that the address was allocated a moment ago. It is probed for strangers, which are machines that are not
	// speakers, before its first use.
	New bool
	// Defend means that the owner announces the address again when a stranger uses it later. Without Defend, no node uses
	// the address until the stranger has not been seen for a minute.
	Defend bool
}

// Candidates are the nodes that may own an address. Many addresses may share one value, which is looked up by its pointer.
type Candidates []Candidate

// Candidate is a node that may own an address.
type Candidate struct {
	Node string
	// Preferred nodes come before others.
	Preferred bool
	// Standing is compared before anything else.
	Standing Standing
}

// Standing says whether the kube-proxy of a node forwards the address. Candidates with a lower Standing come first.
type Standing uint8

const (
	// Settled: the kube-proxy of the node forwards the address.
	Settled Standing = iota
	// Forwards: this node's own kube-proxy reports that it forwards the address. Other nodes count this node as Fresh.
	Forwards
	// Fresh: the kube-proxy of the node may not forward the address yet.
	Fresh
)

// NewCandidates returns the named nodes as candidates. preferred may be nil.
func NewCandidates(nodes []string, preferred func(node string) bool) *Candidates {
	c := make(Candidates, 0, len(nodes))
	for _, n := range nodes {
		c = append(c, Candidate{Node: n, Preferred: preferred != nil && preferred(n)})
	}
	return &c
}

// Nodes returns the names of the candidates.
func (c *Candidates) Nodes() []string {
	names := make([]string, 0, len(*c))
	for _, o := range *c {
		names = append(names, o.Node)
	}
	return names
}

// Has reports whether the node is a candidate.
func (c *Candidates) Has(node string) bool {
	return slices.ContainsFunc(*c, func(o Candidate) bool { return o.Node == node })
}
