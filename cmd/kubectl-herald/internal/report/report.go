// Package report computes the output of kubectl herald from API objects. Each report is a value that can be written as JSON
// or YAML for programs, and has a text for people. Nothing here reads a cluster, a file or a clock.
package report

import (
	"iter"
	"slices"

	corev1 "k8s.io/api/core/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
	"github.com/heraldlb/herald/provider"
)

// CCM describes how herald-ccm is run, according to its flags: which Services it serves, how it reads them, and the quota
// of namespaces.
type CCM struct {
	Class     string
	Classless bool
	Foreign   provider.Foreign
	Quota     ipam.Limits
}

// Serves reports whether a Service is of type LoadBalancer and of herald-ccm's class.
func (c *CCM) Serves(svc *corev1.Service) bool {
	return provider.Serves(svc, c.Class, c.Classless)
}

// announces reports whether another controller gives a Service its addresses, and a pool admits its class.
func (c *CCM) announces(svc *corev1.Service, pools iter.Seq[*herald.IPPool]) bool {
	if !provider.Elsewhere(svc, c.Class) {
		return false
	}
	for o := range pools {
		if slices.Contains(o.Spec.AnnounceClasses, *svc.Spec.LoadBalancerClass) {
			return true
		}
	}
	return false
}
