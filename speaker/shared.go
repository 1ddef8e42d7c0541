package speaker

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bgp"
)

// shared assembles what all decisions of a node rest on. Objects that are not valid are left out: herald-ccm tells the
// user in their conditions.
func (in *inputs) shared(self string, healthy bool) *Shared {
	s, _ := in.objects().Shared()
	s.Self, s.Healthy = self, healthy
	return s
}

// objects are those that all decisions share.
func (in *inputs) objects() *Objects {
	return &Objects{
		Nodes: client.Items[*corev1.Node](in.nodes.GetStore()), Namespaces: client.Items[*corev1.Namespace](in.namespaces.GetStore()),
		Pools:            client.Items[*herald.IPPool](in.pools.GetStore()),
		L2Advertisements: client.Items[*herald.L2Advertisement](in.l2.GetStore()), BGPAdvertisements: client.Items[*herald.BGPAdvertisement](in.bgp.GetStore()),
		BGPPeers: client.Items[*herald.BGPPeer](in.peers.GetStore()),
	}
}

// ranges are the addresses of all pools.
func (in *inputs) ranges() (all []netipx.IPRange) {
	for _, o := range client.Items[*herald.IPPool](in.pools.GetStore()) {
		all = append(all, rangesOf(o.Spec.Addresses)...)
	}
	return all
}

// rangesOf reads ranges. What cannot be read is left out.
func rangesOf(texts []herald.AddressRange) (all []netipx.IPRange) {
	for _, text := range texts {
		text := strings.ReplaceAll(string(text), " ", "")
		if p, err := netip.ParsePrefix(text); err == nil {
			all = append(all, netipx.RangeOfPrefix(p))
		} else if r, err := netipx.ParseIPRange(text); err == nil {
			all = append(all, r)
		} else if a, err := netip.ParseAddr(text); err == nil {
			all = append(all, netipx.IPRangeFrom(a, a))
		}
	}
	return all
}

// addressesIn are the addresses of a pool without those that are excluded; nil if there are none, or these cannot be told.
func addressesIn(spec *herald.IPPoolSpec) *netipx.IPSet {
	all, excluded := rangesOf(spec.Addresses), rangesOf(spec.Exclude)
	if len(all) == 0 || len(excluded) < len(spec.Exclude) {
		return nil
	}
	var b netipx.IPSetBuilder
	for _, r := range all {
		b.AddRange(r)
	}
	for _, r := range excluded {
		b.RemoveRange(r)
	}
	set, err := b.IPSet()
	if err != nil {
		return nil
	}
	return set
}

// ownPeers are the sessions that this node is to hold, and the BGPPeers of which it cannot hold any.
func (in *inputs) ownPeers(self string) (peers []bgp.Peer, rejected []Rejected) {
	o, exists, err := in.nodes.GetStore().GetByKey(self)
	if err != nil || !exists {
		return nil, nil
	}
	node := o.(*corev1.Node)
	for _, o := range client.Items[*herald.BGPPeer](in.peers.GetStore()) {
		selector, err := herald.CompileSelector("nodeSelector", o.Spec.NodeSelector)
		if err != nil {
			rejected = append(rejected, Rejected{"BGPPeer", o.Name, err})
			continue
		}
		if !selector.Matches(labels.Set(node.Labels)) {
			continue
		}
		peer, err := in.peer(o, node)
		if err != nil {
			rejected = append(rejected, Rejected{"BGPPeer", o.Name, err})
			continue
		}
		peers = append(peers, peer)
	}
	slices.SortFunc(peers, func(x, y bgp.Peer) int { return cmp.Compare(x.Name, y.Name) })
	return peers, rejected
}

// peer translates one BGPPeer for this node.
func (in *inputs) peer(o *herald.BGPPeer, node *corev1.Node) (bgp.Peer, error) {
	p := bgp.Peer{
		Name: o.Name, LocalASN: uint32(o.Spec.LocalASN), PeerASN: uint32(o.Spec.PeerASN),
		Port: uint16(o.Spec.Port), MultihopTTL: uint8(o.Spec.MultihopTTL),
		NextHop4: nodeAddress(node, netip.Addr.Is4), NextHop6: nodeAddress(node, netip.Addr.Is6),
	}
	var err error
	if p.Address, err = netip.ParseAddr(o.Spec.Address); err != nil {
		return p, fmt.Errorf("spec.address: %w", err)
	}
	if o.Spec.SourceAddress != "" {
		if p.LocalAddress, err = netip.ParseAddr(o.Spec.SourceAddress); err != nil {
			return p, fmt.Errorf("spec.sourceAddress: %w", err)
		}
	}
	// The session's own address is the better next hop in the session's own family.
	if p.Address.Is4() {
		p.NextHop4 = netip.Addr{}
	} else {
		p.NextHop6 = netip.Addr{}
	}
	p.RouterID = routerID(node)
	if g := o.Spec.GracefulRestart; g != nil {
		p.GracefulRestart = &bgp.GracefulRestart{RestartTime: g.RestartTime.Duration}
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
		if p.Password, err = in.password(o.Spec.PasswordSecret.Name); err != nil {
			return p, fmt.Errorf("spec.passwordSecret: %w", err)
		}
	}
	return p, p.Validate()
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

// routerID is the node's IPv4 address or, on a node without one, a number that is its own: the BGP
// identifier only has to be unique within an AS (RFC 6286).
func routerID(node *corev1.Node) netip.Addr {
	if a := nodeAddress(node, netip.Addr.Is4); a.IsValid() {
		return a
	}
	h := rank(netip.IPv6Unspecified(), node.Name)
	return netip.AddrFrom4([4]byte{byte(h>>24)&0x7f | 1, byte(h >> 16), byte(h >> 8), byte(h)})
}
