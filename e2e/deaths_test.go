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
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
)

// withNodes creates ready Nodes, each with the SpeakerStatus of a speaker.
func (c *cluster) withNodes(names ...string) {
	c.t.Helper()
	for _, name := range names {
		n, err := c.kube.CoreV1().Nodes().Create(c.ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		c.must(err)
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"}}
		_, err = c.kube.CoreV1().Nodes().UpdateStatus(c.ctx, n, metav1.UpdateOptions{})
		c.must(err)
		c.reports(name, func(*herald.SpeakerStatusStatus) {})
	}
}

// reports writes the SpeakerStatus of a node, as its speaker would.
func (c *cluster) reports(node string, edit func(*herald.SpeakerStatusStatus)) {
	c.t.Helper()
	o, err := c.herald.SpeakerStatuses.Get(c.ctx, node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		o = &herald.SpeakerStatus{ObjectMeta: metav1.ObjectMeta{Name: node}}
		edit(&o.Status)
		_, err = c.herald.SpeakerStatuses.Create(c.ctx, o, metav1.CreateOptions{})
		c.must(err)
		return
	}
	c.must(err)
	edit(&o.Status)
	_, err = c.herald.SpeakerStatuses.Update(c.ctx, o, metav1.UpdateOptions{})
	c.must(err)
}

// sawDie makes a node report the deaths of exactly these other nodes.
func (c *cluster) sawDie(witness string, dead ...string) {
	c.t.Helper()
	c.reports(witness, func(s *herald.SpeakerStatusStatus) {
		s.Deaths = nil
		for _, node := range dead {
			s.Deaths = append(s.Deaths, herald.SpeakerDeath{Node: node, Interface: "eth0", At: time.Now().UTC().Format(time.RFC3339Nano)})
		}
	})
}

// podOn creates a pod on a node and marks it as running and ready, as its kubelet would.
func (c *cluster) podOn(node, name string, edit ...func(*corev1.Pod)) {
	c.t.Helper()
	pods := c.kube.CoreV1().Pods(c.namespace)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "pod"}},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	for _, e := range edit {
		e(pod)
	}
	pod, err := pods.Create(c.ctx, pod, metav1.CreateOptions{})
	c.must(err)
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: "10.1.1.1", PodIPs: []corev1.PodIP{{IP: "10.1.1.1"}},
		Conditions: []corev1.PodCondition{{Type: corev1.ContainersReady, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	}
	_, err = pods.UpdateStatus(c.ctx, pod, metav1.UpdateOptions{})
	c.must(err)
}

// ready returns the condition Ready of a pod.
func (c *cluster) ready(name string) corev1.PodCondition {
	c.t.Helper()
	pod, err := c.kube.CoreV1().Pods(c.namespace).Get(c.ctx, name, metav1.GetOptions{})
	c.must(err)
	for _, cond := range pod.Status.Conditions {
		if cond.Type == corev1.PodReady {
			return cond
		}
	}
	c.t.Fatalf("pod %s has no condition Ready", name)
	return corev1.PodCondition{}
}

// markedNotReady waits until a pod is marked as not ready.
func (c *cluster) markedNotReady(name string) {
	c.t.Helper()
	c.eventually("pod "+name+" is not ready", func(context.Context) error {
		if cond := c.ready(name); cond.Status != corev1.ConditionFalse || cond.Reason != "NodeNotReady" {
			return fmt.Errorf("its condition Ready is %s, %q", cond.Status, cond.Reason)
		}
		return nil
	})
}

// endpoints returns the pods of a Service that get connections.
func (c *cluster) endpoints(service string) (pods []string) {
	c.t.Helper()
	list, err := c.kube.DiscoveryV1().EndpointSlices(c.namespace).List(c.ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + service})
	c.must(err)
	for _, s := range list.Items {
		for _, e := range s.Endpoints {
			if e.TargetRef != nil && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
				pods = append(pods, e.TargetRef.Name)
			}
		}
	}
	slices.Sort(pods)
	return slices.Compact(pods)
}

func (c *cluster) serving(service string, pods ...string) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("Service %s goes to %v", service, pods), func(context.Context) error {
		if got := c.endpoints(service); !slices.Equal(got, pods) {
			return fmt.Errorf("to %v", got)
		}
		return nil
	})
}

// The policy for writes of herald-ccm to pods depends on its rights, not on the name of the installation.
func TestUnderAnotherNameHeraldCCMMayWriteNoMoreOfPods(t *testing.T) {
	t.Parallel()
	ctx, plane := startControlPlane(t, false)
	c := clusterOf(t, ctx, &plane.Access)
	renamed := t.TempDir()
	here, err := filepath.Abs("../manifests/overlays/dead-nodes")
	c.must(err)
	overlay, err := filepath.Rel(renamed, here)
	c.must(err)
	c.must(os.WriteFile(filepath.Join(renamed, "kustomization.yaml"), []byte("namePrefix: edge-\nresources: ["+overlay+"]\n"), 0o600))
	if out, err := plane.Kubectl(ctx, "apply", "-k", renamed); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	as := func(user string, groups ...string) kubernetes.Interface {
		kubeconfig, err := plane.KubeconfigFor(user, append(groups, "system:authenticated")...)
		c.must(err)
		config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		c.must(err)
		client, err := kubernetes.NewForConfig(config)
		c.must(err)
		return client
	}
	c.withNodes("n1")
	c.podOn("n1", "web")
	write := func(client kubernetes.Interface, patch string) error {
		_, err := client.CoreV1().Pods(c.namespace).Patch(ctx, "web", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
		return err
	}
	n := 0
	elsewhere := func() string {
		n++
		return fmt.Sprintf(`{"status":{"podIP":"10.9.9.%d","podIPs":[{"$patch":"replace"},{"ip":"10.9.9.%[1]d"}]}}`, n)
	}
	ccm := as("system:serviceaccount:"+lab.HeraldNamespace+":edge-herald-ccm", "system:serviceaccounts")
	c.inTime(20*time.Second, "herald-ccm may give no pod another address", func(context.Context) error { // A policy takes effect after a moment.
		if err := write(ccm, elsewhere()); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "edge-dead-nodes.herald.dev") {
			return fmt.Errorf("the answer is %q; want it forbidden by the policy", fmt.Sprint(err))
		}
		return nil
	})
	c.must(write(ccm, `{"status":{"conditions":[{"type":"Ready","status":"False"}]}}`))
	c.must(write(c.kube, elsewhere())) // An administrator may do everything.
}

// TestPodsOnADeadNodeAreMarkedNotReady runs herald-ccm with exactly the rights of the overlay.
func TestPodsOnADeadNodeAreMarkedNotReady(t *testing.T) {
	t.Parallel()
	ctx, plane := startControlPlane(t, true)
	c := clusterOf(t, ctx, &plane.Access)
	out, err := plane.Kubectl(ctx, "apply", "-k", "../manifests/overlays/dead-nodes")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const account = "system:serviceaccount:" + lab.HeraldNamespace + ":herald-ccm"
	kubeconfig, err := plane.KubeconfigFor(account, "system:serviceaccounts", "system:serviceaccounts:"+lab.HeraldNamespace, "system:authenticated")
	c.must(err)
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	c.must(err)
	asCCM, err := kubernetes.NewForConfig(config)
	c.must(err)
	c.withNodes("n1", "n2", "n3", "n4", "n5", "n6")
	c.service("web")
	c.podOn("n1", "alive")
	c.podOn("n5", "stopping", func(pod *corev1.Pod) { pod.Finalizers = []string{"example.com/stopping"} })
	c.must(c.kube.CoreV1().Pods(c.namespace).Delete(ctx, "stopping", metav1.DeleteOptions{}))
	c.podOn("n5", "dead")
	c.podOn("n5", "host", func(pod *corev1.Pod) { pod.Spec.HostNetwork = true })
	c.podOn("n6", "accused")
	c.serving("web", "accused", "alive", "dead", "host")
	c.rolesInForce(kubeconfig)

	ccm, err := plane.StartCCM("--kubeconfig", kubeconfig, "--authentication-skip-lookup", "--secure-port=0", "--mark-pods-on-dead-nodes")
	c.must(err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(tail(ccm.Log()))
		}
	})

	// n6 has one witness and n5 has two. n4 reports many deaths, and n3 reports impossible ones.
	c.sawDie("n4", "n1", "n2", "n3", "n6")
	c.reports("n3", func(s *herald.SpeakerStatusStatus) {
		s.Deaths = []herald.SpeakerDeath{{Node: "n6", Interface: "eth0", At: "9999-12-31T23:59:59Z"}, {Node: "n1", Interface: "\x1b[2J", At: "now"}}
	})
	c.sawDie("n1", "n6")
	c.sawDie("n1", "n5", "n6")
	c.sawDie("n2", "n5")
	c.markedNotReady("dead")
	c.markedNotReady("host")
	c.serving("web", "accused", "alive")
	c.event("Node", "n5", "NodeDeathWitnessed", "n1 and n2 reported that the node died: 2 of its pods were marked not ready")
	if cond := c.ready("stopping"); cond.Status != corev1.ConditionTrue {
		t.Errorf("a pod that is being deleted was marked: %+v", cond)
	}

	// The kubelet is alive after all. herald-ccm does not contradict it, whatever else is reported about n5 and others.
	c.must(c.setReady("dead"))
	c.sawDie("n1", "n5", "n6")
	c.sawDie("n2", "n5", "n6")
	c.markedNotReady("accused")
	c.serving("web", "alive", "dead")
	if cond := c.ready("dead"); cond.Status != corev1.ConditionTrue {
		t.Errorf("a pod was marked twice for one death: %+v", cond)
	}

	// herald-ccm may write nothing else in a pod's status.
	for _, story := range []struct{ name, patch, refusal string }{
		{"marks a pod that is marked", `{"status":{"conditions":[{"type":"Ready","status":"False"}]}}`, ""},
		{"makes a pod ready", `{"status":{"conditions":[{"type":"Ready","status":"True"}]}}`, "never ready"},
		{"gives a pod another address", `{"status":{"podIP":"10.9.9.9","podIPs":[{"$patch":"replace"},{"ip":"10.9.9.9"}]}}`, "and nothing else"},
		{"ends a pod", `{"status":{"phase":"Failed"}}`, "and nothing else"},
		{"says that a pod was evicted", `{"status":{"reason":"Evicted"}}`, "and nothing else"},
		{"says that an init container is ready", `{"status":{"initContainerStatuses":[{"name":"init","ready":true,"image":"i","imageID":"i","restartCount":0}]}}`, "and nothing else"},
		{"says which version of a pod its kubelet has seen", `{"status":{"observedGeneration":1000}}`, "and nothing else"},
		{"says what a pod was given", `{"status":{"resources":{"limits":{"cpu":"7"}}}}`, "and nothing else"},
		{"takes a pod's address away", `{"status":{"podIP":null,"podIPs":null}}`, "and nothing else"},
		{"changes another condition", `{"status":{"conditions":[{"type":"ContainersReady","status":"False"}]}}`, "and nothing else"},
		{"labels a pod", `{"metadata":{"labels":{"app":"other"}}}`, "nothing of a pod's metadata"},
	} {
		_, err := asCCM.CoreV1().Pods(c.namespace).Patch(ctx, "accused", types.StrategicMergePatchType, []byte(story.patch), metav1.PatchOptions{}, "status")
		switch {
		case story.refusal == "" && err != nil:
			t.Errorf("herald-ccm %s: %v", story.name, err)
		case story.refusal != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), story.refusal)):
			t.Errorf("herald-ccm %s: %v; want it forbidden, with %q", story.name, err, story.refusal)
		}
	}
	c.must(ccm.Stop(ctx))
	c.neverRefused(ccm)
}

// setReady marks a pod as ready, as its kubelet would.
func (c *cluster) setReady(name string) error {
	_, err := c.kube.CoreV1().Pods(c.namespace).Patch(c.ctx, name, types.StrategicMergePatchType,
		[]byte(`{"status":{"conditions":[{"type":"Ready","status":"True","reason":null}]}}`), metav1.PatchOptions{}, "status")
	return err
}

// rolesInForce waits until the API server's authorizer knows the roles of herald-ccm, which is the user of the kubeconfig.
// Before that, the API server would refuse requests of herald-ccm.
func (c *cluster) rolesInForce(kubeconfig string) {
	c.t.Helper()
	c.eventually("the roles of herald-ccm are in force", func(ctx context.Context) error {
		can := func(args ...string) error {
			_, err := c.access.Kubectl(ctx, append([]string{"--kubeconfig", kubeconfig, "auth", "can-i"}, args...)...)
			return err
		}
		return errors.Join(can("list", "ipallocations.herald.dev"), can("list", "leases.coordination.k8s.io", "--namespace", lab.HeraldNamespace))
	})
}

// Without the flag, herald-ccm does not act upon deaths, and the rights of the base are sufficient.
func TestDeathsAreNotActedUponUnlessAsked(t *testing.T) {
	t.Parallel()
	ctx, plane := startControlPlane(t, false)
	c := clusterOf(t, ctx, &plane.Access)
	c.withNodes("n1", "n2", "n3")
	c.podOn("n3", "web")
	ccm := c.restrictedCCM(plane)
	c.sawDie("n1", "n3")
	c.sawDie("n2", "n3")
	// herald-ccm sees a conflict that is reported later, so it has seen the deaths, too.
	c.pool("public", delay(0), "198.51.100.1-198.51.100.2")
	c.service("web", annotated(herald.AnnotationIPs, "198.51.100.1"))
	c.holds("web", "198.51.100.1")
	c.stranger("n1", "198.51.100.1")
	c.disputed("198.51.100.1", metav1.ConditionTrue)
	c.settle() // Within this second herald-ccm would have acted upon a death.
	if cond := c.ready("web"); cond.Status != corev1.ConditionTrue {
		t.Errorf("a pod was marked: %+v", cond)
	}
	c.must(ccm.Stop(ctx))
	c.neverRefused(ccm)
}

// restrictedCCM installs manifests/base, and starts herald-ccm with exactly the rights that this gives it.
func (c *cluster) restrictedCCM(plane *lab.ControlPlane) *lab.Process {
	c.t.Helper()
	if out, err := plane.Kubectl(c.ctx, "apply", "-k", "../manifests/base"); err != nil {
		c.t.Fatalf("%v\n%s", err, out)
	}
	kubeconfig, err := plane.KubeconfigFor("system:serviceaccount:"+lab.HeraldNamespace+":herald-ccm", "system:serviceaccounts", "system:authenticated")
	c.must(err)
	c.rolesInForce(kubeconfig)
	ccm, err := plane.StartCCM("--kubeconfig", kubeconfig, "--authentication-skip-lookup", "--secure-port=0")
	c.must(err)
	c.t.Cleanup(func() {
		if c.t.Failed() {
			c.t.Log(tail(ccm.Log()))
		}
	})
	return ccm
}

// neverRefused fails the story if herald-ccm asked the API server for something that it may not do.
func (c *cluster) neverRefused(ccm *lab.Process) {
	c.t.Helper()
	if strings.Contains(strings.ToLower(ccm.Log()), "forbidden") {
		c.t.Errorf("herald-ccm was refused something:\n%s", ccm.Log())
	}
}
