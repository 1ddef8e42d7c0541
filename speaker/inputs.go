package speaker

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/announce"
)

// inputs has the informers for everything that the speaker watches, and the changes since the last call of take.
//
// A change of one Service, of its endpoints or of a record makes the Service's addresses dirty. A change of anything that
// all decisions share makes all addresses dirty. Changes that come at once are handled together.
type inputs struct {
	services, slices, nodes, namespaces, secrets cache.SharedIndexInformer
	allocations, pools, l2, bgp, peers           cache.SharedIndexInformer

	node      string        // this node
	namespace string        // of the Secrets with the peers' passwords
	l2Only    bool          // the resources for BGP are not watched, and their stores are empty
	trigger   chan struct{} // capacity one

	mu    sync.Mutex
	dirty changes
}

// changes has what is dirty: the addresses to decide again, and more than that if other fields are set.
type changes struct {
	addresses  map[netip.Addr]bool
	namespaces map[string]bool // namespaces with changed labels; addresses has the addresses of their Services
	peers      bool            // passwords of BGPPeers or annotations of this node have changed
	all        bool
}

func noChanges() changes {
	return changes{addresses: map[netip.Addr]bool{}, namespaces: map[string]bool{}}
}

// bySvc is the name of the index that finds EndpointSlices by Service.
const bySvc = "service"

// newInputs wires the informers. Services, slices and nodes are stripped to the fields that decisions need, since every
// speaker of the cluster keeps all of them in memory.
func newInputs(kube kubernetes.Interface, set *client.Set, node, namespace string, l2Only bool) (*inputs, error) {
	in := &inputs{node: node, namespace: namespace, l2Only: l2Only, trigger: make(chan struct{}, 1), dirty: noChanges()}
	factory := func(namespace string, tweak func(*metav1.ListOptions)) informers.SharedInformerFactory {
		return informers.NewSharedInformerFactoryWithOptions(kube, 0, informers.WithNamespace(namespace), informers.WithTweakListOptions(tweak))
	}
	everything := factory(metav1.NamespaceAll, nil)
	in.services = factory(metav1.NamespaceAll, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.type", string(corev1.ServiceTypeLoadBalancer)).String()
	}).Core().V1().Services().Informer()
	in.slices = everything.Discovery().V1().EndpointSlices().Informer()
	in.nodes = everything.Core().V1().Nodes().Informer()
	in.namespaces = everything.Core().V1().Namespaces().Informer()
	in.secrets = factory(namespace, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("type", string(corev1.SecretTypeBasicAuth)).String()
	}).Core().V1().Secrets().Informer()
	in.allocations, in.pools = set.Allocations.Informer(), set.Pools.Informer()
	in.l2, in.bgp = set.L2Advertisements.Informer(), set.BGPAdvertisements.Informer()
	in.peers = set.BGPPeers.Informer()

	for _, i := range in.everyInformer() {
		if err := i.SetTransform(in.strip); err != nil {
			return nil, err
		}
	}
	if err := in.slices.AddIndexers(cache.Indexers{bySvc: func(o any) ([]string, error) {
		return []string{sliceService(o.(*discoveryv1.EndpointSlice)).String()}, nil
	}}); err != nil {
		return nil, err
	}

	for i, h := range in.handlers() {
		if _, err := i.AddEventHandler(h); err != nil {
			return nil, err
		}
	}
	return in, nil
}

// handlers returns the event handlers, which determine what each change makes dirty.
func (in *inputs) handlers() map[cache.SharedIndexInformer]cache.ResourceEventHandler {
	some := func(addresses func(any) []netip.Addr) cache.ResourceEventHandler {
		return onChange(func(before, after any) {
			for _, o := range []any{before, after} {
				if o != nil {
					in.touch(addresses(o)...)
				}
			}
		})
	}
	every := onChange(func(before, after any) {
		if matters(before, after) {
			in.touchAll()
		}
	})
	handlers := map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		in.services:    some(func(o any) []netip.Addr { return announce.StatusAddresses(o.(*corev1.Service)) }),
		in.slices:      some(func(o any) []netip.Addr { return in.addressesBehind(o.(*discoveryv1.EndpointSlice)) }),
		in.allocations: some(func(o any) []netip.Addr { return parseAddresses(o.(*herald.IPAllocation).Spec.Address) }),
		in.namespaces: onChange(func(before, after any) {
			if !sameLabels(before, after) {
				in.touchNamespace(cmp.Or(after, before).(*corev1.Namespace).Name)
			}
		}),
		in.nodes: onChange(func(before, after any) {
			switch {
			case matters(before, after):
				in.touchAll()
			case !maps.Equal(before.(*corev1.Node).Annotations, after.(*corev1.Node).Annotations): // Only this node keeps its annotations.
				in.change(func(c *changes) { c.peers = true })
			}
		}),
		in.secrets: onChange(func(before, after any) {
			if matters(before, after) {
				in.change(func(c *changes) { c.peers = true })
			}
		}),
	}
	for _, i := range []cache.SharedIndexInformer{in.pools, in.l2, in.bgp, in.peers} {
		handlers[i] = every
	}
	return handlers
}

// everyInformer lists the informers that run.
func (in *inputs) everyInformer() []cache.SharedIndexInformer {
	all := []cache.SharedIndexInformer{
		in.services, in.slices, in.nodes, in.namespaces, in.allocations, in.pools, in.l2,
	}
	if !in.l2Only {
		all = append(all, in.bgp, in.peers, in.secrets)
	}
	return all
}

// run watches until ctx ends, and calls synced once every watch has listed its objects.
func (in *inputs) run(ctx context.Context, synced func()) error {
	g, ctx := errgroup.WithContext(ctx)
	var listed []cache.InformerSynced
	for _, i := range in.everyInformer() {
		listed = append(listed, i.HasSynced)
		g.Go(func() error {
			i.RunWithContext(ctx)
			return nil
		})
	}
	g.Go(func() error {
		if cache.WaitForCacheSync(ctx.Done(), listed...) {
			synced()
		}
		return nil
	})
	return g.Wait()
}

func (in *inputs) touch(addresses ...netip.Addr) {
	if len(addresses) == 0 {
		return // Most changes concern Services without an address of Herald's.
	}
	in.change(func(c *changes) {
		for _, a := range addresses {
			c.addresses[a] = true
		}
	})
}

// touchNamespace makes the addresses of a namespace's Services dirty.
func (in *inputs) touchNamespace(name string) {
	objects, err := in.services.GetIndexer().ByIndex(cache.NamespaceIndex, name)
	if err != nil {
		return
	}
	in.change(func(c *changes) {
		c.namespaces[name] = true
		for _, o := range objects {
			for _, a := range announce.StatusAddresses(o.(*corev1.Service)) {
				c.addresses[a] = true
			}
		}
	})
}

func (in *inputs) touchAll() { in.change(func(c *changes) { c.all = true }) }

func (in *inputs) change(note func(*changes)) {
	in.mu.Lock()
	note(&in.dirty)
	in.mu.Unlock()
	pull(in.trigger)
}

// pull sends to a channel of capacity one. It does nothing if a value is already waiting there.
func pull(trigger chan<- struct{}) {
	select {
	case trigger <- struct{}{}:
	default:
	}
}

// take returns the changes since the last call.
func (in *inputs) take() changes {
	in.mu.Lock()
	defer in.mu.Unlock()
	c := in.dirty
	in.dirty = noChanges()
	return c
}

// address assembles one address; it returns nil if no Service has it.
func (in *inputs) address(address netip.Addr, now time.Time) *announce.Address {
	o, exists, err := in.allocations.GetStore().GetByKey(herald.AllocationName(address))
	if err != nil || !exists {
		return nil
	}
	return announce.AddressOf(o.(*herald.IPAllocation), now, in.service, in.slicesOf)
}

// service returns the Service with the given name, or nil.
func (in *inputs) service(name types.NamespacedName) *corev1.Service {
	o, exists, err := in.services.GetStore().GetByKey(name.String())
	if err != nil || !exists {
		return nil
	}
	return o.(*corev1.Service)
}

// slicesOf returns the EndpointSlices of a Service.
func (in *inputs) slicesOf(name types.NamespacedName) []*discoveryv1.EndpointSlice {
	objects, err := in.slices.GetIndexer().ByIndex(bySvc, name.String())
	if err != nil {
		return nil
	}
	all := make([]*discoveryv1.EndpointSlice, len(objects))
	for i, o := range objects {
		all[i] = o.(*discoveryv1.EndpointSlice)
	}
	return all
}

// namespaceLabels updates the labels of a namespace in a snapshot.
func (in *inputs) namespaceLabels(s *announce.Shared, name string) {
	if o, exists, err := in.namespaces.GetStore().GetByKey(name); err == nil && exists {
		s.Namespaces[name] = o.(*corev1.Namespace).Labels
	} else {
		delete(s.Namespaces, name)
	}
}

// everyAddress lists the addresses of all Services of type LoadBalancer.
func (in *inputs) everyAddress() []netip.Addr {
	var addresses []netip.Addr
	for _, svc := range client.Items[*corev1.Service](in.services.GetStore()) {
		addresses = append(addresses, announce.StatusAddresses(svc)...)
	}
	return addresses
}

// addressesBehind returns the addresses of the Service that the slice belongs to. If that Service is not known yet, its
// addresses become dirty when it is added.
func (in *inputs) addressesBehind(slice *discoveryv1.EndpointSlice) []netip.Addr {
	o, exists, err := in.services.GetStore().GetByKey(sliceService(slice).String())
	if err != nil || !exists {
		return nil
	}
	return announce.StatusAddresses(o.(*corev1.Service))
}

func sliceService(o *discoveryv1.EndpointSlice) types.NamespacedName {
	return types.NamespacedName{Namespace: o.Namespace, Name: o.Labels[discoveryv1.LabelServiceName]}
}

// parseAddresses parses addresses, and leaves out those that are not valid.
func parseAddresses(texts ...string) []netip.Addr {
	var addresses []netip.Addr
	for _, t := range texts {
		if a, err := netip.ParseAddr(t); err == nil {
			addresses = append(addresses, a)
		}
	}
	return addresses
}
