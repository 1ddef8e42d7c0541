package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/heraldlb/herald/e2e/lab"
)

// contourClass is the class of Contour's Gateways.
const contourClass = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: contour}
spec: {controllerName: projectcontour.io/gateway-controller}
`

// contourGateway is a Gateway with these addresses in spec.addresses.
const contourGateway = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: default}
spec:
  gatewayClassName: contour
  addresses: [%s]
  listeners: [{name: http, protocol: HTTP, port: 80}]
`

// contourConfiguration makes contour serve fill the status of that Gateway from the Service that the provisioner made for it.
const contourConfiguration = `
gateway: {gatewayRef: {namespace: default, name: web}}
envoy-service-namespace: default
envoy-service-name: envoy-web
`

// TestAGatewayOfContourHasItsStaticAddress is one story about a Gateway with the real Contour: its provisioner writes the
// Service, and contour serve writes the status of the Gateway. Both run beside the API server, because pods of the lab have
// no route to it. Envoy is played by a web server with the labels of Envoy's pods.
func TestAGatewayOfContourHasItsStaticAddress(t *testing.T) {
	if onKind() {
		t.Skip("it needs a lab: kind's nodes have no images of Contour")
	}
	programs := filepath.Join(root(t), "build", "bin")
	if _, err := os.Stat(filepath.Join(programs, "contour")); err != nil {
		t.Skip("Contour is not built: run make contour")
	}
	ctx, l := startLab(t, lab.Options{})
	f := startHerald(t, ctx, l)
	f.announce()
	f.pool("public", delay(0), "198.18.0.200-198.18.0.209")
	_, err := envtest.InstallCRDs(l.Config, envtest.CRDInstallOptions{Paths: []string{filepath.Join(programs, "contour-crds")}, ErrorIfPathMissing: true})
	f.must(err)
	f.must(l.Apply(ctx, contourClass))
	configuration := filepath.Join(t.TempDir(), "contour.yaml")
	f.must(os.WriteFile(configuration, []byte(contourConfiguration), 0o600))
	f.contour(l, "contour-provisioner", "gateway-provisioner", "--no-incluster", "--metrics-addr=0")
	serve := f.contour(l, "contour-serve", "serve", "--no-incluster", "--config-path="+configuration, "--insecure", "--disable-leader-election",
		"--xds-address=127.0.0.1", "--http-address=127.0.0.1", "--health-address=127.0.0.1", "--stats-address=127.0.0.1")
	apply := func(addresses string) { f.must(l.Apply(ctx, fmt.Sprintf(contourGateway, addresses))) }
	programmed := func(is, address string) {
		t.Helper()
		f.gatewayHas(address)
		// Contour ignores changes of a Gateway's status, also its own. Only after a restart does it see the address in it.
		f.must(serve.Restart(ctx))
		f.gatewayHas(address + " " + is)
	}

	apply("{value: 198.18.0.205}")
	svc := f.holds("envoy-web", "198.18.0.205")
	if svc.Spec.LoadBalancerIP != "198.18.0.205" {
		t.Errorf("spec.loadBalancerIP is %q, want the address of the Gateway", svc.Spec.LoadBalancerIP)
	}
	programmed("True", "198.18.0.205")
	f.envoy(svc)
	f.reached(f.site.Segment, "198.18.0.205:80")

	t.Log("another address")
	apply("{value: 198.18.0.207}")
	f.holds("envoy-web", "198.18.0.207")
	programmed("True", "198.18.0.207")
	f.unrecorded("198.18.0.205")
	f.reached(f.site.Segment, "198.18.0.207:80")

	t.Log("an address that no pool has")
	apply("{value: 192.0.2.1}")
	f.refused("envoy-web", "192.0.2.1 is in no pool")
	programmed("False", "198.18.0.207")
	f.holds("envoy-web", "198.18.0.207")

	t.Log("no address")
	apply("")
	f.gatewayHas("198.18.0.207 True")
	f.holds("envoy-web", "198.18.0.207")

	t.Log("deleted, and created without an address")
	f.kubectl("delete", "gateway", "web")
	f.gone("envoy-web")
	f.unrecorded("198.18.0.207")
	f.answeredBy("198.18.0.207")
	apply("")
	f.holds("envoy-web", "198.18.0.200")
	programmed("True", "198.18.0.200")
}

// contour starts the program of Contour beside the API server, until the end of the test.
func (f *labField) contour(l *lab.Lab, name string, args ...string) *lab.Process {
	f.t.Helper()
	p := &lab.Process{
		Name: name, Path: l.Program("contour"), LogPath: filepath.Join(l.Dir(), name+".log"),
		Args: append(args, "--kubeconfig="+l.Kubeconfig),
	}
	f.must(p.Start())
	f.t.Cleanup(func() { _ = p.Kill() })
	return p
}

// envoy plays Envoy: a pod with the labels that the Service selects. The DaemonSet that Contour made for Envoy would delete it
// if it had no owner, and has no running pods itself: the lab has no image of Envoy.
func (f *labField) envoy(svc *corev1.Service) {
	f.t.Helper()
	_, err := f.kube.CoreV1().Pods(svc.Namespace).Create(f.ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "plays-envoy", Labels: svc.Spec.Selector,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(svc, corev1.SchemeGroupVersion.WithKind("Service"))},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "envoy", Image: "test/app", Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
		}}},
	}, metav1.CreateOptions{})
	f.must(err)
}

// gatewayHas waits until the status of the Gateway web begins with this: its address, and whether it is Programmed.
func (f *labField) gatewayHas(want string) {
	f.t.Helper()
	f.eventually("Gateway web has "+want, func(context.Context) error {
		got := f.kubectl("get", "gateway", "web", "-o", `jsonpath={.status.addresses[*].value} `+
			`{.status.conditions[?(@.type=="Programmed")].status} {.status.conditions[?(@.type=="Programmed")].message}`)
		if !strings.HasPrefix(got, want+" ") {
			return errors.New("it has " + got)
		}
		return nil
	})
}
