package migrate

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

type metalLBPool struct {
	Addresses     []string           `json:"addresses"`
	AutoAssign    *bool              `json:"autoAssign"`
	AvoidBuggyIPs bool               `json:"avoidBuggyIPs"`
	Allocation    *metalLBAllocation `json:"serviceAllocation"`
}

type metalLBAllocation struct {
	Priority           int                    `json:"priority"`
	Namespaces         []string               `json:"namespaces"`
	NamespaceSelectors []metav1.LabelSelector `json:"namespaceSelectors"`
	ServiceSelectors   []metav1.LabelSelector `json:"serviceSelectors"`
}

// readLabels notes the labels of pools that advertisements select by.
func (m *metallb) readLabels(advertisements []*item) {
	for _, i := range advertisements {
		var quiet struct {
			PoolSelectors []metav1.LabelSelector `json:"ipAddressPoolSelectors"`
		}
		if spec, ok := i.u.Object["spec"].(map[string]any); ok {
			_ = runtime.DefaultUnstructuredConverter.FromUnstructured(spec, &quiet) // Errors are noted when the advertisement is translated.
		}
		keysOf(m.labels, quiet.PoolSelectors...)
	}
}

// pools translates the IPAddressPools. In MetalLB, pools with a serviceAllocation come first, then lower priorities before
// higher ones, and pools without a priority last. In Herald a higher number comes first.
func (m *metallb) pools(items []*item) {
	specs := make([]*metalLBPool, len(items))
	var priorities []int
	for n, i := range items {
		var spec metalLBPool
		if !decode(i, &spec) {
			continue
		}
		specs[n] = &spec
		if a := spec.Allocation; a != nil && a.Priority > 0 {
			priorities = append(priorities, a.Priority)
		}
	}
	slices.Sort(priorities)
	priorities = slices.Compact(priorities)
	for n, i := range items {
		if specs[n] == nil {
			continue
		}
		m.selected[i.u.GetName()] = true
		m.pool(i, specs[n], func(priority int) int32 {
			if at, found := slices.BinarySearch(priorities, priority); found {
				return int32(len(priorities) - at + 1)
			}
			return 1
		})
	}
}

func (m *metallb) pool(i *item, spec *metalLBPool, rank func(int) int32) {
	p := newIPPool(i.u.GetName())
	for k, v := range i.u.GetLabels() {
		if m.labels[k] {
			metav1.SetMetaDataLabel(&p.ObjectMeta, k, v)
		}
	}
	p.Spec.Addresses = i.addresses("spec.addresses", spec.Addresses)
	if spec.AutoAssign != nil && !*spec.AutoAssign {
		p.Spec.AutoAssign = spec.AutoAssign
	}
	p.Spec.AvoidBuggyIPs = spec.AvoidBuggyIPs
	if a := spec.Allocation; a != nil {
		p.Spec.Priority = rank(a.Priority)
		if !slices.ContainsFunc(a.NamespaceSelectors, selectsAll) { // MetalLB selects what any of them selects.
			p.Spec.Namespaces = a.Namespaces
		}
		p.Spec.NamespaceSelector = i.only(p, "spec.serviceAllocation.namespaceSelectors", "namespaceSelector", a.NamespaceSelectors)
		if p.Spec.Disabled && len(p.Spec.Namespaces) > 0 {
			i.cannot("spec.serviceAllocation.namespaces: spec.namespaces of the IPPool is left out, too, so that Services of the other namespaces keep their addresses: write [%s] with the selector", strings.Join(p.Spec.Namespaces, ", "))
			p.Spec.Namespaces = nil
		}
		p.Spec.ServiceSelector = i.only(p, "spec.serviceAllocation.serviceSelectors", "serviceSelector", a.ServiceSelectors)
	}
	i.becomes(p)
}

// only combines several selectors into the one selector that a pool can have. If that is not possible, the pool is closed,
// because an open pool would assign addresses to other Services.
func (i *item) only(p *herald.IPPool, field, ours string, list []metav1.LabelSelector) *metav1.LabelSelector {
	all := anyOf(list)
	if len(all) == 1 {
		return all[0]
	}
	p.Spec.Disabled = true
	i.cannot("%s: an IPPool has one selector: give what they select one label, write it in spec.%s of the IPPool, and remove spec.disabled, which is set until then", field, ours)
	return nil
}
