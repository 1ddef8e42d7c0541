package migrate

import (
	"slices"
	"strings"
)

// kubeVIPSays are annotations that kube-vip itself writes.
var kubeVIPSays = []string{"vipHost", "hwaddr", "requestedIP", "active-endpoint", "active-endpoint-ipv6", "egress-nftables-table"}

const kubeVIPPrefix = "kube-vip.io/"

func kubeVIPAnnotations(s *service) map[string]string { return s.given(kubeVIPPrefix) }

func kubeVIPAnnotation(s *service, name, value string) {
	key := kubeVIPPrefix + name
	switch {
	case slices.Contains(kubeVIPSays, name):
	case name == "loadbalancerIPs" && slices.ContainsFunc(strings.Split(value, ","), unspecified):
		s.cannot("%s: 0.0.0.0 and :: ask for an address by DHCP, which Herald does not do: leave it to the pool, or ask for an address", key)
	case name == "loadbalancerIPs":
		s.wants(s.requested(key, value))
	case name == "ignore":
		s.cannot("%s: a Service that Herald is to leave alone has another spec.loadBalancerClass: create it again with one", key)
	case name == "serviceInterface":
		s.approximated("%s: a Service of Herald's does not choose an interface: name %s in spec.interfaces of an L2Advertisement whose spec.serviceSelector selects it, or leave it out where its subnet holds the address", key, value)
	case name == "allow-reconcile-without-endpoints":
		s.approximated("%s: the advertisement says so for all its Services, by spec.withoutEndpoints", key)
	case name == "forcePerServiceElection" || name == "leaseName":
		// In Herald every address has its own owner.
	default:
		s.cannot("the annotation %s: Herald has nothing like it: see whether the Service works without it", key)
	}
}

func unspecified(text string) bool {
	a, err := addressOf(text)
	return err == nil && a.IsUnspecified()
}
