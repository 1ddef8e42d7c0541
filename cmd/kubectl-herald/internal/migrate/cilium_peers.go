package migrate

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

type ciliumClusterConfig struct {
	NodeSelector *metav1.LabelSelector `json:"nodeSelector"`
	Instances    []ciliumInstance      `json:"bgpInstances"`
}

type ciliumInstance struct {
	Name      string       `json:"name"`
	LocalASN  int64        `json:"localASN"`
	LocalPort int32        `json:"localPort"`
	Peers     []ciliumPeer `json:"peers"`
}

type ciliumPeer struct {
	Name          string `json:"name"`
	Address       string `json:"peerAddress"`
	ASN           int64  `json:"peerASN"`
	AutoDiscovery *struct {
		Mode           string `json:"mode"`
		DefaultGateway *struct {
			AddressFamily string `json:"addressFamily"`
		} `json:"defaultGateway"`
		Unnumbered *struct {
			Interface string `json:"interface"`
		} `json:"unnumbered"`
	} `json:"autoDiscovery"`
	PeerConfigRef *struct {
		Group string `json:"group"`
		Kind  string `json:"kind"`
		Name  string `json:"name"`
	} `json:"peerConfigRef"`
}

// cluster translates each peer of each instance into a BGPPeer.
func (c *cilium) cluster(i *item, several bool) {
	var spec ciliumClusterConfig
	if !decode(i, &spec) {
		return
	}
	var objects []runtime.Object
	names := map[string]bool{}
	for n, instance := range spec.Instances {
		field := fmt.Sprintf("spec.bgpInstances[%d]", n)
		if instance.LocalPort != 0 {
			i.approximated("%s.localPort: Herald's nodes connect to the router, and listen only with spec.passive of the BGPPeer: set it if the router connects", field)
		}
		for m, peer := range instance.Peers {
			name := strings.ToLower(instance.Name + "-" + peer.Name)
			if several {
				name = i.u.GetName() + "-" + name
			}
			if len(validation.IsDNS1123Subdomain(name)) > 0 || names[name] {
				i.cannot("%s.peers[%d]: %q is not a name that a BGPPeer can have, or is there twice: rename the instance or the peer, and import again", field, m, name)
				continue
			}
			if p := c.peer(i, fmt.Sprintf("%s.peers[%d]", field, m), name, &instance, &peer); p != nil {
				p.Spec.NodeSelector = spec.NodeSelector.DeepCopy()
				names[name] = true
				objects = append(objects, p)
			}
		}
	}
	i.becomes(objects...)
}

// peer translates a peer of an instance; nil if it cannot.
func (c *cilium) peer(i *item, field, name string, instance *ciliumInstance, peer *ciliumPeer) *herald.BGPPeer {
	p := newBGPPeer(name)
	if !instance.systems(i, field, peer, &p.Spec) || !peer.router(i, field, &p.Spec) {
		return nil
	}
	if peer.PeerConfigRef == nil {
		i.approximated("%s: it has no peerConfigRef, so no addresses are announced to it", field)
		return p
	}
	config := c.configs[peer.PeerConfigRef.Name]
	if config == nil {
		i.cannot("%s.peerConfigRef: there is no CiliumBGPPeerConfig %s that can be read among the objects: import it, too", field, peer.PeerConfigRef.Name)
		return p
	}
	config.apply(&p.Spec)
	config.peers = append(config.peers, name)
	return p
}

// systems sets the AS numbers.
func (n *ciliumInstance) systems(i *item, field string, peer *ciliumPeer, s *herald.BGPPeerSpec) (ok bool) {
	const most = 1<<32 - 1
	switch {
	case n.LocalASN < 1 || n.LocalASN > most:
		i.cannot("%s: the instance has no localASN, or none from 1 to 4294967295: give it, or a label of the Nodes in spec.localASNFrom of a BGPPeer written by hand", field)
		return false
	case peer.ASN < 0 || peer.ASN > most:
		i.cannot("%s.peerASN: %d is not an AS number: correct it, and import again", field, peer.ASN)
		return false
	case peer.ASN == 0:
		s.PeerType = herald.PeerExternal
		i.approximated("%s.peerASN: Cilium takes any AS number, Herald any but that of the nodes: write spec.peerType Internal if the router has the same", field)
	}
	s.LocalASN, s.PeerASN = n.LocalASN, peer.ASN
	return true
}

// router sets the address of the router.
func (p *ciliumPeer) router(i *item, field string, s *herald.BGPPeerSpec) (ok bool) {
	families := map[string]herald.IPFamily{"ipv4": herald.IPv4, "ipv6": herald.IPv6}
	switch d := p.AutoDiscovery; {
	case p.Address != "":
		address, zone, _ := strings.Cut(p.Address, "%")
		if zone != "" && !isInterface(zone) {
			i.cannot("%s.peerAddress: %q is not the name of an interface: correct it, and import again", field, zone)
			return false
		}
		s.Interface = zone
		s.Address, ok = i.routerAddress(field+".peerAddress", address, zone)
		return ok
	case d != nil && strings.EqualFold(strings.ReplaceAll(d.Mode, "-", ""), "DefaultGateway") && d.DefaultGateway != nil && families[d.DefaultGateway.AddressFamily] != "":
		s.AddressFrom = &herald.PeerAddressSource{DefaultGateway: families[d.DefaultGateway.AddressFamily]}
	case d != nil && d.Mode == "Unnumbered" && d.Unnumbered != nil && isInterface(d.Unnumbered.Interface):
		s.AddressFrom = &herald.PeerAddressSource{Interface: d.Unnumbered.Interface}
	default:
		i.cannot("%s: it has neither a peerAddress nor an autoDiscovery that Herald knows: write the BGPPeer by hand, with spec.address or spec.addressFrom", field)
		return false
	}
	return true
}
