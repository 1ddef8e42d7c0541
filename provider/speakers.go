package provider

import (
	"context"
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

// Lapsed reports whether the holder of a Lease gave it up, or has not renewed it for so long that it cannot be a matter of
// clocks that differ.
func Lapsed(l *coordinationv1.Lease, now time.Time) bool {
	if l.Spec.RenewTime == nil || l.Spec.LeaseDurationSeconds == nil {
		return false
	}
	return ptr.Deref(l.Spec.HolderIdentity, "") == "" || now.Sub(l.Spec.RenewTime.Time) > 2*time.Duration(*l.Spec.LeaseDurationSeconds)*time.Second
}

// speakers tells Prometheus of each node that is to announce addresses whether its speaker works. The Leases tell that: a
// SpeakerStatus stays when its speaker ends, and Prometheus itself does not know of a pod that was never made.
type speakers struct {
	leases     typedcoordinationv1.LeaseInterface
	announcers func() []string // the nodes that are to announce addresses
	log        *zap.Logger

	mu      sync.Mutex
	working map[string]bool // by node, as of the last list; nil before the first
}

// leasesPeriod is how often the Leases are listed. They are not watched: each is renewed every 10 s.
const leasesPeriod = 30 * time.Second

// run lists the Leases until ctx ends. While that fails, what is known stays: it tells nothing about the speakers.
func (s *speakers) run(ctx context.Context) error {
	ticker := time.NewTicker(leasesPeriod)
	defer ticker.Stop()
	for {
		if err := s.list(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("the Leases of the speakers are not known, so the metric herald_node_speaker_up is missing or old: trying again", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func (s *speakers) list(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leasesPeriod)
	defer cancel()
	list, err := s.leases.List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return err
	}
	now, working := time.Now(), map[string]bool{}
	for i := range list.Items {
		l := &list.Items[i]
		if node, ok := strings.CutPrefix(l.Name, herald.SpeakerLeasePrefix); ok && !Lapsed(l, now) {
			working[node] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.working = working
	return nil
}

// The label is not "node": that is the node of herald-ccm, which Prometheus adds.
var nodeSpeakerUp = prometheus.NewDesc("herald_node_speaker_up",
	"1 if the speaker runs and reaches the API server, for each node that is expected to announce addresses.", []string{"speaker"}, nil)

// Describe implements prometheus.Collector.
func (s *speakers) Describe(descs chan<- *prometheus.Desc) { descs <- nodeSpeakerUp }

// Collect implements prometheus.Collector.
func (s *speakers) Collect(metrics chan<- prometheus.Metric) {
	s.mu.Lock()
	working := s.working
	s.mu.Unlock()
	if working == nil {
		return
	}
	for _, node := range s.announcers() {
		up := 0.0
		if working[node] {
			up = 1
		}
		metrics <- prometheus.MustNewConstMetric(nodeSpeakerUp, prometheus.GaugeValue, up, node)
	}
}
