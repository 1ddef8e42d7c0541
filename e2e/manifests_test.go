package e2e

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/router"
)

const complete = "../manifests/herald.yaml"

// TestManifests is one story: Herald is installed, serves, is refused requests beyond its task, is uninstalled, and is
// installed again.
func TestManifests(t *testing.T) {
	const password = "open-sesame"
	ctx, l := startLab(t, lab.Options{Nodes: 2, Routers: []router.Kind{lab.BIRD}, Password: password})
	i := installation{&field{cluster: clusterOf(t, ctx, &l.Access), site: &l.Site, referees: &atomic.Int32{}}, l}

	i.kubectl("apply", "-f", complete) // Over the objects that the lab has installed.
	i.spoil("ippools", "apiVersion: herald.dev/v1alpha1\nkind: IPPool\nmetadata: {name: spoiled}\nspec: {addresses: [203.0.113.0/24], priority: high}")
	i.spoil("speakerstatuses", "apiVersion: herald.dev/v1alpha1\nkind: SpeakerStatus\nmetadata: {name: k8s-node1}\nstatus: {l2Addresses: many}")
	i.kubectl("apply", "--dry-run=server", "-f", "../manifests/samples")
	router, before := l.Routers[0], i.refusals()
	i.secret(router.Name, password)
	i.announce()
	i.must(i.patchPeer(router.Name, `{"spec":{"passwordSecret":{"name":"`+router.Name+`"}}}`))
	i.pool("segment", delay(0), "198.18.0.200-198.18.0.250")
	ccms, speakers := i.start("herald-ccm"), i.start("herald-speaker")
	i.pod("web", "k8s-node1")
	i.service("web", to8080)
	i.holds("web", "198.18.0.200")
	i.reached(l.Segment, "198.18.0.200:9000")
	i.reached(l.Outside, "198.18.0.200:9000")
	i.routed(router, "198.18.0.200", names(i.site)...)
	i.event("Service", "web", "EnsuredLoadBalancer", "")
	i.event("BGPPeer", router.Name, "SessionUp", "node k8s-node2")
	i.metricsAreForThoseWhoMay("segment", ccms...)

	// The other herald-ccm becomes the leader, if it is not already, and releases an address.
	i.must(ccms[0].Stop(ctx))
	i.service("next", to8080)
	i.holds("next", "198.18.0.201")
	i.remove("next")
	i.unrecorded("198.18.0.201")
	if diff := cmp.Diff(before, i.refusals()); diff != "" {
		t.Errorf("refused to Herald (-before +after):\n%s", diff)
	}

	t.Run("what its programs may not", func(t *testing.T) {
		i.within(t).refused()
		if cmp.Equal(before, i.refusals()) {
			t.Error("the API server does not count refusals where this test looks for them")
		}
	})

	// The overlay for L2 has no access to BGP objects and Secrets.
	for _, s := range speakers {
		i.must(s.Stop(ctx))
	}
	i.routed(router, "198.18.0.200")
	i.kubectl("apply", "-k", "../manifests/overlays/l2")
	flat := i.start("herald-speaker", func(pod *corev1.Pod) bool { return slices.Contains(pod.Spec.Containers[0].Args, "--l2-only") })
	i.answeredBy("198.18.0.200", names(i.site)...)
	i.reached(l.Segment, "198.18.0.200:9000")
	_, err := i.as(i.token("herald-speaker", nil)).kube.CoreV1().Secrets(lab.HeraldNamespace).List(ctx, metav1.ListOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("a speaker of the segment alone reads Secrets: %v", err)
	}

	// The overlay for BGP has no capabilities and does not run as root.
	for _, s := range flat {
		i.must(s.Stop(ctx))
	}
	i.kubectl("apply", "-k", "../manifests/overlays/bgp")
	bare := i.start("herald-speaker", func(pod *corev1.Pod) bool { return *pod.Spec.SecurityContext.RunAsUser != 0 })
	i.routed(router, "198.18.0.200", names(i.site)...)
	i.reached(l.Outside, "198.18.0.200:9000")

	// The policy does not block the garbage collector: when a Node is deleted, the objects of its speaker are deleted.
	i.must(bare[1].Stop(ctx))
	i.kubectl("delete", "node", "k8s-node2")
	i.eventually("what the node's speaker wrote is gone", func(ctx context.Context) error {
		_, status := i.herald.SpeakerStatuses.Get(ctx, "k8s-node2", metav1.GetOptions{})
		_, lease := i.kube.CoordinationV1().Leases(lab.HeraldNamespace).Get(ctx, "speaker-k8s-node2", metav1.GetOptions{})
		return errors.Join(missing(status), missing(lease))
	})

	// Delete the objects with Herald's finalizers first, then Herald, in the order of docs/install.md. A reserved address
	// keeps its pool.
	i.must(i.access.Apply(ctx, "apiVersion: herald.dev/v1alpha1\nkind: IPAllocation\nmetadata: {name: 198.18.0.240}\nspec: {address: 198.18.0.240, pool: segment}"))
	i.kubectl("delete", "service", "web")
	i.kubectl("delete", "ipallocations.herald.dev", "--all", "--timeout=30s")
	i.kubectl("delete", "ippools.herald.dev", "--all", "--timeout=30s")
	for _, programs := range [][]*lab.Process{ccms, speakers, flat, bare} {
		for _, p := range programs {
			i.must(p.Stop(ctx))
			if strings.Contains(strings.ToLower(p.Log()), "forbidden") {
				t.Errorf("%s was refused something:\n%s", p.Name, p.Log())
			}
		}
	}
	i.kubectl("apply", "-k", "../manifests/overlays/dead-nodes") // It has rights and a policy that are not in herald.yaml.
	i.kubectl("delete", "-f", complete, "--timeout="+kindsPatience.String())
	i.kubectl("get", "clusterrole,clusterrolebinding", "herald-ccm-dead-nodes")
	said, err := i.access.Shell(ctx, "exec 2>&1\n"+blockOf(t, "docs/install.md", "kubectl delete clusterroles,"))
	i.must(err)
	if !strings.HasSuffix(said, "No resources found\n") {
		t.Errorf("the last command shows that something is left behind:\n%s", said)
	}
	if left := i.kubectl("get", "-f", complete, "--ignore-not-found", "-o", "name"); left != "" {
		t.Errorf("left behind:\n%s", left)
	}

	// The API server has no objects of Herald now. Both ways of kubectl apply work, and nothing differs afterwards: otherwise
	// kubectl diff would fail.
	// The change from one way to the other needs --force-conflicts, because another field manager owns the defaults.
	for _, how := range [][]string{{"--server-side=false"}, {"--server-side", "--force-conflicts"}} {
		i.kubectl(append([]string{"apply", "-f", complete}, how...)...)
		i.kubectl(append([]string{"diff", "-f", complete}, how...)...)
	}
}

// spoil stores an object that does not fit its Go type, as if it had been stored under another schema.
func (i installation) spoil(plural, object string) {
	i.t.Helper()
	const path = "/spec/versions/0/schema/openAPIV3Schema"
	crd := plural + ".herald.dev"
	replace := func(schema string) {
		i.kubectl("patch", "crd", crd, "--type=json", "-p", `[{"op":"replace","path":"`+path+`","value":`+schema+`}]`)
	}
	schema := i.kubectl("get", "crd", crd, "-o", "jsonpath={.spec.versions[0].schema.openAPIV3Schema}")
	replace(`{"type":"object","x-kubernetes-preserve-unknown-fields":true}`)
	i.eventually("a spoiled object in "+plural, func(ctx context.Context) error { return i.access.Apply(ctx, object) })
	replace(schema)
}

// refused checks that the tokens of Herald's pods do not permit forbidden requests.
func (i installation) refused() {
	const own, other = "k8s-node1", "k8s-node2"
	ctx, ns := i.ctx, lab.HeraldNamespace
	speaker := i.as(i.token("herald-speaker", &i.pods("herald-speaker", nil)[0]))
	unbound := i.as(i.token("herald-speaker", nil))
	ccm := i.as(i.token("herald-ccm", &i.pods("herald-ccm", nil)[0]))

	status := func(c *cluster, name string) func() error {
		return func() error {
			o, err := i.herald.SpeakerStatuses.Get(ctx, name, metav1.GetOptions{})
			i.must(err)
			_, err = c.herald.SpeakerStatuses.Update(ctx, o, metav1.UpdateOptions{})
			return err
		}
	}
	lease := func(c *cluster, name string) func() error {
		return func() error {
			o, err := i.kube.CoordinationV1().Leases(ns).Get(ctx, name, metav1.GetOptions{})
			i.must(err)
			_, err = c.kube.CoordinationV1().Leases(ns).Update(ctx, o, metav1.UpdateOptions{})
			return err
		}
	}
	// There are speakers of other installations, and a user who may write records.
	i.kubectl("create", "namespace", "elsewhere")
	speakerIn := func(ns string) *cluster {
		i.kubectl("create", "serviceaccount", "herald-speaker", "-n", ns)
		i.kubectl("create", "clusterrolebinding", "speaker-in-"+ns, "--clusterrole=herald-speaker", "--serviceaccount="+ns+":herald-speaker")
		request, err := i.kube.CoreV1().ServiceAccounts(ns).CreateToken(ctx, "herald-speaker", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		i.must(err)
		return i.as(request.Status.Token)
	}
	elsewhere, inKubeSystem := speakerIn("elsewhere"), speakerIn(metav1.NamespaceSystem)
	// A controller with broad rights writes Leases of its own.
	i.kubectl("create", "serviceaccount", "operator", "-n", "elsewhere")
	i.must(i.access.Apply(ctx, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: operator}
rules: [{apiGroups: ["*"], resources: ["*"], verbs: [get, list, watch, create, update, patch, delete]}]
`))
	i.kubectl("create", "clusterrolebinding", "operator", "--clusterrole=operator", "--serviceaccount=elsewhere:operator")
	request, err := i.kube.CoreV1().ServiceAccounts("elsewhere").CreateToken(ctx, "operator", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	i.must(err)
	operator := i.as(request.Status.Token)
	i.kubectl("create", "serviceaccount", "tenant", "-n", ns)
	i.kubectl("create", "clusterrole", "tenant", "--verb=create,update", "--resource=ipallocations.herald.dev")
	i.kubectl("create", "clusterrolebinding", "tenant", "--clusterrole=tenant", "--serviceaccount="+ns+":tenant")
	tenant := i.as(i.token("tenant", nil))
	record := func(c *cluster, edit func(*herald.IPAllocation)) func() error {
		return func() error {
			o := &herald.IPAllocation{ObjectMeta: metav1.ObjectMeta{Name: "203.0.113.9"}, Spec: herald.IPAllocationSpec{
				Address: "203.0.113.9", Owners: []herald.AllocationOwner{{Namespace: "default", Name: "later"}},
			}}
			edit(o)
			_, err := c.herald.Allocations.Create(ctx, o, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			return err
		}
	}
	patchPool := func(patch string) func() error {
		return func() error {
			_, err := ccm.herald.Pools.Patch(ctx, "segment", types.MergePatchType, []byte(patch), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
			return err
		}
	}
	patchService := func(name, patch string) func() error {
		return func() error {
			_, err := ccm.kube.CoreV1().Services("default").Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}, "status")
			return err
		}
	}
	secrets := func(c *cluster, ns string) func() error {
		return func() error {
			_, err := c.kube.CoreV1().Secrets(ns).List(ctx, metav1.ListOptions{})
			return err
		}
	}
	for _, story := range []struct {
		name    string
		attempt func() error
		refusal string // Empty if the request must succeed: this shows that refusals depend on the remaining details.
	}{
		{"a speaker writes its own SpeakerStatus", status(speaker, own), ""},
		{"a speaker writes its own Lease", lease(speaker, "speaker-"+own), ""},
		{"an administrator writes a SpeakerStatus", status(i.cluster, other), ""},
		{"an administrator writes a speaker's Lease", lease(i.cluster, "speaker-"+other), ""},
		{"a speaker writes another's SpeakerStatus", status(speaker, other), "the speaker of node k8s-node1 writes k8s-node1 only: k8s-node2 is not its own"},
		{"a speaker writes another's Lease", lease(speaker, "speaker-"+other), "the speaker of node k8s-node1 writes speaker-k8s-node1 only: speaker-k8s-node2 is not its own"},
		{"a speaker writes the leader's Lease", lease(speaker, "herald-ccm"), "herald-ccm is not its own"},
		{"a speaker makes a SpeakerStatus for a node to come", func() error {
			_, err := speaker.herald.SpeakerStatuses.Create(ctx, &herald.SpeakerStatus{ObjectMeta: metav1.ObjectMeta{Name: "k8s-node3"}}, metav1.CreateOptions{})
			return err
		}, "k8s-node3 is not its own"},
		{"a speaker makes a Lease for a node to come", func() error {
			_, err := speaker.kube.CoordinationV1().Leases(ns).Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "speaker-k8s-node3"}}, metav1.CreateOptions{})
			return err
		}, "speaker-k8s-node3 is not its own"},
		{"a token that was made for no pod writes a SpeakerStatus", status(unbound, own), "the token names no node"},
		{"a speaker deletes a SpeakerStatus", func() error {
			return speaker.herald.SpeakerStatuses.Delete(ctx, other, metav1.DeleteOptions{})
		}, `cannot delete resource "speakerstatuses"`},
		{"a speaker reads Secrets elsewhere", secrets(speaker, "default"), `cannot list resource "secrets" in API group "" in the namespace "default"`},
		{"a speaker reads all Secrets", secrets(speaker, metav1.NamespaceAll), `cannot list resource "secrets"`},
		{"a speaker reads the passwords of peers", secrets(speaker, lab.PeersNamespace), ""},
		{"a speaker reads Secrets of Herald's own namespace", secrets(speaker, ns), `cannot list resource "secrets" in API group "" in the namespace "herald-system"`},
		{"a speaker asks for its Lease for a year", func() error {
			o, err := i.kube.CoordinationV1().Leases(ns).Get(ctx, "speaker-"+own, metav1.GetOptions{})
			i.must(err)
			year := int32(365 * 24 * 3600)
			o.Spec.LeaseDurationSeconds = &year
			_, err = speaker.kube.CoordinationV1().Leases(ns).Update(ctx, o, metav1.UpdateOptions{})
			return err
		}, "must not exceed 300"},
		{"a controller with broad rights writes its own Lease", func() error {
			_, err := operator.kube.CoordinationV1().Leases("elsewhere").Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "operator"}}, metav1.CreateOptions{})
			return err
		}, ""},
		{"a controller with broad rights writes a SpeakerStatus", status(operator, own), "the token names no node"},
		{"a speaker asks for its Lease without an end", func() error {
			o, err := i.kube.CoordinationV1().Leases(ns).Get(ctx, "speaker-"+own, metav1.GetOptions{})
			i.must(err)
			o.Spec.LeaseDurationSeconds = nil
			_, err = speaker.kube.CoordinationV1().Leases(ns).Update(ctx, o, metav1.UpdateOptions{})
			return err
		}, "must not exceed 300"},
		{"a speaker of another namespace writes a SpeakerStatus", status(elsewhere, own), "the token names no node"},
		{"a speaker in kube-system writes a SpeakerStatus", status(inKubeSystem, own), "the token names no node"},

		{"herald-ccm gives a pool the finalizer", patchPool(`{"metadata":{"finalizers":["herald.dev/in-use"]}}`), ""},
		{"herald-ccm changes a pool", patchPool(`{"spec":{"disabled":true}}`), "does not change the spec of an IPPool"},
		{"herald-ccm labels a pool", patchPool(`{"metadata":{"labels":{"tier":"gold"}}}`), "changes nothing of the metadata but the finalizer herald.dev/in-use"},
		{"herald-ccm writes an address", patchService("web", `{"status":{"loadBalancer":{"ingress":[{"ip":"198.18.0.200"}]}}}`), ""},
		{"herald-ccm takes the finalizer and the address away", patchService("web", `{"metadata":{"finalizers":null},"status":{"loadBalancer":null}}`), ""},
		{"herald-ccm writes a host name", patchService("web", `{"status":{"loadBalancer":{"ingress":[{"hostname":"evil.example"}]}}}`), "writes addresses, and no host names"},
		{"herald-ccm takes the finalizer off a Service that another controller gave a host name", func() error {
			_, err := i.services().Patch(ctx, "web", types.MergePatchType, []byte(`{"status":{"loadBalancer":{"ingress":[{"hostname":"lb.example"}]}}}`), metav1.PatchOptions{}, "status")
			i.must(err)
			return patchService("web", `{"metadata":{"finalizers":null}}`)()
		}, ""},
		{"herald-ccm labels a Service", patchService("web", `{"metadata":{"labels":{"app":"other"}}}`), "changes nothing of the metadata"},
		{"herald-ccm annotates a Service", patchService("web", `{"metadata":{"annotations":{"herald.dev/ips":"198.18.0.9"}}}`), "changes nothing of the metadata"},
		{"herald-ccm adds a finalizer of its own", patchService("web", `{"metadata":{"finalizers":["example.com/forever"]}}`), "changes nothing of the metadata"},
		{"herald-ccm writes a condition", patchService("web", `{"status":{"conditions":[{"type":"X","status":"True","reason":"Y","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`), "nothing of a Service's status but loadBalancer"},

		{"somebody reserves an address", record(tenant, func(*herald.IPAllocation) {}), ""},
		{"somebody writes a UID", record(tenant, func(o *herald.IPAllocation) { o.Spec.Owners[0].UID = "u" }), "spec.owners[].uid is written by Herald only"},
		{"somebody writes a class", record(tenant, func(o *herald.IPAllocation) { o.Spec.Class = herald.LoadBalancerClass }), "spec.class is written by Herald only"},
		{"somebody writes a release", record(tenant, func(o *herald.IPAllocation) { now := metav1.Now(); o.Spec.ReleasedAt = &now }), "spec.releasedAt is written by Herald only"},
		{"an administrator writes a UID", record(i.cluster, func(o *herald.IPAllocation) { o.Spec.Owners[0].UID = "u" }), ""},
		{"herald-ccm writes a UID", record(ccm, func(o *herald.IPAllocation) { o.Spec.Owners[0].UID = "u" }), ""},
		{"herald-ccm reads Secrets", secrets(ccm, ns), `cannot list resource "secrets"`},
		{"herald-ccm writes a speaker's Lease", lease(ccm, "speaker-"+own), `cannot update resource "leases"`},
		{"herald-ccm changes a Service's spec", func() error {
			_, err := ccm.kube.CoreV1().Services("default").Update(ctx, i.get("web"), metav1.UpdateOptions{})
			return err
		}, `cannot update resource "services"`},
	} {
		switch err := story.attempt(); {
		case story.refusal == "" && err != nil && !apierrors.IsConflict(err):
			i.t.Errorf("%s: %v", story.name, err)
		case story.refusal != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), story.refusal)):
			i.t.Errorf("%s: %v; want it forbidden, with %q", story.name, err, story.refusal)
		}
	}
}
