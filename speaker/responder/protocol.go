package responder

import (
	"net"
	"net/netip"

	"golang.org/x/net/bpf"
)

// A Protocol resolves the addresses of one family to MACs. It has no state: its methods may be
// called from any goroutine.
type Protocol interface {
	// Name is for logs.
	Name() string
	// Supports tells whether addr is one that can be answered for: unicast, of the protocol's
	// family.
	Supports(addr netip.Addr) bool
	// Filter returns a program that accepts the packets which ask for one of the addresses or
	// claim it. It may accept more, which Parse and the Responder refuse. See [Filter].
	Filter(addrs []netip.Addr) []bpf.Instruction
	// Groups are the multicast groups in which packets about addr are sent.
	Groups(addr netip.Addr) []netip.Addr
	// Open opens a socket on an interface, which receives nothing that does not pass the filter.
	// See [Listen].
	Open(i Interface, filter []bpf.Instruction) (Conn, error)
	// Parse reads an Ethernet frame that was received on the interface with the MAC self. A Drop
	// says why no answer is due; the packet may claim an address all the same.
	Parse(frame []byte, self net.HardwareAddr) (Packet, Drop)
	// Answer builds the frame that tells who asked in p that p.Target is at mac. The frame's
	// Ethernet source is self in any case: otherwise switches would learn the MAC of another node
	// on our port.
	Answer(self, mac net.HardwareAddr, p Packet) ([]byte, error)
	// Announce builds the frames that tell all neighbours unsolicited that addr is at self.
	Announce(self net.HardwareAddr, addr netip.Addr) ([][]byte, error)
	// Probe builds the frame that asks whether anybody uses addr, without claiming it.
	Probe(self net.HardwareAddr, addr netip.Addr) ([]byte, error)
}

// A Packet is what a Protocol read from a frame: a request, a claim of an address by a MAC, or
// both, since a request also tells the sender's own address.
type Packet struct {
	// Target is the address asked for; the zero Addr if the packet is not a request.
	Target netip.Addr
	// Sender is the address of the machine that sent the packet: the unspecified address in a
	// probe, which asks before it uses the target.
	Sender netip.Addr
	// SenderMAC is where the answer goes.
	SenderMAC net.HardwareAddr
	// Claimed is the address that the packet says is at ClaimedMAC; the zero Addr if none.
	Claimed    netip.Addr
	ClaimedMAC net.HardwareAddr
}

// isProbe reports whether p asks for an address that its sender intends to use (RFC 5227 §2.1.1,
// RFC 4862 §5.4.3).
func (p Packet) isProbe() bool { return p.Target.IsValid() && p.Sender.IsUnspecified() }

// Drop says why a frame was not answered; the empty Drop says that it was. The values are
// labels of a metric.
type Drop string

// The reasons that the Responder and all protocols share.
const (
	// DropMalformed: too short for what it says it is, or against the rules of the protocol.
	DropMalformed Drop = "malformed"
	// DropForeignVLAN: with a VLAN tag, so not of this interface's segment.
	DropForeignVLAN Drop = "foreign_vlan"
	// DropForeignDestination: to another machine; seen because the interface is promiscuous.
	DropForeignDestination Drop = "foreign_destination"
	// DropOwn: from our own MAC, come back through a hub or a loop.
	DropOwn Drop = "own"
	// DropNotRequest: an answer, an announcement, or another operation of the protocol.
	DropNotRequest Drop = "not_request"
	// DropBadSender: from an address that nobody can have, to which an answer would go astray or to
	// many machines.
	DropBadSender Drop = "bad_sender"
	// DropNotOwned: for an address that is not set on this interface.
	DropNotOwned Drop = "not_owned"
	// DropSilent: while [Options].Silent returned true.
	DropSilent Drop = "silent"
)

// A Conn sends and receives Ethernet frames on one interface.
type Conn interface {
	// Read waits for a frame that passes the filter.
	Read(frame []byte) (int, error)
	// Write sends a frame now or not at all.
	Write(frame []byte) error
	// SetFilter replaces the filter at once.
	SetFilter([]bpf.Instruction) error
	// SetGroups joins these multicast groups and leaves all others. An error is not fatal: what
	// could be joined is. It takes long for many groups; Close ends it early. The groups are left by
	// SetGroups(nil), which is also due after Close.
	SetGroups([]netip.Addr) error
	// Close ends a Read that waits.
	Close() error
}
