// Package client has typed clients and informers for Herald's resources. They are built on client-go's generic ones, so there is
// no generated client to keep up to date.
//
// An object that does not fit its Go type affects no other object: see DecodeError.
package client

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// Scheme knows Herald's kinds and no others.
var Scheme = runtime.NewScheme()

var parameters = runtime.NewParameterCodec(Scheme)

func init() {
	metav1.AddToGroupVersion(Scheme, metav1.SchemeGroupVersion)
	if err := herald.AddToScheme(Scheme); err != nil {
		panic(err) // Only a kind registered twice gets here.
	}
}

// object is a pointer to a resource's Go type.
type object interface {
	runtime.Object
	metav1.Object
}

// Resource is the typed client of one kind.
type Resource[T object, L runtime.Object] struct {
	*gentype.Client[T]
	plural  string
	newItem func() T
	newList func() L
	faults  *faults
}

// Set has a client for each kind.
type Set struct {
	Pools             Resource[*herald.IPPool, *herald.IPPoolList]
	Allocations       Resource[*herald.IPAllocation, *herald.IPAllocationList]
	L2Advertisements  Resource[*herald.L2Advertisement, *herald.L2AdvertisementList]
	BGPPeers          Resource[*herald.BGPPeer, *herald.BGPPeerList]
	BGPAdvertisements Resource[*herald.BGPAdvertisement, *herald.BGPAdvertisementList]
	SpeakerStatuses   Resource[*herald.SpeakerStatus, *herald.SpeakerStatusList]

	faults *faults
}

// New returns the clients. They share one connection and the rate limit of config. Custom resources are JSON: a protobuf
// content type in config, which suits the built-in kinds, is ignored.
func New(config *rest.Config) (*Set, error) {
	c := rest.CopyConfig(config)
	c.APIPath = "/apis"
	c.GroupVersion = &herald.GroupVersion
	c.NegotiatedSerializer = lenient{serializer.NewCodecFactory(Scheme).WithoutConversion()}
	c.ContentType, c.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	r, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", herald.GroupVersion, err)
	}
	f := &faults{known: map[string]map[string]string{}}
	return &Set{
		Pools:             resource[herald.IPPool, herald.IPPoolList](r, f, "ippools"),
		Allocations:       resource[herald.IPAllocation, herald.IPAllocationList](r, f, "ipallocations"),
		L2Advertisements:  resource[herald.L2Advertisement, herald.L2AdvertisementList](r, f, "l2advertisements"),
		BGPPeers:          resource[herald.BGPPeer, herald.BGPPeerList](r, f, "bgppeers"),
		BGPAdvertisements: resource[herald.BGPAdvertisement, herald.BGPAdvertisementList](r, f, "bgpadvertisements"),
		SpeakerStatuses:   resource[herald.SpeakerStatus, herald.SpeakerStatusList](r, f, "speakerstatuses"),
		faults:            f,
	}, nil
}

// OnDecodeError sets the function that is called once for each version of an object that lists, watches and informers leave
// out from now on. This includes versions that were already reported to another function. Calls of report do not overlap.
func (s *Set) OnDecodeError(report func(*DecodeError)) {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.report = report
	for _, known := range s.faults.known {
		clear(known)
	}
}

func resource[T, L any, PT interface {
	*T
	object
}, PL interface {
	*L
	runtime.Object
}](r rest.Interface, f *faults, plural string) Resource[PT, PL] {
	newItem := func() PT { return PT(new(T)) }
	f.known[plural] = map[string]string{}
	return Resource[PT, PL]{
		Client: gentype.NewClient[PT](plural, r, parameters, metav1.NamespaceAll, newItem),
		plural: plural, newItem: newItem, newList: func() PL { return PL(new(L)) }, faults: f,
	}
}

// Get returns the object with the given name. Together with a *DecodeError it returns an object with only the metadata, which
// is enough to overwrite the stored object.
func (r Resource[T, L]) Get(ctx context.Context, name string, options metav1.GetOptions) (T, error) {
	result := r.GetClient().Get().Resource(r.plural).Name(name).VersionedParams(&options, parameters).Do(ctx)
	o, empty := r.newItem(), r.newItem()
	if err := result.Error(); err != nil {
		return empty, err
	}
	data, err := result.Raw()
	if err != nil {
		return empty, err
	}
	if err := utiljson.Unmarshal(data, o); err != nil {
		partial, err := r.undecodable(data, err)
		copyMetadata(empty, partial)
		return empty, err
	}
	o.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{}) // As client-go does.
	return o, nil
}

// List returns the objects that can be decoded. The others are reported (OnDecodeError).
func (r Resource[T, L]) List(ctx context.Context, options metav1.ListOptions) (L, error) {
	return r.list(ctx, options, r.none)
}

// none is the function last for callers that keep no objects.
func (r Resource[T, L]) none(string) (T, bool) { return r.newItem(), false }

// list lists the objects. For an object that cannot be decoded any more, last returns the last version that could be decoded.
func (r Resource[T, L]) list(ctx context.Context, options metav1.ListOptions, last func(name string) (T, bool)) (L, error) {
	var timeout time.Duration
	if options.TimeoutSeconds != nil {
		timeout = time.Duration(*options.TimeoutSeconds) * time.Second
	}
	result := r.GetClient().Get().Resource(r.plural).VersionedParams(&options, parameters).Timeout(timeout).Do(ctx)
	if err := result.Error(); err != nil {
		return r.newList(), err
	}
	data, err := result.Raw()
	if err != nil {
		return r.newList(), err
	}
	list := r.newList()
	var unreadable map[string]bool
	if utiljson.Unmarshal(data, list) != nil { // This fails only if an item does not fit its type.
		if list, unreadable, err = r.itemByItem(data, last); err != nil {
			return list, err
		}
	}
	if of, err := meta.ListAccessor(list); err == nil && options.LabelSelector+options.FieldSelector+options.Continue+of.GetContinue() == "" {
		r.faults.only(r.plural, unreadable)
	}
	return list, nil
}

// itemByItem decodes a list in which some items do not fit their type. It also returns the names of these items.
func (r Resource[T, L]) itemByItem(data []byte, last func(name string) (T, bool)) (L, map[string]bool, error) {
	list := r.newList()
	var raw struct {
		metav1.TypeMeta `json:",inline"`
		metav1.ListMeta `json:"metadata"`
		Items           []json.RawMessage `json:"items"`
	}
	if err := utiljson.Unmarshal(data, &raw); err != nil {
		return list, nil, fmt.Errorf("list of %s: %w", r.plural, err)
	}
	var items []runtime.Object
	unreadable := map[string]bool{}
	for _, text := range raw.Items {
		o := r.newItem()
		if err := utiljson.Unmarshal(text, o); err != nil {
			partial, err := r.undecodable(text, err)
			r.faults.found(err)
			unreadable[partial.Name] = true
			var known bool
			if o, known = last(partial.Name); !known {
				continue
			}
			copyMetadata(o, partial)
		}
		items = append(items, o)
	}
	if err := meta.SetList(list, items); err != nil {
		return list, nil, err
	}
	of, err := meta.ListAccessor(list)
	if err != nil {
		return list, nil, err
	}
	of.SetResourceVersion(raw.ResourceVersion)
	of.SetContinue(raw.Continue)
	of.SetRemainingItemCount(raw.RemainingItemCount)
	return list, unreadable, nil
}

// Watch watches the objects. An event with an object that cannot be decoded is left out and reported (OnDecodeError). If the
// event says that the object was deleted, it is delivered with only the object's metadata.
func (r Resource[T, L]) Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	return r.watch(ctx, options, r.none)
}

// watch is like list.
func (r Resource[T, L]) watch(ctx context.Context, options metav1.ListOptions, last func(name string) (T, bool)) (watch.Interface, error) {
	w, err := r.Client.Watch(ctx, options)
	if err != nil {
		return nil, err
	}
	return watch.Filter(w, func(e watch.Event) (watch.Event, bool) {
		u, ok := e.Object.(*undecodable)
		if !ok {
			if o, is := e.Object.(T); is { // Not a bookmark or a Status.
				r.faults.over(r.plural, o.GetName())
			}
			return e, true
		}
		o, known := last(u.Name)
		if e.Type == watch.Deleted {
			r.faults.over(r.plural, u.Name)
		} else {
			r.faults.found(&DecodeError{Resource: r.plural, Name: u.Name, version: u.ResourceVersion, Err: u.err})
			if !known {
				return e, false
			}
		}
		copyMetadata(o, &u.PartialObjectMetadata)
		e.Object = o
		return e, true
	}), nil
}

// Informer returns an informer for the kind that is not started. If an object cannot be decoded any more, the informer keeps the
// last version that could be decoded, with the new metadata.
func (r Resource[T, L]) Informer() cache.SharedIndexInformer {
	var informer cache.SharedIndexInformer
	last := func(name string) (T, bool) {
		o, exists, err := informer.GetStore().GetByKey(name)
		if err != nil || !exists {
			return r.newItem(), false
		}
		known, ok := o.(T)
		if !ok {
			return r.newItem(), false // A transform has changed its type.
		}
		return known.DeepCopyObject().(T), true // Other goroutines read the original.
	}
	informer = cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return r.list(ctx, o, last)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return r.watch(ctx, o, last)
		},
	}, r.newItem(), 0, cache.Indexers{})
	return informer
}

// Items returns the objects in the store of an informer for the kind T, in no particular order.
func Items[T any](store cache.Store) []T {
	list := store.List()
	items := make([]T, 0, len(list))
	for _, o := range list {
		items = append(items, o.(T))
	}
	return items
}
