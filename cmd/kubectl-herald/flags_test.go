package main

import (
	"bytes"
	"testing"

	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
)

func TestOutput(t *testing.T) {
	type item struct {
		Name  string `json:"name"`
		Count int    `json:"count"`
	}
	value := map[string][]item{"items": {{"a", 1}, {"b", 2}}}
	for _, c := range []struct{ format, want, err string }{
		{"", "for people", ""},
		{"json", "{\n    \"items\": [\n        {\n            \"name\": \"a\",\n            \"count\": 1\n        },\n        {\n            \"name\": \"b\",\n            \"count\": 2\n        }\n    ]\n}\n", ""},
		{"yaml", "items:\n- count: 1\n  name: a\n- count: 2\n  name: b\n", ""},
		{"jsonpath={.items[*].name}", "a b", ""},
		{"go-template={{len .items}}", "2", ""},
		{"xml", "", `--output: unable to match a printer suitable for the output format "xml"`},
	} {
		t.Run(c.format, func(t *testing.T) {
			var out bytes.Buffer
			o := output{c.format}
			err := o.write(&out, value, func(report.Style) string { return "for people" })
			if c.err != "" {
				if err == nil || !bytes.Contains([]byte(err.Error()), []byte(c.err)) {
					t.Errorf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || out.String() != c.want {
				t.Errorf("%v: got %q, want %q", err, out.String(), c.want)
			}
		})
	}
}
