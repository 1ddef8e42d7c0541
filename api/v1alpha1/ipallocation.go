package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// IPAllocation records that an address is in use or reserved. It is named by the address, so the API
// server itself refuses to record one address twice. Herald writes one for each address that it gives
// out; one written by hand with no owner keeps an address from being given out.
//
// Status is no subresource: a release changes spec and status together, in one write.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=ipalloc
// +kubebuilder:validation:XValidation:rule="self.metadata.name.contains('-') ? size(self.metadata.name) == 39 && isIP(self.metadata.name.replace('-', ':')) && isIP(self.spec.address) && ip(self.metadata.name.replace('-', ':')) == ip(self.spec.address) : self.metadata.name == self.spec.address && isIP(self.spec.address)",message="metadata.name must be spec.address: as it is for IPv4, written in full with dashes for colons for IPv6 (2001-0db8-0000-0000-0000-0000-0000-0007)"
// +kubebuilder:printcolumn:name="Pool",type=string,JSONPath=`.spec.pool`
// +kubebuilder:printcolumn:name="Namespace",type=string,JSONPath=`.spec.owners[0].namespace`
// +kubebuilder:printcolumn:name="Service",type=string,JSONPath=`.spec.owners[0].name`
// +kubebuilder:printcolumn:name="Class",type=string,JSONPath=`.spec.class`,priority=1
// +kubebuilder:printcolumn:name="Released",type=date,JSONPath=`.status.releasedAt`
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

	// The Services that hold the address. None: it is reserved for nobody.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	Owners []AllocationOwner `json:"owners,omitempty"`
}

// AllocationOwner is a Service that holds an address. The UID decides: a new Service of the same name
// is another Service.
type AllocationOwner struct {
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`
	// +kubebuilder:validation:MaxLength=63
	Name string    `json:"name"`
	UID  types.UID `json:"uid"`
}

// IPAllocationStatus is the course of a release.
type IPAllocationStatus struct {
	// When the Service let go of the address. It rests until the pool's reuseDelay has passed, then
	// the record is deleted and the address may be given out again.
	// +optional
	ReleasedAt *metav1.Time `json:"releasedAt,omitempty"`
}

// IPAllocationList is a list of IPAllocations.
//
// +kubebuilder:object:root=true
type IPAllocationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []IPAllocation `json:"items"`
}
