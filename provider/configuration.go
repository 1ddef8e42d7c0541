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

// assessor has the configuration objects assessed whenever something changes that the assessment rests on. It writes
// the status of advertisements and BGPPeers, and hands on what concerns IPPools, whose status pools writes, and the
// addresses that are never to be given out. One goroutine, watch, does all of it.
type assessor struct {
	watched
	peers, nodes, serviceCIDRs cache.SharedIndexInformer // run by the assessor
	kube                       kubernetes.Interface
	herald                     *client.Set
	log                        *zap.Logger
	// usage has the status of the IPPools written soon. occupied takes the addresses of the network itself, with what
	// each is.
	usage    func()
	occupied func(map[netip.Addr]string)
	changed  trigger
	done     chan struct{} // closed when the first assessment is in force

	mu   sync.Mutex
	last map[string]configuration.PoolAssessment // by IPPool; nil before the first assessment
	// expected are the nodes that are to announce addresses, by name.
	expected []string

	// Owned by watch: the addresses of each IPPool as they were read from a generation of it.
	read map[types.UID]readPool
}

// watched are informers that others run.
type watched struct {
	pools, l2, bgp, reports cache.SharedIndexInformer
}

type readPool struct {
	generation int64
	addresses  *netipx.IPSet // nil if they cannot be read
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
	_ = s.peers.SetTransform(lean) // They fail only on started informers.
	_ = s.serviceCIDRs.SetTransform(lean)
	_ = s.nodes.SetTransform(leanNode)
	edited := func(before, after any) bool {
		b, a := before.(metav1.Object), after.(metav1.Object)
		return b.GetGeneration() != a.GetGeneration() || !maps.Equal(b.GetLabels(), a.GetLabels())
	}
	for i, differs := range map[cache.SharedIndexInformer]func(before, after any) bool{
		s.pools: edited, s.l2: edited, s.bgp: edited, s.peers: edited, s.serviceCIDRs: edited,
		s.reports: func(before, after any) bool {
			return !reflect.DeepEqual(before.(*report).speaker, after.(*report).speaker)
		},
		s.nodes: func(before, after any) bool {
			b, a := before.(*corev1.Node), after.(*corev1.Node)
			return !maps.Equal(b.Labels, a.Labels) || (b.DeletionTimestamp == nil) != (a.DeletionTimestamp == nil) || !equality.Semantic.DeepEqual(b.Spec, a.Spec) || !equality.Semantic.DeepEqual(b.Status, a.Status)
		},
	} {
		// Registration fails only on a stopped informer.
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

// lean removes from an object what nothing here reads and is a large part of it: the managed fields. The service
// controller keeps a second copy of each Service, and turns all of it into JSON twice for each of its patches.
func lean(o any) (any, error) {
	if m, ok := o.(metav1.Object); ok { // And not a tombstone.
		m.SetManagedFields(nil)
	}
	return o, nil
}

// leanService is lean, and has Services read as if annotations of other load balancers were Herald's. Nothing of that is
// written: the service controller writes what differs from what it has read.
func leanService(f Foreign) cache.TransformFunc {
	return func(o any) (any, error) {
		if svc, ok := o.(*corev1.Service); ok {
			o = f.Read(svc)
		}
		return lean(o)
	}
}

// leanNode keeps of a Node what is looked at: a Node is large, and its kubelet changes it often.
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

// pool returns what the last assessment says of an IPPool; nil if nothing.
func (s *assessor) pool(name string) *configuration.PoolAssessment {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a, known := s.last[name]; known {
		return &a
	}
	return nil
}

// firstAssessment is how long Services wait for the first assessment after a start, so that none is given the address
// of a node. It takes milliseconds, unless what it rests on cannot be read.
const firstAssessment = 3 * time.Second

// await waits for the first assessment.
func (s *assessor) await(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-s.done:
	case <-time.After(firstAssessment):
		s.log.Warn("the nodes or what the speakers report cannot be read: addresses of nodes and gateways may be given to Services")
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

// hasServiceCIDRs reports whether the API server has ServiceCIDRs, which came with Kubernetes 1.33. It asks until there is
// an answer: an informer of a kind that is missing never syncs.
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
	const soon = 50 * time.Millisecond // A file of many objects is one change.
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
				s.log.Warn("status of configuration objects not written, trying again", zap.Error(err))
			}
			s.changed.set()
		}
		if !pause(ctx, statusPeriod) {
			return ctx.Err()
		}
	}
}

// pause waits, and reports whether ctx has not ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// cluster is what is known, as an assessment takes it.
func (s *assessor) cluster() configuration.Cluster {
	c := configuration.Cluster{
		L2Advertisements:  client.Items[*herald.L2Advertisement](s.l2.GetStore()),
		BGPAdvertisements: client.Items[*herald.BGPAdvertisement](s.bgp.GetStore()),
		Peers:             client.Items[*herald.BGPPeer](s.peers.GetStore()),
		Nodes:             client.Items[*corev1.Node](s.nodes.GetStore()),
		Speakers:          map[string]configuration.Speaker{},
	}
	for _, r := range client.Items[*report](s.reports.GetStore()) {
		c.Speakers[r.Name] = r.speaker
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
			if p, err := PoolOf(o); err == nil { // If not, the last valid spec stays in force.
				r.addresses = p.Addresses
			}
		}
		read[o.UID] = r
		c.Pools = append(c.Pools, configuration.Pool{IPPool: o, Addresses: r.addresses})
	}
	s.read = read
	return c
}

// announcers are the nodes that are to announce addresses, by name, as of the last assessment.
func (s *assessor) announcers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.expected
}

// keep has the status of the IPPools written if anything else is to be said of one.
func (s *assessor) keep(now configuration.Assessment) {
	s.mu.Lock()
	same := s.last != nil && reflect.DeepEqual(s.last, now.Pools)
	s.last, s.expected = now.Pools, now.Announcers
	s.mu.Unlock()
	if !same {
		s.usage()
	}
}

// write writes the status of each advertisement and BGPPeer whose status is another.
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
			if meta.FindStatusCondition(now.Conditions, herald.ConditionPathsAlive) == nil { // It has no BFD any more.
				changed = meta.RemoveStatusCondition(&o.Status.Conditions, herald.ConditionPathsAlive) || changed
			}
			return setConditions(&o.Status.Conditions, now.Conditions) || changed
		}, s.herald.BGPPeers.UpdateStatus),
	)
}

// bringUp brings the status of an advertisement up to date, and reports whether it was not.
func bringUp(st *herald.AdvertisementStatus, now herald.AdvertisementStatus) bool {
	changed := st.Pools != now.Pools || st.Nodes != now.Nodes
	st.Pools, st.Nodes = now.Pools, now.Nodes
	return setConditions(&st.Conditions, now.Conditions) || changed
}

// setConditions brings conditions up to date, and reports whether they were not. One whose status stays keeps its
// transition time.
func setConditions(conditions *[]metav1.Condition, now []metav1.Condition) (changed bool) {
	for _, c := range now {
		changed = meta.SetStatusCondition(conditions, c) || changed
	}
	return changed
}

// writeStatus writes the status of each object of an informer that update changes. One that cannot be written does not
// keep the others from it.
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
		// A conflict is for the cache to catch up.
		if _, err := write(ctx, o, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("%s %s: %w", kind, o.GetName(), err))
		}
	}
	return errors.Join(errs...)
}
