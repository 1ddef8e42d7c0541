package migrate

import (
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

type ciliumPeerConfig struct {
	*item     `json:"-"`
	Transport *struct {
		PeerPort  int32 `json:"peerPort"`
		LocalPort int32 `json:"localPort"`
	} `json:"transport"`
	Timers *struct {
		ConnectRetry int64 `json:"connectRetryTimeSeconds"`
		Hold         int64 `json:"holdTimeSeconds"`
		KeepAlive    int64 `json:"keepAliveTimeSeconds"`
	} `json:"timers"`
	AuthSecretRef   string `json:"authSecretRef"`
	GracefulRestart *struct {
		Enabled bool  `json:"enabled"`
		Seconds int64 `json:"restartTimeSeconds"`
	} `json:"gracefulRestart"`
	EBGPMultihop int32          `json:"ebgpMultihop"`
	Families     []ciliumFamily `json:"families"`
	// peers are the BGPPeers with this configuration.
	peers []string
}

type ciliumFamily struct {
	AFI            string                `json:"afi"`
	SAFI           string                `json:"safi"`
	Advertisements *metav1.LabelSelector `json:"advertisements"`
}

func (c *cilium) readPeerConfigs(items []*item) {
	for _, i := range items {
		config := ciliumPeerConfig{item: i}
		if decode(i, &config) {
			c.configs[i.u.GetName()] = &config
		}
	}
}

func (c *cilium) reportPeerConfigs(items []*item) {
	for _, i := range items {
		switch config := c.configs[i.u.GetName()]; {
		case config == nil: // The configuration could not be read.
		case len(config.peers) == 0:
			i.translated("nothing, for no peer uses it")
		default:
			i.translated("fields of BGPPeers %s", strings.Join(config.peers, ", "))
		}
	}
}

// apply sets what the peers of a CiliumBGPPeerConfig have in common. Each note is added only once.
func (p *ciliumPeerConfig) apply(s *herald.BGPPeerSpec) {
	i := p.item
	if len(p.peers) > 0 {
		i = &item{t: &translation{}, u: p.u} // The notes were already added.
	}
	seconds := func(n int64) *metav1.Duration {
		if n == 0 {
			return nil
		}
		return &metav1.Duration{Duration: time.Duration(min(max(n, 0), 1<<30)) * time.Second}
	}
	if t := p.Transport; t != nil {
		if t.PeerPort < 0 || t.PeerPort > 65535 {
			i.cannot("spec.transport.peerPort: %d is not a port: 179 is used", t.PeerPort)
		} else if t.PeerPort != 179 {
			s.Port = t.PeerPort
		}
		if t.LocalPort != 0 {
			i.cannot("spec.transport.localPort: the system chooses the port that a session of Herald's comes from: let the router accept any")
		}
	}
	if t := p.Timers; t != nil {
		i.timers(s, "spec.timers.holdTimeSeconds", "spec.timers.keepAliveTimeSeconds", seconds(t.Hold), seconds(t.KeepAlive))
		s.ConnectRetryTime = i.seconds("spec.timers.connectRetryTimeSeconds", seconds(t.ConnectRetry), 2*time.Second, time.Hour)
	}
	if p.AuthSecretRef != "" && len(validation.IsDNS1123Subdomain(p.AuthSecretRef)) > 0 {
		i.cannot("spec.authSecretRef: this is not the name of a Secret: correct it, and import again")
	} else {
		i.secret(s, "spec.authSecretRef", metav1.NamespaceSystem, p.AuthSecretRef)
	}
	if g := p.GracefulRestart; g != nil && g.Enabled {
		restart := seconds(g.Seconds)
		if restart == nil {
			restart = &metav1.Duration{Duration: 2 * time.Minute}
		}
		s.GracefulRestart = &herald.GracefulRestart{RestartTime: *i.seconds("spec.gracefulRestart.restartTimeSeconds", restart, time.Second, 4095*time.Second)}
	}
	if external(s) && p.EBGPMultihop > 1 {
		s.MultihopTTL = min(p.EBGPMultihop, 255)
	}
	for n, f := range p.Families {
		if f.SAFI != "unicast" || f.AFI != "ipv4" && f.AFI != "ipv6" {
			i.cannot("spec.families[%d]: Herald's sessions carry ipv4 and ipv6 unicast only: leave %s %s to Cilium", n, f.AFI, f.SAFI)
		}
	}
	if len(p.Families) == 1 {
		i.approximated("spec.families: a session of Herald's carries routes of both families: filter the others on the router if it must not have them")
	}
}
