package migrate

import (
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// configMaps notes configuration that MetalLB reads, or once read, from ConfigMaps.
func (m *metallb) configMaps() {
	for _, i := range m.of("", "ConfigMap") {
		extras, _, _ := unstructured.NestedString(i.u.Object, "data", "extras")
		config, _, _ := unstructured.NestedString(i.u.Object, "data", "config")
		switch {
		case i.u.GetName() == "bgpextras" && extras != "":
			i.cannot("data.extras: it is added to the configuration of FRR, and Herald runs no FRR: put what you need of it into BGPPeers, BGPAdvertisements or the configuration of the routers")
		case i.u.GetName() == "config" && strings.Contains(config, "address-pools:") && len(m.of(metalLBGroup, "IPAddressPool")) == 0:
			i.cannot("data.config: MetalLB 0.13 and later do not read it: write IPAddressPools, advertisements and BGPPeers in its place, by hand or with MetalLB's configmaptocrs, and import these with -f")
		default:
			m.Others++
		}
	}
}

// frr notes configuration of FRR other than MetalLB's objects. MetalLB itself writes a FRRConfiguration for each
// node.
func (m *metallb) frr() {
	for _, i := range m.of(frrK8sGroup, "FRRConfiguration") {
		if strings.HasPrefix(i.u.GetName(), "metallb-") {
			m.Others++
		} else {
			i.cannot("it is added to the configuration of FRR, and Herald runs no FRR: write BGPPeers for sessions that are to announce Services, and let a routing daemon of the nodes have those that receive routes")
		}
	}
	for range m.of(frrK8sGroup, "FRRNodeState", "BGPSessionState") {
		m.Others++ // They are reports.
	}
}
