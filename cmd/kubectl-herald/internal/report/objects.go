package report

import (
	"fmt"
	"net/netip"
	"slices"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
	"github.com/heraldlb/herald/provider"
	"github.com/heraldlb/herald/provider/configuration"
)

// Objects are the objects of a cluster, in any order. Each report says which of them it needs.
type Objects struct {
	Pools             []*herald.IPPool
	Allocations       []*herald.IPAllocation
	L2Advertisements  []*herald.L2Advertisement
	BGPAdvertisements []*herald.BGPAdvertisement
	BGPPeers          []*herald.BGPPeer
	Speakers          []*herald.SpeakerStatus

	Nodes      []*corev1.Node
	Namespaces []*corev1.Namespace
	Services   []*corev1.Service
	Endpoints  []*discoveryv1.EndpointSlice
	// Leases are those of the speakers and of herald-ccm; nil if they cannot be read.
	Leases []*coordinationv1.Lease

	// Grants are the addresses that other systems granted; nil if no pool has spec.externalPoolRef, or if they cannot be read.
	Grants *provider.Grants

	// Warnings are the warning events of the Service to explain; nil if they cannot be read.
	Warnings []*corev1.Event

	// Only preflight uses the following.
	ServiceCIDRs []*networkingv1.ServiceCIDR
	// Definitions are the CustomResourceDefinitions of Herald's API group.
	Definitions  []*apiextensionsv1.CustomResourceDefinition
	ProxyConfigs []*corev1.ConfigMap // Those in kube-system that configure kube-proxy, or what replaces it.
	DaemonSets   []*appsv1.DaemonSet
	Deployments  []*appsv1.Deployment
	Pods         []*corev1.Pod
	CiliumPools  []string // The names of the CiliumLoadBalancerIPPools.
	Policies     []*admissionv1.ValidatingAdmissionPolicy
	Bindings     []*admissionv1.ValidatingAdmissionPolicyBinding

	// Unseen are the resources that the user may not read, such as "nodes". Their lists are empty.
	Unseen []string
	// Unread has, for each object that exists but could not be decoded, its name and the reason.
	Unread []string
}

// held returns the content of the records, in the order of Allocations. It notes records that cannot be decoded in
// Unread, and leaves out records without an address.
func (o *Objects) held() []ipam.Record {
	held := make([]ipam.Record, 0, len(o.Allocations))
	o.Allocations = slices.DeleteFunc(slices.Clone(o.Allocations), func(rec *herald.IPAllocation) bool {
		address, tenants, err := provider.TenantsOf(rec)
		if err == nil && (address.Zone() != "" || address.Is4In6()) {
			address, err = netip.Addr{}, fmt.Errorf("spec.address: %s is not written as the API server would take it", address)
		}
		if err != nil {
			text := Clean(fmt.Sprintf("IPAllocation %s cannot be read: %v: correct it, or delete it if no Service has the address", rec.Name, err))
			if !slices.Contains(o.Unread, text) {
				o.Unread = append(o.Unread, text)
			}
		}
		if !address.IsValid() {
			return true
		}
		held = append(held, ipam.Record{Address: address, Pool: rec.Spec.Pool, Tenants: tenants})
		return false
	})
	return held
}

// occupied returns the addresses that herald-ccm never assigns, such as those of nodes, their gateways and BGPPeers,
// each with a description. It needs BGPPeers, Nodes and Speakers.
func (o *Objects) occupied() map[netip.Addr]string {
	c := o.network()
	return c.Occupied()
}

// network returns what is known about the network: advertisements, BGPPeers, Nodes, and the speakers' reports of the nodes' interfaces.
func (o *Objects) network() configuration.Cluster {
	c := configuration.Cluster{
		L2Advertisements: o.L2Advertisements, BGPAdvertisements: o.BGPAdvertisements, Peers: o.BGPPeers, Nodes: o.Nodes, Speakers: map[string]configuration.Speaker{},
	}
	for _, s := range o.Speakers {
		var of configuration.Speaker
		for _, i := range s.Status.Interfaces {
			x := configuration.Interface{Name: i.Name}
			for _, text := range i.Subnets {
				if p, err := netip.ParsePrefix(text); err == nil {
					x.Subnets = append(x.Subnets, p)
				}
			}
			for _, text := range i.Gateways {
				if gateway, err := netip.ParseAddr(text); err == nil {
					x.Gateways = append(x.Gateways, gateway.Unmap().WithZone(""))
				}
			}
			of.Interfaces = append(of.Interfaces, x)
		}
		of.Problem = s.Status.Problem
		c.Speakers[s.Name] = of
	}
	return c
}

// unreadable returns the problems of objects that could not be decoded.
func (o *Objects) unreadable() []problem {
	all := []problem{}
	for _, text := range o.Unread {
		all = append(all, problem{Kind: unreadable, Nodes: []string{}, Text: text})
	}
	return all
}

// sees reports whether all of these resources could be read.
func (o *Objects) sees(resources ...string) bool {
	return !slices.ContainsFunc(resources, func(r string) bool { return slices.Contains(o.Unseen, r) })
}

// sort orders pools and records by age, as herald-ccm does, and removes control characters from text that nodes have
// written.
func (o *Objects) sort() {
	slices.SortFunc(o.Pools, func(x, y *herald.IPPool) int { return provider.Older(x, y) })
	slices.SortFunc(o.Allocations, func(x, y *herald.IPAllocation) int { return provider.Older(x, y) })
	for _, s := range o.Speakers {
		cleanAll(&s.Status)
	}
}
