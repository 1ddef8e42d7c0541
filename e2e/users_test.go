package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/kind"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/router"
)

// onlyOnKind skips stories in the lab. The stories of this file need kubelets, containers, rollouts of Deployments and
// drained nodes, which only kind has.
func onlyOnKind(t *testing.T) *field {
	t.Helper()
	if !onKind() {
		t.Skip("a story of kind: make e2e")
	}
	f := withKind(t, lab.Options{Routers: []router.Kind{lab.FRR}})
	f.announce()
	f.pool("segment", delay(0), "198.18.0.200-198.18.0.250")
	return f
}

// manifest applies one of the three manifests that users begin with, unchanged.
func (f *field) manifest(name string) {
	f.t.Helper()
	yaml, err := os.ReadFile("demo/manifests/" + name)
	f.must(err)
	f.must(f.access.Apply(f.ctx, string(yaml)))
	f.must(f.access.AwaitPod(f.ctx, "default", "pod-1", true))
}

// TestUsersManifests follows most users: a Service is first of type ClusterIP, then NodePort, and then
// LoadBalancer.
func TestUsersManifests(t *testing.T) {
	f := onlyOnKind(t)
	const address, target = "198.18.0.200", "198.18.0.200:9000"
	all := names(f.site)

	f.manifest("clusterip.yaml")
	f.pod("asker", all[1])
	inside, err := shared.InPod(f.ctx, "default", "asker")
	f.must(err)
	clusterIP := f.get("svc-1").Spec.ClusterIP + ":9000"
	if r := f.reached(inside, clusterIP); r.Pod != "pod-1" && r.Pod != "asker" {
		t.Errorf("%s: %+v answers", clusterIP, r)
	}
	f.must(f.site.Segment.EventuallySilent(f.ctx, clusterIP))
	_, err = f.access.Kubectl(f.ctx, "delete", "pod", "asker", "--grace-period=1")
	f.must(err)

	f.manifest("nodeport.yaml")
	if r := f.reached(f.site.Segment, netip.AddrPortFrom(f.site.Node(all[0]).IPv4, 30000).String()); r.Pod != "pod-1" || r.Client != f.site.Segment.IPv4 {
		t.Errorf("%+v; want pod-1, which sees the client", r)
	}
	for _, n := range all[1:] {
		f.must(f.site.Segment.EventuallySilent(f.ctx, netip.AddrPortFrom(f.site.Node(n).IPv4, 30000).String()))
	}

	f.manifest("loadbalancer.yaml")
	f.holds("svc-1", address)
	f.answeredBy(address, all...)
	f.routed(f.site.Routers[0], address, all...)
	for _, from := range []*lab.Client{f.site.Segment, f.site.Outside} {
		if r := f.reached(from, target); r.Pod != "pod-1" {
			t.Errorf("%s: %+v answers", from.Host.Name, r)
		}
	}
}

// load is continuous requests from a client on the segment and from one behind the router.
type load struct {
	f               *field
	segment, behind *lab.Opener
}

// underLoad starts continuous requests of two clients to a Service that is reachable.
func (f *field) underLoad(target string) *load {
	f.t.Helper()
	f.served("web")
	f.reached(f.site.Segment, target)
	f.reached(f.site.Outside, target)
	f.routed(f.site.Routers[0], strings.TrimSuffix(target, ":9000"), names(f.site)...)
	// A user's client waits until its kernel resends a lost SYN after a second. Masquerading occasionally loses a SYN,
	// when two connections get the same port at the same moment.
	open := func(from *lab.Client) *lab.Opener {
		patient := *from
		patient.Timeout = 5 * time.Second
		return patient.Open(f.ctx, target, 50*time.Millisecond)
	}
	return &load{f, open(f.site.Segment), open(f.site.Outside)}
}

// judge ends the load. No request may have failed, and there must be no gap in which no new connection was possible.
func (l *load) judge() {
	l.f.t.Helper()
	for from, o := range map[string]*lab.Opener{"the segment": l.segment, "behind the router": l.behind} {
		attempts := o.Stop()
		l.f.t.Logf("from %s: %v", from, attempts)
		if attempts.Failed() > 0 || len(attempts) == 0 || attempts.Gap() > unnoticed {
			l.f.t.Errorf("from %s: %v; want no failure, and no gap of %v:\n%s", from, attempts, unnoticed, strings.Join(attempts.Errors(), "\n"))
		}
	}
}

// unnoticed is the time of ten requests.
const unnoticed = 500 * time.Millisecond

func (f *field) rolled(namespace, what string) {
	f.t.Helper()
	_, err := f.access.Kubectl(f.ctx, "rollout", "status", "-n", namespace, what, "--timeout=2m")
	f.must(err)
}

// A pod that is told to end serves for some seconds more, until kube-proxies have learned of it.
const deployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: pod}}
  strategy: {rollingUpdate: {maxUnavailable: 0}}
  template:
    metadata: {labels: {app: pod}}
    spec:
      containers:
        - name: app
          image: test/app
          ports: [{containerPort: 8080}]
          readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
          lifecycle: {preStop: {sleep: {seconds: 5}}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec:
  maxUnavailable: 1
  selector: {matchLabels: {app: pod}}
`

// TestChangesUnderLoad makes all kinds of changes while clients send requests.
func TestChangesUnderLoad(t *testing.T) {
	f := onlyOnKind(t)
	const address, target = "198.18.0.200", "198.18.0.200:9000"
	all := names(f.site)
	f.gracefully()
	f.must(f.access.Apply(f.ctx, deployment))
	f.rolled("default", "deployment/web")
	f.service("web", to8080)
	l := f.underLoad(target)

	t.Run("the workload is updated", func(t *testing.T) {
		f := f.within(t)
		f.kubectl("rollout", "restart", "deployment/web")
		f.rolled("default", "deployment/web")
	})
	t.Run("the node with the address is drained", func(t *testing.T) {
		f := f.within(t)
		owner := f.answeredBy(address, all...)
		f.kubectl("drain", owner, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=90s")
		f.eventually("the pods run elsewhere", func(ctx context.Context) error {
			pods, err := f.kube.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=pod"})
			for _, p := range pods.Items {
				if p.Spec.NodeName == owner {
					err = errors.Join(err, fmt.Errorf("%s is on %s", p.Name, owner))
				}
			}
			return err
		})
		f.kubectl("uncordon", owner)
		// A drained node forwards like any other. Its speaker reacts to an exclusion or a taint, not to the drain.
		f.answeredBy(address, owner)
	})
	t.Run("Herald's leader is killed", func(t *testing.T) {
		f := f.within(t)
		before := f.leader()
		f.kubectl("delete", "pod", "-n", lab.HeraldNamespace, before, "--grace-period=0", "--force")
		f.service("another", to8080)
		f.holds("another", "198.18.0.201") // From either leader: the killed one may have run for a moment.
		f.eventually("another leads", func(context.Context) error {
			if now := f.leader(); now == before {
				return fmt.Errorf("%s leads still", now)
			}
			return nil
		})
		f.remove("another")
	})
	l.judge()

	l = f.underLoad(target)
	t.Run("Herald is updated", func(t *testing.T) {
		f := f.within(t)
		owner := f.answeredBy(address, all...)
		f.kubectl("rollout", "restart", "-n", lab.HeraldNamespace, "deployment/herald-ccm", "daemonset/herald-speaker")
		f.rolled(lab.HeraldNamespace, "deployment/herald-ccm")
		f.rolled(lab.HeraldNamespace, "daemonset/herald-speaker")
		f.answeredBy(address, owner)
		f.routed(f.site.Routers[0], address, all...)
	})
	l.judge()
	f.holds("web", address)
}

// TestTwoClassesSideBySide runs a second herald-ccm as the sample says. It serves its own class from the same pool.
func TestTwoClassesSideBySide(t *testing.T) {
	f := onlyOnKind(t)
	const class, sample = "example.com/second", "../manifests/samples/second-class.yaml"
	f.kubectl("apply", "-f", sample)
	t.Cleanup(func() {
		for _, what := range [][]string{{"-n", "default", "services/first", "services/second"}, {"-f", sample}} {
			if _, err := f.access.Kubectl(context.WithoutCancel(f.ctx), append([]string{"delete", "--ignore-not-found"}, what...)...); err != nil {
				t.Error(err)
			}
		}
	})
	f.rolled(lab.HeraldNamespace, "deployment/herald-ccm-second")
	f.pod("pod-1", names(f.site)[0])
	f.service("first", to8080)
	f.holds("first", "198.18.0.200")
	f.service("second", to8080, classed(class))
	f.holds("second", "198.18.0.201")
	for _, target := range []string{"198.18.0.200:9000", "198.18.0.201:9000"} {
		f.reached(f.site.Segment, target)
		f.reached(f.site.Outside, target)
	}
	// Neither controller cleans up Services of the other one.
	f.kubectl("rollout", "restart", "-n", lab.HeraldNamespace, "deployment/herald-ccm")
	f.rolled(lab.HeraldNamespace, "deployment/herald-ccm")
	f.service("third", to8080)
	f.holds("third", "198.18.0.202")
	f.holds("second", "198.18.0.201")
}

// leader returns the pod that holds herald-ccm's Lease.
func (f *field) leader() (pod string) {
	f.t.Helper()
	f.eventually("a leader", func(ctx context.Context) error {
		lease, err := f.kube.CoordinationV1().Leases(lab.HeraldNamespace).Get(ctx, "herald-ccm", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
			return errors.New("nobody holds the lease")
		}
		pod, _, _ = strings.Cut(*lease.Spec.HolderIdentity, "_")
		return nil
	})
	return pod
}

// TestUninstall uninstalls Herald while Services have addresses, and installs it again.
func TestUninstall(t *testing.T) {
	f := onlyOnKind(t)
	const address = "198.18.0.200"
	f.pod("pod-1", names(f.site)[0])
	f.service("web", to8080)
	f.holds("web", address)
	f.answeredBy(address, names(f.site)...)

	// First the objects with Herald's finalizers, then Herald.
	f.edit("web", func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeClusterIP })
	f.eventually("the Service is let go", func(context.Context) error {
		if finalizers := f.get("web").Finalizers; len(finalizers) > 0 {
			return fmt.Errorf("it has %v", finalizers)
		}
		return nil
	})
	f.kubectl("delete", "ippools.herald.dev", "--all", "--timeout=30s")
	f.must(shared.Manifests(f.ctx, "delete", "--timeout="+kindsPatience.String()))
	t.Cleanup(func() { // Reinstall for the next stories.
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := shared.Install(ctx); err != nil {
			t.Error(err)
		}
	})
	f.answeredBy(address)
	f.routed(f.site.Routers[0], address)
	if _, err := f.kube.CoreV1().Namespaces().Get(f.ctx, lab.HeraldNamespace, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the namespace: %v; want it gone", err)
	}
	out, err := f.access.Kubectl(f.ctx, "get", "crds,clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings", "-o", "name")
	f.must(err)
	if left := slices.DeleteFunc(strings.Fields(out), func(name string) bool { return !strings.Contains(name, "herald") }); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// withoutHerald uninstalls Herald, for a story that installs it. Herald is installed again for the next stories.
func (f *field) withoutHerald() {
	f.t.Helper()
	f.kubectl("delete", "l2advertisements.herald.dev,bgpadvertisements.herald.dev,bgppeers.herald.dev,ippools.herald.dev", "--all", "--timeout=30s")
	f.must(shared.Manifests(f.ctx, "delete", "--timeout="+kindsPatience.String()))
	f.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(f.removeLeftovers(ctx), shared.Install(ctx)); err != nil {
			f.t.Error(err)
		}
	})
}

// removeLeftovers removes the objects that remain after every way to uninstall Herald.
func (f *field) removeLeftovers(ctx context.Context) error {
	_, definitions := f.access.Kubectl(ctx, "delete", "-k", "../manifests/crds", "--ignore-not-found", "--timeout="+kindsPatience.String())
	_, namespace := f.access.Kubectl(ctx, "delete", "namespace", lab.HeraldNamespace, lab.PeersNamespace, "--ignore-not-found", "--timeout=90s")
	return errors.Join(definitions, namespace)
}

// TestHelm is one story: one Helm command installs Herald, Herald serves, is upgraded together with its
// CustomResourceDefinitions, and is uninstalled.
func TestHelm(t *testing.T) {
	f := onlyOnKind(t)
	const address = "198.18.0.200"
	all := names(f.site)
	f.withoutHerald()

	// An older chart: its kinds had no category.
	const category = "    categories:\n    - herald\n"
	before := filepath.Join(t.TempDir(), "herald")
	f.must(os.CopyFS(before, os.DirFS(chart)))
	definitions, err := os.ReadFile(filepath.Join(before, "crds", "crds.yaml"))
	f.must(err)
	f.must(os.WriteFile(filepath.Join(before, "crds", "crds.yaml"), bytes.ReplaceAll(definitions, []byte(category), nil), 0o600))
	categories := func() string {
		out, err := f.access.Kubectl(f.ctx, "get", "crd", "ippools.herald.dev", "-o", "jsonpath={.spec.names.categories}")
		f.must(err)
		return out
	}

	f.documented("build/bin/helm install herald " + before + " --namespace herald-system --create-namespace --wait --timeout 3m " +
		"--set 'pools.segment.addresses={198.18.0.200-198.18.0.250}'")
	if had := categories(); had != "" {
		t.Fatalf("the definitions of before have the categories %s", had)
	}
	f.pod("pod-1", all[0])
	f.service("web", to8080)
	f.holds("web", address)
	f.answeredBy(address, all...)
	f.reached(f.site.Segment, address+":9000")

	said, err := f.access.Shell(f.ctx, "cd ..\nexport PATH=$PWD/build/bin:$PATH\n"+blockOf(t, "docs/install.md", "helm test"))
	f.must(err)
	t.Log(said)
	for _, want := range []string{
		"198.18.0.201: a pod of herald-ccm answers this pod on node ", "198.18.0.201: node k8s-node", "Proved: the network is told",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("helm test does not say %q:\n%s", want, said)
		}
	}
	f.eventually("nothing is left of the test", func(ctx context.Context) error {
		left, err := f.access.Kubectl(ctx, "get", "services,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,ipallocations.herald.dev", "-A", "-o", "name")
		if err == nil && strings.Contains(left, "herald-test") {
			err = fmt.Errorf("there are\n%s", left)
		}
		return err
	})

	f.documented("build/bin/helm upgrade herald manifests/charts/herald --namespace herald-system --reuse-values --set ccm.replicas=1 --wait --timeout 3m")
	if has := categories(); has != `["herald"]` {
		t.Errorf("after the upgrade the definitions have the categories %q", has)
	}
	f.holds("web", address)
	f.reached(f.site.Segment, address+":9000")

	f.edit("web", func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeClusterIP })
	f.eventually("the Service is let go", func(context.Context) error {
		if finalizers := f.get("web").Finalizers; len(finalizers) > 0 {
			return fmt.Errorf("it has %v", finalizers)
		}
		return nil
	})
	f.kubectl("delete", "ippools.herald.dev", "--all", "--timeout=30s") // herald-ccm still runs and can remove the finalizers.
	f.documented("build/bin/helm uninstall herald --namespace herald-system --wait --timeout 3m")
	f.answeredBy(address)
	out, err := f.access.Kubectl(f.ctx, "get", "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings,ippools.herald.dev,l2advertisements.herald.dev", "-o", "name")
	f.must(err)
	if left := slices.DeleteFunc(strings.Fields(out), func(name string) bool { return !strings.Contains(name, "herald") }); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	f.kubectl("get", "namespace", lab.PeersNamespace) // It has the users' Secrets and must stay.
}

// TestIPv6Only is about a cluster without IPv4, with a session over IPv6 to each router.
func TestIPv6Only(t *testing.T) {
	if !onKind() {
		t.Skip("a story of kind: make e2e")
	}
	f := withKindOf(t, kind.IPv6, lab.Options{Routers: []router.Kind{lab.FRR, lab.BIRD}})
	const address, target = "2001:db8:51::", "[2001:db8:51::]:9000"
	all := names(f.site)
	for _, r := range f.site.Routers {
		peer := peerOf(r)
		peer.Spec.Address = r.IPv6.String()
		_, err := f.herald.BGPPeers.Create(f.ctx, peer, metav1.CreateOptions{})
		f.must(err)
	}
	_, err := f.herald.BGPAdvertisements.Create(f.ctx, &herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "all"}}, metav1.CreateOptions{})
	f.must(err)
	f.pool("routed", delay(0), "198.51.100.0/24", "2001:db8:51::/112")
	f.service("web", to8080)
	f.holds("web", address)
	f.pod("pod-1", all[0])
	for _, r := range f.site.Routers {
		f.routed(r, address, all...)
	}
	f.served("web")
	f.reached(f.site.Outside, target)
	f.edit("web", local)
	for _, r := range f.site.Routers {
		f.routed(r, address, all[0])
	}
	// kube-proxy may apply the policy a second after the speaker.
	f.eventually("the pod sees the client's own address", func(ctx context.Context) error {
		r, err := f.site.Outside.Get(ctx, target)
		if err == nil && r.Client != f.site.Outside.IPv6 {
			err = fmt.Errorf("it sees %v", r.Client)
		}
		return err
	})
	f.must(f.access.SetReady(f.ctx, "default", "pod-1", false))
	for _, r := range f.site.Routers {
		f.routed(r, address)
	}
}
