package migrate

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// kubeVIPPeer is a router in the configuration of kube-vip.
type kubeVIPPeer struct {
	field    string // the variable that configures it
	address  string
	asn      string
	password bool   // in clear text
	secret   string // the name of the Secret with the password
	multihop string
}

// peersOf parses bgp_peers: ADDRESS:AS:PASSWORD:MULTIHOP, separated by commas, with IPv6 addresses in brackets, each
// optionally followed by a slash and options. Errors contain none of the text, because it may be a password.
func peersOf(text string) (all []kubeVIPPeer, err error) {
	for part := range strings.SplitSeq(text, ",") {
		part, _, _ = strings.Cut(strings.TrimSpace(part), "/")
		if part == "" {
			continue
		}
		p := kubeVIPPeer{field: "bgp_peers"}
		rest := part
		if strings.HasPrefix(part, "[") {
			var found bool
			if p.address, rest, found = strings.Cut(part[1:], "]"); !found {
				return nil, fmt.Errorf("peer %d has no ] after its address", len(all)+1)
			}
			rest = "x" + rest
		}
		fields := strings.Split(rest, ":")
		if len(fields) < 2 || len(fields) > 4 {
			return nil, fmt.Errorf("peer %d is not ADDRESS:AS:PASSWORD:MULTIHOP; an IPv6 address stands in brackets", len(all)+1)
		}
		if p.address == "" {
			p.address = fields[0]
		}
		p.asn = fields[1]
		if len(fields) > 2 {
			p.password = fields[2] != ""
		}
		if len(fields) > 3 {
			p.multihop = fields[3]
		}
		all = append(all, p)
	}
	return all, nil
}

// bgp returns BGPPeers and the BGPAdvertisement for them.
func (k *kubevip) bgp(i *item, env *kubeVIPEnvironment, nodes []*metav1.LabelSelector, services *metav1.LabelSelector) (objects []runtime.Object) {
	peers := k.peers(i, env)
	if len(peers) == 0 {
		i.cannot("bgp_enable is true, and there is no peer that can be read: write BGPPeers by hand")
		return nil
	}
	if env.text["bgp_routerid"] != "" {
		i.cannot("bgp_routerid: %s", routerIDs)
	}
	if env.text["mpbgp_nexthop"] != "" || strings.Contains(env.text["bgp_peers"], "/mpbgp_") {
		i.approximated("mpbgp_nexthop: Herald chooses the next hop of the other family from the addresses of the interface and of the Node")
	}
	asn, ok := asnOf(env.text["bgp_as"])
	if !ok {
		i.cannot("bgp_as is not a number from 1 to 4294967295: correct it, and import again")
		return nil
	}
	a := newBGPAdvertisement("kube-vip")
	for n, peer := range peers {
		s := &herald.BGPPeerSpec{}
		s.LocalASN = asn
		if !peer.system(i, n+1, s) || !peer.router(i, env, n+1, s) {
			continue
		}
		peer.session(i, env, n+1, s)
		for _, selector := range nodes {
			p := newBGPPeer(numbered("kube-vip", len(objects)))
			p.Spec = *s
			p.Spec.NodeSelector = selector
			objects = append(objects, p)
			a.Spec.Peers = append(a.Spec.Peers, p.Name)
		}
	}
	if len(objects) == 0 {
		return nil
	}
	a.Spec.NamespaceSelector = services
	if len(nodes) == 1 {
		a.Spec.NodeSelector = nodes[0] // otherwise the nodes that have the peers
	}
	return append(objects, a)
}

// peers returns the routers of bgp_peers and of bgp_peeraddress.
func (k *kubevip) peers(i *item, env *kubeVIPEnvironment) []kubeVIPPeer {
	peers, err := peersOf(env.text["bgp_peers"])
	if err != nil {
		i.cannot("bgp_peers: %v: correct it, and import again", err)
	}
	if address := env.text["bgp_peeraddress"]; address != "" {
		peers = append(peers, kubeVIPPeer{
			field: "bgp_peeraddress", secret: env.password,
			address: address, asn: env.text["bgp_peeras"], password: env.text["bgp_peerpass"] != "", multihop: env.text["bgp_multihop"],
		})
	}
	return peers
}

// asnOf reads an AS number.
func asnOf(text string) (asn int64, ok bool) {
	value, err := strconv.ParseUint(text, 10, 32)
	return int64(value), err == nil && value > 0
}

// system sets the AS number of the nth peer.
func (p *kubeVIPPeer) system(i *item, n int, s *herald.BGPPeerSpec) (ok bool) {
	if s.PeerASN, ok = asnOf(p.asn); !ok {
		i.cannot("%s: peer %d has no AS number from 1 to 4294967295: correct it, and import again", p.field, n)
	}
	return ok
}

// router sets the address of the nth router, and the source from which the session is made.
func (p *kubeVIPPeer) router(i *item, env *kubeVIPEnvironment, n int, s *herald.BGPPeerSpec) (ok bool) {
	if device := env.text["bgp_sourceif"]; device == "" || isInterface(device) {
		s.Interface = device
	} else {
		i.cannot("bgp_sourceif: this is not the name of an interface: name one in spec.interface")
	}
	address, err := addressOf(p.address)
	if err != nil || address.Is6() && address.IsLinkLocalUnicast() && s.Interface == "" {
		i.cannot("%s: the address of peer %d is none, or is a link-local one without bgp_sourceif: write this BGPPeer by hand, with spec.address and spec.interface", p.field, n)
		return false
	}
	s.Address = address.String()
	if source, err := addressOf(env.text["bgp_sourceip"]); err == nil && source.Is4() == address.Is4() {
		s.SourceAddress = source.String()
	}
	return true
}

// session sets the session parameters of the nth router.
func (p *kubeVIPPeer) session(i *item, env *kubeVIPEnvironment, n int, s *herald.BGPPeerSpec) {
	i.timers(s, "bgp_hold_time", "bgp_keepalive_interval", secondsOf(env.text["bgp_hold_time"]), secondsOf(env.text["bgp_keepalive_interval"]))
	if on, err := strconv.ParseBool(p.multihop); err == nil && on && external(s) {
		s.MultihopTTL = 50 // the value of kube-vip
	}
	if p.password {
		i.clearText(s, fmt.Sprintf("the password of peer %d in %s", n, p.field), numbered("kube-vip", n-1))
	} else {
		i.secret(s, "bgp_peerpass", i.u.GetNamespace(), p.secret)
	}
}

// secondsOf parses a number of seconds; nil if there is none.
func secondsOf(text string) *metav1.Duration {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return nil
	}
	return &metav1.Duration{Duration: time.Duration(n) * time.Second}
}
