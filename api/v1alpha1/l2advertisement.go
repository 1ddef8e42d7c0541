package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// L2Advertisement announces addresses on the segments of the nodes. On each segment one node owns an address, and answers
// ARP requests for an IPv4 address or NDP solicitations for an IPv6 address.
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

// L2AdvertisementSpec says which addresses are announced, and by which nodes and interfaces.
type L2AdvertisementSpec struct {
	Selection `json:",inline"`

	// What happens to the address of a Service that has no ready endpoint on any node. Withdraw: no node announces it.
	// Announce: nodes announce it nevertheless, so that connections of clients are refused at once instead of timing
	// out. Under externalTrafficPolicy Local every selected node then announces it.
	// +optional
	// +kubebuilder:default=Withdraw
	WithoutEndpoints EndpointsPolicy `json:"withoutEndpoints,omitempty"`

	// The names of the interfaces on which addresses are announced. If empty, an address is announced on every interface
	// with a subnet that contains it. Name an interface if clients on its link use addresses outside of its subnets.
	// +optional
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=15
	// +listType=set
	Interfaces []string `json:"interfaces,omitempty"`

	// Selects preferred nodes. When an address gets a new owner, preferred nodes that can serve it come before all
	// others. An address that another node owns moves back to a preferred node only with rebalance: Gradual.
	// +optional
	PreferredNodes *metav1.LabelSelector `json:"preferredNodes,omitempty"`

	// Whether an address moves although its owner can serve it. Never: it stays with its owner. Gradual: addresses move,
	// one a second, to the node that ranks first for them, for example a preferred node that has come back.
	// +optional
	// +kubebuilder:default=Never
	Rebalance Rebalance `json:"rebalance,omitempty"`
}

// Rebalance says whether addresses move although their owner can serve them.
//
// +kubebuilder:validation:Enum=Never;Gradual
type Rebalance string

// The values of Rebalance.
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
