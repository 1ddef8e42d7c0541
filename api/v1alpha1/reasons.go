package v1alpha1

// Reasons of conditions and events are stable; messages are not. docs/reference/conditions.md is generated from the comments
// in this file. The last lines of a comment say where the reason occurs.

// Reasons of conditions, all of which herald-ccm writes.
const (
	// ReasonValid: the spec is valid and in force. Of an IPPool: the spec is valid and in force. The message lists the addresses
	// that are not given out because they are addresses of nodes, gateways or BGPPeers, or network or broadcast addresses.
	//
	// Accepted=True: IPPool, IPAllocation, L2Advertisement, BGPAdvertisement, BGPPeer.
	ReasonValid = "Valid"
	// ReasonInvalid: a field is invalid. The message names the field and the remedy.
	//
	// Accepted=False: IPPool, IPAllocation, L2Advertisement, BGPAdvertisement, BGPPeer.
	// Ready=False: IPPool.
	// Announced=False: L2Advertisement, BGPAdvertisement.
	// Established=False: BGPPeer.
	ReasonInvalid = "Invalid"
	// ReasonPoolNotFound: spec.pools names an IPPool that does not exist. Addresses of the other pools are announced. Correct
	// the name, or create the IPPool.
	//
	// Accepted=False: L2Advertisement, BGPAdvertisement.
	ReasonPoolNotFound = "PoolNotFound"
	// ReasonPeerNotFound: spec.peers names a BGPPeer that does not exist. The other peers get the routes. Correct the name, or
	// create the BGPPeer.
	//
	// Accepted=False: BGPAdvertisement.
	ReasonPeerNotFound = "PeerNotFound"
	// ReasonSecretMissing: spec.passwordSecret names a Secret that does not exist, or that has no password. Create the Secret, with
	// the password under the key "password", in the namespace that the message names.
	//
	// Accepted=False: BGPPeer.
	ReasonSecretMissing = "SecretMissing"

	// ReasonAnnounced: addresses are announced, or will be when Services have them. If a part of an advertisement has no effect,
	// the message names it.
	//
	// Announced=True: IPPool, L2Advertisement, BGPAdvertisement.
	ReasonAnnounced = "Announced"
	// ReasonNoPools: there is no IPPool yet. Create one.
	//
	// Announced=False: L2Advertisement, BGPAdvertisement.
	ReasonNoPools = "NoPools"
	// ReasonNoPoolSelected: spec.pools and spec.poolSelector select no IPPool. Correct them, or label the IPPools.
	//
	// Announced=False: L2Advertisement, BGPAdvertisement.
	ReasonNoPoolSelected = "NoPoolSelected"
	// ReasonNoNodeSelected: spec.nodeSelector matches no node. Correct it, or label nodes.
	//
	// Announced=False: L2Advertisement, BGPAdvertisement.
	// Accepted=False: BGPPeer.
	// Established=False: BGPPeer.
	ReasonNoNodeSelected = "NoNodeSelected"
	// ReasonNodesExcluded: every selected node has the label node.kubernetes.io/exclude-from-external-load-balancers, or a taint
	// that says that the node is being shut down. Remove the label, or select other nodes.
	//
	// Announced=False: L2Advertisement, BGPAdvertisement.
	ReasonNodesExcluded = "NodesExcluded"
	// ReasonNoSpeaker of an advertisement: no selected node has a SpeakerStatus, or the speakers that have one do not renew their
	// Leases. The reason is also given if this is so for all selected nodes that have a subnet of a selected IPPool. Check
	// whether the pods of the DaemonSet herald-speaker run on these nodes. Of a BGPPeer: no node that the BGPPeer selects has a
	// SpeakerStatus, so no node holds a session. Check whether the pods of the DaemonSet herald-speaker run on these nodes. If
	// the BGPPeer selects no node, the condition Accepted says so.
	//
	// Announced=False: L2Advertisement, BGPAdvertisement.
	// Established=False: BGPPeer.
	// PathsAlive=False: BGPPeer.
	ReasonNoSpeaker = "NoSpeaker"
	// ReasonSpeakersUnable: every speaker on the selected nodes, or on those of them with a subnet of a selected IPPool, reports a
	// problem, such as a kube-proxy that is not healthy. The message has the problem of one of them.
	//
	// Announced=False: L2Advertisement, BGPAdvertisement.
	ReasonSpeakersUnable = "SpeakersUnable"
	// ReasonInterfaceNotFound: no selected node has an interface that is named in spec.interfaces and is up. The message lists the
	// interfaces of the nodes.
	//
	// Announced=False: L2Advertisement.
	ReasonInterfaceNotFound = "InterfaceNotFound"
	// ReasonNoPeers: there is no BGPPeer. Create one.
	//
	// Announced=False: BGPAdvertisement.
	ReasonNoPeers = "NoPeers"
	// ReasonNoPeerSelected: spec.peers and spec.peerSelector select no BGPPeer. Correct them.
	//
	// Announced=False: BGPAdvertisement.
	ReasonNoPeerSelected = "NoPeerSelected"
	// ReasonPeersOnOtherNodes: no selected node has a session with a selected BGPPeer. Change spec.nodeSelector of one of the two, so
	// that both select a common node.
	//
	// Announced=False: BGPAdvertisement.
	ReasonPeersOnOtherNodes = "PeersOnOtherNodes"
	// ReasonNoSession: no node has an established session. The message of the BGPPeer says why, and kubectl herald bgp peers
	// says more.
	//
	// Announced=False: BGPAdvertisement.
	// Established=False: BGPPeer.
	ReasonNoSession = "NoSession"
	// ReasonNoAdvertisement: no L2Advertisement or BGPAdvertisement selects the pool, so clients do not reach its addresses. Create
	// an advertisement with the pool in spec.pools.
	//
	// Announced=False: IPPool.
	ReasonNoAdvertisement = "NoAdvertisement"
	// ReasonAdvertisementUnable: none of the advertisements that select the pool can announce any of its addresses at present. The
	// message names one of them and its problem.
	//
	// Announced=False: IPPool.
	ReasonAdvertisementUnable = "AdvertisementUnable"
	// ReasonOffSubnet: addresses are announced on segments only, and no address is in a subnet of a selected node. Create a
	// BGPAdvertisement, or use addresses in a subnet of the nodes.
	//
	// Announced=False: IPPool, L2Advertisement.
	ReasonOffSubnet = "OffSubnet"
	// ReasonPartlyOffSubnet: as OffSubnet, for the addresses that the message lists. The other addresses are announced.
	//
	// Announced=False: IPPool.
	ReasonPartlyOffSubnet = "PartlyOffSubnet"

	// ReasonOverridden: another BGPAdvertisement, which comes first by name, sets the attributes of routes that both announce.
	// Change one of the two, so that they select different pools, Services, nodes or peers.
	//
	// Exclusive=False: BGPAdvertisement.
	ReasonOverridden = "Overridden"
	// ReasonOlderPoolHasThem: an older IPPool also has the addresses that the message lists, and gives them out. Remove them from one
	// of the two.
	//
	// Exclusive=False: IPPool.
	ReasonOlderPoolHasThem = "OlderPoolHasThem"
	// ReasonInClusterNetwork: addresses of the pool are in a network of pods or ClusterIPs. Remove them from the pool.
	//
	// Exclusive=False: IPPool.
	ReasonInClusterNetwork = "InClusterNetwork"
	// ReasonNoOverlap of an IPPool: no older pool, no pod and no ClusterIP has addresses of the IPPool. Of a BGPAdvertisement: no
	// other BGPAdvertisement sets other attributes of its routes.
	//
	// Exclusive=True: IPPool, BGPAdvertisement.
	ReasonNoOverlap = "NoOverlap"

	// ReasonEstablished: every node that the BGPPeer selects and that has a SpeakerStatus has an established session.
	//
	// Established=True: BGPPeer.
	ReasonEstablished = "Established"
	// ReasonSessionsDown: some nodes have an established session, and some do not. The message says why. kubectl herald bgp peers
	// says more.
	//
	// Established=False: BGPPeer.
	ReasonSessionsDown = "SessionsDown"
	// ReasonAlive: BFD is up with every node that the BGPPeer selects and that has a SpeakerStatus.
	//
	// PathsAlive=True: BGPPeer.
	ReasonAlive = "Alive"
	// ReasonBFDDown: BFD is not up with every node. BGP does not wait for it. The message says why.
	//
	// PathsAlive=False: BGPPeer.
	ReasonBFDDown = "BFDDown"

	// ReasonAddressesAvailable: addresses can be given out.
	//
	// Ready=True: IPPool.
	ReasonAddressesAvailable = "AddressesAvailable"
	// ReasonDeleting: the pool is deleted when no Service has an address of it any more. Delete the Services that the message lists,
	// or give them other addresses with kubectl herald renumber.
	//
	// Ready=False: IPPool.
	ReasonDeleting = "Deleting"
	// ReasonDisabled: spec.disabled is true, so the pool gives out no new addresses. Services keep the addresses that they have,
	// and a Service gets an address that is kept for it.
	//
	// Ready=False: IPPool.
	ReasonDisabled = "Disabled"
	// ReasonNoAddresses: all addresses of the pool are excluded, or belong to older pools. Add addresses to spec.addresses.
	//
	// Ready=False: IPPool.
	ReasonNoAddresses = "NoAddresses"
	// ReasonExhausted: all addresses are in use. Add addresses to spec.addresses, or delete Services.
	//
	// Ready=False: IPPool.
	ReasonExhausted = "Exhausted"
	// ReasonAvailable: each family of the pool has a free address.
	//
	// AddressesAvailable=True: IPPool.
	ReasonAvailable = "Available"
	// ReasonNoneAvailable: a family of the pool has no free address. kubectl herald pools shows which namespaces use them.
	//
	// AddressesAvailable=False: IPPool.
	ReasonNoneAvailable = "NoneAvailable"

	// ReasonInRange: the pool has the addresses that it gave out.
	//
	// InRange=True: IPPool, IPAllocation.
	ReasonInRange = "InRange"
	// ReasonInUse: addresses that were removed from the pool are in use. Services keep them. Give the Services other addresses with
	// kubectl herald renumber, or add the addresses to the pool again.
	//
	// InRange=False: IPPool.
	ReasonInUse = "InUse"
	// ReasonOtherPool: another IPPool has the address now. The Service keeps it. You may give the Service another address with kubectl
	// herald renumber.
	//
	// InRange=False: IPAllocation.
	ReasonOtherPool = "OtherPool"
	// ReasonNoPool: no IPPool has the address any more. The Service keeps it. Give the Service another address with kubectl herald
	// renumber, or add the address to a pool.
	//
	// InRange=False: IPAllocation.
	ReasonNoPool = "NoPool"

	// ReasonGranted: the other system grants what the pool needs.
	//
	// Granted=True: IPPool.
	ReasonGranted = "Granted"
	// ReasonDefinitionMissing: a CustomResourceDefinition of the IPAM contract is not installed. The message names it. Install the
	// IPAM provider of the pool that spec.externalPoolRef names.
	//
	// Granted=False: IPPool.
	ReasonDefinitionMissing = "DefinitionMissing"
	// ReasonNotReadable: herald-ccm cannot read IPAddressClaims or IPAddresses in its namespace. The message has the error. Check
	// the Role herald-ccm, and the webhooks of the IPAM provider.
	//
	// Granted=False: IPPool.
	ReasonNotReadable = "NotReadable"
	// ReasonGrantRefused: the other system refuses an IPAddressClaim, or granted an address that the pool cannot give. Services wait
	// for it. The message says which, and what to do.
	//
	// Granted=False: IPPool.
	ReasonGrantRefused = "GrantRefused"
	// ReasonGrantLost: the other system no longer grants an address that is in use. The Service keeps it. Give the Service another
	// address with kubectl herald renumber, or have the address granted again.
	//
	// Granted=False: IPPool.
	ReasonGrantLost = "GrantLost"

	// ReasonStrangerSeen: a speaker has seen that a machine that is not a speaker uses the address. Remove the address from that
	// machine, whose MAC address is in the message. Or exclude the address from the pool, and give its Services another one.
	//
	// AddressConflict=True: IPAllocation.
	ReasonStrangerSeen = "StrangerSeen"
	// ReasonNotReported: no speaker sees that machine any more.
	//
	// AddressConflict=False: IPAllocation.
	ReasonNotReported = "NotReported"
)

// Reasons of events.
const (
	// EventAnnotationWithoutEffect: an annotation of Herald is misspelt, or has no effect on this Service. Correct or remove it.
	//
	// Warning: Service, by herald-ccm.
	EventAnnotationWithoutEffect = "AnnotationWithoutEffect"
	// EventNotAnnounced of a Service: no advertisement announces the address: see the condition Announced of its IPPool. Or
	// another controller gave the address, and Herald refuses to announce it: the message says why, and what to do. Of an
	// IPAllocation: the address is that of a node, a gateway or a BGPPeer. Remove it from the pool, and give the Services another
	// one.
	//
	// Warning: Service, by herald-ccm.
	// Warning: IPAllocation, by herald-speaker.
	EventNotAnnounced = "NotAnnounced"
	// EventAddressReplaced: the Service got another address, because another Service, or a machine that is not a speaker, has the
	// address that it had. Tell its clients.
	//
	// Warning: Service, by herald-ccm.
	EventAddressReplaced = "AddressReplaced"
	// EventAddressNotKept: the Service cannot get the address that was kept for it, and got another one. The message says why.
	//
	// Warning: Service, by herald-ccm.
	EventAddressNotKept = "AddressNotKept"
	// EventNotShared: the Service has the sharing key of others but cannot share their address, so it got an address of its own. Or
	// it has got a port of a Service of another namespace, and loses the address that they share. The message says which.
	//
	// Warning: Service, by herald-ccm.
	EventNotShared = "NotShared"
	// EventRetainNotAllowed: an annotation asks to keep the address when the Service is deleted, and the IPPool does not permit this.
	// Remove the annotation, or ask for spec.allowRetain of the IPPool to be set.
	//
	// Warning: Service, by herald-ccm.
	EventRetainNotAllowed = "RetainNotAllowed"
	// EventOutOfRange: the address is in no IPPool any more, or in another one. The Service keeps it. Give it another address with
	// kubectl herald renumber, or add the address to the pool again.
	//
	// Warning: Service, by herald-ccm.
	EventOutOfRange = "OutOfRange"
	// EventAddressConflict: a machine that is not a speaker uses the address. The message has its MAC address. Remove the address from
	// that machine.
	//
	// Warning: Service, by herald-ccm.
	EventAddressConflict = AllocationConflict
	// EventInvalidIPAllocation: the IPAllocation of the address was made invalid by an edit. The Service keeps the address. Correct the
	// IPAllocation that the message names.
	//
	// Warning: Service, by herald-ccm.
	EventInvalidIPAllocation = "InvalidIPAllocation"
	// EventNodeDeathWitnessed: neighbours have witnessed that the node died, and its pods were marked not ready (with the reason
	// NodeNotReady, as Kubernetes does later). Check the machine.
	//
	// Warning: Node, by herald-ccm.
	EventNodeDeathWitnessed = "NodeDeathWitnessed"
	// EventSessionUp: a node's session with the router is established.
	//
	// Normal: BGPPeer, by herald-speaker.
	EventSessionUp = "SessionUp"
	// EventSessionDown: a node has no session with the router. The message says why, and kubectl herald bgp peers says more.
	//
	// Warning: BGPPeer, by herald-speaker.
	EventSessionDown = "SessionDown"

	// EventSyncLoadBalancerFailed: the Service did not get what it asks for. The message says why. herald-ccm tries again.
	//
	// Warning: Service, by Kubernetes' service controller in herald-ccm.
	EventSyncLoadBalancerFailed = "SyncLoadBalancerFailed"
	// EventEnsuredLoadBalancer: the Service has its addresses.
	//
	// Normal: Service, by Kubernetes' service controller in herald-ccm.
	EventEnsuredLoadBalancer = "EnsuredLoadBalancer"
	// EventDeletedLoadBalancer: the addresses of the Service are released.
	//
	// Normal: Service, by Kubernetes' service controller in herald-ccm.
	EventDeletedLoadBalancer = "DeletedLoadBalancer"
	// EventDeleteLoadBalancerFailed: the addresses of the deleted Service are not released. The message says why. herald-ccm tries
	// again.
	//
	// Warning: Service, by Kubernetes' service controller in herald-ccm.
	EventDeleteLoadBalancerFailed = "DeleteLoadBalancerFailed"
	// EventUnAvailableLoadBalancer: Kubernetes' service controller knows no node. herald-ccm always shows it one node, so this
	// event does not occur.
	//
	// Warning: Service, by Kubernetes' service controller in herald-ccm.
	EventUnAvailableLoadBalancer = "UnAvailableLoadBalancer"
	// EventLeaderElection: this herald-ccm has become the leader, or is no longer the leader.
	//
	// Normal: Lease, by herald-ccm.
	EventLeaderElection = "LeaderElection"
)
