package migrate

import (
	"strings"
	"testing"
)

// TestWhereAddressesAreAnnounced has configurations that announce only from some nodes, or only some
// Services.
func TestWhereAddressesAreAnnounced(t *testing.T) {
	const (
		kubevip = "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: k, namespace: kube-system}\nspec: {template: {spec: {SPEC containers: [{name: k, image: kube-vip, env: [{name: svc_enable, value: 'true'}, ENV]}]}}}"
		arp     = "{name: vip_arp, value: 'true'}, {name: vip_interface, value: eth0}"
		bgp     = "{name: bgp_enable, value: 'true'}, {name: bgp_as, value: '65000'}, {name: bgp_peers, value: '10.0.0.1:65001:s3cret:false'}"
		control = "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: node-role.kubernetes.io/master, operator: Exists}]}, {matchExpressions: [{key: node-role.kubernetes.io/control-plane, operator: Exists}]}]}}},"
		named   = "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [a]}]}]}}},"
		label   = "Herald announces nothing from nodes with the label node.kubernetes.io/exclude-from-external-load-balancers"
		cilium  = "apiVersion: cilium.io/v2\nkind: CiliumBGPClusterConfig\nmetadata: {name: c}\nspec: {bgpInstances: [{name: i, localASN: 1, peers: [{name: p, peerASN: 2, peerAddress: 10.0.0.1, peerConfigRef: {name: all}}]}]}\n---\n" +
			"apiVersion: cilium.io/v2\nkind: CiliumBGPPeerConfig\nmetadata: {name: all}\nspec: {families: [{afi: ipv4, safi: unicast, advertisements: {matchLabels: {to: all}}}]}\n---\n" +
			"apiVersion: cilium.io/v2\nkind: CiliumBGPAdvertisement\nmetadata: {name: one, labels: {to: all}}\nspec: {advertisements: [{advertisementType: Service, service: {addresses: [LoadBalancerIP]}, selector: {}}]}\n---\n" +
			"apiVersion: cilium.io/v2\nkind: CiliumBGPAdvertisement\nmetadata: {name: two, labels: {to: all}}\nspec: {advertisements: [{advertisementType: Service, service: {addresses: [LoadBalancerIP]}, selector: {matchLabels: {a: b}}, attributes: {communities: {wellKnown: [no-export]}}}]}"
	)
	daemonSet := func(spec, env string) string { return strings.NewReplacer("SPEC", spec, "ENV", env).Replace(kubevip) }
	for _, c := range []struct {
		name, objects string
		source        *Source
		said          string
		count         map[string]int // how often the text is written
	}{
		{
			name: "ARP from the control plane", source: &kubeVIP, objects: daemonSet(control, arp), said: label,
			count: map[string]int{"kind: L2Advertisement": 2, "key: node-role.kubernetes.io/control-plane": 1, "key: node-role.kubernetes.io/master": 1, "operator: Exists": 2},
		},
		{
			name: "BGP from the control plane", source: &kubeVIP, objects: daemonSet(control, bgp), said: label,
			count: map[string]int{"kind: BGPPeer\n": 2, "operator: Exists": 2, "kind: BGPAdvertisement": 1, "  - kube-vip\n  - kube-vip-2\n": 1, "    name: kube-vip\n": 2},
		},
		{
			name: "nodes that labels do not tell", source: &kubeVIP, objects: daemonSet(named, arp), said: "spec.template.spec.affinity: ",
			count: map[string]int{"kind:": 0},
		},
		{
			name: "Services of one namespace", source: &kubeVIP, objects: daemonSet("", arp+", "+bgp+", {name: svc_namespace, value: shop}"), said: "svc_namespace: kube-vip announces Services of this namespace only",
			count: map[string]int{"kubernetes.io/metadata.name: shop": 2, "kind: L2Advertisement": 1, "kind: BGPAdvertisement": 1},
		},
		{
			name: "an interface that kube-vip finds", source: &kubeVIP, objects: daemonSet("", "{name: vip_arp, value: 'true'}"), said: "vip_interface: kube-vip announces on the interface of the default route",
			count: map[string]int{"kind: L2Advertisement": 1, "interfaces": 0},
		},
		{
			name: "one router besides several", source: &kubeVIP, objects: daemonSet("", bgp+", {name: bgp_peeraddress, value: 10.0.0.2}, {name: bgp_peeras, value: '65002'}"), said: "bgp_peers",
			count: map[string]int{"kind: BGPPeer\n": 2, "address: 10.0.0.1\n": 1, "address: 10.0.0.2\n": 1, "  - kube-vip\n  - kube-vip-2\n": 1},
		},
		{
			name: "variables of another object", source: &kubeVIP, objects: daemonSet("", arp+"], envFrom: [{configMapRef: {name: a}}"), said: "envFrom: the import does not read",
			count: map[string]int{"kind: L2Advertisement": 1},
		},
		{
			name: "a variable of another object", source: &kubeVIP, objects: daemonSet("", arp+", {name: vip_servicesinterface, valueFrom: {configMapKeyRef: {name: a, key: b}}}"), said: "vip_servicesinterface: the import does not read",
			count: map[string]int{"kind: L2Advertisement": 1},
		},
		{
			name: "an address of each node", source: &kubeVIP, objects: daemonSet("", bgp+", {name: bgp_sourceip, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}"), said: "bgp_sourceip: each node has a value of its own, status.hostIP",
			count: map[string]int{"kind: BGPPeer\n": 1, "sourceAddress": 0},
		},
		{
			name: "flags", source: &kubeVIP, objects: daemonSet("", arp+"], args: [manager, --bgp=true"), said: "args: the import does not read flags, such as --bgp:",
			count: map[string]int{"kind: L2Advertisement": 1},
		},
		{
			name: "a file", source: &kubeVIP, objects: daemonSet("", arp+", {name: config_file, value: /etc/kube-vip.yaml}"), said: "config_file: the import does not read the file",
			count: map[string]int{"kind: L2Advertisement": 1},
		},
		{
			name: "communities of one CiliumBGPAdvertisement besides another", source: &ciliumLB, objects: cilium,
			said:  "BGPAdvertisement two: it may announce the same routes as one, with other attributes: Cilium adds up communities",
			count: map[string]int{"kind: BGPAdvertisement": 2},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.source.Translate(objects(t, c.objects))
			text, err := r.YAML()
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(r.Text(), c.said) {
				t.Errorf("want %q in\n%s", c.said, r.Text())
			}
			for part, want := range c.count {
				if n := strings.Count(text, part); n != want {
					t.Errorf("%q stands %d times and not %d times in\n%s", part, n, want, text)
				}
			}
		})
	}
}
