package reference

import (
	"os"
	"path/filepath"
	"testing"
)

const root = "../../.."

func TestReference(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "manifests", "crds", "herald.dev_*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	read := func(elements ...string) []byte {
		text, err := os.ReadFile(filepath.Join(elements...))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	var definitions [][]byte
	for _, f := range files {
		definitions = append(definitions, read(f))
	}
	resources, err := Resources(definitions)
	if err != nil {
		t.Fatal(err)
	}
	Page(t, root, "resources.md", resources)
	chart := filepath.Join(root, "manifests", "charts", "herald")
	values, err := Values(read(chart, "values.yaml"), read(chart, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	Page(t, root, "values.md", values)
	conditions, err := Conditions(api)
	if err != nil {
		t.Fatal(err)
	}
	Page(t, root, "conditions.md", conditions)
}
