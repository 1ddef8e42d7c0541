package migrate

import (
	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// metalLBAnnotations returns MetalLB's annotations of a Service. Their old prefix was
// metallb.universe.tf/.
func metalLBAnnotations(s *service) map[string]string {
	const prefix, old = metalLBGroup + "/", "metallb.universe.tf/"
	given, before := s.given(prefix), s.given(old)
	for _, name := range sortedKeys(before) {
		if value, twice := given[name]; twice && value != before[name] {
			s.approximated("%s%s: %s%s says something else, and that is taken", old, name, prefix, name)
		} else {
			given[name] = before[name]
		}
	}
	return given
}

func metalLBAnnotation(s *service, name, value string) {
	switch name {
	case "loadBalancerIPs":
		s.wants(s.requested(metalLBGroup+"/"+name, value))
	case "address-pool":
		s.want(herald.AnnotationPool, value)
	case "allow-shared-ip":
		s.want(herald.AnnotationSharingKey, value)
	case "ip-allocated-from-pool": // MetalLB writes it itself.
	default:
		s.cannot("the annotation %s/%s is not known: look what it does", metalLBGroup, name)
	}
}
