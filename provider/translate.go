package provider

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// Serves reports whether a Service is of type LoadBalancer and has this class or, if classless is true, no class.
func Serves(svc *corev1.Service, class string, classless bool) bool {
	switch {
	case svc.Spec.Type != corev1.ServiceTypeLoadBalancer:
		return false
	case svc.Spec.LoadBalancerClass == nil:
		return classless
	}
	return *svc.Spec.LoadBalancerClass == class
}

// Elsewhere reports whether a Service is of type LoadBalancer and of another class than this one, so that another controller
// gives it its addresses.
func Elsewhere(svc *corev1.Service, class string) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.Spec.LoadBalancerClass != nil && *svc.Spec.LoadBalancerClass != class
}

// RequestElsewhere returns the request for the addresses that another controller gave a Service: see [ipam.Allocator.Claim].
// namespace and quota are those of RequestOf. An error is for the user, says what to change, and concerns all addresses of
// the request.
func RequestElsewhere(svc *corev1.Service, namespace *corev1.Namespace, quota ipam.Limits) (ipam.Request, error) {
	req := ipam.Request{
		Owner:   owner(svc),
		Subject: ipam.Subject{Namespace: svc.Namespace, Labels: svc.Labels},
		Class:   *svc.Spec.LoadBalancerClass,
		Sharing: sharing(svc),
	}
	of, seen := map[ipam.Family]int{}, map[netip.Addr]bool{} // A status may have tens of thousands of addresses.
	for _, a := range Carried(svc) {
		if seen[a] {
			continue
		}
		seen[a] = true
		f := ipam.FamilyOf(a)
		if of[f]++; of[f] == 1 {
			req.Families = append(req.Families, f)
		}
		req.Addresses, req.Count = append(req.Addresses, a), max(req.Count, of[f])
	}
	if namespace != nil {
		req.Subject.NamespaceLabels = namespace.Labels
	}
	var err error
	if req.Quota, req.QuotaFrom, err = quotaOf(namespace, quota); err != nil {
		return req, err
	}
	if _, err := reclaimOf(svc); err != nil {
		return req, err
	}
	if err := checkSharing("annotation "+Written(svc, herald.AnnotationSharingKey), req.Sharing); err != nil {
		return req, err
	}
	if req.Count > maxAddresses {
		return req, fmt.Errorf("status.loadBalancer has more than %d addresses of one family: have the controller of the class give fewer", maxAddresses)
	}
	for _, i := range svc.Status.LoadBalancer.Ingress {
		if i.IP != "" && i.IPMode != nil && *i.IPMode == corev1.LoadBalancerIPModeProxy {
			return req, fmt.Errorf("status.loadBalancer gives %s the ipMode Proxy, with which nodes do not forward it: have the controller of the class give the ipMode VIP", quote(i.IP))
		}
	}
	return req, nil
}

// RequestOf returns the request of a Service, with everything that pools select by. The quota is that of the namespace or,
// if it sets none, the given one of the cluster. namespace may be nil if it is not known. An error is for the user, and
// says what to change.
func RequestOf(svc *corev1.Service, namespace *corev1.Namespace, quota ipam.Limits) (ipam.Request, error) {
	req, err := translate(svc)
	if err != nil {
		return req, err
	}
	if namespace != nil {
		req.Subject.NamespaceLabels = namespace.Labels
	}
	req.Quota, req.QuotaFrom, err = quotaOf(namespace, quota)
	return req, err
}

// translate turns a Service into a request, as far as the Service alone determines it. Addresses that the Service asks for
// explicitly (with the annotation herald.dev/ips or spec.loadBalancerIP) are in Addresses.
func translate(svc *corev1.Service) (ipam.Request, error) {
	req := ipam.Request{
		Owner:   owner(svc),
		Subject: ipam.Subject{Namespace: svc.Namespace, Labels: svc.Labels},
		Pool:    svc.Annotations[herald.AnnotationPool],
		// Only with PreferDualStack may a family of a dual-stack Service be missing.
		RequireAll: svc.Spec.IPFamilyPolicy == nil || *svc.Spec.IPFamilyPolicy != corev1.IPFamilyPolicyPreferDualStack,
		Sharing:    sharing(svc),
	}
	for _, f := range svc.Spec.IPFamilies {
		switch f {
		case corev1.IPv4Protocol:
			req.Families = append(req.Families, ipam.IPv4)
		case corev1.IPv6Protocol:
			req.Families = append(req.Families, ipam.IPv6)
		}
	}
	if len(req.Pool) > maxName {
		return req, fmt.Errorf("annotation %s: %s is too long for the name of an IPPool", Written(svc, herald.AnnotationPool), quote(req.Pool))
	}
	if _, err := reclaimOf(svc); err != nil {
		return req, err
	}
	if err := checkSharing("annotation "+Written(svc, herald.AnnotationSharingKey), req.Sharing); err != nil {
		return req, err
	}
	var err error
	if req.Leave, err = parseIPs("annotation "+herald.AnnotationRenumber, svc.Annotations[herald.AnnotationRenumber]); err != nil {
		return req, err
	}
	if req.Count, err = countOf(svc); err != nil {
		return req, err
	}
	field, value := "annotation "+Written(svc, herald.AnnotationIPs), svc.Annotations[herald.AnnotationIPs]
	if value == "" {
		field, value = "spec.loadBalancerIP", svc.Spec.LoadBalancerIP
	}
	wanted, err := parseIPs(field, value)
	if err != nil {
		return req, err
	}
	for _, address := range wanted {
		family := ipam.FamilyOf(address)
		if !slices.Contains(req.Families, family) {
			return req, fmt.Errorf("%s: %s is %s, but spec.ipFamilies is %v: ask for an address of that family, or add the family to the Service",
				field, address, family, svc.Spec.IPFamilies)
		}
		if same := slices.DeleteFunc(slices.Clone(req.Addresses), func(a netip.Addr) bool { return ipam.FamilyOf(a) != family }); len(same) == req.Count {
			return req, fmt.Errorf("%s: it has more than %d %s addresses, and the Service gets %[2]d of each family: list fewer, or ask for more by annotation %[4]s",
				field, req.Count, family, herald.AnnotationAddresses)
		}
		req.Addresses = append(req.Addresses, address)
	}
	return req, nil
}

// readAs is a prefix for the keys of Herald's annotations. Under the resulting key [Foreign.Read] stores the key of the
// annotation that the user wrote. The API server allows no spaces in keys, so users cannot write such an annotation.
const readAs = "read as "

// Written returns the key of the annotation that a user wrote to set this annotation of Herald.
func Written(svc *corev1.Service, key string) string {
	return cmp.Or(svc.Annotations[readAs+key], key)
}

// countOf returns how many addresses of each family a Service asks for.
func countOf(svc *corev1.Service) (int, error) {
	text, given := svc.Annotations[herald.AnnotationAddresses]
	if !given {
		return 1, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxAddresses {
		return 1, fmt.Errorf("annotation %s: %s is not a number of addresses: write one from 1 to %d", herald.AnnotationAddresses, quote(text), maxAddresses)
	}
	return n, nil
}

// wanted returns how many addresses a Service asks for, over all families.
func wanted(req ipam.Request) int { return req.Count * len(req.Families) }

// reclaimOf returns the reclaim policy that a Service sets; empty if it is invalid.
func reclaimOf(svc *corev1.Service) (herald.ReclaimPolicy, error) {
	switch said := herald.ReclaimPolicy(svc.Annotations[herald.AnnotationReclaim]); said {
	case "", herald.ReclaimDelete, herald.ReclaimRetain:
		return said, nil
	default:
		return "", fmt.Errorf("annotation %s: %s is not a reclaim policy: write %s or %s",
			herald.AnnotationReclaim, quote(string(said)), herald.ReclaimDelete, herald.ReclaimRetain)
	}
}

// maxName is the most bytes that the name of an object may have.
const maxName = 253

// maxAddresses is the most addresses of each family that an annotation of a Service may list and that a Service may ask
// for.
const maxAddresses = 16

// parseIPs parses addresses that are separated by commas, at most maxAddresses of each family.
func parseIPs(field, value string) (all []netip.Addr, err error) {
	if value == "" {
		return nil, nil
	}
	listed := map[ipam.Family]int{}
	for text := range strings.SplitSeq(value, ",") {
		address, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil || address.Zone() != "" {
			return nil, fmt.Errorf("%s: %s is not an IP address: write addresses separated by commas", field, quote(strings.TrimSpace(text)))
		}
		family := ipam.FamilyOf(address)
		if listed[family]++; listed[family] > maxAddresses {
			return nil, fmt.Errorf("%s lists more than %d %s addresses: list %[2]d at most", field, maxAddresses, family)
		}
		all = append(all, address)
	}
	return all, nil
}

// The limits in the schema of IPAllocation for the terms of a Service that shares an address.
const (
	maxSharingKey = 253
	maxTraffic    = 4096
	maxPorts      = 1024
)

// checkSharing refuses terms that the API server would not accept in a record.
func checkSharing(field string, s ipam.Sharing) error {
	switch {
	case len(s.Key) > maxSharingKey:
		return fmt.Errorf("%s: %s has %d bytes: write a key of %d at most", field, quote(s.Key), len(s.Key), maxSharingKey)
	case !utf8.ValidString(s.Key) || strings.ContainsFunc(s.Key, unicode.IsControl):
		return fmt.Errorf("%s: %s has control characters: write a key of printable characters", field, quote(s.Key))
	case len(s.Traffic) > maxTraffic:
		return fmt.Errorf("%s: spec.selector is too long for a Service with externalTrafficPolicy Local that shares an address: "+
			"shorten it, or remove the annotation", field)
	case len(s.Ports) > maxPorts:
		return fmt.Errorf("%s: the Service has %d ports, and one that shares an address may have %d: remove the annotation", field, len(s.Ports), maxPorts)
	}
	return nil
}

// sharing returns the terms on which a Service shares addresses.
func sharing(svc *corev1.Service) ipam.Sharing {
	s := ipam.Sharing{Key: svc.Annotations[herald.AnnotationSharingKey]}
	if s.Key == "" {
		return s
	}
	s.Traffic = "Cluster"
	if svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		// Packets arrive at the nodes that have endpoints of one Service, so the other Services must have endpoints on the
		// same nodes. A Service without a selector has endpoints of its own.
		s.Traffic = fmt.Sprintf("Local in %s: %s", svc.Namespace, labels.Set(svc.Spec.Selector))
		if len(svc.Spec.Selector) == 0 {
			s.Traffic += svc.Name + " without a selector"
		}
	}
	s.Ports = portsOf(svc)
	ipam.SortPorts(s.Ports)
	return s
}

func portsOf(svc *corev1.Service) (ports []ipam.Port) {
	for _, p := range svc.Spec.Ports {
		ports = append(ports, ipam.Port{Protocol: string(p.Protocol), Number: uint16(p.Port)})
	}
	return ports
}

func owner(svc *corev1.Service) ipam.Owner {
	return ipam.Owner{Namespace: svc.Namespace, Name: svc.Name, UID: string(svc.UID)}
}

// Carried lists the addresses in the status of a Service.
func Carried(svc *corev1.Service) []netip.Addr {
	var addresses []netip.Addr
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(ingress.IP); err == nil {
			addresses = append(addresses, a)
		}
	}
	return addresses
}

// status returns the status of a Service with these addresses. It sets IPMode, because the API server would otherwise fill
// it in, and the service controller would see a difference at every sync.
func status(allocations []ipam.Allocation) *corev1.LoadBalancerStatus {
	s := &corev1.LoadBalancerStatus{}
	for _, a := range allocations {
		vip := corev1.LoadBalancerIPModeVIP
		s.Ingress = append(s.Ingress, corev1.LoadBalancerIngress{IP: a.Address.String(), IPMode: &vip})
	}
	return s
}
