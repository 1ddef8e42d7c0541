package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/heraldlb/herald/cmd/internal/reference"
	"github.com/heraldlb/herald/cmd/internal/version"
)

func TestFlags(t *testing.T) {
	for _, story := range []struct {
		args  []string
		said  string // or the error
		level zapcore.Level
	}{
		{[]string{"--version"}, "herald-ccm version " + version.String(), zap.InfoLevel},
		{[]string{"--version", "--log-level=debug"}, "herald-ccm version ", zap.DebugLevel},
		{[]string{"--log-level=loud"}, `invalid argument "loud" for "--log-level" flag`, zap.InfoLevel},
	} {
		m := &manager{ctx: context.Background(), log: zap.NewNop(), logLevel: zap.NewAtomicLevel()}
		cmd, err := m.command()
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SetArgs(story.args)
		said := ""
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			said = err.Error()
		}
		if said += out.String(); !strings.Contains(said, story.said) || m.logLevel.Level() != story.level {
			t.Errorf("%v: %q at level %v, want %q at %v", story.args, said, m.logLevel.Level(), story.said, story.level)
		}
	}
}

// TestReference checks the reference page, which is generated from the flags.
func TestReference(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "")
	m := &manager{ctx: t.Context(), log: zap.NewNop(), logLevel: zap.NewAtomicLevel()}
	cmd, err := m.command()
	if err != nil {
		t.Fatal(err)
	}
	reference.Page(t, "../..", "herald-ccm.md", reference.Command("Flags of herald-ccm", cmd, "Herald flags"))
}
