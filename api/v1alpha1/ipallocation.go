package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// IPAllocation records that an address is in use or reserved. It is named by the address, so the API
// server itself refuses to record one address twice. Herald writes one for each address that it gives
// out. One written by hand reserves an address: with an owner that has no uid for the Service of that name,
// with no owner for nobody.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=halloc,categories=herald
// +kubebuilder:validation:XValidation:rule="self.metadata.name.contains('-') ? size(self.metadata.name) == 39 && isIP(self.metadata.name.replace('-', ':')) && isIP(self.spec.address) && ip(self.metadata.name.replace('-', ':')) == ip(self.spec.address) : self.metadata.name == self.spec.address && isIP(self.spec.address)",message="metadata.name must be spec.address: as it is for IPv4, written in full with dashes for colons for IPv6 (2001-0db8-0000-0000-0000-0000-0000-0007)"
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

// IPAllocationSpec says which address is held, and by whom.
type IPAllocationSpec struct {
	// The address, in canonical form.
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=39
	// +kubebuilder:validation:XValidation:rule="isIP(self)",message="must be an IP address"
	// +kubebuilder:validation:XValidation:rule="!isIP(self) || ip.isCanonical(self)",message="write the address in its canonical form (RFC 5952): in lower case, without leading zeros, with :: for the longest run of zeros"
	Address string `json:"address"`

	// The IPPool that the address came from.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Pool string `json:"pool,omitempty"`

	// The load-balancer class of the controller that gave the address out. Only that one releases it, so that
	// several may serve one cluster from the same pools.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Class string `json:"class,omitempty"`

	// What becomes of the address when its last Service goes, if neither the Service nor the pool decides:
	// Retain keeps it for a Service of the same namespace and name. A reservation that finds its Service says
	// Retain, for it was written by hand.
	// +optional
	ReclaimPolicy ReclaimPolicy `json:"reclaimPolicy,omitempty"`

	// The Services that hold the address; several only with one sharing key. None: it is reserved for nobody.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	Owners []AllocationOwner `json:"owners,omitempty"`

	// When the last Service released the address. The address is not given out before the reuseDelay of its pool
	// has passed since then; then Herald deletes the record.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Format=date-time
	// +kubebuilder:validation:Pattern=`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$`
	ReleasedAt *metav1.Time `json:"releasedAt,omitempty"`
}

// AllocationOwner is a Service that holds an address. The UID decides: a new Service of the same name
// is another Service. Without one the address is kept for the Service of that name, whenever there is one.
type AllocationOwner struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=128
	UID types.UID `json:"uid,omitempty"`

	// What the Service says of reclaiming in its annotation herald.dev/reclaim.
	// +optional
	ReclaimPolicy ReclaimPolicy `json:"reclaimPolicy,omitempty"`

	// On which terms the Service shares the address. None: with nobody.
	// +optional
	Sharing *AllocationSharing `json:"sharing,omitempty"`
}

// AllocationSharing is what Services that share an address have to agree on. It is in the record, so that
// the API server's conflict keeps two of them from coming at once.
type AllocationSharing struct {
	// The Service's annotation herald.dev/sharing-key.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key"`

	// Its ports, as TCP/80. No two Services may have one in common.
	// +optional
	// +kubebuilder:validation:MaxItems=1024
	// +kubebuilder:validation:items:MaxLength=10
	// +kubebuilder:validation:items:Pattern=`^(TCP|UDP|SCTP)/([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$`
	// +listType=atomic
	Ports []string `json:"ports,omitempty"`

	// "Cluster", or "Local" with the Service's namespace and selector: by which nodes it can be served. It has to
	// be the same.
	// +kubebuilder:validation:MaxLength=4096
	Traffic string `json:"traffic"`
}

// AllocationState tells why an address is held that no Service has.
//
// +kubebuilder:validation:Enum=Kept;Reserved
type AllocationState string

// The states.
const (
	// AllocationKept: the address is kept for a Service of the owner's namespace and name.
	AllocationKept AllocationState = "Kept"
	// AllocationReserved: the address is reserved for nobody.
	AllocationReserved AllocationState = "Reserved"
)

// IPAllocationStatus is what Herald observes of the address.
type IPAllocationStatus struct {
	// Kept: no Service has the address, which is kept for one of the namespace and name in spec.owners. Reserved:
	// there is no owner at all. Empty: a Service has the address or, with spec.releasedAt, had it.
	// +optional
	State AllocationState `json:"state,omitempty"`

	// The Services that share the address with the first in spec.owners: "default/dns-udp, default/dns-tcp".
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	SharedWith string `json:"sharedWith,omitempty"`

	// InRange is False if the pool no longer has the address: it stays in use until its Service moves to another
	// address (kubectl herald renumber) or is deleted. AddressConflict is True while a machine that is no speaker
	// uses the address. Accepted is False if the spec cannot be read: its Services keep the address, and the message names
	// the field and the cure.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.lastTransitionTime >= timestamp('0001-01-01T00:00:00Z'))",message="lastTransitionTime must be a time as 2006-01-02T15:04:05Z (RFC 3339)"
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Condition types of an IPAllocation, which has these only once something was wrong.
const (
	AllocationInRange = PoolInRange
	// AllocationConflict: another machine, which is no speaker, uses the address.
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
