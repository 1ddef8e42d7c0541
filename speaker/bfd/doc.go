// Package bfd finds out within a fraction of a second that the path to a neighbour is dead: Bidirectional Forwarding
// Detection (RFC 5880) in asynchronous mode, with neighbours on the same link (RFC 5881) and behind routers (RFC 5883).
//
// A caller states which sessions there should be with [Speaker.Set], and hears of changes by a callback. The package knows
// addresses and interfaces and nothing else of this program: it can be used by itself.
//
// The files, from the inside out: packet.go has the packets, machine.go the state machine of one session, member.go a
// session with its place among the others, speaker.go the goroutine that owns them all and open.go the sockets that it gives
// them, and socket.go and poller.go how
// packets leave and arrive. docs/bfd.md explains the protocol and shows how it is used.
//
// # What it does not do
//
// It neither sends nor accepts signed packets (RFC 5880 §6.7): those are dropped and counted. It has no echo function
// (§6.4) and does not ask for demand mode (§6.6), but honours a peer that does. The C bit (§4.1) is always 0:
// sessions live and die with this process, so the peer of a process
// that ended finds the node dead although its kernel may go on forwarding.
package bfd
