package provider

import (
	"context"
	"net/netip"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/provider/configuration"
)

// The clocks of nodes differ. A time that is later than now plus clockSkew cannot be the time of an observation.
const clockSkew = 10 * time.Second

// The limits of the lists of a SpeakerStatus that are read here, as in the schema: of the lists in the status, and of the
// subnets and the gateways of an interface.
const (
	maxEntries  = 64
	maxNetworks = 16
)

// maxSubnets is the most subnets of a node, over all its interfaces, that are read. Every pool is compared with each.
const maxSubnets = 256

// report is the part of a SpeakerStatus that herald-ccm reads. Its name is the name of the node.
type report struct {
	metav1.ObjectMeta
	deaths    []herald.SpeakerDeath
	conflicts []herald.SpeakerConflict
	speaker   configuration.Speaker
}

// newReports returns an informer of reports.
//
// Whoever controls a node writes its SpeakerStatus. If one object of a typed list cannot be decoded, the whole list fails.
// Therefore the objects are read without types, and each of their entries is decoded separately.
func newReports(c dynamic.Interface) cache.SharedIndexInformer {
	r := c.Resource(herald.GroupVersion.WithResource("speakerstatuses"))
	i := cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return r.List(ctx, o) },
		WatchFuncWithContext: r.Watch,
	}, &unstructured.Unstructured{}, 0, cache.Indexers{})
	_ = i.SetTransform(func(o any) (any, error) { // SetTransform fails only for a started informer.
		if u, ok := o.(*unstructured.Unstructured); ok {
			return reportOf(u), nil
		}
		return o, nil // a tombstone, or an object that is already transformed
	})
	return i
}

func reportOf(u *unstructured.Unstructured) *report {
	status, _ := u.Object["status"].(map[string]any)
	return &report{
		ObjectMeta: metav1.ObjectMeta{Name: u.GetName(), UID: u.GetUID(), ResourceVersion: u.GetResourceVersion()},
		deaths:     entries[herald.SpeakerDeath](status["deaths"], maxEntries),
		conflicts:  entries[herald.SpeakerConflict](status["conflicts"], maxEntries),
		speaker:    speakerOf(status),
	}
}

// speakerOf reads the input of an assessment from a SpeakerStatus, without the parts that change often.
func speakerOf(status map[string]any) (s configuration.Speaker) {
	s.Problem, _ = status["problem"].(string)
	subnets := 0
	for _, i := range entries[herald.SpeakerInterface](status["interfaces"], maxEntries) {
		o := configuration.Interface{Name: i.Name}
		for _, text := range i.Subnets[:min(len(i.Subnets), maxNetworks)] {
			if p, err := netip.ParsePrefix(text); err == nil && subnets < maxSubnets {
				o.Subnets = append(o.Subnets, p)
				subnets++
			}
		}
		for _, text := range i.Gateways[:min(len(i.Gateways), maxNetworks)] {
			if a, ok := plainAddress(text); ok {
				o.Gateways = append(o.Gateways, a)
			}
		}
		s.Interfaces = append(s.Interfaces, o)
	}
	for _, o := range entries[herald.SpeakerSession](status["sessions"], maxEntries) {
		s.Sessions = append(s.Sessions, herald.SpeakerSession{Peer: o.Peer, State: o.State, Reason: o.Reason, Withheld: o.Withheld, BFD: o.BFD, BFDReason: o.BFDReason})
	}
	return s
}

// entries decodes the first entries of a list, up to the limit most, and leaves out those that it cannot decode.
func entries[T any](list any, most int) (decoded []T) {
	items, _ := list.([]any)
	for _, item := range items[:min(len(items), most)] {
		var entry T
		fields, ok := item.(map[string]any)
		if ok && runtime.DefaultUnstructuredConverter.FromUnstructured(fields, &entry) == nil {
			decoded = append(decoded, entry)
		}
	}
	return decoded
}

// reported parses the time of an observation. It returns false if the text is not a time, or the time is not plausible.
func reported(at string, now time.Time) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, at)
	if err != nil || t.After(now.Add(clockSkew)) {
		return time.Time{}, false
	}
	if t.After(now) {
		t = now
	}
	return t, true
}

// plainAddress parses an address without a zone. An IPv4-mapped IPv6 address is returned as an IPv4 address.
func plainAddress(text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	return a.Unmap(), err == nil && a.Zone() == ""
}
