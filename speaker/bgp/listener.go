package bgp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Passive peers are waited for here and not by gobgp: each of its servers would listen by itself, and only one can listen on a
// port. Where no peer is passive, nothing listens.

// endpoint is where passive peers are waited for.
type endpoint struct {
	address netip.Addr // the unspecified one: all of its family
	port    uint16
	device  string // empty: any
	index   int    // of the interface that it is bound to, by the device or the zone of the address; 0: not known, or none
}

// endpoints says who is waited for where. Peers with a local address are waited for there only, unless others with the
// same port need all addresses.
func endpoints(wished map[string]*member) map[endpoint][]*member {
	everywhere := map[endpoint]bool{}
	wildcard := func(p Peer) endpoint {
		address := netip.IPv6Unspecified()
		if p.Address.Is4() {
			address = netip.IPv4Unspecified()
		}
		return endpoint{address: address, port: p.port(), device: p.Interface}
	}
	for _, m := range wished {
		if m.peer.Passive && !m.peer.LocalAddress.IsValid() {
			everywhere[wildcard(m.peer)] = true
		}
	}
	all := map[endpoint][]*member{}
	for _, m := range wished {
		if !m.peer.Passive {
			continue
		}
		at := wildcard(m.peer)
		if !everywhere[at] {
			at.address = m.peer.LocalAddress
		}
		if at.device != "" || at.address.Zone() != "" {
			at.index = m.peer.InterfaceIndex
		}
		all[at] = append(all[at], m)
	}
	return all
}

// listeners are the goroutines that wait for passive peers, one for each endpoint.
type listeners struct {
	log *zap.Logger
	at  map[endpoint]*listener
}

// follow waits for the passive ones of the members, and for nobody else.
func (l *listeners) follow(ctx context.Context, wished map[string]*member) {
	want := endpoints(wished)
	for at, old := range l.at {
		if want[at] == nil { // First, since its address may be one of those that a new one listens on.
			old.cancel()
			<-old.done
			delete(l.at, at)
		}
	}
	for at, members := range want {
		if one := l.at[at]; one != nil {
			one.expect(members)
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		one := &listener{endpoint: at, log: l.log.With(zap.Stringer("address", at.address), zap.Uint16("port", at.port)), members: members, cancel: cancel, done: make(chan struct{})}
		l.at[at] = one
		go func() {
			defer close(one.done)
			one.run(ctx)
		}()
	}
}

// wait is for the end of the context that they were opened with.
func (l *listeners) wait() {
	for _, one := range l.at {
		<-one.done
		one.cancel()
	}
}

// listener waits at one endpoint.
type listener struct {
	endpoint
	log    *zap.Logger
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	members []*member
	socket  *net.TCPListener      // nil while it cannot be opened
	keys    map[netip.Addr]string // passwords that the socket has
}

// run listens until the context ends. An endpoint that is taken is tried again.
func (l *listener) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := l.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		l.log.Warn("no listener for passive BGP peers for a while", zap.Error(err))
		l.mu.Lock()
		for _, m := range l.members {
			m.status.because(fact, ThisNode, "this node cannot wait for the router: %v", err)
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(restartPause):
		}
	}
}

func (l *listener) listen(ctx context.Context) error {
	config := net.ListenConfig{Control: l.control}
	config.SetMultipathTCP(false) // It excludes TCP MD5.
	network, address := "tcp6", l.address
	if l.address.Is4() {
		network = "tcp4"
	}
	if address.Zone() != "" && l.index != 0 {
		address = address.WithZone(strconv.Itoa(l.index)) // Package net remembers the index of a name for a minute.
	}
	opened, err := config.Listen(ctx, network, netip.AddrPortFrom(address, l.port).String())
	if err != nil {
		return err
	}
	socket := opened.(*net.TCPListener)
	defer context.AfterFunc(ctx, func() { _ = socket.Close() })()
	defer func() {
		l.mu.Lock()
		l.socket = nil
		l.mu.Unlock()
		_ = socket.Close()
	}()
	l.mu.Lock()
	l.socket, l.keys = socket, map[netip.Addr]string{}
	l.sign()
	l.mu.Unlock()
	for {
		conn, err := socket.AcceptTCP()
		if err != nil {
			return err
		}
		_ = conn.SetKeepAlive(false) // BGP has its own.
		l.handOver(conn)
	}
}

// control prepares the socket. Packets leave with TTL 255, since a router with TTL security takes no other; gobgp sets
// what the peer is to have once the connection is there.
func (l *listener) control(_, _ string, raw syscall.RawConn) error {
	var err error
	failed := raw.Control(func(fd uintptr) {
		if l.device != "" {
			err = unix.BindToDevice(int(fd), l.device)
		}
		if l.address.Is4() {
			err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, 255))
		} else {
			err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 255))
		}
	})
	return errors.Join(failed, err)
}

// expect replaces those that are waited for.
func (l *listener) expect(members []*member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.members = members
	if l.socket != nil {
		l.sign()
	}
}

// passwords are those of routers. An address has one: that of its first peer by name.
func passwords(members []*member) map[netip.Addr]string {
	all := map[netip.Addr]string{}
	for _, m := range slices.SortedFunc(slices.Values(members), func(x, y *member) int { return cmp.Compare(x.peer.Name, y.peer.Name) }) {
		if _, known := all[m.peer.Address]; !known && m.peer.Password != "" {
			all[m.peer.Address] = m.peer.Password
		}
	}
	return all
}

// sign gives the socket the passwords of those that are waited for. The lock is held.
func (l *listener) sign() {
	want := passwords(l.members)
	for address := range l.keys {
		if want[address] == "" {
			l.setKey(address, "")
		}
	}
	for address, password := range want {
		if l.keys[address] != password {
			l.setKey(address, password)
		}
	}
}

// setKey sets the key of RFC 2385 for an address; an empty one deletes it.
func (l *listener) setKey(address netip.Addr, password string) {
	signature := unix.TCPMD5Sig{Keylen: uint16(len(password))} //nolint:gosec // Validated: up to 80.
	copy(signature.Key[:], password)
	if address.Is4() {
		signature.Addr.Family = unix.AF_INET
		copy(signature.Addr.Data[2:], address.AsSlice())
	} else {
		signature.Addr.Family = unix.AF_INET6
		copy(signature.Addr.Data[6:], address.AsSlice())
	}
	raw, err := l.socket.SyscallConn()
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) {
			err = unix.SetsockoptTCPMD5Sig(int(fd), unix.IPPROTO_TCP, unix.TCP_MD5SIG, &signature)
		}), err)
	}
	switch {
	case err == nil && password == "":
		delete(l.keys, address)
	case err == nil:
		l.keys[address] = password
	default:
		l.log.Warn("password of a passive BGP peer not set", zap.Stringer("router", address), zap.Error(err))
	}
}

// handOver gives a connection to the session that waits for it. Strangers are not answered.
func (l *listener) handOver(conn *net.TCPConn) {
	from, to := addressOf(conn.RemoteAddr()), addressOf(conn.LocalAddr())
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.members, func(m *member) bool {
		return m.peer.Address == from && (!m.peer.LocalAddress.IsValid() || m.peer.LocalAddress == to)
	})
	if i >= 0 {
		select {
		case l.members[i].accepted <- conn:
			return
		default: // The session is busy with others.
		}
	}
	_ = conn.Close()
}

func addressOf(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap()
}

// waiting is why a passive session is not there as long as nothing else is known.
func waiting(p Peer) string {
	return fmt.Sprintf("the router has not connected to port %d of this node yet", p.port())
}
