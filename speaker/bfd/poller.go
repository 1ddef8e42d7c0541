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

// poller waits for any of some sockets. It is one goroutine's, but for poke. That goroutine is parked by the runtime
// while it waits, and waiting allocates nothing.
type poller struct {
	wake  int // an eventfd
	epoll int
	file  *os.File // the same, known to the runtime
	raw   syscall.RawConn
	look  func(fd uintptr) bool

	events [32]unix.EpollEvent
	ready  int // of events
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
	// A file whose descriptor does not block is waited for by the runtime.
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

// add has wait look at a socket until it is closed.
func (p *poller) add(fd int) error {
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)} //nolint:gosec // A file descriptor.
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
		return fmt.Errorf("poll a socket: %w", err)
	}
	return nil
}

// wait returns the sockets that can be read: none if the time came first or somebody called poke. A zero time is
// never. The result is good until the next call.
func (p *poller) wait(until time.Time) ([]unix.EpollEvent, error) {
	p.ready, p.failed = 0, nil
	if err := p.file.SetReadDeadline(until); err != nil {
		return nil, err
	}
	err := p.raw.Read(p.look)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// With a time that has passed Read does not even look.
		p.look(uintptr(p.epoll))
		err = nil
	}
	if err = errors.Join(err, p.failed); err != nil {
		return nil, err
	}
	for _, e := range p.events[:p.ready] {
		if int(e.Fd) == p.wake {
			_, _ = unix.Read(p.wake, p.drain[:])
		}
	}
	return p.events[:p.ready], nil
}

// poke ends a wait.
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
