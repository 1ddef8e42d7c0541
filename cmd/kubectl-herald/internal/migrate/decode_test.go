package migrate

import (
	"strings"
	"testing"
)

// TestWrongTypes has objects with a field of a wrong type. The report names the object, the field and the remedy in terms
// of YAML, and the other objects are translated.
func TestWrongTypes(t *testing.T) {
	const (
		again   = ", and import again\n"
		metal   = "apiVersion: metallb.io/v1beta1\nkind: "
		tor     = "apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {name: tor, namespace: m}\nspec: "
		cluster = "apiVersion: cilium.io/v2\nkind: CiliumBGPClusterConfig\nmetadata: {name: c}\nspec: "
		kubevip = "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: k, namespace: kube-system}\nspec: {template: {spec: {containers: [{name: k, image: kube-vip, env: "
		group   = "apiVersion: purelb.io/v2\nkind: ServiceGroup\nmetadata: {name: g, namespace: p}\nspec: "
		service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: a, "
		typed   = "}\nspec: {type: LoadBalancer}"
	)
	good := map[*Source]string{
		&metalLB:  metal + "IPAddressPool\nmetadata: {name: good, namespace: m}\nspec: {addresses: [192.0.2.0/28]}",
		&ciliumLB: "apiVersion: cilium.io/v2\nkind: CiliumLoadBalancerIPPool\nmetadata: {name: good}\nspec: {blocks: [{cidr: 192.0.2.0/28}]}",
		&kubeVIP:  "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kubevip, namespace: kube-system}\ndata: {cidr-good: 192.0.2.0/28}",
		&pureLB:   "apiVersion: purelb.io/v2\nkind: ServiceGroup\nmetadata: {name: good, namespace: p}\nspec: {local: {v4pool: {pool: 192.0.2.0/28}}}",
	}
	for _, c := range []struct {
		name         string
		source       *Source
		object, said string
	}{
		{"a number in quotation marks", &metalLB, tor + "{myASN: 64512, peerASN: '64513', peerAddress: 10.0.0.1}", "BGPPeer m/tor: spec.peerASN: it is a string: write a whole number from 0 to 4294967295, without quotation marks"},
		{"a number below the least", &metalLB, tor + "{myASN: -1}", "BGPPeer m/tor: spec.myASN: it is the number -1: write a whole number from 0 to 4294967295"},
		{"a number above the most", &metalLB, tor + "{peerPort: 65536}", "BGPPeer m/tor: spec.peerPort: it is the number 65536: write a whole number from 0 to 65535"},
		{"a fraction", &metalLB, tor + "{peerPort: 1.5}", "BGPPeer m/tor: spec.peerPort: it is the number 1.5: write a whole number from 0 to 65535"},
		{"a duration without a unit", &metalLB, tor + "{holdTime: 90}", "BGPPeer m/tor: spec.holdTime: it is a number: write a duration such as 90s"},
		{"a duration of nothing", &metalLB, tor + "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, connectTime: soon}", `BGPPeer m/tor: spec.connectTime: "soon" is not a duration: write one such as 90s`},
		{"a password that is a number", &metalLB, tor + "{password: 12345678}", "BGPPeer m/tor: spec.password: it is a number: write a string, in quotation marks"},
		{"a password in place of a Secret", &metalLB, tor + "{passwordSecret: s3cret}", "BGPPeer m/tor: spec.passwordSecret: it is a string: write a map"},
		{"a field that both advertisements have", &metalLB, metal + "L2Advertisement\nmetadata: {name: a, namespace: m}\nspec: {ipAddressPools: good}", "L2Advertisement m/a: spec.ipAddressPools: it is a string: write a list of strings"},
		{
			"an element of a list in a list", &metalLB, metal + "BGPAdvertisement\nmetadata: {name: a, namespace: m}\nspec: {nodeSelectors: [{}, {matchExpressions: [{key: rack, operator: In, values: [a, 2]}]}]}",
			"BGPAdvertisement m/a: spec.nodeSelectors[1].matchExpressions[0].values[1]: it is a number: write a string, in quotation marks",
		},
		{"an element in place of a list", &metalLB, metal + "Community\nmetadata: {name: a, namespace: m}\nspec: {communities: {name: a, value: '1:1'}}", "Community m/a: spec.communities: it is a map: write a list of maps"},
		{"a boolean in quotation marks", &metalLB, metal + "BFDProfile\nmetadata: {name: a, namespace: m}\nspec: {echoMode: 'yes'}", "BFDProfile m/a: spec.echoMode: it is a string: write true or false, without quotation marks"},
		{"no spec", &metalLB, metal + "IPAddressPool\nmetadata: {name: a, namespace: m}\nspec: [192.0.2.0/28]", "IPAddressPool m/a: spec: it is a list: write a map"},
		{"a label", &metalLB, metal + "IPAddressPool\nmetadata: {name: a, namespace: m, labels: {rack: 7}}\nspec: {addresses: [192.0.2.16/28]}", "IPAddressPool m/a: metadata.labels.rack: it is a number: write a string, in quotation marks"},
		{"an annotation", &metalLB, service + "annotations: {metallb.io/address-pool: good, metallb.io/allow-shared-ip: true}" + typed, "Service a/web: metadata.annotations.metallb.io/allow-shared-ip: it is a boolean: write a string, in quotation marks"},
		{
			"an element of a list in a list of Cilium's", &ciliumLB, cluster + "{bgpInstances: [{name: i, localASN: 1, peers: [{name: p, peerASN: 2}, {name: q, peerASN: '3'}]}]}",
			"CiliumBGPClusterConfig c: spec.bgpInstances[0].peers[1].peerASN: it is a string: write a whole number, without quotation marks",
		},
		{"a list in place of a string", &ciliumLB, "apiVersion: cilium.io/v2\nkind: CiliumLoadBalancerIPPool\nmetadata: {name: a}\nspec: {blocks: [{cidr: [192.0.2.16/28]}]}", "CiliumLoadBalancerIPPool a: spec.blocks[0].cidr: it is a list: write a string"},
		{"a variable of kube-vip's", &kubeVIP, kubevip + "[{name: vip_interface, value: eth0}, {name: vip_arp, value: true}]}]}}}", "DaemonSet kube-system/k: spec.template.spec.containers[0].env[1].value: it is a boolean: write a string, in quotation marks"},
		{"a value of a ConfigMap", &kubeVIP, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kubevip, namespace: m}\ndata: {cidr-global: 7}", "ConfigMap m/kubevip: data.cidr-global: it is a number: write a string, in quotation marks"},
		{"a field of what is the same in both versions", &pureLB, group + "{local: {pool: 7}}", "ServiceGroup p/g: spec.local.pool: it is a number: write a string, in quotation marks"},
		{"an element of a list of PureLB's", &pureLB, group + "{local: {v4pools: [{pool: 192.0.2.16/28}, 192.0.2.32/28]}}", "ServiceGroup p/g: spec.local.v4pools[1]: it is a string: write a map"},
		{"a string in place of a list", &pureLB, "apiVersion: purelb.io/v2\nkind: LBNodeAgent\nmetadata: {name: a, namespace: p}\nspec: {local: {interfaces: eth0}}", "LBNodeAgent p/a: spec.local.interfaces: it is a string: write a list of strings"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.source.Translate(objects(t, c.object+"\n---\n"+good[c.source]))
			text, err := r.YAML()
			if err != nil {
				t.Fatal(err)
			}
			report := r.Text()
			if !strings.Contains(report, "  "+c.said+again) {
				t.Errorf("want %q in\n%s", c.said+again, report)
			}
			if strings.Contains(report, "s3cret") || strings.Contains(report, "12345678") {
				t.Errorf("a password is printed:\n%s", report)
			}
			if !strings.Contains(text, "kind: IPPool\nmetadata:\n  name: good\n") || strings.Count(text, "kind: IPPool\n") != 1 {
				t.Errorf("of the objects the one that can be read is translated to\n%s", text)
			}
		})
	}
	t.Run("somebody's DaemonSet", func(t *testing.T) {
		r := kubeVIP.Translate(objects(t, strings.ReplaceAll(kubevip, "kube-vip", "nginx")+"[{name: a, value: true}]}]}}}"))
		if len(r.Notes) > 0 || r.Others != 1 {
			t.Errorf("the import says of it\n%s", r.Text())
		}
	})
}
