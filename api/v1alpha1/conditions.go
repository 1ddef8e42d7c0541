package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Condition types that several kinds have. Every condition except AddressConflict is True when all is well. Its
// observedGeneration is that of the spec from which it was computed.
const (
	// ConditionAccepted: the spec is valid and in force. If it is not valid, the message names the field and the remedy.
	ConditionAccepted = "Accepted"
	// ConditionAnnounced of an IPPool: each of its addresses is announced, or would be if a Service had it. Of an
	// L2Advertisement: it selects pools, and nodes that can announce their addresses. Of a BGPAdvertisement: it selects
	// pools, nodes that can announce their addresses, and peers with an established session.
	ConditionAnnounced = "Announced"
	// ConditionExclusive of an IPPool: no older pool, no pod and no ClusterIP has addresses of it. Of a BGPAdvertisement: no
	// other BGPAdvertisement sets the attributes of routes that both announce.
	ConditionExclusive = "Exclusive"
	// ConditionEstablished of a BGPPeer: every node that it selects and that has a SpeakerStatus has an established
	// session with the router.
	ConditionEstablished = "Established"
	// ConditionPathsAlive of a BGPPeer with spec.bfd: BFD is up between the router and every node that it selects and
	// that has a SpeakerStatus. Sessions do not wait for this.
	ConditionPathsAlive = "PathsAlive"
)

// AdvertisementStatus is what herald-ccm observes of an advertisement.
type AdvertisementStatus struct {
	// Accepted: the spec is valid, and the pools and peers that it names exist. Announced: the advertisement selects pools,
	// and nodes that can announce their addresses. A BGPAdvertisement also selects peers with an established session.
	// Exclusive, of a BGPAdvertisement: its attributes hold for all its routes. It is False if another BGPAdvertisement,
	// which comes first by name, sets the attributes of some of them.
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

// BGPPeerStatus is what herald-ccm observes of a BGPPeer.
type BGPPeerStatus struct {
	// Accepted: the spec is valid and in force on every node that it selects. Established: each of these nodes that has a
	// speaker has an established session. PathsAlive, if spec.bfd is set: BFD is up between each of these nodes and the
	// router.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.lastTransitionTime >= timestamp('0001-01-01T00:00:00Z'))",message="lastTransitionTime must be a time as 2006-01-02T15:04:05Z (RFC 3339)"
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// The number of established sessions, and of all sessions: "3/3".
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Sessions string `json:"sessions,omitempty"`
}
