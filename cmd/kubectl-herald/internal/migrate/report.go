package migrate

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

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
