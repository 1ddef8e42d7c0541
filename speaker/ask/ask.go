// Package ask asks the machines on a segment which of them have an address, by ARP (RFC 826) and NDP (RFC 4861),
// and collects every answer. The kernel's own resolver would keep only one of them.
package ask

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/heraldlb/herald/speaker/inspect"
)

const (
	// Rate is how many questions a second are sent on one interface. Every machine on the segment receives each of them.
	Rate = 500
	// Patience is how long to wait for answers after the last question.
	Patience = 300 * time.Millisecond
	// MaxMACs bounds the hardware addresses of one Answer. Any machine on the segment can send answers.
	MaxMACs = 16
)

// Interface is an interface to ask on.
type Interface struct {
	Index int
	Name  string
	MAC   net.HardwareAddr
	// Addresses are the addresses of the interface, each with its prefix length.
	Addresses []netip.Prefix
}

// All asks all questions, on all interfaces at once. It returns an Answer for each address and each interface on which it
// asked for that address. An error on one interface does not stop the others, so All may return answers and an error.
//
// The machine that asks does not hear its own answers.
func All(ctx context.Context, interfaces []Interface, questions []inspect.Question) ([]inspect.Answer, error) {
	type task struct {
		Interface
		protocol
		addresses []netip.Addr
	}
	var tasks []task
	for _, i := range interfaces {
		for _, p := range []protocol{arpProtocol, ndpProtocol} {
			if addresses := i.asked(questions, p.is); len(addresses) > 0 {
				tasks = append(tasks, task{i, p, addresses})
			}
		}
	}
	heard, errs := make([][]inspect.Answer, len(tasks)), make([]error, len(tasks))
	var wg sync.WaitGroup
	for n, t := range tasks {
		wg.Go(func() {
			if heard[n], errs[n] = t.ask(ctx, t.Interface, t.addresses); errs[n] != nil {
				errs[n] = fmt.Errorf("interface %s: ask by %s: %w", t.Name, t.name, errs[n])
			}
		})
	}
	wg.Wait()
	return slices.Concat(heard...), errors.Join(errs...)
}

// asked returns the addresses of one family to ask for on the interface, each once.
func (i *Interface) asked(questions []inspect.Question, is func(netip.Addr) bool) []netip.Addr {
	addresses := map[netip.Addr]bool{}
	for _, q := range questions {
		a := q.Address.Unmap().WithZone("")
		if is(a) && (slices.Contains(q.Interfaces, i.Name) || slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return p.Contains(a) })) {
			addresses[a] = true
		}
	}
	return slices.SortedFunc(maps.Keys(addresses), netip.Addr.Compare)
}

// source returns the address to ask from: one in the target's subnet, or else any address of the family. If there is
// none, it returns the unspecified address. This makes the question a probe (RFC 5227 §2.1.1), or one of duplicate
// address detection (RFC 4862 §5.4.2). Machines that answer for others (proxy ARP) need not answer such questions.
func (i *Interface) source(target netip.Addr) netip.Addr {
	source := netip.IPv4Unspecified()
	if target.Is6() {
		source = netip.IPv6Unspecified()
	}
	for _, p := range i.Addresses {
		switch {
		case p.Addr().Is4() != target.Is4():
		case p.Contains(target):
			return p.Addr()
		case source.IsUnspecified():
			source = p.Addr()
		}
	}
	return source
}

// protocol asks for the addresses of one family.
type protocol struct {
	name      string
	etherType int
	// is reports whether the protocol can ask for an address.
	is     func(netip.Addr) bool
	filter []bpf.Instruction
	// question makes the frame that asks for an address.
	question func(i *Interface, target netip.Addr) ([]byte, error)
	// answer reads a frame that says which hardware address an address has.
	answer func(frame []byte) (netip.Addr, net.HardwareAddr, bool)
}

// listen opens a socket for answers. The socket receives nothing before the filter is attached. It never receives frames that
// this machine sends, because it is for one protocol.
func (p *protocol) listen(i Interface) (*packet.Conn, error) {
	filter, err := assemble(i.Index, p.filter)
	if err != nil {
		return nil, err
	}
	conn, err := packet.Listen(&net.Interface{Index: i.Index, Name: i.Name, HardwareAddr: i.MAC}, packet.Raw, p.etherType, &packet.Config{Filter: filter})
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	return conn, nil
}

// ask asks for the addresses on one interface.
func (p *protocol) ask(ctx context.Context, i Interface, addresses []netip.Addr) ([]inspect.Answer, error) {
	conn, err := p.listen(i)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	heard := make(map[netip.Addr][]string, len(addresses))
	for _, a := range addresses {
		heard[a] = []string{}
	}
	var reading sync.WaitGroup
	var failed error // from hear
	reading.Go(func() { failed = p.hear(conn, heard) })
	err = p.send(ctx, conn, i, addresses)
	if err != nil {
		_ = conn.SetReadDeadline(time.Unix(1, 0))
	} else {
		_ = conn.SetReadDeadline(time.Now().Add(Patience))
	}
	reading.Wait()
	if err := errors.Join(ctx.Err(), err, failed); err != nil {
		return nil, err
	}
	answers := make([]inspect.Answer, len(addresses))
	for n, a := range addresses {
		slices.Sort(heard[a])
		answers[n] = inspect.Answer{Address: a, Interface: i.Name, MACs: heard[a]}
	}
	return answers, nil
}

// send sends a question for each address.
func (p *protocol) send(ctx context.Context, conn *packet.Conn, i Interface, addresses []netip.Addr) error {
	pace := rate.NewLimiter(Rate, 1)
	for _, a := range addresses {
		if pace.Wait(ctx) != nil { // It also fails if the deadline comes before the next turn.
			return cmp.Or(ctx.Err(), context.DeadlineExceeded)
		}
		frame, err := p.question(&i, a)
		if err != nil {
			return fmt.Errorf("%s: %w", a, err)
		}
		if _, err := conn.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]}); err != nil {
			return err
		}
	}
	return nil
}

// hear collects answers until the connection's deadline. This includes answers that the kernel has received by then.
func (p *protocol) hear(conn *packet.Conn, heard map[netip.Addr][]string) error {
	frame := make([]byte, accepted)
	for {
		n, _, err := conn.ReadFrom(frame)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return p.drain(conn, frame, heard)
		}
		if err != nil {
			return err
		}
		p.note(frame[:n], heard)
	}
}

// drain reads the frames that wait in the socket. On a busy node this process may have got no CPU time while the answers
// came, and after the deadline ReadFrom reads nothing. Even in a flood, drain takes no longer than Patience.
func (p *protocol) drain(conn *packet.Conn, frame []byte, heard map[netip.Addr][]string) error {
	socket, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	end := time.Now().Add(Patience)
	err = socket.Control(func(fd uintptr) {
		for time.Now().Before(end) {
			n, _, err := unix.Recvfrom(int(fd), frame, unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EAGAIN) {
				return
			}
			if err != nil {
				failed = err
				return
			}
			p.note(frame[:n], heard)
		}
	})
	return errors.Join(err, failed)
}

// note reads an answer and records its hardware address.
func (p *protocol) note(frame []byte, heard map[netip.Addr][]string) {
	address, mac, ok := p.answer(frame)
	if !ok {
		return
	}
	if macs, asked := heard[address]; asked && len(macs) < MaxMACs && !slices.Contains(macs, mac.String()) {
		heard[address] = append(macs, mac.String())
	}
}
