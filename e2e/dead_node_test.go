package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/e2e/lab"
)

// TestWhatFollowsTheDeathOfANode cuts off a node that owns an address and has endpoints, with externalTrafficPolicy
// Cluster. The address moves at once. But the other nodes continue to send connections to the endpoint on the dead node
// until its pod is not ready. herald-ccm marks the pod as soon as the neighbours report the death; otherwise Kubernetes
// marks it after about 45 s.
func TestWhatFollowsTheDeathOfANode(t *testing.T) {
	if !onKind() {
		t.Skip("it takes real kubelets and the node lifecycle controller")
	}
	f := withHerald(t, lab.Options{})
	const address, target = "198.18.0.200", "198.18.0.200:9000"
	f.announce()
	f.pool("segment", delay(0), "198.18.0.200-198.18.0.250")
	for i, name := range names(f.site) {
		f.pod(fmt.Sprintf("pod-%d", i), name)
	}
	f.service("web", to8080)
	f.holds("web", address)
	f.served("web")

	withOption := f.recovery(address, target)
	t.Logf("with --mark-pods-on-dead-nodes the last request failed %v after the death", withOption)
	if withOption > 15*time.Second {
		t.Errorf("requests failed for %v, though the pods on the dead node were to be marked not ready at once", withOption)
	}
	if os.Getenv("HERALD_SOAK") == "" {
		return // The rest is a measurement for comparison.
	}
	_, err := f.access.Kubectl(f.ctx, "patch", "deployment", "herald-ccm", "-n", lab.HeraldNamespace, "--type=json",
		"-p", `[{"op":"replace","path":"/spec/template/spec/containers/0/args","value":["--authentication-skip-lookup"]}]`)
	f.must(err)
	t.Cleanup(func() { f.must(shared.Manifests(context.Background(), "apply", "--server-side", "--force-conflicts")) })
	_, err = f.access.Kubectl(f.ctx, "rollout", "status", "-n", lab.HeraldNamespace, "deployment/herald-ccm", "--timeout=2m")
	f.must(err)
	t.Logf("without it the last request failed %v after the death", f.recovery(address, target))
}

// recovery cuts off the node that owns the address, and returns the time from the cut to the last failed request. It then
// heals the node and waits until its pods are ready again.
func (f *field) recovery(address, target string) time.Duration {
	f.t.Helper()
	leader := f.leaderNode()
	all := names(f.site)
	// The leader must survive, because a new leader would wait for the old one's Lease to expire.
	f.label(leader, corev1.LabelNodeExcludeBalancers, "")
	owner := f.answeredBy(address, without(all, leader)...)
	f.unlabel(leader, corev1.LabelNodeExcludeBalancers)
	f.reached(f.site.Segment, target)
	opener := f.site.Segment.Open(f.ctx, target, 20*time.Millisecond)
	began := time.Now()
	f.must(f.site.Node(owner).Cut())
	f.eventually("no pod on the dead node is ready", func(ctx context.Context) error {
		list, err := f.kube.CoreV1().Pods("default").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + owner})
		if err != nil {
			return err
		}
		for _, p := range list.Items {
			for _, c := range p.Status.Conditions {
				if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
					return fmt.Errorf("%s is", p.Name)
				}
			}
		}
		return nil
	})
	f.pass(3 * time.Second) // Time for the nodes to write their rules.
	var last time.Duration
	attempts := opener.Stop()
	for _, a := range attempts {
		if a.Err != nil {
			last = a.Start.Sub(began)
		}
	}
	f.t.Logf("%s cut off: %v", owner, attempts)
	f.must(f.site.Node(owner).Heal())
	f.eventually("all pods are ready again", func(ctx context.Context) error {
		list, err := f.kube.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, p := range list.Items {
			ready := false
			for _, c := range p.Status.Conditions {
				ready = ready || c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
			}
			if !ready {
				return fmt.Errorf("%s is not", p.Name)
			}
		}
		return nil
	})
	return last
}

// leaderNode returns the node on which the leading herald-ccm runs.
func (f *field) leaderNode() (node string) {
	f.t.Helper()
	f.eventually("herald-ccm has a leader", func(ctx context.Context) error {
		lease, err := f.kube.CoordinationV1().Leases(lab.HeraldNamespace).Get(ctx, "herald-ccm", metav1.GetOptions{})
		if err != nil {
			return err
		}
		pods, err := f.kube.CoreV1().Pods(lab.HeraldNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=herald-ccm"})
		if err != nil {
			return err
		}
		for _, p := range pods.Items {
			if h := lease.Spec.HolderIdentity; h != nil && len(*h) > len(p.Name) && (*h)[:len(p.Name)] == p.Name {
				node = p.Spec.NodeName
				return nil
			}
		}
		return errors.New("no pod holds the Lease")
	})
	return node
}
