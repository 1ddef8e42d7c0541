// Package reference generates the pages of docs/reference from the schemas of the custom resources, the values of the chart
// and the flags of the programs. Tests called TestReference check the pages, and `make generate` writes them.
package reference

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Page checks that a page of docs/reference has this text. With HERALD_GENERATE=1 it writes the page.
func Page(t *testing.T, root, name, text string) {
	t.Helper()
	file := filepath.Join(root, "docs", "reference", name)
	if os.Getenv("HERALD_GENERATE") == "1" {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	has, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(has), "\n"), strings.Split(text, "\n")); diff != "" {
		t.Errorf("docs/reference/%s is not what it is made from (- is, + should be): run make generate and commit what changes\n%s", name, diff)
	}
}

// escapes escapes text for a cell of a table.
var escapes = strings.NewReplacer("|", `\|`, "<", `\<`, "*", `\*`, "_", `\_`)

// cell returns text for a cell of a table.
func cell(text string) string { return escapes.Replace(strings.Join(strings.Fields(text), " ")) }

// code returns text as code for a cell of a table, and "" for "".
func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + strings.ReplaceAll(text, "|", `\|`) + "`"
}

// row returns a row of a table.
func row(cells ...string) string { return fmt.Sprintf("| %s |\n", strings.Join(cells, " | ")) }

// head returns the header of a table.
func head(cells ...string) string { return row(cells...) + strings.Repeat("|---", len(cells)) + "|\n" }

// sentence returns text with a full stop at the end.
func sentence(text string) string {
	if text = strings.TrimSpace(text); text == "" || strings.HasSuffix(text, ".") || strings.HasSuffix(text, ":") {
		return text
	}
	return text + "."
}
