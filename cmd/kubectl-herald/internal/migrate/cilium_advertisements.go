package migrate

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

type ciliumAdvertisement struct {
	Advertisements []ciliumEntry `json:"advertisements"`
}

type ciliumEntry struct {
	Type    string `json:"advertisementType"`
	Service *struct {
		Addresses []string `json:"addresses"`
		IPv4      *int32   `json:"aggregationLengthIPv4"`
		IPv6      *int32   `json:"aggregationLengthIPv6"`
	} `json:"service"`
	Selector   *metav1.LabelSelector `json:"selector"`
	Attributes *ciliumAttributes     `json:"attributes"`
}

// advertisement translates each entry about load-balancer addresses into a BGPAdvertisement.
func (c *cilium) advertisement(i *item) {
	var spec ciliumAdvertisement
	if !decode(i, &spec) {
		return
	}
	peers := c.subscribers(i)
	var objects []runtime.Object
	for n, entry := range spec.Advertisements {
		field := fmt.Sprintf("spec.advertisements[%d]", n)
		if !entry.announces(i, field) {
			continue
		}
		if len(peers) == 0 {
			i.approximated("%s: no peer's families select this CiliumBGPAdvertisement, so nothing is written", field)
			continue
		}
		a := newBGPAdvertisement(numbered(i.u.GetName(), len(objects)))
		a.Spec.Peers = peers
		a.Spec.WithoutEndpoints = herald.EndpointsAnnounce // as Cilium does
		var ok bool
		if a.Spec.ServiceSelector, a.Spec.NamespaceSelector, ok = ciliumServices(entry.Selector); !ok {
			i.cannot("%s.selector: %s, and import again", field, byName)
			continue
		}
		a.Spec.AggregationLength = i.aggregation(field+".service", entry.Service.IPv4, entry.Service.IPv6, func(length, _ int32) {
			i.cannot("%s.service: Herald announces no network of the length %d: addresses are announced by themselves", field, length)
		})
		if t := entry.Attributes; t != nil {
			t.apply(i, field+".attributes", &a.Spec)
		}
		objects = append(objects, a)
	}
	i.becomes(objects...)
}

// announces reports whether the entry announces load-balancer addresses. It notes what else the entry
// announces.
func (e *ciliumEntry) announces(i *item, field string) bool {
	if e.Type != "Service" {
		i.cannot("%s: Herald announces addresses of Services only: leave %s to Cilium", field, e.Type)
		return false
	}
	if e.Service == nil || !slices.Contains(e.Service.Addresses, "LoadBalancerIP") {
		i.cannot("%s.service.addresses has no LoadBalancerIP, and Herald announces nothing else: leave it to Cilium", field)
		return false
	}
	for _, kind := range e.Service.Addresses {
		if kind != "LoadBalancerIP" {
			i.cannot("%s.service.addresses: Herald does not announce %s: leave that to Cilium, or make the Services of type LoadBalancer", field, kind)
		}
	}
	if e.Selector == nil {
		i.approximated("%s has no selector, which selects nothing in Cilium: nothing is written", field)
		return false
	}
	return true
}

// subscribers returns the BGPPeers whose CiliumBGPPeerConfig selects the advertisement, in one family or
// both.
func (c *cilium) subscribers(i *item) (peers []string) {
	for _, name := range sortedKeys(c.configs) {
		config := c.configs[name]
		in := map[string]bool{}
		for _, f := range config.Families {
			if f.Advertisements == nil {
				continue
			}
			if s, err := metav1.LabelSelectorAsSelector(f.Advertisements); err == nil && s.Matches(labels.Set(i.u.GetLabels())) {
				in[f.AFI] = true
			}
		}
		if len(in) == 0 {
			continue
		}
		if len(in) < len(config.Families) {
			i.approximated("CiliumBGPPeerConfig %s selects it for %s only: Herald announces it in both families", name, strings.Join(slices.Sorted(maps.Keys(in)), ", "))
		}
		peers = append(peers, config.peers...)
	}
	slices.Sort(peers)
	return slices.Compact(peers)
}
