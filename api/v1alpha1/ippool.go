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
type IPPoolSpec struct {
	// The pool's addresses: prefixes (198.51.100.0/26, 2001:db8:1::/112), ranges
	// (198.51.100.100-198.51.100.120) and single addresses, in any mix of families. An address that
	// an older pool holds already stays with that pool.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	Addresses []AddressRange `json:"addresses"`

	// Addresses among those above that are never given out.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	Exclude []AddressRange `json:"exclude,omitempty"`

	// Do not give out IPv4 addresses that end in .0 or .255, which some old devices take for networks and
	// broadcast addresses.
	// +optional
	AvoidBuggyIPs bool `json:"avoidBuggyIPs,omitempty"`

	// Whether Services that name no pool may be served from this one. With false, an address is
	// given only to a Service that asks for the pool (annotation herald.dev/pool) or for the address.
	// +optional
	// +kubebuilder:default=true
	AutoAssign *bool `json:"autoAssign,omitempty"`

	// Namespaces whose Services the pool serves, by name. None, here and in namespaceSelector: all.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=63
	// +listType=set
	Namespaces []string `json:"namespaces,omitempty"`

	// Labels of the namespaces whose Services the pool serves, besides those named in namespaces.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`

	// Labels of the Services that the pool serves. None: all. A Service that has an address keeps it whatever
	// becomes of its labels or of this.
	// +optional
	ServiceSelector *metav1.LabelSelector `json:"serviceSelector,omitempty"`

	// Load-balancer classes of other controllers that write the addresses of their Services into the status themselves,
	// such as gateway.nginx.org/nginx-gateway-controller. Of these addresses Herald announces those that the pool has,
	// if nobody else holds them and the pool serves the Service. Herald does not write such Services.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=317
	// +kubebuilder:validation:items:Pattern=`^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`
	// +kubebuilder:validation:items:XValidation:rule="self != 'herald.dev/herald'",message="Herald gives the addresses of its own class itself: list classes of other controllers"
	// +listType=set
	AnnounceClasses []string `json:"announceClasses,omitempty"`

	// Which pool is tried first: the higher number. Among equals the older pool.
	// +optional
	// +kubebuilder:validation:Minimum=-2147483648
	// +kubebuilder:validation:Maximum=2147483647
	Priority int32 `json:"priority,omitempty"`

	// Which of the free addresses is given next. LeastRecentlyUsed: those that were never in use, from the lowest
	// up, and then the one that has been free for the longest time, so that one just freed is the last to come
	// back. Lowest: the lowest.
	// +optional
	// +kubebuilder:default=LeastRecentlyUsed
	AddressOrder AddressOrder `json:"addressOrder,omitempty"`

	// Whether Services of different namespaces may share an address (annotation herald.dev/sharing-key). Those
	// of one namespace may.
	// +optional
	ShareAcrossNamespaces bool `json:"shareAcrossNamespaces,omitempty"`

	// The most addresses that one namespace may hold of this pool, of each family; those that cool down count, and
	// one that several Services share counts once. Who holds more when the quota comes keeps it.
	// +optional
	Quota *AddressQuota `json:"quota,omitempty"`

	// What becomes of an address when its Service goes. Delete: it rests and is free. Retain: it is kept for
	// a Service of the same namespace and name. A Service may say otherwise with the annotation
	// herald.dev/reclaim.
	// +optional
	// +kubebuilder:default=Delete
	ReclaimPolicy ReclaimPolicy `json:"reclaimPolicy,omitempty"`

	// Whether a Service may have its address kept by the annotation herald.dev/reclaim with the value Retain although
	// reclaimPolicy is Delete. A kept address counts against the quota of its namespace, and is released when the
	// namespace is deleted.
	// +optional
	AllowRetain bool `json:"allowRetain,omitempty"`

	// How long an address rests after its Service is gone before another may have it, so that no
	// router or client still takes it for the old one's.
	// +optional
	// +kubebuilder:default="10s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	ReuseDelay *metav1.Duration `json:"reuseDelay,omitempty"`

	// What the node that owns an address does when a machine that is no speaker uses the address, too. Defend: it
	// announces the address again, at most once in ten seconds (RFC 5227, section 2.4). Yield: neither it nor
	// another node answers until the stranger has not been seen for a minute.
	// +optional
	// +kubebuilder:default=Defend
	OnConflict ConflictPolicy `json:"onConflict,omitempty"`

	// Stop giving out addresses. Those in use stay in use.
	// +optional
	Disabled bool `json:"disabled,omitempty"`
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

// ReclaimPolicy says what becomes of an address when its Service goes.
//
// +kubebuilder:validation:Enum=Delete;Retain
type ReclaimPolicy string

// The policies.
const (
	ReclaimDelete ReclaimPolicy = "Delete"
	ReclaimRetain ReclaimPolicy = "Retain"
)

// AddressQuota limits numbers of addresses. A family that is not named is not limited.
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

// AddressRange is a prefix, a range "first-last" or a single address. That a range does not end before it
// starts, that entries do not overlap, and that they have no addresses that no Service can have, is told by the policy in
// manifests/policies.
//
// +kubebuilder:validation:MinLength=2
// +kubebuilder:validation:MaxLength=83
// +kubebuilder:validation:XValidation:rule="(isIP(self) || isCIDR(self) || (self.split('-').size() == 2 && self.split('-').all(p, isIP(p.trim())))) && !(self.contains(':') && self.split('-').exists(p, p.contains(':') && p.contains('.')))",message="must be a prefix such as 198.51.100.0/26, a range such as 198.51.100.10-198.51.100.20, or an address"
// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self) == cidr(self).masked()",messageExpression="'has bits set behind the prefix length: write the first address of the prefix, or ' + self.split('/')[0] + ' for the one address'"
// +kubebuilder:validation:XValidation:rule="!(self.split('-').size() == 2 && self.split('-').all(p, isIP(p.trim()))) || ip(self.split('-')[0].trim()).family() == ip(self.split('-')[1].trim()).family()",message="a range must have two ends of one family, both IPv4 or both IPv6"
// +kubebuilder:validation:XValidation:rule="isCIDR(self) ? string(cidr(self)) == self : self.split('-').all(p, !isIP(p.trim()) || ip.isCanonical(p.trim()))",message="write the address in its canonical form (RFC 5952): in lower case, without leading zeros, with :: for the longest run of zeros"
type AddressRange string

// IPPoolStatus is what the controller knows of a pool.
type IPPoolStatus struct {
	// The first entries of spec.addresses, and how many there are besides: "198.51.100.0/26, +2".
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Ranges string `json:"ranges,omitempty"`

	// +optional
	IPv4 *PoolUsage `json:"ipv4,omitempty"`
	// +optional
	IPv6 *PoolUsage `json:"ipv6,omitempty"`

	// Accepted: the spec is valid and in force. If it is not valid, the last valid one stays in force. The message
	// names addresses of the pool that are never given out, because they are those of nodes, gateways, BGPPeers or
	// of a network as a whole. Ready: the pool can give out addresses. AddressesAvailable: each family has a free
	// address. Exclusive: nobody else has addresses of the pool: no older pool, and neither pods nor ClusterIPs. One
	// that shares addresses with pods or ClusterIPs gives them out as asked, and clients may not reach them. InRange:
	// the pool has every address that is recorded for it. Announced: an advertisement selects the pool and nodes can
	// announce each of its addresses.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.lastTransitionTime >= timestamp('0001-01-01T00:00:00Z'))",message="lastTransitionTime must be a time as 2006-01-02T15:04:05Z (RFC 3339)"
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// PoolUsage counts the addresses of one family. 9007199254740991 (MaxCount) stands for that many or more.
type PoolUsage struct {
	// Addresses that the pool holds.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	Capacity int64 `json:"capacity"`
	// Addresses in use by Services, or reserved.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	Assigned int64 `json:"assigned"`
	// Addresses whose Service is gone and that wait for spec.reuseDelay to pass.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	Cooling int64 `json:"cooling"`
	// Addresses that can be given out now.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	Available int64 `json:"available"`
}

// MaxCount is the largest number in a PoolUsage or an AddressQuota: the largest up to which every JSON parser has
// all integers (RFC 8259, section 6).
const MaxCount = 1<<53 - 1

// Condition types of an IPPool.
const (
	// PoolReady: the pool gives out addresses.
	PoolReady = "Ready"
	// PoolAddressesAvailable: there is a free address of each family that the pool has.
	PoolAddressesAvailable = "AddressesAvailable"
	PoolExclusive          = ConditionExclusive
	// PoolInRange: of an IPPool, it holds all addresses that it gave out and that are in use; of an IPAllocation, the pool that
	// gave out the address holds it.
	PoolInRange = "InRange"
)

// IPPoolList is a list of IPPools.
//
// +kubebuilder:object:root=true
type IPPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []IPPool `json:"items"`
}
