package migrate

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// metalLBBFD is a BFDProfile.
type metalLBBFD struct {
	*item `json:"-"`
	// used is set once a BGPPeer has it. The notes about it are added then, and only once.
	used bool

	ReceiveInterval  *uint32 `json:"receiveInterval"`
	TransmitInterval *uint32 `json:"transmitInterval"`
	DetectMultiplier *uint32 `json:"detectMultiplier"`
	EchoInterval     *uint32 `json:"echoInterval"`
	EchoMode         *bool   `json:"echoMode"`
	PassiveMode      *bool   `json:"passiveMode"`
	MinimumTTL       *uint32 `json:"minimumTtl"`
}

func (m *metallb) readProfiles(items []*item) {
	for _, i := range items {
		b := metalLBBFD{item: i}
		if decode(i, &b) {
			m.bfd[i.u.GetName()] = &b
		}
	}
}

func (m *metallb) reportProfiles(items []*item) {
	for _, i := range items {
		if b := m.bfd[i.u.GetName()]; b != nil && b.used {
			i.translated("spec.bfd of its BGPPeers")
		} else if b != nil {
			i.translated("nothing, for no BGPPeer uses it")
		}
	}
}

// path translates BFD. FRR assumes that an external router is on the link unless it is told otherwise, and looks up where
// an internal one is.
func (m *metallb) path(i *item, spec *metalLBPeer, s *herald.BGPPeerSpec) {
	if spec.BFDProfile == "" {
		return
	}
	b := m.bfd[spec.BFDProfile]
	if b == nil {
		i.approximated("spec.bfdProfile: there is no BFDProfile %s that can be read among the objects: BFD has Herald's defaults, 300ms and 3", spec.BFDProfile)
		b = &metalLBBFD{item: i, used: true}
	}
	s.BFD = &herald.BFD{
		TransmitInterval: b.interval("transmitInterval", b.TransmitInterval),
		ReceiveInterval:  b.interval("receiveInterval", b.ReceiveInterval),
		DetectMultiplier: int32(b.bounded("detectMultiplier", b.DetectMultiplier, 1, 255)),
	}
	internal := !external(s) && s.PeerType != herald.PeerExternal
	if internal {
		i.approximated("spec.bfdProfile: BFD is for an internal router on the link: if it is not, set spec.bfd.minimumTTL of the BGPPeer, as FRR does by itself")
	}
	if spec.EBGPMultiHop && !internal {
		s.BFD.MinimumTTL = 254 // the value of FRR
		if b.MinimumTTL != nil {
			s.BFD.MinimumTTL = int32(b.bounded("minimumTtl", b.MinimumTTL, 1, 254))
		}
	}
	b.without()
	b.used = true
}

// bounded returns a number within limits, and notes it if that changes the value; 0 if there is none.
func (b *metalLBBFD) bounded(field string, value *uint32, least, most uint32) uint32 {
	if value == nil {
		return 0
	}
	fits := min(max(*value, least), most)
	if fits != *value && !b.used {
		b.approximated("spec.%s: %d is not possible, and %d is written", field, *value, fits)
	}
	return fits
}

// interval returns a number of milliseconds within limits; nil if there is none.
func (b *metalLBBFD) interval(field string, value *uint32) *metav1.Duration {
	if value == nil {
		return nil
	}
	return &metav1.Duration{Duration: time.Duration(b.bounded(field, value, 10, 60000)) * time.Millisecond}
}

// without notes the features that Herald's BFD does not have.
func (b *metalLBBFD) without() {
	if b.used {
		return
	}
	if b.EchoMode != nil && *b.EchoMode {
		b.cannot("spec.echoMode: Herald has no echo function: control packets at spec.bfd.transmitInterval do as much")
	}
	if b.PassiveMode != nil && *b.PassiveMode {
		b.cannot("spec.passiveMode: Herald sends control packets from the start: the router need not be told")
	}
}
