package report

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

func resourcesOf(groupVersion string, names ...string) *metav1.APIResourceList {
	l := &metav1.APIResourceList{GroupVersion: groupVersion}
	for _, n := range names {
		l.APIResources = append(l.APIResources, metav1.APIResource{Name: n})
	}
	return l
}

const kubeadm = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\nmetricsBindAddress: \"\"\n"

// empty returns a cluster of two nodes without Herald and without obstacles to it.
func empty() *Surroundings {
	in := &Surroundings{
		Objects: &Objects{
			ProxyConfigs: []*corev1.ConfigMap{{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kube-proxy"}, Data: map[string]string{"config.conf": kubeadm, "kubeconfig.conf": "apiVersion: v1\nkind: Config\n"}}},
			ServiceCIDRs: []*networkingv1.ServiceCIDR{{Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16"}}}},
			Namespaces:   []*corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "default"}}},
		},
		Own: "herald-system", Version: "v1.36.3",
		Served: []*metav1.APIResourceList{resourcesOf("v1", "pods"), resourcesOf("admissionregistration.k8s.io/v1", "validatingadmissionpolicies")},
	}
	for i, name := range []string{"n1", "n2"} {
		n := node(name)
		n.Spec.PodCIDRs = []string{"10.244." + string(rune('0'+i)) + ".0/24"}
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "198.51.100.10" + string(rune('1'+i))}}
		in.Nodes = append(in.Nodes, n)
	}
	in.daemonSet("kube-system/kube-proxy", "registry.k8s.io/kube-proxy:v1.36.3", "--config=/var/lib/kube-proxy/config.conf")
	return in
}

// installed returns the cluster with Herald.
func installed(t *testing.T) *Surroundings {
	t.Helper()
	in := empty()
	in.Served = append(in.Served, resourcesOf("herald.dev/v1alpha1", "ippools"))
	in.Namespaces = append(in.Namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "herald-system", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "privileged"}}})
	in.Definitions = manifestsOf[apiextensionsv1.CustomResourceDefinition](t, "crds", "CustomResourceDefinition")
	in.Policies = manifestsOf[admissionv1.ValidatingAdmissionPolicy](t, "policies", "ValidatingAdmissionPolicy")
	in.Bindings = manifestsOf[admissionv1.ValidatingAdmissionPolicyBinding](t, "policies", "ValidatingAdmissionPolicyBinding")
	for i, name := range []string{"n1", "n2"} {
		in.Speakers = append(in.Speakers, &herald.SpeakerStatus{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Status: herald.SpeakerStatusStatus{Interfaces: []herald.SpeakerInterface{{
				Name: "eth0", MAC: "02:00:5e:00:53:0" + string(rune('1'+i)), State: herald.SegmentMember,
				Subnets: []string{"198.51.100.10" + string(rune('1'+i)) + "/24"}, Gateways: []string{"198.51.100.254"},
			}}},
		})
	}
	meet(in.Speakers...)
	return in
}

// manifestsOf returns the objects of a kind in a folder of manifests/.
func manifestsOf[T any](t *testing.T, folder, kind string) (all []*T) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../../../../manifests", folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for document := range strings.SplitSeq(string(text), "\n---\n") {
			var typed metav1.TypeMeta
			o := new(T)
			if err := yaml.Unmarshal([]byte(document), &typed); err != nil || typed.Kind != kind {
				continue
			}
			if err := yaml.UnmarshalStrict([]byte(document), o); err != nil {
				t.Fatal(err)
			}
			all = append(all, o)
		}
	}
	return all
}

func workloadOf(image string, args ...string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{Spec: corev1.PodSpec{HostNetwork: true, Containers: []corev1.Container{{Image: image, Args: args}}}}
}

func (in *Surroundings) daemonSet(name, image string, args ...string) *corev1.Container {
	namespace, name, _ := strings.Cut(name, "/")
	o := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: appsv1.DaemonSetSpec{Template: workloadOf(image, args...)}}
	in.DaemonSets = append(in.DaemonSets, o)
	return &o.Spec.Template.Spec.Containers[0]
}

func (in *Surroundings) deployment(name, image string, args ...string) {
	namespace, name, _ := strings.Cut(name, "/")
	in.Deployments = append(in.Deployments, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: appsv1.DeploymentSpec{Template: workloadOf(image, args...)}})
}

// pod adds a pod with ports of its node.
func (in *Surroundings) pod(name, node string, ports ...corev1.ContainerPort) *corev1.Pod {
	o := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name}, Spec: corev1.PodSpec{NodeName: node, HostNetwork: true, Containers: []corev1.Container{{Ports: ports}}}}
	in.Pods = append(in.Pods, o)
	return o
}

// service adds a Service with addresses that a manager wrote.
func (in *Surroundings) service(name, manager string, addresses ...string) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name), ManagedFields: []metav1.ManagedFieldsEntry{
			{Manager: "kubectl-create", FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:type":{}}}`)},
			{Manager: manager, Subresource: "status", FieldsV1: metav1.NewFieldsV1(`{"f:status":{"f:loadBalancer":{"f:ingress":{}}}}`)},
		}},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}},
	}
	for _, a := range addresses {
		svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a})
	}
	in.Services = append(in.Services, svc)
	return svc
}

func (in *Surroundings) proxyConfig(text string) { in.ProxyConfigs[0].Data["config.conf"] += text }

func TestPreflightOfAnEmptyCluster(t *testing.T) {
	r, err := Preflight(empty(), ours, now)
	if err != nil {
		t.Fatal(err)
	}
	want := `? there are no pools: give those that you are going to apply with -f
? no API says whether processes of the nodes that are in no pod have these ports: TCP 7475, TCP 179, UDP 3784: ss -lntup on the nodes shows them
? whether nodes hear the multicasts of each other (UDP port 7476, groups 224.0.0.254 and ff02::114) is known once speakers run: run this, or kubectl herald status, again then
✓ Kubernetes is v1.36.3: Herald is tested with 1.36
✓ kube-proxy: the mode is nftables (ConfigMap kube-system/kube-proxy)
✓ 2 nodes can announce addresses; with internal addresses of IPv4: 2, of IPv6: 0
✓ there are no CustomResourceDefinitions of herald.dev yet, and none that could be in the way
✓ ValidatingAdmissionPolicies are served; Herald's come with its manifests
✓ there is no namespace herald-system yet: manifests/herald.yaml makes it with the label pod-security.kubernetes.io/enforce=privileged, which speakers need (hostNetwork, NET_RAW); after an installation with Helm: kubectl label --overwrite namespace herald-system pod-security.kubernetes.io/enforce=privileged
✓ no other load balancer is found
✓ 0 Services of type LoadBalancer would be served by Herald

0 problems, 0 warnings, 3 not checked (?), 8 fine.
`
	if diff := cmp.Diff(want, plainText(r.Text)); diff != "" || !r.Good() {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPreflightWhereHeraldRuns(t *testing.T) {
	in := installed(t)
	in.Pools = append(in.Pools, pool("public", 0, "203.0.113.0/24"))
	r, err := Preflight(in, ours, now)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Problems)+len(r.Warnings) > 0 {
		t.Errorf("%+v %+v", r.Problems, r.Warnings)
	}
	for _, want := range []string{
		"2 speakers report that their nodes can forward", "the CustomResourceDefinitions of herald.dev have the fields of this version", "Herald's admission policies are there and bound",
		"Pod Security admits the speakers to namespace herald-system", "IPPool public has no address of nodes", "2 speakers run, so they have TCP port 7475", "speakers hear each other on eth0 of n1, eth0 of n2",
	} {
		if !slices.ContainsFunc(r.Fine, func(p problem) bool { return strings.Contains(p.Text, want) }) {
			t.Errorf("no %q in %+v", want, r.Fine)
		}
	}
}

// TestPreflight changes one thing at a time in a healthy cluster, and checks all resulting problems and warnings.
func TestPreflight(t *testing.T) {
	const running = true
	emptyBefore, err := Preflight(empty(), ours, now)
	if err != nil {
		t.Fatal(err)
	}
	installedBefore, err := Preflight(installed(t), ours, now)
	if err != nil {
		t.Fatal(err)
	}
	classed := &CCM{Class: herald.LoadBalancerClass}
	for _, c := range []struct {
		name    string
		running bool
		ccm     *CCM
		change  func(in *Surroundings)
		// The beginnings of the results, with mark and kind. Good results are left out, except those listed here with ✓.
		want []string
		not  []string // the beginnings of results that must not be there
	}{
		{name: "an old Kubernetes", change: func(in *Surroundings) { in.Version = "v1.31.9+k3s1" }, want: []string{"✗ KubernetesVersion Kubernetes is v1.31.9+k3s1, and Herald needs 1.32 or later"}},
		{name: "the oldest", change: func(in *Surroundings) { in.Version = "v1.32.0" }, want: []string{"✓ KubernetesVersion Kubernetes is v1.32.0: Herald works with 1.32 or later"}},
		{name: "a new one", change: func(in *Surroundings) { in.Version = "v1.37.0" }, want: []string{"! KubernetesVersion Kubernetes is v1.37.0, and the latest that Herald is tested with is 1.36"}},
		{name: "no version", change: func(in *Surroundings) { in.Version = "" }, want: []string{`? KubernetesVersion the version of Kubernetes`}},
		{name: "an API that does not answer", change: func(in *Surroundings) { in.NotServed = "metrics.k8s.io/v1beta1: the server is down" }, want: []string{"? CustomResources which resources the API server serves is not fully known: metrics.k8s.io"}},

		{name: "ipvs", change: func(in *Surroundings) {
			in.ProxyConfigs[0].Data["config.conf"] = strings.Replace(kubeadm, "nftables", "ipvs", 1)
		},
			want: []string{"✗ KubeProxy kube-proxy is in ipvs mode without strictARP (ConfigMap kube-system/kube-proxy), so every node answers ARP for every address: set ipvs.strictARP: true"}},
		{name: "ipvs with strictARP", change: func(in *Surroundings) {
			in.ProxyConfigs[0].Data["config.conf"] = strings.Replace(kubeadm, "nftables", "ipvs", 1) + "ipvs: {strictARP: true}\n"
		}, want: []string{"✓ KubeProxy kube-proxy: the mode is ipvs"}},
		{name: "rare rules, and other ports", change: func(in *Surroundings) {
			in.proxyConfig("nftables: {minSyncPeriod: 10s}\nhealthzBindAddress: 0.0.0.0:10255\n")
			in.ProxyConfigs[0].Data["config.conf"] = strings.Replace(in.ProxyConfigs[0].Data["config.conf"], `metricsBindAddress: ""`, "metricsBindAddress: 10.0.0.1:10249", 1)
		}, want: []string{"! KubeProxy kube-proxy writes its rules every 10s at most", `! KubeProxy kube-proxy serves its health at 0.0.0.0:10255`, `! KubeProxy kube-proxy serves its metrics at 10.0.0.1:10249`}},
		{name: "no kube-proxy", change: func(in *Surroundings) { in.ProxyConfigs, in.DaemonSets = nil, nil }, want: []string{"? KubeProxy there is neither a ConfigMap kube-system/kube-proxy nor a pod of kube-proxy"}},
		{name: "kube-proxy with flags", change: func(in *Surroundings) {
			in.ProxyConfigs, in.DaemonSets = nil, nil
			in.daemonSet("kube-system/kube-proxy", "registry.k8s.io/kube-proxy:v1.36.3", "--proxy-mode", "ipvs", "--ipvs-min-sync-period=2s")
		}, want: []string{"✗ KubeProxy kube-proxy is in ipvs mode without strictARP (DaemonSet kube-system/kube-proxy)", "! KubeProxy kube-proxy writes its rules every 2s"}},
		{name: "kube-proxy with a file", change: func(in *Surroundings) {
			in.ProxyConfigs, in.DaemonSets = nil, nil
			in.daemonSet("kube-system/kube-proxy", "registry.k8s.io/kube-proxy:v1.36.3", "--config=/etc/x.conf")
		}, want: []string{"? KubeProxy kube-proxy runs (DaemonSet kube-system/kube-proxy), and its mode is not known"}},
		{name: "the configuration of a kube-proxy that does not run", change: func(in *Surroundings) { in.DaemonSets = nil },
			want: []string{"! KubeProxy there is a ConfigMap kube-system/kube-proxy and no pod of kube-proxy"}, not: []string{"✓ KubeProxy"}},
		{name: "Cilium", change: func(in *Surroundings) {
			in.ProxyConfigs[0].Name, in.ProxyConfigs[0].Data = "cilium-config", map[string]string{"kube-proxy-replacement": "true"}
		}, want: []string{"✗ KubeProxy Cilium replaces kube-proxy (ConfigMap kube-system/cilium-config) and does not serve its health on port 10256", "! KubeProxy Cilium replaces kube-proxy"}},
		{name: "Cilium, and what is left of kube-proxy", change: func(in *Surroundings) {
			in.ProxyConfigs = append(in.ProxyConfigs, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "cilium-config"}, Data: map[string]string{"kube-proxy-replacement": "true"}})
		}, want: []string{"✗ KubeProxy Cilium replaces kube-proxy (ConfigMap kube-system/cilium-config) and does not serve its health on port 10256", "! KubeProxy Cilium replaces kube-proxy"}, not: []string{"✓ KubeProxy"}},
		{name: "Cilium that serves its health", change: func(in *Surroundings) {
			in.ProxyConfigs[0].Name, in.ProxyConfigs[0].Data = "cilium-config", map[string]string{"kube-proxy-replacement": "true", "kube-proxy-replacement-healthz-bind-address": "0.0.0.0:10256"}
		}, want: []string{"! KubeProxy Cilium replaces kube-proxy"}},
		{name: "kube-proxy may not be looked for", change: func(in *Surroundings) {
			in.ProxyConfigs, in.DaemonSets = nil, nil
			in.Unseen = []string{"configmaps in kube-system", "daemonsets.apps", "pods"}
		}, want: []string{
			"? KubeProxy whether kube-proxy runs, and in which mode: you may not read configmaps in kube-system, daemonsets.apps, pods",
			"? LoadBalancers whether other load balancers run: you may not read daemonsets.apps, pods", "? Ports whether pods have ports of the nodes",
		}},
		{name: "a node that cannot forward", running: running, change: func(in *Surroundings) { in.Speakers[0].Status.Problem = "kube-proxy does not serve" },
			want: []string{"✗ KubeProxy node n1 announces nothing: kube-proxy does not serve", "✓ KubeProxy 1 speaker reports that its node can forward"}},

		{name: "pools off every subnet", running: running, change: func(in *Surroundings) {
			in.L2Advertisements = []*herald.L2Advertisement{{ObjectMeta: metav1.ObjectMeta{Name: "all"}}}
			in.Wanted.Pools = append(in.Wanted.Pools, pool("stray", 0, "203.0.113.0/28"), pool("half", 0, "203.0.113.32/28", "198.51.100.32/28"), pool("fits", 0, "198.51.100.0-198.51.100.9"))
			in.Wanted.Pools[2].Spec.Exclude = []herald.AddressRange{"198.51.100.0"}
		}, want: []string{
			"✗ Pools IPPool stray: spec.addresses: the pool's addresses are in no subnet of the nodes that L2Advertisement all announces them from: 203.0.113.0/28; their IPv4 subnet is 198.51.100.0/24 on eth0: take addresses of such a subnet",
			"! Pools IPPool half: spec.addresses: these addresses of the pool are in no subnet of the nodes", "✓ Pools IPPool fits",
		}, not: []string{"✓ Pools IPPool stray", "✓ Pools IPPool half"}},
		{name: "pools off every subnet, by BGP", running: running, change: func(in *Surroundings) {
			in.Wanted.Pools = append(in.Wanted.Pools, pool("stray", 0, "203.0.113.0/28"))
			in.Wanted.BGPAdvertisements = []*herald.BGPAdvertisement{{ObjectMeta: metav1.ObjectMeta{Name: "all"}}}
		}, want: []string{"✓ Pools IPPool stray"}},
		{name: "pools far from all nodes", change: func(in *Surroundings) {
			in.Wanted.Pools = append(in.Wanted.Pools, pool("stray", 0, "203.0.113.0/28"), pool("near", 0, "198.51.7.0/28"))
			in.Wanted.Pools[0].Labels = map[string]string{"on": "segments"}
			in.Wanted.L2Advertisements = []*herald.L2Advertisement{{ObjectMeta: metav1.ObjectMeta{Name: "all"}, Spec: herald.L2AdvertisementSpec{
				Selection: herald.Selection{PoolSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"on": "segments"}}},
			}}}
		}, want: []string{
			"! Pools IPPool stray: spec.addresses: L2Advertisement all announces 203.0.113.0/28 on the segments of nodes whose internal addresses are far from these (198.51.100.101, 198.51.100.102): take addresses of a subnet of the nodes",
			"? Pools the nodes' subnets and gateways are known once speakers run", "✓ Pools IPPool near",
		}, not: []string{"✓ Pools IPPool stray"}},
		{name: "the subnets may not be read", running: running, change: func(in *Surroundings) {
			in.Unseen = []string{"bgpadvertisements.herald.dev"}
			in.Wanted.Pools = append(in.Wanted.Pools, pool("stray", 0, "203.0.113.0/28"))
			in.Wanted.L2Advertisements = []*herald.L2Advertisement{{ObjectMeta: metav1.ObjectMeta{Name: "all"}}}
		}, want: []string{"? Pools whether the nodes have subnets with the addresses of L2Advertisements: you may not read bgpadvertisements.herald.dev", "✓ Pools IPPool stray"}},
		{name: "an advertisement of a pool that does not exist", change: func(in *Surroundings) {
			in.Wanted.Pools = append(in.Wanted.Pools, pool("segment", 0, "198.51.100.32/28"))
			in.Wanted.L2Advertisements = []*herald.L2Advertisement{{ObjectMeta: metav1.ObjectMeta{Name: "all"}, Spec: herald.L2AdvertisementSpec{Selection: herald.Selection{Pools: []string{"segmnet"}}}}}
		}, want: []string{`✗ Pools L2Advertisement all: spec.pools: there is no IPPool "segmnet": correct the name, or create it; there is only segment`,
			"? Pools the nodes' subnets and gateways are known once speakers run", "✓ Pools IPPool segment"}},

		{name: "nodes that announce nothing", change: func(in *Surroundings) {
			in.Nodes[0].Labels = map[string]string{corev1.LabelOSStable: "windows"}
			in.Nodes[1].Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""}
		}, want: []string{"✗ Nodes nothing can be announced", "! Nodes node n1 is not Linux", "! Nodes node n2 has the label node.kubernetes.io/exclude-from-external-load-balancers, so nothing is announced from there: kubectl label node n2 node.kubernetes.io/exclude"}},
		{name: "a node whose speaker says that the label excludes it, and one with a taint", running: running, change: func(in *Surroundings) {
			in.Nodes[0].Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""}
			in.Speakers[0].Status.Problem = "the node has the label node.kubernetes.io/exclude-from-external-load-balancers"
			in.Nodes[1].Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeOutOfService}}
			in.Speakers[1].Status.Problem = "the node has the taint node.kubernetes.io/out-of-service"
		}, want: []string{
			"✗ Nodes nothing can be announced: there is no node that is Linux and not excluded",
			"! Nodes node n1 has the label node.kubernetes.io/exclude-from-external-load-balancers, so nothing is announced from there",
			"! Nodes nothing is announced from node n2: the node has the taint node.kubernetes.io/out-of-service",
		}, not: []string{"✗ KubeProxy", "✓ KubeProxy 1"}},
		{name: "a node whose speaker says that the label excludes it, to somebody who may not list nodes", running: running, change: func(in *Surroundings) {
			in.Nodes, in.Unseen = nil, []string{"nodes"}
			in.Speakers[0].Status.Problem = "the node has the label node.kubernetes.io/exclude-from-external-load-balancers"
		}, want: []string{"? Nodes whether the nodes fit: you may not read nodes"}, not: []string{"✗ KubeProxy"}},
		{name: "a node that waits for a cloud", change: func(in *Surroundings) {
			in.Nodes[0].Spec.Taints = []corev1.Taint{{Key: "node.cloudprovider.kubernetes.io/uninitialized"}}
		}, want: []string{"✗ Nodes node n1 has the taint node.cloudprovider.kubernetes.io/uninitialized"}},
		{name: "nodes may not be listed", change: func(in *Surroundings) { in.Nodes, in.Unseen = nil, []string{"nodes"} },
			want: []string{"? Nodes whether the nodes fit: you may not read nodes", "? Pools whether the pools fit: you may not read nodes", "? Multicast whether speakers hear each other: you may not read nodes"}},

		{name: "kinds of another origin", running: running, change: func(in *Surroundings) {
			in.Definitions[3].Spec.Names.Kind = "Pool"
			in.Definitions = append(in.Definitions[1:], &apiextensionsv1.CustomResourceDefinition{
				ObjectMeta: metav1.ObjectMeta{Name: "heralds.herald.dev"}, Spec: apiextensionsv1.CustomResourceDefinitionSpec{Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "heralds"}},
			})
		}, want: []string{
			`✗ CustomResources CustomResourceDefinition ippools.herald.dev is of another origin: it is of the kind Pool`,
			"✗ CustomResources some CustomResourceDefinitions of herald.dev are there, and these are not: bgpadvertisements", "✗ CustomResources CustomResourceDefinition heralds.herald.dev is in the API group herald.dev, and this version of Herald does not have it",
		}},
		{name: "kinds of other versions", running: running, change: func(in *Surroundings) {
			spec := func(i int) map[string]apiextensionsv1.JSONSchemaProps {
				return in.Definitions[i].Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties
			}
			delete(spec(3), "exclude")
			spec(1)["speed"] = apiextensionsv1.JSONSchemaProps{}
			in.Definitions[0].Spec.Versions[0].Name = "v1beta1"
			in.Definitions[4].Status.Conditions = []apiextensionsv1.CustomResourceDefinitionCondition{{Type: apiextensionsv1.NamesAccepted, Status: apiextensionsv1.ConditionFalse, Reason: "KindConflict", Message: "it is taken"}}
		}, want: []string{
			"✗ CustomResources CustomResourceDefinition bgpadvertisements.herald.dev does not serve the version v1alpha1",
			"✗ CustomResources CustomResourceDefinition ippools.herald.dev is of another version of Herald: it does not have spec.exclude",
			"✗ CustomResources CustomResourceDefinition l2advertisements.herald.dev: NamesAccepted is not True (KindConflict): it is taken",
			"! CustomResources CustomResourceDefinition bgppeers.herald.dev is of a newer version of Herald than this program: it has spec.speed",
		}},
		{name: "short names", change: func(in *Surroundings) {
			in.Served = append(in.Served, &metav1.APIResourceList{GroupVersion: "example.org/v1", APIResources: []metav1.APIResource{{Name: "hpools", ShortNames: []string{"hpool"}}, {Name: "news", Categories: []string{"herald"}}}})
		}, want: []string{"! CustomResources kubectl get herald may mean news.example.org, too", "! CustomResources kubectl get hpool may mean hpools.example.org, too"}, not: []string{"✓ CustomResources there are no CustomResourceDefinitions of herald.dev yet, and"}},
		{name: "definitions may not be read", running: running, change: func(in *Surroundings) { in.Unseen = []string{"customresourcedefinitions.apiextensions.k8s.io"} },
			want: []string{"? CustomResources whether the CustomResourceDefinitions of herald.dev are Herald's"}},

		{name: "no policies", change: func(in *Surroundings) { in.Served = in.Served[:1] }, want: []string{"✗ AdmissionPolicies the API server does not serve ValidatingAdmissionPolicies"}},
		{name: "policies of an older version of the API alone", change: func(in *Surroundings) {
			in.Served = []*metav1.APIResourceList{resourcesOf("v1", "pods"), resourcesOf("admissionregistration.k8s.io/v1beta1", "validatingadmissionpolicies")}
		}, want: []string{"✗ AdmissionPolicies the API server does not serve ValidatingAdmissionPolicies"}},
		{name: "Herald's policies", running: running, change: func(in *Surroundings) {
			in.Policies = slices.DeleteFunc(in.Policies, func(o *admissionv1.ValidatingAdmissionPolicy) bool { return o.Name == "speakers.herald.dev" })
			in.Bindings[0].Spec.ValidationActions = []admissionv1.ValidationAction{admissionv1.Audit}
		}, want: []string{"✗ AdmissionPolicies no ValidatingAdmissionPolicyBinding of the policy allocations.herald.dev has the action Deny", "✗ AdmissionPolicies the ValidatingAdmissionPolicy speakers.herald.dev is missing"}},
		{name: "policies may not be read", running: running, change: func(in *Surroundings) {
			in.Unseen = []string{"validatingadmissionpolicies.admissionregistration.k8s.io"}
		}, want: []string{"? AdmissionPolicies whether Herald's admission policies are there and bound"}},
		{name: "Pod Security", running: running, change: func(in *Surroundings) {
			in.Namespaces[1].Labels["pod-security.kubernetes.io/enforce"] = "restricted"
		}, want: []string{"✗ PodSecurity Pod Security does not admit speakers to namespace herald-system, whose label pod-security.kubernetes.io/enforce is restricted"}},
		{name: "no label", running: running, change: func(in *Surroundings) { in.Namespaces[1].Labels = nil }, want: []string{"! PodSecurity namespace herald-system does not have the label"}},
		{name: "namespaces may not be listed", change: func(in *Surroundings) { in.Unseen = []string{"namespaces"} }, want: []string{"? PodSecurity whether Pod Security admits the speakers"}},

		{name: "MetalLB", change: func(in *Surroundings) {
			in.deployment("metallb-system/controller", "quay.io/metallb/controller:v0.15.2", "--port=7472")
			in.Served = append(in.Served, resourcesOf("metallb.io/v1beta1", "ipaddresspools"))
		}, want: []string{"✗ LoadBalancers MetalLB (Deployment metallb-system/controller) serves Services without a class, as herald-ccm does, and both would write their addresses: give its controller and its speakers --lb-class, or start herald-ccm with --serve-classless=false"}},
		{name: "MetalLB with a class", change: func(in *Surroundings) {
			in.deployment("metallb-system/controller", "quay.io/metallb/controller:v0.15.2", "--lb-class=metallb")
		}, want: []string{"✓ LoadBalancers MetalLB is there, too (Deployment metallb-system/controller), and leaves Services without a class alone: --lb-class is metallb"}},
		{name: "MetalLB beside a herald-ccm with a class", ccm: classed, change: func(in *Surroundings) {
			in.deployment("metallb-system/controller", "quay.io/metallb/controller:v0.15.2")
		}, want: []string{"✓ LoadBalancers MetalLB is there, too (Deployment metallb-system/controller): herald-ccm with --serve-classless=false"}},
		{name: "what is left of MetalLB", change: func(in *Surroundings) {
			in.Served = append(in.Served, resourcesOf("metallb.io/v1beta1", "ipaddresspools"))
		},
			want: []string{"! LoadBalancers the API group metallb.io of MetalLB is there, and nothing that runs"}},
		{name: "kube-vip, from a file, for the control plane and for Services", change: func(in *Surroundings) {
			for _, name := range []string{"kube-vip-n1", "kube-vip-n2"} {
				o := in.pod(name, "n1")
				o.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
				o.Spec.Containers[0].Image = "ghcr.io/kube-vip/kube-vip:v1.0"
			}
			in.Pods[1].Spec.Containers[0].Env = []corev1.EnvVar{{Name: "svc_enable", Value: "true"}}
		}, want: []string{"✗ LoadBalancers kube-vip (pod x/kube-vip-n2 of node n1) serves Services without a class", "✓ LoadBalancers kube-vip is there, too (pod x/kube-vip-n1 of node n1), and leaves Services without a class alone: it serves the control plane alone"}},
		{name: "PureLB, OpenELB, Cilium", change: func(in *Surroundings) {
			in.deployment("purelb/allocator", "ghcr.io/purelb/purelb/allocator:v0.12")
			in.deployment("openelb-system/openelb-controller", "kubesphere/openelb-controller:v0.6")
			in.CiliumPools = []string{"blue"}
		}, want: []string{"✗ LoadBalancers OpenELB (Deployment openelb-system/openelb-controller)", "✗ LoadBalancers PureLB (Deployment purelb/allocator)", "✗ LoadBalancers Cilium's LB IPAM (CiliumLoadBalancerIPPool blue)"}},
		{name: "k3s with servicelb", change: func(in *Surroundings) {
			in.Nodes[0].Annotations = map[string]string{"k3s.io/node-args": `["server","--disable","traefik"]`}
			in.Nodes[1].Annotations = map[string]string{"k3s.io/node-args": `["agent"]`}
			in.Nodes[0].Status.NodeInfo.KubeletVersion = "v1.36.3+k3s1"
			in.ProxyConfigs, in.DaemonSets = nil, nil
		}, want: []string{"✗ LoadBalancers k3s' servicelb is not disabled on n1", "? KubeProxy kube-proxy runs inside of k3s"}},
		{name: "nodes of a cloud, and of providers without a load balancer", change: func(in *Surroundings) {
			in.Nodes[0].Spec.ProviderID, in.Nodes[1].Spec.ProviderID = "hcloud://42", "k3s://n2"
		}, want: []string{"! LoadBalancers node n1 is of the cloud provider hcloud, whose cloud controller manager may serve Services without a class, too"}, not: []string{"✓ LoadBalancers no other"}},
		{name: "nodes of a cloud, beside a herald-ccm with a class", ccm: classed, change: func(in *Surroundings) { in.Nodes[0].Spec.ProviderID = "hcloud://42" }},
		{name: "k3s without", change: func(in *Surroundings) {
			in.Nodes[0].Annotations = map[string]string{"k3s.io/node-args": `["server","--disable","traefik,servicelb"]`}
		}},
		{name: "servicelb at work", change: func(in *Surroundings) {
			in.daemonSet("kube-system/svclb-a", "rancher/klipper-lb:v0.4.9")
			in.daemonSet("kube-system/svclb-b", "rancher/klipper-lb:v0.4.9")
		}, want: []string{"✗ LoadBalancers k3s' servicelb (DaemonSet kube-system/svclb-a)"}},

		{name: "Services with addresses, and no pools", change: func(in *Surroundings) {
			in.service("web", "controller", "203.0.113.5").Annotations = map[string]string{"metallb.io/ip-allocated-from-pool": "first"}
		}, want: []string{"? Services default/web has 203.0.113.5, which MetalLB (as controller) wrote: there are no pools"}},
		{name: "Services whose addresses a pool has, or has not", change: func(in *Surroundings) {
			in.service("kept", "controller", "203.0.113.5")
			in.service("lost", "kube-vip", "192.0.2.5")
			in.service("other", "kube-vip", "203.0.113.6").Annotations = map[string]string{herald.AnnotationIPs: "203.0.113.7"}
			class := "other"
			in.service("theirs", "other", "192.0.2.7").Spec.LoadBalancerClass = &class
			in.Wanted.Pools = append(in.Wanted.Pools, pool("public", 0, "203.0.113.0/29"))
		}, want: []string{
			"✗ Services default/lost has 192.0.2.5, which kube-vip wrote, and would wait with Herald: status.loadBalancer carries 192.0.2.5, which is in no IPPool: add it to spec.addresses of one to keep it",
			"✗ Services default/other has 203.0.113.6, which kube-vip wrote, and would be given 203.0.113.7 by Herald",
			"✓ Services 1 Service has addresses that controller wrote, and would keep them with Herald: default/kept", "✓ Services Herald leaves 1 Service of type LoadBalancer to others: class other", "✓ Services 3 Services of type LoadBalancer would be served",
		}},
		{name: "a Service of Herald's", running: running, change: func(in *Surroundings) {
			in.Pools = append(in.Pools, pool("public", 0, "203.0.113.0/29"))
			in.Allocations = append(in.Allocations, record("203.0.113.5", "public", "default/web"))
			in.service("web", "herald-ccm", "203.0.113.5")
		}},
		{name: "records may not be read", running: running, change: func(in *Surroundings) {
			in.Pools = append(in.Pools, pool("public", 0, "203.0.113.0/29"))
			in.service("web", "herald-ccm", "192.0.2.5")
			in.Unseen = []string{"ipallocations.herald.dev"}
		}, want: []string{"? Services which Services have addresses, and whether they would keep them: you may not read ipallocations.herald.dev"}},
		{name: "Services may not be listed", change: func(in *Surroundings) { in.Unseen = []string{"services"} }, want: []string{"? Services which Services have addresses"}},

		{name: "pools in the cluster's networks", change: func(in *Surroundings) {
			in.Wanted.Pools = append(in.Wanted.Pools, pool("a", 0, "10.244.1.128/25"), pool("b", 0, "10.96.1.0/24"))
		}, want: []string{
			"✗ Pools IPPool a: the cluster uses addresses of the pool itself: 10.244.1.0/24, the addresses of pods on node n2: choose other",
			"✗ Pools IPPool b: the cluster uses addresses of the pool itself: 10.96.0.0/16, the range of ClusterIPs",
		}},
		{name: "networks that only pods and ClusterIPs show", change: func(in *Surroundings) {
			in.ServiceCIDRs = nil
			for _, n := range in.Nodes {
				n.Spec.PodCIDRs = nil
			}
			o := in.pod("web", "n1")
			o.Spec.HostNetwork, o.Status.PodIPs = false, []corev1.PodIP{{IP: "172.16.0.9"}}
			svc := in.service("web", "x")
			svc.Spec.Type, svc.Spec.ClusterIPs = corev1.ServiceTypeClusterIP, []string{"172.16.1.9"}
			in.Wanted.Pools = append(in.Wanted.Pools, pool("a", 0, "172.16.0.0/16"))
		}, want: []string{
			"✗ Pools IPPool a: the cluster uses addresses of the pool itself: 172.16.0.9 (the address of pod x/web), 172.16.1.9 (the ClusterIP of default/web): choose other",
			"? Pools the API server has no ServiceCIDRs", "? Pools the Nodes have no spec.podCIDRs",
		}},
		{name: "pools with each other, and nodes in one", change: func(in *Surroundings) {
			in.Pools = append(in.Pools, pool("old", 0, "203.0.113.0/28"))
			in.Wanted.Pools = append(in.Wanted.Pools, pool("new", 0, "203.0.113.8-203.0.113.40", "198.51.100.101"))
		}, want: []string{"✗ Pools IPPool new: the older pool old has these addresses, too, and gives them out: 203.0.113.8-203.0.113.15", "! Pools IPPool new has addresses that are taken, and never gives them out: 198.51.100.101 (the address of node n1)"}},
		{name: "a gateway in a pool, as speakers tell", running: running, change: func(in *Surroundings) {
			in.Pools = append(in.Pools, pool("public", 0, "198.51.100.250-198.51.100.254"))
		}, want: []string{"! Pools IPPool public has addresses that are taken, and never gives them out: 198.51.100.254 (the gateway of node n1 on eth0)"}},
		{name: "an invalid pool, and one of a family that is not there", change: func(in *Surroundings) {
			in.Wanted.Pools = append(in.Wanted.Pools, pool("six", 0, "2001:db8::/120"), pool("wrong", 0, "127.0.0.0/24"))
		}, want: []string{"✗ Pools IPPool wrong is not valid: spec.addresses[0]", "! Pools IPPool six has addresses of IPv6, and no node", "! Pools IPPool six has addresses of IPv6, and the cluster has no ClusterIPs of that family"}},

		{name: "ports that pods declare", change: func(in *Surroundings) {
			in.pod("bird", "n1", corev1.ContainerPort{ContainerPort: 179})
			in.pod("metrics", "n2", corev1.ContainerPort{ContainerPort: 7475})
			in.pod("udp", "n2", corev1.ContainerPort{ContainerPort: 179, Protocol: corev1.ProtocolUDP})
			in.pod("done", "n2", corev1.ContainerPort{ContainerPort: 179}).Status.Phase = corev1.PodSucceeded
			inside := in.pod("inside", "n1", corev1.ContainerPort{ContainerPort: 3784, Protocol: corev1.ProtocolUDP}, corev1.ContainerPort{ContainerPort: 80, HostPort: 179})
			inside.Spec.HostNetwork = false
		}, want: []string{"✗ Ports TCP port 7475 on n2 is taken by pod x/metrics, and speakers need it", "! Ports TCP port 179 on n1 is taken by pod x/bird, pod x/inside; speakers need it for passive BGPPeers, of which there is none yet"}},
		{name: "ports that BGPPeers may need", running: running, change: func(in *Surroundings) {
			in.pod("bird", "n1", corev1.ContainerPort{ContainerPort: 179})
			in.Unseen = []string{"bgppeers.herald.dev"}
		}, want: []string{"! Ports TCP port 179 on n1 is taken by pod x/bird; speakers need it for passive BGPPeers, of which there may be some: you may not read bgppeers.herald.dev"}},
		{name: "ports that BGPPeers need", running: running, change: func(in *Surroundings) {
			in.pod("bird", "n1", corev1.ContainerPort{ContainerPort: 179}, corev1.ContainerPort{ContainerPort: 3784, Protocol: corev1.ProtocolUDP})
			in.pod("own", "n1", corev1.ContainerPort{ContainerPort: 7475}).Labels = map[string]string{"app.kubernetes.io/name": "herald-speaker"}
			in.BGPPeers = append(in.BGPPeers, &herald.BGPPeer{Spec: herald.BGPPeerSpec{Passive: true, BFD: &herald.BFD{}}})
			in.Speakers[0].Status.Sessions = []herald.SpeakerSession{{Peer: "tor", State: "Down", Reason: "listen tcp :179: bind: address already in use"}}
		}, want: []string{"✗ Ports TCP port 179 on n1 is taken by pod x/bird", "✗ Ports UDP port 3784 on n1 is taken by pod x/bird", "✗ Ports node n1: a port for BGPPeer tor is taken: listen tcp :179: bind: address already in use"}},
		{name: "ports that BGPPeers choose", running: running, change: func(in *Surroundings) {
			in.pod("bird", "n1", corev1.ContainerPort{ContainerPort: 179}, corev1.ContainerPort{ContainerPort: 1790}, corev1.ContainerPort{ContainerPort: 4784, Protocol: corev1.ProtocolUDP})
			in.BGPPeers = append(in.BGPPeers, &herald.BGPPeer{Spec: herald.BGPPeerSpec{Passive: true, Port: 1790, BFD: &herald.BFD{MinimumTTL: 254}}})
		}, want: []string{"✗ Ports TCP port 1790 on n1 is taken by pod x/bird", "✗ Ports UDP port 4784 on n1 is taken by pod x/bird", "? Ports no API says whether processes of the nodes that are in no pod have these ports: TCP 1790, UDP 4784: ss"}},
		{name: "BFD is up", running: running, change: func(in *Surroundings) {
			in.BGPPeers = append(in.BGPPeers, &herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor"}, Spec: herald.BGPPeerSpec{BFD: &herald.BFD{}}})
			for _, s := range in.Speakers {
				s.Status.Sessions = []herald.SpeakerSession{{Peer: "tor", State: "Established", BFD: "Up"}}
			}
		}, want: []string{"✓ Ports BFD is up on all nodes, so speakers have UDP port 3784", "? Ports no API says whether processes of the nodes that are in no pod have these ports: TCP 179: ss"}},
		{name: "another BGP speaker", change: func(in *Surroundings) { in.daemonSet("calico-system/calico-node", "quay.io/calico/node:v3.30") },
			want: []string{"! Ports Calico (DaemonSet calico-system/calico-node) may speak BGP on the nodes"}},

		{name: "speakers that do not hear each other", running: running, change: func(in *Surroundings) {
			for _, s := range in.Speakers {
				s.Status.Interfaces[0].State, s.Status.Interfaces[0].Hears, s.Status.Interfaces[0].Neighbours = herald.SegmentDegraded, nil, 0
			}
		}, want: []string{"✗ Multicast nodes n1, n2 are Degraded on eth0"}},
		{name: "speakers alone", running: running, change: func(in *Surroundings) {
			for _, s := range in.Speakers {
				s.Status.Interfaces[0].State, s.Status.Interfaces[0].Hears, s.Status.Interfaces[0].Neighbours = herald.SegmentAlone, nil, 0
			}
		}, want: []string{"? Multicast whether multicasts arrive is not known on eth0 of n1, eth0 of n2: no other speaker has a subnet of theirs"}},
		{name: "a speaker that begins, and one that is silent", running: running, change: func(in *Surroundings) {
			in.Speakers[0].Status.Interfaces[0].State = herald.SegmentListening
			in.Nodes = in.Nodes[:1]
			n3 := node("n3")
			n3.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "198.51.100.103"}}
			in.Nodes = append(in.Nodes, n3)
			in.Speakers[1].Status.Interfaces[0].Hears, in.Speakers[0].Status.Interfaces[0].Hears = nil, nil
		}, want: []string{"? Multicast whether multicasts arrive is not known on eth0 of n1: speakers have just begun", "? Multicast whether multicasts arrive is not known on eth0 of n2: their speakers are silent", "! Nodes node n3 has no speaker that works"}},
		{name: "speakers that do not work any more", running: running, change: func(in *Surroundings) {
			in.Pools = append(in.Pools, pool("public", 0, "203.0.113.0/24"))
			in.Leases = append(in.Leases, lease("n1", time.Hour), lease("n2", time.Hour))
			in.Speakers[0].Status.Problem = "kube-proxy does not serve"
			for _, s := range in.Speakers {
				s.Status.Sessions = []herald.SpeakerSession{{Peer: "tor", State: "Established", BFD: "Up"}}
			}
		}, want: []string{
			"? Pools the nodes' subnets and gateways are known once speakers run", "? Ports no API says whether processes of the nodes that are in no pod have these ports: TCP 7475, TCP 179, UDP 3784: ss",
			"? Multicast whether nodes hear the multicasts of each other (UDP port 7476, groups 224.0.0.254 and ff02::114) is known once speakers run",
			"! Nodes nodes n1, n2 have no speaker that works",
		}, not: []string{"✓ KubeProxy 2 speakers report", "✓ Ports", "✓ Multicast"}},
		{name: "one of two speakers works", running: running, change: func(in *Surroundings) {
			in.Leases = append(in.Leases, lease("n1", time.Second), lease("n2", time.Hour))
			in.Speakers[0].Status.Interfaces[0].Hears = nil
		}, want: []string{
			"✓ KubeProxy 1 speaker reports that its node can forward", "✓ Ports 1 speaker runs, so it has TCP port 7475", "? Multicast whether multicasts arrive is not known on eth0 of n2: their speakers are silent",
			"! Nodes node n2 has no speaker that works",
		}},
		{name: "Leases may not be listed", running: running, change: func(in *Surroundings) {
			in.Unseen = []string{"leases.coordination.k8s.io"}
			for _, s := range in.Speakers {
				s.Status.Sessions = []herald.SpeakerSession{{Peer: "tor", State: "Established", BFD: "Up"}}
			}
		}, want: []string{
			"? KubeProxy whether the speakers that report that their nodes can forward are still running: you may not read leases.coordination.k8s.io",
			"? Ports whether the speakers still run, and have their ports: you may not read leases", "? Multicast whether the speakers that report that they hear each other are still running: you may not read leases",
			"? Ports no API says whether processes of the nodes that are in no pod have these ports: TCP 7475, TCP 179, UDP 3784: ss",
		}, not: []string{"✓ KubeProxy 2 speakers report", "✓ Ports", "✓ Multicast"}},
		{name: "nodes that have no speaker", running: running, change: func(in *Surroundings) {
			in.Nodes = append(in.Nodes, node("n3"), node("n4"), node("n5"))
			in.Nodes[4].Labels = map[string]string{corev1.LabelOSStable: "windows"}
		}, want: []string{
			"! Nodes nodes n3, n4 have no speaker that works, so nothing is announced from there: see why: kubectl -n herald-system get pods -o wide", "! Nodes node n5 is not Linux",
			"? Ports no API says whether processes of the nodes that are in no pod have these ports: TCP 7475 on n3, n4, TCP 179",
		}},
		{name: "speakers on no segment", running: running, change: func(in *Surroundings) {
			for _, s := range in.Speakers {
				s.Status.Interfaces = nil
			}
		}, want: []string{"? Multicast whether nodes hear the multicasts of each other is not known: no speaker works on a segment"}},

		{name: "an object that cannot be read", running: running, change: func(in *Surroundings) { in.Unread = []string{"ippools/x cannot be read\x1b"} }, want: []string{"✗ Unreadable ippools/x cannot be read\ufffd"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, before := empty(), emptyBefore
			if c.running {
				in, before = installed(t), installedBefore
			}
			c.change(in)
			by := c.ccm
			if by == nil {
				by = ours
			}
			r, err := Preflight(in, by, now)
			if err != nil {
				t.Fatal(err)
			}
			said := map[string][]string{}
			for mark, lists := range map[string][2][]problem{"✗": {r.Problems, before.Problems}, "!": {r.Warnings, before.Warnings}, "?": {r.Unchecked, before.Unchecked}, "✓": {r.Fine, before.Fine}} {
				for _, p := range lists[0] {
					if p.Nodes == nil {
						t.Errorf("%s: the list of nodes would be null", p.Text)
					}
					if !slices.ContainsFunc(lists[1], func(x problem) bool { return x.Text == p.Text }) {
						said[mark] = append(said[mark], mark+" "+string(p.Kind)+" "+p.Text)
					}
				}
			}
			for mark, list := range map[string][]problem{"✗": r.Problems, "!": r.Warnings, "?": r.Unchecked, "✓": r.Fine} {
				for _, p := range list {
					text := mark + " " + string(p.Kind) + " " + p.Text
					if slices.ContainsFunc(c.not, func(w string) bool { return strings.HasPrefix(text, w) }) {
						t.Errorf("it says: %s", text)
					}
				}
			}
			for _, w := range c.want {
				mark, _, _ := strings.Cut(w, " ")
				i := slices.IndexFunc(said[mark], func(text string) bool { return strings.HasPrefix(text, w) })
				if i < 0 {
					t.Errorf("no %q in\n%s", w, plainText(r.Text))
					continue
				}
				said[mark] = slices.Delete(said[mark], i, i+1)
			}
			for _, mark := range []string{"✗", "!"} {
				if len(said[mark]) > 0 {
					t.Errorf("it says, too: %q", said[mark])
				}
			}
			seen := !slices.Contains(in.Unseen, "nodes") && !slices.Contains(in.Unseen, "services")
			if r.Good() != (seen && !slices.ContainsFunc(c.want, func(w string) bool { return strings.HasPrefix(w, "✗") })) {
				t.Errorf("good: %v", r.Good())
			}
		})
	}
}

// TestPreflightKnowsHerald compares what preflight knows about Herald with the manifests, the README and the Makefile.
func TestPreflightKnowsHerald(t *testing.T) {
	all := manifestsOf[apiextensionsv1.CustomResourceDefinition](t, "crds", "CustomResourceDefinition")
	if len(all) != len(definitions) {
		t.Errorf("%d definitions, want %d", len(definitions), len(all))
	}
	for _, o := range all {
		i := slices.IndexFunc(definitions, func(d definition) bool { return d.plural == o.Spec.Names.Plural })
		if i < 0 || definitions[i].kind != o.Spec.Names.Kind || !slices.Equal(o.Spec.Names.ShortNames, []string{definitions[i].short}) || !slices.Equal(o.Spec.Names.Categories, []string{category}) {
			t.Errorf("%s is not known as it is", o.Name)
		}
	}
	var names []string
	for _, o := range manifestsOf[admissionv1.ValidatingAdmissionPolicy](t, "policies", "ValidatingAdmissionPolicy") {
		names = append(names, o.Name)
	}
	if diff := cmp.Diff(compact(names), heraldPolicies); diff != "" {
		t.Errorf("policies (-want +got):\n%s", diff)
	}
	for file, says := range map[string]string{"README.md": `needs Kubernetes (\d+\.\d+) or later`, "Makefile": `kubernetes_version := v(\d+\.\d+)\.`} {
		text, err := os.ReadFile(filepath.Join("../../../..", file))
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(says).FindSubmatch(text)
		if want := map[string]string{"README.md": oldestKubernetes, "Makefile": testedKubernetes}[file]; found == nil || string(found[1]) != want {
			t.Errorf("%s says %q, want %s", file, found, want)
		}
	}
}
