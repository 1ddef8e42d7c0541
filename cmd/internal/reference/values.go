package reference

import (
	"encoding/json"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// schema has the parts of values.schema.json that are used.
type schema struct {
	Ref         string             `json:"$ref"`
	Description string             `json:"description"`
	Type        any                `json:"type"`
	Enum        []any              `json:"enum"`
	Minimum     *float64           `json:"minimum"`
	Pattern     string             `json:"pattern"`
	Items       *schema            `json:"items"`
	Properties  map[string]*schema `json:"properties"`
	Definitions map[string]*schema `json:"definitions"`
}

// Values describes the values of a chart: its values.yaml with the comments, and the constraints in values.schema.json.
func Values(values, schemas []byte) (string, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(values, &document); err != nil {
		return "", err
	}
	var all schema
	if err := json.Unmarshal(schemas, &all); err != nil {
		return "", err
	}
	var out strings.Builder
	out.WriteString("# Values of the Helm chart\n\nThe chart is [manifests/charts/herald](../../manifests/charts/herald/Chart.yaml). `--set image.tag=v1.2.3` sets a single value, and `--values FILE` many.\n" +
		"Helm refuses a value that is not here.\n")
	top := document.Content[0].Content
	for i := 0; i < len(top); {
		// A comment also applies to the names after it that have no comment.
		end := i + 2
		for end < len(top) && top[end].HeadComment == "" {
			end += 2
		}
		var names []string
		for j := i; j < end; j += 2 {
			names = append(names, top[j].Value)
		}
		fmt.Fprintf(&out, "\n## %s\n\n%s\n\n%s", strings.Join(names, ", "), comment(top[i].HeadComment), head("value", "type", "default", ""))
		for j := i; j < end; j += 2 {
			about := all.Properties[top[j].Value]
			if about == nil {
				return "", fmt.Errorf("values.schema.json does not know the value %s", top[j].Value)
			}
			if err := value(&out, &all, about, top[j].Value, "", top[j+1]); err != nil {
				return "", err
			}
		}
		i = end
	}
	return out.String(), nil
}

// value writes the rows of a value: one row, or one for each value in it.
func value(out *strings.Builder, all, s *schema, name, about string, node *yaml.Node) error {
	for s.Ref != "" {
		described := s.Description
		if s = all.Definitions[strings.TrimPrefix(s.Ref, "#/definitions/")]; s == nil {
			return fmt.Errorf("values.schema.json has no definition for %s", name)
		}
		if described != "" {
			about = strings.TrimSpace(about + " " + described)
		}
	}
	if node.Kind == yaml.MappingNode && len(s.Properties) > 0 {
		for i := 0; i < len(node.Content); i += 2 {
			key := node.Content[i]
			inner := s.Properties[key.Value]
			if inner == nil {
				return fmt.Errorf("values.schema.json does not know the value %s.%s", name, key.Value)
			}
			if err := value(out, all, inner, name+"."+key.Value, plain(key.HeadComment), node.Content[i+1]); err != nil {
				return err
			}
		}
		return nil
	}
	var words []string
	for _, w := range []string{about, s.Description} {
		if w != "" {
			words = append(words, sentence(cell(w)))
		}
	}
	if s.Minimum != nil {
		words = append(words, fmt.Sprintf("At least %.0f.", *s.Minimum))
	}
	if s.Pattern != "" {
		words = append(words, "Pattern: "+code(s.Pattern)+".")
	}
	kind, err := typeOf(s, name)
	if err != nil {
		return err
	}
	var preset any
	if err := node.Decode(&preset); err != nil {
		return err
	}
	text, err := json.Marshal(preset)
	if err != nil {
		return err
	}
	out.WriteString(row(code(name), kind, code(string(text)), strings.Join(words, " ")))
	return nil
}

func typeOf(s *schema, name string) (string, error) {
	if len(s.Enum) > 0 {
		var of []string
		for _, e := range s.Enum {
			of = append(of, code(fmt.Sprint(e)))
		}
		return "one of " + strings.Join(of, ", "), nil
	}
	switch of := s.Type.(type) {
	case string:
		if of == "array" {
			return "list", nil
		}
		return of, nil
	case []any:
		var words []string
		for _, w := range of {
			words = append(words, fmt.Sprint(w))
		}
		return strings.Join(words, " or "), nil
	}
	return "", fmt.Errorf("values.schema.json gives no type for %s", name)
}

// plain returns a YAML comment as running text.
func plain(comment string) string {
	var lines []string
	for line := range strings.Lines(comment) {
		lines = append(lines, strings.TrimSpace(strings.TrimPrefix(line, "#")))
	}
	return strings.Join(lines, " ")
}

// comment returns a YAML comment as Markdown. Indented text is an example.
func comment(text string) string {
	var out []string
	example := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(strings.TrimPrefix(strings.TrimPrefix(line, "#"), " "), "\n")
		if indented := strings.HasPrefix(line, "  "); indented != example && line != "" {
			out, example = append(out, "```"+map[bool]string{true: "yaml"}[indented]), indented
		}
		out = append(out, strings.TrimPrefix(line, "  "))
	}
	if example {
		out = append(out, "```")
	}
	return strings.TrimSpace(strings.Join(out, "\n"))
}
