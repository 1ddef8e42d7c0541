package responder

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// maxFilteredGroups is the largest number of groups that are filtered. With more groups the
	// interface receives all multicast. Network cards filter a few dozen to a few hundred groups,
	// and the kernel searches the list of a socket linearly.
	maxFilteredGroups = 256

	// groupsPerSocket keeps the memberships of a socket within net.core.optmem_max, which was 20 KiB
	// before Linux 6.7: each takes 40 bytes.
	groupsPerSocket = 256
)

// memberships are the multicast groups of one interface, each joined twice. The memberships of
// the packet socket open the filter of the network card. The kernel sends no MLD reports for
// them, so with them alone hosts behind a switch with MLD snooping would not reach the addresses.
// It does send reports for memberships of IPv6 sockets (RFC 2710 §3, RFC 3810 §6).
type memberships struct {
	index int
	raw   syscall.RawConn // of the packet socket

	closed atomic.Bool // the packet socket is closed: a call of set that still runs ends

	mu       sync.Mutex
	filtered map[netip.Addr]struct{} // joined on the packet socket
	all      bool                    // the packet socket receives all multicast
	reported map[netip.Addr]int      // joined on this IPv6 socket
	sockets  []int                   // IPv6 sockets that are not bound and receive nothing
	joined   map[int]int             // the number of groups of each IPv6 socket
}

// set joins the groups and leaves all others. It joins as many as it can.
func (m *memberships) set(groups []netip.Addr) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	wanted := make(map[netip.Addr]struct{}, len(groups))
	for _, g := range groups {
		wanted[g] = struct{}{}
	}
	var err error
	if !m.closed.Load() {
		err = m.open(wanted)
	}
	return errors.Join(err, m.report(wanted))
}

// open makes the network card receive frames to the groups.
func (m *memberships) open(wanted map[netip.Addr]struct{}) (err error) {
	if m.filtered == nil {
		m.filtered = make(map[netip.Addr]struct{})
	}
	if all := len(wanted) > maxFilteredGroups; all != m.all {
		request := unix.PacketMreq{Ifindex: int32(m.index), Type: unix.PACKET_MR_ALLMULTI}
		if err := m.change(all, &request); err != nil {
			return fmt.Errorf("receive all multicast: %w", err)
		}
		m.all = all
	}
	if m.all {
		wanted = nil
	}
	for g := range wanted {
		if m.closed.Load() {
			return nil
		}
		if _, ok := m.filtered[g]; ok {
			continue
		}
		if failed := m.change(true, groupRequest(m.index, g)); failed != nil {
			err = fmt.Errorf("receive multicast to %v: %w", g, failed)
			continue
		}
		m.filtered[g] = struct{}{}
	}
	for g := range m.filtered {
		if _, ok := wanted[g]; !ok {
			_ = m.change(false, groupRequest(m.index, g)) // This fails only if the interface is gone.
			delete(m.filtered, g)
		}
	}
	return err
}

// groupRequest returns a request for an IPv6 group, by its MAC (RFC 2464 §7).
func groupRequest(index int, group netip.Addr) *unix.PacketMreq {
	b := group.As16()
	return &unix.PacketMreq{
		Ifindex: int32(index), Type: unix.PACKET_MR_MULTICAST, Alen: 6,
		Address: [8]byte{0x33, 0x33, b[12], b[13], b[14], b[15]},
	}
}

func (m *memberships) change(add bool, request *unix.PacketMreq) error {
	option := unix.PACKET_DROP_MEMBERSHIP
	if add {
		option = unix.PACKET_ADD_MEMBERSHIP
	}
	var err error
	if failed := m.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptPacketMreq(int(fd), unix.SOL_PACKET, option, request)
	}); failed != nil {
		return failed
	}
	return err
}

// report makes the kernel report the groups to routers and switches, by MLD.
func (m *memberships) report(wanted map[netip.Addr]struct{}) (err error) {
	if m.reported == nil {
		m.reported, m.joined = make(map[netip.Addr]int), make(map[int]int)
	}
	if len(wanted) == 0 {
		// When a socket is closed, the kernel leaves all its groups.
		for _, fd := range m.sockets {
			err = errors.Join(err, unix.Close(fd))
		}
		m.sockets = nil
		clear(m.reported)
		clear(m.joined)
		return err
	}
	for g, fd := range m.reported {
		if m.closed.Load() {
			return nil
		}
		if _, ok := wanted[g]; !ok {
			_ = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_LEAVE_GROUP, m.reportRequest(g))
			delete(m.reported, g)
			m.joined[fd]--
		}
	}
	for g := range wanted {
		if m.closed.Load() {
			return nil
		}
		// The kernel reports no membership in the group of all nodes (RFC 3810 §6).
		if _, ok := m.reported[g]; ok || g == netip.IPv6LinkLocalAllNodes() {
			continue
		}
		fd, failed := m.socketWithRoom()
		if failed == nil {
			failed = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, m.reportRequest(g))
		}
		if failed != nil {
			// Without IPv6 on the interface no join succeeds.
			return errors.Join(err, fmt.Errorf("join %v on an IPv6 socket: %w", g, failed))
		}
		m.reported[g] = fd
		m.joined[fd]++
	}
	return err
}

func (m *memberships) reportRequest(group netip.Addr) *unix.IPv6Mreq {
	return &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(m.index)}
}

func (m *memberships) socketWithRoom() (int, error) {
	if i := slices.IndexFunc(m.sockets, func(fd int) bool { return m.joined[fd] < groupsPerSocket }); i >= 0 {
		return m.sockets[i], nil
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open an IPv6 socket: %w", err)
	}
	m.sockets = append(m.sockets, fd)
	return fd, nil
}
