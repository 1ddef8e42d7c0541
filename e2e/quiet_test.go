package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// TestAWaitingServiceGetsOneEvent checks that a Service that cannot be served gets one event, whatever happens to other objects.
func TestAWaitingServiceGetsOneEvent(t *testing.T) {
	c, _, _ := withCCM(t)
	c.pool("public", delay(0), "198.51.100.0")
	c.service("first")
	c.holds("first", "198.51.100.0")
	c.service("waiting")
	c.service("elsewhere", annotated(herald.AnnotationIPs, "203.0.113.1"))
	c.service("picky", annotated(herald.AnnotationIPs, "198.51.100.0"))
	waiting := []string{"waiting", "elsewhere", "picky"}
	for _, name := range waiting {
		c.event("Service", name, "SyncLoadBalancerFailed", "")
	}
	for i := range 15 {
		c.eventually("the pool is edited", func(ctx context.Context) error {
			p, err := c.herald.Pools.Get(ctx, "public", metav1.GetOptions{})
			if err != nil {
				return err
			}
			p.Labels = map[string]string{"edit": fmt.Sprint(i)}
			p.Spec.Priority = int32(i)
			p.Spec.ServiceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"edit": fmt.Sprint(i)}}
			_, err = c.herald.Pools.Update(ctx, p, metav1.UpdateOptions{})
			return err
		})
		for _, name := range waiting {
			c.edit(name, func(svc *corev1.Service) { svc.Labels = map[string]string{"edit": fmt.Sprint(i % 7)} })
		}
		_, err := c.kube.CoreV1().Namespaces().Patch(c.ctx, "default", "application/merge-patch+json",
			fmt.Appendf(nil, `{"metadata":{"labels":{"edit":"%d"}}}`, i), metav1.PatchOptions{})
		c.must(err)
		pause(c.ctx, 250*time.Millisecond) // Without the pause herald-ccm would handle many edits as one.
	}
	// Finally a pool serves one of them. When it is served, herald-ccm has handled all earlier changes.
	c.pool("more", delay(0), "198.51.100.1")
	c.holds("waiting", "198.51.100.1")
	for _, name := range waiting {
		if n := c.times("Service", name, "SyncLoadBalancerFailed"); n > 2 {
			t.Errorf("Service %s says %d times that it cannot be served, want once", name, n)
		}
	}
}

// times returns how often an event occurred.
func (c *cluster) times(kind, name, reason string) (n int32) {
	c.t.Helper()
	list, err := c.kube.CoreV1().Events("default").List(c.ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=" + kind + ",involvedObject.name=" + name})
	c.must(err)
	for _, e := range list.Items {
		if e.Reason == reason {
			n += max(e.Count, 1)
		}
	}
	return n
}
