package speaker

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/link"
)

// site is what BGPPeers are translated with on one node.
type site struct {
	node       *corev1.Node
	interfaces []link.Interface
	// routers are those that advertise themselves on the links of unnumbered peers, by interface.
	routers map[string][]netip.Addr
	// before has the addresses that spec.addressFrom yielded last, by BGPPeer, and found those of now. A router has not
	// gone because a route to it is set anew, or because it is silent for a while.
	before, found map[string]netip.Addr
	// password reads a Secret of the peers' namespace.
	password func(secret string) (string, error)
}

// unresolved is the error of a BGPPeer that is valid and refers to something that this node does not have.
type unresolved struct{ error }

func missing(field, format string, args ...any) error {
	return unresolved{fmt.Errorf("%s: %w", field, fmt.Errorf(format, args...))}
}

// peers translates BGPPeers into the sessions that the node is to hold, and tells which ones it cannot hold. Of several
// BGPPeers for one router, the oldest has the session.
func (s *site) peers(all []*herald.BGPPeer) (peers []bgp.Peer, rejected []Rejected) {
	all = slices.SortedFunc(slices.Values(all), func(x, y *herald.BGPPeer) int {
		return cmp.Or(x.CreationTimestamp.Compare(y.CreationTimestamp.Time), cmp.Compare(x.Name, y.Name))
	})
	s.found = map[string]netip.Addr{}
	holders := map[router]string{}
	for _, o := range all {
		selector, err := herald.CompileSelector("nodeSelector", o.Spec.NodeSelector)
		if err == nil && !selector.Matches(labels.Set(s.node.Labels)) {
			continue
		}
		var peer bgp.Peer
		if err == nil {
			peer, err = s.peer(o)
		}
		if err == nil {
			at := routerOf(peer)
			if first, taken := holders[at]; taken {
				err = fmt.Errorf("spec.address: the session with %v is that of the older BGPPeer %s: delete one of the two, or let their nodeSelectors match different nodes",
					peer.Address, first)
			} else {
				holders[at] = o.Name
			}
		}
		if err != nil {
			rejected = append(rejected, Rejected{"BGPPeer", o.Name, err})
			continue
		}
		peers = append(peers, peer)
	}
	slices.SortFunc(peers, func(x, y bgp.Peer) int { return cmp.Compare(x.Name, y.Name) })
	slices.SortFunc(rejected, func(x, y Rejected) int { return cmp.Compare(x.Name, y.Name) })
	return peers, rejected
}

// router is what tells the sessions of a node from each other: a router takes a second one of the same for a collision.
type router struct {
	address, source netip.Addr
	port            uint16
	device          string
}

func routerOf(p bgp.Peer) router {
	return router{p.Address, p.LocalAddress, cmp.Or(p.Port, bgp.DefaultPort), p.Interface}
}

// peer translates one BGPPeer for this node.
func (s *site) peer(o *herald.BGPPeer) (bgp.Peer, error) {
	p := bgp.Peer{
		Name: o.Name, Port: uint16(o.Spec.Port), Passive: o.Spec.Passive, Interface: o.Spec.Interface,
		MultihopTTL: uint8(o.Spec.MultihopTTL), TTLSecurity: uint8(o.Spec.TTLSecurityHops),
	}
	var err error
	if p.LocalASN, err = s.asn("spec.localASNFrom", o.Spec.LocalASN, o.Spec.LocalASNFrom); err != nil {
		return p, err
	}
	switch o.Spec.PeerType {
	case herald.PeerInternal:
		p.PeerASN = p.LocalASN
	case herald.PeerExternal:
		p.External = true
	default:
		if p.PeerASN, err = s.asn("spec.peerASNFrom", o.Spec.PeerASN, o.Spec.PeerASNFrom); err != nil {
			return p, err
		}
	}
	if p.Address, err = s.address(o); err != nil {
		return p, err
	}
	if o.Spec.AddressFrom != nil {
		s.found[o.Name] = p.Address
	}
	if o.Spec.SourceAddress != "" {
		if p.LocalAddress, err = netip.ParseAddr(o.Spec.SourceAddress); err != nil {
			return p, fmt.Errorf("spec.sourceAddress: %w", err)
		}
		if p.LocalAddress.Is4() != p.Address.Is4() {
			return p, fmt.Errorf("spec.sourceAddress: %v is not of the family of the router's address %v: leave it out, or give one of the other family", p.LocalAddress, p.Address)
		}
		if p.LocalAddress.IsLinkLocalUnicast() && p.LocalAddress.Is6() {
			p.LocalAddress = p.LocalAddress.WithZone(p.Address.Zone())
		}
	}
	if p.RouterID, err = s.routerID(o.Spec.RouterIDFrom); err != nil {
		return p, err
	}
	if p.Unnumbered = unnumbered(o) != ""; !p.Unnumbered {
		s.nextHops(&p)
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
	if o.Spec.PasswordSecret != nil {
		if p.Password, err = s.password(o.Spec.PasswordSecret.Name); err != nil {
			return p, fmt.Errorf("spec.passwordSecret: %w", err)
		}
	}
	return p, p.Validate()
}

// asn is a number of the spec or, where there is none, that of the node.
func (s *site) asn(field string, number int64, from *herald.NodeValueSource) (uint32, error) {
	if from == nil {
		return uint32(number), nil // The schema allows what fits.
	}
	text, err := s.value(field, from)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 {
		return 0, missing(field, "the node has the value %q, which is not an AS number from 1 to 4294967295: correct it", text)
	}
	return uint32(n), nil
}

// routerID is the node's BGP identifier. One that is not given is the node's IPv4 address or, on a node without one, a
// number made from its name: it has to be unique within an AS, and not to be an address (RFC 6286).
func (s *site) routerID(from *herald.NodeValueSource) (netip.Addr, error) {
	if from != nil {
		const field = "spec.routerIDFrom"
		text, err := s.value(field, from)
		if err != nil {
			return netip.Addr{}, err
		}
		id, err := netip.ParseAddr(text)
		if err != nil || !id.Is4() || id.IsUnspecified() {
			return id, missing(field, "the node has the value %q, which is not an IPv4 address: correct it", text)
		}
		return id, nil
	}
	if a := nodeAddress(s.node, netip.Addr.Is4); a.IsValid() {
		return a, nil
	}
	h := rank(netip.IPv6Unspecified(), s.node.Name)
	return netip.AddrFrom4([4]byte{byte(h>>24)&0x7f | 1, byte(h >> 16), byte(h >> 8), byte(h)}), nil
}

// value is a value that the node has for itself.
func (s *site) value(field string, from *herald.NodeValueSource) (string, error) {
	kind, key, of := "label", from.NodeLabel, s.node.Labels
	if key == "" {
		kind, key, of = "annotation", from.NodeAnnotation, s.node.Annotations
	}
	text, ok := of[key]
	if !ok {
		return "", missing(field, "the node has no %s %s: give it one, or leave the node out with spec.nodeSelector", kind, key)
	}
	return text, nil
}

// nextHops says what prefixes of each family are announced with. In the session's own family that is the session's own
// address, whatever the kernel chooses. In the other it has to be given: an address on the interface of the session,
// which the router reaches without another route, or else that of the Node.
func (s *site) nextHops(p *bgp.Peer) {
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
	if len(there) > 0 && !slices.Contains(there, *hop) {
		*hop = there[0]
	}
}

// reaches reports whether an interface is that of the session.
func reaches(i link.Interface, p bgp.Peer) bool {
	if device := cmp.Or(p.Address.Zone(), p.Interface); device != "" && device == i.Name {
		return true
	}
	return p.Address.Zone() == "" && slices.ContainsFunc(i.Subnets, func(s netip.Prefix) bool { return s.Contains(p.Address) })
}

// nodeAddress is the node's internal address of a family, or the zero Addr.
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

// ownPeers are the sessions that this node is to hold, and the BGPPeers of which it cannot hold any.
func (in *inputs) ownPeers(s *site) (peers []bgp.Peer, rejected []Rejected) {
	o, exists, err := in.nodes.GetStore().GetByKey(in.node)
	if err != nil || !exists {
		return nil, nil
	}
	s.node, s.password = o.(*corev1.Node), in.password
	return s.peers(client.Items[*herald.BGPPeer](in.peers.GetStore()))
}

// password reads a session's password.
func (in *inputs) password(name string) (string, error) {
	o, exists, err := in.secrets.GetStore().GetByKey(in.namespace + "/" + name)
	if err != nil || !exists {
		return "", fmt.Errorf("there is no Secret %s/%s of type %s: create it, with the password under the key %q",
			in.namespace, name, corev1.SecretTypeBasicAuth, corev1.BasicAuthPasswordKey)
	}
	if password := o.(*corev1.Secret).Data[corev1.BasicAuthPasswordKey]; len(password) > 0 {
		return string(password), nil
	}
	return "", fmt.Errorf("the Secret %s/%s has no key %q: put the password there", in.namespace, name, corev1.BasicAuthPasswordKey)
}
