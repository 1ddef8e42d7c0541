package main

import (
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/provider"
)

// ccm is how herald-ccm is run, as its own flags say it: what it serves, and what a namespace may hold.
type ccm struct {
	class     string
	classless bool
	quota     provider.Quota
}

func (c *ccm) bind(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.class, "load-balancer-class", herald.LoadBalancerClass, "As herald-ccm has it.")
	cmd.Flags().BoolVar(&c.classless, "serve-classless", true, "As herald-ccm has it.")
	cmd.Flags().Var(&c.quota, "namespace-quota", "As herald-ccm has it.")
}

// serves reports whether a Service is of type LoadBalancer and of herald-ccm's class.
func (c *ccm) serves(svc *corev1.Service) bool {
	return provider.Serves(svc, c.class, c.classless)
}
