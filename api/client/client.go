// Package client reaches Herald's resources: typed clients and informers on client-go's generic ones,
// so that there is no generated client to keep in step.
package client

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
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
	*gentype.ClientWithList[T, L]
	empty T
}

// Set has a client for each kind.
type Set struct {
	Pools             Resource[*herald.IPPool, *herald.IPPoolList]
	Allocations       Resource[*herald.IPAllocation, *herald.IPAllocationList]
	L2Advertisements  Resource[*herald.L2Advertisement, *herald.L2AdvertisementList]
	BGPPeers          Resource[*herald.BGPPeer, *herald.BGPPeerList]
	BGPAdvertisements Resource[*herald.BGPAdvertisement, *herald.BGPAdvertisementList]
	SpeakerStatuses   Resource[*herald.SpeakerStatus, *herald.SpeakerStatusList]
}

// New makes the clients. They share one connection and the rate limit of config. Custom resources
// are JSON: a protobuf content type in config, which suits the built-in kinds, is put aside.
func New(config *rest.Config) (*Set, error) {
	c := rest.CopyConfig(config)
	c.APIPath = "/apis"
	c.GroupVersion = &herald.GroupVersion
	c.NegotiatedSerializer = serializer.NewCodecFactory(Scheme).WithoutConversion()
	c.ContentType, c.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	r, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", herald.GroupVersion, err)
	}
	return &Set{
		Pools:             resource[herald.IPPool, herald.IPPoolList](r, "ippools"),
		Allocations:       resource[herald.IPAllocation, herald.IPAllocationList](r, "ipallocations"),
		L2Advertisements:  resource[herald.L2Advertisement, herald.L2AdvertisementList](r, "l2advertisements"),
		BGPPeers:          resource[herald.BGPPeer, herald.BGPPeerList](r, "bgppeers"),
		BGPAdvertisements: resource[herald.BGPAdvertisement, herald.BGPAdvertisementList](r, "bgpadvertisements"),
		SpeakerStatuses:   resource[herald.SpeakerStatus, herald.SpeakerStatusList](r, "speakerstatuses"),
	}, nil
}

func resource[T, L any, PT interface {
	*T
	object
}, PL interface {
	*L
	runtime.Object
}](r rest.Interface, plural string) Resource[PT, PL] {
	return Resource[PT, PL]{
		ClientWithList: gentype.NewClientWithList[PT, PL](plural, r, parameters, metav1.NamespaceAll,
			func() PT { return PT(new(T)) }, func() PL { return PL(new(L)) }),
		empty: PT(new(T)),
	}
}

// Informer lists and watches the kind. It is not started.
func (r Resource[T, L]) Informer() cache.SharedIndexInformer {
	return cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return r.List(ctx, o)
		},
		WatchFuncWithContext: r.Watch,
	}, r.empty, 0, cache.Indexers{})
}

// Items returns what an informer of the kind T holds, in no order.
func Items[T any](store cache.Store) []T {
	list := store.List()
	items := make([]T, 0, len(list))
	for _, o := range list {
		items = append(items, o.(T))
	}
	return items
}
