package provider

import (
	"maps"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	coreinformers "k8s.io/client-go/informers/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	servicehelper "k8s.io/cloud-provider/service/helpers"
)

// projection is the Service informer as the service controller sees it. The stock controller serves
// every Service without a class and none with one; through the projection it sees ours without their
// class, and no others. What it sees also saves it requests: see project.
//
// It rests on four things that the controller does, which tests hold: it takes the informer by
// interface, it queues what its handler is told, it reads Services from the lister by key, and it writes only
// what differs from what it has read.
type projection struct {
	real      coreinformers.ServiceInformer
	class     string
	classless bool
	ledger    *ledger
	// holds tells whether a Service has an address of ours.
	holds func(*corev1.Service) bool
	// relabelled is told that the labels of some Service changed.
	relabelled func()
	// gone is told of every deleted Service.
	gone func(*corev1.Service)

	// handler is the service controller's, registered before anything runs.
	handler cache.ResourceEventHandler
	// opened tells that the ledger stands. Until then the handler is told nothing: a Service that
	// needs nothing must not be taken for one that does.
	opened atomic.Bool
}

func newProjection(real coreinformers.ServiceInformer, class string, classless bool, l *ledger) *projection {
	return &projection{real: real, class: class, classless: classless, ledger: l}
}

// serves reports whether a Service is of type LoadBalancer and of our class.
func (p *projection) serves(svc *corev1.Service) bool {
	return Serves(svc, p.class, p.classless)
}

// ours reports whether a Service is the service controller's business: one that we serve, or one that
// we served and that has to be cleaned up after. A Service that became another type has lost its class
// with it, so what tells is that it holds an address of ours, or that it has the finalizer where we serve Services
// without a class and no other class holds an address for it.
func (p *projection) ours(svc *corev1.Service) bool {
	if svc.Spec.Type == corev1.ServiceTypeLoadBalancer {
		return p.serves(svc) && !p.cleaned(svc)
	}
	return p.holds(svc) || p.classless && servicehelper.HasLBFinalizer(svc) && !p.ledger.hasForeign(svc)
}

// cleaned reports whether a Service is being deleted and has nothing of ours any more. Another finalizer keeps it; for
// the controller it is gone.
func (p *projection) cleaned(svc *corev1.Service) bool {
	return svc.DeletionTimestamp != nil && !servicehelper.HasLBFinalizer(svc) && !p.holds(svc)
}

// content reports whether a sync of the Service would change nothing at all.
func (p *projection) content(svc *corev1.Service) bool {
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

// project returns the Service as the service controller is to see it. The original is not changed. A Service that we
// serve has no class. Besides,
//
//   - one that has neither an address nor the finalizer is shown with the finalizer, so that the controller does not
//     write it ahead of the addresses: Client writes both at once. A Service that waits for an address is not written
//     to at all, and if it is deleted it is gone at once.
//   - one that is deleted as soon as our finalizer is removed is shown without addresses, so that the controller does
//     not remove them from the status of a Service that is gone.
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

// requeue has the service controller look at a Service again. It is the one door: whatever else
// happens to addresses and pools, Services are written only by their controller.
func (p *projection) requeue(svc *corev1.Service) {
	if p.opened.Load() {
		p.handler.OnAdd(p.project(svc), false)
	}
}

// open tells the controller of every Service that needs something, and from now on of every change.
func (p *projection) open() {
	p.opened.Store(true)
	for _, o := range p.real.Informer().GetStore().List() {
		p.OnAdd(o, true)
	}
}

// OnAdd passes on a Service that needs something.
func (p *projection) OnAdd(o any, initial bool) {
	svc := o.(*corev1.Service)
	if p.opened.Load() && p.ours(svc) && !p.content(svc) {
		p.handler.OnAdd(p.project(svc), initial)
	}
}

// OnUpdate passes on what happens to a Service that is ours or was. The controller itself does not
// look at the status, at the family policy or at selectors, so what became of them is brought to it as new.
func (p *projection) OnUpdate(oldObj, newObj any) {
	was, is := oldObj.(*corev1.Service), newObj.(*corev1.Service)
	if !p.opened.Load() || was.ResourceVersion == is.ResourceVersion || !p.ours(was) && !p.ours(is) {
		return
	}
	if p.disturbed(was, is) || p.serves(is) && (!reflect.DeepEqual(was.Spec.IPFamilyPolicy, is.Spec.IPFamilyPolicy) || !sharing(was).Equal(sharing(is))) {
		p.requeue(is)
	}
	if !maps.Equal(was.Labels, is.Labels) {
		p.relabelled()
	}
	if !p.content(is) { // The controller syncs a Service whose annotations changed, whichever these are.
		p.handler.OnUpdate(p.project(was), p.project(is))
	}
}

// disturbed reports whether somebody took the finalizer away or wrote another status than the Service is to have. What
// the controller itself writes is what it is to have.
func (p *projection) disturbed(was, is *corev1.Service) bool {
	written := !servicehelper.LoadBalancerStatusEqual(&was.Status.LoadBalancer, &is.Status.LoadBalancer) ||
		servicehelper.HasLBFinalizer(was) && !servicehelper.HasLBFinalizer(is)
	return written && p.serves(is) && is.DeletionTimestamp == nil && !p.content(is)
}

// OnDelete has the addresses of a Service that is gone looked at. The controller does not ask: it acts
// on the deletion timestamp. A Service without finalizers never had one; the controller drops what it remembers of
// that when it finds that the Service is gone.
func (p *projection) OnDelete(o any) {
	if tombstone, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = tombstone.Obj
	}
	if svc, ok := o.(*corev1.Service); ok {
		p.gone(svc)
		if p.serves(svc) {
			p.requeue(svc)
		}
	}
}

// Informer is the informer that the service controller registers its handler with.
func (p *projection) Informer() cache.SharedIndexInformer {
	return projectedInformer{p.real.Informer(), p}
}

// Lister reads Services as they are projected.
func (p *projection) Lister() corelisters.ServiceLister {
	return projectedLister{p.real.Lister(), p}
}

type projectedInformer struct {
	cache.SharedIndexInformer
	p *projection
}

// AddEventHandlerWithResyncPeriod takes the controller's handler. There is no resync: it would compare
// every Service with itself twice a minute.
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
		projected = append(projected, l.p.project(svc))
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

func (n projectedNamespace) Get(name string) (*corev1.Service, error) {
	svc, err := n.ServiceNamespaceLister.Get(name)
	if err != nil {
		return nil, err
	}
	if n.l.p.cleaned(svc) {
		return nil, apierrors.NewNotFound(corev1.Resource("services"), name)
	}
	return n.l.p.project(svc), nil
}

// oneNode is the Node informer as the service controller sees it: there is one node, and it never
// changes. Nothing of ours depends on which nodes there are, while the controller would walk all
// Services when one changes, reading what others write, and keep each Service's list of them for ever.
type oneNode struct{}

// OneNode hides from the service controller which nodes there are. That there is one keeps it from
// warning, with every Service, that there is none.
func OneNode() coreinformers.NodeInformer { return oneNode{} }

func (oneNode) Informer() cache.SharedIndexInformer { return silentInformer{} }

func (oneNode) Lister() corelisters.NodeLister {
	nodes := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	_ = nodes.Add(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "any"}}) // Only a key that cannot be made fails.
	return corelisters.NewNodeLister(nodes)
}

// silentInformer is the two methods that the service controller calls.
type silentInformer struct{ cache.SharedIndexInformer }

// AddEventHandlerWithResyncPeriod takes no notice of the handler.
func (silentInformer) AddEventHandlerWithResyncPeriod(cache.ResourceEventHandler, time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return nil, nil
}

// HasSynced is true: there is nothing to wait for.
func (silentInformer) HasSynced() bool { return true }
