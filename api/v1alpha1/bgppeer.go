package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// BGPPeer is a router with which the speakers have BGP sessions.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=hpeer,categories=herald
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Address",type=string,JSONPath=`.spec.address`
// +kubebuilder:printcolumn:name="Peer-ASN",type=integer,JSONPath=`.spec.peerASN`
// +kubebuilder:printcolumn:name="Local-ASN",type=integer,JSONPath=`.spec.localASN`
// +kubebuilder:printcolumn:name="Sessions",type=string,JSONPath=`.status.sessions`
// +kubebuilder:printcolumn:name="Established",type=string,JSONPath=`.status.conditions[?(@.type=="Established")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Accepted",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="BFD",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="PathsAlive")].status`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Established")].message`
type BGPPeer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec BGPPeerSpec `json:"spec"`
	// Written by Herald.
	// +optional
	Status BGPPeerStatus `json:"status,omitempty"`
}

// BGPPeerSpec says how the speakers reach a router, and how their sessions with it behave.
//
// +kubebuilder:validation:XValidation:rule="has(self.localASN) != has(self.localASNFrom)",message="give exactly one of spec.localASN and spec.localASNFrom"
// +kubebuilder:validation:XValidation:rule="[has(self.peerASN), has(self.peerASNFrom), has(self.peerType)].filter(x, x).size() == 1",message="give exactly one of spec.peerASN, spec.peerASNFrom and spec.peerType"
// +kubebuilder:validation:XValidation:rule="has(self.address) != has(self.addressFrom)",message="give exactly one of spec.address and spec.addressFrom"
// +kubebuilder:validation:XValidation:rule="!has(self.bfd) || !has(self.multihopTTL) || has(self.bfd.minimumTTL)",message="a router that is not on the link (spec.multihopTTL) needs spec.bfd.minimumTTL: 255 minus the number of routers in between, or 64 minus this number if the router sends BFD with a TTL of 64, as BIRD does"
// +kubebuilder:validation:XValidation:rule="!has(self.keepaliveTime) || !has(self.holdTime) || duration(self.keepaliveTime) < duration(self.holdTime)",message="spec.keepaliveTime must be shorter than spec.holdTime; a third of it is usual"
// +kubebuilder:validation:XValidation:rule="!has(self.sourceAddress) || !has(self.address) || !isIP(self.sourceAddress) || !isIP(self.address) || ip(self.sourceAddress).family() == ip(self.address).family()",message="spec.sourceAddress and spec.address must be of one family"
// +kubebuilder:validation:XValidation:rule="!has(self.address) || !isIP(self.address) || ip(self.address).family() == 4 || !ip(self.address).isLinkLocalUnicast() || has(self.interface)",message="spec.address is a link-local address: name the interface that it is on in spec.interface"
// +kubebuilder:validation:XValidation:rule="!has(self.multihopTTL) || !has(self.ttlSecurityHops)",message="spec.ttlSecurityHops excludes spec.multihopTTL: it says how far the router may be, and packets leave with TTL 255"
// +kubebuilder:validation:XValidation:rule="!has(self.multihopTTL) || !has(self.peerType)",message="spec.multihopTTL needs spec.peerASN or spec.peerASNFrom; with spec.peerType leave it out"
// +kubebuilder:validation:XValidation:rule="!has(self.role) || !(has(self.peerType) && self.peerType == 'Internal' || has(self.localASN) && has(self.peerASN) && self.localASN == self.peerASN)",message="spec.role is for routers of another AS (RFC 9234): leave it out"
// +kubebuilder:validation:XValidation:rule="!has(self.interface) || !has(self.addressFrom) || !has(self.addressFrom.interface)",message="spec.addressFrom.interface names the interface already: leave spec.interface out"
type BGPPeerSpec struct {
	// The AS number of the nodes (RFC 6793). Each BGPPeer has its own, so the nodes can be in different ASes for
	// different routers.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967295
	LocalASN int64 `json:"localASN,omitempty"`

	// Set this in place of localASN if the nodes have different AS numbers: a label or an annotation of each Node whose
	// value is a decimal number from 1 to 4294967295.
	// +optional
	LocalASNFrom *NodeValueSource `json:"localASNFrom,omitempty"`

	// The AS number of the router. If it is the same as localASN, the session is internal.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967295
	PeerASN int64 `json:"peerASN,omitempty"`

	// Set this in place of peerASN if the routers have different AS numbers: a label or an annotation of each Node, as in
	// localASNFrom.
	// +optional
	PeerASNFrom *NodeValueSource `json:"peerASNFrom,omitempty"`

	// Set this in place of peerASN if the AS number of the router is not known. Internal: the router is in the AS of the
	// node. External: it is in any other AS, and the session is closed if it is in the same AS. With peerType, packets
	// to the router have the default TTL of the system, unless ttlSecurityHops is set.
	// +optional
	PeerType PeerType `json:"peerType,omitempty"`

	// The BGP role of the nodes (RFC 9234): what they are to the router, which must have the other role of the pair,
	// Provider and Customer, RSServer and RSClient, or Peer and Peer. If the router has another one, there is no session.
	// If the router has none, there is one. Routes of a Provider, a Peer and an RSServer get the attribute Only to Customer.
	// If not set, the nodes have no role, and a router in strict mode refuses them.
	// +optional
	Role BGPRole `json:"role,omitempty"`

	// The address of the router. If it is a link-local IPv6 address, spec.interface is required.
	// +optional
	// +kubebuilder:validation:MaxLength=39
	// +kubebuilder:validation:XValidation:rule="isIP(self)",message="must be an IP address"
	// +kubebuilder:validation:XValidation:rule="!isIP(self) || ip.isCanonical(self)",message="write the address in its canonical form (RFC 5952): in lower case, without leading zeros, with :: for the longest run of zeros"
	Address string `json:"address,omitempty"`

	// Set this in place of address if nodes have different routers: it says where each node finds the address of its
	// router. If a node finds none, the message of the condition Established says so.
	// +optional
	AddressFrom *PeerAddressSource `json:"addressFrom,omitempty"`

	// The TCP port of the router. If passive is true, the TCP port of the node to which the router connects.
	// +optional
	// +kubebuilder:default=179
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`

	// If true, the router connects to the nodes. If false, the nodes connect to the router, and do not listen.
	// +optional
	Passive bool `json:"passive,omitempty"`

	// The address of the node from which it connects. If passive is true, the address to which the router connects. If not
	// set, the routing table decides.
	// +optional
	// +kubebuilder:validation:MaxLength=39
	// +kubebuilder:validation:XValidation:rule="isIP(self)",message="must be an IP address"
	// +kubebuilder:validation:XValidation:rule="!isIP(self) || ip.isCanonical(self)",message="write the address in its canonical form (RFC 5952): in lower case, without leading zeros, with :: for the longest run of zeros"
	SourceAddress string `json:"sourceAddress,omitempty"`

	// The interface or the VRF of the node to which connections are bound. If not set, the routing table decides.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=15
	Interface string `json:"interface,omitempty"`

	// A label or an annotation of each Node with its BGP identifier (RFC 6286): an IPv4 address that is the identifier of
	// no other router in the network. If not set, the identifier is the IPv4 InternalIP of the Node. If the Node has none,
	// it is computed from the name of the node.
	// +optional
	RouterIDFrom *NodeValueSource `json:"routerIDFrom,omitempty"`

	// The session ends if nothing is received for this time (RFC 4271), in whole seconds. 0s, which means that a session
	// never ends, is refused: routes to a dead node would stay forever.
	// +optional
	// +kubebuilder:default="90s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('3s') && duration(self) <= duration('65535s') && duration(self).getMilliseconds() % 1000 == 0",message="must be in whole seconds from 3s to 65535s (RFC 4271, section 4.2); a session without a hold time is not offered"
	HoldTime *metav1.Duration `json:"holdTime,omitempty"`

	// The time between two KEEPALIVE messages, in whole seconds. If not set, it is a third of the hold time.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self).getMilliseconds() % 1000 == 0",message="must be in whole seconds, at least 1s"
	KeepaliveTime *metav1.Duration `json:"keepaliveTime,omitempty"`

	// The time until the node tries again to connect, in whole seconds.
	// +optional
	// +kubebuilder:default="2s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('2s') && duration(self) <= duration('3600s') && duration(self).getMilliseconds() % 1000 == 0",message="must be in whole seconds from 2s to 3600s"
	ConnectRetryTime *metav1.Duration `json:"connectRetryTime,omitempty"`

	// The TTL of packets to an external router that is not on the link. If not set, the router is on the link.
	// +optional
	// +kubebuilder:validation:Minimum=2
	// +kubebuilder:validation:Maximum=255
	MultihopTTL int32 `json:"multihopTTL,omitempty"`

	// TTL security (GTSM, RFC 5082) with a router that is at most this number of hops away. A router on the link is one
	// hop away. Packets are sent with a TTL of 255, and packets that come from farther away are dropped. TTL security must
	// be configured on the router, too. If not set, there is no TTL security.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=254
	TTLSecurityHops int32 `json:"ttlSecurityHops,omitempty"`

	// Graceful restart (RFC 4724): the router keeps the routes while the speaker of a node is replaced, or after it
	// crashes. The node continues to forward packets. The router must support this; BIRD and FRR do by default. If not set,
	// the router drops the routes when the session ends. With bfd, FRR 8.4 keeps the routes, too; BIRD 2.0 keeps them only
	// if it is configured with "bfd graceful".
	// +optional
	GracefulRestart *GracefulRestart `json:"gracefulRestart,omitempty"`

	// Detect with BFD (RFC 5880), within a fraction of a second, that the path to the router is dead, and end the session.
	// The session does not wait for BFD: it is also established with a router that does not run BFD. If not set, the nodes
	// do not run BFD with the router.
	// +optional
	BFD *BFD `json:"bfd,omitempty"`

	// The Secret with the password of the session (TCP MD5, RFC 2385).
	// +optional
	PasswordSecret *SecretReference `json:"passwordSecret,omitempty"`

	// Selects the nodes that have a session with the router. If not set, all nodes do.
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`
}

// PeerType says whether a session is within an AS or between two (RFC 4271, section 1.1).
//
// +kubebuilder:validation:Enum=Internal;External
type PeerType string

// The types of peers.
const (
	PeerInternal PeerType = "Internal"
	PeerExternal PeerType = "External"
)

// BGPRole is what one end of a session is to the other (RFC 9234, section 3). RSServer is a route server, and RSClient a client
// of one.
//
// +kubebuilder:validation:Enum=Provider;RSServer;RSClient;Customer;Peer
type BGPRole string

// The roles.
const (
	RoleProvider BGPRole = "Provider"
	RoleRSServer BGPRole = "RSServer"
	RoleRSClient BGPRole = "RSClient"
	RoleCustomer BGPRole = "Customer"
	RolePeer     BGPRole = "Peer"
)

// NodeValueSource names a label or an annotation in which each Node has a value of its own.
//
// +kubebuilder:validation:XValidation:rule="has(self.nodeLabel) != has(self.nodeAnnotation)",message="give exactly one of nodeLabel and nodeAnnotation"
type NodeValueSource struct {
	// The key of a label of the Node.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	NodeLabel string `json:"nodeLabel,omitempty"`

	// The key of an annotation of the Node.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	NodeAnnotation string `json:"nodeAnnotation,omitempty"`
}

// PeerAddressSource says where each node finds the address of its router.
//
// +kubebuilder:validation:XValidation:rule="[has(self.defaultGateway), has(self.nodeLabel), has(self.nodeAnnotation), has(self.interface)].filter(x, x).size() == 1",message="give exactly one of defaultGateway, nodeLabel, nodeAnnotation and interface"
type PeerAddressSource struct {
	// The address is the gateway of the node's default route of this family. If the node has several default routes, set
	// spec.interface.
	// +optional
	DefaultGateway IPFamily `json:"defaultGateway,omitempty"`

	// The key of a label of the Node whose value is the address. An IPv6 address cannot be the value of a label.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	NodeLabel string `json:"nodeLabel,omitempty"`

	// The key of an annotation of the Node whose value is the address.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	NodeAnnotation string `json:"nodeAnnotation,omitempty"`

	// Unnumbered: the router is the only one on the link of this interface, and its address is the IPv6 link-local address
	// from which it sends Router Advertisements (RFC 4861). The nodes need no other address on the link. IPv4 routes have
	// the node's link-local address as next hop, too (RFC 8950), and the router must support this.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=15
	Interface string `json:"interface,omitempty"`
}

// IPFamily is IPv4 or IPv6.
//
// +kubebuilder:validation:Enum=IPv4;IPv6
type IPFamily string

// The families.
const (
	IPv4 IPFamily = "IPv4"
	IPv6 IPFamily = "IPv6"
)

// GracefulRestart says what the router is asked to do with the routes when a session ends without a NOTIFICATION.
type GracefulRestart struct {
	// How long the router keeps the routes, in whole seconds.
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('4095s') && duration(self).getMilliseconds() % 1000 == 0",message="must be in whole seconds from 1s to 4095s (RFC 4724, section 3)"
	RestartTime metav1.Duration `json:"restartTime,omitzero"`

	// Long-lived graceful restart (RFC 9494): how long after restartTime the router keeps the routes as a last resort, in
	// whole seconds. In this time it prefers any other route to the address. The router must support this. If not set, it
	// drops the routes after restartTime.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('16777215s') && duration(self).getMilliseconds() % 1000 == 0",message="must be in whole seconds from 1s to 16777215s (RFC 9494, section 4.2)"
	StaleTime *metav1.Duration `json:"staleTime,omitempty"`

	// What the router does when the session ends with a NOTIFICATION that is not a Hard Reset (RFC 8538), for example
	// because the hold time expired. Drop: it drops the routes at once. Keep: it keeps them as after a restart. Then a
	// slow speaker loses no routes, but the routes of a dead node stay for restartTime longer. The router must support
	// this. A speaker ends sessions that are no longer wanted with a Hard Reset.
	// +optional
	// +kubebuilder:default=Drop
	OnNotification NotificationPolicy `json:"onNotification,omitempty"`
}

// NotificationPolicy says what happens to routes when a session ends with a NOTIFICATION.
//
// +kubebuilder:validation:Enum=Drop;Keep
type NotificationPolicy string

// The notification policies.
const (
	NotificationDrop NotificationPolicy = "Drop"
	NotificationKeep NotificationPolicy = "Keep"
)

// BFD is Bidirectional Forwarding Detection with a router. A change of timers does not end the sessions.
type BFD struct {
	// After how many missing packets in a row the router considers the path dead. The router's own multiplier decides when
	// the node considers the path dead.
	// +optional
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=255
	DetectMultiplier int32 `json:"detectMultiplier,omitempty"`

	// The minimum time between two packets to the router. If the minimum receive interval of the router is longer, that
	// applies. With less than 50ms, a busy node may be considered dead.
	// +optional
	// +kubebuilder:default="300ms"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10ms') && duration(self) <= duration('60s')",message="must be from 10ms to 60s"
	TransmitInterval *metav1.Duration `json:"transmitInterval,omitempty"`

	// The minimum time between two packets from the router. If the minimum transmit interval of the router is longer, that
	// applies.
	// +optional
	// +kubebuilder:default="300ms"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10ms') && duration(self) <= duration('60s')",message="must be from 10ms to 60s"
	ReceiveInterval *metav1.Duration `json:"receiveInterval,omitempty"`

	// For a router that is not on the link (RFC 5883): the minimum TTL with which its packets arrive. This is the TTL with
	// which it sends them (255, or 64 for BIRD) minus the number of routers in between. If not set, the router is on the
	// link, and its packets must arrive with a TTL of 255 (RFC 5881).
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=254
	MinimumTTL int32 `json:"minimumTTL,omitempty"`
}

// SecretReference names a Secret of type kubernetes.io/basic-auth in the namespace for passwords of peers
// (herald-system-peers). The value of its key "password" is used. Herald reads no Secret in other namespaces.
type SecretReference struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// BGPPeerList is a list of BGPPeers.
//
// +kubebuilder:object:root=true
type BGPPeerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []BGPPeer `json:"items"`
}
