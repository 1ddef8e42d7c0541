package provider

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// foreignBalancer is another load balancer, with the meaning of its annotations on Services.
type foreignBalancer struct {
	name string
	// prefixes are the prefixes of its annotations' keys. Annotations with an earlier prefix take precedence.
	prefixes []string
	// counterparts has the corresponding annotation of Herald for each name, which is the key without the prefix.
	counterparts map[string]string
	// same reports whether an annotation asks for exactly the same as its counterpart with the same value; nil means that
	// it always does.
	same func(annotations map[string]string, name, value string) bool
}

// foreignBalancers are the load balancers whose annotations Herald knows. `kubectl herald import` translates the same annotations.
var foreignBalancers = []*foreignBalancer{
	{name: "metallb", prefixes: []string{"metallb.io/", "metallb.universe.tf/"}, counterparts: map[string]string{
		"loadBalancerIPs": herald.AnnotationIPs, "address-pool": herald.AnnotationPool, "allow-shared-ip": herald.AnnotationSharingKey,
	}},
	{name: "purelb", prefixes: []string{"purelb.io/"}, counterparts: map[string]string{
		"addresses": herald.AnnotationIPs, "service-group": herald.AnnotationPool, "allow-shared-ip": herald.AnnotationSharingKey,
	}},
	{name: "kube-vip", prefixes: []string{"kube-vip.io/"}, counterparts: map[string]string{
		"loadbalancerIPs": herald.AnnotationIPs,
	}, same: withoutDHCP},
	{name: "cilium", prefixes: []string{"lbipam.cilium.io/", "io.cilium/lb-ipam-"}, counterparts: map[string]string{
		"ips": herald.AnnotationIPs, "sharing-key": herald.AnnotationSharingKey,
	}, same: withAnyNamespace},
}

// withoutDHCP reports whether an annotation of kube-vip lists real addresses. For kube-vip, 0.0.0.0, :: and "dhcp" mean an
// address from a DHCP server.
func withoutDHCP(_ map[string]string, _, value string) bool {
	number := 0
	for text := range strings.SplitSeq(value, ",") {
		if number++; number > 2*maxAddresses {
			break // Longer lists are refused.
		}
		text = strings.TrimSpace(text)
		if a, err := netip.ParseAddr(text); strings.EqualFold(text, "dhcp") || err == nil && a.IsUnspecified() {
			return false
		}
	}
	return true
}

// withAnyNamespace reports whether a Service with Cilium's annotations names no namespaces with which it shares. A pool of
// Herald lets either all namespaces share its addresses, or none.
func withAnyNamespace(annotations map[string]string, name, _ string) bool {
	if name != "sharing-key" {
		return true
	}
	with := annotations["lbipam.cilium.io/sharing-cross-namespace"]
	if with == "" {
		with = annotations["io.cilium/lb-ipam-sharing-cross-namespace"]
	}
	if with == "" {
		return true
	}
	for namespace := range strings.SplitSeq(with, ",") {
		if strings.TrimSpace(namespace) == "*" {
			return true
		}
	}
	return false
}

// key returns the annotation of that name that counts: the first one present, even if its value is empty.
func (b *foreignBalancer) key(annotations map[string]string, name string) string {
	for _, prefix := range b.prefixes {
		if _, there := annotations[prefix+name]; there {
			return prefix + name
		}
	}
	return ""
}

// Foreign are the load balancers whose annotations are read as if they were Herald's: the flag --foreign-annotations.
type Foreign struct{ balancers []*foreignBalancer }

// String returns the value of the flag.
func (f *Foreign) String() string { return strings.Join(balancerNames(f.balancers), ",") }

// Type returns the name of the type in the help text.
func (f *Foreign) Type() string { return "names" }

// Set parses the flag: names of load balancers, separated by commas. If annotations of two of them ask for the same thing,
// the one listed first takes precedence. If the flag is repeated, the last value counts.
func (f *Foreign) Set(text string) error {
	var all []*foreignBalancer
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		at := slices.Index(balancerNames(foreignBalancers), name)
		if at < 0 {
			return fmt.Errorf("%s is not a load balancer whose annotations are known: write some of %s", quote(name), strings.Join(balancerNames(foreignBalancers), ","))
		}
		all = append(all, foreignBalancers[at])
	}
	f.balancers = all
	return nil
}

func balancerNames(all []*foreignBalancer) (names []string) {
	for _, b := range all {
		names = append(names, b.name)
	}
	return names
}

// Read returns a copy of a Service in which the annotations of these load balancers are translated into those of Herald
// that ask for the same. Other annotations stay, and annotations of Herald that the Service already has take precedence.
// Messages name the annotation that the user wrote: see [Written].
func (f *Foreign) Read(svc *corev1.Service) *corev1.Service {
	read := map[string]string{}
	said := func(own string) bool {
		_, ours := svc.Annotations[own]
		_, theirs := read[own]
		return ours || theirs
	}
	for _, b := range f.balancers {
		for name, own := range b.counterparts {
			key := b.key(svc.Annotations, name)
			value, count, same := svc.Annotations[key], 1, true
			if value == "" || said(own) || b.same != nil && !b.same(svc.Annotations, name, value) {
				continue
			}
			if own == herald.AnnotationIPs {
				value, count, same = readIPs(value)
			}
			if !same {
				continue
			}
			read[own], read[readAs+own] = value, key
			if count > 1 && !said(herald.AnnotationAddresses) {
				read[herald.AnnotationAddresses] = strconv.Itoa(count)
			}
		}
	}
	if len(read) == 0 {
		return svc
	}
	c := *svc
	c.Annotations = maps.Clone(svc.Annotations)
	maps.Copy(c.Annotations, read)
	return &c
}

// readIPs returns the addresses that an annotation lists, without duplicates, and how many there are of each family. The
// code that reads Herald's own annotation reports errors in the list. Lists of other load balancers may have more addresses
// of one family than of the other; a Service of Herald cannot ask for that.
func readIPs(text string) (_ string, count int, same bool) {
	all, err := parseIPs("", text)
	if err != nil {
		return text, 1, true
	}
	var list []string
	of := map[ipam.Family]int{}
	for _, a := range all {
		if a = a.Unmap(); !slices.Contains(list, a.String()) {
			list = append(list, a.String())
			of[ipam.FamilyOf(a)]++
		}
	}
	v4, v6 := of[ipam.IPv4], of[ipam.IPv6]
	if count = max(v4, v6); count > maxAddresses { // Some IPv4 addresses were written as IPv6.
		return strings.Join(list, ","), 1, true
	}
	return strings.Join(list, ","), count, v4 == v6 || v4 == 0 || v6 == 0
}
