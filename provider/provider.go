// Package provider is the cloud behind Herald's cloud-controller-manager: it gives Services of type
// LoadBalancer their addresses.
//
// The stock service controller drives it. A Service comes in through EnsureLoadBalancer, is
// translated into an ipam.Request, gets its addresses from the ledger (the allocator in memory), has
// each of them recorded as an IPAllocation, and only then are they returned for its status. The
// records are the truth: the API server refuses a second record of one address, so whatever a stale
// cache or a second leader believes, an address has one owner. The ledger is an index over them,
// rebuilt before the first Service is served.
//
// Around that, in goroutines of their own:
//
//   - records: what the records say goes into the ledger, released addresses cool down and are freed;
//   - pools: what the IPPools say goes into the ledger, and their status and finalizer are kept true;
//   - waiting Services are served, oldest first, when an address may have become free;
//   - what the speakers report of address conflicts goes into the records and, if that is wanted, the pods of nodes that
//     are reported dead are marked not ready.
//
// All of them ask for a Service to be looked at again through one door, the projection: it hands the
// Service to the service controller's own queue. So that controller stays the only writer of a
// Service's status.
package provider

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/dynamic"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	cloudprovider "k8s.io/cloud-provider"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// Name is the provider's name in cloud-provider's registry and flags.
const Name = "herald"

// Config is what a Provider needs from its process.
type Config struct {
	Kube   kubernetes.Interface
	Herald *client.Set
	// Dynamic reads the SpeakerStatuses.
	Dynamic dynamic.Interface
	// Services is the cloud-controller-manager's shared informer. The Provider does not start it.
	Services coreinformers.ServiceInformer
	// Namespaces is from the same factory.
	Namespaces coreinformers.NamespaceInformer
	// Events takes events on Services and IPPools.
	Events record.EventRecorder
	// Class is the spec.loadBalancerClass that is served.
	Class string
	// Classless tells whether Services without a class are served too.
	Classless bool
	// Quota is what a namespace that says nothing of it may hold of all pools together.
	Quota ipam.Limits
	// MarkPodsOnDeadNodes has the pods of a node marked not ready when its neighbours have seen it die.
	MarkPodsOnDeadNodes bool
	// Metrics takes the pools' use; nil: it is not told.
	Metrics prometheus.Registerer
	Log     *zap.Logger
}

// Provider implements cloudprovider.Interface and, in loadbalancer.go, cloudprovider.LoadBalancer.
type Provider struct {
	class    string
	quota    ipam.Limits
	kube     kubernetes.Interface
	herald   *client.Set
	services corelisters.ServiceLister
	spaces   corelisters.NamespaceLister
	events   record.EventRecorder
	log      *zap.Logger

	metrics    *allocationMetrics
	ledger     *ledger
	projection *projection
	records    *records
	pools      *pools
	waiting    *waiting
	conflicts  *conflicts
	deadNodes  *deadNodes // nil if nothing is done about them
	reports    cache.SharedIndexInformer

	synced    []cache.InformerSynced
	informers []cache.SharedIndexInformer
}

// New wires a Provider. Nothing runs before Run.
func New(c Config) *Provider {
	p := &Provider{
		class: c.Class, quota: c.Quota, kube: c.Kube, herald: c.Herald, services: c.Services.Lister(), spaces: c.Namespaces.Lister(), events: c.Events, log: c.Log,
		ledger: newLedger(), metrics: newAllocationMetrics(),
	}
	p.projection = newProjection(c.Services, c.Class, c.Classless, p.ledger)
	p.waiting = newWaiting(p)
	p.records = newRecords(p, c.Herald.Allocations.Informer())
	p.projection.holds = p.records.holdsAny
	p.projection.gone = func(svc *corev1.Service) {
		p.waiting.forget(svc)
		p.records.serviceGone(svc)
	}
	p.reports = newReports(c.Dynamic)
	p.conflicts = newConflicts(p.reports, func(a netip.Addr) { p.records.queue.Add(herald.AllocationName(a)) })
	if c.MarkPodsOnDeadNodes {
		p.deadNodes = newDeadNodes(p, p.reports)
	}
	p.pools = newPools(p, c.Herald.Pools.Informer(), c.Herald.L2Advertisements.Informer(), c.Herald.BGPAdvertisements.Informer())
	if c.Metrics != nil {
		c.Metrics.MustRegister(poolCollector{pools: p.pools.names, ledger: p.ledger, quota: p.quotaOf}, p.metrics.duration, p.metrics.failures)
		if p.deadNodes != nil {
			c.Metrics.MustRegister(p.deadNodes.metrics.deaths, p.deadNodes.metrics.pods, p.deadNodes.metrics.refused)
		}
	}
	p.informers = []cache.SharedIndexInformer{p.records.informer, p.pools.informer, p.pools.l2, p.pools.bgp}
	// What pools choose Services by has changed.
	p.projection.relabelled = p.waiting.wake
	// Registration fails only on a stopped informer.
	_, _ = c.Namespaces.Informer().AddEventHandler(relabelled(p.waiting.wake))
	for _, i := range append([]cache.SharedIndexInformer{c.Services.Informer(), c.Namespaces.Informer()}, p.informers...) {
		_ = i.SetTransform(lean) // Fails only on a started informer.
		p.synced = append(p.synced, i.HasSynced)
	}
	return p
}

// lean takes from an object what nobody here looks at and is a good part of it: who set which field. The service
// controller keeps a second copy of each Service, and turns all of it into JSON twice for each of its patches.
func lean(o any) (any, error) {
	if m, ok := o.(metav1.Object); ok { // And not a tombstone.
		m.SetManagedFields(nil)
	}
	return o, nil
}

// relabelled calls back when a namespace appears, or what pools choose by or its quota changes.
func relabelled(call func()) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { call() },
		UpdateFunc: func(before, after any) {
			was, is := before.(metav1.Object), after.(metav1.Object)
			if !maps.Equal(was.GetLabels(), is.GetLabels()) || was.GetAnnotations()[herald.AnnotationQuota] != is.GetAnnotations()[herald.AnnotationQuota] {
				call()
			}
		},
	}
}

// request is what a Service asks for, as it is known here.
func (p *Provider) request(svc *corev1.Service) (ipam.Request, error) {
	namespace, err := p.spaces.Get(svc.Namespace)
	if err != nil {
		namespace = nil // A lister over memory fails only if it has none.
	}
	req, err := RequestOf(svc, namespace, p.quota)
	req.Leave = append(req.Leave, p.records.shunned(svc)...)
	return req, err
}

// quotaOf is what a namespace may hold of all pools together.
func (p *Provider) quotaOf(name string) ipam.Limits {
	namespace, err := p.spaces.Get(name)
	if err != nil {
		namespace = nil
	}
	// What is wrong with it is told to each Service that it concerns.
	limits, _, _ := quotaOf(namespace, p.quota)
	return limits
}

// Services is the informer for the service controller: see projection.
func (p *Provider) Services() coreinformers.ServiceInformer { return p.projection }

// Run serves until ctx ends. It calls serve, which is the service controller, once the ledger stands:
// no address is given out before every recorded one is known. It returns when everything it started
// has ended.
func (p *Provider) Run(ctx context.Context, serve func(context.Context)) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, i := range p.informers {
		g.Go(func() error { i.RunWithContext(ctx); return nil })
	}
	g.Go(func() error {
		if !cache.WaitForCacheSync(ctx.Done(), p.synced...) {
			return nil
		}
		start := time.Now()
		p.rebuild()
		p.log.Info("ledger rebuilt", zap.Int("addresses", p.ledger.size()), zap.Duration("took", time.Since(start)))
		g.Go(func() error { return p.records.run(ctx) })
		g.Go(func() error { return p.pools.run(ctx) })
		g.Go(func() error { return p.waiting.run(ctx) })
		// Services are served whether or not the SpeakerStatuses can be read.
		g.Go(func() error { p.reports.RunWithContext(ctx); return nil })
		g.Go(func() error {
			if cache.WaitForCacheSync(ctx.Done(), p.conflicts.received) {
				p.records.conflictsSynced()
			}
			return nil
		})
		if p.deadNodes != nil {
			g.Go(func() error { return p.deadNodes.run(ctx) })
		}
		p.projection.open()
		serve(ctx)
		return nil
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// rebuild makes the ledger from what the API server holds: the pools, the recorded addresses, and then
// those that Services carry in their status without a record (a restored backup, another load balancer
// before us), the oldest Service first, so that nothing new is given out over their heads.
func (p *Provider) rebuild() {
	p.pools.load()
	p.records.load()
	services, _ := p.services.List(labels.Everything()) // A lister over memory does not fail.
	for _, svc := range oldestFirst(services, func(svc *corev1.Service) bool {
		return p.projection.serves(svc) && len(svc.Status.LoadBalancer.Ingress) > 0
	}) {
		if req, err := translate(svc); err == nil {
			// A failure shows itself again, and is reported, when the Service is served.
			_ = p.ledger.adoptOnly(svc, req)
			if len(Carried(svc)) < len(req.Families) {
				p.waiting.add(svc) // It is content, and prefers a second family that no pool had.
			}
		}
	}
}

// Initialize is called by the app on becoming leader. There is nothing to do: Run does it.
func (p *Provider) Initialize(cloudprovider.ControllerClientBuilder, <-chan struct{}) {}

// LoadBalancer says that we have load balancers, which is all that we have.
func (p *Provider) LoadBalancer() (cloudprovider.LoadBalancer, bool) { return p, true }

// Instances is not supported: Herald knows nothing of machines.
func (p *Provider) Instances() (cloudprovider.Instances, bool) { return nil, false }

// InstancesV2 is not supported.
func (p *Provider) InstancesV2() (cloudprovider.InstancesV2, bool) { return nil, false }

// Zones is not supported.
func (p *Provider) Zones() (cloudprovider.Zones, bool) { return nil, false }

// Clusters is not supported.
func (p *Provider) Clusters() (cloudprovider.Clusters, bool) { return nil, false }

// Routes is not supported.
func (p *Provider) Routes() (cloudprovider.Routes, bool) { return nil, false }

// ProviderName returns Name.
func (p *Provider) ProviderName() string { return Name }

// HasClusterID is true: we need none.
func (p *Provider) HasClusterID() bool { return true }

var (
	_ cloudprovider.Interface    = (*Provider)(nil)
	_ cloudprovider.LoadBalancer = (*Provider)(nil)
)
