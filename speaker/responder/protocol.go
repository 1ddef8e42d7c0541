package responder

import (
	"net"
	"net/netip"

	"golang.org/x/net/bpf"
)

// A Protocol resolves the addresses of one family to MACs. It has no state: its methods may be
// called from any goroutine.
type Protocol interface {
	// Name is the name of the protocol in logs.
	Name() string
	// Supports reports whether the protocol can answer for addr, which must be a unicast address of
	// its family.
	Supports(addr netip.Addr) bool
	// Filter returns a program that accepts the packets which ask for one of the addresses or
	// claim it. It may accept other packets, too, which Parse and the Responder refuse. See [Filter].
	Filter(addrs []netip.Addr) []bpf.Instruction
	// Groups returns the multicast groups to which packets about addr are sent.
	Groups(addr netip.Addr) []netip.Addr
	// Open opens a socket on an interface. The socket receives only frames that pass the filter.
	// See [Listen].
	Open(i Interface, filter []bpf.Instruction) (Conn, error)
	// Parse reads an Ethernet frame that was received on the interface with the MAC self. A Drop
	// says why the frame gets no answer. Even then the packet may claim an address.
	Parse(frame []byte, self net.HardwareAddr) (Packet, Drop)
	// Answer builds the frame that tells the sender of p that p.Target is at mac. The Ethernet
	// source of the frame is always self: otherwise switches would learn the MAC of another node
	// on this node's port.
	Answer(self, mac net.HardwareAddr, p Packet) ([]byte, error)
	// Announce builds the unsolicited frames that tell all neighbours that addr is at self.
	Announce(self net.HardwareAddr, addr netip.Addr) ([][]byte, error)
	// Probe builds the frame that asks whether any machine uses addr, without a claim to it.
	Probe(self net.HardwareAddr, addr netip.Addr) ([]byte, error)
}

// A Packet is what a Protocol read from a frame: a request, a claim of a MAC to an address, or
// both, because a request also contains the sender's own address.
type Packet struct {
	// Target is the address asked for; the zero Addr if the packet is not a request.
	Target netip.Addr
	// Sender is the address of the machine that sent the packet. In a probe, which a machine sends
	// before it uses the target, it is the unspecified address.
	Sender netip.Addr
	// SenderMAC is the MAC to which the answer goes.
	SenderMAC net.HardwareAddr
	// Claimed is the address that, according to the packet, is at ClaimedMAC; the zero Addr if none.
	Claimed    netip.Addr
	ClaimedMAC net.HardwareAddr
}

// isProbe reports whether p asks for an address that its sender intends to use (RFC 5227 §2.1.1,
// RFC 4862 §5.4.3).
func (p Packet) isProbe() bool { return p.Target.IsValid() && p.Sender.IsUnspecified() }

// Drop says why a frame was not answered. It is empty if the frame was answered. The values are
// labels of a metric.
type Drop string

// The reasons that the Responder and all protocols share.
const (
	// DropMalformed: shorter than its fields say, or against the rules of the protocol.
	DropMalformed Drop = "malformed"
	// DropForeignVLAN: with a VLAN tag, so not of this interface's segment.
	DropForeignVLAN Drop = "foreign_vlan"
	// DropForeignDestination: to another machine, received because the interface is promiscuous.
	DropForeignDestination Drop = "foreign_destination"
	// DropOwn: from our own MAC, returned by a hub or a loop.
	DropOwn Drop = "own"
	// DropNotRequest: an answer, an announcement, or another operation of the protocol.
	DropNotRequest Drop = "not_request"
	// DropBadSender: from an address that no machine can have. An answer would go astray or to many
	// machines.
	DropBadSender Drop = "bad_sender"
	// DropNotOwned: for an address that is not set on this interface.
	DropNotOwned Drop = "not_owned"
	// DropSilent: received while [Options].Silent returned true.
	DropSilent Drop = "silent"
)

// A Conn sends and receives Ethernet frames on one interface.
type Conn interface {
	// Read waits for a frame that passes the filter.
	Read(frame []byte) (int, error)
	// Write sends a frame, or fails if it cannot be sent now.
	Write(frame []byte) error
	// SetFilter replaces the filter at once.
	SetFilter([]bpf.Instruction) error
	// SetGroups joins these multicast groups and leaves all others. An error is not fatal: the
	// groups that could be joined are joined. For many groups it takes long, and Close ends it
	// early. SetGroups(nil) leaves all groups, and must be called after Close, too.
	SetGroups([]netip.Addr) error
	// Close closes the socket, and ends a Read that waits.
	Close() error
}
