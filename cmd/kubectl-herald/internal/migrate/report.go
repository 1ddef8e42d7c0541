package migrate

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// Good reports whether everything could be translated, at least approximately, and all Services
// keep their addresses.
func (r *Result) Good() bool {
	return !slices.ContainsFunc(r.Notes, func(n Note) bool { return n.Outcome == NotTranslatable || n.Outcome == Loses })
}

// YAML returns Herald's objects as YAML.
func (r *Result) YAML() (string, error) {
	var out []string
	for _, o := range r.Objects {
		fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		if err != nil {
			return "", err
		}
		delete(fields, "status")
		unstructured.RemoveNestedField(fields, "metadata", "creationTimestamp")
		herald.WriteDurations(fields)
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

// section returns the part of the report with the notes of one outcome; empty if there are none.
func (r *Result) section(o Outcome) string {
	var out strings.Builder
	between := ": "
	switch o {
	case Loses:
		out.WriteString("Addresses that Services would not keep, with what to do:\n")
	case Translated:
		out.WriteString("Translated:\n")
		between = " -> "
	case Approximated:
		out.WriteString("Approximated, with what is different:\n")
	case NotTranslatable:
		out.WriteString("Not translatable, with what to do:\n")
	}
	empty := true
	for _, n := range r.Notes {
		if n.Outcome == o {
			out.WriteString("  " + n.Object + between + n.Text + "\n")
			empty = false
		}
	}
	if empty {
		return ""
	}
	return out.String()
}

// Check returns the part of the report with the obstacles to a move.
func (r *Result) Check() string {
	text := r.section(Loses) + r.section(NotTranslatable)
	switch {
	case r.Addresses == 0:
		return text + "No Service has an address.\n"
	case len(r.Annotations) > 0:
		return text + fmt.Sprintf("Addresses that Services keep, once they have the annotations that the import names: %d of %d\n", r.Addresses-r.Lost, r.Addresses)
	}
	return text + fmt.Sprintf("Addresses that Services keep: %d of %d\n", r.Addresses-r.Lost, r.Addresses)
}

// Text returns the whole report.
func (r *Result) Text() string {
	var out strings.Builder
	for _, o := range []Outcome{Loses, Translated, Approximated, NotTranslatable} {
		out.WriteString(r.section(o))
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
