package provider

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
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
	"github.com/heraldlb/herald/provider/configuration"
)

// Config is the configuration of a Provider.
type Config struct {
	Kube   kubernetes.Interface
	Herald *client.Set
	// Dynamic reads the SpeakerStatuses.
	Dynamic dynamic.Interface
	// Services is the cloud-controller-manager's shared informer. The Provider does not start it.
	Services coreinformers.ServiceInformer
	// Namespaces is an informer of the same factory.
	Namespaces coreinformers.NamespaceInformer
	// Events receives the events on Services and Nodes.
	Events record.EventRecorder
	// Many receives the events of which there may be thousands at once. Its broadcaster has no other events, which would be dropped with
	// these.
	Many record.EventRecorder
	// Class is the spec.loadBalancerClass of the Services to serve.
	Class string
	// Classless says whether Services without a class are served as well.
	Classless bool
	// Quota limits the addresses of a namespace in all pools together, if the namespace sets no quota itself.
	Quota ipam.Limits
	// Namespace is the namespace of this process: of the speakers' Leases, and of IPAddressClaims.
	Namespace string
	// Foreign are the load balancers whose annotations are read as if they were Herald's.
	Foreign Foreign
	// MarkPodsOnDeadNodes says whether the pods of a node are marked as not ready when its neighbours have seen it die.
	MarkPodsOnDeadNodes bool
	// Metrics registers the metrics; nil means none.
	Metrics prometheus.Registerer
	Log     *zap.Logger
}

// Provider implements cloudprovider.Interface. It connects the parts of this package and starts them.
type Provider struct {
	log           *zap.Logger
	ledger        *ledger
	changes       *changes
	services      *services
	records       *records
	untold        *untold
	pools         *pools
	waiting       *waiting
	conflicts     *conflicts
	reconciler    *reconciler
	retries       *retries
	loadBalancers *loadBalancers
	projection    *projection
	assessor      *assessor
	deadNodes     *deadNodes // nil if dead nodes are ignored
	others        *others
	claims        *claims
	speakers      *speakers
	reports       cache.SharedIndexInformer

	synced    []cache.InformerSynced
	informers []cache.SharedIndexInformer
}

// New returns a Provider with informers of its own. Nothing runs before Run.
func New(c Config) *Provider {
	allocations, ippools := c.Herald.Allocations.Informer(), c.Herald.Pools.Informer()
	l2, bgp := c.Herald.L2Advertisements.Informer(), c.Herald.BGPAdvertisements.Informer()
	_ = allocations.AddIndexers(recordIndexers) // AddIndexers fails only for an index that already exists.
	p := wire(dependencies{
		class: c.Class, classless: c.Classless, quota: c.Quota,
		kube: c.Kube, services: c.Services, namespaces: c.Namespaces.Lister(),
		records: c.Herald.Allocations, recordCache: allocations.GetIndexer(),
		pools: c.Herald.Pools, poolCache: ippools.GetStore(),
		events: c.Events, many: c.Many, log: c.Log, dynamic: c.Dynamic, namespace: c.Namespace,
	})
	p.reports = newReports(c.Dynamic)
	p.conflicts.follow(p.reports)
	p.informers = []cache.SharedIndexInformer{allocations, ippools, l2, bgp}

	// AddEventHandler fails only for a stopped informer.
	_, _ = allocations.AddEventHandler(recordHandler(p.changes))
	_, _ = ippools.AddEventHandler(poolHandler(p.changes.edits))
	_, _ = c.Services.Informer().AddEventHandler(annotationHandler(p.services, c.Events))
	_, _ = c.Services.Informer().AddEventHandler(p.others.handler())
	_, _ = c.Namespaces.Informer().AddEventHandler(namespaceHandler(p.changes, p.records.namespaceGone))
	for _, i := range append([]cache.SharedIndexInformer{c.Services.Informer(), c.Namespaces.Informer()}, p.informers...) {
		_ = i.SetTransform(lean) // SetTransform fails only for a started informer.
		p.synced = append(p.synced, i.HasSynced)
	}
	_ = c.Services.Informer().SetTransform(leanService(c.Foreign)) // instead of lean
	p.assessor = newAssessor(c.Kube, c.Herald, watched{pools: ippools, l2: l2, bgp: bgp, reports: p.reports}, p.changes.usage.set, p.skip, c.Log)
	p.pools.assessed = p.assessor.pool
	p.speakers = &speakers{leases: c.Kube.CoordinationV1().Leases(c.Namespace), announcers: p.assessor.announcers, changed: p.assessor.changed.set, log: c.Log}
	p.assessor.silent = p.speakers.silent
	if c.MarkPodsOnDeadNodes {
		p.deadNodes = newDeadNodes(c.Kube, p.assessor.nodes, p.reports, c.Events, c.Log)
	}
	if c.Metrics != nil {
		metrics := p.loadBalancers.metrics
		c.Metrics.MustRegister(poolCollector{pools: p.pools.names, ledger: p.ledger, quota: p.loadBalancers.requests.quotaOf}, stateCollector{p.services, p.conflicts}, p.speakers, metrics.duration, metrics.failures)
		if p.deadNodes != nil {
			c.Metrics.MustRegister(p.deadNodes.metrics.deaths, p.deadNodes.metrics.pods, p.deadNodes.metrics.refused)
		}
	}
	return p
}

// dependencies are the external dependencies of the parts of a Provider.
type dependencies struct {
	class     string
	classless bool
	quota     ipam.Limits

	kube        kubernetes.Interface
	services    coreinformers.ServiceInformer
	namespaces  corelisters.NamespaceLister
	records     recordsAPI
	recordCache cache.Indexer
	pools       poolsAPI
	poolCache   cache.Store
	events      record.EventRecorder
	many        record.EventRecorder
	dynamic     dynamic.Interface
	namespace   string
	log         *zap.Logger
}

// wire connects the parts of a Provider.
func wire(d dependencies) *Provider {
	grants := &atomic.Pointer[Grants]{}
	grants.Store(&Grants{})
	ledger, changes, requests := newLedger(d.class), newChanges(), requests{d.namespaces, d.kube.CoreV1(), d.quota, grants}
	services := &services{cached: d.services.Lister(), api: d.kube.CoreV1(), class: d.class, classless: d.classless}
	records := &records{
		api: d.records, cache: d.recordCache, class: d.class, services: services, ledger: ledger, changes: changes, log: d.log,
	}
	untold := newUntold(services, ledger, d.many)
	pools := &pools{
		api: d.pools, cache: d.poolCache, services: services, records: records, ledger: ledger, changes: changes,
		untold: untold, log: d.log,
		invalid: map[types.UID]error{}, loaded: map[types.UID]int64{}, whys: map[string]string{},
		assessed: func(string) *configuration.PoolAssessment { return nil },
	}
	untold.why = pools.unannounced
	conflicts := newConflicts(ledger.recorded, func(a netip.Addr) { changes.record(a) })
	reconciler := &reconciler{
		records: records, services: services, requests: requests, ledger: ledger, conflicts: conflicts, changes: changes, events: d.events, log: d.log,
	}
	projection := newProjection(d.services, d.class, d.classless, ledger)
	waiting := &waiting{
		services: services, requests: requests, ledger: ledger, changes: changes,
		upToDate: projection.upToDate, gone: reconciler.serviceGone, uids: map[types.NamespacedName]types.UID{},
	}
	retries := newRetries(func(name types.NamespacedName) {
		if svc := services.named(name.Namespace, name.Name); svc != nil {
			projection.OnAdd(svc, false)
		}
	})
	claims := &claims{
		services: services, requests: requests, ledger: ledger, records: records, waiting: waiting, changes: changes,
		discovery: d.kube.Discovery(), dynamic: d.dynamic, namespace: d.namespace, class: d.class, grants: grants, log: d.log,
		told: map[types.UID]string{}, known: grants.Load(),
	}
	pools.granted = claims.condition
	metrics := newAllocationMetrics()
	loadBalancers := &loadBalancers{
		requests: requests, ledger: ledger, records: records, untold: untold, services: services, waiting: waiting, claims: claims, changes: changes,
		retries: retries, events: d.events, metrics: metrics, log: d.log,
	}
	projection.holds = ledger.hasOurs
	projection.relabelled = changes.capacity.set // Pools may select Services by the labels that changed.
	projection.gone = func(svc *corev1.Service) {
		waiting.forget(svc)
		reconciler.serviceGone(svc)
	}
	others := &others{
		services: services, requests: requests, ledger: ledger, records: records, untold: untold, waiting: waiting, changes: changes,
		events: d.events, metrics: metrics, log: d.log, queue: newQueue[types.NamespacedName](), told: map[types.NamespacedName]told{},
	}
	changes.serve = func(svc *corev1.Service) {
		if services.elsewhere(svc) {
			others.add(svc)
		} else {
			projection.requeue(svc)
		}
	}
	return &Provider{
		log: d.log, ledger: ledger, changes: changes, services: services, records: records, untold: untold, pools: pools, waiting: waiting,
		conflicts: conflicts, reconciler: reconciler, retries: retries, loadBalancers: loadBalancers, projection: projection, others: others,
		claims: claims,
	}
}

// recordHandler queues every changed record.
func recordHandler(c *changes) cache.ResourceEventHandler {
	look := func(o any) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o); err == nil {
			c.queue.Add(key)
		}
	}
	return cache.ResourceEventHandlerFuncs{AddFunc: look, UpdateFunc: func(_, o any) { look(o) }, DeleteFunc: look}
}

// namespaceHandler wakes the waiting Services when a namespace is created, or when its labels or its quota change. It calls
// gone for deleted namespaces.
func namespaceHandler(c *changes, gone func(name string)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { c.capacity.set() },
		UpdateFunc: func(before, after any) {
			was, is := before.(metav1.Object), after.(metav1.Object)
			if !maps.Equal(was.GetLabels(), is.GetLabels()) || was.GetAnnotations()[herald.AnnotationQuota] != is.GetAnnotations()[herald.AnnotationQuota] {
				c.capacity.set()
			}
		},
		DeleteFunc: func(o any) {
			if name, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o); err == nil {
				gone(name)
			}
		},
	}
}

// Services returns the informer for the service controller: see projection.
func (p *Provider) Services() coreinformers.ServiceInformer { return p.projection }

// Client returns the client for the service controller: see controllerClient.
func (p *Provider) Client(kube kubernetes.Interface) kubernetes.Interface {
	return controllerClient{kube, p.retries, p.projection.uid}
}

// Run serves until ctx ends. It calls serve, which runs the service controller, when the ledger is complete: no address
// is assigned before every recorded one is known. Run returns when everything that it started has ended.
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
		g.Go(func() error { return p.reconciler.run(ctx) })
		g.Go(func() error { return p.pools.run(ctx) })
		g.Go(func() error { return p.untold.run(ctx) })
		// Services are served even if the SpeakerStatuses cannot be read.
		g.Go(func() error { p.reports.RunWithContext(ctx); return nil })
		g.Go(func() error {
			if cache.WaitForCacheSync(ctx.Done(), p.conflicts.received) {
				p.reconciler.conflictsSynced()
			}
			return nil
		})
		g.Go(func() error { return p.assessor.run(ctx) })
		g.Go(func() error { return p.speakers.run(ctx) })
		if p.deadNodes != nil {
			g.Go(func() error { return p.deadNodes.run(ctx) })
		}
		p.assessor.await(ctx) // No Service gets an address before the first assessment, not even a waiting one.
		p.others.adopt(ctx)
		g.Go(func() error { return p.others.run(ctx) })
		g.Go(func() error { return p.waiting.run(ctx) })
		g.Go(func() error { return p.retries.run(ctx) })
		g.Go(func() error { return p.claims.run(ctx) })
		p.projection.open()
		serve(ctx)
		return nil
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// rebuild builds the ledger from the state of the API server: first the pools, then the recorded addresses, then the
// addresses that Services carry in their status without a record (after a restored backup, or a move from another load
// balancer). It adopts the latter in the order of the Services' age, the oldest first, so that nobody else gets them.
func (p *Provider) rebuild() {
	p.pools.load()
	p.records.load()
	for _, svc := range p.services.list() {
		carried := Carried(svc)
		if len(svc.Status.LoadBalancer.Ingress) == 0 {
			continue
		}
		if req, err := p.loadBalancers.requests.withoutQuota(svc); err == nil {
			_ = p.ledger.adopt(svc, req) // When the Service is served, the same error is reported.
			if len(carried) < wanted(req) {
				p.waiting.add(svc) // The Service is settled, and prefers a second family that no pool had.
			}
			if p.services.of(req.Owner) == nil {
				p.projection.gone(svc) // The Service was deleted in between, and gone was called before it had an address.
			}
		}
	}
}

// skip replaces the addresses that are never assigned. If an address is no longer among them, the waiting Services are
// tried again.
func (p *Provider) skip(all map[netip.Addr]string) {
	if p.ledger.skip(all) {
		p.changes.capacity.set()
	}
}

// Initialize is called when this process becomes the leader. It does nothing; Run does the work.
func (p *Provider) Initialize(cloudprovider.ControllerClientBuilder, <-chan struct{}) {}

// LoadBalancer returns the load balancers, the only part of the interface that is supported.
func (p *Provider) LoadBalancer() (cloudprovider.LoadBalancer, bool) { return p.loadBalancers, true }

// Instances is not supported: Herald does not manage machines.
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

// HasClusterID returns true, although Herald needs no cluster ID.
func (p *Provider) HasClusterID() bool { return true }
