package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// IPAllocation records that an address is in use or reserved. Its name is the address, so the API server refuses to record
// an address twice. Herald writes an IPAllocation for each address that it gives out. An IPAllocation that a user writes
// reserves its address: with an owner that has no uid, for the Service of that namespace and name; without an owner, so
// that no Service gets it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=halloc,categories=herald
// +kubebuilder:validation:XValidation:rule="self.metadata.name.contains('-') ? size(self.metadata.name) == 39 && isIP(self.metadata.name.replace('-', ':')) && isIP(self.spec.address) && ip(self.metadata.name.replace('-', ':')) == ip(self.spec.address) : self.metadata.name == self.spec.address && isIP(self.spec.address)",message="metadata.name must be spec.address: unchanged for IPv4; for IPv6 in full, with dashes in place of colons (2001-0db8-0000-0000-0000-0000-0000-0007)"
// +kubebuilder:printcolumn:name="Pool",type=string,JSONPath=`.spec.pool`
// +kubebuilder:printcolumn:name="Namespace",type=string,JSONPath=`.spec.owners[0].namespace`
// +kubebuilder:printcolumn:name="Service",type=string,JSONPath=`.spec.owners[0].name`
// +kubebuilder:printcolumn:name="Shared-With",type=string,JSONPath=`.status.sharedWith`
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="UID",type=string,JSONPath=`.spec.owners[0].uid`,priority=1,description="None: the address is kept for the name"
// +kubebuilder:printcolumn:name="Reclaim",type=string,JSONPath=`.spec.reclaimPolicy`,priority=1
// +kubebuilder:printcolumn:name="In-Range",type=string,JSONPath=`.status.conditions[?(@.type=="InRange")].status`,priority=1
// +kubebuilder:printcolumn:name="Class",type=string,JSONPath=`.spec.class`,priority=1
// +kubebuilder:printcolumn:name="Released",type=date,JSONPath=`.spec.releasedAt`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type IPAllocation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec IPAllocationSpec `json:"spec"`
	// Written by Herald.
	// +optional
	Status IPAllocationStatus `json:"status,omitempty"`
}

// IPAllocationSpec has an address and the Services that hold it.
type IPAllocationSpec struct {
	// The address, in canonical form.
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=39
	// +kubebuilder:validation:XValidation:rule="isIP(self)",message="must be an IP address"
	// +kubebuilder:validation:XValidation:rule="!isIP(self) || ip.isCanonical(self)",message="write the address in its canonical form (RFC 5952): in lower case, without leading zeros, with :: for the longest run of zeros"
	Address string `json:"address"`

	// The name of the IPPool that the address is from.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Pool string `json:"pool,omitempty"`

	// The load-balancer class of the herald-ccm that recorded the address. Only that herald-ccm releases the address, so
	// several can serve a cluster from the same pools.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Class string `json:"class,omitempty"`

	// The name of the IPAddressClaim, in the namespace of herald-ccm, for which another system granted the address. Herald
	// deletes the claim after the IPAllocation.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Claim string `json:"claim,omitempty"`

	// What happens to the address when its last Service is deleted, if neither the Service nor the pool says so. Retain:
	// the address is kept for a Service of the same namespace and name. Herald sets Retain when a Service gets an
	// address that was reserved for it.
	// +optional
	ReclaimPolicy ReclaimPolicy `json:"reclaimPolicy,omitempty"`

	// The Services that hold the address. Several Services hold it only if they have the same sharing key. If empty, the
	// address is reserved, and no Service gets it.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	Owners []AllocationOwner `json:"owners,omitempty"`

	// When the last Service released the address. The address is not given out before the reuseDelay of its pool has
	// passed. Then Herald deletes the IPAllocation.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Format=date-time
	// +kubebuilder:validation:Pattern=`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$`
	ReleasedAt *metav1.Time `json:"releasedAt,omitempty"`
}

// AllocationOwner is a Service that holds an address. The uid identifies the Service: a new Service of the same name has
// another uid. Without a uid the address is kept for the Service of that name, if it is created later.
type AllocationOwner struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// The UID of the Service. Empty: the address is kept for the Service of this namespace and name. Accounts without the
	// verb assign of ipallocations.herald.dev cannot write it.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=128
	UID types.UID `json:"uid,omitempty"`

	// The value of the annotation herald.dev/reclaim of the Service.
	// +optional
	ReclaimPolicy ReclaimPolicy `json:"reclaimPolicy,omitempty"`

	// The terms on which the Service shares the address. If not set, the Service does not share it.
	// +optional
	Sharing *AllocationSharing `json:"sharing,omitempty"`
}

// AllocationSharing has the terms on which a Service shares an address. The terms are in the IPAllocation, so two Services
// that do not agree cannot both be added to it at the same time.
type AllocationSharing struct {
	// The Service's annotation herald.dev/sharing-key.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key"`

	// The ports of the Service, such as TCP/80. No two of the Services may have a port in common.
	// +optional
	// +kubebuilder:validation:MaxItems=1024
	// +kubebuilder:validation:items:MaxLength=10
	// +kubebuilder:validation:items:Pattern=`^(TCP|UDP|SCTP)/([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$`
	// +listType=atomic
	Ports []string `json:"ports,omitempty"`

	// Which nodes can serve the Service: "Cluster", or "Local" with the namespace and the selector of the Service. All
	// Services that share the address must have the same value.
	// +kubebuilder:validation:MaxLength=4096
	Traffic string `json:"traffic"`
}

// AllocationState says why an address is held although no Service has it.
//
// +kubebuilder:validation:Enum=Kept;Reserved
type AllocationState string

// The states.
const (
	// AllocationKept: the address is kept for a Service with the owner's namespace and name.
	AllocationKept AllocationState = "Kept"
	// AllocationReserved: the address is reserved, and no Service gets it.
	AllocationReserved AllocationState = "Reserved"
)

// IPAllocationStatus is what herald-ccm observes of the address.
type IPAllocationStatus struct {
	// Kept: no Service has the address, and only a Service that spec.owners names can get it: a user reserved the
	// address for that Service, or the address was retained when that Service was deleted. Reserved: spec.owners is
	// empty, and no Service can get the address. Empty: a Service has the address or, if spec.releasedAt is set, had
	// it.
	// +optional
	State AllocationState `json:"state,omitempty"`

	// The Services that share the address with the first in spec.owners: "default/dns-udp, default/dns-tcp".
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	SharedWith string `json:"sharedWith,omitempty"`

	// InRange is False if the pool no longer has the address. The address stays in use until its Service moves to another
	// address (kubectl herald renumber) or is deleted. AddressConflict is True while a machine that is not a speaker
	// uses the address. Accepted is False if the spec is invalid: the Services keep the address, and the message names the
	// field and the remedy.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.lastTransitionTime >= timestamp('0001-01-01T00:00:00Z'))",message="lastTransitionTime must be a time as 2006-01-02T15:04:05Z (RFC 3339)"
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Condition types of an IPAllocation. An IPAllocation has them only after something was wrong.
const (
	AllocationInRange = PoolInRange
	// AllocationConflict: a machine that is not a speaker uses the address.
	AllocationConflict = "AddressConflict"
)

// IPAllocationList is a list of IPAllocations.
//
// +kubebuilder:object:root=true
type IPAllocationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []IPAllocation `json:"items"`
}
