// Package bfd detects within a fraction of a second that the path to a neighbour is dead. It implements Bidirectional
// Forwarding Detection (RFC 5880) in asynchronous mode, with neighbours on the same link (RFC 5881) and behind routers
// (RFC 5883).
//
// The caller sets the wanted sessions with [Speaker.Set], and a callback reports changes. The package deals with addresses and
// interfaces and depends on nothing else of this program, so it can be used by itself.
//
// The files, from the inside out:
//
//   - packet.go: the packets
//   - machine.go: the state machine of one session
//   - session.go: the wanted sessions, their status and their changes
//   - member.go: a session with its place among the others
//   - speaker.go: the goroutine that owns all sessions
//   - open.go: opens and closes the sockets of the sessions
//   - socket.go and poller.go: send and receive packets
//
// docs/bfd.md explains the protocol and how the package is used.
//
// # What it does not do
//
// The package neither sends nor accepts signed packets (RFC 5880 §6.7): they are dropped and counted. It has no echo function
// (§6.4). It does not ask for demand mode (§6.6), but honours a peer that does. The C bit (§4.1) is always 0: sessions live
// only as long as this process, so after the process has ended, the peer finds the node dead even if its kernel goes on
// forwarding.
package bfd
