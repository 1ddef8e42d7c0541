package provider

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// Serves reports whether a Service is of type LoadBalancer and of this class or, where those are served, of none.
func Serves(svc *corev1.Service, class string, classless bool) bool {
	switch {
	case svc.Spec.Type != corev1.ServiceTypeLoadBalancer:
		return false
	case svc.Spec.LoadBalancerClass == nil:
		return classless
	}
	return *svc.Spec.LoadBalancerClass == class
}

// RequestOf says what a Service asks for, with all that pools choose by. The quota is that of its namespace or, if that
// has none, what is given as the cluster's. The namespace may be nil if it is not known. An error is the user's, and
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

// quotaOf is what a namespace may hold of all pools together, and where that is said.
func quotaOf(namespace *corev1.Namespace, cluster ipam.Limits) (_ ipam.Limits, from string, _ error) {
	if namespace == nil {
		return cluster, "herald-ccm's --namespace-quota", nil
	}
	text, own := namespace.Annotations[herald.AnnotationQuota]
	if !own {
		return cluster, "herald-ccm's --namespace-quota", nil
	}
	limits, err := ParseQuota(text)
	if err != nil {
		return nil, "", fmt.Errorf("annotation %s of Namespace %s: %w", herald.AnnotationQuota, namespace.Name, err)
	}
	return limits, fmt.Sprintf("annotation %s of the namespace", herald.AnnotationQuota), nil
}

// Quota is the flag --namespace-quota.
type Quota struct {
	text   string
	Limits ipam.Limits
}

// String returns what was set.
func (q *Quota) String() string { return q.text }

// Set reads the flag: see [ParseQuota].
func (q *Quota) Set(text string) (err error) {
	q.text = text
	q.Limits, err = ParseQuota(text)
	return err
}

// Type is what help calls it.
func (q *Quota) Type() string { return "quota" }

// ParseQuota reads "ipv4=5,ipv6=10"; a family that is left out is not limited.
func ParseQuota(text string) (ipam.Limits, error) {
	limits := ipam.Limits{}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, number, _ := strings.Cut(part, "=")
		family, known := map[string]ipam.Family{"ipv4": ipam.IPv4, "ipv6": ipam.IPv6}[name]
		n, err := strconv.ParseUint(number, 10, 63)
		if _, twice := limits[family]; !known || err != nil || twice {
			return nil, fmt.Errorf("%q is no quota: write ipv4=5,ipv6=10, or one of these", part)
		}
		limits[family] = n
	}
	return limits, nil
}

// translate says in ipam's terms what a Service wants, as far as the Service itself tells. What it asks for
// explicitly (the annotation herald.dev/ips, spec.loadBalancerIP) is in Addresses.
func translate(svc *corev1.Service) (ipam.Request, error) {
	req := ipam.Request{
		Owner:   owner(svc),
		Subject: ipam.Subject{Namespace: svc.Namespace, Labels: svc.Labels},
		Pool:    svc.Annotations[herald.AnnotationPool],
		// One family of a dual-stack Service may be missing only if the user said "prefer".
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
	if _, err := reclaimOf(svc); err != nil {
		return req, err
	}
	var err error
	if req.Leave, err = parseIPs("annotation "+herald.AnnotationRenumber, svc.Annotations[herald.AnnotationRenumber]); err != nil {
		return req, err
	}
	field, value := "annotation "+herald.AnnotationIPs, svc.Annotations[herald.AnnotationIPs]
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
		if slices.ContainsFunc(req.Addresses, func(a netip.Addr) bool { return ipam.FamilyOf(a) == family }) {
			return req, fmt.Errorf("%s: %q has two %s addresses: a Service gets one of each family", field, value, family)
		}
		req.Addresses = append(req.Addresses, address)
	}
	return req, nil
}

// reclaimOf is what a Service says of reclaiming; with an error it says nothing.
func reclaimOf(svc *corev1.Service) (herald.ReclaimPolicy, error) {
	switch said := herald.ReclaimPolicy(svc.Annotations[herald.AnnotationReclaim]); said {
	case "", herald.ReclaimDelete, herald.ReclaimRetain:
		return said, nil
	default:
		return "", fmt.Errorf("annotation %s: %q is no reclaim policy: write %s or %s",
			herald.AnnotationReclaim, said, herald.ReclaimDelete, herald.ReclaimRetain)
	}
}

// parseIPs reads addresses that are separated by commas.
func parseIPs(field, value string) (all []netip.Addr, err error) {
	if value == "" {
		return nil, nil
	}
	for text := range strings.SplitSeq(value, ",") {
		address, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil || address.Zone() != "" {
			return nil, fmt.Errorf("%s: %q is no IP address: write addresses separated by commas, one per family", field, strings.TrimSpace(text))
		}
		all = append(all, address)
	}
	return all, nil
}

// sharing is on which terms a Service shares addresses.
func sharing(svc *corev1.Service) ipam.Sharing {
	s := ipam.Sharing{Key: svc.Annotations[herald.AnnotationSharingKey]}
	if s.Key == "" {
		return s
	}
	s.Traffic = "Cluster"
	if svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		// Packets come to the nodes with endpoints of one, so these must be the other's, too. What has no selector
		// has endpoints of its own.
		s.Traffic = fmt.Sprintf("Local in %s: %s", svc.Namespace, labels.Set(svc.Spec.Selector))
		if len(svc.Spec.Selector) == 0 {
			s.Traffic += svc.Name + " without a selector"
		}
	}
	for _, p := range svc.Spec.Ports {
		s.Ports = append(s.Ports, ipam.Port{Protocol: string(p.Protocol), Number: uint16(p.Port)})
	}
	ipam.SortPorts(s.Ports)
	return s
}

func owner(svc *corev1.Service) ipam.Owner {
	return ipam.Owner{Namespace: svc.Namespace, Name: svc.Name, UID: string(svc.UID)}
}

// entry is what the record of an address says of a Service that holds it.
func entry(svc *corev1.Service) herald.AllocationOwner {
	reclaim, _ := reclaimOf(svc) // The error is told when the Service asks for something.
	o := herald.AllocationOwner{Namespace: svc.Namespace, Name: svc.Name, UID: svc.UID, ReclaimPolicy: reclaim}
	if s := sharing(svc); s.Key != "" {
		o.Sharing = &herald.AllocationSharing{Key: s.Key, Traffic: s.Traffic}
		for _, p := range s.Ports {
			o.Sharing.Ports = append(o.Sharing.Ports, p.String())
		}
	}
	return o
}

// TenantsOf says who holds an address by its record. One that is released is kept for its last owners' names until
// it has cooled down. An error is of what somebody wrote by hand.
func TenantsOf(rec *herald.IPAllocation) (netip.Addr, []ipam.Tenant, error) {
	address, err := netip.ParseAddr(rec.Spec.Address)
	if err != nil {
		return address, nil, fmt.Errorf("spec.address: %w", err)
	}
	if len(rec.Spec.Owners) == 0 {
		return address, []ipam.Tenant{{}}, nil // Reserved for nobody.
	}
	tenants := make([]ipam.Tenant, len(rec.Spec.Owners))
	for i, o := range rec.Spec.Owners {
		if tenants[i], err = tenantOf(o); err != nil {
			return address, nil, fmt.Errorf("spec.owners[%d]%w", i, err)
		}
		if rec.Spec.ReleasedAt != nil {
			tenants[i] = ipam.Tenant{Owner: tenants[i].Owner.Reservation()}
		}
	}
	return address, tenants, nil
}

// tenantOf is one owner of a record. The error begins with its field.
func tenantOf(o herald.AllocationOwner) (ipam.Tenant, error) {
	t := ipam.Tenant{Owner: ownerOf(o)}
	if o.Sharing == nil {
		return t, nil
	}
	t.Sharing = ipam.Sharing{Key: o.Sharing.Key, Traffic: o.Sharing.Traffic}
	for i, text := range o.Sharing.Ports {
		p, err := ipam.ParsePort(text)
		if err != nil {
			return t, fmt.Errorf(".sharing.ports[%d]: %w", i, err)
		}
		t.Sharing.Ports = append(t.Sharing.Ports, p)
	}
	ipam.SortPorts(t.Sharing.Ports)
	return t, nil
}

func ownerOf(o herald.AllocationOwner) ipam.Owner {
	return ipam.Owner{Namespace: o.Namespace, Name: o.Name, UID: string(o.UID)}
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
