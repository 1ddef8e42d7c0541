package migrate

import (
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// frr notes configuration of FRR other than MetalLB's objects. MetalLB itself writes a FRRConfiguration for each
// node.
func (m *metallb) frr() {
	for _, i := range m.of("", "ConfigMap") {
		if extras, _, _ := unstructured.NestedString(i.u.Object, "data", "extras"); i.u.GetName() == "bgpextras" && extras != "" {
			i.cannot("data.extras: it is added to the configuration of FRR, and Herald runs no FRR: see what of it BGPPeers, BGPAdvertisements or the routers have to say in its place")
		} else {
			m.Others++
		}
	}
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
