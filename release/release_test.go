package main

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

var at = time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)

func TestCheckVersion(t *testing.T) {
	for version, valid := range map[string]bool{
		"v0.1.0": true, "v10.20.30": true, "v1.0.0-rc.1": true, "v1.0.0-rc-2.x": true,
		"": false, "dev": false, "0.1.0": false, "v0.1": false, "v01.0.0": false, "v0.1.0-": false, "v0.1.0+build": false,
		"v0.1.0-rc..1": false, "v0.1.0/..": false,
	} {
		if err := checkVersion(version); (err == nil) != valid {
			t.Errorf("%q: %v", version, err)
		} else if err != nil && !strings.Contains(err.Error(), "make release VERSION=v0.1.0") {
			t.Errorf("%q: %v does not name the cure", version, err)
		}
	}
}

func TestNotes(t *testing.T) {
	const changelog = "# Changelog\n\n## [Unreleased]\n\n- Later.\n\n" +
		"## [0.2.0] - 2026-03-01\n\n### Addresses\n\n- More.\n\n" +
		"## [0.2.0-rc.1] - 2026-02-01\n\n- Some.\n\n## [0.1.0] - 2026-01-01\n\n## [0.0.1] - 2025-01-01\n- First.\n"
	for number, want := range map[string]string{
		"0.2.0":      "### Addresses\n\n- More.\n",
		"0.2.0-rc.1": "- Some.\n",
		"0.0.1":      "- First.\n",
		"0.1.0":      "error: CHANGELOG.md has nothing in the section of 0.1.0",
		"0.3.0":      `error: CHANGELOG.md has no section "## [0.3.0] - YYYY-MM-DD"`,
		"0.2":        `error: CHANGELOG.md has no section "## [0.2] - YYYY-MM-DD"`,
	} {
		got, err := notesOf(changelog, number)
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != want && (err == nil || !strings.HasPrefix(got, want)) {
			t.Errorf("%s: got %q, want %q", number, got, want)
		}
	}
}

func TestCommitTime(t *testing.T) {
	if got, err := commitTime(t.Context(), "1770091506"); err != nil || !got.Equal(at) {
		t.Errorf("got %v, %v, want %v", got, err, at)
	}
	if got, err := commitTime(t.Context(), "yesterday"); err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH") {
		t.Errorf("got %v, %v, want an error that names SOURCE_DATE_EPOCH", got, err)
	}
}

// TestATreeThatDiffersIsRefused checks commitTime with a clean tree and with a changed one.
func TestATreeThatDiffersIsRefused(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	t.Setenv("GIT_COMMITTER_DATE", at.Format(time.RFC3339))
	command(t, "git", "init", "-q")
	command(t, "git", "-c", "user.name=x", "-c", "user.email=x@example.com", "commit", "-q", "--allow-empty", "-m", "first")
	if got, err := commitTime(t.Context(), ""); err != nil || !got.Equal(at) {
		t.Errorf("got %v, %v, want %v", got, err, at)
	}
	if err := os.WriteFile("main.go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := commitTime(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "main.go") || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH") {
		t.Errorf("got %v, %v, want an error that names main.go and SOURCE_DATE_EPOCH", got, err)
	}
	if got, err := commitTime(t.Context(), "1770091506"); err != nil || !got.Equal(at) {
		t.Errorf("got %v, %v, want %v", got, err, at)
	}
}

// TestTheBuildersSettings checks that a release ignores the builder's settings in the environment, in the file of
// go env -w and in a go.work file.
func TestTheBuildersSettings(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"env":     "GOFLAGS=-tags=foo\nGOFIPS140=latest\nGOAMD64=v3\n",
		"go.work": "go 1.26\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	t.Setenv("GOENV", filepath.Join(dir, "env"))
	t.Setenv("GOARM", "5")
	names := []string{"GOFLAGS", "GOFIPS140", "GOEXPERIMENT", "GOAMD64", "GOARM", "GOWORK", "CGO_ENABLED"}
	settings := exec.CommandContext(t.Context(), "go", append([]string{"env"}, names...)...)
	settings.Env = platform{os: "linux", arch: "amd64"}.environment()
	got, err := run(settings)
	if want := "\noff\n\nv1\n7\noff\n0\n"; err != nil || string(got) != want {
		t.Errorf("%v: %q are %q, want %q", err, names, got, want)
	}
}

// TestTheTag runs the first job of the release workflow for tags of commits on main and on another branch.
func TestTheTag(t *testing.T) {
	content, err := os.ReadFile("../.github/workflows/release.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var workflow struct {
		Jobs map[string]struct {
			Steps []struct{ Run string }
		}
	}
	if err := yaml.Unmarshal(content, &workflow); err != nil {
		t.Fatal(err)
	}
	var script string
	for _, step := range workflow.Jobs["tag"].Steps {
		script += step.Run + "\n"
	}
	t.Chdir(t.TempDir())
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	commit := func(branch string) string {
		command(t, "git", "checkout", "-q", "-B", branch)
		command(t, "git", "-c", "user.name=x", "-c", "user.email=x@example.com", "commit", "-q", "--allow-empty", "-m", branch)
		return strings.TrimSpace(command(t, "git", "rev-parse", "HEAD"))
	}
	command(t, "git", "init", "-q")
	before := commit("main")
	main := commit("main")
	command(t, "git", "update-ref", "refs/remotes/origin/main", main)
	for _, c := range []struct{ tag, commit, complaint string }{
		{"v0.1.0", main, ""},
		{"v10.0.1-rc.1", before, ""},
		{"v0.1.0", commit("other"), "is not on main"},
		{"v1", main, "is not the version of a release"},
		{"v1.0.0';id;'", main, "is not the version of a release"},
		{"v1.0.0-$(id)", main, "is not the version of a release"},
		{"v1.0.0\nv1.0.0", main, "is not the version of a release"},
	} {
		check := exec.CommandContext(t.Context(), "bash", "-e", "-c", script)
		check.Env = append(os.Environ(), "GITHUB_REF_NAME="+c.tag, "GITHUB_SHA="+c.commit)
		if out, err := check.CombinedOutput(); (err == nil) != (c.complaint == "") || !strings.Contains(string(out), c.complaint) {
			t.Errorf("%q of %s: %v: %s, want %q", c.tag, c.commit, err, out, c.complaint)
		}
	}
}

// TestTheVersionIsNoCommand runs make with a version that contains shell commands. They must not be executed.
func TestTheVersionIsNoCommand(t *testing.T) {
	for _, target := range []string{"build", "release", "publish"} {
		for _, plan := range []*exec.Cmd{
			exec.CommandContext(t.Context(), "env", "VERSION=v1';id;$(shell id)`id`", "make", "-C", "..", "-n", target),
			exec.CommandContext(t.Context(), "make", "-C", "..", "-n", target, "VERSION=v1';id;`id`"),
		} {
			if out, err := run(plan); err != nil || strings.Contains(string(out), "v1'") || strings.Contains(string(out), "uid=") {
				t.Errorf("%v: %v: %s", plan, err, out)
			}
		}
	}
}

func TestLastStage(t *testing.T) {
	const instructions = "FROM golang AS build\nRUN make\n\nFROM scratch\n" +
		"LABEL a.title=\"A b\" \\\n      a.source=\"https://example.com\"\n# Why.\nCOPY --from=build /out/a /out/b /usr/bin/\nENV PATH=/usr/bin\nUSER 1:2\n"
	got, err := lastStage(instructions)
	want := stage{programs: []string{"a", "b"}, to: "usr/bin", config: runConfig{
		User: "1:2", Env: []string{"PATH=/usr/bin"}, Labels: map[string]string{"a.title": "A b", "a.source": "https://example.com"},
	}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(stage{})); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
	for dockerfile, complaint := range map[string]string{
		instructions + "EXPOSE 80\n":              `what a release does with "EXPOSE 80"`,
		instructions + "COPY LICENSE /\n":         `what a release does with "COPY LICENSE /"`,
		"FROM debian\nUSER 1:2\n":                 "no stage is FROM scratch",
		"FROM golang AS build\n\nFROM scratch\n#": "copies no programs",
	} {
		if _, err := lastStage(dockerfile); err == nil || !strings.Contains(err.Error(), complaint) {
			t.Errorf("%q: got %v, want %q", dockerfile, err, complaint)
		}
	}
}

// releaseOf returns a release with an empty output directory, and a directory of programs that are a line of text each.
func releaseOf(t *testing.T) (r *release, programs string) {
	t.Helper()
	t.Chdir("..") // make runs the command in the root of the tree.
	programs = t.TempDir()
	for _, p := range append(slices.Clone(imagePlatforms), pluginPlatforms...) {
		if err := os.MkdirAll(p.directory(programs), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"herald-ccm", "herald-speaker", p.pluginProgram()} {
			if err := os.WriteFile(filepath.Join(p.directory(programs), name), []byte(name+" "+p.os+" "+p.arch), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	return &release{version: "v1.2.3", out: t.TempDir(), helm: "build/bin/helm", time: at}, programs
}

// TestImage pushes an image to a registry with crane, as the release workflow does, and checks the image there.
func TestImage(t *testing.T) {
	r, programs := releaseOf(t)
	if err := r.writeImage(programs); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	command(t, "tar", "-x", "-C", dir, "-f", r.path("herald-image_v1.2.3.tar"))
	var top index
	content, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err == nil {
		err = json.Unmarshal(content, &top)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := top.Manifests[0].Annotations["io.containerd.image.name"]; got != "ghcr.io/heraldlb/herald:v1.2.3" {
		t.Errorf("containerd would import it as %q", got)
	}

	crane := buildCrane(t)
	image := startRegistry(t, crane) + "/herald:v1.2.3"
	if pushed := command(t, crane, "push", dir, image); !strings.HasSuffix(pushed, "@"+top.Manifests[0].Digest+"\n") {
		t.Errorf("the digest in the registry, %q, is not that in the archive, %s", pushed, top.Manifests[0].Digest)
	}
	for _, p := range []string{"linux/amd64", "linux/arm64", "linux/arm/v7"} {
		t.Run(p, func(t *testing.T) {
			command(t, crane, "validate", "--remote", image, "--platform", p)
			var config struct {
				Created                   time.Time
				OS, Architecture, Variant string
				Config                    runConfig
			}
			if err := json.Unmarshal([]byte(command(t, crane, "config", image, "--platform", p)), &config); err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSuffix(config.OS+"/"+config.Architecture+"/"+config.Variant, "/"); got != p || !config.Created.Equal(at) {
				t.Errorf("is for %s, of %v", got, config.Created)
			}
			if config.Config.User != "65532:65532" || !slices.Equal(config.Config.Env, []string{"PATH=/usr/local/bin"}) ||
				config.Config.Labels["org.opencontainers.image.title"] != "Herald" || config.Config.Labels["org.opencontainers.image.version"] != "v1.2.3" {
				t.Errorf("does not run as the Dockerfile says: %+v", config.Config)
			}
			on := strings.ReplaceAll(strings.TrimSuffix(p, "/v7"), "/", " ")
			want := map[string]string{
				"usr": "", "usr/local": "", "usr/local/bin": "",
				"usr/local/bin/herald-ccm": "herald-ccm " + on, "usr/local/bin/herald-speaker": "herald-speaker " + on,
			}
			if diff := cmp.Diff(want, untar(t, []byte(command(t, crane, "export", image, "-", "--platform", p)))); diff != "" {
				t.Errorf("files, -want +got:\n%s", diff)
			}
		})
	}
}

// untar returns the files of an archive. It checks that they belong to root, have the release's time and are
// world-readable.
func untar(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	files := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if !header.ModTime.Equal(at) || header.Uid != 0 || header.Mode&0o444 != 0o444 {
			t.Errorf("%s: is of %v, of user %d, mode %o", header.Name, header.ModTime, header.Uid, header.Mode)
		}
		files[header.Name] = string(content)
	}
}

// TestPlugin checks what krew uses to install the plugin on each platform: the selector, the checksum, and the program in
// the archive.
func TestPlugin(t *testing.T) {
	r, programs := releaseOf(t)
	if err := r.writePlugin(programs); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(r.path("krew.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var k krewPlugin
	if err := yaml.UnmarshalStrict(content, &k); err != nil {
		t.Fatal(err)
	}
	if k.Metadata.Name != "herald" || k.Spec.Version != "v1.2.3" || len(k.Spec.ShortDescription) > 50 {
		t.Errorf("krew would not take %+v", k)
	}
	platforms := map[string]string{} // The program and the file extension of the archive by platform.
	for _, p := range k.Spec.Platforms {
		name := p.Selector.MatchLabels["os"] + " " + p.Selector.MatchLabels["arch"]
		platforms[name] = p.Bin + " in " + p.URI[strings.LastIndex(p.URI, p.Selector.MatchLabels["arch"])+len(p.Selector.MatchLabels["arch"]):]
		asset, ours := strings.CutPrefix(p.URI, "https://github.com/heraldlb/herald/releases/download/v1.2.3/")
		archive, err := os.ReadFile(r.path(asset))
		if err != nil || !ours {
			t.Fatalf("%s: %s: %v", name, p.URI, err)
		}
		if sum := fmt.Sprintf("%x", sha256.Sum256(archive)); sum != p.SHA256 {
			t.Errorf("%s: the checksum is %s, and krew is told %s", asset, sum, p.SHA256)
		}
		var files map[string]string
		if strings.HasSuffix(asset, ".zip") {
			files = unzip(t, archive)
		} else {
			files = untar(t, gunzip(t, archive))
		}
		if got, want := files[p.Bin], p.Bin+" "+name; got != want {
			t.Errorf("%s: the program is %q, want %q", asset, got, want)
		}
		if !strings.Contains(files["LICENSE"], "Apache License") {
			t.Errorf("%s has no license, which krew wants", asset)
		}
	}
	want := map[string]string{
		"linux amd64": "kubectl-herald in .tar.gz", "linux arm64": "kubectl-herald in .tar.gz",
		"darwin amd64": "kubectl-herald in .tar.gz", "darwin arm64": "kubectl-herald in .tar.gz",
		"windows amd64": "kubectl-herald.exe in .zip",
	}
	if diff := cmp.Diff(want, platforms); diff != "" {
		t.Errorf("platforms, -want +got:\n%s", diff)
	}
}

// unzip returns the files of an archive. It checks that they have the release's time and are world-readable.
func unzip(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	r, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, f := range r.File {
		content, err := fs.ReadFile(r, f.Name)
		if err != nil {
			t.Fatal(err)
		}
		if !f.Modified.Equal(at) || f.Mode()&0o444 != 0o444 {
			t.Errorf("%s: is of %v, mode %o", f.Name, f.Modified, f.Mode())
		}
		files[f.Name] = string(content)
	}
	return files
}

func gunzip(t *testing.T, compressed []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

var images = regexp.MustCompile(`(?m)^ +(?:- )?image: (.*)$`)

// TestManifests checks that all manifests have the released image.
func TestManifests(t *testing.T) {
	r, _ := releaseOf(t)
	if err := r.writeManifests(t.Context()); err != nil {
		t.Fatal(err)
	}
	said := map[string]string{"herald.yaml": "NET_RAW", "herald-bgp.yaml": "runAsUser: 65532", "herald-l2.yaml": "--l2-only", "herald-dead-nodes.yaml": "--mark-pods-on-dead-nodes"}
	for name, want := range said {
		content, err := os.ReadFile(r.path(name))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(content), want) {
			t.Errorf("%s has no %s", name, want)
		}
		checkImages(t, name, string(content))
	}
	if _, err := withImage([]byte("        "+unreleased+"\n"), r.image()); err == nil {
		t.Error("a manifest with one image is released")
	}
}

// TestChart packages the chart with Helm and renders the package.
func TestChart(t *testing.T) {
	r, _ := releaseOf(t)
	if _, err := os.Stat(r.helm); err != nil && os.Getenv("HERALD_REQUIRE_ROOT") == "" {
		t.Skip("needs Helm: make helm")
	}
	if err := r.writeChart(t.Context()); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(r.path("herald-1.2.3.tgz"))
	if err != nil {
		t.Fatal(err)
	}
	if files := untar(t, gunzip(t, content)); files["herald/values.schema.json"] == "" {
		t.Error("the chart has no schema of its values")
	}
	rendered := command(t, r.helm, "template", "herald", r.path("herald-1.2.3.tgz"))
	checkImages(t, "the chart", rendered)
	if said := command(t, r.helm, "show", "chart", r.path("herald-1.2.3.tgz")); !strings.Contains(said, "\nversion: 1.2.3\n") || !strings.Contains(said, "appVersion: v1.2.3\n") {
		t.Errorf("the chart is not of version 1.2.3: %s", said)
	}
}

// checkImages checks that herald-ccm and herald-speaker have the released image.
func checkImages(t *testing.T, name, rendered string) {
	t.Helper()
	var got []string
	for _, image := range images.FindAllStringSubmatch(rendered, -1) {
		got = append(got, image[1])
	}
	const want = "ghcr.io/heraldlb/herald:v1.2.3"
	if len(got) < 2 || slices.ContainsFunc(got, func(image string) bool { return image != want }) {
		t.Errorf("%s has the images %q, want %q for both programs and for what tests them", name, got, want)
	}
}

func TestChecksums(t *testing.T) {
	r, _ := releaseOf(t)
	for _, name := range []string{"b", "a c"} {
		if err := r.writeFile(name, []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.writeChecksums(); err != nil {
		t.Fatal(err)
	}
	check := exec.CommandContext(t.Context(), "sha256sum", "--check", "checksums.txt")
	check.Dir = r.out
	if out, err := check.CombinedOutput(); err != nil || string(out) != "a c: OK\nb: OK\n" {
		t.Errorf("%v: %s", err, out)
	}
}

// buildCrane builds crane and returns the path of the program.
func buildCrane(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "crane")
	command(t, "go", "build", "-modfile=tools/go.mod", "-o", program, "github.com/google/go-containerregistry/cmd/crane")
	return program
}

// startRegistry starts an empty registry and returns its address.
func startRegistry(t *testing.T, crane string) string {
	t.Helper()
	serve := exec.CommandContext(t.Context(), crane, "registry", "serve", "--address=127.0.0.1:0")
	stderr, err := serve.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	t.Cleanup(func() {
		reading.Wait()
		_ = serve.Wait() // It was killed when the test's context ended.
	})
	var said []string
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		said = append(said, lines.Text())
		if _, port, found := strings.Cut(lines.Text(), "serving on port "); found {
			reading.Go(func() { _, _ = io.Copy(io.Discard, stderr) })
			return "127.0.0.1:" + port
		}
	}
	t.Fatal("the registry does not serve:", said)
	return ""
}

// command runs a program and returns its standard output.
func command(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := run(exec.CommandContext(t.Context(), program, args...))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
