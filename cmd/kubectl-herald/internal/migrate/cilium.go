package migrate

const ciliumGroup = "cilium.io"

// ciliumLB is Cilium's LB IPAM, its L2 announcements, and the second version of its BGP control plane, as of 1.19.
var ciliumLB = Source{
	Name: "cilium", Title: "Cilium",
	Resources: allOf(ciliumGroup, "ciliumloadbalancerippools", "ciliuml2announcementpolicies", "ciliumbgpclusterconfigs", "ciliumbgppeerconfigs",
		"ciliumbgpadvertisements", "ciliumbgpnodeconfigoverrides", "ciliumbgppeeringpolicies"),
	translate: func(t *translation) {
		c := cilium{translation: t, configs: map[string]*ciliumPeerConfig{}}
		c.translate()
	},
}

// cilium is an import from Cilium in progress.
type cilium struct {
	*translation
	configs map[string]*ciliumPeerConfig
}

func (c *cilium) translate() {
	for _, i := range c.of(ciliumGroup, "CiliumLoadBalancerIPPool") {
		c.pool(i)
	}
	for _, i := range c.of(ciliumGroup, "CiliumL2AnnouncementPolicy") {
		c.l2(i)
	}
	peerConfigs := c.of(ciliumGroup, "CiliumBGPPeerConfig")
	c.readPeerConfigs(peerConfigs)
	clusters := c.of(ciliumGroup, "CiliumBGPClusterConfig")
	for _, i := range clusters {
		c.cluster(i, len(clusters) > 1)
	}
	c.reportPeerConfigs(peerConfigs)
	for _, i := range c.of(ciliumGroup, "CiliumBGPAdvertisement") {
		c.advertisement(i)
	}
	for _, i := range c.of(ciliumGroup, "CiliumBGPNodeConfigOverride") {
		i.cannot("Herald reads such values of a node from the Node: give Nodes labels or annotations and name them in spec.localASNFrom and spec.routerIDFrom of the BGPPeers; for a localAddress write a BGPPeer for each node, with spec.sourceAddress and spec.nodeSelector")
	}
	for _, i := range c.of(ciliumGroup, "CiliumBGPPeeringPolicy") {
		i.cannot("it is of the first version of Cilium's BGP control plane, and is not read: write CiliumBGPClusterConfig, CiliumBGPPeerConfig and CiliumBGPAdvertisement in its place, and import again")
	}
	for range c.of(ciliumGroup, "CiliumBGPNodeConfig") {
		c.Others++ // Cilium generates them from the others.
	}
	c.annotations(ciliumAnnotations, ciliumAnnotation)
}
