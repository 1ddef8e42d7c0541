package main

import (
	"testing"

	"github.com/heraldlb/herald/cmd/internal/reference"
)

// TestReference checks the reference page, which is generated from the commands.
func TestReference(t *testing.T) {
	t.Setenv("HOME", "~")
	t.Setenv("KUBECACHEDIR", "")
	reference.Page(t, "../..", "kubectl-herald.md", reference.Command("Commands of kubectl herald", command(), ""))
}
