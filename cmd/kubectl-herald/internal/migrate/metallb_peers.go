package migrate

import (
	"cmp"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

type metalLBPeer struct {
	MyASN                  uint32                 `json:"myASN"`
	ASN                    uint32                 `json:"peerASN"`
	LocalASN               uint32                 `json:"localASN"`
	DynamicASN             string                 `json:"dynamicASN"`
	Address                string                 `json:"peerAddress"`
	Interface              string                 `json:"interface"`
	SourceAddress          string                 `json:"sourceAddress"`
	Port                   uint16                 `json:"peerPort"`
	HoldTime               *duration              `json:"holdTime"`
	KeepaliveTime          *duration              `json:"keepaliveTime"`
	ConnectTime            *duration              `json:"connectTime"`
	RouterID               string                 `json:"routerID"`
	NodeSelectors          []metav1.LabelSelector `json:"nodeSelectors"`
	Password               string                 `json:"password"`
	PasswordSecret         metalLBSecretReference `json:"passwordSecret"`
	BFDProfile             string                 `json:"bfdProfile"`
	EnableGracefulRestart  bool                   `json:"enableGracefulRestart"`
	EBGPMultiHop           bool                   `json:"ebgpMultiHop"`
	VRF                    string                 `json:"vrf"`
	DisableMP              bool                   `json:"disableMP"`
	DualStackAddressFamily bool                   `json:"dualStackAddressFamily"`
}

type metalLBSecretReference struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

func (m *metallb) peer(i *item) {
	var spec metalLBPeer
	if !decode(i, &spec) {
		return
	}
	s := herald.BGPPeerSpec{LocalASN: int64(cmp.Or(spec.LocalASN, spec.MyASN)), PeerASN: int64(spec.ASN)}
	if !m.systems(i, &spec, &s) || !m.router(i, &spec, &s) || !m.session(i, &spec, &s) {
		return
	}
	m.path(i, &spec, &s)
	if spec.DisableMP {
		i.cannot("spec.disableMP: a session of Herald's carries routes of both families: filter those of the other family on the router")
	} else if !spec.DualStackAddressFamily {
		i.approximated("spec.dualStackAddressFamily: MetalLB sends routes of the family of the session only, unless this is true; Herald sends those of both: filter the others on the router if it must not have them")
	}
	if spec.Password != "" {
		i.clearText(&s, "spec.password", i.u.GetName())
	} else {
		i.secret(&s, "spec.passwordSecret", cmp.Or(spec.PasswordSecret.Namespace, i.u.GetNamespace()), spec.PasswordSecret.Name)
	}
	nodes := anyOf(spec.NodeSelectors)
	if len(nodes) > 1 {
		i.approximated("spec.nodeSelectors has several of which one has to match: a BGPPeer of Herald has one, so there are %d of them; a node that several select has one session", len(nodes))
	}
	var objects []runtime.Object
	for n, selector := range nodes {
		p := newBGPPeer(numbered(i.u.GetName(), n))
		p.Spec = s
		p.Spec.NodeSelector = selector
		objects = append(objects, p)
		m.peers[i.u.GetName()] = append(m.peers[i.u.GetName()], p.Name)
	}
	i.becomes(objects...)
}

// systems checks the AS numbers. If the router's number is not given, it sets which type of AS the
// router may be in.
func (m *metallb) systems(i *item, spec *metalLBPeer, s *herald.BGPPeerSpec) (ok bool) {
	switch kind := map[string]herald.PeerType{"internal": herald.PeerInternal, "external": herald.PeerExternal}[spec.DynamicASN]; {
	case s.LocalASN == 0:
		i.cannot("spec.myASN is missing: give it, and import again")
		return false
	case kind != "" && spec.ASN == 0:
		s.PeerType = kind
	case spec.ASN == 0 || spec.DynamicASN != "":
		i.cannot("spec.peerASN: give one of peerASN and dynamicASN, which is internal or external, and import again")
		return false
	}
	return true
}

// router sets the address of the router, and the source from which the session is made.
func (m *metallb) router(i *item, spec *metalLBPeer, s *herald.BGPPeerSpec) (ok bool) {
	for _, name := range []string{spec.Interface, spec.VRF} {
		if name != "" && !isInterface(name) {
			i.cannot("%q is not the name of an interface: correct it, and import again", name)
			return false
		}
	}
	switch {
	case (spec.Address == "") == (spec.Interface == ""):
		i.cannot("spec.peerAddress: give one of peerAddress and interface, and import again")
		return false
	case spec.Interface != "":
		s.AddressFrom = &herald.PeerAddressSource{Interface: spec.Interface}
		if spec.VRF != "" {
			i.approximated("spec.vrf: the interface %s of an unnumbered session says which VRF it is in, and %s is left out", spec.Interface, spec.VRF)
		}
	default:
		s.Interface = spec.VRF
		if s.Address, ok = i.routerAddress("spec.peerAddress", spec.Address, s.Interface); !ok {
			return false
		}
	}
	if spec.SourceAddress == "" {
		return true
	}
	source, err := addressOf(spec.SourceAddress)
	if router, e := addressOf(s.Address); err != nil || e == nil && router.Is4() != source.Is4() {
		i.cannot("spec.sourceAddress: %q is not an address of the family of the router: it is left out", spec.SourceAddress)
		return true
	}
	s.SourceAddress = source.String()
	i.approximated("spec.sourceAddress: a node that does not have %s has no session; MetalLB in native mode takes another address there: select the one node that has it", source)
	return true
}

// session sets the session parameters of the router.
func (m *metallb) session(i *item, spec *metalLBPeer, s *herald.BGPPeerSpec) (ok bool) {
	hold, held := i.duration("spec.holdTime", spec.HoldTime)
	keepalive, kept := i.duration("spec.keepaliveTime", spec.KeepaliveTime)
	connect, connected := i.duration("spec.connectTime", spec.ConnectTime)
	if !held || !kept || !connected {
		return false
	}
	if spec.Port != 179 {
		s.Port = int32(spec.Port)
	}
	i.timers(s, "spec.holdTime", "spec.keepaliveTime", hold, keepalive)
	s.ConnectRetryTime = i.seconds("spec.connectTime", connect, 2*time.Second, time.Hour)
	if spec.RouterID != "" {
		i.cannot("spec.routerID: it is one for all nodes that have the peer, and %s", routerIDs)
	}
	if spec.EnableGracefulRestart {
		s.GracefulRestart = &herald.GracefulRestart{RestartTime: metav1.Duration{Duration: 2 * time.Minute}} // the value of FRR
	}
	if spec.EBGPMultiHop && external(s) {
		s.MultihopTTL = 255 // the value of FRR
	}
	return true
}
