package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// metalLBWorkloads are MetalLB's controller and speaker, as its manifests have them. The pods go at once, because there is
// no kubelet that would end them.
const metalLBWorkloads = `apiVersion: v1
kind: Namespace
metadata: {name: metallb-system}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: controller, namespace: metallb-system, labels: {app: metallb, component: controller}}
spec:
  selector: {matchLabels: {app: metallb, component: controller}}
  template:
    metadata: {labels: {app: metallb, component: controller}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: controller, image: "quay.io/metallb/controller:v0.16.1"}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: speaker, namespace: metallb-system, labels: {app: metallb, component: speaker}}
spec:
  selector: {matchLabels: {app: metallb, component: speaker}}
  template:
    metadata: {labels: {app: metallb, component: speaker}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: speaker, image: "quay.io/metallb/speaker:v0.16.1"}]
`

// metalLBConfiguration has a pool that the import writes disabled, because several selectors cannot be translated.
const metalLBConfiguration = `apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: first, namespace: metallb-system}
spec: {addresses: [198.51.100.0/28]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: gold, namespace: metallb-system}
spec:
  addresses: [203.0.113.0/28]
  serviceAllocation: {serviceSelectors: [{matchLabels: {tier: gold}}, {matchLabels: {team: red}}]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: link, namespace: metallb-system}
spec: {ipAddressPools: [first]}
---
apiVersion: metallb.io/v1beta1
kind: BGPPeer
metadata: {name: tor, namespace: metallb-system}
spec: {myASN: 64512, peerASN: 64513, peerAddress: 198.18.0.1, dualStackAddressFamily: true, passwordSecret: {name: tor}}
---
apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata: {name: fabric, namespace: metallb-system}
spec: {}
`

// metalLBKinds returns CustomResourceDefinitions of MetalLB's kinds that accept all fields.
func metalLBKinds() string {
	var all []string
	for _, kind := range []string{"IPAddressPool", "L2Advertisement", "BGPPeer", "BGPAdvertisement"} {
		singular := strings.ToLower(kind)
		all = append(all, fmt.Sprintf(`apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[1]ss.metallb.io}
spec:
  group: metallb.io
  names: {kind: %[2]s, plural: %[1]ss, singular: %[1]s}
  scope: Namespaced
  versions:
  - name: v1beta1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}
`, singular, kind))
	}
	return strings.Join(all, "---\n")
}

// TestTakeover moves a cluster from MetalLB to Herald with kubectl herald takeover, with steps back. The controllers of
// Deployments and DaemonSets and herald-ccm are real; the story plays the scheduler, the kubelets and the speakers.
func TestTakeover(t *testing.T) {
	t.Parallel()
	ctx, plane := startControlPlane(t, true)
	c := clusterOf(t, ctx, &plane.Access)
	c.withNodes("n1", "n2")
	c.must(c.access.Apply(ctx, metalLBKinds()+"---\n"+metalLBWorkloads))
	c.eventually("MetalLB's objects", func(ctx context.Context) error { return c.access.Apply(ctx, metalLBConfiguration) })
	c.reports("n1", func(s *herald.SpeakerStatusStatus) {
		s.Interfaces = []herald.SpeakerInterface{{Name: "eth0", State: herald.SegmentMember, Subnets: []string{"198.51.100.0/24"}}}
	})
	c.kubelets()
	c.podOn("n1", "web")
	c.service("web", annotated("metallb.io/allow-shared-ip", "k"))
	c.must(setStatus(c, "web", "198.51.100.7"))

	// What prevents the takeover comes first.
	c.comesToSay("takeover metallb", 2, "IPAddressPool metallb-system/gold: spec.serviceAllocation.serviceSelectors: an IPPool has one selector",
		"herald-ccm has no Lease", "Secret herald-system-peers/tor is not there: create it", "next annotations", "later node n2")
	if said, code := c.ask("takeover", "metallb", "--next"); code != 2 || c.get("web").Annotations[herald.AnnotationSharingKey] != "" {
		t.Fatalf("with obstacles, a step is done (%d): %s", code, said)
	}
	if _, err := plane.StartCCM("--secure-port=0"); err != nil {
		t.Fatal(err)
	}
	c.kubectl("create", "secret", "generic", "tor", "-n", "herald-system-peers", "--type=kubernetes.io/basic-auth", "--from-literal=password=s3cret")
	written, err := c.access.Shell(ctx, "kubectl herald import metallb || [ $? = 2 ]")
	c.must(err)
	corrected := filepath.Join(t.TempDir(), "herald.yaml")
	if !strings.Contains(written, "disabled: true") {
		t.Fatalf("no IPPool to correct in\n%s", written)
	}
	c.must(os.WriteFile(corrected, []byte(strings.Replace(written, "disabled: true", "serviceSelector: {matchLabels: {tier: gold}}", 1)), 0o600))
	takeover := "takeover metallb -f " + corrected
	c.comesToSay(takeover, 0, "Next: annotations, by kubectl herald takeover metallb --next.")
	c.says(c.refusal("takeover metallb --back"), "No step was done that could be taken back.")

	next, back := takeover+" --next", takeover+" --back"
	c.must(c.access.Apply(ctx, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: ["*"], resources: ["*"], verbs: [get, list, watch]}]
`))
	c.kubectl("create", "clusterrolebinding", "reader", "--clusterrole=reader", "--user=reader")
	if said, code := c.ask(strings.Fields(next + " --as=reader")...); code != 1 || c.get("web").Annotations[herald.AnnotationSharingKey] != "" {
		t.Errorf("without the rights, a step is done (%d): %s", code, said)
	} else {
		c.says(said, "annotations: you may not patch services in namespace default: call the command with an account that may; nothing was changed")
	}
	c.does(next, "annotations: done", "Next: controller")
	if got := c.get("web").Annotations[herald.AnnotationSharingKey]; got != "k" {
		t.Errorf("the Service has the sharing key %q", got)
	}
	c.does(back, "annotations: taken back", "Next: annotations")
	if got, there := c.get("web").Annotations[herald.AnnotationSharingKey]; there {
		t.Errorf("the Service still has the sharing key %q", got)
	}
	c.does(next, "annotations: done")
	c.does(next, "controller: done", "Next: pools")
	c.does(back, "Deployment metallb-system/controller has replicas: 1", "controller: taken back")
	c.does(next, "controller: done")
	c.does(next, "IPPool first is applied", "pools: done", "Next: segments")
	c.holds("web", "198.51.100.7")
	c.does(back, "IPPool first has spec.disabled: true", "pools: taken back")
	c.holds("web", "198.51.100.7")
	c.does(next, "pools: done")

	// A check that does not pass says why, and how to go back.
	c.says(c.refusal(next+" --timeout=2s"), "segments: not done after", "198.51.100.7 of default/web has no owner: kubectl herald explain service default/web says why",
		"Next: segments", "--back takes back segments")
	c.comesToSay(takeover, 0, "→ next segments", "waits: 198.51.100.7 of default/web has no owner")
	c.reports("n1", func(s *herald.SpeakerStatusStatus) {
		s.Claims, s.L2Addresses = []herald.SpeakerClaim{{Address: "198.51.100.7", Interface: "eth0"}}, 1
	})
	c.comesToSay(takeover, 0, "✓ done segments", "Next: prepare")

	speakers := c.metalLBSpeakers("n1", "n2")
	c.does(next, "prepare: done", "Next: node n1")
	c.does(back, "BGPPeer tor is deleted", "prepare: taken back", "Next: prepare")
	c.does(next, "prepare: done")
	if now := c.metalLBSpeakers("n1", "n2"); !slices.Equal(now, speakers) {
		t.Errorf("MetalLB's speakers were restarted: %v, and before %v", now, speakers)
	}

	c.says(c.refusal(next+" --timeout=2s"), "node n1: not done after", "node n1 has no session with BGPPeer tor")
	established := func(node string) {
		c.reports(node, func(s *herald.SpeakerStatusStatus) {
			s.Sessions, s.Established = []herald.SpeakerSession{{Peer: "tor", State: "Established", Routes: 1}}, "1/1"
		})
	}
	established("n1")
	c.comesToSay(takeover, 0, "✓ done node n1", "Next: node n2")
	if now := c.metalLBSpeakers("n2"); !slices.Equal(now, speakers[1:]) {
		t.Errorf("MetalLB's speaker of n2 was restarted: %v, and before %v", now, speakers)
	}
	c.does(back, "node n1: taken back", "Next: node n1")
	c.metalLBSpeakers("n1", "n2")
	c.does(next, "node n1: done")
	established("n2")
	c.does(next, "node n2: done", "Next: uninstall MetalLB.")
	c.metalLBSpeakers()

	c.says(c.refusal(next), "→ next uninstall", "waits: DaemonSet metallb-system/speaker is there")
	c.kubectl("delete", "namespace", "metallb-system")
	c.kubectl("delete", "crd", "ipaddresspools.metallb.io", "l2advertisements.metallb.io", "bgppeers.metallb.io", "bgpadvertisements.metallb.io")
	c.says(c.refusal("takeover metallb --back"), "MetalLB is not installed, so there is nothing to go back to")
	c.does("takeover metallb --next", "BGPPeer tor selects nodes without the label herald.dev/moved, too", "peers: done", "Next: labels")
	c.does("takeover metallb --next", "labels: done", "Herald has taken over from MetalLB: there is nothing left to do.")
	c.comesToSay("takeover metallb", 0, "there is nothing to take over")

	peer, err := c.herald.BGPPeers.Get(ctx, "tor", metav1.GetOptions{})
	if err != nil || peer.Spec.NodeSelector != nil {
		t.Errorf("the BGPPeer selects %v (%v)", peer.Spec.NodeSelector, err)
	}
	nodes, err := c.kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: herald.LabelMoved})
	if err != nil || len(nodes.Items) > 0 {
		t.Errorf("%d nodes still have the label (%v)", len(nodes.Items), err)
	}
	c.holds("web", "198.51.100.7")
}

// does runs a command that ends well, and checks its output.
func (c *cluster) does(command string, want ...string) {
	c.t.Helper()
	said, code := c.ask(strings.Fields(command)...)
	if code != 0 {
		c.t.Fatalf("kubectl herald %s ends with %d: %s", command, code, said)
	}
	c.says(said, want...)
}

// refusal runs a command that ends with exit code 2, and returns its output.
func (c *cluster) refusal(command string) string {
	c.t.Helper()
	said, code := c.ask(strings.Fields(command)...)
	if code != 2 {
		c.t.Fatalf("kubectl herald %s ends with %d: %s", command, code, said)
	}
	return said
}

// metalLBSpeakers waits until MetalLB's speaker runs on exactly these nodes, and returns the UIDs of the pods in this order.
func (c *cluster) metalLBSpeakers(nodes ...string) (uids []string) {
	c.t.Helper()
	c.eventually("MetalLB's speaker on "+strings.Join(nodes, ", "), func(ctx context.Context) error {
		pods, err := c.kube.CoreV1().Pods("metallb-system").List(ctx, metav1.ListOptions{LabelSelector: "component=speaker"})
		if err != nil {
			return err
		}
		on := map[string]string{}
		for _, p := range pods.Items {
			on[p.Spec.NodeName] = string(p.UID)
		}
		uids = nil
		for _, n := range nodes {
			uids = append(uids, on[n])
		}
		if len(pods.Items) != len(nodes) || slices.Contains(uids, "") {
			return fmt.Errorf("it runs on %v", on)
		}
		return nil
	})
	return uids
}

// kubelets binds the pods of metallb-system to nodes, and marks them as ready, as the scheduler and kubelets would.
func (c *cluster) kubelets() {
	c.t.Helper()
	pods := c.kube.CoreV1().Pods("metallb-system")
	ctx, cancel := context.WithCancel(c.ctx)
	ended := make(chan error, 1)
	run := func(pod *corev1.Pod) error {
		if pod.Spec.NodeName == "" {
			node := "n1"
			if a := pod.Spec.Affinity; a != nil { // The DaemonSet controller names the node.
				node = a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchFields[0].Values[0]
			}
			return pods.Bind(ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: pod.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: node}}, metav1.CreateOptions{})
		}
		if pod.Status.Phase == corev1.PodRunning || pod.DeletionTimestamp != nil {
			return nil
		}
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue})
		_, err := pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
		return err
	}
	changes, err := pods.Watch(ctx, metav1.ListOptions{})
	c.must(err)
	go func() {
		defer changes.Stop()
		for e := range changes.ResultChan() {
			if pod, ok := e.Object.(*corev1.Pod); ok {
				if err := run(pod); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
					ended <- err
					return
				}
			}
		}
		ended <- nil
	}()
	c.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			c.t.Errorf("the kubelets: %v", err)
		}
	})
}
