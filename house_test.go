// Package herald_test checks rules for the whole repository: which packages may import which, that every
// package has a package comment, and that no file has a path of a developer's machine.
package herald_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/heraldlb/herald"

// rule limits the dependencies of packages, direct and indirect. Packages are named by patterns of the go
// command. A leading "./" means this module. "..." alone means everything except the standard library.
type rule struct {
	packages string
	never    []string
	// but lists exceptions from never. tests lists exceptions for tests only.
	but, tests []string
	why        string
}

// pure lists the packages below speaker/ that use no sockets.
var pure = []string{"./speaker/announce/...", "./speaker/inspect/...", "./speaker/bgp/route/...", "./speaker/segment/ownership/..."}

// network lists modules that need Linux, or that send routes and frames.
var network = []string{"github.com/osrg/gobgp/...", "github.com/mdlayher/...", "github.com/vishvananda/..."}

var rules = []rule{{
	packages: "./...", never: []string{"./cmd/..."}, but: []string{"./cmd/internal/...", "./cmd/kubectl-herald/internal/..."},
	why: "commands wire packages together, not the other way round",
}, {
	packages: "./cmd/kubectl-herald/internal/...", never: []string{"k8s.io/cli-runtime/..."},
	why: "what the plugin says is computed from objects: it reads no files, flags or clusters",
}, {
	packages: "./cmd/kubectl-herald/...", never: append([]string{"./speaker/..."}, network...), but: pure,
	why: "administrators run the plugin on macOS and Windows, too",
}, {
	packages: "./speaker/announce/...", never: append([]string{"./...", "k8s.io/client-go/..."}, network...), but: append([]string{"./api/v1alpha1/..."}, pure...),
	why: "it decides on objects: for speakers, and for the plugin on any operating system",
}, {
	packages: "./provider/...", never: []string{"./speaker/..."},
	why: "they are two programs that meet only through API objects",
}, {
	packages: "./speaker/...", never: []string{"./provider/...", "./ipam/..."},
	why: "a speaker announces what is recorded and allocates nothing",
}, {
	packages: "./api/...", never: []string{"./..."}, but: []string{"./api/..."},
	why: "users of the API must not get the rest with it",
}, {
	packages: "./ipam/...", never: []string{"..."}, but: []string{"./ipam/...", "go4.org/..."},
	tests: []string{"pgregory.net/rapid", "github.com/google/go-cmp/..."},
	why:   "it is arithmetic on addresses: no Kubernetes, no log, no I/O",
}}

// leaves returns a rule for each package below speaker/ that only knows the network and no other package.
func leaves(packages []listed) []rule {
	var dirs []string
	for _, p := range packages {
		if below, ok := strings.CutPrefix(p.ImportPath, module+"/speaker/"); ok {
			if leaf, _, _ := strings.Cut(below, "/"); leaf != "announce" {
				dirs = append(dirs, "./speaker/"+leaf+"/...")
			}
		}
	}
	slices.Sort(dirs)
	// ARP and NDP both use the responder, whose tests use both.
	protocols := []string{"./speaker/arp/...", "./speaker/ndp/..."}
	const responder = "./speaker/responder/..."
	var rules []rule
	for _, d := range slices.Compact(dirs) {
		r := rule{
			packages: d, never: []string{"./...", "k8s.io/...", "sigs.k8s.io/..."},
			but: []string{d}, tests: []string{"./e2e/lab/..."},
			why: "a leaf knows addresses and interfaces, not Kubernetes, and can be used by itself",
		}
		if slices.Contains(protocols, d) {
			r.but = append(r.but, responder)
		}
		if d == "./speaker/ask/..." { // It answers the requests that package inspect defines.
			r.but = append(r.but, "./speaker/inspect/...")
		}
		if d == responder {
			r.tests = append(r.tests, protocols...)
		}
		rules = append(rules, r)
	}
	return rules
}

// listed is the output of go list about a package.
type listed struct {
	ImportPath, Dir                    string
	Standard, DepOnly                  bool
	Deps, TestImports, XTestImports    []string
	GoFiles, TestGoFiles, XTestGoFiles []string
}

// list returns this module's packages, and the set of packages of the standard library that they depend on.
func list(t *testing.T) (ours []listed, standard map[string]bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-test",
		"-json=ImportPath,Dir,Standard,DepOnly,Deps,TestImports,XTestImports,GoFiles,TestGoFiles,XTestGoFiles", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v: %s", cmd, err, &stderr)
	}
	standard = map[string]bool{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return ours, standard
		case err != nil:
			t.Fatal(err)
		case p.Standard:
			standard[p.ImportPath] = true
		case !p.DepOnly && !strings.HasSuffix(p.ImportPath, ".test") && !strings.Contains(p.ImportPath, " "):
			ours = append(ours, p) // without the packages that go test generates
		}
	}
}

// matches reports whether a pattern matches the path of a package.
func matches(pattern, path string) bool {
	if pattern == "..." {
		return true
	}
	if strings.HasPrefix(pattern, "./") {
		pattern = module + pattern[1:]
	}
	if parent, all := strings.CutSuffix(pattern, "/..."); all {
		return path == parent || strings.HasPrefix(path, parent+"/")
	}
	return path == pattern
}

func among(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, path) })
}

func TestImports(t *testing.T) {
	packages, standard := list(t)
	for _, r := range append(rules, leaves(packages)...) {
		t.Run(strings.NewReplacer("./...", "all", "./", "", "/...", "").Replace(r.packages), func(t *testing.T) {
			bound := 0
			for _, p := range packages {
				if !matches(r.packages, p.ImportPath) {
					continue
				}
				bound++
				check := func(how string, imports, but []string) {
					for _, i := range imports {
						if !standard[i] && among(r.never, i) && !among(but, i) {
							t.Errorf("%s %s %s: %s", p.ImportPath, how, i, r.why)
						}
					}
				}
				check("depends on", p.Deps, r.but)
				check("has tests that import", slices.Concat(p.TestImports, p.XTestImports), slices.Concat(r.but, r.tests))
			}
			if bound == 0 {
				t.Errorf("no package is called %s: mend the rule", r.packages)
			}
		})
	}
}

func TestPackageComments(t *testing.T) {
	packages, _ := list(t)
	for _, p := range packages {
		documented := false
		for _, name := range slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles) {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			documented = documented || file.Doc != nil
		}
		if !documented {
			t.Errorf("%s has no package comment: say in one file what it is for", p.ImportPath)
		}
	}
}

func TestNoMachinePaths(t *testing.T) {
	home := regexp.MustCompile(`(^|[^\w./-])/(work|root|home)/`)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path == ".git" || path == "build"):
			return fs.SkipDir
		case !d.Type().IsRegular() || path == ".git": // In a worktree, .git is a file.
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for n, line := range bytes.Split(text, []byte("\n")) {
			if found := home.Find(line); found != nil {
				t.Error(fmt.Sprintf("%s:%d", path, n+1), "names a path of somebody's machine:", string(line))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
