package main

import (
	"testing"

	"github.com/heraldlb/herald/cmd/internal/reference"
)

// TestReference checks the page on the commands, which is made from them.
func TestReference(t *testing.T) {
	t.Setenv("HOME", "~")
	t.Setenv("KUBECACHEDIR", "")
	reference.Page(t, "../..", "kubectl-herald.md", reference.Command("Commands of kubectl herald", command(), ""))
}
