package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// installPolicies applies Herald's admission policies, which need its custom resources, and returns when
// the API server enforces them: it takes them up with a delay.
func (c *ControlPlane) installPolicies(ctx context.Context) error {
	yaml, err := os.ReadFile(filepath.Join(c.options.Root, "manifests", "policies", "ippools.yaml"))
	if err != nil {
		return err
	}
	if err := c.Apply(ctx, string(yaml)); err != nil {
		return err
	}
	reversed := &herald.IPPool{
		ObjectMeta: metav1.ObjectMeta{Name: "reversed"},
		Spec:       herald.IPPoolSpec{Addresses: []herald.AddressRange{"198.51.100.2-198.51.100.1"}},
	}
	return Eventually(ctx, func(ctx context.Context) error {
		if _, err := c.Herald.Pools.Create(ctx, reversed, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err == nil {
			return errors.New("the API server does not enforce the policy ippools.herald.dev")
		}
		return nil
	})
}
