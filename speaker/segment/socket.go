package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/mdlayher/ethernet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// sockets are the packet sockets of one interface. The host's firewall does not affect them. One goroutine reads and writes
// them, and waits for all of them at once.
//
// Beats have sockets of their own, for which no goroutine waits. On a large segment nearly all frames are beats, and a
// wake-up for a beat costs a hundred times as much as to read it. The kernel stamps each beat with its time of arrival, so
// it matters little when the beat is read: see reading.cameAt.
type sockets struct {
	index int
	fds   []int // wait waits for these: IPv4 without beats, IPv6 without beats but with neighbour advertisements, ARP
	beats []int // over IPv4 and IPv6
	wake  int   // an eventfd

	stamp   []byte  // buffer for the kernel's stamp of a beat
	emptied reading // when the sockets for beats were last read

	epoll  int
	poller *os.File // epoll as a file, for which the Go runtime waits
	raw    syscall.RawConn
	events [4]unix.EpollEvent
	ready  int // the number of events
	drain  [8]byte
}

// openSockets opens the sockets. They receive only frames that the filters accept, and none before the filters are attached.
func openSockets(index int) (_ *sockets, err error) {
	s := &sockets{index: index, stamp: make([]byte, unix.CmsgSpace(stampSize)), emptied: readClocks()}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("open an eventfd: %w", err)
	}
	for _, o := range []struct {
		fds    *[]int
		kind   ethernet.EtherType
		filter []bpf.Instruction
		group  MAC
	}{
		{&s.fds, ethernet.EtherTypeIPv4, filter4(false), groupMAC4},
		{&s.fds, ethernet.EtherTypeIPv6, filter6(false), groupMAC6},
		{&s.fds, ethernet.EtherTypeARP, filterARP, MAC{}},
		{&s.beats, ethernet.EtherTypeIPv4, filter4(true), MAC{}},
		{&s.beats, ethernet.EtherTypeIPv6, filter6(true), MAC{}},
	} {
		fd, err := openSocket(index, o.kind, o.filter, o.group)
		if err != nil {
			return nil, err
		}
		*o.fds = append(*o.fds, fd)
	}
	for _, fd := range s.beats {
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW, 1); err != nil {
			return nil, fmt.Errorf("have the kernel stamp frames: %w", err)
		}
	}
	if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("open an epoll instance: %w", err)
	}
	for _, fd := range append([]int{s.wake}, s.fds...) {
		e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)} //nolint:gosec // A file descriptor.
		if err = unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
			return nil, fmt.Errorf("poll a socket: %w", err)
		}
	}
	// The Go runtime waits for a file only if its descriptor is non-blocking.
	if err = unix.SetNonblock(s.epoll, true); err != nil {
		return nil, fmt.Errorf("poll sockets: %w", err)
	}
	s.poller = os.NewFile(uintptr(s.epoll), "segment")
	s.raw, err = s.poller.SyscallConn()
	return s, err
}

func openSocket(index int, kind ethernet.EtherType, filter []bpf.Instruction, group MAC) (fd int, err error) {
	// Protocol 0: nothing is received before bind names the protocol.
	if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, fmt.Errorf("open a packet socket, for which the speaker needs the capability NET_RAW: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	if err = attach(fd, index, filter); err != nil {
		return -1, fmt.Errorf("attach a filter: %w", err)
	}
	if group != (MAC{}) {
		m := unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_MULTICAST, Alen: uint16(len(group))} //nolint:gosec // An interface's index.
		copy(m.Address[:], group[:])
		if err = unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &m); err != nil {
			return -1, fmt.Errorf("join the group %v: %w", group, err)
		}
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20) // Room for about 900 frames.
	protocol := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, uint16(kind)))
	if err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index, Protocol: protocol}); err != nil {
		return -1, fmt.Errorf("bind a packet socket: %w", err)
	}
	return fd, nil
}

// attach attaches the filter, with checks before it of what only the kernel knows about a frame. A socket on an interface
// also gets the frames for a VLAN or macvlan on top of it, which are on other segments.
func attach(fd, index int, filter []bpf.Instruction) error {
	raw, err := bpf.Assemble(append([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtInterfaceIndex},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(index), SkipTrue: 3}, //nolint:gosec // An interface's index.
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OTHERHOST, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	}, filter...))
	if err != nil {
		return err
	}
	program := make([]unix.SockFilter, len(raw))
	for i, o := range raw {
		program[i] = unix.SockFilter{Code: o.Op, Jt: o.Jt, Jf: o.Jf, K: o.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{
		Len: uint16(len(program)), Filter: &program[0], //nolint:gosec // A few dozen.
	})
}

const accepted = 1 << 16

// filter4 accepts UDP to the group and port over IPv4, without fragments: either only beats, or all frames except beats.
func filter4(beats bool) []bpf.Instruction {
	return append([]bpf.Instruction{
		bpf.LoadAbsolute{Off: etherSize + 16, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0xe00000fe, SkipTrue: 10},
		bpf.LoadAbsolute{Off: etherSize + 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocolUDP, SkipTrue: 8},
		bpf.LoadAbsolute{Off: etherSize + 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3fff, SkipTrue: 6},
		bpf.LoadMemShift{Off: etherSize},
		bpf.LoadIndirect{Off: etherSize + 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: Port, SkipTrue: 3},
		bpf.LoadIndirect{Off: etherSize + udpSize + kindOffset, Size: 1},
	}, ifBeat(beats)...)
}

// filter6 accepts UDP to the group and port over IPv6: either only beats, or all frames except beats, and in that case also
// neighbour advertisements (RFC 4861).
func filter6(beats bool) []bpf.Instruction {
	advertisements := uint8(10) // Jump to the end, where frames are accepted.
	if beats {
		advertisements = 11 // Jump to the end, where they are refused.
	}
	return append([]bpf.Instruction{
		bpf.LoadAbsolute{Off: etherSize + 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocolICMPv6, SkipTrue: 3},
		bpf.LoadAbsolute{Off: etherSize + ipv6Size, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 136, SkipTrue: advertisements},
		bpf.RetConstant{Val: 0},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocolUDP, SkipTrue: 9},
		bpf.LoadAbsolute{Off: etherSize + 24, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0xff020000, SkipTrue: 7},
		bpf.LoadAbsolute{Off: etherSize + 36, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x00000114, SkipTrue: 5},
		bpf.LoadAbsolute{Off: etherSize + ipv6Size + 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: Port, SkipTrue: 3},
		bpf.LoadAbsolute{Off: etherSize + ipv6Size + udpSize + kindOffset, Size: 1},
	}, ifBeat(beats)...)
}

// ifBeat returns the end of a filter that has loaded the type of a frame. Its last two instructions accept and refuse.
func ifBeat(beats bool) []bpf.Instruction {
	refuse := bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(kindBeat), SkipTrue: 1}
	if beats {
		refuse.Cond = bpf.JumpNotEqual
	}
	return []bpf.Instruction{refuse, bpf.RetConstant{Val: accepted}, bpf.RetConstant{Val: 0}}
}

// filterARP accepts ARP replies.
var filterARP = []bpf.Instruction{
	bpf.LoadAbsolute{Off: etherSize + 6, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 2, SkipTrue: 1},
	bpf.RetConstant{Val: 0},
	bpf.RetConstant{Val: accepted},
}

// wait returns when a socket can be read, when poke was called, or when the time has passed.
//
// The goroutine is parked. If a thread blocked in poll instead, the Go runtime would check it fifty times within a
// millisecond, which costs more than the frames.
func (s *sockets) wait(d time.Duration) error {
	if err := s.poller.SetReadDeadline(time.Now().Add(max(d, 0))); err != nil {
		return err
	}
	s.ready = 0
	var failed error
	err := s.raw.Read(func(fd uintptr) bool {
		n, err := unix.EpollWait(int(fd), s.events[:], 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			failed = err
			return true
		}
		s.ready = max(n, 0)
		return n > 0
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// If the deadline has already passed, Read does not look at the sockets.
		s.look()
		err = nil
	}
	for _, e := range s.events[:s.ready] {
		if int(e.Fd) == s.wake {
			_, _ = unix.Read(s.wake, s.drain[:])
		}
	}
	return errors.Join(err, failed)
}

// look finds out which sockets can be read now.
func (s *sockets) look() {
	n, _ := unix.EpollWait(s.epoll, s.events[:], 0)
	s.ready = max(n, 0)
}

// read calls f with every frame that has arrived, and returns when there are no more. It reports whether there was one. It
// reads only sockets that wait or look found ready.
func (s *sockets) read(buffer []byte, f func(frame []byte)) (any bool) {
	for _, e := range s.events[:s.ready] {
		if int(e.Fd) == s.wake {
			continue
		}
		for range 4096 { // The other sockets have to be read, too.
			n, err := unix.Read(int(e.Fd), buffer)
			if err != nil {
				break // EAGAIN, or an error that reading has cleared, such as ENETDOWN.
			}
			any = true
			f(buffer[:n])
		}
	}
	return any
}

// stampSize is the size of a struct __kernel_timespec.
const stampSize = 16

// reading is the time on both clocks at one moment.
type reading struct {
	boot Time
	wall time.Duration // since 1970, by CLOCK_REALTIME
}

func readClocks() reading {
	return reading{boot: BootTime(), wall: time.Duration(time.Now().UnixNano())}
}

// clockStep is by how much the two clocks may differ about the time between two readings. The kernel slews both alike, so
// they differ only if the time of day was set, or if this thread was interrupted after it had read one of the clocks.
const clockStep = time.Millisecond

// cameAt converts the kernel's stamp of a frame to the boot clock. The frame arrived between two readings, before and r.
// A stamp is a time of day. If the time of day was set meanwhile, the frame counts as having arrived now. A time that is too
// early would make the sender look silent. A time that is too late only delays the discovery of the sender's death, by the
// time that frames wait to be read.
func (r reading) cameAt(before reading, stamp time.Duration) Time {
	if ((r.wall - before.wall) - (r.boot - before.boot)).Abs() > clockStep {
		return r.boot
	}
	return min(max(r.boot-(r.wall-stamp), before.boot), r.boot)
}

// readBeats calls f with every beat that has arrived and its time of arrival, and returns how many there were.
func (s *sockets) readBeats(buffer []byte, f func(frame []byte, now, came Time)) (count int) {
	now := readClocks()
	for _, fd := range s.beats {
		for range 4096 {
			n, stamp, _, _, err := unix.Recvmsg(fd, buffer, s.stamp, 0)
			if err != nil {
				break // EAGAIN, or an error that reading has cleared, such as ENETDOWN.
			}
			came := now.boot
			if h, t, _, err := unix.ParseOneSocketControlMessage(s.stamp[:stamp]); err == nil && h.Type == unix.SO_TIMESTAMPNS_NEW && len(t) >= stampSize {
				seconds, rest := binary.NativeEndian.Uint64(t), binary.NativeEndian.Uint64(t[8:])
				came = now.cameAt(s.emptied, time.Duration(seconds)*time.Second+time.Duration(rest)) //nolint:gosec // As the kernel wrote them.
			}
			count++
			f(buffer[:n], now.boot, came)
		}
	}
	s.emptied = now
	return count
}

// write sends a frame, or fails if the kernel cannot take it now.
func (s *sockets) write(frame []byte) error {
	_, err := unix.Write(s.fds[0], frame)
	return err
}

// poke ends a wait.
func (s *sockets) poke() {
	_, _ = unix.Write(s.wake, binary.NativeEndian.AppendUint64(nil, 1))
}

func (s *sockets) close() {
	for _, fd := range slices.Concat(s.fds, s.beats) {
		_ = unix.Close(fd)
	}
	if s.wake > 0 {
		_ = unix.Close(s.wake)
	}
	switch {
	case s.poller != nil:
		_ = s.poller.Close()
	case s.epoll > 0:
		_ = unix.Close(s.epoll)
	}
}
