package provider

import (
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// quotaOf returns the limits of a namespace for all pools together, and where they are set.
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

// Quota is the value of the flag --namespace-quota.
type Quota struct {
	text   string
	Limits ipam.Limits
}

// String returns the value of the flag.
func (q *Quota) String() string { return q.text }

// Set parses the flag: see [ParseQuota].
func (q *Quota) Set(text string) (err error) {
	q.text = text
	q.Limits, err = ParseQuota(text)
	return err
}

// Type returns the name of the type in the help text.
func (q *Quota) Type() string { return "quota" }

// ParseQuota parses limits such as "ipv4=5,ipv6=10". A family that is left out is not limited.
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
			return nil, fmt.Errorf("%s is not a quota: write ipv4=5,ipv6=10, or one of these", quote(part))
		}
		limits[family] = n
	}
	return limits, nil
}
