package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
)

// withCCM starts an API server and herald-ccm. The story has no nodes and no packets, so it runs in parallel with others
// of its kind, after the stories that need the machine for themselves.
func withCCM(t *testing.T, args ...string) (*cluster, *lab.ControlPlane, *lab.Process) {
	t.Helper()
	t.Parallel()
	ctx, plane := startControlPlane(t, false)
	// Without a Node, the service controller writes an event for every sync.
	if _, err := plane.Client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ccm, err := plane.StartCCM(append([]string{"--secure-port=0"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(tail(ccm.Log()))
		}
	})
	return clusterOf(t, ctx, &plane.Access), plane, ccm
}

func setStatus(c *cluster, name string, ips ...string) error {
	patch := `{"status":{"loadBalancer":{"ingress":[` + strings.Join(quoteIngress(ips), ",") + `]}}}`
	_, err := c.services().Patch(c.ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	return err
}

func quoteIngress(ips []string) []string {
	var list []string
	for _, ip := range ips {
		list = append(list, fmt.Sprintf(`{"ip":%q}`, ip))
	}
	return list
}

// gone waits until a Service is gone.
func (c *cluster) gone(name string) {
	c.t.Helper()
	c.eventually("Service "+name+" is gone", func(ctx context.Context) error {
		_, err := c.services().Get(ctx, name, metav1.GetOptions{})
		return missing(err)
	})
}

// unrecorded waits until an address has no record.
func (c *cluster) unrecorded(address string) {
	c.t.Helper()
	c.eventually(address+" is free", func(ctx context.Context) error {
		_, err := c.herald.Allocations.Get(ctx, herald.AllocationName(netip.MustParseAddr(address)), metav1.GetOptions{})
		return missing(err)
	})
}

func missing(err error) error {
	switch {
	case err == nil:
		return errors.New("it is still there")
	case apierrors.IsNotFound(err):
		return nil
	}
	return err
}

// allAddresses returns the addresses of all Services that have one, by name.
func (c *cluster) allAddresses() map[string]string {
	c.t.Helper()
	list, err := c.services().List(c.ctx, metav1.ListOptions{})
	c.must(err)
	all := map[string]string{}
	for _, svc := range list.Items {
		if a := addresses(&svc); len(a) > 0 {
			all[svc.Name] = strings.Join(a, ",")
		}
	}
	return all
}

// tail returns the end of a log, or the report of the race detector.
func tail(log string) string { return lab.Tail(log, 40) }
