package provider

import (
	"context"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcoordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/utils/ptr"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// speakers exports a metric for each node that must announce addresses: whether its speaker works. It uses the Leases,
// because a SpeakerStatus stays when its speaker ends, and Prometheus itself does not know of a pod that was never created.
// It also tells the assessor which speakers do not work.
type speakers struct {
	leases     typedcoordinationv1.LeaseInterface
	announcers func() []string // the nodes that must announce addresses
	changed    func()          // called when silent returns other nodes than before
	log        *zap.Logger

	mu       sync.Mutex
	renewals map[string]renewal // by node, for the Leases that have a holder; nil before the first list
	idle     map[string]int     // by node, in how many lists in a row its Lease was not held or not renewed
	listed   time.Time
}

// renewal is the last renewal of a Lease.
type renewal struct {
	written time.Time // by the node's clock
	seen    time.Time // by our clock, when the renewal was first listed; zero if it was already old then
	lasts   time.Duration
}

// works reports whether the Lease was renewed recently.
func (r renewal) works(now time.Time) bool { return now.Sub(r.seen) <= 2*r.lasts }

const (
	// leasesPeriod is how often the Leases are listed. They are not watched, because each is renewed every 10 s.
	leasesPeriod = 30 * time.Second
	// leasesForgotten is the maximum age of the last list.
	leasesForgotten = 5 * time.Minute
)

// run lists the Leases until ctx ends. A failure says nothing about the speakers, so the last list stays valid for a while.
func (s *speakers) run(ctx context.Context) error {
	ticker := time.NewTicker(leasesPeriod)
	defer ticker.Stop()
	var told map[string]bool // what silent returned when changed was called last
	for {
		if err := s.list(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("failed to list the Leases of the speakers, trying again: until then the metric herald_node_speaker_up is missing or old", zap.Error(err))
		}
		if silent := s.silent(); !maps.Equal(silent, told) { // A list that is too old says nothing any more.
			told = silent
			s.changed()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// list finds the Leases that have changed since the last list. The clocks of nodes may be wrong, so only the first list
// compares with them.
func (s *speakers) list(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leasesPeriod)
	defer cancel()
	list, err := s.leases.List(ctx, metav1.ListOptions{LabelSelector: herald.SpeakerLeaseLabel + "=" + herald.SpeakerLeaseLabelValue, ResourceVersion: "0"})
	if err != nil {
		return err
	}
	s.count(list.Items, time.Now())
	return nil
}

// count notes what a list of the Leases says.
func (s *speakers) count(leases []coordinationv1.Lease, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	renewals, idle := map[string]renewal{}, map[string]int{}
	for i := range leases {
		spec := &leases[i].Spec
		node, ok := strings.CutPrefix(leases[i].Name, herald.SpeakerLeasePrefix)
		if !ok {
			continue
		}
		if spec.RenewTime == nil || spec.LeaseDurationSeconds == nil || ptr.Deref(spec.HolderIdentity, "") == "" {
			idle[node] = s.idle[node] + 1
			continue
		}
		r := renewal{written: spec.RenewTime.Time, seen: now, lasts: time.Duration(*spec.LeaseDurationSeconds) * time.Second}
		if before, known := s.renewals[node]; known && before.written.Equal(r.written) {
			r.seen = before.seen
		} else if s.renewals == nil && now.Sub(r.written).Abs() > 2*r.lasts {
			r.seen = time.Time{}
		}
		renewals[node] = r
		if !r.works(now) {
			idle[node] = s.idle[node] + 1
		}
	}
	s.renewals, s.idle, s.listed = renewals, idle, now
}

// silent returns the nodes whose speaker has ended, or does not reach the API server. One list is not enough, because a
// speaker that restarts releases its Lease for a moment, and after a failure of the API server all Leases are old.
func (s *speakers) silent() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	nodes := map[string]bool{}
	if time.Since(s.listed) > leasesForgotten {
		return nodes
	}
	for node, lists := range s.idle {
		if lists > 1 {
			nodes[node] = true
		}
	}
	return nodes
}

// The label is not "node", because Prometheus adds this label for the node of herald-ccm.
var nodeSpeakerUp = prometheus.NewDesc("herald_node_speaker_up",
	"1 if the speaker runs and reaches the API server, for each node that is expected to announce addresses.", []string{"speaker"}, nil)

// Describe implements prometheus.Collector.
func (s *speakers) Describe(descs chan<- *prometheus.Desc) { descs <- nodeSpeakerUp }

// Collect implements prometheus.Collector.
func (s *speakers) Collect(metrics chan<- prometheus.Metric) {
	s.mu.Lock()
	renewals, listed := s.renewals, s.listed
	s.mu.Unlock()
	if time.Since(listed) > leasesForgotten {
		return
	}
	for _, node := range s.announcers() {
		up := 0.0
		if renewals[node].works(listed) {
			up = 1
		}
		metrics <- prometheus.MustNewConstMetric(nodeSpeakerUp, prometheus.GaugeValue, up, node)
	}
}
