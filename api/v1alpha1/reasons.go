package v1alpha1

// Reasons of conditions and events are stable; messages are not. docs/reference/conditions.md is made of the comments in this
// file: the last lines of a comment say where the reason occurs.

// Reasons of conditions, all of which herald-ccm writes.
const (
	// ReasonValid: the spec is valid and in force. If nodes, gateways, peers or networks have addresses of an IPPool, the message
	// names them: they are not given out.
	//
	// Accepted=True: IPPool, IPAllocation, L2Advertisement, BGPAdvertisement, BGPPeer.
	ReasonValid = "Valid"
	// ReasonInvalid: a field cannot be used. The message names the field and the cure.
	//
	// Accepted=False: IPPool, IPAllocation, L2Advertisement, BGPAdvertisement, BGPPeer.
	// Ready=False: IPPool.
	// Announced=False: L2Advertisement, BGPAdvertisement.
	// Established=False: BGPPeer.
	ReasonInvalid = "Invalid"
	// ReasonPoolNotFound: spec.pools names an IPPool that does not exist. The other pools are announced. Correct the name, or
	// create the IPPool.
	//
	// Accepted=False: L2Advertisement, BGPAdvertisement.
	ReasonPoolNotFound = "PoolNotFound"
	// ReasonPeerNotFound: spec.peers names a BGPPeer that does not exist. The other peers are announced to. Correct the name, or
	// create the BGPPeer.
	//
	// Accepted=False: BGPAdvertisement.
	ReasonPeerNotFound = "PeerNotFound"
	// ReasonSecretMissing: spec.passwordSecret names a Secret that does not exist, or that has no password. Create the Secret, with
	// the password under the key "password", in the namespace that the message names.
	//
	// Accepted=False: BGPPeer.
	// Established=False: BGPPeer.
	ReasonSecretMissing = "SecretMissing"

	// ReasonAnnounced: addresses are announced, or will be once Services have them. If a part of an advertisement has no effect, the
	// message names it.
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
	// ReasonNodesExcluded: every selected node has the label node.kubernetes.io/exclude-from-external-load-balancers, or a taint that
	// says that it is being shut down. Remove the label, or select other nodes.
	//
	// Announced=False: L2Advertisement, BGPAdvertisement.
	ReasonNodesExcluded = "NodesExcluded"
	// ReasonNoSpeaker: no speaker reports from a selected node. See whether the pods of the DaemonSet herald-speaker run there.
	//
	// Announced=False: L2Advertisement, BGPAdvertisement.
	// Established=False: BGPPeer.
	// PathsAlive=False: BGPPeer.
	ReasonNoSpeaker = "NoSpeaker"
	// ReasonSpeakersUnable: every speaker on the selected nodes reports a problem, such as a kube-proxy that does not serve. The
	// message has that of one of them.
	//
	// Announced=False: L2Advertisement, BGPAdvertisement.
	ReasonSpeakersUnable = "SpeakersUnable"
	// ReasonInterfaceNotFound: no selected node has an interface that spec.interfaces names and that is up. The message names those
	// that there are.
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
	// ReasonPeersOnOtherNodes: no selected node holds a session with a selected BGPPeer. Let spec.nodeSelector of the two match a
	// common node.
	//
	// Announced=False: BGPAdvertisement.
	ReasonPeersOnOtherNodes = "PeersOnOtherNodes"
	// ReasonNoSession: no node has an established session. The message of the BGPPeer says why, and kubectl herald bgp peers
	// says more.
	//
	// Announced=False: BGPAdvertisement.
	// Established=False: BGPPeer.
	ReasonNoSession = "NoSession"
	// ReasonNoAdvertisement: no L2Advertisement or BGPAdvertisement selects the pool, so nothing reaches its addresses. Create one
	// with the pool in spec.pools.
	//
	// Announced=False: IPPool.
	ReasonNoAdvertisement = "NoAdvertisement"
	// ReasonAdvertisementUnable: none of the advertisements that select the pool can announce anything. The message names one, with
	// its problem.
	//
	// Announced=False: IPPool.
	ReasonAdvertisementUnable = "AdvertisementUnable"
	// ReasonOffSubnet: addresses are to be announced on segments only, and none is in a subnet that a selected node has there. Add a
	// BGPAdvertisement, or take addresses in a subnet of the nodes.
	//
	// Announced=False: IPPool, L2Advertisement.
	ReasonOffSubnet = "OffSubnet"
	// ReasonPartlyOffSubnet: as OffSubnet, for the addresses that the message names. The others are announced.
	//
	// Announced=False: IPPool.
	ReasonPartlyOffSubnet = "PartlyOffSubnet"

	// ReasonOverridden: another BGPAdvertisement, which comes first by name, decides the attributes of routes that both announce. Let
	// the two select different pools, Services, nodes or peers.
	//
	// Exclusive=False: BGPAdvertisement.
	ReasonOverridden = "Overridden"
	// ReasonOlderPoolHasThem: the addresses that the message names are in an older IPPool, too, which gives them out. Take them out of
	// one of the two.
	//
	// Exclusive=False: IPPool.
	ReasonOlderPoolHasThem = "OlderPoolHasThem"
	// ReasonInClusterNetwork: addresses of the pool are in a network of pods or of ClusterIPs. Take them out of the pool.
	//
	// Exclusive=False: IPPool.
	ReasonInClusterNetwork = "InClusterNetwork"
	// ReasonNoOverlap: nobody else has addresses of the pool, or decides the attributes of the advertisement's routes.
	//
	// Exclusive=True: IPPool, BGPAdvertisement.
	ReasonNoOverlap = "NoOverlap"

	// ReasonEstablished: every node that is to hold a session has one.
	//
	// Established=True: BGPPeer.
	ReasonEstablished = "Established"
	// ReasonSessionsDown: some nodes have an established session, and some have none. The message says why; kubectl herald bgp
	// peers says more.
	//
	// Established=False: BGPPeer.
	ReasonSessionsDown = "SessionsDown"
	// ReasonAlive: BFD is up with every node.
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
	// ReasonDeleting: the pool goes when its last address is free. Delete the Services that the message names, or move them by
	// kubectl herald renumber.
	//
	// Ready=False: IPPool.
	ReasonDeleting = "Deleting"
	// ReasonDisabled: spec.disabled is set, so nothing new is given out. Services keep what they have.
	//
	// Ready=False: IPPool.
	ReasonDisabled = "Disabled"
	// ReasonNoAddresses: the pool has no address of its own: all are excluded, or belong to older pools. Add some to spec.addresses.
	//
	// Ready=False: IPPool.
	ReasonNoAddresses = "NoAddresses"
	// ReasonExhausted: every address is in use. Add some to spec.addresses, or delete Services.
	//
	// Ready=False: IPPool.
	ReasonExhausted = "Exhausted"
	// ReasonAvailable: there is a free address of each family that the pool has.
	//
	// AddressesAvailable=True: IPPool.
	ReasonAvailable = "Available"
	// ReasonNoneAvailable: no address of a family is free. kubectl herald pools shows who uses them.
	//
	// AddressesAvailable=False: IPPool.
	ReasonNoneAvailable = "NoneAvailable"

	// ReasonInRange: the pool holds what it gave out.
	//
	// InRange=True: IPPool, IPAllocation.
	ReasonInRange = "InRange"
	// ReasonInUse: addresses are in use that the pool was edited not to hold any more. Services keep them. Move them by kubectl
	// herald renumber, or put the addresses back.
	//
	// InRange=False: IPPool.
	ReasonInUse = "InUse"
	// ReasonOtherPool: another IPPool holds the address now. The Service keeps it. Move it by kubectl herald renumber, or leave it.
	//
	// InRange=False: IPAllocation.
	ReasonOtherPool = "OtherPool"
	// ReasonNoPool: no IPPool holds the address any more. The Service keeps it. Move it by kubectl herald renumber, or put the
	// address back.
	//
	// InRange=False: IPAllocation.
	ReasonNoPool = "NoPool"

	// ReasonStrangerSeen: a speaker has seen a machine that is no speaker use the address. Take the address from that machine, whose
	// MAC address the message has, or exclude it from the pool and move its Services.
	//
	// AddressConflict=True: IPAllocation.
	ReasonStrangerSeen = "StrangerSeen"
	// ReasonNotReported: no speaker sees that any more.
	//
	// AddressConflict=False: IPAllocation.
	ReasonNotReported = "NotReported"
)

// Reasons of events.
const (
	// EventAnnotationWithoutEffect: an annotation of Herald's is misspelt or has no effect here. Correct it, or remove it.
	//
	// Warning: Service, by herald-ccm.
	EventAnnotationWithoutEffect = "AnnotationWithoutEffect"
	// EventNotAnnounced: nothing announces the address, as the condition Announced of its IPPool says. Or the address is that of a
	// node, a gateway or a peer: take it out of the pool, and move the Services. Or another controller gave the address, and it is
	// refused: the message says why, and what to do.
	//
	// Warning: Service, by herald-ccm.
	// Warning: IPAllocation, by herald-speaker.
	EventNotAnnounced = "NotAnnounced"
	// EventAddressReplaced: another Service, or a machine that is no speaker, has the address that this one carried, and this one was
	// given another. Tell its clients.
	//
	// Warning: Service, by herald-ccm.
	EventAddressReplaced = "AddressReplaced"
	// EventAddressNotKept: an address was kept for the Service that it cannot have any more, and it was given another. The message
	// says why.
	//
	// Warning: Service, by herald-ccm.
	EventAddressNotKept = "AddressNotKept"
	// EventNotShared: the Service has the sharing key of others and cannot share their address, so it was given one of its own. The
	// message says why.
	//
	// Warning: Service, by herald-ccm.
	EventNotShared = "NotShared"
	// EventRetainNotAllowed: an annotation asks to keep the address when the Service is deleted, and the IPPool does not let Services
	// decide that. Remove the annotation, or have spec.allowRetain of the pool set.
	//
	// Warning: Service, by herald-ccm.
	EventRetainNotAllowed = "RetainNotAllowed"
	// EventOutOfRange: no IPPool holds the address any more, or another one does. The Service keeps it. Move it by kubectl herald
	// renumber, or put the address back.
	//
	// Warning: Service, by herald-ccm.
	EventOutOfRange = "OutOfRange"
	// EventAddressConflict: a machine that is no speaker uses the address. The message has its MAC address. Take the address from it.
	//
	// Warning: Service, by herald-ccm.
	EventAddressConflict = AllocationConflict
	// EventInvalidIPAllocation: somebody has made the record of the address invalid. The Service keeps it. Correct the IPAllocation
	// that the message names.
	//
	// Warning: Service, by herald-ccm.
	EventInvalidIPAllocation = "InvalidIPAllocation"
	// EventNodeDeathWitnessed: neighbours have witnessed that the node died, and its pods were marked not ready (reason NodeNotReady, as
	// Kubernetes does later). See to the machine.
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

	// EventSyncLoadBalancerFailed: the Service has not been given what it asks for. The message says why. herald-ccm tries again.
	//
	// Warning: Service, by Kubernetes' service controller in herald-ccm.
	EventSyncLoadBalancerFailed = "SyncLoadBalancerFailed"
	// EventEnsuredLoadBalancer: the Service has its addresses.
	//
	// Normal: Service, by Kubernetes' service controller in herald-ccm.
	EventEnsuredLoadBalancer = "EnsuredLoadBalancer"
	// EventDeletedLoadBalancer: the addresses of the Service have been released.
	//
	// Normal: Service, by Kubernetes' service controller in herald-ccm.
	EventDeletedLoadBalancer = "DeletedLoadBalancer"
	// EventDeleteLoadBalancerFailed: the addresses of the deleted Service have not been released. The message says why. herald-ccm
	// tries again.
	//
	// Warning: Service, by Kubernetes' service controller in herald-ccm.
	EventDeleteLoadBalancerFailed = "DeleteLoadBalancerFailed"
	// EventUnAvailableLoadBalancer: the cluster has no node that is Ready. See to the nodes.
	//
	// Warning: Service, by Kubernetes' service controller in herald-ccm.
	EventUnAvailableLoadBalancer = "UnAvailableLoadBalancer"
	// EventLeaderElection: this herald-ccm has become the leader, or is the leader no more.
	//
	// Normal: Lease, by herald-ccm.
	EventLeaderElection = "LeaderElection"
)
