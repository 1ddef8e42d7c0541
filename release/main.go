// Command release builds the parts of a Herald release: the image, the chart, the manifests, the kubectl plugin, bills of
// materials, notes and checksums. The build is reproducible: the same commit and the same Go version give the same bytes.
// `make release` runs the command in the root of the tree.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	source     = "https://github.com/heraldlb/herald"
	repository = "ghcr.io/heraldlb/herald"
	plugin     = "kubectl-herald"
	// unreleased is the image line that the manifests have before a release.
	unreleased = "image: " + repository + ":dev"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	r := release{
		version: os.Getenv("VERSION"), out: "build/release",
		helm: "build/bin/helm", sbom: "build/bin/cyclonedx-gomod",
	}
	err := r.build(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

type release struct {
	version    string    // For example v1.2.3.
	out        string    // Directory for the release. Its contents are replaced.
	helm, sbom string    // Paths of programs.
	time       time.Time // Timestamp of everything in the release.
}

// number returns the version in the form of Helm and the changelog, without the v.
func (r *release) number() string { return strings.TrimPrefix(r.version, "v") }

func (r *release) image() string { return repository + ":" + r.version }

func (r *release) build(ctx context.Context) error {
	if err := checkVersion(r.version); err != nil {
		return err
	}
	changelog, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		return err
	}
	notes, err := notesOf(string(changelog), r.number())
	if err != nil {
		return err
	}
	if r.time, err = commitTime(ctx, os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		return err
	}
	if err := os.RemoveAll(r.out); err != nil {
		return err
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	programs, err := os.MkdirTemp("", "herald-programs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(programs)
	for _, p := range imagePlatforms {
		if err := r.compile(ctx, p.directory(programs), p, imagePrograms...); err != nil {
			return err
		}
	}
	for _, p := range pluginPlatforms {
		if err := r.compile(ctx, p.directory(programs), p, plugin); err != nil {
			return err
		}
	}
	for _, write := range []func() error{
		func() error { return r.writeFile("notes.md", []byte(notes)) },
		func() error { return r.writeImage(programs) },
		func() error { return r.writePlugin(programs) },
		func() error { return r.writeSBOMs(ctx, programs) },
		func() error { return r.writeManifests(ctx) },
		func() error { return r.writeChart(ctx) },
		r.writeChecksums,
	} {
		if err := write(); err != nil {
			return err
		}
	}
	return nil
}

func (r *release) writeChecksums() error {
	sums, err := checksums(r.out)
	if err != nil {
		return err
	}
	return r.writeFile("checksums.txt", sums)
}

// versions matches semantic versions, except for parts that are not allowed in an image tag.
var versions = regexp.MustCompile(`^v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)

func checkVersion(version string) error {
	if !versions.MatchString(version) {
		return fmt.Errorf("VERSION is %q, which is not the version of a release: give one such as v0.1.0 or v0.1.0-rc.1, with make release VERSION=v0.1.0", version)
	}
	return nil
}

// commitTime returns SOURCE_DATE_EPOCH or, if it is empty, the time of the commit that is built. In that case the tree
// must not differ from the commit.
func commitTime(ctx context.Context, epoch string) (time.Time, error) {
	if epoch == "" {
		changed, err := run(exec.CommandContext(ctx, "git", "status", "--porcelain"))
		if err != nil {
			return time.Time{}, fmt.Errorf("does this tree differ from its commit? Set SOURCE_DATE_EPOCH to the seconds since 1970: %w", err)
		}
		if len(changed) > 0 {
			return time.Time{}, fmt.Errorf("this tree differs from its commit, whose time the release would bear: commit or remove what differs, or set SOURCE_DATE_EPOCH to the seconds since 1970:\n%s", bytes.TrimRight(changed, "\n"))
		}
		out, err := run(exec.CommandContext(ctx, "git", "log", "-1", "--format=%ct"))
		if err != nil {
			return time.Time{}, fmt.Errorf("when was this tree committed? Set SOURCE_DATE_EPOCH to the seconds since 1970: %w", err)
		}
		epoch = strings.TrimSpace(string(out))
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: want seconds since 1970: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// platform is a target platform of the go command.
type platform struct{ os, arch, arm string }

// directory returns the directory of the programs for a platform.
func (p platform) directory(programs string) string { return filepath.Join(programs, p.os+"_"+p.arch) }

// environment returns the environment for the go command. It overrides the builder's own settings, in the environment, by
// go env -w and by a go.work file.
func (p platform) environment() []string {
	return append(os.Environ(), "GOENV=off", "GOWORK=off", "GOFLAGS=", "GOEXPERIMENT=", "GOFIPS140=off", "CGO_ENABLED=0",
		"GOOS="+p.os, "GOARCH="+p.arch, "GOAMD64=v1", "GOARM64=v8.0", "GOARM="+cmp.Or(p.arm, "7"))
}

// compile builds programs of cmd/ into a directory.
func (r *release) compile(ctx context.Context, dir string, p platform, names ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	fmt.Println("Building", strings.Join(names, " and "), "for", p.os+"/"+p.arch+p.arm)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -X github.com/heraldlb/herald/cmd/internal/version.release="+r.version, "-o", dir+"/")
	for _, name := range names {
		build.Args = append(build.Args, "./cmd/"+name)
	}
	build.Env = p.environment()
	_, err := run(build)
	return err
}

// writeManifests renders the manifests for installations without Helm.
func (r *release) writeManifests(ctx context.Context) error {
	for _, m := range []struct{ name, from string }{
		{"herald.yaml", "manifests/base"},
		{"herald-bgp.yaml", "manifests/overlays/bgp"},
		{"herald-l2.yaml", "manifests/overlays/l2"},
		{"herald-dead-nodes.yaml", "manifests/overlays/dead-nodes"},
	} {
		rendered, err := run(exec.CommandContext(ctx, "go", "tool", "-modfile=tools/go.mod", "kustomize", "build", m.from))
		if err != nil {
			return err
		}
		released, err := withImage(rendered, r.image())
		if err != nil {
			return fmt.Errorf("%s: %w", m.from, err)
		}
		if err := r.writeFile(m.name, released); err != nil {
			return err
		}
	}
	return nil
}

// withImage replaces the image in manifests by the released image.
func withImage(manifests []byte, image string) ([]byte, error) {
	if n := bytes.Count(manifests, []byte(unreleased)); n != 2 {
		return nil, fmt.Errorf("has %q %d times, want it twice: for herald-ccm and for herald-speaker", unreleased, n)
	}
	return bytes.ReplaceAll(manifests, []byte(unreleased), []byte("image: "+image)), nil
}

// writeChart packages the chart. Helm takes the times from the files.
func (r *release) writeChart(ctx context.Context) error {
	tmp, err := os.MkdirTemp("", "herald-chart-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	chart := filepath.Join(tmp, "herald")
	if err := os.CopyFS(chart, os.DirFS("manifests/charts/herald")); err != nil {
		return err
	}
	if err := setTimes(chart, r.time); err != nil {
		return err
	}
	_, err = run(exec.CommandContext(ctx, r.helm, "package", chart, "--destination", r.out,
		"--version", r.number(), "--app-version", r.version))
	return err
}

// writeSBOMs writes a bill of materials for each program, from the modules that the linker recorded in it.
func (r *release) writeSBOMs(ctx context.Context, programs string) error {
	for _, name := range append(slices.Clone(imagePrograms), plugin) {
		_, err := run(exec.CommandContext(ctx, r.sbom, "bin", "-json", "-std", "-noserial", "-notimestamp", "-version", r.version,
			"-output", r.path(name+".cdx.json"), filepath.Join(platform{os: "linux", arch: "amd64"}.directory(programs), name)))
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *release) path(name string) string { return filepath.Join(r.out, name) }

func (r *release) writeFile(name string, content []byte) error {
	return os.WriteFile(r.path(name), content, 0o644)
}

// run returns the standard output of a command. Its error includes the standard error.
func run(cmd *exec.Cmd) ([]byte, error) {
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil, fmt.Errorf("%v: %w: %s", cmd, err, bytes.TrimSpace(exit.Stderr))
	}
	return out, err
}
