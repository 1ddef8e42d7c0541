package migrate

import (
	"strings"
	"testing"
)

// TestMetalLB has configurations of MetalLB that are easily misunderstood.
func TestMetalLB(t *testing.T) {
	const (
		pool = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: public, namespace: m}\nspec: {addresses: [192.0.2.0/28]}\n---\n"
		bgp  = "apiVersion: metallb.io/v1beta1\nkind: BGPAdvertisement\nmetadata: {namespace: m, name: "
		peer = "apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {name: tor, namespace: m}\nspec: {peerAddress: 10.0.0.1, myASN: 64512, bfdProfile: fast, "
		bfd  = "\n---\napiVersion: metallb.io/v1beta1\nkind: BFDProfile\nmetadata: {name: fast, namespace: m}\nspec: {}"
		note = "it may announce the same routes as"
	)
	for _, c := range []struct{ name, objects, said, unsaid, written, unwritten string }{
		{
			name:    "an empty selector of namespaces besides names of some",
			objects: strings.Replace(pool, "}\n---", ", serviceAllocation: {namespaces: [a], namespaceSelectors: [{}]}}", 1), unwritten: "namespaces",
		},
		{
			name:    "an advertisement for some Services besides one for all",
			objects: pool + bgp + "all}\nspec: {communities: ['1:1']}\n---\n" + bgp + "some}\nspec: {communities: ['1:2'], serviceSelectors: [{matchLabels: {tier: gold}}]}",
			said:    note,
		},
		{
			name: "advertisements for different Services",
			objects: pool + bgp + "silver}\nspec: {communities: ['1:1'], serviceSelectors: [{matchLabels: {tier: silver}}]}\n---\n" +
				bgp + "gold}\nspec: {communities: ['1:2'], serviceSelectors: [{matchLabels: {tier: gold}}]}",
			unsaid: note,
		},
		{
			name: "advertisements from different nodes",
			objects: pool + bgp + "one}\nspec: {localPref: 100, nodeSelectors: [{matchLabels: {rack: a}}]}\n---\n" +
				bgp + "two}\nspec: {localPref: 200, nodeSelectors: [{matchLabels: {rack: b}}, {matchLabels: {rack: c}}]}",
			unsaid: note,
		},
		{
			name:    "nodes that are preferred",
			objects: "apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {name: l2, namespace: m}\nspec: {preferredNodeSelectors: [{weight: 1, preference: {matchLabels: {rack: a}}}, {weight: 9, preference: {matchLabels: {rack: b}}}]}",
			said:    "spec.preferredNodeSelectors: MetalLB adds up the weights", unsaid: "does not know this field",
			written: "preferredNodes:\n    matchLabels:\n      rack: b\n  rebalance: Gradual\n",
		},
		{
			name: "BFD with an internal router", objects: peer + "dynamicASN: internal, ebgpMultiHop: true}" + bfd,
			said: "set spec.bfd.minimumTTL", unwritten: "minimumTTL",
		},
		{
			name: "BFD with an external router behind others", objects: peer + "peerASN: 64513, ebgpMultiHop: true}" + bfd,
			unsaid: "set spec.bfd.minimumTTL", written: "minimumTTL: 254",
		},
		{
			name:    "configuration that is added to that of FRR",
			objects: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bgpextras, namespace: m}\ndata: {extras: 'ip prefix-list x'}",
			said:    "ConfigMap m/bgpextras: data.extras: it is added to the configuration of FRR",
		},
		{
			name:    "the configuration of MetalLB before 0.13",
			objects: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: config, namespace: m}\ndata: {config: 'address-pools: [{name: p, protocol: layer2, addresses: [192.0.2.0/28]}]'}",
			said:    "ConfigMap m/config: data.config: MetalLB 0.13 and later do not read it: write IPAddressPools",
		},
		{
			name: "the configuration of MetalLB before 0.13, which was converted",
			objects: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: config, namespace: m}\ndata: {config: 'address-pools: [{name: p, protocol: layer2, addresses: [192.0.2.0/28]}]'}" +
				"\n---\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: p, namespace: m}\nspec: {addresses: [192.0.2.0/28]}",
			unsaid: "data.config", written: "192.0.2.0/28",
		},
		{
			name:    "a session of FRR-K8s besides MetalLB's",
			objects: "apiVersion: frrk8s.metallb.io/v1beta1\nkind: FRRConfiguration\nmetadata: {name: receive, namespace: m}\nspec: {}",
			said:    "FRRConfiguration m/receive: it is added to the configuration of FRR",
		},
		{
			name:    "what MetalLB tells FRR-K8s",
			objects: "apiVersion: frrk8s.metallb.io/v1beta1\nkind: FRRConfiguration\nmetadata: {name: metallb-node-1, namespace: m}\nspec: {}",
			unsaid:  "FRRConfiguration",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := metalLB.Translate(objects(t, strings.TrimSuffix(c.objects, "\n---\n")))
			text, err := r.YAML()
			if err != nil {
				t.Fatal(err)
			}
			if report := r.Text(); !strings.Contains(report, c.said) || c.unsaid != "" && strings.Contains(report, c.unsaid) {
				t.Errorf("want %q, and not %q, in\n%s", c.said, c.unsaid, report)
			}
			if !strings.Contains(text, c.written) || c.unwritten != "" && strings.Contains(text, c.unwritten) {
				t.Errorf("want %q, and not %q, in\n%s", c.written, c.unwritten, text)
			}
		})
	}
}
