package speaker

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/announce"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/link"
)

// site has the state of one node that the translation of BGPPeers needs.
type site struct {
	node       *corev1.Node
	interfaces []link.Interface
	// links has the known routers on the links of unnumbered peers, by interface.
	links map[string]linkRouters
	now   time.Time
	// before has the findings for each BGPPeer from the last translation, by name. found has those of this one.
	before, found map[string]*findings
	// established has the routers with which there are established sessions, by BGPPeer.
	established map[string]netip.Addr
	// password returns the password in a Secret of the peers' namespace.
	password func(secret string) (string, error)
}

// findings are the values that a node has found for one BGPPeer because the spec does not give them.
type findings struct {
	peer types.UID
	// router is the address that spec.addressFrom yielded. It is kept while a route to the router is replaced or the router is not
	// heard for a while. It is dropped when the spec says to look in another place than source, where it was found.
	router netip.Addr
	source routerSource
	// proved is the router with which there was a session last. If several routers are found, this one is chosen.
	proved netip.Addr
	// nextHop is the next hop for the family that is not the session's.
	nextHop netip.Addr
	// values are the last valid values of the Node's labels and annotations. A session does not end because somebody
	// removes a label or gives it an invalid value.
	values map[nodeValue]string
	// password is the last password.
	password string
	// kept describes the values that are in force although the Node does not have them any more.
	kept []string
}

// routerSource is where a BGPPeer says that a node finds its router.
type routerSource struct {
	from  herald.PeerAddressSource
	iface string // spec.interface
}

// nodeValue identifies a value of the Node that a field of a BGPPeer refers to.
type nodeValue struct {
	field string
	from  herald.NodeValueSource
}

// findingsFor returns new findings for a BGPPeer, initialized with the previous ones.
func (s *site) findingsFor(o *herald.BGPPeer) *findings {
	f := &findings{peer: o.UID, values: map[nodeValue]string{}}
	if before := s.before[o.Name]; before != nil && before.peer == o.UID {
		f.router, f.source, f.proved, f.nextHop, f.values = before.router, before.source, before.proved, before.nextHop, maps.Clone(before.values)
		f.password = before.password
	}
	if router, up := s.established[o.Name]; up {
		f.proved = router
	}
	return f
}

// routersIn returns the routers that a node has found itself, by BGPPeer.
func routersIn(found map[string]*findings) map[string]netip.Addr {
	all := map[string]netip.Addr{}
	for name, f := range found {
		if f.router.IsValid() {
			all[name] = f.router
		}
	}
	return all
}

// unresolved is the error for a BGPPeer that is valid but refers to something that this node does not have.
type unresolved struct{ error }

func isUnresolved(err error) bool {
	var lacks unresolved
	return errors.As(err, &lacks)
}

func missing(field, format string, args ...any) error {
	return unresolved{fmt.Errorf("%s: %w", field, fmt.Errorf(format, args...))}
}

// peers translates BGPPeers into the sessions that the node should hold. It also returns the BGPPeers for which the node cannot
// hold a session. If several BGPPeers name one router, the oldest BGPPeer gets the session.
func (s *site) peers(all []*herald.BGPPeer) (peers []bgp.Peer, rejected []announce.Rejected) {
	all = slices.SortedFunc(slices.Values(all), func(x, y *herald.BGPPeer) int {
		return cmp.Or(x.CreationTimestamp.Compare(y.CreationTimestamp.Time), cmp.Compare(x.Name, y.Name))
	})
	s.found = map[string]*findings{}
	holders := map[sessionKey]string{}
	for _, o := range all {
		selected, err := selects(o, s.node)
		if err == nil && !selected {
			continue
		}
		var peer bgp.Peer
		if err == nil {
			peer, err = s.peer(o)
		}
		if err == nil {
			at := sessionKeyOf(peer)
			if first, taken := holders[at]; taken {
				err = fmt.Errorf("spec.address: the session with %v is that of the older BGPPeer %s: delete one of the two, or let their nodeSelectors match different nodes",
					peer.Address, first)
			} else {
				holders[at] = o.Name
			}
		}
		if err != nil {
			rejected = append(rejected, announce.Rejected{Kind: "BGPPeer", Name: o.Name, Err: err})
			continue
		}
		peers = append(peers, peer)
	}
	slices.SortFunc(peers, func(x, y bgp.Peer) int { return cmp.Compare(x.Name, y.Name) })
	slices.SortFunc(rejected, func(x, y announce.Rejected) int { return cmp.Compare(x.Name, y.Name) })
	return peers, rejected
}

// selects reports whether a BGPPeer is for a node.
func selects(o *herald.BGPPeer, node *corev1.Node) (bool, error) {
	selector, err := herald.CompileSelector("nodeSelector", o.Spec.NodeSelector)
	return err == nil && selector.Matches(labels.Set(node.Labels)), err
}

// sessionKey identifies a session of a node. A router takes a second session with the same values for a collision.
type sessionKey struct {
	address, source netip.Addr
	port            uint16
	device          string
}

func sessionKeyOf(p bgp.Peer) sessionKey {
	return sessionKey{p.Address, p.LocalAddress, cmp.Or(p.Port, bgp.DefaultPort), p.Interface}
}

// peer translates one BGPPeer for this node.
func (s *site) peer(o *herald.BGPPeer) (bgp.Peer, error) {
	p := bgp.Peer{
		Name: o.Name, Port: uint16(o.Spec.Port), Passive: o.Spec.Passive, Interface: o.Spec.Interface,
		MultihopTTL: uint8(o.Spec.MultihopTTL), TTLSecurity: uint8(o.Spec.TTLSecurityHops), Role: bgp.Role(o.Spec.Role),
	}
	f := s.findingsFor(o)
	s.found[o.Name] = f
	var err error
	if p.LocalASN, err = s.asn(f, "spec.localASNFrom", o.Spec.LocalASN, o.Spec.LocalASNFrom); err != nil {
		return p, err
	}
	switch o.Spec.PeerType {
	case herald.PeerInternal:
		p.PeerASN = p.LocalASN
	case herald.PeerExternal:
		p.External = true
	default:
		if p.PeerASN, err = s.asn(f, "spec.peerASNFrom", o.Spec.PeerASN, o.Spec.PeerASNFrom); err != nil {
			return p, err
		}
	}
	if p.Address, err = s.address(f, o); err != nil {
		return p, err
	}
	if o.Spec.SourceAddress != "" {
		if p.LocalAddress, err = netip.ParseAddr(o.Spec.SourceAddress); err != nil {
			return p, fmt.Errorf("spec.sourceAddress: %w", err)
		}
		if p.LocalAddress.Is4() != p.Address.Is4() {
			return p, fmt.Errorf("spec.sourceAddress: %v is not of the family of the router's address %v: remove it, or set an address of the router's family", p.LocalAddress, p.Address)
		}
		if p.LocalAddress.IsLinkLocalUnicast() && p.LocalAddress.Is6() {
			p.LocalAddress = p.LocalAddress.WithZone(p.Address.Zone())
		}
	}
	if p.RouterID, err = s.routerID(f, o.Spec.RouterIDFrom); err != nil {
		return p, err
	}
	if p.Unnumbered = unnumbered(o) != ""; !p.Unnumbered {
		s.nextHops(f, &p)
	}
	if g := o.Spec.GracefulRestart; g != nil {
		p.GracefulRestart = &bgp.GracefulRestart{RestartTime: g.RestartTime.Duration, KeepOnNotification: g.OnNotification == herald.NotificationKeep}
		if g.StaleTime != nil {
			p.GracefulRestart.StaleTime = g.StaleTime.Duration
		}
	}
	if o.Spec.HoldTime != nil {
		p.HoldTime = o.Spec.HoldTime.Duration
	}
	if o.Spec.KeepaliveTime != nil {
		p.KeepaliveTime = o.Spec.KeepaliveTime.Duration
	}
	if o.Spec.ConnectRetryTime != nil {
		p.ConnectRetry = o.Spec.ConnectRetryTime.Duration
	}
	if p.Password, err = s.passwordOf(f, o.Spec.PasswordSecret); err != nil {
		return p, fmt.Errorf("spec.passwordSecret: %w", err)
	}
	return p, p.Validate()
}

// passwordOf returns the password in a Secret; empty if there is no Secret in the spec. A session does not end because a Secret is
// replaced: meanwhile the last password is in force.
func (s *site) passwordOf(f *findings, secret *herald.SecretReference) (string, error) {
	if secret == nil {
		f.password = ""
		return "", nil
	}
	password, err := s.password(secret.Name)
	if err == nil {
		err = bgp.CheckPassword(password)
	}
	switch {
	case err == nil:
		f.password = password
	case f.password != "":
		f.kept = append(f.kept, fmt.Sprintf("spec.passwordSecret: %v; the last password is in force until herald-speaker restarts there", err))
	default:
		return "", err
	}
	return f.password, nil
}

// asn returns the AS number from the spec or, if from is set, from the Node.
func (s *site) asn(f *findings, field string, number int64, from *herald.NodeValueSource) (uint32, error) {
	if from == nil {
		return uint32(number), nil // The schema allows only values that fit.
	}
	return valueOf(s.node, f, nodeValue{field, *from}, func(text string) (uint32, error) {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil || n == 0 {
			return 0, errors.New("is not an AS number from 1 to 4294967295: correct it")
		}
		return uint32(n), nil
	})
}

// routerID returns the node's BGP identifier. The default is the node's IPv4 address or, on a node without one, a number
// derived from the node's name: the identifier has to be unique within an AS, but need not be an address (RFC 6286).
func (s *site) routerID(f *findings, from *herald.NodeValueSource) (netip.Addr, error) {
	if from != nil {
		return valueOf(s.node, f, nodeValue{"spec.routerIDFrom", *from}, func(text string) (netip.Addr, error) {
			id, err := netip.ParseAddr(text)
			if err != nil || !id.Is4() || id.IsUnspecified() {
				return id, errors.New("is not an IPv4 address: correct it")
			}
			return id, nil
		})
	}
	if a := nodeAddress(s.node, netip.Addr.Is4); a.IsValid() {
		return a, nil
	}
	h := announce.Rank(netip.IPv6Unspecified(), s.node.Name)
	return netip.AddrFrom4([4]byte{byte(h>>24)&0x7f | 1, byte(h >> 16), byte(h >> 8), byte(h)}), nil
}

// valueOf reads a value from a label or annotation of the Node and parses it with read. If the Node does not have the value any
// more, or read rejects it, the last value that read accepted stays in force. The errors of read say what the value is not,
// and how to correct it.
func valueOf[T any](node *corev1.Node, f *findings, v nodeValue, read func(text string) (T, error)) (T, error) {
	kind, key, of := "label", v.from.NodeLabel, node.Labels
	if key == "" {
		kind, key, of = "annotation", v.from.NodeAnnotation, node.Annotations
	}
	text, ok := of[key]
	err := missing(v.field, "the node has no %s %s: give it one, or leave the node out with spec.nodeSelector", kind, key)
	if ok {
		value, wrong := read(text)
		if wrong == nil {
			f.values[v] = text
			return value, nil
		}
		err = missing(v.field, "the node's %s %s has the value %.64q, which %w", kind, key, text, wrong)
	}
	last, some := f.values[v]
	value, wrong := read(last)
	if !some || wrong != nil {
		return value, err
	}
	f.kept = append(f.kept, fmt.Sprintf("%v; its last value, %.64q, is in force until herald-speaker restarts there", err, last))
	return value, nil
}

// nextHops chooses the next hop for the family that is not the session's. In the session's own family the next hop is the
// local address of the session, which the kernel may choose. In the other family it has to be given: an address on the
// interface of the session, which the router reaches without another route, or else the address of the Node. The next hop in
// use stays while the interface has it, because a different one costs a new session.
func (s *site) nextHops(f *findings, p *bgp.Peer) {
	family, hop := netip.Addr.Is6, &p.NextHop6
	if !p.Address.Is4() {
		family, hop = netip.Addr.Is4, &p.NextHop4
	}
	*hop = nodeAddress(s.node, family)
	var there []netip.Addr
	for _, i := range s.interfaces {
		if !reaches(i, *p) {
			continue
		}
		for _, subnet := range roomy(i.Subnets) {
			if family(subnet.Addr()) {
				there = append(there, subnet.Addr())
			}
		}
	}
	switch {
	case slices.Contains(there, f.nextHop):
		*hop = f.nextHop
	case len(there) > 0 && !slices.Contains(there, *hop):
		*hop = there[0]
	}
	f.nextHop = *hop
}

// reaches reports whether a session uses an interface.
func reaches(i link.Interface, p bgp.Peer) bool {
	if device := cmp.Or(p.Address.Zone(), p.Interface); device != "" && device == i.Name {
		return true
	}
	return p.Address.Zone() == "" && slices.ContainsFunc(i.Subnets, func(s netip.Prefix) bool { return s.Contains(p.Address) })
}

// nodeAddress returns the node's internal address of a family, or the zero Addr.
func nodeAddress(node *corev1.Node, family func(netip.Addr) bool) netip.Addr {
	for _, a := range node.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}
		if address, err := netip.ParseAddr(a.Address); err == nil && family(address) {
			return address
		}
	}
	return netip.Addr{}
}
