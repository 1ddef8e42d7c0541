package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// SpeakerStatus is what the speaker of one node says of itself; it bears the node's name. The speakers
// of other nodes read it too: it tells them on which segments the node is, and which addresses it
// answers for now.
//
// It has no status subresource: nobody but the speaker writes it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=spk
// +kubebuilder:printcolumn:name="L2-Addresses",type=integer,JSONPath=`.status.l2Addresses`
// +kubebuilder:printcolumn:name="Sessions",type=string,JSONPath=`.status.established`
// +kubebuilder:printcolumn:name="Problem",type=string,JSONPath=`.status.problem`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type SpeakerStatus struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Status SpeakerStatusStatus `json:"status,omitempty"`
}

// SpeakerStatusStatus is written only when something in it changed.
type SpeakerStatusStatus struct {
	// The node's interfaces and their subnets.
	// +optional
	// +listType=map
	// +listMapKey=name
	Interfaces []SpeakerInterface `json:"interfaces,omitempty"`

	// Addresses that the node answers ARP for, sorted as texts.
	// +optional
	// +listType=map
	// +listMapKey=address
	Claims []SpeakerClaim `json:"claims,omitempty"`
	// How many those are.
	L2Addresses int32 `json:"l2Addresses"`

	// BGP sessions.
	// +optional
	// +listType=map
	// +listMapKey=peer
	Sessions []SpeakerSession `json:"sessions,omitempty"`
	// Sessions that are established, of all: "2/2".
	// +optional
	Established string `json:"established,omitempty"`

	// Why the node announces nothing; empty if it does.
	// +optional
	Problem string `json:"problem,omitempty"`
}

// SpeakerClaim is an address that the node answers for, or asks to.
type SpeakerClaim struct {
	Address string `json:"address"`
	// Since when the node answers for it. Of two nodes that claim one address the later keeps it: it took
	// over from the other, which was away and has not noticed. None: the node only asks, and answers once
	// it has read its own request here and nobody else's.
	// +optional
	Since *metav1.MicroTime `json:"since,omitempty"`
}

// SpeakerInterface is an interface that is up.
type SpeakerInterface struct {
	Name string `json:"name"`
	// +optional
	MAC string `json:"mac,omitempty"`
	// +optional
	// +listType=set
	Subnets []string `json:"subnets,omitempty"`
}

// SpeakerSession is a BGP session as seen from the node.
type SpeakerSession struct {
	// The BGPPeer.
	Peer string `json:"peer"`
	// Established, Down, or Invalid where the BGPPeer cannot be used.
	State string `json:"state"`
	// Since when.
	// +optional
	Since *metav1.Time `json:"since,omitempty"`
	// Why it is not established.
	// +optional
	Reason string `json:"reason,omitempty"`
	// Routes announced to the peer.
	// +optional
	Routes int32 `json:"routes,omitempty"`
}

// SpeakerStatusList is a list of SpeakerStatuses.
//
// +kubebuilder:object:root=true
type SpeakerStatusList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []SpeakerStatus `json:"items"`
}
