// Package migrate translates the configuration of other load balancers into Herald's objects, and reports the differences.
// It is a function of objects, and uses no cluster, file or clock. A file whose name begins with that of a load balancer is
// about this load balancer; the other files apply to all of them.
package migrate

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Source is another load balancer.
type Source struct {
	// Name is the name on the command line, Title the name in text.
	Name, Title string
	// Resources are the resources that configure it, besides Services.
	Resources []Resource

	translate func(*translation)
}

// Resource says which objects to read: all objects of a resource, or the one with a name.
type Resource struct {
	schema.GroupResource
	Namespace, Name string
}

// allOf returns several resources of one API group, with all their objects.
func allOf(group string, names ...string) (all []Resource) {
	for _, n := range names {
		all = append(all, Resource{GroupResource: schema.GroupResource{Group: group, Resource: n}})
	}
	return all
}

// Sources are the load balancers that can be imported.
var Sources = []*Source{&metalLB, &ciliumLB, &kubeVIP, &pureLB}

// Outcome says how well something could be translated.
type Outcome int

// The outcomes. Loses is the outcome for a Service that would not keep an address.
const (
	Translated Outcome = iota
	Approximated
	NotTranslatable
	Loses
)

// Note says how an object, or one of its fields, was translated.
type Note struct {
	Outcome Outcome
	// Object is, for example, "IPAddressPool metallb-system/first-pool".
	Object string
	Text   string
}

// Result is the result of an import.
type Result struct {
	// Objects are Herald's objects, in the order in which they are written.
	Objects []runtime.Object
	Notes   []Note
	// Annotations are commands that set Herald's annotations on Services.
	Annotations []string
	// Wanted are these annotations.
	Wanted map[types.NamespacedName]map[string]string
	// Addresses counts the addresses that Services have, and Lost those that they would not keep. An address that several
	// Services share counts once for each.
	Addresses, Lost int
	// Others counts the objects that do not configure this load balancer.
	Others int
}

// Translate translates objects of the other load balancer, and Services.
func (s *Source) Translate(objects []*unstructured.Unstructured) *Result {
	return s.result(objects, &translation{source: s})
}

// Replace is like Translate, but takes given objects of Herald in place of the translated ones. Its notes are only about
// Services.
func (s *Source) Replace(objects []*unstructured.Unstructured, given []runtime.Object) *Result {
	return s.result(objects, &translation{source: s, given: true, Result: Result{Objects: given}})
}

func (s *Source) result(objects []*unstructured.Unstructured, t *translation) *Result {
	given := t.Objects
	t.Objects = nil
	known := map[schema.GroupKind]map[string]bool{}
	for _, u := range objects {
		gk := u.GroupVersionKind().GroupKind()
		key := u.GetNamespace() + "/" + u.GetName()
		if known[gk] == nil {
			known[gk] = map[string]bool{}
		}
		i := &item{t: t, u: u, ref: reference(u)}
		switch {
		case known[gk][key]:
			i.cannot("it is there twice, and the first one is translated: leave one out")
		case len(validation.IsDNS1123Subdomain(u.GetName())) > 0:
			if s.mine(gk.Group) {
				i.cannot("metadata.name is not the name of an object: correct it")
			} else {
				t.Others++
			}
		default:
			known[gk][key] = true
			t.items = append(t.items, i)
		}
	}
	s.translate(t)
	for _, i := range t.items {
		if !i.seen {
			if s.mine(i.u.GroupVersionKind().Group) {
				i.cannot("Herald's import does not know this kind: look whether it configures anything that you need")
			} else {
				t.Others++
			}
		}
	}
	t.rivals()
	t.controlPlane()
	if t.given {
		t.Objects = given
		t.Notes = slices.DeleteFunc(t.Notes, func(n Note) bool {
			return !slices.ContainsFunc(t.served, func(s *service) bool { return s.ref == n.Object })
		})
	}
	t.keep()
	for _, s := range t.served {
		s.annotate()
	}
	t.order()
	return &t.Result
}

// mine reports whether an API group belongs to the other load balancer.
func (s *Source) mine(group string) bool {
	return group != "" && slices.ContainsFunc(s.Resources, func(r Resource) bool {
		return r.Group == group && !strings.HasSuffix("."+group, ".k8s.io") && group != "apps"
	})
}

// translation is an import in progress.
type translation struct {
	Result
	source *Source
	items  []*item
	served []*service
	// given is true if the user has given Herald's objects.
	given bool
}

// of returns the objects of some kinds.
func (t *translation) of(group string, kinds ...string) (of []*item) {
	for _, i := range t.items {
		if gvk := i.u.GroupVersionKind(); gvk.Group == group && slices.Contains(kinds, gvk.Kind) {
			i.seen = true
			of = append(of, i)
		}
	}
	return of
}

// order puts pools first, then peers, then advertisements.
func (t *translation) order() {
	rank := map[string]int{"IPPool": 0, "BGPPeer": 1, "L2Advertisement": 2, "BGPAdvertisement": 3}
	slices.SortStableFunc(t.Objects, func(a, b runtime.Object) int {
		return cmp.Compare(rank[a.GetObjectKind().GroupVersionKind().Kind], rank[b.GetObjectKind().GroupVersionKind().Kind])
	})
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
