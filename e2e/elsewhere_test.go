package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
)

// elsewhere is the namespace of the example in docs/install.md.
const elsewhere = "load-balancer"

// TestAnotherNamespace is one story: Herald is installed into a namespace other than that of the manifests, users of a
// namespace ask about their Service, spec.externalIPs is refused, and Herald is removed in the wrong order.
func TestAnotherNamespace(t *testing.T) {
	t.Parallel()
	_, plane := startControlPlane(t, true)
	// The story may wait for kindsPatience three times.
	ctx, cancel := context.WithTimeout(t.Context(), patience+3*kindsPatience)
	t.Cleanup(cancel)
	c := clusterOf(t, ctx, &plane.Access)

	// Without the namespaces of the manifests, the API server refuses objects that still refer to them.
	c.kubectl("delete", "namespace", lab.HeraldNamespace, lab.PeersNamespace, "--timeout=2m")
	c.documented(blockOf(t, "docs/install.md", "sed -e 's/"))
	for _, name := range []string{"node1", "node2"} {
		_, err := c.kube.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		c.must(err)
	}
	ccm := c.startCCM(plane)
	c.pool("segment", delay(0), "198.51.100.1-198.51.100.9")
	c.advertise()
	c.kubectl("create", "namespace", "red")
	c = c.in("red")
	c.service("web")
	c.holds("web", "198.51.100.1")

	t.Run("what its programs may not", func(t *testing.T) { c.within(t).fenced() })
	t.Run("a namespace's users", func(t *testing.T) { c.within(t).tenants() })
	t.Run("external IPs", func(t *testing.T) { c.within(t).externalIPs() })
	if strings.Contains(strings.ToLower(ccm.Log()), "forbidden") {
		t.Errorf("herald-ccm was refused something:\n%s", ccm.Log())
	}
	t.Run("the kinds are deleted first", func(t *testing.T) { c.within(t).kindsFirst() })
	t.Run("herald-ccm is deleted first", func(t *testing.T) { c.within(t).programsFirst(ccm) })
}

// documented runs a code block of the documentation in the root of the repository.
func (c *cluster) documented(commands string) {
	c.t.Helper()
	if out, err := c.access.Shell(c.ctx, "cd ..\n"+commands); err != nil {
		c.t.Fatalf("%v\n%s\n%s", err, out, commands)
	}
}

// startCCM runs the program of the Deployment herald-ccm, with the arguments of its pods and the token of its
// ServiceAccount.
func (c *cluster) startCCM(plane *lab.ControlPlane) *lab.Process {
	c.t.Helper()
	deployment, err := c.kube.AppsV1().Deployments(elsewhere).Get(c.ctx, "herald-ccm", metav1.GetOptions{})
	c.must(err)
	pod := deployment.Spec.Template.Spec
	token := c.tokenIn(elsewhere, pod.ServiceAccountName, nil)
	kubeconfig := filepath.Join(plane.Dir(), "kubeconfig-herald-ccm")
	c.must(os.WriteFile(kubeconfig, []byte(c.kubeconfig(token)), 0o600))
	// The API server's authorizer must know the new roles. Before that, it would refuse requests of herald-ccm.
	c.eventually("the roles of herald-ccm are in force", func(ctx context.Context) error {
		ccm := c.as(token)
		_, records := ccm.herald.Allocations.List(ctx, metav1.ListOptions{})
		_, lease := ccm.kube.CoordinationV1().Leases(elsewhere).Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "herald-ccm"}}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return errors.Join(records, lease)
	})
	p := &lab.Process{
		Name: "herald-ccm", Path: plane.Program("herald-ccm"), LogPath: filepath.Join(plane.Dir(), "logs", "herald-ccm.log"),
		Args: append(pod.Containers[0].Args, "--kubeconfig", kubeconfig, "--authentication-kubeconfig", kubeconfig, "--authorization-kubeconfig", kubeconfig),
		Env:  []string{"POD_NAMESPACE=" + elsewhere},
	}
	c.must(p.Start())
	c.t.Cleanup(func() {
		_ = p.Kill()
		if c.t.Failed() {
			c.t.Log(tail(p.Log()))
		}
	})
	return p
}

// fenced checks what a speaker and herald-ccm may do and may not do, with the tokens of a speaker's pod and of herald-ccm.
func (c *cluster) fenced() {
	daemons, err := c.kube.AppsV1().DaemonSets(elsewhere).Get(c.ctx, "herald-speaker", metav1.GetOptions{})
	c.must(err)
	// The pod has no labels. With them, the DaemonSet would adopt it.
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "speaker", Namespace: elsewhere}, Spec: daemons.Spec.Template.Spec}
	pod.Spec.NodeName = "node1"
	pod, err = c.kube.CoreV1().Pods(elsewhere).Create(c.ctx, pod, metav1.CreateOptions{})
	c.must(err)
	speaker := c.as(c.tokenIn(elsewhere, "herald-speaker", pod))
	ccm := c.as(c.tokenIn(elsewhere, "herald-ccm", nil))

	status := func(c *cluster, name string) error {
		_, err := c.herald.SpeakerStatuses.Create(c.ctx, &herald.SpeakerStatus{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		return err
	}
	lease := func(c *cluster, name string) error {
		seconds := int32(30)
		o := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: coordinationv1.LeaseSpec{LeaseDurationSeconds: &seconds}}
		_, err := c.kube.CoordinationV1().Leases(elsewhere).Create(c.ctx, o, metav1.CreateOptions{})
		return err
	}
	secrets := func(namespace string) error {
		_, err := speaker.kube.CoreV1().Secrets(namespace).List(c.ctx, metav1.ListOptions{})
		return err
	}
	patch := func(c *cluster, patch string) error {
		_, err := c.herald.Pools.Patch(c.ctx, "segment", types.MergePatchType, []byte(patch), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	record := func(uid types.UID) error {
		_, err := ccm.herald.Allocations.Create(c.ctx, &herald.IPAllocation{ObjectMeta: metav1.ObjectMeta{Name: "203.0.113.9"}, Spec: herald.IPAllocationSpec{
			Address: "203.0.113.9", Owners: []herald.AllocationOwner{{Namespace: "red", Name: "later", UID: uid}},
		}}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	// No kubelet would end the pod when its namespace is deleted.
	defer c.kubectl("delete", "pod", pod.Name, "-n", elsewhere, "--force", "--grace-period=0")
	for _, story := range []struct {
		name    string
		err     error
		refusal string // Empty if the request must succeed.
	}{
		{"a speaker writes its own SpeakerStatus", status(speaker, "node1"), ""},
		{"a speaker writes another's SpeakerStatus", status(speaker, "node2"), "the speaker of node node1 writes node1 only: node2 is not its own"},
		{"a speaker writes its own Lease", lease(speaker, "speaker-node1"), ""},
		{"a speaker writes another's Lease", lease(speaker, "speaker-node2"), "speaker-node2 is not its own"},
		{"a speaker reads the passwords of peers", secrets(elsewhere + "-peers"), ""},
		{"a speaker reads Secrets of Herald's own namespace", secrets(elsewhere), `cannot list resource "secrets"`},
		{"herald-ccm writes a SpeakerStatus", status(ccm, "node1"), `cannot create resource "speakerstatuses"`},
		{"herald-ccm gives a pool the finalizer", patch(ccm, `{"metadata":{"finalizers":["herald.dev/in-use"]}}`), ""},
		{"herald-ccm changes a pool", patch(ccm, `{"spec":{"disabled":true}}`), "does not change the spec of an IPPool"},
		{"herald-ccm writes a UID", record("u"), ""},
	} {
		switch {
		case story.refusal == "" && story.err != nil:
			c.t.Errorf("%s: %v", story.name, story.err)
		case story.refusal != "" && (!apierrors.IsForbidden(story.err) || !strings.Contains(story.err.Error(), story.refusal)):
			c.t.Errorf("%s: %v; want it forbidden, with %q", story.name, story.err, story.refusal)
		}
	}
}

// tenants checks kubectl herald explain for users of a namespace, with the roles that docs/security.md names.
func (c *cluster) tenants() {
	explained := func(service string, who []string, want ...string) (said string) {
		c.t.Helper()
		c.eventually(fmt.Sprintf("explain %s to %q", service, who), func(ctx context.Context) (err error) {
			said, err = c.access.Kubectl(ctx, append([]string{"herald", "explain", "service", service, "--herald-namespace=" + elsewhere}, who...)...)
			if err != nil {
				said += err.Error() // A refusal is an answer.
			}
			for _, w := range want {
				if !strings.Contains(strings.Join(strings.Fields(said), " "), w) {
					return fmt.Errorf("no %q in\n%s", w, said)
				}
			}
			return nil
		})
		return said
	}
	c.kubectl("create", "rolebinding", "admins", "-n", "red", "--clusterrole=admin", "--group=admins")
	c.kubectl("create", "rolebinding", "viewers", "-n", "red", "--clusterrole=view", "--group=viewers")
	for _, group := range []string{"admins", "viewers"} {
		who := []string{"--as=anna", "--as-group=" + group}
		explained("default/kubernetes", who, `User "anna" cannot get resource "services"`)
		explained("red/web", who, "red/web has no class: herald-ccm serves it",
			"you may not list bgpadvertisements.herald.dev, bgppeers.herald.dev, ipallocations.herald.dev, ippools.herald.dev,", "nodes, services")

		// The command of docs/security.md.
		c.kubectl("create", "clusterrolebinding", "explain-"+group, "--clusterrole=herald-explain", "--group="+group)
		said := explained("red/web", who, "✓ segment IPv4: has ", "✓ 198.51.100.1 from pool segment", "0 ready", "you may not list services.")
		if strings.Contains(said, "nodes,") {
			c.t.Errorf("%s with herald-explain may not list nodes:\n%s", group, said)
		}
	}
	// A user with the role view in the whole cluster can read Herald's resources, which are aggregated to it, but not Nodes.
	c.kubectl("create", "clusterrolebinding", "view-all", "--clusterrole=view", "--group=auditors")
	auditor := []string{"--as=otto", "--as-group=auditors"}
	explained("red/web", auditor, "✓ 198.51.100.1 from pool segment", "you may not list nodes.")
	for what, want := range map[string]string{"get ippools.herald.dev": "yes", "delete ippools.herald.dev": "no", "list nodes": "no"} {
		out, err := c.access.Kubectl(c.ctx, append(append([]string{"auth", "can-i"}, strings.Fields(what)...), auditor...)...)
		if strings.TrimSpace(out) != want {
			c.t.Errorf("may who has view in the whole cluster %s: %q, %v; want %s", what, out, err, want)
		}
	}
}

// externalIPs adds the component to the installation, as a user's kustomization would.
func (c *cluster) externalIPs() {
	c.service("old", clusterIP, func(svc *corev1.Service) { svc.Spec.ExternalIPs = []string{"203.0.113.1", "203.0.113.2"} })
	c.kubectl("create", "namespace", "trusted")
	c.kubectl("label", "namespace", "trusted", "herald.dev/allow-external-ips=")

	component, err := filepath.Abs("../manifests/components/external-ips")
	c.must(err)
	dir := c.t.TempDir()
	component, err = filepath.Rel(dir, component)
	c.must(err)
	c.must(os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte("components: ["+component+"]\n"), 0o600))
	c.kubectl("apply", "-k", dir)

	create := func(namespace string, addresses ...string) error {
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "external", Namespace: namespace}, Spec: corev1.ServiceSpec{
			ExternalIPs: addresses, Ports: []corev1.ServicePort{{Port: 80}},
		}}
		_, err := c.kube.CoreV1().Services(namespace).Create(c.ctx, svc, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	edit := func(addresses ...string) error {
		svc := c.get("old")
		svc.Spec.ExternalIPs, svc.Labels = addresses, map[string]string{"edited": ""}
		_, err := c.services().Update(c.ctx, svc, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	const refusal = "spec.externalIPs is refused here"
	// The API server applies new policies within a second or so.
	c.eventually("the policy is in force", func(context.Context) error {
		switch err := create("red", "203.0.113.3"); {
		case err == nil:
			return errors.New("the Service is not refused")
		case !strings.Contains(err.Error(), refusal):
			return err
		default:
			return nil
		}
	})
	for _, story := range []struct {
		name    string
		err     error
		refused bool
	}{
		{"a Service without external IPs", create("red"), false},
		{"a Service of another namespace", create("default", "203.0.113.3"), true},
		{"a Service of a namespace with the label", create("trusted", "203.0.113.3"), false},
		{"another label of a Service that has external IPs", edit("203.0.113.1", "203.0.113.2"), false},
		{"one external IP less", edit("203.0.113.1"), false},
		{"one external IP more", edit("203.0.113.1", "203.0.113.2", "203.0.113.3"), true},
		{"another external IP", edit("203.0.113.1", "203.0.113.3"), true},
	} {
		if refused := apierrors.IsForbidden(story.err) && strings.Contains(story.err.Error(), refusal); refused != story.refused || !refused && story.err != nil {
			c.t.Errorf("%s: %v; refused is to be %t", story.name, story.err, story.refused)
		}
	}
	c.kubectl("delete", "-k", dir)
	c.remove("old")
}

// kindsPatience bounds the deletion of CustomResourceDefinitions. The API server deletes their objects first. If one of its
// caches still has an object, it checks again for a minute, and then starts over. See also listed.
const kindsPatience = 3 * time.Minute

// kindsFirst deletes the CustomResourceDefinitions while herald-ccm runs. herald-ccm removes the finalizers when the
// Service is deleted, and serves again when the kinds exist again.
func (c *cluster) kindsFirst() {
	c.kubectl("delete", "-k", "../manifests/crds", "--wait=false")
	c.eventually("the record is gone", func(ctx context.Context) error {
		return missing(func() error { _, err := c.herald.Allocations.Get(ctx, "198.51.100.1", metav1.GetOptions{}); return err }())
	})
	c.remove("web")
	c.gone("web")
	c.inTime(kindsPatience, "the kinds are gone", func(ctx context.Context) error {
		left, err := c.access.Kubectl(ctx, "get", "-k", "../manifests/crds", "--ignore-not-found", "-o", "name")
		if err == nil && left != "" {
			err = errors.New(left)
		}
		return err
	})
	c.documented(blockOf(c.t, "docs/install.md", "sed -e 's/"))
	c.eventually("a pool is created", func(ctx context.Context) error {
		_, err := c.herald.Pools.Create(ctx, &herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "again"}, Spec: herald.IPPoolSpec{Addresses: []herald.AddressRange{"198.51.100.10"}}}, metav1.CreateOptions{})
		return err
	})
	c.service("web")
	// While the kinds are missing, herald-ccm retries at growing intervals, up to a minute.
	c.inTime(kindsPatience, "herald-ccm finds the kinds again", func(context.Context) error {
		if has := addresses(c.get("web")); len(has) == 0 {
			return errors.New("the Service has no address")
		}
		return nil
	})
	c.holds("web", "198.51.100.10")
	c.listed()
}

// listed waits until the API server has listed the objects of each kind. Until then it may not be ready to list them when the
// CustomResourceDefinition is deleted. It then fails with "storage is (re)initializing", and may try again only after five minutes: at
// once it would try with the CustomResourceDefinition as it was before it noted the failure, and gives up because of the conflict
// (apiextensions-apiserver v0.37, crd_finalizer.go).
func (c *cluster) listed() {
	c.t.Helper()
	c.eventually("all kinds are listed", func(ctx context.Context) error {
		_, err := c.access.Kubectl(ctx, "get", "ippools.herald.dev,ipallocations.herald.dev,l2advertisements.herald.dev,bgpadvertisements.herald.dev,bgppeers.herald.dev,speakerstatuses.herald.dev")
		return err
	})
}

// programsFirst deletes all of Herald while a Service and a pool still have finalizers. No herald-ccm is left to remove
// them.
func (c *cluster) programsFirst(ccm *lab.Process) {
	c.must(ccm.Stop(c.ctx))
	manifests := filepath.Join(c.t.TempDir(), "herald.yaml")
	content, err := os.ReadFile(complete)
	c.must(err)
	c.must(os.WriteFile(manifests, []byte(strings.ReplaceAll(string(content), lab.HeraldNamespace, elsewhere)), 0o600))
	c.documented(strings.Replace(blockOf(c.t, "docs/install.md", "kubectl delete -f -"), "kubectl delete", "kubectl delete --wait=false", 1))
	c.kubectl("delete", "service", "web", "-n", "red", "--wait=false")
	c.eventually("the pool waits", func(ctx context.Context) error {
		pool, err := c.herald.Pools.Get(ctx, "again", metav1.GetOptions{})
		if err == nil && pool.DeletionTimestamp == nil {
			err = errors.New("it is not being deleted")
		}
		return err
	})
	if c.get("web").DeletionTimestamp == nil {
		c.t.Fatal("the Service does not wait for its finalizer")
	}
	c.documented(strings.NewReplacer("service NAME", "service web", "-n NAMESPACE", "-n red").Replace(blockOf(c.t, "docs/install.md", `"finalizers":null`)))
	c.gone("web")
	c.inTime(kindsPatience, "nothing is left", func(ctx context.Context) error {
		left, err := c.access.Kubectl(ctx, "get", "-f", manifests, "--ignore-not-found", "-o", "name")
		if err == nil && left != "" {
			err = errors.New(left)
		}
		return err
	})
}
