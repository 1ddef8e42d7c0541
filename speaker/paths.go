package speaker

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bfd"
	"github.com/heraldlb/herald/speaker/bgp"
)

// newPaths returns the BFD speaker that watches the paths to routers. A BGP session with a router ends when BFD finds the path
// to it dead. A BGP session does not wait for BFD, neither when it starts nor when it comes back.
func newPaths(log *zap.Logger, sessions *bgp.Speaker) *bfd.Speaker {
	return bfd.New(log, func(c bfd.Change) {
		if c.Failed() {
			sessions.PathDown(c.Session)
		}
	})
}

// bfdSessions returns the BFD sessions with the peers whose BGPPeers ask for BFD.
func (in *inputs) bfdSessions(peers []bgp.Peer) (sessions []bfd.Session) {
	for _, p := range peers {
		o, exists, err := in.peers.GetStore().GetByKey(p.Name)
		if err != nil || !exists {
			continue
		}
		if b := o.(*herald.BGPPeer).Spec.BFD; b != nil {
			sessions = append(sessions, bfd.Session{
				Name: p.Name, Peer: p.Address, Local: p.LocalAddress, Device: p.Interface, DeviceIndex: p.InterfaceIndex,
				MinimumTTL: uint8(b.MinimumTTL), Multiplier: uint8(b.DetectMultiplier),
				TransmitInterval: duration(b.TransmitInterval), ReceiveInterval: duration(b.ReceiveInterval),
			})
		}
	}
	return sessions
}

func duration(d *metav1.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return d.Duration
}

// takePaths tells BFD which paths to watch. The SpeakerStatus reports paths that cannot be watched.
func (l *loop) takePaths(peers []bgp.Peer) {
	faults := l.s.paths.Set(l.s.inputs.bfdSessions(peers))
	for name, err := range faults {
		if before := l.unwatched[name]; before == nil || before.Error() != err.Error() {
			l.s.log.Warn("BFD is not possible with a BGPPeer", zap.String("peer", name), zap.Error(err))
		}
	}
	l.unwatched = faults
}

// reportPaths adds the state of BFD to the reports of the BGP sessions.
func (l *loop) reportPaths(sessions []herald.SpeakerSession) {
	paths := map[string]bfd.Status{}
	for _, p := range l.s.paths.Sessions() {
		paths[p.Name] = p
	}
	for i := range sessions {
		s := &sessions[i]
		if p, watched := paths[s.Peer]; watched {
			s.BFD, s.BFDReason = pathDown, printable(whyDown(p))
			if p.State == bfd.Up {
				s.BFD = pathUp
			}
		} else if err := l.unwatched[s.Peer]; err != nil {
			s.BFD, s.BFDReason = pathDown, printable(err.Error())
		}
	}
}

// Values of SpeakerSession.BFD.
const (
	pathUp   = "Up"
	pathDown = "Down"
)

// whyDown describes for users why a session is not up. The text has no values that change from one moment to the next.
func whyDown(s bfd.Status) string {
	switch {
	case s.State == bfd.Up:
		return ""
	case s.Problem != "":
		return s.Problem
	case s.RemoteState == bfd.AdminDown:
		return "the router has closed BFD on purpose: enable it there"
	case s.Drops[bfd.DropTTL] > 0 && s.PacketsReceived == 0:
		return "the router's packets come with too low a TTL: a router that is not on the link needs spec.bfd.minimumTTL"
	case s.Drops[bfd.DropAuthentication] > 0 && s.PacketsReceived == 0:
		return "the router signs its packets, which is not supported: switch authentication of BFD off there"
	case s.PacketsReceived == 0:
		return fmt.Sprintf("nothing is heard of the router: it has no BFD session with %v, or a firewall drops UDP ports 3784 and 4784", s.Local)
	case s.RemoteDiscriminator == 0:
		return "the router has fallen silent: the path to it is dead, or it has no BFD any more"
	case s.RemoteState == bfd.Down:
		return "the router does not hear this node"
	}
	return "it is coming up"
}

var (
	bfdUp       = desc("bfd_session_up", "1 if BFD with the peer is up.", "peer")
	bfdFailures = desc("bfd_failures_total", "How often the path to the peer was found dead.", "peer")
	bfdState    = desc("bfd_session_state", "1 for the state that BFD with the peer is in (RFC 5880, section 6.2).", "peer", "state")
	bfdDowns    = desc("bfd_downs_total", "How often BFD with the peer went from Up to Down, by the diagnostic of this node (RFC 5880, section 4.1).", "peer", "diagnostic")
	bfdPackets  = desc("bfd_packets_total", "BFD packets, by direction. Those that were dropped do not count.", "peer", "direction")
	bfdDropped  = desc("bfd_dropped_packets_total", "BFD packets of the peer that were without effect, by reason.", "peer", "reason")
)

// pathCollector exports the metrics of BFD.
type pathCollector struct{ *bfd.Speaker }

// Describe implements prometheus.Collector.
func (pathCollector) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{bfdUp, bfdFailures, bfdState, bfdDowns, bfdPackets, bfdDropped} {
		c <- d
	}
}

// diagnostics are the diagnostics with which this node takes a session down, with their metric labels.
var diagnostics = map[bfd.Diag]string{
	bfd.DiagTimeExpired: "control_detection_time_expired", bfd.DiagNeighborDown: "neighbor_signaled_session_down",
}

// Collect implements prometheus.Collector.
func (p pathCollector) Collect(c chan<- prometheus.Metric) {
	for _, s := range p.Sessions() {
		up := 0.0
		if s.State == bfd.Up {
			up = 1
		}
		c <- gauge(bfdUp, up, s.Name)
		c <- counter(bfdFailures, float64(s.Failures), s.Name)
		c <- gauge(bfdState, 1, s.Name, s.State.String())
		for diagnostic, label := range diagnostics {
			c <- counter(bfdDowns, float64(s.Downs[diagnostic]), s.Name, label)
		}
		c <- counter(bfdPackets, float64(s.PacketsSent), s.Name, "sent")
		c <- counter(bfdPackets, float64(s.PacketsReceived), s.Name, "received")
		for reason, n := range s.Drops {
			if n > 0 {
				c <- counter(bfdDropped, float64(n), s.Name, bfd.Drop(reason).String()) //nolint:gosec // An index.
			}
		}
	}
}
