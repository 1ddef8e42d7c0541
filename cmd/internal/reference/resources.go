package reference

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// Resources describes custom resources: each field with its type, its default and the constraints that the API server
// enforces.
func Resources(definitions [][]byte) (string, error) {
	var out strings.Builder
	out.WriteString("# Custom resources\n\nAll of them are of the API group `herald.dev`, and none is in a namespace. `kubectl explain ippools.herald.dev.spec` and the like\n" +
		"say the same. A field that is not said to be required may be left out.\n")
	for _, text := range definitions {
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(text, &crd); err != nil {
			return "", err
		}
		if crd.Spec.Scope != apiextensionsv1.ClusterScoped {
			return "", fmt.Errorf("CustomResourceDefinition %s is %s: the page says that no resource is in a namespace", crd.Name, crd.Spec.Scope)
		}
		version := crd.Spec.Versions[0]
		schema := version.Schema.OpenAPIV3Schema
		fmt.Fprintf(&out, "\n## %s\n\n%s\n\n`apiVersion: %s/%s`, `kubectl get %s`", crd.Spec.Names.Kind, paragraphs(schema.Description), crd.Spec.Group, version.Name, crd.Name)
		for _, short := range crd.Spec.Names.ShortNames {
			fmt.Fprintf(&out, " or `kubectl get %s`", short)
		}
		out.WriteString("\n")
		for _, r := range rules(*schema) {
			out.WriteString("\n" + r + "\n")
		}
		for _, part := range []string{"spec", "status"} {
			properties, ok := schema.Properties[part]
			if !ok {
				continue
			}
			fmt.Fprintf(&out, "\n### %s of %s\n\n", part, crd.Spec.Names.Kind)
			if properties.Description != "" {
				out.WriteString(paragraphs(properties.Description) + "\n\n")
			}
			for _, r := range rules(properties) {
				out.WriteString(r + "\n\n")
			}
			out.WriteString(head("field", "type", ""))
			fields(&out, "", properties)
		}
	}
	return out.String(), nil
}

func paragraphs(text string) string { return escapes.Replace(strings.TrimSpace(text)) }

func fields(out *strings.Builder, prefix string, of apiextensionsv1.JSONSchemaProps) {
	for _, name := range slices.Sorted(maps.Keys(of.Properties)) {
		p := of.Properties[name]
		kind, inner := kindOf(p)
		about := []string{sentence(cell(p.Description))}
		if slices.Contains(of.Required, name) {
			about = append(about, "Required.")
		}
		if p.Default != nil {
			about = append(about, "Default: "+code(string(p.Default.Raw))+".")
		}
		about = append(about, limits(p)...)
		out.WriteString(row(code(prefix+name), kind, strings.TrimSpace(strings.Join(about, " "))))
		// Conditions are the same in all of Kubernetes.
		if name != "conditions" && inner != nil {
			fields(out, prefix+name+map[string]string{"array": "[]."}[p.Type]+map[bool]string{true: "."}[p.Type == "object"], *inner)
		}
	}
}

// kindOf returns the type of a field in a reader's terms, and the schema of its content.
func kindOf(p apiextensionsv1.JSONSchemaProps) (string, *apiextensionsv1.JSONSchemaProps) {
	switch {
	case p.XIntOrString:
		return "integer or string", nil
	case p.Type == "array" && p.Items != nil && p.Items.Schema != nil:
		kind, inner := kindOf(*p.Items.Schema)
		return "list of " + cmp.Or(map[string]string{"string": "strings", "integer": "integers", "object": "objects", "label selector": "label selectors"}[kind], kind), inner
	case p.Type == "object" && p.AdditionalProperties != nil && p.AdditionalProperties.Schema != nil:
		kind, _ := kindOf(*p.AdditionalProperties.Schema)
		return "map of " + kind + "s", nil
	case p.Properties["matchLabels"].Type != "" && p.Properties["matchExpressions"].Type != "":
		return "label selector", nil // It is the same in all of Kubernetes.
	case p.Type == "string" && p.Format == "date-time":
		return "time", nil
	}
	return p.Type, &p
}

// limits returns the constraints of a value in words.
func limits(p apiextensionsv1.JSONSchemaProps) []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	values := func(p apiextensionsv1.JSONSchemaProps) {
		if len(p.Enum) > 0 {
			var of []string
			for _, e := range p.Enum {
				of = append(of, code(strings.Trim(string(e.Raw), `"`)))
			}
			add("One of %s.", strings.Join(of, ", "))
		}
		switch {
		case p.Minimum != nil && p.Maximum != nil:
			add("%.0f to %.0f.", *p.Minimum, *p.Maximum)
		case p.Minimum != nil:
			add("At least %.0f.", *p.Minimum)
		case p.Maximum != nil:
			add("At most %.0f.", *p.Maximum)
		}
		if p.MaxLength != nil {
			add("At most %d characters.", *p.MaxLength)
		}
		if p.Pattern != "" {
			add("Pattern: %s.", code(p.Pattern))
		}
		out = append(out, rules(p)...)
	}
	values(p)
	if p.MinItems != nil {
		add("At least %d in the list.", *p.MinItems)
	}
	if p.MaxItems != nil {
		add("At most %d in the list.", *p.MaxItems)
	}
	if p.Items != nil && p.Items.Schema != nil && p.Items.Schema.Type != "object" {
		first := len(out)
		values(*p.Items.Schema)
		for i := first; i < len(out); i++ {
			out[i] = "Each: " + strings.ToLower(out[i][:1]) + out[i][1:]
		}
	}
	return out
}

// rules returns the constraints that involve several fields or that a pattern cannot express: the message of the API server
// or, without a message, the rule itself.
func rules(p apiextensionsv1.JSONSchemaProps) []string {
	var out []string
	for _, v := range p.XValidations {
		if v.Message == "" {
			out = append(out, "Rule: "+code(v.Rule)+".")
		} else {
			out = append(out, "Rule: "+sentence(cell(v.Message)))
		}
	}
	return out
}
