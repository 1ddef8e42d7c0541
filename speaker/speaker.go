// Package speaker announces the addresses of Services from one node.
//
// It watches Services, their endpoints, the records of their addresses, nodes, pools and advertisements. Package announce,
// which is pure, decides how to announce each address, whether one Service has it or several share it. A decision that
// differs from the one before goes to the segments and to the routers. The segments agree with the other nodes on the
// owner of the address, and tell the responders for ARP and NDP:
//
//	informers → dirty set → Shared, Address → Decide → difference → ownership.Want → responder.Set
//	                                                             └→ bgp.Set
//
// A changed Service costs a decision about each of its addresses. A change of something that all decisions share costs one
// pass over all addresses, even if many such changes come together.
//
// One goroutine, the loop, owns the decisions. Around it run the segments, the watch of the node's kube-proxy, the
// watch of its interfaces, and the SpeakerStatus, which reports what this node does.
//
// Without the API server a speaker goes on with what it knows, and still takes over the addresses of nodes that die.
package speaker

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net/netip"
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
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/arp"
	"github.com/heraldlb/herald/speaker/bfd"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/link"
	"github.com/heraldlb/herald/speaker/ndp"
	"github.com/heraldlb/herald/speaker/responder"
	"github.com/heraldlb/herald/speaker/segment"
)

// Config is what a Speaker needs from its process.
type Config struct {
	Kube   kubernetes.Interface
	Herald *client.Set
	// Events records events on Herald's resources.
	Events record.EventRecorder
	// Node is the name of this node.
	Node string
	// Pod is the name of the speaker's own pod in Namespace; empty if the speaker does not run in a pod.
	Pod string
	// Namespace is Herald's own namespace, with the speakers' Leases and pods.
	Namespace string
	// PeersNamespace is the namespace of the Secrets with the passwords of BGPPeers.
	PeersNamespace string
	// Boot is a random number that is new at every start. Key signs the frames that this process sends on segments.
	Boot uint64
	Key  ed25519.PrivateKey
	// Refresh is the time between two unsolicited announcements of an address; 0: there are none after the first ones.
	Refresh time.Duration
	// L2Only turns BGP off: BGPPeers, BGPAdvertisements and Secrets are not read, and there are no sessions.
	L2Only bool
	// KubeProxyHealth is the URL that tells whether the node's kube-proxy serves; empty: it counts as always serving.
	KubeProxyHealth string
	// KubeProxyMetrics is the URL of the metrics that tell when the node's kube-proxy has written its rules; empty: no address
	// waits for kube-proxy.
	KubeProxyMetrics string
	Metrics          prometheus.Registerer
	Log              *zap.Logger
}

// Speaker is the speaker of one node.
type Speaker struct {
	config Config
	log    *zap.Logger

	inputs   *inputs
	links    *link.Watcher
	arp, ndp *responder.Responder
	bgp      *bgp.Speaker
	paths    *bfd.Speaker

	loop       *loop
	segments   *segments
	identities *identities
	status     *statusWriter
	health     *proxyHealth
	forwarding *forwarding
	handovers  *handovers
	lease      *lease

	calls chan func(*loop) // functions that the loop calls

	ready  atomic.Bool
	began  time.Time
	turned atomic.Int64 // when the loop last completed an iteration, in nanoseconds since began; 0 before it runs
}

// New wires a Speaker. Nothing runs before Run.
func New(c Config) (*Speaker, error) {
	s := &Speaker{config: c, log: c.Log, began: time.Now(), links: link.Watch(c.Log.Named("link")), bgp: bgp.New(c.Log.Named("bgp")), calls: make(chan func(*loop))}
	in, err := newInputs(c.Kube, c.Herald, c.Node, c.PeersNamespace, c.L2Only)
	if err != nil {
		return nil, err
	}
	s.inputs = in
	s.paths = newPaths(c.Log.Named("bfd"), s.bgp)
	s.forwarding = newForwarding(c.KubeProxyMetrics, c.Log.Named("kube-proxy"), func(addrs []netip.Addr) {
		s.segments.release(addrs)
		s.inputs.touch(addrs...)
	})
	s.handovers = newHandovers(func(ctx context.Context, address netip.Addr, node string, said answer, asked time.Time) {
		select {
		case s.calls <- func(l *loop) {
			l.deliveries.answered(address, node, said, asked)
			l.deliveries.fresh.await(time.Now())
		}:
		case <-ctx.Done():
		}
	})
	s.health = newProxyHealth(c.KubeProxyHealth, c.KubeProxyMetrics, c.Log.Named("kube-proxy"), in.touchAll)
	s.lease = &lease{
		leases: c.Kube.CoordinationV1().Leases(c.Namespace), node: c.Node, owner: s.owner, log: c.Log.Named("lease"),
		changed: func(bool) { in.touchAll() },
	}
	s.identities = newIdentities(c.Herald, s.lease, c.Node, s.exists, c.Log.Named("identities"))
	s.segments = newSegments(segment.Config{Node: c.Node, Boot: c.Boot, Key: c.Key}, c.Log.Named("segment"), s.identities, in.touchAll)
	s.segments.waits = s.forwarding.isWaiting
	s.identities.segments, s.identities.joined = s.segments.list, s.segments.joined
	options := responder.Options{
		Refresh: c.Refresh, Silent: s.segments.mustNotSend, Sibling: s.segments.sibling, Conflict: s.segments.conflict,
	}
	if c.Refresh == 0 {
		options.Refresh = -1
	}
	s.arp = responder.New(c.Log.Named("arp"), arp.Protocol{}, options)
	s.ndp = responder.New(c.Log.Named("ndp"), ndp.Protocol{}, options)
	s.segments.arp, s.segments.ndp = s.arp, s.ndp
	s.status = newStatusWriter(c.Herald.SpeakerStatuses, c.Node, s.owner, c.Log.Named("status"))
	s.loop = newLoop(s)
	if c.Metrics != nil {
		c.Metrics.MustRegister(s.loop, s.health, responders{s.arp, s.ndp}, segmentCollector{s.segments}, bgpCollector{s.bgp}, pathCollector{s.paths}, s.forwarding)
	}
	return s, nil
}

// Ready reports whether the speaker has made its first decisions.
func (s *Speaker) Ready() bool { return s.ready.Load() }

// Healthy reports whether the loop makes progress. A stuck loop would go on announcing old decisions, so the process should
// be restarted.
func (s *Speaker) Healthy() bool {
	turned := s.turned.Load()
	return turned == 0 || time.Since(s.began)-time.Duration(turned) < turnMissing
}

// Run announces until ctx ends. Then it withdraws everything, unless another speaker will follow on this node: then it
// leaves everything in place for that speaker. Run returns when all goroutines that it started have ended.
func (s *Speaker) Run(ctx context.Context) error {
	told := ctx
	ctx, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	defer context.AfterFunc(told, func() {
		cause := s.farewell()
		if cause == nil {
			s.drain(ctx)
		}
		end(cause)
	})()
	g, ctx := errgroup.WithContext(ctx)
	synced := make(chan struct{})
	g.Go(func() error { return s.inputs.run(ctx, func() { close(synced) }) })
	g.Go(func() error { return s.links.Run(ctx) })
	g.Go(func() error { return s.health.run(ctx) })
	g.Go(func() error { return s.forwarding.run(ctx) })
	g.Go(func() error { return s.handovers.run(ctx) })
	g.Go(func() error { return s.announce(ctx, synced) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// announce runs the parts that must start and end in a certain order. The other speakers must know the key before this
// node sends anything on a segment. The responders must run until this node has left the segments. The Lease is given up
// immediately after that, and not before: a speaker that hears no other expects one on every node that has a Lease.
func (s *Speaker) announce(ctx context.Context, synced <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-synced:
	}
	if err := s.awaitInterfaces(ctx); err != nil {
		return err
	}
	first := herald.SpeakerStatusStatus{Identity: identityFor(s.config), Interfaces: reportInterfaces(s.links.Interfaces(), nil)}
	fit(&first)
	if err := s.status.first(ctx, first); err != nil {
		return err
	}
	// Deputies and routers keep what the predecessor announced, until this speaker says otherwise.
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.health.known:
	}
	s.segments.config.Cluster = s.cluster()
	g, ctx := errgroup.WithContext(ctx)
	s.segments.ctx = ctx
	responding, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	joined, left := context.WithCancel(context.WithoutCancel(ctx))
	defer left()
	s.segments.whenLeft = left
	g.Go(func() error {
		s.lease.run(joined)
		return nil
	})
	g.Go(func() error { return s.arp.Run(responding) })
	g.Go(func() error { return s.ndp.Run(responding) })
	watching, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	g.Go(func() error {
		defer leave() // BGP ends first. Otherwise routers would take the end of BFD for a failure, and drop the routes that they keep over a restart.
		return s.bgp.Run(ctx)
	})
	g.Go(func() error { return s.paths.Run(watching) })
	g.Go(func() error { return s.identities.run(ctx) })
	g.Go(func() error {
		defer stop()
		return s.loop.run(ctx) // The loop leaves the segments when it ends.
	})
	g.Go(func() error { return s.status.run(ctx) })
	return g.Wait()
}

// awaitInterfaces returns when the watch has seen the machine's interfaces. A status that is written earlier would tell the
// other speakers that this node is on no segment.
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

// owner returns the owner reference of the objects that this speaker writes, so that they are deleted with the Node.
func (s *Speaker) owner() []metav1.OwnerReference {
	o, exists, err := s.inputs.nodes.GetStore().GetByKey(s.config.Node)
	if err != nil || !exists {
		return nil
	}
	return []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: s.config.Node, UID: o.(*corev1.Node).UID}}
}

// cluster returns the identifier that distinguishes this cluster from others on a segment: the UID of the namespace
// kube-system, which every cluster has.
func (s *Speaker) cluster() string {
	o, exists, err := s.inputs.namespaces.GetStore().GetByKey(metav1.NamespaceSystem)
	if err != nil || !exists {
		return ""
	}
	return string(o.(*corev1.Namespace).UID)
}

// exists reports whether the API has a node of that name.
func (s *Speaker) exists(node string) bool {
	_, exists, err := s.inputs.nodes.GetStore().GetByKey(node)
	return err == nil && exists
}
