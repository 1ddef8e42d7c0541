package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// IPPool is a set of addresses that Services of type LoadBalancer may be given.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=hpool,categories=herald
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Ranges",type=string,JSONPath=`.status.ranges`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Announced",type=string,JSONPath=`.status.conditions[?(@.type=="Announced")].status`
// +kubebuilder:printcolumn:name="Used-IPv4",type=integer,JSONPath=`.status.ipv4.assigned`
// +kubebuilder:printcolumn:name="Free-IPv4",type=integer,JSONPath=`.status.ipv4.available`
// +kubebuilder:printcolumn:name="Used-IPv6",type=integer,JSONPath=`.status.ipv6.assigned`
// +kubebuilder:printcolumn:name="Free-IPv6",type=integer,JSONPath=`.status.ipv6.available`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Auto",type=boolean,priority=1,JSONPath=`.spec.autoAssign`
// +kubebuilder:printcolumn:name="Exclusive",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Exclusive")].status`
// +kubebuilder:printcolumn:name="Ready-Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Announced-Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Announced")].reason`
type IPPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec IPPoolSpec `json:"spec"`
	// Written by Herald.
	// +optional
	Status IPPoolStatus `json:"status,omitempty"`
}

// IPPoolSpec says which addresses the pool holds and how they are given out.
//
// +kubebuilder:validation:XValidation:rule="!has(self.externalPoolRef) || self.addresses.all(a, a.contains(':')) || self.addresses.all(a, !a.contains(':'))",message="with externalPoolRef a pool has addresses of one family, as the IPAM contract demands: create a pool for each family"
// +kubebuilder:validation:XValidation:rule="!has(self.externalPoolRef) || !has(self.announceClasses)",message="externalPoolRef and announceClasses exclude each other: another system cannot grant what another controller gives"
type IPPoolSpec struct {
	// The pool's addresses: prefixes (198.51.100.0/26, 2001:db8:1::/112), ranges (198.51.100.100-198.51.100.120) and
	// single addresses, of one family or both. If an older pool has one of these addresses, it remains an address of
	// the older pool.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	Addresses []AddressRange `json:"addresses"`

	// Addresses among those above that are never given out.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	Exclude []AddressRange `json:"exclude,omitempty"`

	// A pool of another system that grants each address before a Service gets it, such as an InClusterIPPool or a
	// NetBoxIPPool: an object of this kind in the namespace of herald-ccm. For each new address herald-ccm creates an
	// IPAddressClaim (ipam.cluster.x-k8s.io, the IPAM contract of Cluster API), and waits for the IPAddress. Only addresses
	// that are in spec.addresses and free are accepted. If not set, herald-ccm chooses the addresses itself.
	// +optional
	ExternalPoolRef *ExternalPoolReference `json:"externalPoolRef,omitempty"`

	// Do not give out IPv4 addresses that end in .0 or .255. Some old devices mistake these for network and broadcast
	// addresses.
	// +optional
	AvoidBuggyIPs bool `json:"avoidBuggyIPs,omitempty"`

	// Whether a Service that does not name a pool may get an address of this pool. If false, only a Service that asks
	// for the pool (annotation herald.dev/pool) or for an address of it gets one.
	// +optional
	// +kubebuilder:default=true
	AutoAssign *bool `json:"autoAssign,omitempty"`

	// The names of the namespaces whose Services the pool serves. If neither this nor namespaceSelector is set, the
	// pool serves all namespaces.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=63
	// +listType=set
	Namespaces []string `json:"namespaces,omitempty"`

	// Selects namespaces whose Services the pool serves, in addition to those in namespaces.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`

	// Selects the Services that the pool serves. If not set, the pool serves all. A Service that has an address keeps
	// it when its labels or this selector change.
	// +optional
	ServiceSelector *metav1.LabelSelector `json:"serviceSelector,omitempty"`

	// The load-balancer classes of other controllers that write addresses into the status of their Services themselves,
	// such as gateway.nginx.org/nginx-gateway-controller. Herald announces such an address if the pool has it, no other
	// Service holds it, and the pool serves the Service. Herald does not change these Services.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=317
	// +kubebuilder:validation:items:Pattern=`^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`
	// +kubebuilder:validation:items:XValidation:rule="self != 'herald.dev/herald'",message="Herald gives the addresses of its own class itself: list classes of other controllers"
	// +listType=set
	AnnounceClasses []string `json:"announceClasses,omitempty"`

	// Pools with a higher priority are tried first. Of pools with the same priority, the oldest is tried first.
	// +optional
	// +kubebuilder:validation:Minimum=-2147483648
	// +kubebuilder:validation:Maximum=2147483647
	Priority int32 `json:"priority,omitempty"`

	// Which of the free addresses is given out next. LeastRecentlyUsed: first the addresses that were never in use,
	// in ascending order, then the address that has been free for the longest time. Lowest: the lowest address.
	// +optional
	// +kubebuilder:default=LeastRecentlyUsed
	AddressOrder AddressOrder `json:"addressOrder,omitempty"`

	// Whether Services of different namespaces may share an address (annotation herald.dev/sharing-key). Services of
	// the same namespace always may.
	// +optional
	ShareAcrossNamespaces bool `json:"shareAcrossNamespaces,omitempty"`

	// The maximum number of addresses of each family that one namespace may hold from this pool. Addresses that cool
	// down count. An address that several Services share counts once. A namespace that already holds more than a new
	// quota permits keeps its addresses.
	// +optional
	Quota *AddressQuota `json:"quota,omitempty"`

	// What happens to an address when its Service is deleted. Delete: the address is free after reuseDelay. Retain: the
	// address is kept for a Service of the same namespace and name. The annotation herald.dev/reclaim of a Service
	// overrides this.
	// +optional
	// +kubebuilder:default=Delete
	ReclaimPolicy ReclaimPolicy `json:"reclaimPolicy,omitempty"`

	// Whether a Service may use the annotation herald.dev/reclaim with the value Retain although reclaimPolicy is Delete.
	// A retained address counts against the quota of its namespace, and is released when the namespace is deleted.
	// +optional
	AllowRetain bool `json:"allowRetain,omitempty"`

	// How long an address cools down after its Service is deleted, before another Service may get it. In this time
	// routers and clients forget the old Service.
	// +optional
	// +kubebuilder:default="10s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	ReuseDelay *metav1.Duration `json:"reuseDelay,omitempty"`

	// What the owner of an address does when a machine that is not a speaker also uses the address. Defend: the owner
	// announces the address again, at most once in ten seconds (RFC 5227, section 2.4). Yield: no node answers for the
	// address until that machine has not been seen for a minute.
	// +optional
	// +kubebuilder:default=Defend
	OnConflict ConflictPolicy `json:"onConflict,omitempty"`

	// If true, the pool gives out no new addresses. Services keep the addresses that they have, and a Service gets an
	// address that is kept for it.
	// +optional
	Disabled bool `json:"disabled,omitempty"`
}

// ExternalPoolReference names a pool of another system, in the namespace of herald-ccm or cluster-wide. It becomes the
// spec.poolRef of IPAddressClaims.
//
// +structType=atomic
type ExternalPoolReference struct {
	// The API group of the kind, such as ipam.cluster.x-k8s.io.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	APIGroup string `json:"apiGroup"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$`
	Kind string `json:"kind"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	Name string `json:"name"`
}

// ConflictPolicy says what the owner of an address does about a stranger that uses it.
//
// +kubebuilder:validation:Enum=Defend;Yield
type ConflictPolicy string

// The conflict policies.
const (
	ConflictDefend ConflictPolicy = "Defend"
	ConflictYield  ConflictPolicy = "Yield"
)

// AddressOrder says which of a pool's free addresses is given next.
//
// +kubebuilder:validation:Enum=LeastRecentlyUsed;Lowest
type AddressOrder string

// The orders.
const (
	OrderLeastRecentlyUsed AddressOrder = "LeastRecentlyUsed"
	OrderLowest            AddressOrder = "Lowest"
)

// ReclaimPolicy says what happens to an address when its Service is deleted.
//
// +kubebuilder:validation:Enum=Delete;Retain
type ReclaimPolicy string

// The policies.
const (
	ReclaimDelete ReclaimPolicy = "Delete"
	ReclaimRetain ReclaimPolicy = "Retain"
)

// AddressQuota limits the number of addresses of each family. A family that is not set is not limited.
//
// +kubebuilder:validation:MinProperties=1
type AddressQuota struct {
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	IPv4 *int64 `json:"ipv4,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	IPv6 *int64 `json:"ipv6,omitempty"`
}

// AddressRange is a prefix, a range "first-last" or a single address. An admission policy refuses ranges that end before
// they start, entries that overlap, and addresses that no Service can have.
//
// +kubebuilder:validation:MinLength=2
// +kubebuilder:validation:MaxLength=83
// +kubebuilder:validation:XValidation:rule="(isIP(self) || isCIDR(self) || (self.split('-').size() == 2 && self.split('-').all(p, isIP(p.trim())))) && !(self.contains(':') && self.split('-').exists(p, p.contains(':') && p.contains('.')))",message="must be a prefix such as 198.51.100.0/26, a range such as 198.51.100.10-198.51.100.20, or an address"
// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self) == cidr(self).masked()",messageExpression="'has bits set behind the prefix length: write the first address of the prefix, or ' + self.split('/')[0] + ' for the one address'"
// +kubebuilder:validation:XValidation:rule="!(self.split('-').size() == 2 && self.split('-').all(p, isIP(p.trim()))) || ip(self.split('-')[0].trim()).family() == ip(self.split('-')[1].trim()).family()",message="a range must have two ends of one family, both IPv4 or both IPv6"
// +kubebuilder:validation:XValidation:rule="isCIDR(self) ? string(cidr(self)) == self : self.split('-').all(p, !isIP(p.trim()) || ip.isCanonical(p.trim()))",message="write the address in its canonical form (RFC 5952): in lower case, without leading zeros, with :: for the longest run of zeros"
type AddressRange string

// IPPoolStatus is what herald-ccm observes of a pool.
type IPPoolStatus struct {
	// The first entries of spec.addresses, and the number of the others: "198.51.100.0/26, +2".
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Ranges string `json:"ranges,omitempty"`

	// +optional
	IPv4 *PoolUsage `json:"ipv4,omitempty"`
	// +optional
	IPv6 *PoolUsage `json:"ipv6,omitempty"`

	// Accepted: the spec is valid and in force. If it is not valid, the last valid spec stays in force. The message lists
	// the addresses of the pool that are never given out, because they are addresses of nodes, gateways or BGPPeers, or
	// network or broadcast addresses. Ready: the pool can give out addresses. AddressesAvailable: each family has a free
	// address. Exclusive: no older pool, no pod and no ClusterIP has addresses of the pool. If pods or ClusterIPs have
	// some, the pool gives these addresses out nevertheless, and clients may not reach them. InRange: the pool has every
	// address that is recorded for it. Announced: an advertisement selects the pool, and nodes can announce each of its
	// addresses. Granted, with spec.externalPoolRef: the other system can be asked, refuses nothing, and still grants every
	// address that it granted and that is in use.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.lastTransitionTime >= timestamp('0001-01-01T00:00:00Z'))",message="lastTransitionTime must be a time as 2006-01-02T15:04:05Z (RFC 3339)"
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// PoolUsage counts the addresses of one family. The number 9007199254740991 (MaxCount) means that many or more.
type PoolUsage struct {
	// The number of addresses that the pool has.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	Capacity int64 `json:"capacity"`
	// The number of addresses that Services use or that are reserved.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	Assigned int64 `json:"assigned"`
	// The number of addresses that cool down: their Service is deleted, and spec.reuseDelay has not passed.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	Cooling int64 `json:"cooling"`
	// The number of addresses that can be given out now.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	Available int64 `json:"available"`
}

// MaxCount is the largest number in a PoolUsage or an AddressQuota. Every JSON parser represents the integers up to this
// one exactly (RFC 8259, section 6).
const MaxCount = 1<<53 - 1

// Condition types of an IPPool.
const (
	// PoolReady: the pool gives out addresses.
	PoolReady = "Ready"
	// PoolAddressesAvailable: there is a free address of each family that the pool has.
	PoolAddressesAvailable = "AddressesAvailable"
	PoolExclusive          = ConditionExclusive
	// PoolInRange of an IPPool: the pool has all addresses that it gave out and that are in use. Of an IPAllocation: the
	// pool that gave out the address still has it.
	PoolInRange = "InRange"
	// PoolGranted of an IPPool with spec.externalPoolRef: the other system can be asked, refuses nothing, and still grants every address
	// that it granted and that is in use.
	PoolGranted = "Granted"
)

// IPPoolList is a list of IPPools.
//
// +kubebuilder:object:root=true
type IPPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []IPPool `json:"items"`
}
