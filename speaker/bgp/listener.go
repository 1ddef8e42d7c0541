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
)

// This file listens for passive peers in place of gobgp: each gobgp server would listen by itself, and only one can listen on a
// port. If no peer is passive, nothing listens.

// endpoint is an address and port at which this node listens for passive peers.
type endpoint struct {
	address netip.Addr // the unspecified address: all addresses of its family
	port    uint16
	device  string // empty: any
	index   int    // of the interface to which the device or the zone of the address binds it; 0: not known, or none
}

// endpoints returns the endpoints at which to listen, with the peers of each. For a peer with a local address this node listens
// only at that address, unless other peers with the same port need all addresses.
func endpoints(wanted map[string]*member) map[endpoint][]*member {
	everywhere := map[endpoint]bool{}
	wildcard := func(p Peer) endpoint {
		address := netip.IPv6Unspecified()
		if p.Address.Is4() {
			address = netip.IPv4Unspecified()
		}
		return endpoint{address: address, port: p.port(), device: p.Interface}
	}
	for _, m := range wanted {
		if m.peer.Passive && !m.peer.LocalAddress.IsValid() {
			everywhere[wildcard(m.peer)] = true
		}
	}
	all := map[endpoint][]*member{}
	for _, m := range wanted {
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

// listeners are the goroutines that listen for passive peers, one for each endpoint.
type listeners struct {
	log *zap.Logger
	at  map[endpoint]*listener
}

// follow opens and closes listeners so that exactly the passive peers among the members can connect.
func (l *listeners) follow(ctx context.Context, wanted map[string]*member) {
	want := endpoints(wanted)
	for at, old := range l.at {
		if want[at] == nil { // Old listeners are closed first: a new one may need the same address.
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

// wait waits for the listeners to end, after the context with which they were opened has ended.
func (l *listeners) wait() {
	for _, one := range l.at {
		<-one.done
		one.cancel()
	}
}

// listener listens at one endpoint.
type listener struct {
	endpoint
	log    *zap.Logger
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	members []*member
	socket  *net.TCPListener      // nil while it cannot be opened
	keys    map[netip.Addr]string // the passwords that are set on the socket
	fault   string                // why there is no socket
}

// run listens until the context ends. If another program uses the endpoint, run tries again.
func (l *listener) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := l.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		l.log.Warn("failed to listen for passive BGP peers, trying again", zap.Error(err))
		l.mu.Lock()
		l.fault = fmt.Sprintf("this node cannot wait for the router: %v", err)
		for _, m := range l.members {
			m.status.because(fact, ThisNode, "%s", l.fault)
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
	config.SetMultipathTCP(false) // Multipath TCP excludes TCP MD5.
	network, address := "tcp6", l.address
	if l.address.Is4() {
		network = "tcp4"
	}
	if address.Zone() != "" && l.index != 0 {
		address = address.WithZone(strconv.Itoa(l.index)) // Package net caches the index of a name for a minute.
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
	for _, m := range l.members {
		m.status.cured(l.fault, waiting(m.peer))
	}
	l.fault = ""
	l.mu.Unlock()
	for {
		conn, err := socket.AcceptTCP()
		if err != nil {
			return err
		}
		_ = conn.SetKeepAlive(false) // BGP has its own keepalives.
		l.handOver(conn)
	}
}

// control prepares the socket. Packets leave with TTL 255, because a router with TTL security accepts no other. When the
// connection is established, gobgp sets the peer's own TTL.
func (l *listener) control(_, _ string, raw syscall.RawConn) error {
	var err error
	return onSocket(raw, func(fd int) error {
		if l.device != "" {
			err = bindTo(fd, l.device)
		}
		return errors.Join(err, setTTL(fd, l.address, 255))
	})
}

// expect replaces the peers that may connect.
func (l *listener) expect(members []*member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.members = members
	if l.socket != nil {
		l.sign()
	}
}

// passwords returns the passwords by router address without zone. An address has only one, that of its first peer by name:
// the kernel's key has no scope, so routers with one link-local address on several links share it.
func passwords(members []*member) map[netip.Addr]string {
	all := map[netip.Addr]string{}
	for _, m := range slices.SortedFunc(slices.Values(members), func(x, y *member) int { return cmp.Compare(x.peer.Name, y.peer.Name) }) {
		address := m.peer.Address.WithZone("")
		if _, known := all[address]; !known && m.peer.Password != "" {
			all[address] = m.peer.Password
		}
	}
	return all
}

// sign sets the passwords of the expected peers on the socket. The lock is held.
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

// setKey sets the key for an address; an empty one deletes it.
func (l *listener) setKey(address netip.Addr, password string) {
	raw, err := l.socket.SyscallConn()
	if err == nil {
		err = onSocket(raw, func(fd int) error { return setKey(fd, address, password) })
	}
	switch {
	case err == nil && password == "":
		delete(l.keys, address)
	case err == nil:
		l.keys[address] = password
	default:
		l.log.Warn("failed to set the password of a passive BGP peer", zap.Stringer("router", address), zap.Error(err))
		for _, m := range l.members {
			if m.peer.Address.WithZone("") == address {
				m.status.because(fact, ThisNode, "%v", err)
			}
		}
	}
}

// handOver passes a connection to the session that waits for it, in place of one that the session has not taken yet: the router has
// most likely given that one up. It closes connections from addresses that are not those of a passive peer.
func (l *listener) handOver(conn *net.TCPConn) {
	from, to := addressOf(conn.RemoteAddr()), addressOf(conn.LocalAddr())
	l.mu.Lock()
	defer l.mu.Unlock()
	peerAt := func(local netip.Addr) int {
		return slices.IndexFunc(l.members, func(m *member) bool { return m.peer.Address == from && m.peer.LocalAddress == local })
	}
	i := peerAt(to)
	if i < 0 {
		// A peer without a local address takes the connections from its router that are not to the local address of another peer.
		i = peerAt(netip.Addr{})
	}
	if i < 0 {
		_ = conn.Close()
		return
	}
	accepted := l.members[i].accepted
	for {
		select {
		case accepted <- conn:
			return
		default:
		}
		select {
		case older := <-accepted:
			_ = older.Close()
		default:
		}
	}
}

func addressOf(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap()
}

// waiting returns the reason why a passive session is not up while no better reason is known.
func waiting(p Peer) string {
	return fmt.Sprintf("the router has not connected to port %d of this node yet", p.port())
}
