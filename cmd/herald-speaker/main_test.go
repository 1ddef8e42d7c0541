package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/heraldlb/herald/cmd/internal/reference"
	"github.com/heraldlb/herald/cmd/internal/version"
)

func TestFlags(t *testing.T) {
	for _, story := range []struct {
		args []string
		said string // or the error
	}{
		{[]string{"--version"}, "herald-speaker version " + version.String()},
		{[]string{"--node-name=n1", "--log-level=loud"}, `invalid argument "loud" for "--log-level" flag`},
		{[]string{"--node-name="}, "--node-name: "},
		{[]string{"--node-name=n1", "--l2-refresh=1ms"}, "--l2-refresh: 1ms is less than 1s"},
	} {
		var out bytes.Buffer
		cmd := command()
		cmd.SetOut(&out)
		cmd.SetArgs(story.args)
		said := ""
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			said = err.Error()
		}
		if said += out.String(); !strings.Contains(said, story.said) {
			t.Errorf("%v: %q, want %q", story.args, said, story.said)
		}
	}
}

// TestReference checks the reference page, which is generated from the flags.
func TestReference(t *testing.T) {
	t.Setenv("NODE_NAME", "")
	t.Setenv("POD_NAMESPACE", "")
	reference.Page(t, "../..", "herald-speaker.md", reference.Command("Flags of herald-speaker", command(), ""))
}
