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

// BGPAdvertisementSpec says what is announced, to whom, and with which attributes. Where several advertisements
// announce one address, or one network, to one peer, the first by name decides the attributes; the condition Exclusive of the
// others says so.
type BGPAdvertisementSpec struct {
	Selection `json:",inline"`

	// What is done with the address of a Service that has no ready endpoint on any node. Withdraw: no node
	// announces it. Announce: nodes announce it all the same, so that clients are refused instead of finding no
	// route; under externalTrafficPolicy Local every selected node does.
	// +optional
	// +kubebuilder:default=Withdraw
	WithoutEndpoints EndpointsPolicy `json:"withoutEndpoints,omitempty"`

	// Names of the BGPPeers that get the routes.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=set
	Peers []string `json:"peers,omitempty"`

	// Labels of the BGPPeers that get the routes, besides those named in peers. Neither: all peers.
	// +optional
	PeerSelector *metav1.LabelSelector `json:"peerSelector,omitempty"`

	// Announce networks of this length in place of each address: with 24, 198.51.100.0/24 for 198.51.100.7. A router then
	// sends whatever is for the network to the nodes. For an address that no Service has, a node sends it back by its
	// default route, and it goes round between the two until its TTL has run out, unless the router or the node discards
	// it. An address is announced by itself where a network would be wrong: it reaches beyond spec.addresses of the IPPool,
	// or has an address that spec.exclude names or that a node, a gateway or a BGPPeer has; or the Service has
	// externalTrafficPolicy Local or sessionAffinity ClientIP, so that not every node can serve it. A network is announced
	// while any address in it is. It makes all Services reachable that have an address in it, also one that opts out by the
	// annotation herald.dev/bgp-announce.
	// +optional
	AggregationLength *AggregationLength `json:"aggregationLength,omitempty"`

	// Communities of the routes: standard, large and extended ones, and well-known names. What a router does on
	// no-export, blackhole or graceful-shutdown is up to its configuration.
	// +optional
	// +kubebuilder:validation:MaxItems=32
	// +listType=set
	Communities []Community `json:"communities,omitempty"`

	// LOCAL_PREF of the routes (RFC 4271, section 5.1.5); sent to internal peers only.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	LocalPreference *int64 `json:"localPreference,omitempty"`

	// MULTI_EXIT_DISC of the routes (RFC 4271, section 5.1.4).
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	MED *int64 `json:"med,omitempty"`

	// What Services may decide for themselves, by annotations: Announce (herald.dev/bgp-announce: "false" announces no route
	// to its addresses), Communities (herald.dev/bgp-communities, separated by commas, in place of those here), LocalPreference
	// (herald.dev/bgp-local-preference), MED (herald.dev/bgp-med) and Prepend (herald.dev/bgp-prepend). Whoever may edit a
	// Service may then use them. An address with attributes of its own is announced by itself, and not in a network. One of a
	// Service that opts out is reachable all the same while a network is announced that has it: see aggregationLength.
	// +optional
	// +kubebuilder:validation:MaxItems=5
	// +listType=set
	ServiceOverrides []ServiceOverride `json:"serviceOverrides,omitempty"`

	// Whether routes have the extended community for the bandwidth of a link (draft-ietf-idr-link-bandwidth), by which
	// routers that honour it share out connections. None: they have not, and each node gets as many. ReadyEndpoints: under
	// externalTrafficPolicy Local they have, in proportion to the ready endpoints on the node: 1 Mbit/s for each. A change
	// of that number is announced after ten seconds, so that pods which roll cause few updates. Routes to networks and under
	// externalTrafficPolicy Cluster never have it.
	// +optional
	// +kubebuilder:default=None
	LinkBandwidth LinkBandwidthPolicy `json:"linkBandwidth,omitempty"`

	// How long a node that leaves goes on announcing its routes, with the community graceful-shutdown (RFC 8326), before it
	// withdraws them: from 1s to 20s. Routers that honour the community prefer other routes meanwhile, and packets under
	// way still arrive. A node leaves when it gets the label node.kubernetes.io/exclude-from-external-load-balancers or a
	// taint that says that it is being shut down or removed, when its Node is deleted, and when herald-speaker ends without
	// being replaced, as in a shutdown of the machine. One that is only cordoned does not. The kubelet kills a speaker that
	// is still draining after shutdownGracePeriodCriticalPods of its configuration, or after terminationGracePeriodSeconds of
	// the DaemonSet: both have to be 6s longer. Not given: the routes are withdrawn at once.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('20s')",message="must be from 1s to 20s"
	DrainTime *metav1.Duration `json:"drainTime,omitempty"`

	// How many times more the local AS number stands in the AS path, to make the routes less wanted.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=16
	Prepend int32 `json:"prepend,omitempty"`
}

// LinkBandwidthPolicy says what the link bandwidth of a route is.
//
// +kubebuilder:validation:Enum=None;ReadyEndpoints
type LinkBandwidthPolicy string

// The link bandwidth policies.
const (
	LinkBandwidthNone           LinkBandwidthPolicy = "None"
	LinkBandwidthReadyEndpoints LinkBandwidthPolicy = "ReadyEndpoints"
)

// AggregationLength is the prefix length of the networks that are announced in place of addresses, for each family. A
// family that is left out is announced address by address.
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

// Community is a standard community (64512:100, RFC 1997), a large one (64512:1:100, RFC 8092), an extended one (RFC 4360)
// or a well-known name. An extended community is a route target (rt:64512:100) or a site of origin (soo:64512:100).
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
