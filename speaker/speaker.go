// Package speaker announces the addresses of Services from one node.
//
// It watches Services, their endpoints, the records of their addresses, nodes, pools, advertisements
// and the other speakers, and asks Decide, which is pure, what this node announces of each address, be it
// of one Service or of several that share it. What differs from before goes to the announcers: package arp
// on the segment, package bgp to the routers. A changed Service costs a decision about each of its
// addresses; a change of what all decisions share costs one pass over all addresses, however many changes
// came together.
//
//	informers → dirty set → Shared, Address → Decide → difference → arp.Set, bgp.Set
//
// One goroutine, the loop, owns the decisions. Around it run the Lease that says this speaker is alive,
// the watch of the node's kube-proxy, the watch of its interfaces, and the SpeakerStatus that tells
// people, and the other speakers, what this node does.
//
// Without the API server a speaker goes on with what it knows.
package speaker

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"

	"github.com/heraldlb/herald/api/client"
	"github.com/heraldlb/herald/speaker/arp"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/link"
)

// Config is what a Speaker needs from its process.
type Config struct {
	Kube   kubernetes.Interface
	Herald *client.Set
	// Reconnect, if it is set, drops the connections to the API server, so that the next request makes
	// new ones. Those of before a loss of the network may hang for long after it.
	Reconnect func()
	// Events takes events on Herald's resources.
	Events record.EventRecorder
	// Node is the name of the node that this is.
	Node string
	// Pod is the speaker's own, in Herald's namespace; empty if it runs in none.
	Pod string
	// Namespace is Herald's own: of the speakers' Leases and the peers' Secrets.
	Namespace string
	// LeaseDuration is how long the other speakers count on this one without a sign of life. The Lease is
	// renewed three times in it.
	LeaseDuration time.Duration
	// L2Only: BGPPeers, BGPAdvertisements and Secrets are not read, and there are no sessions.
	L2Only bool
	// KubeProxyHealth is the URL that tells whether the node's kube-proxy serves; empty: it always does.
	KubeProxyHealth string
	Metrics         prometheus.Registerer
	Log             *zap.Logger
}

// Speaker is the speaker of one node.
type Speaker struct {
	config Config
	log    *zap.Logger

	inputs atomic.Pointer[inputs] // the loop's, which replaces them after an absence; see in
	links  *link.Watcher
	arp    *arp.Responder
	bgp    *bgp.Speaker

	loop   *loop
	status *statusWriter
	health *proxyHealth
	lease  *lease

	ready atomic.Bool
	// announcing tells that the loop's last pass was made for a node that may announce.
	announcing atomic.Bool
	began      time.Time
	turned     atomic.Int64 // when the loop last came round, in nanoseconds since it began; 0 before it runs
}

// New wires a Speaker. Nothing runs before Run.
func New(c Config) (*Speaker, error) {
	s := &Speaker{config: c, log: c.Log, began: time.Now(), links: link.Watch(c.Log.Named("link")), bgp: bgp.New(c.Log.Named("bgp"))}
	s.arp = arp.New(c.Log.Named("arp"), arp.Options{Silent: s.stalled})
	s.announcing.Store(true) // Until the first pass says otherwise, the Lease stays as it is.
	s.health = newProxyHealth(c.KubeProxyHealth, c.Log.Named("kube-proxy"), func() { s.in().touchAll() })
	s.lease = &lease{
		leases: c.Kube.CoordinationV1().Leases(c.Namespace), node: c.Node, owner: s.owner, duration: c.LeaseDuration, log: c.Log.Named("lease"),
	}
	s.status = newStatusWriter(c.Herald, c.Node, s.owner, c.Log.Named("status"))
	in, err := s.newInputs()
	if err != nil {
		return nil, err
	}
	s.inputs.Store(in)
	s.loop = newLoop(s)
	if c.Metrics != nil {
		c.Metrics.MustRegister(s.loop, arpCollector{s.arp}, bgpCollector{s.bgp})
	}
	return s, nil
}

// Ready reports whether the speaker has made its first decisions.
func (s *Speaker) Ready() bool { return s.ready.Load() }

// Healthy reports whether the loop comes round. One that is stuck would go on announcing what it once
// decided, so the node gives up its Lease, and the process is to be restarted.
func (s *Speaker) Healthy() bool { return s.sinceTurn() < turnMissing }

// stalled reports whether the loop has not come round for so long that what it decided may be out of
// date: the process was frozen, and others may have been given its addresses.
func (s *Speaker) stalled() bool { return s.sinceTurn() > nap(s.config.LeaseDuration) }

// sinceTurn is how long ago the loop came round; 0 before it runs.
func (s *Speaker) sinceTurn() time.Duration {
	turned := s.turned.Load()
	if turned == 0 {
		return 0
	}
	return time.Since(s.began) - time.Duration(turned)
}

// in is what the speaker watches now.
func (s *Speaker) in() *inputs { return s.inputs.Load() }

func (s *Speaker) newInputs() (*inputs, error) {
	return newInputs(s.config.Kube, s.config.Herald, s.config.Namespace, s.config.L2Only, s.status.observe)
}

// Run announces until ctx ends. Then everything is withdrawn, first on the wire and then, by the
// Lease, before the other speakers, unless a successor is to find everything as it was. Run returns when
// all that it started has ended.
func (s *Speaker) Run(ctx context.Context) error {
	told := ctx
	ctx, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer context.AfterFunc(told, func() { end(s.farewell()) })()
	g, ctx := errgroup.WithContext(ctx)
	s.in().start(ctx)
	defer func() { s.in().stop() }()
	g.Go(func() error { return s.links.Run(ctx) })
	g.Go(func() error { return s.health.run(ctx) })
	g.Go(func() error { return s.announce(ctx) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// announce runs what has an order at both ends. The Lease is begun when this node can be counted on, and
// given up when it is silent, or left to the successor.
func (s *Speaker) announce(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.in().synced:
	}
	if err := s.awaitInterfaces(ctx); err != nil {
		return err
	}
	if err := s.lease.takeOver(ctx, s.in().lease(leasePrefix+s.config.Node)); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.lease.run(ctx, func() bool { return s.Healthy() && s.announcing.Load() }) })
	g.Go(func() error { return s.arp.Run(ctx) })
	g.Go(func() error { return s.bgp.Run(ctx) })
	g.Go(func() error { return s.loop.run(ctx) })
	g.Go(func() error { return s.status.run(ctx) })
	err := g.Wait()
	if errors.Is(context.Cause(ctx), bgp.ErrRestart) && s.Healthy() && s.announcing.Load() {
		s.lease.leave()
	} else {
		s.lease.release()
	}
	return err
}

// awaitInterfaces returns when the watch has seen the interfaces that there are. A status written before
// would tell the others that this node is on no segment.
func (s *Speaker) awaitInterfaces(ctx context.Context) error {
	there, err := link.List()
	if err != nil {
		return err
	}
	for len(there) > 0 && len(s.links.Interfaces()) == 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.links.Changed():
		}
	}
	return nil
}

// owner makes what this speaker writes of its node go when the node goes.
func (s *Speaker) owner() []metav1.OwnerReference {
	o, exists, err := s.in().nodes.GetStore().GetByKey(s.config.Node)
	if err != nil || !exists {
		return nil
	}
	return []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: s.config.Node, UID: o.(*corev1.Node).UID}}
}
