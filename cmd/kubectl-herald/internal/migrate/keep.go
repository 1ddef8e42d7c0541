package migrate

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
	"github.com/heraldlb/herald/provider"
)

// writtenPool is a translated IPPool, with the pool that herald-ccm makes of it.
type writtenPool struct {
	*herald.IPPool
	pool ipam.Pool
}

// keep makes sure that Services keep the addresses in their status, and notes where they would not. herald-ccm adopts such
// an address if an IPPool has it and the rules of the IPPool let the Service have it.
func (t *translation) keep() {
	if !t.given && len(t.Notes) == 0 && !slices.ContainsFunc(t.served, func(s *service) bool { return len(s.wanted) > 0 }) {
		return // There is nothing of the other load balancer.
	}
	var pools []*writtenPool
	for _, o := range t.Objects {
		if p, ok := o.(*herald.IPPool); ok {
			if pool, err := provider.PoolOf(p); err == nil {
				pools = append(pools, &writtenPool{p, pool})
			}
		}
	}
	holders := map[netip.Addr][]*service{}
	for _, s := range t.served {
		for _, a := range s.addresses() {
			t.Addresses++
			holders[a] = append(holders[a], s)
			if s.boundElsewhere() {
				s.lose(a) // bound says why.
			}
			s.keep(a, homeOf(pools, a))
		}
	}
	across := map[string]bool{}
	for _, a := range slices.SortedFunc(maps.Keys(holders), netip.Addr.Compare) {
		if len(holders[a]) > 1 {
			share(a, homeOf(pools, a), holders[a])
			across[holders[a][0].wanted[herald.AnnotationSharingKey]] = true
		}
	}
	first := map[string]*service{}
	for _, s := range t.served {
		switch key := s.wanted[herald.AnnotationSharingKey]; {
		case key == "" || across[key]:
		case first[key] == nil:
			first[key] = s
		case first[key].u.GetNamespace() != s.u.GetNamespace():
			s.approximated("it has the sharing key of a Service of another namespace, %s: they share an address only if the IPPool has spec.shareAcrossNamespaces", first[key].ref)
		}
	}
}

func homeOf(pools []*writtenPool, a netip.Addr) *writtenPool {
	for _, p := range pools {
		if p.pool.Addresses.Contains(a) {
			return p
		}
	}
	return nil
}

// addresses returns the addresses in the status of the Service.
func (s *service) addresses() (all []netip.Addr) {
	ingress, _, _ := unstructured.NestedSlice(s.u.Object, "status", "loadBalancer", "ingress")
	for _, i := range ingress {
		if fields, ok := i.(map[string]any); ok {
			text, _ := fields["ip"].(string)
			if a, err := addressOf(text); err == nil && !slices.Contains(all, a) {
				all = append(all, a)
			}
		}
	}
	return all
}

// keep makes sure that the Service keeps an address of a pool.
func (s *service) keep(a netip.Addr, p *writtenPool) {
	if p == nil {
		if s.class == "" {
			s.loses(a, "it has %s, which is in no IPPool that is written: herald-ccm does not serve it until an IPPool has this address", a)
		}
		return
	}
	asked, _, _ := unstructured.NestedString(s.u.Object, "spec", "loadBalancerIP")
	asks := asked == a.String() || slices.Contains(strings.Split(s.wanted[herald.AnnotationIPs], ","), a.String())
	named := s.wanted[herald.AnnotationPool]
	switch {
	case !p.selects(s):
		s.loses(a, "it has %s of IPPool %s, which does not select it: herald-ccm gives it another address unless you have the IPPool select it", a, p.Name)
	case named != "" && named != p.Name:
		s.loses(a, "it has %s of IPPool %s, and names IPPool %s: herald-ccm gives it an address of that one unless you leave out the annotation %s", a, p.Name, named, herald.AnnotationPool)
	case named == "" && !asks && !p.pool.AutoAssign && s.wanted[herald.AnnotationIPs] == "":
		var texts []string
		for _, held := range s.addresses() {
			texts = append(texts, held.String())
		}
		s.approximated("it has %s of IPPool %s, which serves only Services that ask for it: to keep it, it asks for the addresses that it has", a, p.Name)
		s.wants(s.requested("status.loadBalancer", strings.Join(texts, ",")))
	}
}

// loses notes why the Service would not keep an address.
func (s *service) loses(a netip.Addr, format string, args ...any) {
	s.note(Loses, format, args...)
	s.lose(a)
}

// lose counts an address that the Service would not keep, once.
func (s *service) lose(a netip.Addr) {
	if !slices.Contains(s.lost, a) {
		s.lost = append(s.lost, a)
		s.t.Lost++
	}
}

// selects reports whether the IPPool serves the Service, as far as is known without the labels of namespaces.
func (p *writtenPool) selects(s *service) bool {
	namespace := map[string]string{"kubernetes.io/metadata.name": s.u.GetNamespace()}
	if n := p.Spec.NamespaceSelector; n != nil {
		keys := map[string]bool{}
		keysOf(keys, *n)
		for k := range keys {
			if _, known := namespace[k]; !known {
				return true
			}
		}
	}
	return p.pool.Serves == nil || p.pool.Serves(&ipam.Subject{Namespace: s.u.GetNamespace(), NamespaceLabels: namespace, Labels: s.u.GetLabels()})
}

// share makes Services continue to share an address, for which Herald needs a sharing key.
func share(a netip.Addr, p *writtenPool, holders []*service) {
	first := holders[0]
	key := first.wanted[herald.AnnotationSharingKey]
	agreed := true
	for _, s := range holders[1:] {
		if other := s.wanted[herald.AnnotationSharingKey]; other != key {
			agreed = false
			s.loses(a, "it shares %s with %s, which has another sharing key, or none: give all that are to share it the same annotation %s", a, first.ref, herald.AnnotationSharingKey)
		}
	}
	if !agreed {
		return
	}
	if key == "" {
		for _, s := range holders {
			s.approximated("it shares %s with other Services: Herald lets Services share an address by a key, and the key is the address", a)
			s.wants(map[string]string{herald.AnnotationSharingKey: a.String()})
		}
	}
	for _, s := range holders[1:] {
		switch {
		case s.u.GetNamespace() == first.u.GetNamespace() || p == nil || p.Spec.ShareAcrossNamespaces:
		case s.t.given:
			s.loses(a, "it shares %s with a Service of another namespace, %s: write shareAcrossNamespaces: true in the spec of IPPool %s", a, first.ref, p.Name)
		default:
			p.Spec.ShareAcrossNamespaces = true
			s.approximated("it shares %s with a Service of another namespace, %s: so IPPool %s has spec.shareAcrossNamespaces, and Services of any namespaces with the same key may share its addresses", a, first.ref, p.Name)
		}
	}
}
