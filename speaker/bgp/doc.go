// Package bgp announces prefixes to routers. It keeps one BGP session (RFC 4271) with each configured peer. Each peer is
// told exactly the prefixes and attributes that the caller wants: the caller states the desired state, and the package
// establishes and maintains it.
//
// The package only announces. It accepts no routes and passes nothing on from one peer to another, so no router can make a
// node forward traffic that it should not forward. It opens the connections itself, and listens only for passive peers.
//
// # One server for each peer
//
// The protocol implementation is gobgp. Every peer has a gobgp server of its own, with that peer as its only neighbour. The
// local RIB of that server is therefore the peer's Adj-RIB-Out: attributes may differ from peer to peer without an export
// policy, a peer that is added or fails cannot affect another, and the same router address may appear in two VRFs. The
// interface to gobgp is in the files that import github.com/osrg/gobgp: server.go runs a server, and the others configure it, watch it or
// read messages with its types. Callers do not see it. Connections are this package's own: dial.go opens them, listener.go accepts
// those of passive peers, and gobgp takes both from a channel.
//
// # The path of a prefix
//
// [Speaker.Set] records what each peer should hear about one prefix in that peer's [ribOut], and returns. The peer's own
// goroutine takes the prefixes that have changed since it last looked, with only the latest state of each, and hands them to
// gobgp in batches.
//
// # What it does not do
//
// Routes that a router sends are refused, but gobgp keeps them in memory, so routers should send none. If a router sends
// more than 10,000 routes of a family, its session is closed for a minute (Cease, Maximum Number of Prefixes Reached,
// RFC 4486).
//
// The package does not offer ADD-PATH, TCP-AO or confederations. It does not run BFD: a caller that runs BFD ends a session
// with [Speaker.PathDown].
package bgp
