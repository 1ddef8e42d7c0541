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

// foreignBalancer is another load balancer, and what its annotations of Services ask for.
type foreignBalancer struct {
	name string
	// prefixes are what the keys of its annotations begin with. What begins with an earlier one has precedence.
	prefixes []string
	// counterparts are Herald's annotations, by what follows the prefix.
	counterparts map[string]string
	// same reports whether an annotation asks for exactly what its counterpart with the same value would; nil: it always does.
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

// withoutDHCP reports whether kube-vip's addresses are addresses. Some stand for those that a DHCP server is to give.
func withoutDHCP(_ map[string]string, _, value string) bool {
	number := 0
	for text := range strings.SplitSeq(value, ",") {
		if number++; number > 2*maxAddresses {
			break // No longer list is read.
		}
		text = strings.TrimSpace(text)
		if a, err := netip.ParseAddr(text); strings.EqualFold(text, "dhcp") || err == nil && a.IsUnspecified() {
			return false
		}
	}
	return true
}

// withAnyNamespace reports whether a Service of Cilium's names no namespaces with which it shares. A pool of Herald's lets
// all namespaces share its addresses, or none.
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

// key is the annotation of that name that counts: the first that is there, though it may be empty.
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

// String returns what was set.
func (f *Foreign) String() string { return strings.Join(balancerNames(f.balancers), ",") }

// Type is what help calls it.
func (f *Foreign) Type() string { return "names" }

// Set reads the flag: names, separated by commas. Where two ask for the same, the first one has precedence. Of several flags
// the last one counts.
func (f *Foreign) Set(text string) error {
	var all []*foreignBalancer
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		at := slices.Index(balancerNames(foreignBalancers), name)
		if at < 0 {
			return fmt.Errorf("%s is no load balancer whose annotations are known: write some of %s", quote(name), strings.Join(balancerNames(foreignBalancers), ","))
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

// Read returns a Service with Herald's annotations in place of those of these load balancers that ask for the same. The
// others stay, and so does what the Service says in Herald's own annotations. The Service itself is not changed. Messages
// name what the user wrote: see [Written].
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

// readIPs returns the addresses that an annotation lists, each once, and how many of each family they are. What is wrong with
// the list is said where Herald's own is read. The lists of others may have more addresses of one family than of the
// other, which no Service of Herald's has.
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
