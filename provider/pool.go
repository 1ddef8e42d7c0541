package provider

import (
	"fmt"
	"net/netip"
	"slices"

	"go4.org/netipx"
	"k8s.io/apimachinery/pkg/labels"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// PoolOf parses a pool. An error names the invalid field and how to correct it.
func PoolOf(o *herald.IPPool) (ipam.Pool, error) {
	addresses, err := ipam.ParseAddresses(texts(o.Spec.Addresses), texts(o.Spec.Exclude))
	if err != nil {
		return ipam.Pool{}, fmt.Errorf("spec.%w", err) // The error begins with addresses or exclude.
	}
	if o.Spec.AvoidBuggyIPs {
		if addresses, err = ipam.AvoidBuggy(addresses); err != nil {
			return ipam.Pool{}, fmt.Errorf("spec.avoidBuggyIPs: %w", err)
		}
	}
	serves, err := scope(&o.Spec)
	if err != nil {
		return ipam.Pool{}, err
	}
	pool := ipam.Pool{
		Name:       o.Name,
		Addresses:  addresses,
		AutoAssign: autoAssigns(o),
		Serves:     serves,
		Priority:   int(o.Spec.Priority),
		Quota:      limitsOf(o.Spec.Quota),
		Classes:    o.Spec.AnnounceClasses,
		Granted:    o.Spec.ExternalPoolRef != nil,
		Closed:     o.Spec.Disabled || o.DeletionTimestamp != nil,

		ShareAcrossNamespaces: o.Spec.ShareAcrossNamespaces,
	}
	if o.Spec.AddressOrder == herald.OrderLowest {
		pool.Order = ipam.Lowest
	}
	return pool, nil
}

// ClosedPool returns a pool for an IPPool whose spec is invalid. It has the addresses that can be parsed and those
// that are in use, and gives out no further addresses. An address that a Service carries is still adopted.
func ClosedPool(o *herald.IPPool, inUse []netip.Addr) ipam.Pool {
	var set netipx.IPSetBuilder
	exclude := slices.DeleteFunc(texts(o.Spec.Exclude), func(r string) bool {
		_, err := ipam.ParseRange(r)
		return err != nil
	})
	for _, r := range texts(o.Spec.Addresses) {
		if addresses, err := ipam.ParseAddresses([]string{r}, exclude); err == nil {
			set.AddSet(addresses)
		}
	}
	for _, a := range inUse {
		set.Add(a)
	}
	addresses, _ := set.IPSet() // IPSet fails only for invalid ranges.
	return ipam.Pool{Name: o.Name, Addresses: addresses, AutoAssign: autoAssigns(o), Classes: o.Spec.AnnounceClasses, Closed: true}
}

// autoAssigns reports whether a pool serves Services that name neither the pool nor one of its addresses.
func autoAssigns(o *herald.IPPool) bool { return o.Spec.AutoAssign == nil || *o.Spec.AutoAssign }

func limitsOf(q *herald.AddressQuota) ipam.Limits {
	l := ipam.Limits{}
	if q != nil && q.IPv4 != nil {
		l[ipam.IPv4] = uint64(*q.IPv4)
	}
	if q != nil && q.IPv6 != nil {
		l[ipam.IPv6] = uint64(*q.IPv6)
	}
	return l
}

// scope returns a function that reports whether a pool serves a subject; nil means everybody.
func scope(spec *herald.IPPoolSpec) (func(*ipam.Subject) bool, error) {
	if len(spec.Namespaces) == 0 && spec.NamespaceSelector == nil && spec.ServiceSelector == nil {
		return nil, nil
	}
	service, err := herald.CompileSelector("serviceSelector", spec.ServiceSelector)
	if err != nil {
		return nil, err
	}
	namespace, err := herald.CompileSelector("namespaceSelector", spec.NamespaceSelector)
	if err != nil {
		return nil, err
	}
	if spec.NamespaceSelector == nil && len(spec.Namespaces) > 0 {
		namespace = labels.Nothing() // only the namespaces that are named
	}
	names := slices.Clone(spec.Namespaces)
	return func(s *ipam.Subject) bool {
		return service.Matches(labels.Set(s.Labels)) &&
			(slices.Contains(names, s.Namespace) || namespace.Matches(labels.Set(s.NamespaceLabels)))
	}, nil
}

func texts(ranges []herald.AddressRange) []string {
	t := make([]string, len(ranges))
	for i, r := range ranges {
		t[i] = string(r)
	}
	return t
}
