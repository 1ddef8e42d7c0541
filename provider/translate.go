package provider

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// translate says in ipam's terms what a Service wants. What it asks for explicitly (the annotation
// herald.dev/ips, spec.loadBalancerIP) is in Addresses. An error is the user's, and says what to change.
func translate(svc *corev1.Service) (ipam.Request, error) {
	req := ipam.Request{
		Owner:   owner(svc),
		Subject: ipam.Subject{Namespace: svc.Namespace, Labels: svc.Labels},
		Pool:    svc.Annotations[herald.AnnotationPool],
		// One family of a dual-stack Service may be missing only if the user said "prefer".
		RequireAll: svc.Spec.IPFamilyPolicy == nil || *svc.Spec.IPFamilyPolicy != corev1.IPFamilyPolicyPreferDualStack,
	}
	for _, f := range svc.Spec.IPFamilies {
		switch f {
		case corev1.IPv4Protocol:
			req.Families = append(req.Families, ipam.IPv4)
		case corev1.IPv6Protocol:
			req.Families = append(req.Families, ipam.IPv6)
		}
	}
	field, value := "annotation "+herald.AnnotationIPs, svc.Annotations[herald.AnnotationIPs]
	if value == "" {
		field, value = "spec.loadBalancerIP", svc.Spec.LoadBalancerIP
	}
	if value == "" {
		return req, nil
	}
	for text := range strings.SplitSeq(value, ",") {
		address, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil || address.Zone() != "" {
			return req, fmt.Errorf("%s: %q is no IP address: write addresses separated by commas, one per family", field, strings.TrimSpace(text))
		}
		family := ipam.FamilyOf(address)
		if !slices.Contains(req.Families, family) {
			return req, fmt.Errorf("%s: %s is %s, but spec.ipFamilies is %v: ask for an address of that family, or add the family to the Service",
				field, address, family, svc.Spec.IPFamilies)
		}
		if slices.ContainsFunc(req.Addresses, func(a netip.Addr) bool { return ipam.FamilyOf(a) == family }) {
			return req, fmt.Errorf("%s: %q has two %s addresses: a Service gets one of each family", field, value, family)
		}
		req.Addresses = append(req.Addresses, address)
	}
	return req, nil
}

func owner(svc *corev1.Service) ipam.Owner {
	return ipam.Owner{Namespace: svc.Namespace, Name: svc.Name, UID: string(svc.UID)}
}

// carried lists the addresses in the status of a Service.
func carried(svc *corev1.Service) []netip.Addr {
	var addresses []netip.Addr
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(ingress.IP); err == nil {
			addresses = append(addresses, a)
		}
	}
	return addresses
}

// status is what a Service with these addresses says. IPMode is given since the API server would
// otherwise fill it in, and the service controller would see a difference at every sync.
func status(allocations []ipam.Allocation) *corev1.LoadBalancerStatus {
	s := &corev1.LoadBalancerStatus{}
	for _, a := range allocations {
		vip := corev1.LoadBalancerIPModeVIP
		s.Ingress = append(s.Ingress, corev1.LoadBalancerIngress{IP: a.Address.String(), IPMode: &vip})
	}
	return s
}
