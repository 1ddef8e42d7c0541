// Package report computes what kubectl herald says: API objects go in, a report comes out, for programs as a value that
// is written as JSON or YAML, and for people as text. Nothing here reads a cluster, a file or a clock.
package report

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/ipam"
	"github.com/heraldlb/herald/provider"
)

// CCM is how herald-ccm is run, as its flags say: which Services it serves, how it reads them, and what a namespace may hold.
type CCM struct {
	Class     string
	Classless bool
	Foreign   provider.Foreign
	Quota     ipam.Limits
}

// serves reports whether a Service is of type LoadBalancer and of herald-ccm's class.
func (c *CCM) serves(svc *corev1.Service) bool {
	return provider.Serves(svc, c.Class, c.Classless)
}
