// Package bgp announces prefixes to routers. It keeps one BGP session for each configured peer
// (RFC 4271) and tells each of them exactly the prefixes and attributes that the caller wants it to
// hear: a caller states what should be true, the package makes it so and keeps it so.
//
// It only speaks. It dials and does not listen, but for passive peers, accepts no route, and passes nothing on from one peer
// to another, so no router can make a node forward what it should not.
//
// # One server for each peer
//
// The protocol is gobgp's. Every peer has a gobgp server of its own, with that peer as its only
// neighbour. Its local RIB therefore is the peer's Adj-RIB-Out: attributes may differ from peer to
// peer without any export policy, adding or breaking one peer cannot touch another, and the same
// router address may appear in two VRFs. What crosses from gobgp into this package is in server.go,
// accept.go, lockstep.go, status.go and reason.go; nothing of it is seen by callers.
//
// # The way of a prefix
//
// [Speaker.Set] notes what each peer should hear about one prefix in that peer's [ribOut] and
// returns. The peer's own goroutine picks up whatever has changed since it last looked, and only
// the latest wish for each prefix, and hands it to gobgp in batches.
//
// # What it does not do
//
// Routes that a router sends are refused, but gobgp keeps them in memory: routers should send none. A router that
// sends more than 10,000 of a family has its session closed for a minute (Cease, Maximum Number of Prefixes Reached,
// RFC 4486).
//
// It does not offer ADD-PATH, TCP-AO or confederations, and does not run BFD: a caller that does ends a session with
// [Speaker.PathDown].
package bgp
