package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Condition types that several kinds have. Every condition but AddressConflict is True when all is well, and has the generation
// of the spec that it was made from.
const (
	// ConditionAccepted: the spec is valid and in force. If it is not valid, the message names the field and the
	// cure.
	ConditionAccepted = "Accepted"
	// ConditionAnnounced: of an IPPool, each of its addresses is announced or could be; of an advertisement, it
	// selects pools and nodes that can announce their addresses and, by BGP, peers with an established session.
	ConditionAnnounced = "Announced"
	// ConditionExclusive: of an IPPool, nobody else has addresses of it; of a BGPAdvertisement, no other one decides the
	// attributes of routes that both announce.
	ConditionExclusive = "Exclusive"
	// ConditionEstablished: of a BGPPeer, every node that is to hold a session with it has one.
	ConditionEstablished = "Established"
	// ConditionPathsAlive: of a BGPPeer with spec.bfd, BFD is up between the router and every node that is to hold a
	// session with it. Sessions do not wait for that.
	ConditionPathsAlive = "PathsAlive"
)

// AdvertisementStatus is what became of an advertisement.
type AdvertisementStatus struct {
	// Accepted: the spec is valid, and the pools and peers that it names exist. Announced: the advertisement selects
	// pools and nodes that can announce addresses of theirs and, by BGP, peers with an established session. Exclusive, of
	// a BGPAdvertisement: its attributes hold for all its routes; False if another one, which comes first by name, decides
	// those of some.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.lastTransitionTime >= timestamp('0001-01-01T00:00:00Z'))",message="lastTransitionTime must be a time as 2006-01-02T15:04:05Z (RFC 3339)"
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// The number of IPPools that the advertisement selects.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	Pools int32 `json:"pools"`
	// The number of nodes that the advertisement selects and that are not excluded from announcing.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	Nodes int32 `json:"nodes"`
}

// BGPPeerStatus is what became of a BGPPeer.
type BGPPeerStatus struct {
	// Accepted: the spec is valid and in force on every node that it selects. Established: every such node that has a
	// speaker has an established session. PathsAlive, with spec.bfd: BFD is up between each of them and the router.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.lastTransitionTime >= timestamp('0001-01-01T00:00:00Z'))",message="lastTransitionTime must be a time as 2006-01-02T15:04:05Z (RFC 3339)"
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Sessions that are established, of all: "3/3".
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Sessions string `json:"sessions,omitempty"`
}
