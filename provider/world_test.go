package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes/fake"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/provider/configuration"
)

// object is a pointer to an object of the API.
type object[T any] interface {
	*T
	metav1.Object
	DeepCopyObject() runtime.Object
}

// apiOf is a fake client for the objects of one kind, with a cache that is always up to date.
type apiOf[T any, P object[T]] struct {
	kind    string
	missing bool // whether the API server does not know the kind
	version int
	writes  int
	cache   cache.Indexer
	changed func(name string) // called like the handler of an informer
}

func (a *apiOf[T, P]) get(name string) (P, error) {
	o, exists, _ := a.cache.GetByKey(name)
	if !exists || a.missing {
		return nil, apierrors.NewNotFound(herald.GroupVersion.WithResource(a.kind).GroupResource(), name)
	}
	return o.(P), nil
}

func (a *apiOf[T, P]) put(o P) (P, error) {
	a.version++
	a.writes++
	stored := o.DeepCopyObject().(P)
	stored.SetResourceVersion(strconv.Itoa(a.version))
	defer a.changed(stored.GetName())
	return stored, a.cache.Add(stored)
}

func (a *apiOf[T, P]) Get(_ context.Context, name string, _ metav1.GetOptions) (P, error) {
	return a.get(name)
}

func (a *apiOf[T, P]) Create(_ context.Context, o P, _ metav1.CreateOptions) (P, error) {
	a.writes++
	if a.missing {
		return nil, apierrors.NewNotFound(herald.GroupVersion.WithResource(a.kind).GroupResource(), "")
	}
	if _, err := a.get(o.GetName()); err == nil {
		return nil, apierrors.NewAlreadyExists(herald.GroupVersion.WithResource(a.kind).GroupResource(), o.GetName())
	}
	return a.put(o)
}

func (a *apiOf[T, P]) Update(_ context.Context, o P, _ metav1.UpdateOptions) (P, error) {
	is, err := a.get(o.GetName())
	if err != nil {
		return nil, err
	}
	if is.GetResourceVersion() != o.GetResourceVersion() {
		return nil, apierrors.NewConflict(herald.GroupVersion.WithResource(a.kind).GroupResource(), o.GetName(), nil)
	}
	if is.GetDeletionTimestamp() != nil && len(o.GetFinalizers()) == 0 {
		return o, a.cache.Delete(o)
	}
	return a.put(o)
}

// Patch merges the patch into the object. Lists are replaced.
func (a *apiOf[T, P]) Patch(ctx context.Context, name string, _ types.PatchType, patch []byte, _ metav1.PatchOptions, _ ...string) (P, error) {
	is, err := a.get(name)
	if err != nil {
		return nil, err
	}
	o := is.DeepCopyObject().(P)
	if err := json.Unmarshal(patch, o); err != nil {
		return nil, err
	}
	return a.Update(ctx, o, metav1.UpdateOptions{})
}

func (a *apiOf[T, P]) UpdateStatus(ctx context.Context, o P, options metav1.UpdateOptions) (P, error) {
	return a.Update(ctx, o, options)
}

func (a *apiOf[T, P]) Delete(_ context.Context, name string, options metav1.DeleteOptions) error {
	o, err := a.get(name)
	if err != nil {
		return err
	}
	if p := options.Preconditions; p != nil && p.ResourceVersion != nil && *p.ResourceVersion != o.GetResourceVersion() {
		return apierrors.NewConflict(herald.GroupVersion.WithResource(a.kind).GroupResource(), name, nil)
	}
	a.writes++
	defer a.changed(name)
	return a.cache.Delete(o)
}

// world is a provider without goroutines, with the fake API server that it is connected to.
type world struct {
	*testing.T
	*Provider
	kube       *fake.Clientset
	services   cache.Indexer
	namespaces cache.Indexer
	recordsAPI *apiOf[herald.IPAllocation, *herald.IPAllocation]
	poolsAPI   *apiOf[herald.IPPool, *herald.IPPool]
	l2         cache.Indexer
	recorder   *record.FakeRecorder
	// queued has the Services that were passed to the service controller.
	queued *queued
}

// queued is the handler of the service controller.
type queued struct{ names []string }

func (q *queued) OnAdd(o any, _ bool) { q.names = append(q.names, o.(*corev1.Service).Name) }
func (q *queued) OnUpdate(_, o any)   { q.OnAdd(o, false) }
func (q *queued) OnDelete(any)        {}

// serviceInformer is an informer of Services that does not run.
type serviceInformer struct{ cache.SharedIndexInformer }

func (i serviceInformer) Informer() cache.SharedIndexInformer { return i.SharedIndexInformer }
func (i serviceInformer) Lister() corelisters.ServiceLister {
	return corelisters.NewServiceLister(i.GetIndexer())
}

func newWorld(t *testing.T) *world {
	indexer := func(with cache.Indexers) cache.Indexer { return cache.NewIndexer(cache.MetaNamespaceKeyFunc, with) }
	kube := fake.NewClientset()
	informer := serviceInformer{coreinformers.NewServiceInformer(kube, "", 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})}
	w := &world{
		T: t, kube: kube, services: informer.GetIndexer(), namespaces: indexer(nil),
		recordsAPI: &apiOf[herald.IPAllocation, *herald.IPAllocation]{kind: "ipallocations", cache: indexer(recordIndexers)},
		poolsAPI:   &apiOf[herald.IPPool, *herald.IPPool]{kind: "ippools", cache: indexer(nil)},
		l2:         indexer(nil),
		recorder:   record.NewFakeRecorder(100),
		queued:     &queued{},
	}
	w.Provider = wire(dependencies{
		class: herald.LoadBalancerClass, classless: true,
		services: informer, kube: kube, namespaces: corelisters.NewNamespaceLister(w.namespaces),
		records: w.recordsAPI, recordCache: w.recordsAPI.cache,
		pools: w.poolsAPI, poolCache: w.poolsAPI.cache,
		events: w.recorder, many: w.recorder, log: zap.NewNop(),
	})
	w.pools.assessed = w.assess
	w.recordsAPI.changed, w.poolsAPI.changed = w.changes.queue.Add, func(string) {}
	t.Cleanup(w.changes.queue.ShutDown)
	t.Cleanup(w.others.queue.ShutDown)
	w.projection.handler = w.queued
	w.projection.opened.Store(true)
	w.namespace("default")
	return w
}

func (w *world) namespace(name string) {
	_ = w.namespaces.Add(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
}

// pool creates or replaces an IPPool, and makes the provider load the pools.
func (w *world) pool(name string, edit func(*herald.IPPool)) *herald.IPPool {
	w.Helper()
	o := &herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Finalizers: []string{herald.PoolFinalizer}}}
	if is, err := w.poolsAPI.get(name); err == nil {
		o = is.DeepCopy()
	} else {
		o.CreationTimestamp = metav1.Unix(int64(len(w.poolsAPI.cache.ListKeys())), 0)
	}
	o.Generation++
	edit(o)
	stored, err := w.poolsAPI.put(o)
	if err != nil {
		w.Fatal(err)
	}
	w.pools.load()
	return stored
}

// assess assesses the pools in a cluster of one node whose speaker reports no subnets.
func (w *world) assess(pool string) *configuration.PoolAssessment {
	c := configuration.Cluster{
		L2Advertisements: client.Items[*herald.L2Advertisement](w.l2),
		Nodes:            []*corev1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}},
		Speakers:         map[string]configuration.Speaker{"n1": {}},
	}
	for _, o := range client.Items[*herald.IPPool](w.poolsAPI.cache) {
		c.Pools = append(c.Pools, configuration.Pool{IPPool: o})
	}
	if a, known := configuration.Assess(c).Pools[pool]; known {
		return &a
	}
	return nil
}

// serve makes the provider serve a Service, and writes its status.
func (w *world) serve(svc *corev1.Service) (addresses []string, err error) {
	w.Helper()
	w.put(svc)
	s, err := w.loadBalancers.EnsureLoadBalancer(w.Context(), "", svc, nil)
	if err != nil {
		return nil, err
	}
	svc.Status.LoadBalancer = *s
	svc.Finalizers = []string{"service.kubernetes.io/load-balancer-cleanup"}
	w.put(svc)
	for _, a := range Carried(svc) {
		addresses = append(addresses, a.String())
	}
	return addresses, nil
}

func (w *world) put(svc *corev1.Service) {
	w.Helper()
	stored := svc.DeepCopy()
	if err := w.services.Add(stored); err != nil {
		w.Fatal(err)
	}
	_ = w.kube.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("services"), svc.Namespace, svc.Name)
	if err := w.kube.Tracker().Add(stored.DeepCopy()); err != nil {
		w.Fatal(err)
	}
}

// gone deletes a Service after its addresses were released, as the service controller does.
func (w *world) gone(svc *corev1.Service) {
	w.Helper()
	if err := w.loadBalancers.EnsureLoadBalancerDeleted(w.Context(), "", svc); err != nil {
		w.Fatal(err)
	}
	_ = w.services.Delete(svc)
	_ = w.kube.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("services"), svc.Namespace, svc.Name)
	w.projection.OnDelete(svc)
	w.reconcile()
}

// reconcile makes the reconciler process its queue.
func (w *world) reconcile() {
	w.Helper()
	for w.changes.queue.Len() > 0 {
		name, _ := w.changes.queue.Get()
		if err := w.reconciler.reconcile(w.Context(), name); err != nil {
			w.Fatal(err)
		}
		w.changes.queue.Done(name)
	}
}

// publish makes the provider write the status of the pools, and returns the pool of that name; nil if it is gone.
func (w *world) publish(name string) *herald.IPPool {
	w.Helper()
	if err := w.pools.publish(w.Context()); err != nil {
		w.Fatal(err)
	}
	o, err := w.poolsAPI.get(name)
	if err != nil {
		return nil
	}
	return o
}

// holders lists the records in the form "198.51.100.0 public default/web". An owner without a UID has a "~" before it,
// and after the owners of a released address there is "released".
func (w *world) holders() []string {
	var list []string
	for _, o := range w.recordsAPI.cache.List() {
		rec := o.(*herald.IPAllocation)
		text := rec.Name + " " + rec.Spec.Pool
		for _, o := range rec.Spec.Owners {
			kept := ""
			if o.UID == "" {
				kept = "~"
			}
			text += fmt.Sprintf(" %s%s/%s", kept, o.Namespace, o.Name)
		}
		if released(rec) {
			text += " released"
		}
		list = append(list, text)
	}
	slices.Sort(list)
	return list
}

// recordsAre compares the records with the given ones.
func (w *world) recordsAre(want ...string) {
	w.Helper()
	if diff := cmp.Diff(want, w.holders()); diff != "" {
		w.Errorf("the records are not as wanted (-want +got):\n%s", diff)
	}
}

// eventsSay reads the written events, and checks that each text is part of one of them.
func (w *world) eventsSay(texts ...string) {
	w.Helper()
	var all []string
	for len(w.recorder.Events) > 0 {
		all = append(all, <-w.recorder.Events)
	}
	for _, text := range texts {
		if !slices.ContainsFunc(all, func(e string) bool { return strings.Contains(e, text) }) {
			w.Errorf("no event says %q; the events are %q", text, all)
		}
	}
	if len(texts) == 0 && len(all) > 0 {
		w.Errorf("events %q, want none", all)
	}
}
