package responder

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// packetConn is the Conn on AF_PACKET.
//
// It is not an arp.Client of github.com/mdlayher/arp, because that requires an IPv4 address on the
// interface and blocks on a full queue. It is not an ndp.Conn either, because that does not receive
// unicast packets to an address that is not local.
type packetConn struct {
	*packet.Conn
	index  int
	raw    syscall.RawConn
	groups memberships
}

// Listen opens a packet socket for one EtherType on an interface. The socket receives only frames that
// pass the filter, and nothing before the filter is set.
func Listen(i Interface, etherType uint16, filter []bpf.Instruction) (Conn, error) {
	code, err := assemble(i.Index, filter)
	if err != nil {
		return nil, err
	}
	ifi := &net.Interface{Index: i.Index, Name: i.Name, HardwareAddr: i.MAC}
	conn, err := packet.Listen(ifi, packet.Raw, int(etherType), &packet.Config{Filter: code})
	if err != nil {
		return nil, fmt.Errorf("open a packet socket on interface %q: %w", i.Name, err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &packetConn{Conn: conn, index: i.Index, raw: raw, groups: memberships{index: i.Index, raw: raw}}, nil
}

func (c *packetConn) Read(frame []byte) (int, error) {
	n, _, err := c.ReadFrom(frame)
	return n, err
}

// Write does not wait for room in the socket's buffer, because its callers hold the lock that every
// Set needs. If the frame is lost, another request or announcement follows anyway.
func (c *packetConn) Write(frame []byte) error {
	var err error
	failed := c.raw.Write(func(fd uintptr) bool {
		_, err = unix.Write(int(fd), frame)
		return true
	})
	if failed != nil {
		return failed
	}
	return err
}

func (c *packetConn) SetFilter(filter []bpf.Instruction) error {
	code, err := assemble(c.index, filter)
	if err != nil {
		return err
	}
	return c.SetBPF(code)
}

func (c *packetConn) SetGroups(groups []netip.Addr) error { return c.groups.set(groups) }

func (c *packetConn) Close() error {
	c.groups.closed.Store(true)
	return c.Conn.Close()
}

// assemble returns the filter, with checks before it of what only the kernel knows about a frame. A
// socket that is bound to an interface also receives the frames that arrived through it for a VLAN or
// macvlan on top of it, whether or not such an interface exists on this machine. Those are other
// segments, with owners of their own.
func assemble(index int, filter []bpf.Instruction) ([]bpf.RawInstruction, error) {
	return bpf.Assemble(append([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtInterfaceIndex},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(index), SkipTrue: 2},
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.PACKET_OTHERHOST, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	}, filter...))
}
