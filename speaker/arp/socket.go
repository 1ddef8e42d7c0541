package arp

import (
	"fmt"
	"net"

	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A conn sends and receives Ethernet frames on one interface.
type conn interface {
	// Read waits for a frame that passes the filter.
	Read(frame []byte) (int, error)
	// Write sends a frame now or not at all.
	Write(frame []byte) error
	// SetFilter replaces the filter at once.
	SetFilter([]bpf.Instruction) error
	// Close ends a Read that waits.
	Close() error
}

// socket is the conn on AF_PACKET.
//
// It is not an arp.Client: that wants the interface to have an IPv4 address of its own,
// which one that only carries Services need not have, and its writes wait for a full queue.
type socket struct {
	*packet.Conn
	index int
	raw   rawWriter
}

type rawWriter interface {
	Write(func(fd uintptr) (done bool)) error
}

// listen opens a socket that sees ARP on the interface, of that only what passes the filter, and
// nothing before the filter is there.
func listen(i Interface, filter []bpf.Instruction) (conn, error) {
	raw, err := assemble(i.Index, filter)
	if err != nil {
		return nil, err
	}
	ifi := &net.Interface{Index: i.Index, Name: i.Name, HardwareAddr: i.MAC}
	c, err := packet.Listen(ifi, packet.Raw, int(ethernet.EtherTypeARP), &packet.Config{Filter: raw})
	if err != nil {
		return nil, fmt.Errorf("open a packet socket on interface %q: %w", i.Name, err)
	}
	writer, err := c.SyscallConn()
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return &socket{Conn: c, index: i.Index, raw: writer}, nil
}

func (s *socket) Read(frame []byte) (int, error) {
	n, _, err := s.ReadFrom(frame)
	return n, err
}

// Write does not wait for room in the socket's buffer: it is called under the lock that every Set
// needs, and the next request or announcement comes anyway.
func (s *socket) Write(frame []byte) error {
	var err error
	failed := s.raw.Write(func(fd uintptr) bool {
		_, err = unix.Write(int(fd), frame)
		return true
	})
	if failed != nil {
		return failed
	}
	return err
}

func (s *socket) SetFilter(filter []bpf.Instruction) error {
	raw, err := assemble(s.index, filter)
	if err != nil {
		return err
	}
	return s.SetBPF(raw)
}

// assemble puts before the filter what only the kernel can tell of a frame. A socket bound to an
// interface also gets what came in through it for a VLAN or macvlan on top of it, whether
// or not that exists here: those are other segments, with owners of their own.
func assemble(index int, filter []bpf.Instruction) ([]bpf.RawInstruction, error) {
	return bpf.Assemble(append([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtInterfaceIndex},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(index), SkipTrue: 2},
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.PACKET_OTHERHOST, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	}, filter...))
}
