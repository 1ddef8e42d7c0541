package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// BGPAdvertisement announces addresses to routers, from every node that can serve them.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=hbgp,categories=herald
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Pools",type=integer,JSONPath=`.status.pools`
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodes`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Announced",type=string,JSONPath=`.status.conditions[?(@.type=="Announced")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Exclusive",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Exclusive")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Announced")].reason`
type BGPAdvertisement struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec BGPAdvertisementSpec `json:"spec,omitempty"`
	// Written by Herald.
	// +optional
	Status AdvertisementStatus `json:"status,omitempty"`
}

// BGPAdvertisementSpec says which addresses are announced, to which peers, and with which attributes. If several
// advertisements announce the same address or network to a peer, the first by name sets the attributes, and the condition
// Exclusive of the others is False.
type BGPAdvertisementSpec struct {
	Selection `json:",inline"`

	// What happens to the address of a Service that has no ready endpoint on any node. Withdraw: no node announces it.
	// Announce: nodes announce it nevertheless, so that connections of clients are refused at once instead of timing
	// out. Under externalTrafficPolicy Local every selected node then announces it.
	// +optional
	// +kubebuilder:default=Withdraw
	WithoutEndpoints EndpointsPolicy `json:"withoutEndpoints,omitempty"`

	// The names of the BGPPeers that get the routes. If neither this nor peerSelector is set, all BGPPeers get them.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=set
	Peers []string `json:"peers,omitempty"`

	// Selects BGPPeers that get the routes, in addition to those in peers.
	// +optional
	PeerSelector *metav1.LabelSelector `json:"peerSelector,omitempty"`

	// Announce networks of this prefix length in place of addresses: if it is 24, 198.51.100.0/24 for 198.51.100.7. A router
	// then sends the packets for all addresses of the network to the nodes. If no Service has an address, a node sends
	// packets for it back to its default gateway, and they go back and forth until their TTL runs out, unless the router or
	// the node discards them. An address is announced by itself in each of these cases: its network is not a part of
	// spec.addresses of the IPPool; the network contains an address that spec.exclude lists or that a node, a gateway or a
	// BGPPeer has; the Service has externalTrafficPolicy Local or sessionAffinity ClientIP, so that not every node can serve
	// it. A node announces a network as long as there is an address in it that the node would otherwise announce. The
	// network makes all Services with addresses in it reachable, even a Service that opts out by the annotation
	// herald.dev/bgp-announce.
	// +optional
	AggregationLength *AggregationLength `json:"aggregationLength,omitempty"`

	// The communities of the routes: standard, large and extended communities, and well-known names. The configuration of
	// the router decides what no-export, blackhole or graceful-shutdown do.
	// +optional
	// +kubebuilder:validation:MaxItems=32
	// +listType=set
	Communities []Community `json:"communities,omitempty"`

	// The LOCAL_PREF of the routes (RFC 4271, section 5.1.5). It is sent to internal peers only.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	LocalPreference *int64 `json:"localPreference,omitempty"`

	// The MULTI_EXIT_DISC of the routes (RFC 4271, section 5.1.4).
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	MED *int64 `json:"med,omitempty"`

	// What a Service may override by annotations: Announce (herald.dev/bgp-announce: "false" means that no route to its
	// addresses is announced), Communities (herald.dev/bgp-communities, separated by commas, in place of those here),
	// LocalPreference (herald.dev/bgp-local-preference), MED (herald.dev/bgp-med) and Prepend (herald.dev/bgp-prepend).
	// Everybody who may edit a Service may use them. An address with attributes of its own is announced by itself, not in
	// a network. An address of a Service that opts out is reachable nevertheless while a network that contains it is
	// announced: see aggregationLength.
	// +optional
	// +kubebuilder:validation:MaxItems=5
	// +listType=set
	ServiceOverrides []ServiceOverride `json:"serviceOverrides,omitempty"`

	// Whether routes have the link bandwidth extended community (draft-ietf-idr-link-bandwidth). Routers that honour it
	// distribute connections in proportion to it. None: routes do not have it, and all nodes get equal shares.
	// ReadyEndpoints: under externalTrafficPolicy Local routes have it, with 1 Mbit/s for each ready endpoint on the
	// node. A change of their number is announced after ten seconds, so that a rolling update causes few BGP updates.
	// Routes to networks, and routes under externalTrafficPolicy Cluster, never have it.
	// +optional
	// +kubebuilder:default=None
	LinkBandwidth LinkBandwidthPolicy `json:"linkBandwidth,omitempty"`

	// How long a node that leaves continues to announce its routes, with the community graceful-shutdown (RFC 8326), before
	// it withdraws them: from 1s to 20s. In this time routers that honour the community prefer other routes, and packets
	// that are under way still arrive. A node leaves when it gets the label
	// node.kubernetes.io/exclude-from-external-load-balancers or a taint that says that it is being shut down or removed,
	// when its Node is deleted, and when herald-speaker ends without being replaced, as in a shutdown of the machine. A node
	// that is only cordoned does not leave. The kubelet kills a speaker that is still draining after
	// shutdownGracePeriodCriticalPods of its configuration, or after terminationGracePeriodSeconds of the DaemonSet: both
	// must be 6s longer than this time. If not set, the routes are withdrawn at once.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('20s')",message="must be from 1s to 20s"
	DrainTime *metav1.Duration `json:"drainTime,omitempty"`

	// How often the local AS number is added to the AS path, to make the routes less preferred.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=16
	Prepend int32 `json:"prepend,omitempty"`
}

// LinkBandwidthPolicy says which link bandwidth routes have.
//
// +kubebuilder:validation:Enum=None;ReadyEndpoints
type LinkBandwidthPolicy string

// The link bandwidth policies.
const (
	LinkBandwidthNone           LinkBandwidthPolicy = "None"
	LinkBandwidthReadyEndpoints LinkBandwidthPolicy = "ReadyEndpoints"
)

// AggregationLength is the prefix length of the networks that are announced in place of addresses, for each family.
// Addresses of a family that is not set are announced one by one.
//
// +kubebuilder:validation:MinProperties=1
type AggregationLength struct {
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=32
	IPv4 int32 `json:"ipv4,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=128
	IPv6 int32 `json:"ipv6,omitempty"`
}

// Community is a standard community (64512:100, RFC 1997), a large community (64512:1:100, RFC 8092), an extended community
// (RFC 4360) or a well-known name. An extended community is a route target (rt:64512:100) or a site of origin
// (soo:64512:100).
//
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:XValidation:rule="self in ['no-export', 'no-advertise', 'no-export-subconfed', 'no-peer', 'blackhole', 'graceful-shutdown', 'accept-own', 'no-llgr'] || (self.matches('^(0|[1-9][0-9]{0,4}):(0|[1-9][0-9]{0,4})$') && self.split(':').all(p, int(p) <= 65535)) || (self.matches('^(0|[1-9][0-9]{0,9}):(0|[1-9][0-9]{0,9}):(0|[1-9][0-9]{0,9})$') && self.split(':').all(p, int(p) <= 4294967295)) || (self.matches('^(rt|soo):(0|[1-9][0-9]{0,9}):(0|[1-9][0-9]{0,9})$') && int(self.split(':')[1]) <= 4294967295 && int(self.split(':')[2]) <= (int(self.split(':')[1]) <= 65535 ? 4294967295 : 65535))",message="must be a community such as 64512:100 (each part up to 65535), a large community such as 64512:1:100 (each part up to 4294967295), an extended community such as rt:64512:100 or soo:64512:100 (the last number up to 4294967295, or up to 65535 after an AS number above 65535), or one of no-export, no-advertise, no-export-subconfed, no-peer, blackhole, graceful-shutdown, accept-own, no-llgr; numbers without leading zeros"
type Community string

// BGPAdvertisementList is a list of BGPAdvertisements.
//
// +kubebuilder:object:root=true
type BGPAdvertisementList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []BGPAdvertisement `json:"items"`
}
