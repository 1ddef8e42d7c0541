package bgp

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// Defaults for the fields of a [Peer] that are zero.
const (
	DefaultPort         = 179              // RFC 4271 §8.2.1
	DefaultHoldTime     = 90 * time.Second // RFC 4271 §10
	DefaultConnectRetry = 2 * time.Second
)

const (
	// RFC 4271 §4.2: zero (which disables the timer and is not offered here) or at least three seconds, in sixteen bits.
	minHoldTime = 3 * time.Second
	maxHoldTime = 65535 * time.Second
	// More would be a burden for a router with many nodes.
	minConnectRetry = 2 * time.Second
	maxConnectRetry = time.Hour
	// RFC 4724 §3: twelve bits.
	maxRestartTime = 4095 * time.Second
	// RFC 9494 §4.2: 24 bits.
	maxStaleTime = (1<<24 - 1) * time.Second
	// TCP_MD5SIG_MAXKEYLEN of Linux.
	maxPassword = 80
)

// Peer is one router and the session with it. Peers are identified by name. Two peers may have the same address, for example
// in two VRFs. Durations are in whole seconds, as in BGP messages.
type Peer struct {
	Name     string
	LocalASN uint32
	PeerASN  uint32 // equal to LocalASN: iBGP
	// External says that the router may be in any AS except LocalASN. PeerASN is 0 then. Packets to the router have the system's
	// default TTL unless TTLSecurity is set.
	External bool
	// Role is what this node is to the router (RFC 9234). Empty: this node offers no role, and routers in strict mode refuse it.
	Role Role
	// RouterID is the BGP identifier (RFC 6286), written as an IPv4 address.
	RouterID netip.Addr
	// Address is the address of the router. A link-local address has a zone: fe80::1%eth0.
	Address netip.Addr
	Port    uint16 // 0: DefaultPort
	// Passive says that the router connects to Port of this node. ConnectRetry has no effect then. Otherwise this node connects
	// to Port of the router.
	Passive bool

	// LocalAddress is the source address of the connection. Unset: the kernel chooses it.
	LocalAddress netip.Addr
	// Interface is the device to which the connection is bound, usually a VRF. Empty: none.
	Interface string
	// InterfaceIndex is the index of Interface or, without one, of the interface in the zone of Address. 0: not known, or no
	// interface. A socket stays bound to the index, so a new interface with the same name needs a new session.
	InterfaceIndex int

	HoldTime      time.Duration // 0: DefaultHoldTime
	KeepaliveTime time.Duration // 0: a third of the hold time
	// ConnectRetry is the pause between two attempts to connect. 0: DefaultConnectRetry, which is also the minimum.
	ConnectRetry time.Duration

	// MultihopTTL is the TTL of packets to an eBGP router. 0: the router is on this segment (a TTL of one).
	MultihopTTL uint8
	// TTLSecurity turns on GTSM (RFC 5082) for a router that is at most this many hops away; a neighbour on this segment is one
	// hop away. Packets leave with TTL 255, and received packets with a TTL less than 256 minus TTLSecurity are dropped. 0: off.
	// The router must have the same setting.
	TTLSecurity uint8
	// Password is the key that signs every TCP segment (RFC 2385). Empty: segments are not signed.
	Password string
	// GracefulRestart keeps the router's routes while this program restarts (RFC 4724). Nil: off.
	GracefulRestart *GracefulRestart

	// NextHop4 and NextHop6 are the next hops for prefixes of their family. If the next hop of the session's own family is
	// unset, it is the session's local address. If that of the other family is unset, prefixes of that family are withheld.
	NextHop4, NextHop6 netip.Addr
	// Unnumbered says that Address is link-local and that the router knows this node only by its Router Advertisements. This
	// node sends some while the session is wanted. Prefixes of both families have the session's local address as next hop, for
	// IPv4 according to RFC 8950. gobgp sends IPv4 prefixes even to a router without that capability. Such a router drops them,
	// so they count as withheld.
	Unnumbered bool
}

// GracefulRestart configures the role of a restarting speaker (RFC 4724). When [Speaker.Run] ends because of [ErrRestart], or
// when the program crashes, the session closes without a NOTIFICATION, and the router goes on forwarding for RestartTime. When
// [Speaker.SetPeers] removes a peer, its session is closed for good, and its routes go at once.
//
// A program that restarts must call [Speaker.Set] for all its prefixes before its first SetPeers: when the first batch
// ends, the router drops the prefixes that were not in it.
type GracefulRestart struct {
	RestartTime time.Duration // up to 4095 s
	// StaleTime is how long after RestartTime the router keeps the routes as a last resort (RFC 9494), up to 2^24-1 s.
	// 0: it does not keep them.
	StaleTime time.Duration
	// KeepOnNotification makes both ends behave as after a restart when the session ends with a NOTIFICATION, such as that
	// of an expired hold timer (RFC 8538). To close a session for good, this end then sends a Hard Reset.
	KeepOnNotification bool
}

// CheckPassword returns an error if the kernel does not take a password.
func CheckPassword(password string) error {
	if len(password) > maxPassword {
		return fmt.Errorf("the password has %d bytes, and Linux takes up to %d: choose a shorter one, here and on the router", len(password), maxPassword)
	}
	return nil
}

// numbered names the interface of a link-local address by its index, because package net remembers the index of a name for a
// minute.
func (p Peer) numbered(a netip.Addr) netip.Addr {
	if a.Zone() == "" || p.InterfaceIndex == 0 || p.Interface != "" && p.Interface != a.Zone() {
		return a
	}
	return a.WithZone(strconv.Itoa(p.InterfaceIndex))
}

// Validate returns all errors of a peer at once. Fields that a BGPPeer has, too, are named as in the BGPPeer.
func (p Peer) Validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %w", field, fmt.Errorf(format, args...)))
	}
	if p.Name == "" {
		bad("Name", "is empty; every peer needs a name of its own")
	}
	if p.LocalASN == 0 {
		bad("spec.localASN", "is 0, which is reserved (RFC 7607): give this node's AS number")
	}
	switch {
	case p.External && p.PeerASN != 0:
		bad("spec.peerASN", "is %d, and spec.peerType External allows any: keep one of them", p.PeerASN)
	case p.External && p.MultihopTTL != 0:
		bad("spec.multihopTTL", "has no effect with spec.peerType External: give spec.peerASN, or leave spec.multihopTTL out")
	case !p.External && p.PeerASN == 0:
		bad("spec.peerASN", "is 0, which is reserved (RFC 7607): give the router's AS number")
	}
	switch {
	case p.Role != "" && !slices.Contains(roles, p.Role):
		bad("spec.role", "%q is not one of %v", p.Role, roles)
	case p.Role != "" && p.internal():
		bad("spec.role", "is for external sessions (RFC 9234), and the router is in AS %d, as this node is: leave spec.role out", p.PeerASN)
	}
	if !p.RouterID.Is4() || p.RouterID.IsUnspecified() {
		bad("spec.routerIDFrom", "%v is not an IPv4 address other than 0.0.0.0 (RFC 6286)", p.RouterID)
	}
	switch a := p.Address; {
	case !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6():
		bad("spec.address", "%v is not the address of a router", a)
	case a.IsLinkLocalUnicast() && a.Is6() && a.Zone() == "":
		bad("spec.address", "%v is link-local and needs its interface: %v%%eth0", a, a)
	}
	if p.Unnumbered && p.Address.Zone() == "" {
		bad("Unnumbered", "needs a link-local address with its interface, and not %v", p.Address)
	}
	if p.LocalAddress.IsValid() && p.LocalAddress.Is4() != p.Address.Is4() {
		bad("spec.sourceAddress", "%v is not of the family of the router's address %v", p.LocalAddress, p.Address)
	}
	hold := orDefault(p.HoldTime, DefaultHoldTime)
	if hold < minHoldTime || hold > maxHoldTime || !wholeSeconds(hold) {
		bad("spec.holdTime", "%v is not in whole seconds between %v and %v", hold, minHoldTime, maxHoldTime)
	}
	if k := p.KeepaliveTime; k != 0 && (k < time.Second || k >= hold || !wholeSeconds(k)) {
		bad("spec.keepaliveTime", "%v is not in whole seconds between 1s and the hold time of %v", k, hold)
	}
	if r := orDefault(p.ConnectRetry, DefaultConnectRetry); r < minConnectRetry || r > maxConnectRetry || !wholeSeconds(r) {
		bad("spec.connectRetryTime", "%v is not in whole seconds between %v and %v", r, minConnectRetry, maxConnectRetry)
	}
	if p.MultihopTTL != 0 && p.TTLSecurity != 0 {
		bad("spec.ttlSecurityHops", "excludes spec.multihopTTL, since packets leave with TTL 255 already: keep one of them")
	}
	if err := CheckPassword(p.Password); err != nil {
		bad("spec.passwordSecret", "%w", err)
	}
	if g := p.GracefulRestart; g != nil && (g.RestartTime < time.Second || g.RestartTime > maxRestartTime || !wholeSeconds(g.RestartTime)) {
		bad("spec.gracefulRestart.restartTime", "%v is not in whole seconds between 1s and %v", g.RestartTime, maxRestartTime)
	}
	if g := p.GracefulRestart; g != nil && (g.StaleTime < 0 || g.StaleTime > maxStaleTime || !wholeSeconds(g.StaleTime)) {
		bad("spec.gracefulRestart.staleTime", "%v is not in whole seconds between 0s and %v", g.StaleTime, maxStaleTime)
	}
	if n := p.NextHop4; n.IsValid() && (!n.Is4() || n.IsUnspecified() || n.IsMulticast()) {
		bad("NextHop4", "%v is not the IPv4 address of a host", n)
	}
	if n := p.NextHop6; n.IsValid() && (!n.Is6() || n.Is4In6() || n.Zone() != "" || n.IsUnspecified() || n.IsMulticast()) {
		bad("NextHop6", "%v is not the IPv6 address of a host without a zone", n)
	}
	return errors.Join(errs...)
}

// same reports whether a session with p serves q as well. Every difference needs a new session: BGP negotiates capabilities
// and timers once, in OPEN, and the addresses and the key of a connection cannot change.
func (p Peer) same(q Peer) bool {
	if (p.GracefulRestart == nil) != (q.GracefulRestart == nil) {
		return false
	}
	if p.GracefulRestart != nil && *p.GracefulRestart != *q.GracefulRestart {
		return false
	}
	p.GracefulRestart, q.GracefulRestart = nil, nil
	return p == q
}

// succeeds reports whether the router may take a session with p for a restarted session with q: both have graceful restart,
// and their addresses, AS number and router ID, by which the router recognizes them, are the same.
func (p Peer) succeeds(q Peer) bool {
	return p.GracefulRestart != nil && q.GracefulRestart != nil && p.Address == q.Address && p.Interface == q.Interface &&
		p.LocalAddress == q.LocalAddress && p.LocalASN == q.LocalASN && p.RouterID == q.RouterID
}

// nextHop returns the next hop of prefixes of a family. The unspecified address stands for the session's local address. false
// means that there is no next hop.
func (p Peer) nextHop(is4 bool) (netip.Addr, bool) {
	explicit, own := p.NextHop6, netip.IPv6Unspecified()
	if is4 {
		explicit, own = p.NextHop4, netip.IPv4Unspecified()
	}
	if explicit.IsValid() {
		return explicit, true
	}
	return own, p.Unnumbered || is4 == p.Address.Is4()
}

func (p Peer) port() uint16 { return cmp.Or(p.Port, DefaultPort) }

func (p Peer) internal() bool { return p.LocalASN == p.PeerASN }

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

func wholeSeconds(d time.Duration) bool { return d%time.Second == 0 }
