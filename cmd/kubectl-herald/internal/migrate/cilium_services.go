package migrate

import (
	"maps"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// ciliumAnnotations returns Cilium's annotations of a Service. Their old prefix was
// io.cilium/lb-ipam-.
func ciliumAnnotations(s *service) map[string]string {
	given := s.given("io.cilium/lb-ipam-")
	maps.Copy(given, s.given("lbipam.cilium.io/"))
	return given
}

func ciliumAnnotation(s *service, name, value string) {
	switch name {
	case "ips":
		s.wants(s.requested("lbipam.cilium.io/ips", value))
	case "sharing-key":
		s.want(herald.AnnotationSharingKey, value)
	case "sharing-cross-namespace":
		s.approximated("lbipam.cilium.io/sharing-cross-namespace: in Herald the pool says whether Services of different namespaces may share an address, by spec.shareAcrossNamespaces, and not with which")
	default:
		s.cannot("the annotation lbipam.cilium.io/%s is not known: look what it does", name)
	}
}
