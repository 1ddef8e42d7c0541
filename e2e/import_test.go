package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
)

// TestImportsPassADryRun runs kubectl herald import on the corpus of each load balancer. A real API server, with Herald's
// schemas and admission policies, must accept the whole output in a dry run, which creates nothing.
func TestImportsPassADryRun(t *testing.T) {
	t.Parallel()
	ctx, c := startControlPlane(t, false)
	const corpus = "../cmd/kubectl-herald/internal/migrate/testdata"
	files, err := filepath.Glob(corpus + "/*/*/objects.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	for _, file := range files {
		dir := filepath.Dir(file)
		source := filepath.Base(filepath.Dir(dir))
		t.Run(source+"/"+filepath.Base(dir), func(t *testing.T) {
			herald, err := os.ReadFile(filepath.Join(dir, "herald.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			// Exit code 2 means that something cannot be translated. The corpus has such cases on purpose.
			written, err := c.Shell(ctx, fmt.Sprintf("kubectl herald import %s -f %q || [ $? = 2 ]", source, file))
			if err != nil || written != string(herald) {
				t.Fatalf("the plugin writes (%v)\n%s\nwant\n%s", err, written, herald)
			}
			if written == "" {
				return
			}
			taken, err := c.Shell(ctx, "kubectl apply --server-side --dry-run=server -f - <<'EOF'\n"+written+"EOF\n")
			if want := strings.Count(written, "apiVersion: herald.dev/"); err != nil || strings.Count(taken, "serverside-applied (server dry run)") != want {
				t.Errorf("the API server takes, of %d objects (%v)\n%s", want, err, taken)
			}
		})
	}
	if there, err := c.Kubectl(ctx, "get", "herald", "-o", "name"); err != nil || there != "" {
		t.Errorf("a dry run leaves (%v) %s", err, there)
	}
}

// TestImportReadsTheCluster runs kubectl herald import on a cluster in which other load balancers are configured, and
// follows its report: the Service gets the annotations that the report names.
func TestImportReadsTheCluster(t *testing.T) {
	t.Parallel()
	ctx, c := startControlPlane(t, false)
	if out, err := c.Shell(ctx, "kubectl herald import metallb 2>&1"); err == nil || !strings.Contains(out, "there is no configuration of MetalLB") {
		t.Errorf("MetalLB is not there, and the plugin says (%v) %s", err, out)
	}
	if err := c.Apply(ctx, `
apiVersion: v1
kind: ConfigMap
metadata: {name: kubevip, namespace: kube-system}
data: {range-global: 198.51.100.10-198.51.100.20}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default, annotations: {kube-vip.io/loadbalancerIPs: 198.51.100.12, metallb.io/allow-shared-ip: it's shared}}
spec: {type: LoadBalancer, ports: [{port: 80}]}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ipaddresspools.metallb.io}
spec:
  group: metallb.io
  names: {kind: IPAddressPool, plural: ipaddresspools, singular: ipaddresspool}
  scope: Namespaced
  versions:
  - name: v1beta1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}
`); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout=30s", "crd/ipaddresspools.metallb.io"); err != nil {
		t.Fatal(err)
	}
	if err := lab.Eventually(ctx, func(ctx context.Context) error { // The API server serves the kind shortly before discovery lists it.
		return c.Apply(ctx, "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: public, namespace: default}\nspec: {addresses: [203.0.113.0/24]}\n")
	}); err != nil {
		t.Fatal(err)
	}
	for _, story := range []struct{ source, pool, annotation, value string }{
		{"kube-vip", "198.51.100.10-198.51.100.20", "ips", "198.51.100.12"},
		{"metallb", "203.0.113.0/24", "sharing-key", "it's shared"},
	} {
		commands := filepath.Join(t.TempDir(), "report")
		written, err := c.Shell(ctx, fmt.Sprintf("kubectl herald import %s 2>%q", story.source, commands))
		if err != nil || !strings.Contains(written, story.pool) {
			t.Fatalf("%s: the plugin writes (%v)\n%s", story.source, err, written)
		}
		if _, err := c.Shell(ctx, fmt.Sprintf("grep '^  kubectl annotate ' %q >%[1]q.sh; . %[1]q.sh", commands)); err != nil {
			t.Fatal(err)
		}
		got, err := c.Kubectl(ctx, "get", "service", "web", "-o", `jsonpath={.metadata.annotations.herald\.dev/`+story.annotation+`}`)
		if err != nil || got != story.value {
			t.Errorf("%s: the Service has herald.dev/%s %q (%v), want %q", story.source, story.annotation, got, err, story.value)
		}
	}
}

// TestForeignAnnotations moves Services to a herald-ccm that reads the annotations of other load balancers.
func TestForeignAnnotations(t *testing.T) {
	c, _, _ := withCCM(t, "--foreign-annotations=metallb,kube-vip,cilium")
	c.pool("public", delay(0), "198.51.100.1-198.51.100.20")
	c.pool("gold", func(s *herald.IPPoolSpec) { s.AutoAssign = new(bool); delay(0)(s) }, "203.0.113.1-203.0.113.4")

	c.served("address", "198.51.100.7", annotated("metallb.io/loadBalancerIPs", "198.51.100.7"))
	c.served("pool", "203.0.113.1", annotated("metallb.universe.tf/address-pool", "gold"))
	c.served("shared", "198.51.100.1", ports("TCP/80"), annotated("metallb.io/allow-shared-ip", "k"))
	for _, sharer := range []struct{ name, port, key string }{
		{"sharer", "TCP/443", "lbipam.cilium.io/sharing-key"}, {"third", "TCP/53", herald.AnnotationSharingKey},
	} {
		if got := c.addressOf(sharer.name, ports(sharer.port), annotated(sharer.key, "k")); got != "198.51.100.1" {
			t.Errorf("%s does not share, and has %s", sharer.key, got)
		}
	}

	c.served("ours", "198.51.100.9", annotated(herald.AnnotationIPs, "198.51.100.9"), annotated("metallb.io/loadBalancerIPs", "198.51.100.10"))
	c.event("Service", "ours", herald.EventAnnotationWithoutEffect, "metallb.io/loadBalancerIPs has no effect beside herald.dev/ips: remove it")
	c.served("dhcp", "198.51.100.2", annotated("kube-vip.io/loadbalancerIPs", "0.0.0.0"))
	c.event("Service", "dhcp", herald.EventAnnotationWithoutEffect, "kube-vip.io/loadbalancerIPs is of another load balancer: write herald.dev/ips")
	c.service("malformed", annotated("metallb.io/loadBalancerIPs", "first"))
	c.refused("malformed", `annotation metallb.io/loadBalancerIPs: "first" is not an IP address`)

	c.edit("address", func(svc *corev1.Service) { svc.Annotations["metallb.io/loadBalancerIPs"] = "198.51.100.8" })
	c.holds("address", "198.51.100.8")
	for key := range c.get("address").Annotations {
		if key != "metallb.io/loadBalancerIPs" {
			t.Errorf("herald-ccm has written the annotation %s", key)
		}
	}
	if n := c.times("Service", "ours", herald.EventAnnotationWithoutEffect); n != 1 {
		t.Errorf("what is ignored is said %d times", n)
	}
}
