package provider

import (
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	coreinformers "k8s.io/client-go/informers/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	servicehelper "k8s.io/cloud-provider/service/helpers"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// projection is the Service informer that the service controller sees. The stock controller serves every Service
// without a class and none with a class. Through the projection it sees only our Services, and without their class.
// The projection also saves the controller requests: see project.
//
// The projection relies on four properties of the controller, which tests check: it uses the informer through its
// interface, it queues the objects that its handler gets, it reads Services from the lister by key, and it writes only
// the difference to what it has read.
type projection struct {
	real      coreinformers.ServiceInformer
	class     string
	classless bool
	ledger    *ledger
	// holds reports whether a Service has an address of ours.
	holds func(*corev1.Service) bool
	// relabelled is called when the labels of a Service that is or was ours change.
	relabelled func()
	// gone is called with every deleted Service.
	gone func(*corev1.Service)

	// handler is the handler of the service controller, registered before anything runs.
	handler cache.ResourceEventHandler
	// opened is true when the ledger is complete. Before that the handler gets nothing, so that no Service is synced
	// that needs no change.
	opened atomic.Bool

	mu sync.Mutex
	// uids has the UID of each Service that the controller has read and that is not gone.
	uids map[types.NamespacedName]types.UID
}

func newProjection(real coreinformers.ServiceInformer, class string, classless bool, l *ledger) *projection {
	return &projection{real: real, class: class, classless: classless, ledger: l, uids: map[types.NamespacedName]types.UID{}}
}

// serves reports whether a Service is of type LoadBalancer and of our class.
func (p *projection) serves(svc *corev1.Service) bool {
	return Serves(svc, p.class, p.classless)
}

// ours reports whether the service controller must see a Service: one that we serve, or one that we served and must
// clean up. A Service that became another type has lost its class as well. It is ours if it holds an address of ours,
// or if it has the finalizer and no other class holds an address for it. If we serve no Services without a class, another
// controller may have served it, so the finalizer must be one that we wrote.
func (p *projection) ours(svc *corev1.Service) bool {
	if svc.Spec.Type == corev1.ServiceTypeLoadBalancer {
		return p.serves(svc) && !p.cleaned(svc)
	}
	return p.holds(svc) || formerlyServed(svc) && !p.ledger.hasForeign(svc) && (p.classless || wroteFinalizer(svc))
}

// cleaned reports whether a Service is being deleted and has nothing of ours any more. Another finalizer keeps it, and
// for the controller it is gone.
func (p *projection) cleaned(svc *corev1.Service) bool {
	return svc.DeletionTimestamp != nil && !servicehelper.HasLBFinalizer(svc) && !p.holds(svc)
}

// upToDate reports whether a sync of the Service would change nothing.
func (p *projection) upToDate(svc *corev1.Service) bool {
	if svc.DeletionTimestamp != nil || !p.serves(svc) || !servicehelper.HasLBFinalizer(svc) {
		return false
	}
	req, err := translate(svc)
	if err != nil {
		return false
	}
	held, ok := p.ledger.settled(req, ownerEntry(svc))
	return ok && servicehelper.LoadBalancerStatusEqual(&svc.Status.LoadBalancer, status(held))
}

// project returns the Service that the service controller sees. The original is not changed. A Service that we serve
// has no class. There are two further differences:
//
//   - A Service without an address and without the finalizer is shown with the finalizer, so that the controller does
//     not write the finalizer before the addresses: Client writes both at once. A Service that waits for an address is
//     not written at all, and can be deleted at once.
//   - A Service that will be gone as soon as our finalizer is removed is shown without addresses, so that the
//     controller does not remove them from the status of a Service that is gone.
func (p *projection) project(svc *corev1.Service) *corev1.Service {
	if !p.serves(svc) {
		return svc
	}
	c := *svc
	c.Spec.LoadBalancerClass = nil
	switch finalized := servicehelper.HasLBFinalizer(svc); {
	case !finalized && len(svc.Status.LoadBalancer.Ingress) == 0:
		c.Finalizers = append(slices.Clone(svc.Finalizers), servicehelper.LoadBalancerCleanupFinalizer)
	case finalized && svc.DeletionTimestamp != nil && len(svc.Finalizers) == 1:
		c.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	}
	return &c
}

// part returns the fields of a Service that the service controller reads. The controller keeps what it reads, and hands it to
// loadBalancers, which take the other fields from the cache. If the Service is gone, they need only its reclaim policy.
func (p *projection) part(svc *corev1.Service) *corev1.Service {
	svc = p.project(svc)
	part := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: svc.Namespace, Name: svc.Name, UID: svc.UID, ResourceVersion: svc.ResourceVersion,
			DeletionTimestamp: svc.DeletionTimestamp, Finalizers: svc.Finalizers,
		},
		Spec:   corev1.ServiceSpec{Type: svc.Spec.Type, LoadBalancerClass: svc.Spec.LoadBalancerClass},
		Status: corev1.ServiceStatus{LoadBalancer: svc.Status.LoadBalancer},
	}
	if said, set := svc.Annotations[herald.AnnotationReclaim]; set {
		part.Annotations = map[string]string{herald.AnnotationReclaim: said}
	}
	return part
}

// requeue makes the service controller sync a Service again. It is the only way to do so: whatever happens to
// addresses and pools, only the service controller writes Services.
func (p *projection) requeue(svc *corev1.Service) {
	if p.opened.Load() {
		p.handler.OnAdd(p.project(svc), false)
	}
}

// open passes every Service that needs a change to the controller, and from then on every change.
func (p *projection) open() {
	p.opened.Store(true)
	for _, o := range p.real.Informer().GetStore().List() {
		p.OnAdd(o, true)
	}
}

// OnAdd passes on a Service that needs a change.
func (p *projection) OnAdd(o any, initial bool) {
	svc := o.(*corev1.Service)
	if p.opened.Load() && p.ours(svc) && !p.upToDate(svc) {
		p.handler.OnAdd(p.project(svc), initial)
	}
}

// OnUpdate passes on changes of a Service that is or was ours. The controller itself ignores changes of the status,
// the IP family policy and selectors. A Service with such a change is passed on as a new one.
func (p *projection) OnUpdate(oldObj, newObj any) {
	was, is := oldObj.(*corev1.Service), newObj.(*corev1.Service)
	if was.UID != is.UID { // The informer missed the deletion in between.
		p.OnDelete(was)
		p.OnAdd(is, false)
		return
	}
	if !p.opened.Load() || was.ResourceVersion == is.ResourceVersion || !p.ours(was) && !p.ours(is) {
		return
	}
	if p.disturbed(was, is) || p.serves(is) && (!reflect.DeepEqual(was.Spec.IPFamilyPolicy, is.Spec.IPFamilyPolicy) || !sharing(was).Equal(sharing(is))) {
		p.requeue(is)
	}
	if !maps.Equal(was.Labels, is.Labels) {
		p.relabelled()
	}
	if !p.upToDate(is) { // The controller would sync it after any change of its annotations.
		p.handler.OnUpdate(p.project(was), p.project(is))
	}
}

// disturbed reports whether somebody removed the finalizer, or wrote a status that is not the one the Service must
// have. The controller itself writes the right status.
func (p *projection) disturbed(was, is *corev1.Service) bool {
	written := !servicehelper.LoadBalancerStatusEqual(&was.Status.LoadBalancer, &is.Status.LoadBalancer) ||
		servicehelper.HasLBFinalizer(was) && !servicehelper.HasLBFinalizer(is)
	return written && p.serves(is) && is.DeletionTimestamp == nil && !p.upToDate(is)
}

// OnDelete queues the addresses of a deleted Service. The controller does not need this, because it acts on the deletion
// timestamp. A Service without finalizers never had such a timestamp; the controller forgets it when it finds that the
// Service is gone.
func (p *projection) OnDelete(o any) {
	if tombstone, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = tombstone.Obj
	}
	if svc, ok := o.(*corev1.Service); ok {
		p.forget(svc)
		p.gone(svc)
		if p.serves(svc) {
			p.requeue(svc)
		}
	}
}

// uid returns the UID of the Service that the controller has read last under a name; empty if that one is gone.
func (p *projection) uid(svc types.NamespacedName) types.UID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.uids[svc]
}

func (p *projection) forget(svc *corev1.Service) {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}
	if p.uids[name] == svc.UID { // The controller may have read another Service of the same name.
		delete(p.uids, name)
	}
}

// Informer returns the informer with which the service controller registers its handler.
func (p *projection) Informer() cache.SharedIndexInformer {
	return projectedInformer{p.real.Informer(), p}
}

// Lister returns a lister of the projected Services.
func (p *projection) Lister() corelisters.ServiceLister {
	return projectedLister{p.real.Lister(), p}
}

type projectedInformer struct {
	cache.SharedIndexInformer
	p *projection
}

// AddEventHandlerWithResyncPeriod stores the handler of the controller. There is no resync, which would compare every
// Service with itself twice a minute.
func (i projectedInformer) AddEventHandlerWithResyncPeriod(h cache.ResourceEventHandler, _ time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	i.p.handler = h
	return i.SharedIndexInformer.AddEventHandler(i.p)
}

type projectedLister struct {
	corelisters.ServiceLister
	p *projection
}

func (l projectedLister) List(s labels.Selector) ([]*corev1.Service, error) {
	return l.all(l.ServiceLister.List(s))
}

func (l projectedLister) Services(namespace string) corelisters.ServiceNamespaceLister {
	return projectedNamespace{l.ServiceLister.Services(namespace), l}
}

func (l projectedLister) all(services []*corev1.Service, err error) ([]*corev1.Service, error) {
	projected := make([]*corev1.Service, 0, len(services))
	for _, svc := range services {
		projected = append(projected, l.p.part(svc))
	}
	return projected, err
}

type projectedNamespace struct {
	corelisters.ServiceNamespaceLister
	l projectedLister
}

func (n projectedNamespace) List(s labels.Selector) ([]*corev1.Service, error) {
	return n.l.all(n.ServiceNamespaceLister.List(s))
}

// Get finds no Service of another class. The controller would take its addresses and its finalizer for leftovers, and remove
// them. The controller asks for such a Service if an earlier one of the same name waits in its queue, or if the Service was
// ours and changed again before the controller looked.
func (n projectedNamespace) Get(name string) (*corev1.Service, error) {
	svc, err := n.ServiceNamespaceLister.Get(name)
	if err != nil {
		return nil, err
	}
	p := n.l.p
	if p.cleaned(svc) || svc.Spec.Type == corev1.ServiceTypeLoadBalancer && !p.serves(svc) {
		return nil, apierrors.NewNotFound(corev1.Resource("services"), name)
	}
	p.mu.Lock()
	p.uids[types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}] = svc.UID
	p.mu.Unlock()
	if now, err := n.ServiceNamespaceLister.Get(name); err != nil || now.UID != svc.UID {
		p.forget(svc) // It was deleted after it was read, and OnDelete may have found nothing to forget.
	}
	return p.part(svc), nil
}

// oneNode is the Node informer that the service controller sees. It has one node, which never changes. Herald's
// Services do not depend on the nodes. When nodes change, the controller would otherwise read all Services without
// synchronization. It keeps a list of nodes for the name of each Service forever; here each list has one node.
type oneNode struct{}

// OneNode returns an informer that hides the nodes from the service controller. It has one node, because without nodes
// the controller writes a warning for every Service.
func OneNode() coreinformers.NodeInformer { return oneNode{} }

func (oneNode) Informer() cache.SharedIndexInformer { return silentInformer{} }

func (oneNode) Lister() corelisters.NodeLister {
	nodes := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	_ = nodes.Add(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "any"}}) // Add fails only if it cannot compute a key.
	return corelisters.NewNodeLister(nodes)
}

// silentInformer has the two methods of an informer that the service controller calls.
type silentInformer struct{ cache.SharedIndexInformer }

// AddEventHandlerWithResyncPeriod ignores the handler.
func (silentInformer) AddEventHandlerWithResyncPeriod(cache.ResourceEventHandler, time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return nil, nil
}

// HasSynced returns true, because there is nothing to wait for.
func (silentInformer) HasSynced() bool { return true }
