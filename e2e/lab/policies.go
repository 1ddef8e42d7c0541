package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// applyPolicies applies Herald's admission policies.
func (c *ControlPlane) applyPolicies(ctx context.Context) error {
	yaml, err := os.ReadFile(filepath.Join(c.options.Root, "manifests", "policies", "ippools.yaml"))
	if err != nil {
		return err
	}
	return c.Apply(ctx, string(yaml))
}

// awaitPolicies returns when the API server enforces the policies: it takes them up with a delay.
func (c *ControlPlane) awaitPolicies(ctx context.Context) error {
	reversed := &herald.IPPool{
		ObjectMeta: metav1.ObjectMeta{Name: "reversed"},
		Spec:       herald.IPPoolSpec{Addresses: []herald.AddressRange{"198.51.100.2-198.51.100.1"}},
	}
	return Eventually(ctx, func(ctx context.Context) error {
		_, err := c.Herald.Pools.Create(ctx, reversed, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		switch {
		case err == nil:
			return errors.New("the API server does not enforce the policy ippools.herald.dev")
		case apierrors.IsInvalid(err):
			return nil
		}
		return err
	})
}
