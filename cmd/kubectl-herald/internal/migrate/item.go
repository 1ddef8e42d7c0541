package migrate

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// item is an object of the other load balancer.
type item struct {
	t    *translation
	u    *unstructured.Unstructured
	ref  string
	seen bool
}

func (i *item) note(o Outcome, format string, args ...any) {
	i.t.Notes = append(i.t.Notes, Note{o, i.ref, fmt.Sprintf(format, args...)})
}

func (i *item) translated(format string, args ...any)   { i.note(Translated, format, args...) }
func (i *item) approximated(format string, args ...any) { i.note(Approximated, format, args...) }
func (i *item) cannot(format string, args ...any)       { i.note(NotTranslatable, format, args...) }

// becomes adds the objects of Herald that the item is translated to, and notes this. It leaves out objects that Herald
// would refuse.
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

// decode decodes the spec of the object, and notes unknown fields. It returns false if the spec cannot be decoded.
func decode(i *item, into any) bool {
	for _, key := range slices.Sorted(maps.Keys(i.u.Object)) {
		if !slices.Contains([]string{"apiVersion", "kind", "metadata", "spec", "status"}, key) {
			i.unknown(key)
		}
	}
	return i.metadata() && i.read("spec", i.u.Object["spec"], into)
}

func (i *item) unknown(field string) {
	i.cannot("%s: Herald's import does not know this field: look what it does", field)
}

// read decodes the value at a path of the object.
func (i *item) read(path string, value, into any) bool {
	unknown, err := unmarshal(path, value, into)
	if err != nil {
		i.cannot("%v, and import again", err)
		return false
	}
	for _, field := range unknown {
		i.unknown(field)
	}
	return true
}

// metadata reports whether the used parts of the metadata can be decoded, and notes it if not. The accessors of an object
// would ignore the error.
func (i *item) metadata() bool {
	var metadata struct {
		Namespace   string            `json:"namespace"`
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	}
	_, err := unmarshal("metadata", i.u.Object["metadata"], &metadata)
	if err != nil {
		i.cannot("%v, and import again", err)
	}
	return err == nil
}

func reference(u *unstructured.Unstructured) string {
	name := u.GetName()
	if u.GetNamespace() != "" {
		name = u.GetNamespace() + "/" + name
	}
	return strings.TrimSpace(u.GetKind() + " " + name)
}
