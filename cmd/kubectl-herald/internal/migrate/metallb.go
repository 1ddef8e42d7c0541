package migrate

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	metalLBGroup = "metallb.io"
	frrK8sGroup  = "frrk8s.metallb.io"
)

// metalLB is MetalLB, as of 0.16.
var metalLB = Source{
	Name: "metallb", Title: "MetalLB",
	Resources: append(allOf(metalLBGroup, "ipaddresspools", "l2advertisements", "bgppeers", "bgpadvertisements", "communities", "bfdprofiles"),
		Resource{GroupResource: schema.GroupResource{Group: frrK8sGroup, Resource: "frrconfigurations"}},
		Resource{GroupResource: schema.GroupResource{Resource: "configmaps"}, Name: "bgpextras"},
		Resource{GroupResource: schema.GroupResource{Resource: "configmaps"}, Name: "config"}),
	translate: func(t *translation) {
		m := metallb{translation: t, aliases: map[string]string{}, bfd: map[string]*metalLBBFD{}, peers: map[string][]string{}, labels: map[string]bool{}, selected: map[string]bool{}}
		m.translate()
	},
}

// metallb is an import from MetalLB in progress.
type metallb struct {
	*translation
	aliases map[string]string
	bfd     map[string]*metalLBBFD
	// peers has the BGPPeers that each BGPPeer of MetalLB was translated to.
	peers map[string][]string
	// labels are the labels of pools that advertisements select by, and selected the names of the
	// existing pools.
	labels, selected map[string]bool
}

func (m *metallb) translate() {
	for range m.of(metalLBGroup, "ServiceL2Status", "ServiceBGPStatus", "ConfigurationState") {
		m.Others++ // They are reports.
	}
	for _, i := range m.of(metalLBGroup, "AddressPool") {
		i.cannot("AddressPools are of MetalLB before 0.13, and have their advertisements in themselves: write an IPAddressPool and advertisements in its place, and import again")
	}
	m.configMaps()
	m.frr()
	for _, i := range m.of(metalLBGroup, "Community") {
		m.community(i)
	}
	profiles := m.of(metalLBGroup, "BFDProfile")
	m.readProfiles(profiles)
	l2, bgp := m.of(metalLBGroup, "L2Advertisement"), m.of(metalLBGroup, "BGPAdvertisement")
	m.readLabels(slices.Concat(l2, bgp))
	m.pools(m.of(metalLBGroup, "IPAddressPool"))
	for _, i := range m.of(metalLBGroup, "BGPPeer") {
		m.peer(i)
	}
	m.reportProfiles(profiles)
	for _, i := range l2 {
		m.l2(i)
	}
	for _, i := range bgp {
		m.bgp(i)
	}
	m.annotations(metalLBAnnotations, metalLBAnnotation)
}
