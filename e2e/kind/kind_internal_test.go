package kind

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAnotherContentIsAnotherImage(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "runc")
	steps := []struct {
		what string
		do   func() error
	}{
		{"nothing", func() error { return nil }},
		{"a file", func() error { return os.WriteFile(file, []byte("a"), 0o644) }},
		{"another content", func() error { return os.WriteFile(file, []byte("b"), 0o644) }},
		{"another mode", func() error { return os.Chmod(file, 0o755) }},
		{"another name", func() error { return os.Rename(file, file+"c") }},
	}
	seen := map[string]string{}
	for _, s := range steps {
		if err := s.do(); err != nil {
			t.Fatal(err)
		}
		print, err := fingerprint(dir)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := fingerprint(dir); err != nil || again != print {
			t.Errorf("%s: %s, then %s, %v", s.what, print, again, err)
		}
		if before, ok := seen[print]; ok {
			t.Errorf("%s has the fingerprint of %s", s.what, before)
		}
		seen[print] = s.what
	}
}

// TestTheGuideIsTrue compares what a developer is told with the sources of what is told.
func TestTheGuideIsTrue(t *testing.T) {
	guide := Guide()
	for _, want := range []string{
		"herald-control-plane, k8s-node1 (herald-worker), k8s-node2 (herald-worker2), k8s-node3 (herald-worker3).\n",
		"test/app:latest, a web server on port 8080.", "kind load docker-image --name herald IMAGE", "198.18.0.200-198.18.0.250",
		"kubectl apply -k e2e/kind/herald installs: manifests/base with the component dead-nodes.\n",
	} {
		if !strings.Contains(guide, want) {
			t.Errorf("it does not say %q:\n%s", want, guide)
		}
	}
	for file, want := range map[string]string{
		"images.sh":                 "docker build -q -t test/app -\n",
		"../app/main.go":            `cmp.Or(os.Getenv("PORT"), "8080")`,
		"../../CONTRIBUTING.md":     "spec: {addresses: [" + free + "]}\n",
		"herald/kustomization.yaml": "resources:\n  - ../../../manifests/base\ncomponents:\n  - ../../../manifests/components/dead-nodes\npatches:\n",
	} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(content), want) {
			t.Errorf("%s does not have %q, and the guide says so", file, want)
		}
	}
}

func TestConflist(t *testing.T) {
	got, err := conflist([]netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:10:244:1::/64")})
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [
    {
      "ipam": {
        "dataDir": "/run/cni-addresses",
        "ranges": [
          [
            {
              "subnet": "10.244.1.0/24"
            }
          ],
          [
            {
              "subnet": "fd00:10:244:1::/64"
            }
          ]
        ],
        "routes": [
          {
            "dst": "0.0.0.0/0"
          },
          {
            "dst": "::/0"
          }
        ],
        "type": "host-local"
      },
      "type": "ptp"
    },
    {
      "capabilities": {
        "portMappings": true
      },
      "type": "portmap"
    }
  ]
}`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
