package bfd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	portSingleHop = 3784  // RFC 5881 §4
	portMultihop  = 4784  // RFC 5883 §5
	minSourcePort = 49152 // RFC 5881 §4
	maxTTL        = 255
	// traffic is the traffic class CS6, the DSCP for routing protocols (RFC 4594 §3.2).
	traffic = 48 << 2
)

// endpoint identifies where packets of some sessions arrive. There is one socket for each endpoint.
type endpoint struct {
	local    netip.Addr
	device   string
	index    int // of the interface to which the device or the zone of the address binds it
	multihop bool
}

func (e endpoint) port() int {
	if e.multihop {
		return portMultihop
	}
	return portSingleHop
}

// openUDP opens a socket of the family of the address, bound to the device if there is one.
func openUDP(addr netip.Addr, device string) (fd int, err error) {
	domain := unix.AF_INET6
	if addr.Is4() {
		domain = unix.AF_INET
	}
	if fd, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP); err != nil {
		return -1, fmt.Errorf("open a UDP socket: %w", err)
	}
	if domain == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil && device != "" {
		if err = unix.BindToDevice(fd, device); err != nil {
			err = fmt.Errorf("bind a socket to device %s: %w", device, err)
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// set sets socket options of the IP level. Each option has its number for IPv4, its number for IPv6, and its value.
func set(fd int, is4 bool, options ...[3]int) error {
	for _, o := range options {
		level, name := unix.IPPROTO_IPV6, o[1]
		if is4 {
			level, name = unix.IPPROTO_IP, o[0]
		}
		if err := unix.SetsockoptInt(fd, level, name, o[2]); err != nil {
			return fmt.Errorf("set a socket option: %w", err)
		}
	}
	return nil
}

func sockaddr(addr netip.Addr, port int) (unix.Sockaddr, error) {
	if addr.Is4() {
		return &unix.SockaddrInet4{Port: port, Addr: addr.As4()}, nil
	}
	to := &unix.SockaddrInet6{Port: port, Addr: addr.As16()}
	if zone := addr.Zone(); zone != "" {
		index, err := zoneIndex(zone)
		if err != nil {
			return nil, err
		}
		to.ZoneId = index
	}
	return to, nil
}

// zoneIndex returns the index of the interface of a zone, which may be a name or a number.
func zoneIndex(zone string) (uint32, error) {
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", zone, err)
	}
	return uint32(i.Index), nil //nolint:gosec // An interface's index.
}

// sender is the socket from which a session sends. It has a source port of its own, and is connected to the peer.
type sender struct {
	fd   int
	port uint16
}

// openSender opens a sender with the first free port that next returns. next returns 0 if there are no more ports. openSender
// also returns the source address of packets, with the zone of the peer if it is link-local.
func openSender(s Session, next func() uint16) (_ *sender, local netip.Addr, err error) {
	fd, err := openUDP(s.Peer, s.Device)
	if err != nil {
		return nil, local, err
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	if err = set(fd, s.Peer.Is4(), [3]int{unix.IP_TTL, unix.IPV6_UNICAST_HOPS, maxTTL}, [3]int{unix.IP_TOS, unix.IPV6_TCLASS, traffic}); err != nil {
		return nil, local, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0) // Nobody reads from it. The kernel raises 0 to its minimum.
	from := s.Local
	if !from.IsValid() {
		from = netip.IPv6Unspecified()
		if s.Peer.Is4() {
			from = netip.IPv4Unspecified()
		}
	}
	var port uint16
	for {
		if port = next(); port == 0 {
			return nil, local, errors.New("all UDP ports from 49152 are taken")
		}
		var a unix.Sockaddr
		if a, err = sockaddr(from, int(port)); err != nil {
			return nil, local, err
		}
		if err = unix.Bind(fd, a); err == nil {
			break
		} else if !errors.Is(err, unix.EADDRINUSE) {
			return nil, local, fmt.Errorf("send from %v: %w", from, err)
		}
	}
	to, err := sockaddr(s.Peer, endpoint{multihop: s.MinimumTTL > 0}.port())
	if err != nil {
		return nil, local, err
	}
	if err = unix.Connect(fd, to); err != nil {
		return nil, local, fmt.Errorf("connect to %v: %w", s.Peer, err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return nil, local, fmt.Errorf("learn the address that packets come from: %w", err)
	}
	switch b := bound.(type) {
	case *unix.SockaddrInet4:
		local = netip.AddrFrom4(b.Addr)
	case *unix.SockaddrInet6:
		if local = netip.AddrFrom16(b.Addr); needsZone(local) {
			local = local.WithZone(s.Peer.Zone())
		}
	}
	return &sender{fd: fd, port: port}, local, nil
}

// send hands a packet to the kernel without waiting.
func (s *sender) send(b *[packetSize]byte) error {
	_, err := unix.Write(s.fd, b[:])
	if errors.Is(err, unix.ECONNREFUSED) {
		// A peer without BFD has answered an earlier packet with an ICMP error, and the kernel returns it in place of sending this
		// packet.
		_, err = unix.Write(s.fd, b[:])
		if errors.Is(err, unix.ECONNREFUSED) {
			return nil
		}
	}
	return err
}

func (s *sender) close() { _ = unix.Close(s.fd) }

// batch is the number of packets that one system call reads at most.
const batch = 16

// receiver is the socket of an endpoint. Reading it allocates nothing.
type receiver struct {
	endpoint
	fd int
	// members are the sessions that receive by this socket, by the address of the peer without a zone: all sessions of an
	// endpoint with a link-local address are on one interface.
	members map[netip.Addr]*member

	messages [batch]struct {
		unix.Msghdr
		size uint32
	}
	vectors  [batch]unix.Iovec
	payloads [batch][256]byte // The length of a BFD packet is one byte.
	names    [batch]unix.RawSockaddrInet6
	controls [batch][128]byte
}

// arrival describes how a packet arrived. A TTL of 0 is unknown.
type arrival struct {
	from  netip.Addr // without a zone
	ttl   uint8
	index int // of the interface
}

// openReceiver opens the socket of an endpoint.
func openReceiver(e endpoint) (r *receiver, err error) {
	fd, err := openUDP(e.local, e.device)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	if err = set(fd, e.local.Is4(), [3]int{unix.IP_RECVTTL, unix.IPV6_RECVHOPLIMIT, 1}, [3]int{unix.IP_PKTINFO, unix.IPV6_RECVPKTINFO, 1}); err != nil {
		return nil, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<18) // The kernel grants at least half of this, up to its own limit.
	a, err := sockaddr(e.local, e.port())
	if err != nil {
		return nil, err
	}
	// There is no SO_REUSEADDR: this socket must not receive another program's packets, nor the other program those of Herald.
	if err = unix.Bind(fd, a); errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("UDP port %d at %v is held by another program, such as the BFD of FRR or BIRD on this machine: "+
			"switch BFD off there, or let that program run the session: %w", e.port(), e.local, err)
	} else if err != nil {
		return nil, fmt.Errorf("receive on UDP port %d at %v: %w", e.port(), e.local, err)
	}
	r = &receiver{endpoint: e, fd: fd, members: map[netip.Addr]*member{}}
	for i := range r.messages {
		m := &r.messages[i]
		r.vectors[i].Base = &r.payloads[i][0]
		r.vectors[i].SetLen(len(r.payloads[i]))
		m.Iov = &r.vectors[i]
		m.SetIovlen(1)
		m.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		m.Control = &r.controls[i][0]
	}
	return r, nil
}

// read calls f with every packet that has arrived. It returns when there are no more, or when it has read as many as the socket
// can have held at the time of the call.
func (r *receiver) read(f func(r *receiver, a arrival, payload []byte)) {
	for range 4096 / batch {
		for i := range r.messages {
			r.messages[i].Namelen = unix.SizeofSockaddrInet6
			r.messages[i].SetControllen(len(r.controls[i]))
		}
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(r.fd), uintptr(unsafe.Pointer(&r.messages)), batch, unix.MSG_DONTWAIT, 0, 0)
		if errno != 0 {
			return // EAGAIN, or an error that reading has cleared, such as ENETDOWN.
		}
		for i := range r.messages[:n] {
			f(r, r.arrival(i), r.payloads[i][:r.messages[i].size])
		}
		if n < batch {
			return
		}
	}
}

// arrival reads the kernel's information about packet i.
func (r *receiver) arrival(i int) (a arrival) {
	if r.local.Is4() {
		a.from = netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&r.names[i])).Addr)
	} else {
		a.from = netip.AddrFrom16(r.names[i].Addr)
	}
	for control := r.controls[i][:r.messages[i].Controllen]; len(control) >= unix.SizeofCmsghdr; {
		header, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			break
		}
		switch control = rest; {
		case is(header, unix.IPPROTO_IP, unix.IP_TTL), is(header, unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT):
			a.ttl = uint8(min(binary.NativeEndian.Uint32(data), maxTTL)) //nolint:gosec // It is one byte in the packet.
		case is(header, unix.IPPROTO_IP, unix.IP_PKTINFO):
			a.index = int(binary.NativeEndian.Uint32(data))
		case is(header, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO):
			a.index = int(binary.NativeEndian.Uint32(data[16:]))
		}
	}
	return a
}

func is(h unix.Cmsghdr, level, kind int32) bool { return h.Level == level && h.Type == kind }

func (r *receiver) close() { _ = unix.Close(r.fd) }
