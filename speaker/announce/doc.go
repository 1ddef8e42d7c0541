// Package announce decides how an address is announced: who may own it on which segment, and which nodes announce it to
// which routers. [Decide] is a function of a snapshot, which is a [Shared] and an [Address], and both are assembled of API
// objects here. Speakers do what it says; kubectl herald asks the same code why they do it. So there is no socket, clock or
// log in it, and it compiles for any operating system.
package announce
