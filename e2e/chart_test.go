package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/heraldlb/herald/e2e/lab"
)

const chart = "../manifests/charts/herald"

// TestTheChartIsWhatTheManifestsAre compares the chart rendered by Helm with the manifests rendered by kustomize.
func TestTheChartIsWhatTheManifestsAre(t *testing.T) {
	for name, story := range map[string]struct {
		set      []string
		manifest string // Folder.
	}{
		"without values":         {nil, "../manifests/base"},
		"without BGP":            {[]string{"bgp.enabled=false"}, "../manifests/overlays/l2"},
		"without L2":             {[]string{"l2.enabled=false"}, "../manifests/overlays/bgp"},
		"dead nodes":             {[]string{"deadNodes.enabled=true"}, "../manifests/overlays/dead-nodes"},
		"external IPs":           {[]string{"externalIPs.refuse=true"}, overlay(t, "external-ips")},
		"monitoring":             {[]string{"monitoring.enabled=true"}, overlay(t, "monitoring")},
		"ports of passive peers": {[]string{"bgp.privilegedPorts=true"}, overlay(t, "passive-peers")},
	} {
		t.Run(name, func(t *testing.T) {
			rendered, err := renderChart("herald-system", story.set...)
			if err != nil {
				t.Fatal(err)
			}
			kubectl := exec.Command("../build/bin/kubernetes", "kustomize", story.manifest)
			kubectl.Args[0] = "kubectl"
			built, err := kubectl.Output()
			if err != nil {
				t.Fatal(err)
			}
			ours, theirs := objects(t, rendered), objects(t, built)
			// Helm creates the namespace of a release itself, if asked.
			delete(theirs, "Namespace /herald-system")
			for _, name := range slices.Sorted(maps.Keys(merged(ours, theirs))) {
				if diff := cmp.Diff(theirs[name], ours[name]); diff != "" {
					t.Errorf("%s (-manifests +chart):\n%s", name, diff)
				}
			}
		})
	}
}

// TestEveryValueOfTheChart sets each value and looks for it in the rendered chart.
func TestEveryValueOfTheChart(t *testing.T) {
	unset := map[string]bool{}
	content, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{}
	if err := yaml.Unmarshal(content, &values); err != nil {
		t.Fatal(err)
	}
	leaves(values, "", unset)

	const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, story := range []struct {
		set  string // Argument of --set.
		want string // Text in the rendered chart or in the error.
	}{
		{"image.repository=registry.example/herald", "image: registry.example/herald:dev\n"},
		{"image.tag=v1.2.3", "image: ghcr.io/heraldlb/herald:v1.2.3\n"},
		{"image.digest=" + digest, "image: ghcr.io/heraldlb/herald@" + digest + "\n"},
		{"image.pullPolicy=Always", "imagePullPolicy: Always\n"},
		{"image.pullSecrets={registry}", "imagePullSecrets:\n        - name: registry\n"},
		{"l2.enabled=false", "runAsNonRoot: true"},
		{"bgp.enabled=false", "- --l2-only\n"},
		{"bgp.privilegedPorts=true", "add: [NET_RAW, NET_BIND_SERVICE]\n"},
		{"pools.default.addresses={198.51.100.10-198.51.100.50}", "kind: IPPool\nmetadata:\n  name: \"default\"\n"},
		{"pools.default.addresses={198.51.100.10-198.51.100.50}", "kind: L2Advertisement\nmetadata:\n  name: \"default\"\n"},
		{"l2Advertisements.rack.pools={default}", "kind: L2Advertisement\nmetadata:\n  name: \"rack\"\n"},
		{"bgpPeers.tor.address=198.51.100.1", "kind: BGPPeer\nmetadata:\n  name: \"tor\"\n"},
		{"bgpAdvertisements.all.peers={tor}", "kind: BGPAdvertisement\nmetadata:\n  name: \"all\"\n"},
		{"foreignAnnotations={metallb,kube-vip}", "- --foreign-annotations=metallb,kube-vip\n"},
		{"deadNodes.enabled=true", "- --mark-pods-on-dead-nodes\n"},
		{"externalIPs.refuse=true", "name: external-ips.herald.dev\n"},
		{"monitoring.enabled=true", "kind: ServiceMonitor\nmetadata:\n  name: herald-speaker\n"},
		{"monitoring.enabled=true", "kind: PrometheusRule\nmetadata:\n  name: herald\n"},
		{"monitoring.enabled=true", "description: 'IPPool {{ $labels.pool }} has no free {{ $labels.family }} address. "},
		{"monitoring.enabled=true", "kind: ConfigMap\nmetadata:\n  name: herald-dashboard-bgp\n"},
		{"monitoring.enabled=true,monitoring.labels.release=prometheus", "release: prometheus\n"},
		{"monitoring.enabled=true,monitoring.interval=1m30s", "interval: 1m30s\n"},
		{"ccm.replicas=3", "replicas: 3\n"},
		{"ccm.extraArgs={--serve-classless=false}", "- --serve-classless=false\n"},
		{"ccm.extraArgs={--load-balancer-class=example.com/own}", "loadBalancerClass: example.com/own\n"},
		{"ccm.resources.limits.memory=256Mi", "memory: 256Mi\n"},
		{"ccm.nodeSelector.zone=a", "zone: a\n"},
		{"ccm.tolerations[0].key=own", "key: own\n"},
		{"ccm.affinity.nodeAffinity.x=y", "nodeAffinity:\n          x: \"y\"\n"},
		{"ccm.priorityClassName=low", "priorityClassName: low\n"},
		{"ccm.podAnnotations.note=one", "annotations:\n        note: one\n"},
		{"ccm.podLabels.team=one", "team: one\n"},
		{"speaker.extraArgs={--log-level=debug}", "- --log-level=debug\n"},
		{"speaker.resources.limits.memory=256Mi", "memory: 256Mi\n"},
		{"speaker.nodeSelector.zone=a", "zone: a\n"},
		{"speaker.tolerations[0].key=own", "key: own\n"},
		{"speaker.affinity.nodeAffinity.x=y", "nodeAffinity:\n          x: \"y\"\n"},
		{"speaker.priorityClassName=low", "priorityClassName: low\n"},
		{"speaker.maxUnavailable=20%", "maxUnavailable: 20%\n"},
		{"speaker.terminationGracePeriodSeconds=60", "terminationGracePeriodSeconds: 60\n"},
		{"speaker.podAnnotations.note=one", "annotations:\n        note: one\n"},
		{"speaker.podLabels.team=one", "team: one\n"},

		{"l2.enabled=false,bgp.enabled=false", "l2.enabled and bgp.enabled are both false"},
		{"l2.enabled=false,bgp.privilegedPorts=true", "bgp.privilegedPorts takes speakers that are root"},
		{"l2.enabled=false,l2Advertisements.rack.pools={default}", "l2Advertisements announce nothing while l2.enabled is false"},
		{"bgp.enabled=false,bgpPeers.tor.address=198.51.100.1", "bgpPeers and bgpAdvertisements announce nothing while bgp.enabled is false"},
		{"pool.default.addresses={198.51.100.10}", "additional properties 'pool' not allowed"},
		{"pools.default.addresses=198.51.100.10", "at '/pools/default/addresses': got string, want array"},
		{"image.digest=latest", "at '/image/digest'"},
		{"l2=null", "missing property 'l2'"},
		{"bgp.enabled=null", "at '/bgp': missing property 'enabled'"},
		{"speaker.podLabels.app\\.kubernetes\\.io/name=own", "invalid propertyName 'app.kubernetes.io/name'"},
		{"image.repository=registry.example:5000/herald", "image: registry.example:5000/herald:dev\n"},
		{"image.repository=registry.example/herald:v1.2.3", "at '/image/repository'"},
		{"pools.Default.addresses={198.51.100.10}", "'Default' does not match pattern"},
		{"pools.default.addresses={198.51.100.10},bgpAdvertisements.all.peers={tor}", "kind: L2Advertisement\nmetadata:\n  name: \"default\"\n"},
	} {
		t.Run(story.set, func(t *testing.T) {
			for assignment := range strings.SplitSeq(story.set, ",") {
				for path := range unset {
					if strings.HasPrefix(assignment, path) {
						delete(unset, path)
					}
				}
			}
			rendered, err := renderChart("lb", story.set)
			said := string(rendered)
			if err != nil {
				said = err.Error()
			}
			if !strings.Contains(said, story.want) {
				t.Errorf("want %q in\n%s", story.want, tail(said))
			}
			if strings.Contains(said, "herald-system") && err == nil {
				t.Error("something is still in the namespace herald-system")
			}
		})
	}
	if left := slices.Sorted(maps.Keys(unset)); len(left) > 0 {
		t.Errorf("not looked at: %v", left)
	}
}

// TestTheChartUnderAnotherName uses a real API server: a release with another name, in another namespace that already has
// its Secrets, is upgraded as its notes say. Helm does not install it while a pool is being deleted.
func TestTheChartUnderAnotherName(t *testing.T) {
	t.Parallel()
	ctx, plane := startControlPlaneWith(t, lab.ControlPlaneOptions{Bare: true})
	c := clusterOf(t, ctx, &plane.Access)
	const pool = ` --set 'pools.segment.addresses={198.51.100.1-198.51.100.9}'`
	helm := func(command string) string {
		c.t.Helper()
		out, err := c.access.Shell(ctx, "cd ..\nexport PATH=$PWD/build/bin:$PATH\n"+command)
		c.must(err)
		return out
	}
	c.kubectl("create", "namespace", "lb-peers")
	notes := helm("helm install lb manifests/charts/herald -n lb --create-namespace")
	said := regexp.MustCompile(`(?m)^  (helm upgrade lb … .*)$`).FindStringSubmatch(notes)
	if said == nil {
		t.Fatalf("the notes do not say how to upgrade:\n%s", notes)
	}
	helm(strings.Replace(said[1], "…", "manifests/charts/herald", 1) + pool)
	owner, err := c.access.Kubectl(ctx, "get", "crd", "ippools.herald.dev", "-o", `jsonpath={.metadata.annotations.meta\.helm\.sh/release-name}`)
	c.must(err)
	if owner != "lb" {
		t.Errorf("the definitions belong to the release %q", owner)
	}
	if _, err := c.herald.L2Advertisements.Get(ctx, "default", metav1.GetOptions{}); err != nil {
		t.Errorf("the pool is not announced: %v", err)
	}

	finalizers := func(list string) {
		c.kubectl("patch", "ippools.herald.dev", "segment", "--type=merge", "-p", `{"metadata":{"finalizers":`+list+`}}`)
	}
	finalizers(`["herald.dev/in-use"]`)
	helm("helm uninstall lb -n lb")
	const install = "helm install lb manifests/charts/herald -n lb" + pool
	if _, err := c.access.Shell(ctx, "cd ..\nexport PATH=$PWD/build/bin:$PATH\n"+install); err == nil || !strings.Contains(err.Error(), "IPPool segment is being deleted") {
		t.Errorf("over a pool that is being deleted: %v", err)
	}
	finalizers("null")
	helm(install)
	c.kubectl("get", "namespace", "lb-peers")
}

// TestTheNamespaceMayBeDefault is about Herald in the namespace that also has the events of its speakers: no object may
// overwrite another.
func TestTheNamespaceMayBeDefault(t *testing.T) {
	const rights = "Role default/herald-speaker"
	rendered, err := renderChart("default")
	if err != nil {
		t.Fatal(err)
	}
	manifests, err := os.ReadFile("../manifests/herald.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, stream := range map[string][]byte{
		"by Helm":                         rendered,
		"by the manifests, as documented": bytes.ReplaceAll(manifests, []byte("herald-system"), []byte("default")),
	} {
		t.Run(name, func(t *testing.T) {
			if all := objects(t, stream); all[rights] == nil || all[rights+"-events"] == nil {
				t.Errorf("there is no %s, or no %[1]s-events", rights)
			}
		})
	}
}

// TestHelmTestLeavesOnlyItsPod is about the objects of `helm test`: all except the pod are deleted when the test ends, and an
// installation does not have them.
func TestHelmTestLeavesOnlyItsPod(t *testing.T) {
	rendered, err := renderChart("lb")
	if err != nil {
		t.Fatal(err)
	}
	hooks := 0
	for document := range bytes.SplitSeq(rendered, []byte("\n---\n")) {
		o := unstructured.Unstructured{}
		if err := yaml.Unmarshal(document, &o.Object); err != nil {
			t.Fatal(err)
		}
		hook := o.GetAnnotations()["helm.sh/hook"]
		if o.GetName() != "herald-test" && hook == "" {
			continue
		}
		hooks++
		policy := "before-hook-creation,hook-succeeded"
		if o.GetKind() == "Pod" {
			policy = "before-hook-creation" // Users read its log after the test.
		}
		if got := o.GetAnnotations()["helm.sh/hook-delete-policy"]; hook != "test" || got != policy {
			t.Errorf("%s %s: hook %q, deleted by %q, want %q", o.GetKind(), o.GetName(), hook, got, policy)
		}
	}
	if hooks != 7 {
		t.Errorf("there are %d hooks, want 7", hooks)
	}
}

// renderChart returns the output of `helm template` for the chart in a namespace. In the manifests' own namespace, the
// output has the same objects as the manifests: with the CustomResourceDefinitions and without the test.
func renderChart(namespace string, set ...string) ([]byte, error) {
	args := []string{"template", "herald", chart, "--namespace", namespace}
	if namespace == lab.HeraldNamespace {
		args = append(args, "--include-crds", "--skip-tests")
	}
	for _, s := range set {
		args = append(args, "--set", s)
	}
	out, err := exec.Command("../build/bin/helm", args...).Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("helm %s: %s", strings.Join(args, " "), exit.Stderr)
	}
	return out, err
}

// overlay returns a folder with a kustomization of the base and one component.
func overlay(t testing.TB, component string) string {
	t.Helper()
	dir := t.TempDir()
	manifests, err := filepath.Abs("../manifests")
	if err == nil {
		manifests, err = filepath.Rel(dir, manifests)
	}
	if err != nil {
		t.Fatal(err)
	}
	content := fmt.Sprintf("resources: [%s/base]\ncomponents: [%s/components/%s]\n", manifests, manifests, component)
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestDocumentedOverlay renders the overlay of docs/install.md where the page says that it is.
func TestDocumentedOverlay(t *testing.T) {
	block := blockOf(t, "docs/install.md", "resources: [../../base]")
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS("../manifests")); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(root, "overlays", "mine")
	if err := os.Mkdir(mine, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(mine, "kustomization.yaml"), []byte(strings.NewReplacer("REGISTRY", "registry.example.com", "TAG", "v1").Replace(block)), 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl := exec.Command("../build/bin/kubernetes", "kustomize", mine)
	kubectl.Args[0] = "kubectl"
	out, err := kubectl.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"image: registry.example.com/herald:v1\n", "- --serve-classless=false\n", "  name: external-ips.herald.dev\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the overlay does not give %q", want)
		}
	}
	if strings.Contains(string(out), "herald:dev") {
		t.Error("an image has the tag of the base")
	}
}

// objects returns the objects in a stream of YAML documents, by kind, namespace and name, without fields that only Helm
// needs.
func objects(t testing.TB, stream []byte) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	for document := range bytes.SplitSeq(stream, []byte("\n---\n")) {
		o := unstructured.Unstructured{}
		if err := yaml.Unmarshal(document, &o.Object); err != nil {
			t.Fatalf("%v:\n%s", err, document)
		}
		if len(o.Object) == 0 {
			continue
		}
		annotations, labels := o.GetAnnotations(), o.GetLabels()
		for _, name := range []string{"helm.sh/resource-policy", "meta.helm.sh/release-name", "meta.helm.sh/release-namespace"} {
			delete(annotations, name)
		}
		delete(labels, "app.kubernetes.io/managed-by")
		if len(annotations) == 0 {
			annotations = nil
		}
		o.SetAnnotations(annotations)
		o.SetLabels(labels)
		name := fmt.Sprintf("%s %s/%s", o.GetKind(), o.GetNamespace(), o.GetName())
		if all[name] != nil {
			t.Errorf("%s is there twice", name)
		}
		all[name] = o.Object
	}
	return all
}

// merged returns the union of two maps.
func merged[V any](x, y map[string]V) map[string]V {
	all := maps.Clone(x)
	maps.Copy(all, y)
	return all
}

// leaves adds the paths of all values that are not objects with values of their own.
func leaves(values map[string]any, prefix string, all map[string]bool) {
	for name, value := range values {
		inner, nested := value.(map[string]any)
		whole := map[string]bool{"resources": true, "nodeSelector": true}[name]
		if nested && len(inner) > 0 && !whole {
			leaves(inner, prefix+name+".", all)
		} else {
			all[prefix+name] = true
		}
	}
}
