package v1alpha1

import (
	"fmt"
	"net/netip"
	"strings"
)

const (
	// LoadBalancerClass in a Service's spec.loadBalancerClass asks for Herald by name.
	LoadBalancerClass = "herald.dev/herald"

	// AnnotationPool on a Service names the IPPool that its addresses are to come from.
	AnnotationPool = "herald.dev/pool"
	// AnnotationIPs on a Service lists the addresses that it wants, one per family, separated by commas.
	AnnotationIPs = "herald.dev/ips"
	// AnnotationAddresses on a Service is how many addresses of each family it wants; one if it is not given.
	AnnotationAddresses = "herald.dev/addresses"
	// AnnotationSharingKey on Services lets those with equal keys share an address.
	AnnotationSharingKey = "herald.dev/sharing-key"
	// AnnotationReclaim on a Service is the ReclaimPolicy of its addresses.
	AnnotationReclaim = "herald.dev/reclaim"
	// AnnotationRenumber on a Service lists addresses that it is to move off, separated by commas. It has done its
	// work when the Service has others, and can be removed then.
	AnnotationRenumber = "herald.dev/renumber"
	// AnnotationQuota on a Namespace says how many addresses it may hold of all pools together, as "ipv4=5,ipv6=5".
	AnnotationQuota = "herald.dev/quota"

	// LabelMoved is on the Nodes from which Herald announces in place of another load balancer, while a cluster moves to
	// Herald node by node.
	LabelMoved = "herald.dev/moved"
	// AnnotationUpdateStrategy on a DaemonSet of another load balancer is the type of its update strategy before the
	// cluster began to move to Herald.
	AnnotationUpdateStrategy = "herald.dev/update-strategy"

	// PoolFinalizer keeps a deleted IPPool until its last address is free.
	PoolFinalizer = "herald.dev/in-use"

	// SpeakerLeasePrefix and the name of a node make the name of the Lease of its speaker.
	SpeakerLeasePrefix = "speaker-"
	// SpeakerLeaseLabel has SpeakerLeaseLabelValue on the Leases of speakers.
	SpeakerLeaseLabel, SpeakerLeaseLabelValue = "app.kubernetes.io/component", "speaker"
)

// AllocationName is the name of the IPAllocation that records an address: the address itself, for
// IPv6 written in full with dashes for colons, so that one address has one name and the API server
// refuses a second record of it.
func AllocationName(address netip.Addr) string {
	if address.Is4() {
		return address.String()
	}
	return strings.ReplaceAll(address.StringExpanded(), ":", "-")
}

// ParseAllocationName is the inverse of AllocationName.
func ParseAllocationName(name string) (netip.Addr, error) {
	address, err := netip.ParseAddr(strings.ReplaceAll(name, "-", ":"))
	if err != nil || AllocationName(address) != name {
		return netip.Addr{}, fmt.Errorf("%q is not the name of an IPAllocation: name it by its address, %s or %s",
			name, "198.51.100.7", "2001-0db8-0000-0000-0000-0000-0000-0007")
	}
	return address, nil
}
