package provider

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"go4.org/netipx"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coreinformers "k8s.io/client-go/informers/core/v1"
	networkinginformers "k8s.io/client-go/informers/networking/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/provider/configuration"
)

// assessor assesses the configuration objects whenever one of its inputs changes. It writes the status of advertisements
// and BGPPeers. It passes on the assessments of IPPools, whose status pools writes, and the addresses that are never
// assigned. One goroutine, watch, does all of this.
type assessor struct {
	watched
	peers, nodes, serviceCIDRs cache.SharedIndexInformer // run by the assessor
	kube                       kubernetes.Interface
	herald                     *client.Set
	log                        *zap.Logger
	// usage requests that the status of the IPPools is written soon. occupied receives the addresses that the network
	// itself uses, with a description of each.
	usage    func()
	occupied func(map[netip.Addr]string)
	silent   func() map[string]bool // see speakers.silent
	changed  trigger
	done     chan struct{} // closed when the first assessment is in effect

	mu   sync.Mutex
	last map[string]configuration.PoolAssessment // by IPPool; nil before the first assessment
	// expected are the names of the nodes that must announce addresses.
	expected []string

	// Owned by watch: the parsed addresses of each IPPool, and the generation they are from.
	read map[types.UID]readPool
}

// watched has informers that the assessor does not run.
type watched struct {
	pools, l2, bgp, reports cache.SharedIndexInformer
}

type readPool struct {
	generation int64
	addresses  *netipx.IPSet // nil if they cannot be parsed
}

func newAssessor(
	kube kubernetes.Interface, set *client.Set, w watched, usage func(), occupied func(map[netip.Addr]string), log *zap.Logger,
) *assessor {
	s := &assessor{
		watched: w, kube: kube, herald: set, log: log, usage: usage, occupied: occupied,
		peers:        set.BGPPeers.Informer(),
		nodes:        coreinformers.NewNodeInformer(kube, 0, cache.Indexers{}),
		serviceCIDRs: networkinginformers.NewServiceCIDRInformer(kube, 0, cache.Indexers{}),
		changed:      newTrigger(), done: make(chan struct{}), read: map[types.UID]readPool{},
	}
	_ = s.peers.SetTransform(lean) // SetTransform fails only for a started informer.
	_ = s.serviceCIDRs.SetTransform(lean)
	_ = s.nodes.SetTransform(leanNode)
	inRange := func(o *herald.IPPool) bool {
		return !meta.IsStatusConditionFalse(o.Status.Conditions, herald.PoolInRange)
	}
	edited := func(before, after any) bool {
		b, a := before.(metav1.Object), after.(metav1.Object)
		return b.GetGeneration() != a.GetGeneration() || !maps.Equal(b.GetLabels(), a.GetLabels())
	}
	for i, differs := range map[cache.SharedIndexInformer]func(before, after any) bool{
		s.pools: func(before, after any) bool {
			b, a := before.(*herald.IPPool), after.(*herald.IPPool)
			return edited(b, a) || inRange(b) != inRange(a)
		},
		s.l2: edited, s.bgp: edited, s.peers: edited, s.serviceCIDRs: edited,
		s.reports: func(before, after any) bool {
			return !reflect.DeepEqual(before.(*report).speaker, after.(*report).speaker)
		},
		s.nodes: func(before, after any) bool {
			b, a := before.(*corev1.Node), after.(*corev1.Node)
			return !maps.Equal(b.Labels, a.Labels) || (b.DeletionTimestamp == nil) != (a.DeletionTimestamp == nil) || !equality.Semantic.DeepEqual(b.Spec, a.Spec) || !equality.Semantic.DeepEqual(b.Status, a.Status)
		},
	} {
		// AddEventHandler fails only for a stopped informer.
		_, _ = i.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { s.changed.set() },
			UpdateFunc: func(before, after any) {
				if differs(before, after) {
					s.changed.set()
				}
			},
			DeleteFunc: func(any) { s.changed.set() },
		})
	}
	return s
}

// lean removes the managed fields, which are a large part of an object and are not read here.
func lean(o any) (any, error) {
	if m, ok := o.(metav1.Object); ok { // Tombstones are not objects.
		m.SetManagedFields(nil)
	}
	return o, nil
}

// leanService keeps the fields of a Service that are used, and translates annotations of other load balancers into Herald's.
// The service controller writes only the difference to what it has read, so what is missing stays as it is, and the
// translation is never written.
func leanService(f Foreign) cache.TransformFunc {
	return func(o any) (any, error) {
		svc, ok := o.(*corev1.Service)
		if !ok {
			return o, nil // A tombstone.
		}
		svc = f.Read(svc)
		delete(svc.Annotations, corev1.LastAppliedConfigAnnotation) // It is as large as the rest.
		was := svc.Spec
		svc.Spec = corev1.ServiceSpec{
			Type: was.Type, LoadBalancerClass: was.LoadBalancerClass, LoadBalancerIP: was.LoadBalancerIP,
			IPFamilies: was.IPFamilies, IPFamilyPolicy: was.IPFamilyPolicy, ExternalTrafficPolicy: was.ExternalTrafficPolicy,
		}
		for _, p := range was.Ports {
			svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Protocol: p.Protocol, Port: p.Port})
		}
		if sharing(svc).Key != "" {
			svc.Spec.Selector = was.Selector
		}
		if formerlyServed(svc) {
			return svc, nil // The projection reads who wrote the finalizer.
		}
		return lean(svc)
	}
}

// leanNode keeps the fields of a Node that are used. A Node is large, and its kubelet changes it often.
func leanNode(o any) (any, error) {
	n, ok := o.(*corev1.Node)
	if !ok {
		return o, nil // A tombstone.
	}
	kept := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, UID: n.UID, ResourceVersion: n.ResourceVersion, Labels: n.Labels, DeletionTimestamp: n.DeletionTimestamp},
		Spec:       corev1.NodeSpec{PodCIDRs: n.Spec.PodCIDRs},
		Status:     corev1.NodeStatus{Addresses: n.Status.Addresses},
	}
	for _, t := range n.Spec.Taints {
		kept.Spec.Taints = append(kept.Spec.Taints, corev1.Taint{Key: t.Key, Effect: t.Effect})
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			kept.Status.Conditions = []corev1.NodeCondition{{Type: c.Type, Status: c.Status}}
		}
	}
	return kept, nil
}

// pool returns the last assessment of an IPPool; nil if there is none.
func (s *assessor) pool(name string) *configuration.PoolAssessment {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a, known := s.last[name]; known {
		return &a
	}
	return nil
}

// firstAssessment is how long Services wait for the first assessment after a start, so that none gets the address of a
// node, which it would keep. The assessment takes milliseconds, unless its inputs cannot be read, or are very many.
const firstAssessment = 30 * time.Second

// await waits for the first assessment.
func (s *assessor) await(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-s.done:
	case <-time.After(firstAssessment):
		s.log.Warn("failed to read the Nodes or the SpeakerStatuses: addresses of nodes and gateways may be given to Services")
	}
}

func (s *assessor) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	own := []cache.SharedIndexInformer{s.peers, s.nodes}
	if s.hasServiceCIDRs(ctx) {
		own = append(own, s.serviceCIDRs)
	}
	synced := []cache.InformerSynced{s.pools.HasSynced, s.l2.HasSynced, s.bgp.HasSynced, s.reports.HasSynced}
	for _, i := range own {
		g.Go(func() error { i.RunWithContext(ctx); return nil })
		synced = append(synced, i.HasSynced)
	}
	g.Go(func() error {
		if !cache.WaitForCacheSync(ctx.Done(), synced...) {
			return ctx.Err()
		}
		return s.watch(ctx)
	})
	return g.Wait()
}

// hasServiceCIDRs reports whether the API server has ServiceCIDRs, which exist since Kubernetes 1.33. It retries until the
// API server answers: an informer for a missing kind never syncs.
func (s *assessor) hasServiceCIDRs(ctx context.Context) bool {
	for {
		list, err := s.kube.Discovery().ServerResourcesForGroupVersion(networkingv1.SchemeGroupVersion.String())
		if err == nil {
			return slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == "servicecidrs" })
		}
		if apierrors.IsNotFound(err) || !pause(ctx, time.Second) {
			return false
		}
	}
}

func (s *assessor) watch(ctx context.Context) error {
	const soon = 50 * time.Millisecond // Several objects applied from one file are one change.
	s.changed.set()
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.changed:
		}
		if !first && !pause(ctx, soon) {
			return ctx.Err()
		}
		a := configuration.Assess(s.cluster())
		s.occupied(a.Occupied)
		s.keep(a)
		if first {
			close(s.done)
		}
		if err := s.write(ctx, a); err != nil {
			if ctx.Err() == nil {
				s.log.Warn("failed to write the status of advertisements or BGPPeers, trying again", zap.Error(err))
			}
			s.changed.set()
		}
		if !pause(ctx, statusPeriod) {
			return ctx.Err()
		}
	}
}

// pause waits for d, and reports whether ctx is still active.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// cluster returns the input of an assessment.
func (s *assessor) cluster() configuration.Cluster {
	c := configuration.Cluster{
		L2Advertisements:  client.Items[*herald.L2Advertisement](s.l2.GetStore()),
		BGPAdvertisements: client.Items[*herald.BGPAdvertisement](s.bgp.GetStore()),
		Peers:             client.Items[*herald.BGPPeer](s.peers.GetStore()),
		Nodes:             client.Items[*corev1.Node](s.nodes.GetStore()),
		Speakers:          map[string]configuration.Speaker{},
	}
	silent := s.silent()
	for _, r := range client.Items[*report](s.reports.GetStore()) {
		speaker := r.speaker
		speaker.Silent = silent[r.Name]
		c.Speakers[r.Name] = speaker
	}
	for _, o := range client.Items[*networkingv1.ServiceCIDR](s.serviceCIDRs.GetStore()) {
		for _, text := range o.Spec.CIDRs {
			if p, err := netip.ParsePrefix(text); err == nil {
				c.ServiceCIDRs = append(c.ServiceCIDRs, p)
			}
		}
	}
	read := map[types.UID]readPool{}
	for _, o := range client.Items[*herald.IPPool](s.pools.GetStore()) {
		r, known := s.read[o.UID]
		if !known || r.generation != o.Generation {
			r.generation = o.Generation
			if p, err := PoolOf(o); err == nil { // Otherwise the last valid spec stays in force.
				r.addresses = p.Addresses
			}
		}
		read[o.UID] = r
		c.Pools = append(c.Pools, configuration.Pool{IPPool: o, Addresses: r.addresses})
	}
	s.read = read
	return c
}

// announcers returns the names of the nodes that must announce addresses, as of the last assessment.
func (s *assessor) announcers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.expected
}

// keep stores the assessment, and requests a write of the IPPools' status if that changes.
func (s *assessor) keep(now configuration.Assessment) {
	s.mu.Lock()
	same := s.last != nil && reflect.DeepEqual(s.last, now.Pools)
	s.last, s.expected = now.Pools, now.Announcers
	s.mu.Unlock()
	if !same {
		s.usage()
	}
}

// write writes the status of each advertisement and BGPPeer whose status changed.
func (s *assessor) write(ctx context.Context, a configuration.Assessment) error {
	return errors.Join(
		writeStatus(ctx, "L2Advertisement", s.l2, a.L2Advertisements, func(o *herald.L2Advertisement, now herald.AdvertisementStatus) bool {
			return bringUp(&o.Status, now)
		}, s.herald.L2Advertisements.UpdateStatus),
		writeStatus(ctx, "BGPAdvertisement", s.bgp, a.BGPAdvertisements, func(o *herald.BGPAdvertisement, now herald.AdvertisementStatus) bool {
			return bringUp(&o.Status, now)
		}, s.herald.BGPAdvertisements.UpdateStatus),
		writeStatus(ctx, "BGPPeer", s.peers, a.Peers, func(o *herald.BGPPeer, now herald.BGPPeerStatus) bool {
			changed := o.Status.Sessions != now.Sessions
			o.Status.Sessions = now.Sessions
			if meta.FindStatusCondition(now.Conditions, herald.ConditionPathsAlive) == nil { // The peer no longer has BFD.
				changed = meta.RemoveStatusCondition(&o.Status.Conditions, herald.ConditionPathsAlive) || changed
			}
			return setConditions(&o.Status.Conditions, now.Conditions) || changed
		}, s.herald.BGPPeers.UpdateStatus),
	)
}

// bringUp updates the status of an advertisement, and reports whether it changed.
func bringUp(st *herald.AdvertisementStatus, now herald.AdvertisementStatus) bool {
	changed := st.Pools != now.Pools || st.Nodes != now.Nodes
	st.Pools, st.Nodes = now.Pools, now.Nodes
	return setConditions(&st.Conditions, now.Conditions) || changed
}

// setConditions updates conditions, and reports whether any changed. A condition whose status stays the same keeps its
// transition time.
func setConditions(conditions *[]metav1.Condition, now []metav1.Condition) (changed bool) {
	for _, c := range now {
		changed = meta.SetStatusCondition(conditions, c) || changed
	}
	return changed
}

// writeStatus writes the status of each object of an informer that update changes. If one object cannot be written, the
// others still are.
func writeStatus[T interface {
	metav1.Object
	DeepCopy() T
}, S any](
	ctx context.Context, kind string, informer cache.SharedIndexInformer, now map[string]S, update func(T, S) (changed bool),
	write func(context.Context, T, metav1.UpdateOptions) (T, error),
) error {
	var errs []error
	for _, o := range client.Items[T](informer.GetStore()) {
		st, assessed := now[o.GetName()]
		if !assessed || o.GetDeletionTimestamp() != nil {
			continue
		}
		if o = o.DeepCopy(); !update(o, st) {
			continue
		}
		// After a conflict, the retry succeeds once the cache has caught up.
		if _, err := write(ctx, o, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("%s %s: %w", kind, o.GetName(), err))
		}
	}
	return errors.Join(errs...)
}
