package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
)

// inTheWay has objects of some clusters that prevent Herald from working.
const inTheWay = `apiVersion: v1
kind: ConfigMap
metadata: {name: kube-proxy, namespace: kube-system}
data:
  config.conf: |
    apiVersion: kubeproxy.config.k8s.io/v1alpha1
    kind: KubeProxyConfiguration
    mode: ipvs
---
apiVersion: v1
kind: Namespace
metadata: {name: herald-system, labels: {pod-security.kubernetes.io/enforce: baseline}}
---
apiVersion: v1
kind: Namespace
metadata: {name: metallb-system}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: controller, namespace: metallb-system}
spec:
  replicas: 0
  selector: {matchLabels: {app: metallb}}
  template:
    metadata: {labels: {app: metallb}}
    spec: {containers: [{name: controller, image: "quay.io/metallb/controller:v0.15.2"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {type: LoadBalancer, ports: [{port: 80}]}
`

const preflightPools = `apiVersion: herald.dev/v1alpha1
kind: IPPool
metadata: {name: clusterips}
spec: {addresses: [10.96.200.0/24]}
---
apiVersion: herald.dev/v1alpha1
kind: IPPool
metadata: {name: public}
spec: {addresses: [203.0.113.0/29]}
`

// TestPreflightBeforeHeraldIsThere is about kubectl herald preflight on clusters without Herald: one without obstacles,
// and one with many.
func TestPreflightBeforeHeraldIsThere(t *testing.T) {
	t.Parallel()
	ctx, plane := startControlPlaneWith(t, lab.ControlPlaneOptions{Bare: true})
	c := clusterOf(t, ctx, &plane.Access)
	c.must(c.access.Apply(ctx, "{apiVersion: v1, kind: Node, metadata: {name: node-1}}"))

	said := c.comesToSay("preflight", 0, "0 problems, 0 warnings")
	c.says(said, "? there is neither a ConfigMap kube-system/kube-proxy nor a pod of kube-proxy", "? there are no pools", "? no API says whether processes",
		"✓ Kubernetes is v1.36", "✓ 1 node can announce", "✓ there are no CustomResourceDefinitions of herald.dev yet", "✓ ValidatingAdmissionPolicies are served",
		"✓ there is no namespace herald-system yet", "✓ no other load balancer is found", "✓ 0 Services")

	c.must(c.access.Apply(ctx, inTheWay))
	_, err := c.access.Kubectl(ctx, "patch", "service", "web", "--subresource=status", "--field-manager=controller", "-p", `{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.9"}]}}}`)
	c.must(err)
	pools := file(t, preflightPools)
	said = c.comesToSay("preflight -f "+pools, 2, "5 problems, 3 warnings")
	c.says(said, "✗ kube-proxy is in ipvs mode without strictARP (ConfigMap kube-system/kube-proxy)", "✗ Pod Security does not admit speakers to namespace herald-system",
		"✗ MetalLB (Deployment metallb-system/controller) serves Services without a class", "✗ default/web has 192.0.2.9, which controller wrote, and would wait with Herald:",
		"✗ IPPool clusterips: the cluster uses addresses of the pool itself: 10.96.0.0/16, the range of ClusterIPs",
		"! there is a ConfigMap kube-system/kube-proxy and no pod of kube-proxy", "! IPPool clusterips has addresses of IPv4, and no node has", "! IPPool public has addresses of IPv4, and no node has", "✓ 1 Service of type LoadBalancer would be served")
	var report struct {
		Problems, Warnings, Unchecked, Fine []struct{ Kind, Text string }
	}
	said, code := c.ask("preflight", "-f", pools, "-o", "json")
	c.must(json.NewDecoder(strings.NewReader(said)).Decode(&report)) // The line with the exit code follows the JSON.
	if code != 2 || len(report.Problems) != 5 || report.Problems[0].Kind != "KubeProxy" || len(report.Warnings) != 3 || len(report.Unchecked) == 0 || len(report.Fine) == 0 {
		t.Errorf("exit code %d: %+v", code, report)
	}

	for node := range 3 {
		c.must(c.access.Apply(ctx, fmt.Sprintf("{apiVersion: v1, kind: Node, metadata: {name: node-%d}}", node+1)))
		c.kubectl("patch", "node", fmt.Sprint("node-", node+1), "--subresource=status", "-p",
			fmt.Sprintf(`{"status":{"addresses":[{"type":"InternalIP","address":"198.18.0.%[1]d"},{"type":"InternalIP","address":"2001:db8:18::%[1]d"}]}}`, 11+node))
	}
	c.prints("docs/kubectl-herald.md", "✗ kube-proxy is in ipvs mode", "preflight -f "+file(t, strings.Replace(preflightPools, "203.0.113.0/29", "198.18.0.8/30", 1)))

	// A user without read permissions gets a list of what was not checked, and none of that counts as fine.
	said = c.comesToSay("preflight --as nobody", 2, "0 problems, 0 warnings")
	c.says(said, "? whether kube-proxy runs, and in which mode: you may not read configmaps in kube-system, daemonsets.apps, pods", "? whether the nodes fit: you may not read nodes",
		"? whether the CustomResourceDefinitions of herald.dev are Herald's", "? whether Pod Security admits the speakers: you may not read namespaces", "? whether other load balancers run",
		"? which Services have addresses, and whether they would keep them: you may not read services", "? whether the pools fit: you may not read nodes", "? whether pods have ports", "? whether speakers hear each other", "✓ Kubernetes is v1.36", "2 fine.")
}

// TestPreflightWhereHeraldRuns is about kubectl herald preflight on a cluster with Herald, whose speakers report more.
func TestPreflightWhereHeraldRuns(t *testing.T) {
	f := withLab(t, lab.Options{Nodes: 2})
	f.pool("segment", delay(0), "198.18.0.200")
	f.announce()
	_, err := f.access.Kubectl(f.ctx, "label", "namespace", "herald-system", "pod-security.kubernetes.io/enforce=privileged")
	f.must(err)
	// One speaker writes its status before the other.
	inOrder := []string{"✓ 2 speakers report that their nodes can forward", "✓ 2 nodes can announce addresses; with internal addresses of IPv4: 2, of IPv6: 2", "✓ the CustomResourceDefinitions of herald.dev have the fields of this version",
		"✓ Herald's admission policies are there and bound", "✓ IPPool segment has no address of nodes", "✓ 2 speakers run, so they have TCP port 7475", "✓ speakers hear each other on eth0 of "}
	said := f.comesToSay("preflight", 0, append([]string{"0 problems, 0 warnings"}, inOrder...)...)
	f.says(said, inOrder...)

	// herald-ccm says the same of a pool of another network once it is applied.
	const off = "the pool's addresses are in no subnet of the nodes that L2Advertisement all announces them from: 203.0.113.0/29; their IPv4 subnet is 198.18.0.0/24 on eth0: take addresses of such a subnet"
	stray := "apiVersion: herald.dev/v1alpha1\nkind: IPPool\nmetadata: {name: stray}\nspec: {addresses: [203.0.113.0/29]}\n"
	f.comesToSay("preflight -f "+file(t, stray), 2, "✗ IPPool stray: spec.addresses: "+off, "1 problem, 0 warnings")
	f.comesToSay("plan -f "+file(t, stray), 0, "+ stray", "off subnet "+off, "Nothing would be lost. Correct spec.addresses or the advertisement of IPPool stray: see off subnet above.")
	byBGP := stray + "---\napiVersion: herald.dev/v1alpha1\nkind: BGPAdvertisement\nmetadata: {name: stray}\nspec: {pools: [stray]}\n"
	f.comesToSay("preflight -f "+file(t, byBGP), 0, "0 problems, 0 warnings", "✓ IPPool stray has no address of nodes")
	f.must(f.access.Apply(f.ctx, stray))
	f.condition("stray", herald.ConditionAnnounced, metav1.ConditionFalse, off)
	f.must(f.herald.Pools.Delete(f.ctx, "stray", metav1.DeleteOptions{}))

	node := f.site.Nodes[0].IPv4.String()
	f.pool("taken", delay(0), herald.AddressRange(node))
	_, err = f.access.Kubectl(f.ctx, "delete", "validatingadmissionpolicybinding", "speakers.herald.dev")
	f.must(err)
	f.comesToSay("preflight", 2, "✗ no ValidatingAdmissionPolicyBinding of the policy speakers.herald.dev has the action Deny", "! IPPool taken has addresses that are taken, and never gives them out: "+node+" (the address of node "+f.site.Nodes[0].Name+")", "1 problem, 1 warning")
}
