package v1alpha1

import (
	"fmt"
	"net/netip"
	"strings"
)

const (
	// LoadBalancerClass is the default load-balancer class of herald-ccm: spec.loadBalancerClass of a Service.
	LoadBalancerClass = "herald.dev/herald"

	// AnnotationPool on a Service names the IPPool from which the Service wants its addresses.
	AnnotationPool = "herald.dev/pool"
	// AnnotationIPs on a Service lists the addresses that the Service wants, separated by commas.
	AnnotationIPs = "herald.dev/ips"
	// AnnotationAddresses on a Service is the number of addresses of each family that the Service wants. Without it the
	// number is one.
	AnnotationAddresses = "herald.dev/addresses"
	// AnnotationSharingKey on Services lets Services with equal keys share an address.
	AnnotationSharingKey = "herald.dev/sharing-key"
	// AnnotationReclaim on a Service is the ReclaimPolicy of its addresses.
	AnnotationReclaim = "herald.dev/reclaim"
	// AnnotationRenumber on a Service lists addresses that the Service is to give up for others, separated by commas. When
	// the Service has others, the annotation has no effect any more and can be removed.
	AnnotationRenumber = "herald.dev/renumber"
	// AnnotationQuota on a Namespace is the number of addresses that the namespace may hold from all pools together, such
	// as "ipv4=5,ipv6=5".
	AnnotationQuota = "herald.dev/quota"

	// The following are on the IPAddressClaims that herald-ccm creates: a label that all of them have, and annotations with
	// the IPPool, with the namespace, the name and the UID of the Service, and with the class of the herald-ccm.
	LabelManagedBy, LabelManagedByValue = "app.kubernetes.io/managed-by", "herald-ccm"
	AnnotationClaimPool                 = "herald.dev/ippool"
	AnnotationClaimNamespace            = "herald.dev/service-namespace"
	AnnotationClaimName                 = "herald.dev/service-name"
	AnnotationClaimUID                  = "herald.dev/service-uid"
	AnnotationClaimClass                = "herald.dev/class"

	// LabelMoved is on the Nodes from which Herald announces in place of another load balancer, while a cluster moves to
	// Herald node by node.
	LabelMoved = "herald.dev/moved"
	// AnnotationUpdateStrategy on a DaemonSet of another load balancer is the type of its update strategy before the
	// cluster began to move to Herald.
	AnnotationUpdateStrategy = "herald.dev/update-strategy"

	// PoolFinalizer keeps a deleted IPPool until no Service has an address of it.
	PoolFinalizer = "herald.dev/in-use"

	// SpeakerLeasePrefix and the name of a node are the name of the Lease of the speaker on that node.
	SpeakerLeasePrefix = "speaker-"
	// SpeakerLeaseLabel is a label of the Leases of speakers. Its value is SpeakerLeaseLabelValue.
	SpeakerLeaseLabel, SpeakerLeaseLabelValue = "app.kubernetes.io/component", "speaker"
)

// AllocationName returns the name of the IPAllocation of an address. It is the address itself, and for IPv6 the address
// written in full with dashes in place of colons. So each address has exactly one name, and the API server refuses a second
// record of it.
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
