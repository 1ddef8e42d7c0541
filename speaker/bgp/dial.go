package bgp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file connects to routers in place of gobgp (v4.8.0), which neither tells why it cannot connect, except in its log, nor lets
// others see the messages of its connections.

const (
	// minDialTime is the least time that a router has to answer. It is longer than the three seconds after which the kernel gives up ARP and
	// NDP. Otherwise it would be a matter of chance whether the reason is that there is no answer or no route to the host.
	minDialTime = 4 * time.Second
	// dialPause is how long a new server waits before it connects. A router that watches the path by BFD may find only now that
	// the speaker before this one is dead, or that the path was. Because of that failure it would end the new session, and drop
	// the routes that it has kept over a restart.
	dialPause = 2 * time.Second
)

// dial connects to the router whenever gobgp waits for a connection, until the context ends.
func (s *session) dial(ctx context.Context, to chan<- net.Conn) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(jittered(dialPause)):
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.status.waits:
		}
		if s.status.stateNow() != Active {
			continue // gobgp has a connection, or will wait again.
		}
		conn := s.connect(ctx)
		if conn == nil {
			return
		}
		if !s.status.stillWaits() {
			// gobgp does not wait for a connection any more, for example because the time of a graceful restart has passed. It
			// would close this one, too.
			_ = conn.Close()
			continue
		}
		select {
		case <-ctx.Done():
			_ = conn.Close()
			return
		case to <- s.status.shake(conn):
		}
	}
}

// connect tries to connect until it succeeds. It returns nil if the context ends.
func (s *session) connect(ctx context.Context) *net.TCPConn {
	retry := orDefault(s.peer.ConnectRetry, DefaultConnectRetry)
	for {
		conn, err := connect(ctx, s.peer, max(retry-time.Second, minDialTime))
		if err == nil {
			return conn
		}
		if ctx.Err() != nil {
			return nil
		}
		s.status.unreachable(err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(jittered(retry)):
		}
	}
}

// jittered shortens a time by up to a quarter, so that the nodes do not all connect at once (RFC 4271 section 10).
func jittered(d time.Duration) time.Duration {
	return d - rand.N(d/4) //nolint:gosec // No secret.
}

// connect opens a connection to the router of a peer.
func connect(ctx context.Context, p Peer, limit time.Duration) (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: limit, KeepAlive: -1} // BGP has its own keepalives.
	if p.LocalAddress.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.numbered(p.LocalAddress), 0))
	}
	dialer.Control = func(_, _ string, raw syscall.RawConn) error {
		return onSocket(raw, p.prepare)
	}
	conn, err := dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(p.numbered(p.Address), p.port()).String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// prepare sets, on a socket that is not connected yet, what must hold from its first packet on: the interface, the password, the TTL.
func (p Peer) prepare(fd int) error {
	var errs []error
	if p.Interface != "" {
		errs = append(errs, bindTo(fd, p.Interface))
	}
	if p.Password != "" {
		errs = append(errs, setKey(fd, p.Address, p.Password))
	}
	switch {
	case p.TTLSecurity > 0:
		errs = append(errs, setTTL(fd, p.Address, 255), setMinTTL(fd, p.Address, 256-int(p.TTLSecurity)))
	case !p.internal() && !p.External:
		errs = append(errs, setTTL(fd, p.Address, max(1, int(p.MultihopTTL))))
	}
	return errors.Join(errs...)
}

// onSocket calls set with the descriptor of a socket.
func onSocket(raw syscall.RawConn, set func(fd int) error) error {
	var err error
	failed := raw.Control(func(fd uintptr) { err = set(int(fd)) }) //nolint:gosec // A descriptor is small.
	return errors.Join(failed, err)
}

func bindTo(fd int, device string) error {
	if err := unix.BindToDevice(fd, device); err != nil {
		return fmt.Errorf("interface %s: %w", device, err)
	}
	return nil
}

// setTTL sets the TTL of packets, and setMinTTL the least TTL of packets that are accepted, on a socket of the family of an
// address.
func setTTL(fd int, family netip.Addr, ttl int) error {
	if family.Is4() {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, ttl)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, ttl)
}

func setMinTTL(fd int, family netip.Addr, ttl int) error {
	if family.Is4() {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MINTTL, ttl)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MINHOPCOUNT, ttl)
}

// setKey sets the key of RFC 2385 for packets from and to an address; an empty one deletes it.
func setKey(fd int, address netip.Addr, password string) error {
	signature := unix.TCPMD5Sig{Keylen: uint16(len(password))} //nolint:gosec // Validated: up to 80.
	copy(signature.Key[:], password)
	if address.Is4() {
		signature.Addr.Family = unix.AF_INET
		copy(signature.Addr.Data[2:], address.AsSlice())
	} else {
		signature.Addr.Family = unix.AF_INET6
		copy(signature.Addr.Data[6:], address.AsSlice())
	}
	if err := unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &signature); err != nil {
		return fmt.Errorf("the kernel of this node does not take the password of spec.passwordSecret: %w; it may be built without TCP_MD5SIG, "+
			"or be in FIPS mode, or have too small a sysctl net.core.optmem_max for the passwords of many passive peers", err)
	}
	return nil
}
