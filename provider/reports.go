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

// Clocks of nodes differ. A time that lies further in the future than clockSkew cannot be one at which something was
// seen.
const clockSkew = 10 * time.Second

// Limits of the lists of a SpeakerStatus that are read here, which are the schema's: of the lists of the status, and of the
// subnets and the gateways of an interface.
const (
	maxEntries  = 64
	maxNetworks = 16
)

// maxSubnets is how many subnets of a node are read, of all its interfaces together: every pool is compared with each.
const maxSubnets = 256

// report is what herald-ccm reads of a SpeakerStatus. Its name is that of the node.
type report struct {
	metav1.ObjectMeta
	deaths    []herald.SpeakerDeath
	conflicts []herald.SpeakerConflict
	speaker   configuration.Speaker
}

// newReports returns an informer of reports.
//
// Whoever controls a node writes its SpeakerStatus, and a list of typed objects fails as a whole if one of them cannot
// be decoded. So the objects are read without types, and each entry of theirs is decoded by itself.
func newReports(c dynamic.Interface) cache.SharedIndexInformer {
	r := c.Resource(herald.GroupVersion.WithResource("speakerstatuses"))
	i := cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return r.List(ctx, o) },
		WatchFuncWithContext: r.Watch,
	}, &unstructured.Unstructured{}, 0, cache.Indexers{})
	_ = i.SetTransform(func(o any) (any, error) { // It fails only on a started informer.
		if u, ok := o.(*unstructured.Unstructured); ok {
			return reportOf(u), nil
		}
		return o, nil // A tombstone, or what was transformed before.
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

// speakerOf reads what the status of configuration objects rests on, without what changes often.
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
		s.Sessions = append(s.Sessions, herald.SpeakerSession{Peer: o.Peer, State: o.State, Reason: o.Reason, BFD: o.BFD, BFDReason: o.BFDReason})
	}
	return s
}

// entries decodes a list, without what it cannot decode and without what comes after the first so many.
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

// reported reads when something was seen. It fails if the text is no time, or one that is not to be believed.
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

// plainAddress reads an address without a zone. An IPv4 address in IPv6 notation is the IPv4 address.
func plainAddress(text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	return a.Unmap(), err == nil && a.Zone() == ""
}
