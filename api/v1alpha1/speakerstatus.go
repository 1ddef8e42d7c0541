package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// SpeakerStatus is the report of one node's speaker, for people and for herald-ccm. It has the node's name,
// and only the speaker of that node may write it. Other speakers read one thing of it: the key that
// verifies what this speaker sends on a segment.
//
// It is written at most once a second. It has no status subresource: nobody but the speaker writes it.
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

// SpeakerStatusStatus is written only when something in it changed. Times are RFC 3339 in UTC. They are
// strings here, so that a time that cannot be parsed affects nothing else.
//
// One node must not be able to fill the memory of those who read the statuses of all nodes, so a status is smaller than
// 100 KiB: the lists are bounded, and so is their text together (MaxStatusText).
//
// +kubebuilder:validation:XValidation:rule="(has(self.interfaces) ? self.interfaces.map(i, (has(i.mac) ? size(i.mac) : 0) + (has(i.state) ? size(i.state) : 0) + (has(i.subnets) ? i.subnets.map(s, size(s)).sum() : 0) + (has(i.gateways) ? i.gateways.map(s, size(s)).sum() : 0) + (has(i.hears) ? i.hears.map(s, size(s)).sum() : 0)).sum() : 0) + (has(self.claims) ? self.claims.map(c, size(c.address) + (has(c.since) ? size(c.since) : 0) + (has(c.reason) ? size(c.reason) : 0) + (has(c.deputyFor) ? size(c.deputyFor) : 0)).sum() : 0) + (has(self.deaths) ? self.deaths.map(d, size(d.node) + size(d.at)).sum() : 0) + (has(self.conflicts) ? self.conflicts.map(c, size(c.address) + size(c.mac) + size(c.at)).sum() : 0) + (has(self.sessions) ? self.sessions.map(s, size(s.peer) + (has(s.address) ? size(s.address) : 0) + size(s.state) + (has(s.since) ? size(s.since) : 0) + (has(s.reason) ? size(s.reason) : 0)).sum() : 0) <= 32768",message="the texts in the lists must not have more than 32768 characters together"
type SpeakerStatusStatus struct {
	// The running speaker's identity on the segments.
	// +optional
	Identity *SpeakerIdentity `json:"identity,omitempty"`

	// The node's interfaces that are up.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=name
	Interfaces []SpeakerInterface `json:"interfaces,omitempty"`

	// Addresses that the node answers ARP or NDP requests for, sorted by address and interface: the first 500, or
	// fewer if the status would get too large. Status l2Addresses counts all.
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

	// Neighbours whose death this node has witnessed: they stopped sending heartbeats, and their kernel
	// answers neither ARP nor NDP. An entry goes when the neighbour is heard again.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=node
	// +listMapKey=interface
	Deaths []SpeakerDeath `json:"deaths,omitempty"`

	// Addresses for which a machine that is no speaker answers.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=address
	// +listMapKey=interface
	Conflicts []SpeakerConflict `json:"conflicts,omitempty"`

	// BGP sessions, sorted by peer: the first 64. Established counts all.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=peer
	Sessions []SpeakerSession `json:"sessions,omitempty"`
	// Sessions that are established, of all: "2/2".
	// +optional
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[0-9/]*$`
	Established string `json:"established,omitempty"`

	// Why the node announces nothing; empty if it does.
	// +optional
	// +kubebuilder:validation:MaxLength=320
	// +kubebuilder:validation:Pattern=`^[ -~]*$`
	Problem string `json:"problem,omitempty"`
}

// SpeakerIdentity is what other speakers need to verify the frames of this one.
type SpeakerIdentity struct {
	// A random number, new at every start of the speaker, in 16 hexadecimal digits.
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{16}$`
	Boot string `json:"boot"`
	// The public half of the Ed25519 key of this boot (RFC 8032), in 64 hexadecimal digits.
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	PublicKey string `json:"publicKey"`
}

// SpeakerClaim is an address that the node answers for on one interface.
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
	// The node that owns the address, while its speaker is silent and this node answers with its MAC
	// address. Empty: this node is the owner.
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
	// The routers that the node reaches other networks through on this interface, sorted: the gateways of its
	// default routes. Herald never announces such an address.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=39
	// +kubebuilder:validation:items:Pattern=`^[0-9a-fA-F.:]*$`
	// +listType=set
	Gateways []string `json:"gateways,omitempty"`
	// What the speaker does on this segment: Listening, before it may own addresses; Member, it hears other
	// speakers; Alone, it hears none; Degraded, the API has other speakers on this segment and none is heard;
	// Duplicate, another interface of the node is on the same segment and speaks for it.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^[A-Za-z]*$`
	State string `json:"state,omitempty"`
	// Nodes whose speakers are heard on this interface, sorted: the first 64. Neighbours counts all.
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

// MaxStatusText is the number of characters that the lists of a SpeakerStatus may have in all, names of interfaces not
// counted.
const MaxStatusText = 32768

// States of a SpeakerInterface.
const (
	SegmentListening = "Listening"
	SegmentMember    = "Member"
	SegmentAlone     = "Alone"
	SegmentDegraded  = "Degraded"
	SegmentDuplicate = "Duplicate"
)

// SpeakerDeath is the death of a neighbour as one node saw it.
type SpeakerDeath struct {
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[-a-z0-9.]*$`
	Node string `json:"node"`
	// Where it was heard last.
	// +kubebuilder:validation:MaxLength=15
	Interface string `json:"interface"`
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[ -~]*$`
	At string `json:"at"`
}

// SpeakerConflict is an address that a stranger uses: a machine that is no speaker (RFC 5227, RFC 4862).
type SpeakerConflict struct {
	// +kubebuilder:validation:MaxLength=39
	// +kubebuilder:validation:Pattern=`^[0-9a-fA-F.:]*$`
	Address string `json:"address"`
	// +kubebuilder:validation:MaxLength=15
	Interface string `json:"interface"`
	// The stranger's MAC address.
	// +kubebuilder:validation:MaxLength=17
	// +kubebuilder:validation:Pattern=`^[0-9a-f:]*$`
	MAC string `json:"mac"`
	// When it was last seen to use the address.
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
	// The router, as the node has found it; fe80::1%eth1 on an interface.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[ -~]*$`
	Address string `json:"address,omitempty"`
	// Established, Down, or Invalid where the BGPPeer cannot be used.
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^[A-Za-z]*$`
	State string `json:"state"`
	// Since when.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[ -~]*$`
	Since string `json:"since,omitempty"`
	// Why it is not established.
	// +optional
	// +kubebuilder:validation:MaxLength=320
	// +kubebuilder:validation:Pattern=`^[ -~]*$`
	Reason string `json:"reason,omitempty"`
	// Routes announced to the peer.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	Routes int32 `json:"routes,omitempty"`
	// Up or Down: the state of BFD with the router. None: the BGPPeer has no BFD.
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
