package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// BGPPeer is a router that the speakers hold a BGP session with.
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

// BGPPeerSpec is one end of a session as the speakers see it.
//
// +kubebuilder:validation:XValidation:rule="has(self.localASN) != has(self.localASNFrom)",message="give exactly one of spec.localASN and spec.localASNFrom"
// +kubebuilder:validation:XValidation:rule="[has(self.peerASN), has(self.peerASNFrom), has(self.peerType)].filter(x, x).size() == 1",message="give exactly one of spec.peerASN, spec.peerASNFrom and spec.peerType"
// +kubebuilder:validation:XValidation:rule="has(self.address) != has(self.addressFrom)",message="give exactly one of spec.address and spec.addressFrom"
// +kubebuilder:validation:XValidation:rule="!has(self.bfd) || !has(self.multihopTTL) || has(self.bfd.minimumTTL)",message="a router that is not on the link (spec.multihopTTL) needs spec.bfd.minimumTTL: 255 less the number of routers in between, or 64 less it if the router sends BFD with a TTL of 64, as BIRD does"
// +kubebuilder:validation:XValidation:rule="!has(self.keepaliveTime) || !has(self.holdTime) || duration(self.keepaliveTime) < duration(self.holdTime)",message="spec.keepaliveTime must be shorter than spec.holdTime; a third of it is usual"
// +kubebuilder:validation:XValidation:rule="!has(self.sourceAddress) || !has(self.address) || !isIP(self.sourceAddress) || !isIP(self.address) || ip(self.sourceAddress).family() == ip(self.address).family()",message="spec.sourceAddress and spec.address must be of one family"
// +kubebuilder:validation:XValidation:rule="!has(self.address) || !isIP(self.address) || ip(self.address).family() == 4 || !ip(self.address).isLinkLocalUnicast() || has(self.interface)",message="spec.address is a link-local address: name the interface that it is on in spec.interface"
// +kubebuilder:validation:XValidation:rule="!has(self.multihopTTL) || !has(self.ttlSecurityHops)",message="spec.ttlSecurityHops excludes spec.multihopTTL: it says how far the router may be, and packets leave with TTL 255"
// +kubebuilder:validation:XValidation:rule="!has(self.multihopTTL) || !has(self.peerType)",message="spec.multihopTTL needs spec.peerASN or spec.peerASNFrom; with spec.peerType leave it out"
// +kubebuilder:validation:XValidation:rule="!has(self.interface) || !has(self.addressFrom) || !has(self.addressFrom.interface)",message="spec.addressFrom.interface names the interface already: leave spec.interface out"
type BGPPeerSpec struct {
	// The AS number of the nodes (RFC 6793). Every BGPPeer has its own, so the nodes may be of different ASes for
	// different routers.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967295
	LocalASN int64 `json:"localASN,omitempty"`

	// Where each node has its own AS number: a decimal number from 1 to 4294967295. In place of localASN.
	// +optional
	LocalASNFrom *NodeValueSource `json:"localASNFrom,omitempty"`

	// The AS number of the router. The same as localASN makes the session internal.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967295
	PeerASN int64 `json:"peerASN,omitempty"`

	// Where each node has the AS number of its router, as in localASNFrom. In place of peerASN.
	// +optional
	PeerASNFrom *NodeValueSource `json:"peerASNFrom,omitempty"`

	// In place of peerASN. Internal: the router is of the AS of the node. External: it may be of any other AS. The
	// session is closed if it is of the same. Packets to such a router have the TTL that the system gives them.
	// +optional
	PeerType PeerType `json:"peerType,omitempty"`

	// The router's address. A link-local IPv6 address needs spec.interface.
	// +optional
	// +kubebuilder:validation:MaxLength=39
	// +kubebuilder:validation:XValidation:rule="isIP(self)",message="must be an IP address"
	// +kubebuilder:validation:XValidation:rule="!isIP(self) || ip.isCanonical(self)",message="write the address in its canonical form (RFC 5952): in lower case, without leading zeros, with :: for the longest run of zeros"
	Address string `json:"address,omitempty"`

	// Where each node finds the address of its router. In place of address: one BGPPeer then stands for several
	// routers, one for each node. The condition Established names a node that finds none.
	// +optional
	AddressFrom *PeerAddressSource `json:"addressFrom,omitempty"`

	// The TCP port that is connected to: the router's or, with passive, the node's.
	// +optional
	// +kubebuilder:default=179
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`

	// The router connects to the nodes. Otherwise the nodes connect to the router, and nothing listens on them.
	// +optional
	Passive bool `json:"passive,omitempty"`

	// The address of the node that the session is to come from, and with passive the one that the router connects to.
	// Without it the routing table decides.
	// +optional
	// +kubebuilder:validation:MaxLength=39
	// +kubebuilder:validation:XValidation:rule="isIP(self)",message="must be an IP address"
	// +kubebuilder:validation:XValidation:rule="!isIP(self) || ip.isCanonical(self)",message="write the address in its canonical form (RFC 5952): in lower case, without leading zeros, with :: for the longest run of zeros"
	SourceAddress string `json:"sourceAddress,omitempty"`

	// The interface or the VRF of the node that connections are bound to. Without it the routing table decides.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=15
	Interface string `json:"interface,omitempty"`

	// Where each node has its BGP identifier (RFC 6286): an IPv4 address that no other router of the network has.
	// Without it, it is the IPv4 InternalIP of the Node or, where there is none, a number made from the node's name.
	// +optional
	RouterIDFrom *NodeValueSource `json:"routerIDFrom,omitempty"`

	// Silence after which the session counts as dead (RFC 4271), in whole seconds. 0s, for a session that never
	// times out, is refused: routes to a dead node would stay for good.
	// +optional
	// +kubebuilder:default="90s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('3s') && duration(self) <= duration('65535s') && duration(self).getMilliseconds() % 1000 == 0",message="must be in whole seconds from 3s to 65535s (RFC 4271, section 4.2); a session without a hold time is not offered"
	HoldTime *metav1.Duration `json:"holdTime,omitempty"`

	// How often a sign of life is sent, in whole seconds. A third of the hold time if it is not given.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self).getMilliseconds() % 1000 == 0",message="must be in whole seconds, at least 1s"
	KeepaliveTime *metav1.Duration `json:"keepaliveTime,omitempty"`

	// How soon a connection is tried again, in whole seconds.
	// +optional
	// +kubebuilder:default="2s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('2s') && duration(self) <= duration('3600s') && duration(self).getMilliseconds() % 1000 == 0",message="must be in whole seconds from 2s to 3600s"
	ConnectRetryTime *metav1.Duration `json:"connectRetryTime,omitempty"`

	// The TTL of packets to an external router that is not on the link. None: it is on the link.
	// +optional
	// +kubebuilder:validation:Minimum=2
	// +kubebuilder:validation:Maximum=255
	MultihopTTL int32 `json:"multihopTTL,omitempty"`

	// TTL security (GTSM, RFC 5082) for a router that is at most so many hops away, 1 being on the link: packets
	// leave with TTL 255, and those that come from farther away are dropped. The router must have it, too.
	// None: no TTL security.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=254
	TTLSecurityHops int32 `json:"ttlSecurityHops,omitempty"`

	// Let the router keep the routes while the node's speaker is replaced or crashes (RFC 4724): the node
	// forwards meanwhile. The router must support it, as BIRD and FRR do unless told otherwise. None: the
	// routes go with the session. With bfd, FRR 8.4 keeps the routes too, and BIRD 2.0 only if it is configured with "bfd
	// graceful".
	// +optional
	GracefulRestart *GracefulRestart `json:"gracefulRestart,omitempty"`

	// Find out by BFD (RFC 5880) within a fraction of a second that the path to the router is dead, and end the session
	// then. The session does not wait for BFD: it comes up also with a router that has no BFD. None: no BFD.
	// +optional
	BFD *BFD `json:"bfd,omitempty"`

	// The Secret with the password of the session (TCP MD5, RFC 2385).
	// +optional
	PasswordSecret *SecretReference `json:"passwordSecret,omitempty"`

	// Labels of the nodes that hold the session. None: all nodes.
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`
}

// PeerType tells sessions within an AS from those between ASes (RFC 4271, section 1.1).
//
// +kubebuilder:validation:Enum=Internal;External
type PeerType string

// The types of peers.
const (
	PeerInternal PeerType = "Internal"
	PeerExternal PeerType = "External"
)

// NodeValueSource is where each node has a value of its own.
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

// PeerAddressSource is where each node finds the address of its router.
//
// +kubebuilder:validation:XValidation:rule="[has(self.defaultGateway), has(self.nodeLabel), has(self.nodeAnnotation), has(self.interface)].filter(x, x).size() == 1",message="give exactly one of defaultGateway, nodeLabel, nodeAnnotation and interface"
type PeerAddressSource struct {
	// The gateway of the node's default route of this family. If the node has several, spec.interface says which.
	// +optional
	DefaultGateway IPFamily `json:"defaultGateway,omitempty"`

	// The key of a label of the Node whose value is the address. The value of a label cannot be an IPv6 address.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	NodeLabel string `json:"nodeLabel,omitempty"`

	// The key of an annotation of the Node whose value is the address.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	NodeAnnotation string `json:"nodeAnnotation,omitempty"`

	// Unnumbered: the one router on the link of this interface, at the IPv6 link-local address that it sends Router
	// Advertisements from (RFC 4861). The nodes need no other address there: IPv4 routes, too, have the node's
	// link-local address as next hop (RFC 8950), which the router must support.
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

// GracefulRestart is what a router is asked for when the session to it ends without a NOTIFICATION.
type GracefulRestart struct {
	// How long it keeps the routes, in whole seconds.
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('4095s') && duration(self).getMilliseconds() % 1000 == 0",message="must be in whole seconds from 1s to 4095s (RFC 4724, section 3)"
	RestartTime metav1.Duration `json:"restartTime,omitzero"`

	// How long after restartTime it keeps the routes as a last resort, in whole seconds (RFC 9494): it uses another
	// route to the address where there is one. The router must support it. None: it drops the routes after
	// restartTime.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('16777215s') && duration(self).getMilliseconds() % 1000 == 0",message="must be in whole seconds from 1s to 16777215s (RFC 9494, section 4.2)"
	StaleTime *metav1.Duration `json:"staleTime,omitempty"`

	// What the router does when the session ends with a NOTIFICATION that is not a Hard Reset (RFC 8538), above all
	// because the hold time has expired. Drop: the routes go at once. Keep: as after a restart, so that a node whose
	// speaker was slow loses nothing, and a dead node keeps its routes for restartTime longer. The router must
	// support it. The speaker itself closes sessions that it does not want any more with a Hard Reset.
	// +optional
	// +kubebuilder:default=Drop
	OnNotification NotificationPolicy `json:"onNotification,omitempty"`
}

// NotificationPolicy says what becomes of routes when a session ends with a NOTIFICATION.
//
// +kubebuilder:validation:Enum=Drop;Keep
type NotificationPolicy string

// The notification policies.
const (
	NotificationDrop NotificationPolicy = "Drop"
	NotificationKeep NotificationPolicy = "Keep"
)

// BFD is Bidirectional Forwarding Detection with a router. When timers change, the router is told, and the sessions stay.
type BFD struct {
	// How many packets in a row the router may miss before it takes the node for dead. The router has a number of its own.
	// +optional
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=255
	DetectMultiplier int32 `json:"detectMultiplier,omitempty"`

	// The shortest time between two packets to the router. If the router wants to receive fewer, that holds. Below 50ms, a
	// busy node may be taken for dead.
	// +optional
	// +kubebuilder:default="300ms"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10ms') && duration(self) <= duration('60s')",message="must be from 10ms to 60s"
	TransmitInterval *metav1.Duration `json:"transmitInterval,omitempty"`

	// The shortest time between two packets from the router. If it wants to send fewer, that holds.
	// +optional
	// +kubebuilder:default="300ms"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10ms') && duration(self) <= duration('60s')",message="must be from 10ms to 60s"
	ReceiveInterval *metav1.Duration `json:"receiveInterval,omitempty"`

	// For a router that is not on the link (RFC 5883): the least TTL that its packets may arrive with, which is that with which
	// it sends them (255, or 64 for BIRD) less the number of routers in between. None: it is on the link, and its packets arrive
	// with 255 (RFC 5881).
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=254
	MinimumTTL int32 `json:"minimumTTL,omitempty"`
}

// SecretReference names a Secret of type kubernetes.io/basic-auth in the namespace of the peers' passwords
// (herald-system-peers); its key password is used. No other Secret is read.
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
