package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/heraldlb/herald/e2e/lab"
)

const quickStart = "docs/quick-start.md"

// quickStartBlocks returns the code blocks that TestQuickStart runs.
func quickStartBlocks(t testing.TB) (blocks []string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", quickStart))
	if err != nil {
		t.Fatal(err)
	}
	before, failure, ok := strings.Cut(string(page), "\n## 6. A failure\n")
	if !ok || !strings.Contains(failure, "docker kill NODE") {
		t.Fatal("the page has no section 6 that ends a node, which would end it for the stories to come")
	}
	for _, m := range fenced.FindAllStringSubmatch(before, -1) {
		if !strings.Contains(m[1], "kind create cluster") {
			blocks = append(blocks, m[1])
		}
	}
	return blocks
}

// TestTheClusterForContributors runs the commands of CONTRIBUTING.md for the cluster of make e2e-up, which the shared cluster is like.
func TestTheClusterForContributors(t *testing.T) {
	if !onKind() {
		t.Skip("a story of kind: make e2e")
	}
	f := withKind(t, lab.Options{})
	said, err := shared.Shell(f.ctx, "exec 2>&1\n"+blockOf(t, "CONTRIBUTING.md", "--image=test/app"))
	if err != nil || !strings.Contains(said, `"pod":"web-`) {
		t.Errorf("%v: no pod of web answers:\n%s", err, said)
	}
}

// TestQuickStart runs the commands of docs/quick-start.md up to an answered request: with Helm, and in make soak also the
// other way. These steps differ from the page:
//
//   - The cluster already exists, since the test cannot pull kind's own image.
//   - Herald's image already exists, since the test cannot pull the image that builds it. It is loaded as the page says.
//   - The test builds the image nginx, since it cannot pull that one either.
//   - The address range is from the subnet of the test's kind network.
func TestQuickStart(t *testing.T) {
	f := onlyOnKind(t)
	f.withoutHerald()
	dir := t.TempDir()
	app, err := os.ReadFile("../build/bin/app")
	f.must(err)
	f.must(os.WriteFile(filepath.Join(dir, "app"), app, 0o755)) //nolint:gosec // It is a program.
	f.must(shared.BuildImage(f.ctx, "nginx", "FROM scratch\nCOPY app /app\nENV PORT=80\nENTRYPOINT [\"/app\"]\n", dir))
	f.must(shared.LoadImage(f.ctx, "nginx"))

	const file = "kubectl apply -f manifests/herald.yaml"
	for _, way := range []struct{ name, other, uninstall string }{
		{"with Helm", file, "helm uninstall herald --namespace herald-system --wait --timeout 3m"},
		{"without Helm", "helm install", "kubectl delete -f manifests/herald.yaml --timeout=" + kindsPatience.String()},
	} {
		if way.other != file && os.Getenv("HERALD_SOAK") == "" {
			continue
		}
		t.Run(way.name, func(t *testing.T) {
			f := f.within(t)
			f.ctx = storyContext(t) // Each way is a story.
			t.Cleanup(func() {
				if !t.Failed() {
					return
				}
				// The finalizers of these objects keep the CustomResourceDefinitions, and the next story cannot install Herald.
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				_, services := f.access.Kubectl(ctx, "delete", "service,deployment", "web", "--ignore-not-found", "--timeout=60s")
				_, pools := f.access.Kubectl(ctx, "delete", "ippools.herald.dev", "--all", "--timeout=60s")
				if err := errors.Join(services, pools); err != nil {
					t.Error(err)
				}
			})
			commands := slices.DeleteFunc(quickStartBlocks(t), func(block string) bool { return strings.Contains(block, way.other) })
			if len(commands) != 8 {
				t.Fatalf("the page has %d code blocks to run, want 8: %q", len(commands), commands)
			}
			script := strings.NewReplacer(
				"docker build -t ghcr.io/heraldlb/herald:dev .\n", "",
				"172.18.255.200-172.18.255.250", "198.18.0.200-198.18.0.250",
			).Replace(strings.Join(commands[:7], "\n"))
			said, err := shared.Shell(f.ctx, "cd ..\n"+script)
			if err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
			for _, want := range []string{"198.18.0.0/24\n", `"pod":"web-`} {
				if !strings.Contains(said, want) {
					t.Errorf("it does not say %q:\n%s", want, said)
				}
			}
			f.eventually("the speakers have reported what they do", func(ctx context.Context) error {
				said, err := shared.Shell(ctx, "cd ..\n"+commands[7])
				if err == nil && !strings.Contains(said, "Nothing has to be done in Herald: it announces the Service.") {
					err = errors.New(said)
				}
				return err
			})
			f.kubectl("delete", "service,deployment", "web")
			f.kubectl("delete", "ippools.herald.dev", "--all", "--timeout=60s")
			_, err = shared.Shell(f.ctx, "cd ..\n"+way.uninstall)
			f.must(err)
			f.must(f.removeLeftovers(f.ctx))
		})
	}
}
