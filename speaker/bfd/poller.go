package bfd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// poller waits until one of several sockets can be read. Except for poke, only one goroutine may use it. While it waits, the
// runtime parks that goroutine. Waiting allocates nothing.
type poller struct {
	wake  int // an eventfd
	epoll int
	file  *os.File // the same descriptor, registered with the runtime
	raw   syscall.RawConn
	look  func(fd uintptr) bool

	events [32]unix.EpollEvent
	ready  int // number of valid events
	failed error
	drain  [8]byte
}

func newPoller() (_ *poller, err error) {
	p := &poller{wake: -1, epoll: -1}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("open an eventfd: %w", err)
	}
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("open an epoll instance: %w", err)
	}
	if err = p.add(p.wake); err != nil {
		return nil, err
	}
	// The runtime polls a file only if its descriptor is nonblocking.
	if err = unix.SetNonblock(p.epoll, true); err != nil {
		return nil, fmt.Errorf("poll sockets: %w", err)
	}
	p.file = os.NewFile(uintptr(p.epoll), "bfd")
	p.look = func(fd uintptr) bool {
		n, err := unix.EpollWait(int(fd), p.events[:], 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			p.failed = err
			return true
		}
		p.ready = max(n, 0)
		return n > 0
	}
	p.raw, err = p.file.SyscallConn()
	return p, err
}

// add makes wait watch a socket until the socket is closed.
func (p *poller) add(fd int) error {
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)} //nolint:gosec // A file descriptor.
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
		return fmt.Errorf("poll a socket: %w", err)
	}
	return nil
}

// wait waits until a socket can be read, the time has come, or somebody calls poke. A zero time means no timeout.
func (p *poller) wait(until time.Time) error {
	p.failed = nil
	if err := p.file.SetReadDeadline(until); err != nil {
		return err
	}
	err := p.raw.Read(p.look)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return errors.Join(err, p.failed)
}

// readable returns the sockets that can be read now. If there are many, a further call returns others, once these have been
// read. The result is valid until the next call.
func (p *poller) readable() []unix.EpollEvent {
	p.ready = 0
	p.look(uintptr(p.epoll)) // An error is that of the next wait, too.
	for _, e := range p.events[:p.ready] {
		if int(e.Fd) == p.wake {
			_, _ = unix.Read(p.wake, p.drain[:])
		}
	}
	return p.events[:p.ready]
}

// poke makes wait return.
func (p *poller) poke() {
	_, _ = unix.Write(p.wake, binary.NativeEndian.AppendUint64(nil, 1))
}

func (p *poller) close() {
	if p.wake >= 0 {
		_ = unix.Close(p.wake)
	}
	switch {
	case p.file != nil:
		_ = p.file.Close()
	case p.epoll >= 0:
		_ = unix.Close(p.epoll)
	}
}
