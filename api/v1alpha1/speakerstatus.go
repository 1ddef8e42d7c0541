package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// SpeakerStatus is the report of the speaker of one node, for people and for herald-ccm. Its name is the name of the node,
// and only the speaker of that node may write it. Other speakers read the identity in it, to verify what this speaker
// sends on a segment, and the interfaces: their MAC addresses, to tell speakers from other machines, and their subnets,
// to know which speakers should be heard on a segment.
//
// It is written at most once a second. It has no status subresource, because only the speaker writes it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=hspk,categories=herald
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

// SpeakerStatusStatus is written only when something in it changed. Times are in UTC, as in RFC 3339. They are strings, so
// that an invalid time affects nothing else.
//
// A node must not be able to fill the memory of the programs that read the statuses of all nodes. So a status is smaller
// than 100 KiB: the lists are bounded, and so is the length of their texts together (MaxStatusText).
//
// +kubebuilder:validation:XValidation:rule="(has(self.interfaces) ? self.interfaces.map(i, (has(i.mac) ? size(i.mac) : 0) + (has(i.state) ? size(i.state) : 0) + (has(i.subnets) ? i.subnets.map(s, size(s)).sum() : 0) + (has(i.gateways) ? i.gateways.map(s, size(s)).sum() : 0) + (has(i.hears) ? i.hears.map(s, size(s)).sum() : 0)).sum() : 0) + (has(self.claims) ? self.claims.map(c, size(c.address) + (has(c.since) ? size(c.since) : 0) + (has(c.reason) ? size(c.reason) : 0) + (has(c.deputyFor) ? size(c.deputyFor) : 0)).sum() : 0) + (has(self.deaths) ? self.deaths.map(d, size(d.node) + size(d.at)).sum() : 0) + (has(self.conflicts) ? self.conflicts.map(c, size(c.address) + size(c.mac) + size(c.at)).sum() : 0) + (has(self.sessions) ? self.sessions.map(s, size(s.peer) + (has(s.address) ? size(s.address) : 0) + size(s.state) + (has(s.since) ? size(s.since) : 0) + (has(s.reason) ? size(s.reason) : 0) + (has(s.bfd) ? size(s.bfd) : 0) + (has(s.bfdReason) ? size(s.bfdReason) : 0)).sum() : 0) <= 32768",message="the texts in the lists must not have more than 32768 characters together"
type SpeakerStatusStatus struct {
	// The identity of the running speaker on the segments.
	// +optional
	Identity *SpeakerIdentity `json:"identity,omitempty"`

	// The node's interfaces that are up.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=name
	Interfaces []SpeakerInterface `json:"interfaces,omitempty"`

	// The addresses for which the node answers ARP requests or NDP solicitations, sorted by address and interface: the
	// first 500, or fewer if the status would get too large. l2Addresses counts all that the node owns.
	// +optional
	// +kubebuilder:validation:MaxItems=500
	// +listType=map
	// +listMapKey=address
	// +listMapKey=interface
	Claims []SpeakerClaim `json:"claims,omitempty"`
	// The number of addresses that the node owns on its segments; an address on two segments counts twice.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	L2Addresses int32 `json:"l2Addresses"`

	// Neighbours whose death this node has witnessed: they sent no more heartbeats, and their kernels answered neither ARP
	// nor NDP. An entry is removed when the neighbour is heard again.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=node
	// +listMapKey=interface
	Deaths []SpeakerDeath `json:"deaths,omitempty"`

	// Addresses for which a machine that is not a speaker answers.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=address
	// +listMapKey=interface
	Conflicts []SpeakerConflict `json:"conflicts,omitempty"`

	// BGP sessions, sorted by peer: the first 64. The field established counts all.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=peer
	Sessions []SpeakerSession `json:"sessions,omitempty"`
	// The number of established sessions, and of all sessions: "2/2".
	// +optional
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[0-9/]*$`
	Established string `json:"established,omitempty"`

	// Why the node announces nothing. Empty if it announces.
	// +optional
	// +kubebuilder:validation:MaxLength=320
	// +kubebuilder:validation:Pattern=`^[ -~]*$`
	Problem string `json:"problem,omitempty"`
}

// SpeakerIdentity is what other speakers need to verify the frames of this speaker.
type SpeakerIdentity struct {
	// A random number in 16 hexadecimal digits. Each start of the speaker has a new one.
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{16}$`
	Boot string `json:"boot"`
	// The public Ed25519 key of this start of the speaker (RFC 8032), in 64 hexadecimal digits.
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	PublicKey string `json:"publicKey"`
}

// SpeakerClaim is an address for which the node answers on one interface.
type SpeakerClaim struct {
	// +kubebuilder:validation:MaxLength=39
	// +kubebuilder:validation:Pattern=`^[0-9a-fA-F.:]*$`
	Address string `json:"address"`
	// +kubebuilder:validation:MaxLength=15
	Interface string `json:"interface"`
	// When the node became the owner, or began to answer for another node.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[ -~]*$`
	Since string `json:"since,omitempty"`
	// Why this node is the owner, or answers.
	// +optional
	// +kubebuilder:validation:MaxLength=320
	// +kubebuilder:validation:Pattern=`^[ -~]*$`
	Reason string `json:"reason,omitempty"`
	// The node that owns the address, if this node is its deputy: the speaker of the owner is silent, and this node answers
	// with the MAC address of the owner. Empty if this node is the owner.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[-a-z0-9.]*$`
	DeputyFor string `json:"deputyFor,omitempty"`
}

// SpeakerInterface is an interface that is up.
type SpeakerInterface struct {
	// +kubebuilder:validation:MaxLength=15
	Name string `json:"name"`
	// +optional
	// +kubebuilder:validation:MaxLength=17
	// +kubebuilder:validation:Pattern=`^[0-9a-f:]*$`
	MAC string `json:"mac,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=43
	// +kubebuilder:validation:items:Pattern=`^[0-9a-fA-F.:/]*$`
	// +listType=set
	Subnets []string `json:"subnets,omitempty"`
	// The gateways of the node's default routes through this interface, sorted. Herald never announces such an address.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=39
	// +kubebuilder:validation:items:Pattern=`^[0-9a-fA-F.:]*$`
	// +listType=set
	Gateways []string `json:"gateways,omitempty"`
	// The state of the speaker on this segment. Listening: it may not own addresses yet. Member: it hears other speakers.
	// Alone: it hears no other speaker. Degraded: it hears no other speaker, although the API has others on this segment.
	// Duplicate: another interface of the node is on the same segment, and the speaker uses that one.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^[A-Za-z]*$`
	State string `json:"state,omitempty"`
	// The nodes whose speakers are heard on this interface, sorted: the first 64. neighbours counts all.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:Pattern=`^[-a-z0-9.]*$`
	// +listType=set
	Hears []string `json:"hears,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	Neighbours int32 `json:"neighbours,omitempty"`
}

// MaxStatusText is the maximum number of characters in the lists of a SpeakerStatus together, without names of interfaces.
const MaxStatusText = 32768

// MaxStatusSessions is the maximum number of sessions in a SpeakerStatus.
const MaxStatusSessions = 64

// States of a SpeakerInterface.
const (
	SegmentListening = "Listening"
	SegmentMember    = "Member"
	SegmentAlone     = "Alone"
	SegmentDegraded  = "Degraded"
	SegmentDuplicate = "Duplicate"
)

// SpeakerDeath is the death of a neighbour that the node has witnessed.
type SpeakerDeath struct {
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[-a-z0-9.]*$`
	Node string `json:"node"`
	// The interface on which the neighbour was heard last.
	// +kubebuilder:validation:MaxLength=15
	Interface string `json:"interface"`
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[ -~]*$`
	At string `json:"at"`
}

// SpeakerConflict is an address that a machine that is not a speaker uses (RFC 5227, RFC 4862).
type SpeakerConflict struct {
	// +kubebuilder:validation:MaxLength=39
	// +kubebuilder:validation:Pattern=`^[0-9a-fA-F.:]*$`
	Address string `json:"address"`
	// +kubebuilder:validation:MaxLength=15
	Interface string `json:"interface"`
	// The MAC address of that machine.
	// +kubebuilder:validation:MaxLength=17
	// +kubebuilder:validation:Pattern=`^[0-9a-f:]*$`
	MAC string `json:"mac"`
	// When the machine was last seen to use the address.
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[ -~]*$`
	At string `json:"at"`
}

// SpeakerSession is a BGP session as seen from the node.
type SpeakerSession struct {
	// The BGPPeer.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[-a-z0-9.]*$`
	Peer string `json:"peer"`
	// The address of the router that the node has found. A link-local address has its interface: fe80::1%eth1.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[ -~]*$`
	Address string `json:"address,omitempty"`
	// Established, Down, or Invalid if the node cannot use the BGPPeer.
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^[A-Za-z]*$`
	State string `json:"state"`
	// Since when the session has been in this state.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[ -~]*$`
	Since string `json:"since,omitempty"`
	// Why the session is not established, or what is wrong with one that is.
	// +optional
	// +kubebuilder:validation:MaxLength=320
	// +kubebuilder:validation:Pattern=`^[ -~]*$`
	Reason string `json:"reason,omitempty"`
	// The number of routes that are announced to the peer.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	Routes int32 `json:"routes,omitempty"`
	// The families whose routes the node withholds from the peer, because there is no next hop of the family or the peer
	// does not accept the family on this session. reason says which. routes does not count them.
	// +optional
	// +kubebuilder:validation:MaxItems=2
	// +listType=set
	Withheld []IPFamily `json:"withheld,omitempty"`
	// The state of BFD with the router, Up or Down. Empty if the BGPPeer has no BFD.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^[A-Za-z]*$`
	BFD string `json:"bfd,omitempty"`
	// Why BFD is not up.
	// +optional
	// +kubebuilder:validation:MaxLength=320
	// +kubebuilder:validation:Pattern=`^[ -~]*$`
	BFDReason string `json:"bfdReason,omitempty"`
}

// SpeakerStatusList is a list of SpeakerStatuses.
//
// +kubebuilder:object:root=true
type SpeakerStatusList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []SpeakerStatus `json:"items"`
}
