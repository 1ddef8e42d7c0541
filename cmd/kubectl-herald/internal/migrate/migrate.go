// Package migrate translates the configuration of other load balancers into Herald's objects, and says how they differ. It is a
// function of objects: it knows no cluster, file or clock. One file is about one load balancer.
package migrate

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/provider"
)

// Source is another load balancer.
type Source struct {
	// Name is its name on the command line, and Title that in text.
	Name, Title string
	// Resources are what configures it, besides Services.
	Resources []Resource

	translate func(*translation)
}

// Resource is what is read of a cluster: all objects of it, or the one of a name.
type Resource struct {
	schema.GroupResource
	Namespace, Name string
}

// Sources are the load balancers that can be imported.
var Sources = []*Source{&metalLB, &ciliumLB, &kubeVIP, &pureLB}

// Outcome is how well something could be translated.
type Outcome int

// The outcomes.
const (
	Translated Outcome = iota
	Approximated
	NotTranslatable
)

// Note says what became of an object or of a field of it.
type Note struct {
	Outcome Outcome
	// Object is "IPAddressPool metallb-system/first-pool".
	Object string
	Text   string
}

// Result is what an import comes to.
type Result struct {
	// Objects are Herald's, in the order in which they are to be written.
	Objects []runtime.Object
	Notes   []Note
	// Annotations are commands that give Services Herald's annotations.
	Annotations []string
	// Others counts objects that do not configure this load balancer.
	Others int
}

// Translate translates objects of the other load balancer and Services.
func (s *Source) Translate(objects []*unstructured.Unstructured) *Result {
	t := &translation{source: s}
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
				i.cannot("metadata.name is no name of an object: correct it")
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
	t.keep()
	for _, s := range t.served {
		s.annotate()
	}
	t.order()
	return &t.Result
}

// mine reports whether an API group is of the other load balancer.
func (s *Source) mine(group string) bool {
	return group != "" && slices.ContainsFunc(s.Resources, func(r Resource) bool {
		return r.Group == group && !strings.HasSuffix("."+group, ".k8s.io") && group != "apps"
	})
}

func reference(u *unstructured.Unstructured) string {
	name := u.GetName()
	if u.GetNamespace() != "" {
		name = u.GetNamespace() + "/" + name
	}
	return strings.TrimSpace(u.GetKind() + " " + name)
}

// translation is an import under way.
type translation struct {
	Result
	source *Source
	items  []*item
	served []*service
}

// item is an object of the other load balancer.
type item struct {
	t    *translation
	u    *unstructured.Unstructured
	ref  string
	seen bool
}

// of returns the objects of a kind.
func (t *translation) of(group string, kinds ...string) (of []*item) {
	for _, i := range t.items {
		if gvk := i.u.GroupVersionKind(); gvk.Group == group && slices.Contains(kinds, gvk.Kind) {
			i.seen = true
			of = append(of, i)
		}
	}
	return of
}

func (i *item) note(o Outcome, format string, args ...any) {
	i.t.Notes = append(i.t.Notes, Note{o, i.ref, fmt.Sprintf(format, args...)})
}

func (i *item) translated(format string, args ...any)   { i.note(Translated, format, args...) }
func (i *item) approximated(format string, args ...any) { i.note(Approximated, format, args...) }
func (i *item) cannot(format string, args ...any)       { i.note(NotTranslatable, format, args...) }

// becomes adds objects of Herald's that the item is translated to, and says so. Those that Herald would refuse are not added.
func (i *item) becomes(objects ...runtime.Object) {
	var names []string
	for _, o := range objects {
		if err := valid(o); err != nil {
			i.cannot("%v: correct it, and import again", err)
			continue
		}
		kind := o.GetObjectKind().GroupVersionKind().Kind
		name := o.(metav1.Object).GetName()
		if slices.ContainsFunc(i.t.Objects, func(other runtime.Object) bool {
			return other.GetObjectKind().GroupVersionKind().Kind == kind && other.(metav1.Object).GetName() == name
		}) {
			i.cannot("there is a %s %s already, made from another object: rename one of the two, and import again", kind, name)
			continue
		}
		i.t.Objects = append(i.t.Objects, o)
		names = append(names, kind+" "+name)
	}
	if len(names) > 0 {
		i.translated("%s", strings.Join(names, ", "))
	}
}

// decode reads the spec of the object. Fields that are not known are reported; false if the spec cannot be read.
func decode(i *item, into any) bool {
	for _, key := range slices.Sorted(maps.Keys(i.u.Object)) {
		if !slices.Contains([]string{"apiVersion", "kind", "metadata", "spec", "status"}, key) {
			i.unknown(key)
		}
	}
	return i.read("spec", i.u.Object["spec"], into)
}

func (i *item) unknown(field string) {
	i.cannot("%s: Herald's import does not know this field: look what it does", field)
}

// read reads what is at a path of the object.
func (i *item) read(path string, value, into any) bool {
	text, err := json.Marshal(value)
	if err != nil {
		i.cannot("%s cannot be read: %v", path, err)
		return false
	}
	strict, err := kjson.UnmarshalStrict(text, into)
	if err != nil {
		i.cannot("%s cannot be read: %v: correct it, and import again", path, err)
		return false
	}
	for _, s := range strict {
		if f, ok := s.(kjson.FieldError); ok { //nolint:errorlint // The list is of errors that are not wrapped.
			i.unknown(path + "." + f.FieldPath())
		} else {
			i.cannot("%s: %v", path, s)
		}
	}
	return true
}

// order puts pools first, then peers, then advertisements.
func (t *translation) order() {
	rank := map[string]int{"IPPool": 0, "BGPPeer": 1, "L2Advertisement": 2, "BGPAdvertisement": 3}
	slices.SortStableFunc(t.Objects, func(a, b runtime.Object) int {
		return cmp.Compare(rank[a.GetObjectKind().GroupVersionKind().Kind], rank[b.GetObjectKind().GroupVersionKind().Kind])
	})
}

// kindOf makes the head of an object of Herald's.
func kindOf(kind, name string) (metav1.TypeMeta, metav1.ObjectMeta) {
	return metav1.TypeMeta{APIVersion: herald.GroupVersion.String(), Kind: kind}, metav1.ObjectMeta{Name: name}
}

// valid says what Herald would have against an object, as far as the other's schema does not rule it out.
func valid(o runtime.Object) error {
	var selection *herald.Selection
	switch o := o.(type) {
	case *herald.IPPool:
		switch n := len(o.Spec.Addresses); {
		case n == 0:
			return fmt.Errorf("it has no addresses that can be translated")
		case n > 64 || len(o.Spec.Exclude) > 64:
			return fmt.Errorf("an IPPool has at most 64 addresses and ranges, and this one would have %d and %d that are excluded", n, len(o.Spec.Exclude))
		case len(o.Spec.Namespaces) > 64:
			return fmt.Errorf("an IPPool names at most 64 namespaces, and this one would name %d: give them a label for namespaceSelector", len(o.Spec.Namespaces))
		}
		for _, n := range o.Spec.Namespaces {
			if len(validation.IsDNS1123Label(n)) > 0 {
				return fmt.Errorf("%q is no name of a namespace", n)
			}
		}
		if _, err := provider.PoolOf(o); err != nil {
			return fmt.Errorf("Herald does not take its addresses: %w", err) //nolint:staticcheck // A name begins it.
		}
		return nil
	case *herald.BGPPeer:
		_, err := herald.CompileSelector("nodeSelector", o.Spec.NodeSelector)
		return err
	case *herald.L2Advertisement:
		selection = &o.Spec.Selection
		if _, err := herald.CompileSelector("preferredNodes", o.Spec.PreferredNodes); err != nil {
			return err
		}
		if len(o.Spec.Interfaces) > 32 {
			return fmt.Errorf("an L2Advertisement names at most 32 interfaces, and this one would name %d", len(o.Spec.Interfaces))
		}
	case *herald.BGPAdvertisement:
		selection = &o.Spec.Selection
		if n := len(o.Spec.Communities); n > 32 {
			return fmt.Errorf("a BGPAdvertisement has at most 32 communities, and this one would have %d", n)
		}
		if n := len(o.Spec.Peers); n > 64 {
			return fmt.Errorf("a BGPAdvertisement names at most 64 peers, and this one would name %d: give them a label for peerSelector", n)
		}
	}
	if n := len(selection.Pools); n > 64 {
		return fmt.Errorf("an advertisement names at most 64 pools, and this one would name %d: give them a label for poolSelector", n)
	}
	_, err := selection.Compile()
	return err
}

// Good reports whether all could be translated, or nearly.
func (r *Result) Good() bool {
	return !slices.ContainsFunc(r.Notes, func(n Note) bool { return n.Outcome == NotTranslatable })
}

// YAML is Herald's objects.
func (r *Result) YAML() (string, error) {
	var out []string
	for _, o := range r.Objects {
		fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		if err != nil {
			return "", err
		}
		delete(fields, "status")
		unstructured.RemoveNestedField(fields, "metadata", "creationTimestamp")
		if spec, ok := fields["spec"].(map[string]any); ok && len(spec) == 0 {
			delete(fields, "spec")
		}
		text, err := yaml.Marshal(fields)
		if err != nil {
			return "", err
		}
		out = append(out, string(text))
	}
	return strings.Join(out, "---\n"), nil
}

// Text is the report.
func (r *Result) Text() string {
	var out strings.Builder
	for _, section := range []struct {
		outcome Outcome
		title   string
		between string
	}{
		{Translated, "Translated:", " -> "},
		{Approximated, "Approximated, with what is different:", ": "},
		{NotTranslatable, "Not translatable, with what to do:", ": "},
	} {
		title := section.title + "\n"
		for _, n := range r.Notes {
			if n.Outcome == section.outcome {
				out.WriteString(title + "  " + n.Object + section.between + n.Text + "\n")
				title = ""
			}
		}
	}
	if len(r.Annotations) > 0 {
		out.WriteString("Services want these annotations, which the other load balancer does not look at:\n")
		for _, a := range r.Annotations {
			out.WriteString("  " + a + "\n")
		}
	}
	if r.Others > 0 {
		fmt.Fprintf(&out, "Objects that do not configure the other load balancer are not looked at: %d\n", r.Others)
	}
	return out.String()
}

// service is a Service of type LoadBalancer.
type service struct {
	*item
	// class is spec.loadBalancerClass.
	class string
	// wanted are Herald's annotations that it is to have.
	wanted map[string]string
}

// services returns the Services of type LoadBalancer.
func (t *translation) services() []*service {
	for _, i := range t.of("", "Service") {
		kind, _, _ := unstructured.NestedString(i.u.Object, "spec", "type")
		if kind != string(corev1.ServiceTypeLoadBalancer) {
			t.Others++
			continue
		}
		class, _, _ := unstructured.NestedString(i.u.Object, "spec", "loadBalancerClass")
		t.served = append(t.served, &service{i, class, map[string]string{}})
	}
	return t.served
}

// wants adds annotations of Herald's that the Service is to have.
func (s *service) wants(annotations map[string]string) { maps.Copy(s.wanted, annotations) }

// annotate adds the command that gives the Service Herald's annotations, if it is to have any.
func (s *service) annotate() {
	if len(s.wanted) == 0 {
		return
	}
	words := []string{"kubectl", "annotate", "service"}
	if s.u.GetNamespace() != "" {
		words = append(words, "-n", quoted(s.u.GetNamespace()))
	}
	words = append(words, quoted(s.u.GetName()))
	var keys []string
	for _, key := range sortedKeys(s.wanted) {
		words = append(words, quoted(key+"="+s.wanted[key]))
		keys = append(keys, key)
	}
	s.t.Annotations = append(s.t.Annotations, strings.Join(words, " "))
	s.translated("%s", strings.Join(keys, ", "))
}

// quoted is a word for a shell.
func quoted(text string) string {
	plain := func(r rune) bool {
		return strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=:,", r)
	}
	if text != "" && !strings.ContainsFunc(text, func(r rune) bool { return !plain(r) }) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// bound says what to do with a class that binds the Service to the other load balancer.
func (s *service) bound() {
	if s.class != "" && s.class != herald.LoadBalancerClass {
		s.cannot("spec.loadBalancerClass %s cannot be changed while the Service is there: create the Service again without it, or start herald-ccm with --load-balancer-class=%s once nothing else serves this class, and with --serve-classless=false if something else serves Services without a class", s.class, s.class)
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
