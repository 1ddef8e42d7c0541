package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// L2Advertisement announces addresses on the nodes' own segments: on each segment one node owns an address and
// answers ARP requests for it, or NDP solicitations if it is an IPv6 address.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=hl2,categories=herald
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Pools",type=integer,JSONPath=`.status.pools`
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodes`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Announced",type=string,JSONPath=`.status.conditions[?(@.type=="Announced")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Announced")].reason`
type L2Advertisement struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec L2AdvertisementSpec `json:"spec,omitempty"`
	// Written by Herald.
	// +optional
	Status AdvertisementStatus `json:"status,omitempty"`
}

// L2AdvertisementSpec says what is announced, and from where.
type L2AdvertisementSpec struct {
	Selection `json:",inline"`

	// What is done with the address of a Service that has no ready endpoint on any node. Withdraw: no node
	// announces it. Announce: nodes announce it all the same, so that clients are refused instead of finding no
	// route; under externalTrafficPolicy Local every selected node does.
	// +optional
	// +kubebuilder:default=Withdraw
	WithoutEndpoints EndpointsPolicy `json:"withoutEndpoints,omitempty"`

	// The interfaces on which the address is announced, by name. None: every interface with a subnet
	// that holds the address. Name one where clients reach the address on the link though it is
	// outside the nodes' subnet.
	// +optional
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=15
	// +listType=set
	Interfaces []string `json:"interfaces,omitempty"`

	// Labels of the nodes that own addresses in preference to the others, as long as one of them can serve.
	// +optional
	PreferredNodes *metav1.LabelSelector `json:"preferredNodes,omitempty"`

	// Whether an address moves while its owner can serve it. Never: it stays with its owner. Gradual: it moves,
	// one address a second, to a preferred node that has come back.
	// +optional
	// +kubebuilder:default=Never
	Rebalance Rebalance `json:"rebalance,omitempty"`
}

// Rebalance says whether addresses move while their owner can serve them.
//
// +kubebuilder:validation:Enum=Never;Gradual
type Rebalance string

// What a Rebalance may be.
const (
	RebalanceNever   Rebalance = "Never"
	RebalanceGradual Rebalance = "Gradual"
)

// L2AdvertisementList is a list of L2Advertisements.
//
// +kubebuilder:object:root=true
type L2AdvertisementList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []L2Advertisement `json:"items"`
}
