package speaker

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// inputs is everything the speaker watches, and what of it has changed since it was last asked.
//
// A change of one Service, of its endpoints or of a record makes the Service's addresses dirty; a change
// of anything that all decisions share makes all of them. Many changes at once are one.
type inputs struct {
	services, slices, nodes, namespaces, leases, secrets cache.SharedIndexInformer
	allocations, pools, l2, bgp, peers, statuses         cache.SharedIndexInformer
	namespace                                            string                                     // Herald's own
	l2Only                                               bool                                       // what is about routers is not watched, and empty
	observe                                              func(node string, o *herald.SpeakerStatus) // told of every SpeakerStatus; nil: it is gone
	trigger                                              chan struct{}                              // capacity one

	cancel  context.CancelFunc // of start
	watches sync.WaitGroup
	synced  chan struct{} // closed once every watch has listed what there is

	mu    sync.Mutex
	dirty changes
}

// changes is what is dirty.
type changes struct {
	addresses map[netip.Addr]bool
	leases    map[string]bool
	all       bool
}

func noChanges() changes {
	return changes{addresses: map[netip.Addr]bool{}, leases: map[string]bool{}}
}

const (
	// Names of indexes: slices by Service, statuses by claimed address.
	bySvc, byClaim = "service", "claim"

	// leaseLabel marks the Leases of speakers.
	leaseLabel, leaseLabelValue = "app.kubernetes.io/component", "speaker"
)

// newInputs wires the informers. Services, slices and nodes are stripped to what decisions need, since
// every node of the cluster holds all of them.
func newInputs(kube kubernetes.Interface, set *client.Set, namespace string, l2Only bool, observe func(string, *herald.SpeakerStatus)) (*inputs, error) {
	in := &inputs{namespace: namespace, l2Only: l2Only, observe: observe, trigger: make(chan struct{}, 1), synced: make(chan struct{}), dirty: noChanges()}
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
	in.leases = factory(namespace, func(o *metav1.ListOptions) {
		o.LabelSelector = labels.Set{leaseLabel: leaseLabelValue}.String()
	}).Coordination().V1().Leases().Informer()
	in.secrets = factory(namespace, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("type", string(corev1.SecretTypeBasicAuth)).String()
	}).Core().V1().Secrets().Informer()
	in.allocations, in.pools = set.Allocations.Informer(), set.Pools.Informer()
	in.l2, in.bgp = set.L2Advertisements.Informer(), set.BGPAdvertisements.Informer()
	in.peers, in.statuses = set.BGPPeers.Informer(), set.SpeakerStatuses.Informer()

	for _, i := range in.everyInformer() {
		if err := i.SetTransform(strip); err != nil {
			return nil, err
		}
	}
	if err := in.slices.AddIndexers(cache.Indexers{bySvc: func(o any) ([]string, error) {
		return []string{sliceService(o.(*discoveryv1.EndpointSlice)).String()}, nil
	}}); err != nil {
		return nil, err
	}

	if err := in.statuses.AddIndexers(cache.Indexers{byClaim: func(o any) ([]string, error) {
		var addresses []string
		for _, c := range o.(*herald.SpeakerStatus).Status.Claims {
			addresses = append(addresses, c.Address)
		}
		return addresses, nil
	}}); err != nil {
		return nil, err
	}

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
		in.services:    some(func(o any) []netip.Addr { return addressesOf(o.(*corev1.Service)) }),
		in.slices:      some(func(o any) []netip.Addr { return in.addressesBehind(o.(*discoveryv1.EndpointSlice)) }),
		in.allocations: some(func(o any) []netip.Addr { return parseAddresses(o.(*herald.IPAllocation).Spec.Address) }),
		in.statuses: onChange(func(before, after any) {
			if after != nil {
				in.observe(after.(*herald.SpeakerStatus).Name, after.(*herald.SpeakerStatus))
			} else {
				in.observe(before.(*herald.SpeakerStatus).Name, nil)
			}
			if !sameInterfaces(before, after) {
				in.touchAll()
				return
			}
			in.touch(claimedAnew(before, after)...)
		}),
		in.leases: onChange(func(before, after any) {
			if after == nil {
				after = before
			}
			in.touchLease(after.(*coordinationv1.Lease).Name)
		}),
	}
	for _, i := range []cache.SharedIndexInformer{in.nodes, in.namespaces, in.secrets, in.pools, in.l2, in.bgp, in.peers} {
		handlers[i] = every
	}
	for i, h := range handlers {
		if _, err := i.AddEventHandler(h); err != nil {
			return nil, err
		}
	}
	return in, nil
}

// everyInformer lists those that are to run.
func (in *inputs) everyInformer() []cache.SharedIndexInformer {
	all := []cache.SharedIndexInformer{
		in.services, in.slices, in.nodes, in.namespaces, in.leases,
		in.allocations, in.pools, in.l2, in.statuses,
	}
	if !in.l2Only {
		all = append(all, in.bgp, in.peers, in.secrets)
	}
	return all
}

// start watches until ctx ends or stop is called.
func (in *inputs) start(ctx context.Context) {
	ctx, in.cancel = context.WithCancel(ctx)
	var synced []cache.InformerSynced
	for _, i := range in.everyInformer() {
		synced = append(synced, i.HasSynced)
		in.watches.Go(func() { i.RunWithContext(ctx) })
	}
	in.watches.Go(func() {
		if cache.WaitForCacheSync(ctx.Done(), synced...) {
			close(in.synced)
		}
	})
}

// stop returns when all watches have ended.
func (in *inputs) stop() {
	in.cancel()
	in.watches.Wait()
}

// touchEverything makes all dirty, the Leases too.
func (in *inputs) touchEverything() {
	for _, key := range in.leases.GetStore().ListKeys() {
		in.touchLease(key[len(in.namespace)+1:])
	}
	in.touchAll()
}

func (in *inputs) touch(addresses ...netip.Addr) {
	if len(addresses) == 0 {
		return // Most of what happens to Services happens to those without an address of ours.
	}
	in.change(func(c *changes) {
		for _, a := range addresses {
			c.addresses[a] = true
		}
	})
}

func (in *inputs) touchLease(name string) { in.change(func(c *changes) { c.leases[name] = true }) }

func (in *inputs) touchAll() { in.change(func(c *changes) { c.all = true }) }

func (in *inputs) change(note func(*changes)) {
	in.mu.Lock()
	note(&in.dirty)
	in.mu.Unlock()
	pull(in.trigger)
}

// pull pulls a trigger of capacity one: pulled twice before it is looked at, it is pulled once.
func pull(trigger chan<- struct{}) {
	select {
	case trigger <- struct{}{}:
	default:
	}
}

// take returns what is dirty, and starts anew.
func (in *inputs) take() changes {
	in.mu.Lock()
	defer in.mu.Unlock()
	c := in.dirty
	in.dirty = noChanges()
	return c
}

// lease returns a speaker's Lease; nil if there is none.
func (in *inputs) lease(name string) *coordinationv1.Lease {
	o, exists, err := in.leases.GetStore().GetByKey(in.namespace + "/" + name)
	if err != nil || !exists {
		return nil
	}
	return o.(*coordinationv1.Lease)
}

// address assembles one address; nil if no Service has it. What this node itself claims is asked of own:
// its status at the API server lags behind.
func (in *inputs) address(address netip.Addr, self string, own func(netip.Addr) (Claim, bool)) *Address {
	o, exists, err := in.allocations.GetStore().GetByKey(herald.AllocationName(address))
	if err != nil || !exists {
		return nil
	}
	rec := o.(*herald.IPAllocation)
	if rec.Status.ReleasedAt != nil {
		return nil
	}
	a := &Address{Addr: address, Pool: rec.Spec.Pool}
	for _, o := range rec.Spec.Owners {
		if svc := in.service(o, address); svc != nil {
			a.Services = append(a.Services, svc)
		}
	}
	if len(a.Services) == 0 {
		return nil
	}
	a.Claims = slices.DeleteFunc(in.claims(address), func(c Claim) bool { return c.Node == self })
	if c, ok := own(address); ok {
		a.Claims = append(a.Claims, c)
	}
	return a
}

// service assembles a Service that an address is recorded for; nil if it is gone or going, or does not
// have the address in its status.
func (in *inputs) service(owner herald.AllocationOwner, address netip.Addr) *Service {
	name := types.NamespacedName{Namespace: owner.Namespace, Name: owner.Name}
	o, exists, err := in.services.GetStore().GetByKey(name.String())
	if err != nil || !exists {
		return nil
	}
	svc := o.(*corev1.Service)
	if svc.UID != owner.UID || svc.DeletionTimestamp != nil || !slices.Contains(addressesOf(svc), address) {
		return nil
	}
	return &Service{
		Name: name, Labels: svc.Labels,
		Local:  svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
		Sticky: svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP,
		Ready:  in.ready(name),
	}
}

// claims lists who says to answer for the address.
func (in *inputs) claims(address netip.Addr) []Claim {
	statuses, err := in.statuses.GetIndexer().ByIndex(byClaim, address.String())
	if err != nil {
		return nil
	}
	var claims []Claim
	for _, o := range statuses {
		status := o.(*herald.SpeakerStatus)
		if c, ok := findClaim(status.Status.Claims, address); ok {
			claims = append(claims, claimOf(status.Name, c))
		}
	}
	slices.SortFunc(claims, func(x, y Claim) int { return cmp.Compare(x.Node, y.Node) })
	return claims
}

// findClaim looks an address up among claims, which are sorted.
func findClaim(claims []herald.SpeakerClaim, address netip.Addr) (herald.SpeakerClaim, bool) {
	i, ok := slices.BinarySearchFunc(claims, address.String(), func(c herald.SpeakerClaim, a string) int { return cmp.Compare(c.Address, a) })
	if !ok {
		return herald.SpeakerClaim{}, false
	}
	return claims[i], true
}

// claimOf is a claim as decisions see it.
func claimOf(node string, c herald.SpeakerClaim) Claim {
	claim := Claim{Node: node}
	if c.Since != nil {
		claim.Since = c.Since.Time
	}
	return claim
}

// status is what the API server is known to have of a node; nil if nothing.
func (in *inputs) status(node string) *herald.SpeakerStatus {
	o, exists, err := in.statuses.GetStore().GetByKey(node)
	if err != nil || !exists {
		return nil
	}
	return o.(*herald.SpeakerStatus)
}

// ready lists the nodes with a ready endpoint of a Service, and "" for endpoints that are on no node.
func (in *inputs) ready(name types.NamespacedName) []string {
	objects, err := in.slices.GetIndexer().ByIndex(bySvc, name.String())
	if err != nil {
		return nil
	}
	var nodes []string
	for _, o := range objects {
		for _, e := range o.(*discoveryv1.EndpointSlice).Endpoints {
			// Nil means ready (discovery/v1, EndpointConditions).
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				nodes = append(nodes, ptr.Deref(e.NodeName, ""))
			}
		}
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// everyAddress lists the addresses of all Services of type LoadBalancer.
func (in *inputs) everyAddress() []netip.Addr {
	var addresses []netip.Addr
	for _, svc := range client.Items[*corev1.Service](in.services.GetStore()) {
		addresses = append(addresses, addressesOf(svc)...)
	}
	return addresses
}

// addressesOf are those in a Service's status.
func addressesOf(svc *corev1.Service) []netip.Addr {
	var addresses []netip.Addr
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		addresses = append(addresses, parseAddresses(ingress.IP)...)
	}
	return addresses
}

// addressesBehind are those of the Service that the slice is of. A Service that is not known yet makes its
// addresses dirty itself when it comes.
func (in *inputs) addressesBehind(slice *discoveryv1.EndpointSlice) []netip.Addr {
	o, exists, err := in.services.GetStore().GetByKey(sliceService(slice).String())
	if err != nil || !exists {
		return nil
	}
	return addressesOf(o.(*corev1.Service))
}

// claimedAnew lists the addresses that are claimed in one of two statuses and not in the other.
func claimedAnew(before, after any) []netip.Addr {
	type claim struct {
		address string
		Claim
	}
	changed := map[claim]int{}
	for _, o := range []any{before, after} {
		if o != nil {
			for _, c := range o.(*herald.SpeakerStatus).Status.Claims {
				changed[claim{c.Address, claimOf("", c)}]++
			}
		}
	}
	var addresses []netip.Addr
	for c, times := range changed {
		if times == 1 {
			addresses = append(addresses, parseAddresses(c.address)...)
		}
	}
	return addresses
}

// onChange calls f with the object before and after, nil for none.
func onChange(f func(before, after any)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { f(nil, o) },
		UpdateFunc: func(before, after any) {
			if before.(metav1.Object).GetResourceVersion() != after.(metav1.Object).GetResourceVersion() {
				f(before, after)
			}
		},
		DeleteFunc: func(o any) {
			if tombstone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = tombstone.Obj
			}
			f(o, nil)
		},
	}
}

// matters reports whether a change of something that all decisions share can change one. A node's
// heartbeat and a pool's status do not.
func matters(before, after any) bool {
	if before == nil || after == nil {
		return true
	}
	b, a := before.(metav1.Object), after.(metav1.Object)
	if !labels.Equals(b.GetLabels(), a.GetLabels()) {
		return true
	}
	switch before := before.(type) {
	case *corev1.Namespace:
		return false
	case *corev1.Node:
		return !slices.Equal(before.Status.Addresses, after.(*corev1.Node).Status.Addresses)
	case *corev1.Secret:
		return string(before.Data[corev1.BasicAuthPasswordKey]) != string(after.(*corev1.Secret).Data[corev1.BasicAuthPasswordKey])
	}
	return b.GetGeneration() != a.GetGeneration()
}

func sameInterfaces(before, after any) bool {
	if before == nil || after == nil {
		return false
	}
	b, a := before.(*herald.SpeakerStatus).Status.Interfaces, after.(*herald.SpeakerStatus).Status.Interfaces
	return slices.EqualFunc(b, a, func(x, y herald.SpeakerInterface) bool {
		return x.Name == y.Name && slices.Equal(x.Subnets, y.Subnets)
	})
}

// strip drops what no decision looks at.
func strip(o any) (any, error) {
	m, err := meta.Accessor(o)
	if err != nil {
		return o, nil // A tombstone.
	}
	m.SetManagedFields(nil)
	switch o := o.(type) {
	case *corev1.Service:
		o.Annotations, o.Spec.Ports, o.Spec.Selector = nil, nil, nil
	case *corev1.Node:
		o.Annotations = nil
		o.Status = corev1.NodeStatus{Addresses: o.Status.Addresses}
	case *corev1.Namespace:
		o.Annotations = nil
	case *discoveryv1.EndpointSlice:
		o.Annotations, o.Ports = nil, nil
		for i := range o.Endpoints {
			e := &o.Endpoints[i]
			o.Endpoints[i] = discoveryv1.Endpoint{NodeName: e.NodeName, Conditions: discoveryv1.EndpointConditions{Ready: e.Conditions.Ready}}
		}
	}
	return o, nil
}

func sliceService(o *discoveryv1.EndpointSlice) types.NamespacedName {
	return types.NamespacedName{Namespace: o.Namespace, Name: o.Labels[discoveryv1.LabelServiceName]}
}

// parseAddresses reads addresses; what cannot be read is left out.
func parseAddresses(texts ...string) []netip.Addr {
	var addresses []netip.Addr
	for _, t := range texts {
		if a, err := netip.ParseAddr(t); err == nil {
			addresses = append(addresses, a)
		}
	}
	return addresses
}

// parseSubnets reads subnets as a SpeakerStatus has them; what cannot be read is left out.
func parseSubnets(texts []string) []netip.Prefix {
	var subnets []netip.Prefix
	for _, t := range texts {
		if p, err := netip.ParsePrefix(strings.TrimSpace(t)); err == nil {
			subnets = append(subnets, p)
		}
	}
	return subnets
}
