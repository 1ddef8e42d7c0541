package speaker

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// history makes changes of objects as an API server does, and passes them to a loop. Some changes are made while the watch is
// interrupted: then the loop sees only the difference.
type history struct {
	*rand.Rand
	t       *testing.T
	loop    *loop
	objects map[string]metav1.Object // as the informers have them, by kind and name
	count   int
}

func (h *history) id() string {
	h.count++
	return fmt.Sprint(h.count)
}

func (h *history) label(key string) map[string]string {
	return map[string]string{key: string(rune('a' + h.IntN(2)))}
}

func (h *history) selector(key string) *metav1.LabelSelector {
	if h.IntN(4) > 0 {
		return nil
	}
	return &metav1.LabelSelector{MatchLabels: h.label(key)}
}

// any returns an object in one of its possible states. Its spec does not include the metadata that an API server sets.
func (h *history) any() metav1.Object {
	const first, second = "198.51.100.7", "198.51.100.8"
	address := []string{first, second}[h.IntN(2)]
	name := []string{"web", "mail"}[h.IntN(2)]
	node := fmt.Sprint("n", 1+h.IntN(3))
	switch h.IntN(9) {
	case 0:
		svc := serviceNamed(name, [][]string{{first, second}, {address}}[h.IntN(2)]...)
		svc.Labels, svc.Annotations = h.label("app"), nil
		if h.IntN(4) == 0 {
			svc.Annotations = map[string]string{herald.AnnotationBGPAnnounce: "false"}
		}
		if h.IntN(3) == 0 {
			svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		}
		return svc
	case 1:
		return slice(name+"-a", types.NamespacedName{Namespace: web.Namespace, Name: []string{"web", "mail"}[h.IntN(2)]}, endpoint(node, new(h.IntN(4) > 0)))
	case 2:
		rec := sharedBy(address, [][]string{{"web"}, {"mail"}, {"web", "mail"}}[h.IntN(3)]...)
		rec.Spec.Pool = []string{"public", "public", "other"}[h.IntN(3)]
		if h.IntN(8) == 0 {
			rec = released(rec)
		}
		return rec
	case 3:
		o := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node, Labels: h.label("rack")}}
		// A node that loses the annotation goes on with its last value.
		o.Annotations = map[string]string{"router": []string{first, "198.18.0.253", "198.18.0.252", "198.18.0.251"}[h.IntN(4)]}
		if h.IntN(8) == 0 {
			o.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: second}}
		}
		if h.IntN(6) == 0 {
			o.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeOutOfService}}
		}
		return o
	case 4:
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: web.Namespace, Labels: h.label("team")}}
	case 5:
		ranges := []herald.AddressRange{"198.51.100.0/28", "198.51.100.7", "203.0.113.0/24"}
		return &herald.IPPool{
			ObjectMeta: metav1.ObjectMeta{Name: []string{"public", "other"}[h.IntN(2)], Labels: h.label("zone")},
			Spec:       herald.IPPoolSpec{Addresses: []herald.AddressRange{ranges[h.IntN(3)]}},
		}
	case 6:
		o := &herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: []string{"a", "b"}[h.IntN(2)]}}
		o.Spec.PoolSelector, o.Spec.NamespaceSelector = h.selector("zone"), h.selector("team")
		o.Spec.ServiceSelector, o.Spec.NodeSelector, o.Spec.PeerSelector = h.selector("app"), h.selector("rack"), h.selector("role")
		o.Spec.ServiceOverrides = []herald.ServiceOverride{herald.OverrideAnnounce}
		o.Spec.Prepend = int32(h.IntN(2)) //nolint:gosec // Small.
		if h.IntN(2) == 0 {
			o.Spec.AggregationLength = &herald.AggregationLength{IPv4: 29}
		}
		return o
	case 7:
		o := &herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor", Labels: h.label("role")}, Spec: herald.BGPPeerSpec{LocalASN: 64512, PeerASN: 64513, Address: "198.18.0.254"}}
		o.Spec.NodeSelector = h.selector("rack")
		if h.IntN(8) == 0 {
			o.Spec.Address = second
		}
		return o
	}
	return &herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "spine", Labels: h.label("role")}, Spec: herald.BGPPeerSpec{
		LocalASN: 64512, PeerASN: 64514, AddressFrom: &herald.PeerAddressSource{NodeAnnotation: "router"},
	}}
}

// change makes one change.
func (h *history) change() string {
	o := h.any()
	key := fmt.Sprintf("%T %s", o, o.GetName())
	before := h.objects[key]
	uid := o.GetUID() // Records name the UIDs of Services.
	if uid == "" {
		uid = types.UID(h.id())
	}
	o.SetUID(uid)
	o.SetGeneration(1)
	o.SetResourceVersion(h.id())
	in := h.loop.s.inputs
	informer := informerOf(h.t, in, o)
	handler := in.handlers()[informer]
	stripped, err := in.strip(o.(runtime.Object).DeepCopyObject())
	if err != nil {
		h.t.Fatal(err)
	}
	after := stripped.(metav1.Object)
	switch kind := h.IntN(8); {
	case before == nil:
		h.objects[key] = after
		_ = informer.GetStore().Add(after)
		handler.OnAdd(after, false)
		return "new: " + key
	case kind == 0:
		delete(h.objects, key)
		_ = informer.GetStore().Delete(before)
		handler.OnDelete(before)
		return "gone: " + key
	case kind <= 2: // It was deleted and created again while the watch was interrupted.
		h.objects[key] = after
		_ = informer.GetStore().Update(after)
		handler.OnUpdate(before, after)
		return "another: " + key
	}
	after.SetUID(before.GetUID())
	after.SetGeneration(before.GetGeneration() + 1)
	h.objects[key] = after
	_ = informer.GetStore().Update(after)
	handler.OnUpdate(before, after)
	return "changed: " + key
}

// Whatever changes, and in whatever order, the decisions are those of a speaker that starts now.
func TestDecisionsDependOnlyOnWhatThereIs(t *testing.T) {
	announced := 0
	for seed := range uint64(6) {
		h := &history{Rand: rand.New(rand.NewPCG(seed, 0)), t: t, loop: loopOf(t, "n1"), objects: map[string]metav1.Object{}}
		l := h.loop
		l.shared = nil
		var changes []string
		for range 200 {
			for range 1 + h.IntN(3) {
				changes = append(changes, h.change())
			}
			pull(l.s.inputs.trigger)
			for len(l.s.inputs.trigger) > 0 {
				<-l.s.inputs.trigger
				l.pass(l.s.inputs.take())
			}
			anew := loopOf(t, "n1", slices.Collect(maps.Values(h.objects))...)
			anew.shared = nil
			anew.pass(noChanges())
			for _, d := range anew.decisions {
				announced += len(d.Exports) + len(d.Aggregates)
			}
			same := append([]gocmp.Option{gocmp.AllowUnexported(aggregateBy{})}, alike...)
			if diff := gocmp.Diff(anew.decisions, l.decisions, same...) + gocmp.Diff(anew.aggregates.addresses, l.aggregates.addresses, same...); diff != "" {
				t.Fatalf("seed %d: after %q (-want +got):\n%s", seed, changes[max(0, len(changes)-5):], diff)
			}
		}
	}
	if announced < 100 {
		t.Errorf("only %d routes are announced", announced)
	}
}
