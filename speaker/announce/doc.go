// Package announce decides how an address is announced: which nodes may own it on which segment, and which nodes announce it
// to which routers. [Decide] is a function of a snapshot, which consists of a [Shared] and an [Address]. The package also
// assembles both from API objects. Speakers apply the decisions, and kubectl herald calls the same code to explain them. For
// this reason the package uses no sockets, clocks or logs, and compiles for any operating system.
package announce
