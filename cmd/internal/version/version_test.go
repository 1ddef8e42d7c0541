package version

import (
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	stamped := func(v string) *debug.BuildInfo { return &debug.BuildInfo{Main: debug.Module{Version: v}} }
	for _, tc := range []struct {
		name    string
		release string
		info    *debug.BuildInfo
		want    string
	}{
		{"a release", "v1.2.3", stamped("v0.0.0-20260102030405-abcdef123456"), "v1.2.3"},
		{"a release of a program without build information", "v1.2.3", nil, "v1.2.3"},
		{"stamped by the go command", "", stamped("v0.0.0-20260102030405-abcdef123456+dirty"), "v0.0.0-20260102030405-abcdef123456+dirty"},
		{"built with -buildvcs=false", "", stamped("(devel)"), "devel"},
		{"a test's program", "", stamped(""), "devel"},
		{"nothing is known", "", nil, "devel"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := choose(tc.release, tc.info); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// TestLinker checks the name of the variable that the Makefile and the Dockerfile set.
func TestLinker(t *testing.T) {
	program := filepath.Join(t.TempDir(), "kubectl-herald")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program,
		"-ldflags", "-X github.com/heraldlb/herald/cmd/internal/version.release=v1.2.3", "github.com/heraldlb/herald/cmd/kubectl-herald")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), program, "--version").Output()
	if err != nil || !strings.Contains(string(out), "v1.2.3") {
		t.Errorf("got %q, %v, want v1.2.3", out, err)
	}
}
